//! Clients that ask again, restart, and keep several requests in flight.

use vr_core::{Config, client::outcome::RequestError, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, client::Ended},
    network::selection::Messages,
    options::GroupOptions,
    workload::{add, put},
};

/// S58: the operation executed, the reply is lost, the primary dies, the client asks again.
#[test]
pub(crate) fn a_lost_reply_is_given_again_and_nothing_executes_twice() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let replies = group.lose(Messages::of([Kind::Reply, Kind::Replies]));
    let call = client.request(add("k", 1));
    group.run_until(|group| group.committed() == [call]);
    group.crash(R0);
    group.release(replies);
    group.run_until_answered(call);
    assert_eq!(group.reply_of(call), Some(Some(1)));
    assert_eq!(group.committed(), [call]);
    group.heal_and_converge();
}

/// S59: only the dead primary had the request. Asking again is not taken for a duplicate.
#[test]
pub(crate) fn a_request_that_died_with_its_primary_is_taken_again() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let prepares = group.lose(Messages::of([Kind::Prepare]));
    let before = group.durable_op(R0);
    let call = client.request(add("k", 1));
    group.run_until(|group| group.durable_op(R0) > before);
    group.crash(R0);
    group.release(prepares);
    group.run_until_answered(call);
    assert_eq!(group.reply_of(call), Some(Some(1)));
    group.heal_and_converge();
}

/// S60: the same request reaches the group many times, directly and through backups.
#[test]
pub(crate) fn a_request_that_arrives_many_times_executes_once() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.network().keep_history();
    let call = client.request(add("k", 1));
    let requests = Messages::of([Kind::Request, Kind::Requests, Kind::Forward]);
    group.run_until(|group| group.committed() == [call]);
    for _ in 0..5 {
        assert!(group.network().replay(&requests) > 0);
        group.run_for_heartbeats(1);
    }
    group.crash(R0);
    group.network().replay(&requests);
    group.run_until_normal();
    group.network().replay(&requests);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S61: a client dies twice with requests in flight. No later client gets their replies.
#[test]
pub(crate) fn a_restarted_client_does_not_get_old_replies() {
    let mut group = Cluster::of(3);
    for round in 1..=2 {
        let client = group.client();
        let held = group.hold(Messages::of([Kind::Request, Kind::Requests]));
        client.request(add("k", round));
        group.run_for_heartbeats(1);
        group.crash_client(client);
        group.release(held);
    }
    let client = group.client();
    let call = client.request(put("other", 7));
    let next = client.request(put("other", 8));
    group.run_until_answered(next);
    assert_eq!((group.reply_of(call), group.reply_of(next)), (Some(None), Some(Some(7))));
}

/// S64: requests of one window arrive in the wrong order. They execute in the client's order.
#[test]
pub(crate) fn a_window_of_requests_executes_in_order() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let held = group.hold(Messages::of([Kind::Request, Kind::Requests]));
    let calls = [1, 2, 3, 4].map(|value| client.request(put("k", value)));
    group.run_for_heartbeats(1);
    group.network().release_backwards(held);
    group.run_until_answered(calls[3]);
    assert_eq!(group.committed(), calls);
    assert_eq!(group.reply_of(calls[3]), Some(Some(3)));
    group.heal_and_converge();
}

/// S62: one session more than the table holds. Whoever was silent longest loses its session, on
/// every replica alike, is told so, and goes on under a new one.
#[test]
pub(crate) fn a_full_table_closes_the_session_used_longest_ago() {
    let mut narrow = Config::default();
    narrow.clients_max = 2;
    let mut group = Cluster::with(GroupOptions::of(3).with_config(narrow));
    let (busy, silent) = (group.client(), group.client());
    let mut calls = Vec::new();
    for client in [&silent, &busy] {
        calls.push(client.request(add("k", 1)));
        group.run_until(|group| group.pending().is_empty());
    }
    let late = group.client();
    let refused = silent.request(add("k", 1));
    group.run_until_answered(refused);
    assert!(matches!(
        group.ended(refused),
        Some(Ended::Failed(RequestError::ClientEvicted { .. }))
    ));
    group.crash(R1);
    for client in [&late, &silent] {
        calls.push(client.request(add("k", 1)));
        group.run_until_answered(calls[calls.len() - 1]);
    }
    assert_eq!(group.reply_of(calls[3]), Some(Some(4)));
    assert_eq!(group.committed(), calls);
    group.heal_and_converge();
}
