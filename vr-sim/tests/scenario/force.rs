//! Groups that lost too much, and the operator who lets them go on without it.

use vr_core::{
    Config, Durability, ReplicaId, RequestError,
    model::types::{Epoch, OpNumber},
};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2, R3, R4, client::Ended},
    options::GroupOptions,
    workload::{Kv, put},
};

/// `replica` has stopped, because the group was restarted by force without it.
fn is_fenced(group: &Cluster<Kv>, replica: ReplicaId) -> bool {
    let why = group.stop_reason(replica);
    why.is_some_and(|why| why.contains("the group was restarted by force as epoch 1"))
}

/// Everybody says after which op something may be missing.
fn assert_remembered(group: &Cluster<Kv>, op_number: OpNumber) {
    for status in group.statuses() {
        let forced: Vec<_> = status.inherited.iter().map(|it| (it.epoch, it.op_number)).collect();
        assert_eq!(forced, [(Epoch(1), op_number)], "r{}", status.replica);
        assert_eq!(status.epoch, Epoch(1));
    }
}

/// S23 to its end: both replicas that have an operation crash within a round trip. The one that is
/// left blocks, until the operator gives that operation up. The client's session, which was told
/// more than the group knows, ends; the next one works.
#[test]
pub(crate) fn a_blocked_group_goes_on_in_a_new_epoch_and_says_what_it_may_have_lost() {
    let options = GroupOptions::of(3).with_durability(Durability::ViewOnly);
    let mut group = Cluster::with(options);
    let client = group.client();
    let kept = client.request(put("k", 1));
    group.run_until_answered(kept);
    group.run_until(|group| group.applied(R2) == [kept]);
    let head = group.place_of(kept).unwrap();
    group.isolate(R2);
    let lost = client.request(put("k", 2));
    group.run_until_answered(lost);
    group.crash(R0);
    group.crash(R1);
    group.heal();
    group.start_all();
    group.run_for_heartbeats(100);
    assert!(group.working_primary().is_none(), "it blocks");

    group.unsafe_restart(R2, &[]);
    group.start_all();
    let early = client.request(put("k", 3));
    group.run_until_answered(early);
    let ended = group.ended(early);
    assert!(matches!(ended, Some(Ended::Failed(RequestError::ClientEvicted { .. }))), "{ended:?}");
    let later = client.request(put("k", 4));
    group.run_until_answered(later);
    group.heal_and_converge();
    assert_eq!(group.committed(), [kept, later]);
    assert_remembered(&group, head);
}

/// What one replica holds is a checkpoint and a little log: the group goes on with both.
#[test]
pub(crate) fn a_group_goes_on_from_a_checkpoint_and_the_log_behind_it() {
    for durability in Durability::ALL {
        let mut config = Config::default();
        config.checkpoint_ops = 10;
        config.log_retain_ops = 0;
        let options = GroupOptions::of(3).with_durability(durability).with_config(config);
        let mut group = Cluster::<Kv>::with(options);
        let client = group.client();
        for value in 0..34 {
            let call = client.request(put("k", value));
            group.run_until_answered(call);
        }
        group.run_for_heartbeats(4);
        let base = group.status(R2).log_base;
        assert!(base >= OpNumber(30), "the log starts after a checkpoint, at {base}");
        let head = group.status(R2).op_number;
        group.isolate(R2);
        group.crash(R0);
        group.crash(R1);

        group.unsafe_restart(R2, &[]);
        group.heal();
        group.start_all();
        let early = client.request(put("k", 100));
        group.run_until_answered(early);
        let later = client.request(put("k", 101));
        group.run_until_answered(later);
        for value in 0..20 {
            let call = client.request(put("k", value));
            group.run_until_answered(call);
        }
        group.heal_and_converge();
        assert_remembered(&group, head);
        assert!(group.status(R1).log_base > head, "the new epoch takes checkpoints, too");
    }
}

/// A member that was given up runs on, cut off, with its log in memory and its promises on disk. It
/// is not heard, is told, stops, and does not come back on its old disk.
#[test]
pub(crate) fn a_member_that_was_given_up_takes_part_in_nothing() {
    let options = GroupOptions::of(3).with_durability(Durability::ViewOnly);
    let mut group = Cluster::with(options);
    group.isolate(R0);
    let made = group.unsafe_restart(R2, &[R0]);
    group.start(R1);
    group.start(R2);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.heal();
    group.run_until(|group| is_fenced(group, R0));
    group.crash(R0);
    for (id, disk) in made {
        group.replace_disk(id, disk);
    }
    group.heal_and_converge();
    assert_eq!(group.applied(R0), [call]);
}

/// The old members are a majority, they work, and acknowledge. As soon as a single one of the new
/// epoch is heard they stop, before there are enough of the new ones to work; their disks count no
/// more, also where nobody is heard.
#[test]
pub(crate) fn an_old_majority_stops_at_the_word_of_one() {
    let mut group = Cluster::of(5);
    let client = group.client();
    let kept = client.request(put("k", 1));
    group.run_until_answered(kept);
    group.run_until(|group| group.applied(R3) == [kept] && group.applied(R4) == [kept]);
    let old = [R0, R1, R2];
    group.partition(old.map(Into::into));
    let made = group.unsafe_restart(R3, &old);
    group.start(R3);
    group.run_until(|group| group.working_primary().is_some_and(|id| old.contains(&id)));

    group.heal();
    group.run_until(|group| old.iter().all(|id| is_fenced(group, *id)));
    group.isolate(R3);
    for id in old {
        group.crash(id);
        group.start(id);
    }
    group.run_for_heartbeats(40);
    assert!(old.iter().all(|id| is_fenced(&group, *id)), "they are no group of their own");

    for (id, disk) in made {
        group.crash(id);
        group.replace_disk(id, disk);
    }
    group.heal_and_converge();
    assert_eq!(group.committed(), [kept]);
    let call = group.client().request(put("k", 2));
    group.run_until_answered(call);
    group.heal_and_converge();
    assert_eq!(group.committed(), [kept, call]);
}

/// A disk that is wiped in a group that was restarted by force gets the inherited log back, too.
#[test]
pub(crate) fn a_wiped_disk_of_a_forced_epoch_gets_everything_back() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let kept = client.request(put("k", 1));
    group.run_until_answered(kept);
    group.run_until(|group| group.applied(R1) == [kept]);
    group.unsafe_restart(R1, &[]);
    group.start_all();
    group.run_until_converged();
    let head = group.place_of(kept).unwrap();
    group.wipe(R0);
    group.restart(R0);
    group.run_until(|group| group.rebuilds() == 1);
    group.heal_and_converge();
    assert_eq!(group.applied(R0), [kept]);
    assert_remembered(&group, head);
}
