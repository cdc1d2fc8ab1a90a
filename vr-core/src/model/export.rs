//! What a part of a log says about itself when it leaves its replica: whose it is, and how far.

use serde::{Deserialize, Serialize};

use crate::model::{
    certificate::Certificate,
    durable::{CheckpointId, Durability, Trust},
    membership::Membership,
    types::{Checksum, Epoch, GroupId, OpNumber, ReplicaId, View},
};

/// Whose log it is, what its replica had promised, and where it ends.
///
/// Invariants: the entries behind it are those above the checkpoint, up to and including
/// `op_number`; `checkpoint.op_number <= op_number`; `log_view <= view`; `epoch <= latest_epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFacts {
    /// The group: hash of its name and founding members.
    pub group: GroupId,
    /// The group's name.
    pub group_name: String,
    /// The founding members.
    pub members: Membership,
    /// The mode that the group runs in.
    pub durability: Durability,
    /// Whose log it is.
    pub replica: ReplicaId,
    /// The certificate of the group.
    pub certificate: Certificate,
    /// The membership period.
    pub epoch: Epoch,
    /// The latest one that the replica was told of: its own, or one that was begun by force.
    pub latest_epoch: Epoch,
    /// What the replica had promised.
    pub view: View,
    /// The view whose complete log it had.
    pub log_view: View,
    /// Whether the log is as complete as the replica ever acknowledged.
    pub trust: Trust,
    /// The checkpoint that the log starts after; of op 0 for a log from op 1.
    pub checkpoint: CheckpointId,
    /// The last op that the replica knew to be committed; after a restart none but those of its
    /// checkpoint.
    pub commit_number: OpNumber,
    /// The last op that is included.
    pub op_number: OpNumber,
    /// Checksum of the entry at that op; the parent of the first one if there is none.
    pub checksum: Checksum,
}

impl LogFacts {
    /// Which of two logs of one group is to be preferred: the one of the later epoch, then of the
    /// later view, then the longer one. A log that is not evidence comes last.
    ///
    /// # Source
    /// VRR §4.2 step 3.
    #[must_use]
    pub fn rank(&self) -> (bool, Epoch, View, OpNumber) {
        (self.trust == Trust::Intact, self.epoch, self.log_view, self.op_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::membership::Members;

    #[test]
    fn the_later_view_counts_more_than_the_longer_log() {
        let members = Members::local(3).unwrap().to_membership();
        let facts = |log_view, op_number, trust| LogFacts {
            group: members.group_id("g"),
            group_name: "g".into(),
            members: members.clone(),
            durability: Durability::Full,
            replica: ReplicaId(0),
            certificate: Certificate {
                group_name: "g".into(),
                disks: Vec::new(),
                inherited: Vec::new(),
            },
            epoch: Epoch::ZERO,
            latest_epoch: Epoch::ZERO,
            view: View(9),
            log_view: View(log_view),
            trust,
            checkpoint: CheckpointId::default(),
            commit_number: OpNumber::ZERO,
            op_number: OpNumber(op_number),
            checksum: Checksum::ZERO,
        };
        let (short, long) = (facts(3, 5, Trust::Intact), facts(2, 90, Trust::Intact));
        assert!(short.rank() > long.rank());
        assert!(facts(2, 91, Trust::Intact).rank() > long.rank());
        assert!(long.rank() > facts(8, 99, Trust::Lost).rank());
    }
}
