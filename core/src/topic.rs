//! Topics: names, configuration, what a topic looks like from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::quota::Quotas;

/// The name of a topic: 1 to 249 of `A–Z a–z 0–9 . _ -`, and neither `.` nor `..` (Kafka's rule).
///
/// Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
pub struct TopicName(Arc<str>);

/// A text that is no topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a topic name is 1 to 249 of A-Z a-z 0-9 . _ - and neither \".\" nor \"..\": {0:?}")]
pub struct InvalidTopicName(String);

impl TopicName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = InvalidTopicName;

    fn from_str(name: &str) -> Result<Self, InvalidTopicName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let fits = (1..=limits::TOPIC_NAME_BYTES_MAX).contains(&name.len());
        if fits && name.bytes().all(allowed) && name != "." && name != ".." {
            Ok(Self(name.into()))
        } else {
            Err(InvalidTopicName(name.chars().take(300).collect()))
        }
    }
}

impl TryFrom<String> for TopicName {
    type Error = InvalidTopicName;

    fn try_from(name: String) -> Result<Self, InvalidTopicName> {
        name.parse()
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A topic configuration that was set, by Kafka's names, as text; keys that are absent have their defaults.
pub type ConfigEntries = BTreeMap<String, String>;

/// Which timestamp a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The time of the append.
    LogAppendTime,
}

/// A whole topic configuration, typed, with Kafka's names and defaults.
///
/// Read it with [`TopicConfig::from_entries`]; entries that were not set have the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `cleanup.policy`: whether old records are deleted by `retention.*`.
    pub cleanup_delete: bool,
    /// `cleanup.policy`: whether only the newest record of each key is kept.
    pub cleanup_compact: bool,
    /// `retention.ms`: how long records are kept; none = for ever (−1).
    pub retention: Option<Duration>,
    /// `retention.bytes`: how many bytes of a partition are kept; none = all (−1).
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: bytes of a record batch as it travels.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `delete.retention.ms`: how long tombstones stay in a compacted topic.
    pub delete_retention: Duration,
    /// `min.compaction.lag.ms`: how long a record is safe from key compaction.
    pub min_compaction_lag: Duration,
    /// `min.cleanable.dirty.ratio`: key compaction begins when so much of what it may touch is new since the last one.
    pub min_cleanable_ratio: Ratio,
    /// `quota.*`: what all clients together may do in a second at one frontend; none = no limit (−1).
    pub quotas: Quotas,
}

/// A share between nothing and all, in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    const ALL: u32 = 10_000;

    /// Whether a part of a whole is at least this share of it.
    pub fn is_reached(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(Self::ALL) >= u128::from(whole) * u128::from(self.0)
    }
}

impl FromStr for Ratio {
    type Err = ();

    /// Reads a decimal number from 0 to 1 with at most four digits behind the point.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return Err(());
        }
        let whole: u32 = whole.parse().map_err(drop)?;
        let part: u32 = format!("{part:0<4}").parse().map_err(drop)?;
        let ratio = whole * Self::ALL + part;
        if ratio <= Self::ALL { Ok(Self(ratio)) } else { Err(()) }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:04}", self.0 / Self::ALL, self.0 % Self::ALL);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A configuration entry that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// No such entry.
    #[error("there is no topic configuration named {name:?}; known are {known}", known = TopicConfig::NAMES.join(", "))]
    UnknownName {
        /// The name that was given.
        name: String,
    },
    /// A value that the entry does not take.
    #[error("{name} takes {expects}, not {value:?}")]
    InvalidValue {
        /// The entry.
        name: &'static str,
        /// What it takes.
        expects: &'static str,
        /// What was given.
        value: String,
    },
}

impl Default for TopicConfig {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            cleanup_delete: true,
            cleanup_compact: false,
            retention: Some(7 * DAY),
            retention_bytes: None,
            max_message_bytes: u32::try_from(limits::BATCH_BYTES_DEFAULT).expect("the default fits 32 bits"),
            timestamp_type: TimestampType::CreateTime,
            delete_retention: DAY,
            min_compaction_lag: Duration::ZERO,
            min_cleanable_ratio: Ratio(Ratio::ALL / 2),
            quotas: Quotas::default(),
        }
    }
}

impl TopicConfig {
    /// The names of all entries, as Kafka spells them.
    pub const NAMES: [&str; 12] = [
        "cleanup.policy",
        "delete.retention.ms",
        "max.message.bytes",
        "message.timestamp.type",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "quota.fetch.bytes.per.second",
        "quota.fetch.requests.per.second",
        "quota.produce.bytes.per.second",
        "quota.produce.requests.per.second",
        "retention.bytes",
        "retention.ms",
    ];

    /// The feature level at which an entry came; none if there is no such entry.
    pub fn level_of(name: &str) -> Option<u32> {
        Self::NAMES.contains(&name).then(|| if name.starts_with("quota.") { 6 } else { 1 })
    }

    /// Reads entries over the defaults.
    ///
    /// # Errors
    /// A name that is not known, or a value that its entry does not take.
    pub fn from_entries(entries: &ConfigEntries) -> Result<Self, InvalidConfig> {
        let mut config = Self::default();
        for (name, value) in entries {
            config.set(name, value)?;
        }
        Ok(config)
    }

    /// All entries with their values now, defaults included, as Kafka would print them.
    pub fn to_entries(&self) -> ConfigEntries {
        let policy = match (self.cleanup_compact, self.cleanup_delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            (false, _) => "delete",
        };
        let timestamp_type = match self.timestamp_type {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        let or_minus_one =
            |value: Option<u128>| value.map_or_else(|| "-1".to_owned(), |value| value.to_string());
        let quota = |quota: Option<u64>| or_minus_one(quota.map(u128::from));
        [
            ("cleanup.policy", policy.to_owned()),
            ("delete.retention.ms", self.delete_retention.as_millis().to_string()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
            ("message.timestamp.type", timestamp_type.to_owned()),
            ("min.cleanable.dirty.ratio", self.min_cleanable_ratio.to_string()),
            ("min.compaction.lag.ms", self.min_compaction_lag.as_millis().to_string()),
            ("quota.fetch.bytes.per.second", quota(self.quotas.fetch_bytes_per_second)),
            ("quota.fetch.requests.per.second", quota(self.quotas.fetch_requests_per_second)),
            ("quota.produce.bytes.per.second", quota(self.quotas.produce_bytes_per_second)),
            ("quota.produce.requests.per.second", quota(self.quotas.produce_requests_per_second)),
            ("retention.bytes", or_minus_one(self.retention_bytes.map(u128::from))),
            ("retention.ms", or_minus_one(self.retention.map(|retention| retention.as_millis()))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidConfig> {
        match name {
            "cleanup.policy" => (self.cleanup_compact, self.cleanup_delete) = parse_policy(value)?,
            "delete.retention.ms" => self.delete_retention = parse_millis("delete.retention.ms", value)?,
            "max.message.bytes" => self.max_message_bytes = parse_message_bytes(value)?,
            "message.timestamp.type" => self.timestamp_type = parse_timestamp_type(value)?,
            "min.cleanable.dirty.ratio" => {
                let expects = "a number from 0 to 1 with at most four digits behind the point";
                let ratio = value.parse();
                self.min_cleanable_ratio =
                    ratio.map_err(|()| invalid("min.cleanable.dirty.ratio", expects, value))?;
            }
            "min.compaction.lag.ms" => {
                self.min_compaction_lag = parse_millis("min.compaction.lag.ms", value)?
            }
            "retention.bytes" => self.retention_bytes = parse_or_unlimited("retention.bytes", value)?,
            "retention.ms" => {
                self.retention = parse_or_unlimited("retention.ms", value)?.map(Duration::from_millis);
            }
            _ => {
                let unknown = || InvalidConfig::UnknownName { name: name.chars().take(300).collect() };
                let (name, quota) = self.quota_mut(name).ok_or_else(unknown)?;
                *quota = parse_or_unlimited(name, value)?;
            }
        }
        Ok(())
    }

    fn quota_mut(&mut self, name: &str) -> Option<(&'static str, &mut Option<u64>)> {
        let quotas = &mut self.quotas;
        let entries = [
            ("quota.fetch.bytes.per.second", &mut quotas.fetch_bytes_per_second),
            ("quota.fetch.requests.per.second", &mut quotas.fetch_requests_per_second),
            ("quota.produce.bytes.per.second", &mut quotas.produce_bytes_per_second),
            ("quota.produce.requests.per.second", &mut quotas.produce_requests_per_second),
        ];
        entries.into_iter().find(|(known, _)| *known == name)
    }
}

fn invalid(name: &'static str, expects: &'static str, value: &str) -> InvalidConfig {
    InvalidConfig::InvalidValue { name, expects, value: value.chars().take(300).collect() }
}

fn parse_policy(value: &str) -> Result<(bool, bool), InvalidConfig> {
    match value {
        "delete" => Ok((false, true)),
        "compact" => Ok((true, false)),
        "compact,delete" | "delete,compact" => Ok((true, true)),
        _ => Err(invalid("cleanup.policy", "delete, compact, or compact,delete", value)),
    }
}

fn parse_timestamp_type(value: &str) -> Result<TimestampType, InvalidConfig> {
    match value {
        "CreateTime" => Ok(TimestampType::CreateTime),
        "LogAppendTime" => Ok(TimestampType::LogAppendTime),
        _ => Err(invalid("message.timestamp.type", "CreateTime or LogAppendTime", value)),
    }
}

fn parse_number(value: &str) -> Option<u64> {
    value.parse().ok().filter(|number| i64::try_from(*number).is_ok())
}

fn parse_millis(name: &'static str, value: &str) -> Result<Duration, InvalidConfig> {
    let millis = parse_number(value).ok_or_else(|| invalid(name, "milliseconds from 0", value))?;
    Ok(Duration::from_millis(millis))
}

fn parse_or_unlimited(name: &'static str, value: &str) -> Result<Option<u64>, InvalidConfig> {
    if value == "-1" {
        return Ok(None);
    }
    parse_number(value).map(Some).ok_or_else(|| invalid(name, "a number from 0, or -1 for no limit", value))
}

fn parse_message_bytes(value: &str) -> Result<u32, InvalidConfig> {
    let allowed = |bytes: &u32| {
        (1_024..=limits::BATCH_BYTES_MAX).contains(&usize::try_from(*bytes).unwrap_or(usize::MAX))
    };
    value
        .parse()
        .ok()
        .filter(allowed)
        .ok_or_else(|| invalid("max.message.bytes", "bytes from 1024 to 8388608", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rule() {
        for name in ["a", "flights", "A.b_c-9", "...", &"x".repeat(249)] {
            assert_eq!(name.parse::<TopicName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "a/b", "ü", "a b", &"x".repeat(250)] {
            assert!(name.parse::<TopicName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn entries_round_trip_and_wrong_ones_are_refused() {
        assert_eq!(
            TopicConfig::from_entries(&TopicConfig::default().to_entries()),
            Ok(TopicConfig::default())
        );
        let names: Vec<String> = TopicConfig::default().to_entries().into_keys().collect();
        assert_eq!(names, TopicConfig::NAMES);
        let read = |name: &str, value: &str| {
            TopicConfig::from_entries(&[(name.to_owned(), value.to_owned())].into())
        };
        assert_eq!(read("retention.ms", "-1").unwrap().retention, None);
        for (number, name) in (1..).zip(TopicConfig::NAMES.iter().filter(|name| name.starts_with("quota."))) {
            let config = read(name, &number.to_string()).unwrap();
            assert_eq!(config.to_entries()[*name], number.to_string());
            assert_ne!(config.quotas, Quotas::default(), "{name}");
        }
        for (text, spelled) in [("0", "0"), ("1.0", "1"), ("0.25", "0.25"), ("0.0001", "0.0001")] {
            let config = read("min.cleanable.dirty.ratio", text).unwrap();
            assert_eq!(config.to_entries()["min.cleanable.dirty.ratio"], spelled);
        }
        assert_eq!(read("retention.ms", "0").unwrap().retention, Some(Duration::ZERO));
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", ""),
            ("retention.bytes", "1e3"),
            ("max.message.bytes", "0"),
            ("max.message.bytes", "8388609"),
            ("cleanup.policy", "compact,compact"),
            ("min.cleanable.dirty.ratio", "1.0001"),
            ("min.cleanable.dirty.ratio", ".5"),
            ("min.cleanable.dirty.ratio", "-0.5"),
            ("retention.minutes", "1"),
            ("quota.produce.bytes.per.second", "-2"),
            ("quota.produce.bytes.per.hour", "1"),
        ] {
            assert!(read(name, value).is_err(), "{name}={value}");
        }
    }
}
