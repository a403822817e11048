//! What is made of the records.

use std::collections::BTreeMap;

use carnax::{ConsumedRecord, Record};
use serde::{Deserialize, Serialize};

/// Minutes from which an arrival counts as late.
const LATE: f64 = 15.0;

#[derive(Debug, Deserialize)]
struct Flight {
    carrier: String,
    /// In minutes; absent for a flight that was cancelled.
    arr_delay: Option<f64>,
}

/// So many of the records `first..=last` of a partition are flights of a carrier, and so many of these were late.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    carrier: String,
    count: u64,
    late: u64,
    partition: u32,
    first: u64,
    last: u64,
}

/// Counts the records of one partition, by carrier.
///
/// It gives at least one count for any record, since an append needs one: what is no flight is counted under `?`, and holds up
/// nothing. It looks at its argument alone, so that it may be called again for the same records.
pub(crate) fn count(records: &[ConsumedRecord]) -> Vec<Count> {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Vec::new() };
    let (partition, first, last) = (first.partition.0, first.offset.0, last.offset.0);
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    for record in records {
        let value = record.value.as_deref().unwrap_or_default();
        let (carrier, late) = match serde_json::from_slice::<Flight>(value) {
            Ok(flight) => (flight.carrier, flight.arr_delay.is_some_and(|minutes| minutes >= LATE)),
            Err(_) => ("?".to_owned(), false),
        };
        let none = Count { carrier: carrier.clone(), count: 0, late: 0, partition, first, last };
        let count = counts.entry(carrier).or_insert(none);
        count.count += 1;
        count.late += u64::from(late);
    }
    counts.into_values().collect()
}

impl Count {
    /// With the carrier as its key.
    pub(crate) fn record(&self) -> Record {
        Record::new(serde_json::json!(self).to_string()).with_key(self.carrier.clone())
    }
}

#[cfg(test)]
mod tests {
    use carnax::{Offset, PartitionIndex, Timestamp};

    use super::*;

    #[test]
    fn flights_are_counted_by_carrier_and_what_is_none_is_counted_too() {
        let flight = |carrier: &str, delay: &str| format!(r#"{{"carrier":"{carrier}","arr_delay":{delay}}}"#);
        let values = [flight("UA", "15"), flight("AA", "-3"), flight("UA", "null"), "not JSON".to_owned()];
        let record = |(offset, value): (u64, String)| ConsumedRecord {
            topic: "flights".parse().unwrap(),
            partition: PartitionIndex(3),
            offset: Offset(offset),
            timestamp: Timestamp::EPOCH,
            key: None,
            value: Some(value.into()),
            headers: Vec::new(),
        };
        let records: Vec<_> = (41..).zip(values).map(record).collect();
        let right = [("?", 1, 0), ("AA", 1, 0), ("UA", 2, 1)].map(|(carrier, count, late)| Count {
            carrier: carrier.to_owned(),
            count,
            late,
            partition: 3,
            first: 41,
            last: 44,
        });
        assert_eq!(count(&records), right);
        assert!(count(&[]).is_empty());
    }
}
