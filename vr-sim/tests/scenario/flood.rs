//! Messages that come twice, late, and from views long gone.

use vr_core::model::kind::Kind;
use vr_sim::{
    cluster::{Cluster, R0},
    network::{faults::NetworkFaults, selection::Messages},
    options::GroupOptions,
    workload::add,
};

/// S43: a third of all messages is doubled, any message may overtake any other, and whole old
/// views are played again.
#[test]
pub(crate) fn a_flood_of_old_messages_changes_nothing() {
    let network = NetworkFaults {
        duplicate: 300_000,
        reorder: 1_000_000,
        latency_max: core::time::Duration::from_millis(20),
        ..NetworkFaults::none()
    };
    for seed in 0..3 {
        let mut group = Cluster::with(GroupOptions::of(3).with_seed(seed));
        let client = group.client();
        group.network().keep_history();
        group.set_network_faults(network.clone());
        for round in 0..3 {
            let calls: Vec<_> = (0..30).map(|_| client.request(add("k", 1))).collect();
            group.run_until(|group| calls.iter().all(|call| group.ended(*call).is_some()));
            group.crash(if round == 0 { R0 } else { group.primary() });
            group.run_until_normal();
            group.network().replay(&Messages::all());
            group.start_all();
        }
        assert!(group.network().replay(&Messages::of([Kind::Prepare])) > 0);
        group.heal_and_converge();
        assert_eq!(group.committed().len(), 90);
    }
}
