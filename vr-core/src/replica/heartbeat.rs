//! Signs of life: heartbeats, `CheckQuorum`, pings, and views that find each other through them.

use crate::{
    model::{
        message::{Commit, Message, Ping, Standing, StatusKind, Suspicion},
        mutants::Mutant,
        time::Now,
        types::{HeartbeatNumber, OpNumber, ReplicaId, View},
    },
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, Output},
    },
    state::{
        repair::Holes,
        status::{Role, Status},
        timers::Timer,
    },
};

/// For how many heartbeats a group counts as busy that has ordered something.
const BUSY: u32 = 4;

impl Replica {
    /// The last op of the log, holes or not.
    pub(in crate::replica) fn told_op_number(&self) -> OpNumber {
        self.repair.holes().map_or_else(|| self.log.op_number(), Holes::op_number)
    }

    /// What the others are told of this replica's status: an incomplete log is like none. Once
    /// nobody can complete it, only the start of a view as late as the promise helps, so that the
    /// others have to come there.
    pub(in crate::replica) fn told_status(&self) -> StatusKind {
        match &self.status {
            Status::ViewChange(_) if self.is_incomplete() && !self.is_beyond_repair() => {
                StatusKind::Recovering
            }
            Status::Blank(_)
            | Status::Normal(_)
            | Status::ViewChange(_)
            | Status::Recovering(_) => self.status.kind(),
        }
    }

    /// Where this replica stands.
    pub(in crate::replica) fn standing(&self, now: Now) -> Standing {
        Standing {
            log_view: self.promise.log_view(),
            op_number: self.told_op_number(),
            status: self.told_status(),
            heard: self.peers.heard_set(self.index, now.monotonic),
        }
    }

    pub(in crate::replica) fn on_heartbeat_timer(&mut self, now: Now) {
        self.timers.arm(Timer::Heartbeat, now.monotonic + self.config.heartbeat_interval);
        self.heartbeat_now();
        self.send_again();
        self.release_half_full_log(now);
        if self.is_primary() {
            self.pace_snapshot(now, self.view, self.log.op_number());
            self.take_checkpoint_at_rest(now);
            self.fetch_agreed_if_full(now);
            self.hand_off_if_storage_stalls(now);
        }
    }

    /// A checkpoint that is fetched leaves room for what the group orders: the log of the primary of
    /// `view`, maybe of this replica itself, goes through `op_number`.
    fn pace_snapshot(&mut self, now: Now, view: View, op_number: OpNumber) {
        let lasting = self.config.heartbeat_interval.saturating_mul(BUSY);
        if let Some(incoming) = &mut self.incoming {
            incoming.told(now.monotonic, view, op_number, lasting);
        }
    }

    /// Lets a heartbeat leave at the next drain, if this replica is a primary that serves.
    pub(in crate::replica) const fn heartbeat_now(&mut self) {
        if let Status::Normal(Role::Primary(primary)) = &mut self.status {
            primary.heartbeat_due = true;
        }
    }

    /// VRR §4.1 step 6: COMMIT, numbered, so that its answers confirm that this is the primary.
    ///
    /// A primary that hears no quorum keeps silent, so that the others can leave it.
    pub(in crate::replica) fn send_heartbeat(&mut self, now: Now) {
        let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
        if !core::mem::take(&mut primary.heartbeat_due) || !primary.serving {
            return;
        }
        primary.heartbeat = primary.heartbeat.next();
        let heartbeat = primary.heartbeat;
        primary.lease.sent(heartbeat, now.monotonic);
        let heartbeat = self.heartbeat(now, heartbeat);
        self.broadcast(&heartbeat);
    }

    fn heartbeat(&self, now: Now, heartbeat: HeartbeatNumber) -> Message {
        let (commit, standing) = (self.committed(), self.standing(now));
        let agreed = self.checkpoints.agreed();
        Message::Commit(Commit { commit, heartbeat, agreed, standing })
    }

    /// A backup hears the primary, learns what is committed, and notices what did not arrive.
    pub(in crate::replica) fn on_commit(
        &mut self,
        now: Now,
        from: Origin,
        m: &Commit,
    ) -> Result<(), Ignored> {
        self.peers.stands(from.index, now.monotonic, m.standing);
        // Also between two views: there is no primary then that this replica follows, but a group
        // that may be busy.
        self.pace_snapshot(now, from.view, m.standing.op_number);
        if self.mutant(Mutant::CommitOverUncertainLog) && from.view > self.promise.log_view() {
            self.advance_commit(m.commit.op_number);
        }
        self.follow(now, from)?;
        self.heard_from_primary(now, m.heartbeat)?;
        self.peers.heartbeat(now.monotonic, self.config.heartbeat_interval);
        self.commit_through(from, m.commit)?;
        self.on_agreed(now, from.id, m.agreed);
        self.release_half_full_log(now);
        self.view_works(m.heartbeat);
        let op_number = self.log.op_number();
        let lag_max = u64::from(self.config.pipeline_ops_max);
        if let Status::Normal(Role::Backup(backup)) = &mut self.status {
            let lag = m.standing.op_number.since(op_number);
            let missing = backup.told > op_number || lag > lag_max;
            backup.told = m.standing.op_number;
            if missing {
                self.begin_pull(now);
            }
            if m.standing.op_number == op_number {
                self.take_checkpoint_at_rest(now);
            }
            self.fetch_agreed_if_full(now);
        }
        Ok(())
    }

    /// `CheckQuorum`: a primary that a quorum does not answer stops serving and votes to leave.
    pub(in crate::replica) fn on_check_quorum_timer(&mut self, now: Now) {
        if self.mutant(Mutant::NoCheckQuorum) {
            return;
        }
        let others = self.membership.quorum() - 1;
        let timeout = self.config.suspicion_timeout;
        let pause = self.config.heartbeat_interval;
        let heard = self.peers.heard_set(self.index, now.monotonic);
        let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
        let heard_at = primary.heard_by(self.index, others);
        if now.monotonic.since(heard_at) < timeout {
            let next = (heard_at + timeout).max(now.monotonic + pause);
            self.timers.arm(Timer::CheckQuorum, next.min(now.monotonic + timeout));
            return;
        }
        self.timers.arm(Timer::CheckQuorum, now.monotonic + pause);
        if core::mem::replace(&mut primary.serving, false) {
            let event = Event::QuorumLost { view: self.view, heard };
            self.out.push_back(Output::Event(event));
            let local = primary.rounds.abandon();
            self.reads.put_back(local);
            self.suspect(now, Suspicion::CheckQuorum);
        }
    }

    /// A primary that had stopped serving is answered by a quorum again.
    pub(in crate::replica) fn serve_if_heard(&mut self, now: Now) {
        let others = self.membership.quorum() - 1;
        let timeout = self.config.suspicion_timeout;
        let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
        if primary.serving || now.monotonic.since(primary.heard_by(self.index, others)) >= timeout {
            return;
        }
        primary.serving = true;
        primary.heartbeat_due = true;
        self.suspicions.withdraw();
        self.timers.disarm(Timer::Suspicion);
        self.out.push_back(Output::Event(Event::QuorumRegained { view: self.view }));
    }

    /// Replicas that are not primary tell everybody where they stand. A primary that still serves has
    /// sent a heartbeat before this is due; one that stopped learns from it who can be heard again.
    pub(in crate::replica) fn on_ping_timer(&mut self, now: Now) {
        self.ping_all_but(now, None);
    }

    /// Whoever is awake for a heartbeat sends the pings that would be due before the next one, so that
    /// it is not woken for them alone; the primary was told with the answer.
    pub(in crate::replica) fn ping_with_answer(&mut self, now: Now) {
        if self.timers.at(Timer::Ping) <= now.monotonic + self.config.heartbeat_interval {
            self.ping_all_but(now, Some(self.primary()));
        }
    }

    fn ping_all_but(&mut self, now: Now, told: Option<ReplicaId>) {
        self.timers.arm(Timer::Ping, now.monotonic + self.config.ping_interval);
        if matches!(self.status, Status::Blank(_) | Status::Normal(Role::Primary(_))) {
            return;
        }
        for (id, _) in self.others() {
            if Some(id) != told {
                self.send_ping(now, id);
            }
        }
    }

    fn send_ping(&mut self, now: Now, to: ReplicaId) {
        let ping = Ping { standing: self.standing(now), sent_at: now.monotonic.0 };
        self.send(to, Message::Ping(ping));
    }

    /// Tells a sender in a lower view of this one; only if a crash could not take it back, because
    /// anything else would say nothing new, and be answered in turn.
    pub(in crate::replica) fn tell_newer_view(&mut self, now: Now, to: Origin) {
        if self.promise.view() > to.view {
            self.send_ping(now, to.id);
        }
    }

    pub(in crate::replica) fn on_ping(
        &mut self,
        now: Now,
        from: Origin,
        m: &Ping,
    ) -> Result<(), Ignored> {
        self.peers.stands(from.index, now.monotonic, m.standing);
        if !self.is_pinged_as_often(from, m.standing) {
            let pong = Ping { standing: self.standing(now), sent_at: m.sent_at };
            self.send(from.id, Message::Pong(pong));
        }
        self.synchronise_views(now, from, m.standing);
        self.probe(now, from);
        Ok(())
    }

    /// Backups of one view are told by each other's pings; answers to them would say it again.
    fn is_pinged_as_often(&self, other: Origin, standing: Standing) -> bool {
        matches!(self.status, Status::Normal(Role::Backup(_)))
            && standing.status == StatusKind::Normal
            && other.view == self.view
            && other.id != self.primary()
    }

    pub(in crate::replica) fn on_pong(
        &mut self,
        now: Now,
        from: Origin,
        m: &Ping,
    ) -> Result<(), Ignored> {
        self.peers.stands(from.index, now.monotonic, m.standing);
        self.synchronise_views(now, from, m.standing);
        Ok(())
    }

    /// A primary that stopped serving asks whoever is heard again in its view for an answer.
    fn probe(&mut self, now: Now, from: Origin) {
        let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
        if !primary.serving && from.view == self.view {
            primary.heartbeat = primary.heartbeat.next();
            let heartbeat = primary.heartbeat;
            let heartbeat = self.heartbeat(now, heartbeat);
            self.send(from.id, heartbeat);
        }
    }

    /// PROTOCOL.md "Timers and liveness": whoever is in a lower view follows. A promise binds, so
    /// it is joined; a view that has started is entered and asked for, even if its primary is gone
    /// by now: only from within can it be left again.
    pub(in crate::replica) fn synchronise_views(
        &mut self,
        now: Now,
        from: Origin,
        standing: Standing,
    ) {
        if self.mutant(Mutant::NoViewSync) {
            return;
        }
        if from.view > self.view {
            match standing.status {
                StatusKind::ViewChange => self.enter_view(now, from.view, false),
                StatusKind::Normal => self.enter_view(now, from.view, true),
                // Its promise binds it, and it cannot go back: who leads or follows goes on, and
                // the primary takes the group there when it is asked for the log.
                StatusKind::Recovering if !matches!(self.status, Status::Normal(_)) => {
                    self.enter_view(now, from.view, false);
                }
                StatusKind::Blank | StatusKind::Recovering => {}
            }
        } else if (from.view < self.view || standing.status == StatusKind::ViewChange)
            && matches!(self.status, Status::Normal(Role::Primary(_)))
        {
            self.send_start_view(from.id, None);
        }
    }
}
