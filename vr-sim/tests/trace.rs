//! Whole traces as text: equal for equal seeds, and written also when a run fails.

use std::{fs, panic, path::Path};

use vr_sim::{
    cluster::{Cluster, R0},
    options::GroupOptions,
    trace::RECORDED_EVENTS_MAX,
    workload::put,
};

fn traced(seed: u64, path: &Path, go: impl FnOnce(&mut Cluster<vr_sim::workload::Kv>)) -> String {
    let mut options = GroupOptions::of(3).with_seed(seed);
    options.trace = Some(path.to_path_buf());
    let mut group = Cluster::with(options);
    go(&mut group);
    drop(group);
    fs::read_to_string(path).expect("the trace is there")
}

fn story(group: &mut Cluster<vr_sim::workload::Kv>) {
    let client = group.client();
    let call = client.request(put("k", 1));
    group.run_until_answered(call);
    group.crash(R0);
    group.run_until_normal();
}

#[test]
fn two_runs_of_a_seed_give_equal_texts() {
    let dir = tempfile::tempdir().unwrap();
    let first = traced(1, &dir.path().join("first"), story);
    assert_eq!(first, traced(1, &dir.path().join("second"), story));
    assert_ne!(first, traced(2, &dir.path().join("third"), story));
    assert!(first.lines().count() < RECORDED_EVENTS_MAX);
}

/// The same in every build: what happens in a group of one up to its first primary.
#[test]
fn a_tiny_story_has_a_known_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = GroupOptions::of(1);
    options.trace = Some(dir.path().join("trace"));
    drop(Cluster::with(options));
    let text = fs::read_to_string(dir.path().join("trace")).unwrap();
    assert_eq!(text, include_str!("trace/tiny.txt"));
}

#[test]
fn a_recording_does_not_change_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut quiet = Cluster::with(GroupOptions::of(3));
    story(&mut quiet);
    let text = traced(0, &dir.path().join("trace"), story);
    assert!(text.contains(&format!("fingerprint {:016x}", quiet.fingerprint())));
}

#[test]
fn a_run_that_panics_leaves_its_trace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace");
    let failed = panic::catch_unwind(|| {
        traced(0, &path, |group| group.run_until(|group| group.view().0 > 100));
    });
    assert!(failed.is_err());
    let text = fs::read_to_string(&path).unwrap();
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains("failed: O9 violated: what the scenario waits for"), "{last}");
}
