//! From chunks to records: one batch is decoded at a time.

use std::pin::Pin;
use std::task::{Context, Poll};

use carnax_core::id::PartitionIndex;
use carnax_core::offset::Offset;
use carnax_core::record::{Batch, Records};
use futures::Stream;

use super::chunk::{self, Chunk};
use super::{ConsumeError, ConsumedRecord, Consumer};

/// The chunk that is being handed out.
#[derive(Debug)]
pub(super) struct Current {
    chunk: Chunk,
    /// The batch that is being handed out: its records, and its first and last offset but one.
    batch: Option<(Records, Offset, Offset)>,
}

impl Current {
    pub(super) fn partition(&self) -> PartitionIndex {
        self.chunk.partition
    }

    /// The next record at or behind `position`; none when the chunk is used up.
    fn next(&mut self, position: Offset) -> Option<Result<ConsumedRecord, ConsumeError>> {
        let partition = self.chunk.partition;
        loop {
            let Some((records, base, end)) = &mut self.batch else {
                match self.chunk.batches.pop_front() {
                    Some(batch) => match open(&batch, partition, position) {
                        Ok(opened) => self.batch = Some(opened),
                        Err(error) => return Some(Err(error)),
                    },
                    None => return self.chunk.failure.take().map(Err),
                }
                continue;
            };
            match records.next() {
                None => self.batch = None,
                Some(Err(error)) => {
                    return Some(Err(chunk::damaged(partition, position.max(*base), *end, &error)));
                }
                Some(Ok(record)) => {
                    let offset = Offset(base.0 + u64::from(record.offset_delta));
                    if offset >= position {
                        return Some(Ok(ConsumedRecord {
                            partition,
                            offset,
                            timestamp: record.timestamp,
                            key: record.key,
                            value: record.value,
                            headers: record.headers,
                        }));
                    }
                }
            }
        }
    }
}

fn open(
    batch: &Batch,
    partition: PartitionIndex,
    position: Offset,
) -> Result<(Records, Offset, Offset), ConsumeError> {
    let (base, end) = (chunk::base_offset(batch), chunk::end_offset(batch));
    match batch.records() {
        Ok(records) => Ok((records, base, end)),
        Err(error) => Err(chunk::damaged(partition, position.max(base), end, &error)),
    }
}

impl Consumer {
    /// The next record of the current chunk; none when it is used up.
    fn next_of_current(&mut self) -> Option<Result<ConsumedRecord, ConsumeError>> {
        let current = self.current.as_mut()?;
        let state = self.partitions.get_mut(&current.partition())?;
        let next = current.next(state.position);
        match &next {
            Some(Ok(record)) => state.position = Offset(record.offset.0 + 1),
            Some(Err(_)) => {
                if let Some(fetch) = state.fetch.take() {
                    fetch.abort();
                }
                // What the fetcher sent behind the failure is of an earlier epoch from now on.
                self.epoch += 1;
                state.epoch = self.epoch;
                self.current = None;
            }
            None => {
                state.position = state.position.max(current.chunk.next_offset);
                self.current = None;
            }
        }
        next
    }

    /// Takes a chunk that arrived, unless its partition was sought or has failed since.
    fn accept(&mut self, chunk: Chunk) {
        let state = self.partitions.get_mut(&chunk.partition).filter(|state| state.epoch == chunk.epoch);
        if let Some(state) = state {
            state.position = chunk.start;
            self.current = Some(Current { chunk, batch: None });
        }
    }

    /// A record that is there without waiting; none also before an error, which is for the next call.
    pub(super) fn next_at_hand(&mut self) -> Option<ConsumedRecord> {
        loop {
            if let Some(current) = &self.current {
                let failure_is_next = current.batch.is_none() && current.chunk.batches.is_empty();
                if failure_is_next && current.chunk.failure.is_some() {
                    return None;
                }
            }
            match self.next_of_current() {
                Some(Ok(record)) => return Some(record),
                Some(Err(error)) => {
                    // A batch that cannot be decoded: keep the failure for the next call.
                    self.keep_failure(error);
                    return None;
                }
                None => {
                    let chunk = self.chunks.try_recv().ok()?;
                    self.accept(chunk);
                }
            }
        }
    }

    fn keep_failure(&mut self, error: ConsumeError) {
        let partition = error.partition();
        if let Some(state) = self.partitions.get(&partition) {
            self.accept(Chunk::failed(partition, state.epoch, state.position, error));
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(next) = self.next_of_current() {
                return Poll::Ready(Some(next));
            }
            if self.partitions.values().all(|state| state.fetch.is_none()) {
                return Poll::Ready(None);
            }
            match self.chunks.poll_recv(cx) {
                Poll::Ready(Some(chunk)) => self.accept(chunk),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
