//! Transports against each other, and against sockets that say what no transport would.

mod clients;
mod handshakes;
mod intruders;
mod lanes;
mod links;
mod repeats;
mod versions;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use vr_core::{
    Backpressure, Durability, Endpoint, Member, Members, OpNumber, Received, ReplicaId, Role,
    Transport, View,
    model::{
        certificate::{CertificateHash, CrashVector},
        kind::Lane,
        message::{Envelope, Message, Request, Sender},
        types::{ClientId, ConnectionId, Epoch, Incarnation, Peer, RequestNumber},
    },
};

use crate::{
    config::TcpConfig,
    handshake::{self, Carries, Facts, Hello, Purpose, VERSIONS, Verdict},
    transport::TcpTransport,
};

pub(super) const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// A started transport and what it received and nobody has looked at.
#[derive(Debug)]
pub(super) struct Tested {
    pub(super) transport: Arc<TcpTransport>,
    got: VecDeque<Received>,
}

impl Tested {
    pub(super) fn start(transport: TcpTransport, endpoint: Endpoint) -> Self {
        transport.start(endpoint).unwrap();
        Self { transport: Arc::new(transport), got: VecDeque::new() }
    }

    /// What is received next, waited for.
    pub(super) async fn next(&mut self) -> Received {
        while self.got.is_empty() {
            let mut into = Vec::new();
            self.transport.receive(&mut into).await.unwrap();
            self.got.extend(into);
        }
        self.got.pop_front().unwrap()
    }

    /// The next envelope, and who sent it; skips connections that open.
    pub(super) async fn envelope(&mut self) -> (Peer, Box<Envelope>) {
        loop {
            match self.next().await {
                Received::Envelope { from, envelope } => return (from, envelope),
                Received::Connected(_) => {}
                Received::Disconnected(peer) => panic!("{peer} is gone"),
            }
        }
    }

    /// Waits until `event` is received; skips everything else.
    pub(super) async fn until(&mut self, event: Received) {
        while self.next().await != event {}
    }

    /// Waits until these members are connected, in any order.
    pub(super) async fn connected(&mut self, members: &[u64]) {
        let mut missing: Vec<Received> =
            members.iter().map(|id| Received::Connected(replica(*id))).collect();
        while !missing.is_empty() {
            let event = self.next().await;
            missing.retain(|wanted| *wanted != event);
        }
    }

    /// The next complaint, waited for.
    pub(super) async fn complaint(&self) -> String {
        loop {
            if let Some(complaint) = self.transport.complaints().into_iter().next() {
                return complaint;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn send(&self, to: Peer, envelope: Box<Envelope>) -> Result<(), Backpressure> {
        let lane = envelope.message.lane();
        self.transport.send(to, lane, envelope)
    }

    /// Sends and flushes.
    pub(super) fn say(&self, to: Peer, envelope: Box<Envelope>) {
        self.send(to, envelope).unwrap();
        self.transport.flush();
    }
}

pub(super) const fn replica(id: u64) -> Peer {
    Peer::Replica(ReplicaId(id))
}

pub(super) const fn client(connection: u64) -> Peer {
    Peer::Client(ConnectionId(connection))
}

/// `count` transports bound to free ports, and the members they are.
pub(super) async fn bound(count: u64, config: &TcpConfig) -> (Vec<TcpTransport>, Members) {
    bound_each((0..count).map(|_| config)).await
}

/// One transport for each configuration, bound to free ports, and the members they are.
pub(super) async fn bound_each(
    configs: impl Iterator<Item = &TcpConfig>,
) -> (Vec<TcpTransport>, Members) {
    let (mut transports, mut members) = (Vec::new(), Vec::new());
    for (id, config) in (0..).map(ReplicaId).zip(configs) {
        let transport = TcpTransport::bind_with("127.0.0.1:0", config.clone()).await.unwrap();
        let address = transport.local_address().unwrap().to_string();
        transports.push(transport);
        members.push(Member { id, address });
    }
    (transports, Members::new(members).unwrap())
}

/// A started group of `count` replicas.
pub(super) async fn group(count: u64, config: &TcpConfig) -> (Vec<Tested>, Members) {
    group_each((0..count).map(|_| config)).await
}

/// A started group of a replica for each configuration.
pub(super) async fn group_each(
    configs: impl Iterator<Item = &TcpConfig>,
) -> (Vec<Tested>, Members) {
    let (transports, members) = bound_each(configs).await;
    let started = transports.into_iter().zip(0..).map(|(transport, id)| {
        Tested::start(transport, endpoint(Role::Replica(ReplicaId(id)), &members))
    });
    (started.collect(), members)
}

/// Two connected replicas.
pub(super) async fn pair(config: &TcpConfig) -> (Tested, Tested) {
    let (mut replicas, _) = group(2, config).await;
    let (mut one, mut zero) = (replicas.pop().unwrap(), replicas.pop().unwrap());
    zero.connected(&[1]).await;
    one.connected(&[0]).await;
    (zero, one)
}

pub(super) fn endpoint(role: Role, members: &Members) -> Endpoint {
    Endpoint {
        group_name: "test".into(),
        group: members.to_membership().group_id("test"),
        role,
        durability: mode_of(role),
        members: members.clone(),
        message_bytes_max: MESSAGE_BYTES_MAX,
    }
}

/// What groups run in where nothing else is said.
pub(super) const fn mode_of(role: Role) -> Option<Durability> {
    match role {
        Role::Replica(_) => Some(Durability::Full),
        Role::Client(_) => None,
    }
}

pub(super) fn envelope(message: Message) -> Box<Envelope> {
    Box::new(Envelope {
        group: Members::local(3).unwrap().to_membership().group_id("test"),
        certificate: CertificateHash(7),
        epoch: Epoch(0),
        sender: Sender::Replica(ReplicaId(0)),
        incarnation: Incarnation(0),
        view: View(3),
        crash_vector: CrashVector::default(),
        message,
    })
}

/// On the data lane.
pub(super) fn request(number: u64, bytes: usize) -> Box<Envelope> {
    envelope(Message::Request(Request {
        client: ClientId(9),
        session: OpNumber(1),
        request_number: RequestNumber(number),
        many: false,
        operation: Bytes::from(vec![7; bytes]),
    }))
}

/// A plain socket that has gone through the handshake as `hello` says.
pub(super) async fn greeted(address: &str, hello: &Hello) -> (TcpStream, Verdict) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello.encode(VERSIONS)).await.unwrap();
    let (versions, body) = handshake::read(&mut stream).await.unwrap();
    let answer = handshake::Answer::decode(&body, VERSIONS, versions).unwrap();
    (stream, answer.verdict)
}

/// The hello of a client of `members` to member `to`.
pub(super) fn client_hello(members: &Members, to: u64) -> Hello {
    let facts = Facts::new(&endpoint(Role::Client(ClientId(5)), members), 77);
    Hello { purpose: Purpose::Link { carries: Carries::All, number: 1 }, to: ReplicaId(to), facts }
}

/// Reads until the other end closes; however it does that.
pub(super) async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
}
