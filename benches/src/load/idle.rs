//! What a group costs that nobody asks anything of: processor time and wake-ups of each replica.

use std::{path::PathBuf, time::Duration};

use tokio::time::sleep;
use vr_core::Durability;

use crate::load::{fleet::Fleet, process::Spent, row::markdown, summary::count, workload::seconds};

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

/// Watches an idle group; what each replica spent.
///
/// # Errors
/// The group does not start.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Spent>> {
    let (durability, dir) = (options.durability, options.dir.as_deref());
    let fleet = Fleet::start_with(options.replicas, durability, dir, Vec::new()).await?;
    sleep(SETTLING).await;
    let before = fleet.spent();
    sleep(options.seconds).await;
    let spent = fleet.spent().into_iter().zip(before);
    Ok(spent.map(|(after, before)| after.since(&before)).collect())
}

/// A table: of each replica and of all.
#[must_use]
pub fn describe(options: &Options, spent: &[Spent]) -> String {
    let seconds = options.seconds.as_secs_f64();
    let line = |name: String, spent: &Spent| {
        let share = 100.0 * spent.processor.as_secs_f64() / seconds;
        let wakes = count(spent.wakes) / seconds;
        vec![name, format!("{share:.2} %"), format!("{wakes:.0}")]
    };
    let mut lines = vec![["replica", "of a core", "wake-ups a second"].map(str::to_owned).to_vec()];
    lines.extend(spent.iter().enumerate().map(|(at, spent)| line(at.to_string(), spent)));
    let all = spent.iter().fold(Spent::default(), |all, one| all.and(one));
    lines.push(line("all".to_owned(), &all));
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
        let text = describe(&options, &[spent, spent]);
        assert!(text.contains("| 0       | 0.20 %    |                40 |"), "{text}");
        assert!(text.contains("| all     | 0.40 %    |                80 |"), "{text}");
    }
}
