//! What a group must survive, and so what may be taken from it.

#![expect(clippy::indexing_slicing, reason = "support of one test: what goes wrong fails it")]

use vr_core::{Durability, model::message::StatusKind};

use crate::{disk::Disk, world::World};

impl World {
    /// Whether `index` runs and has its log.
    pub(crate) fn remembers(&self, index: usize) -> bool {
        self.status(index).is_some_and(|status| {
            matches!(status.status, StatusKind::Normal | StatusKind::ViewChange)
        })
    }

    /// Whether the group must survive the end of this process: without logs on disk, while not
    /// too many others are without theirs.
    pub(crate) fn can_spare(&self, index: usize) -> bool {
        let needed = self.count() - (self.count() - 1) / 2;
        let others = (0..self.count()).filter(|other| *other != index && self.remembers(*other));
        self.durability == Durability::Full || others.count() >= needed
    }

    /// Whether the disk of `index` may be wiped: not too many are, and not yet back.
    pub(crate) fn can_wipe(&self, index: usize) -> bool {
        let joined = |disk: &Disk| disk.superblock.certificate.is_some();
        let blank = (0..self.count()).filter(|at| *at != index && !joined(&self.disks[*at]));
        blank.count() < (self.count() - 1) / 2 && self.can_spare(index)
    }
}
