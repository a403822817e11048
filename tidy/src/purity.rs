//! The pure crates do no I/O, wait for nothing and read nothing of their surroundings.

use crate::source::without_comments_and_literals;
use crate::tree::{Complaint, TextFile, expect_none, files_ending, root};

const PURE: &[&str] = &["core/", "metadata-node/state/"];
/// What clippy can tell best, by type and function; its nearest `clippy.toml` alone counts.
const FOR_CLIPPY: &[&str] =
    &["std::time::Instant", "std::time::SystemTime", "std::collections::HashMap", "std::thread::spawn"];
/// What the text alone gives away. Golden files are read by tests beside `src`, which this check does not see.
const IN_SOURCE: &[&str] =
    &["std::fs", "std::net", "std::env", "std::thread", "std::process", "tokio", "async fn", ".await"];

fn check_rules(path: &str, text: Option<&str>) -> Vec<Complaint> {
    let missing = FOR_CLIPPY.iter().filter(|name| !text.is_some_and(|text| text.contains(**name)));
    missing
        .map(|name| Complaint::new(path, 1, format!("a pure crate's clippy.toml must forbid `{name}`")))
        .collect()
}

fn check_source(file: &TextFile) -> Vec<Complaint> {
    let bare = without_comments_and_literals(&file.text);
    let mut complaints = Vec::new();
    for (index, line) in bare.lines().enumerate() {
        for word in IN_SOURCE.iter().filter(|word| line.contains(**word)) {
            let what = format!(
                "`{word}` in a pure crate: take what you need as an argument, return what is to be done"
            );
            complaints.push(Complaint::new(&file.path, index + 1, what));
        }
    }
    complaints
}

#[test]
fn missing_rules_and_impure_source_are_found() {
    assert_eq!(check_rules("core/clippy.toml", None).len(), FOR_CLIPPY.len());
    assert_eq!(check_rules("core/clippy.toml", Some("\"std::time::Instant\"")).len(), FOR_CLIPPY.len() - 1);

    let text = "// std::fs is not used\nlet a = \"tokio\";\nuse std::net::TcpStream;\nasync fn f() {}\n";
    let lines: Vec<usize> =
        check_source(&TextFile::new("core/src/a.rs", text)).iter().map(|c| c.line).collect();
    assert_eq!(lines, [3, 4]);
}

#[test]
fn pure_crates_stay_pure() {
    let mut complaints = Vec::new();
    for folder in PURE {
        let path = format!("{folder}clippy.toml");
        let text = std::fs::read_to_string(root().join(&path)).ok();
        complaints.extend(check_rules(&path, text.as_deref()));
    }
    let is_pure =
        |file: &&TextFile| PURE.iter().any(|folder| file.path.starts_with(&format!("{folder}src/")));
    let files = files_ending(&[".rs"]);
    complaints.extend(files.iter().filter(is_pure).flat_map(check_source));
    expect_none(&complaints);
}
