//! What usage promises, told as stories: every report counts once, months end, nothing of deleted topics is lost, and a
//! snapshot holds all of it. Every step also checks all invariants.

use carnax_core::access::{Grant, TokenId};
use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicId;
use carnax_core::limits;
use carnax_core::metadata::{
    DescribeUsage, ReportUsage, RevokeToken, UsageDescription, UsageMonth, UsageReported,
};
use carnax_core::time::Timestamp;
use carnax_core::usage::{Prices, StoreRequests, Traffic};
use carnax_metadata_state::{Command, Entry, FeatureLevel, Reply, answer, invariant};

use crate::bytes::golden;
use crate::support::{Cluster, START, bytes_of, code, delete, read_back};
use crate::tokens::{request, token};

/// In milliseconds.
const MONTH: i64 = 31 * 24 * 60 * 60 * 1_000;

fn traffic(size: u64) -> Traffic {
    Traffic { records_in: size, bytes_in: size * 10, records_out: size * 2, bytes_out: size * 20 }
}

fn puts(put: u64) -> StoreRequests {
    StoreRequests { put, get: 1, head: 2, list: 3, delete: 4 }
}

fn report(reporter: u128, number: u64, topics: &[(TopicId, u64)]) -> ReportUsage {
    let topics = topics.iter().map(|(topic, size)| (*topic, traffic(*size))).collect();
    ReportUsage { reporter, number, requests: puts(5), topics, tokens: Vec::new() }
}

fn send(cluster: &mut Cluster, report: ReportUsage) -> bool {
    match cluster.one(Command::ReportUsage(report)) {
        Ok(Reply::UsageReported(UsageReported { counted })) => counted,
        other => panic!("not an answer to a report: {other:?}"),
    }
}

fn ask(cluster: &Cluster, month: UsageMonth) -> UsageDescription {
    let request = DescribeUsage { month, after_topic: None, after_token: None, limit: 1_000 };
    answer::describe_usage(&cluster.state, &request, Timestamp::EPOCH).unwrap()
}

#[test]
fn a_report_that_comes_twice_counts_once_and_sums_grow_by_topic() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.create("a", 1, 1), cluster.create("b", 2, 1));
    assert!(send(&mut cluster, report(1, 1, &[(a, 3), (b, 1)])));
    assert!(!send(&mut cluster, report(1, 1, &[(a, 3), (b, 1)])), "a repeat");
    assert!(send(&mut cluster, report(2, 1, &[(a, 2)])), "another process");
    assert!(send(&mut cluster, report(1, 2, &[(b, 4)])));
    assert!(!send(&mut cluster, report(1, 1, &[(a, 3)])), "a late repeat");
    let usage = ask(&cluster, UsageMonth::This);
    let rows: Vec<_> = usage.topics.iter().map(|row| (row.topic_id, row.traffic)).collect();
    assert_eq!(rows, [(a, traffic(5)), (b, traffic(5))]);
    assert_eq!(usage.traffic, traffic(10));
    assert_eq!(usage.requests, StoreRequests { put: 15, get: 3, head: 6, list: 9, delete: 12 });
    assert_eq!((usage.deleted_topics, usage.prices), (Traffic::default(), Prices::default()));
    assert_eq!(usage.month, "2023-11");

    let many = vec![(a, Traffic::default()); limits::USAGE_REPORT_ROWS_MAX + 1];
    let many = ReportUsage { topics: many, ..report(3, 1, &[]) };
    assert_eq!(code(cluster.one(Command::ReportUsage(many))), ErrorCode::InvalidValue);
    assert!(send(&mut cluster, report(3, 1, &[])), "what was refused was not counted");
}

#[test]
fn what_was_used_for_a_deleted_topic_and_a_revoked_token_stays_in_the_sums() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.create("a", 1, 1), cluster.create("b", 2, 1));
    for (id, grants) in [(1, vec![Grant::admin()]), (2, vec![Grant::admin()])] {
        cluster.one(Command::CreateToken(request(&token(id), grants))).unwrap();
    }
    let of = |id: u128| -> TokenId { token(id).id().clone() };
    let tokens = vec![(of(1), traffic(1)), (of(2), traffic(3)), (of(9), traffic(1))];
    assert!(send(&mut cluster, ReportUsage { tokens, ..report(1, 1, &[(a, 3), (b, 4)]) }));
    let usage = ask(&cluster, UsageMonth::This);
    assert_eq!(usage.tokens.iter().map(|row| row.traffic).collect::<Vec<_>>(), [traffic(1), traffic(3)]);
    assert_eq!(usage.other_tokens, traffic(3), "of nobody, and of one that is unknown");

    cluster.one(delete("a")).unwrap();
    cluster.one(Command::RevokeToken(RevokeToken { id: of(2) })).unwrap();
    assert!(send(&mut cluster, report(1, 2, &[(a, 1)])), "a late word of a topic that is gone");
    let usage = ask(&cluster, UsageMonth::This);
    assert_eq!(usage.topics.iter().map(|row| row.topic_id).collect::<Vec<_>>(), [b]);
    assert_eq!((usage.traffic, usage.deleted_topics), (traffic(8), traffic(4)));
    assert_eq!(usage.other_tokens, traffic(7));
}

#[test]
fn a_month_ends_by_log_time_and_is_told_for_one_more() {
    let mut cluster = Cluster::new();
    let a = cluster.create("a", 1, 1);
    assert!(send(&mut cluster, report(1, 1, &[(a, 1)])));
    let first = ask(&cluster, UsageMonth::This).month;
    // Nobody reports in the new month yet: the old one is over all the same.
    cluster.now += MONTH;
    cluster.one(Command::ExpireSessions).unwrap();
    assert_eq!(ask(&cluster, UsageMonth::This).traffic, Traffic::default());
    assert_eq!(ask(&cluster, UsageMonth::Last).traffic, traffic(1));
    assert!(send(&mut cluster, report(1, 2, &[(a, 2)])));
    let (this, last) = (ask(&cluster, UsageMonth::This), ask(&cluster, UsageMonth::Last));
    assert_eq!((this.traffic, last.traffic), (traffic(2), traffic(1)));
    assert_eq!((first.as_str(), last.month.as_str(), this.month.as_str()), ("2023-11", "2023-11", "2023-12"));
    cluster.now += 2 * MONTH;
    assert!(send(&mut cluster, report(1, 3, &[])));
    assert_eq!(ask(&cluster, UsageMonth::Last).traffic, Traffic::default(), "a month without reports");
}

#[test]
fn reporters_are_forgotten_when_they_are_old_and_usage_outlives_a_snapshot() {
    let mut cluster = example();
    assert!(!send(&mut cluster, report(1, 1, &[])));
    cluster.now += i64::try_from(limits::USAGE_REPORTER_EXPIRY.as_millis()).unwrap();
    assert!(send(&mut cluster, report(2, 9, &[])));
    assert!(send(&mut cluster, report(1, 1, &[])), "forgotten: this is taken for a new process");
    let restored = read_back(&bytes_of(&cluster.state)).unwrap();
    assert_eq!(bytes_of(&restored), bytes_of(&cluster.state));
    assert_eq!(invariant::check(&restored), Vec::<String>::new());
    let request =
        |limit| DescribeUsage { month: UsageMonth::This, after_topic: None, after_token: None, limit };
    let page = |limit| answer::describe_usage(&restored, &request(limit), Timestamp::EPOCH);
    assert_eq!(page(1_000).unwrap(), ask(&cluster, UsageMonth::This));
    assert!(page(1).unwrap().more_topics && page(1).unwrap().topics.len() == 1);
    assert!(page(0).is_err() && page(limits::USAGE_PAGE_MAX + 1).is_err());
}

fn example() -> Cluster {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.create("a", 1, 1), cluster.create("b", 2, 1));
    cluster.one(Command::CreateToken(request(&token(1), vec![Grant::admin()]))).unwrap();
    let tokens = || vec![(token(1).id().clone(), traffic(1))];
    assert!(send(&mut cluster, ReportUsage { tokens: tokens(), ..report(1, 1, &[(a, 3), (b, 1)]) }));
    cluster.now += MONTH;
    assert!(send(&mut cluster, ReportUsage { tokens: tokens(), ..report(2, 1, &[(a, 7)]) }));
    assert!(send(&mut cluster, report(1, 1, &[])), "forgotten after so long");
    cluster
}

fn example_entry() -> Entry {
    let topic = TopicId::from_parts(Timestamp::from_millis(START), 1);
    let tokens = vec![(token(1).id().clone(), traffic(1))];
    let commands = vec![Command::ReportUsage(ReportUsage { tokens, ..report(u128::MAX, 7, &[(topic, 3)]) })];
    Entry { level: FeatureLevel(6), log_time: Timestamp::from_millis(START), commands }
}

#[test]
fn golden_files_of_usage_are_read_and_written_alike() {
    let entry = std::fs::read(golden("entry-1-usage.bin")).unwrap();
    assert_eq!(Entry::decode(&entry).unwrap(), example_entry());
    assert!(example_entry().encode() == entry, "the encoding of an entry has changed");
    let bytes = std::fs::read(golden("snapshot-1-usage.bin")).unwrap();
    let state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&state), Vec::<String>::new());
    assert!(bytes_of(&state) == bytes && bytes_of(&example().state) == bytes);
    for frame in ["usage", "topic_usage", "token_usage", "usage_reporters"] {
        assert!(bytes.windows(frame.len()).any(|part| part == frame.as_bytes()), "{frame} has rows");
    }
}

#[test]
#[ignore = "writes the golden files; run it once for a new version"]
fn write_golden_files_of_usage() {
    std::fs::write(golden("entry-1-usage.bin"), example_entry().encode()).unwrap();
    std::fs::write(golden("snapshot-1-usage.bin"), bytes_of(&example().state)).unwrap();
}
