//! Members of a group: what they are given, what they let go of and when, and what they commit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carnax::{
    ConsumedRecord, ErrorCode, GroupBuilder, GroupConsumer, GroupError, GroupPartition, Offset, OffsetReset,
    PartitionIndex, RebalanceListener, Start, Timestamp,
};
use futures::future::BoxFuture;
use http::Method;

use crate::coordinator::Coordinator;
use crate::server::{Reply, Seen, Server, client, in_time};

const SOON: Duration = Duration::from_millis(50);

async fn serve(coordinator: &Coordinator) -> Server {
    let coordinator = coordinator.clone();
    Server::start(move |seen| std::future::ready(coordinator.serve(&seen))).await
}

fn member(server: &Server, name: &str) -> GroupBuilder {
    client(server)
        .group("g")
        .topics(["flights"])
        .member(name)
        .offset_reset(OffsetReset::Earliest)
        .fetch_wait(Duration::ZERO)
}

fn place(partition: u32) -> GroupPartition {
    GroupPartition::new("flights", PartitionIndex(partition)).unwrap()
}

fn places(consumer: &GroupConsumer) -> Vec<u32> {
    consumer.assignment().iter().map(|place| place.partition.0).collect()
}

/// Polls until a condition holds; gives what came meanwhile.
async fn poll_until(
    consumer: &mut GroupConsumer,
    condition: impl Fn(&GroupConsumer, &[ConsumedRecord]) -> bool,
) -> Vec<ConsumedRecord> {
    let mut records = Vec::new();
    in_time(async {
        while !condition(consumer, &records) {
            records.extend(consumer.poll(7, SOON).await.unwrap());
        }
    })
    .await;
    records
}

fn offsets(records: &[ConsumedRecord]) -> BTreeMap<u32, Vec<u64>> {
    let mut offsets: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for record in records {
        offsets.entry(record.partition.0).or_default().push(record.offset.0);
    }
    offsets
}

/// Keeps what it is told, and what was committed at that moment.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn note(&self, what: &str, partitions: &[GroupPartition]) -> BoxFuture<'static, ()> {
        let partitions: Vec<_> = partitions.iter().map(|place| place.partition.to_string()).collect();
        self.0.lock().unwrap().push(format!("{what} {}", partitions.join(" ")));
        Box::pin(std::future::ready(()))
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl RebalanceListener for Told {
    fn on_assigned<'a>(
        &'a mut self,
        _: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        self.note("assigned", partitions)
    }

    fn on_revoked<'a>(
        &'a mut self,
        consumer: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            consumer.commit().await.unwrap();
            self.note("revoked", partitions).await;
        })
    }

    fn on_lost<'a>(
        &'a mut self,
        consumer: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            assert!(partitions.iter().all(|place| consumer.position(place).is_none()));
            self.note("lost", partitions).await;
        })
    }
}

#[tokio::test]
async fn a_partition_is_handed_over_when_its_caller_is_done_and_nothing_is_read_twice() {
    let coordinator = Coordinator::new(&[("flights", 4)]);
    (0..4).for_each(|partition| coordinator.fill("flights", partition, 100));
    let server = serve(&coordinator).await;
    let told = Told::default();
    let mut first = in_time(member(&server, "a").listener(told.clone()).build()).await.unwrap();
    let mut read = poll_until(&mut first, |_, records| records.len() >= 30).await;
    assert_eq!(told.take(), ["assigned 0 1 2 3"]);
    let mut second = in_time(member(&server, "b").build()).await.unwrap();
    // The first one is not done with its batch: whatever is said meanwhile, the other one gets nothing.
    let heard = || server.seen().iter().filter(|seen| seen.path.ends_with("/heartbeat")).count();
    let before = heard();
    let early = poll_until(&mut second, |_, _| heard() > before + 6).await;
    assert!(early.is_empty() && second.assignment().is_empty());
    assert_eq!(coordinator.change(|state| state.members["a"].owned.len()), 4);
    // Its next poll lets go.
    read.extend(poll_until(&mut first, |first, _| places(first) == [0, 2]).await);
    assert_eq!(told.take(), ["revoked 1 3"]);
    read.extend(
        poll_until(&mut second, |second, records| records.len() >= 20 && places(second) == [1, 3]).await,
    );
    // The second one ends without a commit and is expelled: the first one gets its partitions, where they were handed over.
    let uncommitted = offsets(&read);
    drop(second);
    coordinator.expel("b");
    let all = |_: &GroupConsumer, records: &[ConsumedRecord]| {
        let lasts = records.iter().filter(|record| record.offset == Offset(99));
        lasts.map(|record| record.partition).collect::<std::collections::BTreeSet<_>>().len() == 4
    };
    let rest = poll_until(&mut first, all).await;
    for (partition, offsets) in offsets(&rest) {
        let from = match partition {
            0 | 2 => uncommitted.get(&partition).and_then(|seen| seen.last()).map_or(0, |last| last + 1),
            _ => coordinator.committed("flights", partition).unwrap_or(0),
        };
        assert_eq!(offsets, (from..100).collect::<Vec<_>>(), "partition {partition}");
    }
    in_time(first.commit()).await.unwrap();
    assert!((0..4).all(|partition| coordinator.committed("flights", partition) == Some(100)));
    in_time(first.close()).await.unwrap();
    assert!(coordinator.change(|state| state.members.is_empty()));
}

#[tokio::test]
async fn an_expelled_member_loses_everything_and_begins_again_at_what_is_committed() {
    let coordinator = Coordinator::new(&[("flights", 1)]);
    coordinator.fill("flights", 0, 100);
    let server = serve(&coordinator).await;
    let told = Told::default();
    let mut consumer = in_time(member(&server, "a").listener(told.clone()).build()).await.unwrap();
    poll_until(&mut consumer, |_, records| records.len() >= 10).await;
    in_time(consumer.commit()).await.unwrap();
    let committed = coordinator.committed("flights", 0).unwrap();
    poll_until(&mut consumer, |_, records| records.len() >= 20).await;
    coordinator.change(|state| state.session_ms = 60_000);
    coordinator.expel("a");
    let error = in_time(consumer.commit()).await.unwrap_err();
    assert!(matches!(error, GroupError::Lost), "{error:?}");
    assert_eq!(coordinator.committed("flights", 0), Some(committed));
    let again = poll_until(&mut consumer, |_, records| !records.is_empty()).await;
    assert_eq!(again[0].offset, Offset(committed));
    assert_eq!(told.take(), ["assigned 0", "lost 0", "assigned 0"]);
    assert_eq!(coordinator.change(|state| state.members["a"].epoch), 2);
}

#[tokio::test]
async fn a_member_that_hears_nothing_for_its_session_time_stops_by_its_own_clock() {
    static SILENT: AtomicBool = AtomicBool::new(false);
    let coordinator = Coordinator::new(&[("flights", 1)]);
    coordinator.fill("flights", 0, 1_000);
    let server = {
        let coordinator = coordinator.clone();
        Server::start(move |seen: Seen| {
            let of_member = seen.path.contains("/members");
            let silent = of_member && SILENT.load(Ordering::SeqCst);
            std::future::ready(if silent { Reply::HangUp } else { coordinator.serve(&seen) })
        })
        .await
    };
    let told = Told::default();
    let builder = member(&server, "a").session_timeout(Duration::from_secs(1)).listener(told.clone());
    let mut consumer = in_time(builder.build()).await.unwrap();
    poll_until(&mut consumer, |_, records| !records.is_empty()).await;
    in_time(consumer.commit()).await.unwrap();
    SILENT.store(true, Ordering::SeqCst);
    // Fetches are still answered, and the server has not expelled anybody: only the clock says it.
    poll_until(&mut consumer, |_, _| told.0.lock().unwrap().len() == 2).await;
    assert_eq!(told.take(), ["assigned 0", "lost 0"]);
    assert!(
        in_time(consumer.poll(10, SOON)).await.unwrap().is_empty(),
        "nothing is handed out after the loss"
    );
    assert!(consumer.assignment().is_empty());
    assert!(coordinator.change(|state| state.members["a"].owned.len() == 1));
    SILENT.store(false, Ordering::SeqCst);
    let again = poll_until(&mut consumer, |_, records| !records.is_empty()).await;
    assert_eq!(Some(again[0].offset.0), coordinator.committed("flights", 0));
}

#[tokio::test]
async fn offsets_are_committed_by_themselves_in_polls_before_hand_over_and_at_the_end() {
    let coordinator = Coordinator::new(&[("flights", 2)]);
    (0..2).for_each(|partition| coordinator.fill("flights", partition, 50));
    let server = serve(&coordinator).await;
    let mut first =
        in_time(member(&server, "a").auto_commit(Duration::from_millis(1)).build()).await.unwrap();
    poll_until(&mut first, |_, _| coordinator.committed("flights", 0).is_some()).await;
    // Never again by time: what comes now is committed by the hand-over alone.
    let patient = || member(&server, "b").auto_commit(Duration::from_secs(3_600));
    in_time(first.close()).await.unwrap();
    (0..2).for_each(|partition| coordinator.fill("flights", partition, 50));
    let (mut read, mut second) = (Vec::new(), in_time(patient().build()).await.unwrap());
    read.extend(poll_until(&mut second, |_, records| records.len() >= 14).await);
    let third = in_time(member(&server, "c").build()).await.unwrap();
    read.extend(poll_until(&mut second, |second, _| places(second) == [0]).await);
    let position = offsets(&read).get(&1).and_then(|seen| seen.last()).map(|last| last + 1);
    if let Some(position) = position {
        assert_eq!(coordinator.committed("flights", 1), Some(position), "handed over where it was");
    }
    drop(third);
    read.extend(poll_until(&mut second, |second, _| second.position(&place(0)) == Some(Offset(100))).await);
    in_time(second.close()).await.unwrap();
    assert_eq!(coordinator.committed("flights", 0), Some(100), "closing commits");
}

#[tokio::test]
async fn commits_go_one_behind_the_other_with_numbers_and_metadata() {
    static HOLD: AtomicBool = AtomicBool::new(false);
    let coordinator = Coordinator::new(&[("flights", 1)]);
    coordinator.fill("flights", 0, 100);
    let server = {
        let coordinator = coordinator.clone();
        Server::start(move |seen: Seen| {
            let coordinator = coordinator.clone();
            async move {
                let commit = seen.method == Method::POST && seen.path.ends_with("/offsets");
                // The first attempt of a commit is done, and its answer is lost.
                let reply = coordinator.serve(&seen);
                if commit && HOLD.swap(false, Ordering::SeqCst) { Reply::HangUp } else { reply }
            }
        })
        .await
    };
    let mut consumer = in_time(member(&server, "a").build()).await.unwrap();
    HOLD.store(true, Ordering::SeqCst);
    let mut pending = Vec::new();
    for _ in 0..5 {
        poll_until(&mut consumer, |_, records| !records.is_empty()).await;
        pending.push(consumer.commit_async());
    }
    for commit in pending {
        in_time(commit).await.unwrap();
    }
    let position = consumer.position(&place(0)).unwrap();
    assert_eq!(coordinator.committed("flights", 0), Some(position.0));
    let chosen = [(place(0), Offset(3), "by hand".to_owned())];
    in_time(consumer.commit_offsets(chosen)).await.unwrap();
    let known = in_time(consumer.committed(&[place(0)])).await.unwrap();
    assert_eq!(known[&place(0)], (Offset(3), "by hand".to_owned()));
    let elsewhere = in_time(consumer.commit_offsets([(place(7), Offset(3), String::new())])).await;
    assert!(matches!(elsewhere, Err(GroupError::NotAssigned { .. })), "{elsewhere:?}");
    let numbers: Vec<u64> = server
        .seen_with(&Method::POST)
        .iter()
        .filter(|seen| seen.path.ends_with("/offsets"))
        .map(|seen| {
            serde_json::from_slice::<serde_json::Value>(&seen.body).unwrap()["number"].as_u64().unwrap()
        })
        .collect();
    assert!(numbers.is_sorted() && numbers[0] == numbers[1], "a repeat keeps its number: {numbers:?}");
}

#[tokio::test]
async fn a_partition_can_be_paused_sought_and_looked_into() {
    let coordinator = Coordinator::new(&[("flights", 2)]);
    (0..2).for_each(|partition| coordinator.fill("flights", partition, 50));
    let server = serve(&coordinator).await;
    let builder = member(&server, "a").offset_reset(OffsetReset::Error);
    let mut consumer = in_time(builder.build()).await.unwrap();
    let mut undecided = Vec::new();
    in_time(async {
        while undecided.len() < 2 {
            match consumer.poll(10, SOON).await {
                Err(GroupError::NoOffset { partition }) => undecided.push(partition),
                other => assert!(other.unwrap().is_empty()),
            }
        }
    })
    .await;
    assert_eq!(undecided, [place(0), place(1)], "each is told once");
    in_time(consumer.seek(&place(0), Start::Earliest)).await.unwrap();
    in_time(consumer.seek(&place(1), Start::Timestamp(Timestamp::from_millis(20)))).await.unwrap();
    consumer.pause(&[place(0)]);
    let read = poll_until(&mut consumer, |_, records| records.len() == 30).await;
    assert_eq!(offsets(&read), BTreeMap::from([(1, (20..50).collect())]));
    assert_eq!((consumer.paused(), consumer.position(&place(0))), (vec![place(0)], Some(Offset(0))));
    consumer.resume(&[place(0)]);
    let read = poll_until(&mut consumer, |_, records| records.len() == 50).await;
    assert_eq!(offsets(&read), BTreeMap::from([(0, (0..50).collect())]));
    in_time(consumer.seek(&place(0), Start::Last(5))).await.unwrap();
    let read = poll_until(&mut consumer, |_, records| records.len() == 5).await;
    assert_eq!(offsets(&read), BTreeMap::from([(0, (45..50).collect())]));
    assert_eq!(consumer.lag(), BTreeMap::from([(place(0), 0), (place(1), 0)]));
    let times = [(place(0), Timestamp::from_millis(7)), (place(1), Timestamp::from_millis(70))];
    let found = in_time(consumer.offsets_for_times(times)).await.unwrap();
    assert_eq!((found[&place(0)].offset, found[&place(1)].offset), (Offset(7), Offset(50)));
    assert!(in_time(consumer.seek(&place(9), Start::Latest)).await.is_err());
}

#[tokio::test]
async fn a_topic_that_is_deleted_goes_quietly_and_others_are_read_on() {
    let coordinator = Coordinator::new(&[("flights", 1), ("gone", 1)]);
    ["flights", "gone"].iter().for_each(|topic| coordinator.fill(topic, 0, 10));
    let server = serve(&coordinator).await;
    let mut consumer = in_time(member(&server, "a").topics(["gone"]).build()).await.unwrap();
    poll_until(&mut consumer, |_, records| records.len() == 20).await;
    coordinator.change(|state| {
        state.topics.remove("gone");
        state.rebalance();
    });
    coordinator.fill("flights", 0, 10);
    poll_until(&mut consumer, |consumer, records| records.len() == 10 && places(consumer) == [0]).await;
    in_time(consumer.commit()).await.unwrap();
    assert_eq!(coordinator.committed("flights", 0), Some(20));
}

#[tokio::test]
async fn what_the_group_objects_to_is_told_by_poll_and_a_replaced_member_stops() {
    static OBJECT: AtomicBool = AtomicBool::new(true);
    let coordinator = Coordinator::new(&[("flights", 1)]);
    coordinator.fill("flights", 0, 10);
    let server = {
        let coordinator = coordinator.clone();
        Server::start(move |seen: Seen| {
            let joins = seen.path.ends_with("/members");
            let object = joins && OBJECT.load(Ordering::SeqCst);
            let reply =
                if object { Reply::problem(ErrorCode::Conflict, |_| {}) } else { coordinator.serve(&seen) };
            std::future::ready(reply)
        })
        .await
    };
    let mut old = in_time(member(&server, "a").build()).await.unwrap();
    let until_error = async |consumer: &mut GroupConsumer| loop {
        match consumer.poll(10, SOON).await {
            Ok(_) => {}
            Err(GroupError::Join(error)) => return error,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(in_time(until_error(&mut old)).await.is(ErrorCode::Conflict));
    OBJECT.store(false, Ordering::SeqCst);
    poll_until(&mut old, |_, records| records.len() == 10).await;
    let mut new = in_time(member(&server, "a").build()).await.unwrap();
    poll_until(&mut new, |_, records| records.len() == 10).await;
    let error = in_time(until_error(&mut old)).await;
    assert!(error.is(ErrorCode::Fenced), "{error:?}");
    assert!(old.assignment().is_empty() && places(&new) == [0]);
    in_time(new.commit()).await.unwrap();
    let nothing = client(&server).group("g").build();
    assert!(in_time(nothing).await.is_err(), "a member reads something");
}
