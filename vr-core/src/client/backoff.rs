//! A pause that doubles while nothing gets better.

use core::time::Duration;

use crate::model::time::Instant;

/// The most doublings; the longest pause is 16 times the first.
const DOUBLINGS_MAX: u32 = 4;

/// One timer with growing pauses.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    at: Option<Instant>,
    attempts: u32,
}

impl Backoff {
    /// A timer that is not armed and whose first pause is `base`.
    pub(crate) const fn new(base: Duration) -> Self {
        Self { base, at: None, attempts: 0 }
    }

    /// Whether the timer is armed.
    pub(crate) const fn is_armed(&self) -> bool {
        self.at.is_some()
    }

    /// When it fires; the far future while it is not armed.
    pub(crate) fn deadline(&self) -> Instant {
        self.at.unwrap_or(Instant::FAR_FUTURE)
    }

    /// Whether it fires now; it is not armed afterwards.
    pub(crate) fn fires(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// Arms it for the next, longer pause. `jitter` of 0 to 255 stretches it by up to a quarter.
    pub(crate) fn arm(&mut self, now: Instant, jitter: u8) {
        self.at = Some(now + pause(self.base, self.attempts, jitter));
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Something got better: arms it for the first pause.
    pub(crate) fn restart(&mut self, now: Instant, jitter: u8) {
        self.attempts = 0;
        self.arm(now, jitter);
    }

    /// Disarms it; the next pause is the first again.
    pub(crate) const fn reset(&mut self) {
        self.at = None;
        self.attempts = 0;
    }
}

/// The pause after `attempts` attempts.
pub(crate) fn pause(base: Duration, attempts: u32, jitter: u8) -> Duration {
    let pause = base.saturating_mul(1 << attempts.min(DOUBLINGS_MAX));
    pause.saturating_add(pause.saturating_mul(u32::from(jitter)) / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_sixteen_times_the_first() {
        let base = Duration::from_millis(10);
        let pauses: Vec<_> = (0..7).map(|n| pause(base, n, 0).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 160, 160]);
        assert!(pause(base, 0, 255) < base * 5 / 4);
    }

    #[test]
    fn a_timer_fires_once_and_starts_over_after_good_news() {
        let mut timer = Backoff::new(Duration::from_nanos(10));
        timer.arm(Instant(0), 0);
        assert!(!timer.fires(Instant(9)));
        assert!(timer.fires(Instant(10)));
        assert!(!timer.fires(Instant(10)));
        timer.arm(Instant(10), 0);
        assert_eq!(timer.deadline(), Instant(30));
        timer.restart(Instant(20), 0);
        assert_eq!(timer.deadline(), Instant(30));
        timer.reset();
        assert_eq!((timer.is_armed(), timer.deadline()), (false, Instant::FAR_FUTURE));
    }
}
