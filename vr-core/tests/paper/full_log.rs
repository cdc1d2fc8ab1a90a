//! A log that is full waits for a checkpoint, and the group goes on as soon as two have one.

use std::time::Duration;

use bytes::Bytes;

use vr_core::{
    Config, OpNumber,
    execution::transfer::TaskDone,
    model::{
        checkpoint::Manifest,
        durable::CheckpointId,
        entry::Entry,
        kind::Kind,
        message::{Commit, DoViewChange, Message, Ping, StartView, StatusKind},
        snapshot::{Snapshot, SnapshotContent},
        types::View,
    },
    replica::io::{Event, Input},
};

use crate::{
    checkpoints::{manifest, order, small_log, take, telling},
    outputs::{Outputs, picked},
    subject::{
        Disk, SILENCE, Subject, acknowledge, commit, committed, head, headers, log, prepare,
        promise, request, standing, vote,
    },
};

/// The checkpoint after `op_number` that consists of [`manifest`].
fn id(subject: &mut Subject, op_number: OpNumber) -> CheckpointId {
    let checksum = subject.head_of(op_number);
    CheckpointId { op_number, checksum, digest: manifest().digest() }
}

/// Six entries of [`log`] fit by their bytes, and the seventh does not; nothing else is small.
fn few_bytes(config: &mut Config) {
    config.request_bytes_max = 300;
    config.pipeline_bytes_max = 700;
    config.log_bytes_max = 800;
    config.checkpoint_bytes = 400;
    config.validate().expect("these values fit together");
}

fn telling_commit(
    entries: &[Entry],
    count: usize,
    heartbeat: u64,
    agreed: CheckpointId,
) -> Message {
    let op = u64::try_from(entries.len()).expect("a few");
    let Message::Commit(told) = commit(committed(entries, count), heartbeat, op) else {
        unreachable!("it is")
    };
    Message::Commit(Commit { agreed, ..told })
}

/// A backup that has executed the six of eight entries that fit into its log.
fn full_backup(limits: fn(&mut Config)) -> (Subject, Vec<Entry>) {
    let (mut backup, _) = Subject::start_with(limits, 3, 1, Disk::default());
    let entries = log(8);
    backup.hear(0, 0, prepare(&entries, committed(&entries, 6)));
    backup.persisted();
    backup.hear(0, 0, commit(committed(&entries, 6), 1, 8));
    backup.executed(OpNumber(6), Vec::new());
    assert_eq!(backup.status().op_number, OpNumber(6), "two did not fit");
    (backup, entries)
}

/// A primary whose log has six entries and no room for more, with the session that asked for them.
fn full_primary(limits: fn(&mut Config)) -> (Subject, OpNumber, OpNumber) {
    let mut primary = Subject::primary_with(limits, 3);
    let session = primary.open_session();
    for number in 1..=5 {
        order(&mut primary, session, number, 0);
    }
    let head = primary.status().op_number;
    assert_eq!(head, OpNumber(6), "the log is full");
    (primary, session, head)
}

/// The chunks of `checkpoint` are all here already, from whoever else took it.
pub(crate) fn arrives(subject: &mut Subject, asked: &Outputs, checkpoint: CheckpointId) -> Outputs {
    let questions = picked!(asked, Message::GetSnapshot(m) => (m.request, m.checkpoint));
    let ([(request, wanted)], [of]) = (&questions[..], &asked.receivers(Kind::GetSnapshot)[..])
    else {
        panic!("the manifest is asked for, once: {asked:?}");
    };
    assert_eq!(*wanted, checkpoint);
    let Manifest { bytes, chunks } = manifest();
    let content = SnapshotContent::Manifest { bytes, from: 0, chunks };
    let snapshot = Snapshot { request: *request, checkpoint, content };
    subject.hear(*of, 0, Message::Snapshot(snapshot));
    subject.handle(Input::Transferred(TaskDone::Looked { checkpoint, missing: Vec::new() }));
    subject.handle(Input::Transferred(TaskDone::Completed { checkpoint }))
}

/// Section "Checkpoints": a backup that is slow to take its own holds no more of the log than it may.
/// It fetches the one that the others have, although it has executed past it, and goes on.
#[test]
fn a_backup_with_a_full_log_fetches_the_checkpoint_that_shortens_it() {
    let (mut backup, entries) = full_backup(small_log);
    let asked = backup.hear(0, 0, commit(committed(&entries, 8), 2, 8));
    assert_eq!(asked.receivers(Kind::GetEntries), [], "there is no room for an answer");
    assert_eq!(asked.receivers(Kind::PrepareOk), [0], "the heartbeat is answered");

    let agreed = id(&mut backup, OpNumber(4));
    let asked = backup.hear(0, 0, telling_commit(&entries, 8, 3, agreed));
    let installed = arrives(&mut backup, &asked, agreed);
    assert!(installed.work().is_empty(), "the state is past it, and stays");
    let mut shorter = backup.persisted();
    shorter.0.extend(backup.persisted().0);
    let status = backup.status();
    assert_eq!((status.checkpoint, status.log_base), (agreed, OpNumber(4)));
    assert_eq!(shorter.receivers(Kind::GetEntries), [0], "what did not fit is asked for");
}

/// The same for a primary, which takes no requests until its log is shorter; nothing more becomes due
/// then that it could take.
#[test]
fn a_primary_with_a_full_log_fetches_the_checkpoint_that_shortens_it() {
    let (mut primary, session, head) = full_primary(small_log);
    let agreed = id(&mut primary, OpNumber(4));
    let checksum = primary.head_of(head);
    for backup in [1, 2] {
        primary.hear(backup, 0, telling(head, checksum, agreed));
    }
    let asked = primary.pass(Config::default().heartbeat_interval);
    let installed = arrives(&mut primary, &asked, agreed);
    assert!(installed.work().is_empty(), "the state is past it, and stays");
    primary.persisted();
    primary.persisted();
    let status = primary.status();
    assert_eq!((status.checkpoint, status.log_base), (agreed, OpNumber(4)));
    primary.ask(request(session, 6));
    assert_eq!(primary.status().op_number, head.next(), "there is room again");
}

/// A backup whose log is full by bytes, and that is told which checkpoint would shorten it.
#[test]
fn a_backup_with_a_log_full_of_bytes_fetches_the_checkpoint_that_shortens_it() {
    let (mut backup, entries) = full_backup(few_bytes);
    let agreed = id(&mut backup, OpNumber(4));
    let mut fetched = 0;
    for heartbeat in 3..40 {
        let heard = backup.hear(0, 0, telling_commit(&entries, 6, heartbeat, agreed));
        fetched += heard.receivers(Kind::GetSnapshot).len();
        backup.hear(0, 0, prepare(&entries[6..], committed(&entries, 6)));
        backup.pass(Duration::from_millis(50));
    }
    assert_eq!(backup.status().op_number, OpNumber(6), "it takes nothing");
    assert!(fetched > 0, "nor does it ever fetch what would make room");
}

#[test]
fn a_primary_with_a_log_full_of_bytes_fetches_the_checkpoint_that_shortens_it() {
    let (mut primary, session, head) = full_primary(few_bytes);
    primary.ask(request(session, 6));
    assert_eq!(primary.status().op_number, head, "the log is full");
    let agreed = id(&mut primary, OpNumber(4));
    let checksum = primary.head_of(head);
    let mut fetched = 0;
    for _ in 0..40 {
        for backup in [1, 2] {
            primary.hear(backup, 0, telling(head, checksum, agreed));
        }
        let passed = primary.pass(Config::default().heartbeat_interval);
        fetched += passed.receivers(Kind::GetSnapshot).len();
    }
    primary.ask(request(session, 6));
    assert_eq!(primary.status().op_number, head, "still full");
    assert!(fetched > 0, "nothing is done about it");
}

/// A backup whose log of `count` entries was full, and that has taken the checkpoint that shortens it by
/// now; if it was `fetching`, it had begun to fetch that one before, and nothing has arrived.
fn backup_with_room(count: u64, fetching: bool) -> (Subject, Vec<Entry>, CheckpointId, Outputs) {
    let (mut backup, _) = Subject::start_with(small_log, 3, 1, Disk::default());
    let entries = log(count);
    backup.hear(0, 0, prepare(&entries, committed(&entries, 6)));
    backup.persisted();
    backup.hear(0, 0, commit(committed(&entries, 6), 1, count));
    backup.executed(OpNumber(3), Vec::new());
    let agreed = id(&mut backup, OpNumber(4));
    if fetching {
        backup.executed(OpNumber(6), Vec::new());
        let asked = backup.hear(0, 0, telling_commit(&entries, 6, 3, agreed));
        assert_eq!(asked.receivers(Kind::GetSnapshot).len(), 1);
    }
    take(&mut backup, agreed);
    backup.executed(OpNumber(6), Vec::new());
    let mut outputs = backup.hear(0, 0, telling_commit(&entries, 6, 4, agreed));
    for _ in 0..3 {
        outputs.0.extend(backup.persisted().0);
    }
    assert_eq!((backup.status().checkpoint, backup.status().log_base), (agreed, OpNumber(4)));
    (backup, entries, agreed, outputs)
}

/// There is room again, and what was let go is asked for; nothing is held up by a transfer that nobody
/// needs any more.
#[test]
fn a_fetch_that_is_not_needed_any_more_holds_nothing_up() {
    for fetching in [false, true] {
        let (mut backup, entries, agreed, mut outputs) = backup_with_room(8, fetching);
        for heartbeat in 5..15 {
            outputs.0.extend(backup.pass(Duration::from_millis(50)).0);
            let told = telling_commit(&entries, 6, heartbeat, agreed);
            outputs.0.extend(backup.hear(0, 0, told).0);
        }
        let asked = outputs.receivers(Kind::GetEntries);
        assert!(!asked.is_empty(), "fetching: {fetching}");
    }
}

/// The same in a view change: the log that the replica has is all that the new view needs.
#[test]
fn a_fetch_that_is_not_needed_any_more_keeps_nobody_out_of_a_view() {
    for fetching in [false, true] {
        let (mut backup, entries, checkpoint, _) = backup_with_room(6, fetching);
        let start = Message::StartView(StartView {
            view: View(2),
            op_number: OpNumber(6),
            head: head(&entries),
            commit_number: OpNumber(6),
            checkpoint,
            suffix: headers(&entries[4..]),
            nonce: None,
        });
        backup.hear(2, 2, start);
        for _ in 0..4 {
            backup.persisted();
        }
        assert_eq!(backup.status().status, StatusKind::Normal, "fetching: {fetching}");
    }
}

/// The primary dies, and replica 1 leads view 1 with what replica 2 promises.
fn lead(subject: &mut Subject, promise: DoViewChange) {
    subject.pass(SILENCE);
    subject.hear(2, 0, vote(0));
    assert_eq!(subject.status().view, View(1));
    subject.persisted();
    subject.hear(2, 1, Message::DoViewChange(promise));
    for _ in 0..3 {
        subject.persisted();
    }
    assert_eq!(subject.status().status, StatusKind::Normal);
}

/// A checkpoint that a replica has taken before it leads counts when it leads: with that of one other
/// of three it is agreed on. Nothing else releases a log that is full.
#[test]
fn a_new_primary_counts_its_own_checkpoint() {
    let (mut subject, _) = Subject::start_with(small_log, 3, 1, Disk::default());
    let entries = log(6);
    subject.hear(0, 0, prepare(&entries, committed(&entries, 6)));
    subject.persisted();
    subject.executed(OpNumber(3), Vec::new());
    let due = id(&mut subject, OpNumber(4));
    take(&mut subject, due);
    subject.executed(OpNumber(6), Vec::new());
    lead(&mut subject, promise(1, 0, &entries, 6));
    let head = entries.last().expect("six").header.checksum;
    for _ in 0..20 {
        subject.hear(2, 1, telling(OpNumber(6), head, due));
        subject.pass(Config::default().heartbeat_interval);
    }
    subject.persisted();
    assert_eq!(subject.status().checkpoint, due, "two of three have it");
}

/// What a promise names as held is agreed on, whoever else is there no more to say so: a primary whose
/// log is full fetches it, although the checkpoint that its backup tells of by now is another one.
#[test]
fn a_new_primary_fetches_what_a_promise_says_is_held() {
    let (mut subject, _) = Subject::start_with(small_log, 3, 1, Disk::default());
    let entries = log(6);
    subject.hear(0, 0, prepare(&entries, committed(&entries, 6)));
    subject.persisted();
    subject.executed(OpNumber(6), Vec::new());
    let [held, at_rest] = [4, 5].map(|op| id(&mut subject, OpNumber(op)));
    let promise = promise(1, 0, &entries, 6);
    lead(&mut subject, DoViewChange { checkpoint: held, ..promise });
    let head = entries.last().expect("six").header.checksum;
    let mut fetched = 0;
    for _ in 0..20 {
        subject.hear(2, 1, telling(OpNumber(6), head, at_rest));
        let passed = subject.pass(Config::default().heartbeat_interval);
        fetched += passed.receivers(Kind::GetSnapshot).len();
    }
    assert!(fetched > 0, "nothing shortens its log, and requests are answered busy for ever");
}

/// A log that has no room for the next request is full, although no checkpoint has come due in it:
/// the largest request that is allowed needs more than what is left between two of them.
#[test]
fn a_log_without_room_for_the_largest_request_gets_a_checkpoint() {
    let mut primary = Subject::primary_with(few_bytes, 3);
    let session = primary.open_session();
    order(&mut primary, session, 1, 120);
    let head = primary.status().op_number;
    let checksum = primary.head_of(head);
    let large = |number| {
        let Message::Request(mut m) = request(session, number) else { unreachable!("a request") };
        m.operation = Bytes::from(vec![0; 300]);
        Message::Request(m)
    };
    primary.ask(large(2));
    assert_eq!(primary.status().op_number, head, "there is no room for it");
    let mut ordered = Vec::new();
    for _ in 0..10 {
        primary.hear(1, 0, acknowledge(head, checksum));
        ordered.extend(primary.pass(Config::default().heartbeat_interval).checkpoints());
    }
    assert_eq!(ordered, [head], "nothing else makes room");
    let at_rest = id(&mut primary, head);
    take(&mut primary, at_rest);
    primary.hear(1, 0, telling(head, checksum, at_rest));
    primary.persisted();
    primary.persisted();
    primary.ask(large(2));
    assert_eq!(primary.status().op_number, head.next(), "there is room now");
}

/// A primary whose own disk stands still gets no checkpoint, and its log stays full: it lets one lead
/// that has the one which a quorum has.
#[test]
fn a_primary_that_does_not_get_the_checkpoint_for_its_full_log_hands_its_view_off() {
    let (mut primary, _, head) = full_primary(small_log);
    let agreed = id(&mut primary, OpNumber(4));
    let checksum = primary.head_of(head);
    let mut handed_off = 0;
    for _ in 0..10 {
        for backup in [1, 2] {
            let standing = standing(StatusKind::Normal, 0, head.0);
            primary.hear(backup, 0, telling(head, checksum, agreed));
            primary.hear(backup, 0, Message::Ping(Ping { standing, sent_at: 0 }));
        }
        let passed = primary.pass(Config::default().heartbeat_interval);
        let began = |event: &&&Event| matches!(event, Event::HandoffBegan { .. });
        handed_off += passed.events().iter().filter(began).count();
    }
    assert!(handed_off > 0, "requests are answered busy for ever");
}
