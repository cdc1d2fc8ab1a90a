//! Newtypes for every number and identity of the protocol, so that the compiler tells them apart.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);

            /// The value after this one; stays at the largest one instead of wrapping.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The value before this one; zero has itself.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }

            /// How far this value is ahead of `earlier`; zero when it is not.
            #[must_use]
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }

            /// This value moved forward by `by`; stays at the largest one instead of wrapping.
            #[must_use]
            pub const fn plus(self, by: u64) -> Self {
                Self(self.0.saturating_add(by))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

number! {
    /// Names one member of the group for ever; never reused for another machine.
    ReplicaId
}
number! {
    /// A numbered period with one primary; starts at 0 and never decreases within an epoch.
    View
}
number! {
    /// Position in the log. The first op is 1; 0 means "no op yet".
    OpNumber
}
number! {
    /// Period of one membership; starts at 0.
    Epoch
}
number! {
    /// Per client, grows by one with each new request; the first is 1, 0 means "none yet".
    RequestNumber
}
number! {
    /// How many times a replica forgot everything it knew.
    Incarnation
}
number! {
    /// Names one write handed to storage; writes are handed over in this order.
    PersistId
}
number! {
    /// Names one question to local storage or to a peer, so that a late answer can be told.
    RequestId
}
number! {
    /// Numbers the heartbeat rounds of one primary in one view.
    HeartbeatNumber
}
number! {
    /// Names one connection of a client to one replica, as the transport numbers them; no number
    /// is used twice, so that nobody gets what was meant for an earlier client.
    ConnectionId
}

identity! {
    /// Names a client: drawn at random, used once.
    ClientId
}
identity! {
    /// Makes an answer belong to one question.
    Nonce
}
identity! {
    /// What formatting a directory drew; tells a wiped disk from the one that founded the group.
    DiskId
}
identity! {
    /// Names a group: a hash of its name and its founding members.
    GroupId
}
identity! {
    /// A 128-bit XXH3 checksum; guards against damage, not against an adversary.
    Checksum
}

impl Checksum {
    /// The checksum of nothing; the parent of the first entry is never this.
    pub const ZERO: Self = Self(0);

    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(bytes))
    }
}

/// Position of a replica among the voters of its epoch.
///
/// Used for `view mod n` and for vote sets only; a replica's identity is its [`ReplicaId`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ReplicaIndex(pub u8);

impl fmt::Display for ReplicaIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a log entry: the view that prepared it, then its op number; ordered in that order.
///
/// # Source
/// VRR §4.2.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Viewstamp {
    /// The view in which a primary gave the entry its place.
    pub view: View,
    /// Its place in the log.
    pub op_number: OpNumber,
}

/// The other end of a transport, as the engine names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// Another replica of the group.
    Replica(ReplicaId),
    /// A client, by the connection it uses to reach this replica.
    Client(ConnectionId),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(id) => write!(f, "replica {id}"),
            Self::Client(id) => write!(f, "client connection {id}"),
        }
    }
}

/// A set of replicas of one epoch, by index; counting a member twice is impossible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicaSet(u64);

impl ReplicaSet {
    /// The set without members.
    pub const EMPTY: Self = Self(0);

    /// Adds `index`; true if it was not in the set before.
    pub fn insert(&mut self, index: ReplicaIndex) -> bool {
        let bit = Self::bit(index);
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }

    /// Takes `index` out of the set.
    pub fn remove(&mut self, index: ReplicaIndex) {
        self.0 &= !Self::bit(index);
    }

    /// Whether `index` is in the set.
    #[must_use]
    pub fn contains(self, index: ReplicaIndex) -> bool {
        self.0 & Self::bit(index) != 0
    }

    /// How many members the set has.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether the set has no member.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as a number: bit i stands for the replica at index i.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The set that [`to_bits`](Self::to_bits) describes.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn bit(index: ReplicaIndex) -> u64 {
        1_u64.checked_shl(u32::from(index.0)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_set_counts_a_member_once() {
        let mut set = ReplicaSet::EMPTY;
        assert!(set.insert(ReplicaIndex(3)));
        assert!(!set.insert(ReplicaIndex(3)));
        assert_eq!(set.len(), 1);
        set.remove(ReplicaIndex(3));
        assert!(set.is_empty());
    }

    #[test]
    fn a_viewstamp_is_ordered_by_view_first() {
        let early = Viewstamp { view: View(2), op_number: OpNumber(9) };
        let late = Viewstamp { view: View(3), op_number: OpNumber(1) };
        assert!(early < late);
    }

    #[test]
    fn numbers_saturate_at_both_ends() {
        assert_eq!(OpNumber(u64::MAX).next(), OpNumber(u64::MAX));
        assert_eq!(OpNumber::ZERO.previous(), OpNumber::ZERO);
    }
}
