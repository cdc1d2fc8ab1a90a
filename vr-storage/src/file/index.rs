//! Where each entry of the log lies: runs of entries, shared between the writer and the readers.

use std::collections::VecDeque;

use vr_core::OpNumber;

/// Entries in one run; finding one inside a run walks the headers before it.
const RUN_ENTRIES_MAX: u32 = 16;

/// Bytes after which a run takes no further entry; reading one entry reads its run.
const RUN_BYTES_MAX: u64 = 64 << 10;

/// Consecutive entries that lie behind each other in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Op of the first one.
    pub(crate) first: OpNumber,
    /// How many; at least one.
    pub(crate) count: u32,
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Where the first one starts.
    pub(crate) offset: u64,
    /// Bytes of all of them, possibly more after a cut.
    pub(crate) bytes: u64,
}

impl Run {
    /// Op of the last entry.
    pub(crate) fn last(&self) -> OpNumber {
        self.first.plus(u64::from(self.count)).previous()
    }
}

/// The runs of the whole log, ascending.
///
/// Invariants: each run starts at the op behind the one before; segments never descend.
#[derive(Debug, Default)]
pub(crate) struct Index {
    runs: VecDeque<Run>,
    generation: u64,
}

impl Index {
    /// Grows whenever entries leave the index, so that a reader can tell that it was overtaken.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// The run that holds `op_number`.
    pub(crate) fn find(&self, op_number: OpNumber) -> Option<Run> {
        let behind = self.runs.partition_point(|run| run.first <= op_number);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        (op_number <= run.last()).then_some(*run)
    }

    /// Number of the segment that holds the first entry.
    pub(crate) fn first_segment(&self) -> Option<u64> {
        self.runs.front().map(|run| run.segment)
    }

    /// Adds a batch's entries, of which `lengths` gives the bytes; the first is behind `base`.
    pub(crate) fn append(
        &mut self,
        base: OpNumber,
        segment: u64,
        mut offset: u64,
        lengths: impl Iterator<Item = u64>,
    ) {
        let mut op_number = base;
        let mut open: Option<Run> = None;
        for bytes in lengths {
            op_number = op_number.next();
            if let Some(run) = open.as_mut() {
                run.count += 1;
                run.bytes += bytes;
            } else {
                open = Some(Run { first: op_number, count: 1, segment, offset, bytes });
            }
            offset += bytes;
            if open.is_some_and(|run| run.count >= RUN_ENTRIES_MAX || run.bytes >= RUN_BYTES_MAX) {
                self.runs.extend(open.take());
            }
        }
        self.runs.extend(open);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn index(lengths: &[u64]) -> Index {
        let mut index = Index::default();
        index.append(OpNumber::ZERO, 1, 4096, lengths.iter().copied());
        index
    }

    #[test]
    fn entries_of_one_batch_share_runs_up_to_the_limits() {
        let index = index(&[128; 40]);
        assert_eq!(index.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [16, 16, 8]);
        assert_eq!(index.find(OpNumber(17)).unwrap().offset, 4096 + 16 * 128);
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
}
