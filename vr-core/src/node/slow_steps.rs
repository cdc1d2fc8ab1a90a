//! Whether a state machine is slow, or was only held up by something else on its machine.

use core::time::Duration;

use crate::model::time::Instant;

/// Steps count as slow above this part of a heartbeat interval.
const SLOW_PART: u32 = 4;
/// Slow steps may take this part of the time for ever.
const FORGIVEN_PART: u32 = 200;

/// What slow steps took together, less what was forgiven since.
///
/// One that takes a quarter of a heartbeat interval delays no heartbeat by much, and may be slow because
/// another process had the processor. The executor moves once a whole heartbeat interval has come
/// together; a 200th of the time that passes is forgiven.
#[derive(Debug)]
pub(crate) struct SlowSteps {
    heartbeat_interval: Duration,
    together: Duration,
    /// The end of the last slow one.
    last: Instant,
    longest: Duration,
}

impl SlowSteps {
    /// None so far.
    pub(crate) const fn new(heartbeat_interval: Duration) -> Self {
        let (together, longest) = (Duration::ZERO, Duration::ZERO);
        Self { heartbeat_interval, together, last: Instant::ZERO, longest }
    }

    /// A step took so long and ended now; whether the executor has to move.
    pub(crate) fn note(&mut self, now: Instant, took: Duration) -> bool {
        self.longest = took.max(self.longest);
        if took <= self.heartbeat_interval / SLOW_PART {
            return false;
        }
        let forgiven = now.since(self.last) / FORGIVEN_PART;
        self.last = now;
        self.together = self.together.saturating_sub(forgiven).saturating_add(took);
        self.together > self.heartbeat_interval
    }

    /// The longest step of all.
    pub(crate) const fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(slow: &mut SlowSteps, (ended_ms, took_ms): (u64, u64)) -> bool {
        slow.note(Instant(ended_ms * 1_000_000), Duration::from_millis(took_ms))
    }

    /// Whether the executor moves after each of these steps, of which one ends at so many
    /// milliseconds and took so many, where heartbeats are 40 ms apart.
    fn moves(steps: impl IntoIterator<Item = (u64, u64)>) -> Vec<bool> {
        let mut slow = SlowSteps::new(Duration::from_millis(40));
        steps.into_iter().map(|step| note(&mut slow, step)).collect()
    }

    #[test]
    fn one_step_of_more_than_a_heartbeat_is_enough() {
        assert_eq!(moves([(100, 40), (50_000, 41)]), [false, true]);
    }

    #[test]
    fn slow_steps_add_up_and_quick_ones_do_not() {
        assert_eq!(moves([(100, 15), (200, 15), (300, 12)]), [false, false, true]);
        assert_eq!(moves([(20_000, 30), (20_100, 30)]), [false, true], "whenever it was");
        assert!(!moves((1..200).map(|step| (10 * step, 10))).contains(&true));
    }

    #[test]
    fn time_forgives() {
        assert_eq!(moves([(100, 30), (2100, 30)]), [false, true]);
        assert_eq!(moves([(100, 30), (8100, 30)]), [false, false]);
        for (apart, took) in [(9000, 30), (3000, 13), (3_600_000, 39)] {
            assert!(!moves((1..100).map(|step| (step * apart, took))).contains(&true));
        }
    }

    #[test]
    fn the_longest_is_known_whether_it_was_slow_or_not() {
        let mut slow = SlowSteps::new(Duration::from_millis(40));
        let longest = |slow: &SlowSteps| slow.longest().as_millis();
        note(&mut slow, (10, 3));
        note(&mut slow, (20, 2));
        assert_eq!(longest(&slow), 3);
        note(&mut slow, (100, 50));
        assert_eq!(longest(&slow), 50);
    }
}
