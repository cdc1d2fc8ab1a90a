//! What a copy of the log is made from, while the replica goes on.

use crate::{
    model::{
        durable::Trust,
        entry::Entry,
        export::LogFacts,
        types::{Checksum, OpNumber},
    },
    replica::Replica,
    state::status::{Role, Status},
};

impl Replica {
    /// What can be copied of this replica's log: what it knows to be committed, or with `tail` all
    /// that it holds. It starts after the checkpoint that this replica holds. `None` while it belongs
    /// to no group.
    #[must_use]
    pub fn log_facts(&self, tail: bool) -> Option<LogFacts> {
        let durable = self.promise.durable();
        // What is above a damaged op is there, but nobody can be given it.
        let trust = if self.is_incomplete() { Trust::Lost } else { durable.trust };
        let op_number = if tail { self.log.op_number() } else { self.commit_number };
        Some(LogFacts {
            group: self.group,
            group_name: durable.group_name.clone(),
            members: self.membership.clone(),
            durability: durable.durability,
            replica: self.me,
            certificate: durable.certificate.clone()?,
            epoch: durable.epoch,
            latest_epoch: durable.superseded_by.unwrap_or(durable.epoch),
            view: durable.view,
            log_view: durable.log_view,
            trust,
            checkpoint: self.checkpoints.held(),
            commit_number: self.commit_number,
            op_number,
            checksum: self.log.checksum_of(op_number).unwrap_or(Checksum::ZERO),
        })
    }

    /// Whether this replica knows how far its group has committed: after a start, it has to be told,
    /// and a log that is not whole is none to rely on.
    #[must_use]
    pub fn knows_committed(&self) -> bool {
        let started = match &self.status {
            Status::Normal(Role::Primary(primary)) => self.commit_number >= primary.start_op,
            Status::Normal(Role::Backup(_)) => {
                let nothing = self.commit_number == self.log.base().op_number;
                !nothing || self.log.op_number() == self.commit_number
            }
            Status::Blank(_) | Status::ViewChange(_) | Status::Recovering(_) => false,
        };
        started && !self.is_incomplete()
    }

    /// Whether the log goes on from the checkpoint that this replica holds: not while another one
    /// is put in its place.
    #[must_use]
    pub fn log_follows_checkpoint(&self) -> bool {
        let held = self.checkpoints.held().op_number;
        self.log.base().op_number <= held && held <= self.commit_number
    }

    /// Entries from `from` up to and including `through` that are in memory, at most `bytes_max`
    /// of them but at least one; empty when storage has to be asked.
    #[must_use]
    pub fn log_entries(&self, from: OpNumber, through: OpNumber, bytes_max: u64) -> Vec<Entry> {
        self.log.entries(from, through, bytes_max).to_vec()
    }
}
