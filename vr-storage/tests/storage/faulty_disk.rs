//! A disk in memory that loses what was not synced, in any subset of sectors, and fails on demand.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use vr_storage::Disk;

const SECTOR: usize = 512;

/// What a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Rename,
    Remove,
    Write,
    Sync,
    SyncDirectory,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What the platters hold.
    durable: Vec<u8>,
    /// What a reader sees.
    current: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Naming {
    Link(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    durable_names: BTreeMap<String, usize>,
    names: BTreeMap<String, usize>,
    naming: Vec<Naming>,
    locked: bool,
    /// Changing calls left until the machine or the process dies.
    fuse: Option<u64>,
    calls: u64,
    fault: Option<(Call, io::ErrorKind)>,
    /// Changing calls left until one fails; what it leaves half done is drawn from these dice.
    glitch: Option<(u64, Dice)>,
    /// What a call that dies half way leaves is drawn from these dice; without them, all of it.
    halves: Option<Dice>,
    log: Vec<(Call, String)>,
}

/// The disk; clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

/// A small random number generator.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl FaultyDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Lets `calls` more changing calls succeed; the next one dies half way.
    pub(crate) fn die_after(&self, calls: u64) {
        self.state().fuse = Some(calls);
    }

    /// As [`die_after`](Self::die_after); of what the last call writes, the dice say how much is there.
    pub(crate) fn die_half_way_after(&self, calls: u64, dice: Dice) {
        let mut state = self.state();
        state.fuse = Some(calls);
        state.halves = Some(dice);
    }

    /// Lets `calls` more changing calls succeed; the next one fails, and those behind it do not.
    pub(crate) fn fail_once_after(&self, calls: u64, dice: Dice) {
        self.state().glitch = Some((calls, dice));
    }

    /// Changing calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets every later call of this kind fail.
    pub(crate) fn fail(&self, call: Call, kind: io::ErrorKind) {
        self.state().fault = Some((call, kind));
    }

    /// The changing calls since the last look.
    pub(crate) fn take_log(&self) -> Vec<(Call, String)> {
        std::mem::take(&mut self.state().log)
    }

    /// What a new process finds after the old one was killed: everything, synced or not.
    pub(crate) fn after_kill(&self) -> Self {
        let mut state = self.state().clone();
        state.locked = false;
        state.fuse = None;
        state.fault = None;
        state.glitch = None;
        state.halves = None;
        state.calls = 0;
        Self(Arc::new(Mutex::new(state)))
    }

    /// What is there after the power was cut: what was synced, and of the rest what dice say.
    pub(crate) fn after_power_cut(&self, dice: &mut Dice) -> Self {
        let state = self.state();
        let keep_percent = [0, 20, 50, 80, 100][usize::try_from(dice.below(5)).unwrap()];
        let mut keep = || dice.below(100) < keep_percent;
        let mut names = state.durable_names.clone();
        for naming in &state.naming {
            if keep() {
                naming.apply(&mut names);
            }
        }
        let inodes = state.inodes.iter().map(|inode| inode.after_power_cut(&mut keep)).collect();
        let after = State { inodes, durable_names: names.clone(), names, ..State::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[name]].current.clone()
    }

    /// Replaces a file's bytes, durably.
    pub(crate) fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode { durable: bytes.clone(), current: bytes, pending: Vec::new() });
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// A copy with everything durable, and nobody using it.
    pub(crate) fn settled(&self) -> Self {
        self.after_kill().flushed()
    }

    fn flushed(self) -> Self {
        {
            let mut state = self.state();
            for inode in &mut state.inodes {
                inode.durable = inode.current.clone();
                inode.pending.clear();
            }
            state.durable_names = state.names.clone();
            state.naming.clear();
        }
        self
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// Counts a changing call; an error when it fails, `true` when it dies half way.
    fn begin(&self, call: Call, name: &str) -> io::Result<bool> {
        let mut state = self.state();
        if state.fuse == Some(0) && state.calls == u64::MAX {
            return Err(io::Error::other("dead"));
        }
        if let Some((faulty, kind)) = state.fault
            && faulty == call
        {
            if call == Call::Sync {
                // As on Linux: the pages count as clean afterwards, and nothing was written.
                let inode = state.names.get(name).copied();
                if let Some(inode) = inode {
                    state.inodes[inode].pending.clear();
                }
            }
            return Err(kind.into());
        }
        state.log.push((call, name.to_owned()));
        state.calls += 1;
        if let Some((left, dice)) = state.glitch.as_mut() {
            if let Some(fewer) = left.checked_sub(1) {
                *left = fewer;
            } else {
                let dice = dice.clone();
                state.glitch = None;
                state.halves = Some(dice.clone());
                if call == Call::Sync {
                    state.fail_sync(name, dice);
                    return Err(io::Error::other("glitch"));
                }
                return if matches!(call, Call::Write | Call::Create) {
                    Ok(true)
                } else {
                    Err(io::Error::other("glitch"))
                };
            }
        }
        if let Some(fuse) = state.fuse.as_mut() {
            if *fuse == 0 {
                state.calls = u64::MAX;
                return Ok(true);
            }
            *fuse -= 1;
        }
        Ok(false)
    }

    fn change(&self, naming: Naming) {
        let mut state = self.state();
        naming.apply(&mut state.names);
        state.naming.push(naming);
    }
}

impl State {
    /// As on Linux: the pages count as clean afterwards; some were written, and some never will be.
    fn fail_sync(&mut self, name: &str, mut dice: Dice) {
        let Some(inode) = self.names.get(name).copied() else { return };
        let Some(inode) = self.inodes.get_mut(inode) else { return };
        inode.durable = inode.after_power_cut(&mut || dice.below(2) == 0).durable;
        inode.pending.clear();
    }

    /// How many of `bytes` a call writes that dies half way.
    fn half(&mut self, dies: bool, bytes: usize) -> usize {
        match self.halves.as_mut().filter(|_| dies) {
            Some(dice) => {
                if dice.below(3) == 0 {
                    return bytes;
                }
                usize::try_from(dice.below(u64::try_from(bytes).unwrap() + 1)).unwrap()
            }
            None => bytes,
        }
    }
}

fn end(dies: bool) -> io::Result<()> {
    if dies { Err(io::Error::other("died")) } else { Ok(()) }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Inode {
    fn write(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
        if bytes.len() < at + part.len() {
            bytes.resize(at + part.len(), 0);
        }
        bytes[at..at + part.len()].copy_from_slice(part);
    }

    fn after_power_cut(&self, keep: &mut impl FnMut() -> bool) -> Self {
        let mut bytes = self.durable.clone();
        if keep() {
            bytes.resize(self.current.len(), 0);
        }
        for (at, written) in &self.pending {
            let mut done = 0;
            while done < written.len() {
                let sector_end = ((at + done) / SECTOR + 1) * SECTOR - at;
                let until = sector_end.min(written.len());
                if keep() {
                    Self::write(&mut bytes, at + done, &written[done..until]);
                }
                done = until;
            }
        }
        Self { durable: bytes.clone(), current: bytes, pending: Vec::new() }
    }
}

impl Disk for FaultyDisk {
    fn path(&self) -> PathBuf {
        PathBuf::from("faulty")
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        let length = |inode: &usize| u64::try_from(state.inodes[*inode].current.len()).unwrap();
        Ok(state.names.iter().map(|(name, inode)| (name.clone(), length(inode))).collect())
    }

    fn create(&self, name: &str, length: u64) -> io::Result<()> {
        let dies = self.begin(Call::Create, name)?;
        let inode = {
            let mut state = self.state();
            let length = state.half(dies, usize::try_from(length).unwrap());
            let zeros = vec![0; length];
            state.inodes.push(Inode {
                durable: Vec::new(),
                current: zeros.clone(),
                pending: vec![(0, zeros)],
            });
            state.inodes.len() - 1
        };
        self.change(Naming::Link(name.to_owned(), inode));
        end(dies)
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.state();
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let bytes = &state.inodes[inode].current;
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let count = into.len().min(bytes.len() - start);
        into[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, name: &str, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let dies = self.begin(Call::Write, name)?;
        let mut state = self.state();
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let half = state.half(dies, bytes.len());
        bytes.truncate(half);
        let at = usize::try_from(offset).unwrap();
        Inode::write(&mut state.inodes[inode].current, at, &bytes);
        state.inodes[inode].pending.push((at, bytes));
        end(dies)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let dies = self.begin(Call::Sync, name)?;
        end(dies)?;
        let mut state = self.state();
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let inode = &mut state.inodes[inode];
        if inode.durable.len() != inode.current.len() {
            inode.durable.resize(inode.current.len(), 0);
        }
        for (at, written) in std::mem::take(&mut inode.pending) {
            Inode::write(&mut inode.durable, at, &written);
        }
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let dies = self.begin(Call::SyncDirectory, "")?;
        end(dies)?;
        let mut state = self.state();
        state.durable_names = state.names.clone();
        state.naming.clear();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let dies = self.begin(Call::Rename, to)?;
        self.change(Naming::Rename(from.to_owned(), to.to_owned()));
        end(dies)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let dies = self.begin(Call::Remove, name)?;
        self.change(Naming::Remove(name.to_owned()));
        end(dies)
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.state();
        Ok(!std::mem::replace(&mut state.locked, true))
    }
}
