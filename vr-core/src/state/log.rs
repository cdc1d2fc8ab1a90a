//! The log: contiguous, chained entries above a base, and which of them are durable.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    model::{
        entry::{Entry, EntryHeader},
        types::{Checksum, OpNumber, PersistId},
    },
    ports::storage::Anchor,
};

#[derive(Clone, Debug)]
struct Slot {
    header: EntryHeader,
    /// `None` once the payload was dropped from memory; storage still has it.
    payload: Option<Bytes>,
    /// The write that carries the entry; meaningful up to `handed`.
    persist: PersistId,
}

/// Entries above a base, in op order.
///
/// Invariants:
/// * the entry at position i has op number base + 1 + i, and the one before it as parent;
/// * `durable <= handed <= op_number`;
/// * every entry up to `durable` is carried by a write that is done;
/// * entries above `handed` have their payload in memory, in a volatile log all of them.
#[derive(Clone, Debug)]
pub struct Log {
    base: Anchor,
    slots: VecDeque<Slot>,
    durable: OpNumber,
    handed: OpNumber,
    persisted: PersistId,
    bytes: u64,
    cached_bytes: u64,
    /// Payloads at or below this op were dropped once; above it they are all in memory.
    cache_floor: OpNumber,
    /// Time of the entry at the base, if that is known.
    base_time: u64,
    /// Storage has no log: an entry counts as soon as it is here, and stays in memory.
    volatile: bool,
}

impl Log {
    /// A log that storage holds: everything in it is durable, no payload is in memory.
    ///
    /// `headers` are contiguous and chained above `base`; storage has verified that.
    #[must_use]
    pub fn recovered(base: Anchor, headers: &[EntryHeader]) -> Self {
        let op_number = headers.last().map_or(base.op_number, |header| header.op_number);
        Self {
            base,
            slots: headers
                .iter()
                .map(|header| Slot { header: *header, payload: None, persist: PersistId::ZERO })
                .collect(),
            durable: op_number,
            handed: op_number,
            persisted: PersistId::ZERO,
            bytes: headers.iter().map(EntryHeader::entry_bytes).sum(),
            cached_bytes: 0,
            cache_floor: op_number,
            base_time: 0,
            volatile: false,
        }
    }

    /// An empty log after `base` that is kept in memory only, whole: its entries count as soon as
    /// they are here.
    #[must_use]
    pub fn volatile(base: Anchor) -> Self {
        Self { volatile: true, ..Self::recovered(base, &[]) }
    }

    /// Whether storage has no log.
    #[must_use]
    pub const fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// The last op; the base's if there is no entry above it.
    #[must_use]
    pub fn op_number(&self) -> OpNumber {
        self.base.op_number.plus(u64::try_from(self.slots.len()).unwrap_or(0))
    }

    /// Checksum of the last entry; the base's if there is none above it.
    #[must_use]
    pub fn head(&self) -> Checksum {
        self.slots.back().map_or(self.base.checksum, |slot| slot.header.checksum)
    }

    /// Time of the last entry, in nanoseconds since 1970; the base's if there is none above it, 0 if
    /// that is not known.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.slots.back().map_or(self.base_time, |slot| slot.header.time)
    }

    /// The op and checksum that the first entry chains to.
    #[must_use]
    pub const fn base(&self) -> Anchor {
        self.base
    }

    /// Bytes of all entries, headers included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The highest op up to which every entry counts as held: is durable, or, in a log that is
    /// kept in memory only, is there.
    #[must_use]
    pub const fn durable_op(&self) -> OpNumber {
        self.durable
    }

    /// The highest op that was given to storage.
    #[must_use]
    pub const fn handed(&self) -> OpNumber {
        self.handed
    }

    /// The header at `op_number`.
    #[must_use]
    pub fn header(&self, op_number: OpNumber) -> Option<&EntryHeader> {
        self.slot(op_number).map(|slot| &slot.header)
    }

    /// The checksum at `op_number`, the base included.
    #[must_use]
    pub fn checksum_of(&self, op_number: OpNumber) -> Option<Checksum> {
        if op_number == self.base.op_number {
            return Some(self.base.checksum);
        }
        self.header(op_number).map(|header| header.checksum)
    }

    /// The entry at `op_number`, if its payload is in memory.
    #[must_use]
    pub fn entry(&self, op_number: OpNumber) -> Option<Entry> {
        let slot = self.slot(op_number)?;
        let payload = match (&slot.payload, slot.header.payload_length) {
            (Some(payload), _) => payload.clone(),
            (None, 0) => Bytes::new(),
            (None, _) => return None,
        };
        Some(Entry { header: slot.header, payload })
    }

    /// Whether `op_number` is in the log, whether or not its payload is in memory.
    #[must_use]
    pub fn holds(&self, op_number: OpNumber) -> bool {
        self.slot(op_number).is_some()
    }

    /// Entries from `from` up to and including `through` whose payloads are in memory, until the
    /// first one that is not, or `bytes_max`; at least one if it is there.
    #[must_use]
    pub fn entries(&self, from: OpNumber, through: OpNumber, bytes_max: u64) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut op_number = from;
        while op_number <= through {
            let Some(entry) = self.entry(op_number) else { break };
            bytes += entry.header.entry_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
            op_number = op_number.next();
        }
        entries
    }

    /// The headers above `above`, at most the last `count_max` of them, ascending.
    #[must_use]
    pub fn suffix(&self, above: OpNumber, count_max: usize) -> Vec<EntryHeader> {
        let above = usize::try_from(above.since(self.base.op_number)).unwrap_or(usize::MAX);
        let skip = above.max(self.slots.len().saturating_sub(count_max));
        self.slots.iter().skip(skip).map(|slot| slot.header).collect()
    }

    /// The headers from `from` up to and including `through`, at most the last `count_max`.
    #[must_use]
    pub fn headers(&self, from: OpNumber, through: OpNumber, count_max: usize) -> Vec<EntryHeader> {
        let count = usize::try_from(through.since(from).saturating_add(1)).unwrap_or(usize::MAX);
        let from = from.max(self.base.op_number.next()).max(OpNumber(
            through
                .0
                .saturating_sub(u64::try_from(count_max).unwrap_or(u64::MAX))
                .saturating_add(1),
        ));
        let skip = usize::try_from(from.since(self.base.op_number.next())).unwrap_or(usize::MAX);
        let take = count.min(usize::try_from(through.since(from)).unwrap_or(0).saturating_add(1));
        self.slots.iter().skip(skip).take(take).map(|slot| slot.header).collect()
    }

    /// Adds the next entry.
    ///
    /// # Panics
    /// If it is not the next one, or chains to another.
    pub fn append(&mut self, entry: Entry) {
        let header = entry.header;
        let next = self.op_number().next();
        assert!(header.op_number == next, "op {} follows op {next}", header.op_number);
        assert!(header.parent == self.head(), "op {next} chains to the entry before it");
        self.push(entry, PersistId::ZERO);
    }

    /// Takes what storage does not have yet; `id` names the write that carries it.
    pub fn hand_over(&mut self, id: PersistId) -> Vec<Entry> {
        let first = self.handed.next();
        let mut entries = Vec::new();
        let mut op_number = first;
        while let Some(slot) = self.slot_mut(op_number) {
            slot.persist = id;
            entries.push(Entry {
                header: slot.header,
                payload: slot.payload.clone().unwrap_or_default(),
            });
            op_number = op_number.next();
        }
        self.handed = self.op_number();
        entries
    }

    /// Every write up to and including `through` is done.
    pub fn persisted(&mut self, through: PersistId) {
        self.persisted = self.persisted.max(through);
        while self.durable < self.handed {
            let next = self.durable.next();
            let done = self.slot(next).is_some_and(|slot| slot.persist <= self.persisted);
            if !done {
                break;
            }
            self.durable = next;
        }
    }

    /// Puts `entries` in the place of everything above `after`; they are durable already.
    ///
    /// # Panics
    /// If `after` is below the base or above the last op, or the entries do not chain.
    pub fn replace_suffix(&mut self, after: OpNumber, entries: Vec<Entry>) {
        assert!(after >= self.base.op_number, "nothing below the base is replaced");
        assert!(after <= self.op_number(), "the new suffix leaves no gap");
        while self.op_number() > after {
            if let Some(slot) = self.slots.pop_back() {
                self.bytes -= slot.header.entry_bytes();
                self.cached_bytes -= cached(&slot);
            }
        }
        for entry in entries {
            assert!(entry.header.parent == self.head(), "a new suffix is a chain");
            self.push(entry, self.persisted);
        }
        self.handed = self.op_number();
        self.durable = self.op_number();
        self.cache_floor = self.cache_floor.min(after);
    }

    /// Drops the entries up to and including `through`; the log starts after it.
    ///
    /// # Panics
    /// If what is dropped is not all durable.
    pub fn release(&mut self, through: OpNumber) {
        assert!(through <= self.durable, "only what is durable is released");
        while self.base.op_number < through {
            let Some(slot) = self.slots.pop_front() else { break };
            self.bytes -= slot.header.entry_bytes();
            self.cached_bytes -= cached(&slot);
            self.base = Anchor::of(&slot.header);
            self.base_time = slot.header.time;
        }
        self.cache_floor = self.cache_floor.max(self.base.op_number);
    }

    /// The log starts after `base`, whose history is the group's. What is above it stays if it is
    /// of the same history.
    pub fn rebase(&mut self, base: Anchor) {
        if self.checksum_of(base.op_number) == Some(base.checksum) {
            self.durable = self.durable.max(base.op_number);
            self.handed = self.handed.max(base.op_number);
            self.release(base.op_number);
            return;
        }
        self.slots.clear();
        self.base = base;
        self.durable = base.op_number;
        self.handed = base.op_number;
        self.cache_floor = base.op_number;
        (self.bytes, self.cached_bytes) = (0, 0);
        self.base_time = 0;
    }

    /// The entry at `op_number` has `time`; news only if the log starts after it.
    pub fn note_base_time(&mut self, op_number: OpNumber, time: u64) {
        if op_number == self.base.op_number {
            self.base_time = time;
        }
    }

    /// Puts a payload that storage returned back into memory; false if it is not this log's.
    pub fn fill(&mut self, entry: &Entry) -> bool {
        let Some(slot) = self.slot_mut(entry.header.op_number) else { return true };
        if slot.header != entry.header {
            return false;
        }
        if slot.payload.is_none() {
            slot.payload = Some(entry.payload.clone());
            self.cached_bytes += u64::from(entry.header.payload_length);
            self.cache_floor = self.cache_floor.min(entry.header.op_number.previous());
        }
        true
    }

    /// Drops payloads at or below `through`, oldest first, until `bytes_max` of them are left.
    pub fn evict(&mut self, through: OpNumber, bytes_max: u64) {
        if self.volatile {
            return;
        }
        let through = through.min(self.durable);
        while self.cached_bytes > bytes_max && self.cache_floor < through {
            let next = self.cache_floor.next();
            if let Some(slot) = self.slot_mut(next) {
                let freed = cached(slot);
                slot.payload = None;
                self.cached_bytes -= freed;
            }
            self.cache_floor = next;
        }
    }

    fn push(&mut self, entry: Entry, persist: PersistId) {
        self.bytes += entry.header.entry_bytes();
        self.cached_bytes += u64::from(entry.header.payload_length);
        self.slots.push_back(Slot { header: entry.header, payload: Some(entry.payload), persist });
        if self.volatile {
            self.handed = self.op_number();
            self.durable = self.op_number();
        }
    }

    fn slot(&self, op_number: OpNumber) -> Option<&Slot> {
        self.slots.get(self.position(op_number)?)
    }

    fn slot_mut(&mut self, op_number: OpNumber) -> Option<&mut Slot> {
        let position = self.position(op_number)?;
        self.slots.get_mut(position)
    }

    fn position(&self, op_number: OpNumber) -> Option<usize> {
        let above = op_number.0.checked_sub(self.base.op_number.0)?.checked_sub(1)?;
        usize::try_from(above).ok()
    }
}

fn cached(slot: &Slot) -> u64 {
    slot.payload.as_ref().map_or(0, |_| u64::from(slot.header.payload_length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Anchor = Anchor { op_number: OpNumber::ZERO, checksum: Checksum(7) };

    fn empty() -> Log {
        Log::recovered(BASE, &[])
    }

    fn next_entry(log: &Log, payload: &'static [u8]) -> Entry {
        let header = EntryHeader {
            op_number: log.op_number().next(),
            parent: log.head(),
            ..EntryHeader::default()
        };
        Entry::new(header, Bytes::from_static(payload))
    }

    fn log_of(count: u64) -> Log {
        let mut log = empty();
        for _ in 0..count {
            log.append(next_entry(&log, b"payload"));
        }
        log
    }

    #[test]
    fn an_op_is_durable_when_its_write_and_all_before_are_done() {
        let mut log = log_of(2);
        log.hand_over(PersistId(1));
        log.append(next_entry(&log, b"x"));
        log.hand_over(PersistId(2));
        assert_eq!(log.durable_op(), OpNumber(0));
        log.persisted(PersistId(1));
        assert_eq!(log.durable_op(), OpNumber(2));
        log.persisted(PersistId(2));
        assert_eq!(log.durable_op(), OpNumber(3));
    }

    #[test]
    fn entries_are_handed_over_once() {
        let mut log = log_of(3);
        assert_eq!(log.hand_over(PersistId(1)).len(), 3);
        assert!(log.hand_over(PersistId(2)).is_empty());
    }

    #[test]
    #[should_panic(expected = "chains to the entry before it")]
    fn an_entry_of_another_history_is_refused() {
        let mut log = log_of(1);
        let mut entry = next_entry(&log, b"x");
        entry.header.parent = Checksum(99);
        log.append(entry);
    }

    #[test]
    fn a_replaced_suffix_is_durable_and_counts_its_bytes() {
        let mut log = log_of(5);
        log.hand_over(PersistId(1));
        let shorter = log_of(2);
        let entry = next_entry(&shorter, b"other");
        log.replace_suffix(OpNumber(2), vec![entry.clone()]);
        assert_eq!((log.op_number(), log.durable_op()), (OpNumber(3), OpNumber(3)));
        assert_eq!(log.head(), entry.header.checksum);
        assert_eq!(log.bytes(), 2 * (128 + 7) + 128 + 5);
    }

    #[test]
    fn dropped_payloads_come_back_from_storage() {
        let mut log = log_of(4);
        let handed = log.hand_over(PersistId(1));
        log.persisted(PersistId(1));
        log.evict(OpNumber(3), 7);
        assert!(log.entry(OpNumber(3)).is_none());
        assert!(log.entry(OpNumber(4)).is_some());
        assert!(log.fill(&handed[2]));
        assert_eq!(log.entry(OpNumber(3)), Some(handed[2].clone()));
    }

    #[test]
    fn a_released_prefix_is_gone_and_the_rest_stays() {
        let mut log = log_of(5);
        log.hand_over(PersistId(1));
        log.persisted(PersistId(1));
        let (third, head) = (log.checksum_of(OpNumber(3)), log.head());
        log.release(OpNumber(3));
        assert_eq!((log.base().op_number, Some(log.base().checksum)), (OpNumber(3), third));
        assert!(!log.holds(OpNumber(3)) && log.holds(OpNumber(4)));
        assert_eq!((log.head(), log.bytes()), (head, 2 * (128 + 7)));
        log.evict(OpNumber(5), 0);
        assert!(log.entry(OpNumber(5)).is_none());
    }

    #[test]
    #[should_panic(expected = "only what is durable is released")]
    fn what_is_not_durable_is_not_released() {
        log_of(2).release(OpNumber(1));
    }

    #[test]
    fn a_new_base_keeps_what_follows_it_and_nothing_of_another_history() {
        let whole = log_of(5);
        let third =
            Anchor { op_number: OpNumber(3), checksum: whole.checksum_of(OpNumber(3)).unwrap() };
        let mut log = whole.clone();
        log.rebase(third);
        assert_eq!((log.base(), log.op_number(), log.head()), (third, OpNumber(5), whole.head()));
        let mut stranger = log_of(5);
        let other = Anchor { op_number: OpNumber(3), checksum: Checksum(9) };
        stranger.rebase(other);
        assert_eq!(
            (stranger.op_number(), stranger.head(), stranger.bytes()),
            (OpNumber(3), Checksum(9), 0)
        );
        let mut short = log_of(2);
        short.rebase(third);
        assert_eq!((short.op_number(), short.durable_op()), (OpNumber(3), OpNumber(3)));
    }

    #[test]
    fn only_durable_payloads_are_dropped() {
        let mut log = log_of(4);
        log.evict(OpNumber(4), 0);
        assert!(log.entry(OpNumber(1)).is_some());
    }

    #[test]
    fn a_suffix_is_bounded_from_the_top() {
        let log = log_of(9);
        let suffix = log.suffix(OpNumber(2), 3);
        assert_eq!(suffix.iter().map(|h| h.op_number.0).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(log.suffix(OpNumber(7), 9).len(), 2);
        let range = log.headers(OpNumber(1), OpNumber(6), 2);
        assert_eq!(range.iter().map(|h| h.op_number.0).collect::<Vec<_>>(), [5, 6]);
    }

    proptest! {
        #[test]
        fn bytes_and_order_hold_under_any_history(steps in proptest::collection::vec(0_u8..5, 0..60)) {
            let mut log = empty();
            let mut id = 0;
            for step in steps {
                match step {
                    0 | 1 => log.append(next_entry(&log, b"some payload")),
                    2 => { id += 1; log.hand_over(PersistId(id)); }
                    3 => log.persisted(PersistId(id)),
                    _ => {
                        let after = OpNumber(log.op_number().0 / 2);
                        log.hand_over(PersistId(id + 1));
                        log.persisted(PersistId(id + 1));
                        id += 1;
                        log.replace_suffix(after, Vec::new());
                    }
                }
                let all = log.headers(OpNumber(1), log.op_number(), usize::MAX);
                prop_assert_eq!(u64::try_from(all.len()).unwrap(), log.op_number().0);
                prop_assert_eq!(all.iter().map(EntryHeader::entry_bytes).sum::<u64>(), log.bytes());
                prop_assert!(log.durable_op() <= log.handed() && log.handed() <= log.op_number());
            }
        }
    }
}
