//! What a consumer hands out, whatever the server holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use carnax::{
    ConsumeError, ConsumedRecord, Consumer, ErrorCode, Offset, OffsetReset, PartitionIndex, Record, Start,
    Timestamp,
};
use carnax_core::record::{BatchBuilder, Compression, NewRecord, gap_batch, set_base_offset};
use futures::StreamExt;

use crate::log::{Log, topic_id};
use crate::server::{Reply, Seen, Server, client, in_time};

const FIRST: PartitionIndex = PartitionIndex(0);

/// A log with batches of ten records, numbered by partition: record 12 of partition 0 has the value `12`.
async fn filled(partitions: u32, records: u64) -> (Log, Server) {
    let log = Log::new(partitions as usize);
    let server = {
        let log = log.clone();
        Server::start(move |seen| std::future::ready(log.serve(&seen))).await
    };
    let producer = client(&server).producer("t").linger(Duration::from_secs(60)).build().await.unwrap();
    for number in 0..records {
        for partition in (0..partitions).map(PartitionIndex) {
            let timestamp = Timestamp::from_millis(i64::try_from(number).unwrap());
            let record = Record::new(number.to_string()).with_timestamp(timestamp).to_partition(partition);
            drop(producer.send(record).await.unwrap());
        }
        if number % 10 == 9 {
            producer.flush().await;
        }
    }
    producer.close().await;
    (log, server)
}

/// Reads until nothing has come for a while.
async fn read(consumer: &mut Consumer, count: usize) -> Result<Vec<ConsumedRecord>, ConsumeError> {
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(in_time(consumer.poll(count - records.len(), Duration::from_secs(30))).await?);
    }
    Ok(records)
}

fn offsets(records: &[ConsumedRecord]) -> Vec<u64> {
    records.iter().map(|record| record.offset.0).collect()
}

#[tokio::test]
async fn every_partition_is_read_in_order_within_small_fetches() {
    let (_log, server) = filled(3, 95).await;
    let builder = client(&server).consumer("t").prefetch_bytes(1);
    let mut consumer = builder.build().await.unwrap();
    let mut next: BTreeMap<PartitionIndex, u64> = BTreeMap::new();
    for _ in 0..3 * 95 {
        let record = in_time(consumer.next()).await.unwrap().unwrap();
        let expected = next.entry(record.partition).or_default();
        assert_eq!(record.offset.0, *expected);
        assert_eq!(record.value.unwrap(), expected.to_string());
        *expected += 1;
        assert_eq!(consumer.position(record.partition), Some(Offset(*expected)));
    }
    assert!(in_time(consumer.poll(10, Duration::ZERO)).await.unwrap().is_empty());
    assert_eq!(consumer.high_watermark(FIRST), Some(Offset(95)));
}

#[tokio::test]
async fn reading_begins_at_any_offset_or_time_also_inside_a_batch() {
    let (log, server) = filled(1, 50).await;
    log.change(|state| state.partitions[0].log_start = 5);
    for (start, first) in [
        (Start::Earliest, 5),
        (Start::Offset(Offset(23)), 23),
        (Start::Timestamp(Timestamp::from_millis(37)), 37),
        (Start::Last(4), 46),
        (Start::Last(400), 5),
    ] {
        let mut consumer = client(&server).consumer("t").start(start).build().await.unwrap();
        assert_eq!(consumer.position(FIRST), Some(Offset(first)), "{start:?}");
        let count = usize::try_from(50 - first).unwrap();
        let records = read(&mut consumer, count).await.unwrap();
        assert_eq!(offsets(&records), (first..50).collect::<Vec<_>>(), "{start:?}");
        in_time(consumer.seek(FIRST, Start::Offset(Offset(12)))).await.unwrap();
        assert_eq!(offsets(&read(&mut consumer, 3).await.unwrap()), [12, 13, 14]);
    }
    let mut consumer = client(&server).consumer("t").start(Start::Latest).build().await.unwrap();
    assert!(in_time(consumer.poll(1, Duration::ZERO)).await.unwrap().is_empty());
    let producer = client(&server).producer("t").producer_id("another").build().await.unwrap();
    drop(producer.send(Record::new("new")).await.unwrap());
    assert_eq!(offsets(&read(&mut consumer, 1).await.unwrap()), [50]);
}

#[tokio::test]
async fn a_damaged_batch_is_an_error_that_names_it_and_is_skipped_only_on_purpose() {
    let (log, server) = filled(2, 50).await;
    log.change(|state| {
        let bytes = &mut state.partitions[0].batches[2].1;
        let mut damaged = BytesMut::from(bytes.as_ref());
        // The record count: what the batch says of itself is not to be trusted.
        damaged[60] ^= 0x40;
        *bytes = damaged.freeze();
    });
    let mut consumer = client(&server).consumer("t").build().await.unwrap();
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    while records.len() < 70 || errors.is_empty() {
        match in_time(consumer.next()).await.unwrap() {
            Ok(record) => records.push(record),
            Err(error) => errors.push(error),
        }
    }
    let of_first = |records: &[ConsumedRecord]| -> Vec<u64> {
        records.iter().filter(|record| record.partition == FIRST).map(|record| record.offset.0).collect()
    };
    assert_eq!(of_first(&records), (0..20).collect::<Vec<_>>(), "the other partition was read to its end");
    let [ConsumeError::Damaged { partition: FIRST, offset: Offset(20), next_offset, .. }] = errors[..] else {
        panic!("{errors:?}");
    };
    assert_eq!(next_offset, Offset(30));
    assert_eq!(consumer.failed().collect::<Vec<_>>(), [FIRST]);
    consumer.resume(FIRST);
    let again = read(&mut consumer, 1).await.unwrap_err();
    assert!(matches!(again, ConsumeError::Damaged { offset: Offset(20), .. }), "{again:?}");
    in_time(consumer.seek(FIRST, Start::Offset(next_offset))).await.unwrap();
    assert_eq!(of_first(&read(&mut consumer, 20).await.unwrap()), (30..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_names_damage_is_believed() {
    let (log, _) = filled(1, 30).await;
    let server = Server::start(move |seen: Seen| {
        let damaged = seen.param("offset") == Some("10");
        let name = |facts: &mut carnax_core::problem::Facts| facts.next_offset = Some(Offset(20));
        let reply = if damaged { Reply::problem(ErrorCode::DamagedBatch, name) } else { log.serve(&seen) };
        std::future::ready(reply)
    })
    .await;
    let start = Start::Offset(Offset(10));
    let mut consumer = client(&server).consumer("t").start(start).build().await.unwrap();
    let error = in_time(consumer.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, ConsumeError::Damaged { next_offset: Offset(20), .. }), "{error:?}");
    assert!(in_time(consumer.next()).await.is_none(), "nothing is left to read");
}

#[tokio::test]
async fn records_that_are_gone_are_an_error_or_a_reset_as_the_policy_says() {
    let (log, server) = filled(1, 30).await;
    log.change(|state| state.partitions[0].log_start = 10);
    let builder = || client(&server).consumer("t").start(Start::Offset(Offset(3)));
    let mut consumer = builder().build().await.unwrap();
    let error = in_time(consumer.next()).await.unwrap().unwrap_err();
    let ConsumeError::Fetch { offset: Offset(3), source, .. } = &error else { panic!("{error:?}") };
    assert!(source.is(ErrorCode::OffsetBelowLogStart));
    assert_eq!(source.problem().unwrap().facts.log_start_offset, Some(Offset(10)));
    let mut consumer = builder().offset_reset(OffsetReset::Earliest).build().await.unwrap();
    assert_eq!(offsets(&read(&mut consumer, 20).await.unwrap()), (10..30).collect::<Vec<_>>());
    let above = client(&server).consumer("t").start(Start::Offset(Offset(99)));
    let mut consumer = above.offset_reset(OffsetReset::Earliest).build().await.unwrap();
    assert_eq!(offsets(&read(&mut consumer, 2).await.unwrap()), [10, 11], "back to where there is something");
}

#[tokio::test]
async fn a_topic_that_was_created_anew_is_not_taken_for_the_old_one() {
    let (log, server) = filled(1, 10).await;
    let mut consumer = client(&server).consumer("t").build().await.unwrap();
    read(&mut consumer, 10).await.unwrap();
    log.change(|state| state.topic_id = topic_id(2));
    let error = in_time(consumer.next()).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, ConsumeError::Fetch { source, .. } if source.is(ErrorCode::TopicRecreated)),
        "{error:?}"
    );
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_partition_goes_on_where_it_was_after_its_server_was_away() {
    static AWAY: AtomicBool = AtomicBool::new(false);
    let (log, _) = filled(1, 20).await;
    let server = Server::start(move |seen: Seen| {
        let away = AWAY.load(Ordering::SeqCst)
            || seen.param("offset") == Some("5") && !AWAY.swap(true, Ordering::SeqCst);
        std::future::ready(if away { Reply::problem(ErrorCode::NoQuorum, |_| {}) } else { log.serve(&seen) })
    })
    .await;
    let client = crate::server::client_builder([&server])
        .operation_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let start = Start::Offset(Offset(5));
    let mut consumer = client.consumer("t").start(start).wait(Duration::ZERO).build().await.unwrap();
    let error = in_time(consumer.next()).await.unwrap().unwrap_err();
    assert!(error.retryable() && error.partition() == FIRST, "{error:?}");
    AWAY.store(false, Ordering::SeqCst);
    in_time(consumer.seek(FIRST, Start::Offset(Offset(6)))).await.unwrap();
    assert_eq!(offsets(&read(&mut consumer, 14).await.unwrap()), (6..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn holes_and_batches_without_records_are_stepped_over() {
    let (log, server) = filled(1, 40).await;
    log.change(|state| {
        let batches = &mut state.partitions[0].batches;
        let mut builder = BatchBuilder::new(1 << 20);
        for (delta, value) in [(3, "3"), (7, "7")] {
            let value = Some(value.as_bytes());
            builder
                .push_at(delta, &NewRecord { timestamp: Timestamp::EPOCH, key: None, value, headers: &[] })
                .unwrap();
        }
        let with_holes = builder.build_spanning(Compression::None, 10);
        let empty = |base: u64| {
            let mut bytes = BytesMut::from(&gap_batch(10).into_bytes()[..]);
            set_base_offset(&mut bytes, Offset(base));
            (base, bytes.freeze())
        };
        batches[0] = (0, with_holes);
        (batches[1], batches[3]) = (empty(10), empty(30));
    });
    for prefetch in [1, 1 << 20] {
        let builder = client(&server).consumer("t").prefetch_bytes(prefetch);
        let mut consumer = builder.build().await.unwrap();
        let seen = read(&mut consumer, 12).await.unwrap();
        let expected: Vec<u64> = [3, 7].into_iter().chain(20..30).collect();
        assert_eq!(offsets(&seen), expected);
        assert!(in_time(consumer.poll(1, Duration::from_millis(300))).await.unwrap().is_empty());
        assert_eq!(consumer.position(FIRST), Some(Offset(40)), "behind the hole at the end");
    }
}
