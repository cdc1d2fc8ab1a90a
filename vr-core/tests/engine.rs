//! Engines alone under random schedules: loss, doubling, reordering, crashes, slow disks.

#[path = "engine/group.rs"]
mod group;

use group::{Chaos, Group};

/// Runs one seed: a storm, then calm, and everything proposed in the calm must be executed
/// everywhere.
fn run(seed: u64, members: u64, chaos: Chaos) {
    let mut group = Group::new(seed, members, chaos);
    group.storm(3000);
    group.calm();
    group.assert_converged();
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("VR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    0..count
}

#[test]
fn three_engines_survive_a_lossy_network() {
    for seed in seeds() {
        run(seed, 3, Chaos { crashes: false, ..Chaos::default() });
    }
}

#[test]
fn three_engines_survive_crashes() {
    for seed in seeds() {
        run(seed, 3, Chaos::default());
    }
}

#[test]
fn five_engines_survive_crashes() {
    for seed in seeds() {
        run(seed, 5, Chaos::default());
    }
}

#[test]
fn small_and_even_groups_survive_crashes() {
    for seed in seeds() {
        run(seed, [1, 2, 4][usize::try_from(seed % 3).unwrap()], Chaos::default());
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let digest = |seed| {
        let mut group = Group::new(seed, 3, Chaos::default());
        group.storm(1500);
        group.digest()
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}
