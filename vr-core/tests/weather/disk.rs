//! The disk of one engine: a superblock and a log, written in batches that a crash may cut short.

use vr_core::{
    WriteBatch,
    model::{durable::Superblock, entry::Entry},
};

use crate::world::op;

pub(crate) struct Disk {
    pub(crate) superblock: Superblock,
    pub(crate) entries: Vec<Entry>,
}

impl Disk {
    pub(crate) fn write(&mut self, batch: WriteBatch, whole: bool) {
        if let Some(after) = batch.cut {
            self.entries.retain(|entry| entry.header.op_number <= after);
        }
        for entry in batch.entries() {
            assert_eq!(entry.header.op_number, op(self.entries.len() + 1), "no gap on disk");
            let head = self.entries.last().map(|last| last.header.checksum);
            assert!(head.is_none_or(|head| head == entry.header.parent), "a chain on disk");
            self.entries.push(entry.clone());
        }
        if let Some(superblock) = batch.superblock.filter(|_| whole) {
            assert!(superblock.view >= self.superblock.view, "promises are never taken back");
            assert!(superblock.log_view >= self.superblock.log_view, "log views never decrease");
            assert!(superblock.log_view <= superblock.view, "no log beyond the promise");
            self.superblock = superblock;
        }
    }
}
