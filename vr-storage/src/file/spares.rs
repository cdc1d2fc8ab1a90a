//! Released segments that are kept for reuse, as many as the log is likely to need.

use vr_core::StorageError;

use crate::{
    disk::{Disk, refused},
    file::{
        names,
        segment::{self, Segment},
    },
};

/// How many are always kept, if there are so many.
const SPARES_MIN: usize = 2;

/// Files of whole segments whose content means nothing: each saves the log to fill one with zeros
/// while operations wait.
///
/// A log that is shortened at each checkpoint takes about as many segments from one to the next,
/// so that is how many are kept: together with the log they take no more room than the log did
/// before it was shortened.
#[derive(Debug)]
pub(crate) struct Spares<D> {
    disk: D,
    segment_bytes: u64,
    names: Vec<String>,
    /// So many were asked for.
    wanted: usize,
    /// So many are kept.
    kept: usize,
    /// Segments that the log took since it was shortened.
    taken: usize,
}

impl<D: Disk> Spares<D> {
    /// None yet, of segments of `segment_bytes` bytes; at least `wanted` of those that come in are
    /// kept.
    pub(crate) fn new(disk: D, segment_bytes: u64, wanted: usize) -> Self {
        Self { disk, segment_bytes, names: Vec::new(), wanted, kept: 0, taken: 0 }
    }

    fn least(&self) -> usize {
        self.wanted.max(SPARES_MIN)
    }

    /// Takes over what an earlier life left beside a log of `live` segments.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn adopt(&mut self, names: Vec<String>, live: usize) -> Result<(), StorageError> {
        self.kept = self.least().max(live);
        self.names = names;
        self.remove_surplus()
    }

    /// Makes files, numbered behind `last_number`, until there are as many as were asked for; returns
    /// the last number in use.
    ///
    /// # Errors
    /// [`StorageError::Full`] or [`StorageError::Io`] when the system refuses.
    pub(crate) fn fill(&mut self, mut last_number: u64) -> Result<u64, StorageError> {
        while self.names.len() < self.wanted {
            last_number += 1;
            let name = names::spare(last_number);
            segment::create(&self.disk, &name, self.segment_bytes)?;
            self.disk.sync(&name).map_err(|error| refused(&self.disk, "sync", &name, error))?;
            self.names.push(name);
        }
        Ok(last_number)
    }

    /// One for a new segment of `length` bytes, if there is one.
    pub(crate) fn take(&mut self, length: u64) -> Option<String> {
        self.taken = self.taken.saturating_add(1);
        if length == self.segment_bytes { self.names.pop() } else { None }
    }

    /// The log is about to give up what is below a checkpoint: from now on as many are kept as it
    /// took since the last time, and one more. Fewer are needed in the end if fewer operations come,
    /// but one slow interval says little.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn begin_release(&mut self) -> Result<(), StorageError> {
        let likely = self.taken.saturating_add(1);
        self.kept = self.least().max(likely).max(self.kept.saturating_sub(1));
        self.taken = 0;
        self.remove_surplus()
    }

    /// Keeps the file of `segment`, or removes it; nothing reads it any more.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn put(&mut self, segment: Segment) -> Result<(), StorageError> {
        let Segment { number, name, length, .. } = segment;
        if length != self.segment_bytes || self.names.len() >= self.kept {
            return self.remove(&name);
        }
        let spare = names::spare(number);
        let renamed = self.disk.rename(&name, &spare);
        renamed.map_err(|error| refused(&self.disk, "rename", &name, error))?;
        self.names.push(spare);
        Ok(())
    }

    fn remove_surplus(&mut self) -> Result<(), StorageError> {
        while self.names.len() > self.kept {
            let Some(name) = self.names.pop() else { break };
            self.remove(&name)?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.disk.remove(name).map_err(|error| refused(&self.disk, "remove", name, error))
    }
}
