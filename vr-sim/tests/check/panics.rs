//! Services that panic.

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};

use crate::{assert_says, complaint};

/// Divides what it has, and never thought of zero.
#[derive(Serialize, Deserialize)]
struct Shares(u64);

impl Default for Shares {
    fn default() -> Self {
        Self(1_000_000)
    }
}

impl StateMachine for Shares {
    type Operation = u64;
    type Reply = u64;
    type Query = u64;
    type Answer = u64;

    fn apply(&mut self, _: &Context, among: u64) -> u64 {
        self.0 / among
    }

    fn query(&self, _: &QueryContext, among: u64) -> u64 {
        self.0 / among
    }

    vr_core::serde_snapshot!();
}

#[test]
fn a_panic_in_apply_is_found() {
    let text = complaint::<Shares>(|sim| {
        sim.operations(|rng| rng.below(30));
    });
    assert_says(
        &text,
        &[
            "panicked while applying op ",
            ": 0\n",
            "panic: attempt to divide by zero (at ",
            "panics.rs:",
            "every replica will apply it",
            "VR_SIM_SEED=",
        ],
    );
}

#[test]
fn a_panic_in_a_query_is_found() {
    let text = complaint::<Shares>(|sim| {
        sim.operations(|rng| rng.between(1, 5)).queries(|rng| rng.below(30));
    });
    assert_says(&text, &["panicked while answering a query", "query: 0\n", "divide by zero"]);
}
