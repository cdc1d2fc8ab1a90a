//! The superblock as this replica wants it, and as storage is known to have it.

use core::time::Duration;
use std::collections::VecDeque;

use crate::model::{
    certificate::{Certificate, CrashVector},
    durable::{CheckpointId, Durability, Identity, Superblock, Trust},
    types::{DiskId, Epoch, Incarnation, PersistId, View},
};

/// What a replica that had forgotten everything was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The group's certificate, which does not name this replica's disk.
    pub certificate: Certificate,
    /// The membership period of the group.
    pub epoch: Epoch,
    /// The view whose log was installed.
    pub view: View,
    /// The new incarnation.
    pub incarnation: Incarnation,
    /// What the others know of incarnations.
    pub crash_vector: CrashVector,
}

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
    /// Nothing is written ([`Durability::Diskless`]): what is wanted counts at once.
    volatile: bool,
    settled: bool,
}

impl Promise {
    /// What storage holds.
    #[must_use]
    pub fn recovered(superblock: Superblock) -> Self {
        Self {
            volatile: superblock.durability == Durability::Diskless,
            wanted: superblock.clone(),
            durable: superblock,
            in_flight: VecDeque::new(),
            dirty: false,
            settled: false,
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
        if view > self.wanted.view {
            self.wanted.view = view;
            self.change();
        }
    }

    /// The log starts after `checkpoint`, which is complete in storage.
    ///
    /// # Panics
    /// If it starts after a later one already.
    pub fn name_checkpoint(&mut self, checkpoint: CheckpointId) {
        let known = self.wanted.checkpoint;
        assert!(checkpoint.op_number >= known.op_number, "a checkpoint never goes back");
        if checkpoint != known {
            self.wanted.checkpoint = checkpoint;
            self.change();
        }
    }

    /// The checkpoints that a superblock names which may be on disk after a crash.
    pub fn named_checkpoints(&self) -> impl Iterator<Item = CheckpointId> + '_ {
        let in_flight = self.in_flight.iter().map(|(_, superblock)| superblock.checkpoint);
        in_flight.chain([self.durable.checkpoint, self.wanted.checkpoint])
    }

    /// A disk that belongs to no group has no checkpoint of one: its log starts at `genesis`.
    ///
    /// # Panics
    /// If there is a certificate.
    pub fn forget_checkpoint(&mut self, genesis: CheckpointId) {
        assert!(self.wanted.certificate.is_none(), "only who belongs to no group forgets");
        self.wanted.checkpoint = genesis;
        self.change();
    }

    /// Something is wanted that is not durable: it has to be written, or counts at once.
    fn change(&mut self) {
        if self.volatile {
            self.durable = self.wanted.clone();
            self.settled = true;
        } else {
            self.dirty = true;
        }
    }

    /// Whether something became durable without a write since this was asked last.
    pub const fn take_settled(&mut self) -> bool {
        core::mem::replace(&mut self.settled, false)
    }

    /// Adopts the certificate of the group, which is in `epoch`.
    ///
    /// # Panics
    /// If there is one already.
    pub fn certify(&mut self, certificate: Certificate, epoch: Epoch) {
        assert!(self.wanted.certificate.is_none(), "a certificate never changes");
        self.wanted.certificate = Some(certificate);
        self.wanted.epoch = epoch;
        self.wanted.trust = Trust::Intact;
        self.change();
    }

    /// The superblock of a replica that had forgotten everything: it belongs to the group again,
    /// with the log of `view`, which is in the same batch.
    ///
    /// # Panics
    /// If there is a certificate already.
    pub fn rebuild(&mut self, rebuilt: Rebuilt, id: PersistId) -> Superblock {
        assert!(self.wanted.certificate.is_none(), "a certificate never changes");
        self.wanted.certificate = Some(rebuilt.certificate);
        self.wanted.epoch = rebuilt.epoch;
        self.wanted.view = rebuilt.view;
        self.wanted.log_view = rebuilt.view;
        self.wanted.trust = Trust::Intact;
        self.wanted.incarnation = rebuilt.incarnation;
        self.wanted.crash_vector.join(&rebuilt.crash_vector);
        self.hand_over(id)
    }

    /// Forgets everything on purpose: this disk is formatted anew, as `disk`. What storage still has
    /// of a log is lost, so that the next start does not even look at it.
    pub fn reformat(&mut self, disk: DiskId) {
        let known = &self.wanted;
        let lease = known.lease;
        self.wanted = Superblock::blank(&Identity {
            group: known.group,
            group_name: known.group_name.clone(),
            members: known.members.clone(),
            replica: known.replica,
            durability: known.durability,
            fresh_disk: disk,
        });
        self.wanted.trust = Trust::Lost;
        self.wanted.lease = lease;
        self.change();
    }

    /// Grants are so long from now on.
    pub fn note_lease(&mut self, lease: Duration) {
        if self.wanted.lease != lease {
            self.wanted.lease = lease;
            self.change();
        }
    }

    /// Takes part in nothing any more: the operator began this epoch by force, without this disk.
    pub fn supersede(&mut self, epoch: Epoch) {
        self.wanted.superseded_by = Some(epoch);
        self.change();
    }

    /// Lets the superblock be written although nothing of it changed.
    pub const fn write_again(&mut self) {
        self.dirty = true;
    }

    /// Learns of others' incarnations; durable before any message carries them.
    pub fn learn(&mut self, crash_vector: &CrashVector) {
        if self.wanted.crash_vector.join(crash_vector) {
            self.change();
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
    pub(crate) fn misplace_log_view(&mut self, view: View) {
        self.wanted.log_view = view;
        self.change();
    }

    /// The superblock to write; `id` names the write.
    pub fn hand_over(&mut self, id: PersistId) -> Superblock {
        self.dirty = false;
        if self.volatile {
            self.change();
        } else {
            self.in_flight.push_back((id, self.wanted.clone()));
        }
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
        membership::Members,
        types::{DiskId, OpNumber, ReplicaId},
    };

    fn promise() -> Promise {
        promise_in(Durability::Full)
    }

    fn promise_in(durability: Durability) -> Promise {
        let members = Members::local(3).unwrap().to_membership();
        Promise::recovered(Superblock::blank(&Identity {
            group: members.group_id("g"),
            group_name: "g".into(),
            members,
            replica: ReplicaId(0),
            durability,
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

    #[test]
    fn without_a_disk_a_promise_counts_at_once() {
        let mut promise = promise_in(Durability::Diskless);
        promise.promise(View(3));
        assert!(!promise.is_dirty() && promise.take_settled() && !promise.take_settled());
        assert_eq!(promise.view(), View(3));
        promise.install(View(3), PersistId(1));
        assert_eq!(promise.log_view(), View(3));
    }

    #[test]
    fn a_disk_formatted_anew_says_that_the_log_on_it_does_not_count() {
        let mut promise = promise();
        promise.reformat(DiskId(2));
        let blank = promise.hand_over(PersistId(1));
        assert_eq!((blank.disk, blank.trust, blank.certificate), (DiskId(2), Trust::Lost, None));
    }

    #[test]
    fn whatever_a_crash_may_leave_named_is_told() {
        let mut promise = promise();
        let checkpoint = |op| CheckpointId { op_number: OpNumber(op), ..CheckpointId::default() };
        for op in [10, 20] {
            promise.name_checkpoint(checkpoint(op));
            promise.hand_over(PersistId(op));
        }
        promise.name_checkpoint(checkpoint(30));
        promise.persisted(PersistId(10));
        let named: Vec<u64> = promise.named_checkpoints().map(|id| id.op_number.0).collect();
        assert_eq!(named, [20, 10, 30]);
    }

    #[test]
    fn a_promise_that_is_known_is_not_written_again() {
        let mut promise = promise();
        promise.promise(View::ZERO);
        assert!(!promise.is_dirty());
    }
}
