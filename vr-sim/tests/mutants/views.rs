//! Which log a view starts from, and what a replica believes of a commit number.

use vr_core::{View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2, client::SimClient},
    network::selection::Messages,
    workload::{Kv, put},
};

/// A group whose first primary is alone with three entries that nobody else has, while the others
/// have started view 1.
fn deposed_with_strays() -> (Cluster<Kv>, SimClient<Kv>) {
    let mut group = Cluster::of(3);
    let (alone, other) = (group.client(), group.client());
    group.partition([R0.into(), alone.actor()]);
    let before = group.durable_op(R0);
    for value in 0..3 {
        alone.request(put("stray", value));
    }
    group.run_until(|group| group.durable_op(R0).since(before) == 3);
    group.run_until(|group| group.view() == View(1));
    group.run_until_normal();
    (group, other)
}

/// The shorter log of the later view wins over the longer one of an earlier view.
pub(crate) fn the_later_log_wins_over_the_longer_one() {
    let (mut group, client) = deposed_with_strays();
    group.lose(Messages::of([Kind::Commit]).to(R2));
    let kept = client.request(put("kept", 1));
    group.run_until_answered(kept);
    group.heal();
    group.crash_silently(R1);
    group.run_until(|group| group.view() > View(1));
    group.run_until_normal();
    group.heal_and_converge();
    assert_eq!(group.committed().first(), Some(&kept));
}

/// A replica between two views hears how much is committed in a view whose log it does not have.
pub(crate) fn a_commit_number_is_about_one_log() {
    let (mut group, client) = deposed_with_strays();
    let kept = client.request(put("kept", 1));
    group.run_until_answered(kept);
    group.lose(Messages::of([Kind::StartView]).to(R0));
    group.connect(R0, R1);
    group.run_until(|group| group.status(R0).view == View(1));
    group.run_for_heartbeats(3);
    group.heal_and_converge();
    assert_eq!(group.committed().first(), Some(&kept));
}

/// S09 to its end. Replica 1 has view 1 with an entry that it does not know to be committed, hears
/// of view 3, and leads view 4 together with a replica that has installed neither.
pub(crate) fn hearsay_of_a_view_costs_no_entry() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.isolate(R1);
    group.lose(Messages::of([Kind::Commit]).to(R2));
    let first = client.request(put("first", 1));
    group.run_until_answered(first);
    group.hold(Messages::of([Kind::StartView]).to(R2));
    group.isolate(R0);
    group.connect(R1, R2);
    group.run_until(|group| group.status(R1).log_view == View(1));
    group.isolate(R1);
    group.connect(R0, R2);
    group.lose(Messages::of([Kind::DoViewChange]).in_view(View(2)));
    group.run_until(|group| group.status(R0).log_view == View(3));
    group.hold(Messages::of([Kind::StartView, Kind::Entries]).to(R1));
    group.network().heal_link(R0.into(), R1.into());
    group.run_until(|group| group.status(R1).view == View(3));
    group.isolate(R0);
    group.connect(R1, R2);
    group.run_until(|group| group.status(R1).log_view > View(3));
    group.heal_and_converge();
    assert_eq!(group.committed(), [first]);
}

/// The announcement of view 1 arrives at a replica that has promised itself to a later one.
pub(crate) fn a_late_start_of_a_lower_view_is_ignored() {
    let mut group = Cluster::of(3);
    group.isolate(R0);
    let late = group.hold(Messages::of([Kind::StartView]).in_view(View(1)));
    group.run_until(|group| group.status(R1).log_view == View(1));
    group.connect(R0, R2);
    group.crash(R1);
    group.lose(Messages::of([Kind::DoViewChange]));
    group.run_until(|group| group.status(R2).durable_view > View(2));
    group.release(late);
    group.run_for_heartbeats(1);
    assert_eq!(group.status(R2).log_view, View(0));
    group.heal_and_converge();
}
