//! What a copy of the log is made from, while the replica goes on.

use crate::{
    model::{
        entry::Entry,
        export::LogFacts,
        types::{Checksum, OpNumber},
    },
    replica::Replica,
};

impl Replica {
    /// What can be copied of this replica's log: what it knows to be committed, or with `tail` all
    /// that it holds. `None` while it belongs to no group.
    #[must_use]
    pub fn log_facts(&self, tail: bool) -> Option<LogFacts> {
        let durable = self.promise.durable();
        let op_number = if tail { self.log.op_number() } else { self.commit_number };
        Some(LogFacts {
            group: self.group,
            group_name: durable.group_name.clone(),
            members: self.membership.clone(),
            durability: durable.durability,
            replica: self.me,
            certificate: durable.certificate.clone()?,
            epoch: durable.epoch,
            view: durable.view,
            log_view: durable.log_view,
            trust: durable.trust,
            commit_number: self.commit_number,
            op_number,
            checksum: self.log.checksum_of(op_number).unwrap_or(Checksum::ZERO),
        })
    }

    /// What the first entry of this replica's log chains to.
    #[must_use]
    pub const fn log_base(&self) -> Checksum {
        self.log.base().checksum
    }

    /// Entries from `from` up to and including `through` that are in memory, at most `bytes_max`
    /// of them but at least one; empty when storage has to be asked.
    #[must_use]
    pub fn log_entries(&self, from: OpNumber, through: OpNumber, bytes_max: u64) -> Vec<Entry> {
        self.log.entries(from, through, bytes_max)
    }
}
