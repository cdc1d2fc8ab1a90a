//! Many lives of one directory, each with another layout: crashes at every kind of change, also while
//! it is opened, short writes, errors that pass, segments that are used again.

use vr_core::{
    OpNumber, Recovered, WriteBatch,
    model::{durable::Superblock, entry::EntryHeader},
};
use vr_storage::{Disk, Store, StoreOptions};

use crate::{
    damage::fate,
    faulty_disk::{Dice, FaultyDisk},
    history::{Content, Opening, identity, write},
};

/// Histories in one run of the test.
const HISTORIES: u64 = 1000;

fn draw(dice: &mut Dice, bound: u64) -> usize {
    usize::try_from(dice.below(bound)).unwrap()
}

fn any_options(dice: &mut Dice) -> StoreOptions {
    let segment_bytes = [16 << 10, 16 << 10, 20 << 10, 32 << 10][draw(dice, 4)];
    let spares = [0, 0, 1, 4][draw(dice, 4)];
    StoreOptions::default().with_segment_bytes(segment_bytes).with_spare_segments(spares)
}

fn open_anyhow(disk: &FaultyDisk, dice: &mut Dice) -> Opening {
    Store::open(disk.clone(), &identity(), any_options(dice))
}

fn any_sizes(dice: &mut Dice) -> Vec<usize> {
    let size = |dice: &mut Dice| match dice.below(12) {
        0 => 9000 + draw(dice, 20_000),
        1..=4 => draw(dice, 40),
        _ => draw(dice, 3500),
    };
    (0..dice.below(5)).map(|_| size(dice)).collect()
}

/// The checkpoint of another history that the group has committed and this replica has not.
fn foreign_checkpoint(content: &Content, dice: &mut Dice) -> (WriteBatch, Content) {
    let checkpoint = content.superblock.checkpoint.op_number.0;
    let op_number = content.op_number();
    let fork = checkpoint + dice.below(op_number - checkpoint + 1);
    let mut theirs = content.clone();
    theirs.superblock.view.0 += 1;
    theirs.log.truncate(usize::try_from(fork).unwrap());
    let sizes = vec![10; 1 + draw(dice, 4)];
    let more = theirs.append(&sizes);
    theirs.apply(&more);
    let at = theirs.op_number();
    let mut batch = theirs.promise(at);
    theirs.apply(&batch);
    if at <= op_number {
        batch.cut = Some(OpNumber(at - 1));
    }
    (batch, theirs)
}

/// One step of a process; what may be found if it fails, and whether it did.
fn step(
    store: &mut Store<FaultyDisk>,
    content: &mut Content,
    dice: &mut Dice,
) -> Result<(), Vec<Content>> {
    let checkpoint = content.superblock.checkpoint.op_number.0;
    let op_number = content.op_number();
    let batch = match dice.below(20) {
        0..=9 => content.append(&any_sizes(dice)),
        10 | 11 => {
            let back = dice.below(6);
            content.cut(op_number.saturating_sub(back).max(checkpoint), &any_sizes(dice))
        }
        12 => content.promise(checkpoint),
        13 => content.promise(op_number.saturating_sub(dice.below(4)).max(checkpoint)),
        14 => WriteBatch {
            superblock: content.promise(checkpoint).superblock,
            ..content.append(&any_sizes(dice))
        },
        15 | 16 => {
            let mut batch =
                content.promise(op_number.saturating_sub(dice.below(3)).max(checkpoint));
            batch.release = Some(OpNumber(op_number));
            batch
        }
        17 => WriteBatch { release: Some(OpNumber(checkpoint)), ..WriteBatch::default() },
        18 => return store.mark_idle().map_err(|_| vec![content.clone()]),
        _ if dice.below(3) == 0 => {
            let (batch, theirs) = foreign_checkpoint(content, dice);
            if write(store, &batch).is_err() {
                let mut cut_only = content.clone();
                cut_only.apply_log(&batch);
                return Err(vec![content.clone(), cut_only, theirs]);
            }
            *content = theirs;
            return Ok(());
        }
        _ => return store.prepare_ahead().map(drop).map_err(|_| vec![content.clone()]),
    };
    if write(store, &batch).is_err() {
        return Err(content.after_crash_in(&batch));
    }
    content.apply(&batch);
    Ok(())
}

/// One process: opens, checks what it finds, and goes on until something fails or it has had enough.
fn live(disk: &FaultyDisk, possible: Vec<Content>, dice: &mut Dice, when: &str) -> Vec<Content> {
    let calls = if dice.below(2) == 0 { dice.below(24) } else { dice.below(140) };
    let inner = Dice(dice.next());
    match dice.below(4) {
        0 => disk.die_after(calls),
        1 => disk.fail_once_after(calls, inner),
        _ => disk.die_half_way_after(calls, inner),
    }
    let Ok((recovered, mut store)) = open_anyhow(disk, dice) else { return possible };
    let found = possible.iter().find(|content| content.is(&recovered));
    let mut content =
        found.unwrap_or_else(|| panic!("{when}: {}", told(&recovered, &possible))).clone();
    content.assert_readable(&store);
    for _ in 0..dice.below(30) {
        if let Err(possible) = step(&mut store, &mut content, dice) {
            return possible;
        }
        if dice.below(3) == 0 && store.prepare_ahead().is_err() {
            return vec![content];
        }
    }
    content.assert_readable(&store);
    vec![content]
}

/// What was found, and what would have been right.
fn told(recovered: &Recovered, possible: &[Content]) -> String {
    let facts = |superblock: &Superblock, headers: &[EntryHeader]| {
        let ops: Vec<_> =
            headers.iter().map(|header| (header.op_number.0, header.view.0)).collect();
        let (view, checkpoint) = (superblock.view.0, superblock.checkpoint.op_number.0);
        format!("view {view}, {:?}, checkpoint {checkpoint}, {ops:?}", superblock.trust)
    };
    let Recovered { superblock, headers, damaged, set_aside, .. } = recovered;
    let found = facts(superblock, headers);
    let right: Vec<_> =
        possible.iter().map(|content| facts(&content.superblock, &content.headers())).collect();
    format!("found {found}, {damaged:?}, {set_aside:?}; right is one of {right:#?}")
}

/// The directory at the end of all its lives, opened once more, and what it holds.
fn history(seed: u64) -> (FaultyDisk, Store<FaultyDisk>, Content, Dice) {
    let mut dice = Dice(seed.wrapping_mul(0x1234_5678_9abc_def1));
    let mut disk = FaultyDisk::default();
    let mut possible = vec![Content::new()];
    for life in 0..2 + dice.below(9) {
        possible = live(&disk, possible, &mut dice, &format!("seed {seed}, life {life}"));
        disk = if dice.below(2) == 0 { disk.after_kill() } else { disk.after_power_cut(&mut dice) };
    }
    let (recovered, store) = open_anyhow(&disk, &mut dice).unwrap();
    let found = possible.iter().find(|content| content.is(&recovered));
    let found = found.unwrap_or_else(|| panic!("seed {seed}: {}", told(&recovered, &possible)));
    found.assert_readable(&store);
    (disk, store, found.clone(), dice)
}

/// Damages one file of a directory that is not in use.
fn harm(disk: &FaultyDisk, dice: &mut Dice) -> String {
    let names = disk.names();
    let name = &names[draw(dice, u64::try_from(names.len()).unwrap())];
    let mut bytes = disk.bytes(name);
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = draw(dice, u64::try_from(used).unwrap());
    let harm = dice.below(5);
    match harm {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << dice.below(8)),
        1 => bytes.iter_mut().skip(at / 512 * 512).take(512).for_each(|byte| *byte = 0),
        2 => {
            let from = draw(dice, u64::try_from(used).unwrap()) / 512 * 512;
            let other = bytes[from..bytes.len().min(from + 512)].to_vec();
            bytes.iter_mut().skip(at / 512 * 512).zip(other).for_each(|(byte, new)| *byte = new);
        }
        _ => bytes.truncate(at),
    }
    if harm == 4 {
        disk.remove(name).unwrap();
        disk.sync_directory().unwrap();
        return format!("{name} is gone");
    }
    disk.set_bytes(name, bytes);
    format!("{name} at {at}, harm {harm}")
}

fn harmed_history(seed: u64) {
    let (disk, mut store, content, mut dice) = history(seed);
    store.mark_idle().unwrap();
    drop(store);
    let disk = disk.settled();
    let harm = harm(&disk, &mut dice);
    // Without a certificate nobody was told anything yet: a log that is lost then is as good as none.
    if content.superblock.certificate.is_some() {
        fate(&disk, &content, None, &format!("seed {seed}, {harm}"));
    }
}

/// What one life of a damaged directory came to.
enum Repaired {
    /// The log was lost, and that was told.
    Lost,
    /// It died before all was repaired.
    NotYet,
    /// Everything is as it was.
    Whole,
}

/// One process that repairs what it finds to be damaged, and may die meanwhile.
fn repair(disk: &FaultyDisk, content: &Content, dice: &mut Dice, when: &str) -> Repaired {
    let (calls, inner) = (dice.below(20), Dice(dice.next()));
    match dice.below(4) {
        0 => disk.die_after(calls),
        1 => disk.die_half_way_after(calls, inner),
        2 => disk.fail_once_after(calls, inner),
        _ => {}
    }
    let Ok((recovered, mut store)) = open_anyhow(disk, dice) else { return Repaired::NotYet };
    // Maybe an open that was cut short has noted that before.
    if content.is_lost_in(&Recovered { set_aside: Some(String::new()), ..recovered.clone() }) {
        return Repaired::Lost;
    }
    let repairs = content.damaged_in(&recovered);
    let mut repairs = repairs
        .unwrap_or_else(|| panic!("{when}: {}", told(&recovered, std::slice::from_ref(content))));
    let is_all = dice.below(3) > 0;
    if !is_all {
        repairs.truncate(draw(dice, 4));
    }
    let batch = WriteBatch { repairs, ..WriteBatch::default() };
    if store.write(&batch).is_err() || (dice.below(2) == 0 && store.mark_idle().is_err()) {
        return Repaired::NotYet;
    }
    if is_all {
        content.assert_readable(&store);
    }
    if is_all { Repaired::Whole } else { Repaired::NotYet }
}

/// A damaged directory is repaired, over several lives if need be.
fn repaired_history(seed: u64) {
    let (disk, mut store, content, mut dice) = history(seed);
    store.mark_idle().unwrap();
    drop(store);
    let mut disk = disk.settled();
    let harm = harm(&disk, &mut dice);
    if content.superblock.certificate.is_none() {
        return;
    }
    for life in 0..50 {
        let when = format!("seed {seed}, {harm}, life {life}");
        let repaired = repair(&disk, &content, &mut dice, &when);
        disk = if dice.below(2) == 0 { disk.after_kill() } else { disk.after_power_cut(&mut dice) };
        match repaired {
            Repaired::Lost => return,
            Repaired::NotYet => {}
            Repaired::Whole => {
                let (recovered, store) = open_anyhow(&disk, &mut dice).unwrap();
                let possible = std::slice::from_ref(&content);
                assert!(content.is(&recovered), "{when}: {}", told(&recovered, possible));
                return content.assert_readable(&store);
            }
        }
    }
}

/// Runs histories: a few, or from the first one on as many as the variable `LIVES` says (`FIRST+COUNT`).
fn run(history: impl Fn(u64)) {
    let drawn = std::env::var("LIVES").ok();
    let drawn = drawn.as_deref().and_then(|lives| lives.split_once('+'));
    let (first, count) =
        drawn.map_or((0, HISTORIES), |(at, count)| (at.parse().unwrap(), count.parse().unwrap()));
    (first..first + count).for_each(history);
}

#[test]
fn many_lives_with_many_layouts_lose_nothing() {
    run(|seed| drop(history(seed)));
}

#[test]
fn no_damage_after_many_lives_hides_what_was_acknowledged() {
    run(harmed_history);
}

#[test]
fn what_is_damaged_after_many_lives_is_repaired_over_many_more() {
    run(repaired_history);
}
