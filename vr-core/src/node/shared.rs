//! What a running node shares with those who hold a handle of it.

use core::time::Duration;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures::task::AtomicWaker;

use crate::{
    model::{
        config::Config,
        membership::Members,
        time::{Instant, Now},
        types::{OpNumber, Peer, ReplicaId},
    },
    node::{
        events::EventHub,
        executor_front::DigestSender,
        handoffs::HandoffOrder,
        local::LocalNetwork,
        lock::{Left, lock},
        pins::Pins,
        status::{ExecutorStatus, FetchingStatus, NodeStatus, StorageStatus, TransportStatus},
        stop::{NodeError, StopSignal},
        watched::{Busy, Doing},
    },
    ports::{
        runtime::Runtime,
        storage::{Checkpoints, LogReader},
        transport::Transport,
    },
    replica::{Replica, io::Discarded},
};

/// Digests that may be asked for at a time.
const DIGESTS_MAX: usize = 64;
/// Hand-offs that may be asked for at a time.
const HANDOFFS_MAX: usize = 64;
/// Complaints of the transport that are kept.
pub(crate) const COMPLAINTS_MAX: usize = 32;

/// For how long a complaint of the transport is told; a transport repeats what goes on.
const COMPLAINT_KEPT: Duration = Duration::from_secs(60);

/// What the driver and the handles share.
pub(crate) struct Shared {
    pub(crate) facts: Facts,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) transport: Arc<dyn Transport>,
    /// Carries the clients in this process.
    pub(crate) network: LocalNetwork,
    pub(crate) observed: Mutex<Observed>,
    pub(crate) orders: Left<Orders>,
    /// Wakes the driver: an order, or the executor's thread.
    pub(crate) waker: Arc<AtomicWaker>,
    pub(crate) events: EventHub,
    pub(crate) stop: StopSignal,
    pub(crate) doing: Doing,
    /// The way to read the log, until the node stops.
    pub(crate) reader: Mutex<Option<Arc<dyn LogReader>>>,
    /// The way to read checkpoints, until the node stops.
    pub(crate) checkpoints: Mutex<Option<Arc<dyn Checkpoints>>>,
    /// What is being copied.
    pub(crate) pins: Arc<Pins>,
}

/// What does not change.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) group: String,
    pub(crate) members: Members,
    pub(crate) replica: ReplicaId,
    pub(crate) config: Config,
    pub(crate) started: Instant,
}

/// The engine, and the numbers that the driver keeps; locked by the driver only while the engine
/// works, which takes microseconds.
pub(crate) struct Observed {
    pub(crate) replica: Replica,
    pub(crate) numbers: Numbers,
}

/// What the driver counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) executor: ExecutorStatus,
    pub(crate) storage: StorageStatus,
    pub(crate) counters: Counters,
    /// Replicas there is a way to.
    pub(crate) connected: Vec<ReplicaId>,
    /// Clients there is a way to.
    pub(crate) clients: u64,
    /// What the transport complained about, and when, newest last.
    pub(crate) complaints: VecDeque<(Instant, String)>,
    /// Since when the replica is between two views.
    pub(crate) between_views_since: Option<Instant>,
    /// A checkpoint on its way here, and since when it is no further.
    pub(crate) fetching: Option<(Extent, Instant)>,
    /// Checkpoints whose fetching was begun since one was installed.
    pub(crate) fetches_begun: u64,
    /// Why a state on disk was of no use, and the last op of the log then; until it is made again.
    pub(crate) discarded: Option<(Discarded, OpNumber)>,
}

/// The last op in a checkpoint, its chunks that are here, and all of them.
type Extent = (OpNumber, u32, u32);

impl Numbers {
    /// There is a way to `peer` from now on.
    pub(crate) fn connected(&mut self, peer: Peer) {
        match peer {
            Peer::Replica(id) if !self.connected.contains(&id) => self.connected.push(id),
            Peer::Replica(_) => {}
            Peer::Client(_) => self.clients = self.clients.saturating_add(1),
        }
    }

    /// There is none any more.
    pub(crate) fn disconnected(&mut self, peer: Peer) {
        match peer {
            Peer::Replica(id) => self.connected.retain(|known| *known != id),
            Peer::Client(_) => self.clients = self.clients.saturating_sub(1),
        }
    }

    /// The engine fetches this now, or nothing.
    pub(crate) fn note_fetching(&mut self, now: Instant, extent: Option<Extent>) {
        self.fetching = match (self.fetching, extent) {
            (Some((known, since)), Some(extent)) if known == extent => Some((known, since)),
            (_, extent) => extent.map(|extent| (extent, now)),
        };
    }

    /// The engine says whether the state contains everything through an op.
    pub(crate) fn note_state(&mut self, has_state: impl FnOnce(OpNumber) -> bool) {
        if self.discarded.is_some_and(|(_, through)| has_state(through)) {
            self.discarded = None;
        }
    }

    fn fetching_status(&self, now: Instant) -> Option<FetchingStatus> {
        let (_, since) = self.fetching?;
        Some(FetchingStatus { idle: now.since(since), begun: self.fetches_begun })
    }
}

/// Envelopes that came and went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) dropped_unconnected: u64,
    pub(crate) dropped_full: u64,
    pub(crate) dropped_large: u64,
}

/// What handles want of the driver.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) shutdown: bool,
    pub(crate) digests: VecDeque<DigestSender>,
    pub(crate) handoffs: VecDeque<HandoffOrder>,
}

impl Orders {
    /// Nobody obeys any more.
    pub(crate) fn refuse(&mut self) {
        self.digests.clear();
        self.handoffs.clear();
    }
}

impl Shared {
    /// The time, by both clocks.
    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.runtime.now(), wall: self.runtime.wall_clock() }
    }

    /// Lets go of storage: it belongs to whoever opens it next, however long there are handles.
    pub(crate) fn release(&self) {
        *lock(&self.reader) = None;
        *lock(&self.checkpoints) = None;
    }

    /// Tells everybody that the node has stopped, and why if it did so by itself.
    pub(crate) fn conclude(&self, result: Result<(), NodeError>) {
        self.stop.set(result);
        self.events.close();
        self.orders.leave(Orders::refuse);
    }

    /// Asks the driver to stop.
    pub(crate) fn order_shutdown(&self) {
        self.orders.leave(|orders| orders.shutdown = true);
        self.waker.wake();
    }

    /// Asks the driver for a digest; the sender is dropped if too many are asked for.
    pub(crate) fn order_digest(&self, answer: DigestSender) {
        self.order(answer, DIGESTS_MAX, |orders| &mut orders.digests);
    }

    /// Asks the driver for a hand-off; the sender is dropped if too many are asked for.
    pub(crate) fn order_handoff(&self, order: HandoffOrder) {
        self.order(order, HANDOFFS_MAX, |orders| &mut orders.handoffs);
    }

    /// Adds to a queue of orders, which has room for `count_max`; what has none is dropped, and not
    /// under the lock.
    fn order<T>(&self, item: T, count_max: usize, queue: fn(&mut Orders) -> &mut VecDeque<T>) {
        let refused = self.orders.leave(|orders| {
            let queue = queue(orders);
            if queue.len() >= count_max || self.stop.is_set() {
                return Some(item);
            }
            queue.push_back(item);
            None
        });
        drop(refused);
        self.waker.wake();
    }

    /// Whether a handle wants something.
    pub(crate) fn has_orders(&self) -> bool {
        self.orders.is_there()
    }

    /// The node at this instant.
    pub(crate) fn status(&self) -> NodeStatus {
        let now = self.now();
        let observed = lock(&self.observed);
        let replica = observed.replica.status(now);
        let numbers = observed.numbers.clone();
        drop(observed);
        let (mut executor, storage, counters) =
            (numbers.executor, numbers.storage, numbers.counters);
        if let Busy::Applying(op_number) = self.doing.look() {
            executor.applying = Some(op_number);
        }
        NodeStatus {
            group: self.facts.group.clone(),
            config: self.facts.config.clone(),
            uptime: now.monotonic.since(self.facts.started),
            between_views: numbers.between_views_since.map(|since| now.monotonic.since(since)),
            replica,
            fetching: numbers.fetching_status(now.monotonic),
            discarded: numbers.discarded.map(|(reason, _)| reason),
            executor,
            storage,
            transport: TransportStatus {
                connected: numbers.connected,
                clients: numbers.clients,
                received: counters.received,
                sent: counters.sent,
                dropped_unconnected: counters.dropped_unconnected,
                dropped_full: counters.dropped_full,
                dropped_large: counters.dropped_large,
                complaints: told_lately(numbers.complaints, now.monotonic),
            },
            events_lost: self.events.lost(),
            has_stopped: self.stop.is_set(),
            stopped: self.stop.reason(),
        }
    }
}

/// The complaints of the last minute.
fn told_lately(complaints: VecDeque<(Instant, String)>, now: Instant) -> Vec<String> {
    let lately = |(at, _): &(Instant, String)| now.since(*at) <= COMPLAINT_KEPT;
    complaints.into_iter().filter(lately).map(|(_, complaint)| complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_told_for_a_minute() {
        let complaints = VecDeque::from([(Instant(1), "refused".to_owned())]);
        let last = Instant(1) + COMPLAINT_KEPT;
        assert_eq!(told_lately(complaints.clone(), last), ["refused"]);
        assert!(told_lately(complaints, last + Duration::from_nanos(1)).is_empty());
    }

    #[test]
    fn a_state_is_discarded_until_it_is_made_again() {
        let mut numbers = Numbers::default();
        numbers.note_state(|_| panic!("nothing was discarded"));
        let discarded = Some((Discarded::Unreadable, OpNumber(7)));
        numbers.discarded = discarded;
        numbers.note_state(|through| through < OpNumber(7));
        assert_eq!(numbers.discarded, discarded);
        numbers.note_state(|through| through <= OpNumber(7));
        assert_eq!(numbers.discarded, None);
    }

    #[test]
    fn a_checkpoint_is_idle_since_it_was_last_further_than_before() {
        let mut numbers = Numbers::default();
        let second = |seconds: u64| Instant(seconds * 1_000_000_000);
        let idle = |numbers: &Numbers, at| numbers.fetching_status(second(at)).map(|it| it.idle);
        let steps = [
            (1, Some((9, 0, 0)), Some(0)),
            (3, Some((9, 0, 0)), Some(2)),
            (4, Some((9, 0, 7)), Some(0)),
            (7, Some((9, 1, 7)), Some(0)),
            (9, Some((9, 1, 7)), Some(2)),
            (9, None, None),
            (9, Some((9, 1, 7)), Some(0)),
        ];
        for (at, extent, expected) in steps {
            let extent = extent.map(|(op, here, all)| (OpNumber(op), here, all));
            numbers.note_fetching(second(at), extent);
            assert_eq!(idle(&numbers, at), expected.map(Duration::from_secs), "at {at}");
        }
    }
}
