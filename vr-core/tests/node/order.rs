//! What comes first when several things are to be done.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::join_all;
use vr_core::{
    Backpressure, Client, Closed, Context, Endpoint, Node, NodeHandle, QueryContext, Received,
    ReplicaId, Runtime, SnapshotError, SnapshotReader, SnapshotWriter, StateMachine, Transport,
    TransportError,
    model::{
        kind::Lane,
        message::{Envelope, Message},
        types::Peer,
    },
    node::local::LocalTransport,
};

use crate::{
    clockwork::Clockwork,
    group::Group,
    service::{Counter, Operation},
};

/// What was done, in order; clones are the same.
#[derive(Clone, Debug, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn place(&self, what: &str) -> usize {
        let all = self.0.lock().unwrap();
        let place = all.iter().position(|it| it == what);
        place.unwrap_or_else(|| panic!("{what} is not among {all:?}"))
    }

    fn take(&self) -> Vec<String> {
        core::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A service that notes each operation, which takes some time of the clock.
struct Noting {
    counter: Counter,
    journal: Journal,
    clock: Clockwork,
    takes: Duration,
}

impl StateMachine for Noting {
    type Operation = Operation;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, context: &Context, operation: Operation) -> u64 {
        self.journal.note(format!("executed {}", context.viewstamp.op_number.0));
        self.clock.stand_still(self.takes);
        self.counter.apply(context, operation)
    }

    fn query(&self, context: &QueryContext, (): ()) -> u64 {
        self.counter.query(context, ())
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        self.counter.snapshot(out)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.counter.restore(from)
    }
}

/// A transport that notes what leaves.
#[derive(Debug)]
struct Told {
    below: LocalTransport,
    name: &'static str,
    journal: Journal,
}

#[async_trait]
impl Transport for Told {
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError> {
        self.below.start(endpoint)
    }

    fn send(&self, to: Peer, lane: Lane, envelope: Box<Envelope>) -> Result<(), Backpressure> {
        let journal = &self.journal;
        if let Message::PrepareOk(m) = &envelope.message {
            journal.note(format!("acknowledged {}", m.op_number.0));
        } else if let Message::Request(_) | Message::Requests(_) = &envelope.message {
            journal.note(format!("{} sent", self.name));
        } else if let Message::Commit(_) = &envelope.message {
            journal.note("heartbeat");
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

/// A replica that notes what it does, and has no thread on which it would go on beside the clock.
fn noting(group: &Group, id: u64, journal: &Journal, takes: Duration) -> NodeHandle<Noting> {
    let (counter, clock) = (Counter::default(), group.clock.clone());
    let below = group.network.transport();
    let starting = Node::builder(Noting { counter, journal: journal.clone(), clock, takes })
        .replica(ReplicaId(id))
        .members(group.members.clone())
        .storage(group.disks[usize::try_from(id).unwrap()].clone())
        .transport(Told { below, name: "replica", journal: journal.clone() })
        .runtime(group.machine(id).without_threads())
        .start();
    group.clock.run(starting).unwrap()
}

#[test]
fn a_backup_acknowledges_before_it_executes_what_was_committed_meanwhile() {
    let mut group = Group::empty(3);
    let journal = Journal::default();
    let backup = noting(&group, 1, &journal, Duration::ZERO);
    group.nodes = [0, 2].map(|id| group.start(id)).into();
    let client = group.client();
    for count in 1..=4 {
        assert_eq!(group.add(&client, 1), count);
    }
    assert_eq!(backup.status().replica.primary.0, 0);
    // Each prepare says that the op before is committed.
    for op in 2..5 {
        let acknowledged = journal.place(&format!("acknowledged {}", op + 1));
        assert!(acknowledged < journal.place(&format!("executed {op}")), "{journal:?}");
    }
}

#[test]
fn heartbeats_leave_between_slow_operations_that_were_committed_together() {
    let group = Group::empty(3);
    let journals: Vec<_> = (0..3).map(|_| Journal::default()).collect();
    let takes = Duration::from_millis(45);
    let nodes: Vec<_> =
        (0..).zip(&journals).map(|(id, it)| noting(&group, id, it, takes)).collect();
    let client = group.client();
    group.add(&client, 1);
    let primary = usize::try_from(nodes[0].status().replica.primary.0).unwrap();
    journals[primary].take();
    // All four in one turn are longer than a silent primary is believed.
    let calls = join_all((0..4).map(|_| client.execute(Operation::Add(1))));
    assert!(group.clock.run(calls).iter().all(Result::is_ok));
    let did = journals[primary].take();
    let in_turn = did.split(|it| it == "heartbeat").map(|executed| {
        assert!(executed.iter().all(|it| it.starts_with("executed")), "{did:?}");
        executed.len()
    });
    assert!(in_turn.clone().sum::<usize>() == 4 && in_turn.max() <= Some(2), "{did:?}");
}

#[test]
fn what_callers_ask_next_leaves_before_those_of_another_client_go_on() {
    let group = Group::of(3);
    let journal = Journal::default();
    let clients = ["a", "b"].map(|name| {
        let below = group.network.transport();
        let transport = Told { below, name, journal: journal.clone() };
        let connecting = Client::connect(group.members.clone(), transport, group.clock.clone());
        let client: Client<Counter> = group.clock.run(connecting).unwrap();
        group.add(&client, 1);
        (name, client)
    });
    journal.take();
    for (name, client) in clients.iter().flat_map(|it| [it; 3]) {
        let (name, client, journal) = (*name, client.clone(), journal.clone());
        let calling = async move {
            for _ in 0..20 {
                client.execute(Operation::Add(1)).await.unwrap();
                journal.note(format!("{name} answered"));
            }
        };
        group.clock.spawn("caller", Box::pin(calling));
    }
    group.clock.run_for(Duration::from_secs(1));
    let said = journal.take();
    assert_eq!(said.iter().filter(|it| it.ends_with("answered")).count(), 120);
    // Of three calls the first leaves at once; the other two leave, and are answered, together.
    let together = ["a answered", "a answered", "a sent", "b answered"];
    let count = said.windows(4).filter(|window| *window == together).count();
    assert!(count >= 15, "{count} of 20 rounds: {said:?}");
}
