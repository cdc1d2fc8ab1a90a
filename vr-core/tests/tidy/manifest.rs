//! Rules about manifests: lints, versions, and which crate may depend on which.

/// The floors of the crates; a crate depends on lower ones only, in tests also on its own.
const FLOORS: [(&str, u8); 6] = [
    ("vr-core", 1),
    ("vr-storage", 2),
    ("vr-transport-tcp", 2),
    ("vr-sim", 3),
    ("vr-examples", 4),
    ("vr-benches", 4),
];

/// The manifest of a member.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// Path below the workspace.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
}

/// A dependency as a manifest writes it down.
#[derive(Debug, PartialEq, Eq)]
struct Dependency<'a> {
    name: &'a str,
    rest: &'a str,
    for_tests: bool,
}

impl Manifest {
    fn sections(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut section = "";
        self.text.lines().map(str::trim).filter_map(move |line| {
            if let Some(name) = line.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
                section = name;
                return None;
            }
            (!line.is_empty() && !line.starts_with('#')).then_some((section, line))
        })
    }

    fn dependencies(&self) -> impl Iterator<Item = Dependency<'_>> {
        let lines = self.sections().filter(|(section, _)| section.ends_with("dependencies"));
        lines.filter_map(|(section, line)| {
            let (name, rest) = line.split_once(['.', ' ', '='])?;
            Some(Dependency { name, rest, for_tests: section.ends_with("dev-dependencies") })
        })
    }

    fn name(&self) -> &str {
        let mut lines = self.sections().filter(|(section, _)| *section == "package");
        let named = lines.find_map(|(_, line)| line.strip_prefix("name = "));
        named.unwrap_or_default().trim_matches('"')
    }
}

/// The folders of the members that the workspace's manifest lists.
pub(crate) fn members(workspace: &str) -> Vec<String> {
    let behind = workspace.split_once("members = [").map_or("", |(_, behind)| behind);
    let list = behind.split_once(']').map_or("", |(list, _)| list);
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Members that do not inherit the workspace's lints; cargo does not do it by itself.
pub(crate) fn lints(manifest: &Manifest) -> Vec<String> {
    if manifest.sections().any(|pair| pair == ("lints", "workspace = true")) {
        return Vec::new();
    }
    vec![format!("{}: lacks `[lints] workspace = true`", manifest.path)]
}

/// Dependencies whose version is not in the workspace's manifest.
pub(crate) fn versions(manifest: &Manifest) -> Vec<String> {
    let own = manifest.dependencies().filter(|dependency| {
        let rest: String = dependency.rest.split_whitespace().collect();
        !rest.contains("workspace=true")
    });
    own.map(|dependency| {
        format!("{}: `{}` does not come from the workspace", manifest.path, dependency.name)
    })
    .collect()
}

/// Dependencies on a crate of the same floor or of a higher one.
pub(crate) fn upward(manifest: &Manifest) -> Vec<String> {
    let floor = |crate_name: &str| {
        FLOORS.iter().find(|(name, _)| *name == crate_name).map(|(_, floor)| *floor)
    };
    let Some(own) = floor(manifest.name()) else {
        return vec![format!("{}: has no floor in tests/tidy", manifest.path)];
    };
    let upward = manifest.dependencies().filter(|dependency| match floor(dependency.name) {
        Some(other) if dependency.for_tests => other > own,
        Some(other) => other >= own,
        None => false,
    });
    upward.map(|to| format!("{}: depends upward on `{}`", manifest.path, to.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest { path: "a/Cargo.toml".into(), text: text.into() }
    }

    #[test]
    fn members_are_read_from_the_list() {
        assert_eq!(members("[workspace]\nmembers = [\"a\",\n \"b\",\n]\n"), ["a", "b"]);
    }

    #[test]
    fn a_member_without_lints_is_found() {
        assert_eq!(lints(&manifest("[lints]\nworkspace = true\n")), Vec::<String>::new());
        assert_eq!(lints(&manifest("[package]\nworkspace = true\n[lints]\n")).len(), 1);
    }

    #[test]
    fn a_version_outside_the_workspace_is_found() {
        let fine =
            "[dependencies]\na.workspace = true\nb = { workspace = true, optional = true }\n";
        assert_eq!(versions(&manifest(fine)), Vec::<String>::new());
        let own = "[package]\nversion = \"1\"\n[dev-dependencies]\na = \"1\"\n[dependencies]\nb = { path = \"x\" }\n";
        assert_eq!(versions(&manifest(own)).len(), 2);
    }

    #[test]
    fn a_dependency_on_a_higher_crate_is_found() {
        let of =
            |text: &str| upward(&manifest(&format!("[package]\nname = \"vr-storage\"\n{text}")));
        assert_eq!(of("[dependencies]\nvr-core.workspace = true\n"), Vec::<String>::new());
        assert_eq!(of("[dependencies]\nvr-transport-tcp.workspace = true\n").len(), 1);
        assert_eq!(
            of("[dev-dependencies]\nvr-transport-tcp.workspace = true\n"),
            Vec::<String>::new()
        );
        assert_eq!(of("[dev-dependencies]\nvr-sim.workspace = true\n").len(), 1);
        assert_eq!(upward(&manifest("[package]\nname = \"vr-attic\"\n")).len(), 1);
    }
}
