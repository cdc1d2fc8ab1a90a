//! What a scenario does to the replicas, their disks, clocks and links.

use core::time::Duration;

use vr_core::model::{
    encoding::entry::decode_header,
    entry::ENTRY_HEADER_BYTES,
    message::Envelope,
    types::{OpNumber, ReplicaId},
};

use crate::{
    actor::Actor,
    cluster::{Cluster, client::Service, member::Member},
    disk::{DiskControl, damage::Damage},
    network::{
        Network,
        faults::NetworkFaults,
        selection::{Messages, RuleId},
    },
    state_disk::StateDisk,
    trace::event::{Event, Fate},
};

impl<S: Service> Cluster<S> {
    fn member_mut(&mut self, replica: ReplicaId) -> Option<&mut Member<S>> {
        self.members.iter_mut().find(|member| member.id == replica)
    }

    // Processes.

    /// Ends the process of `replica`; what it had not synced is lost as the seed says, and its
    /// peers are told that their connections broke.
    pub fn crash(&mut self, replica: ReplicaId) {
        self.record(Event::Process(replica.into(), Fate::Crashed));
        self.network.crash(replica.into());
        self.end_process(replica);
    }

    /// As [`crash`](Self::crash), but nobody is told, as when a machine loses power.
    pub fn crash_silently(&mut self, replica: ReplicaId) {
        self.record(Event::Process(replica.into(), Fate::CrashedSilently));
        self.network.crash_silently(replica.into());
        self.end_process(replica);
    }

    fn end_process(&mut self, replica: ReplicaId) {
        let torn_before = self.member(replica).disk.torn();
        for member in self.members.iter_mut().filter(|member| member.id == replica) {
            member.crash(&mut self.executor);
        }
        if self.member(replica).disk.torn() > torn_before {
            self.record(Event::Disk(replica, "a write is torn".to_owned()));
        }
        self.executor.resume(replica.into());
    }

    /// Starts the process of a crashed replica again.
    ///
    /// # Panics
    /// If it runs.
    pub fn restart(&mut self, replica: ReplicaId) {
        self.start(replica);
    }

    /// Ends all processes at once, as a loss of power does.
    pub fn crash_all(&mut self) {
        for id in self.ids() {
            self.crash(id);
        }
    }

    /// Ends the process of `replica` and empties its disk; it stays down.
    pub fn wipe(&mut self, replica: ReplicaId) {
        self.crash(replica);
        if let Some(member) = self.member_mut(replica) {
            member.disk.wipe();
        }
        let now = self.now();
        crate::executor::lock(&self.witness).wiped(now, replica);
    }

    /// Stops the process of `replica` where it is, until [`resume`](Self::resume); its
    /// connections stay open.
    pub fn pause(&mut self, replica: ReplicaId) {
        self.record(Event::Process(replica.into(), Fate::Paused));
        self.executor.pause(replica.into());
    }

    /// Lets a paused process go on.
    pub fn resume(&mut self, replica: ReplicaId) {
        self.record(Event::Process(replica.into(), Fate::Resumed));
        self.executor.resume(replica.into());
    }

    // Links.

    /// The network, for what is not a verb of its own.
    pub const fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Changes what happens to messages by chance.
    pub fn set_network_faults(&mut self, faults: NetworkFaults) {
        self.network.set_faults(faults);
    }

    /// Loses everything from `from` to `to`, silently.
    pub fn cut(&mut self, from: impl Into<Actor>, to: impl Into<Actor>) {
        self.network.cut(from.into(), to.into());
    }

    /// Loses everything between the two, silently.
    pub fn cut_both(&mut self, one: impl Into<Actor>, other: impl Into<Actor>) {
        let (one, other) = (one.into(), other.into());
        self.network.cut(one, other);
        self.network.cut(other, one);
    }

    /// Undoes what [`cut_both`](Self::cut_both), or an isolation of one of the two, did between them.
    pub fn connect(&mut self, one: impl Into<Actor>, other: impl Into<Actor>) {
        let (one, other) = (one.into(), other.into());
        self.network.heal_link(one, other);
        self.network.heal_link(other, one);
    }

    /// Loses everything that `replica` would receive from other replicas.
    pub fn deafen(&mut self, replica: ReplicaId) {
        for other in self.ids().into_iter().filter(|other| *other != replica) {
            self.cut(other, replica);
        }
    }

    /// Loses everything that `replica` sends to other replicas.
    pub fn mute(&mut self, replica: ReplicaId) {
        for other in self.ids().into_iter().filter(|other| *other != replica) {
            self.cut(replica, other);
        }
    }

    /// Loses everything between `replica` and everyone else, clients as well.
    pub fn isolate(&mut self, replica: ReplicaId) {
        self.network.partition(&[replica.into()]);
    }

    /// Loses everything between the actors of `side` and all others.
    pub fn partition(&mut self, side: impl IntoIterator<Item = Actor>) {
        let side: Vec<Actor> = side.into_iter().collect();
        self.network.partition(&side);
    }

    /// Mends all links, takes back all rules made by hand, and lets held messages go on.
    pub fn heal(&mut self) {
        self.network.heal();
    }

    /// Keeps messages back until they are released.
    pub fn hold(&mut self, messages: Messages) -> RuleId {
        self.network.hold(messages)
    }

    /// Loses messages until the rule is released.
    pub fn lose(&mut self, messages: Messages) -> RuleId {
        self.network.lose(messages)
    }

    /// Takes back a rule; what it held goes on.
    pub fn release(&mut self, rule: RuleId) {
        self.network.release(rule);
    }

    /// Breaks the connection between the two, and tells both.
    pub fn kill_connection(&mut self, one: impl Into<Actor>, other: impl Into<Actor>) {
        self.network.kill_connection(one.into(), other.into());
    }

    /// Delivers to `to` the last message of `from` in the history, changed by `change`.
    ///
    /// # Panics
    /// If the history has none; see [`Network::keep_history`].
    pub fn forge(&mut self, from: ReplicaId, to: ReplicaId, change: impl FnOnce(&mut Envelope)) {
        if !self.network.forge(from.into(), to.into(), change) {
            self.fail(&format!("r{from} has not sent anything that could be changed"));
        }
    }

    // Disks.

    /// Stalls the writes of `replica` that have not begun.
    pub fn hold_storage(&mut self, replica: ReplicaId) {
        self.record(Event::Process(replica.into(), Fate::StorageStalled));
        if let Some(member) = self.member_mut(replica) {
            member.gate.close();
        }
    }

    /// Lets the stalled writes of `replica` begin.
    pub fn release_storage(&mut self, replica: ReplicaId) {
        self.record(Event::Process(replica.into(), Fate::StorageResumed));
        if let Some(member) = self.member_mut(replica) {
            member.gate.open();
        }
    }

    /// Remembers, from now on, what all disks are told, so that they can be damaged.
    pub fn keep_disk_history(&mut self) {
        for member in &mut self.members {
            member.disk.keep_history();
        }
    }

    /// Damages, in the log of `replica`, a record that a younger one shows to have been synced;
    /// false when there is none. Needs [`keep_disk_history`](Self::keep_disk_history).
    pub fn damage_log(&mut self, replica: ReplicaId, damage: Damage) -> bool {
        let mut disk = self.disk(replica);
        let mut names: Vec<String> = disk.files().into_iter().map(|(name, _)| name).collect();
        names.retain(|name| name.starts_with("wal-"));
        let damaged = names.iter().rev().any(|name| disk.damage(damage, name));
        if damaged {
            self.note(format!("the log of r{replica} is damaged: {damage:?}"));
        }
        damaged
    }

    /// Lets a bit rot in the payload of an entry in the log of `replica`; false when it is not
    /// there, or has none.
    pub fn rot_entry(&mut self, replica: ReplicaId, op_number: OpNumber) -> bool {
        self.rot_at(replica, op_number, |start| start + ENTRY_HEADER_BYTES)
    }

    /// The same in the sector that its header begins in, at its very beginning: that is the header
    /// of a batch that the entry is the first of, and nothing in the batch can be read any more.
    pub fn rot_batch(&mut self, replica: ReplicaId, op_number: OpNumber) -> bool {
        self.rot_at(replica, op_number, |start| start - start % 512)
    }

    fn rot_at(
        &mut self,
        replica: ReplicaId,
        op_number: OpNumber,
        place: fn(usize) -> usize,
    ) -> bool {
        let mut disk = self.disk(replica);
        for (name, length) in disk.files() {
            if !name.starts_with("wal-") {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            if disk.peek(&name, 0, &mut bytes).is_err() {
                continue;
            }
            let is_it = |window: &[u8]| {
                decode_header(window)
                    .is_ok_and(|header| header.op_number == op_number && header.payload_length > 0)
            };
            let starts = bytes.windows(ENTRY_HEADER_BYTES).rposition(is_it);
            let Some(at) = starts.and_then(|start| u64::try_from(place(start)).ok()) else {
                continue;
            };
            self.note(format!("op {op_number} rots on the disk of r{replica}"));
            return disk.flip_bit(&name, at, 3);
        }
        false
    }

    /// Takes the files of the log of `replica` away; the superblock stays.
    pub fn lose_log(&mut self, replica: ReplicaId) {
        self.note(format!("the log of r{replica} is gone"));
        let mut disk = self.disk(replica);
        for (name, _) in disk.files() {
            if name.starts_with("wal-") {
                disk.remove(&name);
            }
        }
    }

    /// Lets a bit rot in one of the two copies of the superblock of `replica`, always the same one.
    pub fn damage_superblock(&mut self, replica: ReplicaId) {
        self.note(format!("one superblock copy of r{replica} rots"));
        let mut disk = self.disk(replica);
        disk.flip_bit("superblock-a", 64, 3);
    }

    /// What the state machine of `replica` keeps by itself, if its state is on disk.
    ///
    /// # Panics
    /// If it is not a member.
    #[must_use]
    pub fn state_disk(&self, replica: ReplicaId) -> StateDisk {
        self.member(replica).state.clone()
    }

    /// The disk of `replica`.
    ///
    /// # Panics
    /// If it is not a member.
    #[must_use]
    pub fn disk(&self, replica: ReplicaId) -> DiskControl {
        self.member(replica).disk.clone()
    }

    // Clocks.

    /// Lets the monotonic clock of `replica` run at `millionths` of the true rate.
    pub fn set_clock_rate(&mut self, replica: ReplicaId, millionths: u64) {
        self.note(format!("clock of r{replica} runs at {millionths} millionths"));
        self.member(replica).runtime.set_rate(millionths);
        self.executor.wake_all(replica.into());
    }

    /// Lets the wall clock of `replica` jump ahead.
    pub fn jump_clock_ahead(&mut self, replica: ReplicaId, by: Duration) {
        self.note(format!("clock of r{replica} jumps ahead by {by:?}"));
        self.member(replica).runtime.jump_wall(by, false);
    }

    /// Lets the wall clock of `replica` jump back.
    pub fn jump_clock_back(&mut self, replica: ReplicaId, by: Duration) {
        self.note(format!("clock of r{replica} jumps back by {by:?}"));
        self.member(replica).runtime.jump_wall(by, true);
    }

    // Everything.

    /// Ends every fault: links, rules, chance, stalled disks, paused and crashed processes.
    pub fn mend(&mut self) {
        let everyone = self.ids();
        self.mend_only(&everyone);
    }

    /// As [`mend`](Self::mend), but of the replicas only these: the others stay as they are.
    pub fn mend_only(&mut self, replicas: &[ReplicaId]) {
        self.note(format!("{replicas:?} are mended"));
        self.network.heal();
        self.network.set_faults(NetworkFaults::none());
        for id in replicas.iter().copied() {
            self.resume(id);
            self.release_storage(id);
            self.set_clock_rate(id, 1_000_000);
            if let Some(member) = self.member_mut(id) {
                member.disk.mend();
            }
            // What failed before, or was ordered, may be heard of only later.
            let will_stop = self.disk(id).has_failed() || self.member(id).leaving.get();
            if self.stop_reason(id).is_some() || will_stop {
                self.crash(id);
            }
            if self.member(id).is_down() {
                self.start(id);
            }
        }
    }
}
