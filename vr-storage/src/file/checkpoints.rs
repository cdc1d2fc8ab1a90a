//! Checkpoints in files: the chunks of each in one, and a manifest that says they are complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, BufMut, Bytes};
use vr_core::{
    Checkpoints, StorageError,
    model::{
        checkpoint::{CHUNK_BYTES, Draft, Manifest},
        durable::CheckpointId,
        types::{Checksum, OpNumber},
    },
};

use crate::{
    disk::{Disk, byte_count, refused},
    file::{
        names::{self, FileName},
        record::DISK_VERSION,
    },
};

const MANIFEST_MAGIC: [u8; 8] = *b"vrcheckp";

/// Bytes of a manifest file before the manifest.
const HEADER_BYTES: usize = 72;

/// Bytes of chunks of one checkpoint that may wait to reach the disk. Without it a checkpoint of gigabytes leaves for
/// the disk at once, and every write of the log waits behind it.
const UNSYNCED_BYTES_MAX: u64 = 4 << 20;

/// The checkpoints in a directory; the replica's log may be there, too.
///
/// A chunk is where its index says, in a file of all chunks. A checkpoint is complete when there
/// is a manifest, which gets its name when everything is durable.
#[derive(Debug)]
pub struct FileCheckpoints<D> {
    disk: D,
    is_quick: bool,
    changes: Mutex<Changes>,
    /// The manifest that was read last.
    last_read: Mutex<Option<(CheckpointId, Arc<Manifest>)>>,
}

/// What only one thread does at a time.
#[derive(Debug, Default)]
struct Changes {
    /// Something failed, so what is on disk is unknown.
    poisoned: bool,
    /// Drafts in which nothing counts that was written before this process, and the bytes of chunks
    /// written to each since it was synced last: one is taken while another is fetched.
    begun: BTreeMap<Draft, u64>,
}

/// A chunk that is somewhere: the file, and where in it.
type Source = (Arc<str>, u32);

impl<D: Disk> FileCheckpoints<D> {
    /// The checkpoints on `disk`, whose directory belongs to this process. They say that they are
    /// quick if `is_quick`: for a disk in memory.
    #[must_use]
    pub fn new(disk: D, is_quick: bool) -> Self {
        let (changes, last_read) = (Mutex::default(), Mutex::default());
        Self { disk, is_quick, changes, last_read }
    }

    fn change<T>(
        &self,
        action: impl FnOnce(&mut Changes) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut changes = lock(&self.changes);
        if changes.poisoned {
            return Err(StorageError::Poisoned);
        }
        let outcome = action(&mut changes);
        changes.poisoned = match &outcome {
            Ok(_) | Err(StorageError::Corrupt { .. } | StorageError::Missing { .. }) => false,
            Err(_) => true,
        };
        outcome
    }

    fn length_of(&self, name: &str) -> Result<Option<u64>, StorageError> {
        let files = self.disk.list().map_err(|error| refused(&self.disk, "list", "", error))?;
        Ok(files.into_iter().find(|(file, _)| file == name).map(|(_, length)| length))
    }

    fn create(&self, name: &str, length: u64) -> Result<(), StorageError> {
        let created = self.disk.create(name, length);
        created.map_err(|error| refused(&self.disk, "create", name, error))
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let written = self.disk.write_at(name, offset, &[IoSlice::new(bytes)]);
        written.map_err(|error| refused(&self.disk, "write", name, error))
    }

    /// Writes a chunk of a draft, and lets it reach the disk when enough of them wait.
    fn write_chunk(
        &self,
        changes: &mut Changes,
        draft: &Draft,
        index: u32,
        chunk: &[u8],
    ) -> Result<(), StorageError> {
        let name = names::draft(draft);
        self.write(&name, place(index), chunk)?;
        let unsynced_bytes = changes.begun.entry(*draft).or_default();
        *unsynced_bytes += byte_count(chunk.len());
        if *unsynced_bytes < UNSYNCED_BYTES_MAX {
            return Ok(());
        }
        *unsynced_bytes = 0;
        self.sync(&name)
    }

    fn sync(&self, name: &str) -> Result<(), StorageError> {
        self.disk.sync(name).map_err(|error| refused(&self.disk, "sync", name, error))
    }

    fn sync_directory(&self) -> Result<(), StorageError> {
        self.disk.sync_directory().map_err(|error| refused(&self.disk, "sync", "", error))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let renamed = self.disk.rename(from, to);
        renamed.map_err(|error| refused(&self.disk, "rename", from, error))
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.disk.remove(name).map_err(|error| refused(&self.disk, "remove", name, error))
    }

    /// Makes the draft's file unless it is there.
    fn begin(&self, changes: &mut Changes, draft: &Draft, name: &str) -> Result<(), StorageError> {
        let own = matches!(draft, Draft::Own(_));
        let starts_anew = own && !changes.begun.contains_key(draft);
        changes.begun.entry(*draft).or_default();
        if starts_anew || read(&self.disk, name, 0, 1)?.is_none() {
            self.create(name, 0)?;
        }
        Ok(())
    }

    /// Where chunks are, by what is in them; as far as they are in another file than `except`.
    fn known_chunks(&self, except: &str) -> Result<BTreeMap<Checksum, Source>, StorageError> {
        let mut known = BTreeMap::new();
        let files = self.disk.list().map_err(|error| refused(&self.disk, "list", "", error))?;
        for (name, length) in files.into_iter().filter(|(name, _)| name != except) {
            let kind = FileName::of(&name);
            let file: Arc<str> = name.into();
            match kind {
                FileName::Chunks(id) => {
                    let Ok(manifest) = self.manifest(&id) else { continue };
                    for (index, checksum) in (0..).zip(&manifest.chunks) {
                        known.entry(*checksum).or_insert_with(|| (Arc::clone(&file), index));
                    }
                }
                FileName::Draft(_) => {
                    let count = u32::try_from(Manifest::count_of(length)).unwrap_or(u32::MAX);
                    for index in 0..count {
                        let Some(chunk) = read_chunk(&self.disk, &file, index, CHUNK_BYTES)? else {
                            break;
                        };
                        known
                            .entry(Checksum::of(&chunk))
                            .or_insert_with(|| (Arc::clone(&file), index));
                    }
                }
                FileName::Lock
                | FileName::Superblock(_)
                | FileName::Segment(_)
                | FileName::Spare(_)
                | FileName::SetAside(_)
                | FileName::Manifest(_)
                | FileName::Unfinished
                | FileName::Hidden
                | FileName::Unknown => {}
            }
        }
        Ok(known)
    }

    /// The chunks of `manifest` that the draft's file lacks.
    ///
    /// What an earlier process wrote is written again: it may be in the system's memory only, also
    /// after a sync that failed, and no sync would change that.
    fn lacking(
        &self,
        changes: &mut Changes,
        draft: &Draft,
        manifest: &Manifest,
        is_older: bool,
    ) -> Result<Vec<u32>, StorageError> {
        let name = names::draft(draft);
        let mut lacking = Vec::new();
        for index in 0..manifest.count() {
            let chunk = read_chunk(&self.disk, &name, index, manifest.bytes_of(index))?;
            match chunk.filter(|chunk| manifest.holds(index, chunk)) {
                Some(chunk) if is_older => self.write_chunk(changes, draft, index, &chunk)?,
                Some(_) => {}
                None => lacking.push(index),
            }
        }
        Ok(lacking)
    }

    /// Takes what it can of `lacking` from other files; returns the rest.
    fn reuse(
        &self,
        changes: &mut Changes,
        draft: &Draft,
        manifest: &Manifest,
        lacking: Vec<u32>,
    ) -> Result<Vec<u32>, StorageError> {
        if lacking.is_empty() {
            return Ok(lacking);
        }
        let known = self.known_chunks(&names::draft(draft))?;
        let mut left = Vec::new();
        for index in lacking {
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let source = manifest.chunks.get(at).and_then(|checksum| known.get(checksum));
            let chunk = match source {
                Some((file, at)) => read_chunk(&self.disk, file, *at, manifest.bytes_of(index))?,
                None => None,
            };
            match chunk.filter(|chunk| manifest.holds(index, chunk)) {
                Some(chunk) => self.write_chunk(changes, draft, index, &chunk)?,
                None => left.push(index),
            }
        }
        Ok(left)
    }

    /// Makes the manifest durable, and gives the chunks and then the manifest their names.
    fn name(&self, draft: &str, id: &CheckpointId, whole: &Manifest) -> Result<(), StorageError> {
        let (chunks, manifest) = (names::chunks(id), names::manifest(id));
        let staged = names::unfinished(&manifest);
        let bytes = encode(id, whole);
        self.create(&staged, byte_count(bytes.len()))?;
        self.write(&staged, 0, &bytes)?;
        self.sync(&staged)?;
        self.rename(draft, &chunks)?;
        self.sync_directory()?;
        self.rename(&staged, &manifest)?;
        self.sync_directory()
    }

    /// Removes the complete checkpoints and the drafts that are not to be kept: manifests first,
    /// for good, so that no crash leaves one without its chunks.
    fn drop_others(
        &self,
        is_kept: impl Fn(&CheckpointId) -> bool,
        is_draft_kept: impl Fn(&Draft) -> bool,
    ) -> Result<(), StorageError> {
        let files = self.disk.list().map_err(|error| refused(&self.disk, "list", "", error))?;
        let (mut manifests, mut others) = (Vec::new(), Vec::new());
        for (name, _) in files {
            match FileName::of(&name) {
                FileName::Manifest(id) if !is_kept(&id) => manifests.push(name),
                FileName::Chunks(id) if !is_kept(&id) => others.push(name),
                FileName::Draft(draft) if !is_draft_kept(&draft) => others.push(name),
                FileName::Manifest(_)
                | FileName::Chunks(_)
                | FileName::Draft(_)
                | FileName::Lock
                | FileName::Superblock(_)
                | FileName::Segment(_)
                | FileName::Spare(_)
                | FileName::SetAside(_)
                | FileName::Unfinished
                | FileName::Hidden
                | FileName::Unknown => {}
            }
        }
        if !manifests.is_empty() {
            manifests.iter().try_for_each(|name| self.remove(name))?;
            self.sync_directory()?;
        }
        others.iter().try_for_each(|name| self.remove(name))
    }

    fn read_manifest(&self, id: &CheckpointId) -> Result<Arc<Manifest>, StorageError> {
        let mut last_read = lock(&self.last_read);
        if let Some((_, manifest)) = last_read.as_ref().filter(|(last, _)| last == id) {
            return Ok(Arc::clone(manifest));
        }
        let name = names::manifest(id);
        let Some(length) = self.length_of(&name)? else { return Err(missing(id)) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(bytes) = read(&self.disk, &name, 0, length)? else { return Err(missing(id)) };
        let path = self.disk.path().join(&name);
        let manifest = match decode(id, &bytes) {
            Ok(manifest) => Arc::new(manifest),
            Err(Unusable::Version(found)) => {
                return Err(StorageError::Version { path, found, supported: DISK_VERSION });
            }
            Err(Unusable::Damaged) => {
                let what = format!("the manifest of the checkpoint after op {}", id.op_number);
                return Err(StorageError::Corrupt { what, path, at: 0 });
            }
        };
        *last_read = Some((*id, Arc::clone(&manifest)));
        Ok(manifest)
    }

    fn damaged_chunk(&self, id: &CheckpointId, index: u32) -> StorageError {
        let what = format!("chunk {index} of the checkpoint after op {}", id.op_number);
        let path = self.disk.path().join(names::chunks(id));
        StorageError::Corrupt { what, path, at: place(index) }
    }

    /// Checks that the checkpoint is complete, down to every chunk; in words, what is wrong.
    ///
    /// # Errors
    /// [`StorageError::Version`] when another version wrote it; [`StorageError::Io`] when the
    /// system refuses.
    pub(crate) fn problem(&self, id: &CheckpointId) -> Result<Option<String>, StorageError> {
        let checked = self.read_manifest(id).and_then(|manifest| {
            (0..manifest.count()).try_for_each(|index| self.chunk(id, index).map(drop))
        });
        let op_number = id.op_number;
        Ok(match checked {
            Ok(()) => None,
            Err(StorageError::Missing { .. }) => {
                Some(format!("the checkpoint after op {op_number} is missing"))
            }
            Err(StorageError::Corrupt { what, path, at }) => {
                Some(format!("{what} is damaged at byte {at} of {}", path.display()))
            }
            Err(error) => return Err(error),
        })
    }
}

impl<D: Disk> Checkpoints for FileCheckpoints<D> {
    fn put(&self, draft: &Draft, index: u32, chunk: &[u8]) -> Result<(), StorageError> {
        let name = names::draft(draft);
        self.change(|changes| {
            self.begin(changes, draft, &name)?;
            self.write_chunk(changes, draft, index, chunk)
        })
    }

    fn missing(&self, draft: &Draft, manifest: &Manifest) -> Result<Vec<u32>, StorageError> {
        let name = names::draft(draft);
        self.change(|changes| {
            let is_older = !changes.begun.contains_key(draft);
            self.begin(changes, draft, &name)?;
            let lacking = self.lacking(changes, draft, manifest, is_older)?;
            self.reuse(changes, draft, manifest, lacking)
        })
    }

    fn complete(
        &self,
        draft: &Draft,
        id: &CheckpointId,
        manifest: &Manifest,
    ) -> Result<(), StorageError> {
        let name = names::draft(draft);
        self.change(|changes| {
            let is_older = !changes.begun.contains_key(draft);
            self.begin(changes, draft, &name)?;
            let lacking = self.lacking(changes, draft, manifest, is_older)?;
            if let Some(index) = lacking.first() {
                let what = format!("chunk {index} of a checkpoint that is said to be whole");
                let path = self.disk.path().join(&name);
                return Err(StorageError::Corrupt { what, path, at: place(*index) });
            }
            self.sync(&name)?;
            self.name(&name, id, manifest)?;
            changes.begun.remove(draft);
            *lock(&self.last_read) = None;
            Ok(())
        })
    }

    fn manifest(&self, id: &CheckpointId) -> Result<Manifest, StorageError> {
        self.read_manifest(id).map(|manifest| manifest.as_ref().clone())
    }

    fn chunk(&self, id: &CheckpointId, index: u32) -> Result<Bytes, StorageError> {
        let manifest = self.read_manifest(id)?;
        if index >= manifest.count() {
            return Err(missing(id));
        }
        let chunk = read_chunk(&self.disk, &names::chunks(id), index, manifest.bytes_of(index))?;
        let Some(chunk) = chunk else { return Err(missing(id)) };
        if !manifest.holds(index, &chunk) {
            return Err(self.damaged_chunk(id, index));
        }
        Ok(chunk.into())
    }

    fn keep(&self, wanted: &[CheckpointId], through: OpNumber) -> Result<(), StorageError> {
        let wanted: BTreeSet<CheckpointId> = wanted.iter().copied().collect();
        let is_draft_kept = |draft: &Draft| match draft {
            Draft::Own(_) => true,
            Draft::Of(id) => wanted.contains(id),
        };
        self.change(|changes| {
            changes.begun.retain(|draft, _| is_draft_kept(draft));
            *lock(&self.last_read) = None;
            let is_kept = |id: &CheckpointId| id.op_number > through || wanted.contains(id);
            self.drop_others(is_kept, is_draft_kept)
        })
    }

    fn is_quick(&self) -> bool {
        self.is_quick
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the chunk at `index` starts.
fn place(index: u32) -> u64 {
    u64::from(index) * u64::from(CHUNK_BYTES)
}

/// The error for a checkpoint that is not there.
const fn missing(id: &CheckpointId) -> StorageError {
    StorageError::Missing { op_number: id.op_number }
}

/// Up to `length` bytes at `offset`; `None` when there is no such file.
fn read<D: Disk>(
    disk: &D,
    name: &str,
    offset: u64,
    length: usize,
) -> Result<Option<Vec<u8>>, StorageError> {
    let mut bytes = vec![0; length];
    match disk.read_at(name, offset, &mut bytes) {
        Ok(count) => bytes.truncate(count),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(disk, "read", name, error)),
    }
    Ok(Some(bytes))
}

fn read_chunk<D: Disk>(
    disk: &D,
    name: &str,
    index: u32,
    length: u32,
) -> Result<Option<Vec<u8>>, StorageError> {
    read(disk, name, place(index), usize::try_from(length).unwrap_or(usize::MAX))
}

/// Why a manifest file cannot be used.
enum Unusable {
    /// The bytes are not what was written.
    Damaged,
    /// The bytes are whole, and of another format version.
    Version(u32),
}

/// A checksum of the rest; magic, version, padding, whose manifest it is, and the manifest.
fn encode(id: &CheckpointId, manifest: &Manifest) -> Vec<u8> {
    let manifest = manifest.to_bytes();
    let mut rest = Vec::with_capacity(HEADER_BYTES + manifest.len());
    rest.put_slice(&MANIFEST_MAGIC);
    rest.put_u32_le(DISK_VERSION);
    rest.put_u32_le(0);
    rest.put_u64_le(id.op_number.0);
    rest.put_u128_le(id.checksum.0);
    rest.put_u128_le(id.digest.0);
    rest.put_slice(&manifest);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + manifest.len());
    bytes.put_u128_le(Checksum::of(&rest).0);
    bytes.put_slice(&rest);
    bytes
}

fn decode(id: &CheckpointId, mut bytes: &[u8]) -> Result<Manifest, Unusable> {
    if bytes.len() < HEADER_BYTES || Checksum(bytes.get_u128_le()) != Checksum::of(bytes) {
        return Err(Unusable::Damaged);
    }
    if bytes.get(..MANIFEST_MAGIC.len()) != Some(&MANIFEST_MAGIC) {
        return Err(Unusable::Damaged);
    }
    bytes.advance(MANIFEST_MAGIC.len());
    let version = bytes.get_u32_le();
    if version != DISK_VERSION {
        return Err(Unusable::Version(version));
    }
    bytes.advance(4);
    let op_number = OpNumber(bytes.get_u64_le());
    let (checksum, digest) = (Checksum(bytes.get_u128_le()), Checksum(bytes.get_u128_le()));
    if *id != (CheckpointId { op_number, checksum, digest }) {
        return Err(Unusable::Damaged);
    }
    Manifest::of_bytes(bytes, digest).ok_or(Unusable::Damaged)
}
