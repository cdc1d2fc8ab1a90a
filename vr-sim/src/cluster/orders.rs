//! What an operator orders of the replicas.

use vr_core::{NodeHandle, Runtime, model::types::ReplicaId};

use crate::{
    cluster::{Cluster, client::Service},
    executor::lock,
    observer::Observed,
};

impl<S: Service> Cluster<S> {
    /// Orders `replica` to hand its view off: to `to`, or to whom it chooses. What comes of it shows
    /// in the statuses; a replica that does not run obeys nothing.
    pub fn hand_off(&mut self, replica: ReplicaId, to: Option<ReplicaId>) {
        self.order(replica, |handle| async move {
            // It is in the trace, among the node's events.
            let _ = handle.hand_off(to).await;
        });
    }

    /// Orders `replica` to stop in good order; it has done so when it is no longer
    /// [running](Self::is_running), and can be [started](Self::start) again after a
    /// [crash](Self::crash).
    pub fn shut_down(&mut self, replica: ReplicaId) {
        let ordered = self.order(replica, |handle| async move {
            // Why it stopped is asked by whoever started it.
            let _ = handle.shutdown().await;
        });
        if ordered {
            self.member(replica).leaving.set(true);
        }
    }

    /// Gives an order to the node of `replica`; false if there is none.
    fn order<F>(&self, replica: ReplicaId, order: impl FnOnce(NodeHandle<Observed<S>>) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let member = self.member(replica);
        let Some(handle) = member.handle() else { return false };
        member.runtime.with_exact_clock().spawn("order", Box::pin(order(handle)));
        true
    }

    /// How many hand-offs were carried out.
    #[must_use]
    pub fn handoffs(&self) -> u64 {
        lock(&self.witness).handoffs()
    }

    /// How many checkpoints came to count at some replica.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        lock(&self.witness).checkpoints()
    }

    /// How many checkpoints were fetched and installed.
    #[must_use]
    pub fn snapshots(&self) -> u64 {
        lock(&self.witness).snapshots()
    }

    /// How many chunks of checkpoints were sent compressed.
    #[must_use]
    pub fn compressed_chunks(&self) -> u64 {
        lock(&self.witness).compressed_chunks()
    }

    /// How often a primary was found to hold its lease, when somebody looked.
    #[must_use]
    pub fn leases(&self) -> u64 {
        lock(&self.witness).leases()
    }

    /// How often a replica went on from a state on its state machine's own disk.
    #[must_use]
    pub fn resumed_states(&self) -> u64 {
        lock(&self.witness).resumed()
    }
}
