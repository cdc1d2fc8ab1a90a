//! Catching up: missing entries from any peer that holds the chain (VRR §5.2, without truncation).

use crate::{
    model::{
        entries::{Entries, GetEntries, GetHeaders, Headers, Wanted},
        entry::Entry,
        message::Message,
        time::Now,
        types::{Checksum, OpNumber, ReplicaId, RequestId},
    },
    ports::storage::Anchor,
    replica::{Origin, Replica, ignored::Ignored},
    state::{
        progress::Purpose,
        status::{Role, Status},
        timers::Timer,
    },
};

impl Replica {
    /// Asks for the entries after the last one, one question at a time; the primary first, and
    /// after a silence everybody who is known to be ahead. Nothing is asked for that there is
    /// no room for yet.
    pub(in crate::replica) fn begin_pull(&mut self, now: Now) {
        if let Err(no_room) = self.require_room() {
            let _why = self.let_go(no_room, true);
            return;
        }
        let op_number = self.log.op_number();
        let request = self.next_question();
        let bytes_max = self.config.transfer_bytes_max;
        let mut peers = vec![self.primary()];
        let ahead = self.peers.ahead(self.view, op_number);
        peers.extend(ahead.filter_map(|index| self.membership.voter_at(index)));
        let Status::Normal(Role::Backup(backup)) = &mut self.status else { return };
        if backup.pull.is_some() || self.incoming.is_some() {
            return;
        }
        backup.pull = Some(request);
        let turn = usize::try_from(backup.pulls).unwrap_or(0).checked_rem(peers.len());
        let to = turn.and_then(|turn| peers.get(turn)).copied();
        self.timers.arm(Timer::Pull, now.monotonic + self.config.retry_interval);
        let wanted = Wanted::From(op_number.next());
        let question = GetEntries { request, wanted, bytes_max };
        if let Some(to) = to.filter(|to| *to != self.me) {
            self.send(to, Message::GetEntries(question));
        }
    }

    pub(in crate::replica) fn on_pull_timer(&mut self, now: Now) {
        let op_number = self.log.op_number();
        let Status::Normal(Role::Backup(backup)) = &mut self.status else { return };
        backup.pull = None;
        backup.pulls = backup.pulls.saturating_add(1);
        if backup.told > op_number || !backup.early.is_empty() {
            self.begin_pull(now);
        }
    }

    /// Entries that were asked for, by a plan or by a backup that lags.
    pub(in crate::replica) fn on_entries(
        &mut self,
        now: Now,
        from: Origin,
        m: Entries,
    ) -> Result<(), Ignored> {
        if let Some(plan) = self.plan_asking(m.request) {
            if !plan.add_entries(m.entries) {
                plan.is_lacked_by(from.index);
                self.suspect_unobtainable(now);
                return Err(Ignored::NotHeld);
            }
            plan.answered();
            self.advance_plan(now);
            return Ok(());
        }
        if self.repair.question() == Some(m.request) {
            return self.on_repair_entries(now, m.entries);
        }
        let Status::Normal(Role::Backup(backup)) = &mut self.status else {
            return Err(Ignored::Unasked);
        };
        if backup.pull != Some(m.request) {
            return Err(Ignored::Unasked);
        }
        if from.view != self.view {
            return Err(Ignored::OldView);
        }
        if m.entries.is_empty() {
            return Err(Ignored::NotHeld);
        }
        backup.pull = None;
        backup.pulls = 0;
        self.timers.disarm(Timer::Pull);
        if let Err(no_room) = self.require_room() {
            return Err(self.let_go(no_room, true));
        }
        for entry in m.entries {
            self.take_entry(from, entry)?;
        }
        self.take_early(from)?;
        self.pull_on(now);
        Ok(())
    }

    /// Storage has come closer, or the log is shorter: what was let go meanwhile is asked for as soon
    /// as there is room.
    pub(in crate::replica) fn pull_what_was_let_go(&mut self, now: Now) {
        let has_room = self.require_room().is_ok();
        if let Status::Normal(Role::Backup(backup)) = &mut self.status
            && has_room
            && core::mem::take(&mut backup.behind)
        {
            self.begin_pull(now);
        }
    }

    /// Goes on asking while more is known to be missing.
    fn pull_on(&mut self, now: Now) {
        let op_number = self.log.op_number();
        if let Status::Normal(Role::Backup(backup)) = &self.status
            && (backup.told > op_number || !backup.early.is_empty())
        {
            self.begin_pull(now);
        }
    }

    /// Headers that lead to a known checksum never change, so every status answers.
    pub(in crate::replica) fn on_get_headers(
        &mut self,
        from: Origin,
        m: &GetHeaders,
    ) -> Result<(), Ignored> {
        let holds = self.log.checksum_of(m.through) == Some(m.checksum);
        let count_max = usize::try_from(self.config.transfer_headers_max).unwrap_or(usize::MAX);
        let through = Anchor { op_number: m.through, checksum: m.checksum };
        if m.through <= self.log.base().op_number {
            self.send_released(from.id, m.request);
            return Ok(());
        }
        let headers = match self.repair.holes() {
            Some(holes) => holes.headers(m.from, through, count_max),
            None if holds && m.from <= m.through => self.log.headers(m.from, m.through, count_max),
            None => Vec::new(),
        };
        self.send(from.id, Message::Headers(Headers { request: m.request, headers }));
        Ok(())
    }

    /// Entries by op and checksum never change, so every status answers; entries from an op on are
    /// only told within a view.
    pub(in crate::replica) fn on_get_entries(
        &mut self,
        now: Now,
        from: Origin,
        m: GetEntries,
    ) -> Result<(), Ignored> {
        let bytes_max = u64::from(m.bytes_max.min(self.config.transfer_bytes_max));
        match m.wanted {
            Wanted::Exact(wanted) => {
                self.serve_exact(from.id, m.request, &wanted, bytes_max);
                Ok(())
            }
            Wanted::From(first) => {
                self.require_started(now, from)?;
                let through = self.log.op_number();
                self.serve_range(from.id, m.request, first, through, bytes_max);
                Ok(())
            }
        }
    }

    fn serve_range(
        &mut self,
        to: ReplicaId,
        request: RequestId,
        first: OpNumber,
        through: OpNumber,
        bytes_max: u64,
    ) {
        if first <= self.log.base().op_number {
            self.send_released(to, request);
            return;
        }
        let entries = self.log.entries(first, through, bytes_max);
        if entries.is_empty() && self.log.holds(first) && first <= self.log.durable_op() {
            let through = through.min(self.log.durable_op());
            self.serve_stored(to, request, (first, through), bytes_max);
            return;
        }
        let entries = entries.to_vec();
        self.send(to, Message::Entries(Entries { request, entries }));
    }

    /// Answers with what storage reads back.
    fn serve_stored(
        &mut self,
        to: ReplicaId,
        request: RequestId,
        (first, through): (OpNumber, OpNumber),
        bytes_max: u64,
    ) {
        if self.progress.can_serve(to) {
            let question = self.next_question();
            let purpose = Purpose::Serve { to, request };
            self.fetch(question, purpose, first, through, bytes_max);
        }
    }

    /// Answers with what is in memory; with what has to be read back only if nothing is.
    fn serve_exact(
        &mut self,
        to: ReplicaId,
        request: RequestId,
        wanted: &[(OpNumber, Checksum)],
        bytes_max: u64,
    ) {
        let held = |(op_number, checksum): &&(OpNumber, Checksum)| match self.repair.holes() {
            Some(holes) => holes.holds(*op_number, *checksum),
            None => {
                let header = self.log.header(*op_number);
                let is_here = || self.log.entry(*op_number).is_some();
                header.is_some_and(|header| header.checksum == *checksum)
                    && (!self.repair.is_damaged(*op_number) || is_here())
            }
        };
        let held: Vec<OpNumber> = wanted.iter().filter(held).map(|(op, _)| *op).collect();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for op_number in &held {
            let Some(entry) = self.log.entry(*op_number) else { continue };
            bytes += entry.header.entry_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        let released = |(op, _): &(OpNumber, Checksum)| *op <= self.log.base().op_number;
        if held.is_empty() && wanted.iter().any(released) {
            self.send_released(to, request);
            return;
        }
        match (entries.is_empty(), held.first(), held.last()) {
            (true, Some(first), Some(last)) if self.repair.holes().is_some() => {
                self.serve_stored(to, request, (*first, *last), bytes_max);
            }
            (true, Some(first), Some(last)) => {
                self.serve_range(to, request, *first, *last, bytes_max);
            }
            (true, None, _) | (true, _, None) | (false, _, _) => {
                self.send(to, Message::Entries(Entries { request, entries }));
            }
        }
    }

    /// Storage returned what a peer asked for. Entries that a view change replaced meanwhile do
    /// no harm: whoever asked checks every one against what it wants.
    pub(in crate::replica) fn serve_fetched(
        &mut self,
        to: ReplicaId,
        request: RequestId,
        entries: Vec<Entry>,
    ) {
        self.send(to, Message::Entries(Entries { request, entries }));
    }
}
