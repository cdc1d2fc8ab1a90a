//! Disks that come back empty, in groups that have disks.

use vr_core::{
    Durability, View,
    model::{kind::Kind, message::StatusKind},
};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    options::GroupOptions,
    workload::{Kv, add, put},
};

const WITH_DISKS: [Durability; 2] = [Durability::Full, Durability::ViewOnly];

fn group_in(durability: Durability) -> Cluster<Kv> {
    Cluster::with(GroupOptions::of(3).with_durability(durability))
}

/// A replica whose disk was wiped gets everything back, whoever it is.
#[test]
pub(crate) fn a_wiped_replica_gets_everything_back() {
    for durability in WITH_DISKS {
        for wiped in [R0, R1, R2] {
            let mut group = group_in(durability);
            let client = group.client();
            let calls: Vec<_> = (0..20).map(|_| client.request(add("k", 1))).collect();
            group.run_until(|group| group.reply_of(calls[9]).is_some());
            group.wipe(wiped);
            group.run_until(|group| group.reply_of(calls[19]).is_some());
            group.restart(wiped);
            group.run_until(|group| group.remembers(wiped) && group.applied(wiped) == calls);
            assert_eq!((group.status(wiped).incarnation.0, group.rebuilds()), (1, 1));
            group.heal_and_converge();
        }
    }
}

/// It needs a quorum of others, and says so; a crash on its way back costs another round.
#[test]
pub(crate) fn a_wiped_replica_waits_for_a_quorum_of_others() {
    for durability in WITH_DISKS {
        let mut group = group_in(durability);
        let client = group.client();
        let call = client.request(put("k", 1));
        group.run_until_answered(call);
        group.wipe(R2);
        group.isolate(R1);
        group.restart(R2);
        group.run_for_heartbeats(40);
        assert!(!group.has_joined(R2));
        let why = group.explanation(R2);
        assert!(why.contains("its disk was wiped or exchanged"), "{why}");
        group.crash(R2);
        group.restart(R2);
        group.heal_and_converge();
        assert_eq!(group.committed(), [call]);
    }
}

/// All replicas are wiped, one after the other; each comes back before the next one goes.
#[test]
pub(crate) fn all_disks_are_replaced_one_after_the_other() {
    for durability in WITH_DISKS {
        let mut group = group_in(durability);
        let client = group.client();
        let calls: Vec<_> = (0..60).map(|_| client.request(add("k", 1))).collect();
        for (round, id) in [R0, R1, R2, R0, R1, R2].into_iter().enumerate() {
            group.run_until(|group| group.reply_of(calls[round * 10]).is_some());
            group.wipe(id);
            group.restart(id);
            group.run_until(|group| {
                group.has_joined(id) && [R0, R1, R2].into_iter().all(|id| group.remembers(id))
            });
        }
        group.heal_and_converge();
        assert_eq!(group.committed(), calls);
    }
}

/// S90: a promise is under way when its sender is wiped. Whoever helps the sender back does not
/// forget that, not even in a crash, and the promise never counts.
#[test]
pub(crate) fn a_crash_does_not_forget_who_was_wiped() {
    let mut group = Cluster::of(3);
    let client = group.client();
    let promise = group.hold(Messages::of([Kind::DoViewChange]).from(R2));
    let quiet = group.lose(Messages::all().from(R2));
    let silence = group.lose(Messages::of([Kind::Commit, Kind::Prepare]));
    group.run_until(|group| group.status(R2).durable_view == View(1));
    group.wipe(R2);
    for rule in [quiet, silence] {
        group.release(rule);
    }
    group.lose(Messages::of([Kind::Prepare, Kind::Entries]).to(R1));
    group.hold_storage(R1);
    group.restart(R2);
    group.run_for_heartbeats(20);
    group.crash(R1);
    group.release_storage(R1);
    group.isolate(R1);
    let call = client.request(put("k", 1));
    group.run_for_heartbeats(20);
    group.restart(R1);
    group.network().heal_link(R2.into(), R1.into());
    group.run_until(|group| group.status_if_running(R1).is_some());
    group.release(promise);
    group.network().cut(R2.into(), R1.into());
    group.run_for_heartbeats(10);
    group.heal_and_converge();
    assert_eq!(group.committed(), [call]);
}

/// S91: the primary of a view that has just started is wiped, and hears of the view before. It
/// promised not to acknowledge anything there, and forgot that.
#[test]
pub(crate) fn a_blank_replica_is_not_one_that_lags() {
    for durability in WITH_DISKS {
        let mut group = group_in(durability);
        let client = group.client();
        group.isolate(R0);
        group.lose(Messages::of([Kind::StartView]));
        group.run_until(|group| group.status(R1).log_view == View(1));
        group.wipe(R1);
        group.isolate(R2);
        group.connect(R0, R1);
        group.restart(R1);
        let call = client.request(put("k", 1));
        group.run_for_heartbeats(40);
        assert!(!group.has_joined(R1) && group.committed().is_empty());
        assert_eq!(group.status(R1).status, StatusKind::Blank);
        group.heal_and_converge();
        assert_eq!(group.committed(), [call]);
    }
}

/// S93: the certificate of a founding that lost arrives late. Its holder finds out that it is
/// alone, formats its disk and joins the others.
#[test]
pub(crate) fn whoever_joined_a_founding_that_lost_starts_over() {
    for durability in WITH_DISKS {
        let options = GroupOptions::of(3).with_durability(durability);
        let mut group = Cluster::unstarted(options, Kv::default);
        let late = group.hold(Messages::of([Kind::HelloOk]).from(R0).to(R1));
        let never = group.lose(Messages::of([Kind::HelloOk]).from(R0).to(R2));
        group.start_all();
        group.run_until(|group| group.has_joined(R0));
        group.run_for_heartbeats(20);
        group.wipe(R0);
        group.restart(R0);
        group.run_until(|group| group.has_joined(R0));
        group.release(late);
        group.run_until(|group| group.has_joined(R1));
        group.release(never);
        group.run_until(|group| group.stop_reason(R1).is_some());
        let why = group.stop_reason(R1).unwrap();
        assert!(why.contains("format"), "{why}");
        let call = group.client().request(put("k", 1));
        group.run_until_answered(call);
        group.heal_and_converge();
    }
}
