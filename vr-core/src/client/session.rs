//! The sans-IO half of a client: its session, its window of requests, its way to the primary.

use bytes::Bytes;

use crate::{
    client::{
        backoff::Backoff,
        call::Waiting,
        io::{ClientInput, ClientOutput, Completed, SessionOptions},
        outbox::Outbox,
        outcome::RequestError,
        queries::Queries,
        resumes::Resumes,
        route::Route,
        ticket::{Record, Ticket},
        window::Window,
    },
    model::{
        membership::Membership,
        message::{Envelope, Limit, Message, Outcome, Rejected, Rejection, Reply, Sender},
        operation::Operation,
        read::{CausalToken, Read},
        time::Instant,
        types::{ClientId, Epoch, GroupId, Nonce, OpNumber, Peer, ReplicaId, RequestNumber, View},
    },
    ports::transport::Received,
    state::prng::Prng,
};

/// Where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is registered; the first request begins it.
    Unregistered,
    /// A registration is on its way.
    Registering(Nonce),
    /// The op that registered the client.
    Open(OpNumber),
}

/// A client of a group: sans-IO, driven like a replica.
///
/// Call [`handle`](Self::handle) any number of times, then [`poll_output`](Self::poll_output)
/// until `None`, then wait until [`deadline`](Self::deadline). Nothing is drawn at random but
/// from the seed, so that the same inputs give the same outputs.
///
/// Requests execute exactly once: each has a number, the group executes a session's numbers
/// strictly in order, and a number is only ever sent with one operation. So a number that was
/// given is sent until it is answered, also when nobody waits for it any more. Numbers of an
/// evicted session are never sent under another.
///
/// # Source
/// VRR §4 (client, request number); the registration and the window depart from it: PROTOCOL.md
/// "Client sessions".
#[derive(Debug)]
pub struct Session {
    pub(crate) options: SessionOptions,
    prng: Prng,
    phase: Phase,
    window: Window,
    pub(crate) queries: Queries,
    pub(crate) resumes: Resumes,
    pub(crate) route: Route,
    /// Armed while a registration or a request has no answer.
    retry: Backoff,
    /// Armed while a replica said that it is busy; nothing new is sent until it fires.
    pub(crate) busy: Backoff,
    pub(crate) last_busy: Option<Limit>,
    /// Not after the earliest deadline of all calls.
    pub(crate) expiry_at: Instant,
    /// Not after the time at which the next query is asked again.
    pub(crate) ask_again_at: Instant,
    /// How far the client has seen the log.
    seen: CausalToken,
    pub(crate) closed: bool,
    pub(crate) outbox: Outbox,
}

impl Session {
    /// A client of `group` that has not said anything yet.
    ///
    /// `seed` must never be used twice: the client's id is drawn from it.
    #[must_use]
    pub fn new(
        group: GroupId,
        membership: Membership,
        options: SessionOptions,
        seed: u128,
    ) -> Self {
        let mut prng = Prng::new(seed);
        let client = ClientId(prng.nonce().0);
        Self {
            phase: Phase::Unregistered,
            window: Window::new(options.window),
            queries: Queries::new(options.retry_interval),
            resumes: Resumes::default(),
            route: Route::new(membership, prng.next()),
            retry: Backoff::new(options.retry_interval),
            busy: Backoff::new(options.busy_interval),
            last_busy: None,
            expiry_at: Instant::FAR_FUTURE,
            ask_again_at: Instant::FAR_FUTURE,
            seen: CausalToken::default(),
            closed: false,
            outbox: Outbox::new(group, client, options.request_bytes_max),
            prng,
            options,
        }
    }

    /// The id under which the client speaks; another one after an eviction.
    #[must_use]
    pub const fn client(&self) -> ClientId {
        self.outbox.client()
    }

    /// The op that registered the client; `None` while there is no session.
    #[must_use]
    pub const fn session(&self) -> Option<OpNumber> {
        match self.phase {
            Phase::Open(session) => Some(session),
            Phase::Unregistered | Phase::Registering(_) => None,
        }
    }

    /// The latest view that a replica named; `None` before the first message.
    #[must_use]
    pub const fn view(&self) -> Option<View> {
        self.route.view()
    }

    /// The latest op that this client has seen, by a reply or by an answer.
    #[must_use]
    pub const fn token(&self) -> CausalToken {
        self.seen
    }

    /// Something happened.
    pub fn handle(&mut self, now: Instant, input: ClientInput) {
        match input {
            ClientInput::Execute { call, deadline, operation } => {
                self.on_execute(now, Waiting { call, since: now, deadline }, operation);
            }
            ClientInput::Resume { call, deadline, ticket } => {
                self.on_resume(now, Waiting { call, since: now, deadline }, ticket);
            }
            ClientInput::Query { call, deadline, read, query } => {
                self.on_query(now, Waiting { call, since: now, deadline }, read, query);
            }
            ClientInput::Abandon { call } => {
                if !self.window.withdraw(call) {
                    self.window.detach(call);
                    self.queries.withdraw(call);
                    self.resumes.withdraw(call);
                }
            }
            ClientInput::Received(received) => self.on_received(now, received),
            ClientInput::Timeout => self.on_timeout(now),
            ClientInput::Close => self.on_close(),
        }
    }

    /// The calls that were made at `made` begin to wait only at `now`.
    pub(crate) fn postpone(&mut self, made: Instant, now: Instant) {
        let sent = self.window.waiting().chain(self.queries.waiting());
        sent.chain(self.resumes.waiting()).for_each(|waiting| waiting.postpone(made, now));
    }

    /// The next thing to do; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outbox.pop()
    }

    /// When to call [`handle`](Self::handle) with [`ClientInput::Timeout`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let timers = self.retry.deadline().min(self.busy.deadline());
        timers.min(self.expiry_at).min(self.ask_again_at)
    }

    fn on_execute(&mut self, now: Instant, waiting: Waiting, operation: Operation) {
        if let Err(error) = self.require_small(&operation.bytes) {
            return self.outbox.fail(waiting, error);
        }
        let bytes = self.window.queued_bytes().saturating_add(operation.length());
        if self.window.queued() >= to_usize(self.options.queued_calls_max)
            || bytes > self.options.queued_bytes_max
        {
            return self
                .outbox
                .fail(waiting, RequestError::Busy { waiting: to_u32(self.window.queued()) });
        }
        self.expiry_at = self.expiry_at.min(waiting.deadline);
        self.window.enqueue(waiting, operation);
        self.send_queued(now);
    }

    pub(crate) fn require_small(&self, bytes: &Bytes) -> Result<(), RequestError> {
        let bytes_max = self.options.request_bytes_max;
        if self.closed {
            return Err(RequestError::ShuttingDown);
        }
        if length(bytes) > u64::from(bytes_max) {
            return Err(RequestError::TooLarge { bytes: length(bytes), bytes_max });
        }
        Ok(())
    }

    /// As [`handle`](Self::handle) of what was received, without moving it once more.
    pub(crate) fn on_received(&mut self, now: Instant, received: Received) {
        match received {
            Received::Connected(Peer::Replica(replica)) => self.on_connected(now, replica),
            Received::Disconnected(Peer::Replica(replica)) => self.on_disconnected(now, replica),
            Received::Envelope { from: Peer::Replica(_), envelope }
                if envelope.group == self.outbox.group()
                    && matches!(envelope.sender, Sender::Replica(_)) =>
            {
                self.on_envelope(now, envelope);
            }
            Received::Envelope { .. } | Received::Connected(_) | Received::Disconnected(_) => {}
        }
    }

    fn on_connected(&mut self, now: Instant, replica: ReplicaId) {
        let was_alone = !self.route.is_connected_to_any();
        if !self.route.connect(replica) {
            return;
        }
        if was_alone {
            self.resend_to_all(now);
        }
        for number in self.queries.asked_of(None) {
            self.ask_again(now, number, |route, question| match question.read {
                Read::Linearizable | Read::Lease => route.target(),
                Read::Local | Read::Causal(_) => route.nearest(),
            });
        }
        self.send_resumes(now);
        self.send_queued(now);
    }

    fn on_disconnected(&mut self, now: Instant, replica: ReplicaId) {
        let was_target = self.route.target() == Some(replica);
        if !self.route.disconnect(replica) {
            return;
        }
        if was_target {
            self.resend_to_all(now);
        }
        for number in self.queries.asked_of(Some(replica)) {
            self.ask_again(now, number, |route, _| route.target());
        }
    }

    fn on_envelope(&mut self, now: Instant, envelope: Box<Envelope>) {
        if envelope.epoch > self.outbox.epoch() {
            if matches!(self.phase, Phase::Open(_)) {
                self.on_evicted(now);
            }
            self.outbox.enter(envelope.epoch);
            self.end_resumes_before(envelope.epoch);
        }
        let is_new_view = self.route.learn(envelope.view);
        self.outbox.learn(self.route.view().unwrap_or_default());
        let epoch = envelope.epoch;
        if let Message::Reply(reply) = envelope.message {
            self.on_reply(now, epoch, reply);
        } else if let Message::Replies(replies) = envelope.message {
            replies.each().for_each(|reply| self.on_reply(now, epoch, reply));
        } else if let Message::Rejected(rejected) = envelope.message {
            self.on_rejected(now, rejected);
        } else if let Message::Answer(answer) = envelope.message {
            self.has_seen(CausalToken { epoch, op_number: answer.op_number });
            self.on_answer(answer);
        }
        if is_new_view {
            self.busy.reset();
            self.resend_to_all(now);
            self.send_queued(now);
        }
    }

    fn has_seen(&mut self, token: CausalToken) {
        self.seen = self.seen.max(token);
    }

    fn on_reply(&mut self, now: Instant, epoch: Epoch, reply: Reply) {
        self.has_seen(CausalToken { epoch, op_number: reply.op_number });
        self.on_reply_to_resumed(now, &reply);
        if reply.client != self.client() {
            return;
        }
        if reply.request_number == RequestNumber::ZERO {
            return self.on_registered(now, &reply);
        }
        let result = match reply.outcome {
            Outcome::Executed(bytes) => Ok(Completed { op_number: reply.op_number, bytes }),
            Outcome::Malformed => Err(RequestError::Malformed),
            Outcome::Forgotten => Err(RequestError::ReplyForgotten),
            Outcome::Evicted => return self.on_evicted(now),
            Outcome::Registered => return,
        };
        let Some(waiting) = self.window.answer(reply.request_number) else { return };
        if let Some(waiting) = waiting {
            self.outbox.done(waiting, result);
        }
        self.made_progress(now);
        self.send_queued(now);
    }

    fn on_registered(&mut self, now: Instant, reply: &Reply) {
        if !matches!(self.phase, Phase::Registering(_)) {
            return;
        }
        match reply.outcome {
            Outcome::Registered => {
                self.phase = Phase::Open(reply.op_number);
                self.made_progress(now);
                self.send_queued(now);
            }
            Outcome::Evicted => self.on_evicted(now),
            Outcome::Executed(_) | Outcome::Malformed | Outcome::Forgotten => {}
        }
    }

    fn on_rejected(&mut self, now: Instant, rejected: Rejected) {
        let number = rejected.request_number;
        if Queries::is_query(number) {
            return self.on_query_rejected(now, number, rejected.reason);
        }
        self.on_resumed_rejected(now, &rejected);
        if rejected.client != self.client() {
            return;
        }
        match rejected.reason {
            Rejection::Busy(limit) => {
                let missing = if number == RequestNumber::ZERO {
                    matches!(self.phase, Phase::Registering(_))
                } else {
                    self.window.refuse(number)
                };
                if missing {
                    self.pause_for(now, limit);
                }
            }
            Rejection::Evicted => {
                if self.phase != Phase::Unregistered {
                    self.on_evicted(now);
                }
            }
            Rejection::TooLarge { bytes, bytes_max } => {
                self.on_too_large(now, number, bytes, bytes_max);
            }
        }
    }

    /// The group has closed the session, or begun an epoch that may not know all of it: what is in
    /// flight may have executed before that.
    fn on_evicted(&mut self, now: Instant) {
        self.fail_in_flight(|ticket| RequestError::ClientEvicted { ticket });
        self.outbox.rename(ClientId(self.prng.nonce().0));
        self.phase = Phase::Unregistered;
        self.retry.reset();
        if self.is_waiting_for_group() {
            self.wait_for_group(now);
        }
        // What waits goes under the new session, after a pause, lest evictions chase each other.
        let jitter = self.jitter();
        self.busy.arm(now, jitter);
    }

    /// The group's limit is lower than this client's, so the number can never be filled; the
    /// session ends, and the next one knows the limit.
    fn on_too_large(&mut self, now: Instant, number: RequestNumber, bytes: u32, bytes_max: u32) {
        let Some(waiting) = self.window.answer(number) else { return };
        self.options.request_bytes_max = self.options.request_bytes_max.min(bytes_max);
        if let Some(waiting) = waiting {
            let bytes = u64::from(bytes);
            self.outbox.fail(waiting, RequestError::TooLarge { bytes, bytes_max });
        }
        self.on_evicted(now);
    }

    fn on_timeout(&mut self, now: Instant) {
        if self.expiry_at <= now {
            self.expire(now);
        }
        if self.ask_again_at <= now {
            for number in self.queries.due(now) {
                self.ask_again(now, number, |route, question| match question.asked {
                    Some(last) => route.after(last),
                    None => route.target(),
                });
            }
            self.ask_again_at = self.queries.again_at();
        }
        if self.busy.fires(now) {
            self.on_pause_over(now);
        }
        if self.retry.fires(now) && self.is_waiting_for_group() {
            let jitter = self.jitter();
            self.retry.arm(now, jitter);
            self.resend_to_all(now);
        }
    }

    fn on_pause_over(&mut self, now: Instant) {
        if let Some(to) = self.route.target() {
            match self.phase {
                Phase::Unregistered => {}
                Phase::Registering(nonce) => self.outbox.register(to, nonce),
                Phase::Open(session) => {
                    for (number, operation) in self.window.send_refused() {
                        self.outbox.request(to, session, number, operation);
                    }
                }
            }
        }
        self.send_resumes(now);
        self.send_queued(now);
    }

    fn on_close(&mut self) {
        self.closed = true;
        for waiting in self.window.drain_queue() {
            self.outbox.fail(waiting, RequestError::ShuttingDown);
        }
        self.fail_in_flight(|ticket| RequestError::Interrupted { ticket });
        self.interrupt_resumes();
        for waiting in self.queries.drain() {
            self.outbox.fail(waiting, RequestError::ShuttingDown);
        }
        self.phase = Phase::Unregistered;
        self.retry.reset();
        self.busy.reset();
        self.expiry_at = Instant::FAR_FUTURE;
        self.ask_again_at = Instant::FAR_FUTURE;
    }

    fn expire(&mut self, now: Instant) {
        let busy = self.last_busy;
        for waiting in self.window.expire_queued(now) {
            let waited = now.since(waiting.since);
            self.outbox.fail(waiting, RequestError::NotSent { waited, busy });
        }
        for (waiting, number) in self.window.expire_in_flight(now) {
            let (waited, ticket) = (now.since(waiting.since), self.ticket(number));
            self.outbox.fail(waiting, RequestError::TimedOut { waited, busy, ticket });
        }
        self.expire_resumes(now);
        for waiting in self.queries.expire(now) {
            let waited = now.since(waiting.since);
            self.outbox.fail(waiting, RequestError::Unanswered { waited, busy });
        }
        let asked = self.queries.deadline().min(self.resumes.deadline());
        self.expiry_at = self.window.deadline().min(asked);
    }

    /// All calls in flight end with an error that has a ticket, and their numbers are forgotten.
    fn fail_in_flight(&mut self, error: impl Fn(Box<Ticket>) -> RequestError) {
        for (waiting, number) in self.window.waiting_in_flight() {
            let ticket = self.ticket(number);
            self.outbox.fail(waiting, error(ticket));
        }
        self.window.end_session();
    }

    /// What to find out with what became of `number`, which is in flight.
    fn ticket(&self, number: RequestNumber) -> Box<Ticket> {
        Box::new(Ticket::new(Record {
            group: self.outbox.group(),
            epoch: self.outbox.epoch(),
            client: self.client(),
            session: self.session().unwrap_or_default(),
            request_number: number,
            operations: self.window.operations_through(number),
        }))
    }

    /// Sends what waits, as far as the window and the group allow.
    fn send_queued(&mut self, now: Instant) {
        if self.busy.is_armed() || self.window.queued() == 0 {
            return;
        }
        let Some(to) = self.route.target() else { return };
        match self.phase {
            Phase::Registering(_) => {}
            Phase::Unregistered => {
                let nonce = self.prng.nonce();
                self.phase = Phase::Registering(nonce);
                self.outbox.register(to, nonce);
                self.wait_for_group(now);
            }
            Phase::Open(session) => {
                while let Some((number, operation)) = self.window.admit() {
                    self.outbox.request(to, session, number, operation);
                    self.wait_for_group(now);
                }
            }
        }
    }

    /// Sends everything that has no answer to everyone, at once: whoever is primary takes it.
    fn resend_to_all(&mut self, now: Instant) {
        if !self.is_waiting_for_group() {
            return;
        }
        let replicas: Vec<ReplicaId> = self.route.connected().collect();
        self.resend_resumes(&replicas);
        match self.phase {
            Phase::Unregistered => {}
            Phase::Registering(nonce) => {
                for to in &replicas {
                    self.outbox.register(*to, nonce);
                }
            }
            Phase::Open(session) => {
                let requests = self.window.send_again();
                for to in &replicas {
                    for (number, operation) in &requests {
                        self.outbox.request(*to, session, *number, operation.clone());
                    }
                }
            }
        }
        self.wait_for_group(now);
    }

    /// Whether a registration or a request has no answer.
    fn is_waiting_for_group(&self) -> bool {
        let registering = matches!(self.phase, Phase::Registering(_));
        registering || self.window.in_flight() > 0 || self.resumes.len() > 0
    }

    pub(crate) fn wait_for_group(&mut self, now: Instant) {
        if !self.retry.is_armed() {
            self.retry.arm(now, 0);
        }
    }

    /// The group answered: it is neither silent nor too busy.
    pub(crate) fn made_progress(&mut self, now: Instant) {
        self.last_busy = None;
        if !self.busy.is_armed() {
            self.busy.reset();
        }
        if self.is_waiting_for_group() {
            self.retry.restart(now, 0);
        } else {
            self.retry.reset();
        }
    }

    /// A replica named a limit: nothing is sent for a while.
    pub(crate) fn pause_for(&mut self, now: Instant, limit: Limit) {
        self.last_busy = Some(limit);
        if self.busy.is_armed() {
            return;
        }
        let jitter = self.jitter();
        self.busy.arm(now, jitter);
        let alive = match limit {
            Limit::Pipeline | Limit::Log | Limit::Clients | Limit::Window | Limit::Reads => true,
            // The primary may be gone, and only the others know the next one.
            Limit::Forward | Limit::NoQuorum => false,
        };
        if alive {
            self.retry.arm(now, jitter);
        }
    }

    pub(crate) fn jitter(&mut self) -> u8 {
        u8::try_from(self.prng.next() % 256).unwrap_or(0)
    }
}

pub(crate) fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

pub(crate) fn to_usize(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

pub(crate) fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
