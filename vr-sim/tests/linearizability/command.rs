//! The command that checks a file: what it prints, and its exit status.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const HEADER: &str = r#"{"history":"kv","version":1}"#;
const SET: &str = r#"{"client":1,"called":1,"returned":2,"operation":{"key":"k","what":{"set":5}},"outcome":"done"}"#;
const STALE: &str = r#"{"client":2,"called":3,"returned":4,"operation":{"key":"k","what":"get"},"outcome":{"value":null}}"#;
const FRESH: &str = r#"{"client":2,"called":3,"returned":4,"operation":{"key":"k","what":"get"},"outcome":{"value":5}}"#;

fn linearize(words: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_linearize")).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn linearize_lines(name: &str, lines: &[&str], options: &[&str]) -> (i32, String, String) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(name);
    fs::write(&path, lines.join("\n")).unwrap();
    linearize(&[options, &[path.to_str().unwrap()]].concat())
}

#[test]
fn a_history_with_an_order_passes() {
    let (code, out, _) = linearize_lines("fresh.jsonl", &[HEADER, SET, FRESH], &[]);
    assert_eq!((code, out.as_str()), (0, "linearizable: one order explains 2 calls\n"));
}

#[test]
fn a_history_without_an_order_is_drawn() {
    let (code, out, _) = linearize_lines("stale.jsonl", &[HEADER, SET, STALE], &[]);
    assert_eq!(code, 1);
    assert!(out.contains("no order explains these calls on k"), "{out}");
    assert!(out.contains("client 1  |- set k 5 -|\n"), "{out}");
    assert!(out.contains("|- get k -> none -|\n"), "{out}");
}

#[test]
fn a_spent_budget_is_no_pass() {
    let steps = ["--steps", "0"];
    let (code, out, _) = linearize_lines("spent.jsonl", &[HEADER, SET, FRESH], &steps);
    assert_eq!(code, 2);
    assert!(out.contains("this is no pass"), "{out}");
}

#[test]
fn what_cannot_be_read_is_said_with_its_line() {
    let (code, _, error) = linearize_lines("broken.jsonl", &[HEADER, SET, "?"], &[]);
    assert_eq!(code, 2);
    assert!(error.contains("broken.jsonl: line 3: "), "{error}");
    let (code, _, error) = linearize(&["no/such/file"]);
    assert_eq!(code, 2);
    assert!(error.contains("no/such/file: "), "{error}");
    let (code, _, error) = linearize(&[]);
    assert_eq!(code, 2);
    assert!(error.contains("usage: linearize"), "{error}");
}
