//! A state on the state machine's own disk: used, waited for, or of no use.

use core::time::Duration;

use vr_core::{
    execution::work::{Executed, Restored, Work},
    model::{
        certificate::CertificateHash,
        companion::{Persisted, StateOnDisk},
        durable::{CheckpointId, Durability, Superblock},
        entry::Entry,
        types::{Checksum, GroupId, OpNumber},
    },
    replica::io::{Discarded, Event, Fatal, Input},
};

use crate::{
    outputs::Outputs,
    subject::{Disk, GROUP, Subject, certificate, commit, committed, log, members, prepare},
};

/// The state after the first `op` entries of `log`, in the group of three.
fn state(log: &[Entry], op: u64) -> Persisted {
    let entry = log.iter().find(|entry| entry.header.op_number == OpNumber(op));
    let header = entry.expect("there is such an op").header;
    Persisted {
        group: members(3).group_id(GROUP),
        certificate: certificate(3).to_hash(),
        op_number: OpNumber(op),
        checksum: header.checksum,
        time: Duration::from_nanos(header.time),
    }
}

/// Replica 1 of three in view 0 with `log` on its disk, and `state` on that of its state machine.
fn backup(log: &[Entry], state: Persisted) -> (Subject, Outputs) {
    let disk = Disk { log: log.to_vec(), ..Disk::default() };
    Subject::start_with_state(&disk, Some(StateOnDisk::At(state)), |_| {})
}

fn events(outputs: &Outputs) -> Vec<Event> {
    let ours = |event: &&&Event| {
        matches!(event, Event::StateResumed { .. } | Event::StateDiscarded { .. })
    };
    outputs.events().iter().filter(ours).map(|event| (*event).clone()).collect()
}

fn resumed(op: u64) -> Vec<Event> {
    vec![Event::StateResumed { op_number: OpNumber(op) }]
}

fn discarded(reason: Discarded) -> Vec<Event> {
    vec![Event::StateDiscarded { reason }]
}

fn work(outputs: &Outputs) -> Vec<Work> {
    outputs.work().into_iter().cloned().collect()
}

fn belong() -> Work {
    Work::Belong { certificate: certificate(3).to_hash() }
}

/// State on disk, 2: a log that contains what the state does proves that this is committed, and
/// execution goes on behind it without a word from anybody.
#[test]
fn a_state_that_the_log_covers_is_used_at_once() {
    let entries = log(5);
    let (mut backup, outputs) = backup(&entries, state(&entries, 3));
    assert_eq!(work(&outputs), [belong(), Work::Resume]);
    assert_eq!(events(&outputs), resumed(3));
    assert_eq!(backup.status().commit_number, OpNumber(3));
    let restored =
        Restored { op_number: OpNumber(3), time: Duration::from_nanos(1), sessions: Vec::new() };
    let executed =
        Executed { through: OpNumber(3), restored: Some(restored), ..Executed::default() };
    backup.handle(Input::Executed(executed));
    assert_eq!(backup.status().applied, OpNumber(3));
    // What follows has to be read back from the log.
    let outputs = backup.hear(0, 0, commit(committed(&entries, 5), 1, 5));
    assert_eq!(outputs.fetches(), [(4, 5)]);
}

/// State on disk, 2: a log that ends before the state does is waited for, and nothing is executed
/// meanwhile.
#[test]
fn a_state_ahead_of_the_log_waits() {
    let entries = log(5);
    let (mut backup, outputs) = backup(&entries[..2], state(&entries, 4));
    assert_eq!((work(&outputs), events(&outputs)), (vec![belong()], Vec::new()));
    assert_eq!(backup.status().state_waits, Some(OpNumber(4)));
    let outputs = backup.hear(0, 0, prepare(&entries[2..], committed(&entries, 3)));
    assert_eq!(outputs.ordered(), Vec::<u64>::new());
    backup.persisted();
    let outputs = backup.hear(0, 0, commit(committed(&entries, 5), 2, 5));
    assert_eq!(events(&outputs), resumed(4));
    assert_eq!(backup.status().state_waits, None);
    assert_eq!(work(&outputs)[0], Work::Resume);
    assert_eq!(outputs.ordered(), [5]);
}

/// State on disk, 1: a state counts in its own group only, and in no epoch but its own.
#[test]
fn a_state_of_another_group_is_discarded() {
    let entries = log(3);
    let ours = state(&entries, 3);
    for foreign in [
        Persisted { group: GroupId(1), ..ours },
        Persisted { certificate: CertificateHash(1), ..ours },
    ] {
        let (backup, outputs) = backup(&entries, foreign);
        assert_eq!(work(&outputs), [belong(), Work::Discard]);
        assert_eq!(events(&outputs), discarded(Discarded::OtherGroup));
        assert_eq!(backup.status().commit_number, OpNumber::ZERO);
    }
}

/// State on disk, 1: what takes the place of one that was discarded is whole when it contains what the
/// log does, and not before.
#[test]
fn a_discarded_state_is_whole_again_when_the_log_is_executed() {
    let entries = log(3);
    let foreign = Persisted { group: GroupId(1), ..state(&entries, 3) };
    let (mut backup, _) = backup(&entries, foreign);
    assert!(!backup.has_state(3) && !backup.has_state(0), "nothing is executed yet");
    let outputs = backup.hear(0, 0, commit(committed(&entries, 3), 1, 3));
    assert_eq!(outputs.fetches(), [(1, 3)]);
    let (request, _) = outputs.read_back()[0];
    backup.handle(Input::Fetched { request, entries });
    backup.executed(OpNumber(2), Vec::new());
    assert!(!backup.has_state(3));
    backup.executed(OpNumber(3), Vec::new());
    assert!(backup.has_state(3));
}

/// State on disk, 1: what follows an older state is not in the log any more.
#[test]
fn a_state_behind_the_log_is_discarded_for_the_checkpoint() {
    let entries = log(5);
    let header = entries[2].header;
    let checkpoint =
        CheckpointId { op_number: OpNumber(3), checksum: header.checksum, digest: Checksum(1) };
    let rest = Disk { log: entries[3..].to_vec(), ..Disk::default() };
    let name = |superblock: &mut Superblock| superblock.checkpoint = checkpoint;
    let start = |op| {
        let found = Some(StateOnDisk::At(state(&entries, op)));
        let outputs = Subject::start_with_state(&rest, found, name).1;
        (work(&outputs), events(&outputs))
    };
    let behind = Discarded::Behind { op_number: OpNumber(2), base: OpNumber(3) };
    let restore = Work::Restore { checkpoint };
    assert_eq!(start(2), (vec![belong(), Work::Discard, restore], discarded(behind)));
    for op in [3, 4] {
        assert_eq!(start(op), (vec![belong(), Work::Resume], resumed(op)), "no checkpoint");
    }
}

/// State on disk, 1: an unreadable companion is said to be one; then there is nothing on disk.
#[test]
fn an_unreadable_companion_is_told_of() {
    let disk = Disk { log: log(3), ..Disk::default() };
    let start = |found| {
        let outputs = Subject::start_with_state(&disk, found, |_| {}).1;
        (work(&outputs), events(&outputs))
    };
    let unreadable = discarded(Discarded::Unreadable);
    assert_eq!(start(Some(StateOnDisk::Unreadable)), (vec![belong()], unreadable));
    assert_eq!(start(Some(StateOnDisk::Empty)), (vec![belong()], Vec::new()));
    assert_eq!(start(None), (Vec::new(), Vec::new()));
}

/// State on disk, 2: within one group there is one history; a state of another one is evidence that
/// something went badly wrong.
#[test]
fn another_history_in_the_same_group_stops_the_replica() {
    let entries = log(3);
    let other = Persisted { checksum: Checksum(77), ..state(&entries, 2) };
    let (mut backup, outputs) = backup(&entries, other);
    assert_eq!(work(&outputs), [belong()]);
    let outputs = backup.hear(0, 0, commit(committed(&entries, 3), 1, 3));
    let Some(Fatal::Diverged { op_number: OpNumber(2), ours: Checksum(77), .. }) = outputs.fatal()
    else {
        panic!("{outputs:?}");
    };
}

/// State on disk, 1: a replica without a certificate does not know whose state it has, and says
/// nothing of it.
#[test]
fn a_blank_replica_decides_nothing() {
    let entries = log(3);
    let blank = |superblock: &mut Superblock| superblock.certificate = None;
    for durability in Durability::ALL {
        let found = Some(StateOnDisk::At(state(&entries, 3)));
        let disk = Disk::default();
        let (mut replica, outputs) = Subject::start_in_with_state(durability, &disk, found, blank);
        assert_eq!((work(&outputs), events(&outputs)), (Vec::new(), Vec::new()));
        let outputs = replica.pass(Duration::from_secs(1));
        assert_eq!((work(&outputs), events(&outputs)), (Vec::new(), Vec::new()));
    }
}
