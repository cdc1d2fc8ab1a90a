//! Restarts in turn and planned hand-offs, under a load that must notice no error.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::bail;
use tokio::{task::JoinHandle, time::sleep};
use vr_core::Durability;

use crate::load::{
    fleet::Fleet,
    generator::{Measured, Observer, drive_observed, say},
    summary::median,
    workload::Workload,
};

/// How long a load goes on around each disturbance.
const CALM: Duration = Duration::from_millis(300);
/// Longer than any of these runs.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// Which load runs meanwhile.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How often every replica is restarted, or the primary hands off
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub rounds: usize,
    /// Clients that write meanwhile, each with one operation in flight
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub clients: usize,
    /// Operations a second that they begin together. The log is kept whole, and a replica that
    /// keeps none on disk fetches all of it when it comes back
    #[arg(long, value_name = "PER_SECOND", default_value_t = 2000)]
    pub rate: u32,
    /// What is on disk: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::ViewOnly)]
    pub durability: Durability,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What a load saw of restarts or hand-offs.
#[derive(Clone, Debug, Default)]
pub struct Disturbed {
    /// The longest time without an acknowledged write around each disturbance of the primary, in
    /// milliseconds.
    pub of_primary: Vec<f64>,
    /// The same for the backups.
    pub of_backups: Vec<f64>,
    /// Operations that succeeded.
    pub succeeded: u64,
}

/// Stops every replica in turn in good order, and starts it again, as many rounds as are wanted.
///
/// # Errors
/// A call returned an error, or the group does not become well again.
pub async fn rolling_restart(options: &Options) -> anyhow::Result<Disturbed> {
    let mut fleet = Fleet::start(options.durability, options.dir.as_deref()).await?;
    let load = Load::start(&fleet, options).await?;
    let mut seen = Disturbed::default();
    for round in 1..=options.rounds {
        for replica in 0..fleet.count() {
            let is_primary = fleet.primary().await? == replica;
            load.calm().await;
            fleet.stop_one(replica).await?;
            fleet.start_one(replica)?;
            fleet.wait_until_well().await?;
            let gap = load.gap().await;
            let role = if is_primary { "primary" } else { "backup" };
            say(&format!("  round {round}: replica {replica}, {role}: {gap:.1} ms"));
            if is_primary { &mut seen.of_primary } else { &mut seen.of_backups }.push(gap);
        }
    }
    load.end(seen).await
}

/// Lets the primary hand its view off, as often as is wanted.
///
/// # Errors
/// A call returned an error, or a hand-off was refused.
pub async fn hand_offs(options: &Options) -> anyhow::Result<Disturbed> {
    let mut fleet = Fleet::start(options.durability, options.dir.as_deref()).await?;
    let load = Load::start(&fleet, options).await?;
    let mut seen = Disturbed::default();
    for round in 1..=options.rounds {
        fleet.wait_until_well().await?;
        let primary = fleet.primary().await?;
        load.calm().await;
        let answer = fleet.ask(primary, "hand-off").await?;
        if answer != "done" {
            bail!("replica {primary} hands nothing off: {answer}");
        }
        let gap = load.gap().await;
        say(&format!("  hand-off {round}: {gap:.1} ms"));
        seen.of_primary.push(gap);
    }
    load.end(seen).await
}

/// What was seen, in words.
#[must_use]
pub fn describe(what: &str, options: &Options, seen: &Disturbed) -> String {
    let list = |gaps: &[f64]| {
        let longest = gaps.iter().copied().fold(0.0, f64::max);
        format!("{} times, median {:.1} ms, longest {longest:.1} ms", gaps.len(), median(gaps))
    };
    let mut text = format!(
        "{what}, {}, {} clients, {} op/s: {} operations, no error; longest gap without an acknowledged \
         write: primary {}",
        options.durability,
        options.clients,
        options.rate,
        seen.succeeded,
        list(&seen.of_primary)
    );
    if !seen.of_backups.is_empty() {
        text.push_str(&format!("; backup {}", list(&seen.of_backups)));
    }
    text
}

/// A load that goes on until it is told to end.
struct Load {
    observer: Arc<Observer>,
    task: JoinHandle<Measured>,
}

impl Load {
    async fn start(fleet: &Fleet, options: &Options) -> anyhow::Result<Self> {
        let workload = Workload {
            clients: options.clients,
            clients_per_session: 1,
            payload_bytes: 256,
            read_percent: 0,
            // Only gaps are wanted, so that no latency need be kept.
            warm_up: FOR_EVER,
            duration: FOR_EVER,
            rate: Some(options.rate),
            progress: false,
        };
        let mut targets = Vec::new();
        for _ in 0..workload.sessions() {
            targets.push(fleet.client().await?);
        }
        let observer = Arc::new(Observer::default());
        let observed = Arc::clone(&observer);
        let load = async move { drive_observed(&targets, &workload, observed).await };
        let task = tokio::spawn(load);
        sleep(CALM).await;
        Ok(Self { observer, task })
    }

    /// Lets the load run undisturbed, and forgets the gaps so far.
    async fn calm(&self) {
        sleep(CALM).await;
        let _ = self.observer.take_longest_gap();
    }

    /// The longest gap since, in milliseconds, once the load runs again.
    async fn gap(&self) -> f64 {
        sleep(CALM).await;
        self.observer.take_longest_gap().as_secs_f64() * 1e3
    }

    async fn end(self, seen: Disturbed) -> anyhow::Result<Disturbed> {
        self.observer.stop();
        let measured = self.task.await?.without_errors()?;
        Ok(Disturbed { succeeded: measured.succeeded, ..seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_tell_the_primary_from_the_backups() {
        let options =
            Options { rounds: 1, clients: 4, rate: 1000, durability: Durability::Full, dir: None };
        let seen = Disturbed { of_primary: vec![8.0], of_backups: vec![1.0, 3.0], succeeded: 9 };
        assert_eq!(
            describe("rolling restart", &options, &seen),
            "rolling restart, full, 4 clients, 1000 op/s: 9 operations, no error; longest gap without an \
             acknowledged write: primary 1 times, median 8.0 ms, longest 8.0 ms; backup 2 times, \
             median 2.0 ms, longest 3.0 ms"
        );
    }
}
