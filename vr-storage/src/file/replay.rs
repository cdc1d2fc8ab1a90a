//! Puts the batches of a log together again, and proves by their chain that nothing is missing.

use vr_core::{
    OpNumber,
    model::{entry::EntryHeader, types::Checksum},
    ports::storage::Anchor,
};

use crate::file::{
    index::Index,
    record::{BATCH_HEADER_BYTES, BatchHeader},
};

/// The log as far as it has been put together.
///
/// Invariants: `headers` are contiguous and chained, and the first one follows `base`.
#[derive(Debug)]
pub(crate) struct Replay {
    checkpoint: Anchor,
    base: Anchor,
    headers: Vec<EntryHeader>,
    index: Index,
}

impl Replay {
    /// An empty log above `checkpoint`.
    pub(crate) fn new(checkpoint: Anchor) -> Self {
        Self { checkpoint, base: checkpoint, headers: Vec::new(), index: Index::default() }
    }

    /// The last entry, or what the first one will follow.
    pub(crate) fn head(&self) -> Anchor {
        self.headers.last().map_or(self.base, |header| Anchor {
            op_number: header.op_number,
            checksum: header.checksum,
        })
    }

    /// Adds a batch; false when it follows nothing that is here.
    ///
    /// A batch names its base by checksum, and checksums chain, so a base that is found proves
    /// everything below it, whatever lies damaged in between. A base at or below the checkpoint
    /// needs no proof: what is before it is not needed any more.
    pub(crate) fn apply(&mut self, batch: &BatchHeader, entries: &[EntryHeader]) -> bool {
        if self.checksum_at(batch.base.op_number) == Some(batch.base.checksum) {
            let kept = batch.base.op_number.since(self.base.op_number);
            self.headers.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
            self.index.truncate(batch.base.op_number);
        } else if batch.base.op_number <= self.checkpoint.op_number {
            self.restart(batch.base);
        } else {
            return false;
        }
        self.headers.extend_from_slice(entries);
        self.index.append(
            batch.base.op_number,
            batch.segment,
            batch.offset + crate::disk::byte_count(BATCH_HEADER_BYTES),
            entries.iter().map(EntryHeader::entry_bytes),
        );
        true
    }

    /// Forgets everything; the next entry follows `base`.
    fn restart(&mut self, base: Anchor) {
        self.base = base;
        self.headers.clear();
        self.index = Index::default();
    }

    /// Whether the log contains the checkpoint's op and has another entry there.
    pub(crate) fn contradicts_checkpoint(&self) -> bool {
        self.checksum_at(self.checkpoint.op_number)
            .is_some_and(|checksum| checksum != self.checkpoint.checksum)
    }

    /// The headers above the checkpoint and where everything lies.
    pub(crate) fn finish(mut self) -> (Vec<EntryHeader>, Index) {
        let above =
            self.headers.partition_point(|header| header.op_number <= self.checkpoint.op_number);
        self.headers.drain(..above);
        (self.headers, self.index)
    }

    fn checksum_at(&self, op_number: OpNumber) -> Option<Checksum> {
        if op_number == self.base.op_number {
            return Some(self.base.checksum);
        }
        let position = op_number.0.checked_sub(self.base.op_number.0)?.checked_sub(1)?;
        self.headers.get(usize::try_from(position).ok()?).map(|header| header.checksum)
    }
}
