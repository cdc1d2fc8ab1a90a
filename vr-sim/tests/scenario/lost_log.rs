//! Replicas that lost their log and not their promises: what they may do, and when the group blocks.

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

/// A group whose logs are in memory.
fn group_of(replicas: u64) -> Cluster<Kv> {
    Cluster::with(GroupOptions::of(replicas).with_durability(Durability::ViewOnly))
}

/// Nothing starts for as long as twenty view changes take.
fn assert_blocked(group: &mut Cluster<Kv>, lost: ReplicaId) {
    group.run_for_heartbeats(100);
    let serving = group.statuses().into_iter().filter(|status| status.serving).count();
    assert_eq!(serving, 0);
    let why = group.explanation(lost);
    assert!(why.contains("lost its log in a crash"), "{why}");
}

/// Lets replica 2 promise view 1 while replica 1 stays; its votes for view 1 are under way.
fn promised_by_r2(group: &mut Cluster<Kv>) {
    group.hold(Messages::of([Kind::DoViewChange]).from(R2).in_view(View(1)));
    let news = [Kind::Ping, Kind::Pong, Kind::GetView, Kind::StartViewChange];
    let quiet = group.lose(Messages::of(news).from(R2));
    let silence = group.lose(Messages::of([Kind::Commit, Kind::Prepare]));
    group.run_until(|group| group.status(R2).durable_view == View(1));
    group.crash(R2);
    group.release(quiet);
    group.release(silence);
}

/// R1: a backup that restarts asks the primary, and has everything before the next view.
#[test]
pub(crate) fn a_restarted_backup_gets_its_log_from_the_primary() {
    let mut group = group_of(3);
    let client = group.client();
    let first = client.request(add("k", 1));
    group.run_until_answered(first);
    group.crash(R2);
    group.restart(R2);
    group.run_until(|group| group.applied(R2) == [first]);
    let second = client.request(add("k", 1));
    group.run_until_answered(second);
    group.heal_and_converge();
    assert_eq!(group.view(), View(0));
}

/// S27 with logs in memory: only one side of a split commits.
#[test]
pub(crate) fn a_minority_commits_nothing_from_memory() {
    let mut group = group_of(3);
    let (minority, majority) = (group.client(), group.client());
    group.partition([R0.into(), minority.actor()]);
    let stuck = minority.request(put("k", 1));
    let done = majority.request(put("k", 2));
    group.run_until_answered(done);
    group.run_until(|group| !group.status(R0).serving);
    assert!(group.ended(stuck).is_none());
    group.heal_and_converge();
    assert_eq!(group.committed(), [done, stuck]);
}

/// S03: a promise under way when its sender crashes binds the sender afterwards; the primary takes
/// the group to a view that keeps it.
#[test]
pub(crate) fn a_promise_binds_whoever_forgot_its_log() {
    let mut group = group_of(3);
    let client = group.client();
    promised_by_r2(&mut group);
    group.isolate(R1);
    group.restart(R2);
    let call = client.request(put("k", 1));
    group.run_for_heartbeats(30);
    group.isolate(R0);
    group.connect(R1, R2);
    group.lose(Messages::all().from(R2).to(R1));
    group.network().replay(&Messages::of([Kind::DoViewChange]).from(R2).in_view(View(1)));
    group.run_for_heartbeats(10);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
    assert!(group.view() >= View(3), "of view 3 replica 0 is primary");
}

/// S01 where promises are on disk: the promise to a later view is under way when its sender crashes.
/// It does not go back to the view before, so that what commits meanwhile commits without it.
#[test]
pub(crate) fn a_promise_under_way_is_kept_by_the_disk() {
    for durability in [Durability::Full, Durability::ViewOnly] {
        let mut group = Cluster::with(GroupOptions::of(3).with_durability(durability));
        let client = group.client();
        group.isolate(R0);
        group.run_until(|group| group.view() == View(1));
        group.heal();
        group.run_until_converged();
        let promise = group.hold(Messages::of([Kind::DoViewChange]).from(R0));
        group.lose(Messages::of([Kind::StartViewChange]).to(R1));
        group.lose(Messages::of([Kind::StartViewChange]).to(R2));
        let silence = group.lose(Messages::of([Kind::Commit, Kind::Prepare]));
        group.run_until(|group| group.status(R0).durable_view == View(2));
        group.crash(R0);
        group.release(silence);
        group.lose(Messages::of([Kind::Prepare, Kind::Entries]).from(R1).to(R2));
        group.restart(R0);
        let call = client.request(put("k", 1));
        group.run_until_answered(call);
        assert!(group.view() > View(1), "r0 acknowledges nothing in view 1");
        group.release(promise);
        group.heal_and_converge();
        assert_eq!(group.committed(), [call]);
    }
}

/// S04: an operation was acknowledged by a replica that lost it and one that is away. Whoever is
/// left blocks, and says why; it goes on when the other one is back.
#[test]
pub(crate) fn a_group_blocks_where_something_may_be_lost() {
    let mut group = group_of(3);
    let client = group.client();
    group.isolate(R2);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R0);
    group.heal();
    group.isolate(R1);
    group.restart(R0);
    assert_blocked(&mut group, R0);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S05, condition 2 of 1988: what a replica lost is older than what the others have.
#[test]
pub(crate) fn a_log_lost_in_an_earlier_view_stops_nobody() {
    let mut group = group_of(3);
    let client = group.client();
    group.crash(R2);
    let silence = group.lose(Messages::of([Kind::Commit, Kind::Prepare]).from(R0));
    group.run_until(|group| group.status(R1).log_view == View(1));
    group.release(silence);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    assert_eq!(group.stamp_of(call).unwrap().0, View(1));
    group.isolate(R1);
    group.restart(R2);
    group.run_until(|group| group.status(R0).serving);
    assert_eq!(group.view(), View(3));
    group.run_until(|group| group.applied(R2) == [call]);
    group.heal_and_converge();
}

/// S06, condition 3 of 1988: the primary of the latest view has been up since, so it holds whatever
/// anybody lost.
#[test]
pub(crate) fn an_unbroken_primary_stands_for_what_was_lost() {
    let mut group = group_of(3);
    let client = group.client();
    group.isolate(R2);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.lose(Messages::of([Kind::RecoveryResponse]));
    group.crash(R1);
    group.restart(R1);
    group.run_until(|group| group.view() == View(3) && group.status(R0).serving);
    group.run_until(|group| group.applied(R1) == [call]);
    group.heal_and_converge();
}

/// S07: a late copy of the start of the very view whose log was lost is older than what was
/// acknowledged in it.
#[test]
pub(crate) fn a_late_start_of_its_own_view_is_no_log() {
    let mut group = group_of(3);
    let client = group.client();
    group.network().keep_history();
    group.isolate(R0);
    group.run_until(|group| group.view() == View(1) && group.status(R1).serving);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    let news = [Kind::Commit, Kind::Prepare, Kind::Ping, Kind::Pong, Kind::RecoveryResponse];
    group.lose(Messages::of(news).to(R2));
    group.crash(R2);
    group.restart(R2);
    group.run_until(|group| group.status_if_running(R2).is_some());
    let copies = group.network().replay(&Messages::of([Kind::StartView]).from(R1).to(R2));
    assert!(copies > 0);
    group.run_for_heartbeats(3);
    group.isolate(R1);
    group.connect(R0, R2);
    assert_blocked(&mut group, R2);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S08, in `Full`: the primary sends before its own disk has an operation, and restarts; one that
/// acknowledged it has lost its log. Neither stands for what the third has.
#[test]
pub(crate) fn a_primary_that_restarted_stands_for_nothing() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.hold_storage(R0);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R0);
    group.crash(R1);
    group.release_storage(R0);
    group.lose_log(R1);
    group.isolate(R2);
    group.start_all();
    assert_blocked(&mut group, R1);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S13: an answer to the question of an earlier life arrives in a later one.
#[test]
pub(crate) fn an_answer_to_an_earlier_life_is_no_log() {
    let mut group = group_of(3);
    let client = group.client();
    group.network().keep_history();
    group.crash(R2);
    group.restart(R2);
    group.run_until_converged();
    group.isolate(R1);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R2);
    group.isolate(R0);
    group.restart(R2);
    group.run_until(|group| group.status_if_running(R2).is_some());
    group.network().heal_link(R0.into(), R2.into());
    let copies = group.network().replay(&Messages::of([Kind::RecoveryResponse]).to(R2));
    assert!(copies > 0);
    group.isolate(R0);
    group.connect(R1, R2);
    assert_blocked(&mut group, R2);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S14: two replicas promised a view that never started, and crash. The primary of the view before
/// has everything, and takes them to a view that keeps their promise.
#[test]
pub(crate) fn a_promised_pair_comes_back_in_a_later_view() {
    let mut group = group_of(3);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.isolate(R0);
    let lost = group.lose(Messages::of([Kind::DoViewChange]));
    group.run_until(|group| [R1, R2].iter().all(|id| group.status(*id).durable_view == View(1)));
    group.crash(R1);
    group.crash(R2);
    group.release(lost);
    group.heal();
    group.start_all();
    group.run_until_normal();
    assert_eq!((group.view(), group.primary()), (View(3), R0));
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S15: a primary that restarts has no log and cannot lead; the others do not wait for a timeout.
#[test]
pub(crate) fn a_restarted_primary_is_left_at_once() {
    let mut group = group_of(3);
    let client = group.client();
    let first = client.request(put("k", 1));
    group.run_until_answered(first);
    group.crash_silently(R0);
    let crashed = group.now();
    group.restart(R0);
    group.run_until(|group| group.status(R1).serving);
    let timeout = group.options().config.suspicion_timeout;
    assert!(group.now().since(crashed) < timeout / 2, "{:?}", group.now().since(crashed));
    let second = client.request(put("k", 2));
    group.run_until_answered(second);
    assert!(group.stamp_of(second).unwrap().0 >= View(1));
    group.heal_and_converge();
    assert_eq!(group.committed(), [first, second]);
}

/// S22: a replica that knows what it should have, and does not have it, has still lost it.
#[test]
pub(crate) fn a_log_is_lost_until_all_of_it_is_back() {
    let mut group = group_of(5);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R4);
    let bodies = group.hold(Messages::of([Kind::Entries, Kind::Prepare]).to(R4));
    group.restart(R4);
    group.run_for_heartbeats(2);
    group.crash(R0);
    group.run_until_normal();
    group.run_for_heartbeats(10);
    let status = group.status(R4);
    assert_eq!((status.status, status.log_view), (StatusKind::Recovering, View(0)));
    group.release(bodies);
    group.run_until(|group| group.applied(R4) == [call]);
    group.heal_and_converge();
}

/// S23: both replicas that have an operation crash within a round trip. The one that is left does
/// not know of it and does not go on.
#[test]
pub(crate) fn two_quick_crashes_block_the_group() {
    let mut group = group_of(3);
    let client = group.client();
    group.isolate(R2);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R0);
    group.crash(R1);
    group.heal();
    group.start_all();
    assert_blocked(&mut group, R2);
    assert_eq!(group.committed(), [call]);
    assert!(group.applied(R2).is_empty());
}

/// S24: all replicas lose power at once. None of them has the log, and none makes one up.
#[test]
pub(crate) fn a_group_that_lost_power_blocks_and_says_so() {
    let mut group = group_of(3);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash_all();
    group.start_all();
    assert_blocked(&mut group, R1);
    let why = group.explanation(R1);
    assert!(why.contains("no replica that is up has a log"), "{why}");
    assert!([R0, R1, R2].into_iter().all(|id| group.applied(id).is_empty()));
}

/// S26: the primary of the next view is looking for its log. The group goes to the view after it.
#[test]
pub(crate) fn a_replica_without_its_log_is_not_elected() {
    let mut group = group_of(5);
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R1);
    group.lose(Messages::of([Kind::RecoveryResponse, Kind::StartView]).to(R1));
    group.restart(R1);
    group.run_for_heartbeats(6);
    group.crash(R0);
    group.run_until_normal();
    assert_eq!((group.view(), group.primary()), (View(2), R2));
    group.heal();
    group.run_until(|group| group.applied(R1) == [call] && group.applied(R3) == [call]);
    group.heal_and_converge();
}

/// Replicas restart one after the other, again and again, under load.
#[test]
pub(crate) fn one_restart_after_the_other_costs_nothing() {
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

/// S49: what is left of a lost log says nothing of the views that its replica took part in; its
/// superblock does.
#[test]
pub(crate) fn a_lost_log_counts_with_the_view_that_it_was_complete_in() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.run_for_heartbeats(4);
    group.hand_off(R0, Some(R1));
    group.run_until(|group| group.statuses().iter().all(|status| status.log_view == View(1)));
    group.run_for_heartbeats(4);
    group.isolate(R2);
    group.hand_off(R1, Some(R0));
    group.run_until(|group| group.status(R0).serving);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    assert_eq!(group.stamp_of(call).unwrap().0, View(3));
    group.crash(R0);
    group.lose_log(R0);
    group.heal();
    group.isolate(R1);
    group.restart(R0);
    group.run_for_heartbeats(100);
    assert!(group.statuses().iter().all(|status| !status.serving), "r2 lacks what is lost");
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}
