//! Which records of a partition may go: `retention.ms` and `retention.bytes`, in whole pages and slices, as Kafka drops whole
//! segments.

use std::ops::ControlFlow;

use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicConfig;

use crate::partition::Partition;
use crate::segment::Segments;

/// Where the log of a partition is to start, if that is further up than it does.
///
/// A slice may go when its largest timestamp is older than `retention.ms`, or when those behind it have `retention.bytes` without
/// it; and only when all slices before it may go. Records without a timestamp are as old as their append.
pub(crate) fn log_start(
    partition: &Partition,
    segments: &Segments,
    config: &TopicConfig,
    now: Timestamp,
) -> Option<Offset> {
    if !config.cleanup_delete || (config.retention.is_none() && config.retention_bytes.is_none()) {
        return None;
    }
    let mut start = partition.log_start;
    let mut left = config.retention_bytes.map_or(0, |_| partition.bytes());
    let mut may_go = |latest: Timestamp, bytes: u64| {
        let old = config.retention.is_some_and(|retention| now.since(latest) > retention);
        let beyond = config.retention_bytes.is_some_and(|kept| left.saturating_sub(bytes) >= kept);
        left = left.saturating_sub(bytes);
        old || beyond
    };
    for page in partition.pages.all() {
        if !may_go(page.max_timestamp, page.bytes) {
            return (start > partition.log_start).then_some(start);
        }
        start = start.max(page.end);
    }
    partition.slices.visit_from(start, &mut |slice| {
        let append_time = segments.get(slice.segment).map_or(now, |segment| segment.append_time);
        if !may_go(slice.latest(append_time), u64::from(slice.length)) {
            return ControlFlow::Break(());
        }
        start = slice.end();
        ControlFlow::Continue(())
    });
    (start > partition.log_start).then_some(start)
}
