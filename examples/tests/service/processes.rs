//! Replicas as processes: first boots, clean stops, and every wrong way of starting one.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::time::timeout;
use vr_core::{Config, Durability};
use vr_examples::kv::{
    client::{Info, RedisClient},
    demo::fleet::Fleet,
};

use crate::storm::kv;

/// How long anything may take here; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn group_of_three(dir: &Path) -> Fleet {
    let mut fleet = Fleet::new(kv(), dir.to_owned(), 3).unwrap();
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    fleet
}

pub(crate) async fn ask(fleet: &Fleet, replica: usize, words: &[&str]) -> String {
    let mut client = RedisClient::connect(fleet.addresses()[replica]).await.unwrap();
    let answer = client.call(words).await.unwrap();
    answer.as_str().map_or_else(|| format!("{answer:?}"), str::to_owned)
}

/// Runs `kv serve` to its end; it is expected to refuse.
pub(crate) fn refused(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } =
        Command::new(kv()).arg("serve").args(arguments).stdin(Stdio::null()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn any_replica_takes_writes_and_all_show_them() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = group_of_three(dir.path()).await;
    for replica in 0..3 {
        let key = format!("k{replica}");
        assert_eq!(ask(&fleet, replica, &["SET", &key, "v"]).await, "OK");
        for reader in 0..3 {
            assert_eq!(ask(&fleet, reader, &["GET", &key]).await, "v");
        }
    }
    let (primary, info) = fleet.primary().await.unwrap();
    assert_eq!(info.number("primary"), u64::try_from(primary).unwrap());
    assert!(info.number("commit") >= 3);
}

#[tokio::test]
async fn replicas_started_one_by_one_form_one_group_when_the_last_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(kv(), dir.path().to_owned(), 3).unwrap();
    let waits_for = |missing: &'static [&'static str]| {
        move |info: &Info| {
            let words = info.text("explanation");
            info.text("status") == "blank" && missing.iter().all(|id| words.contains(id))
        }
    };
    fleet.start(2).unwrap();
    fleet.wait_for(2, PATIENCE, waits_for(&["0", "1"])).await.unwrap();
    fleet.kill(&[2]).await.unwrap();
    fleet.start(0).unwrap();
    fleet.wait_for(0, PATIENCE, waits_for(&["1", "2"])).await.unwrap();
    fleet.start(2).unwrap();
    fleet.wait_for(2, PATIENCE, waits_for(&["1"])).await.unwrap();
    fleet.kill(&[0]).await.unwrap();
    fleet.start(1).unwrap();
    fleet.wait_for(1, PATIENCE, waits_for(&["0"])).await.unwrap();
    fleet.start(0).unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    assert_eq!(ask(&fleet, 1, &["INCR", "n"]).await, "Integer(1)");
}

#[tokio::test]
async fn sigterm_stops_a_replica_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_of_three(dir.path()).await;
    ask(&fleet, 1, &["SET", "k", "v"]).await;
    let pid = i32::try_from(fleet.pid(1).unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let ended = timeout(PATIENCE, fleet.take(1).unwrap().wait()).await;
    assert_eq!(ended.expect("it stops").unwrap().code(), Some(0));
    fleet.start(1).unwrap();
    fleet.wait_for(1, PATIENCE, Info::is_normal).await.unwrap();
    assert_eq!(ask(&fleet, 1, &["GET", "k"]).await, "v");
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = group_of_three(dir.path()).await;
    let data = fleet.data_dir(1);
    let (code, text) = serve_elsewhere(fleet.members(), "1", &data);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("in use by another process"), "{text}");
    assert_eq!(ask(&fleet, 1, &["PING"]).await, "PONG");
}

/// Tries to run another process for `replica` over `data`, on ports of its own.
pub(crate) fn serve_elsewhere(members: &str, replica: &str, data: &Path) -> (i32, String) {
    serve_elsewhere_in("full", members, replica, data)
}

pub(crate) fn serve_elsewhere_in(
    mode: &str,
    members: &str,
    replica: &str,
    data: &Path,
) -> (i32, String) {
    let data = data.to_str().unwrap();
    let members = ["--members", members, "--listen", "127.0.0.1:0", "--resp", "127.0.0.1:0"];
    refused(&[&members[..], &["--durability", mode, "--replica", replica, "--data", data]].concat())
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_of_three(dir.path()).await;
    let members = fleet.members().to_owned();
    let data = fleet.data_dir(1);
    fleet.kill(&[1]).await.unwrap();
    let (code, text) = serve_elsewhere(&members, "2", &data);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("belongs to") && text.contains("nothing was changed"), "{text}");
    let others = format!("{members},127.0.0.1:1");
    let (code, text) = serve_elsewhere(&others, "1", &data);
    assert_eq!(code, 4, "another member list: {text}");
    fleet.start(1).unwrap();
    fleet.wait_for(1, PATIENCE, Info::is_normal).await.unwrap();
}

/// Runs `inspect DIR` to its end.
fn inspected(data: &Path) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_inspect")).arg(data).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn inspect_tells_sound_from_damaged_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_of_three(dir.path()).await;
    ask(&fleet, 0, &["SET", "k", "v"]).await;
    fleet.kill(&[0, 1, 2]).await.unwrap();
    let data = fleet.data_dir(1);
    let (code, text) = inspected(&data);
    assert_eq!(code, 0, "{text}");
    fs::write(data.join("foreign"), "not ours").unwrap();
    let (code, text) = inspected(&data);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("foreign"), "{text}");
    assert_eq!(fs::read(data.join("foreign")).unwrap(), b"not ours");
    assert_eq!(inspected(&dir.path().join("nothing")).0, 2);
}

#[tokio::test]
async fn the_demo_loses_nothing() {
    demo_is_clean(Durability::Full).await;
}

/// Runs `kv demo` in a mode; it must find nothing wrong.
pub(crate) async fn demo_is_clean(mode: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--seconds", "2", "--clients", "6", "--failovers", "2", "--dir"];
    let demo = tokio::process::Command::new(kv())
        .args(["demo", "--durability", &mode.to_string()])
        .args(arguments)
        .arg(dir.path())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, demo).await.expect("it ends").unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{said}");
    for line in ["acknowledged writes lost", "operations applied twice", "state digests"] {
        let row = said.lines().find(|row| row.contains(line)).unwrap();
        assert!(row.ends_with(" ok"), "{said}");
    }
}

#[test]
fn a_bad_member_list_is_refused_with_what_is_wrong() {
    let table = [
        ("127.0.0.1:1,,127.0.0.1:2", "0", 2, "not a member"),
        ("1=127.0.0.1:1,1=127.0.0.1:2", "1", 2, "listed twice"),
        ("127.0.0.1:1,127.0.0.1:2", "2", 2, "replica 2 is not among the members [0, 1]"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (members, replica, code, expected) in table {
        let (exit, text) = serve_elsewhere(members, replica, &dir.path().join("data"));
        assert_eq!(exit, code, "{text}");
        assert!(text.contains(expected), "{text}");
    }
    assert!(!dir.path().join("data").exists());
}

#[test]
fn limits_of_checkpoints_that_do_not_fit_are_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = ["--replica", "0", "--members", "127.0.0.1:0", "--resp", "127.0.0.1:0", "--data"];
    let serve = [&serve[..], &[data.to_str().unwrap()]].concat();
    let table = [
        ("--checkpoint-bytes=0", "checkpoint_bytes is zero; it must be positive"),
        ("--checkpoint-bytes=5000000000", "checkpoint_bytes must be at most half of log_bytes_max"),
        ("--checkpoint-ops=1000001", "twice checkpoint_ops and log_retain_ops together"),
    ];
    for (option, rule) in table {
        let (code, text) = refused(&[&serve[..], &[option]].concat());
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("correct --checkpoint-ops, --checkpoint-bytes or"), "{text}");
        assert!(text.contains(rule), "{text}");
    }
    let (code, text) = refused(&[&serve[..], &["--log-retain-ops=some"]].concat());
    assert!(code == 2 && text.contains("invalid value 'some' for '--log-retain-ops"), "{text}");
    assert!(!data.exists());
}

/// What the help promises are the limits that a replica has when nothing is said.
#[test]
fn the_help_names_the_limits_of_checkpoints_and_their_defaults() {
    let output = Command::new(kv()).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let Config { checkpoint_ops, checkpoint_bytes, log_retain_ops, .. } = Config::default();
    for (option, default) in [
        ("--checkpoint-ops <OPS>", u64::from(checkpoint_ops)),
        ("--checkpoint-bytes <BYTES>", checkpoint_bytes),
        ("--log-retain-ops <OPS>", u64::from(log_retain_ops)),
    ] {
        let (_, said) = help.split_once(option).unwrap();
        let (_, said) = said.split_once("[default: ").unwrap();
        assert!(said.starts_with(&format!("{default}]")), "{option} in {help}");
    }
}

/// A group that is told to releases its log, and answers as before.
#[tokio::test]
async fn a_small_checkpoint_interval_keeps_the_log_short() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::new(kv(), dir.path().to_owned(), 3).unwrap();
    let mut fleet = fleet.with_options(&["--checkpoint-ops", "10", "--log-retain-ops", "3"]);
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    for counted in 1..=40 {
        let mut client = RedisClient::connect(fleet.addresses()[0]).await.unwrap();
        let answer = client.call(["INCR", "n"]).await.unwrap();
        assert_eq!(answer, BytesFrame::Integer(counted));
    }
    for replica in 0..3 {
        let is_short = |info: &Info| {
            let (checkpoint, base) = (info.number("checkpoint"), info.number("log_base"));
            checkpoint >= 40 && base > 30 && base < checkpoint
        };
        fleet.wait_for(replica, PATIENCE, is_short).await.unwrap();
        assert_eq!(ask(&fleet, replica, &["GET", "n"]).await, "40");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let serve = |members: &str, resp: &str| {
        let data = data.to_str().unwrap();
        refused(&["--replica", "0", "--members", members, "--resp", resp, "--data", data])
    };
    for (code, text) in [serve("127.0.0.1:0", &taken), serve(&taken, "127.0.0.1:0")] {
        assert_eq!(code, 3, "{text}");
        assert!(text.contains(&taken) && text.contains("choose another"), "{text}");
        assert!(text.contains("Address already in use"), "{text}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let (code, text) = serve_elsewhere("127.0.0.1:1", "0", &file.join("data"));
    assert_eq!(code, 4, "{text}");
    assert!(text.contains(file.to_str().unwrap()), "{text}");
}

/// A primary that is told to stop lets another one lead first: a client at a third replica counts
/// on without an error, and each of its commands takes effect once.
#[tokio::test]
async fn a_rolling_restart_costs_no_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_of_three(dir.path()).await;
    let mut counted = 0;
    for _ in 0..3 {
        let (primary, _) = fleet.primary().await.unwrap();
        let mut client = RedisClient::connect(fleet.addresses()[(primary + 1) % 3]).await.unwrap();
        let pid = i32::try_from(fleet.pid(primary).unwrap()).unwrap();
        let mut ending = fleet.take(primary).unwrap();
        let mut stopped = false;
        for step in 0.. {
            let answer = client.call(["INCR", "n"]).await.unwrap();
            counted += 1;
            assert_eq!(answer, BytesFrame::Integer(counted));
            if step == 20 {
                kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
            }
            if let Ok(ended) = timeout(Duration::ZERO, ending.wait()).await {
                assert_eq!(ended.unwrap().code(), Some(0));
                stopped = true;
            }
            if stopped && step > 40 {
                break;
            }
        }
        fleet.start(primary).unwrap();
        fleet.wait_until_normal(PATIENCE).await.unwrap();
    }
    assert_eq!(ask(&fleet, 0, &["GET", "n"]).await, counted.to_string());
}
