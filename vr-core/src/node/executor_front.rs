//! The node's side of the executor: on the node's own task, or on a thread of its own.

use core::{any::Any, panic::AssertUnwindSafe, time::Duration};
use std::{
    collections::VecDeque,
    panic::catch_unwind,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use futures::{channel::oneshot, task::AtomicWaker};

use crate::{
    execution::{
        checkpoint::Frozen,
        executor::Executor,
        work::{Finished, Work},
    },
    model::{
        time::Instant,
        types::{Checksum, OpNumber},
    },
    node::{
        lock::lock,
        slow_steps::SlowSteps,
        status::{ExecutorMode, ExecutorStatus},
        stop::NodeError,
        watched::{Busy, Doing},
    },
    ports::{runtime::Runtime, state_machine::SnapshotError},
};

/// How long the inline executor may work before the node looks around again.
const TURN_MAX: Duration = Duration::from_millis(1);
/// Steps between two looks at the clock, at most, while steps are quick: a look costs as much as a
/// small operation.
const STRIDE_MAX: usize = 64;
/// Steps are quick while a look at the clock shows less than this since the last one.
const QUICK: Duration = Duration::from_micros(50);
/// Items of work in the channel to the thread; what comes beyond waits in front of it, bounded by
/// `Config::execute_ops_max` and `Config::reads_max`.
const CHANNEL_ITEMS_MAX: u32 = 1024;

/// The replicated state's digest, and the op it was taken after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// The last op that the state contains.
    pub applied: OpNumber,
    /// XXH3-128 over the state machine's snapshot and the client table; equal on all replicas
    /// that applied the same op.
    pub digest: Checksum,
}

/// Where a digest is sent.
pub(crate) type DigestSender = oneshot::Sender<Result<StateDigest, SnapshotError>>;

/// The executor, wherever it works.
pub(crate) struct ExecutorFront {
    place: Place,
    doing: Doing,
    slow_steps: SlowSteps,
}

enum Place {
    Inline(Box<Executor>),
    Thread(Thread),
    /// It panicked.
    Gone,
}

/// What a turn of the inline executor came to.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// A step took this long, and the executor has to move to a thread because of it.
    pub(crate) moved: Option<Duration>,
    /// When it ended, if it did anything.
    pub(crate) ended: Option<Instant>,
}

impl ExecutorFront {
    /// An inline executor of a state machine that is observed by `doing`.
    pub(crate) fn new(executor: Executor, doing: Doing, heartbeat_interval: Duration) -> Self {
        let place = Place::Inline(Box::new(executor));
        Self { place, doing, slow_steps: SlowSteps::new(heartbeat_interval) }
    }

    /// What the state machine is doing.
    pub(crate) const fn doing(&self) -> &Doing {
        &self.doing
    }

    /// Moves the executor to a thread for good; `waker` is woken whenever it has finished
    /// something.
    ///
    /// # Errors
    /// [`NodeError::Thread`] when the system gives no thread; the executor stays inline.
    pub(crate) fn move_to_thread(
        &mut self,
        runtime: &Arc<dyn Runtime>,
        waker: Arc<AtomicWaker>,
    ) -> Result<(), NodeError> {
        if !runtime.has_threads() {
            return Ok(());
        }
        self.place = match core::mem::replace(&mut self.place, Place::Gone) {
            Place::Inline(executor) => {
                match Thread::spawn(Arc::clone(runtime), self.doing.clone(), waker) {
                    Ok(mut thread) => {
                        thread.push(Job::Begin(executor));
                        Place::Thread(thread)
                    }
                    Err(error) => {
                        self.place = Place::Inline(executor);
                        return Err(error);
                    }
                }
            }
            there @ (Place::Thread(_) | Place::Gone) => there,
        };
        Ok(())
    }

    /// Whether it runs within the node's own turns.
    pub(crate) const fn is_inline(&self) -> bool {
        matches!(self.place, Place::Inline(_))
    }

    /// Adds work behind everything else.
    pub(crate) fn push(&mut self, work: Work) {
        match &mut self.place {
            Place::Inline(executor) => executor.push(work),
            Place::Thread(thread) => thread.push(Job::Work(work)),
            Place::Gone => {}
        }
    }

    /// Computes the state's digest, between two steps.
    pub(crate) fn digest(&mut self, answer: DigestSender) {
        match &mut self.place {
            Place::Inline(executor) => digest(executor, answer),
            Place::Thread(thread) => thread.push(Job::Digest(answer)),
            Place::Gone => {}
        }
    }

    /// Works until the turn has taken a millisecond, at least one step; a thread needs no turn but
    /// is given what had no room in its channel.
    ///
    /// # Errors
    /// [`NodeError`] when the state machine panicked.
    pub(crate) fn run(
        &mut self,
        runtime: &dyn Runtime,
        turn_began: Instant,
    ) -> Result<Ran, NodeError> {
        match &mut self.place {
            Place::Inline(executor) if executor.is_idle() => Ok(Ran::default()),
            Place::Inline(executor) => {
                let slow_steps = &mut self.slow_steps;
                let work = || work(executor, runtime, turn_began, slow_steps);
                match catch_unwind(AssertUnwindSafe(work)) {
                    Ok(ran) => {
                        let failure = executor.take_failure();
                        failure.map_or(Ok(ran), |failure| Err(failure.into()))
                    }
                    Err(panic) => {
                        self.place = Place::Gone;
                        Err(panicked(self.doing.look(), panic.as_ref()))
                    }
                }
            }
            Place::Thread(thread) => {
                thread.hand_over();
                Ok(Ran::default())
            }
            Place::Gone => Ok(Ran::default()),
        }
    }

    /// What happened since the last call.
    ///
    /// # Errors
    /// [`NodeError`] when the state machine panicked on its thread.
    pub(crate) fn take_finished(&mut self) -> Result<Option<Finished>, NodeError> {
        match &mut self.place {
            Place::Inline(executor) => Ok(executor.take_finished()),
            Place::Thread(thread) => thread.take_finished(),
            Place::Gone => Ok(None),
        }
    }

    /// A state that was frozen since the last call, to be written beside everything else.
    pub(crate) fn take_frozen(&mut self) -> Option<Frozen> {
        match &mut self.place {
            Place::Inline(executor) => executor.take_frozen(),
            Place::Thread(thread) => lock(&thread.results).frozen.take(),
            Place::Gone => None,
        }
    }

    /// Whether the node should give it a turn.
    pub(crate) fn wants_turn(&mut self) -> bool {
        match &mut self.place {
            Place::Inline(executor) => !executor.is_idle(),
            Place::Thread(thread) => thread.wants_turn(),
            Place::Gone => false,
        }
    }

    /// Whether all work is done and taken.
    pub(crate) fn is_idle(&self) -> bool {
        match &self.place {
            Place::Inline(executor) => executor.is_idle(),
            Place::Thread(thread) => thread.is_idle(),
            Place::Gone => true,
        }
    }

    /// What it is doing.
    pub(crate) fn numbers(&self) -> ExecutorStatus {
        let (mode, queued) = match &self.place {
            Place::Inline(_) | Place::Gone => (ExecutorMode::Inline, 0),
            Place::Thread(thread) => (ExecutorMode::Thread, thread.queued()),
        };
        ExecutorStatus { mode, queued, applying: None, longest_step: self.slow_steps.longest() }
    }
}

/// Steps until nothing is left, the turn is over, or steps took so long that the executor has to
/// move.
fn work(
    executor: &mut Executor,
    runtime: &dyn Runtime,
    turn_began: Instant,
    slow_steps: &mut SlowSteps,
) -> Ran {
    let mut began = runtime.now();
    let mut stride = 1;
    loop {
        let is_done = !executor.steps(stride) || executor.is_idle();
        let ended = runtime.now();
        let took = ended.since(began);
        // A state is restored once, and who waits for that has waited when it is done.
        if !executor.has_restored() && slow_steps.note(ended, took) {
            return Ran { moved: Some(took), ended: Some(ended) };
        }
        if is_done || ended.since(turn_began) >= TURN_MAX {
            return Ran { moved: None, ended: Some(ended) };
        }
        stride = if took < QUICK { STRIDE_MAX.min(8 * stride) } else { 1 };
        began = ended;
    }
}

fn digest(executor: &Executor, answer: DigestSender) {
    let applied = executor.applied();
    let digest = executor.digest().map(|digest| StateDigest { applied, digest });
    // Whoever asked may have stopped waiting.
    let _ = answer.send(digest);
}

/// The reason to stop after a panic.
fn panicked(busy: Busy, panic: &(dyn Any + Send)) -> NodeError {
    let message = panic_message(panic);
    match busy {
        Busy::Applying(op_number) => NodeError::ApplyPanicked { op_number, message },
        Busy::Answering => NodeError::QueryPanicked { message },
        Busy::Nothing => NodeError::Panicked { message },
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it said nothing".to_owned())
}

/// One item for the thread.
enum Job {
    Begin(Box<Executor>),
    Work(Work),
    Digest(DigestSender),
}

/// The thread's end of the way back.
#[derive(Default)]
struct Results {
    finished: Finished,
    /// Something is in `finished`.
    any: bool,
    /// A state that was frozen.
    frozen: Option<Frozen>,
    /// Jobs done.
    done: u64,
    panicked: Option<NodeError>,
}

/// An executor on a thread of its own; dropping this ends the thread after its current job, and waits
/// for it if there is none.
struct Thread {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    backlog: VecDeque<Job>,
    handed: u64,
    results: Arc<Mutex<Results>>,
}

impl Thread {
    fn spawn(
        runtime: Arc<dyn Runtime>,
        doing: Doing,
        waker: Arc<AtomicWaker>,
    ) -> Result<Self, NodeError> {
        let (jobs, inbox) = sync_channel(usize::try_from(CHANNEL_ITEMS_MAX).unwrap_or(1));
        let results = Arc::new(Mutex::new(Results::default()));
        let outlet = Outlet { results: Arc::clone(&results), waker, runtime };
        let thread = thread::Builder::new()
            .name("vr executor".to_owned())
            .spawn(move || {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| serve(&inbox, &outlet))) {
                    lock(&outlet.results).panicked = Some(panicked(doing.look(), panic.as_ref()));
                    outlet.waker.wake();
                }
            })
            .map_err(|error| NodeError::Thread(Arc::new(error)))?;
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok(Self { jobs, thread, backlog: VecDeque::new(), handed: 0, results })
    }

    fn push(&mut self, job: Job) {
        self.backlog.push_back(job);
        self.handed = self.handed.saturating_add(1);
        self.hand_over();
    }

    /// Gives the thread what its channel has room for; never waits.
    fn hand_over(&mut self) {
        let Some(jobs) = &self.jobs else { return };
        while let Some(job) = self.backlog.pop_front() {
            match jobs.try_send(job) {
                Ok(()) => {}
                // A thread that is gone has left the reason.
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                    self.backlog.push_front(job);
                    break;
                }
            }
        }
    }

    fn take_finished(&mut self) -> Result<Option<Finished>, NodeError> {
        let mut results = lock(&self.results);
        if let Some(reason) = &results.panicked {
            return Err(reason.clone());
        }
        let any = core::mem::take(&mut results.any);
        let finished = any.then(|| core::mem::take(&mut results.finished));
        drop(results);
        self.hand_over();
        Ok(finished)
    }

    /// Whether there are results, or room in the channel for what waits in front of it.
    fn wants_turn(&self) -> bool {
        let results = lock(&self.results);
        let waiting = u64::try_from(self.backlog.len()).unwrap_or(u64::MAX);
        let in_channel = self.handed.saturating_sub(results.done).saturating_sub(waiting);
        let has_room = in_channel < u64::from(CHANNEL_ITEMS_MAX / 2);
        results.any || results.panicked.is_some() || (waiting > 0 && has_room)
    }

    fn queued(&self) -> u64 {
        self.handed.saturating_sub(lock(&self.results).done)
    }

    fn is_idle(&self) -> bool {
        let results = lock(&self.results);
        results.done >= self.handed && !results.any
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self.thread.take().filter(|_| self.queued() == 0);
        // One that panicked has left the reason.
        thread.map(JoinHandle::join);
    }
}

/// What the thread works with.
struct Outlet {
    results: Arc<Mutex<Results>>,
    waker: Arc<AtomicWaker>,
    runtime: Arc<dyn Runtime>,
}

/// The thread: job after job, until nobody hands over any more.
fn serve(inbox: &Receiver<Job>, outlet: &Outlet) {
    let mut executor = None;
    while let Ok(job) = inbox.recv() {
        match (job, &mut executor) {
            (Job::Begin(mut begun), place) => {
                // What it had not done or not told when it moved.
                outlet.work(&mut begun);
                *place = Some(begun);
            }
            (Job::Work(work), Some(executor)) => {
                executor.push(work);
                outlet.work(executor);
            }
            (Job::Digest(answer), Some(executor)) => digest(executor, answer),
            (Job::Work(_) | Job::Digest(_), None) => {}
        }
        let mut results = lock(&outlet.results);
        results.done = results.done.saturating_add(1);
        drop(results);
        outlet.waker.wake();
    }
}

impl Outlet {
    /// Does all there is to do, and tells of it at least every millisecond.
    fn work(&self, executor: &mut Executor) {
        let mut told = self.runtime.now();
        while executor.step() {
            let now = self.runtime.now();
            if now.since(told) >= TURN_MAX {
                self.tell(executor);
                self.waker.wake();
                told = now;
            }
        }
        self.tell(executor);
    }

    fn tell(&self, executor: &mut Executor) {
        let (failure, frozen) = (executor.take_failure(), executor.take_frozen());
        let news = executor.take_finished();
        let mut results = lock(&self.results);
        if let Some(failure) = failure {
            results.panicked = Some(failure.into());
        }
        results.any |= frozen.is_some();
        results.frozen = frozen.or_else(|| results.frozen.take());
        let Some(news) = news else { return };
        results.finished.executed.through = news.executed.through;
        results.finished.executed.replies.extend(news.executed.replies);
        results.finished.executed.evicted.extend(news.executed.evicted);
        results.finished.executed.taken.extend(news.executed.taken);
        if news.executed.restored.is_some() {
            results.finished.executed.restored = news.executed.restored;
        }
        results.finished.answers.extend(news.answers);
        results.any = true;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{executor::block_on, future::BoxFuture, future::poll_fn};

    use super::*;
    use crate::{
        model::types::{ClientId, ConnectionId, Peer, RequestNumber},
        ports::state_machine::{
            Context, Malformed, QueryContext, RawStateMachine, SnapshotReader, SnapshotWriter,
        },
    };

    /// Answers every query with itself; panics at an empty one.
    struct Echo;

    impl RawStateMachine for Echo {
        fn apply(&mut self, _: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
            Ok(operation.clone())
        }

        fn query(&self, _: &QueryContext, query: Bytes) -> Result<Bytes, Malformed> {
            assert!(!query.is_empty(), "nothing was asked");
            Ok(query)
        }

        fn snapshot(&self, _: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
            Ok(())
        }

        fn restore(&mut self, _: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
            Ok(())
        }
    }

    /// A clock that stands still, or ticks at each look.
    #[derive(Debug, Default)]
    struct Clock {
        ticks: core::sync::atomic::AtomicU64,
        tick: u64,
    }

    impl Runtime for Clock {
        fn now(&self) -> Instant {
            Instant(self.ticks.fetch_add(self.tick, core::sync::atomic::Ordering::Relaxed))
        }

        fn wall_clock(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
            Box::pin(futures::future::pending())
        }

        fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) {}

        fn entropy(&self) -> u128 {
            0
        }
    }

    fn front() -> ExecutorFront {
        let doing = Doing::default();
        let echo = crate::node::watched::Watched::new(Box::new(Echo), doing.clone());
        let executor = Executor::new(Box::new(echo), 64);
        ExecutorFront::new(executor, doing, Duration::from_millis(5))
    }

    fn query(bytes: &'static [u8]) -> Work {
        Work::Query {
            to: Peer::Client(ConnectionId(1)),
            client: ClientId(1),
            request_number: RequestNumber(1),
            query: Bytes::from_static(bytes),
            time: Duration::ZERO,
        }
    }

    #[test]
    fn a_turn_ends_after_a_millisecond_and_the_rest_waits() {
        let clock = Clock { tick: 400_000, ..Clock::default() };
        let mut front = front();
        (0..10).for_each(|_| front.push(query(b"?")));
        let began = clock.now();
        front.run(&clock, began).unwrap();
        let answers = front.take_finished().unwrap().unwrap().answers.len();
        assert!((1..=3).contains(&answers), "{answers}");
        assert!(front.wants_turn());
    }

    #[test]
    fn a_step_over_the_limit_asks_for_a_thread() {
        let clock = Clock { tick: 6_000_000, ..Clock::default() };
        let mut front = front();
        front.push(query(b"?"));
        let ran = front.run(&clock, Instant::ZERO).unwrap();
        assert_eq!(ran.moved, Some(Duration::from_millis(6)));
    }

    #[test]
    fn a_panic_in_a_query_is_told_apart() {
        let mut front = front();
        front.push(query(b""));
        let stopped = front.run(&Clock::default(), Instant::ZERO).unwrap_err();
        assert!(matches!(stopped, NodeError::QueryPanicked { .. }), "{stopped}");
        assert!(front.is_idle() && !front.wants_turn());
    }

    #[test]
    fn a_thread_that_is_idle_has_ended_when_it_was_dropped() {
        let runtime: Arc<dyn Runtime> = Arc::new(Clock::default());
        let waker = Arc::new(AtomicWaker::new());
        let mut front = front();
        front.move_to_thread(&runtime, Arc::clone(&waker)).unwrap();
        block_on(poll_fn(|cx| {
            waker.register(cx.waker());
            front.take_finished().unwrap();
            if front.is_idle() { core::task::Poll::Ready(()) } else { core::task::Poll::Pending }
        }));
        assert_eq!(Arc::strong_count(&runtime), 2);
        drop(front);
        assert_eq!(Arc::strong_count(&runtime), 1);
    }

    #[test]
    fn a_thread_gets_everything_though_its_channel_is_small() {
        let runtime: Arc<dyn Runtime> = Arc::new(Clock::default());
        let waker = Arc::new(AtomicWaker::new());
        let mut front = front();
        front.push(query(b"before the move"));
        front.move_to_thread(&runtime, Arc::clone(&waker)).unwrap();
        (0..5000).for_each(|_| front.push(query(b"?")));
        let mut answers = 0;
        block_on(poll_fn(|cx| {
            waker.register(cx.waker());
            front.run(runtime.as_ref(), Instant::ZERO).unwrap();
            let finished = front.take_finished().unwrap();
            answers += finished.map_or(0, |finished| finished.answers.len());
            if answers == 5001 { core::task::Poll::Ready(()) } else { core::task::Poll::Pending }
        }));
        assert_eq!(front.numbers().mode, ExecutorMode::Thread);
    }
}
