//! Operations that take long, and what a node says between them.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::join_all;
use vr_core::{
    Backpressure, Client, Closed, Context, Endpoint, Node, QueryContext, Received, ReplicaId,
    SnapshotError, SnapshotReader, SnapshotWriter, StateMachine, Transport, TransportError,
    model::{
        kind::Lane,
        message::{Envelope, Message},
        types::Peer,
    },
    node::local::LocalTransport,
};

use crate::{clockwork::Clockwork, group::Group};

/// What a replica said and did, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Heartbeat,
    Execute,
}

type Diary = Arc<Mutex<Vec<Did>>>;

/// Executes nothing, which takes as many milliseconds as the operation says.
struct Slow {
    clock: Clockwork,
    diary: Diary,
}

impl StateMachine for Slow {
    type Operation = u64;
    type Reply = ();
    type Query = ();
    type Answer = ();

    fn apply(&mut self, _: &Context, milliseconds: u64) {
        self.diary.lock().unwrap().push(Did::Execute);
        self.clock.stand_still(Duration::from_millis(milliseconds));
    }

    fn query(&self, _: &QueryContext, (): ()) {}

    fn snapshot(&self, _: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        Ok(())
    }

    fn restore(&mut self, _: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        Ok(())
    }
}

/// Notes the heartbeats that it carries.
#[derive(Debug)]
struct Heard {
    below: LocalTransport,
    diary: Diary,
}

#[async_trait]
impl Transport for Heard {
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError> {
        self.below.start(endpoint)
    }

    fn send(&self, to: Peer, lane: Lane, envelope: Box<Envelope>) -> Result<(), Backpressure> {
        if matches!(envelope.message, Message::Commit(_)) {
            self.diary.lock().unwrap().push(Did::Heartbeat);
        }
        self.below.send(to, lane, envelope)
    }

    fn flush(&self) {
        self.below.flush();
    }

    async fn receive(&self, into: &mut Vec<Received>) -> Result<(), Closed> {
        self.below.receive(into).await
    }

    fn close(&self) {
        self.below.close();
    }
}

#[test]
fn heartbeats_leave_between_slow_operations_that_were_committed_together() {
    let group = Group::empty(3);
    let diaries: Vec<Diary> = (0..3).map(|_| Diary::default()).collect();
    let start = |(me, diary): (u64, &Diary)| {
        let service = Slow { clock: group.clock.clone(), diary: Arc::clone(diary) };
        let transport = Heard { below: group.network.transport(), diary: Arc::clone(diary) };
        let starting = Node::builder(service)
            .replica(ReplicaId(me))
            .members(group.members.clone())
            .storage(group.disks[usize::try_from(me).unwrap()].clone())
            .transport(transport)
            // With threads it would go on beside the clock.
            .runtime(group.machine(me).without_threads())
            .start();
        group.clock.run(starting).unwrap()
    };
    let nodes: Vec<_> = (0..).zip(&diaries).map(start).collect();
    let (members, transport) = (group.members.clone(), group.network.transport());
    let connecting = Client::<Slow>::connect(members, transport, group.clock.clone());
    let client = group.clock.run(connecting).unwrap();
    group.clock.run(client.execute(0)).unwrap();
    let primary = usize::try_from(nodes[0].status().replica.primary.0).unwrap();
    diaries[primary].lock().unwrap().clear();
    // All four in one turn are longer than a silent primary is believed.
    let calls = join_all((0..4).map(|_| client.execute(45)));
    assert!(group.clock.run(calls).iter().all(Result::is_ok));
    let diary = diaries[primary].lock().unwrap();
    let in_turn = diary.split(|did| *did == Did::Heartbeat).map(<[Did]>::len);
    assert!(in_turn.clone().sum::<usize>() == 4 && in_turn.max() <= Some(2), "{diary:?}");
}
