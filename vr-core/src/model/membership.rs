//! Who belongs to a group, who leads which view, and how many make a quorum.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::types::{Checksum, GroupId, ReplicaId, ReplicaIndex, View};

/// The most voters a group can have; vote sets are bit sets of this width.
pub const MEMBERS_MAX: usize = 64;

/// One member and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Who it is, for ever.
    pub id: ReplicaId,
    /// Where the transport finds it now, in the transport's own notation (`host:port` for TCP).
    pub address: String,
}

/// The members of a group with their addresses, as an embedder writes them down.
///
/// Parses from `host:port,host:port,..` (ids 0, 1, 2, ..) and from `7=host:port,9=host:port,..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Members(Vec<Member>);

impl Members {
    /// The members, sorted by id.
    ///
    /// # Errors
    /// [`MembershipError`] when the list is empty, too long, or names an id twice.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Result<Self, MembershipError> {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort();
        Membership::new(members.iter().map(|member| member.id))?;
        Ok(Self(members))
    }

    /// Members 0 up to and including `count - 1` without addresses, for in-process groups.
    ///
    /// # Errors
    /// [`MembershipError`] when `count` is zero or above [`MEMBERS_MAX`].
    pub fn local(count: u64) -> Result<Self, MembershipError> {
        Self::new((0..count).map(|id| Member { id: ReplicaId(id), address: String::new() }))
    }

    /// The members, sorted by id.
    #[must_use]
    pub fn as_slice(&self) -> &[Member] {
        &self.0
    }

    /// Where `id` is reached; `None` if it is not a member.
    #[must_use]
    pub fn address_of(&self, id: ReplicaId) -> Option<&str> {
        self.0.iter().find(|member| member.id == id).map(|member| member.address.as_str())
    }

    /// The voters of a group founded by these members.
    #[must_use]
    pub fn to_membership(&self) -> Membership {
        Membership { voters: self.0.iter().map(|member| member.id).collect() }
    }
}

impl FromStr for Members {
    type Err = MembershipError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let members = text.split(',').zip(0_u64..).map(|(part, position)| {
            let part = part.trim();
            let (id, address) = match part.split_once('=') {
                Some((id, address)) => (
                    id.trim().parse().map_err(|_| MembershipError::Malformed(part.to_owned()))?,
                    address.trim(),
                ),
                None => (position, part),
            };
            if address.is_empty() {
                return Err(MembershipError::Malformed(part.to_owned()));
            }
            Ok(Member { id: ReplicaId(id), address: address.to_owned() })
        });
        Self::new(members.collect::<Result<Vec<_>, _>>()?)
    }
}

/// The replicas of one epoch, sorted by id.
///
/// Invariants: at least one voter, at most [`MEMBERS_MAX`], no id twice, any two quorums intersect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    voters: Vec<ReplicaId>,
}

impl Membership {
    /// The group of `voters`.
    ///
    /// # Errors
    /// [`MembershipError`] when the list is empty, too long, or names an id twice.
    ///
    /// # Panics
    /// Never: that two quorums intersect follows from the definition of [`Self::quorum`].
    pub fn new(voters: impl IntoIterator<Item = ReplicaId>) -> Result<Self, MembershipError> {
        let mut voters: Vec<ReplicaId> = voters.into_iter().collect();
        voters.sort();
        if voters.is_empty() {
            return Err(MembershipError::Empty);
        }
        if voters.len() > MEMBERS_MAX {
            return Err(MembershipError::TooMany { members: voters.len() });
        }
        for (one, next) in voters.iter().zip(voters.iter().skip(1)) {
            if one == next {
                return Err(MembershipError::Twice(*one));
            }
        }
        let membership = Self { voters };
        assert!(membership.quorum() * 2 > membership.len(), "two quorums intersect");
        Ok(membership)
    }

    /// How many voters there are (n).
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.voters.len()).unwrap_or(u32::MAX)
    }

    /// Never true; a group has at least one voter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// A majority: floor(n/2) + 1. Equals the paper's f+1 only for odd n.
    #[must_use]
    pub fn quorum(&self) -> u32 {
        self.len() / 2 + 1
    }

    /// How many crashed replicas the group survives: floor((n-1)/2), the paper's f.
    #[must_use]
    pub fn faults_max(&self) -> u32 {
        (self.len() - 1) / 2
    }

    /// Who leads `view`: member `view mod n`.
    #[must_use]
    pub fn primary_of(&self, view: View) -> ReplicaId {
        let position = usize::try_from(view.0 % u64::from(self.len())).unwrap_or(0);
        self.voters.get(position).copied().unwrap_or_default()
    }

    /// The position of `id` among the voters; `None` if it is not one.
    #[must_use]
    pub fn index_of(&self, id: ReplicaId) -> Option<ReplicaIndex> {
        let position = self.voters.binary_search(&id).ok()?;
        u8::try_from(position).ok().map(ReplicaIndex)
    }

    /// The index of every voter.
    pub fn indices(&self) -> impl Iterator<Item = ReplicaIndex> + use<> {
        (0..u8::try_from(self.voters.len()).unwrap_or(u8::MAX)).map(ReplicaIndex)
    }

    /// The voter at `index`; `None` beyond the last.
    #[must_use]
    pub fn voter_at(&self, index: ReplicaIndex) -> Option<ReplicaId> {
        self.voters.get(usize::from(index.0)).copied()
    }

    /// The voters in order of their index.
    #[must_use]
    pub fn voters(&self) -> &[ReplicaId] {
        &self.voters
    }

    /// The name of the group that these members found under `name`.
    #[must_use]
    pub fn group_id(&self, name: &str) -> GroupId {
        let mut bytes = Vec::with_capacity(name.len() + 8 * (self.voters.len() + 1));
        bytes.extend_from_slice(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        for voter in &self.voters {
            bytes.extend_from_slice(&voter.0.to_le_bytes());
        }
        GroupId(Checksum::of(&bytes).0)
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (position, voter) in self.voters.iter().enumerate() {
            write!(f, "{}{voter}", if position == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// Why a member list is not a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// There is nobody in it.
    #[error("the member list is empty; a group has at least one replica")]
    Empty,
    /// There are more than [`MEMBERS_MAX`] in it.
    #[error("{members} members are more than the {MEMBERS_MAX} that a group can have")]
    TooMany {
        /// How many were listed.
        members: usize,
    },
    /// One id is listed more than once.
    #[error("replica {0} is listed twice")]
    Twice(ReplicaId),
    /// A part of the text is neither `address` nor `id=address`.
    #[error("'{0}' is not a member; write host:port or id=host:port, separated by commas")]
    Malformed(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group_of(n: u64) -> Membership {
        Membership::new((0..n).map(ReplicaId)).unwrap()
    }

    #[test]
    fn quorum_and_faults_follow_the_group_size() {
        let table = [(1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2), (7, 4, 3)];
        for (n, quorum, faults) in table {
            assert_eq!((group_of(n).quorum(), group_of(n).faults_max()), (quorum, faults));
        }
    }

    #[test]
    fn the_primary_goes_round() {
        let group = Membership::new([ReplicaId(9), ReplicaId(4), ReplicaId(6)]).unwrap();
        assert_eq!(group.primary_of(View(0)), ReplicaId(4));
        assert_eq!(group.primary_of(View(5)), ReplicaId(9));
    }

    #[test]
    fn a_list_is_parsed_by_position_or_by_id() {
        let by_position: Members = "a:1, b:2".parse().unwrap();
        assert_eq!(by_position.address_of(ReplicaId(1)), Some("b:2"));
        let by_id: Members = "7=a:1,3=b:2".parse().unwrap();
        assert_eq!(by_id.to_membership().voters(), [ReplicaId(3), ReplicaId(7)]);
    }

    #[test]
    fn a_bad_list_says_what_is_wrong() {
        assert_eq!("0=a,0=b".parse::<Members>(), Err(MembershipError::Twice(ReplicaId(0))));
        assert!(matches!("a,,b".parse::<Members>(), Err(MembershipError::Malformed(_))));
        assert_eq!(Membership::new([]), Err(MembershipError::Empty));
    }

    proptest! {
        #[test]
        fn any_two_quorums_intersect(n in 1_u64..=64) {
            let group = group_of(n);
            prop_assert!(group.quorum() * 2 > group.len());
            prop_assert!(group.quorum() + group.faults_max() <= group.len());
        }
    }
}
