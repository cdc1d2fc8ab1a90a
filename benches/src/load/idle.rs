//! What a group costs that nobody asks anything of: processor time and wake-ups of each replica,
//! beside the least that its heartbeats can cost.

use std::{path::PathBuf, time::Duration};

use tokio::time::sleep;
use vr_core::{Config, Durability};

use crate::load::{
    fleet::Fleet, process::Spent, pulse, row::markdown, summary::count, workload::seconds,
};

/// How long a group is left alone before it is watched.
const SETTLING: Duration = Duration::from_secs(2);

/// Which group, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How long it is watched
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub seconds: Duration,
    /// Replicas
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub replicas: usize,
    /// What is on disk: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::Full)]
    pub durability: Durability,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What was spent.
#[derive(Clone, Debug)]
pub struct Idle {
    /// By each replica.
    pub replicas: Vec<Spent>,
    /// By three threads, or as many as there are replicas, that pass as many heartbeats and answers
    /// and do nothing else.
    pub floor: Spent,
}

/// Watches an idle group, and then its floor for as long.
///
/// # Errors
/// The group does not start, or the system does not say what was spent.
pub async fn run(options: &Options) -> anyhow::Result<Idle> {
    let (durability, dir) = (options.durability, options.dir.as_deref());
    let fleet = Fleet::start_with(options.replicas, durability, dir, Vec::new()).await?;
    sleep(SETTLING).await;
    let before = fleet.spent();
    sleep(options.seconds).await;
    let spent = fleet.spent().into_iter().zip(before);
    let replicas = spent.map(|(after, before)| after.since(&before)).collect();
    drop(fleet);
    let (count, interval) = (options.replicas, Config::default().heartbeat_interval);
    let beats = options.seconds.as_millis() / interval.as_millis().max(1);
    let beats = u32::try_from(beats).unwrap_or(u32::MAX);
    let floor = tokio::task::spawn_blocking(move || pulse::run(count, beats, interval)).await??;
    Ok(Idle { replicas, floor })
}

/// A table: of each replica, of all, and of the floor.
#[must_use]
pub fn describe(options: &Options, idle: &Idle) -> String {
    let seconds = options.seconds.as_secs_f64();
    let line = |name: String, spent: &Spent| {
        let share = 100.0 * spent.processor.as_secs_f64() / seconds;
        let wakes = count(spent.wakes) / seconds;
        vec![name, format!("{share:.2} %"), format!("{wakes:.0}")]
    };
    let mut lines = vec![["replica", "of a core", "wake-ups a second"].map(str::to_owned).to_vec()];
    lines.extend(idle.replicas.iter().enumerate().map(|(at, spent)| line(at.to_string(), spent)));
    let all = idle.replicas.iter().fold(Spent::default(), |all, one| all.and(one));
    lines.push(line("all".to_owned(), &all));
    lines.push(line("floor".to_owned(), &idle.floor));
    markdown(&lines)
}

/// As short as a test needs.
#[must_use]
pub fn short(durability: Durability) -> Options {
    Options { seconds: Duration::from_millis(300), replicas: 3, durability, dir: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_that_was_watched() {
        let options = Options { seconds: Duration::from_secs(10), ..short(Durability::Full) };
        let spent = Spent { processor: Duration::from_millis(20), wakes: 400 };
        let floor = Spent { processor: Duration::from_millis(5), wakes: 300 };
        let text = describe(&options, &Idle { replicas: vec![spent, spent], floor });
        assert!(text.contains("| 0       | 0.20 %    |                40 |"), "{text}");
        assert!(text.contains("| all     | 0.40 %    |                80 |"), "{text}");
        assert!(text.contains("| floor   | 0.05 %    |                30 |"), "{text}");
    }
}
