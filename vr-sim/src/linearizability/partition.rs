//! Divides a history into parts that have no key in common; each can be checked on its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::linearizability::{
    history::Call,
    model::{Model, Scope},
};

/// Calls that share keys, directly or through each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Their keys; none if the history is not divided.
    pub(crate) keys: BTreeSet<String>,
    /// Their places in the history.
    pub(crate) calls: Vec<usize>,
}

/// The parts of a history, in the order of their first calls.
pub(crate) fn parts<M: Model>(model: &M, calls: &[Call<M::Operation, M::Outcome>]) -> Vec<Part> {
    let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
    let mut part_of_key: BTreeMap<String, usize> = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        let Scope::Keys(keys) = model.scope(&call.operation) else {
            return vec![Part { keys: BTreeSet::new(), calls: (0..calls.len()).collect() }];
        };
        let mut joined = Part { keys: keys.into_iter().collect(), calls: vec![at] };
        let touched: BTreeSet<usize> =
            joined.keys.iter().filter_map(|key| part_of_key.get(key).copied()).collect();
        for part in touched.iter().filter_map(|part| parts.remove(part)) {
            joined.keys.extend(part.keys);
            joined.calls.extend(part.calls);
        }
        joined.calls.sort_unstable();
        let first = joined.calls.first().copied().unwrap_or(at);
        part_of_key.extend(joined.keys.iter().map(|key| (key.clone(), first)));
        parts.insert(first, joined);
    }
    parts.into_values().collect()
}
