//! Envelopes to send: one of every kind, and some of a size.

use core::time::Duration;
use std::sync::LazyLock;

use bytes::Bytes;

use crate::model::{
    certificate::{Certificate, CertificateHash, CrashVector},
    durable::{CheckpointId, Durability, Trust},
    entries::{Entries, GetEntries, GetHeaders, Headers, Wanted},
    entry::{Entry, EntryHeader, EntryKind},
    founding::{Found, FoundOk, Hello, HelloOk},
    message::{
        Answer, Commit, Committed, CrashVectorIs, DoViewChange, Envelope, Forward, ForwardReply,
        GetCrashVector, GetView, Handoff, Message, Outcome, Ping, Prepare, PrepareOk, Query,
        ReadIndex, ReadIndexOk, Recovery, RecoveryResponse, Register, Rejected, Rejection, Replied,
        Replies, Reply, Request, Requests, Sender, Standing, StartView, StartViewChange,
        StatusKind, Suspicion,
    },
    operation::Operation,
    read::Read,
    snapshot::{GetSnapshot, Released, Snapshot, SnapshotContent, SnapshotPart},
    types::{
        Checksum, ClientId, DiskId, Epoch, GroupId, HeartbeatNumber, Incarnation, Nonce, OpNumber,
        ReplicaId, ReplicaSet, RequestId, RequestNumber, View,
    },
};

const CLIENT: ClientId = ClientId(0xc1);
const NONCE: Nonce = Nonce(u128::MAX - 5);
const CHECKSUM: Checksum = Checksum(0xcc);

/// Bytes that are not all alike; payloads are the beginnings of it.
static BYTES: LazyLock<Bytes> = LazyLock::new(|| (0..=250_u8).cycle().take(2 << 20).collect());

fn payload(bytes: usize) -> Bytes {
    BYTES.slice(..bytes.min(BYTES.len()))
}

/// What replica 0 says.
fn from_replica(message: Message) -> Envelope {
    let mut crash_vector = CrashVector::default();
    crash_vector.learn(ReplicaId(1), Incarnation(2));
    Envelope {
        group: GroupId(u128::MAX / 3),
        certificate: CertificateHash(7),
        epoch: Epoch(1),
        sender: Sender::Replica(ReplicaId(0)),
        incarnation: Incarnation(3),
        view: View(u64::MAX / 3),
        crash_vector,
        message,
    }
}

/// What a client says.
fn from_client(message: Message) -> Envelope {
    let (sender, incarnation) = (Sender::Client(CLIENT), Incarnation::ZERO);
    let crash_vector = CrashVector::default();
    Envelope { sender, incarnation, crash_vector, ..from_replica(message) }
}

/// On the control lane.
pub(crate) fn control(number: u64) -> Envelope {
    from_replica(Message::Ping(Ping { standing: standing(), sent_at: number }))
}

/// On the data lane, with so many bytes of payload.
pub(crate) fn data(number: u64, bytes: usize) -> Envelope {
    from_client(Message::Request(Request {
        client: CLIENT,
        session: OpNumber(1),
        request_number: RequestNumber(number),
        many: false,
        operation: payload(bytes),
    }))
}

/// The number of one made by [`data`].
pub(crate) fn data_number(envelope: &Envelope) -> Option<u64> {
    let Message::Request(request) = &envelope.message else { return None };
    Some(request.request_number.0)
}

/// On the bulk lane, with so many bytes of payload.
pub(crate) fn bulk(number: u64, bytes: usize) -> Envelope {
    let entry = Entry::new(EntryHeader::default(), payload(bytes));
    from_replica(Message::Entries(Entries { request: RequestId(number), entries: vec![entry] }))
}

/// To a client, on the data lane.
pub(crate) fn reply(number: u64) -> Envelope {
    from_replica(Message::Reply(reply_to(number)))
}

fn reply_to(number: u64) -> Reply {
    Reply {
        client: CLIENT,
        request_number: RequestNumber(number),
        op_number: OpNumber(18),
        outcome: Outcome::Executed(Bytes::from_static(b"ok")),
    }
}

/// One of every kind that clients send.
pub(crate) fn of_a_client() -> Vec<Envelope> {
    let query = Query {
        client: CLIENT,
        request_number: RequestNumber(6),
        read: Read::Linearizable,
        query: Bytes::from_static(b"get a"),
    };
    let register = Register { client: CLIENT, nonce: NONCE };
    let operations = [7, 2000, 0].map(|bytes| Operation::from(payload(bytes)).into()).to_vec();
    let (session, first) = (OpNumber(1), RequestNumber(6));
    let batch = Requests { client: CLIENT, session, first, operations };
    vec![
        from_client(Message::Register(register)),
        data(5, 7),
        from_client(Message::Requests(batch)),
        from_client(Message::Query(query)),
    ]
}

/// One of every kind that replicas send to clients.
pub(crate) fn to_a_client() -> Vec<Envelope> {
    let (client, request_number) = (CLIENT, RequestNumber(6));
    let answer = Some(Bytes::from_static(b"1"));
    let answer = Answer { client, request_number, op_number: OpNumber(18), answer };
    let rejected = Rejected { client, request_number, reason: Rejection::Evicted };
    let replies = [5, 6].map(reply_to).map(Replied::from).to_vec();
    vec![
        reply(5),
        from_replica(Message::Replies(Replies { client, replies })),
        from_replica(Message::Rejected(rejected)),
        from_replica(Message::Answer(answer)),
    ]
}

/// One of every kind that replicas send to each other.
pub(crate) fn of_a_replica() -> Vec<Envelope> {
    let messages = [normal(), views(), transfers(), genesis()].into_iter().flatten();
    messages.map(from_replica).collect()
}

fn standing() -> Standing {
    let (log_view, op_number) = (View(4), OpNumber(20));
    Standing { log_view, op_number, status: StatusKind::Normal, heard: ReplicaSet::EMPTY }
}

/// A request and a no-op, chained.
fn entries() -> Vec<Entry> {
    let header = |kind, op_number, parent| EntryHeader {
        view: View(4),
        op_number: OpNumber(op_number),
        parent,
        kind,
        ..EntryHeader::default()
    };
    let request =
        Entry::new(header(EntryKind::Request, 18, CHECKSUM), Bytes::from_static(b"put a 1"));
    let noop = Entry::new(header(EntryKind::Noop, 19, request.header.checksum), Bytes::new());
    vec![request, noop]
}

fn headers() -> Vec<EntryHeader> {
    entries().iter().map(|entry| entry.header).collect()
}

const fn checkpoint() -> CheckpointId {
    CheckpointId { op_number: OpNumber(10), checksum: CHECKSUM, digest: Checksum(0xd1) }
}

fn normal() -> Vec<Message> {
    let commit = Committed { op_number: OpNumber(16), checksum: CHECKSUM };
    let heartbeat = HeartbeatNumber(300);
    let request = RequestId(400);
    let prepare_ok = PrepareOk {
        op_number: OpNumber(20),
        checksum: CHECKSUM,
        heartbeat,
        applied: OpNumber(16),
        checkpoint: checkpoint(),
        standing: Some(standing()),
        lease: Duration::from_millis(100),
    };
    let read_index_ok = ReadIndexOk { request, op_number: OpNumber(16), time: u64::MAX / 2 };
    let register = Register { client: CLIENT, nonce: NONCE };
    vec![
        Message::Forward(Forward::Register(register)),
        Message::ForwardReply(ForwardReply::Reply(reply_to(5))),
        Message::Prepare(Prepare { entries: entries().into(), commit, heartbeat }),
        Message::PrepareOk(prepare_ok),
        Message::Commit(Commit { commit, heartbeat, agreed: checkpoint(), standing: standing() }),
        Message::ReadIndex(ReadIndex { request }),
        Message::ReadIndexOk(read_index_ok),
    ]
}

fn views() -> Vec<Message> {
    let (view, head, commit_number) = (View(5), CHECKSUM, OpNumber(16));
    let (op_number, checkpoint, suffix) = (OpNumber(19), checkpoint(), headers());
    let do_view_change = DoViewChange {
        view,
        log_view: View(4),
        op_number,
        head,
        commit_number,
        checkpoint,
        suffix: suffix.clone(),
        trust: Trust::Intact,
        unbroken: true,
    };
    let nonce = Some(NONCE);
    let start_view = StartView { view, op_number, head, commit_number, checkpoint, suffix, nonce };
    let reason = Suspicion::PrimaryLost;
    vec![
        Message::StartViewChange(StartViewChange { view, reason, standing: standing() }),
        Message::DoViewChange(do_view_change),
        Message::StartView(start_view),
        Message::GetView(GetView { view, nonce: NONCE }),
        Message::Ping(Ping { standing: standing(), sent_at: 123 }),
        Message::Pong(Ping { standing: standing(), sent_at: 123 }),
        Message::Handoff(Handoff { view, op_number: OpNumber(9), checksum: CHECKSUM }),
    ]
}

fn transfers() -> Vec<Message> {
    let request = RequestId(400);
    let (from, through) = (OpNumber(18), OpNumber(19));
    let wanted = Wanted::Exact(vec![(from, CHECKSUM)]);
    vec![
        Message::GetHeaders(GetHeaders { request, from, through, checksum: CHECKSUM }),
        Message::Headers(Headers { request, headers: headers() }),
        Message::GetEntries(GetEntries { request, wanted, bytes_max: 1 << 20 }),
        Message::Released(Released { request, checkpoint: checkpoint() }),
        Message::GetSnapshot(GetSnapshot {
            request,
            checkpoint: checkpoint(),
            part: SnapshotPart::Chunk(3),
            compressed: true,
        }),
        Message::Snapshot(Snapshot {
            request,
            checkpoint: checkpoint(),
            content: SnapshotContent::Chunk { index: 3, bytes: Bytes::from_static(b"state") },
        }),
        Message::Snapshot(Snapshot {
            request,
            checkpoint: checkpoint(),
            content: SnapshotContent::Compressed {
                index: 4,
                block: Bytes::from_static(b"\x50state"),
            },
        }),
        Message::Entries(Entries { request, entries: entries() }),
    ]
}

fn genesis() -> Vec<Message> {
    let disks = vec![(ReplicaId(0), DiskId(0xd0)), (ReplicaId(1), DiskId(0xd1))];
    let certificate =
        Some(Certificate { group_name: "g".into(), disks: disks.clone(), inherited: Vec::new() });
    vec![
        Message::Hello(Hello { nonce: NONCE, durability: Durability::Full }),
        Message::HelloOk(HelloOk {
            nonce: Some(NONCE),
            disk: DiskId(0xd1),
            certificate,
            durability: Durability::ViewOnly,
        }),
        Message::Found(Found { nonce: NONCE, disks }),
        Message::FoundOk(FoundOk { nonce: NONCE }),
        Message::Recovery(Recovery {
            nonce: NONCE,
            view: View(5),
            log_view: View(4),
            primary_restarted: true,
        }),
        Message::RecoveryResponse(RecoveryResponse { nonce: NONCE, start: None }),
        Message::GetCrashVector(GetCrashVector { nonce: NONCE }),
        Message::CrashVectorIs(CrashVectorIs { nonce: NONCE }),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::kind::Kind;

    #[test]
    fn every_kind_has_a_sample() {
        let samples = [of_a_client(), to_a_client(), of_a_replica()].into_iter().flatten();
        let kinds: BTreeSet<Kind> = samples.map(|sample| sample.message.kind()).collect();
        assert_eq!(kinds, BTreeSet::from(Kind::ALL));
    }
}
