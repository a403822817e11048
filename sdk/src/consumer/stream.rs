//! From chunks to records: one batch is decoded at a time.

use std::pin::Pin;
use std::task::{Context, Poll};

use carnax_core::id::TopicPartition;
use carnax_core::offset::Offset;
use carnax_core::record::{Batch, Records};
use futures::Stream;

use super::chunk::{self, Chunk, Of};
use super::reader::Reader;
use super::{ConsumeError, ConsumedRecord, Consumer};

/// The chunk that is being handed out.
#[derive(Debug)]
pub(super) struct Current {
    chunk: Chunk,
    /// The batch that is being handed out: its records, and its first and last offset but one.
    batch: Option<(Records, Offset, Offset)>,
}

impl Current {
    pub(super) fn on(&self) -> TopicPartition {
        self.chunk.of.on
    }

    pub(super) fn failure_is_next(&self) -> bool {
        self.batch.is_none() && self.chunk.batches.is_empty() && self.chunk.failure.is_some()
    }

    /// The next record at or behind `position`; none when the chunk is used up.
    fn next(&mut self, position: Offset) -> Option<Result<ConsumedRecord, ConsumeError>> {
        let of = &self.chunk.of;
        loop {
            let Some((records, base, end)) = &mut self.batch else {
                match self.chunk.batches.pop_front() {
                    Some(batch) => match open(&batch, of, position) {
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
                    return Some(Err(chunk::damaged(of, position.max(*base), *end, &error)));
                }
                Some(Ok(record)) => {
                    let offset = Offset(base.0 + u64::from(record.offset_delta));
                    if offset >= position {
                        return Some(Ok(ConsumedRecord {
                            topic: of.topic.clone(),
                            partition: of.on.partition,
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

fn open(batch: &Batch, of: &Of, position: Offset) -> Result<(Records, Offset, Offset), ConsumeError> {
    let (base, end) = (chunk::base_offset(batch), chunk::end_offset(batch));
    match batch.records() {
        Ok(records) => Ok((records, base, end)),
        Err(error) => Err(chunk::damaged(of, position.max(base), end, &error)),
    }
}

impl Reader {
    /// The next record of the current chunk; none when it is used up.
    pub(super) fn next_of_current(&mut self) -> Option<Result<ConsumedRecord, ConsumeError>> {
        let current = self.current.as_mut()?;
        let on = current.on();
        let place = self.places.get_mut(&on)?;
        let next = current.next(place.position);
        match &next {
            Some(Ok(record)) => place.position = Offset(record.offset.0 + 1),
            Some(Err(_)) => self.stop(on),
            None => {
                place.position = place.position.max(current.chunk.next_offset);
                self.current = None;
            }
        }
        next
    }

    /// Takes a chunk that arrived, unless its partition was sought or has failed since.
    fn accept(&mut self, chunk: Chunk) {
        let place = self.places.get_mut(&chunk.of.on).filter(|place| place.epoch == chunk.epoch);
        if let Some(place) = place {
            place.position = chunk.start;
            self.current = Some(Current { chunk, batch: None });
        }
    }

    /// A record that is there without waiting; none also before an error, which is for the next call.
    pub(super) fn next_at_hand(&mut self) -> Option<ConsumedRecord> {
        loop {
            if self.current.as_ref().is_some_and(Current::failure_is_next) {
                return None;
            }
            let on = self.current.as_ref().map(Current::on);
            match (self.next_of_current(), on) {
                (Some(Ok(record)), _) => return Some(record),
                (Some(Err(error)), Some(on)) => {
                    // A batch that cannot be decoded: keep the failure for the next call.
                    self.keep_failure(on, error);
                    return None;
                }
                _ => {
                    let chunk = self.chunks.try_recv().ok()?;
                    self.accept(chunk);
                }
            }
        }
    }

    fn keep_failure(&mut self, on: TopicPartition, error: ConsumeError) {
        let Some(place) = self.places.get(&on) else { return };
        let of = Of { topic: error.topic().clone(), on };
        self.accept(Chunk::failed(of, place.epoch, place.position, error));
    }
}

impl Stream for Reader {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(next) = self.next_of_current() {
                return Poll::Ready(Some(next));
            }
            if !self.is_active() {
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

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.reader).poll_next(cx)
    }
}
