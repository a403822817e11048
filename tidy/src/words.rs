//! Words that must not stand in the tree: unfinished marks, and paths of one machine.

use crate::tree::{Complaint, TextFile, expect_none, files_ending};

/// Written in two halves, so that this file passes its own check.
const UNFINISHED: &[&str] =
    &[concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME"), concat!("XX", "X")];
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
const TEMPORARY: &str = concat!("/tm", "p/");

fn check_words(file: &TextFile) -> Vec<Complaint> {
    let is_document = file.path.ends_with(".md");
    let mut complaints = Vec::new();
    for (number, line) in file.lines() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            let what = format!("`{word}`: finish it, or write what is missing into the docs as a limit");
            complaints.push(Complaint::new(&file.path, number, what));
        }
        let temporary = is_document.then_some(&TEMPORARY);
        for path in MACHINE_PATHS.iter().chain(temporary).filter(|path| names_absolute_path(line, path)) {
            let what = format!("`{path}…` is a path of one machine: name it from the root of the tree");
            complaints.push(Complaint::new(&file.path, number, what));
        }
    }
    complaints
}

/// True if `path` starts a path there, and is not the middle of a longer one.
fn names_absolute_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '}'))
    })
}

#[test]
fn unfinished_marks_and_machine_paths_are_found() {
    for bad in [
        concat!("    to", "do!()"),
        concat!("// FIX", "ME later"),
        concat!("see `/wo", "rk/x`"),
        concat!("cd /tm", "p/x"),
    ] {
        let complaints = check_words(&TextFile::new("docs/a.md", &format!("fine\n{bad}\n")));
        assert_eq!(complaints.len(), 1, "{bad}");
        assert_eq!(complaints[0].line, 2);
    }
    let relative = concat!("`metadata-node/wo", "rk/x` and target/ro", "ot/");
    assert!(check_words(&TextFile::new("docs/a.md", relative)).is_empty());
}

#[test]
fn nothing_is_left_unfinished_and_no_machine_is_named() {
    let files = files_ending(&[".rs", ".md", ".toml", "justfile", ".ci/run", ".sh", ".tf", ".yml"]);
    let complaints: Vec<_> = files.iter().flat_map(check_words).collect();
    expect_none(&complaints);
}
