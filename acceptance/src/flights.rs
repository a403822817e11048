//! The records that are written: one flight a line, keyed by its carrier.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;

/// The name of the topic that flights are written to.
pub const TOPIC: &str = "flights";

/// A line of the input, as it is stored.
#[derive(Debug, Clone)]
pub struct Flight {
    /// The carrier.
    pub key: Bytes,
    /// The whole line.
    pub value: Bytes,
}

/// All lines, in order; the place of a line in here is its number everywhere.
#[derive(Debug, Clone)]
pub struct Flights(pub Vec<Flight>);

#[derive(Deserialize)]
struct Carrier {
    carrier: String,
}

impl Flights {
    /// Reads lines of JSON with a field `carrier`; a file whose name ends with `.gz` is decompressed.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is not such JSON.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
        let plain: Box<dyn Read> =
            if is_compressed { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut flights = Vec::new();
        for (number, line) in BufReader::new(plain).lines().enumerate() {
            let line = line.with_context(|| format!("cannot read line {number}"))?;
            let carrier: Carrier =
                serde_json::from_str(&line).with_context(|| format!("line {number} is no flight"))?;
            flights.push(Flight { key: carrier.carrier.into(), value: line.into() });
        }
        ensure!(!flights.is_empty(), "{} has no line", path.display());
        Ok(Self(flights))
    }

    /// The sample that ships with the sources.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn sample() -> Result<Self> {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/flights.ndjson"))
    }

    /// The numbers of the lines of each carrier, in order.
    pub fn by_key(&self) -> BTreeMap<Bytes, Vec<usize>> {
        let mut lines = BTreeMap::<Bytes, Vec<usize>>::new();
        for (number, flight) in self.0.iter().enumerate() {
            lines.entry(flight.key.clone()).or_default().push(number);
        }
        lines
    }
}
