//! The four codecs of Kafka, with a bound on what comes out.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::error::BatchError;

/// How the records of a batch are compressed, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// snappy in the framing of snappy-java; a raw block is understood too.
    Snappy,
    /// The lz4 frame format.
    Lz4,
    /// zstd (RFC 8878).
    Zstd,
}

/// A word that names no codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compression is none, gzip, snappy, lz4 or zstd, not {0:?}")]
pub struct UnknownCompression(String);

impl Compression {
    /// All codecs.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in the attributes of a batch.
    pub fn codec(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec behind a number in the attributes of a batch.
    pub fn from_codec(codec: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.codec() == codec)
    }

    /// Its name, as Kafka's `compression.type` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Compresses; the answer may be longer than the input.
    pub(super) fn compress(self, input: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(input.to_vec()),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(input)?;
                encoder.finish()
            }
            Self::Snappy => xerial::compress(input),
            Self::Lz4 => {
                // What Kafka's clients write: readers need buffers of one block only.
                let frame =
                    FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
                let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
                encoder.write_all(input)?;
                encoder.finish().map_err(io::Error::other)
            }
            Self::Zstd => zstd::bulk::compress(input, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }

    /// Decompresses to at most `bytes_max` bytes; memory grows with what comes out, not with what is claimed.
    pub(super) fn decompress(self, input: Bytes, bytes_max: usize) -> Result<Bytes, BatchError> {
        let result = match self {
            Self::None if input.len() <= bytes_max => return Ok(input),
            Self::None => return Err(BatchError::DecompressedTooLong),
            Self::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(input.as_ref()), bytes_max),
            Self::Snappy => xerial::decompress(&input, bytes_max),
            Self::Lz4 => read_lz4(&input, bytes_max),
            Self::Zstd => read_zstd(&input, bytes_max),
        };
        match result {
            Ok(Some(records)) => Ok(records.into()),
            Ok(None) => Err(BatchError::DecompressedTooLong),
            Err(error) => Err(BatchError::Decompress { codec: self, reason: error.to_string() }),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(word: &str) -> Result<Self, UnknownCompression> {
        let found = Self::ALL.into_iter().find(|compression| compression.as_str() == word);
        found.ok_or_else(|| UnknownCompression(word.chars().take(64).collect()))
    }
}

/// Reads to the end; none if that is further than `bytes_max`.
fn read_bounded(reader: impl Read, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    reader.take((bytes_max as u64).saturating_add(1)).read_to_end(&mut out)?;
    Ok((out.len() <= bytes_max).then_some(out))
}

fn read_lz4(input: &[u8], bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    if input.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    read_bounded(FrameDecoder::new(input), bytes_max)
}

fn read_zstd(input: &[u8], bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    // The decoder allocates the window that the frame claims: none larger than what may come out is needed.
    let window_log_max = bytes_max.max(1).ilog2();
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(window_log_max)?;
    read_bounded(decoder, bytes_max)
}

/// The framing of snappy-java, which Kafka's clients use.
///
/// | at | bytes | field |
/// |----|-------|-------|
/// | 0 | 8 | magic |
/// | 8 | 4 | version = 1, big-endian |
/// | 12 | 4 | oldest compatible version = 1, big-endian |
/// | 16 | 4 | length of a block, big-endian |
/// | 20 | … | a raw snappy block; lengths and blocks go on to the end |
mod xerial {
    use std::io;

    const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
    const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
    /// What snappy-java puts into one block.
    const BLOCK_BYTES: usize = 32 * 1024;
    /// More than any snappy block can expand: its densest element makes 64 bytes of 3.
    const EXPANSION_MAX: usize = 64;

    pub(super) fn compress(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = [MAGIC, VERSIONS].concat();
        let mut encoder = snap::raw::Encoder::new();
        for chunk in input.chunks(BLOCK_BYTES) {
            let block = encoder.compress_vec(chunk).map_err(io::Error::other)?;
            let length = u32::try_from(block.len()).map_err(io::Error::other)?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&block);
        }
        Ok(out)
    }

    pub(super) fn decompress(input: &[u8], bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        let Some(mut rest) = input.strip_prefix(&MAGIC) else {
            return Ok(append_block(&mut out, input, bytes_max)?.then_some(out));
        };
        rest = rest.strip_prefix(&VERSIONS).ok_or_else(|| invalid("unknown version of the framing"))?;
        while !rest.is_empty() {
            let (length, blocks) =
                rest.split_first_chunk().ok_or_else(|| invalid("ends in a block's length"))?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
            let (block, behind) =
                blocks.split_at_checked(length).ok_or_else(|| invalid("ends in a block"))?;
            if !append_block(&mut out, block, bytes_max)? {
                return Ok(None);
            }
            rest = behind;
        }
        Ok(Some(out))
    }

    /// Appends what is in one block; false if there is no room for it.
    fn append_block(out: &mut Vec<u8>, block: &[u8], bytes_max: usize) -> io::Result<bool> {
        let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        if length > block.len().saturating_mul(EXPANSION_MAX) {
            return Err(invalid("a block claims more than it can hold"));
        }
        let start = out.len();
        if length > bytes_max - start {
            return Ok(false);
        }
        out.resize(start + length, 0);
        let written =
            snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(io::Error::other)?;
        out.truncate(start + written);
        Ok(true)
    }

    fn invalid(reason: &'static str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}
