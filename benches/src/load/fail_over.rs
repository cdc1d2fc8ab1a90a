//! How long nothing is acknowledged when the primary's process is killed or falls silent.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use vr_core::{Client, Durability, Raw};

use crate::load::{
    fleet::Fleet,
    generator::{Target, say},
    summary::median,
};

/// Clients that write meanwhile.
const WRITERS: usize = 8;
/// How long each of them pauses between two writes, so that some write begins soon after any
/// moment.
const PAUSE: Duration = Duration::from_millis(2);
/// How long the group is left alone before each failure.
const CALM: Duration = Duration::from_millis(500);
/// Writes that may be reported and not yet looked at.
const REPORTS_MAX: usize = 1024;
/// How long a fail-over may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is done to the primary, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How often
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub runs: usize,
    /// Stop the process with SIGSTOP instead of SIGKILL: its connections stay open, as those of a
    /// host that fell silent
    #[arg(long)]
    pub silent: bool,
    /// What is on disk: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::ViewOnly)]
    pub durability: Durability,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A write that was acknowledged.
struct Acknowledged {
    began: Instant,
    ended: Instant,
}

/// From the signal to the first acknowledgement of a write that began after it, in milliseconds,
/// for each run.
///
/// # Errors
/// The group does not come about, or nothing is acknowledged any more.
pub async fn run(options: &Options) -> anyhow::Result<Vec<f64>> {
    let mut fleet = Fleet::start(options.durability, options.dir.as_deref()).await?;
    let mut gaps = Vec::new();
    for number in 1..=options.runs {
        let gap = once(&mut fleet, options.silent).await?;
        say(&format!("  run {number}: {gap:.1} ms"));
        gaps.push(gap);
    }
    Ok(gaps)
}

/// What the gaps come to, in words.
#[must_use]
pub fn describe(options: &Options, gaps: &[f64]) -> String {
    let what = if options.silent { "SIGSTOP" } else { "SIGKILL" };
    let (durability, runs) = (options.durability, gaps.len());
    let largest = gaps.iter().copied().fold(0.0, f64::max);
    let smallest = gaps.iter().copied().fold(f64::MAX, f64::min);
    format!(
        "fail-over, {what} of the primary, {durability}: median {:.1} ms of {runs} runs \
         ({smallest:.1} to {largest:.1})",
        median(gaps)
    )
}

async fn once(fleet: &mut Fleet, silent: bool) -> anyhow::Result<f64> {
    let (reports, mut acknowledged) = mpsc::channel(REPORTS_MAX);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(fleet.client().await?, reports.clone()));
    }
    drop(reports);
    let primary = fleet.primary().await?;
    let calm = Instant::now() + CALM;
    while Instant::now() < calm {
        acknowledged.recv().await.context("nobody writes")?;
    }
    let signalled = Instant::now();
    if silent {
        fleet.signal(primary, Signal::SIGSTOP)?;
    } else {
        fleet.signal(primary, Signal::SIGKILL)?;
    }
    let delivered = Instant::now();
    let first = async {
        loop {
            let Acknowledged { began, ended } = acknowledged.recv().await?;
            if began >= delivered {
                return Some(ended.duration_since(signalled));
            }
        }
    };
    let gap = tokio::time::timeout(PATIENCE, first).await?.context("nobody writes")?;
    writers.abort_all();
    if silent {
        fleet.signal(primary, Signal::SIGCONT)?;
    } else {
        fleet.kill(primary).await?;
        fleet.start_one(primary)?;
    }
    fleet.wait_until_well().await?;
    Ok(gap.as_secs_f64() * 1e3)
}

async fn write(client: Client<Raw>, reports: mpsc::Sender<Acknowledged>) {
    let (client, payload) = (Arc::new(client), Bytes::from_static(&[0x5a; 256]));
    loop {
        let began = Instant::now();
        if client.write(payload.clone()).await.is_ok() {
            let ended = Instant::now();
            if reports.send(Acknowledged { began, ended }).await.is_err() {
                return;
            }
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_what_was_done_and_the_median() {
        let options = Options { runs: 3, silent: true, durability: Durability::Full, dir: None };
        assert_eq!(
            describe(&options, &[3.0, 1.0, 2.0]),
            "fail-over, SIGSTOP of the primary, full: median 2.0 ms of 3 runs (1.0 to 3.0)"
        );
    }
}
