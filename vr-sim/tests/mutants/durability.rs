//! What must be durable before something is said, and what a crash in between may leave.

use core::time::Duration;

use vr_core::{View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R2, R4},
    network::selection::Messages,
    workload::put,
};

/// The disk of the primary stalls, and one backup is away: one replica's word commits nothing.
pub(crate) fn the_primary_waits_for_its_own_disk() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.hold_storage(R0);
    group.isolate(R2);
    let call = client.request(put("k", 1));
    group.run_for_heartbeats(2);
    assert!(group.ended(call).is_none());
    group.release_storage(R0);
    group.run_until_answered(call);
    group.heal_and_converge();
}

/// A deposed primary is told the log of the next view before it has promised anything to it. The
/// promise must be durable before the stray entries are cut off.
pub(crate) fn a_log_is_replaced_after_the_promise() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.partition([R0.into(), client.actor()]);
    let stray = client.request(put("stray", 1));
    group.run_until(|group| group.view() == View(1));
    group.run_until_normal();
    let hearsay = [Kind::Ping, Kind::Pong, Kind::Commit, Kind::StartViewChange];
    group.heal();
    group.lose(Messages::of(hearsay).to(R0));
    group.run_until(|group| group.status(R0).log_view == View(1));
    group.heal_and_converge();
    assert_eq!(group.committed(), [stray]);
}

/// A deposed primary dies at some moment while it replaces its log.
pub(crate) fn an_installation_that_is_cut_short_is_none() {
    for pause in (0..80).map(|step| Duration::from_micros(step * 100)) {
        let mut group = Cluster::of(3);
        let (alone, other) = (group.client(), group.client());
        group.partition([R0.into(), alone.actor()]);
        alone.request(put("stray", 1));
        let kept = other.request(put("kept", 1));
        group.run_until_answered(kept);
        group.heal();
        group.run_until(|group| group.status(R0).durable_view > View(0));
        group.run_for(pause);
        group.crash(R0);
        group.restart(R0);
        group.heal_and_converge();
    }
}

/// Replicas die again and again, just after views have changed.
pub(crate) fn a_promise_survives_crashes() {
    for seed in 0..20 {
        let options = vr_sim::options::GroupOptions::of(3).with_seed(seed);
        let mut group = Cluster::with(options);
        for _ in 0..3 {
            let primary = group.primary();
            group.crash(primary);
            group.run_until_normal();
            group.crash_all();
            group.start_all();
            group.run_until_normal();
        }
        group.heal_and_converge();
    }
}

/// A backup that was away hears of a view from a heartbeat, and its log does not come.
pub(crate) fn a_log_view_is_that_of_a_log() {
    let mut group = Cluster::of(5);
    let client = group.client();
    group.isolate(R4);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R0);
    group.run_until_normal();
    group.heal();
    group.hold(Messages::of([Kind::StartView, Kind::Prepare, Kind::Entries]).to(R4));
    group.run_until(|group| group.status(R4).view > View(0));
    group.run_for_heartbeats(1);
    assert_eq!(group.status(R4).log_view, View(0));
    group.heal_and_converge();
}

/// A view starts and nothing is written in it; then its primary is lost. What counts in the vote
/// is the view of the log and not that of its last entry.
pub(crate) fn a_vote_names_the_durable_log_view() {
    let mut group = Cluster::of(3);
    let call = group.client().request(put("k", 1));
    group.run_until_answered(call);
    for _ in 0..2 {
        let primary = group.primary();
        group.crash(primary);
        group.run_until(|group| group.primary() != primary);
        group.run_until_normal();
        group.start_all();
        group.run_until_converged();
    }
}
