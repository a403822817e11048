//! Goal: requests of a producer leave in order of their sequences, none is lost, and none waits longer than it may.
//! Method: stories on plain values, then random orders of arrival with random answers.

use carnax_core::metadata::AppendedSlice;
use carnax_core::time::Timestamp;
use proptest::prelude::*;

use super::*;

const HOLD: Duration = Duration::from_millis(200);

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn of(producer: &str, epoch: u32, sequence: u128) -> ProducerStamp {
    let mode = SequenceMode::Contiguous;
    ProducerStamp { producer: producer.parse().unwrap(), epoch, sequence, mode, body_hash: [0; 16] }
}

fn stamp(sequence: u128) -> ProducerStamp {
    of("p", 0, sequence)
}

fn accepted() -> UnitOutcome {
    UnitOutcome::Accepted { slices: Vec::<AppendedSlice>::new(), append_time: Timestamp::EPOCH }
}

fn refused(code: ErrorCode, expected: Option<u128>) -> UnitOutcome {
    let expected = expected.map(|expected| expected.to_string());
    UnitOutcome::Refused(Problem::new(code, "test").with(|facts| facts.expected = expected))
}

/// A sequencer of which these sequences have passed.
fn after(sequences: impl IntoIterator<Item = u128>) -> Sequencer<u128> {
    let mut sequencer = Sequencer::new(HOLD);
    for sequence in sequences {
        assert_eq!(sequencer.arrive(&stamp(sequence), sequence, at(0)), [sequence]);
    }
    sequencer
}

#[test]
fn who_overtook_waits_for_the_one_before_and_all_leave_in_order() {
    let mut sequencer = after([0]);
    assert!(sequencer.arrive(&stamp(3), 3, at(10)).is_empty());
    assert!(sequencer.arrive(&stamp(2), 2, at(20)).is_empty());
    assert!(sequencer.arrive(&stamp(5), 5, at(30)).is_empty());
    assert_eq!(sequencer.arrive(&stamp(1), 1, at(40)), [1, 2, 3]);
    assert_eq!(sequencer.next_deadline(), Some(at(230)), "only 5 is held");
    assert_eq!(sequencer.arrive(&stamp(1), 1, at(50)), [1], "a repeat passes");
    assert!(sequencer.expire(at(229)).is_empty());
    assert_eq!(sequencer.expire(at(230)), [5]);
    assert_eq!(sequencer.arrive(&stamp(6), 6, at(240)), [6], "what follows it is not held again");
    assert!(sequencer.is_empty() && sequencer.next_deadline().is_none());
}

#[test]
fn when_time_is_up_whoever_comes_before_and_whoever_follows_leaves_too() {
    let mut sequencer = after([0]);
    for (sequence, millis) in [(4, 0), (3, 50), (5, 60), (9, 70)] {
        assert!(sequencer.arrive(&stamp(sequence), sequence, at(millis)).is_empty());
    }
    assert_eq!(sequencer.expire(at(200)), [3, 4, 5]);
    assert_eq!(sequencer.next_deadline(), Some(at(270)));
    assert_eq!(sequencer.release(), [9]);
    assert!(sequencer.is_empty());
}

#[test]
fn who_is_not_known_passes_at_once_and_others_do_not_wait_for_each_other() {
    let mut sequencer = Sequencer::new(HOLD);
    assert_eq!(sequencer.arrive(&stamp(7), 7, at(0)), [7]);
    assert!(sequencer.arrive(&stamp(9), 9, at(0)).is_empty());
    assert_eq!(sequencer.arrive(&of("q", 0, 3), 103, at(0)), [103], "another producer");
    assert!(sequencer.arrive(&of("p", 1, 1), 201, at(0)).is_empty(), "a new epoch begins with 0");
    assert_eq!(sequencer.arrive(&of("p", 1, 0), 200, at(1)), [200, 201]);
    assert_eq!(
        sequencer.arrive(&stamp(11), 11, at(2)),
        [11],
        "an epoch that will be fenced waits for nothing"
    );
    let increasing = ProducerStamp { mode: SequenceMode::Increasing, ..of("p", 1, 50) };
    assert_eq!(sequencer.arrive(&increasing, 250, at(2)), [250]);
    assert_eq!(sequencer.expire(at(200)), [9], "it was held under the epoch before");
    assert_eq!(sequencer.arrive(&of("p", 1, 2), 202, at(300)), [202], "the new epoch is still known");
}

#[test]
fn answers_correct_what_is_known() {
    let mut sequencer = after([0, 1, 2]);
    // Another frontend took 3 and 4: nobody knows here until the answer to a repeat says so.
    assert!(sequencer.arrive(&stamp(5), 5, at(0)).is_empty());
    let duplicate = UnitOutcome::Duplicate { slices: Vec::new(), append_time: Timestamp::EPOCH };
    assert_eq!(sequencer.decided(&stamp(4), &duplicate), [5]);

    // 6 was refused for a gap: 4 is to come again, and before it 5 has to wait.
    assert!(sequencer.decided(&stamp(6), &refused(ErrorCode::SequenceGap, Some(4))).is_empty());
    assert!(sequencer.arrive(&stamp(5), 5, at(0)).is_empty());
    assert_eq!(sequencer.arrive(&stamp(4), 4, at(0)), [4, 5]);

    // A definite failure frees the sequence, an unknown outcome says nothing.
    sequencer.failed(&stamp(5), &Problem::new(ErrorCode::ObjectStoreUnavailable, "test"));
    assert!(sequencer.arrive(&stamp(6), 6, at(0)).is_empty());
    assert_eq!(sequencer.arrive(&stamp(5), 5, at(0)), [5, 6]);
    sequencer.failed(&stamp(5), &Problem::new(ErrorCode::OutcomeUnknown, "test"));
    assert_eq!(sequencer.arrive(&stamp(7), 7, at(0)), [7]);
    assert!(sequencer.decided(&stamp(7), &refused(ErrorCode::ConditionFailed, None)).is_empty());
    assert!(sequencer.arrive(&stamp(8), 8, at(0)).is_empty());
    assert_eq!(sequencer.decided(&stamp(7), &accepted()), [8]);

    sequencer.decided(&stamp(8), &refused(ErrorCode::UnknownProducer, Some(0)));
    assert_eq!(sequencer.arrive(&stamp(40), 40, at(0)), [40], "forgotten");
}

#[test]
fn what_is_held_and_known_is_bounded() {
    let mut sequencer = after([0]);
    for sequence in 0..HELD_MAX as u128 {
        assert!(sequencer.arrive(&stamp(2 + sequence), sequence, at(0)).is_empty());
    }
    assert_eq!(sequencer.arrive(&stamp(1 << 70), 7, at(0)), [7], "no room to hold it");
    assert_eq!(sequencer.arrive(&stamp(1), 1, at(0)).len(), HELD_MAX + 1);
    for number in 0..KNOWN_MAX {
        sequencer.arrive(&of(&format!("q{number}"), 0, 0), 0, at(0));
    }
    assert_eq!((sequencer.known.by_id.len(), sequencer.known.by_use.len()), (KNOWN_MAX, KNOWN_MAX));
    assert_eq!(sequencer.arrive(&stamp(1 << 80), 9, at(0)), [9], "the longest unheard one is forgotten");
    assert_eq!(sequencer.arrive(&stamp(u128::MAX), 8, at(0)).len() + sequencer.release().len(), 1);
    assert_eq!(sequencer.arrive(&stamp(u128::MAX), 8, at(0)), [8], "there is nothing after the last one");
}

/// What happens next to one of two producers.
#[derive(Debug, Clone)]
enum Step {
    Arrive { producer: bool, sequence: u8 },
    Decided { producer: bool, sequence: u8, outcome: u8 },
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 0..12_u8).prop_map(|(producer, sequence)| Step::Arrive { producer, sequence }),
        2 => (any::<bool>(), 0..12_u8, 0..5_u8)
            .prop_map(|(producer, sequence, outcome)| Step::Decided { producer, sequence, outcome }),
        1 => (0..120_u8).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_leaves_once_in_order_and_in_time(steps in proptest::collection::vec(step(), 1..80)) {
        let mut sequencer = Sequencer::new(HOLD);
        let mut now = at(0);
        let mut waiting: BTreeMap<usize, (bool, u8, Duration)> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            let name = |producer: bool| if producer { "p" } else { "q" };
            let left = match step {
                Step::Arrive { producer, sequence } => {
                    waiting.insert(number, (producer, sequence, now));
                    sequencer.arrive(&of(name(producer), 0, sequence.into()), number, now)
                }
                Step::Decided { producer, sequence, outcome } => {
                    let outcome = match outcome {
                        0 | 1 => accepted(),
                        2 => refused(ErrorCode::SequenceGap, Some(u128::from(sequence / 2))),
                        3 => refused(ErrorCode::ConditionFailed, None),
                        _ => refused(ErrorCode::UnknownProducer, Some(0)),
                    };
                    sequencer.decided(&of(name(producer), 0, sequence.into()), &outcome)
                }
                Step::Pass(millis) => {
                    now += at(millis.into());
                    sequencer.expire(now)
                }
            };
            let gone: Vec<_> = left.iter().map(|number| waiting.remove(number)).collect();
            prop_assert!(gone.iter().all(Option::is_some), "something left twice");
            for producer in [false, true] {
                let of_one = gone.iter().flatten().filter(|gone| gone.0 == producer).map(|gone| gone.1);
                prop_assert!(of_one.collect::<Vec<_>>().is_sorted(), "{gone:?}");
            }
            prop_assert!(waiting.values().all(|(_, _, since)| now < *since + HOLD || !matches!(step, Step::Pass(_))));
            prop_assert_eq!(waiting.len(), sequencer.until.len());
            prop_assert_eq!(waiting.len(), sequencer.held.values().map(BTreeMap::len).sum::<usize>());
        }
        prop_assert_eq!(sequencer.release().len(), waiting.len());
        prop_assert!(sequencer.is_empty() && sequencer.held.is_empty());
    }

    #[test]
    fn a_producer_that_began_with_0_leaves_in_order_if_all_come_in_time(
        window in 2..6_usize, picks in proptest::collection::vec(any::<u8>(), 40),
    ) {
        let mut sequencer = after([0]);
        let mut flying: Vec<u128> = Vec::new();
        let (mut next, mut left) = (1, Vec::new());
        for pick in picks {
            while flying.len() < window {
                flying.push(next);
                next += 1;
            }
            // The oldest always arrives before its time is up.
            let sequence = flying.remove(if left.len() % 3 == 0 { 0 } else { usize::from(pick) % flying.len() });
            left.extend(sequencer.arrive(&stamp(sequence), sequence, at(0)));
        }
        flying.sort_unstable();
        flying.into_iter().for_each(|sequence| left.extend(sequencer.arrive(&stamp(sequence), sequence, at(0))));
        prop_assert_eq!(left, (1..next).collect::<Vec<_>>());
        prop_assert!(sequencer.is_empty());
    }
}
