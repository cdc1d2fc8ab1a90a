//! A log in one file, with the checkpoint that it starts after, as it leaves a node: written chunk by
//! chunk, and believed only when whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use bytes::Bytes;
use futures::channel::oneshot;
use vr_core::{
    CheckpointCopy, Export, ExportError, OpNumber, StorageError,
    model::{
        checkpoint::Manifest,
        durable::{CheckpointId, genesis_checksum},
        encoding::entry::{decode_header, encode_header},
        entry::{ENTRY_HEADER_BYTES, Entry, EntryHeader},
        export::LogFacts,
        types::{Checksum, GroupId, View},
    },
};

use crate::disk::byte_count;

/// Version of an export's bytes; another one is refused with both numbers.
pub const EXPORT_VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"vrexport";
/// Bytes before the body of an export's header.
const PREFIX_BYTES: usize = 32;
/// The most bytes of that body; a group's names and members take far fewer.
const BODY_BYTES_MAX: u32 = 64 << 10;
/// The most bytes of one payload; admission refuses far smaller ones.
const PAYLOAD_BYTES_MAX: u32 = 1 << 30;

/// Why a log cannot leave a node, or become the beginning of a group. Nothing is made then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The system refused.
    #[error("{action} {path:?}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("{path:?} is not an export")]
    NotAnExport {
        /// Which file.
        path: PathBuf,
    },
    /// The file was written by a version that this one cannot read.
    #[error("{path:?} is an export of version {found}; this build reads {EXPORT_VERSION}")]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// The file does not verify.
    #[error("{path:?} is damaged at byte {at}: {what}; use another copy")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// What does not verify.
        what: String,
    },
    /// Something is there already.
    #[error("{path:?} is there already, and nothing is overwritten; choose another name")]
    Exists {
        /// Which file or directory.
        path: PathBuf,
    },
    /// What was asked for would lose or confuse something.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// The node's log cannot be copied.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A data directory cannot be read or made.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Writes what `log` holds to a new file at `path`, on a thread, one chunk at a time.
///
/// The file gets its name when it is whole and durable; while it is written, it has `.new` behind
/// its name. Returns what it says of itself.
///
/// ```no_run
/// # async fn back_up<S: vr_core::StateMachine>(
/// #     node: vr_core::NodeHandle<S>,
/// # ) -> Result<(), vr_storage::CopyError> {
/// let log = node.export(vr_core::ExportScope::Committed)?;
/// let facts = vr_storage::export(log, "backup-2026-11-26").await?;
/// println!("everything through op {}", facts.op_number);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`CopyError::Exists`] when `path` is there; [`CopyError::Export`] when the node's log cannot be
/// read; [`CopyError::Io`] when the system refuses. No file is left behind then.
pub async fn export(mut log: Export, path: impl Into<PathBuf>) -> Result<LogFacts, CopyError> {
    let facts = log.facts().clone();
    let (chunks, queue) = sync_channel::<Chunk>(1);
    let (path, head, checkpoint) = (path.into(), facts.clone(), log.checkpoint());
    let (finished, written) = oneshot::channel();
    let named = path.clone();
    let writing = thread::Builder::new().name("vr-export".to_owned()).spawn(move || {
        // Nobody listening means that nobody wants to know.
        drop(finished.send(write_chunks(&path, &head, checkpoint.as_ref(), &queue)));
    });
    writing.map_err(|source| CopyError::Io {
        action: "start a thread for",
        path: named,
        source,
    })?;
    loop {
        let entries = log.next().await?;
        if entries.is_empty() {
            // The end is said: a channel that closes without it leaves no file behind.
            drop(chunks.try_send(Chunk::End));
            break;
        }
        let (taken, free) = oneshot::channel();
        let sent = chunks.try_send(Chunk::Entries(entries, taken));
        if sent.is_err() || free.await.is_err() {
            break;
        }
    }
    drop(chunks);
    written.await.unwrap_or_else(|_| {
        let reason = "the thread that writes the export ended early".to_owned();
        Err(CopyError::Refused { reason })
    })?;
    Ok(facts)
}

/// What the writing thread is told.
enum Chunk {
    /// These come next; the sender is dropped or used when they are written.
    Entries(Vec<Entry>, oneshot::Sender<()>),
    /// There are no more.
    End,
}

fn write_chunks(
    path: &Path,
    facts: &LogFacts,
    checkpoint: Option<&CheckpointCopy>,
    queue: &Receiver<Chunk>,
) -> Result<(), CopyError> {
    let mut file = ExportWriter::create(path, facts)?;
    if let Some(checkpoint) = checkpoint {
        file.append_checkpoint(checkpoint)?;
    }
    while let Ok(chunk) = queue.recv() {
        match chunk {
            Chunk::Entries(entries, taken) => {
                file.append(&entries)?;
                // A receiver that is gone gave up.
                let _ = taken.send(());
            }
            Chunk::End => return file.finish(),
        }
    }
    Ok(())
}

/// An export that is being written; without [`finish`](Self::finish) nothing of it stays.
#[derive(Debug)]
pub struct ExportWriter {
    path: PathBuf,
    unfinished: PathBuf,
    file: File,
    /// What the entries follow, until it is written.
    owed: Option<CheckpointId>,
    done: bool,
}

impl ExportWriter {
    /// Begins an export at `path` that says `facts` of itself.
    ///
    /// # Errors
    /// [`CopyError::Exists`] when `path`, or what an interrupted export left beside it, is there;
    /// [`CopyError::Io`] when the system refuses.
    pub fn create(path: &Path, facts: &LogFacts) -> Result<Self, CopyError> {
        if path.exists() {
            return Err(CopyError::Exists { path: path.to_owned() });
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let opened = OpenOptions::new().write(true).create_new(true).open(&unfinished);
        let file = opened.map_err(|source| taken("create", &unfinished, source))?;
        let owed = Some(facts.checkpoint).filter(|id| id.op_number > OpNumber::ZERO);
        let mut writer = Self { path: path.to_owned(), unfinished, file, owed, done: false };
        let header = encode_facts(facts).ok_or_else(|| CopyError::Refused {
            reason: format!("the group's name and members take more than {BODY_BYTES_MAX} bytes"),
        })?;
        writer.write(&header)?;
        Ok(writer)
    }

    /// Writes the checkpoint that the entries follow, which comes before them.
    ///
    /// # Errors
    /// [`CopyError::Refused`] when it is not the one that the header names, or is there already;
    /// [`CopyError::Export`] when it cannot be read; [`CopyError::Io`] when the system refuses.
    pub fn append_checkpoint(&mut self, checkpoint: &CheckpointCopy) -> Result<(), CopyError> {
        if self.owed != Some(checkpoint.id()) {
            let op_number = checkpoint.id().op_number;
            let reason = format!("the checkpoint after op {op_number} does not belong here");
            return Err(CopyError::Refused { reason });
        }
        let manifest = checkpoint.manifest()?;
        self.write(&manifest.to_bytes())?;
        for index in 0..manifest.count() {
            self.write(&checkpoint.chunk(index)?)?;
        }
        self.owed = None;
        Ok(())
    }

    fn require_checkpoint(&self) -> Result<(), CopyError> {
        let Some(owed) = self.owed else { return Ok(()) };
        let reason = format!("the checkpoint after op {} comes first", owed.op_number);
        Err(CopyError::Refused { reason })
    }

    /// Adds entries behind those that are there.
    ///
    /// # Errors
    /// [`CopyError::Refused`] when the checkpoint that they follow is not written;
    /// [`CopyError::Io`] when the system refuses.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), CopyError> {
        self.require_checkpoint()?;
        let bytes = entries.iter().map(|entry| entry.payload.len() + ENTRY_HEADER_BYTES).sum();
        let mut out = Vec::with_capacity(bytes);
        for entry in entries {
            out.extend_from_slice(&encode_header(&entry.header));
            out.extend_from_slice(&entry.payload);
        }
        self.write(&out)
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`CopyError::Exists`] when another file got the name meanwhile; [`CopyError::Refused`] as
    /// [`append`](Self::append); [`CopyError::Io`] when the system refuses.
    pub fn finish(mut self) -> Result<(), CopyError> {
        self.require_checkpoint()?;
        self.file.sync_all().map_err(|source| self.refused("sync", source))?;
        let named = fs::hard_link(&self.unfinished, &self.path);
        named.map_err(|source| taken("name", &self.path, source))?;
        fs::remove_file(&self.unfinished).map_err(|source| self.refused("rename", source))?;
        self.done = true;
        sync_parent(&self.path)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CopyError> {
        self.file.write_all(bytes).map_err(|source| self.refused("write", source))
    }

    fn refused(&self, action: &'static str, source: io::Error) -> CopyError {
        CopyError::Io { action, path: self.unfinished.clone(), source }
    }
}

impl Drop for ExportWriter {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed is in the way of the next export of this name, which says so.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// Why `path` cannot be made.
fn taken(action: &'static str, path: &Path, source: io::Error) -> CopyError {
    if source.kind() == io::ErrorKind::AlreadyExists {
        return CopyError::Exists { path: path.to_owned() };
    }
    CopyError::Io { action, path: path.to_owned(), source }
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), CopyError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|source| CopyError::Io { action: "sync", path: parent.to_owned(), source })
}

fn encode_facts(facts: &LogFacts) -> Option<Vec<u8>> {
    let body = postcard::to_allocvec(facts).ok()?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= BODY_BYTES_MAX)?;
    let mut bytes = vec![0; 16];
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&EXPORT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    let checksum = Checksum::of(bytes.get(16..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(..16) {
        place.copy_from_slice(&checksum.0.to_le_bytes());
    }
    Some(bytes)
}

/// What entries must be to belong to a log: each the next one, and the child of the one before.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    group: GroupId,
    view_max: View,
    pub(crate) op_number: OpNumber,
    pub(crate) checksum: Checksum,
}

impl Chain {
    /// Nothing yet of the log of `facts`.
    pub(crate) fn of(facts: &LogFacts) -> Self {
        let CheckpointId { op_number, checksum, .. } = facts.checkpoint;
        let checksum = match op_number {
            OpNumber::ZERO => genesis_checksum(facts.group),
            _ => checksum,
        };
        Self { group: facts.group, view_max: facts.view, op_number, checksum }
    }

    /// Adds one; what is wrong with it, otherwise.
    pub(crate) fn push(&mut self, header: &EntryHeader) -> Result<(), &'static str> {
        if header.op_number != self.op_number.next() || header.parent != self.checksum {
            return Err("it does not follow the one before");
        }
        if header.group != EntryHeader::group_mark(self.group) {
            return Err("it belongs to another group");
        }
        if header.view > self.view_max {
            return Err("its view is later than its replica's");
        }
        (self.op_number, self.checksum) = (header.op_number, header.checksum);
        Ok(())
    }
}

/// An export that is being read, from its checkpoint to its last entry.
#[derive(Debug)]
pub struct ExportReader {
    path: PathBuf,
    file: BufReader<File>,
    facts: LogFacts,
    /// Of the checkpoint that the entries follow; empty if there is none.
    manifest: Manifest,
    /// The chunk that comes next.
    chunk: u32,
    chain: Chain,
    at: u64,
    length: u64,
}

impl ExportReader {
    /// Opens the export at `path`; only its header and the checkpoint's manifest are verified by that.
    ///
    /// # Errors
    /// [`CopyError::NotAnExport`], [`CopyError::Version`] or [`CopyError::Damaged`] when it cannot
    /// be read as one; [`CopyError::Io`] when the system refuses.
    pub fn open(path: &Path) -> Result<Self, CopyError> {
        let failed = |action, source| CopyError::Io { action, path: path.to_owned(), source };
        let file = File::open(path).map_err(|source| failed("open", source))?;
        let metadata = file.metadata().map_err(|source| failed("read", source))?;
        if !metadata.is_file() {
            return Err(CopyError::NotAnExport { path: path.to_owned() });
        }
        let mut reader = Input { path, file: BufReader::new(file), at: 0, length: metadata.len() };
        let facts = reader.facts()?;
        let manifest = reader.manifest(&facts)?;
        let Input { file, at, length, .. } = reader;
        let chain = Chain::of(&facts);
        Ok(Self { path: path.to_owned(), file, facts, manifest, chunk: 0, chain, at, length })
    }

    /// Reads the whole export and returns what it says of itself, which is true then.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`next`](Self::next).
    pub fn verify(path: &Path) -> Result<LogFacts, CopyError> {
        let mut reader = Self::open(path)?;
        while !reader.next(1 << 20)?.is_empty() {}
        Ok(reader.facts)
    }

    /// What the export says of itself; the end of it is verified only by reading on.
    #[must_use]
    pub const fn facts(&self) -> &LogFacts {
        &self.facts
    }

    /// What the checkpoint consists of that the entries follow; of no chunk if there is none.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next chunk of the checkpoint; `None` at its end.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, CopyError> {
        let index = self.chunk;
        if index >= self.manifest.count() {
            return Ok(None);
        }
        let start = self.at;
        let length = usize::try_from(self.manifest.bytes_of(index)).unwrap_or(usize::MAX);
        let mut input =
            Input { path: &self.path, file: &mut self.file, at: self.at, length: self.length };
        let count = self.manifest.count();
        let ends = format!("the file ends in chunk {index} of the checkpoint's {count}");
        let chunk = input.take(length, &ends)?;
        if !self.manifest.holds(index, &chunk) {
            let what = format!("chunk {index} of the checkpoint does not verify");
            return Err(input.damaged(start, &what));
        }
        self.at = input.at;
        self.chunk = index.saturating_add(1);
        Ok(Some(chunk.into()))
    }

    /// The next entries, as many as fit into `bytes_max` but at least one; empty at the end. What
    /// was not read of the checkpoint is verified and skipped.
    ///
    /// # Errors
    /// [`CopyError::Damaged`] when something does not verify, is missing, or follows the end;
    /// [`CopyError::Io`] when the system refuses.
    pub fn next(&mut self, bytes_max: u64) -> Result<Vec<Entry>, CopyError> {
        while self.next_chunk()?.is_some() {}
        let mut entries = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max && self.chain.op_number < self.facts.op_number {
            let entry = self.entry()?;
            bytes += entry.header.entry_bytes();
            entries.push(entry);
        }
        if self.chain.op_number >= self.facts.op_number {
            if self.chain.checksum != self.facts.checksum {
                return Err(self.damaged("the last entry is not the one that the header names"));
            }
            if self.at != self.length {
                return Err(self.damaged("there are bytes behind the last entry"));
            }
        }
        Ok(entries)
    }

    fn entry(&mut self) -> Result<Entry, CopyError> {
        let op_number = self.chain.op_number.next();
        let start = self.at;
        let mut input =
            Input { path: &self.path, file: &mut self.file, at: self.at, length: self.length };
        let last = self.facts.op_number;
        let ends = format!("the file ends before op {op_number} of {last}");
        let header = input.take(ENTRY_HEADER_BYTES, &ends)?;
        let header = decode_header(&header)
            .map_err(|error| input.damaged(start, &format!("op {op_number}: {error}")))?;
        let length = usize::try_from(header.payload_length.min(PAYLOAD_BYTES_MAX)).unwrap_or(0);
        let entry = Entry { header, payload: Bytes::from(input.take(length, &ends)?) };
        let verified = entry.verify_payload();
        verified.map_err(|error| input.damaged(start, &format!("op {op_number}: {error}")))?;
        self.at = input.at;
        self.chain.push(&entry.header).map_err(|what| CopyError::Damaged {
            path: self.path.clone(),
            at: start,
            what: format!("op {op_number}: {what}"),
        })?;
        Ok(entry)
    }

    fn damaged(&self, what: &str) -> CopyError {
        CopyError::Damaged { path: self.path.clone(), at: self.at, what: what.to_owned() }
    }
}

/// Bytes of a file, taken from its front and never beyond its end.
struct Input<'a, R> {
    path: &'a Path,
    file: R,
    at: u64,
    length: u64,
}

impl<R: Read> Input<'_, R> {
    fn take(&mut self, count: usize, otherwise: &str) -> Result<Vec<u8>, CopyError> {
        let end = self.at.saturating_add(byte_count(count));
        if end > self.length {
            return Err(self.damaged(self.at, otherwise));
        }
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                return self.damaged(self.at, otherwise);
            }
            CopyError::Io { action: "read", path: self.path.to_owned(), source }
        })?;
        self.at = end;
        Ok(bytes)
    }

    fn facts(&mut self) -> Result<LogFacts, CopyError> {
        let strange = CopyError::NotAnExport { path: self.path.to_owned() };
        if self.length < byte_count(PREFIX_BYTES) {
            return Err(strange);
        }
        let prefix = self.take(PREFIX_BYTES, "")?;
        let (checksum, covered) = prefix.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let (magic, rest) = covered.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        if *magic != MAGIC {
            return Err(strange);
        }
        let (version, length) = rest.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let version = u32::from_le_bytes(*version);
        if version != EXPORT_VERSION {
            return Err(CopyError::Version { path: self.path.to_owned(), found: version });
        }
        let length = length.first_chunk::<4>().copied().map_or(0, u32::from_le_bytes);
        if length > BODY_BYTES_MAX {
            return Err(self.damaged(0, "the header does not verify"));
        }
        let length = usize::try_from(length).unwrap_or(0);
        let body = self.take(length, "the file ends in its header")?;
        let verified = Checksum::of(&[covered, body.as_slice()].concat());
        let facts = postcard::take_from_bytes::<LogFacts>(&body).ok();
        let facts = facts.filter(|(_, rest)| rest.is_empty()).map(|(facts, _)| facts);
        match facts {
            Some(facts) if verified.0.to_le_bytes() == *checksum => {
                match facts.checkpoint.op_number <= facts.op_number {
                    true => Ok(facts),
                    false => Err(self.damaged(0, "the log ends before its checkpoint")),
                }
            }
            Some(_) | None => Err(self.damaged(0, "the header does not verify")),
        }
    }

    /// The manifest of the checkpoint that `facts` name.
    fn manifest(&mut self, facts: &LogFacts) -> Result<Manifest, CopyError> {
        let CheckpointId { op_number, digest, .. } = facts.checkpoint;
        if op_number == OpNumber::ZERO {
            return Ok(Manifest::default());
        }
        let (start, ends) = (self.at, "the file ends in the checkpoint's manifest");
        let mut bytes = self.take(8, ends)?;
        let size = bytes.first_chunk::<8>().copied().map_or(0, u64::from_le_bytes);
        let sums = Manifest::count_of(size).saturating_mul(16);
        bytes.extend(self.take(usize::try_from(sums).unwrap_or(usize::MAX), ends)?);
        let manifest = Manifest::of_bytes(&bytes, digest);
        manifest.ok_or_else(|| self.damaged(start, "the checkpoint's manifest does not verify"))
    }

    fn damaged(&self, at: u64, what: &str) -> CopyError {
        CopyError::Damaged { path: self.path.to_owned(), at, what: what.to_owned() }
    }
}
