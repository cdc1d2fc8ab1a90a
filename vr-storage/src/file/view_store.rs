//! Storage of a replica that keeps its log in memory: the superblock and nothing else.

use async_trait::async_trait;
use vr_core::{
    LogReader, OpNumber, Recovered, StorageError, WriteBatch,
    model::{
        durable::{Identity, Superblock},
        entry::Entry,
    },
};

use crate::{
    disk::{Disk, LOCK_NAME, refused},
    file::{
        store::Files,
        superblock::{Copies, SuperblockFiles},
    },
    identity,
};

/// Stable storage of a replica in [`Durability::ViewOnly`](vr_core::Durability::ViewOnly), on the calling thread.
///
/// It writes and syncs when the superblock changes, which is when a view does, and at no other
/// time.
#[derive(Debug)]
pub struct ViewStore<D> {
    disk: D,
    superblock: SuperblockFiles<D>,
    poisoned: bool,
}

impl<D: Disk> ViewStore<D> {
    /// Opens the directory, or formats it for `identity` when it is empty.
    ///
    /// When no copy of the superblock can be read, the promises in it are forgotten as if the disk
    /// had been wiped, and the directory is formatted: as another disk, which the group notices.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process has the directory; [`StorageError::Foreign`]
    /// when it belongs to another replica, group or mode; [`StorageError::Version`] when another
    /// version wrote it; [`StorageError::Full`] and [`StorageError::Io`] when the system refuses.
    pub fn open(disk: D, identity: &Identity) -> Result<(Recovered, Self), StorageError> {
        let locked = disk.try_lock().map_err(|error| refused(&disk, "lock", LOCK_NAME, error))?;
        if !locked {
            return Err(StorageError::InUse { path: disk.path() });
        }
        Files::list(&disk)?.require_known(&disk)?;
        let copies = Copies::read(&disk)?;
        let (superblock, files) = if let Some((update, superblock)) = copies.newest(&disk)? {
            identity::check(&disk.path(), superblock, identity)?;
            let files = SuperblockFiles::adopt(disk.clone(), &copies, update, superblock)?;
            (superblock.clone(), files)
        } else {
            if !copies.are_absent() {
                tracing::warn!(path = ?disk.path(), "no superblock can be read; formatted anew");
            }
            let superblock = Superblock::blank(identity);
            let files = SuperblockFiles::format(disk.clone(), &superblock)?;
            (superblock, files)
        };
        Ok((
            Recovered::whole(superblock, Vec::new()),
            Self { disk, superblock: files, poisoned: false },
        ))
    }

    /// Makes the superblock of `batch` durable.
    ///
    /// # Errors
    /// What the system says; after any error every later call returns
    /// [`StorageError::Poisoned`], because what is on disk is unknown then.
    ///
    /// # Panics
    /// If the batch has entries, which this storage does not keep.
    pub fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        assert!(batch.entries.is_empty(), "a log in memory is not given to storage");
        if self.poisoned {
            return Err(StorageError::Poisoned);
        }
        let Some(superblock) = &batch.superblock else { return Ok(()) };
        let outcome = self.superblock.write(superblock);
        self.poisoned = outcome.is_err();
        outcome
    }

    /// Where it is.
    pub fn path(&self) -> std::path::PathBuf {
        self.disk.path()
    }
}

/// Reads a log that is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

#[async_trait]
impl LogReader for NoLog {
    async fn entries(
        &self,
        from: OpNumber,
        _through: OpNumber,
        _bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        Err(StorageError::Missing { op_number: from })
    }
}
