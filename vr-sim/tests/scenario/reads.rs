//! Queries that must not be answered from the past.

use vr_core::{Read, View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    workload::{get, put},
};

/// S66: a primary that was replaced without knowing does not answer.
#[test]
pub(crate) fn a_deposed_primary_does_not_answer_queries() {
    let mut group = Cluster::of(3);
    let (there, here) = (group.client(), group.client());
    group.partition([R0.into(), there.actor()]);
    let read = there.query(get("k"));
    let write = here.request(put("k", 2));
    group.run_until_answered(write);
    group.run_for_heartbeats(20);
    assert!(group.ended(read).is_none());
    group.heal_and_converge();
    assert_eq!(group.answer_of(read), Some(Some(2)));
}

/// S67: a new primary answers no query before it knows that what it started with is committed.
#[test]
pub(crate) fn a_new_primary_answers_after_its_start_is_committed() {
    let mut group = Cluster::of(3);
    let client = group.client();
    client.request(put("k", 1));
    group.deliver_only([Kind::Request, Kind::Requests, Kind::Prepare]);
    let acks = group.hold(Messages::of([Kind::PrepareOk]));
    group.crash(R0);
    group.run_until(|group| group.statuses().iter().any(|status| status.log_view > View(0)));
    let read = client.query(get("k"));
    group.run_for_heartbeats(2);
    assert!(group.ended(read).is_none());
    group.release(acks);
    group.run_until_answered(read);
    assert_eq!(group.answer_of(read), Some(Some(1)));
    group.heal_and_converge();
}

/// S68: a query through a backup sees what was acknowledged before it, also in the next view.
#[test]
pub(crate) fn a_query_through_a_backup_is_linearizable() {
    let mut group = Cluster::of(3);
    let (writer, reader) = (group.client(), group.client());
    for (round, cut_off) in [(1, R0), (2, R1)] {
        group.cut_both(cut_off, reader.actor());
        let write = writer.request(put("k", round));
        group.run_until_answered(write);
        let read = reader.query(get("k"));
        group.run_until_answered(read);
        assert_eq!(group.answer_of(read), Some(Some(round)));
        group.heal();
        if cut_off == R0 {
            group.crash(R0);
            group.run_until_normal();
        }
    }
    group.heal_and_converge();
}

/// S68: a causal query waits at a backup that lags until what its token names is executed there,
/// also when the next view brings it.
#[test]
pub(crate) fn a_causal_query_sees_what_its_token_names() {
    let mut group = Cluster::of(3);
    let (writer, reader) = (group.client(), group.client());
    group.cut_both(R0, R1);
    [R0, R2].into_iter().for_each(|other| group.cut_both(other, reader.actor()));
    let write = writer.request(put("k", 1));
    group.run_until_answered(write);
    let old = reader.query_with(get("k"), Read::Local);
    let read = reader.query_with(get("k"), Read::Causal(writer.token()));
    group.run_for_heartbeats(2);
    assert_eq!((group.answer_of(old), group.ended(read).is_none()), (Some(None), true));
    group.crash(R0);
    group.run_until_answered(read);
    assert_eq!(group.answer_of(read), Some(Some(1)));
    assert!(reader.token() >= writer.token());
    group.heal_and_converge();
}
