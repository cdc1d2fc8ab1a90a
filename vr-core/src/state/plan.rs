//! A log that is being put together before it replaces anything: headers first, then bodies.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::{
    model::{
        entry::{Entry, EntryHeader},
        types::{Checksum, OpNumber, ReplicaId, ReplicaIndex, ReplicaSet, RequestId},
    },
    ports::storage::Anchor,
    state::log::Log,
};

/// The way from this replica's log to the log of a view.
///
/// Invariants: `headers` are contiguous and chained, and end at the target; every payload belongs
/// to one of them. Nothing of the old log is touched.
#[derive(Clone, Debug)]
pub struct Plan {
    target: Anchor,
    commit_number: OpNumber,
    source: ReplicaId,
    headers: VecDeque<EntryHeader>,
    payloads: BTreeMap<OpNumber, Bytes>,
    question: Option<RequestId>,
    questions: u64,
    meet: Option<OpNumber>,
    progress: bool,
    lacking: ReplicaSet,
}

/// What a plan needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The headers up to and including this one.
    Headers(Anchor),
    /// The entries with these ops and checksums, ascending.
    Entries(Vec<(OpNumber, Checksum)>),
    /// Nothing: everything above this op can be replaced.
    Nothing {
        /// The last op that both logs share.
        after: OpNumber,
    },
}

/// The log of a plan and this replica's log have nothing in common, not even the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strangers {
    /// What the plan's chain has in the place of this log's base.
    pub theirs: Checksum,
}

impl Plan {
    /// A plan for the log that ends at `target`, whose last headers are `suffix`.
    ///
    /// `None` if the suffix is not a chain that ends there.
    #[must_use]
    pub fn new(
        source: ReplicaId,
        target: Anchor,
        commit_number: OpNumber,
        suffix: &[EntryHeader],
    ) -> Option<Self> {
        let mut plan = Self {
            target,
            commit_number,
            source,
            headers: VecDeque::new(),
            payloads: BTreeMap::new(),
            question: None,
            questions: 0,
            meet: None,
            progress: false,
            lacking: ReplicaSet::EMPTY,
        };
        let fits = plan.add_headers(suffix);
        plan.progress = false;
        fits.then_some(plan)
    }

    /// The end of the log.
    #[must_use]
    pub const fn target(&self) -> Anchor {
        self.target
    }

    /// What is known to be committed of it.
    #[must_use]
    pub const fn commit_number(&self) -> OpNumber {
        self.commit_number
    }

    /// Who told of it, and therefore has it.
    #[must_use]
    pub const fn source(&self) -> ReplicaId {
        self.source
    }

    /// The question that was asked and not answered.
    #[must_use]
    pub const fn question(&self) -> Option<RequestId> {
        self.question
    }

    /// `question` was asked; returns how many were asked before.
    pub const fn asked(&mut self, question: RequestId) -> u64 {
        self.question = Some(question);
        self.questions += 1;
        self.questions - 1
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

    /// The lowest place whose checksum is known.
    fn lowest(&self) -> Anchor {
        self.headers.front().map_or(self.target, |header| Anchor {
            op_number: header.op_number.previous(),
            checksum: header.parent,
        })
    }

    /// Puts headers below those that are there; false, and nothing changes, if they do not fit.
    pub fn add_headers(&mut self, headers: &[EntryHeader]) -> bool {
        let mut lowest = self.lowest();
        for header in headers.iter().rev() {
            let fits = header.op_number == lowest.op_number
                && header.checksum == lowest.checksum
                && header.op_number > OpNumber::ZERO;
            if !fits {
                return false;
            }
            lowest = Anchor { op_number: header.op_number.previous(), checksum: header.parent };
        }
        for header in headers.iter().rev() {
            self.headers.push_front(*header);
        }
        if !headers.is_empty() {
            self.came_closer();
        }
        true
    }

    /// What is needed next is something else than before, so everybody may have it.
    const fn came_closer(&mut self) {
        self.progress = true;
        self.lacking = ReplicaSet::EMPTY;
    }

    /// `index` answered that it does not hold what was asked for.
    pub fn is_lacked_by(&mut self, index: ReplicaIndex) {
        self.lacking.insert(index);
    }

    /// Who does not hold what this plan needs next.
    #[must_use]
    pub const fn lacking(&self) -> ReplicaSet {
        self.lacking
    }

    /// Takes the entries that this plan has headers for; true if one of them was needed.
    pub fn add_entries(&mut self, entries: Vec<Entry>) -> bool {
        let mut useful = false;
        for entry in entries {
            let op_number = entry.header.op_number;
            let wanted = self.header(op_number).is_some_and(|header| *header == entry.header);
            if wanted && self.meet.is_some_and(|meet| op_number > meet) {
                useful |= self.payloads.insert(op_number, entry.payload).is_none();
            }
        }
        if useful {
            self.came_closer();
        }
        useful
    }

    /// Whether headers or entries were added since this was asked last.
    pub const fn take_progress(&mut self) -> bool {
        core::mem::replace(&mut self.progress, false)
    }

    /// What is missing before this plan can replace the suffix of `log`.
    ///
    /// At most `count_max` entries are asked for at a time.
    ///
    /// # Errors
    /// [`Strangers`] when the chains do not even share the base.
    pub fn need(&mut self, log: &Log, count_max: usize) -> Result<Need, Strangers> {
        let meet = match self.meet.filter(|meet| *meet >= log.base().op_number) {
            Some(meet) => meet,
            None => match self.find_meet(log)? {
                Some(meet) => *self.meet.insert(meet),
                None => return Ok(Need::Headers(self.lowest())),
            },
        };
        let missing: Vec<_> = self
            .above(meet)
            .filter(|header| {
                header.payload_length > 0 && !self.payloads.contains_key(&header.op_number)
            })
            .map(|header| (header.op_number, header.checksum))
            .take(count_max)
            .collect();
        if missing.is_empty() {
            return Ok(Need::Nothing { after: meet });
        }
        Ok(Need::Entries(missing))
    }

    /// The entries above `after`, all of whose payloads are here.
    #[must_use]
    pub fn into_entries(mut self, after: OpNumber) -> Vec<Entry> {
        let headers: Vec<EntryHeader> = self.above(after).copied().collect();
        let mut payload = |op| self.payloads.remove(&op).unwrap_or_default();
        headers
            .into_iter()
            .map(|header| Entry { header, payload: payload(header.op_number) })
            .collect()
    }

    /// The highest op that both chains share; `None` if more headers are needed to tell.
    fn find_meet(&self, log: &Log) -> Result<Option<OpNumber>, Strangers> {
        let lowest = self.lowest();
        let known = self
            .headers
            .iter()
            .rev()
            .map(|header| Anchor { op_number: header.op_number, checksum: header.checksum });
        for place in known.chain([lowest]) {
            if log.checksum_of(place.op_number) == Some(place.checksum) {
                return Ok(Some(place.op_number));
            }
        }
        if lowest.op_number <= log.base().op_number {
            return Err(Strangers { theirs: lowest.checksum });
        }
        Ok(None)
    }

    fn above(&self, after: OpNumber) -> impl Iterator<Item = &EntryHeader> {
        self.headers.iter().skip_while(move |header| header.op_number <= after)
    }

    fn header(&self, op_number: OpNumber) -> Option<&EntryHeader> {
        let first = self.headers.front()?.op_number;
        let position = usize::try_from(op_number.0.checked_sub(first.0)?).ok()?;
        self.headers.get(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_added_later_is_progress() {
        let header = EntryHeader { op_number: OpNumber(1), ..EntryHeader::default() };
        let target = Anchor { op_number: OpNumber(1), checksum: header.checksum };
        let suffix = [header];
        let mut plan = Plan::new(ReplicaId(1), target, OpNumber(0), &suffix).unwrap();
        assert!(!plan.take_progress());
        let mut plan = Plan::new(ReplicaId(1), target, OpNumber(0), &[]).unwrap();
        assert!(plan.add_headers(&suffix) && plan.take_progress() && !plan.take_progress());
    }

    #[test]
    fn who_lacked_one_thing_may_have_the_next() {
        let header = EntryHeader { op_number: OpNumber(1), ..EntryHeader::default() };
        let target = Anchor { op_number: OpNumber(1), checksum: header.checksum };
        let mut plan = Plan::new(ReplicaId(1), target, OpNumber(0), &[]).unwrap();
        plan.is_lacked_by(ReplicaIndex(2));
        assert!(plan.lacking().contains(ReplicaIndex(2)));
        assert!(plan.add_headers(&[header]) && plan.lacking().is_empty());
    }

    const BASE: Anchor = Anchor { op_number: OpNumber::ZERO, checksum: Checksum(7) };

    /// A log whose entries carry `marks`, so that two logs share the prefix of equal marks.
    fn log_of(marks: &[u64]) -> Log {
        let mut log = Log::recovered(BASE, &[]);
        for mark in marks {
            let header = EntryHeader {
                op_number: log.op_number().next(),
                parent: log.head(),
                time: *mark,
                ..EntryHeader::default()
            };
            log.append(Entry::new(header, Bytes::copy_from_slice(&mark.to_le_bytes())));
        }
        log
    }

    fn plan_of(log: &Log, suffix_max: usize) -> Plan {
        let target = Anchor { op_number: log.op_number(), checksum: log.head() };
        let suffix = log.suffix(OpNumber::ZERO, suffix_max);
        Plan::new(ReplicaId(1), target, OpNumber(0), &suffix).unwrap()
    }

    #[test]
    fn a_longer_log_lacks_only_what_is_new() {
        let (ours, theirs) = (log_of(&[1, 2]), log_of(&[1, 2, 3]));
        let mut plan = plan_of(&theirs, 9);
        let missing = (OpNumber(3), theirs.head());
        assert_eq!(plan.need(&ours, 9), Ok(Need::Entries(vec![missing])));
        assert!(plan.add_entries(vec![theirs.entry(OpNumber(3)).unwrap()]));
        assert_eq!(plan.need(&ours, 9), Ok(Need::Nothing { after: OpNumber(2) }));
        assert_eq!(plan.into_entries(OpNumber(2)).len(), 1);
    }

    #[test]
    fn a_conflicting_suffix_is_replaced_from_where_the_logs_part() {
        let (ours, theirs) = (log_of(&[1, 2, 8, 9]), log_of(&[1, 2, 3]));
        let mut plan = plan_of(&theirs, 9);
        plan.need(&ours, 9).unwrap();
        plan.add_entries(vec![theirs.entry(OpNumber(3)).unwrap()]);
        assert_eq!(plan.need(&ours, 9), Ok(Need::Nothing { after: OpNumber(2) }));
    }

    #[test]
    fn a_shorter_log_needs_no_body() {
        let (ours, theirs) = (log_of(&[1, 2, 3]), log_of(&[1, 2]));
        let mut plan = plan_of(&theirs, 9);
        assert_eq!(plan.need(&ours, 9), Ok(Need::Nothing { after: OpNumber(2) }));
    }

    #[test]
    fn headers_are_asked_for_downwards_until_the_logs_meet() {
        let (ours, theirs) = (log_of(&[1]), log_of(&[1, 2, 3, 4]));
        let mut plan = plan_of(&theirs, 1);
        let lowest =
            Anchor { op_number: OpNumber(3), checksum: theirs.checksum_of(OpNumber(3)).unwrap() };
        assert_eq!(plan.need(&ours, 9), Ok(Need::Headers(lowest)));
        assert!(!plan.add_headers(&theirs.headers(OpNumber(1), OpNumber(2), 9)));
        assert!(plan.add_headers(&theirs.headers(OpNumber(2), OpNumber(3), 9)));
        assert!(matches!(plan.need(&ours, 9), Ok(Need::Entries(missing)) if missing.len() == 3));
    }

    #[test]
    fn logs_of_two_groups_never_meet() {
        let ours = Log::recovered(Anchor { checksum: Checksum(8), ..BASE }, &[]);
        let mut plan = plan_of(&log_of(&[1]), 9);
        assert_eq!(plan.need(&ours, 9), Err(Strangers { theirs: Checksum(7) }));
    }

    #[test]
    fn an_entry_of_another_history_is_not_taken() {
        let (ours, theirs) = (log_of(&[1]), log_of(&[1, 2]));
        let mut plan = plan_of(&theirs, 9);
        plan.need(&ours, 9).unwrap();
        assert!(!plan.add_entries(vec![log_of(&[1, 9]).entry(OpNumber(2)).unwrap()]));
    }

    #[test]
    fn an_empty_log_is_a_plan_too() {
        let ours = log_of(&[]);
        let mut plan = plan_of(&log_of(&[]), 9);
        assert_eq!(plan.need(&ours, 9), Ok(Need::Nothing { after: OpNumber(0) }));
    }
}
