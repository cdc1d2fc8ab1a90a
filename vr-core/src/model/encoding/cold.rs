//! Bodies of the messages that are rare: serde structs in postcard, checked to their last byte.

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use crate::model::encoding::{CodecError, fields::Fields, frame::FrameWriter};

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
