//! Random histories with random crashes: what was acknowledged is back, nothing is half applied.

use proptest::prelude::*;
use vr_core::{OpNumber, WriteBatch};

use crate::{
    damage::fate,
    faulty_disk::{Dice, FaultyDisk},
    history::{Content, open, write},
};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Cut { back: u64, sizes: Vec<usize> },
    Promise { checkpoint_back: Option<u64> },
    AppendAndPromise(Vec<usize>),
    Release,
    Idle,
    Prepare,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes =
        || prop::collection::vec(prop_oneof![8 => 0..3000_usize, 1 => 9000..20_000_usize], 0..5);
    prop_oneof![
        6 => sizes().prop_map(Step::Append),
        2 => (0..6_u64, sizes()).prop_map(|(back, sizes)| Step::Cut { back, sizes }),
        2 => prop::option::of(0..4_u64)
            .prop_map(|checkpoint_back| Step::Promise { checkpoint_back }),
        1 => sizes().prop_map(Step::AppendAndPromise),
        1 => Just(Step::Release),
        1 => Just(Step::Idle),
        1 => Just(Step::Prepare),
    ]
}

/// One process: what it does, after how many changes it dies, and of what.
#[derive(Clone, Debug)]
struct Life {
    steps: Vec<Step>,
    dies_after: u64,
    power: bool,
}

fn life() -> impl Strategy<Value = Life> {
    (prop::collection::vec(step(), 1..20), 0..80_u64, any::<bool>())
        .prop_map(|(steps, dies_after, power)| Life { steps, dies_after, power })
}

fn batch(step: &Step, content: &Content) -> WriteBatch {
    let checkpoint = content.superblock.checkpoint.op_number.0;
    let op_number = content.op_number();
    match step {
        Step::Append(sizes) => content.append(sizes),
        Step::Cut { back, sizes } => {
            content.cut(op_number.saturating_sub(*back).max(checkpoint), sizes)
        }
        Step::Promise { checkpoint_back } => {
            let back = checkpoint_back.map(|back| op_number.saturating_sub(back));
            content.promise(back.unwrap_or(0).max(checkpoint))
        }
        Step::AppendAndPromise(sizes) => WriteBatch {
            superblock: content.promise(checkpoint).superblock,
            ..content.append(sizes)
        },
        Step::Release => {
            WriteBatch { release: Some(OpNumber(checkpoint)), ..WriteBatch::default() }
        }
        Step::Idle | Step::Prepare => WriteBatch::default(),
    }
}

/// Runs one process over a disk that holds one of `possible`; what may be found after it died.
fn live(disk: &FaultyDisk, life: &Life, possible: Vec<Content>) -> Vec<Content> {
    disk.die_after(life.dies_after);
    let Ok((recovered, mut store)) = open(disk) else { return possible };
    let found = possible.iter().find(|content| content.is(&recovered));
    let mut content = found.unwrap_or_else(|| panic!("found {recovered:?}")).clone();
    content.assert_readable(&store);
    for step in &life.steps {
        let batch = batch(step, &content);
        let outcome = match step {
            Step::Idle => store.mark_idle(),
            Step::Prepare => store.prepare_ahead().map(drop),
            Step::Append(_)
            | Step::Cut { .. }
            | Step::Promise { .. }
            | Step::AppendAndPromise(_)
            | Step::Release => write(&mut store, &batch),
        };
        if outcome.is_err() {
            return content.after_crash_in(&batch);
        }
        content.apply(&batch);
    }
    content.assert_readable(&store);
    vec![content]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_storage_remembers_what_it_acknowledged(
        lives in prop::collection::vec(life(), 1..5),
        seed in any::<u64>(),
    ) {
        let mut dice = Dice(seed);
        let mut disk = FaultyDisk::default();
        let mut possible = vec![Content::new()];
        for life in &lives {
            possible = live(&disk, life, possible);
            disk = if life.power { disk.after_power_cut(&mut dice) } else { disk.after_kill() };
        }
        let (recovered, _) = open(&disk).unwrap();
        prop_assert!(possible.iter().any(|content| content.is(&recovered)), "{recovered:?}");
    }

    /// Whatever was written before, and whatever becomes of one file: what was acknowledged is
    /// there, or told to be damaged, or the log is told to be lost.
    #[test]
    fn no_damage_hides_what_was_acknowledged(
        lives in prop::collection::vec(life(), 1..4),
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        harm in 0..3_u8,
        seed in any::<u64>(),
    ) {
        let mut dice = Dice(seed);
        let mut disk = FaultyDisk::default();
        let mut possible = vec![Content::new()];
        for life in &lives {
            possible = live(&disk, life, possible);
            disk = if life.power { disk.after_power_cut(&mut dice) } else { disk.after_kill() };
        }
        let (recovered, mut store) = open(&disk).unwrap();
        let content = possible.iter().find(|content| content.is(&recovered)).unwrap().clone();
        store.mark_idle().unwrap();
        drop(store);
        let disk = disk.settled();
        let name = file.get(&disk.names()).clone();
        let mut bytes = disk.bytes(&name);
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        let at = at.index(used);
        match harm {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (seed % 8)),
            1 => bytes.iter_mut().skip(at / 512 * 512).take(512).for_each(|byte| *byte = 0),
            _ => bytes.truncate(at),
        }
        disk.set_bytes(&name, bytes);
        let content = match content.superblock.certificate {
            Some(_) => content,
            // Nobody was told anything yet: a log that is lost then is as good as none.
            None => return Ok(()),
        };
        fate(&disk, &content, None, &format!("{name} at {at}, {harm}"));
    }
}
