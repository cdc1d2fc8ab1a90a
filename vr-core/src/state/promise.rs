//! The superblock as this replica wants it, and as storage is known to have it.

use std::collections::VecDeque;

use crate::model::{
    certificate::{Certificate, CrashVector},
    durable::{Superblock, Trust},
    types::{Incarnation, PersistId, View},
};

/// Tracks which superblock is durable.
///
/// Invariants: `durable.view <= wanted.view`, `durable.log_view <= wanted.log_view`,
/// `wanted.log_view <= wanted.view`; writes in flight are in order of their ids.
#[derive(Clone, Debug)]
pub struct Promise {
    wanted: Superblock,
    durable: Superblock,
    in_flight: VecDeque<(PersistId, Superblock)>,
    dirty: bool,
}

impl Promise {
    /// What storage holds.
    #[must_use]
    pub fn recovered(superblock: Superblock) -> Self {
        Self {
            wanted: superblock.clone(),
            durable: superblock,
            in_flight: VecDeque::new(),
            dirty: false,
        }
    }

    /// The durable superblock.
    #[must_use]
    pub const fn durable(&self) -> &Superblock {
        &self.durable
    }

    /// The superblock as of the last change, durable or not.
    #[must_use]
    pub const fn wanted(&self) -> &Superblock {
        &self.wanted
    }

    /// The view that a crash cannot take back.
    #[must_use]
    pub const fn view(&self) -> View {
        self.durable.view
    }

    /// The log view that a crash cannot take back.
    #[must_use]
    pub const fn log_view(&self) -> View {
        self.durable.log_view
    }

    /// How often this replica forgot everything.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.durable.incarnation
    }

    /// The incarnations of others that a crash cannot take back.
    #[must_use]
    pub const fn crash_vector(&self) -> &CrashVector {
        &self.durable.crash_vector
    }

    /// Whether a change waits to be written.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Promises to acknowledge nothing below `view`.
    ///
    /// # Panics
    /// If a higher promise was made before.
    pub fn promise(&mut self, view: View) {
        assert!(view >= self.wanted.view, "a promise is never taken back");
        self.wanted.view = view;
        self.dirty = true;
    }

    /// Adopts the certificate of the group.
    ///
    /// # Panics
    /// If there is one already.
    pub fn certify(&mut self, certificate: Certificate) {
        assert!(self.wanted.certificate.is_none(), "a certificate never changes");
        self.wanted.certificate = Some(certificate);
        self.dirty = true;
    }

    /// Lets the superblock be written although nothing of it changed.
    pub const fn write_again(&mut self) {
        self.dirty = true;
    }

    /// Learns of others' incarnations; durable before any message carries them.
    pub fn learn(&mut self, crash_vector: &CrashVector) {
        if self.wanted.crash_vector.join(crash_vector) {
            self.dirty = true;
        }
    }

    /// The superblock that makes a complete log for `view` count; goes into the batch that
    /// carries the log.
    ///
    /// # Panics
    /// If the promise of `view` is not durable yet, or `view` is below the log view.
    pub fn install(&mut self, view: View, id: PersistId) -> Superblock {
        assert!(self.durable.view >= view, "the promise is durable before the log is touched");
        self.install_unpromised(view, id)
    }

    /// As [`install`](Self::install), whatever is durable: only mutants do this.
    pub(crate) fn install_unpromised(&mut self, view: View, id: PersistId) -> Superblock {
        assert!(view >= self.wanted.log_view, "the log view never decreases");
        self.wanted.log_view = view;
        self.wanted.trust = Trust::Intact;
        self.hand_over(id)
    }

    /// Moves the log view without a log: only mutants do this.
    pub(crate) const fn misplace_log_view(&mut self, view: View) {
        self.wanted.log_view = view;
        self.dirty = true;
    }

    /// The superblock to write; `id` names the write.
    pub fn hand_over(&mut self, id: PersistId) -> Superblock {
        self.dirty = false;
        self.in_flight.push_back((id, self.wanted.clone()));
        self.wanted.clone()
    }

    /// Every write up to and including `through` is done.
    pub fn persisted(&mut self, through: PersistId) {
        while let Some((_, superblock)) = self.in_flight.pop_front_if(|(id, _)| *id <= through) {
            self.durable = superblock;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        durable::{Durability, Identity},
        membership::Members,
        types::{DiskId, ReplicaId},
    };

    fn promise() -> Promise {
        let members = Members::local(3).unwrap().to_membership();
        Promise::recovered(Superblock::blank(&Identity {
            group: members.group_id("g"),
            group_name: "g".into(),
            members,
            replica: ReplicaId(0),
            durability: Durability::Full,
            fresh_disk: DiskId(1),
        }))
    }

    #[test]
    fn a_promise_counts_when_its_write_is_done() {
        let mut promise = promise();
        promise.promise(View(3));
        promise.hand_over(PersistId(4));
        assert_eq!(promise.view(), View(0));
        promise.persisted(PersistId(3));
        assert_eq!(promise.view(), View(0));
        promise.persisted(PersistId(4));
        assert_eq!(promise.view(), View(3));
    }

    #[test]
    #[should_panic(expected = "the promise is durable before the log is touched")]
    fn a_log_is_not_installed_before_its_promise_is_durable() {
        let mut promise = promise();
        promise.promise(View(3));
        promise.hand_over(PersistId(1));
        promise.install(View(3), PersistId(2));
    }

    #[test]
    fn a_later_promise_keeps_the_log_view_that_is_on_its_way() {
        let mut promise = promise();
        promise.promise(View(1));
        promise.hand_over(PersistId(1));
        promise.persisted(PersistId(1));
        promise.install(View(1), PersistId(2));
        promise.promise(View(2));
        assert_eq!(promise.hand_over(PersistId(3)).log_view, View(1));
        promise.persisted(PersistId(2));
        assert_eq!((promise.view(), promise.log_view()), (View(1), View(1)));
    }
}
