//! The two smallest services: short enough to read at once, and they work.

use std::time::Duration;

use tokio::{process::Command, time::timeout};
use vr_examples::kv::demo::fleet::lease_port;

/// The most lines of a teaching example.
const LINES_MAX: usize = 60;
/// Far more than anything here needs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_teaching_example_fits_on_a_screen_and_needs_nothing_else() {
    for source in
        [include_str!("../../src/bin/counter.rs"), include_str!("../../src/bin/kv_minimal.rs")]
    {
        assert!(source.lines().count() <= LINES_MAX, "{} lines", source.lines().count());
        assert!(!source.contains("vr_examples"));
    }
}

#[tokio::test]
async fn the_counter_counts_to_ten() {
    let counter = Command::new(env!("CARGO_BIN_EXE_counter")).kill_on_drop(true).output();
    let output = timeout(PATIENCE, counter).await.expect("it ends").unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("the counter is 10\nall replicas agree on 10\n"), "{said}");
}

#[tokio::test]
async fn the_smallest_store_remembers_from_run_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let leases = [(); 3].map(|()| lease_port().unwrap());
    let members = leases.each_ref().map(|lease| lease.local_addr().unwrap().to_string()).join(",");
    for remembered in ["None", "Some(\"hello\")"] {
        let mut store = Command::new(env!("CARGO_BIN_EXE_kv_minimal"));
        let run = store.arg(&members).env("TMPDIR", dir.path()).kill_on_drop(true).output();
        let output = timeout(PATIENCE, run).await.expect("it ends").unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let expected =
            format!("remembered: {remembered}\nreplaced: {remembered}\nnow: Some(\"hello\")\n");
        assert_eq!(said, expected);
    }
}
