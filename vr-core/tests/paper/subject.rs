//! The replica under test: inputs in, outputs compared; disk, network and clock are the test's.

use core::time::Duration;

use bytes::Bytes;
use vr_core::{
    execution::work::Executed,
    model::{
        certificate::{Certificate, CrashVector},
        companion::StateOnDisk,
        config::{Config, Genesis},
        durable::{CheckpointId, Durability, Identity, Superblock, Trust, genesis_checksum},
        entry::{Entry, EntryHeader, EntryKind},
        founding::{Found, FoundOk, Hello, HelloOk},
        membership::{Members, Membership},
        message::{
            Commit, Committed, DoViewChange, Envelope, Message, Prepare, PrepareOk, Register,
            Reply, Request, Sender, Standing, StartViewChange, StatusKind, Suspicion,
        },
        time::{Instant, Now},
        types::{
            Checksum, ClientId, ConnectionId, DiskId, Epoch, HeartbeatNumber, Incarnation, Nonce,
            OpNumber, Peer, PersistId, ReplicaId, ReplicaSet, RequestNumber, View,
        },
    },
    ports::storage::{Anchor, DamagedRange, Recovered},
    replica::{
        Boot, Replica,
        io::{HandoffError, Input, Output, ReplicaStatus},
    },
};

use crate::outputs::Outputs;

/// The group's name.
pub(crate) const GROUP: &str = "paper";
/// The client of every test.
pub(crate) const CLIENT: ClientId = ClientId(77);
/// How the client is connected.
pub(crate) const CONNECTION: Peer = Peer::Client(ConnectionId(1));

/// One replica of a group whose other members are played by the test.
#[derive(Debug)]
pub(crate) struct Subject {
    replica: Replica,
    now: Now,
    members: Membership,
    handed: PersistId,
    stopped: bool,
}

/// What a test's replica finds on its disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) view: u64,
    pub(crate) log_view: u64,
    pub(crate) log: Vec<Entry>,
}

pub(crate) fn members(count: u64) -> Membership {
    Members::local(count).expect("a group of at least one").to_membership()
}

/// The certificate of the group of `count`; replica `i` has the disk `100 + i`.
pub(crate) fn certificate(count: u64) -> Certificate {
    let disks = (0..count).map(|id| (ReplicaId(id), disk(id))).collect();
    Certificate { group_name: GROUP.into(), disks, inherited: Vec::new() }
}

pub(crate) fn disk(id: u64) -> DiskId {
    DiskId(100 + u128::from(id))
}

impl Subject {
    /// Starts replica `me` of `count`, with a certificate on its disk.
    pub(crate) fn start(count: u64, me: u64, disk: Disk) -> (Self, Outputs) {
        Self::start_with(|_| {}, count, me, disk)
    }

    /// The same with other limits.
    pub(crate) fn start_with(
        limit: impl Fn(&mut Config),
        count: u64,
        me: u64,
        disk: Disk,
    ) -> (Self, Outputs) {
        let mut config = Config::default();
        limit(&mut config);
        let mut superblock = Superblock::blank(&identity(count, me));
        superblock.certificate = Some(certificate(count));
        superblock.view = View(disk.view);
        superblock.log_view = View(disk.log_view);
        let headers = disk.log.iter().map(|entry| entry.header).collect();
        Self::boot(config, count, me, Recovered::whole(superblock, headers))
    }

    /// Starts replica `me` of `count` on a disk that was formatted just now.
    pub(crate) fn start_blank(count: u64, me: u64) -> (Self, Outputs) {
        let superblock = Superblock::blank(&identity(count, me));
        let recovered = Recovered::whole(superblock, Vec::new());
        Self::boot(Config::default(), count, me, recovered)
    }

    /// Starts replica `me` of three, in the mode `durability`, on a disk that says what `change`
    /// makes of a superblock in view 0, and holds no log.
    pub(crate) fn start_on(
        durability: Durability,
        me: u64,
        change: impl FnOnce(&mut Superblock),
    ) -> (Self, Outputs) {
        Self::start_on_with(|_| {}, durability, me, change)
    }

    /// The same with other limits.
    pub(crate) fn start_on_with(
        limit: impl Fn(&mut Config),
        durability: Durability,
        me: u64,
        change: impl FnOnce(&mut Superblock),
    ) -> (Self, Outputs) {
        let mut config = Config::default();
        limit(&mut config);
        let mut superblock = Superblock::blank(&Identity { durability, ..identity(3, me) });
        superblock.certificate = Some(certificate(3));
        change(&mut superblock);
        let recovered = Recovered::whole(superblock, Vec::new());
        Self::boot(config, 3, me, recovered)
    }

    /// Starts replica 1 of three on `disk`, in which the ops from `first` through `last` are damaged.
    pub(crate) fn start_damaged(disk: &Disk, first: u64, last: u64) -> (Self, Outputs) {
        Self::start_damaged_above(CheckpointId::default(), disk, first, last)
    }

    /// The same with a log that starts after `checkpoint`.
    pub(crate) fn start_damaged_above(
        checkpoint: CheckpointId,
        disk: &Disk,
        first: u64,
        last: u64,
    ) -> (Self, Outputs) {
        let mut superblock = Superblock::blank(&identity(3, 1));
        superblock.certificate = Some(certificate(3));
        superblock.view = View(disk.view);
        superblock.log_view = View(disk.log_view);
        if checkpoint.op_number > OpNumber::ZERO {
            superblock.checkpoint = checkpoint;
        }
        let (mut headers, mut damaged) = (headers(&disk.log), Vec::new());
        for header in &headers {
            if header.op_number == OpNumber(last) {
                let through = Anchor::of(header);
                damaged.push(DamagedRange { first: OpNumber(first), through });
            }
        }
        headers.retain(|header| !(first..=last).contains(&header.op_number.0));
        let recovered = Recovered { damaged, ..Recovered::whole(superblock, headers) };
        Self::boot(Config::default(), 3, 1, recovered)
    }

    /// Starts replica 2 of three with a log that `change` says does not count.
    pub(crate) fn start_without_evidence(
        log: &[Entry],
        change: impl FnOnce(&mut Superblock),
    ) -> (Self, Outputs) {
        let mut superblock = Superblock::blank(&identity(3, 2));
        change(&mut superblock);
        Self::boot(Config::default(), 3, 2, Recovered::whole(superblock, headers(log)))
    }

    /// Starts replica 1 of three on `disk`, with `found` on its state machine's own disk and a
    /// superblock as `change` makes it.
    pub(crate) fn start_with_state(
        disk: &Disk,
        found: Option<StateOnDisk>,
        change: impl FnOnce(&mut Superblock),
    ) -> (Self, Outputs) {
        Self::start_in_with_state(Durability::Full, disk, found, change)
    }

    /// The same in another durability mode.
    pub(crate) fn start_in_with_state(
        durability: Durability,
        disk: &Disk,
        found: Option<StateOnDisk>,
        change: impl FnOnce(&mut Superblock),
    ) -> (Self, Outputs) {
        let mut superblock = Superblock::blank(&Identity { durability, ..identity(3, 1) });
        superblock.certificate = Some(certificate(3));
        change(&mut superblock);
        let recovered = Recovered::whole(superblock, headers(&disk.log));
        Self::boot_with_state(Config::default(), 3, 1, recovered, found)
    }

    fn boot(config: Config, count: u64, me: u64, recovered: Recovered) -> (Self, Outputs) {
        Self::boot_with_state(config, count, me, recovered, None)
    }

    fn boot_with_state(
        config: Config,
        count: u64,
        me: u64,
        recovered: Recovered,
        state: Option<StateOnDisk>,
    ) -> (Self, Outputs) {
        let durability = recovered.superblock.durability;
        let identity = Identity { durability, ..identity(count, me) };
        let now = Now { monotonic: Instant(1_000_000_000), wall: Duration::from_secs(1_000) };
        let replica = Replica::new(now, Boot { config, identity, recovered, state, seed: 7 });
        let mut subject =
            Self { replica, now, members: members(count), handed: PersistId::ZERO, stopped: false };
        let outputs = subject.drain();
        (subject, outputs)
    }

    /// Replica 1 of `count`, a backup of view 0 with an empty log.
    pub(crate) fn backup(count: u64) -> Self {
        Self::start(count, 1, Disk::default()).0
    }

    /// Replica 0 of `count`, the primary of view 0, right after the group was founded.
    pub(crate) fn primary(count: u64) -> Self {
        Self::primary_with(|_| {}, count)
    }

    /// The same with other limits.
    pub(crate) fn primary_with(limit: impl Fn(&mut Config), count: u64) -> Self {
        Self::primary_in(Durability::Full, limit, count)
    }

    /// The same in another durability mode.
    pub(crate) fn primary_in(
        durability: Durability,
        limit: impl Fn(&mut Config),
        count: u64,
    ) -> Self {
        let mut config = Config::default();
        config.genesis = Genesis::Found;
        limit(&mut config);
        let superblock = Superblock::blank(&Identity { durability, ..identity(count, 0) });
        let recovered = Recovered::whole(superblock, Vec::new());
        let (mut subject, _) = Self::boot(config, count, 0, recovered);
        let asked = subject.pass(Duration::ZERO);
        let asked = subject.answer_hellos(asked);
        for (from, message) in asked.sent() {
            if let Message::Found(Found { nonce, .. }) = message {
                subject.hear_uncertified(from.0, Message::FoundOk(FoundOk { nonce }));
            }
        }
        subject.persisted();
        assert_eq!(subject.status().status, StatusKind::Normal, "the group is founded");
        subject
    }

    /// Everyone who is asked for a certificate has none; returns what follows.
    pub(crate) fn answer_hellos(&mut self, asked: Outputs) -> Outputs {
        let durability = self.status().durability;
        for (from, message) in asked.sent() {
            if let Message::Hello(Hello { nonce, .. }) = message {
                let nonce = Some(nonce);
                let answer = HelloOk { nonce, disk: disk(from.0), certificate: None, durability };
                self.hear_uncertified(from.0, Message::HelloOk(answer));
            }
        }
        self.pass(Duration::ZERO)
    }

    /// A message of replica `from`, whose durable view is `view`.
    pub(crate) fn hear(&mut self, from: u64, view: u64, message: Message) -> Outputs {
        self.hear_as(from, view, message, |_| {})
    }

    /// The same, in an envelope that `change` changes.
    pub(crate) fn hear_as(
        &mut self,
        from: u64,
        view: u64,
        message: Message,
        change: impl FnOnce(&mut Envelope),
    ) -> Outputs {
        let count = u64::from(self.members.len());
        let mut envelope = Envelope {
            certificate: certificate(count).to_hash(),
            view: View(view),
            ..envelope(count, Sender::Replica(ReplicaId(from)), message)
        };
        change(&mut envelope);
        self.hear_envelope(Peer::Replica(ReplicaId(from)), envelope)
    }

    /// A message of replica `from`, which has no certificate yet.
    pub(crate) fn hear_uncertified(&mut self, from: u64, message: Message) -> Outputs {
        let count = u64::from(self.members.len());
        let envelope = envelope(count, Sender::Replica(ReplicaId(from)), message);
        self.hear_envelope(Peer::Replica(ReplicaId(from)), envelope)
    }

    /// A message of replica `from`, which is in this epoch.
    pub(crate) fn hear_of_epoch(&mut self, from: u64, epoch: u64, message: Message) -> Outputs {
        let count = u64::from(self.members.len());
        let sender = Sender::Replica(ReplicaId(from));
        let envelope = Envelope { epoch: Epoch(epoch), ..envelope(count, sender, message) };
        self.hear_envelope(Peer::Replica(ReplicaId(from)), envelope)
    }

    /// A message of the client.
    pub(crate) fn ask(&mut self, message: Message) -> Outputs {
        self.ask_in(0, message)
    }

    /// A message of the client, which knows of this epoch.
    pub(crate) fn ask_in(&mut self, epoch: u64, message: Message) -> Outputs {
        let count = u64::from(self.members.len());
        let envelope = envelope(count, Sender::Client(CLIENT), message);
        self.hear_envelope(CONNECTION, Envelope { epoch: Epoch(epoch), ..envelope })
    }

    /// A message of whoever is at the other end of `connection`.
    pub(crate) fn ask_from(&mut self, connection: Peer, message: Message) -> Outputs {
        let count = u64::from(self.members.len());
        self.hear_envelope(connection, envelope(count, Sender::Client(ClientId(88)), message))
    }

    pub(crate) fn hear_envelope(&mut self, from: Peer, envelope: Envelope) -> Outputs {
        self.handle(Input::Message { from, envelope: Box::new(envelope) })
    }

    /// The client opens its session, the op commits in a group of three and is executed.
    pub(crate) fn open_session(&mut self) -> OpNumber {
        self.ask(register());
        let session = self.status().op_number;
        self.persisted();
        let (view, head) = (self.status().view.0, self.head_of(session));
        self.hear(1, view, acknowledge(session, head));
        self.executed(session, Vec::new());
        session
    }

    /// All writes handed over are durable.
    pub(crate) fn persisted(&mut self) -> Outputs {
        self.handle(Input::Persisted { through: self.handed })
    }

    /// The executor has applied everything through `op_number`.
    pub(crate) fn executed(&mut self, through: OpNumber, replies: Vec<Reply>) -> Outputs {
        self.handle(Input::Executed(Executed { through, replies, ..Executed::default() }))
    }

    /// Time goes on by `by`; every deadline on the way is served.
    pub(crate) fn pass(&mut self, by: Duration) -> Outputs {
        let until = self.now.monotonic + by;
        let mut outputs = Outputs::default();
        while self.replica.deadline() <= until && outputs.fatal().is_none() {
            assert!(!self.stopped, "a stopped replica waits for nothing");
            self.advance_to(self.replica.deadline().max(self.now.monotonic));
            outputs.0.extend(self.handle(Input::Timeout).0);
        }
        self.advance_to(until);
        outputs
    }

    /// The wall clock alone moves forward.
    pub(crate) fn jump(&mut self, by: Duration) {
        self.now.wall += by;
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        self.replica.status(self.now)
    }

    /// Whether its state is whole, as far as the log went with `through`.
    pub(crate) fn has_state(&self, through: u64) -> bool {
        self.replica.has_state(OpNumber(through))
    }

    /// The checksum of the entry at `op_number`, as this replica tells it to a peer.
    pub(crate) fn head_of(&mut self, op_number: OpNumber) -> Checksum {
        let view = self.status().view.0;
        let asked = self.hear(2, view, get_entries_from(op_number.0));
        let found = asked.entries().into_iter().find(|entry| entry.header.op_number == op_number);
        found.expect("the op is in the log").header.checksum
    }

    /// An order to hand the view off, which is obeyed.
    pub(crate) fn hand_off(&mut self, to: Option<u64>) -> Outputs {
        self.replica.hand_off(self.now, to.map(ReplicaId)).expect("the order can be obeyed");
        self.drain()
    }

    /// An order to hand the view off, and what became of the order.
    pub(crate) fn try_hand_off(&mut self, to: Option<u64>) -> Result<(), HandoffError> {
        let ordered = self.replica.hand_off(self.now, to.map(ReplicaId));
        self.drain();
        ordered
    }

    pub(crate) fn handle(&mut self, input: Input) -> Outputs {
        self.replica.handle(self.now, input);
        self.drain()
    }

    fn advance_to(&mut self, at: Instant) {
        self.now.wall += at.since(self.now.monotonic);
        self.now.monotonic = at;
    }

    fn drain(&mut self) -> Outputs {
        let mut outputs = Vec::new();
        while let Some(output) = self.replica.poll_output(self.now) {
            if let Output::Persist { id, .. } = &output {
                assert!(*id > self.handed, "writes are handed over in order");
                self.handed = *id;
            }
            self.stopped |= matches!(output, Output::Fatal(_));
            outputs.push(output);
        }
        Outputs(outputs)
    }
}

fn identity(count: u64, me: u64) -> Identity {
    let members = members(count);
    Identity {
        group: members.group_id(GROUP),
        group_name: GROUP.into(),
        members,
        replica: ReplicaId(me),
        durability: Durability::Full,
        fresh_disk: disk(me),
    }
}

fn envelope(count: u64, sender: Sender, message: Message) -> Envelope {
    Envelope {
        group: members(count).group_id(GROUP),
        certificate: vr_core::model::certificate::CertificateHash::NONE,
        epoch: Epoch::ZERO,
        sender,
        incarnation: Incarnation::ZERO,
        view: View::ZERO,
        crash_vector: CrashVector::default(),
        message,
    }
}

/// `count` more entries behind those of `log`, prepared in `view`, in a group of `members`.
pub(crate) fn extended(log: &[Entry], view: u64, count: u64, of: u64) -> Vec<Entry> {
    let group = members(of).group_id(GROUP);
    let mut log = log.to_vec();
    for _ in 0..count {
        let last = log.last().map(|entry| entry.header);
        let op_number = last.map_or(OpNumber(1), |last| last.op_number.next());
        let header = EntryHeader {
            parent: last.map_or_else(|| genesis_checksum(group), |last| last.checksum),
            view: View(view),
            op_number,
            time: op_number.0,
            client: CLIENT,
            request_number: RequestNumber(op_number.0),
            session: OpNumber(1),
            group: EntryHeader::group_mark(group),
            kind: EntryKind::Request,
            ..EntryHeader::default()
        };
        log.push(Entry::new(header, Bytes::from(format!("{view}:{op_number}"))));
    }
    log
}

/// A log of `count` entries prepared in view 0 of a group of three.
pub(crate) fn log(count: u64) -> Vec<Entry> {
    extended(&[], 0, count, 3)
}

/// The checksum at the end of `log`.
pub(crate) fn head(log: &[Entry]) -> Checksum {
    log.last().map_or_else(|| nothing_committed(3).checksum, |last| last.header.checksum)
}

/// What a primary knows to be committed right after a group of `members` was founded.
pub(crate) fn nothing_committed(of: u64) -> Committed {
    let group = members(of).group_id(GROUP);
    Committed { op_number: OpNumber::ZERO, checksum: genesis_checksum(group) }
}

pub(crate) fn headers(log: &[Entry]) -> Vec<EntryHeader> {
    log.iter().map(|entry| entry.header).collect()
}

/// What a primary knows to be committed: the first `count` entries of `log`.
pub(crate) fn committed(log: &[Entry], count: usize) -> Committed {
    let known = log.get(..count).unwrap_or_default();
    let op_number = known.last().map_or(OpNumber::ZERO, |entry| entry.header.op_number);
    Committed { op_number, checksum: head(known) }
}

pub(crate) fn prepare(entries: &[Entry], commit: Committed) -> Message {
    let entries = entries.to_vec().into();
    Message::Prepare(Prepare { entries, commit, heartbeat: HeartbeatNumber::ZERO })
}

pub(crate) fn commit(commit: Committed, heartbeat: u64, op_number: u64) -> Message {
    let standing = standing(StatusKind::Normal, 0, op_number);
    let (heartbeat, agreed) = (HeartbeatNumber(heartbeat), CheckpointId::default());
    Message::Commit(Commit { commit, heartbeat, agreed, standing })
}

pub(crate) fn acknowledge(op_number: OpNumber, checksum: Checksum) -> Message {
    Message::PrepareOk(PrepareOk {
        op_number,
        checksum,
        heartbeat: HeartbeatNumber::ZERO,
        applied: OpNumber::ZERO,
        checkpoint: CheckpointId::default(),
        standing: None,
        lease: Duration::ZERO,
    })
}

/// A replica that hears everybody.
pub(crate) fn standing(status: StatusKind, log_view: u64, op_number: u64) -> Standing {
    let mut heard = ReplicaSet::EMPTY;
    for index in 0..3 {
        heard.insert(vr_core::model::types::ReplicaIndex(index));
    }
    Standing { log_view: View(log_view), op_number: OpNumber(op_number), status, heard }
}

pub(crate) fn register() -> Message {
    Message::Register(Register { client: CLIENT, nonce: Nonce(5) })
}

pub(crate) fn request(session: OpNumber, number: u64) -> Message {
    Message::Request(Request {
        client: CLIENT,
        session,
        request_number: RequestNumber(number),
        many: false,
        operation: Bytes::from(format!("request {number}")),
    })
}

pub(crate) fn get_entries_from(op_number: u64) -> Message {
    Message::GetEntries(vr_core::model::entries::GetEntries {
        request: vr_core::model::types::RequestId(1),
        wanted: vr_core::model::entries::Wanted::From(OpNumber(op_number)),
        bytes_max: 1 << 20,
    })
}

/// Longer than any suspicion timeout without failed views.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);

pub(crate) fn vote(view: u64) -> Message {
    let reason = Suspicion::PrimarySilent;
    let standing = standing(StatusKind::Normal, view, 0);
    Message::StartViewChange(StartViewChange { view: View(view), reason, standing })
}

/// A promise to `view` of a replica that holds `log` of `log_view` and knows `commit` of it.
pub(crate) fn promise(view: u64, log_view: u64, log: &[Entry], commit: u64) -> DoViewChange {
    DoViewChange {
        view: View(view),
        log_view: View(log_view),
        op_number: OpNumber(u64::try_from(log.len()).unwrap_or(0)),
        head: head(log),
        commit_number: OpNumber(commit),
        checkpoint: CheckpointId::default(),
        suffix: headers(log),
        trust: Trust::Intact,
        unbroken: false,
    }
}

/// Replica 1 of three, with `log` of view 0, in the view change to view 1, promise durable.
pub(crate) fn next_primary(log: &[Entry]) -> Subject {
    let mut subject = Subject::backup(3);
    subject.hear(0, 0, prepare(log, committed(&[], 0)));
    subject.persisted();
    subject.pass(SILENCE);
    subject.hear(2, 0, vote(0));
    assert_eq!(subject.status().view, View(1));
    subject.persisted();
    subject
}
