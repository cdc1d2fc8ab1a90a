//! A service that counts, and misbehaves when asked to.

use std::sync::{Arc, Condvar, Mutex};

use serde::{Deserialize, Serialize};
use vr_core::{
    Context, QueryContext, SnapshotError, SnapshotReader, SnapshotSource, SnapshotWriter,
    StateMachine,
};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Operation {
    Add(u64),
    Panic,
}

#[derive(Default)]
pub(crate) struct Counter {
    pub(crate) count: u64,
    /// It hands over frozen views of itself, which are written once this is open.
    pub(crate) gate: Option<Gate>,
    /// It adds this to what it writes, so that it is not deterministic where replicas have others.
    pub(crate) salt: u64,
}

/// Holds up threads until it is opened; clones are the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let (open, opened) = &*self.0;
        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
    }
}

struct Frozen {
    count: u64,
    gate: Gate,
}

impl SnapshotSource for Frozen {
    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        self.gate.pass();
        out.write_value(&self.count)
    }
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
        out.write_value(&(self.count + self.salt))
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.count = from.read_value::<u64>()? - self.salt;
        Ok(())
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        let gate = self.gate.clone()?;
        Some(Box::new(Frozen { count: self.count, gate }))
    }
}
