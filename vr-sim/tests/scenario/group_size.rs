//! Groups of other sizes than three.

use vr_core::View;
use vr_sim::{
    cluster::{Cluster, R0, R1, R2, R3},
    workload::put,
};

/// S83: a group of one commits alone, and is in the next view after a restart.
#[test]
pub(crate) fn a_group_of_one_goes_on_in_the_next_view() {
    let mut group = Cluster::of(1);
    let client = group.client();
    let first = client.request(put("k", 1));
    group.run_until_answered(first);
    group.crash(R0);
    group.restart(R0);
    let second = client.request(put("k", 2));
    group.run_until_answered(second);
    assert_eq!((group.view(), group.reply_of(second)), (View(1), Some(Some(1))));
    group.heal_and_converge();
}

/// S83: a group of two needs both.
#[test]
pub(crate) fn a_group_of_two_needs_both() {
    let mut group = Cluster::of(2);
    let client = group.client();
    group.crash(R1);
    let call = client.request(put("k", 1));
    group.run_for_heartbeats(100);
    assert!(group.committed().is_empty());
    group.restart(R1);
    group.run_until_answered(call);
    group.heal_and_converge();
}

/// S83: a group of four needs three.
#[test]
pub(crate) fn a_group_of_four_needs_three() {
    let mut group = Cluster::of(4);
    let client = group.client();
    group.crash(R0);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R3);
    let stuck = client.request(put("k", 2));
    group.run_for_heartbeats(100);
    assert_eq!(group.committed(), [call]);
    assert!(group.ended(stuck).is_none() && group.is_running(R2));
    group.heal_and_converge();
    assert_eq!(group.committed(), [call, stuck]);
}

/// S83: groups of five and seven survive what they should.
#[test]
pub(crate) fn larger_groups_survive_the_crash_of_any_minority() {
    for (size, crashes) in [(5, 2), (7, 3)] {
        let mut group = Cluster::of(size);
        let client = group.client();
        let ids = group.ids();
        for id in &ids[..crashes] {
            group.crash(*id);
        }
        let call = client.request(put("k", 1));
        group.run_until_answered(call);
        group.heal_and_converge();
    }
}
