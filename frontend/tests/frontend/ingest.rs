//! Goal: each message of a queue becomes one record, in the order of its group, however often and in whatever batches it is
//! delivered; what cannot become one goes back with what stands behind it in its group, and nothing else does. Method: an
//! embedded frontend takes batches, a serving one over the same cluster reads what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carnax_frontend::ingest::{Ingest, IngestMessage};
use carnax_frontend::{Components, Settings};
use carnax_object_store::{Fault, FaultStore, MemoryStore, ObjectStore, Verb};
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_queue::{MemoryQueue, MemoryQueues, MessageQueue, Receive};

use super::fake_metadata::{CommitFault, FakeMetadata};
use super::support::{Frontend, start};

pub const FIFO: &str = "arn:aws:sqs:eu:1:flights.fifo";
const STANDARD: &str = "arn:aws:sqs:eu:1:flights";
const WATCHED: &str = "arn:aws:sqs:eu:1:watched.fifo";
const DEAD: &str = "https://queues.invalid/1/dead.fifo";
const GROUPS: [&str; 3] = ["AA", "UA", "DL"];
/// Longer than an upload may take.
const STUCK: Duration = Duration::from_secs(3_600);
/// Above 2⁶⁴, as those of SQS may be.
const FIRST_SEQUENCE: u128 = 18_850_000_000_000_000_000_000;

/// Takes messages without a port of its own.
pub struct Taker {
    pub ingest: Ingest,
    dead: Arc<MemoryQueue>,
    _frontend: carnax_frontend::Frontend,
}

fn taker(metadata: &FakeMetadata, store: &Arc<FaultStore<MemoryStore>>) -> Taker {
    let mut settings = Settings::new(vec![metadata.address.clone()], "memory://test".parse().unwrap());
    settings.append.linger = Duration::ZERO;
    settings.append.upload_deadline = Duration::from_millis(800);
    settings.calls.try_timeout = Duration::from_millis(200);
    settings.calls.deadline = Duration::from_secs(1);
    settings.append.commit_deadline = Duration::from_secs(1);
    let dead = Arc::new(MemoryQueue::new("dead.fifo", Arc::new(SystemClock::new())).unwrap());
    let components = Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store: Arc::clone(store) as Arc<_>,
        queues: Arc::new(MemoryQueues::default().with(DEAD, Arc::clone(&dead))),
    };
    let frontend = carnax_frontend::Frontend::new(&settings, components, "ingest").unwrap();
    let rules = format!(
        r#"[{{"queue": "{FIFO}", "topic": "t"}}, {{"queue": "{STANDARD}", "topic": "s", "key": "json:/carrier"}},
            {{"queue": "{WATCHED}", "topic": "t", "dead_letters": "{DEAD}"}}]"#
    );
    Taker { ingest: frontend.ingest(rules.parse().unwrap()), dead, _frontend: frontend }
}

pub async fn with_topics(partitions: u32) -> (Frontend, Taker) {
    let frontend = start().await;
    frontend.create("t", partitions).await;
    frontend.create("s", partitions).await;
    let taker = taker(&frontend.metadata, &frontend.store);
    (frontend, taker)
}

/// Message `number` of a FIFO queue, of which every third is of the same group.
fn fifo(number: usize) -> IngestMessage {
    of_fifo(number, &format!("{number}"))
}

fn of_fifo(number: usize, body: &str) -> IngestMessage {
    let system = [
        ("MessageGroupId", GROUPS[number % 3].to_owned()),
        ("SequenceNumber", (FIRST_SEQUENCE + number as u128 * 256).to_string()),
        ("SentTimestamp", "1700000000000".to_owned()),
    ];
    message(FIFO, number, body, &system)
}

fn standard(number: usize, body: &str) -> IngestMessage {
    message(STANDARD, number, body, &[("SentTimestamp", "1700000000000".to_owned())])
}

fn message(queue: &str, number: usize, body: &str, system: &[(&str, String)]) -> IngestMessage {
    let system = system.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let attributes = BTreeMap::from([("source".to_owned(), "tower".to_owned())]);
    IngestMessage::new(format!("m-{number}"), queue.to_owned(), body.to_owned(), attributes, &system).unwrap()
}

/// The ids that go back.
async fn take(taker: &Taker, messages: Vec<IngestMessage>) -> BTreeSet<String> {
    taker.ingest.take(messages).await.into_iter().map(|failed| failed.id).collect()
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
    numbers.into_iter().map(|number| format!("m-{number}")).collect()
}

/// All values of a topic by key, each key's in the order of its partition.
async fn by_key(frontend: &Frontend, topic: &str, partitions: u32) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in 0..partitions {
        let path = format!("/v1/topics/{topic}/partitions/{partition}/records?offset=0&max_records=10000");
        for record in frontend.get(&path).await.json()["records"].as_array().unwrap() {
            assert_eq!(record["headers"], serde_json::json!([["source", "tower"]]));
            assert_eq!(record["timestamp"], 1_700_000_000_000_i64);
            let text = |field: &str| record[field].as_str().unwrap().to_owned();
            values.entry(text("key")).or_default().push(text("value"));
        }
    }
    values
}

fn expected(count: usize) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for number in 0..count {
        values.entry(GROUPS[number % 3].to_owned()).or_default().push(format!("{number}"));
    }
    values
}

#[tokio::test]
async fn messages_of_a_fifo_queue_are_applied_once_in_the_order_of_their_groups_in_whatever_batches_they_come()
 {
    let (frontend, taker) = with_topics(2).await;
    let objects = || async { frontend.store.list("1/", "", 1_000).await.unwrap().objects.len() };
    let before = objects().await;
    assert_eq!(take(&taker, (0..10).map(fifo).collect()).await, ids([]));
    assert_eq!(objects().await, before + 1, "one batch, one segment");
    for batch in [0..10, 5..40, 30..35, 40..200, 0..200] {
        assert_eq!(take(&taker, batch.map(fifo).collect()).await, ids([]));
    }
    // The same ones again through another frontend, twice in one batch.
    let other = self::taker(&frontend.metadata, &frontend.store);
    assert_eq!(take(&other, (190..210).chain(190..210).map(fifo).collect()).await, ids([]));
    assert_eq!(by_key(&frontend, "t", 2).await, expected(210));
}

#[tokio::test]
async fn more_messages_than_a_segment_takes_keep_their_order() {
    let (frontend, taker) = with_topics(3).await;
    assert_eq!(take(&taker, (0..3_000).map(fifo).collect()).await, ids([]));
    assert_eq!(by_key(&frontend, "t", 3).await, expected(3_000));
}

/// The way in which a message would be lost: it fails, one behind it is taken, and then it seems to be a repeat.
#[tokio::test]
async fn nothing_overtakes_a_message_that_failed_though_the_topic_changes_meanwhile() {
    let (frontend, taker) = with_topics(1).await;
    let limit = |bytes: u32| format!("{{\"config\":{{\"max.message.bytes\":\"{bytes}\"}}}}");
    assert_eq!(frontend.call("PATCH", "/v1/topics/t", &[], limit(1_024)).await.status, 200);
    assert_eq!(take(&taker, vec![fifo(0)]).await, ids([]), "the topic is known now, with its small limit");
    assert_eq!(frontend.call("PATCH", "/v1/topics/t", &[], limit(100_000)).await.status, 200);

    // The first fails for good; the second does not fit what is remembered of the topic, and fits the topic.
    let large = "y".repeat(5_000);
    let batch = || vec![fifo(3), of_fifo(6, &large), fifo(9)];
    frontend.store.script(Verb::PutIfAbsent, [Fault::delay(STUCK)]);
    let back = take(&taker, batch()).await;
    assert_eq!(
        take(&taker, batch().into_iter().filter(|message| back.contains(&message.id)).collect()).await,
        ids([])
    );
    let values = by_key(&frontend, "t", 1).await;
    assert_eq!(values[GROUPS[0]], ["0", "3", &large, "9"]);
}

#[tokio::test]
async fn messages_for_a_topic_that_is_not_there_go_back_and_say_which_and_wait_for_it() {
    let frontend = start().await;
    let taker = taker(&frontend.metadata, &frontend.store);
    let batch = || (0..4).map(fifo).collect::<Vec<_>>();
    let failed = taker.ingest.take(batch()).await;
    assert_eq!(failed.len(), 4);
    let missed = &failed[0].problem;
    assert_eq!((missed.code.as_str(), missed.facts.topic.as_deref()), ("topic_not_found", Some("t")));
    frontend.create("t", 1).await;
    assert_eq!(take(&taker, batch()).await, ids([]));
    assert_eq!(by_key(&frontend, "t", 1).await, expected(4));
}

#[tokio::test]
async fn a_group_that_takes_several_segments_stops_at_the_one_that_failed() {
    let (frontend, taker) = with_topics(1).await;
    let of_one_group = || (0..2_500).map(|number| fifo(number * 3)).collect::<Vec<_>>();
    // The first segment gets through, the second does not.
    frontend.store.script(Verb::PutIfAbsent, [Fault::default(), Fault::delay(STUCK)]);
    let back = take(&taker, of_one_group()).await;
    let taken = of_one_group().into_iter().take_while(|message| !back.contains(&message.id)).count();
    assert!(
        taken > 0 && taken + back.len() == 2_500,
        "{taken} taken, {} back: one before the other",
        back.len()
    );
    let again = of_one_group().into_iter().filter(|message| back.contains(&message.id)).collect();
    assert_eq!(take(&taker, again).await, ids([]));
    let expected: Vec<_> = (0..2_500).map(|number| (number * 3).to_string()).collect();
    assert_eq!(by_key(&frontend, "t", 1).await[GROUPS[0]], expected);
}

#[tokio::test]
async fn a_poison_message_goes_back_with_what_stands_behind_it_in_its_group_alone() {
    let (frontend, taker) = with_topics(2).await;
    let too_large = "x".repeat(2 << 20);
    let batch = |poisoned: bool| {
        let body =
            |number: usize| if number == 7 && poisoned { too_large.clone() } else { number.to_string() };
        (0..20).map(|number| of_fifo(number, &body(number))).collect::<Vec<_>>()
    };
    let behind = ids([7, 10, 13, 16, 19]);
    assert_eq!(take(&taker, batch(true)).await, behind);
    assert_eq!(take(&taker, batch(true)).await, behind, "it stays so until the message is gone");

    // Somebody has put it aside: the rest of the group goes on.
    let without: Vec<_> = (0..20).filter(|number| *number != 7).map(fifo).collect();
    assert_eq!(take(&taker, without).await, ids([]));
    let mut all = expected(20);
    all.get_mut(GROUPS[1]).unwrap().retain(|value| value != "7");
    assert_eq!(by_key(&frontend, "t", 2).await, all);
}

#[tokio::test]
async fn a_poison_message_goes_to_the_dead_letters_where_there_are_any_and_its_group_goes_on() {
    let (frontend, taker) = with_topics(2).await;
    let too_large = "x".repeat(2 << 20);
    let limit = "{\"config\":{\"max.message.bytes\":\"1024\"}}";
    assert_eq!(frontend.call("PATCH", "/v1/topics/t", &[], limit).await.status, 200);
    let poison = |number: usize| number == 4 || number == 7;
    let of_watched = |number: usize| {
        let body = if poison(number) { too_large[..5_000].to_owned() } else { number.to_string() };
        IngestMessage { queue: WATCHED.to_owned(), ..of_fifo(number, &body) }
    };
    for batch in [0..12, 3..20] {
        assert_eq!(take(&taker, batch.map(of_watched).collect()).await, ids([]));
    }
    let mut all = expected(20);
    all.get_mut(GROUPS[1]).unwrap().retain(|value| !poison(value.parse().unwrap()));
    assert_eq!(by_key(&frontend, "t", 2).await, all);

    let request = Receive { messages_max: 10, wait: Duration::ZERO, visibility: Duration::from_secs(60) };
    let dead = taker.dead.receive(request).await.unwrap();
    let codes: Vec<_> = dead.iter().map(|letter| letter.attributes["carnax-code"].as_str()).collect();
    assert_eq!(codes, ["too_large", "too_large"], "each once, though it was delivered twice");
    assert!(
        dead.iter().all(|letter| letter.group.as_deref() == Some(GROUPS[1]) && letter.body.len() == 5_000)
    );

    // A queue for dead letters that does not take it: it goes back, as without one.
    let other = self::taker(&frontend.metadata, &frontend.store);
    let huge = IngestMessage { body: too_large.clone(), ..of_watched(22) };
    assert_eq!(take(&other, vec![of_watched(19), huge, of_watched(25)]).await, ids([22, 25]));
}

#[tokio::test]
async fn messages_of_a_standard_queue_are_applied_once_and_each_fails_alone() {
    let (frontend, taker) = with_topics(2).await;
    let bodies = [r#"{"carrier":"AA"}"#, "no json", r#"{"carrier":"UA"}"#, r#"{"carrier":null}"#];
    let batch: Vec<_> = bodies.iter().enumerate().map(|(number, body)| standard(number, body)).collect();
    for _ in 0..2 {
        let twice = batch.iter().cloned().chain(batch.iter().cloned()).collect();
        assert_eq!(take(&taker, twice).await, ids([1, 3]));
    }
    let nobodys = message("arn:aws:sqs:eu:1:other", 9, "x", &[("SentTimestamp", "1".to_owned())]);
    assert_eq!(take(&taker, vec![nobodys, standard(4, bodies[0])]).await, ids([9]));
    let values = by_key(&frontend, "s", 2).await;
    assert_eq!(values["AA"], [bodies[0], bodies[0]], "two messages, not one twice");
    assert_eq!((values["UA"].as_slice(), values.len()), ([bodies[2].to_owned()].as_slice(), 2));
}

#[tokio::test]
async fn what_the_core_did_not_take_or_did_not_answer_comes_again_and_is_applied_once() {
    let (frontend, taker) = with_topics(2).await;
    frontend.metadata.lose_quorum(true);
    assert_eq!(take(&taker, (0..10).map(fifo).collect()).await, ids(0..10));
    frontend.metadata.lose_quorum(false);

    // Committed, and nobody hears of it.
    frontend.metadata.script(vec![CommitFault::LoseReply; 20]);
    assert_eq!(take(&taker, (0..10).map(fifo).collect()).await, ids(0..10));
    frontend.metadata.unscript();
    assert_eq!(take(&taker, (5..20).map(fifo).collect()).await, ids([]));
    assert_eq!(take(&taker, (0..20).map(fifo).collect()).await, ids([]));
    let values = by_key(&frontend, "t", 2).await;
    assert_eq!(values, expected(20));
}

#[tokio::test]
async fn a_topic_that_grows_and_one_that_comes_late_are_found() {
    let frontend = start().await;
    let taker = taker(&frontend.metadata, &frontend.store);
    assert_eq!(take(&taker, (0..5).map(fifo).collect()).await, ids(0..5), "there is no topic yet");
    frontend.create("t", 1).await;
    assert_eq!(take(&taker, (0..5).map(fifo).collect()).await, ids([]));
    let grown = frontend.call("PATCH", "/v1/topics/t", &[], "{\"partitions\":4}").await;
    assert_eq!(grown.status, 200, "{grown:?}");
    assert_eq!(take(&taker, (5..50).map(fifo).collect()).await, ids([]));
    let mut values = by_key(&frontend, "t", 4).await;
    let in_order =
        |values: &Vec<String>| values.iter().map(|value| value.parse().unwrap()).collect::<Vec<u32>>();
    for (group, values) in &mut values {
        let mut sorted = in_order(values);
        sorted.sort_unstable();
        let all = expected(50);
        assert_eq!(sorted, in_order(&all[group]), "{group}: each once");
    }
}
