//! What goes into a client's session and what comes out of it.

use core::time::Duration;

use bytes::Bytes;

use crate::{
    client::{call::CallId, outcome::RequestError, ticket::Ticket},
    model::{
        config::Config,
        message::Envelope,
        operation::Operation,
        read::Read,
        time::Instant,
        types::{OpNumber, ReplicaId},
    },
    ports::transport::Received,
};

/// Limits and timers of one client.
///
/// | field | default | at the limit |
/// |---|---|---|
/// | `window` | `Config::window`, 64 | further calls wait in the queue |
/// | `queued_calls_max` | 4096 | a call fails with [`RequestError::Busy`] |
/// | `queued_bytes_max` | 64 MiB | a call fails with [`RequestError::Busy`] |
/// | `queries_max` | 4096 | a query fails with [`RequestError::Busy`] |
/// | `resumes_max`, `queued_bytes_max` | 1024, 64 MiB | a resumed call fails with [`RequestError::NotResumed`] |
/// | `request_bytes_max` | `Config::request_bytes_max`, 1 MiB | a call fails with [`RequestError::TooLarge`] |
/// | `retry_interval` | twice `Config::heartbeat_interval`, 100 ms | doubles up to 16 times itself while nothing is answered |
/// | `busy_interval` | a fifth of `Config::heartbeat_interval`, 10 ms | doubles up to 16 times itself while the group is busy |
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Requests in flight; at most what the group keeps replies for.
    pub window: u32,
    /// Calls that wait for room in the window.
    pub queued_calls_max: u32,
    /// Bytes of the operations of those calls, and as many of the tickets that are resumed.
    pub queued_bytes_max: u64,
    /// Queries without an answer.
    pub queries_max: u32,
    /// Resumed calls without a reply.
    pub resumes_max: u32,
    /// Bytes of one operation or query.
    pub request_bytes_max: u32,
    /// How long nothing may be answered before everything in flight is sent to all replicas. It
    /// is shorter than the suspicion timeout, so that the backups hold the requests already when
    /// they start the next view.
    pub retry_interval: Duration,
    /// How long to wait before sending again what a replica was too busy for.
    pub busy_interval: Duration,
}

impl SessionOptions {
    /// The defaults for a group that runs `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            window: config.window,
            queued_calls_max: 4096,
            queued_bytes_max: 64 << 20,
            queries_max: 4096,
            resumes_max: 1024,
            request_bytes_max: config.request_bytes_max,
            retry_interval: config.heartbeat_interval.saturating_mul(2),
            busy_interval: config.heartbeat_interval / 5,
        }
    }
}

/// Something that happened to a client.
#[derive(Clone, Debug)]
pub enum ClientInput {
    /// Somebody wants an operation executed.
    Execute {
        /// Names the call in [`ClientOutput::Done`].
        call: CallId,
        /// When the caller stops waiting.
        deadline: Instant,
        /// The operation, or several.
        operation: Operation,
    },
    /// Somebody wants to know what became of an earlier request.
    Resume {
        /// Names the call in [`ClientOutput::Done`].
        call: CallId,
        /// When the caller stops waiting.
        deadline: Instant,
        /// The request.
        ticket: Ticket,
    },
    /// Somebody asks a question.
    Query {
        /// Names the call in [`ClientOutput::Done`].
        call: CallId,
        /// When the caller stops waiting.
        deadline: Instant,
        /// How fresh the answer must be.
        read: Read,
        /// The query's bytes.
        query: Bytes,
    },
    /// The caller waits no longer; no [`ClientOutput::Done`] follows.
    Abandon {
        /// Which call.
        call: CallId,
    },
    /// The transport has something to tell.
    Received(Received),
    /// The deadline passed.
    Timeout,
    /// No more calls; those that wait fail now.
    Close,
}

/// Something a client wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOutput {
    /// Give this to the transport; it may be dropped.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        envelope: Box<Envelope>,
    },
    /// A call is over.
    Done {
        /// Which.
        call: CallId,
        /// What it came to.
        result: Result<Completed, RequestError>,
    },
}

/// What a call returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Where the operation stands in the log; for a query, the last op that the answer reflects.
    pub op_number: OpNumber,
    /// The reply's or answer's bytes.
    pub bytes: Bytes,
}
