//! A whole group in one thread: real nodes and clients over a simulated world, stepped by hand.

pub mod client;
mod faults;
mod force;
mod member;
mod orders;
mod report;
mod runs;

use core::fmt;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use vr_core::{
    Durability, Members, View,
    client::Client,
    model::{
        message::StatusKind,
        time::Instant,
        types::{OpNumber, ReplicaId},
    },
    replica::io::ReplicaStatus,
};

use crate::{
    actor::Actor,
    checker::Verdict,
    cluster::{
        client::{CallId, CallOf, Calls, Ended, EndedOf, Service, SimClient},
        member::{GROUP, Member},
    },
    executor::{Executor, lock},
    network::Network,
    options::GroupOptions,
    prng::Prng,
    runtime::SimRuntime,
    trace::{
        event::{Event, Fate},
        output::TraceFile,
    },
    witness::{SharedWitness, Witness},
    workload::Kv,
};

/// The first five replicas, as scenarios call them.
pub const R0: ReplicaId = ReplicaId(0);
/// The second replica.
pub const R1: ReplicaId = ReplicaId(1);
/// The third replica.
pub const R2: ReplicaId = ReplicaId(2);
/// The fourth replica.
pub const R3: ReplicaId = ReplicaId(3);
/// The fifth replica.
pub const R4: ReplicaId = ReplicaId(4);

/// A simulated group; the verbs of scenarios are its methods.
///
/// Nothing happens but while one of the `run_*` methods, or a method that says so, is on. They
/// panic, with the state of everything and the end of the trace, when an oracle objects and when
/// what they wait for does not come about.
///
/// ```
/// use vr_sim::{cluster::Cluster, workload::put};
///
/// let mut group = Cluster::of(3);
/// let client = group.client();
/// let call = client.request(put("k", 1));
/// group.run_until_answered(call);
/// assert_eq!(group.committed(), [call]);
/// ```
pub struct Cluster<S: Service> {
    // Written before everything else goes.
    trace_file: Option<TraceFile>,
    // Tasks die before what they use.
    executor: Executor,
    network: Network,
    members: Vec<Member<S>>,
    witness: SharedWitness,
    addresses: Members,
    options: GroupOptions,
    make: Box<dyn Fn(ReplicaId) -> S>,
    oracles: Vec<Box<dyn Fn() -> Verdict>>,
    calls: Calls<S>,
    clients: u64,
    starts: u64,
    steps: u64,
    /// The latest view that had started when somebody looked.
    started: View,
}

impl Cluster<Kv> {
    /// A group of `replicas` that run [`Kv`], after it has been founded.
    #[must_use]
    pub fn of(replicas: u64) -> Self {
        Self::with(GroupOptions::of(replicas))
    }

    /// A group that runs [`Kv`], after it has been founded.
    #[must_use]
    pub fn with(options: GroupOptions) -> Self {
        let mut group = Self::unstarted(options, Kv::default);
        group.start_all();
        group.run_until_converged();
        group
    }

    /// A group of `replicas` that run [`Kv`], none of which has been started.
    #[must_use]
    pub fn unstarted_of(replicas: u64) -> Self {
        Self::unstarted(GroupOptions::of(replicas), Kv::default)
    }
}

impl<S: Service> Cluster<S> {
    /// A group none of whose replicas has been started; each will run what `make` returns.
    ///
    /// # Panics
    /// If the options name no group.
    #[must_use]
    pub fn unstarted(options: GroupOptions, make: impl Fn() -> S + 'static) -> Self {
        Self::unstarted_each(options, move |_| make())
    }

    /// As [`unstarted`](Self::unstarted), with a service that knows where it runs.
    ///
    /// # Panics
    /// If the options name no group.
    #[must_use]
    pub fn unstarted_each(options: GroupOptions, make: impl Fn(ReplicaId) -> S + 'static) -> Self {
        #[cfg(feature = "mutants")]
        let options = crate::mutants::planted_in(options);
        let addresses = Members::local(options.replicas).expect("a group has a possible size");
        let witness = Witness::new(&addresses.to_membership(), options.durability);
        let witness = Arc::new(Mutex::new(witness));
        let executor = Executor::new();
        let rng = Prng::stream(options.seed, "network", 0);
        let mut network = Network::new(&executor, rng, Arc::clone(&witness));
        network.set_faults(options.network.clone());
        network.set_codec(options.codec);
        let ids = addresses.as_slice().iter().map(|member| member.id);
        let members = ids.map(|id| Member::new(&executor, id, &options)).collect();
        let trace = options.trace.clone();
        let mut group = Self {
            trace_file: None,
            executor,
            network,
            members,
            witness,
            addresses,
            options,
            make: Box::new(make),
            oracles: Vec::new(),
            calls: Arc::default(),
            clients: 0,
            starts: 0,
            steps: 0,
            started: View::ZERO,
        };
        if let Some(path) = trace {
            group.trace_to(path);
        }
        group
    }

    /// Starts every replica that is down.
    pub fn start_all(&mut self) {
        for id in self.ids() {
            if self.member(id).is_down() {
                self.start(id);
            }
        }
    }

    /// Starts the process of `replica` on the disk that is there.
    ///
    /// # Panics
    /// If it runs.
    pub fn start(&mut self, replica: ReplicaId) {
        let member = self.member(replica);
        assert!(member.is_down() || member.stop_reason().is_some(), "r{replica} runs already");
        self.record(Event::Process(replica.into(), Fate::Started));
        self.starts += 1;
        let (service, member) = ((self.make)(replica), self.member(replica));
        member.start(&self.options, &self.addresses, service, &self.network, &self.witness);
    }

    // Clients.

    /// A client with an open session; runs the group until it is open.
    #[must_use]
    pub fn client(&mut self) -> SimClient<S> {
        let client = self.client_without_session();
        let opened = Arc::new(Mutex::new(false));
        client.open_session(Arc::clone(&opened));
        self.run_until(|_| *lock(&opened));
        client
    }

    /// A client that opens its session with its first request.
    ///
    /// # Panics
    /// If the client does not take the group's options.
    #[must_use]
    pub fn client_without_session(&mut self) -> SimClient<S> {
        let number = self.clients;
        self.clients += 1;
        let actor = Actor::Client(number);
        let entropy = Prng::stream(self.options.seed, "client", number);
        let runtime = SimRuntime::new(&self.executor, actor, entropy);
        let connecting = Client::builder()
            .group(GROUP)
            .members(self.addresses.clone())
            .transport(self.network.transport(actor))
            .runtime(runtime.clone())
            .config(self.options.config.clone())
            .timeout(self.options.client_timeout)
            .connect();
        let client = connecting.now_or_never().expect("connecting waits for nothing");
        let client = client.expect("the options fit together");
        SimClient::new(number, client, runtime, Arc::clone(&self.calls), Arc::clone(&self.witness))
    }

    /// Ends a client's process: its calls never return.
    pub fn crash_client(&mut self, client: SimClient<S>) {
        let actor = client.actor();
        self.record(Event::Process(actor, Fate::Crashed));
        self.executor.kill(actor);
        drop(client);
        self.network.crash(actor);
    }

    /// The reply that a call returned; `None` while it is pending.
    ///
    /// # Panics
    /// If the call failed, or was a query.
    #[must_use]
    pub fn reply_of(&self, call: CallId) -> Option<S::Reply> {
        match self.ended(call)? {
            Ended::Replied(reply) => Some(reply),
            other @ (Ended::Answered(_) | Ended::Failed(_)) => {
                self.fail(&format!("{call:?} ended as {other:?}, not with a reply"))
            }
        }
    }

    /// The answer that a query returned; `None` while it is pending.
    ///
    /// # Panics
    /// If the query failed, or was an operation.
    #[must_use]
    pub fn answer_of(&self, call: CallId) -> Option<S::Answer> {
        match self.ended(call)? {
            Ended::Answered(answer) => Some(answer),
            other @ (Ended::Replied(_) | Ended::Failed(_)) => {
                self.fail(&format!("{call:?} ended as {other:?}, not with an answer"))
            }
        }
    }

    /// What a call came to; `None` while it is pending.
    #[must_use]
    pub fn ended(&self, call: CallId) -> Option<EndedOf<S>> {
        let position = usize::try_from(call.0).unwrap_or(usize::MAX);
        let ended = lock(&self.calls).get(position)?.ended.clone();
        ended.map(|(_, ended)| ended)
    }

    /// All calls so far, in the order of their ids.
    #[must_use]
    pub fn history(&self) -> Vec<CallOf<S>> {
        let mut calls = lock(&self.calls).clone();
        let witness = lock(&self.witness);
        for (tag, call) in (0..).zip(&mut calls) {
            call.place = witness.once().place_of(tag);
        }
        calls
    }

    // Looking.

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.executor.now()
    }

    /// The members, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<ReplicaId> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// The clients so far, those that crashed as well.
    pub fn clients(&self) -> impl Iterator<Item = Actor> + use<S> {
        (0..self.clients).map(Actor::Client)
    }

    /// How many replicas make a quorum.
    #[must_use]
    pub fn quorum(&self) -> usize {
        usize::try_from(self.addresses.to_membership().quorum()).unwrap_or(usize::MAX)
    }

    /// What `replica` says of itself.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn status(&self, replica: ReplicaId) -> ReplicaStatus {
        match self.status_if_running(replica) {
            Some(status) => status,
            None => self.fail(&format!("r{replica} does not run")),
        }
    }

    /// What `replica` says of itself; `None` when it does not run.
    #[must_use]
    pub fn status_if_running(&self, replica: ReplicaId) -> Option<ReplicaStatus> {
        self.member(replica).handle().map(|handle| handle.status().replica)
    }

    /// Whether the process of `replica` runs, paused or not.
    #[must_use]
    pub fn is_running(&self, replica: ReplicaId) -> bool {
        self.member(replica).handle().is_some()
    }

    /// Why the process of `replica` stopped by itself; `None` when it did not.
    #[must_use]
    pub fn stop_reason(&self, replica: ReplicaId) -> Option<String> {
        self.member(replica).stop_reason()
    }

    /// Damaged ops that `replica` has repaired since it started.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn repaired_at(&self, replica: ReplicaId) -> u64 {
        self.status(replica).repaired
    }

    /// Whether `replica` stopped, and will not start again, because what is on its disk does not
    /// verify.
    #[must_use]
    pub fn is_damaged(&self, replica: ReplicaId) -> bool {
        self.member(replica).is_damaged()
    }

    /// The replicas whose disks are not [damaged](Self::is_damaged), in order.
    #[must_use]
    pub fn sound(&self) -> Vec<ReplicaId> {
        let sound = self.members.iter().filter(|member| !member.is_damaged());
        sound.map(|member| member.id).collect()
    }

    /// Whether `replica` has no process, because it was never started or was killed.
    #[must_use]
    pub fn is_down(&self, replica: ReplicaId) -> bool {
        self.member(replica).is_down()
    }

    /// How often a process was started on the disk of any replica.
    #[must_use]
    pub const fn starts(&self) -> u64 {
        self.starts
    }

    /// How many messages carried entries that a replica had asked for.
    #[must_use]
    pub fn transfers(&self) -> u64 {
        lock(&self.witness).transfers()
    }

    /// How often a replica that had forgotten everything came back.
    #[must_use]
    pub fn rebuilds(&self) -> u64 {
        lock(&self.witness).rebuilds()
    }

    /// How many damaged entries were written again.
    #[must_use]
    pub fn repairs(&self) -> u64 {
        lock(&self.witness).repairs()
    }

    /// What the node of `replica` says about what it waits for, in words.
    #[must_use]
    pub fn explanation(&self, replica: ReplicaId) -> String {
        let handle = self.member(replica).handle();
        handle.map_or_else(|| "down".to_owned(), |handle| handle.explain().to_string())
    }

    /// The view in which the group works: the highest with a serving primary that is connected
    /// both ways to enough normal backups; otherwise the highest of any running replica.
    #[must_use]
    pub fn view(&self) -> View {
        let views = self.statuses().into_iter().map(|status| status.view);
        self.working_view().unwrap_or_else(|| views.max().unwrap_or_default())
    }

    /// The primary of [`view`](Self::view).
    #[must_use]
    pub fn primary(&self) -> ReplicaId {
        self.addresses.to_membership().primary_of(self.view())
    }

    /// The primary of the view in which the group works; `None` while it does not.
    #[must_use]
    pub fn working_primary(&self) -> Option<ReplicaId> {
        self.working_view().map(|view| self.addresses.to_membership().primary_of(view))
    }

    pub(crate) fn working_view(&self) -> Option<View> {
        let statuses = self.statuses();
        let serving = statuses.iter().filter(|status| {
            status.primary == status.replica
                && status.serving
                && status.status == StatusKind::Normal
                && self.has_quorum_of(status, &statuses)
        });
        serving.map(|status| status.view).max()
    }

    fn has_quorum_of(&self, primary: &ReplicaStatus, statuses: &[ReplicaStatus]) -> bool {
        let backups = statuses.iter().filter(|status| {
            let (one, other) = (primary.replica.into(), status.replica.into());
            status.view == primary.view
                && status.status == StatusKind::Normal
                && !self.network.is_cut(one, other)
                && !self.network.is_cut(other, one)
        });
        backups.count() >= self.quorum()
    }

    /// What the running replicas that are not paused say of themselves.
    #[must_use]
    pub fn statuses(&self) -> Vec<ReplicaStatus> {
        let awake = self.members.iter().filter(|m| !self.executor.is_paused(m.id.into()));
        awake.filter_map(|member| self.status_if_running(member.id)).collect()
    }

    /// The calls that were executed anywhere, in the order of the log.
    #[must_use]
    pub fn committed(&self) -> Vec<CallId> {
        let witness = lock(&self.witness);
        witness.applied().history().map(|(_, record)| CallId(record.tag)).collect()
    }

    /// The calls that `replica` executed in this life, in the order of the log.
    #[must_use]
    pub fn applied(&self, replica: ReplicaId) -> Vec<CallId> {
        let witness = lock(&self.witness);
        let through = witness.applied().through(replica);
        let history = witness.applied().history();
        history.filter(|(op, _)| *op <= through).map(|(_, record)| CallId(record.tag)).collect()
    }

    /// The place of an executed call in the log; `None` while it is not executed anywhere.
    #[must_use]
    pub fn place_of(&self, call: CallId) -> Option<OpNumber> {
        lock(&self.witness).once().place_of(call.0)
    }

    /// The view and the time (nanoseconds since 1970) that an executed call was given.
    #[must_use]
    pub fn stamp_of(&self, call: CallId) -> Option<(View, u64)> {
        let witness = lock(&self.witness);
        let mut history = witness.applied().history();
        history.find(|(_, record)| record.tag == call.0).map(|(_, r)| (r.view, r.time))
    }

    /// The last op that is durable at `replica`.
    #[must_use]
    pub fn durable_op(&self, replica: ReplicaId) -> OpNumber {
        let witness = lock(&self.witness);
        witness.disks().of(replica).map_or(OpNumber::ZERO, |shadow| shadow.head().0)
    }

    /// Whether `replica` is part of a group, as its disk says.
    #[must_use]
    pub fn has_joined(&self, replica: ReplicaId) -> bool {
        let witness = lock(&self.witness);
        match self.options.durability {
            Durability::Full | Durability::ViewOnly => {
                witness.disks().of(replica).is_some_and(|shadow| shadow.joined)
            }
            Durability::Diskless => witness.has_acted(replica),
        }
    }

    /// Whether `replica` runs and has its log, as complete as it ever acknowledged it: in modes
    /// that keep no log on disk, what the group can lose only so many of at once.
    #[must_use]
    pub fn remembers(&self, replica: ReplicaId) -> bool {
        self.status_if_running(replica).is_some_and(|status| {
            matches!(status.status, StatusKind::Normal | StatusKind::ViewChange)
        })
    }

    /// Whether the group must be able to go on after the process of `replica` ended, and to bring
    /// it back.
    #[must_use]
    pub fn can_spare(&self, replica: ReplicaId) -> bool {
        if self.options.durability == Durability::Full {
            return true;
        }
        let ids = self.ids();
        let needed = ids.len() - ids.len().saturating_sub(1) / 2;
        let left = ids.into_iter().filter(|id| *id != replica && self.remembers(*id)).count();
        left >= needed
    }

    /// How many views have started so far, the founding one not counted.
    #[must_use]
    pub fn views_started(&self) -> usize {
        lock(&self.witness).starts().count()
    }

    /// How the group is made up.
    #[must_use]
    pub const fn options(&self) -> &GroupOptions {
        &self.options
    }

    /// Adds an oracle that is asked after every event.
    pub fn add_oracle(&mut self, oracle: impl Fn() -> Verdict + 'static) {
        self.oracles.push(Box::new(oracle));
    }

    /// A number that is equal for equal runs.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        lock(&self.witness).trace.fingerprint()
    }

    /// What everything that happens is told to.
    #[must_use]
    pub fn witness(&self) -> SharedWitness {
        Arc::clone(&self.witness)
    }

    fn member(&self, replica: ReplicaId) -> &Member<S> {
        let found = self.members.iter().find(|member| member.id == replica);
        found.unwrap_or_else(|| self.fail(&format!("r{replica} is not a member")))
    }

    fn note(&self, text: String) {
        self.record(Event::Note(text));
    }

    fn record(&self, event: Event) {
        lock(&self.witness).trace.record(self.executor.now(), event);
    }
}

impl<S: Service> fmt::Debug for Cluster<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report())
    }
}
