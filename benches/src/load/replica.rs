//! One replica as a process, which takes orders on standard input and answers on standard output.

use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
};

use anyhow::Context as _;
use tokio::sync::mpsc;
use vr_core::{Durability, Genesis, Members, Node, NodeBuilder, NodeHandle, Raw, ReplicaId};
use vr_storage::{FileStorage, MemoryStorage};
use vr_transport_tcp::{TcpTransport, TokioRuntime};

use crate::load::service::Counter;

/// Orders that may wait.
const ORDERS_MAX: usize = 16;

/// Which replica to run, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Which member of the group this is
    #[arg(long, value_name = "I")]
    pub replica: u64,
    /// All members, the same list at each
    #[arg(long, value_name = "A,B,C")]
    pub members: Members,
    /// What is on disk: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::ViewOnly)]
    pub durability: Durability,
    /// The directory that holds what is on disk; not needed with diskless
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The group's name
    #[arg(long, default_value = "load")]
    pub group: String,
    /// Found a group without disks
    #[arg(long)]
    pub found: bool,
}

/// Runs a replica until it is told to stop, or standard input ends.
///
/// Orders are lines: `status`, `hand-off`, `stop`. Each of the first two is answered by one line.
///
/// # Errors
/// It did not start, or it stopped by itself.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let replica = ReplicaId(options.replica);
    let own = options.members.address_of(replica).context("--replica is not in --members")?;
    let transport = TcpTransport::bind(own).await?;
    let node = with_storage(Node::builder_raw(Counter::default()), &options)?
        .group(&options.group)
        .replica(replica)
        .members(options.members)
        .durability(options.durability)
        .genesis(if options.found { Genesis::Found } else { Genesis::Join })
        .transport(transport)
        .runtime(TokioRuntime::current())
        .start()
        .await?;
    let mut orders = orders()?;
    loop {
        tokio::select! {
            ended = node.stopped() => return Ok(ended?),
            order = orders.recv() => match order.as_deref() {
                Some("status") => answer(&status(&node))?,
                Some("hand-off") => answer(&hand_off(&node).await)?,
                Some("stop") | None => return Ok(node.shutdown().await?),
                Some(_) => answer("unknown")?,
            }
        }
    }
}

fn with_storage(node: NodeBuilder<Raw>, options: &Options) -> anyhow::Result<NodeBuilder<Raw>> {
    if options.durability == Durability::Diskless {
        return Ok(node.storage(MemoryStorage::new()));
    }
    let data = options.data.as_ref().context("--data is missing")?;
    Ok(node.storage(FileStorage::new(data)))
}

/// Reads lines on a thread of its own, because a pending read would keep the runtime from ending.
fn orders() -> io::Result<mpsc::Receiver<String>> {
    let (sender, orders) = mpsc::channel(ORDERS_MAX);
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(orders)
}

fn answer(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn status(node: &NodeHandle<Raw>) -> String {
    let status = node.status();
    let (replica, is_well) = (&status.replica, node.explain().is_well());
    let is_primary = replica.serving && replica.primary == replica.replica;
    let view = replica.view.0;
    format!("view={view} primary={is_primary} well={is_well} applied={}", replica.applied)
}

async fn hand_off(node: &NodeHandle<Raw>) -> String {
    match node.hand_off(None).await {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("refused: {error}"),
    }
}
