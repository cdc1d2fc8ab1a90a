//! Timers, and which view is next (docs/PROTOCOL.md, Timers and View change).

use core::time::Duration;

use vr_core::model::{
    kind::Kind,
    message::{
        Message, Ping, PrepareOk, Standing, StartView, StartViewChange, StatusKind, Suspicion,
    },
    types::{OpNumber, Peer, ReplicaId, ReplicaIndex, ReplicaSet, View},
};

use crate::{
    outputs::picked,
    subject::{Subject, commit, committed, head, log, nothing_committed, promise, standing, vote},
};

/// A vote of a replica that stands like this.
fn vote_of(standing: Standing) -> Message {
    let reason = Suspicion::PrimarySilent;
    Message::StartViewChange(StartViewChange { view: View(0), reason, standing })
}

fn ping(standing: Standing) -> Message {
    Message::Ping(Ping { standing, sent_at: 0 })
}

/// The view that the primary of view 0 of five leaves for when replica 1 stands like `next`, and
/// the others like `others`.
fn next_view(next: Standing, others: Standing) -> View {
    let mut primary = Subject::primary(5);
    primary.hear(1, 0, ping(next));
    for voter in 2..5 {
        primary.hear(voter, 0, vote_of(others));
    }
    primary.status().view
}

/// View change, step 2: the next view is that of the next primary who hears a quorum.
#[test]
fn a_primary_that_hears_no_quorum_is_skipped() {
    let normal = standing(StatusKind::Normal, 0, 0);
    assert_eq!(next_view(normal, normal), View(1));
    let mut heard = ReplicaSet::EMPTY;
    heard.insert(ReplicaIndex(1));
    assert_eq!(next_view(Standing { heard, ..normal }, normal), View(2));
}

/// View change, step 2: a primary that lags by more than a pipeline would have to catch up first.
#[test]
fn a_primary_that_is_far_behind_is_skipped() {
    let at = |op_number| standing(StatusKind::Normal, 0, op_number);
    assert_eq!(next_view(at(0), at(1024)), View(1));
    assert_eq!(next_view(at(0), at(1025)), View(2));
}

/// View change, step 2: a replica without its log cannot lead.
#[test]
fn a_primary_without_its_log_is_skipped() {
    let normal = standing(StatusKind::Normal, 0, 0);
    for status in [StatusKind::Recovering, StatusKind::Blank] {
        assert_eq!(next_view(Standing { status, ..normal }, normal), View(2));
    }
}

/// View change, step 2: nobody goes further than once around, however little is known.
#[test]
fn the_next_view_is_at_most_once_around() {
    let mut primary = Subject::primary(3);
    for voter in [1, 2] {
        primary.hear(voter, 0, vote_of(standing(StatusKind::Recovering, 0, 0)));
        primary.handle(vr_core::replica::io::Input::Disconnected {
            peer: Peer::Replica(ReplicaId(voter)),
        });
    }
    assert_eq!(primary.status().view, View(3), "the only one who is there leads");
}

/// How long a replica between two views waits before it votes to leave the one to come.
fn patience(subject: &mut Subject) -> Duration {
    let (mut passed, step) = (Duration::ZERO, Duration::from_millis(10));
    while subject.pass(step).receivers(Kind::StartViewChange).is_empty() {
        passed += step;
    }
    passed
}

/// Timers: each view that fails doubles the timeouts, up to a limit.
#[test]
fn timeouts_double_with_each_view_that_fails() {
    let mut subject = Subject::backup(5);
    for (view, least) in (1..).zip([300, 600, 1200, 2400, 4800, 4800]) {
        subject.hear(2, view, Message::DoViewChange(promise(view, 0, &[], 0)));
        subject.persisted();
        let (least, waited) = (Duration::from_millis(least), patience(&mut subject));
        assert!(waited + Duration::from_millis(10) >= least, "{waited:?} in view {view}");
        assert!(waited <= least + least / 10, "{waited:?} in view {view}");
    }
}

/// A backup of view 2 after two view changes.
fn after_two_view_changes() -> Subject {
    let mut backup = Subject::backup(3);
    backup.hear(0, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    let start = StartView {
        view: View(2),
        op_number: OpNumber(0),
        head: head(&[]),
        commit_number: OpNumber(0),
        checkpoint: vr_core::model::durable::CheckpointId::default(),
        suffix: Vec::new(),
        nonce: None,
    };
    backup.hear(2, 2, Message::StartView(start));
    backup.persisted();
    backup.persisted();
    assert_eq!((backup.status().status, backup.status().view), (StatusKind::Normal, View(2)));
    backup
}

/// Timers: what is committed, or a second heartbeat, shows that the view works; then timeouts are
/// short again.
#[test]
fn timeouts_are_short_again_in_a_view_that_works() {
    let votes = |subject: &mut Subject| {
        !subject.pass(Duration::from_millis(170)).receivers(Kind::StartViewChange).is_empty()
    };
    let mut backup = after_two_view_changes();
    for _ in 0..2 {
        backup.hear(2, 2, commit(nothing_committed(3), 1, 0));
    }
    assert!(!votes(&mut backup), "patient in a view that has shown nothing yet");
    let mut backup = after_two_view_changes();
    backup.hear(2, 2, crate::subject::prepare(&log(1), committed(&log(1), 1)));
    backup.hear(2, 2, commit(committed(&log(1), 1), 1, 1));
    assert!(votes(&mut backup));
    let mut backup = after_two_view_changes();
    backup.hear(2, 2, commit(nothing_committed(3), 2, 0));
    backup.hear(2, 2, commit(nothing_committed(3), 3, 0));
    assert!(votes(&mut backup));
}

/// Timers: backups tell everybody where they stand; a primary does so with its heartbeats, and is
/// told with their answers.
#[test]
fn everybody_tells_where_it_stands() {
    let mut backup = Subject::backup(3);
    let outputs = backup.hear(0, 0, commit(committed(&[], 0), 1, 0));
    let told =
        picked!(outputs, Message::PrepareOk(PrepareOk { standing, .. }) => standing.is_some());
    assert_eq!(told, [true]);
    assert_eq!(backup.pass(Duration::from_millis(205)).receivers(Kind::Ping), [0, 2]);
    backup.pass(Duration::from_millis(100));
    let outputs = backup.hear(0, 0, commit(committed(&[], 0), 2, 0));
    assert!(outputs.receivers(Kind::Ping).is_empty(), "there is a heartbeat before one is due");
    backup.pass(Duration::from_millis(50));
    let outputs = backup.hear(0, 0, commit(committed(&[], 0), 3, 0));
    assert_eq!(outputs.receivers(Kind::Ping), [2], "the primary is told by the answer");
    backup.pass(Duration::from_millis(100));
    backup.hear(0, 0, commit(committed(&[], 0), 4, 0));
    let overdue = backup.pass(Duration::from_millis(100)).receivers(Kind::Ping);
    assert_eq!(overdue, [0, 2], "a primary that is silent because it hears nobody is asked");
    let of_its_view = backup.hear(2, 0, ping(standing(StatusKind::Normal, 0, 0)));
    assert!(of_its_view.receivers(Kind::Pong).is_empty(), "it was told by a ping");
    let between_views = backup.hear(2, 0, ping(standing(StatusKind::ViewChange, 0, 0)));
    assert_eq!(between_views.receivers(Kind::Pong), [2]);
    let mut primary = Subject::primary(3);
    assert!(primary.pass(Duration::from_millis(205)).receivers(Kind::Ping).is_empty());
    let answers = primary.hear(1, 0, ping(standing(StatusKind::Normal, 0, 0)));
    assert_eq!(answers.receivers(Kind::Pong), [1]);
}

/// Timers: a vote counts for twice the suspicion timeout.
#[test]
fn a_vote_counts_for_twice_the_suspicion_timeout() {
    for (wait, left) in [(290, true), (310, false)] {
        let mut primary = Subject::primary(3);
        primary.hear(1, 0, vote(0));
        for _ in 0..wait / 10 {
            primary.pass(Duration::from_millis(10));
            let answer = crate::subject::acknowledge(OpNumber(0), head(&[]));
            primary.hear(2, 0, answer);
        }
        primary.hear(2, 0, vote(0));
        assert_eq!(primary.status().view > View(0), left, "after {wait} ms");
    }
}
