//! The replica processes of a demo or a test: started, killed, watched, and never left behind.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    net::TcpSocket,
    process::{Child, ChildStdin, Command},
    time::sleep,
};

use vr_core::Durability;

use crate::kv::client::{Info, RedisClient};

/// How often a replica is asked whether it has got there.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How much of a dead process's last words an error repeats.
const LAST_WORDS_BYTES: usize = 2000;

/// Some replicas of one group, each a process with a directory of its own.
///
/// Dropping it ends the processes.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    dir: PathBuf,
    members: String,
    durability: Durability,
    /// What every replica is told besides, as options of `kv serve`.
    options: Vec<String>,
    replicas: Vec<Replica>,
}

#[derive(Debug)]
struct Replica {
    resp: SocketAddr,
    child: Option<Child>,
    /// Whether it ran before; without disks only the very first processes may found the group.
    has_run: bool,
    /// A program and its arguments that run the replica's process; empty for none.
    wrapper: Vec<String>,
    /// Bound but never listening: as long as these live, the system gives the ports to nobody
    /// else, not even while the replica is down.
    _leases: [TcpSocket; 2],
}

/// A process that is expected to end by itself. Dropping it ends the process.
#[derive(Debug)]
pub struct Ending {
    child: Child,
    /// Waiting closes the standard input that a child has, which a replica takes for an order to
    /// stop.
    _stdin: Option<ChildStdin>,
}

impl Ending {
    /// Waits until the process has ended.
    ///
    /// # Errors
    /// The system refused.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

impl Fleet {
    /// Prepares `count` replicas below `dir`, in [`Durability::Full`]; `program` is the `kv` binary.
    /// Starts none.
    ///
    /// # Errors
    /// The system has no free ports, or the directory cannot be made.
    pub fn new(program: PathBuf, dir: PathBuf, count: usize) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (mut replicas, mut members) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (member, resp) = (lease_port()?, lease_port()?);
            members.push(member.local_addr()?.to_string());
            let address = resp.local_addr()?;
            let _leases = [member, resp];
            let wrapper = Vec::new();
            replicas.push(Replica { resp: address, child: None, has_run: false, wrapper, _leases });
        }
        let (members, durability) = (members.join(","), Durability::Full);
        Ok(Self { program, dir, members, durability, options: Vec::new(), replicas })
    }

    /// The same in another mode, for replicas that are started from now on.
    #[must_use]
    pub const fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The same with these options of `kv serve` besides, for replicas that are started from now on.
    #[must_use]
    pub fn with_options(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(ToString::to_string).collect();
        self
    }

    /// Runs a replica's process under another program from its next start on, such as a tracer that
    /// stays out of its way; an empty list ends that.
    ///
    /// # Errors
    /// There is no such replica.
    pub fn wrap(&mut self, replica: usize, wrapper: Vec<String>) -> Result<()> {
        self.replica(replica)?.wrapper = wrapper;
        Ok(())
    }

    /// How many replicas there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.replicas.len()
    }

    /// The member list that every replica is started with.
    #[must_use]
    pub fn members(&self) -> &str {
        &self.members
    }

    /// Where each replica serves clients.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.resp).collect()
    }

    /// The data directory of a replica.
    #[must_use]
    pub fn data_dir(&self, replica: usize) -> PathBuf {
        self.dir.join(format!("replica-{replica}"))
    }

    /// Where a replica's process writes what it has to say.
    #[must_use]
    pub fn log_file(&self, replica: usize) -> PathBuf {
        self.dir.join(format!("replica-{replica}.log"))
    }

    /// Starts a replica that is down; does not wait for anything.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(&mut self, replica: usize) -> Result<()> {
        let log_file = self.log_file(replica);
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_file);
        let log = log.with_context(|| format!("cannot write {}", log_file.display()))?;
        let data_dir = self.data_dir(replica);
        let (program, members) = (self.program.clone(), self.members.clone());
        let (durability, options) = (self.durability, self.options.clone());
        let process = self.replica(replica)?;
        let mut command = match process.wrapper.split_first() {
            None => Command::new(&program),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(&program);
                command
            }
        };
        command
            .args(["serve", "--stop-with-stdin", "--replica", &replica.to_string()])
            .args(["--members", &members, "--resp", &process.resp.to_string()])
            .args(["--durability", &durability.to_string()])
            .args(options);
        match durability {
            Durability::Full | Durability::ViewOnly => command.arg("--data").arg(&data_dir),
            Durability::Diskless if process.has_run => &mut command,
            Durability::Diskless => command.arg("--found"),
        };
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        process.child = Some(child);
        process.has_run = true;
        Ok(())
    }

    /// Starts all replicas that are down.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_all(&mut self) -> Result<()> {
        for replica in 0..self.count() {
            if !self.is_up(replica) {
                self.start(replica)?;
            }
        }
        Ok(())
    }

    /// Whether a replica's process was started and not killed since.
    #[must_use]
    pub fn is_up(&self, replica: usize) -> bool {
        self.replicas.get(replica).is_some_and(|replica| replica.child.is_some())
    }

    /// The process id of a replica that is up.
    #[must_use]
    pub fn pid(&self, replica: usize) -> Option<u32> {
        self.replicas.get(replica)?.child.as_ref()?.id()
    }

    /// Ends these replicas with SIGKILL, all before waiting for any, and returns when that was.
    ///
    /// # Errors
    /// The system refused.
    pub async fn kill(&mut self, replicas: &[usize]) -> Result<Instant> {
        let mut children = Vec::new();
        for replica in replicas {
            children.extend(self.replica(*replica)?.child.take());
        }
        let killed_at = Instant::now();
        for child in &mut children {
            child.start_kill()?;
        }
        for child in &mut children {
            child.wait().await?;
        }
        Ok(killed_at)
    }

    /// Hands over a replica's process, to see how it ends; it counts as down from now on.
    pub fn take(&mut self, replica: usize) -> Option<Ending> {
        let mut child = self.replicas.get_mut(replica)?.child.take()?;
        Some(Ending { _stdin: child.stdin.take(), child })
    }

    /// What a replica says of itself; `None` when it cannot be asked.
    pub async fn info(&self, replica: usize) -> Option<Info> {
        let address = self.replicas.get(replica)?.resp;
        RedisClient::connect(address).await.ok()?.info().await.ok()
    }

    /// The primary of the newest view, if one says so.
    pub async fn primary(&self) -> Option<(usize, Info)> {
        let mut newest: Option<(usize, Info)> = None;
        for replica in (0..self.count()).filter(|replica| self.is_up(*replica)) {
            let Some(info) = self.info(replica).await.filter(Info::is_primary) else { continue };
            let view = info.number("view");
            if newest.as_ref().is_none_or(|(_, other)| other.number("view") < view) {
                newest = Some((replica, info));
            }
        }
        newest
    }

    /// Asks a replica until it is as wanted, and returns what it said then.
    ///
    /// # Errors
    /// Its process ended, or `patience` did; both with its last words.
    pub async fn wait_for(
        &mut self,
        replica: usize,
        patience: Duration,
        wanted: impl Fn(&Info) -> bool,
    ) -> Result<Info> {
        let begun = Instant::now();
        let mut last = None;
        loop {
            if let Some(info) = self.info(replica).await {
                if wanted(&info) {
                    return Ok(info);
                }
                last = Some(info);
            }
            let child = self.replica(replica)?.child.as_mut();
            if let Some(status) = child.map(Child::try_wait).transpose()?.flatten() {
                bail!("replica {replica} ended with {status}\n{}", self.last_words(replica));
            }
            if begun.elapsed() > patience {
                let words = self.last_words(replica);
                bail!("replica {replica} did not get there in {patience:?}: {last:?}\n{words}");
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until every replica takes part in a view that has started.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub async fn wait_until_normal(&mut self, patience: Duration) -> Result<()> {
        for replica in 0..self.count() {
            self.wait_for(replica, patience, Info::is_normal).await?;
        }
        Ok(())
    }

    fn replica(&mut self, replica: usize) -> Result<&mut Replica> {
        self.replicas.get_mut(replica).with_context(|| format!("there is no replica {replica}"))
    }

    fn last_words(&self, replica: usize) -> String {
        tail(&self.log_file(replica)).unwrap_or_default()
    }
}

fn tail(file: &Path) -> io::Result<String> {
    let bytes = fs::read(file)?;
    let from = bytes.len().saturating_sub(LAST_WORDS_BYTES);
    Ok(String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned())
}

/// A free loopback port that stays ours until the socket is dropped.
///
/// # Errors
/// The system has none.
pub fn lease_port() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Lets a replica, whose listener asks for the same, share the port with this socket.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(socket)
}
