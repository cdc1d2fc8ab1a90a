//! O1 and O2: what a quorum acknowledged is the one entry at its place, in every later view.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use vr_core::{
    model::{
        entry::EntryHeader,
        membership::Membership,
        message::Committed,
        types::{Checksum, OpNumber, ReplicaId, View},
    },
    ports::storage::WriteBatch,
};

use crate::checker::{Verdict, Violation, durability::Shadow, starts::Starts};

/// The ghost of the log: every op that a quorum acknowledged in one view, whether or not any
/// replica has noticed.
#[derive(Debug)]
pub struct Commits {
    membership: Membership,
    /// Every entry that was ever handed to a disk: its parent.
    parents: BTreeMap<Checksum, Checksum>,
    /// Per view and replica, the highest acknowledgement.
    acknowledged: BTreeMap<View, BTreeMap<ReplicaId, (OpNumber, Checksum)>>,
    /// Per op, the committed entry and the view whose quorum committed it.
    committed: BTreeMap<OpNumber, (Checksum, View)>,
}

impl Commits {
    /// Nothing is committed yet in the group of `membership`.
    #[must_use]
    pub const fn new(membership: Membership) -> Self {
        Self {
            membership,
            parents: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    /// What is in the checkpoint after `base`; who acknowledges more has to say so anew.
    #[must_use]
    pub fn up_to(mut self, base: OpNumber) -> Self {
        self.acknowledged.clear();
        self.committed.retain(|op_number, _| *op_number <= base);
        self
    }

    /// Some replica writes `batch`.
    pub fn writing(&mut self, batch: &WriteBatch) {
        for entry in batch.entries() {
            self.parents.insert(entry.header.checksum, entry.header.parent);
        }
    }

    /// Headers that were said: what their entries follow.
    pub fn learn<'a>(&mut self, headers: impl IntoIterator<Item = &'a EntryHeader>) {
        for header in headers {
            self.parents.insert(header.checksum, header.parent);
        }
    }

    /// `replica` said in `view` that it holds everything through this op.
    ///
    /// # Errors
    /// When that commits an entry which contradicts another committed one, or a started view.
    pub fn acknowledged(
        &mut self,
        replica: ReplicaId,
        view: View,
        ack: (OpNumber, Checksum),
        starts: &Starts,
    ) -> Verdict {
        let acks = self.acknowledged.entry(view).or_default();
        let highest = acks.entry(replica).or_default();
        if ack.0 <= highest.0 {
            return Ok(());
        }
        *highest = ack;
        let mut highest: Vec<_> = acks.values().copied().collect();
        highest.sort_unstable_by_key(|(op_number, _)| Reverse(*op_number));
        let quorum = usize::try_from(self.membership.quorum()).unwrap_or(usize::MAX);
        match highest.get(quorum.saturating_sub(1)) {
            Some((op_number, checksum)) => self.commit(view, *op_number, *checksum, starts),
            None => Ok(()),
        }
    }

    /// `replica` made something durable; at the primary of its view that is an acknowledgement.
    ///
    /// # Errors
    /// As for [`acknowledged`](Self::acknowledged).
    pub fn stored(&mut self, replica: ReplicaId, shadow: &Shadow, starts: &Starts) -> Verdict {
        let view = shadow.view;
        if shadow.log_view != view || self.membership.primary_of(view) != replica {
            return Ok(());
        }
        self.acknowledged(replica, view, shadow.head(), starts)
    }

    /// `view` started with the log of `shadow`.
    ///
    /// # Errors
    /// When an op that was committed in an earlier view is not in it.
    pub fn started(&self, view: View, shadow: &Shadow) -> Verdict {
        for (op_number, (checksum, earlier)) in &self.committed {
            let below = shadow.starts_after(*op_number);
            if *earlier < view && !below && shadow.checksum_at(*op_number) != Some(*checksum) {
                return lost(*op_number, *earlier, view);
            }
        }
        self.announced(view, shadow.head())
    }

    /// `replica` showed entries up to this one, in a prepare or in an answer; of what it prepared
    /// in the view that it leads, that is an acknowledgement.
    ///
    /// # Errors
    /// As for [`acknowledged`](Self::acknowledged).
    pub fn showed(
        &mut self,
        replica: ReplicaId,
        view: View,
        last: &EntryHeader,
        starts: &Starts,
    ) -> Verdict {
        if last.view != view || self.membership.primary_of(view) != replica {
            return Ok(());
        }
        self.acknowledged(replica, view, (last.op_number, last.checksum), starts)
    }

    /// `view` started with the log that ends at `head`, as its primary announced it.
    ///
    /// # Errors
    /// When an op that was committed in an earlier view is not in it.
    pub fn announced(&self, view: View, head: (OpNumber, Checksum)) -> Verdict {
        let (mut at, mut here) = head;
        for (op_number, (checksum, earlier)) in self.committed.iter().rev() {
            while at > *op_number {
                here = self.parents.get(&here).copied().unwrap_or_default();
                at = at.previous();
            }
            if *earlier < view && (at != *op_number || here != *checksum) {
                return lost(*op_number, *earlier, view);
            }
        }
        Ok(())
    }

    /// Whether the log that ends at `head` contains the entry.
    #[must_use]
    pub fn contains(&self, head: (OpNumber, Checksum), entry: (OpNumber, Checksum)) -> bool {
        entry.0 == OpNumber::ZERO || self.chain_contains(head, entry.0, entry.1)
    }

    /// A replica said that `claim` is committed.
    ///
    /// # Errors
    /// When no quorum has acknowledged that entry.
    pub fn claimed(&self, replica: ReplicaId, claim: Committed) -> Verdict {
        let known = self.committed.get(&claim.op_number).map(|(checksum, _)| *checksum);
        if claim.op_number == OpNumber::ZERO || known == Some(claim.checksum) {
            return Ok(());
        }
        let found = format!("r{replica} says that op {} is, {known:?} is known", claim.op_number);
        Err(Violation::new("O1", "committed is what a quorum acknowledged", found))
    }

    /// The last op that a quorum has acknowledged.
    #[must_use]
    pub fn commit_number(&self) -> OpNumber {
        self.committed.last_key_value().map_or(OpNumber::ZERO, |(op_number, _)| *op_number)
    }

    /// Commits the entry and everything below it; all logs of one view are prefixes of one.
    fn commit(
        &mut self,
        view: View,
        op_number: OpNumber,
        checksum: Checksum,
        starts: &Starts,
    ) -> Verdict {
        let (mut at, mut here) = (op_number, checksum);
        while at > OpNumber::ZERO {
            match self.committed.get(&at) {
                Some((known, _)) if *known == here => break,
                Some((known, earlier)) => {
                    let found = format!("op {at}: {known} in view {earlier}, {here} in {view}");
                    return Err(Violation::new("O1", "an op is committed once", found));
                }
                None => {}
            }
            self.committed.insert(at, (here, view));
            for (later, head) in starts.after(view) {
                if !self.chain_contains(head, at, here) {
                    return lost(at, view, later);
                }
            }
            here = self.parents.get(&here).copied().unwrap_or_default();
            at = at.previous();
        }
        Ok(())
    }

    fn chain_contains(
        &self,
        head: (OpNumber, Checksum),
        op_number: OpNumber,
        checksum: Checksum,
    ) -> bool {
        let (mut at, mut here) = head;
        while at > op_number {
            let Some(parent) = self.parents.get(&here) else { return false };
            (at, here) = (at.previous(), *parent);
        }
        at == op_number && here == checksum
    }
}

fn lost(op_number: OpNumber, committed_in: View, view: View) -> Verdict {
    let found = format!("op {op_number}, committed in view {committed_in}, is not in view {view}");
    Err(Violation::new("O2", "a view starts with every op committed before it", found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const R0: ReplicaId = ReplicaId(0);
    const R1: ReplicaId = ReplicaId(1);
    const FIRST: (OpNumber, Checksum) = (OpNumber(1), Checksum(11));
    const OTHER: (OpNumber, Checksum) = (OpNumber(1), Checksum(12));

    fn group() -> (Commits, Starts) {
        let membership = Membership::new((0..3).map(ReplicaId)).unwrap();
        (Commits::new(membership.clone()), Starts::new(membership))
    }

    fn acknowledged(commits: &mut Commits, starts: &Starts, view: u64) {
        for replica in [R0, R1] {
            assert_eq!(commits.acknowledged(replica, View(view), FIRST, starts), Ok(()));
        }
    }

    #[test]
    fn a_quorum_commits_and_one_replica_does_not() {
        let (mut commits, starts) = group();
        assert_eq!(commits.acknowledged(R0, View(0), FIRST, &starts), Ok(()));
        assert_eq!(commits.commit_number(), OpNumber::ZERO);
        acknowledged(&mut commits, &starts, 0);
        assert_eq!(commits.commit_number(), OpNumber(1));
    }

    #[test]
    fn a_second_entry_committed_at_one_place_is_noticed() {
        let (mut commits, starts) = group();
        acknowledged(&mut commits, &starts, 0);
        assert_eq!(commits.acknowledged(R0, View(1), OTHER, &starts), Ok(()));
        let verdict = commits.acknowledged(R1, View(1), OTHER, &starts);
        assert_eq!(verdict.unwrap_err().oracle, "O1");
    }

    #[test]
    fn a_claim_that_no_quorum_backs_is_noticed() {
        let (mut commits, starts) = group();
        let claim = Committed { op_number: FIRST.0, checksum: FIRST.1 };
        assert_eq!(commits.claimed(R0, claim).unwrap_err().oracle, "O1");
        acknowledged(&mut commits, &starts, 0);
        assert_eq!(commits.claimed(R0, claim), Ok(()));
    }

    #[test]
    fn a_view_that_starts_without_a_committed_op_is_noticed() {
        let (mut commits, starts) = group();
        acknowledged(&mut commits, &starts, 0);
        let empty = Shadow::default();
        assert_eq!(commits.started(View(1), &empty).unwrap_err().oracle, "O2");
    }

    #[test]
    fn a_commit_that_a_later_view_lacks_is_noticed_afterwards() {
        let (mut commits, mut starts) = group();
        let empty = Shadow::empty_in(View(1));
        assert_eq!(starts.stored(R1, &empty, |_, _| false), Ok(true));
        assert_eq!(commits.acknowledged(R0, View(0), FIRST, &starts), Ok(()));
        let verdict = commits.acknowledged(R1, View(0), FIRST, &starts);
        assert_eq!(verdict.unwrap_err().oracle, "O2");
    }
}
