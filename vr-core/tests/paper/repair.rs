//! A log with damaged entries comes back from the others (docs/PROTOCOL.md, Repair).

use core::time::Duration;

use vr_core::model::{
    durable::CheckpointId,
    entries::{Entries, GetEntries, Headers, Wanted},
    entry::Entry,
    kind::Kind,
    message::{Message, Recovery, StartView, StatusKind},
    snapshot::Released,
    types::{Checksum, Nonce, OpNumber, RequestId, View},
};

use crate::{
    checkpoints::manifest,
    full_log::arrives,
    outputs::{Outputs, picked},
    subject::{
        Disk, Subject, commit, committed, extended, get_entries_from, head, headers, log, prepare,
        promise, vote,
    },
};

/// Replica 1, a backup of view 0 that holds three entries, of which the second is damaged, and what
/// it said first.
fn damaged() -> (Subject, Outputs) {
    Subject::start_damaged(&Disk { view: 0, log_view: 0, log: log(3) }, 2, 2)
}

/// Answers the questions among `asked` from `log`, as replica 0 in view 0.
fn answer(subject: &mut Subject, asked: &Outputs, log: &[Entry]) -> Outputs {
    let mut outputs = Outputs::default();
    for (to, message) in asked.sent() {
        let mut entries = log.to_vec();
        let answer = if let Message::GetHeaders(m) = message {
            entries.retain(|it| (m.from..=m.through).contains(&it.header.op_number));
            Message::Headers(Headers { request: m.request, headers: headers(&entries) })
        } else if let Message::GetEntries(GetEntries { request, wanted, .. }) = message {
            let Wanted::Exact(wanted) = wanted else { continue };
            entries.retain(|it| wanted.iter().any(|(op, _)| *op == it.header.op_number));
            Message::Entries(Entries { request, entries })
        } else {
            continue;
        };
        outputs.0.extend(subject.hear(to.0, 0, answer).0);
    }
    outputs
}

/// D11: until its log is whole a replica acknowledges nothing, executes nothing and follows nobody.
#[test]
fn a_replica_with_holes_acknowledges_nothing() {
    let (mut subject, outputs) = damaged();
    assert!(outputs.acknowledged().is_empty() && outputs.batches().is_empty());
    assert_eq!(subject.status().status, StatusKind::Recovering);
    let entries = log(4);
    let mut heard = subject.hear(0, 0, prepare(&entries[3..], committed(&entries, 3)));
    heard.0.extend(subject.hear(0, 0, commit(committed(&entries, 3), 1, 4)).0);
    assert!(heard.acknowledged().is_empty() && heard.batches().is_empty());
    assert_eq!((heard.ordered(), subject.status().commit_number), (vec![], OpNumber(0)));
}

/// D11: until its log is whole a replica joins view changes, and promises no log.
#[test]
fn a_replica_with_holes_promises_no_log() {
    let (mut subject, _) = damaged();
    subject.hear(0, 2, Message::DoViewChange(promise(2, 0, &log(1), 0)));
    assert_eq!(subject.status().view, View(2));
    let mut outputs = subject.persisted();
    outputs.0.extend(subject.pass(Duration::from_millis(500)).0);
    assert!(outputs.receivers(Kind::DoViewChange).is_empty());
    assert_eq!(subject.status().durable_view, View(2));
}

/// D11: until its log is whole a replica leads nothing: as primary of the next view it waits, too.
#[test]
fn a_replica_with_holes_starts_no_view() {
    let (mut subject, _) = damaged();
    for other in [0, 2] {
        subject.hear(other, 0, vote(0));
    }
    for other in [0, 2] {
        subject.hear(other, 4, Message::DoViewChange(promise(4, 0, &log(1), 0)));
    }
    let mut outputs = subject.persisted();
    outputs.0.extend(subject.persisted().0);
    assert!(outputs.receivers(Kind::StartView).is_empty());
    assert_eq!((subject.status().view, subject.status().log_view), (View(4), View(0)));
}

/// Repair: until its log is whole a replica speaks for no view: it serves what it holds by checksum
/// alone.
#[test]
fn a_replica_with_holes_serves_by_checksum_only() {
    let (mut subject, _) = damaged();
    assert!(subject.hear(0, 0, get_entries_from(1)).0.is_empty());
    let (nonce, view) = (Nonce(9), View(0));
    let recovery = Recovery { nonce, view, log_view: view, primary_restarted: false };
    let outputs = subject.hear(2, 0, Message::Recovery(recovery));
    assert!(outputs.receivers(Kind::RecoveryResponse).is_empty());
    let held = [&log(3)[0], &log(3)[1]].map(|it| (it.header.op_number, it.header.checksum));
    for (wanted, is_held) in held.into_iter().zip([true, false]) {
        let wanted = Wanted::Exact(vec![wanted]);
        let question = GetEntries { request: RequestId(1), wanted, bytes_max: 1 << 20 };
        let outputs = subject.hear(2, 0, Message::GetEntries(question));
        assert_eq!(outputs.receivers(Kind::Entries).is_empty(), is_held, "read back, if held");
    }
}

/// Steps 1 to 3: what is damaged is asked for by what is known of it, written in its place, and
/// counts when that is durable; then the replica is an intact one that was away.
#[test]
fn a_repaired_log_is_that_of_a_slow_backup() {
    let (mut subject, asked) = damaged();
    let asked = answer(&mut subject, &asked, &log(3));
    let outputs = answer(&mut subject, &asked, &log(3));
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    let repaired: Vec<OpNumber> = batch.repairs.iter().map(|it| it.header.op_number).collect();
    assert_eq!((repaired, batch.cut), (vec![OpNumber(2)], None));
    assert!(outputs.acknowledged().is_empty());
    let outputs = subject.persisted();
    assert_eq!((outputs.acknowledged(), subject.status().status), (vec![3], StatusKind::Normal));
}

/// Step 1: what another log has at the place of a damaged entry is not taken for it.
#[test]
fn another_entry_repairs_nothing() {
    let (mut subject, asked) = damaged();
    let asked = answer(&mut subject, &asked, &log(3));
    let other = extended(&log(1), 7, 2, 3);
    let outputs = answer(&mut subject, &asked, &other);
    assert!(outputs.batches().is_empty() && subject.status().incomplete);
    let again = subject.pass(Duration::from_millis(200));
    assert!(!again.receivers(Kind::GetEntries).is_empty(), "it is asked for again");
}

/// D13: the start of its own log view may be older than what it acknowledged there; that of a later
/// view replaces the log whole, holes and all.
#[test]
fn only_the_start_of_a_later_view_replaces_a_log_with_holes() {
    let (mut subject, _) =
        Subject::start_damaged(&Disk { view: 2, log_view: 2, log: log(3) }, 2, 2);
    let start = |view, log: &[Entry]| {
        Message::StartView(StartView {
            view: View(view),
            op_number: OpNumber(u64::try_from(log.len()).unwrap_or(0)),
            head: head(log),
            commit_number: OpNumber(0),
            checkpoint: CheckpointId::default(),
            suffix: headers(log),
            nonce: None,
        })
    };
    assert!(subject.hear(2, 2, start(2, &log(1))).batches().is_empty());
    subject.hear(0, 3, start(3, &log(1)));
    subject.persisted();
    subject.persisted();
    let status = subject.status();
    assert_eq!((status.status, status.log_view), (StatusKind::Normal, View(3)));
    assert_eq!((status.op_number, status.incomplete), (OpNumber(1), false));
    let told = picked!(subject.pass(Duration::ZERO), Message::GetHeaders(m) => m.request);
    assert!(told.is_empty(), "nothing is left to repair");
}

/// NP6, restarted: what is above a checkpoint that came from others is on disk until it is known to
/// be of another history. It counts for nothing until then, and is dropped then, whichever life
/// named the checkpoint.
#[test]
fn a_restart_does_not_keep_what_does_not_follow_its_checkpoint() {
    let entries = log(5);
    let checkpoint =
        CheckpointId { op_number: OpNumber(2), checksum: Checksum(77), digest: Checksum(1) };
    let disk = Disk { view: 3, log_view: 1, log: entries[2..].to_vec() };
    let (mut subject, asked) = Subject::start_damaged_above(checkpoint, &disk, 3, 4);
    assert!(asked.acknowledged().is_empty() && asked.receivers(Kind::DoViewChange).is_empty());
    let outputs = answer(&mut subject, &asked, &entries);
    assert_eq!(outputs.fatal(), None);
    let [batch] = outputs.batches()[..] else { panic!("one write") };
    assert_eq!((batch.cut, batch.repairs.len()), (Some(OpNumber(2)), 0));
    assert!(subject.status().incomplete && outputs.receivers(Kind::DoViewChange).is_empty());
    subject.persisted();
    let status = subject.status();
    assert_eq!((status.op_number, status.incomplete), (OpNumber(2), false));
    assert_eq!((status.view, status.log_view), (View(3), View(1)));
}

/// A log with a hole ends below the checkpoint that is fetched in its place: nothing of it is left
/// to repair, and the replica is one that was away. Whoever is left of a group needs its vote.
#[test]
fn a_replica_whose_holes_a_checkpoint_covers_leaves_a_dead_primary() {
    let (mut subject, asked) = damaged();
    let entries = log(4);
    let checkpoint = CheckpointId {
        op_number: OpNumber(4),
        checksum: head(&entries),
        digest: manifest().digest(),
    };
    let request = picked!(asked, Message::GetHeaders(m) => m.request);
    let [request] = request[..] else { panic!("the hole is asked for") };
    let asked = subject.hear(0, 0, Message::Released(Released { request, checkpoint }));
    arrives(&mut subject, &asked, checkpoint);
    for _ in 0..3 {
        subject.persisted();
    }
    assert_eq!(subject.status().checkpoint, checkpoint);
    assert!(!subject.status().incomplete);
    for _ in 0..100 {
        subject.hear(2, 0, vote(0));
        subject.pass(Duration::from_millis(100));
        subject.persisted();
    }
    assert!(subject.status().view > View(0), "nobody else is there to leave the view with");
}
