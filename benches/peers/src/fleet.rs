//! The processes of a peer's group: started, and ended with the value that holds them.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use vr_benches::load::{
    fleet::lease_port,
    generator::{Measured, drive},
    process::peak_rss_kib,
    workload::Workload,
};

use crate::{engine::REPLICAS, rounds::System, wire::Connection};

/// Three processes, their ports and their files.
pub struct Fleet {
    members: Vec<SocketAddr>,
    children: Vec<Child>,
    _leases: Vec<TcpSocket>,
    _dir: TempDir,
}

impl Fleet {
    /// Starts three replicas of `system`, which ask their sockets for `busy_poll` microseconds before
    /// they sleep.
    pub fn start(
        system: System,
        is_durable: bool,
        busy_poll: u64,
        dir: Option<&Path>,
    ) -> anyhow::Result<Self> {
        Self::start_each(REPLICAS, dir, |me, ports, dir| {
            let list: Vec<String> = ports.iter().map(SocketAddr::to_string).collect();
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["peer", "--system", system.word(), "--me", &me.to_string()]);
            command.args(["--members", &list.join(","), "--busy-poll", &busy_poll.to_string()]);
            if is_durable {
                command.arg("--wal").arg(dir.join(format!("wal-{me}")));
            }
            Ok(command)
        })
    }

    /// Starts what `command` says for each replica, given its number, as many ports as asked for
    /// and the group's directory; clients find the replicas at the first ports.
    pub fn start_each(
        ports: usize,
        dir: Option<&Path>,
        command: impl Fn(usize, &[SocketAddr], &Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("vr-peers-");
        let dir = dir.map_or_else(|| builder.tempdir(), |dir| builder.tempdir_in(dir))?;
        let leases = (0..ports).map(|_| lease_port()).collect::<Result<Vec<_>, _>>()?;
        let ports = leases.iter().map(TcpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
        let members = ports.iter().copied().take(REPLICAS).collect();
        let mut fleet = Self { members, children: Vec::new(), _leases: leases, _dir: dir };
        for me in 0..REPLICAS {
            let mut command = command(me, &ports, fleet._dir.path())?;
            let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
            fleet.children.push(child);
        }
        Ok(fleet)
    }

    /// Runs `workload` against the leader.
    pub async fn run<C: Connection>(&self, workload: &Workload) -> anyhow::Result<Measured> {
        let mut connections = Vec::new();
        for _ in 0..workload.sessions() {
            connections.push(C::to_leader(&self.members).await?);
        }
        Ok(drive(&connections, workload).await)
    }

    /// Where the replicas listen.
    pub fn members(&self) -> &[SocketAddr] {
        &self.members
    }

    /// Kills the process of a replica.
    pub fn kill(&mut self, replica: usize) -> anyhow::Result<()> {
        self.children.get_mut(replica).context("there are as many as members")?.kill()?;
        Ok(())
    }

    /// The most memory that each process has held, in KiB.
    pub fn peak_rss_kib(&self) -> Vec<u64> {
        self.children.iter().filter_map(|child| peak_rss_kib(child.id())).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
