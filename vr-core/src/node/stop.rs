//! Why a node stops, and how those who wait hear of it.

use core::task::{Context, Poll, Waker};
use std::{
    io,
    sync::{Arc, Mutex},
};

use crate::{
    execution::checkpoint::CheckpointFailure,
    model::{
        config::ConfigError,
        membership::Membership,
        types::{OpNumber, ReplicaId},
    },
    node::lock::lock,
    ports::{storage::StorageError, transport::TransportError},
    replica::io::Fatal,
};

/// Why a node could not start, or stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Something that has no default was not said.
    #[error("the node was not told its {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// The limits do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The replica is not in its own member list.
    #[error("replica {replica} is not one of the members {members}")]
    NotAMember {
        /// The replica.
        replica: ReplicaId,
        /// The members.
        members: Membership,
    },
    /// Storage failed. A replica that cannot remember must not speak; start again when the cause
    /// is mended.
    #[error("storage failed")]
    Storage(#[source] Arc<StorageError>),
    /// The transport cannot take part.
    #[error("the transport cannot take part")]
    Transport(#[source] Arc<TransportError>),
    /// The transport was closed by somebody else.
    #[error("the transport was closed")]
    TransportClosed,
    /// The executor's thread cannot be started.
    #[error("the executor's thread cannot be started")]
    Thread(#[source] Arc<io::Error>),
    /// The engine found that going on could lose or fork committed state.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The state machine panicked in `apply`. The operation is committed and will be applied
    /// again after a restart, by every replica: mend the state machine first.
    #[error("the state machine panicked while applying op {op_number}: {message}")]
    ApplyPanicked {
        /// The operation's place in the log.
        op_number: OpNumber,
        /// What it said.
        message: String,
    },
    /// The state machine panicked in `query`.
    #[error("the state machine panicked while answering a query: {message}")]
    QueryPanicked {
        /// What it said.
        message: String,
    },
    /// The state machine could not write or restore its state.
    #[error(transparent)]
    Checkpoint(Arc<CheckpointFailure>),
    /// The state machine panicked while a state that it had forked was written.
    #[error("the state machine panicked while writing a snapshot: {message}")]
    SnapshotPanicked {
        /// What it said.
        message: String,
    },
    /// An assertion of this crate did not hold; a bug.
    #[error("an assertion did not hold: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// The runtime dropped the node's task.
    #[error("the runtime dropped the node's task")]
    Dropped,
}

impl From<StorageError> for NodeError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<TransportError> for NodeError {
    fn from(error: TransportError) -> Self {
        Self::Transport(Arc::new(error))
    }
}

/// Tells those who wait that the node has stopped.
#[derive(Debug, Default)]
pub(crate) struct StopSignal {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Why, as soon as it is known.
    reason: Option<NodeError>,
    /// Set when nothing is left to do.
    result: Option<Result<(), NodeError>>,
    waiting: Vec<Waker>,
}

impl StopSignal {
    /// The node is going to stop because of this.
    pub(crate) fn announce(&self, reason: &NodeError) {
        lock(&self.state).reason.get_or_insert_with(|| reason.clone());
    }

    /// The node has stopped; the first result counts.
    pub(crate) fn set(&self, result: Result<(), NodeError>) {
        let mut state = lock(&self.state);
        if let Err(reason) = &result {
            state.reason.get_or_insert_with(|| reason.clone());
        }
        state.result.get_or_insert(result);
        let waiting = core::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Why the node stopped or is about to.
    pub(crate) fn reason(&self) -> Option<NodeError> {
        lock(&self.state).reason.clone()
    }

    /// Whether the node has stopped.
    pub(crate) fn is_set(&self) -> bool {
        lock(&self.state).result.is_some()
    }

    /// Waits until the node has stopped.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), NodeError>> {
        let mut state = lock(&self.state);
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
