//! Storage in memory, which outlives its node, so that a test can restart one.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use vr_core::{
    LogReader, LogWriter, MemoryCheckpoints, OpNumber, Opened, Recovered, Storage, StorageError,
    WriteBatch,
    model::{
        durable::{CheckpointId, Identity, Superblock, genesis_checksum},
        entry::Entry,
    },
};

use crate::identity;

/// Storage in memory; clones share the content, which lasts as long as one of them.
///
/// It survives the end of its node and not the end of its process, so it is for tests and for
/// groups that may forget everything. One opened writer and reader exist at a time, as with files.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    shared: Arc<Mutex<Content>>,
    checkpoints: Arc<MemoryCheckpoints>,
}

#[derive(Debug, Default)]
struct Content {
    superblock: Option<Superblock>,
    entries: BTreeMap<OpNumber, Entry>,
    /// Held by the writer and the reader that are open.
    open: std::sync::Weak<Open>,
}

impl Content {
    /// Refuses a batch that does not follow what is there.
    fn checkpoint(&self) -> CheckpointId {
        self.superblock.as_ref().map(|now| now.checkpoint).unwrap_or_default()
    }

    fn check_chain(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let checkpoint = self.checkpoint();
        let last = self.entries.last_key_value().map(|(op_number, _)| *op_number);
        let end = last.unwrap_or_default().max(checkpoint.op_number);
        let base = batch.cut.unwrap_or(end);
        let starts_anew = batch.cut == Some(checkpoint.op_number);
        let checksum = match self.entries.get(&base).filter(|_| !starts_anew) {
            Some(entry) => Some(entry.header.checksum),
            None => (base == checkpoint.op_number).then_some(checkpoint.checksum),
        };
        let genesis = self.superblock.as_ref().map(|now| genesis_checksum(now.group));
        let checksum = checksum.or_else(|| genesis.filter(|_| base == OpNumber::ZERO));
        let mut follows = base <= end && checksum.is_some();
        let mut head = (base, checksum.unwrap_or_default());
        for Entry { header, .. } in batch.entries() {
            follows &= (header.op_number, header.parent) == (head.0.next(), head.1);
            head = (header.op_number, header.checksum);
        }
        if follows {
            return Ok(());
        }
        let reason = format!("the batch does not follow op {base} of a log that ends at op {end}");
        let source = io::Error::new(io::ErrorKind::InvalidInput, reason);
        Err(StorageError::Io { action: "write", path: path(), source })
    }
}

/// Its existence says that the storage is in use.
#[derive(Debug)]
struct Open;

impl MemoryStorage {
    /// Storage that nothing was written to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

fn lock(shared: &Mutex<Content>) -> MutexGuard<'_, Content> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path() -> PathBuf {
    PathBuf::from("memory")
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError> {
        let open = Arc::new(Open);
        let recovered = {
            let mut content = lock(&self.shared);
            if content.open.upgrade().is_some() {
                return Err(StorageError::InUse { path: path() });
            }
            let superblock =
                content.superblock.get_or_insert_with(|| Superblock::blank(identity)).clone();
            identity::check(&path(), &superblock, identity)?;
            content.open = Arc::downgrade(&open);
            let above = superblock.checkpoint.op_number.next();
            let headers = content.entries.range(above..).map(|(_, entry)| entry.header).collect();
            Recovered::whole(superblock, headers)
        };
        let handle = Handle { shared: self.shared, _open: open };
        let (writer, reader) = (Box::new(handle.clone()), Box::new(handle));
        Ok(Opened { recovered, writer, reader, checkpoints: self.checkpoints })
    }
}

/// An opened storage, for writing and for reading.
#[derive(Clone, Debug)]
struct Handle {
    shared: Arc<Mutex<Content>>,
    _open: Arc<Open>,
}

#[async_trait]
impl LogWriter for Handle {
    async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut content = lock(&self.shared);
        content.check_chain(&batch)?;
        if let Some(cut) = batch.cut {
            let starts_anew = cut == content.checkpoint().op_number;
            content.entries.split_off(&if starts_anew { OpNumber::ZERO } else { cut.next() });
        }
        content
            .entries
            .extend(batch.entries().map(|entry| (entry.header.op_number, entry.clone())));
        for entry in batch.repairs {
            content.entries.entry(entry.header.op_number).and_modify(|damaged| *damaged = entry);
        }
        if batch.superblock.is_some() {
            content.superblock = batch.superblock;
        }
        if let Some(release) = batch.release {
            let checkpoint = content.superblock.as_ref().map(|now| now.checkpoint.op_number);
            let release = release.min(checkpoint.unwrap_or_default());
            content.entries = content.entries.split_off(&release.next());
        }
        Ok(())
    }
}

#[async_trait]
impl LogReader for Handle {
    async fn entries(
        &self,
        from: OpNumber,
        through: OpNumber,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let content = lock(&self.shared);
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while let Some(entry) = content.entries.get(&next).filter(|_| next <= through) {
            bytes += entry.header.entry_bytes();
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry.clone());
            next = next.next();
        }
        if entries.is_empty() {
            return Err(StorageError::Missing { op_number: from });
        }
        Ok(entries)
    }
}
