//! The part of a snapshot that says what was accepted before: producers and idempotency keys with the answers that they keep.

use std::io::{self, Write};
use std::time::Duration;

use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::metadata::{AppendedSlice, IdempotencyStamp};
use carnax_core::name::{IdempotencyKey, ProducerId};
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;

use super::frame::{Frame, ROWS_MAX};
use super::read::{Checked, require};
use super::write::Frames;
use crate::State;
use crate::producer::{Epoch, Producer};
use crate::remembered::Remembered;

/// Slices of answers after which a frame is full; the last row may exceed it by what one producer can keep.
const FRAME_SLICES_MAX: u64 = 65_536;

/// Id, epoch, the epoch before it until something is accepted in this one, log time of the last change.
pub(super) type ProducerRow = (ProducerId, EpochRow, Option<EpochRow>, Timestamp);

/// Number, last sequence, kept answers by sequence.
type EpochRow = (u32, Option<u128>, Vec<(u128, AnswerRow)>);

/// Principal, key, its answer.
pub(super) type KeyRow = (String, IdempotencyKey, AnswerRow);

/// Body hash (big-endian), log time of acceptance, slices.
type AnswerRow = (u128, Timestamp, Vec<AppendedRow>);

/// Topic, partition, base offset, records.
type AppendedRow = (TopicId, u32, u64, u32);

/// Producers in order of their ids, keys in order of their acceptance.
pub(super) fn write_remembered(state: &State, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let producers = state.producers.iter();
    let producers = producers.map(|(id, producer)| (producer.slices(), producer_to_row(id, producer)));
    put_weighed(frames, producers, Frame::Producers)?;
    let keys = state.keys.iter().map(|(key, reply)| {
        let row = (key.principal.to_string(), key.key.clone(), answer_to_row(reply));
        (reply.slice_count(), row)
    });
    put_weighed(frames, keys, Frame::Keys)
}

/// Puts rows into as many frames as they need, by their number and by the slices that they hold.
fn put_weighed<T>(
    frames: &mut Frames<'_, impl Write>,
    rows: impl Iterator<Item = (u64, T)>,
    frame: impl Fn(Vec<T>) -> Frame,
) -> io::Result<()> {
    let (mut some, mut slices) = (Vec::new(), 0_u64);
    for (weight, row) in rows {
        some.push(row);
        slices = slices.saturating_add(weight);
        if some.len() >= ROWS_MAX || slices >= FRAME_SLICES_MAX {
            frames.put(&frame(std::mem::take(&mut some)))?;
            slices = 0;
        }
    }
    if some.is_empty() { Ok(()) } else { frames.put(&frame(some)) }
}

pub(super) fn add_producers(state: &mut State, rows: Vec<ProducerRow>) -> Checked {
    let window = state.settings.typed.producer_window;
    for row in rows {
        let (id, producer) = producer_from_row(row);
        require(producer.is_sound(), "a producer that cannot be")?;
        require(lives(state, producer.last_seen, window), "a producer outside its window")?;
        require(state.producers.restore(id, producer), "producers out of order")?;
    }
    check_slices(state)
}

pub(super) fn add_keys(state: &mut State, rows: Vec<KeyRow>) -> Checked {
    let window = state.settings.typed.idempotency_window;
    for (principal, key, answer) in rows {
        let reply = answer_from_row(&answer);
        require(principal.len() <= limits::PRINCIPAL_BYTES_MAX, "a principal that is too long")?;
        require(lives(state, reply.append_time, window), "an idempotency key outside its window")?;
        let stamp = IdempotencyStamp { principal, key, body_hash: reply.body_hash };
        require(state.keys.restore(&stamp, reply), "idempotency keys out of order, or one twice")?;
    }
    check_slices(state)
}

fn lives(state: &State, since: Timestamp, window: Duration) -> bool {
    since <= state.log_time && state.log_time.since(since) < window
}

fn check_slices(state: &State) -> Checked {
    let slices = state.producers.slices().saturating_add(state.keys.slices());
    require(slices <= limits::REMEMBERED_SLICES_MAX, "more slices of answers than may be kept")
}

fn producer_to_row(id: &ProducerId, producer: &Producer) -> ProducerRow {
    let before = producer.before.as_ref().map(|before| epoch_to_row(before));
    (id.clone(), epoch_to_row(&producer.now), before, producer.last_seen)
}

fn producer_from_row(row: ProducerRow) -> (ProducerId, Producer) {
    let (id, now, before, last_seen) = row;
    let before = before.map(|before| Box::new(epoch_from_row(before)));
    (id, Producer { now: epoch_from_row(now), before, last_seen })
}

fn epoch_to_row(epoch: &Epoch) -> EpochRow {
    let replies = epoch.replies.iter().map(|(sequence, reply)| (*sequence, answer_to_row(reply)));
    (epoch.number, epoch.last, replies.collect())
}

fn epoch_from_row(row: EpochRow) -> Epoch {
    let (number, last, replies) = row;
    let replies = replies.into_iter().map(|(sequence, reply)| (sequence, answer_from_row(&reply)));
    Epoch { number, last, replies: replies.collect() }
}

fn answer_to_row(reply: &Remembered) -> AnswerRow {
    let row = |slice: &AppendedSlice| {
        let AppendedSlice { topic, partition, base_offset, records } = *slice;
        (topic, partition.0, base_offset.0, records)
    };
    let slices = reply.slices.iter().map(row).collect();
    (u128::from_be_bytes(reply.body_hash), reply.append_time, slices)
}

fn answer_from_row(row: &AnswerRow) -> Remembered {
    let (body_hash, append_time, slices) = row;
    let slice = |(topic, partition, base_offset, records): &AppendedRow| AppendedSlice {
        topic: *topic,
        partition: PartitionIndex(*partition),
        base_offset: Offset(*base_offset),
        records: *records,
    };
    let slices = slices.iter().map(slice).collect();
    Remembered { body_hash: body_hash.to_be_bytes(), append_time: *append_time, slices }
}
