//! `docs/limits.md` against `core/src/limits.rs`: every constant stands there with its value, and no other.

use crate::tables::{code_spans, rows_under};
use crate::tree::{Complaint, TextFile, expect_none, file};

/// Name and value of each `pub const NAME: type = value;`, with its line.
fn constants(source: &TextFile) -> Vec<(usize, String, String)> {
    let constant = |(line, text): (usize, &str)| {
        let (name, rest) = text.strip_prefix("pub const ")?.split_once(": ")?;
        let (_, value) = rest.strip_suffix(';')?.split_once(" = ")?;
        Some((line, name.to_owned(), shown(value)))
    };
    source.lines().filter_map(constant).collect()
}

/// A value as people write it; what is not a number or a time stands as in the source.
fn shown(value: &str) -> String {
    let value = value.trim_end_matches(" as u64");
    for (time, unit) in [("Duration::from_secs(", "s"), ("Duration::from_millis(", "ms")] {
        let factors = value.strip_prefix(time).and_then(|rest| rest.strip_suffix(')'));
        let product = factors.and_then(|factors| factors.split('*').map(number).product::<Option<u64>>());
        if let Some(product) = product {
            return format!("{} {unit}", with_commas(product));
        }
    }
    if let Some(number) = number(value) {
        return with_commas(number);
    }
    let value = if value.starts_with("MIB") { format!("1 * {value}") } else { value.to_owned() };
    match value.split_once(" * ").filter(|(count, _)| number(count).is_some()) {
        Some((count, unit)) if unit.starts_with("MIB") || unit.starts_with("KIB") => {
            format!("{count} {}", unit.replace("IB", "iB"))
        }
        _ => format!("`{value}`"),
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().replace('_', "").parse().ok()
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let comma = |at: usize| if at > 0 && (digits.len() - at).is_multiple_of(3) { "," } else { "" };
    digits.char_indices().flat_map(|(at, digit)| [comma(at).to_owned(), digit.to_string()]).collect()
}

fn check(source: &TextFile, document: &TextFile) -> Vec<Complaint> {
    let constants = constants(source);
    let rows = rows_under(document, &["constant", "value"]);
    let mut complaints = Vec::new();
    for (line, name, value) in &constants {
        let said: Vec<_> = rows.iter().filter(|row| code_spans(&row.cells[0]) == [name.as_str()]).collect();
        match said.as_slice() {
            [row] if row.cells[1] == *value => {}
            [row] => complaints.push(Complaint::new(&document.path, row.line, format!("{name} is {value}"))),
            _ => complaints.push(Complaint::new(
                &source.path,
                *line,
                format!("{name} ({value}) stands not once in {}", document.path),
            )),
        }
    }
    for row in rows {
        let names = code_spans(&row.cells[0]);
        if !constants.iter().any(|(_, name, _)| names == [name.as_str()]) {
            complaints.push(Complaint::new(
                &document.path,
                row.line,
                format!("there is no constant {names:?}"),
            ));
        }
    }
    complaints
}

#[test]
fn a_limit_that_is_missing_wrong_or_gone_is_found() {
    let source =
        "pub const A_MAX: usize = 100_000;\npub const B: u64 = 2 * MIB as u64;\npub const C: u32 = 7;\n";
    let document = "| constant | value | of what |\n|---|---|---|\n| `A_MAX` | 100,000 | a |\n| `B` | 3 MiB | b |\n| `D` | 1 | d |\n";
    let complaints = check(&TextFile::new("a.rs", source), &TextFile::new("a.md", document));
    let places: Vec<(&str, usize)> = complaints.iter().map(|c| (c.path.as_str(), c.line)).collect();
    assert_eq!(places, [("a.md", 4), ("a.rs", 3), ("a.md", 5)]);
}

#[test]
fn values_are_shown_as_people_write_them() {
    for (value, expected) in [
        ("7", "7"),
        ("10_000_000", "10,000,000"),
        ("Duration::from_secs(60 * 60)", "3,600 s"),
        ("Duration::from_millis(100)", "100 ms"),
        ("MIB + 12", "1 MiB + 12"),
        ("16 * MIB as u64", "16 MiB"),
        ("256 * KIB", "256 KiB"),
        ("OTHER / 4", "`OTHER / 4`"),
    ] {
        assert_eq!(shown(value), expected);
    }
}

#[test]
fn every_limit_is_documented_with_its_value() {
    let source = file("core/src/limits.rs");
    assert!(constants(&source).len() > 50, "the source of the limits was not understood");
    expect_none(&check(&source, &file("docs/limits.md")));
}
