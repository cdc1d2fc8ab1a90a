//! Leases: reads that the primary answers without asking, because the others keep still.
//!
//! ```text
//! primary of v                    backup
//!   remembers when 7 left
//!    | ---- Commit(heartbeat 7) --> |
//!    |                            votes for no other view for `lease`, by its own clock
//!    | <-- PrepareOk(7, lease) ---- |
//!   until the time of 7 + lease, less what the clocks can drift:
//!   nobody else leads, so whatever is committed is known here
//! ```
//!
//! PROTOCOL.md, "Reads". Who restarts may have forgotten a grant, and keeps still as if it had just
//! given one.

use core::time::Duration;

use crate::{
    model::{
        message::{PrepareOk, Query},
        mutants::Mutant,
        time::{Instant, Now},
        types::Peer,
    },
    replica::{Origin, Replica, ignored::Ignored},
    state::{
        reads::LocalRead,
        status::{Role, Status},
    },
};

impl Replica {
    /// A query that the primary answers at once while it holds a lease; otherwise as any other.
    ///
    /// `now` was read after the query had arrived. So at a time after it was asked, nobody else
    /// led, and everything committed anywhere was known here: the same fact that a round of
    /// heartbeats brings.
    pub(in crate::replica) fn read_leased(
        &mut self,
        now: Now,
        from: Peer,
        m: Query,
    ) -> Result<(), Ignored> {
        if self.leased_for(now).is_zero() || !self.reads_fit(&m) {
            return self.read_linearizable(from, m);
        }
        let (time, _) = self.clock.read(now, self.config.clock_jump_max);
        self.reads.push_ready(LocalRead::of(from, m), self.commit_number, time);
        Ok(())
    }

    /// For how long this replica, as a primary, still holds its lease; zero if it holds none, or
    /// does not know yet what was committed before its view.
    pub(in crate::replica) fn leased_for(&self, now: Now) -> Duration {
        let Status::Normal(Role::Primary(primary)) = &self.status else { return Duration::ZERO };
        let knows = primary.serving && self.commit_number >= primary.start_op;
        if self.config.lease.is_zero() || !knows {
            return Duration::ZERO;
        }
        let until = primary.lease.until(self.index, self.membership.quorum() - 1);
        until.since(now.monotonic)
    }

    /// A backup answered a heartbeat, and may have granted a lease with it.
    pub(in crate::replica) fn lease_granted(&mut self, from: Origin, m: &PrepareOk) {
        let exact = self.mutant(Mutant::LeaseWithoutDrift);
        let drift = if exact { 0 } else { self.config.clock_drift_ppm_max };
        if let Status::Normal(Role::Primary(primary)) = &mut self.status
            && !m.lease.is_zero()
        {
            primary.lease.granted(from.index, m.heartbeat, m.lease, drift);
        }
    }

    /// What an answer to a heartbeat that was heard at `now` grants. Nothing before the disk
    /// knows how long grants are, because the next start has to; and a start waits for what the
    /// life before may have granted before it writes anything else there.
    pub(in crate::replica) fn grant(&mut self, now: Now) -> Duration {
        let lease = self.config.lease;
        if self.promise.durable().lease != lease {
            if !self.grants.bind(now.monotonic) {
                self.promise.note_lease(lease);
            }
            return Duration::ZERO;
        }
        self.grants.grant(now.monotonic, lease);
        lease
    }

    /// Until when this replica must not vote for another view; `None` if it may.
    pub(in crate::replica) fn silent_until(&self, now: Now) -> Option<Instant> {
        let bound = self.grants.bind(now.monotonic) && !self.mutant(Mutant::LeaseUnheeded);
        bound.then(|| self.grants.until())
    }
}
