//! Arrows between crates point only where the table of `docs/architecture.md` says.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{self, Manifest};
use crate::tables::{Row, code_spans, rows_under};
use crate::tree::{Complaint, TextFile, expect_none, file};

const DOCUMENT: &str = "docs/architecture.md";
const TABLE: &[&str] = &["folder", "crate", "may depend on"];

/// What one row of the table says of a crate.
struct Allowed {
    line: usize,
    folder: String,
    /// `None`: it may depend on all crates.
    crates: Option<BTreeSet<String>>,
}

fn read_table(document: &TextFile) -> BTreeMap<String, Allowed> {
    let read_row = |row: Row| {
        let [folder, name, targets] = [0, 1, 2].map(|cell| code_spans(&row.cells[cell]));
        let crates = (row.cells[2].trim() != "any").then(|| targets.into_iter().collect());
        let folder = folder.into_iter().next().unwrap_or_default();
        (name.into_iter().next().unwrap_or_default(), Allowed { line: row.line, folder, crates })
    };
    rows_under(document, TABLE).into_iter().map(read_row).collect()
}

fn check_arrows(document: &TextFile, manifests: &[Manifest]) -> Vec<Complaint> {
    let table = read_table(document);
    let ours: BTreeSet<&str> = manifests.iter().map(|manifest| manifest.package.as_str()).collect();
    let mut complaints = Vec::new();
    for manifest in manifests {
        let Some(row) = table.get(&manifest.package) else {
            let what = format!(
                "`{}` has no row in the table of {}: add one, and an ADR",
                manifest.package, document.path
            );
            complaints.push(Complaint::new(&manifest.path, 1, what));
            continue;
        };
        if row.folder != manifest.folder() {
            let what =
                format!("`{}` lies in `{}`, not in `{}`", manifest.package, manifest.folder(), row.folder);
            complaints.push(Complaint::new(&document.path, row.line, what));
        }
        let Some(allowed) = &row.crates else { continue };
        for dependency in manifest.dependencies.iter().filter(|dependency| !dependency.is_for_tests) {
            if ours.contains(dependency.name.as_str()) && !allowed.contains(&dependency.name) {
                let what = format!(
                    "the arrow {} → {} is not in the table of {}: take it out, or write an ADR and then the row",
                    manifest.package, dependency.name, document.path
                );
                complaints.push(Complaint::new(&manifest.path, dependency.line, what));
            }
        }
    }
    complaints.extend(check_rows(document, &table, &ours));
    complaints
}

/// Every name in the table is a crate.
fn check_rows(
    document: &TextFile,
    table: &BTreeMap<String, Allowed>,
    ours: &BTreeSet<&str>,
) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (name, row) in table {
        let targets = row.crates.iter().flatten();
        for unknown in targets.chain([name]).filter(|name| !ours.contains(name.as_str())) {
            let what = format!("`{unknown}` is no crate of the workspace: take it out of the table");
            complaints.push(Complaint::new(&document.path, row.line, what));
        }
    }
    complaints
}

#[test]
fn an_arrow_outside_the_table_a_missing_row_and_a_stale_row_are_found() {
    let table = "| folder | crate | may depend on |\n|---|---|---|\n| `core/` | `a-core` | – |\n\
                 | `front/` | `a-front` | `a-core` |\n| `gone/` | `a-gone` | `a-core` |\n| `all/` | `a-all` | any |\n";
    let crate_of = |folder: &str, name: &str, dependencies: &str| {
        let text =
            format!("[package]\nname = \"{name}\"\n[dependencies]\nserde.workspace = true\n{dependencies}\n");
        Manifest::read(&TextFile::new(&format!("{folder}/Cargo.toml"), &text))
    };
    let manifests = [
        crate_of("core", "a-core", "a-front.workspace = true"),
        crate_of("front", "a-front", "a-core.workspace = true\n[dev-dependencies]\na-all.workspace = true"),
        crate_of("all", "a-all", "a-front.workspace = true"),
        crate_of("new", "a-new", ""),
    ];
    let complaints = check_arrows(&TextFile::new("docs/a.md", table), &manifests);
    let places: Vec<(&str, usize)> = complaints.iter().map(|c| (c.path.as_str(), c.line)).collect();
    assert_eq!(places, [("core/Cargo.toml", 5), ("new/Cargo.toml", 1), ("docs/a.md", 5)]);
}

#[test]
fn crates_depend_only_on_what_the_table_allows() {
    let manifests = manifest::all();
    assert!(manifests.len() >= 12, "only {} crates seen", manifests.len());
    expect_none(&check_arrows(&file(DOCUMENT), &manifests));
}
