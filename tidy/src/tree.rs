//! The files of the tree, and what is said about them.

use std::fmt;
use std::path::{Path, PathBuf};

/// One text file: its path from the root, with forward slashes, and what it says.
#[derive(Debug, Clone)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// What is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Complaint {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Fails with all complaints at once, one a line.
pub(crate) fn expect_none(complaints: &[Complaint]) {
    let list: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} to mend:\n{}", list.len(), list.join("\n"));
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tidy/ lies in the root").to_owned()
}

/// All paths of the tree, sorted, folders included (with a slash at their end).
pub(crate) fn all_paths() -> Vec<String> {
    let mut paths = Vec::new();
    walk(&root(), "", &mut paths);
    paths.sort();
    paths
}

/// The files whose names end in one of `extensions`.
pub(crate) fn files_ending(extensions: &[&str]) -> Vec<TextFile> {
    let root = root();
    let files: Vec<TextFile> = all_paths()
        .into_iter()
        .filter(|path| extensions.iter().any(|extension| path.ends_with(extension)))
        .map(|path| {
            let bytes =
                std::fs::read(root.join(&path)).unwrap_or_else(|error| panic!("read {path}: {error}"));
            let text = String::from_utf8(bytes).unwrap_or_else(|_| panic!("{path} is not UTF-8"));
            TextFile { path, text }
        })
        .collect();
    assert!(!files.is_empty(), "no file ends in {extensions:?}: the check would see nothing");
    files
}

pub(crate) fn file(path: &str) -> TextFile {
    let text =
        std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"));
    TextFile { path: path.to_owned(), text }
}

/// What is built, downloaded or written by running is not part of the tree.
fn is_skipped(path: &str) -> bool {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    matches!(name, ".git" | "target" | "node_modules" | ".terraform")
        || path == "data/"
        || ["fuzz/corpus/", "fuzz/artifacts/"].iter().any(|made| path.ends_with(made))
}

fn walk(folder: &Path, prefix: &str, paths: &mut Vec<String>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("a folder of the tree can be listed");
        let kind = entry.file_type().expect("an entry of the tree has a type");
        let name = entry.file_name().into_string().expect("names in the tree are UTF-8");
        let path = if kind.is_dir() { format!("{prefix}{name}/") } else { format!("{prefix}{name}") };
        if is_skipped(&path) {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), &path, paths);
        }
        paths.push(path);
    }
}
