//! Queries that wait: for a round of heartbeats, for the primary's word, for execution.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::model::{
    message::Query,
    payload::length,
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

impl LocalRead {
    /// The query that `from` asked.
    #[must_use]
    pub fn of(from: Peer, m: Query) -> Self {
        let Query { client, request_number, query, .. } = m;
        Self { to: from, client, request_number, query }
    }

    /// Bytes of the query.
    fn bytes(&self) -> u64 {
        length(&self.query)
    }
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
/// Invariants: a query is in exactly one of the four places, or in a round of the primary; `bytes` is
/// the sum over all of them.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    bytes: u64,
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

    /// Bytes of the queries that have not been answered, those of a round included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
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
        self.bytes += read.bytes();
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

    /// A query arrived that may be answered once everything up to `index` is handed to the executor.
    pub fn push_ready(&mut self, read: LocalRead, index: OpNumber, time: u64) {
        self.bytes += read.bytes();
        self.ready.push_back(ReadyRead { index, time, read });
    }

    /// These may be answered once everything up to `index` is handed to the executor.
    pub fn make_ready(&mut self, reads: Vec<LocalRead>, index: OpNumber, time: u64) {
        self.ready.extend(reads.into_iter().map(|read| ReadyRead { index, time, read }));
    }

    /// The next query whose index is reached.
    pub fn pop_ready(&mut self, ordered: OpNumber) -> Option<ReadyRead> {
        let ready = self.ready.pop_front_if(|ready| ready.index <= ordered);
        let ready = ready.or_else(|| {
            let first = self.causal.first_entry().filter(|first| first.key().0 <= ordered)?;
            Some(first.remove().1)
        })?;
        self.bytes -= ready.read.bytes();
        Some(ready)
    }

    /// A causal query waits for its op, from `now` on.
    pub fn hold(&mut self, now: Instant, read: ReadyRead) {
        let LocalRead { to, client, request_number, .. } = read.read;
        self.bytes += read.read.bytes();
        let key = (read.index, to, client, request_number);
        if let Some((_, before)) = self.causal.insert(key, (now, read)) {
            self.bytes -= before.read.bytes();
        }
    }

    /// Forgets the causal queries that have waited since `before` or longer; their clients have
    /// asked elsewhere since.
    pub fn forget_causal(&mut self, before: Instant) {
        let bytes = &mut self.bytes;
        self.causal.retain(|_, (since, read)| {
            let stays = *since > before;
            *bytes -= if stays { 0 } else { read.read.bytes() };
            stays
        });
    }

    /// Forgets the queries of a connection that closed.
    pub fn disconnected(&mut self, peer: Peer) {
        let mut stays = |read: &LocalRead| {
            let stays = read.to != peer;
            self.bytes -= if stays { 0 } else { read.bytes() };
            stays
        };
        self.waiting.retain(&mut stays);
        self.ready.retain(|ready| stays(&ready.read));
        self.causal.retain(|_, (_, ready)| stays(&ready.read));
        if let Some((_, reads)) = &mut self.asked {
            reads.retain(stays);
        }
    }

    /// Queries of so many bytes were dropped from a round.
    pub const fn dropped(&mut self, bytes: u64) {
        self.bytes -= bytes;
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

    /// Forgets the queries of a connection that closed; returns how many bytes they have.
    pub fn disconnected(&mut self, peer: Peer) -> u64 {
        let Some(round) = &mut self.in_flight else { return 0 };
        round.local.extract_if(.., |read| read.to == peer).map(|read| read.bytes()).sum()
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
    fn bytes_are_those_of_all_queries_that_have_no_answer() {
        let long = |number| LocalRead { query: Bytes::from_static(b"abc"), ..read(number) };
        let (mut reads, mut rounds) = (Reads::default(), Rounds::default());
        reads.push(long(1));
        reads.push_ready(long(2), OpNumber(1), 0);
        let held = ReadyRead { index: OpNumber(9), time: 0, read: long(3) };
        reads.hold(Instant(1), held.clone());
        reads.hold(Instant(2), held);
        assert_eq!(reads.bytes(), 9);
        rounds.begin(HeartbeatNumber(1), OpNumber(1), reads.take_waiting());
        assert_eq!(reads.bytes(), 9, "those of a round count");
        reads.pop_ready(OpNumber(1));
        reads.forget_causal(Instant(2));
        assert_eq!(reads.bytes(), 3);
        reads.disconnected(long(1).to);
        reads.dropped(rounds.disconnected(long(1).to));
        assert_eq!(reads.bytes(), 0);
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
