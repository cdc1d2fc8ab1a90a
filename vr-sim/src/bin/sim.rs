//! Runs random simulations: one seed, or a sweep of them; says how to repeat one that fails.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use core::{ops::Range, time::Duration};
use std::{
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
};

use vr_core::{Durability, model::durable::UnknownDurability};
use vr_sim::simulator::{Ending, Faults, Floors, Reach, RunOptions, Summary, run_traced};

const USAGE: &str = "\
usage: cargo sim [--seed N | --sweep A..B | --minutes M] [--replicas N] [--durability D]
                 [--faults none|network|disk|all] [--damage none|within|beyond]
                 [--storm SECONDS] [--liveness] [--mutant NAME] [--keep-going] [--trace FILE]

  --seed N        runs this seed and prints what it exercised (default: 0)
  --sweep A..B    runs all seeds from A up to and not including B
  --minutes M     runs seeds from 0 on, or those of --sweep, for so many minutes by the clock
  --replicas N    size of the group (default: 3)
  --durability D  mode of the group: full, view-only, diskless (default: full)
  --faults SET    what may go wrong (default: all)
  --damage REACH  how far disks lie, where disks are among the faults: not at all, so that the
                  group survives it (default), or beyond; then only safety is required
  --storm SECONDS how long load and faults last, in virtual time (default: 10)
  --mutant NAME   breaks this rule in all replicas (docs/TESTING.md lists the names); only with
                  cargo run --release -p vr-sim --features mutants --bin sim -- --mutant NAME
  --liveness      after the storm, a minority keeps a fault for ever while a quorum must get on
  --keep-going    goes on after a seed that fails
  --trace FILE    writes everything that happened to FILE, also when the seed fails: a page for a
                  browser if the name ends in .html, text otherwise; of a sweep the last seed's
Exit status 1 when a seed fails; its panic says what was found and ends with the last events.
Exit status 3 when nothing failed but the runs exercised too little for that to say something.";

/// How often a sweep says how far it is.
const PROGRESS_SECONDS: f64 = 10.0;

struct Arguments {
    seeds: Range<u64>,
    options: RunOptions,
    keep_going: bool,
    mutant: Option<mutant::Mutant>,
    patience: Option<Duration>,
    trace: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            seeds: 0..1,
            options: RunOptions::new(0),
            keep_going: false,
            patience: None,
            mutant: None,
            trace: None,
        };
        while let Some(word) = words.next() {
            if word == "--keep-going" {
                parsed.keep_going = true;
                continue;
            }
            if word == "--liveness" {
                parsed.options.ending = Ending::Haunted;
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
            "--trace" => self.trace = Some(PathBuf::from(value)),
            "--minutes" => {
                self.patience = Some(Duration::from_secs(number(value)?.saturating_mul(60)));
                if self.seeds == (0..1) {
                    self.seeds = 0..u64::MAX;
                }
            }
            "--damage" => self.options.damage = value.parse::<Reach>()?,
            "--durability" => {
                self.options.durability = parse_mode(value)?;
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

fn parse_mode(text: &str) -> Result<Durability, String> {
    text.parse().map_err(|error: UnknownDurability| error.to_string())
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
    match arguments.mutant {
        Some(mutant) => mutant::plant(mutant, || sweep(&arguments)),
        None => sweep(&arguments),
    }
}

/// What a sweep has come to.
#[derive(Default)]
struct Tally {
    runs: u64,
    total: Summary,
    floors: Floors,
    failed: Vec<u64>,
    vacuous: Vec<u64>,
}

impl Tally {
    fn count(&mut self, options: &RunOptions, trace: Option<&Path>) {
        self.runs += 1;
        let Ok(summary) = panic::catch_unwind(|| run_traced(options, trace)) else {
            eprintln!("seed {} failed; repeat it with\n  {}", options.seed, options.command());
            self.failed.push(options.seed);
            return;
        };
        if let Some(lacks) = Floors::lacks(&summary, options) {
            eprintln!("seed {} is vacuous: {lacks}\n  {}", options.seed, options.command());
            self.vacuous.push(options.seed);
        }
        self.total.add(&summary);
        self.floors.add(summary);
    }

    fn progress(&self, seconds: f64) -> String {
        let events = self.total.events;
        let Self { runs, failed, vacuous, .. } = self;
        let (failed, vacuous) = (failed.len(), vacuous.len());
        format!("{seconds:.0} s: {runs} seeds, {failed} failed, {vacuous} vacuous, {events} events")
    }

    fn verdict(&self, options: &RunOptions) -> ExitCode {
        if !self.failed.is_empty() {
            println!("failed seeds: {:?}", self.failed);
            return ExitCode::from(1);
        }
        if !self.vacuous.is_empty() {
            println!("vacuous seeds: {:?}", self.vacuous);
            return ExitCode::from(3);
        }
        if let Some(missed) = self.floors.missed(options) {
            println!("the sweep is vacuous: {missed}");
            return ExitCode::from(3);
        }
        ExitCode::SUCCESS
    }
}

fn sweep(arguments: &Arguments) -> ExitCode {
    let (mut tally, mut told) = (Tally::default(), 0.0);
    let started = std::time::Instant::now();
    for seed in arguments.seeds.clone() {
        let options = RunOptions { seed, ..arguments.options.clone() };
        tally.count(&options, arguments.trace.as_deref());
        let seconds = started.elapsed().as_secs_f64();
        if seconds - told >= PROGRESS_SECONDS {
            told = seconds;
            eprintln!("{}", tally.progress(seconds));
        }
        let stopped_by_failure = !tally.failed.is_empty() && !arguments.keep_going;
        if stopped_by_failure || arguments.patience.is_some_and(|most| started.elapsed() >= most) {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{} seeds: {}; {seconds:.1} s on the clock", tally.runs, tally.total);
    println!(
        "medians: {} committed, {} views, {} crashes, {} recoveries",
        tally.floors.median(|run| run.committed),
        tally.floors.median(|run| run.views),
        tally.floors.median(|run| run.crashes),
        tally.floors.median(|run| run.recoveries),
    );
    tally.verdict(&arguments.options)
}
