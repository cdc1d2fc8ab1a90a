//! Clients whose messages are lost, or whose task that receives does not run.

use core::{
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    future::{BoxFuture, Either, poll_fn, select},
    task::noop_waker_ref,
};
use vr_core::{
    Backpressure, Client, Closed, Endpoint, Members, Raw, Received, ReplicaId, RequestError,
    Runtime, Transport, TransportError,
    model::{
        kind::Lane,
        message::{Envelope, Message, Outcome, Reply, Sender},
        types::{OpNumber, Peer, RequestNumber},
    },
    node::local::{LocalNetwork, LocalTransport},
};

use crate::{
    clockwork::Clockwork,
    group::Group,
    service::{Counter, Operation},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The way to a replica that has answered before the client waits for it, and loses messages.
#[derive(Debug)]
struct Prompt {
    below: LocalTransport,
    arrived: Mutex<Vec<Received>>,
    /// How many of the next messages are lost.
    lost: Arc<AtomicUsize>,
}

impl Prompt {
    fn answer(&self, envelope: Box<Envelope>) {
        let (client, request_number, outcome) = if let Message::Request(m) = &envelope.message {
            (m.client, m.request_number, Outcome::Executed(Bytes::new()))
        } else if let Message::Register(m) = &envelope.message {
            (m.client, RequestNumber::ZERO, Outcome::Registered)
        } else {
            return;
        };
        let reply = Reply { client, request_number, op_number: OpNumber(1), outcome };
        let sender = Sender::Replica(ReplicaId(0));
        let answer = Envelope { sender, message: Message::Reply(reply), ..*envelope };
        let envelope = Box::new(answer);
        let from = Peer::Replica(ReplicaId(0));
        self.arrived.lock().unwrap().push(Received::Envelope { from, envelope });
    }
}

#[async_trait]
impl Transport for Prompt {
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError> {
        let connected = Received::Connected(Peer::Replica(ReplicaId(0)));
        self.arrived.lock().unwrap().push(connected);
        self.below.start(endpoint)
    }

    fn send(&self, _: Peer, _: Lane, envelope: Box<Envelope>) -> Result<(), Backpressure> {
        let one_less = |lost: usize| lost.checked_sub(1);
        if self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            self.answer(envelope);
        }
        Ok(())
    }

    fn flush(&self) {}

    async fn receive(&self, into: &mut Vec<Received>) -> Result<(), Closed> {
        into.append(&mut self.arrived.lock().unwrap());
        if into.is_empty() { self.below.receive(into).await } else { Ok(()) }
    }

    fn close(&self) {
        self.below.close();
    }
}

#[test]
fn a_request_is_repeated_in_time_after_one_that_was_answered_at_once() {
    let (clock, lost) = (Clockwork::new(), Arc::new(AtomicUsize::new(0)));
    let below = LocalNetwork::new().transport();
    let transport = Prompt { below, arrived: Mutex::default(), lost: Arc::clone(&lost) };
    let connecting = Client::connect(Members::local(1).unwrap(), transport, clock.clone());
    let client: Client<Raw> = clock.run(connecting).unwrap();
    clock.run_for(Duration::from_millis(1));
    for round in 0..3 {
        clock.run(client.execute_raw("answered")).unwrap();
        clock.run_for(Duration::from_secs(1));
        lost.store(1, Ordering::Relaxed);
        let asked = clock.now();
        clock.run(client.execute_raw("lost once")).unwrap();
        let waited = clock.now().since(asked);
        assert!(waited < Duration::from_millis(200), "{waited:?} in round {round}");
    }
}

/// What the call comes to; `None` if it takes longer.
fn within_minute<T>(clock: &Clockwork, call: impl Future<Output = T> + Unpin) -> Option<T> {
    match clock.run(select(call, clock.sleep_until(clock.now() + MINUTE))) {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}

#[test]
fn calls_end_with_the_runtime_that_receives_for_them() {
    let group = Group::of(1);
    let of_client = group.clock.machine(7);
    let connecting =
        Client::connect(group.members.clone(), group.network.transport(), of_client.clone());
    let client: Client<Counter> = group.clock.run(connecting).unwrap();
    group.add(&client, 1);
    let waiting = client.execute(Operation::Add(1));
    let mut waiting = pin!(waiting);
    assert!(group.clock.run(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending()))));
    of_client.crash();
    let interrupted = within_minute(&group.clock, waiting);
    let is_interrupted = matches!(interrupted, Some(Err(RequestError::Interrupted { .. })));
    assert!(is_interrupted, "{interrupted:?}");
    let refused = within_minute(&group.clock, pin!(client.execute(Operation::Add(1))));
    assert_eq!(refused, Some(Err(RequestError::ShuttingDown)));
}

#[test]
fn a_call_has_its_time_although_the_task_that_sends_it_was_kept_from_running() {
    let group = Group::of(1);
    let client = group.client();
    group.add(&client, 1);
    let call = |timeout| {
        let client = client.with_timeout(timeout);
        Box::pin(async move { client.execute(Operation::Add(1)).await })
    };
    let begin = |call: &mut BoxFuture<'_, _>| {
        let polled = call.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
        assert!(polled.is_pending());
    };
    let mut calls: [BoxFuture<'_, _>; 3] = [call(MINUTE), call(MINUTE), call(SECOND)];
    begin(&mut calls[0]);
    begin(&mut calls[1]);
    group.clock.stand_still(2 * SECOND);
    begin(&mut calls[2]);
    for call in calls {
        group.clock.run(call).unwrap();
    }
}
