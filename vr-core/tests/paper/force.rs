//! An epoch that the operator began by force, and what becomes of those before it (docs/PROTOCOL.md,
//! Restarting by force).

use core::time::Duration;

use bytes::Bytes;
use vr_core::{
    model::{
        certificate::{Certificate, Inheritance, Means},
        durable::{Durability, Superblock},
        founding::HelloOk,
        message::{Message, Query, Rejection, StatusKind},
        read::Read,
        types::{Checksum, DiskId, Epoch, Nonce, OpNumber, ReplicaId, RequestNumber},
    },
    replica::io::{Event, Fatal},
};

use crate::{
    outputs::{Outputs, picked},
    subject::{CLIENT, Subject, certificate, committed, disk, log, prepare, request},
};

/// The certificate of the group of `count` with one more log that it was given.
fn inherited(count: u64, means: Means, epoch: u64) -> Certificate {
    let mut certificate = certificate(count);
    let (op_number, checksum) = (OpNumber(9), Checksum(9));
    certificate.inherit(Inheritance { means, epoch: Epoch(epoch), op_number, checksum });
    certificate
}

fn heir() -> Certificate {
    inherited(3, Means::Forced, 1)
}

fn told(nonce: Option<Nonce>, from: u64, certificate: Certificate) -> Message {
    told_in(Durability::Full, nonce, from, certificate)
}

fn told_in(
    durability: Durability,
    nonce: Option<Nonce>,
    from: u64,
    certificate: Certificate,
) -> Message {
    Message::HelloOk(HelloOk {
        nonce,
        disk: disk(from),
        certificate: Some(certificate),
        durability,
    })
}

fn question(outputs: &Outputs) -> Nonce {
    let nonces = picked!(outputs, Message::Hello(m) => m.nonce);
    *nonces.first().expect("a question left")
}

/// Replica 1 of `count` on a blank disk, and the nonce of its first question.
fn blank(count: u64) -> (Subject, Nonce) {
    let (mut subject, _) = Subject::start_blank(count, 1);
    let nonce = question(&subject.pass(Duration::ZERO));
    (subject, nonce)
}

/// Replica 1 of three, a member of the epoch that was begun by force.
fn forced() -> (Subject, Outputs) {
    Subject::start_on(Durability::Full, 1, |superblock| {
        superblock.certificate = Some(heir());
        superblock.epoch = Epoch(1);
    })
}

/// The superblock that gives a directory up, if one is written.
fn given_up(outputs: &Outputs) -> Option<Superblock> {
    let batches = outputs.batches();
    let mut written = batches.iter().filter_map(|batch| batch.superblock.clone());
    written.find(|superblock| superblock.superseded_by.is_some())
}

/// G8: one that tells of a later epoch is enough, to no question and in whatever mode. The replica
/// takes part in nothing from that moment on; its log and its promises stay as they are.
#[test]
fn an_old_member_that_is_told_of_a_forced_epoch_takes_part_in_nothing() {
    for mode in [Durability::Full, Durability::ViewOnly] {
        let (mut subject, _) = Subject::start_on(mode, 1, |_| {});
        let outputs = subject.hear_of_epoch(0, 1, told(None, 0, heir()));
        let written = given_up(&outputs).expect("it is noted");
        assert_eq!(written.superseded_by, Some(Epoch(1)));
        assert_eq!(written.certificate, Some(certificate(3)), "nothing is formatted");
        let outputs = subject.hear(0, 0, prepare(&log(1), committed(&[], 0)));
        assert!(outputs.batches().is_empty() && outputs.sent().is_empty());
        let stop = Fatal::Superseded { latest: Epoch(1), ours: Epoch(0) };
        assert_eq!(subject.persisted().fatal(), Some(&stop));
        let text = stop.to_string();
        assert!(text.contains("may hold what was lost, so move it away"), "{text}");
    }
}

/// Without a disk there is nothing to note: the replica stops at once.
#[test]
fn an_old_member_without_a_disk_stops_at_once() {
    let (mut subject, _) = Subject::start_on(Durability::Diskless, 1, |_| {});
    let nonce = question(&subject.pass(Duration::ZERO));
    let founded = told_in(Durability::Diskless, Some(nonce), 0, certificate(3));
    subject.hear_uncertified(0, founded);
    assert_eq!(subject.status().status, StatusKind::Normal);
    let outputs = subject.hear_of_epoch(0, 1, told(None, 0, heir()));
    assert!(matches!(outputs.fatal(), Some(Fatal::Superseded { .. })));
}

/// The note outlives the process: the next start takes part in nothing either, whoever is heard.
#[test]
fn a_directory_that_was_given_up_is_refused_at_each_start() {
    let (_, outputs) = Subject::start_on(Durability::Full, 1, |superblock| {
        superblock.superseded_by = Some(Epoch(1));
    });
    assert!(matches!(outputs.fatal(), Some(Fatal::Superseded { .. })));
    assert!(outputs.sent().is_empty() && outputs.batches().is_empty());
}

/// Only force ends an epoch: neither one that is not later, nor a restored group that was forced
/// in the life before.
#[test]
fn nothing_but_a_later_forced_epoch_ends_one() {
    let mut restored = inherited(3, Means::Forced, 3);
    let (epoch, op_number, checksum) = (Epoch(0), OpNumber(9), Checksum(9));
    restored.inherit(Inheritance { means: Means::Restored, epoch, op_number, checksum });
    for other in [restored, inherited(3, Means::Forced, 0), inherited(3, Means::Restored, 7)] {
        let (mut subject, _) = Subject::start_on(Durability::Full, 1, |_| {});
        let outputs = subject.hear_of_epoch(0, 0, told(None, 0, other));
        assert!(given_up(&outputs).is_none());
        assert_eq!(subject.status().status, StatusKind::Normal);
    }
}

/// G6: a quorum that tells another certificate of an earlier epoch settles nothing: that group was
/// given up.
#[test]
fn a_quorum_of_an_earlier_epoch_takes_back_no_restart() {
    let (mut subject, _) = forced();
    let outputs = subject.hear(0, 0, prepare(&log(1), committed(&[], 0)));
    assert!(outputs.acknowledged().is_empty(), "it is not processed");
    let nonce = question(&outputs);
    for from in [0, 2] {
        let outputs = subject.hear_of_epoch(from, 0, told(Some(nonce), from, certificate(3)));
        assert!(outputs.batches().is_empty());
    }
    assert_eq!(subject.status().status, StatusKind::Normal);
}

/// What may be missing is said again at each start.
#[test]
fn a_restart_by_force_is_said_again_at_each_start() {
    let (subject, outputs) = forced();
    let said = Event::RestartedByForce { epoch: Epoch(1), op_number: OpNumber(9) };
    assert!(outputs.events().contains(&&said));
    assert_eq!(subject.status().inherited, heir().inherited);
    assert_eq!(subject.status().epoch, Epoch(1));
}

/// An old member is answered with the certificate of the new epoch, and with nothing else.
#[test]
fn an_old_member_is_told_and_not_heard() {
    let (mut subject, _) = forced();
    let outputs = subject.hear(2, 0, prepare(&log(1), committed(&[], 0)));
    let answers = picked!(outputs, Message::HelloOk(m) => m.certificate.clone());
    assert_eq!(answers, [Some(heir())]);
    assert_eq!(subject.status().op_number, OpNumber(0));
}

/// A session of an earlier epoch has ended: what its client was told may be lost.
#[test]
fn a_session_of_an_earlier_epoch_has_ended() {
    let (mut subject, _) = forced();
    let outputs = subject.ask(request(OpNumber(1), 4));
    let reasons = outputs.told().into_iter().filter_map(|message| {
        if let Message::Rejected(m) = message { Some(m.reason) } else { None }
    });
    assert_eq!(reasons.collect::<Vec<_>>(), [Rejection::Evicted]);
    let outputs = subject.ask_in(1, request(OpNumber(1), 4));
    assert!(outputs.told().is_empty(), "it is held for the primary");
}

/// A client that knows of a later epoch gets nothing from one that was given up.
#[test]
fn a_client_of_a_later_epoch_is_not_answered_from_an_earlier_one() {
    for (epoch, answers) in [(0, 1), (1, 0)] {
        let mut subject = Subject::backup(3);
        let question = Message::Query(Query {
            client: CLIENT,
            request_number: RequestNumber(1 << 63),
            read: Read::Local,
            query: Bytes::from_static(b"?"),
        });
        let asked = subject.ask_in(epoch, question).work().len();
        assert_eq!(asked, answers, "epoch {epoch}");
    }
}

/// G4: a group that inherited its log never had blank members, so a blank disk that it names has
/// lost that log and is no empty founder.
#[test]
fn a_blank_disk_of_a_group_with_an_inherited_log_is_not_empty_but_wiped() {
    let (mut subject, nonce) = blank(3);
    let outputs = subject.hear_of_epoch(0, 1, told(Some(nonce), 0, heir()));
    assert!(outputs.batches().is_empty());
    let outputs = subject.hear_of_epoch(2, 1, told(Some(nonce), 2, heir()));
    assert!(outputs.events().contains(&&Event::RebuildBegan));
    assert_eq!(subject.status().status, StatusKind::Blank);
}

/// G5: a wiped disk that hears of two epochs waits for the later one, however many tell the other.
#[test]
fn a_wiped_disk_joins_no_epoch_that_was_followed_by_another() {
    let (mut subject, nonce) = blank(5);
    let mut old = certificate(5);
    old.disks[1].1 = DiskId(9);
    let heir = Certificate { disks: old.disks.clone(), ..inherited(5, Means::Forced, 1) };
    subject.hear_of_epoch(0, 1, told(Some(nonce), 0, heir.clone()));
    for from in [2, 3, 4] {
        let outputs = subject.hear_of_epoch(from, 0, told(Some(nonce), from, old.clone()));
        assert!(!outputs.events().contains(&&Event::RebuildBegan));
    }
    for from in [2, 3] {
        subject.hear_of_epoch(from, 1, told(Some(nonce), from, heir.clone()));
    }
    assert!(subject.status().rebuilding);
    assert_eq!(heir.disks[1], (ReplicaId(1), DiskId(9)));
}
