//! What becomes of records that are sent, whatever the server does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use carnax::{
    Compression, Delivery, ErrorCode, Offset, PartitionIndex, ProduceError, Producer, Record, SideEffects,
};
use carnax_core::partitioner::partition_of;
use http::Method;
use tokio::sync::Semaphore;

use crate::log::{Log, topic_id};
use crate::server::{Reply, Seen, Server, client, client_builder, in_time};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) async fn start(log: &Log) -> Server {
    let log = log.clone();
    Server::start(move |seen| std::future::ready(log.serve(&seen))).await
}

pub(crate) async fn send_all(
    producer: &Producer,
    records: impl IntoIterator<Item = Record>,
) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for record in records {
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

#[tokio::test]
async fn keys_go_where_kafka_sends_them_in_order_and_each_record_learns_its_offset() {
    for compression in Compression::ALL {
        let log = Log::new(5);
        let server = start(&log).await;
        let producer =
            client(&server).producer("t").compression(compression).batch_bytes(2_000).build().await.unwrap();
        let records = (0..500).map(|number| {
            Record::new(format!("{number}")).with_key(format!("k{}", number % 7)).with_header("h", "v")
        });
        let deliveries = in_time(send_all(&producer, records)).await;
        in_time(producer.flush()).await;
        let mut expected: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (number, delivery) in deliveries.into_iter().enumerate() {
            let stored = in_time(delivery).await.unwrap();
            let partition = partition_of(format!("k{}", number % 7).as_bytes(), 5);
            let values = expected.entry(partition.0).or_default();
            assert_eq!((stored.partition, stored.offset), (partition, Offset(values.len() as u64)));
            values.push(number.to_string());
        }
        for (partition, values) in expected {
            assert_eq!(log.values(partition as usize), values, "{compression}");
        }
    }
}

#[tokio::test]
async fn one_request_a_partition_is_in_flight_if_told_so_and_flush_waits_for_all() {
    let log = Log::new(2);
    let gate = Arc::new(Semaphore::new(0));
    let (running, overlap) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let server = {
        let (log, gate, running, overlap) = (log.clone(), gate.clone(), running.clone(), overlap.clone());
        Server::start(move |seen: Seen| {
            let (log, gate, running, overlap) = (log.clone(), gate.clone(), running.clone(), overlap.clone());
            async move {
                if seen.method == Method::POST {
                    overlap.fetch_or(running.fetch_add(1, Ordering::SeqCst) > 0, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    running.fetch_sub(1, Ordering::SeqCst);
                }
                log.serve(&seen)
            }
        })
        .await
    };
    let producer = client(&server).producer("t").linger(Duration::ZERO).max_in_flight_per_partition(1);
    let producer = producer.build().await.unwrap();
    let to_first = |value: &str| Record::new(value.to_owned()).to_partition(PartitionIndex(0));
    let first = producer.send(to_first("a")).await.unwrap();
    wait_until(|| running.load(Ordering::SeqCst) == 1).await;
    let others = send_all(&producer, ["b", "c", "d"].map(to_first)).await;
    let flush = tokio::spawn({
        let producer = producer.clone();
        async move { producer.flush().await }
    });
    gate.add_permits(1);
    in_time(first).await.unwrap();
    wait_until(|| running.load(Ordering::SeqCst) == 1).await;
    assert!(!flush.is_finished(), "three records are not stored yet");
    gate.add_permits(10);
    in_time(flush).await.unwrap();
    for delivery in others {
        in_time(delivery).await.unwrap();
    }
    assert_eq!(log.values(0), ["a", "b", "c", "d"]);
    assert!(!overlap.load(Ordering::SeqCst), "no two requests of one partition at once");
    assert_eq!(server.seen_with(&Method::POST).len(), 2, "what waited went together");
}

#[tokio::test]
async fn full_memory_makes_send_wait_or_fail_and_nothing_is_lost() {
    let log = Log::new(1);
    let gate = Arc::new(Semaphore::new(0));
    let server = {
        let (log, gate) = (log.clone(), gate.clone());
        Server::start(move |seen: Seen| {
            let (log, gate) = (log.clone(), gate.clone());
            async move {
                if seen.method == Method::POST {
                    gate.acquire().await.unwrap().forget();
                }
                log.serve(&seen)
            }
        })
        .await
    };
    let builder = client(&server).producer("t").memory_bytes(10_000);
    let producer = builder.linger(MINUTE).send_timeout(Duration::from_millis(20)).build().await.unwrap();
    let record = || Record::new(vec![b'x'; 4_000]);
    let deliveries = in_time(send_all(&producer, [record(), record()])).await;
    let refused = in_time(producer.send(record())).await.unwrap_err();
    assert!(matches!(refused, ProduceError::MemoryFull { .. }) && refused.retryable(), "{refused:?}");
    assert_eq!(refused.side_effects(), SideEffects::None);
    let too_large = in_time(producer.send(Record::new(vec![b'x'; 20_000]))).await.unwrap_err();
    assert!(matches!(too_large, ProduceError::TooLarge { bytes_max: 10_000, .. }), "{too_large:?}");
    gate.add_permits(10);
    // Whoever waited for memory made the batch go, for all its linger of a minute.
    for delivery in deliveries {
        in_time(delivery).await.unwrap();
    }
    let last = in_time(producer.send(record())).await.unwrap();
    in_time(producer.close()).await;
    assert_eq!(in_time(last).await.unwrap().offset, Offset(2));
    assert!(matches!(producer.send(record()).await, Err(ProduceError::Closed)));
}

#[tokio::test]
async fn without_idempotence_an_unknown_outcome_is_sent_again_unless_told_otherwise() {
    for retry in [true, false] {
        let log = Log::new(1);
        let appends = AtomicUsize::new(0);
        let server = {
            let log = log.clone();
            Server::start(move |seen: Seen| {
                let first = seen.method == Method::POST && appends.fetch_add(1, Ordering::SeqCst) == 0;
                // Done, but the answer never arrives.
                let reply = log.serve(&seen);
                std::future::ready(if first { Reply::HangUp } else { reply })
            })
            .await
        };
        let producer = client(&server).producer("t").idempotent(false).retry_unknown_outcomes(retry);
        let producer = producer.build().await.unwrap();
        let result = in_time(producer.send(Record::new("a")).await.unwrap()).await;
        if retry {
            assert_eq!(result.unwrap().offset, Offset(1), "the place of the second copy");
            assert_eq!(log.values(0), ["a", "a"]);
        } else {
            assert_eq!(result.unwrap_err().side_effects(), SideEffects::Possible);
            assert_eq!(log.values(0), ["a"]);
        }
    }
}

#[tokio::test]
async fn records_are_routed_again_when_the_topic_grows_and_keep_the_order_of_their_key() {
    let log = Log::new(2);
    let server = start(&log).await;
    let producer = client(&server).producer("t").linger(MINUTE).batch_bytes(500).build().await.unwrap();
    let key = |number: usize| format!("k{}", number % 9);
    let record = |number: usize| Record::new(number.to_string()).with_key(key(number));
    let before = in_time(send_all(&producer, (0..100).map(record))).await;
    in_time(producer.flush()).await;
    log.change(|state| state.partitions.extend([Default::default(), Default::default(), Default::default()]));
    let after = in_time(send_all(&producer, (100..300).map(record))).await;
    in_time(producer.flush()).await;
    for (deliveries, (first, count)) in [(before, (0, 2)), (after, (100, 5))] {
        let mut last: BTreeMap<String, Offset> = BTreeMap::new();
        for (number, delivery) in (first..).zip(deliveries) {
            let stored = in_time(delivery).await.unwrap();
            assert_eq!(stored.partition, partition_of(key(number).as_bytes(), count));
            let earlier = last.insert(key(number), stored.offset);
            assert!(earlier.is_none_or(|earlier| earlier < stored.offset), "{number}");
        }
    }
    assert_eq!((0..5).map(|partition| log.values(partition).len()).sum::<usize>(), 300, "once each");
}

#[tokio::test]
async fn a_topic_that_was_created_anew_gets_no_records_of_the_old_one() {
    let log = Log::new(1);
    let server = start(&log).await;
    let producer = client(&server).producer("t").build().await.unwrap();
    log.change(|state| state.topic_id = topic_id(2));
    let error = in_time(producer.send(Record::new("a")).await.unwrap()).await.unwrap_err();
    assert!(
        matches!(&error, ProduceError::Request(cause) if cause.is(ErrorCode::TopicRecreated)),
        "{error:?}"
    );
    assert!(log.values(0).is_empty());
}

#[tokio::test]
async fn producing_goes_on_through_another_endpoint_without_loss_or_disorder() {
    let log = Log::new(3);
    let appends = Arc::new(AtomicUsize::new(0));
    let dying = {
        let (log, appends) = (log.clone(), appends.clone());
        Server::start(move |seen: Seen| {
            let dead = seen.method == Method::POST && appends.fetch_add(1, Ordering::SeqCst) >= 1;
            std::future::ready(if dead { Reply::HangUp } else { log.serve(&seen) })
        })
        .await
    };
    let healthy = start(&log).await;
    let client = client_builder([&dying, &healthy]).build().unwrap();
    let producer = client.producer("t").batch_bytes(300).linger(Duration::ZERO).build().await.unwrap();
    let records = (0..400).map(|number| Record::new(number.to_string()).with_key((number % 10).to_string()));
    let mut records: Vec<Record> = records.collect();
    let last = records.split_off(200);
    let mut deliveries = Vec::new();
    for record in records {
        deliveries.push(producer.send(record).await.unwrap());
        // Lets the sender take what is there, so that many requests are made.
        tokio::task::yield_now().await;
    }
    in_time(producer.flush()).await;
    deliveries.extend(in_time(send_all(&producer, last)).await);
    drop(producer);
    for delivery in deliveries {
        in_time(delivery).await.unwrap();
    }
    let mut all = Vec::new();
    for partition in 0..3 {
        let numbers: Vec<usize> = log.values(partition).iter().map(|value| value.parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        all.extend(numbers);
    }
    all.sort_unstable();
    assert_eq!(all, (0..400).collect::<Vec<_>>());
    assert!(!healthy.seen_with(&Method::POST).is_empty());
}

#[tokio::test]
async fn records_without_a_key_fill_one_partition_after_the_other() {
    let log = Log::new(4);
    let server = start(&log).await;
    let draws = AtomicUsize::new(0);
    let random =
        move || (draws.fetch_add(1, Ordering::SeqCst) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let client = client_builder([&server]).random(random).build().unwrap();
    let producer = client.producer("t").linger(MINUTE).batch_bytes(1_000).build().await.unwrap();
    in_time(send_all(&producer, (0..400).map(|number| Record::new(format!("{number:010}"))))).await;
    in_time(producer.close()).await;
    for partition in 0..4 {
        let count = log.values(partition).len();
        assert!((50..200).contains(&count), "partition {partition} has {count} of 400");
    }
    let batches: usize =
        log.change(|state| state.partitions.iter().map(|partition| partition.batches.len()).sum());
    assert!(batches < 60, "{batches} batches for 400 records");
}

#[tokio::test]
async fn a_record_whose_time_is_up_fails_and_says_whether_it_may_be_stored() {
    let log = Log::new(1);
    let server = {
        let log = log.clone();
        Server::start(move |seen: Seen| {
            let reply = match seen.method {
                Method::POST => Reply::problem(ErrorCode::NoQuorum, |_| {}),
                _ => log.serve(&seen),
            };
            std::future::ready(reply)
        })
        .await
    };
    let builder = client(&server).producer("t").delivery_timeout(Duration::from_millis(300));
    let producer = builder.linger(Duration::ZERO).build().await.unwrap();
    let deliveries = in_time(send_all(&producer, [Record::new("a"), Record::new("b")])).await;
    for delivery in deliveries {
        let error = in_time(delivery).await.unwrap_err();
        assert!(error.retryable() && error.side_effects() == SideEffects::None, "{error:?}");
    }
    in_time(producer.close()).await;
}

/// Polls a condition that another task makes true.
pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    in_time(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
