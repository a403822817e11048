//! Which slices of a partition are worth merging: a pure choice.
//!
//! Slices are merged when there are many small ones beside each other, or when they fill a large one. The largest of many has at
//! most two parts in `merge.slices` of all their bytes, so that each time a record is written again the slice that it is in has
//! become at least 16 times as large, where `merge.slices` is 32. That bounds how often a record is written: a slice of 8 KiB is
//! merged three times on its way to 128 MiB.
//!
//! A merged slice lives until the last of its records may go, so those of topics with retention are kept to an eighth of it.

use std::ops::Range;
use std::time::Duration;

use carnax_core::limits;
use carnax_core::metadata::ClusterSettings;
use carnax_core::topic::TopicConfig;

use crate::partition::Slice;

/// The largest slice has at most this part of the bytes of a run that fills a large slice.
const FILLING_SHARE: u64 = 4;
/// A merged slice covers at most this part of what retention keeps.
const RETENTION_SHARE: u32 = 8;

/// What a run of slices has to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// So many slices are worth it.
    pub(crate) slices_min: usize,
    /// At most so many bytes together.
    pub(crate) bytes_max: u64,
    /// Their largest timestamps are at most so far apart.
    pub(crate) span_max: Option<Duration>,
    /// Of what retention keeps, in bytes.
    kept_bytes_max: Option<u64>,
}

impl Policy {
    pub(crate) fn of(config: &TopicConfig, settings: &ClusterSettings) -> Self {
        let slices_min = usize::try_from(settings.merge_slices).unwrap_or(usize::MAX);
        let kept = config.retention_bytes.filter(|_| config.cleanup_delete);
        let kept_bytes_max = kept.map(|bytes| bytes / u64::from(RETENTION_SHARE));
        let bytes_max = kept_bytes_max.unwrap_or(u64::MAX);
        let span = config.retention.filter(|_| config.cleanup_delete);
        let span_max = span.map(|retention| retention / RETENTION_SHARE);
        Self { slices_min, bytes_max: bytes_max.min(settings.merge_bytes), span_max, kept_bytes_max }
    }

    /// The first run that is worth merging, as long as it may be.
    pub(crate) fn find_run(&self, slices: &[Slice]) -> Option<Range<usize>> {
        (0..slices.len()).find_map(|from| {
            let length = self.run_from(&slices[from..])?;
            Some(from..from + length)
        })
    }

    /// How much larger than its largest source a merged slice is at least.
    fn growth(&self) -> u64 {
        (self.slices_min as u64 / 2).max(2)
    }

    /// How many of the slices, from the first on, may share a fate: together they are a small part of what retention keeps.
    pub(crate) fn share_of_retention(&self, slices: &[Slice]) -> usize {
        let Some(first) = slices.first() else { return 0 };
        let (mut bytes, mut earliest, mut latest) = (0_u64, first.max_timestamp, first.max_timestamp);
        for (count, slice) in slices.iter().enumerate() {
            bytes += u64::from(slice.length);
            earliest = earliest.min(slice.max_timestamp);
            latest = latest.max(slice.max_timestamp);
            let fits = self.kept_bytes_max.is_none_or(|max| bytes <= max)
                && self.span_max.is_none_or(|max| latest.since(earliest) <= max);
            if !fits {
                return count;
            }
        }
        slices.len()
    }

    /// How many of the slices, from the first on, are worth merging.
    fn run_from(&self, slices: &[Slice]) -> Option<usize> {
        let first = slices.first()?;
        let (mut bytes, mut records, mut largest) = (0_u64, 0_u32, 0_u64);
        let (mut earliest, mut latest) = (first.max_timestamp, first.max_timestamp);
        let mut run = None;
        for (count, slice) in (1..).zip(slices.iter().take(limits::MERGE_PART_SLICES_MAX)) {
            let length = u64::from(slice.length);
            bytes += length;
            largest = largest.max(length);
            earliest = earliest.min(slice.max_timestamp);
            latest = latest.max(slice.max_timestamp);
            let Some(sum) = records.checked_add(slice.records) else { break };
            records = sum;
            let too_long = self.span_max.is_some_and(|span| latest.since(earliest) > span);
            if !slice.is_small() || bytes > self.bytes_max || too_long {
                break;
            }
            let grows = largest.saturating_mul(self.growth()) <= bytes;
            let fills = bytes >= self.bytes_max / 4 * 3 && largest.saturating_mul(FILLING_SHARE) <= bytes;
            if (count >= self.slices_min && grows) || fills {
                run = Some(count);
            }
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use carnax_core::offset::Offset;
    use carnax_core::time::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::segment::SegmentNumber;

    const MIB: u64 = 1024 * 1024;

    fn policy(slices_min: usize) -> Policy {
        Policy { slices_min, bytes_max: limits::MERGED_BYTES_TARGET, span_max: None, kept_bytes_max: None }
    }

    fn slices(lengths: &[u64]) -> Vec<Slice> {
        let slice = |(place, length): (u64, &u64)| Slice {
            base: Offset(place),
            segment: SegmentNumber(place),
            max_timestamp: Timestamp::from_millis(i64::try_from(place).unwrap()),
            start: 8,
            length: u32::try_from(*length).unwrap(),
            records: 1,
        };
        (0..).zip(lengths).map(slice).collect()
    }

    #[test]
    fn many_small_slices_are_merged_and_few_are_left_alone() {
        assert_eq!(policy(4).find_run(&slices(&[100; 3])), None);
        assert_eq!(policy(4).find_run(&slices(&[100; 4])), Some(0..4));
        assert_eq!(policy(4).find_run(&slices(&[100; 9])), Some(0..9), "all that there are");
        let behind_large = slices(&[40 * MIB, 1_000, 1_000, 40 * MIB, 100, 100, 100, 100]);
        assert_eq!(policy(4).find_run(&behind_large), Some(4..8), "large ones are left alone");
        let growing = slices(&[4_000, 100, 100, 100, 100, 100]);
        assert_eq!(
            policy(4).find_run(&growing),
            Some(1..6),
            "the large one would be written again for little"
        );
    }

    #[test]
    fn slices_that_fill_a_large_one_are_merged_however_few_they_are() {
        assert_eq!(policy(32).find_run(&slices(&[8 * MIB; 11])), None);
        assert_eq!(policy(32).find_run(&slices(&[8 * MIB; 12])), Some(0..12));
        assert_eq!(policy(32).find_run(&slices(&[8 * MIB; 40])), Some(0..16), "and no more than fill it");
    }

    #[test]
    fn a_merged_slice_is_no_coarser_than_retention_allows() {
        let four = ClusterSettings { merge_slices: 4, ..ClusterSettings::default() };
        let mut config = TopicConfig { retention_bytes: Some(8_000), ..TopicConfig::default() };
        assert_eq!(Policy::of(&config, &four).find_run(&slices(&[100; 40])), Some(0..10));
        config = TopicConfig { retention: Some(Duration::from_millis(48)), ..TopicConfig::default() };
        assert_eq!(Policy::of(&config, &four).find_run(&slices(&[100; 40])), Some(0..7), "6 ms apart");
        config.cleanup_delete = false;
        assert_eq!(Policy::of(&config, &four).find_run(&slices(&[100; 40])), Some(0..40));
        let small = ClusterSettings { merge_bytes: 1_000, ..four };
        assert_eq!(Policy::of(&config, &small).find_run(&slices(&[100; 40])), Some(0..10));
    }

    proptest! {
        /// Appends slices one by one and merges whenever it is worth it.
        #[test]
        fn a_record_is_written_a_few_times_and_slices_stay_few(
            lengths in proptest::collection::vec(1_000..20_000_u64, 1..4_000),
        ) {
            let policy = policy(32);
            let (mut log, mut appended, mut merged) = (Vec::new(), 0, 0);
            for length in lengths {
                appended += length;
                log.extend(slices(&[length]));
                while let Some(run) = policy.find_run(&log) {
                    let bytes = log[run.clone()].iter().map(|slice| u64::from(slice.length)).sum::<u64>();
                    merged += bytes;
                    log.splice(run, slices(&[bytes]));
                }
                prop_assert!(log.len() <= 32 * 4);
            }
            prop_assert!(merged <= appended * 3, "{merged} bytes were merged, {appended} appended");
        }
    }
}
