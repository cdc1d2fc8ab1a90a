//! The transport that a node or a client is given.

use std::{
    future::poll_fn,
    net::{Shutdown, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures::future::join_all;
use socket2::SockRef;
use tokio::{net::TcpListener, runtime::Handle, task::AbortHandle, time::timeout};
use vr_core::{
    Backpressure, Closed, Endpoint, Member, Received, Role, Transport, TransportError,
    model::{kind::Lane, message::Envelope, types::Peer},
};

use crate::{
    busy::BusyPoll, config::TcpConfig, connection::Connection, dialer, end::End,
    handshake::GROUP_NAME_BYTES_MAX, listener, ready::Ready, runtime::random,
};

/// Carries envelopes over TCP: between the replicas of a group, and between them and clients.
///
/// Made by [`bind`](Self::bind) for a replica and by [`client`](Self::client) for a client, then
/// given to the node or the client, which starts it. Everything happens in
/// [`receive`](Transport::receive) and [`flush`](Transport::flush), on the caller's own task, but
/// for dialling and accepting, which are tasks on the tokio runtime that `start` is called on.
/// Dropping it closes it.
///
/// A pair of replicas is connected by one socket for each lane; a client and a replica by one.
/// What is wrong with a peer, such as another group's or another version's handshake, is logged
/// and kept for [`complaints`](Transport::complaints).
#[derive(Debug)]
pub struct TcpTransport {
    config: TcpConfig,
    ready: Arc<Ready>,
    busy: BusyPoll,
    local_address: Option<SocketAddr>,
    listener: Mutex<Option<Arc<TcpListener>>>,
    end: OnceLock<Arc<End>>,
    tasks: Mutex<Vec<AbortHandle>>,
    is_closed: AtomicBool,
}

impl TcpTransport {
    /// A replica's transport, listening on `address` (`host:port`; port 0 takes any free one).
    ///
    /// Connections queue up from now on and are answered once the node starts the transport.
    ///
    /// # Errors
    /// [`TransportError::Listen`] with the address, when it cannot be resolved, is not one of this
    /// machine's, or its port is taken.
    pub async fn bind(address: impl AsRef<str>) -> Result<Self, TransportError> {
        Self::bind_with(address, TcpConfig::default()).await
    }

    /// As [`bind`](Self::bind), with limits and timeouts other than the default ones.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with(
        address: impl AsRef<str>,
        config: TcpConfig,
    ) -> Result<Self, TransportError> {
        let address = address.as_ref();
        let listener = listener::bind(address).await?;
        let local_address = listener
            .local_addr()
            .map_err(|source| TransportError::Listen { address: address.to_owned(), source })?;
        Ok(Self::new(config, Some((listener, local_address))))
    }

    /// A client's transport: it dials the members and listens nowhere.
    #[must_use]
    pub fn client() -> Self {
        Self::client_with(TcpConfig::default())
    }

    /// As [`client`](Self::client), with limits and timeouts other than the default ones.
    #[must_use]
    pub fn client_with(config: TcpConfig) -> Self {
        Self::new(config, None)
    }

    /// The address that a replica's transport listens on, with its real port; `None` for a
    /// client's.
    #[must_use]
    pub const fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    fn new(config: TcpConfig, listener: Option<(TcpListener, SocketAddr)>) -> Self {
        let (listener, local_address) = listener.unzip();
        Self {
            busy: BusyPoll::new(config.busy_poll),
            config,
            ready: Arc::default(),
            local_address,
            listener: Mutex::new(listener.map(Arc::new)),
            end: OnceLock::new(),
            tasks: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// The listener for a replica, none for a client; an error when the transport is not for `role`.
    fn listener_for(
        &self,
        endpoint: &Endpoint,
    ) -> Result<Option<Arc<TcpListener>>, TransportError> {
        let misused = |reason| Err(TransportError::Misused { reason });
        if self.end.get().is_some() {
            return misused("it was started before");
        }
        if endpoint.group_name.len() > GROUP_NAME_BYTES_MAX {
            return misused("the group's name is longer than 1024 bytes");
        }
        for Member { id, address } in endpoint.members.as_slice() {
            if !is_host_and_port(address) {
                let (replica, address) = (*id, address.clone());
                return Err(TransportError::Address { replica, address, notation: "HOST:PORT" });
            }
        }
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        match endpoint.role {
            Role::Replica(_) if listener.is_none() => {
                misused("a replica needs one that listens; make it with TcpTransport::bind")
            }
            Role::Client(_) if listener.is_some() => misused(
                "a client needs one that does not listen; make it with TcpTransport::client",
            ),
            Role::Replica(id) if endpoint.members.address_of(id).is_none() => {
                misused("this replica is not in its own member list")
            }
            Role::Replica(_) | Role::Client(_) => Ok(listener.clone()),
        }
    }

    fn poll_receive(
        &self,
        context: &mut Context<'_>,
        into: &mut Vec<Received>,
    ) -> Poll<Result<(), Closed>> {
        self.ready.register(context.waker());
        if self.is_closed.load(Ordering::Acquire) {
            return Poll::Ready(Err(Closed));
        }
        let Some(end) = self.end.get() else { return Poll::Pending };
        let polled = end.peers().poll(context, into);
        match polled {
            Poll::Ready(_) => self.busy.note(),
            Poll::Pending => self.busy.wait(context),
        }
        polled
    }
}

#[async_trait]
impl Transport for TcpTransport {
    /// Starts dialling and accepting on the tokio runtime that this is called on.
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(TransportError::Misused {
                reason: "it must be started on a tokio runtime",
            });
        };
        let listener = self.listener_for(&endpoint)?;
        let role = endpoint.role;
        let members = endpoint.members.as_slice().to_vec();
        let (config, ready) = (self.config.clone(), Arc::clone(&self.ready));
        let end = Arc::new(End::new(endpoint, config, random(), ready, runtime.clone()));
        if self.end.set(Arc::clone(&end)).is_err() {
            return Err(TransportError::Misused { reason: "it was started before" });
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listener {
            let task = runtime.spawn(listener::accept(Arc::clone(&end), listener));
            tasks.push(task.abort_handle());
        }
        for member in members.into_iter().filter(|member| role != Role::Replica(member.id)) {
            let task = runtime.spawn(dialer::keep_linked(Arc::clone(&end), member));
            tasks.push(task.abort_handle());
        }
        drop(tasks);
        self.ready.wake();
        Ok(())
    }

    fn send(&self, to: Peer, lane: Lane, envelope: Box<Envelope>) -> Result<(), Backpressure> {
        let end = self.end.get().ok_or(Backpressure::NotConnected)?;
        end.peers().send(to, lane, &envelope)
    }

    fn flush(&self) {
        if let Some(end) = self.end.get()
            && end.peers().flush()
        {
            self.busy.note();
        }
    }

    async fn receive(&self, into: &mut Vec<Received>) -> Result<(), Closed> {
        poll_fn(|context| self.poll_receive(context, into)).await
    }

    fn close(&self) {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(listener) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // The task that accepts may hold it a little longer; the address is free at once.
            let _where_that_is_possible = SockRef::from(&*listener).shutdown(Shutdown::Both);
        }
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.ready.wake();
        let Some(end) = self.end.get() else { return };
        let limit = self.config.close_timeout;
        end.peers().flush();
        for connections in end.peers().close() {
            // Whoever closes need not be on the runtime, so that all of it belongs to the task.
            end.runtime.spawn(async move {
                // All are held until the last is finished, so that they close together.
                let finishing = connections.into_iter().map(Connection::finish);
                let _too_late = timeout(limit, join_all(finishing)).await;
            });
        }
    }

    fn complaints(&self) -> Vec<String> {
        self.end.get().map(|end| end.peers().complaints()).unwrap_or_default()
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whether `address` can be looked up at all; who is there shows when it is dialled.
fn is_host_and_port(address: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && !host.contains(['/', ' ', '@']);
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
}
