//! Threads that take one job after the other until nobody hands them any more.

use core::fmt;
use std::{
    path::PathBuf,
    sync::mpsc::SyncSender,
    thread::{self, JoinHandle},
};

use vr_core::StorageError;

/// Jobs that wait for a thread. One suffices: the next one is handed over when the last one was
/// answered, so nothing ever waits for room.
pub(super) const JOBS_MAX: usize = 1;

pub(super) fn spawn(
    name: &'static str,
    path: PathBuf,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StorageError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|source| StorageError::Io {
        action: "start a thread for",
        path,
        source,
    })
}

/// A thread that takes jobs until their sender is gone.
pub(super) struct Thread<Job> {
    jobs: Option<SyncSender<Job>>,
    handle: Option<JoinHandle<()>>,
}

impl<Job> Thread<Job> {
    /// The one behind `handle`, which takes what is sent to `jobs`.
    pub(super) const fn new(jobs: SyncSender<Job>, handle: JoinHandle<()>) -> Self {
        Self { jobs: Some(jobs), handle: Some(handle) }
    }

    /// Hands a job over; fails when the thread has ended.
    pub(super) fn send(&self, job: Job) -> Result<(), StorageError> {
        let jobs = self.jobs.as_ref().ok_or(StorageError::Poisoned)?;
        jobs.try_send(job).map_err(|_| StorageError::Poisoned)
    }
}

impl<Job> Drop for Thread<Job> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            // A thread that panicked has said so; its lock and files are released all the same.
            let _ = handle.join();
        }
    }
}

impl<Job> fmt::Debug for Thread<Job> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Thread")
    }
}
