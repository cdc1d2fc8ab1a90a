//! Checks a recorded key-value history: is there one order that explains it?
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use std::{fs::File, io::BufReader, process::ExitCode};

use vr_sim::linearizability::{
    STEPS_MAX, check_within,
    file::{self, KV},
    kv::{KvModel, KvOp},
    verdict::Verdict,
};

const USAGE: &str = "\
usage: linearize [--steps N] FILE

  FILE       a history of key-value operations; docs/TESTING.md describes the format
  --steps N  how much to try for each key before giving up (default: 1000000)
Exit status 0 if one order explains the history, 1 if none does (with a drawing of why), 2 if that
could not be decided or the file is no such history.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match verdict(&words) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn verdict(words: &[String]) -> Result<ExitCode, String> {
    let (path, steps) = match words {
        [path] if !path.starts_with("--") => (path, STEPS_MAX),
        [option, steps, path] if option == "--steps" => {
            let steps = steps.parse().map_err(|_| format!("'{steps}' is not a number\n{USAGE}"))?;
            (path, steps)
        }
        _ => return Err(USAGE.to_owned()),
    };
    let opened = File::open(path).map_err(|why| format!("{path}: {why}"))?;
    let history = file::read(BufReader::new(opened), KV, KvOp::can_return);
    let history = history.map_err(|why| format!("{path}: {why}"))?;
    let verdict = check_within(&KvModel, &history, steps);
    println!("{verdict}");
    Ok(ExitCode::from(match verdict {
        Verdict::Linearizable { .. } => 0,
        Verdict::Violation(_) => 1,
        Verdict::Unknown { .. } => 2,
    }))
}
