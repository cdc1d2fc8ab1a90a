//! Bodies of batches of requests and of replies; said one by one to an end that knows none.

use bytes::{BufMut, Bytes};

use crate::model::{
    batch::BATCH_COUNT_MAX,
    encoding::{CodecError, fields::Fields, frame::FrameWriter, hot, length},
    message::{Message, Operation, Outcome, Replied, Replies, Requests},
    types::{ClientId, OpNumber, RequestNumber},
};

/// Bytes in front of each operation.
const OPERATION_FIXED_BYTES: usize = 5;

/// Bytes of each reply but for what it carries.
const REPLY_FIXED_BYTES: usize = 17;

/// What no batch has.
const BATCH_COUNT_EXCESS: u32 = BATCH_COUNT_MAX + 1;

type Taken<T> = Result<T, CodecError>;

/// What says the same without a batch; `None` if `message` is none.
pub(super) fn one_by_one(message: &Message) -> Option<Vec<Message>> {
    if let Message::Requests(batch) = message {
        Some(batch.clone().each().map(Message::Request).collect())
    } else if let Message::Replies(batch) = message {
        Some(batch.clone().each().map(Message::Reply).collect())
    } else {
        None
    }
}

pub(super) fn put_requests(frame: &mut FrameWriter<'_>, body: &Requests) -> Taken<()> {
    let fields = frame.fields();
    fields.put_u128_le(body.client.0);
    fields.put_u64_le(body.session.0);
    fields.put_u64_le(body.first.0);
    fields.put_u32_le(length("number of requests", body.operations.len())?);
    let payloads = body.operations.iter().map(|operation| &operation.bytes);
    frame.reserve(0, OPERATION_FIXED_BYTES, payloads);
    for operation in &body.operations {
        frame.fields().put_u8(u8::from(operation.many));
        put_bytes(frame, "operation", &operation.bytes)?;
    }
    Ok(())
}

pub(super) fn take_requests(fields: &mut Fields<'_>, source: &Bytes) -> Taken<Requests> {
    let client = ClientId(fields.u128()?);
    let session = OpNumber(fields.u64()?);
    let first = RequestNumber(fields.u64()?);
    let count = take_count(fields, "number of requests", OPERATION_FIXED_BYTES)?;
    let mut operations = Vec::with_capacity(count);
    for _ in 0..count {
        let many = hot::take_flag(fields, "many")?;
        operations.push(Operation { many, bytes: take_bytes(fields, source)? });
    }
    Ok(Requests { client, session, first, operations })
}

pub(super) fn put_replies(frame: &mut FrameWriter<'_>, body: &Replies) -> Taken<()> {
    let fields = frame.fields();
    fields.put_u128_le(body.client.0);
    fields.put_u32_le(length("number of replies", body.replies.len())?);
    for reply in &body.replies {
        let fields = frame.fields();
        fields.put_u64_le(reply.request_number.0);
        fields.put_u64_le(reply.op_number.0);
        fields.put_u8(hot::outcome_number(&reply.outcome));
        if let Outcome::Executed(bytes) = &reply.outcome {
            put_bytes(frame, "reply", bytes)?;
        }
    }
    Ok(())
}

pub(super) fn take_replies(fields: &mut Fields<'_>, source: &Bytes) -> Taken<Replies> {
    let client = ClientId(fields.u128()?);
    let count = take_count(fields, "number of replies", REPLY_FIXED_BYTES)?;
    let mut replies = Vec::with_capacity(count);
    for _ in 0..count {
        let request_number = RequestNumber(fields.u64()?);
        let op_number = OpNumber(fields.u64()?);
        let outcome = hot::take_outcome(fields, |fields| take_bytes(fields, source))?;
        replies.push(Replied { request_number, op_number, outcome });
    }
    Ok(Replies { client, replies })
}

/// At least one, so that no batch says nothing, and no more than a batch may have.
fn take_count(fields: &mut Fields<'_>, what: &'static str, item_bytes: usize) -> Taken<usize> {
    match fields.u32()? {
        count @ (0 | BATCH_COUNT_EXCESS..) => Fields::invalid(what, count),
        count => fields.count(count, item_bytes),
    }
}

/// `bytes` behind their length.
fn put_bytes(frame: &mut FrameWriter<'_>, what: &'static str, bytes: &Bytes) -> Taken<()> {
    frame.fields().put_u32_le(length(what, bytes.len())?);
    frame.put_shared(bytes);
    Ok(())
}

fn take_bytes(fields: &mut Fields<'_>, source: &Bytes) -> Taken<Bytes> {
    let length = usize::try_from(fields.u32()?).unwrap_or(usize::MAX);
    Ok(source.slice_ref(fields.take(length)?))
}
