//! Calls sent again, held back, given up and resumed by others while processes die: each counts once.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::{
    process::Command as Process,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use vr_core::{Client, ClientOutcome, Members, RequestError, Ticket};
use vr_examples::kv::{
    client::Info,
    command::{Command, Value},
    demo::{check, fleet::Fleet},
    state::Kv,
};
use vr_transport_tcp::{TcpTransport, TokioRuntime};

use crate::{
    processes::ask,
    relay::Relay,
    storm::{Dice, kill_all, kill_one, kv, progress},
};

/// How long anything may take here; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a call waits that is meant to be given up.
const IMPATIENCE: Duration = Duration::from_millis(200);
const SMALL_CHECKPOINTS: [&str; 4] = ["--checkpoint-ops", "20", "--log-retain-ops", "5"];

/// What became of a call, as its client or whoever resumed it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fate {
    /// It was the so manieth that was counted.
    Counted(i64),
    /// It was counted, and nobody knows any more as which.
    Executed,
    /// It was not counted and never will be.
    NotExecuted,
}

/// Counts, and leaves a mark, so that the n-th mark is that of whoever was told n.
fn count(mark: &str) -> Vec<Command> {
    let mark = Bytes::from(format!("{mark} "));
    vec![Command::IncrBy("n".into(), 1), Command::Append("marks".into(), mark)]
}

/// What a call has come to, or what to find out with.
fn fate(told: Result<Vec<Value>, RequestError>) -> Result<Fate, Ticket> {
    let error = match told.as_deref() {
        Ok([Value::Integer(place), Value::Integer(_)]) => return Ok(Fate::Counted(*place)),
        Ok(other) => panic!("a count was answered with {other:?}"),
        Err(error) => error,
    };
    let evicted = matches!(error, RequestError::ClientEvicted { .. });
    assert!(!evicted, "no session was closed, and yet: {error}");
    match error.outcome() {
        ClientOutcome::NotExecuted => Ok(Fate::NotExecuted),
        ClientOutcome::Executed => Ok(Fate::Executed),
        ClientOutcome::Unknown => Err(error.ticket().unwrap().clone()),
    }
}

async fn connect(members: Members) -> Client<Kv> {
    let client = Client::<Kv>::builder().group("kv").members(members).timeout(PATIENCE);
    let client = client.transport(TcpTransport::client()).runtime(TokioRuntime::current());
    client.connect().await.unwrap()
}

/// A call whose client gave it up.
#[derive(Clone, Debug)]
struct GivenUp {
    mark: String,
    /// Its ticket, as it is stored.
    ticket: Vec<u8>,
}

impl GivenUp {
    /// Finds out what became of it.
    async fn resume(&self, client: &Client<Kv>) -> Fate {
        let mut ticket = Ticket::from_bytes(&self.ticket).unwrap();
        let resolved = async {
            loop {
                match fate(client.resume(ticket).await) {
                    Ok(fate) => return fate,
                    Err(unknown) => ticket = unknown,
                }
            }
        };
        timeout(PATIENCE, resolved).await.expect("a ticket can be resumed")
    }
}

/// What was told of each call. Whoever asks twice must be told the same.
#[derive(Debug, Default)]
struct Ledger(Mutex<BTreeMap<String, Fate>>);

impl Ledger {
    fn tell(&self, mark: &str, fate: Fate) {
        let mut told = self.0.lock().unwrap();
        let known = told.entry(mark.to_owned()).or_insert_with(|| fate.clone());
        match (&*known, &fate) {
            (Fate::Executed, Fate::Counted(_)) => *known = fate,
            (Fate::Counted(_), Fate::Executed) => {}
            (known, fate) => assert_eq!(known, fate, "of {mark} two different things were told"),
        }
    }

    /// How many calls were counted, as far as is known.
    fn counted(&self) -> usize {
        self.0.lock().unwrap().values().filter(|fate| **fate != Fate::NotExecuted).count()
    }

    /// Every mark is there once, in the place that was told, and no other mark is there.
    fn assert_explains(&self, marks: &[&str]) {
        let told = self.0.lock().unwrap();
        let different: BTreeSet<_> = marks.iter().collect();
        assert_eq!(different.len(), marks.len(), "a mark is there twice: {marks:?}");
        for (place, mark) in (1..).zip(marks) {
            match told.get(*mark) {
                Some(Fate::Executed) => {}
                other => assert_eq!(other, Some(&Fate::Counted(place)), "{mark} in {place}"),
            }
        }
        let missing = |(mark, fate): &(&String, &Fate)| {
            **fate != Fate::NotExecuted && !different.contains(&mark.as_str())
        };
        assert_eq!(told.iter().find(missing), None, "it was acknowledged and is not there");
    }

    /// All replicas have the same state, and this explains it.
    async fn assert_holds_at(&self, fleet: &Fleet) {
        let digests = check::digests(&fleet.addresses()).await.unwrap();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
        for replica in 0..fleet.count() {
            let marks = ask(fleet, replica, &["GET", "marks"]).await;
            let marks: Vec<&str> = marks.split_whitespace().collect();
            assert_eq!(ask(fleet, replica, &["GET", "n"]).await, marks.len().to_string());
            self.assert_explains(&marks);
        }
    }
}

/// One client, and its way to the group.
struct Caller {
    name: String,
    calls: usize,
    relay: Relay,
    client: Client<Kv>,
}

impl Caller {
    async fn new(members: &str, name: impl Into<String>) -> Self {
        let relay = Relay::to(members).await;
        let client = connect(relay.members()).await;
        Self { name: name.into(), calls: 0, relay, client }
    }

    fn next_mark(&mut self) -> String {
        self.calls += 1;
        format!("{}.{}", self.name, self.calls)
    }

    /// Makes a call and waits for what becomes of it.
    async fn call(&mut self, ledger: &Ledger) {
        let (mark, fate) = self.begin().await.unwrap();
        ledger.tell(&mark, fate);
    }

    /// Makes a call, and does not wait.
    fn begin(&mut self) -> JoinHandle<(String, Fate)> {
        let (mark, client) = (self.next_mark(), self.client.clone());
        tokio::spawn(async move {
            let fate = match fate(client.execute(count(&mark)).await) {
                Ok(fate) => fate,
                Err(ticket) => {
                    let ticket = ticket.to_bytes();
                    GivenUp { mark: mark.clone(), ticket }.resume(&client).await
                }
            };
            (mark, fate)
        })
    }

    /// Makes a call that is given up when it is on its way.
    async fn give_up(&mut self, ledger: &Ledger) -> GivenUp {
        loop {
            let mark = self.next_mark();
            let impatient = self.client.with_timeout(IMPATIENCE);
            match fate(impatient.execute(count(&mark)).await) {
                // It did not get as far as that.
                Ok(fate) => ledger.tell(&mark, fate),
                Err(ticket) => return GivenUp { mark, ticket: ticket.to_bytes() },
            }
        }
    }
}

async fn group_with(options: &[&str], dir: &Path) -> Fleet {
    let mut fleet = Fleet::new(kv(), dir.to_owned(), 3).unwrap().with_options(options);
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    fleet
}

/// Waits until the group has counted so far, and not further, as one of its replicas says.
async fn wait_until_counted(fleet: &Fleet, asked: usize, count: usize) {
    let counted = async {
        loop {
            let counted = ask(fleet, asked, &["GET", "n"]).await.parse().unwrap_or(0);
            if counted >= count {
                return counted;
            }
        }
    };
    let counted = timeout(PATIENCE, counted).await;
    assert_eq!(counted.expect("it is counted, although nobody is told"), count);
}

async fn primary(fleet: &Fleet) -> usize {
    let found = async {
        loop {
            if let Some((primary, _)) = fleet.primary().await {
                return primary;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("somebody leads")
}

/// Kills the primary, and returns it when another one leads.
async fn kill_primary(fleet: &mut Fleet) -> usize {
    let killed = primary(fleet).await;
    fleet.kill(&[killed]).await.unwrap();
    // A process that is down is not asked, so it is another one.
    primary(fleet).await;
    killed
}

async fn bring_back(fleet: &mut Fleet, replica: usize) {
    fleet.start(replica).unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
}

/// Replies are lost and connections break, with several calls on their way; each new connection
/// begins with copies of all that was ever sent. The primary is killed in the middle of it.
#[tokio::test]
async fn calls_sent_again_on_new_connections_count_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_with(&SMALL_CHECKPOINTS, dir.path()).await;
    let (ledger, mut caller) = (Ledger::default(), Caller::new(fleet.members(), "a").await);
    caller.relay.repeat();
    for _ in 0..4 {
        caller.call(&ledger).await;
        caller.relay.let_replies_pass(false);
        let calls: Vec<_> = (0..5).map(|_| caller.begin()).collect();
        wait_until_counted(&fleet, 0, ledger.counted() + calls.len()).await;
        let sent = caller.relay.sent();
        caller.relay.break_connections();
        caller.relay.sends_more_than(sent).await;
        let killed = kill_primary(&mut fleet).await;
        caller.relay.let_replies_pass(true);
        caller.relay.break_connections();
        for called in join_all(calls).await {
            let (mark, fate) = called.unwrap();
            ledger.tell(&mark, fate);
        }
        bring_back(&mut fleet, killed).await;
    }
    ledger.assert_holds_at(&fleet).await;
    assert_eq!(ledger.counted(), 24);
}

/// How the other process is told what to resume, and with whom.
const TICKETS: &str = "VR_TEST_TICKETS";
const MEMBERS: &str = "VR_TEST_MEMBERS";
/// The test whose first line makes a process of this program the other one.
const OTHER_PROCESS: &str =
    "exactly_once::calls_given_up_are_resumed_by_another_process_and_count_once";

/// Whether this is the process that [`resumed_elsewhere`] started; then it has found out what became
/// of the tickets in a file, and left that in another one.
async fn is_the_other_process() -> bool {
    let Ok(tickets) = env::var(TICKETS).map(PathBuf::from) else { return false };
    let client = connect(env::var(MEMBERS).unwrap().parse().unwrap()).await;
    let stored: Vec<Vec<u8>> = postcard::from_bytes(&fs::read(&tickets).unwrap()).unwrap();
    let mut fates = Vec::new();
    for ticket in stored {
        fates.push(GivenUp { mark: String::new(), ticket }.resume(&client).await);
    }
    fs::write(tickets.with_extension("fates"), postcard::to_allocvec(&fates).unwrap()).unwrap();
    true
}

/// Has a process of its own resume the tickets, one after the other.
async fn resumed_elsewhere(fleet: &Fleet, dir: &Path, calls: &[&GivenUp]) -> Vec<Fate> {
    let (tickets, fates) = (dir.join("call.tickets"), dir.join("call.fates"));
    let stored: Vec<_> = calls.iter().map(|call| &call.ticket).collect();
    fs::write(&tickets, postcard::to_allocvec(&stored).unwrap()).unwrap();
    let process = Process::new(env::current_exe().unwrap())
        .args(["--exact", OTHER_PROCESS])
        .env(TICKETS, &tickets)
        .env(MEMBERS, fleet.members())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, process).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // It is there only if a test of this name was there to run.
    postcard::from_bytes(&fs::read(fates).unwrap()).unwrap()
}

/// One call was executed, its reply lost and its primary killed; another one is held on its way to
/// the next primary. The client gives both up and ends. Another process is told what became of them,
/// or has them executed; what was held arrives after that.
#[tokio::test]
async fn calls_given_up_are_resumed_by_another_process_and_count_once() {
    if is_the_other_process().await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_with(&SMALL_CHECKPOINTS, dir.path()).await;
    let (ledger, mut caller) = (Ledger::default(), Caller::new(fleet.members(), "a").await);
    caller.call(&ledger).await;
    caller.relay.let_replies_pass(false);
    let lost = caller.give_up(&ledger).await;
    wait_until_counted(&fleet, 0, 2).await;
    let killed = kill_primary(&mut fleet).await;
    caller.relay.let_requests_pass(false);
    let held = caller.give_up(&ledger).await;
    let Caller { relay, client, .. } = caller;
    drop(client);
    assert_eq!(ask(&fleet, (killed + 1) % 3, &["GET", "n"]).await, "2");

    let fates = resumed_elsewhere(&fleet, dir.path(), &[&held, &lost]).await;
    assert_eq!(fates, [Fate::Counted(3), Fate::Counted(2)]);
    relay.let_requests_pass(true);
    relay.drained().await;
    bring_back(&mut fleet, killed).await;
    kill_primary(&mut fleet).await;
    fleet.start_all().unwrap();

    // The client comes back, as a new one, and asks at the same time as somebody else.
    let mut caller = Caller::new(fleet.members(), "b").await;
    let other = connect(fleet.members().parse().unwrap()).await;
    for (call, expected) in [(&lost, 2), (&held, 3)] {
        let (one, two) = tokio::join!(call.resume(&caller.client), call.resume(&other));
        assert_eq!((&one, &two), (&Fate::Counted(expected), &Fate::Counted(expected)));
        ledger.tell(&call.mark, one);
    }
    caller.call(&ledger).await;
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    ledger.assert_holds_at(&fleet).await;
}

/// Lets calls be made until the log of the others starts after everything that `absent` has.
async fn release_what_is_known_to(
    fleet: &mut Fleet,
    absent: usize,
    had: u64,
    caller: &mut Caller,
    ledger: &Ledger,
) {
    for other in [(absent + 1) % 3, (absent + 2) % 3] {
        while fleet.wait_for(other, PATIENCE, |_| true).await.unwrap().number("log_base") <= had {
            caller.call(ledger).await;
        }
    }
}

/// Kills primaries until `replica` leads, one at a time.
async fn make_primary(fleet: &mut Fleet, replica: usize) {
    while primary(fleet).await != replica {
        let killed = kill_primary(fleet).await;
        bring_back(fleet, killed).await;
    }
}

/// A replica was away for so long that it needs a checkpoint of the others; then it leads. It knows
/// of each call what became of it, also of those that it never had in its log.
#[tokio::test]
async fn a_primary_that_fetched_a_checkpoint_counts_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_with(&SMALL_CHECKPOINTS, dir.path()).await;
    let (ledger, members) = (Ledger::default(), fleet.members().to_owned());
    let mut caller = Caller::new(&members, "a").await;
    let mut busy = Caller::new(&members, "b").await;
    caller.call(&ledger).await;
    let absent = (primary(&fleet).await + 1) % 3;
    let had = fleet.info(absent).await.unwrap().number("op");
    fleet.kill(&[absent]).await.unwrap();
    caller.relay.let_replies_pass(false);
    let lost = caller.give_up(&ledger).await;
    let asked = (absent + 1) % 3;
    wait_until_counted(&fleet, asked, 2).await;
    caller.relay.let_requests_pass(false);
    let held = caller.give_up(&ledger).await;
    release_what_is_known_to(&mut fleet, absent, had + 3, &mut busy, &ledger).await;

    let committed = fleet.info(asked).await.unwrap().number("commit");
    fleet.start(absent).unwrap();
    let fetched =
        |info: &Info| info.number("log_base") > had && info.number("applied") >= committed;
    fleet.wait_for(absent, PATIENCE, fetched).await.unwrap();
    make_primary(&mut fleet, absent).await;

    let fates = resumed_elsewhere(&fleet, dir.path(), &[&lost, &held]).await;
    assert_eq!(fates[0], Fate::Counted(2));
    ledger.tell(&lost.mark, fates[0].clone());
    ledger.tell(&held.mark, fates[1].clone());
    // Everything that the two clients ever sent arrives once more.
    for caller in [&mut caller, &mut busy] {
        caller.relay.repeat();
        caller.relay.let_requests_pass(true);
        caller.relay.let_replies_pass(true);
        caller.relay.break_connections();
        caller.call(&ledger).await;
    }
    ledger.assert_holds_at(&fleet).await;
    kill_all(&mut fleet).await;
    let fates = resumed_elsewhere(&fleet, dir.path(), &[&held, &lost]).await;
    ledger.tell(&held.mark, fates[0].clone());
    ledger.tell(&lost.mark, fates[1].clone());
    assert_eq!(fates[1], Fate::Counted(2));
    ledger.assert_holds_at(&fleet).await;
}

const CALLERS: u64 = 4;
const KILLS: usize = 8;

/// What the callers of a storm share.
#[derive(Clone)]
struct Storm {
    members: String,
    ledger: Arc<Ledger>,
    /// Tickets that nobody has resumed yet.
    given_up: Arc<Mutex<Vec<GivenUp>>>,
    acknowledged: watch::Sender<u64>,
}

impl Storm {
    async fn call(&self, number: u64, stop: watch::Receiver<bool>) {
        let mut dice = Dice(0x0ace + number);
        let (mut life, mut caller) = (0, None);
        while !*stop.borrow() {
            if dice.roll(40) == 0 {
                // The process of the client starts again, and knows nothing of the calls before.
                (life, caller) = (life + 1, None);
            }
            let name = format!("{number}.{life}");
            let caller = match &mut caller {
                Some(caller) => caller,
                none => none.insert(self.begin_life(name).await),
            };
            self.step(caller, dice.roll(12)).await;
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }

    /// A client with a session, without which it has no call to give up.
    async fn begin_life(&self, name: String) -> Caller {
        let mut caller = Caller::new(&self.members, name).await;
        caller.relay.repeat();
        caller.call(&self.ledger).await;
        caller
    }

    async fn step(&self, caller: &mut Caller, what: usize) {
        match what {
            0 => {
                caller.relay.let_replies_pass(false);
                let given_up = caller.give_up(&self.ledger).await;
                self.given_up.lock().unwrap().push(given_up);
                caller.relay.let_replies_pass(true);
            }
            1 => {
                caller.relay.let_requests_pass(false);
                let given_up = caller.give_up(&self.ledger).await;
                self.given_up.lock().unwrap().push(given_up);
                caller.relay.let_requests_pass(true);
            }
            2 => {
                let calls: Vec<_> = (0..4).map(|_| caller.begin()).collect();
                caller.relay.break_connections();
                for called in join_all(calls).await {
                    let (mark, fate) = called.unwrap();
                    self.ledger.tell(&mark, fate);
                }
            }
            3 => {
                let given_up = self.given_up.lock().unwrap().pop();
                if let Some(call) = given_up {
                    self.ledger.tell(&call.mark, call.resume(&caller.client).await);
                }
            }
            _ => caller.call(&self.ledger).await,
        }
    }
}

/// Clients break, give up, end and begin again, and resume each other's calls, while replicas are
/// killed and the log is released all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_kills_and_broken_clients_counts_each_call_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_with(&SMALL_CHECKPOINTS, dir.path()).await;
    let (acknowledged, mut seen) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    let storm = Storm {
        members: fleet.members().to_owned(),
        ledger: Arc::default(),
        given_up: Arc::default(),
        acknowledged,
    };
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let (storm, stopped) = (storm.clone(), stopped.clone());
        callers.spawn(async move { storm.call(number, stopped).await });
    }
    let mut dice = Dice(0x0dd);
    for kill in 1..=KILLS {
        progress(&mut seen).await;
        kill_one(&mut fleet, dice.roll(3), &mut seen).await;
        if kill == KILLS / 2 {
            kill_all(&mut fleet).await;
        }
    }
    stop.send(true).unwrap();
    while let Some(joined) = callers.join_next().await {
        joined.unwrap();
    }
    let client = connect(storm.members.parse().unwrap()).await;
    let left = std::mem::take(&mut *storm.given_up.lock().unwrap());
    for call in left {
        storm.ledger.tell(&call.mark, call.resume(&client).await);
    }
    storm.ledger.assert_holds_at(&fleet).await;
    for replica in 0..3 {
        assert!(fleet.info(replica).await.unwrap().number("log_base") > 0, "the log was released");
    }
}
