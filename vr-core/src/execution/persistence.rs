//! When a state that is on disk by itself is made durable, and with what beside it.

use crate::model::{
    certificate::CertificateHash,
    companion::Persisted,
    config::Config,
    entry::EntryHeader,
    types::{Checksum, GroupId, OpNumber},
};

/// What an executor knows of a state that is on disk by itself.
///
/// Invariant: `persisted` is at most the last op applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Persistence {
    group: GroupId,
    /// [`CertificateHash::NONE`] until the group is known; before that nothing is made durable.
    pub(crate) certificate: CertificateHash,
    /// Checksum of the last entry applied.
    pub(crate) head: Checksum,
    /// The last op that is durable.
    persisted: OpNumber,
    /// Whether the state is another one than what is durable and what followed it.
    replaced: bool,
    /// Ops and bytes of entries since.
    ops: u64,
    bytes: u64,
    ops_max: u64,
    bytes_max: u64,
}

impl Persistence {
    /// Of a state that is empty, in `group`.
    pub(crate) fn new(group: GroupId, config: &Config) -> Self {
        Self {
            group,
            certificate: CertificateHash::NONE,
            head: Checksum::ZERO,
            persisted: OpNumber::ZERO,
            replaced: false,
            ops: 0,
            bytes: 0,
            ops_max: u64::from(config.persist_ops),
            bytes_max: config.persist_bytes,
        }
    }

    /// The state is the one that was found on disk.
    pub(crate) const fn found(&mut self, at: &Persisted) {
        self.head = at.checksum;
        self.persisted = at.op_number;
    }

    /// The state was replaced by the one after an entry with this checksum.
    pub(crate) const fn replaced_by(&mut self, head: Checksum) {
        self.head = head;
        self.replaced = true;
    }

    /// The state is empty, and what is durable is of no use.
    pub(crate) const fn emptied(&mut self) {
        self.head = Checksum::ZERO;
        self.persisted = OpNumber::ZERO;
        self.replaced = false;
        (self.ops, self.bytes) = (0, 0);
    }

    /// The entry with `header` was applied; whether the state is to be made durable behind it.
    pub(crate) fn applied(&mut self, header: &EntryHeader) -> bool {
        self.head = header.checksum;
        self.ops += 1;
        self.bytes = self.bytes.saturating_add(header.entry_bytes());
        self.ops_max > 0 && (self.ops >= self.ops_max || self.bytes >= self.bytes_max)
    }

    /// Where the state stands after `op_number`, if that is news and may be made durable.
    pub(crate) fn unpersisted(
        &self,
        op_number: OpNumber,
        time: core::time::Duration,
    ) -> Option<Persisted> {
        let Self { group, certificate, head: checksum, .. } = *self;
        let news = self.replaced || op_number > self.persisted;
        (news && certificate != CertificateHash::NONE).then_some(Persisted {
            group,
            certificate,
            op_number,
            checksum,
            time,
        })
    }

    /// The state after `op_number` is durable.
    pub(crate) const fn persisted(&mut self, op_number: OpNumber) {
        self.persisted = op_number;
        self.replaced = false;
        (self.ops, self.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn every(ops: u32, bytes: u64) -> Persistence {
        let mut config = Config::default();
        (config.persist_ops, config.persist_bytes) = (ops, bytes);
        Persistence::new(GroupId(1), &config)
    }

    fn header(op: u64, payload: u32) -> EntryHeader {
        EntryHeader { op_number: OpNumber(op), payload_length: payload, ..EntryHeader::default() }
    }

    #[test]
    fn it_is_due_by_ops_or_by_bytes_or_never() {
        let mut persistence = every(3, 2000);
        let due: Vec<u64> = (1..=7)
            .filter(|op| {
                let due = persistence.applied(&header(*op, 0));
                if due {
                    persistence.persisted(OpNumber(*op));
                }
                due
            })
            .collect();
        assert_eq!(due, [3, 6]);
        assert!(persistence.applied(&header(8, 4000)));
        let mut never = every(0, 1);
        assert!((1..=9).all(|op| !never.applied(&header(op, 4000))));
    }

    #[test]
    fn nothing_is_made_durable_of_an_unknown_group_or_twice() {
        let mut persistence = every(3, 2000);
        let at = |persistence: &Persistence, op| {
            persistence.unpersisted(OpNumber(op), Duration::ZERO).map(|at| at.op_number)
        };
        assert_eq!(at(&persistence, 4), None);
        persistence.certificate = CertificateHash(9);
        assert_eq!(at(&persistence, 4), Some(OpNumber(4)));
        persistence.persisted(OpNumber(4));
        assert_eq!(at(&persistence, 4), None);
        persistence.replaced_by(Checksum(1));
        assert_eq!(at(&persistence, 4), Some(OpNumber(4)));
    }
}
