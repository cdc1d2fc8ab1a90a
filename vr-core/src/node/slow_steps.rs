//! Whether a state machine is slow, or was only held up by something else on its machine.

use core::time::Duration;

use crate::model::time::Instant;

/// Steps count as slow above this part of a heartbeat interval.
const SLOW_PART: u32 = 4;
/// Slow steps are forgotten after so many heartbeat intervals without any.
const FORGOTTEN_AFTER: u32 = 200;

/// What slow steps took together.
///
/// One that takes a quarter of a heartbeat interval delays no heartbeat by much, and may be slow because
/// another process had the processor. The executor moves once they took a whole heartbeat interval
/// together, each not long after the one before, or one of them alone.
#[derive(Debug)]
pub(crate) struct SlowSteps {
    heartbeat_interval: Duration,
    together: Duration,
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
        if now.since(self.last) > self.heartbeat_interval * FORGOTTEN_AFTER {
            self.together = Duration::ZERO;
        }
        self.last = now;
        self.together = self.together.saturating_add(took);
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

    /// Whether the executor moves after each of these steps, of which one ends at so many
    /// milliseconds and took so many.
    fn moves(steps: &[(u64, u64)]) -> Vec<bool> {
        let mut slow = SlowSteps::new(Duration::from_millis(40));
        let step = |(ended, took): &(u64, u64)| {
            slow.note(Instant(ended * 1_000_000), Duration::from_millis(*took))
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn one_step_of_more_than_a_heartbeat_is_enough() {
        assert_eq!(moves(&[(100, 40), (50_000, 41)]), [false, true]);
    }

    #[test]
    fn slow_steps_add_up_and_quick_ones_do_not() {
        assert_eq!(
            moves(&[(100, 15), (7000, 10), (7100, 15), (8000, 11)]),
            [false, false, false, true]
        );
    }

    #[test]
    fn a_pause_now_and_then_moves_nothing() {
        let hourly: Vec<_> = (1..50).map(|hour| (hour * 3_600_000, 30)).collect();
        assert!(moves(&hourly).iter().all(|moves| !moves));
    }
}
