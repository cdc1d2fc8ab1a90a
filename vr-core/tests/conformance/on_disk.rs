//! States on disk that are right, and with one mistake each, which the suite must name.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use vr_core::{
    Context, OnDisk, OpNumber, QueryContext, SnapshotError, SnapshotReader, SnapshotSource,
    SnapshotWriter, StateMachine,
    conformance::{
        report::Report,
        state_machine::{cases_on_disk, check_on_disk},
    },
};

/// What is wrong with a [`Sums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    NotOnDisk,
    FirstCompanion,
    CommitsOperations,
    CommitsOnDrop,
    CommitsRestores,
    CommitsResets,
    HalfReset,
    ForgetsCount,
    LiveFork,
    Panics,
}

/// Numbers, their sum and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct State {
    last: Vec<u64>,
    count: u64,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    state: State,
    companion: Option<Bytes>,
}

type Place = Arc<Mutex<Disk>>;

/// Has its state on disk, and in memory what is not persisted.
struct Sums {
    flaw: Flaw,
    place: Place,
    state: State,
}

impl Sums {
    fn open(flaw: Flaw, place: &Place) -> Self {
        let mut state = place.lock().unwrap().state.clone();
        if flaw == Flaw::ForgetsCount {
            state.count = u64::try_from(state.last.len()).unwrap();
        }
        Self { flaw, place: Arc::clone(place), state }
    }

    fn commit_if(&self, flaw: Flaw) {
        if self.flaw == flaw {
            self.place.lock().unwrap().state = self.state.clone();
        }
    }
}

impl Drop for Sums {
    fn drop(&mut self) {
        self.commit_if(Flaw::CommitsOnDrop);
    }
}

impl StateMachine for Sums {
    type Operation = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, more: u64) -> u64 {
        self.state.last.push(more);
        self.state.last.drain(..self.state.last.len().saturating_sub(3));
        self.state.count += 1;
        self.commit_if(Flaw::CommitsOperations);
        self.state.last.iter().sum::<u64>() + self.state.count
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.state.count
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        out.write_value(&self.state)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.state = from.read_value()?;
        self.commit_if(Flaw::CommitsRestores);
        Ok(())
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        Some(Box::new(if self.flaw == Flaw::LiveFork {
            Fork::Live(Arc::clone(&self.place))
        } else {
            Fork::Frozen(self.state.clone())
        }))
    }

    fn on_disk(&mut self) -> Option<&mut dyn OnDisk> {
        if self.flaw == Flaw::NotOnDisk { None } else { Some(self) }
    }
}

enum Fork {
    Frozen(State),
    Live(Place),
}

impl SnapshotSource for Fork {
    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        match self {
            Self::Frozen(state) => out.write_value(state),
            Self::Live(place) => out.write_value(&place.lock().unwrap().state),
        }
    }
}

impl OnDisk for Sums {
    fn persisted(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        Ok(self.place.lock().unwrap().companion.clone())
    }

    fn persist(&mut self, applied: OpNumber, companion: &Bytes) -> Result<(), SnapshotError> {
        assert!(self.flaw != Flaw::Panics || applied < OpNumber(4), "as it was told");
        let mut disk = self.place.lock().unwrap();
        disk.state = self.state.clone();
        if self.flaw != Flaw::FirstCompanion || disk.companion.is_none() {
            disk.companion = Some(companion.clone());
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<(), SnapshotError> {
        let count = if self.flaw == Flaw::HalfReset { self.state.count } else { 0 };
        self.state = State { count, ..State::default() };
        self.commit_if(Flaw::CommitsResets);
        Ok(())
    }
}

fn report(flaw: Flaw) -> Report {
    let operations: Vec<u64> = (1..=9).map(|number| number * number).collect();
    check_on_disk(Place::default, |place| Sums::open(flaw, place), &operations)
}

#[test]
fn a_sound_state_on_disk_passes() {
    let report = report(Flaw::None);
    report.assert_passed();
    assert!(report.passed().into_iter().eq(cases_on_disk()), "{report}");
}

#[test]
fn each_mistake_is_named() {
    for (flaw, case, word) in [
        (Flaw::NotOnDisk, "an_empty_place_has_no_companion", "on_disk() returns None"),
        (Flaw::FirstCompanion, "the_last_companion_counts", "another companion"),
        (Flaw::CommitsOperations, "what_was_not_persisted_is_not_there", "another state"),
        (Flaw::CommitsOnDrop, "what_was_not_persisted_is_not_there", "a Drop that commits"),
        (Flaw::CommitsRestores, "a_restore_is_durable_with_the_next_persist", "another state"),
        (Flaw::CommitsResets, "a_reset_is_durable_with_the_next_persist", "another state"),
        (Flaw::HalfReset, "a_reset_empties", "something is left"),
        (Flaw::ForgetsCount, "a_reopened_service_goes_on_alike", "otherwise"),
        (Flaw::LiveFork, "a_fork_behind_a_persist_is_frozen", "changed with what followed"),
        (Flaw::Panics, "what_was_persisted_is_there_again", "as it was told"),
    ] {
        let report = report(flaw);
        assert!(report.failed().contains(&case), "{flaw:?}: {report}");
        assert!(report.to_string().contains(word), "{flaw:?}: {report}");
    }
}
