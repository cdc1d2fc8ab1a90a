//! The node's side of checkpoints: at once where they are quick, else on a thread beside the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use futures::task::AtomicWaker;

use crate::{
    execution::{
        checkpoint::{CheckpointFailure, Frozen},
        transfer::{Task, TaskDone, perform},
    },
    model::durable::CheckpointId,
    node::{lock::Left, stop::NodeError},
    ports::{runtime::Runtime, storage::Checkpoints},
};

/// What came of the work.
#[derive(Debug)]
pub(crate) enum CheckpointNews {
    /// A task is done.
    Done(TaskDone),
    /// A frozen state is a checkpoint now.
    Taken(CheckpointId),
}

type Outcome = Result<CheckpointNews, NodeError>;

/// One thing for the thread.
enum Job {
    Task(Task),
    Frozen(Frozen),
}

/// Does what the engine wants done with checkpoints. What waits is bounded by the engine: it reads
/// only so many parts for others at a time, and fetches only so many.
pub(crate) struct CheckpointFront {
    store: Arc<dyn Checkpoints>,
    runtime: Arc<dyn Runtime>,
    waker: Arc<AtomicWaker>,
    /// Tasks, in order; and beside them frozen states, which may take long.
    threads: [Option<Worker>; 2],
    outcomes: Arc<Left<Vec<Outcome>>>,
}

impl CheckpointFront {
    pub(crate) fn new(
        store: Arc<dyn Checkpoints>,
        runtime: Arc<dyn Runtime>,
        waker: Arc<AtomicWaker>,
    ) -> Self {
        Self { store, runtime, waker, threads: [None, None], outcomes: Arc::default() }
    }

    /// Adds a task behind the others.
    ///
    /// # Errors
    /// [`NodeError::Thread`] when the system gives no thread.
    pub(crate) fn push(&mut self, task: Task) -> Result<(), NodeError> {
        // What is behind something slow waits for it, however quick it is.
        let quick = self.store.is_quick() && !task.is_slow() && self.threads[0].is_none();
        self.work(0, Job::Task(task), quick)
    }

    /// Writes a frozen state, beside everything else.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(crate) fn write(&mut self, frozen: Frozen) -> Result<(), NodeError> {
        self.work(1, Job::Frozen(frozen), false)
    }

    fn work(&mut self, thread: usize, job: Job, quick: bool) -> Result<(), NodeError> {
        if quick || !self.runtime.has_threads() {
            let outcome = carry_out(self.store.as_ref(), job);
            self.outcomes.leave(|outcomes| outcomes.push(outcome));
            return Ok(());
        }
        let Some(place) = self.threads.get_mut(thread) else { return Ok(()) };
        let worker = match place {
            Some(worker) => worker,
            None => place.insert(Worker::spawn(
                Arc::clone(&self.store),
                Arc::clone(&self.outcomes),
                Arc::clone(&self.waker),
            )?),
        };
        worker.send(job);
        Ok(())
    }

    /// What was done since the last call, in order; an error when storage failed, or a state could
    /// not be written.
    pub(crate) fn take_news(&self) -> Vec<Outcome> {
        self.outcomes.take()
    }

    /// Whether something was done and not taken yet.
    pub(crate) fn has_news(&self) -> bool {
        self.outcomes.is_there()
    }
}

fn carry_out(store: &dyn Checkpoints, job: Job) -> Outcome {
    match job {
        Job::Task(task) => Ok(CheckpointNews::Done(perform(store, task)?)),
        Job::Frozen(frozen) => Ok(CheckpointNews::Taken(frozen.write()?)),
    }
}

/// A thread that takes jobs in order; dropping this ends it after its current job, and waits for it if
/// there is none.
struct Worker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Jobs that were handed over and are not done.
    pending: Arc<AtomicUsize>,
}

impl Worker {
    fn spawn(
        store: Arc<dyn Checkpoints>,
        outcomes: Arc<Left<Vec<Outcome>>>,
        waker: Arc<AtomicWaker>,
    ) -> Result<Self, NodeError> {
        let (jobs, inbox): (Sender<Job>, Receiver<Job>) = channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&pending);
        let run = move || {
            while let Ok(job) = inbox.recv() {
                let worked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                    carry_out(store.as_ref(), job)
                }));
                let outcome = worked.unwrap_or_else(|panic| {
                    let message = crate::node::executor_front::panic_message(panic.as_ref());
                    Err(NodeError::SnapshotPanicked { message })
                });
                // Before it is told: whoever has heard of everything finds nothing pending.
                left.fetch_sub(1, Ordering::AcqRel);
                outcomes.leave(|outcomes| outcomes.push(outcome));
                waker.wake();
            }
        };
        let spawned = thread::Builder::new().name("vr checkpoints".to_owned()).spawn(run);
        let thread = spawned.map_err(|error| NodeError::Thread(Arc::new(error)))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), pending })
    }

    fn send(&self, job: Job) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        if let Some(jobs) = &self.jobs {
            // A thread that is gone has left the reason.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        let is_idle = self.pending.load(Ordering::Acquire) == 0;
        // One that panicked has left the reason.
        self.thread.take().filter(|_| is_idle).map(JoinHandle::join);
    }
}

impl From<CheckpointFailure> for NodeError {
    fn from(failure: CheckpointFailure) -> Self {
        match failure {
            CheckpointFailure::Storage(error) => error.into(),
            CheckpointFailure::Snapshot { .. }
            | CheckpointFailure::Restore { .. }
            | CheckpointFailure::OnDisk { .. } => Self::Checkpoint(Arc::new(failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use futures::future::{BoxFuture, pending};

    use super::*;
    use crate::{
        model::{
            snapshot::{SnapshotContent, SnapshotPart},
            time::Instant,
            types::{OpNumber, ReplicaId, RequestId},
        },
        node::memory_checkpoints::MemoryCheckpoints,
    };

    /// A runtime that has threads, or none.
    #[derive(Debug)]
    struct Still(bool);

    impl Runtime for Still {
        fn now(&self) -> Instant {
            Instant::ZERO
        }

        fn wall_clock(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
            Box::pin(pending())
        }

        fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) {}

        fn has_threads(&self) -> bool {
            self.0
        }

        fn entropy(&self) -> u128 {
            1
        }
    }

    fn front(threads: bool) -> CheckpointFront {
        let store = Arc::new(MemoryCheckpoints::new());
        CheckpointFront::new(store, Arc::new(Still(threads)), Arc::default())
    }

    /// A question for a chunk of a checkpoint that is not there.
    fn serve(compressed: bool) -> Task {
        let (to, request, part) = (ReplicaId(1), RequestId(2), SnapshotPart::Chunk(0));
        Task::Serve { to, request, checkpoint: CheckpointId::default(), part, compressed }
    }

    fn keep() -> Task {
        Task::Keep { checkpoints: Vec::new(), through: OpNumber::ZERO }
    }

    fn is_served(news: &CheckpointNews) -> bool {
        let CheckpointNews::Done(TaskDone::Served { content, .. }) = news else { return false };
        *content == SnapshotContent::Gone
    }

    /// Waits for what the thread does, as often as it is told.
    fn next(front: &CheckpointFront, count: usize) -> Vec<CheckpointNews> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(front.take_news().into_iter().map(Result::unwrap));
            thread::yield_now();
        }
        all
    }

    #[test]
    fn what_is_slow_is_done_on_a_thread_also_in_memory_and_what_follows_behind_it() {
        let mut front = front(true);
        front.push(serve(false)).unwrap();
        assert!(front.threads[0].is_none() && front.has_news(), "at once");
        assert!(is_served(&next(&front, 1)[0]));
        front.push(serve(true)).unwrap();
        assert!(front.threads[0].is_some(), "beside the node");
        front.push(keep()).unwrap();
        let [served, kept] = next(&front, 2).try_into().unwrap();
        assert!(is_served(&served) && matches!(kept, CheckpointNews::Done(TaskDone::Kept)));
    }

    #[test]
    fn without_threads_everything_is_done_at_once() {
        let mut front = front(false);
        front.push(serve(true)).unwrap();
        assert!(front.threads[0].is_none() && front.has_news());
        assert!(is_served(&next(&front, 1)[0]));
    }
}
