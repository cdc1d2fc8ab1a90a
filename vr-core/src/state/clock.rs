//! The time that entries carry: replicated, strictly growing, and deaf to wild wall clocks.

use core::time::Duration;

use crate::model::time::{Now, nanoseconds};

/// Chooses the time of new entries.
///
/// The reference is the last entry that a primary of this life sent or made, plus the monotonic
/// time since; before the first such entry it is the wall clock at the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    last: u64,
    reference: (u64, u64),
    jumped: bool,
}

impl LogClock {
    /// A clock for a log whose last entry has the time `last`, in nanoseconds since 1970.
    #[must_use]
    pub fn new(now: Now, last: u64) -> Self {
        Self { last, reference: (nanoseconds(now.wall), now.monotonic.0), jumped: false }
    }

    /// An entry with `time` is the last one now.
    pub const fn note(&mut self, now: Now, time: u64) {
        self.last = time;
        self.reference = (time, now.monotonic.0);
    }

    /// The last entry has `time`, and it was read from a log instead of being heard live.
    pub const fn replay(&mut self, time: u64) {
        self.last = time;
    }

    /// Remembers whether the wall clock is believed; true when that just ceased.
    pub const fn disbelieve(&mut self, jump: Option<Duration>) -> bool {
        let new = jump.is_some() && !self.jumped;
        self.jumped = jump.is_some();
        new
    }

    /// The time for the next entry, and by how much the wall clock jumped if it was not believed.
    #[must_use]
    pub fn next(&self, now: Now, jump_max: Duration) -> (u64, Option<Duration>) {
        let (time, jump) = self.read(now, jump_max);
        (time.max(self.last.saturating_add(1)), jump)
    }

    /// The time to tell a query; never before the last entry's.
    #[must_use]
    pub fn read(&self, now: Now, jump_max: Duration) -> (u64, Option<Duration>) {
        let (at, since) = self.reference;
        let expected = at.saturating_add(now.monotonic.0.saturating_sub(since));
        let wall = nanoseconds(now.wall);
        let ahead = wall.saturating_sub(expected);
        if ahead > nanoseconds(jump_max) {
            return (expected.max(self.last), Some(Duration::from_nanos(ahead)));
        }
        (wall.max(self.last), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Instant;

    const MINUTE: Duration = Duration::from_secs(60);

    fn now(monotonic: u64, wall: u64) -> Now {
        Now { monotonic: Instant(monotonic * 1_000_000_000), wall: Duration::from_secs(wall) }
    }

    #[test]
    fn time_grows_even_when_the_wall_clock_goes_back() {
        let mut clock = LogClock::new(now(0, 1000), 0);
        let (first, _) = clock.next(now(1, 1001), MINUTE);
        clock.note(now(1, 1001), first);
        let (second, jump) = clock.next(now(2, 5), MINUTE);
        assert_eq!((second, jump), (first + 1, None));
    }

    #[test]
    fn a_jump_ahead_is_not_believed() {
        let mut clock = LogClock::new(now(0, 1000), 0);
        clock.note(now(1, 1001), 1_001_000_000_000);
        let (time, jump) = clock.next(now(3, 9000), MINUTE);
        assert_eq!(time, 1_003_000_000_000);
        assert!(jump.is_some());
    }

    #[test]
    fn after_a_long_outage_the_wall_clock_is_believed() {
        let mut clock = LogClock::new(now(0, 90_000), 1000);
        clock.replay(2000);
        assert_eq!(clock.next(now(1, 90_001), MINUTE), (90_001_000_000_000, None));
    }
}
