//! The simulated network passes the suite that every transport must pass, also when it delays,
//! doubles and reorders.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    cell::RefCell,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use vr_core::{
    Durability, Members, Role, Runtime, Transport,
    conformance::{
        report::Report,
        transport::{
            cases,
            harness::{Capability, Harness},
            run,
        },
    },
};
use vr_sim::{
    actor::Actor,
    executor::Executor,
    network::{Network, faults::NetworkFaults},
    prng::Prng,
    runtime::SimRuntime,
    witness::Witness,
};

/// The network of one case, under virtual time.
struct Simulated {
    executor: Rc<RefCell<Executor>>,
    network: Rc<RefCell<Network>>,
    faults: NetworkFaults,
    clients: u64,
}

impl Simulated {
    fn new(faults: NetworkFaults) -> Self {
        let executor = Executor::new();
        let network = Rc::new(RefCell::new(network(&executor, &faults, 1)));
        Self { executor: Rc::new(RefCell::new(executor)), network, faults, clients: 0 }
    }
}

fn network(executor: &Executor, faults: &NetworkFaults, members: u64) -> Network {
    let membership = Members::local(members).unwrap().to_membership();
    let witness = Arc::new(Mutex::new(Witness::new(&membership, Durability::Full)));
    let mut network = Network::new(executor, Prng::new(7), witness);
    network.set_faults(faults.clone());
    network
}

#[async_trait(?Send)]
impl Harness for Simulated {
    async fn members(&mut self, count: u64) -> Members {
        *self.network.borrow_mut() = network(&self.executor.borrow(), &self.faults, count);
        Members::local(count).unwrap()
    }

    /// Every client is an actor of its own.
    async fn transport(&mut self, role: Role) -> Box<dyn Transport> {
        let actor = match role {
            Role::Replica(id) => Actor::Replica(id),
            Role::Client(_) => {
                self.clients += 1;
                Actor::Client(self.clients)
            }
        };
        Box::new(self.network.borrow().transport(actor))
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        let runtime = SimRuntime::new(&self.executor.borrow(), Actor::Client(0), Prng::new(8));
        let end = runtime.now() + Duration::from_secs(60);
        Box::pin(async move { runtime.sleep_until(end).await })
    }

    fn covers(&self, _: Capability) -> bool {
        false
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the suite, and lets time pass whenever it waits.
fn report(faults: NetworkFaults) -> Report {
    let mut harness = Simulated::new(faults);
    let (executor, network) = (Rc::clone(&harness.executor), Rc::clone(&harness.network));
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut suite = pin!(run(&mut harness));
    loop {
        while woken.0.swap(false, Ordering::Relaxed) {
            let polled = suite.as_mut().poll(&mut Context::from_waker(&waker));
            if let Poll::Ready(report) = polled {
                return report;
            }
        }
        let mut executor = executor.borrow_mut();
        executor.run_ready();
        let arrival = network.borrow().next_arrival();
        let next = [executor.next_timer(), arrival].into_iter().flatten().min();
        let next = next.expect("whoever waits has a timer").max(executor.now());
        executor.advance_to(next);
        if arrival.is_some_and(|arrival| arrival <= next) {
            network.borrow_mut().arrive();
        }
    }
}

/// Ten megabytes a second, and room for few messages, because each is encoded on its way.
fn narrow() -> NetworkFaults {
    let kilobyte = Duration::from_micros(100);
    NetworkFaults { lane_messages_max: 500, kilobyte, ..NetworkFaults::none() }
}

#[test]
fn a_calm_network_conforms() {
    let report = report(narrow());
    assert_eq!(report.passed().len() + 1, cases().count(), "{report}");
    assert_eq!(report.not_covered(), ["another_group_is_not_heard"]);
}

#[test]
fn a_network_that_delays_doubles_and_reorders_conforms() {
    let latency_max = Duration::from_millis(9);
    let (duplicate, reorder) = (100_000, 300_000);
    let report = report(NetworkFaults { latency_max, duplicate, reorder, ..narrow() });
    assert_eq!(report.passed().len() + 1, cases().count(), "{report}");
}
