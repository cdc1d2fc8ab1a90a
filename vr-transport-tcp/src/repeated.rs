//! What several replicas are told alike is encoded once.

use bytes::Bytes;
use vr_core::model::message::{Envelope, Message};

/// Segments of what is remembered, at most: payloads that are shared instead of copied have one each,
/// and to share so many once more is no less work than to encode them again.
const SEGMENTS_MAX: usize = 4;

/// The last message of a kind that usually goes to more than one replica, and its bytes. It is
/// forgotten with the next flush, so that it keeps nothing alive.
#[derive(Debug, Default)]
pub(crate) struct Repeated(Option<Encoded>);

#[derive(Debug)]
struct Encoded {
    envelope: Envelope,
    version: u16,
    segments: Vec<Bytes>,
    bytes: usize,
}

impl Repeated {
    /// Whether it is worth while to remember `envelope`: the others are small, or for one end only.
    pub(crate) const fn is_for_several(envelope: &Envelope) -> bool {
        matches!(envelope.message, Message::Prepare(_))
    }

    /// The segments of `envelope` in `version` and their bytes, if it is what was remembered last.
    pub(crate) fn get(&self, envelope: &Envelope, version: u16) -> Option<(&[Bytes], usize)> {
        let known = self.0.as_ref()?;
        let is_same = known.version == version && known.envelope == *envelope;
        is_same.then_some((known.segments.as_slice(), known.bytes))
    }

    /// Remembers what `envelope` is in `version`, if that is in few segments.
    pub(crate) fn note<'a>(
        &mut self,
        envelope: &Envelope,
        version: u16,
        segments: impl ExactSizeIterator<Item = &'a Bytes>,
    ) {
        if segments.len() > SEGMENTS_MAX {
            return;
        }
        let segments: Vec<_> = segments.cloned().collect();
        let bytes = segments.iter().map(Bytes::len).sum();
        self.0 = Some(Encoded { envelope: envelope.clone(), version, segments, bytes });
    }

    /// Forgets it.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}
