//! The node's side of storage: one write in flight, the next gathers behind it.

use core::{
    task::{Context, Poll},
    time::Duration,
};
use std::{collections::VecDeque, sync::Arc};

use futures::future::BoxFuture;
use tracing::warn;

use crate::{
    model::{
        entry::Entry,
        time::Instant,
        types::{OpNumber, PersistId, RequestId},
    },
    node::status::StorageStatus,
    ports::storage::{LogReader, LogWriter, StorageError, WriteBatch},
};

/// Bytes of entries that are written together; a write larger than that goes alone.
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Reads from storage at a time; further ones wait.
const FETCHES_MAX: usize = 16;

/// What storage has done.
#[derive(Debug)]
pub(crate) enum Stored {
    /// Everything up to and including this write is durable.
    Persisted(PersistId),
    /// What was asked for.
    Fetched(RequestId, Vec<Entry>),
    /// The first op that was asked for is damaged.
    Unreadable(RequestId, OpNumber),
    /// Storage failed; the node stops.
    Failed(StorageError),
}

/// One write and its size.
#[derive(Debug)]
struct Write {
    id: PersistId,
    batch: WriteBatch,
    bytes: u64,
}

/// A question to storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) request: RequestId,
    pub(crate) from: OpNumber,
    pub(crate) through: OpNumber,
    pub(crate) bytes_max: u64,
}

type Writing = BoxFuture<'static, (Box<dyn LogWriter>, Result<(), StorageError>)>;
type Reading = BoxFuture<'static, (RequestId, OpNumber, Result<Vec<Entry>, StorageError>)>;

/// The writer, or the future that has it.
enum Writer {
    Idle(Box<dyn LogWriter>),
    /// Writing, or noting that all is synced (then there is nothing to tell).
    Busy(Writing, Option<PersistId>),
    /// It failed.
    Gone,
}

/// Hands writes to storage, one batch at a time, in order.
pub(crate) struct StorageFront {
    writer: Writer,
    reader: Arc<dyn LogReader>,
    queue: VecDeque<Write>,
    fetches: VecDeque<Fetch>,
    reading: Vec<Reading>,
    done: VecDeque<Stored>,
    /// What storage does not have to keep any more.
    released: OpNumber,
    idle_interval: Duration,
    /// When to note that everything is synced; `None` once that is noted.
    idle_at: Option<Instant>,
    numbers: StorageStatus,
}

impl StorageFront {
    /// A front for an opened storage; it is noted as synced after `idle_interval` without writes.
    pub(crate) fn new(
        writer: Box<dyn LogWriter>,
        reader: Arc<dyn LogReader>,
        idle_interval: Duration,
    ) -> Self {
        Self {
            writer: Writer::Idle(writer),
            reader,
            queue: VecDeque::new(),
            fetches: VecDeque::new(),
            reading: Vec::new(),
            done: VecDeque::new(),
            released: OpNumber::ZERO,
            idle_interval,
            idle_at: None,
            numbers: StorageStatus::default(),
        }
    }

    /// Adds a write behind the others. What waits is bounded by what the engine prepares.
    pub(crate) fn persist(&mut self, id: PersistId, batch: WriteBatch) {
        let bytes = batch.entry_bytes();
        let checkpoint = batch.superblock.as_ref().map(|named| named.checkpoint.op_number);
        self.released = self.released.max(batch.release.or(checkpoint).unwrap_or(OpNumber::ZERO));
        self.numbers.queued = self.numbers.queued.saturating_add(1);
        self.numbers.queued_bytes = self.numbers.queued_bytes.saturating_add(bytes);
        self.queue.push_back(Write { id, batch, bytes });
    }

    /// Adds a question behind the others.
    pub(crate) fn fetch(&mut self, fetch: Fetch) {
        self.numbers.fetches = self.numbers.fetches.saturating_add(1);
        self.fetches.push_back(fetch);
    }

    /// Starts what can start and goes on with what is in flight; ready if something is done.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        self.poll_writer(cx, now);
        self.poll_readers(cx);
        if self.done.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Waits for the batch in flight, and for nothing behind it: a write is never dropped half way.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Writer::Busy(writing, _) = &mut self.writer {
            match writing.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(_) => self.writer = Writer::Gone,
            }
        }
        Poll::Ready(())
    }

    /// What is done, in order.
    pub(crate) fn next_done(&mut self) -> Option<Stored> {
        self.done.pop_front()
    }

    /// Whether something is done and not taken yet.
    pub(crate) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether something is on its way to the disk.
    pub(crate) const fn is_writing(&self) -> bool {
        matches!(self.writer, Writer::Busy(..))
    }

    /// Whether nothing waits, is on its way to or from the disk, or is done and not taken yet, and
    /// there is nothing to note by now.
    pub(crate) fn rests(&self, now: Instant) -> bool {
        matches!(self.writer, Writer::Idle(_))
            && self.deadline() > now
            && self.queue.is_empty()
            && self.fetches.is_empty()
            && self.reading.is_empty()
            && self.done.is_empty()
    }

    /// Whether every write is durable, and said to be.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.done.is_empty()
            && !matches!(self.writer, Writer::Busy(_, Some(_)))
    }

    /// When [`poll`](Self::poll) is due although nothing happened.
    pub(crate) fn deadline(&self) -> Instant {
        self.idle_at.unwrap_or(Instant::FAR_FUTURE)
    }

    /// What was written so far.
    pub(crate) const fn numbers(&self) -> StorageStatus {
        self.numbers
    }

    fn poll_writer(&mut self, cx: &mut Context<'_>, now: Instant) {
        let mut ended = false;
        loop {
            self.start(now, ended);
            let Writer::Busy(writing, through) = &mut self.writer else { return };
            let through = *through;
            let Poll::Ready((writer, written)) = writing.as_mut().poll(cx) else { return };
            match written {
                Ok(()) => {
                    self.writer = Writer::Idle(writer);
                    ended = through.is_some();
                }
                Err(error) => {
                    self.writer = Writer::Gone;
                    self.done.push_back(Stored::Failed(error));
                    return;
                }
            }
            if let Some(through) = through {
                self.numbers.batches = self.numbers.batches.saturating_add(1);
                self.idle_at = Some(now + self.idle_interval);
                self.done.push_back(Stored::Persisted(through));
            }
        }
    }

    /// Starts the next write; `ended` if the one before has just ended.
    fn start(&mut self, now: Instant, ended: bool) {
        if matches!(self.writer, Writer::Busy(..) | Writer::Gone) {
            return;
        }
        let next = self.gather();
        let is_quiet = next.is_none();
        if is_quiet && self.idle_at.is_none_or(|at| at > now) {
            return;
        }
        self.idle_at = None;
        let Writer::Idle(mut writer) = core::mem::replace(&mut self.writer, Writer::Gone) else {
            return;
        };
        self.writer = match next {
            Some((through, mut batch)) => {
                batch.gathered = ended;
                let writing = async move {
                    let written = writer.write(batch).await;
                    (writer, written)
                };
                Writer::Busy(Box::pin(writing), Some(through))
            }
            None => {
                let noting = async move {
                    let noted = writer.mark_idle().await;
                    (writer, noted)
                };
                Writer::Busy(Box::pin(noting), None)
            }
        };
    }

    /// Takes out the next batch: the oldest write, and what can become durable with it.
    fn gather(&mut self) -> Option<(PersistId, WriteBatch)> {
        let Write { id, mut batch, mut bytes } = self.queue.pop_front()?;
        let (mut through, mut writes) = (id, 1);
        while let Some(next) = self.queue.front() {
            if bytes.saturating_add(next.bytes) > BATCH_BYTES_MAX || !batch.can_absorb(&next.batch)
            {
                break;
            }
            let Some(next) = self.queue.pop_front() else { break };
            bytes = bytes.saturating_add(next.bytes);
            through = next.id;
            writes += 1;
            batch.absorb(next.batch);
        }
        self.numbers.writes = self.numbers.writes.saturating_add(writes);
        self.numbers.entry_bytes = self.numbers.entry_bytes.saturating_add(bytes);
        self.numbers.queued = self.numbers.queued.saturating_sub(writes);
        self.numbers.queued_bytes = self.numbers.queued_bytes.saturating_sub(bytes);
        Some((through, batch))
    }

    fn poll_readers(&mut self, cx: &mut Context<'_>) {
        while self.reading.len() < FETCHES_MAX {
            let Some(Fetch { request, from, through, bytes_max }) = self.fetches.pop_front() else {
                break;
            };
            let reader = Arc::clone(&self.reader);
            self.reading.push(Box::pin(async move {
                (request, from, reader.entries(from, through, bytes_max).await)
            }));
        }
        let (done, released) = (&mut self.done, self.released);
        let before = self.reading.len();
        self.reading.retain_mut(|reading| match reading.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready((request, _, Ok(entries))) => {
                done.push_back(Stored::Fetched(request, entries));
                false
            }
            Poll::Ready((request, from, Err(StorageError::Corrupt { what, path, at }))) => {
                warn!(op = %from, %what, path = %path.display(), at, "damage found");
                done.push_back(Stored::Unreadable(request, from));
                false
            }
            // It was released between the question and the answer; who asked knows by now.
            Poll::Ready((request, from, Err(StorageError::Missing { .. }))) if from <= released => {
                done.push_back(Stored::Fetched(request, Vec::new()));
                false
            }
            Poll::Ready((_, _, Err(error))) => {
                done.push_back(Stored::Failed(error));
                false
            }
        });
        let finished = u64::try_from(before - self.reading.len()).unwrap_or(u64::MAX);
        self.numbers.fetches = self.numbers.fetches.saturating_sub(finished);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures::task::noop_waker_ref;

    use super::*;
    use crate::model::{
        durable::{Durability, Identity, Superblock},
        entry::EntryHeader,
        membership::Members,
        types::{DiskId, GroupId, ReplicaId},
    };

    const IDLE: Duration = Duration::from_nanos(10);

    /// What was written, and whether writing is blocked.
    #[derive(Clone, Debug, Default)]
    struct Disk(Arc<Mutex<(Vec<WriteBatch>, usize, bool)>>);

    #[async_trait]
    impl LogWriter for Disk {
        async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
            self.0.lock().unwrap().0.push(batch);
            let disk = self.clone();
            futures::future::poll_fn(move |_| {
                if disk.0.lock().unwrap().2 { Poll::Pending } else { Poll::Ready(Ok(())) }
            })
            .await
        }

        async fn mark_idle(&mut self) -> Result<(), StorageError> {
            self.0.lock().unwrap().1 += 1;
            Ok(())
        }
    }

    #[async_trait]
    impl LogReader for Disk {
        async fn entries(
            &self,
            from: OpNumber,
            _: OpNumber,
            _: u64,
        ) -> Result<Vec<Entry>, StorageError> {
            Err(StorageError::Missing { op_number: from })
        }
    }

    /// A front whose disk is blocked at first.
    fn front() -> (StorageFront, Disk) {
        let disk = Disk::default();
        disk.0.lock().unwrap().2 = true;
        (StorageFront::new(Box::new(disk.clone()), Arc::new(disk.clone()), IDLE), disk)
    }

    fn poll(front: &mut StorageFront, now: u64) -> Vec<String> {
        let _ = front.poll(&mut Context::from_waker(noop_waker_ref()), Instant(now));
        core::iter::from_fn(|| front.next_done()).map(|done| format!("{done:?}")).collect()
    }

    fn unblock(disk: &Disk) {
        disk.0.lock().unwrap().2 = false;
    }

    fn sizes(disk: &Disk) -> Vec<usize> {
        disk.0.lock().unwrap().0.iter().map(|batch| batch.entries().count()).collect()
    }

    fn gathered(disk: &Disk) -> Vec<bool> {
        disk.0.lock().unwrap().0.iter().map(|batch| batch.gathered).collect()
    }

    fn entries(payload_length: u32) -> WriteBatch {
        let header = EntryHeader { payload_length, ..EntryHeader::default() };
        let entry = Entry { header, ..Entry::default() };
        WriteBatch::of(vec![entry])
    }

    fn promise() -> WriteBatch {
        let superblock = Superblock::blank(&Identity {
            group: GroupId(1),
            group_name: "g".into(),
            members: Members::local(1).unwrap().to_membership(),
            replica: ReplicaId(0),
            durability: Durability::Full,
            fresh_disk: DiskId(1),
        });
        WriteBatch { superblock: Some(superblock), ..WriteBatch::default() }
    }

    #[test]
    fn what_comes_during_a_write_is_written_together_behind_it() {
        let (mut front, disk) = front();
        front.persist(PersistId(1), entries(1));
        assert!(poll(&mut front, 0).is_empty());
        (2..=4).for_each(|id| front.persist(PersistId(id), entries(1)));
        assert!(poll(&mut front, 0).is_empty());
        unblock(&disk);
        assert_eq!(poll(&mut front, 0), ["Persisted(PersistId(1))", "Persisted(PersistId(4))"]);
        assert_eq!(sizes(&disk), [1, 3]);
        assert_eq!(gathered(&disk), [false, true]);
        front.persist(PersistId(5), entries(1));
        assert_eq!(poll(&mut front, 0), ["Persisted(PersistId(5))"]);
        assert_eq!(gathered(&disk), [false, true, false]);
        assert_eq!((front.numbers().batches, front.numbers().writes), (3, 5));
        assert!(front.is_idle());
    }

    #[test]
    fn entries_wait_for_the_promise_before_them() {
        let (mut front, disk) = front();
        unblock(&disk);
        front.persist(PersistId(1), promise());
        front.persist(PersistId(2), entries(1));
        poll(&mut front, 0);
        assert_eq!(sizes(&disk), [0, 1], "two batches, the promise first");
    }

    #[test]
    fn a_batch_has_a_size() {
        let (mut front, disk) = front();
        unblock(&disk);
        (1..=3).for_each(|id| front.persist(PersistId(id), entries(2 << 20)));
        poll(&mut front, 0);
        assert_eq!(sizes(&disk), [1, 1, 1]);
    }

    #[test]
    fn quiet_is_noted_once_and_only_after_a_write() {
        let (mut front, disk) = front();
        unblock(&disk);
        poll(&mut front, 50);
        assert_eq!(front.deadline(), Instant::FAR_FUTURE);
        front.persist(PersistId(1), entries(1));
        assert!(!front.rests(Instant(100)), "a write waits");
        poll(&mut front, 100);
        assert_eq!(front.deadline(), Instant(110));
        assert!(front.rests(Instant(109)) && !front.rests(Instant(110)), "quiet is to be noted");
        (109..=200).for_each(|now| drop(poll(&mut front, now)));
        assert_eq!(disk.0.lock().unwrap().1, 1);
        assert!(front.rests(Instant(200)));
    }

    #[test]
    fn a_write_in_flight_is_waited_for_and_nothing_behind_it() {
        let (mut front, disk) = front();
        front.persist(PersistId(1), entries(1));
        poll(&mut front, 0);
        assert!(!front.rests(Instant(0)));
        front.persist(PersistId(2), entries(1));
        let mut cx = Context::from_waker(noop_waker_ref());
        assert!(front.poll_finish(&mut cx).is_pending());
        unblock(&disk);
        assert!(front.poll_finish(&mut cx).is_ready());
        assert_eq!(sizes(&disk), [1]);
    }

    #[test]
    fn what_storage_has_lost_is_a_failure() {
        let (mut front, _disk) = front();
        let (from, through) = (OpNumber(7), OpNumber(8));
        front.fetch(Fetch { request: RequestId(1), from, through, bytes_max: 1 });
        let done = poll(&mut front, 0);
        assert!(done[0].starts_with("Failed(Missing"), "{done:?}");
    }
}
