//! A replica that was away while much was written: how it gets it back under load, while its
//! sources and itself are killed again and again.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::bail;
use tokio::time::sleep;
use vr_core::{Client, Durability, Raw};

use crate::load::{
    fleet::Fleet,
    generator::{drive, say},
    row::microseconds,
    summary::{Summary, count, median},
    workload::Workload,
};

/// So many that a quorum is left while one is away and another is killed.
const REPLICAS: usize = 5;
/// Bytes of the operations that are written while the replica is away.
const PAYLOAD_BYTES: u64 = 64 << 10;
/// How many of them are in flight.
const WRITERS: usize = 16;
/// How long the load is measured at a time.
const WINDOW: Duration = Duration::from_secs(1);
/// How often it is measured before the replica comes back.
const WINDOWS_BEFORE: usize = 5;
/// Chunks of a checkpoint are of 256 KiB.
const CHUNKS_PER_MIB: u64 = 4;
/// How long the whole may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How much was missed, and what happens meanwhile.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// MiB that are written while the replica is away, and as much of state
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub mib: u64,
    /// How often a replica that it fetches from is killed and started again
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub sources_killed: usize,
    /// How often it is killed itself and started again, which breaks all its connections
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub interruptions: usize,
    /// Operations of 256 bytes a second meanwhile
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000)]
    pub rate: u32,
    /// What is on disk: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::Full)]
    pub durability: Durability,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaughtUp {
    /// From the start of the process to having executed what the others had.
    pub took: Duration,
    /// Chunks that were there when it was killed, and when it looked again, for each interruption.
    pub resumed: Vec<(u32, u32)>,
    /// How often a source was killed.
    pub sources_killed: usize,
    /// 99 of 100 operations were at most so long: the median of windows before.
    pub p99_before: Duration,
    /// The same meanwhile.
    pub p99_meanwhile: Duration,
    /// The most memory of each process, in KiB.
    pub peak_rss_kib: Vec<u64>,
}

/// Writes, lets a replica come back, and disturbs it.
///
/// # Errors
/// A call returned an error, or the replica does not come back.
pub async fn run(options: &Options) -> anyhow::Result<CaughtUp> {
    let ops = (options.mib << 20).div_ceil(PAYLOAD_BYTES).max(1);
    // Small enough that what is missed is in a checkpoint, and not in anybody's log.
    let arguments =
        [("--keep", ops), ("--checkpoint-ops", (ops / 8).max(4)), ("--log-retain-ops", ops / 64)];
    let arguments =
        arguments.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]);
    let dir = options.dir.as_deref();
    let mut fleet =
        Fleet::start_with(REPLICAS, options.durability, dir, arguments.collect()).await?;
    let primary = fleet.primary().await?;
    let backups: Vec<usize> = (0..fleet.count()).filter(|replica| *replica != primary).collect();
    let (Some(away), Some(source)) = (backups.first().copied(), backups.last().copied()) else {
        bail!("there are no backups");
    };
    fleet.kill(away).await?;
    let clients = [fleet.client().await?, fleet.client().await?];
    write(&clients, ops).await?;
    let mut before = Vec::new();
    for _ in 0..WINDOWS_BEFORE {
        before.push(measure(&clients, options).await?);
    }
    say(&format!("  written; 99 of 100 operations within {:?} before", middle(&before)));
    let goal = fleet.status(primary).await?.applied;
    let began = Instant::now();
    fleet.start_one(away)?;
    let mut caught_up = CaughtUp { p99_before: middle(&before), ..CaughtUp::default() };
    let meanwhile = {
        let disturbing = disturb(&mut fleet, options, (away, source, goal), &mut caught_up);
        tokio::pin!(disturbing);
        let mut meanwhile = Vec::new();
        loop {
            tokio::select! {
                ended = &mut disturbing => break ended.map(|()| meanwhile),
                measured = measure(&clients, options) => meanwhile.push(measured?),
            }
        }
    }?;
    caught_up.took = began.elapsed();
    caught_up.p99_meanwhile = middle(&meanwhile);
    caught_up.peak_rss_kib = fleet.peak_rss_kib();
    Ok(caught_up)
}

/// Kills by turns, at equal parts of what is to be fetched, until the replica is back.
async fn disturb(
    fleet: &mut Fleet,
    options: &Options,
    (away, source, goal): (usize, usize, u64),
    caught_up: &mut CaughtUp,
) -> anyhow::Result<()> {
    let parts = options.interruptions.saturating_add(1);
    let mut next_kill = 0;
    for number in 0..options.interruptions {
        let Some(here) = wait_for_part(fleet, away, (number + 1, parts), options.mib).await? else {
            break;
        };
        if caught_up.sources_killed < options.sources_killed && number >= next_kill {
            fleet.kill(source).await?;
            fleet.start_one(source)?;
            caught_up.sources_killed += 1;
            next_kill = number + options.interruptions / options.sources_killed.max(1);
        }
        fleet.kill(away).await?;
        fleet.start_one(away)?;
        let resumed =
            wait_for_part(fleet, away, (0, parts), options.mib).await?.unwrap_or_default();
        say(&format!("  killed with {here} chunks, goes on with {resumed}"));
        caught_up.resumed.push((here, resumed));
    }
    let _ = fleet.wait_until_applied(away, goal, PATIENCE).await?;
    Ok(())
}

/// Waits until the replica has fetched so many of `parts`, or anything for 0; how many chunks it
/// has then. `None` when it is back before.
async fn wait_for_part(
    fleet: &mut Fleet,
    replica: usize,
    (part, parts): (usize, usize),
    mib: u64,
) -> anyhow::Result<Option<u32>> {
    let begun = Instant::now();
    let (part, parts) = (u32::try_from(part)?, u32::try_from(parts)?);
    loop {
        let status = fleet.status(replica).await?;
        let (here, all) = status.chunks;
        // Before the manifest is whole it says less.
        let is_known = u64::from(all) >= mib * CHUNKS_PER_MIB / 4 * 3;
        if is_known && here >= all / parts * part && (part > 0 || here > 0) {
            return Ok(Some(here));
        }
        if status.is_well && status.applied > 0 && all == 0 {
            return Ok(None);
        }
        if begun.elapsed() > PATIENCE {
            bail!("replica {replica} fetches nothing: {status:?}");
        }
        sleep(Duration::from_millis(2)).await;
    }
}

async fn write(clients: &[Client<Raw>], ops: u64) -> anyhow::Result<()> {
    let payload = bytes::Bytes::from(vec![0x5a; usize::try_from(PAYLOAD_BYTES)?]);
    let mut writers = tokio::task::JoinSet::new();
    for (writer, client) in (0..WRITERS).zip(clients.iter().cycle()) {
        let (client, payload) = (client.clone(), payload.clone());
        let (writer, all) = (u64::try_from(writer)?, u64::try_from(WRITERS)?);
        let share = ops / all + u64::from(writer < ops % all);
        writers.spawn(async move {
            for _ in 0..share {
                client.execute_raw(payload.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}

/// The 99th percentile of one window.
async fn measure(clients: &[Client<Raw>], options: &Options) -> anyhow::Result<Duration> {
    let workload = Workload {
        clients: 8,
        clients_per_session: 4,
        payload_bytes: 256,
        read_percent: 0,
        warm_up: Duration::ZERO,
        duration: WINDOW,
        rate: Some(options.rate),
        progress: false,
    };
    let measured = drive(clients, &workload).await.without_errors()?;
    Ok(Summary::of(measured.latencies).p99)
}

fn middle(windows: &[Duration]) -> Duration {
    let seconds: Vec<f64> = windows.iter().map(Duration::as_secs_f64).collect();
    Duration::from_secs_f64(median(&seconds))
}

/// What was seen, in words.
#[must_use]
pub fn describe(options: &Options, seen: &CaughtUp) -> String {
    let lost: u32 = seen.resumed.iter().map(|(had, has)| had.saturating_sub(*has)).sum();
    let rate = count(options.mib) / seen.took.as_secs_f64().max(1e-9);
    let ratio = seen.p99_meanwhile.as_secs_f64() / seen.p99_before.as_secs_f64().max(1e-9);
    let rss: Vec<String> = seen.peak_rss_kib.iter().map(|kib| (kib / 1024).to_string()).collect();
    format!(
        "catch-up, {}: {} MiB in {:.1} s ({rate:.0} MiB/s) with {} interruptions and {} sources \
         killed; {lost} chunks of 256 KiB were fetched and gone after a kill; p99 {:.0} us before, {:.0} us meanwhile (x{ratio:.2}); peak RSS {} MiB",
        options.durability,
        options.mib,
        seen.took.as_secs_f64(),
        seen.resumed.len(),
        seen.sources_killed,
        microseconds(seen.p99_before),
        microseconds(seen.p99_meanwhile),
        rss.join("/"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_tell_what_was_fetched_in_vain() {
        let options = Options {
            mib: 100,
            sources_killed: 1,
            interruptions: 2,
            rate: 1000,
            durability: Durability::Full,
            dir: None,
        };
        let seen = CaughtUp {
            took: Duration::from_secs(2),
            resumed: vec![(10, 8), (20, 20)],
            sources_killed: 1,
            p99_before: Duration::from_millis(2),
            p99_meanwhile: Duration::from_millis(3),
            peak_rss_kib: vec![2048, 1024, 4096],
        };
        let text = describe(&options, &seen);
        assert!(text.contains("50 MiB/s") && text.contains("2 chunks") && text.contains("x1.50"));
        assert!(text.ends_with("2/1/4 MiB"), "{text}");
    }
}
