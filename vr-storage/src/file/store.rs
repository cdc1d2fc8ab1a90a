//! The whole storage of one replica, synchronous: superblock and log over one disk.

use std::collections::BTreeMap;

use vr_core::{
    OpNumber, Recovered, StorageError, WriteBatch,
    model::{
        checkpoint::Draft,
        durable::{CheckpointId, Durability, Identity, Superblock, Trust},
        types::DiskId,
    },
    ports::storage::{Anchor, DamagedRange},
};

use crate::{
    disk::{Disk, LOCK_NAME, refused},
    file::{
        checkpoints::FileCheckpoints,
        damage::{Damage, SlotState},
        names::{self, FileName},
        options::StoreOptions,
        reader::StoreReader,
        record::Copy,
        scan::{Scan, scan},
        segment::{Preparation, Segment},
        superblock::{Copies, SuperblockFiles},
        wal::Wal,
    },
    identity,
};

/// Stable storage of one replica, on the calling thread.
///
/// [`FileStorage`](crate::file::FileStorage) runs one on a thread; a simulator runs one over a disk
/// of its own.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    superblock: SuperblockFiles<D>,
    checkpoint: OpNumber,
    wal: Wal<D>,
    poisoned: bool,
}

impl<D: Disk> Store<D> {
    /// Opens the directory, or formats it for `identity` when it is empty.
    ///
    /// Whose it is is checked before anything is changed. What an interrupted write left is cut
    /// off, and what is returned is durable. Damage whose place in the log is known is told, and
    /// left as it is until it is repaired. If it is not known what was lost, the superblock says
    /// so before the log is set aside; without a superblock the directory is formatted anew.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process has the directory; [`StorageError::Foreign`]
    /// when it, or a file in it, belongs to somebody else; [`StorageError::Version`] when another
    /// version wrote it; [`StorageError::Full`] and [`StorageError::Io`] when the system refuses.
    pub fn open(
        disk: D,
        identity: &Identity,
        options: StoreOptions,
    ) -> Result<(Recovered, Self), StorageError> {
        let locked = disk.try_lock().map_err(|error| refused(&disk, "lock", LOCK_NAME, error))?;
        if !locked {
            return Err(StorageError::InUse { path: disk.path() });
        }
        let files = Files::list(&disk)?;
        files.require_known(&disk)?;
        let copies = Copies::read(&disk)?;
        let Some((update, superblock)) = copies.newest(&disk)? else {
            let is_new = copies.are_absent() && files.segments.is_empty();
            return Self::format(disk, identity, options, &files, is_new);
        };
        identity::check(&disk.path(), superblock, identity)?;
        let mut lost = None;
        let mut scanned = Scan::empty(checkpoint_of(superblock), files.last_number());
        if is_evidence(superblock) {
            match scan_log(&disk, &files, superblock) {
                // A replica that gave up its group has formatted its disk: the log is that of its
                // former life, and it is not missed.
                Err(StorageError::Foreign { .. }) if superblock.certificate.is_none() => {
                    files.set_aside(&disk)?;
                }
                found => scanned = found?,
            }
            lost = scanned.lost.take();
            if files.segments.is_empty() && update > 1 {
                lost = Some("all its files are missing".to_owned());
            }
        }
        let bad_checkpoint = checkpoint_problem(&disk, superblock)?;
        files.clean_up(&disk, options.whole_pages())?;
        let mut superblock = superblock.clone();
        let mut superblocks = SuperblockFiles::adopt(disk.clone(), &copies, update, &superblock)?;
        if let Some(reason) = bad_checkpoint {
            tracing::error!(%reason, "the checkpoint is lost");
            superblock.checkpoint = Superblock::blank(identity).checkpoint;
            if superblock.trust == Trust::Intact {
                lost.get_or_insert(reason);
            } else {
                superblocks.write(&superblock)?;
            }
        }
        if lost.is_some() {
            // A replica that never was part of a group has nothing to lose.
            if superblock.certificate.is_some() {
                superblock.trust = Trust::Lost;
                superblocks.write(&superblock)?;
            }
            files.set_aside(&disk)?;
        } else if !is_evidence(&superblock) {
            files.drop_log(&disk)?;
        }
        if lost.is_some() || !is_evidence(&superblock) {
            scanned = Scan::empty(checkpoint_of(&superblock), files.last_number());
        }
        Self::with_log(disk, superblocks, superblock, scanned, options, &files, lost)
    }

    /// Makes `batch` durable: its log part, then its superblock, then its release.
    ///
    /// The log part is all or nothing after a crash.
    ///
    /// # Errors
    /// [`StorageError::Full`] when the disk is full: earlier batches are safe. Otherwise what the
    /// system says. After any error every later call returns [`StorageError::Poisoned`], because
    /// what is on disk is unknown then.
    pub fn write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.guard(|store| store.write_parts(batch))
    }

    /// Notes, without a sync, that everything written so far is synced.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn mark_idle(&mut self) -> Result<(), StorageError> {
        self.guard(|store| store.wal.mark_idle())
    }

    /// Makes the next log segment now if it will be needed soon; true if one was made.
    ///
    /// Without this call it is made when it is needed, which takes longer than a write should.
    ///
    /// # Errors
    /// As [`write`](Self::write); a failure to make the segment is not one.
    pub fn prepare_ahead(&mut self) -> Result<bool, StorageError> {
        let Some(preparation) = self.preparation() else { return Ok(false) };
        let outcome = preparation.run();
        let made = outcome.is_ok();
        self.prepared(outcome)?;
        Ok(made)
    }

    /// A way to read entries, concurrently with writes.
    #[must_use]
    pub fn reader(&self) -> StoreReader<D> {
        self.wal.reader()
    }

    /// The checkpoints in the directory, on a disk that takes its time.
    #[must_use]
    pub fn checkpoints(&self) -> FileCheckpoints<D> {
        FileCheckpoints::new(self.disk.clone(), false)
    }

    /// The last op of the log; the checkpoint's when the log is empty.
    #[must_use]
    pub const fn op_number(&self) -> OpNumber {
        self.wal.head().op_number
    }

    /// As [`Wal::preparation`]; none once poisoned.
    pub(crate) fn preparation(&mut self) -> Option<Preparation<D>> {
        if self.poisoned { None } else { self.wal.preparation() }
    }

    /// As [`Wal::prepared`].
    pub(crate) fn prepared(
        &mut self,
        outcome: Result<Segment, StorageError>,
    ) -> Result<(), StorageError> {
        self.guard(|store| store.wal.prepared(outcome))
    }

    fn guard(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if self.poisoned {
            return Err(StorageError::Poisoned);
        }
        let outcome = action(self);
        self.poisoned = outcome.is_err();
        outcome
    }

    fn write_parts(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        if batch.cut.is_some() || !batch.entries.is_empty() {
            self.wal.write(batch.cut, &batch.entries().collect::<Vec<_>>())?;
        }
        self.wal.repair(&batch.repairs)?;
        if let Some(superblock) = &batch.superblock {
            self.superblock.write(superblock)?;
            self.wal.set_checkpoint(checkpoint_of(superblock));
            self.checkpoint = superblock.checkpoint.op_number;
        }
        if let Some(through) = batch.release {
            self.wal.release(through.min(self.checkpoint))?;
        }
        Ok(())
    }

    fn format(
        disk: D,
        identity: &Identity,
        options: StoreOptions,
        files: &Files,
        is_new: bool,
    ) -> Result<(Recovered, Self), StorageError> {
        files.clean_up(&disk, options.whole_pages())?;
        files.set_aside(&disk)?;
        let superblock = Superblock::blank(identity);
        let superblocks = SuperblockFiles::format(disk.clone(), &superblock)?;
        let scanned = Scan::empty(checkpoint_of(&superblock), files.last_number());
        let lost = (!is_new).then(|| "no copy of the superblock can be read".to_owned());
        Self::with_log(disk, superblocks, superblock, scanned, options, files, lost)
    }

    fn with_log(
        disk: D,
        superblocks: SuperblockFiles<D>,
        superblock: Superblock,
        mut scanned: Scan,
        options: StoreOptions,
        files: &Files,
        set_aside: Option<String>,
    ) -> Result<(Recovered, Self), StorageError> {
        let recovered = Recovered {
            headers: core::mem::take(&mut scanned.headers),
            torn_bytes: scanned.torn_bytes(),
            damaged: core::mem::take(&mut scanned.damaged),
            superblock,
            set_aside,
        };
        warn_of_damage(&recovered, &scanned);
        let checkpoint = checkpoint_of(&recovered.superblock);
        let spares = files.spares_of(options.whole_pages()).collect();
        let disk_id: DiskId = recovered.superblock.disk;
        let wal = Wal::open(disk.clone(), disk_id, checkpoint, options, scanned, spares)?;
        let checkpoint = checkpoint.op_number;
        Ok((recovered, Self { disk, superblock: superblocks, checkpoint, wal, poisoned: false }))
    }

    /// Where it is.
    pub fn path(&self) -> std::path::PathBuf {
        self.disk.path()
    }
}

/// What the log above the superblock's checkpoint follows.
pub(crate) const fn checkpoint_of(superblock: &Superblock) -> Anchor {
    Anchor { op_number: superblock.checkpoint.op_number, checksum: superblock.checkpoint.checksum }
}

/// Whether the log counts for anything. The log of a replica that lost its own is what an
/// installation left that never came to its end.
fn is_evidence(superblock: &Superblock) -> bool {
    superblock.trust == Trust::Intact || superblock.durability != Durability::Full
}

/// What is wrong with the checkpoint that the log starts after. The one of a replica that is part of
/// no group does not matter: it starts from nothing.
pub(crate) fn checkpoint_problem<D: Disk>(
    disk: &D,
    superblock: &Superblock,
) -> Result<Option<String>, StorageError> {
    let id = &superblock.checkpoint;
    if superblock.certificate.is_none() || id.op_number == OpNumber::ZERO {
        return Ok(None);
    }
    FileCheckpoints::new(disk.clone(), false).problem(id)
}

fn scan_log<D: Disk>(
    disk: &D,
    files: &Files,
    superblock: &Superblock,
) -> Result<Scan, StorageError> {
    let checkpoint = checkpoint_of(superblock);
    let mut scanned = scan(disk, &files.segments, superblock.disk, checkpoint, &mut |_| {})?;
    scanned.last_number = files.last_number();
    Ok(scanned)
}

fn warn_of_damage(recovered: &Recovered, scanned: &Scan) {
    if recovered.torn_bytes > 0 {
        tracing::warn!(bytes = recovered.torn_bytes, "torn tail of the log cut off");
    }
    let corrupt = |damage: &&Damage| damage.state == SlotState::Corrupt;
    for Damage { file, at, what, .. } in scanned.damage.iter().filter(corrupt) {
        tracing::warn!(%file, at, %what, "the log is damaged");
    }
    for DamagedRange { first, through } in &recovered.damaged {
        tracing::warn!(%first, through = %through.op_number, "these ops have to be repaired");
    }
    if let Some(reason) = &recovered.set_aside {
        tracing::error!(%reason, "the log is lost; what is left of it was set aside");
    }
}

/// The files of a directory, sorted by what they are.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Number and length of each segment, ascending.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Number and length of each released segment.
    pub(crate) spares: Vec<(u64, u64)>,
    /// Numbers of the segments of an older log.
    pub(crate) set_aside: Vec<u64>,
    /// What a crash left half created, parts of checkpoints included.
    pub(crate) unfinished: Vec<String>,
    /// Complete checkpoints, with the bytes of their chunks.
    pub(crate) checkpoints: Vec<(CheckpointId, u64)>,
    /// Files of checkpoints that are being fetched.
    pub(crate) arriving: Vec<String>,
    /// What is not ours.
    pub(crate) unknown: Vec<String>,
}

impl Files {
    pub(crate) fn list<D: Disk>(disk: &D) -> Result<Self, StorageError> {
        let mut files = Self::default();
        let names = disk.list().map_err(|error| refused(disk, "list", "", error))?;
        let (mut manifests, mut chunks) = (BTreeMap::new(), BTreeMap::new());
        for (name, length) in names {
            match FileName::of(&name) {
                FileName::Segment(number) => files.segments.push((number, length)),
                FileName::Spare(number) => files.spares.push((number, length)),
                FileName::SetAside(number) => files.set_aside.push(number),
                FileName::Manifest(id) => drop(manifests.insert(id, name)),
                FileName::Chunks(id) => drop(chunks.insert(id, (name, length))),
                FileName::Draft(Draft::Of(_)) => files.arriving.push(name),
                FileName::Draft(Draft::Own(_)) | FileName::Unfinished => {
                    files.unfinished.push(name);
                }
                FileName::Unknown => files.unknown.push(name),
                FileName::Superblock(Copy::A | Copy::B) | FileName::Lock | FileName::Hidden => {}
            }
        }
        files.segments.sort_unstable();
        for (id, (name, length)) in chunks {
            match manifests.remove(&id) {
                Some(_) => files.checkpoints.push((id, length)),
                None => files.unfinished.push(name),
            }
        }
        files.unfinished.extend(manifests.into_values());
        Ok(files)
    }

    /// Refuses a directory in which there is something that is not this storage's.
    pub(crate) fn require_known<D: Disk>(&self, disk: &D) -> Result<(), StorageError> {
        let Some(name) = self.unknown.first() else { return Ok(()) };
        Err(StorageError::Foreign {
            path: disk.path().join(name),
            found: "something else (move it away, or choose another directory)".to_owned(),
            expected: "this storage".to_owned(),
        })
    }

    /// The largest number that any segment here has or had.
    fn last_number(&self) -> u64 {
        let files = self.segments.iter().chain(&self.spares).map(|(number, _)| *number);
        files.chain(self.set_aside.iter().copied()).max().unwrap_or(0)
    }

    /// Gives the segments names under which nothing reads them any more, in the place of those that
    /// were set aside before.
    fn set_aside<D: Disk>(&self, disk: &D) -> Result<(), StorageError> {
        if self.segments.is_empty() {
            return Ok(());
        }
        for number in &self.set_aside {
            let name = names::set_aside(*number);
            disk.remove(&name).map_err(|error| refused(disk, "remove", &name, error))?;
        }
        for (number, _) in &self.segments {
            let (name, aside) = (names::segment(*number), names::set_aside(*number));
            let renamed = disk.rename(&name, &aside);
            renamed.map_err(|error| refused(disk, "rename", &name, error))?;
        }
        disk.sync_directory().map_err(|error| refused(disk, "sync", "", error))
    }

    /// Removes all segments.
    fn drop_log<D: Disk>(&self, disk: &D) -> Result<(), StorageError> {
        for (number, _) in &self.segments {
            let name = names::segment(*number);
            disk.remove(&name).map_err(|error| refused(disk, "remove", &name, error))?;
        }
        disk.sync_directory().map_err(|error| refused(disk, "sync", "", error))
    }

    fn spares_of(&self, segment_bytes: u64) -> impl Iterator<Item = String> {
        let whole = self.spares.iter().filter(move |(_, length)| *length == segment_bytes);
        whole.map(|(number, _)| names::spare(*number))
    }

    /// Removes what a crash left half created, and spares of another length; makes the names of
    /// all other files durable, which a process that was killed may have failed to do.
    fn clean_up<D: Disk>(&self, disk: &D, segment_bytes: u64) -> Result<(), StorageError> {
        let odd = self.spares.iter().filter(|(_, length)| *length != segment_bytes);
        let odd = odd.map(|(number, _)| names::spare(*number));
        for name in odd.chain(self.unfinished.iter().cloned()) {
            disk.remove(&name).map_err(|error| refused(disk, "remove", &name, error))?;
        }
        disk.sync_directory().map_err(|error| refused(disk, "sync", "", error))
    }
}
