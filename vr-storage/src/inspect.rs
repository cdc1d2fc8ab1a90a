//! Tells what is in a data directory, without changing anything in it.

use core::fmt;
use std::path::{Path, PathBuf};

use vr_core::{
    OpNumber, StorageError, View,
    model::{
        certificate::{Inheritance, Means},
        durable::{CheckpointId, Superblock},
    },
    ports::storage::DamagedRange,
};

use crate::{
    disk::{Disk, LOCK_NAME, RealDisk, refused},
    file::{
        damage::{Damage, SlotState},
        names,
        record::{BatchKind, Copy},
        scan::{Found, FoundSegment, Scan, scan},
        store::{Files, checkpoint_of, checkpoint_problem},
        superblock::{Copies, CopyState},
    },
};

/// Records listed one by one; of further ones only the number is told.
const RECORDS_MAX: usize = 1000;

/// What one superblock file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// Name of the file.
    pub file: &'static str,
    /// Its update number and content; `None` when it cannot be read.
    pub content: Option<(u64, Superblock)>,
    /// What is wrong with it, in words; `None` when nothing is.
    pub problem: Option<String>,
}

/// One batch of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordReport {
    /// Name of the segment's file.
    pub file: String,
    /// Where in it.
    pub at: u64,
    /// The batch's number; a marker has that of the batch to come.
    pub sequence: u64,
    /// "append", "cut", "repair", "marker" or "seal".
    pub kind: &'static str,
    /// The op that its entries follow; for a cut, the last one that stays.
    pub base: OpNumber,
    /// How many entries it has.
    pub count: u32,
    /// Views of the first and the last entry; `None` without entries or when they are damaged.
    pub views: Option<(View, View)>,
    /// The last op that is known to have been synced when it was written.
    pub synced_op: OpNumber,
    /// Whether all its checksums match.
    pub intact: bool,
}

/// One segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Name of the file.
    pub file: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes up to the end of its last batch.
    pub used_bytes: u64,
    /// Batches that verify.
    pub batches: u64,
}

/// Everything that [`inspect`] found; its `Display` is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The directory.
    pub path: PathBuf,
    /// Whether some process has it open; what it is writing may then look torn.
    pub in_use: bool,
    /// Both superblock files.
    pub superblocks: Vec<CopyReport>,
    /// Update number and content of the superblock that counts; `None` when none is readable.
    pub superblock: Option<(u64, Superblock)>,
    /// The log's segments, ascending.
    pub segments: Vec<SegmentReport>,
    /// The log's batches in order of their place, at most 1000.
    pub records: Vec<RecordReport>,
    /// Batches beyond those listed.
    pub records_omitted: u64,
    /// First and last op above the checkpoint; `None` when there is none.
    pub ops: Option<(OpNumber, OpNumber)>,
    /// Bytes of that part of the log, as counted against `log_bytes_max`.
    pub log_bytes: u64,
    /// What does not verify.
    pub damage: Vec<Damage>,
    /// Ops that have to be repaired.
    pub damaged: Vec<DamagedRange>,
    /// Why the next open sets the log aside, if it does.
    pub lost: Option<String>,
    /// Names of the files of a log that was set aside.
    pub set_aside: Vec<String>,
    /// The complete checkpoints, with the bytes of their chunks.
    pub checkpoints: Vec<(CheckpointId, u64)>,
    /// What is wrong with the checkpoint that the log starts after, in words; `None` when nothing
    /// is.
    pub checkpoint_problem: Option<String>,
    /// Names of files of checkpoints that are being fetched.
    pub arriving: Vec<String>,
    /// Names of files that are not this storage's.
    pub unknown: Vec<String>,
    /// Names of files that mean nothing: spare segments and half created files.
    pub idle_files: Vec<String>,
}

impl Report {
    /// Whether something that was synced is damaged, or something foreign is there.
    ///
    /// Torn batches are no damage: a crash leaves them, and the next open cuts them off. Nor is
    /// what was repaired since, or a log that was set aside.
    #[must_use]
    pub fn has_damage(&self) -> bool {
        let corrupt = self.damage.iter().any(|damage| damage.state == SlotState::Corrupt);
        let superblock = self.superblocks.iter().any(|copy| copy.problem.is_some());
        let lost = self.lost.is_some() || self.checkpoint_problem.is_some();
        corrupt || superblock || lost || !self.unknown.is_empty()
    }
}

/// Reads the data directory at `path`; writes nothing and leaves its lock alone.
///
/// A directory in use can be inspected; what is being written just then may look torn.
///
/// ```no_run
/// let report = vr_storage::inspect("data/replica-0")?;
/// println!("{report}");
/// # Ok::<(), vr_core::StorageError>(())
/// ```
///
/// # Errors
/// [`StorageError::Io`] when the directory cannot be read; [`StorageError::Version`] when another
/// version wrote it; [`StorageError::Foreign`] when a log file belongs to another disk. Damage is
/// not an error: it is reported.
pub fn inspect(path: impl AsRef<Path>) -> Result<Report, StorageError> {
    let path = path.as_ref();
    let disk = RealDisk::read_only(path).map_err(|source| StorageError::Io {
        action: "open",
        path: path.to_owned(),
        source,
    })?;
    let in_use = disk.is_in_use().map_err(|error| refused(&disk, "lock", LOCK_NAME, error))?;
    inspect_disk(&disk, in_use)
}

fn inspect_disk<D: Disk>(disk: &D, in_use: bool) -> Result<Report, StorageError> {
    let files = Files::list(disk)?;
    let copies = Copies::read(disk)?;
    let newest = copies.newest(disk)?;
    let newest = newest.map(|(update, superblock)| (update, superblock.clone()));
    let is_empty = copies.are_absent() && files.segments.is_empty();
    let mut report = Report {
        path: disk.path(),
        in_use,
        superblocks: if is_empty { Vec::new() } else { copy_reports(&copies) },
        superblock: newest,
        segments: Vec::new(),
        records: Vec::new(),
        records_omitted: 0,
        ops: None,
        log_bytes: 0,
        damage: Vec::new(),
        damaged: Vec::new(),
        lost: None,
        set_aside: files.set_aside.iter().map(|number| names::set_aside(*number)).collect(),
        checkpoints: files.checkpoints,
        checkpoint_problem: None,
        arriving: files.arriving,
        unknown: files.unknown,
        idle_files: files
            .spares
            .into_iter()
            .map(|(number, _)| names::spare(number))
            .chain(files.unfinished)
            .collect(),
    };
    if let Some((_, superblock)) = &report.superblock {
        let checkpoint = checkpoint_of(superblock);
        let (mut records, mut omitted) = (Vec::new(), 0);
        let mut note = |found: &Found| {
            if records.len() < RECORDS_MAX {
                records.push(RecordReport::of(found));
            } else {
                omitted += 1;
            }
        };
        let log = scan(disk, &files.segments, superblock.disk, checkpoint, &mut note)?;
        report.records = records;
        report.records_omitted = omitted;
        report.checkpoint_problem = checkpoint_problem(disk, superblock)?;
        report.describe_log(log);
    }
    Ok(report)
}

impl Report {
    fn describe_log(&mut self, log: Scan) {
        let ends = log.headers.first().zip(log.headers.last());
        self.ops = ends.map(|(first, last)| (first.op_number, last.op_number));
        self.log_bytes = log.headers.iter().map(|header| header.entry_bytes()).sum();
        self.segments = log.segments.iter().map(SegmentReport::of).collect();
        self.damage = log.damage;
        self.damaged = log.damaged;
        self.lost = log.lost;
    }
}

fn copy_reports(copies: &Copies) -> Vec<CopyReport> {
    let report = |copy: Copy, state: &CopyState| {
        let file = names::superblock(copy);
        let (content, problem) = match state {
            CopyState::Absent => (None, Some("missing".to_owned())),
            CopyState::Damaged => (None, Some("damaged".to_owned())),
            CopyState::Version(found) => (None, Some(format!("of format version {found}"))),
            CopyState::Whole(update, superblock) => (Some((*update, superblock.clone())), None),
        };
        CopyReport { file, content, problem }
    };
    vec![report(Copy::A, &copies.a), report(Copy::B, &copies.b)]
}

impl SegmentReport {
    fn of(found: &FoundSegment) -> Self {
        Self {
            file: names::segment(found.number),
            bytes: found.length,
            used_bytes: found.end,
            batches: found.batches,
        }
    }
}

impl RecordReport {
    fn of(found: &Found) -> Self {
        let header = &found.header;
        Self {
            file: names::segment(header.segment),
            at: header.offset,
            sequence: header.sequence,
            kind: match header.kind {
                BatchKind::Append => "append",
                BatchKind::Cut => "cut",
                BatchKind::Repair => "repair",
                BatchKind::Marker => "marker",
                BatchKind::Seal => "seal",
            },
            base: found.follows,
            count: header.count,
            views: found.views,
            synced_op: header.synced_op,
            intact: found.intact,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_use =
            if self.in_use { " (in use; what is being written may look torn)" } else { "" };
        writeln!(f, "{}{in_use}", self.path.display())?;
        for copy in &self.superblocks {
            write_copy(f, copy)?;
        }
        match &self.superblock {
            Some((_, superblock)) => write_superblock(f, superblock)?,
            None if self.superblocks.is_empty() => writeln!(f, "never used by a replica")?,
            None => writeln!(f, "no superblock can be read, so the log cannot be either")?,
        }
        match self.ops {
            Some((first, last)) => {
                writeln!(f, "log: ops {first}..={last}, {} bytes", self.log_bytes)?;
            }
            None => writeln!(f, "log: no ops above the checkpoint")?,
        }
        for segment in &self.segments {
            let SegmentReport { file, bytes, used_bytes, batches } = segment;
            writeln!(f, "  {file}: {batches} batches, {used_bytes} of {bytes} bytes used")?;
            for record in self.records.iter().filter(|record| record.file == *file) {
                write_record(f, record)?;
            }
        }
        if self.records_omitted > 0 {
            writeln!(f, "  .. and {} records more", self.records_omitted)?;
        }
        for name in &self.idle_files {
            writeln!(f, "  {name}: kept for reuse, its content means nothing")?;
        }
        for damage in &self.damage {
            let Damage { state, file, at, bytes, what, .. } = damage;
            let ops = damage.ops.map(|(first, last)| format!(", ops {first}..={last}"));
            let ops = ops.unwrap_or_default();
            writeln!(f, "{state}: {file} at byte {at}, {bytes} bytes{ops}: {what}")?;
        }
        for DamagedRange { first, through } in &self.damaged {
            writeln!(f, "TO REPAIR: ops {first}..={}", through.op_number)?;
        }
        if let Some(reason) = &self.lost {
            writeln!(f, "LOST: {reason}; the next start sets the log aside")?;
        }
        for (id, bytes) in &self.checkpoints {
            writeln!(f, "  checkpoint after op {}: {bytes} bytes", id.op_number)?;
        }
        for name in &self.arriving {
            writeln!(f, "  {name}: a checkpoint that is being fetched")?;
        }
        if let Some(problem) = &self.checkpoint_problem {
            writeln!(f, "LOST: {problem}; the next start sets the log aside")?;
        }
        for name in &self.set_aside {
            writeln!(f, "  {name}: set aside, part of a log that was lost before")?;
        }
        for name in &self.unknown {
            writeln!(f, "FOREIGN: {name} does not belong here; move it away")?;
        }
        f.write_str(if self.has_damage() { "DAMAGED" } else { "no damage" })
    }
}

fn write_copy(f: &mut fmt::Formatter<'_>, copy: &CopyReport) -> fmt::Result {
    match (&copy.content, &copy.problem) {
        (Some((update, _)), _) => writeln!(f, "{}: ok, update {update}", copy.file),
        (None, problem) => {
            let problem = problem.as_deref().unwrap_or("unreadable");
            writeln!(f, "{}: {problem}", copy.file)
        }
    }
}

fn write_superblock(f: &mut fmt::Formatter<'_>, superblock: &Superblock) -> fmt::Result {
    let Superblock { group_name, members, replica, durability, disk, .. } = superblock;
    writeln!(f, "  replica {replica} of group {group_name:?} with members {members}")?;
    writeln!(f, "  mode {durability:?}, disk {disk}")?;
    let certificate = match &superblock.certificate {
        Some(certificate) => format!("{:032x}", certificate.to_hash().0),
        None => "none yet".to_owned(),
    };
    writeln!(f, "  certificate {certificate}")?;
    for Inheritance { means, epoch, op_number, .. } in
        superblock.certificate.iter().flat_map(|certificate| &certificate.inherited)
    {
        match means {
            Means::Restored => writeln!(f, "  restored from an export through op {op_number}")?,
            Means::Forced => writeln!(
                f,
                "  RESTARTED BY FORCE as epoch {epoch}: operations that were acknowledged before \
                 it may be missing after op {op_number}"
            )?,
        }
    }
    if let Some(latest) = superblock.superseded_by {
        writeln!(f, "  GIVEN UP: the group was restarted by force as epoch {latest}, without it")?;
    }
    let Superblock { epoch, view, log_view, trust, incarnation, checkpoint, .. } = superblock;
    writeln!(f, "  epoch {epoch}, view {view}, log view {log_view}, log {trust:?}")?;
    writeln!(f, "  incarnation {incarnation}, checkpoint after op {}", checkpoint.op_number)
}

fn write_record(f: &mut fmt::Formatter<'_>, record: &RecordReport) -> fmt::Result {
    let RecordReport { at, sequence, kind, base, count, synced_op, .. } = record;
    write!(f, "    {at:>10}  batch {sequence} {kind}")?;
    match kind {
        &"marker" | &"seal" => return writeln!(f, ", synced through op {synced_op}"),
        _ => {}
    }
    if *kind == "cut" {
        write!(f, " after op {base}")?;
    }
    if *count > 0 {
        write!(f, ", ops {}..={}", base.next(), base.plus(u64::from(*count)))?;
    }
    match record.views {
        Some((first, last)) if first == last => write!(f, ", view {first}")?,
        Some((first, last)) => write!(f, ", views {first} to {last}")?,
        None => {}
    }
    writeln!(f, "{}", if record.intact { "" } else { ", DOES NOT VERIFY" })
}
