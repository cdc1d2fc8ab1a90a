//! Queues have an end, and a later lane never holds up an earlier one.

use vr_core::model::{
    entries::Entries,
    entry::{Entry, EntryHeader},
    kind::Lane,
    message::GetView,
    types::{Nonce, RequestId},
};

use super::*;

/// On the control lane.
fn control() -> Box<Envelope> {
    envelope(Message::GetView(GetView { view: View(4), nonce: Nonce(1) }))
}

/// On the bulk lane.
fn bulk(number: u64) -> Box<Envelope> {
    let entry = Entry::new(EntryHeader::default(), Bytes::from(vec![7; 200_000]));
    envelope(Message::Entries(Entries { request: RequestId(number), entries: vec![entry] }))
}

/// Sends from `make` to a replica that does not read, until the queue is full.
fn fill(from: &Tested, make: impl Fn(u64) -> Box<Envelope>) -> u64 {
    for number in 1.. {
        match from.send(replica(1), make(number)) {
            Ok(()) => from.transport.flush(),
            Err(error) => {
                assert_eq!(error, Backpressure::QueueFull);
                return number - 1;
            }
        }
    }
    unreachable!("the queue has a limit")
}

/// How many envelopes come before the first on the control lane.
async fn before_control(tested: &mut Tested) -> u64 {
    let mut before = 0;
    while tested.envelope().await.1 != control() {
        before += 1;
    }
    before
}

#[tokio::test]
async fn control_overtakes_bulk_that_is_stuck() {
    let (zero, mut one) = pair(&TcpConfig::default()).await;
    let sent = fill(&zero, bulk);
    zero.say(replica(1), control());
    tokio::task::yield_now().await;
    assert!(before_control(&mut one).await < sent / 2, "{sent} were sent before");
}

#[tokio::test]
async fn control_overtakes_data_that_is_stuck() {
    let (zero, mut one) = pair(&TcpConfig::default()).await;
    let sent = fill(&zero, |number| request(number, 200_000));
    zero.say(replica(1), control());
    tokio::task::yield_now().await;
    assert!(before_control(&mut one).await < sent / 2, "{sent} were sent before");
}

#[tokio::test]
async fn data_is_not_held_up_by_bulk_that_is_stuck() {
    let (zero, mut one) = pair(&TcpConfig::default()).await;
    let sent = fill(&zero, bulk);
    zero.say(replica(1), request(1, 10));
    tokio::task::yield_now().await;
    let mut before = 0;
    while one.envelope().await.1 != request(1, 10) {
        before += 1;
    }
    assert!(before < sent / 2, "{sent} were sent before");
}

#[tokio::test]
async fn what_a_full_queue_took_arrives_and_makes_room() {
    let (mut zero, mut one) = pair(&TcpConfig::default()).await;
    let sent = fill(&zero, |number| request(number, 200_000));
    let transport = Arc::clone(&zero.transport);
    let writing = tokio::spawn(async move { zero.envelope().await });
    for number in 1..=sent {
        assert_eq!(one.envelope().await.1, request(number, 200_000));
    }
    assert_eq!(transport.send(replica(1), Lane::Data, request(0, 1)), Ok(()));
    one.say(replica(0), control());
    assert_eq!(writing.await.unwrap(), (replica(1), control()));
}

#[tokio::test]
async fn an_empty_queue_takes_a_message_that_is_larger_than_the_queue() {
    let config = TcpConfig { data_queue_bytes_max: 1, ..TcpConfig::default() };
    let (zero, mut one) = pair(&config).await;
    zero.send(replica(1), request(1, 10)).unwrap();
    assert_eq!(zero.send(replica(1), request(2, 10)), Err(Backpressure::QueueFull));
    zero.transport.flush();
    assert_eq!(one.envelope().await.1, request(1, 10));
}

#[tokio::test]
async fn every_lane_has_a_limit_of_its_own() {
    let config = TcpConfig {
        control_queue_bytes_max: 1,
        data_queue_bytes_max: 1,
        bulk_queue_bytes_max: 1,
        ..TcpConfig::default()
    };
    let (zero, _one) = pair(&config).await;
    for envelope in [request(1, 10), control(), bulk(1)] {
        zero.send(replica(1), envelope.clone()).unwrap();
        assert_eq!(zero.send(replica(1), envelope), Err(Backpressure::QueueFull));
    }
}

#[tokio::test]
async fn a_message_over_either_ends_limit_is_not_sent() {
    let (mut transports, members) = bound(2, &TcpConfig::default()).await;
    let smaller =
        Endpoint { message_bytes_max: 1_000, ..endpoint(Role::Replica(ReplicaId(1)), &members) };
    let mut one = Tested::start(transports.pop().unwrap(), smaller);
    let as_zero = endpoint(Role::Replica(ReplicaId(0)), &members);
    let mut zero = Tested::start(transports.pop().unwrap(), as_zero);
    zero.connected(&[1]).await;
    assert_eq!(zero.send(replica(1), request(1, 1_000)), Err(Backpressure::TooLarge));
    zero.say(replica(1), request(2, 500));
    assert_eq!(one.envelope().await.1, request(2, 500));
    assert_eq!(one.send(replica(0), request(1, 1_000)), Err(Backpressure::TooLarge));
}

#[tokio::test]
async fn one_call_takes_a_bounded_number_of_items_from_each_peer() {
    let (zero, mut one) = pair(&TcpConfig::default()).await;
    for number in 1..=600 {
        zero.send(replica(1), request(number, 1)).unwrap();
    }
    zero.transport.flush();
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 600 {
        let mut into = Vec::new();
        one.transport.receive(&mut into).await.unwrap();
        sizes.push(into.len());
        one.got.extend(into);
    }
    assert!(sizes.iter().all(|size| *size <= 256), "{sizes:?}");
    assert_eq!(
        one.got.back(),
        Some(&Received::Envelope { from: replica(0), envelope: request(600, 1) })
    );
}
