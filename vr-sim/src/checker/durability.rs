//! O7: nothing is said before it is durable, and what was durable is back after a crash.

use std::collections::{BTreeMap, BTreeSet};

use vr_core::{
    model::{
        durable::{Superblock, Trust},
        entry::EntryHeader,
        message::Envelope,
        types::{Checksum, OpNumber, ReplicaId, View},
    },
    ports::storage::{Recovered, WriteBatch},
};

use crate::checker::{Claim, Verdict, Violation};

/// What the disk of each replica holds for certain.
#[derive(Debug, Default)]
pub struct Durability {
    shadows: BTreeMap<ReplicaId, Shadow>,
}

/// What one replica's disk holds for certain, and the write that may or may not be there.
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    /// The durable promise.
    pub view: View,
    /// The durable log view.
    pub log_view: View,
    /// Whether it is part of a group.
    pub joined: bool,
    /// The op and checksum of the checkpoint that the log starts after; zero for none.
    base: (OpNumber, Checksum),
    /// Op number, checksum and parent of each durable entry above that.
    log: BTreeMap<OpNumber, (Checksum, Checksum)>,
    /// Entries of the log that were found damaged and are not repaired yet.
    damaged: BTreeSet<OpNumber>,
    /// The log does not follow the base, which came from others: nothing above the base is held,
    /// but it is on disk until it is cut.
    severed: bool,
    /// The log was given up, and none was installed since.
    pub lost: bool,
    opened: bool,
    pending: Option<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    cut: Option<OpNumber>,
    entries: Vec<EntryHeader>,
    repairs: Vec<EntryHeader>,
    intact: bool,
    views: Option<(View, View)>,
    /// Whether the disk belongs to a group afterwards, if the superblock is written.
    joins: Option<bool>,
    base: Option<(OpNumber, Checksum)>,
}

impl Shadow {
    /// A disk without entries that has installed `view`.
    #[cfg(test)]
    pub(crate) fn empty_in(view: View) -> Self {
        Self { view, log_view: view, ..Self::default() }
    }

    /// Checksum of the durable entry at `op_number`.
    #[must_use]
    pub fn checksum_at(&self, op_number: OpNumber) -> Option<Checksum> {
        if op_number == self.base.0 && op_number > OpNumber::ZERO {
            return Some(self.base.1);
        }
        if self.severed { None } else { self.written_at(op_number) }
    }

    /// Checksum of the entry that is on disk at `op_number`, whatever it follows.
    fn written_at(&self, op_number: OpNumber) -> Option<Checksum> {
        self.log.get(&op_number).map(|(checksum, _)| *checksum)
    }

    /// Whether the log starts after `op_number`, which is then known by the checkpoint only.
    #[must_use]
    pub fn starts_after(&self, op_number: OpNumber) -> bool {
        op_number < self.base.0
    }

    /// The last durable entry, or the checkpoint; op zero while there is neither.
    #[must_use]
    pub fn head(&self) -> (OpNumber, Checksum) {
        if self.severed { self.base } else { self.end() }
    }

    /// The last entry on disk, whatever it follows.
    fn end(&self) -> (OpNumber, Checksum) {
        self.log.last_key_value().map_or(self.base, |(op, (checksum, _))| (*op, *checksum))
    }

    fn apply_log(&mut self, pending: &Pending) {
        if let Some(cut) = pending.cut {
            self.log.split_off(&cut.next());
            self.damaged.split_off(&cut.next());
            self.severed &= !self.log.is_empty();
        }
        for header in &pending.repairs {
            if self.written_at(header.op_number) == Some(header.checksum) {
                self.damaged.remove(&header.op_number);
            }
        }
        for header in &pending.entries {
            self.log.insert(header.op_number, (header.checksum, header.parent));
        }
    }

    fn apply_base(&mut self, pending: &Pending) {
        if let Some(base) = pending.base.filter(|base| *base != self.base) {
            self.rebase(base);
        }
    }

    /// The superblock names a checkpoint. That takes nothing above it from the disk; if it does not
    /// follow the checkpoint, it counts for nothing.
    fn rebase(&mut self, base: (OpNumber, Checksum)) {
        let follows = self.written_at(base.0) == Some(base.1);
        self.log = self.log.split_off(&base.0.next());
        self.damaged = self.damaged.split_off(&base.0.next());
        self.severed = !follows && !self.log.is_empty();
        self.base = base;
    }

    /// Whether all that is here was recovered, or is said to be damaged. An entry below a damaged
    /// one may be an older one, which a cut that is damaged has replaced. A log that does not follow
    /// its base never passes for a whole one.
    fn holds_exactly(&self, recovered: &Recovered) -> bool {
        let found = |op_number: &OpNumber| {
            let position = recovered.headers.binary_search_by_key(op_number, |it| it.op_number);
            position.ok().and_then(|at| recovered.headers.get(at)).map(|header| header.checksum)
        };
        let head = recovered.head();
        let is_told = |(op_number, (checksum, _)): (&OpNumber, &(Checksum, Checksum))| {
            let above = recovered.damaged.last().map(|range| range.through.op_number);
            found(op_number) == Some(*checksum) || above.is_some_and(|above| *op_number <= above)
        };
        let nothing = head.op_number == OpNumber::ZERO && self.end().0 == OpNumber::ZERO;
        let same_end = nothing || self.end() == (head.op_number, head.checksum);
        let fits = !self.severed || !recovered.damaged.is_empty();
        let same_base = base_of(&recovered.superblock) == self.base;
        same_base && same_end && fits && self.log.iter().all(is_told)
    }

    /// The entries of this log that are not on disk.
    fn missing_in(&self, recovered: &Recovered) -> BTreeSet<OpNumber> {
        let found: BTreeMap<OpNumber, Checksum> =
            recovered.headers.iter().map(|header| (header.op_number, header.checksum)).collect();
        let is_damaged = |op_number: OpNumber| {
            recovered
                .damaged
                .iter()
                .any(|range| range.first <= op_number && op_number <= range.through.op_number)
        };
        let ops = self.log.iter();
        let missing = ops.filter(|(op_number, (checksum, _))| {
            is_damaged(**op_number) || found.get(*op_number) != Some(checksum)
        });
        missing.map(|(op_number, _)| *op_number).collect()
    }
}

/// What the log starts after, as a superblock has it; zero for nothing.
fn base_of(superblock: &Superblock) -> (OpNumber, Checksum) {
    let checkpoint = &superblock.checkpoint;
    match checkpoint.op_number > OpNumber::ZERO {
        true => (checkpoint.op_number, checkpoint.checksum),
        false => (OpNumber::ZERO, Checksum::ZERO),
    }
}

impl Durability {
    /// What is durable at `replica`; `None` before it was ever opened.
    #[must_use]
    pub fn of(&self, replica: ReplicaId) -> Option<&Shadow> {
        self.shadows.get(&replica)
    }

    /// The disk of `replica` was wiped.
    pub fn wiped(&mut self, replica: ReplicaId) {
        self.shadows.remove(&replica);
    }

    /// `replica` began to write `batch`; until it is done, a crash may leave it or not.
    ///
    /// # Errors
    /// When it replaces the log by that of a view to which the promise is not durable.
    pub fn writing(&mut self, replica: ReplicaId, batch: &WriteBatch) -> Verdict {
        let pending = Pending {
            cut: batch.cut,
            entries: batch.entries().map(|entry| entry.header).collect(),
            repairs: batch.repairs.iter().map(|entry| entry.header).collect(),
            intact: batch.superblock.as_ref().is_some_and(|block| block.trust == Trust::Intact),
            views: batch.superblock.as_ref().map(|block| (block.view, block.log_view)),
            joins: batch.superblock.as_ref().map(|block| block.certificate.is_some()),
            base: batch.superblock.as_ref().map(base_of),
        };
        let shadow = self.shadows.entry(replica).or_default();
        let log_view = pending.views.map_or(View::ZERO, |(_, log_view)| log_view);
        let touches_log = pending.cut.is_some() || !pending.entries.is_empty();
        shadow.pending = Some(pending);
        if touches_log && log_view > shadow.view && shadow.joined {
            return broken(format!(
                "r{replica} writes the log of view {log_view}; its promise is {}",
                shadow.view
            ));
        }
        Ok(())
    }

    /// The write that `replica` began is done.
    pub fn stored(&mut self, replica: ReplicaId) -> Option<&Shadow> {
        let shadow = self.shadows.get_mut(&replica)?;
        if let Some(pending) = shadow.pending.take() {
            shadow.apply_log(&pending);
            shadow.apply_base(&pending);
            shadow.joined = pending.joins.unwrap_or(shadow.joined);
            shadow.lost &= !pending.intact;
            (shadow.view, shadow.log_view) =
                pending.views.unwrap_or((shadow.view, shadow.log_view));
        }
        Some(shadow)
    }

    /// `replica` opened its disk and found `recovered` there.
    ///
    /// # Errors
    /// When that is neither what was durable nor that with the whole of the write in flight; or
    /// when something is said to be damaged on a disk that never `lied`.
    pub fn opened(&mut self, replica: ReplicaId, recovered: &Recovered, lied: bool) -> Verdict {
        let damaged = recovered.damaged.first().map(|range| range.first);
        let shadow = self.shadows.entry(replica).or_default();
        // A disk that belongs to no group may hold a part of what it was given of one, and forgets
        // it step by step: nothing of it was ever promised.
        let leaves = shadow.pending.as_ref().is_some_and(|pending| pending.joins == Some(false));
        let belongs = recovered.superblock.certificate.is_some();
        let member = belongs || (shadow.joined && !leaves);
        if member && !lied && (damaged.is_some() || recovered.set_aside.is_some()) {
            return broken(format!(
                "r{replica} found its log damaged, from op {damaged:?} on, on a disk that never lied"
            ));
        }
        let found = (recovered.superblock.view, recovered.superblock.log_view);
        let mut views = vec![(shadow.view, shadow.log_view)];
        let lost = recovered.superblock.trust == Trust::Lost;
        let given_up = lost && (shadow.lost || recovered.set_aside.is_some());
        let log_is_old = shadow.holds_exactly(recovered);
        if let Some(pending) = shadow.pending.take() {
            if given_up {
                // Of the log there is nothing to compare; the superblock may be there all the same.
                views.extend(pending.views);
            }
            // The log part comes first; a crash may leave it without the superblock.
            let mut later = shadow.clone();
            later.apply_log(&pending);
            let mut last = later.clone();
            last.apply_base(&pending);
            for state in [later, last] {
                if state.holds_exactly(recovered) {
                    views.extend(pending.views);
                    *shadow = state;
                    break;
                }
            }
        }
        if shadow.opened
            && member
            && !(views.contains(&found)
                && (given_up || log_is_old || shadow.holds_exactly(recovered)))
        {
            return broken(format!(
                "r{replica} opened with views {found:?} and {} entries; durable were views {views:?} and head {}",
                recovered.headers.len(),
                shadow.head().0
            ));
        }
        shadow.opened = true;
        shadow.joined = belongs;
        (shadow.view, shadow.log_view) = found;
        shadow.lost = lost;
        if base_of(&recovered.superblock) != shadow.base {
            shadow.rebase(base_of(&recovered.superblock));
        }
        if recovered.damaged.is_empty() || shadow.log.is_empty() {
            let headers = recovered.headers.iter();
            shadow.log = headers.map(|h| (h.op_number, (h.checksum, h.parent))).collect();
            shadow.severed = false;
        }
        shadow.damaged = shadow.missing_in(recovered);
        Ok(())
    }

    /// `replica` sent `envelope`; what it says of its log need not be durable without `log`.
    ///
    /// # Errors
    /// When the envelope claims what is not durable at `replica`.
    pub fn sent(&self, replica: ReplicaId, envelope: &Envelope, log: bool) -> Verdict {
        let Some(shadow) = self.shadows.get(&replica) else {
            return broken(format!("r{replica} speaks before it opened its disk"));
        };
        let early = |what: &str| {
            broken(format!(
                "r{replica} sent {:?} naming view {}: {what}; durable: view {}, log view {}, head {}",
                envelope.message.kind(),
                envelope.view,
                shadow.view,
                shadow.log_view,
                shadow.head().0
            ))
        };
        if envelope.view > shadow.view {
            return early("its view is not durable");
        }
        let in_view = shadow.view == shadow.log_view && envelope.view == shadow.view;
        match Claim::from(&envelope.message) {
            Claim::Holds(m) if !in_view => early(&format!("acknowledges op {}", m.op_number)),
            Claim::Holds(m)
                if log
                    && m.op_number > OpNumber::ZERO
                    && shadow.checksum_at(m.op_number) != Some(m.checksum) =>
            {
                early(&format!("op {} is not durable", m.op_number))
            }
            Claim::Holds(m) if shadow.damaged.first().is_some_and(|op| *op <= m.op_number) => {
                early(&format!("acknowledges op {} over a hole in its log", m.op_number))
            }
            Claim::Promises(m) if !shadow.damaged.is_empty() && m.view != shadow.log_view => {
                early("votes with a log that has holes")
            }
            Claim::Promises(m) if shadow.severed && m.op_number > shadow.base.0 => {
                early("votes with a log that does not follow its checkpoint")
            }
            Claim::Promises(m) if shadow.lost && m.trust == Trust::Intact => {
                early("votes with a log that it lost")
            }
            Claim::Promises(m) if m.view > shadow.view => early("its promise is not durable"),
            // Between the end of the write and the node's hearing of it, a promise to the view that
            // has just started may name the log view before; nobody needs that promise any more.
            Claim::Promises(m) if m.log_view != shadow.log_view && m.view != shadow.log_view => {
                early(&format!("log view {} is not durable", m.log_view))
            }
            Claim::Leads(_) if !in_view => early("its view has not started"),
            Claim::Started(m) if m.view != shadow.log_view => early("its log is not installed"),
            Claim::Holds(_)
            | Claim::Promises(_)
            | Claim::Leads(_)
            | Claim::Started(_)
            | Claim::Nothing => Ok(()),
        }
    }
}

const fn broken(found: String) -> Verdict {
    Err(Violation::new("O7", "nothing is said before it is durable", found))
}

#[cfg(test)]
mod tests {
    use vr_core::model::{
        certificate::{Certificate, CertificateHash, CrashVector},
        durable::{self, Identity, Superblock},
        entry::Entry,
        membership::Membership,
        message::{Message, PrepareOk, Sender},
        types::{DiskId, Epoch, GroupId, HeartbeatNumber, Incarnation},
    };
    use vr_core::ports::storage::{Anchor, DamagedRange};

    use super::*;

    const R0: ReplicaId = ReplicaId(0);

    fn superblock(view: u64) -> Superblock {
        let identity = Identity {
            group: GroupId(1),
            group_name: "g".into(),
            members: Membership::new([R0]).unwrap(),
            replica: R0,
            durability: durable::Durability::Full,
            fresh_disk: DiskId(1),
        };
        let certificate = Certificate {
            group_name: "g".into(),
            disks: vec![(R0, DiskId(1))],
            inherited: Vec::new(),
        };
        Superblock {
            view: View(view),
            log_view: View(view),
            certificate: Some(certificate),
            ..Superblock::blank(&identity)
        }
    }

    fn entry(op: u64) -> Entry {
        let header = EntryHeader { op_number: OpNumber(op), ..EntryHeader::default() };
        Entry { header: header.sealed(), ..Entry::default() }
    }

    fn found(view: u64, ops: u64) -> Recovered {
        let headers = (1..=ops).map(|op| entry(op).header).collect();
        Recovered::whole(superblock(view), headers)
    }

    /// As `found`, with a durable promise to view 3.
    fn promised(log_view: u64, ops: u64) -> Recovered {
        let mut found = found(log_view, ops);
        found.superblock.view = View(3);
        found
    }

    fn write(ops: &[u64], view: Option<u64>) -> WriteBatch {
        let entries = ops.iter().map(|op| entry(*op)).collect();
        WriteBatch { superblock: view.map(superblock), ..WriteBatch::of(entries) }
    }

    fn opened() -> Durability {
        let mut disks = Durability::default();
        assert_eq!(disks.opened(R0, &found(0, 1), false), Ok(()));
        disks
    }

    fn says(view: u64, message: Message) -> Envelope {
        Envelope {
            group: GroupId(1),
            certificate: CertificateHash::NONE,
            epoch: Epoch::ZERO,
            sender: Sender::Replica(R0),
            incarnation: Incarnation::ZERO,
            view: View(view),
            crash_vector: CrashVector::default(),
            message,
        }
    }

    fn ack(op: u64) -> Message {
        Message::PrepareOk(PrepareOk {
            op_number: OpNumber(op),
            checksum: entry(op).header.checksum,
            heartbeat: HeartbeatNumber::ZERO,
            applied: OpNumber::ZERO,
            checkpoint: superblock(0).checkpoint,
            standing: None,
            lease: core::time::Duration::ZERO,
        })
    }

    #[test]
    fn an_acknowledgement_waits_for_the_end_of_its_write() {
        let mut disks = opened();
        assert_eq!(disks.writing(R0, &write(&[2], None)), Ok(()));
        assert!(disks.sent(R0, &says(0, ack(2)), true).is_err());
        disks.stored(R0);
        assert_eq!(disks.sent(R0, &says(0, ack(2)), true), Ok(()));
    }

    #[test]
    fn a_view_is_named_only_when_it_is_durable() {
        let mut disks = opened();
        assert_eq!(disks.writing(R0, &write(&[], Some(3))), Ok(()));
        assert!(disks.sent(R0, &says(3, ack(1)), true).is_err());
        disks.stored(R0);
        assert_eq!(disks.sent(R0, &says(3, ack(1)), true), Ok(()));
    }

    #[test]
    fn a_write_in_flight_is_there_as_a_whole_or_not_at_all() {
        for (view, ops, fine) in [(0, 1, true), (3, 3, true), (0, 3, true), (0, 2, false)] {
            let mut disks = Durability::default();
            assert_eq!(disks.opened(R0, &promised(0, 1), false), Ok(()));
            assert_eq!(disks.writing(R0, &write(&[2, 3], Some(3))), Ok(()));
            assert_eq!(disks.opened(R0, &promised(view, ops), false).is_ok(), fine, "{view} {ops}");
        }
    }

    #[test]
    fn a_superblock_that_overtook_its_log_part_is_noticed() {
        let mut disks = Durability::default();
        assert_eq!(disks.opened(R0, &promised(0, 1), false), Ok(()));
        assert_eq!(disks.writing(R0, &write(&[2], Some(3))), Ok(()));
        assert!(disks.opened(R0, &promised(3, 1), false).is_err());
    }

    #[test]
    fn a_log_that_is_replaced_before_the_promise_is_durable_is_noticed() {
        assert!(opened().writing(R0, &write(&[2], Some(3))).is_err());
        assert_eq!(opened().writing(R0, &write(&[], Some(3))), Ok(()));
    }

    #[test]
    fn something_durable_that_is_gone_is_noticed() {
        assert!(opened().opened(R0, &found(0, 0), false).is_err());
    }

    /// Ops 2 and 3 of three are damaged.
    fn with_holes() -> Recovered {
        let through = Anchor::of(&entry(3).header);
        let damaged = vec![DamagedRange { first: OpNumber(2), through }];
        Recovered { damaged, ..found(0, 1) }
    }

    #[test]
    fn damage_is_believed_of_disks_that_lie_only() {
        for (lied, fine) in [(true, true), (false, false)] {
            let mut disks = Durability::default();
            assert_eq!(disks.opened(R0, &found(0, 3), false), Ok(()));
            assert_eq!(disks.opened(R0, &with_holes(), lied).is_ok(), fine);
        }
        let mut disks = Durability::default();
        assert_eq!(disks.opened(R0, &found(0, 4), false), Ok(()));
        assert!(disks.opened(R0, &with_holes(), true).is_err(), "an op that is not even told");
    }

    #[test]
    fn nothing_is_acknowledged_over_a_hole() {
        let mut disks = Durability::default();
        assert_eq!(disks.opened(R0, &found(0, 3), false), Ok(()));
        assert_eq!(disks.opened(R0, &with_holes(), true), Ok(()));
        assert_eq!(disks.sent(R0, &says(0, ack(1)), true), Ok(()));
        assert!(disks.sent(R0, &says(0, ack(3)), true).is_err());
        let repairs = vec![entry(2), entry(3)];
        let batch = WriteBatch { repairs, ..WriteBatch::default() };
        assert_eq!(disks.writing(R0, &batch), Ok(()));
        assert!(disks.sent(R0, &says(0, ack(3)), true).is_err());
        disks.stored(R0);
        assert_eq!(disks.sent(R0, &says(0, ack(3)), true), Ok(()));
    }

    /// The same above a checkpoint after op 2 of another history, with op 4 on disk.
    fn above_another_history(headers: &[u64], damaged: Vec<DamagedRange>) -> Recovered {
        let headers = headers.iter().map(|op| entry(*op).header).collect();
        Recovered { damaged, ..Recovered::whole(fetched(), headers) }
    }

    fn fetched() -> Superblock {
        let mut superblock = superblock(0);
        superblock.checkpoint.op_number = OpNumber(2);
        superblock.checkpoint.checksum = Checksum(77);
        superblock
    }

    #[test]
    fn what_does_not_follow_a_fetched_checkpoint_is_on_disk_and_is_not_held() {
        let mut disks = Durability::default();
        assert_eq!(disks.opened(R0, &found(0, 4), false), Ok(()));
        let batch = WriteBatch { superblock: Some(fetched()), ..WriteBatch::default() };
        assert_eq!(disks.writing(R0, &batch), Ok(()));
        disks.stored(R0);
        assert_eq!(disks.of(R0).unwrap().head(), (OpNumber(2), Checksum(77)));
        assert!(disks.sent(R0, &says(0, ack(4)), true).is_err());
        let through = Anchor::of(&entry(3).header);
        let hole = || vec![DamagedRange { first: OpNumber(3), through }];
        let gone = above_another_history(&[], Vec::new());
        assert!(disks.opened(R0, &gone, true).is_err(), "nobody cut it");
        let whole = above_another_history(&[3, 4], Vec::new());
        assert!(disks.opened(R0, &whole, true).is_err(), "it passes for what follows");
        assert_eq!(disks.opened(R0, &above_another_history(&[4], hole()), true), Ok(()));
        assert!(disks.sent(R0, &says(0, ack(4)), true).is_err());
        let repairs = WriteBatch { repairs: vec![entry(3)], ..WriteBatch::default() };
        assert_eq!(disks.writing(R0, &repairs), Ok(()));
        disks.stored(R0);
        assert!(disks.sent(R0, &says(0, ack(4)), true).is_err(), "whole, and of another history");
        let cut = WriteBatch { cut: Some(OpNumber(2)), ..WriteBatch::default() };
        assert_eq!(disks.writing(R0, &cut), Ok(()));
        disks.stored(R0);
        assert_eq!(disks.opened(R0, &gone, true), Ok(()));
    }

    #[test]
    fn a_log_in_memory_is_acknowledged_at_once_and_a_view_is_not() {
        let disks = opened();
        assert_eq!(disks.sent(R0, &says(0, ack(2)), false), Ok(()));
        assert!(disks.sent(R0, &says(1, ack(2)), false).is_err());
    }
}
