//! Calls of a client: their names, and until when they wait.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::time::Instant;

/// Names one call of one client, as whoever drives the session chose it; never reused while the
/// call waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Whether these are several operations, which [`join`](crate::model::many::join) made one.
    pub many: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Operation {
    /// How many bytes it has.
    pub(crate) fn length(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }
}

impl From<Bytes> for Operation {
    fn from(bytes: Bytes) -> Self {
        Self { many: false, bytes }
    }
}

/// A call that waits for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Which.
    pub(crate) call: CallId,
    /// Since when.
    pub(crate) since: Instant,
    /// Until when.
    pub(crate) deadline: Instant,
}
