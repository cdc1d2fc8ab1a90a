//! Services whose snapshot leaves something out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};

use crate::{assert_says, complaint};

/// Hands out numbers; a snapshot forgets the last one.
#[derive(Default, Serialize, Deserialize)]
struct Tickets {
    owners: BTreeMap<u64, u64>,
    #[serde(skip)]
    last: u64,
}

impl StateMachine for Tickets {
    type Operation = u64;
    type Reply = u64;
    type Query = u64;
    type Answer = Option<u64>;

    fn apply(&mut self, _: &Context, owner: u64) -> u64 {
        self.last += 1;
        self.owners.insert(self.last, owner);
        self.last
    }

    fn query(&self, _: &QueryContext, ticket: u64) -> Option<u64> {
        self.owners.get(&ticket).copied()
    }

    vr_core::serde_snapshot!();
}

#[test]
fn a_field_that_the_snapshot_forgets_is_found_by_a_reply() {
    let text = complaint::<Tickets>(|sim| {
        sim.operations(|rng| rng.below(5)).queries(|rng| rng.below(100));
    });
    assert_says(
        &text,
        &[
            "restored from the snapshot taken after op ",
            "is not the one that wrote it",
            "the one restored replies 1\n",
            "the other replies ",
            "A snapshot must hold everything that apply and query depend on",
            "#[serde(skip)]",
            "VR_SIM_SEED=0 cargo test forgetful::a_field",
        ],
    );
}

/// Counts words; only queries see what a snapshot forgets.
#[derive(Default, Serialize, Deserialize)]
struct Words {
    words: BTreeMap<u64, u64>,
    #[serde(skip)]
    total: u64,
}

impl StateMachine for Words {
    type Operation = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, word: u64) -> u64 {
        self.total += 1;
        let count = self.words.entry(word).or_default();
        *count += 1;
        *count
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.total
    }

    vr_core::serde_snapshot!();
}

#[test]
fn a_field_that_the_snapshot_forgets_is_found_by_an_answer() {
    let text = complaint::<Words>(|sim| {
        sim.operations(|rng| rng.below(5)).queries(|_| ());
    });
    assert_says(
        &text,
        &["asked () after op ", "the one restored answers ", "A snapshot must hold"],
    );
}
