//! Floor 4: a replica with its transport, storage, state machine and clock, running.

mod checkpoint_findings;
mod checkpoint_front;
mod clock;
mod driver;
pub mod events;
pub mod executor_front;
pub mod explain;
pub mod export;
pub mod finding;
pub mod handle;
pub mod handoffs;
mod inbox;
pub mod local;
mod lock;
mod loss;
pub mod memory_checkpoints;
mod pins;
mod shared;
mod sleep;
mod slow_steps;
pub mod status;
pub mod stop;
mod storage_front;
mod watched;

use core::{fmt, marker::PhantomData};
use std::sync::{Arc, Mutex};

use futures::task::AtomicWaker;
use tracing::{Instrument, info, info_span, warn};

use crate::{
    client::Raw,
    execution::executor::Executor,
    model::{
        companion::StateOnDisk,
        config::{Config, Genesis},
        durable::{Durability, Identity},
        membership::{Members, Membership},
        time::Instant,
        types::{DiskId, ReplicaId},
    },
    node::{
        checkpoint_front::CheckpointFront,
        clock::Clock,
        driver::{Driver, LOCAL_CONNECTIONS, Senses},
        events::EventHub,
        executor_front::ExecutorFront,
        handle::NodeHandle,
        handoffs::Handoffs,
        local::LocalNetwork,
        lock::Left,
        shared::{Counters, Facts, Numbers, Observed, Shared},
        status::ExecutorMode,
        stop::{NodeError, StopSignal},
        storage_front::StorageFront,
        watched::{Doing, Watched},
    },
    ports::{
        runtime::Runtime,
        state_machine::{RawStateMachine, Service, StateMachine, Typed},
        storage::{LogReader, Opened, Storage},
        transport::{Endpoint, Role, Transport},
    },
    replica::{Boot, Replica},
};

/// A replica with everything it needs to run; see [`Node::builder`].
#[derive(Clone, Copy, Debug)]
pub enum Node {}

impl Node {
    /// A node of a service, to be told the rest one by one.
    ///
    /// ```no_run
    /// # use vr_core::{Members, Node, NodeError, ReplicaId, Runtime, StateMachine, Storage, Transport};
    /// # async fn start<S: StateMachine>(
    /// #     service: S,
    /// #     storage: impl Storage,
    /// #     transport: impl Transport,
    /// #     runtime: impl Runtime,
    /// #     operation: S::Operation,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder(service)
    ///     .replica(ReplicaId(0))
    ///     .members("10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000".parse()?)
    ///     .storage(storage)
    ///     .transport(transport)
    ///     .runtime(runtime)
    ///     .start()
    ///     .await?;
    /// let reply = node.client().execute(operation).await?;
    /// # drop(reply);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder<S: StateMachine>(state_machine: S) -> NodeBuilder<S> {
        NodeBuilder::new(Box::new(Typed(state_machine)))
    }

    /// A node of a service that reads and writes bytes.
    pub fn builder_raw(state_machine: impl RawStateMachine) -> NodeBuilder<Raw> {
        NodeBuilder::new(Box::new(state_machine))
    }
}

/// What a node needs to know.
pub struct NodeBuilder<S> {
    state_machine: Box<dyn RawStateMachine>,
    group: String,
    replica: Option<ReplicaId>,
    members: Option<Members>,
    durability: Durability,
    storage: Option<Box<dyn Storage>>,
    transport: Option<Arc<dyn Transport>>,
    runtime: Option<Arc<dyn Runtime>>,
    config: Config,
    genesis: Option<Genesis>,
    mode: ExecutorMode,
    service: Service<S>,
}

impl<S> NodeBuilder<S> {
    fn new(state_machine: Box<dyn RawStateMachine>) -> Self {
        Self {
            state_machine,
            group: "default".to_owned(),
            replica: None,
            members: None,
            durability: Durability::Full,
            storage: None,
            transport: None,
            runtime: None,
            config: Config::default(),
            genesis: None,
            mode: ExecutorMode::Inline,
            service: PhantomData,
        }
    }

    /// The group's name, the same on all members; "default" if it is not said.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = name.into();
        self
    }

    /// Which member this is.
    #[must_use]
    pub const fn replica(mut self, replica: ReplicaId) -> Self {
        self.replica = Some(replica);
        self
    }

    /// The group's members, the same list on all of them.
    #[must_use]
    pub fn members(mut self, members: Members) -> Self {
        self.members = Some(members);
        self
    }

    /// What the group survives, the same on all members; [`Durability::Full`] if it is not said.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Where to keep what must not be forgotten.
    #[must_use]
    pub fn storage(mut self, storage: impl Storage) -> Self {
        self.storage = Some(Box::new(storage));
        self
    }

    /// How to reach the other members, and clients.
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

    /// Limits and timeouts, the same on all members; the defaults if it is not said.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Whether a group without disks may be founded; what the configuration says if it is not said
    /// here. Other groups do not ask: blank disks are proof that there was none.
    #[must_use]
    pub const fn genesis(mut self, genesis: Genesis) -> Self {
        self.genesis = Some(genesis);
        self
    }

    /// Where the state machine executes; [`ExecutorMode::Inline`] if it is not said.
    #[must_use]
    pub const fn executor(mut self, mode: ExecutorMode) -> Self {
        self.mode = mode;
        self
    }

    /// Opens the storage, starts the transport, and runs the node in the background.
    ///
    /// Returns as soon as the node runs, which may be long before its group exists: calls of its
    /// clients wait, and [`explain`](NodeHandle::explain) says for whom.
    ///
    /// # Errors
    /// [`NodeError`]: something was not said or does not fit together, the storage cannot be
    /// opened, or the transport cannot take part. Nothing runs then, and nothing is lost.
    pub async fn start(self) -> Result<NodeHandle<S>, NodeError> {
        let replica = self.replica.ok_or(NodeError::Missing { what: "replica" })?;
        let members = self.members.ok_or(NodeError::Missing { what: "members" })?;
        let storage = self.storage.ok_or(NodeError::Missing { what: "storage" })?;
        let transport = self.transport.ok_or(NodeError::Missing { what: "transport" })?;
        let runtime = self.runtime.ok_or(NodeError::Missing { what: "runtime" })?;
        let mut config = self.config;
        config.genesis = self.genesis.unwrap_or(config.genesis);
        config.validate()?;
        let membership = members.to_membership();
        require_member(replica, &membership)?;
        let identity = Identity {
            group: membership.group_id(&self.group),
            group_name: self.group.clone(),
            members: membership,
            replica,
            durability: self.durability,
            fresh_disk: DiskId(runtime.entropy()),
        };
        let opened = storage.open(&identity).await?;
        let doing = Doing::default();
        let watched = Box::new(Watched::new(self.state_machine, doing.clone()));
        let mut executor = Executor::new(watched, config.window)
            .with_mutants(config.mutants())
            .with_checkpoints(Arc::clone(&opened.checkpoints));
        let state = executor.open_state(identity.group, &config)?;
        let executor = ExecutorFront::new(executor, doing, config.heartbeat_interval);
        let network = LocalNetwork::with_connections_from(LOCAL_CONNECTIONS);
        let local = network.transport();
        let endpoint = Endpoint {
            group_name: self.group.clone(),
            group: identity.group,
            role: Role::Replica(replica),
            durability: Some(self.durability),
            members: members.clone(),
            message_bytes_max: config.message_bytes_max,
        };
        local.start(endpoint.clone())?;
        transport.start(endpoint)?;
        let facts = Facts { group: self.group, members, replica, config, started: runtime.now() };
        let parts = Parts { facts, identity, opened, state, network, transport, runtime };
        let (driver, shared) = parts.assemble(executor, self.mode, local);
        let span = info_span!("replica", group = %shared.facts.group, replica = %replica);
        span.in_scope(|| greet(&shared.facts));
        shared.runtime.spawn("vr node", Box::pin(driver.run().instrument(span)));
        Ok(NodeHandle::new(shared))
    }
}

impl<S> fmt::Debug for NodeBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("group", &self.group)
            .field("replica", &self.replica)
            .field("members", &self.members)
            .field("durability", &self.durability)
            .field("executor", &self.mode)
            .finish_non_exhaustive()
    }
}

fn require_member(replica: ReplicaId, members: &Membership) -> Result<(), NodeError> {
    if members.index_of(replica).is_none() {
        return Err(NodeError::NotAMember { replica, members: members.clone() });
    }
    Ok(())
}

fn greet(facts: &Facts) {
    let membership = facts.members.to_membership();
    info!(members = %membership, quorum = membership.quorum(), "node started");
    if membership.len() == 2 {
        warn!("a group of two needs both replicas and survives no failure; run three");
    }
}

/// What a node is put together from.
struct Parts {
    facts: Facts,
    identity: Identity,
    opened: Opened,
    state: Option<StateOnDisk>,
    network: LocalNetwork,
    transport: Arc<dyn Transport>,
    runtime: Arc<dyn Runtime>,
}

impl Parts {
    fn assemble(
        self,
        executor: ExecutorFront,
        mode: ExecutorMode,
        local: local::LocalTransport,
    ) -> (Driver, Arc<Shared>) {
        let Self { facts, identity, opened, state, network, transport, runtime } = self;
        let Opened { recovered, writer, reader, checkpoints } = opened;
        let reader: Arc<dyn LogReader> = Arc::from(reader);
        let config = facts.config.clone();
        let heartbeat = config.heartbeat_interval;
        let mut clock = Clock::new(runtime.as_ref());
        let now = clock.now(runtime.as_ref());
        let seed = runtime.entropy();
        let persists = state.is_some();
        let replica = Replica::new(now, Boot { config, identity, recovered, state, seed });
        let shared = Arc::new(Shared {
            facts,
            runtime,
            transport,
            network,
            observed: Mutex::new(Observed { replica, numbers: Numbers::default() }),
            orders: Left::default(),
            waker: Arc::new(AtomicWaker::new()),
            events: EventHub::default(),
            stop: StopSignal::default(),
            doing: executor.doing().clone(),
            reader: Mutex::new(Some(Arc::clone(&reader))),
            checkpoints: Mutex::new(Some(Arc::clone(&checkpoints))),
            pins: Arc::default(),
        });
        let driver = Driver {
            shared: Arc::clone(&shared),
            local,
            storage: StorageFront::new(writer, reader, heartbeat),
            checkpoints: CheckpointFront::new(
                checkpoints,
                Arc::clone(&shared.runtime),
                Arc::clone(&shared.waker),
            ),
            executor,
            senses: Senses::new(),
            counters: Counters::default(),
            mode,
            has_silent_primary: false,
            unflushed: false,
            handoffs: Handoffs::default(),
            clock,
            shutdown_at: None,
            persists,
            complain_at: Instant::ZERO,
            finished: false,
        };
        (driver, shared)
    }
}
