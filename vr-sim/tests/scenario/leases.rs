//! Reads that the primary answers by itself, while the others keep still for it.

use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use vr_core::{Config, Read, View, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2},
    network::selection::Messages,
    options::GroupOptions,
    workload::{Kv, get, put},
};

const LEASE: Duration = Duration::from_secs(1);

/// How far clocks are off at most, in millionths.
const DRIFT: u32 = 10_000;

/// Three replicas with a lease so long that a difference of clocks counts.
fn leased() -> Cluster<Kv> {
    let mut config = Config::default();
    config.lease = LEASE;
    config.clock_drift_ppm_max = DRIFT;
    config.suspicion_timeout = LEASE * 2;
    let mut group = Cluster::with(GroupOptions::of(3).with_config(config));
    group.run_until(|group| group.status(R0).leased_for > LEASE / 2);
    group
}

/// Runs until another view has started; the oracle of leases looks at that moment.
fn run_until_replaced(group: &mut Cluster<Kv>) {
    group.run_until(|group| group.statuses().iter().any(|status| status.log_view > View(0)));
}

/// The clock of the primary is off by `primary` millionths, those of the others by the same the
/// other way; then nobody hears the primary any more, and everybody knows.
fn isolate_with_drift(primary: i64) -> Cluster<Kv> {
    let mut group = leased();
    let rate = |off: i64| 1_000_000_u64.saturating_add_signed(off);
    group.set_clock_rate(R0, rate(primary));
    [R1, R2].into_iter().for_each(|backup| group.set_clock_rate(backup, rate(-primary)));
    group.run_for_heartbeats(4);
    [R1, R2].into_iter().for_each(|backup| group.kill_connection(R0, backup));
    group.run_for(Duration::from_micros(10));
    group.isolate(R0);
    run_until_replaced(&mut group);
    [R0, R1, R2].into_iter().for_each(|replica| group.set_clock_rate(replica, 1_000_000));
    group
}

/// S69: clocks are as far apart as the limit says, either way. Nobody replaces the primary before
/// its lease ends.
#[test]
pub(crate) fn nobody_replaces_a_primary_before_its_lease_ends() {
    for drift in [i64::from(DRIFT), -i64::from(DRIFT)] {
        let mut group = isolate_with_drift(drift);
        assert_eq!(group.status(R0).leased_for, Duration::ZERO);
        group.heal_and_converge();
    }
}

/// S69: clocks that are further apart than the limit says are noticed by the oracle.
#[test]
pub(crate) fn clocks_beyond_the_limit_are_noticed() {
    let run = || drop(isolate_with_drift(-3 * i64::from(DRIFT)));
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("a lease outlives its view");
    let said = panic.downcast_ref::<String>().expect("a report");
    assert!(said.contains("O8 violated"), "{said}");
}

/// S70: a backup grants, crashes and restarts, and is asked to vote for another view. It waits for
/// what it may have granted.
#[test]
pub(crate) fn a_backup_that_restarts_keeps_its_grants() {
    let mut group = leased();
    group.cut_both(R0, R2);
    group.run_for(LEASE * 3 / 2);
    assert!(group.status(R0).leased_for > LEASE / 2, "by the grants of R1 alone");
    group.crash(R1);
    group.isolate(R0);
    group.restart(R1);
    run_until_replaced(&mut group);
    assert_eq!(group.status(R0).leased_for, Duration::ZERO);
    group.heal_and_converge();
}

/// A primary answers by itself what was committed before, and costs nobody a message; without a
/// lease the same query takes a round.
#[test]
pub(crate) fn a_leased_read_costs_no_message() {
    for lease in [LEASE, Duration::ZERO] {
        let mut group = leased();
        let client = group.client();
        let write = client.request(put("k", 1));
        group.run_until_answered(write);
        if lease.is_zero() {
            group.isolate(R0);
            group.connect(R0, client.actor());
            group.run_until(|group| group.status(R0).leased_for.is_zero());
        }
        let heartbeats = group.hold(Messages::of([Kind::Commit]));
        let read = client.query_with(get("k"), Read::Lease);
        group.run_for(Duration::from_millis(40));
        assert_eq!(group.ended(read).is_some(), !lease.is_zero());
        group.release(heartbeats);
        group.heal_and_converge();
        assert_eq!(group.answer_of(read), Some(Some(1)));
    }
}

/// S66 with a lease: once it has ended, a primary that was replaced without knowing does not answer.
#[test]
pub(crate) fn a_deposed_primary_answers_no_leased_query() {
    let mut group = leased();
    let (there, here) = (group.client(), group.client());
    group.partition([R0.into(), there.actor()]);
    run_until_replaced(&mut group);
    let read = there.query_with(get("k"), Read::Lease);
    let write = here.request(put("k", 2));
    group.run_until_answered(write);
    group.run_for_heartbeats(20);
    assert!(group.ended(read).is_none());
    group.heal_and_converge();
    assert_eq!(group.answer_of(read), Some(Some(2)));
}

/// S71 with a lease: a planned hand-off does not wait for it, because the primary gives it up.
#[test]
pub(crate) fn a_hand_off_gives_the_lease_up() {
    let mut group = leased();
    let began = group.now();
    group.hand_off(R0, Some(R1));
    run_until_replaced(&mut group);
    assert!(group.now().since(began) < LEASE / 4);
    group.heal_and_converge();
}

/// The primary is known to be gone, and still nobody votes until what was granted to it has ended.
#[test]
pub(crate) fn a_view_change_waits_for_the_lease() {
    let mut group = leased();
    let began = group.now();
    group.crash(R0);
    run_until_replaced(&mut group);
    let took = group.now().since(began);
    assert!(took > LEASE * 9 / 10 && took < LEASE * 3 / 2, "{took:?}");
    group.heal_and_converge();
}
