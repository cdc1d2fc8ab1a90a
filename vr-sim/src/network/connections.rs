//! Which actors are connected: who learns of an opened or a broken way, and when.

use std::collections::BTreeMap;

use vr_core::model::types::{ConnectionId, Peer};

use crate::actor::Actor;

/// All pairs of actors that were ever connected, and the connection numbers of clients.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    pairs: BTreeMap<(Actor, Actor), Connection>,
    clients: BTreeMap<ConnectionId, (Actor, Actor)>,
    last: u64,
}

/// The way between two actors.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    /// Grows with each time that it opens; unique among all pairs.
    number: u64,
    up: bool,
    /// Who has still to be told that it broke: the first and the second of the pair.
    untold: [bool; 2],
}

const fn ordered(one: Actor, other: Actor) -> ((Actor, Actor), bool) {
    if one.number() <= other.number() { ((one, other), false) } else { ((other, one), true) }
}

impl Connections {
    /// The number of the open connection between the two; `None` while there is none.
    pub(crate) fn number(&self, one: Actor, other: Actor) -> Option<u64> {
        let connection = self.pairs.get(&ordered(one, other).0)?;
        connection.up.then_some(connection.number)
    }

    /// Opens the way; false if it was open. Clients get a new connection number.
    pub(crate) fn open(&mut self, one: Actor, other: Actor) -> bool {
        let (pair, _) = ordered(one, other);
        let connection = self.pairs.entry(pair).or_default();
        if connection.up {
            return false;
        }
        self.last += 1;
        *connection = Connection { number: self.last, up: true, untold: [false; 2] };
        for (client, replica) in [(one, other), (other, one)] {
            if matches!(client, Actor::Client(_)) {
                self.clients.insert(ConnectionId(self.last), (client, replica));
            }
        }
        true
    }

    /// Breaks the way; false if it was not open. Both have still to be told.
    pub(crate) fn close(&mut self, one: Actor, other: Actor) -> bool {
        let Some(connection) = self.pairs.get_mut(&ordered(one, other).0) else { return false };
        if !connection.up {
            return false;
        }
        connection.up = false;
        connection.untold = [true; 2];
        self.clients.remove(&ConnectionId(connection.number));
        true
    }

    /// Marks `told` as told that its way to `about` broke; false if there is nothing to tell.
    pub(crate) fn tell(&mut self, told: Actor, about: Actor) -> bool {
        let (pair, swapped) = ordered(told, about);
        let Some(connection) = self.pairs.get_mut(&pair) else { return false };
        let [first, second] = &mut connection.untold;
        core::mem::take(if swapped { second } else { first })
    }

    /// Everyone that `actor` has an open way to.
    pub(crate) fn peers_of(&self, actor: Actor) -> Vec<Actor> {
        let up = self.pairs.iter().filter(|(_, connection)| connection.up);
        up.filter_map(|((one, other), _)| match (*one == actor, *other == actor) {
            (true, _) => Some(*other),
            (_, true) => Some(*one),
            (false, false) => None,
        })
        .collect()
    }

    /// Whom `sender` means by `peer`; `None` when there is no open way to it.
    pub(crate) fn actor_of(&self, sender: Actor, peer: Peer) -> Option<Actor> {
        let actor = match peer {
            Peer::Replica(id) => Actor::Replica(id),
            Peer::Client(id) => {
                let (client, replica) = self.clients.get(&id).copied()?;
                (replica == sender).then_some(client)?
            }
        };
        self.number(sender, actor).map(|_| actor)
    }

    /// How `receiver` calls `sender` while they are, or last were, connected.
    pub(crate) fn peer_of(&self, receiver: Actor, sender: Actor) -> Peer {
        match sender {
            Actor::Replica(id) => Peer::Replica(id),
            Actor::Client(_) => {
                let connection = self.pairs.get(&ordered(receiver, sender).0);
                Peer::Client(ConnectionId(connection.map_or(0, |known| known.number)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vr_core::model::types::ReplicaId;

    use super::*;

    const R0: Actor = Actor::Replica(ReplicaId(0));
    const R1: Actor = Actor::Replica(ReplicaId(1));
    const C0: Actor = Actor::Client(0);

    #[test]
    fn a_client_gets_a_new_connection_number_each_time() {
        let mut connections = Connections::default();
        assert!(connections.open(C0, R0));
        let first = connections.peer_of(R0, C0);
        assert_eq!(connections.actor_of(R0, first), Some(C0));
        assert_eq!(connections.actor_of(R1, first), None);
        assert!(connections.close(R0, C0));
        assert!(connections.open(R0, C0));
        assert_ne!(connections.peer_of(R0, C0), first);
        assert_eq!(connections.actor_of(R0, first), None);
    }

    #[test]
    fn both_ends_are_told_once_that_a_way_broke() {
        let mut connections = Connections::default();
        connections.open(R0, R1);
        assert!(!connections.tell(R0, R1));
        connections.close(R1, R0);
        assert!(connections.tell(R0, R1));
        assert!(!connections.tell(R0, R1));
        assert!(connections.tell(R1, R0));
        assert!(connections.peers_of(R0).is_empty());
    }
}
