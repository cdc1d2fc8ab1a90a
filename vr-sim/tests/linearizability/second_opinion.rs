//! Larger histories, judged by another checker, too.

use std::collections::BTreeMap;

use todc_utils::{Action, History, Specification, WGLChecker};
use vr_sim::{
    linearizability::{
        history::Call,
        kv::{KvModel, KvOp, KvOutcome},
        model::Model,
    },
    prng::Prng,
};

use super::{
    evidence::examined,
    executions::{KvHistory, Mix, corrupt, execution},
};

/// One key, as the other checker wants it described.
struct Key;

impl Specification for Key {
    type State = Option<i64>;
    type Operation = (KvOp, Option<KvOutcome>);

    fn init() -> Self::State {
        None
    }

    fn apply((operation, outcome): &Self::Operation, state: &Self::State) -> (bool, Self::State) {
        let next = KvModel.step_unknown(state, operation).unwrap();
        let fits = |outcome| KvModel.step(state, operation, outcome).is_some();
        (outcome.as_ref().is_none_or(fits), next)
    }
}

fn others_verdict(history: &KvHistory) -> bool {
    let mut keys: BTreeMap<&str, Vec<&Call<KvOp, KvOutcome>>> = BTreeMap::new();
    for call in history.calls() {
        keys.entry(&call.operation.key).or_default().push(call);
    }
    keys.into_values().all(|calls| {
        let mut moments = Vec::new();
        for (process, call) in calls.iter().enumerate() {
            let outcome = call.returned.as_ref().and_then(|end| end.outcome);
            let did = (call.operation.clone(), outcome);
            let end = call.returned.as_ref().map_or(u64::MAX, |end| end.at);
            moments.push((call.called, process, Action::Call(did.clone())));
            moments.push((end, process, Action::Response(did)));
        }
        moments.sort_by_key(|(at, ..)| *at);
        let actions = moments.into_iter().map(|(_, process, action)| (process, action));
        WGLChecker::<Key>::is_linearizable(History::from_actions(actions.collect()))
    })
}

fn compare(seed: u64, mix: Mix, histories: usize) {
    let mut rng = Prng::new(seed);
    let (mut with, mut without) = (0, 0);
    for number in 0..histories {
        let mut history = execution(&mut rng, mix);
        assert!(examined(&history) && others_verdict(&history), "history {number}");
        corrupt(&mut rng, &mut history);
        let expected = others_verdict(&history);
        assert_eq!(examined(&history), expected, "history {number} of {mix:?}");
        if expected { with += 1 } else { without += 1 }
    }
    assert!(with + without == histories && without > histories / 2, "{with} and {without}");
}

#[test]
fn larger_histories_are_judged_as_by_another_checker() {
    let mix = Mix { clients: 5, calls: 120, keys: 3, values: 5, unknown: 0 };
    compare(11, mix, 60);
    compare(12, Mix { values: 100, ..mix }, 60);
}

#[test]
fn histories_with_unknown_outcomes_are_judged_as_by_another_checker() {
    let mix = Mix { clients: 4, calls: 60, keys: 3, values: 5, unknown: 8 };
    compare(13, mix, 60);
}

#[test]
fn few_values_leave_both_verdicts() {
    let mut rng = Prng::new(14);
    let (mut with, mut without) = (0, 0);
    for number in 0..300 {
        let mut history =
            execution(&mut rng, Mix { clients: 6, calls: 40, keys: 2, values: 2, unknown: 3 });
        corrupt(&mut rng, &mut history);
        let expected = others_verdict(&history);
        assert_eq!(examined(&history), expected, "history {number}");
        if expected { with += 1 } else { without += 1 }
    }
    assert!(with > 10 && without > 100, "{with} with an order, {without} without");
}
