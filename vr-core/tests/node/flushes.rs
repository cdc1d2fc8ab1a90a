//! When a transport is told to let go of what was sent, and what many calls of one client cost it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::future::join_all;
use vr_core::{
    Backpressure, Client, Closed, Endpoint, Node, Received, ReplicaId, Transport, TransportError,
    model::{kind::Lane, message::Envelope, types::Peer},
    node::local::LocalTransport,
};

use crate::{
    group::Group,
    service::{Counter, Operation},
};

/// Keeps what is sent until it is told to flush, and counts how often that is for something, and how
/// often for nothing.
#[derive(Debug)]
struct Lazy {
    below: LocalTransport,
    held: Mutex<Vec<(Peer, Lane, Box<Envelope>)>>,
    flushes: Arc<[AtomicUsize; 2]>,
}

impl Lazy {
    fn new(below: LocalTransport, flushes: &Arc<[AtomicUsize; 2]>) -> Self {
        Self { below, held: Mutex::default(), flushes: Arc::clone(flushes) }
    }
}

#[async_trait]
impl Transport for Lazy {
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError> {
        self.below.start(endpoint)
    }

    fn send(&self, to: Peer, lane: Lane, envelope: Box<Envelope>) -> Result<(), Backpressure> {
        self.held.lock().unwrap().push((to, lane, envelope));
        Ok(())
    }

    fn flush(&self) {
        let held = core::mem::take(&mut *self.held.lock().unwrap());
        self.flushes[usize::from(held.is_empty())].fetch_add(1, Ordering::Relaxed);
        for (to, lane, envelope) in held {
            // Whoever is not there yet is told again.
            let _ = self.below.send(to, lane, envelope);
        }
    }

    async fn receive(&self, into: &mut Vec<Received>) -> Result<(), Closed> {
        self.below.receive(into).await
    }

    fn close(&self) {
        self.below.close();
    }
}

#[test]
fn calls_that_are_made_together_leave_together() {
    let group = Group::of(3);
    let flushes = Arc::default();
    let transport = Lazy::new(group.network.transport(), &flushes);
    let connecting = Client::connect(group.members.clone(), transport, group.clock.clone());
    let client: Client<Counter> = group.clock.run(connecting).unwrap();
    group.add(&client, 1);
    for round in 0..3 {
        let before = flushes[0].load(Ordering::Relaxed);
        let calls = (0..40).map(|_| client.execute(Operation::Add(1)));
        let replies = group.clock.run(join_all(calls));
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
        let flushes = flushes[0].load(Ordering::Relaxed) - before;
        assert!(flushes <= 4, "{flushes} flushes for 40 calls in round {round}");
    }
}

#[test]
fn what_nodes_send_leaves_by_itself_and_nothing_is_flushed_for_nothing() {
    let mut group = Group::empty(3);
    let flushes = Arc::default();
    for id in 0..3 {
        let starting = Node::builder(Counter::default())
            .replica(ReplicaId(id))
            .members(group.members.clone())
            .storage(group.disks[usize::try_from(id).unwrap()].clone())
            .transport(Lazy::new(group.network.transport(), &flushes))
            .runtime(group.machine(id))
            .start();
        group.nodes.push(group.clock.run(starting).unwrap());
    }
    let client = group.client();
    let sums: Vec<_> = (1..=20).map(|more| group.add(&client, more)).collect();
    assert_eq!(sums.last(), Some(&210));
    let [needed, needless] = [0, 1].map(|at: usize| flushes[at].load(Ordering::Relaxed));
    assert!(needed >= 3 * 20 && needless == 0, "{needed}, {needless}");
}
