//! Who founded the group, and what each replica knows of the others' memory losses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::types::{Checksum, DiskId, Epoch, Incarnation, OpNumber, ReplicaId};

/// Inheritances that a certificate keeps; the oldest make room.
const INHERITED_MAX: usize = 16;

/// The disks that founded the group, with its name and members: proof of one blank instant, or of
/// an operator who gave all of them the same log.
///
/// # Source
/// PROTOCOL.md "Genesis" and "Restarting by force"; no counterpart in the papers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The group's name, as configured.
    pub group_name: String,
    /// Each founding member and the disk it had, sorted by member.
    pub disks: Vec<(ReplicaId, DiskId)>,
    /// The logs that the operator began it with, oldest first; none if it began empty.
    pub inherited: Vec<Inheritance>,
}

/// A log that all disks of a certificate were given before the group ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inheritance {
    /// How that came about.
    pub means: Means,
    /// The membership period that began with it.
    pub epoch: Epoch,
    /// The last op of the log.
    pub op_number: OpNumber,
    /// Checksum of the entry at that op.
    pub checksum: Checksum,
}

/// How a group came to a log that it did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Means {
    /// From an export, as a group of its own.
    Restored,
    /// By force, as the next epoch of a group that lost too much: operations that were
    /// acknowledged before may be missing.
    Forced,
}

/// Hash of a certificate; all zero stands for "none".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct CertificateHash(pub u128);

impl CertificateHash {
    /// What a replica without a certificate says.
    pub const NONE: Self = Self(0);
}

impl Certificate {
    /// The hash that every message of the group carries.
    #[must_use]
    pub fn to_hash(&self) -> CertificateHash {
        let mut bytes = Vec::with_capacity(self.group_name.len() + 8 + 24 * self.disks.len());
        let length = u64::try_from(self.group_name.len()).unwrap_or(u64::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(self.group_name.as_bytes());
        for (replica, disk) in &self.disks {
            bytes.extend_from_slice(&replica.0.to_le_bytes());
            bytes.extend_from_slice(&disk.0.to_le_bytes());
        }
        for Inheritance { means, epoch, op_number, checksum } in &self.inherited {
            bytes.push(match means {
                Means::Restored => 0,
                Means::Forced => 1,
            });
            bytes.extend_from_slice(&epoch.0.to_le_bytes());
            bytes.extend_from_slice(&op_number.0.to_le_bytes());
            bytes.extend_from_slice(&checksum.0.to_le_bytes());
        }
        CertificateHash(Checksum::of(&bytes).0)
    }

    /// Whether `replica` had the disk `disk` when the group was founded.
    #[must_use]
    pub fn names(&self, replica: ReplicaId, disk: DiskId) -> bool {
        self.disks.contains(&(replica, disk))
    }

    /// Notes one more log that the operator gave.
    pub fn inherit(&mut self, inheritance: Inheritance) {
        self.inherited.push(inheritance);
        let surplus = self.inherited.len().saturating_sub(INHERITED_MAX);
        self.inherited.drain(..surplus);
    }

    /// The epoch that began by force with this certificate; `None` if none did.
    #[must_use]
    pub fn begun_by_force(&self) -> Option<Epoch> {
        let last = self.inherited.last().filter(|last| last.means == Means::Forced);
        last.map(|last| last.epoch)
    }

    /// Where operations that were acknowledged may be missing: after each of these ops.
    pub fn forced(&self) -> impl Iterator<Item = &Inheritance> {
        self.inherited.iter().filter(|inheritance| inheritance.means == Means::Forced)
    }
}

/// The latest incarnation that a replica knows of each member.
///
/// Members that never forgot anything are not stored, so the usual vector is empty.
///
/// # Source
/// Michael et al., DISC'17, section 4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<ReplicaId, Incarnation>", into = "BTreeMap<ReplicaId, Incarnation>")]
pub struct CrashVector(Vec<(ReplicaId, Incarnation)>);

impl From<BTreeMap<ReplicaId, Incarnation>> for CrashVector {
    fn from(known: BTreeMap<ReplicaId, Incarnation>) -> Self {
        Self(known.into_iter().collect())
    }
}

impl From<CrashVector> for BTreeMap<ReplicaId, Incarnation> {
    fn from(vector: CrashVector) -> Self {
        vector.0.into_iter().collect()
    }
}

impl CrashVector {
    /// The known incarnation of `replica`.
    #[must_use]
    pub fn of(&self, replica: ReplicaId) -> Incarnation {
        self.place(replica).ok().and_then(|at| self.0.get(at)).map_or(Incarnation::ZERO, |it| it.1)
    }

    /// Takes the larger of both vectors, member by member; true if that changed this one.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut grew = false;
        for (replica, incarnation) in &other.0 {
            grew |= self.learn(*replica, *incarnation);
        }
        grew
    }

    /// Remembers that `replica` reached `incarnation`; true if that is news.
    pub fn learn(&mut self, replica: ReplicaId, incarnation: Incarnation) -> bool {
        if incarnation <= self.of(replica) {
            return false;
        }
        match self.place(replica).map(|at| self.0.get_mut(at)) {
            Ok(known) => known.into_iter().for_each(|known| known.1 = incarnation),
            Err(at) => self.0.insert(at, (replica, incarnation)),
        }
        true
    }

    /// Where `replica` is, or would be: the list is in order of id.
    fn place(&self, replica: ReplicaId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&replica, |known| known.0)
    }

    /// Whether no member is known to have forgotten anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members that forgot something, with their incarnations, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, Incarnation)> + '_ {
        self.0.iter().copied()
    }

    /// How many members are known to have forgotten something.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_takes_the_maximum_of_each_member() {
        let mut one = CrashVector::default();
        one.learn(ReplicaId(1), Incarnation(2));
        let mut other = CrashVector::default();
        other.learn(ReplicaId(1), Incarnation(1));
        other.learn(ReplicaId(2), Incarnation(1));
        assert!(one.join(&other));
        assert!(!one.join(&other));
        assert_eq!((one.of(ReplicaId(1)), one.of(ReplicaId(2))), (Incarnation(2), Incarnation(1)));
    }

    #[test]
    fn another_disk_makes_another_certificate() {
        let certificate = |disk| Certificate {
            group_name: "g".into(),
            disks: vec![(ReplicaId(0), DiskId(disk))],
            inherited: Vec::new(),
        };
        assert_ne!(certificate(1).to_hash(), certificate(2).to_hash());
        assert!(certificate(1).names(ReplicaId(0), DiskId(1)));
        assert!(!certificate(1).names(ReplicaId(0), DiskId(2)));
    }
    #[test]
    fn another_inheritance_makes_another_certificate_and_the_latest_are_kept() {
        let mut certificate =
            Certificate { group_name: "g".into(), disks: Vec::new(), inherited: Vec::new() };
        let inheritance = |epoch| Inheritance {
            means: Means::Forced,
            epoch: Epoch(epoch),
            op_number: OpNumber(7),
            checksum: Checksum(9),
        };
        let empty = certificate.to_hash();
        certificate.inherit(inheritance(1));
        assert_ne!(certificate.to_hash(), empty);
        (2..=40).for_each(|epoch| certificate.inherit(inheritance(epoch)));
        assert_eq!(certificate.forced().count(), INHERITED_MAX);
        assert_eq!(certificate.inherited.last().map(|it| it.epoch), Some(Epoch(40)));
    }
}
