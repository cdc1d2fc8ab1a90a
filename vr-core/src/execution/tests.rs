//! The executor and its client table: exactly once, in order, the same everywhere.

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
    fn apply(&mut self, context: &Context, operation: Bytes) -> Result<Bytes, Malformed> {
        if operation.first() == Some(&b'?') {
            return Err(Malformed);
        }
        self.0.push((*context, operation));
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
    executor.push(Work::Entries { entries, reply: true });
    finish(executor).executed.replies
}

fn finish(executor: &mut Executor) -> Finished {
    while executor.step() {}
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
    entries
        .into_iter()
        .for_each(|entry| executor.push(Work::Entries { entries: vec![entry], reply: true }));
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
    executor.push(Work::Entries { entries: vec![last], reply: true });
    let evicted = finish(&mut executor).executed.evicted;
    let closed: Vec<_> = evicted.iter().map(|closed| closed.client).collect();
    assert_eq!(closed, [ClientId(1), ClientId(2)]);
}

/// S62: what is closed next does not depend on whether the table was restored from a snapshot.
#[test]
fn a_restored_table_closes_the_same_session() {
    let (mut one, bytes) = (table(), bytes_of(&table()));
    let (mut other, _) = restored(&bytes).unwrap();
    for op in 20..30 {
        let client = ClientId(u128::from(op));
        let (first, second) = (
            one.register(client, Nonce(1), OpNumber(op), CLIENTS.into()),
            other.register(client, Nonce(1), OpNumber(op), CLIENTS.into()),
        );
        assert_eq!(first, second);
    }
    assert_eq!(one, other);
}

#[test]
fn a_request_is_executed_with_its_identity_and_time() {
    let mut executor = executor();
    run(&mut executor, vec![register(1, ALICE, 5), request(2, ALICE, 1, 1)]);
    let context = Context {
        viewstamp: Viewstamp { view: View(7), op_number: OpNumber(2) },
        client: ALICE,
        time: Duration::from_nanos(2000),
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
    assert_eq!(resend(&mut executor, ALICE, 1), None);
    for number in 2..=4 {
        let stored = resend(&mut executor, ALICE, number).unwrap();
        let position = usize::try_from(number).unwrap() - 1;
        assert_eq!(stored.executed.replies, [replies[position].clone()]);
    }
    assert_eq!(run(&mut executor, vec![request(6, ALICE, 1, 1)]), []);
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
    executor.push(Work::Entries { entries, reply: false });
    let through = OpNumber(3);
    let silent =
        Finished { executed: Executed { through, ..Executed::default() }, answers: Vec::new() };
    assert_eq!(finish(&mut executor), silent);
    let stored = resend(&mut executor, ALICE, 1).unwrap().executed;
    assert_eq!(
        stored,
        Executed { through, replies: vec![reply(ALICE, 1, 2, executed(1))], evicted: Vec::new() }
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
    executor.push(Work::Entries { entries: Vec::new(), reply: true });
    assert!(executor.is_idle());
    executor.push(Work::Entries { entries: vec![noop(1), noop(2)], reply: true });
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
    executor.push(Work::Entries { entries, reply: false });
    let (to, query) = (Peer::Client(ConnectionId(1)), Bytes::from_static(b"count"));
    let (client, request_number, time) = (BOB, RequestNumber(8), Duration::ZERO);
    executor.push(Work::Query { to, client, request_number, query, time });
    executor.push(Work::Entries { entries: vec![request(3, ALICE, 1, 2)], reply: false });
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

/// A table with a full window, a malformed outcome and a session that asked nothing.
fn table() -> ClientTable {
    let mut table = ClientTable::new(WINDOW);
    table.register(ALICE, Nonce(5), OpNumber(1), CLIENTS.into());
    table.register(BOB, Nonce(u128::MAX), OpNumber(2), CLIENTS.into());
    for number in 1..=5 {
        let outcome = if number == 4 { Outcome::Malformed } else { executed(300) };
        let turn = table.turn(ALICE, OpNumber(1), RequestNumber(number));
        let Turn::Next(slot) = turn else { panic!("request {number} is next") };
        slot.store(OpNumber(number + 2), outcome);
    }
    table
}

fn bytes_of(table: &ClientTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.snapshot(&mut SnapshotWriter::new(&mut bytes)).unwrap();
    bytes
}

fn restored(mut bytes: &[u8]) -> Result<(ClientTable, usize), SnapshotError> {
    let mut table = ClientTable::new(WINDOW);
    table.restore(&mut SnapshotReader::new(&mut bytes))?;
    Ok((table, bytes.len()))
}

#[test]
fn a_table_survives_its_snapshot_and_reads_nothing_behind_it() {
    let mut bytes = bytes_of(&table());
    bytes.extend_from_slice(b"the state machine's");
    let (copy, behind) = restored(&bytes).unwrap();
    assert_eq!((copy, behind), (table(), 19));
}

#[test]
fn a_table_cut_short_or_of_another_version_is_refused_and_changes_nothing() {
    let bytes = bytes_of(&table());
    for length in 0..bytes.len() {
        assert!(restored(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    let newer = [&[2, 0], &bytes[2..]].concat();
    assert!(matches!(restored(&newer), Err(SnapshotError::Unreadable)));
    let mut kept = table();
    assert!(kept.restore(&mut SnapshotReader::new(&mut newer.as_slice())).is_err());
    assert_eq!(kept, table());
}

#[test]
fn a_table_with_a_client_twice_is_refused() {
    let mut one = ClientTable::new(WINDOW);
    one.register(ALICE, Nonce(5), OpNumber(1), CLIENTS.into());
    let bytes = bytes_of(&one);
    let twice = [&[1, 0, 2, 0, 0, 0], &bytes[6..], &bytes[6..]].concat();
    assert!(matches!(restored(&twice), Err(SnapshotError::Unreadable)));
}

/// What a test writes into its log; clients are 1 to 4, one more than the table holds.
#[derive(Clone, Copy, Debug)]
enum Line {
    Noop,
    Register(u8),
    Next(u8),
    Malformed(u8),
    Again(u8, u8),
    Early(u8),
    Stray(u8),
}

fn line() -> impl Strategy<Value = Line> {
    let client = 1_u8..=4;
    prop_oneof![
        1 => Just(Line::Noop),
        2 => client.clone().prop_map(Line::Register),
        6 => client.clone().prop_map(Line::Next),
        1 => client.clone().prop_map(Line::Malformed),
        3 => (client.clone(), 0_u8..6).prop_map(|(client, back)| Line::Again(client, back)),
        1 => client.clone().prop_map(Line::Early),
        1 => client.prop_map(Line::Stray),
    ]
}

/// The entries that `lines` stand for, and how many operations they execute.
fn log_of(lines: &[Line]) -> (Vec<Entry>, usize) {
    // Session, requests executed, and the op of the last use; 0 for none.
    let mut sessions = [(0, 0, 0); 5];
    let mut executed = 0;
    let mut entries = Vec::new();
    for (line, op) in lines.iter().zip(1..) {
        let name = |client: u8| ClientId(u128::from(client));
        let (client, offset) = match *line {
            Line::Noop => {
                entries.push(noop(op));
                continue;
            }
            Line::Register(client) => {
                entries.push(register(op, name(client), 5));
                if sessions[usize::from(client)].0 == 0 {
                    let open = sessions.iter_mut().filter(|session| session.0 != 0);
                    let open: Vec<_> = open.collect();
                    if open.len() == usize::try_from(CLIENTS).unwrap() {
                        let oldest = open.into_iter().min_by_key(|session| session.2);
                        *oldest.unwrap() = (0, 0, 0);
                    }
                    sessions[usize::from(client)] = (op, 0, op);
                }
                continue;
            }
            Line::Stray(client) => {
                entries.push(request(op, name(client), op, 1));
                continue;
            }
            Line::Next(client) | Line::Malformed(client) => (client, 1),
            Line::Early(client) => (client, 2),
            Line::Again(client, back) => (client, -i64::from(back)),
        };
        let (session, done, used) = &mut sessions[usize::from(client)];
        let number = u64::try_from(*done + offset).unwrap_or(0);
        let bad = matches!(line, Line::Malformed(_));
        let payload: &[u8] = if bad { b"?" } else { b"do" };
        entries.push(entry(op, EntryKind::Request, (name(client), *session, number), payload));
        if *session != 0 && offset == 1 {
            *done += 1;
            *used = op;
            executed += usize::from(!bad);
        }
    }
    (entries, executed)
}

/// The positions of the entries that change the state or the table.
fn effective(entries: &[Entry]) -> Vec<usize> {
    let mut executor = executor();
    let mut digest = executor.digest().unwrap();
    let mut changes = |entry: &Entry| {
        run(&mut executor, vec![entry.clone()]);
        core::mem::replace(&mut digest, executor.digest().unwrap()) != digest
    };
    let positions = entries.iter().enumerate();
    positions.filter(|(_, entry)| changes(entry)).map(|(position, _)| position).collect()
}

proptest! {
    #[test]
    fn batches_change_neither_state_nor_replies(
        lines in vec(line(), 0..60), cuts in vec(0_usize..10, 0..20),
    ) {
        let (entries, executed) = log_of(&lines);
        let mut whole = executor();
        let replies = run(&mut whole, entries.clone());
        let mut cut = executor();
        let mut told = Vec::new();
        let mut left = entries;
        for length in cuts {
            let rest = left.split_off(length.min(left.len()));
            told.extend(run(&mut cut, left));
            left = rest;
        }
        told.extend(run(&mut cut, left));
        prop_assert_eq!(replies, told);
        prop_assert_eq!(whole.applied(), cut.applied());
        prop_assert_eq!(whole.digest().unwrap(), cut.digest().unwrap());
        prop_assert_eq!(count(&mut whole), executed.to_string());
    }

    #[test]
    fn replies_wanted_or_not_the_state_is_the_same(
        lines in vec(line(), 0..60), change in any::<prop::sample::Index>(),
    ) {
        let (mut entries, _) = log_of(&lines);
        let mut primary = executor();
        run(&mut primary, entries.clone());
        let mut backup = executor();
        let later = entries.split_off(change.index(entries.len() + 1));
        backup.push(Work::Entries { entries, reply: false });
        backup.push(Work::Entries { entries: later, reply: true });
        finish(&mut backup);
        prop_assert_eq!(primary.digest().unwrap(), backup.digest().unwrap());
        for (client, number) in (1..5).flat_map(|client| (0..9).map(move |n| (client, n))) {
            let client = ClientId(client);
            prop_assert_eq!(
                resend(&mut primary, client, number), resend(&mut backup, client, number)
            );
        }
    }

    #[test]
    fn a_duplicate_anywhere_changes_nothing(
        lines in vec(line(), 1..40), source in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
    ) {
        let lines = [&[Line::Register(1), Line::Next(1)], lines.as_slice()].concat();
        let (mut entries, _) = log_of(&lines);
        // A registration that arrives again after its session was closed opens another one.
        let mut effective = effective(&entries[..entries.len() - 1]);
        effective.retain(|position| entries[*position].header.kind == EntryKind::Request);
        let source = effective[source.index(effective.len())];
        let place = source + 1 + place.index(entries.len() - source - 1);
        let op_number = entries[place].header.op_number;
        entries[place] = noop(op_number.0);
        let mut once = executor();
        run(&mut once, entries.clone());
        let header = EntryHeader { op_number, ..entries[source].header };
        entries[place] = Entry::new(header, entries[source].payload.clone());
        let mut twice = executor();
        run(&mut twice, entries);
        prop_assert_eq!(once.digest().unwrap(), twice.digest().unwrap());
    }

    #[test]
    fn a_table_made_of_any_log_survives_its_snapshot(lines in vec(line(), 0..60)) {
        let mut table = ClientTable::new(WINDOW);
        for entry in log_of(&lines).0 {
            let header = entry.header;
            if header.kind == EntryKind::Register {
                table.register(header.client, Nonce(5), header.op_number, header.session.0);
            }
            let turn = table.turn(header.client, header.session, header.request_number);
            if let Turn::Next(slot) = turn {
                slot.store(header.op_number, Outcome::Executed(entry.payload));
            }
        }
        let (copy, behind) = restored(&bytes_of(&table)).unwrap();
        prop_assert_eq!((copy, behind), (table, 0));
    }

    #[test]
    fn restoring_any_bytes_is_total(bytes in vec(any::<u8>(), 0..200)) {
        let _ = restored(&[&[1, 0], bytes.as_slice()].concat());
    }
}
