//! Histories in files: what is written is read again, and what is no history is refused in words.

use vr_sim::{
    linearizability::{
        file::{self, KV},
        history::{Call, History, Return},
        kv::{KvOp, KvOutcome, What},
    },
    prng::Prng,
};

use super::executions::{KvHistory, Mix, execution, small};

fn written(history: &KvHistory) -> String {
    let mut bytes = Vec::new();
    file::write(&mut bytes, KV, history).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn refused(text: &str) -> String {
    let read = file::read::<KvOp, KvOutcome>(text.as_bytes(), KV, KvOp::can_return);
    read.unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read_again() {
    let mut rng = Prng::new(1);
    let mix = Mix { clients: 4, calls: 100, keys: 3, values: 10, unknown: 10 };
    for _ in 0..50 {
        for history in [execution(&mut rng, mix), small(&mut rng)] {
            let text = written(&history);
            let read = file::read(text.as_bytes(), KV, KvOp::can_return).unwrap();
            assert_eq!(read, history, "{text}");
        }
    }
}

#[test]
fn the_format_is_as_documented() {
    let mut history = History::new();
    let none = Some(Return { at: 9, outcome: Some(KvOutcome::Value(None)) });
    let unseen = Some(Return { at: 8, outcome: None });
    for (called, what, returned) in
        [(1, What::Put(5), none), (2, What::Cas(5, 6), None), (3, What::Set(7), unseen)]
    {
        let operation = KvOp::new("k", what);
        history.push(Call { client: 3, operation, called, returned }).unwrap();
    }
    let expected = concat!(
        r#"{"history":"kv","version":1}"#,
        "\n",
        r#"{"client":3,"called":1,"returned":9,"operation":{"key":"k","what":{"put":5}},"#,
        r#""outcome":{"value":null}}"#,
        "\n",
        r#"{"client":3,"called":2,"operation":{"key":"k","what":{"cas":[5,6]}}}"#,
        "\n",
        r#"{"client":3,"called":3,"returned":8,"operation":{"key":"k","what":{"set":7}}}"#,
        "\n"
    );
    assert_eq!(written(&history), expected);
}

#[test]
fn what_is_no_history_is_refused_with_its_line() {
    let header = r#"{"history":"kv","version":1}"#;
    let get = r#""operation":{"key":"k","what":"get"}"#;
    assert!(refused("").contains("the file is empty"));
    assert!(refused("\n").contains(r#"should be {"history":"kv","version":1}"#));
    assert!(refused("SET k 1").contains("line 1: no header"));
    let other = refused(r#"{"history":"queue","version":1}"#);
    assert_eq!(other, "line 1: a history of 'queue', version 1; expected 'kv', version 1");
    assert!(refused(r#"{"history":"kv","version":2}"#).contains("version 2"));
    let line = |line: &str| refused(&format!("{header}\n\n{line}\n"));
    assert!(line("{").starts_with("line 3: EOF"));
    assert!(line(&format!(r#"{{"client":1,{get}}}"#)).contains("missing field `called`"));
    let early = line(&format!(r#"{{"client":1,"called":5,"returned":4,{get}}}"#));
    assert!(early.contains("returns at 4, before it is made at 5"), "{early}");
    let unended = line(&format!(r#"{{"client":1,"called":5,{get},"outcome":{{"value":1}}}}"#));
    assert!(unended.contains("no time at which the call returned"), "{unended}");
    let strange =
        line(&format!(r#"{{"client":1,"called":5,"returned":6,{get},"outcome":"done"}}"#));
    assert!(strange.contains("cannot have this kind of outcome"), "{strange}");
}
