//! The engine's only randomness: a generator whose seed the embedder gives.

use core::time::Duration;

use crate::model::types::Nonce;

/// xoshiro256++ by Blackman and Vigna; the same seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    /// A generator for `seed`.
    #[must_use]
    pub fn new(seed: u128) -> Self {
        let low = u64::try_from(seed & u128::from(u64::MAX)).unwrap_or(0);
        let high = u64::try_from(seed >> 64).unwrap_or(0);
        let mut mixed = low;
        let mut next = || {
            mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = mixed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let state = [next() ^ high, next(), next() ^ high.rotate_left(32), next()];
        Self { state }
    }

    /// 64 random bits.
    pub const fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let c1 = c ^ a;
        let d1 = d ^ b;
        self.state = [a ^ d1, b ^ c1, c1 ^ (b << 17), d1.rotate_left(45)];
        result
    }

    /// A nonce that no other call returns.
    pub fn nonce(&mut self) -> Nonce {
        Nonce((u128::from(self.next()) << 64) | u128::from(self.next()))
    }

    /// `base` lengthened by a random share of at most `percent` of it.
    pub fn jitter(&mut self, base: Duration, percent: u32) -> Duration {
        let thousandth = u32::try_from(self.next() % 1001).unwrap_or(0);
        base.saturating_add((base / 100_000).saturating_mul(percent.saturating_mul(thousandth)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut one, mut other, mut third) = (Prng::new(7), Prng::new(7), Prng::new(7 << 64));
        assert_eq!(one.nonce(), other.nonce());
        assert_ne!(one.nonce(), third.nonce());
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let base = Duration::from_millis(150);
        let mut prng = Prng::new(1);
        for _ in 0..1000 {
            let jittered = prng.jitter(base, 10);
            assert!(jittered >= base && jittered <= base + base / 10);
        }
    }
}
