//! What the others say to a replica that forgot everything, until it is enough to believe.

use std::collections::BTreeMap;

use crate::{
    model::{
        certificate::{Certificate, CertificateHash, CrashVector},
        membership::Membership,
        message::StartView,
        types::{Epoch, Incarnation, Nonce, ReplicaId, View},
    },
    state::{plan::Plan, promise::Rebuilt},
};

/// Why a disk is formatted anew, although it belonged to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reformatting {
    /// A quorum of the others belong to a group that other disks founded.
    OtherCertificate {
        /// Who told last.
        told_by: ReplicaId,
    },
    /// The others know of a later life of this replica: the disk is an old one, put back.
    EarlierLife {
        /// Who told.
        told_by: ReplicaId,
    },
}

/// Why a disk that belonged to a group does not count any more, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It is formatted anew.
    Reformatting(Reformatting),
    /// It stays as it is, for it may hold what the group lost, but takes part in nothing: the
    /// operator began this epoch by force, without it.
    Superseded(Epoch),
}

/// The way back of a replica whose disk is not the one that its group knows.
///
/// First it learns its next incarnation from a quorum of others; then a quorum of others, who have
/// noted this incarnation durably, tell it where the group is.
///
/// Invariants: `incarnation` is zero until the first step is done, and in the crash vector from
/// then on; no response that is kept is from an earlier life of its sender.
///
/// # Source
/// DISC'17 (crash-consistent quorums); PROTOCOL.md "Replicas that forgot everything".
#[derive(Clone, Debug)]
pub struct Rebuild {
    me: ReplicaId,
    certificate: Certificate,
    hash: CertificateHash,
    epoch: Epoch,
    nonce: Nonce,
    incarnation: Incarnation,
    crash_vector: CrashVector,
    responses: BTreeMap<ReplicaId, Response>,
    /// How often the current question left.
    pub asked: u32,
    /// Whether it leaves at the next drain.
    pub ask_due: bool,
    /// The log that is put together.
    pub plan: Option<Plan>,
    /// The view whose log that is.
    pub view: View,
}

/// What one of the others said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// How often its sender had forgotten everything.
    pub incarnation: Incarnation,
    /// What it knows of incarnations.
    pub crash_vector: CrashVector,
    /// The view that it is normal in.
    pub view: View,
    /// The log of that view, if it is the primary.
    pub start: Option<StartView>,
}

/// What a response changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It counts.
    Yes,
    /// It does not; the question has to be asked again.
    No,
    /// This replica has forgotten everything once more than it thought, and begins again.
    StartOver,
}

impl Rebuild {
    /// A replica that was told `certificate`, in `epoch`, and knows nothing else.
    #[must_use]
    pub fn new(me: ReplicaId, certificate: Certificate, epoch: Epoch, nonce: Nonce) -> Self {
        Self {
            me,
            hash: certificate.to_hash(),
            certificate,
            epoch,
            nonce,
            incarnation: Incarnation::ZERO,
            crash_vector: CrashVector::default(),
            responses: BTreeMap::new(),
            asked: 0,
            ask_due: true,
            plan: None,
            view: View::ZERO,
        }
    }

    /// Hash of the certificate that was told.
    #[must_use]
    pub const fn hash(&self) -> CertificateHash {
        self.hash
    }

    /// The group's membership period.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The question that is open.
    #[must_use]
    pub const fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// The new incarnation; zero while it is not known.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// What is known of incarnations, the new one of this replica included.
    #[must_use]
    pub const fn crash_vector(&self) -> &CrashVector {
        &self.crash_vector
    }

    /// Who has answered the question that is open.
    pub fn heard(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.responses.keys().copied()
    }

    /// Asks again, under another name: what answers the old question does not count any more.
    pub fn ask_again(&mut self, nonce: Nonce) {
        self.nonce = nonce;
        self.responses.clear();
        self.plan = None;
        self.ask_due = true;
    }

    /// First step: another replica told what it knows of incarnations. With the answers of
    /// `quorum` others the new incarnation is known; true then, and the second step begins.
    pub fn crash_vector_is(&mut self, from: ReplicaId, response: Response, quorum: u32) -> bool {
        self.crash_vector.join(&response.crash_vector);
        self.responses.insert(from, response);
        if !self.has(quorum) {
            return false;
        }
        self.incarnation = self.crash_vector.of(self.me).next();
        self.crash_vector.learn(self.me, self.incarnation);
        self.asked = 0;
        true
    }

    /// Second step: another replica told where the group is.
    pub fn respond(&mut self, from: ReplicaId, response: Response) -> Counted {
        let known = response.crash_vector.of(self.me);
        if known > self.incarnation {
            self.crash_vector.join(&response.crash_vector);
            self.incarnation = Incarnation::ZERO;
            return Counted::StartOver;
        }
        if known < self.incarnation || response.incarnation < self.crash_vector.of(from) {
            return Counted::No;
        }
        self.crash_vector.join(&response.crash_vector);
        self.responses.insert(from, response);
        let crash_vector = &self.crash_vector;
        let before = self.responses.len();
        self.responses.retain(|from, stored| stored.incarnation >= crash_vector.of(*from));
        if self.responses.len() == before { Counted::Yes } else { Counted::No }
    }

    /// The log to install: the one of the primary of the highest view among the responses of a
    /// quorum of others. A primary alone is not enough, nor is a quorum without it.
    #[must_use]
    pub fn outcome(&self, membership: &Membership) -> Option<(ReplicaId, &StartView)> {
        if !self.has(membership.quorum()) {
            return None;
        }
        let view = self.responses.values().map(|response| response.view).max()?;
        let primary = membership.primary_of(view);
        let response = self.responses.get(&primary)?;
        response.start.as_ref().filter(|start| start.view == view).map(|start| (primary, start))
    }

    /// What becomes durable together with the log.
    #[must_use]
    pub fn to_rebuilt(&self) -> Rebuilt {
        Rebuilt {
            certificate: self.certificate.clone(),
            epoch: self.epoch,
            view: self.view,
            incarnation: self.incarnation,
            crash_vector: self.crash_vector.clone(),
        }
    }

    fn has(&self, quorum: u32) -> bool {
        u32::try_from(self.responses.len()).unwrap_or(u32::MAX) >= quorum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        durable::CheckpointId,
        membership::Members,
        types::{Checksum, OpNumber},
    };

    const ME: ReplicaId = ReplicaId(2);

    fn rebuild() -> Rebuild {
        let certificate =
            Certificate { group_name: "g".into(), disks: Vec::new(), inherited: Vec::new() };
        Rebuild::new(ME, certificate, Epoch::ZERO, Nonce(1))
    }

    fn response(view: u64, leads: bool, known: &[(u64, u64)]) -> Response {
        let mut crash_vector = CrashVector::default();
        for (replica, incarnation) in known {
            crash_vector.learn(ReplicaId(*replica), Incarnation(*incarnation));
        }
        let start = StartView {
            view: View(view),
            op_number: OpNumber::ZERO,
            head: Checksum::ZERO,
            commit_number: OpNumber::ZERO,
            checkpoint: CheckpointId::default(),
            suffix: Vec::new(),
            nonce: None,
        };
        Response {
            incarnation: Incarnation::ZERO,
            crash_vector,
            view: View(view),
            start: leads.then_some(start),
        }
    }

    /// Past the first step, in which replica 0 knew of one earlier loss.
    fn second_step() -> Rebuild {
        let mut rebuild = rebuild();
        assert!(!rebuild.crash_vector_is(ReplicaId(0), response(0, false, &[(2, 1)]), 2));
        assert!(rebuild.crash_vector_is(ReplicaId(1), response(0, false, &[]), 2));
        rebuild.ask_again(Nonce(2));
        rebuild
    }

    fn of(members: u64) -> Membership {
        Members::local(members).unwrap().to_membership()
    }

    #[test]
    fn the_new_incarnation_follows_the_highest_that_anybody_knows() {
        let rebuild = second_step();
        assert_eq!(rebuild.incarnation(), Incarnation(2));
        assert_eq!(rebuild.crash_vector().of(ME), Incarnation(2));
    }

    #[test]
    fn a_response_counts_only_when_its_sender_knows_the_new_incarnation() {
        let mut rebuild = second_step();
        assert_eq!(rebuild.respond(ReplicaId(0), response(0, true, &[(2, 1)])), Counted::No);
        assert_eq!(rebuild.respond(ReplicaId(0), response(0, true, &[(2, 2)])), Counted::Yes);
        assert_eq!(
            rebuild.respond(ReplicaId(1), response(0, false, &[(2, 3)])),
            Counted::StartOver
        );
    }

    #[test]
    fn a_primary_alone_is_not_enough_nor_is_a_quorum_without_it() {
        let mut rebuild = second_step();
        rebuild.respond(ReplicaId(0), response(3, true, &[(2, 2)]));
        assert!(rebuild.outcome(&of(3)).is_none());
        rebuild.respond(ReplicaId(1), response(3, false, &[(2, 2)]));
        let (primary, start) = rebuild.outcome(&of(3)).unwrap();
        assert_eq!((primary, start.view), (ReplicaId(0), View(3)));
        let mut rebuild = second_step();
        rebuild.respond(ReplicaId(0), response(3, true, &[(2, 2)]));
        rebuild.respond(ReplicaId(1), response(4, false, &[(2, 2)]));
        assert!(rebuild.outcome(&of(3)).is_none(), "the primary of view 4 has not answered");
    }

    #[test]
    fn a_response_of_an_earlier_life_is_dropped_when_that_becomes_known() {
        let mut rebuild = second_step();
        rebuild.respond(ReplicaId(0), response(3, true, &[(2, 2)]));
        assert_eq!(
            rebuild.respond(ReplicaId(1), response(3, false, &[(0, 1), (2, 2)])),
            Counted::No
        );
        assert!(rebuild.outcome(&of(3)).is_none());
        assert_eq!(rebuild.heard().collect::<Vec<_>>(), [ReplicaId(1)]);
    }
}
