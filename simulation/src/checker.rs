//! Judges a history by the promises of the log. Pure: it knows nothing of how the history came about.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::history::{Append, AppendOutcome, Fetch, History, Partition, Value};

/// A promise that was broken, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breach {
    pub(crate) promise: Promise,
    pub(crate) evidence: String,
}

/// The promises that clients can check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// P1: an acknowledged record is durable.
    Durable,
    /// P2: offsets are dense and final.
    Offsets,
    /// P3: reads are linearizable, and the high watermark never goes back.
    Linearizable,
    /// P6: what was not committed is never shown; what was refused is not in the log.
    Committed,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let promise = match self.promise {
            Promise::Durable => "P1",
            Promise::Offsets => "P2",
            Promise::Linearizable => "P3",
            Promise::Committed => "P6",
        };
        write!(f, "{promise}: {}", self.evidence)
    }
}

/// All breaches, in the order of the promises.
pub(crate) fn check(history: &History) -> Vec<Breach> {
    let mut breaches = Vec::new();
    offsets_are_dense(history, &mut breaches);
    values_stand_once(history, &mut breaches);
    acknowledged_is_durable(history, &mut breaches);
    refused_is_absent(history, &mut breaches);
    shown_is_final(history, &mut breaches);
    reads_see_what_was_acknowledged(history, &mut breaches);
    high_watermarks_never_go_back(history, &mut breaches);
    breaches.sort_by_key(|breach| breach.promise);
    breaches
}

/// P2: in the end every partition holds the offsets 0, 1, 2 … and nothing else: no trim and no compaction ran.
fn offsets_are_dense(history: &History, breaches: &mut Vec<Breach>) {
    for (partition, records) in &history.finally {
        for (expected, (offset, _)) in (0_u64..).zip(records) {
            if expected != *offset {
                let evidence =
                    format!("partition {partition} holds offset {offset} where {expected} follows");
                return breaches.push(Breach { promise: Promise::Offsets, evidence });
            }
        }
    }
}

/// P2: every value was sent once, and no client repeats a send, so it stands at one place of the log at most.
fn values_stand_once(history: &History, breaches: &mut Vec<Breach>) {
    let mut places: BTreeMap<Value, (Partition, u64)> = BTreeMap::new();
    for (partition, records) in &history.finally {
        for (offset, value) in records {
            if let Some((other, before)) = places.insert(*value, (*partition, *offset)) {
                let evidence =
                    format!("value {value:x} stands at {other}/{before} and again at {partition}/{offset}");
                breaches.push(Breach { promise: Promise::Offsets, evidence });
            }
        }
    }
}

/// P1 and P2: what was acknowledged at an offset is there, in the order in which it was sent.
fn acknowledged_is_durable(history: &History, breaches: &mut Vec<Breach>) {
    for (append, base_offset) in acknowledged(history) {
        let log = log(history, append.partition);
        for (offset, value) in (base_offset..).zip(&append.values) {
            let found = at(log, offset);
            if found != Some(*value) {
                let place = format!("{}/{offset}", append.partition);
                let evidence = format!("{value:x} was acknowledged at {place}, which holds {found:x?}");
                breaches.push(Breach { promise: Promise::Durable, evidence });
                break;
            }
        }
    }
}

/// P6: a definite refusal means that nothing of the append is in the log, now or later.
fn refused_is_absent(history: &History, breaches: &mut Vec<Breach>) {
    for append in history.appends.iter().filter(|append| append.outcome == AppendOutcome::Refused) {
        let log = log(history, append.partition);
        if let Some((offset, value)) = log.iter().find(|(_, value)| append.values.contains(value)) {
            let evidence = format!("{value:x} was refused and stands at {}/{offset}", append.partition);
            breaches.push(Breach { promise: Promise::Committed, evidence });
        }
    }
}

/// P6: what any fetch showed is in the log in the end, at that offset, and no fetch shows offsets out of order.
fn shown_is_final(history: &History, breaches: &mut Vec<Breach>) {
    for fetch in &history.fetches {
        let log = log(history, fetch.partition);
        for (expected, (offset, value)) in (fetch.from..).zip(&fetch.records) {
            let place = format!("{}/{offset}", fetch.partition);
            if expected != *offset {
                let evidence =
                    format!("a fetch showed {place} where {expected} follows, at {:?}", fetch.ended);
                breaches.push(Breach { promise: Promise::Offsets, evidence });
                break;
            }
            let found = at(log, *offset);
            if found != Some(*value) {
                let evidence = format!("a fetch showed {value:x} at {place}, which finally holds {found:x?}");
                breaches.push(Breach { promise: Promise::Committed, evidence });
                break;
            }
        }
    }
}

/// P3: a fetch that starts after an append was acknowledged knows of it: its high watermark lies behind the append.
fn reads_see_what_was_acknowledged(history: &History, breaches: &mut Vec<Breach>) {
    let ends = acknowledged(history).map(|(append, base)| {
        (append.partition, append.ended, base.saturating_add(append.values.len() as u64))
    });
    let known = highest_by_time(ends);
    for fetch in &history.fetches {
        let behind = known.get(&fetch.partition).and_then(|steps| before(steps, fetch.started));
        if behind.is_some_and(|end| fetch.high_watermark < end) {
            let evidence = format!("{}; an append had been acknowledged up to {behind:?}", describe(fetch));
            breaches.push(Breach { promise: Promise::Linearizable, evidence });
        }
    }
}

/// P3: a fetch that starts after another one ended shows at least its high watermark.
fn high_watermarks_never_go_back(history: &History, breaches: &mut Vec<Breach>) {
    let ends = history.fetches.iter().map(|fetch| (fetch.partition, fetch.ended, fetch.high_watermark));
    let known = highest_by_time(ends);
    for fetch in &history.fetches {
        let earlier = known.get(&fetch.partition).and_then(|steps| before(steps, fetch.started));
        if earlier.is_some_and(|earlier| fetch.high_watermark < earlier) {
            let evidence = format!("{}; an earlier fetch had shown {earlier:?}", describe(fetch));
            breaches.push(Breach { promise: Promise::Linearizable, evidence });
        }
    }
}

fn acknowledged(history: &History) -> impl Iterator<Item = (&Append, u64)> {
    history.appends.iter().filter_map(|append| match append.outcome {
        AppendOutcome::Acknowledged { base_offset } => Some((append, base_offset)),
        AppendOutcome::Refused | AppendOutcome::Unknown => None,
    })
}

fn log(history: &History, partition: Partition) -> &[(u64, Value)] {
    history.finally.get(&partition).map_or(&[], Vec::as_slice)
}

fn at(log: &[(u64, Value)], offset: u64) -> Option<Value> {
    let place = usize::try_from(offset).ok()?;
    log.get(place).filter(|(found, _)| *found == offset).map(|(_, value)| *value)
}

/// For each partition, the highest offset known so far at each moment, in order of time.
fn highest_by_time(
    ends: impl Iterator<Item = (Partition, Duration, u64)>,
) -> BTreeMap<Partition, Vec<(Duration, u64)>> {
    let mut known: BTreeMap<Partition, Vec<(Duration, u64)>> = BTreeMap::new();
    for (partition, ended, end) in ends {
        known.entry(partition).or_default().push((ended, end));
    }
    for steps in known.values_mut() {
        steps.sort_unstable();
        let mut highest = 0;
        for (_, end) in steps {
            highest = highest.max(*end);
            *end = highest;
        }
    }
    known
}

/// What was known strictly before a moment: events of the same simulated instant have no order.
fn before(steps: &[(Duration, u64)], moment: Duration) -> Option<u64> {
    let earlier = steps.partition_point(|(ended, _)| *ended < moment);
    steps[..earlier].last().map(|(_, end)| *end)
}

fn describe(fetch: &Fetch) -> String {
    let Fetch { partition, from, started, ended, high_watermark, .. } = fetch;
    format!(
        "a fetch of {partition}/{from} from {started:?} to {ended:?} showed the high watermark {high_watermark}"
    )
}

#[cfg(test)]
mod tests {
    //! Goal: the checker accepts a right history and names the promise that each wrong one breaks.
    use super::*;

    fn right() -> History {
        let second = Duration::from_secs;
        let acknowledged = |values: &[Value], base_offset, ended| Append {
            partition: 0,
            values: values.to_vec(),
            outcome: AppendOutcome::Acknowledged { base_offset },
            ended,
        };
        let refused =
            Append { partition: 0, values: vec![9], outcome: AppendOutcome::Refused, ended: second(1) };
        let fetch = |from, started, high_watermark, records: &[(u64, Value)]| Fetch {
            partition: 0,
            from,
            started: second(started),
            ended: second(started + 1),
            high_watermark,
            next_offset: from + records.len() as u64,
            records: records.to_vec(),
        };
        History {
            appends: vec![acknowledged(&[1, 2], 0, second(2)), acknowledged(&[3], 2, second(5)), refused],
            fetches: vec![fetch(0, 3, 2, &[(0, 1), (1, 2)]), fetch(2, 6, 3, &[(2, 3)])],
            finally: [(0, vec![(0, 1), (1, 2), (2, 3)])].into(),
        }
    }

    fn broken(change: impl FnOnce(&mut History)) -> Vec<Promise> {
        let mut history = right();
        change(&mut history);
        let mut promises: Vec<_> = check(&history).into_iter().map(|breach| breach.promise).collect();
        promises.dedup();
        promises
    }

    #[test]
    fn each_wrong_history_breaks_its_promise() {
        use Promise::{Committed, Durable, Linearizable, Offsets};
        assert_eq!(broken(|_| ()), []);
        assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().truncate(2)), [Durable, Committed]);
        assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().push((4, 4))), [Offsets]);
        assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().push((3, 2))), [Offsets]);
        assert_eq!(broken(|history| history.finally.get_mut(&0).unwrap().push((3, 9))), [Committed]);
        assert_eq!(broken(|history| history.appends[0].values.swap(0, 1)), [Durable]);
        assert_eq!(broken(|history| history.fetches[0].records[1].1 = 7), [Committed]);
        assert_eq!(broken(|history| history.fetches[0].records[1].0 = 2), [Offsets]);
        assert_eq!(broken(|history| history.fetches[1].high_watermark = 2), [Linearizable]);
        assert_eq!(broken(|history| history.fetches[1].high_watermark = 1), [Linearizable]);
    }
}
