//! What the command line can ask for, and what comes of it.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use vr_core::{Durability, Members};

use crate::load::{
    catch_up,
    engines::{self, Execution, Shape},
    fail_over,
    fleet::{Fleet, Tuning, connect},
    generator::{Measured, drive, say},
    group, growth, idle, paused, replica, restarts,
    row::{Row, append_csv, table},
    soak,
    workload::{self, Workload},
};

/// The name of this crate's group in tables.
const SYSTEM: &str = "vr";

/// Loads a group and says how it did.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Three engines and all clients in one loop on one thread: no nodes, no network, no disk
    Engines(EnginesOptions),
    /// Three nodes and their clients on one thread of this process, through the public interface
    Memory(MemoryOptions),
    /// Three replica processes on loopback, started and stopped by this one
    Tcp(TcpOptions),
    /// A group that runs already: replicas that were started with `load replica`
    Connect(ConnectOptions),
    /// Runs one replica, for `load connect`
    Replica(replica::Options),
    /// Kills the primary's process under load: how long until a write is acknowledged again
    FailOver(fail_over::Options),
    /// Restarts every replica in turn under load: no call may fail
    RollingRestart(restarts::Options),
    /// Lets the primary hand off under load: no call may fail
    HandOff(restarts::Options),
    /// Has millions of operations of thousands of sessions executed: memory and disk must stay flat
    Soak(soak::Options),
    /// Lets a replica come back that missed much, under load and while it is disturbed
    CatchUp(catch_up::Options),
    /// Compares groups that are old, have many sessions or a large state with a young, small one
    Growth(growth::Options),
    /// Leaves a group alone, and says what it costs all the same
    Idle(idle::Options),
    /// Pauses a backup under load: it must cost neither throughput nor memory
    PausedBackup(paused::Options),
    /// A short run of each of the others, for tests
    Smoke,
}

#[derive(Clone, Debug, Args)]
struct EnginesOptions {
    /// Whether operations wait for storage, which takes no time here: full or view-only
    #[arg(long, value_name = "MODE", default_value_t = Durability::ViewOnly)]
    durability: Durability,
    /// Execute with the client table that a node has, instead of counting what is committed
    #[arg(long)]
    executor: bool,
    #[command(flatten)]
    load: workload::Options,
}

#[derive(Clone, Debug, Args)]
struct MemoryOptions {
    /// Whether operations wait for storage, which is in memory: full, view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::ViewOnly)]
    durability: Durability,
    /// A service whose operations are encoded and decoded, instead of one that takes bytes
    #[arg(long)]
    typed: bool,
    #[command(flatten)]
    load: workload::Options,
}

#[derive(Clone, Debug, Args)]
struct TcpOptions {
    /// What is on disk: full (synced before an operation is acknowledged), view-only or diskless
    #[arg(long, value_name = "MODE", default_value_t = Durability::ViewOnly)]
    durability: Durability,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    load: workload::Options,
}

#[derive(Clone, Debug, Args)]
struct ConnectOptions {
    /// All members, as the replicas were told
    #[arg(long, value_name = "A,B,C")]
    members: Members,
    /// The group's name
    #[arg(long, default_value = "load")]
    group: String,
    #[command(flatten)]
    load: workload::Options,
}

/// Does what was asked for.
///
/// # Errors
/// In words, why it did not come about.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.what {
        What::Engines(options) => {
            let execution = if options.executor { Execution::Full } else { Execution::Counted };
            let mode = if options.executor { "engines+executor" } else { "engines" };
            let mode = format!("{mode}/{}", options.durability);
            each(&options.load, &mode, async |workload| {
                Ok((run_engines(options.durability, execution, workload)?, Vec::new()))
            })
            .await
        }
        What::Memory(options) => {
            let mode = if options.typed { "memory+typed" } else { "memory" };
            let mode = format!("{mode}/{}", options.durability);
            each(&options.load, &mode, async |workload| {
                let measured = if options.typed {
                    group::run_typed(options.durability, workload).await?
                } else {
                    group::run_raw(options.durability, workload).await?
                };
                Ok((measured, Vec::new()))
            })
            .await
        }
        What::Tcp(options) => {
            let mode = format!("tcp/{}", options.durability);
            each(&options.load, &mode, async |workload| run_tcp(&options, workload).await).await
        }
        What::Connect(options) => {
            each(&options.load, "connected", async |workload| {
                let measured = run_connected(&options.members, &options.group, workload).await?;
                Ok((measured, Vec::new()))
            })
            .await
        }
        What::Replica(options) => replica::run(options).await,
        What::FailOver(options) => {
            let gaps = fail_over::run(&options).await?;
            print(&fail_over::describe(&options, &gaps))
        }
        What::RollingRestart(options) => {
            let seen = restarts::rolling_restart(&options).await?;
            print(&restarts::describe("rolling restart", &options, &seen))
        }
        What::HandOff(options) => {
            let seen = restarts::hand_offs(&options).await?;
            print(&restarts::describe("hand-off", &options, &seen))
        }
        What::Soak(options) => print(&soak::describe(&options, &soak::run(&options).await?)),
        What::Growth(options) => print(&growth::describe(&growth::run(&options).await?)),
        What::CatchUp(options) => {
            let seen = catch_up::run(&options).await?;
            print(&catch_up::describe(&options, &seen))
        }
        What::Idle(options) => print(&idle::describe(&options, &idle::run(&options).await?)),
        What::PausedBackup(options) => {
            let rounds = paused::run(&options).await?;
            print(&paused::describe(&options, &rounds))
        }
        What::Smoke => smoke().await,
    }
}

/// Runs each workload, and shows and keeps what came of it.
async fn each(
    options: &workload::Options,
    mode: &str,
    run: impl AsyncFn(&Workload) -> anyhow::Result<(Measured, Vec<u64>)>,
) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for workload in options.workloads() {
        let Workload { clients, payload_bytes, .. } = workload;
        if workload.progress {
            say(&format!("{mode}, {clients} clients, {payload_bytes} bytes"));
        }
        let (measured, peak_rss_kib) = run(&workload).await?;
        if let Some(error) = &measured.error {
            say(&format!("  {} operations failed, such as: {error}", measured.errors));
        }
        let row = Row { peak_rss_kib, ..Row::new(SYSTEM, mode, &workload, measured) };
        if let Some(path) = &options.csv {
            append_csv(path, std::slice::from_ref(&row))?;
        }
        rows.push(row);
    }
    print(table(&rows).trim_end())
}

/// Three engines in a loop, without a runtime around them.
///
/// # Errors
/// The engines form no group, or one stopped.
pub fn run_engines(
    durability: Durability,
    execution: Execution,
    workload: &Workload,
) -> anyhow::Result<Measured> {
    if workload.rate.is_some() || workload.read_percent > 0 {
        bail!("engines are driven in a closed loop, and asked no queries");
    }
    let mut group = engines::Group::start(Shape {
        replicas: 3,
        durability,
        execution,
        clients: workload.clients,
        clients_per_session: workload.clients_per_session,
    })?;
    engines::drive(&mut group, workload)
}

async fn run_tcp(
    options: &TcpOptions,
    workload: &Workload,
) -> anyhow::Result<(Measured, Vec<u64>)> {
    let arguments = options.tuning.arguments();
    let dir = options.dir.as_deref();
    let fleet = Fleet::start_with(3, options.durability, dir, arguments).await?;
    let mut clients = Vec::new();
    for _ in 0..workload.sessions() {
        clients.push(fleet.client().await?);
    }
    let measured = drive(&clients, workload).await;
    Ok((measured, fleet.peak_rss_kib()))
}

async fn run_connected(
    members: &Members,
    group: &str,
    workload: &Workload,
) -> anyhow::Result<Measured> {
    let mut clients = Vec::new();
    for _ in 0..workload.sessions() {
        clients.push(connect(members.clone(), group).await?);
    }
    Ok(drive(&clients, workload).await)
}

/// A short run of everything; an error in any of them is one.
async fn smoke() -> anyhow::Result<()> {
    let workload = Workload {
        clients: 16,
        clients_per_session: 8,
        payload_bytes: 256,
        read_percent: 10,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(300),
        rate: None,
        progress: false,
    };
    let mut rows = Vec::new();
    let writes = Workload { read_percent: 0, ..workload.clone() };
    let measured = run_engines(Durability::Full, Execution::Full, &writes)?;
    rows.push(Row::new(SYSTEM, "engines", &writes, measured));
    let measured = group::run_raw(Durability::Diskless, &workload).await?;
    rows.push(Row::new(SYSTEM, "memory", &workload, measured));
    let measured = group::run_typed(Durability::Full, &workload).await?;
    rows.push(Row::new(SYSTEM, "memory+typed", &workload, measured));
    let paced = Workload { rate: Some(500), ..workload.clone() };
    for (durability, workload) in [(Durability::ViewOnly, workload), (Durability::Full, paced)] {
        let fleet = Fleet::start(durability, None).await?;
        let clients = [fleet.client().await?, fleet.client().await?];
        let measured = drive(&clients, &workload).await;
        let peak_rss_kib = fleet.peak_rss_kib();
        let mode = format!("tcp/{durability}");
        rows.push(Row { peak_rss_kib, ..Row::new(SYSTEM, &mode, &workload, measured) });
    }
    print(table(&rows).trim_end())?;
    if let Some(row) = rows.iter().find(|row| row.errors > 0 || row.summary.operations == 0) {
        bail!(
            "{} operations succeeded and {} failed in {}",
            row.summary.operations,
            row.errors,
            row.mode
        );
    }
    smoke_of_faults().await
}

/// A short run of everything that is stopped, killed or paused meanwhile.
async fn smoke_of_faults() -> anyhow::Result<()> {
    let (durability, dir) = (Durability::ViewOnly, None);
    for silent in [false, true] {
        let options = fail_over::Options { runs: 1, silent, durability, dir: dir.clone() };
        print(&fail_over::describe(&options, &fail_over::run(&options).await?))?;
    }
    let options = restarts::Options { rounds: 1, clients: 4, rate: 1000, durability, dir };
    let seen = restarts::hand_offs(&options).await?;
    print(&restarts::describe("hand-off", &options, &seen))?;
    let seen = restarts::rolling_restart(&options).await?;
    print(&restarts::describe("rolling restart", &options, &seen))?;
    let (durability, dir) = (Durability::Full, None);
    let options = soak::short(durability);
    print(&soak::describe(&options, &soak::run(&options).await?))?;
    let seconds = Duration::from_millis(300);
    let options = paused::Options { rounds: 1, seconds, clients: 8, durability, dir };
    print(&paused::describe(&options, &paused::run(&options).await?))?;
    print(&growth::describe(&growth::run(&growth::short()).await?))?;
    let options = idle::short(durability);
    print(&idle::describe(&options, &idle::run(&options).await?))?;
    let options = catch_up::short(durability);
    print(&catch_up::describe(&options, &catch_up::run(&options).await?))
}

/// A line on standard output.
fn print(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<What, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.what)
    }

    #[test]
    fn each_kind_of_load_has_a_command() {
        let lines = [
            "load engines --clients 1",
            "load memory --typed",
            "load tcp --durability full --clients 1,64 --payload 4096",
            "load connect --members 127.0.0.1:1,127.0.0.1:2,127.0.0.1:3 --rate 1000",
            "load replica --replica 0 --members a:1,b:2,c:3 --data d",
            "load fail-over --silent --runs 3",
            "load rolling-restart --rounds 2",
            "load hand-off --clients 4",
            "load soak --operations 1000 --dead-backup",
            "load catch-up --mib 16",
            "load idle --seconds 1",
            "load paused-backup --seconds 1",
            "load smoke",
        ];
        for line in lines {
            assert!(parsed(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_mode_that_is_none_is_refused() {
        assert!(parsed("load tcp --durability sometimes").is_err());
        assert!(parsed("load").is_err());
    }
}
