//! Replicas that die, alone or all at once, and come back.

use vr_core::{Durability, View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    disk::faults::DiskFaults,
    network::selection::Messages,
    options::GroupOptions,
    prng::Prng,
    workload::{add, put},
};

/// The primary dies after a majority has the op but before anyone hears of the commit.
/// The next view must keep it (VRR 4.2, correctness condition).
#[test]
pub(crate) fn an_op_prepared_by_a_majority_survives_its_primary() {
    let mut group = Cluster::of(3);
    let put = group.client().request(put("k", 1));
    group.deliver_only([Kind::Request, Kind::Requests, Kind::Prepare]);
    group.crash(R0);

    group.run_until_normal();

    group.run_until(|group| group.committed() == [put]);
    assert!(group.view() >= View(1));
    group.heal_and_converge();
}

/// S15: the primary sends a prepare to one backup, dies before its own sync, and is back at once.
/// It must not give the same place of its view to another operation.
#[test]
pub(crate) fn a_restarted_primary_leaves_its_view() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.hold_storage(R0);
    let lost = group.lose(Messages::of([Kind::Prepare]).to(R2));
    let first = client.request(put("k", 1));
    group.deliver_only([Kind::Request, Kind::Requests, Kind::Prepare]);
    group.crash_silently(R0);
    group.release_storage(R0);
    group.restart(R0);
    group.release(lost);
    let second = client.request(put("k", 2));

    group.run_until_answered(second);

    assert!(group.stamp_of(second).unwrap().0 >= View(1));
    assert_eq!(group.committed(), [first, second]);
    group.heal_and_converge();
}

/// S16: power is cut at random moments while syncs take as long as they like.
/// Whatever was acknowledged is back.
#[test]
pub(crate) fn power_cuts_at_any_moment_lose_nothing_acknowledged() {
    for seed in 0..8 {
        let mut rng = Prng::stream(seed, "power", 0);
        let disk = DiskFaults::drawn(&mut rng);
        let mut group = Cluster::with(GroupOptions { disk, ..GroupOptions::of(3).with_seed(seed) });
        let client = group.client();
        for _ in 0..4 {
            for _ in 0..20 {
                client.request(add("k", 1));
            }
            group.run_for(core::time::Duration::from_micros(rng.below(30_000)));
            group.crash_all();
            group.start_all();
        }
        group.heal_and_converge();
    }
}

/// S18: a replica's log ends with entries that no majority has; it adopts a shorter one, appends,
/// and crashes. What it had before must never come up again.
#[test]
pub(crate) fn a_replaced_tail_never_comes_back() {
    let mut group = Cluster::of(3);
    let (alone, other) = (group.client(), group.client());
    group.partition([R0.into(), alone.actor()]);
    for value in 0..5 {
        alone.request(put("old", value));
    }
    let before = group.durable_op(R0);
    group.run_until(|group| group.durable_op(R0).since(before) == 5);
    group.crash_client(alone);
    let new = other.request(put("new", 1));
    group.run_until_answered(new);
    group.heal();
    group.run_until(|group| group.applied(R0) == [new]);
    group.crash(R0);
    group.restart(R0);
    group.mend();
    group.run_until(|group| group.statuses().iter().all(|status| status.view == group.view()));
    assert_eq!(group.committed(), [new]);
}

/// S19: the next primary lacks committed entries, and the one it fetches them from dies.
#[test]
pub(crate) fn missing_bodies_are_fetched_from_whoever_is_left() {
    Durability::ALL.into_iter().for_each(lose_whom_bodies_come_from);
}

fn lose_whom_bodies_come_from(durability: Durability) {
    let mut group = Cluster::with(GroupOptions::of(5).with_durability(durability));
    let client = group.client();
    group.cut_both(R0, R1);
    group.cut_both(R1, R2);
    let calls = [1, 2, 3].map(|value| client.request(put("k", value)));
    group.run_until(|group| calls.iter().all(|call| group.ended(*call).is_some()));
    group.network().heal();
    let bodies = group.hold(Messages::of([Kind::Entries, Kind::Prepare]).to(R1));
    group.crash(R0);
    group.run_until(|group| group.status(R1).view > View::ZERO);
    group.run_for_heartbeats(1);
    group.crash(R2);
    group.release(bodies);

    group.run_until_normal();

    group.heal_and_converge();
    assert_eq!(group.committed(), calls);
}

/// S24: all replicas lose power under load, each with a torn tail of its own.
#[test]
pub(crate) fn a_group_that_lost_power_has_everything_it_acknowledged() {
    for seed in 0..10 {
        let mut group = Cluster::with(GroupOptions::of(3).with_seed(seed));
        let client = group.client();
        let calls: Vec<_> = (0..50).map(|_| client.request(add("k", 1))).collect();
        group.run_until(|group| group.reply_of(calls[10]).is_some());
        group.crash_all();
        group.start_all();

        group.heal_and_converge();

        assert_eq!(group.committed(), calls);
        assert_eq!(group.reply_of(calls[49]), Some(Some(50)));
    }
}
