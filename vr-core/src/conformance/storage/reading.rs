//! Reading: exactly what was asked for, within its limits, beside writes and other reads.

use futures::{FutureExt, future::join};

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        storage::bench::Bench,
    },
    model::types::OpNumber,
    ports::storage::StorageError,
};

/// Bytes of each entry that [`forty`] writes, with its header.
const ENTRY_BYTES: u64 = 628;

/// Forty entries of 500 bytes each, in batches of several sizes.
async fn forty(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for count in [1, 2, 5, 12, 20] {
        bench.append(&vec![500; count]).await?;
    }
    Ok(())
}

pub(crate) async fn each_entry_is_read_alone(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    for op_number in 1..=40 {
        bench.read((op_number, op_number, u64::MAX), op_number).await?;
    }
    Ok(())
}

pub(crate) async fn any_range_is_read(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    for (from, through) in [(1, 40), (1, 1), (3, 9), (8, 21), (20, 21), (39, 40), (40, 40)] {
        bench.read((from, through, u64::MAX), through).await?;
    }
    Ok(())
}

pub(crate) async fn a_range_beyond_the_end_ends_there(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    bench.read((38, 99, u64::MAX), 40).await?;
    bench.read((40, u64::MAX, u64::MAX), 40).await
}

pub(crate) async fn a_range_that_begins_beyond_the_end_is_missing(
    bench: &mut Bench<'_>,
) -> Outcome {
    forty(bench).await?;
    bench.read_nothing(41, 41).await?;
    bench.read_nothing(41, 99).await?;
    bench.read_nothing(u64::MAX, u64::MAX).await
}

pub(crate) async fn op_zero_is_missing(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    bench.read_nothing(0, 0).await?;
    bench.read_nothing(0, 3).await
}

pub(crate) async fn an_empty_range_is_missing(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    bench.read_nothing(5, 4).await?;
    bench.read_nothing(40, 0).await
}

pub(crate) async fn a_read_stops_at_its_limit(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    for count in 1..=7 {
        bench.read((5, 40, count * ENTRY_BYTES), 4 + count).await?;
        bench.read((5, 40, (count + 1) * ENTRY_BYTES - 1), 4 + count).await?;
    }
    Ok(())
}

pub(crate) async fn a_read_returns_at_least_one_entry(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    bench.read((5, 40, 0), 5).await?;
    bench.read((5, 40, ENTRY_BYTES - 1), 5).await
}

pub(crate) async fn a_limit_counts_headers_too(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[0; 30]).await?;
    bench.read((1, 30, 10 * 128), 10).await
}

pub(crate) async fn what_was_written_is_read_at_once(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    for op_number in 1..=20 {
        bench.append(&[300]).await?;
        bench.read((op_number, op_number, 0), op_number).await?;
    }
    Ok(())
}

pub(crate) async fn a_read_across_a_cut_returns_the_new_entries(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    bench.write(bench.content.cut(10, &[40; 5])).await?;
    bench.read((8, 40, u64::MAX), 15).await?;
    bench.reopen().await?;
    bench.read((8, 40, u64::MAX), 15).await
}

pub(crate) async fn an_abandoned_read_disturbs_nothing(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    for op_number in 1..=40 {
        let abandoned = bench.try_read(op_number, 40, u64::MAX).now_or_never();
        ensure(!matches!(abandoned, Some(Err(_))), || format!("a read failed: {abandoned:?}"))?;
        bench.read((7, 7, 0), 7).await?;
    }
    Ok(())
}

pub(crate) async fn reads_run_beside_each_other(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    for op_number in 1..=20 {
        let one = bench.read((op_number, op_number, 0), op_number);
        let other = bench.read((2 * op_number, 40, u64::MAX), 40);
        let (one, other) = join(one, other).await;
        one.and(other)?;
    }
    Ok(())
}

pub(crate) async fn a_read_runs_beside_a_write(bench: &mut Bench<'_>) -> Outcome {
    forty(bench).await?;
    for _ in 0..20 {
        let batch = bench.content.append(&[200]);
        let next = OpNumber(bench.content.op_number() + 1);
        let opened = bench.opened()?;
        let (writer, reader) = (&mut opened.writer, &opened.reader);
        let reads = async {
            let old = reader.entries(OpNumber(3), OpNumber(3), 0).await;
            (old, reader.entries(next, next, 0).await)
        };
        let (written, (old, new)) = join(writer.write(batch.clone()), reads).await;
        written.map_err(|error| Failure(format!("A write beside reads failed: {error:?}.")))?;
        let is_old = matches!(&old, Ok(entries) if entries.iter().eq(bench.content.entry(3)));
        ensure(is_old, || format!("Op 3, read beside a write of op {next}: {old:?}"))?;
        let is_new = match &new {
            Ok(entries) => entries.iter().eq(batch.entries()),
            Err(error) => matches!(error, StorageError::Missing { .. }),
        };
        ensure(is_new, || {
            format!(
                "Op {next}, read while it is being written, should be there or missing: {new:?}"
            )
        })?;
        bench.content.apply(&batch);
    }
    bench.reopen().await
}
