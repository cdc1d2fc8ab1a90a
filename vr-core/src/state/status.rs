//! Which sub-protocol a replica is in, with the data that exists only there.

use std::collections::BTreeMap;

use crate::{
    model::{
        certificate::Certificate,
        durable::CheckpointId,
        entry::Entry,
        message::StatusKind,
        time::Instant,
        types::{
            DiskId, Epoch, HeartbeatNumber, Nonce, OpNumber, PersistId, ReplicaId, ReplicaIndex,
            ReplicaSet, RequestId, View,
        },
    },
    state::{
        early::Early,
        leases::Lease,
        pipeline::{Acknowledged, Pipeline},
        plan::Plan,
        rank::nth_largest,
        reads::Rounds,
        rebuild::{Leaving, Rebuild},
        votes::Votes,
    },
};

/// Which sub-protocol a replica is in.
#[derive(Clone, Debug)]
pub enum Status {
    /// Without a certificate: looking for its group.
    Blank(Genesis),
    /// In a view that has started.
    Normal(Role),
    /// Promised to a view that has not started here.
    ViewChange(ViewChange),
    /// Without its log, which it acknowledged parts of: asking the group for a complete one.
    Recovering(Recovering),
}

impl Status {
    /// The kind of status, without its data.
    #[must_use]
    pub const fn kind(&self) -> StatusKind {
        match self {
            Self::Blank(_) => StatusKind::Blank,
            Self::Normal(_) => StatusKind::Normal,
            Self::ViewChange(_) => StatusKind::ViewChange,
            Self::Recovering(_) => StatusKind::Recovering,
        }
    }

    /// Which checkpoints the promises to this view name as held, and whose promises.
    #[must_use]
    pub fn promised_checkpoints(&self) -> Vec<(ReplicaId, CheckpointId)> {
        let Self::ViewChange(change) = self else { return Vec::new() };
        change.votes.iter().map(|(voter, promise)| (voter, promise.checkpoint)).collect()
    }

    /// The log that is put together, whatever it is for.
    #[must_use]
    pub const fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Blank(Genesis { rebuild: Some(rebuild), .. }) => rebuild.plan.as_ref(),
            Self::ViewChange(change) => change.plan.as_ref(),
            Self::Recovering(recovering) => recovering.plan.as_ref(),
            Self::Blank(_) | Self::Normal(_) => None,
        }
    }

    /// Where the log that is put together is kept; `None` where there can be none.
    pub const fn plan_mut(&mut self) -> Option<&mut Option<Plan>> {
        match self {
            Self::Blank(Genesis { rebuild: Some(rebuild), .. }) => Some(&mut rebuild.plan),
            Self::ViewChange(change) => Some(&mut change.plan),
            Self::Recovering(recovering) => Some(&mut recovering.plan),
            Self::Blank(_) | Self::Normal(_) => None,
        }
    }
}

/// What a replica does in a view that has started.
#[derive(Clone, Debug)]
pub enum Role {
    /// It gives requests their place.
    Primary(Primary),
    /// It follows the primary.
    Backup(Backup),
}

/// What only the primary of a started view has.
///
/// Invariants: one [`Acknowledged`] and one echo per voter; an echo is at most `heartbeat`.
#[derive(Clone, Debug)]
pub struct Primary {
    /// The last op of the log when the view started.
    pub start_op: OpNumber,
    /// The latest heartbeat sent.
    pub heartbeat: HeartbeatNumber,
    /// Whether it hears a quorum, and therefore admits requests.
    pub serving: bool,
    /// What is prepared and waits to be.
    pub pipeline: Pipeline,
    /// The rounds that confirm reads.
    pub rounds: Rounds,
    /// What the backups have promised for a while.
    pub lease: Lease,
    /// Whether a heartbeat leaves at the next drain.
    pub heartbeat_due: bool,
    /// Who is to lead next, while a hand-off is under way: nothing is given a place until it is over.
    pub handing_off: Option<ReplicaId>,
    /// Since when heartbeats have found storage behind by as much as may be held in memory.
    pub behind_since: Option<Instant>,
    backups: Vec<Acknowledged>,
    echoes: Vec<(HeartbeatNumber, Instant)>,
}

impl Primary {
    /// The primary of a view that starts now with a log up to `start_op`.
    #[must_use]
    pub fn new(members: u32, now: Instant, start_op: OpNumber) -> Self {
        let members = usize::try_from(members).unwrap_or(0);
        Self {
            start_op,
            heartbeat: HeartbeatNumber::ZERO,
            serving: true,
            pipeline: Pipeline::default(),
            rounds: Rounds::default(),
            lease: Lease::new(members),
            heartbeat_due: true,
            handing_off: None,
            behind_since: None,
            backups: vec![Acknowledged::after(start_op); members],
            echoes: vec![(HeartbeatNumber::ZERO, now); members],
        }
    }

    /// How far the backup at `index` is.
    #[must_use]
    pub fn backup(&self, index: ReplicaIndex) -> Acknowledged {
        self.backups.get(usize::from(index.0)).copied().unwrap_or_default()
    }

    /// Whether every backup but this replica's own place was sent everything up to `op_number`.
    #[must_use]
    pub fn has_sent(&self, me: ReplicaIndex, op_number: OpNumber) -> bool {
        let backups = self.backups.iter().zip(0_u8..);
        backups.filter(|(_, index)| *index != me.0).all(|(backup, _)| backup.sent >= op_number)
    }

    /// How far the backup at `index` is, to be changed.
    pub fn backup_mut(&mut self, index: ReplicaIndex) -> Option<&mut Acknowledged> {
        self.backups.get_mut(usize::from(index.0))
    }

    /// The backup at `index` answered the heartbeat `echo`.
    pub fn echoed(&mut self, index: ReplicaIndex, echo: HeartbeatNumber, at: Instant) {
        let echo = echo.min(self.heartbeat);
        if let Some((known, heard_at)) = self.echoes.get_mut(usize::from(index.0)) {
            *known = echo.max(*known);
            *heard_at = at;
        }
    }

    /// The highest heartbeat that `count` of the others have answered.
    #[must_use]
    pub fn echoed_by(&self, me: ReplicaIndex, count: u32) -> HeartbeatNumber {
        let others = self.others(me).map(|(echo, _)| echo);
        nth_largest(others, count).unwrap_or(self.heartbeat)
    }

    /// Since when at least `count` of the others have been heard.
    #[must_use]
    pub fn heard_by(&self, me: ReplicaIndex, count: u32) -> Instant {
        let others = self.others(me).map(|(_, at)| at);
        nth_largest(others, count).unwrap_or(Instant::FAR_FUTURE)
    }

    /// The op that `quorum` replicas hold, when this one holds everything up to `own`.
    #[must_use]
    pub fn held_by(&self, me: ReplicaIndex, own: OpNumber, quorum: u32) -> OpNumber {
        let held = self
            .backups
            .iter()
            .zip(0_u8..)
            .map(|(backup, index)| if ReplicaIndex(index) == me { own } else { backup.acked });
        nth_largest(held, quorum).unwrap_or(own)
    }

    fn others(
        &self,
        me: ReplicaIndex,
    ) -> impl Iterator<Item = (HeartbeatNumber, Instant)> + Clone + '_ {
        let all = self.echoes.iter().zip(0_u8..);
        all.filter(move |(_, index)| ReplicaIndex(*index) != me).map(|(echo, _)| *echo)
    }
}

/// What only a backup of a started view has.
#[derive(Clone, Debug, Default)]
pub struct Backup {
    /// When the primary was heard last; `None` if its connection broke since.
    pub heard_at: Option<Instant>,
    /// The last op acknowledged in this view.
    pub acked: OpNumber,
    /// The highest heartbeat heard in this view.
    pub heartbeat: HeartbeatNumber,
    /// The highest heartbeat answered.
    pub answered: HeartbeatNumber,
    /// Whether something has to be acknowledged although nothing moved.
    pub ack_due: bool,
    /// Entries that came before their predecessors.
    pub early: Early,
    /// Whether entries were let go, or not asked for, because storage was behind; they are asked for
    /// once there is room.
    pub behind: bool,
    /// The question for missing entries that is open.
    pub pull: Option<RequestId>,
    /// How often entries were asked for without an answer.
    pub pulls: u64,
    /// The primary's last op at the previous heartbeat, to notice what does not arrive.
    pub told: OpNumber,
}

/// What exists only between two views.
#[derive(Clone, Debug, Default)]
pub struct ViewChange {
    /// The promises; used by the primary of the new view only.
    pub votes: Votes,
    /// The view is known to have started; its log is asked for.
    pub started: bool,
    /// The log that is put together.
    pub plan: Option<Plan>,
    /// Whether the promise, or the question for the view, leaves at the next drain.
    pub say_due: bool,
    /// How often it left.
    pub said: u32,
    /// Names the question for the view.
    pub nonce: Nonce,
    /// The new primary said that its log is too far behind.
    pub forfeited: bool,
}

/// What exists only while a replica is without its log, and knows what it promised.
#[derive(Clone, Debug, Default)]
pub struct Recovering {
    /// Makes answers belong to this recovery, and not to one of an earlier life.
    pub nonce: Nonce,
    /// Whether the question leaves at the next drain.
    pub ask_due: bool,
    /// How often it left.
    pub asked: u32,
    /// Whether the current view was promised without knowing that it started, so that the promise
    /// is said: as that of a replica without a log (PROTOCOL.md, R3).
    pub promised: bool,
    /// Whether the promise leaves as soon as it is durable.
    pub promise_due: bool,
    /// The log that is put together; it is the current view's.
    pub plan: Option<Plan>,
    /// This replica led the view when it crashed.
    pub primary_restarted: bool,
}

/// A complete log on its way to storage; it counts when its write is done, in whatever status.
#[derive(Clone, Debug)]
pub struct Install {
    /// The write.
    pub id: PersistId,
    /// The view whose log it is.
    pub view: View,
    /// What is known to be committed of it.
    pub commit_number: OpNumber,
    /// The last op that stays.
    pub after: OpNumber,
    /// What comes above.
    pub entries: Vec<Entry>,
}

/// What exists only before a replica belongs to a group.
#[derive(Clone, Debug, Default)]
pub struct Genesis {
    /// Makes answers belong to this round.
    pub nonce: Nonce,
    /// The disks of those who said that they have no certificate.
    pub disks: BTreeMap<ReplicaId, DiskId>,
    /// Who agreed to the founding; `None` in the first round.
    pub agreed: Option<ReplicaSet>,
    /// How often the current round was asked.
    pub asked: u32,
    /// Everyone heard of in any round.
    pub heard: ReplicaSet,
    /// A certificate was found and is being written.
    pub adopting: bool,
    /// Whether this replica founds the group.
    pub founder: bool,
    /// Who told of which certificate that does not name this disk.
    pub told: BTreeMap<ReplicaId, (Certificate, Epoch)>,
    /// The group is known and this disk is not its: everything comes back from the others.
    pub rebuild: Option<Rebuild>,
    /// This disk does not count any more; the node stops when that is durable.
    pub leaving: Option<Leaving>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaIndex = ReplicaIndex(0);

    #[test]
    fn an_op_is_held_when_a_quorum_acknowledged_it() {
        let mut primary = Primary::new(3, Instant(0), OpNumber(0));
        primary.backup_mut(ReplicaIndex(1)).unwrap().acked = OpNumber(5);
        assert_eq!(primary.held_by(ME, OpNumber(7), 2), OpNumber(5));
        assert_eq!(primary.held_by(ME, OpNumber(3), 2), OpNumber(3));
    }

    #[test]
    fn a_solo_primary_holds_what_is_durable() {
        let primary = Primary::new(1, Instant(0), OpNumber(0));
        assert_eq!(primary.held_by(ME, OpNumber(7), 1), OpNumber(7));
        assert_eq!(primary.heard_by(ME, 0), Instant::FAR_FUTURE);
    }

    #[test]
    fn an_echo_is_never_ahead_of_the_heartbeat() {
        let mut primary = Primary::new(3, Instant(0), OpNumber(0));
        primary.heartbeat = HeartbeatNumber(4);
        primary.echoed(ReplicaIndex(1), HeartbeatNumber(9), Instant(3));
        assert_eq!(primary.echoed_by(ME, 1), HeartbeatNumber(4));
        assert_eq!(primary.echoed_by(ME, 2), HeartbeatNumber(0));
        assert_eq!(primary.heard_by(ME, 1), Instant(3));
    }
}
