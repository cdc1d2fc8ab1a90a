//! A checkpoint in the place of a log that nobody keeps any more (VRR §5.1, §5.2).
//!
//! ```text
//! replica that lacks op n                any replica, in any status
//!    | -- GetEntries / GetHeaders(n) -----> |
//!    | <- Released(checkpoint) ------------ |   n is at or below its log's base
//!    | -- GetSnapshot(manifest) ----------> |
//!    | <- Snapshot(checksums) ------------- |   believed if they hash to the checkpoint's digest
//!    | -- GetSnapshot(chunk) -------------> |   two at a time, of everybody who has it
//!    | <- Snapshot(chunk) ----------------- |
//!   complete in storage, then named by the superblock, then its log begins after it
//! ```

use tracing::debug;

use crate::{
    execution::{
        transfer::{Task, TaskDone},
        work::Work,
    },
    model::{
        durable::CheckpointId,
        encoding::chunk::Carried,
        message::Message,
        mutants::Mutant,
        snapshot::{GetSnapshot, Released, Snapshot, SnapshotContent},
        time::Now,
        types::{OpNumber, PersistId, ReplicaId, ReplicaIndex, RequestId},
    },
    ports::storage::{Anchor, WriteBatch},
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, Output},
    },
    state::{
        incoming::{Incoming, Next},
        pace::Pace,
        repair::Rebased,
        status::{Role, Status},
        timers::Timer,
    },
};

/// How many retry intervals a question for a part may stay unanswered: a part is large.
const PATIENCE: u32 = 10;
/// How many suspicion timeouts a peer may pause between two questions before what it fetches is
/// dropped.
const PIN: u32 = 20;

impl Replica {
    /// Tells that what was asked for is not kept any more.
    pub(in crate::replica) fn send_released(&mut self, to: ReplicaId, request: RequestId) {
        let checkpoint = self.checkpoints.held();
        self.send(to, Message::Released(Released { request, checkpoint }));
    }

    /// Whether the state after `checkpoint` is something that this replica does not have.
    fn lacks(&self, checkpoint: CheckpointId) -> bool {
        let here = self.log.checksum_of(checkpoint.op_number) == Some(checkpoint.checksum);
        // What is damaged, and not executed, is in nobody's log any more.
        let applied = self.progress.applied;
        let stuck = self
            .repair
            .extent()
            .is_some_and(|(first, last, _)| last > applied && first <= checkpoint.op_number);
        checkpoint.op_number > self.log.base().op_number && (!here || self.is_incomplete() || stuck)
    }

    /// Whether `checkpoint` would shorten the log of a replica that has executed past it, and has
    /// none of its own that a quorum has, too: not even one that the superblock is about to name.
    fn shortens_log(&self, checkpoint: CheckpointId) -> bool {
        let here = self.log.checksum_of(checkpoint.op_number) == Some(checkpoint.checksum);
        let named = self.promise.named_checkpoints().map(|named| named.op_number).max();
        let held = named.max(Some(self.checkpoints.held().op_number));
        here && held < Some(checkpoint.op_number)
            && checkpoint.op_number > self.log.base().op_number
            && checkpoint.op_number <= self.progress.applied
    }

    /// A replica with a full log waits for nothing but a later checkpoint: whoever is too slow to
    /// take its own, or took it elsewhere, fetches the one that a quorum has.
    pub(in crate::replica) fn fetch_agreed_if_full(&mut self, now: Now) {
        let agreed = self.checkpoints.agreed();
        let is_full = self.storage_keeps_up()
            && !self.log_has_room_for_any()
            && !self.mutant(Mutant::EndlessLog);
        let free = self.incoming.is_none() && self.install.is_none();
        if is_full && free && (self.lacks(agreed) || self.shortens_log(agreed)) {
            self.begin_snapshot(now, agreed);
        }
    }

    fn begin_snapshot(&mut self, now: Now, checkpoint: CheckpointId) {
        let op_number = checkpoint.op_number;
        self.out.push_back(Output::Event(Event::SnapshotBegan { op_number }));
        let pace = Pace::of(self.config.fetch_bytes_per_second);
        let compressed = self.config.compress_checkpoints;
        self.incoming = Some(Incoming::new(checkpoint, pace, compressed));
        self.ask_for_snapshot(now);
    }

    /// What this replica asked for is nowhere as entries any more.
    pub(in crate::replica) fn on_released(
        &mut self,
        now: Now,
        from: Origin,
        m: &Released,
    ) -> Result<(), Ignored> {
        // Of a history that this replica does not know of yet: in its own view it would acknowledge
        // what nobody there has.
        let has_log = matches!(self.status, Status::Normal(_) | Status::ViewChange(_));
        if has_log && from.view > self.view {
            return Err(Ignored::NewerView);
        }
        let pulled = match &self.status {
            Status::Normal(Role::Backup(backup)) => backup.pull == Some(m.request),
            Status::Blank(_)
            | Status::Normal(Role::Primary(_))
            | Status::ViewChange(_)
            | Status::Recovering(_) => false,
        };
        let planned = self.status.plan().is_some_and(|plan| plan.question() == Some(m.request));
        if !pulled && !planned && self.repair.question() != Some(m.request) {
            return Err(Ignored::Unasked);
        }
        if !self.lacks(m.checkpoint) {
            return Err(Ignored::NotHeld);
        }
        if let Some(incoming) = &self.incoming
            && (incoming.checkpoint() == m.checkpoint || !incoming.is_gone(&self.present()))
        {
            return Err(Ignored::Duplicate);
        }
        self.begin_snapshot(now, m.checkpoint);
        Ok(())
    }

    /// The others, but for those whose process is gone.
    fn present(&self) -> Vec<ReplicaIndex> {
        let others = self.others().into_iter().map(|(_, index)| index);
        others.filter(|index| !self.peers.is_lost(*index)).collect()
    }

    /// `checkpoint` on its way here, if that is the one which is fetched.
    fn incoming_of(&mut self, checkpoint: CheckpointId) -> Option<&mut Incoming> {
        self.incoming.as_mut().filter(|incoming| incoming.checkpoint() == checkpoint)
    }

    /// Asks for as much as may be asked for at a time.
    fn ask_for_snapshot(&mut self, now: Now) {
        let (peers, now) = (self.present(), now.monotonic);
        let patience = self.config.retry_interval.saturating_mul(PATIENCE);
        loop {
            let request = self.questions.next();
            let Some(incoming) = &mut self.incoming else { return };
            let Some((index, question)) = incoming.question(request, &peers, now) else {
                self.timers.arm(Timer::Snapshot, incoming.due(now, patience));
                return;
            };
            self.questions = request;
            if let Some(to) = self.membership.voter_at(index) {
                self.send(to, Message::GetSnapshot(question));
            }
        }
    }

    /// A way to `index` opened or broke: who else is there is asked.
    pub(in crate::replica) fn on_snapshot_way(&mut self, now: Now, index: ReplicaIndex) {
        let Some(incoming) = &mut self.incoming else { return };
        if self.peers.is_lost(index) {
            incoming.lost(index);
        }
        self.ask_for_snapshot(now);
    }

    /// Questions that were not answered are asked again; what nobody has any more is given up, and
    /// whoever has released the log since tells of another checkpoint.
    pub(in crate::replica) fn on_snapshot_timer(&mut self, now: Now) {
        let patience = self.config.retry_interval.saturating_mul(PATIENCE);
        let present = self.present();
        let Some(incoming) = &mut self.incoming else { return };
        incoming.expire(now.monotonic, patience);
        if incoming.is_gone(&present) {
            return self.give_up_snapshot(now);
        }
        self.ask_for_snapshot(now);
    }

    /// Parts of a checkpoint never change, so every status answers. What is fetched stays.
    pub(in crate::replica) fn on_get_snapshot(
        &mut self,
        now: Now,
        from: Origin,
        m: &GetSnapshot,
    ) -> Result<(), Ignored> {
        let GetSnapshot { request, checkpoint, part, compressed } = *m;
        let (to, compressed) = (from.id, compressed && self.config.compress_checkpoints);
        let until = now.monotonic + self.config.suspicion_timeout.saturating_mul(PIN);
        self.checkpoints.tidy(now.monotonic);
        if !self.checkpoints.serves(checkpoint, until) {
            self.send_snapshot(to, request, checkpoint, SnapshotContent::Gone);
            return Err(Ignored::NotHeld);
        }
        if !self.checkpoints.begin_serve() {
            return Err(Ignored::Busy);
        }
        let serve = Task::Serve { to, request, checkpoint, part, compressed };
        self.out.push_back(Output::Transfer(Box::new(serve)));
        Ok(())
    }

    fn send_snapshot(
        &mut self,
        to: ReplicaId,
        request: RequestId,
        checkpoint: CheckpointId,
        content: SnapshotContent,
    ) {
        self.send(to, Message::Snapshot(Snapshot { request, checkpoint, content }));
    }

    /// A part of the checkpoint that is fetched.
    pub(in crate::replica) fn on_snapshot(&mut self, now: Now, m: Snapshot) -> Result<(), Ignored> {
        let Snapshot { request, checkpoint, content } = m;
        let present = self.present();
        let incoming = self.incoming_of(checkpoint).ok_or(Ignored::Unasked)?;
        match content {
            SnapshotContent::Gone => {
                incoming.gone(request);
                if incoming.is_gone(&present) {
                    self.give_up_snapshot(now);
                    return Err(Ignored::NotHeld);
                }
            }
            SnapshotContent::Manifest { bytes, from, chunks } => {
                let next = incoming.page(request, bytes, from, &chunks);
                self.go_on_with_snapshot(now, checkpoint, next.unwrap_or(Next::Wait));
            }
            SnapshotContent::Chunk { index, bytes } => {
                return self.take_chunk(now, (request, checkpoint), index, Carried::Raw(bytes));
            }
            SnapshotContent::Compressed { index, block } => {
                let carried = Carried::Compressed(block);
                return self.take_chunk(now, (request, checkpoint), index, carried);
            }
        }
        self.ask_for_snapshot(now);
        Ok(())
    }

    /// A chunk that is needed goes to storage, where it is verified beside everything else.
    fn take_chunk(
        &mut self,
        now: Now,
        (request, checkpoint): (RequestId, CheckpointId),
        index: u32,
        carried: Carried,
    ) -> Result<(), Ignored> {
        let incoming = self.incoming_of(checkpoint).ok_or(Ignored::Unasked)?;
        let facts = incoming.chunk(request, index, &carried);
        if let Some(facts) = facts {
            let put = Task::Put { checkpoint, index, carried, facts };
            self.out.push_back(Output::Transfer(Box::new(put)));
        }
        self.ask_for_snapshot(now);
        facts.map(drop).ok_or(Ignored::NotHeld)
    }

    /// What this replica has taken itself meanwhile is not fetched any further: as long as it is,
    /// nothing else is asked for.
    pub(in crate::replica) fn give_up_needless_snapshot(&mut self, now: Now) {
        // What is complete is looked at when it is installed, and what is being named is needed.
        let arriving = |it: &&Incoming| !it.is_complete() && !it.is_naming();
        let Some(incoming) = self.incoming.as_ref().filter(arriving) else { return };
        let checkpoint = incoming.checkpoint();
        if self.install.is_none() && !self.lacks(checkpoint) && !self.shortens_log(checkpoint) {
            self.give_up_snapshot(now);
        }
    }

    fn give_up_snapshot(&mut self, now: Now) {
        self.incoming = None;
        self.timers.disarm(Timer::Snapshot);
        self.go_on_without_log(now);
    }

    fn go_on_with_snapshot(&mut self, now: Now, checkpoint: CheckpointId, next: Next) {
        let task = match next {
            Next::Look(manifest) => Task::Look { checkpoint, manifest },
            Next::Complete(manifest) => Task::Complete { checkpoint, manifest },
            Next::Wait => return self.ask_for_snapshot(now),
        };
        self.out.push_back(Output::Transfer(Box::new(task)));
    }

    /// Storage did something with a checkpoint.
    pub(in crate::replica) fn on_task_done(&mut self, now: Now, done: TaskDone) {
        match done {
            TaskDone::Served { to, request, checkpoint, content } => {
                self.checkpoints.end_serve();
                self.send_snapshot(to, request, checkpoint, content);
            }
            TaskDone::Looked { checkpoint, missing } => {
                let next = self.incoming_of(checkpoint).map(|it| it.lacks(&missing));
                let Some(next) = next else { return };
                self.go_on_with_snapshot(now, checkpoint, next);
            }
            TaskDone::Put { checkpoint, index } => {
                let next = self.incoming_of(checkpoint).map(|it| it.stored(index));
                let Some(next) = next else { return };
                self.go_on_with_snapshot(now, checkpoint, next);
            }
            TaskDone::Refused { checkpoint, index } => {
                self.ignored = self.ignored.saturating_add(1);
                debug!(view = %self.view, checkpoint = %checkpoint.op_number, index, "chunk refused");
                if let Some(incoming) = self.incoming_of(checkpoint) {
                    incoming.refused(index);
                    self.ask_for_snapshot(now);
                }
            }
            TaskDone::Completed { checkpoint } => {
                if let Some(incoming) = self.incoming_of(checkpoint) {
                    incoming.completed();
                    self.install_snapshot(now);
                }
            }
            TaskDone::Kept => {}
        }
    }

    /// NP6: the checkpoint is complete in storage; now the superblock names it, and the log begins
    /// after it. What this replica has above it stays if it follows it: anything else was never
    /// committed (PROTOCOL.md "Catching up").
    pub(in crate::replica) fn install_snapshot(&mut self, now: Now) {
        let Some(incoming) = self.incoming.as_ref().filter(|it| it.is_complete()) else { return };
        if self.install.is_some() {
            return;
        }
        let checkpoint = incoming.checkpoint();
        if !self.lacks(checkpoint) && !self.shortens_log(checkpoint) {
            return self.give_up_snapshot(now);
        }
        self.timers.disarm(Timer::Snapshot);
        self.hand_over(now);
        let base = Anchor::after(&checkpoint);
        let rebased = self.repair.rebase(base);
        let told = self.log.checksum_of(base.op_number);
        let conflicts = told.is_some_and(|checksum| checksum != base.checksum);
        let before = base.op_number.previous();
        let cut = (conflicts && rebased == Rebased::Whole).then_some(before);
        self.log.rebase(base);
        let mut id = match self.log.is_volatile() {
            true => PersistId::ZERO,
            false => self.name_snapshot(now, checkpoint, cut),
        };
        if rebased == Rebased::Dropped {
            id = self.cut_log_at_base(now);
            self.repair.drop_log(id);
        }
        if let Some(incoming) = &mut self.incoming {
            incoming.naming(id);
        }
        self.advance_commit(base.op_number);
        if self.progress.ordered < base.op_number {
            self.checkpoints.restart_at(base.op_number, 0);
            if !self.keeps_state() {
                self.progress.jump(base.op_number);
                self.out.push_back(Output::Execute(Work::Restore { checkpoint }));
            }
        }
        self.finish_snapshot(now, PersistId::ZERO);
    }

    fn name_snapshot(
        &mut self,
        now: Now,
        checkpoint: CheckpointId,
        cut: Option<OpNumber>,
    ) -> PersistId {
        let id = self.writes.next(now.monotonic);
        self.promise.name_checkpoint(checkpoint);
        let superblock = Some(self.promise.hand_over(id));
        let release = Some(checkpoint.op_number);
        let batch = WriteBatch { cut, superblock, release, ..WriteBatch::default() };
        self.persist(id, batch);
        id
    }

    /// Whether this replica works with a checkpoint that a crash could still take back: it says
    /// nothing that rests on it (D33).
    pub(in crate::replica) fn is_naming(&self) -> bool {
        let early = self.mutant(Mutant::AckBeforeSnapshot);
        !early && self.incoming.as_ref().is_some_and(Incoming::is_naming)
    }

    /// The checkpoint counts: whatever waited for it goes on.
    pub(in crate::replica) fn finish_snapshot(&mut self, now: Now, through: PersistId) {
        let Some(incoming) = self.incoming.take_if(|it| it.is_named(through)) else { return };
        let (op_number, bytes) = (incoming.checkpoint().op_number, incoming.received());
        self.out.push_back(Output::Event(Event::SnapshotInstalled { op_number, bytes }));
        self.hold(now, incoming.checkpoint());
        if let Status::Normal(Role::Backup(backup)) = &mut self.status {
            backup.ack_due = true;
        }
        self.go_on_without_log(now);
    }

    /// Entries above the log are asked for again.
    fn go_on_without_log(&mut self, now: Now) {
        self.advance_repair(now);
        self.advance_plan(now);
        if let Status::Normal(Role::Backup(backup)) = &mut self.status {
            backup.pull = None;
            self.begin_pull(now);
        }
    }
}
