//! Long lives: retention, key compaction, and the deletion of objects.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::{Breach, Promise, lost_at};
use crate::history::{History, Kept, KeptRecord, Retention, Rules, Seen, Shown, Written};
use crate::scenario::KEPT;

/// P8: an object that the metadata core refers to is in the bucket, and stays for the grace period after that.
pub(super) fn deleting_is_safe(history: &History, breaches: &mut Vec<Breach>) {
    let Rules { grace, clocks_are_right, .. } = history.rules;
    for (object, alive) in &history.alive {
        let Some(deleted) = history.deleted.get(object) else { continue };
        // Log time never runs ahead of right clocks, so that an object dies at this time or later.
        let too_early = clocks_are_right && *deleted < alive.log_time.saturating_add(grace);
        if *deleted < alive.asked || too_early {
            let evidence = format!("{object} was deleted at {deleted:?}, and referred to still at {alive:?}");
            breaches.push(Breach { promise: Promise::Deleting, evidence });
        }
    }
}

/// P1, P2, P6 where records go: what stands at an offset never changes.
pub(super) fn records_are_final(history: &History, breaches: &mut Vec<Breach>) {
    let mut known: BTreeMap<(Kept, u64), KeptRecord> = BTreeMap::new();
    let mut breach = |promise, evidence| breaches.push(Breach { promise, evidence });
    for (topic, offset, record, _) in acknowledged(history) {
        if let Some(other) = known.insert((topic, offset), record).filter(|other| *other != record) {
            breach(
                Promise::Offsets,
                format!("{topic:?}/{offset} was given to {other:x?} and to {record:x?}"),
            );
        }
    }
    for (seen, records) in shown(history) {
        for (offset, record) in records {
            let first = *known.entry((seen.topic, *offset)).or_insert(*record);
            if first != *record {
                let place = format!("{:?}/{offset}", seen.topic);
                let evidence = format!("{place} held {first:x?}, and {record:x?} at {:?}", seen.ended);
                breach(Promise::Committed, evidence);
            }
        }
    }
    let refused = history.written.iter().filter(|written| written.refused);
    for value in refused.flat_map(|written| &written.records).filter_map(|(_, value)| *value) {
        if let Some((place, _)) = known.iter().find(|(_, (_, found))| *found == Some(value)) {
            breach(Promise::Committed, format!("{value:x} was refused, and stands at {place:?}"));
        }
    }
}

/// P2: offsets go up, and behind the log start nothing is missing but what key compaction may take out.
pub(super) fn nothing_is_missing(history: &History, breaches: &mut Vec<Breach>) {
    let known = known(history);
    for (seen, records) in shown(history) {
        let Shown::Records { log_start, next_offset, high_watermark, .. } = &seen.shown else { continue };
        let mut breach = |promise, what: String| {
            let evidence = format!("a fetch of {:?}/{} at {:?} {what}", seen.topic, seen.from, seen.ended);
            breaches.push(Breach { promise, evidence });
        };
        let in_order = records.is_sorted_by(|(one, _), (next, _)| one < next);
        let in_bounds = records.iter().all(|(offset, _)| (seen.from..*next_offset).contains(offset));
        if !in_order || !in_bounds {
            breach(Promise::Offsets, format!("showed {records:x?} up to {next_offset}"));
        }
        if next_offset <= &seen.from && seen.from < *high_watermark {
            breach(Promise::Offsets, format!("does not get on, and the log ends at {high_watermark}"));
        }
        // What was below the log start when it was answered need not be there.
        let mut there = records.iter().map(|(offset, _)| *offset).peekable();
        let gap = gap(history, seen);
        for offset in seen.from.max(*log_start)..*next_offset {
            if gap.contains(&offset) {
                continue;
            }
            let found = there.next_if(|found| *found <= offset);
            if found != Some(offset) && !may_be_gone(history, &known, seen, offset) {
                breach(Promise::Durable, format!("misses {offset}: {:x?}", known.get(&(seen.topic, offset))));
            }
        }
    }
}

/// P1: everything that was acknowledged lies below the end that is read afterwards.
pub(super) fn the_end_is_behind_everything(history: &History, breaches: &mut Vec<Breach>) {
    for (seen, _) in shown(history) {
        let Shown::Records { high_watermark, log_start, .. } = seen.shown else { continue };
        let before = acknowledged(history)
            .filter(|(topic, _, _, written)| *topic == seen.topic && written.ended < seen.started);
        if let Some(end) = before.map(|(_, offset, ..)| offset + 1).max().filter(|end| *end > high_watermark)
        {
            let evidence = format!("{:?} ended at {high_watermark} behind an append up to {end}", seen.topic);
            breaches.push(Breach { promise: Promise::Linearizable, evidence });
        }
        let earlier = shown(history).filter(|(other, _)| {
            let lost = lost_at(history);
            // What was not in the archive is said anew.
            let same_log = other.ended > lost || seen.ended <= lost;
            other.topic == seen.topic && other.ended < seen.started && same_log
        });
        let starts = earlier.filter_map(|(other, _)| match other.shown {
            Shown::Records { log_start, .. } => Some(log_start),
            Shown::Gone => None,
        });
        if let Some(start) = starts.max().filter(|start| *start > log_start) {
            let evidence = format!("{:?} began at {log_start}, and at {start} before", seen.topic);
            breaches.push(Breach { promise: Promise::Linearizable, evidence });
        }
    }
}

/// Retention: a log start moves only as far as it is due.
pub(super) fn nothing_goes_early(history: &History, breaches: &mut Vec<Breach>) {
    let known = known(history);
    for seen in history.seen.iter().chain(history.kept_finally.values()) {
        let start = match &seen.shown {
            Shown::Gone => seen.from + 1,
            Shown::Records { log_start, .. } => *log_start,
        };
        let Some(last) = start.checked_sub(1) else { continue };
        let due = match (seen.topic, history.rules.retention) {
            (Kept::Table, _) => false,
            (Kept::Fleeting, Retention::Trims) => {
                let mut asked = history.trimmed.iter().filter(|trimmed| trimmed.started <= seen.ended);
                asked.any(|trimmed| trimmed.before >= start)
            }
            (Kept::Fleeting, Retention::Age(age)) => {
                let old = |written: &Written| written.started.saturating_add(age) < seen.ended;
                let of_it = (0..start).filter_map(|offset| known.get(&(seen.topic, offset)));
                !history.rules.clocks_are_right || of_it.clone().all(|(_, written)| written.is_none_or(old))
            }
            (Kept::Fleeting, Retention::Bytes(kept)) => {
                bytes_behind(history, &known, last, seen.ended) >= kept
            }
        };
        if !due {
            let evidence =
                format!("{:?} begins at {start} at {:?}, which is too early", seen.topic, seen.ended);
            breaches.push(Breach { promise: Promise::Retained, evidence });
        }
    }
}

/// How many records of the table are gone in the end, as far as is known.
pub(crate) fn compacted(history: &History) -> usize {
    let Some(Seen { shown: Shown::Records { records, .. }, .. }) = history.kept_finally.get(&Kept::Table)
    else {
        return 0;
    };
    known(history).keys().filter(|(topic, _)| *topic == Kept::Table).count().saturating_sub(records.len())
}

/// Bytes that may lie behind a record: also of those whose place nobody knows.
fn bytes_behind(history: &History, known: &Known<'_>, offset: u64, at: Duration) -> u64 {
    let placed = |written: &Written| {
        let mut places = known.iter().filter(|(_, (_, of))| of.is_some_and(|of| std::ptr::eq(of, written)));
        places.next().map(|((_, place), _)| *place)
    };
    let of_topic = history
        .written
        .iter()
        .filter(|written| written.topic == Kept::Fleeting && !written.refused && written.started <= at);
    let behind = of_topic.filter(|written| placed(written).is_none_or(|place| place > offset));
    behind.map(|written| written.bytes).sum()
}

/// The offsets that nobody gets any more when a fetch is answered.
fn gap(history: &History, seen: &Seen) -> Range<u64> {
    let restoration = history.restoration.as_ref().filter(|restoration| seen.started > restoration.lost_at);
    let name = KEPT.iter().find(|(topic, _)| *topic == seen.topic).map_or("", |(_, name)| name);
    restoration.map_or(0..0, |restoration| restoration.gap(name, 0))
}

/// Records with their places, and with what is known of their writing.
type Known<'a> = BTreeMap<(Kept, u64), (KeptRecord, Option<&'a Written>)>;

fn known(history: &History) -> Known<'_> {
    let by_value: BTreeMap<u64, &Written> = history
        .written
        .iter()
        .flat_map(|written| written.records.iter().filter_map(move |(_, value)| Some(((*value)?, written))))
        .collect();
    let mut known: Known<'_> = BTreeMap::new();
    for (seen, records) in shown(history) {
        for (offset, record) in records {
            let written = record.1.and_then(|value| by_value.get(&value).copied());
            known.insert((seen.topic, *offset), (*record, written));
        }
    }
    for (topic, offset, record, written) in acknowledged(history) {
        known.insert((topic, offset), (record, Some(written)));
    }
    known
}

/// Whether key compaction may have taken out a record before a fetch was answered: a newer one of its key was there, or it is a
/// tombstone whose time was over.
fn may_be_gone(history: &History, known: &Known<'_>, seen: &Seen, offset: u64) -> bool {
    if seen.topic != Kept::Table {
        return false;
    }
    let Some(((key, value), written)) = known.get(&(seen.topic, offset)) else { return true };
    let was_there = |written: &Option<&Written>| written.is_none_or(|written| written.started <= seen.ended);
    let mut newer =
        known.range((seen.topic, offset + 1)..).take_while(|((topic, _), _)| *topic == seen.topic);
    let superseded = newer.any(|(_, ((other, _), written))| other == key && was_there(written));
    // Nobody saw where these stand: they may have been taken out in their turn, or stand behind everything that was read.
    let unknown = history.written.iter().filter(|other| other.base_offset.is_none() && !other.refused);
    let perhaps = || {
        let mut records =
            unknown.clone().filter(|other| other.started <= seen.ended).flat_map(|w| &w.records);
        records.any(|(other, _)| other == key)
    };
    let rules = &history.rules;
    let over = |written: &Written| written.started.saturating_add(rules.tombstones) < seen.ended;
    let tombstone_is_over = value.is_none() && (!rules.clocks_are_right || written.is_none_or(over));
    superseded || tombstone_is_over || perhaps()
}

fn shown(history: &History) -> impl Iterator<Item = (&Seen, &Vec<(u64, KeptRecord)>)> + Clone {
    let all = history.seen.iter().chain(history.kept_finally.values());
    all.filter_map(|seen| match &seen.shown {
        Shown::Records { records, .. } => Some((seen, records)),
        Shown::Gone => None,
    })
}

fn acknowledged(history: &History) -> impl Iterator<Item = (Kept, u64, KeptRecord, &Written)> {
    history.written.iter().flat_map(|written| {
        let base = written.base_offset.into_iter();
        base.flat_map(move |base| {
            (base..)
                .zip(&written.records)
                .map(move |(offset, record)| (written.topic, offset, *record, written))
        })
    })
}
