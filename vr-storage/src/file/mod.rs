//! Storage in a directory of files: the async face of a store that runs on threads of its own.

pub mod checkpoints;
pub mod damage;
pub(crate) mod index;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod pace;
pub mod reader;
pub mod record;
pub(crate) mod replay;
pub mod scan;
pub(crate) mod segment;
pub(crate) mod spares;
pub mod store;
pub(crate) mod superblock;
mod thread;
pub mod view_store;
pub(crate) mod wal;
pub(crate) mod window;
mod writer;

use std::{
    path::PathBuf,
    sync::Arc,
    sync::mpsc::{Receiver, sync_channel},
};

use async_trait::async_trait;
use futures::{channel::oneshot, lock::Mutex};
use vr_core::{
    Durability, LogReader, MemoryCheckpoints, OpNumber, Opened, Recovered, Storage, StorageError,
    model::{durable::Identity, entry::Entry},
};

use crate::{
    disk::RealDisk,
    file::{
        options::StoreOptions,
        reader::StoreReader,
        store::Store,
        thread::{JOBS_MAX, Thread, spawn},
        view_store::{NoLog, ViewStore},
        writer::{FileWriter, WriteJob},
    },
    memory::MemoryStorage,
};

/// Storage in a directory; created, with its parents, when it is opened for the first time.
///
/// What is in the directory depends on the group's mode: the log and the superblock in
/// [`Durability::Full`], the superblock in [`Durability::ViewOnly`]; in [`Durability::Diskless`]
/// the directory is not touched.
///
/// Opening starts three threads: one writes and syncs, one reads, one makes log segments ahead of
/// need. They end when writer and reader are dropped, which waits for the write in progress.
/// The first is spared small writes by [`with_inline_writes`](Self::with_inline_writes).
///
/// ```
/// use vr_storage::{FileStorage, StoreOptions};
///
/// let options = StoreOptions::default().with_segment_bytes(64 << 20);
/// let storage = FileStorage::new("data/replica-0").with_options(options);
/// # let _ = storage;
/// ```
#[derive(Clone, Debug)]
pub struct FileStorage {
    path: PathBuf,
    options: StoreOptions,
    inline_bytes_max: u64,
}

impl FileStorage {
    /// The directory at `path`; nothing is touched before it is opened.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), options: StoreOptions::default(), inline_bytes_max: 0 }
    }

    /// The same directory with another layout; segments that are there keep theirs.
    #[must_use]
    pub const fn with_options(mut self, options: StoreOptions) -> Self {
        self.options = options;
        self
    }

    /// Writes and syncs batches of up to `bytes_max` bytes of operations on the thread that runs the
    /// node; 0, the default, for none. Those of more than 8 KiB only while nothing arrives during a
    /// write.
    ///
    /// Each of these costs two hand-overs between threads less, which is a fifth of what an operation
    /// takes that is alone. Meanwhile the node does nothing else: a disk that stalls for longer than
    /// the suspicion timeout makes it seem dead, and a runtime with several threads is short of one.
    /// Beyond some 64 KiB a write takes longer than the hand-overs.
    #[must_use]
    pub const fn with_inline_writes(mut self, bytes_max: u64) -> Self {
        self.inline_bytes_max = bytes_max;
        self
    }
}

#[async_trait]
impl Storage for FileStorage {
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError> {
        let identity = identity.clone();
        let Self { path, options, inline_bytes_max } = *self;
        match identity.durability {
            Durability::Full => {}
            Durability::ViewOnly => return open_view_store(path, identity).await,
            Durability::Diskless => {
                return Box::new(MemoryStorage::new()).open(&identity).await;
            }
        }
        let (recovered, store) = open_store(path.clone(), identity, options).await?;
        let (reader, checkpoints) = (store.reader(), Arc::new(store.checkpoints()));
        let writer = Box::new(FileWriter::spawn(store, inline_bytes_max)?);
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let reading = spawn("vr-storage-read", path, move || read_jobs(&reader, &queue))?;
        let reader = FileReader { thread: Thread::new(jobs, reading), pending: Mutex::new(None) };
        Ok(Opened { recovered, writer, reader: Box::new(reader), checkpoints })
    }
}

/// Opens the store on a thread of its own: it reads the whole log.
async fn open_store(
    path: PathBuf,
    identity: Identity,
    options: StoreOptions,
) -> Result<(Recovered, Store<RealDisk>), StorageError> {
    let (opened, answer) = oneshot::channel();
    let directory = path.clone();
    let opening = spawn("vr-storage-open", path, move || {
        let outcome = open_disk(directory).and_then(|disk| Store::open(disk, &identity, options));
        // Nobody listening means that nobody wants to know.
        let _ = opened.send(outcome);
    })?;
    let outcome = answer.await;
    // It has answered, or panicked and said so.
    let _ = opening.join();
    outcome.unwrap_or(Err(StorageError::Poisoned))
}

fn open_disk(path: PathBuf) -> Result<RealDisk, StorageError> {
    RealDisk::open(&path).map_err(|source| StorageError::Io { action: "open", path, source })
}

/// Without a log on disk there is nothing to read and no segment to make: one thread.
async fn open_view_store(path: PathBuf, identity: Identity) -> Result<Opened, StorageError> {
    let (opened, answer) = oneshot::channel();
    let (jobs, queue) = sync_channel(JOBS_MAX);
    let directory = path.clone();
    let writing = spawn("vr-storage-write", path, move || {
        let opening = open_disk(directory).and_then(|disk| ViewStore::open(disk, &identity));
        let (answered, store) = match opening {
            Ok((recovered, store)) => (Ok(recovered), Some(store)),
            Err(error) => (Err(error), None),
        };
        // Nobody listening means that nobody wants to know.
        let (Ok(()), Some(mut store)) = (opened.send(answered), store) else { return };
        while let Ok(job) = queue.recv() {
            // A receiver that is gone was dropped with its node.
            match job {
                WriteJob::Write(batch, answer) => drop(answer.send(store.write(&batch))),
                WriteJob::MarkIdle(answer) => drop(answer.send(Ok(()))),
            }
        }
    })?;
    let writer = FileWriter::new(Thread::new(jobs, writing));
    let recovered = answer.await.unwrap_or(Err(StorageError::Poisoned))?;
    let checkpoints = Arc::new(MemoryCheckpoints::new());
    Ok(Opened { recovered, writer: Box::new(writer), reader: Box::new(NoLog), checkpoints })
}

type Entries = Result<Vec<Entry>, StorageError>;

/// Something for the reading thread to do.
struct ReadJob {
    from: OpNumber,
    through: OpNumber,
    bytes_max: u64,
    answer: oneshot::Sender<Entries>,
}

fn read_jobs(reader: &StoreReader<RealDisk>, queue: &Receiver<ReadJob>) {
    while let Ok(ReadJob { from, through, bytes_max, answer }) = queue.recv() {
        // A receiver that is gone has lost interest.
        drop(answer.send(reader.entries(from, through, bytes_max)));
    }
}

/// The read path of an opened [`FileStorage`]: one read at a time, further ones wait their turn.
#[derive(Debug)]
struct FileReader {
    thread: Thread<ReadJob>,
    /// The read in progress; kept when the future that asked for it is dropped.
    pending: Mutex<Option<oneshot::Receiver<Entries>>>,
}

#[async_trait]
impl LogReader for FileReader {
    async fn entries(&self, from: OpNumber, through: OpNumber, bytes_max: u64) -> Entries {
        let mut pending = self.pending.lock().await;
        if let Some(abandoned) = pending.as_mut() {
            // The answer is for somebody who left; what counts is that the thread is free.
            let _ = abandoned.await;
        }
        let (answer, answered) = oneshot::channel();
        self.thread.send(ReadJob { from, through, bytes_max, answer })?;
        let entries = pending.insert(answered).await.unwrap_or(Err(StorageError::Poisoned));
        *pending = None;
        entries
    }
}
