//! This end of the transport: who it is, and the peers that its tasks and its user share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::runtime::Handle;
use vr_core::Endpoint;

use crate::{
    config::TcpConfig,
    handshake::{Facts, VERSIONS, Versions},
    peers::Peers,
    ready::Ready,
};

/// What the user's calls, the dialler's and the listener's tasks have in common.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) config: TcpConfig,
    pub(crate) endpoint: Endpoint,
    /// Where its tasks run.
    pub(crate) runtime: Handle,
    /// What this end says of itself.
    pub(crate) facts: Facts,
    /// What this end speaks.
    pub(crate) versions: Versions,
    links: AtomicU64,
    peers: Mutex<Peers>,
}

impl End {
    pub(crate) fn new(
        endpoint: Endpoint,
        config: TcpConfig,
        process: u128,
        ready: Arc<Ready>,
        runtime: Handle,
    ) -> Self {
        let facts = Facts::new(&endpoint, process);
        let newest = config.wire_version_max.clamp(VERSIONS.min, VERSIONS.max);
        let versions = Versions { max: newest, ..VERSIONS };
        let peers = Peers::new(&facts, config.clone(), ready, runtime.clone());
        Self {
            config,
            endpoint,
            runtime,
            facts,
            versions,
            links: AtomicU64::new(0),
            peers: Mutex::new(peers),
        }
    }

    /// Never held across an `await`, nor while user code runs.
    pub(crate) fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no earlier link of this process has.
    pub(crate) fn next_link_number(&self) -> u64 {
        self.links.fetch_add(1, Ordering::Relaxed) + 1
    }
}
