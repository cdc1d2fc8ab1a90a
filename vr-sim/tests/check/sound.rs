//! A service without a fault, and what a test can do to it and ask about it.

use core::time::Duration;

use vr_core::Durability;
use vr_sim::{
    Sim, check,
    cluster::{R0, R1},
    linearizability::{model::Scope, state_machine::Asked},
    workload::{self, Kv, Op, add},
};

fn load(sim: &mut Sim<Kv>) {
    sim.operations(workload::drawn).queries(workload::drawn_key);
}

#[test]
fn a_sound_service_passes_fifty_seeds() {
    let checked = check::<Kv>(0..50, |sim| {
        load(sim);
        sim.clients(1..=2).storm(Duration::from_millis(500));
        let outcome = sim.run();
        assert!(outcome.states.len() >= 2, "a minority may have lost its disks");
        assert!(outcome.states.windows(2).all(|pair| pair[0].1 == pair[1].1));
    });
    assert_eq!(checked.seeds, 50);
    assert!(checked.total.committed > 1000 && checked.total.crashes > 20, "{checked}");
}

#[test]
fn a_check_repeats_itself() {
    let run = || check::<Kv>(5..7, load).total.fingerprint;
    assert_eq!(run(), run());
}

#[test]
fn what_clients_saw_has_one_order() {
    let checked = check::<Kv>(0..10, |sim| {
        load(sim);
        sim.linearizable_by(|asked| match asked {
            Asked::Query(key)
            | Asked::Operation(Op::Put(key, _) | Op::Add(key, _) | Op::Swap(key, ..)) => {
                Scope::Keys(vec![key.clone()])
            }
        });
    });
    assert!(checked.total.acknowledged > 1000, "{checked}");
}

#[test]
fn what_goes_wrong_can_be_chosen() {
    let checked = check::<Kv>(0..3, |sim| {
        load(sim);
        sim.replicas(5).durability(Durability::ViewOnly).clients(2..=2).callers(1..=1);
        sim.process_faults(false).disk_faults(false).clock_faults(false);
        sim.storm(Duration::from_secs(1));
    });
    // The end of every storm takes a minority down; during it, no process fails.
    assert_eq!(checked.total.crashes, 0, "{checked}");
    assert!(checked.total.committed > 0, "{checked}");
}

#[test]
fn the_group_can_be_harmed_by_hand() {
    let checked = check::<Kv>(0..3, |sim| {
        load(sim);
        sim.clients(1..=2)
            .network_faults(false)
            .process_faults(false)
            .disk_faults(false)
            .clock_faults(false);
        let group = sim.group();
        group.run_for(Duration::from_millis(500));
        group.crash(R0);
        group.run_until_normal();
        let call = group.client().request(add("by hand", 7));
        group.run_until_answered(call);
        assert_eq!(group.reply_of(call), Some(Some(7)));
        group.restart(R0);
        group.pause(R1);
        let outcome = sim.run();
        assert!(outcome.log.iter().any(|(_, operation, _)| *operation == add("by hand", 7)));
        assert!(outcome.history.iter().all(|call| call.ended.is_some()));
    });
    assert_eq!(checked.seeds, 3);
}
