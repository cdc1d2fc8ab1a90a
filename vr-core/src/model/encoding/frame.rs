//! What stands around a message on a stream: a checksummed header, and the segments to be written.

use bytes::{BufMut, Bytes, BytesMut};

use crate::model::{
    encoding::{CodecError, WIRE_VERSION, fields::Fields, length},
    kind::Lane,
};

/// Bytes of an encoded [`FrameHeader`].
pub const FRAME_HEADER_BYTES: usize = 20;

/// Bytes of the header that its own checksum covers.
const COVERED_BYTES: usize = 16;

/// Shared bytes up to this many are copied behind their header: a copy is cheaper than one more
/// segment in a vectored write.
const COPIED_BYTES_MAX: usize = 1024;

/// Bytes that a fresh scratch buffer holds.
const SCRATCH_BYTES: usize = 16 << 10;

/// What a stream says before each body; 20 bytes, little-endian.
///
/// The header carries a checksum of its own, so that no length is believed before it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the body.
    pub body_length: u32,
    /// Bytes at the front of the body that `checksum` covers; what follows carries checksums of
    /// its own. Never more than `body_length`.
    pub guarded_length: u32,
    /// Version of the body's layout.
    pub version: u16,
    /// What the body is: the number of a [`Kind`](crate::model::kind::Kind), or one from 240 on,
    /// which are left to transports.
    pub kind: u8,
    /// The queue that the message takes.
    pub lane: Lane,
    /// CRC-32C of the guarded part of the body.
    pub checksum: u32,
}

impl FrameHeader {
    /// The header of a body that is guarded whole, such as a transport's own handshake.
    ///
    /// # Errors
    /// [`CodecError::Long`] when the body is longer than a `u32` can say.
    pub fn guarding(kind: u8, lane: Lane, body: &[u8]) -> Result<Self, CodecError> {
        let body_length = length("frame", body.len())?;
        let checksum = crc32c::crc32c(body);
        let version = WIRE_VERSION;
        Ok(Self { body_length, guarded_length: body_length, version, kind, lane, checksum })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let mut place = bytes.as_mut_slice();
        place.put_u32_le(self.body_length);
        place.put_u32_le(self.guarded_length);
        place.put_u16_le(self.version);
        place.put_u8(self.kind);
        place.put_u8(lane_number(self.lane));
        place.put_u32_le(self.checksum);
        let (covered, mut place) = bytes.split_at_mut(COVERED_BYTES);
        place.put_u32_le(checksum_of_header(covered));
        bytes
    }

    /// The header that `bytes` begin with.
    ///
    /// The version and the kind are those the sender wrote, known here or not. The caller compares
    /// [`frame_bytes`](Self::frame_bytes) with its limit before it reserves memory for the body.
    ///
    /// # Errors
    /// [`CodecError::Short`] when there are fewer than 20 bytes, [`CodecError::Checksum`] when the
    /// header is damaged, [`CodecError::Invalid`] when a field contradicts another.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let covered = bytes.get(..COVERED_BYTES).unwrap_or_default();
        let mut fields = Fields::new("frame header", bytes);
        if bytes.len() < FRAME_HEADER_BYTES {
            return Err(fields.short(FRAME_HEADER_BYTES));
        }
        let body_length = fields.u32()?;
        let guarded_length = fields.u32()?;
        let version = fields.u16()?;
        let [kind, lane] = fields.array()?;
        let checksum = fields.u32()?;
        if fields.u32()? != checksum_of_header(covered) {
            return Err(CodecError::Checksum { what: "frame header" });
        }
        if guarded_length > body_length {
            return Fields::invalid("guarded length", guarded_length);
        }
        let lane = lane_of(lane)?;
        Ok(Self { body_length, guarded_length, version, kind, lane, checksum })
    }

    /// Bytes of the whole frame, header and body.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        u64::from(self.body_length) + 20
    }

    /// Checks a body against this header: its length, and the checksum of its guarded part.
    ///
    /// # Errors
    /// [`CodecError::Short`] or [`CodecError::Long`] when the length differs,
    /// [`CodecError::Checksum`] when the guarded part is damaged.
    pub fn check(&self, body: &[u8]) -> Result<(), CodecError> {
        let what = "frame";
        let need = usize::try_from(self.body_length).unwrap_or(usize::MAX);
        if body.len() < need {
            return Err(CodecError::Short { what, have: body.len(), need });
        }
        if body.len() > need {
            return Err(CodecError::Long { what, bytes: body.len(), bytes_max: self.body_length });
        }
        let guarded = usize::try_from(self.guarded_length).ok().and_then(|end| body.get(..end));
        if guarded.map(crc32c::crc32c) != Some(self.checksum) {
            return Err(CodecError::Checksum { what });
        }
        Ok(())
    }
}

/// CRC-32C of a header's covered bytes. They are so few that where they lie decides what it costs:
/// at a multiple of eight they are two steps, elsewhere most of them are taken one by one.
fn checksum_of_header(covered: &[u8]) -> u32 {
    #[repr(align(8))]
    struct Aligned([u8; COVERED_BYTES]);
    let aligned = covered.try_into().map(Aligned);
    aligned.map_or_else(|_| crc32c::crc32c(covered), |aligned| crc32c::crc32c(&aligned.0))
}

const fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Data => 1,
        Lane::Bulk => 2,
    }
}

fn lane_of(number: u8) -> Result<Lane, CodecError> {
    match number {
        0 => Ok(Lane::Control),
        1 => Ok(Lane::Data),
        2 => Ok(Lane::Bulk),
        other => Fields::invalid("lane", other),
    }
}

/// Encoded frames, as the segments that a vectored write takes.
///
/// Large payloads are shared and not copied; everything between them lies in one buffer, so several
/// small frames leave as one segment. The buffer is used again once the segments cut from it are
/// gone, so a connection keeps one `FrameParts` and encodes without an allocation per message.
#[derive(Debug)]
pub struct FrameParts {
    /// Everything that is not shared, in order.
    scratch: BytesMut,
    /// Shared bytes and the length of `scratch` in front of which they stand; ascending.
    shared: Vec<(usize, Bytes)>,
    /// The sum of the shared bytes' lengths.
    shared_bytes: usize,
    /// Bytes that one frame may take.
    frame_bytes_max: u32,
    /// What the other end speaks.
    version: u16,
}

/// How far encoded frames go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    scratch: usize,
    shared: usize,
    shared_bytes: usize,
}

impl Mark {
    /// Bytes of all frames up to there.
    const fn bytes(&self) -> usize {
        self.scratch + self.shared_bytes
    }
}

impl Default for FrameParts {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameParts {
    /// No frames yet; one may be as long as its header can say.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(u32::MAX)
    }

    /// No frames yet; one of more than `frame_bytes_max` bytes, header and body, is refused.
    #[must_use]
    pub fn with_limit(frame_bytes_max: u32) -> Self {
        Self {
            scratch: BytesMut::new(),
            shared: Vec::new(),
            shared_bytes: 0,
            frame_bytes_max,
            version: WIRE_VERSION,
        }
    }

    /// The same for an end that speaks `version`.
    #[must_use]
    pub const fn in_version(mut self, version: u16) -> Self {
        self.version = version;
        self
    }

    /// What the other end speaks.
    pub(super) const fn version(&self) -> u16 {
        self.version
    }

    /// How far the frames go, for [`back_to`](Self::back_to).
    pub(super) fn mark(&self) -> Mark {
        let (shared, shared_bytes) = (self.shared.len(), self.shared_bytes);
        Mark { scratch: self.scratch.len(), shared, shared_bytes }
    }

    /// Forgets the frames that were added since; none may have been taken.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.scratch.truncate(mark.scratch);
        self.shared.truncate(mark.shared);
        self.shared_bytes = mark.shared_bytes;
    }

    /// Bytes of all frames that were encoded and not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scratch.len() + self.shared_bytes
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves all segments to `into`, in the order in which they must be written; none is empty.
    pub fn take_segments(&mut self, into: &mut impl Extend<Bytes>) {
        let mut taken = 0;
        for (position, bytes) in self.shared.drain(..) {
            if position > taken {
                into.extend([self.scratch.split_to(position - taken).freeze()]);
            }
            taken = position;
            into.extend([bytes]);
        }
        if !self.scratch.is_empty() {
            into.extend([self.scratch.split().freeze()]);
        }
        self.shared_bytes = 0;
    }

    /// Copies all frames into one contiguous buffer and forgets them; for whoever cannot write
    /// segments.
    #[must_use]
    pub fn take_bytes(&mut self) -> Bytes {
        let mut segments = Vec::new();
        self.take_segments(&mut segments);
        match segments.as_slice() {
            [one] => one.clone(),
            many => Bytes::from(many.concat()),
        }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.scratch.clear();
        self.shared.clear();
        self.shared_bytes = 0;
    }

    /// Starts a frame behind those that are there.
    pub(super) fn begin(&mut self) -> FrameWriter<'_> {
        if self.scratch.capacity() == 0 {
            self.scratch.reserve(SCRATCH_BYTES);
        }
        let start = self.mark();
        self.scratch.put_bytes(0, FRAME_HEADER_BYTES);
        let checked_to = self.scratch.len();
        FrameWriter { parts: self, start, checked_to, checksum: 0, guarded_bytes: None }
    }
}

/// Writes one frame; the parts are as before if it is not finished.
#[derive(Debug)]
pub(super) struct FrameWriter<'a> {
    parts: &'a mut FrameParts,
    /// How far the frames before it go.
    start: Mark,
    /// Length of the scratch that `checksum` covers.
    checked_to: usize,
    /// CRC-32C of the guarded part, as far as it was computed.
    checksum: u32,
    /// Bytes of the guarded part, once it has ended.
    guarded_bytes: Option<usize>,
}

impl FrameWriter<'_> {
    /// The version that the other end speaks.
    pub(super) const fn version(&self) -> u16 {
        self.parts.version
    }

    /// Where fields are written.
    pub(super) const fn fields(&mut self) -> &mut BytesMut {
        &mut self.parts.scratch
    }

    /// Makes room for `first` bytes, and items of `fixed` bytes each and the payloads that
    /// [`put_shared`] would copy, so that a long frame is not moved while it is written.
    ///
    /// [`put_shared`]: Self::put_shared
    pub(super) fn reserve<'a>(
        &mut self,
        first: usize,
        fixed: usize,
        payloads: impl Iterator<Item = &'a Bytes>,
    ) {
        let copied = |bytes: &Bytes| if bytes.len() <= COPIED_BYTES_MAX { bytes.len() } else { 0 };
        let items: usize = payloads.map(|bytes| fixed + copied(bytes)).sum();
        self.parts.scratch.reserve(first + items);
    }

    /// Writes bytes that may be shared instead of copied.
    pub(super) fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            self.parts.scratch.extend_from_slice(bytes);
            return;
        }
        if self.guarded_bytes.is_none() {
            self.check_scratch();
            self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        }
        self.parts.shared.push((self.parts.scratch.len(), bytes.clone()));
        self.parts.shared_bytes += bytes.len();
    }

    /// Ends the guarded part: what follows carries checksums of its own.
    pub(super) fn end_guard(&mut self) {
        if self.guarded_bytes.is_none() {
            self.check_scratch();
            self.guarded_bytes = Some(self.body_bytes());
        }
    }

    /// Completes the frame.
    ///
    /// # Errors
    /// [`CodecError::Long`] when it is longer than a frame may be.
    pub(super) fn finish(mut self, kind: u8, lane: Lane) -> Result<(), CodecError> {
        self.end_guard();
        let bytes = self.body_bytes() + FRAME_HEADER_BYTES;
        let bytes_max = self.parts.frame_bytes_max;
        let long = CodecError::Long { what: "frame", bytes, bytes_max };
        if u32::try_from(bytes).map_or(true, |bytes| bytes > bytes_max) {
            return Err(long);
        }
        let header = FrameHeader {
            body_length: u32::try_from(self.body_bytes()).map_err(|_| long.clone())?,
            guarded_length: u32::try_from(self.guarded_bytes.unwrap_or(0)).map_err(|_| long)?,
            version: self.parts.version,
            kind,
            lane,
            checksum: self.checksum,
        };
        let place = self.start.scratch..self.start.scratch + FRAME_HEADER_BYTES;
        if let Some(place) = self.parts.scratch.get_mut(place) {
            place.copy_from_slice(&header.encode());
        }
        self.start = self.parts.mark();
        Ok(())
    }

    fn body_bytes(&self) -> usize {
        self.parts.len() - self.start.bytes() - FRAME_HEADER_BYTES
    }

    fn check_scratch(&mut self) {
        let unchecked = self.parts.scratch.get(self.checked_to..).unwrap_or_default();
        self.checksum = crc32c::crc32c_append(self.checksum, unchecked);
        self.checked_to = self.parts.scratch.len();
    }
}

impl Drop for FrameWriter<'_> {
    /// Takes an unfinished frame back; a finished one starts where it ends.
    fn drop(&mut self) {
        self.parts.back_to(self.start);
    }
}
