//! A group of engines with in-memory disks, a random scheduler, and the checks that matter most.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "support of one test: what goes wrong here is a failed test, with its trace"
)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use vr_core::{
    Config, Durability, Members, Recovered, ReplicaId, WriteBatch,
    execution::work::{Executed, Work},
    model::{
        durable::{Identity, Superblock},
        entry::{Entry, EntryKind},
        message::{Envelope, Message, Outcome, Reply, Request, Sender},
        time::{Instant, Now},
        types::{
            Checksum, ClientId, ConnectionId, DiskId, Incarnation, Nonce, OpNumber, Peer,
            PersistId, RequestNumber, View,
        },
    },
    replica::{
        Boot, Replica,
        io::{Input, Output},
    },
    state::prng::Prng,
};

/// What goes wrong.
#[derive(Clone, Copy)]
pub(crate) struct Chaos {
    pub(crate) crashes: bool,
    pub(crate) loss_percent: u64,
    pub(crate) double_percent: u64,
}

impl Default for Chaos {
    fn default() -> Self {
        Self { crashes: true, loss_percent: 5, double_percent: 5 }
    }
}

#[derive(Clone)]
struct Disk {
    superblock: Superblock,
    entries: Vec<Entry>,
}

impl Disk {
    fn write(&mut self, batch: WriteBatch) {
        if let Some(after) = batch.cut {
            self.entries.retain(|entry| entry.header.op_number <= after);
        }
        for entry in batch.entries() {
            let next = self.entries.len() + 1;
            assert_eq!(entry.header.op_number, op(next), "writes are contiguous");
            self.entries.push(entry.clone());
        }
        if let Some(superblock) = batch.superblock {
            assert!(superblock.view >= self.superblock.view, "promises are never taken back");
            self.superblock = superblock;
        }
    }
}

fn op(number: usize) -> OpNumber {
    OpNumber(u64::try_from(number).unwrap())
}

/// One process: an engine and everything that a crash takes.
struct Process {
    engine: Replica,
    writes: VecDeque<(PersistId, WriteBatch)>,
    inputs: VecDeque<Input>,
    applied: Vec<Checksum>,
    done: BTreeMap<ClientId, RequestNumber>,
}

pub(crate) struct Group {
    prng: Prng,
    chaos: Chaos,
    clock: u64,
    members: Members,
    disks: Vec<Disk>,
    processes: Vec<Option<Process>>,
    network: Vec<(Peer, Peer, Box<Envelope>)>,
    committed: Vec<Checksum>,
    clients: Vec<Client>,
    digest: u64,
    trace: VecDeque<String>,
}

/// A client with one request in flight, talking to a replica of the moment.
struct Client {
    id: ClientId,
    session: OpNumber,
    number: RequestNumber,
    acknowledged: u64,
}

fn config() -> Config {
    let mut config = Config::default();
    config.pipeline_ops_max = 16;
    config.checkpoint_ops = 0;
    config.transfer_headers_max = 4;
    config.transfer_bytes_max = 600;
    config.log_cache_bytes_max = 200;
    config.execute_ops_max = 8;
    config
}

impl Group {
    pub(crate) fn new(seed: u64, count: u64, chaos: Chaos) -> Self {
        let members = Members::local(count).unwrap();
        let mut group = Self {
            prng: Prng::new(u128::from(seed)),
            chaos,
            clock: 1_000_000_000,
            disks: Vec::new(),
            processes: Vec::new(),
            network: Vec::new(),
            committed: Vec::new(),
            clients: Vec::new(),
            digest: 0,
            trace: VecDeque::new(),
            members,
        };
        for id in 0..count {
            let identity = group.identity(id);
            group
                .disks
                .push(Disk { superblock: Superblock::blank(&identity), entries: Vec::new() });
            group.processes.push(None);
        }
        for id in 0..3 {
            group.clients.push(Client {
                id: ClientId(100 + id),
                session: OpNumber::ZERO,
                number: RequestNumber::ZERO,
                acknowledged: 0,
            });
        }
        for id in 0..group.disks.len() {
            group.start(id);
        }
        group
    }

    fn identity(&mut self, id: u64) -> Identity {
        let membership = self.members.to_membership();
        Identity {
            group: membership.group_id("g"),
            group_name: "g".into(),
            members: membership,
            replica: ReplicaId(id),
            durability: Durability::Full,
            fresh_disk: DiskId(self.prng.nonce().0),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: Instant(self.clock), wall: Duration::from_nanos(self.clock) }
    }

    fn start(&mut self, id: usize) {
        let identity = self.identity(u64::try_from(id).unwrap());
        let disk = &self.disks[id];
        let headers = disk.entries.iter().map(|entry| entry.header).collect();
        let recovered = Recovered::whole(disk.superblock.clone(), headers);
        let seed = self.prng.nonce().0;
        let boot = Boot { config: config(), identity, recovered, state: None, seed };
        self.processes[id] = Some(Process {
            engine: Replica::new(self.now(), boot),
            writes: VecDeque::new(),
            inputs: VecDeque::new(),
            applied: Vec::new(),
            done: BTreeMap::new(),
        });
        self.note(format!("start {id}"));
        self.tell_others(id, true);
    }

    fn crash(&mut self, id: usize) {
        let Some(process) = self.processes[id].take() else { return };
        let keep = self.below(u64::try_from(process.writes.len()).unwrap() + 1);
        for (_, batch) in process.writes.into_iter().take(usize::try_from(keep).unwrap()) {
            self.disks[id].write(batch);
        }
        self.note(format!("crash {id}, {keep} writes survived"));
        self.tell_others(id, false);
    }

    fn tell_others(&mut self, id: usize, up: bool) {
        let peer = Peer::Replica(ReplicaId(u64::try_from(id).unwrap()));
        for (other, process) in self.processes.iter_mut().enumerate() {
            if let Some(process) = process.as_mut().filter(|_| other != id) {
                process.inputs.push_back(match up {
                    true => Input::Connected { peer },
                    false => Input::Disconnected { peer },
                });
            }
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.prng.next() % limit.max(1)
    }

    fn note(&mut self, line: String) {
        for byte in line.bytes() {
            self.digest = self.digest.wrapping_mul(31).wrapping_add(u64::from(byte));
        }
        if self.trace.len() > 400 {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>9} {line}", self.clock / 1000));
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Random steps under faults.
    pub(crate) fn storm(&mut self, steps: u64) {
        for _ in 0..steps {
            let roll = self.below(1000);
            let id = usize::try_from(self.below(u64::try_from(self.disks.len()).unwrap())).unwrap();
            match roll {
                0..3 if self.chaos.crashes => self.crash(id),
                3..10 if self.chaos.crashes && self.processes[id].is_none() => self.start(id),
                10..60 => self.clock += self.prng.next() % 60_000_000,
                60..120 => self.client_step(),
                120..400 => self.finish_write(id),
                _ => self.deliver_one(true),
            }
            self.clock += 20_000;
            self.turn_all();
        }
    }

    /// No more faults, and time to settle.
    pub(crate) fn calm(&mut self) {
        for id in 0..self.processes.len() {
            if self.processes[id].is_none() {
                self.start(id);
            }
        }
        for client in 0..self.clients.len() {
            self.clients[client].acknowledged = 0;
        }
        for round in 0..6000 {
            for id in 0..self.processes.len() {
                self.finish_write(id);
            }
            self.deliver_one(false);
            if round % 40 == 0 {
                self.clock += 5_000_000;
                if round < 4000 {
                    self.client_step();
                }
            }
            self.clock += 10_000;
            self.turn_all();
        }
    }

    fn turn_all(&mut self) {
        for id in 0..self.processes.len() {
            self.turn(id);
        }
    }

    fn turn(&mut self, id: usize) {
        let now = self.now();
        let Some(mut process) = self.processes[id].take() else { return };
        if process.engine.deadline() <= now.monotonic {
            process.engine.handle(now, Input::Timeout);
        }
        loop {
            while let Some(input) = process.inputs.pop_front() {
                process.engine.handle(now, input);
            }
            while let Some(output) = process.engine.poll_output(now) {
                self.perform(id, &mut process, output);
            }
            if process.inputs.is_empty() {
                break;
            }
        }
        self.processes[id] = Some(process);
    }

    fn perform(&mut self, id: usize, process: &mut Process, output: Output) {
        let me = Peer::Replica(ReplicaId(u64::try_from(id).unwrap()));
        match output {
            Output::Send { to, envelope, .. } => self.network.push((me, to, envelope)),
            Output::Persist { id, batch } => process.writes.push_back((id, *batch)),
            Output::Fetch { request, from, through, .. } => {
                let wanted = from..=through;
                let disk = &self.disks[id];
                let held = disk.entries.iter().filter(|e| wanted.contains(&e.header.op_number));
                let entries = held.take(3).cloned().collect();
                process.inputs.push_back(Input::Fetched { request, entries });
            }
            Output::Execute(work) => self.execute(id, process, work),
            Output::Transfer(task) => unreachable!("there are no checkpoints: {task:?}"),
            Output::Event(event) => self.note(format!("{id}: {event:?}")),
            Output::Fatal(reason) => self.fail(&format!("replica {id} stopped: {reason}")),
        }
    }

    fn execute(&mut self, id: usize, process: &mut Process, work: Work) {
        let mut replies = Vec::new();
        match work {
            Work::Entries { entries, reply } => {
                for entry in &entries {
                    process.applied.push(entry.header.checksum);
                    let at = process.applied.len();
                    assert_eq!(entry.header.op_number, op(at), "execution is contiguous");
                    assert!(entry.verify_payload().is_ok(), "bodies belong to their headers");
                    self.check_committed(id, at, entry.header.checksum);
                    let header = entry.header;
                    let done = process.done.entry(header.client).or_default();
                    if header.kind == EntryKind::Request && header.request_number > *done {
                        assert_eq!(header.request_number, done.next(), "numbers have no gaps");
                        *done = header.request_number;
                    }
                    let outcome = match header.kind {
                        EntryKind::Register => Outcome::Registered,
                        EntryKind::Request | EntryKind::Many | EntryKind::Noop => {
                            Outcome::Executed(Bytes::new())
                        }
                    };
                    let (client, request_number) = (header.client, header.request_number);
                    let op_number = header.op_number;
                    if reply {
                        replies.push(Reply { client, request_number, op_number, outcome });
                    }
                }
            }
            Work::Resend { client, request_number } => {
                let known = process.done.get(&client);
                if known.is_some_and(|done| request_number <= *done) {
                    let outcome = match request_number {
                        RequestNumber::ZERO => Outcome::Registered,
                        _ => Outcome::Executed(Bytes::new()),
                    };
                    let op_number = self.session_of(id, client);
                    replies.push(Reply { client, request_number, op_number, outcome });
                }
            }
            Work::Query { .. }
            | Work::Checkpoint { .. }
            | Work::Restore { .. }
            | Work::Belong { .. }
            | Work::Resume
            | Work::Discard
            | Work::Persist => {}
        }
        let through = op(process.applied.len());
        process.inputs.push_back(Input::Executed(Executed {
            through,
            replies,
            ..Executed::default()
        }));
    }

    fn session_of(&self, id: usize, client: ClientId) -> OpNumber {
        let entries = &self.disks[id].entries;
        let session = entries
            .iter()
            .find(|e| e.header.client == client && e.header.kind == EntryKind::Register);
        session.map(|entry| entry.header.op_number).unwrap_or_default()
    }

    fn check_committed(&mut self, id: usize, at: usize, checksum: Checksum) {
        match self.committed.get(at - 1) {
            Some(known) if *known == checksum => {}
            Some(_) => self.fail(&format!("replica {id} applied another entry at op {at}")),
            None => self.committed.push(checksum),
        }
    }

    fn fail(&self, what: &str) -> ! {
        for line in &self.trace {
            eprintln!("{line}");
        }
        panic!("{what}");
    }

    fn finish_write(&mut self, id: usize) {
        let Some(process) = self.processes[id].as_mut() else { return };
        if let Some((through, batch)) = process.writes.pop_front() {
            self.disks[id].write(batch);
            process.inputs.push_back(Input::Persisted { through });
        }
    }

    fn deliver_one(&mut self, faults: bool) {
        if self.network.is_empty() {
            return;
        }
        let limit = if faults { u64::try_from(self.network.len()).unwrap() } else { 1 };
        let at = usize::try_from(self.below(limit)).unwrap();
        let (from, to, envelope) =
            if faults { self.network.swap_remove(at) } else { self.network.remove(at) };
        if faults && self.below(100) < self.chaos.double_percent {
            self.network.push((from, to, envelope.clone()));
        }
        if faults && self.below(100) < self.chaos.loss_percent {
            return;
        }
        match to {
            Peer::Replica(id) => {
                let id = usize::try_from(id.0).unwrap();
                if let Some(process) = &mut self.processes[id] {
                    process.inputs.push_back(Input::Message { from, envelope });
                }
            }
            Peer::Client(connection) => self.client_hears(connection, &envelope.message),
        }
    }

    fn client_hears(&mut self, connection: ConnectionId, message: &Message) {
        if let Message::Replies(batch) = message {
            let each = batch.clone().each().map(Message::Reply);
            return each.for_each(|reply| self.client_hears(connection, &reply));
        }
        let Message::Reply(reply) = message else { return };
        let client = &mut self.clients[usize::try_from(connection.0).unwrap()];
        match reply.outcome {
            Outcome::Registered => client.session = reply.op_number,
            _ if reply.request_number == client.number => {
                client.acknowledged += 1;
                client.number = client.number.next();
            }
            _ => {}
        }
    }

    fn client_step(&mut self) {
        let which = self.below(u64::try_from(self.clients.len()).unwrap());
        let replica = self.below(u64::try_from(self.disks.len()).unwrap());
        let client = &mut self.clients[usize::try_from(which).unwrap()];
        let message = if client.session == OpNumber::ZERO {
            let nonce = Nonce(client.id.0);
            Message::Register(vr_core::model::message::Register { client: client.id, nonce })
        } else {
            client.number = client.number.max(RequestNumber(1));
            Message::Request(Request {
                client: client.id,
                session: client.session,
                request_number: client.number,
                many: false,
                operation: Bytes::copy_from_slice(&[7; 90]),
            })
        };
        let envelope = Envelope {
            group: self.members.to_membership().group_id("g"),
            certificate: Default::default(),
            epoch: Default::default(),
            sender: Sender::Client(client.id),
            incarnation: Incarnation::ZERO,
            view: View::ZERO,
            crash_vector: Default::default(),
            message,
        };
        let to = Peer::Replica(ReplicaId(replica));
        self.network.push((Peer::Client(ConnectionId(which)), to, Box::new(envelope)));
    }

    pub(crate) fn assert_converged(&self) {
        let acknowledged: u64 = self.clients.iter().map(|client| client.acknowledged).sum();
        let now = self.now();
        let states: Vec<_> =
            self.processes.iter().flatten().map(|p| p.engine.status(now)).collect();
        for status in &states {
            if status.applied != op(self.committed.len()) || acknowledged == 0 {
                for state in &states {
                    eprintln!("{state:?}");
                }
                self.fail(&format!(
                    "no convergence: {acknowledged} acknowledged, {} committed",
                    self.committed.len()
                ));
            }
        }
    }
}
