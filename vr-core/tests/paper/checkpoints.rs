//! Checkpoints: which are taken where a group stands still, which count, and how one is fetched.

use std::collections::BTreeMap;

use bytes::Bytes;
use vr_core::{
    Config, OpNumber,
    execution::{transfer::TaskDone, work::Executed},
    model::{
        checkpoint::{CHUNK_BYTES, Manifest},
        durable::CheckpointId,
        kind::Kind,
        message::{Message, PrepareOk},
        snapshot::{Released, Snapshot, SnapshotContent, SnapshotPart},
        types::Checksum,
    },
    replica::io::{Event, Input},
};

use crate::{
    outputs::{Outputs, picked},
    subject::{Disk, Subject, acknowledge, commit, committed, log, prepare, request},
};

/// The checkpoint after `op_number` of a state that is `digest`.
fn id(subject: &mut Subject, op_number: OpNumber, digest: u128) -> CheckpointId {
    CheckpointId { op_number, checksum: subject.head_of(op_number), digest: Checksum(digest) }
}

/// The executor has taken `id`.
pub(crate) fn take(subject: &mut Subject, id: CheckpointId) -> Outputs {
    let executed = Executed { through: id.op_number, taken: vec![id], ..Executed::default() };
    subject.handle(Input::Executed(executed))
}

/// An acknowledgement of everything through `op_number` that tells of `checkpoint`.
pub(crate) fn telling(
    op_number: OpNumber,
    checksum: Checksum,
    checkpoint: CheckpointId,
) -> Message {
    let Message::PrepareOk(told) = acknowledge(op_number, checksum) else { unreachable!("it is") };
    Message::PrepareOk(PrepareOk { checkpoint, ..told })
}

/// The primary orders one more request, which commits and is executed.
pub(crate) fn order(
    primary: &mut Subject,
    session: OpNumber,
    number: u64,
    bytes: usize,
) -> Outputs {
    let Message::Request(mut m) = request(session, number) else { unreachable!("a request") };
    m.operation = Bytes::from(vec![0; bytes]);
    primary.ask(Message::Request(m));
    primary.persisted();
    let op_number = primary.status().op_number;
    let head = primary.head_of(op_number);
    let outputs = primary.hear(1, 0, acknowledge(op_number, head));
    primary.executed(op_number, Vec::new());
    outputs
}

/// Every `checkpoint_ops` 2, and a log that is half full with three ops.
pub(crate) fn small_log(config: &mut Config) {
    (config.log_ops_max, config.checkpoint_ops) = (6, 2);
}

/// A round of reads brings heartbeats as soon after each other as the network carries them; a group
/// in whose log they find the same op has not stood still for that.
#[test]
fn heartbeats_of_reads_do_not_make_a_group_stand_still() {
    let (mut backup, _) = Subject::start_with(small_log, 3, 1, Disk::default());
    let entries = log(3);
    let mut ordered = backup.hear(0, 0, prepare(&entries, committed(&entries, 3))).checkpoints();
    backup.persisted();
    // The one that is due is taken when its op is committed, and the others tell of none.
    ordered.extend(backup.hear(0, 0, commit(committed(&entries, 3), 1, 3)).checkpoints());
    assert_eq!(ordered, [OpNumber(2)]);
    let due = id(&mut backup, OpNumber(2), 1);
    take(&mut backup, due);
    backup.executed(OpNumber(3), Vec::new());
    for heartbeat in 2..12 {
        let outputs = backup.hear(0, 0, commit(committed(&entries, 3), heartbeat, 3));
        assert_eq!(outputs.checkpoints(), [], "heartbeat {heartbeat} comes at once");
    }
    backup.pass(Config::default().heartbeat_interval);
    let outputs = backup.hear(0, 0, commit(committed(&entries, 3), 12, 3));
    assert_eq!(outputs.checkpoints(), [OpNumber(3)]);
}

/// Replicas that passed over what was due, each something else, agree on a checkpoint at last: where
/// all of them stand still.
#[test]
fn a_full_log_that_stands_still_gets_a_checkpoint() {
    let mut primary = Subject::primary_with(small_log, 3);
    let session = primary.open_session();
    let heartbeat = Config::default().heartbeat_interval;
    let mut ordered = Vec::new();
    for number in [1, 2] {
        primary.ask(request(session, number));
        primary.persisted();
        let op_number = primary.status().op_number;
        let head = primary.head_of(op_number);
        ordered.extend(primary.hear(1, 0, acknowledge(op_number, head)).checkpoints());
        for _ in 0..2 {
            ordered.extend(primary.pass(heartbeat).checkpoints());
            primary.hear(1, 0, acknowledge(op_number, head));
        }
        primary.executed(op_number, Vec::new());
        if number == 1 {
            // It is taken here, and the others tell of none.
            let id = CheckpointId { op_number, checksum: head, digest: Checksum(1) };
            let executed = Executed { through: op_number, taken: vec![id], ..Executed::default() };
            primary.handle(Input::Executed(executed));
        }
        for _ in 0..3 {
            ordered.extend(primary.pass(heartbeat).checkpoints());
            primary.hear(1, 0, acknowledge(op_number, head));
        }
    }
    assert_eq!(ordered, [OpNumber(2), OpNumber(3)], "the one that is due, and one at rest");
}

/// Bytes count from a checkpoint that was taken where the group stood still: a replica that starts
/// with it has nothing else to count from.
#[test]
fn bytes_count_from_a_checkpoint_that_was_taken_at_rest() {
    let limit = |config: &mut Config| {
        config.log_ops_max = 8;
        config.checkpoint_bytes = 1500;
    };
    let mut primary = Subject::primary_with(limit, 3);
    let session = primary.open_session();
    let due: Vec<_> = (1..=4)
        .flat_map(|number| order(&mut primary, session, number, 400).checkpoints())
        .collect();
    assert_eq!(due, [OpNumber(4)], "the log has another op behind it");
    let due = id(&mut primary, OpNumber(4), 1);
    take(&mut primary, due);
    let head = primary.status().op_number;
    let checksum = primary.head_of(head);
    let mut rested = Vec::new();
    for _ in 0..3 {
        rested.extend(primary.pass(Config::default().heartbeat_interval).checkpoints());
        primary.hear(1, 0, acknowledge(head, checksum));
    }
    assert_eq!(rested, [head]);
    let at_rest = id(&mut primary, head, 1);
    take(&mut primary, at_rest);
    primary.hear(1, 0, telling(head, checksum, at_rest));
    primary.persisted();
    assert_eq!(primary.status().checkpoint, at_rest);
    let due: Vec<_> = (5..=9)
        .flat_map(|number| order(&mut primary, session, number, 400).checkpoints())
        .collect();
    assert_eq!(due, [head.plus(3)], "three of them are more than 1500 bytes, two are not");
}

/// Replicas with different states execute again, with what was mended: that settles it, without one
/// more operation.
#[test]
fn a_difference_that_is_mended_is_settled_without_further_operations() {
    let limit = |config: &mut Config| config.checkpoint_ops = 2;
    let mut primary = Subject::primary_with(limit, 3);
    let session = primary.open_session();
    order(&mut primary, session, 1, 0);
    let (head, op_number) = (primary.head_of(OpNumber(2)), OpNumber(2));
    let [ours, theirs, others] = [1, 2, 3].map(|digest| id(&mut primary, op_number, digest));
    take(&mut primary, ours);
    primary.hear(1, 0, telling(op_number, head, theirs));
    let outputs = primary.hear(2, 0, telling(op_number, head, others));
    assert!(outputs.events().contains(&&Event::CheckpointsDiffer { op_number }));
    assert_eq!(primary.status().checkpoints_differ, Some(op_number));
    let outputs = primary.hear(2, 0, telling(op_number, head, others));
    assert!(outputs.events().is_empty(), "it is told once");
    primary.hear(2, 0, telling(op_number, head, ours));
    primary.persisted();
    let status = primary.status();
    assert_eq!((status.checkpoints_differ, status.checkpoint), (None, ours));
}

/// Checksums of six chunks.
pub(crate) fn manifest() -> Manifest {
    let chunks = (1..=6).map(Checksum).collect();
    Manifest { bytes: 6 * u64::from(CHUNK_BYTES), chunks }
}

/// A primary whose log is damaged where it has not executed yet, and which is told that the others
/// have released that: how many chunks it asks for at once, while it orders operations.
fn asked_by_a_busy_primary() -> usize {
    let limit = |config: &mut Config| {
        config.request_bytes_max = 500;
        config.pipeline_bytes_max = 1000;
        config.log_cache_bytes_max = 0;
        config.fetch_bytes_per_second = CHUNK_BYTES.into();
    };
    let mut primary = Subject::primary_with(limit, 3);
    let session = primary.open_session();
    let mut checksums = BTreeMap::new();
    for number in 1..=6 {
        let Message::Request(mut m) = request(session, number) else { unreachable!("a request") };
        m.operation = Bytes::from(vec![0; 400]);
        primary.ask(Message::Request(m));
        primary.persisted();
        let op_number = session.plus(number);
        let head = primary.head_of(op_number);
        checksums.insert(op_number, head);
        primary.hear(1, 0, acknowledge(op_number, head));
    }
    let outputs = primary.executed(session.plus(2), Vec::new());
    let [(request, op_number)] = outputs.read_back()[..] else { panic!("the next ones, once") };
    let outputs = primary.handle(Input::Unreadable { request, op_number });
    let asked = picked!(outputs, Message::GetEntries(m) => m.request);
    let [request, ..] = asked[..] else { panic!("what is damaged is asked for") };
    let checksum = checksums.get(&op_number).copied().expect("the primary told of it");
    let checkpoint = CheckpointId { op_number, checksum, digest: manifest().digest() };
    let outputs = primary.hear(1, 0, Message::Released(Released { request, checkpoint }));
    let asked = picked!(outputs, Message::GetSnapshot(m) => m.request);
    let ([request], [of]) = (&asked[..], &outputs.receivers(Kind::GetSnapshot)[..]) else {
        panic!("the manifest is asked for, once");
    };
    let (request, of) = (*request, *of);
    let Manifest { bytes, chunks } = manifest();
    let content = SnapshotContent::Manifest { bytes, from: 0, chunks };
    order_more(&mut primary, session, 7);
    primary.hear(of, 0, Message::Snapshot(Snapshot { request, checkpoint, content }));
    let looked = TaskDone::Looked { checkpoint, missing: (0..6).collect() };
    let outputs = primary.handle(Input::Transferred(looked));
    chunks_asked(&outputs)
}

fn chunks_asked(outputs: &Outputs) -> usize {
    let parts = picked!(outputs, Message::GetSnapshot(m) => m.part);
    parts.iter().filter(|part| matches!(part, SnapshotPart::Chunk(_))).count()
}

/// Between heartbeats the group orders something.
fn order_more(primary: &mut Subject, session: OpNumber, number: u64) {
    for number in [number, number + 1] {
        primary.pass(Config::default().heartbeat_interval);
        primary.ask(request(session, number));
        primary.persisted();
        let op_number = primary.status().op_number;
        let head = primary.head_of(op_number);
        primary.hear(1, 0, acknowledge(op_number, head));
    }
    primary.pass(Config::default().heartbeat_interval);
}

/// A primary that fetches a state spares its own group like any other replica.
#[test]
fn a_primary_that_fetches_leaves_room_for_what_it_orders() {
    assert_eq!(
        asked_by_a_busy_primary(),
        1,
        "one chunk a second, where four would be asked for at once"
    );
}
