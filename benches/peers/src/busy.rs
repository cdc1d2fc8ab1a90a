//! Asking the sockets again and again for a while, as this repository's transport does.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
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

/// The same for the tasks of this process's runtime.
static RUNTIME: OnceLock<Shared> = OnceLock::new();

#[derive(Debug)]
struct Shared {
    limit: Duration,
    last: Mutex<Instant>,
    heard: Notify,
}

/// Keeps the runtime from sleeping for `limit` after each [`note`].
pub fn keep_awake(limit: Duration) {
    if limit.is_zero() {
        return;
    }
    let shared = RUNTIME.get_or_init(|| Shared {
        limit,
        last: Mutex::new(Instant::now()),
        heard: Notify::new(),
    });
    tokio::spawn(async move {
        loop {
            let last = *shared.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() < shared.limit {
                thread::yield_now();
                yield_now().await;
            } else {
                shared.heard.notified().await;
            }
        }
    });
}

/// A task read something.
pub fn note() {
    if let Some(shared) = RUNTIME.get() {
        *shared.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        shared.heard.notify_one();
    }
}
