//! Puts the batches of a log together again, and tells by their chain what is missing of it.

use std::collections::VecDeque;

use vr_core::{
    OpNumber,
    model::{entry::EntryHeader, types::Checksum},
    ports::storage::{Anchor, DamagedRange},
};

use crate::file::{
    index::{Index, Place},
    record::{BatchHeader, BatchKind},
};

/// One op of the log, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The entry's header, if that verifies.
    pub(crate) header: Option<EntryHeader>,
    /// Its checksum: the header's, or what a whole batch header says that it must be.
    pub(crate) checksum: Option<Checksum>,
    /// Where it lies, if that is known.
    pub(crate) place: Option<Place>,
    /// Whether the entry verifies, its payload too.
    pub(crate) is_whole: bool,
}

/// The log as far as it has been put together.
///
/// Invariant: the first slot is the op after `base`, and each following one the op after that.
#[derive(Debug)]
pub(crate) struct Replay {
    checkpoint: Anchor,
    base: Anchor,
    slots: VecDeque<Slot>,
    /// Ops that were repaired.
    repairs: Vec<OpNumber>,
    /// More is missing below `base` than can be named.
    is_torn_apart: bool,
    /// The most missing ops that are named one by one; of more, the whole log is given up.
    gap_max: u64,
}

/// [`Replay::gap_max`]: a damaged number says any number, and each op that is named takes memory.
const GAP_MAX: u64 = 1 << 22;

/// What the batches make together.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Headers above the checkpoint that verify, ascending.
    pub(crate) headers: Vec<EntryHeader>,
    /// Ops above the checkpoint whose entries do not verify.
    pub(crate) damaged: Vec<DamagedRange>,
    pub(crate) index: Index,
    /// Ops that were repaired.
    pub(crate) repairs: Vec<OpNumber>,
    /// The log has another entry than the superblock at the checkpoint.
    pub(crate) contradicts_checkpoint: bool,
}

impl Replay {
    /// An empty log above `checkpoint`.
    pub(crate) const fn new(checkpoint: Anchor) -> Self {
        Self {
            checkpoint,
            base: checkpoint,
            slots: VecDeque::new(),
            repairs: Vec::new(),
            is_torn_apart: false,
            gap_max: GAP_MAX,
        }
    }

    /// The last op, or what the first one will follow.
    pub(crate) fn head(&self) -> OpNumber {
        self.base.op_number.plus(u64::try_from(self.slots.len()).unwrap_or(u64::MAX))
    }

    /// Adds a batch. Tells which ops are missing below it, if its base is not where it should be.
    pub(crate) fn apply(
        &mut self,
        batch: &BatchHeader,
        slots: &[Slot],
    ) -> Option<(OpNumber, OpNumber)> {
        if batch.kind == BatchKind::Repair {
            let missing = self.end_at(batch.base);
            self.repair(slots);
            return missing;
        }
        let missing = self.follow(batch.base);
        self.slots.extend(slots);
        missing
    }

    /// The log ends at `base`, whatever is known of it.
    ///
    /// A batch names its base by checksum, and checksums chain, so a base that is found proves
    /// everything below it, whatever lies damaged in between. A base at or below the checkpoint
    /// needs no proof: what is before it is not needed any more. Any other base says which entry
    /// was there: it is missing, and so may be others below it.
    pub(crate) fn follow(&mut self, base: Anchor) -> Option<(OpNumber, OpNumber)> {
        if self.checksum_at(base.op_number) == Some(base.checksum) {
            self.truncate(base.op_number);
            return None;
        }
        if base.op_number <= self.checkpoint.op_number {
            self.base = base;
            self.slots.clear();
            self.is_torn_apart = false;
            return None;
        }
        if base.op_number.since(self.head()) > self.gap_max {
            let first = self.head().next();
            self.base = base;
            self.slots.clear();
            self.is_torn_apart = true;
            return Some((first, base.op_number));
        }
        let first = self.head().next().min(base.op_number);
        self.truncate(base.op_number.previous());
        while self.head() < base.op_number {
            self.slots.push_back(Slot::default());
        }
        if let Some(last) = self.slots.back_mut() {
            last.checksum = Some(base.checksum);
        }
        Some((first, base.op_number))
    }

    /// A marker or a repair says that the log ended at `end`.
    pub(crate) fn end_at(&mut self, end: Anchor) -> Option<(OpNumber, OpNumber)> {
        let released =
            end.op_number <= self.checkpoint.op_number && self.head() <= self.checkpoint.op_number;
        if released { None } else { self.follow(end) }
    }

    fn truncate(&mut self, op_number: OpNumber) {
        let kept = op_number.since(self.base.op_number);
        self.slots.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// Puts entries in the place of damaged ones; nothing is cut.
    fn repair(&mut self, slots: &[Slot]) {
        for slot in slots.iter().filter(|slot| slot.is_whole) {
            let Some(header) = slot.header else { continue };
            let op_number = header.op_number;
            if let Some(place) = self.position(op_number).and_then(|at| self.slots.get_mut(at)) {
                *place = *slot;
                self.repairs.push(op_number);
            }
        }
    }

    /// Checks the chain from the last entry down, and sorts what is whole from what is not.
    ///
    /// An entry is in its place if the entry above it names its checksum. Below a gap nothing can
    /// say that; such entries are taken for what they seem to be, and whoever fills the gap finds
    /// out by the checksums whether they are.
    pub(crate) fn finish(mut self) -> Layout {
        let mut expected = self.slots.back().and_then(|slot| slot.checksum);
        for slot in self.slots.iter_mut().rev() {
            let checksum = slot.header.map(|header| header.checksum);
            if expected.is_some() && checksum != expected {
                *slot = Slot { header: None, is_whole: false, checksum: expected, ..*slot };
            }
            expected = slot.header.map(|header| header.parent);
        }
        let below_base = expected.filter(|_| !self.slots.is_empty());
        let breaks = below_base.is_some_and(|checksum| checksum != self.base.checksum);
        let at_checkpoint = self.checksum_at(self.checkpoint.op_number);
        let contradicts = at_checkpoint.is_some_and(|it| it != self.checkpoint.checksum);
        let (mut headers, mut damaged) = (Vec::new(), Vec::<DamagedRange>::new());
        let mut index = Index::default();
        let mut op_number = self.base.op_number;
        for slot in &self.slots {
            op_number = op_number.next();
            index.add(op_number, slot.place, slot.header.filter(|_| slot.is_whole));
            if op_number <= self.checkpoint.op_number {
                continue;
            }
            headers.extend(slot.header);
            if slot.is_whole {
                continue;
            }
            let through = Anchor { op_number, checksum: slot.checksum.unwrap_or_default() };
            match damaged.last_mut() {
                Some(last) if last.through.op_number.next() == op_number => last.through = through,
                Some(_) | None => damaged.push(DamagedRange { first: op_number, through }),
            }
        }
        let repairs = self.repairs;
        let contradicts_checkpoint = breaks || contradicts || self.is_torn_apart;
        Layout { headers, damaged, index, repairs, contradicts_checkpoint }
    }

    fn position(&self, op_number: OpNumber) -> Option<usize> {
        let above = op_number.0.checked_sub(self.base.op_number.0)?.checked_sub(1)?;
        usize::try_from(above).ok()
    }

    fn checksum_at(&self, op_number: OpNumber) -> Option<Checksum> {
        if op_number == self.base.op_number {
            return Some(self.base.checksum);
        }
        self.slots.get(self.position(op_number)?)?.checksum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(op: u64) -> Anchor {
        Anchor { op_number: OpNumber(op), checksum: Checksum(u128::from(op)) }
    }

    /// The op `op`, whole, as [`anchor`] names it.
    fn slot(op: u64) -> Slot {
        let (checksum, parent) = (anchor(op).checksum, anchor(op - 1).checksum);
        let header =
            EntryHeader { op_number: OpNumber(op), checksum, parent, ..EntryHeader::default() };
        Slot { header: Some(header), checksum: Some(checksum), is_whole: true, place: None }
    }

    /// A log above op 2 that has op 3, and then one op behind a base after `base`.
    fn with_gap(base: u64, gap_max: u64) -> (Replay, Option<(OpNumber, OpNumber)>) {
        let mut replay = Replay { gap_max, ..Replay::new(anchor(2)) };
        assert_eq!(replay.follow(anchor(2)), None);
        replay.slots.push_back(slot(3));
        let missing = replay.follow(anchor(base));
        replay.slots.push_back(slot(base + 1));
        (replay, missing)
    }

    #[test]
    fn what_is_missing_is_named_op_by_op() {
        let (replay, missing) = with_gap(7, 4);
        assert_eq!(missing, Some((OpNumber(4), OpNumber(7))));
        let layout = replay.finish();
        assert!(!layout.contradicts_checkpoint);
        assert_eq!(layout.damaged, [DamagedRange { first: OpNumber(4), through: anchor(7) }]);
        let ops: Vec<u64> = layout.headers.iter().map(|header| header.op_number.0).collect();
        assert_eq!(ops, [3, 8]);
    }

    /// However far a damaged number reaches, nothing is made for each op in between.
    #[test]
    fn a_log_that_lacks_more_than_can_be_named_is_given_up() {
        for (base, gap_max) in [(8, 4), (4 + GAP_MAX, GAP_MAX), (u64::MAX - 1, GAP_MAX)] {
            let (replay, missing) = with_gap(base, gap_max);
            assert_eq!(missing, Some((OpNumber(4), OpNumber(base))));
            assert_eq!(replay.slots.len(), 1, "what comes behind the gap");
            assert!(replay.finish().contradicts_checkpoint);
        }
    }

    /// What is at or below the checkpoint is not needed, however much of it is missing.
    #[test]
    fn a_log_that_begins_anew_at_the_checkpoint_is_whole_whatever_was_missing_before() {
        let (mut replay, _) = with_gap(8, 4);
        assert_eq!(replay.follow(anchor(2)), None);
        replay.slots.push_back(slot(3));
        let layout = replay.finish();
        assert!(!layout.contradicts_checkpoint && layout.damaged.is_empty());
    }
}
