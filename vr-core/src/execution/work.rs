//! What the engine asks of the executor, and what comes back.

use core::time::Duration;

use bytes::Bytes;

use crate::model::{
    entry::Entry,
    message::{Answer, Reply},
    types::{ClientId, OpNumber, Peer, RequestNumber},
};

/// One item of the executor's queue; carried out strictly in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Apply these committed entries.
    Entries {
        /// In op order, the first one right behind what was handed over before.
        entries: Vec<Entry>,
        /// Whether the replies are wanted; only the primary answers clients.
        reply: bool,
    },
    /// Return the stored reply of a request that was executed before.
    Resend {
        /// Whose.
        client: ClientId,
        /// Which request; 0 for the registration.
        request_number: RequestNumber,
    },
    /// Answer a query from the state that everything before this item has made.
    Query {
        /// Whom to answer.
        to: Peer,
        /// Who asked.
        client: ClientId,
        /// The client's number for the query.
        request_number: RequestNumber,
        /// The query's bytes.
        query: Bytes,
        /// The time the primary chose, since 1970; the query is told this or, if later, the time
        /// of the last applied entry.
        time: Duration,
    },
}

/// What finished; the engine is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// The last op applied so far.
    pub through: OpNumber,
    /// Replies that were wanted and stored replies that were asked for again, in order.
    pub replies: Vec<Reply>,
    /// Sessions that were closed, in order.
    pub evicted: Vec<Evicted>,
}

/// A session that was closed because the table was full and nothing of it was executed longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// The op of the registration that needed its place.
    pub by: OpNumber,
    /// Whose session it was.
    pub client: ClientId,
    /// The op that had opened it.
    pub session: OpNumber,
}

/// What one step of the executor produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// For the engine.
    pub executed: Executed,
    /// For clients, at once and without the engine.
    pub answers: Vec<(Peer, Answer)>,
}
