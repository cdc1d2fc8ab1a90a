//! What holds in a group that is asked for more than it may hold.

use vr_core::{Config, model::kind::Kind};
use vr_sim::{
    cluster::{Cluster, R0, R2},
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

/// The disk of a backup stalls, so that it can hold no checkpoint, while the others take one after
/// another: its log ends where it is full. Once the disk is back it gets what it lacks.
pub(crate) fn a_log_that_cannot_be_shortened_ends_where_it_is_full() {
    let mut config = Config::default();
    (config.checkpoint_ops, config.log_retain_ops) = (8, 0);
    (config.log_ops_max, config.pipeline_ops_max) = (20, 8);
    let mut group = Cluster::with(GroupOptions::of(3).with_config(config));
    let client = group.client();
    group.run_until_answered(client.request(put("k", 0)));
    group.hold_storage(R2);
    for value in 1..100 {
        group.run_until_answered(client.request(put("k", value)));
    }
    let status = group.status(R2);
    assert!(status.op_number < group.status(R0).op_number, "it lacks what did not fit");
    assert!(status.op_number.since(status.log_base) <= 20);
    group.release_storage(R2);
    group.heal_and_converge();
    assert!(group.status(R2).log_base > status.op_number, "what it lacked was released elsewhere");
}
