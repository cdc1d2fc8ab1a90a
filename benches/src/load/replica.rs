//! One replica as a process, which takes orders on standard input and answers on standard output.

use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use vr_core::{
    Config, Durability, Event, Genesis, Members, Node, NodeBuilder, NodeHandle, Raw, ReplicaId,
};
use vr_storage::{FileStorage, MemoryStorage, StoreOptions};
use vr_transport_tcp::{TcpConfig, TcpTransport, TokioRuntime};

use crate::load::service::Keeper;

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
    /// Bytes of operations that are written and synced on the thread that runs the replica, at most
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub inline_writes: u64,
    /// Segments of the log that are made before it starts
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub spare_segments: u32,
    /// Microseconds after a message in which the replica asks its sockets without sleeping
    #[arg(long, value_name = "US", default_value_t = 0)]
    pub busy_poll: u64,
    /// How many operations of at least 4 KiB the service keeps: they are its state
    #[arg(long, value_name = "OPS", default_value_t = 0)]
    pub keep: u64,
    /// Operations between two checkpoints
    #[arg(long, value_name = "OPS", default_value_t = Config::default().checkpoint_ops)]
    pub checkpoint_ops: u32,
    /// Bytes of operations between two checkpoints
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().checkpoint_bytes)]
    pub checkpoint_bytes: u64,
    /// Bytes of a checkpoint that are fetched per second while operations are ordered; 0: no limit
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().fetch_bytes_per_second)]
    pub fetch_bytes_per_second: u64,
    /// Operations that stay in the log below a checkpoint
    #[arg(long, value_name = "OPS", default_value_t = Config::default().log_retain_ops)]
    pub log_retain_ops: u32,
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
    let mut tcp = TcpConfig::default();
    tcp.busy_poll = Duration::from_micros(options.busy_poll);
    let transport = TcpTransport::bind_with(own, tcp).await?;
    let mut config = Config::default();
    config.checkpoint_ops = options.checkpoint_ops;
    config.checkpoint_bytes = options.checkpoint_bytes;
    config.fetch_bytes_per_second = options.fetch_bytes_per_second;
    config.log_retain_ops = options.log_retain_ops;
    let node = with_storage(Node::builder_raw(Keeper::of(options.keep)), &options)?
        .config(config)
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
    let mut events = node.events();
    loop {
        tokio::select! {
            Some(event) = events.next() => log(&event),
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
    let layout = StoreOptions::default().with_spare_segments(options.spare_segments);
    let storage = FileStorage::new(data).with_options(layout);
    Ok(node.storage(storage.with_inline_writes(options.inline_writes)))
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

/// What happened, and when, for whoever looks into why something took long.
fn log(event: &Event) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Whoever closed it does not read it.
    let _ = writeln!(io::stderr(), "{:.4} {event:?}", now.as_secs_f64());
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
    let (checkpoint, here, all) = replica.snapshot.unwrap_or_default();
    format!(
        "view={view} primary={is_primary} well={is_well} applied={} held={} \
         checkpoint={checkpoint} chunks={here} of={all}",
        replica.applied, replica.checkpoint.op_number
    )
}

async fn hand_off(node: &NodeHandle<Raw>) -> String {
    match node.hand_off(None).await {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("refused: {error}"),
    }
}
