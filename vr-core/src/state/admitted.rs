//! Which requests are in the log already: a filter before it, never the guarantee.

use crate::model::{
    by_client::ByClient,
    checkpoint::OpenSession,
    entry::{EntryHeader, EntryKind},
    types::{Checksum, ClientId, OpNumber, RequestNumber},
};

/// What is known of one client.
///
/// Invariant: `done <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The op that registered it.
    pub session: OpNumber,
    /// Checksum of the registration's payload, to recognise the same nonce.
    pub nonce: Checksum,
    /// Whether the registration was executed.
    pub registered: bool,
    /// The highest number in the log or executed.
    pub last: RequestNumber,
    /// The highest number executed.
    pub done: RequestNumber,
}

/// Per client, the highest request number in the log; rebuilt from the log when a view starts.
///
/// The guarantee that nothing executes twice is the executor's client table; this part only keeps
/// duplicates out of the log.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    clients: ByClient<Known>,
}

impl Admitted {
    /// What is known of `client`.
    #[must_use]
    pub fn get(&self, client: ClientId) -> Option<&Known> {
        self.clients.get(client)
    }

    /// Clients with a session, open or on its way.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.clients.len()).unwrap_or(u32::MAX)
    }

    /// Whether no client is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The entry with `header` is in the log now.
    pub fn appended(&mut self, header: &EntryHeader) {
        match header.kind {
            EntryKind::Noop => {}
            EntryKind::Register => {
                let known = Known {
                    session: header.op_number,
                    nonce: header.payload_checksum,
                    registered: false,
                    last: RequestNumber::ZERO,
                    done: RequestNumber::ZERO,
                };
                self.clients.get_or_insert(header.client, known);
            }
            EntryKind::Request | EntryKind::Many => {
                if let Some(known) = self.clients.get_mut(header.client) {
                    known.last = known.last.max(header.request_number);
                }
            }
        }
    }

    /// The entry with `header` was executed.
    pub fn executed(&mut self, header: &EntryHeader) {
        match header.kind {
            EntryKind::Noop => {}
            EntryKind::Register => {
                self.appended(header);
                if let Some(known) = self.clients.get_mut(header.client)
                    && !known.registered
                {
                    // What is noted may stem from one that a view change took out of the log.
                    known.session = header.op_number;
                    known.nonce = header.payload_checksum;
                    known.registered = true;
                }
            }
            EntryKind::Request | EntryKind::Many => {
                if let Some(known) = self.clients.get_mut(header.client) {
                    known.last = known.last.max(header.request_number);
                    known.done = known.done.max(header.request_number);
                }
            }
        }
    }

    /// The session of `client` that the entry at `session` opened was closed.
    pub fn evicted(&mut self, client: ClientId, session: OpNumber) {
        if self.clients.get(client).is_some_and(|known| known.session == session) {
            self.clients.remove(client);
        }
    }

    /// The state was replaced by one in which these sessions are open; the log's unexecuted entries
    /// are noted again after this.
    pub fn restored(&mut self, sessions: &[OpenSession]) {
        self.clients = ByClient::default();
        for OpenSession { client, session, nonce, done } in sessions.iter().copied() {
            let nonce = Checksum::of(&nonce.0.to_le_bytes());
            let known = Known { session, nonce, registered: true, last: done, done };
            self.clients.get_or_insert(client, known);
        }
    }

    /// Forgets what is not executed; the log's unexecuted entries are noted again after this.
    pub fn forget_unexecuted(&mut self) {
        self.clients.retain(|_, known| {
            known.last = known.done;
            known.registered
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryKind, op: u64, number: u64) -> EntryHeader {
        EntryHeader {
            kind,
            op_number: OpNumber(op),
            client: ClientId(1),
            request_number: RequestNumber(number),
            ..EntryHeader::default()
        }
    }

    #[test]
    fn a_request_that_fell_out_of_the_log_is_forgotten() {
        let mut admitted = Admitted::default();
        admitted.executed(&header(EntryKind::Register, 1, 0));
        admitted.executed(&header(EntryKind::Request, 2, 1));
        admitted.appended(&header(EntryKind::Request, 3, 2));
        admitted.forget_unexecuted();
        let known = admitted.get(ClientId(1)).unwrap();
        assert_eq!((known.last, known.done), (RequestNumber(1), RequestNumber(1)));
    }

    #[test]
    fn a_registration_that_fell_out_of_the_log_is_forgotten() {
        let mut admitted = Admitted::default();
        admitted.appended(&header(EntryKind::Register, 1, 0));
        admitted.forget_unexecuted();
        assert!(admitted.is_empty());
    }

    #[test]
    fn a_session_is_the_registration_that_was_executed() {
        let mut admitted = Admitted::default();
        admitted.appended(&header(EntryKind::Register, 5, 0));
        admitted.executed(&header(EntryKind::Register, 6, 0));
        admitted.executed(&header(EntryKind::Register, 7, 0));
        assert_eq!(admitted.get(ClientId(1)).unwrap().session, OpNumber(6));
    }

    #[test]
    fn a_closed_session_is_forgotten_unless_it_was_opened_again() {
        let mut admitted = Admitted::default();
        admitted.executed(&header(EntryKind::Register, 5, 0));
        admitted.evicted(ClientId(1), OpNumber(4));
        assert_eq!(admitted.len(), 1);
        admitted.evicted(ClientId(1), OpNumber(5));
        assert!(admitted.is_empty());
    }
}
