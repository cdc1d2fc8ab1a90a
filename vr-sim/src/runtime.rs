//! The `Runtime` port over virtual time, with a clock of its own for each actor.

use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use vr_core::{
    model::time::{Instant, nanoseconds},
    ports::runtime::Runtime,
};

use crate::{
    actor::Actor,
    executor::{Executor, Shared, TimerKey, lock},
    prng::Prng,
};

/// Wall-clock time at the origin of a simulation: some day in 2026.
const WALL_ORIGIN: Duration = Duration::from_secs(1_780_000_000);

/// What one actor sees of virtual time, and where its tasks and its randomness live.
///
/// Clones share the clock; it goes on through crashes of the actor.
#[derive(Clone, Debug)]
pub struct SimRuntime {
    actor: Actor,
    shared: Arc<Shared>,
    clock: Arc<Mutex<LocalClock>>,
    entropy: Arc<Mutex<Prng>>,
}

/// A clock that may run at another rate than virtual time, and whose wall time may be off.
#[derive(Clone, Copy, Debug)]
struct LocalClock {
    /// Virtual time at which the rate was set.
    since: Instant,
    /// What the clock showed then.
    shown: Instant,
    /// Nanoseconds shown per million virtual ones.
    rate: u64,
    /// Wall time at the clock's origin.
    wall: Duration,
}

impl LocalClock {
    fn at(&self, now: Instant) -> Instant {
        let elapsed = u128::from(nanoseconds(now.since(self.since)));
        self.shown + from_nanoseconds(elapsed * u128::from(self.rate) / 1_000_000)
    }

    /// The first virtual time at which the clock shows `local`.
    fn when(&self, local: Instant) -> Instant {
        if local == Instant::FAR_FUTURE {
            return local;
        }
        let missing = u128::from(nanoseconds(local.since(self.shown)));
        self.since + from_nanoseconds((missing * 1_000_000).div_ceil(u128::from(self.rate)))
    }
}

fn from_nanoseconds(nanoseconds: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

impl SimRuntime {
    /// The runtime of `actor`, with an exact clock; `entropy` is its own stream.
    #[must_use]
    pub fn new(executor: &Executor, actor: Actor, entropy: Prng) -> Self {
        let clock = LocalClock {
            since: executor.now(),
            shown: executor.now(),
            rate: 1_000_000,
            wall: WALL_ORIGIN,
        };
        Self {
            actor,
            shared: executor.shared(),
            clock: Arc::new(Mutex::new(clock)),
            entropy: Arc::new(Mutex::new(entropy)),
        }
    }

    /// Lets the clock run at `millionths` of the true rate from now on: 1 000 000 is exact,
    /// 10 000 000 ten times too fast. A rate of zero is taken as one.
    ///
    /// Whoever sleeps already must be woken ([`Executor::wake_all`]) to notice.
    pub fn set_rate(&self, millionths: u64) {
        let now = self.shared.now();
        let mut clock = lock(&self.clock);
        clock.shown = clock.at(now);
        clock.since = now;
        clock.rate = millionths.max(1);
    }

    /// Lets the wall clock jump forward, or back, but never to before 1970.
    pub fn jump_wall(&self, by: Duration, back: bool) {
        let mut clock = lock(&self.clock);
        clock.wall =
            if back { clock.wall.saturating_sub(by) } else { clock.wall.saturating_add(by) };
    }

    /// The same runtime with a clock that is always exact.
    #[must_use]
    pub fn with_exact_clock(&self) -> Self {
        let clock = LocalClock {
            since: Instant::ZERO,
            shown: Instant::ZERO,
            rate: 1_000_000,
            wall: WALL_ORIGIN,
        };
        Self { clock: Arc::new(Mutex::new(clock)), ..self.clone() }
    }

    /// Whose runtime it is.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        self.actor
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Instant {
        lock(&self.clock).at(self.shared.now())
    }

    fn wall_clock(&self) -> Duration {
        let clock = *lock(&self.clock);
        clock.wall + clock.at(self.shared.now()).since(Instant::ZERO)
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(Sleep {
            at,
            shared: Arc::clone(&self.shared),
            clock: Arc::clone(&self.clock),
            timer: None,
        })
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.shared.spawn(self.actor, name, task);
    }

    fn has_threads(&self) -> bool {
        false
    }

    fn entropy(&self) -> u128 {
        lock(&self.entropy).next_u128()
    }
}

struct Sleep {
    at: Instant,
    shared: Arc<Shared>,
    clock: Arc<Mutex<LocalClock>>,
    timer: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = *lock(&self.clock);
        if clock.at(self.shared.now()) >= self.at {
            return Poll::Ready(());
        }
        let due = clock.when(self.at);
        if let Some(timer) = self.timer {
            if timer.0 == due && self.shared.renew_timer(timer, context.waker()) {
                return Poll::Pending;
            }
            self.shared.remove_timer(timer);
        }
        if due != Instant::FAR_FUTURE {
            self.timer = Some(self.shared.add_timer(due, context.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.shared.remove_timer(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + MILLISECOND * u32::try_from(milliseconds).unwrap()
    }

    #[test]
    fn a_fast_clock_shows_more_and_wakes_earlier() {
        let mut executor = Executor::new();
        let runtime = SimRuntime::new(&executor, Actor::Client(0), Prng::new(1));
        runtime.set_rate(10_000_000);
        let sleeper = runtime.clone();
        executor.spawn(Actor::Client(0), "sleeper", async move {
            sleeper.sleep_until(at(100)).await;
        });
        executor.run_ready();
        assert_eq!(executor.next_timer(), Some(at(10)));
        executor.advance_to(at(10));
        assert_eq!(runtime.now(), at(100));
    }

    #[test]
    fn a_change_of_rate_never_turns_the_clock_back() {
        let mut executor = Executor::new();
        let runtime = SimRuntime::new(&executor, Actor::Client(0), Prng::new(1));
        runtime.set_rate(5_000_000);
        executor.advance_to(at(10));
        runtime.set_rate(500_000);
        assert_eq!(runtime.now(), at(50));
        executor.advance_to(at(20));
        assert_eq!(runtime.now(), at(55));
    }

    #[test]
    fn the_wall_clock_jumps_and_the_monotonic_one_does_not() {
        let executor = Executor::new();
        let runtime = SimRuntime::new(&executor, Actor::Client(0), Prng::new(1));
        let before = runtime.wall_clock();
        runtime.jump_wall(Duration::from_secs(3600), true);
        assert_eq!(before - runtime.wall_clock(), Duration::from_secs(3600));
        assert_eq!(runtime.now(), Instant::ZERO);
    }
}
