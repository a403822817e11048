//! What wake-ups promise, told as stories: every commit is announced until a queue took it. Every step also checks all
//! invariants.

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::metadata::{AlterTopic, DeleteWakeup, ListWakeups, PutWakeup, WakeupDescription};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_metadata_state::answer::{self, Announcement};
use carnax_metadata_state::{Command, Outcome, Reply, State};

use crate::support::{bytes_of, code, delete, named, read_back, topic_id};
use crate::writer::{Writer, records};

const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/1/wake";

/// Each command that there is for wake-ups, on a topic `flights`.
pub(crate) fn commands_of_wakeups() -> Vec<Command> {
    let name = || "kept".parse().unwrap();
    let partitions = vec![(PartitionIndex(0), Offset(9)), (PartitionIndex(2), Offset(5))];
    let topic = topic_id(1);
    vec![
        put("flights", "kept", QUEUE, 100),
        put("flights", "gone", QUEUE, 0),
        Command::ConfirmAnnouncement { topic, wakeup: name(), version: LogIndex(2), partitions },
        Command::DeleteWakeup(DeleteWakeup { topic: named("flights"), name: "gone".parse().unwrap() }),
    ]
}

fn put(topic: &str, name: &str, queue: &str, window_ms: u32) -> Command {
    let (topic, name, queue) = (named(topic), name.parse().unwrap(), queue.to_owned());
    Command::PutWakeup(PutWakeup { topic, name, queue, window_ms })
}

fn described(outcome: Outcome) -> WakeupDescription {
    match outcome {
        Ok(Reply::WakeupPut(description)) => description,
        other => panic!("{other:?}"),
    }
}

fn confirm(writer: &mut Writer, topic: TopicId, told: &Announcement) -> Result<(), Problem> {
    for event in &told.events {
        let command = Command::ConfirmAnnouncement {
            topic,
            wakeup: event.wakeup.clone(),
            version: told.version,
            partitions: event.partitions.iter().map(|range| (range.partition, range.to)).collect(),
        };
        writer.cluster.one(command)?;
    }
    Ok(())
}

/// Partition, from, to, for each range of each event.
fn ranges(told: &[Announcement]) -> Vec<(u32, u64, u64)> {
    let events = told.iter().flat_map(|told| &told.events);
    let ranges = events.flat_map(|event| &event.partitions);
    ranges.map(|range| (range.partition.0, range.from.0, range.to.0)).collect()
}

/// What every wake-up of a topic has to tell.
fn pending_in(state: &State, topic: TopicId) -> Vec<Announcement> {
    let wakeups = answer::wakeups(state, Some(topic));
    wakeups.iter().filter_map(|(topic, name)| answer::announcement(state, *topic, name)).collect()
}

fn pending(writer: &Writer, topic: TopicId) -> Vec<Announcement> {
    pending_in(&writer.cluster.state, topic)
}

#[test]
fn what_is_committed_is_announced_until_the_queue_took_it() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 3);
    writer.accepted(records(topic, &[0]));
    described(writer.cluster.one(put("flights", "count", QUEUE, 100)));
    assert_eq!(pending(&writer, topic), [], "what was there before wakes nobody");

    writer.accepted(records(topic, &[0, 2]));
    let first = pending(&writer, topic);
    assert_eq!(ranges(&first), [(0, 1, 2), (2, 0, 1)]);
    writer.accepted(records(topic, &[2]));
    assert_eq!(ranges(&pending(&writer, topic)), [(0, 1, 2), (2, 0, 2)], "not taken, so it is told again");

    confirm(&mut writer, topic, &first[0]).unwrap();
    assert_eq!(
        ranges(&pending(&writer, topic)),
        [(2, 1, 2)],
        "what came after the event is still to be told"
    );
    let rest = pending(&writer, topic);
    confirm(&mut writer, topic, &rest[0]).unwrap();
    confirm(&mut writer, topic, &first[0]).unwrap();
    assert_eq!(pending(&writer, topic), [], "a late confirmation moves nothing back");

    let read = read_back(&bytes_of(&writer.cluster.state)).unwrap();
    assert_eq!(bytes_of(&read), bytes_of(&writer.cluster.state));
    assert_eq!(pending_in(&read, topic), []);
}

#[test]
fn a_wakeup_that_changes_keeps_its_cursor_and_takes_no_confirmation_from_before() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    described(writer.cluster.one(put("flights", "count", QUEUE, 100)));
    writer.accepted(records(topic, &[0]));
    let told = pending(&writer, topic);
    let same = described(writer.cluster.one(put("flights", "count", QUEUE, 100)));
    assert_eq!(
        (same.pending_records, pending(&writer, topic)[0].version),
        (1, told[0].version),
        "a repeat changes nothing"
    );

    described(writer.cluster.one(put("flights", "count", "http://127.0.0.1:1/other", 0)));
    assert_eq!(code(confirm(&mut writer, topic, &told[0])), ErrorCode::WakeupNotFound);
    let again = pending(&writer, topic);
    assert_eq!((again[0].queue.as_str(), ranges(&again)), ("http://127.0.0.1:1/other", vec![(0, 0, 1)]));

    // The other queue must not lose what was sent for a wake-up of the same name that is gone.
    let gone = DeleteWakeup { topic: named("flights"), name: "count".parse().unwrap() };
    writer.cluster.one(Command::DeleteWakeup(gone.clone())).unwrap();
    assert_eq!(code(writer.cluster.one(Command::DeleteWakeup(gone))), ErrorCode::WakeupNotFound);
    described(writer.cluster.one(put("flights", "count", QUEUE, 100)));
    writer.accepted(records(topic, &[0]));
    assert_eq!(code(confirm(&mut writer, topic, &again[0])), ErrorCode::WakeupNotFound);
    assert_eq!(ranges(&pending(&writer, topic)), [(0, 1, 2)]);
}

#[test]
fn partitions_that_come_later_are_announced_and_a_deleted_topic_is_not() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    described(writer.cluster.one(put("flights", "count", QUEUE, 100)));
    let grow = AlterTopic { topic: named("flights"), config: [].into(), partitions: Some(2) };
    writer.cluster.one(Command::AlterTopic(grow)).unwrap();
    writer.accepted(records(topic, &[1]));
    assert_eq!(ranges(&pending(&writer, topic)), [(1, 0, 1)]);
    assert_eq!(answer::wakeups(&writer.cluster.state, None), [(topic, "count".parse().unwrap())]);

    writer.cluster.one(delete("flights")).unwrap();
    let again = writer.cluster.create("flights", 2, 1);
    assert_eq!(answer::wakeups(&writer.cluster.state, None), []);
    writer.accepted(records(again, &[0]));
    assert_eq!(pending(&writer, again), [], "another topic under the same name has wake-ups of its own");
    let list = answer::list_wakeups(&writer.cluster.state, &ListWakeups { topic: named("flights") }).unwrap();
    assert_eq!((list.topic_id, list.wakeups), (again, vec![]));
}

#[test]
fn bad_wakeups_are_refused_and_each_topic_has_few() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    for (queue, window) in [("", 1), ("arn:aws:sqs:x", 1), ("https://a b", 1), (QUEUE, 60_001)] {
        assert_eq!(code(writer.cluster.one(put("flights", "w", queue, window))), ErrorCode::InvalidValue);
    }
    assert_eq!(code(writer.cluster.one(put("none", "w", QUEUE, 1))), ErrorCode::TopicNotFound);
    for number in 0..limits::TOPIC_WAKEUPS_MAX {
        described(writer.cluster.one(put("flights", &format!("w{number}"), QUEUE, 1)));
    }
    let full = writer.cluster.one(put("flights", "one-more", QUEUE, 1)).unwrap_err();
    assert_eq!(full.facts.limit, Some(limits::TOPIC_WAKEUPS_MAX as u64));

    // Never beyond what is committed, and unknown partitions say nothing.
    writer.accepted(records(topic, &[0]));
    let mut told = pending(&writer, topic).remove(0);
    told.events[0].partitions[0].to = Offset(99);
    let mut unknown = told.events[0].partitions[0];
    unknown.partition = PartitionIndex(7);
    told.events[0].partitions.push(unknown);
    confirm(&mut writer, topic, &told).unwrap();
    let stale = Announcement { version: LogIndex(1), ..told };
    assert_eq!(code(confirm(&mut writer, topic, &stale)), ErrorCode::WakeupNotFound);
    assert_eq!(pending(&writer, topic).len(), limits::TOPIC_WAKEUPS_MAX - 1);
}

#[test]
fn a_long_list_of_partitions_is_told_in_several_events() {
    let mut writer = Writer::new();
    let partitions = 2_500;
    let topic = writer.cluster.create("wide", 1, partitions);
    described(writer.cluster.one(put("wide", "w", QUEUE, 1)));
    let all: Vec<u32> = (0..partitions).collect();
    for some in all.chunks(limits::UNIT_PARTITIONS_MAX) {
        writer.accepted(records(topic, some));
    }
    let told = pending(&writer, topic);
    assert_eq!(
        told[0].events.iter().map(|event| event.partitions.len()).collect::<Vec<_>>(),
        [1_000, 1_000, 500]
    );
    confirm(&mut writer, topic, &told[0]).unwrap();
    assert_eq!(pending(&writer, topic), []);
}
