//! A service that stamps what it stores with the machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};

use crate::{assert_says, complaint};

#[derive(Default, Serialize, Deserialize)]
struct Stamps(Vec<u128>);

impl StateMachine for Stamps {
    type Operation = ();
    type Reply = u128;
    type Query = ();
    type Answer = Option<u128>;

    fn apply(&mut self, _: &Context, (): ()) -> u128 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
        self.0.push(now);
        now
    }

    fn query(&self, _: &QueryContext, (): ()) -> Option<u128> {
        self.0.last().copied()
    }

    vr_core::serde_snapshot!();
}

#[test]
fn a_look_at_the_clock_is_found() {
    let text = complaint::<Stamps>(|sim| {
        sim.operations(|_| ()).queries(|_| ());
    });
    assert_says(&text, &["answered op ", "differently than ", "clocks (use context.time)"]);
}
