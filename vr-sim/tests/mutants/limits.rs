//! What holds in a group that is asked for more than it may hold.

use vr_core::{Config, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0},
    network::selection::Messages,
    options::GroupOptions,
    workload::put,
};

/// Clients that reach backups only ask for more than those may hold for their primary, which does
/// not hear of it. The rest is told to come again.
pub(crate) fn a_backup_holds_no_more_than_it_may() {
    let mut config = Config::default();
    config.forward_ops_max = 4;
    let mut group = Cluster::with(GroupOptions::of(3).with_config(config));
    let clients: Vec<_> = (0..20).map(|_| group.client()).collect();
    let forwards = group.lose(Messages::of([Kind::Forward]));
    for client in &clients {
        group.cut_both(client.actor(), R0);
        client.request(put("k", 1));
    }
    group.run_for_heartbeats(20);
    group.release(forwards);
    group.heal_and_converge();
    assert_eq!(group.committed().len(), clients.len());
}
