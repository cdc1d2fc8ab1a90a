//! Who acts in a simulation: replicas and clients, each with tasks, a clock and network ends.

use core::fmt;

use vr_core::model::types::ReplicaId;

/// Owner of tasks, clocks and network ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// A replica, in all its lives.
    Replica(ReplicaId),
    /// A client, by the order in which clients were made.
    Client(u64),
}

impl Actor {
    /// A number that no other actor of the simulation has.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Replica(id) => id.0 * 2,
            Self::Client(number) => number * 2 + 1,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(id) => write!(f, "r{id}"),
            Self::Client(number) => write!(f, "c{number}"),
        }
    }
}

impl From<ReplicaId> for Actor {
    fn from(id: ReplicaId) -> Self {
        Self::Replica(id)
    }
}
