//! The operator's last resort in a simulated group: the next epoch, with what one replica holds.

use std::sync::{Arc, Mutex};

use vr_core::{
    CheckpointCopy, Durability, ExportScope,
    model::{entry::Entry, export::LogFacts, types::ReplicaId},
    ports::runtime::Runtime,
};
use vr_storage::{LogSource, unsafe_restart_on};

use crate::{
    cluster::{Cluster, client::Service},
    disk::DiskControl,
    executor::lock,
    prng::Prng,
};

impl<S: Service> Cluster<S> {
    /// Restarts the group by force with everything that `source`, which must run, holds. Whoever
    /// is not in `old` is stopped and gets a disk of the next epoch, to be started by hand; the
    /// processes of `old` run on, and the disks that were made for them are returned.
    ///
    /// The oracles forget the epoch before, and do not listen to `old` until
    /// [`replace_disk`](Self::replace_disk).
    ///
    /// # Panics
    /// When `source` tells no log.
    pub fn unsafe_restart(
        &mut self,
        source: ReplicaId,
        old: &[ReplicaId],
    ) -> Vec<(ReplicaId, DiskControl)> {
        self.note(format!("restarted by force with the log of r{source}, without {old:?}"));
        let (facts, checkpoint, entries) = self.export(source);
        let (base, view) = (facts.checkpoint.op_number, facts.view);
        let headers = entries.iter().map(|entry| entry.header).collect();
        let log = LogSource::held(facts, checkpoint, entries);
        let log = log.expect("a replica tells a log that is one");
        let made: Vec<_> = self.ids().into_iter().map(|id| (id, self.empty_disk(id))).collect();
        let disks = made.iter().map(|(_, disk)| disk.disk()).collect();
        let mut rng = Prng::stream(self.options.seed, "force", source.0);
        let mut entropy = || rng.next_u128();
        let begun = unsafe_restart_on(log, &[], false, disks, &mut entropy);
        begun.expect("simulated disks do not fail while nothing runs on them");
        self.options.durability = Durability::Full;
        let membership = self.addresses.to_membership();
        lock(&self.witness).restarted_by_force(&membership, base, headers, view, old);
        let mut kept = Vec::new();
        for (id, disk) in made {
            if old.contains(&id) {
                kept.push((id, disk));
            } else {
                self.crash(id);
                self.replace_disk(id, disk);
            }
        }
        kept
    }

    /// Puts another disk into the machine of `replica`, whose process must be down.
    ///
    /// # Panics
    /// If it runs.
    pub fn replace_disk(&mut self, replica: ReplicaId, disk: DiskControl) {
        assert!(self.is_down(replica), "r{replica} runs on the disk that it has");
        let now = self.now();
        lock(&self.witness).wiped(now, replica);
        for member in self.members.iter_mut().filter(|member| member.id == replica) {
            member.disk = disk.clone();
        }
    }

    fn empty_disk(&self, replica: ReplicaId) -> DiskControl {
        let rng = Prng::stream(self.options.seed, "another disk", replica.0);
        let mut disk = DiskControl::new(&self.executor, replica, rng);
        disk.set_faults(self.options.disk.clone());
        disk
    }

    /// Everything that `replica` holds, acknowledged or not.
    fn export(&mut self, replica: ReplicaId) -> (LogFacts, Option<CheckpointCopy>, Vec<Entry>) {
        let told = Arc::new(Mutex::new((Vec::new(), None)));
        let (member, telling) = (self.member(replica), Arc::clone(&told));
        let Some(handle) = member.handle() else { self.fail(&format!("r{replica} is down")) };
        member.runtime.spawn(
            "export",
            Box::pin(async move {
                let mut log = handle.export(ExportScope::WithTail).expect("it belongs to a group");
                loop {
                    let next = log.next().await.expect("nothing changes meanwhile");
                    if next.is_empty() {
                        break;
                    }
                    lock(&telling).0.extend(next);
                }
                lock(&telling).1 = Some((log.facts().clone(), log.checkpoint()));
            }),
        );
        self.run_until(|_| lock(&told).1.is_some());
        let (entries, facts) = core::mem::take(&mut *lock(&told));
        let (facts, checkpoint) = facts.expect("the export is over");
        (facts, checkpoint, entries)
    }
}
