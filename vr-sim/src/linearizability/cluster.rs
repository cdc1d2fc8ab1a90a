//! From the calls of a simulated group to a history that can be checked.

use vr_core::{Read, client::outcome::ClientOutcome, model::time::Instant};

use crate::{
    cluster::{
        Cluster,
        client::{CallOf, Ended, Service, Wanted},
    },
    linearizability::{
        check_along,
        history::{Call, History, HistoryError, Return},
        kv::{KvModel, KvOp, KvOutcome, What},
        state_machine::{Asked, AskedOf, Told, ToldOf},
    },
    workload::{Kv, Op},
};

/// The history of a simulated group's calls (`Cluster::history`), for a
/// [`StateMachineModel`](crate::linearizability::state_machine::StateMachineModel).
///
/// Pending calls and those whose clients cannot tell are of unknown outcome. Left out are calls
/// that surely did not execute, and queries that did not ask for a linearizable answer.
///
/// # Errors
/// [`HistoryError`] if a call returned before it was made.
pub fn history_of<S: Service>(
    calls: &[CallOf<S>],
) -> Result<History<AskedOf<S>, ToldOf<S>>, HistoryError> {
    let mut history = History::new();
    for call in calls.iter().filter_map(call_of::<S>) {
        history.push(call)?;
    }
    Ok(history)
}

/// A call as the checker sees it, unless it has no place in a history.
fn call_of<S: Service>(call: &CallOf<S>) -> Option<Call<AskedOf<S>, ToldOf<S>>> {
    let operation = match &call.wanted {
        Wanted::Operation(operation) => Asked::Operation(operation.clone()),
        Wanted::Query(query, Read::Linearizable | Read::Lease) => Asked::Query(query.clone()),
        Wanted::Query(..) => return None,
    };
    let outcome = match &call.ended {
        None => None,
        Some((at, Ended::Replied(reply))) => Some((at, Some(Told::Reply(reply.clone())))),
        Some((at, Ended::Answered(answer))) => Some((at, Some(Told::Answer(answer.clone())))),
        Some((at, Ended::Failed(error))) => match error.outcome() {
            ClientOutcome::NotExecuted => return None,
            ClientOutcome::Executed => Some((at, None)),
            ClientOutcome::Unknown => None,
        },
    };
    let returned = outcome.map(|(at, outcome)| Return { at: nanoseconds(*at), outcome });
    Some(Call { client: call.client, operation, called: nanoseconds(call.invoked), returned })
}

/// Where the log has the calls that are in their [`history`](history_of), for
/// [`check_along`].
#[must_use]
pub fn places_of<S: Service>(calls: &[CallOf<S>]) -> Vec<Option<u64>> {
    let kept = calls.iter().filter(|call| call_of::<S>(call).is_some());
    kept.map(|call| call.place.map(|op_number| op_number.0)).collect()
}

/// The history of the calls of a group that runs [`Kv`], for a
/// [`KvModel`].
///
/// # Errors
/// As [`history_of`].
pub fn kv_history_of(calls: &[CallOf<Kv>]) -> Result<History<KvOp, KvOutcome>, HistoryError> {
    let operation = |asked| match asked {
        Asked::Query(key) => KvOp { key, what: What::Get },
        Asked::Operation(Op::Put(key, value)) => KvOp { key, what: What::Put(value) },
        Asked::Operation(Op::Add(key, by)) => KvOp { key, what: What::Add(by) },
        Asked::Operation(Op::Swap(key, from, to)) => KvOp { key, what: What::Swap(from, to) },
    };
    let outcome = |told| match told {
        Told::Reply(value) | Told::Answer(value) => KvOutcome::Value(value),
    };
    Ok(history_of::<Kv>(calls)?.translated(operation, outcome))
}

/// Requires that one order explains what all clients of the group were told so far (O6).
///
/// # Panics
/// When none does, with a drawing and the state of everything; also when that cannot be decided.
pub fn require_order(group: &Cluster<Kv>) {
    let calls = group.history();
    let problem = match kv_history_of(&calls) {
        Ok(history) => check_along(&KvModel, &history, &places_of::<Kv>(&calls)).problem(),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        group.fail(&format!("O6 violated: {problem}"));
    }
}

fn nanoseconds(at: Instant) -> u64 {
    u64::try_from(at.since(Instant::ZERO).as_nanos()).unwrap_or(u64::MAX)
}
