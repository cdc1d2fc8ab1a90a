//! Nodes on async-executor and async-io: nothing in this crate belongs to one async runtime.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use core::time::Duration;
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{Arc, Mutex},
};

use async_executor::Executor;
use async_io::Timer;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    future::{BoxFuture, join_all},
};
use vr_core::{
    Client, Config, Context, Event, ExecutorMode, LogReader, LogWriter, Malformed, Members,
    MemoryCheckpoints, Node, NodeError, NodeHandle, OpNumber, Opened, QueryContext, Raw,
    RawStateMachine, Read, Recovered, ReplicaId, Runtime, SnapshotError, SnapshotReader,
    SnapshotWriter, Storage, StorageError, WriteBatch,
    model::{
        durable::{Identity, Superblock},
        entry::Entry,
        time::{Instant, nanoseconds},
    },
    node::local::LocalNetwork,
};

/// The whole port: real clocks, async-io's timers, async-executor's tasks.
#[derive(Clone, Debug)]
struct SmolRuntime {
    executor: Arc<Executor<'static>>,
    #[expect(clippy::disallowed_types, reason = "a real runtime has a real clock")]
    origin: std::time::Instant,
}

impl SmolRuntime {
    #[expect(clippy::disallowed_types, reason = "a real runtime has a real clock")]
    fn new() -> Self {
        Self { executor: Arc::default(), origin: std::time::Instant::now() }
    }

    fn run<T>(&self, wanted: impl Future<Output = T>) -> T {
        async_io::block_on(self.executor.run(wanted))
    }
}

impl Runtime for SmolRuntime {
    fn now(&self) -> Instant {
        Instant(nanoseconds(self.origin.elapsed()))
    }

    #[expect(clippy::disallowed_types, reason = "a real runtime has a real clock")]
    fn wall_clock(&self) -> Duration {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let timer = Timer::at(self.origin + Duration::from_nanos(at.0));
        Box::pin(async move {
            timer.await;
        })
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) {
        self.executor.spawn(task).detach();
    }

    fn entropy(&self) -> u128 {
        let draw = || u128::from(RandomState::new().build_hasher().finish());
        draw() << 64 | draw()
    }
}

/// Adds bytes up; spins or panics when asked to.
struct Sum {
    total: u64,
    runtime: SmolRuntime,
}

impl RawStateMachine for Sum {
    fn apply(&mut self, _: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        match operation.as_ref() {
            b"spin" => {
                let until = self.runtime.now() + Duration::from_millis(5);
                while self.runtime.now() < until {}
            }
            b"panic" => panic!("as it was told"),
            bytes => self.total += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
        }
        Ok(Bytes::copy_from_slice(&self.total.to_le_bytes()))
    }

    fn query(&self, _: &QueryContext, _: Bytes) -> Result<Bytes, Malformed> {
        Ok(Bytes::copy_from_slice(&self.total.to_le_bytes()))
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        out.write_value(&self.total)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.total = from.read_value()?;
        Ok(())
    }
}

/// Remembers as long as it lives.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<Entry>>>);

#[async_trait]
impl Storage for Memory {
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError> {
        let superblock = Superblock::blank(identity);
        let recovered = Recovered::whole(superblock, Vec::new());
        let checkpoints = Arc::new(MemoryCheckpoints::new());
        Ok(Opened { recovered, writer: self.clone(), reader: self, checkpoints })
    }
}

#[async_trait]
impl LogWriter for Memory {
    async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut entries = self.0.lock().unwrap();
        if let Some(cut) = batch.cut {
            entries.retain(|entry| entry.header.op_number <= cut);
        }
        entries.extend(batch.entries().cloned());
        Ok(())
    }
}

#[async_trait]
impl LogReader for Memory {
    async fn entries(
        &self,
        from: OpNumber,
        through: OpNumber,
        _: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let entries = self.0.lock().unwrap();
        let wanted = |entry: &&Entry| (from..=through).contains(&entry.header.op_number);
        Ok(entries.iter().filter(wanted).cloned().collect())
    }
}

async fn start(
    runtime: &SmolRuntime,
    network: &LocalNetwork,
    config: &Config,
    mode: ExecutorMode,
    (id, members): (u64, u64),
) -> NodeHandle<Raw> {
    Node::builder_raw(Sum { total: 0, runtime: runtime.clone() })
        .replica(ReplicaId(id))
        .members(Members::local(members).unwrap())
        .storage(Memory::default())
        .transport(network.transport())
        .runtime(runtime.clone())
        .config(config.clone())
        .executor(mode)
        .start()
        .await
        .unwrap()
}

fn number(reply: &Bytes) -> u64 {
    u64::from_le_bytes(reply.as_ref().try_into().unwrap())
}

#[test]
fn three_nodes_serve_and_survive_the_loss_of_their_primary() {
    for mode in [ExecutorMode::Inline, ExecutorMode::Thread] {
        let (runtime, network) = (SmolRuntime::new(), LocalNetwork::new());
        runtime.run(async {
            let config = Config::default();
            let nodes = (0..3).map(|id| start(&runtime, &network, &config, mode, (id, 3)));
            let nodes = join_all(nodes).await;
            let (members, transport) = (Members::local(3).unwrap(), network.transport());
            let client = Client::<Raw>::connect(members, transport, runtime.clone()).await.unwrap();
            let calls = join_all((0..100).map(|_| client.execute_raw([1_u8].as_slice().to_vec())));
            assert!(calls.await.iter().all(Result::is_ok));
            nodes[0].shutdown().await.unwrap();
            let reply = client.execute_raw(vec![1]).await.unwrap();
            assert_eq!(number(&reply), 101, "{mode:?}");
            let inside = nodes[1].client();
            let answer = inside.query_raw(Bytes::new(), Read::Linearizable).await.unwrap();
            assert_eq!(number(&answer), 101, "{mode:?}");
            assert_eq!(nodes[1].status().executor.mode, mode);
        });
    }
}

#[test]
fn a_slow_operation_moves_the_executor_to_a_thread_for_good() {
    let (runtime, network) = (SmolRuntime::new(), LocalNetwork::new());
    runtime.run(async {
        let heartbeat_interval = Duration::from_millis(4);
        let mut config = Config::default();
        config.heartbeat_interval = heartbeat_interval;
        let node = start(&runtime, &network, &config, ExecutorMode::Inline, (0, 1)).await;
        let (client, mut events) = (node.client(), node.events());
        client.execute_raw("spin").await.unwrap();
        let took = loop {
            if let Some(Event::ExecutorMoved { took }) = events.next().await {
                break took;
            }
        };
        assert!(took > heartbeat_interval);
        assert_eq!(node.status().executor.mode, ExecutorMode::Thread);
        let calls = join_all((0..100).map(|_| client.execute_raw(vec![1]))).await;
        assert_eq!(number(calls.last().unwrap().as_ref().unwrap()), 100);
        assert_eq!(number(&client.query_raw("", Read::Linearizable).await.unwrap()), 100);
        assert_eq!(node.digest().await.unwrap().applied, OpNumber(102));
        node.shutdown().await.unwrap();
    });
}

#[test]
fn a_panic_on_the_executors_thread_stops_the_node() {
    let (runtime, network) = (SmolRuntime::new(), LocalNetwork::new());
    runtime.run(async {
        let node =
            start(&runtime, &network, &Config::default(), ExecutorMode::Thread, (0, 1)).await;
        assert!(node.client().execute_raw("panic").await.is_err());
        let stopped = node.stopped().await.unwrap_err();
        assert!(matches!(stopped, NodeError::ApplyPanicked { op_number: OpNumber(2), .. }));
    });
}
