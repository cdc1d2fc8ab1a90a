//! Real processes under load, killed again and again: one order must explain what clients saw.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::timeout,
};
use vr_examples::kv::{
    client::{Info, RedisClient},
    demo::fleet::Fleet,
};
use vr_sim::linearizability::{
    check,
    file::{self, KV},
    kv::{KvModel, KvOp},
};

use crate::history::{Did, Recorder};

/// How long a group may take to come back; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Calls on one register before the next takes its place; short histories are quickly checked.
const CALLS_PER_REGISTER: usize = 60;
/// Registers in use at a time, so that clients meet.
const REGISTERS: usize = 4;
const CLIENTS: usize = 9;
const KILLS: usize = 30;
/// After which kills all processes are killed at once, too.
const KILLS_OF_ALL: [usize; 3] = [8, 16, 24];
/// Acknowledged writes that must happen between two kills.
const PROGRESS: u64 = 60;

/// A seeded sequence; the same seed gives the same kills and the same mix.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }
}

/// One client with its dice; goes to another replica when its own dies.
struct Client {
    fleet: Vec<std::net::SocketAddr>,
    name: usize,
    target: usize,
    connection: Option<RedisClient>,
    dice: Dice,
    recorder: Arc<Recorder>,
    acknowledged: watch::Sender<u64>,
}

impl Client {
    async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut number = 0;
        while !*stop.borrow() {
            if self.connection.is_none() {
                self.target += 1;
                let address = self.fleet[self.target % self.fleet.len()];
                self.connection = RedisClient::connect(address).await.ok();
                yield_now().await;
                continue;
            }
            number += 1;
            self.step(number).await;
        }
    }

    async fn step(&mut self, number: i64) {
        let era = self.recorder.calls() / (CALLS_PER_REGISTER * REGISTERS);
        let register = format!("r:{era}:{}", self.dice.roll(REGISTERS));
        // Far apart, so that increments never make two written values equal.
        let value = (number * 100 + i64::try_from(self.name).unwrap()) * 1000;
        let (words, did) = match self.dice.roll(10) {
            0..3 => (vec!["SET".to_owned(), register.clone(), value.to_string()], Did::Set(value)),
            3..5 => (vec!["INCR".to_owned(), register.clone()], Did::Incr(None)),
            5 => (vec!["GETDEL".to_owned(), register.clone()], Did::GetDel(None)),
            6 => self.compare_and_set(&register, value).await,
            _ => (vec!["GET".to_owned(), register.clone()], Did::Get(None)),
        };
        let begun = self.recorder.begin(self.name, &register, did.clone());
        let Some(connection) = &mut self.connection else {
            return self.recorder.end(&begun, None);
        };
        match connection.call(&words).await {
            Ok(BytesFrame::Error(text)) if text.starts_with("UNCERTAIN") => {
                self.leave(&begun, &did);
            }
            Ok(BytesFrame::Error(text)) => {
                assert!(text.ends_with("not executed"), "{text}");
                self.recorder.end(&begun, None);
            }
            Ok(answer) => {
                self.recorder.end(&begun, Some(answered(did, &answer)));
                self.acknowledged.send_modify(|count| *count += 1);
            }
            Err(_) => self.leave(&begun, &did),
        }
    }

    /// A comparison with what was just read, so that it often succeeds.
    async fn compare_and_set(&mut self, register: &str, value: i64) -> (Vec<String>, Did) {
        let mut old = 0;
        if let Some(connection) = &mut self.connection {
            let read = connection.call(["GET", register]).await;
            old = read.ok().as_ref().and_then(number).unwrap_or(0);
        }
        let words = ["CAS", register, &old.to_string(), &value.to_string()];
        (words.map(str::to_owned).to_vec(), Did::Cas(old, value, None))
    }

    /// The outcome is unknown: a write stays open, a read did nothing. The connection is over.
    fn leave(&mut self, begun: &crate::history::Begun, did: &Did) {
        self.connection = None;
        if matches!(did, Did::Get(_)) {
            self.recorder.end(begun, None);
        }
    }
}

fn number(frame: &BytesFrame) -> Option<i64> {
    if let BytesFrame::Integer(number) = frame {
        return Some(*number);
    }
    frame.as_str().and_then(|text| text.parse().ok())
}

fn answered(did: Did, answer: &BytesFrame) -> Did {
    match did {
        Did::Get(_) => Did::Get(number(answer)),
        Did::Set(value) => Did::Set(value),
        Did::Cas(old, new, _) => Did::Cas(old, new, Some(number(answer) == Some(1))),
        Did::Incr(_) => Did::Incr(number(answer)),
        Did::GetDel(_) => Did::GetDel(Some(number(answer))),
    }
}

pub(crate) fn kv() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_kv"))
}

/// Waits until the clients have come `PROGRESS` further.
pub(crate) async fn progress(acknowledged: &mut watch::Receiver<u64>) {
    let before = *acknowledged.borrow_and_update();
    let further = acknowledged.wait_for(|count| *count >= before + PROGRESS);
    timeout(PATIENCE, further).await.expect("clients go on").unwrap();
}

/// Kills one replica, lets the others go on, and brings it back.
pub(crate) async fn kill_one(
    fleet: &mut Fleet,
    victim: usize,
    acknowledged: &mut watch::Receiver<u64>,
) {
    fleet.kill(&[victim]).await.unwrap();
    progress(acknowledged).await;
    let mut committed = 0;
    for other in (0..fleet.count()).filter(|other| *other != victim) {
        let info = fleet.wait_for(other, PATIENCE, |_| true).await.unwrap();
        committed = committed.max(info.number("commit"));
    }
    fleet.start(victim).unwrap();
    let is_back = |info: &Info| info.is_normal() && info.number("applied") >= committed;
    fleet.wait_for(victim, PATIENCE, is_back).await.unwrap();
}

pub(crate) async fn kill_all(fleet: &mut Fleet) {
    let all: Vec<usize> = (0..fleet.count()).collect();
    fleet.kill(&all).await.unwrap();
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
}

/// Two checkers must agree that one order explains what was recorded; one of them reads it from a
/// file.
fn assert_linearizable(recorder: &Recorder, path: &Path) {
    let history = recorder.to_history();
    file::write(&mut File::create(path).unwrap(), KV, &history).unwrap();
    let read = file::read(BufReader::new(File::open(path).unwrap()), KV, KvOp::can_return);
    let read = read.unwrap();
    assert_eq!(read, history);
    check(&KvModel, &read).assert_ok();
    assert_eq!(recorder.not_linearizable(), Vec::<String>::new());
}

/// 30 kills in random order, never more than one process down, and 3 kills of all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_kills_leaves_a_linearizable_history() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(kv(), dir.path().to_owned(), 3).unwrap();
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    let recorder = Arc::new(Recorder::default());
    let (acknowledged, mut seen) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for name in 0..CLIENTS {
        let client = Client {
            fleet: fleet.addresses(),
            name,
            target: name,
            connection: None,
            dice: Dice(0x5eed + u64::try_from(name).unwrap()),
            recorder: Arc::clone(&recorder),
            acknowledged: acknowledged.clone(),
        };
        clients.spawn(client.run(stopped.clone()));
    }
    let mut dice = Dice(0xdead_beef);
    for kill in 1..=KILLS {
        progress(&mut seen).await;
        kill_one(&mut fleet, dice.roll(3), &mut seen).await;
        if KILLS_OF_ALL.contains(&kill) {
            kill_all(&mut fleet).await;
        }
    }
    progress(&mut seen).await;
    stop.send(true).unwrap();
    while let Some(joined) = clients.join_next().await {
        joined.unwrap();
    }
    assert!(recorder.calls() > KILLS * 60, "{} calls", recorder.calls());
    assert_linearizable(&recorder, &dir.path().join("history.jsonl"));
}
