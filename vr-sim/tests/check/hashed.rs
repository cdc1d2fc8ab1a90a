//! A set of tags that replies in the order of a `HashMap`.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};

use crate::{assert_says, complaint};

#[derive(Default, Serialize, Deserialize)]
struct Tags(std::collections::BTreeMap<u64, u64>);

impl StateMachine for Tags {
    type Operation = u64;
    type Reply = Vec<u64>;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, tag: u64) -> Vec<u64> {
        *self.0.entry(tag).or_default() += 1;
        let frequent: HashMap<u64, u64> = self.0.iter().map(|(tag, n)| (*tag, *n)).collect();
        frequent.into_keys().collect()
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0.values().sum()
    }

    vr_core::serde_snapshot!();
}

#[test]
fn a_reply_in_the_order_of_a_hash_map_is_found() {
    let text = complaint::<Tags>(|sim| {
        sim.operations(|rng| rng.below(20));
    });
    assert_says(
        &text,
        &[
            "seed 0: ",
            "answered op ",
            "differently than ",
            "A state machine must be a pure function of its operations",
            "HashMap",
            "VR_SIM_SEED=0 cargo test hashed::a_reply_in_the_order_of_a_hash_map_is_found -- --nocapture",
            "options: 3 replicas, durability full, faults all, storm 3s",
            "drawn: GroupOptions",
            "the last events:",
        ],
    );
}
