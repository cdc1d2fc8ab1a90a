//! Applies committed entries in log order, once each, and answers what the state can answer.

use core::{fmt, mem, time::Duration};
use std::{collections::VecDeque, io, vec};

use bytes::Bytes;
use tracing::{trace, warn};
use twox_hash::XxHash3_128;

use crate::{
    execution::{
        client_table::{ClientTable, Turn},
        work::{Finished, Work},
    },
    model::{
        entry::{Entry, EntryHeader, EntryKind},
        many,
        message::{Answer, Outcome, Reply},
        mutants::{Mutant, Mutants},
        types::{Checksum, ClientId, Nonce, OpNumber, Peer, RequestNumber},
    },
    ports::state_machine::{Context, QueryContext, RawStateMachine, SnapshotError, SnapshotWriter},
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
    /// What is left to do, in order; no item is empty.
    queue: VecDeque<Item>,
    /// The last op whose effect is in the state.
    applied: OpNumber,
    /// Time of the last applied entry.
    time: Duration,
    /// What happened since it was last taken.
    finished: Finished,
    /// Faults planted on purpose.
    mutants: Mutants,
}

/// Work, as far as it is left.
enum Item {
    Entries { entries: vec::IntoIter<Entry>, reply: bool },
    Resend { client: ClientId, request_number: RequestNumber },
    Query { to: Peer, question: Question },
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
            queue: VecDeque::new(),
            applied: OpNumber::ZERO,
            time: Duration::ZERO,
            finished: Finished::default(),
            mutants: Mutants::default(),
        }
    }

    /// The same with faults planted on purpose.
    pub(crate) fn with_mutants(self, mutants: Mutants) -> Self {
        Self { mutants, ..self }
    }

    /// Adds `work` behind everything that is left to do.
    pub fn push(&mut self, work: Work) {
        self.queue.push_back(match work {
            Work::Entries { entries, .. } if entries.is_empty() => return,
            Work::Entries { entries, reply } => {
                Item::Entries { entries: entries.into_iter(), reply }
            }
            Work::Resend { client, request_number } => Item::Resend { client, request_number },
            Work::Query { to, client, request_number, query, time } => {
                Item::Query { to, question: Question { client, request_number, query, time } }
            }
        });
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Does the next piece: one entry, one query or one stored reply; false if nothing is left.
    ///
    /// # Panics
    /// If entries were handed over with a gap or twice: applying them would fork the state. A panic
    /// of the state machine is passed on.
    pub fn step(&mut self) -> bool {
        match self.queue.pop_front() {
            None => return false,
            Some(Item::Entries { mut entries, reply }) => {
                let entry = entries.next();
                if !entries.as_slice().is_empty() {
                    self.queue.push_front(Item::Entries { entries, reply });
                }
                if let Some(entry) = entry {
                    let told = self.apply(entry, reply);
                    self.finished.executed.replies.extend(told.filter(|_| reply));
                }
            }
            Some(Item::Resend { client, request_number }) => {
                let reply = self.client_table.stored_reply(client, request_number);
                self.finished.executed.replies.extend(reply);
            }
            Some(Item::Query { to, question }) => {
                let answer = self.answer(question);
                self.finished.answers.push((to, answer));
            }
        }
        true
    }

    /// What happened since the last call; `None` if nothing did.
    ///
    /// A stored reply that was asked for and is no longer there is nothing.
    pub fn take_finished(&mut self) -> Option<Finished> {
        let advanced = self.finished.executed.through != self.applied;
        let silent = self.finished.executed.replies.is_empty() && self.finished.answers.is_empty();
        if silent && !advanced {
            return None;
        }
        let mut finished = mem::take(&mut self.finished);
        finished.executed.through = self.applied;
        self.finished.executed.through = self.applied;
        Some(finished)
    }

    /// The last op that was applied.
    #[must_use]
    pub const fn applied(&self) -> OpNumber {
        self.applied
    }

    /// XXH3-128 over the client table and the state machine's snapshot.
    ///
    /// Equal on all replicas that have applied the same op. The snapshot is hashed while it is
    /// written, so no memory is needed for it.
    ///
    /// # Errors
    /// [`SnapshotError`] when the state machine cannot write its snapshot.
    pub fn digest(&self) -> Result<Checksum, SnapshotError> {
        let mut hash = Hash(XxHash3_128::new());
        let mut out = SnapshotWriter::new(&mut hash);
        self.client_table.snapshot(&mut out)?;
        self.state_machine.snapshot(&mut out)?;
        Ok(Checksum(hash.0.finish_128()))
    }

    /// Applies one entry; what its client is to be told, if the entry has one.
    fn apply(&mut self, entry: Entry, reply: bool) -> Option<Reply> {
        let Entry { header, payload } = entry;
        assert_eq!(header.op_number, self.applied.next(), "entries are applied without a gap");
        trace!(op = %header.op_number, client = %header.client, bytes = payload.len(), "applied");
        let time = Duration::from_nanos(header.time);
        let told = match header.kind {
            EntryKind::Noop => None,
            EntryKind::Register => Some(self.register(&header, &payload, reply)),
            EntryKind::Request | EntryKind::Many => self.execute(&header, payload, reply),
        };
        self.applied = header.op_number;
        self.time = self.time.max(time);
        told
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

    /// Executes a request if it is its turn; what the client is to be told.
    fn execute(&mut self, header: &EntryHeader, operation: Bytes, reply: bool) -> Option<Reply> {
        let turn = self.client_table.turn(header.client, header.session, header.request_number);
        let context = Context {
            viewstamp: header.viewstamp(),
            client: header.client,
            time: Duration::from_nanos(header.time),
            position: 0,
        };
        let many = header.kind == EntryKind::Many;
        let in_part = many && !reply && self.mutants.contain(Mutant::ManyInPart);
        let operation = if in_part { first_of(&operation) } else { operation };
        match turn {
            Turn::Next(slot) => {
                let outcome = outcome(&mut *self.state_machine, &context, operation, many);
                let told = reply.then(|| reply_to(header, outcome.clone()));
                slot.store(header.op_number, outcome);
                told
            }
            Turn::Done(stored) if takes_for_new(self.mutants, stored.as_ref()) => {
                Some(reply_to(header, outcome(&mut *self.state_machine, &context, operation, many)))
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
        }
    }

    fn answer(&self, question: Question) -> Answer {
        let Question { client, request_number, query, time } = question;
        let context = QueryContext { applied: self.applied, time: time.max(self.time) };
        let answer = self.state_machine.query(&context, query).ok();
        Answer { client, request_number, op_number: self.applied, answer }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("applied", &self.applied)
            .field("clients", &self.client_table.len())
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}

/// Whether a request that was executed is executed again, which only mutants do.
fn takes_for_new(mutants: Mutants, stored: Option<&Reply>) -> bool {
    let forgotten = stored.is_some_and(|stored| stored.outcome == Outcome::Forgotten);
    mutants.contain(Mutant::ExecuteTwice) || (forgotten && mutants.contain(Mutant::ForgottenIsNew))
}

/// Executes what an entry asks for: one operation, or several with nothing in between.
fn outcome(
    state_machine: &mut dyn RawStateMachine,
    context: &Context,
    payload: Bytes,
    many: bool,
) -> Outcome {
    if many {
        return many::split(&payload).map_or(Outcome::Malformed, |operations| {
            outcome_of_many(state_machine, context, operations)
        });
    }
    match state_machine.apply(context, payload) {
        Ok(reply) => Outcome::Executed(reply),
        Err(_) => Outcome::Malformed,
    }
}

/// The first of several operations, which only mutants are content with.
fn first_of(operations: &Bytes) -> Bytes {
    let mut parts = many::split(operations).unwrap_or_default();
    parts.truncate(1);
    many::join(&parts).unwrap_or_default()
}

/// Executes several operations; one that cannot be read changes nothing and stops no other.
fn outcome_of_many(
    state_machine: &mut dyn RawStateMachine,
    context: &Context,
    operations: Vec<Bytes>,
) -> Outcome {
    let mut replies = Vec::with_capacity(operations.len());
    for (position, operation) in (0..).zip(operations) {
        let context = Context { position, ..*context };
        replies.push(state_machine.apply(&context, operation).ok());
    }
    if replies.iter().all(Option::is_none) {
        return Outcome::Malformed;
    }
    Outcome::Executed(many::join_replies(&replies).unwrap_or_default())
}

const fn reply_to(header: &EntryHeader, outcome: Outcome) -> Reply {
    Reply {
        client: header.client,
        request_number: header.request_number,
        op_number: header.op_number,
        outcome,
    }
}

/// Hashes what is written to it.
struct Hash(XxHash3_128);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
