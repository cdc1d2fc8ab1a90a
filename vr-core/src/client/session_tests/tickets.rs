//! Calls that were given up, and what became of them.

use bytes::Bytes;

use crate::{
    client::{
        call::CallId,
        io::{ClientInput, SessionOptions},
        outcome::{ClientOutcome, NotResumed, RequestError},
        session_tests::desk::{Desk, options},
        ticket::Ticket,
    },
    model::{
        message::{Limit, Message, Outcome, Rejected, Rejection, Reply, Request},
        time::Instant,
        types::{Epoch, OpNumber, RequestNumber},
    },
};

/// What a client holds whose calls 1 and 2 had the numbers 2 and 3 when they timed out.
fn tickets() -> [Ticket; 2] {
    let mut desk = Desk::drawn(options(), 8).connecting();
    desk.execute(100);
    desk.registered(5);
    desk.reply(1);
    desk.execute(1);
    desk.execute(2);
    desk.wait_until(11);
    [desk.ticket(1), desk.ticket(2)]
}

/// Another client, which has no session.
fn other() -> Desk {
    Desk::connected()
}

/// What was sent to replica `to`.
fn asked(desk: &Desk, to: u64) -> Vec<Request> {
    let mut requests = Vec::new();
    for (replica, message) in &desk.sent {
        if let (Message::Request(request), true) = (message, replica.0 == to) {
            requests.push(request.clone());
        }
    }
    requests
}

fn reply(ticket: &Ticket, outcome: Outcome) -> Message {
    let (client, request_number) = (ticket.client(), ticket.request_number());
    Message::Reply(Reply { client, request_number, op_number: OpNumber(20), outcome })
}

fn executed(ticket: &Ticket) -> Message {
    reply(ticket, Outcome::Executed(Bytes::from_static(b"done")))
}

fn rejected(ticket: &Ticket, reason: Rejection) -> Message {
    let (client, request_number) = (ticket.client(), ticket.request_number());
    Message::Rejected(Rejected { client, request_number, reason })
}

#[test]
fn a_ticket_has_the_request_and_what_may_have_to_execute_before_it() {
    let mut desk = Desk::open();
    let (client, session) = (desk.session.client(), desk.session.session());
    desk.execute(1);
    desk.execute(2);
    desk.wait_until(11);
    let ticket = desk.ticket(2);
    assert_eq!((ticket.client(), Some(ticket.session())), (client, session));
    assert_eq!((ticket.request_number(), ticket.operation()), (RequestNumber(3), b"2".as_slice()));
    assert_eq!(ticket.requests().count(), 2);
    assert_eq!(desk.ticket(1).requests().count(), 1);
}

#[test]
fn a_ticket_is_resumed_under_the_name_it_has_and_needs_no_session() {
    let [_, ticket] = tickets();
    let mut desk = other();
    desk.resume(7, &ticket);
    let target = desk.sent[0].0.0;
    let asked = asked(&desk, target);
    let expected = [(2, "1"), (3, "2")].map(|(number, operation)| Request {
        client: ticket.client(),
        session: ticket.session(),
        request_number: RequestNumber(number),
        many: false,
        operation: Bytes::from(operation),
    });
    assert_eq!((asked, desk.registrations()), (expected.to_vec(), vec![]));
    desk.hear(executed(&ticket));
    assert_eq!((desk.succeeded(), desk.session.session()), (vec![7], None));
    desk.wait();
    assert!(desk.sent.is_empty() && desk.session.deadline() == Instant::FAR_FUTURE);
}

#[test]
fn a_reply_to_what_stands_before_a_ticket_is_not_its_own() {
    let [before, ticket] = tickets();
    let mut desk = other();
    desk.resume(7, &ticket);
    desk.hear(executed(&before));
    assert!(desk.done.is_empty());
    desk.hear(executed(&ticket));
    desk.hear(executed(&ticket));
    assert_eq!(desk.done.len(), 1);
}

#[test]
fn a_ticket_resumed_where_it_comes_from_takes_no_number() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.wait_until(11);
    let ticket = desk.ticket(1);
    desk.resume(7, &ticket);
    assert_eq!(desk.requests(), [(0, 2)]);
    desk.hear(executed(&ticket));
    assert_eq!(desk.succeeded(), [7]);
    desk.execute(3);
    assert_eq!(desk.requests(), [(0, 3)]);
}

#[test]
fn a_reply_that_is_not_kept_says_that_the_operation_executed() {
    let [_, ticket] = tickets();
    let mut desk = other();
    desk.resume(7, &ticket);
    desk.hear(reply(&ticket, Outcome::Forgotten));
    let (_, error) = desk.failed().remove(0);
    assert_eq!((&error, error.outcome()), (&RequestError::ReplyForgotten, ClientOutcome::Executed));
}

#[test]
fn a_closed_session_leaves_it_unknown() {
    let [first, ticket] = tickets();
    for evicted in [rejected(&first, Rejection::Evicted), reply(&ticket, Outcome::Evicted)] {
        let mut desk = other();
        desk.resume(7, &ticket);
        let reason = Rejection::Evicted;
        let (client, request_number) = (ticket.client(), RequestNumber::ZERO);
        desk.hear(Message::Rejected(Rejected { client, request_number, reason }));
        assert!(desk.done.is_empty(), "that is about a registration under the same name");
        desk.hear(evicted);
        assert_eq!((desk.evicted(), desk.ticket(7)), (vec![7], ticket.clone()));
    }
}

#[test]
fn a_busy_group_is_asked_again_after_a_pause() {
    let [_, ticket] = tickets();
    let mut desk = other();
    desk.resume(7, &ticket);
    desk.hear(rejected(&ticket, Rejection::Busy(Limit::Pipeline)));
    desk.resume(8, &ticket);
    assert!(desk.sent.is_empty(), "the group is busy");
    desk.wait();
    assert_eq!(desk.requests().len(), 2, "once for both");
    desk.hear(executed(&ticket));
    assert_eq!(desk.succeeded(), [7, 8]);
}

#[test]
fn silence_and_a_first_connection_send_a_ticket_again() {
    let [_, ticket] = tickets();
    let mut desk = Desk::with(options());
    desk.resume(7, &ticket);
    assert!(desk.sent.is_empty());
    desk.connect(2);
    assert_eq!(desk.requests(), [(2, 2), (2, 3)]);
    desk.connect(0);
    desk.wait();
    assert_eq!(desk.requests(), [(0, 2), (2, 2), (0, 3), (2, 3)]);
    desk.disconnect(2);
    desk.wait();
    assert_eq!(desk.requests(), [(0, 2), (0, 3)]);
}

#[test]
fn an_eviction_of_the_own_session_does_not_stop_a_resumed_ticket() {
    let [_, ticket] = tickets();
    let mut desk = Desk::open();
    desk.resume(7, &ticket);
    desk.execute(1);
    desk.reject(RequestNumber(2), Rejection::Evicted);
    assert_eq!(desk.evicted(), [1]);
    let mut again = 0;
    while again == 0 {
        desk.wait();
        again = desk.requests().len();
    }
    desk.hear(executed(&ticket));
    assert_eq!(desk.succeeded(), [7]);
}

#[test]
fn a_ticket_belongs_to_its_epoch() {
    let [_, ticket] = tickets();
    let mut desk = other();
    desk.resume(7, &ticket);
    assert!(desk.epochs().iter().all(|epoch| *epoch == Epoch(0)));
    desk.epoch = Epoch(1);
    desk.busy(9, Limit::Pipeline);
    assert_eq!(desk.evicted(), [7]);
    desk.resume(8, &ticket);
    assert_eq!((desk.evicted(), desk.sent.len()), (vec![7, 8], 0));
}

#[test]
fn an_epoch_that_ends_a_session_is_not_that_of_its_tickets() {
    let mut desk = Desk::open();
    desk.execute(1);
    desk.epoch = Epoch(1);
    desk.busy(9, Limit::Pipeline);
    assert_eq!((desk.evicted(), desk.ticket(1).epoch()), (vec![1], Epoch(0)));
}

#[test]
fn a_resumed_call_that_times_out_or_is_dropped_leaves_the_ticket_as_it_was() {
    let [_, ticket] = tickets();
    let mut desk = other();
    desk.resume(7, &ticket);
    desk.resume(8, &ticket);
    desk.handle(ClientInput::Abandon { call: CallId(8) });
    desk.wait_until(11);
    let [(7, RequestError::TimedOut { .. })] = &desk.failed()[..] else { panic!() };
    assert_eq!(desk.ticket(7), ticket);
    desk.wait_until(30);
    assert!(desk.sent.is_empty() && desk.session.deadline() == Instant::FAR_FUTURE);
}

#[test]
fn what_cannot_be_asked_stays_unknown() {
    let [first, ticket] = tickets();
    let mut desk = Desk::with(SessionOptions { resumes_max: 1, ..options() });
    desk.resume(7, &ticket);
    desk.resume(8, &ticket);
    desk.hear(rejected(&first, Rejection::TooLarge { bytes: 9, bytes_max: 8 }));
    desk.handle(ClientInput::Close);
    desk.resume(9, &ticket);
    let mut foreign = Desk::with(options());
    foreign.resume(10, &ticket.of_group(2));
    let failed = desk.failed().into_iter().chain(foreign.failed());
    let reasons: Vec<_> = failed
        .map(|(call, error)| {
            assert_eq!(error.outcome(), ClientOutcome::Unknown);
            let RequestError::NotResumed { reason, .. } = error else { panic!("{error}") };
            (call, reason)
        })
        .collect();
    let too_large = NotResumed::TooLarge { bytes: 9, bytes_max: 8 };
    assert_eq!(
        reasons,
        [
            (8, NotResumed::Busy { waiting: 1 }),
            (7, too_large),
            (9, NotResumed::ShuttingDown),
            (10, NotResumed::OtherGroup),
        ]
    );
}

#[test]
fn a_client_that_closes_leaves_its_resumed_tickets_to_others() {
    let [_, ticket] = tickets();
    let mut desk = other();
    desk.resume(7, &ticket);
    desk.handle(ClientInput::Close);
    let [(7, RequestError::Interrupted { .. })] = &desk.failed()[..] else { panic!() };
    assert_eq!(desk.ticket(7), ticket);
}
