//! What is damaged on this replica's disk, and how far it is with getting that from the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{
        entry::{Entry, EntryHeader},
        types::{Checksum, OpNumber, PersistId, ReplicaIndex, ReplicaSet, RequestId},
    },
    ports::storage::{Anchor, Recovered},
};

/// A log with holes in it, as storage found it: no evidence before they are filled.
///
/// Invariants: the chain from `head` down to `cursor` is known and in `headers`; every op above the
/// base that is in `broken` has to be written again before the log is whole.
#[derive(Clone, Debug)]
pub struct Holes {
    base: Anchor,
    head: Anchor,
    headers: BTreeMap<OpNumber, EntryHeader>,
    broken: BTreeSet<OpNumber>,
    cursor: Anchor,
}

impl Holes {
    /// The holes in what storage found; `None` if there are none.
    #[must_use]
    pub fn of(recovered: &Recovered) -> Option<Self> {
        let base = Anchor::after(&recovered.superblock.checkpoint);
        let headers = recovered.headers.iter().map(|header| (header.op_number, *header));
        let mut broken = BTreeSet::new();
        for range in &recovered.damaged {
            let mut op_number = range.first;
            while op_number <= range.through.op_number {
                broken.insert(op_number);
                op_number = op_number.next();
            }
        }
        let head = recovered.head();
        let headers = headers.collect();
        let holes = Self { base, head, headers, broken, cursor: head };
        (!recovered.damaged.is_empty()).then_some(holes)
    }

    /// The last op of the log.
    #[must_use]
    pub const fn op_number(&self) -> OpNumber {
        self.head.op_number
    }

    /// The headers below the first hole. They may belong to a log that was replaced by entries
    /// which a hole hides, so they prove nothing; their checksums tell what they are.
    #[must_use]
    pub fn prefix(&self) -> Vec<EntryHeader> {
        let mut op_number = self.base.op_number.next();
        let mut prefix = Vec::new();
        while let Some(header) = self.headers.get(&op_number) {
            if self.broken.contains(&op_number) {
                break;
            }
            prefix.push(*header);
            op_number = op_number.next();
        }
        prefix
    }

    /// The highest place whose header is missing; `None` once the chain is known down to the base.
    ///
    /// Whole entries that the chain does not lead to were replaced before the damage was done, and
    /// are replaced again.
    pub fn missing_header(&mut self) -> Option<Anchor> {
        while self.cursor.op_number > self.base.op_number {
            let header = self.headers.get(&self.cursor.op_number);
            let header = header.filter(|header| header.checksum == self.cursor.checksum);
            let Some(header) = header else { return Some(self.cursor) };
            self.cursor = Anchor::below(header);
        }
        None
    }

    /// Whether the chain ends in another history than the base is of. Then the base came from
    /// others, in this life or an earlier one: the disk keeps what is above it until that is known.
    #[must_use]
    pub fn contradicts_base(&self) -> bool {
        self.cursor.op_number == self.base.op_number && self.cursor != self.base
    }

    /// The log starts after `base`, which came from others. Whether what is above it still belongs
    /// to the log, as far as is known.
    fn rebase(&mut self, base: Anchor) -> bool {
        if self.head.op_number <= base.op_number {
            return false;
        }
        if self.cursor.op_number < base.op_number {
            let header = self.headers.get(&base.op_number);
            let Some(header) = header else { return false };
            self.cursor = Anchor::of(header);
        }
        self.headers = self.headers.split_off(&base.op_number.next());
        self.broken = self.broken.split_off(&base.op_number.next());
        self.base = base;
        !self.contradicts_base()
    }

    /// Puts headers, ascending, below those that are known; false, and nothing changes, if they do
    /// not lead there.
    pub fn add_headers(&mut self, headers: &[EntryHeader]) -> bool {
        let mut place = self.cursor;
        for header in headers.iter().rev() {
            if Anchor::of(header) != place || header.op_number <= self.base.op_number {
                return false;
            }
            place = Anchor::below(header);
        }
        for header in headers {
            if self.headers.insert(header.op_number, *header) != Some(*header) {
                self.broken.insert(header.op_number);
            }
        }
        !headers.is_empty()
    }

    /// Whether this very entry is whole on disk.
    #[must_use]
    pub fn holds(&self, op_number: OpNumber, checksum: Checksum) -> bool {
        let header = self.headers.get(&op_number);
        header.is_some_and(|header| header.checksum == checksum)
            && !self.broken.contains(&op_number)
    }

    /// The known headers from `from` up to and including `through`, if they lead there; at most
    /// the last `count_max`, ascending.
    #[must_use]
    pub fn headers(&self, from: OpNumber, through: Anchor, count_max: usize) -> Vec<EntryHeader> {
        let mut found = Vec::new();
        let mut place = through;
        while place.op_number >= from && found.len() < count_max {
            let header = self.headers.get(&place.op_number);
            let Some(header) = header.filter(|header| header.checksum == place.checksum) else {
                break;
            };
            found.push(*header);
            place = Anchor::below(header);
        }
        found.reverse();
        found
    }

    /// The header at `op_number`, if it is known.
    #[must_use]
    pub fn header(&self, op_number: OpNumber) -> Option<&EntryHeader> {
        self.headers.get(&op_number)
    }

    /// All headers, once nothing is broken.
    #[must_use]
    pub fn into_headers(self) -> Vec<EntryHeader> {
        self.headers.into_values().collect()
    }
}

/// What a new base means to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebased {
    /// It had no holes.
    Whole,
    /// It has holes above the base.
    Holed,
    /// It had holes, and nothing of it is needed any more.
    Dropped,
}

/// Damaged entries on their way back to this replica's disk.
///
/// Invariant: at most one question is open and at most one repair is being written.
#[derive(Clone, Debug, Default)]
pub struct Repair {
    holes: Option<Holes>,
    /// Damage that was found later, in a log that is known.
    latent: BTreeMap<OpNumber, EntryHeader>,
    question: Option<RequestId>,
    questions: u64,
    asked: ReplicaSet,
    repaired: u64,
    writing: Option<(PersistId, Vec<OpNumber>)>,
    /// The write that takes a log of another history from the disk.
    dropping: Option<PersistId>,
}

impl Repair {
    /// What has to be repaired of a log that was found like this.
    #[must_use]
    pub fn of(recovered: &Recovered) -> Self {
        Self { holes: Holes::of(recovered), ..Self::default() }
    }

    /// The holes that the log had when it was opened, until all are filled.
    #[must_use]
    pub const fn holes(&self) -> Option<&Holes> {
        self.holes.as_ref()
    }

    /// The same, to be changed.
    pub const fn holes_mut(&mut self) -> Option<&mut Holes> {
        self.holes.as_mut()
    }

    /// Whether the entry at `op_number` is known to be damaged on disk.
    #[must_use]
    pub fn is_damaged(&self, op_number: OpNumber) -> bool {
        let broken = self.holes.as_ref().is_some_and(|holes| holes.broken.contains(&op_number));
        broken || self.latent.contains_key(&op_number)
    }

    /// First and last damaged op, and how many there are.
    #[must_use]
    pub fn extent(&self) -> Option<(OpNumber, OpNumber, u64)> {
        let holes = self.holes.as_ref();
        let broken = holes.into_iter().flat_map(|holes| holes.broken.iter());
        let all: BTreeSet<OpNumber> = broken.chain(self.latent.keys()).copied().collect();
        let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
        all.first().zip(all.last()).map(|(first, last)| (*first, *last, count))
    }

    /// Ops that were repaired since the start.
    #[must_use]
    pub const fn repaired(&self) -> u64 {
        self.repaired
    }

    /// Who was asked since something was last repaired.
    #[must_use]
    pub const fn asked(&self) -> ReplicaSet {
        self.asked
    }

    /// Storage could not read the entry that has `header` back; false if that was known.
    pub fn found(&mut self, header: EntryHeader) -> bool {
        let op_number = header.op_number;
        if self.is_damaged(op_number) {
            return false;
        }
        match &mut self.holes {
            Some(holes) => holes.broken.insert(op_number),
            None => self.latent.insert(op_number, header).is_none(),
        }
    }

    /// Whether something has to be done and nothing is under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let is_open = self.holes.is_some() || !self.latent.is_empty();
        is_open && self.question.is_none() && self.writing.is_none()
    }

    /// Whether nothing of it is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holes.is_none() && self.latent.is_empty()
    }

    /// The entries that are damaged and whose headers are known, ascending, at most `count_max`.
    pub fn wanted(&self, count_max: usize) -> impl Iterator<Item = &EntryHeader> {
        let broken = self.holes.iter().flat_map(|holes| {
            holes.broken.iter().filter_map(|op_number| holes.headers.get(op_number))
        });
        broken.chain(self.latent.values()).take(count_max)
    }

    /// Whether a damaged entry must be exactly this one.
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        let op_number = entry.header.op_number;
        let known = match &self.holes {
            Some(holes) => holes.headers.get(&op_number),
            None => self.latent.get(&op_number),
        };
        self.is_damaged(op_number) && known == Some(&entry.header)
    }

    /// The question that is open.
    #[must_use]
    pub const fn question(&self) -> Option<RequestId> {
        self.question
    }

    /// How many questions nobody answered since one was answered last.
    #[must_use]
    pub const fn unanswered(&self) -> u64 {
        self.questions
    }

    /// `question` was asked of `peer`.
    pub fn ask(&mut self, question: RequestId, peer: ReplicaIndex) {
        self.question = Some(question);
        self.questions = self.questions.saturating_add(1);
        self.asked.insert(peer);
    }

    /// The question will not be answered; the next one goes to somebody else.
    pub const fn give_up_question(&mut self) {
        self.question = None;
    }

    /// The question was answered, so its answerer is asked again.
    pub const fn answered(&mut self) {
        self.question = None;
        self.questions = self.questions.saturating_sub(1);
    }

    /// `id` names the write that carries `entries`.
    pub fn write(&mut self, id: PersistId, entries: &[Entry]) {
        let ops = entries.iter().map(|entry| entry.header.op_number);
        self.writing = Some((id, ops.collect()));
    }

    /// Writes up to and including `through` are done; how many ops they repaired.
    pub fn persisted(&mut self, through: PersistId) -> usize {
        let Some((_, ops)) = self.writing.take_if(|(id, _)| *id <= through) else { return 0 };
        for op_number in &ops {
            self.latent.remove(op_number);
            if let Some(holes) = &mut self.holes {
                holes.broken.remove(op_number);
            }
        }
        self.asked = ReplicaSet::EMPTY;
        self.repaired = self.repaired.saturating_add(u64::try_from(ops.len()).unwrap_or(0));
        ops.len()
    }

    /// The holes, if all are filled; they are none any more.
    pub fn take_filled(&mut self) -> Option<Holes> {
        self.holes.take_if(|holes| holes.missing_header().is_none() && holes.broken.is_empty())
    }

    /// Entries up to and including `through` are not needed any more, damaged or not.
    pub fn released(&mut self, through: OpNumber) {
        self.latent = self.latent.split_off(&through.next());
        if self.latent.is_empty() && self.holes.is_none() {
            self.question = None;
        }
    }

    /// The log starts after `base`, which came from others.
    pub fn rebase(&mut self, base: Anchor) -> Rebased {
        let Some(holes) = &mut self.holes else {
            self.released(base.op_number);
            return Rebased::Whole;
        };
        self.question = None;
        if holes.rebase(base) {
            return Rebased::Holed;
        }
        self.drop_holes();
        Rebased::Dropped
    }

    /// The log that had holes is of another history, and none any more when `cut` is durable.
    pub fn drop_log(&mut self, cut: PersistId) {
        self.drop_holes();
        self.dropping = Some(cut);
    }

    /// Whether a log of another history may still be on disk.
    #[must_use]
    pub const fn is_dropping(&self) -> bool {
        self.dropping.is_some()
    }

    /// Whether it is gone, now that every write up to and including `through` is done.
    pub fn take_dropped(&mut self, through: PersistId) -> bool {
        self.dropping.take_if(|cut| *cut <= through).is_some()
    }

    /// The log that had holes is none any more.
    fn drop_holes(&mut self) {
        self.holes = None;
        self.question = None;
    }

    /// Everything above `after` was replaced by entries that are whole.
    pub fn replaced_above(&mut self, after: OpNumber) {
        self.latent.split_off(&after.next());
        self.dropping = None;
        self.drop_holes();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        model::{
            durable::{Durability, Identity, Superblock},
            membership::Members,
            types::{DiskId, ReplicaId},
        },
        ports::storage::DamagedRange,
    };

    fn superblock() -> Superblock {
        let members = Members::local(3).unwrap().to_membership();
        Superblock::blank(&Identity {
            group: members.group_id("g"),
            group_name: "g".into(),
            members,
            replica: ReplicaId(0),
            durability: Durability::Full,
            fresh_disk: DiskId(1),
        })
    }

    /// Entries that chain, with `mark` in all from op `from` on.
    fn log(count: u64, from: u64, mark: u64) -> Vec<Entry> {
        let mut parent = superblock().checkpoint.checksum;
        let entry = |op: u64| {
            let time = if op >= from { mark } else { 0 };
            let op_number = OpNumber(op);
            let header = EntryHeader { op_number, parent, time, ..EntryHeader::default() };
            let entry = Entry::new(header, Bytes::from_static(b"x"));
            parent = entry.header.checksum;
            entry
        };
        (1..=count).map(entry).collect()
    }

    fn headers(entries: &[Entry]) -> Vec<EntryHeader> {
        entries.iter().map(|entry| entry.header).collect()
    }

    /// The log of `found`, of which these ops are damaged, up to the entry of `truth`.
    fn repair(found: &[Entry], truth: &[Entry], damaged: (u64, u64)) -> Repair {
        let through = Anchor::of(&truth[usize::try_from(damaged.1 - 1).unwrap()].header);
        let damaged = DamagedRange { first: OpNumber(damaged.0), through };
        let mut headers = headers(found);
        headers.retain(|header| {
            header.op_number < damaged.first || header.op_number > damaged.through.op_number
        });
        let recovered =
            Recovered { damaged: vec![damaged], ..Recovered::whole(superblock(), headers) };
        Repair::of(&recovered)
    }

    fn wanted(repair: &Repair) -> Vec<u64> {
        repair.wanted(99).map(|header| header.op_number.0).collect()
    }

    #[test]
    fn a_hole_is_filled_from_above() {
        let log = log(9, 1, 0);
        let mut repair = repair(&log, &log, (4, 6));
        let holes = repair.holes_mut().unwrap();
        assert_eq!(holes.missing_header(), Some(Anchor::of(&log[5].header)));
        assert!(!holes.add_headers(&headers(&log[3..5])), "they do not lead there");
        assert!(holes.add_headers(&headers(&log[4..6])));
        assert_eq!(holes.missing_header(), Some(Anchor::of(&log[3].header)));
        assert!(holes.add_headers(&headers(&log[..4])), "more than was missing");
        assert_eq!(holes.missing_header(), None);
        assert!(!holes.contradicts_base());
        assert_eq!(wanted(&repair), [4, 5, 6]);
        assert!(repair.wants(&log[4]) && !repair.wants(&log[2]));
        repair.write(PersistId(3), &log[3..6]);
        assert!(!repair.is_waiting() && repair.take_filled().is_none());
        assert_eq!((repair.persisted(PersistId(2)), repair.persisted(PersistId(3))), (0, 3));
        assert_eq!(repair.take_filled().unwrap().into_headers(), headers(&log));
        assert!(repair.is_empty());
    }

    #[test]
    fn a_hole_that_hides_a_cut_grows_down_to_where_the_logs_part() {
        let (old, new) = (log(6, 1, 0), log(8, 4, 7));
        let mut repair = repair(&old, &new, (7, 8));
        let holes = repair.holes_mut().unwrap();
        assert_eq!(holes.prefix().len(), 6);
        assert!(holes.holds(OpNumber(5), old[4].header.checksum));
        assert!(holes.missing_header().is_some());
        assert!(holes.add_headers(&headers(&new[4..8])));
        assert!(holes.missing_header().is_some(), "op 4 is another one");
        assert!(holes.add_headers(&headers(&new[1..4])));
        assert_eq!(holes.missing_header(), None);
        assert_eq!(wanted(&repair), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn holes_tell_what_they_hold_and_nothing_else() {
        let log = log(9, 1, 0);
        let repair = repair(&log, &log, (4, 6));
        let holes = repair.holes().unwrap();
        assert!(holes.holds(OpNumber(9), log[8].header.checksum));
        assert!(!holes.holds(OpNumber(5), log[4].header.checksum));
        let through = Anchor::of(&log[8].header);
        assert_eq!(holes.headers(OpNumber(1), through, 9), headers(&log[6..]));
        assert_eq!(holes.headers(OpNumber(8), through, 1), headers(&log[8..]));
        assert_eq!((holes.op_number(), holes.prefix().len()), (OpNumber(9), 3));
    }

    #[test]
    fn damage_that_is_found_later_is_wanted_once() {
        let log = log(3, 1, 0);
        let mut repair = Repair::default();
        assert!(repair.found(log[1].header) && !repair.found(log[1].header));
        assert_eq!(
            (repair.extent(), wanted(&repair)),
            (Some((OpNumber(2), OpNumber(2), 1)), vec![2])
        );
        repair.ask(RequestId(1), ReplicaIndex(1));
        assert!(!repair.is_waiting() && repair.asked().contains(ReplicaIndex(1)));
        repair.replaced_above(OpNumber(1));
        assert!(repair.is_empty() && repair.question().is_none());
    }
}
