//! What a replica can take at most, in memory and on disk, computed from its limits.

use core::fmt;

use crate::model::{checkpoint::CHUNK_BYTES, config::Config, durable::Durability};

/// Bytes of an entry's header, and of what is kept beside it in memory.
const HEADER_BYTES: u64 = 192;
/// Bytes of a header that is counted as a part of its entry.
const COUNTED_HEADER_BYTES: u64 = 128;
/// Bytes of a session without its replies: in the client table, and what a primary knows of it.
const SESSION_BYTES: u64 = 1024;
/// Bytes of a stored reply beside the reply itself.
const REPLY_BYTES: u64 = 96;
/// Bytes of a session and of a reply in a checkpoint, without the reply itself.
const WRITTEN_SESSION_BYTES: u64 = 72;
const WRITTEN_REPLY_BYTES: u64 = 20;
/// Client tables in bytes at a time: one of a frozen state that is being written, and one that is
/// written or read meanwhile, in memory that grew by doubling, or beside the head made of it.
const TABLES_WRITTEN: u64 = 3;
/// Bytes of what waits, beside an operation or a query.
const WAITING_BYTES: u64 = 256;
/// Chunks of a checkpoint that are in memory while one is written or read.
const CHUNKS_WRITTEN: u64 = 4;
/// Chunks on their way to a replica that fetches a checkpoint: not confirmed by storage, and asked
/// of each peer.
const CHUNKS_STORING: u64 = 8;
const CHUNKS_ASKED: u64 = 2;
/// Chunks that are read for others at a time.
const CHUNKS_SERVED: u64 = 32;
/// What one that is compressed, or is no more, takes beside what it was.
const CHUNKS_CONVERTED: u64 = 2;
/// What the disk holds of a batch at least, however little is in it: a page.
const BATCH_BYTES: u64 = 4096;
/// Checkpoints that are kept: the one held, the one before it, one that is being taken, one fetched.
const CHECKPOINTS: u64 = 4;
/// Log files that hold nothing: two spare ones, and the one that is being filled. Further spare ones
/// are there only while the log is shorter by as many.
const SPARE_SEGMENTS: u64 = 3;
const SEGMENT_BYTES: u64 = 16 << 20;

/// What the limits alone do not say of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The mode that the group runs in.
    pub durability: Durability,
    /// How many members the group has.
    pub members: u32,
    /// The largest reply of the state machine, in bytes; the last `window` of each session are kept.
    pub reply_bytes_max: u64,
    /// The largest snapshot of the state machine, in bytes.
    pub snapshot_bytes_max: u64,
}

/// One part of a [`Footprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// What it is.
    pub what: &'static str,
    /// The fields of [`Config`] that bound it.
    pub limit: &'static str,
    /// The most that it takes, in bytes.
    pub bytes: u64,
}

/// The most that a replica takes of memory and disk, by what takes it; [`Config::footprint`].
///
/// It leaves out the state machine itself, the transport's queues (which have limits of their own),
/// and what the allocator keeps for itself: expect half as much again.
///
/// Nor does it count what is rare and bounded by the log of others, or by time, only:
/// * A replica whose log begins before those of the others, because its checkpoint lags, and that
///   comes to a later view with what they have, may hold up to twice `log_bytes_max` and
///   `log_ops_max`. It takes no more then, and fetches a later checkpoint.
/// * A replica that comes to a later view holds the entries of that view's log that it lacks in
///   memory, until it has all of them and they are written as one.
/// * A backup that catches up drops no payload from memory before it has heard that it is
///   committed, which the next heartbeat tells.
///
/// The display form is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Parts of the memory.
    pub memory: Vec<Share>,
    /// Parts of the disk.
    pub disk: Vec<Share>,
}

impl Footprint {
    /// Bytes of memory, all parts together.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        sum(&self.memory)
    }

    /// Bytes on disk, all parts together.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        sum(&self.disk)
    }
}

fn sum(shares: &[Share]) -> u64 {
    shares.iter().fold(0, |sum, share| sum.saturating_add(share.bytes))
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, shares) in [("memory", &self.memory), ("disk", &self.disk)] {
            for share in shares {
                let Share { what, limit, bytes } = share;
                writeln!(f, "{place:6}  {:>12}  {what} ({limit})", in_mebibytes(*bytes))?;
            }
            writeln!(f, "{place:6}  {:>12}  together", in_mebibytes(sum(shares)))?;
        }
        Ok(())
    }
}

fn in_mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

const fn share(what: &'static str, limit: &'static str, bytes: u64) -> Share {
    Share { what, limit, bytes }
}

impl Config {
    /// What a replica with these limits can take at most, while clients, peers and the state
    /// machine do their worst.
    ///
    /// Most groups stay far below: the log is shortened at each checkpoint that a quorum agrees on,
    /// and grows up to its limits only while none can.
    #[must_use]
    pub fn footprint(&self, usage: &Usage) -> Footprint {
        Footprint { memory: self.memory(usage), disk: self.disk(usage) }
    }

    fn memory(&self, usage: &Usage) -> Vec<Share> {
        let ops = self.log_ops_max.min(self.log_bytes_max / 128);
        let mebibyte = 1 << 20;
        let largest = u64::from(self.request_bytes_max);
        let pipeline = u64::from(self.pipeline_bytes_max).saturating_add(largest);
        let (payloads, bounded_by) = match usage.durability {
            Durability::Full => (self.log_cache_bytes_max, "log_cache_bytes_max"),
            Durability::ViewOnly | Durability::Diskless => (self.log_bytes_max, "log_bytes_max"),
        };
        let waiting = u64::from(self.pipeline_ops_max)
            .saturating_add(u64::from(self.forward_ops_max))
            .saturating_add(u64::from(self.reads_max))
            .saturating_mul(WAITING_BYTES);
        let peers = u64::from(usage.members.saturating_sub(1));
        let chunks = CHUNKS_WRITTEN
            + CHUNKS_STORING
            + CHUNKS_SERVED
            + CHUNKS_CONVERTED
            + CHUNKS_ASKED * peers;
        let transfers = u64::from(self.transfer_bytes_max).saturating_mul(4 * peers);
        let held = self.held_for_storage(usage);
        let checkpoints = match usage.durability {
            Durability::Full => 0,
            Durability::ViewOnly | Durability::Diskless => self.checkpoints(usage),
        };
        vec![
            share("headers of the log", "log_ops_max", ops.saturating_mul(HEADER_BYTES)),
            share("payloads of the log", bounded_by, payloads),
            share("prepared and not committed", "pipeline_bytes_max", pipeline),
            share("not durable, or early", "undurable_bytes_max, pipeline_bytes_max", held),
            share(
                "handed to the executor",
                "pipeline_bytes_max",
                pipeline.saturating_add(mebibyte),
            ),
            share(
                "waiting for room, a primary or a round",
                "queue_bytes_max",
                self.queue_bytes_max.saturating_mul(4).saturating_add(waiting),
            ),
            share("sessions and their replies", "clients_max, window", self.sessions(usage)),
            share("sessions on their way", "clients_max, window", self.tables(usage)),
            share("checkpoints", "checkpoint_ops", checkpoints),
            share("parts of checkpoints", "-", chunks * u64::from(CHUNK_BYTES)),
            share("answers to peers that lag", "transfer_bytes_max", transfers),
        ]
    }

    /// Bytes of what a replica holds of entries that storage does not have. The log's headers are
    /// counted elsewhere; here are those that are early, or are on their way to storage.
    fn held_for_storage(&self, usage: &Usage) -> u64 {
        let bytes = match usage.durability {
            Durability::Full => self.undurable_and_early_bytes_max(),
            Durability::ViewOnly | Durability::Diskless => u64::from(self.pipeline_bytes_max),
        };
        bytes.div_ceil(COUNTED_HEADER_BYTES).saturating_mul(HEADER_BYTES)
    }

    fn disk(&self, usage: &Usage) -> Vec<Share> {
        let superblock = share("superblock", "-", 32 << 10);
        match usage.durability {
            Durability::Full => {}
            Durability::ViewOnly => return vec![superblock],
            Durability::Diskless => return Vec::new(),
        }
        let batches = self.log_ops_max.saturating_mul(BATCH_BYTES);
        vec![
            superblock,
            share(
                "log, if each op is synced alone",
                "log_bytes_max, log_ops_max",
                self.log_bytes_max.saturating_add(batches),
            ),
            share("log files without content", "-", SPARE_SEGMENTS * SEGMENT_BYTES),
            share("checkpoints", "checkpoint_ops", self.checkpoints(usage)),
        ]
    }

    /// Bytes of all checkpoints that are kept at a time.
    fn checkpoints(&self, usage: &Usage) -> u64 {
        let kept = if self.checkpoint_ops == 0 { 0 } else { CHECKPOINTS };
        usage.snapshot_bytes_max.saturating_add(self.sessions(usage)).saturating_mul(kept)
    }

    /// Bytes of the copies of the client table while a checkpoint is taken, or restored: then the
    /// table before it stays until the new one is whole.
    fn tables(&self, usage: &Usage) -> u64 {
        if self.checkpoint_ops == 0 {
            return 0;
        }
        let reply = usage.reply_bytes_max.saturating_add(WRITTEN_REPLY_BYTES);
        let session = u64::from(self.window).saturating_mul(reply);
        let session = session.saturating_add(WRITTEN_SESSION_BYTES);
        let written = u64::from(self.sessions_max()).saturating_mul(session);
        let written = written.saturating_add(u64::from(CHUNK_BYTES));
        self.sessions(usage).saturating_add(written.saturating_mul(TABLES_WRITTEN))
    }

    /// Bytes of the client table.
    fn sessions(&self, usage: &Usage) -> u64 {
        let reply = usage.reply_bytes_max.saturating_add(REPLY_BYTES);
        let replies = u64::from(self.window).saturating_mul(reply);
        u64::from(self.sessions_max()).saturating_mul(replies.saturating_add(SESSION_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage {
        durability: Durability::Full,
        members: 3,
        reply_bytes_max: 64,
        snapshot_bytes_max: 1 << 30,
    };

    fn of<'a>(shares: &'a [Share], what: &str) -> &'a Share {
        shares.iter().find(|share| share.what.starts_with(what)).unwrap()
    }

    #[test]
    fn a_mode_without_a_log_on_disk_has_it_in_memory() {
        let config = Config::default();
        let full = config.footprint(&USAGE);
        let view_only = config.footprint(&Usage { durability: Durability::ViewOnly, ..USAGE });
        assert_eq!(of(&full.memory, "payloads").bytes, config.log_cache_bytes_max);
        assert_eq!(of(&view_only.memory, "payloads").bytes, config.log_bytes_max);
        assert_eq!(view_only.disk_bytes(), 32 << 10);
        assert!(full.disk_bytes() > config.log_bytes_max + (1 << 30));
        let diskless = config.footprint(&Usage { durability: Durability::Diskless, ..USAGE });
        assert_eq!(diskless.disk_bytes(), 0);
    }

    #[test]
    fn every_limit_that_it_names_moves_it() {
        let half = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.footprint(&USAGE).memory_bytes()
        };
        let usual = half(|_| {});
        for smaller in [
            half(|config| config.log_ops_max /= 2),
            half(|config| config.log_cache_bytes_max /= 2),
            half(|config| config.pipeline_bytes_max /= 2),
            half(|config| config.undurable_bytes_max /= 2),
            half(|config| config.queue_bytes_max /= 2),
            half(|config| config.clients_max /= 2),
            half(|config| config.window /= 2),
            half(|config| config.transfer_bytes_max /= 2),
        ] {
            assert!(smaller < usual, "{smaller} is not below {usual}");
        }
    }

    #[test]
    fn sessions_are_counted_again_where_checkpoints_are_taken() {
        let mut config = Config::default();
        let memory = config.footprint(&USAGE).memory;
        let (table, copies) = (of(&memory, "sessions and").bytes, of(&memory, "sessions on").bytes);
        assert!(copies > 2 * table, "a second table, and three in bytes: {copies} of {table}");
        config.checkpoint_ops = 0;
        assert_eq!(of(&config.footprint(&USAGE).memory, "sessions on").bytes, 0);
    }

    #[test]
    fn it_is_shown_as_a_table_with_a_sum() {
        let shown = Config::default().footprint(&USAGE).to_string();
        assert!(shown.contains("  64 MiB  payloads of the log (log_cache_bytes_max)"));
        assert_eq!(shown.lines().filter(|line| line.ends_with("together")).count(), 2);
    }
}
