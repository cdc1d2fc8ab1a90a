//! One run of a check as the test's closure sees it: first what to run, then the run.

use core::{fmt, ops::RangeInclusive, time::Duration};
use std::sync::{Arc, Mutex};

use vr_core::{Durability, Read};

use crate::{
    check::{
        audit::{Audit, SharedAudit},
        audited::Audited,
        finding::Finding,
        instance::Make,
        outcome::Outcome,
    },
    cluster::{
        Cluster,
        client::{CallOf, Service, Wanted},
    },
    executor::lock,
    prng::Prng,
    simulator::{
        faults::{FaultKind, FaultKinds, Faults},
        load::Load,
        options::RunOptions,
        storm::Storm,
        summary::Summary,
    },
};

/// How long load and faults last unless the test says otherwise.
const STORM: Duration = Duration::from_secs(3);

/// Ops between two comparisons of states unless the test says otherwise.
const COMPARED_EVERY: u64 = 16;

type DrawOperation<S> =
    Arc<dyn Fn(&mut Prng) -> <S as vr_core::StateMachine>::Operation + Send + Sync>;
type DrawQuery<S> = Arc<dyn Fn(&mut Prng) -> <S as vr_core::StateMachine>::Query + Send + Sync>;

/// Says whether one order explains what clients saw.
type Judge<S> = Box<dyn Fn(&[CallOf<S>]) -> Result<(), String>>;

/// One run: a group of the service `S`, its clients, and what goes wrong.
///
/// First it is told what to run; each of these methods returns the `Sim` again. The first call of
/// [`group`](Self::group) or [`run`](Self::run) starts the group, and from then on nothing of that
/// can be changed.
pub struct Sim<S: Service> {
    options: RunOptions,
    make: Make<S>,
    operations: Option<DrawOperation<S>>,
    queries: Option<DrawQuery<S>>,
    clients: RangeInclusive<u64>,
    callers: RangeInclusive<u64>,
    compared_every: u64,
    judges: Vec<Judge<S>>,
    audit: SharedAudit<S>,
    storm: Option<Storm<Audited<S>>>,
    summary: Option<Summary>,
}

impl<S: Service> Sim<S> {
    pub(super) fn new(seed: u64, make: Make<S>) -> Self {
        Self {
            options: RunOptions { storm: STORM, ..RunOptions::new(seed) },
            operations: None,
            queries: None,
            clients: 2..=7,
            callers: 1..=4,
            compared_every: COMPARED_EVERY,
            judges: Vec::new(),
            audit: Arc::new(Mutex::new(Audit::new(Arc::clone(&make)))),
            make,
            storm: None,
            summary: None,
        }
    }

    fn configured(&mut self, change: impl FnOnce(&mut Self)) -> &mut Self {
        assert!(
            self.storm.is_none(),
            "the group runs already: say what to run before group() and run()"
        );
        change(self);
        self
    }

    // What to run.

    /// How many replicas the group has; three unless it is said.
    ///
    /// # Panics
    /// After the start, as all methods that say what to run.
    pub fn replicas(&mut self, count: u64) -> &mut Self {
        self.configured(|sim| sim.options.replicas = count)
    }

    /// The mode that the group runs in; [`Durability::Full`] unless it is said.
    ///
    /// In the other modes no more processes end at once than the mode promises to survive.
    pub fn durability(&mut self, durability: Durability) -> &mut Self {
        self.configured(|sim| sim.options.durability = durability)
    }

    /// What may go wrong; everything unless it is said.
    pub fn faults(&mut self, faults: Faults) -> &mut Self {
        self.configured(|sim| sim.options.faults = faults)
    }

    /// Whether messages are late, lost, doubled and overtaken, and links are cut.
    pub fn network_faults(&mut self, on: bool) -> &mut Self {
        self.fault(FaultKind::Network, on)
    }

    /// Whether processes crash, restart and pause.
    pub fn process_faults(&mut self, on: bool) -> &mut Self {
        self.fault(FaultKind::Process, on)
    }

    /// Whether disks are slow, stall and fail.
    pub fn disk_faults(&mut self, on: bool) -> &mut Self {
        self.fault(FaultKind::Disk, on)
    }

    /// Whether clocks jump.
    pub fn clock_faults(&mut self, on: bool) -> &mut Self {
        self.fault(FaultKind::Clock, on)
    }

    fn fault(&mut self, changed: FaultKind, on: bool) -> &mut Self {
        self.configured(|sim| {
            let kinds = FaultKind::ALL.into_iter().fold(FaultKinds::NONE, |kinds, kind| {
                kinds.with(kind, sim.options.faults.contains(kind))
            });
            sim.options.faults = Faults::Only(kinds.with(changed, on));
        })
    }

    /// How long load and faults last, in virtual time; three seconds unless it is said.
    pub fn storm(&mut self, length: Duration) -> &mut Self {
        self.configured(|sim| sim.options.storm = length)
    }

    /// How many clients there are, each with a session; the seed chooses.
    pub fn clients(&mut self, count: RangeInclusive<u64>) -> &mut Self {
        self.configured(|sim| sim.clients = count)
    }

    /// How many callers share the session of a client; the seed chooses for each client.
    pub fn callers(&mut self, count: RangeInclusive<u64>) -> &mut Self {
        self.configured(|sim| sim.callers = count)
    }

    /// What clients ask the group to execute.
    pub fn operations(
        &mut self,
        draw: impl Fn(&mut Prng) -> S::Operation + Send + Sync + 'static,
    ) -> &mut Self {
        self.configured(|sim| sim.operations = Some(Arc::new(draw)))
    }

    /// What clients ask the group without changing it: one call in five, if this is said.
    pub fn queries(
        &mut self,
        draw: impl Fn(&mut Prng) -> S::Query + Send + Sync + 'static,
    ) -> &mut Self {
        self.configured(|sim| sim.queries = Some(Arc::new(draw)))
    }

    /// Compares the replicas' states, and restores a copy from a snapshot, every `ops` ops; 16
    /// unless it is said.
    pub fn compare_states_every(&mut self, ops: u64) -> &mut Self {
        self.configured(|sim| sim.compared_every = ops.max(1))
    }

    /// Adds a judge of the whole history, who is asked at the end of the run.
    pub fn judge(
        &mut self,
        judge: impl Fn(&[CallOf<S>]) -> Result<(), String> + 'static,
    ) -> &mut Self {
        self.configured(|sim| sim.judges.push(Box::new(judge)))
    }

    // The run.

    /// The group while it runs, with all verbs of scenarios: `run_for`, `crash`, `restart`,
    /// `partition` and so on. The first call founds it and lets the clients begin.
    pub fn group(&mut self) -> &mut Cluster<Audited<S>> {
        self.started().group_mut()
    }

    /// What all chance is drawn from.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.options.seed
    }

    /// Runs to the end: load and faults for as long as the storm lasts, then everything is mended,
    /// all calls return, all replicas agree, and what they agree on is compared with a replay.
    ///
    /// # Panics
    /// When anything is wrong, and when it is called twice; [`check`](crate::check::check) turns
    /// the panic into a report.
    pub fn run(&mut self) -> Outcome<S> {
        assert!(self.summary.is_none(), "a Sim runs once; check runs another for each seed");
        let storm = self.started();
        storm.rage();
        let summary = storm.calm();
        let history = storm.group().history();
        self.summary = Some(summary);
        let mut audit = lock(&self.audit);
        audit.replay();
        for judge in &self.judges {
            if let Err(what) = judge(&history) {
                audit.report(Finding { what, advice: "" });
            }
        }
        assert!(audit.finding().is_none(), "the report says what was found");
        Outcome { history, log: audit.log(), states: audit.states(), summary }
    }

    /// A new instance of the service, in its first state.
    pub(super) fn made(&self) -> S {
        (self.make)()
    }

    /// Runs to the end if that has not been done.
    pub(super) fn finish(&mut self) -> Summary {
        if self.summary.is_none() {
            drop(self.run());
        }
        self.summary.unwrap_or_default()
    }

    fn started(&mut self) -> &mut Storm<Audited<S>> {
        if self.storm.is_none() {
            let mut storm = Storm::new(&self.options, self.load());
            let audit = Arc::clone(&self.audit);
            storm.group_mut().add_oracle(move || lock(&audit).verdict());
            // In its place before it runs, so that a report finds it.
            self.storm.insert(storm).found();
        }
        self.storm.get_or_insert_with(|| unreachable!("it was just put there"))
    }

    fn load(&self) -> Load<Audited<S>> {
        let Some(operations) = self.operations.clone() else {
            panic!("nothing to execute: say what clients ask for with sim.operations(|rng| ..)")
        };
        let queries = self.queries.clone();
        let (make, every, audit) =
            (Arc::clone(&self.make), self.compared_every, Arc::clone(&self.audit));
        let service =
            move |replica| Audited::new(Arc::clone(&make), replica, every, Arc::clone(&audit));
        let probe = Arc::clone(&operations);
        let load = Load::new(service, move |rng| match &queries {
            Some(draw) if rng.below(5) == 0 => Wanted::Query(draw(rng), Read::Linearizable),
            Some(_) | None => Wanted::Operation(operations(rng)),
        });
        Load {
            probe: Arc::new(move |rng| Wanted::Operation(probe(rng))),
            clients: self.clients.clone(),
            callers: self.callers.clone(),
            ..load
        }
    }

    // The report.

    pub(super) fn finding(&self) -> Option<Finding> {
        lock(&self.audit).finding().cloned()
    }

    /// The state of everything, and the last events; empty if nothing ran.
    pub(super) fn report(&self) -> String {
        self.storm.as_ref().map(|storm| storm.group().report()).unwrap_or_default()
    }

    /// What the seed made of the options.
    pub(super) fn drawn(&self) -> String {
        let options = self.storm.as_ref().map(|storm| storm.group().options());
        options.map(|options| format!("{options:?}")).unwrap_or_default()
    }
}

impl<S: Service> fmt::Display for Sim<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunOptions { seed: _, replicas, durability, faults, storm, damage: _, ending: _ } =
            &self.options;
        let (clients, callers) = (&self.clients, &self.callers);
        write!(
            f,
            "{replicas} replicas, durability {durability}, faults {faults}, storm {storm:?}, clients \
             {clients:?} with {callers:?} callers each, states compared every {} ops",
            self.compared_every
        )
    }
}

impl<S: Service> fmt::Debug for Sim<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("options", &self.options).finish_non_exhaustive()
    }
}
