//! A session on a desk, with short words for what happens to it.

use core::time::Duration;

use bytes::Bytes;

use crate::{
    client::{
        call::CallId,
        io::{ClientInput, ClientOutput, Completed, SessionOptions},
        outcome::RequestError,
        session::Session,
        ticket::Ticket,
    },
    model::{
        certificate::{CertificateHash, CrashVector},
        config::Config,
        membership::Members,
        message::{Envelope, Limit, Message, Outcome, Rejected, Rejection, Reply, Sender},
        read::Read,
        time::Instant,
        types::{Epoch, GroupId, Incarnation, OpNumber, Peer, ReplicaId, RequestNumber, View},
    },
    ports::transport::Received,
};

pub(super) const SECOND: u64 = 1_000_000_000;

/// A session, its time, and what it said last.
pub(super) struct Desk {
    pub(super) session: Session,
    pub(super) now: Instant,
    pub(super) view: View,
    pub(super) epoch: Epoch,
    pub(super) sent: Vec<(ReplicaId, Message)>,
    /// The epochs that what was said last named.
    named: Vec<Epoch>,
    pub(super) done: Vec<(CallId, Result<Completed, RequestError>)>,
}

impl Desk {
    pub(super) fn with(options: SessionOptions) -> Self {
        Self::drawn(options, 7)
    }

    /// A client whose id is drawn from `seed`.
    pub(super) fn drawn(options: SessionOptions, seed: u128) -> Self {
        let members = Members::local(3).unwrap().to_membership();
        let session = Session::new(GroupId(1), members, options, seed);
        let (sent, named, done) = (Vec::new(), Vec::new(), Vec::new());
        let (view, epoch) = (View::ZERO, Epoch::ZERO);
        Self { session, now: Instant::ZERO, view, epoch, sent, named, done }
    }

    /// A client with a window of two that is connected to everyone.
    pub(super) fn connected() -> Self {
        Self::with(SessionOptions { window: 2, ..options() }).connecting()
    }

    pub(super) fn connecting(mut self) -> Self {
        (0..3).for_each(|replica| self.connect(replica));
        self
    }

    /// As [`Self::connected`], with a session that op 5 opened, and replica 0 as its primary.
    pub(super) fn open() -> Self {
        let mut desk = Self::connected();
        desk.execute(100);
        desk.registered(5);
        desk.reply(1);
        desk.done.clear();
        desk
    }

    pub(super) fn handle(&mut self, input: ClientInput) {
        self.session.handle(self.now, input);
        self.sent.clear();
        self.named.clear();
        while let Some(output) = self.session.poll_output() {
            match output {
                ClientOutput::Send { to, envelope } => {
                    self.named.push(envelope.epoch);
                    if let Message::Requests(batch) = envelope.message {
                        let each = batch.each().map(|request| (to, Message::Request(request)));
                        self.sent.extend(each);
                    } else {
                        self.sent.push((to, envelope.message));
                    }
                }
                ClientOutput::Done { call, result } => self.done.push((call, result)),
            }
        }
    }

    pub(super) fn execute(&mut self, call: u64) {
        let deadline = self.now + Duration::from_secs(10);
        let operation = Bytes::from(call.to_string()).into();
        self.handle(ClientInput::Execute { call: CallId(call), deadline, operation });
    }

    pub(super) fn resume(&mut self, call: u64, ticket: &Ticket) {
        let deadline = self.now + Duration::from_secs(10);
        let ticket = ticket.clone();
        self.handle(ClientInput::Resume { call: CallId(call), deadline, ticket });
    }

    pub(super) fn query(&mut self, call: u64, read: Read) {
        let deadline = self.now + Duration::from_secs(10);
        let query = Bytes::from_static(b"?");
        self.handle(ClientInput::Query { call: CallId(call), deadline, read, query });
    }

    pub(super) fn connect(&mut self, replica: u64) {
        let peer = Peer::Replica(ReplicaId(replica));
        self.handle(ClientInput::Received(Received::Connected(peer)));
    }

    pub(super) fn disconnect(&mut self, replica: u64) {
        let peer = Peer::Replica(ReplicaId(replica));
        self.handle(ClientInput::Received(Received::Disconnected(peer)));
    }

    pub(super) fn envelope(&self, message: Message) -> Envelope {
        Envelope {
            group: GroupId(1),
            certificate: CertificateHash(3),
            epoch: self.epoch,
            sender: Sender::Replica(ReplicaId(0)),
            incarnation: Incarnation::ZERO,
            view: self.view,
            crash_vector: CrashVector::default(),
            message,
        }
    }

    pub(super) fn hear(&mut self, message: Message) {
        let from = Peer::Replica(ReplicaId(0));
        let envelope = Box::new(self.envelope(message));
        self.handle(ClientInput::Received(Received::Envelope { from, envelope }));
    }

    pub(super) fn outcome(&mut self, number: u64, op_number: u64, outcome: Outcome) {
        let client = self.session.client();
        let (request_number, op_number) = (RequestNumber(number), OpNumber(op_number));
        self.hear(Message::Reply(Reply { client, request_number, op_number, outcome }));
    }

    pub(super) fn registered(&mut self, session: u64) {
        self.outcome(0, session, Outcome::Registered);
    }

    pub(super) fn reply(&mut self, number: u64) {
        self.outcome(number, 10 + number, Outcome::Executed(Bytes::from_static(b"done")));
    }

    pub(super) fn reject(&mut self, number: RequestNumber, reason: Rejection) {
        let client = self.session.client();
        self.hear(Message::Rejected(Rejected { client, request_number: number, reason }));
    }

    pub(super) fn busy(&mut self, number: u64, limit: Limit) {
        self.reject(RequestNumber(number), Rejection::Busy(limit));
    }

    /// Lets time pass until the next deadline.
    pub(super) fn wait(&mut self) {
        self.now = self.session.deadline();
        self.handle(ClientInput::Timeout);
    }

    pub(super) fn wait_until(&mut self, seconds: u64) {
        self.now = Instant(seconds * SECOND);
        self.handle(ClientInput::Timeout);
    }

    /// Who was sent which request numbers, in order.
    pub(super) fn requests(&self) -> Vec<(u64, u64)> {
        let number = |message: &Message| {
            if let Message::Request(request) = message {
                Some(request.request_number.0)
            } else {
                None
            }
        };
        self.sent.iter().filter_map(|(to, sent)| Some((to.0, number(sent)?))).collect()
    }

    pub(super) fn epochs(&self) -> Vec<Epoch> {
        self.named.clone()
    }

    pub(super) fn registrations(&self) -> Vec<u64> {
        let sent = self.sent.iter();
        sent.filter(|(_, sent)| matches!(sent, Message::Register(_))).map(|(to, _)| to.0).collect()
    }

    pub(super) fn queries(&self) -> Vec<(u64, RequestNumber)> {
        let number = |message: &Message| {
            if let Message::Query(query) = message { Some(query.request_number) } else { None }
        };
        self.sent.iter().filter_map(|(to, sent)| Some((to.0, number(sent)?))).collect()
    }

    pub(super) fn failed(&self) -> Vec<(u64, RequestError)> {
        let failed = self.done.iter().filter_map(|(call, done)| Some((*call, done.clone().err()?)));
        failed.map(|(call, error)| (call.0, error)).collect()
    }

    /// The calls that an eviction ended.
    pub(super) fn evicted(&self) -> Vec<u64> {
        let failed = self.failed().into_iter();
        let evicted = failed.filter(|(_, it)| matches!(it, RequestError::ClientEvicted { .. }));
        evicted.map(|(call, _)| call).collect()
    }

    /// The ticket that `call` left behind.
    pub(super) fn ticket(&self, call: u64) -> Ticket {
        let failed = self.failed();
        let error = failed.iter().find(|(failed, _)| *failed == call).map(|(_, error)| error);
        error.and_then(RequestError::ticket).cloned().unwrap()
    }

    pub(super) fn succeeded(&self) -> Vec<u64> {
        self.done.iter().filter(|(_, done)| done.is_ok()).map(|(call, _)| call.0).collect()
    }
}

pub(super) fn options() -> SessionOptions {
    SessionOptions::new(&Config::default())
}
