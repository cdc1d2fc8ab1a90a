//! Normal operation: the primary gives places, backups append and acknowledge (VRR §4.1).

use core::time::Duration;

use bytes::Bytes;

use crate::{
    model::{
        entry::{Entry, EntryHeader, Run},
        message::{Message, Prepare, PrepareOk},
        mutants::Mutant,
        time::Now,
        types::{Checksum, HeartbeatNumber, OpNumber},
    },
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, Fatal, Output},
    },
    state::{
        status::{Backup, Primary, Role, Status},
        timers::Timer,
    },
};

impl Replica {
    /// This replica leads the view, whose log ends at its last op and is durable here.
    pub(in crate::replica) fn become_primary(&mut self, now: Now, commit_number: OpNumber) {
        let promised = self.status.promised_checkpoints();
        let op_number = self.log.op_number();
        let mut primary = Primary::new(self.membership.len(), now.monotonic, op_number);
        let committed = self.commit_number.max(commit_number);
        for header in self.log.suffix(committed, usize::MAX) {
            primary.pipeline.prepared(header.entry_bytes());
        }
        self.unbroken = true;
        self.enter_normal(now, Role::Primary(primary), commit_number);
        self.timers.arm(Timer::Heartbeat, now.monotonic + self.config.heartbeat_interval);
        self.timers.arm(Timer::CheckQuorum, now.monotonic + self.config.suspicion_timeout);
        self.try_commit();
        self.count_checkpoints(now, &promised);
        for (from, request) in self.forwards.take() {
            let _told = self.admit(now, from, request);
        }
    }

    /// This replica follows the primary of the view, whose log it holds durably.
    pub(in crate::replica) fn become_backup(&mut self, now: Now, commit_number: OpNumber) {
        let heard_at = Some(now.monotonic);
        let backup = Backup { heard_at, ack_due: true, ..Backup::default() };
        self.enter_normal(now, Role::Backup(backup), commit_number);
        self.timers.arm(Timer::Ping, now.monotonic + self.config.ping_interval);
        self.arm_primary_silent(now);
    }

    /// The log was replaced, or the state by one with everything through `executed`: a primary notes
    /// again what is in the log behind that, and who has no session any more is not answered.
    pub(in crate::replica) fn note_sessions(&mut self, executed: OpNumber) {
        if matches!(self.status, Status::Normal(Role::Primary(_))) {
            for header in self.log.suffix(executed, usize::MAX) {
                self.admitted.appended(&header);
            }
        }
        self.routes.forget_others(|client| self.admitted.get(client).is_some());
    }

    /// The only way into status normal.
    fn enter_normal(&mut self, now: Now, role: Role, commit_number: OpNumber) {
        for timer in [Timer::ViewChange, Timer::Resend, Timer::Plan, Timer::Suspicion] {
            self.timers.disarm(timer);
        }
        self.suspicions.clear();
        if !self.mutant(Mutant::DedupAtReceipt) {
            self.admitted.forget_unexecuted();
        }
        self.status = Status::Normal(role);
        self.forwards.view_changed();
        self.advance_commit(commit_number);
        self.out.push_back(Output::Event(Event::ViewStarted {
            view: self.view,
            primary: self.primary(),
            op_number: self.log.op_number(),
        }));
        if !self.forwards.is_empty() {
            self.timers.arm(Timer::Forward, now.monotonic + self.config.forward_timeout);
        }
        self.note_sessions(self.progress.applied);
    }

    /// VRR §4.1 step 3: gives the next place in the log.
    pub(in crate::replica) fn append(&mut self, now: Now, header: EntryHeader, payload: Bytes) {
        let EntryHeader { parent, view, op_number, time, group, epoch, .. } = self.next_header(now);
        let header = EntryHeader { parent, view, op_number, time, group, epoch, ..header };
        let before = self.log.bytes();
        self.log.append(Entry::new(header, payload));
        self.appended(now, before);
    }

    /// What does not depend on who asked of the entry that comes next.
    pub(in crate::replica) fn next_header(&mut self, now: Now) -> EntryHeader {
        let (time, jump) = self.clock.next(now, self.config.clock_jump_max);
        if self.clock.disbelieve(jump) {
            let by = jump.unwrap_or_default();
            self.out.push_back(Output::Event(Event::ClockJumped { by }));
        }
        let wall = crate::model::time::nanoseconds(now.wall);
        EntryHeader {
            parent: self.log.head(),
            view: self.view,
            op_number: self.log.op_number().next(),
            time: if self.mutant(Mutant::EntryTimeOfWallClock) { wall } else { time },
            group: EntryHeader::group_mark(self.group),
            epoch: self.epoch(),
            ..EntryHeader::default()
        }
    }

    /// Notes what was appended for one client, to a log that had so many `bytes` before.
    pub(in crate::replica) fn appended(&mut self, now: Now, bytes: u64) {
        self.clock.note(now, self.log.time());
        let (log, admitted) = (&self.log, &mut self.admitted);
        log.header(log.op_number()).into_iter().for_each(|last| admitted.appended(last));
        if let Status::Normal(Role::Primary(primary)) = &mut self.status {
            primary.pipeline.prepared(self.log.bytes().saturating_sub(bytes));
        }
    }

    /// VRR §4.1 step 4: a backup appends the entries that come next, and keeps those that come
    /// early while it asks for what is missing. As long as it has no room it takes none, as if the
    /// message had lost them.
    pub(in crate::replica) fn on_prepare(
        &mut self,
        now: Now,
        from: Origin,
        m: Prepare,
    ) -> Result<(), Ignored> {
        self.follow(now, from)?;
        self.heard_from_primary(now, m.heartbeat)?;
        let before = self.log.op_number();
        if let Err(no_room) = self.require_room() {
            self.commit_through(from, m.commit)?;
            let is_new = |last: &Entry| last.header.op_number > before;
            return Err(self.let_go(no_room, m.entries.last().is_some_and(is_new)));
        }
        let fits = self.log_has_room_for(m.entries.len(), m.entries.bytes());
        let in_order = fits && self.log.append_run(&m.entries, self.view);
        let gap = if in_order { false } else { self.take_entries(from, &m.entries)? };
        self.take_early(from)?;
        if self.log.op_number() > before {
            self.clock.note(now, self.log.time());
        }
        self.commit_through(from, m.commit)?;
        if gap {
            self.begin_pull(now);
        }
        Ok(())
    }

    /// Whether there is room in memory for entries that storage does not have.
    pub(in crate::replica) const fn storage_keeps_up(&self) -> bool {
        self.log.undurable_bytes() < self.config.undurable_bytes_max
    }

    /// Whether the log may have so many more entries, of so many bytes.
    pub(in crate::replica) fn log_has_room_for(&self, entries: usize, bytes: u64) -> bool {
        let ops = u64::try_from(entries).unwrap_or(u64::MAX);
        let logged = self.log.op_number().since(self.log.base().op_number);
        self.log.bytes().saturating_add(bytes) <= self.config.log_bytes_max
            && logged.saturating_add(ops) <= self.config.log_ops_max
    }

    /// Whether the log has room for an entry more, however large.
    pub(in crate::replica) fn log_has_room_for_any(&self) -> bool {
        self.log_has_room(u64::from(self.config.request_bytes_max))
    }

    /// A backup takes entries while storage keeps up, and while its log may have one more: those
    /// that a later checkpoint contains may not have been released yet.
    pub(in crate::replica) fn require_room(&self) -> Result<(), Ignored> {
        match (self.storage_keeps_up(), self.log_has_room_for(1, 0)) {
            (false, _) => Err(Ignored::StorageBehind),
            (true, false) if !self.mutant(Mutant::EndlessLog) => Err(Ignored::LogFull),
            (true, _) => Ok(()),
        }
    }

    /// Entries, new ones or not, are not taken for want of room.
    pub(in crate::replica) const fn let_go(&mut self, why: Ignored, are_new: bool) -> Ignored {
        if let Status::Normal(Role::Backup(backup)) = &mut self.status {
            backup.behind |= are_new;
        }
        why
    }

    /// Appends what comes next of `entries` and keeps what is early; whether anything is.
    fn take_entries(&mut self, from: Origin, entries: &[Entry]) -> Result<bool, Ignored> {
        let mut gap = false;
        for entry in entries {
            if entry.header.op_number <= self.log.op_number().next() {
                self.take_entry(from, entry.clone())?;
            } else {
                gap = true;
                self.keep_early(entry.clone());
            }
        }
        Ok(gap)
    }

    /// Appends an entry of this view, or checks that it is the one that is there.
    pub(in crate::replica) fn take_entry(
        &mut self,
        from: Origin,
        entry: Entry,
    ) -> Result<(), Ignored> {
        let header = entry.header;
        if let Some(ours) = self.log.checksum_of(header.op_number) {
            return match ours == header.checksum {
                true => Ok(()),
                false => Err(self.diverged(from, header.op_number, ours, header.checksum)),
            };
        }
        if header.op_number != self.log.op_number().next() || header.view > self.view {
            return Err(Ignored::Malformed);
        }
        if header.parent != self.log.head() {
            let (op_number, ours) = (self.log.op_number(), self.log.head());
            return Err(self.diverged(from, op_number, ours, header.parent));
        }
        let fits = self.log_has_room_for(1, header.entry_bytes());
        if !fits && !self.mutant(Mutant::EndlessLog) {
            return Err(self.let_go(Ignored::LogFull, true));
        }
        self.clock.replay(header.time);
        self.log.append(entry);
        Ok(())
    }

    /// Stops this replica if what it holds at `op_number`, if it holds anything, is not `theirs`.
    pub(in crate::replica) fn require_same_entry(
        &mut self,
        from: Origin,
        op_number: OpNumber,
        theirs: Checksum,
    ) -> Result<(), Ignored> {
        match self.log.checksum_of(op_number) {
            Some(ours) if ours != theirs => Err(self.diverged(from, op_number, ours, theirs)),
            Some(_) | None => Ok(()),
        }
    }

    /// Within one view all logs are prefixes of the primary's; anything else cannot be mended here.
    pub(in crate::replica) fn diverged(
        &mut self,
        from: Origin,
        op_number: OpNumber,
        ours: Checksum,
        theirs: Checksum,
    ) -> Ignored {
        let what = "another entry in the same view";
        self.fatal(Fatal::Diverged { peer: from.id, op_number, what, ours, theirs })
    }

    fn keep_early(&mut self, entry: Entry) {
        let ops_max = usize::try_from(self.config.pipeline_ops_max).unwrap_or(usize::MAX);
        let bytes_max = u64::from(self.config.pipeline_bytes_max);
        if let Status::Normal(Role::Backup(backup)) = &mut self.status {
            backup.early.keep(entry, ops_max, bytes_max);
        }
    }

    /// Appends what came early and fits now.
    pub(in crate::replica) fn take_early(&mut self, from: Origin) -> Result<(), Ignored> {
        loop {
            let next = self.log.op_number().next();
            let Status::Normal(Role::Backup(backup)) = &mut self.status else { return Ok(()) };
            let Some(entry) = backup.early.take_through(next) else { return Ok(()) };
            self.take_entry(from, entry)?;
        }
    }

    /// VRR §4.1 step 5: the primary counts cumulative acknowledgements.
    pub(in crate::replica) fn on_prepare_ok(
        &mut self,
        now: Now,
        from: Origin,
        m: &PrepareOk,
    ) -> Result<(), Ignored> {
        if let Some(standing) = m.standing {
            self.peers.stands(from.index, now.monotonic, standing);
        }
        self.require_started(now, from)?;
        self.require_same_entry(from, m.op_number, m.checksum)?;
        let op_number = m.op_number.min(self.log.op_number());
        let Status::Normal(Role::Primary(primary)) = &mut self.status else {
            return Err(Ignored::NotPrimary);
        };
        primary.echoed(from.index, m.heartbeat, now.monotonic);
        if let Some(backup) = primary.backup_mut(from.index) {
            backup.acknowledge(op_number);
        }
        self.lease_granted(from, m);
        self.view_works(m.heartbeat);
        self.told_checkpoint(now, from.index, m.checkpoint);
        self.try_commit();
        self.serve_if_heard(now);
        self.complete_round(now);
        Ok(())
    }

    /// A view whose primary is heard for more than one heartbeat is no failed one.
    pub(in crate::replica) fn view_works(&mut self, heartbeat: HeartbeatNumber) {
        if heartbeat > HeartbeatNumber(1) {
            self.failed_views = 0;
        }
    }

    /// What the messages of a primary pass: same view, from its primary, to a backup of it.
    pub(in crate::replica) fn follow(&mut self, now: Now, from: Origin) -> Result<(), Ignored> {
        if from.view > self.view {
            if from.id == self.membership.primary_of(from.view) {
                self.enter_view(now, from.view, true);
            }
            return Err(Ignored::NewerView);
        }
        self.require_started(now, from)?;
        if from.id != self.primary() {
            return Err(Ignored::NotFromPrimary);
        }
        Ok(())
    }

    /// The sender's durable view is this replica's, and the view has started here.
    pub(in crate::replica) fn require_started(
        &mut self,
        now: Now,
        from: Origin,
    ) -> Result<(), Ignored> {
        if from.view < self.view {
            self.tell_newer_view(now, from);
            return Err(Ignored::OldView);
        }
        if from.view > self.view {
            return Err(Ignored::NewerView);
        }
        let primary = self.primary();
        let was_here = self.is_incomplete() && self.view == self.promise.log_view();
        match &mut self.status {
            Status::Normal(_) => Ok(()),
            Status::ViewChange(_) if was_here => Err(Ignored::WrongStatus),
            Status::ViewChange(change) => {
                if from.id == primary && !change.started && change.plan.is_none() {
                    change.started = true;
                    change.say_due = true;
                }
                Err(Ignored::WrongStatus)
            }
            Status::Recovering(_) => Err(Ignored::WrongStatus),
            Status::Blank(_) => Err(Ignored::Blank),
        }
    }

    /// A valid sign of life of the primary: the backup's suspicion is void.
    pub(in crate::replica) fn heard_from_primary(
        &mut self,
        now: Now,
        heartbeat: HeartbeatNumber,
    ) -> Result<(), Ignored> {
        let Status::Normal(Role::Backup(backup)) = &mut self.status else {
            return Err(Ignored::NotBackup);
        };
        backup.heard_at = Some(now.monotonic);
        backup.heartbeat = backup.heartbeat.max(heartbeat);
        self.suspicions.withdraw();
        self.timers.disarm(Timer::Suspicion);
        self.arm_primary_silent(now);
        Ok(())
    }

    /// Sends each backup what it has not been sent, as one message.
    pub(in crate::replica) fn send_prepares(&mut self) {
        self.log.close();
        let op_number = self.log.op_number();
        let Status::Normal(Role::Primary(primary)) = &self.status else { return };
        if primary.has_sent(self.index, op_number) {
            return;
        }
        let commit = self.committed();
        let bytes_max = u64::from(self.config.message_bytes_max.saturating_sub(4096));
        let mut shared: Option<(OpNumber, Run)> = None;
        for index in self.membership.indices() {
            let Some(id) = self.other_at(index) else { continue };
            loop {
                let lost = self.peers.is_lost(index);
                let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
                let heartbeat = primary.heartbeat;
                let Some(backup) = primary.backup_mut(index) else { break };
                let sent = backup.sent;
                if sent >= op_number {
                    break;
                }
                if lost {
                    backup.sent = op_number;
                    break;
                }
                let entries = match &shared {
                    Some((from, entries)) if *from == sent => entries.clone(),
                    Some(_) | None => self.log.entries(sent.next(), op_number, bytes_max),
                };
                backup.sent = entries.last().map_or(op_number, |last| last.header.op_number);
                if entries.is_empty() {
                    break;
                }
                shared = Some((sent, entries.clone()));
                self.send(id, Message::Prepare(Prepare { entries, commit, heartbeat }));
            }
        }
    }

    /// Push repair: sends a backup that does not answer the first of what it lacks again. A backup
    /// that knows what it lacks asks for it; this helps the one that lost the last message.
    pub(in crate::replica) fn send_again(&mut self) {
        let (op_number, commit) = (self.log.op_number(), self.committed());
        let bytes_max = u64::from(self.config.transfer_bytes_max);
        for (id, index) in self.others() {
            let lost = self.peers.is_lost(index);
            let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
            let (heartbeat, serving) = (primary.heartbeat, primary.serving);
            let Some(backup) = primary.backup_mut(index) else { continue };
            if !backup.is_overdue() || lost || !serving {
                continue;
            }
            let entries = self.log.entries(backup.acked.next(), op_number, bytes_max);
            if !entries.is_empty() {
                self.send(id, Message::Prepare(Prepare { entries, commit, heartbeat }));
            }
        }
    }

    /// Acknowledges what is durable, if there is news or the primary asked.
    pub(in crate::replica) fn send_prepare_ok(&mut self, now: Now) {
        if self.promise.view() != self.view
            || self.promise.log_view() != self.view
            || self.is_naming()
        {
            return;
        }
        let op_number = match self.mutant(Mutant::AckBeforeSync) {
            false => self.log.durable_op(),
            true => self.log.op_number(),
        };
        let (heartbeat, answers) = {
            let Status::Normal(Role::Backup(backup)) = &mut self.status else { return };
            let answers = backup.heartbeat > backup.answered;
            if op_number <= backup.acked && !answers && !backup.ack_due {
                return;
            }
            backup.acked = backup.acked.max(op_number);
            backup.answered = backup.heartbeat;
            backup.ack_due = false;
            (backup.heartbeat, answers)
        };
        let message = PrepareOk {
            op_number,
            checksum: self.log.checksum_of(op_number).unwrap_or(Checksum::ZERO),
            heartbeat,
            applied: self.progress.applied,
            checkpoint: self.checkpoints.latest(),
            standing: answers.then(|| self.standing(now)),
            lease: if answers { self.grant(now) } else { Duration::ZERO },
        };
        self.send(self.primary(), Message::PrepareOk(message));
        if answers {
            self.ping_with_answer(now);
        }
    }
}
