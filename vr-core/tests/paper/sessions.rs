//! What the primary lets into the log: sessions, numbers and windows (docs/PROTOCOL.md, Sessions).

use core::time::Duration;

use bytes::Bytes;
use vr_core::{
    execution::work::{Evicted, Executed, Restored, Work},
    model::{
        durable::genesis_checksum,
        entry::{Entry, EntryHeader, EntryKind},
        message::{
            Forward, ForwardReply, Limit, Message, Outcome, Register, Rejected, Rejection, Reply,
            Request,
        },
        types::{ConnectionId, Nonce, OpNumber, Peer, RequestNumber},
    },
    replica::io::Input,
};

use crate::{
    outputs::Outputs,
    subject::{
        CLIENT, Disk, Subject, acknowledge, extended, log, members, next_primary, promise,
        register, request, vote,
    },
};

fn rejected(outputs: &Outputs) -> Vec<Rejection> {
    let mut found = Vec::new();
    for message in outputs.told() {
        if let Message::Rejected(Rejected { reason, .. }) = message {
            found.push(reason);
        }
    }
    found
}

fn resends(outputs: &Outputs) -> usize {
    outputs.work().iter().filter(|work| matches!(work, Work::Resend { .. })).count()
}

fn reply(number: u64, op_number: u64) -> Reply {
    Reply {
        client: CLIENT,
        request_number: RequestNumber(number),
        op_number: OpNumber(op_number),
        outcome: Outcome::Executed(b"done".as_slice().into()),
    }
}

/// A primary whose client has a session and executed its first request.
fn executed() -> (Subject, OpNumber) {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(request(session, 1));
    primary.persisted();
    let op_number = primary.status().op_number;
    let head = primary.head_of(op_number);
    primary.hear(1, 0, acknowledge(op_number, head));
    primary.executed(op_number, vec![reply(1, op_number.0)]);
    (primary, session)
}

/// NP5: an operation is executed when it is committed, and answered when it is executed.
#[test]
fn nothing_is_executed_before_it_is_committed() {
    let mut primary = Subject::primary(3);
    let mut outputs = primary.ask(register());
    outputs.0.extend(primary.persisted().0);
    assert!(outputs.ordered().is_empty());
    let head = primary.head_of(OpNumber(1));
    let outputs = primary.hear(1, 0, acknowledge(OpNumber(1), head));
    assert_eq!((outputs.ordered(), outputs.told()), (vec![1], vec![]));
    let told = primary.executed(OpNumber(1), vec![reply(0, 1)]).told();
    assert_eq!(told, [Message::Reply(reply(0, 1))]);
}

/// D20: what is executed after the view was left is answered by its next primary.
#[test]
fn a_primary_that_left_its_view_answers_nobody() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    primary.persisted();
    let head = primary.head_of(OpNumber(1));
    primary.hear(1, 0, acknowledge(OpNumber(1), head));
    primary.hear(1, 0, vote(0));
    primary.hear(2, 0, vote(0));
    assert!(primary.executed(OpNumber(1), vec![reply(0, 1)]).told().is_empty());
    assert_eq!(primary.status().applied, OpNumber(1));
}

/// Normal operation, step 2: a request without a session is told so.
#[test]
fn a_request_without_a_session_is_evicted() {
    let mut primary = Subject::primary(3);
    assert_eq!(rejected(&primary.ask(request(OpNumber(9), 1))), [Rejection::Evicted]);
}

/// Normal operation, step 2: a request of another session than the known one is told so.
#[test]
fn a_request_of_another_session_is_evicted() {
    let (mut primary, session) = executed();
    let outputs = primary.ask(request(OpNumber(session.0 + 1), 2));
    assert_eq!(rejected(&outputs), [Rejection::Evicted]);
}

/// Normal operation, step 2: whether a session is unknown shows only when everything is executed
/// that the view started with.
#[test]
fn a_new_primary_evicts_nobody_before_it_knows_all_sessions() {
    let entries = log(1);
    let mut primary = next_primary(&entries);
    primary.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    primary.persisted();
    assert!(primary.ask(request(OpNumber(9), 1)).told().is_empty());
    primary.hear(2, 1, acknowledge(OpNumber(1), entries[0].header.checksum));
    primary.executed(OpNumber(1), Vec::new());
    assert_eq!(rejected(&primary.ask(request(OpNumber(9), 1))), [Rejection::Evicted]);
}

/// Normal operation, step 2: a registration that is repeated is in the log once.
#[test]
fn a_repeated_registration_is_in_the_log_once() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    assert!(primary.ask(register()).entries().is_empty());
    assert_eq!(primary.status().op_number, OpNumber(1));
}

/// Normal operation, step 2: a registration that was executed is answered again.
#[test]
fn an_executed_registration_is_answered_again() {
    let (mut primary, _) = executed();
    let outputs = primary.ask(register());
    assert_eq!((outputs.entries().len(), resends(&outputs)), (0, 1));
}

/// D17, D19: a client id is used once: another nonce is another client that chose the same id.
#[test]
fn a_client_id_is_used_once() {
    let (mut primary, _) = executed();
    let other = Message::Register(Register { client: CLIENT, nonce: Nonce(6) });
    assert_eq!(rejected(&primary.ask(other)), [Rejection::Evicted]);
}

/// Normal operation, step 2: a number that is in the log is left alone.
#[test]
fn a_number_in_the_log_is_not_appended_again() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(request(session, 1));
    let outputs = primary.ask(request(session, 1));
    assert!(outputs.entries().is_empty() && resends(&outputs) == 0);
}

/// Normal operation, step 2: a number that was executed gets its stored reply from the executor.
#[test]
fn an_executed_number_gets_its_stored_reply() {
    let (mut primary, session) = executed();
    let outputs = primary.ask(request(session, 1));
    assert_eq!((outputs.entries().len(), resends(&outputs)), (0, 1));
    let told = primary.executed(OpNumber(2), vec![reply(1, 2)]).told();
    assert_eq!(told, [Message::Reply(reply(1, 2))]);
}

/// Sessions, tickets: whether a number whose reply has left the window executed is known, and whoever
/// asks is told by the executor.
#[test]
fn a_number_that_left_the_window_is_answered_all_the_same() {
    let mut primary = Subject::primary_with(|config| config.window = 1, 3);
    let session = primary.open_session();
    for number in 1..=2 {
        primary.ask(request(session, number));
        primary.persisted();
        let op_number = primary.status().op_number;
        let head = primary.head_of(op_number);
        primary.hear(1, 0, acknowledge(op_number, head));
        primary.executed(op_number, Vec::new());
    }
    let resent = [1, 2].map(|number| resends(&primary.ask(request(session, number))));
    assert_eq!((resent, primary.status().op_number), ([1, 1], OpNumber(3)));
    let outcome = Outcome::Forgotten;
    let forgotten = Reply { op_number: OpNumber::ZERO, outcome, ..reply(1, 0) };
    let told = primary.executed(OpNumber(3), vec![forgotten.clone()]).told();
    assert_eq!(told, [Message::Reply(forgotten)]);
}

/// Sessions: several operations have one number and one place, and are an entry of their own kind.
#[test]
fn several_operations_have_one_place_in_the_log() {
    let (mut primary, session) = executed();
    let Message::Request(one) = request(session, 2) else { unreachable!("a request") };
    let several = Message::Request(Request { many: true, ..one.clone() });
    let outputs = primary.ask(several);
    let kinds: Vec<_> = outputs.entries().iter().map(|entry| entry.header.kind).collect();
    assert_eq!(kinds, [EntryKind::Many; 2], "one entry, to both backups");
    assert!(outputs.entries().iter().all(|entry| entry.payload == one.operation));
    assert!(primary.ask(Message::Request(one)).entries().is_empty(), "the number is taken");
    assert_eq!(primary.ask(request(session, 3)).entries().len(), 2);
}

/// Sessions, tickets: whoever asks for a number of a session is answered, and the session's own
/// client goes on with it.
#[test]
fn a_number_is_answered_to_whoever_asks_for_it() {
    let (mut primary, session) = executed();
    let other = Peer::Client(ConnectionId(2));
    let outputs = primary.ask_from(other, request(session, 1));
    assert_eq!((outputs.entries().len(), resends(&outputs)), (0, 1));
    let outputs = primary.executed(OpNumber(2), vec![reply(1, 2)]);
    assert_eq!(
        (outputs.told_to(other), outputs.told()),
        (vec![Message::Reply(reply(1, 2))], vec![])
    );
    let outputs = primary.ask_from(other, request(session, 2));
    assert_eq!(outputs.entries().len(), 2, "what has not executed does so now");
    assert!(primary.ask(request(session, 2)).entries().is_empty(), "once");
    assert_eq!(primary.ask(request(session, 3)).entries().len(), 2);
}

/// D18: a new primary knows from its log which numbers have their place: they get no second one.
#[test]
fn a_new_primary_appends_nothing_that_its_log_holds() {
    let group = members(3).group_id("paper");
    let header = EntryHeader {
        parent: genesis_checksum(group),
        op_number: OpNumber(1),
        time: 1,
        client: CLIENT,
        group: EntryHeader::group_mark(group),
        kind: EntryKind::Register,
        ..EntryHeader::default()
    };
    let session = Entry::new(header, Bytes::copy_from_slice(&5_u128.to_le_bytes()));
    let entries = extended(&[session], 0, 2, 3);
    let mut primary = next_primary(&entries);
    primary.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    primary.persisted();
    let known = [2, 3].map(|number| primary.ask(request(OpNumber(1), number)).entries().len());
    let next = primary.ask(request(OpNumber(1), 4)).entries().len();
    assert_eq!((known, next), ([0, 0], 2), "the log holds the numbers 2 and 3");
}

/// D18: what waits for the numbers before it is forgotten when the view is left.
#[test]
fn what_was_parked_is_dropped_with_its_view() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(request(session, 2));
    for voter in [1, 2] {
        primary.hear(voter, 0, vote(0));
    }
    primary.hear(1, 3, Message::DoViewChange(promise(3, 0, &[], 0)));
    primary.persisted();
    primary.persisted();
    let outputs = primary.ask(request(session, 1));
    let numbers: Vec<u64> = outputs.entries().iter().map(|it| it.header.request_number.0).collect();
    assert_eq!(numbers, [1, 1], "to both backups");
}

/// Normal operation, step 2: a number that comes too early waits for those before it, and they
/// enter the log in order.
#[test]
fn a_number_that_comes_early_waits_for_its_predecessors() {
    let (mut primary, session) = executed();
    assert!(primary.ask(request(session, 3)).entries().is_empty());
    let outputs = primary.ask(request(session, 2));
    let numbers: Vec<u64> =
        outputs.entries().iter().map(|entry| entry.header.request_number.0).collect();
    assert_eq!(numbers, [2, 3, 2, 3], "the same to both backups");
}

/// Normal operation, step 2: a number beyond the window is answered busy.
#[test]
fn a_number_beyond_the_window_is_answered_busy() {
    let mut primary = Subject::primary_with(|config| config.window = 2, 3);
    let session = primary.open_session();
    assert!(rejected(&primary.ask(request(session, 2))).is_empty());
    let busy = Rejection::Busy(Limit::Window);
    assert_eq!(rejected(&primary.ask(request(session, 3))), [busy]);
}

/// Sessions: a full client table takes registrations, and forgets whom the executor closes the
/// session of.
#[test]
fn a_full_client_table_makes_room() {
    let mut primary = Subject::primary_with(|config| config.clients_max = 1, 3);
    let session = primary.open_session();
    let client = vr_core::ClientId(78);
    let outputs = primary.ask(Message::Register(Register { client, nonce: Nonce(1) }));
    assert!(rejected(&outputs).is_empty());
    let kept: Vec<_> = outputs.entries().iter().map(|entry| entry.header.session).collect();
    assert_eq!(kept, vec![OpNumber(1); 2], "how many are kept is in the log");
    primary.persisted();
    let by = session.next();
    let checksum = primary.head_of(by);
    primary.hear(1, 0, acknowledge(by, checksum));
    let evicted = vec![Evicted { by, client: CLIENT, session }];
    let replies = Vec::new();
    primary.handle(Input::Executed(Executed {
        through: by,
        replies,
        evicted,
        ..Executed::default()
    }));
    assert_eq!(rejected(&primary.ask(request(session, 1))), [Rejection::Evicted]);
    assert_eq!(primary.status().clients, 1);
}

/// Sessions: who has none after a checkpoint took the place of the state leaves nothing behind.
#[test]
fn a_session_that_a_checkpoint_closed_is_forgotten_with_its_route() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    let held = |primary: &Subject| {
        let queues = primary.status().queues;
        let clients = queues.iter().filter(|queue| queue.limit == "clients_max");
        clients.map(|queue| queue.used).collect::<Vec<_>>()
    };
    assert_eq!(held(&primary), [1, 1], "a session, and a way to its client");
    let restored = Restored { op_number: session, time: Duration::ZERO, sessions: Vec::new() };
    primary.handle(Input::Executed(Executed {
        through: session,
        restored: Some(restored),
        ..Executed::default()
    }));
    assert_eq!(held(&primary), [0, 0]);
}

/// More registrations than the executor can make room for are answered busy.
#[test]
fn registrations_that_outrun_the_executor_are_answered_busy() {
    let limit = |config: &mut vr_core::Config| {
        (config.clients_max, config.pipeline_ops_max) = (1, 2);
    };
    let mut primary = Subject::primary_with(limit, 3);
    primary.open_session();
    let mut answers = Vec::new();
    for client in 78..83 {
        let client = vr_core::ClientId(client);
        let asked = primary.ask(Message::Register(Register { client, nonce: Nonce(1) }));
        answers.extend(rejected(&asked));
        primary.persisted();
        let op = primary.status().op_number;
        let checksum = primary.head_of(op);
        primary.hear(1, 0, acknowledge(op, checksum));
    }
    assert_eq!(answers, vec![Rejection::Busy(Limit::Clients); 3]);
}

/// Normal operation, step 2: a full pipeline and a full queue before it answer busy.
#[test]
fn a_full_pipeline_answers_busy() {
    let mut primary = Subject::primary_with(|config| config.pipeline_ops_max = 1, 3);
    let session = primary.open_session();
    primary.ask(request(session, 1));
    assert!(rejected(&primary.ask(request(session, 2))).is_empty(), "one waits for room");
    let busy = Rejection::Busy(Limit::Pipeline);
    assert_eq!(rejected(&primary.ask(request(session, 3))), [busy]);
}

/// Normal operation, step 2: a pipeline is full by bytes, too; what waits enters the log when there
/// is room.
#[test]
fn a_pipeline_is_full_by_bytes_too() {
    let mut primary = Subject::primary_with(|config| config.pipeline_bytes_max = 130, 3);
    let session = primary.open_session();
    assert_eq!(primary.ask(request(session, 1)).entries().len(), 2, "one to each backup");
    assert!(primary.ask(request(session, 2)).entries().is_empty());
    primary.persisted();
    let head = primary.head_of(OpNumber(2));
    let outputs = primary.hear(1, 0, acknowledge(OpNumber(2), head));
    assert_eq!(outputs.entries().len(), 2);
}

/// Normal operation, step 6: what a backup forwarded is answered through that backup.
#[test]
fn a_forwarded_request_is_answered_through_its_backup() {
    let mut primary = Subject::primary(3);
    let Message::Register(registration) = register() else { unreachable!("a registration") };
    primary.hear(2, 0, Message::Forward(Forward::Register(registration)));
    primary.persisted();
    let head = primary.head_of(OpNumber(1));
    primary.hear(1, 0, acknowledge(OpNumber(1), head));
    let sent = primary.executed(OpNumber(1), vec![reply(0, 1)]).sent();
    let [(to, Message::ForwardReply(ForwardReply::Reply(told)))] = &sent[..] else { panic!() };
    assert_eq!((to.0, told), (2, &reply(0, 1)));
}

/// Normal operation, step 6: what the primary answers to a forwarded request reaches the client
/// that asked.
#[test]
fn a_backup_passes_the_primary_s_answer_on() {
    let mut backup = Subject::backup(3);
    backup.ask(register());
    let answer = Message::ForwardReply(ForwardReply::Reply(reply(0, 1)));
    assert_eq!(backup.hear(0, 0, answer.clone()).told(), [Message::Reply(reply(0, 1))]);
    assert!(backup.hear(0, 0, answer).told().is_empty(), "once");
}

/// Normal operation, step 1: a backup that holds too many requests answers busy.
#[test]
fn a_backup_holds_only_so_many_requests() {
    let disk = Disk::default();
    let (mut backup, _) = Subject::start_with(|config| config.forward_ops_max = 1, 3, 1, disk);
    assert!(rejected(&backup.ask(register())).is_empty());
    let busy = Rejection::Busy(Limit::Forward);
    assert_eq!(rejected(&backup.ask(request(OpNumber(1), 1))), [busy]);
}

/// Normal operation, step 2: what waited for the numbers before it finds the log as full as
/// everybody else.
#[test]
fn what_was_parked_does_not_overfill_the_log() {
    let mut primary = Subject::primary_with(|config| config.log_bytes_max = 301, 3);
    let session = primary.open_session();
    for number in [3, 2] {
        assert!(primary.ask(request(session, number)).entries().is_empty());
    }
    let outputs = primary.ask(request(session, 1));
    assert_eq!(rejected(&outputs), [Rejection::Busy(Limit::Log)]);
    let status = primary.status();
    assert_eq!(status.op_number, OpNumber(2), "the session and the first request");
    assert!(status.log_bytes <= 301, "{} bytes", status.log_bytes);
    assert!(status.queues.iter().all(|queue| queue.used <= queue.used_max), "{status:?}");
}
