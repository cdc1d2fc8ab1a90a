//! Limits in bytes of what waits, and in ops of the log.

use bytes::Bytes;
use vr_core::{
    Config, OpNumber,
    model::{
        entries::{Entries, GetEntries, Wanted},
        entry::Entry,
        kind::Kind,
        message::{Limit, Message, Ping, Query, Rejected, Rejection, StatusKind},
        read::Read,
        types::{RequestId, RequestNumber},
    },
    replica::io::{Event, Output},
};

use crate::{
    outputs::{Outputs, picked},
    subject::{
        CLIENT, Disk, Subject, acknowledge, commit, committed, log, prepare, request, standing,
    },
};

/// Two of these fit into [`narrow`] queues, and three do not.
fn large(session: OpNumber, number: u64) -> Message {
    let Message::Request(mut m) = request(session, number) else { unreachable!("a request") };
    m.operation = Bytes::from(vec![0; 400]);
    Message::Request(m)
}

fn query(number: u64) -> Message {
    Message::Query(Query {
        client: CLIENT,
        request_number: RequestNumber(number),
        query: Bytes::from(vec![0; 400]),
        read: Read::Linearizable,
    })
}

fn narrow(config: &mut Config) {
    config.request_bytes_max = 500;
    config.queue_bytes_max = 1000;
}

fn rejected(outputs: &Outputs) -> Vec<Rejection> {
    let mut found = Vec::new();
    for message in outputs.told() {
        if let Message::Rejected(Rejected { reason, .. }) = message {
            found.push(reason);
        }
    }
    found
}

#[test]
fn a_backup_holds_no_more_bytes_than_it_may() {
    let (mut backup, _) = Subject::start_with(narrow, 3, 1, Disk::default());
    for number in [1, 2] {
        assert!(rejected(&backup.ask(large(OpNumber(1), number))).is_empty());
    }
    let busy = Rejection::Busy(Limit::Forward);
    assert_eq!(rejected(&backup.ask(large(OpNumber(1), 3))), [busy]);
    assert_eq!(backup.status().queues.iter().map(|queue| queue.used).max(), Some(800));
}

#[test]
fn queries_that_wait_have_no_more_bytes_than_they_may() {
    let mut primary = Subject::primary_with(narrow, 3);
    for number in [1, 2] {
        assert!(rejected(&primary.ask(query(number))).is_empty());
    }
    assert_eq!(rejected(&primary.ask(query(3))), [Rejection::Busy(Limit::Reads)]);
}

#[test]
fn what_waits_for_room_has_no_more_bytes_than_it_may() {
    let limit = |config: &mut Config| {
        narrow(config);
        config.pipeline_bytes_max = 700;
    };
    let mut primary = Subject::primary_with(limit, 3);
    let session = primary.open_session();
    for number in 1..=4 {
        let outputs = primary.ask(large(session, number));
        assert!(rejected(&outputs).is_empty(), "two fill the pipeline, two wait");
    }
    let busy = Rejection::Busy(Limit::Pipeline);
    assert_eq!(rejected(&primary.ask(large(session, 5))), [busy]);
}

/// What waits for a number that never comes gives its room to others.
#[test]
fn what_waits_for_a_number_has_no_more_bytes_than_it_may() {
    let mut primary = Subject::primary_with(narrow, 3);
    let session = primary.open_session();
    for number in [3, 4, 5] {
        assert!(rejected(&primary.ask(large(session, number))).is_empty());
    }
    let used = primary.status().queues.iter().map(|queue| queue.used).max();
    assert_eq!(used, Some(400), "3 and 4 were dropped for 5");
}

#[test]
fn a_log_of_too_many_ops_answers_busy() {
    let limit = |config: &mut Config| {
        config.log_ops_max = 3;
        config.checkpoint_ops = 1;
        config.pipeline_ops_max = 2;
    };
    let mut primary = Subject::primary_with(limit, 3);
    let session = primary.open_session();
    for number in [1, 2] {
        assert!(rejected(&primary.ask(request(session, number))).is_empty());
        primary.persisted();
        let op_number = primary.status().op_number;
        let head = primary.head_of(op_number);
        primary.hear(1, 0, acknowledge(op_number, head));
    }
    assert_eq!(rejected(&primary.ask(request(session, 3))), [Rejection::Busy(Limit::Log)]);
}

/// A state machine that falls behind gets no more bytes at a time than the pipeline may hold, and
/// what waits for it does not stay in memory.
#[test]
fn what_waits_for_a_slow_state_machine_stays_on_disk() {
    let limit = |config: &mut Config| {
        config.request_bytes_max = 500;
        config.pipeline_bytes_max = 1000;
        config.log_cache_bytes_max = 0;
    };
    let mut primary = Subject::primary_with(limit, 3);
    let session = primary.open_session();
    let mut handed = 0;
    for number in 1..=6 {
        let mut outputs = primary.ask(large(session, number));
        outputs.0.extend(primary.persisted().0);
        let op_number = primary.status().op_number;
        let head = primary.head_of(op_number);
        outputs.0.extend(primary.hear(1, 0, acknowledge(op_number, head)).0);
        handed += outputs.work().len();
    }
    assert_eq!(primary.status().commit_number, session.plus(6));
    assert!(handed < 6, "{handed} were handed over, none was executed");
    let outputs = primary.executed(session.plus(2), Vec::new());
    let fetches = outputs.0.iter().filter(|output| matches!(output, Output::Fetch { .. }));
    assert_eq!(fetches.count(), 1, "the next ones are read back");
}

/// A backup that may hold ten entries of [`log`] for its storage, and of early ones five.
fn slow_backup() -> Subject {
    let limit = |config: &mut Config| {
        narrow(config);
        config.pipeline_bytes_max = 700;
        config.undurable_bytes_max = 1400;
    };
    Subject::start_with(limit, 3, 1, Disk::default()).0
}

/// What is asked for: the name of the question, and the first op.
fn asked_from(outputs: &Outputs) -> Vec<(RequestId, u64)> {
    picked!(outputs, Message::GetEntries(GetEntries { request, wanted: Wanted::From(op), .. })
        => (*request, op.0))
}

fn answer(request: RequestId, entries: &[Entry]) -> Message {
    Message::Entries(Entries { request, entries: entries.to_vec() })
}

/// Section "Normal operation": a disk that stalls costs a bounded amount of memory. What is let go
/// is as if it had been lost; the primary is heard all the same, and believed.
#[test]
fn a_backup_holds_no_more_for_its_storage_than_it_may() {
    let (mut backup, entries) = (slow_backup(), log(20));
    for (at, entry) in entries.iter().enumerate() {
        backup.hear(0, 0, prepare(core::slice::from_ref(entry), committed(&entries, at.min(9))));
    }
    let status = backup.status();
    assert_eq!((status.op_number, status.commit_number), (OpNumber(11), OpNumber(9)));
    let outputs = backup.hear(0, 0, commit(committed(&entries, 18), 1, 20));
    assert_eq!(outputs.receivers(Kind::PrepareOk), [0], "the heartbeat is answered");
    let outputs = backup.hear(0, 0, commit(committed(&entries, 18), 2, 20));
    assert_eq!(outputs.receivers(Kind::GetEntries), [], "there is no room for an answer");
    assert_eq!(backup.status().commit_number, OpNumber(11));
}

/// A gap is asked for: once storage has caught up, also if it had the gap's entries in hand before.
#[test]
fn what_a_backup_let_go_is_asked_for_once_its_storage_has_caught_up() {
    let (mut backup, entries) = (slow_backup(), log(20));
    for entry in &entries {
        backup.hear(0, 0, prepare(core::slice::from_ref(entry), committed(&[], 0)));
    }
    let caught_up = backup.persisted();
    assert_eq!(caught_up.receivers(Kind::PrepareOk), [0]);
    let [(question, 12)] = asked_from(&caught_up)[..] else { panic!("{caught_up:?}") };
    backup.hear(0, 0, answer(question, &entries[11..]));
    assert_eq!(backup.status().op_number, OpNumber(20));
    assert_eq!(asked_from(&backup.persisted()), [], "nothing was let go since");
}

/// An answer that comes while storage is behind is let go like a prepare, and asked for again.
#[test]
fn an_answer_that_there_is_no_room_for_is_asked_for_again() {
    let (mut backup, entries) = (slow_backup(), log(20));
    let outputs = backup.hear(0, 0, prepare(&entries[12..13], committed(&[], 0)));
    let [(question, 1)] = asked_from(&outputs)[..] else { panic!("{outputs:?}") };
    backup.hear(0, 0, prepare(&entries[..11], committed(&[], 0)));
    backup.hear(0, 0, answer(question, &entries[..13]));
    assert_eq!(backup.status().op_number, OpNumber(11));
    let outputs = backup.persisted();
    let [(question, 12)] = asked_from(&outputs)[..] else { panic!("{outputs:?}") };
    backup.hear(0, 0, answer(question, &entries[11..12]));
    assert_eq!(backup.status().op_number, OpNumber(13), "what was early is still there");
}

/// What a backup has already leaves nothing to ask for, although it is not looked at.
#[test]
fn what_comes_again_while_storage_is_behind_is_not_asked_for() {
    let (mut backup, entries) = (slow_backup(), log(11));
    for _ in 0..2 {
        backup.hear(0, 0, prepare(&entries, committed(&[], 0)));
    }
    assert_eq!(asked_from(&backup.persisted()), []);
}

#[test]
fn early_entries_have_no_more_bytes_than_they_may() {
    let (mut backup, entries) = (slow_backup(), log(20));
    backup.hear(0, 0, prepare(&entries[1..], committed(&[], 0)));
    let held = |backup: &Subject| {
        let queues = backup.status().queues;
        let early = queues.iter().filter(|queue| queue.limit == "pipeline_bytes_max");
        early.map(|queue| queue.used).max()
    };
    let first_five = entries[1..6].iter().map(|entry| entry.header.entry_bytes()).sum();
    assert_eq!(held(&backup), Some(first_five));
    backup.hear(0, 0, prepare(&entries[..1], committed(&[], 0)));
    assert_eq!((backup.status().op_number, held(&backup)), (OpNumber(6), Some(0)));
}

/// A primary that may hold ten entries for its storage, while the others are a quorum without it; all
/// requests that came, and what it said to the last.
fn primary_with_slow_storage(requests: u64) -> (Subject, OpNumber, Outputs) {
    let limit = |config: &mut Config| {
        narrow(config);
        config.undurable_bytes_max = 5 * 528;
        config.pipeline_ops_max = 4;
    };
    let mut primary = Subject::primary_with(limit, 3);
    let session = primary.open_session();
    primary.persisted();
    let mut last = Outputs::default();
    for number in 1..=requests {
        last = primary.ask(large(session, number));
        acknowledge_all(&mut primary);
    }
    (primary, session, last)
}

/// Both backups have made durable whatever the primary has prepared, and hear everybody.
fn acknowledge_all(primary: &mut Subject) {
    let op_number = primary.status().op_number;
    let head = primary.head_of(op_number);
    let standing = standing(StatusKind::Normal, 0, op_number.0);
    for backup in [1, 2] {
        primary.hear(backup, 0, acknowledge(op_number, head));
        primary.hear(backup, 0, Message::Ping(Ping { standing, sent_at: 0 }));
    }
}

/// Section "Normal operation": what the disk of a primary does not have is bounded like that of a
/// backup, also where the others commit without it.
#[test]
fn a_primary_holds_no_more_for_its_storage_than_it_may() {
    let (mut primary, session, last) = primary_with_slow_storage(8);
    assert_eq!(rejected(&last), [Rejection::Busy(Limit::Pipeline)], "two wait, one is refused");
    let status = primary.status();
    assert_eq!((status.op_number, status.commit_number), (session.plus(5), session.plus(5)));
    primary.persisted();
    assert_eq!(primary.status().op_number, session.plus(7), "those that waited have a place");
}

/// It lets another one lead, if it stays behind for as long as a silent primary is waited for.
#[test]
fn a_primary_whose_storage_stays_behind_hands_its_view_off() {
    let heartbeat = Config::default().heartbeat_interval;
    for recovers in [false, true] {
        let (mut primary, ..) = primary_with_slow_storage(7);
        let mut handed_off = Vec::new();
        for beat in 0..4 {
            let outputs = primary.pass(heartbeat);
            let began = |event: &&Event| matches!(event, Event::HandoffBegan { .. });
            handed_off.extend(outputs.events().into_iter().find(began).map(|_| beat));
            acknowledge_all(&mut primary);
            if recovers && beat == 2 {
                primary.persisted();
            }
        }
        assert_eq!(handed_off, if recovers { vec![] } else { vec![3] });
    }
}
