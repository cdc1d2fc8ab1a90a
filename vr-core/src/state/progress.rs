//! How far execution is, and the questions to local storage that are open.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{
    companion::Persisted,
    time::Instant,
    types::{OpNumber, PersistId, ReplicaId, RequestId},
};

/// What entries are read back from local storage for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be executed.
    Execute,
    /// To see whether it can be read.
    Scrub,
    /// To answer a peer's question of this name.
    Serve {
        /// Whose question.
        to: ReplicaId,
        /// Its name there.
        request: RequestId,
    },
}

/// Execution's place in the log.
///
/// Invariant: `applied <= ordered <= commit number`.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The last op handed to the executor.
    pub ordered: OpNumber,
    /// The last op that was handed over without asking for replies.
    pub silent: OpNumber,
    /// The last op executed.
    pub applied: OpNumber,
    /// What was handed to the executor and is not executed: the last op of each item, and its bytes.
    handed: VecDeque<(OpNumber, u64)>,
    handed_bytes: u64,
    /// The state of the checkpoint at this op is on its way to the executor.
    restoring: Option<OpNumber>,
    /// What was on the state machine's own disk at the start, until it is in use or given up.
    found: Option<Persisted>,
    /// The executor has yet to be told which group its state belongs to.
    telling: bool,
    /// The last op that this pass over the log has read, to notice damage.
    pub scrubbed: OpNumber,
    fetches: BTreeMap<RequestId, (Purpose, OpNumber)>,
}

/// Questions to local storage that may be open at once for peers.
const SERVES_MAX: usize = 16;

impl Progress {
    /// The state is that of the checkpoint at `base`, as soon as the executor has restored it;
    /// empty if that is zero.
    #[must_use]
    pub fn new(base: OpNumber) -> Self {
        let mut progress = Self::default();
        if base > OpNumber::ZERO {
            progress.jump(base);
        }
        progress
    }

    /// The executor is to go on from the checkpoint at `op_number`.
    pub const fn jump(&mut self, op_number: OpNumber) {
        self.ordered = op_number;
        self.silent = op_number;
        self.restoring = Some(op_number);
    }

    /// The state machine has a disk of its own, with this state on it.
    pub const fn find(&mut self, found: Option<Persisted>) {
        self.found = found;
        self.telling = true;
    }

    /// The state that was on disk, while it is neither in use nor given up.
    #[must_use]
    pub const fn found(&self) -> Option<Persisted> {
        self.found
    }

    /// The state that was on disk is in use, or given up.
    pub const fn forget_found(&mut self) {
        self.found = None;
    }

    /// Whether the executor has yet to be told which group its state belongs to; once.
    pub const fn take_telling(&mut self) -> bool {
        core::mem::replace(&mut self.telling, false)
    }

    /// Whether it is known what the executor goes on from.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.found.is_none() && !self.telling
    }

    /// The executor goes on from the checkpoint at `op_number`.
    pub fn restored(&mut self, op_number: OpNumber) {
        self.applied = self.applied.max(op_number);
        self.restoring.take_if(|restoring| *restoring <= op_number);
    }

    /// The checkpoint that the executor has yet to restore, by its op.
    #[must_use]
    pub const fn restoring(&self) -> Option<OpNumber> {
        self.restoring
    }

    /// Whether the executor has yet to come to the state that it goes on from.
    #[must_use]
    pub const fn is_restoring(&self) -> bool {
        self.restoring.is_some() || self.found.is_some()
    }

    /// Ops that were handed to the executor and not executed.
    #[must_use]
    pub fn executing(&self) -> u64 {
        self.ordered.since(self.restoring.unwrap_or(self.applied).max(self.applied))
    }

    /// Entries up to `through`, of so many bytes, are handed to the executor.
    pub fn hand(&mut self, through: OpNumber, bytes: u64) {
        self.ordered = through;
        self.handed.push_back((through, bytes));
        self.handed_bytes += bytes;
    }

    /// Bytes of the entries that the executor has and has not said to be executed.
    pub fn executing_bytes(&mut self) -> u64 {
        let applied = self.applied;
        while let Some((_, bytes)) = self.handed.pop_front_if(|(through, _)| *through <= applied) {
            self.handed_bytes -= bytes;
        }
        self.handed_bytes
    }

    /// Whether entries for execution were asked for and have not come.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        self.fetches.values().any(|(purpose, _)| *purpose == Purpose::Execute)
    }

    /// Whether any question to storage is open.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        !self.fetches.is_empty()
    }

    /// Whether storage may be asked on behalf of one more peer's question.
    #[must_use]
    pub fn can_serve(&self, to: ReplicaId) -> bool {
        let same = |(purpose, _): &&(Purpose, OpNumber)| matches!(purpose, Purpose::Serve { to: other, .. } if *other == to);
        self.fetches.len() < SERVES_MAX && self.fetches.values().filter(same).count() < 2
    }

    /// Storage is asked for entries from `from` on.
    pub fn fetching(&mut self, request: RequestId, purpose: Purpose, from: OpNumber) {
        self.fetches.insert(request, (purpose, from));
    }

    /// Storage answered; what it was asked for, and from which op on. `None` if it was not asked.
    pub fn fetched(&mut self, request: RequestId) -> Option<(Purpose, OpNumber)> {
        self.fetches.remove(&request)
    }
}

/// Numbers the writes given to storage, and remembers which are not done.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    last: PersistId,
    done: PersistId,
    /// When the oldest write that is not done was handed over.
    since: Option<Instant>,
}

impl Writes {
    /// Names the next write.
    pub fn next(&mut self, now: Instant) -> PersistId {
        self.last = self.last.next();
        self.since.get_or_insert(now);
        self.last
    }

    /// Every write up to and including `through` is done; false if that was known.
    pub fn done(&mut self, now: Instant, through: PersistId) -> bool {
        if through <= self.done {
            return false;
        }
        self.done = through.min(self.last);
        self.since = (self.done < self.last).then_some(now);
        true
    }

    /// Writes that are not done.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.last.since(self.done)
    }

    /// How long storage has not finished anything although it has something to do.
    #[must_use]
    pub fn age(&self, now: Instant) -> core::time::Duration {
        self.since.map(|since| now.since(since)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_cannot_keep_storage_busy() {
        let mut progress = Progress::default();
        for request in 0..2 {
            let purpose = Purpose::Serve { to: ReplicaId(1), request: RequestId(request) };
            progress.fetching(RequestId(request), purpose, OpNumber(1));
        }
        assert!(!progress.can_serve(ReplicaId(1)) && progress.can_serve(ReplicaId(2)));
        assert!(progress.fetched(RequestId(0)).is_some());
        assert!(progress.fetched(RequestId(0)).is_none());
        assert!(!progress.is_fetching());
    }

    #[test]
    fn writes_are_named_in_order_and_done_in_order() {
        let mut writes = Writes::default();
        assert_eq!(writes.next(Instant(1)), PersistId(1));
        assert_eq!(writes.next(Instant(2)), PersistId(2));
        assert_eq!(writes.age(Instant(5)).as_nanos(), 4);
        assert!(writes.done(Instant(6), PersistId(2)));
        assert!(!writes.done(Instant(7), PersistId(2)));
        assert_eq!((writes.pending(), writes.age(Instant(9)).as_nanos()), (0, 0));
    }
}
