//! Where the log of a group comes from that begins with one: an export, the directory of a stopped
//! replica, or memory.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use vr_core::{
    CheckpointCopy, Durability, OpNumber,
    model::{
        checkpoint::Manifest,
        durable::{Identity, Superblock, Trust},
        entry::{Entry, EntryHeader},
        export::LogFacts,
    },
};

use crate::{
    disk::{Disk, RealDisk},
    export::{Chain, CopyError, ExportReader},
    file::{
        options::StoreOptions,
        scan::scan,
        store::{Files, Store, checkpoint_of, checkpoint_problem},
        superblock::Copies,
    },
};

/// Bytes of entries that are moved at once.
const CHUNK_BYTES_MAX: u64 = 1 << 20;

/// Where a log comes from: whose it is, the checkpoint that it starts after, and its entries in order.
#[derive(Debug)]
pub struct LogSource {
    facts: LogFacts,
    from: Origin,
    chain: Chain,
}

#[derive(Debug)]
enum Origin {
    File(Box<ExportReader>),
    Directory(Box<Store<RealDisk>>, CheckpointCopy),
    Memory(Vec<Entry>, Option<CheckpointCopy>),
}

impl LogSource {
    /// An export, or the data directory of a stopped replica.
    ///
    /// All of it is verified before this returns. A directory is opened as its replica would open
    /// it, so its replica must not be running.
    ///
    /// # Errors
    /// [`CopyError`] when it is neither, is damaged, or holds no log.
    pub fn open(path: &Path) -> Result<Self, CopyError> {
        if path.is_dir() { Self::directory(path) } else { Self::file(path) }
    }

    fn file(path: &Path) -> Result<Self, CopyError> {
        let facts = ExportReader::verify(path)?;
        let reader = ExportReader::open(path)?;
        if *reader.facts() != facts {
            return Err(CopyError::Refused { reason: format!("{path:?} was changed meanwhile") });
        }
        Ok(Self { chain: Chain::of(&facts), facts, from: Origin::File(Box::new(reader)) })
    }

    fn directory(path: &Path) -> Result<Self, CopyError> {
        let found = |source| CopyError::Io { action: "open", path: path.to_owned(), source };
        let disk = RealDisk::read_only(path).map_err(found)?;
        let superblock = whole_superblock(&disk)?;
        let Some(certificate) = superblock.certificate.clone() else {
            return refuse(path, "was never part of a group, so it holds no log");
        };
        if superblock.durability != Durability::Full {
            let reason = "holds no log, because its group keeps it in memory: export it from a \
                          replica that runs";
            return refuse(path, reason);
        }
        require_log(&disk, &superblock)?;
        drop(disk);
        let identity = identity_of(&superblock);
        let disk = RealDisk::open(path).map_err(found)?;
        let (recovered, store) = Store::open(disk, &identity, StoreOptions::default())?;
        let whole = recovered.damaged.first().map(|damaged| damaged.first);
        let headers = recovered.headers.iter();
        let last = headers.take_while(|header| whole.is_none_or(|op| header.op_number < op)).last();
        let checkpoint = recovered.superblock.checkpoint;
        let facts = LogFacts {
            group: superblock.group,
            group_name: superblock.group_name.clone(),
            members: superblock.members.clone(),
            durability: superblock.durability,
            replica: superblock.replica,
            certificate,
            epoch: superblock.epoch,
            latest_epoch: superblock.superseded_by.unwrap_or(superblock.epoch),
            view: superblock.view,
            log_view: superblock.log_view,
            // What is above a damaged op is there, but nobody can be given it.
            trust: if whole.is_some() { Trust::Lost } else { superblock.trust },
            checkpoint,
            // What is in a checkpoint was committed.
            commit_number: checkpoint.op_number,
            op_number: last.map_or(checkpoint.op_number, |header| header.op_number),
            checksum: last.map_or(checkpoint.checksum, |header| header.checksum),
        };
        let copy = CheckpointCopy::new(checkpoint, Arc::new(store.checkpoints()));
        let from = Origin::Directory(Box::new(store), copy);
        Ok(Self { chain: Chain::of(&facts), facts, from })
    }

    /// A log that is in memory, and the checkpoint that it starts after, as
    /// [`Export`](vr_core::Export) gives them.
    ///
    /// # Errors
    /// [`CopyError::Refused`] when the entries or the checkpoint are not those that `facts` names.
    pub fn held(
        facts: LogFacts,
        checkpoint: Option<CheckpointCopy>,
        entries: Vec<Entry>,
    ) -> Result<Self, CopyError> {
        let follows = facts.checkpoint.op_number > OpNumber::ZERO;
        let named = follows.then_some(facts.checkpoint);
        if named != checkpoint.as_ref().map(CheckpointCopy::id) {
            let reason = format!("{} starts after another checkpoint", describe(&facts));
            return Err(CopyError::Refused { reason });
        }
        let mut chain = Chain::of(&facts);
        for Entry { header, .. } in &entries {
            chain.push(header).map_err(|what| misfit(header, what))?;
        }
        if (chain.op_number, chain.checksum) != (facts.op_number, facts.checksum) {
            let reason = format!("{} ends at op {}", describe(&facts), chain.op_number);
            return Err(CopyError::Refused { reason });
        }
        Ok(Self { chain: Chain::of(&facts), facts, from: Origin::Memory(entries, checkpoint) })
    }

    /// Whose log it is, and where it ends.
    #[must_use]
    pub const fn facts(&self) -> &LogFacts {
        &self.facts
    }

    /// What the checkpoint consists of that the log starts after.
    pub(crate) fn manifest(&self) -> Result<Manifest, CopyError> {
        match &self.from {
            Origin::File(reader) => Ok(reader.manifest().clone()),
            Origin::Directory(_, copy) | Origin::Memory(_, Some(copy)) => Ok(copy.manifest()?),
            Origin::Memory(_, None) => Ok(Manifest::default()),
        }
    }

    /// Its chunk at `index`; they are asked for in order, and before the entries.
    pub(crate) fn chunk(&mut self, index: u32) -> Result<Bytes, CopyError> {
        let chunk = match &mut self.from {
            Origin::File(reader) => reader.next_chunk()?,
            Origin::Directory(_, copy) | Origin::Memory(_, Some(copy)) => Some(copy.chunk(index)?),
            Origin::Memory(_, None) => None,
        };
        let reason = || format!("there is no chunk {index} in {}", describe(&self.facts));
        chunk.ok_or_else(|| CopyError::Refused { reason: reason() })
    }

    pub(crate) fn next(&mut self) -> Result<Vec<Entry>, CopyError> {
        let (from, through) = (self.chain.op_number.next(), self.facts.op_number);
        if from > through {
            return Ok(Vec::new());
        }
        let entries = match &mut self.from {
            Origin::File(reader) => reader.next(CHUNK_BYTES_MAX)?,
            Origin::Directory(store, _) => {
                store.reader().entries(from, through, CHUNK_BYTES_MAX)?
            }
            Origin::Memory(entries, _) => core::mem::take(entries),
        };
        for Entry { header, .. } in &entries {
            self.chain.push(header).map_err(|what| misfit(header, what))?;
        }
        Ok(entries)
    }
}

fn misfit(header: &EntryHeader, what: &str) -> CopyError {
    CopyError::Refused { reason: format!("op {}: {what}", header.op_number) }
}

fn refuse<T>(path: &Path, reason: &str) -> Result<T, CopyError> {
    let reason = format!("{} {reason}", path.display());
    Err(CopyError::Refused { reason })
}

fn whole_superblock(disk: &RealDisk) -> Result<Superblock, CopyError> {
    match Copies::read(disk)?.newest(disk)? {
        Some((_, superblock)) => Ok(superblock.clone()),
        None => refuse(&disk.path(), "has no superblock that can be read"),
    }
}

/// Refuses a log that opening would set aside, before anything is changed.
fn require_log(disk: &RealDisk, superblock: &Superblock) -> Result<(), CopyError> {
    let files = Files::list(disk)?;
    let checkpoint = checkpoint_of(superblock);
    let scanned = scan(disk, &files.segments, superblock.disk, checkpoint, &mut |_| {})?;
    if superblock.trust == Trust::Lost || files.segments.is_empty() {
        return refuse(&disk.path(), "has lost its log");
    }
    match scanned.lost {
        Some(reason) => refuse(&disk.path(), &format!("has lost its log: {reason}")),
        None => match checkpoint_problem(disk, superblock)? {
            Some(reason) => refuse(&disk.path(), &format!("has lost its log: {reason}")),
            None => Ok(()),
        },
    }
}

/// Who opens a directory that is there already.
fn identity_of(superblock: &Superblock) -> Identity {
    Identity {
        group: superblock.group,
        group_name: superblock.group_name.clone(),
        members: superblock.members.clone(),
        replica: superblock.replica,
        durability: superblock.durability,
        fresh_disk: superblock.disk,
    }
}

/// A log in words: whose, how far, and of which view.
#[must_use]
pub fn describe(facts: &LogFacts) -> String {
    let LogFacts { replica, epoch, log_view, op_number, trust, .. } = facts;
    let lost = match trust {
        Trust::Intact => "",
        Trust::Lost => ", of which a part is lost",
    };
    format!("the log of replica {replica} (epoch {epoch}, view {log_view}, op {op_number}{lost})")
}
