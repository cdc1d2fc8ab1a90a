//! Where each entry of the log lies: runs of entries, shared between the writer and the readers.

use std::collections::VecDeque;

use vr_core::{OpNumber, model::entry::EntryHeader};

/// Entries in one run; finding one inside a run walks the headers before it.
const RUN_ENTRIES_MAX: u32 = 16;

/// Bytes after which a run takes no further entry; reading one entry reads its run.
const RUN_BYTES_MAX: u64 = 64 << 10;

/// Where an entry, or the batch that it is in, starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Where in it.
    pub(crate) offset: u64,
}

/// Consecutive entries that lie behind each other in one segment, or that are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Op of the first one.
    pub(crate) first: OpNumber,
    /// How many; at least one.
    pub(crate) count: u32,
    /// Entries that lie before the first one and belong to no run any more: they were repaired.
    pub(crate) skipped: u32,
    /// Where the first skipped one starts, or else the first one; `None` when nothing is known of
    /// the entries but that they are missing.
    pub(crate) place: Option<Place>,
    /// Bytes of all of them, possibly more after a cut or a repair.
    pub(crate) bytes: u64,
    /// Whether these entries are known not to verify.
    pub(crate) is_damaged: bool,
}

impl Run {
    /// Op of the last entry.
    pub(crate) fn last(&self) -> OpNumber {
        self.first.plus(u64::from(self.count)).previous()
    }

    const fn is_full(&self) -> bool {
        self.count >= RUN_ENTRIES_MAX || self.bytes >= RUN_BYTES_MAX
    }

    /// The part of the run above `op_number`, which is in the run.
    fn above(&self, op_number: OpNumber) -> Option<Self> {
        let gone = u32::try_from(op_number.since(self.first).saturating_add(1)).ok()?;
        let count = self.count.checked_sub(gone).filter(|count| *count > 0)?;
        let skipped = self.skipped.saturating_add(gone);
        Some(Self { first: op_number.next(), count, skipped, ..*self })
    }

    /// The part of the run below `op_number`, which is in the run.
    fn below(&self, op_number: OpNumber) -> Option<Self> {
        let count = u32::try_from(op_number.since(self.first)).ok()?;
        (count > 0).then_some(Self { count, ..*self })
    }
}

/// The runs of the whole log, ascending.
///
/// Invariant: each run starts at the op behind the one before.
#[derive(Debug, Default)]
pub(crate) struct Index {
    runs: VecDeque<Run>,
    generation: u64,
}

impl Index {
    /// Grows whenever entries leave the index or move, so that a reader can tell that it was
    /// overtaken.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// The run that holds `op_number`.
    pub(crate) fn find(&self, op_number: OpNumber) -> Option<Run> {
        let behind = self.runs.partition_point(|run| run.first <= op_number);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        (op_number <= run.last()).then_some(*run)
    }

    /// Number of the oldest segment that holds something of the log.
    pub(crate) fn first_segment(&self) -> Option<u64> {
        self.runs.iter().filter_map(|run| Some(run.place?.segment)).min()
    }

    /// Adds the next op as it was found: with the header of its entry, or damaged.
    pub(crate) fn add(
        &mut self,
        op_number: OpNumber,
        place: Option<Place>,
        whole: Option<EntryHeader>,
    ) {
        let bytes = whole.map_or(0, |header| header.entry_bytes());
        if let Some(last) = self.runs.back_mut() {
            let end = last.place.map(|it| Place { offset: it.offset + last.bytes, ..it });
            let behind = match whole {
                Some(_) => !last.is_damaged && end == place && place.is_some() && !last.is_full(),
                None => last.is_damaged && last.count < u32::MAX,
            };
            if behind {
                last.count += 1;
                last.bytes += bytes;
                last.place = oldest(last.place, place);
                return;
            }
        }
        let is_damaged = whole.is_none();
        self.runs.push_back(Run {
            first: op_number,
            count: 1,
            skipped: 0,
            place,
            bytes,
            is_damaged,
        });
    }

    /// Adds a batch's entries, of which `lengths` gives the bytes; the first is behind `base`.
    pub(crate) fn append(&mut self, base: OpNumber, at: Place, lengths: impl Iterator<Item = u64>) {
        self.runs.extend(runs_of(base, at, lengths));
    }

    /// Puts a batch's entries in the place of those with the same ops, which are in the index.
    pub(crate) fn replace(
        &mut self,
        base: OpNumber,
        at: Place,
        lengths: impl Iterator<Item = u64>,
    ) {
        let new = runs_of(base, at, lengths);
        let (Some(first), Some(last)) = (new.first().copied(), new.last().copied()) else { return };
        self.generation += 1;
        let (first, last) = (first.first, last.last());
        let from = self.runs.partition_point(|run| run.last() < first);
        let to = self.runs.partition_point(|run| run.first <= last);
        let below = self.runs.get(from).and_then(|run| run.below(first));
        let above = to.checked_sub(1).and_then(|at| self.runs.get(at)?.above(last));
        let behind = self.runs.split_off(to);
        self.runs.truncate(from);
        self.runs.extend(below);
        self.runs.extend(new);
        self.runs.extend(above);
        self.runs.extend(behind);
    }

    /// Forgets everything above `op_number`.
    pub(crate) fn truncate(&mut self, op_number: OpNumber) {
        while let Some(last) = self.runs.back_mut() {
            if last.last() <= op_number {
                return;
            }
            self.generation += 1;
            if last.first > op_number {
                self.runs.pop_back();
            } else {
                let kept = op_number.since(last.first).saturating_add(1);
                last.count = u32::try_from(kept).unwrap_or(last.count);
                return;
            }
        }
    }

    /// Forgets the runs that lie wholly at or below `op_number`.
    pub(crate) fn release(&mut self, op_number: OpNumber) {
        while self.runs.front().is_some_and(|run| run.last() <= op_number) {
            self.generation += 1;
            self.runs.pop_front();
        }
    }
}

/// The place in the older segment: a damaged run keeps the files of all its entries.
fn oldest(one: Option<Place>, other: Option<Place>) -> Option<Place> {
    match (one, other) {
        (Some(one), Some(other)) if other.segment < one.segment => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// Entries behind `base` that lie behind each other from `at` on, in runs within the limits.
fn runs_of(base: OpNumber, at: Place, lengths: impl Iterator<Item = u64>) -> Vec<Run> {
    let (mut runs, mut open) = (Vec::new(), None::<Run>);
    let (mut op_number, mut offset) = (base, at.offset);
    for bytes in lengths {
        op_number = op_number.next();
        let place = Some(Place { offset, ..at });
        let run = open.get_or_insert(Run {
            first: op_number,
            count: 0,
            skipped: 0,
            place,
            bytes: 0,
            is_damaged: false,
        });
        run.count += 1;
        run.bytes += bytes;
        offset += bytes;
        if run.is_full() {
            runs.extend(open.take());
        }
    }
    runs.extend(open);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(lengths: &[u64]) -> Index {
        let mut index = Index::default();
        let at = Place { segment: 1, offset: 4096 };
        index.append(OpNumber::ZERO, at, lengths.iter().copied());
        index
    }

    #[test]
    fn entries_of_one_batch_share_runs_up_to_the_limits() {
        let index = index(&[128; 40]);
        assert_eq!(index.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [16, 16, 8]);
        assert_eq!(index.find(OpNumber(17)).unwrap().place.unwrap().offset, 4096 + 16 * 128);
        assert_eq!(index.find(OpNumber(41)), None);
        assert_eq!(index.find(OpNumber(0)), None);
    }

    #[test]
    fn a_large_entry_ends_its_run() {
        let index = index(&[128, RUN_BYTES_MAX, 128]);
        assert_eq!(index.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn truncating_keeps_the_front_of_a_run() {
        let mut index = index(&[128; 20]);
        index.truncate(OpNumber(10));
        assert_eq!(index.runs.back().unwrap().last(), OpNumber(10));
        index.truncate(OpNumber(0));
        assert_eq!(index.find(OpNumber(1)), None);
    }

    #[test]
    fn releasing_drops_whole_runs_only() {
        let mut index = index(&[128; 40]);
        let before = index.generation();
        index.release(OpNumber(20));
        assert_eq!((index.find(OpNumber(16)), index.first_segment()), (None, Some(1)));
        assert!(index.find(OpNumber(17)).is_some());
        assert!(index.generation() > before);
    }

    #[test]
    fn a_repair_splits_the_run_that_it_lies_in() {
        let mut index = index(&[128; 16]);
        let at = Place { segment: 7, offset: 9000 };
        index.replace(OpNumber(4), at, [128, 128].into_iter());
        let found: Vec<_> = [4, 5, 6, 7, 16]
            .map(|op| index.find(OpNumber(op)).unwrap())
            .iter()
            .map(|run| (run.place.unwrap().segment, run.first.0, run.count, run.skipped))
            .collect();
        assert_eq!(found, [(1, 1, 4, 0), (7, 5, 2, 0), (7, 5, 2, 0), (1, 7, 10, 6), (1, 7, 10, 6)]);
        assert_eq!((index.find(OpNumber(17)), index.first_segment()), (None, Some(1)));
    }

    #[test]
    fn a_repair_may_cover_many_runs() {
        let mut index = index(&[128; 40]);
        let at = Place { segment: 7, offset: 9000 };
        index.replace(OpNumber::ZERO, at, [128; 40].into_iter());
        assert_eq!((index.runs.len(), index.first_segment()), (3, Some(7)));
    }
}
