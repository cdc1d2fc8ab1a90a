//! Sees everything that happens in a simulation: writes the trace and asks the oracles.

use core::time::Duration;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use vr_core::{
    ClientOutcome,
    model::{
        durable,
        entry::EntryHeader,
        kind::Kind,
        membership::Membership,
        message::{Envelope, Message, RecoveryResponse, StartView},
        snapshot::{Snapshot, SnapshotContent},
        time::Instant,
        types::{OpNumber, ReplicaId, View},
    },
    ports::storage::{Recovered, WriteBatch},
    replica::io::{self, Queue},
};

use crate::{
    actor::Actor,
    checker::{
        Claim, Verdict, Violation,
        applied::{Applied, Record},
        bounds,
        causal::Causal,
        commits::Commits,
        durability::Durability,
        leases,
        monotonic::{Monotonic, Numbers},
        once::Once,
        starts::Starts,
    },
    trace::{
        Trace,
        event::{Event, Fate, Packet},
    },
};

/// The trace and the oracles of one run.
#[derive(Debug)]
pub struct Witness {
    /// What happened.
    pub trace: Trace,
    durability: durable::Durability,
    violation: Option<(Instant, Violation)>,
    applied: Applied,
    once: Once,
    causal: Causal,
    commits: Commits,
    starts: Starts,
    disks: Durability,
    numbers: Monotonic,
    /// Who has taken part in a group, where no disk says so.
    acted: BTreeSet<ReplicaId>,
    /// Who runs in an epoch that was given up: what they do is nothing of the group.
    outside: BTreeSet<ReplicaId>,
    transfers: u64,
    rebuilds: u64,
    handoffs: u64,
    repairs: u64,
    checkpoints: u64,
    snapshots: u64,
    compressed_chunks: u64,
    leases: u64,
    resumed: u64,
}

/// Whether a chunk of a checkpoint travels compressed.
const fn is_compressed(message: &Message) -> bool {
    let Message::Snapshot(Snapshot { content, .. }) = message else { return false };
    matches!(content, SnapshotContent::Compressed { .. })
}

/// The witness as everyone in the simulation holds it.
pub type SharedWitness = Arc<Mutex<Witness>>;

impl Witness {
    /// A witness of a group that has not done anything yet.
    #[must_use]
    pub fn new(membership: &Membership, durability: durable::Durability) -> Self {
        Self {
            trace: Trace::default(),
            durability,
            violation: None,
            applied: Applied::default(),
            once: Once::default(),
            causal: Causal::default(),
            commits: Commits::new(membership.clone()),
            starts: Starts::new(membership.clone()),
            disks: Durability::default(),
            numbers: Monotonic::default(),
            acted: BTreeSet::new(),
            outside: BTreeSet::new(),
            transfers: 0,
            rebuilds: 0,
            handoffs: 0,
            repairs: 0,
            checkpoints: 0,
            snapshots: 0,
            compressed_chunks: 0,
            leases: 0,
            resumed: 0,
        }
    }

    /// The first property that did not hold, and when.
    #[must_use]
    pub const fn violation(&self) -> Option<&(Instant, Violation)> {
        self.violation.as_ref()
    }

    /// What was applied anywhere.
    #[must_use]
    pub const fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Which calls were executed.
    #[must_use]
    pub const fn once(&self) -> &Once {
        &self.once
    }

    /// What causal queries were answered with.
    #[must_use]
    pub const fn causal(&self) -> &Causal {
        &self.causal
    }

    /// What quorums acknowledged.
    #[must_use]
    pub const fn commits(&self) -> &Commits {
        &self.commits
    }

    /// What views started with.
    #[must_use]
    pub const fn starts(&self) -> &Starts {
        &self.starts
    }

    /// What is durable where.
    #[must_use]
    pub const fn disks(&self) -> &Durability {
        &self.disks
    }

    /// How many messages carried entries that a replica had asked for.
    #[must_use]
    pub const fn transfers(&self) -> u64 {
        self.transfers
    }

    /// How often a replica that had forgotten everything came back.
    #[must_use]
    pub const fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    /// How often a primary left its view on purpose.
    #[must_use]
    pub const fn handoffs(&self) -> u64 {
        self.handoffs
    }

    /// How many checkpoints came to count somewhere.
    #[must_use]
    pub const fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    /// How many checkpoints were fetched and installed.
    #[must_use]
    pub const fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// How many chunks of checkpoints were sent compressed.
    #[must_use]
    pub const fn compressed_chunks(&self) -> u64 {
        self.compressed_chunks
    }

    /// How often a replica went on from a state on its state machine's own disk.
    #[must_use]
    pub const fn resumed(&self) -> u64 {
        self.resumed
    }

    /// The node of `replica` tells its user that something happened.
    pub fn told(&mut self, at: Instant, replica: ReplicaId, event: &io::Event) {
        self.rebuilds += u64::from(matches!(event, io::Event::GroupRejoined { .. }));
        self.handoffs += u64::from(matches!(event, io::Event::HandedOff { .. }));
        self.checkpoints += u64::from(matches!(event, io::Event::CheckpointHeld { .. }));
        self.snapshots += u64::from(matches!(event, io::Event::SnapshotInstalled { .. }));
        self.resumed += u64::from(matches!(event, io::Event::StateResumed { .. }));
        self.note(at, format!("r{replica} {event:?}"));
    }

    /// How many damaged entries were written again.
    #[must_use]
    pub const fn repairs(&self) -> u64 {
        self.repairs
    }

    /// The group begins anew, with this log and promises to `view`; the epoch before, in which
    /// `outside` goes on, is forgotten.
    pub fn restarted_by_force(
        &mut self,
        membership: &Membership,
        base: OpNumber,
        log: Vec<EntryHeader>,
        view: View,
        outside: &[ReplicaId],
    ) {
        let Self { trace, violation, applied, commits, transfers, rebuilds, repairs, .. } =
            core::mem::replace(self, Self::new(membership, durable::Durability::Full));
        (self.trace, self.violation) = (trace, violation);
        (self.applied, self.commits) = (applied.up_to(base), commits.up_to(base));
        (self.transfers, self.rebuilds, self.repairs) = (transfers, rebuilds, repairs);
        self.outside = outside.iter().copied().collect();
        self.commits.learn(&log);
        for replica in membership.voters() {
            self.starts.given(*replica, view);
        }
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, at: Instant, text: impl Into<String>) {
        self.trace.record(at, Event::Note(text.into()));
    }

    /// `envelope` was given to the network as `packet`.
    pub fn sent(&mut self, at: Instant, packet: Packet, envelope: &Envelope) {
        self.trace.record_sent(at, packet, envelope);
        let verdict = self.causal.sent(envelope);
        self.judge(at, verdict);
        if let Actor::Replica(replica) = packet.from {
            self.transfers += u64::from(packet.kind == Kind::Entries);
            self.compressed_chunks += u64::from(is_compressed(&envelope.message));
            if !self.outside.contains(&replica) {
                let verdict = self.check_sent(replica, envelope);
                self.judge(at, verdict);
            }
        }
    }

    fn check_sent(&mut self, replica: ReplicaId, envelope: &Envelope) -> Verdict {
        match self.durability {
            durable::Durability::Full => self.disks.sent(replica, envelope, true)?,
            durable::Durability::ViewOnly => self.disks.sent(replica, envelope, false)?,
            durable::Durability::Diskless => {}
        }
        if self.durability != durable::Durability::Full {
            self.check_memory(replica, envelope)?;
        }
        match Claim::from(&envelope.message) {
            Claim::Holds(m) => {
                let ack = (m.op_number, m.checksum);
                self.commits.acknowledged(replica, envelope.view, ack, &self.starts)
            }
            Claim::Leads(committed) => self.commits.claimed(replica, committed),
            Claim::Started(m) => self.starts.sent(replica, m),
            Claim::Promises(_) | Claim::Nothing => Ok(()),
        }
    }

    /// Logs that are on no disk are known by what replicas say of them.
    fn check_memory(&mut self, replica: ReplicaId, envelope: &Envelope) -> Verdict {
        let view = envelope.view;
        if acts(envelope.message.kind()) {
            self.acted.insert(replica);
        }
        self.commits.learn(headers_of(&envelope.message));
        let (starts, commits) = (&mut self.starts, &mut self.commits);
        match Claim::from(&envelope.message) {
            Claim::Holds(m) => {
                let head = (m.op_number, m.checksum);
                starts.acknowledged(replica, view, head, |log, entry| commits.contains(log, entry))
            }
            Claim::Started(m) => {
                let head = (m.op_number, m.head);
                if starts.announced(m.view, head) {
                    commits.announced(m.view, head)?;
                }
                commits.acknowledged(replica, m.view, head, starts)
            }
            Claim::Leads(_) | Claim::Nothing => match headers_of(&envelope.message).last() {
                Some(last) => commits.showed(replica, view, last, starts),
                None => Ok(()),
            },
            Claim::Promises(_) => Ok(()),
        }
    }

    /// Whether `replica` has taken part in a group in this life.
    #[must_use]
    pub fn has_acted(&self, replica: ReplicaId) -> bool {
        self.acted.contains(&replica)
    }

    /// A process without a disk started: it has no past.
    pub fn forgot(&mut self, replica: ReplicaId) {
        self.disks.wiped(replica);
        self.numbers.wiped(replica);
        self.applied.restarted(replica);
        self.acted.remove(&replica);
    }

    /// `replica` opened its disk, which may have `lied`, and found `recovered`; a new life begins.
    pub fn opened(&mut self, at: Instant, replica: ReplicaId, recovered: &Recovered, lied: bool) {
        self.applied.restarted(replica);
        self.numbers.restarted(replica);
        if self.outside.contains(&replica) {
            return;
        }
        let verdict = self.disks.opened(replica, recovered, lied);
        self.judge(at, verdict);
    }

    /// The disk of `replica` was wiped.
    pub fn wiped(&mut self, at: Instant, replica: ReplicaId) {
        self.disks.wiped(replica);
        self.numbers.wiped(replica);
        self.outside.remove(&replica);
        self.trace.record(at, Event::Process(replica.into(), Fate::Wiped));
    }

    /// `replica` began to write `batch`.
    pub fn writing(&mut self, at: Instant, replica: ReplicaId, batch: &WriteBatch) {
        self.commits.writing(batch);
        self.repairs += u64::try_from(batch.repairs.len()).unwrap_or(u64::MAX);
        if self.outside.contains(&replica) {
            return;
        }
        let verdict = self.disks.writing(replica, batch);
        self.judge(at, verdict);
    }

    /// The write that `replica` began, of so many entries, is durable.
    pub fn stored(&mut self, at: Instant, replica: ReplicaId, entries: u64) {
        let Some(shadow) = self.disks.stored(replica) else { return };
        let (op_number, view, log_view) = (shadow.head().0, shadow.view, shadow.log_view);
        self.trace.record(at, Event::Stored { replica, entries, op_number, view, log_view });
        let verdict = self.check_stored(replica);
        self.judge(at, verdict);
    }

    fn check_stored(&mut self, replica: ReplicaId) -> Verdict {
        let Some(shadow) = self.disks.of(replica) else { return Ok(()) };
        self.numbers.stored(replica, shadow.view, shadow.log_view)?;
        // What a replica fetches that is in no group yet acknowledges nothing, whatever its views.
        if self.durability != durable::Durability::Full || shadow.lost || !shadow.joined {
            return Ok(());
        }
        let contains = |log, entry| self.commits.contains(log, entry);
        if self.starts.stored(replica, shadow, contains)? {
            self.commits.started(shadow.log_view, shadow)?;
        }
        self.commits.stored(replica, shadow, &self.starts)
    }

    /// The state machine of `replica` applied `record`.
    pub fn applied_at(&mut self, at: Instant, replica: ReplicaId, op: OpNumber, record: Record) {
        self.trace.record(at, Event::Applied { replica, op_number: op, tag: record.tag });
        if self.outside.contains(&replica) {
            return;
        }
        let verdict = self.applied.applied(replica, op, record);
        self.judge(at, verdict);
        let verdict = self.once.applied(op, &record);
        self.judge(at, verdict);
    }

    /// The state machine of `replica` was given a state in which `op` is the last operation.
    pub fn restored_at(&mut self, at: Instant, replica: ReplicaId, op: OpNumber) {
        self.note(at, format!("r{replica} restores the state after op {op}"));
        if self.outside.contains(&replica) {
            return;
        }
        let verdict = self.applied.restored(replica, op);
        self.judge(at, verdict);
    }

    /// The state machine of `replica` has a state on its own disk in which `op` is the last operation;
    /// unless it is emptied, it goes on from there.
    pub fn found_at(&mut self, at: Instant, replica: ReplicaId, op: OpNumber) {
        self.note(at, format!("r{replica} finds the state after op {op} on its disk"));
        self.applied.found(replica, op);
    }

    /// The state machine of `replica` was emptied.
    pub fn emptied_at(&mut self, at: Instant, replica: ReplicaId) {
        self.note(at, format!("r{replica} empties its state"));
        self.applied.restarted(replica);
    }

    /// A client was told that its call executed, with a reply of this hash.
    pub fn acknowledged(&mut self, at: Instant, tag: u64, reply: u64) {
        self.trace.record(at, Event::Answered(tag, "executed"));
        let verdict = self.once.acknowledged(tag, reply);
        self.judge(at, verdict);
    }

    /// A client was told that all of these calls, which it made as one, executed.
    pub fn acknowledged_together(&mut self, at: Instant, tags: &[u64]) {
        let verdict = self.once.together(tags);
        self.judge(at, verdict);
    }

    /// A client was told that its call `tag` failed, and what became of the operation, if it was
    /// one: a query executes nowhere, whatever is said of it.
    pub fn told_outcome(&mut self, at: Instant, tag: u64, outcome: ClientOutcome) {
        let verdict = self.once.told(tag, outcome);
        self.judge(at, verdict);
    }

    /// `replica` holds so much in its queues.
    pub fn holds(&mut self, at: Instant, replica: ReplicaId, queues: &[Queue]) {
        self.judge(at, bounds::check(replica, queues));
    }

    /// The primary `replica` of `view` says for how long it holds its lease.
    pub fn leased(&mut self, at: Instant, replica: ReplicaId, view: View, leased_for: Duration) {
        self.leases += u64::from(!leased_for.is_zero());
        if !self.outside.contains(&replica) {
            self.judge(at, leases::check(replica, view, leased_for, self.starts.latest()));
        }
    }

    /// How often a primary said that it holds its lease.
    #[must_use]
    pub const fn leases(&self) -> u64 {
        self.leases
    }

    /// `replica` says this of itself.
    pub fn says(&mut self, at: Instant, replica: ReplicaId, numbers: Numbers) {
        let verdict = self.numbers.says(replica, numbers);
        self.judge(at, verdict);
    }

    /// Remembers the first violation.
    pub fn judge(&mut self, at: Instant, verdict: Verdict) {
        if let (Err(violation), None) = (verdict, &self.violation) {
            self.trace.record(at, Event::Violated(violation.clone()));
            self.violation = Some((at, violation));
        }
    }
}

/// Whether a message of this kind comes from a member in a started view only.
const fn acts(kind: Kind) -> bool {
    matches!(kind, Kind::Prepare | Kind::PrepareOk | Kind::Commit)
}

/// The headers that a message carries, with or without their payloads, ascending.
fn headers_of(message: &Message) -> Vec<&EntryHeader> {
    if let Message::Prepare(m) = message {
        m.entries.iter().map(|entry| &entry.header).collect()
    } else if let Message::Entries(m) = message {
        m.entries.iter().map(|entry| &entry.header).collect()
    } else if let Message::DoViewChange(m) = message {
        m.suffix.iter().collect()
    } else if let Message::StartView(StartView { suffix, .. })
    | Message::RecoveryResponse(RecoveryResponse {
        start: Some(StartView { suffix, .. }),
        ..
    }) = message
    {
        suffix.iter().collect()
    } else if let Message::Headers(m) = message {
        m.headers.iter().collect()
    } else {
        Vec::new()
    }
}
