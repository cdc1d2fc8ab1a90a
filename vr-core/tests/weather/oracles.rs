//! What must hold of what replicas say, hold on disk, and execute.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "support of one test: what goes wrong here is a failed test, with its trace"
)]

use vr_core::{
    Durability,
    model::{
        entry::Entry,
        message::{Envelope, Message},
        types::{OpNumber, View},
    },
};

use crate::world::{World, op};

impl World {
    pub(crate) fn check_committed(&mut self, index: usize, entry: &Entry, view: View) {
        let at = usize::try_from(entry.header.op_number.0).unwrap();
        match self.committed.get(at - 1) {
            Some((known, _)) if *known == entry.header.checksum => {}
            Some(_) => self.fail(&format!("replica {index} executed another entry at op {at}")),
            None => self.committed.push((entry.header.checksum, view)),
        }
    }

    /// Nothing leaves that its disk does not hold already.
    pub(crate) fn audit(&mut self, index: usize, envelope: &Envelope) {
        let on_disk = match self.durability {
            Durability::Full => true,
            Durability::ViewOnly => false,
            Durability::Diskless => return,
        };
        let disk = &self.disks[index];
        let sure = disk.superblock.view >= envelope.view;
        let started =
            disk.superblock.log_view == envelope.view && disk.superblock.view == envelope.view;
        let holds = match &envelope.message {
            Message::PrepareOk(m) => {
                let at = usize::try_from(m.op_number.0).unwrap();
                let held = at == 0
                    || !on_disk
                    || disk.entries.get(at - 1).is_some_and(|e| e.header.checksum == m.checksum);
                started && held
            }
            Message::Prepare(_) | Message::Commit(_) | Message::ReadIndexOk(_) => started,
            Message::DoViewChange(m) => {
                let head = disk.entries.last().map(|entry| entry.header.checksum);
                disk.superblock.view >= m.view
                    && disk.superblock.log_view >= m.log_view
                    && (m.op_number == OpNumber::ZERO || !on_disk || head == Some(m.head))
            }
            Message::StartView(m) => {
                let known = (m.op_number, m.head);
                if *self.started.entry(m.view).or_insert(known) == known && on_disk {
                    self.check_start(m.view, m.op_number, index);
                }
                let disk = &self.disks[index];
                disk.superblock.log_view == m.view && disk.superblock.view == m.view
            }
            _ => true,
        };
        if !sure || !holds {
            self.fail(&format!("replica {index} said too early: {envelope:?}"));
        }
    }

    /// Whatever was executed in a lower view is in the log that a view starts from.
    fn check_start(&mut self, view: View, through: OpNumber, index: usize) {
        for (at, (checksum, executed_in)) in self.committed.iter().enumerate() {
            if *executed_in < view {
                let entry = self.disks[index].entries.get(at);
                let kept = entry.is_some_and(|entry| entry.header.checksum == *checksum);
                if !kept || through < op(at + 1) {
                    self.fail(&format!("view {view} started without op {}", at + 1));
                }
            }
        }
    }
}
