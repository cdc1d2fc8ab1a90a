//! A whole group in this process, on the thread that runs it.

use core::{fmt, time::Duration};

use anyhow::bail;
use tokio::time::sleep;
use vr_core::{
    Client, Durability, Genesis, Members, Node, NodeBuilder, NodeHandle, Raw, ReplicaId,
    model::types::OpNumber, node::local::LocalNetwork,
};
use vr_storage::MemoryStorage;
use vr_transport_tcp::TokioRuntime;

use crate::load::{
    generator::{Measured, Target, drive},
    service::{Counter, TypedCounter},
    workload::Workload,
};

/// How often a group is asked whether it is so far.
const POLL: Duration = Duration::from_millis(10);
/// How often at most.
const POLLS_MAX: u32 = 6000;

/// Runs `workload` against three nodes that speak bytes.
///
/// # Errors
/// A node or a client did not start.
pub async fn run_raw(durability: Durability, workload: &Workload) -> anyhow::Result<Measured> {
    run::<Raw>(durability, workload, || Node::builder_raw(Counter::default())).await
}

/// Runs `workload` against three nodes with a typed service.
///
/// # Errors
/// A node or a client did not start.
pub async fn run_typed(durability: Durability, workload: &Workload) -> anyhow::Result<Measured> {
    run(durability, workload, || Node::builder(TypedCounter::default())).await
}

async fn run<S>(
    durability: Durability,
    workload: &Workload,
    node: impl Fn() -> NodeBuilder<S>,
) -> anyhow::Result<Measured>
where
    Client<S>: Target,
{
    let group = Group::start(durability, node).await?;
    let mut clients = Vec::new();
    for _ in 0..workload.sessions() {
        clients.push(group.client().await?);
    }
    let measured = drive(&clients, workload).await;
    drop(clients);
    group.stop().await?;
    Ok(measured)
}

/// Three nodes on the thread that runs them.
pub struct Group<S> {
    network: LocalNetwork,
    runtime: TokioRuntime,
    members: Members,
    nodes: Vec<NodeHandle<S>>,
}

impl<S> Group<S> {
    /// Founds a group of nodes, each of which `node` makes.
    ///
    /// # Errors
    /// A node did not start.
    pub async fn start(
        durability: Durability,
        node: impl Fn() -> NodeBuilder<S>,
    ) -> anyhow::Result<Self> {
        let (network, runtime) = (LocalNetwork::new(), TokioRuntime::current());
        let members = Members::local(3)?;
        let mut nodes = Vec::new();
        for id in 0..3 {
            let node = node()
                .replica(ReplicaId(id))
                .members(members.clone())
                .durability(durability)
                .genesis(Genesis::Found)
                .storage(MemoryStorage::new())
                .transport(network.transport())
                .runtime(runtime.clone());
            nodes.push(node.start().await?);
        }
        Ok(Self { network, runtime, members, nodes })
    }

    /// A client with a session of its own.
    ///
    /// # Errors
    /// It did not start.
    pub async fn client(&self) -> anyhow::Result<Client<S>> {
        let client = Client::<S>::builder()
            .members(self.members.clone())
            .transport(self.network.transport())
            .runtime(self.runtime.clone());
        Ok(client.connect().await?)
    }

    /// The last op after which a checkpoint was due, at the node that is furthest.
    #[must_use]
    pub fn checkpoint_due(&self) -> OpNumber {
        let due = self.nodes.iter().map(|node| node.status().replica.checkpoint_due);
        due.max().unwrap_or_default()
    }

    /// Waits until every node has the checkpoint that was due last.
    ///
    /// # Errors
    /// A node has stopped, or one has it not after a minute.
    pub async fn checkpointed(&self) -> anyhow::Result<()> {
        let due = self.checkpoint_due();
        for _ in 0..POLLS_MAX {
            if self.nodes.iter().any(|node| node.status().has_stopped) {
                bail!("a node has stopped");
            }
            let mut nodes = self.nodes.iter();
            if nodes.all(|node| node.status().replica.checkpoint.op_number >= due) {
                return Ok(());
            }
            sleep(POLL).await;
        }
        bail!("a node has no checkpoint of op {due}")
    }

    /// Shuts the nodes down.
    ///
    /// # Errors
    /// One stopped by itself.
    pub async fn stop(self) -> anyhow::Result<()> {
        for node in self.nodes {
            node.shutdown().await?;
        }
        Ok(())
    }
}

impl<S> fmt::Debug for Group<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("members", &self.members).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_briefly(
        run: impl AsyncFn(Durability, &Workload) -> anyhow::Result<Measured>,
    ) -> Measured {
        let workload = Workload {
            clients: 70,
            clients_per_session: 64,
            payload_bytes: 16,
            read_percent: 20,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(300),
            rate: None,
            progress: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(run(Durability::Diskless, &workload)).unwrap()
    }

    #[test]
    fn clients_of_a_group_in_memory_are_answered() {
        for measured in [run_briefly(run_raw), run_briefly(run_typed)] {
            assert_eq!((measured.errors, measured.error), (0, None));
            assert!(measured.succeeded > 0);
        }
    }
}
