//! What a client's callers share with the task that receives for them: calls, and who carries out
//! what the session wants.

use core::{
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use futures::{
    future::{BoxFuture, poll_fn},
    task::AtomicWaker,
};
use tracing::debug;

use crate::{
    client::{
        call::CallId,
        io::{ClientInput, ClientOutput},
        outcome::RequestError,
        session::Session,
        slots::{CallResult, Slots},
    },
    model::{time::Instant, types::Peer},
    ports::{
        runtime::Runtime,
        transport::{Closed, Received, Transport},
    },
};

/// By how much the time of a call may be short because others were made before it.
const LATE_MAX: Duration = Duration::from_millis(1);

/// What the clones of a client hold; the last one closes it.
pub(crate) struct Link {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.close();
        // Ends the task that receives, too.
        self.shared.transport.close();
    }
}

/// What callers and the task that receives share.
pub(crate) struct Shared {
    state: Mutex<State>,
    transport: Arc<dyn Transport>,
    runtime: Arc<dyn Runtime>,
    /// Wakes the task that receives when the deadline moved earlier, or output is owed.
    background: AtomicWaker,
    /// Calls were made that the task that receives is to send, after whoever is ready to run had a
    /// chance to add theirs: one message and one system call for all of them, instead of one for
    /// each.
    owes_output: AtomicBool,
}

pub(crate) struct State {
    pub(crate) session: Session,
    slots: Slots,
    /// When the first of the calls was made that the task that receives is to send.
    asked_at: Instant,
    /// When the task that receives will wake by itself, or has been woken to see to it.
    armed: Instant,
}

/// What is left to do once the lock is released.
#[derive(Default)]
struct Aftermath {
    sent: bool,
    rearm: bool,
    wakers: Vec<Waker>,
}

impl Shared {
    /// For a client that has not said anything yet.
    pub(crate) fn new(
        session: Session,
        transport: Arc<dyn Transport>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                session,
                slots: Slots::default(),
                asked_at: Instant::ZERO,
                armed: Instant::FAR_FUTURE,
            }),
            transport,
            runtime,
            background: AtomicWaker::new(),
            owes_output: AtomicBool::new(false),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the session, and carries out what it wants.
    fn perform(&self, state: &mut State, now: Instant, input: ClientInput) -> Aftermath {
        state.session.handle(now, input);
        let mut aftermath = Aftermath::default();
        self.drain(state, &mut aftermath);
        aftermath
    }

    /// No more calls: those that wait fail.
    fn close(&self) {
        let now = self.runtime.now();
        let mut state = self.lock();
        let aftermath = self.perform(&mut state, now, ClientInput::Close);
        drop(state);
        self.settle(aftermath);
    }

    fn drain(&self, state: &mut State, aftermath: &mut Aftermath) {
        aftermath.wakers.reserve_exact(state.session.outbox.results());
        while let Some(output) = state.session.poll_output() {
            match output {
                ClientOutput::Send { to, envelope } => {
                    let lane = envelope.message.lane();
                    aftermath.sent = true;
                    if let Err(reason) = self.transport.send(Peer::Replica(to), lane, envelope) {
                        // The session repeats what is not answered.
                        debug!(%to, %reason, "message dropped");
                    }
                }
                ClientOutput::Done { call, result } => {
                    aftermath.wakers.extend(state.slots.finish(call, result));
                }
            }
        }
        let deadline = state.session.deadline();
        if deadline < state.armed {
            state.armed = deadline;
            aftermath.rearm = true;
        }
    }

    /// Begins with a call that has `timeout`, and waits for its result.
    fn begin(
        &self,
        cx: &Context<'_>,
        timeout: Duration,
        input: impl FnOnce(CallId, Instant) -> ClientInput,
    ) -> (CallId, Poll<CallResult>) {
        let mut aftermath = Aftermath::default();
        let mut state = self.lock();
        // Calls that leave together were made together: asking for the time is a good part of a call.
        let owes = self.owes_output.load(Ordering::Acquire);
        if !owes {
            state.asked_at = self.runtime.now();
        }
        let now = state.asked_at;
        let call = state.slots.take();
        state.session.handle(now, input(call, now + timeout));
        // A client that is closed has no task any more that would send, or fail, anything.
        if state.slots.taken() > 1 && !state.session.closed {
            // Others ask at the same time, so theirs may leave together with this one.
            if !owes {
                self.owes_output.store(true, Ordering::Release);
                aftermath.rearm = true;
            }
        } else {
            self.drain(&mut state, &mut aftermath);
        }
        let polled = state.slots.poll(cx, call);
        drop(state);
        self.settle(aftermath);
        (call, polled)
    }

    /// Sends what calls left to the task that receives, which calls this, and looks at the deadline
    /// afterwards.
    fn send_owed(&self) {
        if self.owes_output.load(Ordering::Acquire) {
            let now = self.runtime.now();
            let mut aftermath = Aftermath::default();
            let mut state = self.lock();
            self.take_over(&mut state, now);
            self.drain(&mut state, &mut aftermath);
            drop(state);
            aftermath.rearm = false;
            self.settle(aftermath);
        }
    }

    /// What calls left to the task that receives is sent now. They have all of their time from then
    /// on, if that task was kept from running for so long that it matters.
    fn take_over(&self, state: &mut State, now: Instant) {
        let owed = self.owes_output.swap(false, Ordering::AcqRel);
        if owed && now.since(state.asked_at) > LATE_MAX {
            state.session.postpone(state.asked_at, now);
        }
    }

    /// When the task that receives has to wake; it sleeps until `asleep_until` as it is. The deadline
    /// may have moved since it was woken for an earlier one, which it does not wake at any more.
    fn arm(&self, asleep_until: Instant) -> Instant {
        let mut state = self.lock();
        state.armed = state.session.deadline().min(asleep_until);
        state.armed
    }

    /// Flushes and wakes, without the lock: wakers may run anything.
    fn settle(&self, aftermath: Aftermath) {
        if aftermath.sent {
            self.transport.flush();
        }
        if aftermath.rearm {
            self.background.wake();
        }
        aftermath.wakers.into_iter().for_each(Waker::wake);
    }

    /// Tells the session everything that arrived; whether several callers were woken by it.
    fn absorb(&self, received: &mut Vec<Received>, timer: bool) -> bool {
        let now = self.runtime.now();
        let mut aftermath = Aftermath::default();
        let mut state = self.lock();
        self.take_over(&mut state, now);
        for item in received.drain(..) {
            state.session.on_received(now, item);
        }
        if timer {
            state.session.handle(now, ClientInput::Timeout);
        }
        self.drain(&mut state, &mut aftermath);
        drop(state);
        let are_several = aftermath.wakers.len() > 1;
        self.settle(aftermath);
        are_several
    }
}

/// One call, which is made when it is polled first; dropping it before it is over abandons it.
pub(crate) struct Call<'a, F> {
    link: &'a Link,
    timeout: Duration,
    stage: Stage<F>,
}

/// How far a call has come.
enum Stage<F> {
    /// What it asks for.
    New(F),
    Waiting(CallId),
    Over,
}

impl<'a, F> Call<'a, F> {
    /// A call of `input`, which waits for `timeout`.
    pub(crate) const fn new(link: &'a Link, timeout: Duration, input: F) -> Self {
        Self { link, timeout, stage: Stage::New(input) }
    }
}

/// Nothing of it is pinned.
impl<F> Unpin for Call<'_, F> {}

impl<F: FnOnce(CallId, Instant) -> ClientInput> Future for Call<'_, F> {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        let (call, polled) = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::New(input) => self.link.shared.begin(cx, self.timeout, input),
            Stage::Waiting(call) => (call, self.link.shared.lock().slots.poll(cx, call)),
            Stage::Over => return Poll::Ready(Err(RequestError::ShuttingDown)),
        };
        if polled.is_pending() {
            self.stage = Stage::Waiting(call);
        }
        polled
    }
}

impl<F> Drop for Call<'_, F> {
    fn drop(&mut self) {
        let Stage::Waiting(call) = self.stage else { return };
        let shared = &self.link.shared;
        let now = shared.runtime.now();
        let mut state = shared.lock();
        if state.slots.release(call) {
            let aftermath = shared.perform(&mut state, now, ClientInput::Abandon { call });
            drop(state);
            shared.settle(aftermath);
        }
    }
}

/// Why the task that receives goes on.
enum Woken {
    Received,
    Timer,
    Closed,
}

/// Ends all calls with the task that receives for them, however that ends: with the transport, or
/// with its runtime.
struct Receiver(Arc<Shared>);

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Receives until the transport is closed, and keeps the session's time.
pub(crate) fn receive(shared: Arc<Shared>) -> impl Future<Output = ()> {
    // Before anything is polled, because a runtime that ends may never do so.
    let receiver = Receiver(shared);
    async move { receive_until_closed(&receiver.0).await }
}

async fn receive_until_closed(shared: &Shared) {
    let mut received = Vec::new();
    let mut alarm = Alarm::default();
    loop {
        let mut parked = false;
        let woken = {
            let mut arrival = shared.transport.receive(&mut received);
            poll_fn(|cx| {
                let polled = alarm.poll(shared, &mut arrival, cx);
                parked |= polled.is_pending();
                polled
            })
            .await
        };
        let woke_several = match woken {
            Woken::Received => shared.absorb(&mut received, false),
            Woken::Timer => shared.absorb(&mut received, true),
            Woken::Closed => break,
        };
        // Right behind the callers that it woke, so that what they ask next leaves together, and
        // before the callers of other clients have their turn.
        if woke_several || !parked {
            yield_once().await;
        }
    }
}

/// Lets the runtime's other tasks run before this one goes on.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The one sleep of the task that receives; armed anew only when it fires or comes too late.
#[derive(Default)]
struct Alarm {
    sleep: Option<(Instant, BoxFuture<'static, ()>)>,
}

impl Alarm {
    fn poll(
        &mut self,
        shared: &Shared,
        arrival: &mut BoxFuture<'_, Result<(), Closed>>,
        cx: &mut Context<'_>,
    ) -> Poll<Woken> {
        match arrival.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Woken::Received),
            Poll::Ready(Err(Closed)) => return Poll::Ready(Woken::Closed),
            Poll::Pending => {}
        }
        // Before looking at what it is woken for, so that whoever asks afterwards wakes this task.
        shared.background.register(cx.waker());
        shared.send_owed();
        let asleep_until = self.sleep.as_ref().map_or(Instant::FAR_FUTURE, |(at, _)| *at);
        let armed = shared.arm(asleep_until);
        if armed < asleep_until {
            self.sleep = Some((armed, shared.runtime.sleep_until(armed)));
        }
        if let Some((_, sleep)) = &mut self.sleep
            && sleep.as_mut().poll(cx).is_ready()
        {
            self.sleep = None;
            return Poll::Ready(Woken::Timer);
        }
        Poll::Pending
    }
}
