//! Rules about who may import what: floors, chapters, circles, and the crate's root.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, Token};

/// The floors of `vr-core`; a room imports from its own floor and from lower ones.
const FLOORS: [(&str, u8); 8] = [
    ("model", 1),
    ("state", 2),
    ("ports", 2),
    ("replica", 3),
    ("execution", 3),
    ("client", 3),
    ("conformance", 3),
    ("node", 4),
];

/// Files of `replica/` that every chapter may import.
const SHARED: [&str; 4] = ["io", "ignored", "invariants", "mod"];

/// A path that code names, resolved to start at the crate's root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    path: Vec<String>,
    line: usize,
    macro_call: bool,
}

/// The files of one crate, by module.
#[derive(Debug)]
pub(crate) struct Modules<'a> {
    files: BTreeMap<Vec<String>, &'a Source>,
}

impl<'a> Modules<'a> {
    /// Those of `files` that belong to the library below `folder`, such as `vr-core/src`.
    pub(crate) fn of(folder: &str, files: &'a [Source]) -> Self {
        let modules = files.iter().filter_map(|file| Some((module(folder, &file.path)?, file)));
        Self { files: modules.collect() }
    }

    /// The module whose file defines `path`, or re-exports it.
    fn owner(&self, path: &[String]) -> Option<&[String]> {
        let longest_first = (1..=path.len()).rev().filter_map(|length| path.get(..length));
        longest_first.into_iter().find_map(|prefix| {
            self.files.get_key_value(prefix).map(|(module, _)| module.as_slice())
        })
    }

    fn imports(&self) -> impl Iterator<Item = (&Vec<String>, &'a Source, Import)> {
        let shipped = self.files.iter().filter(|(_, file)| !file.is_test());
        shipped.flat_map(|(module, file)| {
            let found = imports(module, &file.tokens_without_tests());
            found.into_iter().map(move |import| (module, *file, import))
        })
    }

    /// Imports of a floor from a higher one, in `vr-core`.
    pub(crate) fn upward(&self) -> Vec<String> {
        let floor = |path: &[String]| {
            let room = path.first().map(String::as_str);
            FLOORS.iter().find(|(name, _)| Some(*name) == room).map(|(_, floor)| *floor)
        };
        let upward = self.imports().filter(|(module, _, import)| {
            matches!((floor(module), floor(&import.path)), (Some(from), Some(to)) if from < to)
        });
        upward.map(|(_, file, import)| import.complaint(file, "lies on a higher floor")).collect()
    }

    /// Rooms of `vr-core` that have no floor yet.
    pub(crate) fn homeless(&self) -> Vec<String> {
        let rooms: BTreeSet<&String> =
            self.files.keys().filter_map(|module| module.first()).collect();
        let known = |room: &str| FLOORS.iter().any(|(name, _)| *name == room);
        let unknown = rooms.into_iter().filter(|room| !known(room));
        unknown.map(|room| format!("vr-core/src/{room}: has no floor in tests/tidy")).collect()
    }

    /// Chapters of `replica/` that import another chapter.
    pub(crate) fn sideways(&self, shared: &[&str]) -> Vec<String> {
        let chapter = |path: &[String]| match path {
            [room, name, ..] if room == "replica" => {
                let is_chapter = self.files.contains_key(&[room.clone(), name.clone()][..])
                    && !SHARED.contains(&name.as_str())
                    && !shared.contains(&name.as_str());
                is_chapter.then(|| name.clone())
            }
            _ => None,
        };
        let sideways = self.imports().filter(|(module, _, import)| {
            matches!((chapter(module), chapter(&import.path)), (Some(a), Some(b)) if a != b)
        });
        sideways.map(|(_, file, import)| import.complaint(file, "is another chapter")).collect()
    }

    /// Names taken from the crate's root instead of from the file that defines them.
    pub(crate) fn rooted(&self, defined_in_root: &[String]) -> Vec<String> {
        let rooted = self.imports().filter(|(_, _, import)| match import.path.first() {
            Some(first) => {
                let is_module = self.files.keys().any(|module| module.first() == Some(first));
                let in_root = defined_in_root.contains(first);
                let is_macro = import.macro_call && import.path.len() == 1;
                !(is_module || in_root || is_macro)
            }
            None => true,
        });
        rooted.map(|(_, file, import)| import.complaint(file, "is the crate's root")).collect()
    }

    /// Files that import each other, directly or through others.
    pub(crate) fn circles(&self) -> Vec<String> {
        let mut edges: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
        for (module, _, import) in self.imports() {
            let owner = self.owner(&import.path).filter(|owner| *owner != module.as_slice());
            edges.entry(module).or_default().extend(owner);
        }
        let mut found = BTreeSet::new();
        for start in edges.keys() {
            if let Some(circle) = way_back(&edges, start) {
                found.insert(circle);
            }
        }
        found.into_iter().map(|circle| format!("circle: {}", circle.join(" and "))).collect()
    }
}

impl Import {
    fn complaint(&self, file: &Source, why: &str) -> String {
        format!("{}:{}: `crate::{}` {why}", file.path, self.line, self.path.join("::"))
    }
}

/// All modules on circles through `start`, sorted; `None` when no way leads back to it.
fn way_back(
    edges: &BTreeMap<&[String], BTreeSet<&[String]>>,
    start: &[String],
) -> Option<Vec<String>> {
    let reach = |from: &[String]| {
        let mut reached: BTreeSet<&[String]> = BTreeSet::new();
        let mut open: Vec<&[String]> = edges.get(from).into_iter().flatten().copied().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(edges.get(next).into_iter().flatten());
            }
        }
        reached
    };
    let from_start = reach(start);
    if !from_start.contains(start) {
        return None;
    }
    let both = from_start.into_iter().filter(|module| reach(module).contains(start));
    Some(both.map(|module| module.join("::")).collect())
}

/// The module of a library's file; `None` for its root, its binaries and other folders.
fn module(folder: &str, path: &str) -> Option<Vec<String>> {
    let below = path.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".rs")?;
    let mut parts: Vec<String> = below.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    let first = parts.first()?.as_str();
    (!matches!(first, "lib" | "main" | "bin")).then_some(parts)
}

/// Every path below `crate`, `super` or `self` that the code of `module` names.
pub(crate) fn imports(module: &[String], tokens: &[Token<'_>]) -> Vec<Import> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let behind = tokens.get(at + 1).map_or("", |next| next.text);
        let before = at.checked_sub(1).and_then(|place| tokens.get(place)).map_or("", |t| t.text);
        if behind != "::" || before == "::" || before == "$" {
            continue;
        }
        let start = match token.text {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default(),
            _ => continue,
        };
        let mut paths = Vec::new();
        tree(start, tokens.get(at + 2..).unwrap_or_default(), &mut paths);
        let line = token.line;
        found.extend(paths.into_iter().map(|(path, macro_call)| Import { path, line, macro_call }));
    }
    found
}

/// Collects the paths of a `use` tree below `start`; returns how many tokens it took.
fn tree(
    mut start: Vec<String>,
    tokens: &[Token<'_>],
    paths: &mut Vec<(Vec<String>, bool)>,
) -> usize {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1).map_or("", |token| token.text);
        match token.text {
            "{" => return at + branches(&start, tokens.get(at..).unwrap_or_default(), paths),
            "super" => {
                start.pop();
            }
            "self" => {}
            name if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                start.push(name.to_owned());
            }
            _ => break,
        }
        at += 1;
        if next != "::" {
            paths.push((start, next == "!"));
            return at;
        }
        at += 1;
    }
    paths.push((start, false));
    at
}

/// Collects the paths between the braces that `tokens` begin with.
fn branches(start: &[String], tokens: &[Token<'_>], paths: &mut Vec<(Vec<String>, bool)>) -> usize {
    let mut at = 1;
    while let Some(token) = tokens.get(at) {
        match token.text {
            "}" => return at + 1,
            "," | "*" => at += 1,
            "as" => at += 2,
            _ => {
                let rest = tokens.get(at..).unwrap_or_default();
                at += tree(start.to_vec(), rest, paths).max(1);
            }
        }
    }
    at
}

/// Names that a crate's root file defines itself.
pub(crate) fn definitions(root: &Source) -> Vec<String> {
    let tokens = root.tokens_without_tests();
    let defines = |word: &str| {
        matches!(word, "struct" | "enum" | "trait" | "type" | "fn" | "const" | "static" | "mod")
    };
    let pairs = tokens.iter().zip(tokens.iter().skip(1));
    let named = pairs.filter(|(word, _)| defines(word.text));
    named.map(|(_, name)| name.text.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Vec<Source> {
        texts.iter().map(|(path, text)| Source::new(&format!("c/src/{path}"), text)).collect()
    }

    fn paths(code: &str) -> Vec<String> {
        let module = ["a".to_owned(), "b".to_owned()];
        let found = imports(&module, &crate::source::tokens(code));
        found.into_iter().map(|import| import.path.join("::")).collect()
    }

    #[test]
    fn a_tree_of_imports_names_each_leaf() {
        let code = "use crate::{m::{self, t::{View, Op as O}, x::*}, n::Y};";
        assert_eq!(paths(code), ["m", "m::t::View", "m::t::Op", "m::x", "n::Y"]);
    }

    #[test]
    fn relative_paths_start_at_the_module() {
        let code = "use super::c::D; fn e() { self::f::g(); super::super::h::i::<J>() }";
        assert_eq!(paths(code), ["a::c::D", "a::b::f::g", "h::i"]);
        assert_eq!(paths("use std::fmt; $crate::A; pub(crate) fn b() {}"), Vec::<String>::new());
    }

    #[test]
    fn an_import_from_a_higher_floor_is_found() {
        let found = files(&[
            ("model/a.rs", "use crate::state::b::B;"),
            ("state/b.rs", "use crate::model::a::A;\n#[cfg(test)]\nmod t { use crate::node::C; }"),
            ("node/mod.rs", "use crate::replica::D;"),
            ("replica/mod.rs", "use crate::ports::E; fn f() { crate::node::go() }"),
        ]);
        assert_eq!(Modules::of("c/src", &found).upward().len(), 2);
    }

    #[test]
    fn a_room_without_a_floor_is_found() {
        let found = files(&[("model/a.rs", ""), ("attic/b.rs", ""), ("lib.rs", "")]);
        assert_eq!(Modules::of("c/src", &found).homeless().len(), 1);
    }

    #[test]
    fn a_chapter_that_imports_a_chapter_is_found() {
        let found = files(&[
            ("replica/mod.rs", "use crate::replica::normal::A;"),
            ("replica/io.rs", ""),
            ("replica/status.rs", ""),
            ("replica/normal.rs", "use crate::replica::{io::B, status::C, Replica};"),
            ("replica/commit.rs", "use super::normal::D;"),
        ]);
        let modules = Modules::of("c/src", &found);
        assert_eq!(modules.sideways(&["status"]).len(), 1);
        assert_eq!(modules.sideways(&[]).len(), 2);
    }

    #[test]
    fn an_import_from_the_root_is_found() {
        let found = files(&[
            ("model/a.rs", "use crate::{Name, model::b::B, Own}; fn f() { crate::made!() }"),
            ("model/b.rs", "use crate::model::a::A; use crate::*;"),
        ]);
        assert_eq!(Modules::of("c/src", &found).rooted(&["Own".to_owned()]).len(), 2);
    }

    #[test]
    fn a_circle_is_found_once_however_long_it_is() {
        let found = files(&[
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::c::C;"),
            ("c.rs", "use super::a::A;"),
            ("d.rs", "use crate::a::A;"),
        ]);
        assert_eq!(Modules::of("c/src", &found).circles(), ["circle: a and b and c"]);
        assert_eq!(Modules::of("c/src", &files(&[("a.rs", "use self::A;")])).circles().len(), 0);
    }

    #[test]
    fn a_root_knows_what_it_defines_itself() {
        let root =
            Source::new("c/src/lib.rs", "pub struct A; use b::C; fn d() {} const E: u8 = 1;");
        assert_eq!(definitions(&root), ["A", "d", "E"]);
    }
}
