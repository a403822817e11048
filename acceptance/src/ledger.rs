//! What was sent and acknowledged, against what was read back. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use bytes::Bytes;
use carnax::{Offset, PartitionIndex};

use crate::flights::Flights;

/// What is known of every line of the input.
#[derive(Debug, Clone)]
pub struct Ledger(pub Vec<Sent>);

/// What is known of one line.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Where it is stored, once that was acknowledged.
    pub acknowledged: Option<(PartitionIndex, Offset)>,
    /// How often it was sent without ever learning what became of it.
    pub unknown_outcomes: u32,
}

/// The numbers of the lines in each partition, by offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found(pub BTreeMap<PartitionIndex, Vec<usize>>);

/// What a check counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records that were read.
    pub read: usize,
    /// Lines that were acknowledged.
    pub acknowledged: usize,
    /// Partitions with records.
    pub partitions: usize,
    /// Keys.
    pub keys: usize,
    /// Records that were read and are stored elsewhere too.
    pub duplicates: usize,
    /// Records in sends without a known outcome.
    pub unknown: usize,
}

impl Ledger {
    /// Nothing was sent yet.
    pub fn new(flights: &Flights) -> Self {
        Self(vec![Sent::default(); flights.0.len()])
    }

    /// Every acknowledged line is where it was said to be; keys are in order; whatever is stored more often than once was
    /// sent more often, without a known outcome.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub fn check(&self, flights: &Flights, found: &Found) -> Result<Summary> {
        let mut copies = vec![0u32; self.0.len()];
        let mut newest: BTreeMap<&Bytes, usize> = BTreeMap::new();
        let mut summary = Summary { partitions: found.0.len(), ..Summary::default() };
        for (partition, lines) in &found.0 {
            for (offset, line) in lines.iter().enumerate() {
                summary.read += 1;
                copies[*line] += 1;
                let key = &flights.0[*line].key;
                if copies[*line] > 1 {
                    summary.duplicates += 1;
                    continue;
                }
                let before = newest.insert(key, *line);
                ensure!(
                    before.is_none_or(|before| before < *line),
                    "line {line} of key {key:?} stands at {partition}/{offset}, behind line {before:?}"
                );
            }
        }
        summary.keys = newest.len();
        for (line, (sent, copies)) in self.0.iter().zip(&copies).enumerate() {
            summary.unknown += sent.unknown_outcomes as usize;
            summary.acknowledged += usize::from(sent.acknowledged.is_some());
            let sent_at_most = sent.unknown_outcomes + u32::from(sent.acknowledged.is_some());
            ensure!(*copies <= sent_at_most, "line {line} is stored {copies} times, and was sent {sent:?}");
            let Some((partition, offset)) = sent.acknowledged else { continue };
            let there = found.0.get(&partition).and_then(|lines| lines.get(usize::try_from(offset.0).ok()?));
            ensure!(
                there == Some(&line),
                "line {line} was acknowledged at {partition}/{offset}, where {there:?} is found"
            );
        }
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flights::Flight;

    fn story(lines: &[usize], sent: &[(Option<u64>, u32)]) -> Result<Summary> {
        let flight = |_| Flight { key: "UA".into(), value: "{}".into() };
        let flights = Flights(sent.iter().map(flight).collect());
        let sent = sent.iter().map(|(offset, unknown_outcomes)| Sent {
            acknowledged: offset.map(|offset| (PartitionIndex(0), Offset(offset))),
            unknown_outcomes: *unknown_outcomes,
        });
        let found = Found([(PartitionIndex(0), lines.to_vec())].into());
        Ledger(sent.collect()).check(&flights, &found)
    }

    #[test]
    fn a_lost_a_moved_a_disordered_and_an_unexplained_record_are_found() {
        let clean = story(&[0, 1, 2], &[(Some(0), 0), (Some(1), 0), (Some(2), 0)]).unwrap();
        assert_eq!((clean.read, clean.acknowledged, clean.duplicates, clean.keys), (3, 3, 0, 1));
        let wrong = [
            story(&[0, 1], &[(Some(0), 0), (Some(1), 0), (Some(2), 0)]),
            story(&[0, 2, 1], &[(Some(0), 0), (Some(2), 0), (Some(1), 0)]),
            story(&[0, 1, 1], &[(Some(0), 0), (Some(1), 0)]),
            story(&[1, 0], &[(Some(0), 1), (Some(1), 1)]),
        ];
        assert!(wrong.iter().all(Result::is_err), "{wrong:?}");
    }

    #[test]
    fn a_send_of_unknown_outcome_may_be_stored_twice_once_or_never() {
        let twice = story(&[0, 1, 0, 1, 2], &[(Some(2), 1), (Some(3), 1), (Some(4), 0)]).unwrap();
        assert_eq!((twice.duplicates, twice.unknown, twice.acknowledged), (2, 2, 3));
        assert_eq!(story(&[0], &[(None, 1), (None, 1)]).unwrap().acknowledged, 0);
    }
}
