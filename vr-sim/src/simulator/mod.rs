//! A random run: a storm of load and faults drawn from one seed, then calm, and the oracles.

mod atlas;
mod core_only;
mod crowd;
pub mod faults;
pub mod load;
pub mod options;
pub mod storm;
mod strikes;
pub mod summary;

use std::path::Path;

pub use crate::simulator::{
    atlas::Reach,
    faults::Faults,
    options::{Ending, RunOptions},
    summary::{Floors, Summary},
};
use crate::{
    linearizability::cluster::require_order,
    simulator::{load::Load, storm::Storm},
};

/// Runs one seed to its end.
///
/// # Panics
/// When an oracle objects, when the group does not converge after the storm, and when a replica
/// itself panics; the message ends with the state of everything and the last events.
#[must_use]
pub fn run(options: &RunOptions) -> Summary {
    run_traced(options, None)
}

/// As [`run`], and writes the whole trace to a file, also when the run fails: as a page for a
/// browser if its name ends in `.html`, as text otherwise.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_traced(options: &RunOptions, trace: Option<&Path>) -> Summary {
    let mut storm = Storm::new(options, Load::of_kv());
    if let Some(path) = trace {
        storm.group_mut().trace_to(path);
    }
    storm.found();
    storm.rage();
    let summary = storm.calm();
    require_order(storm.group());
    summary
}
