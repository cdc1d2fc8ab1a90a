//! Checkpoints: when one is taken, which one counts, and what is released for it (VRR §5.1).
//!
//! ```text
//! primary                          backups
//!  takes one after op n             take one after op n        the log alone says when
//!    | <-- PrepareOk(n, digest) ------ |
//!  a quorum has one digest: agreed
//!    | --- Commit(agreed) -----------> |   whoever has another digest stops
//!  superblock names it              superblock names it
//!  releases the log below           releases the log below
//! ```

use crate::{
    execution::{
        transfer::Task,
        work::{Restored, Work},
    },
    model::{
        companion::StateOnDisk,
        durable::{CheckpointId, Durability},
        entry::{EntryHeader, Run},
        mutants::Mutant,
        time::{Now, nanoseconds},
        types::{OpNumber, ReplicaId, ReplicaIndex},
    },
    ports::storage::{Anchor, WriteBatch},
    replica::{
        Replica,
        io::{Event, Fatal, Output},
    },
    state::{
        checkpoints::Differs,
        status::{Role, Status},
    },
};

impl Replica {
    /// Cuts `entries`, which come next for the executor, behind the first one after which a
    /// checkpoint is due; whether there is such a one.
    pub(in crate::replica) fn end_at_checkpoint(&mut self, entries: &mut Run) -> bool {
        let ops_max = u64::from(self.config.checkpoint_ops);
        let bytes_max = self.config.checkpoint_bytes;
        let due = self.checkpoints.first_due(entries, ops_max, bytes_max);
        let Some(position) = due else { return false };
        *entries = entries.part(0, position.saturating_add(1));
        true
    }

    /// Lets the executor take the checkpoint that is due behind what it was handed.
    pub(in crate::replica) fn order_checkpoint(&mut self, at: Anchor) {
        if self.checkpoints.begin() {
            self.out.push_back(Output::Execute(Work::Checkpoint { at }));
        }
    }

    /// A group that stands still with a log that is half full takes a checkpoint where it stands.
    ///
    /// Whoever is still taking one passes over the next that is due, so replicas may take theirs at
    /// different ops and agree on none; and once the log is full, none is due any more. Looked at
    /// with each heartbeat, by a replica that holds all there is; heartbeats of a round of reads come
    /// sooner after each other than others, so it is the time between them that counts.
    pub(in crate::replica) fn take_checkpoint_at_rest(&mut self, now: Now) {
        let head = Anchor { op_number: self.log.op_number(), checksum: self.log.head() };
        let resting_for = self.checkpoints.rests(now.monotonic, head.op_number);
        let is_at_rest = resting_for >= self.config.heartbeat_interval
            && self.progress.applied == head.op_number
            && self.checkpoints.latest().op_number < head.op_number;
        // One was due that did not come to be held; or none is due yet, and the next request may need
        // more room than the log has left until then.
        let is_missed = self.checkpoints.held().op_number < self.checkpoints.due()
            || !self.log_has_room_for_any();
        if is_at_rest && is_missed && self.is_log_half_full() {
            self.order_checkpoint(head);
        }
    }

    fn is_log_half_full(&self) -> bool {
        let ops = self.log.op_number().since(self.log.base().op_number);
        ops >= self.config.log_ops_max / 2
            || self.log.bytes() >= self.config.log_bytes_max / 2
            || !self.log_has_room_for_any()
    }

    /// Whatever kept more of the log than a half of it may be gone; nothing else would look, once it
    /// is full.
    pub(in crate::replica) fn release_half_full_log(&mut self, now: Now) {
        let held = self.checkpoints.held().op_number;
        if held > self.log.base().op_number && self.is_log_half_full() {
            self.release_log(now);
        }
    }

    /// The executor has taken a checkpoint, which is complete in local storage.
    pub(in crate::replica) fn on_taken(&mut self, now: Now, id: CheckpointId) {
        if let Err(differs) = self.checkpoints.taken(id) {
            return self.differs(self.primary(), differs);
        }
        match &mut self.status {
            Status::Normal(Role::Backup(backup)) => backup.ack_due = true,
            Status::Normal(Role::Primary(_)) => self.told_checkpoint(now, self.index, id),
            Status::Blank(_) | Status::ViewChange(_) | Status::Recovering(_) => {}
        }
        self.keep_checkpoints();
        self.hold_agreed(now);
    }

    /// A new primary knows of no checkpoint what backups have told its predecessor. What this replica
    /// has taken itself counts again; and what a promise named as held was agreed on, whoever is there
    /// to tell of it by now.
    pub(in crate::replica) fn count_checkpoints(
        &mut self,
        now: Now,
        promised: &[(ReplicaId, CheckpointId)],
    ) {
        for (from, held) in promised {
            self.on_agreed(now, *from, *held);
        }
        for own in self.checkpoints.taken_here() {
            self.told_checkpoint(now, self.index, own);
        }
    }

    /// The voter at `index` has a checkpoint: what a quorum has alike is agreed on.
    pub(in crate::replica) fn told_checkpoint(
        &mut self,
        now: Now,
        index: ReplicaIndex,
        id: CheckpointId,
    ) {
        if id.op_number <= self.checkpoints.agreed().op_number {
            return;
        }
        let quorum = match self.mutant(Mutant::CheckpointOfOne) {
            false => self.membership.quorum(),
            true => 1,
        };
        let Some(agreed) = self.checkpoints.told(index, id, quorum) else {
            if let Some(op_number) = self.checkpoints.disagreement(self.membership.len()) {
                self.out.push_back(Output::Event(Event::CheckpointsDiffer { op_number }));
            }
            return;
        };
        let teller = self.membership.voter_at(index).unwrap_or(self.me);
        self.heartbeat_now();
        self.on_agreed(now, teller, agreed);
    }

    /// A quorum has `id`, as `from` told: this replica's own must be the same.
    pub(in crate::replica) fn on_agreed(&mut self, now: Now, from: ReplicaId, id: CheckpointId) {
        match self.checkpoints.agree(id) {
            Ok(()) => self.hold_agreed(now),
            Err(differs) => self.differs(from, differs),
        }
    }

    /// The same operations made another state here than at a quorum: going on would serve wrong
    /// answers. The checkpoint stays in storage as evidence.
    fn differs(&mut self, peer: ReplicaId, differs: Differs) {
        let Differs { ours, theirs } = differs;
        let (what, ours_is, theirs_is) = match ours.checksum == theirs.checksum {
            true => ("another state after the same ops", ours.digest, theirs.digest),
            false => ("another entry under a checkpoint", ours.checksum, theirs.checksum),
        };
        let op_number = ours.op_number;
        self.fatal(Fatal::Diverged { peer, op_number, what, ours: ours_is, theirs: theirs_is });
    }

    /// This replica has the checkpoint that a quorum has: it counts, as soon as the superblock says
    /// so where there is a log on disk.
    fn hold_agreed(&mut self, now: Now) {
        let Some(id) = self.checkpoints.to_hold() else { return };
        let named = self.promise.named_checkpoints().map(|named| named.op_number).max();
        if self.log.is_volatile() {
            self.hold(now, id);
        } else if named < Some(id.op_number) {
            self.promise.name_checkpoint(id);
        }
    }

    /// Writes are done, maybe of a superblock that names a checkpoint.
    pub(in crate::replica) fn on_checkpoint_named(&mut self, now: Now) {
        let named = self.promise.durable().checkpoint;
        if self.promise.durable().durability == Durability::Full
            && named.op_number > self.checkpoints.held().op_number
        {
            self.hold(now, named);
        }
    }

    pub(in crate::replica) fn hold(&mut self, now: Now, id: CheckpointId) {
        if self.checkpoints.hold(id) {
            self.count_from(id.op_number);
            self.out.push_back(Output::Event(Event::CheckpointHeld { op_number: id.op_number }));
            self.give_up_needless_snapshot(now);
            self.release_log(now);
        }
    }

    /// Bytes count from one that was taken where the group stood still: a replica that starts with it
    /// counts from there, too.
    fn count_from(&mut self, held: OpNumber) {
        if held > self.checkpoints.due() {
            let handed = self.log.headers(held.next(), self.progress.ordered, usize::MAX);
            let bytes = handed.iter().map(EntryHeader::entry_bytes).sum();
            self.checkpoints.restart_at(held, bytes);
        }
    }

    /// Releases what no replica that this one could serve needs from its log any more.
    fn release_log(&mut self, now: Now) {
        self.checkpoints.tidy(now.monotonic);
        let full = self.is_log_half_full();
        let retained = if full { 0 } else { u64::from(self.config.log_retain_ops) };
        let held = self.checkpoints.held().op_number;
        let releasable = if full { held } else { self.checkpoints.releasable(retained) };
        let through = releasable.min(self.log.durable_op()).min(self.progress.applied);
        if through > self.log.base().op_number && self.install.is_none() {
            self.log.release(through);
            self.repair.released(through);
            if !self.log.is_volatile() {
                let id = self.writes.next(now.monotonic);
                let batch = WriteBatch { release: Some(through), ..WriteBatch::default() };
                self.persist(id, batch);
            }
            self.pull_what_was_let_go(now);
        }
        self.keep_checkpoints();
    }

    /// Lets storage drop the checkpoints that are not needed any more.
    pub(in crate::replica) fn keep_checkpoints(&mut self) {
        let mut checkpoints = self.checkpoints.needed();
        if !self.log.is_volatile() {
            checkpoints.extend(self.promise.named_checkpoints());
        }
        checkpoints.extend(self.incoming.as_ref().map(|incoming| incoming.checkpoint()));
        let through = self.checkpoints.latest().op_number;
        let keep = Task::Keep { checkpoints, through };
        self.out.push_back(Output::Transfer(Box::new(keep)));
    }

    /// The executor works with the state of a checkpoint now, or with one that was on disk.
    pub(in crate::replica) fn on_restored(&mut self, restored: &Restored) {
        self.checkpoints.forget_taking();
        self.progress.restored(restored.op_number);
        let time = nanoseconds(restored.time);
        self.log.note_base_time(restored.op_number, time);
        self.clock.replay(time.max(self.log.time()));
        self.admitted.restored(&restored.sessions);
        self.note_sessions(restored.op_number);
    }

    /// After a start, the state is that of the checkpoint that the superblock names, or one on the
    /// state machine's own disk that contains as much.
    ///
    /// A replica that belongs to no group has `strayed` if it has one: what it began to fetch before
    /// its process ended is fetched again, if there is a group.
    pub(in crate::replica) fn recall_execution(
        &mut self,
        now: Now,
        state: Option<StateOnDisk>,
        strayed: bool,
    ) {
        self.recall_state(state);
        let checkpoint = self.checkpoints.held();
        if checkpoint.op_number > OpNumber::ZERO && self.progress.found().is_none() {
            self.out.push_back(Output::Execute(Work::Restore { checkpoint }));
        }
        if !strayed {
            return;
        }
        self.promise.forget_checkpoint(checkpoint);
        self.hand_over(now);
        let id = self.writes.next(now.monotonic);
        let batch = WriteBatch { cut: Some(OpNumber::ZERO), ..WriteBatch::default() };
        self.persist(id, batch);
    }
}
