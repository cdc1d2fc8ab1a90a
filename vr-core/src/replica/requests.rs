//! Clients' requests: admitted at the primary, held and forwarded at a backup.

use bytes::Bytes;

use crate::{
    execution::work::Work,
    model::{
        entry::{EntryHeader, EntryKind},
        message::{
            Envelope, Forward, ForwardReply, Limit, Message, Outcome, Query, Register, Rejected,
            Rejection, Reply, Request,
        },
        mutants::Mutant,
        payload::length,
        read::Read,
        time::Now,
        types::{Checksum, ClientId, OpNumber, Peer, RequestNumber},
    },
    replica::{Origin, Replica, ignored::Ignored, io::Output},
    state::{
        admitted::Known,
        status::{Role, Status},
        timers::Timer,
    },
};

impl Replica {
    /// What clients say.
    pub(in crate::replica) fn on_client_envelope(
        &mut self,
        now: Now,
        from: Peer,
        envelope: Box<Envelope>,
    ) -> Result<(), Ignored> {
        if envelope.group != self.group {
            return Err(Ignored::OtherGroup);
        }
        self.require_client_of_epoch(from, &envelope)?;
        match envelope.message {
            Message::Register(m) => self.admit(now, from, Forward::Register(m)),
            Message::Request(m) => self.on_request(now, from, m),
            Message::Requests(m) => self.on_requests(now, from, m),
            Message::Query(m) => self.on_query(now, from, m),
            Message::Reply(_)
            | Message::Replies(_)
            | Message::Rejected(_)
            | Message::Answer(_)
            | Message::Forward(_)
            | Message::ForwardReply(_)
            | Message::Prepare(_)
            | Message::PrepareOk(_)
            | Message::Commit(_)
            | Message::StartViewChange(_)
            | Message::DoViewChange(_)
            | Message::StartView(_)
            | Message::GetView(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Handoff(_)
            | Message::GetHeaders(_)
            | Message::Headers(_)
            | Message::GetEntries(_)
            | Message::Entries(_)
            | Message::Released(_)
            | Message::GetSnapshot(_)
            | Message::Snapshot(_)
            | Message::ReadIndex(_)
            | Message::ReadIndexOk(_)
            | Message::Hello(_)
            | Message::HelloOk(_)
            | Message::Found(_)
            | Message::FoundOk(_)
            | Message::Recovery(_)
            | Message::RecoveryResponse(_)
            | Message::GetCrashVector(_)
            | Message::CrashVectorIs(_) => Err(Ignored::NotForReplicas),
        }
    }

    /// A session of an earlier epoch has ended: what its client was told may be among what was lost
    /// when this one was begun by force, and then its next number never comes up. A client that
    /// knows of a later epoch is not answered from a group that was given up.
    fn require_client_of_epoch(&mut self, from: Peer, envelope: &Envelope) -> Result<(), Ignored> {
        if self.certificate().is_none() || envelope.epoch == self.epoch() {
            return Ok(());
        }
        if envelope.epoch > self.epoch() {
            return Err(Ignored::OtherEpoch);
        }
        let (client, number) = if let Message::Request(m) = &envelope.message {
            (m.client, m.request_number)
        } else if let Message::Requests(m) = &envelope.message {
            (m.client, m.first)
        } else {
            return Ok(());
        };
        self.reject(from, client, number, Rejection::Evicted);
        Err(Ignored::OtherEpoch)
    }

    pub(in crate::replica) fn on_request(
        &mut self,
        now: Now,
        from: Peer,
        m: Request,
    ) -> Result<(), Ignored> {
        if m.request_number == RequestNumber::ZERO {
            return Err(Ignored::Malformed);
        }
        let bytes = u32::try_from(m.bytes()).unwrap_or(u32::MAX);
        let bytes_max = self.config.request_bytes_max;
        if bytes > bytes_max {
            let reason = Rejection::TooLarge { bytes, bytes_max };
            self.reject(from, m.client, m.request_number, reason);
            return Err(Ignored::Busy);
        }
        self.admit(now, from, Forward::Request(m))
    }

    /// PROTOCOL.md "Normal case": the primary places the request, anybody else holds it for the
    /// primary and tells it.
    pub(in crate::replica) fn admit(
        &mut self,
        now: Now,
        from: Peer,
        request: Forward,
    ) -> Result<(), Ignored> {
        if matches!(self.status, Status::Normal(Role::Primary(_))) {
            return self.admit_as_primary(now, from, request);
        }
        if matches!(from, Peer::Replica(_)) {
            return Err(Ignored::NotPrimary);
        }
        let full = self.forwards.len() >= usize::try_from(self.config.forward_ops_max).unwrap_or(0)
            || !self.config.may_wait(self.forwards.bytes(), request.bytes());
        if full && !self.mutant(Mutant::EndlessForwards) {
            return self.busy(from, &request, Limit::Forward);
        }
        self.forwards.hold(from, request, now.monotonic);
        if !self.timers.is_armed(Timer::Forward) {
            self.timers.arm(Timer::Forward, now.monotonic + self.config.forward_timeout);
        }
        Ok(())
    }

    fn admit_as_primary(&mut self, now: Now, from: Peer, request: Forward) -> Result<(), Ignored> {
        let queue_max = usize::try_from(self.config.pipeline_ops_max).unwrap_or(usize::MAX);
        let room = self.has_room();
        let Status::Normal(Role::Primary(primary)) = &mut self.status else {
            return Err(Ignored::NotPrimary);
        };
        if !primary.serving {
            return self.busy(from, &request, Limit::NoQuorum);
        }
        if room && primary.pipeline.queued() == 0 {
            return self.place(now, from, request);
        }
        if primary.pipeline.queued() < queue_max
            && self.config.may_wait(primary.pipeline.queued_bytes(), request.bytes())
        {
            primary.pipeline.queue(from, request);
            return Ok(());
        }
        self.busy(from, &request, Limit::Pipeline)
    }

    /// Whether one more op fits into the pipeline, and may be placed there: not before it is known
    /// who has a session, and not while storage is behind by as much as may be held in memory.
    pub(in crate::replica) fn has_room(&self) -> bool {
        let Status::Normal(Role::Primary(primary)) = &self.status else { return false };
        let ops = self.log.op_number().since(self.commit_number);
        primary.handing_off.is_none()
            && !self.progress.is_restoring()
            && self.storage_keeps_up()
            && ops < u64::from(self.config.pipeline_ops_max)
            && primary.pipeline.bytes() < u64::from(self.config.pipeline_bytes_max)
    }

    /// What waited for room at a primary that leaves its view.
    pub(in crate::replica) fn take_queued(&mut self) -> Vec<(Peer, Forward)> {
        match &mut self.status {
            Status::Normal(Role::Primary(primary)) => primary.pipeline.take_queued(),
            Status::Blank(_)
            | Status::Normal(Role::Backup(_))
            | Status::ViewChange(_)
            | Status::Recovering(_) => Vec::new(),
        }
    }

    /// Places what waited for room.
    pub(in crate::replica) fn place_queued(&mut self, now: Now) {
        while self.has_room() {
            let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
            let Some((from, request)) = primary.pipeline.pop_queued() else { return };
            let _told = self.place(now, from, request);
        }
    }

    fn place(&mut self, now: Now, from: Peer, request: Forward) -> Result<(), Ignored> {
        match request {
            Forward::Register(m) => self.place_registration(now, from, &m),
            Forward::Request(m) => self.place_request(now, from, m),
        }
    }

    fn place_registration(&mut self, now: Now, from: Peer, m: &Register) -> Result<(), Ignored> {
        let payload = Bytes::copy_from_slice(&m.nonce.0.to_le_bytes());
        if let Some(known) = self.admitted.get(m.client).copied() {
            if known.nonce != Checksum::of(&payload) {
                self.reject(from, m.client, RequestNumber::ZERO, Rejection::Evicted);
                return Err(Ignored::Busy);
            }
            self.routes.set(m.client, from);
            self.resend_if_executed(m.client, RequestNumber::ZERO, known.registered);
            return Err(Ignored::Duplicate);
        }
        let request = Forward::Register(m.clone());
        // The executor makes room when it gets there; until then there are more for a while.
        if self.admitted.len() >= self.config.sessions_max() {
            return self.busy(from, &request, Limit::Clients);
        }
        if !self.log_has_room(length(&payload)) {
            return self.busy(from, &request, Limit::Log);
        }
        self.routes.set(m.client, from);
        let header = EntryHeader {
            client: m.client,
            session: OpNumber(u64::from(self.config.clients_max)),
            kind: EntryKind::Register,
            ..EntryHeader::default()
        };
        self.append(now, header, payload);
        Ok(())
    }

    fn place_request(&mut self, now: Now, from: Peer, m: Request) -> Result<(), Ignored> {
        let (client, number) = (m.client, m.request_number);
        let known = match self.admitted.get(client) {
            Some(known) if known.session == m.session => *known,
            Some(_) | None => return self.unknown_session(from, client, number),
        };
        self.routes.set(client, from);
        let forgotten = number.plus(u64::from(self.config.window)) <= known.done;
        let again =
            self.mutant(Mutant::ExecuteTwice) || (forgotten && self.mutant(Mutant::ForgottenIsNew));
        if number <= known.last && again {
            self.append_request(now, m);
            return Ok(());
        }
        if number <= known.last && number > known.done && self.mutant(Mutant::AnswerUnexecuted) {
            let outcome = Outcome::Executed(Bytes::from_static(&[0]));
            let op_number = self.log.op_number();
            self.reply(Reply { client, request_number: number, op_number, outcome });
        }
        if number <= known.last {
            self.resend_if_executed(client, number, number <= known.done);
            return Err(Ignored::Duplicate);
        }
        if !self.log_has_room(m.bytes()) {
            return self.busy(from, &Forward::Request(m), Limit::Log);
        }
        if number == known.last.next() {
            self.append_request(now, m);
            self.place_parked(now, from, client);
            return Ok(());
        }
        self.park(from, m, &known)
    }

    fn unknown_session(
        &mut self,
        from: Peer,
        client: ClientId,
        number: RequestNumber,
    ) -> Result<(), Ignored> {
        if let Status::Normal(Role::Primary(primary)) = &self.status
            && self.progress.applied >= primary.start_op
        {
            self.reject(from, client, number, Rejection::Evicted);
        }
        Err(Ignored::Busy)
    }

    fn park(&mut self, from: Peer, m: Request, known: &Known) -> Result<(), Ignored> {
        let window = self.config.window;
        let Status::Normal(Role::Primary(primary)) = &mut self.status else {
            return Err(Ignored::NotPrimary);
        };
        let full = primary.pipeline.parked_of(m.client) >= usize::try_from(window).unwrap_or(0);
        if full || m.request_number > known.done.plus(u64::from(window)) {
            return self.busy(from, &Forward::Request(m), Limit::Window);
        }
        if !self.config.may_wait(primary.pipeline.parked_bytes(), m.bytes()) {
            primary.pipeline.forget_parked();
        }
        primary.pipeline.park(m);
        Err(Ignored::Kept)
    }

    fn place_parked(&mut self, now: Now, from: Peer, client: ClientId) {
        loop {
            let Status::Normal(Role::Primary(primary)) = &self.status else { return };
            if !primary.pipeline.has_parked() {
                return;
            }
            let Some(next) = self.admitted.get(client).map(|known| known.last.next()) else {
                return;
            };
            let room = self.has_room();
            let Status::Normal(Role::Primary(primary)) = &mut self.status else { return };
            let Some(request) = primary.pipeline.unpark(client, next) else { return };
            if !room {
                let request = Forward::Request(request);
                if self.config.may_wait(primary.pipeline.queued_bytes(), request.bytes()) {
                    primary.pipeline.queue(from, request);
                } else {
                    let _told = self.busy(from, &request, Limit::Pipeline);
                }
                return;
            }
            if !self.log_has_room(request.bytes()) {
                let _told = self.busy(from, &Forward::Request(request), Limit::Log);
                return;
            }
            self.append_request(now, request);
        }
    }

    fn append_request(&mut self, now: Now, m: Request) {
        let header = EntryHeader {
            client: m.client,
            session: m.session,
            request_number: m.request_number,
            kind: EntryKind::of_request(m.many),
            ..EntryHeader::default()
        };
        self.append(now, header, m.operation);
    }

    /// Whether the log may have one more entry, with a payload of so many bytes.
    pub(in crate::replica) fn log_has_room(&self, payload: u64) -> bool {
        self.log_has_room_for(1, payload.saturating_add(128))
    }

    /// Asks the executor for a stored reply: of what was executed, and of what was handed to it
    /// while nobody here had to answer.
    fn resend_if_executed(&mut self, client: ClientId, number: RequestNumber, executed: bool) {
        if executed || self.progress.applied < self.progress.silent {
            let work = Work::Resend { client, request_number: number };
            self.out.push_back(Output::Execute(work));
        }
    }

    fn busy(&mut self, from: Peer, request: &Forward, limit: Limit) -> Result<(), Ignored> {
        let (client, number) = match request {
            Forward::Request(m) => (m.client, m.request_number),
            Forward::Register(m) => (m.client, RequestNumber::ZERO),
        };
        self.reject(from, client, number, Rejection::Busy(limit));
        Err(Ignored::Busy)
    }

    pub(in crate::replica) fn reject(
        &mut self,
        to: Peer,
        client: ClientId,
        request_number: RequestNumber,
        reason: Rejection,
    ) {
        let rejected = Rejected { client, request_number, reason };
        match to {
            Peer::Client(_) => self.send_client(to, Message::Rejected(rejected)),
            Peer::Replica(via) => {
                self.send(via, Message::ForwardReply(ForwardReply::Rejected(rejected)));
            }
        }
    }

    /// A backup passes a request on.
    pub(in crate::replica) fn on_forward(
        &mut self,
        now: Now,
        from: Origin,
        m: Forward,
    ) -> Result<(), Ignored> {
        self.require_started(now, from)?;
        self.admit(now, Peer::Replica(from.id), m)
    }

    /// The primary answers a request that was passed on.
    pub(in crate::replica) fn on_forward_reply(&mut self, m: ForwardReply) -> Result<(), Ignored> {
        let (client, number, message) = match m {
            ForwardReply::Reply(m) => (m.client, m.request_number, Message::Reply(m)),
            ForwardReply::Rejected(m) => (m.client, m.request_number, Message::Rejected(m)),
        };
        let to = self.forwards.answered(client, number).ok_or(Ignored::Unasked)?;
        self.send_client(to, message);
        Ok(())
    }

    /// Tells the primary of this view what it has not been told.
    pub(in crate::replica) fn tell_forwards(&mut self) {
        if !matches!(self.status, Status::Normal(Role::Backup(_))) {
            return;
        }
        let primary = self.primary();
        for request in self.forwards.tell(self.view) {
            self.send(primary, Message::Forward(request));
        }
    }

    /// Requests that waited too long for a primary go back to their clients.
    pub(in crate::replica) fn on_forward_timer(&mut self, now: Now) {
        let timeout = self.config.forward_timeout;
        let before = crate::model::time::Instant(
            now.monotonic.0.saturating_sub(crate::model::time::nanoseconds(timeout)),
        );
        for (to, client, number) in self.forwards.expire(before) {
            self.reject(to, client, number, Rejection::Busy(Limit::NoQuorum));
        }
        if !self.forwards.is_empty() {
            self.timers.arm(Timer::Forward, now.monotonic + timeout / 4);
        }
    }

    fn on_query(&mut self, now: Now, from: Peer, m: Query) -> Result<(), Ignored> {
        let bytes = u32::try_from(m.bytes()).unwrap_or(u32::MAX);
        let bytes_max = self.config.request_bytes_max;
        if bytes > bytes_max {
            let reason = Rejection::TooLarge { bytes, bytes_max };
            self.reject(from, m.client, m.request_number, reason);
            return Err(Ignored::Busy);
        }
        match m.read {
            Read::Linearizable => self.read_linearizable(from, m),
            Read::Local => {
                self.read_local(now, from, m);
                Ok(())
            }
            Read::Causal(token) => self.read_causal(now, from, m, token),
            Read::Lease => self.read_leased(now, from, m),
        }
    }
}
