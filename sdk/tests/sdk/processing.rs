//! Read, process, write: every record results in its outputs exactly once, whatever is lost and whoever dies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carnax::{ConsumedRecord, ErrorCode, GroupConsumer, OffsetReset, ProcessError, Record};
use carnax_core::http::read_envelope;
use http::Method;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::coordinator::Coordinator;
use crate::server::{Reply, Seen, Server, client_builder, in_time};

const PARTITIONS: u32 = 4;
const RECORDS: u64 = 300;

async fn member(server: &Server, name: &str) -> GroupConsumer {
    let client = client_builder([server]).operation_timeout(Duration::from_millis(300)).build().unwrap();
    let group = client.group("g").topics(["flights"]).member(name).offset_reset(OffsetReset::Earliest);
    in_time(group.fetch_wait(Duration::ZERO).build()).await.unwrap()
}

/// One output a record: where it was read. No output for every seventh.
fn copies(records: Vec<ConsumedRecord>) -> Vec<(&'static str, Record)> {
    let wanted = records.into_iter().filter(|record| record.offset.0 % 7 != 6);
    let output = |record: ConsumedRecord| {
        let value = format!("{}/{}", record.partition, record.offset);
        ("copies", Record::new(value).with_key(record.partition.to_string()))
    };
    wanted.map(output).collect()
}

/// Checks that the outputs are what they should be, in order for each input partition.
fn check(coordinator: &Coordinator) {
    let mut outputs: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for value in (0..2).flat_map(|partition| coordinator.log("copies").values(partition)) {
        let (partition, offset) = value.split_once('/').unwrap();
        outputs.entry(partition.parse().unwrap()).or_default().push(offset.parse().unwrap());
    }
    let expected: Vec<u64> = (0..RECORDS).filter(|offset| offset % 7 != 6).collect();
    for partition in 0..PARTITIONS {
        assert_eq!(outputs.get(&partition), Some(&expected), "partition {partition}");
        assert_eq!(coordinator.committed("flights", partition), Some(RECORDS));
    }
}

fn filled() -> Coordinator {
    let coordinator = Coordinator::new(&[("flights", PARTITIONS as usize), ("copies", 2)]);
    (0..PARTITIONS).for_each(|partition| coordinator.fill("flights", partition, RECORDS));
    coordinator
}

fn done(coordinator: &Coordinator) -> bool {
    (0..PARTITIONS).all(|partition| coordinator.committed("flights", partition) == Some(RECORDS))
}

/// What a stormy network does with a request.
#[derive(Clone, Copy)]
enum Weather {
    Fair,
    /// It never arrives.
    Lost,
    /// It is done, and nobody hears of it.
    Unheard,
    /// It is done only later, when nobody waits for it any more.
    Late,
}

/// A small generator: the same weather in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Loses and delays what moves offsets; other requests fail now and then.
async fn storm(coordinator: &Coordinator, seed: u64) -> Server {
    let coordinator = coordinator.clone();
    let random = Arc::new(Mutex::new(Random(seed)));
    let late: Arc<Mutex<Vec<Seen>>> = Arc::default();
    Server::start(move |seen: Seen| {
        let moves = seen.method == Method::POST && !seen.path.contains("/members");
        let mut random = random.lock().unwrap();
        let weather = match (moves, random.below(10)) {
            (true, 0) => Weather::Lost,
            (true, 1 | 2) => Weather::Unheard,
            (true, 3) => Weather::Late,
            (false, 0) => Weather::Lost,
            _ => Weather::Fair,
        };
        let mut late = late.lock().unwrap();
        if random.below(3) == 0 {
            late.drain(..).for_each(|seen| drop(coordinator.serve(&seen)));
        }
        let reply = match weather {
            Weather::Fair => coordinator.serve(&seen),
            Weather::Lost => Reply::problem(ErrorCode::Unavailable, |_| {}),
            Weather::Unheard => {
                coordinator.serve(&seen);
                Reply::problem(ErrorCode::OutcomeUnknown, |_| {})
            }
            Weather::Late => {
                late.push(seen);
                Reply::problem(ErrorCode::OutcomeUnknown, |_| {})
            }
        };
        std::future::ready(reply)
    })
    .await
}

/// A living member: dropping its sender stops it, aborting it kills it.
struct Life {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Batches of `max` records: 300 and more may hold several partitions.
async fn live(server: &Server, name: &str, max: usize) -> Life {
    let mut group = member(server, name).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let mut stopped = Box::pin(async move { drop(stopped.await) });
        loop {
            let handler = async |records: Vec<ConsumedRecord>| {
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(copies(records))
            };
            match group.process(max, &mut stopped, handler).await {
                Ok(()) => break,
                Err(error) => assert!(error.retryable(), "{error:?}"),
            }
        }
        // The storm may take the farewell, too: then the session would expire.
        let _ = group.close().await;
    });
    Life { stop, task }
}

#[tokio::test]
async fn every_output_is_there_once_in_any_weather_whoever_dies() {
    for seed in 1..=4_u64 {
        let coordinator = filled();
        let server = storm(&coordinator, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)).await;
        let mut random = Random(seed);
        let mut lives = BTreeMap::new();
        let story = async {
            while !done(&coordinator) {
                let name = ["a", "b", "c"][usize::try_from(random.below(3)).unwrap()];
                match (lives.remove(name), random.below(4)) {
                    (None, _) => drop(
                        lives.insert(name, live(&server, name, if name == "a" { 25 } else { 400 }).await),
                    ),
                    (Some(Life { task, .. }), 0) => task.abort(),
                    (Some(Life { stop, task }), 1) => {
                        drop(stop);
                        task.await.unwrap();
                        coordinator.expel(name);
                    }
                    (Some(life), 2) => {
                        lives.insert(name, life);
                        coordinator.expel(name);
                    }
                    (Some(life), _) => drop(lives.insert(name, life)),
                }
                let seen = server.seen_count();
                while !lives.is_empty() && server.seen_count() < seen + 30 && !done(&coordinator) {
                    tokio::task::yield_now().await;
                }
            }
        };
        in_time(story).await;
        lives.into_values().for_each(|life| life.task.abort());
        check(&coordinator);
    }
}

#[tokio::test]
async fn an_offset_that_stands_where_a_batch_would_move_it_does_not_prove_that_the_batch_is_done() {
    let coordinator = filled();
    let written = Arc::new(AtomicBool::new(false));
    let server = {
        let coordinator = coordinator.clone();
        let written = Arc::clone(&written);
        Server::start(move |seen: Seen| {
            let envelope = (seen.path == "/v1/append").then(|| read_envelope(seen.body.clone()).unwrap());
            let moves = envelope.map(|(head, _)| head.group.unwrap().offsets).unwrap_or_default();
            if moves.len() > 1 && !written.swap(true, Ordering::SeqCst) {
                // Something of an earlier life arrives right before: with a part of the same records.
                let moved = moves[0].clone();
                let value = |offset: u64| format!("{}/{offset}", moved.partition);
                let from = moved.from.map_or(0, |from| from.0);
                let earlier = (from..moved.to.0).filter(|offset| offset % 7 != 6).map(value);
                coordinator.write_early("copies", &moved, earlier);
            }
            std::future::ready(coordinator.serve(&seen))
        })
        .await
    };
    let life = live(&server, "a", 1_000).await;
    in_time(async {
        while !done(&coordinator) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(life.stop);
    in_time(life.task).await.unwrap();
    check(&coordinator);
    assert!(written.load(Ordering::SeqCst) && coordinator.change(|state| state.members.is_empty()));
}

#[tokio::test]
async fn errors_of_the_handler_and_of_the_outputs_end_it_and_nothing_is_skipped() {
    let coordinator = filled();
    let server = {
        let coordinator = coordinator.clone();
        Server::start(move |seen| std::future::ready(coordinator.serve(&seen))).await
    };
    let mut group = member(&server, "a").await;
    let never = || Box::pin(std::future::pending::<()>());
    let mut calls = 0;
    let failing = async |records: Vec<ConsumedRecord>| {
        calls += 1;
        if calls < 3 { Ok(copies(records)) } else { Err(std::io::Error::other("no more")) }
    };
    let error = in_time(group.process(10, never(), failing)).await.unwrap_err();
    assert!(matches!(&error, ProcessError::Handler(source) if source.to_string() == "no more"), "{error:?}");
    let nowhere = async |_: Vec<ConsumedRecord>| Ok::<_, std::io::Error>([("nowhere", Record::new("x"))]);
    let error = in_time(group.process(10, never(), nowhere)).await.unwrap_err();
    assert!(
        matches!(&error, ProcessError::Append(source) if source.is(ErrorCode::TopicNotFound)),
        "{error:?}"
    );
    // An output that fits into no append for many records, and does for few: the batch is split.
    let large = vec![b'x'; 24 << 20];
    let big = async |records: Vec<ConsumedRecord>| {
        let mut outputs = copies(records);
        let count = outputs.len();
        if let Some((_, record)) = outputs.first_mut().filter(|_| count > 12) {
            *record = record.clone().with_header("padding", large.clone());
        }
        Ok::<_, std::io::Error>(outputs)
    };
    let watch = async {
        while !done(&coordinator) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        result = group.process(100, never(), big) => panic!("{result:?}"),
        () = in_time(watch) => {}
    }
    check(&coordinator);
}
