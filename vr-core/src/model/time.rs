//! Time as the engine sees it: an argument, never a clock.

use core::{fmt, ops::Add, time::Duration};

/// A point on the monotonic clock of one process, in nanoseconds since an arbitrary origin.
///
/// Only differences between instants of one process mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);
    /// A point that is never reached.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// How long ago `earlier` was at this instant; zero if it had not come yet.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(by)))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// Both clocks of a replica, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers and timeouts; never goes back.
    pub monotonic: Instant,
    /// Wall-clock time since 1970-01-01 UTC; may jump either way, and safety never depends on it.
    pub wall: Duration,
}

impl Now {
    /// What both clocks say at a later instant, unless the wall clock jumped in between.
    #[must_use]
    pub fn at(self, monotonic: Instant) -> Self {
        let wall = self.wall.saturating_add(monotonic.since(self.monotonic));
        Self { monotonic, wall }
    }
}

/// A duration in whole nanoseconds; saturates after 584 years.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
