//! What leaves the engine: derived from differences between numbers, once per drain.

use crate::{
    model::{time::Now, types::PersistId},
    ports::storage::WriteBatch,
    replica::{Replica, io::Output},
    state::status::{Role, Status},
};

impl Replica {
    /// The next thing to do; `None` when everything that follows from the inputs has left.
    pub fn poll_output(&mut self, now: Now) -> Option<Output> {
        if self.out.is_empty() && !self.stopped && !self.drained {
            self.look(now);
        }
        self.out.pop_front()
    }

    /// Derives what follows. Apart from what takes it out, which happens more often and needs less.
    #[inline(never)]
    fn look(&mut self, now: Now) {
        self.derive(now);
        self.log.drop_released();
        let settled = self.settle(now);
        // In a started view one pass derives everything that follows from what is known.
        self.drained = !settled && matches!(self.status, Status::Normal(_));
    }

    /// In debug builds: a look that is spared finds nothing to say or to do, and changes nothing.
    pub(in crate::replica) fn assert_nothing_follows(&mut self, now: Now) {
        if cfg!(debug_assertions) {
            let before = (self.out.len(), self.marks());
            self.derive(now);
            assert!(before == (self.out.len(), self.marks()), "nothing follows: {:?}", self.out);
        }
    }

    fn marks(&self) -> [u64; 5] {
        let Self { log, commit_number, progress, timers, .. } = self;
        let ops = [log.op_number(), log.handed(), *commit_number, progress.ordered];
        let [last, handed, committed, ordered] = ops.map(|op| op.0);
        [last, handed, committed, ordered, timers.deadline().0]
    }

    /// Turns what changed since the last drain into messages, writes and work.
    fn derive(&mut self, now: Now) {
        self.step_handoff(now);
        match &self.status {
            Status::Normal(Role::Primary(_)) => {
                // What it finds may make room.
                let _execution_may_go_on = self.settle_state();
                self.place_queued(now);
                self.commit_alone();
                self.begin_reads(now);
                self.send_prepares();
                self.send_heartbeat(now);
                self.complete_round(now);
            }
            Status::Normal(Role::Backup(_)) => {
                self.tell_forwards();
                self.begin_reads(now);
                self.send_prepare_ok(now);
            }
            Status::ViewChange(_) => self.say_view_change(now),
            Status::Blank(_) => self.say_rebuild(now),
            Status::Recovering(_) => self.say_recovery(now),
        }
        self.hand_over(now);
        self.order_execution();
    }

    /// Gives storage what it does not have: new entries, and the superblock if it changed.
    ///
    /// The log part of a batch is written first. That is right here, because no entry is appended
    /// before the superblock that allows it is durable.
    pub(in crate::replica) fn hand_over(&mut self, now: Now) {
        let entries_due = self.log.handed() < self.log.op_number();
        if !entries_due && !self.promise.is_dirty() {
            return;
        }
        let id = self.writes.next(now.monotonic);
        let entries = self.log.hand_over(id);
        let superblock = self.promise.is_dirty().then(|| self.promise.hand_over(id));
        let batch = WriteBatch { entries, superblock, ..WriteBatch::default() };
        self.persist(id, batch);
    }

    /// Gives storage something to write, behind everything else.
    pub(in crate::replica) fn persist(&mut self, id: PersistId, batch: WriteBatch) {
        self.out.push_back(Output::Persist { id, batch: Box::new(batch) });
    }
}
