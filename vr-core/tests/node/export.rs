//! Copies of a log, made while its node goes on.

use core::time::Duration;

use vr_core::{
    Client, Durability, Export, ExportError, ExportScope, OpNumber, ReplicaId,
    model::{durable::genesis_checksum, entry::Entry},
};

use crate::{
    group::Group,
    service::{Counter, Operation},
};

const SECOND: Duration = Duration::from_secs(1);

fn add(group: &Group, client: &Client<Counter>, times: u64) {
    for _ in 0..times {
        group.add(client, 1);
    }
}

/// Reads `export` to its end, and checks that it is one chain.
fn read(group: &Group, mut export: Export) -> Result<Vec<Entry>, ExportError> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = group.clock.run(export.next())?;
        if next.is_empty() {
            break;
        }
        entries.extend(next);
    }
    let mut head = genesis_checksum(export.facts().group);
    for entry in &entries {
        assert_eq!(entry.header.parent, head);
        head = entry.header.checksum;
    }
    assert_eq!(head, export.facts().checksum);
    Ok(entries)
}

#[test]
fn an_export_ends_where_the_log_ended_when_it_was_asked_for() {
    let group = Group::of(3);
    let client = group.client();
    add(&group, &client, 40);
    let primary = usize::try_from(group.primary(1)).unwrap();
    let export = group.nodes[primary].export(ExportScope::Committed).unwrap();
    let facts = export.facts().clone();
    assert_eq!(facts.op_number, facts.commit_number);
    add(&group, &client, 40);
    let entries = read(&group, export).unwrap();
    assert_eq!(entries.len(), 41, "the registration, and what was acknowledged by then");
    assert_eq!(facts.op_number, OpNumber(41));
}

#[test]
fn a_log_that_is_not_in_memory_is_read_from_storage() {
    let mut group = Group::of(3);
    let client = group.client();
    add(&group, &client, 5);
    (0..3).for_each(|id| group.crash(id));
    group.nodes = (0..3).map(|id| group.start(id)).collect();
    group.clock.run_for(SECOND);
    let export = group.nodes[2].export(ExportScope::WithTail).unwrap();
    assert!(read(&group, export).unwrap().len() >= 6);
}

#[test]
fn a_replica_that_is_alone_still_tells_what_it_holds() {
    for durability in [Durability::Full, Durability::ViewOnly] {
        let group = Group::in_mode(3, durability);
        let client = group.client();
        add(&group, &client, 5);
        group.clock.run_for(SECOND);
        (0..2).for_each(|id| group.crash(id));
        let lost = client.execute(Operation::Add(1));
        group.clock.run_for(SECOND);
        drop(lost);
        let export = group.nodes[2].export(ExportScope::WithTail).unwrap();
        let facts = export.facts().clone();
        assert_eq!((facts.durability, facts.replica), (durability, ReplicaId(2)));
        assert_eq!(facts.commit_number, OpNumber(6));
        assert_eq!(read(&group, export).unwrap().len(), 6);
    }
}

#[test]
fn a_replica_without_a_group_has_nothing_to_export() {
    let mut group = Group::empty(3);
    group.nodes.push(group.start(0));
    group.clock.run_for(SECOND);
    let refused = group.nodes[0].export(ExportScope::Committed);
    assert!(matches!(refused, Err(ExportError::NoGroup)));
}

/// A backup of nothing would be worse than none.
#[test]
fn a_replica_that_does_not_know_what_is_committed_exports_nothing() {
    let mut group = Group::of(3);
    let client = group.client();
    add(&group, &client, 5);
    (0..3).for_each(|id| group.crash(id));
    group.nodes = vec![group.start(2)];
    group.clock.run_for(SECOND);
    let refused = group.nodes[0].export(ExportScope::Committed);
    assert!(matches!(refused, Err(ExportError::NothingKnown)));
    let others: Vec<_> = (0..2).map(|id| group.start(id)).collect();
    group.nodes.extend(others);
    group.clock.run_for(SECOND);
    for node in &group.nodes {
        let export = node.export(ExportScope::Committed).unwrap();
        assert_eq!(read(&group, export).unwrap().len(), 6);
    }
}

#[test]
fn an_export_ends_with_its_node() {
    let mut group = Group::of(3);
    let client = group.client();
    add(&group, &client, 5);
    (0..3).for_each(|id| group.crash(id));
    group.nodes = (0..3).map(|id| group.start(id)).collect();
    let export = group.nodes[1].export(ExportScope::WithTail).unwrap();
    group.clock.run(group.nodes[1].shutdown()).unwrap();
    assert!(matches!(read(&group, export), Err(ExportError::Stopped)));
}
