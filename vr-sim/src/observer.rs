//! A state machine around the user's one, which tells the witness what it applies.

use core::hash::Hasher;
use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vr_core::{
    Context, OnDisk, QueryContext, SnapshotError, SnapshotReader, SnapshotSource, SnapshotWriter,
    StateMachine,
    model::{
        time::nanoseconds,
        types::{OpNumber, ReplicaId},
    },
    ports::{runtime::Runtime, state_machine},
};

use crate::{
    checker::applied::Record,
    executor::lock,
    runtime::SimRuntime,
    state_disk::{Image, StateDisk},
    trace::Fingerprint,
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
    /// Where the state is, if not in memory, and what it is when it is empty.
    disk: Option<(StateDisk, Vec<u8>)>,
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
        Self { inner, replica, runtime, witness, applied: OpNumber::ZERO, disk: None, padding: 0 }
    }

    /// The same with snapshots that are larger by up to four times so many bytes.
    #[must_use]
    pub const fn with_padding(mut self, bytes: u32) -> Self {
        self.padding = bytes;
        self
    }
}

impl<S: StateMachine> Observed<S> {
    /// The same with its state on `disk`.
    ///
    /// # Errors
    /// [`SnapshotError`] when a service to which nothing was done has no snapshot.
    pub fn with_disk(mut self, disk: StateDisk) -> Result<Self, SnapshotError> {
        let mut blank = Vec::new();
        self.inner.snapshot(&mut SnapshotWriter::new(&mut blank))?;
        self.disk = Some((disk, blank));
        Ok(self)
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
        let (applied, filled) = numbers.split_at(8);
        self.applied = OpNumber(number(applied));
        io::copy(&mut from.by_ref().take(number(filled)), &mut io::sink())?;
        lock(&self.witness).restored_at(self.runtime.now(), self.replica, self.applied);
        self.inner.restore(from)
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        self.inner.fork()
    }

    fn on_disk(&mut self) -> Option<&mut dyn OnDisk> {
        match self.disk {
            Some(_) => Some(self),
            None => None,
        }
    }
}

/// The model of a state that is on disk by itself: an image of the inner one.
impl<S: StateMachine> OnDisk for Observed<S> {
    fn persisted(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let Some((disk, _)) = &self.disk else { return Ok(None) };
        let Some(Image { state, companion }) = disk.image() else { return Ok(None) };
        let (applied, inner) = state.split_at_checked(8).ok_or(SnapshotError::Unreadable)?;
        self.applied = OpNumber(number(applied));
        let mut inner = inner;
        self.inner.restore(&mut SnapshotReader::new(&mut inner))?;
        lock(&self.witness).found_at(self.runtime.now(), self.replica, self.applied);
        Ok(Some(companion))
    }

    fn persist(&mut self, _: OpNumber, companion: &Bytes) -> Result<(), SnapshotError> {
        let Some((disk, _)) = &self.disk else { return Ok(()) };
        let mut state = self.applied.0.to_le_bytes().to_vec();
        self.inner.snapshot(&mut SnapshotWriter::new(&mut state))?;
        disk.write(Image { state, companion: companion.clone() });
        Ok(())
    }

    fn reset(&mut self) -> Result<(), SnapshotError> {
        let Some((_, blank)) = &self.disk else { return Ok(()) };
        let mut blank = blank.as_slice();
        self.inner.restore(&mut SnapshotReader::new(&mut blank))?;
        self.applied = OpNumber::ZERO;
        lock(&self.witness).emptied_at(self.runtime.now(), self.replica);
        Ok(())
    }
}

/// The little-endian number in `bytes`.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A hash of the value's encoding; zero when it has none.
pub(crate) fn hash_of(value: &impl Serialize) -> u64 {
    let mut hash = Fingerprint::default();
    if let Ok(bytes) = state_machine::encode(value) {
        hash.write(&bytes);
    }
    hash.finish()
}
