//! How messages travel: datagrams that may be dropped, doubled or reordered, but never damaged.

use core::fmt::Debug;

use async_trait::async_trait;

use crate::model::{
    durable::Durability,
    kind::Lane,
    membership::Members,
    message::Envelope,
    types::{ClientId, GroupId, Peer, ReplicaId},
};

/// Carries envelopes between this end and its peers.
///
/// Datagram semantics: an envelope may be lost, doubled, delayed or overtaken, and the protocol
/// copes; it must never arrive changed, and `from` must be who sent it. Nothing here waits but
/// [`receive`](Self::receive).
#[async_trait]
pub trait Transport: Debug + Send + Sync + 'static {
    /// Tells who this end is and whom it may talk to; called once, before anything else.
    ///
    /// # Errors
    /// [`TransportError`] when this end cannot take part at all, such as a replica whose address
    /// is taken; [`TransportError::Misused`] when it was started before. An unreachable peer is not
    /// an error: it is dialled until it answers.
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError>;

    /// Buffers `envelope` for `to`; never waits. It may leave before [`flush`](Self::flush).
    ///
    /// Each lane to each peer has a queue of its own, with an end, and what waits in a later lane
    /// never delays an earlier one.
    ///
    /// # Errors
    /// [`Backpressure`] when it was dropped, because the peer is not connected or its queue is
    /// full. The caller counts it; the protocol sends again what matters.
    fn send(&self, to: Peer, lane: Lane, envelope: Box<Envelope>) -> Result<(), Backpressure>;

    /// Lets everything buffered go; called after sends that belong together, also if they were
    /// refused: perhaps several times in a turn, and not at all in a turn without any.
    fn flush(&self);

    /// Waits until something has arrived, and appends it: at most 256 items or about 1 MiB from
    /// one peer at a time, so that no peer starves another.
    ///
    /// Cancel safe: dropping the future loses nothing that a later call would have returned.
    ///
    /// # Errors
    /// [`Closed`] after [`close`](Self::close), also when it was waiting; nothing will arrive any
    /// more.
    async fn receive(&self, into: &mut Vec<Received>) -> Result<(), Closed>;

    /// Stops listening and closes all connections, after trying to deliver what was flushed; the
    /// peers are told [`Received::Disconnected`]. Dropping the transport does the same.
    fn close(&self);

    /// What the transport wants an operator to know, newest last: refused handshakes, peers of
    /// another version. Drained by the call. The default has nothing to say.
    fn complaints(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Who uses a transport, and whom it may talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The group's name; the same at both ends.
    pub group_name: String,
    /// The group: hash of its name and founding members.
    pub group: GroupId,
    /// Replica or client.
    pub role: Role,
    /// The mode that a replica runs in, the same at all of them; `None` for a client, which need
    /// not know.
    pub durability: Option<Durability>,
    /// The group's members with their addresses.
    pub members: Members,
    /// The largest message that is sent or accepted, in bytes.
    pub message_bytes_max: u32,
}

/// What this end of a transport is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A member: listens, and talks to all other members and to clients.
    Replica(ReplicaId),
    /// A client: dials members; for it, every peer is a [`Peer::Replica`].
    Client(ClientId),
}

/// Something a transport has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// An envelope arrived.
    Envelope {
        /// From whom; the transport vouches for it.
        from: Peer,
        /// What.
        envelope: Box<Envelope>,
    },
    /// A way to the peer is open now; told once until it breaks.
    Connected(Peer),
    /// The way to the peer broke. For a replica this is evidence that its process ended.
    Disconnected(Peer),
}

/// An envelope was dropped at this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Backpressure {
    /// There is no connection to the peer: it is down, unknown, of another group or this end
    /// itself; or this end was not started, or was closed; or both ends are clients.
    #[error("not connected")]
    NotConnected,
    /// The queue of this lane is full.
    #[error("queue full")]
    QueueFull,
    /// The message is larger than `message_bytes_max`.
    #[error("message too large")]
    TooLarge,
}

/// The transport was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transport is closed")]
pub struct Closed;

/// Why a transport cannot take part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address to listen on cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A member's address is not in the transport's notation, so that nobody could ever be there.
    #[error("the address of replica {replica} is {address:?}, where {notation} is needed")]
    Address {
        /// Whose.
        replica: ReplicaId,
        /// What was given.
        address: String,
        /// What an address looks like.
        notation: &'static str,
    },
    /// The transport was started before, or was made for another role.
    #[error("the transport cannot be started: {reason}")]
    Misused {
        /// What is wrong.
        reason: &'static str,
    },
}
