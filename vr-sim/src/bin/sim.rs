//! Runs random simulations: one seed, or a sweep of them; says how to repeat one that fails.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use core::{ops::Range, time::Duration};
use std::{panic, process::ExitCode};

use vr_sim::simulator::{Faults, RunOptions, Summary, run};

const USAGE: &str = "\
usage: cargo sim [--seed N | --sweep A..B] [--replicas N] [--faults none|network|disk|all]
                 [--storm SECONDS] [--mutant NAME] [--keep-going]

  --seed N        runs this seed and prints what it exercised (default: 0)
  --sweep A..B    runs all seeds from A up to and not including B
  --replicas N    size of the group (default: 3)
  --faults SET    what may go wrong (default: all)
  --storm SECONDS how long load and faults last, in virtual time (default: 10)
  --mutant NAME   breaks this rule in all replicas (docs/TESTING.md lists the names); only with
                  cargo run --release -p vr-sim --features mutants --bin sim -- --mutant NAME
  --keep-going    goes on after a seed that fails
Exit status 1 when a seed fails; its panic says what was found and ends with the last events.";

struct Arguments {
    seeds: Range<u64>,
    options: RunOptions,
    keep_going: bool,
    mutant: Option<mutant::Mutant>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed =
            Self { seeds: 0..1, options: RunOptions::new(0), keep_going: false, mutant: None };
        while let Some(word) = words.next() {
            if word == "--keep-going" {
                parsed.keep_going = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
            parsed.set(&word, &value).map_err(|why| format!("{word} {value}: {why}\n{USAGE}"))?;
        }
        Ok(parsed)
    }

    fn set(&mut self, word: &str, value: &str) -> Result<(), String> {
        match word {
            "--seed" => {
                let seed = number(value)?;
                self.seeds = seed..seed.saturating_add(1);
            }
            "--sweep" => {
                let (from, to) = value.split_once("..").ok_or("write A..B")?;
                self.seeds = number(from)?..number(to)?;
            }
            "--replicas" => self.options.replicas = number(value)?,
            "--faults" => self.options.faults = value.parse::<Faults>()?,
            "--mutant" => self.mutant = Some(value.parse()?),
            "--storm" => self.options.storm = Duration::from_secs(number(value)?),
            _ => return Err("there is no such option".to_owned()),
        }
        Ok(())
    }
}

#[cfg(feature = "mutants")]
mod mutant {
    pub(crate) use vr_core::model::mutants::Mutant;
    pub(crate) use vr_sim::mutants::plant;
}

/// Without the feature there is no mutant, and its name is an error that says so.
#[cfg(not(feature = "mutants"))]
mod mutant {
    #[derive(Clone, Copy)]
    pub(crate) enum Mutant {}

    impl core::str::FromStr for Mutant {
        type Err = &'static str;

        fn from_str(_: &str) -> Result<Self, Self::Err> {
            Err("this was built without the feature `mutants`")
        }
    }

    pub(crate) fn plant<T>(mutant: Mutant, _: impl FnOnce() -> T) -> T {
        match mutant {}
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse(words.into_iter()) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    sweep(&arguments)
}

fn sweep(arguments: &Arguments) -> ExitCode {
    let (mut total, mut failed) = (Summary::default(), Vec::new());
    let started = std::time::Instant::now();
    for seed in arguments.seeds.clone() {
        let options = RunOptions { seed, ..arguments.options.clone() };
        let attempt = || match arguments.mutant {
            Some(mutant) => mutant::plant(mutant, || run(&options)),
            None => run(&options),
        };
        match panic::catch_unwind(attempt) {
            Ok(summary) => {
                println!("seed {seed}: {summary}");
                total.add(&summary);
            }
            Err(_) => {
                eprintln!("seed {seed} failed; repeat it with\n  {}", command(&options));
                failed.push(seed);
                if !arguments.keep_going {
                    break;
                }
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("total: {total}; {seconds:.1} s on the clock");
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed seeds: {failed:?}");
    ExitCode::from(1)
}

fn command(options: &RunOptions) -> String {
    let RunOptions { seed, replicas, faults, storm } = options;
    let storm = storm.as_secs();
    format!("cargo sim --seed {seed} --replicas {replicas} --faults {faults} --storm {storm}")
}
