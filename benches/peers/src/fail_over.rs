//! How long nothing is acknowledged when a leader's process is killed: ours and the peers'.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use vr_benches::load::{fail_over, generator::say, summary::median};
use vr_core::Durability;

use crate::{
    etcd::{self, Pace},
    fleet::Fleet,
    rounds::System,
    wire::{Connection, Wire},
};

/// Clients that write meanwhile, each after a pause.
const WRITERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(2);
/// How long a group is left alone before its leader is killed.
const CALM: Duration = Duration::from_millis(500);
/// How often a client without a leader asks everybody.
const SEARCH: Duration = Duration::from_millis(1);
/// How long a fail-over may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose leaders are killed, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Systems; the floor has no leader to lose
    #[arg(long, value_name = "SYSTEM,..", value_delimiter = ',',
          default_values_t = [System::Vr, System::Raft, System::Omni, System::Openraft,
                              System::Openraft10, System::Etcd])]
    system: Vec<System>,
    /// How often each
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// Milliseconds between etcd's heartbeats; elections begin after five to ten of them
    #[arg(long, value_name = "MS", default_value_t = 10)]
    etcd_heartbeat: u32,
    /// Where failover.csv is written
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    out: PathBuf,
}

/// Kills one leader after the other, system by system in turn, and prints a table.
pub async fn run(mut options: Options) -> anyhow::Result<()> {
    etcd::drop_if_missing(&mut options.system);
    let mut gaps: Vec<(System, Vec<f64>)> =
        options.system.iter().map(|system| (*system, Vec::new())).collect();
    for number in 1..=options.runs {
        for (system, gaps) in &mut gaps {
            let gap = match system {
                System::Vr => ours().await?,
                System::Raft | System::Omni | System::Openraft | System::Openraft10 => {
                    theirs::<Wire>(Fleet::start(*system, false, 0, None)?).await?
                }
                System::Etcd => {
                    let pace = Pace::brisk(options.etcd_heartbeat);
                    theirs::<etcd::Session>(etcd::start(pace, None)?).await?
                }
                System::VrTyped => anyhow::bail!("a typed service fails over as the other does"),
                System::RaftEngine => anyhow::bail!("nothing is on disk here"),
                System::Floor => anyhow::bail!("the floor has no leader to lose"),
            };
            say(&format!("  run {number}: {}: {gap:.1} ms", system.name()));
            gaps.push(gap);
        }
    }
    std::fs::create_dir_all(&options.out)?;
    let mut csv = String::from("system,milliseconds\n");
    println!("| system | SIGKILL to the first acknowledged write, ms | p90 | largest | runs |");
    println!("|---|---:|---:|---:|---:|");
    for (system, gaps) in &mut gaps {
        gaps.sort_by(f64::total_cmp);
        let at = |part: usize| gaps.get((gaps.len() * part / 100).min(gaps.len() - 1)).copied();
        let (p90, largest) = (at(90).unwrap_or_default(), at(100).unwrap_or_default());
        let (name, runs) = (system.name(), gaps.len());
        println!("| {name} | {:.1} | {p90:.1} | {largest:.1} | {runs} |", median(gaps));
        gaps.iter().for_each(|gap| csv.push_str(&format!("{name},{gap:.3}\n")));
    }
    let path = options.out.join("failover.csv");
    std::fs::write(&path, csv).with_context(|| path.display().to_string())
}

async fn ours() -> anyhow::Result<f64> {
    let (silent, durability) = (false, Durability::ViewOnly);
    let options = fail_over::Options { runs: 1, silent, durability, dir: None };
    let gaps = fail_over::run(&options).await?;
    gaps.first().copied().context("one run has one gap")
}

/// A write that was acknowledged.
struct Acknowledged {
    began: Instant,
    ended: Instant,
}

/// One run of a new group: the members of a peer's do not dial each other again.
async fn theirs<C: Connection>(mut fleet: Fleet) -> anyhow::Result<f64> {
    // Everybody connects before, as clients of a group do that has been running for a while.
    C::to_leader(fleet.members()).await?;
    let (reports, mut acknowledged) = mpsc::channel(1024);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(connect::<C>(fleet.members()).await, reports.clone()));
    }
    drop(reports);
    let calm = Instant::now() + CALM;
    while Instant::now() < calm {
        acknowledged.recv().await.context("nobody writes")?;
    }
    let leader = leader_of(&connect::<C>(fleet.members()).await).await.context("nobody leads")?;
    let signalled = Instant::now();
    fleet.kill(leader)?;
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
    Ok(gap.as_secs_f64() * 1e3)
}

/// A connection to each member that listens.
async fn connect<C: Connection>(members: &[SocketAddr]) -> Vec<(usize, C)> {
    let mut wires = Vec::new();
    for (at, member) in members.iter().enumerate() {
        if let Ok(wire) = C::to(member).await {
            wires.push((at, wire));
        }
    }
    wires
}

/// Whoever says first that it leads; all are asked at once, so that a slow answer costs nothing.
async fn leader_of<C: Connection>(wires: &[(usize, C)]) -> Option<usize> {
    let mut asked = JoinSet::new();
    for (at, wire) in wires.iter().cloned() {
        asked.spawn(async move { wire.leads().await.then_some(at) });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Some(at)) = answer {
            return Some(at);
        }
    }
    None
}

async fn write<C: Connection>(wires: Vec<(usize, C)>, reports: mpsc::Sender<Acknowledged>) {
    let payload = Bytes::from_static(&[0x5a; 256]);
    loop {
        let Some(leader) = leader_of(&wires).await else {
            sleep(SEARCH).await;
            continue;
        };
        let Some((_, wire)) = wires.iter().find(|(at, _)| *at == leader) else { return };
        loop {
            let began = Instant::now();
            if wire.write(payload.clone()).await.is_err() {
                break;
            }
            let ended = Instant::now();
            if reports.send(Acknowledged { began, ended }).await.is_err() {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}
