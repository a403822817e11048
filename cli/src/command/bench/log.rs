//! The log: appends, the way from producer to consumer, and catch-up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use carnax::{Client, Compression, FetchRequest, Offset, PartitionIndex, Record, Start, Timestamp};
use carnax_core::limits;
use carnax_core::record::{BatchBuilder, NewRecord, RecordRefused};
use futures::StreamExt;

use super::Bench;
use super::load::{self, Measured, Moved, noise};

pub(super) struct LogBench {
    pub(super) client: Client,
    pub(super) topic: String,
}

impl LogBench {
    /// Appends requests of encoded batches, each caller to one partition, for a while.
    pub(super) async fn append(&self, bench: &Bench) -> anyhow::Result<Measured> {
        let (body, records) = encode(bench.request_bytes, bench.record_bytes)?;
        let (client, topic) = (self.client.clone(), self.topic.clone());
        let (partitions, end) = (bench.partitions, Instant::now() + bench.duration);
        load::run(bench.concurrency, move |caller, _| {
            let (raw, topic, body) = (client.raw(), topic.clone(), body.clone());
            async move {
                if Instant::now() >= end {
                    return Ok(None);
                }
                let partition = PartitionIndex(u32::try_from(caller)? % partitions);
                let bytes = body.len() as u64;
                raw.append(&topic, partition, body).await?;
                Ok(Some(Moved { bytes, records }))
            }
        })
        .await
    }

    /// Sends a record, waits until a consumer has it, and sends the next.
    pub(super) async fn end_to_end(&self, bench: &Bench) -> anyhow::Result<Measured> {
        let producer = self.client.producer(&self.topic).linger(Duration::ZERO).build().await?;
        let mut consumer = self.client.consumer(&self.topic).start(Start::Latest).build().await?;
        let value = Bytes::from(noise(bench.record_bytes, 2));
        let mut measured = Measured::default();
        let started = Instant::now();
        for number in 0..bench.samples {
            let partition = PartitionIndex(u32::try_from(number)? % bench.partitions);
            let begun = Instant::now();
            let delivery = producer.send(Record::new(value.clone()).to_partition(partition)).await?;
            let read = consumer.next().await.context("every partition failed")??;
            measured.add(Moved { bytes: value.len() as u64, records: 1 }, begun.elapsed());
            let stored = delivery.await?;
            anyhow::ensure!(
                (stored.partition, stored.offset) == (read.partition, read.offset),
                "another record arrived"
            );
        }
        measured.elapsed = started.elapsed();
        producer.close().await;
        Ok(measured)
    }

    /// Reads all that was appended from the beginning: no caller reads ahead of itself.
    pub(super) async fn catch_up(&self, bench: &Bench) -> anyhow::Result<Measured> {
        let topic = self.client.admin().describe_topic(&self.topic).await?;
        let ends =
            topic.partition_offsets.iter().filter(|bounds| bounds.high_watermark > bounds.log_start_offset);
        let ranges: Vec<_> = ends.map(|bounds| (bounds.partition, bounds.high_watermark)).collect();
        let positions: BTreeMap<PartitionIndex, Offset> = topic
            .partition_offsets
            .iter()
            .map(|bounds| (bounds.partition, bounds.log_start_offset))
            .collect();
        let positions = Arc::new(Mutex::new(positions));
        let (client, name, topic_id) = (self.client.clone(), self.topic.clone(), topic.topic_id);
        let fetch_bytes = bench.request_bytes;
        // One caller a partition, up to the concurrency; each goes through its partitions one after the other.
        let callers = bench.concurrency.min(ranges.len()).max(1);
        let ranges = Arc::new(ranges);
        load::run(callers, move |caller, _| {
            let (raw, name) = (client.raw(), name.clone());
            let (ranges, positions) = (Arc::clone(&ranges), Arc::clone(&positions));
            async move {
                let next = {
                    let positions = positions.lock().unwrap_or_else(PoisonError::into_inner);
                    let mine = ranges.iter().skip(caller).step_by(callers);
                    let left = mine.map(|(partition, end)| (*partition, positions[partition], *end));
                    left.into_iter().find(|(_, position, end)| position < end)
                };
                let Some((partition, offset, _)) = next else { return Ok(None) };
                let mut fetch = FetchRequest::new(partition, offset);
                fetch.max_bytes = (fetch_bytes as u64).min(limits::FETCH_BYTES_MAX);
                fetch.topic_id = Some(topic_id);
                let answer = raw.fetch(&name, &fetch).await?;
                anyhow::ensure!(answer.next_offset > offset, "a fetch below the end brought nothing");
                positions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(partition, answer.next_offset);
                let records = answer.next_offset.since(offset);
                Ok(Some(Moved { bytes: answer.batches.len() as u64, records }))
            }
        })
        .await
    }
}

/// A request body of about so many bytes, and how many records are in it.
fn encode(request_bytes: usize, record_bytes: usize) -> anyhow::Result<(Bytes, u64)> {
    let batch_bytes = request_bytes.min(limits::BATCH_BYTES_DEFAULT);
    let mut body = BytesMut::new();
    let mut records = 0;
    loop {
        let mut builder = BatchBuilder::new(batch_bytes.min(request_bytes.saturating_sub(body.len())));
        loop {
            let value = noise(record_bytes, records);
            let record =
                NewRecord { timestamp: Timestamp::EPOCH, key: None, value: Some(&value), headers: &[] };
            match builder.push(&record) {
                Ok(()) => records += 1,
                Err(RecordRefused::Full) => break,
                Err(error) if body.is_empty() && builder.is_empty() => {
                    return Err(error).context("records do not fit into a request");
                }
                Err(_) => break,
            }
        }
        if builder.is_empty() {
            return Ok((body.freeze(), records));
        }
        body.extend_from_slice(&builder.build(Compression::None));
    }
}

#[cfg(test)]
mod tests {
    use carnax_core::record::Batch;

    use super::*;

    #[test]
    fn a_request_is_filled_with_whole_batches() {
        let (body, records) = encode(3 << 20, 1_000).unwrap();
        assert!(body.len() <= 3 << 20 && body.len() > (3 << 20) - 3_000, "{}", body.len());
        let batches = Batch::parse_all(body).unwrap();
        let counted: u64 = batches.iter().map(|batch| u64::from(batch.offset_count())).sum();
        assert_eq!((counted, batches.len()), (records, 3));
        assert!(encode(1_000, 2_000).is_err());
    }
}
