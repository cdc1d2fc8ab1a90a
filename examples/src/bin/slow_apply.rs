//! You will see what operations that spin for 500 ms do to the heartbeats of three processes.
//!
//! `slow_apply thread 30` or `slow_apply inline 30`: with a thread of its own, a slow executor
//! disturbs nothing; inline, it costs at most one view change before the node moves it to a thread.
//! Exits with 1 when that does not hold.

use std::{
    env,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::{net::TcpListener, process::Command};
use vr_core::{
    Client, Context, ExecutorMode, Members, Node, QueryContext, ReplicaId, StateMachine,
};
use vr_storage::FileStorage;
use vr_transport_tcp::{TcpTransport, TokioRuntime};

/// How long one operation keeps the executor busy; its result does not depend on the clock.
const SPIN: Duration = Duration::from_millis(500);
const REPLICAS: u64 = 3;

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Spinner(u64);

impl StateMachine for Spinner {
    type Operation = ();
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, (): ()) -> u64 {
        let begun = Instant::now();
        while begun.elapsed() < SPIN {
            std::hint::spin_loop();
        }
        self.0 += 1;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    vr_core::serde_snapshot!();
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [mode, seconds] => measure(mode, seconds.parse()?).await,
        [mode, seconds, members, id, directory] => {
            let mode = mode_of(mode)?;
            serve(mode, seconds.parse()?, members.parse()?, ReplicaId(id.parse()?), directory)
                .await?;
            Ok(ExitCode::SUCCESS)
        }
        [] | [_] | [_, _, ..] => bail!("usage: slow_apply thread|inline SECONDS"),
    }
}

fn mode_of(word: &str) -> Result<ExecutorMode> {
    match word {
        "thread" => Ok(ExecutorMode::Thread),
        "inline" => Ok(ExecutorMode::Inline),
        other => bail!("'{other}' is no executor mode; say thread or inline"),
    }
}

/// One replica process: runs for `seconds` after its group has formed, then tells what it counted.
#[expect(clippy::print_stdout, reason = "the parent process reads it")]
async fn serve(
    mode: ExecutorMode,
    seconds: u64,
    members: Members,
    id: ReplicaId,
    directory: &str,
) -> Result<()> {
    let address = members.address_of(id).context("not a member")?.to_owned();
    let node = Node::builder(Spinner::default())
        .replica(id)
        .members(members)
        .executor(mode)
        .storage(FileStorage::new(directory))
        .transport(TcpTransport::bind(address).await?)
        .runtime(TokioRuntime::current())
        .start()
        .await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let status = node.status();
    println!(
        "{} {} {:?}",
        status.replica.view, status.replica.heartbeats_missed, status.executor.mode
    );
    Ok(())
}

/// The parent: three processes, one slow operation every second, and the table.
#[expect(clippy::print_stdout, reason = "the table")]
async fn measure(mode: &str, seconds: u64) -> Result<ExitCode> {
    mode_of(mode)?;
    let directory = env::temp_dir().join(format!("slow_apply-{}", std::process::id()));
    let members = free_members().await?;
    let mut replicas = Vec::new();
    for id in 0..REPLICAS {
        let own = directory.join(id.to_string());
        std::fs::create_dir_all(&own)?;
        let child = Command::new(env::current_exe()?)
            .args([mode, &(seconds + 2).to_string(), &members, &id.to_string()])
            .arg(&own)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        replicas.push(child);
    }
    let runtime = TokioRuntime::current();
    let client = Client::<Spinner>::connect(members.parse()?, TcpTransport::client(), runtime);
    let client = client.await?;
    let mut executed = 0;
    for _ in 0..seconds {
        let next = tokio::time::Instant::now() + Duration::from_secs(1);
        executed = client.execute(()).await?;
        tokio::time::sleep_until(next).await;
    }
    println!("{executed} operations of {SPIN:?}; replica, view, heartbeats missed, executor:");
    let mut holds = true;
    for (id, replica) in replicas.into_iter().enumerate() {
        let output = replica.wait_with_output().await?;
        let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        println!("  {id} {line}");
        let numbers: Vec<&str> = line.split(' ').collect();
        holds &= match (mode, numbers.as_slice()) {
            ("thread", [view, missed, _]) => *view == "0" && *missed == "0",
            (_, [view, _, executor]) => (*view == "0" || *view == "1") && *executor == "Thread",
            (_, [] | [_] | [_, _] | [_, _, _, ..]) => false,
        };
    }
    std::fs::remove_dir_all(&directory)?;
    println!("{}", if holds { "holds" } else { "does not hold" });
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Three loopback addresses that nobody listens on.
async fn free_members() -> Result<String> {
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..REPLICAS {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?.to_string());
        listeners.push(listener);
    }
    Ok(addresses.join(","))
}
