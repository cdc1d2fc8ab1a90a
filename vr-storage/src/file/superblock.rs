//! The superblock in its two files: one is always whole, and the newer whole one counts.

use std::io::IoSlice;

use vr_core::{StorageError, model::durable::Superblock};

use crate::{
    disk::{Disk, refused},
    file::{
        names,
        record::{
            Copy, DISK_VERSION, SECTOR_BYTES, SUPERBLOCK_BYTES, Unreadable, decode_superblock,
            encode_superblock, round_up,
        },
        segment::ZEROS,
    },
};

/// What one of the two files holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyState {
    /// There is no such file.
    Absent,
    /// The file does not verify.
    Damaged,
    /// The file was written by another version.
    Version(u32),
    /// The superblock as of this update.
    Whole(u64, Superblock),
}

impl CopyState {
    /// The update number; `None` unless the copy is whole.
    const fn update(&self) -> Option<u64> {
        match self {
            Self::Whole(update, _) => Some(*update),
            Self::Absent | Self::Damaged | Self::Version(_) => None,
        }
    }
}

/// Both copies as they were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copies {
    pub(crate) a: CopyState,
    pub(crate) b: CopyState,
}

impl Copies {
    /// Reads both files.
    ///
    /// # Errors
    /// [`StorageError::Io`] when the system refuses; damage is not an error here.
    pub(crate) fn read<D: Disk>(disk: &D) -> Result<Self, StorageError> {
        Ok(Self { a: read_copy(disk, Copy::A)?, b: read_copy(disk, Copy::B)? })
    }

    /// Whether neither file is there.
    pub(crate) fn are_absent(&self) -> bool {
        self.a == CopyState::Absent && self.b == CopyState::Absent
    }

    /// The newest whole copy, with its update number; `None` when no copy is whole.
    ///
    /// # Errors
    /// [`StorageError::Version`] when another version wrote what is there.
    pub(crate) fn newest<D: Disk>(
        &self,
        disk: &D,
    ) -> Result<Option<(u64, &Superblock)>, StorageError> {
        for (copy, state) in [(Copy::A, &self.a), (Copy::B, &self.b)] {
            if let CopyState::Version(found) = state {
                let path = disk.path().join(names::superblock(copy));
                return Err(StorageError::Version { path, found: *found, supported: DISK_VERSION });
            }
        }
        let newest = if self.a.update() >= self.b.update() { &self.a } else { &self.b };
        Ok(match newest {
            CopyState::Whole(update, superblock) => Some((*update, superblock)),
            CopyState::Absent | CopyState::Damaged | CopyState::Version(_) => None,
        })
    }

    /// Whether `copy` is the one that [`newest`](Self::newest) returns, or as new.
    fn is_newest(&self, copy: Copy, newest: u64) -> bool {
        self.of(copy).update() == Some(newest)
    }

    fn of(&self, copy: Copy) -> &CopyState {
        match copy {
            Copy::A => &self.a,
            Copy::B => &self.b,
        }
    }
}

fn read_copy<D: Disk>(disk: &D, copy: Copy) -> Result<CopyState, StorageError> {
    let name = names::superblock(copy);
    let mut bytes = vec![0; usize::try_from(SUPERBLOCK_BYTES).unwrap_or_default()];
    match disk.read_at(name, 0, &mut bytes) {
        Ok(read) => bytes.truncate(read),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(CopyState::Absent),
        Err(error) => return Err(refused(disk, "read", name, error)),
    }
    Ok(match decode_superblock(copy, &bytes) {
        Ok((update, superblock)) => CopyState::Whole(update, superblock),
        Err(Unreadable::Damaged) => CopyState::Damaged,
        Err(Unreadable::Version(found)) => CopyState::Version(found),
    })
}

/// The one writer of both files.
#[derive(Debug)]
pub(crate) struct SuperblockFiles<D> {
    disk: D,
    update: u64,
}

impl<D: Disk> SuperblockFiles<D> {
    /// Writes `superblock` as the first update of a new directory.
    ///
    /// Each file gets its name when its content is durable, so a file with this name that does not
    /// verify is damaged, never half made.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn format(disk: D, superblock: &Superblock) -> Result<Self, StorageError> {
        let files = Self { disk, update: 1 };
        for copy in [Copy::A, Copy::B] {
            files.create(copy, superblock)?;
        }
        Ok(files)
    }

    /// Takes over what was found, and makes both copies whole, equal and durable.
    ///
    /// The newest copy is written again first: it may have been read from the system's memory
    /// only. The other one is whole on disk until then.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn adopt(
        disk: D,
        copies: &Copies,
        update: u64,
        superblock: &Superblock,
    ) -> Result<Self, StorageError> {
        let files = Self { disk, update };
        let order = match (copies.is_newest(Copy::A, update), copies.is_newest(Copy::B, update)) {
            (true, false) => [Copy::A, Copy::B],
            (true | false, true) | (false, false) => [Copy::B, Copy::A],
        };
        for copy in order {
            if *copies.of(copy) == CopyState::Absent {
                files.create(copy, superblock)?;
            } else {
                files.write_copy(copy, names::superblock(copy), superblock)?;
            }
        }
        Ok(files)
    }

    /// Replaces the superblock; counts once both copies are written and synced.
    ///
    /// # Errors
    /// What the system says; which of both counts is unknown then.
    pub(crate) fn write(&mut self, superblock: &Superblock) -> Result<(), StorageError> {
        self.update = self.update.saturating_add(1);
        for copy in [Copy::A, Copy::B] {
            self.write_copy(copy, names::superblock(copy), superblock)?;
        }
        Ok(())
    }

    fn create(&self, copy: Copy, superblock: &Superblock) -> Result<(), StorageError> {
        let name = names::superblock(copy);
        let staged = names::unfinished(name);
        self.disk
            .create(&staged, SUPERBLOCK_BYTES)
            .map_err(|error| refused(&self.disk, "create", &staged, error))?;
        self.write_copy(copy, &staged, superblock)?;
        self.disk
            .rename(&staged, name)
            .map_err(|error| refused(&self.disk, "rename", &staged, error))?;
        self.disk.sync_directory().map_err(|error| refused(&self.disk, "sync", "", error))
    }

    fn write_copy(
        &self,
        copy: Copy,
        name: &str,
        superblock: &Superblock,
    ) -> Result<(), StorageError> {
        let bytes = encode_superblock(copy, self.update, superblock).ok_or_else(|| {
            let reason = format!("the superblock is larger than {SUPERBLOCK_BYTES} bytes");
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, reason);
            refused(&self.disk, "write", name, source)
        })?;
        let length = crate::disk::byte_count(bytes.len());
        let padding = usize::try_from(round_up(length, SECTOR_BYTES) - length).unwrap_or(0);
        let padding = ZEROS.get(..padding).unwrap_or_default();
        self.disk
            .write_at(name, 0, &[IoSlice::new(&bytes), IoSlice::new(padding)])
            .map_err(|error| refused(&self.disk, "write", name, error))?;
        self.disk.sync(name).map_err(|error| refused(&self.disk, "sync", name, error))
    }
}
