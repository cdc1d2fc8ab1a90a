//! The bytes of a checkpoint: chunks of one size, a manifest that names them, and their digest.

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::model::{
    durable::CheckpointId,
    types::{Checksum, ClientId, Nonce, OpNumber, RequestNumber},
};

/// Bytes of every chunk of a checkpoint but the last, which may have fewer.
///
/// Part of the format: the digest that replicas compare depends on it.
pub const CHUNK_BYTES: u32 = 256 << 10;

/// What a checkpoint consists of. Its digest is the checkpoint's, so whoever knows the id of a
/// checkpoint can verify its manifest, and with that each chunk by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Bytes of all chunks together.
    pub bytes: u64,
    /// The checksum of each chunk.
    pub chunks: Vec<Checksum>,
}

/// What a manifest says of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkFacts {
    /// Its length.
    pub bytes: u32,
    /// XXH3-128 of its bytes.
    pub checksum: Checksum,
}

impl ChunkFacts {
    /// Whether `chunk` is the one that is meant.
    #[must_use]
    pub fn holds(&self, chunk: &[u8]) -> bool {
        u32::try_from(chunk.len()) == Ok(self.bytes) && self.checksum == Checksum::of(chunk)
    }
}

impl Manifest {
    /// How many chunks `bytes` take.
    #[must_use]
    pub fn count_of(bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(CHUNK_BYTES))
    }

    /// Whether there are as many chunks as the bytes take.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        u64::try_from(self.chunks.len()) == Ok(Self::count_of(self.bytes))
    }

    /// The number of chunks.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of the chunk at `index`; zero if there is none.
    #[must_use]
    pub fn bytes_of(&self, index: u32) -> u32 {
        let before = u64::from(index) * u64::from(CHUNK_BYTES);
        let left = self.bytes.saturating_sub(before).min(u64::from(CHUNK_BYTES));
        u32::try_from(left).unwrap_or(CHUNK_BYTES)
    }

    /// What the chunk at `index` is; `None` if there is none.
    #[must_use]
    pub fn facts(&self, index: u32) -> Option<ChunkFacts> {
        let checksum = usize::try_from(index).ok().and_then(|index| self.chunks.get(index));
        checksum.map(|checksum| ChunkFacts { bytes: self.bytes_of(index), checksum: *checksum })
    }

    /// Whether `chunk` is the one at `index`.
    #[must_use]
    pub fn holds(&self, index: u32, chunk: &[u8]) -> bool {
        self.facts(index).is_some_and(|facts| facts.holds(chunk))
    }

    /// XXH3-128 over the number of bytes and the chunks' checksums.
    #[must_use]
    pub fn digest(&self) -> Checksum {
        let mut hash = Xxh3::new();
        hash.update(&self.bytes.to_le_bytes());
        for chunk in &self.chunks {
            hash.update(&chunk.0.to_le_bytes());
        }
        Checksum(hash.digest128())
    }

    /// The manifest as it is stored: the number of bytes, then the checksums, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 16 * self.chunks.len());
        bytes.put_u64_le(self.bytes);
        for chunk in &self.chunks {
            bytes.put_u128_le(chunk.0);
        }
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) made; `None` if it is not the manifest with `digest`.
    #[must_use]
    pub fn of_bytes(mut bytes: &[u8], digest: Checksum) -> Option<Self> {
        if bytes.len() < 8 || !(bytes.len() - 8).is_multiple_of(16) {
            return None;
        }
        let mut manifest = Self { bytes: bytes.get_u64_le(), chunks: Vec::new() };
        while bytes.has_remaining() {
            manifest.chunks.push(Checksum(bytes.get_u128_le()));
        }
        (manifest.is_sound() && manifest.digest() == digest).then_some(manifest)
    }
}

/// A checkpoint that is being put together, chunk by chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Draft {
    /// Of this replica's own state after this op; its digest is known at the end.
    Own(OpNumber),
    /// Of what other replicas have.
    Of(CheckpointId),
}

/// A session as the client table of a checkpoint has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// Whose.
    pub client: ClientId,
    /// The op that opened it.
    pub session: OpNumber,
    /// What the registration carried.
    pub nonce: Nonce,
    /// The highest request number executed.
    pub done: RequestNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(bytes: u64) -> Manifest {
        let chunks = (0..Manifest::count_of(bytes)).map(|index| Checksum(u128::from(index)));
        Manifest { bytes, chunks: chunks.collect() }
    }

    #[test]
    fn the_last_chunk_may_be_short() {
        let size = u64::from(CHUNK_BYTES);
        let manifest = manifest(2 * size + 5);
        assert!(manifest.is_sound() && manifest.count() == 3);
        let sizes: Vec<u32> = (0..4).map(|index| manifest.bytes_of(index)).collect();
        assert_eq!(sizes, [CHUNK_BYTES, CHUNK_BYTES, 5, 0]);
        assert_eq!(self::manifest(size).count(), 1);
        assert_eq!(self::manifest(0).count(), 0);
    }

    #[test]
    fn only_the_manifest_of_the_digest_is_read_back() {
        let manifest = manifest(3 * u64::from(CHUNK_BYTES));
        let (bytes, digest) = (manifest.to_bytes(), manifest.digest());
        assert_eq!(Manifest::of_bytes(&bytes, digest), Some(manifest));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Manifest::of_bytes(&damaged, digest), None, "byte {at}");
            assert_eq!(Manifest::of_bytes(&bytes[..at], digest), None, "{at} bytes");
        }
    }

    #[test]
    fn a_chunk_is_told_from_another() {
        let chunk = [7_u8; 9];
        let manifest = Manifest { bytes: 9, chunks: vec![Checksum::of(&chunk)] };
        assert!(manifest.holds(0, &chunk));
        assert!(!manifest.holds(0, &chunk[..8]) && !manifest.holds(1, &chunk));
        assert!(!manifest.holds(0, &[8; 9]));
    }
}
