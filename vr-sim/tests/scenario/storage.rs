//! Disks that tear, fail and fill up.

use core::time::Duration;

use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    disk::{damage::Damage, faults::DiskFaults},
    options::GroupOptions,
    workload::{add, put},
};

/// S47: a crash in the middle of an append leaves a part of it; the replica cuts it off and is as
/// good as before.
#[test]
pub(crate) fn a_torn_tail_is_cut_off() {
    let mut torn = 0;
    for seed in 0..40 {
        let mut group = Cluster::with(GroupOptions::of(3).with_seed(seed));
        let client = group.client();
        for _ in 0..30 {
            client.request(add("k", 1));
        }
        group.run_for(Duration::from_micros(2100 + seed * 10));
        group.crash(R2);
        group.restart(R2);
        group.heal_and_converge();
        torn += group.disk(R2).torn();
    }
    assert!(torn > 0, "no crash tore a write");
}

/// S52: a sync fails. The node stops; after a restart nothing acknowledged is missing.
#[test]
pub(crate) fn a_replica_whose_sync_failed_stops() {
    for failing in [R0, R1] {
        let mut group = Cluster::of(3);
        let client = group.client();
        group.disk(failing).fail_next_sync();
        let call = client.request(put("k", 1));
        group.run_until(|group| group.stop_reason(failing).is_some());
        group.run_until_answered(call);
        group.heal_and_converge();
        assert_eq!(group.committed(), [call]);
    }
}

/// A sync failed, and nobody has heard of it yet when the disk is mended. The replica is back all
/// the same.
#[test]
fn a_failure_that_is_heard_of_late_stops_nobody_for_good() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.disk(R1).fail_next_sync();
    let call = client.request(put("k", 1));
    group.run_until(|group| group.disk(R1).has_failed());
    assert!(group.stop_reason(R1).is_none());
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S53: a disk is full. The node stops and says so; the others go on.
#[test]
pub(crate) fn a_replica_whose_disk_is_full_stops_and_says_so() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let used = group.disk(R1).files().iter().map(|(_, length)| length).sum();
    group.disk(R1).set_faults(DiskFaults { capacity: used, ..DiskFaults::none() });
    let text = "x".repeat(2000);
    while group.stop_reason(R1).is_none() {
        let calls = [(); 50].map(|()| client.request(put(&text, 1)));
        group.run_until(|group| calls.iter().all(|call| group.ended(*call).is_some()));
    }
    let reason = group.stop_reason(R1).unwrap();
    assert!(reason.contains("no space left"), "{reason}");
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.heal_and_converge();
}

/// S48: a disk loses, misplaces or rots a record that was acknowledged. Started again, the replica
/// says so and speaks no word, unless only padding rotted; the others go on with everything.
#[test]
fn a_replica_with_a_damaged_log_does_not_speak() {
    for damage in Damage::ALL {
        let mut refused = 0;
        for seed in 0..16 {
            let mut group = Cluster::with(GroupOptions::of(3).with_seed(seed));
            group.keep_disk_history();
            let client = group.client();
            for _ in 0..20 {
                let call = client.request(add("k", 1));
                group.run_until_answered(call);
            }
            assert!(group.damage_log(R1, damage));
            group.crash(R1);
            group.restart(R1);
            group.run_until(|group| group.is_damaged(R1) || group.is_running(R1));
            refused += u32::from(group.is_damaged(R1));
            let call = client.request(add("k", 1));
            group.run_until_answered(call);
            assert_eq!(group.reply_of(call), Some(Some(21)));
            group.heal_and_converge();
        }
        assert!(refused > 1, "{damage:?}: {refused} of 16");
    }
}

/// S51: one copy of the superblock rots; the other one counts.
#[test]
fn one_rotten_copy_of_the_superblock_is_survived() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.damage_superblock(R1);
    group.crash(R1);
    group.restart(R1);
    group.heal_and_converge();
    assert_eq!(group.sound(), [R0, R1, R2]);
}

/// S85: one sync makes a batch durable, however many operations are in it.
#[test]
fn operations_that_come_together_share_a_sync() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let syncs_for = |group: &mut Cluster<_>, together: usize| {
        let before = group.disk(R1).syncs();
        for _ in 0..60 / together {
            let calls: Vec<_> = (0..together).map(|_| client.request(add("k", 1))).collect();
            group.run_until(|group| calls.iter().all(|call| group.ended(*call).is_some()));
        }
        group.disk(R1).syncs() - before
    };
    let (alone, together) = (syncs_for(&mut group, 1), syncs_for(&mut group, 20));
    assert!((58..=62).contains(&alone), "{alone} syncs for 60 operations, one after the other");
    assert!(together <= 12, "{together} syncs for 60 operations, twenty at a time");
    group.heal_and_converge();
}
