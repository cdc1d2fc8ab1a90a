//! Putting a log together and putting it in place: nothing is dropped before its successor is
//! durable (PROTOCOL.md, NP4).

use crate::{
    model::{
        durable::Durability,
        entries::{GetEntries, GetHeaders, Headers, Wanted},
        message::Message,
        mutants::Mutant,
        time::Now,
        types::{Checksum, OpNumber, PersistId, ReplicaId, RequestId},
    },
    ports::storage::{Anchor, WriteBatch},
    replica::{Replica, ignored::Ignored, io::Fatal},
    state::{
        plan::{Need, Plan, Strangers},
        status::{Genesis, Install, Status},
        timers::Timer,
    },
};

/// Entries asked for in one question; what does not fit into the answer is asked for again.
const QUESTION_ENTRIES_MAX: usize = 1024;

impl Replica {
    /// Does the next step of the plan, if there is one and nothing of it is under way.
    pub(in crate::replica) fn advance_plan(&mut self, now: Now) {
        if self.install.is_some() || self.incoming.is_some() {
            return;
        }
        let Some(Some(plan)) = self.status.plan_mut() else { return };
        if plan.target().op_number < self.log.base().op_number {
            // A checkpoint that came meanwhile contains more than the log that was told of. The
            // next answer tells of a later one.
            self.drop_plan();
            return;
        }
        let Some(Some(plan)) = self.status.plan_mut() else { return };
        if plan.question().is_some() {
            return;
        }
        let source = plan.source();
        match plan.need(&self.log, QUESTION_ENTRIES_MAX) {
            Err(Strangers { theirs }) => {
                let base = self.log.base();
                self.contradiction(source, base.op_number, base.checksum, theirs);
            }
            Ok(Need::Headers(anchor)) => self.ask_headers(now, anchor),
            Ok(Need::Entries(wanted)) => self.ask_entries(now, wanted),
            Ok(Need::Nothing { after }) if after < self.commit_number => {
                let op_number = after.next();
                let ours = self.log.checksum_of(op_number).unwrap_or(Checksum::ZERO);
                self.contradiction(source, op_number, ours, Checksum::ZERO);
            }
            Ok(Need::Nothing { after }) => {
                let blank = matches!(self.status, Status::Blank(_));
                let promised = self.promise.view() >= self.view || blank;
                if promised || self.mutant(Mutant::LogBeforePromise) {
                    self.begin_install(now, after);
                }
            }
        }
    }

    fn drop_plan(&mut self) {
        if let Some(plan) = self.status.plan_mut() {
            *plan = None;
        }
        self.timers.disarm(Timer::Plan);
    }

    fn contradiction(
        &mut self,
        peer: ReplicaId,
        op_number: OpNumber,
        ours: Checksum,
        theirs: Checksum,
    ) {
        let what = "another history below the commit number";
        self.fatal(Fatal::Diverged { peer, op_number, what, ours, theirs });
    }

    fn ask_headers(&mut self, now: Now, anchor: Anchor) {
        let count = u64::from(self.config.transfer_headers_max);
        let from = OpNumber(anchor.op_number.0.saturating_sub(count - 1).max(1));
        let request = self.next_question();
        let message = Message::GetHeaders(GetHeaders {
            request,
            from,
            through: anchor.op_number,
            checksum: anchor.checksum,
        });
        self.ask_for_plan(now, request, message);
    }

    fn ask_entries(&mut self, now: Now, wanted: Vec<(OpNumber, Checksum)>) {
        let request = self.next_question();
        let message = Message::GetEntries(GetEntries {
            request,
            wanted: Wanted::Exact(wanted),
            bytes_max: self.config.transfer_bytes_max,
        });
        self.ask_for_plan(now, request, message);
    }

    /// Asks the plan's source first, and after that everybody in turn.
    fn ask_for_plan(&mut self, now: Now, request: RequestId, message: Message) {
        let others = self.others();
        let Some(Some(plan)) = self.status.plan_mut() else { return };
        let missed = plan.asked(request);
        let turn = usize::try_from(missed).unwrap_or(0).checked_rem(others.len()).unwrap_or(0);
        let to = match others.get(turn) {
            Some((id, _)) if missed > 0 || plan.source() == self.me => *id,
            Some(_) | None => plan.source(),
        };
        self.timers.arm(Timer::Plan, now.monotonic + self.config.retry_interval);
        self.send(to, message);
    }

    /// Nobody answered: the question is asked again, of somebody else.
    pub(in crate::replica) fn on_plan_timer(&mut self, now: Now) {
        if let Some(Some(plan)) = self.status.plan_mut() {
            plan.give_up_question();
            self.advance_plan(now);
        }
    }

    /// The plan whose open question is `request`.
    pub(in crate::replica) fn plan_asking(&mut self, request: RequestId) -> Option<&mut Plan> {
        self.status.plan_mut()?.as_mut().filter(|plan| plan.question() == Some(request))
    }

    /// Headers below those that are known.
    pub(in crate::replica) fn on_headers(&mut self, now: Now, m: &Headers) -> Result<(), Ignored> {
        if self.repair.question() == Some(m.request) {
            return self.on_repair_headers(now, &m.headers);
        }
        let plan = self.plan_asking(m.request).ok_or(Ignored::Unasked)?;
        if m.headers.is_empty() {
            return Err(Ignored::NotHeld);
        }
        if !plan.add_headers(&m.headers) {
            return Err(Ignored::Malformed);
        }
        plan.answered();
        self.advance_plan(now);
        Ok(())
    }

    /// NP4 (b) and (c): the new suffix and the superblock that makes it count, in one batch. The
    /// promise, (a), is durable already. Where storage has no log, the superblock is all there is
    /// to write; without a disk nothing is.
    fn begin_install(&mut self, now: Now, after: OpNumber) {
        let promised = !self.mutant(Mutant::LogBeforePromise);
        if promised || self.log.handed() < self.log.op_number() {
            self.hand_over(now);
        }
        let rebuilt = match &self.status {
            Status::Blank(Genesis { rebuild: Some(rebuild), .. }) => Some(rebuild.to_rebuilt()),
            Status::Blank(_)
            | Status::Normal(_)
            | Status::ViewChange(_)
            | Status::Recovering(_) => None,
        };
        let Some(plan) = self.status.plan_mut().and_then(Option::take) else { return };
        let id = match self.is_diskless() {
            true => PersistId::ZERO,
            false => self.writes.next(now.monotonic),
        };
        let commit_number = plan.commit_number();
        let entries = plan.into_entries(after);
        let view = rebuilt.as_ref().map_or(self.view, |rebuilt| rebuilt.view);
        let superblock = match rebuilt {
            Some(rebuilt) => self.promise.rebuild(rebuilt, id),
            None if promised => self.promise.install(view, id),
            None => self.promise.install_unpromised(view, id),
        };
        let kept = self.log.is_volatile();
        let batch = WriteBatch {
            cut: ((after < self.log.op_number() || self.is_incomplete()) && !kept).then_some(after),
            superblock: Some(superblock),
            ..WriteBatch::of(if kept { Vec::new() } else { entries.clone() })
        };
        if !self.is_diskless() {
            self.persist(id, batch);
        }
        self.install = Some(Install { id, view, commit_number, after, entries });
        self.timers.disarm(Timer::Plan);
    }

    fn is_diskless(&self) -> bool {
        self.promise.wanted().durability == Durability::Diskless
    }

    /// Writes are done: durability is a fact in every view. What waited for it goes on.
    pub(in crate::replica) fn on_persisted(&mut self, now: Now, through: PersistId) {
        if !self.writes.done(now.monotonic, through) {
            return;
        }
        self.log.persisted(through);
        self.promise.persisted(through);
        self.go_on(now, through);
    }

    /// Without a disk, what is wanted counts at once: what waited for it goes on.
    pub(in crate::replica) fn settle(&mut self, now: Now) -> bool {
        let mut settled = false;
        while self.promise.take_settled() {
            self.go_on(now, PersistId::ZERO);
            settled = true;
        }
        settled
    }

    fn go_on(&mut self, now: Now, through: PersistId) {
        if let Some(install) = self.install.take_if(|install| install.id <= through) {
            self.finish_install(now, install);
        }
        self.finish_snapshot(now, through);
        self.install_snapshot(now);
        self.on_checkpoint_named(now);
        self.join_group_if_certified(now);
        self.stop_if_left();
        self.try_commit();
        self.advance_plan(now);
        self.on_repair_persisted(now, through);
        self.pull_what_was_let_go(now);
    }

    /// The new log is durable: now it is this replica's log, whatever view it is in. Only if the
    /// view is still the same does it start here.
    fn finish_install(&mut self, now: Now, install: Install) {
        self.log.replace_suffix(install.after, install.entries);
        self.repair.replaced_above(install.after);
        self.clock.replay(self.log.time());
        self.unbroken = false;
        match &self.status {
            Status::Blank(_) => self.finish_rebuild(now, install.view),
            Status::Recovering(_) => self.end_recovery(),
            Status::Normal(_) | Status::ViewChange(_) => {}
        }
        if install.view != self.view || !matches!(self.status, Status::ViewChange(_)) {
            return;
        }
        if self.is_primary() {
            self.start_view(now, install.commit_number);
        } else {
            self.become_backup(now, install.commit_number);
        }
    }
}
