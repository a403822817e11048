//! Every record once, in order, or an error that says so: against a server that keeps the rules of producers and loses
//! requests and answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carnax::{ErrorCode, Offset, PartitionIndex, ProduceError, Record, RecordMetadata, SideEffects};
use http::Method;
use tokio::sync::Semaphore;

use crate::log::Log;
use crate::producing::{send_all, start, wait_until};
use crate::server::{Reply, Seen, Server, client, client_builder, in_time};

fn is(error: &ProduceError, code: ErrorCode) -> bool {
    matches!(error, ProduceError::Request(cause) if cause.is(code))
}

fn is_append(seen: &Seen) -> bool {
    seen.path.ends_with("/records") && seen.method == Method::POST
}

/// A server whose appends go through `append`, which may answer something of its own.
async fn start_with(
    log: &Log,
    append: impl Fn(&Log, &Seen) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let log = log.clone();
    Server::start(move |seen| {
        let answered = if is_append(&seen) { append(&log, &seen) } else { None };
        std::future::ready(answered.unwrap_or_else(|| log.serve(&seen)))
    })
    .await
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_the_record_is_stored_once() {
    let log = Log::new(1);
    let appends = AtomicUsize::new(0);
    let server = start_with(&log, move |log, seen| {
        let lost = appends.fetch_add(1, Ordering::SeqCst) == 0;
        lost.then(|| {
            log.serve(seen);
            Reply::HangUp
        })
    })
    .await;
    let producer = client(&server).producer("t").build().await.unwrap();
    let stored = in_time(producer.send(Record::new("a")).await.unwrap()).await.unwrap();
    assert_eq!((stored.offset, log.values(0)), (Offset(0), vec!["a".to_owned()]));
    let sent = server.seen_with(&Method::POST);
    assert_eq!(sent.len(), 2, "no handshake: nothing was sent but the append, twice");
    for seen in sent {
        assert_eq!(seen.header("carnax-producer-id"), producer.id().map(|id| id.as_str()));
        let rest = ["carnax-producer-epoch", "carnax-sequence"].map(|name| seen.header(name));
        assert_eq!(rest, [Some("0"), Some("0")]);
    }
}

#[tokio::test]
async fn several_requests_of_one_partition_are_in_flight_and_arrive_in_any_order() {
    let log = Log::new(1);
    let gate = Arc::new(Semaphore::new(0));
    let running = Arc::new(AtomicUsize::new(0));
    let server = {
        let (log, gate, running) = (log.clone(), gate.clone(), running.clone());
        Server::start(move |seen: Seen| {
            let (log, gate, running) = (log.clone(), gate.clone(), running.clone());
            async move {
                // The first request waits at the gate, those behind it are refused for the gap.
                if is_append(&seen) && seen.header("carnax-sequence") == Some("0") {
                    gate.acquire().await.unwrap().forget();
                }
                running.fetch_add(1, Ordering::SeqCst);
                log.serve(&seen)
            }
        })
        .await
    };
    let producer = client(&server).producer("t").linger(Duration::ZERO).build().await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..5 {
        deliveries.extend(send_all(&producer, [Record::new(number.to_string())]).await);
        wait_until(|| server.seen_with(&Method::POST).len() > number.min(1)).await;
    }
    wait_until(|| running.load(Ordering::SeqCst) >= 2).await;
    assert!(log.values(0).is_empty(), "nothing overtakes the first");
    gate.add_permits(10);
    for (number, delivery) in (0..).zip(deliveries) {
        assert_eq!(in_time(delivery).await.unwrap().offset, Offset(number));
    }
    assert_eq!(log.values(0), ["0", "1", "2", "3", "4"]);
    assert_eq!(log.change(|state| state.producers.epochs()), [0], "a gap is no reason for a new epoch");
}

#[tokio::test]
async fn a_refused_request_fails_alone_and_what_is_behind_it_goes_on_in_order() {
    let log = Log::new(1);
    let server = start_with(&log, |_, seen| {
        let poisoned = seen.body.windows(6).any(|window| window == b"poison");
        poisoned.then(|| Reply::problem(ErrorCode::TooLarge, |_| {}))
    })
    .await;
    let builder = client(&server).producer("t").linger(Duration::ZERO);
    // Each record makes a request of its own.
    let producer = builder.request_bytes(1).batch_bytes(1_000).build().await.unwrap();
    let record = |number: usize| match number % 10 {
        5 => Record::new(format!("poison{number}")),
        _ => Record::new(number.to_string()),
    };
    let deliveries = in_time(send_all(&producer, (0..60).map(record))).await;
    let mut expected = Vec::new();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        match in_time(delivery).await {
            Ok(stored) => {
                assert_eq!(stored.offset, Offset(expected.len() as u64));
                expected.push(number.to_string());
            }
            Err(error) => {
                assert!(number % 10 == 5 && is(&error, ErrorCode::TooLarge), "{number}: {error:?}");
                assert_eq!(error.side_effects(), SideEffects::None);
            }
        }
    }
    assert_eq!(expected.len(), 54);
    assert_eq!(log.values(0), expected);
}

#[tokio::test]
async fn a_new_epoch_tells_whether_a_request_without_an_answer_is_stored() {
    for stored in [true, false] {
        let log = Log::new(2);
        let away = Arc::new(AtomicBool::new(true));
        let switch = away.clone();
        let server = start_with(&log, move |log, seen| {
            switch.load(Ordering::SeqCst).then(|| {
                if stored && seen.header("carnax-sequence") == Some("0") {
                    log.serve(seen);
                }
                Reply::HangUp
            })
        })
        .await;
        let builder = client(&server).producer("t").delivery_timeout(Duration::from_millis(400));
        let producer = builder.linger(Duration::ZERO).build().await.unwrap();
        let to =
            |partition, value: &str| Record::new(value.to_owned()).to_partition(PartitionIndex(partition));
        let first = in_time(producer.send(to(1, "first"))).await.unwrap();
        let answer = in_time(first).await;
        if stored {
            let stored = answer.unwrap();
            assert_eq!((stored.partition, stored.offset), (PartitionIndex(1), Offset(0)));
        } else {
            let error = answer.unwrap_err();
            assert!(error.retryable() && error.side_effects() == SideEffects::None, "{error:?}");
        }
        assert_eq!(log.change(|state| state.producers.epochs()), [1], "raised once");
        away.store(false, Ordering::SeqCst);
        let second = in_time(producer.send(to(1, "second"))).await.unwrap();
        assert_eq!(in_time(second).await.unwrap().offset, Offset(u64::from(stored)));
        assert_eq!(log.values(1), if stored { vec!["first", "second"] } else { vec!["second"] });
    }
}

#[tokio::test]
async fn only_when_the_epoch_cannot_be_raised_is_an_outcome_left_open() {
    let log = Log::new(1);
    let away = Arc::new(AtomicBool::new(false));
    let server = {
        let (log, away) = (log.clone(), away.clone());
        Server::start(move |seen: Seen| {
            // The record is stored, and from then on nothing comes through.
            let lost = seen.method == Method::POST && away.load(Ordering::SeqCst);
            if seen.header("carnax-sequence") == Some("1") && log.values(0).len() == 1 {
                log.serve(&seen);
                return std::future::ready(Reply::HangUp);
            }
            std::future::ready(if lost { Reply::HangUp } else { log.serve(&seen) })
        })
        .await
    };
    let builder = client(&server).producer("t").delivery_timeout(Duration::from_millis(300));
    let builder = builder.request_timeout(Duration::from_millis(300));
    let producer = builder.linger(Duration::ZERO).build().await.unwrap();
    in_time(in_time(producer.send(Record::new("a"))).await.unwrap()).await.unwrap();
    away.store(true, Ordering::SeqCst);
    let open = in_time(in_time(producer.send(Record::new("b"))).await.unwrap()).await.unwrap_err();
    assert!(open.retryable() && open.side_effects() == SideEffects::Possible, "{open:?}");
    let never_sent = in_time(in_time(producer.send(Record::new("c"))).await.unwrap()).await.unwrap_err();
    assert!(matches!(never_sent, ProduceError::Expired { .. }), "{never_sent:?}");
    assert_eq!(never_sent.side_effects(), SideEffects::None);
    away.store(false, Ordering::SeqCst);
    let stored = in_time(in_time(producer.send(Record::new("d"))).await.unwrap()).await.unwrap();
    assert_eq!((stored.offset, log.values(0)), (Offset(2), ["a", "b", "d"].map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn a_producer_that_takes_over_shuts_out_the_one_before() {
    let log = Log::new(1);
    let server = start(&log).await;
    let build = || client(&server).producer("t").producer_id("arn:q/1").build();
    let old = in_time(build()).await.unwrap();
    in_time(in_time(old.send(Record::new("a"))).await.unwrap()).await.unwrap();
    let new = in_time(build()).await.unwrap();
    in_time(in_time(new.send(Record::new("b"))).await.unwrap()).await.unwrap();
    let error = in_time(in_time(old.send(Record::new("c"))).await.unwrap()).await.unwrap_err();
    assert!(is(&error, ErrorCode::Fenced) && !error.retryable(), "{error:?}");
    assert_eq!(error.side_effects(), SideEffects::None);
    let closed = in_time(old.send(Record::new("d"))).await.unwrap_err();
    assert!(is(&closed, ErrorCode::Fenced), "{closed:?}");
    in_time(old.close()).await;
    in_time(in_time(new.send(Record::new("e"))).await.unwrap()).await.unwrap();
    assert_eq!(log.values(0), ["a", "b", "e"]);
    let paths: Vec<String> = server.seen().into_iter().map(|seen| seen.path).collect();
    assert!(paths.contains(&"/v1/producers/arn%3Aq%2F1/epoch".to_owned()), "{paths:?}");
}

#[tokio::test]
async fn a_producer_that_was_forgotten_introduces_itself_again() {
    let log = Log::new(1);
    let server = start(&log).await;
    let producer = client(&server).producer("t").linger(Duration::ZERO).build().await.unwrap();
    for round in 0..3 {
        let records = (0..20).map(|number| Record::new(format!("{:03}", round * 20 + number)));
        for delivery in in_time(send_all(&producer, records)).await {
            in_time(delivery).await.unwrap();
        }
        log.change(|state| state.producers.forget_all());
    }
    assert_eq!(log.values(0), (0..60).map(|number| format!("{number:03}")).collect::<Vec<_>>());
}

/// Mixes a number, so that neighbours have nothing in common.
fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Numbers that follow from a seed.
#[derive(Clone)]
struct Draws(Arc<AtomicU64>);

impl Draws {
    fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed << 32)))
    }

    fn draw(&self, count: u64) -> u64 {
        mix(self.0.fetch_add(1, Ordering::SeqCst)) % count
    }
}

async fn pause(turns: u64) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

type Late = Arc<Mutex<tokio::task::JoinSet<()>>>;

/// Serves a request, if the draw is a lucky one.
async fn serve_badly(log: Log, draws: Draws, late: Late, seen: Seen) -> Reply {
    pause(draws.draw(20)).await;
    match draws.draw(20) {
        0 => Reply::problem(ErrorCode::NoQuorum, |_| {}),
        1 => Reply::HangUp,
        // Done, and nobody hears of it.
        2 | 3 => {
            log.serve(&seen);
            Reply::HangUp
        }
        // Done long after its sender has given it up.
        4 | 5 => {
            let turns = 2_000 * draws.draw(10);
            late.lock().unwrap().spawn(async move {
                pause(turns).await;
                log.serve(&seen);
            });
            Reply::problem(ErrorCode::OutcomeUnknown, |_| {})
        }
        6 if is_append(&seen) => Reply::problem(ErrorCode::Forbidden, |_| {}),
        7 if is_append(&seen) && draws.draw(5) == 0 => Reply::problem(ErrorCode::Internal, |_| {}),
        _ => log.serve(&seen),
    }
}

/// Sends numbered records of 17 keys through a bad server; tells what became of each, in order. With `grows`, the topic gets
/// more partitions while the first records may still be on their way.
async fn send_through_bad_server(seed: u64, grows: bool) -> (Log, Vec<Option<RecordMetadata>>) {
    let (log, draws, late) = (Log::new(3), Draws::new(seed), Late::default());
    let server = {
        let (log, draws, late) = (log.clone(), draws.clone(), late.clone());
        Server::start(move |seen| serve_badly(log.clone(), draws.clone(), late.clone(), seen)).await
    };
    let client = client_builder([&server]).random(move || draws.draw(u64::MAX)).build().unwrap();
    let builder = client.producer("t").linger(Duration::ZERO).batch_bytes(400).request_bytes(1_500);
    let producer = builder.delivery_timeout(Duration::from_secs(20)).build().await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..600 {
        let record = Record::new(value(number)).with_key((number % KEYS).to_string());
        deliveries.push(in_time(producer.send(record)).await.unwrap());
        tokio::task::yield_now().await;
        if grows && number == 300 {
            log.change(|state| state.partitions.extend([Default::default(), Default::default()]));
        }
    }
    in_time(producer.close()).await;
    let mut places = Vec::new();
    for delivery in deliveries {
        places.push(match in_time(delivery).await {
            Ok(place) => Some(place),
            Err(error) => {
                assert_eq!(error.side_effects(), SideEffects::None, "seed {seed}: {error:?}");
                None
            }
        });
    }
    // What is still under way changes nothing.
    let mut late = std::mem::take(&mut *late.lock().unwrap());
    while let Some(done) = in_time(late.join_next()).await {
        done.unwrap();
    }
    (log, places)
}

const KEYS: usize = 17;

fn value(number: usize) -> String {
    format!("{number:05}")
}

#[tokio::test]
async fn whatever_is_lost_refused_late_or_out_of_order_each_record_is_stored_once_and_in_order() {
    for seed in 0..6 {
        let (log, places) = send_through_bad_server(seed, false).await;
        let mut stored = vec![Vec::new(); 3];
        for (number, place) in places.into_iter().enumerate() {
            let Some(place) = place else { continue };
            let values = &mut stored[place.partition.0 as usize];
            assert_eq!(place.offset, Offset(values.len() as u64), "seed {seed}, {number}");
            values.push(value(number));
        }
        for (partition, values) in stored.into_iter().enumerate() {
            assert_eq!(log.values(partition), values, "seed {seed}, partition {partition}");
        }
    }
}

/// Records that wait are routed again when the topic grows, and then come behind what other keys have stored in their new
/// partition: only the order of each key holds.
#[tokio::test]
async fn a_topic_that_grows_meanwhile_keeps_each_record_once_and_each_key_in_order() {
    for seed in 0..6 {
        let (log, places) = send_through_bad_server(seed, true).await;
        let mut stored = vec![BTreeMap::new(); 5];
        let mut of_keys = BTreeMap::new();
        for (number, place) in places.into_iter().enumerate() {
            let Some(RecordMetadata { partition, offset, .. }) = place else { continue };
            let before = of_keys.insert((number % KEYS, partition), offset);
            assert!(before < Some(offset), "seed {seed}: {number} stands before an earlier one of its key");
            stored[partition.0 as usize].insert(offset, value(number));
        }
        for (partition, values) in stored.into_iter().enumerate() {
            let dense = (0..).map(Offset).take(values.len());
            assert!(values.keys().copied().eq(dense), "seed {seed}, partition {partition}: {values:?}");
            let in_order: Vec<String> = values.into_values().collect();
            assert_eq!(log.values(partition), in_order, "seed {seed}, partition {partition}");
        }
    }
}
