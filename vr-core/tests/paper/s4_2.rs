//! The view change: votes, promises, the choice of the log and its installation (VRR section 4.2).

use core::time::Duration;

use vr_core::{
    model::{
        durable::CheckpointId,
        entry::Entry,
        kind::Kind,
        message::{DoViewChange, Entries, GetView, Message, Ping, StartView, StatusKind, Wanted},
        types::{Nonce, OpNumber, Peer, ReplicaId, RequestId, View},
    },
    replica::io::{Fatal, Input},
};

use crate::subject::{
    Disk, Outputs, SILENCE, Subject, acknowledge, commit, committed, extended, head, headers, log,
    next_primary, nothing_committed, picked, prepare, promise, register, standing, vote,
};

fn start_view(view: u64, log: &[Entry], commit: u64) -> Message {
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

fn promises(outputs: &Outputs) -> Vec<DoViewChange> {
    picked!(outputs, Message::DoViewChange(m) => m.clone())
}

/// Hands over the entries of `log` that `outputs` asks for by checksum.
fn answer(subject: &mut Subject, view: u64, outputs: &Outputs, log: &[Entry]) -> Outputs {
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

/// Step 1: a backup whose primary is silent votes to leave the view, and stays in it.
#[test]
fn a_silent_primary_is_voted_against_and_not_left_yet() {
    let mut backup = Subject::backup(3);
    let outputs = backup.pass(SILENCE);
    assert_eq!(outputs.receivers(Kind::StartViewChange)[..2], [0, 2]);
    assert_eq!(backup.status().view, View(0));
}

/// Step 1: a closed connection of the primary's process is suspicion enough, at once.
#[test]
fn a_closed_connection_is_suspicion_at_once() {
    let mut backup = Subject::backup(3);
    let outputs = backup.handle(Input::Disconnected { peer: Peer::Replica(ReplicaId(0)) });
    assert_eq!(outputs.receivers(Kind::StartViewChange), [0, 2]);
    assert_eq!(backup.status().status, StatusKind::Normal);
}

/// Step 1: a closed connection of another backup is nothing.
#[test]
fn the_loss_of_a_backup_is_no_suspicion() {
    let mut backup = Subject::backup(3);
    let outputs = backup.handle(Input::Disconnected { peer: Peer::Replica(ReplicaId(2)) });
    assert!(outputs.receivers(Kind::StartViewChange).is_empty());
}

/// Step 1: a heartbeat withdraws the vote.
#[test]
fn a_heartbeat_withdraws_the_vote() {
    let mut backup = Subject::backup(3);
    backup.pass(SILENCE);
    backup.hear(0, 0, commit(committed(&[], 0), 1, 0));
    let outputs = backup.pass(Duration::from_millis(40));
    assert!(outputs.receivers(Kind::StartViewChange).is_empty());
    backup.hear(2, 0, vote(0));
    assert_eq!(backup.status().view, View(0));
}

/// Step 1: whoever heard the primary just now notes the vote of another and adds none.
#[test]
fn a_backup_that_hears_its_primary_does_not_join() {
    let mut backup = Subject::backup(3);
    backup.hear(0, 0, commit(committed(&[], 0), 1, 0));
    let outputs = backup.hear(2, 0, vote(0));
    assert!(outputs.receivers(Kind::StartViewChange).is_empty());
    assert_eq!(backup.status().view, View(0));
}

/// Step 2: a quorum of votes moves a replica, even one that suspects nothing itself.
#[test]
fn a_quorum_of_votes_moves_a_primary_that_suspects_nothing() {
    let mut primary = Subject::primary(3);
    primary.hear(1, 0, vote(0));
    assert_eq!(primary.status().view, View(0));
    primary.hear(2, 0, vote(0));
    assert_eq!(primary.status().status, StatusKind::ViewChange);
}

/// Step 2: a vote expires unless it is repeated.
#[test]
fn votes_that_are_not_repeated_expire() {
    let mut backup = Subject::backup(5);
    backup.hear(2, 0, vote(0));
    for round in 1..=8 {
        backup.pass(Duration::from_millis(50));
        backup.hear(0, 0, commit(nothing_committed(5), round, 0));
    }
    backup.hear(3, 0, vote(0));
    backup.hear(4, 0, vote(0));
    assert_eq!(backup.status().view, View(0));
    backup.hear(2, 0, vote(0));
    assert_eq!(backup.status().view, View(1));
}

/// Step 2: one voter is one vote.
#[test]
fn a_repeated_vote_counts_once() {
    let mut primary = Subject::primary(3);
    for _ in 0..3 {
        primary.hear(1, 0, vote(0));
    }
    assert_eq!(primary.status().view, View(0));
}

/// Step 2: the next primary known to be down is skipped.
#[test]
fn a_primary_known_to_be_down_is_skipped() {
    let mut primary = Subject::primary(5);
    primary.handle(Input::Disconnected { peer: Peer::Replica(ReplicaId(1)) });
    for voter in 2..5 {
        primary.hear(voter, 0, vote(0));
    }
    assert_eq!(primary.status().view, View(2));
}

/// NP2: DoViewChange leaves when the promise is durable, not before.
#[test]
fn a_promise_is_sent_when_it_is_durable() {
    let mut backup = Subject::backup(3);
    backup.pass(SILENCE);
    let outputs = backup.hear(2, 0, vote(0));
    assert!(promises(&outputs).is_empty());
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    assert_eq!(batch.superblock.as_ref().map(|it| it.view), Some(View(1)));
    let outputs = backup.persisted();
    assert_eq!(outputs.receivers(Kind::DoViewChange), [0, 2]);
}

/// NP3: an envelope names no view that a crash could take back.
#[test]
fn envelopes_name_durable_views_only() {
    let mut backup = Subject::backup(3);
    backup.pass(SILENCE);
    backup.hear(2, 0, vote(0));
    let outputs = backup.pass(Duration::from_millis(250));
    assert!(!outputs.envelope_views().is_empty());
    assert!(outputs.envelope_views().iter().all(|view| *view == View(0)));
}

/// Step 2: the promise describes the complete log, and the log view does not move.
#[test]
fn a_promise_describes_the_log_and_moves_nothing() {
    let entries = log(2);
    let mut backup = Subject::backup(3);
    backup.hear(0, 0, prepare(&entries, committed(&entries, 1)));
    backup.persisted();
    backup.pass(SILENCE);
    backup.hear(2, 0, vote(0));
    let sent = promises(&backup.persisted());
    let expected = DoViewChange { suffix: headers(&entries[1..]), ..promise(1, 0, &entries, 1) };
    assert_eq!(DoViewChange { checkpoint: CheckpointId::default(), ..sent[0].clone() }, expected);
    assert_eq!(backup.status().log_view, View(0));
}

/// Step 2: a promise binds, so hearing one for a later view is enough to follow.
#[test]
fn a_promise_to_a_later_view_is_joined() {
    let mut backup = Subject::backup(3);
    backup.hear(2, 4, Message::DoViewChange(promise(4, 0, &[], 0)));
    assert_eq!((backup.status().view, backup.status().durable_view), (View(4), View(0)));
    assert_eq!(promises(&backup.persisted()).len(), 2);
}

/// Step 3: fewer promises than a quorum start nothing.
#[test]
fn one_promise_of_three_starts_nothing() {
    let subject = next_primary(&[]);
    assert_eq!(subject.status().status, StatusKind::ViewChange);
}

/// Step 3: a promise to another view is not counted.
#[test]
fn a_promise_to_an_earlier_view_is_not_counted() {
    let mut subject = next_primary(&[]);
    subject.hear(2, 0, Message::DoViewChange(promise(0, 0, &[], 0)));
    assert_eq!(subject.status().status, StatusKind::ViewChange);
}

/// Step 5 and NP3: StartView leaves when log and log view are durable, not before.
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

/// Step 3: a later log view beats a longer log; the view of the last entry means nothing.
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

/// Step 4: bodies are fetched before anything is installed; the old log stays until then.
#[test]
fn nothing_is_installed_before_all_bodies_are_here() {
    let entries = log(3);
    let mut subject = next_primary(&entries[..1]);
    let outputs = subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &entries, 0)));
    assert_eq!((outputs.receivers(Kind::GetEntries), outputs.batches().len()), (vec![2], 0));
    assert_eq!(subject.status().op_number, OpNumber(1));
    let outputs = answer(&mut subject, 1, &outputs, &entries);
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    assert_eq!((batch.cut, batch.entries.len()), (None, 2));
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

/// Step 4: when nobody who is left holds the bodies, the view is not waited for: the one who
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

/// Step 4: headers that the promise did not carry are asked for downward.
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

/// Step 4: what conflicts is cut in the batch that carries its replacement.
#[test]
fn a_conflicting_suffix_is_replaced_in_one_batch() {
    let ours = log(3);
    let theirs = extended(&log(1), 2, 1, 3);
    let disk = Disk { view: 2, log_view: 0, log: ours };
    let (mut subject, _) = Subject::start(3, 1, disk);
    let outputs = subject.hear(2, 2, start_view(2, &theirs, 0));
    let outputs = answer(&mut subject, 2, &outputs, &theirs);
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    assert_eq!((batch.cut, batch.entries.len()), (Some(OpNumber(1)), 1));
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

/// A view change that is stuck is voted out, and the timeouts grow.
#[test]
fn a_stuck_view_change_is_voted_out() {
    let mut subject = next_primary(&[]);
    let outputs = subject.pass(Duration::from_secs(1));
    assert!(outputs.receivers(Kind::StartViewChange).contains(&2));
    subject.hear(2, 1, vote(1));
    assert_eq!(subject.status().view, View(2));
}

/// Entries of earlier views are committed by acknowledgements of this one: the log view orders
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

/// A primary admits writes as soon as its view has started.
#[test]
fn a_new_primary_appends_behind_what_it_found() {
    let mut subject = next_primary(&log(2));
    subject.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    subject.persisted();
    let outputs = subject.ask(register());
    assert_eq!(outputs.entries()[0].header.viewstamp().view, View(1));
    assert_eq!(subject.status().op_number, OpNumber(3));
}

/// A request that a backup holds is told to the primary of the next view.
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

/// An answer to a question of an earlier plan is not taken.
#[test]
fn an_answer_that_nobody_asked_for_is_ignored() {
    let mut subject = next_primary(&[]);
    let stray = Entries { request: RequestId(99), entries: log(1) };
    let outputs = subject.hear(2, 1, Message::Entries(stray));
    assert!(outputs.0.is_empty() && subject.status().ignored == 1);
}
