//! Entries of consecutive ops, in the runs that they came in.

use core::iter;
use std::collections::VecDeque;

use crate::model::{
    entry::{Entry, Run},
    types::OpNumber,
};

/// Runs that are gone through one by one before the others are halved.
const NEWEST: usize = 4;

#[derive(Clone, Debug)]
struct Kept {
    /// The op of the first entry.
    first: OpNumber,
    run: Run,
}

/// Entries in op order. What is added one by one is open, and becomes a run when it is closed.
///
/// Invariants: the ops have no gap, the open ones are the last, and no run is empty.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    runs: VecDeque<Kept>,
    open: Vec<Entry>,
}

impl Runs {
    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<&Entry> {
        self.open.last().or_else(|| self.runs.back()?.run.last())
    }

    /// The entry at `op_number`.
    #[must_use]
    pub fn get(&self, op_number: OpNumber) -> Option<&Entry> {
        self.run_from(op_number).first()
    }

    /// The entries from `from` on that came together with it.
    #[must_use]
    pub fn run_from(&self, from: OpNumber) -> &[Entry] {
        let run = match self.place(from) {
            Some((at, skip)) => self.runs.get(at).and_then(|kept| kept.run.get(skip..)),
            None => self.place_open(from).and_then(|at| self.open.get(at..)),
        };
        run.unwrap_or_default()
    }

    /// The entries from `from` on; none if there is none at `from`.
    pub fn from(&self, from: OpNumber) -> impl Iterator<Item = &Entry> + Clone {
        let (at, skip, open) = match (self.place(from), self.place_open(from)) {
            (Some((at, skip)), _) => (at, skip, 0),
            (None, Some(open)) => (self.runs.len(), 0, open),
            (None, None) => (self.runs.len(), 0, self.open.len()),
        };
        let mut runs = self.runs.range(at..).map(|kept| &*kept.run);
        let first = runs.next().and_then(|run| run.get(skip..)).unwrap_or_default();
        first.iter().chain(runs.flatten()).chain(self.open.iter().skip(open))
    }

    /// `count` entries from `from` on, or as many as there are; copied only if they are not all of
    /// one run.
    #[must_use]
    pub fn shared(&self, from: OpNumber, count: usize) -> Run {
        match self.place(from).and_then(|(at, skip)| Some((&self.runs.get(at)?.run, skip))) {
            Some((run, skip)) if skip.saturating_add(count) <= run.len() => run.part(skip, count),
            Some(_) | None => self.from(from).take(count).cloned().collect::<Vec<_>>().into(),
        }
    }

    /// From the entry at `from` to the end of its run, but at most `count`; nothing is copied but
    /// what is open.
    #[must_use]
    pub fn rest_of_run(&self, from: OpNumber, count: usize) -> Run {
        match self.place(from).and_then(|(at, skip)| Some((&self.runs.get(at)?.run, skip))) {
            Some((run, skip)) => run.part(skip, count),
            None => self.from(from).take(count).cloned().collect::<Vec<_>>().into(),
        }
    }

    /// The entries from `from` on, at most `count`, run by run.
    pub fn parts(&self, from: OpNumber, count: usize) -> impl Iterator<Item = Run> {
        let (mut from, mut left) = (from, count);
        iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let run = self.rest_of_run(from, left);
            left -= run.len();
            from = from.plus(u64::try_from(run.len()).unwrap_or(u64::MAX));
            (!run.is_empty()).then_some(run)
        })
    }

    /// From the entry at `op_number` to the end of its run, to be changed; nothing of what is open.
    pub fn run_mut(&mut self, op_number: OpNumber) -> &mut [Entry] {
        let Some((at, skip)) = self.place(op_number) else { return &mut [] };
        let Some(kept) = self.runs.get_mut(at) else { return &mut [] };
        kept.run.to_mut().get_mut(skip..).unwrap_or_default()
    }

    /// The runs, without what is open.
    pub fn closed(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().map(|kept| &kept.run)
    }

    /// Drops runs, the first ones first, until they had `count` entries and `bytes` of memory
    /// together, or `count_max` entries; says how many of both they had.
    pub fn drop_front(&mut self, count: usize, bytes: u64, count_max: usize) -> (usize, u64) {
        let mut dropped = (0, 0);
        while (dropped.0 < count || dropped.1 < bytes)
            && dropped.0 < count_max
            && let Some(kept) = self.runs.pop_front()
        {
            dropped = (dropped.0 + kept.run.len(), dropped.1 + kept.run.memory_bytes());
        }
        dropped
    }

    /// Puts `later` behind what is here. If there is a gap between them, nothing can be looked up any
    /// more.
    pub fn append(&mut self, mut later: Self) {
        if self.runs.is_empty() {
            core::mem::swap(&mut self.runs, &mut later.runs);
        } else {
            self.runs.append(&mut later.runs);
        }
    }

    /// Adds the next entry.
    pub fn push(&mut self, entry: Entry) {
        self.open.push(entry);
    }

    /// Adds the next entries.
    pub fn push_run(&mut self, run: Run) {
        self.close();
        if let Some(first) = run.first() {
            self.runs.push_back(Kept { first: first.header.op_number, run });
        }
    }

    /// What was added one by one becomes a run, to be shared.
    pub fn close(&mut self) {
        if let Some(first) = self.open.first() {
            let first = first.header.op_number;
            // Most batches are about as long as the one before.
            let next = Vec::with_capacity(self.open.len());
            let mut entries = core::mem::replace(&mut self.open, next);
            entries.shrink_to_fit();
            self.runs.push_back(Kept { first, run: entries.into() });
        }
    }

    /// Takes the entries from `from` on away.
    #[must_use]
    pub fn split_off(&mut self, from: OpNumber) -> Self {
        self.close();
        let at = self.runs.partition_point(|kept| kept.end() <= from);
        let mut runs = self.runs.split_off(at);
        if let Some(parted) = runs.front_mut().filter(|kept| kept.first < from) {
            // Copied, because a part would keep all of the run in memory.
            let (stay, go) = parted.run.split_at(parted.position(from));
            let stay = Kept { first: parted.first, run: stay.to_vec().into() };
            *parted = Kept { first: from, run: go.to_vec().into() };
            self.runs.push_back(stay);
        }
        Self { runs, open: Vec::new() }
    }

    /// The run that `op_number` is in, and its place there; most questions are about the newest.
    fn place(&self, op_number: OpNumber) -> Option<(usize, usize)> {
        let last = self.runs.back().filter(|last| op_number < last.end())?;
        let count = self.runs.len();
        if op_number >= last.first {
            return Some((count - 1, last.position(op_number)));
        }
        let is_behind = |kept: &Kept| kept.first <= op_number;
        let newest = count.saturating_sub(NEWEST)..count - 1;
        let near = newest.rev().find(|at| self.runs.get(*at).is_some_and(is_behind));
        let at = near.or_else(|| self.runs.partition_point(is_behind).checked_sub(1))?;
        Some((at, self.runs.get(at)?.position(op_number)))
    }

    fn place_open(&self, op_number: OpNumber) -> Option<usize> {
        let first = self.open.first()?.header.op_number;
        let place = usize::try_from(op_number.0.checked_sub(first.0)?).ok()?;
        (place < self.open.len()).then_some(place)
    }
}

impl Kept {
    /// The op after the last one.
    fn end(&self) -> OpNumber {
        self.first.plus(u64::try_from(self.run.len()).unwrap_or(0))
    }

    /// How many of the entries are below `op_number`.
    fn position(&self, op_number: OpNumber) -> usize {
        let below = usize::try_from(op_number.since(self.first)).unwrap_or(usize::MAX);
        below.min(self.run.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::EntryHeader;

    fn entry(op: u64) -> Entry {
        let header = EntryHeader { op_number: OpNumber(op), ..EntryHeader::default() };
        Entry { header, ..Entry::default() }
    }

    /// Ops from 5 on: runs of these lengths, and what is open.
    fn runs(lengths: &[u64], open: u64) -> Runs {
        let mut runs = Runs::default();
        let mut next = 5;
        for length in lengths {
            runs.push_run((next..next + length).map(entry).collect::<Vec<_>>().into());
            next += length;
        }
        (next..next + open).for_each(|op| runs.push(entry(op)));
        runs
    }

    fn ops<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<u64> {
        entries.into_iter().map(|entry| entry.header.op_number.0).collect()
    }

    #[test]
    fn every_op_is_found_in_its_run() {
        let runs = runs(&[1, 3, 2, 1, 1, 4, 1], 2);
        for op in 5..20 {
            assert_eq!(runs.get(OpNumber(op)).unwrap().header.op_number, OpNumber(op));
            assert_eq!(ops(runs.from(OpNumber(op))), (op..20).collect::<Vec<_>>());
        }
        for op in [0, 4, 20, u64::MAX] {
            assert!(runs.get(OpNumber(op)).is_none() && runs.from(OpNumber(op)).count() == 0);
        }
        assert_eq!(runs.last().unwrap().header.op_number, OpNumber(19));
    }

    #[test]
    fn what_is_of_one_run_is_shared_and_the_rest_copied() {
        let mut runs = runs(&[4, 2], 2);
        assert_eq!(ops(&runs.shared(OpNumber(6), 2)), [6, 7]);
        let within =
            |runs: &Runs| runs.shared(OpNumber(6), 2).as_ptr() == runs.get(OpNumber(6)).unwrap();
        assert!(within(&runs));
        assert_eq!(ops(&runs.shared(OpNumber(7), 4)), [7, 8, 9, 10]);
        assert_eq!(ops(&runs.shared(OpNumber(11), 9)), [11, 12]);
        runs.close();
        assert_eq!(ops(&runs.shared(OpNumber(12), 1)), [12]);
        assert!(runs.shared(OpNumber(13), 1).is_empty() && within(&runs));
        assert_eq!(ops(&runs.rest_of_run(OpNumber(7), 9)), [7, 8]);
        assert_eq!(ops(&runs.rest_of_run(OpNumber(9), 1)), [9]);
        assert!(runs.rest_of_run(OpNumber(13), 1).is_empty());
        let parts = |from, count| {
            runs.parts(OpNumber(from), count).map(|run| ops(&run)).collect::<Vec<_>>()
        };
        assert_eq!(parts(8, 4), [vec![8], vec![9, 10], vec![11]]);
        assert_eq!(parts(11, usize::MAX), [[11, 12]]);
        assert!(parts(13, 1).is_empty() && parts(5, 0).is_empty());
    }

    #[test]
    fn a_split_leaves_nothing_out() {
        for from in 4..16 {
            let mut whole = runs(&[3, 1, 4], 2);
            let tail = whole.split_off(OpNumber(from));
            let middle = from.clamp(5, 15);
            assert_eq!(ops(whole.from(OpNumber(5))), (5..middle).collect::<Vec<_>>());
            assert_eq!(ops(tail.from(OpNumber(middle))), (middle..15).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_dropped_from_the_front_is_whole_runs() {
        let mut whole = runs(&[3, 1, 4], 0);
        let tail = whole.split_off(OpNumber(9));
        whole.append(tail);
        assert_eq!(whole.closed().map(|run| run.len()).collect::<Vec<_>>(), [3, 1, 4]);
        assert_eq!(whole.drop_front(0, 0, 8), (0, 0));
        assert_eq!(whole.closed().count(), 3);
        assert_eq!(whole.drop_front(8, 9999, 4).0, 4, "no more at once");
        assert_eq!(ops(whole.from(OpNumber(9))), [9, 10, 11, 12]);
        assert_eq!(whole.drop_front(1, 0, 8).0, 4);
        whole.append(runs(&[2], 0));
        assert_eq!(whole.closed().map(ops).collect::<Vec<_>>(), [[5, 6]]);
    }

    #[test]
    fn a_run_is_changed_from_an_op_on() {
        let mut runs = runs(&[3, 2], 1);
        assert_eq!(ops(&*runs.run_mut(OpNumber(6))), [6, 7]);
        assert!(runs.run_mut(OpNumber(10)).is_empty() && runs.run_mut(OpNumber(4)).is_empty());
    }
}
