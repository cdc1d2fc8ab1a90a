//! Floor 3: the sans-IO engine, one chapter per sub-protocol.
//!
//! [`Replica`] is a function of its state, the time and an input. The contract: call
//! [`Replica::handle`] any number of times, then [`Replica::poll_output`] until it returns `None`,
//! then wait for an input or for [`Replica::deadline`]. What was handled between two drains leaves
//! as one batch.

pub mod ignored;
pub mod io;

mod batches;
mod checkpoint;
mod commit;
mod export;
mod genesis;
mod handoff;
mod heartbeat;
mod install;
mod invariants;
mod leases;
mod lost_log;
mod normal;
mod on_disk;
mod outputs;
mod reads;
mod rebuild;
mod recovery;
mod repair;
mod report;
mod requests;
mod snapshot;
mod state_transfer;
mod suspicion;
mod view_change;

use std::collections::VecDeque;

use tracing::debug;

use crate::{
    model::{
        certificate::{Certificate, CertificateHash, CrashVector},
        companion::StateOnDisk,
        config::Config,
        durable::Identity,
        kind::Kind,
        membership::Membership,
        message::{Envelope, Message, RecoveryResponse, Sender},
        mutants::Mutant,
        time::{Instant, Now},
        types::{
            Epoch, GroupId, Incarnation, OpNumber, Peer, ReplicaId, ReplicaIndex, RequestId, View,
        },
    },
    ports::storage::Recovered,
    replica::{
        ignored::Ignored,
        io::{Fatal, Input, Output},
    },
    state::{
        admitted::Admitted,
        checkpoints::Checkpoints,
        clock::LogClock,
        doubts::Doubts,
        forwards::Forwards,
        incoming::Incoming,
        leases::Grants,
        log::Log,
        peers::Peers,
        prng::Prng,
        progress::{Progress, Writes},
        promise::Promise,
        reads::Reads,
        rebuild::Reformatting,
        repair::Repair,
        routes::Routes,
        status::{Genesis, Install, Status},
        suspicions::Suspicions,
        timers::{Timer, Timers},
    },
};

/// What an engine is started with.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Limits and timeouts; validated by the caller.
    pub config: Config,
    /// Who this replica is.
    pub identity: Identity,
    /// What storage holds.
    pub recovered: Recovered,
    /// What is on the state machine's own disk; `None` if its state is in memory.
    pub state: Option<StateOnDisk>,
    /// Seeds nonces and jitter; unpredictable, and never the same twice.
    pub seed: u128,
}

/// One replica of a group, without any IO.
///
/// Invariants, checked after every input in debug builds:
/// * `commit_number <= op number`, `applied <= ordered <= commit_number`;
/// * `log view <= view`, both as durable as the mode asks before anybody is told;
/// * in status normal, view, log view and their durable copies are all equal;
/// * `view` and `commit_number` never decrease.
#[derive(Debug)]
pub struct Replica {
    config: Config,
    group: GroupId,
    me: ReplicaId,
    index: ReplicaIndex,
    membership: Membership,
    certificate: CertificateHash,

    /// Written by `enter_view` only.
    view: View,
    /// Written by `commit_through` only.
    commit_number: OpNumber,
    /// This replica started the log view as its primary and has not restarted since.
    unbroken: bool,
    status: Status,
    log: Log,
    promise: Promise,
    install: Option<Install>,
    checkpoints: Checkpoints,
    incoming: Option<Incoming>,
    doubts: Doubts,
    repair: Repair,

    peers: Peers,
    suspicions: Suspicions,
    /// View changes since something was last committed; stretches the timeouts.
    failed_views: u32,

    admitted: Admitted,
    forwards: Forwards,
    routes: Routes,
    reads: Reads,
    grants: Grants,
    clock: LogClock,
    progress: Progress,

    timers: Timers,
    prng: Prng,
    writes: Writes,
    questions: RequestId,
    out: VecDeque<Output>,
    /// Everything that follows from what was handled and ordered was derived.
    drained: bool,
    ignored: u64,
    stopped: bool,
}

/// The highest view that a peer is believed; no group gets there, and above it there is room left
/// to count on.
const VIEW_MAX: View = View(u64::MAX / 2);

/// The view that a message names besides its envelope; zero if it names none.
const fn named_view(message: &Message) -> View {
    match message {
        Message::StartViewChange(m) => m.view,
        Message::DoViewChange(m) => m.view,
        Message::StartView(m) => m.view,
        Message::GetView(m) => m.view,
        Message::Handoff(m) => m.view,
        Message::Recovery(m) => m.view,
        Message::RecoveryResponse(RecoveryResponse { start: Some(m), .. }) => m.view,
        Message::Register(_)
        | Message::Request(_)
        | Message::Reply(_)
        | Message::Requests(_)
        | Message::Replies(_)
        | Message::Rejected(_)
        | Message::Query(_)
        | Message::Answer(_)
        | Message::Forward(_)
        | Message::ForwardReply(_)
        | Message::Prepare(_)
        | Message::PrepareOk(_)
        | Message::Commit(_)
        | Message::Ping(_)
        | Message::Pong(_)
        | Message::GetHeaders(_)
        | Message::Headers(_)
        | Message::GetEntries(_)
        | Message::Entries(_)
        | Message::Released(_)
        | Message::GetSnapshot(_)
        | Message::Snapshot(_)
        | Message::ReadIndex(_)
        | Message::ReadIndexOk(_)
        | Message::Hello(_)
        | Message::HelloOk(_)
        | Message::Found(_)
        | Message::FoundOk(_)
        | Message::RecoveryResponse(RecoveryResponse { start: None, .. })
        | Message::GetCrashVector(_)
        | Message::CrashVectorIs(_) => View::ZERO,
    }
}

/// The replica that a message came from, as the gates have verified it.
#[derive(Clone, Copy, Debug)]
struct Origin {
    id: ReplicaId,
    index: ReplicaIndex,
    /// Its durable view.
    view: View,
    incarnation: Incarnation,
    epoch: Epoch,
}

impl Replica {
    /// Handles one input. Total: whatever a peer, a client or a disk says, this returns.
    pub fn handle(&mut self, now: Now, input: Input) {
        if self.stopped {
            return;
        }
        let is_spared = self.drained && self.is_progress_only(&input);
        self.drained = false;
        match input {
            Input::Message { from, envelope } => {
                let kind = envelope.message.kind();
                let handled = match from {
                    Peer::Replica(id) => self.on_envelope(now, id, envelope),
                    Peer::Client(_) => self.on_client_envelope(now, from, envelope),
                };
                if let Err(reason) = handled {
                    self.ignored = self.ignored.saturating_add(1);
                    debug!(view = %self.view, %from, ?kind, %reason, "message ignored");
                }
            }
            Input::Connected { peer } => self.on_connected(now, peer),
            Input::Disconnected { peer } => self.on_disconnected(now, peer),
            Input::Persisted { through } => self.on_persisted(now, through),
            Input::Fetched { request, entries } => self.on_fetched(now, request, entries),
            Input::Unreadable { request, op_number } => self.on_unreadable(now, request, op_number),
            Input::Executed(executed) => self.on_executed(now, executed),
            Input::Transferred(done) => self.on_task_done(now, done),
            Input::Timeout => {
                while let Some(timer) = self.timers.pop_expired(now.monotonic) {
                    self.on_timer(now, timer);
                }
            }
        }
        if !self.settle(now) && is_spared {
            self.assert_nothing_follows(now);
            self.drained = true;
        }
        self.assert_invariants();
    }

    /// When [`Input::Timeout`] is due; never, once the engine has stopped.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        if self.stopped {
            return Instant::FAR_FUTURE;
        }
        self.timers.deadline()
    }

    /// The gates that every message of a replica passes once.
    fn on_envelope(
        &mut self,
        now: Now,
        from: ReplicaId,
        envelope: Box<Envelope>,
    ) -> Result<(), Ignored> {
        if envelope.group != self.group {
            return Err(Ignored::OtherGroup);
        }
        if envelope.sender != Sender::Replica(from) || from == self.me {
            return Err(Ignored::NotMember);
        }
        let index = self.membership.index_of(from).ok_or(Ignored::NotMember)?;
        if envelope.view.max(named_view(&envelope.message)) > VIEW_MAX {
            return Err(Ignored::Malformed);
        }
        let origin = Origin {
            id: from,
            index,
            view: envelope.view,
            incarnation: envelope.incarnation,
            epoch: envelope.epoch,
        };
        let kind = envelope.message.kind();
        if self.is_rebuild_answer(kind, envelope.certificate) {
            self.peers.heard(index, now.monotonic, origin.view);
        } else if !kind.is_genesis() {
            self.require_same_group(now, origin, envelope.certificate)?;
            if envelope.epoch != self.epoch() {
                return Err(Ignored::OtherEpoch);
            }
            self.require_this_life(origin, kind, &envelope.crash_vector)?;
            self.promise.learn(&envelope.crash_vector);
            self.peers.heard(index, now.monotonic, origin.view);
        }
        self.on_message(now, origin, envelope.crash_vector, envelope.message)
    }

    /// The incarnation gate: nothing from an earlier life of the sender is processed, and who is
    /// told of a later life of its own has an old disk.
    fn require_this_life(
        &mut self,
        from: Origin,
        kind: Kind,
        crash_vector: &CrashVector,
    ) -> Result<(), Ignored> {
        let earlier = from.incarnation < self.promise.wanted().crash_vector.of(from.id);
        if earlier && !kind.is_before_incarnation() && !self.mutant(Mutant::NoCrashVector) {
            return Err(Ignored::EarlierLife);
        }
        if crash_vector.of(self.me) > self.promise.wanted().incarnation {
            self.reformat(Reformatting::EarlierLife { told_by: from.id });
            return Err(Ignored::Blank);
        }
        Ok(())
    }

    fn on_message(
        &mut self,
        now: Now,
        from: Origin,
        crash_vector: CrashVector,
        message: Message,
    ) -> Result<(), Ignored> {
        match message {
            Message::Prepare(m) => self.on_prepare(now, from, m),
            Message::PrepareOk(m) => self.on_prepare_ok(now, from, &m),
            Message::Commit(m) => self.on_commit(now, from, &m),
            Message::StartViewChange(m) => self.on_start_view_change(now, from, &m),
            Message::DoViewChange(m) => self.on_do_view_change(now, from, crash_vector, m),
            Message::StartView(m) => self.on_start_view(now, from, &m),
            Message::GetView(m) => self.on_get_view(from, &m),
            Message::Ping(m) => self.on_ping(now, from, &m),
            Message::Pong(m) => self.on_pong(now, from, &m),
            Message::Handoff(m) => self.on_handoff(now, from, &m),
            Message::GetHeaders(m) => self.on_get_headers(from, &m),
            Message::Headers(m) => self.on_headers(now, &m),
            Message::GetEntries(m) => self.on_get_entries(now, from, m),
            Message::Entries(m) => self.on_entries(now, from, m),
            Message::Released(m) => self.on_released(now, from, &m),
            Message::GetSnapshot(m) => self.on_get_snapshot(now, from, &m),
            Message::Snapshot(m) => self.on_snapshot(now, m),
            Message::ReadIndex(m) => self.on_read_index(from, &m),
            Message::ReadIndexOk(m) => self.on_read_index_ok(now, from, &m),
            Message::Forward(m) => self.on_forward(now, from, m),
            Message::ForwardReply(m) => self.on_forward_reply(m),
            Message::Register(_)
            | Message::Request(_)
            | Message::Reply(_)
            | Message::Requests(_)
            | Message::Replies(_)
            | Message::Rejected(_)
            | Message::Query(_)
            | Message::Answer(_) => Err(Ignored::NotForReplicas),
            Message::Hello(m) => self.on_hello(from, &m),
            Message::HelloOk(m) => self.on_hello_ok(now, from, m),
            Message::Found(m) => self.on_found(from, &m),
            Message::FoundOk(m) => self.on_found_ok(now, from, &m),
            Message::Recovery(m) => self.on_recovery(now, from, &m),
            Message::RecoveryResponse(m) => self.on_recovery_response(now, from, crash_vector, m),
            Message::GetCrashVector(m) => self.on_get_crash_vector(from, &m),
            Message::CrashVectorIs(m) => self.on_crash_vector_is(from, crash_vector, &m),
        }
    }

    fn on_timer(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Heartbeat => self.on_heartbeat_timer(now),
            Timer::CheckQuorum => self.on_check_quorum_timer(now),
            Timer::Ping => self.on_ping_timer(now),
            Timer::PrimarySilent => self.on_primary_silent_timer(now),
            Timer::Suspicion => self.on_suspicion_timer(now),
            Timer::ViewChange => self.on_view_change_timer(now),
            Timer::Resend => self.on_resend_timer(now),
            Timer::Plan => self.on_plan_timer(now),
            Timer::Pull => self.on_pull_timer(now),
            Timer::Reads => self.on_reads_timer(),
            Timer::Forward => self.on_forward_timer(now),
            Timer::Hello => self.on_hello_timer(now),
            Timer::Repair => self.on_repair_timer(now),
            Timer::Scrub => self.on_scrub_timer(now),
            Timer::Handoff => self.on_handoff_timer(),
            Timer::Snapshot => self.on_snapshot_timer(now),
        }
    }

    fn on_connected(&mut self, now: Now, peer: Peer) {
        let Peer::Replica(id) = peer else { return };
        let Some(index) = self.membership.index_of(id) else { return };
        self.peers.connected(index);
        self.on_snapshot_way(now, index);
        match &mut self.status {
            Status::Blank(_) => self.timers.arm(Timer::Hello, now.monotonic),
            Status::Normal(_) => self.heartbeat_now(),
            Status::ViewChange(change) => change.say_due = true,
            Status::Recovering(_) => self.ask_recovery_again(),
        }
    }

    fn on_disconnected(&mut self, now: Now, peer: Peer) {
        match peer {
            Peer::Client(_) => {
                self.forwards.disconnected(peer);
                self.reads.disconnected(peer);
                self.abandon_reads_of(peer);
            }
            Peer::Replica(id) => {
                if let Some(index) = self.membership.index_of(id) {
                    self.peers.disconnected(index);
                    self.on_snapshot_way(now, index);
                    self.suspect_lost(now, id);
                }
            }
        }
        self.routes.disconnected(peer);
    }

    /// Whether this replica leads its view.
    fn is_primary(&self) -> bool {
        self.primary() == self.me
    }

    fn primary(&self) -> ReplicaId {
        self.membership.primary_of(self.view)
    }

    fn certificate(&self) -> Option<&Certificate> {
        self.promise.durable().certificate.as_ref()
    }

    /// The other at `index`; `None` beyond the last, and for this replica.
    fn other_at(&self, index: ReplicaIndex) -> Option<ReplicaId> {
        self.membership.voter_at(index).filter(|id| *id != self.me)
    }

    /// The others, in order of their index.
    fn others(&self) -> Vec<(ReplicaId, ReplicaIndex)> {
        let all = self.membership.voters().iter().copied();
        all.zip((0_u8..).map(ReplicaIndex)).filter(|(id, _)| *id != self.me).collect()
    }

    fn next_question(&mut self) -> RequestId {
        self.questions = self.questions.next();
        self.questions
    }

    /// `message` under this replica's name, for what a driver says to clients by itself: the
    /// answers to queries, which the executor gives without the engine.
    #[must_use]
    pub fn envelope(&self, message: Message) -> Box<Envelope> {
        let (epoch, incarnation, crash_vector) = match &self.status {
            Status::Blank(Genesis { rebuild: Some(it), .. }) => {
                (it.epoch(), it.incarnation(), it.crash_vector())
            }
            Status::Blank(_)
            | Status::Normal(_)
            | Status::ViewChange(_)
            | Status::Recovering(_) => {
                let crash_vector = match self.mutant(Mutant::CrashVectorVolatile) {
                    false => self.promise.crash_vector(),
                    true => &self.promise.wanted().crash_vector,
                };
                (self.epoch(), self.promise.incarnation(), crash_vector)
            }
        };
        // Made where it stays: what is made elsewhere is copied.
        Box::write(
            Box::new_uninit(),
            Envelope {
                group: self.group,
                certificate: self.certificate,
                epoch,
                sender: Sender::Replica(self.me),
                incarnation,
                view: self.promise.view(),
                crash_vector: crash_vector.clone(),
                message,
            },
        )
    }

    /// Whether this rule is broken on purpose; always no without the feature `mutants`.
    const fn mutant(&self, mutant: Mutant) -> bool {
        self.config.mutant(mutant)
    }

    fn epoch(&self) -> Epoch {
        self.promise.durable().epoch
    }

    fn send(&mut self, to: ReplicaId, message: Message) {
        let output = Output::Send {
            to: Peer::Replica(to),
            lane: message.lane(),
            envelope: self.envelope(message),
        };
        self.out.push_back(output);
    }

    fn broadcast(&mut self, message: &Message) {
        for (id, _) in self.others() {
            self.send(id, message.clone());
        }
    }

    fn send_client(&mut self, to: Peer, message: Message) {
        let output = Output::Send { to, lane: message.lane(), envelope: self.envelope(message) };
        self.out.push_back(output);
    }

    /// Stops the engine; nothing but the reason leaves it any more.
    fn fatal(&mut self, reason: Fatal) -> Ignored {
        if !self.stopped {
            self.stopped = true;
            self.out.clear();
            self.out.push_back(Output::Fatal(reason));
        }
        Ignored::Stopped
    }
}
