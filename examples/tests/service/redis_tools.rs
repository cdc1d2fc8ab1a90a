//! Redis's own tools against real processes; skipped aloud where they are not installed.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use tokio::process::Command;
use vr_examples::kv::demo::fleet::Fleet;

use crate::processes::group_of_three;

/// How long a group may take to go on; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);
const BENCHMARK: &str = "-t ping,set,get,incr,mset -n 20000 -c 50 -P 16";

#[expect(clippy::print_stderr, reason = "what is skipped is said")]
async fn is_installed(tool: &str) -> bool {
    let version = Command::new(tool).arg("--version").stdout(Stdio::null()).status().await;
    let installed = version.is_ok_and(|status| status.success());
    if !installed {
        eprintln!("SKIP: {tool} is not installed; scripts/test-setup installs redis-tools");
    }
    installed
}

fn tool(name: &str, fleet: &Fleet, replica: usize, arguments: &str) -> Command {
    let port = fleet.addresses()[replica].port().to_string();
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &port]).args(arguments.split(' '));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// What a tool said, which must be no complaint.
fn clean(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    for complaint in ["rror", "WARN", "UNCERTAIN", "TRYAGAIN"] {
        assert!(!said.contains(complaint), "{said}");
    }
    said
}

#[tokio::test]
async fn redis_benchmark_runs_clean_against_primary_and_backup() {
    if !is_installed("redis-benchmark").await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fleet = group_of_three(dir.path()).await;
    for replica in 0..2 {
        let output = tool("redis-benchmark", &fleet, replica, BENCHMARK).output().await.unwrap();
        let said = clean(&output);
        assert!(said.contains("MSET"), "{said}");
    }
}

#[tokio::test]
async fn a_backup_serves_redis_benchmark_while_the_primary_dies() {
    if !is_installed("redis-benchmark").await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_of_three(dir.path()).await;
    let (primary, info) = fleet.primary().await.unwrap();
    let (backup, before) = ((primary + 1) % 3, info.number("commit"));
    let benchmark = tool("redis-benchmark", &fleet, backup, BENCHMARK).spawn().unwrap();
    let has_begun = |info: &vr_examples::kv::client::Info| info.number("commit") > before + 200;
    fleet.wait_for(backup, PATIENCE, has_begun).await.unwrap();
    fleet.kill(&[primary]).await.unwrap();
    clean(&benchmark.wait_with_output().await.unwrap());
}

#[tokio::test]
async fn redis_cli_talks_to_any_replica() {
    if !is_installed("redis-cli").await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fleet = group_of_three(dir.path()).await;
    for (replica, line, expected) in
        [(0, "SET k v", "OK"), (1, "GET k", "v"), (2, "INCR n", "1"), (1, "INFO", "role:")]
    {
        let output = tool("redis-cli", &fleet, replica, line).output().await.unwrap();
        let said = clean(&output);
        assert!(said.contains(expected), "{line}: {said}");
    }
}
