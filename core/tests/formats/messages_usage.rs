//! The messages about usage: what was sent once is understood for ever.

use carnax_core::access::Token;
use carnax_core::metadata::*;
use carnax_core::usage::{Prices, StoreRequests, Traffic};

use crate::messages::{check, time, topic};

fn traffic() -> Traffic {
    Traffic { records_in: 1, bytes_in: 2, records_out: 3, bytes_out: u64::MAX }
}

fn requests() -> StoreRequests {
    StoreRequests { put: 1, get: 2, head: 3, list: 4, delete: 5 }
}

#[test]
fn usage_calls_are_understood_as_ever() {
    let token = Token::from_random(1, [2, 3]).id().clone();
    let (topics, tokens) = (vec![(topic(), traffic())], vec![(token.clone(), traffic())]);
    check(
        "ReportUsage",
        &ReportUsage { reporter: u128::MAX, number: 7, requests: requests(), topics, tokens },
    );
    check("UsageReported", &UsageReported { counted: true });
    check(
        "DescribeUsage",
        &DescribeUsage {
            month: UsageMonth::Last,
            after_topic: Some(topic()),
            after_token: Some(token.clone()),
            limit: 1_000,
        },
    );
    let name = "flights".parse().unwrap();
    check(
        "UsageDescription",
        &UsageDescription {
            month: "2026-11".to_owned(),
            log_time: time(1_700_000_000_000),
            requests: requests(),
            traffic: traffic(),
            deleted_topics: traffic(),
            other_tokens: traffic(),
            stored_bytes: 1,
            dead_bytes: 2,
            topics: vec![TopicUsage { topic_id: topic(), name, traffic: traffic(), stored_bytes: 3 }],
            more_topics: true,
            tokens: vec![TokenUsage { id: token, traffic: traffic() }],
            more_tokens: true,
            prices: Prices::default(),
        },
    );
}
