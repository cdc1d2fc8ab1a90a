//! A key-value store whose state is on disk in a redb database, and not in memory.

use std::{
    io::{ErrorKind, Read, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use vr_core::{
    Context, OnDisk, OpNumber, QueryContext, SnapshotError, SnapshotReader, SnapshotSource,
    SnapshotWriter, StateMachine,
};

const VALUES: TableDefinition<'_, &str, &str> = TableDefinition::new("values");
/// One row: what belongs to the state that is committed with it.
const COMPANION: TableDefinition<'_, (), &[u8]> = TableDefinition::new("companion");

/// What changes a [`RedbKv`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// Gives the key a value; returns the one before.
    Put(String, String),
    /// Takes the key away; returns its value.
    Delete(String),
    /// Adds to the number that the key has, 0 if it has none; returns the sum.
    Add(String, i64),
}

/// What a process has done to its database; clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    applied: Arc<AtomicU64>,
    restored: Arc<AtomicU64>,
}

impl Counts {
    /// Operations that were executed.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// Times that the whole state was replaced.
    #[must_use]
    pub fn restored(&self) -> u64 {
        self.restored.load(Ordering::Relaxed)
    }
}

/// Keys and values in a redb database.
///
/// Operations change a write transaction that stays open until the node asks for it to be
/// committed. Nothing of the state is in memory but redb's cache.
#[derive(Debug)]
pub struct RedbKv {
    // Dropped first, which aborts it.
    open: Option<Open>,
    database: Database,
    counts: Counts,
}

/// The write transaction; it does not say what is in it.
struct Open(WriteTransaction);

impl core::fmt::Debug for Open {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Open")
    }
}

impl RedbKv {
    /// Opens the database in the file at `path`, or makes it.
    ///
    /// # Errors
    /// It is not a database, or the disk failed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, redb::Error> {
        let database = Database::create(path)?;
        let tables = database.begin_write()?;
        tables.open_table(VALUES)?;
        tables.open_table(COMPANION)?;
        tables.commit()?;
        Ok(Self { open: None, database, counts: Counts::default() })
    }

    /// What this process does to the database.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// The transaction that is open, or a new one.
    fn transaction(&mut self) -> Result<&mut WriteTransaction, redb::Error> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Open(self.database.begin_write()?),
        };
        Ok(&mut self.open.insert(open).0)
    }

    fn change(&mut self, operation: Operation) -> Result<Option<String>, redb::Error> {
        let mut values = self.transaction()?.open_table(VALUES)?;
        let text = |value: redb::AccessGuard<'_, &str>| value.value().to_owned();
        Ok(match operation {
            Operation::Put(key, value) => values.insert(key.as_str(), value.as_str())?.map(text),
            Operation::Delete(key) => values.remove(key.as_str())?.map(text),
            Operation::Add(key, by) => {
                let before = values.get(key.as_str())?.map(text);
                let before: i64 = before.and_then(|text| text.parse().ok()).unwrap_or(0);
                let sum = before.wrapping_add(by).to_string();
                values.insert(key.as_str(), sum.as_str())?;
                Some(sum)
            }
        })
    }

    fn value(&self, key: &str) -> Result<Option<String>, redb::Error> {
        let value = match &self.open {
            Some(open) => open.0.open_table(VALUES)?.get(key)?.map(|it| it.value().to_owned()),
            None => {
                let values = self.database.begin_read()?.open_table(VALUES)?;
                values.get(key)?.map(|it| it.value().to_owned())
            }
        };
        Ok(value)
    }
}

/// What the node is told of the database's trouble.
fn failed(error: impl Into<redb::Error>) -> SnapshotError {
    SnapshotError::Io(std::io::Error::other(error.into()))
}

impl StateMachine for RedbKv {
    type Operation = Operation;
    type Reply = Option<String>;
    type Query = String;
    type Answer = Option<String>;

    /// # Panics
    /// If the disk fails: the node stops, and the operation is executed after the next start.
    fn apply(&mut self, _: &Context, operation: Operation) -> Option<String> {
        self.counts.applied.fetch_add(1, Ordering::Relaxed);
        self.change(operation).expect("the database takes a change")
    }

    /// # Panics
    /// If the disk fails: the node stops.
    fn query(&self, _: &QueryContext, key: String) -> Option<String> {
        self.value(&key).expect("the database can be read")
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        match &self.open {
            Some(open) => write_all(&open.0.open_table(VALUES).map_err(failed)?, out),
            None => Fork(self.database.begin_read().map_err(failed)?).snapshot(out),
        }
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.counts.restored.fetch_add(1, Ordering::Relaxed);
        let transaction = self.transaction().map_err(failed)?;
        transaction.delete_table(VALUES).map_err(failed)?;
        let mut values = transaction.open_table(VALUES).map_err(failed)?;
        while let Some(key) = read_text(from)? {
            let value = read_text(from)?.ok_or(SnapshotError::Unreadable)?;
            values.insert(key.as_str(), value.as_str()).map_err(failed)?;
        }
        Ok(())
    }

    /// A read transaction sees what was committed when it began. The node asks right behind a
    /// `persist`, when that is everything.
    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        if self.open.is_some() {
            return None;
        }
        let frozen = self.database.begin_read().ok()?;
        Some(Box::new(Fork(frozen)))
    }

    fn on_disk(&mut self) -> Option<&mut dyn OnDisk> {
        Some(self)
    }
}

impl OnDisk for RedbKv {
    fn persisted(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let committed = self.database.begin_read().map_err(failed)?;
        let companion = committed.open_table(COMPANION).map_err(failed)?;
        let row = companion.get(()).map_err(failed)?;
        Ok(row.map(|row| Bytes::copy_from_slice(row.value())))
    }

    fn persist(&mut self, _: OpNumber, companion: &Bytes) -> Result<(), SnapshotError> {
        let transaction = self.transaction().map_err(failed)?;
        let mut row = transaction.open_table(COMPANION).map_err(failed)?;
        row.insert((), companion.as_ref()).map_err(failed)?;
        drop(row);
        match self.open.take() {
            Some(open) => open.0.commit().map_err(failed),
            None => Ok(()),
        }
    }

    fn reset(&mut self) -> Result<(), SnapshotError> {
        let transaction = self.transaction().map_err(failed)?;
        transaction.delete_table(VALUES).map_err(failed)?;
        transaction.open_table(VALUES).map_err(failed)?;
        Ok(())
    }
}

/// The state as it was committed once, whatever is committed after it.
struct Fork(ReadTransaction);

impl SnapshotSource for Fork {
    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        write_all(&self.0.open_table(VALUES).map_err(failed)?, out)
    }
}

/// Writes all rows in the order of their keys, one in memory at a time.
fn write_all(
    values: &impl ReadableTable<&'static str, &'static str>,
    out: &mut SnapshotWriter<'_>,
) -> Result<(), SnapshotError> {
    for row in values.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        for text in [key.value(), value.value()] {
            let length = u32::try_from(text.len()).map_err(|_| SnapshotError::Unreadable)?;
            out.write_all(&length.to_le_bytes())?;
            out.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}

/// The next text; `None` at the end.
fn read_text(from: &mut SnapshotReader<'_>) -> Result<Option<String>, SnapshotError> {
    let mut length = [0; 4];
    let (first, rest) = length.split_at_mut(1);
    match from.read_exact(first) {
        Ok(()) => from.read_exact(rest)?,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = u64::from(u32::from_le_bytes(length));
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()) != Ok(length) {
        return Err(SnapshotError::Unreadable);
    }
    String::from_utf8(bytes).map(Some).map_err(|_| SnapshotError::Unreadable)
}
