//! The same over real files and threads: clear refusals, restarts, inspection.

use std::{collections::BTreeMap, fs, io::IoSlice, path::Path};

use futures::{FutureExt, executor::block_on, join};
use vr_core::{OpNumber, Opened, ReplicaId, Storage, StorageError, WriteBatch};
use vr_storage::{Disk as _, FileStorage, RealDisk, Store, StoreOptions, inspect};

use crate::history::{Content, identity};

fn small() -> StoreOptions {
    StoreOptions::default().with_segment_bytes(64 << 10)
}

fn open(path: &Path) -> Result<Opened, StorageError> {
    block_on(Box::new(FileStorage::new(path).with_options(small())).open(&identity()))
}

/// Writes some batches through the async face.
fn fill(path: &Path) -> Content {
    let mut content = Content::new();
    let mut opened = open(path).unwrap();
    for step in 0..30 {
        let batch = if step % 10 == 0 { content.promise(0) } else { content.append(&[9, 5000]) };
        block_on(opened.writer.write(batch.clone())).unwrap();
        content.apply(&batch);
    }
    block_on(opened.writer.mark_idle()).unwrap();
    content
}

fn snapshot(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect()
}

#[test]
fn a_restarted_node_finds_its_files_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er");
    let content = fill(&path);
    let opened = open(&path).unwrap();
    assert!(content.is(&opened.recovered));
    let all = opened.reader.entries(OpNumber(1), OpNumber(u64::MAX), u64::MAX);
    assert_eq!(block_on(all).unwrap(), content.log);
}

/// Checkpoints look at the directory while the log beside them renames and removes its files.
#[test]
fn a_directory_is_listed_while_its_files_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let disk = RealDisk::open(&path).unwrap();
    fs::write(path.join("stays"), b"abc").unwrap();
    let other = std::thread::spawn(move || {
        for number in 0..5000 {
            let (one, another) = (path.join(format!("a{number}")), path.join("b"));
            fs::write(&one, b"").unwrap();
            fs::rename(&one, &another).unwrap();
            fs::remove_file(&another).unwrap();
        }
    });
    loop {
        let is_last = other.is_finished();
        let files = disk.list().unwrap();
        assert!(files.contains(&("stays".to_owned(), 3)));
        if is_last {
            break;
        }
    }
    other.join().unwrap();
}

#[test]
fn reads_run_beside_a_write_and_beside_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let content = fill(directory.path());
    let mut opened = open(directory.path()).unwrap();
    let one = |op| opened.reader.entries(OpNumber(op), OpNumber(op), 0);
    let write = opened.writer.write(content.append(&[1]));
    let (written, first, second, last) =
        block_on(async { join!(write, one(1), one(2), one(content.op_number())) });
    written.unwrap();
    assert_eq!(first.unwrap()[0], content.log[0]);
    assert_eq!(second.unwrap()[0], content.log[1]);
    assert!(last.is_ok());
}

#[test]
fn an_abandoned_read_does_not_disturb_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let content = fill(directory.path());
    let opened = open(directory.path()).unwrap();
    for op in 1..20 {
        let abandoned = opened.reader.entries(OpNumber(op), OpNumber(op), 0);
        assert!(abandoned.now_or_never().is_none_or(|read| read.is_ok()));
        let read = block_on(opened.reader.entries(OpNumber(2), OpNumber(2), 0)).unwrap();
        assert_eq!(read, [content.log[1].clone()]);
    }
}

#[test]
fn a_directory_in_use_is_refused_until_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open(directory.path()).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::InUse { .. }), "{error}");
    assert!(inspect(directory.path()).unwrap().in_use);
    drop(opened);
    open(directory.path()).unwrap();
}

#[test]
fn a_path_that_is_a_file_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "mine").unwrap();
    for path in [path.clone(), path.join("below")] {
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StorageError::Io { action: "open", .. }), "{error}");
        assert!(error.to_string().contains("file"), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_directory_that_may_not_be_created_is_refused_by_name() {
    let error = open(Path::new("/proc/vr-storage-test")).unwrap_err();
    assert!(matches!(error, StorageError::Io { action: "open", .. }), "{error}");
    assert!(error.to_string().contains("/proc/vr-storage-test"), "{error}");
}

#[test]
fn a_read_only_directory_is_refused_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(directory.path().join("probe"), "").is_ok() {
        println!("SKIPPED: this user may write to read-only directories");
        return;
    }
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::Io { action: "lock", .. }), "{error}");
}

#[test]
fn a_truncated_file_is_inspected_and_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let content = fill(directory.path());
    let name = "wal-0000000000000001";
    let file = fs::OpenOptions::new().write(true).open(directory.path().join(name)).unwrap();
    file.set_len(20_000).unwrap();
    let before = snapshot(directory.path());
    let report = inspect(directory.path()).unwrap();
    assert_eq!(snapshot(directory.path()), before);
    assert!(report.has_damage() && report.lost.is_none(), "{report}");
    for part in ["truncated", "TO REPAIR: ops ", "CORRUPT"] {
        assert!(report.to_string().contains(part), "{part} in {report}");
    }
    let Opened { recovered, mut writer, reader, .. } = open(directory.path()).unwrap();
    let repairs = content.damaged_in(&recovered).unwrap();
    let first = repairs[0].header.op_number;
    let read = block_on(reader.entries(first, first, 0));
    assert!(matches!(read, Err(StorageError::Corrupt { .. })), "{read:?}");
    let batch = WriteBatch { repairs: repairs.clone(), ..WriteBatch::default() };
    block_on(writer.write(batch)).unwrap();
    assert_eq!(block_on(reader.entries(first, first, 0)).unwrap(), repairs[..1]);
    drop((writer, reader));
    assert!(content.is(&open(directory.path()).unwrap().recovered));
    let report = inspect(directory.path()).unwrap();
    assert_eq!((report.damaged.len(), report.ops.map(|ops| ops.0)), (0, Some(OpNumber(1))));
    // The file is still shorter than it was, and nothing is missing for that.
    assert!(!report.has_damage() && report.to_string().contains("repaired: "), "{report}");
}

#[test]
fn a_log_that_is_lost_is_inspected_before_and_after_it_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let content = fill(directory.path());
    for entry in fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("wal-") && name != "wal-0000000000000001" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let report = inspect(directory.path()).unwrap();
    assert!(report.has_damage() && report.to_string().contains("LOST: wal-"), "{report}");
    assert!(content.is_lost_in(&open(directory.path()).unwrap().recovered));
    let report = inspect(directory.path()).unwrap();
    assert!(!report.has_damage(), "{report}");
    assert_eq!(report.set_aside, ["lost-0000000000000001"]);
    assert!(report.to_string().contains("log Lost"), "{report}");
}

#[test]
fn a_foreign_file_is_refused_and_inspected() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    fs::write(directory.path().join("wal.bak"), "?").unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
    let report = inspect(directory.path()).unwrap();
    assert!(report.has_damage() && report.to_string().contains("FOREIGN: wal.bak"), "{report}");
}

#[test]
fn a_directory_of_another_replica_is_refused_and_unlocked_again() {
    let directory = tempfile::tempdir().unwrap();
    let content = fill(directory.path());
    let mut other = identity();
    other.replica = ReplicaId(2);
    let error = block_on(Box::new(FileStorage::new(directory.path())).open(&other)).unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
    assert!(content.is(&open(directory.path()).unwrap().recovered));
}

#[test]
fn inspection_tells_what_is_there_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let content = fill(directory.path());
    let before = snapshot(directory.path());
    let report = inspect(directory.path()).unwrap();
    assert_eq!(snapshot(directory.path()), before);
    assert!(!report.has_damage() && !report.in_use);
    assert_eq!(report.ops, Some((OpNumber(1), OpNumber(content.op_number()))));
    assert!(report.segments.len() >= 2);
    let text = report.to_string();
    for part in ["replica 1 of group \"test\"", "view 3", "ops 1..=54", "no damage", "seal"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn inspection_of_damage_names_it_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    for (name, at) in [("wal-0000000000000001", 4400), ("superblock-b", 70)] {
        let path = directory.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 4;
        fs::write(&path, bytes).unwrap();
    }
    let before = snapshot(directory.path());
    let report = inspect(directory.path()).unwrap();
    assert_eq!(snapshot(directory.path()), before);
    let text = report.to_string();
    assert!(report.has_damage() && text.ends_with("DAMAGED"), "{text}");
    for part in ["superblock-b: damaged", "CORRUPT: wal-0000000000000001 at byte 4096"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn an_unused_or_missing_directory_can_be_inspected() {
    let directory = tempfile::tempdir().unwrap();
    let report = inspect(directory.path()).unwrap();
    assert!(!report.has_damage() && report.to_string().contains("never used"), "{report}");
    let missing = inspect(directory.path().join("nothing"));
    assert!(matches!(missing, Err(StorageError::Io { action: "open", .. })));
}

#[test]
fn a_read_only_disk_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    let before = snapshot(directory.path());
    let disk = RealDisk::read_only(directory.path()).unwrap();
    assert!(Store::open(disk, &identity(), small()).is_err());
    assert_eq!(snapshot(directory.path()), before);
}

#[test]
fn more_files_than_handles_can_be_used_at_once() {
    use vr_storage::Disk;
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(directory.path()).unwrap();
    for number in 0..100 {
        disk.create(&format!("file-{number}"), 10).unwrap();
    }
    for number in 0..100_u8 {
        let name = format!("file-{number}");
        let (one, two) = ([number], [number, 7]);
        disk.write_at(&name, 4, &[IoSlice::new(&one), IoSlice::new(&two)]).unwrap();
        disk.sync(&name).unwrap();
    }
    let mut bytes = [9; 12];
    assert_eq!(disk.read_at("file-42", 0, &mut bytes).unwrap(), 10);
    assert_eq!(bytes, [0, 0, 0, 0, 42, 42, 7, 0, 0, 0, 9, 9]);
    disk.rename("file-42", "other").unwrap();
    assert!(disk.read_at("file-42", 0, &mut bytes).is_err());
    assert_eq!(disk.read_at("other", 4, &mut bytes[..1]).unwrap(), 1);
}
