//! What goes wrong in a storm: one strike at a process, its disk or its clock, or at a link.

use core::time::Duration;

use vr_core::{
    Durability,
    model::{kind::Lane, types::ReplicaId},
};

use crate::{
    actor::Actor,
    cluster::client::Service,
    disk::damage::Damage,
    simulator::{atlas::Atlas, faults::FaultKind, storm::Storm},
};

impl<S: Service> Storm<S> {
    fn some_replica(&mut self) -> ReplicaId {
        let ids = self.group.ids();
        self.rng.pick(&ids).copied().unwrap_or_default()
    }

    /// Does something to a process, its disk or its clock, or nothing.
    pub(super) fn strike_process(&mut self, strike: u64) {
        let replica = self.some_replica();
        let [processes, disks, clocks] = [FaultKind::Process, FaultKind::Disk, FaultKind::Clock]
            .map(|k| self.faults.contains(k));
        match strike {
            0 if processes && self.may_end(replica) => {
                self.group.crash(replica);
                self.crashes += 1;
            }
            1 | 2 if processes => {
                let struck = if strike == 1 { replica } else { self.group.primary() };
                if !self.may_end(struck) {
                    return;
                }
                self.group.crash_silently(struck);
                self.crashes += 1;
                if self.rng.below(2) == 0 {
                    self.group.restart(struck);
                }
            }
            3..=5 => self.restart_the_dead(),
            6 if processes => self.group.pause(replica),
            7 if processes => {
                for id in self.group.ids() {
                    self.group.resume(id);
                }
            }
            10 if disks => self.group.hold_storage(replica),
            11 if disks => {
                for id in self.group.ids() {
                    self.group.release_storage(id);
                }
            }
            8 if processes && self.forgives() && self.rng.below(4) == 0 => {
                self.group.crash_all();
                self.crashes += u64::try_from(self.group.ids().len()).unwrap_or(0);
                self.group.start_all();
            }
            9 if disks && self.forgives() && self.rng.below(2) == 0 => {
                self.group.disk(replica).fail_next_sync();
            }
            9 if clocks => {
                let by = Duration::from_millis(self.rng.below(100_000));
                self.group.jump_clock_ahead(replica, by);
            }
            8 if clocks => {
                let by = Duration::from_millis(self.rng.below(100_000));
                self.group.jump_clock_back(replica, by);
            }
            _ => {}
        }
    }

    /// Orders a hand-off or a shutdown, or nothing. What a shutdown takes time for, others may end
    /// meanwhile, so there is none where too many may not be gone at once.
    pub(super) fn give_orders(&mut self) {
        if !self.ordering || !self.faults.contains(FaultKind::Process) {
            return;
        }
        let order = self.orders.below(16);
        let ids = self.group.ids();
        let Some(to) = self.orders.pick(&ids).copied() else { return };
        match order {
            0 => self.group.hand_off(self.group.primary(), None),
            1 => self.group.hand_off(self.group.primary(), Some(to)),
            2 if self.durability == Durability::Full => self.group.shut_down(to),
            _ => {}
        }
    }

    /// Lets a clock run at another rate, or right again, or does nothing.
    pub(super) fn strike_clock(&mut self) {
        if !self.faults.contains(FaultKind::Clock) || self.clocks.below(12) != 0 {
            return;
        }
        let ids = self.group.ids();
        let Some(replica) = self.clocks.pick(&ids).copied() else { return };
        let right = self.clocks.below(3) == 0;
        let (slowest, fastest) = self.clock_rates;
        let rate = if right { 1_000_000 } else { self.clocks.between(slowest, fastest) };
        self.group.set_clock_rate(replica, rate);
    }

    /// Damages a disk that the atlas gives free, or none.
    pub(super) fn strike_platter(&mut self) {
        let (logs, disks) = match self.durability {
            Durability::Full => (true, true),
            Durability::ViewOnly => (false, true),
            Durability::Diskless => (false, false),
        };
        let Atlas { rng, mortal, superblocks, .. } = &mut self.atlas;
        let strike = rng.below(12);
        if strike == 0
            && logs
            && let Some(replica) = rng.pick(mortal).copied()
            && let Some(damage) = rng.pick(&Damage::ALL).copied()
        {
            self.atlas.done += u64::from(self.group.damage_log(replica, damage));
        } else if strike == 1
            && *superblocks
            && disks
            && let Some(replica) = rng.pick(&self.group.ids()).copied()
        {
            self.group.damage_superblock(replica);
            self.atlas.done += 1;
        }
    }

    /// Empties a disk, or does nothing: within what is promised, no more disks are empty at once
    /// than may be down, and a group that does not exist yet loses none.
    pub(super) fn strike_whole_disk(&mut self) {
        if !self.wiping || self.wipes.below(8) != 0 {
            return;
        }
        let ids = self.group.ids();
        let spare = ids.len().saturating_sub(1) / 2;
        let away = ids.iter().filter(|id| !self.group.has_joined(**id)).count();
        let Some(replica) = self.wipes.pick(&ids).copied() else { return };
        let at_once = self.wipes.below(2) == 0;
        if away >= spare || !self.group.has_joined(replica) || !self.may_end(replica) {
            return;
        }
        self.crashes += u64::from(!self.group.is_down(replica));
        self.group.wipe(replica);
        self.wiped += 1;
        if at_once {
            self.group.restart(replica);
        }
    }

    fn restart_the_dead(&mut self) {
        for id in self.group.ids() {
            if self.group.stop_reason(id).is_some() {
                self.group.crash(id);
            }
        }
        self.group.start_all();
    }

    /// Does something to a link, or nothing.
    pub(super) fn strike_link(&mut self, strike: u64) {
        let (one, other) = (self.some_replica(), self.some_replica());
        match strike {
            3 => self.group.isolate(one),
            6 if one != other => self.group.cut(one, other),
            7 | 8 => self.group.heal(),
            9 if one != other => {
                let until = self.group.now() + Duration::from_millis(self.rng.below(2000));
                for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
                    self.group.network().clog(one.into(), other.into(), lane, until);
                }
            }
            10 if one != other => self.group.kill_connection(one, other),
            11 => {
                let mut side = self.group.ids();
                side.retain(|_| self.rng.below(2) == 0);
                // Clients are on either side, so that a deposed primary is asked for something.
                let mut clients: Vec<Actor> = self.group.clients().collect();
                clients.retain(|_| self.sides.below(2) == 0);
                let replicas = side.into_iter().map(Actor::from);
                self.group.partition(replicas.chain(clients));
            }
            _ => {}
        }
    }
}
