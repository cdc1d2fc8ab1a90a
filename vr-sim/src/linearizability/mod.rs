//! Whether one order explains what concurrent clients saw (O6): a checker for recorded histories.
//!
//! A [`History`] says who asked what and when, and what the answer was; a [`Model`] says which
//! answers a service without replicas gives. [`check`] looks for an order of the operations that
//! contradicts neither. Operations of unknown outcome are optional: each may take effect at any time
//! after its call, or never. What the model allows to be divided by key is checked per key.

mod bits;
pub mod cluster;
mod drawing;
pub mod file;
mod given_order;
pub mod history;
pub mod kv;
pub mod model;
mod partition;
pub mod register;
mod search;
mod shrink;
pub mod state_machine;
pub mod verdict;

use crate::linearizability::{
    history::{Call, History},
    model::Model,
    partition::{Part, parts},
    search::{Aim, Found, Goal, Task, search},
    shrink::{Placed, Small, shrink},
    verdict::{Verdict, Violation},
};

/// How many applications of an operation [`check`] tries at most, for each part of a history.
pub const STEPS_MAX: u64 = 1_000_000;

/// Whether some order of the calls explains `history`.
pub fn check<M: Model>(
    model: &M,
    history: &History<M::Operation, M::Outcome>,
) -> Verdict<M::Operation, M::Outcome> {
    check_parts(model, history, &[], STEPS_MAX)
}

/// As [`check`], trying first the order in which the operations are known to have taken effect:
/// `places` has, for each call of the history, a number that grows in that order, or `None` for a read
/// and for what took no effect. Those with one number took effect in the order of the history.
///
/// A history that this order explains takes one pass, however many of its calls overlap; any other is
/// searched for another order, so a wrong one does no harm.
pub fn check_along<M: Model>(
    model: &M,
    history: &History<M::Operation, M::Outcome>,
    places: &[Option<u64>],
) -> Verdict<M::Operation, M::Outcome> {
    check_parts(model, history, places, STEPS_MAX)
}

/// As [`check`], trying at most `steps_max` applications of an operation for each part of the
/// history that is checked apart. The budget of making a violation small is another one.
pub fn check_within<M: Model>(
    model: &M,
    history: &History<M::Operation, M::Outcome>,
    steps_max: u64,
) -> Verdict<M::Operation, M::Outcome> {
    check_parts(model, history, &[], steps_max)
}

fn check_parts<M: Model>(
    model: &M,
    history: &History<M::Operation, M::Outcome>,
    places: &[Option<u64>],
    steps_max: u64,
) -> Verdict<M::Operation, M::Outcome> {
    let (mut order, mut spent) = (Vec::new(), None);
    for part in parts(model, history.calls()) {
        let calls = part.calls.iter().filter_map(|at| Some((*at, history.calls().get(*at)?)));
        let calls: Vec<_> = calls.collect();
        let tasks: Vec<_> = calls.iter().map(|(_, call)| task(call)).collect();
        let place = |task: usize| calls.get(task).map_or(usize::MAX, |(place, _)| *place);
        let given: Vec<_> =
            part.calls.iter().map(|at| places.get(*at).copied().flatten()).collect();
        let aim = Aim { steps_max, goal: Goal::All, again: false };
        let followed = given_order::follow(model, &tasks, &given);
        let found = match followed {
            Some(found) => (Found::Order(found), 0),
            None => search(model, model.initial(), &tasks, aim),
        };
        match found {
            (Found::Order(found), _) => {
                order.extend(found.into_iter().map(|(task, until)| (place(task), place(until))));
            }
            (Found::Stuck(stuck), _) => {
                return Verdict::Violation(violation(model, &part, &calls, place(stuck)));
            }
            (Found::Spent, steps) => spent = Some((steps, part)),
        }
    }
    if let Some((steps, part)) = spent {
        return Verdict::Unknown { steps, calls: part.calls.len(), keys: part.keys };
    }
    // Parts meet in the order of the returns that their calls had to precede.
    let end = |place: usize| {
        history.calls().get(place).and_then(|call| Some((call.returned.as_ref()?.at, place)))
    };
    order.sort_by_key(|(_, until)| end(*until));
    Verdict::Linearizable { order: order.into_iter().map(|(place, _)| place).collect() }
}

fn task<O, R>(call: &Call<O, R>) -> Task<'_, O, R> {
    let returned = call.returned.as_ref();
    Task {
        operation: &call.operation,
        called: call.called,
        returned: returned.map(|end| end.at),
        outcome: returned.and_then(|end| end.outcome.as_ref()),
    }
}

fn violation<M: Model>(
    model: &M,
    part: &Part,
    calls: &[Placed<'_, M>],
    stuck: usize,
) -> Violation<M::Operation, M::Outcome> {
    let Small { calls, before, others } = shrink(model, calls, stuck);
    let drawn: Vec<_> = calls.iter().map(|(_, call)| call).collect();
    let drawing = drawing::draw(model, &drawn);
    let (places, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    let state = before.as_ref().and_then(|(_, state)| model.describe_state(state));
    Violation {
        history: History::of_checked(calls),
        places,
        before: before.map_or_else(Vec::new, |(before, _)| before),
        state,
        last: stuck,
        keys: part.keys.clone(),
        others,
        drawing,
    }
}
