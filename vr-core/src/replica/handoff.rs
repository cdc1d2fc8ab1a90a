//! The planned hand-off: a primary lets a backup catch up, and leaves for a view that it leads.
//!
//! ```text
//! primary of v              successor              other backup
//!   places nothing any more
//!    | <---- PrepareOk(op) --- |
//!   everything is executed and answered
//!    | ------ Handoff(w) ----> | ------ Handoff(w) ----> |
//!   promise w durable         promise w durable         promise w durable
//!    | --- DoViewChange(w) --> | <--- DoViewChange(w) -- |
//! ```
//!
//! From the moment that the view is left, it is an ordinary view change (PROTOCOL.md, "Hand-off").

use crate::{
    model::{
        message::{Handoff, Message},
        time::Now,
        types::{ReplicaId, ReplicaIndex, View},
    },
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, HandoffError, Output},
    },
    state::{
        status::{Primary, Role, Status},
        timers::Timer,
    },
};

impl Replica {
    /// Lets this primary hand its view off to `to`, or to the backup that holds most.
    ///
    /// Requests wait while the successor catches up, at most `handoff_timeout`. What becomes of it
    /// is told by [`Event::HandedOff`] or [`Event::HandoffFailed`]. A repeated order changes
    /// nothing.
    ///
    /// # Errors
    /// [`HandoffError`] when this replica has nothing to hand off, or nobody to hand it to; nothing
    /// has changed then.
    pub fn hand_off(&mut self, now: Now, to: Option<ReplicaId>) -> Result<(), HandoffError> {
        match &self.status {
            Status::Normal(Role::Backup(_)) => {
                return Err(HandoffError::NotPrimary { primary: self.primary() });
            }
            Status::Blank(_) | Status::ViewChange(_) | Status::Recovering(_) => {
                return Err(HandoffError::NotStarted);
            }
            Status::Normal(Role::Primary(Primary { handing_off: Some(known), .. })) => {
                return match to.is_none_or(|to| to == *known) {
                    true => Ok(()),
                    false => Err(HandoffError::UnderWay { to: *known }),
                };
            }
            Status::Normal(Role::Primary(_)) => {}
        }
        if self.stopped {
            return Err(HandoffError::NotStarted);
        }
        self.drained = false;
        let to = self.successor(now, to)?;
        if let Status::Normal(Role::Primary(primary)) = &mut self.status {
            primary.handing_off = Some(to);
        }
        self.timers.arm(Timer::Handoff, now.monotonic + self.config.handoff_timeout);
        self.out.push_back(Output::Event(Event::HandoffBegan { to }));
        Ok(())
    }

    /// A primary whose own storage is behind takes no requests, nor does one whose log is full and that
    /// lacks the checkpoint which a quorum has for it. Looked at with each heartbeat: for how long a
    /// silent one is not suspected, it waits; then it lets one lead whose storage is not.
    pub(in crate::replica) fn hand_off_if_storage_stalls(&mut self, now: Now) {
        let (agreed, held) =
            (self.checkpoints.agreed().op_number, self.checkpoints.held().op_number);
        let has_room = agreed <= held || self.log_has_room_for_any();
        let keeps_up = self.storage_keeps_up() && has_room;
        let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
        if keeps_up {
            primary.behind_since = None;
            return;
        }
        let since = *primary.behind_since.get_or_insert(now.monotonic);
        if now.monotonic.since(since) >= self.config.suspicion_timeout {
            // Without a successor it waits for its storage, or for one at the next heartbeat.
            let _waits = self.hand_off(now, None);
        }
    }

    /// Who is to lead next: `wanted`, if it can, or the backup that acknowledged most; of several,
    /// the one whose view comes first.
    fn successor(&self, now: Now, wanted: Option<ReplicaId>) -> Result<ReplicaId, HandoffError> {
        let can_lead = |id: ReplicaId, index: ReplicaIndex| {
            !self.peers.is_lost(index) && self.is_eligible(self.next_view_of(id), now)
        };
        match wanted {
            Some(to) if to == self.me => Err(HandoffError::Itself),
            Some(to) => match self.membership.index_of(to) {
                None => Err(HandoffError::NotMember { to }),
                Some(index) if can_lead(to, index) => Ok(to),
                Some(_) => Err(HandoffError::NotReady { to }),
            },
            None => {
                let Status::Normal(Role::Primary(primary)) = &self.status else {
                    return Err(HandoffError::NotStarted);
                };
                let fit = self.others().into_iter().filter(|(id, index)| can_lead(*id, *index));
                let rank = |(id, index): &(ReplicaId, ReplicaIndex)| {
                    let acked = primary.backup(*index).acked;
                    (acked, core::cmp::Reverse(self.next_view_of(*id)))
                };
                fit.max_by_key(rank).map(|(id, _)| id).ok_or(HandoffError::NoSuccessor)
            }
        }
    }

    /// The lowest view above this one that `id` leads.
    fn next_view_of(&self, id: ReplicaId) -> View {
        let led = |view: &View| self.membership.primary_of(*view) == id;
        self.next_views().find(led).unwrap_or_else(|| self.view.next())
    }

    /// Leaves the view as soon as the successor holds everything, and nobody waits for a reply.
    pub(in crate::replica) fn step_handoff(&mut self, now: Now) {
        let Status::Normal(Role::Primary(primary)) = &self.status else { return };
        let Some(to) = primary.handing_off else { return };
        let Some(index) = self.membership.index_of(to) else { return };
        if self.peers.is_lost(index) {
            self.end_handoff(HandoffError::NotReady { to });
            return;
        }
        let op_number = self.log.op_number();
        let caught_up = primary.backup(index).acked >= op_number;
        if !caught_up || self.progress.applied < op_number {
            return;
        }
        let view = self.next_view_of(to);
        let handoff = Handoff { view, op_number, checksum: self.log.head() };
        self.broadcast(&Message::Handoff(handoff));
        if let Status::Normal(Role::Primary(primary)) = &mut self.status {
            primary.handing_off = None;
        }
        self.out.push_back(Output::Event(Event::HandedOff { to, view }));
        self.enter_view(now, view, false);
    }

    /// The successor did not catch up in time: this primary goes on, and so do the requests that
    /// waited.
    pub(in crate::replica) fn on_handoff_timer(&mut self) {
        if let Status::Normal(Role::Primary(Primary { handing_off: Some(to), .. })) = self.status {
            let after = self.config.handoff_timeout;
            self.end_handoff(HandoffError::TimedOut { to, after });
        }
    }

    /// Nothing comes of the hand-off, if one is under way.
    pub(in crate::replica) fn end_handoff(&mut self, reason: HandoffError) {
        self.timers.disarm(Timer::Handoff);
        if let Status::Normal(Role::Primary(primary)) = &mut self.status
            && primary.handing_off.take().is_some()
        {
            self.out.push_back(Output::Event(Event::HandoffFailed { reason }));
        }
    }

    /// The primary leaves on purpose, so there is nothing to suspect and nothing to wait for: no
    /// lease either. Whatever was granted in earlier views had ended before this one started.
    pub(in crate::replica) fn on_handoff(
        &mut self,
        now: Now,
        from: Origin,
        m: &Handoff,
    ) -> Result<(), Ignored> {
        self.follow(now, from)?;
        if m.view <= self.view {
            return Err(Ignored::OldView);
        }
        self.require_same_entry(from, m.op_number, m.checksum)?;
        self.grants.release();
        self.enter_view(now, m.view, false);
        Ok(())
    }
}
