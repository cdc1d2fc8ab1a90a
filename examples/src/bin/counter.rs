//! You will see a counter go from 1 to 10, replicated three times in this one process.

use vr_core::{
    Context, Durability, Members, Node, QueryContext, Read, ReplicaId, StateMachine,
    node::local::LocalNetwork,
};
use vr_storage::MemoryStorage;
use vr_transport_tcp::TokioRuntime;

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

#[tokio::main]
#[expect(clippy::print_stdout, reason = "what you will see")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let network = LocalNetwork::new();
    let mut nodes = Vec::new();
    for id in 0..3 {
        let node = Node::builder(Counter::default())
            .replica(ReplicaId(id))
            .members(Members::local(3)?)
            .durability(Durability::Full)
            .storage(MemoryStorage::new())
            .transport(network.transport())
            .runtime(TokioRuntime::current());
        nodes.push(node.start().await?);
    }
    let client = nodes.first().ok_or("no node")?.client();
    for _ in 0..10 {
        println!("the counter is {}", client.execute(1).await?);
    }
    println!("all replicas agree on {}", client.query((), Read::Linearizable).await?);
    for node in nodes {
        node.shutdown().await?;
    }
    Ok(())
}
