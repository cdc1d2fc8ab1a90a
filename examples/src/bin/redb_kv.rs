//! You will see three replica processes with their state in a database, one killed with what it had
//! not committed, and how little it does again: `redb_kv`.
//! It starts itself three times, as `redb_kv A,B,C I DIR` for I = 0, 1, 2 (each a host:port).
use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
};

use futures::StreamExt;
use tokio::process::{Child, Command};
use vr_core::{Client, Config, Event, ExecutorMode, Members, Node, Read, ReplicaId};
use vr_examples::redb_kv::{Operation, RedbKv};
use vr_storage::FileStorage;
use vr_transport_tcp::{TcpTransport, TokioRuntime};

/// Operations that a crash makes a replica execute again, at most.
const PERSIST_OPS: u32 = 100;
/// Operations between two checkpoints, so that the log is not needed for long.
const CHECKPOINT_OPS: u32 = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.as_slice() {
        [members, id, dir] => replica(members.parse()?, id.parse()?, Path::new(dir)).await,
        [] => demo().await,
        _ => Err("usage: redb_kv [MEMBERS ID DIR]".into()),
    }
}

/// One replica in this process, until it is killed.
#[expect(clippy::print_stdout, reason = "what you will see")]
async fn replica(members: Members, id: u64, dir: &Path) -> Result<(), Box<dyn Error>> {
    let address = members.address_of(ReplicaId(id)).ok_or("not a member")?.to_owned();
    std::fs::create_dir_all(dir)?;
    let mut config = Config::default();
    config.persist_ops = PERSIST_OPS;
    config.checkpoint_ops = CHECKPOINT_OPS;
    config.log_retain_ops = CHECKPOINT_OPS;
    let node = Node::builder(RedbKv::open(dir.join("state.redb"))?)
        .replica(ReplicaId(id))
        .members(members)
        .storage(FileStorage::new(dir.join("log")))
        .transport(TcpTransport::bind(address).await?)
        .runtime(TokioRuntime::current())
        .config(config)
        // A commit waits for the disk, and heartbeats must not wait for a commit.
        .executor(ExecutorMode::Thread)
        .start()
        .await?;
    let mut events = node.events();
    while let Some(event) = events.next().await {
        if let Event::StateResumed { op_number } = event {
            println!("replica {id} goes on at op {op_number}");
        } else if let Event::StateDiscarded { reason } = event {
            println!("replica {id} begins anew: {reason:?}");
        }
    }
    Ok(node.stopped().await?)
}

fn spawn(list: &str, id: u64, dir: &Path) -> Result<Child, Box<dyn Error>> {
    let dir = dir.join(id.to_string());
    let mut command = Command::new(env::current_exe()?);
    let command = command.args([list, &id.to_string()]).arg(dir).kill_on_drop(true);
    Ok(command.spawn()?)
}

#[expect(clippy::print_stdout, reason = "what you will see")]
async fn demo() -> Result<(), Box<dyn Error>> {
    let list = "127.0.0.1:17611,127.0.0.1:17612,127.0.0.1:17613";
    let dir: PathBuf = env::temp_dir().join("redb_kv");
    let mut replicas = Vec::new();
    for id in 0..3 {
        replicas.push(spawn(list, id, &dir)?);
    }
    let (transport, runtime) = (TcpTransport::client(), TokioRuntime::current());
    let client = Client::<RedbKv>::connect(list.parse()?, transport, runtime).await?;
    let add = || client.execute(Operation::Add("counter".into(), 1));
    for round in 1..=2_usize {
        for _ in 0..250 {
            add().await?;
        }
        let sum = client.query("counter".into(), Read::Linearizable).await?;
        println!("the counter is {}", sum.unwrap_or_default());
        let killed = round % 3;
        if let Some(replica) = replicas.get_mut(killed) {
            println!("replica {killed} is killed and started again");
            replica.kill().await?;
            *replica = spawn(list, u64::try_from(killed)?, &dir)?;
        }
    }
    add().await?;
    for mut replica in replicas {
        replica.kill().await?;
    }
    Ok(())
}
