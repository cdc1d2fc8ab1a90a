//! Histories of writes, and what may be found after a crash in the middle of one.

use std::collections::BTreeMap;

use bytes::Bytes;
use vr_core::{
    Checkpoints, OpNumber, Recovered, ReplicaId, StorageError, View, WriteBatch,
    model::{
        certificate::Certificate,
        checkpoint::{Draft, Manifest},
        durable::{Durability, Identity, Superblock, Trust},
        entry::{Entry, EntryHeader, EntryKind},
        membership::Members,
        types::{Checksum, DiskId},
    },
    ports::storage::{Anchor, DamagedRange},
};
use vr_storage::{Store, StoreOptions};

use crate::faulty_disk::FaultyDisk;

pub(crate) fn identity() -> Identity {
    let members = Members::local(3).unwrap().to_membership();
    Identity {
        group: members.group_id("test"),
        group_name: "test".into(),
        members,
        replica: ReplicaId(1),
        durability: Durability::Full,
        fresh_disk: DiskId(0xd15c),
    }
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions::default().with_segment_bytes(16 << 10)
}

pub(crate) type Opening = Result<(Recovered, Store<FaultyDisk>), StorageError>;

pub(crate) fn open(disk: &FaultyDisk) -> Opening {
    Store::open(disk.clone(), &identity(), options())
}

/// The bytes of the checkpoint after an op, and what it consists of.
pub(crate) fn checkpoint_of(op_number: OpNumber) -> ([u8; 8], Manifest) {
    let chunk = op_number.0.to_le_bytes();
    (chunk, Manifest { bytes: 8, chunks: vec![Checksum::of(&chunk)] })
}

/// Writes as a replica does: the checkpoint that the superblock names comes before it, and the
/// others go afterwards.
pub(crate) fn write(store: &mut Store<FaultyDisk>, batch: &WriteBatch) -> Result<(), StorageError> {
    let named = batch.superblock.as_ref().map(|superblock| superblock.checkpoint);
    let named = named.filter(|id| id.op_number > OpNumber::ZERO);
    let checkpoints = store.checkpoints();
    if let Some(id) = &named {
        let (chunk, manifest) = checkpoint_of(id.op_number);
        let draft = Draft::Own(id.op_number);
        checkpoints.put(&draft, 0, &chunk)?;
        checkpoints.complete(&draft, id, &manifest)?;
    }
    store.write(batch)?;
    named.map_or(Ok(()), |id| checkpoints.keep(&[id], OpNumber(u64::MAX)))
}

/// What a storage holds, as its user knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// From op 1 on, also below the checkpoint.
    pub(crate) log: Vec<Entry>,
    pub(crate) superblock: Superblock,
}

impl Content {
    pub(crate) fn new() -> Self {
        Self { log: Vec::new(), superblock: Superblock::blank(&identity()) }
    }

    pub(crate) fn op_number(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap()
    }

    fn checksum_at(&self, op_number: u64) -> Checksum {
        match op_number.checked_sub(1) {
            None => Superblock::blank(&identity()).checkpoint.checksum,
            Some(position) => self.log[usize::try_from(position).unwrap()].header.checksum,
        }
    }

    /// Entries behind op `base`, with payloads of these sizes, written in the superblock's view.
    pub(crate) fn entries(&self, base: u64, sizes: &[usize]) -> Vec<Entry> {
        let mut parent = self.checksum_at(base);
        let mut entries = Vec::new();
        for (op_number, size) in (base + 1..).zip(sizes) {
            let byte = u8::try_from((op_number * 7 + self.superblock.view.0) % 251).unwrap();
            let header = EntryHeader {
                parent,
                view: self.superblock.view,
                op_number: OpNumber(op_number),
                time: op_number,
                kind: EntryKind::Request,
                group: EntryHeader::group_mark(self.superblock.group),
                ..EntryHeader::default()
            };
            let entry = Entry::new(header, Bytes::from(vec![byte; *size]));
            parent = entry.header.checksum;
            entries.push(entry);
        }
        entries
    }

    pub(crate) fn append(&self, sizes: &[usize]) -> WriteBatch {
        let entries = self.entries(self.op_number(), sizes);
        WriteBatch::of(entries)
    }

    pub(crate) fn cut(&self, after: u64, sizes: &[usize]) -> WriteBatch {
        let entries = self.entries(after, sizes);
        WriteBatch { cut: Some(OpNumber(after)), ..WriteBatch::of(entries) }
    }

    /// A superblock with the next view and, from `op_number` on, a checkpoint.
    pub(crate) fn promise(&self, checkpoint: u64) -> WriteBatch {
        let mut superblock = self.superblock.clone();
        superblock.view = superblock.view.next();
        superblock.log_view = View(superblock.view.0 / 2);
        superblock.certificate = Some(Certificate {
            group_name: "test".into(),
            // More than a sector, so that a write of it can be torn.
            disks: (0..40).map(|id| (ReplicaId(id), DiskId(u128::MAX - u128::from(id)))).collect(),
            inherited: Vec::new(),
        });
        superblock.checkpoint.op_number = OpNumber(checkpoint);
        superblock.checkpoint.checksum = self.checksum_at(checkpoint);
        superblock.checkpoint.digest = match checkpoint {
            0 => Checksum::ZERO,
            _ => checkpoint_of(OpNumber(checkpoint)).1.digest(),
        };
        WriteBatch { superblock: Some(superblock), ..WriteBatch::default() }
    }

    pub(crate) fn apply(&mut self, batch: &WriteBatch) {
        self.apply_log(batch);
        if let Some(superblock) = &batch.superblock {
            self.superblock = superblock.clone();
        }
    }

    /// Does only the log part.
    pub(crate) fn apply_log(&mut self, batch: &WriteBatch) {
        if let Some(cut) = batch.cut {
            self.log.truncate(usize::try_from(cut.0).unwrap());
        }
        self.log.extend(batch.entries().cloned());
    }

    /// All that a crash during `batch` may leave.
    pub(crate) fn after_crash_in(&self, batch: &WriteBatch) -> Vec<Self> {
        let mut log_only = self.clone();
        log_only.apply_log(batch);
        let mut all = self.clone();
        all.apply(batch);
        vec![self.clone(), log_only, all]
    }

    pub(crate) fn headers(&self) -> Vec<EntryHeader> {
        let above = self.superblock.checkpoint.op_number;
        let headers = self.log.iter().map(|entry| entry.header);
        headers.filter(|header| header.op_number > above).collect()
    }

    /// Whether exactly this was recovered.
    pub(crate) fn is(&self, recovered: &Recovered) -> bool {
        recovered.superblock == self.superblock
            && recovered.headers == self.headers()
            && recovered.damaged.is_empty()
    }

    /// The entries that make the log this one again, found as a replica finds them: from the upper
    /// end of each damaged range down to where the chain meets what is there. `None` if anything
    /// else is missing or different.
    pub(crate) fn damaged_in(&self, recovered: &Recovered) -> Option<Vec<Entry>> {
        let found = |op_number: OpNumber| {
            recovered.headers.iter().find(|header| header.op_number == op_number)
        };
        let mut repairs = BTreeMap::new();
        for DamagedRange { first, through } in recovered.damaged.iter().rev() {
            if repairs.contains_key(&through.op_number) {
                continue;
            }
            for entry in self.log.iter().rev() {
                let op_number = entry.header.op_number;
                if op_number > through.op_number {
                    continue;
                }
                if op_number == through.op_number && entry.header.checksum != through.checksum {
                    return None;
                }
                let is_damaged = recovered
                    .damaged
                    .iter()
                    .any(|range| range.first <= op_number && op_number <= range.through.op_number);
                let meets =
                    !is_damaged && op_number < *first && found(op_number) == Some(&entry.header);
                if meets || op_number <= self.superblock.checkpoint.op_number {
                    break;
                }
                repairs.insert(op_number, entry.clone());
            }
        }
        let head = self.headers().last().map(Anchor::of);
        let told = recovered.superblock == self.superblock
            && head.is_none_or(|head| head == recovered.head())
            && self.headers().iter().all(|header| {
                repairs.contains_key(&header.op_number) || found(header.op_number) == Some(header)
            });
        told.then(|| repairs.into_values().collect())
    }

    /// Whether the log is said to be lost, and nothing else is.
    pub(crate) fn is_lost_in(&self, recovered: &Recovered) -> bool {
        let lost = Superblock { trust: Trust::Lost, ..self.superblock.clone() };
        let checkpoint = Superblock::blank(&identity()).checkpoint;
        let without_checkpoint = Superblock { checkpoint, ..lost.clone() };
        recovered.set_aside.is_some()
            && (recovered.superblock == lost || recovered.superblock == without_checkpoint)
            && recovered.headers.is_empty()
            && recovered.damaged.is_empty()
    }

    /// Checks that the store returns every entry above the checkpoint.
    pub(crate) fn assert_readable(&self, store: &Store<FaultyDisk>) {
        let reader = store.reader();
        for entry in &self.log {
            let op_number = entry.header.op_number;
            if op_number > self.superblock.checkpoint.op_number {
                let read = reader.entries(op_number, op_number, 0).unwrap();
                assert_eq!(read, std::slice::from_ref(entry));
            }
        }
    }
}
