//! What queues were told of commits, against what was committed. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use carnax::{CommitEvent, PartitionIndex};

/// The events that came out of one queue.
#[derive(Debug, Default)]
pub struct Told {
    events: usize,
    ranges: Vec<(PartitionIndex, u64, u64)>,
}

/// What a check counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Events.
    pub events: usize,
    /// Records that they tell of.
    pub records: u64,
    /// Those of them that came more than once.
    pub doubled: u64,
}

impl Told {
    /// Notes an event.
    pub fn note(&mut self, event: &CommitEvent) {
        self.events += 1;
        let ranges = event.partitions.iter();
        self.ranges.extend(ranges.map(|range| (range.partition, range.from.0, range.to.0)));
    }

    /// Every committed offset was told, and no other; `ends` are the high watermarks.
    ///
    /// # Errors
    /// The first offset for which that is not so.
    pub fn check(&self, ends: &BTreeMap<PartitionIndex, u64>) -> Result<Summary> {
        let mut times: BTreeMap<(PartitionIndex, u64), u64> = BTreeMap::new();
        for (partition, from, to) in &self.ranges {
            let end = ends.get(partition).copied().unwrap_or(0);
            ensure!(from < to, "partition {partition}: {from}..{to} is no range");
            ensure!(*to <= end, "partition {partition}: {from}..{to} was told, and it ends at {end}");
            for offset in *from..*to {
                *times.entry((*partition, offset)).or_default() += 1;
            }
        }
        for (partition, end) in ends {
            let untold = (0..*end).find(|offset| !times.contains_key(&(*partition, *offset)));
            ensure!(untold.is_none(), "partition {partition}: nobody was told of offset {untold:?}");
        }
        let doubled = times.values().filter(|times| **times > 1).count();
        Ok(Summary { events: self.events, records: times.len() as u64, doubled: doubled as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_was_not_told_is_found_and_so_is_one_that_was_never_committed() {
        let event = |ranges: &[(u32, u64, u64)]| {
            let range = |(partition, from, to): &(u32, u64, u64)| serde_json::json!({"partition": partition, "from": from, "to": to});
            let event = serde_json::json!({
                "topic": "flights", "topic_id": "01KAR000000000000000000000", "wakeup": "w", "log_index": 7,
                "partitions": ranges.iter().map(range).collect::<Vec<_>>(),
            });
            serde_json::from_value::<CommitEvent>(event).unwrap()
        };
        let check = |ranges: &[&[(u32, u64, u64)]], ends: &[(u32, u64)]| {
            let mut told = Told::default();
            ranges.iter().for_each(|ranges| told.note(&event(ranges)));
            told.check(&ends.iter().map(|(partition, end)| (PartitionIndex(*partition), *end)).collect())
        };
        // Disordered and doubled is well.
        let summary = check(&[&[(0, 2, 4)], &[(0, 0, 3), (1, 0, 1)]], &[(0, 4), (1, 1), (2, 0)]).unwrap();
        assert_eq!(summary, Summary { events: 2, records: 5, doubled: 1 });
        assert!(check(&[&[(0, 0, 1)], &[(0, 2, 3)]], &[(0, 3)]).is_err(), "1 is missing");
        assert!(check(&[&[(0, 0, 3)]], &[(0, 3), (1, 1)]).is_err(), "a partition is missing");
        assert!(check(&[&[(0, 0, 3)]], &[(0, 2)]).is_err(), "2 was never committed");
        assert!(check(&[&[(0, 0, 0)]], &[(0, 0)]).is_err(), "no range");
    }
}
