//! Writing: what was acknowledged is there the next time, as it was.

use bytes::Bytes;

use crate::{
    conformance::{
        report::{Failure, Outcome},
        storage::bench::Bench,
    },
    model::{
        entry::{Entry, EntryHeader, EntryKind},
        types::{Checksum, ClientId, Epoch, OpNumber, RequestNumber, View},
    },
    ports::storage::{StorageError, WriteBatch},
};

pub(crate) async fn an_append_is_there_the_next_time(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[100]).await?;
    bench.check_readable("").await?;
    bench.reopen().await
}

pub(crate) async fn many_appends_are_there_the_next_time(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for number in 0..60 {
        bench.append(&[number * 37 % 900, 700]).await?;
    }
    bench.reopen().await
}

pub(crate) async fn an_append_follows_what_was_reopened(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[100, 7]).await?;
    bench.reopen().await?;
    bench.append(&[200]).await?;
    bench.check_readable("").await?;
    bench.reopen().await
}

pub(crate) async fn an_empty_payload_is_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[0]).await?;
    bench.append(&[0, 5, 0]).await?;
    bench.reopen().await
}

pub(crate) async fn a_large_payload_is_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[300_000]).await?;
    bench.append(&[1]).await?;
    bench.reopen().await
}

pub(crate) async fn a_batch_of_many_entries_is_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    let batch = bench.content.append(&[33; 400]);
    let all: Vec<Entry> = batch.entries().cloned().collect();
    // Runs of several lengths, as they are where batches gathered.
    let (first, rest) = all.split_at(1);
    let runs = [first].into_iter().chain(rest.chunks(7)).map(|run| run.to_vec().into());
    bench.write(WriteBatch { entries: runs.collect(), ..WriteBatch::default() }).await?;
    bench.reopen().await
}

pub(crate) async fn a_payload_of_any_bytes_is_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1500).collect();
    let with_bytes = |entry: &Entry| Entry::new(entry.header, Bytes::from(bytes.clone()));
    let entries = bench.content.append(&[0]).entries().map(with_bytes).collect();
    bench.write(WriteBatch::of(entries)).await?;
    bench.reopen().await
}

pub(crate) async fn every_field_of_a_header_is_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    let parent = bench.content.superblock.checkpoint.checksum;
    let header = EntryHeader {
        parent,
        client: ClientId(u128::MAX / 3),
        view: View(u64::MAX / 5),
        op_number: OpNumber(1),
        time: u64::MAX / 7,
        session: OpNumber(u64::MAX / 9),
        request_number: RequestNumber(u64::MAX / 11),
        group: u64::MAX / 13,
        epoch: Epoch(u64::MAX / 17),
        kind: EntryKind::Register,
        ..EntryHeader::default()
    };
    let entry = Entry::new(header, Bytes::from_static(b"sixteen bytes!!!"));
    bench.write(WriteBatch::of(vec![entry])).await?;
    bench.reopen().await
}

pub(crate) async fn entries_of_every_kind_are_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for kind in [EntryKind::Noop, EntryKind::Register, EntryKind::Request] {
        let of_kind =
            |entry: &Entry| Entry::new(EntryHeader { kind, ..entry.header }, entry.payload.clone());
        let entries = bench.content.append(&[16]).entries().map(of_kind).collect();
        bench.write(WriteBatch::of(entries)).await?;
    }
    bench.reopen().await
}

pub(crate) async fn an_empty_batch_changes_nothing(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.write(WriteBatch::default()).await?;
    bench.append(&[9]).await?;
    bench.write(WriteBatch::default()).await?;
    bench.reopen().await
}

pub(crate) async fn a_superblock_alone_is_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.write(bench.content.promise(0)).await?;
    bench.reopen().await
}

pub(crate) async fn the_last_superblock_counts(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for _ in 0..7 {
        bench.write(bench.content.promise(0)).await?;
    }
    bench.reopen().await?;
    bench.write(bench.content.promise(0)).await?;
    bench.reopen().await
}

pub(crate) async fn every_field_of_the_superblock_is_kept(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[1, 2]).await?;
    bench.write(bench.content.promise_everything()).await?;
    bench.reopen().await
}

pub(crate) async fn a_superblock_leaves_the_log_alone(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[100, 200]).await?;
    bench.write(bench.content.promise(0)).await?;
    bench.check_readable("").await?;
    bench.reopen().await?;
    bench.append(&[5]).await?;
    bench.reopen().await
}

pub(crate) async fn log_and_superblock_go_together(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[100]).await?;
    let batch = bench.content.with_promise(0, bench.content.append(&[50, 60]));
    bench.write(batch).await?;
    bench.check_readable("").await?;
    bench.reopen().await
}

pub(crate) async fn marking_idle_changes_nothing(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.mark_idle().await?;
    bench.append(&[100]).await?;
    bench.mark_idle().await?;
    bench.mark_idle().await?;
    bench.check_readable("").await?;
    bench.reopen().await?;
    bench.append(&[10]).await?;
    bench.mark_idle().await?;
    bench.append(&[10]).await?;
    bench.reopen().await
}

pub(crate) async fn a_gap_is_refused(bench: &mut Bench<'_>) -> Outcome {
    let mut beyond = bench.content.clone();
    beyond.apply(&beyond.append(&[1, 1, 1, 1]));
    let entries = beyond.entries(4, &[1]);
    refused(bench, WriteBatch::of(entries)).await
}

pub(crate) async fn an_op_that_is_there_already_is_refused(bench: &mut Bench<'_>) -> Outcome {
    let entries = bench.content.entries(0, &[7]);
    refused(bench, WriteBatch::of(entries)).await
}

pub(crate) async fn an_entry_with_another_parent_is_refused(bench: &mut Bench<'_>) -> Outcome {
    let mut other = bench.content.clone();
    other.apply(&other.append(&[9, 9]));
    let with_parent = |entry: &Entry| {
        let header = EntryHeader { parent: Checksum(1), ..entry.header };
        Entry::new(header, entry.payload.clone())
    };
    let entries = other.append(&[1]).entries().map(with_parent).collect();
    refused(bench, WriteBatch::of(entries)).await
}

pub(crate) async fn a_chain_that_breaks_inside_a_batch_is_refused(
    bench: &mut Bench<'_>,
) -> Outcome {
    let mut twin = bench.content.clone();
    twin.apply(&twin.append(&[1, 1]));
    let mut entries: Vec<Entry> = twin.append(&[1, 2, 3]).entries().cloned().collect();
    entries.remove(1);
    refused(bench, WriteBatch::of(entries)).await
}

pub(crate) async fn a_cut_beyond_the_end_is_refused(bench: &mut Bench<'_>) -> Outcome {
    refused(bench, WriteBatch { cut: Some(OpNumber(5)), ..WriteBatch::default() }).await
}

/// Writes `batch`, with a superblock, behind two entries of one byte; requires a refusal, and that
/// nothing of it is there afterwards.
async fn refused(bench: &mut Bench<'_>, batch: WriteBatch) -> Outcome {
    bench.open().await?;
    bench.append(&[1, 1]).await?;
    let batch = bench.content.with_promise(0, batch);
    match bench.try_write(&batch).await {
        Err(StorageError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::InvalidInput => {}
        Err(error) => {
            return Err(Failure(format!(
                "A batch that does not follow the log should be refused with StorageError::Io and \
                 ErrorKind::InvalidInput, and was refused with {error:?}."
            )));
        }
        Ok(()) => {
            let (ops, cut) = (batch.entries().map(|entry| entry.header.op_number.0), batch.cut);
            let ops: Vec<u64> = ops.collect();
            return Err(Failure(format!(
                "A batch that does not follow the log, which ends at op 2, was written: cut \
                 {cut:?}, ops {ops:?}. It must be refused, or the next start finds a broken chain."
            )));
        }
    }
    bench.reopen().await?;
    bench.append(&[4]).await?;
    bench.reopen().await
}

pub(crate) async fn a_repair_of_what_is_whole_changes_nothing(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[100, 2000, 0, 7]).await?;
    bench.append(&[9]).await?;
    for ops in [&[2, 3][..], &[1, 4, 5], &[3]] {
        let repairs = ops.iter().filter_map(|op| bench.content.entry(*op).cloned()).collect();
        bench.write(WriteBatch { repairs, ..WriteBatch::default() }).await?;
        bench.check_readable(" and repaired").await?;
    }
    bench.reopen().await?;
    bench.write(bench.content.cut(3, &[5, 50])).await?;
    bench.reopen().await
}

/// The log may have been cut since the repair was asked for.
pub(crate) async fn a_repair_of_what_is_gone_is_left_out(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[100, 200, 300]).await?;
    let repairs: Vec<_> = bench.content.log.clone();
    bench.write(bench.content.cut(1, &[])).await?;
    bench.write(WriteBatch { repairs, ..WriteBatch::default() }).await?;
    bench.check_readable(" and repaired").await?;
    bench.reopen().await
}
