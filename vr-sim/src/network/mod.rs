//! A network in memory that delays, loses, doubles and reorders, by seed or by hand.

pub(crate) mod connections;
pub mod faults;
pub mod selection;
pub mod transport;
mod world;

use core::fmt;
use std::sync::{Arc, Mutex};

use vr_core::model::{
    kind::Lane,
    message::{Envelope, Message},
    time::Instant,
};

use crate::{
    actor::Actor,
    executor::{Executor, lock},
    network::{
        faults::NetworkFaults,
        selection::{Messages, RuleId},
        transport::SimTransport,
        world::{Rule, World},
    },
    prng::Prng,
    witness::SharedWitness,
};

/// The hand that steers the network; clones steer the same one.
#[derive(Clone)]
pub struct Network {
    world: Arc<Mutex<World>>,
}

impl Network {
    /// A network without ends; `rng` is its own stream.
    #[must_use]
    pub fn new(executor: &Executor, rng: Prng, witness: SharedWitness) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(executor.shared(), rng, witness))) }
    }

    /// A transport for one life of `actor`.
    #[must_use]
    pub fn transport(&self, actor: Actor) -> SimTransport {
        SimTransport::new(Arc::clone(&self.world), actor)
    }

    /// Changes what happens to messages by chance.
    pub fn set_faults(&mut self, faults: NetworkFaults) {
        lock(&self.world).faults = faults;
    }

    /// What happens to messages by chance.
    #[must_use]
    pub fn faults(&self) -> NetworkFaults {
        lock(&self.world).faults.clone()
    }

    /// Encodes and decodes every envelope on its way, and compares.
    pub fn set_codec(&mut self, exercised: bool) {
        lock(&self.world).codec = exercised;
    }

    /// Remembers every envelope from now on, for [`replay`](Self::replay), [`forge`](Self::forge)
    /// and [`last_message`](Self::last_message).
    pub fn keep_history(&mut self) {
        lock(&self.world).history.get_or_insert_default();
    }

    /// When the next message or notice arrives; `None` when nothing is on its way.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        lock(&self.world).next_arrival()
    }

    /// Lets the next message or notice arrive, now.
    pub fn arrive(&mut self) {
        lock(&self.world).arrive();
    }

    /// How many messages matching `messages` are on their way; held ones are not.
    #[must_use]
    pub fn in_flight(&self, messages: &Messages) -> usize {
        lock(&self.world).in_flight(messages)
    }

    /// How many envelopes were delivered so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        lock(&self.world).delivered
    }

    /// Loses everything from `from` to `to` until [`heal_link`](Self::heal_link), silently.
    pub fn cut(&mut self, from: Actor, to: Actor) {
        lock(&self.world).cut(from, to);
    }

    /// Ends a [`cut`](Self::cut).
    pub fn heal_link(&mut self, from: Actor, to: Actor) {
        lock(&self.world).heal_link(from, to);
    }

    /// Whether the link is cut.
    #[must_use]
    pub fn is_cut(&self, from: Actor, to: Actor) -> bool {
        lock(&self.world).is_cut(from, to)
    }

    /// Holds back everything from `from` to `to` on `lane` until `until`, then lets it go.
    pub fn clog(&mut self, from: Actor, to: Actor, lane: Lane, until: Instant) {
        lock(&self.world).clog(from, to, lane, until);
    }

    /// Cuts every link between an actor of `side` and one that is not.
    pub fn partition(&mut self, side: &[Actor]) {
        lock(&self.world).partition(side);
    }

    /// Ends all cuts and clogs, and forgets the rules made by hand; held messages go on.
    pub fn heal(&mut self) {
        let mut world = lock(&self.world);
        world.heal();
        world.rules.clear();
        world.release_all();
    }

    /// Keeps `messages` back when they arrive, until the rule is released.
    pub fn hold(&mut self, messages: Messages) -> RuleId {
        lock(&self.world).add_rule(Rule::Hold(messages))
    }

    /// Loses `messages` when they arrive, until the rule is released.
    pub fn lose(&mut self, messages: Messages) -> RuleId {
        lock(&self.world).add_rule(Rule::Lose(messages))
    }

    /// Loses everything but `messages` when it arrives, until the rule is released.
    pub fn lose_all_but(&mut self, messages: Messages) -> RuleId {
        lock(&self.world).add_rule(Rule::Only(messages))
    }

    /// Takes a rule back; what it holds goes on, in the order in which it was held.
    pub fn release(&mut self, rule: RuleId) {
        lock(&self.world).release(rule);
    }

    /// As [`release`](Self::release), the last held message first.
    pub fn release_backwards(&mut self, rule: RuleId) {
        let mut world = lock(&self.world);
        world.held.make_contiguous().reverse();
        world.release(rule);
        world.held.make_contiguous().reverse();
    }

    /// Loses what the rule holds so far; the rule stays.
    pub fn lose_held(&mut self, rule: RuleId) {
        lock(&self.world).lose_held(rule);
    }

    /// How many messages the rule holds.
    #[must_use]
    pub fn held(&self, rule: RuleId) -> usize {
        lock(&self.world).held.iter().filter(|(holder, _)| *holder == rule).count()
    }

    /// Delivers once more, now, everything in the history that matches; returns how many.
    pub fn replay(&mut self, messages: &Messages) -> usize {
        lock(&self.world).replay(messages)
    }

    /// Delivers, now, the last envelope that `from` sent, changed, as if `from` had sent that;
    /// false when the history has none.
    pub fn forge(&mut self, from: Actor, to: Actor, change: impl FnOnce(&mut Envelope)) -> bool {
        lock(&self.world).forge(from, to, change)
    }

    /// Breaks the connection between the two; both ends are told, and messages on it are lost.
    pub fn kill_connection(&mut self, one: Actor, other: Actor) {
        lock(&self.world).kill_connection(one, other);
    }

    /// The process of `actor` ended: its peers are told, what is on its way from it goes on.
    pub fn crash(&mut self, actor: Actor) {
        lock(&self.world).crash(actor, true);
    }

    /// As [`crash`](Self::crash), but its peers notice nothing, as when a machine loses power.
    pub fn crash_silently(&mut self, actor: Actor) {
        lock(&self.world).crash(actor, false);
    }

    /// The last message of the history that `actor` sent, whatever became of it.
    #[must_use]
    pub fn last_message(&self, actor: Actor) -> Option<Message> {
        lock(&self.world).last_sent(actor).map(|envelope| envelope.message.clone())
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("next_arrival", &self.next_arrival()).finish()
    }
}
