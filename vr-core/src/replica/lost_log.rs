//! A log that is lost while its promises are not: the group gives it back (1988 section 4.2; the
//! recovery of VRR §4.3 with the view number on disk).
//!
//! ```text
//! restarted replica                primary                     another backup
//!    | -- Recovery(nonce) ----------> |  ------------------------> |
//!    | <- RecoveryResponse, log ----- |                            |   R1: one answer suffices
//!
//!    | <- StartView(u > log view) --- |                                R2: a later view has started
//!
//!    | <- DoViewChange(w) ----------------------------------------- |
//!   promise w durable
//!    | -- DoViewChange(w, Lost) ------------------------------------> R3: a vote that only counts
//!                                                                      under the rule of 1988
//! ```

use crate::{
    model::{
        certificate::CrashVector,
        message::{Message, Recovery, RecoveryResponse, StartView, Suspicion},
        mutants::Mutant,
        time::Now,
        types::View,
    },
    ports::storage::Anchor,
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, Output},
    },
    state::{
        plan::Plan,
        status::{Recovering, Role, Status, ViewChange},
        timers::Timer,
    },
};

impl Replica {
    /// The log is gone; view and log view are what the superblock says.
    pub(in crate::replica) fn begin_recovery(&mut self, now: Now) {
        let event = Event::RecoveryBegan { view: self.view, log_view: self.promise.log_view() };
        self.out.push_back(Output::Event(event));
        self.status = Status::Recovering(Recovering {
            nonce: self.prng.nonce(),
            ask_due: true,
            primary_restarted: self.is_primary() && self.promise.log_view() == self.view,
            ..Recovering::default()
        });
        self.arm_view_change(now);
        self.timers.arm(Timer::Ping, now.monotonic + self.config.ping_interval);
    }

    /// VRR §4.3 step 1: asks everybody; and says the promise to a view that is being formed, once
    /// a crash could not take it back.
    pub(in crate::replica) fn say_recovery(&mut self, now: Now) {
        let durable = self.promise.view() >= self.view;
        let silent = self.silent_until(now);
        let Status::Recovering(recovering) = &mut self.status else { return };
        let mut promise_due = recovering.promised && recovering.promise_due && durable;
        if promise_due && let Some(until) = silent {
            promise_due = false;
            self.timers.arm_by(Timer::Resend, until);
        }
        if promise_due {
            recovering.promise_due = false;
        }
        let question = core::mem::take(&mut recovering.ask_due).then(|| {
            recovering.asked = recovering.asked.saturating_add(1);
            let (nonce, primary_restarted) = (recovering.nonce, recovering.primary_restarted);
            Recovery {
                nonce,
                view: self.view,
                log_view: self.promise.log_view(),
                primary_restarted,
            }
        });
        if let Some(question) = question {
            self.broadcast(&Message::Recovery(question));
            self.arm_recovery_resend(now);
        }
        if promise_due {
            let promise = self.do_view_change();
            self.broadcast(&Message::DoViewChange(promise));
        }
    }

    fn arm_recovery_resend(&mut self, now: Now) {
        let Status::Recovering(recovering) = &self.status else { return };
        let factor = recovering.asked.clamp(1, 8);
        let pause = self.prng.jitter(self.config.retry_interval.saturating_mul(factor), 10);
        self.timers.arm(Timer::Resend, now.monotonic + pause);
    }

    /// Nobody answered: asks again, and repeats the promise.
    pub(in crate::replica) fn ask_recovery_again(&mut self) {
        let Status::Recovering(recovering) = &mut self.status else { return };
        recovering.ask_due = true;
        recovering.promise_due = true;
    }

    /// VRR §4.3 step 2: whoever is normal answers; the primary with the log.
    pub(in crate::replica) fn on_recovery(
        &mut self,
        now: Now,
        from: Origin,
        m: &Recovery,
    ) -> Result<(), Ignored> {
        let leads = match &self.status {
            Status::Normal(role) => matches!(role, Role::Primary(_)),
            Status::Blank(_) => return Err(Ignored::Blank),
            Status::ViewChange(_) | Status::Recovering(_) => return Err(Ignored::WrongStatus),
        };
        let noted = self.promise.crash_vector().of(from.id) >= from.incarnation;
        if !noted && !self.mutant(Mutant::CrashVectorVolatile) {
            return Err(Ignored::NotDurable);
        }
        if m.primary_restarted && m.view == self.view && from.id == self.primary() {
            if let Status::Normal(Role::Backup(backup)) = &mut self.status {
                backup.heard_at = None;
            }
            self.suspect(now, Suspicion::PrimaryRestarted);
            return Ok(());
        }
        if m.view > self.view && leads {
            self.rejoin_bump(now, m.view);
            return Ok(());
        }
        let start = leads.then(|| self.start_view_message(None));
        let answer = RecoveryResponse { nonce: m.nonce, start };
        self.send(from.id, Message::RecoveryResponse(answer));
        Ok(())
    }

    /// A replica that came back has promised more than this view: the primary takes the group to a
    /// view of its own that keeps this promise, so that the replica can acknowledge again.
    fn rejoin_bump(&mut self, now: Now, promised: View) {
        let members = u64::from(self.membership.len());
        let candidates = (0..members).map(|step| promised.plus(step));
        let target =
            candidates.into_iter().find(|view| self.membership.primary_of(*view) == self.me);
        if let Some(target) = target {
            self.enter_view(now, target, false);
        }
    }

    /// R1: the answer of the normal primary of a view that is not older than the promise.
    pub(in crate::replica) fn on_recovery_response(
        &mut self,
        now: Now,
        from: Origin,
        crash_vector: CrashVector,
        m: RecoveryResponse,
    ) -> Result<(), Ignored> {
        if let Status::Blank(_) = &self.status {
            return self.on_rebuild_response(now, from, crash_vector, m);
        }
        let Status::Recovering(recovering) = &self.status else { return Err(Ignored::Unasked) };
        if recovering.nonce != m.nonce && !self.mutant(Mutant::RecoveryWithoutNonce) {
            return Err(Ignored::Unasked);
        }
        let start = m.start.ok_or(Ignored::NotFromPrimary)?;
        if from.id != self.membership.primary_of(start.view) {
            return Err(Ignored::NotFromPrimary);
        }
        let old = start.view < self.view;
        if old && !self.mutant(Mutant::RecoveryIntoLowerView) {
            return Err(Ignored::OldView);
        }
        self.adopt_start(now, from, &start)
    }

    /// R2: a view that started after everything that this replica could have acknowledged, if its
    /// log is lost or has holes.
    pub(in crate::replica) fn require_later_start(&self, m: &StartView) -> Result<(), Ignored> {
        let lost = matches!(self.status, Status::Recovering(_)) || self.is_incomplete();
        let own = m.view == self.promise.log_view() && !self.mutant(Mutant::OwnViewStartAccepted);
        match lost && own {
            true => Err(Ignored::WrongStatus),
            false => Ok(()),
        }
    }

    /// The log is complete and durable: it is evidence again. If a later view was promised
    /// meanwhile, this replica's vote for it counts from now on.
    pub(in crate::replica) fn end_recovery(&mut self) {
        let Status::Recovering(recovering) = &self.status else { return };
        self.status = Status::ViewChange(ViewChange {
            started: !recovering.promised,
            say_due: true,
            nonce: recovering.nonce,
            ..ViewChange::default()
        });
    }

    /// Puts the log of a started view together.
    pub(in crate::replica) fn adopt_start(
        &mut self,
        now: Now,
        from: Origin,
        m: &StartView,
    ) -> Result<(), Ignored> {
        let target = Anchor { op_number: m.op_number, checksum: m.head };
        let plan = Plan::new(from.id, target, m.commit_number, &m.suffix);
        let Some(plan) = plan else { return Err(Ignored::Malformed) };
        if m.view > self.view {
            self.enter_view(now, m.view, true);
        }
        let installing = self.install.as_ref().is_some_and(|install| install.view == m.view);
        match &mut self.status {
            Status::ViewChange(change) if !installing && change.plan.is_none() => {
                change.started = true;
                change.plan = Some(plan);
            }
            Status::Recovering(recovering) if !installing && recovering.plan.is_none() => {
                recovering.promised = false;
                recovering.plan = Some(plan);
            }
            Status::ViewChange(_) | Status::Recovering(_) | Status::Normal(_) => {
                return Err(Ignored::Duplicate);
            }
            Status::Blank(_) => return Err(Ignored::Blank),
        }
        self.advance_plan(now);
        Ok(())
    }
}
