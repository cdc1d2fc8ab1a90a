//! openraft 0.9 as whole nodes: three in this process, or one as a process of its own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use openraft::{
    Config, Raft, ServerState, SnapshotPolicy,
    error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable},
    network::{RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::AbortHandle,
};
use vr_benches::load::{
    generator::{Measured, Target, drive},
    workload::Workload,
};

use crate::{
    Peer, busy,
    engine::{LOG_KEPT, LOG_OPS, REPLICAS, Wal},
    openraft_store::{Count, Log, Types},
    server::{CLIENT, WHO_LEADS, frame, frames},
};

pub const NAME: &str = "openraft 0.9";

type Failed<E = openraft::error::Infallible> = RPCError<u64, (), RaftError<u64, E>>;

/// Batches as large as they come; snapshots, which only let the log go.
fn config() -> anyhow::Result<Arc<Config>> {
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        max_payload_entries: 4096,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(LOG_OPS),
        max_in_snapshot_log_to_keep: LOG_KEPT,
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}

async fn node(
    me: usize,
    wal: Option<Wal>,
    network: impl RaftNetworkFactory<Types>,
) -> anyhow::Result<Raft<Types>> {
    Ok(Raft::new(me as u64, config()?, network, Log::new(wal), Count::default()).await?)
}

async fn form(leader: &Raft<Types>) -> anyhow::Result<()> {
    leader.initialize((0..REPLICAS as u64).map(|id| (id, ())).collect::<BTreeMap<_, _>>()).await?;
    let patience = Some(Duration::from_secs(10));
    leader.wait(patience).state(ServerState::Leader, "the founder leads").await?;
    Ok(())
}

/// Three nodes on this thread.
pub async fn run_in_memory(workload: &Workload) -> anyhow::Result<Measured> {
    let router = Router::default();
    let mut nodes = Vec::new();
    for me in 0..REPLICAS {
        let node = node(me, None, router.clone()).await?;
        router.nodes().insert(me as u64, node.clone());
        nodes.push(node);
    }
    let leader = nodes.first().context("there are three")?.clone();
    form(&leader).await?;
    let measured = drive(&[Direct(leader)], workload).await;
    for node in nodes {
        node.shutdown().await?;
    }
    Ok(measured)
}

#[derive(Clone)]
struct Direct(Raft<Types>);

impl Target for Direct {
    async fn write(&self, payload: Bytes) -> Result<(), String> {
        self.0.client_write(payload).await.map(drop).map_err(|error| error.to_string())
    }

    async fn read(&self) -> Result<(), String> {
        Err("peers are asked no queries".to_owned())
    }
}

/// The nodes of one process, by their numbers, of whichever version.
pub struct Router<N>(Arc<Mutex<BTreeMap<u64, N>>>);

impl<N> Clone for Router<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N> Default for Router<N> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<N> Router<N> {
    /// The nodes that are there.
    pub fn nodes(&self) -> MutexGuard<'_, BTreeMap<u64, N>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls from node to node in one process.
pub struct Neighbour {
    router: Router<Raft<Types>>,
    id: u64,
}

impl Neighbour {
    #[expect(clippy::result_large_err, reason = "the error is the library's")]
    fn node<E: std::error::Error>(&self) -> Result<Raft<Types>, Failed<E>> {
        let node = self.router.nodes().get(&self.id).cloned();
        node.ok_or_else(|| unreachable(&std::io::Error::other("not there yet")))
    }
}

fn unreachable<E: std::error::Error>(error: &std::io::Error) -> Failed<E> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkFactory<Types> for Router<Raft<Types>> {
    type Network = Neighbour;

    async fn new_client(&mut self, id: u64, (): &()) -> Neighbour {
        Neighbour { router: self.clone(), id }
    }
}

impl RaftNetwork<Types> for Neighbour {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        let answer = self.node()?.append_entries(rpc).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.id, error)))
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        let answer = self.node()?.install_snapshot(rpc).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.id, error)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        let answer = self.node()?.vote(rpc).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.id, error)))
    }
}

const APPEND: u8 = 0;
const VOTE: u8 = 1;

/// Calls from process to process, one at a time on each connection; this version of openraft has
/// one in flight to each follower.
#[derive(Clone)]
struct Dialler(Arc<Vec<SocketAddr>>);

struct Remote {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl RaftNetworkFactory<Types> for Dialler {
    type Network = Remote;

    async fn new_client(&mut self, id: u64, (): &()) -> Remote {
        Remote { address: self.0[id as usize], stream: None }
    }
}

impl Remote {
    async fn call<A: Serialize, B: DeserializeOwned>(
        &mut self,
        kind: u8,
        rpc: &A,
    ) -> Result<B, Failed> {
        // Taken out meanwhile: a call that is given up leaves an answer on its connection, which
        // must not be read as that of the next call.
        let stream = self.stream.take();
        let called = try_call(self.address, stream, kind, rpc).await;
        let (stream, answer) =
            called.map_err(|error| unreachable(&std::io::Error::other(error.to_string())))?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// Calls on `stream`, or on a new one, and returns it with the answer.
pub async fn try_call<A: Serialize, B: DeserializeOwned>(
    address: SocketAddr,
    stream: Option<TcpStream>,
    kind: u8,
    rpc: &A,
) -> anyhow::Result<(TcpStream, B)> {
    let mut out = Vec::new();
    let mut stream = match stream {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            frame(&mut out, |body| body.push(0));
            stream
        }
    };
    frame(&mut out, |body| {
        body.push(kind);
        let filled = std::mem::take(body);
        *body = postcard::to_extend(rpc, filled).expect("memory takes every call");
    });
    stream.write_all(&out).await?;
    let length = stream.read_u32_le().await?;
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await?;
    Ok((stream, postcard::from_bytes(&answer)?))
}

impl RaftNetwork<Types> for Remote {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        self.call(APPEND, &rpc).await
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        Err(unreachable(&std::io::Error::other("no snapshots are made")))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        self.call(VOTE, &rpc).await
    }
}

/// Runs replica `me` as this process.
pub async fn serve(peer: &Peer, wal: Option<Wal>) -> anyhow::Result<()> {
    let (me, members) = (peer.me, &peer.members);
    busy::keep_awake(peer.busy());
    let listener = TcpListener::bind(members[me]).await?;
    let node = node(me, wal, Dialler(Arc::new(members.clone()))).await?;
    if me == 0 {
        await_listeners(members).await?;
        let founder = node.clone();
        tokio::spawn(async move { form(&founder).await });
    }
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(node.clone(), stream));
    }
}

/// Waits until every member takes connections.
pub async fn await_listeners(members: &[SocketAddr]) -> anyhow::Result<()> {
    let begun = Instant::now();
    for address in members {
        while TcpStream::connect(address).await.is_err() {
            if begun.elapsed().as_secs() > 20 {
                bail!("{address} does not listen");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    Ok(())
}

async fn connection(node: Raft<Types>, stream: TcpStream) -> anyhow::Result<()> {
    let (mut reading, mut writing) = stream.into_split();
    let mut buffer = Vec::new();
    let mut first = Vec::new();
    while first.is_empty() {
        fill(&mut reading, &mut buffer).await?;
        if let Some(kind) = buffer.get(4).copied() {
            first.push(kind);
            buffer.drain(..5);
        }
    }
    if first == [CLIENT] {
        return client(node, reading, writing, buffer).await;
    }
    loop {
        let mut calls = Vec::new();
        frames(&mut buffer, |body| {
            calls.push(body.to_vec());
            Ok(())
        })?;
        for call in calls {
            let (kind, rpc) = call.split_first().context("an empty call")?;
            let answer = if *kind == APPEND {
                postcard::to_allocvec(&node.append_entries(postcard::from_bytes(rpc)?).await?)?
            } else {
                postcard::to_allocvec(&node.vote(postcard::from_bytes(rpc)?).await?)?
            };
            let mut out = Vec::new();
            frame(&mut out, |body| body.extend_from_slice(&answer));
            writing.write_all(&out).await?;
        }
        fill(&mut reading, &mut buffer).await?;
    }
}

/// Reads some more.
pub async fn fill(reading: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    buffer.reserve(1 << 16);
    if reading.read_buf(buffer).await? == 0 {
        bail!("closed");
    }
    busy::note();
    Ok(())
}

/// Replies that wait to be written together.
#[derive(Default)]
pub struct Replies {
    out: Mutex<Vec<u8>>,
    some: Notify,
}

impl Replies {
    /// Replies, and the task that writes them to a client.
    pub fn to(mut writing: OwnedWriteHalf) -> (Arc<Self>, AbortHandle) {
        let replies = Arc::<Self>::default();
        let written = Arc::clone(&replies);
        let writer = tokio::spawn(async move {
            loop {
                written.some.notified().await;
                let out = std::mem::take(
                    &mut *written.out.lock().unwrap_or_else(PoisonError::into_inner),
                );
                if writing.write_all(&out).await.is_err() {
                    return;
                }
            }
        });
        (replies, writer.abort_handle())
    }

    /// Adds the reply to request `tag`.
    pub fn push(&self, tag: u64, count: u64) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        frame(&mut out, |body| {
            body.extend_from_slice(&tag.to_le_bytes());
            body.extend_from_slice(&count.to_le_bytes());
        });
        drop(out);
        self.some.notify_one();
    }
}

async fn client(
    node: Raft<Types>,
    mut reading: OwnedReadHalf,
    writing: OwnedWriteHalf,
    mut buffer: Vec<u8>,
) -> anyhow::Result<()> {
    let (replies, writer) = Replies::to(writing);
    loop {
        frames(&mut buffer, |body| {
            let (tag, payload) = body.split_first_chunk().context("a short request")?;
            let tag = u64::from_le_bytes(*tag);
            let (node, replies) = (node.clone(), Arc::clone(&replies));
            let payload = Bytes::copy_from_slice(payload);
            tokio::spawn(async move {
                if tag == WHO_LEADS {
                    let leads = node.ensure_linearizable().await.is_ok();
                    replies.push(tag, u64::from(leads));
                } else if let Ok(response) = node.client_write(payload).await {
                    replies.push(tag, response.data);
                }
            });
            Ok(())
        })?;
        if let Err(error) = fill(&mut reading, &mut buffer).await {
            writer.abort();
            return Err(error);
        }
    }
}
