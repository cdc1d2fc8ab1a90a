//! Clients that ask, wait and ask again, and what they saw.

use std::{
    future::Future,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::load::{summary::count, workload::Workload};

/// How often a run says how it goes.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Something that operations can be asked of; clones share a session or a connection.
pub trait Target: Clone + Send + Sync + 'static {
    /// Has an operation executed.
    fn write(&self, payload: Bytes) -> impl Future<Output = Result<(), String>> + Send;

    /// Asks a linearizable query.
    fn read(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// What the clients of one run saw.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Nanoseconds of each operation that began and succeeded while it was measured.
    pub latencies: Vec<u64>,
    /// Operations that succeeded, at any time of the run.
    pub succeeded: u64,
    /// Operations that failed, at any time of the run.
    pub errors: u64,
    /// What one of them said.
    pub error: Option<String>,
    /// How long it was measured.
    pub elapsed: Duration,
    /// The longest time without an operation that succeeded, over the whole run.
    pub longest_gap: Duration,
}

impl Measured {
    /// The same, for a run in which no call may return an error.
    ///
    /// # Errors
    /// A call returned an error.
    pub fn without_errors(self) -> anyhow::Result<Self> {
        match &self.error {
            Some(error) => bail!("{} calls returned an error, such as: {error}", self.errors),
            None => Ok(self),
        }
    }
}

/// What all clients of a run share.
#[derive(Debug)]
pub struct Observer {
    began: Instant,
    succeeded: AtomicU64,
    /// Nanoseconds since `began`, of the latest success.
    last: AtomicU64,
    longest_gap: AtomicU64,
    is_stopped: AtomicBool,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            succeeded: AtomicU64::new(0),
            last: AtomicU64::new(0),
            longest_gap: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        }
    }
}

impl Observer {
    /// An operation succeeded.
    pub fn note(&self, at: Instant) {
        let at = nanoseconds(at.saturating_duration_since(self.began));
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        let last = self.last.swap(at, Ordering::Relaxed);
        let gap = at.saturating_sub(last);
        if gap > self.longest_gap.load(Ordering::Relaxed) {
            self.longest_gap.store(gap, Ordering::Relaxed);
        }
    }

    /// Lets every client end after the operation that it has in flight.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Operations that succeeded so far.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// The longest time without a success since the last call, or since the start.
    #[must_use]
    pub fn take_longest_gap(&self) -> Duration {
        Duration::from_nanos(self.longest_gap.swap(0, Ordering::Relaxed))
    }
}

/// When what is measured begins and ends.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Instant,
    until: Instant,
}

/// Runs `workload`: client `i` asks target `i` modulo their number.
pub async fn drive<T: Target>(targets: &[T], workload: &Workload) -> Measured {
    drive_observed(targets, workload, Arc::default()).await
}

/// As [`drive`], for somebody who watches meanwhile, and may stop it early.
pub async fn drive_observed<T: Target>(
    targets: &[T],
    workload: &Workload,
    observer: Arc<Observer>,
) -> Measured {
    let began = Instant::now();
    let from = began + workload.warm_up;
    let window = Window { from, until: from + workload.duration };
    let payload = Bytes::from(vec![0x5a; workload.payload_bytes]);
    let mut tasks = Vec::new();
    for (number, target) in (0..workload.clients).zip(targets.iter().cycle()) {
        let mut client = Client {
            target: target.clone(),
            payload: payload.clone(),
            read_percent: workload.read_percent,
            dice: u64::try_from(number).unwrap_or_default().wrapping_mul(0x9e37_79b9_7f4a_7c15),
            schedule: Schedule::of(workload, number, began),
            observer: Arc::clone(&observer),
            seen: Measured::default(),
        };
        tasks.push(tokio::spawn(async move {
            client.run(window).await;
            client.seen
        }));
    }
    let reporter = workload.progress.then(|| tokio::spawn(report(Arc::clone(&observer))));
    let mut all = Measured { elapsed: workload.duration, ..Measured::default() };
    for task in tasks {
        match task.await {
            Ok(seen) => {
                all.latencies.extend(seen.latencies);
                all.errors += seen.errors;
                all.error = all.error.or(seen.error);
            }
            Err(error) => {
                all.errors += 1;
                all.error = Some(error.to_string());
            }
        }
    }
    if let Some(reporter) = reporter {
        reporter.abort();
    }
    all.succeeded = observer.succeeded();
    all.longest_gap = observer.take_longest_gap();
    all
}

/// Has `operations` executed, `at_once` of them at a time: the `i`-th asks target `i` modulo their
/// number.
///
/// # Errors
/// A call returned an error.
pub async fn execute<T: Target>(
    targets: &[T],
    at_once: u64,
    operations: u64,
    payload: &Bytes,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for (number, target) in (0..at_once).zip(targets.iter().cycle()) {
        let (target, payload) = (target.clone(), payload.clone());
        let share = operations / at_once + u64::from(number < operations % at_once);
        tasks.spawn(async move {
            for _ in 0..share {
                target.write(payload.clone()).await.map_err(anyhow::Error::msg)?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// One client.
struct Client<T> {
    target: T,
    payload: Bytes,
    read_percent: u32,
    dice: u64,
    schedule: Option<Schedule>,
    observer: Arc<Observer>,
    seen: Measured,
}

impl<T: Target> Client<T> {
    async fn run(&mut self, window: Window) {
        let mut began = Instant::now();
        loop {
            if let Some(schedule) = &mut self.schedule {
                began = schedule.next().await;
            }
            if began >= window.until || self.observer.is_stopped.load(Ordering::Relaxed) {
                return;
            }
            let result = if self.rolls_a_read() {
                self.target.read().await
            } else {
                self.target.write(self.payload.clone()).await
            };
            let ended = Instant::now();
            match result {
                Ok(()) => {
                    self.observer.note(ended);
                    if began >= window.from && ended <= window.until {
                        self.seen.latencies.push(nanoseconds(ended - began));
                    }
                }
                Err(error) => {
                    self.seen.errors += 1;
                    self.seen.error = Some(error);
                    // An error that comes at once must not keep others from their turn.
                    tokio::task::yield_now().await;
                }
            }
            began = ended;
        }
    }

    fn rolls_a_read(&mut self) -> bool {
        if self.read_percent == 0 {
            return false;
        }
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 33) % 100 < u64::from(self.read_percent)
    }
}

/// When a client of an open loop begins its operations.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    due: Instant,
    interval: Duration,
}

impl Schedule {
    fn of(workload: &Workload, number: usize, began: Instant) -> Option<Self> {
        let rate = workload.rate.filter(|rate| *rate > 0)?;
        let clients = u32::try_from(workload.clients).unwrap_or(u32::MAX);
        let distance = Duration::from_secs(1) / rate;
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let due = began + distance.saturating_mul(number);
        Some(Self { due, interval: distance.saturating_mul(clients) })
    }

    /// Waits until the next operation is due, and returns from when on its latency counts: from
    /// when it was due if its client was still busy then, so that a slow group delays nothing
    /// unseen; from now if the client was idle, so that a late timer is not the group's fault.
    async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.interval;
        if due <= Instant::now() {
            return due;
        }
        tokio::time::sleep_until(due.into()).await;
        Instant::now()
    }
}

/// Says every second how many operations a second there are.
async fn report(observer: Arc<Observer>) {
    let mut before = (Instant::now(), observer.succeeded());
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let now = (Instant::now(), observer.succeeded());
        let seconds = now.0.duration_since(before.0).as_secs_f64();
        say(&format!("  {:>10.0} op/s", count(now.1 - before.1) / seconds));
        before = now;
    }
}

/// A line on standard error.
pub fn say(line: &str) {
    // Nobody is left to be told that standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}

/// A duration as whole nanoseconds.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Clone, Default)]
    struct Counting {
        writes: Arc<AtomicUsize>,
        reads: Arc<AtomicUsize>,
        fails: bool,
    }

    impl Target for Counting {
        async fn write(&self, payload: Bytes) -> Result<(), String> {
            assert_eq!(payload.len(), 16);
            self.writes.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if self.fails { Err("refused".to_owned()) } else { Ok(()) }
        }

        async fn read(&self) -> Result<(), String> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    fn workload() -> Workload {
        Workload {
            clients: 3,
            clients_per_session: 64,
            payload_bytes: 16,
            read_percent: 0,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(20),
            rate: None,
            progress: false,
        }
    }

    fn driven(target: &Counting, workload: &Workload) -> Measured {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(drive(std::slice::from_ref(target), workload))
    }

    #[test]
    fn what_is_measured_was_asked() {
        let target = Counting::default();
        let measured = driven(&target, &workload());
        let asked = target.writes.load(Ordering::Relaxed);
        assert_eq!(u64::try_from(asked).unwrap(), measured.succeeded);
        assert!(asked >= measured.latencies.len());
        assert_eq!((measured.errors, target.reads.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn operations_before_the_end_of_the_warm_up_are_not_measured() {
        let measured =
            driven(&Counting::default(), &Workload { duration: Duration::ZERO, ..workload() });
        assert_eq!(measured.latencies, []);
    }

    #[test]
    fn errors_are_counted_and_one_is_kept() {
        let measured = driven(&Counting { fails: true, ..Counting::default() }, &workload());
        assert_eq!((measured.succeeded, measured.latencies.len()), (0, 0));
        assert_eq!(measured.error.is_some(), measured.errors > 0);
    }

    #[test]
    fn all_reads_means_no_writes() {
        let target = Counting::default();
        let measured = driven(&target, &Workload { read_percent: 100, ..workload() });
        let asked = target.reads.load(Ordering::Relaxed);
        assert_eq!(u64::try_from(asked).unwrap(), measured.succeeded);
        assert_eq!(target.writes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_schedule_spreads_the_clients_over_its_interval() {
        let began = Instant::now();
        let workload = Workload { rate: Some(1000), ..workload() };
        let second = Schedule::of(&workload, 2, began).unwrap();
        assert_eq!(second.due, began + Duration::from_millis(2));
        assert_eq!(second.interval, Duration::from_millis(3));
        assert!(Schedule::of(&Workload { rate: None, ..workload }, 2, began).is_none());
    }

    #[test]
    fn the_longest_gap_is_the_longest_between_two_successes() {
        let observer = Observer::default();
        let at = |millis| observer.began + Duration::from_millis(millis);
        [10, 15, 45, 50].into_iter().for_each(|millis| observer.note(at(millis)));
        assert_eq!(observer.take_longest_gap(), Duration::from_millis(30));
        assert_eq!(observer.take_longest_gap(), Duration::ZERO);
        assert_eq!(observer.succeeded(), 4);
    }
}
