//! A group of engines with real executors in simulated time: links, disks and clocks of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "support of one test: what goes wrong here is a failed test, with its trace"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vr_core::{
    Config, Durability, Members, Recovered, ReplicaId, WriteBatch,
    execution::{executor::Executor, work::Work},
    model::{
        config::Genesis,
        durable::{Identity, Superblock},
        message::{Envelope, Message, StatusKind},
        time::{Instant, Now},
        types::{Checksum, DiskId, OpNumber, Peer, PersistId, View},
    },
    replica::{
        Boot, Replica,
        io::{Event, Fatal, Input, Output, ReplicaStatus},
    },
    state::prng::Prng,
};

use crate::{
    client::Client,
    climate::{FAIR, Weather},
    disk::Disk,
    once::Once,
};

pub(crate) const MILLISECOND: u64 = 1_000_000;

pub(crate) fn op(number: usize) -> OpNumber {
    OpNumber(u64::try_from(number).unwrap())
}

fn id(index: usize) -> ReplicaId {
    ReplicaId(u64::try_from(index).unwrap())
}

pub(crate) struct Process {
    pub(crate) engine: Replica,
    executor: Executor,
    writes: VecDeque<(PersistId, WriteBatch)>,
    writing: bool,
    inputs: VecDeque<Input>,
    handed: usize,
    life: u64,
    /// It stopped by itself, and wants to be started again.
    ended: bool,
    pub(crate) paused: bool,
    pub(crate) stalled: bool,
}

enum What {
    Deliver { from: Peer, to: Peer, envelope: Box<Envelope> },
    Written { at: usize, life: u64 },
    Client(usize),
    Wake(usize),
}

pub(crate) struct World {
    pub(crate) prng: Prng,
    pub(crate) weather: Weather,
    pub(crate) clock: u64,
    pub(crate) config: Config,
    pub(crate) durability: Durability,
    members: Members,
    /// Who was started before: without disks, a group is founded by first lives only.
    lived: BTreeSet<usize>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) processes: Vec<Option<Process>>,
    queue: BTreeMap<(u64, u64), What>,
    queued: u64,
    /// Messages sent so far.
    pub(crate) posted: u64,
    /// Links that carry nothing, from one replica to another.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    /// How far each wall clock is ahead, in nanoseconds.
    pub(crate) wall: Vec<u64>,
    /// By op: the entry that was executed first, and the view in which it was.
    pub(crate) committed: Vec<(Checksum, View)>,
    pub(crate) started: BTreeMap<View, (OpNumber, Checksum)>,
    pub(crate) clients: Vec<Client>,
    /// The highest op that any client knows of.
    pub(crate) known: OpNumber,
    pub(crate) views_started: u64,
    pub(crate) clock_jumps: u64,
    pub(crate) drop_if: Option<fn(&Peer, &Peer, &Message) -> bool>,
    /// Messages of this filter are kept here instead of being delivered.
    pub(crate) hold_if: Option<fn(&Peer, &Peer, &Message) -> bool>,
    pub(crate) held: Vec<(Peer, Peer, Box<Envelope>)>,
    lives: u64,
    trace: VecDeque<String>,
}

pub(crate) fn small_config() -> Config {
    let mut config = Config::default();
    config.pipeline_ops_max = 16;
    config.checkpoint_ops = 0;
    config.transfer_headers_max = 4;
    config.transfer_bytes_max = 600;
    config.log_cache_bytes_max = 200;
    config.execute_ops_max = 8;
    config.window = 4;
    config
}

impl World {
    pub(crate) fn new(seed: u64, count: u64, config: Config, weather: Weather) -> Self {
        Self::in_mode(Durability::Full, seed, count, config, weather)
    }

    pub(crate) fn in_mode(
        durability: Durability,
        seed: u64,
        count: u64,
        config: Config,
        weather: Weather,
    ) -> Self {
        let mut world = Self {
            prng: Prng::new(u128::from(seed)),
            weather,
            clock: 1000 * MILLISECOND,
            config,
            durability,
            lived: BTreeSet::new(),
            members: Members::local(count).unwrap(),
            disks: Vec::new(),
            processes: Vec::new(),
            queue: BTreeMap::new(),
            queued: 0,
            posted: 0,
            cuts: BTreeSet::new(),
            wall: Vec::new(),
            committed: Vec::new(),
            started: BTreeMap::new(),
            clients: Vec::new(),
            known: OpNumber::ZERO,
            views_started: 0,
            clock_jumps: 0,
            drop_if: None,
            hold_if: None,
            held: Vec::new(),
            lives: 0,
            trace: VecDeque::new(),
        };
        for index in 0..usize::try_from(count).unwrap() {
            let superblock = Superblock::blank(&world.identity(index));
            world.disks.push(Disk { superblock, entries: Vec::new() });
            world.processes.push(None);
            world.wall.push(0);
        }
        for index in 0..world.disks.len() {
            world.start(index);
        }
        world
    }

    pub(crate) fn add_clients(&mut self, count: u64, window: u64) {
        for _ in 0..count {
            let index = self.clients.len();
            self.clients.push(Client::new(index, window));
            self.push(MILLISECOND, What::Client(index));
        }
    }

    fn identity(&mut self, index: usize) -> Identity {
        let membership = self.members.to_membership();
        Identity {
            group: membership.group_id("g"),
            group_name: "g".into(),
            members: membership,
            replica: id(index),
            durability: self.durability,
            fresh_disk: DiskId(self.prng.nonce().0),
        }
    }

    pub(crate) fn group(&self) -> vr_core::model::types::GroupId {
        self.members.to_membership().group_id("g")
    }

    pub(crate) fn count(&self) -> usize {
        self.disks.len()
    }

    pub(crate) fn now(&self, index: usize) -> Now {
        let wall = Duration::from_nanos(self.clock + self.wall[index]);
        Now { monotonic: Instant(self.clock), wall }
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.prng.next() % limit.max(1)
    }

    pub(crate) fn any_replica(&mut self) -> usize {
        usize::try_from(self.below(u64::try_from(self.count()).unwrap())).unwrap()
    }

    pub(crate) fn status(&self, index: usize) -> Option<ReplicaStatus> {
        let process = self.processes[index].as_ref()?;
        Some(process.engine.status(self.now(index)))
    }

    /// The primary of the highest view that serves.
    pub(crate) fn primary(&self) -> Option<usize> {
        let serving = (0..self.count()).filter_map(|index| Some((index, self.status(index)?)));
        let serving = serving.filter(|(_, s)| s.status == StatusKind::Normal && s.serving);
        serving.max_by_key(|(_, s)| s.view).map(|(index, _)| index)
    }

    pub(crate) fn note(&mut self, line: &str) {
        if self.trace.len() > 600 {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>10} {line}", self.clock / 1000));
    }

    pub(crate) fn fail(&self, what: &str) -> ! {
        for line in &self.trace {
            eprintln!("{line}");
        }
        for index in 0..self.count() {
            eprintln!("{:?}", self.status(index));
        }
        for client in &self.clients {
            eprintln!("{client:?}");
        }
        panic!("{what}");
    }

    pub(crate) fn start(&mut self, index: usize) {
        if self.processes[index].is_some() {
            return;
        }
        let identity = self.identity(index);
        let disk = &self.disks[index];
        let headers = disk.entries.iter().map(|entry| entry.header).collect();
        let recovered = Recovered::whole(disk.superblock.clone(), headers);
        let mut config = self.config.clone();
        if self.lived.insert(index) {
            config.genesis = Genesis::Found;
        }
        let boot = Boot { config, identity, recovered, state: None, seed: self.prng.nonce().0 };
        self.lives += 1;
        let process = Process {
            engine: Replica::new(self.now(index), boot),
            executor: Executor::new(Box::new(Once::default()), self.config.window),
            writes: VecDeque::new(),
            writing: false,
            inputs: VecDeque::new(),
            handed: 0,
            life: self.lives,
            ended: false,
            paused: false,
            stalled: false,
        };
        self.processes[index] = Some(process);
        self.note(&format!("start {index}"));
        self.tell_others(index, true);
        self.turn(index);
    }

    pub(crate) fn crash(&mut self, index: usize) {
        let Some(process) = self.processes[index].take() else { return };
        let keep = self.below(u64::try_from(process.writes.len()).unwrap() + 1);
        let mut writes = process.writes.into_iter();
        for (_, batch) in writes.by_ref().take(usize::try_from(keep).unwrap()) {
            self.disks[index].write(batch, true);
        }
        let half = self.below(2) == 0;
        if let Some((_, batch)) = writes.next().filter(|_| half) {
            self.disks[index].write(batch, false);
        }
        self.note(&format!("crash {index}, {keep} writes survived, half of the next: {half}"));
        self.tell_others(index, false);
    }

    /// Crashes a replica, whose disk has nothing any more when it starts again.
    pub(crate) fn wipe(&mut self, index: usize) {
        self.crash(index);
        let superblock = Superblock::blank(&self.identity(index));
        self.disks[index] = Disk { superblock, entries: Vec::new() };
    }

    pub(crate) fn cut_off(&mut self, index: usize) {
        for other in 0..self.count() {
            self.cuts.insert((index, other));
            self.cuts.insert((other, index));
        }
        self.note(&format!("cut off {index}"));
    }

    fn tell_others(&mut self, index: usize, up: bool) {
        let peer = Peer::Replica(id(index));
        for (other, process) in self.processes.iter_mut().enumerate() {
            let cut = self.cuts.contains(&(index, other));
            if let Some(process) = process.as_mut().filter(|_| other != index && !cut) {
                process.inputs.push_back(match up {
                    true => Input::Connected { peer },
                    false => Input::Disconnected { peer },
                });
            }
        }
        for other in 0..self.count() {
            self.turn(other);
        }
    }

    pub(crate) fn input(&mut self, index: usize, input: Input) {
        if let Some(process) = &mut self.processes[index] {
            process.inputs.push_back(input);
        }
        self.turn(index);
    }

    pub(crate) fn resume(&mut self, index: usize) {
        if let Some(process) = &mut self.processes[index] {
            process.paused = false;
        }
        self.turn(index);
    }

    pub(crate) fn unstall(&mut self, index: usize) {
        if let Some(process) = &mut self.processes[index] {
            process.stalled = false;
        }
        self.begin_write(index);
    }

    fn push(&mut self, after: u64, what: What) {
        self.queued += 1;
        self.queue.insert((self.clock + after, self.queued), what);
    }

    pub(crate) fn post(&mut self, from: Peer, to: Peer, envelope: Box<Envelope>) {
        self.posted += 1;
        let far = self.below(20) == 0;
        let limit = self.weather.delay_max * if far { 1000 } else { 50 };
        let after = 10_000 + self.below(limit);
        self.push(after, What::Deliver { from, to, envelope });
    }

    /// Lets time pass; returns early when `until` holds.
    pub(crate) fn run(&mut self, time: Duration, until: impl Fn(&Self) -> bool) -> bool {
        let end = self.clock + u64::try_from(time.as_nanos()).unwrap();
        let (mut second, mut steps) = (self.clock, 0);
        while self.clock < end {
            steps += 1;
            if self.clock > second + 1000 * MILLISECOND {
                (second, steps) = (self.clock, 0);
            }
            if steps > 200_000 {
                self.fail("a group that is never quiet");
            }
            if until(self) {
                return true;
            }
            let next = self.queue.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            let due = (0..self.count()).filter_map(|index| {
                let process = self.processes[index].as_ref().filter(|process| !process.paused)?;
                Some((process.engine.deadline().0, index))
            });
            let (deadline, index) = due.min().unwrap_or((u64::MAX, 0));
            if deadline.min(next) > end {
                self.clock = end;
            } else if deadline <= next {
                self.clock = self.clock.max(deadline);
                self.turn(index);
            } else {
                let ((at, _), what) = self.queue.pop_first().unwrap();
                self.clock = self.clock.max(at);
                self.happen(what);
            }
        }
        until(self)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver { from, to, envelope } => {
                if std::env::var("VR_TRACE").is_ok() {
                    self.note(&format!("{from} -> {to}: {} {:?}", envelope.view, envelope.message));
                }
                self.deliver(from, to, envelope);
            }
            What::Written { at, life } => {
                if self.processes[at].as_ref().is_some_and(|process| process.life == life) {
                    self.finish_write(at);
                }
            }
            What::Client(index) => {
                let after = Client::step(self, index);
                self.push(after, What::Client(index));
            }
            What::Wake(index) => self.resume(index),
        }
    }

    pub(crate) fn wake_after(&mut self, index: usize, time: Duration) {
        self.push(u64::try_from(time.as_nanos()).unwrap(), What::Wake(index));
    }

    fn deliver(&mut self, from: Peer, to: Peer, envelope: Box<Envelope>) {
        let double = self.below(100) < self.weather.double_percent;
        let lost = self.below(100) < self.weather.loss_percent;
        if let (Peer::Replica(from), Peer::Replica(to)) = (from, to) {
            let link = (usize::try_from(from.0).unwrap(), usize::try_from(to.0).unwrap());
            if self.cuts.contains(&link) {
                return;
            }
        }
        if self.hold_if.is_some_and(|hold| hold(&from, &to, &envelope.message)) {
            self.held.push((from, to, envelope));
            return;
        }
        if self.drop_if.is_some_and(|drop| drop(&from, &to, &envelope.message)) {
            return;
        }
        if double {
            self.post(from, to, envelope.clone());
        }
        if lost {
            return;
        }
        match to {
            Peer::Replica(id) => {
                let input = Input::Message { from, envelope };
                self.input(usize::try_from(id.0).unwrap(), input);
            }
            Peer::Client(connection) => Client::hears(self, connection, envelope.message),
        }
    }

    pub(crate) fn turn(&mut self, index: usize) {
        let now = self.now(index);
        let Some(mut process) = self.processes[index].take() else { return };
        if process.paused {
            self.processes[index] = Some(process);
            return;
        }
        if process.engine.deadline() <= now.monotonic {
            process.engine.handle(now, Input::Timeout);
            assert!(process.engine.deadline() > now.monotonic, "a timer fires once");
        }
        let mut rounds = 0;
        loop {
            while let Some(input) = process.inputs.pop_front() {
                process.engine.handle(now, input);
            }
            let mut outputs = 0;
            while let Some(output) = process.engine.poll_output(now) {
                outputs += 1;
                if outputs > 20_000 {
                    self.fail("an engine never stops talking");
                }
                self.perform(index, &mut process, output);
            }
            while process.executor.step() {}
            if let Some(finished) = process.executor.take_finished() {
                process.inputs.push_back(Input::Executed(finished.executed));
                for (to, answer) in finished.answers {
                    let envelope =
                        Box::new(Client::envelope(self.group(), 0, Message::Answer(answer)));
                    self.post(Peer::Replica(id(index)), to, envelope);
                }
            }
            if process.inputs.is_empty() {
                break;
            }
            rounds += 1;
            if rounds > 20_000 {
                self.fail("an engine goes round in circles");
            }
        }
        if process.ended {
            return;
        }
        self.processes[index] = Some(process);
        self.begin_write(index);
    }

    fn begin_write(&mut self, index: usize) {
        let limit = self.weather.write_max;
        let far = self.below(20) == 0;
        let after = 50_000 + self.below(limit * if far { 1000 } else { 100 });
        let Some(process) = &mut self.processes[index] else { return };
        if process.writing || process.stalled || process.writes.is_empty() {
            return;
        }
        process.writing = true;
        let life = process.life;
        self.push(after, What::Written { at: index, life });
    }

    fn finish_write(&mut self, index: usize) {
        let more = self.below(3);
        let Some(process) = &mut self.processes[index] else { return };
        process.writing = false;
        if process.stalled {
            return;
        }
        let mut done = None;
        for _ in 0..=more {
            let Some((through, batch)) = process.writes.pop_front() else { break };
            self.disks[index].write(batch, true);
            done = Some(through);
        }
        if let Some(through) = done {
            self.input(index, Input::Persisted { through });
        }
        self.begin_write(index);
    }

    fn perform(&mut self, index: usize, process: &mut Process, output: Output) {
        match output {
            Output::Send { to, envelope, .. } => {
                self.audit(index, &envelope);
                self.post(Peer::Replica(id(index)), to, envelope);
            }
            Output::Persist { id, batch } => {
                let log = batch.cut.is_some() || !batch.entries.is_empty();
                assert!(!log || self.durability == Durability::Full, "no log on disk");
                assert!(self.durability != Durability::Diskless, "nothing on disk");
                process.writes.push_back((id, *batch));
            }
            Output::Fetch { request, from, through, .. } => {
                let wanted = from..=through;
                let held = self.disks[index].entries.iter();
                let held = held.filter(|e| wanted.contains(&e.header.op_number));
                let entries = held.take(3).cloned().collect();
                process.inputs.push_back(Input::Fetched { request, entries });
            }
            Output::Execute(work) => {
                if let Work::Entries { entries, .. } = &work {
                    for entry in entries {
                        process.handed += 1;
                        assert_eq!(entry.header.op_number, op(process.handed), "no gap");
                        assert!(entry.verify_payload().is_ok(), "bodies belong to headers");
                        let view = process.engine.status(self.now(index)).view;
                        self.check_committed(index, entry, view);
                    }
                }
                process.executor.push(work);
            }
            Output::Transfer(task) => unreachable!("there are no checkpoints: {task:?}"),
            Output::Event(event) => {
                if matches!(event, Event::ViewStarted { .. }) {
                    self.views_started += 1;
                }
                if matches!(event, Event::ClockJumped { .. }) {
                    self.clock_jumps += 1;
                }
                self.note(&format!("{index}: {event:?}"));
            }
            Output::Fatal(Fatal::Reformatted { reason }) => {
                self.note(&format!("{index} is formatted anew: {reason:?}"));
                process.ended = true;
            }
            Output::Fatal(reason) => self.fail(&format!("replica {index} stopped: {reason}")),
        }
    }

    /// Heals everything, and lets everybody start.
    pub(crate) fn clear_up(&mut self) {
        self.note("the weather clears up");
        self.cuts.clear();
        self.drop_if = None;
        self.hold_if = None;
        self.weather = FAIR;
        for index in 0..self.count() {
            self.start(index);
            self.resume(index);
            self.unstall(index);
        }
        for index in 0..self.count() {
            self.tell_others(index, true);
        }
    }

    /// Everybody has executed everything, and no client waits.
    pub(crate) fn is_settled(&self) -> bool {
        let all = (0..self.count()).all(|index| {
            self.status(index).is_some_and(|s| {
                s.status == StatusKind::Normal && s.applied == op(self.committed.len())
            })
        });
        all && self.clients.iter().all(Client::is_settled)
    }
}
