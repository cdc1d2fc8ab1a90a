//! Services that are right, and services with one mistake each, which the suite must name.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    mem,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vr_core::{
    Context, Malformed, QueryContext, RawStateMachine, SnapshotError, SnapshotReader,
    SnapshotSource, SnapshotWriter, StateMachine,
    conformance::{
        report::{Report, Verdict},
        state_machine::{cases, check, check_raw},
    },
};

/// What is wrong with a [`Ledger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    HashedOrder,
    SharedCounter,
    ForgottenField,
    MergingRestore,
    CountedQueries,
    CountedQueriesInReplies,
    CountedSnapshots,
    OneRead,
    OneWrite,
    DeafToFailure,
    SharedFork,
    Panics,
}

/// Accounts, and how often something was booked.
struct Ledger {
    flaw: Flaw,
    accounts: BTreeMap<String, u64>,
    booked: u64,
    queries: Cell<u64>,
    snapshots: Cell<u64>,
}

#[derive(Serialize, Deserialize)]
enum Operation {
    Add(String, u64),
    Close(String),
    Names,
}

thread_local! {
    static EVERYTHING_EVER: Cell<u64> = const { Cell::new(0) };
}

impl Ledger {
    fn new(flaw: Flaw) -> Self {
        let (queries, snapshots) = (Cell::new(0), Cell::new(0));
        Self { flaw, accounts: BTreeMap::new(), booked: 0, queries, snapshots }
    }

    /// The order in which a hashed set would list them: another one for each instance.
    #[expect(clippy::disallowed_types, reason = "the mistake that is to be found")]
    fn names(&self) -> Vec<String> {
        let names: BTreeSet<String> = self.accounts.keys().cloned().collect();
        if self.flaw == Flaw::HashedOrder {
            let hashed: std::collections::HashSet<String> = names.into_iter().collect();
            return hashed.into_iter().collect();
        }
        names.into_iter().collect()
    }
}

impl StateMachine for Ledger {
    type Operation = Operation;
    type Reply = (u64, Vec<String>);
    type Query = String;
    type Answer = (Option<u64>, u64);

    fn apply(&mut self, _: &Context, operation: Operation) -> (u64, Vec<String>) {
        self.booked += 1;
        assert!(self.flaw != Flaw::Panics || self.booked < 5, "the fifth is too much");
        let mut number = match operation {
            Operation::Add(name, more) => {
                let account = self.accounts.entry(name).or_default();
                *account += more;
                *account
            }
            Operation::Close(name) => self.accounts.remove(&name).unwrap_or_default(),
            Operation::Names => return (self.booked, self.names()),
        };
        if self.flaw == Flaw::SharedCounter {
            number += EVERYTHING_EVER.replace(EVERYTHING_EVER.get() + 1);
        }
        if self.flaw == Flaw::CountedQueriesInReplies {
            number += self.queries.get();
        }
        (number, Vec::new())
    }

    fn query(&self, _: &QueryContext, name: String) -> (Option<u64>, u64) {
        self.queries.set(self.queries.get() + 1);
        (self.accounts.get(&name).copied(), self.booked)
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        self.snapshots.set(self.snapshots.get() + 1);
        let (mut booked, mut extra) = (self.booked, 0);
        if self.flaw == Flaw::ForgottenField {
            booked = 0;
        } else if self.flaw == Flaw::CountedQueries {
            extra = self.queries.get();
        } else if self.flaw == Flaw::CountedSnapshots {
            extra = self.snapshots.get();
        }
        let mut bytes = Vec::new();
        SnapshotWriter::new(&mut bytes).write_value(&(&self.accounts, booked, extra))?;
        if self.flaw == Flaw::OneWrite {
            let written = out.write(&bytes)?;
            assert!(written <= bytes.len());
            return Ok(());
        }
        let written = out.write_all(&bytes);
        if self.flaw == Flaw::DeafToFailure { Ok(()) } else { Ok(written?) }
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        let mut bytes = Vec::new();
        if self.flaw == Flaw::OneRead {
            bytes.resize(1 << 16, 0);
            let length = from.read(&mut bytes)?;
            bytes.truncate(length);
        } else {
            from.read_to_end(&mut bytes)?;
        }
        let (accounts, booked, _): (BTreeMap<String, u64>, u64, u64) =
            SnapshotReader::new(&mut bytes.as_slice()).read_value()?;
        if self.flaw != Flaw::MergingRestore {
            self.accounts.clear();
        }
        self.accounts.extend(accounts);
        self.booked = booked;
        Ok(())
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        let mut fork = Self::new(self.flaw);
        fork.accounts.clone_from(&self.accounts);
        fork.booked = self.booked;
        if self.flaw == Flaw::SharedFork {
            fork.booked = u64::MAX;
        }
        Some(Box::new(fork))
    }
}

impl SnapshotSource for Ledger {
    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        StateMachine::snapshot(self, out)
    }
}

fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for number in 0..20_u64 {
        operations.push(Operation::Add(format!("account {}", number % 7), number));
        if number % 5 == 3 {
            operations.push(Operation::Close(format!("account {}", number % 4)));
            operations.push(Operation::Names);
        }
    }
    operations
}

fn queries() -> Vec<String> {
    (0..7).map(|number| format!("account {number}")).collect()
}

fn of(flaw: Flaw) -> Report {
    check(|| Ledger::new(flaw), &operations(), &queries())
}

/// The text with which `case` failed, the first of all that did.
fn first_failure(report: &Report, case: &str) -> String {
    assert_eq!(report.failed().first(), Some(&case), "{report}");
    match report.verdict(case) {
        Some(Verdict::Failed(why)) => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_right_service_passes_every_case() {
    let report = of(Flaw::None);
    report.assert_passed();
    assert_eq!(report.not_covered(), Vec::<&str>::new());
    assert_eq!(report.passed(), cases().collect::<Vec<_>>());
}

#[test]
fn a_hashed_order_is_found_and_nothing_else_is_concluded() {
    let report = of(Flaw::HashedOrder);
    let text = first_failure(&report, "equal_operations_get_equal_replies");
    assert_says(&text, &["of 28 got the replies", "exactly the same operations", "HashMap"]);
    assert_says(&text, &["BTreeMap", "context.time"]);
    assert!(report.not_covered().contains(&"a_restored_state_goes_on_alike"), "{report}");
}

#[test]
fn a_counter_outside_the_state_is_found() {
    let text = first_failure(&of(Flaw::SharedCounter), "equal_operations_get_equal_replies");
    assert_says(&text, &["Operation 1 of 28", "global"]);
}

#[test]
fn a_field_that_the_snapshot_forgets_is_found() {
    let report = of(Flaw::ForgottenField);
    let text = first_failure(&report, "a_restored_state_answers_alike");
    assert_says(&text, &["After operation 1 of 28, query 1 of 7", "#[serde(skip)]"]);
    assert_says(&report.to_string(), &["FAILED a_restored_state_goes_on_alike"]);
}

#[test]
fn a_forgotten_field_is_found_without_queries_too() {
    let report = check(|| Ledger::new(Flaw::ForgottenField), &operations(), &[]);
    let text = first_failure(&report, "a_restored_state_goes_on_alike");
    assert_says(&text, &["Operation 6 of 28", "a snapshot taken after operation 1 of 28"]);
    assert!(report.not_covered().contains(&"a_restored_state_answers_alike"), "{report}");
}

#[test]
fn a_restore_that_merges_is_found() {
    let text = first_failure(&of(Flaw::MergingRestore), "a_restore_replaces_what_was_there");
    assert_says(&text, &["before the first operation", "extend", "earlier state is still there"]);
}

#[test]
fn a_query_that_changes_the_state_is_found() {
    let text = first_failure(&of(Flaw::CountedQueries), "queries_change_nothing");
    assert_says(&text, &["Before the first operation", "asked all queries", "RefCell"]);
    let text = first_failure(&of(Flaw::CountedQueriesInReplies), "queries_change_nothing");
    assert_says(&text, &["Operation 1 of 28", "asked queries before", "RefCell"]);
}

#[test]
fn a_snapshot_that_changes_the_state_is_found() {
    let text = first_failure(&of(Flaw::CountedSnapshots), "snapshots_change_nothing");
    assert_says(&text, &["two snapshots of the same instance differ", "Cell"]);
}

#[test]
fn streams_that_are_taken_for_whole_are_found() {
    let text = first_failure(&of(Flaw::OneRead), "a_snapshot_is_read_in_pieces_of_any_size");
    assert_says(&text, &["read_exact"]);
    let text = first_failure(&of(Flaw::OneWrite), "a_snapshot_is_written_in_pieces_of_any_size");
    assert_says(&text, &["write_all"]);
    let text = first_failure(&of(Flaw::DeafToFailure), "a_failed_stream_is_told");
    assert_says(&text, &["`snapshot` returned Ok"]);
}

#[test]
fn a_fork_that_is_not_frozen_is_found() {
    let text = first_failure(&of(Flaw::SharedFork), "a_fork_is_frozen");
    assert_says(&text, &["A fork taken before the first operation", "shares"]);
}

#[test]
fn a_panic_is_a_failure_with_its_text() {
    let text = first_failure(&of(Flaw::Panics), "replies_survive_their_encoding");
    assert_says(&text, &["it panicked: the fifth is too much"]);
}

/// A reply with a field that its encoding leaves out.
#[derive(Default, Serialize, Deserialize)]
struct Leaky;

#[derive(Default, Deserialize)]
struct Unsteady(u64);

impl Serialize for Unsteady {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0 + 1)
    }
}

impl StateMachine for Leaky {
    type Operation = Unsteady;
    type Reply = Unsteady;
    type Query = Unsteady;
    type Answer = Unsteady;

    fn apply(&mut self, _: &Context, operation: Unsteady) -> Unsteady {
        operation
    }

    fn query(&self, _: &QueryContext, query: Unsteady) -> Unsteady {
        query
    }

    vr_core::serde_snapshot!();
}

#[test]
fn encodings_that_do_not_round_trip_are_found() {
    let report = check(Leaky::default, &[Unsteady(1)], &[Unsteady(2)]);
    let expected = [
        "operations_survive_their_encoding",
        "queries_survive_their_encoding",
        "replies_survive_their_encoding",
        "answers_survive_their_encoding",
    ];
    assert_eq!(report.failed(), expected, "{report}");
    assert_says(&report.to_string(), &["the reply to operation 1", "written by hand"]);
}

/// A service with an encoding of its own: remembers the last word, refuses numbers.
#[derive(Default)]
struct LastWord(Bytes);

impl RawStateMachine for LastWord {
    fn apply(&mut self, _: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        if operation.iter().any(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        Ok(mem::replace(&mut self.0, operation.clone()))
    }

    fn query(&self, _: &QueryContext, _: Bytes) -> Result<Bytes, Malformed> {
        Ok(self.0.clone())
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        Ok(out.write_all(&self.0)?)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        self.0 = bytes.into();
        Ok(())
    }
}

#[test]
fn a_service_with_its_own_encoding_passes() {
    let operations = ["one", "2", "three", ""].map(|word| Bytes::from_static(word.as_bytes()));
    let report = check_raw(LastWord::default, &operations, &[Bytes::new()]);
    report.assert_passed();
    assert_eq!(report.not_covered(), ["a_failed_stream_is_told", "a_fork_is_frozen"]);
}

#[test]
fn long_histories_are_tried_at_some_positions() {
    let operations: Vec<_> = (0..1000).map(|number| Operation::Add("a".into(), number)).collect();
    check(|| Ledger::new(Flaw::None), &operations, &queries()).assert_passed();
}
