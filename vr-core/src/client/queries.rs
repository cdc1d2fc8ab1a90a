//! A client's queries in flight; each stands alone, none waits for another.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    client::{
        backoff::pause,
        call::{CallId, Waiting},
    },
    model::{
        read::Read,
        time::Instant,
        types::{ReplicaId, RequestNumber},
    },
};

/// Queries are numbered from here, so that a rejection tells them from requests.
const FIRST: RequestNumber = RequestNumber(1 << 63);

/// One query without an answer.
#[derive(Clone, Debug)]
pub(crate) struct InQuestion {
    /// Who waits for it.
    pub(crate) waiting: Waiting,
    /// How fresh the answer must be.
    pub(crate) read: Read,
    /// The query's bytes.
    pub(crate) query: Bytes,
    /// Whom it was sent to last; `None` while there is a way to nobody.
    pub(crate) asked: Option<ReplicaId>,
    attempts: u32,
    again_at: Instant,
}

/// The queries without an answer, by number.
#[derive(Debug)]
pub(crate) struct Queries {
    next: RequestNumber,
    pending: BTreeMap<RequestNumber, InQuestion>,
    retry_interval: Duration,
}

impl Queries {
    /// No queries; the first repetition comes after `retry_interval`.
    pub(crate) const fn new(retry_interval: Duration) -> Self {
        Self { next: FIRST, pending: BTreeMap::new(), retry_interval }
    }

    /// Whether `number` is one of a query.
    pub(crate) fn is_query(number: RequestNumber) -> bool {
        number >= FIRST
    }

    /// How many queries have no answer.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Adds a query that is sent to `asked` now; returns its number.
    pub(crate) fn ask(
        &mut self,
        waiting: Waiting,
        read: Read,
        query: Bytes,
        asked: Option<ReplicaId>,
    ) -> RequestNumber {
        let number = self.next;
        self.next = number.next();
        let again_at = waiting.since + pause(self.retry_interval, 0, 0);
        let question = InQuestion { waiting, read, query, asked, attempts: 1, again_at };
        self.pending.insert(number, question);
        number
    }

    /// Takes out an answered query; `None` if it was answered before.
    pub(crate) fn answer(&mut self, number: RequestNumber) -> Option<Waiting> {
        self.pending.remove(&number).map(|question| question.waiting)
    }

    /// Asks again soon, because a replica was busy; false if the query has its answer.
    pub(crate) fn refuse(&mut self, number: RequestNumber, again_at: Instant) -> bool {
        let Some(question) = self.pending.get_mut(&number) else { return false };
        question.again_at = question.again_at.min(again_at);
        true
    }

    /// The numbers of the queries that `replica` has not answered.
    pub(crate) fn asked_of(&self, replica: Option<ReplicaId>) -> Vec<RequestNumber> {
        let asked = self.pending.iter().filter(|(_, question)| question.asked == replica);
        asked.map(|(number, _)| *number).collect()
    }

    /// The numbers of the queries that are due to be asked again.
    pub(crate) fn due(&self, now: Instant) -> Vec<RequestNumber> {
        let due = self.pending.iter().filter(|(_, question)| question.again_at <= now);
        due.map(|(number, _)| *number).collect()
    }

    /// Notes that `number` is asked again; `choose` is told whom it was asked of and says whom
    /// now. Returns the query to send, if there is somebody to send it to.
    pub(crate) fn ask_again(
        &mut self,
        number: RequestNumber,
        now: Instant,
        jitter: u8,
        choose: impl FnOnce(&InQuestion) -> Option<ReplicaId>,
    ) -> Option<(ReplicaId, InQuestion)> {
        let question = self.pending.get_mut(&number)?;
        question.asked = choose(question);
        question.again_at = now + pause(self.retry_interval, question.attempts, jitter);
        question.attempts = question.attempts.saturating_add(1);
        Some((question.asked?, question.clone()))
    }

    /// Takes out the query of a call that nobody waits for any more.
    pub(crate) fn withdraw(&mut self, call: CallId) {
        self.pending.retain(|_, question| question.waiting.call != call);
    }

    /// All calls that wait.
    pub(crate) fn waiting(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.pending.values_mut().map(|question| &mut question.waiting)
    }

    /// Takes out the queries whose deadline has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Waiting> {
        let due = |_: &RequestNumber, question: &mut InQuestion| question.waiting.deadline <= now;
        let expired = self.pending.extract_if(.., due);
        expired.map(|(_, question)| question.waiting).collect()
    }

    /// Takes out all queries.
    pub(crate) fn drain(&mut self) -> Vec<Waiting> {
        core::mem::take(&mut self.pending).into_values().map(|question| question.waiting).collect()
    }

    /// The earliest deadline of all calls; the far future if nobody waits.
    pub(crate) fn deadline(&self) -> Instant {
        let deadlines = self.pending.values().map(|question| question.waiting.deadline);
        deadlines.min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// When the next query is asked again; the far future if there is none.
    pub(crate) fn again_at(&self) -> Instant {
        let again = self.pending.values().map(|question| question.again_at);
        again.min().unwrap_or(Instant::FAR_FUTURE)
    }
}
