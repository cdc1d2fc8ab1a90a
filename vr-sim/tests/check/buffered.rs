//! A service that buffers operations, and executes the buffer once more when it is restored.

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, SnapshotError, SnapshotReader, SnapshotWriter, StateMachine};

use crate::{assert_says, complaint};

/// A sum, and what was added since the last round.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Batches {
    sum: u64,
    recent: Vec<u64>,
}

impl StateMachine for Batches {
    type Operation = u64;
    type Reply = ();
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, add: u64) {
        if self.recent.len() == 10 {
            self.recent.clear();
        }
        self.sum += add;
        self.recent.push(add);
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.sum
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        out.write_value(self)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        *self = from.read_value()?;
        // "They were not executed yet when the snapshot was taken."
        self.sum += self.recent.iter().sum::<u64>();
        Ok(())
    }
}

#[test]
fn operations_that_are_applied_twice_after_a_restore_are_found() {
    let text = complaint::<Batches>(|sim| {
        sim.operations(|rng| rng.between(1, 9));
    });
    assert_says(
        &text,
        &[
            "restored from the snapshot taken after op ",
            "is not the one that wrote it",
            "part at byte 0",
            "adds once more instead of replacing it",
        ],
    );
}
