//! Clocks that jump, crawl and race.

use core::time::Duration;

use vr_core::View;
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    workload::{add, put},
};

const HOUR: Duration = Duration::from_secs(3600);

/// S45: wall clocks jump by years, and the replicas' clocks run at rates ten times apart.
#[test]
pub(crate) fn clocks_out_of_control_break_nothing() {
    let mut group = Cluster::of(3);
    let client = group.client();
    group.set_clock_rate(R1, 3_000_000);
    group.set_clock_rate(R2, 300_000);
    for round in 0..5 {
        let by = HOUR * 24 * 365 * (round + 1);
        group.jump_clock_ahead(R0, by);
        group.jump_clock_back(R1, by);
        for _ in 0..10 {
            client.request(add("k", 1));
        }
        group.run_for_heartbeats(20);
    }
    for replica in [R1, R2] {
        group.set_clock_rate(replica, 1_000_000);
    }
    group.heal_and_converge();
}

/// S94: the next primary's wall clock is an hour behind, or ahead. Time in the log only grows, and
/// does not follow a jump.
#[test]
pub(crate) fn time_in_the_log_follows_no_jump() {
    for ahead in [false, true] {
        let mut group = Cluster::of(3);
        let client = group.client();
        let first = client.request(put("k", 1));
        group.run_until_answered(first);
        for backup in [R1, R2] {
            match ahead {
                true => group.jump_clock_ahead(backup, HOUR),
                false => group.jump_clock_back(backup, HOUR),
            }
        }
        group.crash(R0);
        let second = client.request(put("k", 2));
        group.run_until_answered(second);
        let (before, after) = (group.stamp_of(first).unwrap(), group.stamp_of(second).unwrap());
        assert!(before.0 == View(0) && after.0 > View(0));
        let grown = Duration::from_nanos(after.1.checked_sub(before.1).expect("time grows"));
        assert!(grown > Duration::ZERO && grown < Duration::from_secs(2), "{grown:?}");
        group.heal_and_converge();
    }
}
