//! Coming back without a log, and without anything (docs/PROTOCOL.md, Recovery; G5 and G6).

use core::time::Duration;

use vr_core::{
    model::{
        certificate::{Certificate, CrashVector},
        durable::{CheckpointId, Durability, Superblock, Trust},
        founding::{Hello, HelloOk},
        kind::Kind,
        message::{
            CrashVectorIs, DoViewChange, Envelope, GetCrashVector, Message, Recovery,
            RecoveryResponse, StartView, StatusKind, Suspicion,
        },
        types::{DiskId, Incarnation, Nonce, OpNumber, ReplicaId, View},
    },
    replica::io::Fatal,
    state::rebuild::Reformatting,
};

use crate::{
    outputs::{Outputs, picked},
    subject::{
        Subject, certificate, commit, committed, disk, head, log, next_primary, prepare, promise,
        vote,
    },
};

const R2: ReplicaId = ReplicaId(2);

/// Replica `me` of three in `ViewOnly`, back with this promise and log view, and its question.
fn lost(me: u64, view: u64, log_view: u64) -> (Subject, Recovery) {
    let (mut subject, mut outputs) = Subject::start_on(Durability::ViewOnly, me, |superblock| {
        superblock.view = View(view);
        superblock.log_view = View(log_view);
    });
    outputs.0.extend(subject.pass(Duration::ZERO).0);
    let asked = question(&outputs);
    assert_eq!(subject.status().status, StatusKind::Recovering);
    (subject, asked)
}

fn question(outputs: &Outputs) -> Recovery {
    let asked = picked!(outputs, Message::Recovery(m) => m.clone());
    asked.into_iter().next().expect("a question left")
}

/// The start of `view` with an empty log.
fn start(view: u64) -> StartView {
    StartView {
        view: View(view),
        op_number: OpNumber::ZERO,
        head: head(&[]),
        commit_number: OpNumber::ZERO,
        checkpoint: CheckpointId::default(),
        suffix: Vec::new(),
        nonce: None,
    }
}

fn answer(nonce: Nonce, start: Option<StartView>) -> Message {
    Message::RecoveryResponse(RecoveryResponse { nonce, start })
}

fn asks(view: u64, primary_restarted: bool) -> Message {
    let (nonce, view, log_view) = (Nonce(9), View(view), View::ZERO);
    Message::Recovery(Recovery { nonce, view, log_view, primary_restarted })
}

/// Without its log: a replica without its log asks everybody, under one nonce, and acknowledges
/// nothing.
#[test]
fn a_replica_without_its_log_asks_everybody() {
    let (mut subject, _) = lost(1, 0, 0);
    let outputs = subject.pass(Duration::from_millis(60));
    assert_eq!(outputs.receivers(Kind::Recovery), [0, 2]);
    let outputs = subject.hear(0, 0, prepare(&log(1), committed(&[], 0)));
    assert!(outputs.acknowledged().is_empty() && outputs.batches().is_empty());
}

/// R1: one answer of the normal primary, to this question, is enough.
#[test]
fn the_answer_of_the_primary_brings_the_log_back() {
    let (mut subject, asked) = lost(1, 0, 0);
    subject.hear(0, 0, answer(asked.nonce, Some(start(0))));
    subject.persisted();
    let status = subject.status();
    assert_eq!((status.status, status.trust), (StatusKind::Normal, Trust::Intact));
}

/// R1: neither an answer to another question counts, nor one of a backup.
#[test]
fn an_answer_of_another_life_or_of_a_backup_brings_nothing() {
    let (mut subject, asked) = lost(1, 0, 0);
    subject.hear(0, 0, answer(Nonce(asked.nonce.0 ^ 1), Some(start(0))));
    subject.hear(2, 0, answer(asked.nonce, None));
    subject.hear(2, 0, answer(asked.nonce, Some(start(0))));
    subject.persisted();
    assert_eq!(subject.status().status, StatusKind::Recovering);
}

/// R1: a view below the promise is over for this replica.
#[test]
fn an_answer_of_a_view_below_the_promise_brings_nothing() {
    let (mut subject, asked) = lost(1, 1, 0);
    subject.hear(0, 0, answer(asked.nonce, Some(start(0))));
    subject.persisted();
    let status = subject.status();
    assert_eq!((status.status, status.view), (StatusKind::Recovering, View(1)));
}

/// R2, D13: the start of the very view whose log was lost may be a late copy; that of a later view
/// has everything.
#[test]
fn only_the_start_of_a_later_view_brings_the_log_back() {
    let (mut subject, _) = lost(2, 1, 1);
    subject.hear(1, 1, Message::StartView(start(1)));
    subject.persisted();
    assert_eq!(subject.status().status, StatusKind::Recovering);
    subject.hear(0, 3, Message::StartView(start(3)));
    subject.persisted();
    subject.persisted();
    let status = subject.status();
    assert_eq!((status.status, status.log_view), (StatusKind::Normal, View(3)));
}

/// R3, D12: it promises a view that is being formed, durably and as one that has lost the log of
/// the view that its superblock names.
#[test]
fn a_replica_without_its_log_votes_as_lost() {
    let (mut subject, _) = lost(2, 1, 1);
    let promised = promise(4, 1, &[], 0);
    let early = subject.hear(1, 4, Message::DoViewChange(promised));
    assert!(early.receivers(Kind::DoViewChange).is_empty(), "the promise is not durable yet");
    let outputs = subject.persisted();
    let votes = picked!(outputs, Message::DoViewChange(m) => (m.view, m.log_view, m.trust));
    assert_eq!(votes.first(), Some(&(View(4), View(1), Trust::Lost)));
    assert_eq!(subject.status().status, StatusKind::Recovering);
}

/// R3: a quorum of votes to leave its view is a view change that is going on.
#[test]
fn a_quorum_of_votes_makes_a_replica_without_its_log_promise() {
    let (mut subject, _) = lost(2, 1, 1);
    for voter in [0, 1] {
        subject.hear(voter, 1, vote(1));
    }
    let outputs = subject.persisted();
    let votes = picked!(outputs, Message::DoViewChange(m) => (m.log_view, m.trust));
    assert_eq!(votes, [(View(1), Trust::Lost); 2]);
    assert!(subject.status().view > View(1));
}

/// R3: it may vote to leave its view itself, when nobody answered for a view-change timeout.
#[test]
fn a_replica_without_its_log_waits_before_it_votes() {
    let (mut subject, _) = lost(2, 1, 1);
    let outputs = subject.pass(Duration::from_millis(290));
    assert!(outputs.receivers(Kind::StartViewChange).is_empty());
    let outputs = subject.pass(Duration::from_millis(50));
    let reasons = picked!(outputs, Message::StartViewChange(m) => m.reason);
    assert_eq!(reasons.first(), Some(&Suspicion::Recovering));
}

/// Without its log, D12: a replica without its log leads nothing, whoever promises to follow it.
#[test]
fn a_replica_without_its_log_starts_no_view() {
    let (mut subject, _) = lost(1, 0, 0);
    for other in [0, 2] {
        subject.hear(other, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    }
    let mut outputs = subject.persisted();
    outputs.0.extend(subject.persisted().0);
    assert!(outputs.receivers(Kind::StartView).is_empty());
    let status = subject.status();
    assert_eq!((status.status, status.log_view), (StatusKind::Recovering, View(0)));
}

/// NP1 without a log on disk: a log that is back is acknowledged as entries come, without a write.
#[test]
fn a_backup_with_its_log_in_memory_acknowledges_at_once() {
    let (mut subject, asked) = lost(1, 0, 0);
    subject.hear(0, 0, answer(asked.nonce, Some(start(0))));
    subject.persisted();
    let outputs = subject.hear(0, 0, prepare(&log(1), committed(&[], 0)));
    assert_eq!((outputs.acknowledged(), outputs.batches().len()), (vec![1], 0));
}

/// `NP4b`: what is left of a log that the superblock calls lost makes room, and is no evidence.
#[test]
fn what_is_left_of_a_lost_log_is_no_evidence() {
    let (subject, outputs) = Subject::start_without_evidence(&log(2), |superblock| {
        superblock.certificate = Some(certificate(3));
        superblock.trust = Trust::Lost;
    });
    assert_eq!(outputs.batches().first().and_then(|batch| batch.cut), Some(OpNumber(0)));
    let status = subject.status();
    assert_eq!((status.status, status.op_number), (StatusKind::Recovering, OpNumber(0)));
}

/// R3, the conditions of 1988, D12: a vote that lost the log of the latest view completes no
/// quorum.
#[test]
fn a_lost_vote_of_the_latest_view_starts_nothing() {
    let mut subject = next_primary(&log(1));
    let lost = DoViewChange { trust: Trust::Lost, ..promise(1, 0, &[], 0) };
    let outputs = subject.hear(2, 1, Message::DoViewChange(lost));
    assert!(outputs.batches().is_empty());
    subject.hear(0, 1, Message::DoViewChange(promise(1, 0, &log(1), 0)));
    subject.persisted();
    assert_eq!(subject.status().log_view, View(1));
}

/// The rejoin bump: whoever promised more than the view is taken along to a later one.
#[test]
fn the_primary_leaves_its_view_for_one_that_promised_more() {
    let mut subject = Subject::primary(3);
    let outputs = subject.hear(2, 1, asks(1, false));
    assert!(outputs.receivers(Kind::RecoveryResponse).is_empty());
    assert_eq!(subject.status().view, View(3), "the next view of which it is primary");
}

/// Without its log, D15: a primary that restarted says so, and its backups wait for nothing.
#[test]
fn a_restarted_primary_is_voted_against_at_once() {
    let (_, asked) = lost(0, 0, 0);
    assert!(asked.primary_restarted);
    let mut subject = Subject::backup(3);
    let outputs = subject.hear(0, 0, asks(0, true));
    assert_eq!(outputs.receivers(Kind::StartViewChange), [0, 2]);
}

/// VRR section 4.3 step 2: a backup answers without the log, which it cannot vouch for.
#[test]
fn a_backup_answers_without_a_log() {
    let mut subject = Subject::backup(3);
    let outputs = subject.hear(2, 0, asks(0, false));
    let starts = picked!(outputs, Message::RecoveryResponse(m) => m.start.is_some());
    assert_eq!(starts, [false]);
}

/// The crash vector of one that knows the incarnation `lives` of replica 2.
fn knowing(lives: u64) -> CrashVector {
    let mut crash_vector = CrashVector::default();
    crash_vector.learn(R2, Incarnation(lives));
    crash_vector
}

/// In its second life since it forgot everything.
fn reborn(envelope: &mut Envelope) {
    envelope.incarnation = Incarnation(1);
    envelope.crash_vector = knowing(1);
}

/// NP8: the new incarnation is durable before the answer leaves, and the answer carries it.
#[test]
fn an_incarnation_is_durable_before_it_is_answered() {
    for durability in [Durability::Full, Durability::ViewOnly] {
        let (mut subject, _) = Subject::start_on(durability, 1, |_| {});
        if durability == Durability::ViewOnly {
            (subject, _) = lost(1, 0, 0);
            let nonce = question(&subject.pass(Duration::from_millis(60))).nonce;
            subject.hear(0, 0, answer(nonce, Some(start(0))));
            subject.persisted();
        }
        let early = subject.hear_as(2, 0, asks(0, false), reborn);
        assert!(early.receivers(Kind::RecoveryResponse).is_empty());
        let batches = early.batches();
        let mut written = batches.iter().filter_map(|batch| batch.superblock.as_ref());
        assert_eq!(
            written.next_back().map(|block| block.crash_vector.of(R2)),
            Some(Incarnation(1))
        );
        subject.persisted();
        let outputs = subject.hear_as(2, 0, asks(0, false), reborn);
        assert_eq!(outputs.receivers(Kind::RecoveryResponse), [2]);
    }
}

/// NP8: a restart that forgets nothing keeps incarnation and crash vector, and bumps neither.
#[test]
fn a_restart_keeps_the_incarnation() {
    let (_, outputs) = Subject::start_on(Durability::Full, 2, |superblock| {
        superblock.incarnation = Incarnation(1);
        superblock.crash_vector = knowing(1);
    });
    let said: Vec<_> = outputs.envelopes().iter().map(|it| it.incarnation).collect();
    assert_eq!(said, [Incarnation(1)]);
    assert_eq!(outputs.envelopes()[0].crash_vector, knowing(1));
}

/// NP8: what was learnt of the others' incarnations is told when a crash could not take it back.
#[test]
fn a_crash_vector_is_told_when_it_is_durable() {
    let mut subject = Subject::backup(3);
    let sign = commit(committed(&[], 0), 1, 0);
    let told = |outputs: &Outputs| outputs.envelopes()[0].crash_vector.of(R2);
    let early = subject.hear_as(0, 0, sign, |envelope| envelope.crash_vector = knowing(1));
    assert_eq!(told(&early), Incarnation(0));
    subject.persisted();
    let sign = commit(committed(&[], 0), 2, 0);
    assert_eq!(told(&subject.hear(0, 0, sign)), Incarnation(1));
}

/// G7: who asks for its own incarnation does not know it, and is answered all the same.
#[test]
fn the_question_for_an_incarnation_passes_its_gate() {
    let (mut subject, _) =
        Subject::start_on(Durability::Full, 1, |block| block.crash_vector = knowing(1));
    let hello = Message::Hello(Hello { nonce: Nonce(3), durability: Durability::Full });
    assert_eq!(subject.hear_uncertified(2, hello).receivers(Kind::HelloOk), [2]);
    let question = Message::GetCrashVector(GetCrashVector { nonce: Nonce(4) });
    let outputs = subject.hear(2, 0, question);
    assert_eq!(outputs.receivers(Kind::CrashVectorIs), [2]);
    assert_eq!(outputs.envelopes()[0].crash_vector, knowing(1));
}

/// D2: what an earlier life promised is not processed.
#[test]
fn a_promise_of_an_earlier_life_is_ignored() {
    let mut subject = Subject::backup(3);
    let sign = prepare(&[], committed(&[], 0));
    subject.hear_as(0, 0, sign, |envelope| envelope.crash_vector = knowing(1));
    subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    assert_eq!(subject.status().view, View(0));
    subject.hear_as(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)), reborn);
    assert_eq!(subject.status().view, View(1));
}

/// D2: who is told of a later life of its own has an old disk, formats it and stops.
#[test]
fn a_disk_of_an_earlier_life_is_formatted() {
    let (mut subject, _) = Subject::start_on(Durability::Full, 2, |_| {});
    let sign = prepare(&[], committed(&[], 0));
    let outputs = subject.hear_as(0, 0, sign, |envelope| envelope.crash_vector = knowing(1));
    assert!(blank_disk(&outputs).is_some_and(|formatted| formatted != disk(2)));
    let reason = Reformatting::EarlierLife { told_by: ReplicaId(0) };
    assert_eq!(subject.persisted().fatal(), Some(&Fatal::Reformatted { reason }));
}

/// The disk in the superblock without a certificate that is written.
fn blank_disk(outputs: &Outputs) -> Option<DiskId> {
    let batches = outputs.batches();
    let mut written = batches.iter().filter_map(|batch| batch.superblock.as_ref());
    written.find(|block| block.certificate.is_none()).map(|block| block.disk)
}

/// The certificate of a founding in which replica 2 had another disk than it has.
fn older() -> Certificate {
    let disks = [(0, disk(0)), (1, disk(1)), (2, DiskId(9))];
    let disks = disks.map(|(id, disk)| (ReplicaId(id), disk)).to_vec();
    Certificate { disks, ..certificate(3) }
}

/// Replica 2 of three on a new disk, and the nonce of its first question.
fn wiped() -> (Subject, Nonce) {
    let (mut subject, _) = Subject::start_blank(3, 2);
    let outputs = subject.pass(Duration::ZERO);
    let nonce = picked!(outputs, Message::Hello(m) => m.nonce);
    (subject, *nonce.first().expect("a question left"))
}

fn tell(subject: &mut Subject, from: u64, nonce: Nonce, certificate: Certificate) -> Outputs {
    let hash = certificate.to_hash();
    let told = Message::HelloOk(HelloOk {
        nonce: Some(nonce),
        disk: disk(from),
        certificate: Some(certificate),
        durability: Durability::Full,
    });
    subject.hear_as(from, 0, told, |envelope| envelope.certificate = hash)
}

/// An answer to one that forgot everything, from one that knows of `lives` losses.
fn help(subject: &mut Subject, from: u64, view: u64, lives: u64, message: Message) -> Outputs {
    subject.hear_as(from, view, message, |envelope| {
        envelope.certificate = older().to_hash();
        envelope.crash_vector = knowing(lives);
    })
}

/// G5: a wiped disk is known to be one when a quorum of others tell the same certificate.
#[test]
fn a_wiped_replica_believes_a_quorum_of_others() {
    let (mut subject, nonce) = wiped();
    let outputs = tell(&mut subject, 0, nonce, older());
    assert!(outputs.receivers(Kind::GetCrashVector).is_empty());
    let outputs = tell(&mut subject, 1, nonce, older());
    assert_eq!(outputs.receivers(Kind::GetCrashVector), [0, 1]);
    assert!(subject.status().rebuilding);
}

/// P1: an answer to another question does not count.
#[test]
fn an_incarnation_is_not_taken_from_an_old_answer() {
    let (mut subject, nonce) = wiped();
    tell(&mut subject, 0, nonce, older());
    let asked = tell(&mut subject, 1, nonce, older());
    let nonces = picked!(asked, Message::GetCrashVector(m) => m.nonce);
    let other = Nonce(nonces[0].0 ^ 1);
    for from in [0, 1] {
        let told = Message::CrashVectorIs(CrashVectorIs { nonce: other });
        assert!(help(&mut subject, from, 0, 0, told).receivers(Kind::Recovery).is_empty());
    }
}

/// G4: a certificate that names its disk is adopted also by one that took itself for wiped.
#[test]
fn a_certificate_of_the_own_disk_ends_the_way_back() {
    let (mut subject, nonce) = wiped();
    tell(&mut subject, 0, nonce, older());
    tell(&mut subject, 1, nonce, older());
    assert!(subject.status().rebuilding);
    tell(&mut subject, 0, nonce, certificate(3));
    subject.persisted();
    let status = subject.status();
    assert_eq!((status.status, status.incarnation), (StatusKind::Normal, Incarnation(0)));
}

/// G5: a log without the certificate that would make it count makes room for the one to come.
#[test]
fn a_log_without_a_certificate_is_no_evidence() {
    let (mut subject, mut outputs) = Subject::start_without_evidence(&log(2), |_| {});
    outputs.0.extend(subject.pass(Duration::ZERO).0);
    assert_eq!(outputs.batches().first().and_then(|batch| batch.cut), Some(OpNumber(0)));
    assert_eq!(outputs.receivers(Kind::Hello), [0, 1]);
    let status = subject.status();
    assert_eq!((status.status, status.op_number), (StatusKind::Blank, OpNumber(0)));
}

/// Replica 2 after P1, in which replica 1 knew of one loss before; its question.
fn in_second_step() -> (Subject, Outputs) {
    let (mut subject, nonce) = wiped();
    tell(&mut subject, 0, nonce, older());
    let asked = tell(&mut subject, 1, nonce, older());
    let nonces = picked!(asked, Message::GetCrashVector(m) => m.nonce);
    let nonce = *nonces.first().expect("a question left");
    let told = || Message::CrashVectorIs(CrashVectorIs { nonce });
    let early = help(&mut subject, 0, 0, 0, told());
    assert!(early.receivers(Kind::Recovery).is_empty(), "one answer is no quorum");
    let outputs = help(&mut subject, 1, 0, 1, told());
    (subject, outputs)
}

/// P1: the new incarnation follows the highest that a quorum of others knows.
#[test]
fn the_next_incarnation_follows_what_a_quorum_knows() {
    let (_, outputs) = in_second_step();
    assert_eq!(outputs.receivers(Kind::Recovery), [0, 1]);
    let mut envelopes = outputs.envelopes().into_iter();
    assert!(envelopes.all(|it| it.incarnation == Incarnation(2) && it.view == View(0)));
}

/// P2: the primary alone is not believed, nor who does not know the new incarnation.
#[test]
fn a_primary_alone_brings_nothing_back() {
    let (mut subject, outputs) = in_second_step();
    let nonce = question(&outputs).nonce;
    let outputs = help(&mut subject, 0, 3, 2, answer(nonce, Some(start(3))));
    assert!(outputs.batches().is_empty());
    let outputs = help(&mut subject, 1, 3, 1, answer(nonce, None));
    assert!(outputs.batches().is_empty());
}

/// P2: who gets no answer that is enough asks again, as the same incarnation and under another nonce,
/// and answers to the old question do not count.
#[test]
fn the_second_step_is_repeated_under_another_nonce() {
    let (mut subject, outputs) = in_second_step();
    let old = question(&outputs).nonce;
    help(&mut subject, 1, 3, 2, answer(old, None));
    let outputs = subject.pass(Duration::from_millis(200));
    assert_ne!(question(&outputs).nonce, old);
    assert!(outputs.envelopes().iter().all(|envelope| {
        envelope.message.kind() != Kind::Recovery || envelope.incarnation == Incarnation(2)
    }));
    let mut outputs = help(&mut subject, 1, 3, 2, answer(old, None));
    outputs.0.extend(help(&mut subject, 0, 3, 2, answer(old, Some(start(3)))).0);
    assert!(outputs.batches().is_empty());
}

/// P2: with a quorum of others, the primary of the highest view among them, everything becomes
/// durable in one superblock.
#[test]
fn a_quorum_of_others_brings_everything_back() {
    let (mut subject, outputs) = in_second_step();
    let nonce = question(&outputs).nonce;
    help(&mut subject, 1, 3, 2, answer(nonce, None));
    let outputs = help(&mut subject, 0, 3, 2, answer(nonce, Some(start(3))));
    let written: Vec<Superblock> =
        outputs.batches().iter().filter_map(|batch| batch.superblock.clone()).collect();
    let [block] = written.as_slice() else { panic!("one superblock, not {}", written.len()) };
    assert_eq!(block.certificate, Some(older()));
    assert_eq!((block.view, block.log_view, block.trust), (View(3), View(3), Trust::Intact));
    assert_eq!((block.incarnation, block.crash_vector.of(R2)), (Incarnation(2), Incarnation(2)));
    subject.persisted();
    assert_eq!(subject.status().view, View(3));
}

/// G6: a member that meets another certificate asks everybody, and gives its own up when a quorum
/// of distinct others tell one and the same other.
#[test]
fn a_member_of_a_founding_that_lost_formats_its_disk() {
    let (mut subject, _) = Subject::start_on(Durability::Full, 1, |_| {});
    let sign = prepare(&[], committed(&[], 0));
    let foreign = older().to_hash();
    let outputs = subject.hear_as(0, 0, sign, |envelope| envelope.certificate = foreign);
    let nonces = picked!(outputs, Message::Hello(m) => m.nonce);
    let nonce = *nonces.first().expect("a question left");
    let outputs = tell(&mut subject, 0, nonce, older());
    let again = tell(&mut subject, 0, nonce, older());
    assert!(blank_disk(&outputs).is_none() && blank_disk(&again).is_none());
    let another = Certificate { group_name: "another".into(), ..older() };
    assert!(blank_disk(&tell(&mut subject, 2, nonce, another)).is_none(), "not one and the same");
    let outputs = tell(&mut subject, 2, nonce, older());
    assert!(blank_disk(&outputs).is_some_and(|formatted| formatted != disk(1)));
    let reason = Reformatting::OtherCertificate { told_by: R2 };
    assert_eq!(subject.persisted().fatal(), Some(&Fatal::Reformatted { reason }));
}
