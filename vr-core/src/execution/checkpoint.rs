//! Writes the replicated state into a checkpoint, chunk by chunk, and reads one back.

use core::{fmt, time::Duration};
use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::{Buf, Bytes};

use crate::{
    model::{
        checkpoint::{CHUNK_BYTES, Draft, Manifest},
        durable::CheckpointId,
        types::{Checksum, OpNumber},
    },
    ports::{
        state_machine::{SnapshotError, SnapshotSource, SnapshotWriter},
        storage::{Anchor, Checkpoints, StorageError},
    },
};

/// Version of what stands in front of the state in a checkpoint.
const CHECKPOINT_VERSION: u16 = 1;
/// Bytes of that: the version, the op and the time, little-endian.
const PREFIX_BYTES: usize = 18;

/// What stands in front of the client table and the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// The last op that is in the state.
    pub(crate) op_number: OpNumber,
    /// Its time, since 1970.
    pub(crate) time: Duration,
}

impl Prefix {
    pub(crate) fn write(self, out: &mut impl Write) -> io::Result<()> {
        let time = u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX);
        out.write_all(&CHECKPOINT_VERSION.to_le_bytes())?;
        out.write_all(&self.op_number.0.to_le_bytes())?;
        out.write_all(&time.to_le_bytes())
    }

    pub(crate) fn read(from: &mut impl Read) -> Result<Self, SnapshotError> {
        let mut bytes = [0; PREFIX_BYTES];
        from.read_exact(&mut bytes)?;
        let mut fields = bytes.as_slice();
        if fields.get_u16_le() != CHECKPOINT_VERSION {
            return Err(SnapshotError::Unreadable);
        }
        let op_number = OpNumber(fields.get_u64_le());
        Ok(Self { op_number, time: Duration::from_nanos(fields.get_u64_le()) })
    }
}

/// Why a checkpoint could not be taken or restored. The node stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointFailure {
    /// The state machine could not write its state.
    #[error("the state machine could not write its snapshot after op {op_number}: {source}")]
    Snapshot {
        /// After which op.
        op_number: OpNumber,
        /// What it said.
        #[source]
        source: SnapshotError,
    },
    /// The state machine could not read its state.
    #[error("the state machine could not restore the snapshot of op {op_number}: {source}")]
    Restore {
        /// Of which op.
        op_number: OpNumber,
        /// What it said.
        #[source]
        source: SnapshotError,
    },
    /// A state that is on disk by itself could not be read, made durable or emptied.
    #[error("the state machine's own disk failed after op {op_number}: {source}")]
    OnDisk {
        /// After which op; 0 at the start.
        op_number: OpNumber,
        /// What it said.
        #[source]
        source: SnapshotError,
    },
    /// Storage failed meanwhile.
    #[error(transparent)]
    Storage(StorageError),
}

/// Collects what is written into chunks, and puts them into a draft.
struct ChunkWriter<'a> {
    store: &'a dyn Checkpoints,
    draft: Draft,
    chunk: Vec<u8>,
    manifest: Manifest,
    failed: Option<StorageError>,
}

impl<'a> ChunkWriter<'a> {
    fn new(store: &'a dyn Checkpoints, draft: Draft) -> Self {
        Self { store, draft, chunk: Vec::new(), manifest: Manifest::default(), failed: None }
    }

    fn put(&mut self) -> io::Result<()> {
        let put = self.store.put(&self.draft, self.manifest.count(), &self.chunk);
        if let Err(error) = put {
            self.failed = Some(error);
            return Err(io::Error::other("the checkpoint's storage failed"));
        }
        self.manifest.bytes += u64::try_from(self.chunk.len()).unwrap_or(0);
        self.manifest.chunks.push(Checksum::of(&self.chunk));
        self.chunk.clear();
        Ok(())
    }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
        let taken = bytes.len().min(size - self.chunk.len());
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.chunk.len() == size {
            self.put()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the checkpoint of the state after `at`, whose bytes `write` writes.
///
/// # Errors
/// [`CheckpointFailure`]; then there is none.
pub(crate) fn take(
    store: &dyn Checkpoints,
    at: Anchor,
    write: impl FnOnce(&mut SnapshotWriter<'_>) -> Result<(), SnapshotError>,
) -> Result<CheckpointId, CheckpointFailure> {
    let draft = Draft::Own(at.op_number);
    let mut chunks = ChunkWriter::new(store, draft);
    let written = write(&mut SnapshotWriter::new(&mut chunks));
    let written = written.and_then(|()| match chunks.chunk.is_empty() {
        true => Ok(()),
        false => Ok(chunks.put()?),
    });
    if let Some(error) = chunks.failed {
        return Err(CheckpointFailure::Storage(error));
    }
    let op_number = at.op_number;
    written.map_err(|source| CheckpointFailure::Snapshot { op_number, source })?;
    let manifest = chunks.manifest;
    let id = CheckpointId { op_number, checksum: at.checksum, digest: manifest.digest() };
    store.complete(&draft, &id, &manifest).map_err(CheckpointFailure::Storage)?;
    Ok(id)
}

/// A state that was frozen, to be written while the live one goes on.
pub struct Frozen {
    pub(crate) at: Anchor,
    /// The prefix and the client table.
    pub(crate) head: Vec<u8>,
    pub(crate) source: Box<dyn SnapshotSource>,
    pub(crate) store: Arc<dyn Checkpoints>,
}

impl Frozen {
    /// Writes it; may take long.
    ///
    /// # Errors
    /// [`CheckpointFailure`]; then there is none.
    pub fn write(&self) -> Result<CheckpointId, CheckpointFailure> {
        take(self.store.as_ref(), self.at, |out| {
            out.write_all(&self.head)?;
            self.source.snapshot(out)
        })
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Reads a complete checkpoint from its beginning, one chunk in memory.
pub(crate) struct ChunkReader<'a> {
    store: &'a dyn Checkpoints,
    id: CheckpointId,
    left: core::ops::Range<u32>,
    chunk: Bytes,
    failed: Option<StorageError>,
}

impl<'a> ChunkReader<'a> {
    /// # Errors
    /// As [`Checkpoints::manifest`].
    pub(crate) fn new(store: &'a dyn Checkpoints, id: CheckpointId) -> Result<Self, StorageError> {
        let left = 0..store.manifest(&id)?.count();
        Ok(Self { store, id, left, chunk: Bytes::new(), failed: None })
    }

    /// What storage said, if it failed.
    pub(crate) fn into_failure(self) -> Option<StorageError> {
        self.failed
    }
}

impl Read for ChunkReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let Some(index) = self.left.next() else { return Ok(0) };
            match self.store.chunk(&self.id, index) {
                Ok(chunk) => self.chunk = chunk,
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("the checkpoint cannot be read"));
                }
            }
        }
        let count = into.len().min(self.chunk.len());
        if let Some(into) = into.get_mut(..count) {
            self.chunk.copy_to_slice(into);
        }
        Ok(count)
    }
}
