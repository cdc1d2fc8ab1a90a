//! Which session was used longest ago.

use std::collections::VecDeque;

use crate::model::types::{ClientId, OpNumber};

/// Outdated places that are tolerated: so many for each session, and some.
///
/// All places are looked at whenever these are full, so with more of them a use costs less.
const SLACK_PER_SESSION: usize = 8;
const SLACK: usize = 1024;

/// Sessions in the order of their last use: each use adds a place at the end, or renews the one that
/// is there, and the places of earlier uses are outdated.
///
/// A use costs no look-up, and an eviction passes over each outdated place once. Nothing of it is
/// in a snapshot, because the sessions themselves say when they were used last.
#[derive(Clone, Debug, Default)]
pub struct UseOrder {
    places: VecDeque<(OpNumber, ClientId)>,
}

impl UseOrder {
    /// `client` was used by the entry at `op_number`, the highest so far.
    pub fn used(&mut self, op_number: OpNumber, client: ClientId) {
        match self.places.back_mut() {
            Some((last, of)) if *of == client => *last = op_number,
            Some(_) | None => self.places.push_back((op_number, client)),
        }
    }

    /// Takes the client that was used longest ago; `last_use` tells what is not outdated.
    pub fn take_oldest(
        &mut self,
        last_use: impl Fn(ClientId) -> Option<OpNumber>,
    ) -> Option<ClientId> {
        while let Some((op_number, client)) = self.places.pop_front() {
            if last_use(client) == Some(op_number) {
                return Some(client);
            }
        }
        None
    }

    /// Drops outdated places when there are many more of them than of `sessions`.
    pub fn tidy(&mut self, sessions: usize, last_use: impl Fn(ClientId) -> Option<OpNumber>) {
        let places_max = sessions.saturating_mul(SLACK_PER_SESSION).saturating_add(SLACK);
        if self.places.len() > places_max {
            self.places.retain(|(op_number, client)| last_use(*client) == Some(*op_number));
        }
    }
}

impl FromIterator<(OpNumber, ClientId)> for UseOrder {
    fn from_iter<T: IntoIterator<Item = (OpNumber, ClientId)>>(uses: T) -> Self {
        let mut places: Vec<_> = uses.into_iter().collect();
        places.sort_unstable();
        Self { places: places.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_use_outdates_the_earlier_one() {
        let mut order = UseOrder::default();
        for (op, client) in [(1, 7), (2, 8), (3, 7)] {
            order.used(OpNumber(op), ClientId(client));
        }
        let last_use = |client: ClientId| Some(OpNumber(if client.0 == 7 { 3 } else { 2 }));
        assert_eq!(order.take_oldest(last_use), Some(ClientId(8)));
        assert_eq!(order.take_oldest(last_use), Some(ClientId(7)));
        assert_eq!(order.take_oldest(last_use), None);
    }

    #[test]
    fn outdated_places_do_not_pile_up() {
        let mut order = UseOrder::default();
        let last_use = |op: u64| {
            move |client: ClientId| {
                Some(OpNumber(if u128::from(op % 2) == client.0 { op } else { op - 1 }))
            }
        };
        for op in 1..=100_000 {
            order.tidy(2, last_use(op - 1));
            order.used(OpNumber(op), ClientId(u128::from(op % 2)));
        }
        assert!(order.places.len() <= SLACK + 2 * SLACK_PER_SESSION + 1);
    }
}
