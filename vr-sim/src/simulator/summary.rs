//! What a random run exercised, in numbers.

use core::{fmt, time::Duration};

/// What a run exercised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events: deliveries and timers.
    pub events: u64,
    /// Operations that were executed.
    pub committed: u64,
    /// Operations whose clients were told so.
    pub acknowledged: u64,
    /// Calls whose clients cannot tell.
    pub unknown: u64,
    /// Views that started, the founding one not counted.
    pub views: u64,
    /// Processes that were killed.
    pub crashes: u64,
    /// Crashes that left a write in part.
    pub torn: u64,
    /// How long the run took in virtual time.
    pub elapsed: Duration,
    /// Equal for equal runs.
    pub fingerprint: u64,
}

impl Summary {
    /// Adds what another run exercised.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.committed += other.committed;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.views += other.views;
        self.crashes += other.crashes;
        self.torn += other.torn;
        self.elapsed += other.elapsed;
        self.fingerprint = self.fingerprint.rotate_left(1) ^ other.fingerprint;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events, {} committed, {} acknowledged, {} unknown, {} views, {} crashes, \
             {} torn writes, {:.1} s, fingerprint {:016x}",
            self.events,
            self.committed,
            self.acknowledged,
            self.unknown,
            self.views,
            self.crashes,
            self.torn,
            self.elapsed.as_secs_f64(),
            self.fingerprint
        )
    }
}
