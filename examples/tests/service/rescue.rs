//! Back up, restore and the last resort, with real processes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use redis_protocol::resp2::types::Resp2Frame;
use tokio::{sync::watch, time::timeout};
use vr_core::Durability;
use vr_examples::kv::{
    client::{Info, RedisClient},
    demo::fleet::Fleet,
};

use crate::{
    processes::{ask, group_of_three},
    storm::kv,
};

/// How long anything may take here; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `kv` to its end: its exit status and all that it says.
fn run(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = Command::new(kv()).args(arguments).output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Counts `INCR n` as fast as it goes until told to stop; returns the last number acknowledged.
async fn count(fleet: Vec<std::net::SocketAddr>, acknowledged: watch::Sender<u64>) {
    let mut client = RedisClient::connect(fleet[1]).await.unwrap();
    while !acknowledged.is_closed() {
        let answer = client.call(["INCR", "n"]).await.unwrap();
        let Some(number) = integer(&answer) else { panic!("{answer:?}") };
        acknowledged.send_replace(number);
    }
}

fn integer(answer: &redis_protocol::resp2::types::BytesFrame) -> Option<u64> {
    answer.as_str().and_then(|text| text.parse().ok()).or_else(|| {
        let text = format!("{answer:?}");
        text.strip_prefix("Integer(")?.strip_suffix(')')?.parse().ok()
    })
}

#[tokio::test]
async fn a_backup_of_a_group_under_load_becomes_a_group_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = group_of_three(&dir.path().join("old")).await;
    let (acknowledged, mut told) = watch::channel(0);
    let load = tokio::spawn(count(fleet.addresses(), acknowledged));
    timeout(PATIENCE, told.wait_for(|number| *number >= 500)).await.unwrap().unwrap();
    let (primary, _) = fleet.primary().await.unwrap();
    let before = *told.borrow();
    let address = fleet.addresses()[primary].to_string();
    let export = ["export", "--from", &address, "backup"].map(ToOwned::to_owned);
    let exported = tokio::task::spawn_blocking(move || run(&export.each_ref().map(|it| &**it)));
    let (code, said) = exported.await.unwrap();
    assert_eq!(code, 0, "{said}");
    let after = *told.borrow();
    timeout(PATIENCE, told.wait_for(|number| *number > after)).await.unwrap().unwrap();
    drop(told);
    load.await.unwrap();
    let (code, said) = run(&["export", "--from", &address, "backup"]);
    assert!(code == 1 && said.contains("is there already"), "{said}");
    let (code, said) = run(&["export", "--from", &address, "../backup"]);
    assert!(code == 1 && said.contains("a name has"), "{said}");

    let backup = fleet.data_dir(primary).join("exports/backup");
    let new = dir.path().join("new");
    let mut restored = Fleet::new(kv(), new.clone(), 5).unwrap();
    let members = restored.members().to_owned();
    let arguments = ["--members", &members, "--into", text(&new)];
    let restore = [&["restore", "--from", text(&backup)], &arguments[..]].concat();
    let (code, said) = run(&restore);
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&restore);
    assert!(code == 1 && said.contains("is there already"), "{said}");
    restored.start_all().unwrap();
    restored.wait_until_normal(PATIENCE).await.unwrap();
    let mut client = RedisClient::connect(restored.addresses()[4]).await.unwrap();
    let next = integer(&client.call(["INCR", "n"]).await.unwrap()).unwrap();
    assert!(next > before, "{next} follows all of the {before} acknowledged before the export");
    // The old group goes on beside the new one.
    assert!(ask(&fleet, 0, &["GET", "n"]).await.parse::<u64>().is_ok());
}

/// The group keeps its log in memory; two of three crash at once and come back without it, the
/// primary among them.
#[tokio::test]
async fn a_blocked_group_without_logs_on_disk_goes_on_from_what_one_replica_holds() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::new(kv(), dir.path().to_owned(), 3).unwrap();
    let mut fleet = fleet.with_durability(Durability::ViewOnly);
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    for number in 1..=20 {
        assert_eq!(ask(&fleet, 1, &["INCR", "n"]).await, format!("Integer({number})"));
    }
    let (primary, info) = fleet.primary().await.unwrap();
    let (survivor, commit) = ((primary + 1) % 3, info.number("commit"));
    fleet.wait_for(survivor, PATIENCE, |info| info.number("op") >= commit).await.unwrap();
    let others: Vec<_> = (0..3).filter(|replica| *replica != survivor).collect();
    fleet.kill(&others).await.unwrap();
    for replica in others {
        fleet.start(replica).unwrap();
    }
    let blocked = |info: &Info| info.text("explanation").contains("lost its log");
    fleet.wait_for(survivor, PATIENCE, blocked).await.unwrap();
    let address = fleet.addresses()[survivor].to_string();
    let (code, said) = run(&["export", "--from", &address, "--with-tail", "last"]);
    assert_eq!(code, 0, "{said}");
    fleet.kill(&[0, 1, 2]).await.unwrap();

    let export = fleet.data_dir(survivor).join("exports/last");
    let new = dir.path().join("new");
    let force = ["unsafe-restart", "--from", text(&export), "--into", text(&new)];
    let (code, said) = run(&[&force[..], &["--yes-i-accept-data-loss"]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("it was in mode view-only and is in mode full from now on"), "{said}");
    for replica in 0..3 {
        fs::remove_dir_all(fleet.data_dir(replica)).unwrap();
        fs::rename(new.join(format!("replica-{replica}")), fleet.data_dir(replica)).unwrap();
    }
    let mut fleet = fleet.with_durability(Durability::Full);
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    assert_eq!(ask(&fleet, 2, &["INCR", "n"]).await, "Integer(21)");
}

#[tokio::test]
async fn a_group_that_lost_two_disks_of_three_goes_on_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_of_three(dir.path()).await;
    for number in 0..50 {
        assert_eq!(ask(&fleet, 0, &["SET", &format!("k{number}"), "v"]).await, "OK");
    }
    fleet.kill(&[1, 2]).await.unwrap();
    let survivor = fleet.data_dir(0);
    let new = dir.path().join("new");
    let force = ["unsafe-restart", "--from", text(&survivor), "--into", text(&new)];
    let (code, said) = run(&[&force[..], &["--yes-i-accept-data-loss"]].concat());
    assert!(code == 1 && said.contains("in use by another process") && !new.exists(), "{said}");
    fleet.kill(&[0]).await.unwrap();
    for lost in [1, 2] {
        fs::remove_dir_all(fleet.data_dir(lost)).unwrap();
    }
    let (code, said) = run(&force);
    assert!(code == 1 && said.contains("nothing was done"), "{said}");
    assert!(said.contains("not looked at: 2 of 3 replicas") && !new.exists(), "{said}");
    let (code, said) = run(&[&force[..], &["--yes-i-accept-data-loss"]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("goes on in epoch 1") && said.contains("WARNING"), "{said}");

    // Replica 0 is started with its old directory, by mistake: as soon as it hears of the new epoch
    // it stops, and it does not start again, also where it hears nobody.
    for replica in [1, 2] {
        let made = new.join(format!("replica-{replica}"));
        fs::rename(made, fleet.data_dir(replica)).unwrap();
    }
    fleet.start_all().unwrap();
    fleet.wait_for(1, PATIENCE, Info::is_normal).await.unwrap();
    assert_eq!(ask(&fleet, 1, &["SET", "new", "v"]).await, "OK");
    for others_run in [true, false] {
        if !others_run {
            fleet.kill(&[1, 2]).await.unwrap();
            fleet.start(0).unwrap();
        }
        let ended = timeout(PATIENCE, fleet.take(0).unwrap().wait()).await;
        assert_eq!(ended.expect("it stops").unwrap().code(), Some(5));
        let log = fs::read_to_string(fleet.log_file(0)).unwrap();
        assert!(log.contains("the group was restarted by force as epoch 1"), "{log}");
        assert!(log.contains("start with the directory that was made for this replica"), "{log}");
    }
    fs::rename(&survivor, dir.path().join("given-up")).unwrap();
    for replica in 0..3 {
        fleet.start(replica).unwrap();
    }
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    for key in ["k0", "k49", "new"] {
        assert_eq!(ask(&fleet, 0, &["GET", key]).await, "v", "{key}");
    }
    let log = fs::read_to_string(fleet.log_file(1)).unwrap();
    assert!(log.contains("RestartedByForce"), "{log}");
    for replica in 0..3 {
        let info = fleet.wait_for(replica, PATIENCE, |info| info.number("epoch") == 1).await;
        info.unwrap();
    }
}
