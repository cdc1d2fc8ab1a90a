//! What a storage holds, as its user knows it, and what a crash may make of that.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::model::{
    certificate::Certificate,
    checkpoint::Manifest,
    durable::{Durability, Identity, Superblock, Trust},
    entry::{Entry, EntryHeader, EntryKind},
    membership::Membership,
    types::{
        Checksum, ClientId, DiskId, Epoch, Incarnation, OpNumber, ReplicaId, RequestNumber, View,
    },
};
use crate::ports::storage::{Anchor, DamagedRange, Recovered, WriteBatch};

/// Who opens the storages of this suite.
pub(crate) fn identity() -> Identity {
    let members = Membership::new((0..3).map(ReplicaId)).expect("three members make a group");
    Identity {
        group: members.group_id("conformance"),
        group_name: "conformance".to_owned(),
        members,
        replica: ReplicaId(1),
        durability: Durability::Full,
        fresh_disk: DiskId(0xd15c),
    }
}

/// The bytes of the checkpoint after an op, and what it consists of.
pub(crate) fn checkpoint_of(op_number: u64) -> ([u8; 8], Manifest) {
    let chunk = op_number.to_le_bytes();
    (chunk, Manifest { bytes: 8, chunks: vec![Checksum::of(&chunk)] })
}

/// The log from op 1 on, also what was released, and the superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) log: Vec<Entry>,
    pub(crate) superblock: Superblock,
}

impl Content {
    /// What is there right after formatting.
    pub(crate) fn new() -> Self {
        Self { log: Vec::new(), superblock: Superblock::blank(&identity()) }
    }

    /// The last op.
    pub(crate) fn op_number(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap_or(u64::MAX)
    }

    pub(crate) const fn checkpoint(&self) -> u64 {
        self.superblock.checkpoint.op_number.0
    }

    fn position(op_number: u64) -> usize {
        usize::try_from(op_number).unwrap_or(usize::MAX)
    }

    /// The entry of this op.
    pub(crate) fn entry(&self, op_number: u64) -> Option<&Entry> {
        self.log.get(Self::position(op_number.checked_sub(1)?))
    }

    fn checksum_at(&self, op_number: u64) -> Checksum {
        match self.entry(op_number) {
            Some(entry) => entry.header.checksum,
            None => Superblock::blank(&identity()).checkpoint.checksum,
        }
    }

    /// Entries behind op `base` with payloads of these sizes, of the superblock's view.
    pub(crate) fn entries(&self, base: u64, sizes: &[usize]) -> Vec<Entry> {
        let mut parent = self.checksum_at(base);
        let mut entries = Vec::new();
        for (op_number, size) in (base + 1..).zip(sizes) {
            let view = self.superblock.view;
            let header = EntryHeader {
                parent,
                view,
                op_number: OpNumber(op_number),
                time: Duration::from_secs(op_number).as_secs() * 1_000 + view.0,
                client: ClientId(u128::MAX - u128::from(op_number)),
                session: OpNumber(op_number / 2),
                request_number: RequestNumber(op_number * 3),
                kind: EntryKind::Request,
                group: EntryHeader::group_mark(self.superblock.group),
                ..EntryHeader::default()
            };
            let byte = u8::try_from((op_number * 7 + view.0 * 13) % 251 + 1).unwrap_or(1);
            let entry = Entry::new(header, Bytes::from(vec![byte; *size]));
            parent = entry.header.checksum;
            entries.push(entry);
        }
        entries
    }

    /// A batch that appends.
    pub(crate) fn append(&self, sizes: &[usize]) -> WriteBatch {
        let entries = self.entries(self.op_number(), sizes);
        WriteBatch::of(entries)
    }

    /// A batch that replaces everything above `after`; its entries differ from the earlier ones.
    pub(crate) fn cut(&self, after: u64, sizes: &[usize]) -> WriteBatch {
        let mut other = self.clone();
        other.superblock.view = self.superblock.view.plus(self.op_number() + 1);
        let entries = other.entries(after, sizes);
        WriteBatch { cut: Some(OpNumber(after)), ..WriteBatch::of(entries) }
    }

    /// A batch with the superblock of the next view, and this checkpoint.
    pub(crate) fn promise(&self, checkpoint: u64) -> WriteBatch {
        let mut superblock = self.superblock.clone();
        superblock.view = superblock.view.next();
        superblock.log_view = View(superblock.view.0 / 2);
        superblock.certificate = Some(Certificate {
            group_name: superblock.group_name.clone(),
            // More than a sector, so that a write of it can be torn.
            disks: (0..40).map(|id| (ReplicaId(id), DiskId(u128::MAX - u128::from(id)))).collect(),
            inherited: Vec::new(),
        });
        superblock.checkpoint.op_number = OpNumber(checkpoint);
        superblock.checkpoint.checksum = self.checksum_at(checkpoint);
        superblock.checkpoint.digest = match checkpoint {
            0 => Checksum::ZERO,
            _ => checkpoint_of(checkpoint).1.digest(),
        };
        WriteBatch { superblock: Some(superblock), ..WriteBatch::default() }
    }

    /// A batch with a superblock of which no field is what it was.
    pub(crate) fn promise_everything(&self) -> WriteBatch {
        let mut batch = self.promise(self.op_number());
        if let Some(superblock) = &mut batch.superblock {
            superblock.epoch = Epoch(7);
            superblock.incarnation = Incarnation(9);
            superblock.crash_vector.learn(ReplicaId(2), Incarnation(5));
            superblock.trust = Trust::Lost;
        }
        batch
    }

    /// Adds the checkpoint and the promise of `self.promise(checkpoint)` to `batch`.
    pub(crate) fn with_promise(&self, checkpoint: u64, batch: WriteBatch) -> WriteBatch {
        WriteBatch { superblock: self.promise(checkpoint).superblock, ..batch }
    }

    /// Does what `batch` says.
    pub(crate) fn apply(&mut self, batch: &WriteBatch) {
        self.apply_log(batch);
        if let Some(superblock) = &batch.superblock {
            self.superblock = superblock.clone();
        }
    }

    fn apply_log(&mut self, batch: &WriteBatch) {
        if let Some(cut) = batch.cut {
            self.log.truncate(Self::position(cut.0));
        }
        self.log.extend(batch.entries().cloned());
    }

    /// All that may be found after a crash during `batch`: nothing of it, its log part alone, or
    /// all of it; never its superblock without its log part (PROTOCOL.md, NP4).
    pub(crate) fn after_crash_in(&self, batch: &WriteBatch) -> Vec<Self> {
        let (mut log_only, mut all) = (self.clone(), self.clone());
        log_only.apply_log(batch);
        all.apply(batch);
        vec![self.clone(), log_only, all]
    }

    fn headers(&self) -> Vec<EntryHeader> {
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
    pub(crate) fn repairs(&self, recovered: &Recovered) -> Option<Vec<Entry>> {
        let found = |op_number: OpNumber| {
            recovered.headers.iter().find(|header| header.op_number == op_number)
        };
        let mut repairs = BTreeMap::new();
        for DamagedRange { first, through } in recovered.damaged.iter().rev() {
            let mut op_number = through.op_number;
            if repairs.contains_key(&op_number) {
                continue;
            }
            let last = self.entry(op_number.0)?;
            if last.header.checksum != through.checksum {
                return None;
            }
            while op_number > self.superblock.checkpoint.op_number {
                let entry = self.entry(op_number.0)?;
                let is_damaged = recovered
                    .damaged
                    .iter()
                    .any(|range| range.first <= op_number && op_number <= range.through.op_number);
                if !is_damaged && op_number < *first && found(op_number) == Some(&entry.header) {
                    break;
                }
                repairs.insert(op_number, entry.clone());
                op_number = op_number.previous();
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

    /// Whether the storage says that the log is lost: it keeps every promise and has no log; or
    /// that everything is.
    pub(crate) fn is_given_up_in(&self, recovered: &Recovered) -> bool {
        let lost = Superblock { trust: Trust::Lost, ..self.superblock.clone() };
        let blank = Superblock::blank(&identity());
        let checkpoint = blank.checkpoint;
        let without_checkpoint = Superblock { checkpoint, ..lost.clone() };
        recovered.set_aside.is_some()
            && recovered.headers.is_empty()
            && recovered.damaged.is_empty()
            && [&lost, &without_checkpoint, &blank].contains(&&recovered.superblock)
    }
}

/// What was recovered, in few words.
pub(crate) fn summary(recovered: &Recovered) -> String {
    let ops: Vec<u64> = recovered.headers.iter().map(|header| header.op_number.0).collect();
    let (first, last) = (ops.first(), ops.last());
    let log = match (first, last) {
        (Some(first), Some(last)) => format!("{} headers, ops {first}..={last}", ops.len()),
        (None, _) | (_, None) => "no headers".to_owned(),
    };
    let superblock = &recovered.superblock;
    format!(
        "view {}, checkpoint {}, {log}, {} torn bytes",
        superblock.view, superblock.checkpoint.op_number, recovered.torn_bytes
    )
}

impl Content {
    /// The same in few words.
    pub(crate) fn summary(&self) -> String {
        summary(&Recovered::whole(self.superblock.clone(), self.headers()))
    }
}
