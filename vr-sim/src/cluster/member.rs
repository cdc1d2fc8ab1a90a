//! One replica of a simulated group through all its lives: real node, simulated ground.

use core::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use vr_core::{
    Config, Members,
    model::{config::Genesis, types::ReplicaId},
    node::{Node, handle::NodeHandle, status::ExecutorMode, stop::NodeError},
    ports::{runtime::Runtime, storage::StorageError},
    replica::io::Fatal,
};

use crate::{
    actor::Actor,
    checker::{Verdict, Violation},
    cluster::client::Service,
    disk::DiskControl,
    executor::{Executor, lock},
    network::Network,
    observer::Observed,
    options::GroupOptions,
    prng::Prng,
    runtime::SimRuntime,
    state_disk::{StateDisk, StatePlace},
    storage::{Gate, SimStorage},
    trace::event::{Event, Fate},
    witness::SharedWitness,
};

/// The name of every simulated group.
pub(crate) const GROUP: &str = "sim";

/// A replica's ground, which outlives its process, and the process.
pub(crate) struct Member<S: Service> {
    pub(crate) id: ReplicaId,
    pub(crate) runtime: SimRuntime,
    pub(crate) disk: DiskControl,
    pub(crate) gate: Gate,
    /// What its state machine keeps by itself.
    pub(crate) state: StateDisk,
    meddler: RefCell<Prng>,
    compression: RefCell<Prng>,
    lived: Cell<bool>,
    /// Its process was told to end.
    pub(crate) leaving: Cell<bool>,
    life: Arc<Mutex<Life<S>>>,
}

/// A replica's process.
pub(crate) enum Life<S: Service> {
    /// There is none.
    Down,
    /// It opens its disk.
    Starting,
    /// It runs.
    Running(NodeHandle<Observed<S>>),
    /// It stopped by itself.
    Stopped(Stop),
}

/// Why a process stopped by itself.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    why: String,
    /// What is on its disk does not verify, so that starting it again does not help.
    damaged: bool,
}

impl Stop {
    fn of(outcome: &Result<(), NodeError>) -> Self {
        match outcome {
            Ok(()) => Self { why: "shut down".into(), damaged: false },
            Err(error) => Self {
                why: describe(error),
                damaged: matches!(error, NodeError::Storage(cause) if is_corrupt(cause)),
            },
        }
    }
}

impl<S: Service> Member<S> {
    pub(crate) fn new(executor: &Executor, id: ReplicaId, options: &GroupOptions) -> Self {
        let stream = |concern| Prng::stream(options.seed, concern, id.0);
        let mut disk = DiskControl::new(executor, id, stream("disk"));
        disk.set_faults(options.disk.clone());
        Self {
            id,
            runtime: SimRuntime::new(executor, Actor::Replica(id), stream("entropy")),
            disk,
            gate: Gate::default(),
            state: StateDisk::default(),
            meddler: RefCell::new(stream("meddling")),
            compression: RefCell::new(stream("compression")),
            lived: Cell::new(false),
            leaving: Cell::new(false),
            life: Arc::new(Mutex::new(Life::Down)),
        }
    }

    /// Starts a process on the ground that is there.
    pub(crate) fn start(
        &self,
        options: &GroupOptions,
        members: &Members,
        service: S,
        network: &Network,
        witness: &SharedWitness,
    ) {
        self.leaving.set(false);
        let exact = self.runtime.with_exact_clock();
        let storage = SimStorage::new(
            self.id,
            self.disk.clone(),
            exact.clone(),
            self.gate.clone(),
            Arc::clone(witness),
        );
        #[cfg(feature = "mutants")]
        let storage = storage.with_bugs(crate::mutants::storage_bugs(options.config.mutants));
        let observed = Observed::new(service, self.id, exact.clone(), Arc::clone(witness))
            .with_padding(options.padding);
        let observed = self.put_on_disk(observed, options.state);
        let builder = Node::builder(observed)
            .group(GROUP)
            .replica(self.id)
            .members(members.clone())
            .durability(options.durability)
            .storage(storage)
            .transport(network.transport(Actor::Replica(self.id)))
            .runtime(self.runtime.clone())
            .config(self.config_of_next_life(options))
            .executor(ExecutorMode::Inline);
        let (id, life, witness) = (self.id, Arc::clone(&self.life), Arc::clone(witness));
        *lock(&life) = Life::Starting;
        let runtime = exact.clone();
        exact.spawn(
            "replica",
            Box::pin(async move {
                let handle = match builder.start().await {
                    Ok(handle) => handle,
                    Err(error) => {
                        let stop = Stop::of(&Err(error));
                        let event = Event::Process(id.into(), Fate::Refused(stop.why.clone()));
                        lock(&witness).trace.record(runtime.now(), event);
                        lock(&witness).judge(runtime.now(), judge_start(id, &stop));
                        *lock(&life) = Life::Stopped(stop);
                        return;
                    }
                };
                *lock(&life) = Life::Running(handle.clone());
                let mut events = handle.events();
                let (clock, noted) = (runtime.clone(), Arc::clone(&witness));
                runtime.spawn(
                    "events",
                    Box::pin(async move {
                        while let Some(event) = events.next().await {
                            lock(&noted).told(clock.now(), id, &event);
                        }
                    }),
                );
                let stopped = handle.stopped().await;
                let stop = Stop::of(&stopped);
                let event = Event::Process(id.into(), Fate::Stopped(stop.why.clone()));
                lock(&witness).trace.record(runtime.now(), event);
                lock(&witness).judge(runtime.now(), judge(id, stopped, &stop.why));
                *lock(&life) = Life::Stopped(stop);
            }),
        );
    }

    /// `observed` with its state where it belongs, on what is there.
    fn put_on_disk(&self, observed: Observed<S>, place: StatePlace) -> Observed<S> {
        if place == StatePlace::Memory {
            return observed;
        }
        if place == StatePlace::MeddledDisk {
            self.state.meddle(&mut self.meddler.borrow_mut());
        }
        let observed = observed.with_disk(self.state.clone());
        observed.expect("a service to which nothing was done has a snapshot")
    }

    /// Without disks a group is founded by first lives only; and whether checkpoints are compressed
    /// may be drawn for each.
    fn config_of_next_life(&self, options: &GroupOptions) -> Config {
        let mut config = options.config.clone();
        if !self.lived.replace(true) {
            config.genesis = Genesis::Found;
        }
        if options.mixed_compression {
            config.compress_checkpoints = self.compression.borrow_mut().below(2) == 0;
        }
        config
    }

    /// Ends the process, which takes everything with it that was not synced.
    pub(crate) fn crash(&mut self, executor: &mut Executor) {
        let life = core::mem::replace(&mut *lock(&self.life), Life::Down);
        executor.kill(Actor::Replica(self.id));
        drop(life);
        self.disk.crash();
    }

    pub(crate) fn handle(&self) -> Option<NodeHandle<Observed<S>>> {
        match &*lock(&self.life) {
            Life::Running(handle) => Some(handle.clone()),
            Life::Down | Life::Starting | Life::Stopped(_) => None,
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        matches!(&*lock(&self.life), Life::Down)
    }

    /// Why the process stopped by itself; `None` when it did not.
    pub(crate) fn stop_reason(&self) -> Option<String> {
        self.stop().map(|stop| stop.why)
    }

    /// Whether the process stopped by itself because what is on its disk does not verify.
    pub(crate) fn is_damaged(&self) -> bool {
        self.stop().is_some_and(|stop| stop.damaged)
    }

    fn stop(&self) -> Option<Stop> {
        match &*lock(&self.life) {
            Life::Stopped(stop) => Some(stop.clone()),
            Life::Down | Life::Starting | Life::Running(_) => None,
        }
    }
}

/// A damaged log is repaired or given up, whatever became of the disk; it is no reason not to start.
fn judge_start(id: ReplicaId, stop: &Stop) -> Verdict {
    if stop.damaged {
        let found = format!("r{id} did not start: {}", stop.why);
        return Err(Violation::new("O7", "what was durable is back after a crash", found));
    }
    Ok(())
}

/// A replica may stop because its disk failed; anything else is a contradiction or a broken
/// assertion, and so is a question for an entry that was never written.
fn judge(id: ReplicaId, stopped: Result<(), NodeError>, why: &str) -> Verdict {
    match stopped {
        Ok(()) => Ok(()),
        Err(NodeError::Fatal(Fatal::Reformatted { .. } | Fatal::Superseded { .. })) => Ok(()),
        Err(NodeError::Storage(error)) if !matches!(*error, StorageError::Missing { .. }) => Ok(()),
        Err(_) => {
            let found = format!("r{id} stopped: {why}");
            Err(Violation::new("assert", "a replica stops only when its storage fails", found))
        }
    }
}

const fn is_corrupt(error: &StorageError) -> bool {
    matches!(error, StorageError::Corrupt { .. })
}

/// An error with all its causes.
fn describe(error: &NodeError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
