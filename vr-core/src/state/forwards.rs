//! Clients' requests that this replica holds for the primary, until it answers.

use std::collections::BTreeMap;

use crate::model::{
    message::Forward,
    time::Instant,
    types::{ClientId, Peer, RequestNumber, View},
};

#[derive(Clone, Debug)]
struct Held {
    from: Peer,
    request: Forward,
    /// The view whose primary was told, if any was.
    told: Option<View>,
    since: Instant,
}

/// Requests of clients connected here, by client and number; registrations have number 0.
#[derive(Clone, Debug, Default)]
pub struct Forwards {
    held: BTreeMap<(ClientId, RequestNumber), Held>,
    bytes: u64,
    /// Whether some are not told to the primary of the current view.
    untold: bool,
}

impl Forwards {
    /// How many requests are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Bytes of the operations that are held.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Holds `request`; a repeated one is told again.
    pub fn hold(&mut self, from: Peer, request: Forward, now: Instant) {
        let held = Held { from, told: None, since: now, request };
        self.bytes += held.request.bytes();
        if let Some(before) = self.held.insert(key(&held.request), held) {
            self.bytes -= before.request.bytes();
        }
        self.untold = true;
    }

    /// The view changed: everything has to be told again.
    pub fn view_changed(&mut self) {
        self.untold = !self.held.is_empty();
    }

    /// The requests that the primary of `view` has not been told yet; they count as told now.
    pub fn tell(&mut self, view: View) -> Vec<Forward> {
        if !self.untold {
            return Vec::new();
        }
        self.untold = false;
        let mut requests = Vec::new();
        for held in self.held.values_mut() {
            if held.told != Some(view) {
                held.told = Some(view);
                requests.push(held.request.clone());
            }
        }
        requests
    }

    /// Takes everything, because this replica is the primary now.
    pub fn take(&mut self) -> Vec<(Peer, Forward)> {
        self.untold = false;
        self.bytes = 0;
        core::mem::take(&mut self.held)
            .into_values()
            .map(|held| (held.from, held.request))
            .collect()
    }

    /// The primary answered; returns who asked.
    pub fn answered(&mut self, client: ClientId, number: RequestNumber) -> Option<Peer> {
        let held = self.held.remove(&(client, number))?;
        self.bytes -= held.request.bytes();
        Some(held.from)
    }

    /// Forgets the requests of a connection that closed.
    pub fn disconnected(&mut self, peer: Peer) {
        self.held.retain(|_, held| held.from != peer);
        self.bytes = self.held.values().map(|held| held.request.bytes()).sum();
    }

    /// Takes what was held since `before` or longer.
    pub fn expire(&mut self, before: Instant) -> Vec<(Peer, ClientId, RequestNumber)> {
        let old = self.held.iter().filter(|(_, held)| held.since <= before);
        let old: Vec<_> =
            old.map(|((client, number), held)| (held.from, *client, *number)).collect();
        for (_, client, number) in &old {
            self.answered(*client, *number);
        }
        old
    }
}

fn key(request: &Forward) -> (ClientId, RequestNumber) {
    match request {
        Forward::Request(request) => (request.client, request.request_number),
        Forward::Register(register) => (register.client, RequestNumber::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{
        message::{Register, Request},
        types::{ConnectionId, Nonce, OpNumber},
    };

    const PEER: Peer = Peer::Client(ConnectionId(1));

    fn register(client: u128) -> Forward {
        Forward::Register(Register { client: ClientId(client), nonce: Nonce(1) })
    }

    #[test]
    fn a_request_is_told_once_per_view() {
        let mut forwards = Forwards::default();
        forwards.hold(PEER, register(1), Instant(1));
        assert_eq!(forwards.tell(View(1)).len(), 1);
        assert!(forwards.tell(View(1)).is_empty());
        forwards.view_changed();
        assert_eq!(forwards.tell(View(2)).len(), 1);
    }

    #[test]
    fn an_answer_ends_the_holding() {
        let mut forwards = Forwards::default();
        forwards.hold(PEER, register(1), Instant(1));
        assert_eq!(forwards.answered(ClientId(1), RequestNumber::ZERO), Some(PEER));
        assert!(forwards.is_empty());
    }

    #[test]
    fn bytes_are_those_of_what_is_held() {
        let request = |number, operation: &'static [u8]| {
            Forward::Request(Request {
                client: ClientId(1),
                session: OpNumber(1),
                request_number: RequestNumber(number),
                many: false,
                operation: Bytes::from_static(operation),
            })
        };
        let mut forwards = Forwards::default();
        forwards.hold(PEER, request(1, b"abc"), Instant(1));
        forwards.hold(PEER, request(1, b"abc"), Instant(2));
        forwards.hold(PEER, request(2, b"de"), Instant(3));
        assert_eq!(forwards.bytes(), 5, "the same request twice is one");
        forwards.answered(ClientId(1), RequestNumber(1));
        assert_eq!(forwards.bytes(), 2);
        forwards.expire(Instant(3));
        assert_eq!(forwards.bytes(), 0);
        forwards.hold(PEER, request(3, b"f"), Instant(4));
        forwards.disconnected(PEER);
        assert_eq!(forwards.bytes(), 0);
    }

    #[test]
    fn old_requests_are_given_back() {
        let mut forwards = Forwards::default();
        forwards.hold(PEER, register(1), Instant(1));
        forwards.hold(PEER, register(2), Instant(5));
        assert_eq!(forwards.expire(Instant(3)), [(PEER, ClientId(1), RequestNumber::ZERO)]);
        assert_eq!(forwards.len(), 1);
    }
}
