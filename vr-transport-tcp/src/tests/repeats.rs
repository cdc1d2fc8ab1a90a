//! What goes to several replicas is encoded once, and yet each hears what is meant for it.

use vr_core::model::{
    entry::{Entry, EntryHeader, Run},
    message::{Committed, Prepare},
    types::HeartbeatNumber,
};

use super::*;

/// A message with these entries, of this heartbeat.
fn prepare(heartbeat: u64, entries: &Run) -> Box<Envelope> {
    envelope(Message::Prepare(Prepare {
        entries: entries.clone(),
        commit: Committed::default(),
        heartbeat: HeartbeatNumber(heartbeat),
    }))
}

fn entries(sizes: &[usize]) -> Run {
    let one = |size: &usize| Entry::new(EntryHeader::default(), Bytes::from(vec![7; *size]));
    Run::from(sizes.iter().map(one).collect::<Vec<_>>())
}

/// Three replicas, of which the first is connected to the others.
async fn three(configs: [TcpConfig; 3]) -> Vec<Tested> {
    let (mut group, _) = group_each(configs.iter()).await;
    group[0].connected(&[1, 2]).await;
    group
}

#[tokio::test]
async fn each_of_several_hears_what_they_are_told_alike() {
    let mut group = three(Default::default()).await;
    for sizes in [&[10, 300][..], &[2_000], &[2_000; 9], &[]] {
        let entries = entries(sizes);
        for id in [1, 2] {
            group[0].send(replica(id), request(id, 10)).unwrap();
            group[0].send(replica(id), prepare(1, &entries)).unwrap();
            group[0].send(replica(id), request(id, 20)).unwrap();
        }
        group[0].transport.flush();
        for id in [1, 2] {
            let heard = &mut group[usize::try_from(id).unwrap()];
            assert_eq!(heard.envelope().await.1, request(id, 10));
            assert_eq!(heard.envelope().await.1, prepare(1, &entries));
            assert_eq!(heard.envelope().await.1, request(id, 20));
        }
    }
}

#[tokio::test]
async fn what_differs_is_not_taken_for_the_same() {
    let mut group = three(Default::default()).await;
    let (few, more) = (entries(&[10]), entries(&[10, 20]));
    let said = [prepare(1, &few), prepare(2, &few), prepare(2, &more), prepare(2, &few)];
    for (at, envelope) in said.iter().enumerate() {
        group[0].send(replica(1 + u64::try_from(at % 2).unwrap()), envelope.clone()).unwrap();
    }
    group[0].transport.flush();
    for (at, envelope) in said.iter().enumerate() {
        assert_eq!(&group[1 + at % 2].envelope().await.1, envelope);
    }
}

#[tokio::test]
async fn a_limit_holds_for_what_another_was_sent_before() {
    let (transports, members) = bound(3, &TcpConfig::default()).await;
    let limits = [MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, 1_000];
    let start = |(id, (transport, message_bytes_max))| {
        let as_replica = endpoint(Role::Replica(ReplicaId(id)), &members);
        Tested::start(transport, Endpoint { message_bytes_max, ..as_replica })
    };
    let mut group: Vec<_> = (0..).zip(transports.into_iter().zip(limits)).map(start).collect();
    group[0].connected(&[1, 2]).await;
    let entries = entries(&[900]);
    group[0].send(replica(1), prepare(1, &entries)).unwrap();
    let refused = group[0].send(replica(2), prepare(1, &entries));
    assert_eq!(refused, Err(Backpressure::TooLarge));
    group[0].transport.flush();
    assert_eq!(group[1].envelope().await.1, prepare(1, &entries));
}

#[tokio::test]
async fn each_version_has_its_own_bytes() {
    let older = TcpConfig { wire_version_max: VERSIONS.min, ..TcpConfig::default() };
    let mut group = three([TcpConfig::default(), older, TcpConfig::default()]).await;
    let entries = entries(&[10, 20]);
    for id in [1, 2] {
        group[0].send(replica(id), prepare(1, &entries)).unwrap();
    }
    group[0].transport.flush();
    for heard in &mut group[1..] {
        assert_eq!(heard.envelope().await.1, prepare(1, &entries));
    }
}
