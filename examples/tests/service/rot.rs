//! Files of replicas that are down, cut short, damaged and deleted: the group gives everything back.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::{
    task::{JoinSet, yield_now},
    time::timeout,
};
use vr_examples::kv::{
    client::{Info, RedisClient},
    demo::{check, fleet::Fleet},
};
use vr_storage::{Report, inspect};

use crate::{processes::group_of_three, storm::Dice};

/// How long anything may take here; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 6;
/// At how many places the files of a replica are damaged.
const PLACES: usize = 200;
/// Damaged between a stop of a replica and its next start, at most.
const PLACES_AT_ONCE_MAX: usize = 16;
const SECTOR_BYTES: u64 = 512;
/// How many keys are read back at a time.
const KEYS_AT_ONCE: usize = 20;

/// Three replicas, and everything that was ever acknowledged.
struct Group {
    fleet: Fleet,
    promised: BTreeMap<String, String>,
    dice: Dice,
}

impl Group {
    async fn start(dir: &Path, seed: u64) -> Self {
        let fleet = group_of_three(dir).await;
        Self { fleet, promised: BTreeMap::new(), dice: Dice(seed) }
    }

    /// Writes `count` values, several at a time, through the replicas that are up.
    async fn write(&mut self, count: usize, bytes_max: usize) {
        let addresses = self.fleet.addresses().into_iter().enumerate();
        let up = addresses.filter(|(replica, _)| self.fleet.is_up(*replica));
        let up: Vec<_> = up.map(|(_, address)| address).collect();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let mut mine = Vec::new();
            for number in (client..count).step_by(CLIENTS) {
                let key = format!("k{}", self.promised.len() + number);
                let filling = ".".repeat(self.dice.roll(bytes_max));
                mine.push((key.clone(), format!("{key}{filling}")));
            }
            clients.spawn(write_all(up.clone(), client, mine));
        }
        let written = timeout(PATIENCE, clients.join_all()).await.expect("writes are acknowledged");
        self.promised.extend(written.into_iter().flatten());
    }

    async fn stop(&mut self, replicas: &[usize]) {
        self.fleet.kill(replicas).await.unwrap();
    }

    /// Starts a replica, and waits until it has what the others have committed by then.
    async fn bring_back(&mut self, replica: usize) {
        let other = (replica + 1) % 3;
        let committed = self.fleet.wait_for(other, PATIENCE, Info::is_normal).await.unwrap();
        let committed = committed.number("commit");
        self.fleet.start(replica).unwrap();
        let is_back = |info: &Info| info.is_normal() && info.number("applied") >= committed;
        self.fleet.wait_for(replica, PATIENCE, is_back).await.unwrap();
        self.all_are_equal().await;
    }

    async fn all_are_equal(&self) {
        let digests = check::digests(&self.fleet.addresses()).await.unwrap();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    }

    /// Reads everything that was acknowledged back from each replica.
    async fn nothing_is_lost(&self) {
        self.all_are_equal().await;
        let promised: Vec<_> = self.promised.iter().collect();
        for address in self.fleet.addresses() {
            let mut client = RedisClient::connect(address).await.unwrap();
            for some in promised.chunks(KEYS_AT_ONCE) {
                let words = std::iter::once("MGET").chain(some.iter().map(|(key, _)| key.as_str()));
                let BytesFrame::Array(values) = client.call(words).await.unwrap() else {
                    panic!("MGET answers an array")
                };
                for (value, (key, promised)) in values.iter().zip(some) {
                    assert_eq!(value.as_str(), Some(promised.as_str()), "{key}");
                }
            }
        }
    }

    fn inspect(&self, replica: usize) -> Report {
        inspect(self.fleet.data_dir(replica)).unwrap()
    }

    fn file(&self, replica: usize, name: &str) -> PathBuf {
        self.fleet.data_dir(replica).join(name)
    }

    /// Damages superblock or log of a replica at some place.
    fn damage(&mut self, replica: usize) {
        let report = self.inspect(replica);
        let superblock = self.dice.roll(5) == 0;
        let (name, used) = if superblock || report.segments.is_empty() {
            let copy = &report.superblocks[self.dice.roll(report.superblocks.len())];
            (copy.file.to_owned(), SECTOR_BYTES)
        } else {
            let segment = &report.segments[self.dice.roll(report.segments.len())];
            // Also what is behind the last batch.
            (segment.file.clone(), segment.used_bytes + 2 * SECTOR_BYTES)
        };
        let at = self.roll(used);
        let whole_sector = self.dice.roll(2) == 0;
        damage(&self.file(replica, &name), at, whole_sector);
    }

    fn roll(&mut self, sides: u64) -> u64 {
        u64::try_from(self.dice.roll(usize::try_from(sides).unwrap())).unwrap()
    }
}

/// Writes until everything is acknowledged. Who writes the same value twice changes nothing.
async fn write_all(
    replicas: Vec<SocketAddr>,
    mut target: usize,
    values: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut connection = None;
    for (key, value) in &values {
        loop {
            if connection.is_none() {
                target += 1;
                connection = RedisClient::connect(replicas[target % replicas.len()]).await.ok();
            }
            if let Some(client) = &mut connection
                && let Ok(answer) = client.call(["SET", key, value]).await
                && answer.as_str() == Some("OK")
            {
                break;
            }
            connection = None;
            yield_now().await;
        }
    }
    values
}

/// Flips a bit of the byte at `at`, or makes its sector zero.
fn damage(file: &Path, at: u64, whole_sector: bool) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    if whole_sector {
        let sector = [0; 512];
        return file.write_all_at(&sector, at / SECTOR_BYTES * SECTOR_BYTES).unwrap();
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (at % 8))], at).unwrap();
}

fn cut_short(file: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

#[tokio::test]
async fn a_log_file_that_was_cut_short_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path(), 0xc07).await;
    // More than one segment.
    group.write(200, 200_000).await;
    for step in 0..6 {
        let victim = step % 3;
        group.write(30, 2000).await;
        group.stop(&[victim]).await;
        group.write(30, 2000).await;
        let report = group.inspect(victim);
        let mut used = report.segments.iter().filter(|segment| segment.batches > 0);
        let (first, last) = (used.next().unwrap(), used.next_back().unwrap());
        let (segment, bytes) = match step {
            0 => (first, first.used_bytes / 2),
            1 => (last, last.used_bytes / 2),
            2 => (first, 0),
            3 => (last, last.used_bytes),
            4 => (first, 4096),
            _ => (last, 0),
        };
        cut_short(&group.file(victim, &segment.file), bytes);
        let report = group.inspect(victim);
        assert!(report.lost.is_some() || !report.damaged.is_empty(), "step {step}: {report}");
        group.bring_back(victim).await;
    }
    group.nothing_is_lost().await;
}

/// One replica after the other is stopped, damaged and started again; then one has no files at all.
#[tokio::test]
async fn two_hundred_damaged_places_and_a_deleted_directory_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path(), 0x0bad).await;
    let (mut repaired, mut lost, mut blank, mut places) = (0, 0, 0, 0);
    for victim in (0..3).cycle() {
        group.write(40, 2000).await;
        group.stop(&[victim]).await;
        group.write(20, 2000).await;
        let before = group.inspect(victim);
        assert!(before.damaged.is_empty() && before.superblock.is_some(), "{before}");
        for _ in 0..=group.dice.roll(PLACES_AT_ONCE_MAX) {
            group.damage(victim);
            places += 1;
        }
        let damaged = group.inspect(victim);
        match damaged.superblock {
            None => blank += 1,
            Some(_) if damaged.lost.is_some() => lost += 1,
            Some(_) => repaired += usize::from(!damaged.damaged.is_empty()),
        }
        group.bring_back(victim).await;
        if places >= PLACES {
            break;
        }
    }
    println!("{repaired} logs were repaired, {lost} were lost, {blank} disks were formatted anew");
    assert!(repaired >= 5 && blank >= 1, "{repaired} repaired, {lost} lost, {blank} blank");
    group.stop(&[1]).await;
    fs::remove_dir_all(group.fleet.data_dir(1)).unwrap();
    group.bring_back(1).await;
    group.nothing_is_lost().await;
}

/// File and place of the batches whose ops are all in one part of the log; three parts are all.
fn batches_in_part(report: &Report, part: u64, head: u64) -> Vec<(String, u64)> {
    let (after, through) = (head * part / 3, head * (part + 1) / 3);
    let batches = report.records.iter().filter(|record| record.count > 0);
    // The last one may have no marker behind it yet.
    let last = batches.clone().map(|batch| batch.sequence).max();
    let is_inside = batches.filter(|batch| {
        let (base, count) = (batch.base.0, u64::from(batch.count));
        Some(batch.sequence) < last && base >= after && base + count <= through
    });
    is_inside.map(|batch| (batch.file.clone(), batch.at)).collect()
}

#[tokio::test]
async fn logs_that_are_damaged_in_different_places_repair_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path(), 0xc055).await;
    for _ in 0..12 {
        group.write(30, 1500).await;
        // So that no batch reaches from one part of the log into the next but one.
        group.all_are_equal().await;
    }
    group.stop(&[0, 1, 2]).await;
    let reports = [0, 1, 2].map(|replica| group.inspect(replica));
    let head = reports.iter().map(|report| report.ops.unwrap().1.0).min().unwrap();
    for (replica, report) in reports.iter().enumerate() {
        let part = u64::try_from(replica).unwrap();
        let batches = batches_in_part(report, part, head);
        assert!(!batches.is_empty(), "{report}");
        for (number, (file, at)) in batches.iter().enumerate() {
            // A header, or the first entry behind it, or a sector.
            let at = at + [50, 300, 0][number % 3];
            damage(&group.file(replica, file), at, number % 3 == 2);
        }
        let report = group.inspect(replica);
        assert!(report.lost.is_none() && !report.damaged.is_empty(), "{report}");
        let (first, last) = (report.damaged[0].first.0, report.damaged.last().unwrap().through);
        assert!(first > head * part / 3 && last.op_number.0 <= head * (part + 1) / 3, "{report}");
    }
    group.fleet.start_all().unwrap();
    group.fleet.wait_until_normal(PATIENCE).await.unwrap();
    group.nothing_is_lost().await;
    group.write(30, 1500).await;
    group.nothing_is_lost().await;
    group.stop(&[0, 1, 2]).await;
    for replica in 0..3 {
        let report = group.inspect(replica);
        assert!(report.damaged.is_empty(), "{report}");
    }
}
