//! Promises to a view, and the choice of the log that it starts from.

use std::collections::BTreeMap;

use crate::model::{
    certificate::CrashVector,
    durable::Trust,
    membership::Membership,
    message::DoViewChange,
    types::{Incarnation, OpNumber, ReplicaId, View},
};

/// One replica's promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// How often the voter had forgotten everything when it promised.
    pub incarnation: Incarnation,
    /// What it knew of the others' incarnations.
    pub crash_vector: CrashVector,
    /// What it promised and contributes.
    pub promise: DoViewChange,
}

/// The promises to one view, at most one per replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    votes: BTreeMap<ReplicaId, Vote>,
}

/// Which log the view starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// More promises are needed.
    Wait,
    /// The log of this replica, which is the latest.
    Adopt {
        /// Whose log.
        from: ReplicaId,
        /// The largest commit number among the promises.
        commit_number: OpNumber,
    },
    /// A promise knows more to be committed than the latest log holds.
    Contradiction {
        /// Whose promise.
        peer: ReplicaId,
        /// What it knows to be committed.
        commit_number: OpNumber,
    },
}

impl Votes {
    /// Counts `vote` for `from`.
    ///
    /// Per sender the newest incarnation wins; otherwise the first intact one, and an intact one
    /// replaces a lost one.
    pub fn insert(&mut self, from: ReplicaId, vote: Vote) {
        if let Some(known) = self.votes.get(&from) {
            let newer = vote.incarnation > known.incarnation;
            let mended = vote.incarnation == known.incarnation
                && known.promise.trust == Trust::Lost
                && vote.promise.trust == Trust::Intact;
            if !newer && !mended {
                return;
            }
        }
        self.votes.insert(from, vote);
    }

    /// Drops promises of earlier lives: a voter that some other vote knows to have forgotten
    /// everything since. Returns who has to be asked again.
    ///
    /// # Source
    /// DISC'17: crash-consistent quorums.
    pub fn prune(&mut self, own: &CrashVector) -> Vec<ReplicaId> {
        let mut known = own.clone();
        for vote in self.votes.values() {
            known.join(&vote.crash_vector);
        }
        let stale: Vec<ReplicaId> = self
            .votes
            .iter()
            .filter(|(voter, vote)| vote.incarnation < known.of(**voter))
            .map(|(voter, _)| *voter)
            .collect();
        for voter in &stale {
            self.votes.remove(voter);
        }
        stale
    }

    /// The promise of `from`.
    #[must_use]
    pub fn of(&self, from: ReplicaId) -> Option<&DoViewChange> {
        self.votes.get(&from).map(|vote| &vote.promise)
    }

    /// Who promised, with what, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &DoViewChange)> {
        self.votes.iter().map(|(voter, vote)| (*voter, &vote.promise))
    }

    /// Which log the view starts from, or why not yet. Pure.
    ///
    /// # Source
    /// 1988 section 4 (the three conditions), VRR §4.2 step 3, PROTOCOL.md "View change".
    #[must_use]
    pub fn choose_log(&self, membership: &Membership) -> Choice {
        let intact = || self.iter().filter(|(_, vote)| vote.trust == Trust::Intact);
        let total = u32::try_from(self.votes.len()).unwrap_or(u32::MAX);
        let Some(latest) = intact().map(|(_, vote)| vote.log_view).max() else {
            return Choice::Wait;
        };
        if total < membership.quorum() || !self.forms_a_view(latest, membership) {
            return Choice::Wait;
        }
        let best = intact().max_by_key(|(voter, vote)| {
            (vote.log_view, vote.op_number, core::cmp::Reverse(*voter))
        });
        let committed = self.iter().max_by_key(|(_, vote)| vote.commit_number);
        match (best, committed) {
            (Some((_, log)), Some((peer, vote))) if vote.commit_number > log.op_number => {
                Choice::Contradiction { peer, commit_number: vote.commit_number }
            }
            (Some((from, _)), Some((_, vote))) => {
                Choice::Adopt { from, commit_number: vote.commit_number }
            }
            (None, _) | (_, None) => Choice::Wait,
        }
    }

    /// The conditions of 1988 under which lost participants may complete a quorum.
    fn forms_a_view(&self, latest: View, membership: &Membership) -> bool {
        let intact = self.iter().filter(|(_, vote)| vote.trust == Trust::Intact).count();
        if u32::try_from(intact).unwrap_or(u32::MAX) >= membership.quorum() {
            return true;
        }
        let lost = self.iter().filter(|(_, vote)| vote.trust == Trust::Lost);
        let Some(forgotten) = lost.map(|(_, vote)| vote.log_view).max() else { return false };
        let primary_stands = || {
            self.of(membership.primary_of(latest)).is_some_and(|vote| {
                vote.trust == Trust::Intact && vote.log_view == latest && vote.unbroken
            })
        };
        forgotten < latest || (forgotten == latest && primary_stands())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{durable::CheckpointId, types::Checksum};

    fn promise(log_view: u64, op: u64, commit: u64, trust: Trust, unbroken: bool) -> DoViewChange {
        DoViewChange {
            view: View(9),
            log_view: View(log_view),
            op_number: OpNumber(op),
            head: Checksum(u128::from(op)),
            commit_number: OpNumber(commit),
            checkpoint: CheckpointId::default(),
            suffix: Vec::new(),
            trust,
            unbroken,
        }
    }

    fn votes(list: &[(u64, DoViewChange)]) -> Votes {
        let mut votes = Votes::default();
        for (from, promise) in list {
            let vote = Vote {
                incarnation: Incarnation::ZERO,
                crash_vector: CrashVector::default(),
                promise: promise.clone(),
            };
            votes.insert(ReplicaId(*from), vote);
        }
        votes
    }

    fn group() -> Membership {
        Membership::new((0..3).map(ReplicaId)).unwrap()
    }

    fn adopt(from: u64, commit: u64) -> Choice {
        Choice::Adopt { from: ReplicaId(from), commit_number: OpNumber(commit) }
    }

    #[test]
    fn the_later_log_view_beats_the_longer_log() {
        let votes = votes(&[
            (0, promise(1, 9, 3, Trust::Intact, false)),
            (1, promise(2, 4, 2, Trust::Intact, false)),
        ]);
        assert_eq!(votes.choose_log(&group()), adopt(1, 3));
    }

    #[test]
    fn the_longer_log_wins_within_a_log_view() {
        let votes = votes(&[
            (0, promise(2, 9, 3, Trust::Intact, false)),
            (1, promise(2, 4, 4, Trust::Intact, false)),
        ]);
        assert_eq!(votes.choose_log(&group()), adopt(0, 4));
    }

    #[test]
    fn a_minority_decides_nothing() {
        let votes = votes(&[(0, promise(2, 9, 3, Trust::Intact, true))]);
        assert_eq!(votes.choose_log(&group()), Choice::Wait);
    }

    #[test]
    fn a_lost_voter_counts_when_it_only_knew_older_views() {
        let votes = votes(&[
            (0, promise(2, 9, 3, Trust::Intact, false)),
            (1, promise(1, 0, 0, Trust::Lost, false)),
        ]);
        assert_eq!(votes.choose_log(&group()), adopt(0, 3));
    }

    #[test]
    fn a_lost_voter_of_the_latest_view_needs_its_unbroken_primary() {
        let lost = (1, promise(3, 0, 0, Trust::Lost, false));
        let broken = votes(&[(0, promise(3, 9, 3, Trust::Intact, false)), lost.clone()]);
        assert_eq!(broken.choose_log(&group()), Choice::Wait);
        let unbroken = votes(&[(0, promise(3, 9, 3, Trust::Intact, true)), lost]);
        assert_eq!(unbroken.choose_log(&group()), adopt(0, 3));
    }

    #[test]
    fn more_committed_than_the_latest_log_holds_is_a_contradiction() {
        let votes = votes(&[
            (0, promise(2, 4, 3, Trust::Intact, false)),
            (1, promise(1, 9, 8, Trust::Intact, false)),
        ]);
        assert!(matches!(votes.choose_log(&group()), Choice::Contradiction { .. }));
    }

    #[test]
    fn a_promise_of_an_earlier_life_is_dropped() {
        let mut votes = votes(&[
            (0, promise(2, 4, 3, Trust::Intact, false)),
            (1, promise(2, 4, 3, Trust::Intact, false)),
        ]);
        let mut known = CrashVector::default();
        known.learn(ReplicaId(1), Incarnation(1));
        assert_eq!(votes.prune(&known), [ReplicaId(1)]);
        assert_eq!(votes.choose_log(&group()), Choice::Wait);
    }

    #[test]
    fn an_intact_promise_replaces_a_lost_one_and_not_the_other_way() {
        let mut votes = votes(&[
            (0, promise(2, 0, 0, Trust::Lost, false)),
            (0, promise(2, 4, 3, Trust::Intact, false)),
            (0, promise(2, 0, 0, Trust::Lost, false)),
        ]);
        assert_eq!(votes.of(ReplicaId(0)).unwrap().trust, Trust::Intact);
        assert!(votes.prune(&CrashVector::default()).is_empty());
    }

    proptest! {
        #[test]
        fn no_intact_log_beats_the_chosen_one(
            logs in proptest::collection::vec((0_u64..4, 0_u64..6), 2..=3)
        ) {
            let list: Vec<_> = (0_u64..).zip(&logs)
                .map(|(id, (view, op))| (id, promise(*view, *op, 0, Trust::Intact, false)))
                .collect();
            let votes = votes(&list);
            let Choice::Adopt { from, .. } = votes.choose_log(&group()) else {
                return Err(TestCaseError::fail("a quorum of intact logs decides"));
            };
            let best = votes.of(from).unwrap();
            for (_, vote) in votes.iter() {
                prop_assert!((vote.log_view, vote.op_number) <= (best.log_view, best.op_number));
            }
        }
    }
}
