//! Queries that wait: for a round of heartbeats, for the primary's word, for execution.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::model::{
    time::Instant,
    types::{ClientId, HeartbeatNumber, OpNumber, Peer, ReplicaId, RequestId, RequestNumber},
};

/// A query of a client that is connected here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRead {
    /// Whom to answer.
    pub to: Peer,
    /// Who asked.
    pub client: ClientId,
    /// The client's number for it.
    pub request_number: RequestNumber,
    /// The query's bytes.
    pub query: Bytes,
}

/// A read that may be answered once everything up to `index` is handed to the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyRead {
    /// The read index.
    pub index: OpNumber,
    /// The time that the query is told, in nanoseconds since 1970.
    pub time: u64,
    /// The query.
    pub read: LocalRead,
}

/// The queries of this replica's own clients.
///
/// Invariant: a query is in exactly one of the four places.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// Causal ones, by the op that they wait for, and since when. One that comes twice is one.
    causal: BTreeMap<(OpNumber, Peer, ClientId, RequestNumber), (Instant, ReadyRead)>,
    waiting: VecDeque<LocalRead>,
    asked: Option<(RequestId, Vec<LocalRead>)>,
    ready: VecDeque<ReadyRead>,
}

impl Reads {
    /// Queries that have not been answered.
    #[must_use]
    pub fn len(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |(_, reads)| reads.len());
        self.waiting.len() + asked + self.ready.len() + self.causal.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a query waits for a question to be asked.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A query arrived.
    pub fn push(&mut self, read: LocalRead) {
        self.waiting.push_back(read);
    }

    /// Takes the queries that wait, for a round of the primary itself.
    pub fn take_waiting(&mut self) -> Vec<LocalRead> {
        self.waiting.drain(..).collect()
    }

    /// Puts queries back in front, because the question about them came to nothing.
    pub fn put_back(&mut self, reads: Vec<LocalRead>) {
        for read in reads.into_iter().rev() {
            self.waiting.push_front(read);
        }
    }

    /// Whether the primary was asked and has not answered.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The primary is asked for all that wait, with one question.
    pub fn ask(&mut self, request: RequestId) {
        let reads = self.take_waiting();
        self.asked = Some((request, reads));
    }

    /// The question came to nothing: everything asked waits again.
    pub fn unask(&mut self) {
        if let Some((_, reads)) = self.asked.take() {
            self.put_back(reads);
        }
    }

    /// The primary answered; false if this was not the question.
    pub fn answered(&mut self, request: RequestId, index: OpNumber, time: u64) -> bool {
        match self.asked.take_if(|(asked, _)| *asked == request) {
            Some((_, reads)) => {
                self.make_ready(reads, index, time);
                true
            }
            None => false,
        }
    }

    /// These may be answered once everything up to `index` is handed to the executor.
    pub fn make_ready(&mut self, reads: Vec<LocalRead>, index: OpNumber, time: u64) {
        self.ready.extend(reads.into_iter().map(|read| ReadyRead { index, time, read }));
    }

    /// The next query whose index is reached.
    pub fn pop_ready(&mut self, ordered: OpNumber) -> Option<ReadyRead> {
        let ready = self.ready.pop_front_if(|ready| ready.index <= ordered);
        ready.or_else(|| {
            let first = self.causal.first_entry().filter(|first| first.key().0 <= ordered)?;
            Some(first.remove().1)
        })
    }

    /// A causal query waits for its op, from `now` on.
    pub fn hold(&mut self, now: Instant, read: ReadyRead) {
        let LocalRead { to, client, request_number, .. } = read.read;
        self.causal.insert((read.index, to, client, request_number), (now, read));
    }

    /// Forgets the causal queries that have waited since `before` or longer; their clients have
    /// asked elsewhere since.
    pub fn forget_causal(&mut self, before: Instant) {
        self.causal.retain(|_, (since, _)| *since > before);
    }

    /// Forgets the queries of a connection that closed.
    pub fn disconnected(&mut self, peer: Peer) {
        self.waiting.retain(|read| read.to != peer);
        self.ready.retain(|ready| ready.read.to != peer);
        self.causal.retain(|(_, to, _, _), _| *to != peer);
        if let Some((_, reads)) = &mut self.asked {
            reads.retain(|read| read.to != peer);
        }
    }
}

/// The primary's rounds: all reads that wait share the next round of heartbeats.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    remote: Vec<(ReplicaId, RequestId)>,
    in_flight: Option<Round>,
}

/// Reads that are confirmed when a quorum has answered one heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The heartbeat.
    pub heartbeat: HeartbeatNumber,
    /// What was committed when the round began.
    pub index: OpNumber,
    /// Queries of this replica's own clients.
    pub local: Vec<LocalRead>,
    /// Questions of backups.
    pub remote: Vec<(ReplicaId, RequestId)>,
}

impl Rounds {
    /// A backup asked; its earlier question is forgotten, because it asks one at a time.
    pub fn ask(&mut self, from: ReplicaId, request: RequestId) {
        self.remote.retain(|(backup, _)| *backup != from);
        self.remote.push((from, request));
    }

    /// Whether a backup's question waits for a round.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.remote.is_empty()
    }

    /// Whether a round is under way.
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// How many queries of own clients the round under way is for.
    #[must_use]
    pub fn local(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |round| round.local.len())
    }

    /// Begins a round for `local` and all questions that wait.
    pub fn begin(&mut self, heartbeat: HeartbeatNumber, index: OpNumber, local: Vec<LocalRead>) {
        let remote = core::mem::take(&mut self.remote);
        self.in_flight = Some(Round { heartbeat, index, local, remote });
    }

    /// Ends the round if a quorum has answered `heartbeat`.
    pub fn complete(&mut self, heartbeat: HeartbeatNumber) -> Option<Round> {
        self.in_flight.take_if(|round| round.heartbeat <= heartbeat)
    }

    /// Gives up; returns the queries of own clients, which can be asked elsewhere.
    pub fn abandon(&mut self) -> Vec<LocalRead> {
        self.remote.clear();
        self.in_flight.take().map_or_else(Vec::new, |round| round.local)
    }

    /// Forgets the queries of a connection that closed.
    pub fn disconnected(&mut self, peer: Peer) {
        if let Some(round) = &mut self.in_flight {
            round.local.retain(|read| read.to != peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::ConnectionId;

    fn read(number: u64) -> LocalRead {
        LocalRead {
            to: Peer::Client(ConnectionId(1)),
            client: ClientId(1),
            request_number: RequestNumber(number),
            query: Bytes::new(),
        }
    }

    #[test]
    fn reads_that_wait_share_one_question() {
        let mut reads = Reads::default();
        reads.push(read(1));
        reads.push(read(2));
        reads.ask(RequestId(7));
        reads.push(read(3));
        assert!(!reads.answered(RequestId(6), OpNumber(5), 0));
        assert!(reads.answered(RequestId(7), OpNumber(5), 0));
        assert!(reads.pop_ready(OpNumber(4)).is_none());
        assert_eq!(reads.pop_ready(OpNumber(5)).unwrap().read, read(1));
        assert_eq!(reads.pop_ready(OpNumber(5)).unwrap().read, read(2));
        assert!(reads.pop_ready(OpNumber(5)).is_none() && reads.has_waiting());
    }

    #[test]
    fn a_causal_query_waits_for_its_op_and_for_nothing_before_it() {
        let mut reads = Reads::default();
        let causal =
            |index, number| ReadyRead { index: OpNumber(index), time: 0, read: read(number) };
        reads.hold(Instant(1), causal(9, 1));
        reads.hold(Instant(2), causal(9, 1));
        reads.hold(Instant(3), causal(4, 2));
        assert_eq!(reads.len(), 2, "the same query twice is one");
        assert!(reads.pop_ready(OpNumber(3)).is_none());
        assert_eq!(reads.pop_ready(OpNumber(4)).unwrap().read, read(2));
        reads.forget_causal(Instant(1));
        assert_eq!(reads.len(), 1);
        reads.forget_causal(Instant(2));
        assert!(reads.is_empty());
        reads.hold(Instant(3), causal(4, 2));
        reads.disconnected(read(2).to);
        assert!(reads.pop_ready(OpNumber(9)).is_none());
    }

    #[test]
    fn an_unanswered_question_is_asked_again_in_order() {
        let mut reads = Reads::default();
        reads.push(read(1));
        reads.ask(RequestId(7));
        reads.push(read(2));
        reads.unask();
        assert_eq!(reads.take_waiting(), [read(1), read(2)]);
    }

    #[test]
    fn a_round_ends_with_its_own_heartbeat_or_a_later_one() {
        let mut rounds = Rounds::default();
        rounds.ask(ReplicaId(1), RequestId(1));
        rounds.ask(ReplicaId(1), RequestId(2));
        rounds.begin(HeartbeatNumber(5), OpNumber(3), vec![read(1)]);
        assert!(rounds.complete(HeartbeatNumber(4)).is_none());
        let round = rounds.complete(HeartbeatNumber(6)).unwrap();
        assert_eq!(round.remote, [(ReplicaId(1), RequestId(2))]);
        assert!(!rounds.is_in_flight());
    }
}
