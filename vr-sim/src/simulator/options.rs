//! What a random run is made of, as far as the seed does not decide it.

use core::time::Duration;

use crate::simulator::faults::Faults;

/// What a random run is made of; the rest is drawn from the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Decides everything that these options leave open.
    pub seed: u64,
    /// How many replicas the group has.
    pub replicas: u64,
    /// What may go wrong.
    pub faults: Faults,
    /// How long the storm lasts, in virtual time.
    pub storm: Duration,
}

impl RunOptions {
    /// A run of three replicas with all faults.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, replicas: 3, faults: Faults::All, storm: Duration::from_secs(10) }
    }
}
