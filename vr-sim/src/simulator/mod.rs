//! A random run: a storm of load and faults drawn from one seed, then calm, and the oracles.

mod atlas;
mod core_only;
pub mod faults;
pub mod load;
pub mod options;
pub mod storm;
mod strikes;
pub mod summary;

pub use crate::simulator::{
    atlas::Reach,
    faults::Faults,
    options::{Ending, RunOptions},
    summary::{Floors, Summary},
};
use crate::simulator::{load::Load, storm::Storm};

/// Runs one seed to its end.
///
/// # Panics
/// When an oracle objects, when the group does not converge after the storm, and when a replica
/// itself panics; the message ends with the state of everything and the last events.
#[must_use]
pub fn run(options: &RunOptions) -> Summary {
    let mut storm = Storm::new(options, Load::of_kv());
    storm.found();
    storm.rage();
    storm.calm()
}
