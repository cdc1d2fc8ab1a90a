//! tokio's clock, timers and tasks, as `vr-core` wants them.

use std::{
    future::pending,
    sync::OnceLock,
    time::{Duration, Instant as StdInstant, SystemTime},
};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use vr_core::{Runtime, model::time::Instant};

/// Where this process's monotonic clock starts; the first question sets it.
static ORIGIN: OnceLock<StdInstant> = OnceLock::new();

fn origin() -> StdInstant {
    *ORIGIN.get_or_init(StdInstant::now)
}

/// Runs a node, or a client, on tokio.
///
/// Instants of all runtimes of one process share an origin, so they can be compared.
/// Either flavour of tokio will do; a current-thread runtime per replica saves the hand-offs between
/// threads, which cost more than the protocol does.
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    handle: Handle,
}

impl TokioRuntime {
    /// The runtime that the caller runs on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self::from(Handle::current())
    }
}

impl From<Handle> for TokioRuntime {
    fn from(handle: Handle) -> Self {
        origin();
        Self { handle }
    }
}

impl Runtime for TokioRuntime {
    fn now(&self) -> Instant {
        let elapsed = origin().elapsed().as_nanos();
        Instant(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn wall_clock(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let Some(deadline) = origin().checked_add(Duration::from_nanos(at.0)) else {
            return Box::pin(pending());
        };
        let _entered = self.handle.enter();
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        drop(self.handle.spawn(task));
    }

    /// 128 bits of the operating system's generator.
    ///
    /// # Panics
    /// If the operating system has none to give, which no supported system does after boot.
    fn entropy(&self) -> u128 {
        random()
    }
}

/// 128 unpredictable bits.
pub(crate) fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleeping_ends_when_the_clock_has_reached_the_instant() {
        let runtime = TokioRuntime::current();
        let deadline = runtime.now() + Duration::from_millis(2);
        runtime.sleep_until(deadline).await;
        assert!(runtime.now() >= deadline);
    }

    #[tokio::test]
    async fn a_sleep_that_never_ends_can_be_made_and_dropped() {
        let sleep = TokioRuntime::current().sleep_until(Instant::FAR_FUTURE);
        assert!(futures::FutureExt::now_or_never(sleep).is_none());
    }

    #[tokio::test]
    async fn a_spawned_task_runs() {
        let (told, hear) = tokio::sync::oneshot::channel();
        let task = Box::pin(async move { assert!(told.send(7).is_ok()) });
        TokioRuntime::current().spawn("teller", task);
        assert_eq!(hear.await, Ok(7));
    }

    #[tokio::test]
    async fn two_runtimes_of_a_process_share_their_clock() {
        let one = TokioRuntime::current();
        let earlier = one.now();
        let other = TokioRuntime::current();
        assert!(other.now() >= earlier);
        assert!(one.wall_clock() > Duration::ZERO);
    }

    #[tokio::test]
    async fn entropy_does_not_repeat() {
        let runtime = TokioRuntime::current();
        assert_ne!(runtime.entropy(), runtime.entropy());
    }
}
