//! What the network consists of: ends, parcels on their way, and the rules they meet.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    task::Waker,
};

use vr_core::{
    model::{
        encoding::{frame::FrameParts, message},
        kind::Lane,
        message::Envelope,
        time::Instant,
        types::Peer,
    },
    ports::transport::{Backpressure, Received},
};

use crate::{
    actor::Actor,
    executor::{Shared, lock},
    network::{
        connections::Connections,
        faults::{NetworkFaults, lane_position},
        selection::{Messages, RuleId},
    },
    prng::Prng,
    trace::event::{Event, Loss, Packet},
    witness::SharedWitness,
};

/// How long it takes to open a connection.
const HANDSHAKE: Duration = Duration::from_micros(1500);

pub(crate) struct World {
    shared: Arc<Shared>,
    rng: Prng,
    witness: SharedWitness,
    pub(crate) faults: NetworkFaults,
    pub(crate) codec: bool,
    pub(crate) history: Option<Vec<Parcel>>,
    pub(crate) delivered: u64,
    pub(crate) rules: Vec<(RuleId, Rule)>,
    pub(crate) held: VecDeque<(RuleId, Parcel)>,
    ends: BTreeMap<Actor, End>,
    connections: Connections,
    links: BTreeMap<(Actor, Actor), Link>,
    on_their_way: BTreeMap<(Instant, u64), Arrival>,
    next: u64,
    sent: u64,
}

/// One end: a process that listens.
#[derive(Debug)]
pub(crate) struct End {
    life: u64,
    members: Vec<Actor>,
    message_bytes_max: u64,
    pub(crate) inbox: VecDeque<Received>,
    pub(crate) waker: Option<Waker>,
}

/// One direction between two actors.
#[derive(Debug, Default)]
struct Link {
    cut: bool,
    clogged_until: [Instant; 3],
    busy_until: [Instant; 3],
    last_arrival: [Instant; 3],
    queued: [u32; 3],
}

/// An envelope between two actors.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    packet: Packet,
    lane: Lane,
    /// How the receiver calls the sender, and the connection it went out on.
    from: Peer,
    connection: u64,
    /// How long its encoding is; zero when it travels as a value.
    bytes: u64,
    envelope: Box<Envelope>,
}

#[derive(Debug)]
enum Arrival {
    Parcel(Parcel),
    Open(Actor, Actor),
    Closed { told: Actor, about: Actor },
}

#[derive(Debug)]
pub(crate) enum Rule {
    Hold(Messages),
    Lose(Messages),
    Only(Messages),
}

impl World {
    pub(crate) fn new(shared: Arc<Shared>, rng: Prng, witness: SharedWitness) -> Self {
        Self {
            shared,
            rng,
            witness,
            faults: NetworkFaults::none(),
            codec: true,
            history: None,
            delivered: 0,
            rules: Vec::new(),
            held: VecDeque::new(),
            ends: BTreeMap::new(),
            connections: Connections::default(),
            links: BTreeMap::new(),
            on_their_way: BTreeMap::new(),
            next: 0,
            sent: 0,
        }
    }

    fn record(&self, event: Event) {
        lock(&self.witness).trace.record(self.shared.now(), event);
    }

    fn schedule(&mut self, at: Instant, arrival: Arrival) {
        self.next += 1;
        self.on_their_way.insert((at, self.next), arrival);
    }

    // Ends.

    pub(crate) fn end_of(&mut self, actor: Actor, life: u64) -> Option<&mut End> {
        self.ends.get_mut(&actor).filter(|end| end.life == life)
    }

    pub(crate) fn start(
        &mut self,
        actor: Actor,
        members: Vec<Actor>,
        message_bytes_max: u32,
    ) -> u64 {
        self.next += 1;
        let message_bytes_max = u64::from(message_bytes_max);
        let (inbox, waker) = (VecDeque::new(), None);
        let end = End { life: self.next, members, message_bytes_max, inbox, waker };
        let life = end.life;
        self.ends.insert(actor, end);
        let at = self.shared.now() + HANDSHAKE;
        let others: Vec<Actor> = self.ends.keys().copied().filter(|o| *o != actor).collect();
        for other in others {
            if self.belong_together(actor, other) {
                self.schedule(at, Arrival::Open(actor, other));
            }
        }
        life
    }

    /// Members talk to members and to clients of the group; clients not to each other.
    fn belong_together(&self, one: Actor, other: Actor) -> bool {
        let knows = |who: Actor, whom: Actor| {
            self.ends.get(&who).is_some_and(|end| end.members.contains(&whom))
        };
        match (one, other) {
            (Actor::Replica(_), Actor::Replica(_)) => knows(one, other) && knows(other, one),
            (Actor::Client(_), Actor::Replica(_)) => knows(one, other),
            (Actor::Replica(_), Actor::Client(_)) => knows(other, one),
            (Actor::Client(_), Actor::Client(_)) => false,
        }
    }

    pub(crate) fn close(&mut self, actor: Actor, life: u64) {
        if self.end_of(actor, life).is_some() {
            self.crash(actor, true);
        }
    }

    pub(crate) fn crash(&mut self, actor: Actor, peers_are_told: bool) {
        let end = self.ends.remove(&actor);
        for peer in self.connections.peers_of(actor) {
            self.connections.close(actor, peer);
            self.connections.tell(actor, peer);
            if !peers_are_told {
                self.connections.tell(peer, actor);
                continue;
            }
            let delay = self.faults.delay(&mut self.rng);
            let at = self.shared.now() + delay;
            self.schedule(at, Arrival::Closed { told: peer, about: actor });
        }
        if let Some(waker) = end.and_then(|end| end.waker) {
            waker.wake();
        }
    }

    pub(crate) fn kill_connection(&mut self, one: Actor, other: Actor) {
        if !self.connections.close(one, other) {
            return;
        }
        let mut broken = Vec::new();
        self.on_their_way.retain(|_, arrival| match arrival {
            Arrival::Parcel(parcel) if parcel.is_between(one, other) => {
                broken.push(parcel.clone());
                false
            }
            Arrival::Parcel(_) | Arrival::Open(..) | Arrival::Closed { .. } => true,
        });
        for parcel in broken {
            self.lost(&parcel, Loss::Broken, true);
        }
        let now = self.shared.now();
        self.schedule(now, Arrival::Closed { told: one, about: other });
        self.schedule(now, Arrival::Closed { told: other, about: one });
        self.schedule(now + self.faults.redial, Arrival::Open(one, other));
    }

    fn opened(&mut self, one: Actor, other: Actor) {
        if !self.belong_together(one, other) || self.connections.number(one, other).is_some() {
            return;
        }
        let blocked = self.blocked_until(one, other).max(self.blocked_until(other, one));
        if blocked > self.shared.now() {
            let at = self.shared.now() + self.faults.redial;
            self.schedule(at, Arrival::Open(one, other));
            return;
        }
        self.tell_closed(one, other);
        self.tell_closed(other, one);
        self.connections.open(one, other);
        self.record(Event::Connected(one, other));
        for (receiver, sender) in [(one, other), (other, one)] {
            let peer = self.connections.peer_of(receiver, sender);
            self.push(receiver, Received::Connected(peer));
        }
    }

    fn tell_closed(&mut self, told: Actor, about: Actor) {
        if self.ends.contains_key(&told) && self.connections.tell(told, about) {
            self.record(Event::Disconnected(told, about));
            let peer = self.connections.peer_of(told, about);
            self.push(told, Received::Disconnected(peer));
        }
    }

    fn push(&mut self, receiver: Actor, received: Received) {
        if let Some(end) = self.ends.get_mut(&receiver) {
            end.inbox.push_back(received);
            if let Some(waker) = end.waker.take() {
                waker.wake();
            }
        }
    }

    // Links.

    fn link(&mut self, from: Actor, to: Actor) -> &mut Link {
        self.links.entry((from, to)).or_default()
    }

    pub(crate) fn cut(&mut self, from: Actor, to: Actor) {
        self.record(Event::Cut(from, to));
        self.link(from, to).cut = true;
    }

    pub(crate) fn heal_link(&mut self, from: Actor, to: Actor) {
        self.record(Event::Mended(from, to));
        self.link(from, to).cut = false;
    }

    pub(crate) fn is_cut(&self, from: Actor, to: Actor) -> bool {
        self.links.get(&(from, to)).is_some_and(|link| link.cut)
    }

    fn blocked_until(&self, from: Actor, to: Actor) -> Instant {
        match self.links.get(&(from, to)) {
            Some(link) if link.cut => Instant::FAR_FUTURE,
            Some(link) => link.clogged_until.into_iter().max().unwrap_or(Instant::ZERO),
            None => Instant::ZERO,
        }
    }

    pub(crate) fn clog(&mut self, from: Actor, to: Actor, lane: Lane, until: Instant) {
        self.record(Event::Clogged(from, to, lane, until));
        if let Some(clogged) = self.link(from, to).clogged_until.get_mut(lane_position(lane)) {
            *clogged = until;
        }
    }

    pub(crate) fn partition(&mut self, side: &[Actor]) {
        self.record(Event::Partitioned(side.to_vec()));
        let inside: BTreeSet<Actor> = side.iter().copied().collect();
        let outside: Vec<Actor> =
            self.known_actors().into_iter().filter(|actor| !inside.contains(actor)).collect();
        for one in &inside {
            for other in &outside {
                self.cut(*one, *other);
                self.cut(*other, *one);
            }
        }
    }

    /// Everyone who listens or is a member of someone's group, down or not.
    fn known_actors(&self) -> BTreeSet<Actor> {
        let members = self.ends.values().flat_map(|end| end.members.iter().copied());
        self.ends.keys().copied().chain(members).collect()
    }

    pub(crate) fn heal(&mut self) {
        self.record(Event::Healed);
        for link in self.links.values_mut() {
            link.cut = false;
            link.clogged_until = [Instant::ZERO; 3];
            link.busy_until = [Instant::ZERO; 3];
        }
    }

    // Parcels.

    /// Gives `envelope` its number.
    fn packet(&mut self, from: Actor, to: Actor, envelope: &Envelope) -> Packet {
        self.sent += 1;
        Packet::of(self.sent, from, to, envelope)
    }

    pub(crate) fn send(
        &mut self,
        from: Actor,
        life: u64,
        to: Peer,
        lane: Lane,
        envelope: Box<Envelope>,
    ) -> Result<(), Backpressure> {
        let sender = self.end_of(from, life).ok_or(Backpressure::NotConnected)?;
        let message_bytes_max = sender.message_bytes_max;
        let receiver = self.connections.actor_of(from, to).ok_or(Backpressure::NotConnected)?;
        let lane_messages_max = self.faults.lane_messages_max;
        let queued = self.link(from, receiver).queued;
        if queued.get(lane_position(lane)).is_some_and(|queued| *queued >= lane_messages_max) {
            return Err(Backpressure::QueueFull);
        }
        let (envelope, bytes) =
            if self.codec { through_the_codec(&envelope) } else { (envelope, 0) };
        if bytes > message_bytes_max {
            return Err(Backpressure::TooLarge);
        }
        let now = self.shared.now();
        let packet = self.packet(from, receiver, &envelope);
        lock(&self.witness).sent(now, packet, &envelope);
        let parcel = Parcel {
            packet,
            lane,
            from: self.connections.peer_of(receiver, from),
            connection: self.connections.number(from, receiver).unwrap_or(0),
            bytes,
            envelope,
        };
        if let Some(history) = &mut self.history {
            history.push(parcel.clone());
        }
        if self.is_cut(from, receiver) {
            self.lost(&parcel, Loss::Cut, false);
        } else if self.rng.chance(self.faults.loss) {
            self.lost(&parcel, Loss::Chance, false);
        } else {
            if self.rng.chance(self.faults.duplicate) {
                self.post(parcel.clone());
            }
            self.post(parcel);
        }
        Ok(())
    }

    /// Sets the parcel on its way.
    fn post(&mut self, parcel: Parcel) {
        let lane = lane_position(parcel.lane);
        let delay = self.faults.delay(&mut self.rng);
        let free = self.rng.chance(self.faults.reorder);
        let busy = self.faults.busy(parcel.bytes);
        let now = self.shared.now();
        let link = self.link(parcel.packet.from, parcel.packet.to);
        let mut at = now + delay;
        if let Some(clogged_until) = link.clogged_until.get(lane) {
            at = at.max(*clogged_until);
        }
        if let Some(busy_until) = link.busy_until.get_mut(lane) {
            *busy_until = now.max(*busy_until) + busy;
            at = at.max(*busy_until + delay);
        }
        if let Some(queued) = link.queued.get_mut(lane) {
            *queued += 1;
        }
        if let Some(last) = link.last_arrival.get_mut(lane)
            && !free
        {
            at = at.max(*last);
            *last = at;
        }
        self.schedule(at, Arrival::Parcel(parcel));
    }

    fn lost(&mut self, parcel: &Parcel, why: Loss, was_queued: bool) {
        if was_queued {
            self.unqueue(parcel);
        }
        self.record(Event::Lost(parcel.packet, why));
    }

    fn unqueue(&mut self, parcel: &Parcel) {
        let lane = lane_position(parcel.lane);
        let link = self.link(parcel.packet.from, parcel.packet.to);
        if let Some(queued) = link.queued.get_mut(lane) {
            *queued = queued.saturating_sub(1);
        }
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.on_their_way.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn arrive(&mut self) {
        match self.on_their_way.pop_first() {
            Some((_, Arrival::Parcel(parcel))) => self.parcel_arrived(parcel),
            Some((_, Arrival::Open(one, other))) => self.opened(one, other),
            Some((_, Arrival::Closed { told, about })) => self.closed(told, about),
            None => {}
        }
    }

    /// The news that a way broke comes over the network, too: through a cut link it never does,
    /// unless the way opens again.
    fn closed(&mut self, told: Actor, about: Actor) {
        if !self.is_cut(about, told) {
            self.tell_closed(told, about);
        }
    }

    fn parcel_arrived(&mut self, parcel: Parcel) {
        let packet = parcel.packet;
        let rules = self.rules.iter();
        let mut met = rules.filter(|(_, rule)| match rule {
            Rule::Hold(messages) | Rule::Lose(messages) => messages.contain(&packet),
            Rule::Only(messages) => !messages.contain(&packet),
        });
        match met.next() {
            Some((holder, Rule::Hold(_))) => {
                let holder = *holder;
                self.unqueue(&parcel);
                self.record(Event::Held(packet));
                self.held.push_back((holder, parcel));
            }
            Some((_, Rule::Lose(_) | Rule::Only(_))) => self.lost(&parcel, Loss::Rule, true),
            None => self.deliver(parcel, true),
        }
    }

    fn deliver(&mut self, parcel: Parcel, was_queued: bool) {
        let Packet { from, to, .. } = parcel.packet;
        let between_replicas = matches!((from, to), (Actor::Replica(_), Actor::Replica(_)));
        if self.is_cut(from, to) {
            return self.lost(&parcel, Loss::Cut, was_queued);
        }
        if !self.ends.contains_key(&to) {
            return self.lost(&parcel, Loss::Absent, was_queued);
        }
        // Between replicas a message may be as late as it likes, even of an earlier life.
        if !between_replicas && self.connections.number(from, to) != Some(parcel.connection) {
            return self.lost(&parcel, Loss::Broken, was_queued);
        }
        if was_queued {
            self.unqueue(&parcel);
        }
        self.delivered += 1;
        self.record(Event::Delivered(parcel.packet));
        self.push(to, Received::Envelope { from: parcel.from, envelope: parcel.envelope });
    }

    pub(crate) fn in_flight(&self, messages: &Messages) -> usize {
        let matching = self.on_their_way.values().filter(|arrival| match arrival {
            Arrival::Parcel(parcel) => messages.contain(&parcel.packet),
            Arrival::Open(..) | Arrival::Closed { .. } => false,
        });
        matching.count()
    }

    // Rules made by hand.

    pub(crate) fn add_rule(&mut self, rule: Rule) -> RuleId {
        self.next += 1;
        let id = RuleId(self.next);
        self.rules.push((id, rule));
        id
    }

    pub(crate) fn release(&mut self, released: RuleId) {
        self.rules.retain(|(id, _)| *id != released);
        let held = core::mem::take(&mut self.held);
        let (going, staying) = held.into_iter().partition(|(holder, _)| *holder == released);
        self.held = staying;
        self.send_on(going);
    }

    pub(crate) fn release_all(&mut self) {
        let held = core::mem::take(&mut self.held);
        self.send_on(held);
    }

    fn send_on(&mut self, parcels: VecDeque<(RuleId, Parcel)>) {
        for (_, parcel) in parcels {
            self.deliver(parcel, false);
        }
    }

    pub(crate) fn lose_held(&mut self, rule: RuleId) {
        let held = core::mem::take(&mut self.held);
        for (holder, parcel) in held {
            if holder == rule {
                self.lost(&parcel, Loss::Rule, false);
            } else {
                self.held.push_back((holder, parcel));
            }
        }
    }

    pub(crate) fn replay(&mut self, messages: &Messages) -> usize {
        let history = self.history.iter().flatten();
        let again: Vec<Parcel> =
            history.filter(|parcel| messages.contain(&parcel.packet)).cloned().collect();
        let count = again.len();
        for parcel in again {
            self.deliver(parcel, false);
        }
        count
    }

    pub(crate) fn last_sent(&self, actor: Actor) -> Option<&Envelope> {
        let mut history = self.history.iter().flatten().rev();
        history.find(|parcel| parcel.packet.from == actor).map(|parcel| &*parcel.envelope)
    }

    pub(crate) fn forge(
        &mut self,
        from: Actor,
        to: Actor,
        change: impl FnOnce(&mut Envelope),
    ) -> bool {
        let Some(sent) = self.last_sent(from) else { return false };
        let mut envelope = Box::new(sent.clone());
        change(&mut envelope);
        let parcel = Parcel {
            packet: self.packet(from, to, &envelope),
            lane: envelope.message.lane(),
            from: self.connections.peer_of(to, from),
            connection: self.connections.number(from, to).unwrap_or(0),
            bytes: 0,
            envelope,
        };
        self.deliver(parcel, false);
        true
    }
}

impl Parcel {
    fn is_between(&self, one: Actor, other: Actor) -> bool {
        let ends = (self.packet.from, self.packet.to);
        ends == (one, other) || ends == (other, one)
    }
}

/// What a receiver gets when the envelope travels as bytes, and how many they are.
fn through_the_codec(envelope: &Envelope) -> (Box<Envelope>, u64) {
    let mut parts = FrameParts::new();
    message::encode(envelope, &mut parts).expect("what a node sends can be encoded");
    let bytes = parts.take_bytes();
    let decoded = Box::new(message::decode(&bytes).expect("what was encoded can be decoded"));
    assert_eq!(*decoded, *envelope, "an envelope survives its bytes");
    (decoded, u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}
