//! The handle of a running node: its client, its status, its end.

use core::{fmt, future::poll_fn, marker::PhantomData};
use std::sync::Arc;

use futures::channel::oneshot;

use crate::{
    client::Client,
    model::types::ReplicaId,
    node::{
        events::Events,
        executor_front::StateDigest,
        explain::explain,
        export::{Export, ExportError, ExportScope},
        finding::Explanation,
        handoffs::{HandedOff, HandoffOrder},
        shared::Shared,
        status::NodeStatus,
        stop::NodeError,
    },
    ports::state_machine::{Service, SnapshotError},
    replica::io::HandoffError,
};

/// A running node. Clones are the same node; dropping them all does not stop it,
/// [`shutdown`](Self::shutdown) does.
pub struct NodeHandle<S> {
    shared: Arc<Shared>,
    service: Service<S>,
}

impl<S> NodeHandle<S> {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, service: PhantomData }
    }

    /// A client in this process, with a session of its own.
    ///
    /// It talks to this node only, which forwards what a primary has to decide. Its calls fail
    /// once the node has stopped.
    ///
    /// # Panics
    /// Never: what a client needs was checked when the node started.
    #[must_use]
    pub fn client(&self) -> Client<S> {
        let facts = &self.shared.facts;
        Client::builder()
            .group(facts.group.clone())
            .members(facts.members.clone())
            .config(facts.config.clone())
            .shared_runtime(Arc::clone(&self.shared.runtime))
            .transport(self.shared.network.transport())
            .open()
            .expect("the node has checked the limits, and its own network takes every client")
    }

    /// The node at this instant, in numbers. Never waits for storage or the state machine.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.shared.status()
    }

    /// The node at this instant, in words: why nothing commits, or that all is well.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        explain(&self.status())
    }

    /// What happens from now on; a handful of events per view.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.events.listen()
    }

    /// The digest of the replicated state, between two operations.
    ///
    /// Equal on all replicas that have applied the same op. The whole state is written for it, so
    /// it takes as long as a snapshot, during which nothing is applied here; and with
    /// [`ExecutorMode::Inline`](crate::node::status::ExecutorMode::Inline) the node does nothing else
    /// either, so that a primary with a large state is suspected.
    ///
    /// # Errors
    /// [`DigestError`] when the state machine cannot write its snapshot, or the node has stopped.
    pub async fn digest(&self) -> Result<StateDigest, DigestError> {
        let (answer, digest) = oneshot::channel();
        self.shared.order_digest(answer);
        match digest.await {
            Ok(digest) => Ok(digest?),
            Err(oneshot::Canceled) => Err(DigestError::Refused),
        }
    }

    /// Lets another replica lead, in good order: `to`, or the backup that holds most.
    ///
    /// Requests that arrive meanwhile wait, at most [`handoff_timeout`] for the successor to catch
    /// up and then until its view has started; none is lost, and no client is told of it. Returns
    /// when a later view has started at this replica.
    ///
    /// # Errors
    /// [`HandoffError`]: why this replica hands nothing off; unless its view is over, it leads on.
    ///
    /// [`handoff_timeout`]: crate::model::config::Config::handoff_timeout
    pub async fn hand_off(&self, to: Option<ReplicaId>) -> Result<HandedOff, HandoffError> {
        let (answer, result) = oneshot::channel();
        self.shared.order_handoff(HandoffOrder { to, answer });
        result.await.unwrap_or(Err(HandoffError::Stopped))
    }

    /// A copy of the log as it is now, to be read chunk by chunk while the node goes on.
    ///
    /// `vr_storage::export` writes one to a file.
    ///
    /// # Errors
    /// [`ExportError::NoGroup`] while the replica belongs to no group;
    /// [`ExportError::NothingKnown`] while it cannot tell what is committed and is asked for that;
    /// [`ExportError::Changed`] at the moment when it gets a checkpoint from another replica;
    /// [`ExportError::Stopped`] when the node has stopped.
    pub fn export(&self, scope: ExportScope) -> Result<Export, ExportError> {
        Export::of(Arc::clone(&self.shared), scope)
    }

    /// Stops the node in good order and waits until it has stopped.
    ///
    /// A primary first [hands its view off](Self::hand_off), if there is a successor. Then the node
    /// takes no more requests of clients, waits up to one suspicion timeout for the answers that
    /// clients still expect and for its storage, waits for the write in flight, and closes the
    /// transport.
    ///
    /// Then its directory is free for another node, whether this handle is kept or not; but for an
    /// operation that is still being applied on a thread, and a checkpoint that is still being written
    /// or read on one: these are not waited for, and keep it until they come to an end.
    ///
    /// # Errors
    /// As [`stopped`](Self::stopped): the node may have stopped for a reason of its own.
    pub async fn shutdown(&self) -> Result<(), NodeError> {
        self.shared.order_shutdown();
        self.stopped().await
    }

    /// Waits until the node has stopped.
    ///
    /// # Errors
    /// [`NodeError`]: why it stopped by itself. After a shutdown there is no error.
    pub async fn stopped(&self) -> Result<(), NodeError> {
        poll_fn(|cx| self.shared.stop.poll(cx)).await
    }
}

impl<S> Clone for NodeHandle<S> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl<S> fmt::Debug for NodeHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle")
            .field("group", &self.shared.facts.group)
            .field("replica", &self.shared.facts.replica)
            .finish_non_exhaustive()
    }
}

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The state machine cannot write its snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The node has stopped, or too many digests are asked for at a time.
    #[error("the node has stopped, or too many digests were asked for")]
    Refused,
}
