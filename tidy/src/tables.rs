//! Tables of the docs against the code: every error code and every metric stands in both, with the same values.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest;
use crate::tree::{Complaint, TextFile, all_paths, expect_none, file};

/// One row of a Markdown table.
pub(crate) struct Row {
    pub(crate) line: usize,
    pub(crate) cells: Vec<String>,
}

/// The rows of all tables whose header starts with these cells.
pub(crate) fn rows_under(document: &TextFile, header: &[&str]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (line, text) in document.lines() {
        let Some(cells) = cells(text) else {
            inside = false;
            continue;
        };
        let is_header =
            cells.len() >= header.len() && header.iter().zip(&cells).all(|(want, cell)| want == cell);
        let is_rule = cells.iter().all(|cell| cell.starts_with('-') || cell.starts_with(':'));
        if is_header {
            inside = true;
        } else if inside && !is_rule {
            rows.push(Row { line, cells });
        }
    }
    assert!(!rows.is_empty(), "{} has no table that starts with the columns {header:?}", document.path);
    for row in &rows {
        assert!(row.cells.len() >= header.len(), "{}:{}: a row with too few cells", document.path, row.line);
    }
    rows
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// What stands in backticks.
pub(crate) fn code_spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Word → (line, "status retryable side-effects").
type Codes = BTreeMap<String, (usize, String)>;

/// Reads the lines `Name = "word", 400, false, None;`.
fn codes_of_source(source: &TextFile) -> Codes {
    let mut codes = Codes::new();
    for (number, line) in source.lines() {
        let Some((_, rest)) = line.split_once(" = \"").filter(|_| line.trim_end().ends_with(';')) else {
            continue;
        };
        let Some((word, rest)) = rest.split_once("\", ") else { continue };
        let facts: Vec<&str> = rest.trim_end().trim_end_matches(';').split(", ").collect();
        if let [status, retryable @ ("true" | "false"), effects] = facts[..] {
            let retryable = if retryable == "true" { "yes" } else { "no" };
            codes.insert(
                word.to_owned(),
                (number, format!("{status} {retryable} {}", effects.to_lowercase())),
            );
        }
    }
    codes
}

fn codes_of_document(document: &TextFile) -> Codes {
    let rows = rows_under(document, &["code", "status", "retryable", "side effects"]).into_iter();
    rows.map(|row| (row.cells[0].trim_matches('`').to_owned(), (row.line, row.cells[1..4].join(" "))))
        .collect()
}

fn check_codes(source: &TextFile, document: &TextFile) -> Vec<Complaint> {
    let (in_source, in_document) = (codes_of_source(source), codes_of_document(document));
    let mut complaints = Vec::new();
    for (word, (line, facts)) in &in_source {
        match in_document.get(word) {
            None => {
                let what = format!("`{word}` is missing in {}: add its row", document.path);
                complaints.push(Complaint::new(&source.path, *line, what));
            }
            Some((line, documented)) if documented != facts => {
                let what = format!(
                    "`{word}` is documented as `{documented}`, the code says `{facts}`: mend the row"
                );
                complaints.push(Complaint::new(&document.path, *line, what));
            }
            Some(_) => {}
        }
    }
    for (word, (line, _)) in in_document.iter().filter(|(word, _)| !in_source.contains_key(*word)) {
        let what = format!("`{word}` is no error code of {}: take the row out", source.path);
        complaints.push(Complaint::new(&document.path, *line, what));
    }
    complaints
}

/// Every whole literal `"carnax_…"`, with its line.
fn metrics_of_source(source: &TextFile) -> Vec<(String, usize)> {
    let mut names = Vec::new();
    for (number, line) in source.lines() {
        for (at, _) in line.match_indices("\"carnax_") {
            let rest = &line[at + 1..];
            names.push((rest[..rest.find('"').unwrap_or(rest.len())].to_owned(), number));
        }
    }
    names
}

/// `sources` are all files of metrics; `folders` are the folders of crates that have one.
fn check_metrics(sources: &[TextFile], folders: &BTreeSet<String>, document: &TextFile) -> Vec<Complaint> {
    let rows = rows_under(document, &["metric", "kind", "folder"]);
    let documented: BTreeMap<&str, &Row> =
        rows.iter().map(|row| (row.cells[0].trim_matches('`'), row)).collect();
    let mut in_source = BTreeSet::new();
    let mut complaints = Vec::new();
    for source in sources {
        for (name, line) in metrics_of_source(source) {
            if !documented.contains_key(name.as_str()) {
                let what = format!("the metric `{name}` is missing in {}: add its row", document.path);
                complaints.push(Complaint::new(&source.path, line, what));
            }
            in_source.insert(name);
        }
    }
    for (name, row) in documented {
        let has_metrics = folders.contains(row.cells[2].trim_matches('`'));
        if has_metrics && !in_source.contains(name) {
            let what = format!("no metrics.rs has `{name}`: take the row out");
            complaints.push(Complaint::new(&document.path, row.line, what));
        }
    }
    complaints
}

#[test]
fn a_code_that_is_missing_wrong_or_stale_is_found() {
    let source = "    /// One.\n    One = \"one\", 400, false, None;\n    Two = \"two\", 503, true, Possible;\n    Three = \"three\", 404, false, None;\n";
    let document = "| code | status | retryable | side effects | means |\n|---|---|---|---|---|\n\
                    | `one` | 400 | no | none | x |\n| `two` | 503 | no | possible | x |\n| `four` | 404 | no | none | x |\n";
    let complaints = check_codes(&TextFile::new("a.rs", source), &TextFile::new("a.md", document));
    let places: Vec<(&str, usize)> = complaints.iter().map(|c| (c.path.as_str(), c.line)).collect();
    assert_eq!(places, [("a.rs", 4), ("a.md", 4), ("a.md", 5)]);
}

#[test]
fn a_metric_that_is_missing_or_stale_is_found() {
    let sources =
        [TextFile::new("a/src/metrics.rs", "x(\"carnax_a_total\", \"help\");\ny(\"carnax_b_total\");\n")];
    let document = "| metric | kind | folder | says |\n|---|---|---|---|\n| `carnax_a_total` | counter | `a/` | x |\n\
                    | `carnax_c_total` | counter | `a/` | x |\n| `carnax_d_total` | counter | `later/` | x |\n";
    let folders = BTreeSet::from(["a/".to_owned()]);
    let complaints = check_metrics(&sources, &folders, &TextFile::new("a.md", document));
    let places: Vec<(&str, usize)> = complaints.iter().map(|c| (c.path.as_str(), c.line)).collect();
    assert_eq!(places, [("a/src/metrics.rs", 2), ("a.md", 4)]);
}

#[test]
fn every_error_code_is_documented_as_it_is() {
    let source = file("core/src/error_code.rs");
    assert!(codes_of_source(&source).len() > 30, "the source of the codes was not understood");
    expect_none(&check_codes(&source, &file("docs/errors.md")));
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let paths = all_paths();
    let is_metrics_of = |path: &str, folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest == "src/metrics.rs" || rest.starts_with("src/metrics/"))
    };
    let (mut sources, mut folders) = (Vec::new(), BTreeSet::new());
    for manifest in manifest::all() {
        let folder = manifest.folder();
        for path in paths.iter().filter(|path| path.ends_with(".rs") && is_metrics_of(path, folder)) {
            sources.push(file(path));
            folders.insert(folder.to_owned());
        }
    }
    expect_none(&check_metrics(&sources, &folders, &file("docs/metrics.md")));
}
