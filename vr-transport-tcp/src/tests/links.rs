//! Replicas find each other, lose each other, and find each other again.

use vr_core::{Backpressure, Closed, Received, ReplicaId, Role, Transport, TransportError};

use super::*;

#[tokio::test]
async fn three_replicas_reach_each_other() {
    let (mut replicas, _) = group(3, &TcpConfig::default()).await;
    for (own, tested) in replicas.iter_mut().zip(0_u64..).map(|(tested, own)| (own, tested)) {
        let others: Vec<u64> = (0..3).filter(|id| *id != own).collect();
        tested.connected(&others).await;
        for other in others {
            tested.say(replica(other), request(own, 100));
        }
    }
    for own in 0..3 {
        let mut heard = [own, 0, 0];
        for slot in [1, 2] {
            let (from, envelope) = replicas[usize::try_from(own).unwrap()].envelope().await;
            let Peer::Replica(ReplicaId(sender)) = from else { panic!("{from}") };
            assert_eq!(envelope, request(sender, 100));
            heard[slot] = sender;
        }
        heard.sort_unstable();
        assert_eq!(heard, [0, 1, 2]);
    }
}

#[tokio::test]
async fn envelopes_of_all_sizes_arrive_as_they_were() {
    let (zero, mut one) = pair(&TcpConfig::default()).await;
    let sizes = [0, 1, 1_000, 1_025, 70_000, 1_000_000];
    let sending = tokio::spawn(async move {
        for (number, bytes) in (1..).zip(sizes) {
            zero.say(replica(1), request(number, bytes));
        }
        let mut into = Vec::new();
        let _ = zero.transport.receive(&mut into).await;
    });
    for (number, bytes) in (1..).zip(sizes) {
        assert_eq!(one.envelope().await, (replica(0), request(number, bytes)));
    }
    sending.abort();
}

#[tokio::test]
async fn the_end_of_a_process_is_told_at_once_and_its_restart_too() {
    for stopped in [0, 1] {
        let (transports, members) = bound(2, &TcpConfig::default()).await;
        let start = |transport, id| {
            Tested::start(transport, endpoint(Role::Replica(ReplicaId(id)), &members))
        };
        let mut running = Vec::new();
        for (transport, id) in transports.into_iter().zip(0..) {
            running.push(start(transport, id));
        }
        let other = 1 - stopped;
        let mut restarted = running.remove(usize::try_from(stopped).unwrap());
        let mut survivor = running.remove(0);
        survivor.connected(&[stopped]).await;
        for _ in 0..2 {
            drop(restarted);
            survivor.until(Received::Disconnected(replica(stopped))).await;
            assert_eq!(
                survivor.send(replica(stopped), request(1, 1)),
                Err(Backpressure::NotConnected)
            );
            let address = members.address_of(ReplicaId(stopped)).unwrap();
            restarted = start(TcpTransport::bind(address).await.unwrap(), stopped);
            survivor.connected(&[stopped]).await;
            restarted.connected(&[other]).await;
            survivor.say(replica(stopped), request(2, 1));
            assert_eq!(restarted.envelope().await, (replica(other), request(2, 1)));
        }
    }
}

#[tokio::test]
async fn what_was_flushed_before_close_arrives() {
    let (zero, mut one) = pair(&TcpConfig::default()).await;
    for number in 1..=50 {
        zero.send(replica(1), request(number, 10_000)).unwrap();
    }
    zero.transport.flush();
    zero.transport.close();
    for number in 1..=50 {
        assert_eq!(one.envelope().await.1, request(number, 10_000));
    }
    assert_eq!(one.next().await, Received::Disconnected(replica(0)));
    assert_eq!(zero.transport.receive(&mut Vec::new()).await, Err(Closed));
    assert_eq!(zero.send(replica(1), request(1, 1)), Err(Backpressure::NotConnected));
}

#[tokio::test]
async fn closing_wakes_whoever_receives() {
    let (zero, _one) = pair(&TcpConfig::default()).await;
    let transport = Arc::clone(&zero.transport);
    let receiving = tokio::spawn(async move { transport.receive(&mut Vec::new()).await });
    tokio::task::yield_now().await;
    zero.transport.close();
    assert_eq!(receiving.await.unwrap(), Err(Closed));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpTransport::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_address().unwrap().to_string();
    let error = TcpTransport::bind(&address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {address}"));
    let error = TcpTransport::bind("no port").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot listen on no port");
}

#[tokio::test]
async fn a_transport_is_started_once_and_for_its_own_role() {
    let (mut transports, members) = bound(1, &TcpConfig::default()).await;
    let listening = transports.pop().unwrap();
    let as_replica = |id| endpoint(Role::Replica(ReplicaId(id)), &members);
    let misused = |result| matches!(result, Err(TransportError::Misused { .. }));
    assert!(misused(listening.start(endpoint(Role::Client(ClientId(1)), &members))));
    assert!(misused(listening.start(as_replica(7))), "it is not a member");
    assert!(misused(TcpTransport::client().start(as_replica(0))));
    let mut nameless = as_replica(0);
    nameless.group_name = "x".repeat(handshake::GROUP_NAME_BYTES_MAX + 1);
    assert!(misused(listening.start(nameless)));
    assert!(listening.start(as_replica(0)).is_ok());
    assert!(misused(listening.start(as_replica(0))));
}

#[tokio::test]
async fn nobody_is_reached_before_the_start() {
    let transport = TcpTransport::client();
    let sent = transport.send(replica(0), Lane::Data, request(1, 1));
    assert_eq!(sent, Err(Backpressure::NotConnected));
    transport.flush();
    transport.close();
    assert_eq!(transport.receive(&mut Vec::new()).await, Err(Closed));
}

/// On several threads, where the task that accepts may still run while its transport is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_free_as_soon_as_its_transport_is_closed() {
    let mut address = "127.0.0.1:0".to_owned();
    for _ in 0..200 {
        let transport = TcpTransport::bind(&address).await.unwrap();
        address = transport.local_address().unwrap().to_string();
        let members = address.parse().unwrap();
        transport.start(endpoint(Role::Replica(ReplicaId(0)), &members)).unwrap();
        transport.close();
    }
}

#[tokio::test]
async fn an_address_that_can_never_be_dialled_is_refused_with_whose_it_is() {
    for wrong in ["a", ":1", "a:", "a:99999", "http://a:1", "a:1 b:2", "a:b"] {
        let member = |id, address: &str| Member { id: ReplicaId(id), address: address.to_owned() };
        let members = Members::new([member(0, "[::1]:1"), member(7, wrong)]).unwrap();
        let refused = TcpTransport::client()
            .start(endpoint(Role::Client(ClientId(1)), &members))
            .unwrap_err();
        let told = refused.to_string();
        assert!(told.contains("replica 7") && told.contains(wrong), "{told}");
    }
}
