//! The little of `Cargo.toml` that the checks need: one entry a line, as this tree writes it.

use std::collections::BTreeSet;

use crate::tree::{Complaint, TextFile, expect_none, file};

/// A crate's manifest.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) path: String,
    pub(crate) package: String,
    pub(crate) dependencies: Vec<Dependency>,
    inherits_lints: bool,
}

/// One line of a table of dependencies.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) line: usize,
    /// Tests may link anything.
    pub(crate) is_for_tests: bool,
    from_workspace: bool,
}

impl Manifest {
    /// The crate's folder, with a slash at its end.
    pub(crate) fn folder(&self) -> &str {
        self.path.trim_end_matches("Cargo.toml")
    }

    pub(crate) fn read(file: &TextFile) -> Self {
        let mut manifest = Self {
            path: file.path.clone(),
            package: String::new(),
            dependencies: Vec::new(),
            inherits_lints: false,
        };
        for (table, number, key, value) in entries(file) {
            let is_for_tests = table.ends_with("dev-dependencies");
            if table == "package" && key == "name" {
                value.trim_matches('"').clone_into(&mut manifest.package);
            } else if table == "lints" && key == "workspace" {
                manifest.inherits_lints = value == "true";
            } else if table.ends_with("dependencies") {
                let name = key.trim_end_matches(".workspace").to_owned();
                let from_workspace = key.ends_with(".workspace") || value.contains("workspace = true");
                manifest.dependencies.push(Dependency { name, line: number, is_for_tests, from_workspace });
            }
        }
        manifest
    }
}

/// Table, line number, key and value of every `key = value` line.
fn entries(file: &TextFile) -> Vec<(String, usize, String, String)> {
    let mut table = String::new();
    let mut entries = Vec::new();
    for (number, line) in file.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut table);
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            entries.push((table.clone(), number, key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    entries
}

/// The folders that the root manifest names as members.
fn members(root: &TextFile) -> Vec<String> {
    let (_, list) = root.text.split_once("members = [").expect("the root manifest lists its members");
    let (list, _) = list.split_once(']').expect("the list of members ends");
    list.split(',')
        .map(|member| member.trim().trim_matches('"').to_owned())
        .filter(|m| !m.is_empty())
        .collect()
}

/// All crates of the workspace.
pub(crate) fn all() -> Vec<Manifest> {
    let members = members(&file("Cargo.toml"));
    members.iter().map(|folder| Manifest::read(&file(&format!("{folder}/Cargo.toml")))).collect()
}

fn workspace_dependencies(root: &TextFile) -> BTreeSet<String> {
    let entries = entries(root).into_iter();
    entries.filter(|(table, ..)| table == "workspace.dependencies").map(|(_, _, key, _)| key).collect()
}

fn check_inheritance(manifest: &Manifest, known: &BTreeSet<String>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for dependency in &manifest.dependencies {
        if !dependency.from_workspace || !known.contains(&dependency.name) {
            let what = format!(
                "`{0}` stands outside [workspace.dependencies]: put its version there and write `{0}.workspace = true`",
                dependency.name
            );
            complaints.push(Complaint::new(&manifest.path, dependency.line, what));
        }
    }
    if !manifest.inherits_lints {
        let what = "the workspace's lints are not inherited: add `[lints]` with `workspace = true`";
        complaints.push(Complaint::new(&manifest.path, 1, what));
    }
    complaints
}

#[test]
fn a_version_of_its_own_an_unknown_name_and_missing_lints_are_found() {
    let text = "[package]\nname = \"a\"\n[dependencies]\nbytes.workspace = true\nserde = \"1\"\nodd.workspace = true\n\
                tokio = { workspace = true, features = [] }\n[dev-dependencies]\ntempfile = \"3\"\n";
    let manifest = Manifest::read(&TextFile::new("a/Cargo.toml", text));
    assert_eq!((manifest.package.as_str(), manifest.folder()), ("a", "a/"));
    let known = ["bytes", "serde", "tokio", "tempfile"].map(str::to_owned).into();
    let lines: Vec<usize> =
        check_inheritance(&manifest, &known).iter().map(|complaint| complaint.line).collect();
    assert_eq!(lines, [5, 6, 9, 1]);
}

#[test]
fn every_dependency_comes_from_the_workspace_and_every_crate_inherits_its_lints() {
    let known = workspace_dependencies(&file("Cargo.toml"));
    assert!(known.contains("tokio"), "the root manifest was not understood");
    let complaints: Vec<_> = all().iter().flat_map(|manifest| check_inheritance(manifest, &known)).collect();
    expect_none(&complaints);
}
