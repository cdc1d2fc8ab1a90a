//! A checkpoint on its way from the other replicas: what is here, what was asked of whom.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{
        checkpoint::{ChunkFacts, Manifest},
        durable::CheckpointId,
        encoding::chunk::Carried,
        snapshot::{GetSnapshot, SnapshotPart},
        time::Instant,
        types::{Checksum, OpNumber, PersistId, ReplicaIndex, ReplicaSet, RequestId, View},
    },
    state::pace::Pace,
};

/// Questions that one peer has open at most.
const QUESTIONS_MAX: usize = 2;
/// Chunks that storage has not confirmed at most, besides those that are asked for.
const STORING_MAX: usize = 8;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The manifest arrives, page by page.
    Manifest(Manifest),
    /// Storage looks which chunks are here.
    Looking,
    /// Chunks arrive.
    Chunks,
    /// All chunks are here; storage makes them a checkpoint.
    Completing,
    /// It is a checkpoint in local storage.
    Complete,
    /// The superblock that names it is being written.
    Naming(PersistId),
}

/// What was asked of a peer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    of: ReplicaIndex,
    part: SnapshotPart,
    at: Instant,
}

/// A checkpoint that others hold and this replica needs.
///
/// Invariants: a chunk is wanted, asked for, being stored, or stored; a peer has at most two
/// questions open, and storage at most eight chunks, so that memory is bounded whatever its size.
#[derive(Clone, Debug)]
pub struct Incoming {
    checkpoint: CheckpointId,
    step: Step,
    manifest: Manifest,
    wanted: BTreeSet<u32>,
    asked: BTreeMap<RequestId, Asked>,
    storing: BTreeSet<u32>,
    stored: u32,
    /// Who does not have it.
    lacking: ReplicaSet,
    /// Who did not answer the last question in time.
    silent: ReplicaSet,
    progress: bool,
    /// Bytes of chunks that arrived.
    received: u64,
    turn: usize,
    pace: Pace,
    /// Whether chunks may come compressed.
    compressed: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Storage is to look which chunks of this are here.
    Look(Manifest),
    /// Storage is to make it complete.
    Complete(Manifest),
    /// Nothing before something arrives.
    Wait,
}

impl Incoming {
    /// Nothing of `checkpoint` is here; its chunks are asked for at this pace, and may come
    /// `compressed` or not.
    #[must_use]
    pub fn new(checkpoint: CheckpointId, pace: Pace, compressed: bool) -> Self {
        Self {
            checkpoint,
            step: Step::Manifest(Manifest::default()),
            manifest: Manifest::default(),
            wanted: BTreeSet::new(),
            asked: BTreeMap::new(),
            storing: BTreeSet::new(),
            stored: 0,
            lacking: ReplicaSet::EMPTY,
            silent: ReplicaSet::EMPTY,
            progress: false,
            received: 0,
            turn: 0,
            pace,
            compressed,
        }
    }

    /// The primary of `view` tells how far its log goes: see [`Pace::told`].
    pub fn told(&mut self, now: Instant, view: View, op_number: OpNumber, lasting: Duration) {
        self.pace.told(now, view, op_number, lasting);
    }

    /// Which one it is.
    #[must_use]
    pub const fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// The last op in it, chunks that are here, and chunks in all; zero of zero before the manifest
    /// is here.
    #[must_use]
    pub fn extent(&self) -> (OpNumber, u32, u32) {
        (self.checkpoint.op_number, self.stored, self.manifest.count())
    }

    /// Bytes of chunks that arrived, as they travelled, those that came twice included.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether something arrived or was stored since this was asked last.
    pub const fn take_progress(&mut self) -> bool {
        core::mem::replace(&mut self.progress, false)
    }

    /// Forgets what was asked `patience` ago; it is asked again, of somebody else.
    pub fn expire(&mut self, now: Instant, patience: Duration) {
        let is_late = |asked: &Asked| asked.at + patience <= now;
        let late: Vec<RequestId> =
            self.asked.iter().filter(|(_, asked)| is_late(asked)).map(|(id, _)| *id).collect();
        for request in late {
            if let Some(asked) = self.put_back(request) {
                self.silent.insert(asked.of);
            }
        }
    }

    /// The way to `of` broke: what it was asked for is asked of others.
    pub fn lost(&mut self, of: ReplicaIndex) {
        let asked = self.asked.iter().filter(|(_, asked)| asked.of == of);
        let lost: Vec<RequestId> = asked.map(|(request, _)| *request).collect();
        for request in lost {
            self.put_back(request);
        }
    }

    fn put_back(&mut self, request: RequestId) -> Option<Asked> {
        let asked = self.asked.remove(&request)?;
        if let SnapshotPart::Chunk(index) = asked.part {
            self.wanted.insert(index);
        }
        Some(asked)
    }

    /// When to look again: the oldest open question expires, if each has `patience`, or the next
    /// chunk may be asked for.
    #[must_use]
    pub fn due(&self, now: Instant, patience: Duration) -> Instant {
        let expires = self.asked.values().map(|asked| asked.at + patience).min();
        let paced = Some(self.pace.look_at(now)).filter(|at| self.has_room() && *at > now);
        expires.into_iter().chain(paced).min().unwrap_or(now + patience)
    }

    /// Whether there is a chunk to be asked for, and room for it.
    fn has_room(&self) -> bool {
        self.step == Step::Chunks && self.storing.len() < STORING_MAX && !self.wanted.is_empty()
    }

    /// Whether somebody of `peers` said that it is not there, and nobody says otherwise.
    #[must_use]
    pub fn is_gone(&self, peers: &[ReplicaIndex]) -> bool {
        let gone = |index: &ReplicaIndex| self.lacking.contains(*index);
        let mute = |index: &ReplicaIndex| gone(index) || self.silent.contains(*index);
        self.is_asking() && peers.iter().any(gone) && peers.iter().all(mute)
    }

    const fn is_asking(&self) -> bool {
        matches!(self.step, Step::Manifest(_) | Step::Chunks)
    }

    /// The next question and whom to ask, if one of `peers` can take one more.
    pub fn question(
        &mut self,
        request: RequestId,
        peers: &[ReplicaIndex],
        now: Instant,
    ) -> Option<(ReplicaIndex, GetSnapshot)> {
        let part = match &self.step {
            Step::Manifest(pages) if self.asked.is_empty() => SnapshotPart::Manifest(pages.count()),
            Step::Chunks if self.has_room() && self.pace.next(now) <= now => {
                SnapshotPart::Chunk(*self.wanted.first()?)
            }
            Step::Manifest(_)
            | Step::Looking
            | Step::Chunks
            | Step::Completing
            | Step::Complete
            | Step::Naming(_) => return None,
        };
        let open = |of: ReplicaIndex| self.asked.values().filter(|asked| asked.of == of).count();
        let ready = (0..peers.len())
            .filter_map(|step| peers.get((self.turn + step) % peers.len()))
            .find(|of| !self.lacking.contains(**of) && open(**of) < QUESTIONS_MAX);
        let of = *ready?;
        self.turn = self.turn.wrapping_add(1);
        if let SnapshotPart::Chunk(index) = part {
            self.wanted.remove(&index);
            self.pace.asked(now);
        }
        self.asked.insert(request, Asked { of, part, at: now });
        let (checkpoint, compressed) = (self.checkpoint, self.compressed);
        Some((of, GetSnapshot { request, checkpoint, part, compressed }))
    }

    /// Whether `request` is an open question.
    #[must_use]
    pub fn has_asked(&self, request: RequestId) -> bool {
        self.asked.contains_key(&request)
    }

    /// Whoever was asked does not have it.
    pub fn gone(&mut self, request: RequestId) {
        if let Some(asked) = self.put_back(request) {
            self.lacking.insert(asked.of);
        }
    }

    /// A page of the manifest arrived. Returns what comes next; `None` when the page is of no use,
    /// or the manifest is not the one that the checkpoint's digest names, and begins anew.
    pub fn page(
        &mut self,
        request: RequestId,
        bytes: u64,
        from: u32,
        chunks: &[Checksum],
    ) -> Option<Next> {
        let asked = self.asked.remove(&request)?;
        self.silent.remove(asked.of);
        let Step::Manifest(pages) = &mut self.step else { return None };
        let count = u64::from(pages.count()) + u64::try_from(chunks.len()).unwrap_or(u64::MAX);
        let fits = from == pages.count() && count <= Manifest::count_of(bytes);
        let same = pages.chunks.is_empty() || pages.bytes == bytes;
        let empty = chunks.is_empty() && bytes > 0;
        if !fits || !same || empty {
            *pages = Manifest::default();
            return None;
        }
        pages.bytes = bytes;
        pages.chunks.extend_from_slice(chunks);
        self.progress = true;
        if !pages.is_sound() {
            return Some(Next::Wait);
        }
        let manifest = core::mem::take(pages);
        if manifest.digest() != self.checkpoint.digest {
            return None;
        }
        self.manifest = manifest;
        self.step = Step::Looking;
        Some(Next::Look(self.manifest.clone()))
    }

    /// Storage lacks these chunks.
    pub fn lacks(&mut self, chunks: &[u32]) -> Next {
        if self.step != Step::Looking {
            return Next::Wait;
        }
        self.step = Step::Chunks;
        self.wanted = chunks.iter().copied().collect();
        self.stored =
            self.manifest.count().saturating_sub(u32::try_from(chunks.len()).unwrap_or(0));
        self.next()
    }

    /// A chunk arrived, maybe late. If it is needed, what it must be: whoever stores it looks, and
    /// says that it was [`stored`](Self::stored) or [`refused`](Self::refused).
    pub fn chunk(
        &mut self,
        request: RequestId,
        index: u32,
        carried: &Carried,
    ) -> Option<ChunkFacts> {
        let bytes = u64::try_from(carried.len()).unwrap_or(u64::MAX);
        self.received = self.received.saturating_add(bytes);
        if let Some(asked) = self.put_back(request) {
            self.silent.remove(asked.of);
        }
        let again = |(request, asked): (&RequestId, &Asked)| {
            (asked.part == SnapshotPart::Chunk(index)).then_some(*request)
        };
        let asked: Vec<RequestId> = self.asked.iter().filter_map(again).collect();
        let needed = self.wanted.contains(&index) || !asked.is_empty();
        let facts = self.manifest.facts(index).filter(|facts| needed && carried.fits(*facts))?;
        self.asked.retain(|request, _| !asked.contains(request));
        self.wanted.remove(&index);
        self.storing.insert(index);
        Some(facts)
    }

    /// What arrived was not the chunk; it is asked for again.
    pub fn refused(&mut self, index: u32) {
        if self.storing.remove(&index) {
            self.wanted.insert(index);
        }
    }

    /// Storage has the chunk.
    pub fn stored(&mut self, index: u32) -> Next {
        if self.storing.remove(&index) {
            self.stored = self.stored.saturating_add(1);
            self.progress = true;
        }
        self.next()
    }

    fn next(&mut self) -> Next {
        let left = self.wanted.len() + self.asked.len() + self.storing.len();
        if self.step != Step::Chunks || left > 0 {
            return Next::Wait;
        }
        self.step = Step::Completing;
        Next::Complete(self.manifest.clone())
    }

    /// Storage has made it complete.
    pub fn completed(&mut self) {
        if self.step == Step::Completing {
            self.step = Step::Complete;
        }
    }

    /// Whether it is complete, and nothing rests on it yet.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.step == Step::Complete
    }

    /// It is complete, and `id` names the write that says so.
    pub fn naming(&mut self, id: PersistId) {
        self.step = Step::Naming(id);
        self.progress = true;
    }

    /// Whether this replica's state is the checkpoint's already, and only its superblock is not.
    #[must_use]
    pub const fn is_naming(&self) -> bool {
        matches!(self.step, Step::Naming(_))
    }

    /// Whether it is named, now that every write up to and including `through` is done.
    #[must_use]
    pub fn is_named(&self, through: PersistId) -> bool {
        matches!(self.step, Step::Naming(id) if id <= through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{checkpoint::CHUNK_BYTES, types::OpNumber};

    const PEERS: [ReplicaIndex; 2] = [ReplicaIndex(1), ReplicaIndex(2)];
    const NOW: Instant = Instant(100);

    /// The bytes of the chunk at `index`.
    fn bytes_of(index: u32) -> Vec<u8> {
        let size = if index == 5 { 3 } else { CHUNK_BYTES };
        vec![u8::try_from(index).unwrap(); usize::try_from(size).unwrap()]
    }

    /// The same as it travels uncompressed.
    fn carried(index: u32) -> Carried {
        Carried::Raw(bytes_of(index).into())
    }

    /// Six chunks, of which the last is short.
    fn manifest() -> Manifest {
        let chunks = (0..6).map(|index| Checksum::of(&bytes_of(index))).collect();
        Manifest { bytes: 5 * u64::from(CHUNK_BYTES) + 3, chunks }
    }

    fn incoming() -> Incoming {
        let digest = manifest().digest();
        let checkpoint = CheckpointId { op_number: OpNumber(9), checksum: Checksum(1), digest };
        // Eight chunks a second, once the group is busy.
        Incoming::new(checkpoint, Pace::of(8 * u64::from(CHUNK_BYTES)), true)
    }

    /// One whose manifest is here and which lacks `chunks`.
    fn lacking(chunks: &[u32]) -> Incoming {
        let mut incoming = incoming();
        incoming.question(RequestId(1), &PEERS, NOW).unwrap();
        let manifest = manifest();
        let next = incoming.page(RequestId(1), manifest.bytes, 0, &manifest.chunks);
        assert_eq!(next, Some(Next::Look(manifest)));
        assert_eq!(incoming.lacks(chunks), Next::Wait);
        incoming
    }

    fn ask_all(incoming: &mut Incoming) -> Vec<(RequestId, ReplicaIndex, u32)> {
        ask_all_at(incoming, NOW)
    }

    fn ask_all_at(incoming: &mut Incoming, now: Instant) -> Vec<(RequestId, ReplicaIndex, u32)> {
        let mut asked = Vec::new();
        for number in now.0.. {
            let request = RequestId(number);
            let Some((of, question)) = incoming.question(request, &PEERS, now) else {
                break;
            };
            let SnapshotPart::Chunk(index) = question.part else { panic!("{question:?}") };
            asked.push((request, of, index));
        }
        asked
    }

    #[test]
    fn a_manifest_comes_in_pages_and_is_believed_only_whole() {
        let (mut incoming, manifest) = (incoming(), manifest());
        for (from, request) in [(0, RequestId(1)), (4, RequestId(2))] {
            let (_, question) = incoming.question(request, &PEERS, NOW).unwrap();
            assert_eq!(question.part, SnapshotPart::Manifest(from));
            let at = usize::try_from(from).unwrap();
            let page = &manifest.chunks[at..(at + 4).min(6)];
            let next = incoming.page(request, manifest.bytes, from, page).unwrap();
            assert_eq!(next == Next::Wait, from == 0);
        }
        let mut incoming = self::incoming();
        incoming.question(RequestId(1), &PEERS, NOW).unwrap();
        let mut false_one = manifest.chunks.clone();
        false_one[2] = Checksum(9);
        assert_eq!(incoming.page(RequestId(1), manifest.bytes, 0, &false_one), None);
        let (_, again) = incoming.question(RequestId(2), &PEERS, NOW).unwrap();
        assert_eq!(again.part, SnapshotPart::Manifest(0), "it begins anew");
    }

    #[test]
    fn chunks_are_asked_of_all_and_of_nobody_too_many() {
        let mut incoming = lacking(&[0, 1, 2, 3, 4, 5]);
        let asked = ask_all(&mut incoming);
        assert_eq!(asked.len(), 4, "two of each");
        for peer in PEERS {
            assert_eq!(asked.iter().filter(|(_, of, _)| *of == peer).count(), 2);
        }
    }

    #[test]
    fn a_busy_group_is_asked_at_a_pace() {
        let mut incoming = lacking(&[0, 1, 2, 3, 4, 5]);
        incoming.told(NOW, View(1), OpNumber(20), Duration::from_secs(1));
        incoming.told(NOW, View(1), OpNumber(21), Duration::from_secs(1));
        let asked = ask_all(&mut incoming);
        assert_eq!(asked.len(), 1, "one at a time");
        let next = NOW + Duration::from_millis(125);
        assert_eq!(incoming.due(NOW, Duration::from_secs(9)), next);
        assert!(incoming.question(RequestId(30), &PEERS, next).is_some());
        assert!(incoming.question(RequestId(31), &PEERS, next).is_none());
        let idle = NOW + Duration::from_secs(2);
        assert!(!ask_all_at(&mut incoming, idle).is_empty(), "as much as it takes");
    }

    #[test]
    fn what_was_asked_of_one_that_is_lost_is_asked_of_another() {
        let mut incoming = lacking(&[3]);
        let (_, lost, _) = ask_all(&mut incoming)[0];
        incoming.lost(lost);
        let others: Vec<_> = PEERS.into_iter().filter(|peer| *peer != lost).collect();
        let asked = incoming.question(RequestId(40), &others, NOW);
        let asked = asked.map(|(of, question)| (of, question.part));
        assert_eq!(asked, Some((others[0], SnapshotPart::Chunk(3))));
    }

    #[test]
    fn only_what_is_missing_is_asked_for_and_then_it_is_complete() {
        let mut incoming = lacking(&[2, 5]);
        let asked = ask_all(&mut incoming);
        assert_eq!(asked.iter().map(|(_, _, index)| *index).collect::<Vec<_>>(), [2, 5]);
        for (request, _, index) in &asked {
            let facts = incoming.chunk(*request, *index, &carried(*index));
            assert_eq!(facts, manifest().facts(*index));
        }
        assert_eq!(incoming.stored(2), Next::Wait);
        assert_eq!(incoming.stored(5), Next::Complete(manifest()));
        assert_eq!(incoming.extent(), (incoming.checkpoint().op_number, 6, 6));
        assert!(incoming.take_progress() && !incoming.take_progress());
        assert_eq!(incoming.received(), u64::from(CHUNK_BYTES) + 3);
    }

    #[test]
    fn with_everything_here_nothing_is_asked_for() {
        let mut incoming = incoming();
        incoming.question(RequestId(1), &PEERS, NOW).unwrap();
        let manifest = manifest();
        incoming.page(RequestId(1), manifest.bytes, 0, &manifest.chunks).unwrap();
        assert_eq!(incoming.lacks(&[]), Next::Complete(manifest));
        assert_eq!(incoming.received(), 0);
    }

    #[test]
    fn a_false_chunk_and_one_that_does_not_come_are_asked_for_again() {
        let mut incoming = lacking(&[2]);
        let (request, _, _) = ask_all(&mut incoming)[0];
        let (long, short) = (Carried::Compressed(bytes_of(2).into()), carried(5));
        for wrong in [&long, &short] {
            assert_eq!(incoming.chunk(request, 2, wrong), None, "no chunk can be so long");
        }
        let (request, _, _) = ask_all(&mut incoming)[0];
        assert!(incoming.chunk(request, 2, &carried(3)).is_some(), "storage looks");
        assert!(ask_all(&mut incoming).is_empty());
        incoming.take_progress();
        incoming.refused(2);
        incoming.refused(2);
        assert!(!incoming.take_progress(), "nothing came of it");
        let (request, _, index) = ask_all(&mut incoming)[0];
        assert_eq!(index, 2);
        incoming.expire(NOW, Duration::from_nanos(1));
        assert!(incoming.has_asked(request), "it still has time");
        incoming.expire(NOW, Duration::ZERO);
        assert_eq!(ask_all(&mut incoming).len(), 1);
        assert!(incoming.chunk(request, 2, &carried(2)).is_some(), "late, and welcome");
        assert!(incoming.chunk(request, 2, &carried(2)).is_none(), "once");
        assert!(ask_all(&mut incoming).is_empty());
        assert_eq!(incoming.stored(2), Next::Complete(manifest()));
        incoming.refused(2);
        assert!(ask_all(&mut incoming).is_empty(), "what is stored stays");
    }

    #[test]
    fn who_lacks_it_is_not_asked_again() {
        let mut incoming = lacking(&[0, 1, 2, 3, 4, 5]);
        for (request, of, _) in ask_all(&mut incoming) {
            if of == PEERS[0] {
                incoming.gone(request);
            }
        }
        assert!(!incoming.is_gone(&PEERS));
        let others = ask_all(&mut incoming);
        assert!(others.is_empty(), "the other has two questions already");
        incoming.expire(NOW, Duration::ZERO);
        let asked = ask_all(&mut incoming);
        assert!(!asked.is_empty() && asked.iter().all(|(_, of, _)| *of == PEERS[1]));
        asked.iter().for_each(|(request, _, _)| incoming.gone(*request));
        assert!(incoming.is_gone(&PEERS));
    }

    #[test]
    fn it_is_given_up_when_one_lacks_it_and_the_others_are_silent() {
        let mut incoming = lacking(&[0, 1, 2, 3, 4, 5]);
        let asked = ask_all(&mut incoming);
        let (request, _, _) = asked.iter().find(|(_, of, _)| *of == PEERS[0]).unwrap();
        incoming.gone(*request);
        assert!(!incoming.is_gone(&PEERS), "the other may have it");
        incoming.expire(NOW, Duration::ZERO);
        assert!(incoming.is_gone(&PEERS));
        let mut nobody = lacking(&[0]);
        ask_all(&mut nobody);
        nobody.expire(NOW, Duration::ZERO);
        assert!(!nobody.is_gone(&PEERS), "who is silent may come back");
    }
}
