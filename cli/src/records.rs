//! Lines of a file or of standard input, as records. Reading is blocking: it runs on a thread of its own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use carnax::Record;
use carnax_core::limits;
use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc;

/// Lines that are handed over together.
const CHUNK_LINES: usize = 512;
/// Chunks that wait to be taken.
const CHUNKS_WAITING: usize = 4;

/// What a record's key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// There is none.
    None,
    /// The value of this member of each line, which is a JSON object.
    Field(String),
    /// What stands before the first such text; the value is what stands behind it.
    Before(String),
}

impl Key {
    /// The record of one line; none for a blank line between JSON documents.
    pub(crate) fn record(&self, line: &[u8]) -> anyhow::Result<Option<Record>> {
        match self {
            Self::None => Ok(Some(Record::new(line.to_vec()))),
            Self::Field(_) if line.trim_ascii().is_empty() => Ok(None),
            Self::Field(field) => {
                let document: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(line).context("not a JSON object")?;
                let record = Record::new(line.to_vec());
                Ok(Some(match document.get(field) {
                    None | Some(serde_json::Value::Null) => record,
                    Some(serde_json::Value::String(key)) => record.with_key(key.clone()),
                    Some(other) => record.with_key(other.to_string()),
                }))
            }
            Self::Before(separator) => {
                let separator = separator.as_bytes();
                let at = line.windows(separator.len()).position(|window| window == separator);
                let at = at.context("no key separator")?;
                let value = line[at + separator.len()..].to_vec();
                Ok(Some(Record::new(value).with_key(line[..at].to_vec())))
            }
        }
    }
}

/// Some lines that follow each other, without their ends.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The number of the first, from 1.
    pub(crate) first: u64,
    pub(crate) lines: Vec<Vec<u8>>,
    /// Bytes that were read from the file for them, compressed as they may be there.
    pub(crate) file_bytes: u64,
}

/// Opens a file (decompressing `.gz`), or standard input, and reads its lines on another thread.
///
/// Gives also the length of the file. Whoever drops the receiver stops the reading, at the latest with the next line.
pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<(Option<u64>, mpsc::Receiver<io::Result<Lines>>)> {
    let (sender, lines) = mpsc::channel(CHUNKS_WAITING);
    let Some(path) = file else {
        std::thread::spawn(move || read_lines(BufReader::new(io::stdin().lock()), || 0, &sender));
        return Ok((None, lines));
    };
    let open = || -> io::Result<(File, u64)> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    let (file, length) = open().with_context(|| format!("cannot open {}", path.display()))?;
    let gzipped = PathBuf::from(path).extension().is_some_and(|extension| extension == "gz");
    let position = file.try_clone()?;
    let read_so_far = move || io::Seek::stream_position(&mut &position).unwrap_or(0);
    std::thread::spawn(move || {
        if gzipped {
            read_lines(BufReader::new(MultiGzDecoder::new(file)), read_so_far, &sender);
        } else {
            read_lines(BufReader::with_capacity(1 << 18, file), read_so_far, &sender);
        }
    });
    Ok((Some(length), lines))
}

fn read_lines(
    mut input: BufReader<impl Read>,
    read_so_far: impl Fn() -> u64,
    sender: &mpsc::Sender<io::Result<Lines>>,
) {
    let mut first = 1;
    loop {
        let mut lines = Vec::new();
        let mut end = false;
        // Nothing more without waiting: a person who types should not wait until a chunk is full.
        let mut at_hand = true;
        while !end && at_hand && lines.len() < CHUNK_LINES {
            match read_line(&mut input) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => end = true,
                Err(error) => {
                    // Whoever would hear of it is gone.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
            at_hand = !input.buffer().is_empty();
        }
        let count = lines.len() as u64;
        let chunk = Lines { first, lines, file_bytes: read_so_far() };
        first += count;
        if (count > 0 && sender.blocking_send(Ok(chunk)).is_err()) || end {
            return;
        }
    }
}

/// The next line without its end; none at the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = limits::BATCH_BYTES_MAX as u64;
    if input.take(limit + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() as u64 > limit {
        return Err(io::Error::other("a line is longer than any record may be"));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_from_fields_and_from_before_separators() {
        let field = Key::Field("k".to_owned());
        let record = |value: &str| Record::new(value.to_owned());
        for (key, line, expected) in [
            (&Key::None, "a:b", Some(record("a:b"))),
            (&Key::None, "", Some(record(""))),
            (&field, r#"{"k":"x"}"#, Some(record(r#"{"k":"x"}"#).with_key("x"))),
            (&field, r#"{"k":17}"#, Some(record(r#"{"k":17}"#).with_key("17"))),
            (&field, r#"{"k":null}"#, Some(record(r#"{"k":null}"#))),
            (&field, " ", None),
            (&Key::Before("::".to_owned()), "a::b::c", Some(record("b::c").with_key("a"))),
        ] {
            assert_eq!(key.record(line.as_bytes()).unwrap(), expected, "{line}");
        }
        for (key, line) in [(&field, "[1]"), (&field, "x"), (&Key::Before(":".to_owned()), "ab")] {
            assert!(key.record(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn plain_and_compressed_files_give_the_same_numbered_lines() {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (1..=2_000).map(|number| format!("line {number}\r\n")).collect();
        let (plain, gzipped) = (folder.path().join("a.txt"), folder.path().join("a.txt.gz"));
        std::fs::write(&plain, &text).unwrap();
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gzipped).unwrap(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap();
        for path in [plain, gzipped] {
            let (length, mut chunks) = read(Some(&path)).unwrap();
            assert_eq!(length, Some(path.metadata().unwrap().len()));
            let mut number = 0;
            while let Some(chunk) = chunks.recv().await {
                let chunk = chunk.unwrap();
                assert_eq!(chunk.first, number + 1);
                for line in chunk.lines {
                    number += 1;
                    assert_eq!(line, format!("line {number}").as_bytes());
                }
            }
            assert_eq!(number, 2_000);
        }
        assert!(read(Some(&folder.path().join("none"))).is_err());
    }
}
