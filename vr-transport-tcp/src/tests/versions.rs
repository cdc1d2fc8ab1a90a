//! Ends that speak different versions, and what is said between them.

use core::time::Duration;

use vr_core::{
    ClientId, OpNumber, Read,
    model::{
        durable::CheckpointId,
        encoding::{WIRE_VERSION, WIRE_VERSION_MIN},
        entry::{Entry, EntryHeader, EntryKind},
        message::{Committed, Message, Prepare, PrepareOk, Query, Standing, StatusKind},
        snapshot::{GetSnapshot, Snapshot, SnapshotContent, SnapshotPart},
        types::{Checksum, HeartbeatNumber, ReplicaSet, RequestId, RequestNumber, View},
    },
};

use super::{Tested, envelope, group_each, replica};
use crate::config::TcpConfig;

const LEASE: Duration = Duration::from_millis(100);

fn speaking(version: u16) -> TcpConfig {
    TcpConfig { wire_version_max: version, ..TcpConfig::default() }
}

/// Two connected replicas that speak no newer versions than these.
async fn pair_of(zero: u16, one: u16) -> (Tested, Tested) {
    let configs = [zero, one].map(speaking);
    let (mut tested, _) = group_each(configs.iter()).await;
    let (mut one, mut zero) = (tested.pop().unwrap(), tested.pop().unwrap());
    zero.connected(&[1]).await;
    one.connected(&[0]).await;
    (zero, one)
}

fn grant() -> Message {
    Message::PrepareOk(PrepareOk {
        op_number: OpNumber(1),
        checksum: Checksum(2),
        heartbeat: HeartbeatNumber(3),
        applied: OpNumber(1),
        checkpoint: CheckpointId::default(),
        standing: Some(Standing {
            log_view: View(0),
            op_number: OpNumber(1),
            status: StatusKind::Normal,
            heard: ReplicaSet::EMPTY,
        }),
        lease: LEASE,
    })
}

fn query() -> Message {
    Message::Query(Query {
        client: ClientId(1),
        request_number: RequestNumber(2),
        read: Read::Lease,
        query: bytes::Bytes::from_static(b"?"),
    })
}

/// A question that takes a compressed chunk.
fn question() -> Message {
    Message::GetSnapshot(GetSnapshot {
        request: RequestId(1),
        checkpoint: CheckpointId::default(),
        part: SnapshotPart::Chunk(0),
        compressed: true,
    })
}

/// The chunk "state", as it is or compressed.
fn chunk(compressed: bool) -> Message {
    let bytes = bytes::Bytes::from_static(if compressed { b"\x50state" } else { b"state" });
    let content = match compressed {
        true => SnapshotContent::Compressed { index: 0, block: bytes },
        false => SnapshotContent::Chunk { index: 0, bytes },
    };
    let (request, checkpoint) = (RequestId(1), CheckpointId::default());
    Message::Snapshot(Snapshot { request, checkpoint, content })
}

/// Whether a question for a compressed chunk, and such a chunk, arrive as what they were.
async fn compressed(from: &Tested, to: &mut Tested, peer: u64) -> (bool, bool) {
    from.say(replica(peer), envelope(question()));
    from.say(replica(peer), envelope(chunk(true)));
    let (mut asked, mut sent) = (None, None);
    while asked.is_none() || sent.is_none() {
        let message = to.envelope().await.1.message;
        if let Message::GetSnapshot(m) = message {
            asked = Some(m.compressed);
        } else if let Message::Snapshot(_) = &message {
            sent = Some(message == chunk(true));
            assert!(sent == Some(true) || message == chunk(false), "{message:?}");
        }
    }
    (asked.unwrap(), sent.unwrap())
}

/// Three requests of one client, each chained to the one before it.
fn prepare() -> Message {
    let mut header = EntryHeader { kind: EntryKind::Request, ..EntryHeader::default() };
    let mut entries = Vec::new();
    for operation in ["one", "two", "three"] {
        header.op_number = header.op_number.next();
        header.request_number = header.request_number.next();
        let entry = Entry::new(header, operation.into());
        header.parent = entry.header.checksum;
        entries.push(entry);
    }
    let (commit, heartbeat) = (Committed::default(), HeartbeatNumber(1));
    Message::Prepare(Prepare { entries: entries.into(), commit, heartbeat })
}

/// Entries arrive as what they were, whatever is left out of their headers on the way.
async fn prepared(from: &Tested, to: &mut Tested, peer: u64) {
    from.say(replica(peer), envelope(prepare()));
    assert_eq!(to.envelope().await.1.message, prepare());
}

/// Three operations of one client, which travel together or one by one.
fn batch() -> Message {
    let operations = ["one", "two", "three"].map(|bytes| bytes::Bytes::from(bytes).into());
    Message::asking(ClientId(1), OpNumber(2), RequestNumber(3), operations.to_vec())
}

/// Operations arrive as what they were, each under its number; whether they did so in one message.
async fn asked(from: &Tested, to: &mut Tested, peer: u64) -> bool {
    let Message::Requests(said) = batch() else { panic!("a batch") };
    let said: Vec<_> = said.each().collect();
    from.say(replica(peer), envelope(batch()));
    let (mut heard, mut together) = (Vec::new(), false);
    while heard.len() < said.len() {
        let message = to.envelope().await.1.message;
        if let Message::Requests(batch) = message {
            heard.extend(batch.each());
            together = true;
        } else if let Message::Request(request) = message {
            heard.push(request);
        }
    }
    assert_eq!(heard, said);
    together
}

/// What of a grant and of a leased query arrives at the other end.
async fn heard(from: &Tested, to: &mut Tested, peer: u64) -> (Duration, Read) {
    from.say(replica(peer), envelope(grant()));
    from.say(replica(peer), envelope(query()));
    let (mut lease, mut read) = (None, None);
    while lease.is_none() || read.is_none() {
        let message = to.envelope().await.1.message;
        if let Message::PrepareOk(m) = message {
            lease = Some(m.lease);
        } else if let Message::Query(m) = message {
            read = Some(m.read);
        }
    }
    (lease.unwrap(), read.unwrap())
}

#[tokio::test]
async fn two_ends_of_the_newest_version_speak_it() {
    let (zero, mut one) = pair_of(WIRE_VERSION, WIRE_VERSION).await;
    assert_eq!(heard(&zero, &mut one, 1).await, (LEASE, Read::Lease));
    assert_eq!(compressed(&zero, &mut one, 1).await, (true, true));
    prepared(&zero, &mut one, 1).await;
    assert!(asked(&zero, &mut one, 1).await);
}

/// An old end on either side: what it cannot read is left out, and nothing else.
#[tokio::test]
async fn an_old_end_hears_what_it_can_read() {
    for old in WIRE_VERSION_MIN..WIRE_VERSION {
        for (zero, one) in [(old, WIRE_VERSION), (WIRE_VERSION, old)] {
            let (mut zero, mut one) = pair_of(zero, one).await;
            let expected = match old {
                1 => (Duration::ZERO, Read::Linearizable),
                _ => (LEASE, Read::Lease),
            };
            assert_eq!(heard(&zero, &mut one, 1).await, expected);
            assert_eq!(heard(&one, &mut zero, 0).await, expected);
            let compresses = (old >= 3, old >= 3);
            assert_eq!(compressed(&zero, &mut one, 1).await, compresses);
            assert_eq!(compressed(&one, &mut zero, 0).await, compresses);
            prepared(&zero, &mut one, 1).await;
            prepared(&one, &mut zero, 0).await;
            assert_eq!(asked(&zero, &mut one, 1).await, old >= 3);
            assert_eq!(asked(&one, &mut zero, 0).await, old >= 3);
        }
    }
}
