//! States on disk: what is there is used and not made again, whatever became of the log beside it.

use vr_core::{Config, Durability, OpNumber};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2, client::SimClient},
    options::GroupOptions,
    state_disk::StatePlace,
    workload::{Kv, add, get},
};

/// A group that makes its state durable every `persist_ops` ops, and takes a checkpoint every ten.
fn group(durability: Durability, persist_ops: u32) -> Cluster<Kv> {
    let mut config = Config::default();
    config.checkpoint_ops = 10;
    config.log_retain_ops = 0;
    config.persist_ops = persist_ops;
    let options = GroupOptions::of(3).with_durability(durability).with_config(config);
    Cluster::with(GroupOptions { state: StatePlace::Disk, ..options })
}

fn count(group: &mut Cluster<Kv>, client: &SimClient<Kv>, times: i64) {
    for _ in 0..times {
        let call = client.request(add("x", 1));
        group.run_until_answered(call);
    }
}

fn counted(group: &mut Cluster<Kv>, client: &SimClient<Kv>) -> Option<i64> {
    let call = client.query(get("x"));
    group.run_until_answered(call);
    group.answer_of(call).flatten()
}

/// Every replica goes on from its own disk after each loss of power, and what was executed since is
/// executed again, once; in the other modes one restarts at a time.
#[test]
fn a_restart_goes_on_from_the_state_on_disk() {
    for persist_ops in [1, 2, 7] {
        for durability in Durability::ALL {
            let mut group = group(durability, persist_ops);
            let client = group.client();
            for round in 1..=4 {
                count(&mut group, &client, 6);
                if durability == Durability::Full {
                    group.crash_all();
                    group.start_all();
                } else {
                    group.crash(R2);
                    group.restart(R2);
                }
                group.run_until_converged();
                assert_eq!(counted(&mut group, &client), Some(round * 6));
            }
            group.heal_and_converge();
            let restarts = if durability == Durability::Full { 12 } else { 4 };
            assert!(group.resumed_states() >= restarts - 3, "{durability}, {persist_ops}");
        }
    }
}

/// A replica that was shut down has everything on disk, however seldom it writes.
#[test]
fn a_shutdown_leaves_nothing_to_be_executed_again() {
    let mut group = group(Durability::Full, 0);
    let client = group.client();
    count(&mut group, &client, 3);
    group.run_for_heartbeats(3);
    assert_eq!(group.state_disk(R2).image(), None);
    let applied = group.status(R2).applied;
    group.shut_down(R2);
    group.run_until(|group| !group.is_running(R2));
    group.crash(R2);
    group.isolate(R2);
    group.restart(R2);
    group.run_until(|group| group.is_running(R2));
    group.run_for_heartbeats(1);
    assert_eq!(group.resumed_states(), 1);
    assert_eq!(group.status(R2).applied, applied, "without a word from the others");
    group.heal_and_converge();
}

/// An old copy of the state, one that is gone, and one whose companion is damaged: the checkpoint and
/// the log are there.
#[test]
fn a_state_that_is_of_no_use_is_made_again() {
    for meddled in 0..3 {
        let mut group = group(Durability::Full, 4);
        let client = group.client();
        count(&mut group, &client, 28);
        group.run_for_heartbeats(3);
        assert!(group.status(R1).log_base >= OpNumber(20));
        group.crash(R1);
        let disk = group.state_disk(R1);
        match meddled {
            0 => (0..3).for_each(|_| disk.put_back()),
            1 => disk.wipe(),
            _ => disk.rot(77),
        }
        group.restart(R1);
        count(&mut group, &client, 3);
        group.heal_and_converge();
        assert_eq!(group.resumed_states(), 0);
    }
}

/// The log is gone and the state is not: the replica does nothing until its log has come that far, and
/// then neither repeats nor omits anything. What it fetches of a checkpoint it does not restore.
#[test]
fn a_state_ahead_of_its_log_waits_for_it() {
    for durability in Durability::ALL {
        let mut group = group(durability, 1);
        let client = group.client();
        count(&mut group, &client, 35);
        group.run_for_heartbeats(3);
        group.crash(R2);
        if durability == Durability::Full {
            group.lose_log(R2);
        }
        count(&mut group, &client, 2);
        group.restart(R2);
        group.heal_and_converge();
        assert_eq!(group.resumed_states(), 1, "{durability}");
        count(&mut group, &client, 25);
        group.heal_and_converge();
    }
}

/// The log's disk is wiped and the state's is not, in a group that the replica has to be told of.
#[test]
fn a_state_outlives_the_disk_of_the_log() {
    let mut group = group(Durability::Full, 1);
    let client = group.client();
    count(&mut group, &client, 12);
    group.run_for_heartbeats(3);
    group.wipe(R1);
    group.restart(R1);
    count(&mut group, &client, 2);
    group.heal_and_converge();
    assert_eq!((group.rebuilds(), group.resumed_states()), (1, 1));
}

/// A state from before the group was restarted by force may hold what the group lost.
#[test]
fn a_state_of_an_epoch_that_was_given_up_is_of_no_use() {
    let mut group = group(Durability::Full, 1);
    let client = group.client();
    count(&mut group, &client, 5);
    group.isolate(R0);
    count(&mut group, &client, 4);
    let kept = group.unsafe_restart(R0, &[]);
    assert!(kept.is_empty());
    group.start_all();
    group.heal();
    let client = group.client();
    count(&mut group, &client, 3);
    group.heal_and_converge();
    assert_eq!(group.resumed_states(), 0);
}

/// What clients were told is on disk with the state: a session goes on, and nothing of it is executed
/// twice.
pub(crate) fn sessions_are_on_disk_with_the_state() {
    let mut group = group(Durability::Full, 1);
    let client = group.client();
    count(&mut group, &client, 3);
    group.run_for_heartbeats(3);
    group.crash_all();
    group.start_all();
    group.run_until_normal();
    let call = client.request(add("x", 1));
    group.run_until_answered(call);
    assert_eq!(group.reply_of(call), Some(Some(4)));
    group.heal_and_converge();
}

#[test]
fn sessions_go_on_from_disk() {
    sessions_are_on_disk_with_the_state();
}
