//! What each command does to the state, and that every replica does the same.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use vr_core::{Context, QueryContext, SnapshotReader, SnapshotWriter, StateMachine};
use vr_examples::kv::{
    command::{Command, Failure, Question, Value},
    parse::{Parsed, parse},
    state::{
        ANSWER_BYTES_MAX, EXPIRED_KEYS_PER_OPERATION_MAX, Kv, REPLY_BYTES_MAX, VALUE_BYTES_MAX,
    },
};

/// A state and the replicated time, told what to do in Redis's words.
#[derive(Default)]
struct Store {
    kv: Kv,
    now: Duration,
}

impl Store {
    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = Duration::from_millis(millis);
        self
    }

    fn run(&mut self, commands: Vec<Command>) -> Vec<Value> {
        self.kv.apply(&Context { time: self.now, ..Context::default() }, commands)
    }

    fn ask(&self, questions: Vec<Question>) -> Vec<Value> {
        self.kv.query(&QueryContext { time: self.now, ..QueryContext::default() }, questions)
    }

    fn say(&mut self, line: &str) -> Value {
        let words: Vec<Bytes> =
            line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let values = match parse(&words).unwrap() {
            Parsed::Write(command) => self.run(vec![command]),
            Parsed::Read(question) => self.ask(vec![question]),
            Parsed::Local(local) => panic!("{local:?} is not for the state"),
        };
        let [value] = &values[..] else { panic!("one answer, not {values:?}") };
        value.clone()
    }

    /// Runs lines that each end in `=> what is answered`.
    fn script(&mut self, lines: &str) {
        for line in lines.trim().lines() {
            let (line, expected) = line.trim().split_once(" => ").unwrap();
            assert_eq!(show(&self.say(line)), expected, "{line}");
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.kv.snapshot(&mut SnapshotWriter::new(&mut bytes)).unwrap();
        bytes
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Ok => "OK".to_owned(),
        Value::Nil => "nil".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Bulk(bytes) => format!("'{}'", bytes.escape_ascii()),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(" "))
        }
        Value::Failed(failure) => failure.to_string(),
    }
}

fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    Command::MSet(vec![(key.into(), value.into())])
}

#[test]
fn set_and_get() {
    Store::default().script(
        "GET k => nil
         SET k one => OK
         GET k => 'one'
         SET k two GET => 'one'
         SET new x GET => nil
         GET new => 'x'",
    );
}

#[test]
fn set_with_nx_and_xx() {
    Store::default().script(
        "SET k one XX => nil
         GET k => nil
         SET k one NX => OK
         SET k two NX => nil
         SET k two NX GET => 'one'
         GET k => 'one'
         SET k two XX => OK
         SET k three XX GET => 'two'",
    );
}

#[test]
fn set_with_expiries() {
    let mut store = Store::default();
    store.at(1000).script(
        "SET s v EX 2 => OK
         SET p v PX 300 => OK
         PTTL s => 2000
         TTL s => 2
         PTTL p => 300
         SET s w KEEPTTL => OK
         PTTL s => 2000
         SET s x => OK
         PTTL s => -1",
    );
    store.at(1299).script("GET p => 'v'");
    store.at(1300).script("GET p => nil\nPTTL p => -2\nEXISTS p => 0\nSET p y XX => nil");
}

#[test]
fn getdel_returns_and_removes() {
    Store::default().script("SET k v => OK\nGETDEL k => 'v'\nGETDEL k => nil\nEXISTS k => 0");
}

#[test]
fn mset_and_mget() {
    Store::default().script(
        "MSET a 1 b 2 a 3 => OK
         MGET a b c => ['3' '2' nil]",
    );
}

#[test]
fn mset_forgets_expiries() {
    Store::default().script("SET a v PX 5 => OK\nMSET a 1 => OK\nTTL a => -1");
}

#[test]
fn del_and_exists_count() {
    Store::default().script(
        "MSET a 1 b 2 => OK
         EXISTS a a b c => 3
         DEL a c a => 1
         EXISTS a b => 1",
    );
}

#[test]
fn counters_count_within_64_bits() {
    Store::default().script(
        "INCR n => 1
         INCRBY n 41 => 42
         DECR n => 41
         DECRBY n 50 => -9
         SET n 9223372036854775807 => OK
         INCR n => ERR increment or decrement would overflow
         GET n => '9223372036854775807'
         SET n 1.5 => OK
         INCR n => ERR value is not an integer or out of range",
    );
}

#[test]
fn counters_keep_their_expiry() {
    Store::default().script("SET n 1 PX 70 => OK\nINCR n => 2\nPTTL n => 70");
}

#[test]
fn append_and_strlen() {
    Store::default().script(
        "STRLEN k => 0
         APPEND k ab => 2
         APPEND k cd => 4
         GET k => 'abcd'
         STRLEN k => 4
         PEXPIRE k 9 => 1
         APPEND k e => 5
         PTTL k => 9",
    );
}

#[test]
fn expire_pexpire_and_persist() {
    let mut store = Store::default();
    store.at(10).script(
        "EXPIRE k 1 => 0
         PERSIST k => 0
         SET k v => OK
         PERSIST k => 0
         TTL k => -1
         EXPIRE k 100 => 1
         PTTL k => 100000
         PEXPIRE k 1600 => 1
         TTL k => 2
         PERSIST k => 1
         TTL k => -1
         PEXPIRE k 5 => 1",
    );
    store.at(15).script("EXPIRE k 100 => 0\nPERSIST k => 0\nTTL k => -2");
}

#[test]
fn an_expiry_in_the_past_deletes() {
    Store::default().script("SET k v => OK\nEXPIRE k 0 => 1\nGET k => nil");
    Store::default().script("SET k v => OK\nPEXPIRE k -5 => 1\nDBSIZE => 0");
}

#[test]
fn cas_writes_only_over_what_it_expects() {
    Store::default().script(
        "CAS k a b => 0
         SET k a PX 50 => OK
         CAS k x b => 0
         GET k => 'a'
         CAS k a b => 1
         GET k => 'b'
         PTTL k => 50",
    );
}

#[test]
fn flushall_leaves_nothing() {
    let mut store = Store::default();
    store.script("MSET a 1 b 2 => OK\nEXPIRE a 10 => 1\nFLUSHALL => OK\nDBSIZE => 0");
    assert_eq!(store.snapshot(), Store::default().snapshot());
}

#[test]
fn dbsize_and_keys_do_not_see_the_dead() {
    let mut store = Store::default();
    store.script("MSET ab 1 ac 2 b 3 => OK\nPEXPIRE ab 10 => 1\nDBSIZE => 3\nKEYS ab => ['ab']");
    store.at(10).script("DBSIZE => 2\nKEYS a* => ['ac']\nKEYS z* => []");
}

#[test]
fn a_scan_returns_every_key_that_stays() {
    let mut store = Store::default();
    for number in 0..500 {
        store.say(&format!("SET key:{number} v"));
    }
    let (mut seen, mut cursor, mut rounds) = (Vec::new(), "0".to_owned(), 0);
    while cursor != "0" || rounds == 0 {
        let Value::Array(parts) = store.say(&format!("SCAN {cursor} COUNT 7 MATCH key:*")) else {
            panic!("a scan answers an array");
        };
        let [Value::Bulk(next), Value::Array(keys)] = &parts[..] else { panic!("{parts:?}") };
        seen.extend(keys.iter().map(show));
        cursor = String::from_utf8(next.to_vec()).unwrap();
        rounds += 1;
        store.say(&format!("DEL key:{}", 1000 - rounds));
        store.say(&format!("SET other:{rounds} v"));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 500);
    assert!(rounds > 70, "{rounds} rounds");
}

#[test]
fn one_operation_removes_a_bounded_number_of_dead_keys() {
    let mut store = Store::default();
    for number in 0..EXPIRED_KEYS_PER_OPERATION_MAX + 10 {
        store.say(&format!("SET k{number} v PX 5"));
    }
    let count = |store: &Store| u64::from_le_bytes(store.snapshot()[..8].try_into().unwrap());
    store.at(100).run(Vec::new());
    assert_eq!((store.say("DBSIZE"), count(&store)), (Value::Integer(0), 10));
    store.run(Vec::new());
    assert_eq!(count(&store), 0);
}

#[test]
fn a_value_has_a_longest_length() {
    let mut store = Store::default();
    let full = Bytes::from(vec![b'x'; VALUE_BYTES_MAX]);
    assert_eq!(store.run(vec![set("k", full.clone())]), [Value::Ok]);
    assert_eq!(store.say("APPEND k y"), Value::Failed(Failure::ValueTooLong));
    let longer = Bytes::from([&full[..], b"y"].concat());
    assert_eq!(store.run(vec![set("n", longer)]), [Value::Failed(Failure::ValueTooLong)]);
    assert_eq!((store.say("STRLEN k"), store.say("EXISTS n")), (length(&full), Value::Integer(0)));
}

fn length(bytes: &Bytes) -> Value {
    Value::Integer(i64::try_from(bytes.len()).unwrap())
}

#[test]
fn a_full_state_refuses_what_adds_and_lets_delete() {
    let mut store = Store { kv: Kv::with_bytes_max(100), now: Duration::ZERO };
    store.script(
        "SET a 0123456789012345678901234567890123456789 => OK
         SET b 1 => OOM command not allowed when used memory > 'maxmemory'.
         INCR b => OOM command not allowed when used memory > 'maxmemory'.
         APPEND a 1 => OOM command not allowed when used memory > 'maxmemory'.
         DEL a => 1
         SET b 1 => OK",
    );
}

#[test]
fn a_reply_that_is_full_leaves_the_other_commands_undone() {
    let mut store = Store::default();
    let big = Bytes::from(vec![b'x'; REPLY_BYTES_MAX / 2]);
    for key in ["a", "b", "c"] {
        store.run(vec![set(key, big.clone())]);
    }
    let take = ["a", "b", "c"].map(|key| Command::GetDel(key.into()));
    assert_eq!(store.run(take.to_vec()).len(), 2);
    assert_eq!(store.say("EXISTS a b c"), Value::Integer(1));
}

#[test]
fn an_answer_has_a_largest_size() {
    let mut store = Store::default();
    let big = Bytes::from(vec![b'x'; VALUE_BYTES_MAX]);
    for key in ["a", "b", "c", "d"] {
        store.run(vec![set(key, big.clone())]);
    }
    assert_eq!(store.say("MGET a b c d"), Value::Failed(Failure::AnswerTooLarge));
    let Value::Array(values) = store.say("MGET a b") else { panic!("two values fit") };
    assert!(values.iter().map(Value::bytes).sum::<usize>() < ANSWER_BYTES_MAX);
}

#[test]
fn a_snapshot_restores_the_same_state() {
    let mut store = Store::default();
    store.at(5).script("MSET a 1 b 2 => OK\nSET c x PX 70 => OK\nSET d y PX 3 => OK");
    let bytes = store.snapshot();
    let mut copy = Store::default();
    copy.kv.restore(&mut SnapshotReader::new(&mut &bytes[..])).unwrap();
    assert_eq!(copy.snapshot(), bytes);
    copy.at(8).script("MGET a b c d => ['1' '2' 'x' nil]\nPTTL c => 67\nDBSIZE => 3");
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    let mut store = Store::default();
    store.script("MSET a 1 b 2 => OK");
    let bytes = store.snapshot();
    for length in 0..bytes.len() {
        assert!(store.kv.restore(&mut SnapshotReader::new(&mut &bytes[..length])).is_err());
    }
    let lying = [1_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
    assert!(store.kv.restore(&mut SnapshotReader::new(&mut &lying[..])).is_err());
    assert_eq!(store.snapshot(), bytes);
}

/// Commands on few keys, so that they meet.
fn command() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["a", "b", "c"]);
    let shapes = prop::sample::select(vec![
        "SET @ v",
        "SET @ 7 PX 20",
        "SET @ w NX",
        "SET @ x KEEPTTL",
        "GETDEL @",
        "DEL @",
        "INCR @",
        "APPEND @ 1",
        "PEXPIRE @ 15",
        "PERSIST @",
        "CAS @ v w",
        "MSET @ 1",
    ]);
    (key, shapes).prop_map(|(key, shape)| shape.replace('@', key))
}

proptest! {
    #[test]
    fn a_state_restored_halfway_ends_the_same(
        lines in prop::collection::vec((command(), 0_u64..10), 1..60),
        half in 0_usize..60,
    ) {
        let (mut whole, mut resumed) = (Store::default(), Store::default());
        for (number, (line, step)) in lines.iter().enumerate() {
            if number == half {
                let bytes = resumed.snapshot();
                resumed.kv.restore(&mut SnapshotReader::new(&mut &bytes[..])).unwrap();
            }
            whole.now += Duration::from_millis(*step);
            resumed.now = whole.now;
            prop_assert_eq!(whole.say(line), resumed.say(line));
        }
        prop_assert_eq!(whole.snapshot(), resumed.snapshot());
    }
}
