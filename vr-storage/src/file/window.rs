//! A segment read piece by piece, so that scanning needs memory for a piece and not for a segment.

use vr_core::StorageError;

use crate::{
    disk::{Disk, byte_count, refused},
    file::names,
};

/// Bytes read ahead.
const READ_BYTES: usize = 1 << 20;

/// A moving view of one segment's file.
#[derive(Debug)]
pub(crate) struct Window<'a, D> {
    disk: &'a D,
    name: String,
    number: u64,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, D: Disk> Window<'a, D> {
    /// A view of the segment `number`, of which `length` bytes are used.
    pub(crate) fn new(disk: &'a D, number: u64, length: u64) -> Self {
        let name = names::segment(number);
        Self { disk, name, number, length, start: 0, bytes: Vec::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// The `count` bytes at `at`; `None` when the file ends before.
    ///
    /// # Errors
    /// [`StorageError::Io`] when they cannot be read.
    pub(crate) fn get(&mut self, at: u64, count: usize) -> Result<Option<&[u8]>, StorageError> {
        if at.saturating_add(byte_count(count)) > self.length {
            return Ok(None);
        }
        if !self.holds(at, count) {
            let rest = usize::try_from(self.length - at).unwrap_or(usize::MAX);
            self.bytes.resize(count.max(READ_BYTES).min(rest), 0);
            self.start = at;
            let read = self.disk.read_at(&self.name, at, &mut self.bytes);
            let read = read.map_err(|error| refused(self.disk, "read", &self.name, error))?;
            self.bytes.truncate(read);
        }
        let skipped = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skipped..).and_then(|bytes| bytes.get(..count)))
    }

    fn holds(&self, at: u64, count: usize) -> bool {
        let end = self.start + byte_count(self.bytes.len());
        at >= self.start && at.saturating_add(byte_count(count)) <= end
    }
}
