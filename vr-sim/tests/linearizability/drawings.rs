//! What a violation looks like, and how small it becomes.

use vr_sim::{
    linearizability::{
        check, check_within,
        history::{Call, History, Recording},
        kv::{KvModel, KvOp, KvOutcome, What},
        verdict::Verdict,
    },
    prng::Prng,
};

use super::{
    evidence::{examined, violation, with_others},
    executions::{KvHistory, Mix, corrupt, execution},
};

fn value(value: i64) -> KvOutcome {
    KvOutcome::Value(Some(value))
}

/// A stale read among calls that have nothing to do with it.
fn stale_read() -> KvHistory {
    let mut recording = Recording::new();
    for round in 0..20 {
        let add = recording.begin(round % 3, KvOp::new("a", What::Add(1)));
        let get = recording.begin(4, KvOp::new("a", What::Get));
        let sum = i64::try_from(round).unwrap() + 1;
        recording.returned(add, value(sum)).unwrap();
        recording.returned(get, value(sum)).unwrap();
        let other = recording.begin(5, KvOp::new("b", What::Set(1)));
        recording.returned(other, KvOutcome::Done).unwrap();
    }
    let put = recording.begin(6, KvOp::new("a", What::Put(100)));
    recording.returned(put, value(20)).unwrap();
    let stale = recording.begin(7, KvOp::new("a", What::Get));
    recording.begin(8, KvOp::new("a", What::Add(1)));
    recording.returned(stale, value(20)).unwrap();
    recording.into_history()
}

#[test]
fn a_stale_read_is_drawn_with_what_it_should_have_seen() {
    let violation = violation(&KvModel, &stale_read());
    assert!(violation.history.calls().len() <= 3, "{violation}");
    assert!(violation.drawing.contains("|- put a 100 -|"), "{violation}");
    assert!(violation.drawing.contains("|- get a -> 20 -|"), "{violation}");
    assert!(violation.to_string().contains("more calls were made until then"), "{violation}");
    assert_eq!(violation.keys.iter().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_call_without_an_end_reaches_the_margin() {
    let mut recording = Recording::new();
    recording.begin(1, KvOp::new("k", What::Add(5)));
    let get = recording.begin(2, KvOp::new("k", What::Get));
    recording.returned(get, value(5)).unwrap();
    let late = recording.begin(3, KvOp::new("k", What::Get));
    recording.returned(late, KvOutcome::Value(None)).unwrap();
    let violation = violation(&KvModel, &recording.into_history());
    let lines: Vec<&str> = violation.drawing.lines().collect();
    assert_eq!(
        lines,
        [
            "client 1  |- add k 5 .........................",
            "client 2   |- get k -> 5 -|",
            "client 3                   |- get k -> none -|",
        ],
        "{violation}"
    );
}

#[test]
fn violations_in_long_histories_become_small() {
    let mut rng = Prng::new(5);
    let mix = Mix { clients: 6, calls: 400, keys: 4, values: 100, unknown: 3 };
    let mut sizes = Vec::new();
    for _ in 0..15 {
        let mut history = execution(&mut rng, mix);
        corrupt(&mut rng, &mut history);
        if let Verdict::Violation(violation) = check(&KvModel, &history) {
            sizes.push(violation.history.calls().len());
        }
    }
    sizes.sort_unstable();
    assert!(sizes.len() >= 10 && sizes[sizes.len() / 2] <= 4, "{sizes:?}");
}

#[test]
fn no_end_of_a_small_history_can_be_forgotten() {
    let history = stale_read();
    let violation = violation(&KvModel, &history);
    let all = with_others(&history, &violation);
    for at in 0..violation.history.calls().len() {
        let mut less = History::new();
        for (other, call) in all.calls().iter().enumerate() {
            let returned = call.returned.clone().filter(|_| other != at);
            less.push(Call { returned, ..call.clone() }).unwrap();
        }
        check(&KvModel, &less).assert_ok();
    }
}

#[test]
fn many_unknown_outcomes_do_not_exhaust_the_budget() {
    let mut rng = Prng::new(6);
    let mix = Mix { clients: 8, calls: 2000, keys: 8, values: 100, unknown: 12 };
    for _ in 0..5 {
        let history = execution(&mut rng, mix);
        assert!(examined(&history));
    }
}

#[test]
fn a_spent_budget_is_a_failure_that_says_so() {
    let verdict = check_within(&KvModel, &stale_read(), 3);
    assert!(matches!(verdict, Verdict::Unknown { .. }), "{verdict}");
    assert!(!verdict.is_linearizable());
    let text = verdict.problem().unwrap();
    assert!(text.contains("this is no pass"), "{text}");
    let refused = std::panic::catch_unwind(|| verdict.assert_ok());
    assert!(refused.is_err());
}
