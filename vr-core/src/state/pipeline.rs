//! How much is prepared and not yet committed, and what waits to be.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{
    message::{Forward, Request},
    types::{ClientId, OpNumber, Peer, RequestNumber},
};

/// The primary's side of the pipeline.
///
/// Invariants: `bytes` is the sum over the entries above the commit number; `queued_bytes`
/// and `parked_bytes` are the sums over what is queued and what is parked; at most `window`
/// requests per client are parked.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    bytes: u64,
    queued_bytes: u64,
    parked_bytes: u64,
    queued: VecDeque<(Peer, Forward)>,
    parked: BTreeMap<(ClientId, RequestNumber), Request>,
}

impl Pipeline {
    /// Bytes of the entries above the commit number.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// An entry of `bytes` was prepared.
    pub const fn prepared(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// An entry of `bytes` was committed.
    pub const fn committed(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Requests that wait for room.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.len()
    }

    /// Bytes of the operations that wait for room.
    #[must_use]
    pub const fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Bytes of the operations that wait for the numbers before them.
    #[must_use]
    pub const fn parked_bytes(&self) -> u64 {
        self.parked_bytes
    }

    /// Lets a request wait for room.
    pub fn queue(&mut self, from: Peer, request: Forward) {
        self.queued_bytes += request.bytes();
        self.queued.push_back((from, request));
    }

    /// The request that has waited longest.
    pub fn pop_queued(&mut self) -> Option<(Peer, Forward)> {
        let (from, request) = self.queued.pop_front()?;
        self.queued_bytes -= request.bytes();
        Some((from, request))
    }

    /// All requests that wait for room, the one that has waited longest first.
    pub fn take_queued(&mut self) -> Vec<(Peer, Forward)> {
        self.queued_bytes = 0;
        core::mem::take(&mut self.queued).into()
    }

    /// Lets a request wait for the numbers before it.
    pub fn park(&mut self, request: Request) {
        self.parked_bytes += request.bytes();
        let key = (request.client, request.request_number);
        if let Some(before) = self.parked.insert(key, request) {
            self.parked_bytes -= before.bytes();
        }
    }

    /// How many requests of `client` wait for the numbers before them.
    #[must_use]
    pub fn parked_of(&self, client: ClientId) -> usize {
        self.parked.range((client, RequestNumber::ZERO)..=(client, RequestNumber(u64::MAX))).count()
    }

    /// `client` has no session any more.
    pub fn forget(&mut self, client: ClientId) {
        self.parked.retain(|(parked, _), _| *parked != client);
        self.parked_bytes = self.parked.values().map(Request::bytes).sum();
    }

    /// Drops everything that waits for the numbers before it: some of it may be of clients that are
    /// gone, and the others ask again.
    pub fn forget_parked(&mut self) {
        self.parked.clear();
        self.parked_bytes = 0;
    }

    /// The most requests that one client has waiting for the numbers before them.
    #[must_use]
    pub fn parked_most(&self) -> usize {
        let clients = self.parked.keys().map(|(client, _)| *client);
        let mut most = (0, 0, None);
        for client in clients {
            let run = if most.2 == Some(client) { most.1 + 1 } else { 1 };
            most = (most.0.max(run), run, Some(client));
        }
        most.0
    }

    /// Whether any request waits for the numbers before it.
    #[must_use]
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Takes the parked request of `client` with `number`.
    pub fn unpark(&mut self, client: ClientId, number: RequestNumber) -> Option<Request> {
        let request = self.parked.remove(&(client, number))?;
        self.parked_bytes -= request.bytes();
        Some(request)
    }
}

/// How far a backup is, as its primary knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The last op that the backup acknowledged in this view.
    pub acked: OpNumber,
    /// The last op that was sent to it.
    pub sent: OpNumber,
    /// It has acknowledged something in this view, so the view has started there.
    has_started: bool,
    /// `acked` at the previous heartbeat.
    at_heartbeat: OpNumber,
    /// For how many heartbeats `acked` has not moved although more was sent.
    silent: u32,
}

impl Acknowledged {
    /// A backup that was sent the log up to `sent` and has acknowledged nothing.
    #[must_use]
    pub fn after(sent: OpNumber) -> Self {
        Self { sent, ..Self::default() }
    }

    /// The backup holds everything up to `op_number`. With its first word it says that it has
    /// entered the view: what was sent before that was dropped, so it counts as not sent.
    pub fn acknowledge(&mut self, op_number: OpNumber) {
        if !core::mem::replace(&mut self.has_started, true) {
            self.sent = op_number;
        }
        self.acked = self.acked.max(op_number);
        self.sent = self.sent.max(op_number);
    }

    /// Another heartbeat passed; true if what is not acknowledged should be sent again: after 2,
    /// 4, 8, .. heartbeats without news, because at the first it may be on its way.
    pub fn is_overdue(&mut self) -> bool {
        if self.acked != self.at_heartbeat || self.acked >= self.sent {
            self.at_heartbeat = self.acked;
            self.silent = 0;
            return false;
        }
        self.silent = self.silent.saturating_add(1);
        self.silent >= 2 && self.silent.is_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(client: u128, number: u64) -> Request {
        Request {
            client: ClientId(client),
            session: OpNumber(1),
            request_number: RequestNumber(number),
            many: false,
            operation: Bytes::new(),
        }
    }

    #[test]
    fn parked_requests_are_counted_per_client() {
        let mut pipeline = Pipeline::default();
        pipeline.park(request(1, 3));
        pipeline.park(request(1, 3));
        pipeline.park(request(1, 4));
        pipeline.park(request(2, 3));
        assert_eq!(pipeline.parked_of(ClientId(1)), 2);
        assert!(pipeline.unpark(ClientId(1), RequestNumber(3)).is_some());
        assert!(pipeline.unpark(ClientId(1), RequestNumber(3)).is_none());
    }

    #[test]
    fn nothing_of_a_client_without_a_session_is_kept() {
        let mut pipeline = Pipeline::default();
        pipeline.park(request(1, 3));
        pipeline.park(request(2, 3));
        pipeline.forget(ClientId(1));
        assert_eq!((pipeline.parked_of(ClientId(1)), pipeline.parked_of(ClientId(2))), (0, 1));
    }

    #[test]
    fn what_was_sent_before_the_first_acknowledgement_was_not_sent() {
        let mut backup = Acknowledged::after(OpNumber(9));
        backup.sent = OpNumber(12);
        backup.acknowledge(OpNumber(9));
        assert_eq!((backup.acked, backup.sent), (OpNumber(9), OpNumber(9)));
        backup.sent = OpNumber(12);
        backup.acknowledge(OpNumber(10));
        assert_eq!((backup.acked, backup.sent), (OpNumber(10), OpNumber(12)));
    }

    #[test]
    fn what_is_not_acknowledged_is_overdue_ever_more_rarely() {
        let mut backup = Acknowledged::after(OpNumber(9));
        let overdue = |backup: &mut Acknowledged| (1..=8).filter(|_| backup.is_overdue()).count();
        assert_eq!(overdue(&mut backup), 3);
        backup.acked = OpNumber(5);
        assert_eq!(overdue(&mut backup), 2);
        backup.acked = OpNumber(9);
        assert_eq!(overdue(&mut backup), 0);
    }

    #[test]
    fn bytes_follow_prepare_and_commit() {
        let mut pipeline = Pipeline::default();
        pipeline.prepared(300);
        pipeline.committed(128);
        assert_eq!(pipeline.bytes(), 172);
    }

    #[test]
    fn bytes_that_wait_are_those_queued_and_parked() {
        let with = |number| Request { operation: Bytes::from_static(b"abc"), ..request(1, number) };
        let from = Peer::Replica(crate::model::types::ReplicaId(1));
        let mut pipeline = Pipeline::default();
        pipeline.park(with(3));
        pipeline.park(with(3));
        pipeline.queue(from, Forward::Request(with(1)));
        pipeline.queue(from, Forward::Request(with(2)));
        assert_eq!((pipeline.queued_bytes(), pipeline.parked_bytes()), (6, 3));
        pipeline.pop_queued();
        pipeline.unpark(ClientId(1), RequestNumber(3));
        assert_eq!((pipeline.queued_bytes(), pipeline.parked_bytes()), (3, 0));
        pipeline.park(with(4));
        pipeline.take_queued();
        assert_eq!((pipeline.queued_bytes(), pipeline.parked_bytes()), (0, 3));
        pipeline.forget(ClientId(1));
        assert_eq!(pipeline.parked_bytes(), 0);
        pipeline.park(with(4));
        pipeline.forget_parked();
        assert_eq!((pipeline.parked_bytes(), pipeline.has_parked()), (0, false));
    }
}
