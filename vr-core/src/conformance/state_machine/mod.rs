//! Is a service deterministic, and is its snapshot all of its state?
//!
//! Every replica must come to the same state from the same operations, whether it executed them
//! itself or began from a snapshot. A service that breaks this works in every test with one
//! instance, and loses data in production. The suite runs the same operations on several
//! instances, restores snapshots at every position, and says what differed, where, and what
//! usually causes it.
//!
//! ```
//! use vr_core::{Context, QueryContext, StateMachine, conformance::state_machine};
//!
//! #[derive(Default, serde::Serialize, serde::Deserialize)]
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     type Operation = u64;
//!     type Reply = u64;
//!     type Query = ();
//!     type Answer = u64;
//!     fn apply(&mut self, _: &Context, add: u64) -> u64 {
//!         self.0 += add;
//!         self.0
//!     }
//!     fn query(&self, _: &QueryContext, (): ()) -> u64 {
//!         self.0
//!     }
//!     vr_core::serde_snapshot!();
//! }
//!
//! state_machine::check(Counter::default, &[1, 2, 3], &[()]).assert_passed();
//! ```

mod cases;
mod on_disk;
mod trial;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    conformance::{
        report::{Failure, Outcome, Report, Verdict, ensure, panicked},
        state_machine::{
            cases::{CASES, Case},
            trial::Trial,
        },
    },
    ports::state_machine::{Malformed, RawStateMachine, StateMachine, Typed, decode, encode},
};

/// The cases about encodings, which a [`RawStateMachine`] does by itself.
const TYPED_CASES: [&str; 4] = [
    "operations_survive_their_encoding",
    "queries_survive_their_encoding",
    "replies_survive_their_encoding",
    "answers_survive_their_encoding",
];

/// Names of the cases of [`check`], in the order in which they run.
pub fn cases() -> impl Iterator<Item = &'static str> {
    TYPED_CASES.into_iter().chain(CASES.iter().map(|case| case.name))
}

/// Runs every case on the services that `make` makes, with these operations and queries.
///
/// Bring operations of every kind, also those that fail, in an order in which they meet each
/// other, and queries that together show all of the state; what none of them touches is not
/// tested. Some dozens of each are plenty: with n operations, about n * n / 2 are applied per case up to
/// n = 64; beyond that, 64 positions of the history are tried.
///
/// Once a service turns out not to be deterministic, the later cases are not run, because nothing
/// can be compared.
pub fn check<S: StateMachine>(
    make: impl Fn() -> S,
    operations: &[S::Operation],
    queries: &[S::Query],
) -> Report {
    let mut report = Report::new("state machine");
    let encoded = encoded("operation", operations);
    let asked = self::encoded("query", queries);
    let typed = [
        survives::<S::Operation>("operation", &encoded),
        survives::<S::Query>("query", &asked),
        returned_survive::<S>(&make, &encoded, &asked, Returned::Reply),
        returned_survive::<S>(&make, &encoded, &asked, Returned::Answer),
    ];
    for (case, outcome) in TYPED_CASES.iter().zip(typed) {
        report.add(case, outcome.into());
    }
    let make = || Typed(make());
    match (encoded, asked) {
        (Ok(operations), Ok(queries)) => {
            run(&mut report, &Trial::new(&make, &operations, &queries));
        }
        (Err(_), _) | (_, Err(_)) => {
            for case in &CASES {
                report.add(case.name, Verdict::NotCovered("something cannot be encoded".into()));
            }
        }
    }
    report
}

/// Names of the cases of [`check_on_disk`], in the order in which they run.
pub fn cases_on_disk() -> impl Iterator<Item = &'static str> {
    on_disk::NAMES.into_iter()
}

/// Runs every case about a state that is on disk by itself ([`OnDisk`](crate::OnDisk)), on the
/// services that `open` opens in the places that `place` makes: a temporary directory, say.
///
/// What a crash leaves behind is tried by dropping a service, so a place can be opened again then.
/// What a loss of power does to a disk is for its database to know. Run [`check`] as well, with
/// `make` opening a new place each time.
///
/// # Panics
/// If an operation cannot be encoded, which [`check`] explains.
pub fn check_on_disk<P, S: StateMachine>(
    place: impl Fn() -> P,
    open: impl Fn(&P) -> S,
    operations: &[S::Operation],
) -> Report {
    let mut report = Report::new("state on disk");
    let encoded: Result<Vec<Bytes>, Malformed> = operations.iter().map(encode).collect();
    let operations = encoded.expect("every operation can be encoded");
    let open = |place: &P| Typed(open(place));
    let places = on_disk::Places { place: &place, open: &open };
    // Each of these is compared with and thrown away, and so is its place.
    let make = || open(&place());
    let trial = Trial::new(&make, &operations, &[]);
    on_disk::run(&mut report, &places, &trial);
    report
}

/// [`check`] for a service with an encoding of its own.
pub fn check_raw<R: RawStateMachine>(
    make: impl Fn() -> R,
    operations: &[Bytes],
    queries: &[Bytes],
) -> Report {
    let mut report = Report::new("state machine");
    run(&mut report, &Trial::new(&make, operations, queries));
    report
}

fn run<R: RawStateMachine>(report: &mut Report, trial: &Trial<'_, R>) {
    let mut deterministic = true;
    for case in &CASES {
        let verdict = if case.needs_determinism && !deterministic {
            Verdict::NotCovered("the service is not deterministic, which comes first".into())
        } else {
            verdict(case, trial)
        };
        deterministic &= case.needs_determinism || !matches!(verdict, Verdict::Failed(_));
        report.add(case.name, verdict);
    }
}

fn verdict<R: RawStateMachine>(case: &Case, trial: &Trial<'_, R>) -> Verdict {
    match catch_unwind(AssertUnwindSafe(|| cases::run(case.check, trial))) {
        Ok(verdict) => verdict,
        Err(payload) => panicked(payload.as_ref()),
    }
}

fn encoded<T: Serialize>(what: &str, values: &[T]) -> Result<Vec<Bytes>, Failure> {
    let encode = |(at, value)| {
        encode(value).map_err(|Malformed| {
            let of = values.len();
            Failure(format!("{what} {} of {of} cannot be encoded: its Serialize fails", at + 1))
        })
    };
    values.iter().enumerate().map(encode).collect()
}

/// Whether each of these reads as a `T` that is written as the same bytes again.
fn survives<T: Serialize + DeserializeOwned>(
    what: &str,
    encoded: &Result<Vec<Bytes>, Failure>,
) -> Outcome {
    for (at, bytes) in encoded.as_ref().map_err(Clone::clone)?.iter().enumerate() {
        let again = decode::<T>(bytes).and_then(|value| encode(&value));
        ensure(again.as_ref() == Ok(bytes), || {
            format!(
                "{what} {} does not come back from its own bytes as it was. Usual causes: \
                 #[serde(skip)] or skip_serializing_if, a field with serde(untagged) or flatten, \
                 which postcard cannot read, or Serialize and Deserialize written by hand that \
                 disagree.",
                at + 1
            )
        })?;
    }
    Ok(())
}

/// What comes back from a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returned {
    Reply,
    Answer,
}

fn returned_survive<S: StateMachine>(
    make: &impl Fn() -> S,
    operations: &Result<Vec<Bytes>, Failure>,
    queries: &Result<Vec<Bytes>, Failure>,
    what: Returned,
) -> Outcome {
    let (Ok(operations), Ok(queries)) = (operations, queries) else {
        return Err(Failure("the service cannot be asked at all, see above".into()));
    };
    let make = || Typed(make());
    let returned = catch_unwind(AssertUnwindSafe(|| {
        let trial = Trial::new(&make, operations, queries);
        match what {
            Returned::Reply => trial.replies(),
            Returned::Answer => trial.answers_along(),
        }
    }));
    let returned = match returned {
        Ok(returned) => returned,
        Err(payload) => match panicked(payload.as_ref()) {
            Verdict::Failed(why) => return Err(Failure(why)),
            Verdict::Passed | Verdict::NotCovered(_) => return Ok(()),
        },
    };
    let returned: Result<Vec<Bytes>, Failure> = returned
        .into_iter()
        .map(|bytes| bytes.map_err(|Malformed| Failure("it cannot be encoded".into())))
        .collect();
    match what {
        Returned::Reply => survives::<S::Reply>("the reply to operation", &returned),
        Returned::Answer => survives::<S::Answer>("answer", &returned),
    }
}
