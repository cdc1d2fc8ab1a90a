//! What is below the storage fails: it is said, nothing acknowledged is lost, no second chance.

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        storage::{
            bench::Bench,
            content::Content,
            harness::{Crash, Trouble},
        },
    },
    ports::storage::{StorageError, WriteBatch},
};

/// How many writes are tried until a trouble shows.
const TRIES_MAX: usize = 4000;

/// Appends until the trouble shows; the error, and what may be found afterwards.
async fn until_it_fails(
    bench: &mut Bench<'_>,
    trouble: Trouble,
) -> Result<(StorageError, Vec<Content>), Failure> {
    bench.open().await?;
    bench.append(&[100]).await?;
    bench.harness.trouble(Some(trouble));
    for _ in 0..TRIES_MAX {
        let batch = bench.content.append(&[2000, 500]);
        match bench.try_write(&batch).await {
            Ok(()) => bench.content.apply(&batch),
            Err(error) => return Ok((error, bench.content.after_crash_in(&batch))),
        }
    }
    Err(Failure(format!("{TRIES_MAX} writes succeeded in spite of {trouble:?}.")))
}

async fn every_call_fails(bench: &mut Bench<'_>) -> Outcome {
    for round in 0..3 {
        let batch = match round {
            0 => bench.content.append(&[1]),
            1 => bench.content.promise(0),
            _ => WriteBatch::default(),
        };
        let written = bench.try_write(&batch).await;
        ensure(matches!(written, Err(StorageError::Poisoned)), || {
            format!(
                "After a write failed, what is on disk is unknown, and every later write must \
                 return StorageError::Poisoned until the storage is opened again; this one \
                 returned {written:?}."
            )
        })?;
    }
    Ok(())
}

pub(crate) async fn a_full_disk_is_said(bench: &mut Bench<'_>) -> Outcome {
    let (error, _) = until_it_fails(bench, Trouble::Full).await?;
    ensure(matches!(error, StorageError::Full { .. }), || {
        format!("No space was left; the error should be StorageError::Full and is {error:?}.")
    })
}

pub(crate) async fn a_full_disk_loses_nothing(bench: &mut Bench<'_>) -> Outcome {
    nothing_is_lost(bench, Trouble::Full).await
}

async fn nothing_is_lost(bench: &mut Bench<'_>, trouble: Trouble) -> Outcome {
    let (_, possible) = until_it_fails(bench, trouble).await?;
    bench.close();
    bench.harness.trouble(None);
    let when = format!(" after {trouble:?}, mended");
    bench.open_to_one_of(&possible, &when).await?;
    bench.append(&[3000]).await?;
    bench.reopen().await
}

pub(crate) async fn after_a_full_disk_every_call_fails(bench: &mut Bench<'_>) -> Outcome {
    until_it_fails(bench, Trouble::Full).await?;
    bench.harness.trouble(None);
    every_call_fails(bench).await
}

pub(crate) async fn a_full_disk_is_said_by_the_first_open(bench: &mut Bench<'_>) -> Outcome {
    bench.harness.trouble(Some(Trouble::Full));
    let opened = bench.try_open().await;
    ensure(matches!(opened, Err(StorageError::Full { .. })), || {
        format!("Formatting without space should fail with StorageError::Full: {opened:?}")
    })?;
    bench.harness.trouble(None);
    bench.open().await?;
    bench.append(&[1]).await?;
    bench.reopen().await
}

pub(crate) async fn a_failed_write_is_said(bench: &mut Bench<'_>) -> Outcome {
    is_said(bench, Trouble::FailedWrites).await
}

pub(crate) async fn a_failed_sync_is_said(bench: &mut Bench<'_>) -> Outcome {
    is_said(bench, Trouble::FailedSyncs).await
}

async fn is_said(bench: &mut Bench<'_>, trouble: Trouble) -> Outcome {
    bench.open().await?;
    bench.harness.trouble(Some(trouble));
    let written = bench.try_write(&bench.content.append(&[10])).await;
    ensure(matches!(written, Err(StorageError::Io { .. })), || {
        format!(
            "With {trouble:?}, the very next write should fail with StorageError::Io, because it \
             cannot be durable: {written:?}"
        )
    })
}

pub(crate) async fn a_failed_superblock_is_said(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.harness.trouble(Some(Trouble::FailedWrites));
    let promise = bench.content.promise(0);
    let written = bench.try_write(&promise).await;
    ensure(matches!(written, Err(StorageError::Io { .. })), || {
        format!(
            "A superblock that cannot be written should fail with StorageError::Io: {written:?}"
        )
    })?;
    bench.close();
    bench.harness.trouble(None);
    let possible = bench.content.after_crash_in(&promise);
    bench.open_to_one_of(&possible, " after the superblock could not be written").await.map(drop)
}

pub(crate) async fn after_a_failed_write_every_call_fails(bench: &mut Bench<'_>) -> Outcome {
    until_it_fails(bench, Trouble::FailedWrites).await?;
    bench.harness.trouble(None);
    every_call_fails(bench).await
}

pub(crate) async fn after_a_failed_sync_every_call_fails(bench: &mut Bench<'_>) -> Outcome {
    until_it_fails(bench, Trouble::FailedSyncs).await?;
    bench.harness.trouble(None);
    every_call_fails(bench).await
}

pub(crate) async fn a_failed_write_loses_nothing(bench: &mut Bench<'_>) -> Outcome {
    nothing_is_lost(bench, Trouble::FailedWrites).await
}

pub(crate) async fn a_failed_sync_loses_nothing(bench: &mut Bench<'_>) -> Outcome {
    nothing_is_lost(bench, Trouble::FailedSyncs).await
}

/// The system may show bytes that are not on disk and never will be.
pub(crate) async fn what_a_failed_sync_left_is_durable_once_returned(
    bench: &mut Bench<'_>,
) -> Outcome {
    for seed in 0..8 {
        bench.begin_again();
        let (_, possible) = until_it_fails(bench, Trouble::FailedSyncs).await?;
        bench.close();
        bench.harness.trouble(None);
        bench.harness.restart(Crash::Kill);
        bench.open_to_one_of(&possible, " after a failed sync, mended").await?;
        bench.reopen_after(Crash::PowerCut { seed }).await?;
    }
    Ok(())
}

pub(crate) async fn short_reads_change_nothing(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for number in 0..12 {
        bench.append(&[number * 130, 900]).await?;
    }
    bench.write(bench.content.promise(3)).await?;
    bench.close();
    bench.harness.trouble(Some(Trouble::ShortReads));
    bench.open().await?;
    bench.append(&[4000]).await?;
    bench.check_readable("").await?;
    bench.reopen().await
}
