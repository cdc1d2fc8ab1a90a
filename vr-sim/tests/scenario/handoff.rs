//! Primaries that leave on purpose.

use core::time::Duration;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use vr_core::{
    Durability, View,
    model::{kind::Kind, types::ReplicaId},
};
use vr_sim::{
    cluster::{
        Cluster, R0, R1, R2,
        client::{CallId, Wanted},
    },
    disk::faults::DiskFaults,
    network::selection::Messages,
    options::GroupOptions,
    workload::{Kv, put},
};

/// A group of three whose clients have just asked for `count` things.
fn busy(durability: Durability, count: i64) -> (Cluster<Kv>, Vec<CallId>) {
    let mut group = Cluster::with(GroupOptions::of(3).with_durability(durability));
    let client = group.client();
    group.run_for_heartbeats(4);
    let calls: Vec<_> = (0..count).map(|value| client.request(put("x", value))).collect();
    group.run_until(|group| group.committed().len() > 1);
    (group, calls)
}

fn end_of(mut group: Cluster<Kv>, calls: &[CallId], view: View, primary: ReplicaId) {
    group.heal_and_converge();
    assert_eq!((group.view(), group.primary()), (view, primary));
    assert!(calls.iter().all(|call| group.reply_of(*call).is_some()), "no call failed");
}

/// S71: a hand-off under load. Nobody suspects anybody, and no call fails.
#[test]
fn a_primary_hands_off_under_load() {
    for durability in Durability::ALL {
        let (mut group, calls) = busy(durability, 20);
        let votes = group.hold(Messages::of([Kind::StartViewChange]));
        group.hand_off(R0, None);
        group.run_until(|group| group.pending().is_empty());
        group.release(votes);
        assert_eq!(group.handoffs(), 1);
        end_of(group, &calls, View(1), R1);
    }
}

/// S71: the announcement is lost; the promise of the primary that left says the same.
#[test]
fn a_lost_announcement_costs_nothing() {
    let (mut group, calls) = busy(Durability::Full, 20);
    group.lose(Messages::of([Kind::Handoff]));
    group.hand_off(R0, Some(R2));
    group.run_until(|group| group.view() == View(2));
    end_of(group, &calls, View(2), R2);
}

/// S71: the successor does not catch up: the primary goes on, and so do the requests that waited.
#[test]
fn a_successor_that_lags_is_given_up() {
    let (mut group, mut calls) = busy(Durability::Full, 20);
    let (client, base) = (group.client(), group.status(R0).op_number);
    group.hold(Messages::of([Kind::Prepare, Kind::Entries]).to(R1));
    calls.push(client.request(put("y", 1)));
    group.run_until(|group| group.status(R0).op_number > base);
    group.hand_off(R0, Some(R1));
    group.run_until(|group| group.status(R0).handing_off == Some(R1));
    group.run_until(|group| group.status(R0).handing_off.is_none());
    group.run_until(|group| group.pending().is_empty());
    assert_eq!((group.handoffs(), group.view()), (0, View(0)));
    end_of(group, &calls, View(0), R0);
}

/// S71: the successor dies as soon as everything is in its hands: one more view change.
#[test]
fn a_successor_that_dies_costs_one_more_view() {
    let (mut group, calls) = busy(Durability::Full, 20);
    group.hold(Messages::of([Kind::DoViewChange]).to(R1));
    group.hand_off(R0, Some(R1));
    group.run_until(|group| group.status(R0).view == View(1));
    group.crash(R1);
    group.run_until(|group| group.view() == View(2));
    group.run_for_heartbeats(2);
    assert_eq!(group.views_started(), 1, "view 1 never starts");
    end_of(group, &calls, View(2), R2);
}

/// S71: the old primary dies right after it announced: the others need nothing more of it.
#[test]
fn an_old_primary_that_dies_is_not_missed() {
    let (mut group, calls) = busy(Durability::Full, 20);
    group.hold(Messages::of([Kind::DoViewChange]).from(R0));
    group.hand_off(R0, Some(R1));
    group.run_until(|group| group.status(R1).view == View(1));
    group.crash(R0);
    group.run_until(|group| group.view() == View(1));
    end_of(group, &calls, View(1), R1);
}

/// S71: all replicas are restarted in turn under load; clients notice nothing but a short pause.
#[test]
fn a_rolling_restart_fails_no_call() {
    let (mut group, mut calls) = busy(Durability::Full, 20);
    let client = group.client();
    for id in [R0, R1, R2, R0] {
        calls.extend((0..20).map(|value| client.request(put("y", value))));
        group.shut_down(id);
        group.run_until(|group| !group.is_running(id));
        let (before, call) = (group.now(), client.request(put("z", 1)));
        group.run_until_answered(call);
        let pause = group.now().since(before);
        assert!(pause < Duration::from_millis(150), "nobody waited to suspect: {pause:?}");
        group.crash(id);
        group.start(id);
        group.run_until(|group| group.statuses().iter().all(|s| s.heard.len() == 3));
    }
    assert_eq!(group.handoffs(), 4);
    end_of(group, &calls, View(4), R1);
}

/// Storage of a replica under load is never idle; it stops all the same when it is told to.
#[test]
fn a_replica_under_steady_load_stops_in_time() {
    let mut options = GroupOptions::of(3);
    let sync = Duration::from_millis(5);
    options.disk = DiskFaults { sync_min: sync, sync_max: sync, ..DiskFaults::none() };
    let mut group = Cluster::with(options);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16).map(|_| group.client()).collect();
    for client in &clients {
        let over = Arc::clone(&over);
        let wanted = Wanted::Operation(put("k", 1));
        client.drive(move || {
            (!over.load(Ordering::Relaxed)).then(|| (Duration::ZERO, wanted.clone()))
        });
    }
    group.run_for_heartbeats(10);
    for id in [R1, R0] {
        let before = group.now();
        group.shut_down(id);
        group.run_until(|group| !group.is_running(id));
        assert!(group.now().since(before) < Duration::from_secs(1));
        group.crash(id);
        group.start(id);
        group.run_for_heartbeats(10);
    }
    over.store(true, Ordering::Relaxed);
    group.heal_and_converge();
}
