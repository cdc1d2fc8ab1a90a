//! Rust files as the rules see them: text, code without comments and literals, tokens.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One Rust file of the workspace.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path below the workspace, with `/`.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The file with comments and literals blanked; lines stay where they are.
    pub(crate) code: String,
}

/// A word or a sign of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// What it is; `::` is one sign, every other sign is one character.
    pub(crate) text: &'a str,
    /// On which line, from 1.
    pub(crate) line: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank_comments(text) }
    }

    /// The tokens of the whole file.
    pub(crate) fn tokens(&self) -> Vec<Token<'_>> {
        tokens(&self.code)
    }

    /// The tokens outside `#[cfg(test)] mod name { .. }`.
    pub(crate) fn tokens_without_tests(&self) -> Vec<Token<'_>> {
        let all = self.tokens();
        let mut kept = Vec::with_capacity(all.len());
        let mut rest = all.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            match test_module(rest) {
                Some(length) => rest = rest.get(length..).unwrap_or_default(),
                None => {
                    kept.push(*first);
                    rest = behind;
                }
            }
        }
        kept
    }

    /// How many lines the file has outside `#[cfg(test)] mod name { .. }`.
    pub(crate) fn lines_without_tests(&self) -> usize {
        let all = self.tokens();
        let mut lines = self.text.lines().count();
        let mut rest = all.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            match test_module(rest) {
                Some(length) => {
                    let last = rest.get(length.saturating_sub(1)).unwrap_or(first);
                    lines -= last.line - first.line + 1;
                    rest = rest.get(length..).unwrap_or_default();
                }
                None => rest = behind,
            }
        }
        lines
    }

    /// The file's name without its folder and ending.
    pub(crate) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(".rs").unwrap_or(name)
    }

    /// Whether the whole file is a test, so that rules for shipped code do not apply.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("tests/") || self.stem().ends_with("tests")
    }
}

/// All Rust files below `folder`, sorted by path; build output is left out.
pub(crate) fn rust_files(root: &Path, folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(read(root, &path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).expect("a source file is readable UTF-8");
    let below = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    Source::new(&below, &text)
}

/// Splits code into words and signs.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (text, behind) = rest.split_at(length);
            found.push(Token { text, line: number + 1 });
            rest = behind.trim_start();
        }
    }
    found
}

/// The number of tokens up to and including the bracket that closes the first one.
pub(crate) fn bracketed(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The length of the test module that `tokens` begin with, if they begin with one.
fn test_module(tokens: &[Token<'_>]) -> Option<usize> {
    let words = |range: core::ops::Range<usize>| {
        tokens.get(range).unwrap_or_default().iter().map(|token| token.text).collect::<String>()
    };
    if words(0..7) != "#[cfg(test)]" {
        return None;
    }
    let mut at = 7;
    while words(at..at + 1) == "#" {
        at += 1 + bracketed(tokens.get(at + 1..)?);
    }
    if words(at..at + 1) != "mod" || words(at + 2..at + 3) != "{" {
        return None;
    }
    Some(at + 2 + bracketed(tokens.get(at + 2..)?))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Replaces comments and the insides of literals by spaces.
pub(crate) fn blank_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let (length, blank) = match unspoken(rest, before) {
            0 => (first.len_utf8(), false),
            length => (length, true),
        };
        let (part, behind) = rest.split_at(length.min(rest.len()));
        code.extend(part.chars().map(|c| if blank && c != '\n' { ' ' } else { c }));
        before = part.chars().next_back().unwrap_or(' ');
        rest = behind;
    }
    code
}

/// The length of the comment or literal that `rest` begins with; 0 when it begins with code.
fn unspoken(rest: &str, before: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return 1 + until_unescaped(rest.get(1..).unwrap_or_default(), '"');
    }
    if !is_word(before) {
        if let Some(length) = raw_string(rest) {
            return length;
        }
        if let Some(byte) = rest.strip_prefix('b').filter(|byte| byte.starts_with('\'')) {
            return 1 + character(byte);
        }
        if rest.starts_with('\'') {
            return character(rest);
        }
    }
    0
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..) {
        if here.is_empty() {
            break;
        }
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length up to and including the first `end` without a backslash before it.
fn until_unescaped(text: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if !escaped && c == end {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let behind = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let inside = behind.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opening = rest.len() - inside.len();
    Some(inside.find(&end).map_or(rest.len(), |at| opening + at + end.len()))
}

/// A character literal, or 0 for a lifetime.
fn character(rest: &str) -> usize {
    let inside = rest.get(1..).unwrap_or_default();
    let mut characters = inside.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), Some(_)) => 1 + until_unescaped(inside, '\''),
        (Some(one), Some('\'')) => 2 + one.len_utf8(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(code: &str) -> Vec<&str> {
        tokens(code).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "a /* b /* c */ */ \"d \\\" e\" r#\"f \" g\"# 'h' '\\'' b'\"' &'i j // k\nl";
        assert_eq!(words(&blank_comments(text)), ["a", "&", "'", "i", "j", "l"]);
    }

    #[test]
    fn a_path_sign_is_one_token_and_knows_its_line() {
        let found = tokens("use a::b;\nc");
        assert_eq!(words("use a::b;"), ["use", "a", "::", "b", ";"]);
        assert_eq!(found.last(), Some(&Token { text: "c", line: 2 }));
    }

    #[test]
    fn a_test_module_is_left_out_and_what_follows_is_kept() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n";
        let source = Source::new("x.rs", text);
        let kept: String =
            source.tokens_without_tests().into_iter().map(|token| token.text).collect();
        assert_eq!(kept, "fna(){}fnc(){}");
        assert_eq!(source.lines_without_tests(), 2);
    }

    #[test]
    fn a_test_module_in_its_own_file_hides_nothing_here() {
        let source = Source::new("x.rs", "#[cfg(test)]\nmod tests;\nfn a() {}\n");
        assert_eq!(source.lines_without_tests(), 3);
    }
}
