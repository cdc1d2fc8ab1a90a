//! Several operations that execute as one.

use vr_core::model::kind::Kind;
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    workload::{add, get, put},
};

/// Two clients ask for several operations each, the primary dies before it answers, and comes back.
/// Neither's operations stand among the other's, at any replica, and each has its own reply.
#[test]
pub(crate) fn several_operations_have_one_place() {
    let mut group = Cluster::of(3);
    let (one, other) = (group.client(), group.client());
    let replies = group.lose(Messages::of([Kind::Reply, Kind::Replies]));
    let ones = one.request_many(vec![put("k", 1), add("k", 1), add("k", 1)]);
    let others = other.request_many(vec![put("k", 10), add("k", 1)]);
    group.run_until(|group| group.committed().len() == 5);
    group.crash(R0);
    group.release(replies);
    group.run_until(|group| group.pending().is_empty());
    assert_eq!(group.committed(), [ones.clone(), others.clone()].concat());
    let told = |calls: &[_]| calls.iter().map(|call| group.reply_of(*call)).collect::<Vec<_>>();
    assert_eq!(told(&ones), [Some(None), Some(Some(2)), Some(Some(3))]);
    assert_eq!(told(&others), [Some(Some(3)), Some(Some(11))]);
    group.heal_and_converge();
}

/// Only a primary that dies has them. None of them executes, until the client asks again; then all
/// of them do, once.
#[test]
pub(crate) fn several_operations_that_died_with_their_primary_are_taken_again_as_one() {
    let mut group = Cluster::of(3);
    let (client, reader) = (group.client(), group.client());
    [R1, R2].into_iter().for_each(|backup| group.cut_both(backup, client.actor()));
    let prepares = group.lose(Messages::of([Kind::Prepare]));
    let before = group.durable_op(R0);
    let calls = client.request_many(vec![add("a", 1), add("b", 2)]);
    group.run_until(|group| group.durable_op(R0) > before);
    group.crash(R0);
    group.run_until_normal();
    group.release(prepares);
    let read = reader.query(get("b"));
    group.run_until_answered(read);
    assert_eq!(group.answer_of(read), Some(None));
    group.heal();
    group.run_until(|group| group.pending().is_empty());
    assert_eq!(group.committed(), calls);
    group.heal_and_converge();
}
