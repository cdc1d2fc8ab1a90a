//! The cases of the suite for services whose state is on disk by itself.

use bytes::Bytes;

use crate::{
    conformance::{
        report::{Failure, Outcome, Report, Verdict, ensure, panicked},
        state_machine::{
            cases::difference,
            trial::{Trial, restore, snapshot, snapshot_of_fork},
        },
    },
    model::types::OpNumber,
    ports::state_machine::{OnDisk, RawStateMachine},
};

/// Why something would be on disk that should not be, or not be there.
const NOT_TOGETHER: &str = "Usual causes: operations, restore or reset are committed on their own \
    instead of with the next persist; the companion is written in a transaction of its own, or \
    behind the state; a Drop that commits.";

/// A service in a place of its own, which can be opened again.
pub(crate) struct Places<'a, P, R> {
    pub(crate) place: &'a dyn Fn() -> P,
    pub(crate) open: &'a dyn Fn(&P) -> R,
}

type Check<P, R> = fn(&Places<'_, P, R>, &Trial<'_, R>) -> Outcome;

/// Names of the cases, in the order in which they run.
pub(crate) const NAMES: [&str; 9] = [
    "an_empty_place_has_no_companion",
    "what_was_persisted_is_there_again",
    "what_was_not_persisted_is_not_there",
    "the_last_companion_counts",
    "a_reopened_service_goes_on_alike",
    "a_restore_is_durable_with_the_next_persist",
    "a_reset_empties",
    "a_reset_is_durable_with_the_next_persist",
    "a_fork_behind_a_persist_is_frozen",
];

/// Runs all cases.
pub(crate) fn run<P, R: RawStateMachine>(
    report: &mut Report,
    places: &Places<'_, P, R>,
    trial: &Trial<'_, R>,
) {
    let checks: [Check<P, R>; 9] = [
        empty_place,
        there_again,
        not_there,
        last_companion,
        goes_on_alike,
        restored,
        reset,
        reset_durably,
        fork,
    ];
    for (name, check) in NAMES.into_iter().zip(checks) {
        let work = std::panic::AssertUnwindSafe(|| check(places, trial));
        let verdict: Verdict = match std::panic::catch_unwind(work) {
            Ok(outcome) => outcome.into(),
            Err(payload) => panicked(payload.as_ref()),
        };
        report.add(name, verdict);
    }
}

/// A companion that is told from others; a large one now and then.
fn companion(number: usize) -> Bytes {
    let size = if number % 3 == 1 { 300_000 } else { number % 5 };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + size, 0xA5);
    Bytes::from(bytes)
}

fn on_disk(service: &mut impl RawStateMachine) -> Result<&mut dyn OnDisk, Failure> {
    service.on_disk().ok_or_else(|| Failure("on_disk() returns None".into()))
}

fn persisted(service: &mut impl RawStateMachine) -> Result<Option<Bytes>, Failure> {
    let companion = on_disk(service)?.persisted();
    companion.map_err(|error| Failure(format!("persisted() failed: {error}")))
}

fn persist(service: &mut impl RawStateMachine, count: usize) -> Outcome {
    let applied = OpNumber(u64::try_from(count).unwrap_or(u64::MAX));
    let written = on_disk(service)?.persist(applied, &companion(count));
    written.map_err(|error| Failure(format!("persist() failed: {error}")))
}

/// Opens `place` as at a start: the companion is asked for first.
fn reopened<P, R: RawStateMachine>(
    places: &Places<'_, P, R>,
    place: &P,
) -> Result<(R, Option<Bytes>), Failure> {
    let mut service = (places.open)(place);
    let companion = persisted(&mut service)?;
    Ok((service, companion))
}

/// A place, and a service there that has applied and persisted the first `count` operations.
fn kept<P, R: RawStateMachine>(
    places: &Places<'_, P, R>,
    trial: &Trial<'_, R>,
    count: usize,
) -> Result<(P, R), Failure> {
    let place = (places.place)();
    let mut service = reopened(places, &place)?.0;
    trial.advance(&mut service, 0, count);
    persist(&mut service, count)?;
    Ok((place, service))
}

/// Opens `place` and compares what is there with the state after `count` operations, of which the
/// companion is to tell.
fn expect<P, R: RawStateMachine>(
    places: &Places<'_, P, R>,
    trial: &Trial<'_, R>,
    (place, count): (&P, usize),
    what: &str,
) -> Result<R, Failure> {
    let (service, found) = reopened(places, place)?;
    let told = match &found {
        None => "none".to_owned(),
        Some(bytes) => format!("one of {} bytes", bytes.len()),
    };
    let wanted = companion(count);
    ensure(found.as_ref() == Some(&wanted), || {
        let length = wanted.len();
        format!(
            "{what}, and opened again it has another companion: {told}, not the {length} bytes of \
             the last persist. {NOT_TOGETHER}"
        )
    })?;
    let (expected, there) = (snapshot(&trial.after(count))?, snapshot(&service)?);
    ensure(expected == there, || {
        let difference = difference(&expected, &there);
        format!("{what}, and opened again it has another state: {difference}. {NOT_TOGETHER}")
    })?;
    Ok(service)
}

fn empty_place<P, R: RawStateMachine>(places: &Places<'_, P, R>, _: &Trial<'_, R>) -> Outcome {
    let place = (places.place)();
    let (_, found) = reopened(places, &place)?;
    ensure(found.is_none(), || "A place that nothing was ever put into has a companion.".into())
}

fn there_again<P, R: RawStateMachine>(places: &Places<'_, P, R>, trial: &Trial<'_, R>) -> Outcome {
    for count in trial.positions() {
        let (place, service) = kept(places, trial, count)?;
        drop(service);
        let what = format!("{count} operations were applied and persisted");
        expect(places, trial, (&place, count), &what)?;
    }
    Ok(())
}

fn not_there<P, R: RawStateMachine>(places: &Places<'_, P, R>, trial: &Trial<'_, R>) -> Outcome {
    for count in trial.positions() {
        let (place, mut service) = kept(places, trial, count)?;
        trial.advance(&mut service, count, trial.operations());
        let seen = snapshot(&service)?;
        let all = snapshot(&trial.after(trial.operations()))?;
        ensure(seen == all, || {
            let difference = difference(&all, &seen);
            format!("A snapshot does not see what was applied since a persist: {difference}.")
        })?;
        drop(service);
        let what = format!("{count} operations were persisted, and what followed was not");
        expect(places, trial, (&place, count), &what)?;
    }
    Ok(())
}

fn last_companion<P, R: RawStateMachine>(
    places: &Places<'_, P, R>,
    trial: &Trial<'_, R>,
) -> Outcome {
    let place = (places.place)();
    let mut service = reopened(places, &place)?.0;
    let mut applied = 0;
    for count in trial.positions() {
        trial.advance(&mut service, applied, count);
        persist(&mut service, count)?;
        applied = count;
    }
    // Nothing was applied since: it is the companion that is news.
    persist(&mut service, applied)?;
    drop(service);
    let what = "It was persisted many times";
    expect(places, trial, (&place, applied), what).map(drop)
}

fn goes_on_alike<P, R: RawStateMachine>(
    places: &Places<'_, P, R>,
    trial: &Trial<'_, R>,
) -> Outcome {
    let replies = trial.replies();
    for count in trial.positions() {
        let (place, service) = kept(places, trial, count)?;
        drop(service);
        let (mut service, _) = reopened(places, &place)?;
        let again = trial.advance(&mut service, count, trial.operations());
        ensure(Some(again.as_slice()) == replies.get(count..), || {
            format!(
                "{count} operations were persisted; opened again, it replies to those that follow \
                 otherwise than one that was never closed. Usual cause: a field or a cache that is \
                 not made again when the place is opened."
            )
        })?;
    }
    Ok(())
}

fn restored<P, R: RawStateMachine>(places: &Places<'_, P, R>, trial: &Trial<'_, R>) -> Outcome {
    let all = trial.operations();
    let bytes = snapshot(&trial.after(all))?;
    for count in trial.positions() {
        let (place, mut service) = kept(places, trial, count)?;
        restore(&mut service, &bytes)?;
        drop(service);
        let what = format!("{count} operations were persisted, and a restore after that was not");
        let mut service = expect(places, trial, (&place, count), &what)?;
        restore(&mut service, &bytes)?;
        persist(&mut service, all)?;
        drop(service);
        expect(places, trial, (&place, all), "It was restored and persisted")?;
    }
    Ok(())
}

/// Empties a service and looks whether it is.
fn emptied<R: RawStateMachine>(service: &mut R, trial: &Trial<'_, R>) -> Outcome {
    let reset = on_disk(service)?.reset();
    reset.map_err(|error| Failure(format!("reset() failed: {error}")))?;
    let (fresh, left) = (snapshot(&trial.fresh())?, snapshot(service)?);
    ensure(fresh == left, || {
        format!("After a reset something is left: {}.", difference(&fresh, &left))
    })
}

fn reset<P, R: RawStateMachine>(places: &Places<'_, P, R>, trial: &Trial<'_, R>) -> Outcome {
    let all = trial.operations();
    let (_place, mut service) = kept(places, trial, all)?;
    emptied(&mut service, trial)?;
    let replies = trial.advance(&mut service, 0, all);
    ensure(replies == trial.replies(), || {
        "After a reset it replies otherwise than one that is new.".to_owned()
    })?;
    // Of a place with nothing in it, too, and of one with something that was never persisted.
    let place = (places.place)();
    let (mut service, _) = reopened(places, &place)?;
    emptied(&mut service, trial)?;
    trial.advance(&mut service, 0, all);
    emptied(&mut service, trial)
}

fn reset_durably<P, R: RawStateMachine>(
    places: &Places<'_, P, R>,
    trial: &Trial<'_, R>,
) -> Outcome {
    let all = trial.operations();
    for count in trial.positions() {
        let (place, mut service) = kept(places, trial, all)?;
        emptied(&mut service, trial)?;
        trial.advance(&mut service, 0, count);
        drop(service);
        let (service, found) = reopened(places, &place)?;
        if found.is_some() {
            drop(service);
            let what = "It was persisted, and a reset after that was not";
            drop(expect(places, trial, (&place, all), what)?);
        }
        let (mut service, _) = reopened(places, &place)?;
        emptied(&mut service, trial)?;
        trial.advance(&mut service, 0, count);
        persist(&mut service, count)?;
        drop(service);
        expect(places, trial, (&place, count), "It was reset, and persisted again")?;
    }
    Ok(())
}

fn fork<P, R: RawStateMachine>(places: &Places<'_, P, R>, trial: &Trial<'_, R>) -> Outcome {
    for count in trial.positions() {
        let (_place, mut service) = kept(places, trial, count)?;
        let Some(fork) = service.fork() else { continue };
        trial.advance(&mut service, count, trial.operations());
        persist(&mut service, trial.operations())?;
        let (expected, frozen) = (snapshot(&trial.after(count))?, snapshot_of_fork(fork.as_ref())?);
        ensure(expected == frozen, || {
            let difference = difference(&expected, &frozen);
            format!(
                "A fork made behind a persist changed with what followed, or was never the state: \
                 {difference}. Usual cause: it reads what is there now instead of a transaction that \
                 was begun when it was made."
            )
        })?;
    }
    Ok(())
}
