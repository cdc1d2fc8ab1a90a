//! What is done with single instances of the user's state machine: snapshots, copies, replays.

use std::sync::Arc;

use vr_core::{SnapshotError, SnapshotReader, SnapshotWriter, StateMachine};

use crate::check::panics::caught;

/// Makes an instance in its first state.
pub(super) type Make<S> = Arc<dyn Fn() -> S + Send + Sync>;

/// The snapshot of `state`.
///
/// # Errors
/// Why there is none.
pub(super) fn snapshot_of<S: StateMachine>(state: &S) -> Result<Vec<u8>, String> {
    let written = caught(|| {
        let mut bytes = Vec::new();
        state.snapshot(&mut SnapshotWriter::new(&mut bytes)).map(|()| bytes)
    });
    told("snapshot", written)
}

/// A new instance, restored from `snapshot`.
///
/// # Errors
/// Why there is none.
pub(super) fn restored<S: StateMachine>(make: &Make<S>, snapshot: &[u8]) -> Result<S, String> {
    let read = caught(|| {
        let (mut state, mut bytes) = (make(), snapshot);
        state.restore(&mut SnapshotReader::new(&mut bytes)).map(|()| state)
    });
    told("restore", read)
}

fn told<T>(
    method: &str,
    done: Result<Result<T, SnapshotError>, crate::check::panics::Caught>,
) -> Result<T, String> {
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{method} failed: {error}")),
        Err(panic) => Err(format!("{method} panicked: {}", panic.message.replace('\n', " "))),
    }
}
