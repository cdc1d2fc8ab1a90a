//! Histories to check: of services that exist once, and the same ones made wrong.

use std::collections::BTreeMap;

use vr_sim::{
    linearizability::{
        history::{Call, CallNumber, History, Recording, Return},
        kv::{KvModel, KvOp, KvOutcome, What},
        model::Model,
    },
    prng::Prng,
};

pub(crate) type KvHistory = History<KvOp, KvOutcome>;

/// How an execution is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) clients: u64,
    pub(crate) calls: usize,
    pub(crate) keys: u64,
    pub(crate) values: u64,
    /// Of a hundred calls, how many never return.
    pub(crate) unknown: u64,
}

enum Phase {
    Called,
    Applied(KvOutcome),
}

struct Pending {
    number: CallNumber,
    operation: KvOp,
    phase: Phase,
    lost: bool,
}

pub(crate) fn drawn_what(rng: &mut Prng, values: u64) -> What {
    let mut value = || i64::try_from(rng.below(values)).unwrap();
    let (one, other) = (value(), value());
    match rng.below(10) {
        0..3 => What::Get,
        3 => What::Set(one),
        4 => What::Put(one),
        5..7 => What::Add(1),
        7 => What::Swap(one, other),
        8 => What::Cas(one, other),
        _ => What::Take,
    }
}

/// What concurrent clients of one service see: each operation takes effect at some moment between
/// its call and its return; a lost one at some moment after its call, or never.
pub(crate) fn execution(rng: &mut Prng, mix: Mix) -> KvHistory {
    let mut recording = Recording::new();
    let mut state: BTreeMap<String, Option<i64>> = BTreeMap::new();
    let mut pending: BTreeMap<u64, Pending> = BTreeMap::new();
    let (mut calls, mut next_lost) = (0, 1000);
    while calls < mix.calls || pending.values().any(|call| !call.lost) {
        let clients: Vec<u64> = (0..mix.clients).chain(pending.keys().copied()).collect();
        let client = *rng.pick(&clients).unwrap();
        let Some(mut call) = pending.remove(&client) else {
            if calls < mix.calls {
                calls += 1;
                let key = format!("k{}", rng.below(mix.keys));
                let operation = KvOp { key, what: drawn_what(rng, mix.values) };
                let number = recording.begin(client, operation.clone());
                let lost = rng.below(100) < mix.unknown;
                let at = if lost { next_lost } else { client };
                next_lost += u64::from(lost);
                pending.insert(at, Pending { number, operation, phase: Phase::Called, lost });
            }
            continue;
        };
        match call.phase {
            Phase::Called => {
                let number = state.entry(call.operation.key.clone()).or_default();
                let outcome = outcome_of(*number, &call.operation);
                *number = KvModel.step_unknown(number, &call.operation).unwrap();
                call.phase = Phase::Applied(outcome);
                if !call.lost {
                    pending.insert(client, call);
                }
            }
            Phase::Applied(outcome) => recording.returned(call.number, outcome).unwrap(),
        }
    }
    recording.into_history()
}

/// The outcome that fits, found by asking the model.
fn outcome_of(number: Option<i64>, operation: &KvOp) -> KvOutcome {
    let sum = |by| number.unwrap_or(0) + by;
    match operation.what {
        What::Set(_) => KvOutcome::Done,
        What::Cas(from, _) => KvOutcome::Wrote(number == Some(from)),
        What::Add(by) => KvOutcome::Value(Some(sum(by))),
        What::Get | What::Put(_) | What::Swap(..) | What::Take => KvOutcome::Value(number),
    }
}

/// Another outcome of the same kind for one call that has one; false if there is none such.
pub(crate) fn corrupt(rng: &mut Prng, history: &mut KvHistory) -> bool {
    let mut outcomes: Vec<_> = history.outcomes_mut().collect();
    let count = outcomes.len();
    let start = rng.position(count);
    for at in (0..count).map(|at| (start + at) % count) {
        match &mut *outcomes[at].1 {
            Some(KvOutcome::Value(value)) => {
                let by = 1 + i64::try_from(rng.below(3)).unwrap();
                *value = Some(value.map_or(by, |value| value + by));
                return true;
            }
            Some(KvOutcome::Wrote(wrote)) => {
                *wrote = !*wrote;
                return true;
            }
            Some(KvOutcome::Done) | None => {}
        }
    }
    false
}

/// A few calls with any outcome at any time; about half of them have an order.
pub(crate) fn small(rng: &mut Prng) -> KvHistory {
    let mut history = History::new();
    for client in 0..rng.between(2, 6) {
        let key = format!("k{}", rng.below(5) / 4);
        let operation = KvOp { key, what: drawn_what(rng, 2) };
        let called = rng.below(12);
        let at = called + rng.below(8);
        let outcome = any_outcome(rng, &operation);
        let returned = match rng.below(10) {
            0..4 => None,
            4 => Some(Return { at, outcome: None }),
            _ => Some(Return { at, outcome: Some(outcome) }),
        };
        history.push(Call { client, operation, called, returned }).unwrap();
    }
    history
}

fn any_outcome(rng: &mut Prng, operation: &KvOp) -> KvOutcome {
    match operation.what {
        What::Set(_) => KvOutcome::Done,
        What::Cas(..) => KvOutcome::Wrote(rng.below(2) == 0),
        What::Get | What::Put(_) | What::Add(_) | What::Swap(..) | What::Take => {
            KvOutcome::Value([None, Some(0), Some(1), Some(2)][rng.position(4)])
        }
    }
}
