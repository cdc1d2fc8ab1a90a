//! Single schedules, stepped by hand.

#![expect(clippy::indexing_slicing, reason = "what goes wrong fails the test")]

use std::time::Duration;

use vr_core::{
    ReplicaId,
    model::{message::Message, types::Peer},
};

use crate::{
    climate::{FAIR, Weather},
    world::{World, small_config},
};

const SECOND: Duration = Duration::from_secs(1);

fn settled(seed: u64, members: u64) -> World {
    let mut world = World::new(seed, members, small_config(), FAIR);
    world.add_clients(1, 1);
    world.run(SECOND, |_| false);
    assert!(world.primary().is_some() && world.clients[0].acknowledged > 0);
    world
}

/// PROTOCOL.md "Normal case", "v < view: ignore, ping": a promise that is not durable yet cannot be
/// told, so there is nothing to say, and nothing to answer.
#[test]
fn replicas_whose_promise_waits_for_storage_keep_quiet() {
    let mut world = settled(1, 3);
    for backup in [1, 2] {
        world.processes[backup].as_mut().unwrap().stalled = true;
    }
    world.cut_off(0);
    world.run(SECOND, |_| false);
    world.cuts.clear();
    let before = world.posted;
    world.run(SECOND, |_| false);
    assert!(world.posted - before < 1000, "{} messages", world.posted - before);
    world.clear_up();
    assert!(world.run(SECOND * 5, |world| world.primary().is_some()));
}

/// Cuts off whoever leads until `index` does.
fn make_primary(world: &mut World, index: usize) {
    for _ in 0..20 {
        world.cuts.clear();
        world.run(SECOND, |_| false);
        match world.primary() {
            Some(primary) if primary == index => return,
            Some(primary) => world.cut_off(primary),
            None => {}
        }
        world.run(SECOND, |_| false);
    }
    world.fail("the wanted replica never leads");
}

/// PROTOCOL.md "Client sessions": a session is the op of the registration that stands in the log,
/// not that of one that fell out of it at a deposed primary.
#[test]
fn a_registration_that_a_view_change_dropped_leaves_no_session_behind() {
    let mut world = settled(2, 3);
    let first = world.primary().unwrap();
    world.cut_off(first);
    world.add_clients(1, 1);
    world.clients[0].done = true;
    world.clients[1].only = Some(first);
    world.run(Duration::from_millis(100), |_| false);
    world.clients[1].only = Some((first + 1) % 3);
    world.clients[0].done = false;
    world.clients[0].only = Some((first + 1) % 3);
    assert!(world.run(SECOND * 5, |world| world.clients[1].acknowledged > 2));
    world.clients[1].only = None;
    make_primary(&mut world, first);
    let before = world.clients[1].acknowledged;
    assert!(world.run(SECOND * 5, |world| world.clients[1].acknowledged > before + 2));
}

/// PROTOCOL.md "Replay safety": an answer to a question of an earlier life answers nothing.
#[test]
fn a_read_index_asked_for_before_a_restart_serves_no_read_after_it() {
    let mut world = settled(3, 3);
    let primary = world.primary().unwrap();
    let backup = (primary + 1) % 3;
    world.add_clients(1, 1);
    world.clients[1].only = Some(backup);
    assert!(world.run(SECOND, |world| world.clients[1].answered > 1));
    world.clients[0].only = Some(primary);
    world.hold_if = Some(|_, _, message| matches!(message, Message::ReadIndexOk(_)));
    world.run(SECOND * 8, |_| false);
    world.clients[0].done = true;
    world.run(SECOND, |_| false);
    world.crash(backup);
    world.start(backup);
    world.run(SECOND, |_| false);
    world.clients[0].done = false;
    world.drop_if = Some(|from, to, message| {
        let late = matches!(message, Message::Prepare(_) | Message::Commit(_));
        late && (*from, *to) == (Peer::Replica(ReplicaId(0)), Peer::Replica(ReplicaId(1)))
    });
    world.run(Duration::from_millis(130), |_| false);
    world.clients[1].renew_queries();
    world.run(Duration::from_millis(200), |_| false);
    assert_eq!((primary, world.primary()), (0, Some(0)));
    for (from, to, envelope) in std::mem::take(&mut world.held) {
        world.post(from, to, envelope);
    }
    world.hold_if = None;
    world.run(SECOND, |_| false);
}

/// PROTOCOL.md "Normal case": a backup keeps a request until its answer, which therefore has to
/// take the way that the request took last.
#[test]
fn a_client_that_moves_to_a_backup_gets_its_replies_there() {
    let mut world = settled(4, 3);
    let primary = world.primary().unwrap();
    world.clients[0].only = Some(primary);
    world.run(SECOND, |_| false);
    let before = world.clients[0].acknowledged;
    world.drop_if =
        Some(|from, to, _| matches!((from, to), (Peer::Replica(ReplicaId(0)), Peer::Client(_))));
    assert_eq!(primary, 0);
    world.clients[0].only = Some(1);
    assert!(world.run(SECOND * 3, |world| world.clients[0].acknowledged > before + 5));
}

/// PROTOCOL.md "Timers and liveness": a view whose log is still on its way to the only other
/// replica is not a stuck one.
#[test]
fn a_transfer_longer_than_every_timeout_comes_to_its_end() {
    let mut world = settled(5, 3);
    let slow = 1;
    world.crash(slow);
    world.crash(0);
    world.start(0);
    assert!(world.run(SECOND * 5, |world| world.primary().is_some()));
    let other = 2 - world.primary().unwrap();
    world.add_clients(6, 4);
    world.run(SECOND * 40, |_| false);
    assert!(world.committed.len() > 2000, "{} ops", world.committed.len());
    world.crash(other);
    world.weather = Weather { delay_max: 200_000, ..FAIR };
    world.start(slow);
    let before = world.committed.len();
    if !world.run(SECOND * 120, |world| world.committed.len() > before + 50) {
        let has = world.disks[slow].entries.len();
        world.fail(&format!("{has} ops transferred, {} views", world.views_started));
    }
}

/// A backup that does not hear the primary does not overthrow one that the others hear.
#[test]
fn one_deaf_backup_changes_no_view() {
    let mut world = settled(6, 3);
    let before = world.views_started;
    world.cuts.insert((0, 1));
    world.run(SECOND * 60, |_| false);
    assert_eq!(world.views_started, before);
}

/// PROTOCOL.md "Timers and liveness": a replica that missed a view follows those who were in it,
/// even when its primary is gone and nobody can tell its log.
#[test]
fn a_replica_that_missed_a_view_whose_primary_died_meets_its_last_backup() {
    let mut world = settled(7, 3);
    let (first, next) = (0, 1);
    assert_eq!(world.primary(), Some(first));
    world.cut_off(first);
    assert!(world.run(SECOND * 3, |world| world.primary() == Some(next)));
    world.run(SECOND, |_| false);
    world.crash(next);
    world.run(SECOND, |_| false);
    world.cuts.clear();
    let before = world.clients[0].acknowledged;
    if !world.run(SECOND * 10, |world| world.clients[0].acknowledged > before) {
        world.fail("two of three get nowhere");
    }
}

/// PROTOCOL.md "Normal case", the time of an entry: entries that are read from another's log long
/// after they were made say nothing about what time it is.
#[test]
fn a_replica_that_catches_up_with_an_old_log_believes_its_clock() {
    let mut world = settled(8, 3);
    world.crash(1);
    world.run(SECOND, |_| false);
    world.clients[0].done = true;
    world.run(SECOND * 100, |_| false);
    world.start(1);
    world.run(SECOND, |_| false);
    make_primary(&mut world, 1);
    world.clients[0].done = false;
    world.run(SECOND * 2, |_| false);
    assert_eq!(world.clock_jumps, 0);
}
