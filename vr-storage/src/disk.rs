//! The small disk that the storage code stands on, so that a simulated one can stand there too.

use core::fmt::{self, Debug};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, IoSlice, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vr_core::StorageError;

/// Name of the file whose lock says that the directory is in use.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// File handles kept open; the one used longest ago is closed beyond that.
const HANDLES_MAX: usize = 64;

/// Bytes written at once when a new file is filled with zeros.
const FILL_BYTES: usize = 256 << 10;

/// One directory of flat files.
///
/// Semantics are those of a POSIX file system without its surprises: what was written is durable
/// only after [`sync`](Self::sync) of that file returned; a created, renamed or removed name is
/// durable only after [`sync_directory`](Self::sync_directory). Before that, a crash may keep any
/// subset, torn at 512-byte sectors. Clones share the directory.
pub trait Disk: Clone + Debug + Send + Sync + 'static {
    /// Where it is, for error messages.
    fn path(&self) -> PathBuf;

    /// Names and lengths of the files, sorted by name.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Creates `name`, or empties it, and fills it with zeros up to `length`; not durable yet.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, name: &str, length: u64) -> io::Result<()>;

    /// Reads at `offset` until `into` is full or the file ends; returns how many bytes.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] when there is no such file.
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `parts` behind each other at `offset`; not durable yet.
    ///
    /// # Errors
    /// What the system says; a part of the bytes may then be there.
    fn write_at(&self, name: &str, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Makes everything written to `name` durable.
    ///
    /// # Errors
    /// What the system says; nothing is known of the unsynced bytes then, for ever.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals durable.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    fn sync_directory(&self) -> io::Result<()>;

    /// Gives the file `from` the name `to`, replacing what had it; not durable yet.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes `name`; not durable yet.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Takes the directory for this process until the last clone is dropped; false if another
    /// holder has it.
    ///
    /// # Errors
    /// What the system says.
    fn try_lock(&self) -> io::Result<bool>;
}

/// What the system's refusal of `action` on `name` (empty: the directory) means to the node.
pub(crate) fn refused<D: Disk>(
    disk: &D,
    action: &'static str,
    name: &str,
    source: io::Error,
) -> StorageError {
    let path = if name.is_empty() { disk.path() } else { disk.path().join(name) };
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return StorageError::Full { path };
    }
    StorageError::Io { action, path, source }
}

/// A directory of the operating system; clones share file handles and the lock.
///
/// Needs a Unix system: positioned reads, and directories that can be synced.
#[derive(Clone)]
pub struct RealDisk {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writable: bool,
    handles: Mutex<Handles>,
    lock: Mutex<Option<File>>,
}

impl Drop for Shared {
    /// Gives the lock back by name: closing the file is not enough while a child of this process,
    /// between its fork and its own program, has it open too.
    fn drop(&mut self) {
        let lock = self.lock.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = lock.take() {
            // Whoever wants the directory next is told if it is still taken.
            let _ = file.unlock();
        }
    }
}

impl Debug for RealDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealDisk").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl RealDisk {
    /// The directory at `path`, created durably with its missing ancestors.
    ///
    /// # Errors
    /// What the system says: `path` is a file, may not be created, or cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        create_directory(&path)?;
        Self::of(path, true)
    }

    /// The directory at `path` as it is; every method that would change something fails.
    ///
    /// # Errors
    /// What the system says: `path` is a file, is not there, or cannot be read.
    pub fn read_only(path: impl Into<PathBuf>) -> io::Result<Self> {
        Self::of(path.into(), false)
    }

    fn of(path: PathBuf, writable: bool) -> io::Result<Self> {
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let handles = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { path, writable, handles, lock: Mutex::default() }) })
    }

    /// Whether some process has taken the directory; leaves the lock as it is.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_in_use(&self) -> io::Result<bool> {
        let file = match File::open(self.shared.path.join(LOCK_NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => file.unlock().map(|()| false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.shared.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, name: &str) -> io::Result<Arc<Handle>> {
        if let Some(handle) = self.handles().find(name) {
            return Ok(handle);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(self.shared.writable);
        let file = options.open(self.shared.path.join(name))?;
        Ok(self.handles().keep(name, file))
    }

    fn require_writable(&self) -> io::Result<()> {
        if self.shared.writable {
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }
}

/// Creates `path` and what is missing above it, and makes each new name durable.
fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("."),
    };
    create_directory(parent)?;
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(error),
    }
    File::open(parent)?.sync_all()
}

/// An open file; the mutex guards its cursor, which only vectored writes use.
struct Handle {
    file: File,
    cursor: Mutex<()>,
}

/// Open files by name, with the moment of their last use.
#[derive(Default)]
struct Handles {
    open: BTreeMap<String, (u64, Arc<Handle>)>,
    uses: u64,
}

impl Handles {
    fn find(&mut self, name: &str) -> Option<Arc<Handle>> {
        self.uses += 1;
        let (used, handle) = self.open.get_mut(name)?;
        *used = self.uses;
        Some(Arc::clone(handle))
    }

    fn keep(&mut self, name: &str, file: File) -> Arc<Handle> {
        self.uses += 1;
        let handle = Arc::new(Handle { file, cursor: Mutex::default() });
        self.open.insert(name.to_owned(), (self.uses, Arc::clone(&handle)));
        if self.open.len() > HANDLES_MAX {
            let oldest = self.open.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.open.remove(&name);
            }
        }
        handle
    }

    fn forget(&mut self, name: &str) {
        self.open.remove(name);
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.open.remove(to);
        if let Some(handle) = self.open.remove(from) {
            self.open.insert(to.to_owned(), handle);
        }
    }
}

impl Disk for RealDisk {
    fn path(&self) -> PathBuf {
        self.shared.path.clone()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.shared.path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Log and checkpoints are written beside each other: it was removed or renamed since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_file() {
                files.push((entry.file_name().to_string_lossy().into_owned(), metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn create(&self, name: &str, length: u64) -> io::Result<()> {
        self.require_writable()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(self.shared.path.join(name))?;
        let zeros = vec![0; FILL_BYTES];
        let mut at = 0;
        while at < length {
            let count = usize::try_from(length - at).unwrap_or(FILL_BYTES).min(FILL_BYTES);
            let part = zeros.get(..count).unwrap_or(&zeros);
            file.write_all_at(part, at)?;
            at += byte_count(part.len());
        }
        self.handles().keep(name, file);
        Ok(())
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let handle = self.handle(name)?;
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match handle.file.read_at(rest, offset + byte_count(done)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, name: &str, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.require_writable()?;
        let handle = self.handle(name)?;
        if let [part] = parts {
            return handle.file.write_all_at(part, offset);
        }
        let _cursor = handle.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = &handle.file;
        file.seek(SeekFrom::Start(offset))?;
        let mut parts = parts.to_vec();
        let mut rest = parts.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(count) => IoSlice::advance_slices(&mut rest, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.require_writable()?;
        self.handle(name)?.file.sync_data()
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.require_writable()?;
        File::open(&self.shared.path)?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.require_writable()?;
        let mut handles = self.handles();
        fs::rename(self.shared.path.join(from), self.shared.path.join(to))?;
        handles.rename(from, to);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.require_writable()?;
        let mut handles = self.handles();
        fs::remove_file(self.shared.path.join(name))?;
        handles.forget(name);
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.require_writable()?;
        let mut lock = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_some() {
            return Ok(true);
        }
        let mut options = OpenOptions::new();
        let path = self.shared.path.join(LOCK_NAME);
        let file = options.write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                *lock = Some(file);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A length in memory as a length on disk.
pub(crate) fn byte_count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
