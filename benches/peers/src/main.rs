//! You will see this repository's group beside other replication libraries, cell by cell: our
//! median, the best peer's, the ratio and the spread.

mod busy;
mod engine;
mod etcd;
mod fail_over;
mod fleet;
mod floor;
mod omni;
mod openraft10_node;
mod openraft10_store;
mod openraft10_wire;
mod openraft_node;
mod openraft_store;
mod plot;
mod raft_engine_log;
mod raft_rs;
mod rounds;
mod server;
mod wire;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use vr_benches::load::replica;

use crate::{
    engine::{Engine as _, Wal},
    raft_engine_log::EngineLog,
    raft_rs::{Disk, Raft},
    rounds::System,
};

/// Compares systems under the same load.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs every system in turn, and prints a table
    Compare(rounds::Options),
    /// Kills leaders under load: how long until a write is acknowledged again
    FailOver(fail_over::Options),
    /// Runs one replica of this repository's group
    #[command(hide = true)]
    Replica(replica::Options),
    /// Runs one replica of a peer
    #[command(hide = true)]
    Peer(Peer),
}

#[derive(Clone, Debug, clap::Args)]
struct Peer {
    #[arg(long)]
    system: System,
    #[arg(long)]
    me: usize,
    #[arg(long, value_delimiter = ',')]
    members: Vec<SocketAddr>,
    #[arg(long)]
    wal: Option<PathBuf>,
    #[arg(long)]
    busy_poll: u64,
}

impl Peer {
    fn busy(&self) -> Duration {
        Duration::from_micros(self.busy_poll)
    }
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match Arguments::parse().what {
        What::Compare(options) => runtime.block_on(rounds::run(options)),
        What::FailOver(options) => runtime.block_on(fail_over::run(options)),
        What::Replica(options) => runtime.block_on(replica::run(options)),
        What::Peer(peer) => run(&runtime, peer),
    }
}

fn run(runtime: &tokio::runtime::Runtime, peer: Peer) -> anyhow::Result<()> {
    // A process must not outlive the one that started it.
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    let me = peer.me;
    let wal = || peer.wal.as_deref().map(Wal::create).transpose();
    match peer.system {
        System::Raft => server::run(Raft::new(me, wal()?)?, &peer),
        System::RaftEngine => {
            let dir = peer.wal.as_deref().context("raft-engine is a log on disk")?;
            let disk = Disk::Engine(EngineLog::open(dir)?);
            server::run(Raft::with(me, disk)?, &peer)
        }
        System::Omni => server::run(omni::Omni::new(me, wal()?)?, &peer),
        System::Floor => server::run(floor::Floor::new(me, wal()?)?, &peer),
        System::Openraft => runtime.block_on(openraft_node::serve(&peer, wal()?)),
        System::Openraft10 => runtime.block_on(openraft10_node::serve(&peer, wal()?)),
        System::Etcd => anyhow::bail!("etcd is a program of its own"),
        System::Vr | System::VrTyped => {
            anyhow::bail!("this repository's replicas have a command of their own")
        }
    }
}
