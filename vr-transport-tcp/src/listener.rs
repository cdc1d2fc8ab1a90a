//! Accepts connections and answers their handshakes; garbage and strangers disturb nobody.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::debug;
use vr_core::{ReplicaId, Role, TransportError};

use crate::{
    dialer,
    end::End,
    handshake::{
        self, Answer, Carries, Hello, Purpose, ReadError, Refusal, Verdict, Versions, judge,
    },
    peers::Caller,
    socket,
};

/// Listens on the first address of `address` that can be listened on.
pub(crate) async fn bind(address: &str) -> Result<TcpListener, TransportError> {
    let failed = |source| TransportError::Listen { address: address.to_owned(), source };
    let mut latest = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in lookup_host(address).await.map_err(failed)? {
        match TcpListener::bind(resolved).await {
            Ok(listener) => return Ok(listener),
            Err(error) => latest = error,
        }
    }
    Err(failed(latest))
}

/// Runs until the transport is closed.
pub(crate) async fn accept(end: Arc<End>, listener: Arc<TcpListener>) {
    let handshakes_max = usize::try_from(end.config.handshakes_max).unwrap_or(usize::MAX);
    let mut handshakes = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                while handshakes.try_join_next().is_some() {}
                if handshakes.len() < handshakes_max {
                    handshakes.spawn(greet(Arc::clone(&end), stream, from));
                } else {
                    debug!(from = %from, "connection closed, too many handshakes");
                }
            }
            Err(error) => {
                end.peers().complain(format!("cannot accept connections: {error}"));
                sleep(end.config.redial_interval_max).await;
            }
        }
    }
}

/// One accepted connection, from its first byte to its place among the peers.
async fn greet(end: Arc<End>, mut stream: TcpStream, from: SocketAddr) {
    if let Err(error) = socket::set_options(&stream, &end.config) {
        debug!(reason = %error, "socket options not set");
    }
    let limit = end.config.handshake_timeout;
    match timeout(limit, handshake::read(&mut stream)).await {
        Ok(Ok((versions, body))) => converse(&end, stream, from, versions, &body).await,
        Ok(Err(error)) => reject(&end, from, &error),
        Err(_) => debug!(from = %from, "connection closed, it did not say who it is"),
    }
}

fn reject(end: &End, from: SocketAddr, error: &ReadError) {
    match error {
        // Port scanners and health checks come and go without a word.
        ReadError::Io(_) => debug!(from = %from, reason = %error, "connection closed"),
        ReadError::NotOurs | ReadError::TooLong { .. } => {
            // Without the port, so that a stranger who comes again is the same complaint.
            end.peers().complain(format!("refused a connection from {}: {error}", from.ip()));
        }
    }
}

async fn converse(
    end: &End,
    mut stream: TcpStream,
    from: SocketAddr,
    versions: Versions,
    body: &[u8],
) {
    let hello = Hello::decode(body);
    let judgement = match (end.versions.common(versions), &hello) {
        (None, _) => Err(Refusal::Version { caller: versions, answerer: end.versions }),
        (Some(_), Err(_)) => Err(Refusal::Malformed),
        (Some(version), Ok(hello)) => admit(end, hello).await.map(|()| version),
    };
    let verdict = match judgement {
        Ok(version) => Verdict::Accepted { version },
        Err(refusal) => {
            let caller = hello.as_ref().map_or(&end.facts, |hello| &hello.facts);
            let reason = refusal.explain(caller, &end.facts);
            end.peers().complain(format!("refused a connection from {}: {reason}", from.ip()));
            Verdict::Refused(refusal)
        }
    };
    let version = match verdict {
        Verdict::Accepted { version } => Some(version),
        Verdict::Refused(_) => None,
    };
    let hello = hello.ok().zip(version);
    if let Some((hello, version)) = &hello {
        prepare(end, hello, caller(hello, *version, from));
    }
    let answer = Answer { verdict, facts: end.facts.clone() }.encode(end.versions);
    if let Err(error) = handshake::write(&mut stream, &answer).await {
        debug!(from = %from, reason = %error, "handshake not answered");
        return;
    }
    if let Some((hello, version)) = hello {
        install(end, &hello, caller(&hello, version, from), stream);
    }
}

/// Whether the caller may go on, as far as the connections that there are decide it.
async fn admit(end: &End, hello: &Hello) -> Result<(), Refusal> {
    judge(hello, &end.facts)?;
    match (hello.facts.role, hello.purpose) {
        (Role::Client(_), _) if end.peers().is_crowded() => {
            Err(Refusal::Crowded { connections_max: end.config.client_connections_max })
        }
        (Role::Replica(id), Purpose::Knock | Purpose::Link { carries: Carries::Control, .. }) => {
            arbitrate(end, id, hello.facts.process).await
        }
        (Role::Client(_) | Role::Replica(_), Purpose::Probe | Purpose::Knock)
        | (Role::Client(_) | Role::Replica(_), Purpose::Link { .. }) => Ok(()),
    }
}

/// Two processes say that they are `replica`: the one that answers at its address is.
///
/// A restarted process passes at once when the system has told us that the old one's connection
/// closed, and else as soon as it has answered at its own address. A second process cannot: the
/// first one answers there.
async fn arbitrate(end: &End, replica: ReplicaId, process: u128) -> Result<(), Refusal> {
    let linked = end.peers().linked(replica);
    let Some(linked) = linked.filter(|linked| linked.process != process) else { return Ok(()) };
    let members = end.endpoint.members.as_slice();
    let Some(member) = members.iter().find(|member| member.id == replica) else {
        return Err(Refusal::NotMember);
    };
    let answering = dialer::probe(end, member).await;
    if answering.is_ok_and(|answering| answering == process) {
        return Ok(());
    }
    match end.peers().linked(replica) {
        Some(still) if still.process == linked.process => {
            Err(Refusal::SameReplica { address: linked.address.to_string() })
        }
        Some(_) | None => Ok(()),
    }
}

/// What must be known before the caller hears that it is accepted.
fn prepare(end: &End, hello: &Hello, caller: Caller) {
    let mut peers = end.peers();
    match (hello.facts.role, hello.purpose) {
        (Role::Replica(id), Purpose::Link { carries: Carries::Control, number }) => {
            peers.expect_lanes(id, caller, number);
        }
        (Role::Replica(id), Purpose::Knock) => {
            let process = hello.facts.process;
            if peers.linked(id).is_some_and(|linked| linked.process != process) {
                peers.unlink(id);
            }
            if let Some(signals) = peers.signals(id) {
                signals.knocked.notify_one();
            }
        }
        (Role::Replica(_), Purpose::Probe | Purpose::Link { .. }) | (Role::Client(_), _) => {}
    }
}

/// Gives an accepted connection its place.
fn install(end: &End, hello: &Hello, caller: Caller, stream: TcpStream) {
    match (hello.facts.role, hello.purpose) {
        (Role::Replica(id), Purpose::Link { carries, number }) => {
            end.peers().offer_lane(id, (hello.facts.process, number), carries, stream);
        }
        (Role::Client(_), Purpose::Link { .. }) => {
            let from = caller.address;
            if !end.peers().link_client(caller, stream) {
                debug!(from = %from, "client disconnected, there are too many");
            }
        }
        (Role::Replica(_) | Role::Client(_), Purpose::Probe | Purpose::Knock) => {}
    }
}

const fn caller(hello: &Hello, version: u16, address: SocketAddr) -> Caller {
    let process = hello.facts.process;
    Caller { process, address, message_bytes_max: hello.facts.message_bytes_max, version }
}
