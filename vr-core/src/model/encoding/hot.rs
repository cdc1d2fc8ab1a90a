//! Bodies of the messages that carry the load: fixed little-endian fields, payloads as raw slices.

use core::time::Duration;

use bytes::{BufMut, Bytes};

use crate::model::{
    durable::CheckpointId,
    encoding::{
        CodecError, WIRE_VERSION_LEASES,
        entries::{put_entries, take_entries},
        fields::Fields,
        frame::FrameWriter,
    },
    entries::Entries,
    message::{
        Answer, Commit, Committed, Forward, ForwardReply, Limit, Outcome, Prepare, PrepareOk,
        Query, Register, Rejected, Rejection, Reply, Request, Standing, StatusKind,
    },
    read::{CausalToken, Read},
    types::{
        Checksum, ClientId, Epoch, HeartbeatNumber, Nonce, OpNumber, ReplicaSet, RequestId,
        RequestNumber, View,
    },
};

/// Bytes of a prepare's body in front of its entries.
pub(super) const PREPARE_FIXED_BYTES: usize = 36;

/// Bytes of the body of [`Entries`] in front of the entries.
pub(super) const ENTRIES_FIXED_BYTES: usize = 12;

type Taken<T> = Result<T, CodecError>;

pub(super) fn put_register(frame: &mut FrameWriter<'_>, body: &Register) {
    let fields = frame.fields();
    fields.put_u128_le(body.client.0);
    fields.put_u128_le(body.nonce.0);
}

pub(super) fn take_register(fields: &mut Fields<'_>) -> Taken<Register> {
    Ok(Register { client: ClientId(fields.u128()?), nonce: Nonce(fields.u128()?) })
}

pub(super) fn put_request(frame: &mut FrameWriter<'_>, body: &Request) {
    let fields = frame.fields();
    fields.put_u128_le(body.client.0);
    fields.put_u64_le(body.session.0);
    fields.put_u64_le(body.request_number.0);
    fields.put_u8(u8::from(body.many));
    frame.put_shared(&body.operation);
}

pub(super) fn take_request(fields: &mut Fields<'_>, source: &Bytes) -> Taken<Request> {
    Ok(Request {
        client: ClientId(fields.u128()?),
        session: OpNumber(fields.u64()?),
        request_number: RequestNumber(fields.u64()?),
        many: take_flag(fields, "many")?,
        operation: source.slice_ref(fields.take_rest()),
    })
}

pub(super) fn put_reply(frame: &mut FrameWriter<'_>, body: &Reply) {
    let fields = frame.fields();
    fields.put_u128_le(body.client.0);
    fields.put_u64_le(body.request_number.0);
    fields.put_u64_le(body.op_number.0);
    fields.put_u8(outcome_number(&body.outcome));
    if let Outcome::Executed(reply) = &body.outcome {
        frame.put_shared(reply);
    }
}

pub(super) const fn outcome_number(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Executed(_) => 0,
        Outcome::Malformed => 1,
        Outcome::Registered => 2,
        Outcome::Evicted => 3,
        Outcome::Forgotten => 4,
    }
}

/// What became of a request; `reply` takes the bytes of a reply.
pub(super) fn take_outcome<'a>(
    fields: &mut Fields<'a>,
    reply: impl FnOnce(&mut Fields<'a>) -> Taken<Bytes>,
) -> Taken<Outcome> {
    match fields.u8()? {
        0 => Ok(Outcome::Executed(reply(fields)?)),
        1 => Ok(Outcome::Malformed),
        2 => Ok(Outcome::Registered),
        3 => Ok(Outcome::Evicted),
        4 => Ok(Outcome::Forgotten),
        other => Fields::invalid("outcome", other),
    }
}

pub(super) fn take_reply(fields: &mut Fields<'_>, source: &Bytes) -> Taken<Reply> {
    Ok(Reply {
        client: ClientId(fields.u128()?),
        request_number: RequestNumber(fields.u64()?),
        op_number: OpNumber(fields.u64()?),
        outcome: take_outcome(fields, |fields| Ok(source.slice_ref(fields.take_rest())))?,
    })
}

pub(super) fn put_rejected(frame: &mut FrameWriter<'_>, body: &Rejected) {
    let fields = frame.fields();
    fields.put_u128_le(body.client.0);
    fields.put_u64_le(body.request_number.0);
    match body.reason {
        Rejection::Busy(limit) => {
            fields.put_u8(0);
            fields.put_u8(limit_number(limit));
        }
        Rejection::Evicted => fields.put_u8(1),
        Rejection::TooLarge { bytes, bytes_max } => {
            fields.put_u8(2);
            fields.put_u32_le(bytes);
            fields.put_u32_le(bytes_max);
        }
    }
}

pub(super) fn take_rejected(fields: &mut Fields<'_>) -> Taken<Rejected> {
    Ok(Rejected {
        client: ClientId(fields.u128()?),
        request_number: RequestNumber(fields.u64()?),
        reason: match fields.u8()? {
            0 => Rejection::Busy(limit_of(fields.u8()?)?),
            1 => Rejection::Evicted,
            2 => Rejection::TooLarge { bytes: fields.u32()?, bytes_max: fields.u32()? },
            other => return Fields::invalid("rejection", other),
        },
    })
}

const fn limit_number(limit: Limit) -> u8 {
    match limit {
        Limit::Pipeline => 0,
        Limit::Log => 1,
        Limit::Clients => 2,
        Limit::Window => 3,
        Limit::Forward => 4,
        Limit::Reads => 5,
        Limit::NoQuorum => 6,
    }
}

fn limit_of(number: u8) -> Taken<Limit> {
    match number {
        0 => Ok(Limit::Pipeline),
        1 => Ok(Limit::Log),
        2 => Ok(Limit::Clients),
        3 => Ok(Limit::Window),
        4 => Ok(Limit::Forward),
        5 => Ok(Limit::Reads),
        6 => Ok(Limit::NoQuorum),
        other => Fields::invalid("limit", other),
    }
}

pub(super) fn put_query(frame: &mut FrameWriter<'_>, body: &Query) {
    let leases = frame.version() >= WIRE_VERSION_LEASES;
    let fields = frame.fields();
    fields.put_u128_le(body.client.0);
    fields.put_u64_le(body.request_number.0);
    match body.read {
        Read::Linearizable => fields.put_u8(0),
        Read::Local => fields.put_u8(1),
        Read::Causal(token) => {
            fields.put_u8(2);
            fields.put_u64_le(token.epoch.0);
            fields.put_u64_le(token.op_number.0);
        }
        // The next best that is at least as fresh.
        Read::Lease if !leases => fields.put_u8(0),
        Read::Lease => fields.put_u8(3),
    }
    frame.put_shared(&body.query);
}

pub(super) fn take_query(fields: &mut Fields<'_>, source: &Bytes) -> Taken<Query> {
    Ok(Query {
        client: ClientId(fields.u128()?),
        request_number: RequestNumber(fields.u64()?),
        read: match fields.u8()? {
            0 => Read::Linearizable,
            1 => Read::Local,
            2 => Read::Causal(CausalToken {
                epoch: Epoch(fields.u64()?),
                op_number: OpNumber(fields.u64()?),
            }),
            3 => Read::Lease,
            other => return Fields::invalid("read", other),
        },
        query: source.slice_ref(fields.take_rest()),
    })
}

pub(super) fn put_answer(frame: &mut FrameWriter<'_>, body: &Answer) {
    let fields = frame.fields();
    fields.put_u128_le(body.client.0);
    fields.put_u64_le(body.request_number.0);
    fields.put_u64_le(body.op_number.0);
    fields.put_u8(u8::from(body.answer.is_some()));
    if let Some(answer) = &body.answer {
        frame.put_shared(answer);
    }
}

pub(super) fn take_answer(fields: &mut Fields<'_>, source: &Bytes) -> Taken<Answer> {
    Ok(Answer {
        client: ClientId(fields.u128()?),
        request_number: RequestNumber(fields.u64()?),
        op_number: OpNumber(fields.u64()?),
        answer: if take_flag(fields, "answer")? {
            Some(source.slice_ref(fields.take_rest()))
        } else {
            None
        },
    })
}

pub(super) fn put_forward(frame: &mut FrameWriter<'_>, body: &Forward) {
    match body {
        Forward::Request(request) => {
            frame.fields().put_u8(0);
            put_request(frame, request);
        }
        Forward::Register(register) => {
            frame.fields().put_u8(1);
            put_register(frame, register);
        }
    }
}

pub(super) fn take_forward(fields: &mut Fields<'_>, source: &Bytes) -> Taken<Forward> {
    match fields.u8()? {
        0 => Ok(Forward::Request(take_request(fields, source)?)),
        1 => Ok(Forward::Register(take_register(fields)?)),
        other => Fields::invalid("forward", other),
    }
}

pub(super) fn put_forward_reply(frame: &mut FrameWriter<'_>, body: &ForwardReply) {
    match body {
        ForwardReply::Reply(reply) => {
            frame.fields().put_u8(0);
            put_reply(frame, reply);
        }
        ForwardReply::Rejected(rejected) => {
            frame.fields().put_u8(1);
            put_rejected(frame, rejected);
        }
    }
}

pub(super) fn take_forward_reply(fields: &mut Fields<'_>, source: &Bytes) -> Taken<ForwardReply> {
    match fields.u8()? {
        0 => Ok(ForwardReply::Reply(take_reply(fields, source)?)),
        1 => Ok(ForwardReply::Rejected(take_rejected(fields)?)),
        other => Fields::invalid("forward reply", other),
    }
}

pub(super) fn put_prepare(frame: &mut FrameWriter<'_>, body: &Prepare) -> Taken<()> {
    put_committed(frame, &body.commit);
    frame.fields().put_u64_le(body.heartbeat.0);
    put_entries(frame, &body.entries)
}

pub(super) fn take_prepare(
    fields: &mut Fields<'_>,
    source: &Bytes,
    version: u16,
) -> Taken<Prepare> {
    Ok(Prepare {
        commit: take_committed(fields)?,
        heartbeat: HeartbeatNumber(fields.u64()?),
        entries: take_entries(fields, source, version)?.into(),
    })
}

pub(super) fn put_prepare_ok(frame: &mut FrameWriter<'_>, body: &PrepareOk) {
    let fields = frame.fields();
    fields.put_u64_le(body.op_number.0);
    fields.put_u128_le(body.checksum.0);
    fields.put_u64_le(body.heartbeat.0);
    fields.put_u64_le(body.applied.0);
    put_checkpoint(frame, &body.checkpoint);
    let lease = match frame.version() >= WIRE_VERSION_LEASES {
        true => u32::try_from(body.lease.as_micros()).unwrap_or(u32::MAX),
        false => 0,
    };
    match &body.standing {
        None => frame.fields().put_u8(0),
        Some(standing) if lease == 0 => {
            frame.fields().put_u8(1);
            put_standing(frame, standing);
        }
        Some(standing) => {
            frame.fields().put_u8(2);
            put_standing(frame, standing);
            frame.fields().put_u32_le(lease);
        }
    }
}

pub(super) fn take_prepare_ok(fields: &mut Fields<'_>) -> Taken<PrepareOk> {
    let mut m = PrepareOk {
        op_number: OpNumber(fields.u64()?),
        checksum: Checksum(fields.u128()?),
        heartbeat: HeartbeatNumber(fields.u64()?),
        applied: OpNumber(fields.u64()?),
        checkpoint: take_checkpoint(fields)?,
        standing: None,
        lease: Duration::ZERO,
    };
    match fields.u8()? {
        0 => {}
        1 => m.standing = Some(take_standing(fields)?),
        2 => {
            m.standing = Some(take_standing(fields)?);
            let lease = fields.u32()?;
            if lease == 0 {
                return Fields::invalid("lease", lease);
            }
            m.lease = Duration::from_micros(lease.into());
        }
        other => return Fields::invalid("standing", other),
    }
    Ok(m)
}

pub(super) fn put_commit(frame: &mut FrameWriter<'_>, body: &Commit) {
    put_committed(frame, &body.commit);
    frame.fields().put_u64_le(body.heartbeat.0);
    put_checkpoint(frame, &body.agreed);
    put_standing(frame, &body.standing);
}

pub(super) fn take_commit(fields: &mut Fields<'_>) -> Taken<Commit> {
    Ok(Commit {
        commit: take_committed(fields)?,
        heartbeat: HeartbeatNumber(fields.u64()?),
        agreed: take_checkpoint(fields)?,
        standing: take_standing(fields)?,
    })
}

pub(super) fn put_answered_entries(frame: &mut FrameWriter<'_>, body: &Entries) -> Taken<()> {
    frame.fields().put_u64_le(body.request.0);
    put_entries(frame, &body.entries)
}

pub(super) fn take_answered_entries(
    fields: &mut Fields<'_>,
    source: &Bytes,
    version: u16,
) -> Taken<Entries> {
    let request = RequestId(fields.u64()?);
    Ok(Entries { request, entries: take_entries(fields, source, version)? })
}

fn put_committed(frame: &mut FrameWriter<'_>, committed: &Committed) {
    let fields = frame.fields();
    fields.put_u64_le(committed.op_number.0);
    fields.put_u128_le(committed.checksum.0);
}

fn take_committed(fields: &mut Fields<'_>) -> Taken<Committed> {
    Ok(Committed { op_number: OpNumber(fields.u64()?), checksum: Checksum(fields.u128()?) })
}

fn put_checkpoint(frame: &mut FrameWriter<'_>, checkpoint: &CheckpointId) {
    let fields = frame.fields();
    fields.put_u64_le(checkpoint.op_number.0);
    fields.put_u128_le(checkpoint.checksum.0);
    fields.put_u128_le(checkpoint.digest.0);
}

fn take_checkpoint(fields: &mut Fields<'_>) -> Taken<CheckpointId> {
    Ok(CheckpointId {
        op_number: OpNumber(fields.u64()?),
        checksum: Checksum(fields.u128()?),
        digest: Checksum(fields.u128()?),
    })
}

fn put_standing(frame: &mut FrameWriter<'_>, standing: &Standing) {
    let fields = frame.fields();
    fields.put_u64_le(standing.log_view.0);
    fields.put_u64_le(standing.op_number.0);
    fields.put_u64_le(standing.heard.to_bits());
    fields.put_u8(match standing.status {
        StatusKind::Blank => 0,
        StatusKind::Normal => 1,
        StatusKind::ViewChange => 2,
        StatusKind::Recovering => 3,
    });
}

fn take_standing(fields: &mut Fields<'_>) -> Taken<Standing> {
    Ok(Standing {
        log_view: View(fields.u64()?),
        op_number: OpNumber(fields.u64()?),
        heard: ReplicaSet::from_bits(fields.u64()?),
        status: match fields.u8()? {
            0 => StatusKind::Blank,
            1 => StatusKind::Normal,
            2 => StatusKind::ViewChange,
            3 => StatusKind::Recovering,
            other => return Fields::invalid("status", other),
        },
    })
}

pub(super) fn take_flag(fields: &mut Fields<'_>, what: &'static str) -> Taken<bool> {
    match fields.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Fields::invalid(what, other),
    }
}
