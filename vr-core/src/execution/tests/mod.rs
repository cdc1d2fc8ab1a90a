//! The executor and its client table: exactly once, in order, the same everywhere.

mod on_disk;
mod properties;
mod table;

use core::time::Duration;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use crate::{
    execution::{
        client_table::{ClientTable, Turn},
        executor::Executor,
        work::{Evicted, Executed, Finished, Work},
    },
    model::{
        entry::{Entry, EntryHeader, EntryKind},
        many,
        message::{Answer, Outcome, Reply},
        types::{
            Checksum, ClientId, ConnectionId, Nonce, OpNumber, Peer, RequestNumber, View, Viewstamp,
        },
    },
    ports::state_machine::{
        Context, Malformed, QueryContext, RawStateMachine, SnapshotError, SnapshotReader,
        SnapshotWriter,
    },
};

const WINDOW: u32 = 3;
const CLIENTS: u32 = 3;
const ALICE: ClientId = ClientId(1);
const BOB: ClientId = ClientId(2);

/// Remembers every operation it applied and answers with their number.
#[derive(Default)]
struct Journal(Vec<(Context, Bytes)>);

impl RawStateMachine for Journal {
    fn apply(&mut self, context: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        if operation.first() == Some(&b'?') {
            return Err(Malformed);
        }
        self.0.push((*context, operation.clone()));
        Ok(Bytes::copy_from_slice(&self.0.len().to_le_bytes()))
    }

    /// The number of operations and what the query was told; "context" the last operation's.
    fn query(&self, context: &QueryContext, query: Bytes) -> Result<Bytes, Malformed> {
        match query.as_ref() {
            b"count" => Ok(Bytes::from(format!("{} {context:?}", self.0.len()))),
            b"context" => Ok(Bytes::from(format!("{:?}", self.0.last()))),
            _ => Err(Malformed),
        }
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        for (context, operation) in &self.0 {
            let viewstamp = context.viewstamp;
            out.write_value(&(viewstamp, context.client, context.time, operation))?;
        }
        Ok(())
    }

    fn restore(&mut self, _: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unreadable)
    }
}

fn executor() -> Executor {
    Executor::new(Box::new(Journal::default()), WINDOW)
}

fn entry(op: u64, kind: EntryKind, fields: (ClientId, u64, u64), payload: &[u8]) -> Entry {
    let (client, session, number) = fields;
    let header = EntryHeader {
        client,
        view: View(7),
        op_number: OpNumber(op),
        time: 1000 * op,
        session: OpNumber(session),
        request_number: RequestNumber(number),
        kind,
        ..EntryHeader::default()
    };
    Entry::new(header, Bytes::copy_from_slice(payload))
}

fn noop(op: u64) -> Entry {
    entry(op, EntryKind::Noop, (ClientId(0), 0, 0), b"")
}

fn register(op: u64, client: ClientId, nonce: u128) -> Entry {
    entry(op, EntryKind::Register, (client, u64::from(CLIENTS), 0), &nonce.to_le_bytes())
}

fn request(op: u64, client: ClientId, session: u64, number: u64) -> Entry {
    entry(op, EntryKind::Request, (client, session, number), format!("op {number}").as_bytes())
}

/// Carries out `entries`; what clients are told.
fn run(executor: &mut Executor, entries: Vec<Entry>) -> Vec<Reply> {
    executor.push(Work::Entries { entries: entries.into(), reply: true });
    finish(executor).executed.replies
}

fn finish(executor: &mut Executor) -> Finished {
    executor.steps(usize::MAX);
    executor.take_finished().unwrap_or_default()
}

fn reply(client: ClientId, number: u64, op: u64, outcome: Outcome) -> Reply {
    let (request_number, op_number) = (RequestNumber(number), OpNumber(op));
    Reply { client, request_number, op_number, outcome }
}

/// The journal's reply to its n-th operation.
fn executed(count: usize) -> Outcome {
    Outcome::Executed(Bytes::copy_from_slice(&count.to_le_bytes()))
}

fn ask(executor: &mut Executor, query: &'static [u8], time: Duration) -> Answer {
    let to = Peer::Client(ConnectionId(9));
    let (client, request_number) = (BOB, RequestNumber(4));
    let query = Bytes::from_static(query);
    executor.push(Work::Query { to, client, request_number, query, time });
    let mut answers = finish(executor).answers;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, to);
    answers.remove(0).1
}

fn count(executor: &mut Executor) -> String {
    let answer = ask(executor, b"count", Duration::ZERO).answer.unwrap();
    String::from_utf8_lossy(&answer).split(' ').next().unwrap().to_owned()
}

fn resend(executor: &mut Executor, client: ClientId, number: u64) -> Option<Finished> {
    executor.push(Work::Resend { client, request_number: RequestNumber(number) });
    assert!(executor.step());
    executor.take_finished()
}

#[test]
fn a_session_is_named_by_the_op_that_opened_it() {
    let replies = run(&mut executor(), vec![noop(1), register(2, ALICE, 5)]);
    assert_eq!(replies, [reply(ALICE, 0, 2, Outcome::Registered)]);
}

#[test]
fn a_repeated_registration_finds_the_first_session() {
    let entries = vec![register(1, ALICE, 5), request(2, ALICE, 1, 1), register(3, ALICE, 5)];
    let mut executor = executor();
    let replies = run(&mut executor, entries);
    assert_eq!(replies[2], reply(ALICE, 0, 1, Outcome::Registered));
    assert_eq!(run(&mut executor, vec![request(4, ALICE, 1, 2)])[0].outcome, executed(2));
}

#[test]
fn a_client_id_used_again_does_not_touch_the_open_session() {
    let mut executor = executor();
    let replies = run(&mut executor, vec![register(1, ALICE, 5), register(2, ALICE, 6)]);
    assert_eq!(replies[1], reply(ALICE, 0, 2, Outcome::Evicted));
    let replies = run(&mut executor, vec![request(3, ALICE, 2, 1), request(4, ALICE, 1, 1)]);
    assert_eq!(replies[0].outcome, Outcome::Evicted);
    assert_eq!(replies[1].outcome, executed(1));
}

#[test]
fn a_registration_without_a_nonce_opens_nothing() {
    let mut executor = executor();
    let bare = entry(1, EntryKind::Register, (ALICE, 0, 0), b"short");
    let replies = run(&mut executor, vec![bare, request(2, ALICE, 1, 1)]);
    assert_eq!(replies[0], reply(ALICE, 0, 1, Outcome::Malformed));
    assert_eq!(replies[1].outcome, Outcome::Evicted);
}

/// S62: least recently *executed*, not first registered.
#[test]
fn a_full_table_closes_the_session_used_longest_ago() {
    let mut executor = executor();
    let mut entries: Vec<Entry> =
        (1..=3).map(|op| register(op, ClientId(u128::from(op)), 5)).collect();
    entries.extend([request(4, ClientId(1), 1, 1), register(5, ClientId(4), 5)]);
    entries.into_iter().for_each(|entry| {
        executor.push(Work::Entries { entries: vec![entry].into(), reply: true });
    });
    let finished = finish(&mut executor).executed;
    assert_eq!(finished.replies[4], reply(ClientId(4), 0, 5, Outcome::Registered));
    let closed = Evicted { by: OpNumber(5), client: ClientId(2), session: OpNumber(2) };
    assert_eq!(finished.evicted, [closed]);
    let replies =
        run(&mut executor, vec![request(6, ClientId(2), 2, 1), request(7, ClientId(1), 1, 2)]);
    assert_eq!((&replies[0].outcome, &replies[1].outcome), (&Outcome::Evicted, &executed(2)));
}

/// The log says how many sessions are kept, and not who executes it: a lower number closes several
/// at once.
#[test]
fn a_registration_says_how_many_sessions_are_kept() {
    let mut executor = executor();
    run(&mut executor, (1..=3).map(|op| register(op, ClientId(u128::from(op)), 5)).collect());
    let last = entry(4, EntryKind::Register, (ClientId(4), 2, 0), &5_u128.to_le_bytes());
    executor.push(Work::Entries { entries: vec![last].into(), reply: true });
    let evicted = finish(&mut executor).executed.evicted;
    let closed: Vec<_> = evicted.iter().map(|closed| closed.client).collect();
    assert_eq!(closed, [ClientId(1), ClientId(2)]);
}

#[test]
fn a_request_is_executed_with_its_identity_and_time() {
    let mut executor = executor();
    run(&mut executor, vec![register(1, ALICE, 5), request(2, ALICE, 1, 1)]);
    let context = Context {
        viewstamp: Viewstamp { view: View(7), op_number: OpNumber(2) },
        client: ALICE,
        time: Duration::from_nanos(2000),
        position: 0,
    };
    let seen = ask(&mut executor, b"context", Duration::ZERO).answer;
    assert_eq!(seen, Some(Bytes::from(format!("{:?}", Some((context, Bytes::from("op 1")))))));
}

#[test]
fn a_request_that_stands_in_the_log_twice_is_executed_once() {
    let mut executor = executor();
    let entries = vec![register(1, ALICE, 5), request(2, ALICE, 1, 1), request(3, ALICE, 1, 1)];
    let replies = run(&mut executor, entries);
    assert_eq!(replies[1], reply(ALICE, 1, 2, executed(1)));
    assert_eq!(replies[2], replies[1]);
    assert_eq!(count(&mut executor), "1");
}

#[test]
fn a_reply_leaves_the_window_when_it_was_acknowledged() {
    let mut executor = executor();
    run(&mut executor, vec![register(1, ALICE, 5)]);
    let replies = run(&mut executor, (1..=4).map(|n| request(n + 1, ALICE, 1, n)).collect());
    let forgotten = reply(ALICE, 1, 0, Outcome::Forgotten);
    let resent = resend(&mut executor, ALICE, 1).unwrap().executed.replies;
    assert_eq!(resent.first(), Some(&forgotten));
    assert_eq!(resend(&mut executor, ALICE, 5), None, "it did not execute");
    for number in 2..=4 {
        let stored = resend(&mut executor, ALICE, number).unwrap();
        let position = usize::try_from(number).unwrap() - 1;
        assert_eq!(stored.executed.replies, [replies[position].clone()]);
    }
    assert_eq!(run(&mut executor, vec![request(6, ALICE, 1, 1)]), [forgotten]);
    assert_eq!(count(&mut executor), "4");
}

#[test]
fn a_request_before_its_turn_has_no_effect_and_no_reply() {
    let mut executor = executor();
    let entries = vec![register(1, ALICE, 5), request(2, ALICE, 1, 2), request(3, ALICE, 1, 1)];
    let replies = run(&mut executor, entries);
    assert_eq!(replies.len(), 2);
    assert_eq!(replies[1], reply(ALICE, 1, 3, executed(1)));
    assert_eq!(executor.applied(), OpNumber(3));
}

/// Requests that come next in one session are executed together, and nothing else with them that
/// happens to have the next number.
#[test]
fn what_stands_behind_a_request_is_of_its_session_or_has_its_own_turn() {
    let opened = || vec![register(1, ALICE, 5), register(2, BOB, 5), request(3, ALICE, 1, 1)];
    let behind = |entry: Entry| {
        let mut executor = executor();
        let replies = run(&mut executor, [opened(), vec![entry]].concat());
        (replies.get(3).cloned(), count(&mut executor))
    };
    let told = |client, outcome| Some(reply(client, 2, 4, outcome));
    let once = || "1".to_owned();
    assert_eq!(behind(request(4, ALICE, 1, 2)), (told(ALICE, executed(2)), "2".to_owned()));
    assert_eq!(behind(request(4, BOB, 2, 2)), (None, once()));
    assert_eq!(behind(request(4, BOB, 1, 2)), (told(BOB, Outcome::Evicted), once()));
    assert_eq!(behind(request(4, ALICE, 2, 2)), (told(ALICE, Outcome::Evicted), once()));
    assert_eq!(behind(request(4, ALICE, 1, 3)), (None, once()));
    assert_eq!(behind(entry(4, EntryKind::Noop, (ALICE, 1, 2), b"")), (None, once()));
}

/// A time that goes back is no correct primary's; even so it does not matter how a run is cut.
#[test]
fn the_time_after_a_run_is_the_latest_in_it() {
    let at = |entry: Entry, time| {
        let header = EntryHeader { time, ..entry.header };
        Entry::new(header, entry.payload)
    };
    let entries =
        vec![register(1, ALICE, 5), at(request(2, ALICE, 1, 1), 9000), request(3, ALICE, 1, 2)];
    let mut executor = executor();
    run(&mut executor, entries);
    let answer = ask(&mut executor, b"count", Duration::ZERO).answer.unwrap();
    let latest = format!("{:?}", Duration::from_nanos(9000));
    assert!(String::from_utf8_lossy(&answer).contains(&latest), "{answer:?}");
}

#[test]
fn a_request_without_its_session_has_no_effect_and_says_so() {
    let mut executor = executor();
    let entries = vec![register(1, ALICE, 5), request(2, ALICE, 9, 1), request(3, BOB, 1, 1)];
    let replies = run(&mut executor, entries);
    assert_eq!(replies[1], reply(ALICE, 1, 2, Outcome::Evicted));
    assert_eq!(replies[2], reply(BOB, 1, 3, Outcome::Evicted));
    assert_eq!(count(&mut executor), "0");
}

#[test]
fn several_operations_execute_in_order_as_one_request() {
    let mut executor = executor();
    let operations = many::join(&["a", "?", "b"].map(Bytes::from)).unwrap();
    let several = |op| entry(op, EntryKind::Many, (ALICE, 1, 1), &operations);
    let replies = run(&mut executor, vec![register(1, ALICE, 5), several(2), several(3)]);
    let stored = |count: usize| Some(Bytes::copy_from_slice(&count.to_le_bytes()));
    let expected = many::join_replies(&[stored(1), None, stored(2)]).unwrap();
    assert_eq!(replies[1], reply(ALICE, 1, 2, Outcome::Executed(expected)));
    assert_eq!((&replies[2], count(&mut executor).as_str()), (&replies[1], "2"), "once");
    let seen = ask(&mut executor, b"context", Duration::ZERO).answer.unwrap();
    assert!(String::from_utf8_lossy(&seen).contains("position: 2"), "{seen:?}");
    let next = run(&mut executor, vec![request(4, ALICE, 1, 2)]);
    assert_eq!(next[0].request_number, RequestNumber(2), "several take one number");
}

#[test]
fn several_operations_that_cannot_be_read_change_nothing() {
    let mut executor = executor();
    let unread = many::join(&["?", "?"].map(Bytes::from)).unwrap();
    let entries = [unread.as_ref(), b"", b"xxxxx"];
    let entries = (2..)
        .zip(entries)
        .map(|(op, payload)| entry(op, EntryKind::Many, (ALICE, 1, op - 1), payload));
    run(&mut executor, vec![register(1, ALICE, 5)]);
    let replies = run(&mut executor, entries.collect());
    assert!(replies.iter().all(|reply| reply.outcome == Outcome::Malformed), "{replies:?}");
    assert_eq!(count(&mut executor), "0");
}

#[test]
fn request_number_zero_is_never_executed() {
    let mut executor = executor();
    let replies = run(&mut executor, vec![register(1, ALICE, 5), request(2, ALICE, 1, 0)]);
    assert_eq!(replies.len(), 1);
    assert_eq!(count(&mut executor), "0");
}

#[test]
fn a_malformed_operation_takes_its_number() {
    let mut executor = executor();
    let bad = entry(2, EntryKind::Request, (ALICE, 1, 1), b"?");
    let replies = run(&mut executor, vec![register(1, ALICE, 5), bad, request(3, ALICE, 1, 2)]);
    assert_eq!(replies[1], reply(ALICE, 1, 2, Outcome::Malformed));
    assert_eq!(replies[2].outcome, executed(1));
    let stored = resend(&mut executor, ALICE, 1).unwrap();
    assert_eq!(stored.executed.replies, [replies[1].clone()]);
}

#[test]
fn a_backup_executes_without_replies_and_can_answer_later() {
    let mut executor = executor();
    let entries = vec![register(1, ALICE, 5), request(2, ALICE, 1, 1), request(3, ALICE, 1, 1)];
    executor.push(Work::Entries { entries: entries.into(), reply: false });
    let through = OpNumber(3);
    let silent =
        Finished { executed: Executed { through, ..Executed::default() }, answers: Vec::new() };
    assert_eq!(finish(&mut executor), silent);
    let stored = resend(&mut executor, ALICE, 1).unwrap().executed;
    assert_eq!(
        stored,
        Executed { through, replies: vec![reply(ALICE, 1, 2, executed(1))], ..Executed::default() }
    );
}

#[test]
fn a_registration_is_resent_and_what_is_not_stored_is_nothing() {
    let mut executor = executor();
    run(&mut executor, vec![register(1, ALICE, 5)]);
    let stored = resend(&mut executor, ALICE, 0).unwrap().executed.replies;
    assert_eq!(stored, [reply(ALICE, 0, 1, Outcome::Registered)]);
    assert_eq!(resend(&mut executor, ALICE, 1), None);
    assert_eq!(resend(&mut executor, ALICE, u64::MAX), None);
    assert_eq!(resend(&mut executor, BOB, 0), None);
}

#[test]
fn a_step_is_one_entry_and_finished_work_is_told_once() {
    let mut executor = executor();
    assert!(executor.is_idle());
    assert!(!executor.step());
    executor.push(Work::Entries { entries: Vec::new().into(), reply: true });
    assert!(executor.is_idle());
    executor.push(Work::Entries { entries: vec![noop(1), noop(2)].into(), reply: true });
    assert!(executor.step());
    assert_eq!(executor.take_finished().unwrap().executed.through, OpNumber(1));
    assert_eq!((executor.take_finished(), executor.is_idle()), (None, false));
    assert!(executor.step());
    assert_eq!(executor.take_finished().unwrap().executed.through, OpNumber(2));
    assert!(executor.is_idle());
}

#[test]
fn a_query_sees_everything_in_front_of_it_and_nothing_behind() {
    let mut executor = executor();
    let entries = vec![register(1, ALICE, 5), request(2, ALICE, 1, 1)];
    executor.push(Work::Entries { entries: entries.into(), reply: false });
    let (to, query) = (Peer::Client(ConnectionId(1)), Bytes::from_static(b"count"));
    let (client, request_number, time) = (BOB, RequestNumber(8), Duration::ZERO);
    executor.push(Work::Query { to, client, request_number, query, time });
    executor.push(Work::Entries { entries: vec![request(3, ALICE, 1, 2)].into(), reply: false });
    let finished = finish(&mut executor);
    assert_eq!(finished.executed.through, OpNumber(3));
    let (_, answer) = &finished.answers[0];
    assert_eq!((answer.op_number, answer.request_number), (OpNumber(2), request_number));
    assert!(answer.answer.as_ref().unwrap().starts_with(b"1 "));
}

#[test]
fn a_query_is_never_told_a_time_before_the_last_entry() {
    let mut executor = executor();
    run(&mut executor, vec![noop(1), noop(2)]);
    for (chosen, told) in [(0, 2000), (1999, 2000), (2001, 2001)] {
        let answer = ask(&mut executor, b"count", Duration::from_nanos(chosen));
        let (applied, time) = (OpNumber(2), Duration::from_nanos(told));
        let context = QueryContext { applied, time };
        assert_eq!(answer.answer, Some(Bytes::from(format!("0 {context:?}"))));
    }
}

#[test]
fn a_query_that_cannot_be_read_is_answered_with_nothing() {
    assert_eq!(ask(&mut executor(), b"what", Duration::ZERO).answer, None);
}

#[test]
#[should_panic(expected = "entries are applied without a gap")]
fn a_gap_between_entries_is_our_bug() {
    run(&mut executor(), vec![noop(1), noop(3)]);
}

#[test]
#[should_panic(expected = "entries are applied without a gap")]
fn an_entry_handed_over_twice_is_our_bug() {
    run(&mut executor(), vec![noop(1), noop(1)]);
}

#[test]
fn the_digest_covers_the_table_and_the_state() {
    let mut digests = Vec::new();
    let bad = entry(2, EntryKind::Request, (ALICE, 1, 1), b"?");
    for entry in [noop(1), register(1, ALICE, 5), bad, request(2, ALICE, 1, 1)] {
        let mut executor = executor();
        let mut entries = if entry.header.op_number == OpNumber(1) {
            Vec::new()
        } else {
            vec![register(1, ALICE, 5)]
        };
        entries.push(entry);
        run(&mut executor, entries);
        digests.push(executor.digest().unwrap());
    }
    assert_eq!(digests[0], executor().digest().unwrap());
    let different: std::collections::BTreeSet<Checksum> = digests.into_iter().collect();
    assert_eq!(different.len(), 4);
}
