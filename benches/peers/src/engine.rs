//! What a replication engine without IO looks like to the loops that drive it, and its disk.

use std::{fs::File, os::unix::fs::FileExt, path::Path, time::Instant};

use anyhow::bail;
use bytes::Bytes;
use vr_benches::load::engines::Engines;

/// Replicas of every group.
pub const REPLICAS: usize = 3;

/// A replica lets its log go once it has so many operations more than it keeps, as ours does.
pub const LOG_OPS: u64 = 100_000;

/// So many operations are kept for replicas that are behind.
pub const LOG_KEPT: u64 = 10_000;

/// Bytes of a log file, zero-filled before anything is measured.
const WAL_BYTES: u64 = 64 << 20;

/// An engine of one replica. A loop tells it what came in, then lets it work in three steps, so
/// that what need not wait for the disk leaves before the disk is waited for.
pub trait Engine: Sized {
    /// What replicas tell each other.
    type Message;

    /// The name in tables.
    const NAME: &'static str;

    /// Replica `me` of three.
    fn new(me: usize, wal: Option<Wal>) -> anyhow::Result<Self>;

    /// From now on it takes out what is committed also while it does not lead, as a replica whose
    /// service has to keep up. The loop over three engines asks only the leader.
    fn keep_up(&mut self) {}

    /// How often it wants to hear of time passing, in milliseconds.
    fn tick(&mut self);

    /// Whether it takes proposals.
    fn leads(&self) -> bool;

    /// Proposes an operation, which `tag` names.
    fn propose(&mut self, tag: u64, payload: Bytes);

    /// Takes a message of another replica.
    fn receive(&mut self, message: Self::Message);

    /// Adds the messages that may leave before the disk is synced.
    fn before_sync(&mut self, out: &mut Vec<(usize, Self::Message)>);

    /// Makes durable what has to be.
    fn sync(&mut self) -> anyhow::Result<()>;

    /// Adds the messages that had to wait for the disk, and the tags of what is committed; true if
    /// there is more to do at once.
    fn after_sync(&mut self, out: &mut Vec<(usize, Self::Message)>, done: &mut Vec<u64>) -> bool;

    /// Appends the bytes of a message.
    fn encode(message: &Self::Message, into: &mut Vec<u8>);

    /// Reads a message.
    fn decode(bytes: &[u8]) -> anyhow::Result<Self::Message>;
}

/// A log file: zero-filled, one write and one sync for each batch, begun anew when it is full.
#[derive(Debug)]
pub struct Wal {
    file: File,
    at: u64,
    batch: Vec<u8>,
}

impl Wal {
    /// A zero-filled file.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)?;
        let zeroes = vec![0; 1 << 20];
        for at in 0..WAL_BYTES >> 20 {
            file.write_all_at(&zeroes, at << 20)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0, batch: Vec::new() })
    }

    /// Adds a record to the batch.
    pub fn push(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.batch.extend_from_slice(&(length as u32).to_le_bytes());
        parts.iter().for_each(|part| self.batch.extend_from_slice(part));
    }

    /// Writes the batch and syncs it; nothing if there is none.
    pub fn sync(&mut self) -> anyhow::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let length = self.batch.len() as u64;
        if self.at + length > WAL_BYTES {
            self.at = 0;
        }
        if length > WAL_BYTES {
            bail!("a batch of {length} bytes is larger than the file");
        }
        self.file.write_all_at(&self.batch, self.at)?;
        self.file.sync_data()?;
        self.at += length;
        self.batch.clear();
        Ok(())
    }
}

/// Three engines of a kind and their clients, in one loop.
pub struct InLoop<E: Engine> {
    engines: Vec<E>,
    inboxes: Vec<Vec<E::Message>>,
    out: Vec<(usize, E::Message)>,
    done: Vec<u64>,
    ticked: Instant,
    leader: usize,
}

impl<E: Engine> InLoop<E> {
    /// A group that has a leader.
    pub fn start() -> anyhow::Result<Self> {
        let engines = (0..REPLICAS).map(|me| E::new(me, None)).collect::<Result<Vec<_>, _>>()?;
        let inboxes = (0..REPLICAS).map(|_| Vec::new()).collect();
        let (out, done, ticked) = (Vec::new(), Vec::new(), Instant::now());
        let mut this = Self { engines, inboxes, out, done, ticked, leader: 0 };
        let begun = Instant::now();
        loop {
            this.turn(Instant::now(), &mut Vec::new())?;
            if let Some(leader) = this.engines.iter().position(E::leads) {
                this.leader = leader;
                return Ok(this);
            }
            if begun.elapsed().as_secs() > 10 {
                bail!("{} elects nobody", E::NAME);
            }
        }
    }
}

impl<E: Engine> Engines for InLoop<E> {
    fn submit(&mut self, client: usize, payload: Bytes) {
        self.engines[self.leader].propose(client as u64, payload);
    }

    fn turn(&mut self, now: Instant, answered: &mut Vec<usize>) -> anyhow::Result<()> {
        let is_time = now.duration_since(self.ticked) >= crate::server::TICK;
        if is_time {
            self.ticked = now;
        }
        for at in 0..REPLICAS {
            let engine = &mut self.engines[at];
            if is_time {
                engine.tick();
            }
            for message in self.inboxes[at].drain(..) {
                engine.receive(message);
            }
            loop {
                engine.before_sync(&mut self.out);
                engine.sync()?;
                let has_more = engine.after_sync(&mut self.out, &mut self.done);
                for (to, message) in self.out.drain(..) {
                    self.inboxes[to].push(message);
                }
                if !has_more {
                    break;
                }
            }
            if at == self.leader {
                answered.extend(self.done.iter().map(|tag| *tag as usize));
            }
            self.done.clear();
        }
        Ok(())
    }
}
