//! Small random histories, and every order that they could have.

use std::collections::BTreeMap;

use vr_sim::{
    linearizability::{
        check,
        history::{Call, History, Return},
        kv::KvModel,
        model::{Model, Scope},
        register::{Register, RegisterOp},
        verdict::Verdict,
    },
    prng::Prng,
};

use super::{
    evidence::{examined, precedes},
    executions::{Mix, corrupt, execution, small},
};

/// Tries all sequences of calls: those that leave out only what never returned, and keep real time.
fn has_order<M: Model>(model: &M, history: &History<M::Operation, M::Outcome>) -> bool {
    let mut sequence = Vec::new();
    any_sequence(history.calls().len(), &mut sequence, &|sequence| {
        explains(model, history.calls(), sequence)
    })
}

fn any_sequence(
    count: usize,
    sequence: &mut Vec<usize>,
    wanted: &impl Fn(&[usize]) -> bool,
) -> bool {
    if wanted(sequence) {
        return true;
    }
    for next in 0..count {
        if !sequence.contains(&next) {
            sequence.push(next);
            if any_sequence(count, sequence, wanted) {
                return true;
            }
            sequence.pop();
        }
    }
    false
}

fn explains<M: Model>(
    model: &M,
    calls: &[Call<M::Operation, M::Outcome>],
    sequence: &[usize],
) -> bool {
    let complete =
        (0..calls.len()).all(|at| calls[at].returned.is_none() || sequence.contains(&at));
    let in_time = sequence.iter().enumerate().all(|(at, call)| {
        !sequence[at..].iter().any(|later| precedes(&calls[*later], &calls[*call]))
    });
    if !(complete && in_time) {
        return false;
    }
    let mut state = model.initial();
    for call in sequence.iter().map(|at| &calls[*at]) {
        let outcome = call.returned.as_ref().and_then(|end| end.outcome.as_ref());
        let next = match outcome {
            Some(outcome) => model.step(&state, &call.operation, outcome),
            None => model.step_unknown(&state, &call.operation),
        };
        match next {
            Some(next) => state = next,
            None => return false,
        }
    }
    true
}

/// The key-value model without its keys: everything on one.
struct OneKey;

impl Model for OneKey {
    type State = BTreeMap<String, Option<i64>>;
    type Operation = <KvModel as Model>::Operation;
    type Outcome = <KvModel as Model>::Outcome;

    fn initial(&self) -> Self::State {
        BTreeMap::new()
    }

    fn step(
        &self,
        state: &Self::State,
        operation: &Self::Operation,
        outcome: &Self::Outcome,
    ) -> Option<Self::State> {
        let number = state.get(&operation.key).copied().flatten();
        let next = KvModel.step(&number, operation, outcome)?;
        let mut state = state.clone();
        state.insert(operation.key.clone(), next);
        Some(state)
    }

    fn step_unknown(
        &self,
        state: &Self::State,
        operation: &Self::Operation,
    ) -> Option<Self::State> {
        let number = state.get(&operation.key).copied().flatten();
        let next = KvModel.step_unknown(&number, operation)?;
        let mut state = state.clone();
        state.insert(operation.key.clone(), next);
        Some(state)
    }
}

#[test]
fn small_histories_of_any_outcome_are_judged_as_all_orders_judge_them() {
    let mut rng = Prng::new(1);
    let (mut with, mut without) = (0, 0);
    for number in 0..4000 {
        let history = small(&mut rng);
        let expected = has_order(&OneKey, &history);
        assert_eq!(examined(&history), expected, "history {number}: {history:#?}");
        // Undivided, without the knowledge of reads and of equal operations.
        assert_eq!(check(&OneKey, &history).is_linearizable(), expected, "history {number}");
        if expected { with += 1 } else { without += 1 }
    }
    assert!(with > 1000 && without > 1000, "{with} with an order, {without} without");
}

#[test]
fn small_executions_are_judged_as_all_orders_judge_them() {
    let mut rng = Prng::new(2);
    let (mut with, mut without) = (0, 0);
    let mix = Mix { clients: 3, calls: 6, keys: 1, values: 2, unknown: 25 };
    for number in 0..2000 {
        let mut history = execution(&mut rng, mix);
        assert!(examined(&history), "history {number}: {history:#?}");
        if corrupt(&mut rng, &mut history) {
            let expected = has_order(&OneKey, &history);
            assert_eq!(examined(&history), expected, "history {number}: {history:#?}");
            if expected { with += 1 } else { without += 1 }
        }
    }
    assert!(with > 100 && without > 1000, "{with} with an order, {without} without");
}

/// Registers by name; the values of two can be exchanged.
struct Board;

#[derive(Clone, Debug)]
enum Move {
    Set(&'static str, u8),
    Get(&'static str),
    Exchange(&'static str, &'static str),
}

impl Model for Board {
    type State = BTreeMap<&'static str, u8>;
    type Operation = Move;
    type Outcome = u8;

    fn initial(&self) -> Self::State {
        BTreeMap::new()
    }

    /// The outcome is the value afterwards, of an exchange that of the first key.
    fn step(&self, state: &Self::State, operation: &Move, outcome: &u8) -> Option<Self::State> {
        let next = self.step_unknown(state, operation)?;
        let (Move::Set(key, _) | Move::Get(key) | Move::Exchange(key, _)) = operation;
        (next.get(key).copied().unwrap_or(0) == *outcome).then_some(next)
    }

    fn step_unknown(&self, state: &Self::State, operation: &Move) -> Option<Self::State> {
        let mut next = state.clone();
        let value = |key| state.get(key).copied().unwrap_or(0);
        match operation {
            Move::Set(key, value) => drop(next.insert(key, *value)),
            Move::Get(_) => {}
            Move::Exchange(one, other) => {
                next.insert(one, value(other));
                next.insert(other, value(one));
            }
        }
        Some(next)
    }

    fn scope(&self, operation: &Move) -> Scope {
        Scope::Keys(match operation {
            Move::Set(key, _) | Move::Get(key) => vec![(*key).to_owned()],
            Move::Exchange(one, other) => vec![(*one).to_owned(), (*other).to_owned()],
        })
    }
}

#[test]
fn an_operation_on_two_keys_joins_what_is_known_of_them() {
    let mut rng = Prng::new(3);
    let (mut with, mut without) = (0, 0);
    for number in 0..3000 {
        let mut history = History::new();
        for client in 0..rng.between(2, 6) {
            let keys = ["a", "b", "c"];
            let (one, other) = (keys[rng.position(3)], keys[rng.position(3)]);
            let operation = match rng.below(3) {
                0 => Move::Set(one, 1 + u8::try_from(rng.below(2)).unwrap()),
                1 => Move::Get(one),
                _ => Move::Exchange(one, other),
            };
            let outcome = match &operation {
                Move::Set(_, value) => *value,
                Move::Get(_) | Move::Exchange(..) => u8::try_from(rng.below(3)).unwrap(),
            };
            let called = rng.below(12);
            let end = Return { at: called + rng.below(6), outcome: Some(outcome) };
            let returned = (rng.below(5) > 0).then_some(end);
            history.push(Call { client, operation, called, returned }).unwrap();
        }
        let expected = has_order(&Board, &history);
        let verdict = check(&Board, &history);
        assert_eq!(verdict.is_linearizable(), expected, "history {number}: {history:#?}");
        if expected { with += 1 } else { without += 1 }
    }
    assert!(with > 500 && without > 500, "{with} with an order, {without} without");
}

#[test]
fn a_call_that_touches_another_in_time_overlaps_it() {
    let mut history = History::new();
    let write = Return { at: 5, outcome: Some(None) };
    let read = Return { at: 9, outcome: Some(Some(0)) };
    let operation = RegisterOp::Write(1);
    history.push(Call { client: 1, operation, called: 0, returned: Some(write) }).unwrap();
    let mut later = history.clone();
    let operation = RegisterOp::Read;
    let returned = Some(read);
    let call = Call { client: 2, operation, called: 5, returned };
    later.push(Call { called: 6, ..call.clone() }).unwrap();
    history.push(call).unwrap();
    check(&Register(0), &history).assert_ok();
    assert!(matches!(check(&Register(0), &later), Verdict::Violation(_)));
}
