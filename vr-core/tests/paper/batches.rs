//! Requests that come in one message are the same as one by one (docs/PROTOCOL.md, Sessions).

use bytes::Bytes;
use proptest::prelude::*;
use vr_core::{
    Config,
    model::{
        entry::{Entry, EntryKind},
        message::{
            Forward, Message, Outcome, Rejected, Rejection, Replied, Replies, Reply, Requests,
        },
        operation::Operation,
        types::{Checksum, OpNumber, RequestNumber},
    },
};

use crate::{
    outputs::{Outputs, picked},
    subject::{CLIENT, Subject, acknowledge, request},
};

/// Requests with the operations that [`request`] gives these numbers; every third is for several.
fn requests(session: OpNumber, first: u64, count: u64) -> Requests {
    let numbers = first..first + count;
    let bytes = |number| Bytes::from(format!("request {number}"));
    let operation = |number| Operation { many: number % 3 == 0, bytes: bytes(number) };
    let operations = numbers.map(|number| operation(number).into()).collect();
    Requests { client: CLIENT, session, first: RequestNumber(first), operations }
}

fn rejected(outputs: &Outputs) -> Vec<(u64, Rejection)> {
    let mut found = Vec::new();
    for message in outputs.told() {
        if let Message::Rejected(Rejected { request_number, reason, .. }) = message {
            found.push((request_number.0, reason));
        }
    }
    found
}

fn reply(number: u64, outcome: Outcome) -> Reply {
    let (request_number, op_number) = (RequestNumber(number), OpNumber(number + 1));
    Reply { client: CLIENT, request_number, op_number, outcome }
}

fn done(bytes: usize) -> Outcome {
    Outcome::Executed(vec![7; bytes].into())
}

/// Commits everything that the primary has; returns the last op.
fn commit(primary: &mut Subject) -> OpNumber {
    primary.persisted();
    let op_number = primary.status().op_number;
    let head = primary.head_of(op_number);
    primary.hear(1, 0, acknowledge(op_number, head));
    op_number
}

/// The same, and executes it without a reply.
fn execute(primary: &mut Subject) {
    let op_number = commit(primary);
    primary.executed(op_number, Vec::new());
}

/// Normal operation, step 2: what comes in one message is placed behind each other and prepared at
/// once.
#[test]
fn requests_of_one_message_are_prepared_in_one() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    let outputs = primary.ask(Message::Requests(requests(session, 1, 3)));
    let prepared = picked!(outputs, Message::Prepare(m) => m.entries.to_vec());
    assert_eq!(prepared.len(), 2, "one message to each backup");
    for entries in prepared {
        let numbers: Vec<u64> = entries.iter().map(|it| it.header.request_number.0).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let kinds: Vec<_> = entries.iter().map(|entry| entry.header.kind).collect();
        assert_eq!(kinds, [EntryKind::Request, EntryKind::Request, EntryKind::Many]);
        assert!(entries.iter().all(|entry| entry.verify_payload().is_ok()));
        let chained = |pair: &[Entry]| match pair {
            [one, next] => {
                one.header.checksum == next.header.parent && one.header.time < next.header.time
            }
            _ => false,
        };
        assert!(entries.windows(2).all(chained));
    }
    assert!(primary.ask(request(session, 2)).entries().is_empty(), "2 is in the log");
}

/// The latest number of a client is known after a batch as after a single request.
#[test]
fn what_was_placed_together_is_not_placed_again() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(Message::Requests(requests(session, 1, 3)));
    execute(&mut primary);
    let before = primary.status().op_number;
    let outputs = primary.ask(Message::Requests(requests(session, 2, 4)));
    assert_eq!(outputs.work().len(), 2, "2 and 3 are answered again");
    assert_eq!(primary.status().op_number, before.plus(2), "4 and 5 are new");
}

/// Normal operation, step 1: a backup holds each of them for its primary.
#[test]
fn a_backup_forwards_each_request_of_a_batch() {
    let mut backup = Subject::backup(3);
    let outputs = backup.ask(Message::Requests(requests(OpNumber(1), 1, 3)));
    let forwarded = picked!(outputs, Message::Forward(Forward::Request(m)) => m.request_number.0);
    assert_eq!(forwarded, [1, 2, 3]);
}

/// A batch without a session is told so once; its client begins another session then.
#[test]
fn a_batch_of_an_ended_epoch_is_evicted() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    let outputs = primary.ask(Message::Requests(requests(OpNumber(session.0 + 9), 1, 2)));
    assert!(rejected(&outputs).iter().all(|(_, why)| *why == Rejection::Evicted));
    assert!(outputs.entries().is_empty());
}

/// Normal operation, step 6: a client that is connected gets its replies together.
#[test]
fn replies_to_one_client_leave_in_one_message() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(Message::Requests(requests(session, 1, 3)));
    let through = commit(&mut primary);
    let replies = vec![reply(1, done(3)), reply(2, Outcome::Malformed), reply(3, done(0))];
    let together = replies.iter().cloned().map(Replied::from).collect();
    let told = primary.executed(through, replies).told();
    assert_eq!(told, [Message::Replies(Replies { client: CLIENT, replies: together })]);
}

/// Replies that do not fit into one frame together leave in several messages.
#[test]
fn large_replies_leave_in_messages_of_their_own() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(Message::Requests(requests(session, 1, 4)));
    let through = commit(&mut primary);
    let replies = [40_000, 30_000, 30_000, 70_000];
    let replies = (1..).zip(replies).map(|(number, bytes)| reply(number, done(bytes))).collect();
    let counts: Vec<usize> = (primary.executed(through, replies).told().into_iter())
        .map(|message| if let Message::Replies(batch) = message { batch.replies.len() } else { 1 })
        .collect();
    assert_eq!(counts, [1, 2, 1]);
}

/// A client whose way leads through a backup, too, is answered in both ways, one by one.
#[test]
fn replies_through_a_backup_leave_one_by_one() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(Message::Requests(requests(session, 1, 2)));
    let Message::Request(again) = request(session, 2) else { unreachable!("a request") };
    primary.hear(2, 0, Message::Forward(Forward::Request(again)));
    let through = commit(&mut primary);
    let outputs = primary.executed(through, vec![reply(1, done(1)), reply(2, done(1))]);
    let singles = [reply(1, done(1)), reply(2, done(1))].map(Message::Reply);
    assert_eq!(outputs.told(), singles);
    let through = picked!(outputs, Message::ForwardReply(m) => m.clone());
    assert_eq!(through.len(), 2);
}

/// What a batch and the same requests one by one leave behind.
#[derive(Debug, PartialEq)]
struct Left {
    head: Checksum,
    op_number: OpNumber,
    /// What had a place before anything was committed.
    placed: OpNumber,
    rejected: Vec<(u64, Rejection)>,
}

fn left(limit: impl Fn(&mut Config), before: &[Requests], batch: &Requests, whole: bool) -> Left {
    let mut primary = Subject::primary_with(limit, 3);
    let session = primary.open_session();
    for requests in before {
        let requests = Requests { session, ..requests.clone() };
        requests.each().for_each(|request| drop(primary.ask(Message::Request(request))));
    }
    let batch = Requests { session, ..batch.clone() };
    let mut rejections = Vec::new();
    if whole {
        rejections.extend(rejected(&primary.ask(Message::Requests(batch))));
    } else {
        for request in batch.each() {
            rejections.extend(rejected(&primary.ask(Message::Request(request))));
        }
    }
    let placed = primary.status().op_number;
    // What waits for room enters the log when there is some.
    for _ in 0..20 {
        execute(&mut primary);
    }
    let op_number = primary.status().op_number;
    Left { head: primary.head_of(op_number), op_number, placed, rejected: rejections }
}

proptest! {
    /// Whatever came before, whatever is full: the same entries, and the same refusals.
    #[test]
    fn a_batch_is_the_same_as_its_requests_one_by_one(
        before in proptest::collection::vec((1..5_u64, 1..4_u64), 0..3),
        (first, count) in (1..7_u64, 1..9_u64),
        (ops, bytes, large) in (1..9_u32, 150..1500_u32, 0..9_u64),
        (queued, window, log) in (1..400_u64, 1..9_u32, 600..2500_u64),
    ) {
        let limit = |config: &mut Config| {
            config.pipeline_ops_max = ops;
            config.pipeline_bytes_max = bytes;
            config.queue_bytes_max = queued;
            config.window = window;
            config.log_bytes_max = log;
            config.request_bytes_max = 100;
        };
        let session = OpNumber::ZERO;
        let before: Vec<_> =
            before.into_iter().map(|(first, count)| requests(session, first, count)).collect();
        let mut batch = requests(session, first, count);
        if let Some(operation) = batch.operations.get_mut(usize::try_from(large).unwrap_or(0)) {
            *operation = Operation::from(Bytes::from(vec![1; 101])).into();
        }
        let one_by_one = left(limit, &before, &batch, false);
        prop_assert_eq!(left(limit, &before, &batch, true), one_by_one);
    }
}
