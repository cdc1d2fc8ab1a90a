//! openraft 0.10 as whole nodes: three in this process, or one as a process of its own.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use openraft10::{
    Config, OptionalSend, Raft, ServerState, SnapshotPolicy,
    alias::{SnapshotOf, VoteOf},
    base::{BoxFuture, BoxStream},
    errors::{Fatal, ReplicationClosed, StreamingError},
    network::{NetSnapshot, RPCOption, RaftNetworkFactory, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
        WriteResult,
    },
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::oneshot,
};
use vr_benches::load::{
    generator::{Measured, Target, drive},
    workload::Workload,
};

use crate::{
    Peer, busy,
    engine::{LOG_KEPT, LOG_OPS, REPLICAS, Wal},
    openraft_node::{Replies, Router, await_listeners, fill},
    openraft10_store::{Count, Log, Operation, Types},
    openraft10_wire::{
        APPENDS, Answers, Dialler, Failed, answer_appends, no_snapshots, unreachable,
    },
    server::{CLIENT, WHO_LEADS, frame, frames},
};

pub const NAME: &str = "openraft 0.10";

type Node = Raft<Types, Count>;
/// The outcomes of a batch, in its order.
type Written = BoxStream<'static, Result<WriteResult<Types>, Fatal<Types>>>;

/// Batches as large as they come, which leave before they are on the leader's disk; snapshots,
/// which only let the log go.
fn config() -> anyhow::Result<Arc<Config>> {
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        max_payload_entries: 4096,
        broadcast_submitted_on_append: Some(true),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(LOG_OPS),
        max_in_snapshot_log_to_keep: LOG_KEPT,
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}

async fn node<N: RaftNetworkFactory<Types>>(
    me: usize,
    wal: Option<Wal>,
    network: N,
) -> anyhow::Result<Node>
where
    N::Network: NetSnapshot<Types, SnapshotData = u64>,
{
    Ok(Raft::new(me as u64, config()?, network, Log::new(me as u64, wal), Count::default()).await?)
}

async fn form(leader: &Node) -> anyhow::Result<()> {
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
struct Direct(Node);

impl Target for Direct {
    async fn write(&self, payload: Bytes) -> Result<(), String> {
        let written = self.0.client_write(Operation(payload)).await;
        written.map(drop).map_err(|error| error.to_string())
    }

    async fn read(&self) -> Result<(), String> {
        Err("peers are asked no queries".to_owned())
    }
}

/// Calls from node to node in one process.
pub struct Neighbour {
    router: Router<Node>,
    id: u64,
}

impl Neighbour {
    fn node(&self) -> Result<Node, Failed> {
        let node = self.router.nodes().get(&self.id).cloned();
        node.ok_or_else(|| unreachable("not there yet"))
    }
}

impl RaftNetworkFactory<Types> for Router<Node> {
    type Network = Neighbour;

    async fn new_client(&mut self, id: u64, (): &()) -> Neighbour {
        Neighbour { router: self.clone(), id }
    }
}

impl RaftNetworkV2<Types> for Neighbour {
    type SnapshotData = u64;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Failed> {
        self.node()?.append_entries(rpc).await.map_err(unreachable)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, Failed>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // Requests end with the answers: the node reads them in a task of its own, which would
            // keep them from the next stream.
            let (wanted, unwanted) = oneshot::channel::<()>();
            let answers = self.node()?.stream_append(requests.take_until(unwanted));
            let answers: Answers<'s> = Box::pin(answers.map(move |answer| {
                let _ = &wanted;
                answer.map_err(unreachable)
            }));
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        self.node()?.vote(rpc).await.map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        _: VoteOf<Types>,
        _: SnapshotOf<Types, u64>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(no_snapshots())
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

async fn connection(node: Node, stream: TcpStream) -> anyhow::Result<()> {
    let (mut reading, writing) = stream.into_split();
    let mut buffer = Vec::new();
    let kind = loop {
        fill(&mut reading, &mut buffer).await?;
        if let Some(kind) = buffer.get(4).copied() {
            buffer.drain(..5);
            break kind;
        }
    };
    match kind {
        CLIENT => client(node, reading, writing, buffer).await,
        APPENDS => answer_appends(node, reading, writing, buffer).await,
        _ => answer_votes(node, reading, writing, buffer).await,
    }
}

async fn answer_votes(
    node: Node,
    mut reading: OwnedReadHalf,
    mut writing: OwnedWriteHalf,
    mut buffer: Vec<u8>,
) -> anyhow::Result<()> {
    loop {
        let mut calls = Vec::new();
        frames(&mut buffer, |body| {
            let (_, rpc) = body.split_first().context("an empty call")?;
            calls.push(postcard::from_bytes(rpc)?);
            Ok(())
        })?;
        for call in calls {
            let answer = postcard::to_allocvec(&node.vote(call).await?)?;
            let mut out = Vec::new();
            frame(&mut out, |body| body.extend_from_slice(&answer));
            writing.write_all(&out).await?;
        }
        fill(&mut reading, &mut buffer).await?;
    }
}

async fn client(
    node: Node,
    reading: OwnedReadHalf,
    writing: OwnedWriteHalf,
    buffer: Vec<u8>,
) -> anyhow::Result<()> {
    let (replies, writer) = Replies::to(writing);
    let ended = take_requests(node, reading, &replies, buffer).await;
    writer.abort();
    ended
}

/// Writes all requests that have arrived as one batch.
async fn take_requests(
    node: Node,
    mut reading: OwnedReadHalf,
    replies: &Arc<Replies>,
    mut buffer: Vec<u8>,
) -> anyhow::Result<()> {
    loop {
        let (mut tags, mut operations) = (Vec::new(), Vec::new());
        frames(&mut buffer, |body| {
            let (tag, payload) = body.split_first_chunk().context("a short request")?;
            match u64::from_le_bytes(*tag) {
                WHO_LEADS => replies.push(WHO_LEADS, u64::from(node.is_leader())),
                tag => {
                    tags.push(tag);
                    operations.push(Operation(Bytes::copy_from_slice(payload)));
                }
            }
            Ok(())
        })?;
        if !tags.is_empty() {
            let written = node.client_write_many(operations).await?;
            tokio::spawn(reply(tags, written, Arc::clone(replies)));
        }
        fill(&mut reading, &mut buffer).await?;
    }
}

async fn reply(tags: Vec<u64>, mut written: Written, replies: Arc<Replies>) {
    for tag in tags {
        if let Some(Ok(Ok(response))) = written.next().await {
            replies.push(tag, response.response);
        }
    }
}
