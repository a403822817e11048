//! What a scenario has to say.

use std::fmt;

/// Lines of plain text, each a fact with its numbers.
#[derive(Debug)]
pub struct Report {
    name: String,
    lines: Vec<String>,
}

impl Report {
    /// An empty report of a scenario.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), lines: Vec::new() }
    }

    /// Adds a fact, and logs it.
    pub fn say(&mut self, line: impl Into<String>) {
        let line = line.into();
        tracing::info!(scenario = self.name, "{line}");
        self.lines.push(line);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: passed", self.name)?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
