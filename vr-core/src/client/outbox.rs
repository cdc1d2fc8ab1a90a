//! What a client has to say: results for callers, messages for replicas.

use core::mem;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    client::{
        call::{CallId, Waiting},
        io::{ClientOutput, Completed},
        outcome::RequestError,
    },
    model::{
        batch::{BATCH_BYTES_MAX, BATCHED_BYTES},
        certificate::{CertificateHash, CrashVector},
        message::{Envelope, Message, Query, Register, Request, Sender},
        operation::Operation,
        read::Read,
        types::{
            ClientId, Epoch, GroupId, Incarnation, Nonce, OpNumber, ReplicaId, RequestNumber, View,
        },
    },
};

/// Consecutive requests that leave in one message.
#[derive(Debug, Default)]
struct Batch {
    to: ReplicaId,
    session: OpNumber,
    first: RequestNumber,
    operations: Vec<Operation>,
    /// What they take of a message.
    bytes: u64,
}

/// Outputs under the client's name: results, and messages, each in the order in which they came up.
#[derive(Debug)]
pub(crate) struct Outbox {
    group: GroupId,
    client: ClientId,
    /// The latest view that the client knows; a hint for the replicas' logs, nothing more.
    view: View,
    /// The latest epoch that the client knows: the one that its session belongs to.
    epoch: Epoch,
    /// Results; they leave before messages, and are much shorter.
    done: VecDeque<(CallId, Result<Completed, RequestError>)>,
    messages: VecDeque<(ReplicaId, Box<Envelope>)>,
    /// The last message, as long as it may grow.
    open: Batch,
    /// How far it may grow.
    batch_bytes_max: u64,
}

impl Batch {
    /// What would go on with it; nothing does with one without operations, whose next number is
    /// that of no request.
    fn next(&self) -> (ReplicaId, OpNumber, RequestNumber) {
        let count = u64::try_from(self.operations.len()).unwrap_or(u64::MAX);
        let number = if count == 0 { RequestNumber::ZERO } else { self.first.plus(count) };
        (self.to, self.session, number)
    }
}

impl Outbox {
    /// An empty one for `client`, in a group that takes operations of `request_bytes_max` bytes.
    pub(crate) fn new(group: GroupId, client: ClientId, request_bytes_max: u32) -> Self {
        Self {
            group,
            client,
            view: View::ZERO,
            epoch: Epoch::ZERO,
            done: VecDeque::new(),
            messages: VecDeque::new(),
            open: Batch::default(),
            batch_bytes_max: u64::from(request_bytes_max.min(BATCH_BYTES_MAX)),
        }
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
    pub(crate) fn rename(&mut self, client: ClientId) {
        self.close_batch();
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
    pub(crate) fn enter(&mut self, epoch: Epoch) {
        self.close_batch();
        self.epoch = epoch;
    }

    /// Takes out the oldest result; when there is none, the oldest message.
    pub(crate) fn pop(&mut self) -> Option<ClientOutput> {
        if let Some((call, result)) = self.done.pop_front() {
            return Some(ClientOutput::Done { call, result });
        }
        if self.messages.is_empty() {
            self.close_batch();
        }
        self.messages.pop_front().map(|(to, envelope)| ClientOutput::Send { to, envelope })
    }

    /// How many results there are.
    pub(crate) fn results(&self) -> usize {
        self.done.len()
    }

    /// A call is over.
    pub(crate) fn done(&mut self, waiting: Waiting, result: Result<Completed, RequestError>) {
        self.done.push_back((waiting.call, result));
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

    /// Asks `to` for an operation, together with those just before it.
    pub(crate) fn request(
        &mut self,
        to: ReplicaId,
        session: OpNumber,
        request_number: RequestNumber,
        operation: Operation,
    ) {
        let bytes = operation.length().saturating_add(BATCHED_BYTES);
        let sum = self.open.bytes.saturating_add(bytes);
        let goes_on = (to, session, request_number) == self.open.next();
        if goes_on && sum <= self.batch_bytes_max {
            self.open.bytes = sum;
        } else {
            self.close_batch();
            (self.open.to, self.open.session) = (to, session);
            (self.open.first, self.open.bytes) = (request_number, bytes);
        }
        self.open.operations.push(operation);
    }

    /// Nothing is added to the last message any more.
    fn close_batch(&mut self) {
        if self.open.operations.is_empty() {
            return;
        }
        // Most batches are about as long as the one before.
        let next = Vec::with_capacity(self.open.operations.len());
        let operations = mem::replace(&mut self.open.operations, next);
        let Batch { to, session, first, .. } = self.open;
        let message = Message::asking(self.client, session, first, operations);
        self.push(self.epoch, to, message);
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
        self.close_batch();
        self.push(epoch, to, message);
    }

    fn push(&mut self, epoch: Epoch, to: ReplicaId, message: Message) {
        let envelope = Box::new(Envelope {
            group: self.group,
            certificate: CertificateHash::NONE,
            epoch,
            sender: Sender::Client(self.client),
            incarnation: Incarnation::ZERO,
            view: self.view,
            crash_vector: CrashVector::default(),
            message,
        });
        self.messages.push_back((to, envelope));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: ReplicaId = ReplicaId(1);

    fn asked(outbox: &mut Outbox, number: u64) {
        outbox.request(TO, OpNumber(7), RequestNumber(number), Bytes::from_static(b"op").into());
    }

    /// Who says what in which epoch: the first number and how many of a batch; nothing for others.
    type Said = (Sender, Epoch, Option<(u64, usize)>);

    fn said(outbox: &mut Outbox) -> Vec<Said> {
        core::iter::from_fn(|| outbox.pop())
            .map(|output| {
                let ClientOutput::Send { envelope, .. } = output else { panic!("{output:?}") };
                let batch = if let Message::Requests(batch) = envelope.message {
                    Some((batch.first.0, batch.operations.len()))
                } else if let Message::Request(request) = envelope.message {
                    Some((request.request_number.0, 1))
                } else {
                    None
                };
                (envelope.sender, envelope.epoch, batch)
            })
            .collect()
    }

    #[test]
    fn what_was_asked_leaves_under_the_name_and_in_the_epoch_in_which_it_was() {
        let (one, other) = (ClientId(1), ClientId(2));
        let mut outbox = Outbox::new(GroupId(1), one, 1024);
        asked(&mut outbox, 1);
        asked(&mut outbox, 2);
        outbox.rename(other);
        asked(&mut outbox, 3);
        outbox.enter(Epoch(1));
        asked(&mut outbox, 4);
        let (one, other) = (Sender::Client(one), Sender::Client(other));
        assert_eq!(
            said(&mut outbox),
            [
                (one, Epoch(0), Some((1, 2))),
                (other, Epoch(0), Some((3, 1))),
                (other, Epoch(1), Some((4, 1))),
            ]
        );
    }

    #[test]
    fn a_message_stays_behind_the_requests_in_front_of_it() {
        let mut outbox = Outbox::new(GroupId(1), ClientId(1), 1024);
        asked(&mut outbox, 1);
        outbox.register(TO, Nonce(5));
        asked(&mut outbox, 2);
        let order: Vec<_> = said(&mut outbox).into_iter().map(|(_, _, batch)| batch).collect();
        assert_eq!(order, [Some((1, 1)), None, Some((2, 1))]);
    }
}
