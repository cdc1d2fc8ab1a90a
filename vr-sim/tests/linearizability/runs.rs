//! Histories of simulated groups: they have an order, and a wrong answer in one is found.

use core::time::Duration;

use vr_core::Read;
use vr_sim::{
    cluster::{Cluster, R0, client::Wanted},
    linearizability::{
        check,
        cluster::{history_of, kv_history_of},
        history::History,
        kv::{KvModel, KvOutcome, What},
        model::{Model, Scope},
        state_machine::{Asked, AskedOf, StateMachineModel, Told},
        verdict::Verdict,
    },
    prng::Prng,
    workload::{Kv, Op, drawn, drawn_key},
};

use super::evidence::violation;

/// A group whose primary dies while clients wait for it; some of them never learn what became of
/// their calls.
fn stormy(seed: u64) -> Cluster<Kv> {
    let mut group = Cluster::of(3);
    for number in 0..4 {
        let client = group.client();
        let mut rng = Prng::stream(seed, "caller", number);
        client.drive(move || {
            let pause = Duration::from_micros(rng.below(20_000));
            Some((
                pause,
                if rng.below(4) == 0 {
                    Wanted::Query(drawn_key(&mut rng), Read::Linearizable)
                } else {
                    Wanted::Operation(drawn(&mut rng))
                },
            ))
        });
    }
    group.run_for(Duration::from_secs(1));
    group.crash(R0);
    group.run_for(Duration::from_secs(2));
    group.restart(R0);
    group.run_for(Duration::from_secs(1));
    group
}

fn key_of(asked: &AskedOf<Kv>) -> Scope {
    Scope::Keys(vec![match asked {
        Asked::Query(key)
        | Asked::Operation(Op::Put(key, _) | Op::Add(key, _) | Op::Swap(key, ..)) => key.clone(),
    }])
}

#[test]
fn a_run_has_an_order_and_its_own_state_machine_says_the_same() {
    let group = stormy(1);
    let history = kv_history_of(&group.history()).unwrap();
    let open = history.calls().iter().filter(|call| call.returned.is_none()).count();
    assert!(history.calls().len() > 100 && open > 0, "{} calls", history.calls().len());
    check(&KvModel, &history).assert_ok();
    let history = history_of::<Kv>(&group.history()).unwrap();
    let model = StateMachineModel::new(Kv::default());
    check(&model, &history).assert_ok();
    check(&model.with_scope(key_of), &history).assert_ok();
}

#[test]
fn a_wrong_reply_in_a_run_is_found() {
    let history = kv_history_of(&stormy(2).history()).unwrap();
    let is_sum = |call: &vr_sim::linearizability::history::Call<_, _>| {
        let op: &vr_sim::linearizability::kv::KvOp = &call.operation;
        matches!(op.what, What::Add(_)) && call.returned.is_some()
    };
    let sums: Vec<usize> =
        (0..history.calls().len()).filter(|at| is_sum(&history.calls()[*at])).collect();
    assert!(sums.len() > 20);
    for at in sums.into_iter().step_by(7) {
        let mut wrong = History::new();
        for (place, call) in history.calls().iter().enumerate() {
            let mut call = call.clone();
            if let (true, Some(end)) = (place == at, &mut call.returned) {
                end.outcome = Some(KvOutcome::Value(Some(1_000_000)));
            }
            wrong.push(call).unwrap();
        }
        let violation = violation(&KvModel, &wrong);
        assert!(violation.places.contains(&at), "{violation}");
        assert!(violation.history.calls().len() <= 3, "{violation}");
    }
}

#[test]
fn a_wrong_answer_is_found_by_the_state_machine_itself() {
    let mut history = history_of::<Kv>(&stormy(3).history()).unwrap();
    let mut answers = history.outcomes_mut().filter_map(|(_, outcome)| match outcome {
        Some(Told::Answer(answer)) => Some(answer),
        Some(Told::Reply(_)) | None => None,
    });
    *answers.next().unwrap() = Some(1_000_000);
    drop(answers);
    let model = StateMachineModel::new(Kv::default());
    let violation = violation(&model, &history);
    assert!(violation.drawing.contains("-> Some(1000000)"), "{violation}");
    assert!(matches!(check(&model.with_scope(key_of), &history), Verdict::Violation(_)));
}

#[test]
fn equal_operations_are_known_by_their_bytes() {
    let model = StateMachineModel::new(Kv::default());
    let add = |by| Asked::Operation(Op::Add("k".to_owned(), by));
    assert!(model.is_same(&add(1), &add(1)));
    assert!(!model.is_same(&add(1), &add(2)));
    assert!(!model.is_same(&add(1), &Asked::Query("k".to_owned())));
}
