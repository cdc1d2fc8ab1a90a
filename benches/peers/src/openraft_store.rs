//! openraft 0.9: its types, a log in memory with an optional file behind it, a state that counts.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io::Cursor,
    ops::{Bound, Range, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use bytes::Bytes;
use openraft::{
    Entry, EntryPayload, LogId, LogState, RaftLogReader, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StoredMembership, Vote,
    storage::{LogFlushed, RaftLogStorage, RaftStateMachine},
};

use crate::engine::Wal;

openraft::declare_raft_types!(
    pub Types:
        D = Bytes,
        R = u64,
        NodeId = u64,
        Node = (),
        Entry = Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
);

type Failed = StorageError<u64>;

/// The log; clones are the same one.
#[derive(Clone)]
pub struct Log {
    held: Arc<Mutex<Held>>,
    /// To the thread that writes and syncs.
    disk: Option<mpsc::Sender<Job>>,
}

#[derive(Default)]
struct Held {
    entries: VecDeque<Entry<Types>>,
    vote: Option<Vote<u64>>,
    purged: Option<LogId<u64>>,
}

/// What the disk is asked for, and who is told.
struct Job {
    bytes: Vec<u8>,
    done: Done,
}

enum Done {
    Appended(LogFlushed<Types>),
    Voted(tokio::sync::oneshot::Sender<()>),
}

impl Log {
    /// A log in memory, or behind it one in a file.
    pub fn new(wal: Option<Wal>) -> Self {
        let disk = wal.map(|wal| {
            let (sender, jobs) = mpsc::channel();
            std::thread::spawn(move || write(wal, &jobs));
            sender
        });
        Self { held: Arc::default(), disk }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes everything that waits with one write and one sync.
fn write(mut wal: Wal, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        batch.extend(jobs.try_iter());
        batch.iter().for_each(|job| wal.push(&[&job.bytes]));
        let synced = wal.sync().map_err(|error| error.to_string());
        for job in batch {
            match job.done {
                Done::Appended(told) => {
                    told.log_io_completed(synced.clone().map_err(std::io::Error::other));
                }
                Done::Voted(told) => drop(told.send(())),
            }
        }
    }
}

impl Held {
    fn first(&self) -> u64 {
        self.entries.front().map_or(0, |entry| entry.log_id.index)
    }
}

/// Where the entries with indices in `range` are among `count` entries, the first with index `first`.
pub fn places(range: &impl RangeBounds<u64>, first: u64, count: usize) -> Range<usize> {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let until = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    let until = until.min(first + count as u64);
    let from = from.max(first).min(until);
    (from - first) as usize..(until - first) as usize
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, Failed> {
        let held = self.held();
        let places = places(&range, held.first(), held.entries.len());
        Ok(held.entries.range(places).cloned().collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Failed> {
        let held = self.held();
        let last = held.entries.back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: held.purged, last_log_id: last.or(held.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failed> {
        self.held().vote = Some(*vote);
        if let Some(disk) = &self.disk {
            let bytes = postcard::to_allocvec(vote).expect("memory takes every vote");
            let (told, done) = tokio::sync::oneshot::channel();
            // The thread ends with the process only.
            let _ = disk.send(Job { bytes, done: Done::Voted(told) });
            let _ = done.await;
        }
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failed> {
        Ok(self.held().vote)
    }

    async fn append<I>(&mut self, entries: I, told: LogFlushed<Types>) -> Result<(), Failed>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let mut bytes = Vec::new();
        {
            let mut held = self.held();
            for entry in entries {
                if self.disk.is_some() {
                    bytes.extend_from_slice(&entry.log_id.index.to_le_bytes());
                    if let EntryPayload::Normal(payload) = &entry.payload {
                        bytes.extend_from_slice(payload);
                    }
                }
                held.entries.push_back(entry);
            }
        }
        match &self.disk {
            Some(disk) => {
                let _ = disk.send(Job { bytes, done: Done::Appended(told) });
            }
            None => told.log_io_completed(Ok(())),
        }
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Result<(), Failed> {
        let mut held = self.held();
        let kept = from.index.saturating_sub(held.first()) as usize;
        held.entries.truncate(kept);
        Ok(())
    }

    async fn purge(&mut self, through: LogId<u64>) -> Result<(), Failed> {
        let mut held = self.held();
        while held.entries.front().is_some_and(|entry| entry.log_id.index <= through.index) {
            held.entries.pop_front();
        }
        held.purged = Some(through);
        Ok(())
    }
}

/// Counts operations.
#[derive(Clone, Default)]
pub struct Count {
    count: u64,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, ()>,
}

impl Count {
    fn snapshot(&self) -> Snapshot<Types> {
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                snapshot_id: self.count.to_string(),
            },
            snapshot: Box::new(Cursor::new(self.count.to_le_bytes().to_vec())),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Count {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failed> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<Types> for Count {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, ()>), Failed> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<u64>, Failed>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let applied = entries.into_iter().map(|entry| {
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(_) => self.count += 1,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            self.count
        });
        Ok(applied.collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failed> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, ()>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failed> {
        let bytes: [u8; 8] = snapshot.into_inner().try_into().unwrap_or_default();
        self.count = u64::from_le_bytes(bytes);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failed> {
        Ok(None)
    }
}
