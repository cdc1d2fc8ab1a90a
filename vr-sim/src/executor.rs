//! A single-threaded executor under virtual time: the same tasks in the same order, every run.

use core::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    task::{Wake, Waker},
};

use futures::future::BoxFuture;
use vr_core::model::time::Instant;

use crate::actor::Actor;

/// More polls than this without time moving on are taken for a livelock.
const POLLS_AT_ONE_INSTANT_MAX: u64 = 5_000_000;

/// Runs tasks that belong to actors, and keeps the timers that wake them.
///
/// Time moves only by [`advance_to`](Self::advance_to); nothing here looks at a real clock.
pub struct Executor {
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    paused: BTreeMap<Actor, Vec<TaskKey>>,
    polls: u64,
    polls_here: u64,
}

/// What tasks share with the executor: time, timers, and the way to spawn and to wake.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    now: AtomicU64,
    ready: Mutex<VecDeque<TaskKey>>,
    timers: Mutex<Timers>,
    spawned: Mutex<Vec<Spawned>>,
}

#[derive(Debug, Default)]
struct Timers {
    next: u64,
    queue: BTreeMap<TimerKey, Waker>,
}

/// Names one timer: when it is due, and the order of those that are due together.
pub(crate) type TimerKey = (Instant, u64);

struct Spawned {
    actor: Actor,
    name: &'static str,
    future: BoxFuture<'static, ()>,
}

impl fmt::Debug for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned").field("actor", &self.actor).field("name", &self.name).finish()
    }
}

#[derive(Default)]
struct Slot {
    generation: u64,
    task: Option<Task>,
}

struct Task {
    actor: Actor,
    future: BoxFuture<'static, ()>,
    wake: Arc<TaskWake>,
    waker: Waker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TaskKey {
    slot: usize,
    generation: u64,
}

struct TaskWake {
    key: TaskKey,
    queued: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.shared.ready).push_back(self.key);
        }
    }
}

/// A mutex of a single thread is never contended, and a panic elsewhere leaves plain data behind.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn now(&self) -> Instant {
        Instant(self.now.load(Ordering::Relaxed))
    }

    pub(crate) fn spawn(&self, actor: Actor, name: &'static str, future: BoxFuture<'static, ()>) {
        lock(&self.spawned).push(Spawned { actor, name, future });
    }

    pub(crate) fn add_timer(&self, at: Instant, waker: Waker) -> TimerKey {
        let mut timers = lock(&self.timers);
        let key = (at, timers.next);
        timers.next += 1;
        timers.queue.insert(key, waker);
        key
    }

    /// Takes the timer out; true if it had not fired.
    pub(crate) fn remove_timer(&self, key: TimerKey) -> bool {
        lock(&self.timers).queue.remove(&key).is_some()
    }

    /// Lets the timer wake `waker` instead; false if it has fired.
    pub(crate) fn renew_timer(&self, key: TimerKey, waker: &Waker) -> bool {
        match lock(&self.timers).queue.get_mut(&key) {
            Some(known) => {
                known.clone_from(waker);
                true
            }
            None => false,
        }
    }
}

impl Default for Executor {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor {
    /// An executor without tasks, at the origin of time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared::default()),
            slots: Vec::new(),
            free: Vec::new(),
            paused: BTreeMap::new(),
            polls: 0,
            polls_here: 0,
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.now()
    }

    /// How many polls there were so far.
    #[must_use]
    pub const fn polls(&self) -> u64 {
        self.polls
    }

    /// Adds a task that dies with `actor`.
    pub fn spawn(
        &self,
        actor: Actor,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.shared.spawn(actor, name, Box::pin(task));
    }

    /// Polls tasks until none is ready.
    ///
    /// # Panics
    /// When the tasks wake each other without end while time stands still.
    pub fn run_ready(&mut self) {
        loop {
            self.admit_spawned();
            let Some(key) = lock(&self.shared.ready).pop_front() else { return };
            self.polls_here += 1;
            assert!(
                self.polls_here < POLLS_AT_ONE_INSTANT_MAX,
                "the tasks keep waking each other at {}",
                self.now()
            );
            self.poll(key);
        }
    }

    /// When the next timer is due; `None` without timers.
    #[must_use]
    pub fn next_timer(&self) -> Option<Instant> {
        lock(&self.shared.timers).queue.keys().next().map(|(at, _)| *at)
    }

    /// Moves time on and wakes the timers that are due then.
    ///
    /// # Panics
    /// If `at` is in the past.
    pub fn advance_to(&mut self, at: Instant) {
        assert!(at >= self.now(), "time goes forward: {at} is before {}", self.now());
        if at > self.now() {
            self.polls_here = 0;
        }
        self.shared.now.store(at.0, Ordering::Relaxed);
        loop {
            let mut timers = lock(&self.shared.timers);
            let Some(entry) = timers.queue.first_entry() else { return };
            if entry.key().0 > at {
                return;
            }
            let waker = entry.remove();
            drop(timers);
            waker.wake();
        }
    }

    /// Drops all tasks of `actor`, as the end of a process does.
    pub fn kill(&mut self, actor: Actor) {
        self.paused.remove(&actor);
        lock(&self.shared.spawned).retain(|spawned| spawned.actor != actor);
        let mut dead = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.task.as_ref().is_some_and(|task| task.actor == actor) {
                slot.generation += 1;
                dead.extend(slot.task.take());
                self.free.push(index);
            }
        }
        drop(dead);
    }

    /// Stops polling the tasks of `actor` until [`resume`](Self::resume).
    pub fn pause(&mut self, actor: Actor) {
        self.paused.entry(actor).or_default();
    }

    /// Goes on polling the tasks of `actor`.
    pub fn resume(&mut self, actor: Actor) {
        for key in self.paused.remove(&actor).unwrap_or_default() {
            lock(&self.shared.ready).push_back(key);
        }
    }

    /// Whether `actor` is paused.
    #[must_use]
    pub fn is_paused(&self, actor: Actor) -> bool {
        self.paused.contains_key(&actor)
    }

    /// Wakes all tasks of `actor`, so that they look at their clock again.
    pub fn wake_all(&self, actor: Actor) {
        for task in self.slots.iter().filter_map(|slot| slot.task.as_ref()) {
            if task.actor == actor {
                task.waker.wake_by_ref();
            }
        }
    }

    fn admit_spawned(&mut self) {
        let spawned = core::mem::take(&mut *lock(&self.shared.spawned));
        for Spawned { actor, name: _, future } in spawned {
            let index = self.free.pop().unwrap_or(self.slots.len());
            if index == self.slots.len() {
                self.slots.push(Slot::default());
            }
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let key = TaskKey { slot: index, generation: slot.generation };
            let shared = Arc::clone(&self.shared);
            let wake = Arc::new(TaskWake { key, queued: AtomicBool::new(false), shared });
            let waker = Waker::from(Arc::clone(&wake));
            waker.wake_by_ref();
            slot.task = Some(Task { actor, future, wake, waker });
        }
    }

    fn poll(&mut self, key: TaskKey) {
        let Some(slot) = self.slots.get_mut(key.slot) else { return };
        if slot.generation != key.generation {
            return;
        }
        let Some(task) = slot.task.as_mut() else { return };
        if let Some(stash) = self.paused.get_mut(&task.actor) {
            stash.push(key);
            return;
        }
        task.wake.queued.store(false, Ordering::Relaxed);
        self.polls += 1;
        let mut context = Context::from_waker(&task.waker);
        if let Poll::Ready(()) = task.future.as_mut().poll(&mut context) {
            slot.generation += 1;
            let done = slot.task.take();
            self.free.push(key.slot);
            drop(done);
        }
    }
}

/// Tasks and timers hold on to what they share with the executor; letting go breaks the circle.
impl Drop for Executor {
    fn drop(&mut self) {
        self.slots.clear();
        let spawned = core::mem::take(&mut *lock(&self.shared.spawned));
        drop(spawned);
        let timers = core::mem::take(&mut *lock(&self.shared.timers));
        drop(timers);
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("now", &self.now())
            .field("tasks", &(self.slots.len() - self.free.len()))
            .field("polls", &self.polls)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use vr_core::ports::runtime::Runtime;

    use super::*;
    use crate::{prng::Prng, runtime::SimRuntime};

    const ACTOR: Actor = Actor::Client(0);

    fn runtime(executor: &Executor) -> SimRuntime {
        SimRuntime::new(executor, ACTOR, Prng::new(1))
    }

    fn note(log: &Arc<Mutex<Vec<u64>>>, what: u64) {
        log.lock().unwrap().push(what);
    }

    fn sleeper(executor: &Executor, log: &Arc<Mutex<Vec<u64>>>, milliseconds: u64) {
        let (runtime, log) = (runtime(executor), Arc::clone(log));
        executor.spawn(ACTOR, "sleeper", async move {
            runtime.sleep_until(runtime.now() + Duration::from_millis(milliseconds)).await;
            note(&log, milliseconds);
        });
    }

    fn run(executor: &mut Executor) {
        executor.run_ready();
        while let Some(at) = executor.next_timer() {
            executor.advance_to(at);
            executor.run_ready();
        }
    }

    #[test]
    fn sleepers_wake_in_order_of_their_time() {
        let (mut executor, log) = (Executor::new(), Arc::default());
        for milliseconds in [30, 10, 20] {
            sleeper(&executor, &log, milliseconds);
        }
        run(&mut executor);
        assert_eq!(*log.lock().unwrap(), [10, 20, 30]);
        assert_eq!(executor.now(), Instant(30_000_000));
    }

    #[test]
    fn a_killed_actor_does_nothing_more() {
        let (mut executor, log) = (Executor::new(), Arc::default());
        sleeper(&executor, &log, 10);
        executor.run_ready();
        executor.kill(ACTOR);
        run(&mut executor);
        assert!(log.lock().unwrap().is_empty());
    }

    #[test]
    fn a_paused_actor_goes_on_when_it_is_resumed() {
        let (mut executor, log) = (Executor::new(), Arc::default());
        sleeper(&executor, &log, 10);
        executor.run_ready();
        executor.pause(ACTOR);
        executor.advance_to(Instant(50_000_000));
        executor.run_ready();
        assert!(log.lock().unwrap().is_empty());
        executor.resume(ACTOR);
        executor.run_ready();
        assert_eq!(*log.lock().unwrap(), [10]);
    }
}
