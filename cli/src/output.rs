//! Standard output, as text for people or as JSON for programs.

use std::io::{self, BufWriter, Stdout, Write};

use clap::ValueEnum;
use serde::Serialize;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people
    Text,
    /// JSON, one document a line
    Json,
}

/// Standard output. Written when it is flushed or dropped.
pub(crate) struct Output {
    format: Format,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, out: BufWriter::with_capacity(64 * 1024, io::stdout()) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A document as one line of JSON, or (as text) what `text` makes of it.
    pub(crate) fn show<T: Serialize>(
        &mut self,
        document: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(document),
            Format::Text => self.out.write_all(text(document).as_bytes()),
        }
    }

    pub(crate) fn json<T: Serialize>(&mut self, document: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, document)?;
        self.out.write_all(b"\n")
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Tells a person something.
pub(crate) fn say(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Columns, each as wide as its widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
