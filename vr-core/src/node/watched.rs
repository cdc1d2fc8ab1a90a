//! A state machine under observation: what it is doing when it is slow or panics.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use bytes::Bytes;

use crate::{
    model::types::OpNumber,
    ports::state_machine::{
        Context, Malformed, OnDisk, QueryContext, RawStateMachine, SnapshotError, SnapshotReader,
        SnapshotSource, SnapshotWriter,
    },
};

/// Stands for a query; no log gets that long.
const QUERY: u64 = u64::MAX;

/// What a state machine is doing; clones show the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doing(Arc<AtomicU64>);

/// What a state machine is, or was last, busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    Nothing,
    Applying(OpNumber),
    Answering,
}

impl Doing {
    /// What it is busy with now, or was when it panicked.
    pub(crate) fn look(&self) -> Busy {
        match self.0.load(Ordering::Relaxed) {
            0 => Busy::Nothing,
            QUERY => Busy::Answering,
            op_number => Busy::Applying(OpNumber(op_number)),
        }
    }

    fn note<T>(&self, what: u64, work: impl FnOnce() -> T) -> T {
        self.0.store(what, Ordering::Relaxed);
        let done = work();
        self.0.store(0, Ordering::Relaxed);
        done
    }
}

/// A state machine that notes what it does before it does it.
pub(crate) struct Watched {
    state_machine: Box<dyn RawStateMachine>,
    doing: Doing,
}

impl Watched {
    /// Observes `state_machine`.
    pub(crate) fn new(state_machine: Box<dyn RawStateMachine>, doing: Doing) -> Self {
        Self { state_machine, doing }
    }
}

impl RawStateMachine for Watched {
    fn apply(&mut self, context: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        let op_number = context.viewstamp.op_number.0;
        self.doing.note(op_number, || self.state_machine.apply(context, operation))
    }

    fn query(&self, context: &QueryContext, query: Bytes) -> Result<Bytes, Malformed> {
        self.doing.note(QUERY, || self.state_machine.query(context, query))
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        self.state_machine.snapshot(out)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.state_machine.restore(from)
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        self.state_machine.fork()
    }

    fn on_disk(&mut self) -> Option<&mut dyn OnDisk> {
        self.state_machine.on_disk()
    }
}
