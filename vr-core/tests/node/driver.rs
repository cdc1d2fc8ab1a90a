//! What a node does with its ports, and what its clients see of it.

use core::time::Duration;

use futures::{FutureExt, StreamExt, future::join_all};
use vr_core::{
    Cause, Client, ClientOutcome, Durability, Event, HandoffError, Members, Node, NodeError,
    NotResumed, Read, ReplicaId, RequestError, Ticket, View, node::local::LocalNetwork,
};

use crate::{
    clockwork::Clockwork,
    group::Group,
    memory::Memory,
    service::{Counter, Operation},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn three_nodes_execute_once_and_agree() {
    let group = Group::of(3);
    let client = group.client();
    assert_eq!((1..=3).map(|_| group.add(&client, 2)).collect::<Vec<_>>(), [2, 4, 6]);
    assert_eq!(group.clock.run(client.query((), Read::Linearizable)), Ok(6));
    group.clock.run_for(SECOND);
    let digests = join_all(group.nodes.iter().map(|node| node.digest()));
    let digests: Vec<_> = group.clock.run(digests).into_iter().map(Result::unwrap).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert!(group.nodes.iter().all(|node| node.explain().is_well()));
}

#[test]
fn groups_of_many_sizes_serve() {
    for members in [1, 2, 4, 5, 7] {
        let group = Group::of(members);
        assert_eq!(group.add(&group.client(), 1), 1, "{members} members");
    }
}

#[test]
fn a_client_in_the_process_reaches_the_primary_through_any_node() {
    let group = Group::of(3);
    for (more, node) in (1..).zip(&group.nodes) {
        assert_eq!(group.add(&node.client(), 1), more);
        assert_eq!(group.clock.run(node.client().query((), Read::Linearizable)), Ok(more));
    }
}

#[test]
fn clients_ride_through_the_loss_of_the_primary() {
    let group = Group::of(3);
    let (outside, inside) = (group.client(), group.nodes[1].client());
    group.add(&outside, 1);
    group.add(&inside, 1);
    let calls = (0..40).map(|_| outside.execute(Operation::Add(1)));
    let calls = calls.chain((0..40).map(|_| inside.execute(Operation::Add(1))));
    let mut calls = Box::pin(join_all(calls));
    assert!(calls.as_mut().now_or_never().is_none());
    group.crash(group.primary(1));
    let replies = group.clock.run(calls);
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    assert_eq!(group.add(&outside, 1), 83, "each executed exactly once");
    assert_ne!(group.primary(1), 0);
}

#[test]
fn a_node_that_comes_back_catches_up() {
    let mut group = Group::of(3);
    let client = group.client();
    group.add(&client, 1);
    group.crash(0);
    let counts: Vec<_> = (0..100).map(|_| group.add(&client, 1)).collect();
    assert_eq!(counts.last(), Some(&101));
    group.nodes[0] = group.start(0);
    group.clock.run_for(SECOND);
    let (back, other) = (group.nodes[0].status().replica, group.nodes[1].status().replica);
    assert_eq!((back.applied, back.view), (other.applied, other.view));
    assert_eq!(group.clock.run(group.nodes[0].client().query((), Read::Local)), Ok(101));
}

#[test]
fn everything_acknowledged_survives_the_loss_of_all() {
    let mut group = Group::of(3);
    group.add(&group.client(), 7);
    (0..3).for_each(|id| group.crash(id));
    group.nodes = (0..3).map(|id| group.start(id)).collect();
    assert_eq!(group.add(&group.client(), 1), 8);
}

#[test]
fn a_dropped_call_does_not_delay_the_others() {
    let group = Group::of(3);
    let client = group.client();
    group.add(&client, 1);
    for _ in 0..200 {
        let mut call = Box::pin(client.execute(Operation::Add(1)));
        assert!(call.as_mut().now_or_never().is_none());
    }
    let count = group.add(&client, 1);
    assert!((66..=202).contains(&count), "those with a number executed: {count}");
}

#[test]
fn calls_without_a_group_time_out_and_say_that_nothing_was_sent() {
    let group = Group::empty(3);
    let error = group.clock.run(group.client().execute(Operation::Add(1))).unwrap_err();
    assert_eq!(error, RequestError::NotSent { waited: 10 * SECOND, busy: None });
}

#[test]
fn a_call_in_flight_when_the_quorum_goes_is_unknown() {
    let group = Group::of(3);
    let client = group.client().with_timeout(2 * SECOND);
    group.add(&client, 1);
    (1..3).for_each(|id| group.crash(id));
    let error = group.clock.run(client.execute(Operation::Add(1))).unwrap_err();
    assert_eq!(error.outcome(), ClientOutcome::Unknown, "{error}");
    assert!(group.nodes[0].explain().about(Cause::NoQuorum).is_some());
}

/// The client that made the call is gone when the quorum is back.
#[test]
fn what_became_of_a_call_can_be_found_out_by_another_client() {
    let mut group = Group::of(3);
    let client = group.client().with_timeout(2 * SECOND);
    group.add(&client, 1);
    (1..3).for_each(|id| group.crash(id));
    let error = group.clock.run(client.execute(Operation::Add(1))).unwrap_err();
    let ticket = error.ticket().unwrap().to_bytes();
    drop(client);
    (1..3).for_each(|id| group.nodes[usize::try_from(id).unwrap()] = group.start(id));
    let other = group.client();
    for _ in 0..2 {
        let ticket = Ticket::from_bytes(&ticket).unwrap();
        assert_eq!(group.clock.run(other.resume(ticket)), Ok(2));
    }
    assert_eq!(group.add(&other, 1), 3, "it executed once");
}

#[test]
fn several_operations_execute_as_one_with_a_reply_each() {
    let group = Group::of(3);
    let (client, other) = (group.client(), group.client());
    let add = |more: &[u64]| more.iter().map(|more| Operation::Add(*more)).collect::<Vec<_>>();
    let before = group.nodes[0].status().replica.op_number.0;
    let calls = [client.execute_many(add(&[1, 2, 3])), other.execute_many(add(&[10, 20]))];
    let replies: Vec<_> =
        group.clock.run(join_all(calls)).into_iter().map(Result::unwrap).collect();
    let either = [[vec![1, 3, 6], vec![16, 36]], [vec![31, 33, 36], vec![10, 30]]];
    assert!(either.iter().any(|either| *either == replies[..]), "{replies:?}");
    assert_eq!(group.nodes[0].status().replica.op_number.0, before + 4, "two of them sessions");
    assert_eq!(group.clock.run(client.execute_many(Vec::new())), Ok(Vec::new()));
    let large = vec![vec![0; 600_000].into(), vec![0; 600_000].into()];
    let error = group.clock.run(client.execute_many_raw(large)).unwrap_err();
    let (bytes, bytes_max) = (1_200_008, 1 << 20);
    assert_eq!(error, RequestError::TooLarge { bytes, bytes_max });
    let mixed = vec![vec![0xff; 3].into(), vec![0, 1].into()];
    let error = group.clock.run(client.execute_many_raw(mixed)).unwrap_err();
    let RequestError::PartlyMalformed { replies } = error else { panic!("{error}") };
    assert_eq!(replies, [None, Some(vec![37].into())]);
}

#[test]
fn a_ticket_for_several_operations_is_resumed_for_several() {
    let mut group = Group::of(3);
    let client = group.client().with_timeout(2 * SECOND);
    group.add(&client, 1);
    (1..3).for_each(|id| group.crash(id));
    let several = vec![Operation::Add(1), Operation::Add(2)];
    let error = group.clock.run(client.execute_many(several)).unwrap_err();
    let ticket = error.ticket().unwrap().clone();
    assert!(ticket.is_many());
    (1..3).for_each(|id| group.nodes[usize::try_from(id).unwrap()] = group.start(id));
    let other = group.client();
    let refused = group.clock.run(other.resume(ticket.clone())).unwrap_err();
    assert!(matches!(refused, RequestError::NotResumed { reason: NotResumed::Many, .. }));
    assert_eq!(group.clock.run(other.resume_many(ticket)), Ok(vec![2, 4]));
}

#[test]
fn a_node_that_waits_for_others_names_them() {
    let group = Group::empty(3);
    let (zero, _one) = (group.start(0), group.start(1));
    group.clock.run_for(SECOND);
    let words = zero.explain().about(Cause::Blank).unwrap().words.clone();
    assert!(words.contains("1 of 2 other members have not answered: 2"), "{words}");
    let two = group.start(2);
    group.clock.run_for(2 * SECOND);
    assert!(zero.explain().is_well() && two.explain().is_well(), "{}", zero.explain());
}

#[test]
fn events_tell_of_the_group_and_of_views() {
    let group = Group::of(3);
    let mut events = group.nodes[1].events();
    group.add(&group.client(), 1);
    group.crash(0);
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(Event::ViewStarted { view, .. }) if view.0 > 0) {
        seen.push(group.clock.run(events.next()).unwrap());
    }
    assert!(seen.contains(&Event::GroupJoined { founded: false }), "{seen:?}");
    assert!(seen.iter().any(|event| matches!(event, Event::ViewChangeBegan { .. })));
}

#[test]
fn a_failing_disk_stops_its_node_and_no_other() {
    let group = Group::of(3);
    let client = group.client();
    group.add(&client, 1);
    group.disks[2].with(|disk| disk.broken = true);
    group.add(&client, 1);
    let stopped = group.clock.run(group.nodes[2].stopped()).unwrap_err();
    assert!(matches!(stopped, NodeError::Storage(_)), "{stopped}");
    assert!(group.nodes[2].explain().about(Cause::Stopped).unwrap().words.contains("no space"));
    assert_eq!(group.add(&client, 1), 3);
    let refused = group.clock.run(group.nodes[2].client().execute(Operation::Add(1)));
    assert_eq!(refused, Err(RequestError::ShuttingDown));
}

#[test]
fn a_stalled_disk_is_noticed_and_its_write_is_never_dropped() {
    let group = Group::of(1);
    let client = group.client().with_timeout(2 * SECOND);
    group.add(&client, 1);
    group.disks[0].stall(true);
    assert!(group.clock.run(client.execute(Operation::Add(1))).is_err());
    let explanation = group.nodes[0].explain();
    assert!(explanation.about(Cause::StorageStalled).is_some(), "{explanation}");
    let mut stopping = Box::pin(group.nodes[0].shutdown());
    assert!(stopping.as_mut().now_or_never().is_none());
    group.clock.run_for(SECOND);
    assert_eq!(group.disks[0].with(|disk| disk.torn), 0);
    group.disks[0].stall(false);
    assert!(group.clock.run(stopping).is_ok());
    assert_eq!(group.disks[0].with(|disk| (disk.torn, disk.entries.len())), (0, 3));
}

#[test]
fn writes_gather_behind_the_one_in_flight() {
    let group = Group::of(1);
    let client = group.client();
    group.add(&client, 1);
    let before = group.disks[0].with(|disk| disk.writes);
    group.disks[0].stall(true);
    let mut calls = Box::pin(join_all((0..50).map(|_| client.execute(Operation::Add(1)))));
    assert!(calls.as_mut().now_or_never().is_none());
    group.clock.run_for(SECOND);
    group.disks[0].stall(false);
    assert!(group.clock.run(calls).iter().all(Result::is_ok));
    assert!(group.disks[0].with(|disk| disk.writes) <= before + 3);
}

#[test]
fn quiet_is_noted_once() {
    let group = Group::of(1);
    group.add(&group.client(), 1);
    group.clock.run_for(SECOND);
    let once = group.disks[0].with(|disk| disk.idle_marks);
    group.clock.run_for(10 * SECOND);
    assert_eq!(group.disks[0].with(|disk| disk.idle_marks), once);
    assert!(once > 0);
}

#[test]
fn an_idle_node_sleeps_between_heartbeats() {
    let group = Group::of(3);
    group.add(&group.client(), 1);
    group.clock.run_for(SECOND);
    let received = || group.nodes[1].status().transport.received;
    let before = received();
    group.clock.run_for(SECOND);
    assert!(received() - before < 60, "{}", received() - before);
}

#[test]
fn a_panic_in_apply_stops_the_node_with_the_op_number() {
    let group = Group::of(1);
    let client = group.client();
    group.add(&client, 1);
    let error = group.clock.run(client.execute(Operation::Panic)).unwrap_err();
    assert_eq!(error.outcome(), ClientOutcome::Unknown);
    let stopped = group.clock.run(group.nodes[0].stopped()).unwrap_err();
    let NodeError::ApplyPanicked { op_number, message } = stopped else { panic!("{stopped}") };
    assert_eq!((op_number.0, message.as_str()), (3, "as it was told"));
}

#[test]
fn a_shutdown_lets_what_is_prepared_commit() {
    let group = Group::of(3);
    let client = group.nodes[0].client();
    group.add(&client, 1);
    (1..3).for_each(|id| group.disks[id].stall(true));
    let mut call = Box::pin(client.execute(Operation::Add(1)));
    assert!(call.as_mut().now_or_never().is_none());
    group.clock.run_for(Duration::from_millis(1));
    let mut shutdown = Box::pin(group.nodes[0].shutdown());
    assert!(shutdown.as_mut().now_or_never().is_none());
    let mut late = Box::pin(client.execute(Operation::Add(1)));
    assert!(late.as_mut().now_or_never().is_none());
    group.clock.run_for(Duration::from_millis(1));
    (1..3).for_each(|id| group.disks[id].stall(false));
    assert!(!group.nodes[0].status().has_stopped);
    assert!(group.clock.run(shutdown).is_ok());
    assert!(group.nodes[0].status().has_stopped && !group.nodes[0].explain().is_well());
    assert_eq!(group.clock.run(call), Ok(2));
    assert_eq!(group.clock.run(late), Ok(3), "it is passed on to the next primary");
    assert_eq!(group.primary(1), 1);
    assert_eq!(group.add(&group.client(), 1), 4, "the others go on");
}

/// Nobody is left who would send it, or keep its deadline.
#[test]
fn a_call_after_the_node_stopped_fails_at_once_also_beside_others() {
    let group = Group::of(1);
    let client = group.nodes[0].client();
    group.add(&client, 1);
    let mut calls = [Operation::Panic, Operation::Add(1)].map(|it| Box::pin(client.execute(it)));
    assert!(calls.iter_mut().all(|call| call.as_mut().now_or_never().is_none()));
    group.clock.run_for(SECOND);
    let late = client.execute(Operation::Add(1)).now_or_never();
    let failed = late.expect("it is over at once").unwrap_err();
    assert_eq!(failed.outcome(), ClientOutcome::NotExecuted, "{failed}");
    assert!(calls.into_iter().all(|call| group.clock.run(call).is_err()));
}

#[test]
fn a_primary_hands_off_to_whom_it_is_told() {
    let group = Group::of(3);
    let client = group.client();
    group.add(&client, 1);
    group.clock.run_for(SECOND);
    let handed = group.clock.run(group.nodes[0].hand_off(Some(ReplicaId(2)))).unwrap();
    assert_eq!((handed.view, handed.primary), (View(2), ReplicaId(2)));
    assert_eq!(group.add(&client, 1), 2);
    let refused = group.clock.run(group.nodes[0].hand_off(None));
    assert_eq!(refused, Err(HandoffError::NotPrimary { primary: ReplicaId(2) }));
}

#[test]
fn whoever_loses_its_runtime_says_so() {
    let group = Group::of(1);
    group.crash(0);
    let stopped = group.clock.run(group.nodes[0].stopped()).unwrap_err();
    assert!(matches!(stopped, NodeError::Dropped), "{stopped}");
    assert!(group.clock.run(group.nodes[0].digest()).is_err());
}

#[test]
fn a_node_says_what_it_was_not_told() {
    let clock = Clockwork::new();
    let service = Counter::default();
    let builder = Node::builder(service).members(Members::local(3).unwrap());
    let builder = builder.storage(Memory::default()).transport(LocalNetwork::new().transport());
    let error = clock.run(builder.replica(ReplicaId(0)).start()).unwrap_err();
    assert_eq!(error.to_string(), "the node was not told its runtime");
    let error = clock.run(Client::<Counter>::builder().connect()).unwrap_err();
    assert_eq!(error.to_string(), "the client was not told its members");
}

#[test]
fn a_node_does_not_start_where_it_does_not_belong() {
    let clock = Clockwork::new();
    let start = |replica, durability| {
        let builder = Node::builder(Counter::default());
        let builder = builder.members(Members::local(3).unwrap()).storage(Memory::default());
        let builder = builder.transport(LocalNetwork::new().transport()).runtime(clock.clone());
        clock.run(builder.replica(ReplicaId(replica)).durability(durability).start()).unwrap_err()
    };
    assert!(matches!(start(9, Durability::Full), NodeError::NotAMember { .. }));
}
