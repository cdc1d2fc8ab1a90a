//! One message of every kind, and of every form that its bytes can have.

use core::time::Duration;

use bytes::Bytes;
use vr_core::{
    CausalToken, Read,
    model::{
        certificate::{Certificate, CertificateHash, CrashVector, Inheritance, Means},
        durable::{CheckpointId, Durability, Trust},
        entries::{Entries, GetEntries, GetHeaders, Headers, Wanted},
        entry::{Entry, EntryHeader, EntryKind},
        founding::{Found, FoundOk, Hello, HelloOk},
        kind::Kind,
        message::{
            Answer, Commit, Committed, CrashVectorIs, DoViewChange, Envelope, Forward,
            ForwardReply, GetCrashVector, GetView, Handoff, Limit, Message, Outcome, Ping, Prepare,
            PrepareOk, Query, ReadIndex, ReadIndexOk, Recovery, RecoveryResponse, Register,
            Rejected, Rejection, Replied, Replies, Reply, Request, Requests, Sender, Standing,
            StartView, StartViewChange, StatusKind, Suspicion,
        },
        operation::Operation,
        snapshot::{GetSnapshot, Released, Snapshot, SnapshotContent, SnapshotPart},
        types::{
            Checksum, ClientId, DiskId, Epoch, GroupId, HeartbeatNumber, Incarnation, Nonce,
            OpNumber, ReplicaId, ReplicaIndex, ReplicaSet, RequestId, RequestNumber, View,
        },
    },
};

pub(crate) const CLIENT: ClientId = ClientId(0xc1_0000_0000_0000_0000_0000_0000_0001);
pub(crate) const NONCE: Nonce = Nonce(0x0e_0000_0000_0000_0000_0000_0000_0002);
const CHECKSUM: Checksum = Checksum(0xcc_0000_0000_0000_0000_0000_0000_0003);

/// A name for each sample: its kind's, and what is special about it.
pub(crate) fn samples() -> Vec<(String, Envelope)> {
    let mut samples = Vec::new();
    let mut add = |special: &str, envelope: Envelope| {
        let mut name = String::new();
        for letter in format!("{:?}", envelope.message.kind()).chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        samples.push((name + special, envelope));
    };
    for (special, message) in client_messages() {
        let asks =
            matches!(message.kind(), Kind::Register | Kind::Request | Kind::Requests | Kind::Query);
        let sender = if asks { Sender::Client(CLIENT) } else { replica() };
        add(special, envelope(sender, message));
    }
    let groups = [
        normal_messages(),
        view_messages(),
        transfer_messages(),
        genesis_messages(),
        recovery_messages(),
    ];
    for (special, message) in groups.into_iter().flatten() {
        add(special, envelope(replica(), message));
    }
    let mut forgetful = envelope(replica(), Message::Ping(ping()));
    forgetful.crash_vector.learn(ReplicaId(0), Incarnation(2));
    forgetful.crash_vector.learn(ReplicaId(7), Incarnation(1));
    add("_with_crash_vector", forgetful);
    samples
}

const fn replica() -> Sender {
    Sender::Replica(ReplicaId(2))
}

fn envelope(sender: Sender, message: Message) -> Envelope {
    Envelope {
        group: GroupId(0x6_0000_0000_0000_0000_0000_0000_0001),
        certificate: CertificateHash(0x7_0000_0000_0000_0000_0000_0000_0002),
        epoch: Epoch(1),
        sender,
        incarnation: Incarnation(3),
        view: View(4),
        crash_vector: CrashVector::default(),
        message,
    }
}

fn request() -> Request {
    Request {
        client: CLIENT,
        session: OpNumber(17),
        request_number: RequestNumber(5),
        many: false,
        operation: Bytes::from_static(b"put a 1"),
    }
}

const fn reply(outcome: Outcome) -> Reply {
    Reply { client: CLIENT, request_number: RequestNumber(5), op_number: OpNumber(18), outcome }
}

fn requests() -> Requests {
    let Request { client, session, request_number: first, operation, .. } = request();
    let operations = [(false, operation), (true, Bytes::from_static(b"put b 2"))];
    let operations = operations.map(|(many, bytes)| Operation { many, bytes }.into()).to_vec();
    Requests { client, session, first, operations }
}

fn replies() -> Replies {
    let executed = |reply: &'static [u8]| Outcome::Executed(Bytes::from_static(reply));
    let outcomes = [
        executed(b"ok"),
        executed(b""),
        Outcome::Malformed,
        Outcome::Registered,
        Outcome::Evicted,
        Outcome::Forgotten,
    ];
    let replied = |(number, outcome): (u64, Outcome)| Replied {
        request_number: RequestNumber(5 + number),
        op_number: OpNumber(18 + number),
        outcome,
    };
    Replies { client: CLIENT, replies: (0..).zip(outcomes).map(replied).collect() }
}

const fn rejected(reason: Rejection) -> Rejected {
    Rejected { client: CLIENT, request_number: RequestNumber(5), reason }
}

fn client_messages() -> Vec<(&'static str, Message)> {
    let register = Register { client: CLIENT, nonce: NONCE };
    let executed = Outcome::Executed(Bytes::from_static(b"ok"));
    let query = |read| Query {
        client: CLIENT,
        request_number: RequestNumber(6),
        read,
        query: Bytes::from_static(b"get a"),
    };
    let answer = |answer| Answer {
        client: CLIENT,
        request_number: RequestNumber(6),
        op_number: OpNumber(18),
        answer,
    };
    let token = CausalToken { epoch: Epoch(1), op_number: OpNumber(18) };
    let too_large = Rejection::TooLarge { bytes: 9, bytes_max: 8 };
    let mut messages = vec![
        ("", Message::Register(register.clone())),
        ("", Message::Request(request())),
        ("_many", Message::Request(Request { many: true, ..request() })),
        ("", Message::Requests(requests())),
        ("", Message::Reply(reply(executed.clone()))),
        ("", Message::Replies(replies())),
        ("_malformed", Message::Reply(reply(Outcome::Malformed))),
        ("_registered", Message::Reply(reply(Outcome::Registered))),
        ("_evicted", Message::Reply(reply(Outcome::Evicted))),
        ("_forgotten", Message::Reply(reply(Outcome::Forgotten))),
        ("_evicted", Message::Rejected(rejected(Rejection::Evicted))),
        ("_too_large", Message::Rejected(rejected(too_large))),
        ("", Message::Query(query(Read::Linearizable))),
        ("_local", Message::Query(query(Read::Local))),
        ("_causal", Message::Query(query(Read::Causal(token)))),
        ("_leased", Message::Query(query(Read::Lease))),
        ("", Message::Answer(answer(Some(Bytes::from_static(b"1"))))),
        ("_unreadable", Message::Answer(answer(None))),
        ("", Message::Forward(Forward::Request(request()))),
        ("_register", Message::Forward(Forward::Register(register))),
        ("", Message::ForwardReply(ForwardReply::Reply(reply(executed)))),
        ("_rejected", Message::ForwardReply(ForwardReply::Rejected(rejected(Rejection::Evicted)))),
    ];
    for (special, limit) in [
        ("", Limit::Pipeline),
        ("_log", Limit::Log),
        ("_clients", Limit::Clients),
        ("_window", Limit::Window),
        ("_forward", Limit::Forward),
        ("_reads", Limit::Reads),
        ("_no_quorum", Limit::NoQuorum),
    ] {
        messages.push((special, Message::Rejected(rejected(Rejection::Busy(limit)))));
    }
    messages
}

/// A request, a registration and a no-op, chained.
pub(crate) fn entries() -> Vec<Entry> {
    let header = |kind, op_number| EntryHeader {
        view: View(4),
        op_number: OpNumber(op_number),
        time: 1_700_000_000_000_000_000 + op_number,
        group: 1,
        epoch: Epoch(1),
        kind,
        ..EntryHeader::default()
    };
    let request = Entry::new(
        EntryHeader {
            parent: CHECKSUM,
            client: CLIENT,
            session: OpNumber(17),
            request_number: RequestNumber(5),
            ..header(EntryKind::Request, 18)
        },
        Bytes::from_static(b"put a 1"),
    );
    let parent = request.header.checksum;
    let register = Entry::new(
        EntryHeader { parent, client: ClientId(9), ..header(EntryKind::Register, 19) },
        Bytes::copy_from_slice(&NONCE.0.to_le_bytes()),
    );
    let parent = register.header.checksum;
    let noop = EntryHeader { parent, ..header(EntryKind::Noop, 20) };
    vec![request, register, Entry::new(noop, Bytes::new())]
}

/// Requests of two sessions, chained: one and the next, several operations, the other session's; and
/// one of a later view.
fn requests_of_sessions() -> Vec<Entry> {
    let session = |client, session| EntryHeader {
        view: View(4),
        group: 1,
        epoch: Epoch(1),
        client,
        session: OpNumber(session),
        ..EntryHeader::default()
    };
    let (one, other) = (session(CLIENT, 17), session(ClientId(9), 16));
    let later = EntryHeader { view: View(5), ..one };
    let mut parent = CHECKSUM;
    let mut entries = Vec::new();
    for (op, (header, number, many)) in (18..).zip([
        (one, 5, false),
        (one, 6, false),
        (one, 7, true),
        (other, 1, false),
        (other, 3, true),
        (later, 8, false),
    ]) {
        let header = EntryHeader {
            parent,
            op_number: OpNumber(op),
            time: 1_700_000_000_000_000_000 + 1000 * op,
            request_number: RequestNumber(number),
            kind: EntryKind::of_request(many),
            ..header
        };
        let payload = if many { "\x07\0\0\0put b 2" } else { "put a 1" };
        let entry = Entry::new(header, Bytes::from_static(payload.as_bytes()));
        parent = entry.header.checksum;
        entries.push(entry);
    }
    entries
}

fn headers() -> Vec<EntryHeader> {
    entries().iter().map(|entry| entry.header).collect()
}

fn standing(status: StatusKind) -> Standing {
    let mut heard = ReplicaSet::EMPTY;
    heard.insert(ReplicaIndex(0));
    heard.insert(ReplicaIndex(2));
    Standing { log_view: View(4), op_number: OpNumber(20), status, heard }
}

const fn checkpoint() -> CheckpointId {
    CheckpointId { op_number: OpNumber(10), checksum: CHECKSUM, digest: Checksum(0xd1) }
}

fn normal_messages() -> Vec<(&'static str, Message)> {
    let commit = Committed { op_number: OpNumber(16), checksum: CHECKSUM };
    let heartbeat = HeartbeatNumber(300);
    let prepare_ok = |standing, lease| PrepareOk {
        op_number: OpNumber(20),
        checksum: CHECKSUM,
        heartbeat,
        applied: OpNumber(16),
        checkpoint: checkpoint(),
        standing,
        lease: Duration::from_millis(lease),
    };
    let heartbeats =
        |status| Commit { commit, heartbeat, agreed: checkpoint(), standing: standing(status) };
    vec![
        ("", Message::Prepare(Prepare { entries: entries().into(), commit, heartbeat })),
        (
            "_of_requests",
            Message::Prepare(Prepare { entries: requests_of_sessions().into(), commit, heartbeat }),
        ),
        ("", Message::PrepareOk(prepare_ok(None, 0))),
        ("_standing", Message::PrepareOk(prepare_ok(Some(standing(StatusKind::Normal)), 0))),
        ("_lease", Message::PrepareOk(prepare_ok(Some(standing(StatusKind::Normal)), 100))),
        ("", Message::Commit(heartbeats(StatusKind::Normal))),
        ("_blank", Message::Commit(heartbeats(StatusKind::Blank))),
        ("_view_change", Message::Commit(heartbeats(StatusKind::ViewChange))),
        ("_recovering", Message::Commit(heartbeats(StatusKind::Recovering))),
    ]
}

fn ping() -> Ping {
    Ping { standing: standing(StatusKind::Normal), sent_at: 123_456_789 }
}

fn start_view(nonce: Option<Nonce>) -> StartView {
    StartView {
        view: View(5),
        op_number: OpNumber(20),
        head: CHECKSUM,
        commit_number: OpNumber(16),
        checkpoint: checkpoint(),
        suffix: headers(),
        nonce,
    }
}

fn view_messages() -> Vec<(&'static str, Message)> {
    let mut messages = Vec::new();
    for (special, reason, status) in [
        ("", Suspicion::PrimarySilent, StatusKind::Normal),
        ("_primary_lost", Suspicion::PrimaryLost, StatusKind::Blank),
        ("_check_quorum", Suspicion::CheckQuorum, StatusKind::ViewChange),
        ("_stuck", Suspicion::ViewChangeStuck, StatusKind::Recovering),
        ("_behind", Suspicion::Behind, StatusKind::Normal),
        ("_primary_restarted", Suspicion::PrimaryRestarted, StatusKind::Normal),
        ("_recovering", Suspicion::Recovering, StatusKind::Recovering),
    ] {
        let standing = standing(status);
        let vote = StartViewChange { view: View(4), reason, standing };
        messages.push((special, Message::StartViewChange(vote)));
    }
    for (special, trust, unbroken) in [("", Trust::Intact, true), ("_lost", Trust::Lost, false)] {
        let promise = DoViewChange {
            view: View(5),
            log_view: View(4),
            op_number: OpNumber(20),
            head: CHECKSUM,
            commit_number: OpNumber(16),
            checkpoint: checkpoint(),
            suffix: headers(),
            trust,
            unbroken,
        };
        messages.push((special, Message::DoViewChange(promise)));
    }
    for (special, nonce) in [("", None), ("_asked", Some(NONCE))] {
        messages.push((special, Message::StartView(start_view(nonce))));
    }
    messages.push(("", Message::GetView(GetView { view: View(5), nonce: NONCE })));
    messages.push(("", Message::Ping(ping())));
    messages.push(("", Message::Pong(ping())));
    let handoff = Handoff { view: View(5), op_number: OpNumber(20), checksum: CHECKSUM };
    messages.push(("", Message::Handoff(handoff)));
    messages
}

fn transfer_messages() -> Vec<(&'static str, Message)> {
    let request = RequestId(400);
    let get_headers = GetHeaders {
        request,
        from: OpNumber(18),
        through: OpNumber(20),
        checksum: headers()[2].checksum,
    };
    let get_entries = |wanted| GetEntries { request, wanted, bytes_max: 1 << 20 };
    let exact = headers().iter().map(|header| (header.op_number, header.checksum)).collect();
    let get_snapshot =
        |part, compressed| GetSnapshot { request, checkpoint: checkpoint(), part, compressed };
    let snapshot = |content| Snapshot { request, checkpoint: checkpoint(), content };
    let chunk = SnapshotContent::Chunk { index: 3, bytes: Bytes::from_static(b"state") };
    // Five literals, and no match.
    let compressed =
        SnapshotContent::Compressed { index: 3, block: Bytes::from_static(b"\x50state") };
    let chunks = vec![Checksum(0xc1), Checksum(0xc2)];
    let manifest = SnapshotContent::Manifest { bytes: 300_000, from: 0, chunks };
    let read_index_ok =
        ReadIndexOk { request, op_number: OpNumber(16), time: 1_700_000_000_000_000_016 };
    vec![
        ("", Message::GetHeaders(get_headers)),
        ("", Message::Headers(Headers { request, headers: headers() })),
        ("", Message::GetEntries(get_entries(Wanted::Exact(exact)))),
        ("_from", Message::GetEntries(get_entries(Wanted::From(OpNumber(18))))),
        ("", Message::Entries(Entries { request, entries: entries() })),
        ("", Message::Released(Released { request, checkpoint: checkpoint() })),
        ("", Message::GetSnapshot(get_snapshot(SnapshotPart::Chunk(3), false))),
        ("_compressed", Message::GetSnapshot(get_snapshot(SnapshotPart::Chunk(3), true))),
        ("_manifest", Message::GetSnapshot(get_snapshot(SnapshotPart::Manifest(8192), false))),
        ("", Message::Snapshot(snapshot(chunk))),
        ("_compressed", Message::Snapshot(snapshot(compressed))),
        ("_manifest", Message::Snapshot(snapshot(manifest))),
        ("_gone", Message::Snapshot(snapshot(SnapshotContent::Gone))),
        ("", Message::ReadIndex(ReadIndex { request })),
        ("", Message::ReadIndexOk(read_index_ok)),
    ]
}

fn inheritance() -> Inheritance {
    Inheritance {
        means: Means::Forced,
        epoch: Epoch(2),
        op_number: OpNumber(41),
        checksum: Checksum(0xc41),
    }
}

fn genesis_messages() -> Vec<(&'static str, Message)> {
    let disks = vec![(ReplicaId(0), DiskId(0xd0)), (ReplicaId(2), DiskId(0xd2))];
    let certificate =
        Certificate { group_name: "default".into(), disks: disks.clone(), inherited: Vec::new() };
    let heir = Certificate { inherited: vec![inheritance()], ..certificate.clone() };
    let hello_ok = |nonce, certificate, durability| HelloOk {
        nonce,
        disk: DiskId(0xd2),
        certificate,
        durability,
    };
    vec![
        ("", Message::Hello(Hello { nonce: NONCE, durability: Durability::Full })),
        ("", Message::HelloOk(hello_ok(Some(NONCE), Some(certificate), Durability::Full))),
        ("_inherited", Message::HelloOk(hello_ok(Some(NONCE), Some(heir), Durability::Full))),
        ("_blank", Message::HelloOk(hello_ok(None, None, Durability::ViewOnly))),
        ("", Message::Found(Found { nonce: NONCE, disks })),
        ("", Message::FoundOk(FoundOk { nonce: NONCE })),
    ]
}

fn recovery_messages() -> Vec<(&'static str, Message)> {
    let recovery = |primary_restarted| Recovery {
        nonce: NONCE,
        view: View(5),
        log_view: View(4),
        primary_restarted,
    };
    let response = |start| RecoveryResponse { nonce: NONCE, start };
    vec![
        ("", Message::Recovery(recovery(false))),
        ("_primary_restarted", Message::Recovery(recovery(true))),
        ("", Message::RecoveryResponse(response(None))),
        ("_of_primary", Message::RecoveryResponse(response(Some(start_view(None))))),
        ("", Message::GetCrashVector(GetCrashVector { nonce: NONCE })),
        ("", Message::CrashVectorIs(CrashVectorIs { nonce: NONCE })),
    ]
}
