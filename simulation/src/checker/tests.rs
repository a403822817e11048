//! Goal: the checker accepts a right history and names the promise that each wrong one breaks.

use super::{Promise, check};
use crate::history::{
    Act, Answer, Append, AppendOutcome, Attempt, Fetch, History, Hold, Identity, Output, Partition, Value,
};
use std::time::Duration;

use Promise::{Atomic, Committed, Durable, ExactlyOnce, Linearizable, Offsets, Ownership, Retries};

fn second(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn acknowledged(values: &[Value], base_offset: u64, ended: u64) -> Append {
    Append {
        parts: [(0, values.to_vec())].into(),
        outcome: AppendOutcome::Acknowledged { base_offsets: [(0, base_offset)].into() },
        ended: second(ended),
        ..Append::default()
    }
}

fn fetch(partition: Partition, from: u64, started: u64, end: u64, records: &[(u64, Value)]) -> Fetch {
    Fetch {
        partition,
        from,
        started: second(started),
        ended: second(started + 1),
        high_watermark: end,
        next_offset: from + records.len() as u64,
        records: records.to_vec(),
    }
}

fn right() -> History {
    let refused = Append {
        parts: [(0, vec![9])].into(),
        outcome: AppendOutcome::Refused,
        ended: second(1),
        ..Append::default()
    };
    History {
        appends: vec![acknowledged(&[1, 2], 0, 2), acknowledged(&[3], 2, 5), refused],
        fetches: vec![fetch(0, 0, 3, 2, &[(0, 1), (1, 2)]), fetch(0, 2, 6, 3, &[(2, 3)])],
        finally: [(0, vec![(0, 1), (1, 2), (2, 3)])].into(),
        ..History::default()
    }
}

fn broken_of(mut history: History, change: impl FnOnce(&mut History)) -> Vec<Promise> {
    change(&mut history);
    let mut promises: Vec<_> = check(&history).into_iter().map(|breach| breach.promise).collect();
    promises.dedup();
    promises
}

#[test]
fn each_wrong_history_breaks_its_promise() {
    let broken = |change: fn(&mut History)| broken_of(right(), change);
    assert_eq!(broken(|_| ()), []);
    assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().truncate(2)), [Durable, Committed]);
    assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().push((4, 4))), [Offsets]);
    assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().push((3, 2))), [Offsets]);
    assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().push((3, 9))), [Committed]);
    assert_eq!(broken(|history| history.appends[0].parts.get_mut(&0).unwrap().swap(0, 1)), [Durable]);
    assert_eq!(broken(|history| history.fetches[0].records[1].1 = 7), [Committed]);
    assert_eq!(broken(|history| history.fetches[0].records[1].0 = 2), [Offsets]);
    assert_eq!(broken(|history| history.fetches[1].high_watermark = 2), [Linearizable]);
    assert_eq!(broken(|history| history.fetches[1].high_watermark = 1), [Linearizable]);
}

/// A unit over two partitions, at 0/1 and 1/0, sent three times.
fn repeated() -> History {
    let base_offsets = [(0, 1), (1, 0)];
    let attempt = |started, answer| Attempt { started: second(started), ended: second(started + 1), answer };
    let stored = |duplicate| Answer::Stored { duplicate, base_offsets: base_offsets.into() };
    let unit = Append {
        parts: [(0, vec![2]), (1, vec![7])].into(),
        condition: Some((1, 0)),
        identity: Some(Identity::Sequence { producer: "p".into(), epoch: 0, sequence: 1 }),
        attempts: vec![attempt(2, Answer::Unknown), attempt(3, stored(true)), attempt(9, stored(true))],
        outcome: AppendOutcome::Acknowledged { base_offsets: base_offsets.into() },
        ended: second(10),
    };
    let mut before = acknowledged(&[1], 0, 2);
    before.identity = Some(Identity::Sequence { producer: "p".into(), epoch: 0, sequence: 0 });
    before.attempts = vec![attempt(1, Answer::Stored { duplicate: false, base_offsets: [(0, 0)].into() })];
    History {
        appends: vec![before, unit],
        fetches: vec![fetch(0, 1, 3, 2, &[(1, 2)]), fetch(1, 0, 5, 1, &[(0, 7)])],
        finally: [(0, vec![(0, 1), (1, 2)]), (1, vec![(0, 7)])].into(),
        ..History::default()
    }
}

#[test]
fn halves_of_units_and_repeats_that_count_are_found() {
    let broken = |change: fn(&mut History)| broken_of(repeated(), change);
    assert_eq!(broken(|_| ()), []);
    let half = |history: &mut History| {
        history.finally.get_mut(&1).unwrap().clear();
        history.appends[1].outcome = AppendOutcome::Unknown;
        history.fetches.pop();
    };
    assert_eq!(broken(half), [Atomic]);
    let late = |history: &mut History| {
        history.appends[1].outcome = AppendOutcome::Unknown;
        history.fetches[1] = fetch(1, 0, 5, 0, &[]);
    };
    assert_eq!(broken(late), [Atomic]);
    assert_eq!(broken(|history| history.appends[1].condition = Some((1, 1))), [Atomic]);
    assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().push((2, 2))), [Retries]);
    let answered =
        |answer: Answer| broken_of(repeated(), move |history| history.appends[1].attempts[2].answer = answer);
    let elsewhere = Answer::Stored { duplicate: true, base_offsets: [(0, 1), (1, 1)].into() };
    let again = Answer::Stored { duplicate: false, base_offsets: [(0, 1), (1, 0)].into() };
    for wrong in [elsewhere, again, Answer::Refused("unknown_producer".into())] {
        assert_eq!(answered(wrong.clone()), [Retries], "{wrong:?}");
    }
    let kept_no_more = Answer::Stored { duplicate: true, base_offsets: [].into() };
    for fine in [kept_no_more, Answer::Unknown, Answer::Refused("no_quorum".into())] {
        assert_eq!(answered(fine.clone()), [], "{fine:?}");
    }
    let swapped = |history: &mut History| {
        for (place, sequence) in [(0, 1), (1, 0)] {
            history.appends[place].identity =
                Some(Identity::Sequence { producer: "p".into(), epoch: 0, sequence });
        }
    };
    assert_eq!(broken(swapped), [Retries]);
}

fn grouped() -> History {
    let hold = |tenure, from, until| Hold { partition: 0, tenure, from: second(from), until: second(until) };
    let act = |tenure, sent| Act { partition: 0, tenure, sent: second(sent), answered: second(sent + 1) };
    let output = |from, to| Output { partition: 5, from, to }.value();
    History {
        holds: vec![hold(1, 0, 5), hold(2, 5, 9)],
        acts: vec![act(1, 1), act(1, 4), act(2, 6)],
        finally: [(5, vec![(0, output(0, 3)), (1, output(3, 4))])].into(),
        handled: [(5, 4)].into(),
        ..History::default()
    }
}

#[test]
fn two_owners_and_wrong_counts_are_found() {
    let broken = |change: fn(&mut History)| broken_of(grouped(), change);
    assert_eq!(broken(|_| ()), []);
    assert_eq!(broken(|history| history.holds[1].from = second(4)), [Ownership]);
    assert_eq!(broken(|history| history.acts[2].tenure = 1), [Ownership]);
    assert_eq!(broken(|history| history.finally.get_mut(&5).unwrap()[1].1 = 77), [ExactlyOnce]);
    assert_eq!(broken(|history| history.handled = [(5, 3)].into()), [ExactlyOnce]);
    let doubled = |history: &mut History| {
        let log = history.finally.get_mut(&5).unwrap();
        log.push((2, log[1].1));
    };
    assert_eq!(broken(doubled), [ExactlyOnce]);
    let lost = |history: &mut History| {
        let log = history.finally.get_mut(&5).unwrap();
        log[1].1 = Output { partition: 5, from: 2, to: 4 }.value();
    };
    assert_eq!(broken(lost), [ExactlyOnce]);
}
