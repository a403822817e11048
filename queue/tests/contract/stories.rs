//! What every queue has to do.

use std::collections::BTreeMap;
use std::time::Duration;

use carnax_platform::clock::Clock;
use carnax_queue::{
    BATCH_BYTES_MAX, Call, Failure, MessageQueue, OutgoingMessage, QueueError, Receipt, Receive, Sent,
};

use crate::world::{DELIVERIES_MAX, World, bodies, in_group, plain, take};

const MINUTE: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);

async fn send(queue: &dyn MessageQueue, messages: &[OutgoingMessage]) -> Vec<Sent> {
    let results = queue.send(messages).await.expect("a batch within the limits");
    results.into_iter().map(|result| result.expect("a good message")).collect()
}

async fn delete(queue: &dyn MessageQueue, receipt: &Receipt) -> Result<(), Failure> {
    let results = queue.delete(std::slice::from_ref(receipt)).await.expect("a batch within the limits");
    only(results)
}

async fn extend(queue: &dyn MessageQueue, receipt: &Receipt, by: Duration) -> Result<(), Failure> {
    only(queue.extend(&[(receipt.clone(), by)]).await.expect("a batch within the limits"))
}

fn only(results: Vec<Result<(), QueueError>>) -> Result<(), Failure> {
    let [result] = <[_; 1]>::try_from(results).expect("one result for one entry");
    result.map_err(|error| error.failure)
}

pub(crate) async fn what_is_sent_is_received_until_it_is_deleted(world: &World) {
    let queue = &*world.standard;
    let begin = world.clock.wall();
    let text = "tab\t, line\r\n, quote\", \u{e9}, \u{1f980} and \u{fffd}";
    let mut rich = plain("b_2-", text);
    rich.attributes =
        BTreeMap::from([("kind".to_owned(), "a \"kind\"".to_owned()), ("x.y".to_owned(), "1".to_owned())]);
    let sent = send(queue, &[plain("a", "one"), rich.clone(), plain("c", "three")]).await;
    assert!(sent.iter().all(|sent| sent.sequence.is_none()), "a standard queue has no order: {sent:?}");

    world.clock.advance(SECOND);
    let taken = take(queue, MINUTE).await;
    assert_eq!(bodies(&taken), ["one", text, "three"]);
    for (message, sent) in taken.iter().zip(&sent) {
        assert_eq!((&message.id, message.receive_count, message.sent), (&sent.message_id, 1, begin));
        assert_eq!((&message.group, message.sequence), (&None, None));
    }
    assert_eq!(taken[1].attributes, rich.attributes);
    assert_eq!(taken[0].attributes, BTreeMap::new());
    assert_eq!(take(queue, MINUTE).await, [], "all are in flight");

    let mixed =
        queue.delete(&[taken[0].receipt.clone(), Receipt::new("nobody's"), taken[2].receipt.clone()]).await;
    let mixed = mixed.expect("a batch within the limits");
    assert!(mixed[0].is_ok() && mixed[2].is_ok(), "one bad receipt does not spoil the others: {mixed:?}");
    let bad = mixed[1].as_ref().expect_err("not a receipt of this queue");
    assert!(matches!(bad.failure, Failure::Invalid { .. }) && !bad.is_retryable(), "{bad:?}");
    assert_eq!((bad.call, bad.queue.as_str()), (Call::Delete, queue.name()));
    assert_eq!(delete(queue, &taken[0].receipt).await, Ok(()), "to delete again is a success");

    world.clock.advance(MINUTE);
    assert_eq!(bodies(&take(queue, MINUTE).await), [text], "only what was not deleted comes again");
}

pub(crate) async fn a_message_comes_again_when_its_visibility_time_is_over(world: &World) {
    let queue = &*world.standard;
    send(queue, &[plain("a", "one")]).await;
    let first = take(queue, Duration::from_millis(1_500)).await.remove(0);
    world.clock.advance(Duration::from_millis(1_999));
    assert_eq!(take(queue, MINUTE).await, [], "a fraction of a second counts as a whole one");
    world.clock.advance(Duration::from_millis(1));
    let second = take(queue, MINUTE).await.remove(0);
    assert_eq!((&second.id, &second.body, second.receive_count), (&first.id, &first.body, 2));
    assert_ne!(second.receipt, first.receipt);
    assert_eq!(extend(queue, &first.receipt, MINUTE).await, Err(Failure::NotInFlight), "it is another's now");
    assert_eq!(
        delete(queue, &first.receipt).await,
        Ok(()),
        "a standard queue does not say that it did nothing"
    );

    world.clock.advance(Duration::from_secs(59));
    assert_eq!(extend(queue, &second.receipt, MINUTE).await, Ok(()));
    world.clock.advance(Duration::from_secs(59));
    assert_eq!(take(queue, MINUTE).await, [], "the new time counts from when it was asked for");
    assert_eq!(extend(queue, &second.receipt, Duration::ZERO).await, Ok(()));
    assert_eq!(extend(queue, &second.receipt, MINUTE).await, Err(Failure::NotInFlight), "it was given back");
    let third = take(queue, MINUTE).await.remove(0);
    assert_eq!(third.receive_count, 3);
    assert_eq!(delete(queue, &third.receipt).await, Ok(()));
    assert_eq!(extend(queue, &third.receipt, MINUTE).await, Err(Failure::NotInFlight), "it is gone");
}

pub(crate) async fn a_group_is_delivered_in_order_to_one_receiver_at_a_time(world: &World) {
    let queue = &*world.fifo;
    let sent = send(queue, &[in_group("g", "g1"), in_group("g", "g2"), in_group("h", "h1")]).await;
    let sequences: Vec<u128> =
        sent.iter().map(|sent| sent.sequence.expect("a FIFO queue has an order")).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b) && sequences[0] > u128::from(u64::MAX), "{sequences:?}");

    let one = Receive { messages_max: 1, wait: Duration::ZERO, visibility: MINUTE };
    let g1 = queue.receive(one).await.expect("a receive").remove(0);
    assert_eq!((g1.body.as_str(), g1.group.as_deref(), g1.sequence), ("g1", Some("g"), Some(sequences[0])));
    let h1 = take(queue, 2 * MINUTE).await;
    assert_eq!(bodies(&h1), ["h1"], "g is locked, h is not");

    assert_eq!(delete(queue, &g1.receipt).await, Ok(()));
    let g2 = take(queue, MINUTE).await;
    assert_eq!(bodies(&g2), ["g2"], "g is free again");
    send(queue, &[in_group("g", "g3")]).await;
    world.clock.advance(MINUTE);
    assert_eq!(delete(queue, &g2[0].receipt).await, Err(Failure::NotInFlight), "it may be another's");
    let both = take(queue, MINUTE).await;
    assert_eq!(bodies(&both), ["g2", "g3"], "what comes again comes first");
    assert_eq!(extend(queue, &both[0].receipt, Duration::ZERO).await, Ok(()));
    assert_eq!(take(queue, MINUTE).await, [], "g3 is in flight still");
    assert_eq!(extend(queue, &both[1].receipt, Duration::ZERO).await, Ok(()));
    let one = queue.receive(one).await.expect("a receive");
    assert_eq!(bodies(&one), ["g3"], "g2 was delivered as often as it may be");
}

pub(crate) async fn a_repeat_within_five_minutes_is_accepted_and_never_delivered(world: &World) {
    let queue = &*world.fifo;
    let first = send(queue, &[in_group("g", "a")]).await;
    let taken = take(queue, MINUTE).await;
    assert_eq!(delete(queue, &taken[0].receipt).await, Ok(()));

    world.clock.advance(5 * MINUTE - SECOND);
    let mut other_body = in_group("g", "a");
    other_body.body = "other".to_owned();
    assert_eq!(send(queue, &[other_body.clone()]).await.len(), 1, "it is accepted");
    assert_eq!(take(queue, MINUTE).await, [], "the id decides, not the body");

    world.clock.advance(SECOND);
    let again = send(queue, &[other_body]).await;
    assert_ne!(again, first);
    assert!(again[0].sequence > first[0].sequence);
    assert_eq!(bodies(&take(queue, MINUTE).await), ["other"]);
}

pub(crate) async fn what_nobody_deletes_goes_to_the_dead_letters(world: &World) {
    let queue = &*world.fifo;
    let begin = world.clock.wall();
    let sent = send(queue, &[in_group("g", "bad"), in_group("g", "good")]).await;
    for delivery in 1..=DELIVERIES_MAX {
        let one = Receive { messages_max: 1, wait: Duration::ZERO, visibility: MINUTE };
        let taken = queue.receive(one).await.expect("a receive");
        assert_eq!((bodies(&taken), taken[0].receive_count), (vec!["bad"], delivery));
        world.clock.advance(MINUTE);
    }
    assert_eq!(take(&*world.dead_letters, MINUTE).await, []);
    let taken = take(queue, MINUTE).await;
    assert_eq!(bodies(&taken), ["good"], "the group goes on");
    let dead = take(&*world.dead_letters, MINUTE).await;
    assert_eq!(bodies(&dead), ["bad"]);
    assert_eq!(
        (&dead[0].id, dead[0].sent, dead[0].group.as_deref()),
        (&sent[0].message_id, begin, Some("g"))
    );
}

pub(crate) async fn a_receive_that_waits_gets_what_is_sent_meanwhile(world: &World) {
    let queue = &*world.standard;
    let request = Receive { messages_max: 10, wait: Duration::from_secs(20), visibility: MINUTE };
    let message = [plain("a", "one")];
    // The receive is begun first.
    let (received, _) = tokio::join!(biased; queue.receive(request), send(queue, &message));
    assert_eq!(bodies(&received.expect("a receive")), ["one"]);
}

pub(crate) async fn what_breaks_a_limit_is_refused_and_named(world: &World) {
    let eleven: Vec<_> = (0..11).map(|index| plain(&format!("m{index}"), "x")).collect();
    let half = "x".repeat(BATCH_BYTES_MAX / 2);
    let mut over = plain("b", &half);
    over.attributes.insert("n".to_owned(), "v".to_owned());
    let mut named_as_aws = plain("a", "x");
    named_as_aws.attributes.insert("AWS.trace".to_owned(), "v".to_owned());
    let ungrouped = OutgoingMessage { deduplication: Some("d".to_owned()), ..plain("a", "x") };
    let undeduplicated = OutgoingMessage { group: Some("g".to_owned()), ..plain("a", "x") };
    let (standard, fifo) = (&*world.standard, &*world.fifo);
    let cases: [(&dyn MessageQueue, &[OutgoingMessage], &str); 11] = [
        (standard, &[], "1 to 10 entries"),
        (standard, &eleven, "1 to 10 entries"),
        (standard, &[plain("a", &half), over], "262152 bytes"),
        (standard, &[plain("a", "x"), plain("a", "y")], "two messages"),
        (standard, &[plain("a b", "x")], "an id is"),
        (standard, &[plain("a", "")], "is empty"),
        (standard, &[plain("a", "ok\u{0}")], "at byte 2"),
        (standard, &[named_as_aws], "bad name"),
        (standard, std::slice::from_ref(&ungrouped), "only a FIFO queue"),
        (fifo, std::slice::from_ref(&ungrouped), "needs a group"),
        (fifo, &[undeduplicated], "needs a deduplication id"),
    ];
    for (queue, messages, words) in cases {
        let error = queue.send(messages).await.expect_err(words);
        assert_invalid(&error, queue, Call::Send, words);
    }
    let receive = Receive { messages_max: 1, wait: Duration::ZERO, visibility: MINUTE };
    for (bad, words) in [
        (Receive { messages_max: 0, ..receive }, "1 to 10 messages"),
        (Receive { messages_max: 11, ..receive }, "1 to 10 messages"),
        (Receive { wait: Duration::from_millis(20_001), ..receive }, "waits 20s at most"),
        (Receive { visibility: Duration::from_secs(43_201), ..receive }, "at most"),
    ] {
        assert_invalid(&standard.receive(bad).await.expect_err(words), standard, Call::Receive, words);
    }
    let receipt = Receipt::new("r");
    let twice = standard.delete(&[receipt.clone(), receipt.clone()]).await.expect_err("twice");
    assert_invalid(&twice, standard, Call::Delete, "twice");
    let long = standard.extend(&[(receipt, Duration::from_secs(43_201))]).await.expect_err("too long");
    assert_invalid(&long, standard, Call::Extend, "at most");
    assert_eq!(take(standard, MINUTE).await, [], "nothing of a refused batch was sent");
    let exact = [plain("a", &half), plain("b", &half)];
    assert_eq!(send(standard, &exact).await.len(), 2, "the limit itself is allowed");
}

fn assert_invalid(error: &QueueError, queue: &dyn MessageQueue, call: Call, words: &str) {
    assert!(matches!(error.failure, Failure::Invalid { .. }), "{error:?}");
    assert!(!error.is_retryable() && !error.may_have_happened());
    assert_eq!((error.queue.as_str(), error.call), (queue.name(), call));
    assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
}
