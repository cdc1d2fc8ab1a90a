//! What the engine asks of the executor, and what comes back.

use core::time::Duration;

use bytes::Bytes;

use crate::{
    model::{
        certificate::CertificateHash,
        checkpoint::OpenSession,
        durable::CheckpointId,
        entry::Run,
        message::{Answer, Reply},
        types::{ClientId, OpNumber, Peer, RequestNumber},
    },
    ports::storage::Anchor,
};

/// One item of the executor's queue; carried out strictly in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Apply these committed entries.
    Entries {
        /// In op order, the first one right behind what was handed over before.
        entries: Run,
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
    /// Take a checkpoint of the state that everything before this item has made.
    Checkpoint {
        /// The last op before it, and its entry.
        at: Anchor,
    },
    /// Replace the state by that of a checkpoint, which is complete in local storage and contains
    /// more than the state does.
    Restore {
        /// Which.
        checkpoint: CheckpointId,
    },
    /// This is the group, from now on: a state that is on disk by itself says so.
    Belong {
        /// Hash of its certificate.
        certificate: CertificateHash,
    },
    /// Go on from the state that was on disk at the start.
    Resume,
    /// Empty the state: what was on disk at the start is of no use.
    Discard,
    /// Make the state durable, if it is on disk by itself.
    Persist,
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
    /// Checkpoints that were taken, in order.
    pub taken: Vec<CheckpointId>,
    /// The state was replaced by that of a checkpoint, or is the one that was on disk.
    pub restored: Option<Restored>,
}

/// What the engine must know of a state that was not made by executing entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The last op that is in it.
    pub op_number: OpNumber,
    /// That op's time, since 1970.
    pub time: Duration,
    /// The sessions that are open in it.
    pub sessions: Vec<OpenSession>,
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
