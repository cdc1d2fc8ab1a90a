//! The view change: promises, the choice of the latest log, and its start (VRR §4.2).
//!
//! ```text
//! replica 1 (next primary)         replica 2
//!    | <---- StartViewChange(v) ------ |    non-binding, both suspect
//!    | ----- StartViewChange(v) -----> |
//!   promise v+1 durable               promise v+1 durable
//!    | <---- DoViewChange(v+1) ------- |    binding: log view, last headers
//!   chooses the latest log, fetches bodies, makes it durable
//!    | ----- StartView(v+1) ---------> |    last headers
//!    |                                fetches bodies, makes them durable
//!    | <---- PrepareOk --------------- |
//! ```

use crate::{
    model::{
        certificate::CrashVector,
        durable::Trust,
        message::{DoViewChange, GetView, Message, StartView, StatusKind, Suspicion},
        mutants::Mutant,
        time::Now,
        types::{Checksum, Nonce, OpNumber, ReplicaId, ReplicaIndex, View},
    },
    ports::storage::{Anchor, WriteBatch},
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, Fatal, HandoffError, Output},
    },
    state::{
        plan::Plan,
        status::{Recovering, Role, Status, ViewChange},
        timers::Timer,
        votes::{Choice, Vote},
    },
};

impl Replica {
    /// The only writer of the view: promises to `view`, and replaces whole what belonged to the
    /// old one. With `started`, the view is known to have started and is asked for; otherwise this
    /// replica promises and contributes its log.
    ///
    /// # Panics
    /// If `view` is not higher than the current one.
    pub(in crate::replica) fn enter_view(&mut self, now: Now, view: View, started: bool) {
        assert!(view > self.view, "views never decrease: {view} follows {}", self.view);
        self.interrupt_reads();
        self.end_handoff(HandoffError::Interrupted);
        self.out.push_back(Output::Event(Event::ViewChangeBegan { from: self.view, to: view }));
        self.view = view;
        self.promise.promise(view);
        self.break_promise(now, started);
        let queued = self.take_queued();
        let nonce = self.prng.nonce();
        self.status = match &self.status {
            Status::Recovering(_) => Status::Recovering(Recovering {
                nonce,
                ask_due: true,
                promised: !started,
                promise_due: true,
                ..Recovering::default()
            }),
            Status::Blank(_) | Status::Normal(_) | Status::ViewChange(_) => {
                let change = ViewChange { started, say_due: true, nonce, ..ViewChange::default() };
                Status::ViewChange(change)
            }
        };
        self.suspicions.clear();
        self.peers.expect_no_heartbeat();
        self.failed_views = self.failed_views.saturating_add(1);
        for timer in [
            Timer::Heartbeat,
            Timer::CheckQuorum,
            Timer::PrimarySilent,
            Timer::Suspicion,
            Timer::Resend,
            Timer::Plan,
            Timer::Pull,
        ] {
            self.timers.disarm(timer);
        }
        self.arm_view_change(now);
        self.timers.arm(Timer::Ping, now.monotonic + self.config.ping_interval);
        for (from, request) in queued {
            let _told = self.admit(now, from, request);
        }
    }

    /// What mutants do when a view is entered: they take the promise for durable without writing
    /// it, move the log view ahead of the log, or cut the log.
    fn break_promise(&mut self, now: Now, started: bool) {
        if self.mutant(Mutant::PromiseAfterViewChange) {
            let id = self.writes.next(now.monotonic);
            self.promise.hand_over(id);
            self.promise.persisted(id);
        }
        if started && self.mutant(Mutant::LogViewBeforeLog) {
            self.promise.misplace_log_view(self.view);
        }
        let cuts = self.mutant(Mutant::TruncateOnHearsay) && self.install.is_none();
        if started && cuts && self.commit_number < self.log.op_number() {
            self.hand_over(now);
            let id = self.writes.next(now.monotonic);
            let batch = WriteBatch { cut: Some(self.commit_number), ..WriteBatch::default() };
            self.persist(id, batch);
            self.log.replace_suffix(self.commit_number, Vec::new());
        }
    }

    /// A vote as the next primary weighs it.
    fn weigh(&self, vote: DoViewChange) -> DoViewChange {
        let log_view = match self.mutant(Mutant::LongestLogWins) {
            false => vote.log_view,
            true => View::ZERO,
        };
        let trust = match self.mutant(Mutant::LostVotesCount) {
            false => vote.trust,
            true => Trust::Intact,
        };
        DoViewChange { log_view, trust, ..vote }
    }

    /// The lowest view above this one whose primary is believed to hear a quorum and to have a
    /// log that is not far behind; the next one whose primary is not known to be gone otherwise.
    pub(in crate::replica) fn next_target(&self, now: Now) -> View {
        let eligible = self.next_views().find(|view| self.is_eligible(*view, now));
        let present = || {
            self.next_views().find(|view| {
                let id = self.membership.primary_of(*view);
                let index = self.membership.index_of(id);
                index.is_some_and(|index| {
                    !self.peers.is_lost(index) && !self.is_without_log(index, now)
                })
            })
        };
        eligible.or_else(present).unwrap_or_else(|| self.view.next())
    }

    /// The views above this one until each member has led one.
    pub(in crate::replica) fn next_views(&self) -> impl Iterator<Item = View> + '_ {
        (1..=u64::from(self.membership.len())).map(|step| self.view.plus(step))
    }

    /// Whether the voter at `index` is known to lack its log, so that it cannot lead.
    fn is_without_log(&self, index: ReplicaIndex, now: Now) -> bool {
        if index == self.index {
            return matches!(self.status, Status::Recovering(_));
        }
        self.peers.standing(index, now.monotonic).is_some_and(|standing| {
            matches!(standing.status, StatusKind::Recovering | StatusKind::Blank)
        })
    }

    /// Whether the primary of `view` is believed to hear a quorum and to have a log that is not far
    /// behind.
    pub(in crate::replica) fn is_eligible(&self, view: View, now: Now) -> bool {
        let id = self.membership.primary_of(view);
        let quorum = self.membership.quorum();
        let lag_max = u64::from(self.config.pipeline_ops_max);
        let own = (self.promise.log_view(), self.log.op_number());
        let (_, best) = self.peers.best(now.monotonic).map_or(own, |best| best.max(own));
        if self.membership.index_of(id).is_none_or(|index| self.is_without_log(index, now)) {
            return false;
        }
        if id == self.me {
            if self.is_incomplete() {
                return false;
            }
            let heard = self.peers.heard_set(self.index, now.monotonic);
            return heard.len() >= quorum && best.since(self.log.op_number()) <= lag_max;
        }
        let Some(index) = self.membership.index_of(id) else { return false };
        self.peers.is_quorum_connected(index, quorum, now.monotonic)
            && self.peers.standing(index, now.monotonic).is_some_and(|standing| {
                standing.status != StatusKind::Recovering
                    && best.since(standing.op_number) <= lag_max
            })
    }

    /// Says what is due: the promise, once it is durable, or the question for a started view.
    pub(in crate::replica) fn say_view_change(&mut self, now: Now) {
        let primary = self.primary();
        let durable = self.promise.view() >= self.view && !self.is_naming();
        let incomplete = self.is_incomplete();
        let silent = self.silent_until(now);
        let (started, first, nonce) = {
            let Status::ViewChange(change) = &mut self.status else { return };
            if !change.say_due || (!change.started && (!durable || incomplete)) {
                return;
            }
            if let Some(until) = silent.filter(|_| !change.started) {
                self.timers.arm(Timer::Resend, until);
                return;
            }
            change.say_due = false;
            change.said = change.said.saturating_add(1);
            (change.started, change.said == 1, change.nonce)
        };
        self.arm_resend(now);
        if started {
            let question = Message::GetView(GetView { view: self.view, nonce });
            if first && primary != self.me {
                self.send(primary, question);
            } else {
                self.broadcast(&question);
            }
            return;
        }
        let promise = self.do_view_change();
        if primary == self.me {
            let vote = Vote {
                incarnation: self.promise.incarnation(),
                crash_vector: self.promise.crash_vector().clone(),
                promise: self.weigh(promise.clone()),
            };
            if let Status::ViewChange(change) = &mut self.status {
                change.votes.insert(self.me, vote);
            }
        }
        self.broadcast(&Message::DoViewChange(promise));
        self.try_start(now);
    }

    fn arm_resend(&mut self, now: Now) {
        let Status::ViewChange(change) = &self.status else { return };
        let factor = change.said.clamp(1, 8);
        let pause = self.prng.jitter(self.config.retry_interval.saturating_mul(factor), 10);
        self.timers.arm(Timer::Resend, now.monotonic + pause);
    }

    pub(in crate::replica) fn on_resend_timer(&mut self, now: Now) {
        match &mut self.status {
            Status::ViewChange(change) => {
                change.say_due = true;
                self.arm_resend(now);
            }
            Status::Recovering(_) => self.ask_recovery_again(),
            Status::Blank(_) => self.ask_rebuild_again(now),
            Status::Normal(_) => {}
        }
    }

    /// VRR §4.2 step 2: the promise, with headers in the place of the log.
    pub(in crate::replica) fn do_view_change(&self) -> DoViewChange {
        let durable = self.promise.durable();
        let last = self.log.header(self.log.op_number());
        let lost = durable.trust == Trust::Lost && self.mutant(Mutant::LogViewOfLostLog);
        let log_view = match lost || self.mutant(Mutant::LogViewOfLastEntry) {
            false => durable.log_view,
            true => last.map_or(View::ZERO, |header| header.view),
        };
        DoViewChange {
            view: self.view,
            log_view,
            op_number: self.log.op_number(),
            head: self.log.head(),
            commit_number: self.commit_number,
            checkpoint: self.checkpoints.held(),
            suffix: self.log.suffix(self.commit_number, self.suffix_max()),
            trust: match self.mutant(Mutant::LostVotesIntact) {
                false => durable.trust,
                true => Trust::Intact,
            },
            unbroken: self.is_unbroken(),
        }
    }

    /// Whether this replica started its log view as the primary, and has been up since: then it
    /// holds whatever it prepared there.
    fn is_unbroken(&self) -> bool {
        let durable = self.promise.durable();
        let led = self.membership.primary_of(durable.log_view) == self.me;
        let pretends = led && self.mutant(Mutant::RestartedPrimaryUnbroken);
        (self.unbroken || pretends) && durable.trust == Trust::Intact
    }

    fn suffix_max(&self) -> usize {
        usize::try_from(self.config.pipeline_ops_max).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// VRR §4.2 step 3: a promise arrives. It binds its sender, so a lower view is left at once.
    pub(in crate::replica) fn on_do_view_change(
        &mut self,
        now: Now,
        from: Origin,
        crash_vector: CrashVector,
        m: DoViewChange,
    ) -> Result<(), Ignored> {
        let target = Anchor { op_number: m.op_number, checksum: m.head };
        if Plan::new(from.id, target, m.commit_number, &m.suffix).is_none() {
            return Err(Ignored::Malformed);
        }
        if m.view > self.view {
            self.enter_view(now, m.view, false);
        }
        if m.view < self.view {
            self.answer_lower_view(now, from);
            return Err(Ignored::OldView);
        }
        let leads = self.is_primary();
        let m = self.weigh(m);
        match &mut self.status {
            Status::Normal(Role::Primary(_)) => {
                self.send_start_view(from.id, None);
                Err(Ignored::Duplicate)
            }
            Status::ViewChange(change) if leads => {
                let vote = Vote { incarnation: from.incarnation, crash_vector, promise: m };
                change.votes.insert(from.id, vote);
                self.try_start(now);
                Ok(())
            }
            Status::ViewChange(_) | Status::Recovering(_) => Ok(()),
            Status::Normal(Role::Backup(_)) => Err(Ignored::NotPrimary),
            Status::Blank(_) => Err(Ignored::Blank),
        }
    }

    fn answer_lower_view(&mut self, now: Now, from: Origin) {
        if matches!(self.status, Status::Normal(Role::Primary(_))) {
            self.send_start_view(from.id, None);
        } else {
            self.tell_newer_view(now, from);
        }
    }

    /// The next primary starts to put the new log together as soon as a quorum has promised.
    fn try_start(&mut self, now: Now) {
        let (me, own) = (self.me, self.promise.wanted().crash_vector.clone());
        let prunes = !self.mutant(Mutant::VotesNotPruned) && !self.mutant(Mutant::NoCrashVector);
        let own_op = self.log.op_number();
        let Status::ViewChange(change) = &mut self.status else { return };
        if change.plan.is_some() || change.votes.of(me).is_none() {
            return;
        }
        if prunes {
            let _asked_again_by_resend = change.votes.prune(&own);
        }
        let chosen = change.votes.choose_log(&self.membership);
        let (best, commit_number) = match chosen {
            Choice::Wait => return,
            Choice::Contradiction { peer, commit_number } => {
                self.fatal(Fatal::Diverged {
                    peer,
                    op_number: commit_number,
                    what: "committed beyond the latest log",
                    ours: self.log.checksum_of(commit_number).unwrap_or(Checksum::ZERO),
                    theirs: Checksum::ZERO,
                });
                return;
            }
            Choice::Adopt { from, commit_number } => (from, commit_number),
        };
        let Some(vote) = change.votes.of(best) else { return };
        let target = Anchor { op_number: vote.op_number, checksum: vote.head };
        change.plan = Plan::new(best, target, commit_number, &vote.suffix);
        let lag_max = u64::from(self.config.pipeline_ops_max);
        let behind = target.op_number.since(own_op) > lag_max && !change.forfeited;
        change.forfeited |= behind;
        if behind {
            self.suspect(now, Suspicion::Behind);
        }
        self.advance_plan(now);
    }

    /// VRR §4.2 step 4: the log of the new view is installed and durable at its primary.
    pub(in crate::replica) fn start_view(&mut self, now: Now, commit_number: OpNumber) {
        self.become_primary(now, commit_number);
        for (id, _) in self.others() {
            self.announce_view(id, None);
        }
    }

    /// Tells one who may have missed it that the view has started.
    pub(in crate::replica) fn send_start_view(&mut self, to: ReplicaId, nonce: Option<Nonce>) {
        if !self.mutant(Mutant::NoStartRepair) {
            self.announce_view(to, nonce);
        }
    }

    fn announce_view(&mut self, to: ReplicaId, nonce: Option<Nonce>) {
        let message = self.start_view_message(nonce);
        self.send(to, Message::StartView(message));
    }

    /// The log of the view that this replica leads.
    pub(in crate::replica) fn start_view_message(&self, nonce: Option<Nonce>) -> StartView {
        StartView {
            view: self.view,
            op_number: self.log.op_number(),
            head: self.log.head(),
            commit_number: self.commit_number,
            checkpoint: self.checkpoints.held(),
            suffix: self.log.suffix(self.commit_number, self.suffix_max()),
            nonce,
        }
    }

    /// VRR §4.2 step 5: a backup puts the log of the view together; its own stays until then.
    pub(in crate::replica) fn on_start_view(
        &mut self,
        now: Now,
        from: Origin,
        m: &StartView,
    ) -> Result<(), Ignored> {
        if from.id != self.membership.primary_of(m.view) {
            return Err(Ignored::NotFromPrimary);
        }
        if m.view < self.view && !self.mutant(Mutant::LowerStartAccepted) {
            self.tell_newer_view(now, from);
            return Err(Ignored::OldView);
        }
        self.require_later_start(m)?;
        self.adopt_start(now, from, m)
    }

    /// The primary of a started view tells its log to whoever asks.
    pub(in crate::replica) fn on_get_view(
        &mut self,
        from: Origin,
        m: &GetView,
    ) -> Result<(), Ignored> {
        if m.view > self.view {
            return Err(Ignored::NewerView);
        }
        match &self.status {
            Status::Normal(Role::Primary(_)) => {
                self.send_start_view(from.id, Some(m.nonce));
                Ok(())
            }
            Status::Normal(Role::Backup(_)) => Err(Ignored::NotPrimary),
            Status::ViewChange(_) | Status::Recovering(_) => Err(Ignored::WrongStatus),
            Status::Blank(_) => Err(Ignored::Blank),
        }
    }
}
