//! A group of nodes on one in-process network.

use vr_core::{
    Client, Config, Durability, ExecutorMode, Members, Node, NodeHandle, ReplicaId,
    node::local::LocalNetwork,
};

use crate::{
    clockwork::Clockwork,
    memory::Memory,
    service::{Counter, Gate, Operation},
};

pub(crate) struct Group {
    pub(crate) clock: Clockwork,
    pub(crate) network: LocalNetwork,
    pub(crate) members: Members,
    pub(crate) disks: Vec<Memory>,
    pub(crate) nodes: Vec<NodeHandle<Counter>>,
    durability: Durability,
    pub(crate) config: Config,
    pub(crate) gate: Option<Gate>,
    /// What each replica's state machine adds to its snapshots; nothing for those beyond.
    pub(crate) salts: Vec<u64>,
}

impl Group {
    /// Machines without nodes.
    pub(crate) fn empty(count: u64) -> Self {
        let disks = (0..count).map(|_| Memory::default()).collect();
        let members = Members::local(count).unwrap();
        let (clock, network) = (Clockwork::new(), LocalNetwork::new());
        let (durability, config) = (Durability::Full, Config::default());
        let (nodes, gate, salts) = (Vec::new(), None, Vec::new());
        Self { clock, network, members, disks, nodes, durability, config, gate, salts }
    }

    /// Nodes that have begun to run.
    pub(crate) fn of(count: u64) -> Self {
        let mut group = Self::empty(count);
        group.nodes = (0..count).map(|id| group.start(id)).collect();
        group
    }

    /// Nodes that have begun to run in this mode.
    pub(crate) fn in_mode(count: u64, durability: Durability) -> Self {
        Self::configured(count, durability, Config::default())
    }

    /// The same with this configuration.
    pub(crate) fn configured(count: u64, durability: Durability, config: Config) -> Self {
        let mut group = Self { durability, config, ..Self::empty(count) };
        group.nodes = (0..count).map(|id| group.start(id)).collect();
        group
    }

    /// The same with state machines that fork, and whose views are written once `gate` is open.
    pub(crate) fn forking(count: u64, durability: Durability, config: Config, gate: Gate) -> Self {
        let mut group = Self { durability, config, gate: Some(gate), ..Self::empty(count) };
        group.nodes = (0..count).map(|id| group.start(id)).collect();
        group
    }

    pub(crate) fn start(&self, id: u64) -> NodeHandle<Counter> {
        self.start_as(id, ExecutorMode::Inline)
    }

    pub(crate) fn start_as(&self, id: u64, mode: ExecutorMode) -> NodeHandle<Counter> {
        let index = usize::try_from(id).unwrap();
        let disk = self.disks[index].clone();
        let salt = self.salts.get(index).copied().unwrap_or_default();
        let service = Counter { gate: self.gate.clone(), salt, ..Counter::default() };
        let starting = Node::builder(service)
            .replica(ReplicaId(id))
            .members(self.members.clone())
            .durability(self.durability)
            .storage(disk)
            .transport(self.network.transport())
            .runtime(self.machine(id))
            .config(self.config.clone())
            .executor(mode)
            .start();
        self.clock.run(starting).unwrap()
    }

    /// The runtime of replica `id`; clients of other processes run on machine 0.
    pub(crate) fn machine(&self, id: u64) -> Clockwork {
        self.clock.machine(id + 1)
    }

    pub(crate) fn crash(&self, id: u64) {
        self.machine(id).crash();
    }

    /// A client of another process.
    pub(crate) fn client(&self) -> Client<Counter> {
        let (members, transport) = (self.members.clone(), self.network.transport());
        self.clock.run(Client::connect(members, transport, self.clock.clone())).unwrap()
    }

    pub(crate) fn add(&self, client: &Client<Counter>, more: u64) -> u64 {
        self.clock.run(client.execute(Operation::Add(more))).unwrap()
    }

    /// The primary, as the replica `by` sees it.
    pub(crate) fn primary(&self, by: usize) -> u64 {
        self.nodes[by].status().replica.primary.0
    }
}
