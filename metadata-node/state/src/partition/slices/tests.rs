//! The tree against a plain vector, with enough slices for several levels.

use std::ops::ControlFlow;

use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use proptest::prelude::*;

use super::{Slice, Slices};
use crate::segment::SegmentNumber;

#[derive(Debug, Clone)]
enum Step {
    Push {
        count: usize,
        time: i64,
    },
    Extend {
        records: u32,
        time: i64,
    },
    DropBelow {
        percent: usize,
    },
    Replace {
        percent: usize,
        count: usize,
        large: bool,
    },
    /// Holds a clone from here on, which later steps must not change.
    Hold,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..3_000_usize, -1_000..1_000_i64).prop_map(|(count, time)| Step::Push { count, time }),
        1 => (1..9_u32, -1_000..1_000_i64).prop_map(|(records, time)| Step::Extend { records, time }),
        2 => (0..=100_usize).prop_map(|percent| Step::DropBelow { percent }),
        4 => (0..=100_usize, 1..1_500_usize, any::<bool>())
            .prop_map(|(percent, count, large)| Step::Replace { percent, count, large }),
        1 => Just(Step::Hold),
    ];
    proptest::collection::vec(step, 1..12)
}

fn all(slices: &Slices) -> Vec<Slice> {
    let mut seen = Vec::new();
    slices.visit(&mut |slice| seen.push(*slice));
    seen
}

fn push(tree: &mut Slices, model: &mut Vec<Slice>, end: &mut u64, time: i64) {
    let records = 1 + u32::try_from(*end % 3).unwrap();
    // Times that go up and down, so that the first slice of a time is not the first one of its leaf.
    let max_timestamp = Timestamp::from_millis(time + i64::try_from(*end * 31 % 97).unwrap());
    let slice =
        Slice { base: Offset(*end), segment: SegmentNumber(1), max_timestamp, start: 0, length: 7, records };
    *end = slice.end().0;
    tree.push(slice);
    model.push(slice);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_finds_what_a_search_through_a_vector_finds(steps in steps()) {
        let (mut tree, mut model, mut end) = (Slices::default(), Vec::new(), 0);
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Push { count, time } => (0..count).for_each(|_| push(&mut tree, &mut model, &mut end, time)),
                Step::Extend { records, time } => {
                    let time = Timestamp::from_millis(time);
                    tree.extend_last(3, records, time);
                    if let Some(last) = model.last_mut() {
                        last.length += 3;
                        last.records += records;
                        last.max_timestamp = last.max_timestamp.max(time);
                        end = last.end().0;
                    }
                }
                Step::DropBelow { percent } => {
                    let below = model.get(model.len() * percent / 100).map_or(Offset(end), |slice: &Slice| slice.base);
                    let kept = model.split_off(model.partition_point(|slice| slice.end() <= below));
                    let mut dropped = Vec::new();
                    tree.drop_below(below, &mut |slice| dropped.push(*slice));
                    prop_assert_eq!(&dropped, &model, "each dropped slice is told, in order");
                    model = kept;
                }
                Step::Replace { percent, count, large } => {
                    let from = model.len() * percent / 100;
                    let to = (from + count).min(model.len());
                    let (Some(first), Some(last)) = (model.get(from), model[..to].last()) else { continue };
                    if from >= to {
                        continue;
                    }
                    let records = u32::try_from(last.end().since(first.base)).unwrap();
                    let length = if large { 64 << 20 } else { 9 };
                    let new = Slice { base: first.base, segment: SegmentNumber(2), records, length, ..*last };
                    tree.replace(new);
                    model.splice(from..to, [new]);
                }
                Step::Hold => held.push((tree.clone(), model.clone())),
            }
            prop_assert_eq!(tree.faults(), Vec::<&str>::new());
            prop_assert_eq!(tree.last(), model.last());
            prop_assert_eq!(tree.summary().slices, model.len() as u64);
            prop_assert_eq!(tree.summary().bytes, model.iter().map(|slice| u64::from(slice.length)).sum::<u64>());
            prop_assert_eq!(tree.summary().small, model.iter().filter(|slice| slice.is_small()).count() as u64);
            prop_assert_eq!(tree.first_small(), model.iter().find(|slice| slice.is_small()));
            for time in [-1_100, -500, 0, 500, 1_000, 1_096] {
                let time = Timestamp::from_millis(time);
                prop_assert_eq!(tree.first_reaching(time), model.iter().find(|slice| slice.max_timestamp >= time));
            }
            for place in [0, model.len() / 3, model.len() / 2, model.len()] {
                let from = model.get(place).map_or(Offset(end), |slice| slice.base);
                let mut seen = Vec::new();
                tree.visit_from(from, &mut |slice| {
                    seen.push(*slice);
                    if seen.len() == 70 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                let expected = model.get(place..).unwrap_or_default();
                prop_assert_eq!(&seen[..], &expected[..expected.len().min(70)]);
            }
        }
        prop_assert!(all(&tree) == model);
        prop_assert!(held.iter().all(|(tree, model)| all(tree) == *model), "a clone never changes");
    }
}
