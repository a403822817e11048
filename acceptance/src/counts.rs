//! Counts of records by key, each over a stretch of a partition, against the records themselves. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use carnax::PartitionIndex;
use serde::Deserialize;

use crate::flights::Flights;
use crate::ledger::Found;

/// So many of the records `first ..= last` of a partition have a carrier as their key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Count {
    /// The key.
    pub carrier: String,
    /// How many.
    pub count: u64,
    /// Of which partition.
    pub partition: u32,
    /// The first offset.
    pub first: u64,
    /// The last offset.
    pub last: u64,
}

/// The keys of the records in each partition, by offset.
pub type Keys = BTreeMap<u32, Vec<String>>;

/// The keys of what was found.
///
/// # Errors
/// If one is not UTF-8.
pub fn keys(flights: &Flights, found: &Found) -> Result<Keys> {
    let key = |line: &usize| Ok(std::str::from_utf8(&flights.0[*line].key)?.to_owned());
    let of_partition = |(partition, lines): (&PartitionIndex, &Vec<usize>)| {
        Ok((partition.0, lines.iter().map(key).collect::<Result<_>>()?))
    };
    found.0.iter().map(of_partition).collect()
}

/// The counts are those of all records, each record counted once; gives how many there are of each key.
///
/// # Errors
/// The first count that is wrong, missing or there twice.
pub fn check(keys: &Keys, counts: &[Count]) -> Result<BTreeMap<String, u64>> {
    let mut stretches: BTreeMap<u32, BTreeMap<u64, BTreeSet<u64>>> = BTreeMap::new();
    let mut told: BTreeMap<(u32, u64, &str), u64> = BTreeMap::new();
    for count in counts {
        stretches.entry(count.partition).or_default().entry(count.first).or_default().insert(count.last);
        let twice = told.insert((count.partition, count.first, &count.carrier), count.count);
        ensure!(twice.is_none(), "{count:?} was counted before, as {twice:?}");
    }
    for (partition, keys) in keys {
        let stretches = stretches.remove(partition).unwrap_or_default();
        let mut next = 0;
        for (first, lasts) in stretches {
            ensure!(first == next, "partition {partition}: a count begins at {first}, where {next} follows");
            ensure!(lasts.len() == 1, "partition {partition}: counts from {first} end at {lasts:?}");
            let last = lasts.first().copied().unwrap_or(first);
            let stretch = usize::try_from(first)?..=usize::try_from(last)?;
            let counted = keys.get(stretch);
            ensure!(
                counted.is_some(),
                "partition {partition}: {first}..={last} is no part of {}",
                keys.len()
            );
            let mut right: BTreeMap<&str, u64> = BTreeMap::new();
            for key in counted.unwrap_or_default() {
                *right.entry(key).or_default() += 1;
            }
            let all = (*partition, first, "")..(*partition, first + 1, "");
            let said: BTreeMap<&str, u64> =
                told.range(all).map(|((_, _, carrier), count)| (*carrier, *count)).collect();
            ensure!(said == right, "partition {partition}, {first}..={last}: {said:?} instead of {right:?}");
            next = last + 1;
        }
        ensure!(next == keys.len() as u64, "partition {partition}: {next} of {} are counted", keys.len());
    }
    ensure!(stretches.is_empty(), "counted where nothing is: {stretches:?}");
    let mut sums = BTreeMap::new();
    for count in counts {
        *sums.entry(count.carrier.clone()).or_default() += count.count;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_wrong_counts_are_found() {
        let keys: Keys = [(0, ["A", "B", "A"].map(str::to_owned).to_vec())].into();
        let count = |carrier: &str, count, first, last| Count {
            carrier: carrier.to_owned(),
            count,
            partition: 0,
            first,
            last,
        };
        let right = [count("A", 1, 0, 1), count("B", 1, 0, 1), count("A", 1, 2, 2)];
        assert_eq!(check(&keys, &right).unwrap(), [("A".to_owned(), 2), ("B".to_owned(), 1)].into());
        let wrong: [&[Count]; 7] = [
            &right[..2],
            &right[1..],
            &[right[0].clone(), right[2].clone()],
            &[right.to_vec(), vec![right[2].clone()]].concat(),
            &[right.to_vec(), vec![count("A", 2, 1, 2)]].concat(),
            &[count("A", 2, 0, 1), count("B", 1, 0, 1), count("A", 1, 2, 2)],
            &[right.to_vec(), vec![Count { partition: 1, ..count("A", 1, 0, 0) }]].concat(),
        ];
        for wrong in wrong {
            assert!(check(&keys, wrong).is_err(), "{wrong:?}");
        }
    }
}
