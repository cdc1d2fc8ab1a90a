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
mod slots;
pub mod ticket;
mod window;

use core::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures::{future::BoxFuture, future::poll_fn, task::AtomicWaker};
use tracing::debug;

use crate::{
    client::{
        call::CallId,
        io::{ClientInput, ClientOutput, SessionOptions},
        outcome::RequestError,
        session::Session,
        slots::{CallResult, Slots},
    },
    model::{
        config::{Config, ConfigError},
        membership::Members,
        message::Operation,
        read::{CausalToken, Read},
        time::Instant,
        types::{GroupId, Peer},
    },
    ports::{
        runtime::Runtime,
        state_machine::{Service, StateMachine, decode, encode},
        transport::{Closed, Endpoint, Received, Role, Transport, TransportError},
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
/// clone closes the client when it is dropped.
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

    fn call(&self, input: impl FnOnce(CallId, Instant) -> ClientInput) -> Call {
        let shared = &self.link.shared;
        let now = shared.runtime.now();
        let mut state = shared.lock();
        let call = state.slots.take();
        state.session.handle(now, input(call, now + self.timeout));
        let mut aftermath = Aftermath::default();
        // A client that is closed has no task any more that would send, or fail, anything.
        if state.slots.taken() > 1 && !state.session.closed {
            // Others ask at the same time, so theirs may leave together with this one.
            aftermath.rearm = !shared.owes_output.swap(true, Ordering::AcqRel);
        } else {
            shared.drain(&mut state, &mut aftermath);
        }
        drop(state);
        shared.settle(aftermath);
        Call { link: Arc::clone(&self.link), call: Some(call) }
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

    /// How long a call waits; 10 s if it is not said.
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
        let state = State { session, slots: Slots::default(), armed: Instant::FAR_FUTURE };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            transport,
            runtime: Arc::clone(&runtime),
            background: AtomicWaker::new(),
            owes_output: AtomicBool::new(false),
        });
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

/// What the clones of a client hold; the last one closes it.
struct Link {
    shared: Arc<Shared>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let now = self.shared.runtime.now();
        let mut state = self.shared.lock();
        let aftermath = self.shared.perform(&mut state, now, ClientInput::Close);
        drop(state);
        self.shared.settle(aftermath);
        // Ends the task that receives, too.
        self.shared.transport.close();
    }
}

/// What callers and the task that receives share.
struct Shared {
    state: Mutex<State>,
    transport: Arc<dyn Transport>,
    runtime: Arc<dyn Runtime>,
    /// Wakes the task that receives when the deadline moved earlier, or output is owed.
    background: AtomicWaker,
    /// Calls were made that the task that receives is to send, after whoever is ready to run had a
    /// chance to add theirs: one message and one system call for all of them, instead of one for
    /// each.
    owes_output: AtomicBool,
}

struct State {
    session: Session,
    slots: Slots,
    /// When the task that receives will wake by itself, or has been woken to see to it.
    armed: Instant,
}

/// What is left to do once the lock is released.
#[derive(Default)]
struct Aftermath {
    sent: bool,
    rearm: bool,
    wakers: Vec<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the session, and carries out what it wants.
    fn perform(&self, state: &mut State, now: Instant, input: ClientInput) -> Aftermath {
        state.session.handle(now, input);
        let mut aftermath = Aftermath::default();
        self.drain(state, &mut aftermath);
        aftermath
    }

    fn drain(&self, state: &mut State, aftermath: &mut Aftermath) {
        while let Some(output) = state.session.poll_output() {
            match output {
                ClientOutput::Send { to, envelope } => {
                    let lane = envelope.message.lane();
                    aftermath.sent = true;
                    if let Err(reason) = self.transport.send(Peer::Replica(to), lane, envelope) {
                        // The session repeats what is not answered.
                        debug!(%to, %reason, "message dropped");
                    }
                }
                ClientOutput::Done { call, result } => {
                    aftermath.wakers.extend(state.slots.finish(call, result));
                }
            }
        }
        let deadline = state.session.deadline();
        if deadline < state.armed {
            state.armed = deadline;
            aftermath.rearm = true;
        }
    }

    /// Sends what calls left to the task that receives, which calls this, and looks at the deadline
    /// afterwards.
    fn send_owed(&self) {
        if self.owes_output.swap(false, Ordering::AcqRel) {
            let mut aftermath = Aftermath::default();
            self.drain(&mut self.lock(), &mut aftermath);
            aftermath.rearm = false;
            self.settle(aftermath);
        }
    }

    /// Flushes and wakes, without the lock: wakers may run anything.
    fn settle(&self, aftermath: Aftermath) {
        if aftermath.sent {
            self.transport.flush();
        }
        if aftermath.rearm {
            self.background.wake();
        }
        aftermath.wakers.into_iter().for_each(Waker::wake);
    }

    /// Tells the session everything that arrived.
    fn absorb(&self, received: &mut Vec<Received>, timer: bool) {
        let now = self.runtime.now();
        let mut aftermath = Aftermath::default();
        let mut state = self.lock();
        for item in received.drain(..) {
            state.session.on_received(now, item);
        }
        if timer {
            state.armed = Instant::FAR_FUTURE;
            state.session.handle(now, ClientInput::Timeout);
        }
        self.owes_output.store(false, Ordering::Release);
        self.drain(&mut state, &mut aftermath);
        drop(state);
        self.settle(aftermath);
    }
}

/// One call; dropping it before it is over abandons it.
struct Call {
    link: Arc<Link>,
    call: Option<CallId>,
}

impl Future for Call {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        let Some(call) = self.call else { return Poll::Ready(Err(RequestError::ShuttingDown)) };
        let polled = self.link.shared.lock().slots.poll(cx, call);
        if polled.is_ready() {
            self.call = None;
        }
        polled
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        let shared = &self.link.shared;
        let now = shared.runtime.now();
        let mut state = shared.lock();
        if state.slots.release(call) {
            let aftermath = shared.perform(&mut state, now, ClientInput::Abandon { call });
            drop(state);
            shared.settle(aftermath);
        }
    }
}

/// Why the task that receives goes on.
enum Woken {
    Received,
    Timer,
    Closed,
}

/// Receives until the transport is closed, and keeps the session's time.
async fn receive(shared: Arc<Shared>) {
    let mut received = Vec::new();
    let mut alarm = Alarm::default();
    loop {
        let mut parked = false;
        let woken = {
            let mut arrival = shared.transport.receive(&mut received);
            poll_fn(|cx| {
                let polled = alarm.poll(&shared, &mut arrival, cx);
                parked |= polled.is_pending();
                polled
            })
            .await
        };
        match woken {
            Woken::Received => shared.absorb(&mut received, false),
            Woken::Timer => shared.absorb(&mut received, true),
            Woken::Closed => break,
        }
        if !parked {
            yield_once().await;
        }
    }
    let now = shared.runtime.now();
    let mut state = shared.lock();
    let aftermath = shared.perform(&mut state, now, ClientInput::Close);
    drop(state);
    shared.settle(aftermath);
}

/// Lets the runtime's other tasks run before this one goes on.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The one sleep of the task that receives; armed anew only when it fires or comes too late.
#[derive(Default)]
struct Alarm {
    sleep: Option<(Instant, BoxFuture<'static, ()>)>,
}

impl Alarm {
    fn poll(
        &mut self,
        shared: &Shared,
        arrival: &mut BoxFuture<'_, Result<(), Closed>>,
        cx: &mut Context<'_>,
    ) -> Poll<Woken> {
        match arrival.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Woken::Received),
            Poll::Ready(Err(Closed)) => return Poll::Ready(Woken::Closed),
            Poll::Pending => {}
        }
        // Before looking at what it is woken for, so that whoever asks afterwards wakes this task.
        shared.background.register(cx.waker());
        shared.send_owed();
        let deadline = shared.lock().session.deadline();
        if deadline == Instant::FAR_FUTURE && self.sleep.is_none() {
            return Poll::Pending;
        }
        if self.sleep.as_ref().is_none_or(|(at, _)| deadline < *at) {
            self.sleep = Some((deadline, shared.runtime.sleep_until(deadline)));
        }
        if let Some((_, sleep)) = &mut self.sleep
            && sleep.as_mut().poll(cx).is_ready()
        {
            self.sleep = None;
            return Poll::Ready(Woken::Timer);
        }
        Poll::Pending
    }
}
