//! A file fits a sitting, a function fits a screen.

use crate::source::without_comments_and_literals;
use crate::tree::{Complaint, TextFile, expect_none, files_ending};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

fn check_file_size(file: &TextFile) -> Vec<Complaint> {
    let lines = file.text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let what = format!(
        "{lines} lines, the wall is {FILE_LINES_MAX}: split it by what it does, or move its tests to <name>/tests.rs"
    );
    vec![Complaint::new(&file.path, lines, what)]
}

fn check_function_sizes(file: &TextFile) -> Vec<Complaint> {
    let bare = without_comments_and_literals(&file.text);
    let functions = functions(&bare);
    let too_long = functions.iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    too_long
        .map(|function| {
            let what = format!(
                "`{}` has {} lines, a screen holds {FUNCTION_LINES_MAX}: let it decide, and give the computing to helpers",
                function.name, function.lines
            );
            Complaint::new(&file.path, function.line, what)
        })
        .collect()
}

struct Function {
    name: String,
    line: usize,
    /// Lines with code between its braces, as clippy counts them.
    lines: usize,
}

fn functions(bare: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in bare.match_indices("fn ") {
        if bare[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &bare[at + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(body) = body(rest).filter(|_| !name.is_empty()) else { continue };
        let inner = body.lines().skip(1).filter(|line| !line.trim().is_empty()).count();
        found.push(Function { name, line: bare[..at].matches('\n').count() + 1, lines: inner });
    }
    found
}

/// What stands between the braces of the function whose signature starts here; none for a declaration without body.
fn body(rest: &str) -> Option<&str> {
    let mut parentheses = 0_usize;
    let open = rest.char_indices().find_map(|(at, c)| {
        match c {
            '(' | '[' => parentheses += 1,
            ')' | ']' => parentheses = parentheses.saturating_sub(1),
            '{' | ';' if parentheses == 0 => return Some((at, c)),
            _ => {}
        }
        None
    });
    let (open, _) = open.filter(|(_, c)| *c == '{')?;
    let mut depth = 0_usize;
    for (at, c) in rest[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(&rest[open + 1..open + at]),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[test]
fn a_long_file_and_a_long_function_are_found() {
    let long = "x\n".repeat(FILE_LINES_MAX + 1);
    assert_eq!(check_file_size(&TextFile::new("a.rs", &long)).len(), 1);
    assert!(check_file_size(&TextFile::new("a.rs", &long[2..])).is_empty());

    let function = |lines: usize| {
        format!(
            "const A: u8 = 1;\nfn f(a: [u8; 4]) -> [u8; 4] {{\n{}\n    a\n}}\n",
            "    g(\"}\");\n".repeat(lines - 1)
        )
    };
    let complaints = check_function_sizes(&TextFile::new("a.rs", &function(FUNCTION_LINES_MAX + 1)));
    assert_eq!(complaints.len(), 1);
    assert_eq!(complaints[0].line, 2);
    assert!(complaints[0].what.starts_with("`f` has 71 lines"), "{}", complaints[0].what);
    assert!(check_function_sizes(&TextFile::new("a.rs", &function(FUNCTION_LINES_MAX))).is_empty());
}

#[test]
fn no_file_is_longer_than_the_wall() {
    let complaints: Vec<_> = files_ending(&[".rs"]).iter().flat_map(check_file_size).collect();
    expect_none(&complaints);
}

#[test]
fn no_function_is_longer_than_a_screen() {
    let files = files_ending(&[".rs"]);
    let seen: usize =
        files.iter().map(|file| functions(&without_comments_and_literals(&file.text)).len()).sum();
    assert!(seen > 100, "only {seen} functions seen: the counter has gone blind");
    let complaints: Vec<_> = files.iter().flat_map(check_function_sizes).collect();
    expect_none(&complaints);
}
