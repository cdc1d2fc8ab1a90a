//! Who may come in, and what those who may not are told, at both ends.

use proptest::prelude::*;
use vr_core::model::types::GroupId;

use super::*;
use crate::handshake::{
    Answer, BODY_BYTES_MAX, PREFIX_BYTES, Refusal, Versions, decode_prefix, judge,
};

const NEWER: Versions = Versions { min: 7, max: 9 };

fn facts(role: Role) -> Facts {
    Facts {
        role,
        durability: mode_of(role),
        process: 0x0102,
        message_bytes_max: 4 << 20,
        group: GroupId(0x0a0b),
        group_name: "orders".into(),
        members: [0, 1, 2].map(ReplicaId).into(),
    }
}

fn hello() -> Hello {
    Hello {
        purpose: Purpose::Link { carries: Carries::Data, number: 3 },
        to: ReplicaId(1),
        facts: facts(Role::Replica(ReplicaId(2))),
    }
}

fn body(message: &[u8]) -> &[u8] {
    &message[PREFIX_BYTES..]
}

/// Hexadecimal, sixteen bytes to a line.
fn dump(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_bytes_of_a_hello_are_pinned() {
    assert_eq!(dump(&hello().encode(VERSIONS)), include_str!("golden/hello.hex").trim_end());
}

#[test]
fn the_bytes_of_an_answer_are_pinned() {
    let here = facts(Role::Replica(ReplicaId(1)));
    let accepted = Answer { verdict: Verdict::Accepted { version: 1 }, facts: here.clone() };
    let pinned = include_str!("golden/accepted.hex").trim_end();
    assert_eq!(dump(&accepted.encode(VERSIONS)), pinned);
    let refusal = Refusal::SameReplica { address: "10.0.0.7:4000".into() };
    let refused = Answer { verdict: Verdict::Refused(refusal), facts: here };
    let pinned = include_str!("golden/refused.hex").trim_end();
    assert_eq!(dump(&refused.encode(VERSIONS)), pinned);
}

#[test]
fn hellos_and_answers_survive_their_bytes() {
    let purposes = [
        Purpose::Probe,
        Purpose::Knock,
        Purpose::Link { carries: Carries::Control, number: u64::MAX },
        Purpose::Link { carries: Carries::Bulk, number: 1 },
        Purpose::Link { carries: Carries::All, number: 0 },
    ];
    for purpose in purposes {
        let role = Role::Client(ClientId(u128::MAX));
        let hello = Hello { purpose, facts: facts(role), ..hello() };
        assert_eq!(Hello::decode(body(&hello.encode(VERSIONS))), Ok(hello));
    }
    let refusals = [
        Refusal::Version { caller: VERSIONS, answerer: NEWER },
        Refusal::Group,
        Refusal::Members,
        Refusal::GroupId,
        Refusal::NotMember,
        Refusal::WrongReplica { wanted: ReplicaId(9) },
        Refusal::SameReplica { address: "a:1".into() },
        Refusal::Crowded { connections_max: 5 },
        Refusal::Malformed,
        Refusal::Mode,
    ];
    for refusal in refusals {
        let here = facts(Role::Replica(ReplicaId(1)));
        let answer = Answer { verdict: Verdict::Refused(refusal), facts: here };
        let bytes = answer.encode(NEWER);
        assert_eq!(Answer::decode(body(&bytes), VERSIONS, NEWER), Ok(answer));
    }
}

#[test]
fn any_flipped_bit_of_a_hello_is_noticed() {
    let bytes = hello().encode(VERSIONS);
    for position in 0..body(&bytes).len() * 8 {
        let mut damaged = body(&bytes).to_vec();
        damaged[position / 8] ^= 1 << (position % 8);
        assert!(Hello::decode(&damaged).is_err(), "bit {position} is not covered");
    }
}

#[test]
fn the_newest_common_version_is_chosen() {
    let versions = |min, max| Versions { min, max };
    assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
    assert_eq!(versions(4, 5).common(versions(4, 4)), Some(4));
    assert_eq!(versions(1, 3).common(versions(4, 5)), None);
}

#[test]
fn every_difference_is_refused_with_both_sides_and_a_remedy() {
    let here = facts(Role::Replica(ReplicaId(1)));
    let said = |change: fn(&mut Hello)| {
        let mut hello = hello();
        change(&mut hello);
        judge(&hello, &here).map_err(|refusal| refusal.explain(&hello.facts, &here))
    };
    let refused = |words: &str| Err(words.to_owned());
    assert_eq!(said(|_| {}), Ok(()));
    assert_eq!(
        said(|hello| hello.facts.group_name = "stock".into()),
        refused(
            "replica 2 belongs to group 'stock', replica 1 to group 'orders'; \
             correct the group's name or the addresses"
        )
    );
    assert_eq!(
        said(|hello| hello.facts.members = [0, 2].map(ReplicaId).into()),
        refused(
            "replica 2 was given the members [0, 2], replica 1 the members [0, 1, 2]; \
             give all the same list"
        )
    );
    assert!(said(|hello| hello.facts.group = GroupId(1)).unwrap_err().contains("same name"));
    assert_eq!(
        said(|hello| hello.facts.role = Role::Replica(ReplicaId(8))),
        refused("replica 8 is not one of the members [0, 1, 2]; correct its id or the list")
    );
    assert_eq!(
        said(|hello| hello.to = ReplicaId(2)),
        refused(
            "replica 2 wanted replica 2, but replica 1 answers at that address; \
             correct the addresses in the member list"
        )
    );
    assert_eq!(
        said(|hello| hello.facts.durability = Some(Durability::ViewOnly)),
        refused(
            "replica 2 runs in durability mode view-only, replica 1 in full; \
             start all members in the same mode, the one that the group was founded in"
        )
    );
    let wrong_side = |hello: &mut Hello| hello.facts.role = Role::Replica(ReplicaId(0));
    assert!(said(wrong_side).unwrap_err().contains("cannot read what the caller said"));
    let client_lane = |hello: &mut Hello| hello.facts.role = Role::Client(ClientId(1));
    assert!(said(client_lane).unwrap_err().contains("cannot read what the caller said"));
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Hello::decode(&bytes);
        let _ = Answer::decode(&bytes, VERSIONS, VERSIONS);
        let mut sealed = bytes.clone();
        sealed.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let _ = Hello::decode(&sealed);
        let _ = Answer::decode(&sealed, VERSIONS, VERSIONS);
    }

    #[test]
    fn a_prefix_never_announces_more_than_the_limit(bytes: [u8; 8]) {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..8].copy_from_slice(&handshake::MAGIC);
        prefix[8..].copy_from_slice(&bytes);
        if let Ok((_, length)) = decode_prefix(&prefix) {
            prop_assert!(length <= BODY_BYTES_MAX);
        }
    }
}

#[test]
fn replicas_say_their_mode_and_clients_have_none() {
    for mode in Durability::ALL {
        let mut hello = hello();
        hello.facts.durability = Some(mode);
        assert_eq!(Hello::decode(body(&hello.encode(VERSIONS))).as_ref(), Ok(&hello));
        hello.facts.role = Role::Client(ClientId(1));
        assert!(Hello::decode(body(&hello.encode(VERSIONS))).is_err(), "a client with {mode}");
    }
    let silent = Facts { durability: None, ..facts(Role::Replica(ReplicaId(2))) };
    let silent = Hello { facts: silent, ..hello() };
    assert!(Hello::decode(body(&silent.encode(VERSIONS))).is_err(), "a replica without a mode");
}

/// Two replicas that cannot agree, and what both complain of.
async fn disagreeing(change: impl Fn(&mut Endpoint)) -> [String; 2] {
    let (mut transports, members) = bound(2, &TcpConfig::default()).await;
    let mut changed = endpoint(Role::Replica(ReplicaId(1)), &members);
    change(&mut changed);
    let one = Tested::start(transports.pop().unwrap(), changed);
    let as_zero = endpoint(Role::Replica(ReplicaId(0)), &members);
    let zero = Tested::start(transports.pop().unwrap(), as_zero);
    [zero.complaint().await, one.complaint().await]
}

#[tokio::test]
async fn another_group_is_refused_and_both_say_so() {
    for complaint in disagreeing(|endpoint| endpoint.group_name = "else".into()).await {
        assert!(complaint.contains("group 'else'"), "{complaint}");
        assert!(complaint.contains("group 'test'"), "{complaint}");
    }
}

#[tokio::test]
async fn another_member_list_is_refused_and_both_say_so() {
    let lengthen = |endpoint: &mut Endpoint| {
        let third = Member { id: ReplicaId(2), address: "127.0.0.1:1".into() };
        let members = endpoint.members.as_slice().iter().cloned().chain([third]);
        endpoint.members = Members::new(members).unwrap();
    };
    for complaint in disagreeing(lengthen).await {
        assert!(complaint.contains("the members [0, 1, 2]"), "{complaint}");
        assert!(complaint.contains("members [0, 1]"), "{complaint}");
    }
}

#[tokio::test]
async fn another_mode_is_refused_and_both_say_so() {
    for complaint in disagreeing(|endpoint| endpoint.durability = Some(Durability::ViewOnly)).await
    {
        // Either of the two may be the one that called.
        let said = [
            "1 runs in durability mode view-only, replica 0 in full; start all members",
            "0 runs in durability mode full, replica 1 in view-only; start all members",
        ];
        assert!(said.iter().any(|said| complaint.contains(said)), "{complaint}");
    }
}

#[tokio::test]
async fn a_replica_at_anothers_address_is_refused_and_both_say_so() {
    let (mut transports, members) = bound(3, &TcpConfig::default()).await;
    let mut swapped = members.as_slice().to_vec();
    swapped[0].address = members.address_of(ReplicaId(1)).unwrap().into();
    let swapped = Members::new(swapped).unwrap();
    let as_two = endpoint(Role::Replica(ReplicaId(2)), &swapped);
    let two = Tested::start(transports.pop().unwrap(), as_two);
    let as_one = endpoint(Role::Replica(ReplicaId(1)), &members);
    let one = Tested::start(transports.pop().unwrap(), as_one);
    for complaint in [one.complaint().await, two.complaint().await] {
        assert!(complaint.contains("wanted replica 0, but replica 1 answers"), "{complaint}");
    }
}

#[tokio::test]
async fn another_version_is_refused_by_the_replica_with_both_ranges() {
    let (replicas, members) = group(1, &TcpConfig::default()).await;
    let address = members.address_of(ReplicaId(0)).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&client_hello(&members, 0).encode(NEWER)).await.unwrap();
    let (versions, answer) = handshake::read(&mut stream).await.unwrap();
    let answer = Answer::decode(&answer, NEWER, versions).unwrap();
    let refusal = Refusal::Version { caller: NEWER, answerer: VERSIONS };
    assert_eq!(answer.verdict, Verdict::Refused(refusal));
    let complaint = replicas[0].complaint().await;
    assert!(complaint.contains("the caller speaks wire versions 7 to 9"), "{complaint}");
    assert!(complaint.contains("the answering end 1 to 5"), "{complaint}");
}

#[tokio::test]
async fn another_version_is_reported_by_the_client_with_both_ranges() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let members: Members = address.parse().unwrap();
    let as_client = endpoint(Role::Client(ClientId(1)), &members);
    let asking = Tested::start(TcpTransport::client(), as_client);
    let (mut stream, _) = listener.accept().await.unwrap();
    handshake::read(&mut stream).await.unwrap();
    stream.write_all(b"VR-TCP\r\n\x07\0\x09\0\x03\0\0\0???").await.unwrap();
    let complaint = asking.complaint().await;
    assert!(complaint.contains("the caller speaks wire versions 1 to 5"), "{complaint}");
    assert!(complaint.contains("the answering end 7 to 9"), "{complaint}");
}

#[tokio::test]
async fn another_protocol_at_a_members_address_is_reported() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let members: Members = address.parse().unwrap();
    let as_client = endpoint(Role::Client(ClientId(1)), &members);
    let asking = Tested::start(TcpTransport::client(), as_client);
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(b"-ERR unknown command 'VR-TCP'\r\n").await.unwrap();
    let complaint = asking.complaint().await;
    assert_eq!(complaint, format!("replica 0 at {address}: it does not speak this protocol"));
}

#[tokio::test]
async fn an_address_that_cannot_be_resolved_is_reported() {
    // No name has a part of 64 letters, so nobody needs to be asked.
    let address = format!("{}:1", "a".repeat(64));
    let members: Members = address.parse().unwrap();
    let as_client = endpoint(Role::Client(ClientId(1)), &members);
    let asking = Tested::start(TcpTransport::client(), as_client);
    let complaint = asking.complaint().await;
    let said = format!("replica 0 at {address}: its address cannot be resolved");
    assert!(complaint.starts_with(&said), "{complaint}");
}

#[tokio::test]
async fn a_second_process_with_the_id_of_a_living_replica_is_refused() {
    for doubled in [0, 1] {
        let (mut replicas, members) = group(2, &TcpConfig::default()).await;
        let mut other = replicas.remove(usize::try_from(1 - doubled).unwrap());
        let mut first = replicas.remove(0);
        other.connected(&[doubled]).await;
        first.connected(&[1 - doubled]).await;
        let transport = TcpTransport::bind("127.0.0.1:0").await.unwrap();
        let as_doubled = endpoint(Role::Replica(ReplicaId(doubled)), &members);
        let second = Tested::start(transport, as_doubled);
        let said = format!("another process is replica {doubled} and is connected from 127.0.0.1:");
        for complaint in [other.complaint().await, second.complaint().await] {
            assert!(complaint.contains(&said), "{complaint}");
        }
        first.say(replica(1 - doubled), request(1, 1));
        assert_eq!(other.envelope().await, (replica(doubled), request(1, 1)));
    }
}

#[tokio::test]
async fn a_restarted_replica_takes_over_from_a_connection_that_looks_alive() {
    let (mut transports, members) = bound(2, &TcpConfig::default()).await;
    let restarted = transports.pop().unwrap();
    let as_zero = endpoint(Role::Replica(ReplicaId(0)), &members);
    let mut zero = Tested::start(transports.pop().unwrap(), as_zero);
    // The old process is gone; nobody told replica 0, whose sockets stay open.
    let facts = Facts::new(&endpoint(Role::Replica(ReplicaId(1)), &members), 1);
    let mut old = Vec::new();
    for carries in [Carries::Control, Carries::Data, Carries::Bulk] {
        let purpose = Purpose::Link { carries, number: 1 };
        let hello = Hello { purpose, to: ReplicaId(0), facts: facts.clone() };
        old.push(greeted(members.address_of(ReplicaId(0)).unwrap(), &hello).await);
    }
    zero.connected(&[1]).await;
    let as_one = endpoint(Role::Replica(ReplicaId(1)), &members);
    let mut one = Tested::start(restarted, as_one);
    one.connected(&[0]).await;
    assert_eq!(zero.next().await, Received::Disconnected(replica(1)));
    assert_eq!(zero.next().await, Received::Connected(replica(1)));
    one.say(replica(0), request(1, 1));
    assert_eq!(zero.envelope().await, (replica(1), request(1, 1)));
}
