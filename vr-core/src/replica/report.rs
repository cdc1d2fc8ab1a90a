//! The replica at one instant, in numbers.

use crate::{
    model::{
        message::Standing,
        time::Now,
        types::{ReplicaId, ReplicaIndex},
    },
    replica::{Replica, io::ReplicaStatus},
    state::status::{Role, Status},
};

impl Replica {
    fn standings(&self, now: Now) -> Vec<(ReplicaId, Standing)> {
        let told = |index| self.peers.standing(index, now.monotonic);
        self.others().into_iter().filter_map(|(id, index)| Some((id, told(index)?))).collect()
    }

    /// Where this replica stands, for operators and tests.
    #[must_use]
    pub fn status(&self, now: Now) -> ReplicaStatus {
        let members = self.membership.voters().to_vec();
        let indexed = members.iter().copied().zip((0_u8..).map(ReplicaIndex));
        let (mut serving, mut acknowledged) = (false, Vec::new());
        let (mut awaited, mut foreign_certificate, mut rebuilding) = (Vec::new(), None, false);
        let (mut pipeline_ops, mut pipeline_bytes) = (0, 0);
        match &self.status {
            Status::Normal(Role::Primary(primary)) => {
                serving = primary.serving;
                acknowledged =
                    indexed.map(|(id, index)| (id, primary.backup(index).acked)).collect();
                pipeline_ops = self.log.op_number().since(self.commit_number);
                pipeline_bytes = primary.pipeline.bytes();
            }
            Status::Blank(genesis) => {
                awaited = indexed
                    .filter(|(id, index)| *id != self.me && !genesis.heard.contains(*index))
                    .map(|(id, _)| id)
                    .collect();
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
            log_bytes: self.log.bytes(),
            clients: self.admitted.len(),
            heard: self.peers.heard_set(self.index, now.monotonic),
            serving,
            acknowledged,
            awaited,
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
            ignored: self.ignored,
        }
    }
}
