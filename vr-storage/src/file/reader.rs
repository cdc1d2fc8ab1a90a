//! Reads entries back while the log is being written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use vr_core::{
    OpNumber, StorageError,
    model::{
        encoding::entry::decode_header,
        entry::{ENTRY_HEADER_BYTES, Entry},
    },
};

use crate::{
    disk::{Disk, refused},
    file::{
        index::{Index, Place, Run},
        names,
    },
};

/// Reads entries from the log of a [`Store`](crate::file::store::Store); clones share its index.
///
/// A read holds the bytes of the entries it returns and at most 64 KiB around each of them.
#[derive(Clone, Debug)]
pub struct StoreReader<D> {
    disk: D,
    index: Arc<Mutex<Index>>,
}

impl<D: Disk> StoreReader<D> {
    pub(crate) const fn new(disk: D, index: Arc<Mutex<Index>>) -> Self {
        Self { disk, index }
    }

    /// Entries from `from` up to and including `through`, ascending, as many as fit into
    /// `bytes_max`, at least one.
    ///
    /// Everything that a completed write put there is found. A read ends before the first entry
    /// that is damaged.
    ///
    /// # Errors
    /// [`StorageError::Missing`] when `from` is not in the log; [`StorageError::Corrupt`] when that
    /// very entry is damaged; [`StorageError::Io`] when the system refuses.
    pub fn entries(
        &self,
        from: OpNumber,
        through: OpNumber,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        loop {
            let (run, generation) = {
                let index = self.index();
                (index.find(next).filter(|_| next <= through), index.generation())
            };
            let Some(run) = run else { break };
            match self.read(&run, next) {
                Ok(found) => {
                    let whole =
                        found.last().is_some_and(|last| last.header.op_number >= run.last());
                    for entry in found {
                        bytes += entry.header.entry_bytes();
                        let fits = entries.is_empty() || bytes <= bytes_max;
                        if !fits || entry.header.op_number > through {
                            return Ok(entries);
                        }
                        next = entry.header.op_number.next();
                        entries.push(entry);
                    }
                    if !whole {
                        return Ok(entries);
                    }
                }
                // A cut or a release may have taken the file away meanwhile: look again.
                Err(_) if self.index().generation() != generation => {}
                // What is damaged comes first in the next read, and is said then.
                Err(_) if !entries.is_empty() => return Ok(entries),
                Err(error) => return Err(error),
            }
        }
        if entries.is_empty() {
            return Err(StorageError::Missing { op_number: from });
        }
        Ok(entries)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries of `run` from `from` on, verified, up to the first that does not verify.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when that is the very first one.
    fn read(&self, run: &Run, from: OpNumber) -> Result<Vec<Entry>, StorageError> {
        let place = run.place.filter(|_| !run.is_damaged);
        let place = place.ok_or_else(|| self.corrupt(from, run.place))?;
        let name = names::segment(place.segment);
        let mut bytes = vec![0; usize::try_from(run.bytes).unwrap_or(usize::MAX)];
        let read = match self.disk.read_at(&name, place.offset, &mut bytes) {
            Ok(read) => read,
            // Somebody took the file away: its entries are lost, and can be repaired.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(refused(&self.disk, "read", &name, error)),
        };
        bytes.truncate(read);
        let mut rest = Bytes::from(bytes);
        let mut entries = Vec::new();
        let start = OpNumber(run.first.0.saturating_sub(u64::from(run.skipped)));
        let mut op_number = start;
        while op_number <= run.last() {
            let Some(entry) = take_entry(&mut rest, op_number, from) else {
                if entries.is_empty() {
                    return Err(self.corrupt(from, Some(place)));
                }
                break;
            };
            if op_number >= from {
                entries.push(entry);
            }
            op_number = op_number.next();
        }
        Ok(entries)
    }

    fn corrupt(&self, op_number: OpNumber, place: Option<Place>) -> StorageError {
        let (mut path, mut at) = (self.disk.path(), 0);
        if let Some(place) = place {
            path.push(names::segment(place.segment));
            at = place.offset;
        }
        StorageError::Corrupt { what: format!("the entry of op {op_number}"), path, at }
    }
}

/// Takes the entry of `op_number` off the front of `bytes`; the payload is checked from `from` on.
fn take_entry(bytes: &mut Bytes, op_number: OpNumber, from: OpNumber) -> Option<Entry> {
    let header = decode_header(bytes).ok().filter(|header| header.op_number == op_number)?;
    let end = ENTRY_HEADER_BYTES.checked_add(usize::try_from(header.payload_length).ok()?)?;
    if end > bytes.len() {
        return None;
    }
    let payload = bytes.slice(ENTRY_HEADER_BYTES..end);
    let entry = Entry { header, payload };
    if op_number >= from {
        entry.verify_payload().ok()?;
    }
    *bytes = bytes.slice(end..);
    Some(entry)
}
