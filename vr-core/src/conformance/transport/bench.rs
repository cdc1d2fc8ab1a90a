//! Ends of one network on the bench: started, sent from, received at, and compared.

use core::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};
use std::{collections::BTreeSet, sync::Arc, task::Wake};

use futures::{
    future::{BoxFuture, poll_fn},
    task::AtomicWaker,
};

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        transport::harness::Harness,
    },
    model::{
        durable::Durability,
        membership::Members,
        message::Envelope,
        types::{ClientId, Peer, ReplicaId},
    },
    ports::transport::{Backpressure, Closed, Endpoint, Received, Role, Transport, TransportError},
};

/// The largest message of the suite's endpoints.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// Envelopes that no queue may take from a sender whose receiver does not look, of
/// [`limits::FILLER_BYTES`](super::limits::FILLER_BYTES) each: together a gigabyte.
pub(crate) const QUEUED_MAX: u64 = 10_000;

/// One end on the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End(usize);

/// A network, by its ends.
pub(crate) struct Bench<'a> {
    pub(crate) harness: &'a mut dyn Harness,
    members: Option<Members>,
    seats: Vec<Seat>,
}

/// An end, and what is known of it.
struct Seat {
    role: Role,
    transport: Option<Box<dyn Transport>>,
    /// Whether it is received at while something is waited for.
    receives: bool,
    got: Vec<Received>,
    /// How much of `got` was looked through.
    seen: usize,
    peers: BTreeSet<Peer>,
}

impl Seat {
    fn receive(&mut self) -> Option<BoxFuture<'_, Result<(), Closed>>> {
        let transport = self.transport.as_deref().filter(|_| self.receives)?;
        Some(transport.receive(&mut self.got))
    }

    /// Looks through what is new.
    fn look(&mut self) -> Outcome {
        for received in self.got.iter().skip(self.seen) {
            match received {
                Received::Connected(peer) => {
                    let role = self.role;
                    ensure(self.peers.insert(*peer), || {
                        format!("{role:?} was told twice that the way to {peer} is open.")
                    })?;
                }
                Received::Disconnected(peer) => {
                    let role = self.role;
                    ensure(self.peers.remove(peer), || {
                        format!("{role:?} was told that the way to {peer} broke; it was not open.")
                    })?;
                }
                Received::Envelope { .. } => {}
            }
        }
        self.seen = self.got.len();
        Ok(())
    }
}

/// Remembers that it was rung, and wakes whoever stands behind it.
#[derive(Default)]
struct Bell {
    has_rung: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.outer.wake();
    }
}

impl<'a> Bench<'a> {
    pub(crate) fn new(harness: &'a mut dyn Harness) -> Self {
        Self { harness, members: None, seats: Vec::new() }
    }

    /// A fresh network for so many members, none of them started.
    pub(crate) async fn prepare(&mut self, count: u64) {
        self.seats.clear();
        self.members = Some(self.harness.members(count).await);
    }

    /// A started group in which everyone is connected with everyone.
    pub(crate) async fn group<const N: usize>(&mut self) -> Result<[End; N], Failure> {
        self.prepare(u64::try_from(N).unwrap_or(u64::MAX)).await;
        let mut ends = [End(0); N];
        for (end, id) in ends.iter_mut().zip(0..) {
            *end = self.start(replica(id)).await?;
        }
        for (end, id) in ends.iter().zip(0..) {
            for other in (0..u64::try_from(N).unwrap_or(u64::MAX)).filter(|other| *other != id) {
                self.until_connected(*end, Peer::Replica(ReplicaId(other))).await?;
            }
        }
        Ok(ends)
    }

    /// An end that is not started.
    pub(crate) async fn unstarted(&mut self, role: Role) -> End {
        let transport = Some(self.harness.transport(role).await);
        let (got, peers) = (Vec::new(), BTreeSet::new());
        self.seats.push(Seat { role, transport, receives: false, got, seen: 0, peers });
        End(self.seats.len() - 1)
    }

    /// Starts `end` as a member, or a client, of the group with this name.
    pub(crate) fn try_start(&mut self, end: End, group_name: &str) -> Result<(), TransportError> {
        let members = self.members.clone();
        let members = members.ok_or(TransportError::Misused { reason: "there are no members" })?;
        let seat = self.seat_mut(end);
        let endpoint = Endpoint {
            group_name: group_name.to_owned(),
            group: members.to_membership().group_id(group_name),
            role: seat.role,
            durability: matches!(seat.role, Role::Replica(_)).then_some(Durability::Full),
            members,
            message_bytes_max: MESSAGE_BYTES_MAX,
        };
        let started = seat.transport.as_deref().map_or(Ok(()), |way| way.start(endpoint));
        seat.receives |= started.is_ok();
        started
    }

    /// A started end.
    pub(crate) async fn start(&mut self, role: Role) -> Result<End, Failure> {
        let end = self.unstarted(role).await;
        self.try_start(end, "conformance").map_err(|error| {
            Failure(format!("{role:?} cannot be started: {error} ({error:?})."))
        })?;
        Ok(end)
    }

    #[expect(clippy::indexing_slicing, reason = "ends are made by pushing seats, which stay")]
    fn seat(&self, end: End) -> &Seat {
        &self.seats[end.0]
    }

    #[expect(clippy::indexing_slicing, reason = "ends are made by pushing seats, which stay")]
    fn seat_mut(&mut self, end: End) -> &mut Seat {
        &mut self.seats[end.0]
    }

    /// The transport of an end that was not dropped.
    pub(crate) fn transport(&self, end: End) -> Result<&dyn Transport, Failure> {
        let transport = self.seat(end).transport.as_deref();
        transport.ok_or_else(|| Failure("The case uses an end that it dropped.".to_owned()))
    }

    /// From now on nobody receives at `end`, or again.
    pub(crate) fn set_receiving(&mut self, end: End, receives: bool) {
        self.seat_mut(end).receives = receives;
    }

    /// The process of `end` is over.
    pub(crate) fn drop_end(&mut self, end: End) {
        self.seat_mut(end).transport = None;
    }

    /// Everything that was received at `end` and not taken.
    pub(crate) fn got(&self, end: End) -> &[Received] {
        &self.seat(end).got
    }

    /// Whom `end` is connected with.
    pub(crate) fn peers(&self, end: End) -> &BTreeSet<Peer> {
        &self.seat(end).peers
    }

    /// The envelopes among what was received at `end`.
    pub(crate) fn envelopes(&self, end: End) -> impl Iterator<Item = (Peer, &Envelope)> {
        self.got(end).iter().filter_map(|received| match received {
            Received::Envelope { from, envelope } => Some((*from, &**envelope)),
            Received::Connected(_) | Received::Disconnected(_) => None,
        })
    }

    pub(crate) fn send(&self, from: End, to: Peer, what: Envelope) -> Result<(), Backpressure> {
        let Some(transport) = self.seat(from).transport.as_deref() else {
            return Err(Backpressure::NotConnected);
        };
        let lane = what.message.lane();
        let sent = transport.send(to, lane, Box::new(what));
        transport.flush();
        sent
    }

    /// Sends, and requires that it was taken.
    pub(crate) fn say(&self, from: End, to: Peer, what: Envelope) -> Outcome {
        let kind = what.message.kind();
        self.send(from, to, what).map_err(|refused| {
            let role = self.seat(from).role;
            Failure(format!(
                "A {kind:?} from {role:?} to {to} was refused ({refused}), though they are \
                 connected and little is on its way."
            ))
        })
    }

    /// Sends again while the queue is full.
    pub(crate) async fn say_with_patience(
        &mut self,
        from: End,
        to: Peer,
        what: &Envelope,
    ) -> Outcome {
        while self.send(from, to, what.clone()) == Err(Backpressure::QueueFull) {
            let moved = self.step().await?;
            ensure(moved, || format!("The queue to {to} stays full, though it receives."))?;
        }
        Ok(())
    }

    pub(crate) async fn until_connected(&mut self, end: End, peer: Peer) -> Outcome {
        let what = format!("{:?} to hear that the way to {peer} is open", self.seat(end).role);
        self.until(&what, |bench| bench.peers(end).contains(&peer)).await
    }

    pub(crate) async fn until_disconnected(&mut self, end: End, peer: Peer) -> Outcome {
        let what = format!("{:?} to hear that the way to {peer} broke", self.seat(end).role);
        self.until(&what, |bench| !bench.peers(end).contains(&peer)).await
    }

    /// Waits until exactly this was received at `end` from `from`.
    pub(crate) async fn until_got(&mut self, end: End, from: Peer, what: &Envelope) -> Outcome {
        let (kind, role) = (what.message.kind(), self.seat(end).role);
        let expected = format!("the {kind:?} that {from} sent to {role:?}, unchanged");
        let arrived = |bench: &Self| {
            bench.envelopes(end).any(|(sender, envelope)| sender == from && envelope == what)
        };
        self.until(&expected, arrived).await
    }

    /// Receives everywhere until `holds`.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Outcome {
        while !holds(self) {
            let moved = self.step().await?;
            ensure(moved, || {
                format!("Waited for {what}; nothing more arrived. {}", self.summary())
            })?;
        }
        Ok(())
    }

    /// Receives everywhere until something comes somewhere; false if nothing does.
    pub(crate) async fn step(&mut self) -> Result<bool, Failure> {
        let mut patience = self.harness.patience();
        let mut receiving: Vec<_> = self.seats.iter_mut().filter_map(Seat::receive).collect();
        let moved = poll_fn(|context| {
            let (mut moved, mut closed) = (false, false);
            for receive in &mut receiving {
                if let Poll::Ready(received) = receive.as_mut().poll(context) {
                    moved = true;
                    closed |= received.is_err();
                }
            }
            if moved {
                return Poll::Ready(if closed { Err(Closed) } else { Ok(true) });
            }
            patience.as_mut().poll(context).map(|()| Ok(false))
        });
        let moved = moved.await;
        drop(receiving);
        for seat in &mut self.seats {
            seat.look()?;
        }
        moved.map_err(|Closed| Failure("An end says that it is closed, and is not.".to_owned()))
    }

    /// What a receive at `end` returns that waits when `act` happens, and that is polled again only
    /// when it is woken; `None` if it is not, or not when there is something to return.
    pub(crate) async fn received_after(
        &mut self,
        end: End,
        act: impl FnOnce(&Self) -> Outcome,
    ) -> Result<Option<Result<(), Closed>>, Failure> {
        self.set_receiving(end, false);
        let (transport, mut patience) = (self.transport(end)?, self.harness.patience());
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut bell_context = Context::from_waker(&waker);
        let mut into = Vec::new();
        // Whatever is there already comes first.
        while transport.receive(&mut into).as_mut().poll(&mut bell_context).is_ready() {}
        let mut receive = transport.receive(&mut into);
        let waits = receive.as_mut().poll(&mut bell_context).is_pending();
        ensure(waits, || "receive returned, though nothing had come.".to_owned())?;
        act(self)?;
        let received = poll_fn(|context| {
            bell.outer.register(context.waker());
            while bell.has_rung.swap(false, Ordering::AcqRel) {
                if let Poll::Ready(received) = receive.as_mut().poll(&mut bell_context) {
                    return Poll::Ready(Some(received));
                }
            }
            patience.as_mut().poll(context).map(|()| None)
        });
        Ok(received.await)
    }

    fn summary(&self) -> String {
        let ends = self.seats.iter().map(|seat| {
            let envelopes =
                seat.got.iter().filter(|item| matches!(item, Received::Envelope { .. })).count();
            let peers: Vec<String> = seat.peers.iter().map(ToString::to_string).collect();
            format!("{:?} has {envelopes} messages and ways to [{}]", seat.role, peers.join(", "))
        });
        ends.collect::<Vec<_>>().join("; ")
    }
}

pub(crate) const fn replica(id: u64) -> Role {
    Role::Replica(ReplicaId(id))
}

pub(crate) const fn client(id: u128) -> Role {
    Role::Client(ClientId(id))
}

/// As its peers call it.
pub(crate) const fn peer(id: u64) -> Peer {
    Peer::Replica(ReplicaId(id))
}
