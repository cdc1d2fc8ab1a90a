//! A short sweep of random seeds, and the seeds that once showed a bug.

use core::time::Duration;

use vr_sim::simulator::{Ending, Faults, Reach, RunOptions, Summary, run};

/// Seeds that failed once, with the size of the group and how far disks lied; docs/TESTING.md says
/// what they showed.
const PINNED: [(u64, u64, Reach); 12] = [
    (23, 3, Reach::None),
    (42, 3, Reach::None),
    (69, 5, Reach::None),
    (56, 5, Reach::Within),
    (231, 3, Reach::Within),
    (88, 3, Reach::Within),
    (160, 5, Reach::Within),
    (6236, 3, Reach::Within),
    (1596, 3, Reach::Within),
    (183, 3, Reach::Beyond),
    (183, 3, Reach::Within),
    (99, 3, Reach::Beyond),
];

fn sweep(seeds: core::ops::Range<u64>, replicas: u64, faults: Faults) -> Summary {
    let mut total = Summary::default();
    for seed in seeds {
        let storm = Duration::from_secs(1);
        total.add(&run(&RunOptions { replicas, faults, storm, ..RunOptions::new(seed) }));
    }
    total
}

#[test]
fn no_seed_of_a_short_sweep_breaks_an_oracle() {
    for replicas in [3, 5] {
        let total = sweep(0..4, replicas, Faults::All);
        assert!(total.committed > 100 && total.views > 1 && total.crashes > 3, "{total}");
    }
}

#[test]
fn groups_of_any_size_survive_the_storm() {
    for replicas in [1, 2, 4, 7] {
        let total = sweep(0..2, replicas, Faults::All);
        assert!(total.committed > 0, "{total}");
    }
}

#[test]
fn fewer_faults_leave_more_work_done() {
    let calm = sweep(0..2, 3, Faults::None);
    assert_eq!((calm.crashes, calm.unknown), (0, 0), "{calm}");
    assert!(calm.views <= 2, "only the last phase takes primaries away: {calm}");
    let network = sweep(0..2, 3, Faults::Network);
    assert_eq!(network.crashes, 0, "{network}");
    assert!(sweep(0..2, 3, Faults::Disk).crashes > 0);
}

#[test]
fn seeds_that_failed_once_pass() {
    for (seed, replicas, damage) in PINNED {
        let summary = run(&RunOptions { replicas, damage, ..RunOptions::new(seed) });
        assert!(summary.events > 0);
    }
    let summary = run(&RunOptions { replicas: 4, faults: Faults::Disk, ..RunOptions::new(1018) });
    assert!(summary.events > 0);
    for (seed, storm) in [(20186, Duration::from_secs(30)), (487, Duration::from_secs(6))] {
        let summary = run(&RunOptions { storm, ..RunOptions::new(seed) });
        assert!(summary.events > 0);
    }
    let ending = Ending::Haunted;
    let summary = run(&RunOptions { replicas: 5, ending, ..RunOptions::new(26) });
    assert!(summary.events > 0);
}
