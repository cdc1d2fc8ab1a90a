//! Writes the replicated state into a checkpoint, chunk by chunk, and reads one back.

use core::{fmt, time::Duration};
use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes};

use crate::{
    model::{
        checkpoint::{CHUNK_BYTES, Draft, Manifest},
        durable::CheckpointId,
        types::{Checksum, OpNumber},
    },
    ports::{
        state_machine::{SnapshotError, SnapshotReader, SnapshotSource, SnapshotWriter},
        storage::{Anchor, Checkpoints, StorageError},
    },
};

/// Version of what stands in front of the state in a checkpoint. In version 1 the state followed the
/// client table at once; it is still read.
const CHECKPOINT_VERSION: u16 = 2;
/// Bytes of version, op and time, little-endian.
const PREFIX_BYTES: usize = 18;
/// Bytes of the state's place, which follows.
const PLACE_BYTES: usize = 8;
/// The place of the state in the smallest checkpoint.
const HEAD_BYTES_MIN: usize = 4 << 10;

/// What stands in front of the state: the op and its time, and the client table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The last op that is in the state.
    pub(crate) op_number: OpNumber,
    /// Its time, since 1970.
    pub(crate) time: Duration,
    /// The client table's snapshot.
    pub(crate) table: Vec<u8>,
}

impl Head {
    /// Its bytes, with zeros up to the state's place. As long as the client table does not outgrow
    /// its room, which doubles up to the size of a chunk and grows by chunks from there, chunks of a
    /// state that has not changed are those of the checkpoint before.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let time = u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX);
        let mut bytes = Vec::with_capacity(HEAD_BYTES_MIN);
        bytes.put_u16_le(CHECKPOINT_VERSION);
        bytes.put_u64_le(self.op_number.0);
        bytes.put_u64_le(time);
        let length = PREFIX_BYTES + PLACE_BYTES + self.table.len();
        let chunk = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
        let place = match length <= chunk {
            true => length.next_power_of_two().max(HEAD_BYTES_MIN),
            false => length.next_multiple_of(chunk),
        };
        bytes.put_u64_le(u64::try_from(place).unwrap_or(u64::MAX));
        bytes.extend_from_slice(&self.table);
        bytes.resize(place, 0);
        bytes
    }

    /// Reads op, time and client table, which `restore` takes; then `from` is at the state.
    pub(crate) fn read(
        from: &mut SnapshotReader<'_>,
        restore: impl FnOnce(&mut SnapshotReader<'_>) -> Result<(), SnapshotError>,
    ) -> Result<(OpNumber, Duration), SnapshotError> {
        let mut bytes = [0; PREFIX_BYTES];
        from.read_exact(&mut bytes)?;
        let mut fields = bytes.as_slice();
        let version = fields.get_u16_le();
        let (op_number, time) = (OpNumber(fields.get_u64_le()), fields.get_u64_le());
        match version {
            1 => restore(from)?,
            CHECKPOINT_VERSION => {
                let mut place = [0; PLACE_BYTES];
                from.read_exact(&mut place)?;
                let before = u64::try_from(PREFIX_BYTES + PLACE_BYTES).unwrap_or(u64::MAX);
                let left = u64::from_le_bytes(place).checked_sub(before);
                let left = left.ok_or(SnapshotError::Unreadable)?;
                let mut table = Vec::new();
                from.by_ref().take(left).read_to_end(&mut table)?;
                if u64::try_from(table.len()) != Ok(left) {
                    return Err(SnapshotError::Unreadable);
                }
                restore(&mut SnapshotReader::new(&mut table.as_slice()))?;
            }
            _ => return Err(SnapshotError::Unreadable),
        }
        Ok((op_number, Duration::from_nanos(time)))
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
    /// [`Head::to_bytes`].
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(table: Vec<u8>) -> Head {
        Head { op_number: OpNumber(7), time: Duration::from_nanos(9), table }
    }

    /// What is read of `bytes` if the table has `length` bytes: op, time, table, and what follows.
    fn read(bytes: &[u8], length: usize) -> Result<(u64, u128, Vec<u8>, Vec<u8>), SnapshotError> {
        let mut from = bytes;
        let mut reader = SnapshotReader::new(&mut from);
        let mut table = vec![0; length];
        let head = Head::read(&mut reader, |from| Ok(from.read_exact(&mut table)?))?;
        let mut state = Vec::new();
        reader.read_to_end(&mut state)?;
        Ok((head.0.0, head.1.as_nanos(), table, state))
    }

    #[test]
    fn a_table_that_grows_moves_the_state_by_doubling_and_then_by_chunks() {
        let place = |length| head(vec![1; length]).to_bytes().len();
        let chunk = usize::try_from(CHUNK_BYTES).unwrap();
        assert_eq!([place(0), place(4000), place(4070)], [4096; 3]);
        assert_eq!([place(4071), place(8000)], [8192; 2]);
        assert_eq!([place(chunk - 26), place(chunk - 25)], [chunk, 2 * chunk]);
        assert_eq!(place(5 * chunk), 6 * chunk);
    }

    #[test]
    fn what_was_written_is_read_back_and_the_state_follows() {
        for length in [0, 5, 5000] {
            let mut bytes = head(vec![3; length]).to_bytes();
            bytes.extend_from_slice(b"state");
            let read = read(&bytes, length).unwrap();
            assert_eq!(read, (7, 9, vec![3; length], b"state".to_vec()));
        }
    }

    #[test]
    fn a_checkpoint_of_version_1_is_read() {
        let mut bytes = Vec::new();
        bytes.put_u16_le(1);
        bytes.put_u64_le(7);
        bytes.put_u64_le(9);
        bytes.extend_from_slice(b"tablestate");
        assert_eq!(read(&bytes, 5).unwrap(), (7, 9, b"table".to_vec(), b"state".to_vec()));
    }

    #[test]
    fn what_is_cut_off_or_of_another_version_is_refused() {
        let bytes = head(vec![3; 5]).to_bytes();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end], 5).is_err(), "{end} bytes");
        }
        let mut later = bytes.clone();
        later[0] = 3;
        assert!(matches!(read(&later, 5), Err(SnapshotError::Unreadable)));
        let mut short = bytes;
        short[18..26].copy_from_slice(&25_u64.to_le_bytes());
        assert!(matches!(read(&short, 5), Err(SnapshotError::Unreadable)));
    }
}
