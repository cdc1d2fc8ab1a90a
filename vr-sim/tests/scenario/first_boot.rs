//! How a group comes about.

use core::time::Duration;

use vr_core::{View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    workload::put,
};

const MINUTE: Duration = Duration::from_secs(60);

/// S92: members start minutes apart, in any order, with restarts in between. The group forms when
/// the last one arrives; until then the others say whom they wait for.
#[test]
pub(crate) fn members_that_start_minutes_apart_form_one_group() {
    for [first, second, last] in [[R0, R1, R2], [R2, R1, R0], [R1, R2, R0], [R2, R0, R1]] {
        let mut group = Cluster::unstarted_of(3);
        group.start(first);
        group.run_for(MINUTE);
        group.start(second);
        group.run_for(MINUTE);
        group.crash(first);
        group.restart(first);
        group.run_for(MINUTE);
        let explanation = group.explanation(second);
        assert!(explanation.contains(&last.to_string()), "{explanation}");
        group.start(last);
        group.run_until_normal();
        assert_eq!(group.view(), View(0));
        let call = group.client().request(put("k", 1));
        group.run_until_answered(call);
        group.heal_and_converge();
    }
}

/// S92: a member that was counted when the group was founded crashed before it heard so.
#[test]
pub(crate) fn a_founder_that_never_heard_of_the_founding_joins() {
    let mut group = Cluster::unstarted_of(3);
    let news = group.lose(Messages::of([Kind::HelloOk, Kind::Commit, Kind::Prepare]).to(R2));
    group.start_all();
    group.run_until(|group| group.status_if_running(R0).is_some_and(|status| status.serving));
    group.crash(R2);
    group.release(news);
    let call = group.client().request(put("k", 1));
    group.run_until_answered(call);
    group.restart(R2);
    group.run_until(|group| group.applied(R2) == [call]);
    group.heal_and_converge();
}
