//! Damaged entries come back from the other replicas (PROTOCOL.md "Repair").
//!
//! ```text
//! replica 1, damaged           any replica, in any status
//!    | -- GetHeaders(op, checksum) --> |    which entries lead there?
//!    | <--- Headers ------------------ |
//!    | -- GetEntries(op, checksum).. > |
//!    | <--- Entries ------------------ |
//!   writes them in the place of the damaged ones; only a log without holes is evidence
//! ```

use crate::{
    model::{
        durable::Durability,
        entries::{GetEntries, GetHeaders, Wanted},
        entry::Entry,
        message::Message,
        mutants::Mutant,
        time::Now,
        types::{Checksum, OpNumber, PersistId, RequestId},
    },
    ports::storage::{Anchor, Recovered, WriteBatch},
    replica::{
        Replica,
        ignored::Ignored,
        io::{Event, Fatal, Output},
    },
    state::{
        log::Log,
        progress::Purpose,
        repair::{Holes, Repair},
        status::{Status, ViewChange},
        timers::Timer,
    },
};

/// Entries asked for in one question; what does not fit into the answer is asked for again.
const QUESTION_ENTRIES_MAX: usize = 1024;
/// Bytes read at once when the log is checked.
const SCRUB_BYTES: u64 = 256 << 10;

impl Replica {
    /// Whether the log has holes, so that it is not all that this replica may have acknowledged.
    /// Then it is no evidence, and nothing is said that rests on it.
    pub(in crate::replica) const fn is_incomplete(&self) -> bool {
        self.repair.holes().is_some() || self.repair.is_dropping()
    }

    /// Whether this replica has promised a view later than its log's, and everybody was asked in
    /// vain for what the log lacks. What nobody has may be an entry that nobody else ever had.
    pub(in crate::replica) fn is_beyond_repair(&self) -> bool {
        let others = u64::try_from(self.others().len()).unwrap_or(u64::MAX);
        self.repair.unanswered() >= others && self.view > self.promise.log_view()
    }

    /// What a mutant does with damage: it takes the log for what is left below it.
    pub(in crate::replica) fn forget_damage(&mut self, now: Now, recovered: &Recovered) {
        if self.mutant(Mutant::DamageIsAbsence) && !recovered.damaged.is_empty() {
            self.repair = Repair::default();
            let id = self.writes.next(now.monotonic);
            let batch = WriteBatch { cut: Some(self.log.op_number()), ..WriteBatch::default() };
            self.persist(id, batch);
        }
    }

    /// The first step of a replica whose log is incomplete. Until it is complete again it takes no
    /// part in anything: it promises nothing new by itself, votes for no log and acknowledges
    /// nothing. It serves what it holds, by op and checksum.
    pub(in crate::replica) fn begin_repair(&mut self, now: Now) {
        self.tell_damage();
        if self.is_primary() && self.membership.len() > 1 {
            self.enter_view(now, self.view.next(), false);
        } else {
            let nonce = self.prng.nonce();
            self.status = Status::ViewChange(ViewChange { nonce, ..ViewChange::default() });
            self.timers.arm(Timer::Ping, now.monotonic + self.config.ping_interval);
        }
        self.advance_repair(now);
    }

    fn tell_damage(&mut self) {
        if let Some((first, last, count)) = self.repair.extent() {
            self.out.push_back(Output::Event(Event::DamageFound { first, last, count }));
        }
    }

    /// Does the next step of a repair, if there is one and nothing of it is under way. While a new
    /// log is being installed it is not known what will have to be repaired.
    pub(in crate::replica) fn advance_repair(&mut self, now: Now) {
        if self.install.is_some() || !self.repair.is_waiting() {
            return;
        }
        let missing = self.repair.holes_mut().and_then(|holes| holes.missing_header());
        if let Some(anchor) = missing {
            return self.ask_for_repair_headers(now, anchor);
        }
        if self.repair.holes().is_some_and(Holes::contradicts_base) {
            return self.drop_what_contradicts(now);
        }
        if self.repair.take_filled().is_some_and(|holes| {
            self.log = Log::recovered(self.log.base(), &holes.into_headers());
            true
        }) {
            return self.end_repair(now);
        }
        let here: Vec<Entry> = self
            .repair
            .wanted(QUESTION_ENTRIES_MAX)
            .filter_map(|header| {
                if header.payload_length == 0 {
                    return Some(Entry { header: *header, ..Entry::default() });
                }
                let cached = self.log.entry(header.op_number);
                cached.filter(|entry| entry.header == *header)
            })
            .collect();
        if here.is_empty() {
            self.ask_for_repair_entries(now);
        } else {
            self.write_repair(now, here);
        }
    }

    /// The chain from the last entry down does not lead to the base. If that is a checkpoint, the
    /// group has committed another entry there, and nothing above it in this history, whichever life
    /// of this replica named the checkpoint. Every history of the group leads to its beginning.
    fn drop_what_contradicts(&mut self, now: Now) {
        let op_number = self.log.base().op_number;
        if op_number == OpNumber::ZERO {
            self.fatal(Fatal::StorageLied { op_number });
            return;
        }
        let cut = self.cut_log_at_base(now);
        self.repair.drop_log(cut);
    }

    /// What storage has above the base is of another history than the base, which a quorum holds: it
    /// was never committed.
    pub(in crate::replica) fn cut_log_at_base(&mut self, now: Now) -> PersistId {
        let base = self.log.base();
        self.log = Log::recovered(base, &[]);
        let id = self.writes.next(now.monotonic);
        let batch = WriteBatch { cut: Some(base.op_number), ..WriteBatch::default() };
        self.persist(id, batch);
        id
    }

    fn ask_for_repair_headers(&mut self, now: Now, anchor: Anchor) {
        let count = u64::from(self.config.transfer_headers_max);
        let from = OpNumber(anchor.op_number.0.saturating_sub(count - 1).max(1));
        let request = self.next_question();
        let message = Message::GetHeaders(GetHeaders {
            request,
            from: from.max(self.log.base().op_number.next()),
            through: anchor.op_number,
            checksum: anchor.checksum,
        });
        self.ask_for_repair(now, request, message);
    }

    fn ask_for_repair_entries(&mut self, now: Now) {
        let wanted = self.repair.wanted(QUESTION_ENTRIES_MAX);
        let wanted: Vec<(OpNumber, Checksum)> =
            wanted.map(|header| (header.op_number, header.checksum)).collect();
        if wanted.is_empty() {
            return;
        }
        let request = self.next_question();
        let message = Message::GetEntries(GetEntries {
            request,
            wanted: Wanted::Exact(wanted),
            bytes_max: self.config.transfer_bytes_max,
        });
        self.ask_for_repair(now, request, message);
    }

    /// Asks everybody in turn, and never gives up: an entry that was acknowledged is somewhere, and
    /// if its disk is away, then only until it comes back.
    fn ask_for_repair(&mut self, now: Now, request: RequestId, message: Message) {
        let others = self.others();
        let turn = usize::try_from(self.repair.unanswered()).unwrap_or(0);
        let Some((to, index)) = turn.checked_rem(others.len()).and_then(|turn| others.get(turn))
        else {
            return;
        };
        let (to, index) = (*to, *index);
        self.repair.ask(request, index);
        let rounds = self.repair.unanswered() / u64::try_from(others.len()).unwrap_or(1).max(1);
        let factor = u32::try_from(rounds).unwrap_or(u32::MAX).clamp(1, 8);
        let pause = self.prng.jitter(self.config.retry_interval.saturating_mul(factor), 10);
        self.timers.arm(Timer::Repair, now.monotonic + pause);
        self.send(to, message);
    }

    pub(in crate::replica) fn on_repair_timer(&mut self, now: Now) {
        self.repair.give_up_question();
        self.advance_repair(now);
    }

    /// Headers that a repair asked for.
    pub(in crate::replica) fn on_repair_headers(
        &mut self,
        now: Now,
        headers: &[crate::model::entry::EntryHeader],
    ) -> Result<(), Ignored> {
        if headers.is_empty() {
            return Err(Ignored::NotHeld);
        }
        let fits = self.repair.holes_mut().is_some_and(|holes| holes.add_headers(headers));
        if !fits {
            return Err(Ignored::Malformed);
        }
        self.repair.answered();
        self.advance_repair(now);
        Ok(())
    }

    /// Entries that a repair asked for.
    pub(in crate::replica) fn on_repair_entries(
        &mut self,
        now: Now,
        mut entries: Vec<Entry>,
    ) -> Result<(), Ignored> {
        entries.retain(|entry| self.repair.wants(entry));
        if entries.is_empty() {
            return Err(Ignored::NotHeld);
        }
        self.repair.answered();
        if self.install.is_none() {
            self.write_repair(now, entries);
        }
        Ok(())
    }

    /// Puts entries in the place of the damaged ones; what waited for them goes on at once.
    fn write_repair(&mut self, now: Now, mut entries: Vec<Entry>) {
        entries.sort_by_key(|entry| entry.header.op_number);
        entries.dedup_by_key(|entry| entry.header.op_number);
        if self.repair.holes().is_none() {
            for entry in &entries {
                self.log.fill(entry);
            }
        }
        let id = self.writes.next(now.monotonic);
        self.repair.write(id, &entries);
        self.timers.disarm(Timer::Repair);
        let batch = WriteBatch { repairs: entries, ..WriteBatch::default() };
        self.persist(id, batch);
    }

    /// Writes are done, maybe a repair's.
    pub(in crate::replica) fn on_repair_persisted(&mut self, now: Now, through: PersistId) {
        if self.repair.take_dropped(through) && self.install.is_none() {
            return self.end_repair(now);
        }
        let repaired = self.repair.persisted(through);
        if repaired > 0 {
            let count = u64::try_from(repaired).unwrap_or(u64::MAX);
            self.out.push_back(Output::Event(Event::DamageRepaired { count }));
        }
        self.advance_repair(now);
    }

    /// The log is whole again: this replica is what it was, an intact one that was away.
    fn end_repair(&mut self, now: Now) {
        self.timers.disarm(Timer::Repair);
        self.clock.replay(self.log.time());
        self.rejoin_whole(now);
    }

    /// Storage could not read `op_number` back, which was asked for by `request`.
    pub(in crate::replica) fn on_unreadable(
        &mut self,
        now: Now,
        request: RequestId,
        op_number: OpNumber,
    ) {
        match self.progress.fetched(request) {
            Some((Purpose::Execute, _)) => {}
            Some((Purpose::Scrub, _)) => self.scrub_on(now, op_number, SCRUB_BYTES),
            Some((Purpose::Serve { to, request }, _)) => {
                self.serve_fetched(to, request, Vec::new());
            }
            None => return,
        }
        let holes = self.repair.holes();
        let known = holes.and_then(|holes| holes.header(op_number)).copied();
        let header = known.or_else(|| self.log.header(op_number).copied());
        // What a view change replaced meanwhile is nobody's loss.
        let Some(header) = header.filter(|_| self.install.is_none()) else { return };
        if self.repair.found(header) {
            let (first, last) = (op_number, op_number);
            self.out.push_back(Output::Event(Event::DamageFound { first, last, count: 1 }));
        }
        self.advance_repair(now);
    }

    /// Reads the next part of the log, to notice damage before the entry is needed.
    pub(in crate::replica) fn on_scrub_timer(&mut self, now: Now) {
        let durable = self.log.durable_op();
        let from = self.progress.scrubbed.next().max(self.log.base().op_number.next());
        let busy = self.writes.pending() > 0 || self.progress.is_asking();
        if busy || self.is_incomplete() || self.install.is_some() {
            self.timers.arm(Timer::Scrub, now.monotonic + self.config.heartbeat_interval);
        } else if from > durable {
            self.end_scrub_pass(now);
        } else {
            let request = self.next_question();
            self.fetch(request, Purpose::Scrub, from, durable, SCRUB_BYTES);
        }
    }

    /// A part of the log was read, up to `through`.
    pub(in crate::replica) fn scrub_on(&mut self, now: Now, through: OpNumber, bytes: u64) {
        self.progress.scrubbed = through;
        let rate = self.config.scrub_bytes_per_second.max(1);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let pause = core::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.timers.arm(Timer::Scrub, now.monotonic + pause.max(self.config.heartbeat_interval));
    }

    /// The whole log was read; the superblock is written again, which mends a copy that has rotted.
    fn end_scrub_pass(&mut self, now: Now) {
        self.progress.scrubbed = OpNumber::ZERO;
        self.promise.write_again();
        self.arm_scrub(now);
    }

    /// Lets the next pass over the log begin when it is due. A log in memory is not looked for on
    /// disk, and a superblock without one is written when a view changes and at no other time.
    pub(in crate::replica) fn arm_scrub(&mut self, now: Now) {
        let logs = self.promise.durable().durability == Durability::Full;
        if logs && self.config.scrub_bytes_per_second > 0 {
            self.timers.arm(Timer::Scrub, now.monotonic + self.config.scrub_interval);
        }
    }
}
