//! Checkpoints: complete or not there, damage told, and a log that starts after one.

use std::collections::BTreeMap;

use vr_core::{
    Checkpoints, MemoryCheckpoints, OpNumber, StorageError, WriteBatch,
    model::{
        checkpoint::{CHUNK_BYTES, Draft, Manifest},
        durable::{CheckpointId, Superblock, Trust},
        types::Checksum,
    },
};
use vr_storage::FileCheckpoints;

use crate::{
    faulty_disk::{Call, Dice, FaultyDisk},
    history::{Content, identity, open, write},
};

/// Chunks of which the last is short, and the checkpoint that they make.
struct Sample {
    chunks: Vec<Vec<u8>>,
    manifest: Manifest,
    id: CheckpointId,
}

impl Sample {
    fn new(op_number: u64, bytes: &[u8]) -> Self {
        let size = usize::try_from(CHUNK_BYTES).unwrap();
        let mut chunks: Vec<Vec<u8>> = bytes.iter().map(|byte| vec![*byte; size]).collect();
        chunks.last_mut().unwrap().truncate(700);
        let manifest = Manifest {
            bytes: chunks.iter().map(|chunk| u64::try_from(chunk.len()).unwrap()).sum(),
            chunks: chunks.iter().map(|chunk| Checksum::of(chunk)).collect(),
        };
        let (op_number, checksum) = (OpNumber(op_number), Checksum(u128::from(op_number)));
        let digest = manifest.digest();
        Self { chunks, manifest, id: CheckpointId { op_number, checksum, digest } }
    }

    fn put(&self, to: &dyn Checkpoints, draft: &Draft) -> Result<(), StorageError> {
        (0..).zip(&self.chunks).try_for_each(|(index, chunk)| to.put(draft, index, chunk))
    }

    fn take(&self, to: &dyn Checkpoints) -> Result<(), StorageError> {
        let draft = Draft::Own(self.id.op_number);
        self.put(to, &draft)?;
        to.complete(&draft, &self.id, &self.manifest)
    }

    /// Whether it is there; it is never there in part.
    fn is_in(&self, from: &dyn Checkpoints) -> bool {
        match from.manifest(&self.id) {
            Ok(manifest) => assert_eq!(manifest, self.manifest),
            Err(error) => {
                assert!(matches!(error, StorageError::Missing { .. }), "{error}");
                let chunk = from.chunk(&self.id, 0);
                assert!(matches!(chunk, Err(StorageError::Missing { .. })), "{chunk:?}");
                return false;
            }
        }
        for (index, chunk) in (0..).zip(&self.chunks) {
            assert_eq!(from.chunk(&self.id, index).unwrap(), chunk);
        }
        let beyond = from.chunk(&self.id, self.manifest.count());
        assert!(matches!(beyond, Err(StorageError::Missing { .. })));
        true
    }
}

fn on(disk: &FaultyDisk) -> FileCheckpoints<FaultyDisk> {
    FileCheckpoints::new(disk.clone(), false)
}

fn on_both(check: impl Fn(&dyn Checkpoints)) {
    check(&MemoryCheckpoints::new());
    check(&on(&FaultyDisk::default()));
}

#[test]
fn what_was_completed_is_read_back_and_leaves_the_others_alone() {
    on_both(|checkpoints| {
        let (one, other, later) =
            (Sample::new(3, &[1, 2]), Sample::new(3, &[1, 9]), Sample::new(4, &[5]));
        assert!(!one.is_in(checkpoints));
        one.take(checkpoints).unwrap();
        later.take(checkpoints).unwrap();
        assert!(one.is_in(checkpoints) && later.is_in(checkpoints));
        other.take(checkpoints).unwrap();
        assert!(other.is_in(checkpoints) && later.is_in(checkpoints) && one.is_in(checkpoints));
        other.take(checkpoints).unwrap();
        assert!(other.is_in(checkpoints));
    });
}

#[test]
fn a_draft_that_lacks_a_chunk_does_not_become_complete() {
    on_both(|checkpoints| {
        let sample = Sample::new(3, &[1, 2, 3]);
        let draft = Draft::Of(sample.id);
        checkpoints.put(&draft, 0, &sample.chunks[0]).unwrap();
        checkpoints.put(&draft, 2, &sample.chunks[2]).unwrap();
        assert_eq!(checkpoints.missing(&draft, &sample.manifest).unwrap(), [1]);
        let completed = checkpoints.complete(&draft, &sample.id, &sample.manifest);
        assert!(matches!(completed, Err(StorageError::Corrupt { .. })), "{completed:?}");
        assert!(!sample.is_in(checkpoints));
    });
}

#[test]
fn chunks_with_the_same_content_are_not_fetched_again() {
    on_both(|checkpoints| {
        let (old, arriving) = (Sample::new(3, &[1, 2, 3]), Sample::new(6, &[7, 4, 3]));
        old.take(checkpoints).unwrap();
        checkpoints.put(&Draft::Of(arriving.id), 0, &arriving.chunks[0]).unwrap();
        let new = Sample::new(9, &[2, 7, 1, 8, 3]);
        let draft = Draft::Of(new.id);
        assert_eq!(checkpoints.missing(&draft, &new.manifest).unwrap(), [3]);
        checkpoints.put(&draft, 3, &new.chunks[3]).unwrap();
        checkpoints.complete(&draft, &new.id, &new.manifest).unwrap();
        assert!(new.is_in(checkpoints) && old.is_in(checkpoints));
    });
}

#[test]
fn only_what_is_wanted_is_kept() {
    on_both(|checkpoints| {
        let samples = [3, 6, 9].map(|op| Sample::new(op, &[u8::try_from(op).unwrap(), 1]));
        samples.iter().for_each(|sample| sample.take(checkpoints).unwrap());
        let arriving = [12, 15].map(|op| Sample::new(op, &[u8::try_from(op).unwrap(), 1]));
        for sample in &arriving {
            checkpoints.put(&Draft::Of(sample.id), 0, &sample.chunks[0]).unwrap();
        }
        let own = Sample::new(18, &[18, 1]);
        checkpoints.put(&Draft::Own(own.id.op_number), 0, &own.chunks[0]).unwrap();
        checkpoints.keep(&[samples[1].id, arriving[1].id], OpNumber(u64::MAX)).unwrap();
        assert_eq!(
            samples.each_ref().map(|sample| sample.is_in(checkpoints)),
            [false, true, false]
        );
        let lacks = arriving
            .each_ref()
            .map(|sample| checkpoints.missing(&Draft::Of(sample.id), &sample.manifest).unwrap());
        assert_eq!(lacks, [vec![0], vec![]]);
        let draft = Draft::Own(own.id.op_number);
        checkpoints.put(&draft, 1, &own.chunks[1]).unwrap();
        checkpoints.complete(&draft, &own.id, &own.manifest).unwrap();
        assert!(own.is_in(checkpoints));
    });
}

#[test]
fn a_transfer_goes_on_where_the_last_process_stopped() {
    let disk = FaultyDisk::default();
    let sample = Sample::new(5, &[1, 2, 3]);
    let draft = Draft::Of(sample.id);
    on(&disk).put(&draft, 1, &sample.chunks[1]).unwrap();
    let disk = disk.after_kill();
    drop(open(&disk).unwrap());
    let checkpoints = on(&disk);
    assert_eq!(checkpoints.missing(&draft, &sample.manifest).unwrap(), [0, 2]);
    checkpoints.put(&draft, 0, &sample.chunks[0]).unwrap();
    checkpoints.put(&draft, 2, &sample.chunks[2]).unwrap();
    checkpoints.complete(&draft, &sample.id, &sample.manifest).unwrap();
    for seed in 0..10 {
        assert!(sample.is_in(&on(&disk.after_power_cut(&mut Dice(seed)))), "seed {seed}");
    }
}

/// Else the log's writes would wait behind gigabytes.
#[test]
fn a_large_checkpoint_reaches_the_disk_in_parts_while_it_is_written() {
    let disk = FaultyDisk::default();
    let sample = Sample::new(5, &[7; 50]);
    let (mut written, mut longest) = (0, 0);
    sample.take(&on(&disk)).unwrap();
    for (call, name) in disk.take_log() {
        match call {
            Call::Write if name.starts_with("draft-") => written += 1,
            Call::Sync => written = 0,
            Call::Create | Call::Rename | Call::Remove | Call::Write | Call::SyncDirectory => {}
        }
        longest = longest.max(written);
    }
    assert_eq!(longest, 16, "4 MiB");
}

/// A checkpoint is taken while another is fetched: neither makes the other reach the disk, nor is one
/// forgotten for it.
#[test]
fn what_waits_for_the_disk_is_counted_for_each_checkpoint() {
    let disk = FaultyDisk::default();
    let checkpoints = on(&disk);
    let (taken, fetched) = (Sample::new(3, &[1; 40]), Sample::new(5, &[2; 40]));
    let drafts = [Draft::Own(taken.id.op_number), Draft::Of(fetched.id)];
    let mut waiting = BTreeMap::<String, usize>::new();
    let mut longest = 0;
    let mut note = || {
        for (call, name) in disk.take_log() {
            match call {
                Call::Write => *waiting.entry(name).or_default() += 1,
                Call::Sync => drop(waiting.remove(&name)),
                Call::Create | Call::Rename | Call::Remove | Call::SyncDirectory => {}
            }
            longest = longest.max(waiting.values().copied().max().unwrap_or(0));
        }
    };
    // Two chunks of one, then one of the other.
    for index in 0..20 {
        for at in [2 * index, 2 * index + 1] {
            let chunk = &taken.chunks[usize::try_from(at).unwrap()];
            checkpoints.put(&drafts[0], at, chunk).unwrap();
            note();
        }
        let chunk = &fetched.chunks[usize::try_from(index).unwrap()];
        checkpoints.put(&drafts[1], index, chunk).unwrap();
        note();
    }
    assert_eq!(longest, 16, "4 MiB of each");
}

/// The system still shows what a failed sync did not write, and counts it as written.
#[test]
fn what_a_failed_sync_left_is_written_again_before_it_counts() {
    let disk = FaultyDisk::default();
    let sample = Sample::new(5, &[1, 2]);
    let draft = Draft::Of(sample.id);
    let checkpoints = on(&disk);
    sample.put(&checkpoints, &draft).unwrap();
    disk.fail(Call::Sync, std::io::ErrorKind::Other);
    let failed = checkpoints.complete(&draft, &sample.id, &sample.manifest);
    assert!(matches!(failed, Err(StorageError::Io { action: "sync", .. })), "{failed:?}");
    let again = checkpoints.complete(&draft, &sample.id, &sample.manifest);
    assert!(matches!(again, Err(StorageError::Poisoned)), "{again:?}");
    let disk = disk.after_kill();
    let checkpoints = on(&disk);
    assert_eq!(checkpoints.missing(&draft, &sample.manifest).unwrap(), []);
    checkpoints.complete(&draft, &sample.id, &sample.manifest).unwrap();
    assert!(sample.is_in(&on(&disk.after_power_cut(&mut Dice(0)))));
}

/// S54: a crash at every change leaves the old ones, and the new one completely or not at all.
#[test]
fn a_crash_at_every_change_leaves_a_checkpoint_complete_or_not_there() {
    let (old, new) = (Sample::new(3, &[1, 2]), Sample::new(7, &[2, 8, 1]));
    let base = FaultyDisk::default();
    drop(open(&base).unwrap());
    old.take(&on(&base)).unwrap();
    let run = |disk: &FaultyDisk| {
        new.take(&on(disk)).and_then(|()| on(disk).keep(&[new.id], OpNumber(u64::MAX)))
    };
    let (mut with, mut without) = (0, 0);
    for calls in 0.. {
        let disk = base.settled();
        disk.die_after(calls);
        let completed = run(&disk).is_ok();
        for seed in 0..8 {
            let after = match seed {
                0 => disk.after_kill(),
                _ => disk.after_power_cut(&mut Dice(calls * 31 + seed)),
            };
            drop(open(&after).unwrap());
            let (is_new, is_old) = (new.is_in(&on(&after)), old.is_in(&on(&after)));
            assert!(is_new || is_old && !completed, "after {calls} changes, seed {seed}");
            with += u32::from(is_new);
            without += u32::from(!is_new);
            let names = after.names();
            assert!(!names.iter().any(|name| name.starts_with("draft-")), "{names:?}");
        }
        if completed {
            break;
        }
    }
    assert!(with > 8 && without > 8, "{with} and {without}");
}

/// A store whose log starts after a checkpoint.
fn with_checkpoint() -> (FaultyDisk, Content) {
    let disk = FaultyDisk::default();
    let mut content = Content::new();
    let (_, mut store) = open(&disk).unwrap();
    let batch = content.append(&[10, 20, 30, 40]);
    write(&mut store, &batch).unwrap();
    content.apply(&batch);
    let promise = content.promise(3);
    write(&mut store, &promise).unwrap();
    content.apply(&promise);
    (disk.settled(), content)
}

/// What the superblock becomes when the checkpoint that it names is gone.
fn lost(content: &Content) -> Superblock {
    Superblock {
        trust: Trust::Lost,
        checkpoint: Superblock::blank(&identity()).checkpoint,
        ..content.superblock.clone()
    }
}

#[test]
fn damage_of_any_byte_of_the_checkpoint_is_noticed() {
    let (disk, content) = with_checkpoint();
    assert!(content.is(&open(&disk.settled()).unwrap().0));
    let mut damages = 0;
    for name in disk.names() {
        if !name.starts_with("chunks-") && !name.starts_with("checkpoint-") {
            continue;
        }
        let bytes = disk.bytes(&name);
        for at in 0..=bytes.len() {
            let damaged = disk.settled();
            let mut other = bytes.clone();
            match other.get_mut(at) {
                Some(byte) => *byte ^= 4,
                None => other.truncate(at - 1),
            }
            damaged.set_bytes(&name, other);
            let (recovered, store) = open(&damaged).unwrap();
            assert_eq!(recovered.superblock, lost(&content), "byte {at} of {name}");
            assert!(recovered.set_aside.is_some() && recovered.headers.is_empty());
            assert!(store.op_number() == OpNumber::ZERO);
            damages += 1;
        }
    }
    assert!(damages > 90, "{damages}");
}

/// The loss is durable before anything of the log is dropped, and found again after any crash.
#[test]
fn a_crash_while_a_lost_checkpoint_is_noted_forgets_nothing() {
    let (disk, content) = with_checkpoint();
    let name = disk.names().into_iter().find(|name| name.starts_with("chunks-")).unwrap();
    disk.set_bytes(&name, vec![1, 2, 3]);
    for calls in 0.. {
        let dying = disk.settled();
        dying.die_after(calls);
        let opened = open(&dying).is_ok();
        for seed in 0..4 {
            let after = dying.after_power_cut(&mut Dice(calls * 7 + seed));
            let (recovered, _) = open(&after).unwrap();
            assert_eq!(recovered.superblock, lost(&content), "after {calls} changes");
            assert!(recovered.headers.is_empty());
        }
        if opened {
            break;
        }
    }
}

#[test]
fn with_a_lost_log_a_bad_checkpoint_is_forgotten_too() {
    let (disk, mut content) = with_checkpoint();
    let (_, mut store) = open(&disk).unwrap();
    content.superblock.trust = Trust::Lost;
    let batch =
        WriteBatch { superblock: Some(content.superblock.clone()), ..WriteBatch::default() };
    store.write(&batch).unwrap();
    let disk = disk.settled();
    let whole = open(&disk.settled()).unwrap().0.superblock;
    assert_eq!(whole, content.superblock);
    let name = disk.names().into_iter().find(|name| name.starts_with("checkpoint-")).unwrap();
    disk.set_bytes(&name, Vec::new());
    assert_eq!(open(&disk).unwrap().0.superblock, lost(&content));
}

/// Batches between which the checkpoint moves above the log, and back to the beginning.
fn moves() -> Vec<WriteBatch> {
    let mut content = Content::new();
    let whole = content.append(&[300; 24]);
    content.apply(&whole);
    let entries: Vec<_> = whole.entries().cloned().collect();
    let log = |cut: Option<u64>, ops: std::ops::Range<usize>| WriteBatch {
        cut: cut.map(OpNumber),
        ..WriteBatch::of(entries[ops].to_vec())
    };
    let mut named = |checkpoint| {
        let batch = content.promise(checkpoint);
        content.apply(&batch);
        batch
    };
    let blank = Superblock { trust: Trust::Intact, ..Superblock::blank(&identity()) };
    vec![
        named(0),
        log(None, 0..6),
        // One at the log's end, and one above it that replaces what it may contradict.
        WriteBatch { cut: Some(OpNumber(4)), ..named(5) },
        log(Some(5), 5..6),
        named(12),
        log(None, 12..14),
        WriteBatch { release: Some(OpNumber(9)), ..WriteBatch::default() },
        log(Some(12), 12..15),
        named(20),
        WriteBatch { release: Some(OpNumber(20)), ..WriteBatch::default() },
        log(None, 20..22),
        WriteBatch { superblock: Some(blank), ..WriteBatch::default() },
        log(Some(0), 0..0),
        log(None, 0..3),
        named(0),
    ]
}

/// Superblock and ops that are there after `batches`; no ops when they do not matter.
fn after(batches: &[WriteBatch]) -> (Superblock, Option<Vec<u64>>) {
    let (mut superblock, mut ops) = (Superblock::blank(&identity()), Vec::new());
    let mut was_reset = false;
    for batch in batches {
        if let Some(cut) = batch.cut {
            ops.retain(|op| *op <= cut.0);
            was_reset = false;
        }
        ops.extend(batch.entries().map(|entry| entry.header.op_number.0));
        if let Some(new) = &batch.superblock {
            was_reset = new.checkpoint.op_number < superblock.checkpoint.op_number;
            superblock = new.clone();
            ops.retain(|op| *op > superblock.checkpoint.op_number.0);
        }
    }
    (superblock, (!was_reset).then_some(ops))
}

/// S54: wherever a process ends while the checkpoint moves, the log is the one before or after.
#[test]
fn a_crash_at_every_change_while_the_checkpoint_moves_leaves_the_old_or_the_new_state() {
    let batches = moves();
    for calls in 0.. {
        let disk = FaultyDisk::default();
        disk.die_after(calls);
        let opened = open(&disk);
        let mut done = 0;
        if let Ok((_, mut store)) = opened {
            let written = batches.iter().take_while(|batch| write(&mut store, batch).is_ok());
            done = written.count();
        }
        let mut possible = vec![after(&batches[..done])];
        if let Some(next) = batches.get(done) {
            let mut until = batches[..=done].to_vec();
            possible.push(after(&until));
            let log_only = WriteBatch { superblock: None, ..next.clone() };
            until[done] = log_only;
            possible.push(after(&until));
        }
        for seed in 0..4 {
            let mut dice = Dice(calls * 13 + seed);
            let mut survivor =
                if seed == 0 { disk.after_kill() } else { disk.after_power_cut(&mut dice) };
            for _ in 0..2 {
                let (recovered, _) = open(&survivor).unwrap();
                let headers = &recovered.headers;
                let ops: Vec<u64> = headers.iter().map(|header| header.op_number.0).collect();
                let is_possible = possible.iter().any(|(superblock, expected)| {
                    *superblock == recovered.superblock
                        && expected
                            .as_ref()
                            .is_none_or(|expected| *expected == ops && recovered.damaged.is_empty())
                });
                assert!(is_possible, "{calls} changes, {done} batches, seed {seed}: {recovered:?}");
                survivor = survivor.after_power_cut(&mut dice);
            }
        }
        if done == batches.len() {
            return;
        }
    }
}

#[test]
fn a_log_goes_on_after_each_move_of_its_checkpoint_also_when_it_was_opened_again() {
    let mut disk = FaultyDisk::default();
    let batches = moves();
    for (done, batch) in (1..).zip(&batches) {
        let (_, mut store) = open(&disk).unwrap();
        write(&mut store, batch).unwrap();
        drop(store);
        disk = disk.settled();
        let (recovered, store) = open(&disk.settled()).unwrap();
        let (superblock, expected) = after(&batches[..done]);
        let ops: Vec<u64> = recovered.headers.iter().map(|header| header.op_number.0).collect();
        assert_eq!(recovered.superblock, superblock, "{done} batches");
        if let Some(expected) = expected {
            assert_eq!(ops, expected, "{done} batches");
            let end = expected.last().copied().unwrap_or(superblock.checkpoint.op_number.0);
            assert_eq!(store.op_number().0, end, "{done} batches");
        }
    }
}
