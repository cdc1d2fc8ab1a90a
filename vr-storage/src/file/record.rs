//! The bytes on disk: segment header, batch header, superblock copy; little-endian, checksummed.

use vr_core::{
    model::{
        durable::Superblock,
        types::{Checksum, DiskId, OpNumber},
    },
    ports::storage::Anchor,
};

/// Version of everything in a data directory; another one is refused with both numbers.
pub const DISK_VERSION: u32 = 1;

/// What a disk writes whole or not at all; batches start at its multiples.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// What the system's cache holds as one piece; writes are padded to it, so none has to read first.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Zeros behind the end of the log, so that what is left of a batch whose header does not verify
/// is not taken for what a recycled file holds of its earlier use. Two sectors: the second one
/// tells when the first was zeroed.
pub(crate) const CLEAN_BYTES: u64 = 2 * SECTOR_BYTES;

/// Where the first batch of a segment starts; the page before it is never written again.
pub(crate) const BATCHES_START: u64 = PAGE_BYTES;

/// No segment is smaller.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 4 * BATCHES_START;

/// Bytes of a segment header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;

/// Bytes of a batch header.
pub(crate) const BATCH_HEADER_BYTES: usize = 144;

/// Bytes of one superblock file, of which the tail is zero.
pub(crate) const SUPERBLOCK_BYTES: u64 = 16 << 10;

/// The end of the body of a superblock without a lease. It is left out, as directories have it that
/// were written before there were leases: who grants none can go back to such a version.
const NO_LEASE: [u8; 2] = [0; 2];

/// Bytes of a superblock copy before its body.
const SUPERBLOCK_HEADER_BYTES: usize = 48;

const SEGMENT_MAGIC: [u8; 8] = *b"vrwalseg";
const BATCH_MAGIC: [u8; 8] = *b"vrbatch\0";
const SUPERBLOCK_MAGIC: [u8; 8] = *b"vrsuperb";

const FLAG_CUT: u16 = 1;
const FLAG_MARKER: u16 = 2;
const FLAG_SEAL: u16 = 4;
const FLAG_REPAIR: u16 = 8;

/// `bytes` rounded up to whole units of `unit`.
pub(crate) fn round_up(bytes: u64, unit: u64) -> u64 {
    bytes.div_ceil(unit).saturating_mul(unit)
}

/// What the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Whose it is.
    pub(crate) disk: DiskId,
    /// Its number; grows from segment to segment and is never used twice.
    pub(crate) number: u64,
    /// Bytes of the file.
    pub(crate) length: u64,
    /// Whether the log had another segment when this one was made: as long as there is no batch in
    /// this one, that other one is there.
    pub(crate) follows: bool,
}

/// Why a segment header or a superblock copy cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The bytes are not what was written.
    Damaged,
    /// The bytes are whole, and of another format version.
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&DISK_VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::from(self.follows).to_le_bytes());
        bytes.extend_from_slice(&self.disk.0.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(Unreadable::Damaged)?;
        let mut fields = Fields::verified(bytes, SEGMENT_MAGIC).ok_or(Unreadable::Damaged)?;
        let version = fields.u32();
        if version != DISK_VERSION {
            return Err(Unreadable::Version(version));
        }
        let follows = fields.u32() & 1 == 1;
        let (disk, number, length) = (DiskId(fields.u128()), fields.u64(), fields.u64());
        Ok(Self { disk, number, length, follows })
    }
}

/// What a batch header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchKind {
    /// Entries that follow the last one.
    Append,
    /// Entries, possibly none, that replace everything above the base.
    Cut,
    /// Entries that take the place of damaged ones with the same ops; nothing is cut.
    Repair,
    /// Nothing but the synced-through numbers; the next batch takes its place.
    Marker,
    /// A marker that also says that the log goes on in a later segment.
    Seal,
}

impl BatchKind {
    const fn flags(self) -> u16 {
        match self {
            Self::Append => 0,
            Self::Cut => FLAG_CUT,
            Self::Repair => FLAG_REPAIR,
            Self::Marker => FLAG_MARKER,
            Self::Seal => FLAG_MARKER | FLAG_SEAL,
        }
    }

    fn of(flags: u16) -> Option<Self> {
        [Self::Append, Self::Cut, Self::Repair, Self::Marker, Self::Seal]
            .into_iter()
            .find(|kind| kind.flags() == flags)
    }

    /// Whether the record holds no part of the log.
    pub(crate) const fn is_marker(self) -> bool {
        matches!(self, Self::Marker | Self::Seal)
    }
}

/// The 144 bytes in front of a batch's entries.
///
/// Disk, segment and offset say that these bytes were written here, in this use of the file;
/// base and head pin the entries, which chain from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// What it announces.
    pub(crate) kind: BatchKind,
    /// How many entries follow.
    pub(crate) count: u32,
    /// Whose it is.
    pub(crate) disk: DiskId,
    /// Number of the segment it was written to.
    pub(crate) segment: u64,
    /// Where in the segment it starts.
    pub(crate) offset: u64,
    /// Its number; one more than the batch before. A marker has that of the batch to come.
    pub(crate) sequence: u64,
    /// Number of the last batch that was synced when this was written; 0 for none.
    pub(crate) synced_sequence: u64,
    /// The last op that was synced when this was written.
    pub(crate) synced_op: OpNumber,
    /// The entry that the first one follows; for a cut, the last one that stays; for a marker and
    /// for a repair, the last one of the log.
    pub(crate) base: Anchor,
    /// Checksum of the last entry; of the base when there is none.
    pub(crate) head_checksum: Checksum,
    /// Bytes of the entries.
    pub(crate) entry_bytes: u64,
    /// In a seal, number of the segment in which the log goes on; otherwise 0.
    pub(crate) next_segment: u64,
}

impl BatchHeader {
    /// Bytes that the batch takes in its segment: header, entries, rest of the last sector.
    pub(crate) fn span(&self) -> u64 {
        batch_span(self.entry_bytes)
    }

    /// Where the next record starts: a marker leaves its place to it.
    pub(crate) fn end(&self) -> u64 {
        self.offset + if self.kind.is_marker() { 0 } else { self.span() }
    }

    /// Appends the encoded header to `out`.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&BATCH_MAGIC);
        out.extend_from_slice(&u16::try_from(DISK_VERSION).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&self.kind.flags().to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.disk.0.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.synced_sequence.to_le_bytes());
        out.extend_from_slice(&self.synced_op.0.to_le_bytes());
        out.extend_from_slice(&self.base.op_number.0.to_le_bytes());
        out.extend_from_slice(&self.base.checksum.0.to_le_bytes());
        out.extend_from_slice(&self.head_checksum.0.to_le_bytes());
        out.extend_from_slice(&self.entry_bytes.to_le_bytes());
        out.extend_from_slice(&self.next_segment.to_le_bytes());
        seal(out.get_mut(start..).unwrap_or_default());
    }

    /// The header that `bytes` begin with; `None` when it is damaged or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES)?;
        let mut fields = Fields::verified(bytes, BATCH_MAGIC)?;
        let version = u32::from(fields.u16());
        let kind = BatchKind::of(fields.u16())?;
        let header = Self {
            kind,
            count: fields.u32(),
            disk: DiskId(fields.u128()),
            segment: fields.u64(),
            offset: fields.u64(),
            sequence: fields.u64(),
            synced_sequence: fields.u64(),
            synced_op: OpNumber(fields.u64()),
            base: Anchor { op_number: OpNumber(fields.u64()), checksum: Checksum(fields.u128()) },
            head_checksum: Checksum(fields.u128()),
            entry_bytes: fields.u64(),
            next_segment: fields.u64(),
        };
        (version == DISK_VERSION).then_some(header)
    }

    /// The op of the last entry; the base's when there is none.
    pub(crate) fn last_op(&self) -> OpNumber {
        self.base.op_number.plus(u64::from(self.count))
    }
}

/// Bytes that a batch with `entry_bytes` bytes of entries takes in its segment.
pub(crate) fn batch_span(entry_bytes: u64) -> u64 {
    round_up(entry_bytes.saturating_add(144), SECTOR_BYTES)
}

/// One of the two superblock files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// The one that is written first.
    A,
    /// The one that is written second.
    B,
}

impl Copy {
    const fn number(self) -> u32 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// The bytes of `superblock` as the given copy's update `update`; `None` when it is too large.
pub(crate) fn encode_superblock(
    copy: Copy,
    update: u64,
    superblock: &Superblock,
) -> Option<Vec<u8>> {
    let mut body = postcard::to_allocvec(superblock).ok()?;
    if superblock.lease.is_zero() && body.ends_with(&NO_LEASE) {
        body.truncate(body.len() - NO_LEASE.len());
    }
    let length = u32::try_from(body.len()).ok()?;
    let mut bytes = vec![0; 16];
    bytes.extend_from_slice(&SUPERBLOCK_MAGIC);
    bytes.extend_from_slice(&DISK_VERSION.to_le_bytes());
    bytes.extend_from_slice(&copy.number().to_le_bytes());
    bytes.extend_from_slice(&update.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&body);
    seal(&mut bytes);
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= SUPERBLOCK_BYTES);
    fits.then_some(bytes)
}

/// The update number and the superblock that the file of `copy` holds.
pub(crate) fn decode_superblock(copy: Copy, bytes: &[u8]) -> Result<(u64, Superblock), Unreadable> {
    let length = bytes.get(40..44).and_then(|field| field.first_chunk()).copied();
    let length = usize::try_from(u32::from_le_bytes(length.ok_or(Unreadable::Damaged)?));
    let end = SUPERBLOCK_HEADER_BYTES.saturating_add(length.map_err(|_| Unreadable::Damaged)?);
    let record = bytes.get(..end).ok_or(Unreadable::Damaged)?;
    let mut fields = Fields::verified(record, SUPERBLOCK_MAGIC).ok_or(Unreadable::Damaged)?;
    let version = fields.u32();
    if version != DISK_VERSION {
        return Err(Unreadable::Version(version));
    }
    let number = fields.u32();
    let update = fields.u64();
    let body = record.get(SUPERBLOCK_HEADER_BYTES..).unwrap_or_default();
    let superblock = whole(body).or_else(|| whole(&[body, NO_LEASE.as_slice()].concat()));
    match superblock {
        Some(superblock) if number == copy.number() => Ok((update, superblock)),
        Some(_) | None => Err(Unreadable::Damaged),
    }
}

/// The superblock that `body` is, to its last byte.
fn whole(body: &[u8]) -> Option<Superblock> {
    let (superblock, rest) = postcard::take_from_bytes(body).ok()?;
    rest.is_empty().then_some(superblock)
}

/// Fills the first 16 bytes with the checksum of the others.
fn seal(record: &mut [u8]) {
    if let Some((checksum, covered)) = record.split_first_chunk_mut::<16>() {
        *checksum = Checksum::of(covered).0.to_le_bytes();
    }
}

/// Reads fixed-size fields off the front of a record whose length was checked.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields behind checksum and magic, if both are right.
    fn verified(record: &'a [u8], magic: [u8; 8]) -> Option<Self> {
        let (checksum, covered) = record.split_first_chunk::<16>()?;
        let rest = covered.strip_prefix(magic.as_slice())?;
        let checksum = Checksum(u128::from_le_bytes(*checksum));
        (Checksum::of(covered) == checksum).then_some(Self(rest))
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *field
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.array())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use vr_core::{
        OpNumber, ReplicaId, View,
        model::{
            certificate::Certificate,
            durable::{Durability, Identity},
            encoding::entry::encode_header,
            entry::{Entry, EntryHeader, EntryKind},
            membership::Members,
            types::{ClientId, RequestNumber},
        },
    };

    use super::*;

    fn segment() -> SegmentHeader {
        SegmentHeader { disk: DiskId(0xd15c), number: 5, length: 16 << 20, follows: false }
    }

    fn entry() -> Entry {
        let header = EntryHeader {
            parent: Checksum(0x77),
            client: ClientId(0xc11e),
            view: View(3),
            op_number: OpNumber(42),
            time: 1_700_000_000_000_000_000,
            session: OpNumber(40),
            request_number: RequestNumber(1),
            group: 0x9509,
            kind: EntryKind::Request,
            ..EntryHeader::default()
        };
        Entry::new(header, Bytes::from_static(b"put a 1"))
    }

    fn batch(kind: BatchKind) -> BatchHeader {
        BatchHeader {
            kind,
            count: 1,
            disk: DiskId(0xd15c),
            segment: 5,
            offset: 4096,
            sequence: 9,
            synced_sequence: 8,
            synced_op: OpNumber(41),
            base: Anchor { op_number: OpNumber(41), checksum: Checksum(0x77) },
            head_checksum: entry().header.checksum,
            entry_bytes: entry().header.entry_bytes(),
            next_segment: 0,
        }
    }

    fn superblock() -> Superblock {
        let members = Members::local(3).unwrap().to_membership();
        let identity = Identity {
            group: members.group_id("g"),
            group_name: "g".into(),
            members,
            replica: ReplicaId(1),
            durability: Durability::Full,
            fresh_disk: DiskId(0xd15c),
        };
        let disks = vec![(ReplicaId(0), DiskId(7)), (ReplicaId(1), DiskId(0xd15c))];
        let certificate =
            Some(Certificate { group_name: "g".into(), disks, inherited: Vec::new() });
        Superblock { certificate, view: View(4), log_view: View(3), ..Superblock::blank(&identity) }
    }

    fn encoded(header: &BatchHeader) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode_into(&mut bytes);
        bytes
    }

    /// Sixteen bytes a line, as `docs/STORAGE.md` shows them.
    fn hex(bytes: &[u8]) -> String {
        let line = |(number, line): (usize, &[u8])| {
            let bytes: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:04x}  {}\n", number * 16, bytes.join(" "))
        };
        bytes.chunks(16).enumerate().map(line).collect()
    }

    fn assert_golden(bytes: &[u8], golden: &str) {
        assert_eq!(hex(bytes), golden, "changed bytes need a new DISK_VERSION and a new document");
    }

    #[test]
    fn the_bytes_of_a_segment_header_are_pinned() {
        assert_golden(&segment().encode(), include_str!("../../tests/golden/segment.hex"));
    }

    #[test]
    fn the_bytes_of_a_batch_are_pinned() {
        let mut bytes = encoded(&batch(BatchKind::Cut));
        bytes.extend_from_slice(&encode_header(&entry().header));
        bytes.extend_from_slice(&entry().payload);
        assert_golden(&bytes, include_str!("../../tests/golden/batch.hex"));
    }

    #[test]
    fn the_bytes_of_a_superblock_copy_are_pinned() {
        let bytes = encode_superblock(Copy::B, 6, &superblock()).unwrap();
        assert_golden(&bytes, include_str!("../../tests/golden/superblock.hex"));
    }

    #[test]
    fn the_document_shows_the_pinned_bytes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/STORAGE.md");
        let document = std::fs::read_to_string(path).unwrap();
        for golden in [
            include_str!("../../tests/golden/segment.hex"),
            include_str!("../../tests/golden/batch.hex"),
            include_str!("../../tests/golden/superblock.hex"),
        ] {
            assert!(document.contains(golden), "docs/STORAGE.md must show\n{golden}");
        }
        assert!(document.contains(&format!("Format version: {DISK_VERSION}.")));
    }

    #[test]
    fn records_survive_their_bytes() {
        assert_eq!(SegmentHeader::decode(&segment().encode()), Ok(segment()));
        for kind in [
            BatchKind::Append,
            BatchKind::Cut,
            BatchKind::Repair,
            BatchKind::Marker,
            BatchKind::Seal,
        ] {
            assert_eq!(BatchHeader::decode(&encoded(&batch(kind))), Some(batch(kind)));
        }
        let bytes = encode_superblock(Copy::A, 6, &superblock()).unwrap();
        assert_eq!(decode_superblock(Copy::A, &bytes), Ok((6, superblock())));
        assert_eq!(decode_superblock(Copy::B, &bytes), Err(Unreadable::Damaged));
    }

    #[test]
    fn any_flipped_bit_of_a_record_is_noticed() {
        let (header, copy) = (
            encoded(&batch(BatchKind::Cut)),
            encode_superblock(Copy::A, 6, &superblock()).unwrap(),
        );
        let segment = segment().encode();
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            bytes
        };
        for at in 0..header.len() * 8 {
            assert_eq!(BatchHeader::decode(&flipped(&header, at)), None, "bit {at}");
        }
        for at in 0..segment.len() * 8 {
            assert!(SegmentHeader::decode(&flipped(&segment, at)).is_err(), "bit {at}");
        }
        for at in 0..copy.len() * 8 {
            assert!(decode_superblock(Copy::A, &flipped(&copy, at)).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_superblock_that_does_not_fit_is_not_encoded() {
        let group_name = "g".repeat(usize::try_from(SUPERBLOCK_BYTES).unwrap());
        let superblock = Superblock { group_name, ..superblock() };
        assert_eq!(encode_superblock(Copy::A, 1, &superblock), None);
    }

    #[test]
    fn a_256_byte_operation_takes_two_sectors() {
        assert_eq!(batch_span(128 + 256), 2 * SECTOR_BYTES);
        assert_eq!(batch_span(128 + 240), SECTOR_BYTES);
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = BatchHeader::decode(&bytes);
            let _ = SegmentHeader::decode(&bytes);
            let _ = decode_superblock(Copy::A, &bytes);
        }

        #[test]
        fn decoding_sealed_nonsense_is_total(
            mut bytes in proptest::collection::vec(any::<u8>(), 64..300),
        ) {
            bytes[16..24].copy_from_slice(&SUPERBLOCK_MAGIC);
            bytes[24..28].copy_from_slice(&DISK_VERSION.to_le_bytes());
            bytes[28..32].copy_from_slice(&[0; 4]);
            let length = u32::try_from(bytes.len() - 48).unwrap();
            bytes[40..44].copy_from_slice(&length.to_le_bytes());
            seal(&mut bytes);
            let _ = decode_superblock(Copy::A, &bytes);
        }
    }
}
