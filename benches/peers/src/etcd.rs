//! etcd where it is installed: three servers, and clients that put over gRPC.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use vr_benches::load::generator::{Target, say};

use crate::{engine::REPLICAS, fleet::Fleet, rounds::System, wire::Connection};

/// Its name in tables; the version is the installed one's.
pub const NAME: &str = "etcd";

const PUT: &str = "/etcdserverpb.KV/Put";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// How often a leader is heard, and after how long a silence another one is elected, at the least;
/// at the most it is twice as long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    heartbeat_ms: u32,
    election_ms: u32,
}

impl Pace {
    /// As etcd has it by itself.
    pub const USUAL: Self = Self { heartbeat_ms: 100, election_ms: 1000 };

    /// The earliest elections that etcd takes with this interval.
    pub const fn brisk(heartbeat_ms: u32) -> Self {
        Self { heartbeat_ms, election_ms: heartbeat_ms.saturating_mul(5) }
    }
}

/// Takes etcd out of `systems` if it is not installed, and says which version it is if it is.
pub fn drop_if_missing(systems: &mut Vec<System>) {
    if !systems.contains(&System::Etcd) {
        return;
    }
    let problem = match Command::new("etcd").arg("--version").output() {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout);
            say(version.lines().next().unwrap_or("etcd of an unknown version"));
            return;
        }
        Ok(output) => output.status.to_string(),
        Err(error) => error.to_string(),
    };
    say(&format!("ETCD IS LEFT OUT: no etcd could be run from PATH ({problem})"));
    systems.retain(|system| *system != System::Etcd);
}

/// Starts three servers with their files in a directory of `dir`.
pub fn start(pace: Pace, dir: Option<&Path>) -> anyhow::Result<Fleet> {
    Fleet::start_each(2 * REPLICAS, dir, |me, ports, dir| {
        let (clients, peers) = ports.split_at(REPLICAS);
        let Pace { heartbeat_ms, election_ms } = pace;
        let everybody: Vec<String> =
            peers.iter().enumerate().map(|(at, peer)| format!("{at}=http://{peer}")).collect();
        let (client, peer) = (format!("http://{}", clients[me]), format!("http://{}", peers[me]));
        let mut command = tied("etcd");
        command.arg(format!("--name={me}")).arg(format!("--data-dir={}", data(dir, me)));
        command.arg(format!("--listen-client-urls={client}"));
        command.arg(format!("--advertise-client-urls={client}"));
        command.arg(format!("--listen-peer-urls={peer}"));
        command.arg(format!("--initial-advertise-peer-urls={peer}"));
        command.arg(format!("--initial-cluster={}", everybody.join(",")));
        command.arg(format!("--heartbeat-interval={heartbeat_ms}"));
        command.arg(format!("--election-timeout={election_ms}"));
        command.args(["--snapshot-count=100000000", "--auto-compaction-retention=0"]);
        command.args(["--quota-backend-bytes=8589934592", "--metrics=basic"]);
        command.args(["--logger=zap", "--log-level=error"]);
        Ok(command)
    })
}

fn data(dir: &Path, me: usize) -> String {
    dir.join(format!("etcd-{me}")).display().to_string()
}

/// A command that ends with the process that starts it, where util-linux is installed: etcd reads
/// nothing that could tell it.
fn tied(program: &str) -> Command {
    let is_there = |output: std::process::Output| output.status.success();
    if Command::new("setpriv").arg("--version").output().is_ok_and(is_there) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]);
        return command;
    }
    Command::new(program)
}

/// How many keys are taken.
static KEYS: AtomicU64 = AtomicU64::new(0);

/// One client of a server; clones share its connection, and each has a key of its own.
pub struct Session {
    grpc: Grpc<Channel>,
    key: Bytes,
}

impl Session {
    fn new(grpc: Grpc<Channel>) -> Self {
        let key = KEYS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Self { grpc, key: Bytes::copy_from_slice(&key) }
    }

    async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        grpc.unary(Request::new(question), path, codec).await.map(tonic::Response::into_inner)
    }
}

impl Clone for Session {
    fn clone(&self) -> Self {
        Self::new(self.grpc.clone())
    }
}

impl Connection for Session {
    async fn to(address: &SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        Ok(Self::new(Grpc::new(endpoint.connect().await?)))
    }

    async fn leads(&self) -> bool {
        let asked = self.ask::<_, StatusResponse>(STATUS, StatusRequest {});
        let answer = timeout(Duration::from_secs(2), asked).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.is_the_leaders()))
    }
}

impl Target for Session {
    async fn write(&self, payload: Bytes) -> Result<(), String> {
        let put = PutRequest { key: self.key.clone(), value: payload };
        let answer = timeout(Duration::from_secs(10), self.ask::<_, PutResponse>(PUT, put)).await;
        match answer {
            Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err("no answer in 10 s".to_owned()),
        }
    }

    async fn read(&self) -> Result<(), String> {
        Err("peers are asked no queries".to_owned())
    }
}

// Of etcd's messages, the fields that are looked at.

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

impl StatusResponse {
    fn is_the_leaders(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.member_id == self.leader)
    }
}
