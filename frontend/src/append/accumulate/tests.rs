//! Goal: a segment is closed for each of its four reasons and for no other. Method: the policy on plain values.

use carnax_core::metadata::{ProducerStamp, SequenceMode};

use super::*;
use crate::config::Settings;

fn settings(linger: u64) -> AppendSettings {
    let mut settings = Settings::new(Vec::new(), "memory://x".parse().unwrap()).append;
    settings.linger = Duration::from_millis(linger);
    settings
}

#[test]
fn a_segment_closes_by_age_bytes_units_or_command_and_an_empty_one_never() {
    let settings = settings(250);
    let young = Fill { age: Some(Duration::from_millis(100)), bytes: 1, units: 1, commit_bytes: 300 };
    assert_eq!(when_to_close(Fill::default(), &settings, true), Close::Later);
    assert_eq!(when_to_close(young, &settings, true), Close::After(Duration::from_millis(150)));
    let old = Fill { age: Some(Duration::from_millis(250)), ..young };
    assert_eq!(when_to_close(old, &settings, true), Close::Now);
    assert_eq!(when_to_close(old, &settings, false), Close::Later, "it grows until it can be uploaded");
    for full in [
        Fill { bytes: 8 << 20, ..young },
        Fill { units: limits::SEGMENT_UNITS_MAX, ..young },
        Fill { commit_bytes: limits::SEGMENT_COMMIT_BYTES_MAX, ..young },
    ] {
        assert_eq!(when_to_close(full, &settings, false), Close::Now);
    }
}

#[test]
fn without_linger_a_segment_closes_as_soon_as_it_can_be_uploaded() {
    let fill = Fill { age: Some(Duration::ZERO), bytes: 1, units: 1, commit_bytes: 300 };
    assert_eq!(when_to_close(fill, &settings(0), true), Close::Now);
    assert_eq!(when_to_close(fill, &settings(0), false), Close::Later);
}

/// What came of the units of these producers and sequences (none: somebody else's) when the segment was closed.
fn closed(units: &[Option<(&str, u32, u128)>]) -> Vec<usize> {
    let unit = |(arrival, stamp): (usize, &Option<(&str, u32, u128)>)| {
        let producer = stamp.map(|(producer, epoch, sequence)| ProducerStamp {
            producer: producer.parse().unwrap(),
            epoch,
            sequence,
            mode: SequenceMode::Contiguous,
            body_hash: [0; 16],
        });
        let routing = vec![Routing {
            topic: TopicId::from_bytes([0; 16]),
            partition_count: u32::try_from(arrival).unwrap(),
        }];
        let commit = UnitCommit { producer, routing, ..UnitCommit::default() };
        let content = UnitContent { commit, batches: UnitBatches::Own(Vec::new()) };
        OpenUnit { content, ack: UnitAck { is_one_request: true, producer: None, members: Vec::new() } }
    };
    let units = units.iter().enumerate().map(unit).collect();
    let place = |unit: OpenUnit| unit.content.commit.routing[0].partition_count as usize;
    in_order_of_sequences(units).into_iter().map(place).collect()
}

#[test]
fn at_closing_each_producer_is_in_order_and_nobody_else_is_moved() {
    let (p, q) = (|sequence| Some(("p", 0, sequence)), |sequence| Some(("q", 0, sequence)));
    assert_eq!(closed(&[p(1), None, q(5), p(0), None, q(4)]), [3, 1, 5, 0, 4, 2]);
    assert_eq!(closed(&[p(0), q(1), None, p(1), p(1)]), [0, 1, 2, 3, 4], "repeats stay as they came");
    assert_eq!(closed(&[Some(("p", 1, 0)), p(7), p(6)]), [0, 2, 1], "epochs are apart");
    assert_eq!(closed(&[None, None]), [0, 1]);
}
