//! What the engine asks of the store of checkpoints, and what comes back.

use crate::{
    model::{
        checkpoint::{ChunkFacts, Draft, Manifest},
        durable::CheckpointId,
        encoding::chunk::Carried,
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
        /// Whether a chunk is compressed, if that saves enough.
        compressed: bool,
    },
    /// Look which chunks of a checkpoint are here.
    Look {
        /// Of which.
        checkpoint: CheckpointId,
        /// What it consists of.
        manifest: Manifest,
    },
    /// Put a chunk into the checkpoint that arrives, if it is what it should be.
    Put {
        /// Of which.
        checkpoint: CheckpointId,
        /// Its place.
        index: u32,
        /// What came.
        carried: Carried,
        /// What it should be.
        facts: ChunkFacts,
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

impl Task {
    /// Whether it takes long whatever the storage is: bytes are compressed, or are no more.
    #[must_use]
    pub const fn is_slow(&self) -> bool {
        match self {
            Self::Serve { part: SnapshotPart::Chunk(_), compressed, .. } => *compressed,
            Self::Put { carried: Carried::Compressed(_), .. } => true,
            Self::Serve { part: SnapshotPart::Manifest(_), .. }
            | Self::Put { carried: Carried::Raw(_), .. }
            | Self::Look { .. }
            | Self::Complete { .. }
            | Self::Keep { .. } => false,
        }
    }
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
    /// What came was not the chunk.
    Refused {
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
        Task::Serve { to, request, checkpoint, part, compressed } => {
            let content = match serve(store, &checkpoint, part, compressed) {
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
        Task::Put { checkpoint, index, carried, facts } => match carried.open(facts) {
            Some(chunk) => {
                store.put(&Draft::Of(checkpoint), index, &chunk)?;
                TaskDone::Put { checkpoint, index }
            }
            None => TaskDone::Refused { checkpoint, index },
        },
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
    compressed: bool,
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
            let chunk = store.chunk(checkpoint, index)?;
            let carried = if compressed { Carried::compressed(chunk) } else { Carried::Raw(chunk) };
            Ok(SnapshotContent::chunk(index, carried))
        }
    }
}
