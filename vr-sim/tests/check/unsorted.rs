//! A service whose state is a `HashMap`, which the snapshot writes in its order of iteration.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};

use crate::{assert_says, complaint};

#[derive(Default, Serialize, Deserialize)]
struct Votes(HashMap<u64, u64>);

impl StateMachine for Votes {
    type Operation = u64;
    type Reply = u64;
    type Query = u64;
    type Answer = Option<u64>;

    fn apply(&mut self, _: &Context, candidate: u64) -> u64 {
        let votes = self.0.entry(candidate).or_default();
        *votes += 1;
        *votes
    }

    fn query(&self, _: &QueryContext, candidate: u64) -> Option<u64> {
        self.0.get(&candidate).copied()
    }

    vr_core::serde_snapshot!();
}

#[test]
fn a_snapshot_in_the_order_of_a_hash_map_is_found() {
    let text = complaint::<Votes>(|sim| {
        sim.operations(|rng| rng.below(30)).queries(|rng| rng.below(30));
    });
    assert_says(
        &text,
        &[
            "two state machines restored from one snapshot",
            "write different snapshots",
            "Equal states must write equal snapshots",
            "use BTreeMap",
        ],
    );
}
