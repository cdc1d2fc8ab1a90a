//! Rules about words: those that the engine must not need, and those that the papers do not use.

use crate::source::Source;

/// Folders that are a function of (state, now, input).
const PURE: [&str; 5] = [
    "vr-core/src/model/",
    "vr-core/src/state/",
    "vr-core/src/replica/",
    "vr-core/src/execution/",
    "vr-core/src/client/session.rs",
];

/// Folders in which a word of concurrency is at home.
const CONCURRENT: [&str; 2] = ["vr-core/src/node/", "vr-core/src/client/shared.rs"];

/// Words that other papers use for what has a name here.
const FOREIGN: [&str; 4] = ["leader", "follower", "term", "ballot"];

/// Words of asynchronous code.
const ASYNCHRONOUS: [&str; 3] = ["async", "await", "spawn"];

/// Words of shared state and of the machine below.
const SHARED: [&str; 6] = ["Mutex", "RwLock", "Condvar", "mpsc", "SystemTime", "thread"];

/// Words of other papers, anywhere in `vr-core/src`, comments included.
pub(crate) fn foreign(source: &Source) -> Vec<String> {
    if !source.path.starts_with("vr-core/src/") {
        return Vec::new();
    }
    words_found(source, &source.text, &FOREIGN, "is not a word of this project")
}

/// Words of asynchronous code in the engine, comments included.
pub(crate) fn asynchronous(source: &Source) -> Vec<String> {
    if !is_pure(source) {
        return Vec::new();
    }
    words_found(source, &source.text, &ASYNCHRONOUS, "has no place in the engine")
}

/// Clocks and shared state in the code of the lower floors.
pub(crate) fn impure(source: &Source) -> Vec<String> {
    let is_core = source.path.starts_with("vr-core/src/");
    if !is_core || CONCURRENT.iter().any(|folder| source.path.starts_with(folder)) {
        return Vec::new();
    }
    let tokens = source.tokens_without_tests();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text);
        let clock = token.text == "Instant" && next(1) == "::" && next(2) == "now";
        if clock || SHARED.contains(&token.text) {
            let (path, line) = (&source.path, token.line);
            found.push(format!("{path}:{line}: `{}` is of the node, not of here", token.text));
        }
    }
    found
}

fn is_pure(source: &Source) -> bool {
    PURE.iter().any(|folder| source.path.starts_with(folder))
}

fn words_found(source: &Source, text: &str, banned: &[&str], why: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for word in words(line) {
            if banned.contains(&word.as_str()) {
                found.push(format!("{}:{}: `{word}` {why}", source.path, at + 1));
            }
        }
    }
    found
}

/// The words of a line in lower case; `view_change` and `ViewChange` are two words each.
fn words(line: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut before = ' ';
    for c in line.chars() {
        let begins = c.is_uppercase() && before.is_lowercase();
        if !c.is_alphanumeric() || begins {
            found.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphanumeric(), found.last_mut()) {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(text: &str) -> Source {
        Source::new("vr-core/src/replica/normal.rs", text)
    }

    #[test]
    fn a_foreign_word_is_found_in_comments_and_inside_names() {
        assert_eq!(foreign(&engine("// in terms of a determined view\n")), Vec::<String>::new());
        let text = "// the leader\nlet follower_id = Term::ZERO;\n";
        assert_eq!(foreign(&engine(text)).len(), 3);
        assert_eq!(foreign(&Source::new("vr-sim/src/a.rs", text)), Vec::<String>::new());
    }

    #[test]
    fn asynchronous_code_is_found_in_the_engine_only() {
        let text = "async fn a() { b.await; spawn(c) }";
        assert_eq!(asynchronous(&engine(text)).len(), 3);
        assert_eq!(asynchronous(&engine("let awaited = asynchronous;")), Vec::<String>::new());
        let node = Source::new("vr-core/src/node/driver.rs", text);
        assert_eq!(asynchronous(&node), Vec::<String>::new());
    }

    #[test]
    fn a_clock_or_a_lock_is_found_below_the_node() {
        let text = "let a = Instant::now(); let b: Mutex<u8>; // Mutex\n";
        assert_eq!(impure(&engine(text)).len(), 2);
        assert_eq!(impure(&Source::new("vr-core/src/node/mod.rs", text)), Vec::<String>::new());
        assert_eq!(impure(&engine("fn now(a: Instant) -> Arc<u8> {}")), Vec::<String>::new());
    }
}
