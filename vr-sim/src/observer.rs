//! A state machine around the user's one, which tells the witness what it applies.

use core::hash::Hasher;
use std::io::{self, Read, Write};

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
    /// The last operation applied.
    applied: OpNumber,
    /// Bytes that snapshots carry for each of the last ops, so that they take several chunks.
    padding: u32,
}

impl<S> Observed<S> {
    /// Watches `inner`, which runs at `replica`.
    pub const fn new(
        inner: S,
        replica: ReplicaId,
        runtime: SimRuntime,
        witness: SharedWitness,
    ) -> Self {
        Self { inner, replica, runtime, witness, applied: OpNumber::ZERO, padding: 0 }
    }

    /// The same with snapshots that are larger by up to four times so many bytes.
    #[must_use]
    pub const fn with_padding(mut self, bytes: u32) -> Self {
        self.padding = bytes;
        self
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
        self.applied = op_number;
        lock(&self.witness).applied_at(now, self.replica, op_number, record);
        reply
    }

    fn query(&self, context: &QueryContext, query: S::Query) -> S::Answer {
        self.inner.query(context, query)
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        let filled = self.applied.0 % 5 * u64::from(self.padding);
        out.write_all(&self.applied.0.to_le_bytes())?;
        out.write_all(&filled.to_le_bytes())?;
        // Chunks differ, so that none can take another's place unnoticed.
        let line = self.applied.0.to_le_bytes();
        let mut left = filled;
        while left > 0 {
            let mut block = [0; 1024];
            block.get_mut(..8).unwrap_or_default().copy_from_slice(&line);
            block.get_mut(8..16).unwrap_or_default().copy_from_slice(&left.to_le_bytes());
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            out.write_all(block.get(..count).unwrap_or_default())?;
            left -= u64::try_from(count).unwrap_or(left);
        }
        self.inner.snapshot(out)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        let mut numbers = [0; 16];
        from.read_exact(&mut numbers)?;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b));
        let (applied, filled) = numbers.split_at(8);
        self.applied = OpNumber(number(applied));
        io::copy(&mut from.by_ref().take(number(filled)), &mut io::sink())?;
        lock(&self.witness).restored_at(self.runtime.now(), self.replica, self.applied);
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
