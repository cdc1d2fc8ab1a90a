//! The node as one future: receive, decide, send, write, execute, and park when nothing is ready.

use core::{
    panic::AssertUnwindSafe,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{panic::catch_unwind, sync::Arc};

use futures::{
    FutureExt,
    future::{BoxFuture, poll_fn},
    task::noop_waker,
};
use tracing::{debug, error, info, warn};

use crate::{
    execution::work::{Executed, Finished, Work},
    model::{
        kind::Lane,
        message::{Envelope, Message, Suspicion},
        time::{Instant, Now},
        types::{ConnectionId, Peer},
    },
    node::{
        checkpoint_front::{CheckpointFront, CheckpointNews},
        clock::Clock,
        executor_front::{ExecutorFront, panic_message},
        handoffs::Handoffs,
        local::LocalTransport,
        lock::lock,
        shared::{COMPLAINTS_MAX, Counters, Observed, Orders, Shared},
        sleep::poll_sleep,
        status::ExecutorMode,
        stop::NodeError,
        storage_front::{Fetch, StorageFront, Stored},
    },
    ports::transport::{Backpressure, Closed, Received, Transport},
    replica::io::{Event, Input, Output},
};

/// Clients in this process have connections from here on, so that they are told from those that
/// the transport numbers.
pub(crate) const LOCAL_CONNECTIONS: ConnectionId = ConnectionId(1 << 63);
/// How often a turn looks again for what its own storage or executor finished, before other tasks
/// of the runtime get their turn.
const ROUNDS_MAX: usize = 4;

/// The node, as it runs.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) local: LocalTransport,
    pub(crate) storage: StorageFront,
    pub(crate) executor: ExecutorFront,
    pub(crate) checkpoints: CheckpointFront,
    pub(crate) senses: Senses,
    pub(crate) counters: Counters,
    pub(crate) mode: ExecutorMode,
    /// The primary fell silent since the last turn.
    pub(crate) has_silent_primary: bool,
    /// The transport may hold back what was sent.
    pub(crate) unflushed: bool,
    pub(crate) handoffs: Handoffs,
    pub(crate) clock: Clock,
    /// When a shutdown stops waiting for what is prepared to commit.
    pub(crate) shutdown_at: Option<Instant>,
    /// Whether the state is on disk by itself.
    pub(crate) persists: bool,
    pub(crate) complain_at: Instant,
    pub(crate) finished: bool,
}

/// What came in since the last turn, and how to wait for more.
pub(crate) struct Senses {
    received: Vec<Received>,
    received_locally: Vec<Received>,
    transport_closed: bool,
    sleep: Option<(Instant, BoxFuture<'static, ()>)>,
    /// When the engine wants its next timeout.
    deadline: Instant,
    /// The latest time that is known to have come, since asking for it costs a tenth of a small turn.
    known_time: Instant,
    waker: Waker,
    /// The last poll ended with a turn, so the next one lets other tasks run first.
    has_had_turn: bool,
}

impl Senses {
    /// Nothing has come in yet; the first turn is due at once.
    pub(crate) fn new() -> Self {
        Self {
            received: Vec::new(),
            received_locally: Vec::new(),
            transport_closed: false,
            sleep: None,
            deadline: Instant::ZERO,
            known_time: Instant::ZERO,
            waker: noop_waker(),
            has_had_turn: false,
        }
    }
}

/// Whether the node goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Onward,
    Over,
}

impl Driver {
    /// Runs until a shutdown, or until something makes going on wrong.
    pub(crate) async fn run(mut self) {
        let worked = AssertUnwindSafe(self.work()).catch_unwind().await;
        let result = worked.unwrap_or_else(|panic| {
            Err(NodeError::Panicked { message: panic_message(panic.as_ref()) })
        });
        self.finish(result).await;
    }

    async fn work(&mut self) -> Result<(), NodeError> {
        if self.mode == ExecutorMode::Thread {
            let waker = Arc::clone(&self.shared.waker);
            self.executor.move_to_thread(&self.shared.runtime, waker)?;
        }
        while self.turn()? == Course::Onward {
            self.park().await;
        }
        Ok(())
    }

    /// Stops speaking, and waits for the write in flight.
    async fn finish(mut self, mut result: Result<(), NodeError>) {
        match &result {
            Ok(()) => info!("node shut down"),
            Err(reason) => {
                self.shared.stop.announce(reason);
                error!(%reason, "node stopped");
            }
        }
        self.shared.transport.flush();
        self.shared.transport.close();
        self.shared.network.close();
        if result.is_ok() {
            result = self.persist().await;
        }
        poll_fn(|cx| self.storage.poll_finish(cx)).await;
        self.finished = true;
        let shared = Arc::clone(&self.shared);
        shared.release();
        // Everything is let go of before that is told, so that whoever waits for it can start the next
        // node on the same directory. What belongs to the user is dropped with it, and may panic.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(self)));
        shared.conclude(match dropped {
            Ok(()) => result,
            Err(panic) => Err(NodeError::Panicked { message: panic_message(panic.as_ref()) }),
        });
    }

    /// Makes a state durable that is on disk by itself, so that the next start executes nothing again;
    /// unless the executor is busy with something else, which could take long.
    async fn persist(&mut self) -> Result<(), NodeError> {
        if !self.persists || !self.executor.is_idle() {
            return Ok(());
        }
        self.executor.push(Work::Persist);
        let Self { shared, executor, .. } = self;
        poll_fn(|cx| {
            shared.waker.register(cx.waker());
            executor.run(shared.runtime.as_ref(), shared.runtime.now())?;
            executor.take_finished()?;
            if executor.is_idle() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Waits until a turn is worth while. Sources are looked at in a fixed order, so that a
    /// simulated run replays.
    async fn park(&mut self) {
        let Self { shared, local, storage, executor, checkpoints, senses, shutdown_at, .. } = self;
        let shutdown_at = shutdown_at.unwrap_or(Instant::FAR_FUTURE);
        let Senses {
            received,
            received_locally,
            transport_closed,
            sleep,
            deadline,
            known_time,
            waker,
            has_had_turn,
        } = senses;
        let mut arrival = shared.transport.receive(received);
        let mut has_arrived = *transport_closed;
        poll_fn(|cx| {
            if !waker.will_wake(cx.waker()) {
                waker.clone_from(cx.waker());
                local.forget_waker();
            }
            // Registered first, so that an order given meanwhile wakes this poll or the next.
            shared.waker.register(cx.waker());
            if !has_arrived && let Poll::Ready(arrived) = arrival.as_mut().poll(cx) {
                has_arrived = true;
                *transport_closed = arrived == Err(Closed);
            }
            let mut is_ready = has_arrived;
            // Its inbox is closed only by this driver, so there is nothing to hear in an error.
            let has_room = received_locally.is_empty();
            let may_have_more = !local.is_calm();
            is_ready |=
                !has_room || may_have_more && local.poll_receive(cx, received_locally).is_ready();
            is_ready |= executor.wants_turn() || shared.has_orders() || checkpoints.has_news();
            // A turn looks at storage anyway if there is anything to look for. Without a write in
            // flight nobody asks for the time here: what becomes due makes the sleep fire.
            if !is_ready {
                if storage.is_writing() {
                    *known_time = shared.runtime.now();
                }
                let now = *known_time;
                is_ready |= storage.poll(cx, now).is_ready();
                let mut due = (*deadline).min(storage.deadline());
                if now < shutdown_at {
                    due = due.min(shutdown_at);
                }
                if let Some(now) = poll_sleep(shared, sleep, due, cx) {
                    *known_time = now;
                }
                is_ready |= *known_time >= due;
            }
            if !is_ready {
                *has_had_turn = false;
                return Poll::Pending;
            }
            if core::mem::take(has_had_turn) {
                // Other tasks of the runtime get theirs before the next turn.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            *has_had_turn = true;
            Poll::Ready(())
        })
        .await;
    }

    /// One turn: tells the engine what came in, and carries out what follows.
    fn turn(&mut self) -> Result<Course, NodeError> {
        if self.senses.transport_closed {
            return Err(NodeError::TransportClosed);
        }
        let shared = Arc::clone(&self.shared);
        let now = self.clock.now(shared.runtime.as_ref());
        self.senses.known_time = now.monotonic;
        {
            let mut observed = lock(&shared.observed);
            self.obey(now, &mut observed);
            self.tell_received(now, &mut observed);
            if now.monotonic >= observed.replica.deadline() {
                observed.replica.handle(now, Input::Timeout);
            }
            self.drain(now, &mut observed)?;
        }
        self.flush();
        self.expect_slow_operations()?;
        for round in 0..ROUNDS_MAX {
            if self.rests(now.monotonic) || round > 0 && self.is_late(&shared) {
                break;
            }
            self.poll_storage(now.monotonic);
            let stored = self.tell_stored(&shared, now)?;
            if !(self.round(&shared, now)? || stored) {
                break;
            }
        }
        self.complain(now.monotonic);
        self.publish(&mut lock(&shared.observed));
        Ok(self.course(&shared))
    }

    /// Tells the engine what storage finished, so that what waits for it leaves before anything is
    /// executed; false if there was nothing.
    fn tell_stored(&mut self, shared: &Shared, turn_began: Now) -> Result<bool, NodeError> {
        if !self.storage.has_done() {
            return Ok(false);
        }
        let now = turn_began.at(shared.runtime.now());
        let mut observed = lock(&shared.observed);
        while let Some(stored) = self.storage.next_done() {
            let input = match stored {
                Stored::Persisted(through) => Input::Persisted { through },
                Stored::Fetched(request, entries) => Input::Fetched { request, entries },
                Stored::Unreadable(request, op_number) => Input::Unreadable { request, op_number },
                Stored::Failed(error) => return Err(error.into()),
            };
            observed.replica.handle(now, input);
        }
        self.drain(now, &mut observed)?;
        drop(observed);
        self.flush();
        Ok(true)
    }

    /// Whether a turn has nothing to do for, or to hear of, storage, the executor and checkpoints.
    fn rests(&mut self, now: Instant) -> bool {
        self.storage.rests(now) && !self.executor.wants_turn() && !self.checkpoints.has_news()
    }

    /// Whether the engine wants a timeout first, such as to say a heartbeat after a slow operation.
    fn is_late(&self, shared: &Shared) -> bool {
        self.senses.known_time >= lock(&shared.observed).replica.deadline()
    }

    /// Lets the executor work, and tells the engine what it and checkpoints finished; false if
    /// neither had anything.
    fn round(&mut self, shared: &Shared, turn_began: Now) -> Result<bool, NodeError> {
        let ran = self.executor.run(shared.runtime.as_ref(), turn_began.monotonic)?;
        if let Some(took) = ran.moved {
            self.move_executor(took)?;
        }
        self.senses.known_time = ran.ended.unwrap_or(self.senses.known_time);
        let finished = self.executor.take_finished()?;
        if let Some(frozen) = self.executor.take_frozen() {
            self.checkpoints.write(frozen)?;
        }
        if finished.is_none() && !self.checkpoints.has_news() {
            return Ok(false);
        }
        let now = turn_began.at(ran.ended.unwrap_or_else(|| shared.runtime.now()));
        let mut observed = lock(&shared.observed);
        for news in self.checkpoints.take_news() {
            let input = match news? {
                CheckpointNews::Done(done) => Input::Transferred(done),
                CheckpointNews::Taken(id) => {
                    Input::Executed(Executed { taken: vec![id], ..Executed::default() })
                }
            };
            observed.replica.handle(now, input);
        }
        if let Some(Finished { executed, answers }) = finished {
            for (to, answer) in answers {
                let envelope = observed.replica.envelope(Message::Answer(answer));
                self.send(to, Lane::Data, envelope);
            }
            observed.replica.handle(now, Input::Executed(executed));
        }
        self.drain(now, &mut observed)?;
        drop(observed);
        self.flush();
        Ok(true)
    }

    /// Does what handles want.
    fn obey(&mut self, now: Now, observed: &mut Observed) {
        let Orders { shutdown, digests, handoffs } = self.shared.orders.take();
        for answer in digests {
            self.executor.digest(answer);
        }
        for order in handoffs {
            let taken = observed.replica.hand_off(now, order.to);
            self.handoffs.ordered(order, taken);
        }
        if shutdown && self.shutdown_at.is_none() {
            let config = &self.shared.facts.config;
            let mut patience = config.suspicion_timeout;
            match observed.replica.hand_off(now, None) {
                Ok(()) => self.handoffs.begin(),
                Err(reason) => debug!(%reason, "nothing is handed off"),
            }
            if self.handoffs.is_under_way() {
                patience = patience.saturating_add(config.handoff_timeout);
            }
            info!("node shutting down");
            self.shutdown_at = Some(now.monotonic + patience);
        }
    }

    /// Hands everything that arrived to the engine; the transport's first, then the local one's.
    fn tell_received(&mut self, now: Now, observed: &mut Observed) {
        let Observed { replica, numbers } = observed;
        // Until the successor leads, nobody else takes what clients ask for.
        let admits = self.shutdown_at.is_none() || self.handoffs.is_under_way();
        let Senses { received, received_locally, .. } = &mut self.senses;
        for source in [received, received_locally] {
            for item in source.drain(..) {
                let input = match item {
                    Received::Envelope { from, envelope } => {
                        self.counters.received = self.counters.received.saturating_add(1);
                        if !admits && matches!(from, Peer::Client(_)) {
                            continue;
                        }
                        Input::Message { from, envelope }
                    }
                    Received::Connected(peer) => {
                        numbers.connected(peer);
                        Input::Connected { peer }
                    }
                    Received::Disconnected(peer) => {
                        numbers.disconnected(peer);
                        Input::Disconnected { peer }
                    }
                };
                replica.handle(now, input);
            }
        }
    }

    /// Carries out everything that follows from what the engine was told.
    fn drain(&mut self, now: Now, observed: &mut Observed) -> Result<(), NodeError> {
        while let Some(output) = observed.replica.poll_output(now) {
            match output {
                Output::Send { to, lane, envelope } => self.send(to, lane, envelope),
                Output::Persist { id, batch } => {
                    self.storage.persist(id, self.shared.pins.spare(*batch));
                }
                Output::Fetch { request, from, through, bytes_max } => {
                    self.storage.fetch(Fetch { request, from, through, bytes_max });
                }
                Output::Execute(work) => self.executor.push(work),
                Output::Transfer(task) => {
                    self.checkpoints.push(self.shared.pins.keep(*task))?;
                }
                Output::Event(event) => self.note(now.monotonic, observed, event),
                Output::Fatal(reason) => return Err(reason.into()),
            }
        }
        let Observed { replica, numbers } = observed;
        numbers.note_fetching(now.monotonic, replica.snapshot_extent());
        numbers.note_state(|through| replica.has_state(through));
        Ok(())
    }

    fn note(&mut self, now: Instant, observed: &mut Observed, event: Event) {
        let numbers = &mut observed.numbers;
        let since = &mut numbers.between_views_since;
        match event {
            Event::ViewChangeBegan { .. } => *since = Some(since.unwrap_or(now)),
            Event::ViewStarted { .. } => *since = None,
            Event::SnapshotBegan { .. } => {
                numbers.fetches_begun = numbers.fetches_begun.saturating_add(1);
            }
            Event::SnapshotInstalled { .. } => numbers.fetches_begun = 0,
            Event::StateDiscarded { reason } => {
                numbers.discarded = Some((reason, observed.replica.last_op()));
            }
            Event::Suspected { reason: Suspicion::PrimarySilent, .. } => {
                self.has_silent_primary = true;
            }
            Event::GroupJoined { .. }
            | Event::Suspected { .. }
            | Event::QuorumLost { .. }
            | Event::QuorumRegained { .. }
            | Event::ClockJumped { .. }
            | Event::DamageFound { .. }
            | Event::DamageRepaired { .. }
            | Event::DiskNotInCertificate { .. }
            | Event::RecoveryBegan { .. }
            | Event::RebuildBegan
            | Event::GroupRejoined { .. }
            | Event::RestartedByForce { .. }
            | Event::ModeDiffers { .. }
            | Event::HandoffBegan { .. }
            | Event::HandedOff { .. }
            | Event::HandoffFailed { .. }
            | Event::CheckpointHeld { .. }
            | Event::CheckpointsDiffer { .. }
            | Event::StateResumed { .. }
            | Event::ExecutorMoved { .. } => {}
        }
        self.handoffs.note(&event);
        info!(?event, "event");
        self.shared.events.tell(event);
    }

    fn send(&mut self, to: Peer, lane: Lane, envelope: Box<Envelope>) {
        let sent = match to {
            Peer::Client(id) if id >= LOCAL_CONNECTIONS => self.local.send(to, lane, envelope),
            Peer::Client(_) | Peer::Replica(_) => {
                self.unflushed = true;
                self.shared.transport.send(to, lane, envelope)
            }
        };
        let counter = match sent {
            Ok(()) => &mut self.counters.sent,
            Err(Backpressure::NotConnected) => &mut self.counters.dropped_unconnected,
            Err(Backpressure::QueueFull) => &mut self.counters.dropped_full,
            Err(Backpressure::TooLarge) => &mut self.counters.dropped_large,
        };
        *counter = counter.saturating_add(1);
        if let Err(reason) = sent {
            debug!(%to, %reason, "message dropped");
        }
    }

    /// Lets go of what was sent.
    fn flush(&mut self) {
        if core::mem::take(&mut self.unflushed) {
            self.shared.transport.flush();
        }
    }

    /// Starts the next write as soon as the messages of this turn have left. Polled with the
    /// task's own waker, so that nothing is missed until the task parks.
    fn poll_storage(&mut self, now: Instant) {
        let mut cx = Context::from_waker(&self.senses.waker);
        // What is done is looked at right behind this.
        let _ = self.storage.poll(&mut cx, now);
    }

    /// A primary that fell silent may be busy with a slow operation. Whoever leads next has to
    /// execute the same one, and must not fall silent over it too.
    fn expect_slow_operations(&mut self) -> Result<(), NodeError> {
        if core::mem::take(&mut self.has_silent_primary) && self.executor.is_inline() {
            self.move_executor(Duration::ZERO)?;
        }
        Ok(())
    }

    fn move_executor(&mut self, took: Duration) -> Result<(), NodeError> {
        if !self.shared.runtime.has_threads() {
            return Ok(());
        }
        warn!(?took, "operations are slow, so the executor moves to a thread of its own");
        let waker = Arc::clone(&self.shared.waker);
        self.executor.move_to_thread(&self.shared.runtime, waker)?;
        self.shared.events.tell(Event::ExecutorMoved { took });
        Ok(())
    }

    /// Passes on what the transport complains about, at most once a heartbeat interval.
    fn complain(&mut self, now: Instant) {
        if now < self.complain_at {
            return;
        }
        self.complain_at = now + self.shared.facts.config.heartbeat_interval;
        for complaint in self.shared.transport.complaints() {
            warn!(%complaint, "transport complained");
            let complaints = &mut lock(&self.shared.observed).numbers.complaints;
            if complaints.len() >= COMPLAINTS_MAX {
                complaints.pop_front();
            }
            complaints.push_back((now, complaint));
        }
    }

    /// Says where the engine and everything around it stand when the turn ends.
    fn publish(&mut self, observed: &mut Observed) {
        let Observed { replica, numbers } = observed;
        self.senses.deadline = replica.deadline();
        numbers.executor = self.executor.numbers();
        numbers.storage = self.storage.numbers();
        numbers.counters = self.counters;
    }

    /// Whether a shutdown has nothing left to wait for.
    fn course(&self, shared: &Shared) -> Course {
        let Some(shutdown_at) = self.shutdown_at else { return Course::Onward };
        let now = shared.runtime.now();
        let is_awaited = lock(&shared.observed).replica.is_awaited();
        let is_settled = !is_awaited && !self.handoffs.is_under_way() && self.executor.is_idle();
        if (self.storage.is_idle() && is_settled) || now >= shutdown_at {
            Course::Over
        } else {
            Course::Onward
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.shared.transport.close();
        self.shared.network.close();
        let reason = self.shared.stop.reason().unwrap_or(NodeError::Dropped);
        self.shared.release();
        self.shared.conclude(Err(reason));
    }
}
