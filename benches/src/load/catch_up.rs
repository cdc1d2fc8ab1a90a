//! A replica that was away while much was written: how it gets it back under load, while its
//! connections are cut, and its sources and itself are killed, again and again.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::time::sleep;
use vr_core::{Client, Config, Durability, Raw, Usage};

use crate::load::{
    fleet::{Fleet, Status},
    generator::{drive, execute, say},
    limits::Limits,
    relay::Relay,
    row::microseconds,
    summary::{Summary, count, median},
    workload::Workload,
};

/// So many that a quorum is left while one is away and another is killed.
const REPLICAS: usize = 5;
/// Bytes of the operations that are written while the replica is away.
const PAYLOAD_BYTES: u64 = 64 << 10;
/// How many of them are in flight.
const WRITERS: u64 = 16;
/// How long the load is measured at a time.
const WINDOW: Duration = Duration::from_secs(1);
/// How often it is measured before the replica comes back.
const WINDOWS_BEFORE: usize = 5;
/// The replica that is away; the first primary is another.
const AWAY: usize = 1;
/// Checkpoints that are taken while the replica is away.
const CHECKPOINTS: u64 = 8;
/// Chunks of a checkpoint are of 256 KiB.
const CHUNK_BYTES: u64 = 256 << 10;
/// How long the whole may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How much was missed, and what happens meanwhile.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// MiB that are written while the replica is away, and as much of state
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub mib: u64,
    /// How often all its connections are cut
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub cuts: usize,
    /// How often a replica that it fetches from is killed and started again
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub sources_killed: usize,
    /// How often it is killed itself and started again
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub restarts: usize,
    /// Operations of 256 bytes a second meanwhile
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000)]
    pub rate: u32,
    /// Nobody asks for anything meanwhile: compare with what disk and loopback do at best
    #[arg(long, conflicts_with = "rate")]
    pub idle: bool,
    /// MiB that it fetches per second while operations are ordered; 0: no limit
    #[arg(long, value_name = "MIB", default_value_t = Config::default().fetch_bytes_per_second >> 20)]
    pub budget: u64,
    /// Write what compresses well: without it, what is received is the state byte by byte
    #[arg(long)]
    pub compressible: bool,
    /// What is on disk: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::Full)]
    pub durability: Durability,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Something that gets in the way of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    /// All connections of the replica that is back are cut.
    Cut,
    /// One that it fetches from is killed, and started again.
    SourceKilled,
    /// It is killed itself, and started again.
    Restarted,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaughtUp {
    /// From the start of the process to having executed what the others had.
    pub took: Duration,
    /// Cuts, sources killed and restarts, one after the other.
    pub disturbed: [usize; 3],
    /// Bytes that it received meanwhile, of everything.
    pub received: u64,
    /// 99 of 100 operations were at most so long: the median of windows before.
    pub p99_before: Duration,
    /// The same meanwhile; `None` if it took less than a window.
    pub p99_meanwhile: Option<Duration>,
    /// What the machine does at best, measured right after; `None` if others asked meanwhile.
    pub limits: Option<Limits>,
    /// The most memory of each process, in KiB.
    pub peak_rss_kib: Vec<u64>,
    /// What the configuration says that each can reach beside its state, in bytes.
    pub footprint_bytes: u64,
}

/// Writes, lets a replica come back, and disturbs it.
///
/// # Errors
/// A call returned an error, or the replica does not come back.
pub async fn run(options: &Options) -> anyhow::Result<CaughtUp> {
    let ops = (options.mib << 20).div_ceil(PAYLOAD_BYTES).max(1);
    // Small enough that what is missed is in a checkpoint, and not in anybody's log.
    let checkpoint_bytes = (options.mib << 20) / CHECKPOINTS;
    let arguments = [
        ("--keep", ops),
        ("--checkpoint-bytes", checkpoint_bytes.max(PAYLOAD_BYTES)),
        ("--log-retain-ops", ops / 64),
        ("--fetch-bytes-per-second", options.budget << 20),
    ];
    let arguments =
        arguments.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]);
    let relay = Relay::new()?;
    let (dir, around) = (options.dir.as_deref(), Some((AWAY, &relay)));
    let arguments = arguments.collect();
    let mut fleet =
        Fleet::start_around(REPLICAS, options.durability, dir, arguments, around).await?;
    let primary = fleet.primary().await?;
    let source = (0..fleet.count()).rev().find(|replica| ![primary, AWAY].contains(replica));
    let source = source.filter(|_| primary != AWAY).context("the replicas have other roles")?;
    fleet.kill(AWAY).await?;
    let clients = [fleet.client().await?, fleet.client().await?];
    let payload = payload(options.compressible);
    execute(&clients, WRITERS, ops, &payload).await?;
    // Checkpoints come behind what is written quickly.
    while fleet.status(primary).await?.held < ops / 4 * 3 {
        measure(&clients, options).await?;
    }
    // What was written keeps the disk busy no longer.
    tokio::task::spawn_blocking(nix::unistd::sync).await?;
    let mut before = Vec::new();
    for _ in 0..WINDOWS_BEFORE {
        before.push(measure(&clients, options).await?);
    }
    say(&format!("  written; 99 of 100 operations within {:?} before", middle(&before)));
    let goal = fleet.status(primary).await?.applied;
    let (began, received) = (Instant::now(), relay.received());
    fleet.start_one(AWAY)?;
    let mut caught_up = CaughtUp { p99_before: middle(&before), ..CaughtUp::default() };
    let meanwhile = {
        let disturbing = disturb(&mut fleet, &relay, options, (source, goal));
        tokio::pin!(disturbing);
        let mut meanwhile = Vec::new();
        loop {
            tokio::select! {
                ended = &mut disturbing => {
                    caught_up.disturbed = ended?;
                    break meanwhile;
                }
                measured = measure(&clients, options), if !options.idle => {
                    let p99 = measured?;
                    say(&format!("  99 of 100 operations within {p99:?}"));
                    meanwhile.push(p99);
                }
            }
        }
    };
    caught_up.took = began.elapsed();
    caught_up.received = relay.received() - received;
    caught_up.p99_meanwhile = (!meanwhile.is_empty()).then(|| middle(&meanwhile));
    caught_up.peak_rss_kib = fleet.peak_rss_kib();
    caught_up.footprint_bytes = footprint(options, checkpoint_bytes);
    if options.idle {
        let (dir, mib) = (fleet.dir().to_owned(), options.mib);
        let limits = tokio::task::spawn_blocking(move || Limits::measure(&dir, mib)).await??;
        caught_up.limits = Some(limits);
    }
    Ok(caught_up)
}

/// What is written. What does not compress has nothing that repeats, and is as long as LZ4 looks
/// back, so that it does not compress either where it stands behind itself.
fn payload(compressible: bool) -> Bytes {
    let mut state = 1_u64;
    let words = (0..PAYLOAD_BYTES / 8).map(|_| {
        // Xorshift: a period of 2^64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if compressible { 0 } else { state }
    });
    words.flat_map(u64::to_le_bytes).collect()
}

/// What the replicas can reach beside the service's state.
fn footprint(options: &Options, checkpoint_bytes: u64) -> u64 {
    let mut config = Config::default();
    config.checkpoint_bytes = checkpoint_bytes;
    let members = u32::try_from(REPLICAS).unwrap_or(u32::MAX);
    let usage = Usage {
        durability: options.durability,
        members,
        reply_bytes_max: 8,
        snapshot_bytes_max: options.mib << 20,
    };
    config.footprint(&usage).memory_bytes()
}

/// What happens, in this order: as evenly mixed as it goes.
fn schedule(options: &Options) -> Vec<Disturbance> {
    let counts = [
        (Disturbance::Cut, options.cuts),
        (Disturbance::SourceKilled, options.sources_killed),
        (Disturbance::Restarted, options.restarts),
    ];
    let mut placed: Vec<(f64, Disturbance)> = Vec::new();
    for (disturbance, times) in counts {
        let all = u64::try_from(times).unwrap_or(u64::MAX);
        let halves = (0..all).map(|time| count(2 * time + 1) / count(2 * all));
        placed.extend(halves.map(|part| (part, disturbance)));
    }
    placed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    placed.into_iter().map(|(_, disturbance)| disturbance).collect()
}

/// Gets in the way at equal parts of what is to be fetched, until the replica is back; how often.
async fn disturb(
    fleet: &mut Fleet,
    relay: &Relay,
    options: &Options,
    (source, goal): (usize, u64),
) -> anyhow::Result<[usize; 3]> {
    let schedule = schedule(options);
    let parts = schedule.len() + 1;
    let [mut cuts, mut sources_killed, mut restarts] = [0; 3];
    for (number, disturbance) in schedule.into_iter().enumerate() {
        let part = (number + 1, parts);
        let Some(status) = wait_for_part(fleet, part, options.mib, goal).await? else { break };
        let (op, (here, all), received) =
            (status.checkpoint, status.chunks, relay.received() >> 20);
        say(&format!(
            "  {disturbance:?} with {here} of {all} chunks of the checkpoint after op {op}, and \
             {received} MiB received"
        ));
        match disturbance {
            Disturbance::Cut => {
                relay.cut();
                cuts += 1;
            }
            Disturbance::SourceKilled => {
                sources_killed += 1;
                fleet.kill(source).await?;
                fleet.start_one(source)?;
            }
            Disturbance::Restarted => {
                restarts += 1;
                fleet.kill(AWAY).await?;
                fleet.start_one(AWAY)?;
            }
        }
    }
    let _ = fleet.wait_until_applied(AWAY, goal, PATIENCE).await?;
    Ok([cuts, sources_killed, restarts])
}

/// Waits until the replica has fetched so many of `parts`; what it says then. `None` when it is back
/// before.
async fn wait_for_part(
    fleet: &mut Fleet,
    (part, parts): (usize, usize),
    mib: u64,
    goal: u64,
) -> anyhow::Result<Option<Status>> {
    let begun = Instant::now();
    let (part, parts) = (u32::try_from(part)?, u32::try_from(parts)?);
    loop {
        let status = fleet.status(AWAY).await?;
        let (here, all) = status.chunks;
        // Before the manifest is whole it says less.
        let is_known = u64::from(all) >= (mib << 20) / CHUNK_BYTES / 4 * 3;
        if is_known && here >= all / parts * part {
            return Ok(Some(status));
        }
        if status.applied >= goal {
            return Ok(None);
        }
        if begun.elapsed() > PATIENCE {
            bail!("the replica fetches nothing: {status:?}");
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// The 99th percentile of one window.
async fn measure(clients: &[Client<Raw>], options: &Options) -> anyhow::Result<Duration> {
    let workload = Workload {
        clients_per_session: 4,
        rate: Some(options.rate),
        ..Workload::of_writes(8, WINDOW)
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
    let [cuts, sources, restarts] = seen.disturbed;
    let rate = count(options.mib) / seen.took.as_secs_f64().max(1e-9);
    // What may come twice: a chunk for each time that something got in the way.
    let interruptions = u64::try_from(cuts + sources + restarts).unwrap_or(u64::MAX);
    let once = seen.received.saturating_sub(interruptions.saturating_mul(CHUNK_BYTES));
    let compared = |meanwhile: Duration| {
        let ratio = meanwhile.as_secs_f64() / seen.p99_before.as_secs_f64().max(1e-9);
        format!("{:.0} us meanwhile (x{ratio:.2})", microseconds(meanwhile))
    };
    let meanwhile = seen.p99_meanwhile.map_or_else(|| "not measured".to_owned(), compared);
    let limits = seen.limits.map(|limits| {
        let (disk, loopback) = (limits.disk, limits.loopback);
        let share = rate / limits.least().max(1e-9);
        format!("; the disk takes {disk:.0} MiB/s and loopback {loopback:.0}: x{share:.2}")
    });
    let rss: Vec<String> = seen.peak_rss_kib.iter().map(|kib| (kib / 1024).to_string()).collect();
    format!(
        "catch-up, {}: {} MiB{} in {:.1} s ({rate:.0} MiB/s), {cuts} cuts, {sources} sources killed, \
         {restarts} restarts{}; received {} MiB, x{:.3} without a chunk for each of these; p99 {:.0} us \
         before, {meanwhile}; peak RSS {} MiB, of {} MiB of state and {} MiB of footprint",
        options.durability,
        options.mib,
        if options.compressible { " that compress well" } else { "" },
        seen.took.as_secs_f64(),
        limits.unwrap_or_default(),
        seen.received >> 20,
        count(once) / count((options.mib << 20).max(1)),
        microseconds(seen.p99_before),
        rss.join("/"),
        options.mib,
        seen.footprint_bytes >> 20,
    )
}

/// A catch-up as short as a test needs.
#[must_use]
pub fn short(durability: Durability) -> Options {
    Options {
        mib: 8,
        cuts: 1,
        sources_killed: 1,
        restarts: 1,
        rate: 500,
        idle: false,
        budget: 32,
        compressible: false,
        durability,
        dir: None,
    }
}

#[cfg(test)]
mod tests {
    use vr_core::model::encoding::chunk::Carried;

    use super::*;

    #[test]
    fn what_is_written_compresses_only_if_it_is_to() {
        for compressible in [false, true] {
            let payload = payload(compressible);
            assert_eq!(u64::try_from(payload.len()), Ok(PAYLOAD_BYTES));
            // As the service writes them down: behind their lengths.
            let four = [PAYLOAD_BYTES.to_le_bytes().as_slice(), &payload].concat().repeat(4);
            let carried = Carried::compressed(four.into());
            assert_eq!(matches!(carried, Carried::Compressed(_)), compressible);
        }
    }

    #[test]
    fn disturbances_are_mixed() {
        let options =
            Options { cuts: 4, sources_killed: 2, restarts: 1, ..short(Durability::Full) };
        let schedule = schedule(&options);
        let places = |wanted| schedule.iter().enumerate().filter(move |(_, is)| **is == wanted);
        assert_eq!(places(Disturbance::Cut).count(), 4);
        assert!(places(Disturbance::SourceKilled).map(|(place, _)| place).is_sorted());
        assert_eq!(schedule.iter().position(|is| *is == Disturbance::Restarted), Some(3));
    }

    #[test]
    fn the_words_tell_what_was_fetched_in_vain() {
        let options = Options { mib: 100, ..short(Durability::Full) };
        let seen = CaughtUp {
            took: Duration::from_secs(2),
            disturbed: [2, 1, 1],
            received: (110 << 20) + 4 * CHUNK_BYTES,
            p99_before: Duration::from_millis(2),
            p99_meanwhile: Some(Duration::from_millis(3)),
            limits: Some(Limits { disk: 100.0, loopback: 900.0 }),
            peak_rss_kib: vec![2048, 1024, 4096],
            footprint_bytes: 7 << 20,
        };
        let text = describe(&options, &seen);
        assert!(
            text.contains("50 MiB/s") && text.contains("x1.100 without") && text.contains("x1.50")
        );
        assert!(text.contains("loopback 900: x0.50"), "{text}");
        assert!(text.ends_with("2/1/4 MiB, of 100 MiB of state and 7 MiB of footprint"), "{text}");
    }
}
