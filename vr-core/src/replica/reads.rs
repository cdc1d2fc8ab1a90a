//! Linearizable reads without a place in the log: the read index (PROTOCOL.md "Reads").

use crate::{
    execution::work::Work,
    model::{
        certificate::Certificate,
        message::{Committed, Limit, Message, Query, ReadIndex, ReadIndexOk, Rejection},
        mutants::Mutant,
        read::CausalToken,
        time::{Instant, Now, nanoseconds},
        types::{OpNumber, Peer},
    },
    replica::{Origin, Replica, ignored::Ignored, io::Output},
    state::{
        reads::{LocalRead, ReadyRead},
        status::{Role, Status},
        timers::Timer,
    },
};

impl Replica {
    /// A client's query waits for the next round, its own or the primary's.
    pub(in crate::replica) fn read_linearizable(
        &mut self,
        from: Peer,
        m: Query,
    ) -> Result<(), Ignored> {
        if !self.reads_fit(&m) {
            let reason = Rejection::Busy(Limit::Reads);
            self.reject(from, m.client, m.request_number, reason);
            return Err(Ignored::Busy);
        }
        self.reads.push(LocalRead::of(from, m));
        Ok(())
    }

    /// Whether one more query may wait.
    pub(in crate::replica) fn reads_fit(&self, m: &Query) -> bool {
        self.reads_held() < usize::try_from(self.config.reads_max).unwrap_or(0)
            && self.config.may_wait(self.reads.bytes(), m.bytes())
    }

    /// Queries of own clients that have not been answered, those of a round under way included.
    pub(in crate::replica) fn reads_held(&self) -> usize {
        let in_round = match &self.status {
            Status::Normal(Role::Primary(primary)) => primary.rounds.local(),
            Status::Normal(Role::Backup(_))
            | Status::Blank(_)
            | Status::ViewChange(_)
            | Status::Recovering(_) => 0,
        };
        self.reads.len() + in_round
    }

    /// A query that is content with what is executed here.
    pub(in crate::replica) fn read_local(&mut self, now: Now, from: Peer, m: Query) {
        let (time, _) = self.clock.read(now, self.config.clock_jump_max);
        self.out.push_back(Output::Execute(Work::Query {
            to: from,
            client: m.client,
            request_number: m.request_number,
            query: m.query,
            time: core::time::Duration::from_nanos(time),
        }));
    }

    /// A query that is content with what is executed here, once that is as much as somebody has
    /// seen.
    pub(in crate::replica) fn read_causal(
        &mut self,
        now: Now,
        from: Peer,
        m: Query,
        token: CausalToken,
    ) -> Result<(), Ignored> {
        if token.epoch > self.epoch() {
            return Err(Ignored::OtherEpoch);
        }
        let index = self.survived_of(token);
        if self.progress.ordered >= index || self.mutant(Mutant::TokenUnheeded) {
            self.read_local(now, from, m);
            return Ok(());
        }
        if !self.reads_fit(&m) {
            let waited = nanoseconds(self.config.forward_timeout);
            self.reads.forget_causal(Instant(now.monotonic.0.saturating_sub(waited)));
        }
        if !self.reads_fit(&m) {
            let reason = Rejection::Busy(Limit::Reads);
            self.reject(from, m.client, m.request_number, reason);
            return Err(Ignored::Busy);
        }
        let (time, _) = self.clock.read(now, self.config.clock_jump_max);
        let read = LocalRead::of(from, m);
        self.reads.hold(now.monotonic, ReadyRead { index, time, read });
        Err(Ignored::Kept)
    }

    /// Up to which op the log has what `token` names: all of it, but for an epoch that ended by
    /// force, of which only the inherited log is left.
    fn survived_of(&self, token: CausalToken) -> OpNumber {
        let forced = self.certificate().into_iter().flat_map(Certificate::forced);
        let ended = forced.filter(|inherited| inherited.epoch > token.epoch);
        ended.map(|inherited| inherited.op_number).fold(token.op_number, Ord::min)
    }

    /// The primary begins a round when reads wait and none is under way; a backup asks the
    /// primary, with one question for all that wait.
    pub(in crate::replica) fn begin_reads(&mut self, now: Now) {
        let retry = now.monotonic + self.config.retry_interval;
        let index = self.commit_number;
        let early = self.mutant(Mutant::ReadBeforeStart);
        match &mut self.status {
            Status::Normal(Role::Primary(primary)) => {
                let waiting = self.reads.has_waiting() || primary.rounds.has_waiting();
                let may = primary.serving && (early || index >= primary.start_op);
                if waiting && may && !primary.rounds.is_in_flight() {
                    let local = self.reads.take_waiting();
                    primary.rounds.begin(primary.heartbeat.next(), index, local);
                    primary.heartbeat_due = true;
                }
            }
            Status::Normal(Role::Backup(_)) => {
                if self.reads.has_waiting() && !self.reads.is_asked() {
                    let request = self.next_question();
                    self.reads.ask(request);
                    self.timers.arm(Timer::Reads, retry);
                    let primary = self.primary();
                    self.send(primary, Message::ReadIndex(ReadIndex { request }));
                }
            }
            Status::Blank(_) | Status::ViewChange(_) | Status::Recovering(_) => {}
        }
    }

    /// A backup asks up to which op it must have executed.
    pub(in crate::replica) fn on_read_index(
        &mut self,
        from: Origin,
        m: &ReadIndex,
    ) -> Result<(), Ignored> {
        if from.view != self.view {
            return Err(Ignored::OldView);
        }
        let Status::Normal(Role::Primary(primary)) = &mut self.status else {
            return Err(Ignored::NotPrimary);
        };
        primary.rounds.ask(from.id, m.request);
        Ok(())
    }

    /// A quorum answered the round's heartbeat: nobody else was primary when the reads arrived.
    pub(in crate::replica) fn complete_round(&mut self, now: Now) {
        let asked = !self.mutant(Mutant::ReadWithoutQuorum);
        let others = if asked { self.membership.quorum() - 1 } else { 0 };
        let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
        if !primary.rounds.is_in_flight() {
            return;
        }
        let echoed = primary.echoed_by(self.index, others);
        let Some(round) = primary.rounds.complete(echoed) else { return };
        let (time, _) = self.clock.read(now, self.config.clock_jump_max);
        let index = round.index;
        self.reads.make_ready(round.local, index, time);
        for (backup, request) in round.remote {
            let answer = ReadIndexOk { request, op_number: index, time };
            self.send(backup, Message::ReadIndexOk(answer));
        }
    }

    /// The primary was primary after the question; what it had committed has to be executed here.
    pub(in crate::replica) fn on_read_index_ok(
        &mut self,
        now: Now,
        from: Origin,
        m: &ReadIndexOk,
    ) -> Result<(), Ignored> {
        self.require_started(now, from)?;
        if from.id != self.primary() {
            return Err(Ignored::NotFromPrimary);
        }
        if !self.reads.answered(m.request, m.op_number, m.time) {
            return Err(Ignored::Unasked);
        }
        self.timers.disarm(Timer::Reads);
        if let Some(checksum) = self.log.checksum_of(m.op_number) {
            let known = Committed { op_number: m.op_number, checksum };
            self.commit_through(from, known)?;
        }
        Ok(())
    }

    pub(in crate::replica) fn on_reads_timer(&mut self) {
        self.reads.unask();
    }

    /// The view changes: questions about it come to nothing, the queries themselves wait.
    pub(in crate::replica) fn interrupt_reads(&mut self) {
        self.reads.unask();
        self.timers.disarm(Timer::Reads);
        if let Status::Normal(Role::Primary(primary)) = &mut self.status {
            let local = primary.rounds.abandon();
            self.reads.put_back(local);
        }
    }

    pub(in crate::replica) fn abandon_reads_of(&mut self, peer: Peer) {
        if let Status::Normal(Role::Primary(primary)) = &mut self.status {
            let bytes = primary.rounds.disconnected(peer);
            self.reads.dropped(bytes);
        }
    }
}
