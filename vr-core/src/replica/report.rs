//! The replica at one instant, in numbers.

use crate::{
    model::{
        message::Standing,
        time::Now,
        types::{OpNumber, ReplicaId, ReplicaIndex},
    },
    replica::{
        Replica,
        io::{Queue, ReplicaStatus},
    },
    state::{
        incoming::Incoming,
        status::{Role, Status},
    },
};

impl Replica {
    /// A checkpoint on its way here, as [`ReplicaStatus::snapshot`].
    #[must_use]
    pub fn snapshot_extent(&self) -> Option<(OpNumber, u32, u32)> {
        self.incoming.as_ref().map(Incoming::extent)
    }

    /// The last op of the log, holes or not.
    #[must_use]
    pub fn last_op(&self) -> OpNumber {
        self.told_op_number()
    }

    /// Whether the state contains what the log had through `through`, and hardly less than is known to
    /// be committed: whatever it was made of, it is made.
    #[must_use]
    pub fn has_state(&self, through: OpNumber) -> bool {
        let behind = self.commit_number.since(self.progress.applied);
        matches!(self.status, Status::Normal(_))
            && self.progress.restoring().is_none()
            && self.progress.found().is_none()
            && self.progress.applied >= through.max(OpNumber(1))
            && behind < u64::from(self.config.execute_ops_max)
    }

    fn standings(&self, now: Now) -> Vec<(ReplicaId, Standing)> {
        let told = |index| self.peers.standing(index, now.monotonic);
        self.others().into_iter().filter_map(|(id, index)| Some((id, told(index)?))).collect()
    }

    /// While blank: the members that have not answered yet.
    fn awaited(&self) -> Vec<ReplicaId> {
        let Status::Blank(genesis) = &self.status else { return Vec::new() };
        let others = self.others().into_iter();
        others.filter(|(_, index)| !genesis.heard.contains(*index)).map(|(id, _)| id).collect()
    }

    /// Where this replica stands, for operators and tests.
    #[must_use]
    pub fn status(&self, now: Now) -> ReplicaStatus {
        let members = self.membership.voters().to_vec();
        let indexed = members.iter().copied().zip((0_u8..).map(ReplicaIndex));
        let (mut serving, mut handing_off, mut acknowledged) = (false, None, Vec::new());
        let (mut foreign_certificate, mut rebuilding) = (None, false);
        let (mut pipeline_ops, mut pipeline_bytes) = (0, 0);
        match &self.status {
            Status::Normal(Role::Primary(primary)) => {
                serving = primary.serving;
                handing_off = primary.handing_off;
                acknowledged =
                    indexed.map(|(id, index)| (id, primary.backup(index).acked)).collect();
                pipeline_ops = self.log.op_number().since(self.commit_number);
                pipeline_bytes = primary.pipeline.bytes();
            }
            Status::Blank(genesis) => {
                foreign_certificate = genesis.told.keys().next().copied();
                rebuilding = genesis.rebuild.is_some();
            }
            Status::Normal(Role::Backup(_)) | Status::ViewChange(_) | Status::Recovering(_) => {}
        }
        ReplicaStatus {
            replica: self.me,
            members,
            status: self.told_status(),
            view: self.view,
            durable_view: self.promise.view(),
            log_view: self.promise.log_view(),
            primary: self.primary(),
            op_number: self.told_op_number(),
            durable_op_number: self.log.durable_op(),
            commit_number: self.commit_number,
            applied: self.progress.applied,
            checkpoint: self.checkpoints.held(),
            checkpoint_due: self.checkpoints.due(),
            checkpoint_taken: self.checkpoints.latest().op_number,
            checkpoints_differ: self.checkpoints.differing(),
            log_base: self.log.base().op_number,
            resting_for: self.checkpoints.resting_for(now.monotonic, self.log.op_number()),
            snapshot: self.snapshot_extent(),
            log_bytes: self.log.bytes(),
            state_waits: self.progress.found().map(|state| state.op_number),
            restoring: self.progress.restoring(),
            clients: self.admitted.len(),
            heard: self.peers.heard_set(self.index, now.monotonic),
            serving,
            leased_for: self.leased_for(now),
            handing_off,
            acknowledged,
            awaited: self.awaited(),
            trust: self.promise.durable().trust,
            durability: self.promise.durable().durability,
            incarnation: self.promise.incarnation(),
            epoch: self.epoch(),
            inherited: self.certificate().map_or_else(Vec::new, |it| it.inherited.clone()),
            standings: self.standings(now),
            rebuilding,
            may_found: self.may_found(),
            foreign_certificate,
            damaged: self.repair.extent(),
            repair_asked: self.repair.asked(),
            repaired: self.repair.repaired(),
            incomplete: self.is_incomplete(),
            writes_pending: self.writes.pending(),
            oldest_write_age: self.writes.age(now.monotonic),
            pipeline_ops,
            pipeline_bytes,
            heartbeats_missed: self.peers.heartbeats_missed(),
            queues: self.queues(),
            ignored: self.ignored,
        }
    }

    /// Whether clients wait for something that only this replica can bring to its end: what it
    /// prepared, or what it holds for the primary.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let prepared = match &self.status {
            Status::Normal(Role::Primary(_)) => self.log.op_number() > self.commit_number,
            Status::Blank(_)
            | Status::Normal(Role::Backup(_))
            | Status::ViewChange(_)
            | Status::Recovering(_) => false,
        };
        prepared || !self.forwards.is_empty()
    }

    /// How full the queues are. What a primary found when its view started may be more than it
    /// would have admitted, and counts from when that is committed; its clients, from when it is
    /// executed.
    fn queues(&self) -> [Queue; 18] {
        let config = &self.config;
        let (mut ops, mut bytes, mut queued, mut parked) = (0, 0, 0, 0);
        let (mut early, mut early_bytes, mut undurable) = (0, 0, 0);
        let (mut clients, mut routes, mut queued_bytes, mut parked_bytes) = (0, 0, 0, 0);
        match &self.status {
            Status::Normal(Role::Primary(primary)) => {
                if self.commit_number >= primary.start_op {
                    ops = self.log.op_number().since(self.commit_number);
                    bytes = primary.pipeline.bytes();
                }
                if self.progress.applied >= primary.start_op {
                    (clients, routes) = (self.admitted.len(), count(self.routes.len()));
                }
                queued_bytes = primary.pipeline.queued_bytes();
                parked_bytes = primary.pipeline.parked_bytes();
                queued = primary.pipeline.queued();
                parked = primary.pipeline.parked_most();
                undurable = self.log.undurable_bytes();
            }
            Status::Normal(Role::Backup(backup)) => {
                (early, early_bytes) = (backup.early.len(), backup.early.bytes());
                undurable = self.log.undurable_bytes();
            }
            Status::Blank(_) | Status::ViewChange(_) | Status::Recovering(_) => {}
        }
        let bytes_max = config.pipeline_bytes_max.saturating_add(config.request_bytes_max);
        let executing = self.progress.executing();
        let used_max = config.queue_bytes_max;
        let waiting = |used| Queue { limit: "queue_bytes_max", used, used_max };
        [
            queue("clients_max", clients, config.sessions_max()),
            queue("clients_max", routes, config.sessions_max()),
            queue("pipeline_ops_max", ops, config.pipeline_ops_max),
            queue("pipeline_ops_max", count(queued), config.pipeline_ops_max),
            queue("pipeline_ops_max", count(early), config.pipeline_ops_max),
            queue("pipeline_bytes_max", bytes, bytes_max.saturating_add(128)),
            queue("pipeline_bytes_max", early_bytes, config.pipeline_bytes_max),
            Queue {
                limit: "undurable_bytes_max",
                used: undurable.saturating_add(early_bytes),
                used_max: config.undurable_and_early_bytes_max(),
            },
            Queue {
                limit: "log_bytes_max",
                used: self.log.bytes(),
                used_max: config.log_bytes_max,
            },
            Queue {
                limit: "log_ops_max",
                used: self.log.op_number().since(self.log.base().op_number),
                used_max: config.log_ops_max,
            },
            waiting(queued_bytes),
            waiting(parked_bytes),
            waiting(self.forwards.bytes()),
            waiting(self.reads.bytes()),
            queue("window", count(parked), config.window),
            queue("execute_ops_max", executing, config.execute_ops_max),
            queue("forward_ops_max", count(self.forwards.len()), config.forward_ops_max),
            queue("reads_max", count(self.reads_held()), config.reads_max),
        ]
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn queue(limit: &'static str, used: impl Into<u64>, used_max: u32) -> Queue {
    Queue { limit, used: used.into(), used_max: u64::from(used_max) }
}
