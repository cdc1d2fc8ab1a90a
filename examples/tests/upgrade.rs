//! A group whose members are exchanged one by one for a build that speaks a newer wire version.

#![expect(clippy::unwrap_used, reason = "a test that meets what it does not expect has failed")]

mod predecessor;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use tokio::net::TcpSocket;
use vr_core::{
    Client, Config, Context, Event, Members, Node, NodeHandle, OpNumber, QueryContext, Read,
    ReplicaId, StateMachine, model::encoding::WIRE_VERSION, node::local::LocalNetwork,
};
use vr_examples::kv::demo::fleet::lease_port;
use vr_storage::{FileStorage, StoreOptions};
use vr_transport_tcp::{TcpConfig, TcpTransport, TokioRuntime};

use crate::predecessor::once_let_go;

/// What the first build spoke.
const OLD: u16 = 1;
const NEW: u16 = WIRE_VERSION;

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter(u64);

impl StateMachine for Counter {
    type Operation = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, add: u64) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    vr_core::serde_snapshot!();
}

/// Speaks no newer version than this.
fn speaking(version: u16) -> TcpConfig {
    let mut config = TcpConfig::default();
    config.wire_version_max = version;
    config
}

async fn start(id: u64, members: &Members, dir: &Path, version: u16) -> NodeHandle<Counter> {
    let mut config = Config::default();
    config.lease = Duration::from_millis(120);
    start_with(config, id, members, dir, version).await
}

async fn start_with<S: StateMachine + Default>(
    config: Config,
    id: u64,
    members: &Members,
    dir: &Path,
    version: u16,
) -> NodeHandle<S> {
    let id = ReplicaId(id);
    let own = members.address_of(id).unwrap();
    once_let_go(async || {
        Node::builder(S::default())
            .group("upgrade")
            .replica(id)
            .members(members.clone())
            .config(config.clone())
            .storage(FileStorage::new(dir.join(id.to_string())))
            .transport(TcpTransport::bind_with(own, speaking(version)).await.unwrap())
            .runtime(TokioRuntime::current())
            .start()
            .await
    })
    .await
}

async fn client<S: StateMachine>(members: &Members, version: u16) -> Client<S> {
    let client = Client::<S>::builder()
        .group("upgrade")
        .members(members.clone())
        .transport(TcpTransport::client_with(speaking(version)))
        .runtime(TokioRuntime::current());
    client.connect().await.unwrap()
}

/// Three members at addresses that nobody else gets while the leases are kept.
fn three_members() -> (Vec<TcpSocket>, Members) {
    let leases: Vec<TcpSocket> = (0..3).map(|_| lease_port().unwrap()).collect();
    let addresses: Vec<String> =
        leases.iter().map(|lease| lease.local_addr().unwrap().to_string()).collect();
    let members = addresses.join(",").parse().unwrap();
    (leases, members)
}

/// Members of version 1 are replaced one by one under load, first to the new build and then back;
/// clients of both builds are served all along, and no call fails. Only once all members speak the
/// new one is there a lease.
#[tokio::test]
async fn members_are_replaced_one_by_one_under_load() {
    let (_leases, members) = three_members();
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for id in 0..3 {
        nodes.push(start(id, &members, dir.path(), OLD).await);
    }
    let (stop, sum) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    for version in [OLD, NEW] {
        let (stop, sum) = (Arc::clone(&stop), Arc::clone(&sum));
        let client = client::<Counter>(&members, version).await;
        load.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client.execute(1).await.unwrap();
                let before = sum.fetch_add(1, Ordering::Relaxed);
                let read = client.query((), Read::Lease).await.unwrap();
                assert!(read > before, "{read} is older than what was acknowledged: {before}");
            }
        }));
    }
    for version in [NEW, OLD, NEW] {
        for id in 0..3_usize {
            let number = u64::try_from(id).unwrap();
            let before = nodes.remove(id);
            before.shutdown().await.unwrap();
            drop(before);
            nodes.insert(id, start(number, &members, dir.path(), version).await);
            caught_up(&nodes, id).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let acknowledged = sum.load(Ordering::Relaxed);
    let reader = client::<Counter>(&members, NEW).await;
    assert_eq!(reader.query((), Read::Linearizable).await.unwrap(), acknowledged);
    assert!(acknowledged > 0);
    until(|| nodes.iter().any(|node| !node.status().replica.leased_for.is_zero())).await;
}

/// Waits until the member has executed what the others have.
async fn caught_up(nodes: &[NodeHandle<Counter>], id: usize) {
    let applied = |node: &NodeHandle<Counter>| node.status().replica.applied;
    let goal = nodes.iter().map(applied).max().unwrap();
    until(|| nodes.get(id).is_some_and(|node| applied(node) >= goal)).await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// Bytes of a [`Page`]: several chunks of a checkpoint.
const PAGE_BYTES: usize = 600_000;

/// A state that is large, and compresses well.
#[derive(serde::Serialize, serde::Deserialize)]
struct Page(Vec<u8>);

impl Default for Page {
    fn default() -> Self {
        Self(vec![0; PAGE_BYTES])
    }
}

impl StateMachine for Page {
    type Operation = u16;
    type Reply = u8;
    type Query = u16;
    type Answer = u8;

    fn apply(&mut self, _: &Context, at: u16) -> u8 {
        let place = self.0.get_mut(usize::from(at)).unwrap();
        *place = place.wrapping_add(1);
        *place
    }

    fn query(&self, _: &QueryContext, at: u16) -> u8 {
        self.0.get(usize::from(at)).copied().unwrap()
    }

    vr_core::serde_snapshot!();
}

/// Bytes that a member which was away receives of the checkpoint that it fetches.
async fn fetched(others: u16, away: u16) -> u64 {
    let (_leases, members) = three_members();
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.checkpoint_ops = 8;
    config.log_retain_ops = 0;
    let start = |id, version| start_with::<Page>(config.clone(), id, &members, dir.path(), version);
    let mut nodes = Vec::new();
    for id in 0..3 {
        nodes.push(start(id, others).await);
    }
    let client = client::<Page>(&members, away).await;
    client.execute(0).await.unwrap();
    let before = nodes.pop().unwrap();
    before.shutdown().await.unwrap();
    let left = before.status().replica.op_number;
    drop(before);
    for at in 0..30 {
        client.execute(at).await.unwrap();
    }
    until(|| nodes.iter().all(|node| node.status().replica.log_base > left)).await;
    let node = start(2, away).await;
    let mut events = node.events();
    let bytes = loop {
        if let Event::SnapshotInstalled { bytes, .. } = events.next().await.unwrap() {
            break bytes;
        }
    };
    client.execute(0).await.unwrap();
    let token = client.token();
    assert_eq!(node.client().query(0, Read::Causal(token)).await.unwrap(), 3);
    bytes
}

/// A checkpoint is fetched from members of any version: compressed between two that can read that,
/// and as it is otherwise.
#[tokio::test]
async fn a_checkpoint_is_fetched_from_members_of_any_version() {
    let whole = u64::try_from(PAGE_BYTES).unwrap();
    for (others, away) in [(OLD, NEW), (NEW, OLD), (2, NEW), (NEW, 2)] {
        let bytes = fetched(others, away).await;
        assert!(bytes >= whole, "{others} {away}: {bytes} bytes");
    }
    let bytes = fetched(NEW, NEW).await;
    assert!(bytes < whole / 50, "{bytes} bytes");
}

/// The directory of a group of one, which the build before leases and states on disk wrote: 20
/// operations, the last checkpoint after the 16th op, and a log above it.
const OLD_DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/disk-1");
const SUM: u64 = 210;

async fn start_alone(dir: &Path) -> NodeHandle<Counter> {
    let mut config = Config::default();
    config.checkpoint_ops = 8;
    config.log_retain_ops = 2;
    let options = StoreOptions::default().with_segment_bytes(16 << 10);
    once_let_go(async || {
        Node::builder(Counter::default())
            .group("fixture")
            .replica(ReplicaId(0))
            .members(Members::local(1).unwrap())
            .config(config.clone())
            .storage(FileStorage::new(dir).with_options(options))
            .transport(LocalNetwork::new().transport())
            .runtime(TokioRuntime::current())
            .start()
            .await
    })
    .await
}

/// A directory of the version before is opened as it is, and goes on.
#[tokio::test]
async fn a_directory_of_the_version_before_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(OLD_DIRECTORY).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    for added in [0, 5] {
        let node = start_alone(dir.path()).await;
        let client = node.client();
        assert_eq!(client.query((), Read::Linearizable).await.unwrap(), SUM + added);
        assert!(node.status().replica.checkpoint.op_number >= OpNumber(16));
        assert_eq!(client.execute(5).await.unwrap(), SUM + added + 5);
        node.shutdown().await.unwrap();
    }
}
