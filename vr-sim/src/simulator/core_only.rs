//! The first end of a storm: a quorum is mended, and must get on without the others.

use vr_core::{Durability, client::outcome::RequestError, model::types::ReplicaId};

use crate::{
    cluster::{
        Cluster,
        client::{Ended, Service},
    },
    simulator::{options::Ending, storm::Storm},
};

/// How often a session may be closed before its first request is executed.
const EVICTIONS_MAX: usize = 100;

impl<S: Service> Storm<S> {
    /// Ends the storm for just as many replicas as are needed, and for all others for ever; those
    /// that are left must execute what they are asked to, and agree. A group that is not founded
    /// yet needs all its members, so it is left out; and whoever comes back with a wiped disk needs
    /// a quorum of others, so it is not among those that are left.
    pub(super) fn heal_a_core(&mut self) {
        let mut core = self.group.ids();
        let away = core.iter().filter(|id| !self.group.has_joined(**id)).count();
        if away > core.len() - self.group.quorum() || (away > 0 && self.wiped == 0) {
            return;
        }
        let mut others = Vec::new();
        while core.len() > self.group.quorum() {
            let mortal = core.iter().position(|id| match self.durability {
                _ if !self.group.has_joined(*id) => true,
                Durability::Full => !self.atlas.spares(*id),
                Durability::ViewOnly | Durability::Diskless => !self.group.remembers(*id),
            });
            let place = mortal.unwrap_or_else(|| self.rng.position(core.len()));
            others.push(core.swap_remove(place));
        }
        if self.ending == Ending::Down {
            others.iter().for_each(|id| self.group.crash(*id));
        }
        self.group.mend_only(&core);
        if self.ending == Ending::Haunted {
            others.iter().for_each(|id| self.haunt(*id));
        }
        let client = self.group.client_without_session();
        let mut evictions = 0..EVICTIONS_MAX;
        let ended = loop {
            let call = client.ask((self.load.probe)(&mut self.rng));
            self.group.run_until_answered(call);
            let ended = self.group.ended(call);
            // While what clients had asked for is under way, they may close each other's sessions.
            let evicted = matches!(ended, Some(Ended::Failed(RequestError::ClientEvicted { .. })));
            if !evicted || evictions.next().is_none() {
                break ended;
            }
        };
        if let None | Some(Ended::Failed(_)) = ended {
            self.group.fail(
                "O9 violated: a quorum that is up and connected executes what it is asked to",
            );
        }
        if self.ending == Ending::Haunted {
            self.group.run_until(|group| agree(group, &core));
        }
    }

    /// Gives a replica that the group can do without a fault that stays.
    fn haunt(&mut self, replica: ReplicaId) {
        if self.group.is_damaged(replica) {
            return;
        }
        self.group.resume(replica);
        if self.group.stop_reason(replica).is_some() {
            self.group.crash(replica);
        }
        if !self.group.is_running(replica) && self.group.is_down(replica) {
            self.group.start(replica);
        }
        match self.rng.below(6) {
            0 => self.group.crash(replica),
            1 => self.group.pause(replica),
            2 => self.group.deafen(replica),
            3 => self.group.mute(replica),
            4 => self.group.isolate(replica),
            _ => self.group.hold_storage(replica),
        }
    }
}

/// Whether these replicas are normal in one view and have executed one log.
fn agree<S: Service>(group: &Cluster<S>, core: &[ReplicaId]) -> bool {
    let statuses = core.iter().map(|id| group.status_if_running(*id));
    let Some(statuses) = statuses.collect::<Option<Vec<_>>>() else { return false };
    let views = statuses.iter().map(|status| status.view);
    let ops = statuses.iter().flat_map(|status| [status.op_number, status.applied]);
    all_equal(views) && all_equal(ops)
}

fn all_equal<T: PartialEq>(mut items: impl Iterator<Item = T>) -> bool {
    let Some(first) = items.next() else { return true };
    items.all(|item| item == first)
}
