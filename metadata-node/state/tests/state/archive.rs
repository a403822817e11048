//! The archive as bytes, and which of its objects a restore takes, whatever several leaders wrote, each knowing only of itself.

use std::collections::BTreeSet;

use bytes::Bytes;
use carnax_core::id::{ClusterId, Incarnation, LogIndex};
use carnax_core::time::Timestamp;
use carnax_metadata_state::archive::{
    ArchiveError, ArchiveRange, ArchivedEntry, Holdings, chain, decode, encode,
};
use proptest::prelude::*;

use crate::bytes::golden;
use crate::support::INCARNATION;

fn cluster() -> ClusterId {
    ClusterId::from_parts(Timestamp::from_millis(1_700_000_000_000), 1)
}

fn example() -> Vec<ArchivedEntry> {
    let bytes = ["first", "", "third"];
    (41..)
        .zip(bytes)
        .map(|(index, bytes)| ArchivedEntry { index: LogIndex(index), term: 7, bytes: bytes.into() })
        .collect()
}

#[test]
fn the_golden_file_of_version_1_is_read_and_written_alike() {
    let golden = Bytes::from(std::fs::read(golden("archive-1.bin")).unwrap());
    assert_eq!(decode(cluster(), INCARNATION, &golden).unwrap(), example());
    assert!(encode(cluster(), INCARNATION, &example()) == golden, "the encoding of the archive has changed");
}

#[test]
#[ignore = "writes the golden file; run it once for a new version"]
fn write_golden_file() {
    std::fs::write(golden("archive-1.bin"), encode(cluster(), INCARNATION, &example())).unwrap();
}

#[test]
fn damage_and_objects_of_others_are_refused() {
    let whole = encode(cluster(), INCARNATION, &example());
    for length in 0..whole.len() {
        assert!(decode(cluster(), INCARNATION, &whole.slice(..length)).is_err(), "cut to {length}");
    }
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(cluster(), INCARNATION, &damaged.into()).is_err(), "bit {bit}");
    }
    let longer = Bytes::from([&whole[..], b"x"].concat());
    assert!(matches!(decode(cluster(), INCARNATION, &longer), Err(ArchiveError::Damaged { .. })));
    let other = decode(cluster(), Incarnation(2), &whole).unwrap_err();
    assert_eq!(other, ArchiveError::OtherCluster { cluster: cluster(), incarnation: INCARNATION });
}

fn range(first: u64, last: u64) -> ArchiveRange {
    ArchiveRange { first: LogIndex(first), last: LogIndex(last) }
}

#[test]
fn the_chain_ends_at_the_first_gap_and_takes_whatever_goes_on() {
    let ranges = vec![range(1, 5), range(3, 8), range(6, 7), range(9, 9), range(11, 20)];
    assert_eq!(chain(LogIndex(0), ranges.clone()), [range(1, 5), range(3, 8), range(9, 9)]);
    assert_eq!(chain(LogIndex(4), ranges.clone()), [range(3, 8), range(9, 9)]);
    assert_eq!(chain(LogIndex(9), ranges.clone()), []);
    assert_eq!(chain(LogIndex(10), ranges), [range(11, 20)]);
}

proptest! {
    #[test]
    fn the_chain_reaches_as_far_as_the_entries_do(
        behind in 0_u64..30,
        ranges in prop::collection::vec((1_u64..60, 0_u64..12), 0..20),
    ) {
        let ranges: Vec<ArchiveRange> = ranges.into_iter().map(|(first, more)| range(first, first + more)).collect();
        let there: BTreeSet<u64> = ranges.iter().flat_map(|range| range.first.0..=range.last.0).collect();
        let end = (behind + 1..).take_while(|index| there.contains(index)).last().unwrap_or(behind);
        let found = chain(LogIndex(behind), ranges);
        let mut reached = behind;
        for range in &found {
            prop_assert!(range.first.0 <= reached + 1 && range.last.0 > reached, "{:?}", found);
            reached = range.last.0;
        }
        prop_assert_eq!(reached, end);
    }
}

/// A leader, deposed or not: it knows only what it read and wrote itself.
#[derive(Debug, Clone, Default)]
struct Leader {
    /// What it had applied when it last looked.
    applied: u64,
    /// Up to where it believes everything to be in the archive; none before it has looked.
    archived: Option<u64>,
    /// The oldest entry that it still has in memory.
    memory_from: u64,
}

#[derive(Debug, Clone)]
enum Step {
    /// The log grows, and this leader applies some of it.
    Apply(usize, u64),
    /// It forgets entries.
    Forget(usize, u64),
    /// It archives at most so many entries, or begins with a snapshot where it must.
    Archive(usize, u64),
    /// It writes a snapshot; one in three stays without the object that makes it complete.
    Snapshot(usize, bool),
    /// It deletes at most so many objects of what the bucket no longer needs.
    Prune(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let leader = 0_usize..3;
    let step = prop_oneof![
        (leader.clone(), 1_u64..9).prop_map(|(leader, entries)| Step::Apply(leader, entries)),
        (leader.clone(), 1_u64..9).prop_map(|(leader, entries)| Step::Forget(leader, entries)),
        (leader.clone(), 1_u64..9).prop_map(|(leader, entries)| Step::Archive(leader, entries)),
        (leader, prop::bool::weighted(0.7)).prop_map(|(leader, whole)| Step::Snapshot(leader, whole)),
        (0_usize..5).prop_map(Step::Prune),
    ];
    prop::collection::vec(step, 1..80)
}

fn archive(bucket: &mut Holdings, leader: &mut Leader, entries: u64) {
    let from = leader.archived.unwrap_or_else(|| bucket.end().0);
    if from >= leader.applied {
        leader.archived.get_or_insert(from);
        return;
    }
    if from + 1 < leader.memory_from {
        bucket.snapshots.insert(LogIndex(leader.applied));
        leader.archived = Some(leader.applied);
    } else {
        let last = leader.applied.min(from + entries);
        bucket.ranges.insert(range(from + 1, last));
        leader.archived = Some(last);
    }
}

proptest! {
    #[test]
    fn what_any_leader_believes_archived_is_restored_however_they_interleave(steps in steps()) {
        let mut bucket = Holdings::default();
        let mut leaders = vec![Leader { memory_from: 1, ..Leader::default() }; 3];
        let mut committed = 0;
        for step in steps {
            match step {
                Step::Apply(who, entries) => {
                    committed += entries;
                    leaders[who].applied = committed;
                }
                Step::Forget(who, entries) => leaders[who].memory_from += entries,
                Step::Archive(who, entries) => archive(&mut bucket, &mut leaders[who], entries),
                Step::Snapshot(who, whole) => {
                    if whole && leaders[who].applied > 0 {
                        bucket.snapshots.insert(LogIndex(leaders[who].applied));
                    }
                }
                Step::Prune(objects) => {
                    let gone = bucket.superseded();
                    prop_assert!(gone.snapshots.len() + 2 <= bucket.snapshots.len() || gone.snapshots.is_empty());
                    // In any order, and cut off anywhere.
                    for range in gone.ranges.iter().take(objects) {
                        bucket.ranges.remove(range);
                    }
                    for snapshot in gone.snapshots.iter().take(objects.saturating_sub(gone.ranges.len())) {
                        bucket.snapshots.remove(snapshot);
                    }
                }
            }
            let believed = leaders.iter().filter_map(|leader| leader.archived).max().unwrap_or(0);
            prop_assert!(bucket.end().0 >= believed, "{:?} {:?}", leaders, bucket);
            prop_assert!(bucket.end().0 <= committed);
        }
    }
}
