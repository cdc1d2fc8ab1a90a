//! A client's resumed requests: each asks under the number that its ticket names.

use std::collections::BTreeMap;

use crate::{
    client::{
        call::{CallId, Waiting},
        ticket::Ticket,
    },
    model::{
        operation::Operation,
        time::Instant,
        types::{ClientId, Epoch, OpNumber, RequestNumber},
    },
};

/// One call that resumes a ticket.
#[derive(Clone, Debug)]
pub(crate) struct Resumed {
    /// Who waits for it.
    pub(crate) waiting: Waiting,
    /// What is resumed.
    pub(crate) ticket: Ticket,
    /// Not sent yet, or refused since.
    unsent: bool,
}

/// Requests to be sent, each once, in the order in which they may execute.
pub(crate) type ToSend = BTreeMap<(ClientId, OpNumber, RequestNumber), (Epoch, Operation)>;

/// The resumed requests without a reply; they use no number of this client's own session.
#[derive(Debug, Default)]
pub(crate) struct Resumes {
    pending: BTreeMap<CallId, Resumed>,
}

impl Resumes {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of their operations.
    pub(crate) fn bytes(&self) -> u64 {
        self.pending.values().map(|resumed| resumed.ticket.operation_bytes()).sum()
    }

    /// Adds one that is not sent yet.
    pub(crate) fn add(&mut self, waiting: Waiting, ticket: Ticket) {
        self.pending.insert(waiting.call, Resumed { waiting, ticket, unsent: true });
    }

    /// Takes out those that wait for the reply to `number` of `client`.
    pub(crate) fn answer(&mut self, client: ClientId, number: RequestNumber) -> Vec<Resumed> {
        self.take(|ticket| ticket.client() == client && ticket.request_number() == number)
    }

    /// Takes out those of `client`, whose session has ended.
    pub(crate) fn end_session(&mut self, client: ClientId) -> Vec<Resumed> {
        self.take(|ticket| ticket.client() == client)
    }

    /// Takes out those of sessions that ended with an epoch before `epoch`.
    pub(crate) fn end_before(&mut self, epoch: Epoch) -> Vec<Resumed> {
        self.take(|ticket| ticket.epoch() < epoch)
    }

    /// Takes out those that cannot go on without `number` of `client`.
    pub(crate) fn stuck_at(&mut self, client: ClientId, number: RequestNumber) -> Vec<Resumed> {
        self.take(|ticket| ticket.client() == client && asks_for(ticket, number))
    }

    /// A replica did not take `number` of `client`; false if nothing waits for it.
    pub(crate) fn refuse(&mut self, client: ClientId, number: RequestNumber) -> bool {
        let mut found = false;
        for resumed in self.pending.values_mut() {
            if resumed.ticket.client() == client && asks_for(&resumed.ticket, number) {
                resumed.unsent = true;
                found = true;
            }
        }
        found
    }

    /// Takes out the one of a call that nobody waits for any more.
    pub(crate) fn withdraw(&mut self, call: CallId) {
        self.pending.remove(&call);
    }

    /// All calls that wait.
    pub(crate) fn waiting(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.pending.values_mut().map(|resumed| &mut resumed.waiting)
    }

    /// Takes out those whose deadline has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Resumed> {
        let due = |_: &CallId, resumed: &mut Resumed| resumed.waiting.deadline <= now;
        self.pending.extract_if(.., due).map(|(_, resumed)| resumed).collect()
    }

    /// Takes out all of them.
    pub(crate) fn drain(&mut self) -> Vec<Resumed> {
        self.take(|_| true)
    }

    /// The earliest deadline; the far future if nobody waits.
    pub(crate) fn deadline(&self) -> Instant {
        let deadlines = self.pending.values().map(|resumed| resumed.waiting.deadline);
        deadlines.min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Everything that has no reply; it counts as sent from here on.
    pub(crate) fn send_again(&mut self) -> ToSend {
        self.pending.values_mut().for_each(|resumed| resumed.unsent = true);
        self.send_unsent()
    }

    /// What was not sent or was refused; it counts as sent from here on.
    pub(crate) fn send_unsent(&mut self) -> ToSend {
        let mut requests = ToSend::new();
        for Resumed { ticket, unsent, .. } in self.pending.values_mut() {
            if core::mem::take(unsent) {
                let (client, session, epoch) = (ticket.client(), ticket.session(), ticket.epoch());
                requests.extend(ticket.requests().map(|(number, operation)| {
                    ((client, session, number), (epoch, operation.clone()))
                }));
            }
        }
        requests
    }

    fn take(&mut self, mut wanted: impl FnMut(&Ticket) -> bool) -> Vec<Resumed> {
        let taken = self.pending.extract_if(.., |_, resumed| wanted(&resumed.ticket));
        taken.map(|(_, resumed)| resumed).collect()
    }
}

fn asks_for(ticket: &Ticket, number: RequestNumber) -> bool {
    ticket.requests().any(|(asked, _)| asked == number)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{client::ticket::Record, model::types::GroupId};

    fn ticket(client: u128, number: u64, operations: usize) -> Ticket {
        let record = Record {
            group: GroupId(1),
            epoch: Epoch(u64::try_from(client).unwrap()),
            client: ClientId(client),
            session: OpNumber(5),
            request_number: RequestNumber(number),
            operations: vec![Bytes::from_static(b"op").into(); operations],
        };
        Ticket::new(record)
    }

    fn resumes(tickets: &[Ticket]) -> Resumes {
        let mut resumes = Resumes::default();
        for (call, ticket) in (1..).zip(tickets) {
            let waiting =
                Waiting { call: CallId(call), since: Instant::ZERO, deadline: Instant(call) };
            resumes.add(waiting, ticket.clone());
        }
        resumes
    }

    fn calls(taken: &[Resumed]) -> Vec<u64> {
        taken.iter().map(|resumed| resumed.waiting.call.0).collect()
    }

    #[test]
    fn what_several_tickets_ask_for_is_sent_once_and_in_order() {
        let mut resumes = resumes(&[ticket(1, 9, 2), ticket(1, 8, 2), ticket(2, 1, 1)]);
        let sent: Vec<_> = resumes.send_unsent().into_keys().map(|(c, _, n)| (c.0, n.0)).collect();
        assert_eq!(sent, [(1, 7), (1, 8), (1, 9), (2, 1)]);
        assert!(resumes.send_unsent().is_empty());
        assert!(resumes.refuse(ClientId(1), RequestNumber(7)));
        assert!(!resumes.refuse(ClientId(2), RequestNumber(7)));
        assert_eq!(resumes.send_unsent().len(), 2, "7 and 8 of the ticket that needs 7");
        assert_eq!(resumes.send_again().len(), 4);
    }

    #[test]
    fn a_reply_is_for_whoever_holds_a_ticket_for_it() {
        let mut resumes = resumes(&[ticket(1, 9, 2), ticket(1, 9, 1), ticket(1, 8, 1)]);
        assert_eq!(calls(&resumes.answer(ClientId(1), RequestNumber(9))), [1, 2]);
        assert_eq!(calls(&resumes.answer(ClientId(1), RequestNumber(9))), []);
        assert_eq!(resumes.len(), 1);
    }

    #[test]
    fn the_end_of_a_session_or_an_epoch_ends_what_belongs_to_it() {
        let mut resumes = resumes(&[ticket(1, 9, 2), ticket(2, 9, 2), ticket(3, 9, 2)]);
        assert_eq!(calls(&resumes.end_before(Epoch(2))), [1]);
        assert_eq!(calls(&resumes.end_session(ClientId(3))), [3]);
        assert_eq!(calls(&resumes.stuck_at(ClientId(2), RequestNumber(7))), []);
        assert_eq!(calls(&resumes.stuck_at(ClientId(2), RequestNumber(8))), [2]);
    }

    #[test]
    fn deadlines_and_withdrawals_end_one_call() {
        let mut resumes = resumes(&[ticket(1, 9, 1), ticket(1, 9, 1), ticket(1, 9, 1)]);
        resumes.withdraw(CallId(2));
        assert_eq!((resumes.deadline(), resumes.bytes()), (Instant(1), 4));
        assert_eq!(calls(&resumes.expire(Instant(1))), [1]);
        assert_eq!(resumes.deadline(), Instant(3));
        assert_eq!(calls(&resumes.drain()), [3]);
    }
}
