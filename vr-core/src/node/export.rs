//! A copy of the log of a running node, chunk by chunk, while the node goes on; and of the
//! checkpoint that it starts after.

use core::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{
    model::{
        checkpoint::Manifest,
        durable::CheckpointId,
        entry::Entry,
        export::LogFacts,
        types::{Checksum, OpNumber},
    },
    node::{lock::lock, pins::Pin, shared::Shared},
    ports::storage::{Checkpoints, StorageError},
};

/// Bytes of one chunk; an entry larger than that is one of its own.
const CHUNK_BYTES_MAX: u64 = 256 << 10;

/// How much of a log to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExportScope {
    /// What this replica knows to be committed: a state that the group was in.
    #[default]
    Committed,
    /// All that this replica holds, also what may never have been acknowledged, or may be
    /// replaced by a view change. For a group that cannot go on any more.
    WithTail,
}

/// A checkpoint of a node and the part of its log above it, to be read to its end.
///
/// It is made when it is asked for and does not grow with the log. Reading takes memory for one
/// chunk, and the node's storage answers its own questions in between. As long as it exists the
/// node keeps that checkpoint, and the log on disk above it, so it is to be read soon or dropped.
pub struct Export {
    shared: Arc<Shared>,
    checkpoints: Arc<dyn Checkpoints>,
    facts: LogFacts,
    /// The last op that was read, and its checksum.
    at: (OpNumber, Checksum),
    _pin: Pin,
}

impl Export {
    pub(crate) fn of(shared: Arc<Shared>, scope: ExportScope) -> Result<Self, ExportError> {
        let observed = lock(&shared.observed);
        let facts = observed.replica.log_facts(scope == ExportScope::WithTail);
        let follows = observed.replica.log_follows_checkpoint();
        let known = observed.replica.knows_committed();
        let facts = facts.ok_or(ExportError::NoGroup)?;
        // While the engine cannot move on: what it drops from now on, it drops with the pin in mind.
        let pin = Pin::new(&shared.pins, facts.checkpoint);
        drop(observed);
        if scope == ExportScope::Committed && !known {
            return Err(ExportError::NothingKnown);
        }
        if !follows || facts.op_number < facts.checkpoint.op_number {
            return Err(ExportError::Changed);
        }
        let at = (facts.checkpoint.op_number, facts.checkpoint.checksum);
        let checkpoints = lock(&shared.checkpoints).clone().ok_or(ExportError::Stopped)?;
        Ok(Self { shared, checkpoints, facts, at, _pin: pin })
    }

    /// Whose log it is, and where the copy ends.
    #[must_use]
    pub const fn facts(&self) -> &LogFacts {
        &self.facts
    }

    /// The checkpoint that the entries follow, which is to be copied with them; `None` for a log from
    /// op 1.
    #[must_use]
    pub fn checkpoint(&self) -> Option<CheckpointCopy> {
        let id = self.facts.checkpoint;
        let store = || Arc::clone(&self.checkpoints);
        (id.op_number > OpNumber::ZERO).then(|| CheckpointCopy::new(id, store()))
    }

    /// The entries behind those that were read before; empty at the end.
    ///
    /// # Errors
    /// [`ExportError::Changed`] when a view change replaced what was to be copied, which happens
    /// to no committed entry, or when it was dropped for a later checkpoint: one that was fetched,
    /// or any in a group that keeps its log in memory; [`ExportError::Storage`] when the log cannot be read;
    /// [`ExportError::Stopped`] when the node has stopped.
    pub async fn next(&mut self) -> Result<Vec<Entry>, ExportError> {
        let (done, _) = self.at;
        let (from, through) = (done.next(), self.facts.op_number);
        if from > through {
            return Ok(Vec::new());
        }
        let mut entries =
            lock(&self.shared.observed).replica.log_entries(from, through, CHUNK_BYTES_MAX);
        if entries.is_empty() {
            let reader = lock(&self.shared.reader).clone().ok_or(ExportError::Stopped)?;
            entries = match reader.entries(from, through, CHUNK_BYTES_MAX).await {
                Ok(entries) => entries,
                Err(error) => return Err(gone(error)),
            };
        }
        if entries.is_empty() {
            return Err(ExportError::Changed);
        }
        for Entry { header, .. } in &entries {
            let (op_number, checksum) = self.at;
            if header.op_number != op_number.next() || header.parent != checksum {
                return Err(ExportError::Changed);
            }
            self.at = (header.op_number, header.checksum);
        }
        let (op_number, checksum) = self.at;
        if op_number == through && checksum != self.facts.checksum {
            return Err(ExportError::Changed);
        }
        Ok(entries)
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("facts", &self.facts)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// A complete checkpoint, to be read chunk by chunk. Reading may block its thread for as long as the
/// disk takes.
#[derive(Clone, Debug)]
pub struct CheckpointCopy {
    id: CheckpointId,
    store: Arc<dyn Checkpoints>,
}

impl CheckpointCopy {
    /// The checkpoint `id` of `store`.
    #[must_use]
    pub fn new(id: CheckpointId, store: Arc<dyn Checkpoints>) -> Self {
        Self { id, store }
    }

    /// Which one it is.
    #[must_use]
    pub const fn id(&self) -> CheckpointId {
        self.id
    }

    /// What it consists of.
    ///
    /// # Errors
    /// [`ExportError::Changed`] when it is not there any more; [`ExportError::Storage`] when it
    /// cannot be read.
    pub fn manifest(&self) -> Result<Manifest, ExportError> {
        self.store.manifest(&self.id).map_err(gone)
    }

    /// The chunk at `index`, verified.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn chunk(&self, index: u32) -> Result<Bytes, ExportError> {
        self.store.chunk(&self.id, index).map_err(gone)
    }
}

fn gone(error: StorageError) -> ExportError {
    match error {
        StorageError::Missing { .. } => ExportError::Changed,
        StorageError::Io { .. }
        | StorageError::Full { .. }
        | StorageError::Corrupt { .. }
        | StorageError::Foreign { .. }
        | StorageError::Version { .. }
        | StorageError::InUse { .. }
        | StorageError::Poisoned => ExportError::Storage(error),
    }
}

/// Why a log cannot be copied. The node goes on as if nobody had asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The replica belongs to no group, so it has no log.
    #[error("this replica belongs to no group yet, so it has no log to export")]
    NoGroup,
    /// This replica cannot tell what is committed: it was started just now, is damaged, or its group
    /// does not work.
    #[error(
        "this replica does not know what is committed; export when its group works, from another \
         replica, or with the tail"
    )]
    NothingKnown,
    /// What was to be copied is not there any more.
    #[error("a view change or a later checkpoint replaced what was being exported; try again")]
    Changed,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
    /// The log cannot be read.
    #[error("the log cannot be read; export from another replica")]
    Storage(#[source] StorageError),
}
