//! What an operator orders of the replicas.

use futures::future::BoxFuture;
use vr_core::{Runtime, model::types::ReplicaId};

use crate::cluster::{Cluster, client::Service};

impl<S: Service> Cluster<S> {
    /// Orders `replica` to hand its view off: to `to`, or to whom it chooses. What comes of it shows
    /// in the statuses; a replica that does not run obeys nothing.
    pub fn hand_off(&mut self, replica: ReplicaId, to: Option<ReplicaId>) {
        let member = self.member(replica);
        let Some(handle) = member.handle() else { return };
        let ordered: BoxFuture<'static, ()> = Box::pin(async move {
            // It is in the trace, among the node's events.
            let _ = handle.hand_off(to).await;
        });
        member.runtime.with_exact_clock().spawn("order", ordered);
    }

    /// Orders `replica` to stop in good order; it has done so when it is no longer
    /// [running](Self::is_running), and can be [started](Self::start) again after a
    /// [crash](Self::crash).
    pub fn shut_down(&mut self, replica: ReplicaId) {
        let member = self.member(replica);
        let Some(handle) = member.handle() else { return };
        member.leaving.set(true);
        let ordered: BoxFuture<'static, ()> = Box::pin(async move {
            // Why it stopped is asked by whoever started it.
            let _ = handle.shutdown().await;
        });
        member.runtime.with_exact_clock().spawn("order", ordered);
    }

    /// How many hand-offs were carried out.
    #[must_use]
    pub fn handoffs(&self) -> u64 {
        crate::executor::lock(&self.witness).handoffs()
    }
}
