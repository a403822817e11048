//! What producers, idempotency keys, conditions, fencing tokens and settings promise, told as stories. Every step also checks
//! all invariants.

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, PartitionIndex};
use carnax_core::metadata::{
    DescribeFencingToken, DescribeProducer, GroupOffsets, ProducerDescription, TokenNow, UnitOutcome,
};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Entry, FeatureLevel, Reply, answer, due};

use crate::support::{START, bytes_of, code, commit, delete, named, read_back, topic_id, unit};
use crate::writer::{
    Writer, altered, at, expecting, fence, holding, increasing, keyed, records, set, stamped,
};

const HOUR: i64 = 60 * 60 * 1_000;
const WEEK: i64 = 7 * 24 * HOUR;

fn values(problem: &Problem) -> (ErrorCode, &str, &str) {
    let facts = &problem.facts;
    (problem.code, facts.expected.as_deref().unwrap_or("absent"), facts.actual.as_deref().unwrap_or("absent"))
}

fn describe(writer: &Writer, producer: &str) -> Result<ProducerDescription, Problem> {
    let producer = producer.parse().unwrap();
    answer::describe_producer(&writer.cluster.state, &DescribeProducer { producer })
}

#[test]
fn a_repeat_gets_its_first_answer_and_a_gap_is_refused() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 2);
    let request = |sequence| stamped("p", 0, sequence, records(topic, &[0, 1]));
    assert_eq!(writer.accepted(request(0)), (vec![0, 0], START));
    writer.wait(1_000);
    assert_eq!(values(&writer.refused(request(2))), (ErrorCode::SequenceGap, "1", "2"));
    assert_eq!(writer.accepted(request(1)), (vec![1, 1], START + 1_000), "a refused one left no trace");
    writer.wait(1_000);
    assert_eq!(writer.duplicate(request(0)), (vec![0, 0], START), "the answer and the time of the first");
    assert_eq!(writer.refused(altered(request(0))).code, ErrorCode::BodyMismatch);

    // A repeat in the same commit, and what follows it there.
    let outcomes = writer.commit(vec![request(2), request(2), request(3)]);
    assert!(matches!(
        outcomes[..],
        [UnitOutcome::Accepted { .. }, UnitOutcome::Duplicate { .. }, UnitOutcome::Accepted { .. }]
    ));
    for sequence in 4..9 {
        writer.accepted(request(sequence));
    }
    assert_eq!(writer.duplicate(request(1)).0, [1, 1], "the last eight answers are kept");
    let forgotten = writer.duplicate(altered(request(0)));
    assert_eq!(forgotten, (vec![], START + 1_000), "older ones are known to be repeats, and no more");
    assert_eq!(answer::status(&writer.cluster.state).remembered_slices, 16);
    assert_eq!(describe(&writer, "p").unwrap().last_sequence, Some(8));
}

#[test]
fn an_increasing_producer_may_leave_gaps_and_a_mode_belongs_to_its_request() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    let request = |sequence| increasing(stamped("q", 3, sequence, records(topic, &[0])));
    let huge = u128::MAX - 1;
    assert_eq!(writer.accepted(request(500)).0, [0], "needs no beginning");
    assert_eq!(writer.accepted(request(huge)).0, [1]);
    assert_eq!(writer.duplicate(request(500)).0, [0]);
    assert_eq!(writer.duplicate(request(501)), (vec![], START), "what was skipped counts as done");
    let contiguous = stamped("q", 3, u128::MAX, records(topic, &[0]));
    assert_eq!(writer.accepted(contiguous).0, [2], "follows the last one");
    assert_eq!(writer.duplicate(request(u128::MAX)).0, [2], "nothing comes after the highest");
}

#[test]
fn a_higher_epoch_fences_the_lower_ones_once_a_unit_of_it_is_accepted() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    let request = |epoch, sequence| stamped("p", epoch, sequence, records(topic, &[0]));
    writer.accepted(request(2, 0));
    assert_eq!(values(&writer.refused(request(1, 0))), (ErrorCode::Fenced, "2", "1"));
    assert_eq!(values(&writer.refused(request(7, 1))), (ErrorCode::SequenceGap, "0", "1"));
    let unwanted = expecting(topic, 0, 99, request(7, 0));
    assert_eq!(writer.refused(unwanted).code, ErrorCode::ConditionFailed);
    assert_eq!(writer.accepted(request(2, 1)).0, [1], "no refused unit opens an epoch");
    assert_eq!(writer.accepted(request(7, 0)).0, [2]);
    assert_eq!(values(&writer.refused(request(2, 2))), (ErrorCode::Fenced, "7", "2"));
    assert_eq!(values(&writer.refused(request(2, 1))), (ErrorCode::Fenced, "7", "2"), "not even a repeat");
    assert_eq!(writer.accepted(increasing(request(9, 40))).0, [3]);
    let now = describe(&writer, "p").unwrap();
    assert_eq!((now.epoch, now.last_sequence, now.before), (9, Some(40), None));
}

#[test]
fn raising_an_epoch_says_what_of_the_one_before_was_accepted() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    let request = |epoch, sequence| stamped("p", epoch, sequence, records(topic, &[0]));
    let first = writer.raise("p", None).unwrap();
    assert_eq!((first.epoch, first.last_sequence, &first.before), (0, None, &None));
    for sequence in 0..10 {
        writer.accepted(request(0, sequence));
    }
    writer.wait(1_000);
    let raised = writer.raise("p", Some(0)).unwrap();
    assert_eq!((raised.epoch, raised.last_sequence, raised.last_seen), (1, None, at(START + 1_000)));
    let before = raised.before.clone().unwrap();
    assert_eq!((before.epoch, before.last_sequence), (0, Some(9)));
    let kept: Vec<_> = before.replies.iter().map(|r| (r.sequence, r.slices[0].base_offset.0)).collect();
    assert_eq!(kept, (2..10).map(|n| (n, u64::try_from(n).unwrap())).collect::<Vec<_>>());

    writer.wait(1_000);
    assert_eq!(writer.raise("p", Some(0)).unwrap(), raised, "a repeat changes nothing");
    assert_eq!(describe(&writer, "p").unwrap(), raised);
    writer.cluster.state = read_back(&bytes_of(&writer.cluster.state)).unwrap();
    assert_eq!(describe(&writer, "p").unwrap(), raised, "also from a snapshot");
    assert_eq!(values(&writer.refused(request(0, 10))), (ErrorCode::Fenced, "1", "0"));
    assert_eq!(writer.refused(request(1, 1)).code, ErrorCode::SequenceGap);
    assert_eq!(writer.accepted(request(1, 0)).0, [10]);
    assert_eq!(describe(&writer, "p").unwrap().before, None, "until the new epoch has begun");
    let late = writer.raise("p", Some(0)).unwrap_err();
    assert_eq!(values(&late), (ErrorCode::Fenced, "1", "0"), "no repeat any more");

    let again = writer.raise("p", None).unwrap();
    assert_eq!((again.epoch, again.before.unwrap().last_sequence), (2, Some(0)));
    let twice = writer.raise("p", None).unwrap();
    let before = twice.before.unwrap();
    assert_eq!((before.epoch, before.last_sequence, before.replies), (2, None, vec![]));
    let above = writer.raise("p", Some(7)).unwrap();
    assert_eq!((above.epoch, above.before.unwrap().epoch), (8, 7), "nothing was accepted in that one");
    assert_eq!(values(&writer.refused(request(7, 0))), (ErrorCode::Fenced, "8", "7"));
    writer.accepted(stamped("last", u32::MAX, 0, records(topic, &[0])));
    assert_eq!(code(writer.raise("last", None)), ErrorCode::Conflict, "epochs end somewhere");
}

#[test]
fn a_producer_that_was_never_known_can_still_fence_its_first_request() {
    for arrives_first in [true, false] {
        let mut writer = Writer::new();
        let topic = writer.cluster.create("flights", 1, 1);
        let request = |epoch| stamped("p", epoch, 0, records(topic, &[0]));
        if arrives_first {
            writer.accepted(request(0));
        }
        let raised = writer.raise("p", Some(0)).unwrap();
        let before = raised.before.clone().unwrap();
        assert_eq!((raised.epoch, before.epoch), (1, 0));
        assert_eq!(before.last_sequence.is_some(), arrives_first, "the raise says what became of it");
        assert_eq!(values(&writer.refused(request(0))), (ErrorCode::Fenced, "1", "0"));
        assert_eq!(writer.raise("p", Some(0)).unwrap(), raised, "a repeat changes nothing");
        writer.accepted(request(1));
        // One that was on its way all the time does not end the epoch that is in use.
        assert_eq!(code(writer.raise("p", Some(0))), ErrorCode::Fenced);
        assert_eq!(describe(&writer, "p").unwrap().epoch, 1);
    }
}

#[test]
fn the_checks_of_a_unit_come_in_their_order() {
    let mut writer = Writer::new();
    let (kept, gone) = (writer.cluster.create("kept", 1, 1), writer.cluster.create("gone", 2, 1));
    writer.accepted(stamped("p", 5, 0, records(gone, &[0])));
    writer.cluster.one(delete("gone")).unwrap();
    let request = |epoch, sequence, topic| stamped("p", epoch, sequence, records(topic, &[0]));
    let no_group = GroupOffsets { group: "g".parse().unwrap(), member: None, offsets: vec![] };

    let everything_wrong = expecting(kept, 0, 9, altered(request(4, 0, gone)));
    assert_eq!(writer.refused(everything_wrong).code, ErrorCode::Fenced);
    assert_eq!(writer.duplicate(request(5, 0, gone)).0, [0], "though its topic is gone");
    assert_eq!(writer.refused(altered(request(5, 0, gone))).code, ErrorCode::BodyMismatch);
    let shapeless = stamped("p", 5, 9, unit(vec![]));
    assert_eq!(writer.refused(shapeless).code, ErrorCode::InvalidValue);
    assert_eq!(writer.refused(request(5, 9, gone)).code, ErrorCode::TopicNotFound);
    assert_eq!(writer.refused(request(5, 9, kept)).code, ErrorCode::SequenceGap);
    let unknown = expecting(kept, 0, 9, stamped("new", 0, 1, records(kept, &[0])));
    assert_eq!(writer.refused(unknown).code, ErrorCode::UnknownProducer);
    let mut condition = expecting(kept, 0, 9, request(5, 1, kept));
    condition.group = Some(no_group);
    assert_eq!(writer.refused(condition).code, ErrorCode::ConditionFailed, "before the group is looked at");
    let both = keyed("", "k", request(5, 1, kept));
    assert_eq!(writer.refused(both).code, ErrorCode::InvalidValue);
    let nobody = keyed(&"x".repeat(257), "k", records(kept, &[0]));
    assert_eq!(writer.refused(nobody).code, ErrorCode::TooLarge);
    assert_eq!(writer.accepted(request(5, 1, kept)).0, [0], "none of them left a trace");
}

#[test]
fn producers_live_a_window_of_log_time_since_their_last_change_whether_or_not_a_tick_comes() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    let request = |producer, sequence| stamped(producer, 0, sequence, records(topic, &[0]));
    writer.accepted(request("idle", 0));
    writer.accepted(request("busy", 0));
    writer.wait(WEEK - 1);
    writer.session = writer.cluster.open_session();
    writer.number = 0;
    writer.accepted(request("busy", 1));
    assert!(!due(&writer.cluster.state, at(START + WEEK - 1)));
    assert!(due(&writer.cluster.state, at(START + WEEK)));
    writer.wait(1);
    assert_eq!(writer.refused(request("idle", 1)).code, ErrorCode::UnknownProducer);
    assert_eq!(code(describe(&writer, "idle")), ErrorCode::UnknownProducer);
    assert!(!due(&writer.cluster.state, at(writer.cluster.now)));
    assert_eq!(writer.accepted(request("idle", 0)).0, [3], "a producer like any new one");
    assert_eq!(writer.duplicate(request("busy", 0)).0, [1], "one that was busy keeps all it had");

    writer.wait(WEEK - 2);
    writer.cluster.one(Command::ExpireSessions).unwrap();
    assert_eq!(describe(&writer, "busy").unwrap().last_sequence, Some(1));
    writer.cluster.now = START;
    writer.cluster.one(Command::ExpireSessions).unwrap();
    assert_eq!(describe(&writer, "busy").unwrap().last_sequence, Some(1), "time never goes back");
    writer.cluster.now = START + 3 * WEEK;
    writer.cluster.one(Command::ExpireSessions).unwrap();
    assert_eq!(answer::status(&writer.cluster.state).producers, 0);
    assert_eq!(answer::status(&writer.cluster.state).remembered_slices, 0);
}

#[test]
fn an_idempotency_key_belongs_to_its_principal_for_a_window_since_its_unit_was_accepted() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 2);
    let request = |principal, key| keyed(principal, key, records(topic, &[0, 1]));
    let refused_first = expecting(topic, 0, 9, request("alice", "k"));
    assert_eq!(writer.refused(refused_first).code, ErrorCode::ConditionFailed);
    assert_eq!(writer.accepted(request("alice", "k")).0, [0, 0], "only what is accepted is recorded");
    assert_eq!(writer.accepted(request("bob", "k")).0, [1, 1]);
    assert_eq!(writer.accepted(request("", "k")).0, [2, 2]);
    assert_eq!(writer.refused(altered(request("alice", "k"))).code, ErrorCode::BodyMismatch);
    writer.wait(HOUR - 1);
    writer.session = writer.cluster.open_session();
    writer.number = 0;
    assert_eq!(writer.duplicate(request("alice", "k")), (vec![0, 0], START));
    writer.cluster.state = read_back(&bytes_of(&writer.cluster.state)).unwrap();
    assert_eq!(writer.duplicate(request("bob", "k")), (vec![1, 1], START));
    assert!(due(&writer.cluster.state, at(START + HOUR)));
    writer.wait(1);
    assert_eq!(writer.accepted(altered(request("alice", "k"))).0, [3, 3], "a repeat made it live no longer");
    let status = answer::status(&writer.cluster.state);
    assert_eq!((status.idempotency_keys, status.remembered_slices), (1, 2));
}

#[test]
fn full_tables_refuse_what_is_new_and_forget_nothing_early() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    writer.set(&[("producer.max", Some("2")), ("idempotency.max", Some("1"))]).unwrap();
    let request = |producer, sequence| stamped(producer, 0, sequence, records(topic, &[0]));
    writer.accepted(request("a", 0));
    writer.raise("b", None).unwrap();
    writer.wait(1_000);
    let full = writer.refused(request("c", 0));
    assert_eq!((full.code, full.facts.limit), (ErrorCode::TooManyRequests, Some(2)));
    assert!(full.code.retryable() && full.facts.retry_after_seconds == Some(60));
    assert_eq!(code(writer.raise("c", None)), ErrorCode::TooManyRequests);
    assert_eq!(writer.refused(request("c", 1)).code, ErrorCode::UnknownProducer, "which no room would help");
    writer.accepted(request("a", 1));
    writer.accepted(request("b", 0));
    writer.wait(WEEK - 1_500);
    writer.session = writer.cluster.open_session();
    writer.number = 0;
    assert_eq!(writer.refused(request("c", 0)).facts.retry_after_seconds, Some(1));
    writer.wait(1_500);
    writer.accepted(request("c", 0));

    let with_key = |key| keyed("", key, records(topic, &[0]));
    writer.accepted(with_key("k"));
    let full = writer.refused(with_key("l"));
    assert_eq!((full.code, full.facts.limit), (ErrorCode::TooManyRequests, Some(1)));
    writer.duplicate(with_key("k"));
    writer.set(&[("idempotency.max", Some("0"))]).unwrap();
    writer.duplicate(with_key("k"));
    writer.set(&[("idempotency.max", None)]).unwrap();
    writer.accepted(with_key("l"));
}

#[test]
fn conditions_hold_for_all_partitions_or_nothing_of_the_unit_is_accepted() {
    let mut writer = Writer::new();
    let (topic, other) = (writer.cluster.create("flights", 1, 2), writer.cluster.create("other", 2, 1));
    let both =
        |first, second| expecting(topic, 1, second, expecting(topic, 0, first, records(topic, &[0, 1])));
    writer.accepted(both(0, 0));
    let failed = writer.refused(both(1, 0));
    assert_eq!(values(&failed), (ErrorCode::ConditionFailed, "0", "1"));
    assert_eq!(failed.facts.topic.as_deref(), Some("flights"));
    assert_eq!(failed.facts.partition, Some(PartitionIndex(1)));
    // Two writers race in one commit: the first one wins.
    let outcomes = writer.commit(vec![both(1, 1), both(1, 1)]);
    assert!(matches!(outcomes[..], [UnitOutcome::Accepted { .. }, UnitOutcome::Refused(_)]));
    let elsewhere = expecting(other, 0, 0, records(topic, &[0]));
    assert_eq!(writer.accepted(elsewhere).0, [2], "of a partition that is not written to");
    assert_eq!(
        writer.refused(expecting(topic, 2, 0, records(topic, &[0]))).code,
        ErrorCode::PartitionNotFound
    );
    let nowhere = expecting(topic_id(9), 0, 0, records(topic, &[0]));
    assert_eq!(writer.refused(nowhere).code, ErrorCode::TopicNotFound);
    let mut many = records(topic, &[0]);
    for _ in 0..1_001 {
        many = expecting(topic, 0, 3, many);
    }
    assert_eq!(writer.refused(many).code, ErrorCode::TooLarge);
}

#[test]
fn a_fencing_token_keeps_out_those_who_hold_another_and_nobody_who_holds_none() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 2);
    let write = |token| holding(topic, 0, token, records(topic, &[0]));
    assert_eq!(values(&writer.refused(write("a"))), (ErrorCode::ConditionFailed, "a", "none"));
    let Ok(Reply::FencingTokenSet(fence_now)) =
        writer.cluster.one(fence("flights", 0, Some("a"), TokenNow::Nothing))
    else {
        panic!("not set")
    };
    assert_eq!((fence_now.topic_id, fence_now.high_watermark.0), (topic, 0));
    writer.accepted(write("a"));
    let stolen = fence("flights", 0, Some("b"), TokenNow::Token("a".parse().unwrap()));
    let Ok(Reply::FencingTokenSet(fence_now)) = writer.cluster.one(stolen.clone()) else { panic!("not set") };
    assert_eq!(fence_now.high_watermark.0, 1, "all that the one before wrote lies below");
    let refused = writer.cluster.one(stolen).unwrap_err();
    assert_eq!(values(&refused), (ErrorCode::ConditionFailed, "a", "b"));
    let refused = writer.cluster.one(fence("flights", 0, None, TokenNow::Nothing)).unwrap_err();
    assert_eq!(values(&refused), (ErrorCode::ConditionFailed, "none", "b"));
    assert_eq!(values(&writer.refused(write("a"))), (ErrorCode::ConditionFailed, "a", "b"));
    assert_eq!(writer.accepted(records(topic, &[0])).0, [1], "who names no token is not looked at");

    writer.cluster.state = read_back(&bytes_of(&writer.cluster.state)).unwrap();
    writer.accepted(write("b"));
    let token = |writer: &Writer, partition| {
        let request = DescribeFencingToken { topic: named("flights"), partition: PartitionIndex(partition) };
        answer::describe_fencing_token(&writer.cluster.state, &request)
            .map(|fence| fence.token.map(|token| token.to_string()))
    };
    assert_eq!(token(&writer, 0).unwrap().as_deref(), Some("b"));
    assert_eq!(token(&writer, 1).unwrap(), None);
    assert_eq!(code(token(&writer, 2)), ErrorCode::PartitionNotFound);
    writer.cluster.one(fence("flights", 0, None, TokenNow::Any)).unwrap();
    assert_eq!(token(&writer, 0).unwrap(), None);
    for wrong in [("nothing", 0, ErrorCode::TopicNotFound), ("flights", 2, ErrorCode::PartitionNotFound)] {
        assert_eq!(code(writer.cluster.one(fence(wrong.0, wrong.1, None, TokenNow::Any))), wrong.2);
    }
}

#[test]
fn settings_are_kept_in_one_spelling_and_a_shorter_window_ends_at_once() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    let entries = |writer: &Writer| answer::describe_settings(&writer.cluster.state).entries;
    assert!(entries(&writer).is_empty());
    let Ok(Reply::SettingsAltered(altered)) = writer.set(&[("idempotency.window.ms", Some("002000"))]) else {
        panic!("not altered")
    };
    assert_eq!(altered.entries["idempotency.window.ms"], "2000");
    for wrong in [
        &[("producer.max", Some("7")), ("producer.windows", Some("7"))][..],
        &[("producer.max", Some("7")), ("producer.windows", None)],
        &[("producer.max", Some("7")), ("producer.window.ms", Some("0"))],
    ] {
        assert_eq!(code(writer.set(wrong)), ErrorCode::InvalidValue, "{wrong:?}");
        assert_eq!(entries(&writer), altered.entries, "all or nothing");
    }
    writer.cluster.state = read_back(&bytes_of(&writer.cluster.state)).unwrap();
    assert_eq!(entries(&writer), altered.entries);

    writer.accepted(keyed("", "k", records(topic, &[0])));
    writer.accepted(stamped("p", 0, 0, records(topic, &[0])));
    writer.wait(1_000);
    // A command behind it in the same entry sees the new window already; a longer one brings nothing back.
    let shorter = [("idempotency.window.ms", Some("1000")), ("producer.window.ms", Some("1000"))];
    let longer = [("idempotency.window.ms", None), ("producer.window.ms", None)];
    let outcomes = writer.cluster.apply(vec![set(&shorter), set(&longer)]);
    assert!(outcomes.iter().all(Result::is_ok) && entries(&writer).is_empty());
    writer.accepted(keyed("", "k", records(topic, &[0])));
    assert_eq!(code(describe(&writer, "p")), ErrorCode::UnknownProducer);
}

#[test]
fn an_entry_of_the_first_level_means_what_it_meant_to_builds_of_that_level() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    let plain = records(topic, &[0]);
    for unit in
        [stamped("p", 0, 0, plain.clone()), keyed("", "k", plain.clone()), expecting(topic, 0, 0, plain)]
    {
        writer.number += 1;
        let segment = carnax_core::metadata::SegmentCommit {
            segment: writer.cluster.segment(writer.number.into()),
            size: 1_000,
            units: vec![unit],
        };
        let commands = vec![commit(writer.session, writer.number, vec![segment])];
        let entry = Entry { level: FeatureLevel(1), log_time: at(START), commands };
        writer.cluster.index += 1;
        let outcomes = writer.cluster.state.apply(LogIndex(writer.cluster.index), &entry);
        let Ok(Reply::SegmentsCommitted(reply)) = &outcomes[0] else { panic!("{outcomes:?}") };
        let carnax_core::metadata::SegmentOutcome::Decided(units) = &reply.outcomes[0] else {
            panic!("{reply:?}")
        };
        assert_eq!(crate::support::refusal(&units[0]), ErrorCode::InvalidValue);
    }
    assert_eq!(answer::status(&writer.cluster.state).producers, 0);
}
