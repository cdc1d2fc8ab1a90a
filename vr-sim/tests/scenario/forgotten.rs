//! Replicas without disks: each start is that of one that forgot everything.

use vr_core::{
    Durability, ReplicaId, View,
    model::{kind::Kind, message::StatusKind},
};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2, R3, R4},
    network::selection::Messages,
    options::GroupOptions,
    workload::{Kv, add, put},
};

/// A group without disks.
fn group_of(replicas: u64) -> Cluster<Kv> {
    Cluster::with(GroupOptions::of(replicas).with_durability(Durability::Diskless))
}

fn is_back(group: &Cluster<Kv>, id: ReplicaId) -> bool {
    group.status_if_running(id).is_some_and(|status| status.status == StatusKind::Normal)
}

/// A replica that restarts gets everything from the others, in another incarnation.
#[test]
pub(crate) fn a_restarted_replica_gets_everything_from_the_others() {
    let mut group = group_of(3);
    let client = group.client();
    let first = client.request(add("k", 1));
    group.run_until_answered(first);
    for lives in 1..4 {
        group.crash(R2);
        group.restart(R2);
        group.run_until(|group| group.applied(R2) == [first]);
        assert_eq!(group.status(R2).incarnation.0, lives);
    }
    group.heal_and_converge();
    assert_eq!(group.view(), View(0));
}

/// S35 without disks: of two primaries one wins, although the replica between them is new.
#[test]
pub(crate) fn of_two_primaries_without_disks_one_wins() {
    let mut group = group_of(3);
    let (old, new) = (group.client(), group.client());
    group.partition([R0.into(), old.actor()]);
    let stuck = old.request(put("k", 1));
    let done = new.request(put("k", 2));
    group.run_until_answered(done);
    assert!(group.ended(stuck).is_none());
    group.crash(R2);
    group.restart(R2);
    group.heal();
    group.run_until_normal();
    assert!(group.view() > View(0));
    group.heal_and_converge();
    assert_eq!(group.committed(), [done, stuck]);
}

/// S01: a promise of an earlier life of replica 0 reaches replica 2 after replica 0 came back and
/// acknowledged in the view before.
#[test]
pub(crate) fn a_promise_of_an_earlier_life_starts_no_view() {
    let mut group = group_of(3);
    let client = group.client();
    group.isolate(R0);
    group.run_until(|group| group.view() == View(1));
    group.heal();
    group.run_until_converged();
    let promise = group.hold(Messages::of([Kind::DoViewChange]).from(R0));
    let silence = group.lose(Messages::of([Kind::Commit, Kind::Prepare]));
    group.lose(Messages::of([Kind::StartViewChange]).to(R1));
    group.lose(Messages::of([Kind::StartViewChange]).to(R2));
    group.run_until(|group| group.status(R0).view > View(1));
    let promised = group.status(R0).view;
    let quiet = group.lose(Messages::all().from(R0));
    group.crash(R0);
    group.release(silence);
    group.run_for_heartbeats(1);
    group.release(quiet);
    group.lose(Messages::of([Kind::Prepare, Kind::Entries]).to(R2));
    group.restart(R0);
    group.run_until(|group| is_back(group, R0));
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    assert_eq!((promised, group.stamp_of(call).unwrap().0), (View(2), View(1)));
    group.release(promise);
    group.run_for_heartbeats(1);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S02: a promise of an earlier life is counted before that is known, and dropped when it is.
#[test]
pub(crate) fn a_promise_is_dropped_when_a_later_life_becomes_known() {
    let mut group = group_of(5);
    let client = group.client();
    group.run_for_heartbeats(10);
    let promise = group.hold(Messages::of([Kind::DoViewChange]).from(R2));
    let silence = group.lose(Messages::of([Kind::Commit, Kind::Prepare]));
    for id in [R0, R1, R3, R4] {
        group.lose(Messages::of([Kind::StartViewChange]).to(id));
    }
    group.run_until(|group| group.status(R2).view == View(1));
    group.lose(Messages::of([Kind::StartViewChange]).to(R2));
    let quiet = group.lose(Messages::all().from(R2));
    group.isolate(R1);
    group.crash(R2);
    group.release(silence);
    group.run_for_heartbeats(1);
    group.release(quiet);
    group.lose(Messages::of([Kind::Prepare, Kind::Entries]).to(R3));
    group.restart(R2);
    group.run_until(|group| is_back(group, R2));
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.network().heal_link(R2.into(), R1.into());
    assert!(group.network().held(promise) > 0);
    group.release(promise);
    group.network().cut(R2.into(), R1.into());
    group.connect(R1, R3);
    group.run_for_heartbeats(10);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S13: an answer to the question of an earlier life arrives in a later one.
#[test]
pub(crate) fn an_answer_to_an_earlier_life_is_not_believed() {
    let mut group = group_of(3);
    let client = group.client();
    group.network().keep_history();
    group.crash(R2);
    group.restart(R2);
    group.run_until_converged();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R2);
    group.lose(Messages::of([Kind::Recovery]).from(R2));
    group.restart(R2);
    group.run_for_heartbeats(5);
    assert!(group.network().replay(&Messages::of([Kind::RecoveryResponse]).to(R2)) > 0);
    group.run_for_heartbeats(5);
    assert!(!is_back(&group, R2));
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// The primary of a view that others have left is no witness for where the group is.
#[test]
pub(crate) fn the_word_of_one_primary_is_not_enough() {
    let mut group = group_of(3);
    let (old, new) = (group.client(), group.client());
    group.partition([R0.into(), old.actor()]);
    let kept = new.request(put("kept", 1));
    group.run_until_answered(kept);
    let signs = [Kind::Commit, Kind::Prepare, Kind::Ping, Kind::Pong, Kind::RecoveryResponse];
    group.lose(Messages::of(signs).from(R1).to(R2));
    group.crash(R2);
    group.connect(R0, R2);
    group.restart(R2);
    let stuck = old.request(put("stray", 1));
    group.run_for_heartbeats(20);
    group.heal_and_converge();
    assert_eq!(group.committed(), [kept, stuck]);
}

/// S24: all replicas are lost at once. No empty group takes their place, and `explain()` says what
/// would help.
#[test]
pub(crate) fn a_group_that_is_lost_is_not_founded_again() {
    let mut group = group_of(3);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash_all();
    group.start_all();
    group.run_for_heartbeats(200);
    for id in [R0, R1, R2] {
        assert_eq!(group.status(id).status, StatusKind::Blank);
        assert!(group.explanation(id).contains("Genesis::Found"), "{}", group.explanation(id));
    }
}

/// More replicas were lost at once than a minority: the others do not bring them back.
#[test]
pub(crate) fn a_minority_brings_nobody_back() {
    let mut group = group_of(5);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    for id in [R2, R3, R4] {
        group.crash(id);
    }
    group.start_all();
    group.run_for_heartbeats(100);
    assert!([R2, R3, R4].into_iter().all(|id| !is_back(&group, id)));
    assert_eq!(group.committed(), [call]);
}

/// S26: the primary of the next view has forgotten everything. The group goes to the view after.
#[test]
pub(crate) fn a_replica_that_forgot_everything_is_not_elected() {
    let mut group = group_of(5);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R1);
    let answers = group.lose(Messages::of([Kind::RecoveryResponse]).to(R1));
    group.restart(R1);
    group.run_for_heartbeats(6);
    group.crash(R0);
    group.run_until_normal();
    assert_eq!((group.view(), group.primary()), (View(2), R2));
    group.release(answers);
    group.run_until(|group| group.applied(R1) == [call]);
    group.heal_and_converge();
}

/// Replicas restart one after the other, again and again, under load.
#[test]
pub(crate) fn one_restart_after_the_other_loses_nothing() {
    let mut group = group_of(3);
    let client = group.client();
    let calls: Vec<_> = (0..90).map(|_| client.request(add("k", 1))).collect();
    for round in 0..9 {
        group.run_until(|group| group.reply_of(calls[round * 10]).is_some());
        let id = ReplicaId(u64::try_from(round % 3).unwrap_or(0));
        group.run_until(|group| group.can_spare(id));
        group.crash(id);
        group.restart(id);
    }
    group.heal_and_converge();
    assert_eq!(group.committed(), calls);
}
