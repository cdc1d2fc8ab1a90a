//! Engines without nodes: a group of them and all clients in one loop on one thread.

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use vr_core::{
    Config, Durability, Genesis, Members, Recovered, ReplicaId,
    execution::{
        executor::Executor,
        transfer::{Task, perform},
        work::{Executed, Work},
    },
    model::{
        durable::{CheckpointId, Identity, Superblock},
        entry::{Entry, EntryKind},
        message::{Envelope, Message, Outcome, Register, Reply, Sender, StatusKind},
        operation::Operation,
        time::{Instant as Monotonic, Now},
        types::{
            Checksum, ClientId, ConnectionId, DiskId, GroupId, Incarnation, Nonce, OpNumber, Peer,
            RequestNumber, View,
        },
    },
    node::memory_checkpoints::MemoryCheckpoints,
    replica::{
        Boot, Replica,
        io::{Input, Output},
    },
};

use crate::load::{
    generator::{Measured, nanoseconds},
    service::Counter,
    workload::Workload,
};

/// How long a group of engines may take to form, or go without an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group of engines that a loop drives.
pub trait Engines {
    /// Gives the group an operation of client `client`, which has none in flight.
    fn submit(&mut self, client: usize, payload: Bytes);

    /// Lets every engine do what it can, and adds the clients whose operations are answered.
    ///
    /// # Errors
    /// An engine stopped.
    fn turn(&mut self, now: Instant, answered: &mut Vec<usize>) -> anyhow::Result<()>;
}

/// Runs `workload` against `engines`, in a closed loop.
///
/// # Errors
/// An engine stopped, or nothing was answered for five seconds.
pub fn drive(engines: &mut impl Engines, workload: &Workload) -> anyhow::Result<Measured> {
    let payload = Bytes::from(vec![0x5a; workload.payload_bytes]);
    let began = Instant::now();
    let from = began + workload.warm_up;
    let until = from + workload.duration;
    let mut measured = Measured { elapsed: workload.duration, ..Measured::default() };
    let mut started = vec![began; workload.clients];
    (0..workload.clients).for_each(|client| engines.submit(client, payload.clone()));
    let (mut answered, mut last) = (Vec::new(), began);
    loop {
        let now = Instant::now();
        if now >= until {
            return Ok(measured);
        }
        engines.turn(now, &mut answered)?;
        if answered.is_empty() {
            if now.saturating_duration_since(last) > PATIENCE {
                bail!("no operation was answered for {PATIENCE:?}");
            }
            continue;
        }
        last = Instant::now();
        for client in answered.drain(..) {
            let Some(started) = started.get_mut(client) else { bail!("a client too many") };
            measured.succeeded += 1;
            if *started >= from && last <= until {
                measured.latencies.push(nanoseconds(last - *started));
            }
            *started = last;
            engines.submit(client, payload.clone());
        }
    }
}

/// Who carries out what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// The loop counts entries and replies, and says of every checkpoint that it is there; so are
    /// other engines driven.
    Counted,
    /// The executor that a node has, with its client table and a service.
    Full,
}

/// What a group consists of, and who asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Engines.
    pub replicas: u64,
    /// Whether operations wait for storage, which takes no time here.
    pub durability: Durability,
    /// Who carries out what is committed.
    pub execution: Execution,
    /// Clients, each with one operation in flight.
    pub clients: usize,
    /// How many of them share a session.
    pub clients_per_session: usize,
}

/// Does a part of the work of a turn, and whatever its owner wants beside it.
pub type Watch = fn(&mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()>;

/// Engines, their queues, and the clients' sessions.
#[derive(Debug)]
pub struct Group {
    members: Vec<Member>,
    group: GroupId,
    origin: Instant,
    formed: Instant,
    wall: Duration,
    sessions: Vec<Session>,
    clients_per_session: usize,
    primary: usize,
    /// Around the primary's part of each turn.
    watch: Option<Watch>,
}

/// An engine and what waits for it.
struct Member {
    engine: Replica,
    inputs: VecDeque<Input>,
    applied: OpNumber,
    executor: Option<Executor>,
    /// Where the executor's checkpoints are.
    checkpoints: Arc<MemoryCheckpoints>,
}

impl core::fmt::Debug for Member {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Member").field("applied", &self.applied).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default)]
struct Session {
    op_number: OpNumber,
    /// The clients' requests in flight, from this number on.
    first: RequestNumber,
    in_flight: VecDeque<Option<usize>>,
    /// Operations since the last turn.
    asked: Vec<Operation>,
}

impl Session {
    /// Who asked for `number`, if the answer was missing.
    fn answer(&mut self, number: RequestNumber) -> Option<usize> {
        let place = usize::try_from(number.since(self.first)).ok()?;
        let client = self.in_flight.get_mut(place)?.take();
        while self.in_flight.pop_front_if(|front| front.is_none()).is_some() {
            self.first = self.first.next();
        }
        client
    }
}

impl Group {
    /// A group that has formed, and in which every session is open.
    ///
    /// # Errors
    /// The group does not form.
    pub fn start(shape: Shape) -> anyhow::Result<Self> {
        let Shape { replicas, durability, execution, clients, clients_per_session } = shape;
        let members = Members::local(replicas)?.to_membership();
        let group = members.group_id("engines");
        let origin = Instant::now();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let clients_per_session = clients_per_session.max(1);
        let sessions = vec![Session::default(); clients.div_ceil(clients_per_session)];
        let mut this = Self {
            members: Vec::new(),
            group,
            origin,
            formed: origin,
            wall,
            sessions,
            clients_per_session,
            primary: 0,
            watch: None,
        };
        let window = u32::try_from(clients_per_session)?;
        let mut config = Config::default();
        config.window = window;
        config.genesis = Genesis::Found;
        for id in 0..replicas {
            let identity = Identity {
                group,
                group_name: "engines".into(),
                members: members.clone(),
                replica: ReplicaId(id),
                durability,
                fresh_disk: DiskId(u128::from(id) + 1),
            };
            let recovered = Recovered::whole(Superblock::blank(&identity), Vec::new());
            let seed = u128::from(id) + 1;
            let boot = Boot { config: config.clone(), identity, recovered, state: None, seed };
            let checkpoints = Arc::new(MemoryCheckpoints::new());
            let executor = || {
                let service = Box::new(Counter::default());
                Executor::new(service, config.window).with_checkpoints(checkpoints.clone())
            };
            let connected = (0..replicas).filter(|other| *other != id).map(ReplicaId);
            this.members.push(Member {
                engine: Replica::new(this.now(origin), boot),
                inputs: connected
                    .map(|other| Input::Connected { peer: Peer::Replica(other) })
                    .collect(),
                applied: OpNumber::ZERO,
                executor: (execution == Execution::Full).then(executor),
                checkpoints,
            });
        }
        this.form()?;
        Ok(this)
    }

    /// Has `watch` do the primary's part of each turn from now on.
    pub const fn watch_primary(&mut self, watch: Watch) {
        self.watch = Some(watch);
    }

    /// When the group had formed; its time goes on from there.
    #[must_use]
    pub const fn formed(&self) -> Instant {
        self.formed
    }

    /// Lets time pass until the group has a primary that serves, and opens every session. Nobody
    /// waits for that time, so it is the same in every run.
    fn form(&mut self) -> anyhow::Result<()> {
        let mut answered = Vec::new();
        let mut now = self.origin;
        while !self.has_primary(now) {
            now += Duration::from_millis(1);
            self.turn(now, &mut answered)?;
            if now.saturating_duration_since(self.origin) > PATIENCE {
                bail!("the engines form no group");
            }
        }
        for session in 0..self.sessions.len() {
            let id = client_id(session);
            let register = Register { client: id, nonce: Nonce(id.0) };
            self.tell_primary(session, Message::Register(register));
            if session % 256 == 255 {
                self.turn(now, &mut answered)?;
            }
        }
        let begun = now;
        while self.sessions.iter().any(|session| session.op_number == OpNumber::ZERO) {
            now += Duration::from_millis(1);
            self.turn(now, &mut answered)?;
            if now.saturating_duration_since(begun) > PATIENCE {
                bail!("the engines do not open every session");
            }
        }
        self.formed = Instant::now();
        let passed = now.saturating_duration_since(self.origin);
        self.origin = self.formed.checked_sub(passed).context("a clock that began just now")?;
        Ok(())
    }

    fn has_primary(&mut self, now: Instant) -> bool {
        let now = self.now(now);
        let statuses: Vec<_> =
            self.members.iter().map(|member| member.engine.status(now)).collect();
        let is_ready = statuses.iter().all(|status| status.status == StatusKind::Normal);
        let primary = statuses.iter().position(|status| status.serving);
        self.primary = primary.unwrap_or_default();
        is_ready && primary.is_some()
    }

    fn now(&self, at: Instant) -> Now {
        let elapsed = at.saturating_duration_since(self.origin);
        // The engine's zero has passed when it starts.
        let monotonic = Monotonic(1_000_000_000 + nanoseconds(elapsed));
        Now { monotonic, wall: self.wall + elapsed }
    }

    /// Sends what was asked for since the last turn, as a client does: what waits in one session
    /// leaves in one message.
    fn ask(&mut self) {
        for at in 0..self.sessions.len() {
            let Some(session) = self.sessions.get_mut(at) else { continue };
            let (count, client) = (session.asked.len(), client_id(at));
            if count == 0 {
                continue;
            }
            let before = u64::try_from(session.in_flight.len() - count).unwrap_or_default();
            let (op_number, first) = (session.op_number, session.first.plus(before));
            let operations = mem::take(&mut session.asked);
            self.tell_primary(at, Message::asking(client, op_number, first, operations));
        }
    }

    fn tell_primary(&mut self, client: usize, message: Message) {
        let envelope = Box::new(Envelope {
            group: self.group,
            certificate: Default::default(),
            epoch: Default::default(),
            sender: Sender::Client(client_id(client)),
            incarnation: Incarnation::ZERO,
            view: View::ZERO,
            crash_vector: Default::default(),
            message,
        });
        let from = Peer::Client(connection(client));
        if let Some(primary) = self.members.get_mut(self.primary) {
            primary.inputs.push_back(Input::Message { from, envelope });
        }
    }

    /// Tells one engine everything that waits, and carries out what follows, until nothing does.
    fn turn_one(&mut self, at: usize, now: Now, answered: &mut Vec<usize>) -> anyhow::Result<()> {
        let me = Peer::Replica(ReplicaId(u64::try_from(at)?));
        loop {
            let member = self.members.get_mut(at).context("there is no such member")?;
            if member.engine.deadline() <= now.monotonic {
                member.engine.handle(now, Input::Timeout);
            }
            while let Some(input) = member.inputs.pop_front() {
                member.engine.handle(now, input);
            }
            while let Some(output) = self.poll(at, now) {
                match output {
                    Output::Send { to: Peer::Replica(id), envelope, .. } => {
                        let to = self.members.get_mut(usize::try_from(id.0)?);
                        let input = Input::Message { from: me, envelope };
                        to.context("there is no such member")?.inputs.push_back(input);
                    }
                    Output::Send { to: Peer::Client(to), envelope, .. } => {
                        self.answer(to, &envelope.message, answered)?;
                    }
                    Output::Persist { id, .. } => {
                        self.give(at, Input::Persisted { through: id });
                    }
                    Output::Execute(work) => self.execute(at, work)?,
                    Output::Fetch { .. } => bail!("an engine reads a log that nobody keeps"),
                    Output::Transfer(task) => self.transfer(at, *task)?,
                    Output::Event(_) => {}
                    Output::Fatal(reason) => bail!("an engine stopped: {reason}"),
                }
            }
            if self.members.get(at).is_none_or(|member| member.inputs.is_empty()) {
                return Ok(());
            }
        }
    }

    fn poll(&mut self, at: usize, now: Now) -> Option<Output> {
        self.members.get_mut(at)?.engine.poll_output(now)
    }

    fn give(&mut self, at: usize, input: Input) {
        if let Some(member) = self.members.get_mut(at) {
            member.inputs.push_back(input);
        }
    }

    fn execute(&mut self, at: usize, work: Work) -> anyhow::Result<()> {
        let member = self.members.get_mut(at).context("there is no such member")?;
        let executed = match &mut member.executor {
            Some(executor) => {
                executor.push(work);
                executor.steps(usize::MAX);
                executor.take_finished().map(|finished| finished.executed)
            }
            None => {
                let executed = counted(work, member.applied);
                member.applied = executed.through;
                Some(executed)
            }
        };
        member.inputs.extend(executed.map(Input::Executed));
        Ok(())
    }

    /// What replicas do not need of their checkpoints goes; nobody fetches one here.
    fn transfer(&mut self, at: usize, task: Task) -> anyhow::Result<()> {
        let member = self.members.get_mut(at).context("there is no such member")?;
        if !matches!(task, Task::Keep { .. }) {
            bail!("an engine fetches a checkpoint: {task:?}");
        }
        let done = perform(&*member.checkpoints, task)?;
        member.inputs.push_back(Input::Transferred(done));
        Ok(())
    }

    fn answer(
        &mut self,
        to: ConnectionId,
        message: &Message,
        answered: &mut Vec<usize>,
    ) -> anyhow::Result<()> {
        let at = usize::try_from(to.0)?;
        let session = self.sessions.get_mut(at).context("an answer for nobody")?;
        if let Message::Replies(batch) = message {
            for reply in &batch.replies {
                answered.extend(session.answer(reply.request_number));
            }
        } else if let Message::Reply(reply) = message {
            if reply.outcome == Outcome::Registered {
                (session.op_number, session.first) = (reply.op_number, RequestNumber(1));
            } else {
                answered.extend(session.answer(reply.request_number));
            }
        } else {
            bail!("the primary answers {:?}", message.kind());
        }
        Ok(())
    }
}

impl Engines for Group {
    fn submit(&mut self, client: usize, payload: Bytes) {
        let at = client / self.clients_per_session;
        let Some(session) = self.sessions.get_mut(at) else { return };
        session.in_flight.push_back(Some(client));
        session.asked.push(payload.into());
    }

    fn turn(&mut self, now: Instant, answered: &mut Vec<usize>) -> anyhow::Result<()> {
        self.ask();
        let now = self.now(now);
        for at in 0..self.members.len() {
            match self.watch.filter(|_| at == self.primary) {
                Some(watch) => watch(&mut || self.turn_one(at, now, answered))?,
                None => self.turn_one(at, now, answered)?,
            }
        }
        Ok(())
    }
}

/// What the engine is told of `work`, of which nothing is kept, when everything through `applied` was
/// carried out before.
fn counted(work: Work, applied: OpNumber) -> Executed {
    let mut executed = Executed { through: applied, ..Executed::default() };
    match work {
        Work::Entries { entries, reply: is_wanted } => {
            executed.through = entries.last().map_or(applied, |entry| entry.header.op_number);
            if is_wanted {
                executed.replies.reserve_exact(entries.len());
                executed.replies.extend(entries.iter().filter_map(reply_to));
            }
        }
        // Every replica has the same state: none.
        Work::Checkpoint { at } => executed.taken.push(CheckpointId {
            op_number: at.op_number,
            checksum: at.checksum,
            digest: Checksum::of(b"nothing"),
        }),
        Work::Resend { .. }
        | Work::Query { .. }
        | Work::Restore { .. }
        | Work::Belong { .. }
        | Work::Resume
        | Work::Discard
        | Work::Persist => {}
    }
    executed
}

fn reply_to(entry: &Entry) -> Option<Reply> {
    let header = &entry.header;
    let outcome = match header.kind {
        EntryKind::Register => Outcome::Registered,
        EntryKind::Request | EntryKind::Many => Outcome::Executed(Bytes::from_static(&[0; 8])),
        EntryKind::Noop => return None,
    };
    let (client, request_number) = (header.client, header.request_number);
    Some(Reply { client, request_number, op_number: header.op_number, outcome })
}

fn client_id(session: usize) -> ClientId {
    ClientId(u128::try_from(session).unwrap_or_default() + 1)
}

fn connection(client: usize) -> ConnectionId {
    ConnectionId(u64::try_from(client).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(durability: Durability, execution: Execution) -> u64 {
        let workload = Workload {
            clients: 5,
            clients_per_session: 2,
            payload_bytes: 16,
            read_percent: 0,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(200),
            rate: None,
            progress: false,
        };
        let (clients, together) = (workload.clients, workload.clients_per_session);
        let shape =
            Shape { replicas: 3, durability, execution, clients, clients_per_session: together };
        let mut group = Group::start(shape).unwrap();
        drive(&mut group, &workload).unwrap().succeeded
    }

    #[test]
    fn engines_in_a_loop_answer_in_every_mode() {
        for durability in [Durability::Full, Durability::ViewOnly, Durability::Diskless] {
            for execution in [Execution::Counted, Execution::Full] {
                assert!(answered(durability, execution) > 0, "{durability}, {execution:?}");
            }
        }
    }
}
