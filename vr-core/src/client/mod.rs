//! Floor 3: a client of a group; the sans-IO session and the async face around it.

mod asking;
mod backoff;
pub mod call;
pub mod io;
mod many;
mod outbox;
pub mod outcome;
mod queries;
mod resumes;
mod resuming;
mod route;
pub mod session;
#[cfg(test)]
mod session_tests;
mod shared;
mod slots;
pub mod ticket;
mod window;

use core::{fmt, marker::PhantomData, time::Duration};
use std::sync::Arc;

use bytes::Bytes;

use crate::{
    client::{
        call::CallId,
        io::{ClientInput, SessionOptions},
        outcome::RequestError,
        session::Session,
        shared::{Call, Link, Shared, receive},
    },
    model::{
        config::{Config, ConfigError},
        membership::Members,
        operation::Operation,
        read::{CausalToken, Read},
        time::Instant,
        types::GroupId,
    },
    ports::{
        runtime::Runtime,
        state_machine::{Service, StateMachine, decode, encode},
        transport::{Endpoint, Role, Transport, TransportError},
    },
};

/// How long a call waits unless the client says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of a group: executes operations exactly once, and asks queries.
///
/// It finds the primary, follows it from view to view, and repeats what is not answered, always
/// under the same number. Clones share one session with its window of requests in flight; a
/// service with many independent callers gives each a client of its own. Dropping the future of a
/// call is safe at any time and delays no other call; its operation may still execute. The last
/// clone closes the client when it is dropped, and so does the end of the runtime that it was started
/// on.
///
/// `S` is the service on the other side; a client of a
/// [`RawStateMachine`](crate::ports::state_machine::RawStateMachine) has `S` = [`Raw`].
pub struct Client<S> {
    link: Arc<Link>,
    timeout: Duration,
    service: Service<S>,
}

/// Stands for a service that speaks bytes; see
/// [`RawStateMachine`](crate::ports::state_machine::RawStateMachine).
#[derive(Clone, Copy, Debug)]
pub enum Raw {}

impl<S> Client<S> {
    /// What a client needs to know, one by one.
    #[must_use]
    pub fn builder() -> ClientBuilder<S> {
        ClientBuilder {
            group: "default".to_owned(),
            members: None,
            transport: None,
            runtime: None,
            config: Config::default(),
            timeout: TIMEOUT,
            service: PhantomData,
        }
    }

    /// A client of the group "default" with default limits.
    ///
    /// Returns at once: the connections are made in the background, and the session is opened by
    /// the first operation.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(
        members: Members,
        transport: impl Transport,
        runtime: impl Runtime,
    ) -> Result<Self, ConnectError> {
        Self::builder().members(members).transport(transport).runtime(runtime).connect().await
    }

    /// The same client, whose calls wait for `timeout` instead of 10 s.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// How far this client has seen the log: what it is told next with
    /// [`Read::Causal`] and this token is not older than anything it was told so far.
    ///
    /// A token can be merged with others by `max`, stored, and given to another client.
    #[must_use]
    pub fn token(&self) -> CausalToken {
        self.link.shared.lock().session.token()
    }

    /// Executes an operation, given as bytes, exactly once, and returns its reply.
    ///
    /// # Errors
    /// [`RequestError`]; its [`outcome`](RequestError::outcome) says whether the operation
    /// executed.
    pub async fn execute_raw(
        &self,
        operation: impl Into<Bytes> + Send,
    ) -> Result<Bytes, RequestError> {
        self.perform(operation.into().into()).await
    }

    /// Asks a query, given as bytes, and returns the answer.
    ///
    /// # Errors
    /// [`RequestError`]; a query changes nothing.
    pub async fn query_raw(
        &self,
        query: impl Into<Bytes> + Send,
        read: Read,
    ) -> Result<Bytes, RequestError> {
        let query = query.into();
        let input = |call, deadline| ClientInput::Query { call, deadline, read, query };
        Ok(self.call(input).await?.bytes)
    }

    /// Executes what one call asks for.
    async fn perform(&self, operation: Operation) -> Result<Bytes, RequestError> {
        let input = |call, deadline| ClientInput::Execute { call, deadline, operation };
        Ok(self.call(input).await?.bytes)
    }

    fn call<F>(&self, input: F) -> Call<'_, F>
    where
        F: FnOnce(CallId, Instant) -> ClientInput,
    {
        Call::new(&self.link, self.timeout, input)
    }
}

impl<S: StateMachine> Client<S> {
    /// Executes an operation exactly once, and returns its reply.
    ///
    /// # Errors
    /// [`RequestError`]; its [`outcome`](RequestError::outcome) says whether the operation
    /// executed.
    pub async fn execute(&self, operation: S::Operation) -> Result<S::Reply, RequestError> {
        let operation = encode(&operation).map_err(|_| RequestError::Unencodable)?;
        let reply = self.execute_raw(operation).await?;
        decode(&reply).map_err(|_| RequestError::ReplyUnreadable)
    }

    /// Asks a query, and returns the answer.
    ///
    /// # Errors
    /// [`RequestError`]; a query changes nothing.
    pub async fn query(&self, query: S::Query, read: Read) -> Result<S::Answer, RequestError> {
        let query = encode(&query).map_err(|_| RequestError::Unencodable)?;
        let answer = self.query_raw(query, read).await?;
        decode(&answer).map_err(|_| RequestError::ReplyUnreadable)
    }
}

impl<S> Clone for Client<S> {
    fn clone(&self) -> Self {
        Self { link: Arc::clone(&self.link), timeout: self.timeout, service: PhantomData }
    }
}

impl<S> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.link.shared.lock();
        f.debug_struct("Client")
            .field("client", &state.session.client())
            .field("session", &state.session.session())
            .field("view", &state.session.view())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What a [`Client`] needs to know.
pub struct ClientBuilder<S> {
    group: String,
    members: Option<Members>,
    transport: Option<Arc<dyn Transport>>,
    runtime: Option<Arc<dyn Runtime>>,
    config: Config,
    timeout: Duration,
    service: Service<S>,
}

impl<S> ClientBuilder<S> {
    /// The group's name; "default" if it is not said.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = name.into();
        self
    }

    /// The group's members, the same list that its replicas have.
    #[must_use]
    pub fn members(mut self, members: Members) -> Self {
        self.members = Some(members);
        self
    }

    /// How to reach them.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// What to run on.
    #[must_use]
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.runtime = Some(Arc::new(runtime));
        self
    }

    /// As [`runtime`](Self::runtime), for one that is shared already.
    #[must_use]
    pub(crate) fn shared_runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The limits that the group runs with; the defaults if it is not said.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long a call waits; 10 s if it is not said. Calls that leave together count from one look at
    /// the clock, which is at most 1 ms before any of them leaves.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts the client. Returns at once: the connections are made in the background, and the
    /// session is opened by the first operation.
    ///
    /// # Errors
    /// [`ConnectError`]: something was not said, or the limits or the transport are no good. That
    /// nobody answers is not an error here; calls wait until their deadline.
    pub async fn connect(self) -> Result<Client<S>, ConnectError> {
        self.open()
    }

    /// As [`connect`](Self::connect), which waits for nothing.
    pub(crate) fn open(self) -> Result<Client<S>, ConnectError> {
        let members = self.members.ok_or(ConnectError::Missing { what: "members" })?;
        let transport = self.transport.ok_or(ConnectError::Missing { what: "transport" })?;
        let runtime = self.runtime.ok_or(ConnectError::Missing { what: "runtime" })?;
        self.config.validate()?;
        let membership = members.to_membership();
        let group: GroupId = membership.group_id(&self.group);
        let options = SessionOptions::new(&self.config);
        let session = Session::new(group, membership, options, runtime.entropy());
        transport.start(Endpoint {
            group_name: self.group,
            group,
            role: Role::Client(session.client()),
            durability: None,
            members,
            message_bytes_max: self.config.message_bytes_max,
        })?;
        let shared = Arc::new(Shared::new(session, transport, Arc::clone(&runtime)));
        runtime.spawn("vr client", Box::pin(receive(Arc::clone(&shared))));
        let link = Arc::new(Link { shared });
        Ok(Client { link, timeout: self.timeout, service: PhantomData })
    }
}

impl<S> fmt::Debug for ClientBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("group", &self.group)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// Why a client could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Something that has no default was not said.
    #[error("the client was not told its {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// The limits do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The transport cannot take part.
    #[error(transparent)]
    Transport(#[from] TransportError),
}
