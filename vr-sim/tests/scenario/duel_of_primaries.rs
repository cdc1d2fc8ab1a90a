//! Two replicas that both believe to lead, and one that never heard who does.

use vr_core::{View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    workload::{Kv, put},
};

/// S35: two primaries of different views, no load, the third replica down. Pings settle it.
#[test]
pub(crate) fn of_two_primaries_one_wins() {
    let mut group = Cluster::of(3);
    group.isolate(R0);
    group.run_until(|group| group.view() > View(0));
    group.run_until_normal();
    group.crash(R2);
    group.run_for_heartbeats(20);
    group.heal();
    group.run_until_normal();
    assert!(group.view() > View(0));
    group.heal_and_converge();
}

/// S38: every announcement of the new view is lost, and there is no load.
#[test]
pub(crate) fn a_backup_that_missed_the_start_of_a_view_asks_for_it() {
    let mut group = Cluster::of(3);
    group.isolate(R0);
    let missed = group.lose(Messages::of([Kind::StartView]));
    let installed = |group: &Cluster<Kv>| {
        [R1, R2].into_iter().filter(|id| group.status(*id).log_view > View(0)).count()
    };
    group.run_until(|group| installed(group) == 1);
    group.run_for_heartbeats(2);
    assert_eq!(installed(&group), 1);
    group.release(missed);
    group.run_until(|group| installed(group) == 2);
    group.run_until_normal();
    assert_eq!(group.view(), View(1), "the view is told again and not left");
    group.heal_and_converge();
}

/// S42: a late announcement of a view names a lower commit number, and a heartbeat names one
/// beyond the log.
#[test]
pub(crate) fn commit_numbers_are_clamped_and_never_go_back() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.isolate(R0);
    group.network().keep_history();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    let start = Messages::of([Kind::StartView]).to(R2);
    let commit = group.status(R2).commit_number;
    assert!(group.network().replay(&start) > 0);
    group.run_for_heartbeats(1);
    assert!(group.status(R2).commit_number >= commit);
    group.forge(R1, R2, |envelope| {
        if let vr_core::model::message::Message::Commit(m) = &mut envelope.message {
            m.commit.op_number = vr_core::OpNumber(1_000_000);
        }
    });
    group.run_for_heartbeats(1);
    assert!(group.status(R2).commit_number <= group.status(R2).op_number);
    group.heal_and_converge();
}
