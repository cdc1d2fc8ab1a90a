//! Where a replica keeps what it must not forget: one write path, nothing half done.

use core::fmt::Debug;
use std::{io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::{
    checkpoint::{Draft, Manifest},
    durable::{CheckpointId, Identity, Superblock},
    entry::{Entry, EntryHeader, Run},
    types::{Checksum, OpNumber},
};

/// Stable storage of one replica, before it is opened.
#[async_trait]
pub trait Storage: Send + 'static {
    /// Opens what is there, or formats it for `identity` when nothing is there: with
    /// [`Superblock::blank`], whose disk id stays whatever id later openings bring along.
    ///
    /// What is returned must be durable: the caller rests on it as on a write. What was read may be
    /// in the system's memory only, also after a sync that failed, and then no later sync changes
    /// that: at least the last batch has to be written again. What a crash in the middle of
    /// formatting or of a write left is mended here, once.
    ///
    /// # Errors
    /// [`StorageError::Foreign`] when it belongs to another replica, group, list of members or
    /// mode, which is checked before anything is changed; [`StorageError::InUse`] when another
    /// process has it open; [`StorageError::Io`] and [`StorageError::Full`] when the system
    /// refuses. Nothing is lost by any of them. Damage is no error where the storage can tell what
    /// is damaged: see [`Recovered`]. One that cannot refuses with [`StorageError::Corrupt`], and
    /// changes nothing.
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError>;
}

/// An opened storage.
#[derive(Debug)]
pub struct Opened {
    /// What was found.
    pub recovered: Recovered,
    /// The one way to write.
    pub writer: Box<dyn LogWriter>,
    /// The way to read, concurrently with writes.
    pub reader: Box<dyn LogReader>,
    /// Where checkpoints are kept. The one that the superblock names is complete; what else there
    /// is from an earlier start may be used or dropped.
    pub checkpoints: Arc<dyn Checkpoints>,
}

/// What was found when a storage was opened; bodies stay where they are until asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The newest valid superblock; blank right after formatting.
    pub superblock: Superblock,
    /// Headers of the log's entries above the checkpoint that verify, ascending. Contiguous and
    /// chained where nothing is damaged.
    pub headers: Vec<EntryHeader>,
    /// How many bytes of a torn, never acknowledged tail were cut off; zero the next time. Only
    /// the very last batch can be torn. What does not verify and has a younger batch behind it was
    /// synced once, and is damaged.
    pub torn_bytes: u64,
    /// Ops above the checkpoint whose entries were synced and do not verify any more, ascending
    /// and disjoint. They are part of the log, and may have been acknowledged.
    pub damaged: Vec<DamagedRange>,
    /// Why an older log was set aside, if one was: the superblock then says that the log is
    /// [`Lost`](crate::model::durable::Trust::Lost), or is blank.
    pub set_aside: Option<String>,
}

impl Recovered {
    /// A storage in which nothing is damaged or torn.
    #[must_use]
    pub const fn whole(superblock: Superblock, headers: Vec<EntryHeader>) -> Self {
        Self { superblock, headers, torn_bytes: 0, damaged: Vec::new(), set_aside: None }
    }

    /// The last op of the log, damaged or not; what the log follows when it is empty.
    #[must_use]
    pub fn head(&self) -> Anchor {
        let base = Anchor::after(&self.superblock.checkpoint);
        let header = self.headers.last().map_or(base, Anchor::of);
        let damaged = self.damaged.last().map_or(base, |range| range.through);
        if damaged.op_number >= header.op_number { damaged } else { header }
    }
}

/// Ops whose entries are damaged: from the first up to and including the last.
///
/// The header of an op in between may verify although its payload does not. Entries below the
/// range are as old as they seem unless the range hides a cut: only the chain of what belongs into
/// the range tells, so whoever fills it goes down by the parents' checksums until they meet a
/// header that is there. The same goes for the upper end of every range but the last: it is told by
/// the entry above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The first of them.
    pub first: OpNumber,
    /// The last of them, and which entry it must be.
    pub through: Anchor,
}

/// The one write path.
#[async_trait]
pub trait LogWriter: Debug + Send + 'static {
    /// Makes `batch` durable, behind every earlier one.
    ///
    /// Returns when everything in it would survive a crash of the process and of the machine; the
    /// caller acknowledges operations to other replicas on the strength of this. The log part is
    /// all or nothing after a crash; the superblock part becomes durable after the log part or not
    /// at all; the release comes last. One call is in flight at a time, and the future is never
    /// dropped while it is pending.
    ///
    /// # Errors
    /// [`StorageError::Io`] with [`io::ErrorKind::InvalidInput`]: the entries do not follow the
    /// log, or the one that is cut behind, by number and by parent's checksum; nothing was written.
    /// [`StorageError::Full`]: the disk is full. [`StorageError::Io`]: a write or a sync failed.
    /// After either, earlier batches are safe, this one may or may not be there, and every later
    /// call, also an empty one, returns [`StorageError::Poisoned`] until the storage is opened
    /// again. The node stops at any of them.
    ///
    /// # Source
    /// VRR §4.3, second paragraph: state recorded before messages are sent.
    async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError>;

    /// Notes, without a sync of its own, that everything written so far is synced.
    ///
    /// The node calls it when nothing was written for one heartbeat, so that damage to the last
    /// batch can be told from a torn write at the next open. The default does nothing.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn mark_idle(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// The read path; concurrent with writes.
#[async_trait]
pub trait LogReader: Debug + Send + Sync + 'static {
    /// Entries from `from` up to and including `through`, or up to the end of the log, ascending,
    /// as many as fit into `bytes_max` with their headers, at least one.
    ///
    /// Everything that a completed [`LogWriter::write`] put there is found. What was released may
    /// be.
    ///
    /// # Errors
    /// [`StorageError::Missing`] when `from` is not in the log or beyond `through`;
    /// [`StorageError::Corrupt`] when an entry is damaged; [`StorageError::Io`] when the system
    /// refuses.
    async fn entries(
        &self,
        from: OpNumber,
        through: OpNumber,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError>;
}

/// The checkpoints of one replica: complete ones, and drafts that become complete.
///
/// A method may block its thread for as long as the disk takes; the node calls none of them on its
/// own task unless [`is_quick`](Self::is_quick) says that it may. Calls come from several threads.
pub trait Checkpoints: Debug + Send + Sync + 'static {
    /// Puts the chunk at `index` into a draft, which is made if it is not there. Nothing of a draft
    /// counts before it is complete.
    ///
    /// # Errors
    /// [`StorageError::Full`] and [`StorageError::Io`] when the system refuses; the node stops.
    fn put(&self, draft: &Draft, index: u32, chunk: &[u8]) -> Result<(), StorageError>;

    /// Which chunks of `manifest` the draft lacks, ascending. A chunk that another draft or a
    /// complete checkpoint holds may be taken from there; one that does not verify is lacking.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn missing(&self, draft: &Draft, manifest: &Manifest) -> Result<Vec<u32>, StorageError>;

    /// All chunks of the draft were put: it becomes the complete checkpoint `id`. When this returns, it survives whatever the storage survives.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn complete(
        &self,
        draft: &Draft,
        id: &CheckpointId,
        manifest: &Manifest,
    ) -> Result<(), StorageError>;

    /// The manifest of a complete checkpoint.
    ///
    /// # Errors
    /// [`StorageError::Missing`] when it is not here, [`StorageError::Corrupt`] when it does not
    /// verify, [`StorageError::Io`] when the system refuses.
    fn manifest(&self, id: &CheckpointId) -> Result<Manifest, StorageError>;

    /// The chunk at `index` of a complete checkpoint, verified.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    fn chunk(&self, id: &CheckpointId, index: u32) -> Result<Bytes, StorageError>;

    /// Of the complete checkpoints up to and including `through`, and of the drafts of others', only
    /// `wanted` are needed from now on. Younger ones stay: whoever asks may not know of them yet.
    ///
    /// # Errors
    /// [`StorageError::Io`] when the system refuses.
    fn keep(&self, wanted: &[CheckpointId], through: OpNumber) -> Result<(), StorageError>;

    /// Whether all methods return so soon that they may be called between two messages.
    fn is_quick(&self) -> bool {
        false
    }
}

/// What moves to stable storage together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Replaces everything above this op by `entries`; `None` when they follow the last one, or
    /// the superblock's checkpoint when that is later. At the op of that checkpoint, the log begins
    /// anew after it: the entry that the log has there may be another one.
    pub cut: Option<OpNumber>,
    /// Entries in op order, each the parent of the next, in runs that are shared with the log in
    /// memory; none is empty. [`entries`](Self::entries) goes through all of them.
    pub entries: Vec<Run>,
    /// Entries in op order that take the place of those with the same ops in the log, which are
    /// damaged; nothing is cut, and those of ops that are not in the log any more are left out.
    /// Each is there after a crash, or what was there before.
    pub repairs: Vec<Entry>,
    /// The new superblock; becomes durable after the log part.
    pub superblock: Option<Superblock>,
    /// Entries up to and including this op, as far as the superblock's checkpoint, are not needed
    /// any more; may be carried out late, and those above the checkpoint stay.
    pub release: Option<OpNumber>,
    /// It waited while the batch before was written, and something may gather behind this one as
    /// well. Says nothing about what is written.
    pub gathered: bool,
}

impl WriteBatch {
    /// A batch that adds `entries`, as one run.
    #[must_use]
    pub fn of(entries: Vec<Entry>) -> Self {
        let run = Some(Run::from(entries)).filter(|run| !run.is_empty());
        Self { entries: run.into_iter().collect(), ..Self::default() }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cut.is_none()
            && self.entries.is_empty()
            && self.repairs.is_empty()
            && self.superblock.is_none()
            && self.release.is_none()
    }

    /// The entries of all runs, but not those that repair.
    #[must_use]
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + Clone {
        self.entries.iter().flat_map(|run| run.iter())
    }

    /// Bytes of the entries, those that repair included.
    #[must_use]
    pub fn entry_bytes(&self) -> u64 {
        let repairs: u64 = self.repairs.iter().map(Entry::bytes).sum();
        self.entries.iter().map(Run::bytes).sum::<u64>().saturating_add(repairs)
    }

    /// Whether `next` can become part of this batch without changing what a crash can leave.
    ///
    /// It cannot when this batch has a superblock and `next` touches the log: one batch writes its
    /// log part first, so the entries would come before the promise they rest on
    /// (PROTOCOL.md, NP4).
    #[must_use]
    pub const fn can_absorb(&self, next: &Self) -> bool {
        let touches_log =
            next.cut.is_some() || !next.entries.is_empty() || !next.repairs.is_empty();
        !(self.superblock.is_some() && touches_log)
    }

    /// Adds `next` behind this batch.
    ///
    /// # Panics
    /// If [`can_absorb`](Self::can_absorb) says no.
    pub fn absorb(&mut self, next: Self) {
        assert!(self.can_absorb(&next), "a log part never overtakes a superblock");
        if let Some(after) = next.cut {
            let kept = |run: &Run| run.partition_point(|entry| entry.header.op_number <= after);
            self.entries.iter_mut().for_each(|run| *run = run.part(0, kept(run)));
            self.entries.retain(|run| !run.is_empty());
            self.repairs.retain(|entry| entry.header.op_number <= after);
            if self.entries.is_empty() {
                self.cut = Some(self.cut.map_or(after, |earlier| earlier.min(after)));
            }
        }
        self.entries.extend(next.entries);
        self.repairs.extend(next.repairs);
        if next.superblock.is_some() {
            self.superblock = next.superblock;
        }
        self.release = self.release.max(next.release);
    }
}

/// Why storage failed. A node that meets one stops; the process lives.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The system refused.
    #[error("{action} {path:?}: {source}")]
    Io {
        /// What was attempted ("write", "sync", ..).
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No space is left.
    #[error("no space left while writing {path:?}; free some and start again")]
    Full {
        /// Which file.
        path: PathBuf,
    },
    /// Something that was synced does not verify.
    #[error("{what} is damaged at byte {at} of {path:?}; nothing was changed")]
    Corrupt {
        /// What was being read.
        what: String,
        /// Which file.
        path: PathBuf,
        /// Where in it.
        at: u64,
    },
    /// The storage belongs to somebody else.
    #[error("{path:?} belongs to {found}, not to {expected}; nothing was changed")]
    Foreign {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who opened it.
        expected: String,
    },
    /// The bytes were written by a version that this one cannot read.
    #[error("{path:?} has format version {found}; this build reads {supported}")]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that can be read.
        supported: u32,
    },
    /// Another process has the storage open.
    #[error("{path:?} is in use by another process; stop it, or choose another directory")]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// The op is not in the log.
    #[error("op {op_number} is not in the log")]
    Missing {
        /// Which op.
        op_number: OpNumber,
    },
    /// An earlier write or sync failed, so what is on disk is unknown.
    #[error("an earlier write or sync failed; restart to find out what is on disk")]
    Poisoned,
}

/// A place in a log and the entry that must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Anchor {
    /// The op.
    pub op_number: OpNumber,
    /// Checksum of its entry; of the group for op 0.
    pub checksum: Checksum,
}

impl Anchor {
    /// The place of an entry.
    #[must_use]
    pub const fn of(header: &EntryHeader) -> Self {
        Self { op_number: header.op_number, checksum: header.checksum }
    }

    /// The place that the log above a checkpoint follows.
    #[must_use]
    pub const fn after(checkpoint: &CheckpointId) -> Self {
        Self { op_number: checkpoint.op_number, checksum: checkpoint.checksum }
    }

    /// The place that an entry follows.
    #[must_use]
    pub fn below(header: &EntryHeader) -> Self {
        Self { op_number: header.op_number.previous(), checksum: header.parent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::{DiskId, GroupId};

    fn entry(op: u64) -> Entry {
        let header = EntryHeader { op_number: OpNumber(op), ..EntryHeader::default() };
        Entry { header, ..Entry::default() }
    }

    fn batch(cut: Option<u64>, ops: &[u64]) -> WriteBatch {
        let entries = ops.iter().map(|op| entry(*op)).collect();
        WriteBatch { cut: cut.map(OpNumber), ..WriteBatch::of(entries) }
    }

    fn ops(batch: &WriteBatch) -> Vec<u64> {
        batch.entries().map(|entry| entry.header.op_number.0).collect()
    }

    #[test]
    fn a_cut_inside_a_batch_drops_only_what_it_replaces() {
        let mut first = batch(None, &[5, 6, 7, 8]);
        first.absorb(batch(Some(6), &[7]));
        assert_eq!((first.cut, ops(&first)), (None, vec![5, 6, 7]));
    }

    #[test]
    fn a_cut_below_a_batch_becomes_the_cut_of_both() {
        let mut first = batch(Some(4), &[5, 6]);
        first.absorb(batch(Some(2), &[3]));
        assert_eq!((first.cut, ops(&first)), (Some(OpNumber(2)), vec![3]));
    }

    #[test]
    fn a_cut_takes_what_repaired_above_it_along() {
        let mut first = WriteBatch { repairs: vec![entry(2), entry(7)], ..WriteBatch::default() };
        first.absorb(batch(Some(6), &[7]));
        let repaired: Vec<_> = first.repairs.iter().map(|entry| entry.header.op_number.0).collect();
        assert_eq!((repaired, ops(&first)), (vec![2], vec![7]));
        assert!(!first.is_empty() && first.entry_bytes() == 2 * 128);
    }

    #[test]
    fn entries_never_overtake_a_promise() {
        let identity = Identity {
            group: GroupId(1),
            group_name: "g".into(),
            members: crate::model::membership::Members::local(1).unwrap().to_membership(),
            replica: crate::model::types::ReplicaId(0),
            durability: crate::model::durable::Durability::Full,
            fresh_disk: DiskId(1),
        };
        let promise =
            WriteBatch { superblock: Some(Superblock::blank(&identity)), ..WriteBatch::default() };
        assert!(!promise.can_absorb(&batch(None, &[1])));
        assert!(batch(None, &[1]).can_absorb(&promise));
        assert!(promise.can_absorb(&promise));
    }
}
