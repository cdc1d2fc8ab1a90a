//! Rules about numbers that move in one place only.

use crate::source::{Source, Token};

/// A field of the engine, and the only file that assigns it.
const WRITERS: [(&str, &str); 2] = [
    ("view", "vr-core/src/replica/view_change.rs"),
    ("commit_number", "vr-core/src/replica/commit.rs"),
];

/// Assignments to `self.view` and `self.commit_number` outside the file that owns them.
pub(crate) fn second_writers(source: &Source) -> Vec<String> {
    if !source.path.starts_with("vr-core/src/replica/") {
        return Vec::new();
    }
    let tokens = source.tokens_without_tests();
    let mut found = Vec::new();
    for (field, owner) in WRITERS {
        let assigned = (0..tokens.len()).filter(|at| assigns(&tokens, *at, field));
        for at in assigned.filter(|_| source.path != owner) {
            let line = tokens.get(at).map_or(0, |token| token.line);
            found.push(format!("{}:{line}: `{field}` is written by {owner} only", source.path));
        }
    }
    found
}

/// Whether `self.field =` or `self.field op=` begins at `at`.
fn assigns(tokens: &[Token<'_>], at: usize, field: &str) -> bool {
    let word = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text);
    let names = word(0) == "self" && word(1) == "." && word(2) == field;
    let plain = word(3) == "=" && !matches!(word(4), "=" | ">");
    let compound = matches!(word(3), "+" | "-" | "*" | "/" | "%") && word(4) == "=";
    names && (plain || compound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_found() {
        let text = "fn a(&mut self) { self.view = b; self.commit_number += 1; self.log.view = c; }";
        let found = |path: &str| second_writers(&Source::new(path, text)).len();
        assert_eq!(found("vr-core/src/replica/normal.rs"), 2);
        assert_eq!(found("vr-core/src/replica/commit.rs"), 1);
        assert_eq!(found("vr-core/src/state/log.rs"), 0);
    }

    #[test]
    fn comparing_is_not_writing() {
        let text = "if self.view == a && self.view != c { match d { _ if e < self.view => f } }";
        let source = Source::new("vr-core/src/replica/normal.rs", text);
        assert_eq!(second_writers(&source), Vec::<String>::new());
    }
}
