//! Record batches of several partitions of one topic in one body.
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 4 | partition, big-endian |
//! | 4 | 4 | length of the batches, big-endian, at least 1 |
//! | 8 | … | concatenated record batches |
//!
//! Frames follow each other to the end of the body, each partition at most once, in ascending order.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::id::PartitionIndex;
use crate::limits;

/// The batches of one partition in a request or answer over a whole topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionFrame {
    /// The partition.
    pub partition: PartitionIndex,
    /// Concatenated record batches.
    pub batches: Bytes,
}

/// A body that is no sequence of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body ends inside a frame.
    #[error("body ends inside the frame at byte {at}")]
    Truncated {
        /// Where the frame starts.
        at: usize,
    },
    /// A frame without batches.
    #[error("frame at byte {at} is empty")]
    Empty {
        /// Where the frame starts.
        at: usize,
    },
    /// Partitions are not strictly ascending.
    #[error("partition {partition} at byte {at} does not come after the one before it")]
    Unsorted {
        /// Where the frame starts.
        at: usize,
        /// The partition.
        partition: PartitionIndex,
    },
    /// More frames than an append may touch partitions.
    #[error("body has more than {limit} frames", limit = limits::UNIT_PARTITIONS_MAX)]
    TooMany,
}

/// Splits a body into frames without copying.
///
/// # Errors
/// See [`FrameError`]; nothing is allocated by what a length claims.
pub fn read_frames(mut body: Bytes) -> Result<Vec<PartitionFrame>, FrameError> {
    let total = body.len();
    let mut frames: Vec<PartitionFrame> = Vec::new();
    while !body.is_empty() {
        let at = total - body.len();
        if body.len() < 8 {
            return Err(FrameError::Truncated { at });
        }
        let partition = PartitionIndex(body.get_u32());
        let length = usize::try_from(body.get_u32()).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(FrameError::Empty { at });
        }
        if length > body.len() {
            return Err(FrameError::Truncated { at });
        }
        if frames.last().is_some_and(|last| last.partition >= partition) {
            return Err(FrameError::Unsorted { at, partition });
        }
        if frames.len() == limits::UNIT_PARTITIONS_MAX {
            return Err(FrameError::TooMany);
        }
        frames.push(PartitionFrame { partition, batches: body.split_to(length) });
    }
    Ok(frames)
}

/// Appends one frame to a body.
///
/// # Panics
/// If the batches are longer than 4 GiB, which no request may be.
pub fn write_frame(body: &mut BytesMut, frame: &PartitionFrame) {
    body.put_u32(frame.partition.0);
    body.put_u32(u32::try_from(frame.batches.len()).expect("a request is shorter than 4 GiB"));
    body.put_slice(&frame.batches);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_every_truncation_is_refused() {
        let frames = [(0, "abc"), (7, "d")].map(|(partition, batches)| PartitionFrame {
            partition: PartitionIndex(partition),
            batches: Bytes::from_static(batches.as_bytes()),
        });
        let mut body = BytesMut::new();
        let mut ends = vec![0];
        for frame in &frames {
            write_frame(&mut body, frame);
            ends.push(body.len());
        }
        let body = body.freeze();
        assert_eq!(read_frames(body.clone()).unwrap(), frames);
        for length in (0..body.len()).filter(|length| !ends.contains(length)) {
            assert!(
                matches!(read_frames(body.slice(..length)), Err(FrameError::Truncated { .. })),
                "{length}"
            );
        }
        let twice = [body.clone(), body].concat();
        assert!(matches!(read_frames(twice.into()), Err(FrameError::Unsorted { at: 20, .. })));
        assert_eq!(read_frames(Bytes::from_static(&[0; 8])), Err(FrameError::Empty { at: 0 }));
        assert_eq!(
            read_frames(Bytes::from_static(&[0, 0, 0, 0, 255, 255, 255, 255])),
            Err(FrameError::Truncated { at: 0 })
        );
    }
}
