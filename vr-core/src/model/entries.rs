//! What replicas say to each other when one lacks entries, or only their headers.

use serde::{Deserialize, Serialize};

use crate::model::{
    entry::{Entry, EntryHeader},
    types::{Checksum, OpNumber, RequestId},
};

/// Asks for the headers that lead to a known checksum. Immutable, so any status answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetHeaders {
    /// Names the question.
    pub request: RequestId,
    /// The lowest op wanted; inclusive.
    pub from: OpNumber,
    /// The highest op wanted; inclusive.
    pub through: OpNumber,
    /// Checksum of the entry at `through`.
    pub checksum: Checksum,
}

/// Headers in ascending op order, ending at the op and checksum that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// The question's name.
    pub request: RequestId,
    /// Possibly fewer than asked for, from the top; empty if the sender does not hold the entry.
    pub headers: Vec<EntryHeader>,
}

/// Asks for entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetEntries {
    /// Names the question.
    pub request: RequestId,
    /// Which ones.
    pub wanted: Wanted,
    /// The most bytes of entries to answer with; one entry is always sent.
    pub bytes_max: u32,
}

/// Which entries are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Those with these op numbers and checksums, ascending; any status answers.
    Exact(Vec<(OpNumber, Checksum)>),
    /// Those from this op on; only a replica in status normal of the same view answers.
    From(OpNumber),
}

/// Entries that were asked for, in ascending op order; possibly fewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    /// The question's name.
    pub request: RequestId,
    /// The entries.
    pub entries: Vec<Entry>,
}
