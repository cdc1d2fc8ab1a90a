//! Every limit and timeout of a replica, with its unit, its default and what happens at it.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    checkpoint::CHUNK_BYTES,
    mutants::{Mutant, Mutants},
};

/// May a replica whose process has no memory found a group, when all the others have none either?
///
/// Only [`Durability::Diskless`](crate::model::durable::Durability::Diskless) asks: there the loss
/// of all replicas at once looks like a group that never was. With a disk, blank disks are proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Genesis {
    /// Only join: if nobody has the group any more, wait and say so.
    #[default]
    Join,
    /// Found it, empty. To be given for the very first start.
    Found,
}

/// Limits and timeouts of one replica. All replicas of a group should run the same.
///
/// | field | default | at the limit |
/// |---|---|---|
/// | `genesis` | `Join` | without disks no group is founded, only joined |
/// | `heartbeat_interval` | 50 ms | - |
/// | `suspicion_timeout` | 150 ms | a backup that heard nothing from its primary votes to leave the view |
/// | `suspicion_jitter_percent` | 10 | - |
/// | `suspicion_backoff_max` | 16 | the timeout of failed view changes stops doubling at this factor |
/// | `ping_interval` | 200 ms | - |
/// | `retry_interval` | 50 ms | an unanswered question is asked again |
/// | `hello_interval_max` | 1 s | back-off of a blank replica's questions stops growing |
/// | `window` | 64 | a client's further requests wait at the client; the replica answers busy |
/// | `clients_max` | 10 000 | the session that was used longest ago is closed; its client is told |
/// | `request_bytes_max` | 1 MiB | the operation is refused as too large |
/// | `message_bytes_max` | 4 MiB | prepares and transfers are split; a larger frame closes its connection |
/// | `pipeline_ops_max` | 1024 | requests are answered busy |
/// | `pipeline_bytes_max` | 16 MiB | requests are answered busy |
/// | `undurable_bytes_max` | 32 MiB | a backup lets further entries go, and asks for them once its storage has caught up; requests to a primary wait, and it hands its view off |
/// | `log_bytes_max` | 8 GiB | requests are answered busy; a backup lets further entries go until it holds a later checkpoint |
/// | `log_ops_max` | 2 000 000 | as with `log_bytes_max` |
/// | `queue_bytes_max` | 64 MiB | what would wait is answered busy |
/// | `checkpoint_ops` | 100 000 | a checkpoint is taken; 0: never, and the log is kept whole |
/// | `checkpoint_bytes` | 256 MiB | a checkpoint is taken |
/// | `persist_ops` | 1000 | a state that is on disk by itself is made durable; 0: only before checkpoints and at a shutdown |
/// | `persist_bytes` | 4 MiB | a state that is on disk by itself is made durable |
/// | `log_retain_ops` | 10 000 | older entries are released once they are in a checkpoint that a quorum holds |
/// | `log_cache_bytes_max` | 64 MiB | executed payloads are dropped from memory and read back when asked for |
/// | `execute_ops_max` | 1024 | committed ops wait before they are handed to the executor |
/// | `forward_ops_max` | 4096 | a backup answers busy |
/// | `forward_timeout` | 1 s | the backup answers busy, and the client tries again |
/// | `handoff_timeout` | 500 ms | a planned hand-off is given up, and the primary goes on |
/// | `lease` | 0, none | [`Read::Lease`](crate::model::read::Read::Lease) takes a round, like any other |
/// | `clock_drift_ppm_max` | 10 000 | clocks that differ by more may let leased reads see the past |
/// | `reads_max` | 65 536 | queries are answered busy |
/// | `transfer_headers_max` | 1024 | a larger range takes several questions |
/// | `transfer_bytes_max` | 1 MiB | a larger range takes several questions |
/// | `fetch_bytes_per_second` | 32 MiB | while operations are ordered, a checkpoint is fetched no faster; 0: as fast as it comes |
/// | `compress_checkpoints` | true | a chunk of a checkpoint travels as it is where compressing it saves less than an eighth, or the other end does not compress |
/// | `scrub_bytes_per_second` | 1 MiB | an idle replica reads its log back no faster, to notice damage; 0: never |
/// | `scrub_interval` | 1 h | the pause between two passes over the whole log |
/// | `clock_jump_max` | 60 s | a wall clock that jumped further ahead is not believed |
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Whether a group without disks may be founded.
    pub genesis: Genesis,
    /// How often an idle primary says that it is alive (h).
    pub heartbeat_interval: Duration,
    /// How long a primary may be silent, and how long a quorum may be silent to a primary (T).
    pub suspicion_timeout: Duration,
    /// Random addition to each suspicion timeout, in percent of it; at most 10.
    pub suspicion_jitter_percent: u32,
    /// How far failed view changes stretch the suspicion timeout, as a factor.
    pub suspicion_backoff_max: u32,
    /// How often backups tell each other where they stand.
    pub ping_interval: Duration,
    /// How long a question to a peer or a vote may stay unanswered before it is repeated.
    pub retry_interval: Duration,
    /// Longest pause between the questions of a replica that waits for its group.
    pub hello_interval_max: Duration,
    /// Requests that one client may have in flight; also the replies kept per client.
    pub window: u32,
    /// Sessions that the client table keeps. What the primary has here when a client registers goes
    /// into the log, so that all replicas keep as many, whatever they have.
    pub clients_max: u32,
    /// Bytes of one operation.
    pub request_bytes_max: u32,
    /// Bytes of one message on a connection.
    pub message_bytes_max: u32,
    /// Ops prepared and not yet committed.
    pub pipeline_ops_max: u32,
    /// Bytes prepared and not yet committed.
    pub pipeline_bytes_max: u32,
    /// Bytes of entries that a replica holds in memory because its storage has not made them durable;
    /// at a backup one message more than that at most, and at a primary a pipeline more. Who is slow
    /// for a moment should stay below, so it should be a multiple of `pipeline_bytes_max`.
    pub undurable_bytes_max: u64,
    /// Bytes of the whole log.
    pub log_bytes_max: u64,
    /// Ops of the whole log: their headers are in memory.
    pub log_ops_max: u64,
    /// Bytes of what waits, in each of four places: at the primary for room, and for a request before
    /// it; at a backup for its primary; and queries for a round.
    pub queue_bytes_max: u64,
    /// Ops between two checkpoints, which are taken after multiples of it; the same on all members, or
    /// they have none to compare. 0: there are none, and nothing of the log is ever released.
    pub checkpoint_ops: u32,
    /// Bytes of log between two checkpoints, if that comes first; the same on all members.
    pub checkpoint_bytes: u64,
    /// Ops between two times that a state which is on disk by itself is made durable; at most so many
    /// are executed again after a crash. 0: only before checkpoints and at a shutdown.
    pub persist_ops: u32,
    /// Bytes of log between two such times, if that comes first.
    pub persist_bytes: u64,
    /// Ops below the last checkpoint that stay in the log, so that a replica that was away for a
    /// little while gets them instead of a checkpoint; none while the log is half full, so half of
    /// `log_ops_max` has to hold them and `checkpoint_ops` together.
    pub log_retain_ops: u32,
    /// Bytes of payloads kept in memory besides those in the pipeline.
    pub log_cache_bytes_max: u64,
    /// Ops handed to the executor and not yet executed.
    pub execute_ops_max: u32,
    /// Requests that a backup holds for its primary.
    pub forward_ops_max: u32,
    /// How long a backup holds a request for a primary that does not answer.
    pub forward_timeout: Duration,
    /// How long requests wait at a primary for the successor of a planned hand-off to catch up.
    pub handoff_timeout: Duration,
    /// For how long a backup that heard its primary votes for no other view, so that the primary
    /// may answer [`Read::Lease`](crate::model::read::Read::Lease) without asking; 0 for never.
    /// Until it ends, no other view starts, also when the primary is known to be gone; and a
    /// replica that starts waits for it before it votes.
    pub lease: Duration,
    /// The most that the clock of a member gains or loses, in millionths of the time that passes;
    /// leases end early by it. Clocks that stand still while their machine is suspended break it.
    pub clock_drift_ppm_max: u32,
    /// Queries that wait for their read round.
    pub reads_max: u32,
    /// Headers in one answer.
    pub transfer_headers_max: u32,
    /// Bytes of entries in one answer.
    pub transfer_bytes_max: u32,
    /// Bytes of a checkpoint that a replica fetches per second while the group orders operations, so
    /// that these are not held up; a group that orders none gives what it can. 0 for no limit.
    ///
    /// Counted are the bytes that are written here: what comes compressed is less on the network.
    pub fetch_bytes_per_second: u64,
    /// Whether chunks of a checkpoint travel compressed (LZ4) between two replicas that both say so,
    /// wherever that saves an eighth. It is done beside everything else, for what is fetched only;
    /// replicas with and without it share their checkpoints, which are the same bytes.
    pub compress_checkpoints: bool,
    /// Bytes of its own log that an idle replica reads back per second, to notice damage before an
    /// entry is needed; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// How long it pauses before it reads the whole log again.
    pub scrub_interval: Duration,
    /// How far the wall clock may run ahead of log time plus elapsed time before it is ignored.
    pub clock_jump_max: Duration,
    /// Faults planted on purpose, to show that tests notice them.
    #[cfg(feature = "mutants")]
    pub mutants: Mutants,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            genesis: Genesis::Join,
            heartbeat_interval: Duration::from_millis(50),
            suspicion_timeout: Duration::from_millis(150),
            suspicion_jitter_percent: 10,
            suspicion_backoff_max: 16,
            ping_interval: Duration::from_millis(200),
            retry_interval: Duration::from_millis(50),
            hello_interval_max: Duration::from_secs(1),
            window: 64,
            clients_max: 10_000,
            request_bytes_max: 1 << 20,
            message_bytes_max: 4 << 20,
            pipeline_ops_max: 1024,
            pipeline_bytes_max: 16 << 20,
            undurable_bytes_max: 32 << 20,
            log_bytes_max: 8 << 30,
            log_ops_max: 2_000_000,
            queue_bytes_max: 64 << 20,
            checkpoint_ops: 100_000,
            checkpoint_bytes: 256 << 20,
            persist_ops: 1000,
            persist_bytes: 4 << 20,
            log_retain_ops: 10_000,
            log_cache_bytes_max: 64 << 20,
            execute_ops_max: 1024,
            forward_ops_max: 4096,
            forward_timeout: Duration::from_secs(1),
            handoff_timeout: Duration::from_millis(500),
            lease: Duration::ZERO,
            clock_drift_ppm_max: 10_000,
            reads_max: 65_536,
            transfer_headers_max: 1024,
            transfer_bytes_max: 1 << 20,
            fetch_bytes_per_second: 32 << 20,
            compress_checkpoints: true,
            scrub_bytes_per_second: 1 << 20,
            scrub_interval: Duration::from_secs(3600),
            clock_jump_max: Duration::from_secs(60),
            #[cfg(feature = "mutants")]
            mutants: Mutants::default(),
        }
    }
}

impl Config {
    /// The faults planted on purpose; none without the feature `mutants`.
    pub(crate) const fn mutants(&self) -> Mutants {
        #[cfg(feature = "mutants")]
        return self.mutants;
        #[cfg(not(feature = "mutants"))]
        Mutants::NONE
    }

    /// Sessions that are open, on their way, or still counted although their place is taken.
    pub(crate) const fn sessions_max(&self) -> u32 {
        self.clients_max.saturating_add(self.pipeline_ops_max)
    }

    /// Bytes of what a replica holds of entries that are not durable, or came before their
    /// predecessors: one message is taken whole, and a primary fills its pipeline, while there is any
    /// room.
    pub(crate) fn undurable_and_early_bytes_max(&self) -> u64 {
        self.undurable_bytes_max
            .saturating_add(u64::from(self.message_bytes_max))
            .saturating_add(u64::from(self.pipeline_bytes_max))
    }

    /// Whether this rule is broken on purpose.
    pub(crate) const fn mutant(&self, mutant: Mutant) -> bool {
        self.mutants().contain(mutant)
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// [`ConfigError`] names the field, what it is and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("window", u64::from(self.window)),
            ("clients_max", u64::from(self.clients_max)),
            ("request_bytes_max", u64::from(self.request_bytes_max)),
            ("pipeline_ops_max", u64::from(self.pipeline_ops_max)),
            ("undurable_bytes_max", self.undurable_bytes_max),
            ("log_bytes_max", self.log_bytes_max),
            ("checkpoint_bytes", self.checkpoint_bytes),
            ("persist_bytes", self.persist_bytes),
            ("execute_ops_max", u64::from(self.execute_ops_max)),
            ("forward_ops_max", u64::from(self.forward_ops_max)),
            ("reads_max", u64::from(self.reads_max)),
            ("transfer_headers_max", u64::from(self.transfer_headers_max)),
            ("transfer_bytes_max", u64::from(self.transfer_bytes_max)),
            ("suspicion_backoff_max", u64::from(self.suspicion_backoff_max)),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(ConfigError::Zero { field });
            }
        }
        let durations = [
            ("heartbeat_interval", self.heartbeat_interval),
            ("ping_interval", self.ping_interval),
            ("retry_interval", self.retry_interval),
            ("hello_interval_max", self.hello_interval_max),
            ("forward_timeout", self.forward_timeout),
            ("handoff_timeout", self.handoff_timeout),
            ("scrub_interval", self.scrub_interval),
        ];
        for (field, value) in durations {
            if value.is_zero() {
                return Err(ConfigError::Zero { field });
            }
        }
        self.validate_relations()
    }

    fn validate_relations(&self) -> Result<(), ConfigError> {
        let mut relations = self.relations_of_times().into_iter().chain(self.relations_of_sizes());
        match relations.find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ConfigError::Relation { rule }),
            None => Ok(()),
        }
    }

    fn relations_of_times(&self) -> [(bool, &'static str); 4] {
        [
            (
                u128::from(self.suspicion_jitter_percent) <= 10,
                "suspicion_jitter_percent must be at most 10",
            ),
            (
                self.suspicion_timeout >= self.heartbeat_interval.saturating_mul(2),
                "suspicion_timeout must be at least twice heartbeat_interval",
            ),
            (
                self.lease.is_zero()
                    || (self.lease > self.heartbeat_interval
                        && self.lease < self.suspicion_timeout),
                "lease must be longer than heartbeat_interval and shorter than suspicion_timeout",
            ),
            (
                self.clock_drift_ppm_max <= 100_000,
                "clock_drift_ppm_max must be at most 100000, a tenth",
            ),
        ]
    }

    fn relations_of_sizes(&self) -> [(bool, &'static str); 12] {
        let header = 128;
        let kept = u64::from(self.checkpoint_ops).saturating_add(u64::from(self.log_retain_ops));
        [
            (
                u64::from(self.message_bytes_max) >= u64::from(self.request_bytes_max) + 4096,
                "message_bytes_max must exceed request_bytes_max by at least 4096",
            ),
            (
                u64::from(self.pipeline_bytes_max) >= u64::from(self.request_bytes_max) + header,
                "pipeline_bytes_max must hold at least one request of request_bytes_max",
            ),
            (
                self.log_bytes_max >= u64::from(self.pipeline_bytes_max),
                "log_bytes_max must be at least pipeline_bytes_max",
            ),
            (
                self.log_ops_max > u64::from(self.pipeline_ops_max),
                "log_ops_max must exceed pipeline_ops_max",
            ),
            (
                self.checkpoint_ops == 0 || self.log_ops_max / 2 >= kept,
                "log_ops_max must be at least twice checkpoint_ops and log_retain_ops together, \
                 unless checkpoint_ops is 0",
            ),
            (
                self.queue_bytes_max >= u64::from(self.request_bytes_max),
                "queue_bytes_max must hold at least one request of request_bytes_max",
            ),
            (
                self.checkpoint_ops == 0 || self.checkpoint_bytes <= self.log_bytes_max / 2,
                "checkpoint_bytes must be at most half of log_bytes_max",
            ),
            (
                self.fetch_bytes_per_second == 0
                    || self.fetch_bytes_per_second >= u64::from(CHUNK_BYTES),
                "fetch_bytes_per_second must be 0 or at least a chunk of a checkpoint, 262144 bytes",
            ),
            (
                self.checkpoint_ops == 0 || self.message_bytes_max >= CHUNK_BYTES + 4096,
                "message_bytes_max must hold a chunk of a checkpoint, 266240 bytes, unless \
                 checkpoint_ops is 0",
            ),
            (
                u64::from(self.transfer_bytes_max) + 4096 <= u64::from(self.message_bytes_max),
                "transfer_bytes_max must stay 4096 below message_bytes_max",
            ),
            (
                (u64::from(self.transfer_headers_max) + 1) * 132
                    <= u64::from(self.message_bytes_max),
                "transfer_headers_max headers of 132 bytes must fit into message_bytes_max",
            ),
            (
                (u64::from(self.pipeline_ops_max) + 1) * 132 + 4096
                    <= u64::from(self.message_bytes_max),
                "pipeline_ops_max headers of 132 bytes must fit into message_bytes_max",
            ),
        ]
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A limit or duration that must be positive is zero.
    #[error("{field} is zero; it must be positive")]
    Zero {
        /// Which one.
        field: &'static str,
    },
    /// Two values contradict each other.
    #[error("{rule}")]
    Relation {
        /// The rule that is broken.
        rule: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn a_zero_limit_is_refused_by_name() {
        let config = Config { window: 0, ..Config::default() };
        assert_eq!(config.validate(), Err(ConfigError::Zero { field: "window" }));
    }

    #[test]
    fn a_lease_lies_between_heartbeat_and_suspicion() {
        let with = |milliseconds| {
            Config { lease: Duration::from_millis(milliseconds), ..Config::default() }.validate()
        };
        assert_eq!(with(100), Ok(()));
        assert!(with(50).is_err() && with(150).is_err());
    }

    /// Of a log that is half full nothing below the last checkpoint is retained.
    #[test]
    fn a_log_holds_what_is_between_two_checkpoints_and_what_is_retained_twice() {
        let with = |checkpoint_ops, log_retain_ops, log_ops_max| {
            Config { checkpoint_ops, log_retain_ops, log_ops_max, ..Config::default() }.validate()
        };
        assert_eq!(with(1000, 500, 3000), Ok(()));
        for config in [with(1000, 500, 2999), with(1000, 3_000_000, 2_000_000)] {
            let Err(ConfigError::Relation { rule }) = config else { panic!("{config:?}") };
            assert!(rule.contains("log_retain_ops"), "{rule}");
        }
        assert_eq!(with(0, 10_000, 3000), Ok(()), "nothing is released, whatever is retained");
        assert!(with(0, 0, 1024).is_err(), "no room beside the pipeline");
    }

    #[test]
    fn a_suspicion_shorter_than_two_heartbeats_is_refused() {
        let config = Config { suspicion_timeout: Duration::from_millis(60), ..Config::default() };
        assert!(matches!(config.validate(), Err(ConfigError::Relation { .. })));
        let config = Config { heartbeat_interval: Duration::MAX, ..Config::default() };
        assert!(matches!(config.validate(), Err(ConfigError::Relation { .. })));
    }
}
