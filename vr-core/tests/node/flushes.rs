//! What many calls of one client cost the transport.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::future::join_all;
use vr_core::{
    Backpressure, Client, Closed, Endpoint, Received, Transport, TransportError,
    model::{kind::Lane, message::Envelope, types::Peer},
    node::local::LocalTransport,
};

use crate::{
    group::Group,
    service::{Counter, Operation},
};

/// Keeps what is sent until it is told to flush, and counts how often that is for something.
#[derive(Debug)]
struct Lazy {
    below: LocalTransport,
    held: Mutex<Vec<(Peer, Lane, Box<Envelope>)>>,
    flushes: &'static AtomicUsize,
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
        if !held.is_empty() {
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
        for (to, lane, envelope) in held {
            self.below.send(to, lane, envelope).unwrap();
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
    static FLUSHES: AtomicUsize = AtomicUsize::new(0);
    let group = Group::of(3);
    let (below, held) = (group.network.transport(), Mutex::default());
    let transport = Lazy { below, held, flushes: &FLUSHES };
    let connecting = Client::connect(group.members.clone(), transport, group.clock.clone());
    let client: Client<Counter> = group.clock.run(connecting).unwrap();
    group.add(&client, 1);
    for round in 0..3 {
        let before = FLUSHES.load(Ordering::Relaxed);
        let calls = (0..40).map(|_| client.execute(Operation::Add(1)));
        let replies = group.clock.run(join_all(calls));
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
        let flushes = FLUSHES.load(Ordering::Relaxed) - before;
        assert!(flushes <= 4, "{flushes} flushes for 40 calls in round {round}");
    }
}
