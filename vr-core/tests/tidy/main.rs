//! The house rules that a machine can check, over the whole workspace.

mod imports;
mod manifest;
mod map;
mod shape;
mod source;
mod words;
mod writers;

use std::{fs, path::PathBuf, sync::LazyLock};

use crate::{
    imports::{Modules, definitions},
    manifest::{Manifest, members},
    map::Document,
    source::{Source, rust_files},
};

/// Files of `replica/` besides the ones that chapters always share: the engine's struct.
const ENGINE_SHARED: [&str; 0] = [];

struct Workspace {
    root: PathBuf,
    members: Vec<String>,
    sources: Vec<Source>,
    manifests: Vec<Manifest>,
    documents: Vec<Document>,
}

static WORKSPACE: LazyLock<Workspace> = LazyLock::new(Workspace::read);

impl Workspace {
    fn read() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = |path: &str| {
            fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let members = members(&text("Cargo.toml"));
        let sources = members.iter().flat_map(|member| rust_files(&root, member)).collect();
        let manifests = members.iter().map(|member| {
            let path = format!("{member}/Cargo.toml");
            Manifest { text: text(&path), path }
        });
        let manifests = manifests.collect();
        let documents = markdown(&root, "")
            .chain(markdown(&root, "docs/"))
            .map(|path| Document { text: text(&path), path })
            .collect();
        Self { root, members, sources, manifests, documents }
    }

    fn modules(&self, member: &str) -> Modules<'_> {
        Modules::of(&format!("{member}/src"), &self.sources)
    }
}

fn markdown(root: &std::path::Path, folder: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}{name}")).collect();
    found.sort();
    found.into_iter()
}

#[track_caller]
fn assert_none(violations: impl IntoIterator<Item = String>) {
    let violations: Vec<String> = violations.into_iter().collect();
    assert!(violations.is_empty(), "{} found:\n{}", violations.len(), violations.join("\n"));
}

fn assert_each(rule: impl Fn(&Source) -> Vec<String>) {
    assert_none(WORKSPACE.sources.iter().flat_map(rule));
}

#[test]
fn there_is_a_workspace_to_check() {
    let core = WORKSPACE.sources.iter().any(|source| source.path == "vr-core/src/lib.rs");
    assert!(core, "no sources below {}", WORKSPACE.root.display());
    assert_eq!(WORKSPACE.members.len(), WORKSPACE.manifests.len());
}

#[test]
fn no_file_is_too_long() {
    assert_each(shape::long_files);
}

#[test]
fn no_function_is_too_long() {
    assert_each(shape::long_functions);
}

#[test]
fn every_file_begins_with_its_caption() {
    assert_each(shape::captions);
}

#[test]
fn every_source_is_plain_ascii() {
    assert_each(shape::characters);
}

#[test]
fn every_file_name_names_a_thing() {
    assert_each(shape::names);
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    assert_each(shape::leftovers);
}

#[test]
fn the_papers_words_are_used() {
    assert_each(words::foreign);
}

#[test]
fn the_engine_waits_for_nothing() {
    assert_each(words::asynchronous);
}

#[test]
fn clocks_and_locks_stay_in_the_node() {
    assert_each(words::impure);
}

#[test]
fn each_number_moves_in_one_place() {
    assert_each(writers::second_writers);
}

#[test]
fn the_core_imports_downward_only() {
    let core = WORKSPACE.modules("vr-core");
    assert_none(core.upward().into_iter().chain(core.homeless()));
}

#[test]
fn a_chapter_imports_no_chapter() {
    assert_none(WORKSPACE.modules("vr-core").sideways(&ENGINE_SHARED));
}

#[test]
fn nothing_is_imported_from_a_root() {
    assert_none(WORKSPACE.members.iter().flat_map(|member| {
        let root = format!("{member}/src/lib.rs");
        let root = WORKSPACE.sources.iter().find(|source| source.path == root);
        let defined = root.map(definitions).unwrap_or_default();
        WORKSPACE.modules(member).rooted(&defined)
    }));
}

#[test]
fn no_files_import_each_other() {
    let modules = WORKSPACE.members.iter().map(|member| WORKSPACE.modules(member));
    assert_none(modules.flat_map(|modules| modules.circles()));
}

#[test]
fn every_crate_inherits_the_lints() {
    assert_none(WORKSPACE.manifests.iter().flat_map(manifest::lints));
}

#[test]
fn every_version_stands_in_the_workspace() {
    assert_none(WORKSPACE.manifests.iter().flat_map(manifest::versions));
}

#[test]
fn crates_depend_downward_only() {
    assert_none(WORKSPACE.manifests.iter().flat_map(manifest::upward));
}

#[test]
fn the_code_map_names_every_file() {
    let mut maps = WORKSPACE.documents.iter();
    let map = maps.find(|document| document.path == "docs/ARCHITECTURE.md");
    let map = map.expect("docs/ARCHITECTURE.md is there");
    assert_none(map::unnamed(map, &WORKSPACE.sources));
}

#[test]
fn every_test_that_a_document_names_exists() {
    let documents = WORKSPACE.documents.iter();
    assert_none(documents.flat_map(|document| map::missing_tests(document, &WORKSPACE.sources)));
}

#[test]
fn no_link_of_a_document_leads_nowhere() {
    let exists = |path: &str| WORKSPACE.root.join(path).exists();
    assert_none(WORKSPACE.documents.iter().flat_map(|document| map::dead_links(document, exists)));
}
