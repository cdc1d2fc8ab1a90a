//! Limits in bytes of what waits, and in ops of the log.

use bytes::Bytes;
use vr_core::{
    Config, OpNumber,
    model::{
        message::{Limit, Message, Query, Rejected, Rejection},
        read::Read,
        types::RequestNumber,
    },
    replica::io::Output,
};

use crate::{
    outputs::Outputs,
    subject::{CLIENT, Disk, Subject, acknowledge, request},
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
