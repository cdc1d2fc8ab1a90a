//! What the engine asks of the store of checkpoints, and what comes back.

use bytes::Bytes;

use crate::{
    model::{
        checkpoint::{Draft, Manifest},
        durable::CheckpointId,
        snapshot::{MANIFEST_PAGE_MAX, SnapshotContent, SnapshotPart},
        types::{OpNumber, ReplicaId, RequestId},
    },
    ports::storage::{Checkpoints, StorageError},
};

/// One thing to do with checkpoints; in order, and none of it in a hurry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Read what a peer asked for.
    Serve {
        /// Whose question.
        to: ReplicaId,
        /// Its name there.
        request: RequestId,
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// Which part.
        part: SnapshotPart,
    },
    /// Look which chunks of a checkpoint are here.
    Look {
        /// Of which.
        checkpoint: CheckpointId,
        /// What it consists of.
        manifest: Manifest,
    },
    /// Put a chunk, which is verified, into the checkpoint that arrives.
    Put {
        /// Of which.
        checkpoint: CheckpointId,
        /// Its place.
        index: u32,
        /// Its bytes.
        chunk: Bytes,
    },
    /// Make the checkpoint that arrived complete.
    Complete {
        /// Which.
        checkpoint: CheckpointId,
        /// What it consists of.
        manifest: Manifest,
    },
    /// Drop all others up to an op.
    Keep {
        /// Those that are needed.
        checkpoints: Vec<CheckpointId>,
        /// Younger ones stay: the executor may have taken one that the engine has not heard of.
        through: OpNumber,
    },
}

/// What came of a [`Task`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskDone {
    /// What a peer asked for.
    Served {
        /// Whose question.
        to: ReplicaId,
        /// Its name there.
        request: RequestId,
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// The answer.
        content: SnapshotContent,
    },
    /// These chunks are not here.
    Looked {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// Ascending.
        missing: Vec<u32>,
    },
    /// The chunk is stored.
    Put {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// Its place.
        index: u32,
    },
    /// The checkpoint is complete and survives what storage survives.
    Completed {
        /// Which.
        checkpoint: CheckpointId,
    },
    /// The others are gone.
    Kept,
}

/// Does one thing.
///
/// # Errors
/// [`StorageError`] when storage failed; the node stops. What a peer asks for and storage does not
/// have, or cannot read, is no failure: the peer asks somebody else.
pub fn perform(store: &dyn Checkpoints, task: Task) -> Result<TaskDone, StorageError> {
    Ok(match task {
        Task::Serve { to, request, checkpoint, part } => {
            let content = match serve(store, &checkpoint, part) {
                Ok(content) => content,
                Err(StorageError::Missing { .. } | StorageError::Corrupt { .. }) => {
                    SnapshotContent::Gone
                }
                Err(error) => return Err(error),
            };
            TaskDone::Served { to, request, checkpoint, content }
        }
        Task::Look { checkpoint, manifest } => {
            let missing = store.missing(&Draft::Of(checkpoint), &manifest)?;
            TaskDone::Looked { checkpoint, missing }
        }
        Task::Put { checkpoint, index, chunk } => {
            store.put(&Draft::Of(checkpoint), index, &chunk)?;
            TaskDone::Put { checkpoint, index }
        }
        Task::Complete { checkpoint, manifest } => {
            store.complete(&Draft::Of(checkpoint), &checkpoint, &manifest)?;
            TaskDone::Completed { checkpoint }
        }
        Task::Keep { checkpoints, through } => {
            store.keep(&checkpoints, through)?;
            TaskDone::Kept
        }
    })
}

fn serve(
    store: &dyn Checkpoints,
    checkpoint: &CheckpointId,
    part: SnapshotPart,
) -> Result<SnapshotContent, StorageError> {
    match part {
        SnapshotPart::Manifest(from) => {
            let manifest = store.manifest(checkpoint)?;
            let page = usize::try_from(MANIFEST_PAGE_MAX).unwrap_or(usize::MAX);
            let skip = usize::try_from(from).unwrap_or(usize::MAX);
            let chunks = manifest.chunks.iter().skip(skip).take(page).copied().collect();
            Ok(SnapshotContent::Manifest { bytes: manifest.bytes, from, chunks })
        }
        SnapshotPart::Chunk(index) => {
            Ok(SnapshotContent::Chunk { index, bytes: store.chunk(checkpoint, index)? })
        }
    }
}
