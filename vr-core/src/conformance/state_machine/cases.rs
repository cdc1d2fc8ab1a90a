//! The cases of the suite for services: what is compared, and what a difference means.

use bytes::Bytes;

use crate::{
    conformance::{
        report::{Failure, Outcome, Verdict, ensure},
        state_machine::trial::{Returned, Trial, Trickle, restore, snapshot, snapshot_of_fork},
    },
    ports::state_machine::{RawStateMachine, SnapshotReader, SnapshotWriter},
};

/// Why equal operations would end differently.
const NOT_DETERMINISTIC: &str = "Usual causes: iterating over a HashMap or HashSet (use BTreeMap), \
    reading a clock (use context.time), random numbers (let the client draw them), a global or \
    thread-local variable, an address or a pointer.";

/// Why a restored service would differ.
const INCOMPLETE_SNAPSHOT: &str = "Usual causes: a field that the snapshot leaves out \
    (#[serde(skip)], or forgotten in a snapshot written by hand), a cache or an index that restore \
    does not build again, a HashMap whose order changed.";

/// Why a service would keep something of its earlier state.
const MERGED: &str = "Usual causes: restore inserts into the collections that are there instead \
    of replacing them (insert, extend), or sets only some of the fields.";

/// Why looking would change something.
const CHANGED_BY_LOOKING: &str = "Usual causes: a Cell, RefCell, Mutex or atomic in the state, such \
    as a counter of queries or a cache that shows in a reply or in the snapshot. Other replicas \
    are asked other queries, so their states would part.";

/// Names of checks; [`run`] has what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    NewInstances,
    Replies,
    States,
    Answers,
    Queries,
    Snapshots,
    RestoredSnapshot,
    RestoredAnswers,
    RestoredReplies,
    RestoredOver,
    ReadInPieces,
    WrittenInPieces,
    FailedStream,
    Fork,
}

/// A check and how it is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) check: Check,
    /// Whether its verdict means something only of a deterministic service.
    pub(crate) needs_determinism: bool,
}

const fn case(name: &'static str, check: Check) -> Case {
    Case { name, check, needs_determinism: true }
}

const fn first(name: &'static str, check: Check) -> Case {
    Case { name, check, needs_determinism: false }
}

/// Every case, in the order in which they run.
pub(crate) const CASES: [Case; 14] = [
    first("new_instances_are_equal", Check::NewInstances),
    first("equal_operations_get_equal_replies", Check::Replies),
    first("equal_operations_make_equal_states", Check::States),
    first("equal_states_give_equal_answers", Check::Answers),
    case("queries_change_nothing", Check::Queries),
    case("snapshots_change_nothing", Check::Snapshots),
    case("a_restored_state_answers_alike", Check::RestoredAnswers),
    case("a_restored_state_goes_on_alike", Check::RestoredReplies),
    case("a_restored_state_makes_the_same_snapshot", Check::RestoredSnapshot),
    case("a_restore_replaces_what_was_there", Check::RestoredOver),
    case("a_snapshot_is_read_in_pieces_of_any_size", Check::ReadInPieces),
    case("a_snapshot_is_written_in_pieces_of_any_size", Check::WrittenInPieces),
    case("a_failed_stream_is_told", Check::FailedStream),
    case("a_fork_is_frozen", Check::Fork),
];

/// Carries out one check.
pub(crate) fn run<R: RawStateMachine>(check: Check, trial: &Trial<'_, R>) -> Verdict {
    match check {
        Check::NewInstances => new_instances(trial).into(),
        Check::Replies => replies(trial).into(),
        Check::States => states(trial).into(),
        Check::Answers => answers(trial),
        Check::Queries => queries(trial),
        Check::Snapshots => snapshots(trial).into(),
        Check::RestoredSnapshot => restored_snapshot(trial).into(),
        Check::RestoredAnswers => restored_answers(trial),
        Check::RestoredReplies => restored_replies(trial).into(),
        Check::RestoredOver => restored_over(trial).into(),
        Check::ReadInPieces => read_in_pieces(trial).into(),
        Check::WrittenInPieces => written_in_pieces(trial).into(),
        Check::FailedStream => failed_stream(trial),
        Check::Fork => fork(trial),
    }
}

fn new_instances<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    let (one, other) = (snapshot(&trial.fresh())?, snapshot(&trial.fresh())?);
    ensure(one == other, || {
        let difference = difference(&one, &other);
        format!(
            "Two instances to which nothing was done have different snapshots: {difference}. \
             {NOT_DETERMINISTIC}"
        )
    })
}

fn replies<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    equal_replies(trial, 0, &trial.replies(), &trial.replies(), || {
        format!(
            "although both instances had executed exactly the same operations. {NOT_DETERMINISTIC}"
        )
    })
}

fn states<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    let (mut one, mut other) = (trial.fresh(), trial.fresh());
    let mut applied = 0;
    for position in trial.positions() {
        trial.advance(&mut one, applied, position);
        trial.advance(&mut other, applied, position);
        applied = position;
        let (one, other) = (snapshot(&one)?, snapshot(&other)?);
        ensure(one == other, || {
            let (place, difference) = (place(trial, position), difference(&one, &other));
            format!(
                "{place}, two instances that had executed exactly the same operations had \
                 different snapshots: {difference}. {NOT_DETERMINISTIC}"
            )
        })?;
    }
    Ok(())
}

fn answers<R: RawStateMachine>(trial: &Trial<'_, R>) -> Verdict {
    if trial.queries() == 0 {
        return Verdict::NotCovered("no queries were given".into());
    }
    let equal = || {
        for position in trial.positions() {
            let (one, other) = (trial.after(position), trial.after(position));
            equal_answers(trial, position, (&one, &other), || {
                format!(
                    "although both instances had executed exactly the same operations. \
                     {NOT_DETERMINISTIC}"
                )
            })?;
        }
        Ok(())
    };
    equal().into()
}

fn queries<R: RawStateMachine>(trial: &Trial<'_, R>) -> Verdict {
    if trial.queries() == 0 {
        return Verdict::NotCovered("no queries were given".into());
    }
    let unchanged = || {
        let (mut asked, mut left_alone) = (trial.fresh(), trial.fresh());
        for at in 0..=trial.operations() {
            trial.answers(&asked, at);
            let (one, other) = (snapshot(&asked)?, snapshot(&left_alone)?);
            ensure(one == other, || {
                let (place, difference) = (place(trial, at), difference(&one, &other));
                format!(
                    "{place}, an instance that was asked all queries has another snapshot than \
                     one that was never asked: {difference}. {CHANGED_BY_LOOKING}"
                )
            })?;
            if at < trial.operations() {
                let (one, other) = (trial.apply(&mut asked, at), trial.apply(&mut left_alone, at));
                equal_replies(trial, at, &[one], &[other], || {
                    format!(
                        "because one of the instances was asked queries before and the other was \
                         not. {CHANGED_BY_LOOKING}"
                    )
                })?;
            }
        }
        equal_answers(trial, trial.operations(), (&asked, &left_alone), || {
            format!(
                "because one of the instances was asked queries before and the other was not. \
                 {CHANGED_BY_LOOKING}"
            )
        })
    };
    unchanged().into()
}

fn snapshots<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    let (mut taken, mut left_alone) = (trial.fresh(), trial.fresh());
    let mut applied = 0;
    for position in trial.positions() {
        let one = trial.advance(&mut taken, applied, position);
        let other = trial.advance(&mut left_alone, applied, position);
        equal_replies(trial, applied, &one, &other, || {
            format!(
                "because a snapshot was taken of one of the instances before and of the other \
                 not. {CHANGED_BY_LOOKING}"
            )
        })?;
        applied = position;
        let (one, again) = (snapshot(&taken)?, snapshot(&taken)?);
        ensure(one == again, || {
            let (place, difference) = (place(trial, position), difference(&one, &again));
            format!(
                "{place}, two snapshots of the same instance differ: {difference}. \
                 {CHANGED_BY_LOOKING}"
            )
        })?;
    }
    let (one, other) = (snapshot(&taken)?, snapshot(&left_alone)?);
    ensure(one == other, || {
        let difference = difference(&one, &other);
        format!(
            "After all operations, an instance of which snapshots were taken has another state \
             than one that was left alone: {difference}. {CHANGED_BY_LOOKING}"
        )
    })
}

fn restored_snapshot<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    for position in trial.positions() {
        let bytes = snapshot(&trial.after(position))?;
        let mut restored = trial.fresh();
        restore(&mut restored, &bytes)?;
        let again = snapshot(&restored)?;
        ensure(bytes == again, || {
            let (place, difference) = (place(trial, position), difference(&bytes, &again));
            format!(
                "{place}, a snapshot was taken and restored; the restored instance's own snapshot \
                 is another one: {difference}. {INCOMPLETE_SNAPSHOT}"
            )
        })?;
    }
    Ok(())
}

fn restored_answers<R: RawStateMachine>(trial: &Trial<'_, R>) -> Verdict {
    if trial.queries() == 0 {
        return Verdict::NotCovered("no queries were given".into());
    }
    let equal = || {
        for position in trial.positions() {
            let original = trial.after(position);
            let mut restored = trial.fresh();
            restore(&mut restored, &snapshot(&original)?)?;
            equal_answers(trial, position, (&original, &restored), || {
                format!(
                    "the first from the instance that executed the operations, the second from \
                     one that was restored from its snapshot. {INCOMPLETE_SNAPSHOT}"
                )
            })?;
        }
        Ok(())
    };
    equal().into()
}

/// Replay equals snapshot plus suffix, at every position.
fn restored_replies<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    for position in trial.positions() {
        let mut original = trial.after(position);
        let mut restored = trial.fresh();
        restore(&mut restored, &snapshot(&original)?)?;
        suffixes_are_equal(trial, position, (&mut original, &mut restored), || {
            let place = place(trial, position).to_lowercase();
            format!(
                "the first from the instance that executed all operations, the second from one \
                 that was restored from a snapshot taken {place}. {INCOMPLETE_SNAPSHOT}"
            )
        })?;
    }
    Ok(())
}

fn restored_over<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    for position in trial.positions() {
        let mut original = trial.after(position);
        let bytes = snapshot(&original)?;
        let mut restored = trial.after(trial.operations());
        restore(&mut restored, &bytes)?;
        let why = || {
            let place = place(trial, position).to_lowercase();
            format!(
                "the first from the instance that the snapshot was taken of, {place}; the second \
                 from one that had executed all operations before the snapshot was restored into \
                 it: something of that earlier state is still there. {MERGED}"
            )
        };
        let again = snapshot(&restored)?;
        ensure(bytes == again, || {
            let difference = difference(&bytes, &again);
            format!("A restored instance's own snapshot is another one: {difference}; {}", why())
        })?;
        equal_answers(trial, position, (&original, &restored), why)?;
        suffixes_are_equal(trial, position, (&mut original, &mut restored), why)?;
    }
    Ok(())
}

fn read_in_pieces<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    let bytes = snapshot(&trial.after(trial.operations()))?;
    let mut restored = trial.fresh();
    let mut stream = Trickle::new(bytes.clone());
    let outcome = restored.restore(&mut SnapshotReader::new(&mut stream));
    outcome.map_err(|error| {
        Failure(format!(
            "A snapshot that arrives a few bytes at a time cannot be restored: {error}. Usual \
             cause: `read` returns fewer bytes than asked for; use `read_exact` or `read_to_end`."
        ))
    })?;
    let again = snapshot(&restored)?;
    ensure(bytes == again, || {
        let difference = difference(&bytes, &again);
        format!(
            "A snapshot that arrives a few bytes at a time is restored as something else: \
             {difference}. Usual cause: `read` returns fewer bytes than asked for; use \
             `read_exact` or `read_to_end`."
        )
    })
}

fn written_in_pieces<R: RawStateMachine>(trial: &Trial<'_, R>) -> Outcome {
    let service = trial.after(trial.operations());
    let bytes = snapshot(&service)?;
    let mut stream = Trickle::new(Vec::new());
    let outcome = service.snapshot(&mut SnapshotWriter::new(&mut stream));
    ensure(outcome.is_ok() && stream.bytes == bytes, || {
        let difference = difference(&bytes, &stream.bytes);
        format!(
            "A snapshot written to a stream that takes a few bytes at a time is another one: \
             {difference}. Usual cause: `write` takes fewer bytes than given; use `write_all`."
        )
    })
}

fn failed_stream<R: RawStateMachine>(trial: &Trial<'_, R>) -> Verdict {
    let told = || {
        let service = trial.after(trial.operations());
        let bytes = snapshot(&service)?;
        if bytes.is_empty() {
            return Ok(Verdict::NotCovered("the snapshot has no bytes".into()));
        }
        let half = bytes.len() / 2;
        let mut stream = Trickle::failing(Vec::new(), half);
        let written = service.snapshot(&mut SnapshotWriter::new(&mut stream));
        ensure(written.is_err(), || {
            format!(
                "The stream failed after {half} bytes of the snapshot, and `snapshot` returned Ok \
                 all the same; an incomplete snapshot would be taken for a whole one."
            )
        })?;
        let mut stream = Trickle::failing(bytes, half);
        let read = trial.fresh().restore(&mut SnapshotReader::new(&mut stream));
        ensure(read.is_err(), || {
            format!(
                "The stream failed after {half} bytes of the snapshot, and `restore` returned Ok \
                 all the same; the rest of the state is missing."
            )
        })?;
        Ok(Verdict::Passed)
    };
    told().unwrap_or_else(|Failure(why)| Verdict::Failed(why))
}

fn fork<R: RawStateMachine>(trial: &Trial<'_, R>) -> Verdict {
    let frozen = || {
        let mut forks = 0;
        for position in trial.positions() {
            let mut service = trial.after(position);
            let bytes = snapshot(&service)?;
            let Some(fork) = service.fork() else { continue };
            forks += 1;
            trial.advance(&mut service, position, trial.operations());
            let forked = snapshot_of_fork(fork.as_ref())?;
            ensure(bytes == forked, || {
                let place = place(trial, position).to_lowercase();
                let difference = difference(&bytes, &forked);
                format!(
                    "A fork taken {place} was written after the service had gone on, and is not \
                     the snapshot of that moment: {difference}. Usual cause: the fork shares \
                     something with the service that the service still changes."
                )
            })?;
        }
        if forks == 0 {
            return Ok(Verdict::NotCovered("the service does not fork".into()));
        }
        Ok(Verdict::Passed)
    };
    frozen().unwrap_or_else(|Failure(why)| Verdict::Failed(why))
}

/// Runs the rest of the operations on both and compares everything that can be seen.
fn suffixes_are_equal<R: RawStateMachine>(
    trial: &Trial<'_, R>,
    position: usize,
    (one, other): (&mut R, &mut R),
    why: impl Fn() -> String,
) -> Outcome {
    let end = trial.operations();
    let (first, second) = (trial.advance(one, position, end), trial.advance(other, position, end));
    equal_replies(trial, position, &first, &second, &why)?;
    equal_answers(trial, end, (one, other), &why)?;
    let (one, other) = (snapshot(one)?, snapshot(other)?);
    ensure(one == other, || {
        let difference = difference(&one, &other);
        format!("After all operations, two snapshots differ: {difference}; {}", why())
    })
}

fn equal_replies<R: RawStateMachine>(
    trial: &Trial<'_, R>,
    from: usize,
    one: &[Returned],
    other: &[Returned],
    why: impl Fn() -> String,
) -> Outcome {
    for (at, (one, other)) in one.iter().zip(other).enumerate() {
        ensure(one == other, || {
            let (number, of) = (from + at + 1, trial.operations());
            let (one, other) = (shown(one), shown(other));
            format!("Operation {number} of {of} got the replies {one} and {other}, {}", why())
        })?;
    }
    Ok(())
}

fn equal_answers<R: RawStateMachine>(
    trial: &Trial<'_, R>,
    applied: usize,
    (one, other): (&R, &R),
    why: impl Fn() -> String,
) -> Outcome {
    let answers = trial.answers(one, applied).into_iter().zip(trial.answers(other, applied));
    for (at, (one, other)) in answers.enumerate() {
        ensure(one == other, || {
            let (place, query, of) = (place(trial, applied), at + 1, trial.queries());
            let (one, other) = (shown(&one), shown(&other));
            format!("{place}, query {query} of {of} got the answers {one} and {other}, {}", why())
        })?;
    }
    Ok(())
}

fn place<R: RawStateMachine>(trial: &Trial<'_, R>, applied: usize) -> String {
    match applied {
        0 => "Before the first operation".to_owned(),
        applied => format!("After operation {applied} of {}", trial.operations()),
    }
}

/// A reply or an answer for the eye.
fn shown(returned: &Result<Bytes, impl Sized>) -> String {
    match returned {
        Ok(bytes) => hexadecimal(bytes, 0),
        Err(_) => "\"malformed\"".to_owned(),
    }
}

/// Where two snapshots part.
pub(crate) fn difference(one: &[u8], other: &[u8]) -> String {
    let equal = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let (lengths, from) = ((one.len(), other.len()), equal.saturating_sub(4));
    format!(
        "{} and {} bytes, equal up to byte {equal}, where they go on as {} and {}",
        lengths.0,
        lengths.1,
        hexadecimal(one, from),
        hexadecimal(other, from)
    )
}

/// Some bytes from `from` on.
fn hexadecimal(bytes: &[u8], from: usize) -> String {
    const BYTES_MAX: usize = 24;
    let rest = bytes.get(from..).unwrap_or_default();
    let digits: Vec<String> =
        rest.iter().take(BYTES_MAX).map(|byte| format!("{byte:02x}")).collect();
    let (before, after) =
        (if from > 0 { ".. " } else { "" }, if rest.len() > BYTES_MAX { " .." } else { "" });
    format!("[{before}{}{after}]", digits.join(" "))
}
