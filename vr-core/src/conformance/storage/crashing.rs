//! Crashes at every change: what is found is from before or after, and nothing acknowledged lacks.

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        storage::{
            bench::Bench,
            content::Content,
            harness::{Capability, Crash},
        },
    },
    model::types::OpNumber,
    ports::storage::{StorageError, WriteBatch},
};

/// More changes than any history here makes; a harness that never gets there does not count.
const CHANGES_MAX: u64 = 20_000;

/// A history: the batch that comes next, given what is there; `None` at its end.
type History = fn(usize, &Content) -> Option<WriteBatch>;

fn append(step: usize, content: &Content) -> Option<WriteBatch> {
    let sizes: &[usize] = match step {
        0 => &[100, 700, 0],
        1 => &[1500],
        _ => return None,
    };
    Some(content.append(sizes))
}

fn large(step: usize, content: &Content) -> Option<WriteBatch> {
    let sizes: &[usize] = match step {
        0 => &[10],
        1 => &[40_000, 3, 9000],
        _ => return None,
    };
    Some(content.append(sizes))
}

fn cut(step: usize, content: &Content) -> Option<WriteBatch> {
    match step {
        0 => Some(content.append(&[100, 700, 300])),
        1 => Some(content.cut(1, &[600, 20])),
        2 => Some(content.cut(2, &[])),
        _ => None,
    }
}

fn cut_to_nothing(step: usize, content: &Content) -> Option<WriteBatch> {
    match step {
        0 => Some(content.append(&[100, 700])),
        1 => Some(content.cut(0, &[])),
        2 => Some(content.append(&[50])),
        3 => Some(content.cut(0, &[60])),
        _ => None,
    }
}

fn promise(step: usize, content: &Content) -> Option<WriteBatch> {
    match step {
        0 => Some(content.append(&[100])),
        1 | 2 => Some(content.promise(0)),
        3 => Some(content.promise(1)),
        _ => None,
    }
}

fn append_with_promise(step: usize, content: &Content) -> Option<WriteBatch> {
    (step < 3).then(|| content.with_promise(0, content.append(&[800, 30])))
}

fn cut_with_promise(step: usize, content: &Content) -> Option<WriteBatch> {
    match step {
        0 => Some(content.append(&[100, 700, 300])),
        1 | 2 => Some(content.with_promise(0, content.cut(1, &[900, 20]))),
        _ => None,
    }
}

fn release(step: usize, content: &Content) -> Option<WriteBatch> {
    let op_number = content.op_number();
    match step {
        0..=9 => Some(content.append(&[3000])),
        10 | 15 => {
            let release = Some(OpNumber(op_number - 1));
            Some(WriteBatch { release, ..content.promise(op_number - 1) })
        }
        11..=14 | 16..=18 => Some(content.append(&[2500])),
        _ => None,
    }
}

fn everything(step: usize, content: &Content) -> Option<WriteBatch> {
    let op_number = content.op_number();
    match step {
        0 => Some(content.promise(0)),
        1 => Some(content.append(&[10, 0, 2000])),
        2 => Some(content.cut(2, &[100, 100])),
        3..=6 => Some(content.append(&[1500, 1500])),
        7 => {
            let both = content.with_promise(op_number - 2, content.cut(op_number - 1, &[5, 5]));
            Some(WriteBatch { release: Some(OpNumber(op_number - 2)), ..both })
        }
        8..=12 => Some(content.append(&[3000])),
        13 => Some(content.promise(op_number)),
        14 => Some(content.append(&[7])),
        _ => None,
    }
}

/// Runs `history` on a fresh storage until it ends or what is below dies; what may be found then,
/// and whether it died.
async fn run(bench: &mut Bench<'_>, history: History, dies_after: u64) -> (Vec<Content>, bool) {
    bench.begin_again();
    bench.harness.die_after(dies_after);
    if bench.try_open().await.is_err() {
        return (vec![bench.content.clone()], true);
    }
    let mut step = 0;
    while let Some(batch) = history(step, &bench.content) {
        if bench.try_write(&batch).await.is_err() {
            return (bench.content.after_crash_in(&batch), true);
        }
        bench.content.apply(&batch);
        if step % 5 == 1 && bench.try_mark_idle().await.is_err() {
            return (vec![bench.content.clone()], true);
        }
        step += 1;
    }
    (vec![bench.content.clone()], false)
}

/// The crash that ends the run which died after `changes` changes.
type Ending = fn(changes: u64, round: u64) -> Crash;

fn kill(_: u64, _: u64) -> Crash {
    Crash::Kill
}

fn power_cut(changes: u64, round: u64) -> Crash {
    Crash::PowerCut { seed: changes * 31 + round }
}

/// Lets what is below die after each number of changes, and checks what the next process finds.
async fn at_every_change(bench: &mut Bench<'_>, history: History, ending: Ending) -> Outcome {
    let rounds = if ending(0, 0) == ending(0, 1) { 1 } else { 3 };
    for changes in 0..CHANGES_MAX {
        for round in 0..rounds {
            let (possible, died) = run(bench, history, changes).await;
            bench.close();
            let crash = ending(changes, round);
            bench.harness.restart(crash);
            let when = format!(" after {crash:?} that followed change {changes}");
            bench.open_to_one_of(&possible, &when).await?;
            bench.append(&[77, 700]).await.map_err(|Failure(why)| {
                Failure(format!("Opened{when}, it cannot be written to: {why}"))
            })?;
            bench.reopen().await?;
            if !died {
                return enough(changes);
            }
        }
    }
    Err(Failure(format!("The history did not end within {CHANGES_MAX} changes.")))
}

/// A harness that counts nothing would let every case of this file pass.
fn enough(changes: u64) -> Outcome {
    ensure(changes > 2, || {
        format!(
            "The whole history took {changes} changes: Harness::die_after does not count what \
             the storage does, or the storage writes nothing."
        )
    })
}

/// What one process was told is there must be there for every later one.
async fn twice(bench: &mut Bench<'_>, history: History, power: bool) -> Outcome {
    for changes in 0..CHANGES_MAX {
        let (mut possible, died) = run(bench, history, changes).await;
        for again in [changes % 2, changes % 3, changes % 7, 3 + changes % 5] {
            bench.close();
            let first = if changes % 2 == 0 { Crash::Kill } else { power_cut(changes, again) };
            bench.harness.restart(if power { first } else { Crash::Kill });
            bench.harness.die_after(again);
            let when = format!(
                " after a crash that followed change {changes}, then one at change {again} of \
                 opening"
            );
            if let Ok(recovered) = bench.try_open().await {
                let found = possible.iter().find(|content| content.is(&recovered)).cloned();
                let found = found.ok_or_else(|| Failure(format!("Wrong content{when}.")))?;
                possible = vec![found];
            }
        }
        bench.close();
        bench.harness.restart(if power { power_cut(changes, 9) } else { Crash::Kill });
        let when = format!(
            " several times after a crash that followed change {changes}; what one opening found \
             must be there for the next, too"
        );
        bench.open_to_one_of(&possible, &when).await?;
        if !died {
            return enough(changes);
        }
    }
    Err(Failure(format!("The history did not end within {CHANGES_MAX} changes.")))
}

macro_rules! crash_cases {
    ($($history:ident: $kill:ident, $power:ident;)*) => {
        $(
            pub(crate) async fn $kill(bench: &mut Bench<'_>) -> Outcome {
                at_every_change(bench, $history, kill).await
            }

            pub(crate) async fn $power(bench: &mut Bench<'_>) -> Outcome {
                at_every_change(bench, $history, power_cut).await
            }
        )*
    };
}

crash_cases! {
    append: a_kill_in_an_append, a_power_cut_in_an_append;
    large: a_kill_in_a_large_append, a_power_cut_in_a_large_append;
    cut: a_kill_in_a_cut, a_power_cut_in_a_cut;
    cut_to_nothing: a_kill_in_a_cut_to_nothing, a_power_cut_in_a_cut_to_nothing;
    promise: a_kill_in_a_promise, a_power_cut_in_a_promise;
    append_with_promise: a_kill_in_an_append_with_a_promise, a_power_cut_in_an_append_with_a_promise;
    cut_with_promise: a_kill_in_a_cut_with_a_promise, a_power_cut_in_a_cut_with_a_promise;
    release: a_kill_in_a_release, a_power_cut_in_a_release;
    everything: a_kill_in_a_long_history, a_power_cut_in_a_long_history;
}

pub(crate) async fn a_kill_while_opening_after_a_kill(bench: &mut Bench<'_>) -> Outcome {
    twice(bench, cut_with_promise, false).await
}

pub(crate) async fn a_power_cut_while_opening_after_a_crash(bench: &mut Bench<'_>) -> Outcome {
    twice(bench, cut_with_promise, true).await
}

pub(crate) async fn what_was_acknowledged_survives_a_kill(bench: &mut Bench<'_>) -> Outcome {
    acknowledged(bench, kill).await
}

pub(crate) async fn what_was_acknowledged_survives_a_power_cut(bench: &mut Bench<'_>) -> Outcome {
    acknowledged(bench, power_cut).await
}

/// The process ends between two writes, after each one.
async fn acknowledged(bench: &mut Bench<'_>, ending: Ending) -> Outcome {
    bench.open().await?;
    for step in 0..40 {
        let Some(batch) = everything(step, &bench.content) else { break };
        bench.write(batch).await?;
        let changes = u64::try_from(step).unwrap_or(0);
        bench.reopen_after(ending(changes, 0)).await?;
    }
    Ok(())
}

/// Somebody may act on what was read, so it must not vanish.
pub(crate) async fn what_was_read_survives_a_power_cut(bench: &mut Bench<'_>) -> Outcome {
    for changes in 0..CHANGES_MAX {
        let (possible, died) = run(bench, append, changes).await;
        let next = bench.content.op_number() + 1;
        let read = bench.try_read(next, next, 0).await;
        bench.close();
        bench.harness.restart(power_cut(changes, 0));
        bench.open_to_one_of(&possible, " after a power cut").await?;
        if let (true, Ok(entries)) = (died, read) {
            let again = bench.try_read(next, next, 0).await;
            ensure(matches!(&again, Ok(again) if *again == entries), || {
                format!(
                    "Op {next} was returned by a read while its write had not succeeded, and after \
                     a power cut it is gone: {again:?}"
                )
            })?;
        }
        if !died {
            return enough(changes);
        }
    }
    Err(Failure(format!("The history did not end within {CHANGES_MAX} changes.")))
}

pub(crate) async fn a_torn_tail_is_dropped_once(bench: &mut Bench<'_>) -> Outcome {
    let needed = bench.harness.covers(Capability::PowerCut);
    ensure(needed, || "asked for without a loss of power".to_owned())?;
    for changes in 0..CHANGES_MAX {
        let (possible, died) = run(bench, large, changes).await;
        bench.close();
        bench.harness.restart(power_cut(changes, 1));
        bench.open_to_one_of(&possible, " after a power cut").await?;
        bench.close();
        let again = bench.try_open().await;
        ensure(matches!(&again, Ok(again) if again.torn_bytes == 0), || {
            format!(
                "Opened a second time after a power cut, it should have nothing left to cut off, \
                 and has {again:?}"
            )
        })?;
        if !died {
            return enough(changes);
        }
    }
    Err(Failure(format!("The history did not end within {CHANGES_MAX} changes.")))
}

pub(crate) async fn after_its_ground_died_every_call_fails(bench: &mut Bench<'_>) -> Outcome {
    for changes in 0..CHANGES_MAX {
        let (_, died) = run(bench, append, changes).await;
        if !died {
            return enough(changes);
        }
        if bench.opened().is_ok() {
            let written = bench.try_write(&bench.content.append(&[1])).await;
            ensure(matches!(written, Err(StorageError::Poisoned)), || {
                format!("A write after one that failed should say Poisoned: {written:?}")
            })?;
        }
    }
    Err(Failure(format!("The history did not end within {CHANGES_MAX} changes.")))
}
