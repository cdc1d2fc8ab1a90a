//! Commit and execution: the only writer of the commit number (VRR §4.1 steps 5 to 7).

use std::cmp::min;

use crate::{
    execution::work::{Evicted, Executed, Work},
    model::{
        entry::Entry,
        message::{Committed, ForwardReply, Message, Outcome, Rejection, Reply},
        mutants::Mutant,
        time::Now,
        types::{Checksum, OpNumber, Peer, RequestId},
    },
    ports::storage::Anchor,
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Fatal, Input, Output},
    },
    state::{
        progress::Purpose,
        status::{Role, Status},
    },
};

/// The most entries handed to the executor as one item.
const WORK_OPS_MAX: u64 = 256;
/// The most bytes of entries handed to the executor as one item, or read back for it.
const WORK_BYTES_MAX: u64 = 1 << 20;

impl Replica {
    /// What is known to be committed, with the entry that proves which history it is about.
    pub(in crate::replica) fn committed(&self) -> Committed {
        Committed {
            op_number: self.commit_number,
            checksum: self.log.checksum_of(self.commit_number).unwrap_or(Checksum::ZERO),
        }
    }

    /// VRR §4.1 step 7: a backup learns what is committed; only from the primary of the view whose
    /// log it holds.
    pub(in crate::replica) fn commit_through(
        &mut self,
        from: Origin,
        known: Committed,
    ) -> Result<(), Ignored> {
        self.require_same_entry(from, known.op_number, known.checksum)?;
        self.advance_commit(known.op_number);
        Ok(())
    }

    /// The only writer of the commit number: never back, never beyond the log.
    pub(in crate::replica) fn advance_commit(&mut self, known: OpNumber) {
        let beyond = self.mutant(Mutant::CommitBeyondLog);
        let through = if beyond { known } else { min(known, self.log.op_number()) };
        if through > self.commit_number || self.mutant(Mutant::CommitRegresses) {
            self.commit_number = through;
            self.failed_views = 0;
        }
    }

    /// VRR §4.1 step 5: what a quorum holds is committed.
    pub(in crate::replica) fn try_commit(&mut self) {
        let unsynced = self.mutant(Mutant::PrimaryCountsUnsynced);
        let own = if unsynced { self.log.op_number() } else { self.log.durable_op() };
        let before = self.commit_number;
        let Status::Normal(Role::Primary(primary)) = &self.status else { return };
        let short = u32::from(self.mutant(Mutant::CommitShortOfQuorum));
        let held = primary.held_by(self.index, own, self.membership.quorum() - short);
        self.advance_commit(held);
        let bytes = self.log.bytes_of(before.next(), self.commit_number);
        if let Status::Normal(Role::Primary(primary)) = &mut self.status {
            primary.pipeline.committed(bytes);
        }
    }

    /// In a group of one that keeps its log in memory, nobody and no disk has to be waited for.
    pub(in crate::replica) fn commit_alone(&mut self) {
        if self.membership.quorum() == 1 && self.log.is_volatile() {
            // Nobody else shares it, so nothing else made it a run.
            self.log.close();
            self.try_commit();
        }
    }

    /// Hands committed entries to the executor, and queries whose turn has come.
    pub(in crate::replica) fn order_execution(&mut self) {
        let settled = self.settle_state();
        if !settled && matches!(self.status, Status::Blank(_)) {
            return;
        }
        let ahead = self.progress.applied.plus(u64::from(self.config.execute_ops_max));
        let reply = matches!(self.status, Status::Normal(Role::Primary(_)));
        let early = reply && self.mutant(Mutant::ReplyBeforeCommit);
        let limit = min(if early { self.log.op_number() } else { self.commit_number }, ahead);
        let bytes_max = u64::from(self.config.pipeline_bytes_max);
        while settled
            && self.progress.ordered < limit
            && self.progress.executing_bytes() < bytes_max
        {
            let from = self.progress.ordered.next();
            let through = min(limit, self.progress.ordered.plus(WORK_OPS_MAX));
            let mut entries = self.log.run(from, through, WORK_BYTES_MAX);
            if entries.is_empty() {
                self.fetch_for_execution(from, min(limit, from.plus(4 * WORK_OPS_MAX)));
                break;
            }
            let at_checkpoint = self.end_at_checkpoint(&mut entries);
            let Some(last) = entries.last().map(|last| Anchor::of(&last.header)) else { break };
            self.progress.hand(last.op_number, entries.bytes());
            if !reply {
                self.progress.silent = self.progress.ordered;
            }
            self.out.push_back(Output::Execute(Work::Entries { entries, reply }));
            if at_checkpoint {
                self.order_checkpoint(last);
            }
        }
        self.log.evict(self.commit_number, self.config.log_cache_bytes_max);
        while let Some(ready) = self.reads.pop_ready(self.progress.ordered) {
            self.out.push_back(Output::Execute(Work::Query {
                to: ready.read.to,
                client: ready.read.client,
                request_number: ready.read.request_number,
                query: ready.read.query,
                time: core::time::Duration::from_nanos(ready.time),
            }));
        }
    }

    fn fetch_for_execution(&mut self, from: OpNumber, through: OpNumber) {
        if !self.progress.is_fetching() && !self.repair.is_damaged(from) {
            let request = self.next_question();
            self.fetch(request, Purpose::Execute, from, through, WORK_BYTES_MAX);
        }
    }

    pub(in crate::replica) fn fetch(
        &mut self,
        request: RequestId,
        purpose: Purpose,
        from: OpNumber,
        through: OpNumber,
        bytes_max: u64,
    ) {
        self.progress.fetching(request, purpose, from);
        self.out.push_back(Output::Fetch { request, from, through, bytes_max });
    }

    /// Local storage answered.
    pub(in crate::replica) fn on_fetched(
        &mut self,
        now: Now,
        request: RequestId,
        entries: Vec<Entry>,
    ) {
        match self.progress.fetched(request) {
            // It was released since; the state is that of a checkpoint above it.
            Some((Purpose::Execute, from)) if from <= self.progress.ordered => {}
            Some((Purpose::Execute, op_number)) if entries.is_empty() => {
                self.fatal(Fatal::StorageLied { op_number });
            }
            Some((Purpose::Execute, _)) => {
                for entry in entries {
                    // What a view change replaced meanwhile is above the commit number, and is not
                    // asked for here.
                    if entry.header.op_number <= self.commit_number && !self.log.fill(&entry) {
                        let op_number = entry.header.op_number;
                        self.fatal(Fatal::StorageLied { op_number });
                        return;
                    }
                }
            }
            Some((Purpose::Scrub, _)) => {
                let bytes = entries.iter().map(|entry| entry.header.entry_bytes()).sum();
                let last = entries.last().map(|last| last.header.op_number);
                self.scrub_on(now, last.unwrap_or(OpNumber::ZERO), bytes);
            }
            Some((Purpose::Serve { to, request }, _)) => self.serve_fetched(to, request, entries),
            None => {}
        }
    }

    /// VRR §4.1 step 6: the executor has applied more; the primary answers the clients.
    pub(in crate::replica) fn on_executed(&mut self, now: Now, executed: Executed) {
        if let Some(restored) = &executed.restored {
            self.on_restored(restored);
        }
        self.applied_through(min(executed.through, self.progress.ordered), &executed.evicted);
        for id in &executed.taken {
            self.on_taken(now, *id);
        }
        if matches!(self.status, Status::Normal(Role::Primary(_))) {
            self.reply_all(executed.replies);
        }
        for closed in &executed.evicted {
            if self.admitted.get(closed.client).is_none() {
                self.routes.forget(closed.client);
            }
        }
    }

    /// Whether `input` says no more than that a backup executed some of what it was given, when
    /// everything committed was given: nothing to say or to do follows from that.
    pub(in crate::replica) fn is_progress_only(&self, input: &Input) -> bool {
        let Input::Executed(executed) = input else { return false };
        let Executed { through: _, replies: _, evicted, taken, restored } = executed;
        matches!(self.status, Status::Normal(Role::Backup(_)))
            && self.progress.ordered >= self.commit_number
            && evicted.is_empty()
            && taken.is_empty()
            && restored.is_none()
    }

    /// Notes what the entries up to `through` did to their clients.
    fn applied_through(&mut self, through: OpNumber, evicted: &[Evicted]) {
        let mut evicted = evicted.iter().peekable();
        let mut run = [].as_slice();
        while self.progress.applied < through {
            let next = self.progress.applied.next();
            if run.is_empty() {
                run = self.log.run_from(next);
            }
            if let Some((entry, rest)) = run.split_first() {
                run = rest;
                // Of requests of one client behind each other the last says all.
                let goes_on = next < through
                    && rest.first().is_some_and(|it| it.header.follows(&entry.header));
                if !goes_on {
                    self.admitted.executed(&entry.header);
                }
            }
            while let Some(closed) = evicted.next_if(|closed| closed.by <= next) {
                self.admitted.evicted(closed.client, closed.session);
                if let Status::Normal(Role::Primary(primary)) = &mut self.status {
                    primary.pipeline.forget(closed.client);
                }
            }
            self.progress.applied = next;
        }
    }

    /// Answers the client in every way that there is to it.
    pub(in crate::replica) fn reply(&mut self, reply: Reply) {
        let mut ways = self.routes.get(reply.client);
        let (Some(first), other) = (ways.next(), ways.next()) else { return };
        if let Some(other) = other {
            self.reply_to(first, reply.clone());
            self.reply_to(other, reply);
        } else {
            self.reply_to(first, reply);
        }
    }

    fn reply_to(&mut self, to: Peer, reply: Reply) {
        match to {
            _ if reply.outcome == Outcome::Evicted => {
                self.reject(to, reply.client, reply.request_number, Rejection::Evicted);
            }
            Peer::Client(_) => self.send_client(to, Message::Reply(reply)),
            Peer::Replica(via) => {
                self.send(via, Message::ForwardReply(ForwardReply::Reply(reply)));
            }
        }
    }
}
