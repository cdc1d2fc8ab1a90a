//! A crash at every single change of the disk, in a history that has everything in it.

use vr_core::{OpNumber, StorageError, WriteBatch};

use crate::{
    faulty_disk::{Call, Dice, FaultyDisk},
    history::{Content, open, write},
};

/// Appends, cuts, promises, a large batch, checkpoints, releases, recycled segments.
fn script(step: usize, content: &Content) -> Option<WriteBatch> {
    let op_number = content.op_number();
    let mut batch = match step {
        0 => content.promise(0),
        1 => content.append(&[10, 0, 2000]),
        2 => content.append(&[600]),
        3 => content.cut(2, &[100, 100, 100]),
        4 => content.cut(4, &[]),
        5..=11 => content.append(&[1500, 1500]),
        12 => content.append(&[30_000, 1]),
        13 => content.promise(op_number - 2),
        14..=24 => content.append(&[3000]),
        25 => content.cut(op_number - 1, &[5, 5]),
        26 => content.promise(op_number - 1),
        27..=40 => content.append(&[2500, 100]),
        _ => return None,
    };
    if matches!(step, 13 | 26 | 30) {
        batch.release = Some(OpNumber(op_number));
    }
    if step == 32 {
        batch.superblock = content.promise(op_number - 3).superblock;
    }
    Some(batch)
}

/// Runs the script until the disk dies or it ends; returns everything that may be found then.
fn run(disk: &FaultyDisk) -> Vec<Content> {
    let mut content = Content::new();
    let Ok((_, mut store)) = open(disk) else { return vec![content] };
    let mut step = 0;
    while let Some(batch) = script(step, &content) {
        if write(&mut store, &batch).is_err() {
            return content.after_crash_in(&batch);
        }
        content.apply(&batch);
        if step % 5 == 2 && store.mark_idle().is_err() {
            return vec![content];
        }
        if store.prepare_ahead().is_err() {
            return vec![content];
        }
        step += 1;
    }
    vec![content]
}

/// Opens what a crash left, again after crashes in the middle of opening, and checks what is found.
fn check(disk: FaultyDisk, possible: &[Content], dice: &mut Dice) {
    let mut disk = disk;
    for _ in 0..dice.below(3) {
        disk.die_after(dice.below(8));
        let survived = open(&disk).is_ok();
        disk = if dice.below(3) == 0 { disk.after_kill() } else { disk.after_power_cut(dice) };
        if survived {
            break;
        }
    }
    let (recovered, store) = open(&disk).unwrap();
    let found = possible.iter().find(|content| content.is(&recovered));
    let found = found.unwrap_or_else(|| panic!("found {recovered:?}")).clone();
    found.assert_readable(&store);
    // What was returned once must be there for good, whatever happens next.
    drop(store);
    let (again, mut store) = open(&disk.after_power_cut(dice)).unwrap();
    assert!(found.is(&again), "what was recovered is durable");
    store.write(&found.append(&[77, 700])).unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_fails() {
    let whole = FaultyDisk::default();
    assert_eq!(run(&whole).len(), 1, "without faults the script runs to its end");
    let calls = whole.calls();
    assert!(calls > 150, "{calls} changes");
    for call in 0..calls {
        for seed in 0..2 {
            let disk = FaultyDisk::default();
            disk.die_after(call);
            let possible = run(&disk);
            let mut dice = Dice(call * 31 + seed);
            check(disk.after_power_cut(&mut dice), &possible, &mut dice);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_process_dies() {
    let whole = FaultyDisk::default();
    run(&whole);
    for call in 0..whole.calls() {
        for seed in 0..12 {
            let disk = FaultyDisk::default();
            disk.die_after(call);
            let possible = run(&disk);
            check(disk.after_kill(), &possible, &mut Dice(call * 31 + seed));
        }
    }
}

/// Lets a process that dies after `calls` changes append `batches`; what may be found then.
fn append_all(
    disk: &FaultyDisk,
    calls: u64,
    possible: &[Content],
    batches: &[&[usize]],
) -> Vec<Content> {
    disk.die_after(calls);
    let Ok((recovered, mut store)) = open(disk) else { return possible.to_vec() };
    let mut content = possible.iter().find(|content| content.is(&recovered)).unwrap().clone();
    for sizes in batches {
        let batch = content.append(sizes);
        if write(&mut store, &batch).is_err() {
            return content.after_crash_in(&batch);
        }
        content.apply(&batch);
    }
    vec![content]
}

/// Lets a process die at each of its changes in turn; `live` says on what disk it did after so many.
fn at_every_change(mut live: impl FnMut(u64) -> FaultyDisk) {
    for calls in 0.. {
        if live(calls).calls() < calls {
            return;
        }
    }
}

/// A process appends what the next segment is too small for, dies at any change, and so does the
/// power.
fn append_too_much(killed: &FaultyDisk, before: &[Content], when: &[u64]) {
    at_every_change(|calls| {
        let disk = killed.after_kill();
        let possible = append_all(&disk, calls, before, &[&[20_000]]);
        for seed in 0..16 {
            let (recovered, _) = open(&disk.after_power_cut(&mut Dice(seed))).unwrap();
            let is_possible = possible.iter().any(|content| content.is(&recovered));
            assert!(is_possible, "{when:?}, {calls}, seed {seed}: {:?}", recovered.set_aside);
        }
        disk
    });
}

/// A seal that names the next segment comes back from a power cut; meanwhile that segment was too
/// small for the next batch and was given another use.
#[test]
fn a_segment_that_a_seal_names_is_not_given_another_use() {
    at_every_change(|calls| {
        let killed = FaultyDisk::default();
        let before = append_all(&killed, calls, &[Content::new()], &[&[6000], &[6000]]);
        append_too_much(&killed, &before, &[calls]);
        killed
    });
}

/// The same, when a process was killed while it undid the seal: what took the seal's place is seen by
/// the next one, and is not on the disk yet.
#[test]
fn nor_after_a_process_that_was_killed_while_it_undid_the_seal() {
    at_every_change(|calls| {
        let killed = FaultyDisk::default();
        let before = append_all(&killed, calls, &[Content::new()], &[&[6000], &[6000]]);
        at_every_change(|open_calls| {
            let undone = killed.after_kill();
            undone.die_after(open_calls);
            drop(open(&undone));
            append_too_much(&undone, &before, &[calls, open_calls]);
            undone
        });
        killed
    });
}

#[test]
fn a_write_that_was_acknowledged_after_a_failed_sync_and_a_restart_survives_a_power_cut() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    store.write(&content.promise(0)).unwrap();
    content.apply(&content.promise(0));
    let batch = content.append(&[100]);
    disk.fail(Call::Sync, std::io::ErrorKind::Other);
    assert!(matches!(write(&mut store, &batch), Err(StorageError::Io { .. })));
    // The system still shows the bytes and thinks that they are on disk; they are not.
    let restarted = disk.after_kill();
    let (recovered, _) = open(&restarted).unwrap();
    content.apply(&batch);
    assert!(content.is(&recovered));
    let (recovered, _) = open(&restarted.after_power_cut(&mut Dice(0))).unwrap();
    assert!(content.is(&recovered));
}

#[test]
fn after_a_failed_sync_every_call_says_so() {
    let disk = FaultyDisk::default();
    let content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    disk.fail(Call::Sync, std::io::ErrorKind::Other);
    let failed = store.write(&content.append(&[1]));
    assert!(matches!(failed, Err(StorageError::Io { action: "sync", .. })), "{failed:?}");
    assert!(matches!(store.write(&content.append(&[1])), Err(StorageError::Poisoned)));
    assert!(matches!(store.mark_idle(), Err(StorageError::Poisoned)));
}

#[test]
fn after_a_failed_write_every_call_says_so() {
    let disk = FaultyDisk::default();
    let content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    disk.fail(Call::Write, std::io::ErrorKind::Other);
    let failed = store.write(&content.promise(0));
    assert!(matches!(failed, Err(StorageError::Io { action: "write", .. })), "{failed:?}");
    assert!(matches!(store.write(&content.append(&[1])), Err(StorageError::Poisoned)));
}

/// S53: the node stops and says so, and nothing acknowledged is missing.
#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    disk.fail(Call::Create, std::io::ErrorKind::StorageFull);
    let error = loop {
        let batch = content.append(&[2000]);
        match write(&mut store, &batch) {
            Ok(()) => content.apply(&batch),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Full { .. }), "{error:?}");
    assert!(matches!(store.write(&content.append(&[1])), Err(StorageError::Poisoned)));
    let (recovered, _) = open(&disk.after_power_cut(&mut Dice(3))).unwrap();
    assert!(content.is(&recovered));
}

/// S47: a torn tail is dropped, and the log stays evidence.
#[test]
fn a_torn_tail_is_cut_and_reported() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    let first = content.append(&[100]);
    store.write(&first).unwrap();
    content.apply(&first);
    let before = disk.bytes("wal-0000000000000001");
    store.write(&content.append(&[3000])).unwrap();
    let mut torn = disk.bytes("wal-0000000000000001");
    let tail = 4096 + 512 + 1024;
    torn[tail..].copy_from_slice(&before[tail..]);
    let disk = disk.settled();
    disk.set_bytes("wal-0000000000000001", torn);
    let (recovered, _) = open(&disk).unwrap();
    assert!(content.is(&recovered));
    assert!(recovered.torn_bytes > 3000);
    let (recovered, _) = open(&disk.settled()).unwrap();
    assert_eq!((content.is(&recovered), recovered.torn_bytes), (true, 0));
}

/// The copy that was written last may be in the system's memory only when a process dies.
#[test]
fn one_superblock_copy_is_whole_after_a_kill_and_a_power_cut() {
    for seed in 0..200 {
        let disk = FaultyDisk::default();
        let mut content = Content::new();
        let (_, mut store) = open(&disk).unwrap();
        let promise = content.promise(0);
        store.write(&promise).unwrap();
        content.apply(&promise);
        disk.die_after(3);
        let promise = content.promise(0);
        store.write(&promise).unwrap_err();
        content.apply(&promise);
        let disk = disk.after_kill();
        let (recovered, mut store) = open(&disk).unwrap();
        assert!(content.is(&recovered));
        disk.die_after(0);
        let promise = content.promise(0);
        store.write(&promise).unwrap_err();
        let (recovered, _) = open(&disk.after_power_cut(&mut Dice(seed))).unwrap();
        assert!(content.after_crash_in(&promise).iter().any(|content| content.is(&recovered)));
    }
}

/// Bytes of an earlier, torn batch at the same place never complete a later one.
#[test]
fn two_torn_batches_never_make_a_whole_one() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    let earlier = content.append(&[300, 600]);
    store.write(&earlier).unwrap();
    let stale = disk.bytes("wal-0000000000000001");
    let disk = FaultyDisk::default();
    let (_, mut store) = open(&disk).unwrap();
    // The same first entry, and another second one of the same length.
    content.log = earlier.entries().take(1).cloned().collect();
    content.superblock.view.0 += 1;
    let mut later = content.log.clone();
    later.extend(content.entries(1, &[600]));
    let later = WriteBatch::of(later);
    store.write(&later).unwrap();
    let mut mixed = disk.bytes("wal-0000000000000001");
    mixed[4096 + 512..].copy_from_slice(&stale[4096 + 512..]);
    let disk = disk.settled();
    disk.set_bytes("wal-0000000000000001", mixed);
    let (recovered, _) = open(&disk).unwrap();
    assert_eq!(recovered.headers, []);
    assert!(recovered.torn_bytes > 0);
}

/// What takes the place of a torn batch is there for good before the next one is written: otherwise
/// sectors of this one could complete the torn one.
#[test]
fn what_takes_the_place_of_a_torn_batch_is_synced() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let file = "wal-0000000000000001";
    let (_, mut store) = open(&disk).unwrap();
    let first = content.append(&[300]);
    store.write(&first).unwrap();
    content.apply(&first);
    let whole = disk.bytes(file);
    store.write(&content.append(&[600])).unwrap();
    let mut torn = disk.bytes(file);
    let last = (0..torn.len()).rev().find(|at| torn[*at] != whole[*at]).unwrap();
    torn[last] ^= 1;
    let disk = disk.settled();
    disk.set_bytes(file, torn);
    disk.take_log();
    let (recovered, _) = open(&disk).unwrap();
    assert_eq!((recovered.headers.len(), recovered.torn_bytes > 0), (1, true));
    let calls = disk.take_log();
    let of_log: Vec<_> = calls.iter().filter(|(_, name)| name == file).collect();
    assert!(matches!(of_log.last(), Some((Call::Sync, _))), "{calls:?}");
}

/// A checkpoint that came from others may be of another history than the log below and at its op.
#[test]
fn a_log_begins_anew_at_a_checkpoint_that_contradicts_it() {
    let disk = FaultyDisk::default();
    let (_, mut store) = open(&disk).unwrap();
    let (ours, mut theirs) = (Content::new(), Content::new());
    write(&mut store, &ours.append(&[100, 100, 100])).unwrap();
    theirs.superblock.view.0 += 1;
    theirs.apply(&theirs.append(&[100, 100, 100]));
    for batch in [theirs.promise(3), theirs.cut(3, &[])] {
        write(&mut store, &batch).unwrap();
        theirs.apply(&batch);
    }
    let next = theirs.append(&[100]);
    write(&mut store, &next).unwrap();
    theirs.apply(&next);
    let (recovered, _) = open(&disk.settled()).unwrap();
    assert!(theirs.is(&recovered));
    assert_eq!((recovered.headers.len(), recovered.set_aside), (1, None));
}

#[test]
fn one_batch_costs_one_write_and_one_sync() {
    let disk = FaultyDisk::default();
    let content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    disk.take_log();
    store.write(&content.append(&[256, 256, 5000, 9])).unwrap();
    let file = "wal-0000000000000001".to_owned();
    assert_eq!(disk.take_log(), [(Call::Write, file.clone()), (Call::Sync, file)]);
}

#[test]
fn a_superblock_alone_leaves_the_log_alone() {
    let disk = FaultyDisk::default();
    let content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    disk.take_log();
    store.write(&content.promise(0)).unwrap();
    let (a, b) = ("superblock-a".to_owned(), "superblock-b".to_owned());
    let expected =
        [(Call::Write, a.clone()), (Call::Sync, a), (Call::Write, b.clone()), (Call::Sync, b)];
    assert_eq!(disk.take_log(), expected);
}

#[test]
fn an_idle_marker_is_one_write_without_a_sync_and_only_once() {
    let disk = FaultyDisk::default();
    let content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    store.write(&content.append(&[1])).unwrap();
    disk.take_log();
    store.mark_idle().unwrap();
    store.mark_idle().unwrap();
    assert_eq!(disk.take_log(), [(Call::Write, "wal-0000000000000001".to_owned())]);
}

#[test]
fn a_sector_that_was_synced_is_never_written_again() {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    for _ in 0..5 {
        let batch = content.append(&[700]);
        let before = disk.bytes("wal-0000000000000001");
        let used = before.iter().rposition(|byte| *byte != 0).unwrap() / 512 * 512;
        write(&mut store, &batch).unwrap();
        content.apply(&batch);
        let after = disk.bytes("wal-0000000000000001");
        assert_eq!(before[..used + 1], after[..used + 1]);
    }
}
