//! The smallest model: one register that is read and written as a whole.

use core::{fmt::Debug, hash::Hash};

use crate::linearizability::model::Model;

/// A register that begins with the value in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Register<V>(pub V);

/// What is done to a [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOp<V> {
    /// Asks for the value.
    Read,
    /// Replaces it.
    Write(V),
}

/// The outcome of a read is the value, that of a write is `None`.
impl<V: Clone + Eq + Hash + Debug> Model for Register<V> {
    type State = V;
    type Operation = RegisterOp<V>;
    type Outcome = Option<V>;

    fn initial(&self) -> V {
        self.0.clone()
    }

    fn step(&self, state: &V, operation: &RegisterOp<V>, outcome: &Option<V>) -> Option<V> {
        match operation {
            RegisterOp::Read => (outcome.as_ref() == Some(state)).then(|| state.clone()),
            RegisterOp::Write(value) => outcome.is_none().then(|| value.clone()),
        }
    }

    fn step_unknown(&self, state: &V, operation: &RegisterOp<V>) -> Option<V> {
        match operation {
            RegisterOp::Read => Some(state.clone()),
            RegisterOp::Write(value) => Some(value.clone()),
        }
    }

    fn is_read(&self, operation: &RegisterOp<V>, _: Option<&Option<V>>) -> bool {
        matches!(operation, RegisterOp::Read)
    }

    fn is_same(&self, one: &RegisterOp<V>, other: &RegisterOp<V>) -> bool {
        one == other
    }

    fn describe(&self, operation: &RegisterOp<V>, outcome: Option<&Option<V>>) -> String {
        match (operation, outcome) {
            (RegisterOp::Read, Some(Some(value))) => format!("read -> {value:?}"),
            (RegisterOp::Read, _) => "read".to_owned(),
            (RegisterOp::Write(value), _) => format!("write {value:?}"),
        }
    }
}
