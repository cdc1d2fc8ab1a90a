//! Reads without a place in the log (VRR section 6.3, by read index or with a lease).

use core::time::Duration;

use bytes::Bytes;
use vr_core::{
    CausalToken, Config,
    execution::work::Work,
    model::{
        kind::Kind,
        message::{
            Limit, Message, PrepareOk, Query, ReadIndex, ReadIndexOk, Rejected, Rejection,
            StatusKind,
        },
        read::Read,
        types::{Epoch, HeartbeatNumber, OpNumber, RequestId, RequestNumber},
    },
};

use crate::{
    outputs::{Outputs, picked},
    subject::{
        CLIENT, Disk, Subject, acknowledge, commit, committed, head, log, next_primary,
        nothing_committed, prepare, promise, register, vote,
    },
};

fn query(number: u64) -> Message {
    Message::Query(Query {
        client: CLIENT,
        request_number: RequestNumber(number),
        query: Bytes::from_static(b"value?"),
        read: Read::Linearizable,
    })
}

fn echo(heartbeat: HeartbeatNumber) -> Message {
    let Message::PrepareOk(answer) = acknowledge(OpNumber(0), head(&[])) else {
        unreachable!("an acknowledgement")
    };
    Message::PrepareOk(PrepareOk { heartbeat, ..answer })
}

/// The heartbeat that left with `outputs`.
fn heartbeat(outputs: &Outputs) -> HeartbeatNumber {
    let rounds = picked!(outputs, Message::Commit(m) => m.heartbeat);
    *rounds.first().expect("a heartbeat left")
}

fn queries(outputs: &Outputs) -> usize {
    outputs.work().iter().filter(|work| matches!(work, Work::Query { .. })).count()
}

/// Step 2: a read waits until a quorum has answered a heartbeat that was sent after it came.
#[test]
fn a_read_waits_for_a_round_that_began_after_it() {
    let mut primary = Subject::primary(3);
    let outputs = primary.ask(query(1));
    let round = heartbeat(&outputs);
    assert_eq!(queries(&outputs), 0);
    assert_eq!(queries(&primary.hear(1, 0, echo(HeartbeatNumber(round.0 - 1)))), 0);
    assert_eq!(queries(&primary.hear(1, 0, echo(round))), 1);
}

/// Step 2: reads that arrive during a round share the next one.
#[test]
fn reads_that_arrive_during_a_round_share_the_next() {
    let mut primary = Subject::primary(3);
    let first = heartbeat(&primary.ask(query(1)));
    assert!(primary.ask(query(2)).receivers(Kind::Commit).is_empty());
    primary.ask(query(3));
    let outputs = primary.hear(1, 0, echo(first));
    assert_eq!(queries(&outputs), 1);
    let second = heartbeat(&outputs);
    assert_eq!(queries(&primary.hear(2, 0, echo(second))), 2);
}

/// Step 2: answers to a round of a view that was left prove nothing.
#[test]
fn a_round_ends_with_its_view() {
    let mut primary = Subject::primary(3);
    let mut outputs = primary.ask(query(1));
    let round = heartbeat(&outputs);
    for voter in [1, 2] {
        outputs.0.extend(primary.hear(voter, 0, vote(0)).0);
    }
    outputs.0.extend(primary.hear(1, 0, echo(round)).0);
    assert_eq!(queries(&outputs), 0);
    assert_eq!(primary.status().status, StatusKind::ViewChange);
}

/// Step 2: a group of one has its quorum in itself.
#[test]
fn a_group_of_one_reads_at_once() {
    let mut primary = Subject::primary(1);
    assert_eq!(queries(&primary.ask(query(1))), 1);
}

/// Step 2: a primary that has not committed everything it started with makes reads wait.
#[test]
fn a_read_waits_for_everything_the_view_started_with() {
    let entries = log(1);
    let mut primary = next_primary(&entries);
    primary.hear(2, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    primary.persisted();
    assert!(primary.ask(query(1)).receivers(Kind::Commit).is_empty(), "no round begins");
    let outputs = primary.hear(2, 1, acknowledge(OpNumber(1), head(&entries)));
    assert_eq!(queries(&primary.hear(2, 1, echo(heartbeat(&outputs)))), 1);
}

fn leased(number: u64) -> Message {
    let Message::Query(asked) = query(number) else { unreachable!("a query") };
    Message::Query(Query { read: Read::Lease, ..asked })
}

/// Answers `heartbeat` and grants a lease of so many milliseconds.
fn grant(heartbeat: HeartbeatNumber, milliseconds: u64) -> Message {
    let Message::PrepareOk(answer) = echo(heartbeat) else { unreachable!("an acknowledgement") };
    Message::PrepareOk(PrepareOk { lease: Duration::from_millis(milliseconds), ..answer })
}

fn with_lease(config: &mut Config) {
    config.lease = Duration::from_millis(100);
    config.clock_drift_ppm_max = 10_000;
}

/// A primary that was granted a lease answers by itself until it ends: 100 ms after the heartbeat
/// left, less what clocks drift and a millisecond.
#[test]
fn a_leased_read_is_answered_until_the_lease_ends() {
    let mut primary = Subject::primary_with(with_lease, 3);
    let round = heartbeat(&primary.pass(Duration::from_millis(50)));
    assert_eq!(queries(&primary.ask(leased(1))), 0, "nobody has granted anything yet");
    primary.hear(1, 0, grant(round, 100));
    primary.pass(Duration::from_millis(49));
    assert_eq!(queries(&primary.ask(leased(2))), 1);
    primary.pass(Duration::from_millis(48));
    assert!(primary.status().leased_for > Duration::ZERO);
    primary.pass(Duration::from_millis(1));
    assert_eq!(primary.status().leased_for, Duration::ZERO);
    assert_eq!(queries(&primary.ask(leased(3))), 0);
}

/// A lease is of no use to a primary that is configured to have none.
#[test]
fn a_grant_without_a_lease_is_not_used() {
    let mut primary = Subject::primary(3);
    let round = heartbeat(&primary.pass(Duration::from_millis(50)));
    primary.hear(1, 0, grant(round, 100));
    assert_eq!(queries(&primary.ask(leased(1))), 0);
}

/// A backup that has heard its primary sends no vote before its grant ends, whoever else votes.
#[test]
fn a_backup_keeps_still_while_its_grant_lasts() {
    let (mut backup, _) = Subject::start_with(with_lease, 3, 2, Disk::default());
    let mut granted = Vec::new();
    for round in 1..=5 {
        let outputs = backup.hear(0, 0, commit(nothing_committed(3), round, 0));
        granted.extend(picked!(outputs, Message::PrepareOk(m) => m.lease));
        backup.persisted();
        backup.pass(Duration::from_millis(40));
    }
    let lease = Duration::from_millis(100);
    assert_eq!(granted.first(), Some(&Duration::ZERO), "it may have granted before it started");
    assert_eq!(granted.last(), Some(&lease), "{granted:?}");
    backup.hear(1, 1, Message::DoViewChange(promise(1, 0, &[], 0)));
    let votes = |outputs: &Outputs| outputs.receivers(Kind::DoViewChange).len();
    assert_eq!(votes(&backup.persisted()), 0);
    assert_eq!(votes(&backup.pass(Duration::from_millis(59))), 0);
    assert_eq!(votes(&backup.pass(Duration::from_millis(1))), 2);
}

/// Step 1: a backup asks its primary once for all reads that wait.
#[test]
fn a_backup_asks_once_for_all_reads_that_wait() {
    let mut backup = Subject::backup(3);
    assert_eq!(backup.ask(query(1)).receivers(Kind::ReadIndex), [0]);
    assert!(backup.ask(query(2)).receivers(Kind::ReadIndex).is_empty());
}

/// Step 3: the primary answers a backup with its commit number, after a round.
#[test]
fn a_read_index_is_answered_after_a_round() {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    let question = ReadIndex { request: RequestId(8) };
    let outputs = primary.hear(2, 0, Message::ReadIndex(question));
    assert!(outputs.receivers(Kind::ReadIndexOk).is_empty());
    let told = picked!(primary.hear(1, 0, echo(heartbeat(&outputs))), Message::ReadIndexOk(m) => (m.request, m.op_number));
    assert_eq!(told, [(RequestId(8), session)]);
}

/// Step 4: a backup answers when it has handed everything through the read index to its executor.
#[test]
fn a_backup_reads_when_it_has_ordered_the_index() {
    let (mut backup, entries) = (Subject::backup(3), log(2));
    let asked = picked!(backup.ask(query(1)), Message::ReadIndex(m) => m.request);
    let answer = ReadIndexOk { request: asked[0], op_number: OpNumber(2), time: 0 };
    assert_eq!(queries(&backup.hear(0, 0, Message::ReadIndexOk(answer))), 0);
    let outputs = backup.hear(0, 0, prepare(&entries, committed(&entries, 2)));
    assert_eq!((outputs.ordered(), queries(&outputs)), (vec![1, 2], 1));
}

/// Step 3: a query is told the time that the primary chose, at whatever replica it is asked.
#[test]
fn a_query_is_told_the_time_of_the_primary() {
    let mut backup = Subject::backup(3);
    let asked = picked!(backup.ask(query(1)), Message::ReadIndex(m) => m.request);
    let answer = ReadIndexOk { request: asked[0], op_number: OpNumber(0), time: 5 };
    let outputs = backup.hear(0, 0, Message::ReadIndexOk(answer));
    let [Work::Query { time, .. }] = outputs.work()[..] else { panic!("one query") };
    assert_eq!(time.as_nanos(), 5);
}

/// Step 3: a read index of another view's primary is not believed.
#[test]
fn a_read_index_that_is_not_from_the_primary_is_ignored() {
    let mut backup = Subject::backup(3);
    backup.ask(query(1));
    let answer = ReadIndexOk { request: RequestId(1), op_number: OpNumber(0), time: 0 };
    assert_eq!(queries(&backup.hear(2, 0, Message::ReadIndexOk(answer))), 0);
}

/// Step 2: a read is not answered by a primary that no quorum answers.
#[test]
fn a_primary_alone_answers_no_read() {
    let mut primary = Subject::primary(3);
    let mut outputs = primary.ask(query(1));
    outputs.0.extend(primary.pass(Duration::from_secs(2)).0);
    assert_eq!(queries(&outputs), 0);
}

/// Step 2: reads write nothing.
#[test]
fn a_read_writes_nothing() {
    let mut primary = Subject::primary(3);
    let outputs = primary.ask(query(1));
    let answered = primary.hear(1, 0, echo(heartbeat(&outputs)));
    assert!(outputs.batches().is_empty() && answered.batches().is_empty());
}

/// Step 1: a read that asks for no more is answered from what is executed here.
#[test]
fn a_local_read_asks_nobody() {
    let mut backup = Subject::backup(3);
    let Message::Query(local) = query(1) else { unreachable!("a query") };
    let outputs = backup.ask(Message::Query(Query { read: Read::Local, ..local }));
    assert_eq!((queries(&outputs), outputs.sent().len()), (1, 0));
}

fn causal(number: u64, epoch: u64, op_number: u64) -> Message {
    let Message::Query(asked) = query(number) else { unreachable!("a query") };
    let (epoch, op_number) = (Epoch(epoch), OpNumber(op_number));
    Message::Query(Query { read: Read::Causal(CausalToken { epoch, op_number }), ..asked })
}

/// Causal reads: a replica answers when it has executed what the token names, and asks nobody.
#[test]
fn a_causal_read_waits_for_what_its_token_names() {
    let mut backup = Subject::backup(3);
    let entries = log(2);
    assert_eq!(queries(&backup.ask(causal(1, 0, 0))), 1, "nothing is asked for");
    let outputs = backup.ask(causal(2, 0, 2));
    assert_eq!((queries(&outputs), outputs.sent().len()), (0, 0));
    assert_eq!(queries(&backup.hear(0, 0, prepare(&entries, committed(&entries, 1)))), 0);
    let outputs = backup.hear(0, 0, prepare(&[], committed(&entries, 2)));
    assert_eq!((outputs.ordered(), queries(&outputs)), (vec![2], 1));
    assert_eq!(queries(&backup.ask(causal(3, 0, 2))), 1, "by now it is executed");
}

/// Causal reads: a token of an epoch that this replica knows nothing of is not for it.
#[test]
fn a_token_of_a_later_epoch_is_not_answered() {
    let mut backup = Subject::backup(3);
    let outputs = backup.ask(causal(1, 1, 0));
    assert_eq!((queries(&outputs), outputs.told().len()), (0, 0));
}

/// Causal reads: too many that wait are answered busy, and those that were given up make room.
#[test]
fn causal_reads_over_the_limit_are_answered_busy() {
    let mut primary = Subject::primary_with(|config| config.reads_max = 1, 3);
    assert!(primary.ask(causal(1, 0, 9)).told().is_empty());
    let again = primary.ask(causal(1, 0, 9));
    let Message::Rejected(Rejected { reason, .. }) = again.told()[0] else { panic!("busy") };
    assert_eq!(reason, Rejection::Busy(Limit::Reads));
    primary.pass(Duration::from_secs(2));
    assert!(primary.ask(causal(2, 0, 9)).told().is_empty());
}

/// Step 1: too many reads that wait are answered busy.
#[test]
fn reads_over_the_limit_are_answered_busy() {
    let mut primary = Subject::primary_with(|config| config.reads_max = 1, 3);
    primary.ask(query(1));
    primary.ask(query(2));
    let told = primary.ask(query(3)).told();
    let [Message::Rejected(Rejected { reason, .. })] = &told[..] else { panic!("busy") };
    assert_eq!(*reason, Rejection::Busy(Limit::Reads));
    assert!(primary.ask(register()).told().is_empty(), "requests are not concerned");
}
