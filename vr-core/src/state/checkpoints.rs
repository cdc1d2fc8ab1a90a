//! Which checkpoints there are: when the next is due, what was told of them, which one counts.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::model::{
    durable::CheckpointId,
    entry::{EntryHeader, Run},
    time::Instant,
    types::{OpNumber, ReplicaIndex, ReplicaSet},
};

/// Checkpoints of this replica that are remembered until one of them is agreed on.
const OWN_MAX: usize = 4;
/// Agreed ones that are remembered until a later one is held here: more than fit into the log.
const AGREED_MAX: usize = 64;
/// Checkpoints of all replicas that are counted at a time.
const TOLD_MAX: usize = 16;
/// Parts that are read for others at a time.
const SERVES_MAX: u32 = 32;

/// The checkpoints of a replica, and what it knows of the others'.
///
/// A checkpoint is *taken* when its bytes are complete in local storage, *agreed* when a quorum has
/// told the primary of it with one digest, and *held* when it is agreed and this replica's own is the
/// same; in a mode with a log on disk, only once the superblock names it. Nothing is released for
/// one that is not held.
///
/// Invariants: `held.op_number <= agreed.op_number` but for one that was installed; what is in `own`
/// is above `held`.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    held: CheckpointId,
    /// The one held before it: others may be fetching it.
    before: Option<CheckpointId>,
    own: BTreeMap<OpNumber, CheckpointId>,
    agreed: CheckpointId,
    /// Those agreed on before it, above `held`.
    agreed_before: BTreeMap<OpNumber, CheckpointId>,
    told: BTreeMap<CheckpointId, ReplicaSet>,
    /// The last op of which no quorum can agree on one any more.
    disagreed: OpNumber,
    /// The last op after which one was due, or is held.
    last: OpNumber,
    /// Bytes of the entries since.
    bytes: u64,
    /// One is being taken.
    taking: bool,
    /// The last op of the log at the last heartbeat, and since when heartbeats found it so.
    rested: (OpNumber, Instant),
    /// What others fetch, and until when it stays for them.
    served: BTreeMap<CheckpointId, Instant>,
    /// Questions of others that storage has not answered.
    serving: u32,
}

/// What is wrong between this replica's checkpoint and that of a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differs {
    /// This replica's.
    pub ours: CheckpointId,
    /// The quorum's.
    pub theirs: CheckpointId,
}

impl Checkpoints {
    /// The state is the one of `held`.
    #[must_use]
    pub const fn new(held: CheckpointId) -> Self {
        Self {
            held,
            before: None,
            own: BTreeMap::new(),
            agreed: held,
            agreed_before: BTreeMap::new(),
            told: BTreeMap::new(),
            disagreed: OpNumber::ZERO,
            last: held.op_number,
            bytes: 0,
            taking: false,
            rested: (OpNumber::ZERO, Instant::ZERO),
            served: BTreeMap::new(),
            serving: 0,
        }
    }

    /// The checkpoint that the log may start after.
    #[must_use]
    pub const fn held(&self) -> CheckpointId {
        self.held
    }

    /// The latest one that a quorum agrees on, as far as this replica was told.
    #[must_use]
    pub const fn agreed(&self) -> CheckpointId {
        self.agreed
    }

    /// The latest one that is complete here, agreed on or not.
    #[must_use]
    pub fn latest(&self) -> CheckpointId {
        self.own.last_key_value().map_or(self.held, |(_, own)| *own)
    }

    /// Those that are complete here, and not held.
    #[must_use]
    pub fn taken_here(&self) -> Vec<CheckpointId> {
        self.own.values().copied().collect()
    }

    /// The entry with `header` is handed to the executor; whether a checkpoint is due behind it.
    ///
    /// Only the log decides, so that all replicas take theirs after the same ops: after each multiple
    /// of `ops_max`, wherever the count began, and after so many bytes since the last one.
    pub fn is_due(&mut self, header: &EntryHeader, ops_max: u64, bytes_max: u64) -> bool {
        self.bytes = self.bytes.saturating_add(header.entry_bytes());
        let Some(rest) = header.op_number.0.checked_rem(ops_max) else { return false };
        let due = rest == 0 || self.bytes >= bytes_max;
        if due {
            self.last = header.op_number;
            self.bytes = 0;
        }
        due
    }

    /// Entries are handed to the executor, in order; the position of the first one behind which a
    /// checkpoint is due, and nothing behind it counts as handed over.
    pub fn first_due(&mut self, run: &Run, ops_max: u64, bytes_max: u64) -> Option<usize> {
        if self.is_none_due(run, ops_max, bytes_max) {
            self.bytes = self.bytes.saturating_add(run.bytes());
            return None;
        }
        run.iter().position(|entry| self.is_due(&entry.header, ops_max, bytes_max))
    }

    /// What [`is_due`](Self::is_due) would say of none of `run`, without going through it.
    fn is_none_due(&self, run: &Run, ops_max: u64, bytes_max: u64) -> bool {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return true };
        let multiples = |op_number: OpNumber| op_number.0.checked_div(ops_max).unwrap_or(0);
        let before = first.header.op_number.previous();
        ops_max == 0
            || (multiples(before) == multiples(last.header.op_number)
                && self.bytes.saturating_add(run.bytes()) < bytes_max)
    }

    /// The last op after which one was due here, or is held.
    #[must_use]
    pub const fn due(&self) -> OpNumber {
        self.last
    }

    /// The last op of which no quorum can agree on one any more, if none after it was agreed on.
    #[must_use]
    pub fn differing(&self) -> Option<OpNumber> {
        Some(self.disagreed).filter(|disagreed| *disagreed > self.agreed.op_number)
    }

    /// Whether the one that is due is to be taken; not while another still is.
    pub const fn begin(&mut self) -> bool {
        !core::mem::replace(&mut self.taking, true)
    }

    /// A heartbeat with `head` as the log's last op: for how long heartbeats have found it so.
    pub fn rests(&mut self, now: Instant, head: OpNumber) -> Duration {
        if self.rested.0 != head {
            self.rested = (head, now);
        }
        self.resting_for(now, head)
    }

    /// For how long `head` has been the log's last op, as far as heartbeats found it so.
    #[must_use]
    pub fn resting_for(&self, now: Instant, head: OpNumber) -> Duration {
        let (rested, since) = self.rested;
        if rested == head { now.since(since) } else { Duration::ZERO }
    }

    /// This replica's own is complete.
    ///
    /// # Errors
    /// [`Differs`] when a quorum has another one after the same op.
    pub fn taken(&mut self, id: CheckpointId) -> Result<(), Differs> {
        self.taking = false;
        if id.op_number > self.held.op_number {
            self.own.insert(id.op_number, id);
            while self.own.len() > OWN_MAX {
                self.own.pop_first();
            }
        }
        match self.agreed_after(id.op_number) {
            Some(agreed) => self.compare(agreed),
            None => Ok(()),
        }
    }

    /// The one after `op_number` that a quorum agrees on, if that is remembered.
    fn agreed_after(&self, op_number: OpNumber) -> Option<CheckpointId> {
        let latest = (self.agreed.op_number == op_number).then_some(self.agreed);
        latest.or_else(|| self.agreed_before.get(&op_number).copied())
    }

    /// The voter at `index` has taken `id`, and nothing else after the same op any more: it may have
    /// executed again, with what was mended. Returns the latest one that `quorum` voters have taken
    /// alike, if that is news.
    pub fn told(
        &mut self,
        index: ReplicaIndex,
        id: CheckpointId,
        quorum: u32,
    ) -> Option<CheckpointId> {
        if id.op_number <= self.agreed.op_number || id.op_number < self.disagreed {
            return None;
        }
        let others = self.told.iter_mut().filter(|(told, _)| told.op_number == id.op_number);
        others.for_each(|(_, voters)| voters.remove(index));
        self.told.retain(|_, voters| !voters.is_empty());
        let voters = self.told.entry(id).or_default();
        voters.insert(index);
        let agreed = voters.len() >= quorum;
        while self.told.len() > TOLD_MAX {
            self.told.pop_first();
        }
        agreed.then_some(id)
    }

    /// The op of which all `voters` have told, and no quorum the same; once for each.
    pub fn disagreement(&mut self, voters: u32) -> Option<OpNumber> {
        let mut ops: BTreeMap<OpNumber, (u32, u32)> = BTreeMap::new();
        for (id, told) in &self.told {
            let (kinds, count) = ops.entry(id.op_number).or_default();
            *kinds += 1;
            *count += told.len();
        }
        ops.retain(|op_number, _| *op_number > self.disagreed);
        let all = ops.into_iter().find(|(_, (kinds, count))| *kinds > 1 && *count >= voters);
        let (op_number, _) = all?;
        self.disagreed = op_number;
        self.told.retain(|told, _| told.op_number >= op_number);
        Some(op_number)
    }

    /// A quorum has `id`: what was told of earlier ones is settled.
    ///
    /// # Errors
    /// [`Differs`] when this replica has another one after the same op.
    pub fn agree(&mut self, id: CheckpointId) -> Result<(), Differs> {
        if id.op_number > self.agreed.op_number {
            let before = core::mem::replace(&mut self.agreed, id);
            if before.op_number > self.held.op_number {
                self.agreed_before.insert(before.op_number, before);
            }
            while self.agreed_before.len() > AGREED_MAX {
                self.agreed_before.pop_first();
            }
            self.told.retain(|told, _| told.op_number > id.op_number);
        }
        self.compare(id)
    }

    fn compare(&self, agreed: CheckpointId) -> Result<(), Differs> {
        match self.own.get(&agreed.op_number) {
            Some(ours) if *ours != agreed => Err(Differs { ours: *ours, theirs: agreed }),
            Some(_) | None => Ok(()),
        }
    }

    /// The latest agreed one that this replica has taken too and does not hold yet. Who writes slowly
    /// has one complete when a later one is agreed on already.
    #[must_use]
    pub fn to_hold(&self) -> Option<CheckpointId> {
        let agrees = |own: &&CheckpointId| self.agreed_after(own.op_number) == Some(**own);
        self.own.values().rev().find(agrees).copied()
    }

    /// `id` counts from now on; false if it did before.
    pub fn hold(&mut self, id: CheckpointId) -> bool {
        if id.op_number <= self.held.op_number {
            return false;
        }
        self.before = (self.held.op_number > OpNumber::ZERO).then_some(self.held);
        self.held = id;
        if id.op_number > self.agreed.op_number {
            self.agreed = id;
        }
        self.own = self.own.split_off(&id.op_number.next());
        self.agreed_before = self.agreed_before.split_off(&id.op_number.next());
        true
    }

    /// The next one is due behind the one after `op_number`, above which entries with these `bytes`
    /// are handed to the executor.
    pub const fn restart_at(&mut self, op_number: OpNumber, bytes: u64) {
        self.last = op_number;
        self.bytes = bytes;
    }

    /// Nothing came of the checkpoint that was being taken: the executor went on from another state.
    pub const fn forget_taking(&mut self) {
        self.taking = false;
    }

    /// A voter fetches `id`, which stays until then for it; false if it is not here.
    pub fn serves(&mut self, id: CheckpointId, until: Instant) -> bool {
        let here = id == self.held || Some(id) == self.before || self.served.contains_key(&id);
        let serves = here && id.op_number > OpNumber::ZERO;
        if serves {
            self.served.insert(id, until);
        }
        serves
    }

    /// Forgets what nobody has fetched from for so long that it does not have to stay any more.
    pub fn tidy(&mut self, now: Instant) {
        self.served.retain(|_, until| *until > now);
    }

    /// Whether storage may be asked on behalf of one more peer's question.
    pub const fn begin_serve(&mut self) -> bool {
        let room = self.serving < SERVES_MAX;
        self.serving += if room { 1 } else { 0 };
        room
    }

    /// Storage answered one.
    pub const fn end_serve(&mut self) {
        self.serving = self.serving.saturating_sub(1);
    }

    /// Up to which op the log is not needed, if the last `retained` ops below the held checkpoint
    /// stay: whoever fetches one goes on from the log.
    #[must_use]
    pub fn releasable(&self, retained: u64) -> OpNumber {
        let held = OpNumber(self.held.op_number.0.saturating_sub(retained));
        let fetched = self.served.keys().map(|id| id.op_number).min();
        held.min(fetched.unwrap_or(held))
    }

    /// Those that are needed in local storage.
    #[must_use]
    pub fn needed(&self) -> Vec<CheckpointId> {
        let own = self.own.values().copied();
        let served = self.served.keys().copied();
        own.chain(self.before).chain(served).chain([self.held]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::Entry;
    use crate::model::types::Checksum;

    const QUORUM: u32 = 2;

    fn id(op: u64, digest: u128) -> CheckpointId {
        CheckpointId {
            op_number: OpNumber(op),
            checksum: Checksum(u128::from(op)),
            digest: Checksum(digest),
        }
    }

    fn checkpoints() -> Checkpoints {
        Checkpoints::new(id(0, 0))
    }

    fn header(op: u64, payload: u32) -> EntryHeader {
        EntryHeader { op_number: OpNumber(op), payload_length: payload, ..EntryHeader::default() }
    }

    #[test]
    fn one_is_due_by_ops_or_by_bytes_and_by_the_log_alone() {
        let mut checkpoints = checkpoints();
        let due: Vec<u64> =
            (1..=20).filter(|op| checkpoints.is_due(&header(*op, 0), 8, 1 << 20)).collect();
        assert_eq!((due, checkpoints.due()), (vec![8, 16], OpNumber(16)));
        assert!(!checkpoints.is_due(&header(21, 0), 8, 4096));
        assert!(checkpoints.is_due(&header(22, 4000), 8, 4096));
        assert!(
            checkpoints.is_due(&header(24, 0), 8, 4096),
            "after the same ops, whatever was before"
        );
        assert!(!checkpoints.is_due(&header(99, 4000), 0, 1), "0 ops: none ever");
    }

    /// Looked at as a whole or entry by entry, the same is due.
    #[test]
    fn a_run_is_cut_where_one_of_its_entries_is_due() {
        for (ops_max, bytes_max) in [(0, 1), (1, 1 << 20), (3, 1 << 20), (7, 300), (100, 512)] {
            let (mut whole, mut single) = (checkpoints(), checkpoints());
            let mut op = 0;
            for length in [1, 2, 5, 1, 3, 8, 1, 1, 4] {
                let entries = (op + 1..=op + length)
                    .map(|op| Entry { header: header(op, 40), ..Entry::default() });
                op += length;
                let mut run = Run::from(entries.collect::<Vec<_>>());
                while !run.is_empty() {
                    let due = whole.first_due(&run, ops_max, bytes_max);
                    let each =
                        run.iter().position(|it| single.is_due(&it.header, ops_max, bytes_max));
                    assert_eq!(due, each, "{ops_max}, {bytes_max}, through {op}");
                    run = due.map_or_else(Run::default, |due| run.part(due + 1, usize::MAX));
                }
                assert_eq!(whole.due(), single.due());
            }
        }
    }

    #[test]
    fn a_quorum_with_one_digest_agrees() {
        let mut checkpoints = checkpoints();
        assert_eq!(checkpoints.told(ReplicaIndex(0), id(8, 1), QUORUM), None);
        assert_eq!(checkpoints.told(ReplicaIndex(0), id(8, 1), QUORUM), None, "twice the same");
        assert_eq!(checkpoints.told(ReplicaIndex(1), id(8, 2), QUORUM), None);
        assert_eq!(checkpoints.told(ReplicaIndex(2), id(8, 1), QUORUM), Some(id(8, 1)));
        checkpoints.agree(id(8, 1)).unwrap();
        assert_eq!(checkpoints.told(ReplicaIndex(1), id(8, 1), QUORUM), None, "not news");
    }

    #[test]
    fn who_has_another_digest_than_the_quorum_is_told_so_whichever_came_first() {
        let mut early = checkpoints();
        early.taken(id(8, 2)).unwrap();
        assert_eq!(early.agree(id(8, 1)), Err(Differs { ours: id(8, 2), theirs: id(8, 1) }));
        let mut late = checkpoints();
        late.agree(id(8, 1)).unwrap();
        assert_eq!(late.taken(id(8, 2)), Err(Differs { ours: id(8, 2), theirs: id(8, 1) }));
    }

    #[test]
    fn three_digests_of_three_are_a_disagreement() {
        let mut checkpoints = checkpoints();
        for (index, digest) in [(0, 1), (1, 2)] {
            checkpoints.told(ReplicaIndex(index), id(8, digest), QUORUM);
        }
        assert_eq!(checkpoints.disagreement(3), None);
        checkpoints.told(ReplicaIndex(2), id(8, 3), QUORUM);
        assert_eq!(checkpoints.disagreement(3), Some(OpNumber(8)));
        for (index, digest) in [(0, 1), (1, 2), (2, 3)] {
            checkpoints.told(ReplicaIndex(index), id(8, digest), QUORUM);
        }
        assert_eq!(checkpoints.disagreement(3), None, "it is told once");
        assert_eq!(checkpoints.differing(), Some(OpNumber(8)));
        checkpoints.agree(id(16, 1)).unwrap();
        assert_eq!(checkpoints.differing(), None, "a later one settles it");
    }

    /// Replicas that were started again with what was mended take theirs again.
    #[test]
    fn a_disagreement_ends_when_a_quorum_has_taken_it_anew_alike() {
        let mut checkpoints = checkpoints();
        for (index, digest) in [(0, 1), (1, 2), (2, 3)] {
            checkpoints.told(ReplicaIndex(index), id(8, digest), QUORUM);
        }
        assert_eq!(checkpoints.disagreement(3), Some(OpNumber(8)));
        assert_eq!(checkpoints.told(ReplicaIndex(1), id(8, 4), QUORUM), None);
        assert_eq!(checkpoints.disagreement(3), None, "it is told once");
        assert_eq!(
            checkpoints.told(ReplicaIndex(2), id(8, 2), QUORUM),
            None,
            "1 has another by now"
        );
        assert_eq!(checkpoints.told(ReplicaIndex(2), id(8, 4), QUORUM), Some(id(8, 4)));
        checkpoints.agree(id(8, 4)).unwrap();
        assert_eq!(checkpoints.differing(), None);
    }

    #[test]
    fn one_that_is_complete_after_a_later_one_was_agreed_on_is_held() {
        let mut slow = checkpoints();
        for op in [8, 16, 24] {
            slow.agree(id(op, 1)).unwrap();
        }
        assert_eq!(slow.taken(id(16, 2)), Err(Differs { ours: id(16, 2), theirs: id(16, 1) }));
        slow.taken(id(8, 1)).unwrap();
        slow.taken(id(16, 1)).unwrap();
        assert_eq!(slow.to_hold(), Some(id(16, 1)));
        assert!(slow.hold(id(16, 1)));
        assert_eq!((slow.to_hold(), slow.agreed()), (None, id(24, 1)));
    }

    #[test]
    fn a_log_rests_since_heartbeats_find_it_with_the_same_last_op() {
        let mut checkpoints = checkpoints();
        let mut rests = |at, op| checkpoints.rests(Instant(at), OpNumber(op)).as_nanos();
        assert_eq!((rests(5, 3), rests(7, 3), rests(9, 4), rests(12, 4)), (0, 2, 0, 3));
        assert_eq!(checkpoints.resting_for(Instant(13), OpNumber(4)).as_nanos(), 4);
        assert_eq!(checkpoints.resting_for(Instant(13), OpNumber(5)), Duration::ZERO);
    }

    #[test]
    fn only_an_agreed_one_of_its_own_is_held() {
        let mut checkpoints = checkpoints();
        checkpoints.taken(id(8, 1)).unwrap();
        assert_eq!((checkpoints.to_hold(), checkpoints.latest()), (None, id(8, 1)));
        checkpoints.agree(id(8, 1)).unwrap();
        assert_eq!(checkpoints.to_hold(), Some(id(8, 1)));
        assert!(checkpoints.hold(id(8, 1)) && !checkpoints.hold(id(8, 1)));
        assert_eq!((checkpoints.held(), checkpoints.to_hold()), (id(8, 1), None));
    }

    #[test]
    fn what_others_fetch_stays_and_so_does_the_log_behind_it() {
        let mut checkpoints = checkpoints();
        checkpoints.hold(id(8, 1));
        assert!(checkpoints.serves(id(8, 1), Instant(5)));
        assert!(!checkpoints.serves(id(7, 1), Instant(5)));
        checkpoints.hold(id(16, 1));
        assert_eq!(checkpoints.releasable(0), OpNumber(8));
        assert_eq!(checkpoints.needed(), [id(8, 1), id(8, 1), id(16, 1)]);
        checkpoints.tidy(Instant(4));
        assert_eq!(checkpoints.releasable(0), OpNumber(8));
        checkpoints.tidy(Instant(5));
        assert_eq!(checkpoints.releasable(3), OpNumber(13));
    }

    #[test]
    fn one_is_taken_at_a_time() {
        let mut checkpoints = checkpoints();
        assert!(checkpoints.begin() && !checkpoints.begin());
        checkpoints.taken(id(8, 1)).unwrap();
        assert!(checkpoints.begin());
    }
}
