//! P4 and P5, groups, and counts that are exact.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Breach, Promise, acknowledged, log};
use crate::history::{
    Answer, Append, AppendOutcome, Attempt, History, Hold, Identity, Output, Partition, Value,
};

/// P4: of a unit all values are in the log in the end, or none.
pub(super) fn units_are_whole(history: &History, breaches: &mut Vec<Breach>) {
    let stored = places(history);
    for append in &history.appends {
        let values = || append.parts.values().flatten();
        let there = values().filter(|value| stored.contains_key(*value)).count();
        if there != 0 && there != values().count() {
            let evidence = format!("of {:x?} only {there} values are in the log", append.parts);
            breaches.push(Breach { promise: Promise::Atomic, evidence });
        }
    }
}

/// P4: once a fetch has shown a part of a unit, or that it is there, no later fetch of another part knows nothing of it.
pub(super) fn units_appear_at_once(history: &History, breaches: &mut Vec<Breach>) {
    let stored = places(history);
    for append in history.appends.iter().filter(|append| append.parts.len() > 1) {
        let first = |values: &Vec<Value>| stored.get(values.first()?).copied();
        let parts: BTreeMap<Partition, u64> = append.parts.values().filter_map(first).collect();
        let of_it =
            || history.fetches.iter().filter_map(|fetch| Some((fetch, *parts.get(&fetch.partition)?)));
        let seen =
            of_it().filter(|(fetch, offset)| fetch.high_watermark > *offset).map(|(fetch, _)| fetch.ended);
        let Some(seen) = seen.min() else { continue };
        let late = of_it().find(|(fetch, offset)| fetch.started > seen && fetch.high_watermark <= *offset);
        if let Some((fetch, offset)) = late {
            let place = format!("{}/{offset}", fetch.partition);
            let evidence =
                format!("a unit was seen at {seen:?}, and not its part at {place} at {:?}", fetch.started);
            breaches.push(Breach { promise: Promise::Atomic, evidence });
        }
    }
}

/// Conditions: a unit that expected an offset is in the log only where it expected to be.
pub(super) fn conditions_hold(history: &History, breaches: &mut Vec<Breach>) {
    let stored = places(history);
    for append in &history.appends {
        let Some((partition, expected)) = append.condition else { continue };
        let Some(value) = append.parts.get(&partition).and_then(|values| values.first()) else { continue };
        if stored.get(value).is_some_and(|place| *place != (partition, expected)) {
            let evidence =
                format!("{value:x} expected {partition}/{expected}, and is at {:?}", stored[value]);
            breaches.push(Breach { promise: Promise::Atomic, evidence });
        }
    }
}

/// P5: a repeat gets the first answer, and is not stored again.
pub(super) fn repeats_get_the_first_answer(history: &History, breaches: &mut Vec<Breach>) {
    let mut breach = |evidence| breaches.push(Breach { promise: Promise::Retries, evidence });
    for append in history.appends.iter().filter(|append| append.identity.is_some()) {
        let stored = append.attempts.iter().filter(|attempt| matches!(attempt.answer, Answer::Stored { .. }));
        let Some(first) = stored.min_by_key(|attempt| attempt.ended) else { continue };
        let mut offsets: Option<&BTreeMap<Partition, u64>> = None;
        for attempt in &append.attempts {
            let behind = attempt.started > first.ended;
            match &attempt.answer {
                Answer::Stored { duplicate: false, .. } if behind => {
                    breach(format!("{:?}: {attempt:?} behind {first:?}", append.identity));
                }
                Answer::Stored { base_offsets, .. } if !base_offsets.is_empty() => {
                    let told = *offsets.get_or_insert(base_offsets);
                    if told != base_offsets {
                        breach(format!("{:?} was told {told:?} and {base_offsets:?}", append.identity));
                    }
                }
                Answer::Refused(code) if behind && is_final(code) => {
                    breach(format!("{:?}: refused with {code} behind {first:?}", append.identity));
                }
                Answer::Stored { .. } | Answer::Refused(_) | Answer::Unknown => {}
            }
        }
    }
}

/// What is said of a unit that is neither stored nor may be.
fn is_final(code: &str) -> bool {
    matches!(code, "unknown_producer" | "sequence_gap" | "body_mismatch")
}

/// P5: a producer that had an answer stays known: its window is longer than any simulation, by every right clock.
pub(super) fn producers_stay_known(history: &History, breaches: &mut Vec<Breach>) {
    let mut known: BTreeMap<&String, Duration> = BTreeMap::new();
    for (producer, attempt) in producers(history) {
        if matches!(attempt.answer, Answer::Stored { .. }) {
            let since = known.entry(producer).or_insert(attempt.ended);
            *since = attempt.ended.min(*since);
        }
    }
    for (producer, attempt) in producers(history) {
        let forgotten = attempt.answer == Answer::Refused("unknown_producer".to_owned());
        if forgotten && known.get(producer).is_some_and(|since| *since < attempt.started) {
            let evidence = format!("{producer} was known, and then not any more: {attempt:?}");
            breaches.push(Breach { promise: Promise::Retries, evidence });
        }
    }
}

fn producers(history: &History) -> impl Iterator<Item = (&String, &Attempt)> {
    let with_producer = history.appends.iter().filter_map(|append| match &append.identity {
        Some(Identity::Sequence { producer, .. }) => Some((producer, append)),
        Some(Identity::Key(_)) | None => None,
    });
    with_producer
        .flat_map(|(producer, append)| append.attempts.iter().map(move |attempt| (producer, attempt)))
}

/// P5: of an epoch of a producer the log holds the first units, without a gap, and in each partition in their order.
pub(super) fn sequences_are_kept(history: &History, breaches: &mut Vec<Breach>) {
    let stored = places(history);
    let mut epochs: BTreeMap<(&String, u32), BTreeMap<u128, &Append>> = BTreeMap::new();
    for append in &history.appends {
        if let Some(Identity::Sequence { producer, epoch, sequence }) = &append.identity {
            epochs.entry((producer, *epoch)).or_default().insert(*sequence, append);
        }
    }
    for ((producer, epoch), units) in epochs {
        let (mut last, mut ended): (BTreeMap<Partition, u64>, bool) = (BTreeMap::new(), false);
        for (sequence, append) in units {
            let there = append.parts.values().flatten().filter_map(|value| stored.get(value));
            let there: Vec<&(Partition, u64)> = there.collect();
            let in_order = there.iter().all(|(partition, offset)| {
                last.insert(*partition, *offset).is_none_or(|before| before < *offset)
            });
            if !there.is_empty() && (ended || !in_order) {
                let evidence =
                    format!("{sequence} of {producer} in epoch {epoch} is out of order in the log");
                breaches.push(Breach { promise: Promise::Retries, evidence });
            }
            ended |= there.is_empty();
        }
    }
}

/// Groups: no partition is held by two, and nothing of one is accepted while another holds it all the time.
pub(super) fn one_owner_at_a_time(history: &History, breaches: &mut Vec<Breach>) {
    let mut breach = |evidence| breaches.push(Breach { promise: Promise::Ownership, evidence });
    let mut holds: BTreeMap<Partition, Vec<&Hold>> = BTreeMap::new();
    for hold in &history.holds {
        holds.entry(hold.partition).or_default().push(hold);
    }
    for holds in holds.values_mut() {
        holds.sort_by_key(|hold| (hold.from, hold.until));
        for pair in holds.windows(2) {
            if pair[1].from < pair[0].until {
                breach(format!("two hold a partition at once: {:?} and {:?}", pair[0], pair[1]));
            }
        }
    }
    for act in &history.acts {
        let others = holds.get(&act.partition).into_iter().flatten().filter(|hold| hold.tenure != act.tenure);
        for hold in others.filter(|hold| hold.from <= act.sent && act.answered <= hold.until) {
            breach(format!("{act:?} was accepted while another held the partition: {hold:?}"));
        }
    }
}

/// Exactly once: the outputs of each partition stand for its input from the beginning to what is committed, each part once.
pub(super) fn counts_are_exact(history: &History, breaches: &mut Vec<Breach>) {
    let mut breach = |evidence| breaches.push(Breach { promise: Promise::ExactlyOnce, evidence });
    for (partition, committed) in &history.handled {
        let mut next = 0;
        for (offset, value) in log(history, *partition) {
            let Some(output) = Output::read(*partition, *value) else {
                breach(format!("{partition}/{offset} holds {value:x}, which is no output"));
                continue;
            };
            if output.from != next {
                breach(format!("{partition}/{offset} stands for {output:?}, where {next} follows"));
            }
            next = output.to;
        }
        if next != *committed {
            breach(format!("the outputs of {partition} end at {next}, and {committed} is committed"));
        }
    }
}

/// P1, where the answer names no offset: what was acknowledged is there.
pub(super) fn acknowledged_is_somewhere(history: &History, breaches: &mut Vec<Breach>) {
    let stored = places(history);
    let all = history.appends.iter();
    for append in all.filter(|append| matches!(append.outcome, AppendOutcome::Acknowledged { .. })) {
        let missing = append.parts.values().flatten().find(|value| !stored.contains_key(*value));
        if let Some(value) = missing.filter(|_| acknowledged(append).next().is_none()) {
            let evidence = format!("{value:x} was acknowledged, and is not in the log");
            breaches.push(Breach { promise: Promise::Durable, evidence });
        }
    }
}

/// Where each value stands in the end; the last place if there are several.
fn places(history: &History) -> BTreeMap<Value, (Partition, u64)> {
    let partitions = history.finally.keys();
    let logs =
        partitions.flat_map(|partition| log(history, *partition).iter().map(move |entry| (partition, entry)));
    logs.map(|(partition, (offset, value))| (*value, (*partition, *offset))).collect()
}
