//! A backup that stands still under load: it must cost the primary neither throughput nor memory.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use vr_core::Durability;

use crate::load::{
    fleet::Fleet,
    generator::{drive, say},
    summary::{count, median},
    workload::{Workload, seconds},
};

/// How long a backup may take to catch up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a backup is paused, and under what load.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds: each has one half with all replicas, and one with a paused backup
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: usize,
    /// How long each half is
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub seconds: Duration,
    /// Clients, each with one operation in flight
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub clients: usize,
    /// What is on disk: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::Full)]
    pub durability: Durability,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// One round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Operations a second with all replicas, and with a paused backup.
    pub per_second: (f64, f64),
    /// Memory of the primary's process before and after the pause, in KiB.
    pub primary_kib: (u64, u64),
    /// How long the backup took to catch up.
    pub caught_up: Duration,
}

/// Pauses a backup by turns.
///
/// # Errors
/// A call returned an error, or the backup does not catch up.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Round>> {
    let mut fleet = Fleet::start(options.durability, options.dir.as_deref()).await?;
    let workload = Workload::of_writes(options.clients, options.seconds);
    let mut clients = Vec::new();
    for _ in 0..workload.sessions() {
        clients.push(fleet.client().await?);
    }
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let primary = fleet.primary().await?;
        let backup = (0..fleet.count()).find(|replica| *replica != primary);
        let backup = backup.context("there is no backup")?;
        let all = per_second(&clients, &workload).await?;
        let before = fleet.rss_kib(primary);
        fleet.signal(backup, Signal::SIGSTOP)?;
        let paused = per_second(&clients, &workload).await;
        fleet.signal(backup, Signal::SIGCONT)?;
        let after = fleet.rss_kib(primary);
        let goal = fleet.status(primary).await?.applied;
        let caught_up = fleet.wait_until_applied(backup, goal, PATIENCE).await?;
        let round = Round { per_second: (all, paused?), primary_kib: (before, after), caught_up };
        say(&format!("  round {number}: {round:?}"));
        rounds.push(round);
    }
    Ok(rounds)
}

async fn per_second(
    clients: &[vr_core::Client<vr_core::Raw>],
    workload: &Workload,
) -> anyhow::Result<f64> {
    let measured = drive(clients, workload).await.without_errors()?;
    Ok(count(measured.succeeded) / workload.duration.as_secs_f64())
}

/// What was seen, in words.
#[must_use]
pub fn describe(options: &Options, rounds: &[Round]) -> String {
    let of = |of: fn(&Round) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    format!(
        "paused backup, {}, {} clients, {} rounds of {:?}: throughput x{:.2} of that with all \
         replicas, memory of the primary x{:.2}, caught up after {:.1} s (medians)",
        options.durability,
        options.clients,
        rounds.len(),
        options.seconds,
        of(|round| round.per_second.1 / round.per_second.0.max(1e-9)),
        of(|round| count(round.primary_kib.1) / count(round.primary_kib.0.max(1))),
        of(|round| round.caught_up.as_secs_f64()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_have_the_medians_of_the_rounds() {
        let round = |paused, kib, seconds| Round {
            per_second: (100.0, paused),
            primary_kib: (100, kib),
            caught_up: Duration::from_secs(seconds),
        };
        let options = Options {
            rounds: 3,
            seconds: Duration::from_secs(60),
            clients: 64,
            durability: Durability::Full,
            dir: None,
        };
        let text =
            describe(&options, &[round(90.0, 110, 1), round(95.0, 120, 2), round(50.0, 300, 9)]);
        assert!(text.contains("x0.90 of that") && text.contains("primary x1.20"), "{text}");
        assert!(text.contains("after 2.0 s"), "{text}");
    }
}
