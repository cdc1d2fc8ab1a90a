//! A disk in memory that forgets, at a crash, what was not synced, and fails by seed or by hand.

mod content;
pub mod damage;
pub mod faults;
mod platter;

use core::{fmt, time::Duration};
use std::{
    io::{self, IoSlice},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use vr_core::model::types::ReplicaId;
use vr_storage::disk::Disk;

use crate::{
    disk::{
        damage::Damage,
        faults::{DiskFaults, StorageBugs},
        platter::Platter,
    },
    executor::{Executor, lock},
    prng::Prng,
};

/// One replica's directory, as the storage code sees it; clones share it.
///
/// A call takes effect at once and notes how much virtual time it cost; whoever made it waits that
/// long afterwards ([`DiskControl::cost`]). A crash in between finds the disk as it was at
/// that moment: calls that had not begun never happened, and a sync that had not returned is none.
#[derive(Clone)]
pub struct SimDisk {
    platter: Arc<Mutex<Platter>>,
    process: Arc<()>,
    bugs: StorageBugs,
}

impl SimDisk {
    /// The same, used by a storage that does not sync what it should.
    pub(crate) fn with_bugs(self, bugs: StorageBugs) -> Self {
        Self { bugs, ..self }
    }
}

/// The hand that steers a disk; clones steer the same one.
#[derive(Clone)]
pub struct DiskControl {
    platter: Arc<Mutex<Platter>>,
}

impl DiskControl {
    /// An empty disk of `replica`; `rng` is its own stream.
    #[must_use]
    pub fn new(executor: &Executor, replica: ReplicaId, rng: Prng) -> Self {
        let path = PathBuf::from(format!("/sim/r{replica}"));
        Self { platter: Arc::new(Mutex::new(Platter::new(executor.shared(), path, rng))) }
    }

    /// The disk, for one process.
    #[must_use]
    pub fn disk(&self) -> SimDisk {
        SimDisk {
            platter: Arc::clone(&self.platter),
            process: Arc::new(()),
            bugs: StorageBugs::none(),
        }
    }

    /// Changes costs and mishaps.
    pub fn set_faults(&mut self, faults: DiskFaults) {
        lock(&self.platter).faults = faults;
    }

    /// Costs and mishaps.
    #[must_use]
    pub fn faults(&self) -> DiskFaults {
        lock(&self.platter).faults.clone()
    }

    /// The process that used the disk ended, or the machine lost its power: what was not synced is
    /// there in any subset, torn at sectors, as the seed says.
    pub fn crash(&mut self) {
        lock(&self.platter).crash();
    }

    /// Forgets everything.
    pub fn wipe(&mut self) {
        lock(&self.platter).wipe();
    }

    /// Lets the next sync fail.
    pub fn fail_next_sync(&mut self) {
        lock(&self.platter).fail_next_sync = true;
    }

    /// Lets the next write fail.
    pub fn fail_next_write(&mut self) {
        lock(&self.platter).fail_next_write = true;
    }

    /// Ends all mishaps: no call fails any more, and there is room. Ordinary costs stay.
    pub fn mend(&mut self) {
        let mut platter = lock(&self.platter);
        let costs = platter.faults.clone();
        let (write_error, sync_error, slow, capacity) = (0, 0, 0, u64::MAX);
        platter.faults = DiskFaults { write_error, sync_error, slow, capacity, ..costs };
        platter.fail_next_sync = false;
        platter.fail_next_write = false;
    }

    /// Whether a call of the process that uses the disk failed, or will when its time is over, so
    /// that the process will stop.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        lock(&self.platter).failed
    }

    /// Names and lengths of the files, as a process would see them.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        lock(&self.platter).list()
    }

    /// Turns over one bit of what is durable in `name`; false when there is no such byte.
    pub fn flip_bit(&mut self, name: &str, offset: u64, bit: u8) -> bool {
        lock(&self.platter).flip_bit(name, offset, bit)
    }

    /// Takes a file away, for good.
    pub fn remove(&mut self, name: &str) {
        let mut platter = lock(&self.platter);
        let removed = platter.remove(name).and_then(|()| platter.sync_directory());
        platter.was_damaged |= removed.is_ok();
    }

    /// From now on, remembers what it takes to [`damage`](Self::damage) the disk.
    pub fn keep_history(&mut self) {
        lock(&self.platter).history.get_or_insert_default();
    }

    /// Damages something durable in `name` behind which something younger is durable; false when
    /// there is no such thing among the last writes since [`keep_history`](Self::keep_history).
    pub fn damage(&mut self, damage: Damage, name: &str) -> bool {
        lock(&self.platter).damage(damage, name)
    }

    /// Whether anything durable was ever damaged on purpose.
    #[must_use]
    pub fn was_damaged(&self) -> bool {
        lock(&self.platter).was_damaged
    }

    /// Bytes at `offset` of `name` as a process would see them.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such file.
    pub fn peek(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        lock(&self.platter).read_at(name, offset, into)
    }

    /// The virtual time until all calls that were made so far are done.
    #[must_use = "whoever made the calls waits this long"]
    pub fn cost(&self) -> Duration {
        lock(&self.platter).cost()
    }

    /// How many syncs there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        lock(&self.platter).syncs
    }

    /// How many crashes left a write in part.
    #[must_use]
    pub fn torn(&self) -> u64 {
        lock(&self.platter).torn
    }
}

impl Disk for SimDisk {
    fn path(&self) -> PathBuf {
        lock(&self.platter).path.clone()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(lock(&self.platter).list())
    }

    fn create(&self, name: &str, length: u64) -> io::Result<()> {
        lock(&self.platter).create(name, length)
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        lock(&self.platter).read_at(name, offset, into)
    }

    fn write_at(&self, name: &str, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            bytes.extend_from_slice(part);
        }
        lock(&self.platter).write_at(name, offset, bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        if self.bugs.unsynced.is_some_and(|prefix| name.starts_with(prefix)) {
            return Ok(());
        }
        let synced = lock(&self.platter).sync(name);
        if self.bugs.goes_on_after_error { Ok(()) } else { synced }
    }

    fn sync_directory(&self) -> io::Result<()> {
        lock(&self.platter).sync_directory()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        lock(&self.platter).rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.platter).remove(name)
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(lock(&self.platter).try_lock(&self.process))
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimDisk").field(&self.path()).finish()
    }
}

impl fmt::Debug for DiskControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskControl").field("files", &self.files()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u64) -> (Executor, DiskControl, SimDisk) {
        let executor = Executor::new();
        let control = DiskControl::new(&executor, ReplicaId(0), Prng::new(seed));
        let disk = control.disk();
        (executor, control, disk)
    }

    fn write(disk: &SimDisk, offset: u64, bytes: &[u8]) {
        disk.write_at("f", offset, &[IoSlice::new(bytes)]).unwrap();
    }

    fn read(disk: &SimDisk, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let count = disk.read_at("f", 0, &mut bytes).unwrap();
        bytes.truncate(count);
        bytes
    }

    /// A file with one durable sector of ones, and some time to let all that pass.
    fn settled(seed: u64) -> (Executor, DiskControl, SimDisk) {
        let (mut executor, control, disk) = disk(seed);
        disk.create("f", 1024).unwrap();
        write(&disk, 0, &[1; 1024]);
        disk.sync("f").unwrap();
        disk.sync_directory().unwrap();
        executor.advance_to(executor.now() + control.cost());
        (executor, control, disk)
    }

    #[test]
    fn what_is_written_is_read_before_it_is_durable() {
        let (_executor, _control, disk) = settled(1);
        write(&disk, 512, &[2; 4]);
        assert_eq!(&read(&disk, 2000)[508..520], [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1]);
    }

    #[test]
    fn what_was_synced_survives_a_crash() {
        for seed in 0..20 {
            let (mut executor, mut control, disk) = settled(seed);
            write(&disk, 0, &[2; 1024]);
            disk.sync("f").unwrap();
            executor.advance_to(executor.now() + control.cost());
            control.crash();
            assert_eq!(read(&control.disk(), 1024), [2; 1024]);
        }
    }

    #[test]
    fn an_unsynced_write_is_lost_kept_or_torn_at_a_sector() {
        let outcomes: std::collections::BTreeSet<(u8, u8)> = (0..60)
            .map(|seed| {
                let (mut executor, mut control, disk) = settled(seed);
                write(&disk, 0, &[2; 1024]);
                executor.advance_to(executor.now() + control.cost());
                control.crash();
                let bytes = read(&control.disk(), 1024);
                assert!(bytes[..512].iter().all(|byte| *byte == bytes[0]));
                assert!(bytes[512..].iter().all(|byte| *byte == bytes[512]));
                (bytes[0], bytes[512])
            })
            .collect();
        assert_eq!(outcomes.len(), 4);
    }

    #[test]
    fn a_crash_in_the_middle_of_a_sync_takes_it_for_none() {
        let kept = (0..60).filter(|seed| {
            let (_executor, mut control, disk) = settled(*seed);
            write(&disk, 0, &[2; 512]);
            disk.sync("f").unwrap();
            control.crash();
            read(&control.disk(), 1) == [2]
        });
        assert!((1..60).contains(&kept.count()));
    }

    /// Threads of one process wait for each other at the disk: what one made durable is there for good
    /// before anything begins that another one does later.
    #[test]
    fn what_was_synced_first_is_durable_first() {
        for seed in 0..20 {
            let (mut executor, mut control, disk) = settled(seed);
            write(&disk, 0, &[2; 512]);
            disk.sync("f").unwrap();
            let first = control.cost();
            disk.sync_directory().unwrap();
            assert!(control.cost() > first);
            executor.advance_to(executor.now() + first);
            control.crash();
            assert_eq!(read(&control.disk(), 1), [2]);
        }
    }

    #[test]
    fn a_call_that_had_not_begun_when_the_disk_crashed_never_happened() {
        for seed in 0..20 {
            let (_executor, mut control, disk) = settled(seed);
            disk.sync("f").unwrap();
            write(&disk, 0, &[2; 512]);
            control.crash();
            assert_eq!(read(&control.disk(), 1), [1]);
        }
    }

    #[test]
    fn a_name_is_durable_after_the_directory_was_synced() {
        let survives = |seed| {
            let (mut executor, mut control, disk) = settled(seed);
            disk.rename("f", "g").unwrap();
            executor.advance_to(executor.now() + control.cost());
            control.crash();
            control.files().first().unwrap().0.clone()
        };
        let names: std::collections::BTreeSet<String> = (0..30).map(survives).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["f", "g"]);
    }

    #[test]
    fn a_failed_sync_says_so_and_the_next_one_does_not_make_up_for_it() {
        let lost = (0..40).any(|seed| {
            let (mut executor, mut control, disk) = settled(seed);
            write(&disk, 0, &[2; 512]);
            control.fail_next_sync();
            assert!(disk.sync("f").is_err());
            disk.sync("f").unwrap();
            executor.advance_to(executor.now() + control.cost());
            control.crash();
            read(&control.disk(), 1) == [1]
        });
        assert!(lost);
    }

    #[test]
    fn a_full_disk_refuses_to_grow() {
        let (_executor, mut control, disk) = settled(1);
        control.set_faults(DiskFaults { capacity: 2000, ..DiskFaults::none() });
        let error = disk.create("g", 1000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        write(&disk, 0, &[3; 1024]);
        assert!(disk.write_at("f", 1024, &[IoSlice::new(&[0; 1000])]).is_err());
    }

    #[test]
    fn the_lock_ends_with_the_process() {
        let (_executor, mut control, disk) = settled(1);
        let other = control.disk();
        assert!(disk.try_lock().unwrap() && disk.try_lock().unwrap());
        assert!(!other.try_lock().unwrap());
        drop(disk);
        assert!(other.try_lock().unwrap());
        control.crash();
        assert!(control.disk().try_lock().unwrap());
    }
}
