//! Engines with real executors and demanding clients in all weathers: nothing lost, nothing twice,
//! no stale read, and everything answered when the sky clears up.

#![expect(clippy::indexing_slicing, reason = "what goes wrong fails the test")]

#[path = "weather/client.rs"]
mod client;
#[path = "weather/climate.rs"]
mod climate;
#[path = "weather/directed.rs"]
mod directed;
#[path = "weather/disk.rs"]
mod disk;
#[path = "weather/losses.rs"]
mod losses;
#[path = "weather/once.rs"]
mod once;
#[path = "weather/oracles.rs"]
mod oracles;
#[path = "weather/world.rs"]
mod world;

use std::time::Duration;

use climate::{FAIR, FOUL, Weather};
use vr_core::Durability;
use world::{World, op, small_config};

/// What may go wrong besides the weather.
#[derive(Clone, Copy, Default)]
struct Faults {
    crashes: bool,
    cuts: bool,
    pauses: bool,
    stalls: bool,
    clocks: bool,
    wipes: bool,
}

const ALL: Faults =
    Faults { crashes: true, cuts: true, pauses: true, stalls: true, clocks: true, wipes: false };

const WIPES: Faults = Faults { wipes: true, ..ALL };

fn fault(world: &mut World, faults: Faults) {
    let index = world.any_replica();
    match world.below(12) {
        0 | 1 if faults.crashes && world.can_spare(index) => world.crash(index),
        2..=4 if faults.crashes => world.start(index),
        5 if faults.cuts => {
            let other = world.any_replica();
            world.cuts.insert((index, other));
            world.note(&format!("cut {index} to {other}"));
        }
        6 if faults.cuts => world.cut_off(index),
        7 if faults.cuts => {
            world.cuts.clear();
            world.note("all links work");
        }
        8 if faults.pauses => {
            if let Some(process) = &mut world.processes[index] {
                process.paused = true;
            }
            let time = Duration::from_millis(world.below(800));
            world.note(&format!("{index} pauses for {time:?}"));
            world.wake_after(index, time);
        }
        9 if faults.stalls => {
            if let Some(process) = &mut world.processes[index] {
                process.stalled = true;
            }
            world.note(&format!("storage of {index} stalls"));
        }
        10 if faults.wipes && world.below(2) == 0 && world.can_wipe(index) => world.wipe(index),
        10 => world.unstall(index),
        11 if faults.clocks => {
            world.wall[index] = world.below(10_000_000_000_000);
        }
        _ => {}
    }
}

fn storm(seed: u64, members: u64, weather: Weather, faults: Faults) -> World {
    storm_in(Durability::Full, seed, members, weather, faults)
}

fn storm_in(
    durability: Durability,
    seed: u64,
    members: u64,
    weather: Weather,
    faults: Faults,
) -> World {
    let mut world = World::in_mode(durability, seed, members, small_config(), weather);
    world.add_clients(3, 4);
    let shy = world.below(3) == 0;
    for client in &mut world.clients {
        client.shy = shy;
    }
    for _ in 0..40 {
        let pause = Duration::from_millis(world.below(250));
        world.run(pause, |_| false);
        fault(&mut world, faults);
    }
    world.clear_up();
    world.run(Duration::from_secs(2), |_| false);
    // After many failed views the next one may be tried seconds later only.
    let served = |world: &World| world.clients.iter().any(|client| client.acknowledged > 0);
    world.run(Duration::from_secs(20), served);
    for client in &mut world.clients {
        client.done = true;
    }
    let settled = world.run(Duration::from_secs(30), World::is_settled);
    if !settled {
        world.fail(&format!("seed {seed}: not settled in 30 s of fair weather"));
    }
    let answered: u64 = world.clients.iter().map(|client| client.answered).sum();
    let acknowledged: u64 = world.clients.iter().map(|client| client.acknowledged).sum();
    if answered == 0 || acknowledged == 0 || op(world.committed.len()) == op(0) {
        world.fail("nothing happened");
    }
    world
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("VR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let from = std::env::var("VR_FROM").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    from..from + count
}

#[test]
fn three_engines_survive_foul_weather() {
    for seed in seeds() {
        storm(seed, 3, FOUL, ALL);
    }
}

#[test]
fn three_engines_survive_faults_in_fair_weather() {
    for seed in seeds() {
        storm(seed, 3, FAIR, ALL);
    }
}

#[test]
fn five_engines_survive_foul_weather() {
    for seed in seeds() {
        storm(seed, 5, FOUL, ALL);
    }
}

#[test]
fn small_and_even_groups_survive_foul_weather() {
    for seed in seeds() {
        storm(seed, [1, 2, 4][usize::try_from(seed % 3).unwrap()], FOUL, ALL);
    }
}

#[test]
fn cut_links_alone_lose_nothing() {
    for seed in seeds() {
        storm(seed, 3, FAIR, Faults { cuts: true, ..Faults::default() });
        storm(seed, 5, FAIR, Faults { cuts: true, ..Faults::default() });
    }
}

#[test]
fn engines_without_logs_on_disk_survive_foul_weather() {
    for seed in seeds() {
        storm_in(Durability::ViewOnly, seed, 3, FOUL, ALL);
        storm_in(Durability::ViewOnly, seed, 5, FOUL, ALL);
    }
}

#[test]
fn engines_without_disks_survive_foul_weather() {
    for seed in seeds() {
        storm_in(Durability::Diskless, seed, 3, FOUL, ALL);
        storm_in(Durability::Diskless, seed, 5, FOUL, ALL);
    }
}

#[test]
fn wiped_disks_are_survived_in_foul_weather() {
    for seed in seeds() {
        storm_in(Durability::Full, seed, 3, FOUL, WIPES);
        storm_in(Durability::Full, seed, 5, FOUL, WIPES);
        storm_in(Durability::ViewOnly, seed, 3, FOUL, WIPES);
    }
}

/// PROTOCOL.md "Genesis": replicas that start one by one, restart, and of which one loses its disk
/// at the worst time, form one group at most, and the others go on.
#[test]
fn a_group_is_founded_once_whatever_happens_to_one_disk() {
    for seed in seeds() {
        let members = [3, 5][usize::try_from(seed % 2).unwrap()];
        let mut world = World::new(seed, members, small_config(), FOUL);
        let victim = world.any_replica();
        let mut wipes = 0;
        world.add_clients(2, 2);
        for _ in 0..30 {
            let pause = Duration::from_millis(world.below(120));
            world.run(pause, |_| false);
            let index = world.any_replica();
            match world.below(8) {
                0..3 => world.crash(index),
                3..7 => world.start(index),
                _ if wipes == 0 => {
                    wipes = 1;
                    world.wipe(victim);
                }
                _ => {}
            }
        }
        world.clear_up();
        world.run(Duration::from_secs(5), |_| false);
        for client in &mut world.clients {
            client.done = true;
        }
        let served = |world: &World| world.clients.iter().all(client::Client::is_settled);
        if !world.run(Duration::from_secs(30), served) {
            world.fail(&format!("seed {seed}: no group serves"));
        }
        let founded: std::collections::BTreeSet<_> = (0..world.count())
            .filter_map(|index| world.disks[index].superblock.certificate.clone())
            .map(|certificate| certificate.to_hash())
            .collect();
        assert_eq!(founded.len(), 1, "seed {seed}");
    }
}
