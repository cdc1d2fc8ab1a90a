//! A service that counts what it applies, and refuses to apply anything twice.

use std::collections::BTreeSet;

use bytes::Bytes;
use vr_core::{
    Context, Malformed, QueryContext, RawStateMachine, SnapshotError, SnapshotReader,
    SnapshotWriter,
};

/// Counts what it applies, and refuses to apply anything twice.
#[derive(Default)]
pub(crate) struct Once {
    seen: BTreeSet<Bytes>,
}

impl RawStateMachine for Once {
    fn apply(&mut self, context: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        assert!(self.seen.insert(operation.clone()), "executed twice: {context:?}");
        Ok(Bytes::from(self.seen.len().to_string()))
    }

    fn query(&self, _: &QueryContext, _: Bytes) -> Result<Bytes, Malformed> {
        Ok(Bytes::from(self.seen.len().to_string()))
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        use std::io::Write;
        for operation in &self.seen {
            out.write_all(operation)?;
        }
        Ok(())
    }

    fn restore(&mut self, _: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unreadable)
    }
}
