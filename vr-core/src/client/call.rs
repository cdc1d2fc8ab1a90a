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

impl Waiting {
    /// A call that was made at `made` begins to wait only at `now`.
    pub(crate) fn postpone(&mut self, made: Instant, now: Instant) {
        if self.since == made {
            self.deadline = self.deadline + now.since(made);
            self.since = now;
        }
    }
}
