//! A small key-value service for scenarios and sweeps: wrong if anything is lost or done twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};

use crate::prng::Prng;

/// Registers and counters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kv {
    values: BTreeMap<String, i64>,
}

/// What changes a [`Kv`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Gives the key a value; returns the one before.
    Put(String, i64),
    /// Adds to the key's value; returns the sum.
    Add(String, i64),
    /// Gives the key the second value if it has the first; returns the one it had.
    Swap(String, i64, i64),
}

impl StateMachine for Kv {
    type Operation = Op;
    type Reply = Option<i64>;
    type Query = String;
    type Answer = Option<i64>;

    fn apply(&mut self, _: &Context, operation: Op) -> Option<i64> {
        match operation {
            Op::Put(key, value) => self.values.insert(key, value),
            Op::Add(key, by) => {
                let value = self.values.entry(key).or_default();
                *value = value.wrapping_add(by);
                Some(*value)
            }
            Op::Swap(key, from, to) => {
                let value = self.values.get(&key).copied();
                if value == Some(from) {
                    self.values.insert(key, to);
                }
                value
            }
        }
    }

    fn query(&self, _: &QueryContext, key: String) -> Option<i64> {
        self.values.get(&key).copied()
    }

    vr_core::serde_snapshot!();
}

/// Gives `key` a value.
#[must_use]
pub fn put(key: &str, value: i64) -> Op {
    Op::Put(key.to_owned(), value)
}

/// Adds to the value of `key`.
#[must_use]
pub fn add(key: &str, by: i64) -> Op {
    Op::Add(key.to_owned(), by)
}

/// Asks for the value of `key`.
#[must_use]
pub fn get(key: &str) -> String {
    key.to_owned()
}

/// One of few keys, so that operations meet; now and then a long one.
pub fn drawn_key(rng: &mut Prng) -> String {
    let number = rng.below(8);
    if rng.below(40) == 0 { format!("k{number}{}", "-".repeat(3000)) } else { format!("k{number}") }
}

/// An operation as `rng` draws it.
pub fn drawn(rng: &mut Prng) -> Op {
    let key = drawn_key(rng);
    let value = i64::try_from(rng.below(100)).unwrap_or(0);
    match rng.below(4) {
        0 => Op::Put(key, value),
        1 => Op::Swap(key, value, value + 1),
        _ => Op::Add(key, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(kv: &mut Kv, operation: Op) -> Option<i64> {
        kv.apply(&Context::default(), operation)
    }

    #[test]
    fn replies_show_what_was_there() {
        let mut kv = Kv::default();
        assert_eq!(apply(&mut kv, put("a", 1)), None);
        assert_eq!(apply(&mut kv, add("a", 2)), Some(3));
        assert_eq!(apply(&mut kv, Op::Swap("a".into(), 1, 9)), Some(3));
        assert_eq!(apply(&mut kv, Op::Swap("a".into(), 3, 9)), Some(3));
        assert_eq!(kv.query(&QueryContext::default(), get("a")), Some(9));
    }
}
