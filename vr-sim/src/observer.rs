//! A state machine around the user's one, which tells the witness what it applies.

use core::hash::Hasher;

use serde::{Deserialize, Serialize};
use vr_core::{
    Context, QueryContext, SnapshotError, SnapshotReader, SnapshotSource, SnapshotWriter,
    StateMachine,
    model::{
        time::nanoseconds,
        types::{OpNumber, ReplicaId},
    },
    ports::{runtime::Runtime, state_machine},
};

use crate::{
    checker::applied::Record, executor::lock, runtime::SimRuntime, trace::Fingerprint,
    witness::SharedWitness,
};

/// An operation with the harness's number for the call, which makes every call unique.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tagged<O> {
    /// The call's number.
    pub tag: u64,
    /// What the user asked for.
    pub operation: O,
}

/// The user's state machine at one replica, watched.
#[derive(Debug)]
pub struct Observed<S> {
    inner: S,
    replica: ReplicaId,
    runtime: SimRuntime,
    witness: SharedWitness,
}

impl<S> Observed<S> {
    /// Watches `inner`, which runs at `replica`.
    pub const fn new(
        inner: S,
        replica: ReplicaId,
        runtime: SimRuntime,
        witness: SharedWitness,
    ) -> Self {
        Self { inner, replica, runtime, witness }
    }
}

impl<S: StateMachine> StateMachine for Observed<S> {
    type Operation = Tagged<S::Operation>;
    type Reply = S::Reply;
    type Query = S::Query;
    type Answer = S::Answer;

    fn apply(&mut self, context: &Context, operation: Tagged<S::Operation>) -> S::Reply {
        let Tagged { tag, operation } = operation;
        let operation_hash = hash_of(&operation);
        let reply = self.inner.apply(context, operation);
        let record = Record {
            view: context.viewstamp.view,
            position: context.position,
            client: context.client,
            time: nanoseconds(context.time),
            tag,
            operation: operation_hash,
            reply: hash_of(&reply),
        };
        let (now, op_number) = (self.runtime.now(), context.viewstamp.op_number);
        lock(&self.witness).applied_at(now, self.replica, op_number, record);
        reply
    }

    fn query(&self, context: &QueryContext, query: S::Query) -> S::Answer {
        self.inner.query(context, query)
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        self.inner.snapshot(out)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.inner.restore(from)
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        self.inner.fork()
    }

    fn applied_durably(&self) -> OpNumber {
        self.inner.applied_durably()
    }
}

/// A hash of the value's encoding; zero when it has none.
pub(crate) fn hash_of(value: &impl Serialize) -> u64 {
    let mut hash = Fingerprint::default();
    if let Ok(bytes) = state_machine::encode(value) {
        hash.write(&bytes);
    }
    hash.finish()
}
