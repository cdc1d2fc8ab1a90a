//! A client's requests: those that wait, and those in flight under consecutive numbers.

use std::collections::VecDeque;

use crate::{
    client::call::{CallId, Waiting},
    model::{operation::Operation, time::Instant, types::RequestNumber},
};

/// How far a request in flight has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Sent; the reply is missing.
    Sent,
    /// A replica answered busy; to be sent again after a pause.
    Refused,
    /// Replied.
    Answered,
}

/// A request that has a number.
#[derive(Clone, Debug)]
struct InFlight {
    /// Who waits for it; nobody any more after a timeout or a dropped call.
    waiting: Option<Waiting>,
    operation: Operation,
    progress: Progress,
}

/// Requests of one session, in order.
///
/// Invariants: numbers in flight are consecutive; the first of them is not answered; no number is
/// in flight together with one `width` below it that is not answered, so that the group still
/// keeps the reply of everything in flight.
#[derive(Debug)]
pub(crate) struct Window {
    width: usize,
    first: RequestNumber,
    in_flight: VecDeque<InFlight>,
    queue: VecDeque<(Waiting, Operation)>,
    queued_bytes: u64,
}

impl Window {
    /// An empty window, `width` requests wide.
    pub(crate) fn new(width: u32) -> Self {
        Self {
            width: usize::try_from(width).unwrap_or(usize::MAX),
            first: RequestNumber(1),
            in_flight: VecDeque::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
        }
    }

    /// How many calls wait without a number.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of the operations that wait without a number.
    pub(crate) const fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// How many numbers are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Adds a call behind the others that wait.
    pub(crate) fn enqueue(&mut self, waiting: Waiting, operation: Operation) {
        self.queued_bytes = self.queued_bytes.saturating_add(operation.length());
        self.queue.push_back((waiting, operation));
    }

    /// Gives the next waiting call its number, if the window has room.
    pub(crate) fn admit(&mut self) -> Option<(RequestNumber, Operation)> {
        if self.in_flight.len() >= self.width {
            return None;
        }
        let (waiting, operation) = self.queue.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(operation.length());
        let number = self.first.plus(u64::try_from(self.in_flight.len()).unwrap_or(u64::MAX));
        self.in_flight.push_back(InFlight {
            waiting: Some(waiting),
            operation: operation.clone(),
            progress: Progress::Sent,
        });
        Some((number, operation))
    }

    /// Notes the reply to `number`; `None` if it was not missing, otherwise who waits for it.
    pub(crate) fn answer(&mut self, number: RequestNumber) -> Option<Option<Waiting>> {
        let request = self.slot(number)?;
        if request.progress == Progress::Answered {
            return None;
        }
        request.progress = Progress::Answered;
        let waiting = request.waiting.take();
        while self.in_flight.front().is_some_and(|front| front.progress == Progress::Answered) {
            self.in_flight.pop_front();
            self.first = self.first.next();
        }
        Some(waiting)
    }

    /// Notes that a replica did not take `number`; false if its reply is not missing.
    pub(crate) fn refuse(&mut self, number: RequestNumber) -> bool {
        match self.slot(number) {
            Some(request) if request.progress != Progress::Answered => {
                request.progress = Progress::Refused;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The requests without a reply, in order; they count as sent from here on.
    pub(crate) fn send_again(&mut self) -> Vec<(RequestNumber, Operation)> {
        self.take(|progress| progress != Progress::Answered)
    }

    /// The requests that were refused, in order; they count as sent from here on.
    pub(crate) fn send_refused(&mut self) -> Vec<(RequestNumber, Operation)> {
        self.take(|progress| progress == Progress::Refused)
    }

    /// Takes back a call that has no number yet; false if there is none such.
    pub(crate) fn withdraw(&mut self, call: CallId) -> bool {
        let Some(position) = self.queue.iter().position(|(waiting, _)| waiting.call == call) else {
            return false;
        };
        if let Some((_, operation)) = self.queue.remove(position) {
            self.queued_bytes = self.queued_bytes.saturating_sub(operation.length());
        }
        true
    }

    /// Nobody waits for `call` any more; its number stays in flight.
    pub(crate) fn detach(&mut self, call: CallId) {
        for request in &mut self.in_flight {
            if request.waiting.is_some_and(|waiting| waiting.call == call) {
                request.waiting = None;
            }
        }
    }

    /// All calls that wait.
    pub(crate) fn waiting(&mut self) -> impl Iterator<Item = &mut Waiting> {
        let sent = self.in_flight.iter_mut().filter_map(|request| request.waiting.as_mut());
        self.queue.iter_mut().map(|(waiting, _)| waiting).chain(sent)
    }

    /// Takes out the calls without a number whose deadline has come.
    pub(crate) fn expire_queued(&mut self, now: Instant) -> Vec<Waiting> {
        let all = self.queue.iter().map(|(waiting, _)| *waiting);
        let due: Vec<Waiting> = all.filter(|waiting| waiting.deadline <= now).collect();
        if !due.is_empty() {
            self.queue.retain(|(waiting, _)| waiting.deadline > now);
            self.queued_bytes = self.queue.iter().map(|(_, operation)| operation.length()).sum();
        }
        due
    }

    /// Detaches the calls in flight whose deadline has come; their numbers stay.
    pub(crate) fn expire_in_flight(&mut self, now: Instant) -> Vec<(Waiting, RequestNumber)> {
        let due = |waiting: &mut Waiting| waiting.deadline <= now;
        let numbered = self.in_flight.iter_mut().zip((self.first.0..).map(RequestNumber));
        numbered.filter_map(|(it, number)| Some((it.waiting.take_if(due)?, number))).collect()
    }

    /// Who waits for which number in flight.
    pub(crate) fn waiting_in_flight(&self) -> Vec<(Waiting, RequestNumber)> {
        let numbered = self.in_flight.iter().zip((self.first.0..).map(RequestNumber));
        numbered.filter_map(|(it, number)| Some((it.waiting?, number))).collect()
    }

    /// The operation of `number`, behind those in flight that may have to execute before it:
    /// whatever is in front of an answered one has executed.
    pub(crate) fn operations_through(&self, number: RequestNumber) -> Vec<Operation> {
        let count = usize::try_from(number.next().since(self.first)).unwrap_or(usize::MAX);
        let asked = self.in_flight.iter().take(count);
        let answered = asked.clone().rposition(|it| it.progress == Progress::Answered);
        let executed = answered.map_or(0, |position| position.saturating_add(1));
        asked.skip(executed).map(|it| it.operation.clone()).collect()
    }

    /// The earliest deadline of all calls; the far future if nobody waits.
    pub(crate) fn deadline(&self) -> Instant {
        let queued = self.queue.iter().map(|(waiting, _)| waiting.deadline);
        let sent = self.in_flight.iter().filter_map(|request| request.waiting);
        queued.chain(sent.map(|waiting| waiting.deadline)).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Forgets all numbers, because the session ended.
    pub(crate) fn end_session(&mut self) {
        self.first = RequestNumber(1);
        self.in_flight.clear();
    }

    /// Empties the queue; returns who waited in it.
    pub(crate) fn drain_queue(&mut self) -> Vec<Waiting> {
        self.queued_bytes = 0;
        self.queue.drain(..).map(|(waiting, _)| waiting).collect()
    }

    fn slot(&mut self, number: RequestNumber) -> Option<&mut InFlight> {
        let position = number.0.checked_sub(self.first.0)?;
        self.in_flight.get_mut(usize::try_from(position).ok()?)
    }

    fn take(&mut self, wanted: impl Fn(Progress) -> bool) -> Vec<(RequestNumber, Operation)> {
        let mut taken = Vec::new();
        let mut number = self.first;
        for request in &mut self.in_flight {
            if wanted(request.progress) {
                request.progress = Progress::Sent;
                taken.push((number, request.operation.clone()));
            }
            number = number.next();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn waiting(call: u64) -> Waiting {
        Waiting { call: CallId(call), since: Instant::ZERO, deadline: Instant(call) }
    }

    fn window(calls: u64) -> Window {
        let mut window = Window::new(2);
        for call in 1..=calls {
            window.enqueue(waiting(call), Bytes::from_static(b"op").into());
        }
        window
    }

    fn operations(names: &[&'static str]) -> Vec<Operation> {
        names.iter().map(|name| Bytes::from(*name).into()).collect()
    }

    fn numbers(requests: &[(RequestNumber, Operation)]) -> Vec<u64> {
        requests.iter().map(|(number, _)| number.0).collect()
    }

    #[test]
    fn no_number_is_given_that_is_a_window_ahead_of_a_missing_reply() {
        let mut window = window(4);
        assert!(window.admit().is_some() && window.admit().is_some());
        assert_eq!(window.admit(), None);
        window.answer(RequestNumber(2));
        assert_eq!(window.admit(), None, "1 is still missing");
        window.answer(RequestNumber(1));
        assert_eq!(window.admit().unwrap().0, RequestNumber(3));
    }

    #[test]
    fn a_reply_counts_once() {
        let mut window = window(2);
        window.admit();
        window.admit();
        assert_eq!(window.answer(RequestNumber(2)), Some(Some(waiting(2))));
        assert_eq!(window.answer(RequestNumber(2)), None);
        assert_eq!(window.answer(RequestNumber(3)), None);
        assert_eq!(numbers(&window.send_again()), [1]);
    }

    #[test]
    fn an_expired_call_keeps_its_number_in_flight() {
        let mut window = window(3);
        window.admit();
        window.admit();
        assert_eq!(window.expire_in_flight(Instant(1)), [(waiting(1), RequestNumber(1))]);
        assert_eq!(window.waiting_in_flight(), [(waiting(2), RequestNumber(2))]);
        assert_eq!(numbers(&window.send_again()), [1, 2]);
        assert_eq!(window.answer(RequestNumber(1)), Some(None));
    }

    #[test]
    fn what_stands_before_a_number_is_what_may_not_have_executed() {
        let mut window = Window::new(4);
        for call in 1..=4 {
            window.enqueue(waiting(call), Bytes::from(call.to_string()).into());
            window.admit();
        }
        let through = |window: &Window, n| window.operations_through(RequestNumber(n));
        assert_eq!(through(&window, 3), operations(&["1", "2", "3"]));
        window.answer(RequestNumber(2));
        assert_eq!(through(&window, 1), operations(&["1"]));
        assert_eq!(through(&window, 4), operations(&["3", "4"]), "1 executed before 2");
        window.answer(RequestNumber(1));
        assert_eq!(through(&window, 3), operations(&["3"]));
    }

    #[test]
    fn refused_requests_are_taken_once() {
        let mut window = window(2);
        window.admit();
        window.admit();
        assert!(window.refuse(RequestNumber(2)));
        assert!(!window.refuse(RequestNumber(9)));
        assert_eq!(numbers(&window.send_refused()), [2]);
        assert!(window.send_refused().is_empty());
    }

    #[test]
    fn what_is_withdrawn_or_expired_does_not_count_as_queued() {
        let mut window = window(3);
        assert!(window.withdraw(CallId(2)));
        assert!(!window.withdraw(CallId(2)));
        assert_eq!(window.expire_queued(Instant(1)), [waiting(1)]);
        assert_eq!((window.queued(), window.queued_bytes()), (1, 2));
        assert_eq!(window.deadline(), Instant(3));
    }
}
