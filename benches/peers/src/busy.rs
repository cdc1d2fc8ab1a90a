//! Asking the sockets again and again for a while, as this repository's transport does.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::yield_now};

/// How long a replica that heard something asks for more before it sleeps.
#[derive(Debug)]
pub struct Busy {
    limit: Duration,
    last: Instant,
}

impl Busy {
    /// It does so for `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now() }
    }

    /// Something was read or written.
    pub fn note(&mut self) {
        if !self.limit.is_zero() {
            self.last = Instant::now();
        }
    }

    /// How long to wait for the sockets, where it would be for `patience`; lets others run first.
    pub fn patience(&self, patience: Duration) -> Duration {
        if self.limit.is_zero() || self.last.elapsed() >= self.limit {
            return patience;
        }
        thread::yield_now();
        Duration::ZERO
    }
}

/// The same for tasks on a tokio runtime.
#[derive(Clone, Debug)]
pub struct BusyRuntime(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    limit: Duration,
    last: Mutex<Instant>,
    heard: Notify,
}

impl BusyRuntime {
    /// Keeps the runtime from sleeping for `limit` after each note.
    pub fn start(limit: Duration) -> Self {
        if limit.is_zero() {
            return Self(None);
        }
        let shared =
            Arc::new(Shared { limit, last: Mutex::new(Instant::now()), heard: Notify::new() });
        let asking = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let last = *asking.last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() < asking.limit {
                    thread::yield_now();
                    yield_now().await;
                } else {
                    asking.heard.notified().await;
                }
            }
        });
        Self(Some(shared))
    }

    /// Something was read.
    pub fn note(&self) {
        if let Some(shared) = &self.0 {
            *shared.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            shared.heard.notify_one();
        }
    }
}
