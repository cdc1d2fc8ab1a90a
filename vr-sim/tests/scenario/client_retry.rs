//! Clients that ask again, restart, and keep several requests in flight.

use vr_core::model::kind::Kind;
use vr_sim::{
    cluster::{Cluster, R0},
    network::selection::Messages,
    workload::{add, put},
};

/// S58: the operation executed, the reply is lost, the primary dies, the client asks again.
#[test]
pub(crate) fn a_lost_reply_is_given_again_and_nothing_executes_twice() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let replies = group.lose(Messages::of([Kind::Reply]));
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
    let requests = Messages::of([Kind::Request, Kind::Forward]);
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
        let held = group.hold(Messages::of([Kind::Request]));
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
    let held = group.hold(Messages::of([Kind::Request]));
    let calls = [1, 2, 3, 4].map(|value| client.request(put("k", value)));
    group.run_for_heartbeats(1);
    group.network().release_backwards(held);
    group.run_until_answered(calls[3]);
    assert_eq!(group.committed(), calls);
    assert_eq!(group.reply_of(calls[3]), Some(Some(3)));
    group.heal_and_converge();
}
