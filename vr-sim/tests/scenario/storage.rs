//! Disks that tear, fail and fill up.

use core::time::Duration;

use vr_core::{
    Config, Durability, OpNumber, View,
    model::{durable::Trust, kind::Kind, message::StatusKind, types::ReplicaId},
};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    disk::{damage::Damage, faults::DiskFaults},
    network::selection::Messages,
    options::GroupOptions,
    workload::{Kv, add, put},
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

/// How much of `limit` a replica uses.
fn used(group: &Cluster<Kv>, replica: ReplicaId, limit: &str) -> u64 {
    let queues = group.status(replica).queues;
    queues.iter().find(|queue| queue.limit == limit).expect("a limit").used
}

/// The disk of a backup stalls while the others go on: what it holds in memory stays within its
/// limit, nobody leaves the view, and it catches up when the disk is back.
#[test]
fn a_backup_whose_disk_stalls_holds_no_more_than_it_may() {
    let mut config = Config::default();
    (config.request_bytes_max, config.pipeline_bytes_max) = (8 << 10, 16 << 10);
    config.message_bytes_max = 160 << 10;
    config.transfer_bytes_max = 16 << 10;
    config.transfer_headers_max = 64;
    config.pipeline_ops_max = 64;
    config.execute_ops_max = 64;
    config.checkpoint_ops = 0;
    config.undurable_bytes_max = 64 << 10;
    let mut group = Cluster::with(GroupOptions::of(3).with_config(config));
    let client = group.client();
    let text = "x".repeat(2000);
    group.hold_storage(R2);
    let (mut most, limit) = (0, "undurable_bytes_max");
    for _ in 0..50 {
        let calls = [(); 5].map(|()| client.request(put(&text, 1)));
        group.run_until(|group| calls.iter().all(|call| group.ended(*call).is_some()));
        most = most.max(used(&group, R2, limit));
    }
    let reached = group.status(R0).op_number;
    assert!((64 << 10..80 << 10).contains(&most), "{most} bytes in memory, of half a megabyte");
    assert!(group.status(R2).op_number < OpNumber(reached.0 / 3), "the rest was let go");
    group.run_for_heartbeats(20);
    assert_eq!(
        (used(&group, R2, limit), group.view()),
        (most, View(0)),
        "nothing more is asked for"
    );
    group.release_storage(R2);
    group.run_until(|group| group.status(R2).durable_op_number == reached);
    assert_eq!(used(&group, R2, limit), 0);
    group.heal_and_converge();
}

/// Twenty operations, one after the other, that everybody has executed.
fn twenty(options: GroupOptions) -> Cluster<Kv> {
    let mut group = Cluster::with(options);
    group.keep_disk_history();
    let client = group.client();
    for _ in 0..20 {
        let call = client.request(add("k", 1));
        group.run_until_answered(call);
    }
    group.run_until_converged();
    group
}

/// S48: a disk loses, misplaces or rots a record that was acknowledged. Started again, the replica
/// gets it from the others, and is what it was.
#[test]
fn a_damaged_log_is_repaired_by_the_others() {
    for damage in Damage::ALL {
        let mut repaired = 0;
        for seed in 0..16 {
            let mut group = twenty(GroupOptions::of(3).with_seed(seed));
            assert!(group.damage_log(R1, damage));
            group.crash(R1);
            group.restart(R1);
            let call = group.client().request(add("k", 1));
            group.run_until_answered(call);
            assert_eq!(group.reply_of(call), Some(Some(21)));
            group.heal_and_converge();
            assert_eq!(group.sound(), [R0, R1, R2]);
            repaired += group.repaired_at(R1);
        }
        assert!(repaired > 1, "{damage:?}: {repaired}");
    }
}

/// A replica whose log has holes says nothing that rests on it, however long nobody can fill them;
/// it is told from one that has everything, and goes on by itself when the others are back.
#[test]
fn a_replica_with_holes_waits_for_whoever_has_what_is_missing() {
    let mut group = twenty(GroupOptions::of(3).with_seed(3));
    group.crash_all();
    assert!(group.damage_log(R1, Damage::Lost));
    group.start(R1);
    group.run_for(Duration::from_secs(5));
    let status = group.status(R1);
    assert_eq!((status.status, status.incomplete), (StatusKind::Recovering, true));
    let (_, _, ops) = status.damaged.unwrap();
    assert!(ops > 0 && status.repair_asked.len() == 2);
    let explained = group.explanation(R1);
    for part in ["are damaged", "asked without success since the last repair: 0, 2"] {
        assert!(explained.contains(part), "{explained}");
    }
    group.start(R2);
    group.run_until_normal();
    group.start(R0);
    group.heal_and_converge();
    assert_eq!(group.status(R1).damaged, None);
}

/// Two of three acknowledged; the one that comes back has them damaged, the other never had them.
/// Together they are a quorum, and must not start a view without what the third one holds.
#[test]
pub(crate) fn what_is_damaged_is_not_voted_away() {
    let mut group = Cluster::of(3);
    group.run_until_normal();
    let client = group.client();
    let call = client.request(add("k", 1));
    group.run_until_answered(call);
    group.run_until_converged();
    group.crash(R2);
    for _ in 0..9 {
        let call = client.request(add("k", 1));
        group.run_until_answered(call);
    }
    group.crash_all();
    assert!(group.rot_entry(R1, OpNumber(7)));
    group.start(R1);
    group.start(R2);
    group.run_for(Duration::from_secs(5));
    assert!(group.status(R1).incomplete);
    group.start(R0);
    group.heal_and_converge();
    let call = group.client().request(add("k", 1));
    group.run_until_answered(call);
    assert_eq!(group.reply_of(call), Some(Some(11)));
}

/// What only a primary had that was cut off is damaged on its disk; the others are in view 1.
fn beyond_repair() -> Cluster<Kv> {
    let mut group = twenty(GroupOptions::of(3));
    let client = group.client();
    group.run_until_converged();
    let last = group.status(R0).op_number;
    group.crash(R1);
    group.crash(R2);
    let calls = [(); 9].map(|()| {
        let call = client.request(add("k", 1));
        group.run_for(Duration::from_millis(8));
        call
    });
    assert!(group.status(R0).durable_op_number > last.plus(2));
    group.crash(R0);
    group.start(R1);
    group.start(R2);
    group.run_until_normal();
    assert!(group.rot_entry(R0, last.next()));
    assert!(calls.iter().all(|call| group.ended(*call).is_none()));
    group
}

/// Nobody can repair what nobody else ever had, and nobody needs it: the log of a later view takes
/// its place.
#[test]
fn what_nobody_else_ever_had_is_replaced_by_a_later_view() {
    let mut group = beyond_repair();
    group.start(R0);
    group.heal_and_converge();
    assert_eq!(group.status(R0).damaged, None);
}

/// The same replica has promised a view that the others never came to: they are called there.
#[test]
fn a_replica_beyond_repair_calls_the_group_to_the_view_that_it_has_promised() {
    let mut group = beyond_repair();
    let view = group.status(R1).view;
    // Both vote to leave their view, and only the third one hears of both votes; then they find each
    // other again.
    let votes = || Messages::of([Kind::StartViewChange]);
    let unheard = [votes().from(R1).to(R2), votes().from(R2).to(R1)];
    let unheard = unheard.map(|votes| group.lose(votes));
    let apart = [Messages::all().from(R1).to(R2), Messages::all().from(R2).to(R1)];
    let apart = apart.map(|messages| group.lose(messages));
    let start = group.lose(Messages::of([Kind::StartView]).to(R0));
    group.start(R0);
    group.run_for(Duration::from_millis(20));
    group.run_until(|group| group.status(R0).view > view);
    assert_eq!((group.status(R1).view, group.status(R2).view), (view, view));
    for rule in apart {
        group.release(rule);
    }
    group.run_until(|group| [R1, R2].iter().any(|replica| group.status(*replica).serving));
    group.run_for_heartbeats(8);
    for rule in unheard.into_iter().chain([start]) {
        group.release(rule);
    }
    group.heal_and_converge();
    assert_eq!(group.status(R0).damaged, None);
}

/// S50: everybody's log is damaged, each in another place. Everybody serves what it has while it
/// asks for what it lacks, and the group is whole again.
#[test]
fn logs_damaged_in_different_places_repair_each_other() {
    for seed in 0..24 {
        let mut group = twenty(GroupOptions::of(3).with_seed(seed));
        group.crash_all();
        for (replica, op_number) in [(R0, 5), (R1, 11), (R2, 17)] {
            assert!(group.rot_entry(replica, OpNumber(op_number)), "seed {seed}");
        }
        group.start_all();
        group.run_until_normal();
        let call = group.client().request(add("k", 1));
        group.run_until_answered(call);
        assert_eq!(group.reply_of(call), Some(Some(21)), "seed {seed}");
        group.heal_and_converge();
        for replica in [R0, R1, R2] {
            assert!(group.repaired_at(replica) > 0, "seed {seed}, r{replica}");
        }
    }
}

/// Damage is found while the replica runs: by a peer's question, by execution, or because the
/// replica reads its log again when it is idle. The node goes on.
#[test]
fn latent_damage_is_found_before_it_is_needed() {
    let mut scrubbing = Config::default();
    scrubbing.scrub_interval = Duration::from_secs(2);
    let mut group = twenty(GroupOptions { config: scrubbing, ..GroupOptions::of(3) });
    for replica in [R0, R1] {
        assert!(group.rot_entry(replica, OpNumber(7)));
    }
    group.run_until(|group| group.repaired_at(R0) == 1 && group.repaired_at(R1) == 1);
    group.crash_all();
    group.start_all();
    group.heal_and_converge();
    assert_eq!((group.repaired_at(R0), group.repaired_at(R1)), (0, 0), "nothing is left to do");
}

/// Where storage has no log, reading it again reads nothing, and nobody minds.
#[test]
fn a_log_in_memory_is_not_looked_for_on_disk() {
    for durability in [Durability::ViewOnly, Durability::Diskless] {
        let mut scrubbing = Config::default();
        scrubbing.scrub_interval = Duration::from_secs(2);
        let options = GroupOptions::of(3).with_durability(durability).with_config(scrubbing);
        let mut group = twenty(options);
        let before = [R0, R1, R2].map(|id| group.disk(id).syncs());
        group.run_for(Duration::from_secs(7));
        assert!([R0, R1, R2].into_iter().all(|id| group.is_running(id)));
        assert_eq!([R0, R1, R2].map(|id| group.disk(id).syncs()), before, "no view changed");
        group.heal_and_converge();
    }
}

/// S49: so much of a log is gone that nobody can say what it held. The replica is lost, durably,
/// until the primary gives it the log back.
#[test]
pub(crate) fn a_log_that_cannot_be_identified_is_lost_until_it_is_given_back() {
    let mut group = twenty(GroupOptions::of(3));
    let answers = group.lose(Messages::of([Kind::RecoveryResponse]).to(R1));
    group.crash(R1);
    group.lose_log(R1);
    for _ in 0..2 {
        group.start(R1);
        group.run_for(Duration::from_secs(1));
        let status = group.status(R1);
        assert_eq!((status.status, status.trust), (StatusKind::Recovering, Trust::Lost));
        assert_eq!(status.op_number, OpNumber::ZERO);
        group.crash(R1);
    }
    group.start(R1);
    group.release(answers);
    group.heal_and_converge();
    assert_eq!((group.status(R1).trust, group.view()), (Trust::Intact, View(0)));
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
