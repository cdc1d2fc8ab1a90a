//! Which replica a client talks to.

use crate::model::{
    membership::Membership,
    types::{ReplicaId, ReplicaIndex, ReplicaSet, View},
};

/// The replicas a client is connected to, and what it knows of the view.
#[derive(Debug)]
pub(crate) struct Route {
    membership: Membership,
    connected: ReplicaSet,
    view: Option<View>,
    /// Whom to ask, which follows from the others; every call wants to know it.
    target: Option<ReplicaId>,
    /// Where the search for a replica starts while the primary is unknown; spreads clients.
    start: usize,
}

impl Route {
    /// Connected to nobody; `seed` decides who is preferred while the primary is unknown.
    pub(crate) fn new(membership: Membership, seed: u64) -> Self {
        let start = seed % u64::from(membership.len());
        Self {
            membership,
            connected: ReplicaSet::EMPTY,
            view: None,
            target: None,
            start: usize::try_from(start).unwrap_or(0),
        }
    }

    /// A way to `replica` opened; false if it is not a member or was open before.
    pub(crate) fn connect(&mut self, replica: ReplicaId) -> bool {
        let index = self.membership.index_of(replica);
        let is_new = index.is_some_and(|index| self.connected.insert(index));
        self.aim();
        is_new
    }

    /// The way to `replica` broke; false if there was none.
    pub(crate) fn disconnect(&mut self, replica: ReplicaId) -> bool {
        let index = self.membership.index_of(replica);
        let Some(index) = index.filter(|index| self.connected.contains(*index)) else {
            return false;
        };
        self.connected.remove(index);
        self.aim();
        true
    }

    /// Notes a view that a replica named; true if an earlier one was known.
    pub(crate) fn learn(&mut self, view: View) -> bool {
        let newer = self.view.is_some_and(|known| view > known);
        if newer || self.view.is_none() {
            self.view = Some(view);
            self.aim();
        }
        newer
    }

    /// The latest view that a replica named.
    pub(crate) const fn view(&self) -> Option<View> {
        self.view
    }

    /// Whom to ask: the primary if there is a way to it, otherwise any replica, which forwards.
    pub(crate) const fn target(&self) -> Option<ReplicaId> {
        self.target
    }

    fn aim(&mut self) {
        let primary = self.view.map(|view| self.membership.primary_of(view));
        let primary = primary.filter(|primary| self.is_connected(*primary));
        self.target = primary.or_else(|| self.nearest());
    }

    /// The replica this client prefers, whatever its role.
    pub(crate) fn nearest(&self) -> Option<ReplicaId> {
        self.connected_from(self.start).next()
    }

    /// Whom to ask after `last` did not answer: the next one, or `last` again if it is alone.
    pub(crate) fn after(&self, last: ReplicaId) -> Option<ReplicaId> {
        let index = self.membership.index_of(last).unwrap_or_default();
        self.connected_from(usize::from(index.0) + 1).next()
    }

    /// Everyone there is a way to, in order of their index.
    pub(crate) fn connected(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.connected_from(0)
    }

    /// Whether there is a way to anyone.
    pub(crate) const fn is_connected_to_any(&self) -> bool {
        !self.connected.is_empty()
    }

    fn is_connected(&self, replica: ReplicaId) -> bool {
        self.membership.index_of(replica).is_some_and(|index| self.connected.contains(index))
    }

    fn connected_from(&self, start: usize) -> impl Iterator<Item = ReplicaId> + '_ {
        let voters = self.membership.voters();
        let indexed = (0_u8..).map(ReplicaIndex).zip(voters);
        indexed
            .cycle()
            .skip(start)
            .take(voters.len())
            .filter(|(index, _)| self.connected.contains(*index))
            .map(|(_, replica)| *replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::membership::Members;

    fn route(connected: &[u64]) -> Route {
        let mut route = Route::new(Members::local(3).unwrap().to_membership(), 1);
        for replica in connected {
            assert!(route.connect(ReplicaId(*replica)));
        }
        route
    }

    #[test]
    fn the_primary_is_preferred_once_it_is_known() {
        let mut route = route(&[0, 1, 2]);
        assert_eq!(route.target(), Some(ReplicaId(1)), "the seed's choice");
        assert!(!route.learn(View(3)), "nothing was known before");
        assert_eq!(route.target(), Some(ReplicaId(0)));
        assert!(route.learn(View(5)));
        assert_eq!(route.target(), Some(ReplicaId(2)));
        assert!(!route.learn(View(4)));
    }

    #[test]
    fn a_primary_without_connection_is_reached_through_another_replica() {
        let mut route = route(&[0, 2]);
        route.learn(View(1));
        assert_eq!(route.target(), Some(ReplicaId(2)));
        assert!(route.disconnect(ReplicaId(2)));
        assert!(!route.disconnect(ReplicaId(2)));
        assert_eq!(route.target(), Some(ReplicaId(0)));
    }

    #[test]
    fn the_next_replica_is_asked_in_turn() {
        let route = route(&[0, 2]);
        assert_eq!(route.after(ReplicaId(0)), Some(ReplicaId(2)));
        assert_eq!(route.after(ReplicaId(2)), Some(ReplicaId(0)));
    }

    #[test]
    fn a_stranger_is_not_a_member() {
        let mut route = route(&[]);
        assert!(!route.connect(ReplicaId(9)));
        assert_eq!((route.target(), route.is_connected_to_any()), (None, false));
    }
}
