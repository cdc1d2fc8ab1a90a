//! openraft 0.10: its types, a log in memory with an optional file behind it, a state that counts.

use std::{
    collections::VecDeque,
    fmt::{self, Debug},
    io,
    ops::RangeBounds,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft10::{
    EntryPayload, OptionalSend,
    alias::{DefaultEntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
    impls::leader_id_std::LeaderId,
    storage::{
        EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder,
        RaftStateMachine, Snapshot, SnapshotMeta,
    },
};
use serde::{Deserialize, Serialize};

use crate::{engine::Wal, openraft_store::places};

/// An operation's bytes, which have to be displayable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Operation(pub Bytes);

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft10::declare_raft_types!(
    pub Types:
        D = Operation,
        R = u64,
        NodeId = u64,
        Node = (),
        // One leader a term, as in Raft: a log id is then a term and an index.
        LeaderId = LeaderId<u64, u64>,
);

pub type LogId = LogIdOf<Types>;
type Entry = DefaultEntryOf<Types>;

/// What a follower writes and syncs itself: waking the thread for so little takes longer.
const INLINE_BYTES_MAX: usize = 4 << 10;

/// The log; clones are the same one.
#[derive(Clone)]
pub struct Log {
    me: u64,
    held: Arc<Mutex<Held>>,
    disk: Option<Disk>,
}

#[derive(Default)]
struct Held {
    entries: VecDeque<Entry>,
    vote: Option<VoteOf<Types>>,
    purged: Option<LogId>,
}

/// What the disk is asked for, and who is told.
struct Job {
    bytes: Vec<u8>,
    done: Done,
}

enum Done {
    Appended(IOFlushed<Types>),
    Voted(tokio::sync::oneshot::Sender<io::Result<()>>),
}

/// A file, and the thread that writes and syncs it.
#[derive(Clone)]
struct Disk {
    wal: Arc<Mutex<Wal>>,
    jobs: mpsc::Sender<Job>,
    /// Jobs that are not on disk yet.
    waiting: Arc<AtomicUsize>,
}

impl Disk {
    fn new(wal: Wal) -> Self {
        let (jobs, queue) = mpsc::channel();
        let this = Self { wal: Arc::new(Mutex::new(wal)), jobs, waiting: Arc::default() };
        let (wal, waiting) = (Arc::clone(&this.wal), Arc::clone(&this.waiting));
        std::thread::spawn(move || write(&wal, &queue, &waiting));
        this
    }

    fn send(&self, bytes: Vec<u8>, done: Done) -> io::Result<()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.jobs.send(Job { bytes, done }).map_err(io::Error::other)
    }

    fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    /// Writes on this thread; nothing may be waiting.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut wal = lock(&self.wal);
        wal.push(&[bytes]);
        wal.sync().map_err(io::Error::other)
    }
}

/// Writes everything that waits with one write and one sync.
fn write(wal: &Mutex<Wal>, queue: &mpsc::Receiver<Job>, waiting: &AtomicUsize) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter());
        let synced = {
            let mut wal = lock(wal);
            batch.iter().for_each(|job| wal.push(&[&job.bytes]));
            wal.sync().map_err(|error| error.to_string())
        };
        waiting.fetch_sub(batch.len(), Ordering::SeqCst);
        for job in batch {
            let outcome = synced.clone().map_err(io::Error::other);
            match job.done {
                Done::Appended(told) => told.io_completed(outcome),
                Done::Voted(told) => drop(told.send(outcome)),
            }
        }
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// The log of replica `me` in memory, or behind it one in a file.
    pub fn new(me: u64, wal: Option<Wal>) -> Self {
        Self { me, held: Arc::default(), disk: wal.map(Disk::new) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl Held {
    fn first(&self) -> u64 {
        self.entries.front().map_or(0, |entry| entry.log_id.index)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let held = self.held();
        let places = places(&range, held.first(), held.entries.len());
        Ok(held.entries.range(places).cloned().collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        Ok(self.held().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let held = self.held();
        let last = held.entries.back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: held.purged, last_log_id: last.or(held.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        self.held().vote = Some(*vote);
        let Some(disk) = &self.disk else { return Ok(()) };
        let bytes = postcard::to_allocvec(vote).map_err(io::Error::other)?;
        let (told, done) = tokio::sync::oneshot::channel();
        disk.send(bytes, Done::Voted(told))?;
        done.await.map_err(io::Error::other)?
    }

    async fn append<I>(&mut self, entries: I, told: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut bytes = Vec::new();
        let leads = {
            let mut held = self.held();
            for entry in entries {
                if self.disk.is_some() {
                    bytes.extend_from_slice(&entry.log_id.index.to_le_bytes());
                    if let EntryPayload::Normal(operation) = &entry.payload {
                        bytes.extend_from_slice(&operation.0);
                    }
                }
                held.entries.push_back(entry);
            }
            held.vote.is_some_and(|vote| vote.leader_id.voted_for == self.me)
        };
        match &self.disk {
            None => told.io_completed(Ok(())),
            // A leader's entries leave while they are synced, so it never does that itself.
            Some(disk) if !leads && bytes.len() <= INLINE_BYTES_MAX && disk.is_idle() => {
                told.io_completed(disk.write(&bytes));
            }
            Some(disk) => disk.send(bytes, Done::Appended(told))?,
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let mut held = self.held();
        let first = held.first();
        let kept = last.map_or(0, |last| (last.index + 1).saturating_sub(first));
        held.entries.truncate(kept as usize);
        Ok(())
    }

    async fn purge(&mut self, through: LogId) -> io::Result<()> {
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
    applied: Option<LogId>,
    membership: StoredMembershipOf<Types>,
}

impl RaftSnapshotBuilder<Types> for Count {
    type SnapshotData = u64;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, u64>> {
        let (last_log_id, last_membership) = (self.applied, self.membership.clone());
        Ok(Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: self.count })
    }
}

impl RaftStateMachine<Types> for Count {
    type SnapshotData = u64;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembershipOf<Types>)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, told)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(_) => self.count += 1,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembershipOf::<Types>::new(self.applied, membership);
                }
            }
            if let Some(told) = told {
                told.send(self.count);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        count: u64,
    ) -> io::Result<()> {
        self.count = count;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, u64>>> {
        Ok(None)
    }
}
