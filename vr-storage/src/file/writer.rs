//! The write path of an opened directory: on a thread of its own, or for small batches on that of
//! the node.

use core::fmt;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    mpsc::{Receiver, sync_channel},
};

use async_trait::async_trait;
use futures::channel::oneshot;
use vr_core::{LogWriter, StorageError, WriteBatch};

use crate::{
    disk::RealDisk,
    file::{
        pace::Pace,
        segment::{Preparation, Segment},
        store::Store,
        thread::{JOBS_MAX, Thread, spawn},
    },
};

type Outcome = Result<(), StorageError>;

/// Something for the writing thread to do.
pub(super) enum WriteJob {
    Write(WriteBatch, oneshot::Sender<Outcome>),
    MarkIdle(oneshot::Sender<Outcome>),
}

/// A store whose segments are made ahead on a thread beside it.
struct Writing {
    // Ends before the store gives its lock back.
    preparing: Thread<Preparation<RealDisk>>,
    prepared: Receiver<Result<Segment, StorageError>>,
    store: Store<RealDisk>,
}

impl Writing {
    fn new(store: Store<RealDisk>) -> Result<Self, StorageError> {
        let (preparations, to_prepare) = sync_channel::<Preparation<RealDisk>>(JOBS_MAX);
        let (done, prepared) = sync_channel(JOBS_MAX);
        let preparing = spawn("vr-storage-prepare", store.path(), move || {
            while let Ok(preparation) = to_prepare.recv() {
                if done.send(preparation.run()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { preparing: Thread::new(preparations, preparing), prepared, store })
    }

    /// Takes the segment that was made meanwhile, does something, and has the next one made.
    fn with_store(&mut self, action: impl FnOnce(&mut Store<RealDisk>) -> Outcome) -> Outcome {
        if let Ok(outcome) = self.prepared.try_recv()
            && self.store.prepared(outcome).is_err()
        {
            tracing::error!("the log's next segment cannot be put aside");
        }
        let outcome = action(&mut self.store);
        if let Some(preparation) = self.store.preparation()
            && self.preparing.send(preparation).is_err()
        {
            tracing::warn!("log segments are made when they are needed, which is slower");
        }
        outcome
    }
}

/// Writes on a thread of its own, or on the one that polls it.
pub(super) struct FileWriter {
    // Ends first, so that the last of the two below is dropped here.
    thread: Thread<WriteJob>,
    /// What the thread has, too; nobody waits for it, since one write is in flight at a time.
    writing: Option<Arc<Mutex<Writing>>>,
    /// Which batches need no thread.
    pace: Pace,
}

impl FileWriter {
    /// What `thread` writes.
    pub(super) const fn new(thread: Thread<WriteJob>) -> Self {
        Self { thread, writing: None, pace: Pace::new(0) }
    }

    /// Writes to `store`: on a thread, but for the batches of up to `inline_bytes_max` bytes that are
    /// better written at once.
    pub(super) fn spawn(
        store: Store<RealDisk>,
        inline_bytes_max: u64,
    ) -> Result<Self, StorageError> {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let path = store.path();
        let writing = Arc::new(Mutex::new(Writing::new(store)?));
        let shared = Arc::clone(&writing);
        let thread = spawn("vr-storage-write", path, move || {
            while let Ok(job) = queue.recv() {
                let mut writing = lock(&shared);
                let (answer, outcome) = match job {
                    WriteJob::Write(batch, answer) => {
                        (answer, writing.with_store(|store| store.write(&batch)))
                    }
                    WriteJob::MarkIdle(answer) => (answer, writing.with_store(Store::mark_idle)),
                };
                // Whoever hears of it may write at once.
                drop(writing);
                // A receiver that is gone was dropped with its node.
                drop(answer.send(outcome));
            }
        })?;
        let thread = Thread::new(jobs, thread);
        Ok(Self { thread, writing: Some(writing), pace: Pace::new(inline_bytes_max) })
    }

    /// Where to write `batch` at once, if it is worth it: nothing but entries, and few.
    fn at_once(&mut self, batch: &WriteBatch) -> Option<&Arc<Mutex<Writing>>> {
        let WriteBatch { cut: None, superblock: None, release: None, repairs, .. } = batch else {
            return None;
        };
        let writing = self.writing.as_ref().filter(|_| repairs.is_empty())?;
        self.pace.is_for_node(batch.entry_bytes(), batch.gathered).then_some(writing)
    }
}

fn lock(writing: &Mutex<Writing>) -> MutexGuard<'_, Writing> {
    writing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl LogWriter for FileWriter {
    async fn write(&mut self, batch: WriteBatch) -> Outcome {
        if let Some(writing) = self.at_once(&batch) {
            return lock(writing).with_store(|store| store.write(&batch));
        }
        let (answer, answered) = oneshot::channel();
        self.thread.send(WriteJob::Write(batch, answer))?;
        answered.await.unwrap_or(Err(StorageError::Poisoned))
    }

    async fn mark_idle(&mut self) -> Outcome {
        let (answer, answered) = oneshot::channel();
        self.thread.send(WriteJob::MarkIdle(answer))?;
        answered.await.unwrap_or(Err(StorageError::Poisoned))
    }
}

impl fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWriter")
            .field("thread", &self.thread)
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}
