//! What a run came to, for the assertions of whoever wrote the service.

use core::fmt;

use vr_core::model::types::{OpNumber, ReplicaId};

use crate::{
    cluster::client::{CallOf, Service},
    simulator::summary::Summary,
};

/// What a run came to, after everything was mended and all replicas agreed.
pub struct Outcome<S: Service> {
    /// Every call of every client: what it wanted, when it was made, and what it came to.
    pub history: Vec<CallOf<S>>,
    /// What was executed, and replied, in the order of the log.
    pub log: Vec<(OpNumber, S::Operation, S::Reply)>,
    /// The state of each replica, but for those whose disks are damaged beyond what they can mend.
    pub states: Vec<(ReplicaId, S)>,
    /// What the run exercised.
    pub summary: Summary,
}

impl<S: Service> fmt::Debug for Outcome<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("calls", &self.history.len())
            .field("executed", &self.log.len())
            .field("replicas", &self.states.len())
            .field("summary", &self.summary)
            .finish()
    }
}

/// What all runs of a check exercised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many seeds passed.
    pub seeds: u64,
    /// All their runs together.
    pub total: Summary,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seeds: {}", self.seeds, self.total)
    }
}
