//! Calls of a client: their names, and until when they wait.

use crate::model::time::Instant;

/// Names one call of one client, as whoever drives the session chose it; never reused while the
/// call waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

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
