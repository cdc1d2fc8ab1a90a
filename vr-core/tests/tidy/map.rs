//! Rules about documents: the code map names every file, and no link leads nowhere.

use std::path::{Component, Path, PathBuf};

use crate::source::Source;

/// A document of the repository.
#[derive(Debug)]
pub(crate) struct Document {
    /// Path below the workspace.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
}

/// Files that no link of the code map leads to.
pub(crate) fn unnamed(map: &Document, sources: &[Source]) -> Vec<String> {
    let named: Vec<String> = links(map).into_iter().map(|(_, target)| target).collect();
    let unnamed = sources.iter().filter(|source| !named.contains(&source.path));
    unnamed.map(|source| format!("{}: does not link to {}", map.path, source.path)).collect()
}

/// Links of a document to files that are not there.
pub(crate) fn dead_links(document: &Document, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let dead = links(document).into_iter().filter(|(_, target)| !exists(target));
    dead.map(|(line, target)| format!("{}:{line}: {target} is not there", document.path)).collect()
}

/// Tests that a document names and no source has.
pub(crate) fn missing_tests(document: &Document, sources: &[Source]) -> Vec<String> {
    let spans = document.text.split('`').skip(1).step_by(2);
    let tests = spans.filter(|span| is_sentence(span));
    let exists = |test: &str| {
        let function = format!("fn {test}(");
        sources.iter().any(|source| source.code.contains(&function))
    };
    let missing = tests.filter(|test| !exists(test));
    missing.map(|test| format!("{}: there is no test `{test}`", document.path)).collect()
}

/// Whether a piece of code reads like the name of a test: words in a row, five at least.
fn is_sentence(span: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    span.chars().all(is_word) && span.matches('_').count() >= 4
}

/// The files that a document links to, as paths below the workspace, each with its line.
fn links(document: &Document) -> Vec<(usize, String)> {
    let folder = Path::new(&document.path).parent().unwrap_or_else(|| Path::new(""));
    let mut found = Vec::new();
    for (at, line) in document.text.lines().enumerate() {
        for behind in line.split("](").skip(1) {
            let target = behind.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                found.push((at + 1, normal(&folder.join(target))));
            }
        }
    }
    found
}

/// Resolves `..` without asking the file system.
fn normal(path: &Path) -> String {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            resolved.pop();
        } else {
            resolved.push(component);
        }
    }
    resolved.to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Document {
        Document { path: "docs/ARCHITECTURE.md".into(), text: text.into() }
    }

    #[test]
    fn a_file_that_the_map_does_not_link_is_found() {
        let sources = [Source::new("a/src/b.rs", ""), Source::new("a/src/c.rs", "")];
        let found = unnamed(&map("see [b](../a/src/b.rs) and `a/src/c.rs`"), &sources);
        assert_eq!(found, ["docs/ARCHITECTURE.md: does not link to a/src/c.rs"]);
    }

    #[test]
    fn a_test_that_is_named_and_missing_is_found() {
        let sources = [Source::new("a/src/b.rs", "fn this_is_a_test_too() {}")];
        let text = "`this_is_a_test_too`, `commit_number` and `this_is_no_test_here` of `this_is_a_test_too.rs`";
        let found = missing_tests(&map(text), &sources);
        assert_eq!(found, ["docs/ARCHITECTURE.md: there is no test `this_is_no_test_here`"]);
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        let text = "[a](../a.rs) [b](b.md#part) [c](https://c.example/d) [e](#here)";
        let found = dead_links(&map(text), |path| path == "a.rs");
        assert_eq!(found, ["docs/ARCHITECTURE.md:1: docs/b.md is not there"]);
    }
}
