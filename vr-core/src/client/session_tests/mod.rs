//! The client's session, stepped by hand.

mod desk;
mod property;
mod tickets;

use bytes::Bytes;

use crate::{
    client::{
        call::CallId,
        io::{ClientInput, Completed, SessionOptions},
        outcome::{ClientOutcome, RequestError},
        session_tests::desk::{Desk, SECOND, options},
    },
    model::{
        message::{Answer, Envelope, Limit, Message, Outcome, Rejection, Reply},
        read::{CausalToken, Read},
        time::Instant,
        types::{ClientId, Epoch, GroupId, OpNumber, Peer, ReplicaId, RequestNumber, View},
    },
    ports::transport::Received,
};

#[test]
fn the_first_request_registers_and_then_goes_under_number_one() {
    let mut desk = Desk::connected();
    assert_eq!(desk.session.deadline(), Instant::FAR_FUTURE);
    desk.execute(1);
    assert_eq!((desk.registrations().len(), desk.requests().len()), (1, 0));
    desk.execute(2);
    assert!(desk.sent.is_empty(), "one registration is enough");
    desk.registered(5);
    assert_eq!(desk.session.session(), Some(OpNumber(5)));
    assert_eq!(desk.requests(), [(0, 1), (0, 2)]);
}

#[test]
fn a_client_that_knows_no_view_asks_whom_it_can_reach() {
    let mut desk = Desk::with(options());
    desk.execute(1);
    assert!(desk.sent.is_empty());
    desk.connect(2);
    assert_eq!(desk.registrations(), [2]);
    desk.registered(5);
    assert_eq!(desk.requests(), [(2, 1)], "a backup forwards");
}

#[test]
fn a_reply_names_the_view_and_so_the_primary() {
    let mut desk = Desk::connected();
    desk.view = View(4);
    desk.execute(1);
    desk.registered(5);
    assert_eq!(desk.requests(), [(1, 1)]);
}

#[test]
fn calls_beyond_the_window_wait_until_the_oldest_reply_is_there() {
    let mut desk = Desk::open();
    (1..=4).for_each(|call| desk.execute(call));
    desk.reply(3);
    assert_eq!(desk.requests(), [], "2 is still missing");
    desk.reply(2);
    assert_eq!(desk.requests(), [(0, 4), (0, 5)]);
    assert_eq!(desk.succeeded(), [2, 1]);
}

#[test]
fn a_full_queue_is_busy_and_nothing_is_lost() {
    let limits = SessionOptions { queued_calls_max: 2, queued_bytes_max: 8, ..options() };
    let mut desk = Desk::with(limits);
    (1..=3).for_each(|call| desk.execute(call));
    assert_eq!(desk.failed(), [(3, RequestError::Busy { waiting: 2 })]);
    desk.handle(ClientInput::Abandon { call: CallId(1) });
    desk.execute(100_000_000);
    assert_eq!(desk.failed().last().unwrap().1, RequestError::Busy { waiting: 1 }, "bytes");
    desk.execute(4);
    assert_eq!(desk.failed().len(), 2);
}

#[test]
fn a_closed_connection_sends_the_window_to_everyone_else_at_once() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.execute(2);
    desk.disconnect(0);
    assert_eq!(desk.requests(), [(1, 2), (1, 3), (2, 2), (2, 3)]);
}

#[test]
fn a_connection_that_carries_nothing_may_close() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.disconnect(2);
    assert!(desk.sent.is_empty());
}

#[test]
fn a_new_view_sends_the_window_to_everyone_at_once() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.execute(2);
    desk.view = View(1);
    desk.reply(2);
    assert_eq!(desk.requests(), [(0, 3), (1, 3), (2, 3)]);
    desk.execute(3);
    assert_eq!(desk.requests(), [(1, 4)], "the primary of view 1");
}

#[test]
fn silence_repeats_the_same_number_to_all_with_growing_pauses() {
    let mut desk = Desk::open();
    desk.execute(1);
    let start = desk.now;
    desk.wait();
    assert_eq!(desk.requests(), [(0, 2), (1, 2), (2, 2)]);
    let first = desk.now.since(start);
    assert_eq!(first, options().retry_interval);
    let again = desk.session.deadline().since(desk.now);
    assert!(again >= 2 * first && again <= 3 * first, "{again:?}");
}

#[test]
fn a_reply_that_was_counted_is_not_counted_again() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.reply(2);
    desk.reply(2);
    desk.reply(9);
    assert_eq!(desk.done.len(), 1);
    assert!(desk.session.deadline() > Instant(9 * SECOND), "nothing to repeat");
}

#[test]
fn what_was_refused_is_sent_again_after_a_pause_and_nothing_new_before() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.busy(2, Limit::Pipeline);
    desk.execute(2);
    assert!(desk.sent.is_empty(), "the group is busy");
    desk.wait();
    assert_eq!(desk.requests(), [(0, 2), (0, 3)]);
    assert!(desk.now.since(Instant::ZERO) < options().retry_interval);
}

#[test]
fn a_primary_without_quorum_does_not_keep_the_others_from_being_asked() {
    let mut desk = Desk::open();
    desk.execute(1);
    let mut asked = Vec::new();
    while asked.len() < 3 && desk.now < Instant(SECOND) {
        desk.busy(2, Limit::NoQuorum);
        desk.wait();
        asked.clone_from(&desk.requests());
    }
    assert_eq!(asked, [(0, 2), (1, 2), (2, 2)]);
}

#[test]
fn a_call_that_timed_out_names_the_limit_and_its_number_goes_on() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.busy(2, Limit::Log);
    desk.wait_until(11);
    let [(1, error)] = &desk.failed()[..] else { panic!("{:?}", desk.done) };
    assert!(matches!(error, RequestError::TimedOut { busy: Some(Limit::Log), .. }));
    assert!(!desk.requests().is_empty(), "the number is still sent");
    desk.reply(2);
    assert_eq!(desk.done.len(), 1, "nobody waits for the reply any more");
    desk.execute(3);
    assert_eq!(desk.requests(), [(0, 3)]);
}

#[test]
fn a_call_that_was_never_sent_says_so() {
    let mut desk = Desk::with(options());
    desk.execute(1);
    assert_eq!(desk.session.deadline(), Instant(10 * SECOND));
    desk.wait();
    let (_, error) = desk.failed().remove(0);
    assert_eq!(error.outcome(), ClientOutcome::NotExecuted);
    desk.connect(0);
    assert!(desk.sent.is_empty());
}

#[test]
fn an_abandoned_call_leaves_no_gap_in_the_numbers() {
    let mut desk = Desk::open();
    (1..=3).for_each(|call| desk.execute(call));
    desk.handle(ClientInput::Abandon { call: CallId(1) });
    desk.handle(ClientInput::Abandon { call: CallId(3) });
    desk.wait();
    assert_eq!(desk.requests()[..2], [(0, 2), (0, 3)]);
    desk.reply(2);
    desk.reply(3);
    assert_eq!((desk.succeeded(), desk.requests()), (vec![2], vec![]));
}

#[test]
fn an_eviction_is_unknown_for_what_was_sent_and_harmless_for_what_was_not() {
    let mut desk = Desk::open();
    let evicted = desk.session.client();
    (1..=3).for_each(|call| desk.execute(call));
    desk.reject(RequestNumber(2), Rejection::Evicted);
    assert_eq!(desk.evicted(), [1, 2]);
    desk.wait();
    assert_ne!(desk.session.client(), evicted);
    assert_eq!(desk.registrations(), [0]);
    desk.registered(20);
    assert_eq!(desk.requests(), [(0, 1)], "a new session counts from one");
}

#[test]
fn a_later_epoch_ends_the_session_and_the_next_one_belongs_to_it() {
    let mut desk = Desk::open();
    let before = desk.session.client();
    desk.execute(1);
    desk.epoch = Epoch(1);
    desk.busy(1, Limit::Pipeline);
    assert_eq!(desk.evicted(), [1]);
    desk.execute(2);
    desk.wait();
    assert_ne!(desk.session.client(), before);
    desk.registered(20);
    assert_eq!((desk.requests(), desk.epochs()), (vec![(0, 1)], vec![Epoch(1)]));
    desk.epoch = Epoch(0);
    desk.reply(1);
    assert_eq!(desk.succeeded(), [2], "what is late of an earlier epoch ends nothing");
}

#[test]
fn a_late_reply_to_an_evicted_client_is_nobodys() {
    let mut desk = Desk::open();
    let client = desk.session.client();
    desk.outcome(2, 0, Outcome::Evicted);
    desk.execute(1);
    desk.wait();
    desk.registered(20);
    let outcome = Outcome::Executed(Bytes::new());
    let (request_number, op_number) = (RequestNumber(1), OpNumber(9));
    desk.hear(Message::Reply(Reply { client, request_number, op_number, outcome }));
    assert!(desk.done.is_empty());
}

#[test]
fn a_client_table_without_room_is_asked_again() {
    let mut desk = Desk::connected();
    desk.execute(1);
    let client = desk.session.client();
    desk.busy(0, Limit::Clients);
    desk.wait();
    assert_eq!(desk.registrations().len(), 1);
    assert_eq!(desk.session.client(), client, "a copy of it may still open the session");
    desk.busy(0, Limit::Clients);
    desk.wait_until(11);
    let (_, error) = desk.failed().remove(0);
    assert!(matches!(error, RequestError::NotSent { busy: Some(Limit::Clients), .. }));
}

#[test]
fn a_lost_registration_is_repeated_with_the_same_nonce() {
    let mut desk = Desk::connected();
    desk.execute(1);
    let first = desk.sent.clone();
    desk.wait();
    assert_eq!(desk.registrations(), [0, 1, 2]);
    assert!(desk.sent.iter().all(|(_, message)| *message == first[0].1));
}

#[test]
fn an_operation_over_the_limit_is_never_sent() {
    let limits = SessionOptions { request_bytes_max: 2, ..options() };
    let mut desk = Desk::with(limits);
    desk.execute(100);
    let error = RequestError::TooLarge { bytes: 3, bytes_max: 2 };
    assert_eq!(desk.failed(), [(100, error)]);
}

#[test]
fn a_group_with_a_lower_limit_ends_the_session_once() {
    let mut desk = Desk::open();
    desk.execute(100);
    desk.execute(1);
    desk.reject(RequestNumber(2), Rejection::TooLarge { bytes: 3, bytes_max: 2 });
    let error = RequestError::TooLarge { bytes: 3, bytes_max: 2 };
    assert_eq!((desk.failed()[0].clone(), desk.evicted()), ((100, error.clone()), vec![1]));
    desk.execute(200);
    assert_eq!(desk.failed().last().unwrap(), &(200, error), "the limit is known now");
}

#[test]
fn an_operation_that_cannot_be_read_still_takes_its_number() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.outcome(2, 12, Outcome::Malformed);
    assert_eq!(desk.failed(), [(1, RequestError::Malformed)]);
    desk.execute(2);
    assert_eq!(desk.requests(), [(0, 3)]);
}

#[test]
fn a_query_needs_no_session_and_goes_to_one_replica() {
    let mut desk = Desk::connected();
    desk.query(1, Read::Linearizable);
    let [(_, number)] = desk.queries()[..] else { panic!("{:?}", desk.sent) };
    let (client, op_number) = (desk.session.client(), OpNumber(9));
    let answer = Some(Bytes::from_static(b"!"));
    desk.hear(Message::Answer(Answer { client, request_number: number, op_number, answer }));
    let bytes = Bytes::from_static(b"!");
    assert_eq!(desk.done, [(CallId(1), Ok(Completed { op_number, bytes }))]);
}

#[test]
fn a_query_without_answer_is_asked_of_the_next_replica() {
    let mut desk = Desk::open();
    desk.query(1, Read::Linearizable);
    let (first, number) = desk.queries()[0];
    desk.wait();
    assert_eq!((first, desk.queries()), (0, vec![(1, number)]));
    desk.disconnect(1);
    assert_eq!(desk.queries(), [(0, number)]);
    desk.wait_until(11);
    let (_, error) = desk.failed().remove(0);
    assert!(matches!(error, RequestError::Unanswered { .. }));
}

#[test]
fn a_query_waits_for_the_first_connection() {
    let mut desk = Desk::with(options());
    desk.query(1, Read::Local);
    assert!(desk.sent.is_empty());
    desk.connect(2);
    assert_eq!(desk.queries().len(), 1);
}

#[test]
fn a_busy_replica_is_asked_the_query_again_and_no_request_is_confused_with_it() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.query(2, Read::Linearizable);
    let (_, number) = desk.queries()[0];
    desk.reject(number, Rejection::Busy(Limit::Reads));
    desk.wait();
    assert_eq!((desk.queries(), desk.requests()), (vec![(1, number)], vec![]));
    assert!(desk.now.since(Instant::ZERO) < options().retry_interval);
}

#[test]
fn the_token_is_the_latest_op_that_was_seen() {
    let mut desk = Desk::open();
    let token = |epoch, op| CausalToken { epoch: Epoch(epoch), op_number: OpNumber(op) };
    assert_eq!(desk.session.token(), token(0, 11));
    desk.query(1, Read::Causal(token(0, 11)));
    let (asked, number) = desk.queries()[0];
    let answer = |op| {
        let (client, op_number, answer) = (ClientId(0), OpNumber(op), Some(Bytes::new()));
        Message::Answer(Answer { client, request_number: number, op_number, answer })
    };
    desk.hear(answer(17));
    desk.hear(answer(15));
    assert_eq!((desk.session.token(), desk.succeeded()), (token(0, 17), vec![1]));
    desk.epoch = Epoch(1);
    desk.hear(answer(3));
    assert_eq!(desk.session.token(), token(1, 3), "what a later epoch has is later");
    desk.query(2, Read::Causal(token(1, 3)));
    assert_eq!(desk.queries()[0].0, asked);
    desk.sent.clear();
    while desk.queries().is_empty() {
        desk.wait();
    }
    assert_eq!(desk.queries()[0].0, (asked + 1) % 3, "elsewhere if that lags");
}

#[test]
fn queries_have_a_limit() {
    let mut desk = Desk::with(SessionOptions { queries_max: 1, ..options() });
    desk.query(1, Read::Local);
    desk.query(2, Read::Local);
    assert_eq!(desk.failed(), [(2, RequestError::Busy { waiting: 1 })]);
}

#[test]
fn closing_tells_what_was_sent_from_what_was_not() {
    let mut desk = Desk::open();
    (1..=3).for_each(|call| desk.execute(call));
    desk.handle(ClientInput::Close);
    let outcomes: Vec<_> = desk.failed().iter().map(|(call, e)| (*call, e.outcome())).collect();
    let (sent, kept) = (ClientOutcome::Unknown, ClientOutcome::NotExecuted);
    assert_eq!(outcomes, [(3, kept), (1, sent), (2, sent)]);
    desk.execute(4);
    assert_eq!(desk.failed().last().unwrap(), &(4, RequestError::ShuttingDown));
    assert_eq!(desk.session.deadline(), Instant::FAR_FUTURE);
}

#[test]
fn strangers_are_not_listened_to() {
    let mut desk = Desk::open();
    desk.execute(1);
    let outcome = Outcome::Executed(Bytes::new());
    let reply = Reply {
        client: ClientId(9),
        request_number: RequestNumber(2),
        op_number: OpNumber(9),
        outcome,
    };
    desk.hear(Message::Reply(reply.clone()));
    let reply = Reply { client: desk.session.client(), ..reply };
    let envelope = Envelope { group: GroupId(2), ..desk.envelope(Message::Reply(reply)) };
    let (from, envelope) = (Peer::Replica(ReplicaId(0)), Box::new(envelope));
    desk.handle(ClientInput::Received(Received::Envelope { from, envelope }));
    assert!(desk.done.is_empty());
}
