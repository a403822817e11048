//! What is said of all objects, page by page, is what the plans of fetches say, whatever the size of a page.

use std::collections::BTreeMap;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, SegmentNumber, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{FetchFrom, ListDead, ListManifests, Manifest};
use carnax_core::offset::Offset;
use carnax_metadata_state::answer;

use crate::support::{Cluster, INCARNATION, code, segment, slice, trim};

fn all(cluster: &Cluster, rows: u32) -> Vec<Manifest> {
    let (mut from, mut all) = (SegmentNumber(0), Vec::new());
    loop {
        let request = ListManifests { from, rows, slices: true };
        let page = answer::list_manifests(&cluster.state, &request).unwrap();
        assert_eq!((page.incarnation, page.end), (INCARNATION, SegmentNumber(200)));
        let shown: usize = page.manifests.iter().map(|manifest| 1 + manifest.slices.len()).sum();
        assert!(page.manifests.len() == 1 || shown <= usize::try_from(rows).unwrap());
        all.extend(page.manifests);
        match page.next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

/// Two hundred segments with slices of two partitions each, of which the first ones are trimmed in one or both.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 1, 2);
    let session = cluster.open_session();
    for number in 0..200 {
        let id = cluster.segment(number.into());
        let slices = vec![slice(topic, 0, 8, 100, 10, 5), slice(topic, 1, 108, 50, 3, 7)];
        cluster.commit(session, number + 1, vec![segment(id, slices)]).unwrap();
        cluster.now += 10;
    }
    cluster.one(trim("t", 0, 50 * 10)).unwrap();
    cluster.one(trim("t", 1, 30 * 3)).unwrap();
    cluster
}

#[test]
fn pages_of_manifests_are_together_what_plans_say() {
    let cluster = cluster();
    let whole = all(&cluster, limits::MANIFEST_ROWS_MAX);
    for rows in [1, 3, 7, 64] {
        assert_eq!(all(&cluster, rows), whole, "{rows} rows a page");
    }
    assert_eq!(whole.len(), 170);
    let mut known = BTreeMap::new();
    for manifest in &whole {
        assert_eq!(manifest.slices.len(), if manifest.number < SegmentNumber(50) { 1 } else { 2 });
        for slice in &manifest.slices {
            known.insert((slice.on, slice.base_offset), (manifest.key, manifest.size, *slice));
        }
    }
    for (partition, from) in [(0, 500), (1, 90)] {
        let plan = cluster.plan("t", partition, FetchFrom::Offset(Offset(from))).unwrap();
        for planned in plan.slices {
            let on = TopicPartition {
                topic: plan.topic_id,
                partition: carnax_core::id::PartitionIndex(partition),
            };
            let (key, size, slice) = known.remove(&(on, planned.base_offset)).unwrap();
            assert_eq!((key, size), (planned.segment, planned.segment_size));
            assert_eq!((slice.bytes, slice.end_offset), (planned.bytes, planned.end_offset));
        }
    }
    assert!(known.is_empty(), "{known:?}");
}

#[test]
fn pages_of_dead_objects_are_together_all_of_them() {
    let cluster = cluster();
    let ask = |after, limit| answer::list_dead(&cluster.state, &ListDead { after, limit });
    let (mut after, mut numbers) = (None, Vec::new());
    loop {
        let page = ask(after, 7).unwrap();
        numbers.extend(page.objects.iter().map(|object| object.number.0));
        after = page.objects.last().map(|object| (object.died_at, object.number));
        if !page.more {
            break;
        }
    }
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    assert_eq!(ask(Some((LogIndex(u64::MAX), SegmentNumber(0))), 1).unwrap().objects, []);
    assert_eq!(code(ask(None, 0)), ErrorCode::InvalidValue);
    let request = ListManifests { from: SegmentNumber(0), rows: 1_000_000, slices: false };
    assert_eq!(code(answer::list_manifests(&cluster.state, &request)), ErrorCode::InvalidValue);
}
