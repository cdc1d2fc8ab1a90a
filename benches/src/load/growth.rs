//! Whether an operation costs more in a group that is old, has many sessions, or a large state.

use std::time::Instant;

use anyhow::bail;
use bytes::Bytes;
use vr_core::{Client, Config, Durability, Node, Raw};

use crate::load::{
    generator::{execute, say},
    group::Group,
    row::markdown,
    service::Keeper,
    summary::{count, median},
};

/// Bytes of the operations that make up a large state.
const KEPT_BYTES: u64 = 64 << 10;
/// Operations that are in flight.
const AT_ONCE: u64 = 64;

/// How old, how many and how large.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Operations that the old group has executed
    #[arg(long, value_name = "N", default_value_t = 5_000_000)]
    pub operations: u64,
    /// Sessions that are open in the group with many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub sessions: u64,
    /// MiB of state in the group with a large one
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub mib: u64,
    /// Rounds, in each of which every group has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,
    /// Operations between two checkpoints; none may fall into a round, since what is compared is the
    /// operations' cost
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub checkpoint_ops: u32,
    /// Operations that every group executes before the first round: past a checkpoint, so that all
    /// have memory that their log let go of; and a third as many once that checkpoint is there,
    /// during which it is let go of
    #[arg(long, value_name = "N", default_value_t = 1_050_000)]
    pub warm_up: u64,
    /// Operations of each turn
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub turn: u64,
}

/// What one kind of group did in each round.
#[derive(Clone, Debug, PartialEq)]
pub struct Grown {
    /// Which kind.
    pub name: String,
    /// Operations a second.
    pub per_second: Vec<f64>,
}

/// A group of three nodes on this thread, and a client of it.
struct Subject {
    name: String,
    group: Group<Raw>,
    client: Client<Raw>,
}

impl Subject {
    async fn start(name: String, keeper: Keeper, checkpoint_ops: u32) -> anyhow::Result<Self> {
        let mut config = Config::default();
        config.checkpoint_ops = checkpoint_ops;
        config.checkpoint_bytes = config.log_bytes_max / 2;
        config.log_retain_ops = 0;
        let node = || Node::builder_raw(keeper.clone()).config(config.clone());
        let group = Group::start(Durability::ViewOnly, node).await?;
        let client = group.client().await?;
        Ok(Self { name, group, client })
    }

    /// Has `operations` of them executed.
    async fn execute(&self, operations: u64, payload: &Bytes) -> anyhow::Result<()> {
        execute(std::slice::from_ref(&self.client), AT_ONCE, operations, payload).await
    }

    /// Operations a second.
    async fn turn(&self, operations: u64, payload: &Bytes) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.execute(operations, payload).await?;
        Ok(count(operations) / began.elapsed().as_secs_f64())
    }
}

/// Prepares a group of each kind, and lets them take turns.
///
/// # Errors
/// A call returned an error, a node stopped, or a checkpoint fell into the rounds.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Grown>> {
    let start = |name, keeper| Subject::start(name, keeper, options.checkpoint_ops);
    let small = Bytes::from_static(&[0x5a; 256]);
    let young = start("young, one session, no state".to_owned(), Keeper::of(0)).await?;
    let old = start(format!("after {} ops", options.operations), Keeper::of(0)).await?;
    old.execute(options.operations, &small).await?;
    let many = start(format!("{} sessions", options.sessions), Keeper::of(0)).await?;
    for _ in 1..options.sessions {
        many.group.client().await?.execute_raw(small.clone()).await?;
    }
    let slots = ((options.mib << 20) / KEPT_BYTES).max(1);
    let name = format!("{} MiB of state", options.mib);
    let large = start(name, Keeper::of(slots)).await?;
    large.execute(slots, &Bytes::from(vec![0x5a; usize::try_from(KEPT_BYTES)?])).await?;
    let subjects = [young, old, many, large];
    let mut grown: Vec<Grown> = subjects
        .iter()
        .map(|subject| Grown { name: subject.name.clone(), per_second: Vec::new() })
        .collect();
    for subject in &subjects {
        say(&format!("  {}: warming up", subject.name));
        subject.execute(options.warm_up, &small).await?;
        subject.group.checkpointed().await?;
        subject.execute(options.warm_up / 3, &small).await?;
    }
    let due = |subject: &Subject| subject.group.checkpoint_due();
    let due_before: Vec<_> = subjects.iter().map(due).collect();
    for round in 1..=options.rounds {
        for (subject, grown) in subjects.iter().zip(&mut grown) {
            let per_second = subject.turn(options.turn, &small).await?;
            say(&format!("  round {round}, {}: {per_second:.0} op/s", subject.name));
            grown.per_second.push(per_second);
        }
    }
    if !subjects.iter().map(due).eq(due_before) {
        bail!("a checkpoint fell into the rounds: they have too many operations");
    }
    for Subject { group, client, .. } in subjects {
        drop(client);
        group.stop().await?;
    }
    Ok(grown)
}

/// A table: the median, and the median of the ratios to the first kind in the same rounds.
#[must_use]
pub fn describe(grown: &[Grown]) -> String {
    let mut lines = vec![["group", "op/s", "ratio"].map(str::to_owned).to_vec()];
    let Some(first) = grown.first() else { return String::new() };
    lines.extend(grown.iter().map(|kind| {
        let pairs = kind.per_second.iter().zip(&first.per_second);
        let ratios: Vec<f64> = pairs.map(|(here, there)| here / there.max(1e-9)).collect();
        vec![
            kind.name.clone(),
            format!("{:.0}", median(&kind.per_second)),
            format!("{:.2}", median(&ratios)),
        ]
    }));
    markdown(&lines)
}

/// As short as a test needs.
#[must_use]
pub fn short() -> Options {
    Options {
        operations: 2000,
        sessions: 20,
        mib: 4,
        rounds: 1,
        checkpoint_ops: 1500,
        warm_up: 2000,
        turn: 200,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let kind = |name: &str, per_second: &[f64]| Grown {
            name: name.to_owned(),
            per_second: per_second.to_vec(),
        };
        let grown = [kind("young", &[100.0, 200.0, 400.0]), kind("old", &[90.0, 200.0, 200.0])];
        let text = describe(&grown);
        assert!(text.contains("| young | 200  |  1.00 |"), "{text}");
        assert!(text.contains("| old   | 200  |  0.90 |"), "{text}");
    }
}
