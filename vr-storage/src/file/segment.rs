//! A segment of the log: created and named ahead of need, filled with zeros or recycled.

use std::io::IoSlice;

use vr_core::{StorageError, model::types::DiskId};

use crate::{
    disk::{Disk, refused},
    file::{
        names,
        record::{BATCHES_START, CLEAN_BYTES, PAGE_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader},
    },
};

/// A page of zeros, to pad writes with.
pub(crate) const ZEROS: [u8; 4096] = [0; 4096];

/// A segment that has its header, its length and its name, all durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) length: u64,
    /// Where the next batch starts.
    pub(crate) end: u64,
}

impl Segment {
    pub(crate) fn new(number: u64, length: u64, end: u64) -> Self {
        Self { number, name: names::segment(number), length, end }
    }

    /// Writes the first page again, durably, where it was damaged; batches do not depend on it.
    ///
    /// # Errors
    /// [`StorageError::Full`] or [`StorageError::Io`] when the system refuses.
    pub(crate) fn write_header<D: Disk>(
        &self,
        disk: &D,
        of: DiskId,
        follows: bool,
    ) -> Result<(), StorageError> {
        self.write_first_pages(disk, (of, follows), &self.name, &[])
    }

    /// Writes the first page, and `behind` it.
    fn write_first_pages<D: Disk>(
        &self,
        disk: &D,
        (of, follows): (DiskId, bool),
        name: &str,
        behind: &[u8],
    ) -> Result<(), StorageError> {
        let (number, length) = (self.number, self.length);
        let header = SegmentHeader { disk: of, number, length, follows }.encode();
        let padding = ZEROS.get(header.len()..).unwrap_or_default();
        let parts = [IoSlice::new(&header), IoSlice::new(padding), IoSlice::new(behind)];
        disk.write_at(name, 0, &parts).map_err(|error| refused(disk, "write", name, error))?;
        disk.sync(name).map_err(|error| refused(disk, "sync", name, error))
    }

    /// Whether a batch that takes `span` bytes fits, with a marker and a clean sector behind it.
    pub(crate) const fn has_room_for(&self, span: u64) -> bool {
        self.end.saturating_add(span).saturating_add(CLEAN_BYTES) <= self.length
    }

    /// Bytes of the file for a batch of `span` bytes that is too large for `segment_bytes`.
    pub(crate) fn length_for(span: u64, segment_bytes: u64) -> u64 {
        let needed = BATCHES_START.saturating_add(span).saturating_add(CLEAN_BYTES);
        crate::file::record::round_up(needed, PAGE_BYTES).max(segment_bytes)
    }
}

/// Creates a file of `length` zeros, not durable yet.
///
/// # Errors
/// [`StorageError::Full`] or [`StorageError::Io`] when the system refuses.
pub(crate) fn create<D: Disk>(disk: &D, name: &str, length: u64) -> Result<(), StorageError> {
    disk.create(name, length).map_err(|error| {
        // The rest of a file that did not fit only takes space; failing to remove it changes
        // nothing, the next open removes it.
        let _ = disk.remove(name);
        refused(disk, "create", name, error)
    })
}

/// What is missing before the first of `files`, the segments of a log in which no batch was found.
///
/// # Errors
/// What the system says.
pub(crate) fn missing_before<D: Disk>(
    disk: &D,
    files: &[(u64, u64)],
) -> Result<Option<String>, StorageError> {
    let Some((number, _)) = files.first() else { return Ok(None) };
    let name = names::segment(*number);
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
    let read = disk.read_at(&name, 0, &mut bytes);
    bytes.truncate(read.map_err(|error| refused(disk, "read", &name, error))?);
    let follows = SegmentHeader::decode(&bytes).is_ok_and(|header| header.follows);
    Ok(follows.then(|| format!("there is nothing in {name} yet, and what it follows is missing")))
}

/// The making of one segment; can run on any thread, one at a time.
#[derive(Debug)]
pub(crate) struct Preparation<D> {
    pub(crate) disk: D,
    pub(crate) disk_id: DiskId,
    pub(crate) number: u64,
    pub(crate) length: u64,
    /// Whether the log has another segment already.
    pub(crate) follows: bool,
    /// A released file of the same length to use instead of a new one.
    pub(crate) spare: Option<String>,
}

impl<D: Disk> Preparation<D> {
    /// Makes the segment and its name durable.
    ///
    /// A segment gets its name when its header is durable, so a named segment with an unreadable
    /// header is damaged, never half made.
    ///
    /// # Errors
    /// [`StorageError::Full`] or [`StorageError::Io`] when the system refuses.
    pub(crate) fn run(self) -> Result<Segment, StorageError> {
        let disk = &self.disk;
        let segment = Segment::new(self.number, self.length, BATCHES_START);
        let staged = if let Some(spare) = self.spare {
            // The file's old name must be gone for good before its old content is.
            disk.sync_directory().map_err(|error| refused(disk, "sync", "", error))?;
            spare
        } else {
            let staged = names::unfinished(&segment.name);
            create(disk, &staged, self.length)?;
            staged
        };
        // No part of its earlier use may look like a torn first batch.
        segment.write_first_pages(disk, (self.disk_id, self.follows), &staged, &ZEROS)?;
        disk.rename(&staged, &segment.name)
            .map_err(|error| refused(disk, "rename", &staged, error))?;
        disk.sync_directory().map_err(|error| refused(disk, "sync", "", error))?;
        Ok(segment)
    }
}
