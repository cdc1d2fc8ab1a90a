//! A disk in memory that survives its node, and can stall or fail.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::poll_fn;
use vr_core::{
    LogReader, LogWriter, MemoryCheckpoints, OpNumber, Opened, Recovered, Storage, StorageError,
    WriteBatch,
    model::{
        durable::{Identity, Superblock},
        entry::Entry,
    },
};

/// What is on the disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<Contents>>, pub(crate) Arc<MemoryCheckpoints>);

#[derive(Debug, Default)]
pub(crate) struct Contents {
    superblock: Option<Superblock>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) writes: usize,
    pub(crate) idle_marks: usize,
    /// Writes that were dropped before they were done.
    pub(crate) torn: usize,
    /// Writes wait for this to be false.
    pub(crate) stalled: bool,
    /// Writes fail.
    pub(crate) broken: bool,
    waiting: Vec<core::task::Waker>,
}

impl Memory {
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Contents) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(crate) fn stall(&self, stalled: bool) {
        let waiting = self.with(|contents| {
            contents.stalled = stalled;
            core::mem::take(&mut contents.waiting)
        });
        waiting.into_iter().for_each(core::task::Waker::wake);
    }

    /// Waits while the disk is stalled.
    async fn settle(&self) {
        poll_fn(|cx| {
            self.with(|contents| {
                if !contents.stalled {
                    return core::task::Poll::Ready(());
                }
                contents.waiting.push(cx.waker().clone());
                core::task::Poll::Pending
            })
        })
        .await;
    }
}

#[async_trait]
impl Storage for Memory {
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError> {
        let recovered = self.with(|contents| {
            let superblock =
                contents.superblock.get_or_insert_with(|| Superblock::blank(identity)).clone();
            let base = superblock.checkpoint.op_number;
            let headers = contents.entries.iter().map(|entry| entry.header);
            let headers = headers.filter(|header| header.op_number > base).collect();
            Recovered::whole(superblock, headers)
        });
        let checkpoints = Arc::clone(&self.1);
        Ok(Opened { recovered, writer: self.clone(), reader: self, checkpoints })
    }
}

/// Counts itself as torn unless it is disarmed.
struct Tear<'a>(&'a Memory, bool);

impl Drop for Tear<'_> {
    fn drop(&mut self) {
        self.0.with(|contents| contents.torn += usize::from(self.1));
    }
}

#[async_trait]
impl LogWriter for Memory {
    async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut tear = Tear(self, true);
        self.settle().await;
        tear.1 = false;
        self.with(|contents| {
            if contents.broken {
                return Err(StorageError::Full { path: "memory".into() });
            }
            contents.writes += 1;
            if let Some(after) = batch.cut {
                contents.entries.retain(|entry| entry.header.op_number <= after);
            }
            contents.entries.extend(batch.entries().cloned());
            if batch.superblock.is_some() {
                contents.superblock = batch.superblock;
            }
            if let Some(through) = batch.release {
                contents.entries.retain(|entry| entry.header.op_number > through);
            }
            Ok(())
        })
    }

    async fn mark_idle(&mut self) -> Result<(), StorageError> {
        self.with(|contents| contents.idle_marks += 1);
        Ok(())
    }
}

#[async_trait]
impl LogReader for Memory {
    async fn entries(
        &self,
        from: OpNumber,
        through: OpNumber,
        _: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let found: Vec<Entry> = self.with(|contents| {
            let wanted = |entry: &&Entry| (from..=through).contains(&entry.header.op_number);
            contents.entries.iter().filter(wanted).cloned().collect()
        });
        match found.first() {
            Some(first) if first.header.op_number == from => Ok(found),
            Some(_) | None => Err(StorageError::Missing { op_number: from }),
        }
    }
}
