//! A service that counts, and misbehaves when asked to.

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, SnapshotError, SnapshotReader, SnapshotWriter, StateMachine};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Operation {
    Add(u64),
    Panic,
}

#[derive(Default)]
pub(crate) struct Counter {
    pub(crate) count: u64,
}

impl StateMachine for Counter {
    type Operation = Operation;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, operation: Operation) -> u64 {
        match operation {
            Operation::Add(more) => self.count += more,
            Operation::Panic => panic!("as it was told"),
        }
        self.count
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.count
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        out.write_value(&self.count)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.count = from.read_value()?;
        Ok(())
    }
}
