//! How fast the simulator is: random runs with all oracles on, and an hour of a quiet group.

use core::time::Duration;

use criterion::{Criterion, Throughput};
use vr_sim::{
    cluster::{Cluster, client::Wanted},
    simulator::{RunOptions, run},
    workload::add,
};

/// Seeds that are run, one after another, in each iteration.
const SEEDS: u64 = 8;

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    seeds(&mut criterion);
    quiet_hour(&mut criterion);
    criterion.final_summary();
}

/// Events a second of default seeds.
fn seeds(criterion: &mut Criterion) {
    let events = || (0..SEEDS).map(|seed| run(&RunOptions::new(seed)).events).sum();
    let mut group = criterion.benchmark_group("simulator");
    group.throughput(Throughput::Elements(events()));
    group.bench_function("seeds", |bencher| bencher.iter(events));
    group.finish();
}

/// An hour of virtual time in which a client asks for something every ten seconds.
fn quiet_hour(criterion: &mut Criterion) {
    let hour = || {
        let mut group = Cluster::of(3);
        let client = group.client();
        client.drive(|| Some((Duration::from_secs(10), Wanted::Operation(add("k", 1)))));
        group.run_for(Duration::from_secs(3600));
        assert!(group.committed().len() >= 359, "{}", group.committed().len());
        group.steps()
    };
    let mut group = criterion.benchmark_group("simulator");
    group.throughput(Throughput::Elements(hour()));
    group.bench_function("quiet_hour", |bencher| bencher.iter(hour));
    group.finish();
}
