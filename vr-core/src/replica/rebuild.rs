//! A replica that forgot everything: a wiped disk, or no disk at all (DISC'17; PROTOCOL.md,
//! "Replicas that forgot everything").
//!
//! ```text
//! blank replica                      a quorum of the others, all normal
//!    | -- GetCrashVector(nonce) ----> |
//!    | <------- CrashVectorIs ------- |    how often did I forget everything?
//!   a new incarnation
//!    | -- Recovery(nonce) ----------> |    note the incarnation, durably
//!    | <----- RecoveryResponse ------ |    the view; from its primary, the log
//!   log durable, then certificate, view, incarnation and crash vector in one superblock
//! ```

use crate::{
    model::{
        certificate::{Certificate, CertificateHash, CrashVector},
        founding::{Hello, HelloOk},
        kind::Kind,
        message::{CrashVectorIs, GetCrashVector, Message, Recovery, RecoveryResponse},
        mutants::Mutant,
        time::Now,
        types::{DiskId, Incarnation, View},
    },
    ports::storage::Anchor,
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, Fatal, Output},
    },
    state::{
        plan::Plan,
        rebuild::{Counted, Leaving, Rebuild, Reformatting, Response},
        status::{Genesis, Status, ViewChange},
        timers::Timer,
    },
};

impl Replica {
    /// G5: a quorum of others knows one group, and it is not this disk's: it has been wiped.
    pub(in crate::replica) fn rebuild_if_told(&mut self) {
        let quorum = usize::try_from(self.membership.quorum()).unwrap_or(usize::MAX);
        let (me, nonce) = (self.me, self.prng.nonce());
        let Status::Blank(genesis) = &mut self.status else { return };
        // An epoch that was followed by another one, if only by force, is not joined any more.
        let latest = genesis.told.values().map(|(_, epoch)| *epoch).max();
        let told = genesis.told.values().filter(|(_, epoch)| Some(*epoch) == latest);
        let most = told.max_by_key(|(certificate, _)| {
            genesis.told.values().filter(|(other, _)| other == certificate).count()
        });
        let Some((certificate, epoch)) = most.cloned() else { return };
        let tellers = genesis.told.values().filter(|(other, _)| *other == certificate).count();
        let hash = certificate.to_hash();
        let known = genesis.rebuild.as_ref().is_some_and(|rebuild| rebuild.hash() == hash);
        if tellers < quorum || known {
            return;
        }
        self.certificate = hash;
        genesis.rebuild = Some(Rebuild::new(me, certificate, epoch, nonce));
        self.out.push_back(Output::Event(Event::RebuildBegan));
    }

    /// Says the question of the current step.
    pub(in crate::replica) fn say_rebuild(&mut self, now: Now) {
        let retry = self.config.retry_interval;
        let Status::Blank(Genesis { rebuild: Some(rebuild), .. }) = &mut self.status else {
            return;
        };
        if !core::mem::take(&mut rebuild.ask_due) {
            return;
        }
        rebuild.asked = rebuild.asked.saturating_add(1);
        let pause = retry.saturating_mul(rebuild.asked.clamp(1, 8));
        let nonce = rebuild.nonce();
        let question = match rebuild.incarnation().0 {
            0 => Message::GetCrashVector(GetCrashVector { nonce }),
            _ => Message::Recovery(Recovery {
                nonce,
                view: View::ZERO,
                log_view: View::ZERO,
                primary_restarted: false,
            }),
        };
        let pause = self.prng.jitter(pause, 10);
        self.timers.arm(Timer::Resend, now.monotonic + pause);
        self.broadcast(&question);
    }

    /// Too few answered, or the log does not come: asks anew, under a new nonce.
    pub(in crate::replica) fn ask_rebuild_again(&mut self, now: Now) {
        let nonce = self.prng.nonce();
        let retry = self.config.suspicion_timeout;
        let installing = self.install.is_some() || self.incoming.is_some();
        let Status::Blank(Genesis { rebuild: Some(rebuild), .. }) = &mut self.status else {
            return;
        };
        let arriving = rebuild.plan.as_mut().is_some_and(Plan::take_progress);
        if arriving || installing {
            self.timers.arm(Timer::Resend, now.monotonic + retry);
        } else {
            rebuild.ask_again(nonce);
        }
    }

    /// What a blank replica listens to besides genesis: answers to its own questions.
    pub(in crate::replica) fn is_rebuild_answer(
        &self,
        kind: Kind,
        certificate: CertificateHash,
    ) -> bool {
        let Status::Blank(Genesis { rebuild: Some(rebuild), adopting: false, .. }) = &self.status
        else {
            return false;
        };
        let answers = matches!(
            kind,
            Kind::CrashVectorIs
                | Kind::RecoveryResponse
                | Kind::Headers
                | Kind::Entries
                | Kind::Released
                | Kind::Snapshot
        );
        answers && rebuild.hash() == certificate
    }

    /// P1: a normal replica tells what it knows of incarnations, with its envelope.
    pub(in crate::replica) fn on_get_crash_vector(
        &mut self,
        from: Origin,
        m: &GetCrashVector,
    ) -> Result<(), Ignored> {
        match &self.status {
            Status::Normal(_) => {
                self.send(from.id, Message::CrashVectorIs(CrashVectorIs { nonce: m.nonce }));
                Ok(())
            }
            Status::Blank(_) => Err(Ignored::Blank),
            Status::ViewChange(_) | Status::Recovering(_) => Err(Ignored::WrongStatus),
        }
    }

    /// P1: one more of the others told what it knows of incarnations.
    pub(in crate::replica) fn on_crash_vector_is(
        &mut self,
        from: Origin,
        crash_vector: CrashVector,
        m: &CrashVectorIs,
    ) -> Result<(), Ignored> {
        let quorum = self.membership.quorum();
        let nonce = self.prng.nonce();
        let Status::Blank(Genesis { rebuild: Some(rebuild), .. }) = &mut self.status else {
            return Err(Ignored::Unasked);
        };
        if rebuild.nonce() != m.nonce || rebuild.incarnation() > Incarnation::ZERO {
            return Err(Ignored::Unasked);
        }
        let response =
            Response { incarnation: from.incarnation, crash_vector, view: from.view, start: None };
        if rebuild.crash_vector_is(from.id, response, quorum) {
            rebuild.ask_again(nonce);
        }
        Ok(())
    }

    /// P2: one more of the others has noted the new incarnation, and tells where the group is.
    pub(in crate::replica) fn on_rebuild_response(
        &mut self,
        now: Now,
        from: Origin,
        crash_vector: CrashVector,
        m: RecoveryResponse,
    ) -> Result<(), Ignored> {
        let nonce = self.prng.nonce();
        let alone = self.mutant(Mutant::SinglePrimaryBelieved) && m.start.is_some();
        let Status::Blank(Genesis { rebuild: Some(rebuild), .. }) = &mut self.status else {
            return Err(Ignored::Unasked);
        };
        let asked = rebuild.incarnation() > Incarnation::ZERO && rebuild.plan.is_none();
        if rebuild.nonce() != m.nonce || !asked {
            return Err(Ignored::Unasked);
        }
        let named = m.start.as_ref().is_none_or(|start| start.view == from.view);
        if !named {
            return Err(Ignored::Malformed);
        }
        let response = Response {
            incarnation: from.incarnation,
            crash_vector,
            view: from.view,
            start: m.start,
        };
        let start = response.start.clone();
        match rebuild.respond(from.id, response) {
            Counted::Yes => {}
            Counted::No => return Err(Ignored::EarlierLife),
            Counted::StartOver => {
                rebuild.ask_again(nonce);
                return Ok(());
            }
        }
        let outcome = match (alone, start) {
            (true, Some(start)) => Some((from.id, start)),
            (true, None) | (false, _) => {
                let outcome = rebuild.outcome(&self.membership);
                outcome.map(|(primary, start)| (primary, start.clone()))
            }
        };
        if let Some((source, start)) = outcome {
            let target = Anchor { op_number: start.op_number, checksum: start.head };
            let plan = Plan::new(source, target, start.commit_number, &start.suffix);
            rebuild.plan = Some(plan.ok_or(Ignored::Malformed)?);
            rebuild.view = start.view;
            self.advance_plan(now);
        }
        Ok(())
    }

    /// Everything came back and is durable: this replica follows in the view that it was told.
    pub(in crate::replica) fn finish_rebuild(&mut self, now: Now, view: View) {
        self.timers.disarm(Timer::Hello);
        self.out.push_back(Output::Event(Event::GroupRejoined {
            incarnation: self.promise.incarnation(),
            view,
        }));
        if view > self.view {
            self.enter_view(now, view, true);
        } else {
            self.status = Status::ViewChange(ViewChange::default());
        }
    }

    /// A message of the group carries another certificate than this replica's: if a quorum of
    /// others agree on one, this disk belongs to a group that is no more (G6).
    pub(in crate::replica) fn doubt_certificate(&mut self, now: Now) {
        let pause = self.config.retry_interval.saturating_mul(4);
        if !self.doubts.may_ask(now.monotonic, pause) {
            return;
        }
        let nonce = self.prng.nonce();
        self.doubts.ask(now.monotonic, nonce);
        let durability = self.promise.durable().durability;
        self.broadcast(&Message::Hello(Hello { nonce, durability }));
    }

    /// G6: an answer to that question. One of an earlier epoch settles nothing: that group was
    /// given up by its operator.
    pub(in crate::replica) fn settle_doubt(
        &mut self,
        from: Origin,
        m: &HelloOk,
    ) -> Result<(), Ignored> {
        let Some(nonce) = m.nonce.filter(|nonce| self.doubts.is_asked(*nonce)) else {
            return Err(Ignored::Unasked);
        };
        if from.epoch < self.epoch() {
            return Err(Ignored::OtherEpoch);
        }
        let told = m.certificate.as_ref().map_or(CertificateHash::NONE, Certificate::to_hash);
        let agreed = self.doubts.told(nonce, from.id, told);
        if told != CertificateHash::NONE
            && told != self.certificate
            && agreed >= self.membership.quorum()
        {
            self.reformat(Reformatting::OtherCertificate { told_by: from.id });
        }
        Ok(())
    }

    /// G8: an epoch that was begun by force ends every earlier one. Whoever tells of it, it exists,
    /// so one answer is enough, of whatever mode and to no question.
    pub(in crate::replica) fn require_latest_epoch(&mut self, m: &HelloOk) -> Result<(), Ignored> {
        let begun = m.certificate.as_ref().and_then(Certificate::begun_by_force);
        let Some(epoch) = begun.filter(|epoch| *epoch > self.epoch()) else { return Ok(()) };
        // Who belongs to no group yet has nothing to give up, and joins the latest (G5).
        let belongs = self.certificate().is_some() && !self.mutant(Mutant::SupersededGoesOn);
        if !belongs {
            return Ok(());
        }
        if self.promise.wanted().superseded_by.is_none() {
            self.promise.supersede(epoch);
            self.leave(Leaving::Superseded(epoch));
        }
        Err(Ignored::OtherEpoch)
    }

    /// Formats this disk anew, and stops: the state machine must start from nothing, too.
    pub(in crate::replica) fn reformat(&mut self, reason: Reformatting) {
        let (high, low) = (self.prng.next(), self.prng.next());
        self.promise.reformat(DiskId(u128::from(high) << 64 | u128::from(low)));
        self.leave(Leaving::Reformatting(reason));
    }

    fn leave(&mut self, leaving: Leaving) {
        self.status = Status::Blank(Genesis { leaving: Some(leaving), ..Genesis::default() });
        self.timers.disarm_all();
    }

    /// That this disk does not count is durable: the next start knows it from the beginning.
    pub(in crate::replica) fn stop_if_left(&mut self) {
        let Status::Blank(Genesis { leaving: Some(leaving), .. }) = &self.status else {
            return;
        };
        match *leaving {
            Leaving::Reformatting(reason) if self.certificate().is_none() => {
                self.fatal(Fatal::Reformatted { reason });
            }
            Leaving::Superseded(_) => self.stop_if_superseded(),
            Leaving::Reformatting(_) => {}
        }
    }

    /// The operator gave this directory up.
    pub(in crate::replica) fn stop_if_superseded(&mut self) {
        let ours = self.epoch();
        if let Some(latest) = self.promise.durable().superseded_by {
            self.fatal(Fatal::Superseded { latest, ours });
        }
    }
}
