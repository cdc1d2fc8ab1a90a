//! How fast a checkpoint is fetched while the group has other work to do.

use core::time::Duration;

use crate::model::{
    checkpoint::CHUNK_BYTES,
    time::Instant,
    types::{OpNumber, View},
};

/// Chunks at equal distances while the group orders operations, and as fast as they come while it
/// does not.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two chunks; zero for no limit.
    distance: Duration,
    /// The latest view that was told of, and the last op of its log as last told.
    told: Option<(View, OpNumber)>,
    busy_until: Instant,
    next: Instant,
}

impl Pace {
    /// At most `bytes_per_second` while the group is busy; 0 for no limit.
    #[must_use]
    pub fn of(bytes_per_second: u64) -> Self {
        let nanoseconds = u64::from(CHUNK_BYTES).saturating_mul(1_000_000_000);
        let distance = nanoseconds.checked_div(bytes_per_second).unwrap_or(0);
        Self {
            distance: Duration::from_nanos(distance),
            told: None,
            busy_until: Instant::ZERO,
            next: Instant::ZERO,
        }
    }

    /// The primary of `view` tells how far its log goes; if that is further than before in this view,
    /// the group counts as busy for `lasting`. What a primary of an earlier view tells is of the past.
    pub fn told(&mut self, now: Instant, view: View, op_number: OpNumber, lasting: Duration) {
        if self.told.is_some_and(|told| told >= (view, op_number)) {
            return;
        }
        if self.told.replace((view, op_number)).is_some_and(|(before, _)| before == view) {
            self.busy_until = now + lasting;
        }
    }

    /// When the next chunk may be asked for.
    #[must_use]
    pub fn next(&self, now: Instant) -> Instant {
        if self.is_busy(now) { self.next } else { now }
    }

    /// When to look again whether it may: the group may have become idle before.
    #[must_use]
    pub fn look_at(&self, now: Instant) -> Instant {
        self.next(now).min(self.busy_until.max(now))
    }

    fn is_busy(&self, now: Instant) -> bool {
        now < self.busy_until
    }

    /// One was asked for.
    pub fn asked(&mut self, now: Instant) {
        if self.is_busy(now) {
            self.next = self.next.max(now) + self.distance;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const LASTING: Duration = Duration::from_secs(10);

    /// How many chunks may be asked for within a second from `now`.
    fn within_a_second(pace: &mut Pace, now: Instant) -> usize {
        let mut count = 0;
        while pace.next(now) < now + Duration::from_secs(1) && count < 100 {
            let at = pace.next(now).max(now);
            pace.asked(at);
            count += 1;
        }
        count
    }

    #[test]
    fn only_a_busy_group_is_spared() {
        let mut pace = Pace::of(4 * u64::from(CHUNK_BYTES));
        let mut now = Instant(SECOND);
        assert_eq!(within_a_second(&mut pace, now), 100, "nothing was told");
        now = now + Duration::from_secs(100);
        pace.told(now, View(1), OpNumber(7), LASTING);
        pace.told(now, View(1), OpNumber(7), LASTING);
        assert_eq!(within_a_second(&mut pace, now), 100, "it stands still");
        pace.told(now, View(1), OpNumber(8), LASTING);
        assert_eq!(within_a_second(&mut pace, now), 4);
        assert_eq!(within_a_second(&mut pace, now + LASTING), 100, "it stands still again");
    }

    /// A primary that was cut off and does not know it goes on to tell of its log.
    #[test]
    fn an_earlier_view_says_nothing_about_the_group() {
        let mut pace = Pace::of(u64::from(CHUNK_BYTES));
        for (view, op_number) in [(1, 5), (2, 9), (1, 6), (2, 9), (1, 7), (2, 9), (3, 8)] {
            pace.told(Instant(SECOND), View(view), OpNumber(op_number), LASTING);
        }
        assert_eq!(within_a_second(&mut pace, Instant(SECOND)), 100, "nothing was ordered");
        pace.told(Instant(SECOND), View(3), OpNumber(9), LASTING);
        assert_eq!(within_a_second(&mut pace, Instant(SECOND)), 1);
    }

    #[test]
    fn without_a_limit_nothing_is_held_up() {
        let mut pace = Pace::of(0);
        pace.told(Instant(1), View(0), OpNumber(1), LASTING);
        pace.told(Instant(1), View(0), OpNumber(2), LASTING);
        assert_eq!(within_a_second(&mut pace, Instant(2)), 100);
    }
}
