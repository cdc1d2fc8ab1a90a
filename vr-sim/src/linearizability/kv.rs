//! Numbers by key: the model of the simulator's workload and of recorded key-value histories.

use serde::{Deserialize, Serialize};

use crate::linearizability::model::{Model, Scope};

/// Keys with numbers; a key that was never written has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvModel;

/// What a client of a key-value service asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct KvOp {
    /// The key.
    pub key: String,
    /// What is done to it.
    pub what: What,
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Asks for its number.
    Get,
    /// Gives it a number; says nothing.
    Set(i64),
    /// Gives it a number; returns the one before.
    Put(i64),
    /// Adds to its number, or to zero; returns the sum.
    Add(i64),
    /// Gives it the second number if it has the first; returns the one it had.
    Swap(i64, i64),
    /// Gives it the second number if it has the first; returns whether it had.
    Cas(i64, i64),
    /// Takes its number away; returns it.
    Take,
}

/// What a client of a key-value service is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvOutcome {
    /// A number, or that there is none: the outcome of everything but the two below.
    Value(Option<i64>),
    /// Whether the number was replaced: the outcome of [`What::Cas`].
    Wrote(bool),
    /// Nothing: the outcome of [`What::Set`].
    Done,
}

impl KvOp {
    /// An operation on `key`.
    #[must_use]
    pub fn new(key: &str, what: What) -> Self {
        Self { key: key.to_owned(), what }
    }

    /// Whether an operation of this kind can have an outcome of that kind.
    #[must_use]
    pub const fn can_return(&self, outcome: &KvOutcome) -> bool {
        match self.what {
            What::Get | What::Put(_) | What::Add(_) | What::Swap(..) | What::Take => {
                matches!(outcome, KvOutcome::Value(_))
            }
            What::Cas(..) => matches!(outcome, KvOutcome::Wrote(_)),
            What::Set(_) => matches!(outcome, KvOutcome::Done),
        }
    }
}

impl What {
    /// The number afterwards, and the outcome.
    fn apply(self, number: Option<i64>) -> (Option<i64>, KvOutcome) {
        match self {
            Self::Get => (number, KvOutcome::Value(number)),
            Self::Set(new) => (Some(new), KvOutcome::Done),
            Self::Put(new) => (Some(new), KvOutcome::Value(number)),
            Self::Add(by) => {
                let sum = Some(number.unwrap_or(0).wrapping_add(by));
                (sum, KvOutcome::Value(sum))
            }
            Self::Swap(from, to) => {
                let next = if number == Some(from) { Some(to) } else { number };
                (next, KvOutcome::Value(number))
            }
            Self::Cas(from, to) => {
                let wrote = number == Some(from);
                (if wrote { Some(to) } else { number }, KvOutcome::Wrote(wrote))
            }
            Self::Take => (None, KvOutcome::Value(number)),
        }
    }
}

impl Model for KvModel {
    type State = Option<i64>;
    type Operation = KvOp;
    type Outcome = KvOutcome;

    fn initial(&self) -> Option<i64> {
        None
    }

    fn step(&self, state: &Option<i64>, op: &KvOp, outcome: &KvOutcome) -> Option<Option<i64>> {
        let (next, fits) = op.what.apply(*state);
        (fits == *outcome).then_some(next)
    }

    fn step_unknown(&self, state: &Option<i64>, op: &KvOp) -> Option<Option<i64>> {
        Some(op.what.apply(*state).0)
    }

    fn scope(&self, op: &KvOp) -> Scope {
        Scope::Keys(vec![op.key.clone()])
    }

    fn is_read(&self, op: &KvOp, outcome: Option<&KvOutcome>) -> bool {
        match (op.what, outcome) {
            (What::Get, _) => true,
            (What::Swap(from, _), Some(KvOutcome::Value(found))) => *found != Some(from),
            (What::Cas(..), Some(KvOutcome::Wrote(wrote))) => !wrote,
            (
                What::Set(_)
                | What::Put(_)
                | What::Add(_)
                | What::Swap(..)
                | What::Cas(..)
                | What::Take,
                _,
            ) => false,
        }
    }

    fn is_same(&self, one: &KvOp, other: &KvOp) -> bool {
        one == other
    }

    fn describe(&self, op: &KvOp, outcome: Option<&KvOutcome>) -> String {
        let key = &op.key;
        let asked = match op.what {
            What::Get => format!("get {key}"),
            What::Set(value) => format!("set {key} {value}"),
            What::Put(value) => format!("put {key} {value}"),
            What::Add(by) => format!("add {key} {by}"),
            What::Swap(from, to) => format!("swap {key} {from} {to}"),
            What::Cas(from, to) => format!("cas {key} {from} {to}"),
            What::Take => format!("take {key}"),
        };
        match outcome {
            None | Some(KvOutcome::Done) => asked,
            Some(KvOutcome::Value(None)) => format!("{asked} -> none"),
            Some(KvOutcome::Value(Some(value))) => format!("{asked} -> {value}"),
            Some(KvOutcome::Wrote(wrote)) => {
                format!("{asked} -> {}", if *wrote { "yes" } else { "no" })
            }
        }
    }

    fn describe_state(&self, state: &Option<i64>) -> Option<String> {
        Some(state.map_or_else(|| "there is no number".into(), |n| format!("the number is {n}")))
    }
}
