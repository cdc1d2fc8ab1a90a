//! The chunks of a checkpoint that is fetched (VRR section 5.2): compressed or not, and verified.

use bytes::Bytes;
use vr_core::{
    MemoryCheckpoints,
    execution::transfer::{Task, TaskDone, perform},
    model::{
        checkpoint::{CHUNK_BYTES, Manifest},
        config::Config,
        durable::{CheckpointId, Durability},
        encoding::chunk::Carried,
        kind::Kind,
        message::Message,
        snapshot::{GetSnapshot, Released, Snapshot, SnapshotContent, SnapshotPart},
        types::{Checksum, OpNumber, RequestId},
    },
    replica::io::Input,
};

use crate::{
    outputs::{Outputs, picked},
    subject::{Disk, Subject, committed, log, prepare},
};

/// Two chunks, of which the second is short.
fn state() -> [Bytes; 2] {
    let length = usize::try_from(CHUNK_BYTES).expect("it fits into memory");
    [vec![7; length].into(), b"end ".repeat(9).into()]
}

fn manifest() -> Manifest {
    let [first, second] = state();
    let bytes = u64::try_from(first.len() + second.len()).expect("it is in memory");
    Manifest { bytes, chunks: [first, second].iter().map(|chunk| Checksum::of(chunk)).collect() }
}

fn checkpoint() -> CheckpointId {
    CheckpointId { op_number: OpNumber(9), checksum: Checksum(9), digest: manifest().digest() }
}

/// The questions for chunks: their names, which chunk, and whether it may come compressed.
fn questions(outputs: &Outputs) -> Vec<(RequestId, u32, bool)> {
    picked!(outputs, Message::GetSnapshot(GetSnapshot {
        request, part: SnapshotPart::Chunk(index), compressed, ..
    }) => (*request, *index, *compressed))
}

fn snapshot(request: RequestId, content: SnapshotContent) -> Message {
    Message::Snapshot(Snapshot { request, checkpoint: checkpoint(), content })
}

/// A backup that fetches the checkpoint, and what it asks for once it has the manifest.
struct Fetching {
    backup: Subject,
    store: MemoryCheckpoints,
    asked: Vec<(RequestId, u32, bool)>,
}

impl Fetching {
    fn begin(limit: impl Fn(&mut Config)) -> Self {
        let (mut backup, _) = Subject::start_with(limit, 3, 1, Disk::default());
        let last = log(10).split_off(9);
        let outputs = backup.hear(0, 0, prepare(&last, committed(&[], 0)));
        let [request] = picked!(outputs, Message::GetEntries(m) => m.request)[..] else {
            panic!("it lacks entries")
        };
        let released = Message::Released(Released { request, checkpoint: checkpoint() });
        let outputs = backup.hear(0, 0, released);
        let [request] = picked!(outputs, Message::GetSnapshot(m) => m.request)[..] else {
            panic!("it asks for the manifest")
        };
        let Manifest { bytes, chunks } = manifest();
        let page = SnapshotContent::Manifest { bytes, from: 0, chunks };
        let outputs = backup.hear(0, 0, snapshot(request, page));
        let mut fetching = Self { backup, store: MemoryCheckpoints::new(), asked: Vec::new() };
        fetching.work(outputs);
        fetching
    }

    /// Does what is to be done with checkpoints, and notes what is asked for.
    fn work(&mut self, mut outputs: Outputs) -> Vec<TaskDone> {
        let mut done = Vec::new();
        loop {
            self.asked.extend(questions(&outputs));
            let Some(task) = outputs.tasks().into_iter().next() else { return done };
            let outcome = perform(&self.store, task).expect("memory does not fail");
            done.push(outcome.clone());
            outputs = self.backup.handle(Input::Transferred(outcome));
        }
    }

    /// The name of the open question for the chunk at `index`.
    fn question(&self, index: u32) -> RequestId {
        let asked = self.asked.iter().rev().find(|(_, at, _)| *at == index);
        asked.expect("it was asked for").0
    }

    fn answer(&mut self, index: u32, content: SnapshotContent) -> Vec<TaskDone> {
        let outputs = self.backup.hear(2, 0, snapshot(self.question(index), content));
        self.work(outputs)
    }
}

/// Fetching: a chunk that comes compressed counts as the one that the manifest names, beside one that
/// comes as it is.
#[test]
fn chunks_count_compressed_or_not() {
    let mut fetching = Fetching::begin(|_| {});
    assert_eq!(fetching.asked.iter().map(|asked| asked.1).collect::<Vec<_>>(), [0, 1]);
    let [first, second] = state();
    let carried = Carried::compressed(first);
    assert!(carried.len() < 2000, "{} bytes", carried.len());
    let done = fetching.answer(0, SnapshotContent::chunk(0, carried));
    assert_eq!(done, [TaskDone::Put { checkpoint: checkpoint(), index: 0 }]);
    let done = fetching.answer(1, SnapshotContent::chunk(1, Carried::Raw(second)));
    let put = TaskDone::Put { checkpoint: checkpoint(), index: 1 };
    assert_eq!(done, [put, TaskDone::Completed { checkpoint: checkpoint() }]);
}

/// Fetching: what is not the chunk is refused, whatever it is and however it travels, and the chunk
/// is asked for again.
#[test]
fn what_is_not_the_chunk_is_refused_and_asked_for_again() {
    let [first, second] = state();
    let Carried::Compressed(block) = Carried::compressed(first.clone()) else { panic!("it is") };
    let mut other = first.to_vec();
    other[77] ^= 1;
    let Carried::Compressed(wrong) = Carried::compressed(other.clone().into()) else { panic!() };
    let Carried::Compressed(short) = Carried::compressed(second) else { panic!("it is") };
    let looked_at = [
        Carried::Raw(other.into()),
        Carried::Compressed(wrong),
        Carried::Compressed(short),
        Carried::Compressed(block.slice(..block.len() - 1)),
        Carried::Compressed(b"not a block".as_slice().into()),
        Carried::Compressed(Bytes::new()),
    ];
    let mut fetching = Fetching::begin(|_| {});
    let count = fetching.asked.len();
    let ignored = fetching.backup.status().ignored;
    for (times, carried) in looked_at.into_iter().enumerate() {
        let done = fetching.answer(0, SnapshotContent::chunk(0, carried));
        assert_eq!(done, [TaskDone::Refused { checkpoint: checkpoint(), index: 0 }]);
        assert_eq!(fetching.asked.len(), count + times + 1, "it is asked for again");
    }
    assert_eq!(fetching.backup.status().ignored, ignored + 6);
    let long = Carried::Compressed(first.clone());
    for carried in [Carried::Raw(first.slice(1..)), long] {
        let done = fetching.answer(0, SnapshotContent::chunk(0, carried));
        assert_eq!(done, [], "its length is enough");
    }
    assert_eq!(fetching.asked.len(), count + 8);
    let done = fetching.answer(0, SnapshotContent::Compressed { index: 0, block });
    assert_eq!(done, [TaskDone::Put { checkpoint: checkpoint(), index: 0 }]);
}

/// Fetching: whoever does not compress checkpoints does not ask for compressed chunks, and takes them.
#[test]
fn compressed_chunks_are_asked_for_where_the_configuration_says_so() {
    for compress in [false, true] {
        let mut fetching = Fetching::begin(|config| config.compress_checkpoints = compress);
        assert!(fetching.asked.iter().all(|(.., compressed)| *compressed == compress));
        let [first, _] = state();
        let done = fetching.answer(0, SnapshotContent::chunk(0, Carried::compressed(first)));
        assert_eq!(done, [TaskDone::Put { checkpoint: checkpoint(), index: 0 }]);
    }
}

/// Fetching: a chunk is compressed for who takes it so, by whoever does so.
#[test]
fn a_chunk_is_compressed_where_both_ends_do_so() {
    for (here, there) in [(false, false), (false, true), (true, false), (true, true)] {
        let hold = |superblock: &mut vr_core::model::durable::Superblock| {
            superblock.checkpoint = checkpoint();
        };
        let limit = |config: &mut Config| config.compress_checkpoints = here;
        let (mut holder, _) = Subject::start_on_with(limit, Durability::Full, 1, hold);
        let (request, part) = (RequestId(1), SnapshotPart::Chunk(0));
        let question = GetSnapshot { request, checkpoint: checkpoint(), part, compressed: there };
        let outputs = holder.hear(2, 0, Message::GetSnapshot(question));
        let tasks = outputs.tasks();
        let [task @ Task::Serve { compressed, .. }] = &tasks[..] else { panic!("{tasks:?}") };
        assert_eq!(*compressed, here && there, "{here} {there}");
        let served = perform(&stored(), task.clone()).expect("memory does not fail");
        let outputs = holder.handle(Input::Transferred(served));
        let told = picked!(outputs, Message::Snapshot(m) => m.content.clone());
        let [first, _] = state();
        let carried = if here && there { Carried::compressed(first) } else { Carried::Raw(first) };
        assert_eq!(told, [SnapshotContent::chunk(0, carried)]);
        assert_eq!(outputs.receivers(Kind::Snapshot), [2]);
    }
}

/// The checkpoint, in memory.
fn stored() -> MemoryCheckpoints {
    let store = MemoryCheckpoints::new();
    for (index, chunk) in (0..).zip(state()) {
        let facts = manifest().facts(index).expect("there are two");
        let put =
            Task::Put { checkpoint: checkpoint(), index, carried: Carried::Raw(chunk), facts };
        perform(&store, put).expect("memory does not fail");
    }
    let complete = Task::Complete { checkpoint: checkpoint(), manifest: manifest() };
    perform(&store, complete).expect("all chunks are there");
    store
}
