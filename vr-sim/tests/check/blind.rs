//! A service that replies nothing but `()`, and whose state depends on the order of a `HashSet`.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};

use crate::{assert_says, complaint};

/// A journal of what was ordered together.
#[derive(Default, Serialize, Deserialize)]
struct Journal(Vec<u64>);

impl StateMachine for Journal {
    type Operation = Vec<u64>;
    type Reply = ();
    type Query = usize;
    type Answer = bool;

    fn apply(&mut self, _: &Context, articles: Vec<u64>) {
        let distinct: HashSet<u64> = articles.into_iter().collect();
        self.0.extend(distinct);
    }

    fn query(&self, _: &QueryContext, at_least: usize) -> bool {
        self.0.len() >= at_least
    }

    vr_core::serde_snapshot!();
}

#[test]
fn states_that_differ_behind_equal_replies_are_found() {
    let text = complaint::<Journal>(|sim| {
        sim.operations(|rng| (0..3).map(|_| rng.below(9)).collect());
        sim.queries(|rng| rng.position(40));
    });
    assert_says(
        &text,
        &[
            "is in another state than ",
            "though both applied the same operations",
            "their snapshots, ",
            "they were equal after op ",
            "what was applied since:",
            "A state machine must be a pure function of its operations",
            "VR_SIM_SEED=",
        ],
    );
}
