//! The store on disk: what a restart does not do again, what a kill does not lose, and what a replica
//! gets from the others.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

mod predecessor;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    runtime::Runtime,
    sync::watch,
};
use vr_core::{
    Client, Config, Members, Node, NodeHandle, Read, ReplicaId, conformance::state_machine,
    node::local::LocalNetwork,
};
use vr_examples::{
    kv::demo::fleet::lease_port,
    redb_kv::{Counts, Operation, RedbKv},
};
use vr_storage::FileStorage;
use vr_transport_tcp::{TcpTransport, TokioRuntime};

use crate::predecessor::once_let_go;

fn operations() -> Vec<Operation> {
    let key = |number: u64| format!("key {}", number % 5);
    let operation = |number: u64| match number % 4 {
        0 => Operation::Put(key(number), number.to_string()),
        1 => Operation::Delete(key(number * 3)),
        _ => Operation::Add(key(number * 2), 7),
    };
    (0..24).map(operation).collect()
}

#[test]
fn the_store_keeps_what_it_owes() {
    let place = || tempfile::tempdir().unwrap();
    let open = |place: &tempfile::TempDir| RedbKv::open(place.path().join("state.redb")).unwrap();
    let report = state_machine::check_on_disk(place, open, &operations());
    report.assert_passed();
    assert_eq!(report.passed().len(), state_machine::cases_on_disk().count(), "{report}");
    let queries: Vec<String> = (0..5).map(|number| format!("key {number}")).collect();
    state_machine::check(|| open(&place()), &operations(), &queries).assert_passed();
}

/// Ops that a crash makes a replica execute again, at most one fewer.
const PERSIST_OPS: u32 = 10;

fn config(checkpoint_ops: u32) -> Config {
    let mut config = Config::default();
    config.persist_ops = PERSIST_OPS;
    config.checkpoint_ops = checkpoint_ops;
    config.log_retain_ops = 0;
    config
}

/// Three nodes in one process, which ends when this is dropped.
struct Group {
    nodes: Vec<NodeHandle<RedbKv>>,
    counts: Vec<Counts>,
    network: LocalNetwork,
    dir: PathBuf,
    config: Config,
    runtime: Runtime,
}

impl Group {
    fn start(dir: &Path, config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (dir, network) = (dir.to_owned(), LocalNetwork::new());
        let (nodes, counts) = (Vec::new(), Vec::new());
        let mut group = Self { nodes, counts, network, dir, config, runtime };
        for id in 0..3 {
            let (node, counts) = group.start_one(id);
            group.nodes.push(node);
            group.counts.push(counts);
        }
        group
    }

    fn dir_of(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// Starts the last replica again, which has been shut down; its handle would keep the files.
    fn restart_last(&mut self) -> Counts {
        drop(self.nodes.pop());
        let (node, counts) = self.start_one(u64::try_from(self.nodes.len()).unwrap());
        self.nodes.push(node);
        counts
    }

    /// Starts a replica, as soon as the threads of its predecessor have let go of the files.
    fn start_one(&self, id: u64) -> (NodeHandle<RedbKv>, Counts) {
        let dir = self.dir_of(id);
        std::fs::create_dir_all(&dir).unwrap();
        self.runtime.block_on(once_let_go(async || {
            let store = loop {
                match RedbKv::open(dir.join("state.redb")) {
                    Err(redb::Error::DatabaseAlreadyOpen) => tokio::task::yield_now().await,
                    opened => break opened.unwrap(),
                }
            };
            let counts = store.counts();
            let node = Node::builder(store)
                .replica(ReplicaId(id))
                .members(Members::local(3).unwrap())
                .storage(FileStorage::new(dir.join("log")))
                .transport(self.network.transport())
                .runtime(TokioRuntime::current())
                .config(self.config.clone())
                .start()
                .await?;
            Ok((node, counts))
        }))
    }

    /// Adds 1 so often, through the node of `id`.
    fn add(&self, id: usize, times: usize) {
        let client = self.nodes[id].client();
        for _ in 0..times {
            self.runtime.block_on(client.execute(Operation::Add("sum".into(), 1))).unwrap();
        }
    }

    fn sum(&self, id: usize) -> String {
        let client = self.nodes[id].client();
        let answer = self.runtime.block_on(client.query("sum".into(), Read::Linearizable));
        answer.unwrap().unwrap_or_default()
    }

    /// Runs until all nodes have executed as much, and compares what they made of it.
    fn agree(&self) {
        self.runtime.block_on(async {
            loop {
                let mut digests = Vec::new();
                for node in &self.nodes {
                    digests.push(node.digest().await.unwrap());
                }
                if digests.iter().all(|digest| digest.applied == digests[0].applied) {
                    assert!(digests.iter().all(|digest| digest == &digests[0]), "{digests:?}");
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
    }

    fn shut_down(&self, id: usize) {
        self.runtime.block_on(self.nodes[id].shutdown()).unwrap();
    }
}

/// Nothing is executed or restored again that was on disk when the nodes were shut down.
#[test]
fn a_restart_executes_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    for (round, checkpoint_ops) in [(1, 1000), (2, 20), (3, 20)] {
        let group = Group::start(dir.path(), config(checkpoint_ops));
        assert_eq!(
            group.sum(0),
            if round == 1 { String::new() } else { (33 * (round - 1)).to_string() }
        );
        group.agree();
        let done: Vec<_> = group.counts.iter().map(|it| (it.applied(), it.restored())).collect();
        assert_eq!(done, [(0, 0); 3], "round {round}");
        group.add(0, 33);
        group.agree();
        (0..3).for_each(|id| group.shut_down(id));
    }
}

/// A process that ends without notice makes its node execute again what was not committed, which is
/// less than is executed between two commits.
#[test]
fn a_crash_makes_little_to_be_executed_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut sum = 0;
    for times in [7, 1, 12, 10, 29, 3] {
        let group = Group::start(dir.path(), config(25));
        if sum > 0 {
            assert_eq!(group.sum(1), sum.to_string());
        }
        group.agree();
        for counts in &group.counts {
            assert!(counts.applied() < u64::from(PERSIST_OPS), "{}", counts.applied());
            assert_eq!(counts.restored(), 0);
        }
        group.add(1, times);
        sum += times;
        drop(group);
    }
}

/// A replica whose directory is gone gets the whole state from the others, and from then on its own
/// restarts need nothing of it.
#[test]
fn a_state_comes_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path(), config(20));
    group.add(0, 15);
    group.agree();
    group.shut_down(2);
    group.add(0, 100);
    std::fs::remove_dir_all(group.dir_of(2)).unwrap();
    let counts = group.restart_last();
    group.agree();
    assert_eq!(counts.restored(), 1);
    assert!(counts.applied() < 40, "{}", counts.applied());
    assert_eq!(group.sum(2), "115");
    group.shut_down(2);
    let counts = group.restart_last();
    group.agree();
    assert_eq!((counts.applied(), counts.restored()), (0, 0));
}

/// A replica as a process.
struct Process {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(members: &str, id: usize, dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_redb_kv"))
            .args([members, &id.to_string()])
            .arg(dir.join(id.to_string()))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// Kills it and returns what it had said.
    async fn kill(mut self) -> Vec<String> {
        self.child.kill().await.unwrap();
        let mut lines = Vec::new();
        while let Some(line) = self.said.next_line().await.unwrap() {
            lines.push(line);
        }
        lines
    }
}

/// Clients that add 1 to keys of their own, and processes that are killed, one or all at once, at
/// moments that nobody chose: each acknowledged operation happened once.
#[tokio::test]
async fn kills_neither_lose_nor_repeat_anything() {
    const ADDS: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let leases = [(); 3].map(|()| lease_port().unwrap());
    let members = leases.each_ref().map(|lease| lease.local_addr().unwrap().to_string()).join(",");
    let mut processes: Vec<_> =
        (0..3).map(|id| Some(Process::start(&members, id, dir.path()))).collect();
    let (acknowledged, mut seen) = watch::channel(0);
    let clients = (0..3).map(|number| {
        let members: Members = members.parse().unwrap();
        let acknowledged = acknowledged.clone();
        tokio::spawn(async move {
            let (transport, runtime) = (TcpTransport::client(), TokioRuntime::current());
            let client = Client::<RedbKv>::connect(members, transport, runtime).await.unwrap();
            let mut sums = Vec::new();
            for _ in 0..ADDS {
                let add = Operation::Add(format!("client {number}"), 1);
                sums.push(client.execute(add).await.unwrap().unwrap());
                acknowledged.send_modify(|count| *count += 1);
            }
            sums
        })
    });
    let clients: Vec<_> = clients.collect();
    drop(acknowledged);
    let (mut said, mut draw, mut until) = (Vec::new(), 12_345_u64, 0);
    loop {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        until += usize::try_from(draw >> 40).unwrap() % 90;
        if seen.wait_for(|count| *count >= until).await.is_err() || until >= 3 * ADDS {
            break;
        }
        let struck: Vec<usize> = match draw >> 60 {
            0..=2 => vec![0, 1, 2],
            more => vec![usize::try_from(more % 3).unwrap()],
        };
        for id in &struck {
            said.extend(processes[*id].take().unwrap().kill().await);
        }
        for id in struck {
            processes[id] = Some(Process::start(&members, id, dir.path()));
        }
    }
    for client in clients {
        let expected: Vec<String> = (1..=ADDS).map(|sum| sum.to_string()).collect();
        assert_eq!(client.await.unwrap(), expected, "each once, in order");
    }
    for process in processes {
        said.extend(process.unwrap().kill().await);
    }
    assert!(said.iter().any(|line| line.contains("goes on at op")), "{said:?}");
}
