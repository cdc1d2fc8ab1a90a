//! Applies committed entries in log order, once each, and answers what the state can answer.

use core::{fmt, mem, slice, time::Duration};
use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use tracing::{trace, warn};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    execution::{
        checkpoint::{self, CheckpointFailure, ChunkReader, Frozen, Head},
        client_table::{ClientTable, Turn},
        outcome::{outcome, reply_to},
        persistence::Persistence,
        work::{Finished, Restored, Work},
    },
    model::{
        certificate::CertificateHash,
        companion::{Persisted, StateOnDisk},
        config::Config,
        durable::CheckpointId,
        entry::{Entry, EntryHeader, EntryKind, Run},
        message::{Answer, Outcome, Reply},
        mutants::{Mutant, Mutants},
        types::{Checksum, ClientId, GroupId, Nonce, OpNumber, Peer, RequestNumber},
    },
    ports::{
        state_machine::{
            QueryContext, RawStateMachine, SnapshotError, SnapshotReader, SnapshotWriter,
        },
        storage::{Anchor, Checkpoints},
    },
};

/// Owns the state machine and the client table, and changes both by applying entries.
///
/// Work is carried out strictly in order, in steps of one entry, one query or one stored reply, so
/// that whoever drives it can stop after any of them. How entries were batched changes nothing.
///
/// Invariants: entries are applied without a gap; `applied` never decreases; each request of a
/// session changes the state at most once.
pub struct Executor {
    state_machine: Box<dyn RawStateMachine>,
    client_table: ClientTable,
    /// Entries that were begun with; they come before what is queued.
    running: Option<Running>,
    /// What is left to do, in order; no item is empty.
    queue: VecDeque<Item>,
    /// How far the state is.
    reached: Reached,
    /// What happened since it was last taken.
    finished: Finished,
    /// `None` where no checkpoint is ever asked for.
    checkpoints: Option<Arc<dyn Checkpoints>>,
    /// `None` where the state is in memory.
    persistence: Option<Persistence>,
    /// A state that was frozen and is to be written elsewhere.
    frozen: Option<Frozen>,
    /// Why a checkpoint could not be taken or restored, or the state made durable; nothing is done
    /// any more.
    failure: Option<CheckpointFailure>,
    /// Faults planted on purpose.
    mutants: Mutants,
}

/// How far the state is.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    /// The last op whose effect is in it.
    op_number: OpNumber,
    /// The latest time of an entry whose effect is in it.
    time: Duration,
}

/// Entries, and how many of them are applied.
struct Running {
    entries: Run,
    done: usize,
    reply: bool,
}

/// Work that was not begun with.
enum Item {
    Entries(Running),
    Resend { client: ClientId, request_number: RequestNumber },
    Query { to: Peer, question: Question },
    Checkpoint { at: Anchor },
    Restore { checkpoint: CheckpointId },
    Belong { certificate: CertificateHash },
    Resume,
    Discard,
    Persist,
}

struct Question {
    client: ClientId,
    request_number: RequestNumber,
    query: Bytes,
    time: Duration,
}

impl Executor {
    /// An executor of `state_machine` in its state before the first op.
    ///
    /// `window` is how many outcomes it keeps per client; it must be the same on all replicas,
    /// because it decides what the client table holds.
    #[must_use]
    pub fn new(state_machine: Box<dyn RawStateMachine>, window: u32) -> Self {
        Self {
            state_machine,
            client_table: ClientTable::new(window),
            running: None,
            queue: VecDeque::new(),
            reached: Reached::default(),
            finished: Finished::default(),
            checkpoints: None,
            persistence: None,
            frozen: None,
            failure: None,
            mutants: Mutants::default(),
        }
    }

    /// The same with checkpoints kept in `checkpoints`.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Arc<dyn Checkpoints>) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
    }

    /// Looks at what the state machine of a member of `group` has on its own disk; `None` if it has
    /// none. Whether it is of use is for the engine to say, with [`Work::Resume`] or
    /// [`Work::Discard`], before anything else.
    ///
    /// # Errors
    /// [`CheckpointFailure::OnDisk`] when it cannot be read.
    pub fn open_state(
        &mut self,
        group: GroupId,
        config: &Config,
    ) -> Result<Option<StateOnDisk>, CheckpointFailure> {
        let failed = |source| CheckpointFailure::OnDisk { op_number: OpNumber::ZERO, source };
        let Some(on_disk) = self.state_machine.on_disk() else { return Ok(None) };
        let mut persistence = Persistence::new(group, config);
        let companion = on_disk.persisted().map_err(failed)?;
        let known = companion.as_ref().and_then(|bytes| self.read_companion(bytes));
        let found = match (companion, known) {
            (Some(_), Some(at)) => {
                persistence.found(&at);
                StateOnDisk::At(at)
            }
            (Some(_), None) => StateOnDisk::Unreadable,
            (None, _) => StateOnDisk::Empty,
        };
        self.persistence = Some(persistence);
        if known.is_none() {
            self.discard()?;
        }
        Ok(Some(found))
    }

    /// Takes over what a companion says; nothing if it cannot be read.
    fn read_companion(&mut self, companion: &[u8]) -> Option<Persisted> {
        let (at, mut table) = Persisted::of_companion(companion)?;
        self.client_table.restore(&mut SnapshotReader::new(&mut table)).ok()?;
        if !table.is_empty() {
            return None;
        }
        self.reached = Reached { op_number: at.op_number, time: at.time };
        self.finished.executed.through = at.op_number;
        Some(at)
    }

    /// The same with faults planted on purpose.
    pub(crate) fn with_mutants(self, mutants: Mutants) -> Self {
        Self { mutants, ..self }
    }

    /// Adds `work` behind everything that is left to do.
    pub fn push(&mut self, work: Work) {
        self.queue.push_back(match work {
            Work::Entries { entries, .. } if entries.is_empty() => return,
            Work::Entries { entries, reply } => Item::Entries(Running { entries, done: 0, reply }),
            Work::Resend { client, request_number } => Item::Resend { client, request_number },
            Work::Query { to, client, request_number, query, time } => {
                Item::Query { to, question: Question { client, request_number, query, time } }
            }
            Work::Checkpoint { at } => Item::Checkpoint { at },
            Work::Restore { checkpoint } => Item::Restore { checkpoint },
            Work::Belong { certificate } => Item::Belong { certificate },
            Work::Resume => Item::Resume,
            Work::Discard => Item::Discard,
            Work::Persist => Item::Persist,
        });
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.queue.is_empty()
    }

    /// Does the next piece: one entry, one query or one stored reply; false if nothing is left.
    ///
    /// # Panics
    /// If entries were handed over with a gap or twice: applying them would fork the state. A panic
    /// of the state machine is passed on.
    pub fn step(&mut self) -> bool {
        self.steps(1)
    }

    /// As many steps at once: entries are applied where they lie, one behind the other. False if
    /// nothing was left before all were done.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    pub fn steps(&mut self, count: usize) -> bool {
        let mut left = count;
        while left > 0 && self.failure.is_none() {
            let done = if let Some(running) = self.running.take() {
                self.apply_some(running, &mut left)
            } else if let Some(item) = self.queue.pop_front() {
                left -= usize::from(!matches!(item, Item::Entries(_)));
                self.carry_out(item)
            } else {
                return false;
            };
            self.failure = done.err();
        }
        left == 0
    }

    /// Applies as many as are `left`, or up to one behind which the state is to be made durable.
    fn apply_some(&mut self, running: Running, left: &mut usize) -> Result<(), CheckpointFailure> {
        let Running { entries, mut done, reply } = running;
        let rest = entries.get(done..).unwrap_or_default();
        let mut rest = rest.get(..*left).unwrap_or(rest);
        if reply {
            self.finished.executed.replies.reserve(rest.len());
        }
        let mut is_due = false;
        while !is_due && let Some(first) = rest.first() {
            // A state that is on disk by itself may be due behind any of them.
            let together = if self.persistence.is_some() { slice::from_ref(first) } else { rest };
            let count = self.apply(together, reply);
            is_due = self.persistence.as_mut().is_some_and(|known| known.applied(&first.header));
            rest = rest.get(count..).unwrap_or_default();
            *left -= count;
            done += count;
        }
        if done < entries.len() {
            self.running = Some(Running { entries, done, reply });
        }
        if is_due { self.persist() } else { Ok(()) }
    }

    /// Begins with entries, or does anything else at once.
    fn carry_out(&mut self, item: Item) -> Result<(), CheckpointFailure> {
        match item {
            Item::Entries(running) => self.running = Some(running),
            Item::Resend { client, request_number } => {
                let reply = self.client_table.stored_reply(client, request_number);
                self.finished.executed.replies.extend(reply);
            }
            Item::Query { to, question } => {
                let answer = self.answer(question);
                self.finished.answers.push((to, answer));
            }
            Item::Checkpoint { at } => {
                let taken = self.take_checkpoint(at)?;
                self.finished.executed.taken.extend(taken);
            }
            Item::Restore { checkpoint } => {
                let restored = self.restore(checkpoint)?;
                self.finished.executed.restored = Some(restored);
                self.persist()?;
            }
            Item::Belong { certificate } => {
                if let Some(persistence) = &mut self.persistence {
                    persistence.certificate = certificate;
                }
                self.persist()?;
            }
            Item::Resume => self.finished.executed.restored = Some(self.restored()),
            Item::Discard => self.discard()?,
            Item::Persist => self.persist()?,
        }
        Ok(())
    }

    /// Makes a state that is on disk by itself durable, with its companion.
    fn persist(&mut self) -> Result<(), CheckpointFailure> {
        let Reached { op_number, time } = self.reached;
        let Some(persistence) = &mut self.persistence else { return Ok(()) };
        let Some(at) = persistence.unpersisted(op_number, time) else { return Ok(()) };
        let failed = |source| CheckpointFailure::OnDisk { op_number, source };
        let mut table = Vec::new();
        let stale = self.mutants.contain(Mutant::CompanionWithoutTable);
        let sessions = if stale { &ClientTable::new(1) } else { &self.client_table };
        sessions.snapshot(&mut SnapshotWriter::new(&mut table)).map_err(failed)?;
        if let Some(on_disk) = self.state_machine.on_disk() {
            on_disk.persist(op_number, &at.to_companion(&table)).map_err(failed)?;
        }
        persistence.persisted(op_number);
        Ok(())
    }

    /// Makes the state empty, as before the first op.
    fn discard(&mut self) -> Result<(), CheckpointFailure> {
        let op_number = self.reached.op_number;
        if let Some(on_disk) = self.state_machine.on_disk() {
            let failed = |source| CheckpointFailure::OnDisk { op_number, source };
            on_disk.reset().map_err(failed)?;
        }
        self.client_table.clear();
        self.persistence.iter_mut().for_each(Persistence::emptied);
        self.reached = Reached::default();
        self.finished.executed.through = OpNumber::ZERO;
        Ok(())
    }

    fn restored(&self) -> Restored {
        let sessions = self.client_table.open_sessions().collect();
        let Reached { op_number, time } = self.reached;
        Restored { op_number, time, sessions }
    }

    /// Whether the state was restored since what happened was taken last.
    #[must_use]
    pub const fn has_restored(&self) -> bool {
        self.finished.executed.restored.is_some()
    }

    /// What happened since the last call; `None` if nothing did.
    ///
    /// A stored reply that was asked for and is no longer there is nothing.
    pub fn take_finished(&mut self) -> Option<Finished> {
        let advanced = self.finished.executed.through != self.reached.op_number;
        let executed = &self.finished.executed;
        let silent = executed.replies.is_empty()
            && executed.taken.is_empty()
            && executed.restored.is_none()
            && self.finished.answers.is_empty();
        if silent && !advanced {
            return None;
        }
        let mut finished = mem::take(&mut self.finished);
        finished.executed.through = self.reached.op_number;
        self.finished.executed.through = self.reached.op_number;
        Some(finished)
    }

    /// A state that was frozen since the last call, to be written while this goes on.
    pub const fn take_frozen(&mut self) -> Option<Frozen> {
        self.frozen.take()
    }

    /// Why the executor stopped, once; it does nothing after it.
    pub const fn take_failure(&mut self) -> Option<CheckpointFailure> {
        self.failure.take()
    }

    /// The last op that was applied.
    #[must_use]
    pub const fn applied(&self) -> OpNumber {
        self.reached.op_number
    }

    /// XXH3-128 over the client table and the state machine's snapshot.
    ///
    /// Equal on all replicas that have applied the same op. The snapshot is hashed while it is
    /// written, so no memory is needed for it.
    ///
    /// # Errors
    /// [`SnapshotError`] when the state machine cannot write its snapshot.
    pub fn digest(&self) -> Result<Checksum, SnapshotError> {
        let mut hash = Hash(Xxh3::new());
        let mut out = SnapshotWriter::new(&mut hash);
        self.client_table.snapshot(&mut out)?;
        self.state_machine.snapshot(&mut out)?;
        Ok(Checksum(hash.0.digest128()))
    }

    /// # Panics
    /// If a checkpoint is asked for and there is no place for it.
    fn store(&self) -> &Arc<dyn Checkpoints> {
        self.checkpoints.as_ref().expect("an executor that takes checkpoints has a place for them")
    }

    /// The checkpoint of the state as it is; `None` if it was frozen to be written elsewhere.
    ///
    /// One at an op that is not the last one applied belongs to a state that was replaced meanwhile.
    fn take_checkpoint(&mut self, at: Anchor) -> Result<Option<CheckpointId>, CheckpointFailure> {
        if at.op_number != self.reached.op_number {
            return Ok(None);
        }
        // So that what is released for it is never above what is durable.
        self.persist()?;
        let snapshot = |source| CheckpointFailure::Snapshot { op_number: at.op_number, source };
        let mut table = Vec::new();
        self.client_table.snapshot(&mut SnapshotWriter::new(&mut table)).map_err(snapshot)?;
        let Reached { op_number, time } = self.reached;
        let head = Head { op_number, time, table }.to_bytes();
        if let Some(source) = self.state_machine.fork() {
            let store = Arc::clone(self.store());
            self.frozen = Some(Frozen { at, head, source, store });
            return Ok(None);
        }
        let taken = checkpoint::take(self.store().as_ref(), at, |out| {
            io::Write::write_all(out, &head)?;
            self.state_machine.snapshot(out)
        })?;
        Ok(Some(taken))
    }

    /// Replaces client table and state by those of a checkpoint.
    fn restore(&mut self, id: CheckpointId) -> Result<Restored, CheckpointFailure> {
        let store = Arc::clone(self.store());
        let reader = ChunkReader::new(store.as_ref(), id);
        let mut reader = reader.map_err(CheckpointFailure::Storage)?;
        let restored = self.restore_from(id, &mut SnapshotReader::new(&mut reader));
        if let Some(error) = reader.into_failure() {
            return Err(CheckpointFailure::Storage(error));
        }
        let op_number = id.op_number;
        restored.map_err(|source| CheckpointFailure::Restore { op_number, source })
    }

    fn restore_from(
        &mut self,
        id: CheckpointId,
        from: &mut SnapshotReader<'_>,
    ) -> Result<Restored, SnapshotError> {
        let (op_number, time) = Head::read(from, |table| self.client_table.restore(table))?;
        if op_number != id.op_number {
            return Err(SnapshotError::Unreadable);
        }
        self.state_machine.restore(from)?;
        self.reached = Reached { op_number, time };
        self.persistence.iter_mut().for_each(|it| it.replaced_by(id.checksum));
        Ok(self.restored())
    }

    /// Applies the first of `entries`, and with a request whose turn it is those right behind it that
    /// come next in the same session; how many.
    fn apply(&mut self, entries: &[Entry], reply: bool) -> usize {
        let Some(Entry { header, payload }) = entries.first() else { return 0 };
        self.reached.begin(header);
        let told = match header.kind {
            EntryKind::Noop => None,
            EntryKind::Register => Some(self.register(header, payload, reply)),
            EntryKind::Request | EntryKind::Many => return self.execute(entries, reply),
        };
        self.pass(header, told.filter(|_| reply))
    }

    /// The entry with this header, and no more, is applied.
    fn pass(&mut self, header: &EntryHeader, told: Option<Reply>) -> usize {
        self.finished.executed.replies.extend(told);
        self.reached.pass(header);
        1
    }

    /// Opens a session; a registration without a nonce opens none, on every replica alike.
    fn register(&mut self, header: &EntryHeader, payload: &Bytes, reply: bool) -> Reply {
        match payload.as_ref().try_into() {
            Ok(nonce) => {
                let nonce = Nonce(u128::from_le_bytes(nonce));
                let keeps_all = !reply && self.mutants.contain(Mutant::EvictOnlyAtPrimary);
                let sessions_max = if keeps_all { u64::MAX } else { header.session.0 };
                let (client, op_number) = (header.client, header.op_number);
                let opened = self.client_table.register(client, nonce, op_number, sessions_max);
                self.finished.executed.evicted.extend(opened.1);
                opened.0
            }
            Err(_) => reply_to(header, Outcome::Malformed),
        }
    }

    /// Executes the first of `entries` if it is its turn, and those right behind it that come next in
    /// the same session, for which that is known; how many.
    fn execute(&mut self, entries: &[Entry], reply: bool) -> usize {
        let Some(Entry { header, payload }) = entries.first() else { return 0 };
        let first_only = !reply && self.mutants.contain(Mutant::ManyInPart);
        let state_machine = &mut *self.state_machine;
        let turn = self.client_table.turn(header.client, header.session, header.request_number);
        let told = match turn {
            Turn::Next(mut slot) => {
                let mut count = 0;
                for Entry { header, payload } in entries {
                    if count > 0 {
                        if !slot.is_for(header) {
                            break;
                        }
                        self.reached.begin(header);
                    }
                    let outcome = outcome(state_machine, header, payload, first_only);
                    if reply {
                        let told = reply_to(header, outcome.clone());
                        self.finished.executed.replies.push(told);
                    }
                    slot.store(header.op_number, outcome);
                    self.reached.pass(header);
                    count += 1;
                }
                return count;
            }
            Turn::Done(stored) if takes_for_new(self.mutants, stored.as_ref()) => {
                Some(reply_to(header, outcome(state_machine, header, payload, first_only)))
            }
            Turn::Done(stored) => stored,
            Turn::Evicted => Some(reply_to(header, Outcome::Evicted)),
            Turn::Early { done } => {
                warn!(
                    op = %header.op_number,
                    client = %header.client,
                    request = %header.request_number,
                    done = %done,
                    "a request stands in the log before its predecessor; it has no effect"
                );
                None
            }
        };
        self.pass(header, told.filter(|_| reply))
    }

    fn answer(&self, question: Question) -> Answer {
        let Question { client, request_number, query, time } = question;
        let Reached { op_number, time: reached } = self.reached;
        let context = QueryContext { applied: op_number, time: time.max(reached) };
        let answer = self.state_machine.query(&context, query).ok();
        Answer { client, request_number, op_number, answer }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("applied", &self.reached.op_number)
            .field("clients", &self.client_table.len())
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}

impl Reached {
    /// The entry with this header is about to take effect; there is never a gap in front of it.
    fn begin(&self, header: &EntryHeader) {
        let EntryHeader { op_number, client, payload_length, .. } = header;
        assert_eq!(*op_number, self.op_number.next(), "entries are applied without a gap");
        trace!(op = %op_number, %client, bytes = payload_length, "applied");
    }

    /// It has taken effect.
    fn pass(&mut self, header: &EntryHeader) {
        self.op_number = header.op_number;
        self.time = self.time.max(Duration::from_nanos(header.time));
    }
}

/// Whether a request that was executed is executed again, which only mutants do.
fn takes_for_new(mutants: Mutants, stored: Option<&Reply>) -> bool {
    let forgotten = stored.is_some_and(|stored| stored.outcome == Outcome::Forgotten);
    mutants.contain(Mutant::ExecuteTwice) || (forgotten && mutants.contain(Mutant::ForgottenIsNew))
}

/// Hashes what is written to it.
struct Hash(Xxh3);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
