//! The log: contiguous, chained entries above a base, and which of them are durable.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    model::{
        entry::{Entry, EntryHeader, Run},
        types::{Checksum, OpNumber, PersistId, View},
    },
    ports::storage::Anchor,
    state::runs::Runs,
};

/// Entries above a base, in op order.
///
/// They are kept in the runs that they came in, so that prepares and the executor share them. A
/// payload that was dropped from memory is empty.
///
/// Invariants:
/// * the entries are contiguous above the base, each with the one before it as parent, and `tip`
///   names the last of them;
/// * `durable <= handed <= op_number`;
/// * every entry up to `durable` is carried by a write that is done;
/// * entries above `handed` have their payload in memory, in a volatile log all of them;
/// * `appended - appended_durable` is the sum over the entries above `durable`.
#[derive(Clone, Debug)]
pub struct Log {
    base: Anchor,
    tip: Anchor,
    runs: Runs,
    /// What was released and is still to be dropped.
    released: Runs,
    /// The last op, and what `appended` was, when something of it was dropped last.
    dropped_at: (OpNumber, u64),
    durable: OpNumber,
    handed: OpNumber,
    /// The writes that are not done, each with the last op that it carries, and what `appended` was
    /// with it.
    writes: VecDeque<(PersistId, OpNumber, u64)>,
    /// Bytes of everything that was ever appended; only grows.
    appended: u64,
    /// What `appended` was with the last op that is durable.
    appended_durable: u64,
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
        let tip = headers.last().map_or(base, Anchor::of);
        let mut runs = Runs::default();
        for headers in headers.chunks(RECOVERED_RUN) {
            let bare = |header: &EntryHeader| Entry { header: *header, ..Entry::default() };
            runs.push_run(headers.iter().map(bare).collect::<Vec<_>>().into());
        }
        Self {
            base,
            tip,
            runs,
            released: Runs::default(),
            dropped_at: (tip.op_number, 0),
            durable: tip.op_number,
            handed: tip.op_number,
            writes: VecDeque::new(),
            appended: 0,
            appended_durable: 0,
            bytes: headers.iter().map(EntryHeader::entry_bytes).sum(),
            cached_bytes: 0,
            cache_floor: tip.op_number,
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
    pub const fn op_number(&self) -> OpNumber {
        self.tip.op_number
    }

    /// Checksum of the last entry; the base's if there is none above it.
    #[must_use]
    pub const fn head(&self) -> Checksum {
        self.tip.checksum
    }

    /// Time of the last entry, in nanoseconds since 1970; the base's if there is none above it, 0 if
    /// that is not known.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.runs.last().map_or(self.base_time, |last| last.header.time)
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

    /// Bytes of the entries above [`durable_op`](Self::durable_op): they cannot leave memory.
    #[must_use]
    pub const fn undurable_bytes(&self) -> u64 {
        self.appended.saturating_sub(self.appended_durable)
    }

    /// The highest op that was given to storage.
    #[must_use]
    pub const fn handed(&self) -> OpNumber {
        self.handed
    }

    /// The header at `op_number`.
    #[must_use]
    pub fn header(&self, op_number: OpNumber) -> Option<&EntryHeader> {
        self.runs.get(op_number).map(|entry| &entry.header)
    }

    /// The checksum at `op_number`, the base included.
    #[must_use]
    pub fn checksum_of(&self, op_number: OpNumber) -> Option<Checksum> {
        if op_number == self.tip.op_number {
            return Some(self.tip.checksum);
        }
        if op_number == self.base.op_number {
            return Some(self.base.checksum);
        }
        self.header(op_number).map(|header| header.checksum)
    }

    /// The entry at `op_number`, if its payload is in memory.
    #[must_use]
    pub fn entry(&self, op_number: OpNumber) -> Option<Entry> {
        self.runs.get(op_number).filter(|entry| entry.is_whole()).cloned()
    }

    /// Whether `op_number` is in the log, whether or not its payload is in memory.
    #[must_use]
    pub fn holds(&self, op_number: OpNumber) -> bool {
        self.base.op_number < op_number && op_number <= self.op_number()
    }

    /// Entries from `from` up to and including `through` whose payloads are in memory, until the
    /// first one that is not, or `bytes_max`; at least one if it is there.
    ///
    /// Nothing is copied if they are all of one run.
    #[must_use]
    pub fn entries(&self, from: OpNumber, through: OpNumber, bytes_max: u64) -> Run {
        let mut bytes = 0;
        let mut fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry.header.entry_bytes();
            entry.is_whole() && (is_first || bytes <= bytes_max)
        };
        let count_max = usize::try_from(through.next().since(from)).unwrap_or(usize::MAX);
        let run = self.runs.run_from(from);
        let mut count = run.iter().take(count_max).take_while(&mut fits).count();
        if count == run.len() && count < count_max {
            let beyond = self.runs.from(from).take(count_max).skip(count);
            count += beyond.take_while(fits).count();
        }
        self.runs.shared(from, count)
    }

    /// As [`entries`](Self::entries), but only those of one run: fewer, and nothing is copied.
    #[must_use]
    pub fn run(&self, from: OpNumber, through: OpNumber, bytes_max: u64) -> Run {
        let count_max = usize::try_from(through.next().since(from)).unwrap_or(usize::MAX);
        let run = self.runs.rest_of_run(from, count_max);
        if run.is_whole() && run.bytes() <= bytes_max {
            return run;
        }
        let last = through.min(from.plus(u64::try_from(run.len()).unwrap_or(0)).previous());
        self.entries(from, last, bytes_max)
    }

    /// Bytes of the entries from `from` up to and including `through`, as far as there are any.
    #[must_use]
    pub fn bytes_of(&self, from: OpNumber, through: OpNumber) -> u64 {
        let count = usize::try_from(through.next().since(from)).unwrap_or(usize::MAX);
        self.runs.parts(from, count).map(|run| run.bytes()).sum()
    }

    /// The entries from `from` on that came together with it.
    #[must_use]
    pub fn run_from(&self, from: OpNumber) -> &[Entry] {
        self.runs.run_from(from)
    }

    /// The headers from `from` on, ascending.
    pub fn headers_from(&self, from: OpNumber) -> impl Iterator<Item = &EntryHeader> {
        self.runs.from(from).map(|entry| &entry.header)
    }

    /// The headers above `above`, at most the last `count_max` of them, ascending.
    #[must_use]
    pub fn suffix(&self, above: OpNumber, count_max: usize) -> Vec<EntryHeader> {
        self.headers(above.next(), self.op_number(), count_max)
    }

    /// The headers from `from` up to and including `through`, at most the last `count_max`.
    #[must_use]
    pub fn headers(&self, from: OpNumber, through: OpNumber, count_max: usize) -> Vec<EntryHeader> {
        let through = through.min(self.op_number());
        let count_max = u64::try_from(count_max).unwrap_or(u64::MAX);
        let lowest = OpNumber(through.0.saturating_sub(count_max).saturating_add(1));
        let from = from.max(self.base.op_number.next()).max(lowest);
        let count = usize::try_from(through.next().since(from)).unwrap_or(usize::MAX);
        self.headers_from(from).take(count).copied().collect()
    }

    /// Adds the next entry.
    ///
    /// # Panics
    /// If it is not the next one, or chains to another.
    pub fn append(&mut self, entry: Entry) {
        let next = self.op_number().next();
        assert!(entry.header.op_number == next, "op {} follows op {next}", entry.header.op_number);
        assert!(entry.header.parent == self.head(), "op {next} chains to the entry before it");
        self.push(entry);
    }

    /// Adds all of `run`, if each of its entries is the next one, chains to the one before it, and
    /// is of no view above `view`; false if not, and then nothing has changed.
    pub fn append_run(&mut self, run: &Run, view: View) -> bool {
        let (mut tip, mut payloads) = (self.tip, 0);
        for Entry { header, .. } in run {
            let is_next = header.op_number == tip.op_number.next();
            if !is_next || header.parent != tip.checksum || header.view > view {
                return false;
            }
            payloads += u64::from(header.payload_length);
            tip = Anchor::of(header);
        }
        let bytes = payloads + 128 * tip.op_number.since(self.tip.op_number);
        self.bytes += bytes;
        self.appended += bytes;
        self.cached_bytes += payloads;
        self.tip = tip;
        self.runs.push_run(run.clone());
        self.hold_volatile();
        true
    }

    /// What was appended one by one becomes a run, to be shared.
    pub fn close(&mut self) {
        self.runs.close();
    }

    /// Takes what storage does not have yet; `id` names the write that carries it.
    pub fn hand_over(&mut self, id: PersistId) -> Vec<Run> {
        self.close();
        let entries = self.runs.parts(self.handed.next(), usize::MAX).collect();
        self.handed = self.op_number();
        self.writes.push_back((id, self.handed, self.appended));
        entries
    }

    /// Every write up to and including `through` is done.
    pub fn persisted(&mut self, through: PersistId) {
        while let Some((_, carried, appended)) = self.writes.pop_front_if(|(id, ..)| *id <= through)
        {
            self.durable = self.durable.max(carried);
            self.appended_durable = self.appended_durable.max(appended);
        }
    }

    /// Puts `entries` in the place of everything above `after`; they are durable already.
    ///
    /// # Panics
    /// If `after` is below the base or above the last op, or the entries do not chain.
    pub fn replace_suffix(&mut self, after: OpNumber, entries: Vec<Entry>) {
        assert!(after >= self.base.op_number, "nothing below the base is replaced");
        assert!(after <= self.op_number(), "the new suffix leaves no gap");
        let checksum = self.checksum_of(after).unwrap_or(self.base.checksum);
        let gone = self.runs.split_off(after.next());
        self.uncount(&gone);
        self.tip = Anchor { op_number: after, checksum };
        for entry in entries {
            assert!(entry.header.parent == self.head(), "a new suffix is a chain");
            self.push(entry);
        }
        self.close();
        self.all_durable();
        self.cache_floor = self.cache_floor.min(after);
    }

    /// Drops the entries up to and including `through`; the log starts after it. Their memory is
    /// given back [bit by bit](Self::drop_released).
    ///
    /// # Panics
    /// If what is dropped is not all durable.
    pub fn release(&mut self, through: OpNumber) {
        assert!(through <= self.durable, "only what is durable is released");
        let stay = self.runs.split_off(through.next());
        let gone = core::mem::replace(&mut self.runs, stay);
        self.uncount(&gone);
        if let Some(Entry { header, .. }) = gone.last() {
            self.base = Anchor::of(header);
            self.base_time = header.time;
        }
        self.cache_floor = self.cache_floor.max(self.base.op_number);
        self.released.append(gone);
    }

    /// Gives back some of the memory of what was released: of more entries, and of as many bytes, as
    /// were added since the last time, so that a log in memory does not grow by a release. Giving back
    /// all of it at once would keep a group waiting for milliseconds: what is too much for one time
    /// is due the next time.
    pub fn drop_released(&mut self) {
        let now = (self.op_number(), self.appended);
        let (entries, bytes) = self.dropped_at;
        let added = usize::try_from(now.0.since(entries)).unwrap_or(usize::MAX);
        let added = added.saturating_add(DROPPED_MIN);
        let appended = now.1.saturating_sub(bytes);
        let (dropped, dropped_bytes) = self.released.drop_front(added, appended, DROPPED_MAX);
        self.dropped_at = now;
        if dropped >= DROPPED_MAX {
            let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
            self.dropped_at = (entries.plus(dropped), bytes.saturating_add(dropped_bytes));
        }
    }

    /// The log starts after `base`, whose history is the group's. What is above it stays if it is
    /// of the same history.
    pub fn rebase(&mut self, base: Anchor) {
        if self.checksum_of(base.op_number) == Some(base.checksum) {
            if base.op_number > self.durable {
                let above = self.bytes_of(base.op_number.next(), self.op_number());
                self.appended_durable = self.appended.saturating_sub(above);
                self.durable = base.op_number;
            }
            self.handed = self.handed.max(base.op_number);
            self.release(base.op_number);
            return;
        }
        self.runs = Runs::default();
        (self.base, self.tip) = (base, base);
        self.all_durable();
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
        let op_number = entry.header.op_number;
        let Some(known) = self.runs.get(op_number) else { return true };
        if known.header != entry.header {
            return false;
        }
        if !known.is_whole()
            && let Some(bare) = self.runs.run_mut(op_number).first_mut()
        {
            bare.payload = entry.payload.clone();
            self.cached_bytes += u64::from(entry.header.payload_length);
            self.cache_floor = self.cache_floor.min(op_number.previous());
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
            let run = self.runs.run_mut(self.cache_floor.next());
            if run.is_empty() {
                return;
            }
            for entry in run {
                if self.cached_bytes <= bytes_max || self.cache_floor >= through {
                    return;
                }
                self.cached_bytes -= cached(entry);
                entry.payload = Bytes::new();
                self.cache_floor = entry.header.op_number;
            }
        }
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.header.entry_bytes();
        self.appended += entry.header.entry_bytes();
        self.cached_bytes += u64::from(entry.header.payload_length);
        self.tip = Anchor::of(&entry.header);
        self.runs.push(entry);
        self.hold_volatile();
    }

    /// A log in memory only holds what is in it.
    fn hold_volatile(&mut self) {
        if self.volatile {
            // Nothing of it was ever given to storage, so that no write is open.
            (self.handed, self.durable) = (self.op_number(), self.op_number());
            self.appended_durable = self.appended;
        }
    }

    fn all_durable(&mut self) {
        self.handed = self.op_number();
        self.durable = self.op_number();
        self.appended_durable = self.appended;
        self.writes.clear();
    }

    /// Nothing of `gone` is open.
    fn uncount(&mut self, gone: &Runs) {
        for run in gone.closed() {
            self.bytes -= run.bytes();
            self.cached_bytes -= match run.is_whole() {
                true => run.payload_bytes(),
                false => run.iter().map(cached).sum(),
            };
        }
    }
}

/// Released entries that are dropped at least, each time.
const DROPPED_MIN: usize = 32;

/// As soon as so many are dropped, the rest waits for the next time; a few hundred microseconds.
const DROPPED_MAX: usize = 2048;

/// Headers of a recovered log that are kept as one run.
const RECOVERED_RUN: usize = 256;

fn cached(entry: &Entry) -> u64 {
    if entry.is_whole() { u64::from(entry.header.payload_length) } else { 0 }
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
    fn what_is_released_is_dropped_bit_by_bit_and_faster_than_the_log_grows() {
        let mut log = Log::volatile(BASE);
        let add = |log: &mut Log, count| {
            for _ in 0..count {
                log.append(next_entry(log, b"payload"));
                log.close();
            }
        };
        let kept = |log: &Log| log.released.closed().count();
        add(&mut log, 200);
        log.release(OpNumber(150));
        assert_eq!((log.bytes(), kept(&log)), (50 * 135, 150));
        log.drop_released();
        assert_eq!(kept(&log), 0, "as many were added");
        add(&mut log, 100);
        log.drop_released();
        log.release(OpNumber(250));
        log.drop_released();
        assert_eq!(kept(&log), 100 - DROPPED_MIN);
        add(&mut log, 10);
        log.drop_released();
        assert_eq!(kept(&log), 100 - 2 * DROPPED_MIN - 10);
    }

    #[test]
    fn as_many_bytes_are_dropped_as_are_added() {
        let mut log = Log::volatile(BASE);
        for _ in 0..500 {
            log.append(next_entry(&log, b"payload"));
            log.close();
        }
        log.drop_released();
        log.release(OpNumber(500));
        log.append(next_entry(&log, &[7; 200 * (128 + 7)]));
        log.drop_released();
        assert_eq!(log.released.closed().count(), 500 - 201);
    }

    #[test]
    fn what_is_too_much_to_drop_at_once_is_dropped_the_next_times() {
        let mut log = Log::volatile(BASE);
        let kept = |log: &Log| log.released.closed().count();
        for _ in 0..3 * DROPPED_MAX {
            log.append(next_entry(&log, b""));
            log.close();
        }
        log.drop_released();
        log.release(log.op_number());
        // As many bytes as two and a half times the most that is dropped at once.
        log.append(next_entry(&log, &[7; 128 * (5 * DROPPED_MAX / 2 - 1)]));
        for left in [2 * DROPPED_MAX, DROPPED_MAX, DROPPED_MAX / 2, DROPPED_MAX / 2 - DROPPED_MIN] {
            log.drop_released();
            assert_eq!(kept(&log), left);
        }
    }

    #[test]
    fn payloads_that_are_on_disk_only_do_not_count_as_dropped() {
        let mut log = empty();
        for _ in 0..100 {
            log.append(next_entry(&log, &[7; 3 * 128]));
            log.close();
        }
        log.hand_over(PersistId(1));
        log.persisted(PersistId(1));
        log.evict(OpNumber(100), 0);
        log.drop_released();
        log.release(OpNumber(100));
        log.append(next_entry(&log, &[7; 49 * 128]));
        log.drop_released();
        assert_eq!(log.released.closed().count(), 100 - 50, "a header each");
    }

    #[test]
    fn entries_are_handed_over_once() {
        let mut log = log_of(3);
        assert_eq!(log.hand_over(PersistId(1)).iter().flatten().count(), 3);
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
        let third = handed[0][2].clone();
        assert!(third.is_whole(), "what was handed over stays as it was");
        assert!(log.fill(&third));
        assert_eq!(log.entry(OpNumber(3)), Some(third));
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
