//! Damage of what was synced: always noticed, never hidden, never repaired by forgetting.

use vr_core::{
    OpNumber, StorageError,
    model::types::{Checksum, DiskId},
};
use vr_storage::Store;

use crate::{
    faulty_disk::{Dice, FaultyDisk},
    history::{Content, identity, open, options},
};

const FIRST: &str = "wal-0000000000000001";
const SECOND: &str = "wal-0000000000000002";

/// A log over three segments, with a cut in it, whose last batch has a marker behind it or not.
fn written(marked: bool) -> (FaultyDisk, Content) {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    for step in 0..9 {
        let batch = match step {
            0 => content.promise(0),
            3 => content.cut(3, &[300, 20]),
            6 => content.promise(1),
            _ => content.append(&[1500, 1100, 30]),
        };
        store.write(&batch).unwrap();
        content.apply(&batch);
        store.prepare_ahead().unwrap();
    }
    if marked {
        store.mark_idle().unwrap();
    }
    (disk.settled(), content)
}

fn flip(disk: &FaultyDisk, name: &str, at: usize, bit: usize) -> FaultyDisk {
    let disk = disk.settled();
    let mut bytes = disk.bytes(name);
    bytes[at] ^= 1 << bit;
    disk.set_bytes(name, bytes);
    disk
}

#[test]
fn no_flipped_bit_makes_the_log_shorter() {
    let (disk, content) = written(true);
    for name in disk.names() {
        let bytes = disk.bytes(&name);
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        for at in (0..=used).step_by(7) {
            match open(&flip(&disk, &name, at, at % 8)) {
                Ok((recovered, _)) => assert!(content.is(&recovered), "{name} at {at}"),
                Err(StorageError::Corrupt { .. }) => {}
                Err(error) => panic!("{name} at {at}: {error}"),
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_an_entry_is_noticed() {
    let (disk, content) = written(true);
    let start = 4096 + 144;
    let length = usize::try_from(content.log[0].header.entry_bytes()).unwrap();
    for at in start..start + length {
        let opened = open(&flip(&disk, FIRST, at, at % 8));
        assert!(matches!(opened, Err(StorageError::Corrupt { .. })), "byte {at}");
    }
}

/// The documented residual: without a marker the last batch reads as torn.
#[test]
fn without_a_marker_only_the_last_batch_can_read_as_torn() {
    let (disk, content) = written(false);
    let mut shorter = content.clone();
    shorter.log.truncate(content.log.len() - 3);
    for name in disk.names() {
        let bytes = disk.bytes(&name);
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        for at in (0..=used).step_by(11) {
            match open(&flip(&disk, &name, at, at % 8)) {
                Ok((recovered, _)) => {
                    assert!(content.is(&recovered) || shorter.is(&recovered), "{name} at {at}");
                }
                Err(StorageError::Corrupt { .. }) => {}
                Err(error) => panic!("{name} at {at}: {error}"),
            }
        }
    }
}

/// S48: a damaged entry below the head is named, and nothing is changed.
#[test]
fn a_corrupt_entry_is_named_and_left_alone() {
    let (disk, _) = written(true);
    let damaged = flip(&disk, FIRST, 4096 + 144 + 128 + 5, 0);
    let before = damaged.bytes(FIRST);
    let error = open(&damaged).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("ops 1..=3") && text.contains(FIRST), "{text}");
    assert!(text.contains("payload") && text.contains("Remedies"), "{text}");
    assert_eq!(damaged.bytes(FIRST), before);
    assert_eq!(damaged.calls(), 0);
}

#[test]
fn a_damaged_entry_that_a_later_cut_replaced_is_no_loss() {
    let (disk, content) = written(true);
    // Op 4 of the second batch was replaced by the cut behind op 3.
    let second_batch: usize = 4096 + 144 + 3 * 128 + 2630;
    let second_batch = second_batch.div_ceil(512) * 512;
    let (recovered, _) = open(&flip(&disk, FIRST, second_batch + 144 + 128 + 7, 3)).unwrap();
    assert!(content.is(&recovered));
}

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
    store.write(&promise).unwrap();
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
    let error = open(&disk.settled()).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
}

#[test]
fn two_damaged_superblock_copies_are_refused_with_the_remedy() {
    let (disk, _) = written(true);
    let disk = flip(&flip(&disk, "superblock-a", 17, 0), "superblock-b", 90, 7);
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }));
    assert!(error.to_string().contains("replace this replica"), "{error}");
    assert_eq!(disk.calls(), 0, "nothing is changed");
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

#[test]
fn a_truncated_segment_is_refused() {
    for length in [0, 100, 4096, 5000, 16_000] {
        let (disk, _) = written(true);
        let last = disk.names().into_iter().rfind(|name| name.starts_with("wal-")).unwrap();
        for name in [FIRST.to_owned(), last] {
            let disk = disk.settled();
            let mut bytes = disk.bytes(&name);
            bytes.truncate(length);
            disk.set_bytes(&name, bytes);
            let error = open(&disk).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{name}, {length}: {error}");
        }
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, _) = written(true);
    let segments: Vec<_> =
        disk.names().into_iter().filter(|name| name.starts_with("wal-")).collect();
    let is_used = |name: &&String| disk.bytes(name)[4096 + 16..].starts_with(b"vrbatch");
    let used: Vec<_> = segments.iter().filter(is_used).collect();
    assert!(used.len() >= 2, "{segments:?}");
    for name in used {
        let disk = disk.settled();
        vr_storage::Disk::remove(&disk, name).unwrap();
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, StorageError::Corrupt { .. }), "{name}: {error}");
    }
    for name in &segments {
        vr_storage::Disk::remove(&disk, name).unwrap();
    }
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn the_loss_of_everything_behind_a_full_segment_is_noticed() {
    let (disk, _) = written(true);
    for name in disk.names().into_iter().filter(|name| name.starts_with("wal-") && name != FIRST) {
        vr_storage::Disk::remove(&disk, &name).unwrap();
    }
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("the segment after this one is missing"), "{error}");
}

#[test]
fn a_segment_of_another_disk_is_refused_naming_both() {
    let (disk, _) = written(true);
    let stranger = FaultyDisk::default();
    let identity = vr_core::model::durable::Identity { fresh_disk: DiskId(0xbad), ..identity() };
    Store::open(stranger.clone(), &identity, options()).unwrap();
    disk.set_bytes(SECOND, stranger.bytes(FIRST));
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }));
    assert!(error.to_string().contains("bad") && error.to_string().contains("d15c"), "{error}");
}

#[test]
fn a_batch_that_is_missing_behind_the_marker_is_corrupt_and_not_torn() {
    let (disk, _) = written(true);
    let mut bytes = disk.bytes(SECOND);
    let magic = b"vrbatch\0";
    let starts: Vec<_> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(magic)).map(|at| at - 16).collect();
    let victim = starts[starts.len() - 2];
    bytes[victim..victim + 512].fill(0);
    disk.set_bytes(SECOND, bytes);
    let opened = open(&disk);
    assert!(matches!(opened, Err(StorageError::Corrupt { .. })));
}

#[test]
fn a_batch_counts_only_where_it_was_written() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    let batch = content.append(&[9000]);
    store.write(&batch).unwrap();
    content.apply(&batch);
    store.prepare_ahead().unwrap();
    let disk = disk.settled();
    let (first, mut second) = (disk.bytes(FIRST), disk.bytes(SECOND));
    second[4096..].copy_from_slice(&first[4096..]);
    disk.set_bytes(SECOND, second);
    let mut emptied = first;
    emptied[4096..].fill(0);
    disk.set_bytes(FIRST, emptied);
    assert_eq!(open(&disk).unwrap().0.headers, []);
}

/// The content of a recycled file is never mistaken for the log.
#[test]
fn stale_bytes_of_a_recycled_segment_are_never_read() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    let mut recycled = 0;
    for _ in 0..60 {
        let append = content.append(&[900]);
        store.write(&append).unwrap();
        content.apply(&append);
        let mut release = content.promise(content.op_number());
        release.release = Some(OpNumber(content.op_number()));
        store.write(&release).unwrap();
        content.apply(&release);
        store.prepare_ahead().unwrap();
        let stale = disk.names().iter().any(|name| name.starts_with("spare-"));
        recycled += u32::from(stale);
        let (recovered, _) = open(&disk.after_power_cut(&mut Dice(content.op_number()))).unwrap();
        assert!(content.is(&recovered));
    }
    assert!(recycled > 0, "segments are kept for reuse");
    assert!(disk.names().len() <= 6, "{:?}", disk.names());
}
