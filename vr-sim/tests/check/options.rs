//! Tests that were not thought through: what the check says to whoever wrote them.

use vr_sim::workload::{self, Kv};

use crate::{assert_says, complaint};

#[test]
fn a_test_without_operations_is_told_so() {
    assert_says(&complaint::<Kv>(|_| {}), &["say what clients ask for with sim.operations"]);
}

#[test]
fn what_is_said_too_late_is_refused() {
    let text = complaint::<Kv>(|sim| {
        sim.operations(workload::drawn);
        sim.group();
        sim.replicas(5);
    });
    assert_says(&text, &["the group runs already"]);
}

#[test]
fn a_group_that_does_not_come_to_rest_is_reported_with_its_state() {
    let text = complaint::<Kv>(|sim| {
        sim.operations(workload::drawn).clients(0..=0);
        sim.group().run_until(|group| group.views_started() > 1_000_000);
    });
    assert_says(&text, &["does not come about", "VR_SIM_SEED=0", "r0: ", "the last events:"]);
    assert_eq!(text.matches("the last events:").count(), 1);
}
