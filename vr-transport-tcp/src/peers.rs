//! Whom this end is connected with, which socket a message takes, and who is read when.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake},
    time::Instant,
};

use bytes::BytesMut;
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::Notify,
    time::{Sleep, sleep_until},
};
use vr_core::{
    Backpressure, Closed, Received, ReplicaId, Role,
    model::{
        kind::Lane,
        message::Envelope,
        types::{ConnectionId, Peer},
    },
};

use crate::{
    complaints::Complaints,
    config::TcpConfig,
    connection::{Broken, Connection, Limits, Turn},
    handshake::{Carries, Facts},
    ready::{Ready, ReadyWaker},
    repeated::Repeated,
};

/// Turns that each other lane of a link gets when one of them was closed.
const LAST_TURNS_MAX: u32 = 16;

/// All connections of this end.
///
/// Invariants: a token in a link or in `clients` names an occupied slot; every occupied slot is
/// named by exactly one of them; `Connected` and `Disconnected` of a peer alternate.
#[derive(Debug)]
pub(crate) struct Peers {
    config: TcpConfig,
    ready: Arc<Ready>,
    message_bytes_max: u32,
    slots: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    replicas: BTreeMap<ReplicaId, Replica>,
    clients: BTreeMap<ConnectionId, usize>,
    latest_client: ConnectionId,
    /// Connections with something to write that nobody tried to write yet.
    unflushed: Vec<usize>,
    /// To be told before anything else is read.
    events: VecDeque<Received>,
    complaints: Complaints,
    /// What was encoded since the last flush and may go to others, too.
    repeated: Repeated,
    /// Reused from turn to turn.
    listed: Vec<usize>,
    /// The block that connections read into, one after another.
    spare: BytesMut,
    /// Whether a frame may be partial; only then are the connections looked through.
    has_partial: bool,
    /// Fires when the oldest partial frame may have stalled.
    stall_check: Option<Pin<Box<Sleep>>>,
    /// For the timer, whoever polls.
    runtime: Handle,
    is_closed: bool,
}

/// Another member, connected or not.
#[derive(Debug, Default)]
struct Replica {
    signals: Arc<Signals>,
    link: Option<Link>,
    /// Accepted lanes of a link that is not complete.
    arriving: Option<Arriving>,
}

/// What wakes the task that keeps a replica linked.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The link broke.
    pub(crate) unlinked: Notify,
    /// The replica asked to be dialled.
    pub(crate) knocked: Notify,
}

/// The sockets to one replica; one token three times where there is one socket.
#[derive(Debug)]
struct Link {
    caller: Caller,
    control: usize,
    data: usize,
    bulk: usize,
}

/// The other end of a link, as its handshake said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The process.
    pub(crate) process: u128,
    /// Where it is connected from, or was dialled.
    pub(crate) address: SocketAddr,
    /// The longest frame that it accepts.
    pub(crate) message_bytes_max: u32,
    /// The wire version that was agreed on with it.
    pub(crate) version: u16,
}

#[derive(Debug)]
struct Arriving {
    caller: Caller,
    number: u64,
    control: Option<TcpStream>,
    data: Option<TcpStream>,
    bulk: Option<TcpStream>,
}

/// The sockets of a new link.
#[derive(Debug)]
pub(crate) enum Streams {
    /// Between replicas: one for each lane.
    Lanes { control: TcpStream, data: TcpStream, bulk: TcpStream },
    /// Between a client and a replica: one for all.
    One(TcpStream),
}

impl Peers {
    pub(crate) fn new(
        facts: &Facts,
        config: TcpConfig,
        ready: Arc<Ready>,
        runtime: Handle,
    ) -> Self {
        let others = facts.members.iter().filter(|id| facts.role != Role::Replica(**id));
        Self {
            complaints: Complaints::new(config.complaints_max),
            config,
            ready,
            message_bytes_max: facts.message_bytes_max,
            slots: Vec::new(),
            vacant: Vec::new(),
            replicas: others.map(|id| (*id, Replica::default())).collect(),
            clients: BTreeMap::new(),
            latest_client: ConnectionId::ZERO,
            unflushed: Vec::new(),
            events: VecDeque::new(),
            repeated: Repeated::default(),
            listed: Vec::new(),
            spare: BytesMut::new(),
            has_partial: false,
            stall_check: None,
            runtime,
            is_closed: false,
        }
    }

    /// Queues `envelope` on the socket of its lane.
    pub(crate) fn send(
        &mut self,
        to: Peer,
        lane: Lane,
        envelope: &Envelope,
    ) -> Result<(), Backpressure> {
        let token = self.route(to, lane).ok_or(Backpressure::NotConnected)?;
        let Self { slots, repeated, .. } = self;
        let connection = slots.get_mut(token).and_then(Option::as_mut);
        let connection = connection.ok_or(Backpressure::NotConnected)?;
        let was_drained = connection.is_drained();
        connection.queue(envelope, repeated)?;
        if was_drained {
            self.unflushed.push(token);
        }
        Ok(())
    }

    /// Writes what was queued, as far as the sockets take it; false if there was nothing.
    pub(crate) fn flush(&mut self) -> bool {
        self.repeated.clear();
        let mut unflushed = mem::take(&mut self.unflushed);
        let is_any = !unflushed.is_empty();
        for token in unflushed.drain(..) {
            if let Some(Err(reason)) = self.connection(token).map(Connection::write) {
                self.disconnect(token, &reason);
            }
        }
        self.unflushed = unflushed;
        is_any
    }

    /// Appends what happened and what arrived, each connection in its turn.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<Received>,
    ) -> Poll<Result<(), Closed>> {
        if self.is_closed {
            return Poll::Ready(Err(Closed));
        }
        let before = into.len();
        self.tell_events(into);
        let mut listed = mem::take(&mut self.listed);
        self.ready.take(&mut listed);
        listed.sort_by_key(|token| self.slots.get(*token)?.as_ref().map(Connection::rank));
        for token in listed.drain(..) {
            self.take_turn(token, into);
        }
        self.listed = listed;
        self.end_stalled(context);
        self.tell_events(into);
        if into.len() > before { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Installs a complete link with `replica` in place of the one before.
    pub(crate) fn link(&mut self, replica: ReplicaId, caller: Caller, streams: Streams) {
        self.unlink(replica);
        if self.is_closed || !self.replicas.contains_key(&replica) {
            return;
        }
        let peer = Peer::Replica(replica);
        let config = &self.config;
        let lanes = [
            config.control_queue_bytes_max,
            config.data_queue_bytes_max,
            config.bulk_queue_bytes_max,
        ];
        let client_lane = config.client_queue_bytes_max;
        let [control, data, bulk] = match streams {
            Streams::One(stream) => {
                [self.occupy(peer, Carries::All, stream, client_lane, caller); 3]
            }
            Streams::Lanes { control, data, bulk } => {
                let [control_max, data_max, bulk_max] = lanes;
                [
                    self.occupy(peer, Carries::Control, control, control_max, caller),
                    self.occupy(peer, Carries::Data, data, data_max, caller),
                    self.occupy(peer, Carries::Bulk, bulk, bulk_max, caller),
                ]
            }
        };
        if let Some(entry) = self.replicas.get_mut(&replica) {
            entry.link = Some(Link { caller, control, data, bulk });
            entry.arriving = None;
        }
        tracing::debug!(peer = %peer, address = %caller.address, "connected");
        self.tell(Received::Connected(peer));
    }

    /// Installs the connection of a client; `false` when there are too many.
    pub(crate) fn link_client(&mut self, caller: Caller, stream: TcpStream) -> bool {
        if self.is_closed || self.is_crowded() {
            return false;
        }
        self.latest_client = self.latest_client.next();
        let id = self.latest_client;
        let queue_bytes_max = self.config.client_queue_bytes_max;
        let peer = Peer::Client(id);
        let token = self.occupy(peer, Carries::All, stream, queue_bytes_max, caller);
        self.clients.insert(id, token);
        self.tell(Received::Connected(peer));
        true
    }

    /// Whether no further client may connect.
    pub(crate) fn is_crowded(&self) -> bool {
        let connections_max = usize::try_from(self.config.client_connections_max);
        self.clients.len() >= connections_max.unwrap_or(usize::MAX)
    }

    /// Makes room for the lanes of link `number` of `caller`, which come one by one.
    pub(crate) fn expect_lanes(&mut self, replica: ReplicaId, caller: Caller, number: u64) {
        if let Some(entry) = self.replicas.get_mut(&replica) {
            let (control, data, bulk) = (None, None, None);
            entry.arriving = Some(Arriving { caller, number, control, data, bulk });
        }
    }

    /// Takes one accepted lane, and installs the link with the last; drops what nobody expects.
    pub(crate) fn offer_lane(
        &mut self,
        replica: ReplicaId,
        (process, number): (u128, u64),
        carries: Carries,
        stream: TcpStream,
    ) {
        let Some(entry) = self.replicas.get_mut(&replica) else { return };
        let Some(mut arriving) = entry.arriving.take() else { return };
        if (arriving.caller.process, arriving.number) == (process, number) {
            match carries {
                Carries::Control => arriving.control = Some(stream),
                Carries::Data => arriving.data = Some(stream),
                Carries::Bulk => arriving.bulk = Some(stream),
                Carries::All => {}
            }
        }
        match arriving {
            Arriving {
                caller, control: Some(control), data: Some(data), bulk: Some(bulk), ..
            } => self.link(replica, caller, Streams::Lanes { control, data, bulk }),
            incomplete => entry.arriving = Some(incomplete),
        }
    }

    /// The process that `replica` is connected as; `None` without a link.
    pub(crate) fn linked(&self, replica: ReplicaId) -> Option<Caller> {
        Some(self.replicas.get(&replica)?.link.as_ref()?.caller)
    }

    /// What to wait for to keep `replica` linked; `None` if it is not another member.
    pub(crate) fn signals(&self, replica: ReplicaId) -> Option<Arc<Signals>> {
        Some(Arc::clone(&self.replicas.get(&replica)?.signals))
    }

    /// Closes the connections with `replica`, if there are any.
    pub(crate) fn unlink(&mut self, replica: ReplicaId) {
        let Some(entry) = self.replicas.get_mut(&replica) else { return };
        let Some(link) = entry.link.take() else { return };
        entry.signals.unlinked.notify_one();
        for token in [link.control, link.data, link.bulk] {
            self.vacate(token);
        }
        self.tell(Received::Disconnected(Peer::Replica(replica)));
    }

    /// Keeps and logs what an operator should know.
    pub(crate) fn complain(&mut self, reason: String) {
        self.complaints.push(Instant::now(), reason);
    }

    /// What nobody has read yet.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        self.complaints.take()
    }

    /// Ends everything; the connections with each peer are left to be finished.
    pub(crate) fn close(&mut self) -> impl Iterator<Item = Vec<Connection>> {
        self.is_closed = true;
        self.replicas.clear();
        self.clients.clear();
        self.ready.wake();
        let mut by_peer: BTreeMap<Peer, Vec<_>> = BTreeMap::new();
        for connection in mem::take(&mut self.slots).into_iter().flatten() {
            by_peer.entry(connection.peer()).or_default().push(connection);
        }
        by_peer.into_values()
    }

    /// Control takes the data socket while that has nothing to wait for: its acknowledgements then
    /// ride along with the data, which saves packets. Otherwise it takes its own.
    fn route(&self, to: Peer, lane: Lane) -> Option<usize> {
        let link = match to {
            Peer::Client(id) => return self.clients.get(&id).copied(),
            Peer::Replica(id) => self.replicas.get(&id)?.link.as_ref()?,
        };
        let data = self.slots.get(link.data)?.as_ref()?;
        Some(match lane {
            Lane::Control if data.is_drained() => link.data,
            Lane::Control => link.control,
            Lane::Data => link.data,
            Lane::Bulk => link.bulk,
        })
    }

    /// Appends what happened since it was told last, which is nothing in most turns.
    fn tell_events(&mut self, into: &mut Vec<Received>) {
        if !self.events.is_empty() {
            into.extend(self.events.drain(..));
        }
    }

    fn take_turn(&mut self, token: usize, into: &mut Vec<Received>) {
        let Some(connection) = self.slots.get_mut(token).and_then(Option::as_mut) else { return };
        connection.ready().taken();
        let result = connection.write().and_then(|()| connection.read(&mut self.spare, into));
        match result {
            Ok(Turn::More) => connection.ready().wake_by_ref(),
            Ok(Turn::Idle) => self.has_partial |= connection.partial_since().is_some(),
            Err(reason) => {
                if matches!(reason, Broken::Closed) {
                    self.hear_out(token, into);
                }
                self.disconnect(token, &reason);
            }
        }
    }

    /// Takes what has arrived on the other lanes of a link of which one was closed: it was sent
    /// before, and the link ends as a whole.
    fn hear_out(&mut self, closed: usize, into: &mut Vec<Received>) {
        let Some(Peer::Replica(id)) = self.connection(closed).map(|closed| closed.peer()) else {
            return;
        };
        let Some(link) = self.replicas.get(&id).and_then(|entry| entry.link.as_ref()) else {
            return;
        };
        let tokens = [link.control, link.data, link.bulk];
        for token in tokens.into_iter().filter(|token| *token != closed) {
            let Some(other) = self.slots.get_mut(token).and_then(Option::as_mut) else { continue };
            for _ in 0..LAST_TURNS_MAX {
                if !matches!(other.read(&mut self.spare, into), Ok(Turn::More)) {
                    break;
                }
            }
        }
    }

    /// Disconnects peers whose frame has stopped in the middle.
    fn end_stalled(&mut self, context: &mut Context<'_>) {
        let timeout = self.config.frame_timeout;
        let partial = |slot: &Option<Connection>| slot.as_ref()?.partial_since();
        while self.has_partial {
            let Some(check) = &mut self.stall_check else {
                let Some(oldest) = self.slots.iter().filter_map(partial).min() else {
                    self.has_partial = false;
                    return;
                };
                let _entered = self.runtime.enter();
                self.stall_check = Some(Box::pin(sleep_until((oldest + timeout).into())));
                continue;
            };
            if check.as_mut().poll(context).is_pending() {
                return;
            }
            self.stall_check = None;
            let now = Instant::now();
            let stalled = |slot: &Option<Connection>| {
                partial(slot).is_some_and(|since| now.duration_since(since) >= timeout)
            };
            while let Some(token) = self.slots.iter().position(stalled) {
                self.disconnect(token, &Broken::Stalled);
            }
        }
    }

    fn disconnect(&mut self, token: usize, reason: &Broken) {
        let Some(connection) = self.connection(token) else { return };
        let peer = connection.peer();
        if reason.is_complaint() {
            self.complain(format!("{peer} was disconnected: {reason}"));
        } else {
            tracing::debug!(peer = %peer, reason = %reason, "disconnected");
        }
        match peer {
            Peer::Replica(id) => self.unlink(id),
            Peer::Client(id) => {
                self.clients.remove(&id);
                self.vacate(token);
                self.tell(Received::Disconnected(peer));
            }
        }
    }

    fn connection(&mut self, token: usize) -> Option<&mut Connection> {
        self.slots.get_mut(token).and_then(Option::as_mut)
    }

    /// Puts a connection into a slot, and on the list, so that it is read for the first time.
    fn occupy(
        &mut self,
        peer: Peer,
        carries: Carries,
        stream: TcpStream,
        queue_bytes_max: u32,
        caller: Caller,
    ) -> usize {
        let token = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let limits = Limits {
            sent_bytes_max: caller.message_bytes_max.min(self.message_bytes_max),
            received_bytes_max: self.message_bytes_max,
            queue_bytes_max,
            version: caller.version,
        };
        let ready = Arc::new(ReadyWaker::new(Arc::clone(&self.ready), token));
        let connection = Connection::new(peer, carries, stream, limits, Arc::clone(&ready));
        if let Some(slot) = self.slots.get_mut(token) {
            *slot = Some(connection);
        }
        ready.wake();
        token
    }

    fn vacate(&mut self, token: usize) {
        if self.slots.get_mut(token).and_then(Option::take).is_some() {
            self.vacant.push(token);
        }
    }

    fn tell(&mut self, event: Received) {
        self.events.push_back(event);
        self.ready.wake();
    }
}
