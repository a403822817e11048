//! Paths that the docs name exist.

use std::collections::BTreeSet;

use crate::tree::{Complaint, TextFile, all_paths, expect_none, files_ending};

/// What has a slash in backticks and is no path of the tree: media types, keys in the bucket, sections of Rust paths.
const NO_PATHS: &[&str] = &["application/", "text/", "cluster/", "io/", "N/", "n/"];
const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".ndjson", ".json", ".lock", ".sh", ".bin", ".msgpack"];

fn check_paths(file: &TextFile, tree: &BTreeSet<String>) -> Vec<Complaint> {
    let folder = file.path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let mut complaints = Vec::new();
    let mut in_fence = false;
    for (number, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            continue;
        }
        if in_fence {
            continue;
        }
        let spans = line.split('`').skip(1).step_by(2).filter(|span| looks_like_a_path(span));
        for span in spans.filter(|span| !names_something(span, tree)) {
            let what = format!("`{span}` does not exist: name it from the root of the tree, or take it out");
            complaints.push(Complaint::new(&file.path, number, what));
        }
        for target in links(line).filter(|target| !tree.contains(&resolve(&folder, target))) {
            let what = format!("the link to `{target}` leads nowhere: mend it or take it out");
            complaints.push(Complaint::new(&file.path, number, what));
        }
    }
    complaints
}

fn looks_like_a_path(span: &str) -> bool {
    let is_plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let is_elsewhere = span.starts_with('/') || NO_PATHS.iter().any(|prefix| span.starts_with(prefix));
    let has_shape =
        span.contains('/') || ENDINGS.iter().any(|ending| span.ends_with(ending) && span != *ending);
    is_plain && has_shape && !is_elsewhere
}

/// A path from the root, or the bare name of a file that stands anywhere.
fn names_something(span: &str, tree: &BTreeSet<String>) -> bool {
    let as_folder = format!("{}/", span.trim_end_matches('/'));
    let bare = format!("/{span}");
    tree.contains(span)
        || tree.contains(&as_folder)
        || (!span.contains('/') && tree.iter().any(|p| p.ends_with(&bare)))
}

/// The targets of Markdown links into the tree, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    inside.map(|target| target.split('#').next().unwrap_or(target))
}

/// `target` as seen from `folder`, as a path from the root.
fn resolve(folder: &str, target: &str) -> String {
    let joined = format!("{folder}{target}");
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn a_path_and_a_link_that_lead_nowhere_are_found() {
    let tree = ["docs/", "docs/a.md", "core/", "core/src/id.rs", "README.md"].map(str::to_owned).into();
    let good = "`core/`, `core`, `core/src/id.rs`, `id.rs`, `/v1/topics`, `text/plain`, `a | b/c`, [a](a.md#x), [r](../README.md)\n\
                ```\n`gone/x.rs`\n```\n[web](https://a/b.md) [here](#x) `.md`\n";
    assert_eq!(check_paths(&TextFile::new("docs/b.md", good), &tree), []);
    for bad in ["`core/src/gone.rs`", "`gone.rs`", "`gone/`", "[a](gone.md)", "[a](../docs/gone.md)"] {
        assert_eq!(check_paths(&TextFile::new("docs/b.md", bad), &tree).len(), 1, "{bad}");
    }
}

#[test]
fn every_path_named_in_the_docs_exists() {
    let tree: BTreeSet<String> = all_paths().into_iter().collect();
    let mut documents = files_ending(&[".md"]);
    // Pages inside a crate name things from where they stand.
    documents.retain(|file| file.path.starts_with("docs/") || !file.path.contains('/'));
    assert!(documents.len() > 5, "only {} documents seen", documents.len());
    let complaints: Vec<_> = documents.iter().flat_map(|file| check_paths(file, &tree)).collect();
    expect_none(&complaints);
}
