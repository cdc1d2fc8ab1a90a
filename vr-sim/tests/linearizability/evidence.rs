//! What a verdict must bring: an order that can be replayed, or a violation that follows.

use std::collections::BTreeMap;

use vr_sim::linearizability::{
    check,
    history::{Call, History},
    kv::{KvModel, KvOp, KvOutcome},
    model::Model,
    verdict::{Verdict, Violation},
};

use super::executions::KvHistory;

type KvCall = Call<KvOp, KvOutcome>;

/// Whether `one` must come before `other`.
pub(crate) fn precedes<O, R>(one: &Call<O, R>, other: &Call<O, R>) -> bool {
    one.returned.as_ref().is_some_and(|end| end.at < other.called)
}

/// The order has every call that returned, none twice, keeps real time, and explains the outcomes.
#[track_caller]
fn order_explains(history: &KvHistory, order: &[usize]) {
    let calls: Vec<&KvCall> = order.iter().map(|at| &history.calls()[*at]).collect();
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), order.len(), "{order:?}");
    let ended = |at: &usize| history.calls()[*at].returned.is_some();
    let returned = (0..history.calls().len()).filter(ended).count();
    assert_eq!(order.iter().filter(|at| ended(at)).count(), returned, "{order:?}");
    let mut state: BTreeMap<&str, Option<i64>> = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        assert!(!calls[at..].iter().any(|later| precedes(later, call)), "{order:?}");
        let number = state.entry(&call.operation.key).or_default();
        let outcome = call.returned.as_ref().and_then(|end| end.outcome.as_ref());
        let next = match outcome {
            Some(outcome) => KvModel.step(number, &call.operation, outcome),
            None => KvModel.step_unknown(number, &call.operation),
        };
        *number = next.expect("the order explains the outcome");
    }
}

/// The small history is the large one with less known of it, and follows from it: with every other
/// call until then as an optional one it still has no order.
#[track_caller]
fn violation_follows(history: &KvHistory, violation: &Violation<KvOp, KvOutcome>) {
    let small = violation.history.calls();
    assert_eq!(small.len(), violation.places.len());
    for (call, place) in small.iter().zip(&violation.places) {
        let whole = &history.calls()[*place];
        let same = (call.client, call.called, &call.operation);
        assert_eq!(same, (whole.client, whole.called, &whole.operation));
        if let (Some(end), Some(whole)) = (&call.returned, &whole.returned) {
            assert_eq!(end.at, whole.at);
            assert!(end.outcome.is_none() || end.outcome == whole.outcome);
        } else {
            assert_eq!(call.returned, None);
        }
    }
    let all = with_others(history, violation);
    let known = violation.before.len();
    assert_eq!(all.calls().len(), known + small.len() + violation.others);
    let verdict = check(&KvModel, &all);
    assert!(matches!(verdict, Verdict::Violation(_)), "{verdict} without {violation}");
    assert!(violation.drawing.lines().all(|line| line.len() <= 100), "{}", violation.drawing);
}

/// A violation, and every other call until then as an optional one.
pub(crate) fn with_others(
    history: &KvHistory,
    violation: &Violation<KvOp, KvOutcome>,
) -> KvHistory {
    let end = history.calls()[violation.last].returned.as_ref().unwrap().at;
    let mut all = violation.history.clone();
    for (place, call) in history.calls().iter().enumerate() {
        let on_keys = violation.keys.contains(&call.operation.key);
        if violation.before.contains(&place) {
            all.push(call.clone()).unwrap();
        } else if on_keys && call.called <= end && !violation.places.contains(&place) {
            all.push(Call { returned: None, ..call.clone() }).unwrap();
        }
    }
    all
}

/// The verdict on a history, after a look at what it is based on; `true` if there is an order.
#[track_caller]
pub(crate) fn examined(history: &KvHistory) -> bool {
    match check(&KvModel, history) {
        Verdict::Linearizable { order } => {
            order_explains(history, &order);
            true
        }
        Verdict::Violation(violation) => {
            violation_follows(history, &violation);
            false
        }
        unknown @ Verdict::Unknown { .. } => panic!("{unknown}"),
    }
}

/// The violation that a history must be.
#[track_caller]
pub(crate) fn violation<M: Model>(
    model: &M,
    history: &History<M::Operation, M::Outcome>,
) -> Violation<M::Operation, M::Outcome> {
    match check(model, history) {
        Verdict::Violation(violation) => violation,
        other @ (Verdict::Linearizable { .. } | Verdict::Unknown { .. }) => panic!("{other}"),
    }
}
