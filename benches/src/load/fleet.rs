//! The replica processes of a run: started, told, killed, watched, and never left behind.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpSocket,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};
use vr_core::{Client, Durability, Members, Raw};
use vr_transport_tcp::{TcpTransport, TokioRuntime};

use crate::load::{
    process::{Spent, peak_rss_kib, rss_kib},
    relay::Relay,
};

/// How long a process may take to answer, and a group to become well.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a replica is asked whether all is well.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The group's name.
pub const GROUP: &str = "load";

/// The replicas of one group, each a process. Dropping it ends them and removes their files.
#[derive(Debug)]
pub struct Fleet {
    dir: TempDir,
    members: Members,
    /// The members' addresses as each replica knows them.
    seen: Vec<String>,
    durability: Durability,
    /// What each replica is told besides.
    arguments: Vec<String>,
    replicas: Vec<Replica>,
}

#[derive(Debug)]
struct Replica {
    process: Option<Process>,
    /// Only the very first processes found a group without disks.
    has_run: bool,
    /// Bound but never listening: as long as it lives, the system gives the port to nobody else.
    _lease: TcpSocket,
}

#[derive(Debug)]
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What a replica says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its view.
    pub view: u64,
    /// Whether it leads the view, and serves.
    pub is_primary: bool,
    /// Whether it has nothing to explain.
    pub is_well: bool,
    /// The last op that it has executed.
    pub applied: u64,
    /// The op of the checkpoint that it holds.
    pub held: u64,
    /// The op of the checkpoint that it fetches; zero while it fetches none.
    pub checkpoint: u64,
    /// Parts of a checkpoint that it has fetched, and of how many; zero while it fetches none.
    pub chunks: (u32, u32),
}

/// What replicas are told where speed is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Tuning {
    /// Bytes of operations that replicas write and sync on the thread that runs them, at most
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 10)]
    pub inline_writes: u64,
    /// Segments of the log that replicas make before they start: what it takes from one checkpoint
    /// to the next
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub spare_segments: u32,
    /// Microseconds after a message in which replicas ask their sockets without sleeping
    #[arg(long, value_name = "US", default_value_t = 0)]
    pub busy_poll: u64,
}

impl Tuning {
    /// As options of `load replica`.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let Self { inline_writes, spare_segments, busy_poll } = self;
        [
            format!("--inline-writes={inline_writes}"),
            format!("--spare-segments={spare_segments}"),
            format!("--busy-poll={busy_poll}"),
        ]
        .to_vec()
    }
}

impl Status {
    /// Reads what a replica's process prints.
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| {
            let fields = line.split(' ').filter_map(|field| field.split_once('='));
            fields.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
        };
        Some(Self {
            view: field("view")?.parse().ok()?,
            is_primary: field("primary")?.parse().ok()?,
            is_well: field("well")?.parse().ok()?,
            applied: field("applied")?.parse().ok()?,
            held: field("held")?.parse().ok()?,
            checkpoint: field("checkpoint")?.parse().ok()?,
            chunks: (field("chunks")?.parse().ok()?, field("of")?.parse().ok()?),
        })
    }
}

impl Fleet {
    /// Where the replicas' directories are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts three replicas below `dir`, or below the system's directory for such files, and
    /// waits until all is well with each.
    ///
    /// # Errors
    /// The system refused, or they do not become well.
    pub async fn start(durability: Durability, dir: Option<&Path>) -> anyhow::Result<Self> {
        Self::start_with(3, durability, dir, Vec::new()).await
    }

    /// The same with so many replicas, and more options of `load replica` for each.
    ///
    /// # Errors
    /// The system refused, or they do not become well.
    pub async fn start_with(
        count: usize,
        durability: Durability,
        dir: Option<&Path>,
        arguments: Vec<String>,
    ) -> anyhow::Result<Self> {
        Self::start_around(count, durability, dir, arguments, None).await
    }

    /// The same, where everything between one of them and the others passes a relay.
    ///
    /// # Errors
    /// The system refused, or they do not become well.
    pub async fn start_around(
        count: usize,
        durability: Durability,
        dir: Option<&Path>,
        arguments: Vec<String>,
        around: Option<(usize, &Relay)>,
    ) -> anyhow::Result<Self> {
        let builder = || tempfile::Builder::new().prefix("vr-load-").to_owned();
        let dir = match dir {
            Some(dir) => {
                fs::create_dir_all(dir)?;
                builder().tempdir_in(dir)?
            }
            None => builder().tempdir()?,
        };
        let (mut replicas, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let lease = lease_port()?;
            addresses.push(lease.local_addr()?);
            replicas.push(Replica { process: None, has_run: false, _lease: lease });
        }
        let seen = match around {
            Some((around, relay)) => relay.put_around(around, &addresses)?,
            None => vec![addresses.clone(); count],
        };
        let seen = seen.iter().map(|addresses| listed(addresses)).collect();
        let members = listed(&addresses).parse()?;
        let mut fleet = Self { dir, members, seen, durability, arguments, replicas };
        for replica in 0..fleet.count() {
            fleet.start_one(replica)?;
        }
        fleet.wait_until_well().await?;
        Ok(fleet)
    }

    /// How many replicas there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.replicas.len()
    }

    /// A client with a session of its own.
    ///
    /// # Errors
    /// The system refused.
    pub async fn client(&self) -> anyhow::Result<Client<Raw>> {
        connect(self.members.clone(), GROUP).await
    }

    /// Starts a replica that is down; does not wait for anything.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_one(&mut self, replica: usize) -> anyhow::Result<()> {
        let data = self.dir.path().join(format!("replica-{replica}"));
        let log = fs::File::options().create(true).append(true).open(self.log_file(replica))?;
        let durability = self.durability.to_string();
        let place = self.replicas.get_mut(replica).context("there is no such replica")?;
        let members = self.seen.get(replica).context("there is no such replica")?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["replica", "--replica", &replica.to_string(), "--members", members])
            .args(["--durability", &durability, "--group", GROUP])
            .args(&self.arguments)
            .arg("--data")
            .arg(data);
        if self.durability == Durability::Diskless && !place.has_run {
            command.arg("--found");
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("standard input is piped")?;
        let answers = child.stdout.take().context("standard output is piped")?;
        let answers = BufReader::new(answers).lines();
        place.process = Some(Process { child, orders, answers });
        place.has_run = true;
        Ok(())
    }

    /// Waits until every replica has nothing to explain, and one of them leads.
    ///
    /// # Errors
    /// Half a minute passed, or a process ended; with what it wrote last.
    pub async fn wait_until_well(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let mut statuses = Vec::new();
            for replica in 0..self.count() {
                statuses.push(self.status(replica).await?);
            }
            let are_well = statuses.iter().all(|status| status.is_well);
            if are_well && statuses.iter().any(|status| status.is_primary) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("the group does not become well: {statuses:?}");
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The replica that leads the latest view.
    ///
    /// # Errors
    /// A process does not answer, or none leads.
    pub async fn primary(&mut self) -> anyhow::Result<usize> {
        let mut latest = None;
        for replica in 0..self.count() {
            let status = self.status(replica).await?;
            if status.is_primary && latest.is_none_or(|(view, _)| view < status.view) {
                latest = Some((status.view, replica));
            }
        }
        latest.map(|(_, replica)| replica).context("no replica leads")
    }

    /// What a replica says of itself.
    ///
    /// # Errors
    /// Its process does not answer.
    pub async fn status(&mut self, replica: usize) -> anyhow::Result<Status> {
        let line = self.ask(replica, "status").await?;
        Status::parse(&line).with_context(|| format!("replica {replica} says {line:?}"))
    }

    /// Gives a replica's process an order, and returns its answer.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ask(&mut self, replica: usize, order: &str) -> anyhow::Result<String> {
        let process = self.process(replica)?;
        let asked = async {
            process.orders.write_all(format!("{order}\n").as_bytes()).await?;
            process.answers.next_line().await
        };
        let answer = timeout(PATIENCE, asked).await;
        let answer = answer.context("no answer in time").and_then(|line| Ok(line?));
        answer.and_then(|line| line.context("its process ended")).with_context(|| {
            let words = fs::read_to_string(self.log_file(replica)).unwrap_or_default();
            format!("replica {replica} was asked {order:?}\n{words}")
        })
    }

    /// Stops a replica in good order, and waits until its process has ended.
    ///
    /// # Errors
    /// It does not end, or ends with an error.
    pub async fn stop_one(&mut self, replica: usize) -> anyhow::Result<()> {
        let place = self.replicas.get_mut(replica).context("there is no such replica")?;
        let mut process = place.process.take().context("the replica is down")?;
        process.orders.write_all(b"stop\n").await?;
        let status =
            timeout(PATIENCE, process.child.wait()).await.context("it does not stop")??;
        if !status.success() {
            let words = fs::read_to_string(self.log_file(replica)).unwrap_or_default();
            bail!("replica {replica} ended with {status}\n{words}");
        }
        Ok(())
    }

    /// Ends a replica's process with SIGKILL, and waits for the process.
    ///
    /// # Errors
    /// The system refused.
    pub async fn kill(&mut self, replica: usize) -> anyhow::Result<()> {
        let place = self.replicas.get_mut(replica).context("there is no such replica")?;
        let mut process = place.process.take().context("the replica is down")?;
        process.child.kill().await?;
        Ok(())
    }

    /// Sends a replica's process a signal.
    ///
    /// # Errors
    /// The system refused.
    pub fn signal(&mut self, replica: usize, signal: Signal) -> anyhow::Result<()> {
        let pid = self.process(replica)?.child.id().context("its process has ended")?;
        Ok(signal::kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// The most memory that each process has held so far, in KiB.
    #[must_use]
    pub fn peak_rss_kib(&self) -> Vec<u64> {
        let processes = self.replicas.iter().filter_map(|replica| replica.process.as_ref());
        processes.filter_map(|process| peak_rss_kib(process.child.id()?)).collect()
    }

    /// The memory that a replica's process holds now, in KiB; 0 if it is down.
    #[must_use]
    pub fn rss_kib(&self, replica: usize) -> u64 {
        let process = self.replicas.get(replica).and_then(|replica| replica.process.as_ref());
        process.and_then(|process| rss_kib(process.child.id()?)).unwrap_or_default()
    }

    /// What the process of each replica that runs has spent so far.
    #[must_use]
    pub fn spent(&self) -> Vec<Spent> {
        let processes = self.replicas.iter().filter_map(|replica| replica.process.as_ref());
        processes.filter_map(|process| Spent::of(process.child.id()?)).collect()
    }

    /// Bytes that a replica's files take on disk.
    #[must_use]
    pub fn disk_bytes(&self, replica: usize) -> u64 {
        let data = self.dir.path().join(format!("replica-{replica}"));
        let mut directories = vec![data];
        let mut bytes = 0;
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(directory) else { continue };
            for entry in entries.flatten() {
                match entry.metadata() {
                    Ok(about) if about.is_dir() => directories.push(entry.path()),
                    Ok(about) => bytes += about.blocks().saturating_mul(512),
                    Err(_) => {}
                }
            }
        }
        bytes
    }

    /// Waits until a replica has executed everything up to `goal`.
    ///
    /// # Errors
    /// Its process does not answer, or `patience` is over.
    pub async fn wait_until_applied(
        &mut self,
        replica: usize,
        goal: u64,
        patience: Duration,
    ) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        while self.status(replica).await?.applied < goal {
            if begun.elapsed() > patience {
                bail!("replica {replica} has not caught up after {patience:?}");
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(begun.elapsed())
    }

    fn process(&mut self, replica: usize) -> anyhow::Result<&mut Process> {
        let place = self.replicas.get_mut(replica).context("there is no such replica")?;
        place.process.as_mut().context("the replica is down")
    }

    fn log_file(&self, replica: usize) -> PathBuf {
        self.dir.path().join(format!("replica-{replica}.log"))
    }
}

/// Addresses as a list of members.
fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A client of a group over TCP.
///
/// # Errors
/// The system refused.
pub async fn connect(members: Members, group: &str) -> anyhow::Result<Client<Raw>> {
    let client = Client::builder()
        .group(group)
        .members(members)
        .transport(TcpTransport::client())
        .runtime(TokioRuntime::current());
    Ok(client.connect().await?)
}

/// A free loopback port that stays ours until the socket is dropped.
///
/// # Errors
/// The system has none.
pub fn lease_port() -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Lets a replica, whose listener asks for the same, share the port with this socket.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_it_is_printed() {
        let line = "view=7 primary=true well=false applied=12 held=5 checkpoint=9 chunks=3 of=4096";
        let status = Status::parse(line);
        let expected = Status {
            view: 7,
            is_primary: true,
            is_well: false,
            applied: 12,
            held: 5,
            checkpoint: 9,
            chunks: (3, 4096),
        };
        assert_eq!(status, Some(expected));
        assert_eq!(Status::parse("unknown"), None);
    }

    #[test]
    fn this_process_holds_memory() {
        assert!(peak_rss_kib(std::process::id()).is_some_and(|kib| kib > 100));
    }
}
