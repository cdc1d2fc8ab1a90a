//! How a group comes to be, once (docs/PROTOCOL.md, Genesis).

use core::time::Duration;

use vr_core::{
    model::{
        certificate::{Certificate, CertificateHash},
        durable::Durability,
        founding::{Found, FoundOk, Hello, HelloOk},
        kind::Kind,
        message::{Message, StatusKind},
        types::{DiskId, Nonce, OpNumber, ReplicaId},
    },
    replica::io::Event,
};

use crate::{
    outputs::{Outputs, picked},
    subject::{Subject, certificate, committed, disk, log, prepare, register},
};

/// The nonce of the question that `outputs` asks everybody.
fn nonce(outputs: &Outputs) -> Nonce {
    let mut nonces = picked!(outputs, Message::Hello(m) => m.nonce);
    nonces.extend(picked!(outputs, Message::Found(m) => m.nonce));
    *nonces.first().expect("a question left")
}

fn told(nonce: Option<Nonce>, from: u64, certificate: Option<Certificate>) -> Message {
    Message::HelloOk(HelloOk { nonce, disk: disk(from), certificate, durability: Durability::Full })
}

/// A blank replica of three, and the nonce of its first question.
fn blank(me: u64) -> (Subject, Nonce) {
    let (mut subject, _) = Subject::start_blank(3, me);
    let nonce = nonce(&subject.pass(Duration::ZERO));
    (subject, nonce)
}

/// Replica 0 in its second round, and the round's nonce.
fn founder() -> (Subject, Nonce) {
    let (mut subject, _) = Subject::start_blank(3, 0);
    let asked = subject.pass(Duration::ZERO);
    let asked = subject.answer_hellos(asked);
    assert_eq!(asked.receivers(Kind::Found), [1, 2]);
    (subject, nonce(&asked))
}

/// G1: a blank replica serves nothing and acknowledges nothing.
#[test]
fn a_blank_replica_serves_nothing() {
    let (mut subject, _) = blank(1);
    let outputs = subject.hear(0, 0, prepare(&log(1), committed(&[], 0)));
    assert!(outputs.batches().is_empty() && outputs.acknowledged().is_empty());
    assert_eq!(subject.status().status, StatusKind::Blank);
    assert!(subject.ask(register()).sent().is_empty());
}

/// G2: everyone without a certificate asks everybody, again and again.
#[test]
fn a_blank_replica_keeps_asking_everybody() {
    let (mut subject, _) = blank(1);
    let outputs = subject.pass(Duration::from_secs(2));
    let asked = outputs.receivers(Kind::Hello);
    assert!(asked.len() >= 4 && asked.contains(&0) && asked.contains(&2));
    assert_eq!(subject.status().awaited, [ReplicaId(0), ReplicaId(2)]);
}

/// G2: only the primary of view 0 founds.
#[test]
fn only_the_first_primary_founds() {
    let (mut subject, _) = Subject::start_blank(3, 1);
    let asked = subject.pass(Duration::ZERO);
    let outputs = subject.answer_hellos(asked);
    assert!(outputs.receivers(Kind::Found).is_empty());
}

/// G2: a quorum of blanks is not enough; all must have answered.
#[test]
fn a_quorum_of_blanks_founds_nothing() {
    let (mut subject, nonce) = blank(0);
    subject.hear_uncertified(1, told(Some(nonce), 1, None));
    let outputs = subject.pass(Duration::from_secs(3));
    assert!(outputs.receivers(Kind::Found).is_empty());
}

/// G2: an answer to an earlier question does not count.
#[test]
fn an_answer_with_another_nonce_does_not_count() {
    let (mut subject, nonce) = blank(0);
    subject.hear_uncertified(1, told(Some(nonce), 1, None));
    subject.hear_uncertified(2, told(Some(Nonce(nonce.0 ^ 1)), 2, None));
    assert!(subject.pass(Duration::ZERO).receivers(Kind::Found).is_empty());
}

/// G3: when all agree in one round, the certificate is written, and only then the view starts.
#[test]
fn a_group_is_founded_when_all_agree_and_the_disk_knows() {
    let (mut subject, nonce) = founder();
    subject.hear_uncertified(1, Message::FoundOk(FoundOk { nonce }));
    let outputs = subject.hear_uncertified(2, Message::FoundOk(FoundOk { nonce }));
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    let written = batch.superblock.as_ref().and_then(|it| it.certificate.clone());
    assert_eq!(written, Some(certificate(3)));
    assert_eq!(subject.status().status, StatusKind::Blank);
    let outputs = subject.persisted();
    assert!(outputs.events().contains(&&Event::GroupJoined { founded: true }));
}

/// G3: who agreed to an earlier question has not agreed to this one.
#[test]
fn an_agreement_with_another_nonce_does_not_count() {
    let (mut subject, nonce) = founder();
    for from in [1, 2] {
        let agreed = FoundOk { nonce: Nonce(nonce.0 ^ 1) };
        assert!(subject.hear_uncertified(from, Message::FoundOk(agreed)).batches().is_empty());
    }
    assert_eq!(subject.status().status, StatusKind::Blank);
}

/// G3: one who agrees twice is one.
#[test]
fn one_who_agrees_twice_is_one() {
    let (mut subject, nonce) = founder();
    for _ in 0..2 {
        let outputs = subject.hear_uncertified(1, Message::FoundOk(FoundOk { nonce }));
        assert!(outputs.batches().is_empty());
    }
}

/// G2: a second round that nobody completes falls back to the first.
#[test]
fn a_round_that_is_not_completed_begins_anew() {
    let (mut subject, nonce) = founder();
    subject.hear_uncertified(1, Message::FoundOk(FoundOk { nonce }));
    let outputs = subject.pass(Duration::from_secs(20));
    assert!(!outputs.receivers(Kind::Hello).is_empty());
    let late = subject.hear_uncertified(2, Message::FoundOk(FoundOk { nonce }));
    assert!(late.batches().is_empty());
}

/// G2: a blank replica agrees if the founder knows the disk that it has.
#[test]
fn a_blank_replica_agrees_on_its_own_disk_only() {
    let (mut subject, _) = blank(1);
    let mut disks = certificate(3).disks;
    let found = Message::Found(Found { nonce: Nonce(3), disks: disks.clone() });
    assert_eq!(subject.hear_uncertified(0, found).receivers(Kind::FoundOk), [0]);
    disks[1].1 = DiskId(9);
    let found = Message::Found(Found { nonce: Nonce(3), disks });
    assert!(subject.hear_uncertified(0, found).receivers(Kind::FoundOk).is_empty());
}

/// G2: nobody but the founder is agreed with.
#[test]
fn a_blank_replica_agrees_with_the_founder_only() {
    let (mut subject, _) = blank(1);
    let found = Message::Found(Found { nonce: Nonce(3), disks: certificate(3).disks });
    assert!(subject.hear_uncertified(2, found).receivers(Kind::FoundOk).is_empty());
}

/// G2: a replica of another durability mode is no member, and that is told.
#[test]
fn a_replica_of_another_mode_founds_no_group() {
    let (mut subject, nonce) = blank(0);
    subject.hear_uncertified(1, told(Some(nonce), 1, None));
    let (disk, durability) = (disk(2), Durability::ViewOnly);
    let answer = HelloOk { nonce: Some(nonce), disk, certificate: None, durability };
    let mut outputs = subject.hear_uncertified(2, Message::HelloOk(answer));
    outputs.0.extend(subject.pass(Duration::ZERO).0);
    assert!(outputs.receivers(Kind::Found).is_empty());
    let event = Event::ModeDiffers { peer: ReplicaId(2), theirs: durability };
    assert!(outputs.events().contains(&&event));
    let hello = Hello { nonce, durability };
    let outputs = subject.hear_uncertified(2, Message::Hello(hello));
    assert!(outputs.receivers(Kind::HelloOk).is_empty());
}

/// G2: without disks a group that is lost looks like one that never was: it is founded when the
/// configuration says so, and only then.
#[test]
fn a_group_without_disks_is_founded_only_when_told_to() {
    let (mut subject, _) = Subject::start_on(Durability::Diskless, 0, |_| {});
    let asked = subject.pass(Duration::ZERO);
    assert_eq!(asked.receivers(Kind::Hello), [1, 2]);
    assert!(subject.answer_hellos(asked).receivers(Kind::Found).is_empty());
    let founder = Subject::primary_in(Durability::Diskless, |_| {}, 3);
    assert_eq!(founder.status().status, StatusKind::Normal);
}

/// G2: whoever belongs to a group agrees to no other.
#[test]
fn a_member_agrees_to_no_founding() {
    let mut subject = Subject::backup(3);
    let found = Message::Found(Found { nonce: Nonce(3), disks: certificate(3).disks });
    assert!(subject.hear_uncertified(0, found).receivers(Kind::FoundOk).is_empty());
}

/// G2: everyone answers a question, with the certificate if there is one.
#[test]
fn a_member_tells_its_certificate() {
    let mut subject = Subject::backup(3);
    let outputs = subject.hear_uncertified(
        2,
        Message::Hello(Hello { nonce: Nonce(3), durability: Durability::Full }),
    );
    let told = picked!(outputs, Message::HelloOk(m) => m.clone());
    let (nonce, certificate) = (Some(Nonce(3)), Some(certificate(3)));
    assert_eq!(told, [HelloOk { nonce, disk: disk(1), certificate, durability: Durability::Full }]);
}

/// G4: a certificate that names one's own disk, in answer to one's own question, is adopted.
#[test]
fn a_certificate_of_the_own_disk_is_adopted_when_durable() {
    let (mut subject, nonce) = blank(1);
    subject.hear(0, 0, told(Some(nonce), 0, Some(certificate(3))));
    assert_eq!(subject.status().status, StatusKind::Blank);
    let outputs = subject.persisted();
    assert!(outputs.events().contains(&&Event::GroupJoined { founded: false }));
    let status = subject.status();
    assert_eq!((status.status, status.op_number), (StatusKind::Normal, OpNumber(0)));
}

/// G4, G7: a certificate that nobody asked for is not adopted.
#[test]
fn a_certificate_is_not_adopted_unasked() {
    let (mut subject, nonce) = blank(1);
    for stray in [None, Some(Nonce(nonce.0 ^ 1))] {
        let outputs = subject.hear(0, 0, told(stray, 0, Some(certificate(3))));
        assert!(outputs.batches().is_empty());
    }
}

/// G5: a certificate of another disk keeps a wiped replica blank, and it says so once.
#[test]
fn a_wiped_disk_stays_blank_and_says_so() {
    let (mut subject, nonce) = blank(1);
    let mut foreign = certificate(3);
    foreign.disks[1].1 = DiskId(9);
    let outputs = subject.hear(0, 0, told(Some(nonce), 0, Some(foreign)));
    assert!(outputs.batches().is_empty());
    let event = Event::DiskNotInCertificate { told_by: ReplicaId(0), disk: disk(1) };
    assert_eq!(outputs.events(), [&event]);
    assert_eq!(subject.status().foreign_certificate, Some(ReplicaId(0)));
}

/// G7: a message with another certificate is answered with one's own and not processed.
#[test]
fn another_certificate_is_answered_and_not_processed() {
    let mut subject = Subject::backup(3);
    let outputs = subject.hear_uncertified(0, prepare(&log(1), committed(&[], 0)));
    assert_eq!(outputs.receivers(Kind::HelloOk), [0]);
    assert_eq!(subject.status().op_number, OpNumber(0));
    assert_ne!(certificate(3).to_hash(), CertificateHash::NONE);
}

/// G3: a group of one founds itself.
#[test]
fn a_group_of_one_founds_itself() {
    let subject = Subject::primary(1);
    assert_eq!(subject.status().status, StatusKind::Normal);
}
