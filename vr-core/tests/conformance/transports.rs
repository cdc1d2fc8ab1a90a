//! Transports that are right, and transports with one mistake each, which the suite must name.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    mem,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
};

use async_trait::async_trait;
use futures::{executor::block_on, future::BoxFuture};
use vr_core::{
    Backpressure, Closed, Endpoint, Members, Received, Role, Transport, TransportError,
    conformance::{
        report::{Report, Verdict},
        transport::{
            cases,
            harness::{Capability, Harness},
            run,
        },
    },
    model::{
        kind::Lane,
        message::{Envelope, Message},
        types::{ConnectionId, GroupId, Peer, ReplicaId},
    },
    node::local::LocalNetwork,
};

/// What is wrong with an [`Office`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    LosesSome,
    Damages,
    NamesNobody,
    OneLane,
    OneRoom,
    SharedRoom,
    NoEnd,
    ReturnsAll,
    ForgetsWhenAbandoned,
    Overwrites,
    NeverWakes,
    SilentEnd,
    SilentStart,
    OldNumbers,
    TakesAnySize,
    MixesGroups,
    StartsTwice,
    OpenBeforeStart,
    DropsAtClose,
    OpenAfterClose,
    TellsTwice,
}

/// Messages that a box holds of one sender on one lane.
const ROOM: usize = 400;
/// Messages and bytes that a call returns.
const CALL: (usize, usize) = (100, 1 << 20);

/// A network written from the documentation of `Transport` alone: a post office with a box for
/// everyone who is there.
#[derive(Debug)]
struct Office {
    flaw: Flaw,
    boxes: BTreeMap<(GroupId, Peer), PostBox>,
    last: u64,
    posted: u64,
}

/// What waits for one end.
#[derive(Debug, Default)]
struct PostBox {
    news: VecDeque<Received>,
    /// By lane, and by sender.
    letters: [BTreeMap<Peer, VecDeque<Box<Envelope>>>; 3],
    waker: Option<Waker>,
}

/// One end.
#[derive(Debug)]
struct Counter {
    office: Arc<Mutex<Office>>,
    place: Mutex<Option<Place>>,
}

#[derive(Clone, Debug)]
struct Place {
    group: GroupId,
    me: Peer,
    bytes_max: u32,
    is_closed: bool,
    can_receive: bool,
}

fn number(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Data => 1,
        Lane::Bulk => 2,
    }
}

fn bytes(envelope: &Envelope) -> usize {
    if let Message::Entries(entries) = &envelope.message {
        return entries.entries.iter().map(|entry| entry.payload.len()).sum();
    }
    let Message::Request(request) = &envelope.message else { return 0 };
    request.operation.len()
}

const fn meet(one: Peer, other: Peer) -> bool {
    !matches!((one, other), (Peer::Client(_), Peer::Client(_)))
}

impl Office {
    fn group(&self, group: GroupId) -> GroupId {
        if self.flaw == Flaw::MixesGroups { GroupId(0) } else { group }
    }

    /// Everyone that `me` knows, with their boxes.
    fn others(&mut self, group: GroupId, me: Peer) -> impl Iterator<Item = (Peer, &mut PostBox)> {
        let group = self.group(group);
        let all = self.boxes.iter_mut().filter(move |((of, _), _)| *of == group);
        all.map(|((_, peer), post_box)| (*peer, post_box))
            .filter(move |(peer, _)| *peer != me && meet(*peer, me))
    }

    fn enter(&mut self, group: GroupId, me: Peer) {
        let (mut mine, flaw) = (PostBox::default(), self.flaw);
        for (peer, post_box) in self.others(group, me) {
            mine.news.push_back(Received::Connected(peer));
            if flaw != Flaw::SilentStart {
                post_box.news.push_back(Received::Connected(me));
            }
            if flaw == Flaw::TellsTwice {
                post_box.news.push_back(Received::Connected(me));
            }
            post_box.wake(flaw);
        }
        self.boxes.insert((self.group(group), me), mine);
    }

    fn leave(&mut self, group: GroupId, me: Peer) {
        let flaw = self.flaw;
        let key = (self.group(group), me);
        let Some(mut mine) = self.boxes.remove(&key) else { return };
        mine.wake(flaw);
        for (_, post_box) in self.others(group, me) {
            if flaw == Flaw::DropsAtClose {
                for lane in &mut post_box.letters {
                    lane.remove(&me);
                }
            }
            if flaw != Flaw::SilentEnd {
                post_box.news.push_back(Received::Disconnected(me));
            }
            post_box.wake(flaw);
        }
    }

    fn post(&mut self, from: &Place, to: Peer, lane: Lane, mut letter: Box<Envelope>) -> Sent {
        let (flaw, group) = (self.flaw, self.group(from.group));
        if to == from.me || !meet(to, from.me) {
            return Err(Backpressure::NotConnected);
        }
        let post_box = self.boxes.get_mut(&(group, to)).ok_or(Backpressure::NotConnected)?;
        self.posted += 1;
        if bytes(&letter) > from.bytes_max.try_into().unwrap() && flaw != Flaw::TakesAnySize {
            return Err(Backpressure::TooLarge);
        }
        let [control, data, bulk] = [0, 1, 2].map(|lane| {
            let letters = &post_box.letters[lane];
            if flaw == Flaw::SharedRoom {
                letters.values().map(VecDeque::len).sum()
            } else {
                letters.get(&from.me).map_or(0, VecDeque::len)
            }
        });
        let waiting = match (flaw, lane) {
            (Flaw::OneRoom, _) => control + data + bulk,
            (_, Lane::Control) => control,
            (_, Lane::Data) => data,
            (_, Lane::Bulk) => bulk,
        };
        if waiting >= ROOM && flaw != Flaw::NoEnd {
            return Err(Backpressure::QueueFull);
        }
        if flaw == Flaw::LosesSome && self.posted.is_multiple_of(7) {
            return Ok(());
        }
        if flaw == Flaw::Damages && bytes(&letter) > 0 {
            letter.view = letter.view.next();
        }
        let lane = if flaw == Flaw::OneLane { Lane::Data } else { lane };
        let sender = if flaw == Flaw::NamesNobody { Peer::Replica(ReplicaId(9)) } else { from.me };
        post_box.letters[number(lane)].entry(sender).or_default().push_back(letter);
        post_box.wake(flaw);
        Ok(())
    }
}

type Sent = Result<(), Backpressure>;

impl PostBox {
    fn wake(&mut self, flaw: Flaw) {
        if let Some(waker) = self.waker.take().filter(|_| flaw != Flaw::NeverWakes) {
            waker.wake();
        }
    }

    fn take(&mut self, flaw: Flaw) -> Vec<Received> {
        let mut taken: Vec<Received> = self.news.drain(..).collect();
        let (mut count, mut size) = CALL;
        if flaw == Flaw::ReturnsAll {
            (count, size) = (usize::MAX, usize::MAX);
        }
        for lane in &mut self.letters {
            lane.retain(|_, letters| !letters.is_empty());
            // In turn, a letter from each, so that nobody waits for another.
            while count > 0 && size > 0 && lane.values().any(|letters| !letters.is_empty()) {
                for (from, letters) in lane.iter_mut() {
                    let Some(envelope) = letters.pop_front() else { continue };
                    count = count.saturating_sub(1);
                    size = size.saturating_sub(bytes(&envelope));
                    taken.push(Received::Envelope { from: *from, envelope });
                }
            }
        }
        taken
    }
}

impl Counter {
    fn place(&self) -> Option<Place> {
        self.place.lock().unwrap().clone()
    }
}

#[async_trait]
impl Transport for Counter {
    fn start(&self, endpoint: Endpoint) -> Result<(), TransportError> {
        let mut office = self.office.lock().unwrap();
        let mut place = self.place.lock().unwrap();
        if place.is_some() {
            if office.flaw == Flaw::StartsTwice {
                return Ok(());
            }
            return Err(TransportError::Misused { reason: "it was started before" });
        }
        let me = match endpoint.role {
            Role::Replica(id) => Peer::Replica(id),
            Role::Client(_) if office.flaw == Flaw::OldNumbers => Peer::Client(ConnectionId(1)),
            Role::Client(_) => {
                office.last += 1;
                Peer::Client(ConnectionId(office.last))
            }
        };
        office.enter(endpoint.group, me);
        let bytes_max = endpoint.message_bytes_max;
        let group = endpoint.group;
        *place = Some(Place { group, me, bytes_max, is_closed: false, can_receive: true });
        Ok(())
    }

    fn send(&self, to: Peer, lane: Lane, envelope: Box<Envelope>) -> Sent {
        let mut office = self.office.lock().unwrap();
        match self.place() {
            Some(place) if !place.is_closed => office.post(&place, to, lane, envelope),
            Some(_) if office.flaw == Flaw::OpenAfterClose => Ok(()),
            None if office.flaw == Flaw::OpenBeforeStart => Ok(()),
            Some(_) | None => Err(Backpressure::NotConnected),
        }
    }

    fn flush(&self) {}

    async fn receive(&self, into: &mut Vec<Received>) -> Result<(), Closed> {
        let taken = poll_fn(|context| {
            let mut office = self.office.lock().unwrap();
            let place = self.place().filter(|place| place.can_receive).ok_or(Closed)?;
            let (flaw, key) = (office.flaw, (office.group(place.group), place.me));
            let post_box = office.boxes.get_mut(&key).ok_or(Closed)?;
            let taken = post_box.take(flaw);
            if taken.is_empty() {
                post_box.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(taken))
        });
        let taken = taken.await?;
        let forgets = self.office.lock().unwrap().flaw == Flaw::ForgetsWhenAbandoned;
        if forgets && taken.iter().any(|received| matches!(received, Received::Envelope { .. })) {
            pause().await;
        }
        if self.office.lock().unwrap().flaw == Flaw::Overwrites {
            into.clear();
        }
        into.extend(taken);
        Ok(())
    }

    fn close(&self) {
        let mut office = self.office.lock().unwrap();
        let mut place = self.place.lock().unwrap();
        let Some(place) = place.as_mut() else { return };
        if !mem::replace(&mut place.is_closed, true) {
            office.leave(place.group, place.me);
        }
        place.can_receive = false;
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.close();
    }
}

/// Pending once.
async fn pause() {
    let mut waited = false;
    poll_fn(|context| {
        if mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

struct Post(Flaw, Arc<Mutex<Office>>);

impl Post {
    fn new(flaw: Flaw) -> Self {
        let (boxes, last, posted) = (BTreeMap::new(), 0, 0);
        Self(flaw, Arc::new(Mutex::new(Office { flaw, boxes, last, posted })))
    }
}

#[async_trait(?Send)]
impl Harness for Post {
    async fn members(&mut self, count: u64) -> Members {
        *self = Self::new(self.0);
        Members::local(count).unwrap()
    }

    async fn transport(&mut self, _: Role) -> Box<dyn Transport> {
        Box::new(Counter { office: Arc::clone(&self.1), place: Mutex::default() })
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn covers(&self, _: Capability) -> bool {
        true
    }
}

fn report(flaw: Flaw) -> Report {
    block_on(run(&mut Post::new(flaw)))
}

#[test]
fn a_transport_written_from_the_documentation_passes() {
    let report = report(Flaw::None);
    assert_eq!(report.passed().len(), cases().count(), "{report}");
}

/// The network inside one process, on which sending is arriving.
struct Local(LocalNetwork);

#[async_trait(?Send)]
impl Harness for Local {
    async fn members(&mut self, count: u64) -> Members {
        self.0 = LocalNetwork::new();
        Members::local(count).unwrap()
    }

    async fn transport(&mut self, _: Role) -> Box<dyn Transport> {
        Box::new(self.0.transport())
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn covers(&self, _: Capability) -> bool {
        true
    }
}

#[test]
fn the_network_inside_one_process_conforms() {
    let report = block_on(run(&mut Local(LocalNetwork::new())));
    assert_eq!(report.passed().len(), cases().count(), "{report}");
}

#[test]
fn each_mistake_is_named() {
    let mistakes = [
        (Flaw::LosesSome, "many_messages_arrive"),
        (Flaw::Damages, "payloads_of_all_sizes_arrive_as_they_were"),
        (Flaw::NamesNobody, "a_message_comes_from_whom_it_names"),
        (Flaw::OneLane, "control_overtakes_bulk"),
        (Flaw::OneRoom, "every_lane_has_room_of_its_own"),
        (Flaw::SharedRoom, "a_flood_of_one_peer_stops_no_other"),
        (Flaw::NoEnd, "a_queue_has_an_end"),
        (Flaw::ReturnsAll, "one_call_returns_few_messages_of_one_peer"),
        (Flaw::ReturnsAll, "one_call_returns_few_bytes_of_one_peer"),
        (Flaw::ForgetsWhenAbandoned, "an_abandoned_receive_loses_nothing"),
        (Flaw::Overwrites, "receiving_appends"),
        (Flaw::NeverWakes, "whoever_receives_is_woken"),
        (Flaw::NeverWakes, "closing_wakes_whoever_receives"),
        (Flaw::SilentEnd, "the_end_of_a_replica_is_told"),
        (Flaw::SilentStart, "replicas_hear_of_each_other"),
        (Flaw::TellsTwice, "replicas_hear_of_each_other"),
        (Flaw::OldNumbers, "a_client_that_comes_back_is_somebody_else"),
        (Flaw::TakesAnySize, "a_message_over_the_limit_is_refused"),
        (Flaw::MixesGroups, "another_group_is_not_heard"),
        (Flaw::StartsTwice, "a_transport_is_started_once"),
        (Flaw::OpenBeforeStart, "nobody_is_reached_before_the_start"),
        (Flaw::DropsAtClose, "what_was_flushed_before_closing_arrives"),
        (Flaw::OpenAfterClose, "after_closing_nothing_goes_and_nothing_comes"),
    ];
    for (flaw, case) in mistakes {
        let report = report(flaw);
        let verdict = report.verdict(case);
        assert!(matches!(verdict, Some(Verdict::Failed(_))), "{flaw:?}, {case}: {report}");
    }
}
