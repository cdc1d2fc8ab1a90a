//! A map from clients to what is known of each: quick to ask, and gone through in order only when
//! somebody sorts it.

#![expect(
    clippy::disallowed_types,
    reason = "hashed with a fixed seed, and nothing here depends on the order of its entries"
)]

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

use crate::model::types::ClientId;

/// Values by client.
///
/// Client ids are drawn at random, so two multiplications spread them well enough. Two clients that
/// were chosen to collide slow a look-up down and change nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByClient<T> {
    values: HashMap<ClientId, T, BuildHasherDefault<Spread>>,
}

impl<T> Default for ByClient<T> {
    fn default() -> Self {
        Self { values: HashMap::default() }
    }
}

impl<T> ByClient<T> {
    /// What is known of `client`.
    #[must_use]
    pub fn get(&self, client: ClientId) -> Option<&T> {
        self.values.get(&client)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, client: ClientId) -> Option<&mut T> {
        self.values.get_mut(&client)
    }

    /// Notes `value`, unless something is known of `client` already; returns what is.
    pub fn get_or_insert(&mut self, client: ClientId, value: T) -> &mut T {
        self.values.entry(client).or_insert(value)
    }

    /// Notes `value`, in the place of what is known of `client`.
    pub fn insert(&mut self, client: ClientId, value: T) {
        self.values.insert(client, value);
    }

    /// Forgets `client`; what was known of it.
    pub fn remove(&mut self, client: ClientId) -> Option<T> {
        self.values.remove(&client)
    }

    /// All of them, in order of the clients.
    #[must_use]
    pub fn sorted(&self) -> Vec<(ClientId, &T)> {
        let mut all: Vec<_> = self.values.iter().map(|(client, value)| (*client, value)).collect();
        all.sort_unstable_by_key(|(client, _)| *client);
        all
    }

    /// Keeps what `keeps` says, which must judge each value by itself.
    pub fn retain(&mut self, mut keeps: impl FnMut(ClientId, &mut T) -> bool) {
        self.values.retain(|client, value| keeps(*client, value));
    }

    /// How many clients are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// Spreads the bits of a number over 64.
#[derive(Clone, Copy, Debug, Default)]
struct Spread(u64);

/// Odd, with its bits in no pattern.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0.rotate_left(29) ^ number).wrapping_mul(FACTOR);
        self.0 = product ^ (product >> 32);
    }

    fn write_u128(&mut self, number: u128) {
        let [low, high] = [number, number >> 64]
            .map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or_default());
        self.write_u64(low);
        self.write_u64(high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_from_its_first_value_until_it_is_removed() {
        let mut map = ByClient::default();
        assert_eq!(*map.get_or_insert(ClientId(1), 10), 10);
        assert_eq!(*map.get_or_insert(ClientId(1), 20), 10, "the first stays");
        if let Some(value) = map.get_mut(ClientId(1)) {
            *value = 30;
        }
        assert_eq!((map.get(ClientId(1)), map.get(ClientId(2))), (Some(&30), None));
        map.remove(ClientId(1));
        assert!(map.is_empty());
    }

    #[test]
    fn what_is_not_kept_is_gone() {
        let mut map = ByClient::default();
        for id in 0..100 {
            assert_eq!(*map.get_or_insert(ClientId(id), id), id);
        }
        map.retain(|_, value| *value % 2 == 0);
        let sorted = map.sorted();
        assert!(sorted.iter().map(|(client, _)| client.0).eq((0..100).step_by(2)));
        assert_eq!((map.len(), map.get(ClientId(7)), map.get(ClientId(8))), (50, None, Some(&8)));
    }

    #[test]
    fn ids_that_differ_anywhere_have_hashes_that_differ() {
        let hash = |id: u128| {
            let mut spread = Spread::default();
            spread.write_u128(id);
            spread.finish()
        };
        let mut hashes: Vec<u64> = (0..128).map(|bit| hash(1 << bit)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 128);
    }
}
