//! Why a call of a client failed, and whether its operation executed all the same.

use core::{fmt, time::Duration};

use bytes::Bytes;

use crate::{client::ticket::Ticket, model::message::Limit};

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
/// same for a program. Where that is unknown, there is a [`ticket`](Self::ticket) to find out with.
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
    /// once, at any later time; resume the ticket to find out.
    #[error("no reply within {waited:?}{}; it may still execute", Because(*.busy))]
    TimedOut {
        /// How long the call waited.
        waited: Duration,
        /// The limit that the group named last, if it answered busy.
        busy: Option<Limit>,
        /// What to find out with.
        ticket: Box<Ticket>,
    },
    /// No answer to a query until the deadline. Not executed: a query changes nothing.
    #[error("no answer within {waited:?}{}", Because(*.busy))]
    Unanswered {
        /// How long the call waited.
        waited: Duration,
        /// The limit that the group named last, if it answered busy.
        busy: Option<Limit>,
    },
    /// The group closed the session while the operation was in flight. Unknown: it may have
    /// executed before that, and will not any more; what is known of it went with the session, so
    /// that resuming the ticket says the same. Later calls get a new session.
    #[error("the session was closed while the operation was in flight")]
    ClientEvicted {
        /// Names the request; nobody can find out any more.
        ticket: Box<Ticket>,
    },
    /// It executed, but its reply is not kept any more: the client went on by a window of requests
    /// since. Executed.
    #[error("it executed, but its reply is not kept any more")]
    ReplyForgotten,
    /// The ticket could not be resumed. Unknown, as before; the group was not asked, or did not
    /// take what it was asked.
    #[error("not resumed: {reason}")]
    NotResumed {
        /// Why not.
        reason: NotResumed,
        /// The ticket, as good as before.
        ticket: Box<Ticket>,
    },
    /// The reply is not of the type that this client expects. Executed: client and service are of
    /// different versions.
    #[error("it executed, but the reply cannot be read")]
    ReplyUnreadable,
    /// The state machine could not read some of several operations. The others executed.
    #[error("some of {} operations could not be read; the others executed", replies.len())]
    PartlyMalformed {
        /// The bytes of the replies, in order; `None` for what could not be read and changed
        /// nothing.
        replies: Vec<Option<Bytes>>,
    },
    /// The client or its node is closed. Not executed: the operation never left this client.
    #[error("the client is closed")]
    ShuttingDown,
    /// The client or its node was closed while the operation was in flight. Unknown: it may have
    /// executed, or may still.
    #[error("the client was closed while the operation was in flight")]
    Interrupted {
        /// What to find out with, by another client.
        ticket: Box<Ticket>,
    },
}

/// Why a ticket could not be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotResumed {
    /// The ticket is one of another group.
    #[error("the ticket is of another group")]
    OtherGroup,
    /// Too many tickets are being resumed by this client.
    #[error("{waiting} tickets are being resumed already, which is the most that may")]
    Busy {
        /// How many.
        waiting: u32,
    },
    /// An operation of the ticket is larger than the `Config::request_bytes_max` that the group
    /// runs with now.
    #[error("{bytes} bytes are more than the limit of {bytes_max}")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u32,
    },
    /// The ticket is for several operations, which only `resume_many` has replies for.
    #[error("the ticket is for several operations")]
    Many,
    /// This client is closed.
    #[error("the client is closed")]
    ShuttingDown,
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
            Self::ReplyUnreadable | Self::ReplyForgotten | Self::PartlyMalformed { .. } => {
                ClientOutcome::Executed
            }
            Self::TimedOut { .. }
            | Self::ClientEvicted { .. }
            | Self::NotResumed { .. }
            | Self::Interrupted { .. } => ClientOutcome::Unknown,
        }
    }

    /// What to find out with whether the operation executed; there whenever that is unknown.
    #[must_use]
    pub fn ticket(&self) -> Option<&Ticket> {
        match self {
            Self::TimedOut { ticket, .. }
            | Self::ClientEvicted { ticket }
            | Self::NotResumed { ticket, .. }
            | Self::Interrupted { ticket } => Some(ticket),
            Self::Busy { .. }
            | Self::TooLarge { .. }
            | Self::Unencodable
            | Self::Malformed
            | Self::NotSent { .. }
            | Self::Unanswered { .. }
            | Self::ReplyUnreadable
            | Self::ReplyForgotten
            | Self::PartlyMalformed { .. }
            | Self::ShuttingDown => None,
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
    use crate::{
        client::ticket::Record,
        model::types::{ClientId, Epoch, GroupId, OpNumber, RequestNumber},
    };

    fn ticket() -> Box<Ticket> {
        let (group, epoch, client) = (GroupId(1), Epoch(0), ClientId(2));
        let (session, request_number) = (OpNumber(3), RequestNumber(4));
        let operations = vec![Bytes::from_static(b"op").into()];
        let record = Record { group, epoch, client, session, request_number, operations };
        Box::new(Ticket::new(record))
    }

    #[test]
    fn a_call_that_timed_out_says_which_limit_was_reached() {
        let (waited, busy) = (Duration::from_secs(10), Some(Limit::Log));
        let error = RequestError::TimedOut { waited, busy, ticket: ticket() };
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

    #[test]
    fn whatever_is_unknown_can_be_found_out() {
        let (waited, busy, bytes, bytes_max) = (Duration::ZERO, None, 9, 8);
        let errors = [
            RequestError::Busy { waiting: 1 },
            RequestError::TooLarge { bytes, bytes_max },
            RequestError::Unencodable,
            RequestError::Malformed,
            RequestError::NotSent { waited, busy },
            RequestError::TimedOut { waited, busy, ticket: ticket() },
            RequestError::Unanswered { waited, busy },
            RequestError::ClientEvicted { ticket: ticket() },
            RequestError::ReplyForgotten,
            RequestError::PartlyMalformed { replies: vec![None, Some(Bytes::new())] },
            RequestError::NotResumed { reason: NotResumed::OtherGroup, ticket: ticket() },
            RequestError::ReplyUnreadable,
            RequestError::ShuttingDown,
            RequestError::Interrupted { ticket: ticket() },
        ];
        for error in errors {
            let unknown = error.outcome() == ClientOutcome::Unknown;
            assert_eq!(error.ticket().is_some(), unknown, "{error}");
        }
    }
}
