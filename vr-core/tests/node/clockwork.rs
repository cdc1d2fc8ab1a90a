//! A runtime under virtual time: one thread, tasks in the order in which they were woken.

use core::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    task::Wake,
};

use futures::future::{BoxFuture, poll_fn};
use vr_core::{Runtime, model::time::Instant};

/// The runtime of one machine; clones and machines of one clockwork share the time.
#[derive(Clone)]
pub(crate) struct Clockwork {
    shared: Arc<Mutex<Shared>>,
    machine: u64,
    has_threads: bool,
}

#[derive(Default)]
struct Shared {
    now: Instant,
    names: u64,
    drawn: u128,
    tasks: BTreeMap<u64, Task>,
    ready: VecDeque<u64>,
    timers: BTreeMap<(Instant, u64), Waker>,
}

struct Task {
    machine: u64,
    future: Option<BoxFuture<'static, ()>>,
}

impl Shared {
    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }
}

impl core::fmt::Debug for Clockwork {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Clockwork({})", self.machine)
    }
}

impl Clockwork {
    pub(crate) fn new() -> Self {
        Self { shared: Arc::default(), machine: 0, has_threads: true }
    }

    /// The runtime of another machine.
    pub(crate) fn machine(&self, machine: u64) -> Self {
        Self { shared: Arc::clone(&self.shared), machine, has_threads: self.has_threads }
    }

    /// The same machine without threads beside its tasks.
    pub(crate) fn without_threads(self) -> Self {
        Self { has_threads: false, ..self }
    }

    /// Ends this machine's tasks where they stand, as a crash does.
    pub(crate) fn crash(&self) {
        let mut shared = self.shared.lock().unwrap();
        let machine = self.machine;
        let crashed = shared.tasks.extract_if(.., |_, task| task.machine == machine);
        let crashed: Vec<_> = crashed.collect();
        drop(shared);
        drop(crashed);
    }

    /// Runs everything until `wanted` is there.
    pub(crate) fn run<T>(&self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = pin!(wanted);
        let waker = self.waker(0);
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(done) = wanted.as_mut().poll(&mut cx) {
                return done;
            }
            while !self.step() {
                self.advance();
            }
        }
    }

    /// Runs everything for a while.
    pub(crate) fn run_for(&self, time: Duration) {
        let until = self.now() + time;
        self.run(self.sleep_until(until));
    }

    /// Lets time pass in which nothing runs.
    pub(crate) fn stand_still(&self, time: Duration) {
        let mut shared = self.shared.lock().unwrap();
        shared.now = shared.now + time;
    }

    /// Polls tasks until the awaited future is next (true) or nothing is ready (false).
    fn step(&self) -> bool {
        loop {
            let mut shared = self.shared.lock().unwrap();
            let Some(name) = shared.ready.pop_front() else { return false };
            if name == 0 {
                return true;
            }
            let future = shared.tasks.get_mut(&name).and_then(|task| task.future.take());
            drop(shared);
            let Some(mut future) = future else { continue };
            let polled = future.as_mut().poll(&mut Context::from_waker(&self.waker(name)));
            let mut shared = self.shared.lock().unwrap();
            if polled.is_ready() {
                shared.tasks.remove(&name);
            } else if let Some(task) = shared.tasks.get_mut(&name) {
                task.future = Some(future);
            }
        }
    }

    fn advance(&self) {
        let mut shared = self.shared.lock().unwrap();
        let ((at, _), waker) = shared.timers.pop_first().expect("somebody is left to wait for");
        shared.now = shared.now.max(at);
        drop(shared);
        waker.wake();
    }

    fn waker(&self, name: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker { shared: Arc::clone(&self.shared), name }))
    }
}

impl Runtime for Clockwork {
    fn now(&self) -> Instant {
        self.shared.lock().unwrap().now
    }

    fn wall_clock(&self) -> Duration {
        Duration::from_secs(1_800_000_000) + Duration::from_nanos(self.now().0)
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let this = self.clone();
        let name = this.shared.lock().unwrap().name();
        let mut sleep = Sleep { shared: Arc::clone(&this.shared), key: (at, name) };
        Box::pin(poll_fn(move |cx| sleep.poll(cx)))
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) {
        let mut shared = self.shared.lock().unwrap();
        let name = shared.name();
        shared.tasks.insert(name, Task { machine: self.machine, future: Some(task) });
        shared.ready.push_back(name);
    }

    fn has_threads(&self) -> bool {
        self.has_threads
    }

    fn entropy(&self) -> u128 {
        let mut shared = self.shared.lock().unwrap();
        shared.drawn += 1;
        shared.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }
}

struct Sleep {
    shared: Arc<Mutex<Shared>>,
    key: (Instant, u64),
}

impl Sleep {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.shared.lock().unwrap();
        if shared.now >= self.key.0 {
            return Poll::Ready(());
        }
        shared.timers.insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.shared.lock().unwrap().timers.remove(&self.key);
    }
}

struct TaskWaker {
    shared: Arc<Mutex<Shared>>,
    name: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut shared = self.shared.lock().unwrap();
        if !shared.ready.contains(&self.name) {
            shared.ready.push_back(self.name);
        }
    }
}
