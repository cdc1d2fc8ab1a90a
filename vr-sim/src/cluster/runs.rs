//! How a simulated group runs: event by event, until something is the case, within bounded time.

use core::time::Duration;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use vr_core::{
    model::{kind::Kind, message::StatusKind, time::Instant, types::Checksum},
    ports::runtime::Runtime,
};

use crate::{
    checker::monotonic::Numbers,
    cluster::{
        Cluster,
        client::{CallId, Service},
    },
    executor::lock,
    network::selection::Messages,
    trace::event::Standing,
};

/// Virtual time that a `run_until` waits at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// While [`Cluster::deliver_only`] is on: how long nothing of the kinds may happen for it to end.
const SETTLED: Duration = Duration::from_millis(10);

/// How many steps there are between two looks at what replicas say of themselves.
const STEPS_BETWEEN_LOOKS: u64 = 32;

impl<S: Service> Cluster<S> {
    /// Lets the next thing happen, if it happens until `until`; false if there is none.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        self.executor.run_ready();
        let arrival = self.network.next_arrival();
        let next = [self.executor.next_timer(), arrival].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= until) else { return false };
        let next = next.max(self.now());
        self.executor.advance_to(next);
        if arrival.is_some_and(|arrival| arrival <= next) {
            self.network.arrive();
        }
        self.executor.run_ready();
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_BETWEEN_LOOKS) || self.has_view_started() {
            self.look();
        }
        self.picture();
        self.check();
        true
    }

    /// Whether a view has started since the last look.
    fn has_view_started(&self) -> bool {
        lock(&self.witness).starts().latest() > self.started
    }

    /// Lets the replicas' numbers into the trace, if it is kept; the oracles do not hear of them,
    /// so that a run finds the same with and without.
    fn picture(&self) {
        if !lock(&self.witness).trace.keeps_all() {
            return;
        }
        let now = self.now();
        for status in self.statuses() {
            lock(&self.witness).trace.says(now, Standing::from(&status));
        }
    }

    /// Asks the replicas for their numbers, for the oracles of what never decreases, of what has a
    /// limit, and of leases.
    fn look(&mut self) {
        let now = self.now();
        for status in self.statuses() {
            let numbers = Numbers {
                view: status.view,
                commit_number: status.commit_number,
                applied: status.applied,
            };
            let mut witness = lock(&self.witness);
            witness.says(now, status.replica, numbers);
            witness.holds(now, status.replica, &status.queues);
            witness.leased(now, status.replica, status.view, status.leased_for);
        }
        self.started = lock(&self.witness).starts().latest();
    }

    fn check(&self) {
        if let Some(violation) = self.oracles.iter().find_map(|oracle| oracle().err()) {
            self.fail(&violation.to_string());
        }
        let violation = lock(&self.witness).violation().cloned();
        if let Some((at, violation)) = violation {
            self.fail(&format!("at {at}: {violation}"));
        }
    }

    /// How many events there were.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Lets `duration` pass.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now() + duration;
        while self.step(until) {}
        self.executor.advance_to(until);
        self.executor.run_ready();
        self.look();
        self.check();
    }

    /// Lets `count` heartbeat intervals pass.
    pub fn run_for_heartbeats(&mut self, count: u32) {
        self.run_for(self.options.config.heartbeat_interval * count);
    }

    /// Runs until `reached` says yes.
    ///
    /// # Panics
    /// When that takes longer than two minutes of virtual time, or an oracle objects.
    pub fn run_until(&mut self, reached: impl Fn(&Self) -> bool) {
        let until = self.now() + PATIENCE;
        self.executor.run_ready();
        while !reached(self) {
            if !self.step(until) {
                self.fail("O9 violated: what the scenario waits for does not come about");
            }
        }
    }

    /// Runs until a primary serves and is connected both ways to a quorum of normal replicas.
    ///
    /// # Panics
    /// As [`run_until`](Self::run_until).
    pub fn run_until_normal(&mut self) {
        self.run_until(|group| group.working_view().is_some());
    }

    /// Runs until the call has returned.
    ///
    /// # Panics
    /// As [`run_until`](Self::run_until).
    pub fn run_until_answered(&mut self, call: CallId) {
        self.run_until(|group| group.ended(call).is_some());
    }

    /// Delivers messages of these kinds, and loses all others, until no more of these come.
    pub fn deliver_only(&mut self, kinds: impl IntoIterator<Item = Kind>) {
        let messages = Messages::of(kinds);
        let rule = self.network.lose_all_but(messages.clone());
        loop {
            let before = self.network.delivered();
            self.run_for(SETTLED);
            if self.network.delivered() == before && self.network.in_flight(&messages) == 0 {
                break;
            }
        }
        self.network.release(rule);
    }

    /// The calls that have not returned.
    #[must_use]
    pub fn pending(&self) -> Vec<CallId> {
        let calls = lock(&self.calls);
        let numbered = (0_u64..).zip(calls.iter());
        numbered.filter(|(_, call)| call.ended.is_none()).map(|(tag, _)| CallId(tag)).collect()
    }

    /// Runs until every replica is normal in one view with one log, all of it executed, and no
    /// call is pending. A replica whose disk is damaged is not waited for.
    ///
    /// # Panics
    /// As [`run_until`](Self::run_until).
    pub fn run_until_converged(&mut self) {
        self.run_until(|group| group.is_converged() && group.pending().is_empty());
    }

    fn is_converged(&self) -> bool {
        let statuses = self.statuses();
        let Some(first) = statuses.first() else { return false };
        let alike = statuses.iter().all(|status| {
            status.status == StatusKind::Normal
                && status.view == first.view
                && status.op_number == first.op_number
                && status.commit_number == first.op_number
                && status.applied == first.op_number
        });
        alike && statuses.len() == self.sound().len() && self.working_view().is_some()
    }

    /// The end of every scenario: mends everything, and requires that the group converges, that
    /// no pending call stays pending, and that all replicas hold the same state (O9, O4, O5).
    ///
    /// # Panics
    /// When any of that does not come about.
    pub fn heal_and_converge(&mut self) {
        self.mend();
        self.run_until_converged();
        let digests = self.digests();
        let mut values: Vec<Checksum> = digests.values().copied().collect();
        values.dedup();
        if values.len() != 1 {
            self.fail(&format!("O4 violated: equal logs made different states: {digests:?}"));
        }
        let acknowledged = self.committed();
        for id in self.sound() {
            if self.applied(id) != acknowledged {
                self.fail(&format!("O5 violated: r{id} does not have all of the history"));
            }
        }
    }

    /// Digests of the replicas' states.
    fn digests(&mut self) -> BTreeMap<u64, Checksum> {
        let found = Arc::new(Mutex::new(BTreeMap::new()));
        for member in &self.members {
            let Some(handle) = member.handle() else { continue };
            let (id, found) = (member.id.0, Arc::clone(&found));
            member.runtime.spawn(
                "digest",
                Box::pin(async move {
                    if let Ok(digest) = handle.digest().await {
                        lock(&found).insert(id, digest.digest);
                    }
                }),
            );
        }
        self.run_until(|group| {
            let found = lock(&found);
            group.sound().iter().all(|id| found.contains_key(&id.0))
        });
        lock(&found).clone()
    }
}
