//! What a replica must not forget: the superblock, and the identity it is opened with.

use core::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::{
    certificate::{Certificate, CrashVector},
    membership::Membership,
    types::{Checksum, DiskId, Epoch, GroupId, Incarnation, OpNumber, ReplicaId, View},
};

/// What is on stable storage, and therefore what a group survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// View numbers and the log; survives loss of power at all replicas at once.
    #[default]
    Full,
    /// View numbers only, written when a view changes; survives the crash of any minority at once.
    ViewOnly,
    /// Nothing; survives the crash of any minority at once.
    Diskless,
}

impl Durability {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Full, Self::ViewOnly, Self::Diskless];
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::ViewOnly => "view-only",
            Self::Diskless => "diskless",
        })
    }
}

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "full" => Ok(Self::Full),
            "view-only" => Ok(Self::ViewOnly),
            "diskless" => Ok(Self::Diskless),
            _ => Err(UnknownDurability { name: text.to_owned() }),
        }
    }
}

/// There is no durability mode of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is none of full, view-only, diskless")]
pub struct UnknownDurability {
    /// The name.
    pub name: String,
}

/// May this replica's log be counted as evidence in a view change?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Trust {
    /// The log is as complete as this replica ever acknowledged.
    #[default]
    Intact,
    /// Part of what was acknowledged is gone; stays so until a complete log is installed.
    Lost,
}

/// Names a checkpoint: the op it was taken after, and checksums of its entry and its content.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct CheckpointId {
    /// The last op that the checkpoint contains; 0 for the empty state before the first op.
    pub op_number: OpNumber,
    /// Checksum of the entry at that op, which the log above it chains to.
    pub checksum: Checksum,
    /// Digest of its [`Manifest`](crate::model::checkpoint::Manifest), compared between replicas.
    pub digest: Checksum,
}

/// The small durable record of a replica; written whole, in two copies.
///
/// Invariants: `log_view <= view`; `view`, `log_view`, `incarnation` and the crash vector never
/// decrease; the certificate never changes once it is there.
///
/// # Source
/// 1988 section 4 (`cur_viewid`), made exact in PROTOCOL.md "State" and "Persistence points".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// The group: hash of its name and founding members.
    pub group: GroupId,
    /// The group's name, for error messages.
    pub group_name: String,
    /// The founding members, for error messages and to refuse a differing list.
    pub members: Membership,
    /// Which member this directory belongs to.
    pub replica: ReplicaId,
    /// The mode that the group runs in.
    pub durability: Durability,
    /// Drawn when the directory was formatted.
    pub disk: DiskId,
    /// The certificate of the group; `None` until this replica has been in status normal.
    pub certificate: Option<Certificate>,
    /// The membership period.
    pub epoch: Epoch,
    /// The promise: this replica acknowledges nothing in a lower view.
    pub view: View,
    /// The latest view whose complete log is installed.
    pub log_view: View,
    /// Whether the log is evidence.
    pub trust: Trust,
    /// How often this replica forgot everything.
    pub incarnation: Incarnation,
    /// What it knows of the others' incarnations.
    pub crash_vector: CrashVector,
    /// The checkpoint that the log starts after.
    pub checkpoint: CheckpointId,
    /// The later epoch that the operator began by force, once this replica was told of it: from
    /// then on the directory takes part in nothing.
    pub superseded_by: Option<Epoch>,
    /// The longest lease that this replica may have granted: its next start waits for it.
    pub lease: Duration,
}

impl Superblock {
    /// The superblock of a directory that was formatted just now.
    #[must_use]
    pub fn blank(identity: &Identity) -> Self {
        Self {
            group: identity.group,
            group_name: identity.group_name.clone(),
            members: identity.members.clone(),
            replica: identity.replica,
            durability: identity.durability,
            disk: identity.fresh_disk,
            certificate: None,
            epoch: Epoch::ZERO,
            view: View::ZERO,
            log_view: View::ZERO,
            trust: Trust::Intact,
            incarnation: Incarnation::ZERO,
            crash_vector: CrashVector::default(),
            checkpoint: CheckpointId {
                op_number: OpNumber::ZERO,
                checksum: genesis_checksum(identity.group),
                digest: Checksum::ZERO,
            },
            superseded_by: None,
            lease: Duration::ZERO,
        }
    }
}

/// The parent of the first entry of a group's log.
#[must_use]
pub fn genesis_checksum(group: GroupId) -> Checksum {
    Checksum::of(&group.0.to_le_bytes())
}

/// Who opens a storage: compared with what the directory says, or written when it is formatted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group: hash of its name and founding members.
    pub group: GroupId,
    /// The group's name.
    pub group_name: String,
    /// The founding members.
    pub members: Membership,
    /// Which member opens.
    pub replica: ReplicaId,
    /// The mode that the group runs in.
    pub durability: Durability,
    /// Becomes the disk id if the directory has to be formatted; random, never used twice.
    pub fresh_disk: DiskId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        for mode in Durability::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("none".parse::<Durability>().is_err());
    }
}
