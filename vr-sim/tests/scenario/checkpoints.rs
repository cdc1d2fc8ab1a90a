//! Checkpoints: logs that are released, and replicas that get a checkpoint in the place of one.

use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};
use vr_core::{
    Config, Context, Durability, OpNumber, QueryContext, StateMachine,
    model::{kind::Kind, types::ReplicaId},
};
use vr_sim::{
    cluster::{Cluster, R0, R1, R2, R3, R4, client::SimClient},
    network::selection::Messages,
    options::GroupOptions,
    workload::{Kv, put},
};

/// Limits with a checkpoint every ten ops, below which nothing is kept.
fn config() -> Config {
    let mut config = Config::default();
    config.checkpoint_ops = 10;
    config.log_retain_ops = 0;
    config
}

fn options(durability: Durability) -> GroupOptions {
    let options = GroupOptions::of(3).with_durability(durability).with_config(config());
    GroupOptions { padding: 200 << 10, ..options }
}

fn write(group: &mut Cluster<Kv>, client: &SimClient<Kv>, count: i64) {
    for value in 0..count {
        let call = client.request(put("x", value));
        group.run_until_answered(call);
    }
}

/// A group in which r2 was away while the others released everything that it would need.
fn left_behind(durability: Durability) -> (Cluster<Kv>, SimClient<Kv>) {
    left_behind_in(options(durability))
}

/// The same in such a group.
fn left_behind_in(options: GroupOptions) -> (Cluster<Kv>, SimClient<Kv>) {
    let mut group = Cluster::with(options);
    let client = group.client();
    write(&mut group, &client, 3);
    group.isolate(R2);
    write(&mut group, &client, 35);
    group.run_for_heartbeats(4);
    let released = group.status(R2).op_number;
    assert!([R0, R1].iter().all(|replica| group.status(*replica).log_base > released));
    (group, client)
}

/// A backup that was away gets a checkpoint, and goes on from the log above it.
#[test]
fn a_replica_that_was_away_gets_a_checkpoint() {
    for durability in Durability::ALL {
        let (mut group, client) = left_behind(durability);
        group.heal();
        group.run_until(|group| group.snapshots() == 1);
        write(&mut group, &client, 20);
        group.heal_and_converge();
        assert_eq!(group.snapshots(), 1, "one is enough");
        assert!(group.status(R2).log_base >= OpNumber(30));
    }
}

/// A group in which r2 was away and has fetched a checkpoint, and how many chunks came compressed.
fn fetched(options: GroupOptions) -> (Cluster<Kv>, u64) {
    let (mut group, _client) = left_behind_in(options);
    group.heal();
    group.run_until(|group| group.snapshots() == 1);
    let compressed = group.compressed_chunks();
    (group, compressed)
}

/// Chunks come compressed where both ends do so, and as they are otherwise.
#[test]
fn replicas_with_and_without_compression_share_checkpoints() {
    for durability in Durability::ALL {
        let (_, compressed) = fetched(options(durability));
        assert!(compressed > 0, "all do so");
        let mut plain = options(durability);
        plain.config.compress_checkpoints = false;
        let (_, compressed) = fetched(plain);
        assert_eq!(compressed, 0, "nobody does so");
    }
    let mut seen = [false; 2];
    for seed in 0..8 {
        let mixed = GroupOptions { mixed_compression: true, ..options(Durability::Full) };
        let (mut group, compressed) = fetched(mixed.with_seed(seed));
        seen[usize::from(compressed > 0)] = true;
        group.crash(R2);
        group.restart(R2);
        group.heal_and_converge();
    }
    assert_eq!(seen, [true; 2]);
}

/// S55: the primary releases its log and dies for good, while a backup lags.
#[test]
fn a_released_log_is_not_missed() {
    for durability in Durability::ALL {
        let (mut group, client) = left_behind(durability);
        group.crash(R0);
        group.heal();
        group.run_until(|group| group.snapshots() == 1);
        write(&mut group, &client, 5);
        group.heal_and_converge();
    }
}

/// S54: the replica that installs a checkpoint dies at some moment.
#[test]
fn an_installation_that_is_cut_short_is_begun_again() {
    for pause in (0..60).map(|step| Duration::from_micros(step * 150)) {
        let (mut group, _client) = left_behind(Durability::Full);
        group.heal();
        group.run_until(|group| group.status(R2).snapshot.is_some());
        group.run_for(pause);
        group.crash(R2);
        group.restart(R2);
        group.heal_and_converge();
    }
}

/// Sources die one after the other while a checkpoint is fetched, and the way to them breaks.
#[test]
fn a_fetch_outlives_its_sources() {
    let (mut group, client) = left_behind(Durability::Full);
    group.heal();
    for source in [R0, R1, R0] {
        group.run_until(|group| group.status(R2).snapshot.is_some() || group.snapshots() > 0);
        group.crash(source);
        group.run_for_heartbeats(1);
        group.restart(source);
        group.run_until_normal();
    }
    write(&mut group, &client, 3);
    group.heal_and_converge();
    assert!(group.snapshots() > 0);
}

/// Nothing is acknowledged on the strength of a checkpoint that a crash could take back.
pub(crate) fn a_checkpoint_is_named_before_it_is_spoken_of() {
    let (mut group, client) = left_behind(Durability::Full);
    group.heal();
    group.run_until(|group| group.status(R2).snapshot.is_some());
    group.hold_storage(R2);
    group.run_for_heartbeats(12);
    assert_eq!(group.snapshots(), 0);
    group.release_storage(R2);
    write(&mut group, &client, 3);
    group.heal_and_converge();
    assert_eq!(group.snapshots(), 1);
}

#[test]
fn a_checkpoint_is_named_before_its_replica_speaks_of_it() {
    a_checkpoint_is_named_before_it_is_spoken_of();
}

/// S58, across a checkpoint and a transfer: the reply is lost, the primary dies, and the replica that
/// leads next has the operation from a checkpoint only.
#[test]
fn a_request_that_is_in_a_checkpoint_executes_once() {
    let mut group = Cluster::with(options(Durability::Full));
    let client = group.client();
    write(&mut group, &client, 3);
    group.isolate(R2);
    let lost = group.hold(Messages::of([Kind::Reply, Kind::Replies, Kind::ForwardReply]));
    let call = client.request(put("once", 1));
    group.run_until(|group| group.committed().contains(&call));
    let other = group.client_without_session();
    drop(other);
    group.run_for_heartbeats(2);
    group.release(lost);
    let writer = group.client();
    write(&mut group, &writer, 30);
    group.heal();
    group.run_until(|group| group.snapshots() == 1);
    group.hand_off(R0, Some(R2));
    group.run_until(|group| group.primary() == R2);
    group.crash(R0);
    group.run_until_answered(call);
    group.heal_and_converge();
    assert_eq!(group.committed().iter().filter(|done| **done == call).count(), 1);
}

/// A wiped disk comes back by a checkpoint; so does a lost log.
#[test]
fn a_wiped_disk_gets_a_checkpoint() {
    let (mut group, client) = left_behind(Durability::Full);
    group.heal_and_converge();
    group.crash(R1);
    group.wipe(R1);
    group.restart(R1);
    group.heal_and_converge();
    assert_eq!((group.rebuilds(), group.snapshots()), (1, 2));
    group.crash(R2);
    group.lose_log(R2);
    group.restart(R2);
    write(&mut group, &client, 15);
    group.heal_and_converge();
}

/// A service that answers the same everywhere, and keeps something else at one replica.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Odd {
    sum: u64,
    hidden: u64,
    #[serde(skip)]
    extra: u64,
}

impl StateMachine for Odd {
    type Operation = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, add: u64) -> u64 {
        self.sum += add;
        self.hidden = self.sum + self.extra;
        self.sum
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.sum
    }

    vr_core::serde_snapshot!();
}

/// What a group says in which the state of `odd` is another one.
fn complaint_about(odd: ReplicaId) -> String {
    let run = || {
        let make = move |replica| Odd { extra: u64::from(replica == odd), ..Odd::default() };
        let mut group = Cluster::unstarted_each(options(Durability::Full), make);
        group.start_all();
        let client = group.client();
        for add in 0..30 {
            let call = client.request(add);
            group.run_until_answered(call);
        }
        group.run_for_heartbeats(4);
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("the replica stops");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// S57: a state machine that is not deterministic: the odd replica stops, whoever leads.
pub(crate) fn the_odd_replica_stops() {
    for odd in [R0, R1, R2] {
        let said = complaint_about(odd);
        let expected = format!("r{odd} stopped: diverged");
        assert!(said.contains(&expected), "'{expected}' is not in: {said}");
        assert!(said.contains("another state after the same ops"), "{said}");
    }
}

#[test]
fn of_three_states_the_odd_one_stops() {
    the_odd_replica_stops();
}

/// A service whose state is another one at each replica after every tenth op, and then the same again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Fickle {
    sum: u64,
    mood: u64,
    #[serde(skip)]
    own: u64,
}

impl StateMachine for Fickle {
    type Operation = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, context: &Context, add: u64) -> u64 {
        self.sum += add;
        self.mood = if context.viewstamp.op_number.0.is_multiple_of(10) { self.own } else { 0 };
        self.sum
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.sum
    }

    vr_core::serde_snapshot!();
}

/// No checkpoint that is due is agreed on, so the log fills up and requests are answered busy: where
/// the group stands still it takes one, the log is released for it, and the request that waited is
/// taken. Whoever was away all the while catches up from that one.
#[test]
fn a_full_log_that_stands_still_gets_a_checkpoint_for_all() {
    for durability in Durability::ALL {
        let mut options = options(durability);
        (options.config.log_ops_max, options.config.pipeline_ops_max) = (24, 8);
        let make = |replica: ReplicaId| Fickle { own: replica.0 + 1, ..Fickle::default() };
        let mut group = Cluster::unstarted_each(options, make);
        group.start_all();
        let client = group.client();
        group.run_until_answered(client.request(1));
        group.isolate(R2);
        while group.status(R0).op_number < OpNumber(24) {
            group.run_until_answered(client.request(1));
        }
        assert!([R0, R1].iter().all(|replica| group.status(*replica).log_base == OpNumber(0)));
        group.run_until_answered(client.request(1));
        assert_eq!(group.status(R0).checkpoint.op_number, OpNumber(24), "due were 10 and 20");
        group.heal();
        group.run_until(|group| group.snapshots() == 1);
        group.heal_and_converge();
        assert!(group.status(R2).log_base >= OpNumber(24));
    }
}

/// Of five, r0 and r1 hold ops up to 16 that the others never had, r0 with a hole at 10 and 11; the
/// others hold other ops there and have released theirs up to 10.
fn two_histories() -> Cluster<Kv> {
    let mut group = Cluster::with(GroupOptions::of(5).with_config(config()));
    let client = group.client();
    write(&mut group, &client, 5);
    group.run_until_converged();
    for replica in [R2, R3, R4] {
        group.crash(replica);
    }
    for value in 0..9 {
        client.request(put("y", value));
        group.run_for(Duration::from_millis(8));
    }
    assert!([R0, R1].iter().all(|id| group.durable_op(*id) == OpNumber(16)));
    group.crash_all();
    for replica in [R2, R3, R4] {
        group.start(replica);
    }
    group.run_until_normal();
    group.run_until(|group| group.status(R2).log_base == OpNumber(10));
    assert!([10, 11].iter().all(|op_number| group.rot_batch(R0, OpNumber(*op_number))));
    group
}

/// NP6, restarted: the checkpoint that r0 fetches is of another history than what is above it on
/// its disk. Only r1 can tell, and r0 asks it in its next life.
#[test]
fn what_does_not_follow_a_fetched_checkpoint_is_dropped_by_a_later_life() {
    let mut group = two_histories();
    group.start(R0);
    group.run_until(|group| group.snapshots() == 1);
    group.crash(R0);
    group.partition([R0.into(), R1.into()]);
    group.start(R0);
    group.start(R1);
    group.run_until(|group| group.is_running(R0) && group.is_running(R1));
    assert!(group.status(R0).incomplete);
    group.run_until(|group| !group.status(R0).incomplete);
    assert_eq!(group.status(R0).op_number, OpNumber(10));
    group.heal_and_converge();
}

/// Of five, r0 leads view 0 cut off from r2, r3 and r4, which are in a later view by now. r1, whose log
/// of view 0 has a hole, asks r2 for what it lacks, and hears nothing of r2's view but its answers.
fn with_a_hole_beside_a_later_view() -> Cluster<Kv> {
    let mut group = Cluster::with(GroupOptions::of(5).with_config(config()));
    let client = group.client();
    write(&mut group, &client, 5);
    group.run_until_converged();
    assert_eq!(group.primary(), R0);
    group.partition([R0.into(), R1.into(), client.actor()]);
    for value in 0..9 {
        client.request(put("y", value));
        group.run_for(Duration::from_millis(8));
    }
    assert!([R0, R1].iter().all(|id| group.durable_op(*id) == OpNumber(16)));
    group.crash(R1);
    let other = group.client_without_session();
    for one in [R0, R1] {
        group.cut_both(other.actor(), one);
    }
    for value in 0..9 {
        let call = other.request(put("z", value));
        group.run_until_answered(call);
    }
    group.run_until(|group| group.status(R2).log_base >= OpNumber(10));
    assert!([9, 10].iter().all(|op_number| group.rot_batch(R1, OpNumber(*op_number))));
    group.cut_both(R0, R1);
    group.connect(R1, R2);
    for kind in [Kind::Ping, Kind::Pong, Kind::Commit, Kind::Prepare, Kind::StartView] {
        group.lose(Messages::of([kind]).from(R2).to(R1));
    }
    group.start(R1);
    group.run_for(Duration::from_secs(3));
    assert_eq!((group.status(R1).view.0, group.snapshots()), (0, 0));
    group
}

/// A checkpoint of a later view's history is not fetched in an earlier one, whose primary may still be
/// there: both would take the other's log for a fork of their own.
#[test]
fn a_checkpoint_of_a_later_view_is_not_fetched_in_an_earlier_one() {
    let mut group = with_a_hole_beside_a_later_view();
    group.connect(R0, R1);
    group.run_for(Duration::from_secs(3));
    group.heal_and_converge();
}

#[test]
fn nor_is_it_acknowledged_there_after_a_restart() {
    let mut group = with_a_hole_beside_a_later_view();
    group.crash(R1);
    group.cut_both(R1, R2);
    group.connect(R0, R1);
    group.start(R1);
    group.run_for(Duration::from_secs(3));
    group.heal_and_converge();
}
