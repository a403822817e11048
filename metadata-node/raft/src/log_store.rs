//! Where votes and log entries lie.
//!
//! ```text
//! save_vote ─┐
//! append    ─┼─▶ one ordered queue ─▶ write ─▶ fsync (shared by all that wait) ─▶ callback
//! truncate  ─┤
//! purge     ─┘
//! ```
//!
//! Invariants: a callback comes only after the fsync that covers it; votes and entries share one order; after a failed
//! write or fsync nothing is written any more, since what the disk holds is unknown until the log is opened again.

mod disk;
mod flushes;
mod memory;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use disk::DiskLog;
pub use disk::OpenLogError;
pub(crate) use flushes::Flushes;
pub use memory::MemoryDisk;
pub(crate) use memory::MemoryLog;

use std::io;
use std::ops::{Bound, Range, RangeBounds};

use futures::stream::{self, Stream, StreamExt};
use openraft::entry::RaftEntry as _;

use crate::types::RaftEntry;

/// Bytes of entries that one read for replication or apply returns (one more entry at most).
const READ_BYTES_MAX: usize = 1024 * 1024;

/// The half-open range `[start, end)` of any range of indexes.
fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end.max(start))
}

/// The entries of a range, read piece by piece, so that a long log need not fit into memory when it is applied again.
fn stream_entries(
    (start, end): (u64, u64),
    read: impl Fn(Range<u64>) -> io::Result<Vec<RaftEntry>> + Send,
) -> impl Stream<Item = io::Result<RaftEntry>> + Send {
    let pieces = stream::unfold(Some(start), move |next| {
        let start = next.filter(|start| *start < end);
        let piece = start.map(|start| read(start..end));
        async move {
            // A log that is applied again must not keep a thread from everything else.
            tokio::task::yield_now().await;
            match piece? {
                Ok(entries) => {
                    let next = entries.last()?.index() + 1;
                    let entries: Vec<_> = entries.into_iter().map(Ok).collect();
                    Some((stream::iter(entries), Some(next)))
                }
                Err(error) => Some((stream::iter(vec![Err(error)]), None)),
            }
        }
    });
    Box::pin(pieces.flatten())
}
