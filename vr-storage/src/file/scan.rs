//! Reads a whole log without changing it, and tells what is whole, torn, damaged or superseded.

use core::fmt;

use vr_core::{
    OpNumber, StorageError, View,
    model::{
        encoding::entry::decode_header,
        entry::{ENTRY_HEADER_BYTES, EntryHeader},
        types::{Checksum, DiskId},
    },
    ports::storage::Anchor,
};

use crate::{
    disk::{Disk, byte_count},
    file::{
        index::Index,
        record::{
            BATCH_HEADER_BYTES, BATCHES_START, BatchHeader, BatchKind, SECTOR_BYTES,
            SEGMENT_HEADER_BYTES, SegmentHeader, Unreadable,
        },
        replay::Replay,
        window::Window,
    },
};

/// Stands for the number of a damaged batch where a whole one follows nothing: whatever is missing
/// before it was synced, whatever the markers say.
const UNCHAINED: u64 = 0;

/// What became of a slot of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Whole, with the right checksums.
    Ok,
    /// Cut short by a crash before it was synced, so it was never acknowledged.
    Torn,
    /// Damaged after it was synced.
    Corrupt,
    /// Damaged, but replaced by a later batch; nothing is missing.
    Superseded,
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Torn => "torn",
            Self::Corrupt => "CORRUPT",
            Self::Superseded => "superseded",
        })
    }
}

/// Something in the log that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Torn, corrupt or superseded; never ok.
    pub state: SlotState,
    /// Name of the file.
    pub file: String,
    /// Where in it.
    pub at: u64,
    /// How many bytes are concerned.
    pub bytes: u64,
    /// First and last op concerned, where a batch header still tells.
    pub ops: Option<(OpNumber, OpNumber)>,
    /// What is wrong.
    pub what: String,
    /// Number of the batch that is damaged, or that is missing here.
    pub(crate) sequence: u64,
}

/// A batch or a marker that was found, before it is known what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) header: BatchHeader,
    /// Views of the first and the last entry; `None` without entries or when they are damaged.
    pub(crate) views: Option<(View, View)>,
    pub(crate) intact: bool,
}

/// One segment as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundSegment {
    pub(crate) number: u64,
    pub(crate) length: u64,
    /// Where the next batch would start.
    pub(crate) end: u64,
    /// Batches that verify.
    pub(crate) batches: u64,
}

/// The log as it was found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Headers above the checkpoint, contiguous and chained.
    pub(crate) headers: Vec<EntryHeader>,
    /// Where the entries lie.
    pub(crate) index: Index,
    /// The last entry, or the checkpoint when it is later.
    pub(crate) head: Anchor,
    /// Ascending by number.
    pub(crate) segments: Vec<FoundSegment>,
    /// In order of their place.
    pub(crate) damage: Vec<Damage>,
    /// Header of the last batch that counts.
    pub(crate) last: Option<BatchHeader>,
    /// Number of the last batch that is known to have been synced.
    pub(crate) synced_sequence: u64,
    /// Whether a seal is behind the last batch.
    pub(crate) sealed: bool,
}

impl Scan {
    /// The first damage that something acknowledged may have been lost by.
    pub(crate) fn corrupt(&self) -> Option<&Damage> {
        self.damage.iter().find(|damage| damage.state == SlotState::Corrupt)
    }

    /// Bytes of torn batches.
    pub(crate) fn torn_bytes(&self) -> u64 {
        let torn = self.damage.iter().filter(|damage| damage.state == SlotState::Torn);
        torn.map(|damage| damage.bytes).sum()
    }
}

/// Scans the segments (number and file length, ascending) of the log above `checkpoint`.
///
/// `observer` is told of each batch and marker in the order of their place.
///
/// # Errors
/// [`StorageError::Foreign`], [`StorageError::Version`] for a segment that is whole and not ours;
/// [`StorageError::Io`] when the system refuses. Damage is not an error here.
pub(crate) fn scan<D: Disk>(
    disk: &D,
    files: &[(u64, u64)],
    disk_id: DiskId,
    checkpoint: Anchor,
    observer: &mut dyn FnMut(&Found),
) -> Result<Scan, StorageError> {
    let mut scanner = Scanner {
        disk,
        disk_id,
        replay: Replay::new(checkpoint),
        segments: Vec::new(),
        pending: Vec::new(),
        damage: Vec::new(),
        last: None,
        synced_sequence: 0,
        seal: None,
        observer,
    };
    for (number, length) in files {
        scanner.segment(*number, *length)?;
    }
    Ok(scanner.finish(checkpoint))
}

struct Scanner<'a, D> {
    disk: &'a D,
    disk_id: DiskId,
    replay: Replay,
    segments: Vec<FoundSegment>,
    /// Damage of which it is not known yet whether something valid supersedes it.
    pending: Vec<Damage>,
    damage: Vec<Damage>,
    last: Option<BatchHeader>,
    synced_sequence: u64,
    /// The last seal.
    seal: Option<BatchHeader>,
    observer: &'a mut dyn FnMut(&Found),
}

impl<D: Disk> Scanner<'_, D> {
    fn segment(&mut self, number: u64, length: u64) -> Result<(), StorageError> {
        let mut window = Window::new(self.disk, number, length);
        let found = FoundSegment { number, length, end: BATCHES_START, batches: 0 };
        self.segments.push(found);
        self.check_header(&mut window)?;
        let mut at = BATCHES_START;
        loop {
            let Some(header) = self.record(&mut window, at)? else {
                let Some(next) = self.search(&mut window, at)? else { return Ok(()) };
                let what = "a batch is missing or its header is damaged".to_owned();
                self.note_damage(&window, at, next - at, None, what);
                at = next;
                continue;
            };
            self.synced_sequence = self.synced_sequence.max(header.synced_sequence);
            if header.kind.is_marker() {
                (self.observer)(&Found { header, views: None, intact: true });
                if header.kind == BatchKind::Seal {
                    self.seal = Some(header);
                }
                let Some(next) = self.search(&mut window, at)? else { return Ok(()) };
                let what = "a batch was replaced by an older marker".to_owned();
                self.note_damage(&window, at, next - at, None, what);
                at = next;
                continue;
            }
            self.batch(&mut window, at, &header)?;
            at += header.span();
        }
    }

    /// Checks the segment's first page; a foreign or newer one is an error, damage is not.
    fn check_header(&mut self, window: &mut Window<'_, D>) -> Result<(), StorageError> {
        let path = self.disk.path().join(window.name());
        let bytes = window.get(0, SEGMENT_HEADER_BYTES)?.unwrap_or_default();
        let problem = match SegmentHeader::decode(bytes) {
            Err(Unreadable::Version(found)) => {
                return Err(StorageError::Version {
                    path,
                    found,
                    supported: crate::file::record::DISK_VERSION,
                });
            }
            Err(Unreadable::Damaged) => "the segment's header is damaged".to_owned(),
            Ok(header) if header.disk != self.disk_id => {
                let found = format!("disk {} (move it away)", header.disk);
                let expected = format!("disk {}", self.disk_id);
                return Err(StorageError::Foreign { path, found, expected });
            }
            Ok(header) if header.number != window.number() => {
                format!("the file holds segment {}", header.number)
            }
            Ok(header) if header.length > window.length() => {
                format!("the file is {} bytes, not {}: truncated", window.length(), header.length)
            }
            Ok(_) => return Ok(()),
        };
        let damage = self.damage_at(window, 0, BATCHES_START, None, problem);
        self.damage.push(Damage { state: SlotState::Corrupt, ..damage });
        Ok(())
    }

    /// The record that starts at `at`, if it is whole, was written there, and is not outdated.
    fn record(
        &self,
        window: &mut Window<'_, D>,
        at: u64,
    ) -> Result<Option<BatchHeader>, StorageError> {
        let number = window.number();
        let room = window.length().saturating_sub(at);
        let Some(bytes) = window.get(at, BATCH_HEADER_BYTES)? else { return Ok(None) };
        Ok(BatchHeader::decode(bytes).filter(|header| {
            header.disk == self.disk_id
                && header.segment == number
                && header.offset == at
                && header.sequence >= self.next_sequence()
                && header.span() <= room
        }))
    }

    /// The next place behind `at` where a record starts.
    fn search(&self, window: &mut Window<'_, D>, at: u64) -> Result<Option<u64>, StorageError> {
        let mut next = at.saturating_add(SECTOR_BYTES);
        while next < window.length() {
            if self.record(window, next)?.is_some() {
                return Ok(Some(next));
            }
            next += SECTOR_BYTES;
        }
        Ok(None)
    }

    fn batch(
        &mut self,
        window: &mut Window<'_, D>,
        at: u64,
        header: &BatchHeader,
    ) -> Result<(), StorageError> {
        let ops = Some((header.base.op_number.next(), header.last_op()));
        let ops = ops.filter(|_| header.count > 0);
        match read_entries(window, at, header)? {
            Err(what) => {
                (self.observer)(&Found { header: *header, views: None, intact: false });
                let mut damage = self.damage_at(window, at, header.span(), ops, what);
                damage.sequence = header.sequence;
                self.pending.push(damage);
            }
            Ok(entries) => {
                let views = entries.first().zip(entries.last());
                let views = views.map(|(first, last)| (first.view, last.view));
                (self.observer)(&Found { header: *header, views, intact: true });
                self.apply(window, header, &entries);
            }
        }
        Ok(())
    }

    fn apply(&mut self, window: &Window<'_, D>, header: &BatchHeader, entries: &[EntryHeader]) {
        if let Some(segment) = self.segments.last_mut() {
            segment.batches += 1;
            segment.end = header.offset + header.span();
        }
        if self.replay.apply(header, entries) {
            self.settle(|_| SlotState::Superseded);
        } else if !self.pending.iter().any(|damage| damage.sequence == UNCHAINED) {
            let head = self.replay.head().op_number;
            let base = header.base.op_number;
            let what = format!("the log goes on behind op {base}, but what is here ends at {head}");
            let mut damage = self.damage_at(window, header.offset, header.span(), None, what);
            damage.sequence = UNCHAINED;
            self.pending.push(damage);
        }
        self.last = Some(*header);
    }

    fn next_sequence(&self) -> u64 {
        self.last.map_or(0, |last| last.sequence).saturating_add(1)
    }

    fn damage_at(
        &self,
        window: &Window<'_, D>,
        at: u64,
        bytes: u64,
        ops: Option<(OpNumber, OpNumber)>,
        what: String,
    ) -> Damage {
        Damage {
            state: SlotState::Torn,
            file: window.name().to_owned(),
            at,
            bytes,
            ops,
            what,
            sequence: self.next_sequence(),
        }
    }

    fn note_damage(
        &mut self,
        window: &Window<'_, D>,
        at: u64,
        bytes: u64,
        ops: Option<(OpNumber, OpNumber)>,
        what: String,
    ) {
        let damage = self.damage_at(window, at, bytes, ops, what);
        self.pending.push(damage);
    }

    fn settle(&mut self, state: impl Fn(&Damage) -> SlotState) {
        for mut damage in self.pending.drain(..) {
            damage.state = state(&damage);
            self.damage.push(damage);
        }
    }

    fn finish(mut self, checkpoint: Anchor) -> Scan {
        let synced_sequence = self.synced_sequence;
        // A marker that names a batch which nobody found: the batch is gone without a trace.
        let noticed = self.pending.iter().any(|damage| damage.sequence <= synced_sequence);
        if !noticed && synced_sequence >= self.next_sequence() {
            self.note_loss("batches that were synced are missing");
        }
        let seal = self.last_seal();
        if seal.is_some_and(|seal| self.lacks_segment(seal.next_segment)) {
            self.note_loss("the segment after this one is missing");
        }
        if self.replay.contradicts_checkpoint() {
            self.note_loss("the log has another entry at the checkpoint's op");
        }
        self.settle(|damage| {
            if damage.sequence <= synced_sequence { SlotState::Corrupt } else { SlotState::Torn }
        });
        let mut head = self.replay.head();
        if head.op_number < checkpoint.op_number {
            head = checkpoint;
        }
        let (headers, index) = self.replay.finish();
        Scan {
            headers,
            index,
            head,
            segments: self.segments,
            damage: self.damage,
            last: self.last,
            synced_sequence,
            sealed: seal.is_some(),
        }
    }

    /// The seal behind the last batch, if no batch was written in the segment that it names.
    fn last_seal(&self) -> Option<BatchHeader> {
        let last = self.last.map_or(0, |last| last.segment);
        self.seal.filter(|seal| seal.segment >= last)
    }

    fn lacks_segment(&self, number: u64) -> bool {
        self.segments.iter().all(|segment| segment.number != number)
    }

    /// Damage that is corrupt whatever the markers say.
    fn note_loss(&mut self, what: &str) {
        let Some(segment) = self.segments.last() else { return };
        let window = Window::new(self.disk, segment.number, segment.length);
        let damage = self.damage_at(&window, segment.end, 0, None, what.to_owned());
        self.damage.push(Damage { state: SlotState::Corrupt, ..damage });
    }
}

/// The headers of a batch's entries; or, if the batch does not verify, what is wrong.
fn read_entries<D: Disk>(
    window: &mut Window<'_, D>,
    at: u64,
    batch: &BatchHeader,
) -> Result<Result<Vec<EntryHeader>, String>, StorageError> {
    let mut entries = Vec::new();
    let mut parent = batch.base;
    let mut place = at + byte_count(BATCH_HEADER_BYTES);
    let end = place + batch.entry_bytes;
    for _ in 0..batch.count {
        let op_number = parent.op_number.next();
        let room = end.saturating_sub(place);
        let header = match window.get(place, ENTRY_HEADER_BYTES)?.map(decode_header) {
            Some(Ok(header)) if header.entry_bytes() <= room => header,
            Some(Ok(_)) => return Ok(Err(format!("op {op_number} is longer than its batch"))),
            Some(Err(error)) => return Ok(Err(format!("op {op_number}: {error}"))),
            None => return Ok(Err(format!("op {op_number} is beyond the end of the file"))),
        };
        if header.op_number != op_number || header.parent != parent.checksum {
            return Ok(Err(format!("op {op_number} does not follow the entry before it")));
        }
        let payload = place + byte_count(ENTRY_HEADER_BYTES);
        let length = usize::try_from(header.payload_length).unwrap_or(usize::MAX);
        if window.get(payload, length)?.map(Checksum::of) != Some(header.payload_checksum) {
            return Ok(Err(format!("op {op_number}: the checksum of payload does not match")));
        }
        place += header.entry_bytes();
        parent = Anchor { op_number, checksum: header.checksum };
        entries.push(header);
    }
    if parent.checksum != batch.head_checksum || place != end {
        return Ok(Err("the batch's entries are not those that its header names".to_owned()));
    }
    Ok(Ok(entries))
}
