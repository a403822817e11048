//! Manifest pages: round trips, damage of every kind, and a page that was written once and is read for ever.

use carnax_core::id::{Incarnation, PartitionIndex, SegmentId, TopicId, TopicPartition};
use carnax_core::manifest_page::{ManifestPage, ManifestPageError};
use carnax_core::metadata::PlannedSlice;
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::time::Timestamp;
use proptest::prelude::*;

use crate::golden;

fn on() -> TopicPartition {
    let topic = TopicId::from_parts(Timestamp::from_millis(1_600_000_000_000), 7);
    TopicPartition { topic, partition: PartitionIndex(3) }
}

/// Slices of so many records each, one behind the other.
fn slices(records: &[u32]) -> Vec<PlannedSlice> {
    let mut base = Offset(1_000);
    let slice = |(place, records): (u64, &u32)| {
        let start = base;
        base = Offset(base.0 + u64::from(*records));
        let time = Timestamp::from_millis(1_700_000_000_000);
        let segment = SegmentId::from_parts(time, place.into());
        PlannedSlice {
            segment: SegmentKey { incarnation: Incarnation(2), segment, merged: Some(on()) },
            segment_size: 1_000 + place,
            bytes: ByteRange { start: 8, length: 900 },
            base_offset: start,
            end_offset: base,
            max_timestamp: Timestamp::from_millis(-5 + i64::from(*records)),
            append_time: Timestamp::EPOCH,
            rewritten: true,
        }
    };
    (0..).zip(records).map(slice).collect()
}

#[test]
fn a_page_that_was_written_once_is_read_for_ever() {
    let page = ManifestPage::new(on(), slices(&[3, 1, 4_000_000_000])).unwrap();
    let written = golden("manifest-page-v1.bin", &page.encode());
    assert_eq!(ManifestPage::decode(&written), Ok(page.clone()));
    assert_eq!(written, page.encode());
    assert_eq!(written.len() as u64, ManifestPage::object_bytes(3));
}

#[test]
fn what_is_no_page_is_refused_with_its_reason() {
    let bytes = ManifestPage::new(on(), slices(&[3, 1])).unwrap().encode();
    let mut later = bytes;
    later[11] = 2;
    assert_eq!(ManifestPage::decode(&later), Err(ManifestPageError::UnknownVersion { version: 2 }));
    assert!(matches!(ManifestPage::decode(b"short"), Err(ManifestPageError::NotAPage { .. })));
    let mut gap = slices(&[3, 1]);
    gap[1].base_offset = Offset(1_002);
    let foreign = vec![PlannedSlice {
        segment: SegmentKey { merged: None, ..slices(&[1])[0].segment },
        ..slices(&[1])[0]
    }];
    for wrong in [Vec::new(), gap, foreign, slices(&vec![1; 4_097])] {
        assert!(matches!(ManifestPage::new(on(), wrong), Err(ManifestPageError::Contradiction { .. })));
    }
}

proptest! {
    #[test]
    fn pages_are_read_back_and_damage_is_seen(
        records in proptest::collection::vec(1..u32::MAX, 1..40),
        at in any::<proptest::sample::Index>(),
        bit in 0..8_u8,
        end in any::<proptest::sample::Index>(),
    ) {
        let page = ManifestPage::new(on(), slices(&records)).unwrap();
        let bytes = page.encode();
        prop_assert_eq!(ManifestPage::decode(&bytes), Ok(page));
        prop_assert!(ManifestPage::decode(&bytes[..end.index(bytes.len())]).is_err());
        let mut damaged = bytes.clone();
        damaged[at.index(bytes.len())] ^= 1 << bit;
        prop_assert!(ManifestPage::decode(&damaged).is_err());
    }
}
