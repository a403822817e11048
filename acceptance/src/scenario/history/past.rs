//! Gives a partition a long past in little time: what is told to the metadata is what appends and merges of many years would have told
//! it. Of the objects only those exist that are read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax_core::id::{CommitNumber, SegmentId, SegmentNumber, TopicPartition};
use carnax_core::limits::{COMMIT_SEGMENTS_MAX, MERGED_BYTES_ENOUGH};
use carnax_core::metadata::{
    CommitSegments, OpenSession, ReplaceSlices, ReplacedPart, SegmentCommit, SegmentOutcome, SessionOpened,
    UnitCommit, UnitOutcome, UnitSlice,
};
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::record::{Batch, BatchBuilder, Compression, NewRecord};
use carnax_core::segment::{PartitionBatches, SealedSegment, SegmentWriter};
use carnax_core::time::Timestamp;
use carnax_object_store::{ObjectStore, Payload};
use carnax_platform::entropy::{Entropy, SystemEntropy};
use carnax_platform::rpc::Channel;
use tokio::task::JoinSet;

use super::super::long_life::now_ms;

const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// The time of the first record; each slice is a second.
const BEGIN: i64 = 1_700_000_000_000;

/// Writes the past of one partition, block by block.
pub(super) struct Past<'a> {
    leader: Channel,
    store: &'a dyn ObjectStore,
    on: TopicPartition,
    session: SessionOpened,
    /// What every slice looks like.
    bytes: ByteRange,
    size: u64,
    /// Slices so far, and commits.
    pub(super) slices: u64,
    commits: u64,
    /// Segments that the metadata numbered so far.
    segments: u64,
    /// Which slices are to exist.
    real: &'a [u64],
}

/// Bytes of a record, which is a batch of its own.
const VALUE_BYTES: usize = 64 * 1_024;
/// Records of a slice: as many as make it one that no merge takes again.
pub(super) const RECORDS: u32 = 512;
const _: () = assert!(VALUE_BYTES as u64 * RECORDS as u64 >= MERGED_BYTES_ENOUGH);

impl<'a> Past<'a> {
    pub(super) async fn begin(
        leader: Channel,
        store: &'a dyn ObjectStore,
        on: TopicPartition,
        real: &'a [u64],
    ) -> Result<Self> {
        let open = OpenSession { frontend: "history".to_owned() };
        let session = leader.call(open, CALL_TIME_MAX).await.context("cannot open a session")?;
        let sealed = seal(on, 0)?;
        let (bytes, size) = (sealed.units[0][0].bytes, sealed.size);
        Ok(Self { leader, store, on, session, bytes, size, slices: 0, commits: 0, segments: 0, real })
    }

    /// The timestamp of the records of a slice.
    pub(super) fn timestamp(slice: u64) -> Timestamp {
        Timestamp::from_millis(BEGIN + i64::try_from(slice).unwrap_or(i64::MAX / 2_000) * 1_000)
    }

    /// Appends a block of segments, and puts the result of a merge into the place of each: as if it had been many.
    pub(super) async fn write_block(&mut self, slices: u64) -> Result<()> {
        let count = slices.min(COMMIT_SEGMENTS_MAX as u64);
        self.append(count).await.context("cannot commit")?;
        let mut merging = JoinSet::new();
        for place in 0..count {
            let slice = self.slices + place;
            let segment = new_id()?;
            if self.real.contains(&slice) {
                self.upload(slice, segment).await.context("cannot upload")?;
            }
            let part = ReplacedPart {
                on: self.on,
                base_offset: Offset(slice * u64::from(RECORDS)),
                end_offset: Offset((slice + 1) * u64::from(RECORDS)),
                sources: vec![SegmentNumber(self.segments + place)],
                bytes: self.bytes,
                max_timestamp: Self::timestamp(slice),
            };
            let incarnation = self.session.incarnation;
            let request = ReplaceSlices { incarnation, segment, size: self.size, parts: vec![part] };
            let leader = self.leader.clone();
            merging.spawn(async move { leader.call(request, CALL_TIME_MAX).await });
        }
        while let Some(merged) = merging.join_next().await {
            let merged = merged?.context("cannot replace a slice")?;
            ensure!(merged.replaced == [true], "a slice is not where it was appended");
        }
        self.slices += count;
        self.segments += 2 * count;
        Ok(())
    }

    async fn append(&mut self, count: u64) -> Result<()> {
        let TopicPartition { topic, partition } = self.on;
        let mut segments = Vec::new();
        for place in 0..count {
            let max_timestamp = Self::timestamp(self.slices + place);
            let slice = UnitSlice { topic, partition, bytes: self.bytes, records: RECORDS, max_timestamp };
            let units = vec![UnitCommit { slices: vec![slice], ..UnitCommit::default() }];
            segments.push(SegmentCommit { segment: new_id()?, size: self.size, units });
        }
        self.commits += 1;
        let SessionOpened { session, incarnation, .. } = self.session;
        let request = CommitSegments { incarnation, session, number: CommitNumber(self.commits), segments };
        let committed = self.leader.call(request, CALL_TIME_MAX).await?;
        for outcome in committed.outcomes {
            let SegmentOutcome::Decided(units) = &outcome else { anyhow::bail!("{outcome:?}") };
            ensure!(matches!(units.as_slice(), [UnitOutcome::Accepted { .. }]), "{units:?}");
        }
        Ok(())
    }

    async fn upload(&self, slice: u64, segment: SegmentId) -> Result<()> {
        let SealedSegment { chunks, crc32c, .. } = seal(self.on, slice)?;
        let key = SegmentKey::rewritten(self.session.incarnation, segment, std::iter::once(self.on));
        let payload = Payload::with_checksum(chunks, crc32c);
        Ok(self.store.put_if_absent(&key.to_string(), payload).await?)
    }
}

/// The object of a merged slice: every record is a batch.
fn seal(on: TopicPartition, slice: u64) -> Result<SealedSegment> {
    let value = vec![b'-'; VALUE_BYTES];
    let mut batches = Vec::new();
    for _ in 0..RECORDS {
        let mut builder = BatchBuilder::new(2 * VALUE_BYTES);
        let timestamp = Past::timestamp(slice);
        builder.push(&NewRecord { timestamp, key: None, value: Some(&value), headers: &[] })?;
        batches.extend(Batch::parse_all(builder.build(Compression::None))?);
    }
    let mut writer = SegmentWriter::new();
    writer.push_unit(vec![PartitionBatches { on, batches, encoded_by_frontend: false }])?;
    Ok(writer.seal())
}

/// As fresh as a segment has to be that is committed now.
fn new_id() -> Result<SegmentId> {
    let now = Timestamp::from_millis(i64::try_from(now_ms())?);
    Ok(SegmentId::from_parts(now, SystemEntropy.next_u128()))
}
