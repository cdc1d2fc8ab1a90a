//! Entries in a message: their number, then each with its header and payload; since version 4 without
//! what the header in front of it says already.

use bytes::{BufMut, Bytes};

use crate::model::{
    encoding::{
        CodecError, WIRE_VERSION_CHAINS,
        entry::{decode_header, encode_header},
        fields::Fields,
        frame::FrameWriter,
        length,
    },
    entry::{ENTRY_HEADER_BYTES, Entry, EntryHeader, EntryKind},
    types::{Checksum, ClientId, OpNumber, RequestNumber},
};

type Taken<T> = Result<T, CodecError>;

/// The entry's header follows but for its last byte, which is zero: so no entry is longer than on disk,
/// and senders may count those bytes.
const WHOLE: u8 = 0;
/// The next entry and the next request of the same session.
const NEXT_REQUEST: u8 = 1;
const NEXT_MANY: u8 = 2;
/// The next entry, a request of another session.
const OTHER_REQUEST: u8 = 3;
const OTHER_MANY: u8 = 4;

/// Bytes of an entry without its payload, at least: form, checksum, time, payload length.
const NEXT_BYTES: usize = 25;
/// The same with client, session and request number.
const OTHER_BYTES: usize = 57;

/// Their number, where the guarded part ends, then each.
pub(super) fn put_entries(frame: &mut FrameWriter<'_>, entries: &[Entry]) -> Taken<()> {
    let chained = frame.version() >= WIRE_VERSION_CHAINS;
    frame.fields().put_u32_le(length("number of entries", entries.len())?);
    frame.end_guard();
    let item_bytes = if chained { OTHER_BYTES } else { ENTRY_HEADER_BYTES };
    frame.reserve(ENTRY_HEADER_BYTES, item_bytes, entries.iter().map(|entry| &entry.payload));
    let mut before = None;
    for Entry { header, payload } in entries {
        let length = usize::try_from(header.payload_length).unwrap_or(usize::MAX);
        if payload.len() != length {
            let have = payload.len();
            return Err(CodecError::Short { what: "payload", have, need: length });
        }
        if chained {
            put_chained(frame, before, header);
        } else {
            frame.fields().put_slice(&encode_header(header));
        }
        frame.put_shared(payload);
        before = Some(header);
    }
    Ok(())
}

/// The entries, each header and each payload verified against its checksum.
pub(super) fn take_entries(
    fields: &mut Fields<'_>,
    source: &Bytes,
    version: u16,
) -> Taken<Vec<Entry>> {
    let chained = version >= WIRE_VERSION_CHAINS;
    let count = fields.u32()?;
    let count = fields.count(count, if chained { NEXT_BYTES } else { ENTRY_HEADER_BYTES })?;
    // A count alone reserves no more than for whole headers, however short the entries may be.
    let reserved = count.min(fields.len() / ENTRY_HEADER_BYTES + 1);
    let mut entries: Vec<Entry> = Vec::with_capacity(reserved);
    for _ in 0..count {
        let form = if chained { fields.u8()? } else { WHOLE };
        let entry = match (form, entries.last()) {
            (WHOLE, _) => take_whole(fields, source, chained)?,
            (NEXT_REQUEST..=OTHER_MANY, Some(before)) => {
                take_next(fields, source, form, &before.header)?
            }
            (other, _) => return Fields::invalid("form of an entry", other),
        };
        entries.push(entry);
    }
    Ok(entries)
}

/// What has to be said of a header behind `before`.
fn put_chained(frame: &mut FrameWriter<'_>, before: Option<&EntryHeader>, header: &EntryHeader) {
    let fields = frame.fields();
    let Some((form, time)) = before.and_then(|before| next_form(before, header)) else {
        let [said @ .., _zero] = encode_header(header);
        fields.put_u8(WHOLE);
        return fields.put_slice(&said);
    };
    let mut said = [0; NEXT_BYTES];
    let mut place = said.as_mut_slice();
    place.put_u8(form);
    place.put_u128_le(header.checksum.0);
    place.put_u32_le(time);
    place.put_u32_le(header.payload_length);
    fields.put_slice(&said);
    if matches!(form, OTHER_REQUEST | OTHER_MANY) {
        fields.put_u128_le(header.client.0);
        fields.put_u64_le(header.session.0);
        fields.put_u64_le(header.request_number.0);
    }
}

/// How much of `header` follows from `before`, and the time between them; `None` if too little does.
fn next_form(before: &EntryHeader, header: &EntryHeader) -> Option<(u8, u32)> {
    let primary = |it: &EntryHeader| (it.view, it.group, it.epoch);
    let goes_on = header.parent == before.checksum
        && header.op_number == before.op_number.next()
        && primary(header) == primary(before);
    let time = u32::try_from(header.time.checked_sub(before.time)?).ok()?;
    let session = (header.client, header.session, header.request_number);
    let is_same = session == (before.client, before.session, before.request_number.next());
    let form = match (header.kind, is_same) {
        (EntryKind::Request, true) => NEXT_REQUEST,
        (EntryKind::Many, true) => NEXT_MANY,
        (EntryKind::Request, false) => OTHER_REQUEST,
        (EntryKind::Many, false) => OTHER_MANY,
        (EntryKind::Noop | EntryKind::Register, _) => return None,
    };
    goes_on.then_some((form, time))
}

/// An entry with all of its header, of which the last byte is not said where entries are chained.
fn take_whole(fields: &mut Fields<'_>, source: &Bytes, chained: bool) -> Taken<Entry> {
    let header = if chained {
        let mut header = [0; ENTRY_HEADER_BYTES];
        let [said @ .., _zero] = &mut header;
        said.copy_from_slice(fields.take(ENTRY_HEADER_BYTES - 1)?);
        decode_header(&header)?
    } else {
        decode_header(fields.take(ENTRY_HEADER_BYTES)?)?
    };
    let length = usize::try_from(header.payload_length).unwrap_or(usize::MAX);
    let entry = Entry { header, payload: source.slice_ref(fields.take(length)?) };
    entry.verify_payload()?;
    Ok(entry)
}

/// The entry behind `before`. What is not said of it is verified with the rest: its checksum covers
/// the whole header, and so the payload's checksum.
fn take_next(
    fields: &mut Fields<'_>,
    source: &Bytes,
    form: u8,
    before: &EntryHeader,
) -> Taken<Entry> {
    let checksum = Checksum(fields.u128()?);
    let time = before.time.saturating_add(fields.u32()?.into());
    let payload_length = fields.u32()?;
    let (client, session, request_number) = if matches!(form, OTHER_REQUEST | OTHER_MANY) {
        (ClientId(fields.u128()?), OpNumber(fields.u64()?), RequestNumber(fields.u64()?))
    } else {
        (before.client, before.session, before.request_number.next())
    };
    let length = usize::try_from(payload_length).unwrap_or(usize::MAX);
    let payload = source.slice_ref(fields.take(length)?);
    let header = EntryHeader {
        checksum,
        parent: before.checksum,
        payload_checksum: Checksum::of(&payload),
        client,
        view: before.view,
        op_number: before.op_number.next(),
        time,
        session,
        request_number,
        group: before.group,
        epoch: before.epoch,
        payload_length,
        kind: EntryKind::of_request(matches!(form, NEXT_MANY | OTHER_MANY)),
    };
    if header.to_checksum() != checksum {
        return Err(CodecError::Checksum { what: "entry" });
    }
    Ok(Entry { header, payload })
}
