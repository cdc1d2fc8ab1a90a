//! A chunk of a checkpoint as it travels: as it is, or as an LZ4 block where that saves enough.

use bytes::Bytes;
use lz4_flex::block;

use crate::model::checkpoint::{CHUNK_BYTES, ChunkFacts};

/// What a block has to save: at least one part of so many, or the chunk travels as it is.
const SAVED_PART: usize = 8;

/// The bytes of a chunk as they travel.
///
/// A block does not say how long its chunk is: whoever asked knows that from the manifest, and makes
/// room for so much and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// As they are.
    Raw(Bytes),
    /// One LZ4 block.
    Compressed(Bytes),
}

impl Carried {
    /// `chunk` as a block, if that saves an eighth of it at least.
    #[must_use]
    pub fn compressed(chunk: Bytes) -> Self {
        let mut block = vec![0; block::get_maximum_output_size(chunk.len())];
        let enough = chunk.len().saturating_sub(chunk.len().div_ceil(SAVED_PART));
        match block::compress_into(&chunk, &mut block) {
            // Copied, so that what waits to be sent holds no more memory than it has bytes.
            Ok(length) if length <= enough => match block.get(..length) {
                Some(block) => Self::Compressed(Bytes::copy_from_slice(block)),
                None => Self::Raw(chunk),
            },
            Ok(_) | Err(_) => Self::Raw(chunk),
        }
    }

    /// How many bytes travel.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Raw(bytes) | Self::Compressed(bytes) => bytes.len(),
        }
    }

    /// Whether nothing travels.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the length is one that such a chunk can have, before anything else is looked at: its
    /// own, or less in a block.
    #[must_use]
    pub fn fits(&self, facts: ChunkFacts) -> bool {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        match self {
            Self::Raw(_) => length == facts.bytes,
            Self::Compressed(_) => length < facts.bytes,
        }
    }

    /// The chunk, if it is the one that has these facts.
    #[must_use]
    pub fn open(self, facts: ChunkFacts) -> Option<Bytes> {
        let chunk = match self {
            Self::Raw(chunk) => chunk,
            Self::Compressed(block) => decompress(&block, facts.bytes)?.into(),
        };
        facts.holds(&chunk).then_some(chunk)
    }
}

/// What is in `block`, if it is no more than `bytes`, and no more than a chunk. Takes memory for so
/// much, whatever the block says.
pub(super) fn decompress(block: &[u8], bytes: u32) -> Option<Vec<u8>> {
    let mut chunk = vec![0; usize::try_from(bytes.min(CHUNK_BYTES)).ok()?];
    let length = block::decompress_into(block, &mut chunk).ok()?;
    chunk.truncate(length);
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::model::types::Checksum;

    fn facts(chunk: &[u8]) -> ChunkFacts {
        let bytes = u32::try_from(chunk.len()).unwrap();
        ChunkFacts { bytes, checksum: Checksum::of(chunk) }
    }

    /// Bytes in which nothing repeats.
    fn noise(length: usize) -> Bytes {
        let words = (0_u64..).flat_map(|at| Checksum::of(&at.to_le_bytes()).0.to_le_bytes());
        words.take(length).collect()
    }

    fn block_of(chunk: &[u8]) -> Bytes {
        let carried = Carried::compressed(Bytes::copy_from_slice(chunk));
        let Carried::Compressed(block) = carried else { panic!("it saves enough") };
        block
    }

    fn full() -> usize {
        usize::try_from(CHUNK_BYTES).unwrap()
    }

    #[test]
    fn what_repeats_travels_as_less_and_comes_back() {
        for length in [64, 1000, full() - 1, full()] {
            let chunk = Bytes::from(b"key value ".repeat(length / 10 + 1)).slice(..length);
            let carried = Carried::compressed(chunk.clone());
            assert!(matches!(carried, Carried::Compressed(_)) && carried.len() < length / 2);
            assert!(carried.fits(facts(&chunk)));
            assert_eq!(carried.open(facts(&chunk)), Some(chunk));
        }
    }

    #[test]
    fn what_does_not_repeat_travels_as_it_is() {
        for length in [0, 1, 7, 8, 12, 1000, full()] {
            let chunk = noise(length);
            let carried = Carried::compressed(chunk.clone());
            assert_eq!(carried, Carried::Raw(chunk.clone()), "{length} bytes");
            assert!(carried.fits(facts(&chunk)) && carried.is_empty() == (length == 0));
            assert_eq!(carried.open(facts(&chunk)), Some(chunk));
        }
    }

    /// Whatever part of a chunk repeats: a block is sent where it saves an eighth, and nowhere else.
    #[test]
    fn an_eighth_has_to_be_saved() {
        let mut both = [false; 2];
        for percent in 0..100 {
            let noisy = full() / 100 * percent;
            let chunk = [noise(noisy).as_ref(), &vec![0; full() - noisy]].concat();
            match Carried::compressed(chunk.into()) {
                Carried::Compressed(block) => {
                    assert!(block.len() <= full() / 8 * 7, "{} bytes", block.len());
                    both[1] = true;
                }
                Carried::Raw(_) => {
                    assert!(percent > 85, "{percent} percent");
                    both[0] = true;
                }
            }
        }
        assert_eq!(both, [true; 2]);
    }

    #[test]
    fn a_chunk_of_another_length_or_content_is_refused() {
        let chunk = b"a".repeat(1000);
        let expected = facts(&chunk);
        for other in [b"a".repeat(999), b"a".repeat(1001), b"b".repeat(1000)] {
            assert_eq!(Carried::Compressed(block_of(&other)).open(expected), None);
            assert_eq!(Carried::Raw(other.into()).open(expected), None);
        }
        let raw = |length| Carried::Raw(noise(length));
        assert!(raw(1000).fits(expected) && !raw(999).fits(expected) && !raw(1001).fits(expected));
        let block = |length| Carried::Compressed(noise(length));
        assert!(block(999).fits(expected) && !block(1000).fits(expected));
    }

    /// A match that says that it goes on for megabytes, in a few bytes.
    #[test]
    fn a_block_that_grows_beyond_its_chunk_is_refused() {
        let bomb = block_of(&vec![0; full()]);
        let longer = [&bomb[..bomb.len() - 8], &[0xff; 20_000], &[0; 8]].concat();
        for bytes in [0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, u32::MAX] {
            let held = decompress(&longer, bytes).map_or(0, |chunk| chunk.capacity());
            assert!(held <= full(), "{held} bytes");
            let facts = ChunkFacts { bytes, checksum: Checksum(1) };
            assert_eq!(Carried::Compressed(longer.clone().into()).open(facts), None);
        }
        assert_eq!(decompress(&bomb, CHUNK_BYTES - 1), None);
        assert_eq!(decompress(&bomb, u32::MAX), Some(vec![0; full()]));
    }

    #[test]
    fn every_cut_of_a_block_is_refused() {
        let chunk = b"one two three one two three four four four four".repeat(9);
        let block = block_of(&chunk);
        for length in 0..block.len() {
            let cut = Carried::Compressed(block.slice(..length));
            assert_eq!(cut.open(facts(&chunk)), None, "{length} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_chunk_comes_back(
            part in vec(any::<u8>(), 0..200), times in 1..50_usize, tail in vec(any::<u8>(), 0..300),
        ) {
            let chunk = Bytes::from([part.repeat(times), tail].concat());
            let carried = Carried::compressed(chunk.clone());
            prop_assert!(carried.fits(facts(&chunk)));
            prop_assert_eq!(carried.open(facts(&chunk)), Some(chunk));
        }

        #[test]
        fn any_bytes_are_a_chunk_or_none(block in vec(any::<u8>(), 0..300), bytes in 0..2000_u32) {
            let length = usize::try_from(bytes).unwrap();
            if let Some(chunk) = decompress(&block, bytes) {
                prop_assert!(chunk.len() <= length && chunk.capacity() <= length);
                let (carried, facts) = (Carried::Compressed(block.into()), facts(&chunk));
                prop_assert_eq!(carried.open(facts), Some(chunk.into()));
            }
        }

        #[test]
        fn a_damaged_block_is_the_same_chunk_or_none(
            place in any::<prop::sample::Index>(), mask in 1..=u8::MAX,
        ) {
            let chunk = b"it was the best of times, it was the worst of times, ".repeat(20);
            let mut block = block_of(&chunk).to_vec();
            let place = place.index(block.len());
            block[place] ^= mask;
            let opened = Carried::Compressed(block.into()).open(facts(&chunk));
            prop_assert!(opened.is_none_or(|opened| opened == chunk));
        }
    }
}
