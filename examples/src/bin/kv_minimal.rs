//! You will see three replica processes remember a value, over TCP and on disk: run it twice.
//! It starts itself three times, as `kv_minimal A,B,C I` for I = 0, 1, 2 (each a host:port).
use std::{collections::BTreeMap, env, error::Error};

use tokio::process::Command;
use vr_core::{
    Client, Context, Durability, Members, Node, QueryContext, Read, ReplicaId, StateMachine,
};
use vr_storage::FileStorage;
use vr_transport_tcp::{TcpTransport, TokioRuntime};

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Kv(BTreeMap<String, String>);

impl StateMachine for Kv {
    type Operation = (String, String);
    type Reply = Option<String>;
    type Query = String;
    type Answer = Option<String>;

    fn apply(&mut self, _: &Context, (key, value): (String, String)) -> Option<String> {
        self.0.insert(key, value)
    }

    fn query(&self, _: &QueryContext, key: String) -> Option<String> {
        self.0.get(&key).cloned()
    }

    vr_core::serde_snapshot!();
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "what you will see")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let list =
        words.next().unwrap_or_else(|| "127.0.0.1:17601,127.0.0.1:17602,127.0.0.1:17603".into());
    let (members, runtime): (Members, _) = (list.parse()?, TokioRuntime::current());
    if let Some(id) = words.next() {
        let replica = ReplicaId(id.parse()?);
        let address = members.address_of(replica).ok_or("not a member")?.to_owned();
        let node = Node::builder(Kv::default()).replica(replica).members(members);
        let node = node.storage(FileStorage::new(env::temp_dir().join(format!("kv_minimal-{id}"))));
        let node = node.durability(Durability::Full).transport(TcpTransport::bind(address).await?);
        return Ok(node.runtime(runtime).start().await?.stopped().await?);
    }
    let mut replicas = Vec::new();
    for id in ["0", "1", "2"] {
        replicas
            .push(Command::new(env::current_exe()?).args([&list, id]).kill_on_drop(true).spawn()?);
    }
    let client = Client::<Kv>::connect(members, TcpTransport::client(), runtime).await?;
    println!("remembered: {:?}", client.query("greeting".into(), Read::Linearizable).await?);
    println!("replaced: {:?}", client.execute(("greeting".into(), "hello".into())).await?);
    println!("now: {:?}", client.query("greeting".into(), Read::Linearizable).await?);
    for mut replica in replicas {
        replica.kill().await?;
    }
    Ok(())
}
