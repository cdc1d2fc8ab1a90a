//! Storage in a directory of files: the async face of a store that runs on threads of its own.

pub mod checkpoints;
pub mod damage;
pub(crate) mod index;
pub(crate) mod names;
pub mod reader;
pub mod record;
pub(crate) mod replay;
pub mod scan;
pub(crate) mod segment;
pub mod store;
pub(crate) mod superblock;
pub mod view_store;
pub(crate) mod wal;
pub(crate) mod window;

use core::fmt;
use std::{
    path::PathBuf,
    sync::Arc,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use async_trait::async_trait;
use futures::{channel::oneshot, lock::Mutex};
use vr_core::{
    Durability, LogReader, LogWriter, MemoryCheckpoints, OpNumber, Opened, Recovered, Storage,
    StorageError, WriteBatch,
    model::{durable::Identity, entry::Entry},
};

use crate::{
    disk::RealDisk,
    file::{
        checkpoints::FileCheckpoints,
        reader::StoreReader,
        segment::{Preparation, Segment},
        store::{Store, StoreOptions},
        view_store::{NoLog, ViewStore},
    },
    memory::MemoryStorage,
};

/// Jobs that wait for a thread. One suffices: the next one is handed over when the last one was
/// answered, so nothing ever waits for room.
const JOBS_MAX: usize = 1;

/// Storage in a directory; created, with its parents, when it is opened for the first time.
///
/// What is in the directory depends on the group's mode: the log and the superblock in
/// [`Durability::Full`], the superblock in [`Durability::ViewOnly`]; in [`Durability::Diskless`]
/// the directory is not touched.
///
/// Opening starts three threads: one writes and syncs, one reads, one makes log segments ahead of
/// need. They end when writer and reader are dropped, which waits for the write in progress.
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
}

impl FileStorage {
    /// The directory at `path`; nothing is touched before it is opened.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), options: StoreOptions::default() }
    }

    /// The same directory with another layout; segments that are there keep theirs.
    #[must_use]
    pub const fn with_options(mut self, options: StoreOptions) -> Self {
        self.options = options;
        self
    }
}

#[async_trait]
impl Storage for FileStorage {
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError> {
        let (opened, answer) = oneshot::channel();
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let identity = identity.clone();
        let Self { path, options } = *self;
        match identity.durability {
            Durability::Full => {}
            Durability::ViewOnly => return open_view_store(path, identity).await,
            Durability::Diskless => {
                return Box::new(MemoryStorage::new()).open(&identity).await;
            }
        }
        let directory = path.clone();
        let writing = spawn("vr-storage-write", path.clone(), move || {
            let opening = RealDisk::open(&directory)
                .map_err(|source| StorageError::Io { action: "open", path: directory, source })
                .and_then(|disk| Store::open(disk, &identity, options));
            let answered = match opening {
                Ok((recovered, store)) => {
                    let sent = opened.send(Ok((recovered, store.reader(), store.checkpoints())));
                    sent.is_ok().then_some(store)
                }
                Err(error) => {
                    // Nobody listening means that nobody wants to know.
                    let _ = opened.send(Err(error));
                    None
                }
            };
            if let Some(store) = answered {
                write_jobs(store, &queue);
            }
        })?;
        let writer = FileWriter { thread: Thread { jobs: Some(jobs), handle: Some(writing) } };
        let opened: Result<(Recovered, StoreReader<RealDisk>, FileCheckpoints<RealDisk>), _> =
            answer.await.unwrap_or(Err(StorageError::Poisoned));
        let (recovered, reader, checkpoints) = opened?;
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let reading = spawn("vr-storage-read", path, move || read_jobs(&reader, &queue))?;
        let thread = Thread { jobs: Some(jobs), handle: Some(reading) };
        let reader = FileReader { thread, pending: Mutex::new(None) };
        let checkpoints = Arc::new(checkpoints);
        Ok(Opened { recovered, writer: Box::new(writer), reader: Box::new(reader), checkpoints })
    }
}

/// Without a log on disk there is nothing to read and no segment to make: one thread.
async fn open_view_store(path: PathBuf, identity: Identity) -> Result<Opened, StorageError> {
    let (opened, answer) = oneshot::channel();
    let (jobs, queue) = sync_channel(JOBS_MAX);
    let directory = path.clone();
    let writing = spawn("vr-storage-write", path, move || {
        let disk = RealDisk::open(&directory).map_err(|source| StorageError::Io {
            action: "open",
            path: directory,
            source,
        });
        let (answered, store) = match disk.and_then(|disk| ViewStore::open(disk, &identity)) {
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
    let writer = FileWriter { thread: Thread { jobs: Some(jobs), handle: Some(writing) } };
    let recovered = answer.await.unwrap_or(Err(StorageError::Poisoned))?;
    let checkpoints = Arc::new(MemoryCheckpoints::new());
    Ok(Opened { recovered, writer: Box::new(writer), reader: Box::new(NoLog), checkpoints })
}

fn spawn(
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
struct Thread<Job> {
    jobs: Option<SyncSender<Job>>,
    handle: Option<JoinHandle<()>>,
}

impl<Job> Thread<Job> {
    /// Hands a job over; fails when the thread has ended.
    fn send(&self, job: Job) -> Result<(), StorageError> {
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

/// Something for the writing thread to do.
enum WriteJob {
    Write(WriteBatch, oneshot::Sender<Result<(), StorageError>>),
    MarkIdle(oneshot::Sender<Result<(), StorageError>>),
}

/// The writing thread: one job after the other, and segments made ahead on a thread beside it.
fn write_jobs(mut store: Store<RealDisk>, queue: &Receiver<WriteJob>) {
    let (preparations, to_prepare) = sync_channel::<Preparation<RealDisk>>(JOBS_MAX);
    let (done, prepared) = sync_channel::<Result<Segment, StorageError>>(JOBS_MAX);
    let preparing = spawn("vr-storage-prepare", store.path(), move || {
        while let Ok(preparation) = to_prepare.recv() {
            if done.send(preparation.run()).is_err() {
                return;
            }
        }
    });
    let thread = Thread { jobs: Some(preparations), handle: preparing.ok() };
    while let Ok(job) = queue.recv() {
        if let Ok(outcome) = prepared.try_recv()
            && store.prepared(outcome).is_err()
        {
            tracing::error!("the log's next segment cannot be put aside");
        }
        // A receiver that is gone was dropped with its node.
        match job {
            WriteJob::Write(batch, answer) => drop(answer.send(store.write(&batch))),
            WriteJob::MarkIdle(answer) => drop(answer.send(store.mark_idle())),
        }
        if let Some(preparation) = store.preparation()
            && thread.send(preparation).is_err()
        {
            tracing::warn!("log segments are made when they are needed, which is slower");
        }
    }
}

/// The write path of an opened [`FileStorage`].
#[derive(Debug)]
struct FileWriter {
    thread: Thread<WriteJob>,
}

#[async_trait]
impl LogWriter for FileWriter {
    async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
        let (answer, answered) = oneshot::channel();
        self.thread.send(WriteJob::Write(batch, answer))?;
        answered.await.unwrap_or(Err(StorageError::Poisoned))
    }

    async fn mark_idle(&mut self) -> Result<(), StorageError> {
        let (answer, answered) = oneshot::channel();
        self.thread.send(WriteJob::MarkIdle(answer))?;
        answered.await.unwrap_or(Err(StorageError::Poisoned))
    }
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
