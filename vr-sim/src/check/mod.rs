//! The simulation for everybody's own service: point it at a state machine, and be told what is
//! wrong with it.

mod audit;
pub mod audited;
mod finding;
mod instance;
mod model;
pub mod outcome;
mod panics;
pub mod sim;

use std::{env, sync::Arc, thread};

use crate::{
    check::{instance::Make, outcome::Checked, panics::caught, sim::Sim},
    cluster::client::Service,
};

/// The environment variable that names the one seed to run.
const SEED_VARIABLE: &str = "VR_SIM_SEED";

/// About what an oracle of the protocol found, and no audit of the service.
const OWN_FAULT: &str = "\
An oracle of the protocol objects, and nothing is known against the service: this looks like a
fault of the library. Please report it with the seed and the options.";

/// Runs the service `S` under faults, once for each seed, one after the other.
///
/// `test` says what to run, runs it, and asserts what should be true afterwards; what it does not
/// run itself is run when it returns. Without a word from `test`, every run looks for
///
/// - replies that differ between replicas, or between a replica and its replay after a restart;
/// - states that differ between replicas that applied the same operations;
/// - a state machine restored from a snapshot that replies, answers or is otherwise than the one
///   that wrote the snapshot;
/// - panics in `apply`, and everything that the protocol's own oracles object to.
///
/// ```
/// use vr_core::{Context, QueryContext, StateMachine};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Counter(u64);
///
/// impl StateMachine for Counter {
///     type Operation = u64;
///     type Reply = u64;
///     type Query = ();
///     type Answer = u64;
///     fn apply(&mut self, _: &Context, add: u64) -> u64 {
///         self.0 += add;
///         self.0
///     }
///     fn query(&self, _: &QueryContext, (): ()) -> u64 {
///         self.0
///     }
///     vr_core::serde_snapshot!();
/// }
///
/// let checked = vr_sim::check(0..3, |sim: &mut vr_sim::Sim<Counter>| {
///     sim.replicas(3).operations(|rng| rng.below(10)).queries(|_| ());
///     let outcome = sim.run();
///     let sum: u64 = outcome.log.iter().map(|(_, add, _)| *add).sum();
///     assert!(outcome.states.iter().all(|(_, counter)| counter.0 == sum));
/// });
/// assert!(checked.total.committed > 100);
/// ```
///
/// # Panics
/// When a run finds something, or when nothing was executed in any of them. The message says what
/// is wrong and where to look, the seed, the options, the last events, and the command that
/// repeats the run: the variable `VR_SIM_SEED` replaces the seeds by one.
pub fn check<S: Service + Default>(
    seeds: impl IntoIterator<Item = u64>,
    test: impl Fn(&mut Sim<S>),
) -> Checked {
    check_with(S::default, seeds, test)
}

/// As [`check`], for a service that `make` makes in its first state.
///
/// # Panics
/// As [`check`].
pub fn check_with<S: Service>(
    make: impl Fn() -> S + Send + Sync + 'static,
    seeds: impl IntoIterator<Item = u64>,
    test: impl Fn(&mut Sim<S>),
) -> Checked {
    let make: Make<S> = Arc::new(make);
    let mut checked = Checked::default();
    for seed in chosen(seeds) {
        let mut sim = Sim::new(seed, Arc::clone(&make));
        let run = caught(|| {
            test(&mut sim);
            sim.finish()
        });
        match run {
            Ok(summary) => {
                checked.seeds += 1;
                checked.total.add(&summary);
            }
            Err(panic) => panic!("{}", told(&sim, &panic.message)),
        }
    }
    assert!(checked.total.committed > 0, "nothing was executed: {checked}");
    checked
}

/// The seeds to run: those, or the one of the environment.
fn chosen(seeds: impl IntoIterator<Item = u64>) -> Vec<u64> {
    match env::var(SEED_VARIABLE) {
        Ok(text) => match text.parse() {
            Ok(seed) => vec![seed],
            Err(_) => panic!("{SEED_VARIABLE} is '{text}', which is not a seed"),
        },
        Err(_) => seeds.into_iter().collect(),
    }
}

/// Everything that somebody who has never seen this needs to know about a run that failed.
fn told<S: Service>(sim: &Sim<S>, message: &str) -> String {
    let (seed, report) = (sim.seed(), sim.report());
    let what = match sim.finding() {
        Some(finding) => finding.to_string(),
        // Oracles and waits end their messages with the report, which comes below.
        None if message.contains(" violated: ") => {
            format!("{}\n\n{OWN_FAULT}", message.replace(&report, "").trim_end())
        }
        None => message.replace(&report, "").trim_end().to_owned(),
    };
    let name = thread::current().name().filter(|name| *name != "main").map(str::to_owned);
    let name = name.unwrap_or_else(|| "THE_TEST".to_owned());
    format!(
        "seed {seed}: {what}\n\n\
         repeat this run: {SEED_VARIABLE}={seed} cargo test {name} -- --nocapture\n\
         options: {sim}\n\
         drawn: {}\n\
         {report}",
        sim.drawn()
    )
}
