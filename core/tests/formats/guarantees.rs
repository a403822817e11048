//! The messages of producers, fencing tokens and settings: what was sent once is understood for ever.

use carnax_core::id::PartitionIndex;
use carnax_core::metadata::*;
use carnax_core::offset::Offset;

use crate::messages::{check, on, time, topic, topic_ref};

#[test]
fn producer_calls_are_understood_as_ever() {
    let producer = || "arn:aws:sqs:eu:1:orders.fifo/a".parse().unwrap();
    check("RaiseProducerEpoch", &RaiseProducerEpoch { producer: producer(), from: Some(u32::MAX) });
    check("RaiseProducerEpoch-start", &RaiseProducerEpoch { producer: producer(), from: None });
    check("DescribeProducer", &DescribeProducer { producer: producer() });
    let slices = vec![AppendedSlice {
        topic: topic(),
        partition: on().partition,
        base_offset: Offset(41),
        records: 3,
    }];
    let reply = KeptReply { sequence: u128::MAX, slices, append_time: time(1_700_000_000_001) };
    let raised = ProducerDescription {
        epoch: 5,
        last_sequence: None,
        before: Some(FencedEpoch { epoch: 4, last_sequence: Some(u128::MAX), replies: vec![reply] }),
        last_seen: time(1_700_000_000_002),
    };
    check("ProducerDescription", &raised);
    let begun = ProducerDescription { last_sequence: Some(0), before: None, ..raised };
    check("ProducerDescription-begun", &begun);
}

#[test]
fn fencing_calls_are_understood_as_ever() {
    let token = || "owner-7".parse().unwrap();
    for (name, token_now) in [
        ("any", TokenNow::Any),
        ("nothing", TokenNow::Nothing),
        ("token", TokenNow::Token("owner-6".parse().unwrap())),
    ] {
        let (topic, partition) = (topic_ref(), PartitionIndex(3));
        let request = SetFencingToken { topic, partition, token: Some(token()), from: token_now };
        check(&format!("SetFencingToken-{name}"), &request);
    }
    let (topic_id, high_watermark) = (topic(), Offset(44));
    check("DescribeFencingToken", &DescribeFencingToken { topic: topic_ref(), partition: PartitionIndex(3) });
    check("PartitionFence", &PartitionFence { topic_id, token: Some(token()), high_watermark });
    check("PartitionFence-none", &PartitionFence { topic_id, token: None, high_watermark });
}

#[test]
fn settings_calls_are_understood_as_ever() {
    let entries =
        [("producer.max".to_owned(), Some("7".to_owned())), ("idempotency.window.ms".to_owned(), None)];
    check("AlterSettings", &AlterSettings { entries: entries.into() });
    check("DescribeSettings", &DescribeSettings {});
    let entries = [("producer.max".to_owned(), "7".to_owned())];
    check("SettingsDescription", &SettingsDescription { entries: entries.into() });
}
