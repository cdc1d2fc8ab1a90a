//! A node at one instant, in numbers.

use core::time::Duration;

use crate::{
    model::{
        config::Config,
        types::{OpNumber, ReplicaId},
    },
    node::stop::NodeError,
    replica::io::{Discarded, ReplicaStatus},
};

/// Where the state machine executes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExecutorMode {
    /// On the node's own task: the shortest way for operations that take microseconds. One that
    /// takes longer than the heartbeat interval moves the executor to a thread for good, and so do
    /// several, each above a quarter of it, that take so long together; a 200th of the time that
    /// passes is forgiven. Restoring a state does not count.
    #[default]
    Inline,
    /// On a thread of its own: a slow operation delays the operations behind it and nothing else.
    Thread,
}

/// A node at one instant; [`explain`](crate::node::explain::explain) puts it into words.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The group's name.
    pub group: String,
    /// The limits and timeouts that the node runs with.
    pub config: Config,
    /// How long the node has been running.
    pub uptime: Duration,
    /// How long the replica has been between two views; `None` in a view.
    pub between_views: Option<Duration>,
    /// The engine's numbers.
    pub replica: ReplicaStatus,
    /// How a checkpoint comes along that is on its way here; `None` while none is.
    pub fetching: Option<FetchingStatus>,
    /// Why the state that was on the state machine's own disk was of no use, until it has been made
    /// again.
    pub discarded: Option<Discarded>,
    /// The executor's numbers.
    pub executor: ExecutorStatus,
    /// What the node has written.
    pub storage: StorageStatus,
    /// What the node has sent and received.
    pub transport: TransportStatus,
    /// Events that listeners were too slow for, over all listeners.
    pub events_lost: u64,
    /// The node runs no more: it was shut down, or `stopped` says why.
    pub has_stopped: bool,
    /// Why the node stopped, or is about to; `None` while it runs and after a shutdown.
    pub stopped: Option<NodeError>,
}

/// How a checkpoint comes along that is on its way here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchingStatus {
    /// For how long nothing of it has arrived or been stored.
    pub idle: Duration,
    /// How many were begun, this one included, since one was installed.
    pub begun: u64,
}

/// The executor's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorStatus {
    /// Where the state machine executes now.
    pub mode: ExecutorMode,
    /// Items of work handed over and not yet begun.
    pub queued: u64,
    /// The op that is being applied right now.
    pub applying: Option<OpNumber>,
    /// The longest step since the start, or up to 64 quick ones in a row; but for restoring a state.
    /// Measured only while executing inline.
    pub longest_step: Duration,
}

/// What the node has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageStatus {
    /// Batches that are durable.
    pub batches: u64,
    /// Writes that went with them; more than batches when writes were gathered.
    pub writes: u64,
    /// Bytes of entries in those batches.
    pub entry_bytes: u64,
    /// Writes that wait for the batch in flight.
    pub queued: u64,
    /// Bytes of entries that wait for the batch in flight.
    pub queued_bytes: u64,
    /// Questions to storage without an answer.
    pub fetches: u64,
}

/// What the node has sent and received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStatus {
    /// Replicas there is a way to now.
    pub connected: Vec<ReplicaId>,
    /// Clients there is a way to now, those in this process included.
    pub clients: u64,
    /// Envelopes received.
    pub received: u64,
    /// Envelopes the transport took.
    pub sent: u64,
    /// Envelopes dropped here because there was no way to the peer.
    pub dropped_unconnected: u64,
    /// Envelopes dropped here because a queue was full.
    pub dropped_full: u64,
    /// Envelopes dropped here because they were larger than `message_bytes_max`.
    pub dropped_large: u64,
    /// What the transport complained about in the last minute, newest last: refused handshakes and the
    /// like.
    pub complaints: Vec<String>,
}
