//! Named deadlines; the earliest of them is when the engine wants to be woken.

use crate::model::time::Instant;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Primary: say COMMIT (VRR §4.1 step 6).
    Heartbeat,
    /// Primary: is a quorum still listening?
    CheckQuorum,
    /// Backup: the primary has been silent (VRR §4.2).
    PrimarySilent,
    /// Whoever voted to leave its view: vote again.
    Suspicion,
    /// View change: it did not complete in time.
    ViewChange,
    /// View change: send the promise or ask for the view again.
    Resend,
    /// View change: the log that is put together lacks an answer.
    Plan,
    /// Backup: a question for missing entries was not answered.
    Pull,
    /// Backup: a question for a read index was not answered.
    Reads,
    /// Requests that wait for a primary are getting old.
    Forward,
    /// Tell the others where this replica stands.
    Ping,
    /// Blank: ask everybody for a certificate.
    Hello,
    /// A question for what is damaged was not answered.
    Repair,
    /// Read the next part of the log, to notice damage.
    Scrub,
    /// Primary: the successor of a planned hand-off has not caught up.
    Handoff,
    /// Questions for parts of a checkpoint were not answered.
    Snapshot,
}

const ALL: [Timer; 16] = [
    Timer::Heartbeat,
    Timer::CheckQuorum,
    Timer::PrimarySilent,
    Timer::Suspicion,
    Timer::ViewChange,
    Timer::Resend,
    Timer::Plan,
    Timer::Pull,
    Timer::Reads,
    Timer::Forward,
    Timer::Ping,
    Timer::Hello,
    Timer::Repair,
    Timer::Scrub,
    Timer::Handoff,
    Timer::Snapshot,
];

/// The deadline of each timer.
///
/// Invariants: a timer that is not armed stands at [`Instant::FAR_FUTURE`], and `earliest` is the
/// least of all, which is asked for more often than it changes.
#[derive(Clone, Debug)]
pub struct Timers {
    deadlines: [Instant; ALL.len()],
    earliest: Instant,
}

impl Default for Timers {
    fn default() -> Self {
        let earliest = Instant::FAR_FUTURE;
        Self { deadlines: [earliest; ALL.len()], earliest }
    }
}

impl Timers {
    /// Lets `timer` expire at `at`, whatever was set before.
    pub fn arm(&mut self, timer: Timer, at: Instant) {
        let before = core::mem::replace(self.slot(timer), at);
        if at <= self.earliest {
            self.earliest = at;
        } else if before == self.earliest {
            self.find_earliest();
        }
    }

    /// Lets `timer` expire at `at` unless it would expire earlier anyway.
    pub fn arm_by(&mut self, timer: Timer, at: Instant) {
        self.arm(timer, at.min(self.at(timer)));
    }

    /// `timer` does not expire any more.
    pub fn disarm(&mut self, timer: Timer) {
        self.arm(timer, Instant::FAR_FUTURE);
    }

    /// Nothing expires any more.
    pub fn disarm_all(&mut self) {
        *self = Self::default();
    }

    /// Whether `timer` will expire.
    #[must_use]
    pub fn is_armed(&self, timer: Timer) -> bool {
        self.at(timer) != Instant::FAR_FUTURE
    }

    /// When `timer` expires.
    #[must_use]
    pub fn at(&self, timer: Timer) -> Instant {
        let position = ALL.iter().position(|candidate| *candidate == timer);
        let deadline = position.and_then(|position| self.deadlines.get(position));
        deadline.copied().unwrap_or(Instant::FAR_FUTURE)
    }

    /// When the next timer expires.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.earliest
    }

    /// Disarms and returns one timer that has expired.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Timer> {
        let (timer, deadline) =
            ALL.iter().zip(&mut self.deadlines).find(|(_, deadline)| **deadline <= now)?;
        *deadline = Instant::FAR_FUTURE;
        self.find_earliest();
        Some(*timer)
    }

    fn find_earliest(&mut self) {
        self.earliest = self.deadlines.iter().min().copied().unwrap_or(Instant::FAR_FUTURE);
    }

    fn slot(&mut self, timer: Timer) -> &mut Instant {
        let position = ALL.iter().position(|candidate| *candidate == timer).unwrap_or(0);
        self.deadlines.get_mut(position).expect("there is a deadline for every timer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_the_earliest_timer() {
        let mut timers = Timers::default();
        timers.arm(Timer::Ping, Instant(9));
        timers.arm(Timer::Heartbeat, Instant(5));
        assert_eq!(timers.deadline(), Instant(5));
        assert_eq!(timers.pop_expired(Instant(7)), Some(Timer::Heartbeat));
        assert_eq!(timers.pop_expired(Instant(7)), None);
        assert_eq!(timers.deadline(), Instant(9));
    }

    #[test]
    fn arming_by_never_postpones() {
        let mut timers = Timers::default();
        timers.arm_by(Timer::Hello, Instant(5));
        timers.arm_by(Timer::Hello, Instant(9));
        assert_eq!(timers.deadline(), Instant(5));
        timers.disarm(Timer::Hello);
        assert!(!timers.is_armed(Timer::Hello));
    }

    #[test]
    fn the_earliest_is_known_whatever_changes() {
        let mut timers = Timers::default();
        let mut prng = crate::state::prng::Prng::new(7);
        for _ in 0..10_000 {
            let timer = ALL[usize::try_from(prng.next() % 16).unwrap()];
            let at = Instant(prng.next() % 50);
            match prng.next() % 5 {
                0 => timers.arm_by(timer, at),
                1 => timers.disarm(timer),
                2 => drop(timers.pop_expired(at)),
                _ => timers.arm(timer, at),
            }
            assert_eq!(timers.deadline(), *timers.deadlines.iter().min().unwrap());
        }
    }
}
