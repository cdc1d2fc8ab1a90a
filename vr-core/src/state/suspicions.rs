//! Non-binding votes to leave the current view, each counted once and only while it is fresh.

use core::time::Duration;

use crate::model::{
    message::Suspicion,
    time::Instant,
    types::{ReplicaIndex, ReplicaSet},
};

/// The votes to leave one view; emptied when the view is left.
#[derive(Clone, Debug)]
pub struct Suspicions {
    heard: Vec<Option<Instant>>,
    own: Option<Suspicion>,
    repeats: u32,
}

impl Suspicions {
    /// No votes, in a group of `members` voters.
    #[must_use]
    pub fn new(members: u32) -> Self {
        let members = usize::try_from(members).unwrap_or(0);
        Self { heard: vec![None; members], own: None, repeats: 0 }
    }

    /// This replica's own vote, if it has one.
    #[must_use]
    pub const fn own(&self) -> Option<Suspicion> {
        self.own
    }

    /// This replica votes; true if it had not voted before.
    pub const fn vote(&mut self, reason: Suspicion) -> bool {
        let new = self.own.is_none();
        self.own = Some(reason);
        new
    }

    /// This replica takes its vote back.
    pub const fn withdraw(&mut self) {
        self.own = None;
        self.repeats = 0;
    }

    /// How often the own vote was repeated; counts this call.
    pub const fn repeat(&mut self) -> u32 {
        self.repeats = self.repeats.saturating_add(1);
        self.repeats
    }

    /// Another replica votes.
    pub fn heard(&mut self, from: ReplicaIndex, at: Instant) {
        if let Some(slot) = self.heard.get_mut(usize::from(from.0)) {
            *slot = Some(at);
        }
    }

    /// Who votes now: the own vote of `me`, and others' not older than `window`.
    #[must_use]
    pub fn tally(&self, me: ReplicaIndex, now: Instant, window: Duration) -> ReplicaSet {
        let mut set = ReplicaSet::EMPTY;
        for (heard, index) in self.heard.iter().zip(0_u8..) {
            if heard.is_some_and(|at| now.since(at) <= window) {
                set.insert(ReplicaIndex(index));
            }
        }
        if self.own.is_some() {
            set.insert(me);
        }
        set
    }

    /// Forgets all votes, because the view they were about is left.
    pub fn clear(&mut self) {
        self.heard.fill(None);
        self.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_nanos(10);

    #[test]
    fn a_vote_expires_unless_it_is_repeated() {
        let mut votes = Suspicions::new(3);
        votes.heard(ReplicaIndex(1), Instant(5));
        votes.heard(ReplicaIndex(1), Instant(6));
        assert_eq!(votes.tally(ReplicaIndex(0), Instant(16), WINDOW).len(), 1);
        assert_eq!(votes.tally(ReplicaIndex(0), Instant(17), WINDOW).len(), 0);
    }

    #[test]
    fn the_own_vote_stays_until_withdrawn() {
        let mut votes = Suspicions::new(3);
        assert!(votes.vote(Suspicion::PrimarySilent));
        assert!(!votes.vote(Suspicion::PrimaryLost));
        assert_eq!(votes.tally(ReplicaIndex(0), Instant(99), WINDOW).len(), 1);
        votes.withdraw();
        assert!(votes.tally(ReplicaIndex(0), Instant(99), WINDOW).is_empty());
    }
}
