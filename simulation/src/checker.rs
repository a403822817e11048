//! Judges a history by the promises of the log. Pure: it knows nothing of how the history came about.

mod guarantees;
mod kept;
#[cfg(test)]
mod tests;

pub(crate) use kept::compacted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::history::{Append, AppendOutcome, Fetch, History, Output, Partition, Value};
use crate::scenario::place;

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
    /// P4: a unit is in the log as a whole or not at all, and only if its conditions held.
    Atomic,
    /// P5: a unit that is sent again is stored once, and gets its first answer.
    Retries,
    /// P6: what was not committed is never shown; what was refused is not in the log.
    Committed,
    /// P8: deleting objects is safe.
    Deleting,
    /// Records go when they are due, and not before.
    Retained,
    /// A partition has one owner in a group, and nobody else acts for it.
    Ownership,
    /// What is read, processed and written in one unit counts once.
    ExactlyOnce,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let promise = match self.promise {
            Promise::Durable => "P1",
            Promise::Offsets => "P2",
            Promise::Linearizable => "P3",
            Promise::Atomic => "P4",
            Promise::Retries => "P5",
            Promise::Committed => "P6",
            Promise::Deleting => "P8",
            Promise::Retained => "retention",
            Promise::Ownership => "groups",
            Promise::ExactlyOnce => "exactly once",
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
    guarantees::acknowledged_is_somewhere(history, &mut breaches);
    guarantees::units_are_whole(history, &mut breaches);
    guarantees::units_appear_at_once(history, &mut breaches);
    guarantees::conditions_hold(history, &mut breaches);
    guarantees::repeats_get_the_first_answer(history, &mut breaches);
    guarantees::producers_stay_known(history, &mut breaches);
    guarantees::sequences_are_kept(history, &mut breaches);
    guarantees::one_owner_at_a_time(history, &mut breaches);
    guarantees::counts_are_exact(history, &mut breaches);
    kept::deleting_is_safe(history, &mut breaches);
    kept::records_are_final(history, &mut breaches);
    kept::nothing_is_missing(history, &mut breaches);
    kept::the_end_is_behind_everything(history, &mut breaches);
    kept::nothing_goes_early(history, &mut breaches);
    breaches.sort_by_key(|breach| breach.promise);
    breaches
}

/// P2: in the end every partition holds the offsets 0, 1, 2 … and nothing else: no trim and no compaction ran.
fn offsets_are_dense(history: &History, breaches: &mut Vec<Breach>) {
    for (partition, records) in &history.finally {
        let gap = gap(history, *partition);
        for (expected, (offset, _)) in (0_u64..).filter(|offset| !gap.contains(offset)).zip(records) {
            if expected != *offset {
                let evidence =
                    format!("partition {partition} holds offset {offset} where {expected} follows");
                return breaches.push(Breach { promise: Promise::Offsets, evidence });
            }
        }
    }
}

/// Every value belongs to one unit, so it stands at one place of the log at most: by P2 where nobody repeats a send, by P5
/// where repeats can be told. Outputs are counted elsewhere.
fn values_stand_once(history: &History, breaches: &mut Vec<Breach>) {
    let mut places: BTreeMap<Value, (Partition, u64)> = BTreeMap::new();
    let with_identity = history.appends.iter().filter(|append| append.identity.is_some());
    let told: BTreeSet<Value> =
        with_identity.flat_map(|append| append.parts.values().flatten()).copied().collect();
    for (partition, records) in &history.finally {
        let values = records.iter().filter(|(_, value)| Output::read(*partition, *value).is_none());
        for (offset, value) in values {
            if let Some((other, before)) = places.insert(*value, (*partition, *offset)) {
                let evidence =
                    format!("value {value:x} stands at {other}/{before} and again at {partition}/{offset}");
                let promise = if told.contains(value) { Promise::Retries } else { Promise::Offsets };
                breaches.push(Breach { promise, evidence });
            }
        }
    }
}

/// P1 and P2: what was acknowledged at an offset is there, in the order in which it was sent.
fn acknowledged_is_durable(history: &History, breaches: &mut Vec<Breach>) {
    let parts =
        history.appends.iter().flat_map(|append| acknowledged(append).map(move |part| (append, part)));
    for (append, (partition, base_offset, values)) in parts {
        let log = log(history, partition);
        for (offset, value) in (base_offset..).zip(values) {
            let found = at(log, offset);
            if found != Some(*value) && !may_be_lost(history, partition, offset, append.ended, found) {
                let place = format!("{partition}/{offset}");
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
        for (partition, values) in &append.parts {
            let found = log(history, *partition).iter().find(|(_, value)| values.contains(value));
            if let Some((offset, value)) = found {
                let evidence = format!("{value:x} was refused and stands at {partition}/{offset}");
                breaches.push(Breach { promise: Promise::Committed, evidence });
            }
        }
    }
}

/// P6: what any fetch showed is in the log in the end, at that offset, and no fetch shows offsets out of order.
fn shown_is_final(history: &History, breaches: &mut Vec<Breach>) {
    for fetch in &history.fetches {
        let log = log(history, fetch.partition);
        // Before the loss, the offsets that nobody gets afterwards were given out.
        let gap = gap(history, fetch.partition);
        let is_there = |offset: &u64| !gap.contains(offset) || fetch.started <= lost_at(history);
        for (expected, (offset, value)) in (fetch.from..).filter(is_there).zip(&fetch.records) {
            let place = format!("{}/{offset}", fetch.partition);
            if expected != *offset {
                let evidence =
                    format!("a fetch showed {place} where {expected} follows, at {:?}", fetch.ended);
                breaches.push(Breach { promise: Promise::Offsets, evidence });
                break;
            }
            let found = at(log, *offset);
            if found != Some(*value) && !may_be_lost(history, fetch.partition, *offset, fetch.ended, found) {
                let evidence = format!("a fetch showed {value:x} at {place}, which finally holds {found:x?}");
                breaches.push(Breach { promise: Promise::Committed, evidence });
                break;
            }
        }
    }
}

/// P3: a fetch that starts after an append was acknowledged knows of it: its high watermark lies behind the append.
fn reads_see_what_was_acknowledged(history: &History, breaches: &mut Vec<Breach>) {
    let ends = history.appends.iter().flat_map(|append| {
        let parts = acknowledged(append);
        parts.map(|(partition, base, values)| {
            (partition, append.ended, base.saturating_add(values.len() as u64))
        })
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

/// The parts of a unit whose offsets were told.
fn acknowledged(append: &Append) -> impl Iterator<Item = (Partition, u64, &Vec<Value>)> {
    let told = match &append.outcome {
        AppendOutcome::Acknowledged { base_offsets } => Some(base_offsets),
        AppendOutcome::Refused | AppendOutcome::Unknown => None,
    };
    told.into_iter()
        .flatten()
        .filter_map(|(partition, base)| Some((*partition, *base, append.parts.get(partition)?)))
}

fn log(history: &History, partition: Partition) -> &[(u64, Value)] {
    history.finally.get(&partition).map_or(&[], Vec::as_slice)
}

fn at(log: &[(u64, Value)], offset: u64) -> Option<Value> {
    let place = log.binary_search_by_key(&offset, |(found, _)| *found).ok()?;
    Some(log[place].1)
}

/// The offsets of a partition that a restore skipped.
fn gap(history: &History, partition: Partition) -> Range<u64> {
    let (topic, index) = place(partition);
    history.restoration.as_ref().map_or(0..0, |restoration| restoration.gap(topic, index.0))
}

/// When all disks were lost; never, if they were not.
fn lost_at(history: &History) -> Duration {
    history.restoration.as_ref().map_or(Duration::MAX, |restoration| restoration.lost_at)
}

/// Whether a record that was known by this time may be lost: nobody has its offset, and it was not in the archive.
fn may_be_lost(
    history: &History,
    partition: Partition,
    offset: u64,
    known: Duration,
    found: Option<Value>,
) -> bool {
    let Some(restoration) = &history.restoration else { return false };
    found.is_none() && restoration.archived_until < known && gap(history, partition).contains(&offset)
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
