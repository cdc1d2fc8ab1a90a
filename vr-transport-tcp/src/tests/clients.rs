//! Clients on the replicas' listeners.

use super::*;

async fn client_of(members: &Members, id: u128) -> Tested {
    let as_client = endpoint(Role::Client(ClientId(id)), members);
    let mut tested = Tested::start(TcpTransport::client(), as_client);
    let all: Vec<u64> = members.as_slice().iter().map(|member| member.id.0).collect();
    tested.connected(&all).await;
    tested
}

#[tokio::test]
async fn a_client_talks_to_every_replica_and_is_answered() {
    let (mut replicas, members) = group(3, &TcpConfig::default()).await;
    let mut asking = client_of(&members, 1).await;
    for (tested, id) in replicas.iter_mut().zip(0..) {
        asking.say(replica(id), request(id, 300));
        let heard = loop {
            if let Received::Envelope { from, envelope } = tested.next().await {
                break (from, envelope);
            }
        };
        assert_eq!(heard, (client(1), request(id, 300)));
        tested.say(client(1), request(id, 2_000));
        assert_eq!(asking.envelope().await, (replica(id), request(id, 2_000)));
    }
}

#[tokio::test]
async fn connections_of_clients_are_counted_up_and_told() {
    let (mut replicas, members) = group(1, &TcpConfig::default()).await;
    let zero = &mut replicas[0];
    for connection in 1..=3 {
        let asking = client_of(&members, 1).await;
        assert_eq!(zero.next().await, Received::Connected(client(connection)));
        drop(asking);
        assert_eq!(zero.next().await, Received::Disconnected(client(connection)));
        assert_eq!(zero.send(client(connection), request(1, 1)), Err(Backpressure::NotConnected));
    }
}

#[tokio::test]
async fn a_client_finds_a_restarted_replica_again() {
    let (mut replicas, members) = group(1, &TcpConfig::default()).await;
    let mut asking = client_of(&members, 1).await;
    drop(replicas.pop());
    asking.until(Received::Disconnected(replica(0))).await;
    let address = members.address_of(ReplicaId(0)).unwrap();
    let transport = TcpTransport::bind(address).await.unwrap();
    let mut zero = Tested::start(transport, endpoint(Role::Replica(ReplicaId(0)), &members));
    asking.connected(&[0]).await;
    asking.say(replica(0), request(1, 1));
    zero.until(Received::Connected(client(1))).await;
    assert_eq!(zero.envelope().await, (client(1), request(1, 1)));
}

#[tokio::test]
async fn clients_over_the_limit_are_refused_with_the_limit() {
    let config = TcpConfig { client_connections_max: 1, ..TcpConfig::default() };
    let (replicas, members) = group(1, &config).await;
    let _first = client_of(&members, 1).await;
    let as_client = endpoint(Role::Client(ClientId(2)), &members);
    let second = Tested::start(TcpTransport::client(), as_client);
    let said = "replica 0 has 1 client connections, its limit";
    assert!(second.complaint().await.contains(said));
    assert!(replicas[0].complaint().await.contains(said));
}

#[tokio::test]
async fn a_client_that_does_not_read_fills_only_its_own_queue() {
    let (mut replicas, members) = group(1, &TcpConfig::default()).await;
    let (_stuck, mut reading) = (client_of(&members, 1).await, client_of(&members, 2).await);
    let zero = &mut replicas[0];
    zero.until(Received::Connected(client(2))).await;
    while zero.send(client(1), request(1, 200_000)).is_ok() {
        zero.transport.flush();
    }
    assert_eq!(zero.send(client(1), request(1, 1)), Err(Backpressure::QueueFull));
    zero.say(client(2), request(2, 1));
    assert_eq!(reading.envelope().await, (replica(0), request(2, 1)));
}

/// A client is dropped where its owner happens to be, which need not be on a runtime.
#[test]
fn a_client_is_dropped_outside_of_its_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut replicas, asking) = runtime.block_on(async {
        let (replicas, members) = group(1, &TcpConfig::default()).await;
        (replicas, client_of(&members, 1).await)
    });
    drop(asking);
    runtime.block_on(replicas[0].until(Received::Disconnected(client(1))));
    drop(runtime);
    drop(replicas);
}
