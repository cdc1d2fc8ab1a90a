//! Links that fail one way or both, for some or for all.

use core::time::Duration;

use vr_core::View;
use vr_sim::{
    cluster::{Cluster, R0, R1, R2, R3, R4},
    network::faults::NetworkFaults,
    workload::put,
};

/// S27: the primary is cut off with a client; the majority elects another. Both take requests.
#[test]
pub(crate) fn only_one_side_of_a_split_commits() {
    let mut group = Cluster::of(3);
    let (minority, majority) = (group.client(), group.client());
    group.partition([R0.into(), minority.actor()]);
    let stuck = minority.request(put("k", 1));
    let done = majority.request(put("k", 2));

    group.run_until_answered(done);

    assert_eq!(group.view(), View(1));
    group.run_until(|group| !group.status(R0).serving);
    assert!(group.ended(stuck).is_none());
    group.heal_and_converge();
    assert_eq!(group.committed(), [done, stuck]);
    assert!(group.stamp_of(stuck).unwrap().0 >= View(1));
}

/// S28: a backup that hears nothing votes and votes; nobody follows.
#[test]
pub(crate) fn a_backup_that_only_sends_does_not_disturb() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.deafen(R2);
    group.run_for_heartbeats(100);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    assert_eq!(group.view(), View(0), "nobody follows a single vote");
    group.heal_and_converge();
    assert_eq!(group.view(), View(0));
}

/// S29: a backup that nobody hears keeps up.
#[test]
pub(crate) fn a_backup_that_only_receives_keeps_up() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.mute(R2);
    group.run_for_heartbeats(100);
    let call = client.request(put("k", 1));
    group.run_until(|group| group.applied(R2) == [call]);
    assert_eq!(group.view(), View(0));
    group.heal_and_converge();
}

/// S30: a primary that hears nobody leaves, with load and without.
#[test]
pub(crate) fn a_primary_that_only_sends_steps_down() {
    for loaded in [false, true] {
        let mut group = Cluster::of(3);
        let client = group.client();
        let call = loaded.then(|| client.request(put("k", 1)));
        group.deafen(R0);
        group.run_for_heartbeats(20);
        assert!(group.view() > View(0));
        group.run_until_normal();
        assert_ne!(group.primary(), R0);
        group.heal_and_converge();
        assert_eq!(group.committed(), Vec::from_iter(call));
    }
}

/// S31: a primary that nobody hears is replaced, and learns of it.
#[test]
pub(crate) fn a_primary_that_only_receives_learns_of_its_successor() {
    let mut group = Cluster::of(3);
    group.mute(R0);
    group.run_until(|group| group.view() > View(0));
    group.run_until(|group| group.status(R0).view >= group.view());
    group.heal_and_converge();
}

/// S32: the primary hears only the hub, and so does everyone else. The hub must take over although
/// it hears the primary well.
#[test]
pub(crate) fn the_hub_of_a_star_becomes_primary() {
    let mut group = Cluster::of(5);
    let client = group.client();
    star_around_r1(&mut group);
    group.run_until(|group| group.view() > View(0));
    group.run_until_normal();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    assert_eq!(group.primary(), R1);
    group.heal_and_converge();
}

fn star_around_r1(group: &mut Cluster<vr_sim::workload::Kv>) {
    let leaves = [R0, R2, R3, R4];
    for one in leaves {
        for other in leaves.into_iter().filter(|other| *other != one) {
            group.cut(one, other);
        }
    }
}

/// S33: the primary is dead, and the only replica that reaches a quorum has the oldest log. It
/// becomes primary after it has fetched the log.
#[test]
pub(crate) fn the_only_connected_replica_fetches_what_it_lacks() {
    let mut group = Cluster::of(5);
    let client = group.client();
    group.isolate(R1);
    let calls = [1, 2, 3].map(|value| client.request(put("k", value)));
    group.run_until(|group| calls.iter().all(|call| group.reply_of(*call).is_some()));
    group.crash(R0);
    group.heal();
    star_around_r1(&mut group);
    group.run_until_normal();
    assert_eq!(group.primary(), R1);
    group.run_until(|group| group.applied(R1) == calls);
    group.heal_and_converge();
}

/// S36: a replica that is alone for long does not run ahead, and disturbs nobody when it is back.
#[test]
pub(crate) fn a_lonely_replica_does_not_run_ahead() {
    let mut group = Cluster::of(3);
    group.isolate(R2);
    group.run_for_heartbeats(1000);
    assert!(group.status(R2).view <= group.view().next());
    group.heal_and_converge();
    assert_eq!(group.view(), View(0));
}

/// S37: half of all messages are lost for a while; afterwards the group works within a bound.
#[test]
pub(crate) fn a_group_recovers_from_a_storm() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.set_network_faults(NetworkFaults { loss: 500_000, ..NetworkFaults::none() });
    let call = client.request(put("k", 1));
    group.run_for_heartbeats(100);
    group.set_network_faults(NetworkFaults::none());
    let calm = group.now();
    group.run_until_normal();
    assert!(group.now().since(calm) < Duration::from_secs(3));
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}
