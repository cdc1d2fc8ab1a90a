//! System calls of real processes, watched and made to fail; skipped aloud where that is not allowed.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{task::JoinSet, time::timeout};
use vr_core::Durability;
use vr_examples::kv::{
    client::{Info, RedisClient},
    demo::{
        check,
        fleet::Fleet,
        load::{Shared, Worker},
    },
};

use crate::storm::kv;

/// How long anything may take here; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// What makes data durable, and what may: a file that is opened so that each write does.
const SYNCING: &str = "trace=fsync,fdatasync,?sync_file_range,msync,sync,syncfs,openat,pwritev2";
const CLIENTS: usize = 10;
const WRITES_PER_CLIENT: usize = 1000;
/// A busy machine may change views by itself, and what was measured meanwhile does not count.
const ATTEMPTS: usize = 10;

/// The tracer, so that the process that it runs stays the child of whoever starts it.
fn tracer(log: &Path, arguments: &[&str]) -> Vec<String> {
    let tracer = ["strace", "-D", "-f", "-qq", "-e", "signal=none", "-o"];
    let words = tracer.into_iter().chain([log.to_str().unwrap()]);
    words.chain(arguments.iter().copied()).map(str::to_owned).collect()
}

fn may_trace(what: &str) -> bool {
    let tracer = tracer(Path::new("/dev/null"), &["--seccomp-bpf", "true"]);
    let traced = Command::new(&tracer[0]).args(&tracer[1..]).output();
    let may = traced.is_ok_and(|output| output.status.success());
    if !may {
        let why = "strace (Debian package strace) cannot be run or may not trace";
        // Past the harness, which keeps to itself what a test that passes has printed.
        let said = format!("\nSKIP: {why}, so {what}\n");
        io::stderr().write_all(said.as_bytes()).unwrap();
    }
    may
}

/// What a process called, of what is watched, in the order of the calls.
fn calls(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let call = |line: &str| Some(line.split_once(' ')?.1.trim_start().to_owned());
    let calls = text.lines().filter_map(call);
    calls.filter(|call| !call.starts_with("<...") && !call.starts_with("+++")).collect()
}

/// The calls that make something durable.
fn syncs(log: &Path) -> Vec<String> {
    let is_sync = |call: &String| {
        !(call.starts_with("openat(") || call.starts_with("pwritev2("))
            || ["O_DSYNC", "O_SYNC", "RWF_DSYNC", "RWF_SYNC"].iter().any(|flag| call.contains(flag))
    };
    calls(log).into_iter().filter(is_sync).collect()
}

/// Three traced replicas, and the logs of what they call.
struct Traced {
    fleet: Fleet,
    logs: [PathBuf; 3],
}

impl Traced {
    async fn start(dir: &Path, mode: Durability) -> Self {
        let mut fleet = Fleet::new(kv(), dir.to_owned(), 3).unwrap().with_durability(mode);
        let logs = [0, 1, 2].map(|replica| dir.join(format!("calls-{replica}")));
        for (replica, log) in logs.iter().enumerate() {
            fleet.wrap(replica, tracer(log, &["--seccomp-bpf", "-e", SYNCING])).unwrap();
        }
        fleet.start_all().unwrap();
        fleet.wait_until_normal(PATIENCE).await.unwrap();
        Self { fleet, logs }
    }

    fn syncs(&self) -> [usize; 3] {
        [0, 1, 2].map(|replica| syncs(&self.logs[replica]).len())
    }

    /// The view that all are in, once they are in the same.
    async fn view(&mut self) -> u64 {
        loop {
            let mut views = Vec::new();
            for replica in 0..3 {
                let info = self.fleet.wait_for(replica, PATIENCE, Info::is_normal).await.unwrap();
                views.push(info.number("view"));
            }
            if views.iter().all(|view| *view == views[0]) {
                return views[0];
            }
        }
    }

    fn signal(&self, replica: usize, signal: Signal) {
        let pid = i32::try_from(self.fleet.pid(replica).unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Lets the primary of `view` sleep until the others have left it, and waits until all three
    /// are together again.
    async fn depose(&mut self, view: u64) -> u64 {
        let primary = usize::try_from(view % 3).unwrap();
        self.signal(primary, Signal::SIGSTOP);
        let has_left = |info: &Info| info.is_normal() && info.number("view") > view;
        for other in (0..3).filter(|other| *other != primary) {
            self.fleet.wait_for(other, PATIENCE, has_left).await.unwrap();
        }
        self.signal(primary, Signal::SIGCONT);
        self.fleet.wait_for(primary, PATIENCE, has_left).await.unwrap();
        self.view().await
    }
}

impl Traced {
    /// A promise and a log view, each in two copies: at the primary that was left, at the one that
    /// follows, and at a backup of both.
    async fn assert_view_changes_sync_four_times(&mut self) {
        let mut exact = 0;
        for _ in 0..ATTEMPTS {
            let (view, before) = (self.view().await, self.syncs());
            let views = usize::try_from(self.depose(view).await - view).unwrap();
            for (replica, (before, after)) in before.into_iter().zip(self.syncs()).enumerate() {
                let calls = after - before;
                assert!((4..=4 * views).contains(&calls), "replica {replica}: {calls} in {views}");
            }
            exact += usize::from(views == 1);
            if exact == 3 {
                return;
            }
        }
        panic!("{exact} of {ATTEMPTS} view changes led to the next view at once");
    }

    /// A backup writes both copies again when it opens its directory, and when its log is back; the
    /// others have nothing to write.
    async fn assert_restarts_sync_four_times(&mut self) {
        for _ in 0..ATTEMPTS {
            let (view, before) = (self.view().await, self.syncs());
            let backup = usize::try_from((view + 1) % 3).unwrap();
            self.fleet.kill(&[backup]).await.unwrap();
            self.fleet.start(backup).unwrap();
            if self.view().await == view {
                let mut expected = before;
                // The tracer began a new log.
                expected[backup] = 4;
                return assert_eq!(self.syncs(), expected);
            }
        }
        panic!("no restart of a backup left the view alone");
    }
}

/// 10,000 writes, each an operation of its own, at all replicas.
async fn write_much(fleet: &Fleet) {
    let mut writers = JoinSet::new();
    for writer in 0..CLIENTS {
        let address = fleet.addresses()[writer % 3];
        writers.spawn(async move {
            let mut client = RedisClient::connect(address).await.unwrap();
            for number in 0..WRITES_PER_CLIENT {
                let key = format!("k{writer}:{number}");
                client.call(["SET", &key, "v"]).await.unwrap();
            }
        });
    }
    while let Some(joined) = writers.join_next().await {
        joined.unwrap();
    }
}

#[tokio::test]
async fn without_a_log_on_disk_only_a_change_of_view_syncs_and_four_times() {
    if !may_trace("the syncs of --durability view-only are not counted") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut traced = Traced::start(dir.path(), Durability::ViewOnly).await;
    let mut quiet = false;
    for _ in 0..ATTEMPTS {
        let (view, before) = (traced.view().await, traced.syncs());
        write_much(&traced.fleet).await;
        if traced.view().await == view {
            assert_eq!(traced.syncs(), before, "10,000 writes in view {view}");
            quiet = true;
            break;
        }
    }
    assert!(quiet, "no view lasted for 10,000 writes");
    traced.assert_view_changes_sync_four_times().await;
    traced.assert_restarts_sync_four_times().await;
}

#[tokio::test]
async fn without_disks_nothing_is_ever_synced() {
    if !may_trace("the syncs of --durability diskless are not counted") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut traced = Traced::start(dir.path(), Durability::Diskless).await;
    write_much(&traced.fleet).await;
    let view = traced.view().await;
    traced.depose(view).await;
    traced.fleet.kill(&[0]).await.unwrap();
    traced.fleet.start(0).unwrap();
    traced.fleet.wait_until_normal(PATIENCE).await.unwrap();
    assert_eq!(traced.syncs(), [0, 0, 0]);
    let called = calls(&traced.logs[0]);
    assert!(called.iter().any(|call| call.starts_with("openat(")), "the tracer sees something");
}

/// Runs replica 1 with `fault` until it ends by it, lets the others go on without it, and brings it
/// back.
async fn suffer(fleet: &mut Fleet, fault: &str) {
    fleet.kill(&[1]).await.unwrap();
    let inject = format!("inject={fault}");
    fleet.wrap(1, tracer(Path::new("/dev/null"), &["-e", &inject])).unwrap();
    fleet.start(1).unwrap();
    let mut hurt = fleet.take(1).unwrap();
    let ended = timeout(PATIENCE, hurt.wait()).await;
    let ended = ended.unwrap_or_else(|_| panic!("{fault} did not happen")).unwrap();
    if fault.contains("SIGKILL") {
        assert_eq!(ended.code(), None, "{fault}");
    } else {
        assert!(matches!(ended.code(), Some(4 | 5)), "{fault}: {ended}");
    }
    let commit = fleet.wait_for(0, PATIENCE, |_| true).await.unwrap().number("commit");
    let goes_on = |info: &Info| info.number("commit") > commit + 20;
    let committed = fleet.wait_for(0, PATIENCE, goes_on).await.unwrap().number("commit");
    fleet.wrap(1, Vec::new()).unwrap();
    fleet.start(1).unwrap();
    let is_back = |info: &Info| info.is_normal() && info.number("applied") >= committed;
    let back = fleet.wait_for(1, PATIENCE, is_back).await;
    back.unwrap_or_else(|error| panic!("after {fault}: {error:#}"));
}

/// Hurts replica 1 in each of these ways, and then looks whether anything is missing anywhere.
async fn nothing_is_lost_by(mode: Durability, faults: impl IntoIterator<Item = String>) {
    if !may_trace("faults of system calls are not tried") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(kv(), dir.path().to_owned(), 3).unwrap().with_durability(mode);
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    let shared = Arc::new(Shared {
        addresses: fleet.addresses(),
        value_bytes: 100,
        begun: Instant::now(),
        stop: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
    });
    let mut workers = JoinSet::new();
    for name in 0..4 {
        let shared = Arc::clone(&shared);
        workers.spawn(async move { (name, Worker::new(&shared, name, 1).unwrap().run().await) });
    }
    for fault in faults {
        suffer(&mut fleet, &fault).await;
    }
    if mode == Durability::Full {
        fleet.kill(&[0, 1, 2]).await.unwrap();
    }
    shared.stop.store(true, Ordering::Relaxed);
    let mut records = workers.join_all().await;
    records.sort_by_key(|(name, _)| *name);
    let records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
    assert!(records.iter().all(|record| record.wrong_reads == 0));
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    for address in fleet.addresses() {
        assert_eq!(check::read_back(address, &records).await.unwrap(), check::Found::default());
    }
    let digests = check::digests(&fleet.addresses()).await.unwrap();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

fn each(fault: &str, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{fault}:when={number}")).collect()
}

#[tokio::test]
async fn syncs_that_fail_lose_nothing() {
    let faults = each("fdatasync:error=EIO", (1..=12).chain([20, 50, 100]));
    nothing_is_lost_by(Durability::Full, faults).await;
}

#[tokio::test]
async fn death_at_a_sync_loses_nothing() {
    let faults = each("fdatasync:signal=SIGKILL", (1..=12).chain([20, 50, 100]));
    nothing_is_lost_by(Durability::Full, faults).await;
}

#[tokio::test]
async fn writes_that_stop_short_or_find_no_space_lose_nothing() {
    let mut faults = Vec::new();
    // The log is written by the first call, the superblock by the second.
    for fault in ["retval=0", "error=ENOSPC"] {
        faults.extend(each(&format!("pwrite64:{fault}"), [1, 2, 3, 8, 20, 50]));
        faults.extend(each(&format!("writev:{fault}"), [1, 2]));
    }
    nothing_is_lost_by(Durability::Full, faults).await;
}

#[tokio::test]
async fn promises_that_cannot_be_written_lose_nothing() {
    let mut faults = Vec::new();
    for fault in ["fdatasync:error=EIO", "fdatasync:signal=SIGKILL", "writev:error=ENOSPC"] {
        faults.extend(each(fault, 1..=4));
    }
    nothing_is_lost_by(Durability::ViewOnly, faults).await;
}
