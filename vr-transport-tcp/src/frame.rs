//! Cuts what a connection received into frames that share the received bytes.
//!
//! A payload that stays in memory keeps alive the allocation that its frame lies in. So that a tiny
//! payload never pins a large buffer, the frames of one read that come to less than a quarter of
//! the block are copied out, together, into an allocation of exactly their size, and the block is
//! read into again; frames that fill more of it are handed on in place. Either way the memory kept
//! alive is at most four times the frames that arrived together.

use std::{collections::VecDeque, mem};

use bytes::{Buf, Bytes, BytesMut};
use vr_core::model::encoding::{
    CodecError,
    frame::{FRAME_HEADER_BYTES, FrameHeader},
};

/// Bytes of the block that connections read into.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// Frames of one read that come to fewer bytes than this are copied out of the block.
const SHARED_BYTES_MIN: usize = BLOCK_BYTES / 4;

/// Room that a read finds at least.
const ROOM_BYTES_MIN: usize = 8 << 10;

/// A piece of a frame of up to this many bytes gives the block back while it waits for the rest.
const REST_BYTES_MAX: usize = 2 << 10;

/// Why a connection cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The next frame is longer than this end takes.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}; raise message_bytes_max")]
    TooLong { bytes: u64, bytes_max: u32 },
    /// The next frame's header is damaged, or these are no frames at all.
    #[error("damaged or foreign bytes: {0}")]
    Damaged(#[from] CodecError),
}

/// What one connection received and nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Complete frames.
    batch: Bytes,
    /// Their headers.
    headers: VecDeque<FrameHeader>,
    /// What follows them: less than one frame.
    rest: BytesMut,
    /// Bytes that the frame in `rest` takes, as far as known.
    needed: usize,
    /// Found behind `batch`.
    broken: Option<FrameError>,
    frame_bytes_max: u32,
}

impl Inbox {
    pub(crate) fn new(frame_bytes_max: u32) -> Self {
        Self {
            batch: Bytes::new(),
            headers: VecDeque::new(),
            rest: BytesMut::new(),
            needed: FRAME_HEADER_BYTES,
            broken: None,
            frame_bytes_max,
        }
    }

    /// Where to append what arrives; has room. `spare` is a block that connections share.
    pub(crate) fn room(&mut self, spare: &mut BytesMut) -> &mut BytesMut {
        if self.rest.len() <= REST_BYTES_MAX {
            spare.clear();
            spare.reserve(BLOCK_BYTES);
            if spare.capacity() > 2 * BLOCK_BYTES {
                *spare = BytesMut::with_capacity(BLOCK_BYTES);
            }
            spare.extend_from_slice(&self.rest);
            self.rest = mem::take(spare);
        }
        let missing = self.needed.saturating_sub(self.rest.len());
        if self.rest.capacity() - self.rest.len() < missing.max(ROOM_BYTES_MIN) {
            self.rest.reserve(missing.max(ROOM_BYTES_MIN));
        }
        &mut self.rest
    }

    /// Finds the complete frames in what arrived, and gives the block back if it can.
    pub(crate) fn gather(&mut self, spare: &mut BytesMut) {
        debug_assert!(self.batch.is_empty(), "frames are taken before more are read");
        let complete = self.scan();
        if complete >= SHARED_BYTES_MIN {
            self.batch = self.rest.split_to(complete).freeze();
        } else if complete > 0 {
            self.batch = Bytes::copy_from_slice(self.rest.get(..complete).unwrap_or_default());
            self.rest.advance(complete);
        }
        if self.rest.len() <= REST_BYTES_MAX && spare.capacity() == 0 {
            let rest = BytesMut::from(self.rest.as_ref());
            *spare = mem::replace(&mut self.rest, rest);
        }
    }

    /// Header and body of the next complete frame; `None` when more must be read.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(FrameHeader, Bytes)>, FrameError> {
        let Some(header) = self.headers.pop_front() else {
            return self.broken.clone().map_or(Ok(None), Err);
        };
        self.batch.advance(FRAME_HEADER_BYTES);
        let length = usize::try_from(header.body_length).unwrap_or(usize::MAX);
        Ok(Some((header, self.batch.split_to(length.min(self.batch.len())))))
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Bytes of the complete frames at the front of `rest`; notes their headers, and what comes
    /// behind them.
    fn scan(&mut self) -> usize {
        let mut complete = 0;
        loop {
            let left = self.rest.get(complete..).unwrap_or_default();
            self.needed = FRAME_HEADER_BYTES;
            if left.len() < FRAME_HEADER_BYTES {
                return complete;
            }
            let header = match FrameHeader::decode(left) {
                Ok(header) => header,
                Err(damage) => {
                    self.broken = Some(damage.into());
                    return complete;
                }
            };
            let bytes = header.frame_bytes();
            if bytes > u64::from(self.frame_bytes_max) {
                self.broken = Some(FrameError::TooLong { bytes, bytes_max: self.frame_bytes_max });
                return complete;
            }
            self.needed = usize::try_from(bytes).unwrap_or(usize::MAX);
            if left.len() < self.needed {
                return complete;
            }
            self.headers.push_back(header);
            complete += self.needed;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vr_core::model::kind::Lane;

    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let header = FrameHeader::guarding(240, Lane::Data, body).unwrap();
        [header.encode().as_slice(), body].concat()
    }

    /// Feeds `bytes` in reads of up to `step` bytes; the frames that came out, and what ended it.
    fn cut(bytes: &[u8], step: usize, max: u32) -> (Vec<Bytes>, Option<FrameError>, Inbox) {
        let (mut inbox, mut spare, mut frames) = (Inbox::new(max), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step) {
            inbox.room(&mut spare).extend_from_slice(piece);
            inbox.gather(&mut spare);
            loop {
                match inbox.next_frame() {
                    Ok(Some((_, body))) => frames.push(body),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error), inbox),
                }
            }
        }
        (frames, None, inbox)
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bodies = [0, 1, 100, 5_000, 70_000, 3].map(|length| vec![7; length]);
        let bytes = bodies.each_ref().map(|body| frame(body)).concat();
        for step in [1_000, 19, 4_096, 65_536, 1 << 20] {
            let (frames, error, inbox) = cut(&bytes, step, 1 << 20);
            assert_eq!(frames, bodies, "in steps of {step}");
            assert_eq!((error, inbox.is_partial()), (None, false));
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_its_body_arrives() {
        let header = FrameHeader::guarding(240, Lane::Data, &[0; 81]).unwrap().encode();
        let (frames, error, _) = cut(&header, 64, 100);
        assert_eq!(frames.len(), 0);
        assert_eq!(error, Some(FrameError::TooLong { bytes: 101, bytes_max: 100 }));
    }

    #[test]
    fn frames_in_front_of_garbage_are_delivered() {
        let bytes = [frame(b"good"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()].concat();
        let (frames, error, _) = cut(&bytes, 1 << 20, 1 << 20);
        assert_eq!(frames.len(), 1);
        assert!(matches!(error, Some(FrameError::Damaged(_))));
    }

    #[test]
    fn a_frame_without_its_end_is_partial() {
        let bytes = frame(b"whole");
        let (frames, error, inbox) = cut(&bytes[..bytes.len() - 1], 1 << 20, 1 << 20);
        assert_eq!((frames.len(), error, inbox.is_partial()), (0, None, true));
    }

    #[test]
    fn few_bytes_do_not_keep_the_block() {
        let (mut inbox, mut spare) = (Inbox::new(1 << 20), BytesMut::new());
        let room = inbox.room(&mut spare);
        room.extend_from_slice(&frame(b"small"));
        let block = room.as_ptr();
        inbox.gather(&mut spare);
        let (_, kept) = inbox.next_frame().unwrap().unwrap();
        assert_eq!(inbox.room(&mut spare).as_ptr(), block, "the block is read into again");
        assert_eq!(kept, "small");
    }

    #[test]
    fn many_bytes_are_handed_on_in_place() {
        let (mut inbox, mut spare) = (Inbox::new(1 << 20), BytesMut::new());
        let room = inbox.room(&mut spare);
        room.extend_from_slice(&frame(&[7; SHARED_BYTES_MIN]));
        let block = room.as_ptr();
        inbox.gather(&mut spare);
        let (_, body) = inbox.next_frame().unwrap().unwrap();
        assert_eq!(body.as_ptr(), block.wrapping_add(FRAME_HEADER_BYTES));
    }

    proptest! {
        #[test]
        fn any_bytes_give_frames_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..64,
        ) {
            let (frames, _, inbox) = cut(&bytes, step, 1 << 10);
            let taken: usize = frames.iter().map(Bytes::len).sum();
            prop_assert!(taken + inbox.rest.len() <= bytes.len());
        }
    }
}
