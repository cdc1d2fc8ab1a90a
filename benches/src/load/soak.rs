//! Many operations of many sessions: memory and disk of each replica must stay flat.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::task::JoinSet;
use vr_core::Durability;

use crate::load::{
    fleet::Fleet,
    generator::{self, say},
    plot::{Panel, svg},
    row::markdown,
    summary::count,
};

/// Operations of one session that are in flight at a time.
const WINDOW: u64 = 16;
/// Operations of each session that fills the client table: more than its stored replies.
const FILLING: u64 = 128;
const PAYLOAD: &[u8] = &[0x5a; 256];

/// How much is done, and by how many.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Operations in all
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub operations: u64,
    /// Sessions in all; each does its share and is left behind. As many fill the client table before
    /// anything is counted
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub sessions: u64,
    /// Sessions that are in use at a time, each with 16 operations in flight
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub at_once: u64,
    /// How often memory and disk are looked at
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub samples: u64,
    /// Kill one backup at the start, and leave it dead
    #[arg(long)]
    pub dead_backup: bool,
    /// What is on disk: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::Full)]
    pub durability: Durability,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where to draw memory and disk over the operations, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// What the replicas took at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Operations so far.
    pub operations: u64,
    /// How long the last of them took, in seconds.
    pub seconds: f64,
    /// Operations since the sample before.
    pub since: u64,
    /// Memory of each replica's process, in KiB; 0 for one that is down.
    pub rss_kib: Vec<u64>,
    /// Disk of each replica, in bytes.
    pub disk_bytes: Vec<u64>,
}

/// Has everything executed, and looks at the replicas in between.
///
/// # Errors
/// A call returned an error.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Sample>> {
    let mut fleet = Fleet::start(options.durability, options.dir.as_deref()).await?;
    if options.dead_backup {
        let primary = fleet.primary().await?;
        let backup = (0..fleet.count()).find(|replica| *replica != primary);
        fleet.kill(backup.context("there is no backup")?).await?;
    }
    let samples = options.samples.clamp(1, options.operations.max(1));
    let sessions = options.sessions.div_ceil(samples).max(1);
    let each = options.operations.div_ceil(samples).div_ceil(sessions).max(1);
    let at_once = options.at_once.max(1);
    execute(&fleet, options.sessions, FILLING, at_once).await?;
    let mut seen: Vec<Sample> = Vec::new();
    let mut operations = 0;
    for _ in 0..samples {
        let began = Instant::now();
        let since = execute(&fleet, sessions, each, at_once).await?;
        operations += since;
        let replicas = 0..fleet.count();
        let sample = Sample {
            operations,
            seconds: began.elapsed().as_secs_f64(),
            since,
            rss_kib: replicas.clone().map(|replica| fleet.rss_kib(replica)).collect(),
            disk_bytes: replicas.map(|replica| fleet.disk_bytes(replica)).collect(),
        };
        say(&format!("  {operations} operations, {:?} KiB", sample.rss_kib));
        seen.push(sample);
    }
    if let Some(file) = &options.plot {
        std::fs::write(file, picture(&seen))?;
    }
    Ok(seen)
}

/// Opens `sessions` sessions, `at_once` at a time, and has each do `each` operations.
async fn execute(fleet: &Fleet, sessions: u64, each: u64, at_once: u64) -> anyhow::Result<u64> {
    let mut under_way = JoinSet::new();
    let (mut begun, mut done) = (0, 0);
    while begun < sessions || !under_way.is_empty() {
        let is_full = u64::try_from(under_way.len()).is_ok_and(|length| length >= at_once);
        if begun < sessions && !is_full {
            let client = fleet.client().await?;
            begun += 1;
            under_way.spawn(async move {
                let payload = Bytes::from_static(PAYLOAD);
                generator::execute(&[client], WINDOW, each, &payload).await.map(|()| each)
            });
            continue;
        }
        if let Some(ended) = under_way.join_next().await {
            done += ended??;
        }
    }
    Ok(done)
}

/// The most that a replica grew after the first quarter of the run, as a ratio: of memory, and of
/// disk.
///
/// # Errors
/// There are too few samples to tell.
pub fn growth(samples: &[Sample]) -> anyhow::Result<(f64, f64)> {
    let warm = samples.get(samples.len() / 4);
    let (Some(warm), Some(last)) = (warm, samples.last().filter(|_| samples.len() >= 4)) else {
        bail!("four samples are needed to tell");
    };
    let most = |before: &[u64], after: &[u64]| {
        let pairs = before.iter().zip(after).filter(|(before, _)| **before > 0);
        pairs.map(|(before, after)| count(*after) / count(*before)).fold(0.0, f64::max)
    };
    Ok((most(&warm.rss_kib, &last.rss_kib), most(&warm.disk_bytes, &last.disk_bytes)))
}

/// The samples as a table, and the verdict.
#[must_use]
pub fn describe(options: &Options, samples: &[Sample]) -> String {
    let heads = ["mode", "replicas", "operations", "op/s", "RSS MiB", "disk MiB"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    let join = |numbers: &[u64], unit: u64| {
        numbers.iter().map(|number| (number / unit).to_string()).collect::<Vec<_>>().join("/")
    };
    lines.extend(samples.iter().map(|sample| {
        vec![
            options.durability.to_string(),
            if options.dead_backup { "one dead" } else { "three" }.to_owned(),
            sample.operations.to_string(),
            format!("{:.0}", count(sample.since) / sample.seconds.max(1e-9)),
            join(&sample.rss_kib, 1024),
            join(&sample.disk_bytes, 1 << 20),
        ]
    }));
    let mut text = markdown(&lines);
    let verdict = growth(samples).map(|(memory, disk)| {
        format!("after the first quarter: memory x{memory:.2}, disk x{disk:.2}")
    });
    text.push_str(&verdict.unwrap_or_else(|error| error.to_string()));
    text
}

/// Memory and disk over the operations, as SVG.
#[must_use]
pub fn picture(samples: &[Sample]) -> String {
    let panel = |title: &str, unit: u64, of: fn(&Sample) -> &[u64]| {
        let replicas = samples.iter().map(|sample| of(sample).len()).max().unwrap_or(0);
        let line = |replica: usize| {
            let points = samples.iter().filter_map(|sample| {
                let value = of(sample).get(replica)?;
                Some((count(sample.operations) / 1e6, count(*value) / count(unit)))
            });
            (format!("replica {replica}"), points.collect())
        };
        Panel { title: title.to_owned(), lines: (0..replicas).map(line).collect() }
    };
    let memory = panel("memory in MiB", 1024, |sample| &sample.rss_kib);
    let disk = panel("disk in MiB", 1 << 20, |sample| &sample.disk_bytes);
    svg(&[memory, disk], "millions of operations")
}

/// A soak as short as a test needs.
#[must_use]
pub fn short(durability: Durability) -> Options {
    Options {
        operations: 4000,
        sessions: 8,
        at_once: 2,
        samples: 4,
        dead_backup: true,
        durability,
        dir: None,
        plot: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rss: u64, disk: u64) -> Sample {
        let (rss_kib, disk_bytes) = (vec![rss, 0], vec![disk, 1]);
        Sample { operations: 9, seconds: 1.0, since: 9, rss_kib, disk_bytes }
    }

    #[test]
    fn growth_counts_from_the_end_of_the_first_quarter() {
        let samples = [sample(1, 1), sample(100, 50), sample(300, 9), sample(150, 100)];
        assert_eq!(growth(&samples).unwrap(), (1.5, 2.0));
        assert!(growth(&samples[..3]).is_err());
        assert_eq!(picture(&samples).matches("<polyline").count(), 4, "two replicas, twice");
    }
}
