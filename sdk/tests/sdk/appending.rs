//! Atomic appends: where records go, what is sent with them, and what is sent again.

use std::sync::atomic::{AtomicUsize, Ordering};

use carnax::{ErrorCode, GroupName, MemberId, Offset, OffsetMove, PartitionIndex, Record, RequestError};
use carnax_core::http::read_envelope;
use carnax_core::partitioner::partition_of;
use http::Method;

use crate::log::{Log, topic_id};
use crate::producing::start;
use crate::server::{Reply, Server, client, in_time};

const FIRST: PartitionIndex = PartitionIndex(0);

#[tokio::test]
async fn records_go_where_a_producer_sends_them_in_one_request_with_all_that_it_presumes() {
    let log = Log::new(4);
    let server = start(&log).await;
    let client = client(&server);
    let keyed = partition_of(b"UA", 4);
    let group: GroupName = "g".parse().unwrap();
    let member: MemberId = "m-1".parse().unwrap();
    let moved = OffsetMove {
        topic: "t".parse().unwrap(),
        topic_id: Some(topic_id(1)),
        partition: FIRST,
        from: None,
        to: Offset(3),
    };
    let append =
        client.append().to("t", Record::new("a").with_key("UA")).to("t", Record::new("b").with_key("UA"));
    let append = append.to_partition("t", FIRST, Record::new("c").with_key("elsewhere"));
    let append = append.expect_next_offset("t", FIRST, Offset(0)).commit_offsets(
        group.as_str(),
        Some((member.clone(), 7)),
        [moved.clone()],
    );
    let answer = in_time(append.send()).await.unwrap();
    assert!(!answer.duplicate);
    let counts: Vec<_> = answer.results.iter().map(|result| (result.partition, result.count)).collect();
    let mut expected = vec![(FIRST, 1), (keyed, 2)];
    expected.sort();
    assert_eq!(counts, expected);
    assert_eq!(
        (log.values(0), log.values(keyed.0 as usize)),
        (vec!["c".to_owned()], vec!["a".to_owned(), "b".to_owned()])
    );
    let group = log.change(|state| state.moved.clone()).unwrap();
    assert_eq!((group.member, group.epoch, group.offsets), (Some(member), Some(7), vec![moved]));
    let (head, _) = read_envelope(server.seen_with(&Method::POST)[0].body.clone()).unwrap();
    let counts: Vec<_> = head.parts.iter().map(|part| (part.partition, part.partition_count)).collect();
    assert!(counts.contains(&(FIRST, None)) && counts.contains(&(keyed, Some(4))), "{counts:?}");

    in_time(client.append().to("t", Record::new("d")).send()).await.unwrap();
    assert_eq!(server.seen_with(&Method::GET).len(), 1, "the topic is asked for once");
    let keys: Vec<_> = server.seen_with(&Method::POST);
    let keys: Vec<_> = keys.iter().map(|seen| seen.header("idempotency-key").unwrap()).collect();
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_condition_that_does_not_hold_tells_the_actual_value_and_nothing_is_stored() {
    let log = Log::new(2);
    let server = start(&log).await;
    let client = client(&server);
    let append = || client.append().to_partition("t", PartitionIndex(1), Record::new("x"));
    in_time(append().expect_next_offset("t", PartitionIndex(1), Offset(0)).send()).await.unwrap();
    let late =
        in_time(append().expect_next_offset("t", PartitionIndex(1), Offset(0)).send()).await.unwrap_err();
    assert!(late.is(ErrorCode::ConditionFailed) && !late.retryable(), "{late:?}");
    assert_eq!((late.expected(), late.actual()), (Some("0"), Some("1")));

    let admin = client.admin();
    let set = in_time(admin.set_fencing_token("t", FIRST, Some("w1"))).await.unwrap();
    assert_eq!((set.token.unwrap().as_str(), set.high_watermark), ("w1", Offset(0)));
    let wrong = in_time(admin.change_fencing_token("t", FIRST, None, Some("w2"))).await.unwrap_err();
    assert_eq!(wrong.actual(), Some("w1"));
    in_time(admin.change_fencing_token("t", FIRST, Some("w1"), Some("w2"))).await.unwrap();
    let fenced = in_time(append().fencing_token("t", FIRST, "w1").send()).await.unwrap_err();
    assert_eq!((fenced.is(ErrorCode::ConditionFailed), fenced.actual()), (true, Some("w2")));
    in_time(append().fencing_token("t", FIRST, "w2").send()).await.unwrap();
    in_time(admin.set_fencing_token("t", FIRST, None)).await.unwrap();
    assert_eq!(in_time(admin.fencing_token("t", FIRST)).await.unwrap().token, None);
    assert_eq!(log.values(1), ["x", "x"], "nothing of what was refused");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_a_grown_topic_is_routed_again_under_the_same_key() {
    let log = Log::new(2);
    let appends = AtomicUsize::new(0);
    let server = {
        let log = log.clone();
        Server::start(move |seen| {
            let lost = seen.method == Method::POST && appends.fetch_add(1, Ordering::SeqCst) == 0;
            let reply = log.serve(&seen);
            std::future::ready(if lost { Reply::HangUp } else { reply })
        })
        .await
    };
    let client = client(&server);
    let append = || client.append().to("t", Record::new("a").with_key("k"));
    assert!(in_time(append().send()).await.unwrap().duplicate, "the first answer, again");
    log.change(|state| state.partitions.extend([Default::default(), Default::default(), Default::default()]));
    let answer = in_time(append().idempotency_key("mine").send()).await.unwrap();
    assert_eq!(answer.results[0].partition, partition_of(b"k", 5));
    let keys: Vec<_> = server
        .seen_with(&Method::POST)
        .into_iter()
        .map(|seen| seen.headers["idempotency-key"].clone())
        .collect();
    assert!(keys.len() == 4 && keys[0] == keys[1] && keys[2] == "mine" && keys[3] == "mine", "{keys:?}");
    log.change(|state| state.topic_id = topic_id(2));
    in_time(append().send()).await.unwrap();
    let total: usize = (0..5).map(|partition| log.values(partition).len()).sum();
    assert_eq!(total, 3, "once each");
}

#[tokio::test]
async fn what_no_server_would_take_is_not_sent() {
    let log = Log::new(1);
    let server = start(&log).await;
    let client = client(&server);
    let record = || Record::new("a");
    let wrong = [
        client.append(),
        client.append().to("a/b", record()),
        client.append().to("t", record()).idempotency_key("a b"),
        client.append().to("t", record()).commit_offsets("a b", None, []),
        client.append().to("t", record()).fencing_token("t", FIRST, ""),
        client.append().to("t", record()).expect_next_offset("", FIRST, Offset(0)),
        client.append().to("t", Record::new(vec![0; 2 << 20])),
    ];
    for append in wrong {
        let error = in_time(append.send()).await.unwrap_err();
        assert!(matches!(error, RequestError::Invalid { .. }), "{error:?}");
    }
    assert!(server.seen_with(&Method::POST).is_empty());
}
