//! The `Storage` port: the real log and superblock code, run over a simulated disk.

use core::{fmt, task::Poll};
use std::{
    sync::{Arc, Mutex},
    task::Waker,
};

use async_trait::async_trait;
use futures::future::poll_fn;
use vr_core::{
    MemoryCheckpoints,
    model::{
        durable::{Durability, Identity, Superblock},
        entry::Entry,
        types::{OpNumber, ReplicaId},
    },
    ports::{
        runtime::Runtime,
        storage::{LogReader, LogWriter, Opened, Recovered, Storage, StorageError, WriteBatch},
    },
};
use vr_storage::{FileCheckpoints, NoLog, Store, StoreOptions, StoreReader, ViewStore};

use crate::{
    disk::{DiskControl, SimDisk, faults::StorageBugs},
    executor::lock,
    runtime::SimRuntime,
    trace::event::Event,
    witness::SharedWitness,
};

/// Bytes of one log segment: small, so that short runs recycle segments, too.
const SEGMENT_BYTES: u64 = 256 << 10;

/// Storage of one life of a replica.
///
/// Runs `vr_storage::Store` on the calling task and waits afterwards as long as the disk says that
/// it took, in virtual time.
pub struct SimStorage {
    parts: Parts,
}

/// What the writer and the reader share.
#[derive(Clone)]
struct Parts {
    replica: ReplicaId,
    disk: DiskControl,
    runtime: SimRuntime,
    gate: Gate,
    witness: SharedWitness,
    bugs: StorageBugs,
}

/// Lets a replica's writes through, or stalls them until it is opened again; clones are the same.
#[derive(Clone, Default)]
pub struct Gate {
    state: Arc<Mutex<GateState>>,
}

#[derive(Debug, Default)]
struct GateState {
    closed: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// Stalls every write that has not begun.
    pub fn close(&mut self) {
        lock(&self.state).closed = true;
    }

    /// Lets the stalled writes begin.
    pub fn open(&mut self) {
        let waiting = {
            let mut state = lock(&self.state);
            state.closed = false;
            core::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    async fn pass(&self) {
        poll_fn(|context| {
            let mut state = lock(&self.state);
            if !state.closed {
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl SimStorage {
    /// The storage of `replica` on `disk`; `runtime` must have an exact clock.
    #[must_use]
    pub const fn new(
        replica: ReplicaId,
        disk: DiskControl,
        runtime: SimRuntime,
        gate: Gate,
        witness: SharedWitness,
    ) -> Self {
        let bugs = StorageBugs::none();
        Self { parts: Parts { replica, disk, runtime, gate, witness, bugs } }
    }

    /// The same with bugs.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub(crate) const fn with_bugs(mut self, bugs: StorageBugs) -> Self {
        self.parts.bugs = bugs;
        self
    }
}

impl Parts {
    fn note_failure(&self, error: &StorageError) {
        let event = Event::Disk(self.replica, error.to_string());
        lock(&self.witness).trace.record(self.runtime.now(), event);
    }

    /// Waits as long as the calls to the disk took.
    async fn pay(&mut self) {
        let cost = self.disk.cost();
        self.runtime.sleep_until(self.runtime.now() + cost).await;
    }
}

#[async_trait]
impl Storage for SimStorage {
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError> {
        let mut parts = self.parts;
        match identity.durability {
            Durability::Full => {}
            Durability::ViewOnly => return open_views(parts, identity).await,
            Durability::Diskless => return Ok(open_nothing(&parts, identity)),
        }
        let options = StoreOptions::default().with_segment_bytes(SEGMENT_BYTES);
        let disk = parts.disk.disk().with_bugs(parts.bugs);
        let opened = Store::open(disk.clone(), identity, options);
        parts.pay().await;
        let (recovered, store) = opened?;
        let now = parts.runtime.now();
        let lied = parts.disk.was_damaged();
        lock(&parts.witness).opened(now, parts.replica, &recovered, lied);
        let reader = SimReader { reader: store.reader(), parts: parts.clone() };
        let writer = SimWriter { store: SimStore::Whole(store), parts };
        let checkpoints = Arc::new(FileCheckpoints::new(disk, true));
        Ok(Opened { recovered, writer: Box::new(writer), reader: Box::new(reader), checkpoints })
    }
}

/// Storage of a replica whose log is in memory.
async fn open_views(mut parts: Parts, identity: &Identity) -> Result<Opened, StorageError> {
    let opened = ViewStore::open(parts.disk.disk().with_bugs(parts.bugs), identity);
    parts.pay().await;
    let (recovered, store) = opened?;
    let lied = parts.disk.was_damaged();
    lock(&parts.witness).opened(parts.runtime.now(), parts.replica, &recovered, lied);
    let writer = SimWriter { store: SimStore::Views(store), parts };
    let checkpoints = Arc::new(MemoryCheckpoints::new());
    Ok(Opened { recovered, writer: Box::new(writer), reader: Box::new(NoLog), checkpoints })
}

/// Storage of a replica that remembers nothing.
fn open_nothing(parts: &Parts, identity: &Identity) -> Opened {
    lock(&parts.witness).forgot(parts.replica);
    let recovered = Recovered::whole(Superblock::blank(identity), Vec::new());
    let writer = SimWriter { store: SimStore::Nothing, parts: parts.clone() };
    let checkpoints = Arc::new(MemoryCheckpoints::new());
    Opened { recovered, writer: Box::new(writer), reader: Box::new(NoLog), checkpoints }
}

/// What a replica's mode keeps on disk.
enum SimStore {
    /// Log and superblock.
    Whole(Store<SimDisk>),
    /// The superblock.
    Views(ViewStore<SimDisk>),
    /// Nothing.
    Nothing,
}

impl SimStore {
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        match self {
            Self::Whole(store) => store.write(batch),
            Self::Views(store) => store.write(batch),
            Self::Nothing => Err(StorageError::Poisoned),
        }
    }

    fn prepare_ahead(&mut self) -> Result<(), StorageError> {
        match self {
            Self::Whole(store) => store.prepare_ahead().map(drop),
            Self::Views(_) | Self::Nothing => Ok(()),
        }
    }
}

struct SimWriter {
    store: SimStore,
    parts: Parts,
}

#[async_trait]
impl LogWriter for SimWriter {
    async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
        let Self { store, parts } = self;
        parts.gate.pass().await;
        lock(&parts.witness).writing(parts.runtime.now(), parts.replica, &batch);
        let written = match parts.bugs.superblock_first {
            false => store.write(&batch),
            true => in_the_wrong_order(store, batch.clone()),
        };
        let written = written.and_then(|()| store.prepare_ahead());
        parts.pay().await;
        if let Err(error) = &written {
            parts.note_failure(error);
        }
        written?;
        let entries = u64::try_from(batch.entries().count()).unwrap_or(u64::MAX);
        lock(&parts.witness).stored(parts.runtime.now(), parts.replica, entries);
        Ok(())
    }

    async fn mark_idle(&mut self) -> Result<(), StorageError> {
        let SimStore::Whole(store) = &mut self.store else { return Ok(()) };
        let marked = store.mark_idle();
        self.parts.pay().await;
        marked
    }
}

/// Writes the superblock of `batch` before its log part.
fn in_the_wrong_order(store: &mut SimStore, batch: WriteBatch) -> Result<(), StorageError> {
    let superblock = WriteBatch { superblock: batch.superblock.clone(), ..WriteBatch::default() };
    store.write(&superblock)?;
    store.write(&WriteBatch { superblock: None, ..batch })
}

struct SimReader {
    reader: StoreReader<SimDisk>,
    parts: Parts,
}

#[async_trait]
impl LogReader for SimReader {
    async fn entries(
        &self,
        from: OpNumber,
        through: OpNumber,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let entries = self.reader.entries(from, through, bytes_max);
        self.parts.clone().pay().await;
        entries
    }
}

impl fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStorage").field("replica", &self.parts.replica).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWriter").field("replica", &self.parts.replica).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimReader").field("replica", &self.parts.replica).finish_non_exhaustive()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&*lock(&self.state)).finish()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use bytes::Bytes;
    use vr_core::{
        Durability, Members,
        model::{
            certificate::Certificate,
            durable::Superblock,
            entry::{EntryHeader, EntryKind},
            types::{DiskId, View},
        },
    };

    use super::*;
    use crate::{
        actor::Actor, disk::faults::DiskFaults, executor::Executor, prng::Prng, witness::Witness,
    };

    const R0: ReplicaId = ReplicaId(0);

    struct Ground {
        executor: Executor,
        disk: DiskControl,
        runtime: SimRuntime,
        witness: SharedWitness,
        members: Members,
    }

    impl Ground {
        fn new(seed: u64) -> Self {
            let executor = Executor::new();
            let members = Members::local(2).unwrap();
            let witness = Witness::new(&members.to_membership(), Durability::Full);
            let mut disk = DiskControl::new(&executor, R0, Prng::stream(seed, "disk", 0));
            disk.set_faults(DiskFaults::drawn(&mut Prng::stream(seed, "faults", 0)));
            Self {
                disk,
                runtime: SimRuntime::new(&executor, Actor::Replica(R0), Prng::new(seed)),
                executor,
                witness: Arc::new(Mutex::new(witness)),
                members,
            }
        }

        fn identity(&self) -> Identity {
            let members = self.members.to_membership();
            Identity {
                group: members.group_id("g"),
                group_name: "g".into(),
                members,
                replica: R0,
                durability: Durability::Full,
                fresh_disk: DiskId(7),
            }
        }

        /// Lives until a crash at some time; appends, cuts and promises as `rng` draws them.
        fn live(&mut self, rng: &mut Prng) {
            let witness = Arc::clone(&self.witness);
            let gate = Gate::default();
            let runtime = self.runtime.clone();
            let storage = SimStorage::new(R0, self.disk.clone(), runtime, gate, witness);
            let (identity, mut drawn) = (self.identity(), Prng::new(rng.next_u64()));
            self.executor.spawn(Actor::Replica(R0), "life", async move {
                let opened = Box::new(storage).open(&identity).await.unwrap();
                let (mut headers, mut writer) = (opened.recovered.headers, opened.writer);
                let mut superblock = opened.recovered.superblock;
                loop {
                    let batch = next_batch(&mut drawn, &mut headers, &mut superblock);
                    writer.write(batch).await.unwrap();
                }
            });
            let end = self.executor.now() + Duration::from_micros(rng.below(20_000));
            self.executor.run_ready();
            while let Some(at) = self.executor.next_timer().filter(|at| *at <= end) {
                self.executor.advance_to(at);
                self.executor.run_ready();
            }
            self.executor.advance_to(end);
            self.executor.kill(Actor::Replica(R0));
            self.disk.crash();
        }
    }

    fn next_batch(
        rng: &mut Prng,
        headers: &mut Vec<EntryHeader>,
        superblock: &mut Superblock,
    ) -> WriteBatch {
        let mut batch = WriteBatch::default();
        if rng.below(5) == 0 && !headers.is_empty() {
            headers.truncate(rng.position(headers.len()));
            let last = headers.last().map_or(OpNumber::ZERO, |header| header.op_number);
            batch.cut = Some(last);
        }
        for _ in 0..rng.below(4) {
            let last = headers.last().copied();
            let header = EntryHeader {
                parent: last.map_or(superblock.checkpoint.checksum, |header| header.checksum),
                op_number: last.map_or(OpNumber(1), |header| header.op_number.next()),
                view: superblock.view,
                time: rng.next_u64(),
                group: EntryHeader::group_mark(superblock.group),
                kind: EntryKind::Request,
                ..EntryHeader::default()
            };
            let payload = Bytes::from(vec![1; rng.position(3000)]);
            let entry = Entry::new(header, payload);
            headers.push(entry.header);
            batch.entries.push(vec![entry].into());
        }
        if rng.below(3) == 0 {
            superblock.view = View(superblock.view.0 + rng.below(2));
            superblock.certificate = Some(Certificate {
                group_name: "g".into(),
                disks: vec![(R0, DiskId(7))],
                inherited: Vec::new(),
            });
            batch.superblock = Some(superblock.clone());
        }
        batch
    }

    #[test]
    fn whatever_crash_comes_all_that_was_durable_is_back() {
        let mut torn = 0;
        for seed in 0..60 {
            let (mut ground, mut rng) = (Ground::new(seed), Prng::stream(seed, "test", 0));
            for _ in 0..6 {
                ground.live(&mut rng);
                assert_eq!(lock(&ground.witness).violation(), None, "seed {seed}");
            }
            torn += ground.disk.torn();
        }
        assert!(torn > 0);
    }

    #[test]
    fn a_closed_gate_stalls_writes_until_it_opens() {
        let mut ground = Ground::new(1);
        let gate = Gate::default();
        let (witness, runtime) = (Arc::clone(&ground.witness), ground.runtime.clone());
        let storage = SimStorage::new(R0, ground.disk.clone(), runtime, gate.clone(), witness);
        let (identity, mut closing) = (ground.identity(), gate.clone());
        ground.executor.spawn(Actor::Replica(R0), "life", async move {
            let opened = Box::new(storage).open(&identity).await.unwrap();
            closing.close();
            let superblock = Some(Superblock { view: View(3), ..opened.recovered.superblock });
            let mut writer = opened.writer;
            writer.write(WriteBatch { superblock, ..WriteBatch::default() }).await.unwrap();
        });
        let mut view_after = |opened: bool| {
            if opened {
                gate.clone().open();
            }
            ground.executor.run_ready();
            while let Some(at) = ground.executor.next_timer() {
                ground.executor.advance_to(at);
                ground.executor.run_ready();
            }
            lock(&ground.witness).disks().of(R0).unwrap().view
        };
        assert_eq!(view_after(false), View(0));
        assert_eq!(view_after(true), View(3));
    }
}
