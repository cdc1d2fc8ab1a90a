//! The write-ahead log: batches that are all or nothing, in recycled segments.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vr_core::{
    OpNumber, StorageError,
    model::{
        encoding::entry::encode_header,
        entry::{ENTRY_HEADER_BYTES, Entry},
        types::DiskId,
    },
    ports::storage::Anchor,
};

use crate::{
    disk::{Disk, byte_count, refused},
    file::{
        index::{Index, Place},
        options::StoreOptions,
        reader::StoreReader,
        record::{
            BATCH_HEADER_BYTES, BATCHES_START, BatchHeader, BatchKind, CLEAN_BYTES, PAGE_BYTES,
            batch_span, round_up,
        },
        scan::Scan,
        segment::{Preparation, Segment},
        spares::Spares,
    },
};

/// Payloads up to this many bytes are copied behind their header, which is cheaper than another
/// piece for the system to gather.
const COPY_BYTES_MAX: usize = 1024;

/// The log of one replica; the only writer of its segments.
///
/// Invariants: `live` ascends by number and ends with the active segment; a batch is written only
/// when the one before it is synced, except the marker, which nothing rests on.
#[derive(Debug)]
pub(crate) struct Wal<D> {
    disk: D,
    disk_id: DiskId,
    segment_bytes: u64,
    checkpoint: Anchor,
    head: Anchor,
    live: VecDeque<Segment>,
    /// The next segment, made ahead of need.
    ready: Option<Segment>,
    /// Whether a preparation was handed out and has not come back.
    preparing: bool,
    /// The largest number that any segment ever had.
    last_number: u64,
    spares: Spares<D>,
    index: Arc<Mutex<Index>>,
    last_sequence: u64,
    synced_sequence: u64,
    synced_op: OpNumber,
    /// Whether the marker behind the last batch says that this batch is synced.
    marked: bool,
    assembly: Assembly,
}

impl<D: Disk> Wal<D> {
    /// Takes over what the scan found, and makes it durable. What is damaged stays as it is, and
    /// nothing is written over it.
    ///
    /// The last batch is written again unless a marker says that it was synced: what the scan read
    /// may have been in the system's memory only, even after a sync that failed. That batch, or a
    /// marker, takes the place of a torn one, for good before anything else is written there.
    ///
    /// # Errors
    /// As [`Wal::write`]; the log is then as the scan found it, or already repaired.
    pub(crate) fn open(
        disk: D,
        disk_id: DiskId,
        checkpoint: Anchor,
        options: StoreOptions,
        mut scan: Scan,
        spares: Vec<String>,
    ) -> Result<Self, StorageError> {
        let segment_bytes = options.whole_pages();
        let last_sequence = scan.last_sequence;
        let torn = scan.torn_bytes() > 0;
        let mut wal = Self {
            spares: Spares::new(disk.clone(), segment_bytes, options.spares()),
            disk,
            disk_id,
            segment_bytes,
            checkpoint,
            head: scan.head,
            live: VecDeque::new(),
            ready: None,
            preparing: false,
            last_number: scan.last_number,
            index: Arc::new(Mutex::new(core::mem::take(&mut scan.index))),
            last_sequence,
            synced_sequence: scan.synced_sequence.min(last_sequence),
            synced_op: scan.last.map_or(OpNumber::ZERO, |last| last.synced_op),
            // What else there is is written again below.
            marked: scan.marked && scan.last.is_none(),
            assembly: Assembly::default(),
        };
        let active = scan.active;
        let mut outdated = Vec::new();
        for found in &scan.segments {
            let segment = Segment::new(found.number, found.length, found.end);
            if found.lacks_header {
                segment.write_header(&wal.disk, disk_id, !wal.live.is_empty())?;
            }
            if found.number <= active || wal.live.is_empty() {
                wal.live.push_back(segment);
            } else if scan.is_torn_in(&segment.name) {
                // What is left there of a batch would look torn again and again.
                outdated.push(segment);
            } else {
                outdated.extend(wal.ready.replace(segment));
            }
        }
        wal.spares.adopt(spares, wal.live.len())?;
        if wal.live.is_empty() {
            let first = wal.preparation_of(segment_bytes).run()?;
            wal.last_number = first.number;
            wal.live.push_back(first);
        }
        match scan.last {
            Some(last) => wal.settle_last_batch(&last, scan.last_ops)?,
            None if torn => wal.mark_idle()?,
            None => {}
        }
        if torn || scan.marked {
            // The next batch may tear as well, and what is left of both must not make one whole. And
            // a marker may stand where the disk still has a seal: one that was killed while it undid
            // the seal has left that in the system's memory only.
            wal.sync_active()?;
        }
        if !scan.sealed.is_empty() {
            wal.undo_seals(&scan.sealed)?;
        }
        // A seal in one of them names a later one: it must be gone for good before that one is.
        outdated.sort_unstable_by_key(|segment| segment.number);
        for segment in outdated {
            wal.spares.put(segment)?;
            wal.disk.sync_directory().map_err(|error| refused(&wal.disk, "sync", "", error))?;
        }
        wal.last_number = wal.spares.fill(wal.last_number)?;
        // The batch that was written again may end below it.
        wal.set_checkpoint(checkpoint);
        Ok(wal)
    }

    /// The entry that the next one follows.
    pub(crate) const fn head(&self) -> Anchor {
        self.head
    }

    /// A reader of what is synced.
    pub(crate) fn reader(&self) -> StoreReader<D> {
        StoreReader::new(self.disk.clone(), Arc::clone(&self.index))
    }

    /// Replaces everything above `cut`, or above nothing, by `entries`; all or nothing, durable
    /// when it returns.
    ///
    /// # Errors
    /// [`StorageError::Io`] with [`io::ErrorKind::InvalidInput`] when the entries do not follow,
    /// and nothing was written; otherwise what the system says, and nothing is known of this
    /// batch any more.
    pub(crate) fn write(
        &mut self,
        cut: Option<OpNumber>,
        entries: &[&Entry],
    ) -> Result<(), StorageError> {
        let base = self.base_of(cut, entries)?;
        let head = self.check_chain(base, entries)?;
        let kind = if cut.is_some() { BatchKind::Cut } else { BatchKind::Append };
        self.write_batch(kind, base, head, entries)
    }

    /// Puts `entries`, ascending, in the place of those with the same ops; durable when it returns.
    ///
    /// Each run of consecutive ops is all or nothing. What is not in the log any more is left out.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn repair(&mut self, entries: &[Entry]) -> Result<(), StorageError> {
        let in_log = |entry: &&Entry| {
            let op_number = entry.header.op_number;
            op_number > self.checkpoint.op_number && op_number <= self.head.op_number
        };
        let entries: Vec<&Entry> = entries.iter().filter(in_log).collect();
        let follows = |one: &&Entry, next: &&Entry| one.header.checksum == next.header.parent;
        for run in entries.chunk_by(follows) {
            let Some(first) = run.first() else { continue };
            let last = self.check_chain(Anchor::below(&first.header), run)?;
            self.write_batch(BatchKind::Repair, self.head, last, run)?;
        }
        Ok(())
    }

    /// Says, without a sync, that everything so far is synced; once until the next batch.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn mark_idle(&mut self) -> Result<(), StorageError> {
        if self.marked || self.synced_sequence < self.last_sequence {
            return Ok(());
        }
        self.write_marker(BatchKind::Marker, 0)?;
        self.marked = true;
        Ok(())
    }

    /// Entries up to and including `through` are not needed any more.
    ///
    /// Whole segments are given up, oldest first. Their new names become durable before they are
    /// used again; a crash that brings some back is harmless, because they hold nothing above
    /// the checkpoint.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn release(&mut self, through: OpNumber) -> Result<(), StorageError> {
        let needed = {
            let mut index = self.index();
            index.release(through.min(self.checkpoint.op_number));
            index.first_segment()
        };
        let is_needless = |segment: &&Segment| needed.is_none_or(|first| segment.number < first);
        let before_active = self.live.len().saturating_sub(1);
        let count = self.live.iter().take(before_active).take_while(is_needless).count();
        if count > 0 {
            self.spares.begin_release()?;
        }
        for segment in self.live.drain(..count) {
            self.spares.put(segment)?;
        }
        Ok(())
    }

    /// The log now follows `checkpoint`, which the superblock names.
    pub(crate) fn set_checkpoint(&mut self, checkpoint: Anchor) {
        self.checkpoint = checkpoint;
        if self.head.op_number < checkpoint.op_number {
            self.head = checkpoint;
        }
    }

    /// The making of the next segment, if it is time for it; to be answered by
    /// [`prepared`](Self::prepared).
    pub(crate) fn preparation(&mut self) -> Option<Preparation<D>> {
        let half_full = self.live.back().is_some_and(|active| active.end > active.length / 2);
        if self.preparing || self.ready.is_some() || !half_full {
            return None;
        }
        let preparation = self.preparation_of(self.segment_bytes);
        self.last_number = preparation.number;
        self.preparing = true;
        Some(preparation)
    }

    /// A preparation ended; a failed one is forgotten, because the next batch that needs a segment
    /// makes one itself and reports what is wrong then.
    ///
    /// # Errors
    /// What the system says when the segment came too late and is put aside.
    pub(crate) fn prepared(
        &mut self,
        outcome: Result<Segment, StorageError>,
    ) -> Result<(), StorageError> {
        self.preparing = false;
        let Ok(segment) = outcome else { return Ok(()) };
        let active = self.live.back().map_or(0, |active| active.number);
        if segment.number < active {
            return self.spares.put(segment);
        }
        self.ready = Some(segment);
        Ok(())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn preparation_of(&mut self, length: u64) -> Preparation<D> {
        let spare = self.spares.take(length);
        Preparation {
            disk: self.disk.clone(),
            disk_id: self.disk_id,
            number: self.last_number.saturating_add(1),
            length,
            follows: !self.live.is_empty(),
            spare,
        }
    }

    /// Makes the last batch durable if no marker says that it is.
    fn settle_last_batch(
        &mut self,
        last: &BatchHeader,
        ops: Option<(OpNumber, OpNumber)>,
    ) -> Result<(), StorageError> {
        if last.sequence > self.synced_sequence {
            self.write_again(last, ops)?;
        }
        self.synced_op = self.head.op_number;
        self.mark_idle()
    }

    fn write_again(
        &mut self,
        batch: &BatchHeader,
        ops: Option<(OpNumber, OpNumber)>,
    ) -> Result<(), StorageError> {
        let is_repair = batch.kind == BatchKind::Repair;
        let needed = ops.map(|(from, through)| match is_repair {
            true => (from.max(self.checkpoint.op_number.next()), through),
            false => (from, through),
        });
        let entries = match needed.filter(|(from, through)| from <= through) {
            Some((from, through)) => self.reader().entries(from, through, u64::MAX)?,
            None => Vec::new(),
        };
        if !is_repair {
            let entries: Vec<&Entry> = entries.iter().collect();
            let head = self.check_chain(batch.base, &entries)?;
            return self.write_batch(BatchKind::Cut, batch.base, head, &entries);
        }
        if entries.is_empty() {
            return self.write_batch(BatchKind::Cut, self.head, self.head, &[]);
        }
        self.repair(&entries)
    }

    /// Replaces the seals behind the last batch, for good: the segment that one names is free to be
    /// given another use only when no crash can bring the seal back.
    ///
    /// They end at these places of these segments. That is not always right behind the last batch:
    /// one between them may have been lost, which was not synced when the seal was written. Those in
    /// later segments go with their files.
    fn undo_seals(&mut self, ends: &[(u64, u64)]) -> Result<(), StorageError> {
        // The marker before a seal may be one that a repair left where it was.
        self.marked = false;
        self.mark_idle()?;
        for (segment, end) in ends {
            self.clear_behind_marker(*segment, *end)?;
        }
        self.sync_active()
    }

    /// Fills what is behind the marker with zeros, up to `end`, if `segment` is the one in use.
    fn clear_behind_marker(&self, segment: u64, end: u64) -> Result<(), StorageError> {
        let Some(active) = self.live.back().filter(|active| active.number == segment) else {
            return Ok(());
        };
        let from = active.end.saturating_add(batch_span(0));
        let zeros = vec![0; usize::try_from(end.saturating_sub(from)).unwrap_or(0)];
        if zeros.is_empty() {
            return Ok(());
        }
        let written = self.disk.write_at(&active.name, from, &[IoSlice::new(&zeros)]);
        written.map_err(|error| refused(&self.disk, "write", &active.name, error))
    }

    fn sync_active(&self) -> Result<(), StorageError> {
        let name = self.live.back().map_or("", |active| active.name.as_str());
        self.disk.sync(name).map_err(|error| refused(&self.disk, "sync", name, error))
    }

    /// What the batch's first entry must follow.
    fn base_of(&self, cut: Option<OpNumber>, entries: &[&Entry]) -> Result<Anchor, StorageError> {
        let first = entries.first().map(|entry| entry.header.op_number.previous());
        let op_number = cut.or(first).unwrap_or(self.head.op_number);
        let starts_anew = cut.is_some() || self.head.op_number < op_number;
        if op_number == self.checkpoint.op_number && starts_anew {
            return Ok(self.checkpoint);
        }
        if op_number == self.head.op_number {
            return Ok(self.head);
        }
        if op_number != self.checkpoint.op_number
            && cut.is_some()
            && op_number < self.head.op_number
        {
            let kept = self.reader().entries(op_number, op_number, 0)?;
            if let Some(entry) = kept.first() {
                return Ok(Anchor { op_number, checksum: entry.header.checksum });
            }
        }
        let head = self.head.op_number;
        Err(self.misused(&format!("op {op_number} is no base of a log that ends at op {head}")))
    }

    /// Checks that `entries` chain from `base`; returns the last one.
    fn check_chain(&self, base: Anchor, entries: &[&Entry]) -> Result<Anchor, StorageError> {
        let mut head = base;
        for entry in entries {
            let header = &entry.header;
            let whole = u64::from(header.payload_length) == byte_count(entry.payload.len());
            let next = header.op_number == head.op_number.next() && header.parent == head.checksum;
            if !next || !whole {
                let op_number = head.op_number;
                return Err(self.misused(&format!("the entry does not follow op {op_number}")));
            }
            head = Anchor { op_number: header.op_number, checksum: header.checksum };
        }
        Ok(head)
    }

    fn misused(&self, reason: &str) -> StorageError {
        let source = io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
        refused(&self.disk, "write", "", source)
    }

    fn write_batch(
        &mut self,
        kind: BatchKind,
        base: Anchor,
        head: Anchor,
        entries: &[&Entry],
    ) -> Result<(), StorageError> {
        let entry_bytes = entries.iter().map(|entry| entry.header.entry_bytes()).sum();
        let span = batch_span(entry_bytes);
        if kind == BatchKind::Repair && self.marked {
            self.keep_marker();
        }
        if !self.live.back().is_some_and(|active| active.has_room_for(span)) {
            self.begin_segment(span)?;
        }
        let header = BatchHeader {
            kind,
            count: u32::try_from(entries.len()).map_err(|_| self.misused("too many entries"))?,
            head_checksum: head.checksum,
            entry_bytes,
            ..self.marker(kind, base)
        };
        self.assembly.fill(&header, entries);
        let name = self.live.back().map_or("", |active| active.name.as_str());
        self.assembly.write(&self.disk, name, header.offset, entries)?;
        self.sync_active()?;
        self.note_written(&header, head, entries);
        Ok(())
    }

    /// Goes on behind the marker: if the last batch is damaged, nothing else says that it was
    /// synced, and a write that tears must not take that away.
    fn keep_marker(&mut self) {
        if let Some(active) = self.live.back_mut() {
            active.end = active.end.saturating_add(batch_span(0));
        }
    }

    /// What changes when a batch is durable.
    fn note_written(&mut self, header: &BatchHeader, head: Anchor, entries: &[&Entry]) {
        if let Some(active) = self.live.back_mut() {
            active.end = header.offset + header.span();
        }
        self.last_sequence = header.sequence;
        self.synced_sequence = header.sequence;
        self.marked = false;
        let offset = header.offset + byte_count(BATCH_HEADER_BYTES);
        let at = Place { segment: header.segment, offset };
        let lengths = entries.iter().map(|entry| entry.header.entry_bytes());
        let base = header.base.op_number;
        if header.kind == BatchKind::Repair {
            let first = entries.first().map_or(base, |entry| entry.header.op_number.previous());
            self.index().replace(first, at, lengths);
            return;
        }
        self.synced_op = head.op_number;
        self.head = head;
        let mut index = self.index();
        index.truncate(base);
        index.append(base, at, lengths);
    }

    /// A header for the place behind the last batch, without entries.
    fn marker(&self, kind: BatchKind, base: Anchor) -> BatchHeader {
        let (segment, offset) =
            self.live.back().map_or((0, BATCHES_START), |active| (active.number, active.end));
        BatchHeader {
            kind,
            count: 0,
            disk: self.disk_id,
            segment,
            offset,
            sequence: self.last_sequence.saturating_add(1),
            synced_sequence: self.synced_sequence,
            synced_op: self.synced_op,
            base,
            head_checksum: base.checksum,
            entry_bytes: 0,
            next_segment: 0,
        }
    }

    fn write_marker(&mut self, kind: BatchKind, next: u64) -> Result<(), StorageError> {
        let marker = BatchHeader { next_segment: next, ..self.marker(kind, self.head) };
        self.assembly.fill(&marker, &[]);
        let name = self.live.back().map_or("", |active| active.name.as_str());
        self.assembly.write(&self.disk, name, marker.offset, &[])
    }

    /// Goes on in a segment with room for a batch of `span` bytes.
    fn begin_segment(&mut self, span: u64) -> Result<(), StorageError> {
        let ready = match self.ready.take() {
            Some(ready) if ready.has_room_for(span) => ready,
            too_small => {
                let length = Segment::length_for(span, self.segment_bytes);
                let preparation = self.preparation_of(length);
                self.last_number = preparation.number;
                let made = preparation.run()?;
                if let Some(segment) = too_small {
                    self.spares.put(segment)?;
                }
                made
            }
        };
        self.write_marker(BatchKind::Seal, ready.number)?;
        // Nothing else says that there is another segment, should its file disappear.
        self.sync_active()?;
        self.live.push_back(ready);
        Ok(())
    }
}

/// A batch on its way to the disk: small pieces copied together, large payloads where they are.
#[derive(Debug, Default)]
struct Assembly {
    copied: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// A range of `copied`.
    Copied(Range<usize>),
    /// The payload of the entry at this position.
    Payload(usize),
}

impl Assembly {
    /// Lays out `header` and `entries`, with zeros behind them to the end of a page: all that the
    /// next open looks at behind the end of the log.
    fn fill(&mut self, header: &BatchHeader, entries: &[&Entry]) {
        self.copied.clear();
        self.pieces.clear();
        let mut start = 0;
        header.encode_into(&mut self.copied);
        for (position, entry) in entries.iter().enumerate() {
            self.copied.extend_from_slice(&encode_header(&entry.header));
            if entry.payload.len() <= COPY_BYTES_MAX {
                self.copied.extend_from_slice(&entry.payload);
            } else {
                self.pieces.push(Piece::Copied(start..self.copied.len()));
                self.pieces.push(Piece::Payload(position));
                start = self.copied.len();
            }
        }
        let end = header.offset + byte_count(BATCH_HEADER_BYTES) + header.entry_bytes;
        let padding = round_up(header.end() + CLEAN_BYTES, PAGE_BYTES).saturating_sub(end);
        let padded = byte_count(self.copied.len()).saturating_add(padding);
        self.copied.resize(usize::try_from(padded).unwrap_or(usize::MAX), 0);
        self.pieces.push(Piece::Copied(start..self.copied.len()));
    }

    fn write<D: Disk>(
        &self,
        disk: &D,
        name: &str,
        offset: u64,
        entries: &[&Entry],
    ) -> Result<(), StorageError> {
        let piece = |piece: &Piece| match piece {
            Piece::Copied(range) => self.copied.get(range.clone()).unwrap_or_default(),
            Piece::Payload(position) => {
                entries.get(*position).map_or(&[][..], |entry| entry.payload.as_ref())
            }
        };
        let written = if let [only] = self.pieces.as_slice() {
            disk.write_at(name, offset, &[IoSlice::new(piece(only))])
        } else {
            let parts: Vec<_> = self.pieces.iter().map(|at| IoSlice::new(piece(at))).collect();
            disk.write_at(name, offset, &parts)
        };
        written.map_err(|error| refused(disk, "write", name, error))
    }
}

const _: () = assert!(ENTRY_HEADER_BYTES == 128, "the layout of batches names this number");
