//! The user's own state machine as the model of what its clients may see.

use core::{
    fmt::{self, Debug},
    hash::{Hash, Hasher},
};
use std::sync::Arc;

use serde::Serialize;
use vr_core::{Context, QueryContext, StateMachine, ports::state_machine::SnapshotWriter};

use crate::{
    cluster::client::Service,
    linearizability::model::{Model, Scope},
};

/// What a client of a state machine asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<O, Q> {
    /// To execute an operation.
    Operation(O),
    /// To answer a linearizable query.
    Query(Q),
}

/// What a client of a state machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told<R, A> {
    /// The operation's reply.
    Reply(R),
    /// The query's answer.
    Answer(A),
}

/// What a client of the state machine `S` asks for.
pub type AskedOf<S> = Asked<<S as StateMachine>::Operation, <S as StateMachine>::Query>;

/// What a client of the state machine `S` is told.
pub type ToldOf<S> = Told<<S as StateMachine>::Reply, <S as StateMachine>::Answer>;

/// A state machine, run alone, as a [`Model`].
///
/// An operation is applied to a clone and its reply compared with what the client was told; queries
/// likewise. Two states are the same if their snapshots have the same bytes. Contexts are the
/// default ones, so replies must not depend on the time or on who asks.
pub struct StateMachineModel<S: StateMachine> {
    initial: S,
    scope: fn(&AskedOf<S>) -> Scope,
}

impl<S: Service + Clone> StateMachineModel<S> {
    /// The model of a service that begins as `initial`.
    pub const fn new(initial: S) -> Self {
        Self { initial, scope: |_| Scope::Everything }
    }

    /// Checks histories in parts that have no key in common, which is much faster; `scope` says
    /// which keys an operation or a query touches.
    #[must_use]
    pub fn with_scope(self, scope: fn(&AskedOf<S>) -> Scope) -> Self {
        Self { scope, ..self }
    }
}

impl<S: StateMachine> Debug for StateMachineModel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachineModel").finish_non_exhaustive()
    }
}

/// A state machine that is told from others by its snapshot.
pub struct Snapshotted<S> {
    machine: Arc<S>,
    bytes: Arc<[u8]>,
}

impl<S: StateMachine> Snapshotted<S> {
    fn new(machine: S) -> Self {
        let mut bytes = Vec::new();
        let written = machine.snapshot(&mut SnapshotWriter::new(&mut bytes));
        written.expect("a state can be written to memory");
        Self { machine: Arc::new(machine), bytes: bytes.into() }
    }
}

impl<S> Clone for Snapshotted<S> {
    fn clone(&self) -> Self {
        Self { machine: Arc::clone(&self.machine), bytes: Arc::clone(&self.bytes) }
    }
}

impl<S> PartialEq for Snapshotted<S> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<S> Eq for Snapshotted<S> {}

impl<S> Hash for Snapshotted<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl<S> Debug for Snapshotted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshotted").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<S: Service + Clone> Model for StateMachineModel<S> {
    type State = Snapshotted<S>;
    type Operation = AskedOf<S>;
    type Outcome = ToldOf<S>;

    /// # Panics
    /// If the state machine cannot write its snapshot.
    fn initial(&self) -> Snapshotted<S> {
        Snapshotted::new(self.initial.clone())
    }

    fn step(
        &self,
        state: &Snapshotted<S>,
        operation: &AskedOf<S>,
        outcome: &ToldOf<S>,
    ) -> Option<Snapshotted<S>> {
        match (operation, outcome) {
            (Asked::Operation(operation), Told::Reply(told)) => {
                let mut machine = (*state.machine).clone();
                let reply = machine.apply(&Context::default(), operation.clone());
                (reply == *told).then(|| Snapshotted::new(machine))
            }
            (Asked::Query(query), Told::Answer(told)) => {
                let answer = state.machine.query(&QueryContext::default(), query.clone());
                (answer == *told).then(|| state.clone())
            }
            (Asked::Operation(_), Told::Answer(_)) | (Asked::Query(_), Told::Reply(_)) => None,
        }
    }

    fn step_unknown(
        &self,
        state: &Snapshotted<S>,
        operation: &AskedOf<S>,
    ) -> Option<Snapshotted<S>> {
        let Asked::Operation(operation) = operation else { return Some(state.clone()) };
        let mut machine = (*state.machine).clone();
        machine.apply(&Context::default(), operation.clone());
        Some(Snapshotted::new(machine))
    }

    fn scope(&self, operation: &AskedOf<S>) -> Scope {
        (self.scope)(operation)
    }

    fn is_read(&self, operation: &AskedOf<S>, _: Option<&ToldOf<S>>) -> bool {
        matches!(operation, Asked::Query(_))
    }

    fn is_same(&self, one: &AskedOf<S>, other: &AskedOf<S>) -> bool {
        match (one, other) {
            (Asked::Operation(one), Asked::Operation(other)) => {
                let one = encoded(one);
                one.is_some() && one == encoded(other)
            }
            (Asked::Query(_), _) | (_, Asked::Query(_)) => false,
        }
    }

    fn describe(&self, operation: &AskedOf<S>, outcome: Option<&ToldOf<S>>) -> String {
        let asked = match operation {
            Asked::Operation(operation) => format!("{operation:?}"),
            Asked::Query(query) => format!("query {query:?}"),
        };
        match outcome {
            None => asked,
            Some(Told::Reply(reply)) => format!("{asked} -> {reply:?}"),
            Some(Told::Answer(answer)) => format!("{asked} -> {answer:?}"),
        }
    }
}

fn encoded(operation: &impl Serialize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    SnapshotWriter::new(&mut bytes).write_value(operation).ok()?;
    Some(bytes)
}
