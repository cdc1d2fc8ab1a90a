//! The one sleep of a parked node.

use core::{task::Context, time::Duration};

use futures::future::BoxFuture;

use crate::{model::time::Instant, node::shared::Shared};

/// How much too early a sleep may end before it is armed anew: to wake for nothing costs more than to
/// arm it.
const EARLY_MAX: Duration = Duration::from_millis(20);

/// Waits with the one sleep, which is armed anew only when it fired, or comes too late or far too
/// early; the time, once `due` has come.
pub(crate) fn poll_sleep(
    shared: &Shared,
    sleep: &mut Option<(Instant, BoxFuture<'static, ()>)>,
    due: Instant,
    cx: &mut Context<'_>,
) -> Option<Instant> {
    loop {
        let armed_at = sleep.as_ref().map_or(Instant::FAR_FUTURE, |(at, _)| *at);
        if due < armed_at || due.since(armed_at) > EARLY_MAX {
            *sleep = Some((due, shared.runtime.sleep_until(due)));
        }
        let (_, armed) = sleep.as_mut()?;
        if armed.as_mut().poll(cx).is_pending() {
            return None;
        }
        *sleep = None;
        let now = shared.runtime.now();
        if now >= due {
            return Some(now);
        }
    }
}
