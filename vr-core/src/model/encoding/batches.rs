//! Bodies of batches of requests and of replies; said one by one to an end that knows none.
//!
//! Since version 5 operations stand behind all that is said about them, with checksums of their own.

use bytes::{BufMut, Bytes};

use crate::model::{
    batch::BATCH_COUNT_MAX,
    encoding::{CodecError, WIRE_VERSION_SUMS, fields::Fields, frame::FrameWriter, hot, length},
    message::{Message, Outcome, Replied, Replies, Requests},
    operation::{Operation, Summed},
    types::{Checksum, ClientId, OpNumber, RequestNumber},
};

/// Bytes in front of what is said about each operation: client, session, first number, count.
const REQUESTS_FIXED_BYTES: usize = 36;

/// Bytes of the number of operations, with which they end.
const COUNT_BYTES: usize = 4;

/// Bytes of each operation but for its own, before version 5 and since.
const OPERATION_FIXED_BYTES: usize = 5;
const SUMMED_FIXED_BYTES: usize = OPERATION_FIXED_BYTES + 16;

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
    let payloads = body.operations.iter().map(|summed| &summed.operation().bytes);
    frame.reserve(0, SUMMED_FIXED_BYTES, payloads.clone());
    if frame.version() < WIRE_VERSION_SUMS {
        for Operation { many, bytes } in body.operations.iter().map(Summed::operation) {
            frame.fields().put_u8(u8::from(*many));
            put_bytes(frame, "operation", bytes)?;
        }
        return Ok(());
    }
    for summed in &body.operations {
        let Operation { many, bytes } = summed.operation();
        let fields = frame.fields();
        fields.put_u8(u8::from(*many));
        fields.put_u32_le(length("operation", bytes.len())?);
        fields.put_u128_le(summed.checksum().0);
    }
    frame.end_guard();
    payloads.for_each(|bytes| frame.put_shared(bytes));
    Ok(())
}

/// Bytes of a batch of requests that must be guarded: the operations guard themselves since version
/// 5. `body` is all of it; of one that is too short no more can be asked.
pub(super) fn guarded_requests_bytes(body: &[u8], version: u16) -> usize {
    let fixed = body.get(..REQUESTS_FIXED_BYTES).unwrap_or_default();
    match fixed.last_chunk::<COUNT_BYTES>() {
        Some(count) if version >= WIRE_VERSION_SUMS => {
            let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
            REQUESTS_FIXED_BYTES.saturating_add(count.saturating_mul(SUMMED_FIXED_BYTES))
        }
        Some(_) | None => body.len(),
    }
}

pub(super) fn take_requests(
    fields: &mut Fields<'_>,
    source: &Bytes,
    version: u16,
) -> Taken<Requests> {
    let client = ClientId(fields.u128()?);
    let session = OpNumber(fields.u64()?);
    let first = RequestNumber(fields.u64()?);
    let summed = version >= WIRE_VERSION_SUMS;
    let item_bytes = if summed { SUMMED_FIXED_BYTES } else { OPERATION_FIXED_BYTES };
    let count = take_count(fields, "number of requests", item_bytes)?;
    let mut operations = Vec::with_capacity(count);
    if summed {
        let mut heads = Fields::new("operation of a batch", fields.take(count * item_bytes)?);
        for _ in 0..count {
            operations.push(take_summed(&mut heads, fields, source)?);
        }
    } else {
        for _ in 0..count {
            let many = hot::take_flag(fields, "many")?;
            let bytes = take_bytes(fields, source)?;
            operations.push(Operation { many, bytes }.into());
        }
    }
    Ok(Requests { client, session, first, operations })
}

/// The next of the operations in `fields`, of which `heads` says the rest.
fn take_summed(heads: &mut Fields<'_>, fields: &mut Fields<'_>, source: &Bytes) -> Taken<Summed> {
    let many = hot::take_flag(heads, "many")?;
    let length = usize::try_from(heads.u32()?).unwrap_or(usize::MAX);
    let checksum = Checksum(heads.u128()?);
    let bytes = source.slice_ref(fields.take(length)?);
    let damaged = CodecError::Checksum { what: "operation" };
    Summed::verified(Operation { many, bytes }, checksum).ok_or(damaged)
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
