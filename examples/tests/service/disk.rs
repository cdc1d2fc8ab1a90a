//! Disks that are full or read-only, made with small mounts; skipped aloud where that is not allowed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::time::timeout;
use vr_examples::kv::{client::RedisClient, demo::fleet::Fleet};

use crate::{
    processes::{ask, serve_elsewhere},
    storm::kv,
};

/// How long anything may take here; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file system in memory, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    #[expect(clippy::print_stderr, reason = "what is skipped is said")]
    fn new(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        if mount(at, options) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("SKIP: mounting a tmpfs needs root, so full and read-only disks are not tested");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because a process may just be ending on it.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

fn mount(at: &Path, options: &str) -> bool {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "vr"]).arg(at).output();
    mounted.is_ok_and(|output| output.status.success())
}

#[test]
fn a_disk_that_is_full_or_read_only_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (options, expected) in [("size=1m", "no space left"), ("ro", "Read-only file system")] {
        let Some(disk) = Mount::new(&dir.path().join("disk"), options) else { return };
        let (code, text) = serve_elsewhere("127.0.0.1:1", "0", &disk.0.join("data"));
        assert_eq!(code, 4, "{text}");
        assert!(text.contains(expected) && text.contains("choose another --data"), "{text}");
    }
}

/// Writes until replica 1 has no space left.
async fn fill(fleet: &Fleet) {
    let mut client = RedisClient::connect(fleet.addresses()[0]).await.unwrap();
    for number in 0.. {
        let (key, value) = (format!("k{number}"), "x".repeat(500_000));
        client.call(["SET", &key, &value]).await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_whose_disk_fills_up_stops_and_comes_back_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(kv(), dir.path().to_owned(), 3).unwrap();
    let Some(disk) = Mount::new(&fleet.data_dir(1), "size=48m") else { return };
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    let mut full = fleet.take(1).unwrap();
    let ended = tokio::select! {
        ended = timeout(PATIENCE, full.wait()) => ended.expect("the disk fills up").unwrap(),
        () = fill(&fleet) => unreachable!("writing ends with the disk"),
    };
    assert_eq!(ended.code(), Some(5));
    let said = fs::read_to_string(fleet.log_file(1)).unwrap();
    assert!(said.contains("no space left while writing"), "{said}");
    assert_eq!(ask(&fleet, 2, &["SET", "after", "v"]).await, "OK");
    let target = fleet.info(2).await.unwrap().number("commit");
    assert!(mount(&disk.0, "remount,size=1g"));
    fleet.start(1).unwrap();
    let has_everything = fleet.wait_for(1, PATIENCE, |info| info.number("applied") >= target);
    has_everything.await.unwrap();
    assert_eq!(ask(&fleet, 1, &["GET", "after"]).await, "v");
    drop(fleet);
}
