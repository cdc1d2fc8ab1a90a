//! One replica as a process: it starts, serves Redis clients, and stops cleanly when told to.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{interval, timeout},
};
use tracing::{info, warn};
use vr_core::{
    Config, ConfigError, Durability, Genesis, Members, Node, NodeBuilder, NodeError, NodeHandle,
    ReplicaId, TransportError,
};
use vr_storage::{FileStorage, MemoryStorage};
use vr_transport_tcp::{TcpTransport, TokioRuntime};

use crate::kv::{
    replica::{ReplicaBackend, in_words},
    server,
    state::Kv,
};

/// The most bytes of one operation: a full batch of commands fits.
const REQUEST_BYTES_MAX: u32 = 2 << 20;
/// How long connections may take to end their commands when the process is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a replica looks whether it has something to explain.
const EXPLAIN_INTERVAL: Duration = Duration::from_secs(1);

/// Which replica to run, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Which member of the group this is
    #[arg(long, value_name = "I")]
    pub replica: u64,
    /// All members, the same list at each: A,B,C for replicas 0, 1, 2, or 7=A,9=B,..;
    /// each HOST:PORT
    #[arg(long, value_name = "A,B,C")]
    pub members: Members,
    /// What is on disk, the same at each member: full (promises and log; survives the loss of
    /// power at all), view-only (promises, written when a view changes) or diskless (nothing);
    /// the last two survive the crash of any minority at once, and block beyond that
    #[arg(long, value_name = "MODE", default_value_t = Durability::Full)]
    pub durability: Durability,
    /// The directory that holds what this replica must not forget; made if it does not exist.
    /// Not needed, and not touched, with --durability diskless
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where kv export makes this replica write, if not to "exports" in --data
    #[arg(long, value_name = "DIR")]
    pub exports: Option<PathBuf>,
    /// Found the group. Only for --durability diskless, and only at the very first start of the
    /// group, at each member: without disks nobody could tell later that there was a group
    #[arg(long)]
    pub found: bool,
    /// Where to serve Redis clients, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub resp: String,
    /// Where to listen for the other members, if not at this replica's own address in --members
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// The group's name, the same at each member
    #[arg(long, default_value = "kv")]
    pub group: String,
    /// When a checkpoint is taken, and what it releases of the log
    #[command(flatten)]
    pub checkpoints: Checkpoints,
    /// Stop when standard input ends; for a process that must not outlive its parent
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// When a checkpoint is taken, and what it releases of the log.
#[derive(Clone, Debug, clap::Args)]
pub struct Checkpoints {
    /// Operations between two checkpoints, the same at each member; with 0 there are none, and the
    /// log is kept whole
    #[arg(long, value_name = "OPS", default_value_t = Config::default().checkpoint_ops)]
    pub checkpoint_ops: u32,
    /// Bytes of log between two checkpoints, if that comes first; the same at each member
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().checkpoint_bytes)]
    pub checkpoint_bytes: u64,
    /// Operations that stay in the log although a checkpoint has them, so that a replica that was
    /// away for a little while gets them instead of the whole state
    #[arg(long, value_name = "OPS", default_value_t = Config::default().log_retain_ops)]
    pub log_retain_ops: u32,
}

impl Checkpoints {
    /// The limits of a replica of this service with these numbers.
    fn to_config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        config.request_bytes_max = REQUEST_BYTES_MAX;
        config.checkpoint_ops = self.checkpoint_ops;
        config.checkpoint_bytes = self.checkpoint_bytes;
        config.log_retain_ops = self.log_retain_ops;
        config.validate()?;
        Ok(config)
    }
}

/// Why a replica did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// `--replica` is not in `--members`.
    #[error("replica {replica} is not among the members {members}; correct --replica or --members")]
    NotAMember {
        /// Which replica.
        replica: ReplicaId,
        /// Who the members are.
        members: String,
    },
    /// The limits contradict each other.
    #[error("correct --checkpoint-ops, --checkpoint-bytes or --log-retain-ops")]
    Limits(#[source] ConfigError),
    /// A mode with a disk, and no directory.
    #[error(
        "--data is missing: with --durability {durability} a replica keeps what it must not forget \
         in a directory; say which, or run the whole group with --durability diskless"
    )]
    NoData {
        /// Which mode.
        durability: Durability,
    },
    /// The address for Redis clients cannot be used.
    #[error(
        "cannot serve clients on {address}; stop whoever has it, or choose another --resp address"
    )]
    Resp {
        /// Which address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The address for the other members cannot be used.
    #[error(
        "cannot talk to the other members; stop whoever has the address, or choose another one in \
         --members or --listen"
    )]
    Transport(#[source] TransportError),
    /// The data directory cannot be used; nothing that is in it was lost.
    #[error(
        "cannot use the data directory {path:?}; mend it as said here, or choose another --data"
    )]
    Data {
        /// Which directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
    /// The node did not start.
    #[error("the replica cannot start")]
    Start(#[source] NodeError),
    /// The node stopped by itself.
    #[error("the replica stopped; what is on disk is safe, start it again when this is mended")]
    Stopped(#[source] NodeError),
    /// The system refused something that a process needs.
    #[error("the process cannot run")]
    System(#[from] io::Error),
}

impl ServeError {
    fn start(source: NodeError, data: Option<PathBuf>) -> Self {
        match (&source, data) {
            (NodeError::Storage(_), Some(path)) => Self::Data { path, source },
            _ => Self::Start(source),
        }
    }

    /// The exit status: 2 for wrong arguments, 3 for an address, 4 for the data directory, 5 for
    /// everything that stops a running replica.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotAMember { .. } | Self::NoData { .. } | Self::Limits(_) => 2,
            Self::Resp { .. } | Self::Transport(_) => 3,
            Self::Data { .. } => 4,
            Self::Start(NodeError::Transport(_)) => 3,
            Self::Start(_) | Self::Stopped(_) | Self::System(_) => 5,
        }
    }
}

/// Runs one replica until it is told to stop by SIGTERM, SIGINT or the end of standard input.
///
/// # Errors
/// [`ServeError`] says why it did not start, or why it stopped by itself.
pub async fn run(options: Options) -> Result<(), ServeError> {
    let replica = ReplicaId(options.replica);
    let Some(own) = options.members.address_of(replica) else {
        let members = options.members.to_membership().to_string();
        return Err(ServeError::NotAMember { replica, members });
    };
    let config = options.checkpoints.to_config().map_err(ServeError::Limits)?;
    let data = directory(&options)?;
    let listen = options.listen.clone().unwrap_or_else(|| own.to_owned());
    let listener = TcpListener::bind(&options.resp)
        .await
        .map_err(|source| ServeError::Resp { address: options.resp.clone(), source })?;
    let mut told = Told::new(options.stop_with_stdin)?;
    let transport = TcpTransport::bind(&listen).await.map_err(ServeError::Transport)?;
    let exports = exports(&options);
    let node = with_storage(Node::builder(Kv::default()), data.clone())
        .group(&options.group)
        .replica(replica)
        .members(options.members)
        .durability(options.durability)
        .genesis(if options.found { Genesis::Found } else { Genesis::Join })
        .transport(transport)
        .runtime(TokioRuntime::current())
        .config(config)
        .start()
        .await
        .map_err(|error| ServeError::start(error, data))?;
    let durability = options.durability;
    info!(%replica, %durability, resp = %options.resp, "serving Redis clients");
    let (stop, stopped) = watch::channel(false);
    let backend = Arc::new(ReplicaBackend::new(node.clone(), exports));
    let server = tokio::spawn(server::serve(listener, backend, stopped));
    let explainer = tokio::spawn(explain(node.clone()));
    let ended = tokio::select! {
        ended = node.stopped() => ended.map_err(ServeError::Stopped),
        () = told.wait() => Ok(()),
    };
    explainer.abort();
    // Nobody listens any more only if the server has ended already.
    let _ = stop.send(true);
    if timeout(STOP_TIMEOUT, server).await.is_err() {
        warn!("some commands did not end in time");
    }
    ended?;
    info!("stopping");
    node.shutdown().await.map_err(ServeError::Stopped)
}

/// Where the replica keeps what it must not forget; `None` when it need not remember anything.
fn directory(options: &Options) -> Result<Option<PathBuf>, ServeError> {
    let Options { durability, data, found, .. } = options;
    if *durability == Durability::Diskless {
        if let Some(path) = data {
            warn!(?path, "--data is not used: with --durability diskless nothing is written");
        }
        return Ok(None);
    }
    if *found {
        warn!("--found is not needed: blank directories found a group by themselves, and once");
    }
    let missing = || ServeError::NoData { durability: *durability };
    data.clone().map(Some).ok_or_else(missing)
}

/// Where exports are written when a client asks for one.
fn exports(options: &Options) -> PathBuf {
    let inside = || options.data.as_deref().unwrap_or_else(|| Path::new("")).join("exports");
    options.exports.clone().unwrap_or_else(inside)
}

fn with_storage(node: NodeBuilder<Kv>, data: Option<PathBuf>) -> NodeBuilder<Kv> {
    match data {
        Some(path) => node.storage(FileStorage::new(path)),
        None => node.storage(MemoryStorage::new()),
    }
}

/// Says in words what keeps the replica from serving, whenever the causes change.
async fn explain(node: NodeHandle<Kv>) {
    let mut last = Vec::new();
    let mut ticks = interval(EXPLAIN_INTERVAL);
    loop {
        ticks.tick().await;
        let explanation = node.explain();
        let causes: Vec<_> = explanation.findings.iter().map(|finding| finding.cause).collect();
        if causes != last {
            info!(explanation = in_words(&explanation), "status");
            last = causes;
        }
    }
}

/// The ways in which a process is told to stop.
struct Told {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    stdin: watch::Receiver<bool>,
    /// Keeps the channel open when nobody reads standard input.
    _ended: Arc<watch::Sender<bool>>,
}

impl Told {
    fn new(with_stdin: bool) -> io::Result<Self> {
        let (ended, stdin) = watch::channel(false);
        let ended = Arc::new(ended);
        if with_stdin {
            let ended = Arc::clone(&ended);
            // A thread of its own, because a pending read of standard input would keep the runtime
            // from ending.
            std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
                let drained = io::copy(&mut io::stdin(), &mut io::sink());
                drained.is_ok() && ended.send(true).is_ok()
            })?;
        }
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { term, int, stdin, _ended: ended })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            _ = self.stdin.wait_for(|ended| *ended) => {}
        }
    }
}
