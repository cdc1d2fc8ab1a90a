//! Damage of what was synced: always noticed, never hidden, never repaired by forgetting.

use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use vr_core::{
    OpNumber, Recovered, StorageError, View, WriteBatch,
    model::{durable::Trust, types::DiskId},
    ports::storage::{Anchor, DamagedRange},
};
use vr_storage::{Disk, Store};

use crate::{
    faulty_disk::{Dice, FaultyDisk},
    history::{Content, identity, open, options, write},
};

pub(crate) const FIRST: &str = "wal-0000000000000001";
const SECOND: &str = "wal-0000000000000002";

/// A log over three segments, with a cut in it, whose last batch has a marker behind it or not.
pub(crate) fn written(marked: bool) -> (FaultyDisk, Content) {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    for step in 0..9 {
        let batch = match step {
            0 => content.promise(0),
            3 => content.cut(3, &[300, 20]),
            6 => content.promise(0),
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

pub(crate) fn flip(disk: &FaultyDisk, name: &str, at: usize, bit: usize) -> FaultyDisk {
    let disk = disk.settled();
    let mut bytes = disk.bytes(name);
    bytes[at] ^= 1 << bit;
    disk.set_bytes(name, bytes);
    disk
}

/// What became of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// It hit nothing that counts.
    Harmless,
    /// It is told which ops are damaged; they were written again, and all is as it was.
    Repaired,
    /// The last batch was taken for a torn write.
    Torn,
    /// The log is lost, and the superblock says so.
    Lost,
}

/// Opens a damaged directory that held `content`, repairs what is said to be damaged, and opens it
/// again.
pub(crate) fn fate(
    disk: &FaultyDisk,
    content: &Content,
    torn: Option<&Content>,
    when: &str,
) -> Fate {
    let (recovered, mut store) = open(disk).unwrap_or_else(|error| panic!("{when}: {error}"));
    if content.is_lost_in(&recovered) {
        drop(store);
        let (again, _) = open(&disk.after_kill()).unwrap();
        assert_eq!((again.superblock, again.headers), (recovered.superblock, Vec::new()), "{when}");
        return Fate::Lost;
    }
    if torn.is_some_and(|torn| torn.is(&recovered)) {
        assert!(recovered.torn_bytes > 0, "{when}: dropped without a word");
        return Fate::Torn;
    }
    let damaged = content.damaged_in(&recovered);
    let repairs = damaged.unwrap_or_else(|| panic!("{when}: {recovered:?}"));
    if repairs.is_empty() {
        assert!(content.is(&recovered), "{when}");
        content.assert_readable(&store);
        return Fate::Harmless;
    }
    let ranges = recovered.damaged.iter();
    for op_number in ranges.flat_map(|range| range.first.0..=range.through.op_number.0) {
        let op_number = OpNumber(op_number);
        let read = store.reader().entries(op_number, op_number, 0);
        assert!(matches!(read, Err(StorageError::Corrupt { .. })), "{when}, op {op_number}");
    }
    store.write(&WriteBatch { repairs, ..WriteBatch::default() }).unwrap();
    content.assert_readable(&store);
    drop(store);
    let (recovered, store) = open(&disk.settled()).unwrap();
    assert!(content.is(&recovered), "{when}, repaired: {recovered:?}");
    content.assert_readable(&store);
    Fate::Repaired
}

/// Damages every file of a written directory, `step` bytes apart, each time anew.
fn everywhere(
    marked: bool,
    step: usize,
    damage: impl Fn(&mut Vec<u8>, usize),
) -> BTreeMap<Fate, u32> {
    let (disk, content) = written(marked);
    let mut shorter = content.clone();
    shorter.log.truncate(content.log.len() - 3);
    let torn = (!marked).then_some(&shorter);
    let mut fates = BTreeMap::new();
    for name in disk.names() {
        let whole = disk.bytes(&name);
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        for at in (0..=used).step_by(step) {
            let disk = disk.settled();
            let mut bytes = whole.clone();
            damage(&mut bytes, at);
            disk.set_bytes(&name, bytes);
            let fate = fate(&disk, &content, torn, &format!("{name} at {at}"));
            *fates.entry(fate).or_default() += 1;
        }
    }
    fates
}

fn zero_sector(bytes: &mut [u8], at: usize) {
    let start = at / 512 * 512;
    let end = bytes.len().min(start + 512);
    bytes[start..end].fill(0);
}

#[test]
fn a_flipped_bit_anywhere_is_repaired_or_harmless() {
    let fates = everywhere(true, 7, |bytes, at| bytes[at] ^= 1 << (at % 8));
    assert_eq!(fates.keys().copied().collect::<Vec<_>>(), [Fate::Harmless, Fate::Repaired]);
    assert!(fates[&Fate::Repaired] > 1000, "{fates:?}");
}

#[test]
fn a_zeroed_sector_anywhere_is_repaired_or_harmless() {
    let fates = everywhere(true, 512, |bytes, at| zero_sector(bytes, at));
    assert!(!fates.contains_key(&Fate::Lost), "{fates:?}");
    assert!(fates[&Fate::Repaired] > 20, "{fates:?}");
}

#[test]
fn a_file_that_ends_anywhere_is_no_refusal() {
    let fates = everywhere(true, 512, |bytes, at| bytes.truncate(at));
    assert!(fates[&Fate::Lost] > 10 && fates[&Fate::Repaired] > 10, "{fates:?}");
}

/// The documented residual: without a marker the last batch reads as torn.
#[test]
fn without_a_marker_only_the_last_batch_can_read_as_torn() {
    let fates = everywhere(false, 11, |bytes, at| bytes[at] ^= 1 << (at % 8));
    assert!(!fates.contains_key(&Fate::Lost), "{fates:?}");
    assert!(fates[&Fate::Torn] > 10 && fates[&Fate::Repaired] > 1000, "{fates:?}");
}

/// A repair is written behind the marker, which may be all that says that the last batch was
/// synced: a repair that tears must not turn damage of that batch into a torn tail.
#[test]
fn a_torn_repair_hides_no_other_damage() {
    let (disk, content) = written(true);
    let payload = content.log.last().unwrap().payload.clone();
    let place = |name: &String| {
        let found = disk.bytes(name).windows(payload.len()).rposition(|part| part == payload);
        found.map(|at| (name.clone(), at))
    };
    let (last, at) = disk.names().iter().find_map(place).unwrap();
    let third = 4096 + 144 + (128 + 1500) + (128 + 1100) + 128;
    let disk = flip(&flip(&disk, FIRST, third, 0), &last, at, 3);
    let (recovered, mut store) = open(&disk).unwrap();
    let all = damaged_ops(&recovered);
    assert_eq!(all, [3..=3, 17..=17]);
    let before = disk.bytes(&last);
    let repairs = vec![content.log[2].clone()];
    store.write(&WriteBatch { repairs, ..WriteBatch::default() }).unwrap();
    drop(store);
    let disk = disk.settled();
    let mut torn = disk.bytes(&last);
    let place = before.iter().zip(&torn).position(|(before, after)| before != after).unwrap();
    torn[place / 512 * 512..][..512].fill(0xa5);
    disk.set_bytes(&last, torn);
    let (recovered, _) = open(&disk).unwrap();
    assert_eq!(damaged_ops(&recovered), all);
}

/// A repair that has to go into the next segment tears: the seal behind the marker is undone, and
/// the log is not missing the segment that the seal names.
#[test]
fn a_torn_repair_in_the_next_segment_loses_no_log() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    for batch in [content.promise(0), content.append(&[5000, 1000])] {
        store.write(&batch).unwrap();
        content.apply(&batch);
    }
    store.mark_idle().unwrap();
    drop(store);
    let first = 4096 + 144 + 128;
    let disk = flip(&flip(&disk.settled(), FIRST, first, 0), FIRST, first + 5000 + 128, 0);
    let (recovered, mut store) = open(&disk).unwrap();
    let all = damaged_ops(&recovered);
    let repairs = vec![content.log[0].clone()];
    store.write(&WriteBatch { repairs, ..WriteBatch::default() }).unwrap();
    drop(store);
    let mut disk = disk.settled();
    let mut torn = disk.bytes(SECOND);
    torn[4096..4608].fill(0xa5);
    disk.set_bytes(SECOND, torn);
    for _ in 0..3 {
        let (recovered, _) = open(&disk).unwrap();
        disk = disk.settled();
        assert_eq!(
            (recovered.superblock.trust, damaged_ops(&recovered)),
            (Trust::Intact, all.clone())
        );
    }
}

#[test]
fn every_flipped_bit_of_an_entry_is_noticed() {
    let (disk, content) = written(true);
    let start = 4096 + 144;
    let length = usize::try_from(content.log[0].header.entry_bytes()).unwrap();
    for at in start..start + length {
        let disk = flip(&disk, FIRST, at, at % 8);
        let fate = fate(&disk, &content, None, &format!("byte {at}"));
        assert_eq!(fate, Fate::Repaired, "byte {at}");
    }
}

/// S48: a damaged entry below the head is named, with those whose place it hides, and nothing is
/// changed.
#[test]
fn a_corrupt_entry_is_named_and_left_alone() {
    let (disk, content) = written(true);
    let payload = 4096 + 144 + 128 + 5;
    let damaged = flip(&disk, FIRST, payload, 0);
    let before = damaged.bytes(FIRST);
    let (recovered, store) = open(&damaged).unwrap();
    assert_eq!(damaged_ops(&recovered), [1..=1]);
    assert_eq!(recovered.headers, content.headers(), "its header is whole");
    drop(store);
    assert_eq!(damaged.bytes(FIRST), before);
    let (recovered, _) = open(&flip(&disk, FIRST, 4096 + 144 + 5, 0)).unwrap();
    assert_eq!(damaged_ops(&recovered), [1..=3], "nothing behind a damaged header is found");
    assert_eq!(recovered.headers, content.headers()[3..]);
}

#[test]
fn a_damaged_batch_header_hides_its_entries_and_not_which_they_are() {
    let (disk, content) = written(true);
    let (recovered, _) = open(&flip(&disk, FIRST, 4096 + 70, 2)).unwrap();
    assert_eq!(damaged_ops(&recovered), [1..=3]);
    let third = Anchor::of(&content.log[2].header);
    assert_eq!(recovered.damaged, [DamagedRange { first: OpNumber(1), through: third }]);
}

fn damaged_ops(recovered: &Recovered) -> Vec<RangeInclusive<u64>> {
    let ops = |range: &DamagedRange| range.first.0..=range.through.op_number.0;
    recovered.damaged.iter().map(ops).collect()
}

/// A cut that is damaged hides where it began: the entries that it replaced seem to be there, and
/// only the chain from above tells that they are not.
#[test]
fn a_damaged_cut_says_which_entry_the_log_went_on_from() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    for step in 0..4 {
        let batch = match step {
            0 => content.promise(0),
            1 => content.append(&[10, 20, 30, 40]),
            2 => content.cut(1, &[50, 60]),
            _ => content.append(&[70]),
        };
        let mut batch = batch;
        if step == 2 {
            let mut later = content.clone();
            later.superblock.view = View(9);
            batch = later.cut(1, &[50, 60]);
        }
        store.write(&batch).unwrap();
        content.apply(&batch);
    }
    drop(store);
    let append = 144 + 4 * 128 + 100;
    let cut: usize = 4096 + append;
    let cut = cut.div_ceil(512) * 512;
    let disk = flip(&disk.settled(), FIRST, cut + 90, 1);
    let (recovered, mut store) = open(&disk).unwrap();
    assert_eq!(damaged_ops(&recovered), [3..=3]);
    let second = recovered.headers.iter().find(|header| header.op_number == OpNumber(2));
    assert_ne!(second, content.headers().get(1), "the replaced entry");
    let repairs = content.log[1..3].to_vec();
    store.write(&WriteBatch { repairs, ..WriteBatch::default() }).unwrap();
    content.assert_readable(&store);
    drop(store);
    let (recovered, store) = open(&disk.settled()).unwrap();
    assert!(content.is(&recovered), "{recovered:?}");
    content.assert_readable(&store);
}

/// A cut that made the log shorter is damaged, and only the marker behind it says so. A repair takes
/// the marker's place, and must say it too.
#[test]
fn a_repair_does_not_bring_back_what_was_cut_off() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    for step in 0..3 {
        let batch = match step {
            0 => content.promise(0),
            1 => content.append(&[10, 20, 30, 40]),
            _ => content.cut(1, &[50]),
        };
        store.write(&batch).unwrap();
        content.apply(&batch);
    }
    store.mark_idle().unwrap();
    drop(store);
    let cut: usize = 4096 + 144 + 4 * 128 + 100;
    let disk = flip(&disk.settled(), FIRST, cut.div_ceil(512) * 512 + 90, 1);
    assert_eq!(fate(&disk, &content, None, "cut"), Fate::Repaired);
}

/// As many repairs as a log has places, with crashes between them.
#[test]
fn a_crash_while_repairing_leaves_what_was_there_or_the_repair() {
    let (disk, content) = written(true);
    let damaged = flip(&disk, FIRST, 4096 + 70, 2);
    let repairs = content.log[..3].to_vec();
    for calls in 0..8 {
        for dice in 0..20 {
            let disk = damaged.settled();
            let (_, mut store) = open(&disk).unwrap();
            disk.die_after(calls);
            let batch = WriteBatch { repairs: repairs.clone(), ..WriteBatch::default() };
            let written = store.write(&batch).is_ok();
            drop(store);
            let after = disk.after_power_cut(&mut Dice(dice));
            let (recovered, _) = open(&after).unwrap();
            assert!(content.damaged_in(&recovered).is_some(), "{calls}, {dice}: {recovered:?}");
            assert!(!written || content.is(&recovered), "{calls}, {dice}");
        }
    }
}

/// Whole segments of a log are released although a later one holds their repairs.
#[test]
fn a_repaired_log_can_be_released() {
    let (disk, mut content) = written(true);
    let disk = flip(&disk, FIRST, 4096 + 70, 2);
    let (_, mut store) = open(&disk).unwrap();
    let repairs = content.log[..3].to_vec();
    store.write(&WriteBatch { repairs, ..WriteBatch::default() }).unwrap();
    for checkpoint in [2, 5, content.op_number()] {
        let mut batch = content.promise(checkpoint);
        batch.release = Some(OpNumber(checkpoint));
        write(&mut store, &batch).unwrap();
        content.apply(&batch);
        let (recovered, _) = open(&disk.settled()).unwrap();
        assert!(content.is(&recovered), "{checkpoint}: {recovered:?}");
    }
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
fn without_its_last_segment_a_log_is_lost_and_without_another_it_is_repaired() {
    let (disk, content) = written(true);
    let segments: Vec<_> =
        disk.names().into_iter().filter(|name| name.starts_with("wal-")).collect();
    let is_used = |name: &&String| disk.bytes(name)[4096 + 16..].starts_with(b"vrbatch");
    let used: Vec<_> = segments.iter().filter(is_used).collect();
    assert!(used.len() >= 2, "{segments:?}");
    for name in &used {
        let disk = disk.settled();
        Disk::remove(&disk, name).unwrap();
        let is_last = Some(name) == used.last();
        let expected = if is_last { Fate::Lost } else { Fate::Repaired };
        assert_eq!(fate(&disk, &content, None, name), expected, "{name}");
    }
    for name in &segments {
        Disk::remove(&disk, name).unwrap();
    }
    assert_eq!(fate(&disk, &content, None, "without any"), Fate::Lost);
}

#[test]
fn the_loss_of_everything_behind_a_full_segment_is_noticed() {
    let (disk, content) = written(true);
    for name in disk.names().into_iter().filter(|name| name.starts_with("wal-") && name != FIRST) {
        Disk::remove(&disk, &name).unwrap();
    }
    let (recovered, _) = open(&disk).unwrap();
    assert!(content.is_lost_in(&recovered));
    assert!(recovered.set_aside.unwrap().contains("is missing"));
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

/// The log is in one segment, and the next one was made ahead: if the first disappears, the other one
/// says that something was before it.
#[test]
fn the_only_segment_with_batches_does_not_disappear_unnoticed() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    for batch in [content.promise(0), content.append(&[3000, 3000, 3000])] {
        store.write(&batch).unwrap();
        content.apply(&batch);
    }
    assert!(store.prepare_ahead().unwrap());
    store.mark_idle().unwrap();
    drop(store);
    disk.remove(FIRST).unwrap();
    let (recovered, _) = open(&disk.settled()).unwrap();
    assert!(content.is_lost_in(&recovered), "{recovered:?}");
}

#[test]
fn a_batch_that_is_missing_behind_the_marker_is_corrupt_and_not_torn() {
    let (disk, content) = written(true);
    let mut bytes = disk.bytes(SECOND);
    let magic = b"vrbatch\0";
    let starts: Vec<_> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(magic)).map(|at| at - 16).collect();
    let victim = starts[starts.len() - 2];
    bytes[victim..victim + 512].fill(0);
    disk.set_bytes(SECOND, bytes);
    assert_eq!(fate(&disk, &content, None, "zeroed"), Fate::Repaired);
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
        write(&mut store, &release).unwrap();
        content.apply(&release);
        store.prepare_ahead().unwrap();
        let stale = disk.names().iter().any(|name| name.starts_with("spare-"));
        recycled += u32::from(stale);
        let (recovered, _) = open(&disk.after_power_cut(&mut Dice(content.op_number()))).unwrap();
        assert!(content.is(&recovered));
    }
    assert!(recycled > 0, "segments are kept for reuse");
    assert!(disk.names().len() <= 8, "{:?}", disk.names());
}

/// The first byte that a write changed, and in which file.
fn changed(before: &FaultyDisk, after: &FaultyDisk) -> (String, usize) {
    let first = |name: &String| {
        let (old, new) = (before.bytes(name), after.bytes(name));
        (0..old.len().min(new.len())).find(|at| old[*at] != new[*at])
    };
    let names = before.names().into_iter().filter(|name| name.starts_with("wal-"));
    let found: Vec<_> = names.filter_map(|name| Some((first(&name)?, name))).collect();
    // A seal in the segment before is changed, too.
    let (at, name) = found.last().unwrap();
    (name.clone(), at / 512 * 512)
}

/// A batch whose header is gone leaves something behind, which is told from what a file that is
/// used again holds of its earlier use.
#[test]
fn what_is_left_of_a_batch_without_its_header_is_told_also_in_recycled_segments() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    let mut recycled = 0;
    for step in 0..120 {
        let release = WriteBatch {
            release: Some(OpNumber(content.op_number())),
            ..content.promise(content.op_number())
        };
        write(&mut store, &release).unwrap();
        content.apply(&release);
        store.prepare_ahead().unwrap();
        let before = disk.settled();
        let append = content.append(&[700 + step * 37 % 3000]);
        store.write(&append).unwrap();
        let shorter = content.clone();
        content.apply(&append);
        recycled += u32::from(disk.names().iter().any(|name| name.starts_with("spare-")));
        let (recovered, _) = open(&disk.settled()).unwrap();
        assert_eq!((content.is(&recovered), recovered.torn_bytes), (true, 0), "step {step}");
        let (file, at) = changed(&before, &disk);
        let flipped = flip(&disk, &file, at + 100, 3);
        let zeroed = disk.settled();
        let mut bytes = zeroed.bytes(&file);
        zero_sector(&mut bytes, at);
        zeroed.set_bytes(&file, bytes);
        for damaged in [flipped, zeroed] {
            let (recovered, _) = open(&damaged).unwrap();
            assert!(shorter.is(&recovered) && recovered.torn_bytes > 0, "step {step}");
            let (recovered, _) = open(&damaged.settled()).unwrap();
            assert_eq!((shorter.is(&recovered), recovered.torn_bytes), (true, 0), "step {step}");
        }
    }
    assert!(recycled > 0, "segments are kept for reuse");
}
