//! How the files of a storage are laid out.

use crate::file::record::{BATCHES_START, PAGE_BYTES, round_up};

/// How a storage lays out its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Bytes of one log segment, rounded up to pages of 4096; a larger batch gets a segment of its
    /// own. Each replica needs room for two more segments than its log takes. Default: 16 MiB.
    pub segment_bytes: u64,
    /// Segments that are made ahead when the directory is opened, and kept: room beside the log's.
    /// Default: 0.
    ///
    /// A segment is filled with zeros before it is used, and while operations come in that slows
    /// them down. A log that is shortened at each checkpoint uses its own segments again; these are
    /// for the time before that.
    pub spare_segments: u32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, spare_segments: 0 }
    }
}

impl StoreOptions {
    /// The same with segments of `segment_bytes` bytes, at least 16 KiB.
    #[must_use]
    pub const fn with_segment_bytes(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }

    /// The same with `spare_segments` segments made ahead.
    #[must_use]
    pub const fn with_spare_segments(self, spare_segments: u32) -> Self {
        Self { spare_segments, ..self }
    }

    pub(crate) fn whole_pages(self) -> u64 {
        round_up(self.segment_bytes.max(4 * BATCHES_START), PAGE_BYTES)
    }

    pub(crate) fn spares(self) -> usize {
        usize::try_from(self.spare_segments).unwrap_or(usize::MAX)
    }
}
