//! Catching up without having crashed (VRR section 5.2, without its truncation).

use core::time::Duration;

use vr_core::model::{
    entries::{Entries, GetEntries, GetHeaders, Wanted},
    entry::Entry,
    kind::Kind,
    message::{Message, StatusKind},
    types::{Checksum, OpNumber, RequestId, View},
};

use crate::{
    outputs::{Outputs, picked},
    subject::{Disk, Subject, commit, committed, extended, get_entries_from, head, log, prepare},
};

/// The names of the questions for entries that were asked.
fn questions(outputs: &Outputs) -> Vec<RequestId> {
    picked!(outputs, Message::GetEntries(m) => m.request)
}

fn answer(request: RequestId, entries: &[Entry]) -> Message {
    Message::Entries(Entries { request, entries: entries.to_vec() })
}

/// A backup of view 0 that lacks the first op of three and has asked for it.
fn lagging(entries: &[Entry]) -> (Subject, RequestId) {
    let mut backup = Subject::backup(3);
    let outputs =
        backup.hear(0, 0, prepare(entries.get(2..3).unwrap_or_default(), committed(&[], 0)));
    let [question] = questions(&outputs)[..] else { panic!("one question") };
    (backup, question)
}

fn exact(entries: &[Entry], bytes_max: u32) -> Message {
    let wanted = entries.iter().map(|entry| (entry.header.op_number, entry.header.checksum));
    let wanted = Wanted::Exact(wanted.collect());
    Message::GetEntries(GetEntries { request: RequestId(1), wanted, bytes_max })
}

/// In the same view: what follows the last op is taken, and what came early behind it.
#[test]
fn what_was_missing_is_appended_with_what_came_early() {
    let entries = log(3);
    let (mut backup, question) = lagging(&entries);
    backup.hear(2, 0, answer(question, &entries[..2]));
    assert_eq!(backup.status().op_number, OpNumber(3));
}

/// In the same view: only an answer to the open question counts.
#[test]
fn an_answer_to_another_question_is_ignored() {
    let entries = log(3);
    let (mut backup, question) = lagging(&entries);
    backup.hear(2, 0, answer(RequestId(question.0 + 1), &entries[..2]));
    assert_eq!(backup.status().op_number, OpNumber(0));
}

/// In the same view: an answer from another view is not taken.
#[test]
fn an_answer_from_another_view_is_ignored() {
    let entries = log(3);
    let (mut backup, question) = lagging(&entries);
    backup.hear(2, 1, answer(question, &entries[..2]));
    assert_eq!(backup.status().op_number, OpNumber(0));
}

/// In the same view: a question without an answer is asked again.
#[test]
fn a_question_without_an_answer_is_asked_again() {
    let (mut backup, question) = lagging(&log(3));
    backup.hear(0, 0, commit(committed(&[], 0), 1, 3));
    let again = questions(&backup.pass(Duration::from_millis(60)));
    assert!(!again.is_empty() && !again.contains(&question));
}

/// In the same view: a replica in status normal answers with what follows the op.
#[test]
fn a_replica_of_the_view_answers_from_an_op_on() {
    let (mut backup, entries) = (Subject::backup(3), log(3));
    backup.hear(0, 0, prepare(&entries, committed(&[], 0)));
    let outputs = backup.hear(2, 0, get_entries_from(2));
    assert_eq!(
        (outputs.receivers(Kind::Entries), outputs.entries()),
        (vec![2], entries[1..].to_vec())
    );
}

/// From an op on: not told between two views, where the log may not be the view's.
#[test]
fn a_replica_between_two_views_does_not_answer_from_an_op_on() {
    let disk = Disk { view: 2, log_view: 0, log: log(3) };
    let (mut subject, _) = Subject::start(3, 1, disk);
    assert!(subject.hear(0, 2, get_entries_from(1)).0.is_empty(), "storage is not asked either");
}

/// By checksum: immutable, so it is told in every status; what differs is not.
#[test]
fn entries_are_told_by_checksum_in_every_status() {
    let entries = log(3);
    let disk = Disk { view: 2, log_view: 0, log: entries.clone() };
    let (mut subject, _) = Subject::start(3, 1, disk);
    let outputs = subject.hear(0, 0, exact(&entries[..2], 1 << 20));
    assert_eq!(outputs.0.len(), 1, "an answer, or a question to local storage");
    let other = extended(&[], 5, 1, 3);
    let outputs = subject.hear(0, 0, exact(&other, 1 << 20));
    assert_eq!((outputs.receivers(Kind::Entries), outputs.entries().len()), (vec![0], 0));
}

/// By checksum: answers are bounded by what was asked for, and one entry is always sent.
#[test]
fn an_answer_is_bounded_and_never_empty() {
    let (mut backup, entries) = (Subject::backup(3), log(3));
    backup.hear(0, 0, prepare(&entries, committed(&[], 0)));
    assert_eq!(backup.hear(2, 0, exact(&entries, 1)).entries().len(), 1);
    assert_eq!(backup.hear(2, 0, exact(&entries, 300)).entries().len(), 2);
}

/// By checksum: headers lead down from a known checksum; another checksum is not known.
#[test]
fn headers_are_told_below_a_known_checksum() {
    let (mut backup, entries) = (Subject::backup(3), log(3));
    backup.hear(0, 0, prepare(&entries, committed(&[], 0)));
    let mut told = |checksum| {
        let (request, from, through) = (RequestId(1), OpNumber(2), OpNumber(3));
        let question = Message::GetHeaders(GetHeaders { request, from, through, checksum });
        picked!(backup.hear(2, 7, question), Message::Headers(m) => m.headers.len())
    };
    assert_eq!((told(head(&entries)), told(Checksum(1))), (vec![2], vec![0]));
}

/// In a later view, D3: nothing is truncated; the view is promised and its log is asked for.
#[test]
fn a_later_view_is_asked_for_and_nothing_is_truncated() {
    let (mut backup, entries) = (Subject::backup(3), log(3));
    backup.hear(0, 0, prepare(&entries, committed(&entries, 1)));
    let outputs = backup.hear(2, 2, prepare(&log(1), committed(&[], 0)));
    let status = backup.status();
    assert_eq!(outputs.receivers(Kind::GetView), [2]);
    assert_eq!((status.status, status.view), (StatusKind::ViewChange, View(2)));
    assert_eq!((status.op_number, status.log_view), (OpNumber(3), View(0)));
}

/// In a later view, D30: a view that was heard of and does not answer is asked for again, of
/// everybody.
#[test]
fn a_view_that_does_not_answer_is_asked_for_everywhere() {
    let mut backup = Subject::backup(3);
    backup.hear(2, 2, commit(committed(&[], 0), 1, 0));
    let outputs = backup.pass(Duration::from_millis(120));
    assert_eq!(outputs.receivers(Kind::GetView)[..2], [0, 2]);
}
