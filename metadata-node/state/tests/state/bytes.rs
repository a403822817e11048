//! Entries and snapshots as bytes: golden files of each version, round trips, and damage of every kind.

use std::path::PathBuf;

use carnax_core::id::SessionId;
use carnax_core::metadata::{DeleteGroup, FetchFrom, Heartbeat, LeaveGroup, Routing, TokenNow, UnitCommit};
use carnax_core::name::{GroupName, MemberId};
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_metadata_state::snapshot::{self, ReadError};
use carnax_metadata_state::{Command, Entry, EntryError, FeatureLevel, State, invariant};

use crate::groups::commands_of_groups;
use crate::jobs::commands_of_jobs;
use crate::support::{
    Cluster, START, bootstrap, bytes_of, commit, create, delete, open_session, read_back, segment, slice,
    topic_id, trim, unit,
};
use crate::wakeups::commands_of_wakeups;
use crate::writer::{Writer, expecting, fence, holding, increasing, keyed, raise, records, set, stamped};

pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// A state with something in every table of level 1; what builds the states of later levels upon it goes up to them.
fn example() -> Cluster {
    let mut cluster = Cluster::of_level(FeatureLevel(3));
    let (kept, dropped) = (cluster.create("flights", 1, 3), cluster.create("dropped", 2, 1));
    let (session, _idle) = (cluster.open_session(), cluster.open_session());
    cluster.one(Command::RegisterNode { address: "b:1".to_owned(), disk: 7 }).unwrap();
    let segments = vec![
        segment(cluster.segment(1), vec![slice(kept, 0, 0, 100, 10, -5), slice(kept, 2, 100, 50, 5, 7)]),
        segment(cluster.segment(2), vec![slice(dropped, 0, 0, 100, 10, 9)]),
        segment(cluster.segment(3), vec![slice(kept, 0, 30, 70, 7, 3), slice(dropped, 9, 0, 1, 1, 1)]),
    ];
    cluster.commit(session, 1, segments).unwrap();
    cluster.one(trim("flights", 0, 4)).unwrap();
    cluster.one(delete("dropped")).unwrap();
    cluster
}

/// The same with everything that level 2 brought.
pub(crate) fn example_of_level_2() -> Cluster {
    let mut writer = Writer { cluster: example(), session: SessionId(0), number: 0 };
    writer.session = writer.cluster.open_session();
    let topic = topic_id(1);
    writer.set(&[("producer.max", Some("9")), ("idempotency.window.ms", Some("60000"))]).unwrap();
    writer.cluster.one(fence("flights", 2, Some("token"), TokenNow::Any)).unwrap();
    for sequence in 0..10 {
        writer.accepted(stamped("raised", 4, sequence, records(topic, &[0, 1])));
    }
    writer.raise("raised", Some(4)).unwrap();
    writer.raise("new", None).unwrap();
    writer.wait(1_000);
    writer.accepted(increasing(stamped("queue", 0, u128::MAX, records(topic, &[2]))));
    writer.accepted(keyed("", "k", records(topic, &[0])));
    writer.wait(1_000);
    writer.accepted(keyed("alice", "k", records(topic, &[0, 2])));
    writer.cluster
}

/// The same with groups.
fn example_with_groups() -> Cluster {
    let mut cluster = example_of_level_2();
    for command in commands_of_groups() {
        cluster.one(command).unwrap();
    }
    cluster
}

/// The same with a wake-up that has something pending and something announced.
fn example_with_wakeups() -> Cluster {
    let mut cluster = example_with_groups();
    let outcomes = commands_of_wakeups().into_iter().map(|command| cluster.one(command).is_ok());
    assert_eq!(outcomes.collect::<Vec<_>>(), [true, true, false, true], "confirmed under another version");
    let session = cluster.open_session();
    let more = segment(cluster.segment(9), vec![slice(topic_id(1), 1, 0, 12, 3, 5)]);
    cluster.commit(session, 1, vec![more]).unwrap();
    cluster
}

/// The same with a worker in the middle of a job, and a deadline that was changed.
pub(crate) fn example_with_jobs() -> Cluster {
    let mut cluster = example_with_wakeups();
    cluster.level = FeatureLevel(4);
    cluster.open_session();
    for command in commands_of_jobs(cluster.index + 2) {
        cluster.one(command).unwrap();
    }
    cluster
}

fn example_entry() -> Entry {
    let topic = topic_id(1);
    let routing = vec![Routing { topic, partition_count: 3 }];
    let routed = UnitCommit { routing, ..unit(vec![slice(topic, 1, 12, 80, 4, -1)]) };
    let mut one = segment(example().segment(1), vec![slice(topic, 0, 0, 12, 3, 5)]);
    one.units.push(routed);
    let commands = vec![
        bootstrap(3),
        open_session(),
        create("flights", topic, 3, &[("retention.ms", "604800000")]),
        commit(SessionId(2), 1, vec![one]),
        trim("flights", 0, 2),
        delete("flights"),
        Command::RegisterNode { address: "b:1".to_owned(), disk: u128::MAX },
        Command::DeregisterNode { node: carnax_core::id::NodeId(2) },
        Command::SetVoters { voters: vec![carnax_core::id::NodeId(1)] },
        Command::ExpireSessions,
    ];
    Entry { level: FeatureLevel(1), log_time: Timestamp::from_millis(START), commands }
}

fn example_entry_of_level_2() -> Entry {
    let topic = topic_id(1);
    let unit = holding(topic, 1, "token", expecting(topic, 0, 7, stamped("p", 1, 2, records(topic, &[0]))));
    let mut one = segment(example().segment(1), vec![]);
    one.units = vec![unit, keyed("alice", "k", records(topic, &[1]))];
    let commands = vec![
        raise("p", None),
        raise("p", Some(0)),
        fence("flights", 2, Some("token"), TokenNow::Nothing),
        fence("flights", 2, None, TokenNow::Token("token".parse().unwrap())),
        set(&[("producer.max", Some("9")), ("idempotency.max", None)]),
        commit(SessionId(2), 1, vec![one]),
    ];
    Entry { level: FeatureLevel(2), log_time: Timestamp::from_millis(START), commands }
}

fn example_entry_of_groups() -> Entry {
    let (group, member): (GroupName, MemberId) = ("readers".parse().unwrap(), "ada".parse().unwrap());
    let heartbeat = Heartbeat { group: group.clone(), member: member.clone(), epoch: 1, assignment_epoch: 2 };
    let leave = LeaveGroup { group: group.clone(), member: member.clone(), epoch: None };
    let mut commands = commands_of_groups();
    commands.extend([
        Command::ConfirmAssignment(heartbeat),
        Command::ExpireMembers { members: vec![(group.clone(), member, 1)] },
        Command::LeaveGroup(leave),
        Command::DeleteGroup(DeleteGroup { group }),
    ]);
    Entry { level: FeatureLevel(2), log_time: Timestamp::from_millis(START), commands }
}

fn example_entry_of_wakeups() -> Entry {
    let log_time = Timestamp::from_millis(START);
    Entry { level: FeatureLevel(3), log_time, commands: commands_of_wakeups() }
}

fn example_entry_of_jobs() -> Entry {
    let log_time = Timestamp::from_millis(START);
    Entry { level: FeatureLevel(4), log_time, commands: commands_of_jobs(2) }
}

#[test]
fn golden_files_of_version_1_are_read_and_written_alike() {
    let entry = std::fs::read(golden("entry-1.bin")).unwrap();
    assert_eq!(Entry::decode(&entry).unwrap(), example_entry());
    assert!(example_entry().encode() == entry, "the encoding of an entry has changed");
    let bytes = std::fs::read(golden("snapshot-1.bin")).unwrap();
    let state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&state), Vec::<String>::new());
    assert!(bytes_of(&state) == bytes && bytes_of(&example().state) == bytes, "the snapshot has changed");
}

#[test]
fn golden_files_of_level_2_are_read_and_written_alike() {
    let entry = std::fs::read(golden("entry-1-level-2.bin")).unwrap();
    assert_eq!(Entry::decode(&entry).unwrap(), example_entry_of_level_2());
    assert!(example_entry_of_level_2().encode() == entry, "the encoding of an entry has changed");
    let bytes = std::fs::read(golden("snapshot-1-level-2.bin")).unwrap();
    let state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&state), Vec::<String>::new());
    assert!(bytes_of(&state) == bytes && bytes_of(&example_of_level_2().state) == bytes);
}

#[test]
fn golden_files_of_groups_are_read_and_written_alike() {
    let entry = std::fs::read(golden("entry-1-groups.bin")).unwrap();
    assert_eq!(Entry::decode(&entry).unwrap(), example_entry_of_groups());
    assert!(example_entry_of_groups().encode() == entry, "the encoding of an entry has changed");
    let bytes = std::fs::read(golden("snapshot-1-groups.bin")).unwrap();
    let state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&state), Vec::<String>::new());
    assert!(bytes_of(&state) == bytes && bytes_of(&example_with_groups().state) == bytes);
}

#[test]
fn golden_files_of_wakeups_are_read_and_written_alike() {
    let entry = std::fs::read(golden("entry-1-wakeups.bin")).unwrap();
    assert_eq!(Entry::decode(&entry).unwrap(), example_entry_of_wakeups());
    assert!(example_entry_of_wakeups().encode() == entry, "the encoding of an entry has changed");
    let bytes = std::fs::read(golden("snapshot-1-wakeups.bin")).unwrap();
    let state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&state), Vec::<String>::new());
    assert!(bytes_of(&state) == bytes && bytes_of(&example_with_wakeups().state) == bytes);
}

#[test]
fn golden_files_of_jobs_are_read_and_written_alike() {
    let entry = std::fs::read(golden("entry-1-jobs.bin")).unwrap();
    assert_eq!(Entry::decode(&entry).unwrap(), example_entry_of_jobs());
    assert!(example_entry_of_jobs().encode() == entry, "the encoding of an entry has changed");
    let bytes = std::fs::read(golden("snapshot-1-jobs.bin")).unwrap();
    let state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&state), Vec::<String>::new());
    assert!(bytes_of(&state) == bytes && bytes_of(&example_with_jobs().state) == bytes);
}

#[test]
#[ignore = "writes the golden files; run it once for a new version"]
fn write_golden_files() {
    std::fs::write(golden("entry-1.bin"), example_entry().encode()).unwrap();
    std::fs::write(golden("snapshot-1.bin"), bytes_of(&example().state)).unwrap();
    std::fs::write(golden("entry-1-level-2.bin"), example_entry_of_level_2().encode()).unwrap();
    std::fs::write(golden("snapshot-1-level-2.bin"), bytes_of(&example_of_level_2().state)).unwrap();
    std::fs::write(golden("entry-1-wakeups.bin"), example_entry_of_wakeups().encode()).unwrap();
    std::fs::write(golden("snapshot-1-wakeups.bin"), bytes_of(&example_with_wakeups().state)).unwrap();
    std::fs::write(golden("entry-1-jobs.bin"), example_entry_of_jobs().encode()).unwrap();
    std::fs::write(golden("snapshot-1-jobs.bin"), bytes_of(&example_with_jobs().state)).unwrap();
    std::fs::write(golden("entry-1-groups.bin"), example_entry_of_groups().encode()).unwrap();
    std::fs::write(golden("snapshot-1-groups.bin"), bytes_of(&example_with_groups().state)).unwrap();
}

#[test]
fn a_damaged_or_cut_entry_is_refused() {
    let bytes = example_entry().encode();
    for length in 0..bytes.len() {
        assert!(Entry::decode(&bytes[..length]).is_err(), "cut to {length}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Entry::decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn an_entry_of_the_future_stops_the_node() {
    let sealed = |content: &[u8]| {
        let mut bytes = vec![1];
        bytes.extend(crc32c::crc32c(content).to_be_bytes());
        bytes.extend(content);
        Entry::decode(&bytes)
    };
    let mut future = example_entry();
    future.level = FeatureLevel(FeatureLevel::CURRENT.0 + 1);
    assert!(matches!(
        Entry::decode(&future.encode()),
        Err(EntryError::UnknownLevel { level, .. }) if level == future.level
    ));
    let mut bytes = example_entry().encode();
    bytes[0] = 2;
    assert!(matches!(Entry::decode(&bytes), Err(EntryError::UnknownVersion { version: 2 })));
    #[derive(serde::Serialize)]
    struct Unknown {
        level: u32,
        log_time: i64,
        commands: Vec<&'static str>,
    }
    let unknown = Unknown { level: 1, log_time: 0, commands: vec!["frobnicate"] };
    let content = rmp_serde::to_vec_named(&unknown).unwrap();
    assert!(matches!(sealed(&content), Err(EntryError::Content(_))));
    let mut content = example_entry().encode()[5..].to_vec();
    content.push(0);
    assert!(matches!(sealed(&content), Err(EntryError::TrailingBytes)));
    // An array that claims four billion commands is no reason to allocate for them.
    let mut hostile = rmp_serde::to_vec_named(&Unknown { level: 1, log_time: 0, commands: vec![] }).unwrap();
    *hostile.last_mut().unwrap() = 0xdd;
    hostile.extend([0xff; 4]);
    assert!(matches!(sealed(&hostile), Err(EntryError::Content(_))));
}

#[test]
fn a_damaged_cut_or_overlong_snapshot_is_refused() {
    let bytes = bytes_of(&example_with_jobs().state);
    for length in 0..bytes.len() {
        assert!(read_back(&bytes[..length]).is_err(), "cut to {length}");
    }
    // One or two bits of every byte, each of the eight in turn.
    for bit in (0..bytes.len() * 8).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read_back(&damaged).is_err(), "bit {bit}");
    }
    let limits = snapshot::Limits { bytes_max: 100 };
    assert!(matches!(snapshot::read(&mut &bytes[..], limits), Err(ReadError::TooLarge { limit: 100 })));
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(read_back(&longer), Err(ReadError::Contradiction { .. })));
    let mut hostile = bytes[..12].to_vec();
    hostile.extend([0x0f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1]);
    assert!(matches!(read_back(&hostile), Err(ReadError::Io(_))), "a length is not believed");
    assert!(matches!(read_back(b"CARNAXST\0\0\0\x02"), Err(ReadError::UnknownVersion { version: 2 })));
}

#[test]
fn a_large_partition_goes_over_many_frames_and_comes_back_whole() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("flights", 1, 2);
    let session = cluster.open_session();
    for number in 1..=40_u64 {
        let slices = (0..100).map(|place| slice(topic, 1, place * 20, 10, 1, 5)).collect();
        let one = vec![segment(cluster.segment(number.into()), slices)];
        cluster.commit(session, number, one).unwrap();
    }
    cluster.one(trim("flights", 1, 150)).unwrap();
    let bytes = bytes_of(&cluster.state);
    cluster.state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&cluster.state), Vec::<String>::new());
    assert!(bytes_of(&cluster.state) == bytes);
    let plan = cluster.plan("flights", 1, FetchFrom::Offset(Offset(3_333))).unwrap();
    assert_eq!((plan.slices[0].base_offset, plan.slices.len()), (Offset(3_333), 667));
    assert!(bytes_of(&State::default()) == bytes_of(&read_back(&bytes_of(&State::default())).unwrap()));
}
