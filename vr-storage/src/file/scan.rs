//! Reads a whole log without changing it, and tells what is whole, torn, damaged or superseded.

use vr_core::{
    OpNumber, StorageError, View,
    model::{
        encoding::entry::decode_header,
        entry::{ENTRY_HEADER_BYTES, EntryHeader},
        types::{Checksum, DiskId},
    },
    ports::storage::{Anchor, DamagedRange},
};

use crate::{
    disk::{Disk, byte_count},
    file::{
        damage::{Damage, SlotState, sort_damage},
        index::{Index, Place},
        names,
        record::{
            BATCH_HEADER_BYTES, BATCHES_START, BatchHeader, BatchKind, CLEAN_BYTES, SECTOR_BYTES,
            SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES, SegmentHeader, Unreadable,
        },
        replay::{Layout, Replay, Slot},
        segment::missing_before,
        window::Window,
    },
};

/// A batch or a marker that was found, before it is known what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) header: BatchHeader,
    /// The op before its first entry.
    pub(crate) follows: OpNumber,
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
    /// Whether its first page has to be written again.
    pub(crate) lacks_header: bool,
}

/// The log as it was found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Headers above the checkpoint that verify, ascending.
    pub(crate) headers: Vec<EntryHeader>,
    /// Ops above the checkpoint whose entries do not verify, and what must be there.
    pub(crate) damaged: Vec<DamagedRange>,
    /// Where the entries lie.
    pub(crate) index: Index,
    /// The last entry, or the checkpoint when it is later.
    pub(crate) head: Anchor,
    /// Ascending by number.
    pub(crate) segments: Vec<FoundSegment>,
    /// In order of their place.
    pub(crate) damage: Vec<Damage>,
    /// Header of the last batch that counts, unless it does not verify.
    pub(crate) last: Option<BatchHeader>,
    /// First and last op of its entries.
    pub(crate) last_ops: Option<(OpNumber, OpNumber)>,
    /// Number of the last batch that counts, whole or damaged.
    pub(crate) last_sequence: u64,
    /// Number of the last batch that is known to have been synced.
    pub(crate) synced_sequence: u64,
    /// Number of the segment that the last record which counts is in.
    pub(crate) active: u64,
    /// The largest number that any segment ever had.
    pub(crate) last_number: u64,
    /// Whether a marker is behind the last batch.
    pub(crate) marked: bool,
    /// The segments of the seals behind the last batch, and where these end there.
    pub(crate) sealed: Vec<(u64, u64)>,
    /// Why it is not known what the log held, if it is not.
    pub(crate) lost: Option<String>,
}

impl Scan {
    /// An empty log above `checkpoint`, on a disk whose segments were numbered up to `last_number`.
    pub(crate) fn empty(checkpoint: Anchor, last_number: u64) -> Self {
        Self { head: checkpoint, last_number, ..Self::default() }
    }

    /// Bytes of torn batches.
    pub(crate) fn torn_bytes(&self) -> u64 {
        let torn = self.damage.iter().filter(|damage| damage.state == SlotState::Torn);
        torn.map(|damage| damage.bytes).sum()
    }

    /// Whether there is a torn batch in this file.
    pub(crate) fn is_torn_in(&self, file: &str) -> bool {
        self.damage.iter().any(|damage| damage.state == SlotState::Torn && damage.file == file)
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
        short: Vec::new(),
        last: None,
        last_ops: None,
        last_sequence: 0,
        synced_sequence: 0,
        active: 0,
        marked: false,
        seals: Vec::new(),
        observer,
    };
    for (number, length) in files {
        scanner.segment(*number, *length)?;
    }
    let mut scan = scanner.finish(checkpoint);
    if scan.lost.is_none() && scan.last_sequence == 0 {
        scan.lost = missing_before(disk, files)?;
    }
    Ok(scan)
}

/// Damage of which it is not known yet whether it happened before or after the first sync.
struct Pending {
    damage: Damage,
    /// Number of the batch.
    sequence: u64,
    /// Its header and what verifies of its entries, unless the header is damaged.
    batch: Option<(BatchHeader, Vec<Slot>)>,
}

struct Scanner<'a, D> {
    disk: &'a D,
    disk_id: DiskId,
    replay: Replay,
    segments: Vec<FoundSegment>,
    pending: Vec<Pending>,
    damage: Vec<Damage>,
    /// Segments that end too early, or are others than their names say.
    short: Vec<u64>,
    last: Option<BatchHeader>,
    last_ops: Option<(OpNumber, OpNumber)>,
    last_sequence: u64,
    synced_sequence: u64,
    active: u64,
    /// A marker is behind the last batch.
    marked: bool,
    /// The seals behind the last batch that counts; those before batches that were lost, too.
    seals: Vec<BatchHeader>,
    observer: &'a mut dyn FnMut(&Found),
}

impl<D: Disk> Scanner<'_, D> {
    fn segment(&mut self, number: u64, length: u64) -> Result<(), StorageError> {
        let mut window = Window::new(self.disk, number, length);
        let end = BATCHES_START;
        let found = FoundSegment { number, length, end, batches: 0, lacks_header: false };
        self.segments.push(found);
        self.check_header(&mut window)?;
        let mut at = BATCHES_START;
        loop {
            let Some(header) = self.record(&mut window, at)? else {
                let Some(next) = self.search(&mut window, at)? else {
                    return self.note_rest(&mut window, at, CLEAN_BYTES);
                };
                self.note_gap(&window, at, next, "a batch is missing or its header is damaged");
                at = next;
                continue;
            };
            self.settle(header.synced_sequence);
            if header.kind.is_marker() {
                self.marker(&window, at, &header);
                let Some(next) = self.search(&mut window, at)? else {
                    let behind = CLEAN_BYTES - SECTOR_BYTES;
                    return self.note_rest(&mut window, at + SECTOR_BYTES, behind);
                };
                if !self.is_kept(&mut window, &header, next)? {
                    self.note_gap(&window, at, next, "a batch was replaced by an older marker");
                }
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
        let mut at = 0..BATCHES_START;
        let problem = match SegmentHeader::decode(bytes) {
            Err(Unreadable::Version(found)) => {
                return Err(StorageError::Version {
                    path,
                    found,
                    supported: crate::file::record::DISK_VERSION,
                });
            }
            Err(Unreadable::Damaged) if window.length() >= SEGMENT_BYTES_MIN => {
                if let Some(segment) = self.segments.last_mut() {
                    segment.lacks_header = true;
                }
                "the segment's header is damaged; its batches do not need it".to_owned()
            }
            Err(Unreadable::Damaged) => {
                self.short.push(window.number());
                at = window.length()..SEGMENT_BYTES_MIN;
                format!("the file is {} bytes: truncated", window.length())
            }
            Ok(header) if header.disk != self.disk_id => {
                let found = format!("disk {} (move it away)", header.disk);
                let expected = format!("disk {}", self.disk_id);
                return Err(StorageError::Foreign { path, found, expected });
            }
            Ok(header) if header.number != window.number() => {
                self.short.push(window.number());
                at = 0..window.length();
                format!("the file holds segment {}", header.number)
            }
            Ok(header) if header.length > window.length() => {
                self.short.push(window.number());
                at = window.length()..header.length;
                format!("the file is {} bytes, not {}: truncated", window.length(), header.length)
            }
            Ok(_) => return Ok(()),
        };
        let damage = damage_at(window, at.start, at.end - at.start, None, problem);
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
                && (header.span() <= room || self.short.contains(&number))
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

    /// Whether the record at `next` was written behind the marker `header`, as repairs are, and not
    /// before it.
    fn is_kept(
        &self,
        window: &mut Window<'_, D>,
        header: &BatchHeader,
        next: u64,
    ) -> Result<bool, StorageError> {
        let follows = header.kind == BatchKind::Marker && next == header.offset + header.span();
        let record = self.record(window, next)?;
        Ok(follows && record.is_some_and(|record| record.sequence == header.sequence))
    }

    /// A marker, or a seal: if everything before it was synced, it also says where the log ended.
    fn marker(&mut self, window: &Window<'_, D>, at: u64, header: &BatchHeader) {
        let follows = header.base.op_number;
        (self.observer)(&Found { header: *header, follows, views: None, intact: true });
        if header.kind == BatchKind::Seal {
            self.seals.push(*header);
        }
        if header.synced_sequence.saturating_add(1) < header.sequence {
            return;
        }
        if header.kind == BatchKind::Marker {
            self.active = header.segment;
            self.marked = true;
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.end = at;
        }
        let missing = self.replay.end_at(header.base);
        self.note_missing(window, header, missing);
        self.last_sequence = self.last_sequence.max(header.synced_sequence);
    }

    fn batch(
        &mut self,
        window: &mut Window<'_, D>,
        at: u64,
        header: &BatchHeader,
    ) -> Result<(), StorageError> {
        let ops = Some((header.base.op_number.next(), header.last_op()));
        let ops = ops.filter(|_| header.count > 0 && header.kind != BatchKind::Repair);
        let (slots, problem) = read_entries(window, at, header)?;
        let ends = slots.first().zip(slots.last());
        let views = ends.and_then(|(first, last)| Some((first.header?.view, last.header?.view)));
        let intact = problem.is_none();
        let first = slots.first().and_then(|slot| slot.header);
        let follows = first.map_or(header.base.op_number, |first| first.op_number.previous());
        let views = views.filter(|_| intact);
        (self.observer)(&Found { header: *header, follows, views, intact });
        if let Some(what) = problem {
            let damage = damage_at(window, at, header.span(), ops, what);
            let batch = Some((*header, slots));
            self.pending.push(Pending { damage, sequence: header.sequence, batch });
            return Ok(());
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.batches += 1;
        }
        // An open after a crash wrote this one again, because what was before it was not synced.
        for Pending { damage, .. } in self.pending.drain(..) {
            self.damage.push(Damage { state: SlotState::Superseded, ..damage });
        }
        let missing = self.apply(header, &slots);
        self.note_missing(window, header, missing);
        Ok(())
    }

    /// Adds a batch that counts to the log.
    fn apply(&mut self, header: &BatchHeader, slots: &[Slot]) -> Option<(OpNumber, OpNumber)> {
        let missing = self.replay.apply(header, slots);
        let segments = self.segments.iter_mut().rev();
        for segment in segments.filter(|segment| segment.number == header.segment) {
            segment.end = header.offset + header.span();
        }
        self.last = slots.iter().all(|slot| slot.is_whole).then_some(*header);
        let ends = slots.first().zip(slots.last());
        let ops =
            ends.and_then(|(first, last)| Some((first.header?.op_number, last.header?.op_number)));
        self.last_ops = ops;
        self.last_sequence = header.sequence;
        self.active = header.segment;
        let place = (header.segment, header.offset);
        self.seals.retain(|seal| (seal.segment, seal.offset) > place);
        self.marked = false;
        missing
    }

    /// The lowest number that the next batch can have. A batch that may be torn has not taken its
    /// own: the one that was written after the crash has the same.
    const fn next_sequence(&self) -> u64 {
        self.last_sequence.saturating_add(1)
    }

    /// Something that no header tells about lies between `at` and `next`.
    fn note_gap(&mut self, window: &Window<'_, D>, at: u64, next: u64, what: &str) {
        let damage = damage_at(window, at, next - at, None, what.to_owned());
        let found = self.pending.iter().filter(|pending| pending.batch.is_some());
        let last = found.map(|pending| pending.sequence).max().unwrap_or(0);
        let sequence = self.next_sequence().max(last.saturating_add(1));
        self.pending.push(Pending { damage, sequence, batch: None });
    }

    /// The `bytes` at `at`, behind the last record, are zero unless there was one more.
    fn note_rest(
        &mut self,
        window: &mut Window<'_, D>,
        at: u64,
        bytes: u64,
    ) -> Result<(), StorageError> {
        let room = window.length().saturating_sub(at).min(bytes);
        let rest = window.get(at, usize::try_from(room).unwrap_or(0))?.unwrap_or_default();
        if let Some(last) = rest.iter().rposition(|byte| *byte != 0) {
            let end = at + byte_count(last) + 1;
            self.note_gap(window, at, end, "what is behind the last batch has no header");
        }
        Ok(())
    }

    /// Everything up to this batch was synced, so what is damaged there was whole once.
    fn settle(&mut self, synced_sequence: u64) {
        self.synced_sequence = self.synced_sequence.max(synced_sequence);
        let (mut settled, mut open) = (Vec::new(), Vec::new());
        for pending in self.pending.drain(..) {
            let is_synced = pending.sequence <= synced_sequence;
            if is_synced { settled.push(pending) } else { open.push(pending) }
        }
        self.pending = open;
        for Pending { mut damage, batch, .. } in settled {
            damage.state = SlotState::Corrupt;
            let missing = batch.and_then(|(header, slots)| self.apply(&header, &slots));
            self.damage.push(damage);
            self.explain_missing(missing);
        }
    }

    /// Ops below `header` are missing: they were in the damage that was found before it, or in a
    /// file that is gone.
    fn note_missing(
        &mut self,
        window: &Window<'_, D>,
        header: &BatchHeader,
        missing: Option<(OpNumber, OpNumber)>,
    ) {
        if self.explain_missing(missing) {
            return;
        }
        let (first, base) = (missing.map(|ops| ops.0), header.base.op_number);
        let first = first.unwrap_or(base);
        let what = format!("the log goes on behind op {base}; from op {first} on it is not here");
        let damage = damage_at(window, header.offset, 0, missing, what);
        self.damage.push(Damage { state: SlotState::Corrupt, ..damage });
    }

    /// Finds the damage that may have held `missing`; false if there is none.
    fn explain_missing(&mut self, missing: Option<(OpNumber, OpNumber)>) -> bool {
        if missing.is_none() {
            return true;
        }
        let mut unexplained = self.damage.iter_mut().rev();
        let found = unexplained.find(|damage| damage.ops.is_none() && !damage.is_of_first_page());
        let Some(damage) = found else { return false };
        damage.ops = missing;
        true
    }

    fn finish(mut self, checkpoint: Anchor) -> Scan {
        let synced_sequence = self.synced_sequence;
        self.settle(synced_sequence);
        let torn = self.pending.drain(..).map(|pending| pending.damage);
        self.damage.extend(torn);
        self.seals.retain(|seal| seal.segment >= self.active);
        let lost = self.loss();
        let mut head = Anchor { op_number: self.replay.head(), ..checkpoint };
        let Layout { headers, damaged, index, repairs, contradicts_checkpoint } =
            self.replay.finish();
        let last_header = headers.last().map(Anchor::of);
        let last_damaged = damaged.last().map(|range| range.through);
        for anchor in [last_header, last_damaged].into_iter().flatten() {
            if anchor.op_number >= head.op_number {
                head = anchor;
            }
        }
        if head.op_number < checkpoint.op_number {
            head = checkpoint;
        }
        sort_damage(&mut self.damage, &damaged, &repairs);
        let contradiction = contradicts_checkpoint
            .then(|| "the log has another entry at the checkpoint's op".to_owned());
        let sealed = self.seals.iter().map(|seal| (seal.segment, seal.offset + seal.span()));
        Scan {
            sealed: sealed.collect(),
            headers,
            damaged,
            index,
            head,
            last_number: self.segments.last().map_or(0, |segment| segment.number),
            segments: self.segments,
            damage: self.damage,
            last: self.last,
            last_ops: self.last_ops,
            last_sequence: self.last_sequence,
            synced_sequence,
            active: self.active,
            marked: self.marked,
            lost: lost.or(contradiction),
        }
    }

    /// What may have been behind the last record, and is gone without a trace.
    fn loss(&mut self) -> Option<String> {
        if let Some(number) = self.short.iter().find(|number| **number >= self.active) {
            let name = names::segment(*number);
            return Some(format!("{name} is truncated, and nothing says what it held"));
        }
        let is_there = |number| self.segments.iter().any(|segment| segment.number == number);
        let seal = self.seals.iter().find(|seal| !is_there(seal.next_segment))?;
        let name = names::segment(seal.next_segment);
        Some(format!("{name}, in which the log went on, is missing"))
    }
}

fn damage_at<D: Disk>(
    window: &Window<'_, D>,
    at: u64,
    bytes: u64,
    ops: Option<(OpNumber, OpNumber)>,
    what: String,
) -> Damage {
    Damage { state: SlotState::Torn, file: window.name().to_owned(), at, bytes, ops, what }
}

/// What verifies of a batch's entries, one slot each; and what is wrong, if something is.
///
/// The batch's header is whole, so the checksum of the last entry is known whatever became of it.
/// Entries lie behind each other: behind a header that does not verify nothing can be found.
fn read_entries<D: Disk>(
    window: &mut Window<'_, D>,
    at: u64,
    batch: &BatchHeader,
) -> Result<(Vec<Slot>, Option<String>), StorageError> {
    let count = usize::try_from(batch.count).unwrap_or(usize::MAX);
    let place = |offset| Some(Place { segment: batch.segment, offset });
    let mut slots = Vec::new();
    let mut problem = None;
    let mut next = at + byte_count(BATCH_HEADER_BYTES);
    let end = next + batch.entry_bytes;
    let mut parent = batch.base;
    if batch.kind == BatchKind::Repair {
        // Its base is the end of the log; what its entries follow, the first one says.
        let first = window.get(next, ENTRY_HEADER_BYTES)?.map(decode_header);
        parent = first.and_then(Result::ok).map_or(parent, |first| Anchor::below(&first));
    }
    for _ in 0..count {
        let op_number = parent.op_number.next();
        let header = match read_header(window, next, end, parent)? {
            Ok(header) => header,
            Err(what) => {
                problem.get_or_insert(what);
                break;
            }
        };
        let payload = next + byte_count(ENTRY_HEADER_BYTES);
        let length = usize::try_from(header.payload_length).unwrap_or(usize::MAX);
        let is_whole =
            window.get(payload, length)?.map(Checksum::of) == Some(header.payload_checksum);
        if !is_whole {
            let what = format!("op {op_number}: the checksum of payload does not match");
            problem.get_or_insert(what);
        }
        let checksum = Some(header.checksum);
        slots.push(Slot { header: Some(header), checksum, place: place(next), is_whole });
        next += header.entry_bytes();
        parent = Anchor::of(&header);
    }
    if slots.len() < count {
        slots.resize(count, Slot { place: place(at), ..Slot::default() });
        if let Some(last) = slots.last_mut() {
            last.checksum = Some(batch.head_checksum);
        }
    } else if parent.checksum != batch.head_checksum || next != end {
        problem = Some("the batch's entries are not those that its header names".to_owned());
        for slot in &mut slots {
            *slot = Slot { place: place(at), ..Slot::default() };
        }
        if let Some(last) = slots.last_mut() {
            last.checksum = Some(batch.head_checksum);
        }
    }
    Ok((slots, problem))
}

/// The entry header at `at`, if it verifies and follows `parent`.
fn read_header<D: Disk>(
    window: &mut Window<'_, D>,
    at: u64,
    end: u64,
    parent: Anchor,
) -> Result<Result<EntryHeader, String>, StorageError> {
    let op_number = parent.op_number.next();
    let room = end.saturating_sub(at);
    let header = match window.get(at, ENTRY_HEADER_BYTES)?.map(decode_header) {
        Some(Ok(header)) if header.entry_bytes() <= room => header,
        Some(Ok(_)) => return Ok(Err(format!("op {op_number} is longer than its batch"))),
        Some(Err(error)) => return Ok(Err(format!("op {op_number}: {error}"))),
        None => return Ok(Err(format!("op {op_number} is beyond the end of the file"))),
    };
    if header.op_number != op_number || header.parent != parent.checksum {
        return Ok(Err(format!("op {op_number} does not follow the entry before it")));
    }
    Ok(Ok(header))
}
