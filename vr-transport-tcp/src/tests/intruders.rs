//! Whatever comes to the port, the replicas go on.

use std::time::Duration;

use vr_core::model::encoding::frame::FrameHeader;

use super::*;

fn address_of(members: &Members, id: u64) -> &str {
    members.address_of(ReplicaId(id)).unwrap()
}

/// A connected group and a socket that has passed as client 1 of replica 0.
async fn with_raw_client(config: &TcpConfig) -> (Tested, TcpStream) {
    let (mut replicas, members) = group(1, config).await;
    let hello = client_hello(&members, 0);
    let (stream, verdict) = greeted(address_of(&members, 0), &hello).await;
    assert_eq!(verdict, Verdict::Accepted { version: VERSIONS.max });
    let mut zero = replicas.remove(0);
    zero.until(Received::Connected(client(1))).await;
    (zero, stream)
}

/// A whole request as it travels.
fn frame() -> Bytes {
    let mut parts = vr_core::model::encoding::frame::FrameParts::new();
    vr_core::model::encoding::message::encode(&request(1, 10), &mut parts).unwrap();
    parts.take_bytes()
}

#[tokio::test]
async fn a_port_scanner_and_garbage_do_not_disturb() {
    let (mut replicas, members) = group(2, &TcpConfig::default()).await;
    for tested in &mut replicas {
        let other =
            if tested.transport.local_address().unwrap().to_string() == address_of(&members, 0) {
                1
            } else {
                0
            };
        tested.connected(&[other]).await;
    }
    drop(TcpStream::connect(address_of(&members, 0)).await.unwrap());
    let mut stream = TcpStream::connect(address_of(&members, 0)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: replica\r\n\r\n").await.unwrap();
    closed(&mut stream).await;
    let complaint = replicas[0].complaint().await;
    assert_eq!(complaint, "refused a connection from 127.0.0.1: it does not speak this protocol");
    replicas[1].say(replica(0), request(1, 1));
    assert_eq!(replicas[0].envelope().await, (replica(1), request(1, 1)));
}

#[tokio::test]
async fn a_handshake_of_absurd_length_is_refused() {
    let (replicas, members) = group(1, &TcpConfig::default()).await;
    let mut stream = TcpStream::connect(address_of(&members, 0)).await.unwrap();
    stream.write_all(b"VR-TCP\r\n\x01\0\x01\0\xff\xff\xff\xff").await.unwrap();
    closed(&mut stream).await;
    assert!(replicas[0].complaint().await.contains("a handshake of 4294967295 bytes"));
}

#[tokio::test]
async fn whoever_does_not_say_who_it_is_is_disconnected() {
    let config = TcpConfig { handshake_timeout: Duration::from_millis(10), ..TcpConfig::default() };
    let (_replicas, members) = group(1, &config).await;
    let mut stream = TcpStream::connect(address_of(&members, 0)).await.unwrap();
    stream.write_all(b"VR-").await.unwrap();
    closed(&mut stream).await;
}

#[tokio::test]
async fn connections_over_the_limit_of_handshakes_are_closed() {
    let config = TcpConfig { handshakes_max: 1, ..TcpConfig::default() };
    let (_replicas, members) = group(1, &config).await;
    let _silent = TcpStream::connect(address_of(&members, 0)).await.unwrap();
    let mut second = TcpStream::connect(address_of(&members, 0)).await.unwrap();
    closed(&mut second).await;
}

#[tokio::test]
async fn garbage_between_frames_ends_the_connection_behind_the_last_good_frame() {
    let (mut zero, mut stream) = with_raw_client(&TcpConfig::default()).await;
    stream.write_all(&frame()).await.unwrap();
    stream.write_all(&[0xff; 100]).await.unwrap();
    assert_eq!(zero.next().await, Received::Envelope { from: client(1), envelope: request(1, 10) });
    assert_eq!(zero.next().await, Received::Disconnected(client(1)));
    assert!(zero.complaint().await.contains("client connection 1 was disconnected: damaged"));
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_connection_before_its_body() {
    let (mut zero, mut stream) = with_raw_client(&TcpConfig::default()).await;
    let mut header = FrameHeader::decode(&frame()).unwrap();
    header.body_length = MESSAGE_BYTES_MAX;
    stream.write_all(&header.encode()).await.unwrap();
    assert_eq!(zero.next().await, Received::Disconnected(client(1)));
    let bytes = u64::from(MESSAGE_BYTES_MAX) + 20;
    assert!(
        zero.complaint().await.contains(&format!("a frame of {bytes} bytes is over the limit"))
    );
}

#[tokio::test]
async fn a_damaged_message_ends_the_connection() {
    let (mut zero, mut stream) = with_raw_client(&TcpConfig::default()).await;
    let mut bytes = frame().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(zero.next().await, Received::Disconnected(client(1)));
    assert!(zero.complaint().await.contains("a frame holds no message: the checksum"));
}

#[tokio::test]
async fn a_frame_that_stops_in_the_middle_does_not_hold_its_connection_for_ever() {
    let config = TcpConfig { frame_timeout: Duration::from_millis(10), ..TcpConfig::default() };
    let (mut zero, mut stream) = with_raw_client(&config).await;
    let bytes = frame();
    stream.write_all(&bytes).await.unwrap();
    stream.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    assert_eq!(zero.next().await, Received::Envelope { from: client(1), envelope: request(1, 10) });
    assert_eq!(zero.next().await, Received::Disconnected(client(1)));
    assert!(zero.complaint().await.contains("a frame stopped in the middle"));
}

#[tokio::test]
async fn an_idle_connection_between_frames_is_left_alone() {
    let config = TcpConfig { frame_timeout: Duration::from_millis(1), ..TcpConfig::default() };
    let (mut zero, mut idle) = with_raw_client(&config).await;
    let (mut clock, mut stream) = with_raw_client(&config).await;
    stream.write_all(&frame()[..5]).await.unwrap();
    clock.until(Received::Disconnected(client(1))).await;
    idle.write_all(&frame()).await.unwrap();
    assert_eq!(zero.next().await, Received::Envelope { from: client(1), envelope: request(1, 10) });
}

#[tokio::test]
async fn closing_does_not_wait_for_ever_for_a_client_that_does_not_read() {
    let config = TcpConfig { close_timeout: Duration::from_millis(10), ..TcpConfig::default() };
    let (zero, mut stream) = with_raw_client(&config).await;
    while zero.send(client(1), request(1, 200_000)).is_ok() {
        zero.transport.flush();
    }
    zero.transport.close();
    // The listener's task is one of those that must end.
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
    closed(&mut stream).await;
}
