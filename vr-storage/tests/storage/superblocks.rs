//! Superblocks that are damaged, stale or gone, and the logs that are set aside with them.

use vr_core::{
    StorageError, WriteBatch,
    model::{
        durable::Trust,
        types::{Checksum, DiskId},
    },
};
use vr_storage::Store;

use crate::{
    damage::{FIRST, flip, written},
    faulty_disk::{Dice, FaultyDisk},
    history::{Content, identity, open, options, write},
};

#[test]
fn one_damaged_superblock_copy_is_mended_from_the_other() {
    for (damaged, whole) in [("superblock-a", "superblock-b"), ("superblock-b", "superblock-a")] {
        let (disk, content) = written(true);
        let disk = flip(&disk, damaged, 60, 1);
        let (recovered, _) = open(&disk).unwrap();
        assert!(content.is(&recovered));
        let after_loss_of_the_other = flip(&disk, whole, 60, 1);
        assert!(content.is(&open(&after_loss_of_the_other).unwrap().0));
    }
}

#[test]
fn a_stale_superblock_copy_never_wins() {
    let (disk, mut content) = written(true);
    let stale = disk.bytes("superblock-b");
    let (_, mut store) = open(&disk).unwrap();
    let promise = content.promise(2);
    write(&mut store, &promise).unwrap();
    content.apply(&promise);
    let disk = disk.settled();
    disk.set_bytes("superblock-b", stale);
    assert!(content.is(&open(&disk).unwrap().0));
}

#[test]
fn a_superblock_copy_in_the_other_file_is_damage() {
    let (disk, content) = written(true);
    disk.set_bytes("superblock-b", disk.bytes("superblock-a"));
    assert!(content.is(&open(&disk).unwrap().0));
    disk.set_bytes("superblock-a", disk.bytes("superblock-b"));
    disk.set_bytes("superblock-b", vec![0; 100]);
    let (recovered, _) = open(&disk.settled()).unwrap();
    assert_eq!(recovered.superblock.certificate, None);
}

#[test]
fn without_a_superblock_the_directory_is_formatted_and_the_log_set_aside() {
    let (disk, content) = written(true);
    let disk = flip(&flip(&disk, "superblock-a", 17, 0), "superblock-b", 90, 7);
    let segments = |disk: &FaultyDisk, prefix: &str| {
        let names = disk.names().into_iter().filter(|name| name.starts_with(prefix));
        names.map(|name| name[5..].to_owned()).collect::<Vec<_>>()
    };
    let used = |disk: &FaultyDisk, prefix: &str| {
        disk.names().into_iter().filter(|name| name.starts_with(prefix)).count()
    };
    let before = disk.bytes(FIRST);
    let identity = vr_core::model::durable::Identity { fresh_disk: DiskId(0xf00), ..identity() };
    let (recovered, store) = Store::open(disk.clone(), &identity, options()).unwrap();
    assert_eq!(recovered.superblock, vr_core::model::durable::Superblock::blank(&identity));
    assert_eq!((recovered.headers, recovered.damaged), (Vec::new(), Vec::new()));
    assert!(recovered.set_aside.is_some_and(|reason| reason.contains("superblock")));
    assert!(!segments(&disk, "lost-").is_empty());
    assert_eq!(disk.bytes("lost-0000000000000001"), before);
    assert_eq!(used(&disk, "wal-"), 1);
    drop(store);
    let (again, mut store) = Store::open(disk.settled(), &identity, options()).unwrap();
    assert_eq!((again.superblock.disk, again.set_aside), (DiskId(0xf00), None));
    store.write(&Content::new().append(&[5])).unwrap();
    assert!(content.op_number() > 1);
}

/// Whatever crash comes while a log is given up, it is Lost or still there.
#[test]
fn a_crash_while_the_log_is_set_aside_never_leaves_an_intact_empty_one() {
    let (disk, content) = written(true);
    let last = disk.names().into_iter().rfind(|name| name.starts_with("wal-")).unwrap();
    let mut bytes = disk.bytes(&last);
    bytes.truncate(5000);
    disk.set_bytes(&last, bytes);
    let mut given_up = 0;
    for calls in 0..40 {
        for dice in 0..8 {
            let disk = disk.settled();
            disk.die_after(calls);
            given_up += u32::from(open(&disk).is_ok());
            let after = disk.after_power_cut(&mut Dice(dice));
            let (recovered, _) = open(&after).unwrap();
            let trust = recovered.superblock.trust;
            assert_eq!((trust, recovered.headers.len()), (Trust::Lost, 0), "{calls}, {dice}");
            assert_eq!(recovered.superblock.view, content.superblock.view);
        }
    }
    assert!(given_up > 0);
}

/// What an installation left that never came to its end is no log; the next one begins with nothing.
#[test]
fn a_lost_log_is_empty_until_one_is_installed() {
    let (disk, mut content) = written(true);
    let last = disk.names().into_iter().rfind(|name| name.starts_with("wal-")).unwrap();
    disk.set_bytes(&last, Vec::new());
    let (recovered, mut store) = open(&disk).unwrap();
    assert!(content.is_lost_in(&recovered));
    content.log.clear();
    let install = content.append(&[10, 20, 30]);
    store.write(&install).unwrap();
    drop(store);
    let disk = disk.settled();
    let (recovered, mut store) = open(&disk).unwrap();
    assert_eq!((recovered.headers.len(), recovered.superblock.trust), (0, Trust::Lost));
    let batch = WriteBatch { superblock: content.promise(0).superblock, ..install };
    store.write(&batch).unwrap();
    content.apply(&batch);
    drop(store);
    let (recovered, _) = open(&disk.settled()).unwrap();
    assert!(content.is(&recovered), "{recovered:?}");
}

#[test]
fn another_format_version_is_refused_with_both_numbers() {
    let (disk, _) = written(true);
    let mut bytes = disk.bytes("superblock-a");
    bytes[24] = 9;
    let length = 48 + usize::from(u16::from_le_bytes([bytes[40], bytes[41]]));
    let checksum = Checksum::of(&bytes[16..length]).0.to_le_bytes();
    bytes[..16].copy_from_slice(&checksum);
    disk.set_bytes("superblock-a", bytes);
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, StorageError::Version { found: 9, supported: 1, .. }), "{error}");
}
