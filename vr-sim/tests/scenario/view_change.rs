//! Which log survives when views follow each other quickly.

use vr_core::{Durability, OpNumber, ReplicaId, View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    options::GroupOptions,
    workload::{Kv, put},
};

fn group_in(durability: Durability) -> Cluster<Kv> {
    Cluster::with(GroupOptions::of(3).with_durability(durability))
}

/// The last op that counts as held at `replica`, wherever its mode keeps it.
fn held(group: &Cluster<Kv>, replica: ReplicaId) -> OpNumber {
    group.status(replica).durable_op_number
}

/// S09: a replica with uncommitted entries hears of a later view before it has that view's log. It
/// must not cut anything until it has the whole of it.
#[test]
pub(crate) fn nothing_is_truncated_on_hearsay() {
    Durability::ALL.into_iter().for_each(hear_of_a_later_view);
}

fn hear_of_a_later_view(durability: Durability) {
    let mut group = group_in(durability);
    let (early, late) = (group.client(), group.client());
    group.isolate(R1);
    let first = early.request(put("first", 1));
    group.run_until_answered(first);
    group.heal();
    group.isolate(R0);
    group.hold(Messages::of([Kind::StartView]).in_view(View(1)));
    group.run_until(|group| group.status(R1).log_view == View(1));
    early.request(put("x", 1));
    group.run_until(|group| {
        held(group, R1).since(group.place_of(first).expect("it is answered")) > 0
    });
    group.connect(R0, R2);
    group.isolate(R1);
    group.run_until(|group| group.view() > View(1));
    let second = late.request(put("second", 1));
    let (kept, started) = (group.status(R1).op_number, group.status(R1).log_view);
    assert_eq!(started, View(1));
    group.run_for_heartbeats(2);
    group.hold(Messages::of([Kind::StartView]).to(R1));
    assert_eq!(group.status(R1).op_number, kept);
    group.heal_and_converge();
    assert!(group.committed().starts_with(&[first]) && group.committed().contains(&second));
}

/// S11: the log of the latest view wins, not the entry of the latest view.
#[test]
pub(crate) fn the_log_view_decides_and_not_the_view_of_the_last_entry() {
    Durability::ALL.into_iter().for_each(elect_with_an_entry_of_a_later_view);
}

fn elect_with_an_entry_of_a_later_view(durability: Durability) {
    let mut group = group_in(durability);
    let (one, other) = (group.client(), group.client());
    group.partition([R0.into(), one.actor()]);
    group.lose(Messages::of([Kind::StartView]).in_view(View(1)));
    let base = held(&group, R0);
    let kept = one.request(put("kept", 1));
    group.run_until(|group| held(group, R0) > base && group.status(R1).log_view == View(1));
    group.cut_both(R2, other.actor());
    let replaced = [1, 2, 3].map(|value| other.request(put("replaced", value)));
    group.run_until(|group| held(group, R1).since(base) == 3);
    group.heal();
    group.partition([R1.into(), other.actor()]);
    group.run_until_answered(kept);
    assert_eq!(group.stamp_of(kept).expect("it is answered").0, View(0));
    let primary = group.primary();
    group.heal();
    group.isolate(primary);
    group.run_until_answered(replaced[2]);
    group.heal_and_converge();
    assert_eq!(group.committed(), [kept, replaced[0], replaced[1], replaced[2]]);
}
