//! The time by both clocks, of which one is asked seldom.

use core::time::Duration;

use crate::{model::time::Now, ports::runtime::Runtime};

/// How long the wall clock is believed to go on as the other one does; a jump of it is seen so late.
const ASKED_EVERY: Duration = Duration::from_millis(1);

/// Tells the time by both clocks. Where a turn takes a microsecond, asking them is a tenth of it, so
/// the wall clock is asked once in a while, and counted on with the monotonic one in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    asked: Now,
}

impl Clock {
    /// Both clocks, as they stand.
    pub(crate) fn new(runtime: &dyn Runtime) -> Self {
        Self { asked: Now { monotonic: runtime.now(), wall: runtime.wall_clock() } }
    }

    /// The time.
    pub(crate) fn now(&mut self, runtime: &dyn Runtime) -> Now {
        let monotonic = runtime.now();
        if monotonic.since(self.asked.monotonic) >= ASKED_EVERY {
            self.asked = Now { monotonic, wall: runtime.wall_clock() };
        }
        self.asked.at(monotonic)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;
    use crate::model::time::Instant;

    /// Clocks that stand still.
    #[derive(Debug)]
    struct Stopped {
        monotonic: Instant,
        wall: Duration,
    }

    impl Stopped {
        fn at(monotonic_us: u64, wall_us: u64) -> Self {
            let wall = Duration::from_micros(wall_us);
            Self { monotonic: Instant(monotonic_us * 1000), wall }
        }
    }

    impl Runtime for Stopped {
        fn now(&self) -> Instant {
            self.monotonic
        }

        fn wall_clock(&self) -> Duration {
            self.wall
        }

        fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
            unreachable!("nobody sleeps")
        }

        fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) {
            unreachable!("nothing is spawned")
        }

        fn entropy(&self) -> u128 {
            unreachable!("nothing is drawn")
        }
    }

    #[test]
    fn the_wall_clock_goes_on_with_the_other_one_and_is_asked_every_millisecond() {
        let mut clock = Clock::new(&Stopped::at(5000, 70_000));
        let wall_us = |now: Now| now.wall.as_micros();
        let soon = clock.now(&Stopped::at(5400, 90_000));
        assert_eq!((soon.monotonic, wall_us(soon)), (Instant(5_400_000), 70_400));
        assert_eq!(wall_us(clock.now(&Stopped::at(6000, 90_000))), 90_000);
        assert_eq!(wall_us(clock.now(&Stopped::at(6010, 50_000))), 90_010);
        assert_eq!(wall_us(clock.now(&Stopped::at(7000, 50_000))), 50_000, "it was set back");
    }
}
