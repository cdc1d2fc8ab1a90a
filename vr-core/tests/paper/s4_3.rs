//! Coming back with an intact disk, which asks nobody (VRR section 4.3, second paragraph).

use core::time::Duration;

use vr_core::model::{
    kind::Kind,
    message::{Message, StatusKind},
    types::{OpNumber, View},
};

use crate::{
    outputs::picked,
    subject::{Disk, Subject, log},
};

/// Step 1: a backup of a started view is that again, with everything that was durable.
#[test]
fn a_backup_comes_back_as_a_slow_backup() {
    let disk = Disk { view: 0, log_view: 0, log: log(2) };
    let (subject, outputs) = Subject::start(3, 1, disk);
    assert_eq!((subject.status().status, outputs.acknowledged()), (StatusKind::Normal, vec![2]));
    assert_eq!(subject.status().commit_number, OpNumber(0), "the commit number is not on disk");
}

/// Step 2, D15: a primary that restarted leaves its view, and says nothing in it any more.
#[test]
fn a_restarted_primary_leaves_its_view() {
    let disk = Disk { view: 3, log_view: 3, log: log(2) };
    let (mut subject, outputs) = Subject::start(3, 0, disk);
    assert!(outputs.sent().is_empty(), "the new promise is not durable yet");
    assert_eq!(subject.status().view, View(4));
    assert_eq!(subject.persisted().receivers(Kind::DoViewChange), [1, 2]);
}

/// Step 2, D14: a restarted primary does not claim that it never broke off.
#[test]
fn a_restarted_primary_is_not_unbroken() {
    let disk = Disk { view: 3, log_view: 3, log: log(2) };
    let (mut subject, _) = Subject::start(3, 0, disk);
    let unbroken = picked!(subject.persisted(), Message::DoViewChange(m) => m.unbroken);
    assert_eq!(unbroken, [false, false]);
}

/// Step 3: between two views the promise is repeated, with the old log view.
#[test]
fn a_promise_is_repeated_after_a_restart() {
    let disk = Disk { view: 2, log_view: 0, log: log(2) };
    let (subject, outputs) = Subject::start(3, 1, disk);
    let said = picked!(outputs, Message::DoViewChange(m) => (m.view, m.log_view, m.op_number.0));
    assert_eq!(said, [(View(2), View(0), 2), (View(2), View(0), 2)]);
    assert_eq!(subject.status().status, StatusKind::ViewChange);
}

/// Step 3: the primary of the promised view may have started it; it goes one further.
#[test]
fn the_primary_of_a_promised_view_goes_one_further() {
    let disk = Disk { view: 1, log_view: 0, log: log(2) };
    let (subject, _) = Subject::start(3, 1, disk);
    assert_eq!(subject.status().view, View(2));
}

/// Step 3: a group of one moves on by itself each time it is opened, and loses nothing.
#[test]
fn a_group_of_one_starts_its_next_view_alone() {
    let disk = Disk { view: 0, log_view: 0, log: crate::subject::extended(&[], 0, 2, 1) };
    let (mut subject, _) = Subject::start(1, 0, disk);
    subject.persisted();
    subject.persisted();
    let status = subject.status();
    assert_eq!((status.view, status.status), (View(1), StatusKind::Normal));
    assert_eq!(status.commit_number, OpNumber(2));
}

/// Step 1: a replica that restarted is patient with its primary for one suspicion timeout.
#[test]
fn a_restarted_backup_waits_before_it_suspects() {
    let (mut subject, _) = Subject::start(3, 1, Disk::default());
    let outputs = subject.pass(Duration::from_millis(149));
    assert!(outputs.receivers(Kind::StartViewChange).is_empty());
    let outputs = subject.pass(Duration::from_millis(20));
    assert!(!outputs.receivers(Kind::StartViewChange).is_empty());
}
