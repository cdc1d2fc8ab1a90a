//! Groups that begin with a log: restored under another name, or restarted by force.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::executor::block_on;
use vr_core::{
    Durability, Members, Opened, ReplicaId, Storage, View, WriteBatch,
    model::{
        certificate::Means,
        durable::{Identity, Superblock, Trust},
        entry::{Entry, EntryHeader},
        types::{DiskId, Epoch},
    },
};
use vr_storage::{
    CopyError, FileStorage, LogSource, RealDisk, Store, StoreOptions, restore, unsafe_restart,
};

use crate::export::{log, write};

/// Draws disk ids that are told apart.
pub(crate) fn entropy() -> impl FnMut() -> u128 {
    let mut drawn = 0x1000;
    move || {
        drawn += 1;
        drawn
    }
}

fn exported(dir: &Path) -> PathBuf {
    let path = dir.join("export");
    let (facts, entries) = log(&[b"put a 1", b"", b"put b 2"]);
    write(&path, &facts, &entries);
    path
}

pub(crate) fn identity(name: &str, replica: ReplicaId) -> Identity {
    let members = Members::local(3).unwrap().to_membership();
    Identity {
        group: members.group_id(name),
        group_name: name.into(),
        members,
        replica,
        durability: Durability::Full,
        fresh_disk: DiskId(1),
    }
}

fn open(path: &Path, name: &str, replica: ReplicaId) -> (Opened, Vec<Entry>) {
    let identity = identity(name, replica);
    let opened = block_on(Box::new(FileStorage::new(path)).open(&identity)).unwrap();
    let (first, last) = (opened.recovered.headers.first(), opened.recovered.headers.last());
    let (first, last) = (first.unwrap().op_number, last.unwrap().op_number);
    let entries = block_on(opened.reader.entries(first, last, u64::MAX)).unwrap();
    (opened, entries)
}

fn payloads(entries: &[Entry]) -> Vec<&[u8]> {
    entries.iter().map(|entry| entry.payload.as_ref()).collect()
}

#[test]
fn a_restored_group_has_the_log_as_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let source = LogSource::open(&exported(dir.path())).unwrap();
    let members = Members::local(3).unwrap().to_membership();
    let into = dir.path().join("new");
    let begun = restore(source, "copy", &members, &into, &mut entropy()).unwrap();
    assert_eq!(begun.directories.len(), 3);
    let (_, before) = log(&[b"put a 1", b"", b"put b 2"]);
    for (replica, path) in &begun.directories {
        let (opened, entries) = open(path, "copy", *replica);
        let superblock = &opened.recovered.superblock;
        assert_eq!(payloads(&entries), payloads(&before));
        for (entry, old) in entries.iter().zip(&before) {
            let header = &entry.header;
            assert_eq!(header.group, EntryHeader::group_mark(members.group_id("copy")));
            assert_ne!(header.checksum, old.header.checksum);
            let kept = |header: &EntryHeader| {
                (header.time, header.session, header.client, header.request_number, header.view)
            };
            assert_eq!(kept(header), kept(&old.header));
        }
        assert_eq!((superblock.view, superblock.log_view), (View(4), View(4)));
        assert_eq!((superblock.epoch, superblock.trust), (Epoch::ZERO, Trust::Intact));
        let certificate = superblock.certificate.as_ref().unwrap();
        assert!(certificate.names(*replica, superblock.disk));
        assert_eq!(certificate.inherited.last().unwrap().means, Means::Restored);
        assert_eq!(certificate, &begun.certificate);
    }
}

#[test]
fn a_second_group_of_the_same_name_and_members_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = LogSource::open(&exported(dir.path())).unwrap();
    let members = Members::local(3).unwrap().to_membership();
    let into = dir.path().join("new");
    let error = restore(source, "g", &members, &into, &mut entropy()).unwrap_err();
    assert!(error.to_string().contains("choose another name"), "{error}");
    assert!(!into.exists());
}

#[test]
fn a_damaged_export_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = exported(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes.pop();
    fs::write(&path, bytes).unwrap();
    let error = LogSource::open(&path).unwrap_err();
    assert!(matches!(error, CopyError::Damaged { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_in_the_way_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = LogSource::open(&exported(dir.path())).unwrap();
    let members = Members::local(3).unwrap().to_membership();
    let into = dir.path().join("new");
    fs::create_dir_all(into.join("replica-1")).unwrap();
    let error = restore(source, "copy", &members, &into, &mut entropy()).unwrap_err();
    assert!(matches!(error, CopyError::Exists { .. }), "{error}");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 1);
}

/// What an attempt left behind that was cut short: the next one replaces it.
#[test]
fn what_was_left_half_made_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = exported(dir.path());
    let into = dir.path().join("new");
    let begun = {
        let source = LogSource::open(&path).unwrap();
        restore(source, "other", &Members::local(3).unwrap().to_membership(), &into, &mut entropy())
    };
    for (replica, path) in begun.unwrap().directories {
        fs::rename(path, into.join(format!(".replica-{replica}.new"))).unwrap();
    }
    let source = LogSource::open(&path).unwrap();
    let members = Members::local(3).unwrap().to_membership();
    let begun = restore(source, "copy", &members, &into, &mut entropy()).unwrap();
    assert_eq!(fs::read_dir(&into).unwrap().count(), 3);
    let (opened, entries) = open(&begun.directories[2].1, "copy", ReplicaId(2));
    assert_eq!((opened.recovered.superblock.group_name.as_str(), entries.len()), ("copy", 3));
}

/// The directory of a replica of the group "g" that was restarted by force once.
fn forced(dir: &Path) -> Vec<(ReplicaId, PathBuf)> {
    let source = LogSource::open(&exported(dir)).unwrap();
    unsafe_restart(source, &[], false, &dir.join("one"), &mut entropy()).unwrap().directories
}

#[test]
fn a_restart_by_force_begins_the_next_epoch_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let directories = forced(dir.path());
    let (_, before) = log(&[b"put a 1", b"", b"put b 2"]);
    let (opened, entries) = open(&directories[2].1, "g", ReplicaId(2));
    assert_eq!(entries, before, "the entries are those that were there");
    let superblock = &opened.recovered.superblock;
    assert_eq!(
        (superblock.epoch, superblock.view, superblock.log_view),
        (Epoch(1), View(4), View(4))
    );
    let certificate = superblock.certificate.clone().unwrap();
    assert!(certificate.names(ReplicaId(2), superblock.disk));
    assert_eq!(certificate.forced().count(), 1);
    let report = vr_storage::inspect(&directories[0].1).unwrap().to_string();
    assert!(report.contains("RESTARTED BY FORCE as epoch 1"), "{report}");
    assert!(report.contains("no damage"), "{report}");
}

#[test]
fn a_directory_is_a_source_and_epochs_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let directories = forced(dir.path());
    let source = LogSource::open(&directories[1].1).unwrap();
    assert_eq!(source.facts().epoch, Epoch(1));
    let into = dir.path().join("two");
    let begun = unsafe_restart(source, &[], false, &into, &mut entropy()).unwrap();
    assert_eq!((begun.epoch, begun.certificate.forced().count()), (Epoch(2), 2));
    let (opened, entries) = open(&begun.directories[0].1, "g", ReplicaId(0));
    assert_eq!(opened.recovered.superblock.epoch, Epoch(2));
    assert_eq!(entries.len(), 3);
}

/// A member of epoch 0 that was told of a later epoch, which then got lost, too: its log is as good
/// as ever, and what is begun with it is later than all that was heard of.
#[test]
fn a_directory_that_was_given_up_begins_a_later_epoch_than_the_one_that_it_heard_of() {
    let dir = tempfile::tempdir().unwrap();
    let directories = forced(dir.path());
    let path = &directories[1].1;
    let disk = RealDisk::open(path).unwrap();
    let identity = identity("g", ReplicaId(1));
    let (recovered, mut store) = Store::open(disk, &identity, StoreOptions::default()).unwrap();
    let superblock = Superblock { superseded_by: Some(Epoch(5)), ..recovered.superblock };
    store.write(&WriteBatch { superblock: Some(superblock), ..WriteBatch::default() }).unwrap();
    drop(store);
    let report = vr_storage::inspect(path).unwrap().to_string();
    assert!(report.contains("GIVEN UP: the group was restarted by force as epoch 5"), "{report}");
    let source = LogSource::open(path).unwrap();
    assert_eq!((source.facts().epoch, source.facts().latest_epoch), (Epoch(1), Epoch(5)));
    let into = dir.path().join("two");
    let begun = unsafe_restart(source, &[], false, &into, &mut entropy()).unwrap();
    assert_eq!(begun.epoch, Epoch(6));
    let (opened, _) = open(&begun.directories[0].1, "g", ReplicaId(0));
    assert_eq!(opened.recovered.superblock.superseded_by, None);
}

/// What is begun is later than any epoch that a survivor knows, also one that is not taken.
#[test]
fn no_epoch_that_a_survivor_knows_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut other, _) = log(&[b"put a 1"]);
    (other.epoch, other.latest_epoch) = (Epoch(3), Epoch(3));
    let source = LogSource::open(&exported(dir.path())).unwrap();
    let into = dir.path().join("new");
    let begun = unsafe_restart(source, &[other], true, &into, &mut entropy()).unwrap();
    assert_eq!(begun.epoch, Epoch(4));
}

#[test]
fn a_running_replicas_directory_is_no_source() {
    let dir = tempfile::tempdir().unwrap();
    let directories = forced(dir.path());
    let _running = open(&directories[1].1, "g", ReplicaId(1));
    let error = LogSource::open(&directories[1].1).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn a_worse_survivor_is_refused_unless_it_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = exported(dir.path());
    let (mut better, _) = log(&[b"put a 1"]);
    better.log_view = View(4);
    let into = dir.path().join("new");
    let source = || LogSource::open(&path).unwrap();
    let others = [better];
    let error = unsafe_restart(source(), &others, false, &into, &mut entropy()).unwrap_err();
    assert!(error.to_string().contains("is worse than the log of replica 1"), "{error}");
    assert!(!into.exists());
    unsafe_restart(source(), &others, true, &into, &mut entropy()).unwrap();
}

#[test]
fn a_group_that_kept_its_log_in_memory_goes_on_with_a_log_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let (mut facts, entries) = log(&[b"put a 1"]);
    facts.durability = Durability::ViewOnly;
    write(&path, &facts, &entries);
    let source = LogSource::open(&path).unwrap();
    let into = dir.path().join("new");
    let begun = unsafe_restart(source, &[], false, &into, &mut entropy()).unwrap();
    let (opened, held) = open(&begun.directories[0].1, "g", ReplicaId(0));
    assert_eq!(opened.recovered.superblock.durability, Durability::Full);
    assert_eq!(held, entries);
}

#[test]
fn a_lost_log_is_no_evidence_unless_it_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let (mut facts, entries) = log(&[b"put a 1"]);
    facts.trust = Trust::Lost;
    write(&path, &facts, &entries);
    let into = dir.path().join("new");
    let source = || LogSource::open(&path).unwrap();
    let error = unsafe_restart(source(), &[], false, &into, &mut entropy()).unwrap_err();
    assert!(error.to_string().contains("not evidence"), "{error}");
    let members = Members::local(3).unwrap().to_membership();
    let error = restore(source(), "copy", &members, &into, &mut entropy()).unwrap_err();
    assert!(error.to_string().contains("is no backup"), "{error}");
    assert!(!into.exists());
    unsafe_restart(source(), &[], true, &into, &mut entropy()).unwrap();
}

#[test]
fn a_damaged_directory_tells_what_is_whole_and_a_lost_log_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let directories = forced(dir.path());
    let (one, two) = (&directories[0].1, &directories[1].1);
    let segment = |path: &Path| path.join("wal-0000000000000001");
    let mut bytes = fs::read(segment(one)).unwrap();
    let at = bytes.windows(7).position(|bytes| bytes == b"put b 2").unwrap();
    bytes[at] ^= 1;
    fs::write(segment(one), bytes).unwrap();
    let source = LogSource::open(one).unwrap();
    let told = (source.facts().op_number.0, source.facts().trust);
    assert_eq!(told, (2, Trust::Lost));
    let into = dir.path().join("two");
    let error = unsafe_restart(source, &[], false, &into, &mut entropy()).unwrap_err();
    assert!(error.to_string().contains("of which a part is lost"), "{error}");

    fs::remove_file(segment(two)).unwrap();
    let before = fs::read(two.join("superblock-a")).unwrap();
    let error = LogSource::open(two).unwrap_err();
    assert!(error.to_string().contains("lost its log"), "{error}");
    assert_eq!(fs::read(two.join("superblock-a")).unwrap(), before);
}
