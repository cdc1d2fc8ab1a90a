//! A client with several requests and queries in flight, which tells everything to anybody.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "support of one test: what goes wrong here is a failed test"
)]

use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use bytes::Bytes;
use vr_core::{
    ClientId, OpNumber, ReplicaId,
    model::{
        message::{Envelope, Message, Outcome, Query, Register, Rejection, Request, Sender},
        read::Read,
        types::{ConnectionId, GroupId, Incarnation, Nonce, Peer, RequestNumber, View},
    },
    replica::io::Input,
};

use crate::world::{MILLISECOND, World};

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    pub(crate) session: OpNumber,
    window: u64,
    issued: u64,
    /// What is in flight, with what was known when it was issued.
    pending: BTreeMap<u64, OpNumber>,
    asked: u64,
    queries: BTreeMap<u64, OpNumber>,
    /// By request, where it was executed.
    replies: BTreeMap<u64, OpNumber>,
    pub(crate) acknowledged: u64,
    pub(crate) answered: u64,
    /// Issues nothing new.
    pub(crate) done: bool,
    /// Speaks to this replica only.
    pub(crate) only: Option<usize>,
    /// Never speaks to a primary.
    pub(crate) shy: bool,
}

impl Client {
    pub(crate) fn new(index: usize, window: u64) -> Self {
        Self {
            id: ClientId(100 + u128::try_from(index).unwrap()),
            session: OpNumber::ZERO,
            window,
            issued: 0,
            pending: BTreeMap::new(),
            asked: 0,
            queries: BTreeMap::new(),
            replies: BTreeMap::new(),
            acknowledged: 0,
            answered: 0,
            done: false,
            only: None,
            shy: false,
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.session != OpNumber::ZERO && self.pending.is_empty() && self.queries.is_empty()
    }

    pub(crate) fn envelope(group: GroupId, client: u128, message: Message) -> Envelope {
        Envelope {
            group,
            certificate: Default::default(),
            epoch: Default::default(),
            sender: Sender::Client(ClientId(client)),
            incarnation: Incarnation::ZERO,
            view: View::ZERO,
            crash_vector: Default::default(),
            message,
        }
    }

    fn target(world: &mut World, index: usize) -> usize {
        if let Some(only) = world.clients[index].only {
            return only;
        }
        let replica = world.any_replica();
        if world.clients[index].shy && world.primary() == Some(replica) {
            return (replica + 1) % world.count();
        }
        replica
    }

    pub(crate) fn send(world: &mut World, index: usize, replica: usize, message: Message) {
        let client = &world.clients[index];
        let envelope = Self::envelope(world.group(), client.id.0, message);
        let connection = ConnectionId(u64::try_from(index * 64 + replica).unwrap());
        let to = Peer::Replica(ReplicaId(u64::try_from(replica).unwrap()));
        world.post(Peer::Client(connection), to, Box::new(envelope));
    }

    pub(crate) fn request(&self, number: u64) -> Message {
        Message::Request(Request {
            client: self.id,
            session: self.session,
            request_number: RequestNumber(number),
            many: false,
            operation: self.operation(number),
        })
    }

    /// Consecutive requests; in one message if they are several.
    fn requests(&self, numbers: RangeInclusive<u64>) -> Message {
        let first = RequestNumber(*numbers.start());
        let operations = numbers.map(|number| self.operation(number).into());
        Message::asking(self.id, self.session, first, operations.collect())
    }

    fn operation(&self, number: u64) -> Bytes {
        Bytes::from(format!("{:>60} {number}", self.id))
    }

    /// Says something; returns when it wants to go on.
    pub(crate) fn step(world: &mut World, index: usize) -> u64 {
        let roll = world.below(100);
        let pause = 5 * MILLISECOND + world.below(25 * MILLISECOND);
        let replica = Self::target(world, index);
        let known = world.known;
        let client = &mut world.clients[index];
        if client.session == OpNumber::ZERO {
            let register = Register { client: client.id, nonce: Nonce(client.id.0) };
            Self::send(world, index, replica, Message::Register(register));
            return pause * 4;
        }
        let floor = client.pending.first_key_value().map_or(client.issued + 1, |(n, _)| *n);
        match roll {
            0..40 if !client.done && client.issued < floor + client.window - 1 => {
                let first = client.issued + 1;
                // Some of them together.
                let last = if roll.is_multiple_of(2) { first } else { floor + client.window - 1 };
                client.issued = last;
                client.pending.extend((first..=last).map(|number| (number, known)));
                let message = client.requests(first..=last);
                Self::send(world, index, replica, message);
            }
            40..60 if !client.done && client.queries.len() < 4 => {
                client.asked += 1;
                client.queries.insert(client.asked, known);
                let message = client.query(client.asked);
                Self::send(world, index, replica, message);
            }
            60..97 => Self::say_again(world, index, replica),
            97..100 => Self::reconnect(world, index, replica),
            _ => {}
        }
        pause
    }

    /// Forgets the queries in flight, and asks new ones from now on.
    pub(crate) fn renew_queries(&mut self) {
        self.queries.clear();
    }

    fn query(&self, number: u64) -> Message {
        Message::Query(Query {
            client: self.id,
            request_number: RequestNumber(number),
            read: Read::Linearizable,
            query: Bytes::new(),
        })
    }

    fn say_again(world: &mut World, index: usize, replica: usize) {
        let client = &world.clients[index];
        let requests = client.pending.keys().map(|number| client.request(*number));
        let queries = client.queries.keys().map(|number| client.query(*number));
        for message in requests.chain(queries).collect::<Vec<_>>() {
            Self::send(world, index, replica, message);
        }
    }

    fn reconnect(world: &mut World, index: usize, replica: usize) {
        let connection = ConnectionId(u64::try_from(index * 64 + replica).unwrap());
        world.input(replica, Input::Disconnected { peer: Peer::Client(connection) });
    }

    pub(crate) fn hears(world: &mut World, connection: ConnectionId, message: Message) {
        let index = usize::try_from(connection.0).unwrap() / 64;
        match message {
            Message::Replies(batch) => {
                for reply in batch.each() {
                    Self::hears(world, connection, Message::Reply(reply));
                }
            }
            Message::Reply(m) => match m.outcome {
                Outcome::Registered => {
                    let session = world.clients[index].session;
                    if session != OpNumber::ZERO && session != m.op_number {
                        world.fail("a client has two sessions");
                    }
                    world.clients[index].session = m.op_number;
                    world.known = world.known.max(m.op_number);
                }
                Outcome::Executed(_) => {
                    Self::acknowledged(world, index, m.request_number.0, m.op_number);
                }
                // An old message asked again for what the client has had long since.
                Outcome::Forgotten
                    if !world.clients[index].pending.contains_key(&m.request_number.0) => {}
                outcome => world.fail(&format!("client {index} was told {outcome:?}")),
            },
            Message::Answer(m) => {
                world.known = world.known.max(m.op_number);
                let client = &mut world.clients[index];
                let Some(floor) = client.queries.remove(&m.request_number.0) else { return };
                client.answered += 1;
                if m.op_number < floor {
                    world.fail(&format!("stale read: {m:?} but {floor} was known before"));
                }
            }
            Message::Rejected(m) => match m.reason {
                Rejection::Busy(_) => {}
                reason => world.fail(&format!("client {index} was told {reason:?}")),
            },
            message => world.fail(&format!("a client was told {message:?}")),
        }
    }

    fn acknowledged(world: &mut World, index: usize, number: u64, at: OpNumber) {
        world.known = world.known.max(at);
        let known = *world.clients[index].replies.entry(number).or_insert(at);
        if known != at || world.committed.len() < usize::try_from(at.0).unwrap() {
            world.fail(&format!("client {index}: request {number} at {known} and at {at}"));
        }
        let client = &mut world.clients[index];
        let Some(floor) = client.pending.remove(&number) else { return };
        client.acknowledged += 1;
        if at <= floor {
            world.fail(&format!("request {number} at {at}, but {floor} was known before"));
        }
    }
}
