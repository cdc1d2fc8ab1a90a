//! What the primary lets into the log: sessions, numbers and windows (docs/PROTOCOL.md, Sessions).

use vr_core::{
    execution::work::Work,
    model::{
        message::{
            Forward, ForwardReply, Limit, Message, Outcome, Register, Rejected, Rejection, Reply,
        },
        types::{Nonce, OpNumber, RequestNumber},
    },
};

use crate::subject::{CLIENT, Outputs, Subject, register, request};

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
    primary.hear(1, 0, crate::subject::acknowledge(op_number, head));
    primary.executed(op_number, vec![reply(1, op_number.0)]);
    (primary, session)
}

/// A request without a session is told so.
#[test]
fn a_request_without_a_session_is_evicted() {
    let mut primary = Subject::primary(3);
    assert_eq!(rejected(&primary.ask(request(OpNumber(9), 1))), [Rejection::Evicted]);
}

/// A request of another session than the known one is told so.
#[test]
fn a_request_of_another_session_is_evicted() {
    let (mut primary, session) = executed();
    let outputs = primary.ask(request(OpNumber(session.0 + 1), 2));
    assert_eq!(rejected(&outputs), [Rejection::Evicted]);
}

/// A registration that is repeated is in the log once.
#[test]
fn a_repeated_registration_is_in_the_log_once() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    assert!(primary.ask(register()).entries().is_empty());
    assert_eq!(primary.status().op_number, OpNumber(1));
}

/// A client id is used once: another nonce is another client that chose the same id.
#[test]
fn a_client_id_is_used_once() {
    let (mut primary, _) = executed();
    let other = Message::Register(Register { client: CLIENT, nonce: Nonce(6) });
    assert_eq!(rejected(&primary.ask(other)), [Rejection::Evicted]);
}

/// A number that is in the log is left alone.
#[test]
fn a_number_in_the_log_is_not_appended_again() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(request(session, 1));
    let outputs = primary.ask(request(session, 1));
    assert!(outputs.entries().is_empty() && resends(&outputs) == 0);
}

/// A number that was executed gets its stored reply from the executor.
#[test]
fn an_executed_number_gets_its_stored_reply() {
    let (mut primary, session) = executed();
    let outputs = primary.ask(request(session, 1));
    assert_eq!((outputs.entries().len(), resends(&outputs)), (0, 1));
    let told = primary.executed(OpNumber(2), vec![reply(1, 2)]).told();
    assert_eq!(told, [Message::Reply(reply(1, 2))]);
}

/// A number that comes too early waits for those before it, and they enter the log in order.
#[test]
fn a_number_that_comes_early_waits_for_its_predecessors() {
    let (mut primary, session) = executed();
    assert!(primary.ask(request(session, 3)).entries().is_empty());
    let outputs = primary.ask(request(session, 2));
    let numbers: Vec<u64> =
        outputs.entries().iter().map(|entry| entry.header.request_number.0).collect();
    assert_eq!(numbers, [2, 3, 2, 3], "the same to both backups");
}

/// A number beyond the window is answered busy.
#[test]
fn a_number_beyond_the_window_is_answered_busy() {
    let mut primary = Subject::primary_with(|config| config.window = 2, 3);
    let session = primary.open_session();
    assert!(rejected(&primary.ask(request(session, 2))).is_empty());
    let busy = Rejection::Busy(Limit::Window);
    assert_eq!(rejected(&primary.ask(request(session, 3))), [busy]);
}

/// A full client table answers registrations busy.
#[test]
fn a_full_client_table_answers_busy() {
    let mut primary = Subject::primary_with(|config| config.clients_max = 1, 3);
    primary.open_session();
    let client = vr_core::ClientId(78);
    let outputs = primary.ask(Message::Register(Register { client, nonce: Nonce(1) }));
    assert_eq!(rejected(&outputs), [Rejection::Busy(Limit::Clients)]);
}

/// A full pipeline and a full queue before it answer busy.
#[test]
fn a_full_pipeline_answers_busy() {
    let mut primary = Subject::primary_with(|config| config.pipeline_ops_max = 1, 3);
    let session = primary.open_session();
    primary.ask(request(session, 1));
    assert!(rejected(&primary.ask(request(session, 2))).is_empty(), "one waits for room");
    let busy = Rejection::Busy(Limit::Pipeline);
    assert_eq!(rejected(&primary.ask(request(session, 3))), [busy]);
}

/// What a backup forwarded is answered through that backup.
#[test]
fn a_forwarded_request_is_answered_through_its_backup() {
    let mut primary = Subject::primary(3);
    let Message::Register(registration) = register() else { unreachable!("a registration") };
    primary.hear(2, 0, Message::Forward(Forward::Register(registration)));
    primary.persisted();
    let head = primary.head_of(OpNumber(1));
    primary.hear(1, 0, crate::subject::acknowledge(OpNumber(1), head));
    let sent = primary.executed(OpNumber(1), vec![reply(0, 1)]).sent();
    let [(to, Message::ForwardReply(ForwardReply::Reply(told)))] = &sent[..] else { panic!() };
    assert_eq!((to.0, told), (2, &reply(0, 1)));
}

/// What the primary answers to a forwarded request reaches the client that asked.
#[test]
fn a_backup_passes_the_primary_s_answer_on() {
    let mut backup = Subject::backup(3);
    backup.ask(register());
    let answer = Message::ForwardReply(ForwardReply::Reply(reply(0, 1)));
    assert_eq!(backup.hear(0, 0, answer.clone()).told(), [Message::Reply(reply(0, 1))]);
    assert!(backup.hear(0, 0, answer).told().is_empty(), "once");
}

/// A backup that holds too many requests answers busy.
#[test]
fn a_backup_holds_only_so_many_requests() {
    let disk = crate::subject::Disk::default();
    let (mut backup, _) = Subject::start_with(|config| config.forward_ops_max = 1, 3, 1, disk);
    assert!(rejected(&backup.ask(register())).is_empty());
    let busy = Rejection::Busy(Limit::Forward);
    assert_eq!(rejected(&backup.ask(request(OpNumber(1), 1))), [busy]);
}

/// What waited for the numbers before it finds the log as full as everybody else.
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
