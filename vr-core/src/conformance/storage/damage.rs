//! Damage of what was written: an error or no difference, but never other content as if nothing was.

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        storage::{
            bench::Bench,
            content::{Content, summary},
            harness::{Capability, Damage, Region},
        },
    },
    ports::storage::{Recovered, StorageError, WriteBatch},
};

/// At how many places each region is damaged.
const PLACES_MAX: u64 = 96;

/// A log with a cut and promises in it, whose last batch is an append of two entries; what the
/// storage holds with and without that batch.
async fn written(bench: &mut Bench<'_>, marked: bool) -> Result<[Content; 2], Failure> {
    bench.begin_again();
    bench.open().await?;
    bench.write(bench.content.promise(0)).await?;
    bench.append(&[1500, 700, 30]).await?;
    bench.append(&[900, 20]).await?;
    bench.write(bench.content.cut(4, &[300, 20])).await?;
    bench.write(bench.content.promise(1)).await?;
    bench.append(&[600]).await?;
    bench.mark_idle().await?;
    let before = bench.content.clone();
    bench.append(&[800, 40]).await?;
    if marked {
        bench.mark_idle().await?;
    }
    bench.close();
    Ok([bench.content.clone(), before])
}

/// Damages each region at many places, one at a time, each time in a storage of its own.
async fn everywhere(
    bench: &mut Bench<'_>,
    marked: bool,
    damage: impl Fn(u64, u64) -> Damage,
) -> Outcome {
    written(bench, marked).await?;
    let regions = bench.harness.regions();
    ensure(regions.iter().any(|region| region.bytes > 0), || {
        format!("Harness::regions names nothing that could be damaged: {regions:?}")
    })?;
    for region in &regions {
        let stride = (region.bytes / PLACES_MAX).max(1) | 1;
        let mut at = 0;
        while at < region.bytes {
            let content = written(bench, marked).await?;
            let damage = damage(at, region.bytes);
            bench.harness.damage(&region.name, damage);
            let when = format!("{damage:?} in {:?}", region.name);
            nothing_is_hidden(bench, &content, marked, &when).await?;
            at += stride;
        }
    }
    Ok(())
}

/// Opens what was damaged.
async fn nothing_is_hidden(
    bench: &mut Bench<'_>,
    [whole, without_last]: &[Content; 2],
    marked: bool,
    when: &str,
) -> Outcome {
    let recovered = match bench.try_open().await {
        Ok(recovered) => recovered,
        Err(error) => return refusal(&error, when),
    };
    if whole.is_given_up_in(&recovered) {
        return Ok(());
    }
    let torn = is_torn(bench, marked, without_last, &recovered);
    let content = if torn { without_last } else { whole };
    let repairs = content.repairs(&recovered);
    let repairs = repairs.ok_or_else(|| Failure(hidden(&recovered, whole, when)))?;
    let is_open = |op_number: u64| repairs.iter().any(|it| it.header.op_number.0 == op_number);
    let (first, last) = (content.checkpoint() + 1, content.op_number());
    for op_number in (first..=last).filter(|op_number| !is_open(*op_number)) {
        match bench.try_read(op_number, op_number, 0).await {
            Ok(entries) => ensure(entries.iter().eq(content.entry(op_number)), || {
                format!("With {when}, reading op {op_number} returned another entry: {entries:?}")
            })?,
            Err(error) => refusal(&error, when)?,
        }
    }
    Ok(())
}

/// Whether the last batch was taken for a torn write by a storage that cannot know better.
fn is_torn(bench: &Bench<'_>, marked: bool, without_last: &Content, found: &Recovered) -> bool {
    let may_know = marked && bench.harness.covers(Capability::IdleMarker);
    !may_know && found.torn_bytes > 0 && without_last.is(found)
}

fn hidden(recovered: &Recovered, whole: &Content, when: &str) -> String {
    format!(
        "With {when}, it was opened and has {}; before it had {}. Damage of what was synced must \
         be told: in Recovered::damaged, by a log that is lost, or as an error. Only the very last \
         batch may be taken for a torn write, and then torn_bytes says so.",
        summary(recovered),
        whole.summary()
    )
}

/// An operator must be able to tell damage from a full disk.
fn refusal(error: &StorageError, when: &str) -> Outcome {
    let clear = matches!(
        error,
        StorageError::Corrupt { .. } | StorageError::Foreign { .. } | StorageError::Version { .. }
    );
    ensure(clear, || {
        format!("With {when}, the error should be StorageError::Corrupt, and is {error:?}.")
    })
}

fn flip(at: u64, _: u64) -> Damage {
    Damage::Flip { at, bit: u32::try_from(at % 8).unwrap_or(0) }
}

pub(crate) async fn no_flipped_bit_is_hidden(bench: &mut Bench<'_>) -> Outcome {
    everywhere(bench, false, flip).await
}

pub(crate) async fn no_flipped_bit_below_the_marker_is_hidden(bench: &mut Bench<'_>) -> Outcome {
    everywhere(bench, true, flip).await
}

pub(crate) async fn no_zeroed_sector_is_hidden(bench: &mut Bench<'_>) -> Outcome {
    everywhere(bench, false, |at, bytes| {
        let at = at / 512 * 512;
        Damage::Zero { at, bytes: 512.min(bytes - at) }
    })
    .await
}

pub(crate) async fn no_truncation_is_hidden(bench: &mut Bench<'_>) -> Outcome {
    everywhere(bench, false, |bytes, _| Damage::Truncate { bytes }).await
}

/// Whoever is told of damage may want to look at it, or to put a copy back.
pub(crate) async fn telling_of_damage_changes_nothing(bench: &mut Bench<'_>) -> Outcome {
    written(bench, true).await?;
    let regions = bench.harness.regions();
    let mut told = 0;
    for Region { name, bytes } in &regions {
        for part in 0..16 {
            let [whole, without_last] = written(bench, true).await?;
            let damage = flip(bytes * part / 16, *bytes);
            bench.harness.damage(name, damage);
            match bench.try_open().await {
                Ok(recovered) if whole.is_given_up_in(&recovered) => continue,
                Ok(recovered) if is_torn(bench, true, &without_last, &recovered) => continue,
                Ok(recovered) => told += u64::from(!recovered.damaged.is_empty()),
                Err(_) => told += 1,
            }
            bench.close();
            bench.harness.damage(name, damage);
            let when = format!(" after {damage:?} in {name:?} was told and put right");
            bench.open_to_one_of(&[whole], &when).await?;
        }
    }
    ensure(told > 0, || "No damage anywhere was told.".to_owned())
}

/// What was damaged, and written again from another replica's log, is as if nothing had been.
pub(crate) async fn a_repair_takes_the_place_of_what_is_damaged(bench: &mut Bench<'_>) -> Outcome {
    written(bench, true).await?;
    let regions = bench.harness.regions();
    for Region { name, bytes } in &regions {
        for part in 0..48 {
            let [whole, _] = written(bench, true).await?;
            let damage = flip(bytes * part / 48, *bytes);
            bench.harness.damage(name, damage);
            let Ok(recovered) = bench.try_open().await else { continue };
            if whole.is_given_up_in(&recovered) || recovered.damaged.is_empty() {
                continue;
            }
            bench.content = whole.clone();
            let repairs = whole.repairs(&recovered);
            let repairs = repairs.ok_or_else(|| Failure(hidden(&recovered, &whole, "damage")))?;
            let when = format!(" after {damage:?} in {name:?} was repaired");
            bench.write(WriteBatch { repairs, ..WriteBatch::default() }).await?;
            bench.check_readable(&when).await?;
            bench.append(&[40]).await?;
            let repaired = [bench.content.clone()];
            let found = bench.open_to_one_of(&repaired, &when).await?;
            ensure(found.damaged.is_empty(), || format!("It is still damaged{when}."))?;
        }
    }
    Ok(())
}

pub(crate) async fn damage_under_an_open_storage_is_not_returned(bench: &mut Bench<'_>) -> Outcome {
    written(bench, true).await?;
    let regions = bench.harness.regions();
    for Region { name, bytes } in &regions {
        for part in 0..48 {
            let [whole, _] = written(bench, true).await?;
            bench.open().await?;
            let damage = flip(bytes * part / 48, *bytes);
            bench.harness.damage(name, damage);
            for op_number in whole.checkpoint() + 1..=whole.op_number() {
                match bench.try_read(op_number, op_number, 0).await {
                    Ok(entries) => ensure(entries.iter().eq(whole.entry(op_number)), || {
                        format!(
                            "With {damage:?} in {name:?} while it was open, reading op {op_number} \
                             returned another entry: {entries:?}"
                        )
                    })?,
                    Err(error) => refusal(&error, &format!("{damage:?} in {name:?}"))?,
                }
            }
        }
    }
    Ok(())
}
