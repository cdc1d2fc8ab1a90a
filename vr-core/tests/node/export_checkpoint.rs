//! Copies of a log that starts after a checkpoint, made while the node moves on to later ones.

use core::time::Duration;

use vr_core::{
    Checkpoints, Client, Config, Durability, Export, ExportError, ExportScope, StorageError,
    model::{durable::CheckpointId, entry::Entry},
};

use crate::{group::Group, service::Counter};

const SECOND: Duration = Duration::from_secs(1);
const EVERY: u32 = 10;

/// A group that takes checkpoints often and retains no log below them.
fn group(durability: Durability) -> (Group, Client<Counter>) {
    let mut config = Config::default();
    config.checkpoint_ops = EVERY;
    config.log_retain_ops = 0;
    let group = Group::configured(3, durability, config);
    let client = group.client();
    (group, client)
}

fn add(group: &Group, client: &Client<Counter>, times: u64) {
    for _ in 0..times {
        group.add(client, 1);
    }
    group.clock.run_for(SECOND);
}

/// Reads `export` to its end, and checks that it is one chain behind its checkpoint.
fn read(group: &Group, export: &mut Export) -> Result<Vec<Entry>, ExportError> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = group.clock.run(export.next())?;
        if next.is_empty() {
            break;
        }
        entries.extend(next);
    }
    let (mut at, mut head) =
        (export.facts().checkpoint.op_number, export.facts().checkpoint.checksum);
    for Entry { header, .. } in &entries {
        assert_eq!((header.op_number, header.parent), (at.next(), head));
        (at, head) = (header.op_number, header.checksum);
    }
    assert_eq!((at, head), (export.facts().op_number, export.facts().checksum));
    Ok(entries)
}

/// Reads the checkpoint of `export` to its end, and checks it.
fn read_checkpoint(export: &Export) -> CheckpointId {
    let copy = export.checkpoint().unwrap();
    let manifest = copy.manifest().unwrap();
    assert_eq!(manifest.digest(), copy.id().digest);
    assert!(manifest.count() > 0);
    for index in 0..manifest.count() {
        assert!(manifest.holds(index, &copy.chunk(index).unwrap()));
    }
    assert_eq!(copy.id(), export.facts().checkpoint);
    copy.id()
}

#[test]
fn a_log_that_starts_after_a_checkpoint_is_copied_with_it() {
    for durability in [Durability::Full, Durability::ViewOnly] {
        let (group, client) = group(durability);
        add(&group, &client, 44);
        for node in &group.nodes {
            assert!(node.status().replica.log_base.0 > 0, "the log was released");
            for scope in [ExportScope::Committed, ExportScope::WithTail] {
                let mut export = node.export(scope).unwrap();
                let id = read_checkpoint(&export);
                assert_eq!((id.op_number.0, export.facts().op_number.0), (40, 45));
                assert_eq!(read(&group, &mut export).unwrap().len(), 5);
            }
        }
    }
}

/// All three restart, so nothing is in memory but what the checkpoint and the log on disk say.
#[test]
fn a_replica_that_started_from_a_checkpoint_exports_it() {
    let (mut group, client) = group(Durability::Full);
    add(&group, &client, 44);
    (0..3).for_each(|id| group.crash(id));
    group.nodes = (0..3).map(|id| group.start(id)).collect();
    group.clock.run_for(SECOND);
    let mut export = group.nodes[1].export(ExportScope::Committed).unwrap();
    assert_eq!(read_checkpoint(&export).op_number.0, 40);
    assert!(read(&group, &mut export).unwrap().len() >= 5);
}

#[test]
fn what_is_exported_stays_until_it_is_read_and_not_longer() {
    let (group, client) = group(Durability::Full);
    add(&group, &client, 44);
    let mut export = group.nodes[2].export(ExportScope::Committed).unwrap();
    add(&group, &client, 60);
    let status = group.nodes[2].status().replica;
    assert!(status.log_base.0 >= 90, "the node moved on: {}", status.log_base);
    let id = read_checkpoint(&export);
    assert_eq!(id.op_number.0, 40);
    assert_eq!(read(&group, &mut export).unwrap().len(), 5);
    let first = |group: &Group| group.disks[2].with(|it| it.entries[0].header.op_number.0);
    assert_eq!(first(&group), 41);
    drop(export);
    add(&group, &client, 60);
    let gone = group.disks[2].1.manifest(&id);
    assert!(matches!(gone, Err(StorageError::Missing { .. })), "{gone:?}");
    assert!(first(&group) > 100, "{}", first(&group));
}

/// Where the log is in memory the checkpoint stays, too, but the log does not.
#[test]
fn an_export_that_is_overtaken_in_memory_says_so() {
    let (group, client) = group(Durability::ViewOnly);
    add(&group, &client, 44);
    let mut export = group.nodes[2].export(ExportScope::Committed).unwrap();
    add(&group, &client, 60);
    assert_eq!(read_checkpoint(&export).op_number.0, 40);
    let refused = read(&group, &mut export);
    assert!(matches!(refused, Err(ExportError::Changed)), "{refused:?}");
    let mut again = group.nodes[2].export(ExportScope::Committed).unwrap();
    assert_eq!(read_checkpoint(&again).op_number.0, 100);
    read(&group, &mut again).unwrap();
}
