//! Entries that came to a backup before their predecessors, within limits.

use std::collections::BTreeMap;

use crate::model::{entry::Entry, types::OpNumber};

/// Entries that came before their predecessors, by op.
///
/// Invariant: `bytes` is the sum over the entries.
#[derive(Clone, Debug, Default)]
pub struct Early {
    entries: BTreeMap<OpNumber, Entry>,
    bytes: u64,
}

impl Early {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all of them, headers included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps `entry`, unless that makes more than `ops_max` or more than `bytes_max` bytes of them.
    /// Of two with one op the first stays.
    pub fn keep(&mut self, entry: Entry, ops_max: usize, bytes_max: u64) {
        let (op_number, bytes) = (entry.header.op_number, entry.header.entry_bytes());
        let has_room = self.len() < ops_max && self.bytes.saturating_add(bytes) <= bytes_max;
        if has_room && !self.entries.contains_key(&op_number) {
            self.bytes += bytes;
            self.entries.insert(op_number, entry);
        }
    }

    /// Takes the lowest one, if its op is at most `next`.
    pub fn take_through(&mut self, next: OpNumber) -> Option<Entry> {
        let first = self.entries.first_entry().filter(|first| *first.key() <= next)?;
        let entry = first.remove();
        self.bytes -= entry.header.entry_bytes();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::entry::EntryHeader;

    fn entry(op_number: u64) -> Entry {
        let header = EntryHeader { op_number: OpNumber(op_number), ..EntryHeader::default() };
        Entry::new(header, Bytes::from_static(&[0; 72]))
    }

    #[test]
    fn only_what_fits_is_kept() {
        let mut early = Early::default();
        for op_number in [5, 4, 5, 6] {
            early.keep(entry(op_number), 9, 500);
        }
        assert_eq!((early.len(), early.bytes()), (2, 400), "the third would make 600 bytes");
        early.keep(entry(7), 2, 9000);
        assert_eq!(early.len(), 2, "the third would be one too many");
    }

    #[test]
    fn they_are_taken_in_order_and_not_beyond_the_next() {
        let mut early = Early::default();
        for op_number in [6, 4, 3] {
            early.keep(entry(op_number), 9, 9000);
        }
        let mut taken = Vec::new();
        while let Some(entry) = early.take_through(OpNumber(4)) {
            taken.push(entry.header.op_number.0);
        }
        assert_eq!((taken, early.len(), early.bytes()), (vec![3, 4], 1, 200));
    }
}
