//! Normal operation: requests, prepares, acknowledgements, commits (VRR section 4.1).

use core::time::Duration;

use vr_core::{
    model::{
        durable::Durability,
        kind::Kind,
        message::{Limit, Message, Prepare, Rejected, Rejection, StatusKind},
        types::{Checksum, HeartbeatNumber, OpNumber, ReplicaId},
    },
    replica::io::{Event, Fatal},
};

use crate::{
    outputs::picked,
    subject::{
        Disk, Subject, acknowledge, commit, committed, extended, head, log, prepare, register,
        request,
    },
};

const ONE: OpNumber = OpNumber(1);

fn first_op(subject: &mut Subject) -> Checksum {
    subject.head_of(ONE)
}

/// Step 2 and 3: the primary gives the request the next op number and prepares it at all backups,
/// at once and in parallel with its own write.
#[test]
fn the_primary_prepares_a_request_everywhere_while_it_writes() {
    let mut primary = Subject::primary(3);
    let outputs = primary.ask(register());
    assert_eq!(outputs.receivers(Kind::Prepare), [1, 2]);
    assert_eq!(outputs.batches().len(), 1);
    let ops: Vec<OpNumber> = outputs.entries().iter().map(|e| e.header.op_number).collect();
    assert_eq!(ops, [ONE, ONE]);
}

/// Step 3: a prepare carries the commit number, so that a busy group needs no other message.
#[test]
fn a_prepare_tells_what_is_committed() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    let outputs = primary.ask(request(session, 1));
    let told = picked!(outputs, Message::Prepare(Prepare { commit, .. }) => commit.op_number);
    assert_eq!(told, [session, session]);
}

/// Step 3: what was handled between two drains leaves as one prepare per backup and one write.
#[test]
fn entries_of_a_gap_leave_the_pipeline_as_one_batch() {
    let mut primary = Subject::primary_with(|config| config.pipeline_ops_max = 1, 3);
    let session = primary.open_session();
    primary.ask(request(session, 1));
    assert!(primary.ask(request(session, 2)).entries().is_empty(), "the pipeline is full");
    let head = primary.head_of(OpNumber(2));
    primary.persisted();
    let outputs = primary.hear(1, 0, acknowledge(OpNumber(2), head));
    assert_eq!((outputs.receivers(Kind::Prepare), outputs.batches().len()), (vec![1, 2], 1));
}

/// Step 4: a backup says PrepareOk only when the entry is durable.
#[test]
fn a_backup_acknowledges_only_what_is_durable() {
    let mut backup = Subject::backup(3);
    let outputs = backup.hear(0, 0, prepare(&log(2), committed(&[], 0)));
    assert_eq!((outputs.acknowledged(), outputs.batches().len()), (vec![], 1));
    let outputs = backup.persisted();
    assert_eq!((outputs.acknowledged(), outputs.receivers(Kind::PrepareOk)), (vec![2], vec![0]));
}

/// Step 4, D22: a backup appends in op order; what comes early is kept, and the gap is asked for.
#[test]
fn a_backup_appends_in_op_order_and_asks_for_the_gap() {
    let (mut backup, entries) = (Subject::backup(3), log(3));
    let outputs = backup.hear(0, 0, prepare(&entries[1..], committed(&[], 0)));
    assert_eq!(backup.status().op_number, OpNumber(0));
    assert_eq!(outputs.receivers(Kind::GetEntries), [0]);
    backup.hear(0, 0, prepare(&entries[..1], committed(&[], 0)));
    assert_eq!(backup.status().op_number, OpNumber(3));
}

/// Step 4: a doubled prepare changes nothing.
#[test]
fn a_doubled_prepare_is_appended_once() {
    let mut backup = Subject::backup(3);
    backup.hear(0, 0, prepare(&log(2), committed(&[], 0)));
    let outputs = backup.hear(0, 0, prepare(&log(2), committed(&[], 0)));
    assert_eq!((backup.status().op_number, outputs.batches().len()), (OpNumber(2), 0));
}

/// Step 4: two entries for one op in one view cannot be; the node stops with the evidence.
#[test]
fn another_entry_in_the_same_view_stops_the_node() {
    let mut backup = Subject::backup(3);
    backup.hear(0, 0, prepare(&log(2), committed(&[], 0)));
    let mut other = log(1);
    other.extend(extended(&extended(&[], 0, 1, 3), 9, 1, 3).pop());
    let outputs = backup.hear(0, 0, prepare(&other, committed(&[], 0)));
    let Some(Fatal::Diverged { peer, op_number, .. }) = outputs.fatal() else { panic!() };
    assert_eq!((*peer, *op_number), (ReplicaId(0), OpNumber(2)));
}

/// Step 4: an entry that does not follow the last one is of another history.
#[test]
fn an_entry_that_does_not_chain_stops_the_node() {
    let mut backup = Subject::backup(3);
    backup.hear(0, 0, prepare(&log(1), committed(&[], 0)));
    let other = extended(&extended(&[], 9, 1, 3), 0, 1, 3);
    let outputs = backup.hear(0, 0, prepare(&other[1..], committed(&[], 0)));
    assert!(matches!(outputs.fatal(), Some(Fatal::Diverged { op_number: ONE, .. })));
}

/// Step 4: of what comes early as much is kept as a pipeline holds.
#[test]
fn only_so_much_is_kept_of_what_comes_early() {
    let limit = |config: &mut vr_core::model::config::Config| config.pipeline_ops_max = 1;
    let (mut backup, _) = Subject::start_with(limit, 3, 1, Disk::default());
    let entries = log(4);
    backup.hear(0, 0, prepare(&entries[2..], committed(&[], 0)));
    backup.hear(0, 0, prepare(&entries[..2], committed(&[], 0)));
    assert_eq!(backup.status().op_number, OpNumber(3));
}

/// Step 4: only the primary of the view prepares.
#[test]
fn a_backup_ignores_a_prepare_that_is_not_from_its_primary() {
    let mut backup = Subject::backup(3);
    let outputs = backup.hear(2, 0, prepare(&log(1), committed(&[], 0)));
    assert!(outputs.batches().is_empty() && backup.status().ignored == 1);
}

/// Step 4: a prepare of a view that was left is not processed; its sender is told.
#[test]
fn a_prepare_of_an_old_view_is_answered_with_a_ping() {
    let disk = Disk { view: 3, log_view: 3, log: Vec::new() };
    let (mut backup, _) = Subject::start(3, 1, disk);
    let outputs = backup.hear(0, 2, prepare(&log(1), committed(&[], 0)));
    assert_eq!((outputs.receivers(Kind::Ping), backup.status().op_number.0), (vec![0], 0));
}

/// Step 5: an op is committed when a quorum holds it, and so is everything before it.
#[test]
fn one_acknowledgement_commits_everything_before_it() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    primary.ask(request(session, 1));
    primary.ask(request(session, 2));
    primary.persisted();
    let head = primary.head_of(OpNumber(3));
    let outputs = primary.hear(2, 0, acknowledge(OpNumber(3), head));
    assert_eq!((primary.status().commit_number, outputs.ordered()), (OpNumber(3), vec![2, 3]));
}

/// NP1: the primary counts itself only when its own write is done.
#[test]
fn the_primary_counts_itself_only_when_its_write_is_done() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    let head = first_op(&mut primary);
    primary.hear(1, 0, acknowledge(ONE, head));
    assert_eq!(primary.status().commit_number, OpNumber(0));
    primary.persisted();
    assert_eq!(primary.status().commit_number, ONE);
}

/// NP1 without a log on disk: the primary counts itself at once, and nothing is written.
#[test]
fn without_a_log_on_disk_an_op_writes_nothing() {
    for durability in [Durability::ViewOnly, Durability::Diskless] {
        let mut primary = Subject::primary_in(durability, |_| {}, 3);
        assert!(primary.ask(register()).batches().is_empty());
        let head = first_op(&mut primary);
        let outputs = primary.hear(1, 0, acknowledge(ONE, head));
        assert_eq!((primary.status().commit_number, outputs.batches().len()), (ONE, 0));
    }
}

/// Step 5: a quorum is a majority of all: two backups may commit before the primary's disk has
/// answered.
#[test]
fn two_backups_of_three_commit_without_the_primary_s_disk() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    let head = first_op(&mut primary);
    primary.hear(1, 0, acknowledge(ONE, head));
    primary.hear(2, 0, acknowledge(ONE, head));
    assert_eq!(primary.status().commit_number, ONE);
}

/// Step 5: a quorum of four is three; the paper's f + 1 would be two, which need not overlap.
#[test]
fn a_group_of_four_needs_three() {
    let mut primary = Subject::primary(4);
    primary.ask(register());
    primary.persisted();
    let head = first_op(&mut primary);
    primary.hear(1, 0, acknowledge(ONE, head));
    assert_eq!(primary.status().commit_number, OpNumber(0));
    primary.hear(2, 0, acknowledge(ONE, head));
    assert_eq!(primary.status().commit_number, ONE);
}

/// Step 5: votes are sets: one backup that answers twice is one.
#[test]
fn one_backup_counts_once() {
    let mut primary = Subject::primary(5);
    primary.ask(register());
    primary.persisted();
    let head = first_op(&mut primary);
    for _ in 0..3 {
        primary.hear(1, 0, acknowledge(ONE, head));
    }
    assert_eq!(primary.status().commit_number, OpNumber(0));
}

/// Step 5: acknowledgements may overtake each other; an older one takes nothing back.
#[test]
fn a_late_acknowledgement_takes_nothing_back() {
    let (mut primary, two) = (Subject::primary(5), OpNumber(2));
    primary.ask(register());
    primary.ask(request(ONE, 1));
    primary.persisted();
    let (first, second) = (first_op(&mut primary), primary.head_of(two));
    primary.hear(1, 0, acknowledge(two, second));
    primary.hear(1, 0, acknowledge(ONE, first));
    primary.hear(2, 0, acknowledge(two, second));
    assert_eq!(primary.status().commit_number, two);
}

/// Step 5: an acknowledgement is about one history; another one stops the node.
#[test]
fn an_acknowledgement_of_another_history_stops_the_node() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    let outputs = primary.hear(1, 0, acknowledge(ONE, Checksum(9)));
    assert!(matches!(outputs.fatal(), Some(Fatal::Diverged { op_number: ONE, .. })));
}

/// Step 5: an acknowledgement of a later op than there is counts for what there is.
#[test]
fn an_acknowledgement_beyond_the_log_is_clamped() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    primary.persisted();
    let head = first_op(&mut primary);
    primary.hear(1, 0, acknowledge(OpNumber(9), head));
    assert_eq!(primary.status().commit_number, ONE);
}

/// Step 5: acknowledgements of an earlier view do not count.
#[test]
fn an_acknowledgement_of_another_view_does_not_count() {
    let (mut primary, _) = Subject::start(1, 0, Disk::default());
    primary.persisted();
    primary.persisted();
    assert_eq!(primary.status().view.0, 1, "a group of one leaves its view when it is opened");
    let mut founder = Subject::primary(3);
    founder.ask(register());
    founder.persisted();
    let head = first_op(&mut founder);
    founder.hear(1, 1, acknowledge(ONE, head));
    assert_eq!(founder.status().commit_number, OpNumber(0));
}

/// Step 6: an idle primary says Commit at each heartbeat interval.
#[test]
fn an_idle_primary_says_what_is_committed() {
    let mut primary = Subject::primary(3);
    let outputs = primary.pass(Duration::from_millis(50));
    assert_eq!(outputs.receivers(Kind::Commit), [1, 2]);
}

/// Step 7: a backup executes what it learns to be committed, in op order.
#[test]
fn a_backup_executes_in_order_what_is_committed() {
    let (mut backup, entries) = (Subject::backup(3), log(3));
    backup.hear(0, 0, prepare(&entries, committed(&[], 0)));
    let outputs = backup.hear(0, 0, commit(committed(&entries, 2), 1, 3));
    assert_eq!((outputs.ordered(), backup.status().commit_number), (vec![1, 2], OpNumber(2)));
}

/// D23: a commit number beyond the log commits what is there.
#[test]
fn a_commit_number_beyond_the_log_is_clamped() {
    let (mut backup, entries) = (Subject::backup(3), log(3));
    backup.hear(0, 0, prepare(&entries[..1], committed(&[], 0)));
    backup.hear(0, 0, commit(committed(&entries, 3), 1, 3));
    assert_eq!(backup.status().commit_number, ONE);
}

/// Step 7: commit numbers may overtake each other; an older one takes nothing back.
#[test]
fn a_commit_number_never_goes_back() {
    let (mut backup, entries) = (Subject::backup(3), log(3));
    backup.hear(0, 0, prepare(&entries, committed(&entries, 2)));
    let outputs = backup.hear(0, 0, commit(committed(&entries, 1), 1, 3));
    assert_eq!((backup.status().commit_number, outputs.ordered()), (OpNumber(2), vec![]));
}

/// D21: what a view has committed says nothing of the log that is here while that is another's.
#[test]
fn a_commit_number_is_about_the_log_of_its_view() {
    let disk = Disk { view: 3, log_view: 0, log: log(2) };
    let (mut subject, _) = Subject::start(3, 1, disk);
    let outputs = subject.hear(0, 3, commit(committed(&log(2), 2), 1, 2));
    assert_eq!((subject.status().commit_number, outputs.ordered()), (OpNumber(0), vec![]));
}

/// Step 7: a commit number is about one history; another one stops the node.
#[test]
fn a_commit_of_another_history_stops_the_node() {
    let (mut backup, entries) = (Subject::backup(3), log(1));
    backup.hear(0, 0, prepare(&entries, committed(&[], 0)));
    let other = extended(&[], 9, 1, 3);
    let outputs = backup.hear(0, 0, commit(committed(&other, 1), 1, 1));
    assert!(matches!(outputs.fatal(), Some(Fatal::Diverged { .. })));
}

/// Step 6: a heartbeat is answered at once, whether or not anything became durable.
#[test]
fn a_heartbeat_is_answered_without_waiting_for_a_write() {
    let mut backup = Subject::backup(3);
    backup.hear(0, 0, prepare(&log(1), committed(&[], 0)));
    let outputs = backup.hear(0, 0, commit(committed(&[], 0), 4, 1));
    let echoes = picked!(outputs, Message::PrepareOk(m) => (m.heartbeat, m.op_number));
    assert_eq!(echoes, [(HeartbeatNumber(4), OpNumber(0))]);
}

/// Repair: a backup that hears twice of an op that it does not have asks for it.
#[test]
fn a_backup_asks_for_what_does_not_arrive() {
    let (mut backup, entries) = (Subject::backup(3), log(2));
    backup.hear(0, 0, prepare(&entries[..1], committed(&[], 0)));
    backup.hear(0, 0, commit(committed(&[], 0), 1, 1));
    let heard = backup.hear(0, 0, commit(committed(&[], 0), 2, 2));
    assert!(heard.receivers(Kind::GetEntries).is_empty(), "it may be on its way");
    let heard = backup.hear(0, 0, commit(committed(&[], 0), 3, 2));
    assert_eq!(heard.receivers(Kind::GetEntries), [0]);
}

/// Push repair: what a backup does not acknowledge for some heartbeats is sent to it again.
#[test]
fn what_is_not_acknowledged_is_sent_again() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    let first = first_op(&mut primary);
    let mut again = Vec::new();
    for _ in 0..3 {
        primary.hear(1, 0, acknowledge(ONE, first));
        primary.hear(2, 0, acknowledge(OpNumber(0), head(&[])));
        again.extend(primary.pass(Duration::from_millis(50)).receivers(Kind::Prepare));
    }
    assert_eq!(again, [2]);
}

/// What was prepared while a backup was still entering the view was dropped there, so its first
/// acknowledgement makes the primary send it at once, and no later one does.
#[test]
fn what_a_backup_missed_while_it_entered_the_view_is_sent_at_once() {
    let mut primary = Subject::primary(3);
    primary.ask(register());
    let entered = primary.hear(2, 0, acknowledge(OpNumber(0), head(&[])));
    assert_eq!(entered.receivers(Kind::Prepare), [2]);
    assert_eq!(entered.entries().len(), 1);
    let later = primary.hear(2, 0, acknowledge(OpNumber(0), head(&[])));
    assert!(later.receivers(Kind::Prepare).is_empty(), "it may be on its way");
}

/// Step 3: entry times grow strictly, whatever the wall clock does.
#[test]
fn entry_times_grow_strictly() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    let first = primary.ask(request(session, 1)).entries();
    let second = primary.ask(request(session, 2)).entries();
    assert!(first[0].header.time < second[0].header.time);
}

/// Step 3: a wall clock that jumps far ahead is not believed, and an event says so.
#[test]
fn a_wall_clock_that_jumps_ahead_is_not_believed() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    let before = primary.ask(request(session, 1)).entries()[0].header.time;
    primary.jump(Duration::from_secs(3600));
    let outputs = primary.ask(request(session, 2));
    assert!(outputs.entries()[0].header.time < before + 1_000_000_000);
    assert!(outputs.events().iter().any(|event| matches!(event, Event::ClockJumped { .. })));
}

/// D27: a primary that no quorum answers says busy instead of letting its clients wait.
#[test]
fn a_primary_without_a_quorum_answers_busy() {
    let mut primary = Subject::primary(3);
    let outputs = primary.pass(Duration::from_millis(300));
    assert!(outputs.events().iter().any(|event| matches!(event, Event::QuorumLost { .. })));
    assert_eq!(rejections(&primary.ask(register()).told()), [Rejection::Busy(Limit::NoQuorum)]);
}

/// Step 2: a full log is named, and nothing is appended.
#[test]
fn a_full_log_answers_busy_and_names_the_limit() {
    let mut primary = Subject::primary_with(|config| config.log_bytes_max = 4 << 20, 3);
    let session = primary.open_session();
    let mut told = Vec::new();
    for number in 1..=5 {
        let Message::Request(mut large) = request(session, number) else { panic!() };
        large.operation = vec![0; 1 << 20].into();
        told.extend(rejections(&primary.ask(Message::Request(large)).told()));
        primary.persisted();
        let op_number = primary.status().op_number;
        let head = primary.head_of(op_number);
        primary.hear(1, 0, acknowledge(op_number, head));
        primary.executed(op_number, Vec::new());
    }
    assert!(!told.is_empty() && told.iter().all(|why| *why == Rejection::Busy(Limit::Log)));
}

/// Step 5: a group of one that keeps its log in memory has nobody and no disk to wait for.
#[test]
fn a_group_of_one_without_a_log_on_disk_commits_at_once() {
    for durability in [Durability::ViewOnly, Durability::Diskless] {
        let mut alone = Subject::primary_in(durability, |_| {}, 1);
        let outputs = alone.ask(register());
        assert_eq!(outputs.ordered(), [1], "{durability}");
        assert_eq!(alone.status().commit_number, OpNumber(1));
    }
}

/// Step 2: an operation over the limit is refused with both numbers.
#[test]
fn a_large_operation_is_refused_with_both_sizes() {
    let mut backup = Subject::backup(3);
    let Message::Request(mut large) = request(ONE, 1) else { panic!() };
    large.operation = vec![0; (1 << 20) + 1].into();
    let (bytes, bytes_max) = ((1 << 20) + 1, 1 << 20);
    let told = backup.ask(Message::Request(large)).told();
    assert_eq!(rejections(&told), [Rejection::TooLarge { bytes, bytes_max }]);
}

/// Step 1: a backup forwards to the primary of its view and says nothing to the client yet.
#[test]
fn a_backup_forwards_a_request_to_its_primary() {
    let mut backup = Subject::backup(3);
    let outputs = backup.ask(register());
    assert_eq!((outputs.receivers(Kind::Forward), outputs.told()), (vec![0], vec![]));
}

/// Step 1: a backup that finds no primary within the timeout says busy.
#[test]
fn a_forwarded_request_without_an_answer_ends_as_busy() {
    let mut backup = Subject::backup(3);
    backup.ask(register());
    let told = backup.pass(Duration::from_secs(2)).told();
    assert_eq!(rejections(&told), [Rejection::Busy(Limit::NoQuorum)]);
}

/// Step 4: between two views nothing is appended; the view has started without this replica, which
/// asks for its log.
#[test]
fn a_replica_between_two_views_appends_nothing() {
    let disk = Disk { view: 3, log_view: 0, log: Vec::new() };
    let (mut subject, _) = Subject::start(3, 1, disk);
    assert_eq!(subject.status().status, StatusKind::ViewChange);
    let outputs = subject.hear(0, 3, prepare(&log(1), committed(&[], 0)));
    assert_eq!(subject.status().op_number, OpNumber(0));
    assert!(outputs.receivers(Kind::GetView).contains(&0));
}

/// The head of a log is what the tests' helper says.
#[test]
fn the_primary_and_the_test_agree_on_checksums() {
    let (mut backup, entries) = (Subject::backup(3), log(2));
    backup.hear(0, 0, prepare(&entries, committed(&[], 0)));
    assert_eq!(backup.head_of(OpNumber(2)), head(&entries));
}

fn rejections(told: &[Message]) -> Vec<Rejection> {
    let mut found = Vec::new();
    for message in told {
        if let Message::Rejected(Rejected { reason, .. }) = message {
            found.push(*reason);
        }
    }
    found
}
