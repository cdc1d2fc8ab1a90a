//! What a simulated disk consists of: durable files, and the changes that are not durable yet.

use core::time::Duration;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Weak},
};

use vr_core::model::time::Instant;

use crate::{
    disk::{
        content::{Content, SECTOR_BYTES, length_of},
        damage::{Damage, History},
        faults::DiskFaults,
    },
    executor::Shared,
    prng::Prng,
};

/// What any call costs, besides syncs.
const CALL_COST: Duration = Duration::from_micros(5);

pub(crate) struct Platter {
    shared: Arc<Shared>,
    rng: Prng,
    pub(crate) path: PathBuf,
    pub(crate) faults: DiskFaults,
    free_at: Instant,
    pub(crate) fail_next_sync: bool,
    /// Whether a call of the process that uses the disk failed, or will when its time is over.
    pub(crate) failed: bool,
    pub(crate) fail_next_write: bool,
    /// Something durable was damaged on purpose.
    pub(crate) was_damaged: bool,
    pub(crate) syncs: u64,
    pub(crate) torn: u64,
    /// What can be damaged; `None` on a disk that is not to be.
    pub(crate) history: Option<History>,
    /// Durable contents and names.
    files: BTreeMap<FileId, Content>,
    durable_names: BTreeMap<String, FileId>,
    /// Names and lengths as a process sees them.
    names: BTreeMap<String, FileId>,
    lengths: BTreeMap<FileId, u64>,
    /// What was done and is not known to be durable, in order.
    journal: VecDeque<Change>,
    next: FileId,
    holder: Weak<()>,
}

type FileId = u64;

#[derive(Debug)]
struct Change {
    /// When the call began; it has not happened before.
    at: Instant,
    /// When a sync that covers it has returned.
    durable_at: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    Fill { file: FileId, length: u64 },
    Write { file: FileId, offset: u64, bytes: Vec<u8> },
    Link { name: String, file: FileId },
    Rename { from: String, to: String, file: FileId },
    Remove { name: String },
}

/// What a crash leaves of the changes that were not durable.
#[derive(Clone, Copy)]
enum Leftover {
    Nothing,
    Everything,
    /// Everything before some point, nothing behind it.
    Prefix,
    Any,
}

impl What {
    const fn file(&self) -> Option<FileId> {
        match self {
            Self::Fill { file, .. } | Self::Write { file, .. } => Some(*file),
            Self::Link { .. } | Self::Rename { .. } | Self::Remove { .. } => None,
        }
    }
}

impl Platter {
    pub(crate) fn new(shared: Arc<Shared>, path: PathBuf, rng: Prng) -> Self {
        Self {
            shared,
            rng,
            path,
            faults: DiskFaults::none(),
            free_at: Instant::ZERO,
            fail_next_sync: false,
            failed: false,
            fail_next_write: false,
            was_damaged: false,
            syncs: 0,
            torn: 0,
            history: None,
            files: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            names: BTreeMap::new(),
            lengths: BTreeMap::new(),
            journal: VecDeque::new(),
            next: 0,
            holder: Weak::new(),
        }
    }

    /// When the call that is made now begins, seen from outside: behind every call that was made
    /// before, because whoever makes it may know how that ended.
    fn time(&self) -> Instant {
        self.free_at.max(self.shared.now())
    }

    /// The disk is busy with a call for so long.
    fn spend(&mut self, cost: Duration) {
        self.free_at = self.time() + cost;
    }

    /// How long whoever made the calls so far waits for them.
    pub(crate) fn cost(&self) -> Duration {
        self.time().since(self.shared.now())
    }

    fn change(&mut self, what: What) {
        let at = self.time();
        self.spend(CALL_COST);
        self.journal.push_back(Change { at, durable_at: Instant::FAR_FUTURE, what });
    }

    fn file(&self, name: &str) -> io::Result<FileId> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn reserve(&mut self, file: Option<FileId>, length: u64) -> io::Result<()> {
        let others = self.lengths.iter().filter(|(other, _)| Some(**other) != file);
        let used: u64 = others.map(|(_, length)| *length).sum();
        if used.saturating_add(length) > self.faults.capacity {
            self.failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        let length_of = |file| self.lengths.get(file).copied().unwrap_or(0);
        self.names.iter().map(|(name, file)| (name.clone(), length_of(file))).collect()
    }

    pub(crate) fn create(&mut self, name: &str, length: u64) -> io::Result<()> {
        let known = self.names.get(name).copied();
        self.reserve(known, length)?;
        let file = known.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        if known.is_none() {
            self.names.insert(name.to_owned(), file);
            self.change(What::Link { name: name.to_owned(), file });
        }
        self.lengths.insert(file, length);
        self.change(What::Fill { file, length });
        Ok(())
    }

    pub(crate) fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.file(name)?;
        let length = self.lengths.get(&file).copied().unwrap_or(0);
        let there = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = there.min(into.len());
        let Some(into) = into.get_mut(..count) else { return Ok(0) };
        into.fill(0);
        if let Some(content) = self.files.get(&file) {
            content.read(offset, into);
        }
        for change in &self.journal {
            match &change.what {
                What::Fill { file: filled, .. } if *filled == file => into.fill(0),
                What::Write { file: written, offset: at, bytes } if *written == file => {
                    overlay(offset, into, *at, bytes);
                }
                What::Fill { .. }
                | What::Write { .. }
                | What::Link { .. }
                | What::Rename { .. }
                | What::Remove { .. } => {}
            }
        }
        Ok(count)
    }

    pub(crate) fn write_at(&mut self, name: &str, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        let file = self.file(name)?;
        let end = offset.saturating_add(length_of(&bytes));
        let length = self.lengths.get(&file).copied().unwrap_or(0).max(end);
        self.reserve(Some(file), length)?;
        let by_chance = self.rng.chance(self.faults.write_error);
        if core::mem::take(&mut self.fail_next_write) || by_chance {
            self.failed = true;
            return Err(io::Error::other("injected write error"));
        }
        self.lengths.insert(file, length);
        self.change(What::Write { file, offset, bytes });
        Ok(())
    }

    pub(crate) fn sync(&mut self, name: &str) -> io::Result<()> {
        let file = self.file(name)?;
        self.sync_changes(Some(file))
    }

    pub(crate) fn sync_directory(&mut self) -> io::Result<()> {
        self.sync_changes(None)
    }

    fn sync_changes(&mut self, file: Option<FileId>) -> io::Result<()> {
        self.settle();
        self.syncs += 1;
        let cost = self.faults.sync_cost(&mut self.rng);
        self.spend(cost);
        let by_chance = self.rng.chance(self.faults.sync_error);
        if core::mem::take(&mut self.fail_next_sync) || by_chance {
            self.abandon(file);
            self.failed = true;
            return Err(io::Error::other("injected sync error"));
        }
        let done = self.time();
        for change in self.journal.iter_mut().filter(|change| change.what.file() == file) {
            change.durable_at = change.durable_at.min(done);
        }
        Ok(())
    }

    /// After a failed sync nobody knows what became of the changes, and no later sync cares.
    fn abandon(&mut self, file: Option<FileId>) {
        for change in core::mem::take(&mut self.journal) {
            if change.what.file() == file && change.durable_at == Instant::FAR_FUTURE {
                self.leave(change.what, Leftover::Any);
            } else {
                self.journal.push_back(change);
            }
        }
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.file(from)?;
        self.names.remove(from);
        self.names.insert(to.to_owned(), file);
        self.change(What::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &str) -> io::Result<()> {
        let file = self.file(name)?;
        self.names.remove(name);
        self.lengths.remove(&file);
        self.change(What::Remove { name: name.to_owned() });
        Ok(())
    }

    pub(crate) fn try_lock(&mut self, process: &Arc<()>) -> bool {
        match self.holder.upgrade() {
            Some(holder) if !Arc::ptr_eq(&holder, process) => false,
            Some(_) => true,
            None => {
                self.holder = Arc::downgrade(process);
                true
            }
        }
    }

    /// Moves what has become durable out of the journal; per file and for names, that is always
    /// what came first.
    fn settle(&mut self) {
        let now = self.shared.now();
        for change in core::mem::take(&mut self.journal) {
            if change.durable_at <= now {
                self.keep(change.what);
            } else {
                self.journal.push_back(change);
            }
        }
    }

    fn keep(&mut self, what: What) {
        match what {
            What::Fill { file, length } => self.files.entry(file).or_default().fill(length),
            What::Write { file, offset, bytes } => {
                let content = self.files.entry(file).or_default();
                if let Some(history) = &mut self.history {
                    history.remember(file, content, offset, &bytes);
                }
                content.write(offset, &bytes);
            }
            What::Link { name, file } => {
                self.durable_names.insert(name, file);
            }
            What::Rename { from, to, file } => {
                if self.durable_names.get(&from) == Some(&file) {
                    self.durable_names.remove(&from);
                }
                self.durable_names.insert(to, file);
            }
            What::Remove { name } => {
                self.durable_names.remove(&name);
            }
        }
    }

    /// Keeps of `what` as much as the crash leaves.
    fn leave(&mut self, what: What, leftover: Leftover) {
        match (what, leftover) {
            (_, Leftover::Nothing) => {}
            (what, Leftover::Everything | Leftover::Prefix) => self.keep(what),
            (What::Write { file, offset, bytes }, Leftover::Any) => {
                self.leave_sectors(file, offset, &bytes);
            }
            (what, Leftover::Any) => {
                if self.rng.below(2) == 0 {
                    self.keep(what);
                }
            }
        }
    }

    fn leave_sectors(&mut self, file: FileId, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        let (mut kept, mut lost) = (false, false);
        while !rest.is_empty() {
            let to_boundary = SECTOR_BYTES - at % SECTOR_BYTES;
            let length = usize::try_from(to_boundary).unwrap_or(usize::MAX).min(rest.len());
            let (sector, behind) = rest.split_at(length);
            if self.rng.below(2) == 0 {
                self.files.entry(file).or_default().write(at, sector);
                kept = true;
            } else {
                lost = true;
            }
            (at, rest) = (at + length_of(sector), behind);
        }
        self.torn += u64::from(kept && lost);
    }

    pub(crate) fn crash(&mut self) {
        self.settle();
        let now = self.shared.now();
        let leftovers = [Leftover::Nothing, Leftover::Everything, Leftover::Prefix, Leftover::Any];
        let leftover = self.rng.pick(&leftovers).copied().unwrap_or(Leftover::Any);
        let journal = core::mem::take(&mut self.journal);
        let mut whole = match leftover {
            Leftover::Prefix => self.rng.position(journal.len() + 1),
            Leftover::Nothing | Leftover::Everything | Leftover::Any => usize::MAX,
        };
        for change in journal {
            if change.at > now {
                continue;
            }
            if whole == 0 {
                self.leave(change.what, Leftover::Any);
                break;
            }
            whole -= 1;
            self.leave(change.what, leftover);
        }
        self.reopen();
    }

    fn reopen(&mut self) {
        self.free_at = Instant::ZERO;
        self.holder = Weak::new();
        self.failed = false;
        self.names = self.durable_names.clone();
        let linked: Vec<FileId> = self.names.values().copied().collect();
        self.files.retain(|file, _| linked.contains(file));
        let length_of = |file: &FileId| self.files.get(file).map_or(0, |content| content.length);
        self.lengths = linked.iter().map(|file| (*file, length_of(file))).collect();
    }

    pub(crate) fn wipe(&mut self) {
        self.journal.clear();
        self.files.clear();
        self.durable_names.clear();
        if let Some(history) = &mut self.history {
            history.forget();
        }
        self.reopen();
    }

    pub(crate) fn flip_bit(&mut self, name: &str, offset: u64, bit: u8) -> bool {
        self.settle();
        let file = self.durable_names.get(name);
        let content = file.and_then(|file| self.files.get_mut(file));
        let done = content.is_some_and(|content| content.flip(offset, bit));
        self.was_damaged |= done;
        done
    }

    /// Damages something in `name`; false when there is nothing that can be.
    pub(crate) fn damage(&mut self, damage: Damage, name: &str) -> bool {
        self.settle();
        let Some(file) = self.durable_names.get(name) else { return false };
        let done = match (&self.history, self.files.get_mut(file)) {
            (Some(history), Some(content)) => history.damage(damage, *file, content, &mut self.rng),
            (None, _) | (_, None) => false,
        };
        self.was_damaged |= done;
        done
    }
}

/// Copies of `bytes`, which are at `at`, what falls into `into`, which is at `offset`.
fn overlay(offset: u64, into: &mut [u8], at: u64, bytes: &[u8]) {
    let skip_into = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
    let skip_bytes = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
    if let (Some(into), Some(bytes)) = (into.get_mut(skip_into..), bytes.get(skip_bytes..)) {
        for (place, byte) in into.iter_mut().zip(bytes) {
            *place = *byte;
        }
    }
}
