//! The view change: the choice of the log and its installation (VRR section 4.2).

use core::time::Duration;

use vr_core::{
    model::{
        durable::CheckpointId,
        entries::{Entries, Wanted},
        entry::Entry,
        kind::Kind,
        message::{
            DoViewChange, GetView, Message, Ping, StartView, StartViewChange, StatusKind, Suspicion,
        },
        types::{Nonce, OpNumber, ReplicaId, RequestId, View},
    },
    replica::io::Fatal,
};

use crate::{
    outputs::{Outputs, picked},
    subject::{
        Disk, Subject, acknowledge, committed, extended, head, headers, log, next_primary, prepare,
        promise, register, standing, vote,
    },
};

pub(crate) fn start_view(view: u64, log: &[Entry], commit: u64) -> Message {
    Message::StartView(StartView {
        view: View(view),
        op_number: OpNumber(u64::try_from(log.len()).unwrap_or(0)),
        head: head(log),
        commit_number: OpNumber(commit),
        checkpoint: CheckpointId::default(),
        suffix: headers(log),
        nonce: None,
    })
}

pub(crate) fn promises(outputs: &Outputs) -> Vec<DoViewChange> {
    picked!(outputs, Message::DoViewChange(m) => m.clone())
}

/// Hands over the entries of `log` that `outputs` asks for by checksum.
pub(crate) fn answer(
    subject: &mut Subject,
    view: u64,
    outputs: &Outputs,
    log: &[Entry],
) -> Outputs {
    let mut answered = Outputs::default();
    for (to, message) in outputs.sent() {
        let Message::GetEntries(m) = message else { continue };
        let Wanted::Exact(wanted) = m.wanted else { continue };
        let places = wanted.iter().map(|(op_number, _)| *op_number);
        let entries = log.iter().filter(|e| places.clone().any(|op| op == e.header.op_number));
        let answer = Entries { request: m.request, entries: entries.cloned().collect() };
        answered.0.extend(subject.hear(to.0, view, Message::Entries(answer)).0);
    }
    answered
}

/// Step 3: fewer promises than a quorum start nothing.
#[test]
fn one_promise_of_three_starts_nothing() {
    let subject = next_primary(&[]);
    assert_eq!(subject.status().status, StatusKind::ViewChange);
}

/// Step 3: the quorum includes the new primary, whose own log counts like the others'.
#[test]
fn a_primary_counts_its_own_promise_among_the_quorum() {
    let mut subject = Subject::backup(3);
    subject.hear(0, 0, prepare(&log(2), committed(&[], 0)));
    subject.persisted();
    for other in [0, 2] {
        subject.hear(other, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    }
    subject.persisted();
    subject.persisted();
    let status = subject.status();
    assert_eq!((status.log_view, status.op_number), (View(1), OpNumber(2)));
}

/// Step 3: a promise to a view that was left is answered with where this replica is; by the primary
/// of a later view with its log.
#[test]
fn a_promise_to_an_earlier_view_is_answered() {
    let mut subject = next_primary(&[]);
    let late = || Message::DoViewChange(promise(0, 0, &[], 0));
    assert_eq!(subject.hear(2, 0, late()).receivers(Kind::Ping), [2]);
    subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    subject.persisted();
    assert_eq!(subject.hear(2, 0, late()).receivers(Kind::StartView), [2]);
}

/// Step 3: a promise to another view is not counted.
#[test]
fn a_promise_to_an_earlier_view_is_not_counted() {
    let mut subject = next_primary(&[]);
    subject.hear(2, 0, Message::DoViewChange(promise(0, 0, &[], 0)));
    assert_eq!(subject.status().status, StatusKind::ViewChange);
}

/// Step 5 and NP3, D7: StartView leaves when log and log view are durable, not before.
#[test]
fn a_view_starts_when_its_log_is_durable() {
    let mut subject = next_primary(&log(1));
    let outputs = subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    assert!(outputs.receivers(Kind::StartView).is_empty());
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    assert_eq!(batch.superblock.as_ref().map(|it| it.log_view), Some(View(1)));
    let outputs = subject.persisted();
    assert_eq!(outputs.receivers(Kind::StartView), [0, 2]);
    assert_eq!(subject.status().status, StatusKind::Normal);
}

/// Step 3: among logs of one view the longest is chosen.
#[test]
fn the_longest_log_of_a_view_is_chosen() {
    let entries = log(3);
    let mut subject = next_primary(&entries[..1]);
    let promise = Message::DoViewChange(promise(1, 0, &entries, 0));
    let outputs = subject.hear(2, 1, promise);
    answer(&mut subject, 1, &outputs, &entries);
    subject.persisted();
    assert_eq!(subject.status().op_number, OpNumber(3));
}

/// Step 3, D5: a later log view beats a longer log; the view of the last entry means nothing.
#[test]
fn a_later_log_view_beats_a_longer_log() {
    let old = log(4);
    let new = extended(&log(1), 3, 1, 3);
    let disk = Disk { view: 3, log_view: 0, log: old };
    let (mut subject, _) = Subject::start(3, 1, disk);
    subject.hear(2, 4, Message::DoViewChange(promise(4, 3, &new, 0)));
    let outputs = subject.persisted();
    let outputs =
        Outputs(outputs.0.into_iter().chain(subject.pass(Duration::from_millis(120)).0).collect());
    answer(&mut subject, 4, &outputs, &new);
    subject.persisted();
    assert_eq!((subject.status().view, subject.status().op_number), (View(4), OpNumber(2)));
}

/// Step 3: the new commit number is the largest among the promises.
#[test]
fn the_commit_number_is_the_largest_promised() {
    let entries = log(3);
    let mut subject = next_primary(&entries);
    subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &entries[..2], 2)));
    subject.persisted();
    assert_eq!(subject.status().commit_number, OpNumber(2));
}

/// Step 3: a promise that knows more to be committed than the best log holds stops the node.
#[test]
fn a_commit_number_beyond_the_best_log_stops_the_node() {
    let mut subject = next_primary(&log(1));
    let mut impossible = promise(1, 0, &log(1), 0);
    impossible.commit_number = OpNumber(5);
    let outputs = subject.hear(2, 1, Message::DoViewChange(impossible));
    assert!(matches!(outputs.fatal(), Some(Fatal::Diverged { .. })));
}

/// Step 4, D8: bodies are fetched before anything is installed; the old log stays until then.
#[test]
fn nothing_is_installed_before_all_bodies_are_here() {
    let entries = log(3);
    let mut subject = next_primary(&entries[..1]);
    let outputs = subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &entries, 0)));
    assert_eq!((outputs.receivers(Kind::GetEntries), outputs.batches().len()), (vec![2], 0));
    assert_eq!(subject.status().op_number, OpNumber(1));
    let outputs = answer(&mut subject, 1, &outputs, &entries);
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    assert_eq!((batch.cut, batch.entries().count()), (None, 2));
}

/// Step 4: whoever offered the log first may be gone; the bodies come from anyone.
#[test]
fn bodies_are_asked_of_another_when_nobody_answers() {
    let entries = log(3);
    let mut subject = next_primary(&entries[..1]);
    subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &entries, 0)));
    let outputs = subject.pass(Duration::from_millis(150));
    assert!(outputs.receivers(Kind::GetEntries).contains(&0));
}

/// Step 4, D24: when nobody who is left holds the bodies, the view is not waited for: the one who
/// promised them is gone, and a view without its promise does without them.
#[test]
fn a_view_whose_bodies_nobody_holds_is_voted_against() {
    let mut subject = next_primary(&log(1));
    let outputs = subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &log(3), 0)));
    let first = answer(&mut subject, 1, &outputs, &[]);
    assert!(first.receivers(Kind::StartViewChange).is_empty(), "replica 0 may hold them");
    let outputs = subject.pass(Duration::from_millis(120));
    let second = answer(&mut subject, 1, &outputs, &[]);
    assert_eq!(second.receivers(Kind::StartViewChange), [0, 2]);
}

/// Step 4, D32: a primary that is far behind votes for its view to be left, and goes on all the
/// same.
#[test]
fn a_primary_that_is_far_behind_asks_to_be_passed_over() {
    let limit = |config: &mut vr_core::model::config::Config| config.pipeline_ops_max = 1;
    let (mut subject, _) = Subject::start_with(limit, 3, 1, Disk::default());
    let promise = Message::DoViewChange(promise(1, 0, &log(3), 0));
    subject.hear(2, 1, promise.clone());
    let outputs = subject.persisted();
    let reasons = picked!(outputs, Message::StartViewChange(m) => m.reason);
    assert_eq!(reasons, [Suspicion::Behind; 2]);
    assert_eq!(outputs.receivers(Kind::GetEntries), [2]);
    assert!(subject.hear(2, 1, promise).receivers(Kind::StartViewChange).is_empty(), "once");
}

/// Step 4: whoever promised joins a primary that asks to be passed over, and no other vote.
#[test]
fn a_primary_that_asks_to_be_passed_over_is() {
    let disk = Disk { view: 1, log_view: 0, log: Vec::new() };
    let (mut subject, _) = Subject::start(3, 2, disk);
    subject.hear(1, 1, vote(1));
    assert_eq!(subject.status().view, View(1));
    let standing = standing(StatusKind::ViewChange, 0, 0);
    let behind = StartViewChange { view: View(1), reason: Suspicion::Behind, standing };
    let outputs = subject.hear(1, 1, Message::StartViewChange(behind));
    assert_eq!(outputs.receivers(Kind::StartViewChange), [0, 1]);
    assert_eq!(subject.status().view, View(2));
}

/// Step 4, D9: headers that the promise did not carry are asked for downward.
#[test]
fn headers_below_the_suffix_are_asked_for() {
    let entries = log(3);
    let mut subject = next_primary(&[]);
    let short = DoViewChange { suffix: headers(&entries[2..]), ..promise(1, 0, &entries, 0) };
    let outputs = subject.hear(2, 1, Message::DoViewChange(short));
    assert_eq!(outputs.receivers(Kind::GetHeaders), [2]);
}

/// Step 4: a suffix that is not a chain is not a log.
#[test]
fn a_suffix_that_is_not_a_chain_is_ignored() {
    let mut subject = next_primary(&[]);
    let mut broken = promise(1, 0, &log(2), 0);
    broken.suffix.reverse();
    subject.hear(2, 1, Message::DoViewChange(broken));
    assert_eq!((subject.status().status, subject.status().ignored), (StatusKind::ViewChange, 1));
}

/// Step 4, D6: what conflicts is cut in the batch that carries its replacement.
#[test]
fn a_conflicting_suffix_is_replaced_in_one_batch() {
    let ours = log(3);
    let theirs = extended(&log(1), 2, 1, 3);
    let disk = Disk { view: 2, log_view: 0, log: ours };
    let (mut subject, _) = Subject::start(3, 1, disk);
    let outputs = subject.hear(2, 2, start_view(2, &theirs, 0));
    let outputs = answer(&mut subject, 2, &outputs, &theirs);
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    assert_eq!((batch.cut, batch.entries().count()), (Some(OpNumber(1)), 1));
    assert_eq!(subject.status().op_number, OpNumber(3));
    subject.persisted();
    assert_eq!(subject.status().op_number, OpNumber(2));
}

/// Step 6: a backup installs the log of StartView and acknowledges it when it is durable.
#[test]
fn a_backup_acknowledges_the_log_of_a_started_view() {
    let entries = log(2);
    let disk = Disk { view: 2, log_view: 0, log: entries[..1].to_vec() };
    let (mut subject, _) = Subject::start(3, 1, disk);
    let outputs = subject.hear(2, 2, start_view(2, &entries, 1));
    let outputs = answer(&mut subject, 2, &outputs, &entries);
    assert!(outputs.acknowledged().is_empty());
    let outputs = subject.persisted();
    assert_eq!((outputs.acknowledged(), subject.status().commit_number), (vec![2], OpNumber(1)));
    assert_eq!((subject.status().log_view, subject.status().primary), (View(2), ReplicaId(2)));
}

/// NP4: a view that was started without this replica's promise is promised first; only then is its
/// log written.
#[test]
fn a_started_view_is_promised_before_its_log_is_written() {
    let (mut backup, entries) = (Subject::backup(3), log(1));
    let outputs = backup.hear(2, 2, start_view(2, &entries, 0));
    let early = answer(&mut backup, 2, &outputs, &entries);
    let [promise] = outputs.batches()[..] else { panic!("one write") };
    let views = promise.superblock.as_ref().map(|it| (it.view, it.log_view));
    assert_eq!((promise.entries.len(), views), (0, Some((View(2), View(0)))));
    assert!(early.batches().is_empty());
    let outputs = backup.persisted();
    let [log] = outputs.batches()[..] else { panic!("one write") };
    let log_view = log.superblock.as_ref().map(|it| it.log_view);
    assert_eq!((log.entries.len(), log_view), (1, Some(View(2))));
}

/// D4: while the new log is incomplete the log view stays, and so does what is promised next.
#[test]
fn an_incomplete_log_moves_no_log_view() {
    let entries = log(3);
    let disk = Disk { view: 2, log_view: 0, log: entries[..1].to_vec() };
    let (mut subject, _) = Subject::start(3, 1, disk);
    subject.hear(2, 2, start_view(2, &entries, 3));
    subject.hear(0, 3, Message::DoViewChange(promise(3, 0, &[], 0)));
    let sent = promises(&subject.persisted());
    assert_eq!((sent[0].view, sent[0].log_view, sent[0].op_number.0), (View(3), View(0), 1));
}

/// D4: a log that is durable after its view was left still counts, in the next promise.
#[test]
fn a_log_that_became_durable_too_late_is_in_the_next_promise() {
    let entries = log(2);
    let disk = Disk { view: 2, log_view: 0, log: entries[..1].to_vec() };
    let (mut subject, _) = Subject::start(3, 1, disk);
    let outputs = subject.hear(2, 2, start_view(2, &entries, 0));
    answer(&mut subject, 2, &outputs, &entries);
    subject.hear(0, 3, Message::DoViewChange(promise(3, 0, &[], 0)));
    let sent = promises(&subject.persisted());
    assert_eq!((sent[0].view, sent[0].log_view, sent[0].op_number.0), (View(3), View(2), 2));
}

/// D16: StartView of a view that was left, or that has started here, changes nothing.
#[test]
fn a_start_view_of_an_old_or_running_view_is_ignored() {
    let disk = Disk { view: 3, log_view: 3, log: log(2) };
    let (mut subject, _) = Subject::start(3, 1, disk);
    for view in [2, 3] {
        subject.hear(view % 3, view, start_view(view, &[], 0));
        assert_eq!((subject.status().view, subject.status().op_number), (View(3), OpNumber(2)));
    }
}

/// Step 6: only the primary of a view starts it.
#[test]
fn a_start_view_that_is_not_from_the_primary_is_ignored() {
    let mut subject = Subject::backup(3);
    subject.hear(0, 2, start_view(2, &[], 0));
    assert_eq!(subject.status().view, View(0));
}

/// D20: a promise that comes late is answered with the view that has started.
#[test]
fn a_late_promise_is_answered_with_the_started_view() {
    let mut subject = next_primary(&[]);
    subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    subject.persisted();
    let outputs = subject.hear(0, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    assert_eq!(outputs.receivers(Kind::StartView), [0]);
}

/// D30: the primary of a started view tells its log to whoever asks.
#[test]
fn whoever_missed_a_view_is_told_its_log() {
    let mut primary = Subject::primary(3);
    let question = GetView { view: View(0), nonce: Nonce(4) };
    let outputs = primary.hear(2, 0, Message::GetView(question));
    let nonces = picked!(outputs, Message::StartView(m) => m.nonce);
    assert_eq!((outputs.receivers(Kind::StartView), nonces), (vec![2], vec![Some(Nonce(4))]));
}

/// D28: a ping of a replica that is normal in a later view takes a replica there, and makes it ask
/// for the log; the primary of that view may be gone, and only from within can the view be left.
#[test]
fn a_ping_from_a_later_view_takes_a_replica_there() {
    let mut backup = Subject::backup(3);
    let ping = Ping { standing: standing(StatusKind::Normal, 5, 0), sent_at: 0 };
    let outputs = backup.hear(2, 5, Message::Ping(ping));
    assert!(outputs.receivers(Kind::GetView).contains(&2));
    assert_eq!((backup.status().status, backup.status().view), (StatusKind::ViewChange, View(5)));
    let outputs = backup.pass(Duration::from_secs(1));
    assert!(outputs.receivers(Kind::StartViewChange).contains(&0), "it can be left from within");
}

/// A view that no group can reach is not believed: there would be none to leave it for.
#[test]
fn a_view_beyond_all_counting_is_ignored() {
    let mut backup = Subject::backup(3);
    let ping = Ping { standing: standing(StatusKind::ViewChange, 0, 0), sent_at: 0 };
    backup.hear(2, u64::MAX, Message::Ping(ping));
    backup.hear(2, 1, Message::DoViewChange(promise(u64::MAX, 0, &[], 0)));
    assert_eq!(backup.status().view, View(0));
}

/// D29: a ping of a replica that has promised a later view pulls a replica along.
#[test]
fn a_ping_of_a_promised_view_pulls_a_replica_along() {
    let mut backup = Subject::backup(3);
    let ping = Ping { standing: standing(StatusKind::ViewChange, 0, 0), sent_at: 0 };
    backup.hear(2, 5, Message::Ping(ping));
    assert_eq!(backup.status().view, View(5));
}

/// Step 1: a view change that is stuck is voted out, and the timeouts grow.
#[test]
fn a_stuck_view_change_is_voted_out() {
    let mut subject = next_primary(&[]);
    let outputs = subject.pass(Duration::from_secs(1));
    assert!(outputs.receivers(Kind::StartViewChange).contains(&2));
    subject.hear(2, 1, vote(1));
    assert_eq!(subject.status().view, View(2));
}

/// D5: entries of earlier views are committed by acknowledgements of this one: the log view orders
/// logs, not the view of an entry.
#[test]
fn acknowledgements_of_a_view_cover_entries_of_earlier_ones() {
    let entries = log(2);
    let mut subject = next_primary(&entries);
    subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    subject.persisted();
    subject.hear(2, 1, acknowledge(OpNumber(2), head(&entries)));
    assert_eq!(subject.status().commit_number, OpNumber(2));
}

/// Step 5: a primary admits writes as soon as its view has started.
#[test]
fn a_new_primary_appends_behind_what_it_found() {
    let mut subject = next_primary(&log(2));
    subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    subject.persisted();
    let outputs = subject.ask(register());
    assert_eq!(outputs.entries()[0].header.viewstamp().view, View(1));
    assert_eq!(subject.status().op_number, OpNumber(3));
}

/// Normal operation, step 1: a request that a backup holds is told to the primary of the next view.
#[test]
fn a_held_request_is_forwarded_again_in_the_next_view() {
    let disk = Disk { view: 0, log_view: 0, log: Vec::new() };
    let (mut backup, _) = Subject::start(3, 1, disk);
    backup.ask(register());
    let outputs = backup.hear(2, 2, start_view(2, &[], 0));
    assert!(outputs.receivers(Kind::Forward).is_empty());
    backup.persisted();
    assert_eq!(backup.persisted().receivers(Kind::Forward), [2]);
}

/// D31: an answer to a question of an earlier plan is not taken.
#[test]
fn an_answer_that_nobody_asked_for_is_ignored() {
    let mut subject = next_primary(&[]);
    let stray = Entries { request: RequestId(99), entries: log(1) };
    let outputs = subject.hear(2, 1, Message::Entries(stray));
    assert!(outputs.0.is_empty() && subject.status().ignored == 1);
}
