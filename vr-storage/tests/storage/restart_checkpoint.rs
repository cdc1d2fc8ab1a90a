//! Groups that begin with a checkpoint and the log behind it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::executor::block_on;
use vr_core::{
    Checkpoints, Members, OpNumber, Opened, ReplicaId, Storage,
    model::{
        certificate::Means,
        durable::{CheckpointId, Identity, Trust},
        entry::Entry,
        types::Epoch,
    },
};
use vr_storage::{
    FileStorage, LogSource, Store, StoreOptions, restore, unsafe_restart, unsafe_restart_on,
};

use crate::{
    export::log_behind,
    export_checkpoint::{checkpoint, large_state, write_behind},
    faulty_disk::{Dice, FaultyDisk},
    restart::{entropy, identity},
};

const PAYLOADS: [&[u8]; 3] = [b"put a 1", b"", b"put b 2"];

fn exported(dir: &Path) -> PathBuf {
    let path = dir.join("export");
    write_behind(&path, &large_state(), &PAYLOADS);
    path
}

fn open(path: &Path, name: &str, replica: ReplicaId) -> Opened {
    block_on(Box::new(FileStorage::new(path)).open(&identity(name, replica))).unwrap()
}

fn entries(opened: &Opened) -> Vec<Entry> {
    let headers = &opened.recovered.headers;
    let (Some(first), Some(last)) = (headers.first(), headers.last()) else { return Vec::new() };
    block_on(opened.reader.entries(first.op_number, last.op_number, u64::MAX)).unwrap()
}

fn state(checkpoints: &dyn Checkpoints, id: &CheckpointId) -> Vec<u8> {
    let count = checkpoints.manifest(id).unwrap().count();
    (0..count).flat_map(|index| checkpoints.chunk(id, index).unwrap()).collect()
}

fn forced(dir: &Path) -> Vec<(ReplicaId, PathBuf)> {
    let source = LogSource::open(&exported(dir)).unwrap();
    unsafe_restart(source, &[], false, &dir.join("one"), &mut entropy()).unwrap().directories
}

#[test]
fn a_restart_by_force_keeps_the_checkpoint_and_what_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let id = checkpoint(&large_state()).id();
    let (_, before) = log_behind(id, &PAYLOADS);
    for (replica, path) in forced(dir.path()) {
        let opened = open(&path, "g", replica);
        assert_eq!(opened.recovered.set_aside, None);
        let superblock = &opened.recovered.superblock;
        assert_eq!((superblock.checkpoint, superblock.epoch), (id, Epoch(1)));
        assert_eq!(superblock.trust, Trust::Intact);
        assert_eq!(state(opened.checkpoints.as_ref(), &id), large_state());
        assert_eq!(entries(&opened), before);
        let inherited = *superblock.certificate.as_ref().unwrap().inherited.last().unwrap();
        assert_eq!((inherited.means, inherited.op_number), (Means::Forced, OpNumber(7)));
        assert_eq!(inherited.checksum, before[2].header.checksum);
        drop(opened);
        let report = vr_storage::inspect(&path).unwrap().to_string();
        assert!(
            report.contains("checkpoint after op 4") && report.contains("no damage"),
            "{report}"
        );
    }
}

/// Nothing of the new group passes for something of the old one, what its log follows included.
#[test]
fn a_restored_group_follows_a_checkpoint_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let source = LogSource::open(&exported(dir.path())).unwrap();
    let members = Members::local(3).unwrap().to_membership();
    let into = dir.path().join("new");
    let begun = restore(source, "copy", &members, &into, &mut entropy()).unwrap();
    let old = checkpoint(&large_state()).id();
    let mut names = Vec::new();
    for (replica, path) in &begun.directories {
        let opened = open(path, "copy", *replica);
        let id = opened.recovered.superblock.checkpoint;
        assert_eq!((id.op_number, id.digest), (old.op_number, old.digest));
        assert_ne!(id.checksum, old.checksum);
        assert_eq!(state(opened.checkpoints.as_ref(), &id), large_state());
        let entries = entries(&opened);
        let payloads: Vec<&[u8]> = entries.iter().map(|entry| entry.payload.as_ref()).collect();
        assert_eq!(payloads, PAYLOADS);
        assert_eq!(entries[0].header.parent, id.checksum);
        assert_eq!(entries[0].header.op_number, OpNumber(5));
        let head = begun.certificate.inherited.last().unwrap().checksum;
        assert_eq!(head, entries[2].header.checksum);
        names.push(id);
    }
    assert!(names.iter().all(|id| *id == names[0]), "all replicas compare alike");
}

#[test]
fn a_directory_with_a_checkpoint_is_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let directories = forced(dir.path());
    let source = LogSource::open(&directories[1].1).unwrap();
    let id = checkpoint(&large_state()).id();
    let facts = source.facts().clone();
    assert_eq!((facts.checkpoint, facts.op_number), (id, OpNumber(7)));
    assert_eq!(facts.commit_number, OpNumber(4), "what is in a checkpoint was committed");
    let into = dir.path().join("two");
    let begun = unsafe_restart(source, &[], false, &into, &mut entropy()).unwrap();
    assert_eq!((begun.epoch, begun.op_number), (Epoch(2), OpNumber(7)));
    let opened = open(&begun.directories[0].1, "g", ReplicaId(0));
    assert_eq!(state(opened.checkpoints.as_ref(), &id), large_state());
    assert_eq!(entries(&opened), log_behind(id, &PAYLOADS).1);
}

#[test]
fn a_log_that_ends_with_its_checkpoint_begins_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let (facts, _) = write_behind(&path, b"all there is", &[]);
    let source = LogSource::open(&path).unwrap();
    let into = dir.path().join("one");
    let begun = unsafe_restart(source, &[], false, &into, &mut entropy()).unwrap();
    let opened = open(&begun.directories[2].1, "g", ReplicaId(2));
    assert_eq!(opened.recovered.superblock.checkpoint, facts.checkpoint);
    assert_eq!(opened.recovered.head().op_number, OpNumber(4));
    drop(opened);
    let source = LogSource::open(&begun.directories[1].1).unwrap();
    let ends = (source.facts().op_number, source.facts().checksum);
    assert_eq!(ends, (OpNumber(4), facts.checkpoint.checksum));
}

#[test]
fn the_better_log_is_told_whatever_checkpoints_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let source = || LogSource::open(&exported(dir.path())).unwrap();
    // It starts later and ends later.
    let mut other = log_behind(checkpoint(b"another").id(), &[]).0;
    other.checkpoint.op_number = OpNumber(8);
    other.op_number = OpNumber(8);
    let into = dir.path().join("new");
    let error = unsafe_restart(source(), &[other.clone()], false, &into, &mut entropy());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("op 7) is worse than the log of replica 1"), "{text}");
    fs::remove_file(dir.path().join("export")).unwrap();
    other.op_number = OpNumber(6);
    unsafe_restart(source(), &[other], false, &into, &mut entropy()).unwrap();
}

#[test]
fn a_directory_whose_checkpoint_is_damaged_is_no_source_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = &forced(dir.path())[0].1;
    let mut files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let chunks = files.find(|file| size(file) == u64::try_from(large_state().len()).unwrap());
    let chunks = chunks.unwrap();
    let mut bytes = fs::read(&chunks).unwrap();
    bytes[300_000] ^= 1;
    fs::write(&chunks, bytes).unwrap();
    let superblock = fs::read(path.join("superblock-a")).unwrap();
    let text = LogSource::open(path).unwrap_err().to_string();
    assert!(text.contains("has lost its log: chunk 1 of the checkpoint after op 4"), "{text}");
    assert_eq!(fs::read(path.join("superblock-a")).unwrap(), superblock);
    assert!(chunks.exists());
}

/// Whether the disk is a member's, with all that belongs to it; otherwise it is blank.
fn is_whole(disk: FaultyDisk, identity: &Identity) -> bool {
    let (recovered, store) = Store::open(disk, identity, StoreOptions::default()).unwrap();
    if recovered.superblock.certificate.is_none() {
        return false;
    }
    assert_eq!((recovered.set_aside, recovered.torn_bytes), (None, 0));
    let id = checkpoint(b"state").id();
    let superblock = recovered.superblock;
    assert_eq!((superblock.checkpoint, superblock.trust), (id, Trust::Intact));
    assert_eq!(state(&store.checkpoints(), &id), b"state");
    assert_eq!(recovered.headers.len(), PAYLOADS.len());
    true
}

/// The power goes, or the process is killed, at every change that is made to a disk.
#[test]
fn a_crash_leaves_a_blank_disk_or_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    write_behind(&path, b"state", &PAYLOADS);
    let identity = identity("g", ReplicaId(0));
    let attempt = |dies: Option<u64>| {
        let disks: Vec<_> = (0..3).map(|_| FaultyDisk::default()).collect();
        dies.inspect(|calls| disks[0].die_after(*calls));
        let source = LogSource::open(&path).unwrap();
        let begun = unsafe_restart_on(source, &[], false, disks.clone(), &mut entropy());
        assert_eq!(begun.is_ok(), dies.is_none());
        disks.into_iter().next().unwrap()
    };
    let disk = attempt(None);
    let calls = disk.calls();
    assert!(is_whole(disk.after_power_cut(&mut Dice(1)), &identity));
    let (mut blank, mut whole) = (0, 0);
    for dies in 0..calls {
        let disk = attempt(Some(dies));
        for seed in 1..8 {
            let found = is_whole(disk.after_power_cut(&mut Dice(seed)), &identity);
            *(if found { &mut whole } else { &mut blank }) += 1;
        }
        is_whole(disk.after_kill(), &identity);
    }
    assert!(blank > 100 && whole > 0, "{blank} and {whole} of {calls} calls");
}
