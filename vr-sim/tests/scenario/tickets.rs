//! Calls that were given up, and whoever finds out later what became of them.

use core::time::Duration;

use vr_core::{Config, RequestError, Ticket, model::kind::Kind};
use vr_sim::{
    cluster::{
        Cluster, R0, R1,
        client::{CallId, Ended},
    },
    network::selection::Messages,
    options::GroupOptions,
    workload::{Kv, add, put},
};

/// A group whose clients wait for a second.
fn impatient(config: Config) -> Cluster<Kv> {
    let mut options = GroupOptions::of(3).with_config(config);
    options.client_timeout = Duration::from_secs(1);
    Cluster::with(options)
}

fn replies() -> Messages {
    Messages::of([Kind::Reply, Kind::Replies, Kind::ForwardReply])
}

fn requests() -> Messages {
    Messages::of([Kind::Request, Kind::Requests, Kind::Forward])
}

fn failure(group: &Cluster<Kv>, call: CallId) -> RequestError {
    match group.ended(call) {
        Some(Ended::Failed(error)) => error,
        other => panic!("{call:?} ended as {other:?}"),
    }
}

fn ticket(group: &Cluster<Kv>, call: CallId) -> Ticket {
    failure(group, call).ticket().cloned().expect("what is unknown can be found out")
}

/// S58 without patience: it executed, the reply is lost, the client gives up and dies, the primary
/// dies. Another client is given the reply in the next view.
#[test]
pub(crate) fn a_call_given_up_is_found_out_about_by_another_process() {
    let mut group = impatient(Config::default());
    let (client, other) = (group.client(), group.client());
    let lost = group.lose(replies());
    let call = client.request(add("k", 1));
    group.run_until_answered(call);
    assert!(failure(&group, call).ticket().is_some());
    group.crash_client(client);
    group.crash(R0);
    group.release(lost);
    group.run_until_normal();
    other.resume(call, &ticket(&group, call));
    group.run_until_answered(call);
    assert_eq!(group.reply_of(call), Some(Some(1)));
    assert_eq!(group.committed(), [call]);
    group.heal_and_converge();
}

/// S59 without patience: nobody had the request. It executes when it is resumed, and copies of it
/// that come late do nothing.
#[test]
pub(crate) fn a_call_that_never_arrived_executes_when_it_is_resumed() {
    let mut group = impatient(Config::default());
    let (client, other) = (group.client(), group.client());
    group.network().keep_history();
    let held = group.hold(requests());
    let call = client.request(add("k", 1));
    group.run_until_answered(call);
    group.crash_client(client);
    group.network().lose_held(held);
    group.release(held);
    other.resume(call, &ticket(&group, call));
    group.run_until_answered(call);
    assert_eq!(group.reply_of(call), Some(Some(1)));
    group.network().replay(&requests());
    group.run_for_heartbeats(1);
    assert_eq!(group.committed(), [call]);
    group.heal_and_converge();
}

/// Of two calls in flight nothing arrived. Whoever resumes the second one executes both, in order.
#[test]
pub(crate) fn a_ticket_brings_along_what_stood_before_it() {
    let mut group = impatient(Config::default());
    let (client, other) = (group.client(), group.client());
    let lost = group.lose(requests());
    let calls = [1, 2].map(|value| client.request(put("k", value)));
    calls.iter().for_each(|call| group.run_until_answered(*call));
    group.crash_client(client);
    group.release(lost);
    other.resume(calls[1], &ticket(&group, calls[1]));
    group.run_until_answered(calls[1]);
    assert_eq!((group.reply_of(calls[1]), group.committed()), (Some(Some(1)), calls.to_vec()));
    other.resume(calls[0], &ticket(&group, calls[0]));
    group.run_until_answered(calls[0]);
    assert_eq!(group.reply_of(calls[0]), Some(None));
    group.heal_and_converge();
}

/// Two processes use one client's name at once, while that client itself goes on.
#[test]
pub(crate) fn a_ticket_resumed_twice_executes_once() {
    let mut group = impatient(Config::default());
    let (client, one, other) = (group.client(), group.client(), group.client());
    let lost = group.lose(requests());
    let call = client.request(add("k", 1));
    group.run_until_answered(call);
    group.cut_both(R0, one.actor());
    group.cut_both(R1, other.actor());
    group.release(lost);
    let ticket = ticket(&group, call);
    [&one, &other].into_iter().for_each(|client| client.resume(call, &ticket));
    let next = client.request(add("k", 1));
    group.run_until(|group| group.pending().is_empty());
    assert_eq!((group.reply_of(call), group.reply_of(next)), (Some(Some(1)), Some(Some(2))));
    assert_eq!(group.committed(), [call, next]);
    group.heal_and_converge();
}

/// The reply was lost, and the client went on by more than a window. That it executed is still
/// known, the reply is not.
#[test]
pub(crate) fn a_reply_that_left_the_window_leaves_the_outcome() {
    let mut narrow = Config::default();
    narrow.window = 2;
    let mut group = impatient(narrow);
    let (client, other) = (group.client(), group.client());
    let lost = group.lose(replies());
    let call = client.request(add("k", 1));
    group.run_until_answered(call);
    group.release(lost);
    for _ in 0..3 {
        let next = client.request(add("k", 1));
        group.run_until_answered(next);
    }
    other.resume(call, &ticket(&group, call));
    group.run_until_answered(call);
    assert_eq!(failure(&group, call), RequestError::ReplyForgotten);
    assert_eq!(group.committed().len(), 4);
    group.heal_and_converge();
}

/// The session was closed meanwhile, and with it went what was known. It is not said to have
/// executed, and does not.
#[test]
pub(crate) fn a_ticket_of_a_closed_session_stays_unknown() {
    let mut narrow = Config::default();
    narrow.clients_max = 2;
    let mut group = impatient(narrow);
    let client = group.client();
    let lost = group.lose(requests());
    let call = client.request(add("k", 1));
    group.run_until_answered(call);
    group.crash_client(client);
    group.release(lost);
    let others = [group.client(), group.client()];
    others[0].resume(call, &ticket(&group, call));
    group.run_until_answered(call);
    assert!(matches!(failure(&group, call), RequestError::ClientEvicted { .. }));
    others[1].resume(call, &ticket(&group, call));
    group.run_until_answered(call);
    assert!(matches!(failure(&group, call), RequestError::ClientEvicted { .. }));
    group.heal_and_converge();
    assert!(group.committed().is_empty());
}
