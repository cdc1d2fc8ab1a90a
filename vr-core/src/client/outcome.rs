//! Why a call of a client failed, and whether its operation executed all the same.

use core::{fmt, time::Duration};

use crate::model::message::Limit;

/// What became of an operation whose call did not return its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientOutcome {
    /// It changed nothing and never will; calling again is safe.
    NotExecuted,
    /// It executed, once; only its reply is missing.
    Executed,
    /// It executed once, will execute once, or never will; nobody here can tell.
    Unknown,
}

/// Why a call of a [`Client`](crate::client::Client) did not return a reply.
///
/// Every variant says what became of the operation, and [`outcome`](Self::outcome) answers the
/// same for a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Too many calls of this client wait already. Not executed; call again when others returned.
    #[error("{waiting} calls of this client wait already, which is the most that may")]
    Busy {
        /// How many calls wait.
        waiting: u32,
    },
    /// The operation or query is larger than `Config::request_bytes_max`. Not executed; it can
    /// only be made smaller.
    #[error("{bytes} bytes are more than the limit of {bytes_max}")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u32,
    },
    /// The operation or query could not be turned into bytes. Not executed; its `Serialize` is at
    /// fault.
    #[error("the value cannot be encoded")]
    Unencodable,
    /// The state machine could not read the operation or query. Not executed; client and service
    /// are of different versions.
    #[error("the state machine could not read it")]
    Malformed,
    /// No connection, no session or no room in the window until the deadline. Not executed: the
    /// operation never left this client.
    #[error("not sent within {waited:?}{}", Because(*.busy))]
    NotSent {
        /// How long the call waited.
        waited: Duration,
        /// The limit that the group named last, if it answered busy.
        busy: Option<Limit>,
    },
    /// No reply until the deadline. Unknown: the operation is still on its way and may execute,
    /// once, at any later time.
    #[error("no reply within {waited:?}{}; it may still execute", Because(*.busy))]
    TimedOut {
        /// How long the call waited.
        waited: Duration,
        /// The limit that the group named last, if it answered busy.
        busy: Option<Limit>,
    },
    /// No answer to a query until the deadline. Not executed: a query changes nothing.
    #[error("no answer within {waited:?}{}", Because(*.busy))]
    Unanswered {
        /// How long the call waited.
        waited: Duration,
        /// The limit that the group named last, if it answered busy.
        busy: Option<Limit>,
    },
    /// The group closed this client's session while the operation was in flight. Unknown: it may
    /// have executed before that. Later calls get a new session.
    #[error("the session was closed while the operation was in flight")]
    ClientEvicted,
    /// The reply is not of the type that this client expects. Executed: client and service are of
    /// different versions.
    #[error("it executed, but the reply cannot be read")]
    ReplyUnreadable,
    /// The client or its node is closed. Not executed: the operation never left this client.
    #[error("the client is closed")]
    ShuttingDown,
    /// The client or its node was closed while the operation was in flight. Unknown: it may have
    /// executed, or may still.
    #[error("the client was closed while the operation was in flight")]
    Interrupted,
}

impl RequestError {
    /// Whether the operation executed.
    #[must_use]
    pub const fn outcome(&self) -> ClientOutcome {
        match self {
            Self::Busy { .. }
            | Self::TooLarge { .. }
            | Self::Unencodable
            | Self::Malformed
            | Self::NotSent { .. }
            | Self::Unanswered { .. }
            | Self::ShuttingDown => ClientOutcome::NotExecuted,
            Self::ReplyUnreadable => ClientOutcome::Executed,
            Self::TimedOut { .. } | Self::ClientEvicted | Self::Interrupted => {
                ClientOutcome::Unknown
            }
        }
    }
}

/// The limit that a group named, as the end of a sentence.
struct Because(Option<Limit>);

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(limit) = self.0 else { return Ok(()) };
        f.write_str("; the group is busy: ")?;
        f.write_str(match limit {
            Limit::Pipeline => "its pipeline is full (pipeline_ops_max, pipeline_bytes_max)",
            Limit::Log => "its log is full (log_bytes_max)",
            Limit::Clients => "its client table is full (clients_max)",
            Limit::Window => "too many requests of one client are in flight (window)",
            Limit::Forward => "a backup holds too many requests (forward_ops_max)",
            Limit::Reads => "too many queries wait (reads_max)",
            Limit::NoQuorum => "no quorum of replicas answers",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_timed_out_says_which_limit_was_reached() {
        let error =
            RequestError::TimedOut { waited: Duration::from_secs(10), busy: Some(Limit::Log) };
        assert!(error.to_string().contains("log_bytes_max"), "{error}");
        assert_eq!(error.outcome(), ClientOutcome::Unknown);
    }

    #[test]
    fn what_never_left_the_client_did_not_execute() {
        let waited = Duration::from_secs(1);
        assert_eq!(
            RequestError::NotSent { waited, busy: None }.outcome(),
            ClientOutcome::NotExecuted
        );
        assert_eq!(RequestError::Busy { waiting: 1 }.outcome(), ClientOutcome::NotExecuted);
        assert_eq!(RequestError::ReplyUnreadable.outcome(), ClientOutcome::Executed);
    }
}
