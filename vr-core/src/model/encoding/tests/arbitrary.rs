//! Arbitrary envelopes of every kind.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, strategy::Union};

use crate::model::{
    certificate::{Certificate, CertificateHash, CrashVector, Inheritance, Means},
    durable::{CheckpointId, Durability, Trust},
    entries::{Entries, GetEntries, GetHeaders, Headers, Wanted},
    entry::{Entry, EntryHeader, EntryKind},
    founding::{Found, FoundOk, Hello, HelloOk},
    message::{
        Answer, Commit, Committed, CrashVectorIs, DoViewChange, Envelope, Forward, ForwardReply,
        GetCrashVector, GetView, Handoff, Limit, Message, Outcome, Ping, Prepare, PrepareOk, Query,
        ReadIndex, ReadIndexOk, Recovery, RecoveryResponse, Register, Rejected, Rejection, Replied,
        Replies, Reply, Request, Requests, Sender, Standing, StartView, StartViewChange,
        StatusKind, Suspicion,
    },
    operation::Operation,
    read::{CausalToken, Read},
    snapshot::{GetSnapshot, Released, Snapshot, SnapshotContent, SnapshotPart},
    types::{
        Checksum, ClientId, DiskId, Epoch, GroupId, HeartbeatNumber, Incarnation, Nonce, OpNumber,
        ReplicaId, ReplicaSet, RequestId, RequestNumber, View,
    },
};

fn payload() -> impl Strategy<Value = Bytes> {
    let long = (1000_usize..3000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]);
    prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => long].prop_map(Bytes::from)
}

fn numbers() -> impl Strategy<Value = [u64; 6]> {
    any::<[u64; 6]>()
}

fn header() -> impl Strategy<Value = EntryHeader> {
    let kinds = [EntryKind::Noop, EntryKind::Request, EntryKind::Register, EntryKind::Many];
    let kind = prop::sample::select(kinds.to_vec());
    (numbers(), any::<[u128; 2]>(), any::<u64>(), kind).prop_map(|(n, id, time, kind)| {
        EntryHeader {
            parent: Checksum(id[0]),
            client: ClientId(id[1]),
            view: View(n[0]),
            op_number: OpNumber(n[1]),
            session: OpNumber(n[2]),
            request_number: RequestNumber(n[3]),
            group: n[4],
            epoch: Epoch(n[5]),
            time,
            kind,
            ..EntryHeader::default()
        }
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    (header(), payload()).prop_map(|(header, payload)| Entry::new(header, payload))
}

/// Entries of which most go on from the one before, as they do in a message.
fn chain() -> impl Strategy<Value = Vec<Entry>> {
    let step = (any::<[u8; 3]>(), 0_u64..1 << 34, payload());
    (entry(), vec(step, 0..6)).prop_map(|(first, steps)| {
        let mut entries = vec![first];
        for ([session, kind, odd], later, payload) in steps {
            let before = entries.last().map(|entry| entry.header).unwrap_or_default();
            let mut header = EntryHeader {
                parent: before.checksum,
                op_number: before.op_number.next(),
                time: before.time.wrapping_add(later),
                request_number: before.request_number.next(),
                ..before
            };
            match session {
                0..32 => header.client = ClientId(session.into()),
                32..64 => header.session = OpNumber(session.into()),
                64..96 => header.request_number = RequestNumber(session.into()),
                _ => {}
            }
            header.kind = match kind {
                0..24 => EntryKind::Noop,
                24..48 => EntryKind::Register,
                other => EntryKind::of_request(other % 2 == 0),
            };
            match odd {
                0..16 => header.view = View(header.view.0 ^ 1),
                16..32 => header.parent = Checksum(odd.into()),
                32..48 => header.op_number = OpNumber(odd.into()),
                48..64 => header.epoch = Epoch(odd.into()),
                64..80 => header.group = odd.into(),
                _ => {}
            }
            entries.push(Entry::new(header, payload));
        }
        entries
    })
}

pub(super) fn entries() -> impl Strategy<Value = Vec<Entry>> {
    prop_oneof![vec(entry(), 0..5), chain()]
}

fn sealed_headers() -> impl Strategy<Value = Vec<EntryHeader>> {
    vec(header().prop_map(EntryHeader::sealed), 0..4)
}

fn standing() -> impl Strategy<Value = Standing> {
    let statuses =
        [StatusKind::Blank, StatusKind::Normal, StatusKind::ViewChange, StatusKind::Recovering];
    let status = prop::sample::select(statuses.to_vec());
    (any::<[u64; 3]>(), status).prop_map(|([log_view, op_number, heard], status)| Standing {
        log_view: View(log_view),
        op_number: OpNumber(op_number),
        status,
        heard: ReplicaSet::from_bits(heard),
    })
}

fn checkpoint() -> impl Strategy<Value = CheckpointId> {
    any::<(u64, u128, u128)>().prop_map(|(op_number, checksum, digest)| CheckpointId {
        op_number: OpNumber(op_number),
        checksum: Checksum(checksum),
        digest: Checksum(digest),
    })
}

fn committed() -> impl Strategy<Value = Committed> {
    any::<(u64, u128)>().prop_map(|(op_number, checksum)| Committed {
        op_number: OpNumber(op_number),
        checksum: Checksum(checksum),
    })
}

fn register() -> impl Strategy<Value = Register> {
    any::<(u128, u128)>()
        .prop_map(|(client, nonce)| Register { client: ClientId(client), nonce: Nonce(nonce) })
}

fn request() -> impl Strategy<Value = Request> {
    (any::<(u128, u64, u64)>(), payload()).prop_map(|((client, session, number), operation)| {
        Request {
            client: ClientId(client),
            session: OpNumber(session),
            request_number: RequestNumber(number),
            many: number % 2 == 1,
            operation,
        }
    })
}

/// The same operations under consecutive numbers of the first one's session.
fn requests(each: Vec<Request>) -> Requests {
    let Request { client, session, request_number: first, .. } = each[0];
    let operation = |Request { many, operation: bytes, .. }| Operation { many, bytes }.into();
    Requests { client, session, first, operations: each.into_iter().map(operation).collect() }
}

/// The same replies to one client.
fn replies(each: Vec<Reply>) -> Replies {
    let client = each[0].client;
    Replies { client, replies: each.into_iter().map(Replied::from).collect() }
}

fn reply() -> impl Strategy<Value = Reply> {
    let outcome = prop_oneof![
        payload().prop_map(Outcome::Executed),
        Just(Outcome::Malformed),
        Just(Outcome::Registered),
        Just(Outcome::Evicted),
        Just(Outcome::Forgotten),
    ];
    (any::<(u128, u64, u64)>(), outcome).prop_map(|((client, number, op_number), outcome)| Reply {
        client: ClientId(client),
        request_number: RequestNumber(number),
        op_number: OpNumber(op_number),
        outcome,
    })
}

fn rejected() -> impl Strategy<Value = Rejected> {
    let limits = [
        Limit::Pipeline,
        Limit::Log,
        Limit::Clients,
        Limit::Window,
        Limit::Forward,
        Limit::Reads,
        Limit::NoQuorum,
    ];
    let reason = prop_oneof![
        prop::sample::select(limits.to_vec()).prop_map(Rejection::Busy),
        Just(Rejection::Evicted),
        any::<(u32, u32)>().prop_map(|(bytes, bytes_max)| Rejection::TooLarge { bytes, bytes_max }),
    ];
    (any::<(u128, u64)>(), reason).prop_map(|((client, number), reason)| Rejected {
        client: ClientId(client),
        request_number: RequestNumber(number),
        reason,
    })
}

fn disks() -> impl Strategy<Value = Vec<(ReplicaId, DiskId)>> {
    vec(any::<(u64, u128)>().prop_map(|(id, disk)| (ReplicaId(id), DiskId(disk))), 0..5)
}

fn client_message() -> impl Strategy<Value = Message> {
    let token = CausalToken { epoch: Epoch(3), op_number: OpNumber(1 << 40) };
    let read = prop::sample::select(vec![
        Read::Linearizable,
        Read::Local,
        Read::Causal(token),
        Read::Lease,
    ]);
    prop_oneof![
        register().prop_map(Message::Register),
        request().prop_map(Message::Request),
        reply().prop_map(Message::Reply),
        vec(request(), 1..5).prop_map(|each| Message::Requests(requests(each))),
        vec(reply(), 1..5).prop_map(|each| Message::Replies(replies(each))),
        rejected().prop_map(Message::Rejected),
        request().prop_map(|request| Message::Forward(Forward::Request(request))),
        register().prop_map(|register| Message::Forward(Forward::Register(register))),
        reply().prop_map(|reply| Message::ForwardReply(ForwardReply::Reply(reply))),
        rejected().prop_map(|rejected| Message::ForwardReply(ForwardReply::Rejected(rejected))),
        (any::<(u128, u64)>(), read, payload()).prop_map(|((client, number), read, query)| {
            let (client, request_number) = (ClientId(client), RequestNumber(number));
            Message::Query(Query { client, request_number, read, query })
        }),
        (any::<(u128, u64, u64)>(), option::of(payload())).prop_map(
            |((client, number, op_number), answer)| Message::Answer(Answer {
                client: ClientId(client),
                request_number: RequestNumber(number),
                op_number: OpNumber(op_number),
                answer,
            })
        ),
    ]
}

fn normal_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (entries(), committed(), any::<u64>()).prop_map(|(entries, commit, number)| {
            let heartbeat = HeartbeatNumber(number);
            Message::Prepare(Prepare { entries: entries.into(), commit, heartbeat })
        }),
        (
            committed(),
            any::<u64>(),
            any::<u64>(),
            checkpoint(),
            option::of((standing(), any::<u32>()))
        )
            .prop_map(|(acknowledged, heartbeat, applied, checkpoint, answer)| {
                let lease = answer.map_or(0, |(_, lease)| lease);
                Message::PrepareOk(PrepareOk {
                    op_number: acknowledged.op_number,
                    checksum: acknowledged.checksum,
                    heartbeat: HeartbeatNumber(heartbeat),
                    applied: OpNumber(applied),
                    checkpoint,
                    standing: answer.map(|(standing, _)| standing),
                    lease: core::time::Duration::from_micros(lease.into()),
                })
            }),
        (committed(), any::<u64>(), checkpoint(), standing()).prop_map(
            |(commit, heartbeat, agreed, standing)| {
                let heartbeat = HeartbeatNumber(heartbeat);
                Message::Commit(Commit { commit, heartbeat, agreed, standing })
            }
        ),
    ]
}

fn view_message() -> impl Strategy<Value = Message> {
    let reasons = [
        Suspicion::PrimarySilent,
        Suspicion::PrimaryLost,
        Suspicion::CheckQuorum,
        Suspicion::ViewChangeStuck,
        Suspicion::Behind,
        Suspicion::PrimaryRestarted,
        Suspicion::Recovering,
    ];
    let reason = prop::sample::select(reasons.to_vec());
    prop_oneof![
        (any::<u64>(), reason, standing()).prop_map(|(view, reason, standing)| {
            Message::StartViewChange(StartViewChange { view: View(view), reason, standing })
        }),
        (numbers(), any::<(u128, bool, bool)>(), checkpoint(), sealed_headers()).prop_map(
            |(n, (head, lost, unbroken), checkpoint, suffix)| Message::DoViewChange(DoViewChange {
                view: View(n[0]),
                log_view: View(n[1]),
                op_number: OpNumber(n[2]),
                head: Checksum(head),
                commit_number: OpNumber(n[3]),
                checkpoint,
                suffix,
                trust: if lost { Trust::Lost } else { Trust::Intact },
                unbroken,
            })
        ),
        (numbers(), any::<(u128, Option<u128>)>(), checkpoint(), sealed_headers()).prop_map(
            |(n, (head, nonce), checkpoint, suffix)| Message::StartView(StartView {
                view: View(n[0]),
                op_number: OpNumber(n[1]),
                head: Checksum(head),
                commit_number: OpNumber(n[2]),
                checkpoint,
                suffix,
                nonce: nonce.map(Nonce),
            })
        ),
        any::<(u64, u128)>().prop_map(|(view, nonce)| {
            Message::GetView(GetView { view: View(view), nonce: Nonce(nonce) })
        }),
        (standing(), any::<u64>())
            .prop_map(|(standing, sent_at)| Message::Ping(Ping { standing, sent_at })),
        (standing(), any::<u64>())
            .prop_map(|(standing, sent_at)| Message::Pong(Ping { standing, sent_at })),
        any::<(u64, u64, u128)>().prop_map(|(view, op_number, checksum)| {
            Message::Handoff(Handoff {
                view: View(view),
                op_number: OpNumber(op_number),
                checksum: Checksum(checksum),
            })
        }),
    ]
}

fn snapshot_content() -> impl Strategy<Value = SnapshotContent> {
    prop_oneof![
        Just(SnapshotContent::Gone),
        (any::<(u64, u32)>(), vec(any::<u128>().prop_map(Checksum), 0..5))
            .prop_map(|((bytes, from), chunks)| SnapshotContent::Manifest { bytes, from, chunks }),
        (any::<u32>(), payload())
            .prop_map(|(index, bytes)| SnapshotContent::Chunk { index, bytes }),
        (any::<u32>(), payload())
            .prop_map(|(index, block)| SnapshotContent::Compressed { index, block }),
    ]
}

fn transfer_message() -> impl Strategy<Value = Message> {
    let exact = vec(any::<(u64, u128)>().prop_map(|(n, c)| (OpNumber(n), Checksum(c))), 0..5);
    let wanted = prop_oneof![
        exact.prop_map(Wanted::Exact),
        any::<u64>().prop_map(|from| Wanted::From(OpNumber(from))),
    ];
    prop_oneof![
        any::<(u64, u64, u64, u128)>().prop_map(|(request, from, through, checksum)| {
            Message::GetHeaders(GetHeaders {
                request: RequestId(request),
                from: OpNumber(from),
                through: OpNumber(through),
                checksum: Checksum(checksum),
            })
        }),
        (any::<u64>(), sealed_headers()).prop_map(|(request, headers)| {
            Message::Headers(Headers { request: RequestId(request), headers })
        }),
        (any::<(u64, u32)>(), wanted).prop_map(|((request, bytes_max), wanted)| {
            Message::GetEntries(GetEntries { request: RequestId(request), wanted, bytes_max })
        }),
        (any::<u64>(), checkpoint()).prop_map(|(request, checkpoint)| {
            Message::Released(Released { request: RequestId(request), checkpoint })
        }),
        (any::<(u64, bool, u32, bool)>(), checkpoint()).prop_map(
            |((request, chunk, at, compressed), checkpoint)| {
                let request = RequestId(request);
                let part = if chunk { SnapshotPart::Chunk(at) } else { SnapshotPart::Manifest(at) };
                Message::GetSnapshot(GetSnapshot { request, checkpoint, part, compressed })
            }
        ),
        (any::<u64>(), checkpoint(), snapshot_content()).prop_map(
            |(request, checkpoint, content)| {
                let request = RequestId(request);
                Message::Snapshot(Snapshot { request, checkpoint, content })
            }
        ),
        (any::<u64>(), entries()).prop_map(|(request, entries)| {
            Message::Entries(Entries { request: RequestId(request), entries })
        }),
        any::<u64>()
            .prop_map(|request| Message::ReadIndex(ReadIndex { request: RequestId(request) })),
        any::<[u64; 3]>().prop_map(|[request, op_number, time]| {
            let (request, op_number) = (RequestId(request), OpNumber(op_number));
            Message::ReadIndexOk(ReadIndexOk { request, op_number, time })
        }),
    ]
}

fn mode() -> impl Strategy<Value = Durability> {
    prop::sample::select(Durability::ALL.to_vec())
}

fn inheritance() -> impl Strategy<Value = Inheritance> {
    let means = prop::sample::select(vec![Means::Restored, Means::Forced]);
    (means, any::<u64>(), any::<u64>(), any::<u128>()).prop_map(
        |(means, epoch, op_number, checksum)| Inheritance {
            means,
            epoch: Epoch(epoch),
            op_number: OpNumber(op_number),
            checksum: Checksum(checksum),
        },
    )
}

fn genesis_message() -> impl Strategy<Value = Message> {
    let certificate = ("[a-z]{0,9}", disks(), vec(inheritance(), 0..3))
        .prop_map(|(group_name, disks, inherited)| Certificate { group_name, disks, inherited });
    prop_oneof![
        (any::<u128>(), mode()).prop_map(|(nonce, durability)| {
            Message::Hello(Hello { nonce: Nonce(nonce), durability })
        }),
        (any::<(Option<u128>, u128)>(), option::of(certificate), mode()).prop_map(
            |((nonce, disk), certificate, durability)| {
                let (nonce, disk) = (nonce.map(Nonce), DiskId(disk));
                Message::HelloOk(HelloOk { nonce, disk, certificate, durability })
            }
        ),
        (any::<u128>(), disks())
            .prop_map(|(nonce, disks)| Message::Found(Found { nonce: Nonce(nonce), disks })),
        any::<u128>().prop_map(|nonce| Message::FoundOk(FoundOk { nonce: Nonce(nonce) })),
    ]
}

fn recovery_message() -> impl Strategy<Value = Message> {
    let start = (numbers(), any::<u128>(), checkpoint(), sealed_headers()).prop_map(
        |(n, head, checkpoint, suffix)| StartView {
            view: View(n[0]),
            op_number: OpNumber(n[1]),
            head: Checksum(head),
            commit_number: OpNumber(n[2]),
            checkpoint,
            suffix,
            nonce: None,
        },
    );
    prop_oneof![
        any::<(u128, u64, u64, bool)>().prop_map(|(nonce, view, log_view, primary_restarted)| {
            Message::Recovery(Recovery {
                nonce: Nonce(nonce),
                view: View(view),
                log_view: View(log_view),
                primary_restarted,
            })
        }),
        (any::<u128>(), option::of(start)).prop_map(|(nonce, start)| {
            Message::RecoveryResponse(RecoveryResponse { nonce: Nonce(nonce), start })
        }),
        any::<u128>()
            .prop_map(|nonce| Message::GetCrashVector(GetCrashVector { nonce: Nonce(nonce) })),
        any::<u128>()
            .prop_map(|nonce| Message::CrashVectorIs(CrashVectorIs { nonce: Nonce(nonce) })),
    ]
}

/// An envelope of any kind, with any content that its fields allow.
pub(super) fn any_envelope() -> impl Strategy<Value = Envelope> {
    let message = Union::new_weighted(vec![
        (10, client_message().boxed()),
        (4, normal_message().boxed()),
        (6, view_message().boxed()),
        (6, transfer_message().boxed()),
        (4, genesis_message().boxed()),
        (4, recovery_message().boxed()),
    ]);
    let sender = prop_oneof![
        any::<u64>().prop_map(|id| Sender::Replica(ReplicaId(id))),
        any::<u128>().prop_map(|id| Sender::Client(ClientId(id))),
    ];
    let crashes =
        prop_oneof![4 => vec(any::<(u64, u64)>(), 0..1), 1 => vec(any::<(u64, u64)>(), 1..70)];
    (any::<[u128; 2]>(), any::<[u64; 3]>(), sender, crashes, message).prop_map(
        |(ids, numbers, sender, crashes, message)| {
            let mut crash_vector = CrashVector::default();
            for (replica, incarnation) in crashes {
                crash_vector.learn(ReplicaId(replica), Incarnation(incarnation));
            }
            Envelope {
                group: GroupId(ids[0]),
                certificate: CertificateHash(ids[1]),
                epoch: Epoch(numbers[0]),
                sender,
                incarnation: Incarnation(numbers[1]),
                view: View(numbers[2]),
                crash_vector,
                message,
            }
        },
    )
}
