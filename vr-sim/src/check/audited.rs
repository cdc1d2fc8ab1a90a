//! The user's state machine at one replica, with a copy beside it that lives off snapshots.

use core::{fmt, ops::RangeInclusive};
use std::{io::Write, panic::resume_unwind};

use bytes::Bytes;
use vr_core::{
    Context, QueryContext, SnapshotError, SnapshotReader, SnapshotSource, SnapshotWriter,
    StateMachine,
    model::types::{OpNumber, ReplicaId},
};

use crate::{
    check::{
        audit::{SharedAudit, bytes_of},
        finding::{Finding, Who, difference},
        instance::{Make, restored, snapshot_of},
        panics::caught,
    },
    cluster::client::Service,
    executor::lock,
};

/// A state machine under audit: everything it does is compared with what the same state machine
/// does at other replicas, in earlier lives, and after being restored from a snapshot.
pub struct Audited<S: Service> {
    inner: S,
    who: Who,
    make: Make<S>,
    every: u64,
    /// The last op that was applied.
    applied: OpNumber,
    /// The state is that of a snapshot, of which only the engine knows the op.
    is_restored: bool,
    copy: Option<Copy<S>>,
    audit: SharedAudit<S>,
}

/// An instance that was restored from a snapshot and applied what came after it.
struct Copy<S> {
    state: S,
    /// The last op in the snapshot.
    taken: OpNumber,
}

impl<S: Service> Audited<S> {
    pub(super) fn new(
        make: Make<S>,
        replica: ReplicaId,
        every: u64,
        audit: SharedAudit<S>,
    ) -> Self {
        let who = lock(&audit).born(replica);
        let inner = make();
        Self {
            inner,
            who,
            make,
            every,
            applied: OpNumber::ZERO,
            is_restored: false,
            copy: None,
            audit,
        }
    }

    /// The user's state machine.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    fn report(&mut self, finding: Finding) {
        self.copy = None;
        lock(&self.audit).report(finding);
    }

    fn apply_to_copy(&mut self, context: &Context, operation: &S::Operation, reply: &S::Reply) {
        let Some(copy) = &mut self.copy else { return };
        let (taken, op) = (copy.taken, context.viewstamp.op_number);
        let again = operation.clone();
        let says = match caught(|| copy.state.apply(context, again)) {
            Ok(same) if bytes_of(&same) == bytes_of(reply) => return,
            Ok(other) => format!("replies {other:?}"),
            Err(panic) => format!("panics: {}", panic.message.replace('\n', " ")),
        };
        let how = format!(
            "op {op}: {operation:?}\n  the one restored {says}\n  the other replies {reply:?}"
        );
        let probe = |state: &S| snapshot_of(state).unwrap_or_default();
        let finding = lock(&self.audit).blame(taken..=op, &how, &probe);
        self.report(finding);
    }

    /// Compares snapshots, and puts a new copy in the place of the old one.
    fn take_snapshot(&mut self, op: OpNumber) {
        let snapshot = match snapshot_of(&self.inner) {
            Ok(snapshot) => snapshot,
            Err(why) => return self.report(Finding::unusable(op, &why)),
        };
        lock(&self.audit).snapshot(self.who, op, &snapshot);
        if let Some(Copy { state, taken }) = self.copy.take() {
            self.compare(&state, taken..=op, &snapshot);
        }
        match restored(&self.make, &snapshot) {
            Ok(state) => {
                self.compare(&state, op..=op, &snapshot);
                self.copy = Some(Copy { state, taken: op });
            }
            Err(why) => self.report(Finding::unusable(op, &why)),
        }
    }

    /// The copy's snapshot must be the original's.
    fn compare(&self, copy: &S, ops: RangeInclusive<OpNumber>, snapshot: &[u8]) {
        let unlike = match snapshot_of(copy) {
            Ok(same) if same == snapshot => return,
            Ok(other) => difference(snapshot, &other),
            Err(why) => why,
        };
        let how = format!("after op {}: {unlike}", ops.end());
        let probe = |state: &S| snapshot_of(state).unwrap_or_default();
        let mut audit = lock(&self.audit);
        let finding = audit.blame(ops, &how, &probe);
        audit.report(finding);
    }
}

impl<S: Service> StateMachine for Audited<S> {
    type Operation = S::Operation;
    type Reply = S::Reply;
    type Query = S::Query;
    type Answer = S::Answer;

    fn apply(&mut self, context: &Context, operation: S::Operation) -> S::Reply {
        let op = context.viewstamp.op_number;
        let again = operation.clone();
        let reply = match caught(|| self.inner.apply(context, again)) {
            Ok(reply) => reply,
            Err(panic) => {
                let operation = format!("{operation:?}");
                self.report(Finding::panicked(self.who, op, &operation, &panic.message));
                resume_unwind(panic.payload)
            }
        };
        let encoded = bytes_of(&operation);
        lock(&self.audit).applied(self.who, *context, encoded, &bytes_of(&reply));
        self.apply_to_copy(context, &operation, &reply);
        let before = self.applied;
        (self.applied, self.is_restored) = (op, false);
        // By op numbers, so that all replicas do it at the same ops.
        if before.0 / self.every != op.0 / self.every && lock(&self.audit).finding().is_none() {
            self.take_snapshot(op);
        }
        reply
    }

    fn query(&self, context: &QueryContext, query: S::Query) -> S::Answer {
        let asked = query.clone();
        let answer = match caught(|| self.inner.query(context, query)) {
            Ok(answer) => answer,
            Err(panic) => {
                let finding =
                    Finding::unanswerable(self.who, &format!("{asked:?}"), &panic.message);
                lock(&self.audit).report(finding);
                resume_unwind(panic.payload)
            }
        };
        if let Some(copy) = &self.copy {
            let bytes = |state: &S| -> Bytes { bytes_of(&state.query(context, asked.clone())) };
            if bytes(&copy.state) != bytes_of(&answer) {
                let other = copy.state.query(context, asked.clone());
                let how = format!(
                    "asked {asked:?} after op {}\n  the one restored answers {other:?}\n  the other \
                     answers {answer:?}",
                    self.applied
                );
                let probe = |state: &S| bytes(state).to_vec();
                let mut audit = lock(&self.audit);
                let finding = audit.blame(copy.taken..=self.applied, &how, &probe);
                audit.report(finding);
            }
        }
        answer
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        let mut bytes = Vec::new();
        self.inner.snapshot(&mut SnapshotWriter::new(&mut bytes))?;
        if !self.is_restored {
            lock(&self.audit).snapshot(self.who, self.applied, &bytes);
        }
        Ok(out.write_all(&bytes)?)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        (self.copy, self.is_restored) = (None, true);
        self.inner.restore(from)
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        self.inner.fork()
    }
}

impl<S: Service> fmt::Debug for Audited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audited")
            .field("who", &self.who)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}
