//! Waiting without sleeping, for a while after the last message.

use std::{
    future::Future,
    pin::pin,
    sync::{Mutex, PoisonError},
    task::Context,
    thread,
    time::{Duration, Instant},
};

use tokio::task::yield_now;

/// Whether whoever waits for messages sleeps.
///
/// A thread that sleeps has to be woken, which takes longer than all that a replica does with a
/// message. Where the next message is soon to come it is better to ask for it again and again; the
/// processor is offered to others between two questions.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    limit: Duration,
    /// When the last message came or went.
    last: Mutex<Option<Instant>>,
}

impl BusyPoll {
    /// Does not sleep until `limit` after the last message.
    pub(crate) const fn new(limit: Duration) -> Self {
        Self { limit, last: Mutex::new(None) }
    }

    /// A message came or went.
    pub(crate) fn note(&self) {
        if !self.limit.is_zero() {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Has the caller polled again when the sockets have been asked, unless it is time to sleep.
    pub(crate) fn wait(&self, context: &mut Context<'_>) {
        if self.limit.is_zero() {
            return;
        }
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < self.limit) {
            thread::yield_now();
            // It wakes whoever polls it, after the runtime has looked at its sockets.
            let _ = pin!(yield_now()).poll(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Wake, Waker};

    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often somebody who waits after a message is asked to look again at once.
    fn wakes(busy: &BusyPoll) -> u32 {
        let wakes = Arc::new(Wakes::default());
        busy.wait(&mut Context::from_waker(&Waker::from(Arc::clone(&wakes))));
        wakes.0.load(Ordering::Relaxed)
    }

    #[test]
    fn after_a_message_nobody_sleeps_for_a_while() {
        let busy = BusyPoll::new(Duration::from_secs(3600));
        assert_eq!(wakes(&busy), 0, "there was no message");
        busy.note();
        assert_eq!(wakes(&busy), 1);
        assert_eq!(wakes(&busy), 1);
    }

    #[test]
    fn long_after_a_message_it_is_time_to_sleep() {
        let busy = BusyPoll::new(Duration::from_nanos(1));
        busy.note();
        let noted = Instant::now();
        while noted.elapsed().is_zero() {}
        assert_eq!(wakes(&busy), 0);
    }

    #[test]
    fn without_a_limit_everybody_sleeps_at_once() {
        let busy = BusyPoll::new(Duration::ZERO);
        busy.note();
        assert_eq!(wakes(&busy), 0);
    }
}
