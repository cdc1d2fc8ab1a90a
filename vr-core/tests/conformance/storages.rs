//! A storage that is right, and the same with one mistake each, which the suite must name.

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use serde::{Deserialize, Serialize};
use vr_core::{
    LogReader, LogWriter, MemoryCheckpoints, OpNumber, Opened, Recovered, Storage, StorageError,
    WriteBatch,
    conformance::{
        report::{Report, Verdict},
        storage::{
            cases,
            harness::{Capability, Crash, Damage, Harness, Region, Trouble},
            run, run_case,
        },
    },
    model::{
        durable::{Identity, Superblock},
        encoding::entry::{decode_header, encode_header},
        entry::Entry,
        types::Checksum,
    },
    ports::storage::Anchor,
};

use crate::device::{DEVICE_BYTES, Device, SECTOR_BYTES};

/// What is wrong with a [`Journal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    SyncsNothing,
    ChecksNothing,
    KeepsTorn,
    KeepsUnsynced,
    PassesOverDamage,
    TakesAnyLength,
    IgnoresCuts,
    KeepsFirstSuperblock,
    SuperblockFirst,
    TakesAnyBatch,
    LetsAnyoneIn,
    RedrawsDisk,
    SecondChance,
    VagueWhenFull,
    CountsPayloads,
    NothingAboveLimit,
    ReleasesAnything,
    AppendsRepairs,
}

/// A storage written from the documentation of `Storage` alone: a journal on one device.
///
/// The first sector says whose it is, and never changes. Each batch is one record: checksum,
/// number, length, and what `postcard` makes of it, at the next sector. A record that does not
/// verify is torn if it is the last thing on the device; otherwise the storage is damaged, which
/// is all that it can tell.
#[derive(Clone, Debug)]
struct Journal {
    flaw: Flaw,
    device: Arc<Mutex<Device>>,
}

/// A batch as it is written.
#[derive(Serialize, Deserialize)]
struct Record {
    cut: Option<OpNumber>,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    repairs: Vec<(Vec<u8>, Vec<u8>)>,
    superblock: Option<Superblock>,
    release: Option<OpNumber>,
}

/// What all records together come to.
#[derive(Debug)]
struct State {
    superblock: Superblock,
    entries: BTreeMap<OpNumber, Entry>,
}

/// Checksum, number, length.
const RECORD_HEADER_BYTES: usize = 16 + 8 + 4;

fn to_bytes<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entry = |entry: &Entry| (encode_header(&entry.header).to_vec(), entry.payload.to_vec());
    entries.map(entry).collect()
}

fn from_bytes(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Option<Vec<Entry>> {
    let entry = |(header, payload): (Vec<u8>, Vec<u8>)| {
        Some(Entry { header: decode_header(&header).ok()?, payload: Bytes::from(payload) })
    };
    entries.into_iter().map(entry).collect()
}

/// A record with its checksum, filled up to a whole number of sectors.
fn sealed(number: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let covered = [&number.to_le_bytes()[..], &length.to_le_bytes(), body].concat();
    let mut bytes = [&Checksum::of(&covered).0.to_le_bytes()[..], &covered].concat();
    bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
    bytes
}

/// Number and body of the record that `bytes` begin with, if it verifies.
fn unsealed(bytes: &[u8], flaw: Flaw) -> Option<(u64, &[u8])> {
    let (checksum, covered) = bytes.split_first_chunk::<16>()?;
    let (number, rest) = covered.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let body = rest.get(..length)?;
    let covered = covered.get(..12 + length)?;
    let checks = Checksum::of(covered).0 == u128::from_le_bytes(*checksum);
    let is_there = checks || (flaw == Flaw::ChecksNothing && length > 0);
    is_there.then_some((u64::from_le_bytes(*number), body))
}

fn path() -> PathBuf {
    PathBuf::from("device")
}

fn io(action: &'static str, source: Error) -> StorageError {
    if source.kind() == ErrorKind::StorageFull {
        return StorageError::Full { path: path() };
    }
    StorageError::Io { action, path: path(), source }
}

fn corrupt(what: &str, at: usize) -> StorageError {
    let at = u64::try_from(at).unwrap();
    StorageError::Corrupt { what: what.to_owned(), path: path(), at }
}

impl State {
    fn checkpoint(&self) -> Anchor {
        let checkpoint = self.superblock.checkpoint;
        Anchor { op_number: checkpoint.op_number, checksum: checkpoint.checksum }
    }

    fn end(&self) -> Anchor {
        let last = self.entries.last_key_value().map(|(_, entry)| Anchor::of(&entry.header));
        last.unwrap_or_default().max(self.checkpoint())
    }

    /// The entry that the batch's first one must be the next of.
    fn base(&self, batch: &WriteBatch) -> Option<Anchor> {
        let Some(cut) = batch.cut else { return Some(self.end()) };
        let entry = self.entries.get(&cut).map(|entry| Anchor::of(&entry.header));
        entry.or_else(|| Some(self.checkpoint()).filter(|base| base.op_number == cut))
    }

    fn follows(&self, batch: &WriteBatch) -> bool {
        let Some(mut head) = self.base(batch) else { return false };
        batch.entries().all(|entry| {
            let is_next = Anchor::below(&entry.header) == head;
            head = Anchor::of(&entry.header);
            is_next
        })
    }

    fn apply(&mut self, batch: WriteBatch, flaw: Flaw) {
        if let Some(cut) = batch.cut.filter(|_| flaw != Flaw::IgnoresCuts) {
            self.entries.split_off(&cut.next());
        }
        let entries = batch.entries().cloned();
        self.entries.extend(entries.map(|entry| (entry.header.op_number, entry)));
        for entry in batch.repairs {
            let op_number = entry.header.op_number;
            if self.entries.contains_key(&op_number) || flaw == Flaw::AppendsRepairs {
                self.entries.insert(op_number, entry);
            }
        }
        let is_fixed = flaw == Flaw::KeepsFirstSuperblock && self.superblock.certificate.is_some();
        if let Some(superblock) = batch.superblock.filter(|_| !is_fixed) {
            self.superblock = superblock;
        }
        let mut releasable = self.superblock.checkpoint.op_number;
        if flaw == Flaw::ReleasesAnything {
            releasable = OpNumber(u64::MAX);
        }
        if let Some(release) = batch.release {
            self.entries = self.entries.split_off(&release.min(releasable).next());
        }
    }
}

impl Record {
    fn of(batch: &WriteBatch) -> Self {
        Self {
            cut: batch.cut,
            entries: to_bytes(batch.entries()),
            repairs: to_bytes(batch.repairs.iter()),
            superblock: batch.superblock.clone(),
            release: batch.release,
        }
    }

    fn into_batch(self) -> Option<WriteBatch> {
        let (entries, repairs) = (from_bytes(self.entries)?, from_bytes(self.repairs)?);
        let Self { cut, superblock, release, .. } = self;
        Some(WriteBatch { cut, repairs, superblock, release, ..WriteBatch::of(entries) })
    }
}

impl Journal {
    /// Whose it is, formatting what is blank.
    fn owner(&self, device: &mut Device, identity: &Identity) -> Result<Superblock, StorageError> {
        if device.read().len() != DEVICE_BYTES && self.flaw != Flaw::TakesAnyLength {
            return Err(corrupt("the end of the device", device.read().len()));
        }
        let mut mine = Superblock::blank(identity);
        if device.used() == 0 {
            let first = sealed(0, &postcard::to_allocvec(&mine).unwrap());
            device.write(0, &first).map_err(|source| io("write", source))?;
            device.sync().map_err(|source| io("sync", source))?;
            return Ok(mine);
        }
        let first = unsealed(device.read(), self.flaw);
        let found = first.and_then(|(_, body)| postcard::from_bytes::<Superblock>(body).ok());
        let found = found.ok_or_else(|| corrupt("the first sector", 0))?;
        if self.flaw != Flaw::RedrawsDisk {
            mine.disk = found.disk;
        }
        if found.replica == mine.replica || self.flaw != Flaw::LetsAnyoneIn {
            let named = |of: &Superblock| {
                let Superblock { replica, group_name, members, durability, .. } = of;
                format!("replica {replica} of {group_name:?}, {members}, {durability}")
            };
            let found = Superblock { disk: mine.disk, ..found };
            if found != mine {
                let (found, expected) = (named(&found), named(&mine));
                return Err(StorageError::Foreign { path: path(), found, expected });
            }
        }
        Ok(mine)
    }

    /// Cuts off what is behind the last record; how many bytes that were.
    fn cut_off(&self, device: &mut Device, at: usize, next: u64) -> Result<u64, StorageError> {
        let rest = device.used().saturating_sub(at);
        if rest == 0 {
            return Ok(0);
        }
        let mut sectors = (at..at + rest).step_by(SECTOR_BYTES);
        let is_later = |at: usize| {
            let record = unsealed(&device.read()[at..], Flaw::None);
            record.is_some_and(|(number, _)| number >= next)
        };
        if self.flaw != Flaw::PassesOverDamage && sectors.any(is_later) {
            return Err(corrupt("a record", at));
        }
        if self.flaw != Flaw::KeepsTorn {
            let zeros = vec![0; rest.next_multiple_of(SECTOR_BYTES)];
            device.write(at, &zeros).map_err(|source| io("write", source))?;
            device.sync().map_err(|source| io("sync", source))?;
        }
        Ok(if self.flaw == Flaw::PassesOverDamage { 0 } else { u64::try_from(rest).unwrap() })
    }
}

#[async_trait]
impl Storage for Journal {
    async fn open(self: Box<Self>, identity: &Identity) -> Result<Opened, StorageError> {
        let (flaw, mut device) = (self.flaw, self.device.lock().unwrap());
        let superblock = self.owner(&mut device, identity)?;
        let mut state = State { superblock, entries: BTreeMap::new() };
        let (mut at, mut next, mut last) = (SECTOR_BYTES, 1, None);
        while let Some((number, body)) = unsealed(&device.read()[at..], flaw) {
            let record = postcard::from_bytes(body).ok().filter(|_| number == next);
            let Some(batch) = record.and_then(Record::into_batch) else { break };
            state.apply(batch, flaw);
            last = Some((at, sealed(number, body)));
            at += (RECORD_HEADER_BYTES + body.len()).next_multiple_of(SECTOR_BYTES);
            next += 1;
        }
        let torn_bytes = self.cut_off(&mut device, at, next)?;
        // What was read may not be on the device: the last record was acknowledged to nobody if its
        // sync failed, and from now on it is.
        if let Some((at, bytes)) = last.filter(|_| flaw != Flaw::KeepsUnsynced) {
            device.write(at, &bytes).map_err(|source| io("write", source))?;
            device.sync().map_err(|source| io("sync", source))?;
        }
        let above = state.superblock.checkpoint.op_number.next();
        let headers = state.entries.range(above..).map(|(_, entry)| entry.header).collect();
        let recovered = Recovered::whole(state.superblock.clone(), headers);
        let recovered = Recovered { torn_bytes, ..recovered };
        let state = Arc::new(Mutex::new(state));
        let reader = Box::new(Reader { flaw, state: Arc::clone(&state) });
        let device = Arc::clone(&self.device);
        let writer = Box::new(Writer { flaw, state, device, at, next, is_poisoned: false });
        let checkpoints = Arc::new(MemoryCheckpoints::new());
        Ok(Opened { recovered, writer, reader, checkpoints })
    }
}

#[derive(Debug)]
struct Writer {
    flaw: Flaw,
    state: Arc<Mutex<State>>,
    device: Arc<Mutex<Device>>,
    /// Where the next record starts.
    at: usize,
    /// Its number.
    next: u64,
    is_poisoned: bool,
}

impl Writer {
    fn append(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        let bytes = sealed(self.next, &postcard::to_allocvec(&Record::of(batch)).unwrap());
        let mut device = self.device.lock().unwrap();
        let written = device.write(self.at, &bytes);
        let is_vague = self.flaw == Flaw::VagueWhenFull;
        let written = written.map_err(|why| if is_vague { Error::other(why) } else { why });
        written.map_err(|source| io("write", source))?;
        if self.flaw != Flaw::SyncsNothing {
            device.sync().map_err(|source| io("sync", source))?;
        }
        self.at += bytes.len();
        self.next += 1;
        Ok(())
    }
}

#[async_trait]
impl LogWriter for Writer {
    async fn write(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
        if self.is_poisoned {
            return Err(StorageError::Poisoned);
        }
        if batch.is_empty() {
            return Ok(());
        }
        if self.flaw != Flaw::TakesAnyBatch && !self.state.lock().unwrap().follows(&batch) {
            return Err(io("write", Error::new(ErrorKind::InvalidInput, "it does not follow")));
        }
        let superblock = batch.superblock.clone();
        let mut written = Ok(());
        if superblock.is_some() && self.flaw == Flaw::SuperblockFirst {
            written = self.append(&WriteBatch { superblock, ..WriteBatch::default() });
        }
        let written = written.and_then(|()| self.append(&batch));
        self.is_poisoned = written.is_err() && self.flaw != Flaw::SecondChance;
        written?;
        self.state.lock().unwrap().apply(batch, self.flaw);
        Ok(())
    }
}

#[derive(Debug)]
struct Reader {
    flaw: Flaw,
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl LogReader for Reader {
    async fn entries(
        &self,
        from: OpNumber,
        through: OpNumber,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let state = self.state.lock().unwrap();
        let missing = Err(StorageError::Missing { op_number: from });
        if from > through || !state.entries.contains_key(&from) {
            return missing;
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (_, entry) in state.entries.range(from..=through) {
            let counts_all = self.flaw != Flaw::CountsPayloads;
            let payload_bytes = u64::from(entry.header.payload_length);
            bytes += if counts_all { entry.header.entry_bytes() } else { payload_bytes };
            let is_enough = !entries.is_empty() || self.flaw == Flaw::NothingAboveLimit;
            if bytes > bytes_max && is_enough {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

/// The one device of the suite, and what is wrong with those who use it.
struct Shelf(Journal);

impl Shelf {
    fn new(flaw: Flaw) -> Self {
        Self(Journal { flaw, device: Arc::new(Mutex::new(Device::new())) })
    }
}

impl Harness for Shelf {
    fn fresh(&mut self) {
        *self = Self::new(self.0.flaw);
    }

    fn storage(&mut self) -> Box<dyn Storage> {
        Box::new(self.0.clone())
    }

    fn covers(&self, capability: Capability) -> bool {
        !NOT_COVERED.contains(&capability)
    }

    fn die_after(&mut self, changes: u64) {
        self.0.device.lock().unwrap().die_after(changes);
    }

    fn restart(&mut self, crash: Crash) {
        self.0.device.lock().unwrap().end(crash);
    }

    fn trouble(&mut self, trouble: Option<Trouble>) {
        self.0.device.lock().unwrap().trouble = trouble;
    }

    fn regions(&mut self) -> Vec<Region> {
        let bytes = u64::try_from(self.0.device.lock().unwrap().used()).unwrap();
        vec![Region { name: "device".to_owned(), bytes }]
    }

    fn damage(&mut self, _: &str, damage: Damage) {
        self.0.device.lock().unwrap().damage(damage);
    }
}

/// What such a storage does not promise: it has no lock and no markers, and reads from memory.
const NOT_COVERED: [Capability; 4] = [
    Capability::ExclusiveOpen,
    Capability::ShortReads,
    Capability::DamageWhileOpen,
    Capability::IdleMarker,
];

fn report(flaw: Flaw) -> Report {
    block_on(run(&mut Shelf::new(flaw)))
}

#[test]
fn a_storage_written_from_the_documentation_passes() {
    let report = report(Flaw::None);
    report.assert_passed();
    assert_eq!(report.passed().len(), cases().count() - NOT_COVERED.len(), "{report}");
}

#[test]
fn each_mistake_is_named() {
    let mistakes = [
        (Flaw::SyncsNothing, "what_was_acknowledged_survives_a_power_cut"),
        (Flaw::ChecksNothing, "a_power_cut_in_a_large_append"),
        (Flaw::KeepsTorn, "a_torn_tail_is_dropped_once"),
        (Flaw::KeepsUnsynced, "what_a_failed_sync_left_is_durable_once_returned"),
        (Flaw::PassesOverDamage, "no_flipped_bit_is_hidden"),
        (Flaw::PassesOverDamage, "no_zeroed_sector_is_hidden"),
        (Flaw::TakesAnyLength, "no_truncation_is_hidden"),
        (Flaw::IgnoresCuts, "a_cut_to_each_position_is_kept"),
        (Flaw::KeepsFirstSuperblock, "the_last_superblock_counts"),
        (Flaw::SuperblockFirst, "a_kill_in_an_append_with_a_promise"),
        (Flaw::TakesAnyBatch, "a_gap_is_refused"),
        (Flaw::LetsAnyoneIn, "another_replica_is_refused"),
        (Flaw::RedrawsDisk, "the_disk_id_that_was_drawn_first_stays"),
        (Flaw::SecondChance, "after_a_failed_sync_every_call_fails"),
        (Flaw::VagueWhenFull, "a_full_disk_is_said"),
        (Flaw::CountsPayloads, "a_limit_counts_headers_too"),
        (Flaw::NothingAboveLimit, "a_read_returns_at_least_one_entry"),
        (Flaw::ReleasesAnything, "a_release_beyond_the_checkpoint_keeps_the_log"),
        (Flaw::AppendsRepairs, "a_repair_of_what_is_gone_is_left_out"),
    ];
    for (flaw, case) in mistakes {
        let report = block_on(run_case(&mut Shelf::new(flaw), case));
        let verdict = report.verdict(case);
        assert!(matches!(verdict, Some(Verdict::Failed(_))), "{flaw:?}, {case}: {report}");
    }
}
