//! A copy of the log of a running node, chunk by chunk, while the node goes on.

use core::fmt;
use std::sync::Arc;

use crate::{
    model::{
        entry::Entry,
        export::LogFacts,
        types::{Checksum, OpNumber},
    },
    node::{lock::lock, shared::Shared},
    ports::storage::StorageError,
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

/// A part of a node's log, to be read to its end.
///
/// It is made when it is asked for and does not grow with the log. Reading takes memory for one
/// chunk, and the node's storage answers its own questions in between.
pub struct Export {
    shared: Arc<Shared>,
    facts: LogFacts,
    /// The last op that was read, and its checksum.
    at: (OpNumber, Checksum),
}

impl Export {
    pub(crate) fn of(shared: Arc<Shared>, scope: ExportScope) -> Result<Self, ExportError> {
        let observed = lock(&shared.observed);
        let facts = observed.replica.log_facts(scope == ExportScope::WithTail);
        let base = observed.replica.log_base();
        let known = observed.replica.knows_committed();
        drop(observed);
        let facts = facts.ok_or(ExportError::NoGroup)?;
        if scope == ExportScope::Committed && !known {
            return Err(ExportError::NothingKnown);
        }
        Ok(Self { shared, facts, at: (OpNumber::ZERO, base) })
    }

    /// Whose log it is, and where the copy ends.
    #[must_use]
    pub const fn facts(&self) -> &LogFacts {
        &self.facts
    }

    /// The entries behind those that were read before; empty at the end.
    ///
    /// # Errors
    /// [`ExportError::Changed`] when a view change replaced what was to be copied, which happens
    /// to no committed entry; [`ExportError::Storage`] when the log cannot be read;
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
                Err(StorageError::Missing { .. }) => return Err(ExportError::Changed),
                Err(error) => return Err(ExportError::Storage(error)),
            };
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
    #[error("a view change replaced what was being exported; try again")]
    Changed,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
    /// The log cannot be read.
    #[error("the log cannot be read; export from another replica")]
    Storage(#[source] StorageError),
}
