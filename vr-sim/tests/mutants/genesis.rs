//! A group is founded once, whoever is wiped meanwhile.

use vr_core::{OpNumber, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    workload::{Kv, put},
};

/// A founded group of which replica 2 has never heard, with an operation that the others executed.
fn founded_without_r2() -> Cluster<Kv> {
    let mut group = Cluster::unstarted_of(3);
    group.network().keep_history();
    let news = group.lose(Messages::of([Kind::HelloOk, Kind::Commit, Kind::Prepare]).to(R2));
    group.start_all();
    group.run_until(|group| group.status_if_running(R0).is_some_and(|status| status.serving));
    group.crash(R2);
    group.release(news);
    let call = group.client().request(put("first", 1));
    group.run_until_answered(call);
    group
}

/// Asks for an operation of what may be a second group, and lets it live for a while.
fn try_again(group: &mut Cluster<Kv>) {
    group.client_without_session().request(put("second", 1));
    group.run_for_heartbeats(60);
}

/// S88 with a wiped founder: it and the one that never heard of the group are no majority of a new
/// one.
pub(crate) fn a_wiped_founder_founds_no_second_group() {
    let mut group = founded_without_r2();
    group.isolate(R1);
    group.wipe(R0);
    group.restart(R0);
    group.restart(R2);
    try_again(&mut group);
    assert!(!group.has_joined(R0) && !group.has_joined(R2));
    group.heal_and_converge();
}

/// The same, while answers of the first founding arrive once more.
pub(crate) fn old_answers_found_no_second_group() {
    let mut group = founded_without_r2();
    group.pause(R1);
    group.wipe(R0);
    group.restart(R0);
    group.restart(R2);
    for _ in 0..20 {
        group.run_for_heartbeats(3);
        group.network().replay(&Messages::of([Kind::HelloOk, Kind::FoundOk]).from(R1).to(R0));
    }
    try_again(&mut group);
    assert!(!group.has_joined(R0) && !group.has_joined(R2));
    group.heal_and_converge();
}

/// S88: replica 1 tells replica 2 that it is blank; replicas 0 and 1 found the group; replica 0 is
/// wiped and tells the same.
pub(crate) fn answers_that_were_never_true_together_found_nothing() {
    let mut group = Cluster::unstarted_of(3);
    let others = group.lose(Messages::of([Kind::HelloOk]).from(R0).to(R2));
    let late = group.hold(Messages::of([Kind::Hello]).from(R0));
    group.start(R1);
    group.start(R2);
    group.lose(Messages::of([Kind::HelloOk]).from(R2).to(R1));
    group.run_for_heartbeats(4);
    let deaf = group.lose(Messages::of([Kind::HelloOk, Kind::Commit, Kind::Prepare]).to(R2));
    group.start(R0);
    group.run_for_heartbeats(1);
    group.release(late);
    group.run_until(|group| group.status_if_running(R0).is_some_and(|status| status.serving));
    let call = group.client().request(put("first", 1));
    group.run_until_answered(call);
    group.isolate(R1);
    group.wipe(R0);
    group.release(others);
    group.release(deaf);
    group.restart(R0);
    try_again(&mut group);
    assert!(!group.has_joined(R0));
    group.heal_and_converge();
}

/// S89: the founder proposes an operation and is wiped before anybody else has heard of the group,
/// which is founded anew. What the old disk said arrives late.
pub(crate) fn what_a_forgotten_disk_said_is_not_processed() {
    let mut group = Cluster::unstarted_of(3);
    let alone = group.lose(Messages::of([Kind::HelloOk]).from(R0));
    let late = group.hold(Messages::of([Kind::Prepare]).from(R0).to(R1));
    group.start_all();
    group.run_until(|group| group.status_if_running(R0).is_some_and(|status| status.serving));
    let call = group.client_without_session().request(put("k", 1));
    group.run_until(|group| group.durable_op(R0) > OpNumber::ZERO);
    group.wipe(R0);
    let load =
        group.hold(Messages::of([Kind::Register, Kind::Request, Kind::Requests, Kind::Forward]));
    group.release(alone);
    group.restart(R0);
    group.run_until(|group| [R0, R1, R2].into_iter().all(|id| group.has_joined(id)));
    group.release(late);
    group.run_for_heartbeats(1);
    group.release(load);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S91: a replica that acknowledged is wiped. It must not vote for a log without what it forgot.
pub(crate) fn a_wiped_replica_does_not_vote_without_what_it_forgot() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.isolate(R2);
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.wipe(R1);
    group.heal();
    group.isolate(R0);
    group.lose(Messages::of([Kind::Prepare, Kind::Entries]).to(R1));
    group.restart(R1);
    group.run_for_heartbeats(60);
    assert!(!group.has_joined(R1));
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}
