//! raft-engine 0.4, the log that tikv brings with it: zero-filled files that are used again, one
//! write and one sync for each batch.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::bail;
use raft::{Ready, eraftpb::Entry};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};

/// The name in tables.
pub const NAME: &str = "raft + raft-engine";

/// The only group of replicas.
const GROUP: u64 = 1;
/// A group that only fills the first file.
const FILLER: u64 = 2;
/// MiB of each file.
const FILE_MIB: u64 = 16;
/// MiB beyond which files are emptied, to be used again; half as much again is zero-filled.
const KEPT_MIB: u64 = 64;
/// Entries that are let go of together.
const LET_GO: u64 = 4096;
/// How often files are emptied.
const PURGE_INTERVAL: Duration = Duration::from_millis(100);

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// The log of one replica.
pub struct EngineLog {
    engine: Arc<Engine>,
    batch: LogBatch,
    first: u64,
}

impl EngineLog {
    /// A log in a new directory, whose first file is one that was zero-filled.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let Some(dir) = dir.to_str() else { bail!("{} is no UTF-8", dir.display()) };
        let engine = Arc::new(Engine::open(Config {
            dir: dir.to_owned(),
            // What is written is what it is for every other system, whose logs compress nothing.
            batch_compression_threshold: ReadableSize::kb(0),
            target_file_size: ReadableSize::mb(FILE_MIB),
            purge_threshold: ReadableSize::mb(KEPT_MIB),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            prefill_limit: Some(ReadableSize::mb(KEPT_MIB)),
            ..Config::default()
        })?);
        let mut batch = LogBatch::default();
        batch.put(FILLER, b"filler".to_vec(), vec![0; (FILE_MIB as usize) << 20])?;
        engine.write(&mut batch, true)?;
        batch.add_command(FILLER, Command::Clean);
        engine.write(&mut batch, true)?;
        let purged = Arc::clone(&engine);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(PURGE_INTERVAL);
                if let Err(error) = purged.purge_expired_files() {
                    eprintln!("raft-engine: {error}");
                }
            }
        });
        Ok(Self { engine, batch, first: 0 })
    }

    /// Makes entries and votes durable.
    pub fn sync(&mut self, ready: &Ready) -> anyhow::Result<()> {
        self.batch.add_entries::<Entries>(GROUP, ready.entries())?;
        if let Some(state) = ready.hs() {
            self.batch.put_message(GROUP, b"state".to_vec(), state)?;
        }
        self.engine.write(&mut self.batch, true)?;
        Ok(())
    }

    /// Lets go of entries that are executed; memory has them for those that lag.
    pub fn let_go(&mut self, executed: u64) {
        if executed >= self.first + LET_GO {
            self.first = executed;
            self.batch.add_command(GROUP, Command::Compact { index: executed });
        }
    }
}
