//! Checkpoints of a state that hands over a frozen view of itself, written while operations go on.

use core::time::Duration;
use std::thread;

use futures::{
    StreamExt,
    future::{join_all, ready},
};
use vr_core::{Cause, Checkpoints, Client, Config, Durability, Event, NodeHandle, Read};

use crate::{
    group::Group,
    service::{Counter, Gate, Operation},
};

const EVERY: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// A group whose state machines fork, takes checkpoints often and retains no log below them.
fn group(gate: &Gate) -> (Group, Client<Counter>) {
    let mut config = Config::default();
    config.checkpoint_ops = EVERY;
    config.log_retain_ops = 0;
    let group = Group::forking(3, Durability::Full, config, gate.clone());
    let client = group.client();
    (group, client)
}

/// Adds 1 so often, as far as possible at once, so that operations behind a checkpoint are handed to
/// the executor together with it.
fn add(group: &Group, client: &Client<Counter>, times: usize) {
    let calls = (0..times).map(|_| client.execute(Operation::Add(1)));
    let replies = group.clock.run(join_all(calls));
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    group.clock.run_for(SECOND);
}

/// Runs until `holds`, for at most an hour of virtual time; what is waited for is written by threads
/// that know nothing of it.
fn until(group: &Group, what: &str, holds: impl Fn() -> bool) {
    for _ in 0..360_000 {
        if holds() {
            return;
        }
        thread::yield_now();
        group.clock.run_for(Duration::from_millis(10));
    }
    panic!("{what}: {}", group.nodes.iter().map(|it| it.explain().to_string()).collect::<String>());
}

fn held(node: &NodeHandle<Counter>) -> u64 {
    node.status().replica.checkpoint.op_number.0
}

/// The checkpoint that `node` holds must have the state after the op that it names: each op but the
/// first, which registered the client, added 1.
fn require_state_of_its_op(group: &Group, node: usize) {
    let (id, store) = (group.nodes[node].status().replica.checkpoint, &group.disks[node].1);
    let chunks = store.manifest(&id).unwrap().count();
    let bytes: Vec<u8> = (0..chunks).flat_map(|at| store.chunk(&id, at).unwrap()).collect();
    assert_eq!(bytes.last().copied().map(u64::from), Some(id.op_number.0 - 1), "{id:?}");
}

/// All nodes have executed as much, and have the same state.
fn require_agreement(group: &Group, count: u64) {
    let digests = join_all(group.nodes.iter().map(|node| node.digest()));
    let digests: Vec<_> = group.clock.run(digests).into_iter().map(Result::unwrap).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    for node in &group.nodes {
        assert_eq!(group.clock.run(node.client().query((), Read::Local)), Ok(count));
    }
}

#[test]
fn a_frozen_state_is_written_while_operations_go_on() {
    let gate = Gate::closed();
    let (group, client) = group(&gate);
    add(&group, &client, 25);
    for node in &group.nodes {
        let replica = node.status().replica;
        assert_eq!((replica.applied.0, held(node)), (26, 0), "nothing waits for the checkpoint");
        assert_eq!((replica.checkpoint_due.0, replica.checkpoint_taken.0), (20, 0));
    }
    gate.open();
    until(&group, "all hold one", || group.nodes.iter().all(|node| held(node) == 10));
    (0..3).for_each(|node| require_state_of_its_op(&group, node));
    add(&group, &client, 9);
    until(&group, "all hold the next", || group.nodes.iter().all(|node| held(node) == 30));
    (0..3).for_each(|node| require_state_of_its_op(&group, node));
    require_agreement(&group, 34);
}

/// Nothing is in memory afterwards but what comes from the checkpoint and the log above it.
#[test]
fn a_restart_goes_on_from_what_was_frozen() {
    let gate = Gate::closed();
    let (mut group, client) = group(&gate);
    add(&group, &client, 25);
    gate.open();
    until(&group, "all hold one", || group.nodes.iter().all(|node| held(node) == 10));
    (0..3).for_each(|id| group.crash(id));
    group.nodes = (0..3).map(|id| group.start(id)).collect();
    // The one that was due meanwhile is taken when its op is executed again.
    until(&group, "all hold the next", || group.nodes.iter().all(|node| held(node) == 20));
    (0..3).for_each(|node| require_state_of_its_op(&group, node));
    require_agreement(&group, 25);
    add(&group, &client, 1);
    require_agreement(&group, 26);
}

/// What a replica fetches that was away is what the others froze.
#[test]
fn what_was_frozen_is_fetched_by_a_replica_that_was_away() {
    let gate = Gate::closed();
    let (mut group, client) = group(&gate);
    add(&group, &client, 3);
    group.crash(2);
    let mut away = group.nodes.pop();
    add(&group, &client, 22);
    gate.open();
    until(&group, "two hold one", || group.nodes.iter().all(|node| held(node) == 10));
    drop(away.take());
    let node = group.start(2);
    let began = node.events().filter(|event| ready(matches!(event, Event::SnapshotBegan { .. })));
    group.clock.run(began.take(1).collect::<Vec<_>>());
    let explained = node.explain();
    assert!(explained.about(Cause::Fetching).is_some() && !explained.is_well(), "{explained}");
    assert!(explained.to_string().contains("the checkpoint of op 10"), "{explained}");
    group.nodes.push(node);
    until(&group, "all hold one", || group.nodes.iter().all(|node| held(node) == 10));
    group.clock.run_for(SECOND);
    require_state_of_its_op(&group, 2);
    require_agreement(&group, 25);
    assert!(group.nodes.iter().all(|node| node.explain().is_well()));
}
