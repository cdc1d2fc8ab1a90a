//! Which connections have something to do, so that a turn touches no idle one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use futures::task::AtomicWaker;

/// The connections that woke up since they were last looked at, and who looks at them.
///
/// Bounded: a connection is in it at most once.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    tokens: Mutex<Vec<usize>>,
    reader: AtomicWaker,
}

impl Ready {
    /// Whom to wake from now on.
    pub(crate) fn register(&self, reader: &Waker) {
        self.reader.register(reader);
    }

    /// Wakes whoever waits in `receive`.
    pub(crate) fn wake(&self) {
        self.reader.wake();
    }

    /// Moves the tokens to `into`.
    pub(crate) fn take(&self, into: &mut Vec<usize>) {
        into.append(&mut self.tokens.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn push(&self, token: usize) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token);
    }
}

/// Puts one connection on the list of those that have something to do.
#[derive(Debug)]
pub(crate) struct ReadyWaker {
    ready: Arc<Ready>,
    token: usize,
    listed: AtomicBool,
}

impl ReadyWaker {
    pub(crate) fn new(ready: Arc<Ready>, token: usize) -> Self {
        Self { ready, token, listed: AtomicBool::new(false) }
    }

    /// Says that the connection is off the list; before it is looked at, so that no wake is lost.
    pub(crate) fn taken(&self) {
        self.listed.store(false, Ordering::Release);
    }
}

impl Wake for ReadyWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.ready.push(self.token);
        }
        self.ready.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_listed_once_until_it_is_taken() {
        let ready = Arc::new(Ready::default());
        let waker = Arc::new(ReadyWaker::new(Arc::clone(&ready), 7));
        waker.wake_by_ref();
        waker.wake_by_ref();
        let mut tokens = Vec::new();
        ready.take(&mut tokens);
        assert_eq!(tokens, [7]);
        waker.wake_by_ref();
        ready.take(&mut tokens);
        assert_eq!(tokens, [7], "it was not taken off the list");
        waker.taken();
        waker.wake_by_ref();
        ready.take(&mut tokens);
        assert_eq!(tokens, [7, 7]);
    }
}
