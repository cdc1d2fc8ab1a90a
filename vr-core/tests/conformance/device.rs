//! A device whose power can be cut: what was not synced may be there, torn, or not.

use std::{
    collections::BTreeSet,
    io::{Error, ErrorKind, Result},
};

use vr_core::conformance::storage::harness::{Crash, Damage, Trouble};

/// What is written whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Bytes of a device.
pub(crate) const DEVICE_BYTES: usize = 512 << 10;

/// Bytes in memory that behave as those of a disk behind the system's cache.
#[derive(Debug)]
pub(crate) struct Device {
    /// What a read shows.
    shown: Vec<u8>,
    /// What is there after a loss of power.
    durable: Vec<u8>,
    /// Sectors that the next sync makes durable.
    unsynced: BTreeSet<usize>,
    /// How many more changes succeed.
    fuse: Option<u64>,
    pub(crate) trouble: Option<Trouble>,
}

impl Device {
    pub(crate) fn new() -> Self {
        let (shown, durable) = (vec![0; DEVICE_BYTES], vec![0; DEVICE_BYTES]);
        Self { shown, durable, unsynced: BTreeSet::new(), fuse: None, trouble: None }
    }

    pub(crate) fn read(&self) -> &[u8] {
        &self.shown
    }

    /// Bytes up to the last that is not zero.
    pub(crate) fn used(&self) -> usize {
        self.shown.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let end = at + bytes.len();
        let is_full = self.trouble == Some(Trouble::Full) && end > self.used();
        if is_full || end > self.shown.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        if self.trouble == Some(Trouble::FailedWrites) {
            return Err(Error::other("the write failed"));
        }
        let survived = self.burn();
        // The change in which it dies is done by half.
        let done = if survived.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.shown[at..at + done].copy_from_slice(&bytes[..done]);
        self.unsynced.extend((at..at + done).map(|at| at / SECTOR_BYTES));
        survived
    }

    pub(crate) fn sync(&mut self) -> Result<()> {
        self.burn()?;
        let failed = self.trouble == Some(Trouble::FailedSyncs);
        // A system that failed to write a page does not try again, and goes on showing it.
        for (number, sector) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            if !failed || number % 2 == 0 {
                self.settle(sector);
            }
        }
        if failed { Err(Error::other("the sync failed")) } else { Ok(()) }
    }

    fn settle(&mut self, sector: usize) {
        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        self.durable[range.clone()].copy_from_slice(&self.shown[range]);
    }

    fn burn(&mut self) -> Result<()> {
        match &mut self.fuse {
            Some(0) => Err(Error::other("the process is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn die_after(&mut self, changes: u64) {
        self.fuse = Some(changes);
    }

    pub(crate) fn end(&mut self, crash: Crash) {
        self.fuse = None;
        let Crash::PowerCut { seed } = crash else { return };
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for sector in std::mem::take(&mut self.unsynced) {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            if dice.is_multiple_of(2) {
                self.settle(sector);
            }
        }
        self.shown.clone_from(&self.durable);
    }

    pub(crate) fn damage(&mut self, damage: Damage) {
        let place = |at: u64| usize::try_from(at).unwrap();
        match damage {
            Damage::Flip { at, bit } => self.shown[place(at)] ^= 1 << bit,
            Damage::Zero { at, bytes } => self.shown[place(at)..place(at + bytes)].fill(0),
            Damage::Truncate { bytes } => self.shown.truncate(place(bytes)),
        }
        self.durable.clone_from(&self.shown);
    }
}
