//! What replicas say to each other when what one needs was released: a checkpoint, part by part.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{
    durable::CheckpointId,
    encoding::chunk::Carried,
    types::{Checksum, RequestId},
};

/// The most checksums of a manifest in one answer.
pub const MANIFEST_PAGE_MAX: u32 = 8192;

/// What was asked for is at or below this checkpoint, and is not kept any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The question's name.
    pub request: RequestId,
    /// The checkpoint that the sender holds in the place of it.
    pub checkpoint: CheckpointId,
}

/// Asks for a part of a checkpoint; any status answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSnapshot {
    /// Names the question.
    pub request: RequestId,
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// Which part.
    pub part: SnapshotPart,
    /// Whether a chunk may come compressed.
    pub compressed: bool,
}

/// A part of a checkpoint, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotPart {
    /// The manifest, from the checksum of this chunk on.
    Manifest(u32),
    /// This chunk.
    Chunk(u32),
}

/// Answer to [`GetSnapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The question's name.
    pub request: RequestId,
    /// Of which checkpoint.
    pub checkpoint: CheckpointId,
    /// The part.
    pub content: SnapshotContent,
}

/// A part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotContent {
    /// The checkpoint is not here, or not any more.
    Gone,
    /// Checksums of chunks.
    Manifest {
        /// Bytes of the whole checkpoint.
        bytes: u64,
        /// The chunk that the first of them belongs to.
        from: u32,
        /// In order, as many as fit, or all that are left.
        chunks: Vec<Checksum>,
    },
    /// One chunk.
    Chunk {
        /// Its place.
        index: u32,
        /// Its bytes.
        bytes: Bytes,
    },
    /// One chunk, compressed: only to whoever said that it takes such.
    Compressed {
        /// Its place.
        index: u32,
        /// An LZ4 block; how many bytes are in it, the manifest says.
        block: Bytes,
    },
}

impl SnapshotContent {
    /// The chunk at `index`, as it is to travel.
    #[must_use]
    pub fn chunk(index: u32, carried: Carried) -> Self {
        match carried {
            Carried::Raw(bytes) => Self::Chunk { index, bytes },
            Carried::Compressed(block) => Self::Compressed { index, block },
        }
    }
}
