//! An entry's 128-byte header, little-endian, and the checksums that guard it.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::model::{
    encoding::{CodecError, fields::Fields},
    entry::{ENTRY_HEADER_BYTES, Entry, EntryHeader, EntryKind},
    operation::{Operation, Summed},
    types::{Checksum, ClientId, Epoch, OpNumber, RequestNumber, View},
};

/// Version of the entry's layout.
const ENTRY_VERSION: u16 = 1;

impl EntryHeader {
    /// The checksum that a header with these fields must carry.
    #[must_use]
    pub fn to_checksum(&self) -> Checksum {
        let bytes = encode_header(self);
        let [_, rest @ ..] = bytes.as_chunks::<16>().0 else { return Checksum::ZERO };
        Checksum::of(rest.as_flattened())
    }

    /// The same header with its checksum filled in.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.checksum = self.to_checksum();
        self
    }
}

impl Entry {
    /// An entry of `payload`, with lengths and checksums of `header` filled in.
    ///
    /// # Panics
    /// If the payload is longer than a `u32` can say; admission refuses far smaller ones.
    #[must_use]
    pub fn new(header: EntryHeader, payload: Bytes) -> Self {
        let checksum = Checksum::of(&payload);
        Self::with_checksum(header, payload, checksum)
    }

    /// An entry for an operation whose checksum is known, with its kind filled in, too.
    #[must_use]
    pub fn of_summed(mut header: EntryHeader, operation: Summed) -> Self {
        let checksum = operation.checksum();
        let Operation { many, bytes } = operation.into_operation();
        header.kind = EntryKind::of_request(many);
        Self::with_checksum(header, bytes, checksum)
    }

    fn with_checksum(mut header: EntryHeader, payload: Bytes, checksum: Checksum) -> Self {
        header.payload_length =
            u32::try_from(payload.len()).expect("admission refused an operation over 4 GiB");
        header.payload_checksum = checksum;
        Self { header: header.sealed(), payload }
    }

    /// Checks the payload against the header; done once per decode from a socket or a disk.
    ///
    /// # Errors
    /// [`CodecError`] when length or checksum differ.
    pub fn verify_payload(&self) -> Result<(), CodecError> {
        let length = usize::try_from(self.header.payload_length).unwrap_or(usize::MAX);
        if self.payload.len() != length {
            return Err(CodecError::Short {
                what: "payload",
                have: self.payload.len(),
                need: length,
            });
        }
        if Checksum::of(&self.payload) != self.header.payload_checksum {
            return Err(CodecError::Checksum { what: "payload" });
        }
        Ok(())
    }
}

/// The header's bytes; the checksum is written as the field says.
#[must_use]
pub fn encode_header(header: &EntryHeader) -> [u8; ENTRY_HEADER_BYTES] {
    let pair = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
    let length = u64::from(header.payload_length);
    let version = u64::from(ENTRY_VERSION) << 32;
    let kind = u64::from(kind_byte(header.kind)) << 48;
    let words = [
        header.checksum.0,
        header.parent.0,
        header.payload_checksum.0,
        header.client.0,
        pair(header.view.0, header.op_number.0),
        pair(header.time, header.session.0),
        pair(header.request_number.0, header.group),
        pair(header.epoch.0, length | version | kind),
    ];
    let mut bytes = [0; ENTRY_HEADER_BYTES];
    for (place, word) in bytes.as_chunks_mut::<16>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    bytes
}

/// The header that `bytes` begin with, its checksum verified.
///
/// # Errors
/// [`CodecError`] when there are fewer than 128 bytes, the checksum differs, or the version or the
/// kind is unknown.
pub fn decode_header(bytes: &[u8]) -> Result<EntryHeader, CodecError> {
    let mut fields = Fields::new("entry header", bytes);
    if bytes.len() < ENTRY_HEADER_BYTES {
        return Err(fields.short(ENTRY_HEADER_BYTES));
    }
    let covered = bytes.get(16..ENTRY_HEADER_BYTES).unwrap_or_default();
    let checksum = Checksum(fields.u128()?);
    if Checksum::of(covered) != checksum {
        return Err(CodecError::Checksum { what: "entry header" });
    }
    let header = EntryHeader {
        checksum,
        parent: Checksum(fields.u128()?),
        payload_checksum: Checksum(fields.u128()?),
        client: ClientId(fields.u128()?),
        view: View(fields.u64()?),
        op_number: OpNumber(fields.u64()?),
        time: fields.u64()?,
        session: OpNumber(fields.u64()?),
        request_number: RequestNumber(fields.u64()?),
        group: fields.u64()?,
        epoch: Epoch(fields.u64()?),
        payload_length: fields.u32()?,
        kind: EntryKind::Noop,
    };
    let version = fields.u16()?;
    if version != ENTRY_VERSION {
        return Err(CodecError::Invalid { what: "entry version", value: u64::from(version) });
    }
    let [kind, reserved] = fields.array()?;
    if reserved != 0 {
        return Err(CodecError::Invalid { what: "reserved byte", value: u64::from(reserved) });
    }
    Ok(EntryHeader { kind: kind_of(kind)?, ..header })
}

const fn kind_byte(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Noop => 0,
        EntryKind::Request => 1,
        EntryKind::Register => 2,
        EntryKind::Many => 3,
    }
}

fn kind_of(byte: u8) -> Result<EntryKind, CodecError> {
    match byte {
        0 => Ok(EntryKind::Noop),
        1 => Ok(EntryKind::Request),
        2 => Ok(EntryKind::Register),
        3 => Ok(EntryKind::Many),
        other => Err(CodecError::Invalid { what: "entry kind", value: u64::from(other) }),
    }
}

/// Inside cold messages a header travels as its 128 encoded bytes.
impl Serialize for EntryHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&encode_header(self))
    }
}

impl<'de> Deserialize<'de> for EntryHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        if bytes.len() != ENTRY_HEADER_BYTES {
            return Err(D::Error::invalid_length(bytes.len(), &"128 bytes"));
        }
        decode_header(bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> EntryHeader {
        EntryHeader {
            parent: Checksum(2),
            client: ClientId(4),
            view: View(5),
            op_number: OpNumber(6),
            time: 7,
            session: OpNumber(8),
            request_number: RequestNumber(9),
            group: 10,
            epoch: Epoch(11),
            kind: EntryKind::Request,
            ..EntryHeader::default()
        }
    }

    #[test]
    fn a_header_survives_its_bytes() {
        let entry = Entry::new(header(), Bytes::from_static(b"put a 1"));
        assert_eq!(decode_header(&encode_header(&entry.header)), Ok(entry.header));
        assert_eq!(entry.verify_payload(), Ok(()));
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        let entry = Entry::new(header(), Bytes::from_static(b"put a 1"));
        let bytes = encode_header(&entry.header);
        for position in 0..ENTRY_HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[position / 8] ^= 1 << (position % 8);
            assert!(decode_header(&damaged).is_err(), "bit {position} is not covered");
        }
    }

    #[test]
    fn a_changed_payload_is_noticed() {
        let mut entry = Entry::new(header(), Bytes::from_static(b"put a 1"));
        entry.payload = Bytes::from_static(b"put a 2");
        assert_eq!(entry.verify_payload(), Err(CodecError::Checksum { what: "payload" }));
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_header(&bytes);
        }
    }
}
