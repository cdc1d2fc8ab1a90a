//! From an envelope to a frame and back; total in both directions.

use bytes::{BufMut, Bytes};

use crate::model::{
    certificate::{CertificateHash, CrashVector},
    encoding::{
        CodecError, WIRE_VERSION, WIRE_VERSION_BATCHES, WIRE_VERSION_COMPRESSION,
        WIRE_VERSION_LEASES, WIRE_VERSION_MIN, batches, cold,
        fields::Fields,
        frame::{FRAME_HEADER_BYTES, FrameHeader, FrameParts, FrameWriter},
        hot,
    },
    kind::Kind,
    message::{Envelope, Message, Sender},
    read::Read,
    snapshot::{Snapshot, SnapshotContent},
    types::{ClientId, Epoch, GroupId, Incarnation, ReplicaId, View},
};

/// Bytes of one member in a crash vector.
const CRASH_BYTES: usize = 16;

/// Appends the frame of `envelope` to `into`; several, if it is a batch and the other end speaks a
/// version without them.
///
/// Payloads of entries and of requests are shared when they are large, copied when they are small.
///
/// # Errors
/// [`CodecError::Long`] when the frame would exceed the limit of `into`, [`CodecError::Short`] when
/// an entry's payload is not as long as its header says; `into` is then as it was before.
pub fn encode(envelope: &Envelope, into: &mut FrameParts) -> Result<(), CodecError> {
    if into.version() < WIRE_VERSION_BATCHES
        && let Some(messages) = batches::one_by_one(&envelope.message)
    {
        let before = into.mark();
        for message in &messages {
            encode_as(envelope, message, into).inspect_err(|_| into.back_to(before))?;
        }
        return Ok(());
    }
    encode_as(envelope, &envelope.message, into)
}

/// Appends the frame of `message`, from the sender of `envelope`.
fn encode_as(
    envelope: &Envelope,
    message: &Message,
    into: &mut FrameParts,
) -> Result<(), CodecError> {
    let mut frame = into.begin();
    put_prefix(&mut frame, envelope)?;
    put_message(&mut frame, message)?;
    frame.finish(message.kind().number(), message.lane())
}

/// The envelope in `frame`, which is one whole frame: header and body.
///
/// Operations, replies and payloads of entries share the memory of `frame`. The checksums of
/// the header, of the guarded part, of each operation of a batch, and of each entry's header and
/// payload have been compared.
///
/// # Errors
/// [`CodecError`] says what is wrong with the bytes; every byte string gives an envelope or an
/// error, and takes memory in proportion to its length.
pub fn decode(frame: &Bytes) -> Result<Envelope, CodecError> {
    let header = FrameHeader::decode(frame)?;
    decode_body(&header, &frame.slice(FRAME_HEADER_BYTES..))
}

/// As [`decode`], for a header that was decoded before its body arrived.
///
/// # Errors
/// As [`decode`].
pub fn decode_body(header: &FrameHeader, body: &Bytes) -> Result<Envelope, CodecError> {
    if !(WIRE_VERSION_MIN..=WIRE_VERSION).contains(&header.version) {
        return Fields::invalid("wire version", header.version);
    }
    let Some(kind) = Kind::from_number(header.kind) else {
        return Fields::invalid("message kind", header.kind);
    };
    header.check(body)?;
    let mut fields = Fields::new("message", body);
    let group = GroupId(fields.u128()?);
    let certificate = CertificateHash(fields.u128()?);
    let sender = fields.u128()?;
    let epoch = Epoch(fields.u64()?);
    let incarnation = Incarnation(fields.u64()?);
    let view = View(fields.u64()?);
    let sender = take_sender(&mut fields, sender)?;
    let crash_vector = take_crash_vector(&mut fields)?;
    let guarded = guarded_bytes(kind, header.version, body, fields.len());
    if usize::try_from(header.guarded_length) != Ok(guarded) {
        return Fields::invalid("guarded length", header.guarded_length);
    }
    let message = take_message(kind, &mut fields, body, header.version)?;
    fields.finish()?;
    if header.version < version_with(&message) {
        return Fields::invalid("wire version, which is too old for kind", header.kind);
    }
    if header.lane != message.lane() {
        return Fields::invalid("lane, which does not fit kind", header.kind);
    }
    Ok(Envelope { group, certificate, epoch, sender, incarnation, view, crash_vector, message })
}

/// The first version that can say this.
fn version_with(message: &Message) -> u16 {
    let compressed = |m: &Snapshot| matches!(m.content, SnapshotContent::Compressed { .. });
    if matches!(message, Message::Requests(_) | Message::Replies(_)) {
        WIRE_VERSION_BATCHES
    } else if matches!(message, Message::Snapshot(m) if compressed(m)) {
        WIRE_VERSION_COMPRESSION
    } else if matches!(message, Message::PrepareOk(m) if !m.lease.is_zero())
        || matches!(message, Message::Query(m) if m.read == Read::Lease)
    {
        WIRE_VERSION_LEASES
    } else {
        WIRE_VERSION_MIN
    }
}

/// How much of a body must be guarded, of which `left` bytes are the message's: all of it, but for
/// entries and for operations of batches, which guard themselves.
fn guarded_bytes(kind: Kind, version: u16, body: &[u8], left: usize) -> usize {
    let envelope = body.len() - left;
    let fixed = match kind {
        Kind::Prepare => hot::PREPARE_FIXED_BYTES,
        Kind::Entries => hot::ENTRIES_FIXED_BYTES,
        Kind::Requests => {
            let message = body.get(envelope..).unwrap_or_default();
            batches::guarded_requests_bytes(message, version)
        }
        Kind::Register
        | Kind::Request
        | Kind::Reply
        | Kind::Replies
        | Kind::Rejected
        | Kind::Query
        | Kind::Answer
        | Kind::Forward
        | Kind::ForwardReply
        | Kind::PrepareOk
        | Kind::Commit
        | Kind::StartViewChange
        | Kind::DoViewChange
        | Kind::StartView
        | Kind::GetView
        | Kind::Ping
        | Kind::Pong
        | Kind::Handoff
        | Kind::GetHeaders
        | Kind::Headers
        | Kind::GetEntries
        | Kind::Released
        | Kind::GetSnapshot
        | Kind::Snapshot
        | Kind::ReadIndex
        | Kind::ReadIndexOk
        | Kind::Hello
        | Kind::HelloOk
        | Kind::Found
        | Kind::FoundOk
        | Kind::Recovery
        | Kind::RecoveryResponse
        | Kind::GetCrashVector
        | Kind::CrashVectorIs => left,
    };
    envelope.saturating_add(fixed)
}

fn put_prefix(frame: &mut FrameWriter<'_>, envelope: &Envelope) -> Result<(), CodecError> {
    let (kind, sender) = match envelope.sender {
        Sender::Replica(id) => (0, u128::from(id.0)),
        Sender::Client(id) => (1, id.0),
    };
    let members = envelope.crash_vector.len();
    let count = u16::try_from(members).map_err(|_| CodecError::Long {
        what: "crash vector",
        bytes: members.saturating_mul(CRASH_BYTES),
        bytes_max: u32::from(u16::MAX) * 16,
    })?;
    let fields = frame.fields();
    fields.put_u128_le(envelope.group.0);
    fields.put_u128_le(envelope.certificate.0);
    fields.put_u128_le(sender);
    fields.put_u64_le(envelope.epoch.0);
    fields.put_u64_le(envelope.incarnation.0);
    fields.put_u64_le(envelope.view.0);
    fields.put_u8(kind);
    fields.put_u8(0);
    fields.put_u16_le(count);
    for (replica, incarnation) in envelope.crash_vector.iter() {
        fields.put_u64_le(replica.0);
        fields.put_u64_le(incarnation.0);
    }
    Ok(())
}

/// The sender's kind, behind which a byte is reserved.
fn take_sender(fields: &mut Fields<'_>, id: u128) -> Result<Sender, CodecError> {
    match fields.array()? {
        [0, 0] => match u64::try_from(id) {
            Ok(id) => Ok(Sender::Replica(ReplicaId(id))),
            Err(_) => Fields::invalid("replica id above", u64::MAX),
        },
        [1, 0] => Ok(Sender::Client(ClientId(id))),
        [kind, 0] => Fields::invalid("kind of sender", kind),
        [_, reserved] => Fields::invalid("reserved byte", reserved),
    }
}

/// Members in ascending order, none of them at incarnation 0: one value has one form.
fn take_crash_vector(fields: &mut Fields<'_>) -> Result<CrashVector, CodecError> {
    let count = fields.u16()?;
    let mut crash_vector = CrashVector::default();
    let mut above = None;
    for _ in 0..fields.count(u32::from(count), CRASH_BYTES)? {
        let replica = ReplicaId(fields.u64()?);
        let incarnation = Incarnation(fields.u64()?);
        if above >= Some(replica) || !crash_vector.learn(replica, incarnation) {
            return Fields::invalid("member of a crash vector", replica.0);
        }
        above = Some(replica);
    }
    Ok(crash_vector)
}

fn put_message(frame: &mut FrameWriter<'_>, message: &Message) -> Result<(), CodecError> {
    match message {
        Message::Register(body) => hot::put_register(frame, body),
        Message::Request(body) => hot::put_request(frame, body),
        Message::Reply(body) => hot::put_reply(frame, body),
        Message::Requests(body) => batches::put_requests(frame, body)?,
        Message::Replies(body) => batches::put_replies(frame, body)?,
        Message::Rejected(body) => hot::put_rejected(frame, body),
        Message::Query(body) => hot::put_query(frame, body),
        Message::Answer(body) => hot::put_answer(frame, body),
        Message::Forward(body) => hot::put_forward(frame, body),
        Message::ForwardReply(body) => hot::put_forward_reply(frame, body),
        Message::Prepare(body) => hot::put_prepare(frame, body)?,
        Message::PrepareOk(body) => hot::put_prepare_ok(frame, body),
        Message::Commit(body) => hot::put_commit(frame, body),
        Message::Entries(body) => hot::put_answered_entries(frame, body)?,
        Message::StartViewChange(body) => cold::put(frame, "StartViewChange", body)?,
        Message::DoViewChange(body) => cold::put(frame, "DoViewChange", body)?,
        Message::StartView(body) => cold::put(frame, "StartView", body)?,
        Message::GetView(body) => cold::put(frame, "GetView", body)?,
        Message::Ping(body) => cold::put(frame, "Ping", body)?,
        Message::Pong(body) => cold::put(frame, "Pong", body)?,
        Message::Handoff(body) => cold::put(frame, "Handoff", body)?,
        Message::GetHeaders(body) => cold::put(frame, "GetHeaders", body)?,
        Message::Headers(body) => cold::put(frame, "Headers", body)?,
        Message::GetEntries(body) => cold::put(frame, "GetEntries", body)?,
        Message::Released(body) => cold::put(frame, "Released", body)?,
        Message::GetSnapshot(body) => cold::put_get_snapshot(frame, body)?,
        Message::Snapshot(body) => cold::put_snapshot(frame, body)?,
        Message::ReadIndex(body) => cold::put(frame, "ReadIndex", body)?,
        Message::ReadIndexOk(body) => cold::put(frame, "ReadIndexOk", body)?,
        Message::Hello(body) => cold::put(frame, "Hello", body)?,
        Message::HelloOk(body) => cold::put(frame, "HelloOk", body)?,
        Message::Found(body) => cold::put(frame, "Found", body)?,
        Message::FoundOk(body) => cold::put(frame, "FoundOk", body)?,
        Message::Recovery(body) => cold::put(frame, "Recovery", body)?,
        Message::RecoveryResponse(body) => cold::put(frame, "RecoveryResponse", body)?,
        Message::GetCrashVector(body) => cold::put(frame, "GetCrashVector", body)?,
        Message::CrashVectorIs(body) => cold::put(frame, "CrashVectorIs", body)?,
    }
    Ok(())
}

fn take_message(
    kind: Kind,
    fields: &mut Fields<'_>,
    source: &Bytes,
    version: u16,
) -> Result<Message, CodecError> {
    Ok(match kind {
        Kind::Register => Message::Register(hot::take_register(fields)?),
        Kind::Request => Message::Request(hot::take_request(fields, source)?),
        Kind::Reply => Message::Reply(hot::take_reply(fields, source)?),
        Kind::Requests => Message::Requests(batches::take_requests(fields, source, version)?),
        Kind::Replies => Message::Replies(batches::take_replies(fields, source)?),
        Kind::Rejected => Message::Rejected(hot::take_rejected(fields)?),
        Kind::Query => Message::Query(hot::take_query(fields, source)?),
        Kind::Answer => Message::Answer(hot::take_answer(fields, source)?),
        Kind::Forward => Message::Forward(hot::take_forward(fields, source)?),
        Kind::ForwardReply => Message::ForwardReply(hot::take_forward_reply(fields, source)?),
        Kind::Prepare => Message::Prepare(hot::take_prepare(fields, source, version)?),
        Kind::PrepareOk => Message::PrepareOk(hot::take_prepare_ok(fields)?),
        Kind::Commit => Message::Commit(hot::take_commit(fields)?),
        Kind::Entries => Message::Entries(hot::take_answered_entries(fields, source, version)?),
        Kind::StartViewChange => Message::StartViewChange(cold::take(fields, "StartViewChange")?),
        Kind::DoViewChange => Message::DoViewChange(cold::take(fields, "DoViewChange")?),
        Kind::StartView => Message::StartView(cold::take(fields, "StartView")?),
        Kind::GetView => Message::GetView(cold::take(fields, "GetView")?),
        Kind::Ping => Message::Ping(cold::take(fields, "Ping")?),
        Kind::Pong => Message::Pong(cold::take(fields, "Pong")?),
        Kind::Handoff => Message::Handoff(cold::take(fields, "Handoff")?),
        Kind::GetHeaders => Message::GetHeaders(cold::take(fields, "GetHeaders")?),
        Kind::Headers => Message::Headers(cold::take(fields, "Headers")?),
        Kind::GetEntries => Message::GetEntries(cold::take(fields, "GetEntries")?),
        Kind::Released => Message::Released(cold::take(fields, "Released")?),
        Kind::GetSnapshot => Message::GetSnapshot(cold::take_get_snapshot(fields, version)?),
        Kind::Snapshot => Message::Snapshot(cold::take(fields, "Snapshot")?),
        Kind::ReadIndex => Message::ReadIndex(cold::take(fields, "ReadIndex")?),
        Kind::ReadIndexOk => Message::ReadIndexOk(cold::take(fields, "ReadIndexOk")?),
        Kind::Hello => Message::Hello(cold::take(fields, "Hello")?),
        Kind::HelloOk => Message::HelloOk(cold::take(fields, "HelloOk")?),
        Kind::Found => Message::Found(cold::take(fields, "Found")?),
        Kind::FoundOk => Message::FoundOk(cold::take(fields, "FoundOk")?),
        Kind::Recovery => Message::Recovery(cold::take(fields, "Recovery")?),
        Kind::RecoveryResponse => {
            Message::RecoveryResponse(cold::take(fields, "RecoveryResponse")?)
        }
        Kind::GetCrashVector => Message::GetCrashVector(cold::take(fields, "GetCrashVector")?),
        Kind::CrashVectorIs => Message::CrashVectorIs(cold::take(fields, "CrashVectorIs")?),
    })
}
