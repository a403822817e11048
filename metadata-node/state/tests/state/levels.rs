//! A cluster's feature level: what is newer is refused without a trace, and it only ever rises. Every step also checks all
//! invariants.

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::ClusterSettings;
use carnax_core::topic::TopicConfig;
use carnax_metadata_state::{Command, Entry, EntryError, FeatureLevel, Reply};
use proptest::prelude::*;

use crate::groups::commands_of_groups;
use crate::jobs::commands_of_jobs;
use crate::support::{Cluster, bytes_of, code, create, delete, open_session, read_back, topic_id, trim};
use crate::tokens::commands_of_tokens;
use crate::wakeups::commands_of_wakeups;
use crate::writer::set;

/// Something of each level.
fn commands() -> Vec<Command> {
    let mut commands = vec![open_session(), create("x", topic_id(77), 1, &[]), trim("x", 0, 0), delete("x")];
    commands.push(create("y", topic_id(78), 1, &[("quota.fetch.bytes.per.second", "1000")]));
    commands.extend(commands_of_groups());
    commands.extend(commands_of_wakeups());
    commands.extend(commands_of_jobs(2));
    commands.extend([set(&[("merge.slices", Some("4"))]), set(&[("producer.max", Some("9"))])]);
    commands.push(Command::RaiseLevel { to: FeatureLevel(6) });
    commands.extend(commands_of_tokens());
    commands
}

proptest! {
    /// A newer command in an older entry leaves the state as the entry without it does.
    #[test]
    fn what_is_newer_than_its_entry_is_refused_without_a_trace(level in 1..6_u32, picked in prop::sample::select(commands())) {
        let mut cluster = Cluster::of_level(FeatureLevel(level));
        let newer = picked.level() > FeatureLevel(level);
        let (mut with, mut without) = (cluster.state.clone(), cluster.state.clone());
        cluster.index += 1;
        let entry = |commands| Entry {
            level: FeatureLevel(level),
            log_time: carnax_core::time::Timestamp::from_millis(cluster.now),
            commands,
        };
        let outcomes = with.apply(carnax_core::id::LogIndex(cluster.index), &entry(vec![picked]));
        without.apply(carnax_core::id::LogIndex(cluster.index), &entry(Vec::new()));
        let refused = matches!(&outcomes[0], Err(problem) if problem.code == ErrorCode::FeatureLevelTooLow);
        prop_assert_eq!(refused, newer);
        if newer {
            prop_assert!(bytes_of(&with) == bytes_of(&without));
        }
    }
}

#[test]
fn the_level_rises_for_good_and_outlives_a_snapshot() {
    let mut cluster = Cluster::of_level(FeatureLevel(5));
    assert_eq!(cluster.state.feature_level(), Some(FeatureLevel(5)));
    let raise = |to| Command::RaiseLevel { to: FeatureLevel(to) };
    let raised = cluster.one(raise(6)).unwrap();
    assert_eq!(raised, Reply::LevelRaised { from: FeatureLevel(5), to: FeatureLevel(6) });
    cluster.level = FeatureLevel(6);
    cluster.one(raise(6)).unwrap();
    assert_eq!(code(cluster.one(raise(5))), ErrorCode::Conflict);
    let restored = read_back(&bytes_of(&cluster.state)).unwrap();
    assert_eq!(restored.feature_level(), Some(FeatureLevel(6)));
    assert_eq!(
        Cluster::new().state.feature_level(),
        Some(FeatureLevel::CURRENT),
        "a new cluster begins with all"
    );
}

#[test]
fn a_build_that_does_not_know_the_new_level_stops_where_it_is_raised() {
    let entry = |level, to| Entry {
        level: FeatureLevel(level),
        log_time: carnax_core::time::Timestamp::from_millis(0),
        commands: vec![Command::RaiseLevel { to: FeatureLevel(to) }],
    };
    let newer = FeatureLevel::CURRENT.0 + 1;
    for (entry, max, stops) in [
        (entry(5, 6), 6, false),
        (entry(5, 6), 5, true),
        (entry(6, 6), 5, true),
        (entry(5, newer), FeatureLevel::CURRENT.0, true),
    ] {
        let decoded = Entry::decode_up_to(&entry.encode(), FeatureLevel(max));
        assert_eq!(matches!(decoded, Err(EntryError::UnknownLevel { .. })), stops, "{decoded:?}");
    }
}

#[test]
fn a_topic_with_quotas_needs_the_level_that_brought_them() {
    let level = |config: &[(&str, &str)]| create("x", topic_id(77), 1, config).level();
    assert_eq!(level(&[("retention.ms", "1")]), FeatureLevel(1));
    for name in TopicConfig::NAMES {
        let needed = TopicConfig::level_of(name).unwrap();
        assert_eq!(needed, if name.starts_with("quota.") { 6 } else { 1 }, "{name}");
        assert_eq!(level(&[("retention.ms", "1"), (name, "1")]), FeatureLevel(needed));
    }
}

#[test]
fn every_setting_has_a_level_that_some_build_knows() {
    for name in ClusterSettings::NAMES {
        let level = ClusterSettings::level_of(name).unwrap();
        assert!((2..=FeatureLevel::CURRENT.0).contains(&level), "{name}");
        assert_eq!(set(&[(name, None)]).level(), FeatureLevel(level));
    }
    assert_eq!(set(&[("merge.slices", None), ("producer.max", None)]).level(), FeatureLevel(5));
}
