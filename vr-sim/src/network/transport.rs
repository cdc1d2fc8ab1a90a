//! The `Transport` port over the simulated network.

use core::{fmt, task::Poll};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::poll_fn;
use vr_core::{
    model::{kind::Lane, message::Envelope, types::Peer},
    ports::transport::{Backpressure, Closed, Endpoint, Received, Transport, TransportError},
};

use crate::{actor::Actor, executor::lock, network::world::World};

/// Most items that one call of `receive` returns.
const RECEIVED_MAX: usize = 256;

/// One end of the simulated network: of one life of a replica, or of a client.
pub struct SimTransport {
    world: Arc<Mutex<World>>,
    actor: Actor,
    life: Mutex<Option<u64>>,
}

impl SimTransport {
    pub(crate) fn new(world: Arc<Mutex<World>>, actor: Actor) -> Self {
        Self { world, actor, life: Mutex::new(None) }
    }

    fn life(&self) -> Option<u64> {
        *lock(&self.life)
    }
}

#[async_trait]
impl Transport for SimTransport {
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError> {
        let mut life = lock(&self.life);
        if life.is_some() {
            return Err(TransportError::Misused { reason: "it was started before" });
        }
        let members = endpoint.members.as_slice().iter().map(|member| member.id.into());
        let (members, bytes_max) = (members.collect(), endpoint.message_bytes_max);
        *life = Some(lock(&self.world).start(self.actor, members, bytes_max));
        Ok(())
    }

    fn send(&self, to: Peer, lane: Lane, envelope: Box<Envelope>) -> Result<(), Backpressure> {
        let life = self.life().ok_or(Backpressure::NotConnected)?;
        lock(&self.world).send(self.actor, life, to, lane, envelope)
    }

    fn flush(&self) {}

    async fn receive(&self, into: &mut Vec<Received>) -> Result<(), Closed> {
        let life = self.life().ok_or(Closed)?;
        poll_fn(|context| {
            let mut world = lock(&self.world);
            let Some(end) = world.end_of(self.actor, life) else {
                return Poll::Ready(Err(Closed));
            };
            if end.inbox.is_empty() {
                end.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = end.inbox.len().min(RECEIVED_MAX);
            into.extend(end.inbox.drain(..count));
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn close(&self) {
        if let Some(life) = self.life() {
            lock(&self.world).close(self.actor, life);
        }
    }
}

/// Does nothing after a crash, of which the network has heard already.
impl Drop for SimTransport {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for SimTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimTransport").field("actor", &self.actor).finish_non_exhaustive()
    }
}
