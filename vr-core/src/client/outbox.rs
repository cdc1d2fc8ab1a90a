//! What a client has to say: messages for replicas, results for callers.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    client::{
        call::{Operation, Waiting},
        io::{ClientOutput, Completed},
        outcome::RequestError,
    },
    model::{
        certificate::{CertificateHash, CrashVector},
        message::{Envelope, Message, Query, Register, Request, Sender},
        read::Read,
        types::{
            ClientId, Epoch, GroupId, Incarnation, Nonce, OpNumber, ReplicaId, RequestNumber, View,
        },
    },
};

/// Outputs in the order in which they came up, under the client's name.
#[derive(Debug)]
pub(crate) struct Outbox {
    group: GroupId,
    client: ClientId,
    /// The latest view that the client knows; a hint for the replicas' logs, nothing more.
    view: View,
    /// The latest epoch that the client knows: the one that its session belongs to.
    epoch: Epoch,
    outputs: VecDeque<ClientOutput>,
}

impl Outbox {
    /// An empty one for `client`.
    pub(crate) const fn new(group: GroupId, client: ClientId) -> Self {
        let (view, epoch) = (View::ZERO, Epoch::ZERO);
        Self { group, client, view, epoch, outputs: VecDeque::new() }
    }

    /// The group that is spoken to.
    pub(crate) const fn group(&self) -> GroupId {
        self.group
    }

    /// Under whose name.
    pub(crate) const fn client(&self) -> ClientId {
        self.client
    }

    /// Speaks as `client` from here on.
    pub(crate) const fn rename(&mut self, client: ClientId) {
        self.client = client;
    }

    /// Speaks of `view` from here on.
    pub(crate) const fn learn(&mut self, view: View) {
        self.view = view;
    }

    /// The latest epoch that was heard of.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Speaks of `epoch` from here on.
    pub(crate) const fn enter(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Takes out the oldest output.
    pub(crate) fn pop(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// A call is over.
    pub(crate) fn done(&mut self, waiting: Waiting, result: Result<Completed, RequestError>) {
        self.outputs.push_back(ClientOutput::Done { call: waiting.call, result });
    }

    /// A call has failed.
    pub(crate) fn fail(&mut self, waiting: Waiting, error: RequestError) {
        self.done(waiting, Err(error));
    }

    /// Asks `to` for a session.
    pub(crate) fn register(&mut self, to: ReplicaId, nonce: Nonce) {
        let client = self.client;
        self.send(to, Message::Register(Register { client, nonce }));
    }

    /// Asks `to` for an operation.
    pub(crate) fn request(
        &mut self,
        to: ReplicaId,
        session: OpNumber,
        request_number: RequestNumber,
        operation: Operation,
    ) {
        let Operation { many, bytes: operation } = operation;
        let client = self.client;
        let request = Request { client, session, request_number, many, operation };
        self.send(to, Message::Request(request));
    }

    /// Asks `to` for a request of an earlier call, whose session belongs to `epoch`.
    pub(crate) fn resume(&mut self, to: ReplicaId, epoch: Epoch, request: Request) {
        self.send_in(epoch, to, Message::Request(request));
    }

    /// Asks `to` a question.
    pub(crate) fn query(&mut self, to: ReplicaId, number: RequestNumber, read: Read, query: Bytes) {
        let client = self.client;
        self.send(to, Message::Query(Query { client, request_number: number, read, query }));
    }

    fn send(&mut self, to: ReplicaId, message: Message) {
        self.send_in(self.epoch, to, message);
    }

    fn send_in(&mut self, epoch: Epoch, to: ReplicaId, message: Message) {
        let envelope = Envelope {
            group: self.group,
            certificate: CertificateHash::NONE,
            epoch,
            sender: Sender::Client(self.client),
            incarnation: Incarnation::ZERO,
            view: self.view,
            crash_vector: CrashVector::default(),
            message,
        };
        self.outputs.push_back(ClientOutput::Send { to, envelope });
    }
}
