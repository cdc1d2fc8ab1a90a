//! What a history is checked against: a service as if one client at a time used it.

use core::{fmt::Debug, hash::Hash};

/// What an operation reads or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Possibly everything: the history cannot be divided.
    Everything,
    /// These keys and nothing else. Operations without a key in common are checked apart; one
    /// with several keys joins what is known of them.
    Keys(Vec<String>),
}

/// A sequential specification: which outcome an operation has in which state.
///
/// A history is divided by the keys that its operations name ([`scope`](Self::scope)), and each
/// part begins in the [`initial`](Self::initial) state. If every operation has one key, a state is
/// therefore the state of one key; otherwise it must be able to hold several.
pub trait Model {
    /// What operations change; small, because the checker keeps many.
    type State: Clone + Eq + Hash;
    /// What a client asked for.
    type Operation: Clone + Debug;
    /// What a client was told.
    type Outcome: Clone + Debug;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `operation`, if in `state` it has this outcome; `None` if it has another.
    fn step(
        &self,
        state: &Self::State,
        operation: &Self::Operation,
        outcome: &Self::Outcome,
    ) -> Option<Self::State>;

    /// The state after `operation`, whatever its outcome; `None` if it cannot happen in `state`.
    ///
    /// Must be what [`step`](Self::step) returns for the outcome that fits.
    fn step_unknown(&self, state: &Self::State, operation: &Self::Operation)
    -> Option<Self::State>;

    /// What `operation` reads or changes; everything by default.
    fn scope(&self, _operation: &Self::Operation) -> Scope {
        Scope::Everything
    }

    /// Whether `operation`, if it has this outcome, changes nothing in whatever state it has it;
    /// `None` stands for any outcome. Saying no (the default) only costs time.
    fn is_read(&self, _operation: &Self::Operation, _outcome: Option<&Self::Outcome>) -> bool {
        false
    }

    /// Whether two operations do the same in every state. Saying no (the default) only costs time,
    /// and that grows quickly with the number of operations of unknown outcome.
    fn is_same(&self, _one: &Self::Operation, _other: &Self::Operation) -> bool {
        false
    }

    /// The call in a few words, for drawings; `None` when the outcome is not known or not looked
    /// at.
    fn describe(&self, operation: &Self::Operation, outcome: Option<&Self::Outcome>) -> String {
        match outcome {
            Some(outcome) => format!("{operation:?} -> {outcome:?}"),
            None => format!("{operation:?}"),
        }
    }

    /// A state in a few words, such as "the number is 5", for drawings; `None` (the default) if it
    /// is not worth showing.
    fn describe_state(&self, _state: &Self::State) -> Option<String> {
        None
    }
}
