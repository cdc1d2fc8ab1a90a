//! What running nodes say of their checkpoints and logs.

use core::time::Duration;
use std::{sync::Arc, thread};

use vr_core::{
    Cause, Client, Config, Durability, ExportError, ExportScope, OpNumber, ReplicaStatus,
};

use crate::{
    group::Group,
    service::{Counter, Gate},
};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: usize = 360_000;

/// A checkpoint every ten ops, of a log that holds forty.
fn config() -> Config {
    let mut config = Config::default();
    (config.checkpoint_ops, config.log_retain_ops) = (10, 5);
    (config.log_ops_max, config.pipeline_ops_max) = (40, 8);
    config
}

fn add(group: &Group, client: &Client<Counter>, times: u64) {
    for _ in 0..times {
        group.add(client, 1);
    }
}

/// Runs until `holds`; what is waited for may be done by threads that know nothing of virtual time.
fn until(group: &Group, what: &str, holds: impl Fn() -> bool) {
    for _ in 0..PATIENCE {
        if holds() {
            return;
        }
        thread::yield_now();
        group.clock.run_for(Duration::from_millis(10));
    }
    panic!("{what}: {}", group.nodes.iter().map(|it| it.explain().to_string()).collect::<String>());
}

/// Checkpoints that do not become complete let the log grow; where it stands still, that is well, and
/// once they are complete it is released without one more operation.
#[test]
fn a_log_that_no_checkpoint_shortens_grows_rests_and_is_released() {
    let gate = Gate::closed();
    let group = Group::forking(3, Durability::Full, config(), gate.clone());
    let client = group.client();
    add(&group, &client, 15);
    assert!(group.nodes.iter().all(|node| node.explain().is_well()), "there is room");
    add(&group, &client, 10);
    let primary = &group.nodes[usize::try_from(group.primary(0)).unwrap()];
    let explained = primary.explain();
    let grows = explained.about(Cause::LogGrows).expect("it has grown");
    assert!(grows.words.contains("after op 20 is not complete"), "{explained}");
    assert!(!explained.is_well());
    group.clock.run_for(3 * SECOND);
    for node in &group.nodes {
        let explained = node.explain();
        assert!(explained.is_well() && explained.about(Cause::LogGrows).is_none(), "{explained}");
        assert!(explained.about(Cause::LogRests).is_some(), "{explained}");
    }
    add(&group, &client, 1);
    assert!(primary.explain().about(Cause::LogGrows).is_some(), "it grows again");
    gate.open();
    until(&group, "all release", || {
        let released = |base: OpNumber| base >= OpNumber(10);
        group.nodes.iter().all(|node| released(node.status().replica.log_base))
    });
    for node in &group.nodes {
        let explained = node.explain();
        assert!(explained.is_well() && explained.about(Cause::LogRests).is_none(), "{explained}");
    }
}

/// Three states of three replicas: the primary complains, until those that are started again with what
/// was mended have the same.
#[test]
fn checkpoints_that_differ_are_complained_of_until_they_do_not() {
    let mut group = Group::empty(3);
    (group.config, group.salts) = (config(), vec![1, 2, 3]);
    group.nodes = (0..3).map(|id| group.start(id)).collect();
    let client = group.client();
    add(&group, &client, 11);
    let primary = usize::try_from(group.primary(0)).unwrap();
    let cause = Cause::CheckpointsDiffer;
    until(&group, "they differ", || group.nodes[primary].explain().about(cause).is_some());
    let explained = group.nodes[primary].explain();
    assert!(!explained.is_well() && explained.to_string().contains("after op 10"), "{explained}");
    group.clock.run_for(SECOND);
    assert!(group.nodes[primary].explain().about(cause).is_some(), "it does not go away by itself");
    // The others become as the primary, one after the other.
    let salt = group.salts[primary];
    for mended in (0..3).filter(|id| *id != primary) {
        group.salts[mended] = salt;
        let id = u64::try_from(mended).unwrap();
        group.crash(id);
        group.nodes[mended] = group.start(id);
        group.clock.run_for(SECOND);
    }
    assert_eq!(group.primary(primary), u64::try_from(primary).unwrap(), "nothing else has changed");
    for node in &group.nodes {
        let explained = node.explain();
        assert!(explained.about(cause).is_none() && explained.is_well(), "{explained}");
        assert_eq!(node.status().replica.checkpoint.op_number, OpNumber(10));
    }
}

/// Its directory is free for another node, although there are handles still: nothing of storage is left
/// in any of the node's threads.
#[test]
fn a_node_that_was_shut_down_lets_go_of_its_storage() {
    let gate = Gate::closed();
    gate.open();
    let mut group = Group::empty(3);
    (group.config, group.gate) = (config(), Some(gate));
    let storage: Vec<_> = group.disks.iter().map(|disk| Arc::clone(&disk.1)).collect();
    let users = || storage.iter().map(Arc::strong_count).collect::<Vec<_>>();
    let before = users();
    group.nodes = (0..3).map(|id| group.start(id)).collect();
    let client = group.client();
    add(&group, &client, 11);
    let taken = |replica: ReplicaStatus| replica.checkpoint_taken == replica.checkpoint_due;
    let settled = || group.nodes.iter().all(|node| taken(node.status().replica));
    until(&group, "nothing is being written", settled);
    assert!(users().iter().zip(&before).all(|(now, before)| now > before));
    for (id, node) in group.nodes.iter().enumerate() {
        group.clock.run(node.shutdown()).unwrap();
        assert_eq!(users()[id], before[id]);
        let copy = node.export(ExportScope::WithTail);
        assert!(matches!(copy, Err(ExportError::Stopped)), "{copy:?}");
    }
}
