//! The only source of chance in a simulation: xoshiro256++, one stream per concern.

/// A pseudo-random generator whose sequence never changes between versions, so that a seed keeps
/// its meaning for years.
///
/// # Source
/// Blackman and Vigna, "Scrambled linear pseudorandom number generators": xoshiro256++, seeded by
/// splitmix64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    /// The generator that `seed` stands for.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mixer = seed;
        Self { state: core::array::from_fn(|_| splitmix64(&mut mixer)) }
    }

    /// The generator of one concern: what is drawn from it never shifts what another one draws.
    ///
    /// `number` tells several of the same concern apart, such as the replicas' disks.
    #[must_use]
    pub fn stream(seed: u64, concern: &str, number: u64) -> Self {
        let mut mixed = seed;
        for byte in concern.bytes() {
            mixed = splitmix64(&mut mixed) ^ u64::from(byte);
        }
        mixed = splitmix64(&mut mixed) ^ number;
        Self::new(splitmix64(&mut mixed))
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (self.state[1] << 17), d.rotate_left(45)];
        result
    }

    /// The next 128 bits.
    pub const fn next_u128(&mut self) -> u128 {
        let high = self.next_u64();
        let low = self.next_u64();
        u128_of(high, low)
    }

    /// A number below `bound`; zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// A position in something of `length` items; zero when there are none.
    pub fn position(&mut self, length: usize) -> usize {
        let bound = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.below(bound)).unwrap_or(0)
    }

    /// A number from `low` up to and including `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low.saturating_add(self.below(high.saturating_sub(low).saturating_add(1)))
    }

    /// True in `millionths` of a million cases.
    pub fn chance(&mut self, millionths: u32) -> bool {
        millionths != 0 && self.below(1_000_000) < u64::from(millionths)
    }

    /// One of `items`; `None` when there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.position(items.len()))
    }
}

const fn u128_of(high: u64, low: u64) -> u128 {
    let [a, b, c, d, e, f, g, h] = high.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = low.to_be_bytes();
    u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

const fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut rng = Prng { state: [1, 2, 3, 4] };
        let expected = [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386];
        assert_eq!(expected.map(|_| rng.next_u64()), expected);
    }

    #[test]
    fn streams_of_one_seed_differ_by_concern_and_number() {
        let first = |concern, number| Prng::stream(7, concern, number).next_u64();
        assert_eq!(first("disk", 1), first("disk", 1));
        assert_ne!(first("disk", 1), first("disk", 2));
        assert_ne!(first("disk", 1), first("network", 1));
    }

    #[test]
    fn bounds_are_kept() {
        let mut rng = Prng::new(1);
        for _ in 0..1000 {
            assert!(rng.below(3) < 3);
            assert!((5..=9).contains(&rng.between(5, 9)));
        }
        assert_eq!(rng.below(0), 0);
        assert!(!rng.chance(0));
        assert!(rng.chance(1_000_000));
    }
}
