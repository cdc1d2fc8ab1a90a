//! Clocks, sleeping, spawning and randomness, so that no async runtime is built in.

use core::{fmt::Debug, time::Duration};

use futures::future::BoxFuture;

use crate::model::time::Instant;

/// The async runtime that a node runs on.
///
/// Implemented for tokio in `vr-transport-tcp` and for virtual time in `vr-sim`; small enough to
/// write for another runtime in thirty lines.
pub trait Runtime: Debug + Send + Sync + 'static {
    /// The monotonic clock; must never go back.
    fn now(&self) -> Instant;

    /// Wall-clock time since 1970-01-01 UTC; may jump.
    fn wall_clock(&self) -> Duration;

    /// Completes when [`now`](Self::now) has reached `at`, or later.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;

    /// Runs `task` to its end in the background. `name` is for debuggers.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);

    /// Whether a node may run its executor on a thread of its own; true unless overridden.
    ///
    /// A simulated runtime says no, because real threads cannot be replayed: the executor then
    /// stays inline, whatever mode is asked for.
    fn has_threads(&self) -> bool {
        true
    }

    /// 128 unpredictable bits: seeds, nonces, client ids and disk ids come from here.
    ///
    /// Two calls, in any processes, must never return the same value; safety rests on it when a
    /// disk was wiped.
    fn entropy(&self) -> u128;
}
