//! Cutting and releasing: what was replaced never comes back, what is needed never goes.

use crate::{
    conformance::{
        report::{Outcome, ensure},
        storage::bench::Bench,
    },
    model::types::OpNumber,
    ports::storage::{StorageError, WriteBatch},
};

/// Five entries in three batches.
async fn five_entries(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[100, 600]).await?;
    bench.append(&[0, 1200]).await?;
    bench.append(&[40]).await
}

async fn cut_and_reopen(bench: &mut Bench<'_>, after: u64, sizes: &[usize]) -> Outcome {
    bench.write(bench.content.cut(after, sizes)).await?;
    bench.check_readable("").await?;
    bench.reopen().await
}

pub(crate) async fn a_cut_to_each_position_is_kept(bench: &mut Bench<'_>) -> Outcome {
    for after in 0..=5 {
        bench.begin_again();
        five_entries(bench).await?;
        cut_and_reopen(bench, after, &[30, 31]).await?;
    }
    Ok(())
}

pub(crate) async fn a_cut_without_entries_is_kept(bench: &mut Bench<'_>) -> Outcome {
    for after in 0..=5 {
        bench.begin_again();
        five_entries(bench).await?;
        cut_and_reopen(bench, after, &[]).await?;
        bench.append(&[50]).await?;
        bench.reopen().await?;
    }
    Ok(())
}

pub(crate) async fn a_cut_to_nothing_leaves_an_empty_log(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    cut_and_reopen(bench, 0, &[]).await?;
    bench.read_nothing(1, 5).await
}

pub(crate) async fn a_cut_of_an_empty_log_is_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    cut_and_reopen(bench, 0, &[8, 9]).await
}

pub(crate) async fn a_cut_with_more_entries_is_kept(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    cut_and_reopen(bench, 1, &[70; 12]).await
}

pub(crate) async fn cut_follows_cut(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    for after in [4, 2, 3, 0, 1] {
        bench.write(bench.content.cut(after, &[10, 300])).await?;
        bench.check_readable("").await?;
    }
    bench.reopen().await?;
    for after in [2, 1, 0] {
        cut_and_reopen(bench, after, &[55]).await?;
    }
    Ok(())
}

pub(crate) async fn what_was_cut_off_never_comes_back(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    bench.write(bench.content.cut(1, &[100])).await?;
    bench.read_nothing(3, 5).await?;
    bench.reopen().await?;
    bench.read_nothing(3, 5).await?;
    // New entries take the places of old ones, one at a time.
    for _ in 0..4 {
        bench.append(&[20]).await?;
        bench.reopen().await?;
    }
    Ok(())
}

pub(crate) async fn a_cut_with_a_promise_is_kept(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    let batch = bench.content.with_promise(0, bench.content.cut(2, &[10, 20, 30]));
    bench.write(batch).await?;
    bench.check_readable("").await?;
    bench.reopen().await
}

pub(crate) async fn a_cut_at_the_checkpoint_is_kept(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    let release = Some(OpNumber(3));
    bench.write(WriteBatch { release, ..bench.content.promise(3) }).await?;
    cut_and_reopen(bench, 3, &[15]).await?;
    cut_and_reopen(bench, 3, &[]).await?;
    bench.append(&[16]).await?;
    bench.reopen().await
}

/// The group never asks for that: what is released is executed everywhere it matters.
pub(crate) async fn a_cut_below_a_release_breaks_nothing(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    let release = Some(OpNumber(4));
    bench.write(WriteBatch { release, ..bench.content.promise(4) }).await?;
    let batch = bench.content.cut(2, &[15, 16, 17, 18]);
    let written = bench.try_write(&batch).await;
    if written.is_ok() {
        bench.content.apply(&batch);
    }
    bench.reopen().await
}

pub(crate) async fn headers_begin_above_the_checkpoint(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    for checkpoint in [1, 3, 5] {
        bench.write(bench.content.promise(checkpoint)).await?;
        bench.reopen().await?;
    }
    bench.append(&[5]).await?;
    bench.reopen().await
}

pub(crate) async fn a_release_keeps_what_is_above_it(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for _ in 0..30 {
        bench.append(&[900, 100]).await?;
    }
    bench.write(bench.content.promise(40)).await?;
    let release = WriteBatch { release: Some(OpNumber(40)), ..WriteBatch::default() };
    bench.write(release).await?;
    bench.check_readable("").await?;
    bench.reopen().await?;
    bench.append(&[77]).await?;
    bench.reopen().await
}

pub(crate) async fn a_release_goes_with_its_checkpoint(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for _ in 0..30 {
        bench.append(&[900]).await?;
        let op_number = bench.content.op_number();
        if op_number.is_multiple_of(6) {
            let release = Some(OpNumber(op_number - 2));
            bench.write(WriteBatch { release, ..bench.content.promise(op_number - 2) }).await?;
        }
    }
    bench.check_readable("").await?;
    bench.reopen().await
}

pub(crate) async fn a_release_beyond_the_checkpoint_keeps_the_log(
    bench: &mut Bench<'_>,
) -> Outcome {
    bench.open().await?;
    for _ in 0..20 {
        bench.append(&[2000]).await?;
    }
    bench.write(bench.content.promise(4)).await?;
    for release in [15, 20, u64::MAX] {
        let release = WriteBatch { release: Some(OpNumber(release)), ..WriteBatch::default() };
        bench.write(release).await?;
        bench.check_readable("").await?;
    }
    bench.reopen().await
}

pub(crate) async fn an_old_release_changes_nothing(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    bench.write(WriteBatch { release: Some(OpNumber(4)), ..bench.content.promise(4) }).await?;
    for release in [4, 2, 0] {
        let release = WriteBatch { release: Some(OpNumber(release)), ..WriteBatch::default() };
        bench.write(release).await?;
    }
    bench.check_readable("").await?;
    bench.reopen().await
}

pub(crate) async fn everything_can_be_released(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    bench.write(WriteBatch { release: Some(OpNumber(5)), ..bench.content.promise(5) }).await?;
    bench.reopen().await?;
    bench.append(&[5, 6]).await?;
    bench.reopen().await
}

pub(crate) async fn what_was_released_is_right_or_missing(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for _ in 0..20 {
        bench.append(&[1500]).await?;
    }
    bench.write(WriteBatch { release: Some(OpNumber(15)), ..bench.content.promise(15) }).await?;
    for op_number in 1..=15 {
        let read = bench.try_read(op_number, op_number, 0).await;
        let right = match &read {
            Ok(entries) => entries.iter().eq(bench.content.entry(op_number)),
            Err(error) => matches!(error, StorageError::Missing { .. }),
        };
        ensure(right, || {
            format!("Released op {op_number} should read as it was, or as missing: {read:?}")
        })?;
    }
    Ok(())
}

pub(crate) async fn everything_in_one_batch(bench: &mut Bench<'_>) -> Outcome {
    five_entries(bench).await?;
    let batch = bench.content.with_promise(2, bench.content.cut(3, &[10, 20]));
    bench.write(WriteBatch { release: Some(OpNumber(2)), ..batch }).await?;
    bench.check_readable("").await?;
    bench.reopen().await
}
