//! Which status takes which message (docs/PROTOCOL.md, Which status takes what; the gates before).

use core::time::Duration;

use vr_core::model::{
    durable::{Durability, Trust},
    founding::Hello,
    kind::Kind,
    message::{
        GetCrashVector, GetView, Limit, Message, ReadIndex, Recovery, Rejected, Rejection,
        StatusKind,
    },
    types::{Epoch, GroupId, Nonce, OpNumber, ReplicaId, RequestId, View},
};

use crate::{
    outputs::Outputs,
    subject::{
        Disk, Subject, acknowledge, commit, committed, get_entries_from, head, log, prepare,
        promise, register, vote,
    },
};

/// Replica 1 of three in this status, in view 0 if it is in one that has started, and with a
/// promise to view 3 otherwise.
fn subject(status: StatusKind) -> Subject {
    match status {
        StatusKind::Blank => Subject::start_blank(3, 1).0,
        StatusKind::Normal => Subject::backup(3),
        StatusKind::ViewChange => {
            Subject::start(3, 1, Disk { view: 3, log_view: 0, log: Vec::new() }).0
        }
        StatusKind::Recovering => {
            Subject::start_on(Durability::ViewOnly, 1, |superblock| superblock.view = View(3)).0
        }
    }
}

/// Everybody who belongs to the group: a primary, and replica 1 in every status.
fn members() -> [(&'static str, Subject); 4] {
    [
        ("primary", Subject::primary(3)),
        ("backup", subject(StatusKind::Normal)),
        ("view change", subject(StatusKind::ViewChange)),
        ("recovering", subject(StatusKind::Recovering)),
    ]
}

/// Whether each of the members answers `message`, said by replica 2 in its view, with `kind`.
fn answering(message: &Message, kind: Kind) -> [bool; 4] {
    members().map(|(_, mut subject)| {
        let view = subject.status().view.0;
        subject.hear(2, view, message.clone()).receivers(kind) == [2]
    })
}

/// Requests: whoever has no primary keeps them for a while, and then says busy.
#[test]
fn a_request_waits_where_there_is_no_primary() {
    for status in [StatusKind::Blank, StatusKind::ViewChange, StatusKind::Recovering] {
        let mut subject = subject(status);
        let outputs = subject.ask(register());
        assert!(outputs.told().is_empty() && outputs.receivers(Kind::Forward).is_empty());
        let told = subject.pass(Duration::from_secs(2)).told();
        let [Message::Rejected(Rejected { reason, .. })] = told[..] else { panic!("{status:?}") };
        assert_eq!(reason, Rejection::Busy(Limit::NoQuorum), "{status:?}");
    }
}

/// Prepares and commits of this view: only a backup takes them.
#[test]
fn only_a_backup_takes_entries_and_commit_numbers() {
    for (name, mut subject) in members() {
        let view = subject.status().view;
        let from = if name == "primary" { 1 } else { view.0 % 3 };
        let mut outputs = subject.hear(from, view.0, prepare(&log(1), committed(&log(1), 1)));
        outputs.0.extend(subject.hear(from, view.0, commit(committed(&log(1), 1), 1, 1)).0);
        let taken = OpNumber(u64::from(name == "backup"));
        let status = subject.status();
        assert_eq!((status.op_number, status.commit_number), (taken, taken), "{name}");
        assert_eq!(outputs.receivers(Kind::PrepareOk).is_empty(), name != "backup", "{name}");
    }
}

/// Prepares and commits of a later view: everybody goes there and asks for its log.
#[test]
fn everybody_goes_where_a_later_view_has_started() {
    for message in [prepare(&log(1), committed(&[], 0)), commit(committed(&[], 0), 1, 1)] {
        for (name, mut subject) in members() {
            let log_view = subject.status().log_view;
            let outputs = subject.hear(2, 5, message.clone());
            let lost = name == "recovering";
            let status = subject.status();
            assert_eq!((status.view, status.log_view), (View(5), log_view), "{name}");
            assert_eq!(status.status == StatusKind::Recovering, lost, "{name}");
            let kind = if lost { Kind::Recovery } else { Kind::GetView };
            assert!(outputs.receivers(kind).contains(&2), "{name}");
        }
    }
}

/// Acknowledgements: only a primary counts them, and nobody is harmed by one.
#[test]
fn only_a_primary_counts_acknowledgements() {
    for (name, mut subject) in members() {
        let (view, ignored) = (subject.status().view.0, subject.status().ignored);
        subject.hear(2, view, acknowledge(OpNumber(0), head(&[])));
        assert_eq!(subject.status().ignored == ignored, name == "primary", "{name}");
    }
}

/// Votes to leave this view: everybody counts them, and follows a quorum.
#[test]
fn everybody_counts_votes_to_leave_its_view() {
    for (name, mut subject) in members() {
        let view = subject.status().view;
        let others = if name == "primary" { [1, 2] } else { [0, 2] };
        for other in others {
            assert_eq!(subject.status().view, view, "{name}");
            subject.hear(other, view.0, vote(view.0));
        }
        assert!(subject.status().view > view, "{name}");
    }
}

/// Promises to a later view: everybody joins them; one that lacks its log still lacks it.
#[test]
fn everybody_joins_a_promise_to_a_later_view() {
    for (name, mut subject) in members() {
        let log_view = subject.status().log_view;
        subject.hear(2, 5, Message::DoViewChange(promise(5, 0, &[], 0)));
        let outputs = subject.persisted();
        let status = subject.status();
        assert_eq!((status.view, status.log_view), (View(5), log_view), "{name}");
        assert_eq!(outputs.receivers(Kind::DoViewChange).len(), 2, "{name}");
        let trust = if name == "recovering" { Trust::Lost } else { Trust::Intact };
        assert_eq!(status.trust, trust, "{name}");
    }
}

/// VRR section 4.3 step 2: only a replica in status normal answers who forgot something.
#[test]
fn only_a_normal_replica_answers_who_forgot() {
    let (nonce, view) = (Nonce(9), View(0));
    let recovery = Recovery { nonce, view, log_view: view, primary_restarted: false };
    let normal = [true, true, false, false];
    assert_eq!(answering(&Message::Recovery(recovery), Kind::RecoveryResponse), normal);
    let question = Message::GetCrashVector(GetCrashVector { nonce });
    assert_eq!(answering(&question, Kind::CrashVectorIs), normal);
}

/// Entries from an op on: the log must be the view's. By checksum everybody answers.
#[test]
fn only_a_normal_replica_speaks_for_its_view() {
    assert_eq!(answering(&get_entries_from(1), Kind::Entries), [true, true, false, false]);
    let wanted = vr_core::model::entries::Wanted::Exact(Vec::new());
    let question =
        vr_core::model::entries::GetEntries { request: RequestId(1), wanted, bytes_max: 1 << 20 };
    assert_eq!(answering(&Message::GetEntries(question), Kind::Entries), [true; 4]);
}

/// The log of a view is its primary's to tell, and so is the read index.
#[test]
fn only_a_primary_tells_its_log_and_begins_a_round() {
    let question = Message::GetView(GetView { view: View(0), nonce: Nonce(4) });
    assert_eq!(answering(&question, Kind::StartView), [true, false, false, false]);
    let question = ReadIndex { request: RequestId(8) };
    for (name, mut subject) in members() {
        let view = subject.status().view.0;
        let outputs = subject.hear(2, view, Message::ReadIndex(question.clone()));
        let begins = !outputs.receivers(Kind::Commit).is_empty();
        assert_eq!(begins, name == "primary", "{name}");
    }
}

/// G2: everybody says who it is, whatever it does.
#[test]
fn everybody_answers_a_hello() {
    let hello = |durability| Message::Hello(Hello { nonce: Nonce(3), durability });
    let told = |subject: &mut Subject| {
        let durability = subject.status().durability;
        subject.hear_uncertified(2, hello(durability)).receivers(Kind::HelloOk)
    };
    for (name, mut subject) in members() {
        assert_eq!(told(&mut subject), [2], "{name}");
    }
    assert_eq!(told(&mut subject(StatusKind::Blank)), [2]);
}

/// A blank replica takes nothing but genesis and answers to its own questions.
#[test]
fn a_blank_replica_takes_no_part() {
    let mut subject = subject(StatusKind::Blank);
    let mut outputs = Outputs::default();
    for message in [
        prepare(&log(1), committed(&[], 0)),
        vote(0),
        Message::DoViewChange(promise(4, 0, &[], 0)),
        get_entries_from(1),
        Message::GetCrashVector(GetCrashVector { nonce: Nonce(1) }),
        Message::ReadIndex(ReadIndex { request: RequestId(1) }),
    ] {
        outputs.0.extend(subject.hear(2, 4, message).0);
    }
    assert!(outputs.sent().is_empty() && outputs.batches().is_empty());
    assert_eq!((subject.status().view, subject.status().ignored), (View(0), 6));
}

/// The gates: another group, another epoch, a stranger, or one under another's name.
#[test]
fn a_message_from_outside_is_not_processed() {
    let mut subject = Subject::backup(3);
    let message = || Message::DoViewChange(promise(1, 0, &[], 0));
    subject.hear_as(2, 1, message(), |envelope| envelope.group = GroupId(9));
    subject.hear_as(2, 1, message(), |envelope| envelope.epoch = Epoch(1));
    subject.hear_as(2, 1, message(), |envelope| {
        envelope.sender = vr_core::model::message::Sender::Replica(ReplicaId(0));
    });
    subject.hear(9, 1, message());
    subject.hear(1, 1, message());
    assert_eq!((subject.status().view, subject.status().ignored), (View(0), 5));
}
