//! Keeps a way to every member open: dials, or knocks where the other end is the one that dials.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use tracing::debug;
use vr_core::{Member, ReplicaId, Role};

use crate::{
    end::End,
    handshake::{self, Answer, Carries, Facts, Hello, Purpose, ReadError, Refusal, Verdict, dials},
    peers::{Caller, Streams},
    runtime::random,
    socket,
};

/// Why a dial came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name has no address.
    #[error("its address cannot be resolved: {0}")]
    Unresolved(#[source] io::Error),
    /// Nobody listens, or nobody can be reached.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The other end does not answer in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// What answers is no hello.
    #[error(transparent)]
    Handshake(#[from] ReadError),
    /// What answers has the right beginning and cannot be read.
    #[error("its answer cannot be read")]
    Malformed,
    /// The other end answers no, and why.
    #[error("it refuses: {0}")]
    Refused(String),
    /// The process was replaced while the lanes were dialled.
    #[error("it restarted meanwhile")]
    Restarted,
}

impl DialError {
    /// Whether an operator should hear of it; that a process is down is nothing to complain about.
    const fn is_complaint(&self) -> bool {
        match self {
            Self::Unresolved(_)
            | Self::Malformed
            | Self::Refused(_)
            | Self::Handshake(ReadError::NotOurs | ReadError::TooLong { .. }) => true,
            Self::Unreachable(_)
            | Self::TimedOut
            | Self::Restarted
            | Self::Handshake(ReadError::Io(_)) => false,
        }
    }
}

/// Runs until the transport is closed: whenever `member` is not linked, tries to change that.
pub(crate) async fn keep_linked(end: Arc<End>, member: Member) {
    let Some(signals) = end.peers().signals(member.id) else { return };
    let mut pauses = Pauses::new(end.config.redial_interval_min, end.config.redial_interval_max);
    loop {
        let linked_since = Instant::now();
        while end.peers().linked(member.id).is_some() {
            signals.unlinked.notified().await;
        }
        if linked_since.elapsed() >= end.config.redial_interval_max {
            pauses.reset();
        }
        if let Some(pause) = pauses.next() {
            // A knock ends the pause early: whoever knocks is there.
            drop(timeout(pause, signals.knocked.notified()).await);
        }
        if end.peers().linked(member.id).is_some() {
            continue;
        }
        if let Err(error) = approach(&end, &member).await {
            report(&end, &member, &error);
        }
    }
}

/// One try, as the pair's rule says: a link, or a knock.
async fn approach(end: &End, member: &Member) -> Result<(), DialError> {
    let number = end.next_link_number();
    let link = |carries| call(end, member, Purpose::Link { carries, number });
    let (caller, streams) = match end.facts.role {
        Role::Replica(id) if !dials(id, member.id) => {
            call(end, member, Purpose::Knock).await?;
            return Ok(());
        }
        Role::Client(_) => {
            let (caller, stream) = link(Carries::All).await?;
            (caller, Streams::One(stream))
        }
        Role::Replica(_) => {
            // Control first, alone: a refusal is then heard once and not three times.
            let (caller, control) = link(Carries::Control).await?;
            let rest = futures::try_join!(link(Carries::Data), link(Carries::Bulk))?;
            let ((data_caller, data), (bulk_caller, bulk)) = rest;
            if [data_caller.process, bulk_caller.process] != [caller.process; 2] {
                return Err(DialError::Restarted);
            }
            (caller, Streams::Lanes { control, data, bulk })
        }
    };
    end.peers().link(member.id, caller, streams);
    Ok(())
}

/// The process that answers at `member`'s address.
pub(crate) async fn probe(end: &End, member: &Member) -> Result<u128, DialError> {
    Ok(call(end, member, Purpose::Probe).await?.0.process)
}

/// Dials `member`, resolving its address again, and goes through the handshake.
async fn call(
    end: &End,
    member: &Member,
    purpose: Purpose,
) -> Result<(Caller, TcpStream), DialError> {
    let conversation = async {
        let (mut stream, address) = connect(&member.address).await?;
        if let Err(error) = socket::set_options(&stream, &end.config) {
            debug!(reason = %error, "socket options not set");
        }
        let hello = Hello { purpose, to: member.id, facts: end.facts.clone() };
        handshake::write(&mut stream, &hello.encode(end.versions)).await.map_err(ReadError::Io)?;
        let (answerer, version) = hear(end, &mut stream, member.id).await?;
        let message_bytes_max = answerer.message_bytes_max;
        Ok((Caller { process: answerer.process, address, message_bytes_max, version }, stream))
    };
    // A probe is made while somebody waits for the answer to a handshake.
    let limit = match purpose {
        Purpose::Probe => end.config.handshake_timeout / 2,
        Purpose::Knock | Purpose::Link { .. } => end.config.handshake_timeout,
    };
    timeout(limit, conversation).await.unwrap_or(Err(DialError::TimedOut))
}

async fn connect(address: &str) -> Result<(TcpStream, SocketAddr), DialError> {
    let addresses = lookup_host(address).await.map_err(DialError::Unresolved)?;
    let mut latest = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) if socket::is_self_connected(&stream) => {
                latest = io::ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => return Ok((stream, address)),
            Err(error) => latest = error,
        }
    }
    Err(DialError::Unreachable(latest))
}

/// The other end's answer, if it accepts and is who it should be, and the version of all frames.
async fn hear(end: &End, stream: &mut TcpStream, to: ReplicaId) -> Result<(Facts, u16), DialError> {
    let (versions, body) = handshake::read(stream).await?;
    let refused = |refusal: Refusal, answerer: &Facts| {
        Err(DialError::Refused(refusal.explain(&end.facts, answerer)))
    };
    if end.versions.common(versions).is_none() {
        let refusal = Refusal::Version { caller: end.versions, answerer: versions };
        return refused(refusal, &end.facts);
    }
    let answer = Answer::decode(&body, end.versions, versions).map_err(|_| DialError::Malformed)?;
    match answer.verdict {
        Verdict::Refused(refusal) => refused(refusal, &answer.facts),
        Verdict::Accepted { .. } if answer.facts.replica() != Some(to) => {
            refused(Refusal::WrongReplica { wanted: to }, &answer.facts)
        }
        Verdict::Accepted { version } if Some(version) != end.versions.common(versions) => {
            Err(DialError::Malformed)
        }
        Verdict::Accepted { version } => Ok((answer.facts, version)),
    }
}

fn report(end: &End, member: &Member, error: &DialError) {
    if error.is_complaint() {
        let Member { id, address } = member;
        end.peers().complain(format!("replica {id} at {address}: {error}"));
    } else {
        debug!(to = %member.id, address = member.address, reason = %error, "dial failed");
    }
}

/// Pauses between dials: none, then short ones that double, each jittered down to at least half.
#[derive(Debug)]
struct Pauses {
    min: Duration,
    max: Duration,
    next: Option<Duration>,
}

impl Pauses {
    const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: None }
    }

    /// The next pause is short again.
    const fn reset(&mut self) {
        self.next = Some(self.min);
    }

    /// `None` before the very first dial.
    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = Some(pause.map_or(self.min, |pause| pause.saturating_mul(2)).min(self.max));
        let half = pause? / 2;
        let steps = u32::try_from(random() % 1024).unwrap_or(0);
        Some(half + half * steps / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_are_jittered_down_to_half() {
        let milliseconds = Duration::from_millis;
        let mut pauses = Pauses::new(milliseconds(10), milliseconds(50));
        assert_eq!(pauses.next(), None, "the first dial is made at once");
        for full in [10, 20, 40, 50, 50].map(milliseconds) {
            let pause = pauses.next().unwrap();
            assert!(full / 2 <= pause && pause <= full, "{pause:?} of {full:?}");
        }
        pauses.reset();
        assert!(pauses.next().unwrap() <= milliseconds(10));
    }
}
