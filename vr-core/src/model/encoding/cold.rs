//! Bodies of the messages that are rare: serde structs in postcard, checked to their last byte.

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use crate::model::{
    checkpoint::CHUNK_BYTES,
    durable::CheckpointId,
    encoding::{
        CodecError, WIRE_VERSION_COMPRESSION, chunk::decompress, fields::Fields, frame::FrameWriter,
    },
    snapshot::{GetSnapshot, Snapshot, SnapshotContent, SnapshotPart},
    types::RequestId,
};

/// Writes `body`, which belongs to a message named `what`.
pub(super) fn put(
    frame: &mut FrameWriter<'_>,
    what: &'static str,
    body: &impl Serialize,
) -> Result<(), CodecError> {
    let bytes = postcard::to_allocvec(body).map_err(|_| CodecError::Body { what })?;
    frame.fields().put_slice(&bytes);
    Ok(())
}

/// Reads the body of a message named `what`.
///
/// Memory stays in proportion to the bytes there are: postcard reserves nothing for a count that
/// exceeds them.
pub(super) fn take<'a, T: Deserialize<'a>>(
    fields: &mut Fields<'a>,
    what: &'static str,
) -> Result<T, CodecError> {
    match postcard::take_from_bytes(fields.take_rest()) {
        Ok((body, [])) => Ok(body),
        Ok(_) | Err(_) => Err(CodecError::Body { what }),
    }
}

/// To an end that cannot read compressed chunks, nothing is said of them.
pub(super) fn put_get_snapshot(
    frame: &mut FrameWriter<'_>,
    body: &GetSnapshot,
) -> Result<(), CodecError> {
    if frame.version() >= WIRE_VERSION_COMPRESSION {
        return put(frame, "GetSnapshot", body);
    }
    put(frame, "GetSnapshot", &(body.request, body.checkpoint, body.part))
}

/// Where nothing is said of compressed chunks, none may come.
pub(super) fn take_get_snapshot(
    fields: &mut Fields<'_>,
    version: u16,
) -> Result<GetSnapshot, CodecError> {
    if version >= WIRE_VERSION_COMPRESSION {
        return take(fields, "GetSnapshot");
    }
    let (request, checkpoint, part): (RequestId, CheckpointId, SnapshotPart) =
        take(fields, "GetSnapshot")?;
    Ok(GetSnapshot { request, checkpoint, part, compressed: false })
}

/// An end that cannot read compressed chunks did not ask for one, unless another process asked that
/// was there before it: what it gets is the same chunk as it is.
pub(super) fn put_snapshot(frame: &mut FrameWriter<'_>, body: &Snapshot) -> Result<(), CodecError> {
    let what = "Snapshot";
    let SnapshotContent::Compressed { index, block } = &body.content else {
        return put(frame, what, body);
    };
    if frame.version() >= WIRE_VERSION_COMPRESSION {
        return put(frame, what, body);
    }
    let bytes = decompress(block, CHUNK_BYTES).ok_or(CodecError::Body { what })?.into();
    let content = SnapshotContent::Chunk { index: *index, bytes };
    let Snapshot { request, checkpoint, .. } = *body;
    put(frame, what, &Snapshot { request, checkpoint, content })
}
