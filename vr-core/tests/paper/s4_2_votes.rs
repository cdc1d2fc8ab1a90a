//! The view change up to the promise: who suspects, who votes, who promises (VRR section 4.2,
//! steps 1 and 2).

use core::time::Duration;

use vr_core::{
    model::{
        durable::CheckpointId,
        kind::Kind,
        message::{DoViewChange, Message, StatusKind},
        types::{Peer, ReplicaId, View},
    },
    replica::io::Input,
};

use crate::subject::{
    Disk, SILENCE, Subject, commit, committed, headers, log, next_primary, nothing_committed,
    prepare, promise, vote,
};

use crate::s4_2::{promises, start_view};

/// Step 1, D26: a backup whose primary is silent votes to leave the view, and stays in it.
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

/// Step 1, D35: whoever has not heard the primary for a heartbeat joins the vote of another.
#[test]
fn a_backup_that_has_not_heard_its_primary_joins_a_vote() {
    let mut backup = Subject::backup(5);
    backup.pass(Duration::from_millis(60));
    let outputs = backup.hear(2, 0, vote(0));
    assert_eq!(outputs.receivers(Kind::StartViewChange), [0, 2, 3, 4]);
    assert_eq!(backup.status().view, View(0));
}

/// Step 1: a vote is repeated for as long as the suspicion lasts, because others let it expire.
#[test]
fn a_vote_is_repeated_until_it_is_withdrawn() {
    let mut backup = Subject::backup(5);
    backup.pass(SILENCE);
    let outputs = backup.pass(Duration::from_millis(600));
    assert!(outputs.receivers(Kind::StartViewChange).len() >= 8);
    assert_eq!(backup.status().view, View(0));
}

/// Step 1, D27: a primary that no quorum answers votes to leave its view, and is silent, so that
/// those who still hear it can leave it too.
#[test]
fn a_primary_without_a_quorum_votes_to_leave_and_is_silent() {
    let mut primary = Subject::primary(3);
    let outputs = primary.pass(Duration::from_millis(155));
    assert_eq!(outputs.receivers(Kind::StartViewChange), [1, 2]);
    let outputs = primary.pass(Duration::from_millis(200));
    assert!(outputs.receivers(Kind::Commit).is_empty());
    assert_eq!(primary.status().view, View(0));
}

/// Step 1: a vote about a view that was left is answered with where this replica is.
#[test]
fn a_vote_to_leave_an_earlier_view_is_answered() {
    let disk = Disk { view: 3, log_view: 3, log: Vec::new() };
    let (mut backup, _) = Subject::start(3, 1, disk);
    assert_eq!(backup.hear(2, 2, vote(2)).receivers(Kind::Ping), [2]);
    assert_eq!(backup.status().view, View(3));
}

/// Step 1: a vote to leave a later view tells of a later view.
#[test]
fn a_vote_from_a_later_view_takes_a_replica_there() {
    let mut backup = Subject::backup(3);
    let outputs = backup.hear(0, 5, vote(5));
    assert_eq!((backup.status().view, outputs.receivers(Kind::GetView)), (View(5), vec![2]));
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

/// NP2, D1: DoViewChange leaves when the promise is durable, not before.
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

/// NP3, D20: an envelope names no view that a crash could take back.
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

/// Step 2: a promise carries headers from the commit number on, and no more than the last ones.
#[test]
fn a_promise_carries_the_last_headers_only() {
    let disk = Disk { view: 2, log_view: 0, log: log(4) };
    let (_, outputs) = Subject::start_with(|config| config.pipeline_ops_max = 1, 3, 1, disk);
    let carried: Vec<usize> = promises(&outputs).iter().map(|m| m.suffix.len()).collect();
    assert_eq!(carried, [2, 2]);
}

/// Step 2: a promise is repeated until the view starts.
#[test]
fn a_promise_is_repeated_until_the_view_starts() {
    let mut subject = next_primary(&[]);
    let outputs = subject.pass(Duration::from_millis(120));
    assert!(outputs.receivers(Kind::DoViewChange).contains(&2));
}

/// Step 2, D14: a primary that started its view says so as long as it holds the log of that view.
#[test]
fn a_primary_that_started_its_view_says_so() {
    let mut primary = Subject::primary(3);
    primary.hear(1, 0, vote(0));
    primary.hear(2, 0, vote(0));
    assert!(promises(&primary.persisted()).iter().all(|m| m.unbroken));
    primary.hear(1, 1, start_view(1, &[], 0));
    primary.persisted();
    primary.hear(2, 2, Message::DoViewChange(promise(2, 1, &[], 0)));
    let sent = promises(&primary.persisted());
    assert!(sent.iter().all(|m| m.log_view == View(1) && !m.unbroken) && sent.len() == 2);
}

/// Step 2: a promise binds, so hearing one for a later view is enough to follow.
#[test]
fn a_promise_to_a_later_view_is_joined() {
    let mut backup = Subject::backup(3);
    backup.hear(2, 4, Message::DoViewChange(promise(4, 0, &[], 0)));
    assert_eq!((backup.status().view, backup.status().durable_view), (View(4), View(0)));
    assert_eq!(promises(&backup.persisted()).len(), 2);
}
