//! Whose a directory is, what else may lie in it, and what reads and misuse return.

use std::io::ErrorKind;

use vr_core::{
    OpNumber, ReplicaId, StorageError, WriteBatch,
    model::{durable::Durability, durable::Identity, membership::Membership, types::DiskId},
};
use vr_storage::Store;

use crate::{
    faulty_disk::{Call, FaultyDisk},
    history::{Content, identity, open, options, write},
};

fn refusal(change: impl FnOnce(&mut Identity)) -> String {
    let disk = FaultyDisk::default();
    open(&disk).unwrap();
    let mut other = Identity { fresh_disk: DiskId(0xbad), ..identity() };
    change(&mut other);
    let disk = disk.settled();
    let error = Store::open(disk.clone(), &other, options()).unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
    assert_eq!(disk.calls(), 0, "nothing is changed");
    error.to_string()
}

#[test]
fn a_directory_of_another_replica_is_refused_naming_both() {
    let text = refusal(|identity| identity.replica = ReplicaId(2));
    assert!(text.contains("belongs to replica 1, not to replica 2"), "{text}");
}

#[test]
fn a_directory_of_another_group_is_refused_naming_both() {
    let text = refusal(|identity| {
        identity.group_name = "other".into();
        identity.group = identity.members.group_id("other");
    });
    assert!(text.contains("group \"test\", not to group \"other\""), "{text}");
}

#[test]
fn a_differing_member_list_is_refused_as_such() {
    let text = refusal(|identity| {
        identity.members = Membership::new((0..5).map(ReplicaId)).unwrap();
        identity.group = identity.members.group_id("test");
    });
    assert!(text.contains("[0, 1, 2]") && text.contains("[0, 1, 2, 3, 4]"), "{text}");
}

#[test]
fn a_directory_of_another_mode_is_refused_naming_both() {
    let text = refusal(|identity| identity.durability = Durability::ViewOnly);
    assert!(text.contains("mode Full") && text.contains("mode ViewOnly"), "{text}");
}

#[test]
fn formatting_keeps_the_disk_id_it_drew_first() {
    let disk = FaultyDisk::default();
    open(&disk).unwrap();
    let again = Identity { fresh_disk: DiskId(2), ..identity() };
    let (recovered, _) = Store::open(disk.settled(), &again, options()).unwrap();
    assert_eq!(recovered.superblock.disk, DiskId(0xd15c));
}

#[test]
fn a_directory_in_use_is_refused() {
    let disk = FaultyDisk::default();
    let first = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(StorageError::InUse { .. })));
    drop(first);
}

#[test]
fn an_unknown_file_is_refused_by_name_and_left_alone() {
    let disk = FaultyDisk::default();
    disk.set_bytes("notes.txt", b"mine".to_vec());
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
    assert_eq!(disk.names(), ["notes.txt"]);
}

#[test]
fn hidden_files_are_none_of_our_business() {
    let disk = FaultyDisk::default();
    disk.set_bytes(".DS_Store", b"theirs".to_vec());
    open(&disk).unwrap();
    assert_eq!(disk.bytes(".DS_Store"), b"theirs");
}

#[test]
fn half_created_files_are_removed() {
    let disk = FaultyDisk::default();
    open(&disk).unwrap();
    let disk = disk.settled();
    disk.set_bytes("wal-0000000000000002.new", vec![1; 100]);
    disk.set_bytes("spare-0000000000000009", vec![1; 100]);
    open(&disk).unwrap();
    assert_eq!(disk.names(), ["superblock-a", "superblock-b", "wal-0000000000000001"]);
}

#[test]
fn a_read_only_directory_is_an_error_with_the_path() {
    let disk = FaultyDisk::default();
    disk.fail(Call::Create, ErrorKind::ReadOnlyFilesystem);
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, StorageError::Io { action: "create", .. }));
    assert!(error.to_string().contains("superblock-a"), "{error}");
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    let batch = content.append(&[100_000, 50_000]);
    store.write(&batch).unwrap();
    content.apply(&batch);
    content.assert_readable(&store);
    assert!(content.is(&open(&disk.settled()).unwrap().0));
}

#[test]
fn entries_are_read_up_to_the_limit_and_at_least_one() {
    let disk = FaultyDisk::default();
    let content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    store.write(&content.append(&[500; 40])).unwrap();
    let reader = store.reader();
    let count = |from, through, bytes_max| {
        reader.entries(OpNumber(from), OpNumber(through), bytes_max).unwrap().len()
    };
    assert_eq!(count(1, 40, u64::MAX), 40);
    assert_eq!(count(10, 12, u64::MAX), 3);
    assert_eq!(count(38, 99, u64::MAX), 3);
    assert_eq!(count(5, 40, 0), 1);
    assert_eq!(count(5, 40, 3 * 628), 3);
    assert_eq!(count(5, 40, 3 * 628 - 1), 2);
}

#[test]
fn an_op_that_is_not_there_is_missing() {
    let disk = FaultyDisk::default();
    let content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    store.write(&content.append(&[1, 1])).unwrap();
    for op_number in [0, 3, u64::MAX] {
        let read = store.reader().entries(OpNumber(op_number), OpNumber(op_number), 1);
        assert!(matches!(read, Err(StorageError::Missing { .. })), "op {op_number}");
    }
}

#[test]
fn an_entry_that_rots_while_the_store_is_open_is_corrupt() {
    let disk = FaultyDisk::default();
    let content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    store.write(&content.append(&[100])).unwrap();
    let mut bytes = disk.bytes("wal-0000000000000001");
    bytes[4096 + 144 + 130] ^= 1;
    disk.set_bytes("wal-0000000000000001", bytes);
    let read = store.reader().entries(OpNumber(1), OpNumber(1), 1);
    assert!(matches!(read, Err(StorageError::Corrupt { at: 4240, .. })), "{read:?}");
}

#[test]
fn entries_that_do_not_follow_are_refused() {
    let content = {
        let mut content = Content::new();
        content.apply(&content.append(&[1, 1, 1]));
        content
    };
    let gap = WriteBatch::of(content.entries(3, &[1]));
    let beyond = WriteBatch { cut: Some(OpNumber(1)), ..WriteBatch::default() };
    for batch in [gap, beyond] {
        let (_, mut store) = open(&FaultyDisk::default()).unwrap();
        let error = store.write(&batch).unwrap_err();
        assert!(matches!(error, StorageError::Io { action: "write", .. }), "{error}");
    }
}

#[test]
fn a_release_never_goes_beyond_the_checkpoint() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    for _ in 0..20 {
        let batch = content.append(&[3000]);
        store.write(&batch).unwrap();
        content.apply(&batch);
    }
    let release = WriteBatch { release: Some(OpNumber(15)), ..WriteBatch::default() };
    write(&mut store, &release).unwrap();
    content.assert_readable(&store);
    assert!(content.is(&open(&disk.settled()).unwrap().0));
}

/// Appends `batches` with entries of these sizes, and releases all but the last `kept` ops.
fn a_cycle(
    store: &mut Store<FaultyDisk>,
    content: &mut Content,
    batches: u64,
    sizes: &[usize],
    kept: u64,
) {
    for _ in 0..batches {
        let batch = content.append(sizes);
        store.write(&batch).unwrap();
        content.apply(&batch);
    }
    let through = content.op_number() - kept;
    let mut release = content.promise(through);
    release.release = Some(OpNumber(through));
    write(store, &release).unwrap();
    content.apply(&release);
    content.assert_readable(store);
}

/// One in which the log takes more than five segments.
fn a_burst(store: &mut Store<FaultyDisk>, content: &mut Content) {
    a_cycle(store, content, 20, &[3000], 2);
}

fn spares(disk: &FaultyDisk) -> usize {
    disk.names().iter().filter(|name| name.starts_with("spare-")).count()
}

/// Segments that were made of new files since the last time that somebody asked.
fn created(disk: &FaultyDisk) -> usize {
    let creations = disk.take_log().into_iter().filter(|(call, _)| *call == Call::Create);
    creations.filter(|(_, name)| name.ends_with(".new") && name.starts_with("wal-")).count()
}

/// What the log took from one release to the next, it takes from what was released.
#[test]
fn released_segments_are_recycled() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    a_burst(&mut store, &mut content);
    let released = spares(&disk);
    assert!(released >= 5 && created(&disk) > 5, "{:?}", disk.names());
    for _ in 0..5 {
        a_burst(&mut store, &mut content);
    }
    assert!(created(&disk) <= 1, "a cycle's segments were made anew");
    assert!(spares(&disk) <= released + 1, "{:?}", disk.names());
    let read = store.reader().entries(OpNumber(1), OpNumber(1), 1);
    assert!(matches!(read, Err(StorageError::Missing { .. })));
}

/// A burst's segments do not stay for ever.
#[test]
fn fewer_segments_are_kept_when_the_log_takes_fewer() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    a_burst(&mut store, &mut content);
    let after_a_burst = spares(&disk);
    for _ in 0..40 {
        a_cycle(&mut store, &mut content, 1, &[3000, 3000], 1);
    }
    assert!(after_a_burst > 3 && spares(&disk) <= 3, "{:?}", disk.names());
}

#[test]
fn segments_are_made_ahead_when_they_are_asked_for() {
    let disk = FaultyDisk::default();
    let ahead = options().with_spare_segments(6);
    let (_, store) = Store::open(disk.clone(), &identity(), ahead).unwrap();
    assert_eq!(spares(&disk), 6);
    drop(store);
    // As many as before, and none of their names is given twice.
    let disk = disk.settled();
    let (_, mut store) = Store::open(disk.clone(), &identity(), ahead).unwrap();
    assert_eq!(spares(&disk), 6);
    disk.take_log();
    let mut content = Content::new();
    a_burst(&mut store, &mut content);
    assert_eq!(created(&disk), 0, "all of the log's segments were there");
    a_burst(&mut store, &mut content);
    drop(store);
    let (recovered, store) = open(&disk.settled()).unwrap();
    assert!(content.is(&recovered));
    content.assert_readable(&store);
}

/// S53: there is no room for what was asked for; the next open, with fewer, finds room again.
#[test]
fn no_room_for_segments_ahead_is_an_error_that_leaves_nothing_behind() {
    let disk = FaultyDisk::default();
    open(&disk).unwrap();
    let disk = disk.settled();
    disk.fail(Call::Create, ErrorKind::StorageFull);
    let ahead = options().with_spare_segments(2);
    let error = Store::open(disk.clone(), &identity(), ahead).unwrap_err();
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
    assert_eq!(spares(&disk), 0);
    assert!(open(&disk.settled()).is_ok());
}
