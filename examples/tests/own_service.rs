//! How a service of your own is tested: a counter of a few lines, and the key-value store.

use bytes::Bytes;
use vr_core::{Context, QueryContext, StateMachine};
use vr_examples::kv::{
    command::{Command, Condition, Expiry, Question},
    state::Kv,
};
use vr_sim::{Sim, cluster::client::Ended, prng::Prng};

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter(u64);

impl StateMachine for Counter {
    type Operation = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, add: u64) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    vr_core::serde_snapshot!();
}

#[test]
fn the_counter_counts_every_acknowledged_operation_once() {
    let checked = vr_sim::check(0..20, |sim: &mut Sim<Counter>| {
        sim.replicas(3).operations(|rng| rng.between(1, 9)).queries(|_| ());
        let outcome = sim.run();
        let sum = outcome.log.iter().map(|(_, add, _)| *add).sum();
        assert!(outcome.states.iter().all(|(_, counter)| counter.0 == sum));
        let highest = outcome.history.iter().filter_map(|call| match call.ended {
            Some((_, Ended::Replied(count) | Ended::Answered(count))) => Some(count),
            Some((_, Ended::Failed(_))) | None => None,
        });
        assert!(highest.max() <= Some(sum), "a client was told of more than was counted");
    });
    assert!(checked.total.committed > 1000, "{checked}");
}

fn key(rng: &mut Prng) -> Bytes {
    Bytes::from(format!("k{}", rng.below(5)))
}

fn command(rng: &mut Prng) -> Command {
    let (key, value) = (key(rng), Bytes::from(rng.below(100).to_string()));
    let expiry = if rng.below(4) == 0 { Expiry::AfterMillis(rng.below(500)) } else { Expiry::Keep };
    let condition = Condition::Always;
    match rng.below(5) {
        0 => Command::Set { key, value, condition, expiry, return_old: true },
        1 => Command::IncrBy(key, 3),
        2 => Command::Append(key, value),
        3 => Command::Expire(key, 200),
        _ => Command::GetDel(key),
    }
}

#[test]
fn the_key_value_store_is_a_deterministic_state_machine() {
    let checked = vr_sim::check(0..20, |sim: &mut Sim<Kv>| {
        sim.operations(|rng| (0..rng.between(1, 3)).map(|_| command(rng)).collect());
        sim.queries(|rng| vec![Question::Get(key(rng)), Question::PTtl(key(rng))]);
    });
    assert!(checked.total.committed > 1000 && checked.total.crashes > 20, "{checked}");
}
