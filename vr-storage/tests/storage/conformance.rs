//! The storages of this crate pass the suite that every storage must pass.

use std::io::ErrorKind;

use async_trait::async_trait;
use futures::executor::block_on;
use std::sync::Arc;

use vr_core::{
    LogReader, LogWriter, OpNumber, Opened, Storage, StorageError, WriteBatch,
    conformance::storage::{
        cases,
        harness::{Capability, Crash, Damage, Harness, Region, Trouble},
        run,
    },
    model::{durable::Identity, entry::Entry},
};
use vr_storage::{FileStorage, MemoryStorage, Store, StoreOptions, StoreReader};

use crate::{
    faulty_disk::{Call, Dice, FaultyDisk},
    history::options,
};

/// The store of files, on the calling thread.
struct Inline(FaultyDisk);

#[derive(Debug)]
struct Writer(Store<FaultyDisk>);

#[derive(Debug)]
struct Reader(StoreReader<FaultyDisk>);

#[async_trait]
impl Storage for Inline {
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError> {
        let (recovered, store) = Store::open(self.0, identity, options())?;
        let reader = Box::new(Reader(store.reader()));
        let checkpoints = Arc::new(store.checkpoints());
        Ok(Opened { recovered, writer: Box::new(Writer(store)), reader, checkpoints })
    }
}

#[async_trait]
impl LogWriter for Writer {
    async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
        self.0.write(&batch)
    }

    async fn mark_idle(&mut self) -> Result<(), StorageError> {
        self.0.mark_idle()
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn entries(
        &self,
        from: OpNumber,
        through: OpNumber,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.0.entries(from, through, bytes_max)
    }
}

/// Files on a disk that dies, fails and rots on demand.
#[derive(Default)]
struct Faulty {
    disk: FaultyDisk,
    fuse: Option<u64>,
    trouble: Option<Trouble>,
}

impl Harness for Faulty {
    fn fresh(&mut self) {
        *self = Self::default();
    }

    fn storage(&mut self) -> Box<dyn Storage> {
        self.disk = self.disk.after_kill();
        if let Some(changes) = self.fuse {
            self.disk.die_after(changes);
        }
        self.trouble(self.trouble);
        Box::new(Inline(self.disk.clone()))
    }

    fn covers(&self, capability: Capability) -> bool {
        !matches!(capability, Capability::ExclusiveOpen | Capability::ShortReads)
    }

    fn die_after(&mut self, changes: u64) {
        self.fuse = Some(changes);
        self.disk.die_after(changes);
    }

    fn restart(&mut self, crash: Crash) {
        self.fuse = None;
        self.disk = match crash {
            Crash::Kill => self.disk.after_kill(),
            Crash::PowerCut { seed } => self.disk.after_power_cut(&mut Dice(seed)),
        };
    }

    fn trouble(&mut self, trouble: Option<Trouble>) {
        self.trouble = trouble;
        match trouble {
            None | Some(Trouble::ShortReads) => {}
            Some(Trouble::Full) => self.disk.fail(Call::Create, ErrorKind::StorageFull),
            Some(Trouble::FailedWrites) => self.disk.fail(Call::Write, ErrorKind::Other),
            Some(Trouble::FailedSyncs) => self.disk.fail(Call::Sync, ErrorKind::Other),
        }
    }

    fn regions(&mut self) -> Vec<Region> {
        let used = |name: &String| {
            let bytes = self.disk.bytes(name);
            bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
        };
        let names = self.disk.names().into_iter();
        names.map(|name| Region { bytes: u64::try_from(used(&name)).unwrap(), name }).collect()
    }

    fn damage(&mut self, region: &str, damage: Damage) {
        let mut bytes = self.disk.bytes(region);
        let place = |at: u64| usize::try_from(at).unwrap();
        match damage {
            Damage::Flip { at, bit } => bytes[place(at)] ^= 1 << bit,
            Damage::Zero { at, bytes: count } => bytes[place(at)..place(at + count)].fill(0),
            Damage::Truncate { bytes: count } => bytes.truncate(place(count)),
        }
        self.disk.set_bytes(region, bytes);
    }
}

#[test]
fn files_on_a_disk_that_fails_conform() {
    let report = block_on(run(&mut Faulty::default()));
    println!("{report}");
    report.assert_passed();
    assert_eq!(report.not_covered(), ["a_second_open_is_refused", "short_reads_change_nothing"]);
}

/// Storage in memory, which outlives its processes.
#[derive(Default)]
struct Memory(MemoryStorage);

impl Harness for Memory {
    fn fresh(&mut self) {
        self.0 = MemoryStorage::new();
    }

    fn storage(&mut self) -> Box<dyn Storage> {
        Box::new(self.0.clone())
    }

    fn covers(&self, capability: Capability) -> bool {
        capability == Capability::ExclusiveOpen
    }
}

#[test]
fn memory_conforms() {
    let report = block_on(run(&mut Memory::default()));
    println!("{report}");
    report.assert_passed();
}

/// A directory of this machine, and the bytes that the node's own thread writes at most.
struct Directory(tempfile::TempDir, u64);

impl Harness for Directory {
    fn fresh(&mut self) {
        self.0 = tempfile::tempdir().unwrap();
    }

    fn storage(&mut self) -> Box<dyn Storage> {
        let options = StoreOptions::default().with_segment_bytes(64 << 10);
        Box::new(FileStorage::new(self.0.path()).with_options(options).with_inline_writes(self.1))
    }

    fn covers(&self, capability: Capability) -> bool {
        capability == Capability::ExclusiveOpen
    }
}

#[test]
fn files_in_a_directory_conform() {
    for inline in [0, 100, u64::MAX] {
        let report = block_on(run(&mut Directory(tempfile::tempdir().unwrap(), inline)));
        println!("{report}");
        report.assert_passed();
    }
}

#[test]
fn the_suite_has_cases_enough() {
    assert!(cases().count() >= 60, "{} cases", cases().count());
}
