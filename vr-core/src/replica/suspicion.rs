//! Non-binding votes to leave a view: a false alarm costs a message, never a view (VRR §4.2).

use crate::{
    model::{
        message::{Message, StartViewChange, Suspicion},
        mutants::Mutant,
        time::Now,
        types::ReplicaId,
    },
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, Output},
    },
    state::{
        incoming::Incoming,
        plan::Plan,
        status::{Role, Status},
        timers::Timer,
    },
};

impl Replica {
    /// The suspicion timeout, stretched by failed view changes and jittered.
    fn suspicion_timeout(&mut self) -> core::time::Duration {
        let factor = 2_u32.saturating_pow(self.failed_views.saturating_sub(1));
        let factor = factor.clamp(1, self.config.suspicion_backoff_max);
        let percent = self.config.suspicion_jitter_percent;
        self.prng.jitter(self.config.suspicion_timeout.saturating_mul(factor), percent)
    }

    /// Lets the primary be silent for one suspicion timeout from now.
    pub(in crate::replica) fn arm_primary_silent(&mut self, now: Now) {
        let timeout = self.suspicion_timeout();
        self.timers.arm(Timer::PrimarySilent, now.monotonic + timeout);
    }

    /// Gives the view change twice the suspicion timeout from now.
    pub(in crate::replica) fn arm_view_change(&mut self, now: Now) {
        let timeout = self.suspicion_timeout().saturating_mul(2);
        self.timers.arm(Timer::ViewChange, now.monotonic + timeout);
    }

    pub(in crate::replica) fn on_primary_silent_timer(&mut self, now: Now) {
        if let Status::Normal(Role::Backup(backup)) = &mut self.status {
            backup.heard_at = None;
            self.suspect(now, Suspicion::PrimarySilent);
        }
    }

    pub(in crate::replica) fn on_view_change_timer(&mut self, now: Now) {
        let reason = match &self.status {
            Status::ViewChange(_) => Suspicion::ViewChangeStuck,
            Status::Recovering(_) => Suspicion::Recovering,
            Status::Blank(_) | Status::Normal(_) => return,
        };
        self.arm_view_change(now);
        if self.log_is_arriving(now) {
            self.suspicions.withdraw();
            self.timers.disarm(Timer::Suspicion);
        } else {
            self.suspect(now, reason);
        }
    }

    /// Whether the log of a view whose primary is heard came closer since this was asked last.
    ///
    /// Leaving such a view would begin the same transfer again, and never end if it takes longer
    /// than the longest timeout.
    fn log_is_arriving(&mut self, now: Now) -> bool {
        let primary = self.membership.index_of(self.primary());
        let heard = self.peers.heard_set(self.index, now.monotonic);
        let fetched = self.incoming.as_mut().is_some_and(Incoming::take_progress);
        let Some(plan) = self.status.plan_mut() else { return false };
        let closer = plan.as_mut().is_some_and(Plan::take_progress) || fetched;
        closer && primary.is_some_and(|primary| heard.contains(primary))
    }

    /// Nobody who is heard holds what the log of this view needs: whoever had it is gone, and what
    /// is left of the group does better in a view of its own, whose log it can put together.
    pub(in crate::replica) fn suspect_unobtainable(&mut self, now: Now) {
        let heard = self.peers.heard_set(self.index, now.monotonic);
        let Status::ViewChange(change) = &self.status else { return };
        let lacking = change.plan.as_ref().map(Plan::lacking).unwrap_or_default();
        let others = self.others();
        let mut present = others.iter().filter(|(_, index)| heard.contains(*index));
        let is_quorum = heard.len() >= self.membership.quorum();
        let nobody_holds_it = present.all(|(_, index)| lacking.contains(*index));
        if is_quorum && nobody_holds_it && self.suspicions.own().is_none() {
            self.suspect(now, Suspicion::ViewChangeStuck);
        }
    }

    /// The connection of a replica's process closed. If it led the view, or should lead the next
    /// one, that counts as this replica's own suspicion.
    pub(in crate::replica) fn suspect_lost(&mut self, now: Now, lost: ReplicaId) {
        if lost != self.primary() {
            return;
        }
        match &mut self.status {
            Status::Normal(Role::Backup(backup)) => {
                backup.heard_at = None;
                self.suspect(now, Suspicion::PrimaryLost);
            }
            Status::ViewChange(_) | Status::Recovering(_) => {
                self.suspect(now, Suspicion::PrimaryLost);
            }
            Status::Blank(_) | Status::Normal(Role::Primary(_)) => {}
        }
    }

    /// Votes to leave the view, and says so until the vote is withdrawn or the view left.
    pub(in crate::replica) fn suspect(&mut self, now: Now, reason: Suspicion) {
        if self.suspicions.vote(reason) {
            let event = Event::Suspected { view: self.view, reason };
            self.out.push_back(Output::Event(event));
        }
        self.say_suspicion(now, reason);
        self.leave_if_quorum(now);
    }

    fn say_suspicion(&mut self, now: Now, reason: Suspicion) {
        let standing = self.standing(now);
        let vote = StartViewChange { view: self.view, reason, standing };
        self.broadcast(&Message::StartViewChange(vote));
        let factor = self.suspicions.repeat().min(4);
        let pause = self.prng.jitter(self.config.heartbeat_interval.saturating_mul(factor), 10);
        self.timers.arm(Timer::Suspicion, now.monotonic + pause);
    }

    pub(in crate::replica) fn on_suspicion_timer(&mut self, now: Now) {
        if let Some(reason) = self.suspicions.own() {
            self.say_suspicion(now, reason);
            self.leave_if_quorum(now);
        }
    }

    /// Counts another replica's vote; joins it unless the primary was heard just now.
    pub(in crate::replica) fn on_start_view_change(
        &mut self,
        now: Now,
        from: Origin,
        m: &StartViewChange,
    ) -> Result<(), Ignored> {
        self.peers.stands(from.index, now.monotonic, m.standing);
        self.synchronise_views(now, from, m.standing);
        if m.view < self.view {
            self.tell_newer_view(now, from);
            return Err(Ignored::OldView);
        }
        if m.view > self.view {
            return Err(Ignored::NewerView);
        }
        self.suspicions.heard(from.index, now.monotonic);
        let recent = self.config.heartbeat_interval;
        let joins = match &self.status {
            Status::Normal(Role::Backup(backup)) => {
                backup.heard_at.is_none_or(|at| now.monotonic.since(at) > recent)
            }
            Status::ViewChange(_) => m.reason == Suspicion::Behind,
            Status::Normal(Role::Primary(_)) | Status::Blank(_) | Status::Recovering(_) => false,
        };
        if joins && self.suspicions.own().is_none() {
            self.suspect(now, m.reason);
        }
        self.leave_if_quorum(now);
        Ok(())
    }

    /// A quorum wants to leave: this replica need not be part of it.
    fn leave_if_quorum(&mut self, now: Now) {
        let window = self.config.suspicion_timeout.saturating_mul(2);
        let votes = self.suspicions.tally(self.index, now.monotonic, window);
        if votes.len() >= self.membership.quorum() || self.mutant(Mutant::BindingSuspicion) {
            let target = self.next_target(now);
            self.enter_view(now, target, false);
        }
    }
}
