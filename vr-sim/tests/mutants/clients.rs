//! What clients are told, once and not too early.

use core::time::Duration;

use vr_core::{Config, View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    options::GroupOptions,
    workload::{get, put},
};

/// Only the primary has a request, and dies. Whatever was answered must still be there.
pub(crate) fn what_was_answered_is_kept() {
    let mut group = Cluster::of(5);
    let client = group.client();
    let prepares = group.lose(Messages::of([Kind::Prepare]));
    let call = client.request(put("k", 1));
    let soon = group.now() + Duration::from_millis(3);
    group.run_until(|group| group.now() >= soon);
    group.crash(R0);
    group.release(prepares);
    group.run_until(|group| group.view() > View(0));
    group.run_until_normal();
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// A request comes twice before it is executed. Nobody is told that it was.
pub(crate) fn a_repeated_request_waits_for_its_execution() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.network().keep_history();
    let prepares = group.lose(Messages::of([Kind::Prepare]));
    let before = group.durable_op(R0);
    let call = client.request(put("k", 1));
    group.run_until(|group| group.durable_op(R0) > before);
    assert!(group.network().replay(&Messages::of([Kind::Request, Kind::Requests]).to(R0)) > 0);
    group.run_for_heartbeats(1);
    group.release(prepares);
    group.run_until_answered(call);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S59 with a primary that lives: a view change takes a request out of its log, and it leads again
/// before the client asks again.
pub(crate) fn a_request_that_a_view_change_dropped_is_taken_again() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.partition([R0.into(), client.actor()]);
    let before = group.durable_op(R0);
    let call = client.request(put("k", 1));
    group.run_until(|group| group.durable_op(R0) > before);
    group.run_until(|group| group.view() == View(1));
    group.run_until_normal();
    let requests = Messages::of([Kind::Request, Kind::Requests, Kind::Forward, Kind::Register]);
    let silent = group.lose(requests.clone());
    group.network().heal();
    group.lose(requests);
    group.run_until(|group| group.status(R0).log_view == View(1));
    group.release(silent);
    while group.primary() != R0 {
        let primary = group.primary();
        group.crash(primary);
        group.run_until(|group| group.primary() != primary);
        group.run_until_normal();
        group.start_all();
        group.run_for_heartbeats(5);
    }
    group.heal();
    group.run_until(|group| group.reply_of(call).is_some());
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S67 with slow execution: the new primary has acknowledged operations that it does not know to
/// be committed, and executes one at a time. No query overtakes them.
pub(crate) fn no_query_overtakes_what_was_acknowledged() {
    let mut config = Config::default();
    config.execute_ops_max = 1;
    let mut group = Cluster::with(GroupOptions::of(3).with_config(config));
    let client = group.client();
    for backup in [R1, R2] {
        group.lose(Messages::of([Kind::Commit]).to(backup));
    }
    let calls = [1, 2, 3, 4].map(|value| client.request(put("k", value)));
    group.run_until(|group| calls.iter().all(|call| group.reply_of(*call).is_some()));
    group.crash(R0);
    group.heal();
    let acks = group.hold(Messages::of([Kind::PrepareOk]));
    group.run_until(|group| group.statuses().iter().any(|status| status.log_view > View(0)));
    let read = client.query(get("k"));
    group.run_for_heartbeats(1);
    group.release(acks);
    group.run_until_answered(read);
    assert_eq!(group.answer_of(read), Some(Some(4)), "O6 violated: a query sees the past");
    group.heal_and_converge();
}
