//! Which way a client's replies go.

use crate::model::{
    by_client::ByClient,
    types::{ClientId, Peer},
};

/// The ways to one client; at least one of them is there.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// Its own connection to this replica.
    own: Option<Peer>,
    /// The backup through which it asked since it last used that connection.
    via: Option<Peer>,
}

/// Per client, the ways that its latest requests came.
///
/// Bounded by the sessions that are open or on their way, because only their requests set routes.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    routes: ByClient<Ways>,
}

impl Routes {
    /// How many clients there are ways to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is a way to none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// A request of `client` came through `peer`.
    ///
    /// A client that asks through a backup may have lost its connection to this replica without
    /// this replica's knowing, so both ways are kept until it uses its connection again.
    pub fn set(&mut self, client: ClientId, peer: Peer) {
        let ways = match self.routes.get_mut(client) {
            Some(ways) => ways,
            None => self.routes.get_or_insert(client, Ways::default()),
        };
        match peer {
            Peer::Client(_) => *ways = Ways { own: Some(peer), via: None },
            Peer::Replica(_) => ways.via = Some(peer),
        }
    }

    /// The ways to `client`, its own connection first.
    pub fn get(&self, client: ClientId) -> impl Iterator<Item = Peer> + use<> {
        let ways = self.routes.get(client).copied().unwrap_or_default();
        ways.own.into_iter().chain(ways.via)
    }

    /// The client's own connection, if that is the only way to it.
    #[must_use]
    pub fn only_connection(&self, client: ClientId) -> Option<Peer> {
        let ways = self.routes.get(client)?;
        ways.own.filter(|_| ways.via.is_none())
    }

    /// `client` has no session any more.
    pub fn forget(&mut self, client: ClientId) {
        self.routes.remove(client);
    }

    /// Only clients that are `known` have sessions.
    pub fn forget_others(&mut self, known: impl Fn(ClientId) -> bool) {
        self.routes.retain(|client, _| known(client));
    }

    /// `peer` is gone, and all ways through it.
    pub fn disconnected(&mut self, peer: Peer) {
        self.routes.retain(|_, ways| {
            ways.own = ways.own.filter(|own| *own != peer);
            ways.via = ways.via.filter(|via| *via != peer);
            ways.own.is_some() || ways.via.is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::{ConnectionId, ReplicaId};

    #[test]
    fn a_client_is_answered_where_it_asks_and_where_it_is_connected() {
        let mut routes = Routes::default();
        let (backup, own) = (Peer::Replica(ReplicaId(1)), Peer::Client(ConnectionId(1)));
        let ways = |routes: &Routes| routes.get(ClientId(1)).collect::<Vec<_>>();
        routes.set(ClientId(1), own);
        routes.set(ClientId(1), backup);
        assert_eq!((ways(&routes), routes.only_connection(ClientId(1))), (vec![own, backup], None));
        routes.set(ClientId(1), own);
        assert_eq!((ways(&routes), routes.only_connection(ClientId(1))), (vec![own], Some(own)));
        routes.disconnected(own);
        assert!(ways(&routes).is_empty() && routes.routes.is_empty());
    }
}
