//! A network inside one process: replicas and clients without sockets.

use core::task::{Context, Poll, Waker};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use async_trait::async_trait;
use futures::future::poll_fn;

use crate::{
    model::{
        kind::Lane,
        message::Envelope,
        types::{ConnectionId, GroupId, Peer, ReplicaId},
    },
    node::inbox::{Inbox, Refused},
    ports::transport::{Backpressure, Closed, Endpoint, Received, Role, Transport, TransportError},
};

/// A network inside one process.
///
/// Envelopes are handed over as they are: nothing is encoded, copied or checked again. Replicas
/// and clients of one group see each other as soon as both have started; a closed or dropped end
/// is told to the others as [`Received::Disconnected`]. Clones are the same network, and several
/// groups can share one.
///
/// ```
/// # use vr_core::node::local::LocalNetwork;
/// let network = LocalNetwork::new();
/// let (for_replica_0, for_a_client) = (network.transport(), network.transport());
/// # drop((for_replica_0, for_a_client));
/// ```
#[derive(Clone, Debug, Default)]
pub struct LocalNetwork {
    hub: Arc<Hub>,
}

impl LocalNetwork {
    /// A network without anyone on it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A network whose clients' connections are numbered from `first` on.
    pub(crate) fn with_connections_from(first: ConnectionId) -> Self {
        let network = Self::default();
        network.hub.table_mut().connections = first.0;
        network
    }

    /// One end, for a replica or a client; which of both is decided when it is started.
    #[must_use]
    pub fn transport(&self) -> LocalTransport {
        LocalTransport { hub: Arc::clone(&self.hub), place: OnceLock::new() }
    }

    /// Closes every end, which may still take what has arrived; later ones are closed from the
    /// start.
    pub(crate) fn close(&self) {
        let mut table = self.hub.table_mut();
        table.closed = true;
        let replicas = core::mem::take(&mut table.replicas).into_values();
        let clients = core::mem::take(&mut table.clients).into_values();
        let inboxes: Vec<_> = replicas.chain(clients.map(|(_, inbox)| inbox)).collect();
        drop(table);
        for inbox in inboxes {
            wake(inbox.seal());
        }
    }
}

/// Who is on the network.
#[derive(Debug, Default)]
struct Hub {
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    replicas: BTreeMap<(GroupId, ReplicaId), Arc<Inbox>>,
    clients: BTreeMap<ConnectionId, (GroupId, Arc<Inbox>)>,
    connections: u64,
    closed: bool,
}

impl Hub {
    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The inbox of `to`, if there is a way from `from`.
    fn inbox_of(&self, group: GroupId, from: Peer, to: Peer) -> Option<&Inbox> {
        match (from, to) {
            (_, Peer::Replica(replica)) if from != to => {
                self.replicas.get(&(group, replica)).map(Arc::as_ref)
            }
            (Peer::Replica(_), Peer::Client(client)) => {
                let (of, inbox) = self.clients.get(&client)?;
                (*of == group).then_some(inbox.as_ref())
            }
            (Peer::Replica(_), Peer::Replica(_)) | (Peer::Client(_), _) => None,
        }
    }

    /// Everyone that `me` can talk to.
    fn neighbours(&self, group: GroupId, me: Peer) -> Vec<(Peer, Arc<Inbox>)> {
        let replicas = self.replicas.iter().filter(|((of, _), _)| *of == group);
        let replicas = replicas.map(|((_, id), inbox)| (Peer::Replica(*id), Arc::clone(inbox)));
        let clients = self.clients.iter().filter(|(_, (of, _))| {
            let is_client = matches!(me, Peer::Client(_));
            *of == group && !is_client
        });
        let clients = clients.map(|(id, (_, inbox))| (Peer::Client(*id), Arc::clone(inbox)));
        replicas.chain(clients).filter(|(peer, _)| *peer != me).collect()
    }
}

/// One end of a [`LocalNetwork`].
///
/// For each sender and lane it holds at most 65 536 envelopes and 64 MiB of payloads; what comes
/// beyond is refused with [`Backpressure::QueueFull`]. Dropping an end closes it.
#[derive(Debug)]
pub struct LocalTransport {
    hub: Arc<Hub>,
    place: OnceLock<Place>,
}

/// Where a started end is on the network.
#[derive(Debug)]
struct Place {
    group: GroupId,
    me: Peer,
    message_bytes_max: u32,
    inbox: Arc<Inbox>,
}

impl LocalTransport {
    /// Whether [`poll_receive`](Self::poll_receive) would find nothing, and the waker that it was given
    /// last will be woken when that changes.
    pub(crate) fn is_calm(&self) -> bool {
        self.place.get().is_some_and(|place| place.inbox.is_calm())
    }

    /// Whoever receives has another waker from now on.
    pub(crate) fn forget_waker(&self) {
        self.place.get().into_iter().for_each(|place| place.inbox.forget_waker());
    }

    /// As [`Transport::receive`], without a future.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        into: &mut Vec<Received>,
    ) -> Poll<Result<(), Closed>> {
        match self.place.get() {
            Some(place) => place.inbox.poll_take(cx, into),
            None => Poll::Ready(Err(Closed)),
        }
    }
}

#[async_trait]
impl Transport for LocalTransport {
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError> {
        let mut table = self.hub.table_mut();
        let group = endpoint.group;
        let me = match endpoint.role {
            Role::Replica(id) => Peer::Replica(id),
            Role::Client(_) => Peer::Client(ConnectionId(table.connections)),
        };
        if let Peer::Replica(id) = me
            && table.replicas.contains_key(&(group, id))
        {
            return Err(TransportError::Misused { reason: "this replica runs on it already" });
        }
        let inbox = Arc::new(Inbox::default());
        let message_bytes_max = endpoint.message_bytes_max;
        let place = Place { group, me, message_bytes_max, inbox: Arc::clone(&inbox) };
        if self.place.set(place).is_err() {
            return Err(TransportError::Misused { reason: "it was started before" });
        }
        if table.closed {
            // Started and closed at once; whoever receives hears of it.
            inbox.close();
            return Ok(());
        }
        // Under the lock, so that nobody hears of a disconnection before the connection.
        let mut wakers = Vec::new();
        for (peer, neighbour) in table.neighbours(group, me) {
            wakers.push(neighbour.connected(me));
            wakers.push(inbox.connected(peer));
        }
        match me {
            Peer::Replica(id) => {
                table.replicas.insert((group, id), inbox);
            }
            Peer::Client(id) => {
                table.connections = table.connections.saturating_add(1);
                table.clients.insert(id, (group, inbox));
            }
        }
        drop(table);
        wakers.into_iter().for_each(wake);
        Ok(())
    }

    fn send(&self, to: Peer, lane: Lane, envelope: Box<Envelope>) -> Result<(), Backpressure> {
        let place = self.place.get().ok_or(Backpressure::NotConnected)?;
        if place.inbox.is_closed() {
            return Err(Backpressure::NotConnected);
        }
        let bytes_max = u64::from(place.message_bytes_max);
        let table = self.hub.table();
        let inbox = table.inbox_of(place.group, place.me, to).ok_or(Backpressure::NotConnected)?;
        let pushed = inbox.push(place.me, lane, envelope, bytes_max);
        drop(table);
        match pushed {
            Ok(waker) => {
                wake(waker);
                Ok(())
            }
            Err(Refused::Full) => Err(Backpressure::QueueFull),
            Err(Refused::TooLarge) => Err(Backpressure::TooLarge),
            Err(Refused::Closed) => Err(Backpressure::NotConnected),
        }
    }

    fn flush(&self) {
        // What was sent is in the receiver's queue already.
    }

    async fn receive(&self, into: &mut Vec<Received>) -> Result<(), Closed> {
        poll_fn(|cx| self.poll_receive(cx, into)).await
    }

    fn close(&self) {
        let Some(place) = self.place.get() else { return };
        let mut table = self.hub.table_mut();
        // Closed before, the place may have been taken by another life of the same replica.
        let is_there = !place.inbox.is_closed();
        if is_there {
            match place.me {
                Peer::Replica(id) => drop(table.replicas.remove(&(place.group, id))),
                Peer::Client(id) => drop(table.clients.remove(&id)),
            }
        }
        let mut wakers = vec![place.inbox.close()];
        if is_there {
            for (_, neighbour) in table.neighbours(place.group, place.me) {
                wakers.push(neighbour.disconnected(place.me));
            }
        }
        drop(table);
        wakers.into_iter().for_each(wake);
    }
}

impl Drop for LocalTransport {
    fn drop(&mut self) {
        self.close();
    }
}

/// Wakes whoever waits; never called under a lock, because a waker may run anything.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use futures::{FutureExt, executor::block_on};

    use super::*;
    use crate::model::{
        certificate::{CertificateHash, CrashVector},
        membership::Members,
        message::{Message, Ping, Query, Sender, Standing, StatusKind},
        read::Read,
        types::{ClientId, Epoch, Incarnation, OpNumber, ReplicaSet, RequestNumber, View},
    };

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const CLIENT: Peer = Peer::Client(ConnectionId(0));

    fn replica(id: u64) -> Peer {
        Peer::Replica(ReplicaId(id))
    }

    fn start(network: &LocalNetwork, role: Role) -> LocalTransport {
        let transport = network.transport();
        transport.start(endpoint(role)).unwrap();
        transport
    }

    fn endpoint(role: Role) -> Endpoint {
        let members = Members::local(3).unwrap();
        let group = members.to_membership().group_id("g");
        let group_name = "g".into();
        let durability = None;
        Endpoint { group_name, group, role, durability, members, message_bytes_max: 1000 }
    }

    fn envelope(message: Message) -> Box<Envelope> {
        Box::new(Envelope {
            group: GroupId(1),
            certificate: CertificateHash::NONE,
            epoch: Epoch::ZERO,
            sender: Sender::Replica(ReplicaId(0)),
            incarnation: Incarnation::ZERO,
            view: View::ZERO,
            crash_vector: CrashVector::default(),
            message,
        })
    }

    fn ping() -> Box<Envelope> {
        let standing = Standing {
            log_view: View::ZERO,
            op_number: OpNumber::ZERO,
            status: StatusKind::Normal,
            heard: ReplicaSet::EMPTY,
        };
        envelope(Message::Ping(Ping { standing, sent_at: 0 }))
    }

    fn query(bytes: usize) -> Box<Envelope> {
        envelope(Message::Query(Query {
            client: ClientId(1),
            request_number: RequestNumber(1),
            read: Read::Local,
            query: vec![0; bytes].into(),
        }))
    }

    fn receive(transport: &LocalTransport) -> Vec<Received> {
        let mut received = Vec::new();
        let _ = transport.receive(&mut received).now_or_never();
        received
    }

    #[test]
    fn both_ends_hear_of_each_other_and_of_the_end() {
        let network = LocalNetwork::new();
        let zero = start(&network, Role::Replica(ReplicaId(0)));
        let client = start(&network, Role::Client(ClientId(1)));
        assert_eq!(receive(&zero), [Received::Connected(CLIENT)]);
        assert_eq!(receive(&client), [Received::Connected(replica(0))]);
        drop(zero);
        assert_eq!(receive(&client), [Received::Disconnected(replica(0))]);
        let refused = client.send(replica(0), Lane::Data, ping());
        assert_eq!(refused, Err(Backpressure::NotConnected));
    }

    #[test]
    fn clients_do_not_see_each_other() {
        let network = LocalNetwork::new();
        let one = start(&network, Role::Client(ClientId(1)));
        let other = start(&network, Role::Client(ClientId(2)));
        assert_eq!((receive(&one), receive(&other)), (vec![], vec![]));
        let to = Peer::Client(ConnectionId(1));
        assert_eq!(one.send(to, Lane::Data, ping()), Err(Backpressure::NotConnected));
    }

    #[test]
    fn control_overtakes_data() {
        let network = LocalNetwork::new();
        let [zero, one] = [0, 1].map(|id| start(&network, Role::Replica(ReplicaId(id))));
        receive(&one);
        zero.send(replica(1), Lane::Data, query(1)).unwrap();
        zero.send(replica(1), Lane::Control, ping()).unwrap();
        let from = replica(0);
        let expected = [ping(), query(1)].map(|envelope| Received::Envelope { from, envelope });
        assert_eq!(receive(&one), expected);
    }

    #[test]
    fn a_receiver_that_waits_is_woken() {
        let network = LocalNetwork::new();
        let [zero, one] = [0, 1].map(|id| start(&network, Role::Replica(ReplicaId(id))));
        receive(&one);
        let mut received = Vec::new();
        let (first, ()) = block_on(futures::future::join(one.receive(&mut received), async {
            zero.send(replica(1), Lane::Control, ping()).unwrap();
        }));
        assert_eq!((first, received.len()), (Ok(()), 1));
    }

    #[test]
    fn an_end_is_calm_while_a_look_would_find_nothing() {
        let network = LocalNetwork::new();
        let [zero, one] = [0, 1].map(|id| start(&network, Role::Replica(ReplicaId(id))));
        let wakes = Arc::new(Wakes::default());
        let (waker, woken) = (Waker::from(Arc::clone(&wakes)), || wakes.0.load(Ordering::Relaxed));
        let mut cx = Context::from_waker(&waker);
        let mut look = |received: &mut Vec<_>| one.poll_receive(&mut cx, received).is_pending();
        let mut received = Vec::new();
        assert!(!one.is_calm() && !look(&mut received), "it hears of the other end");
        assert!(!one.is_calm() && look(&mut received) && one.is_calm());
        (0..300).for_each(|_| zero.send(replica(1), Lane::Data, query(1)).unwrap());
        assert!(!one.is_calm() && woken() == 1);
        assert!(!look(&mut received) && !one.is_calm(), "there is more than it took");
        assert!(!look(&mut received) && look(&mut received) && one.is_calm());
        one.forget_waker();
        assert!(!one.is_calm() && look(&mut received) && one.is_calm());
        zero.close();
        assert!(!one.is_calm() && woken() == 2);
    }

    #[test]
    fn a_full_queue_and_a_large_message_are_refused() {
        let network = LocalNetwork::new();
        let [zero, one] = [0, 1].map(|id| start(&network, Role::Replica(ReplicaId(id))));
        let large = zero.send(replica(1), Lane::Data, query(1001));
        assert_eq!(large, Err(Backpressure::TooLarge));
        let sent = (0..=65_536).filter(|_| zero.send(replica(1), Lane::Data, query(1)).is_ok());
        assert_eq!(sent.count(), 65_536);
        assert_eq!(zero.send(replica(1), Lane::Data, query(1)), Err(Backpressure::QueueFull));
        assert_eq!(zero.send(replica(1), Lane::Control, ping()), Ok(()), "lanes are apart");
        receive(&one);
        assert_eq!(zero.send(replica(1), Lane::Data, query(1)), Ok(()));
    }

    #[test]
    fn one_call_takes_at_most_256_items() {
        let network = LocalNetwork::new();
        let [zero, one] = [0, 1].map(|id| start(&network, Role::Replica(ReplicaId(id))));
        receive(&one);
        (0..300).for_each(|_| zero.send(replica(1), Lane::Data, query(1)).unwrap());
        assert_eq!([receive(&one).len(), receive(&one).len()], [256, 44]);
    }

    #[test]
    fn a_replica_runs_once_and_may_come_back() {
        let network = LocalNetwork::new();
        let zero = start(&network, Role::Replica(ReplicaId(0)));
        let again = network.transport();
        let role = Role::Replica(ReplicaId(0));
        assert!(matches!(again.start(endpoint(role)), Err(TransportError::Misused { .. })));
        zero.close();
        assert_eq!(block_on(zero.receive(&mut Vec::new())), Err(Closed));
        assert!(again.start(endpoint(role)).is_ok());
        let client = start(&network, Role::Client(ClientId(1)));
        drop(zero);
        assert_eq!(receive(&client), [Received::Connected(replica(0))], "the new one is there");
    }

    #[test]
    fn a_client_that_came_and_went_unnoticed_leaves_no_trace() {
        let network = LocalNetwork::new();
        let zero = start(&network, Role::Replica(ReplicaId(0)));
        (0..10).for_each(|id| drop(start(&network, Role::Client(ClientId(id)))));
        assert_eq!(receive(&zero), []);
    }

    #[test]
    fn closing_the_network_closes_every_end() {
        let network = LocalNetwork::new();
        let _zero = start(&network, Role::Replica(ReplicaId(0)));
        let client = start(&network, Role::Client(ClientId(1)));
        network.close();
        assert_eq!(receive(&client), [Received::Connected(replica(0))], "it had arrived");
        assert_eq!(block_on(client.receive(&mut Vec::new())), Err(Closed));
        let late = start(&network, Role::Client(ClientId(2)));
        assert_eq!(block_on(late.receive(&mut Vec::new())), Err(Closed));
    }
}
