//! Makes one object of a closed segment.

use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::UnitCommit;
use carnax_core::problem::Problem;
use carnax_core::segment::SegmentWriter;
use carnax_object_store::Payload;

use super::accumulate::UnitContent;

/// An object, ready to be uploaded, and what its commit says of it.
#[derive(Debug, Clone)]
pub(crate) struct SealedObject {
    pub(crate) payload: Payload,
    /// In the order in which the units are to be decided.
    pub(crate) units: Vec<UnitCommit>,
}

/// Puts units into one object, in their order.
///
/// # Errors
/// `internal`, if the accumulator let in more than a segment may hold: nothing is uploaded then.
pub(crate) fn seal(units: Vec<UnitContent>) -> Result<SealedObject, Problem> {
    let mut writer = SegmentWriter::new();
    let mut commits = Vec::with_capacity(units.len());
    for unit in units {
        let (commit, parts) = unit.finish();
        writer.push_unit(parts).map_err(|full| {
            Problem::new(ErrorCode::TooLarge, format!("records do not fit into a segment: {full}"))
                .with(|facts| facts.limit = Some(full.limit))
        })?;
        commits.push(commit);
    }
    let sealed = writer.seal();
    let chunks: Vec<Bytes> = sealed.chunks;
    let units = sealed.units.into_iter().zip(commits);
    let units = units.map(|(slices, commit)| UnitCommit { slices, ..commit }).collect();
    Ok(SealedObject { payload: Payload::with_checksum(chunks, sealed.crc32c), units })
}
