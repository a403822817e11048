//! Settings of the whole cluster, kept in its state, so that every node decides by the same ones.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::topic::ConfigEntries;
use crate::usage::Prices;

/// Changes settings; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterSettings {
    /// Entries to set (a value) or to bring back to their default (none).
    pub entries: BTreeMap<String, Option<String>>,
}

/// Asks for the settings, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeSettings {}

/// What was set, without the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsDescription {
    /// By name, as text.
    pub entries: ConfigEntries,
}

/// The settings with their defaults. All times are log time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `producer.window.ms`: how long a producer is remembered since its last append. 1 s to 366 days, default 7 days.
    pub producer_window: Duration,
    /// `producer.max`: how many producers are remembered; beyond it new ones are refused with 429. Default 100,000.
    pub producers_max: u64,
    /// `idempotency.window.ms`: how long an idempotency key is remembered. 1 s to 366 days, default 1 hour.
    pub idempotency_window: Duration,
    /// `idempotency.max`: how many keys are remembered; beyond it new ones are refused with 429. Default 1,000,000.
    pub idempotency_keys_max: u64,
    /// `group.offsets.retention.ms`: how long a group without members keeps its offsets since its last commit or member
    /// (Kafka's `offsets.retention.minutes`). 1 s to 3660 days, default 7 days.
    pub group_retention: Duration,
    /// `commit.deadline.ms`: how old a segment may be when it is committed, by its ULID. 1 s to 15 minutes, the default.
    pub commit_deadline: Duration,
    /// `orphan.age.ms`: how old an object that was not committed is when it counts as an orphan, by its ULID. More than
    /// `commit.deadline.ms`, at most 366 days; default 1 hour.
    pub orphan_age: Duration,
    /// `orphan.scan.interval.ms`: how often orphans are looked for, if anybody wrote. 1 s to 366 days, default 6 hours.
    pub orphan_scan_interval: Duration,
    /// `delete.grace.ms`: how long an object stays that nothing refers to any more. 1 s to 366 days, default 15 minutes.
    pub delete_grace: Duration,
    /// `merge.slices`: how many small slices of a partition a merge waits for. 2 to 1,000, default 32.
    pub merge_slices: u64,
    /// `merge.bytes`: how many bytes one object that a merge writes has at most: less memory for workers, more objects. 256 to
    /// 134,217,728 (128 MiB), the default.
    pub merge_bytes: u64,
    /// `compact.interval.ms`: how long a partition is left alone after a key compaction, unless much was appended since.
    /// 1 s to 366 days, default 10 minutes.
    pub compact_interval: Duration,
    /// `page.slices`: how many of a partition's oldest slices go into a manifest page, when there are twice as many. 2 to 4,096,
    /// default 512.
    pub page_slices: u64,
    /// `price.put.nanodollars`, `price.get…`, `price.head…`, `price.list…`, `price.delete…`: what a request costs, and
    /// `price.gib.month.nanodollars`: what it costs to keep a GiB for a month. 0 to 10¹², default: S3 Standard in us-east-1.
    pub prices: Prices,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            producer_window: days(7),
            producers_max: 100_000,
            idempotency_window: Duration::from_secs(60 * 60),
            idempotency_keys_max: 1_000_000,
            group_retention: days(7),
            commit_deadline: limits::COMMIT_DEADLINE,
            orphan_age: limits::ORPHAN_AGE,
            orphan_scan_interval: Duration::from_secs(6 * 60 * 60),
            delete_grace: limits::DELETE_GRACE,
            merge_slices: limits::MERGE_SLICES,
            merge_bytes: limits::MERGED_BYTES_TARGET,
            compact_interval: limits::COMPACT_INTERVAL,
            page_slices: limits::PAGE_SLICES,
            prices: Prices::default(),
        }
    }
}

/// An entry that is no setting, or has no value that it may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// There is no such setting.
    #[error("there is no cluster setting {0:?}; there are: {known}", known = ClusterSettings::NAMES.join(", "))]
    Unknown(String),
    /// The value is not a number in the range of the setting.
    #[error("{name} is a whole number from {min} to {max}, not {value:?}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// What was asked for.
        value: String,
        /// The lowest value.
        min: u64,
        /// The highest value.
        max: u64,
    },
    /// Objects would be deleted that may still be committed.
    #[error(
        "orphan.age.ms ({orphan_age:?}) has to be more than commit.deadline.ms ({commit_deadline:?}): set both"
    )]
    OrphansTooYoung {
        /// The age of an orphan.
        orphan_age: Duration,
        /// The time until when a segment may be committed.
        commit_deadline: Duration,
    },
}

const PRODUCER_WINDOW: &str = "producer.window.ms";
const PRODUCERS_MAX: &str = "producer.max";
const IDEMPOTENCY_WINDOW: &str = "idempotency.window.ms";
const IDEMPOTENCY_MAX: &str = "idempotency.max";
const GROUP_RETENTION: &str = "group.offsets.retention.ms";
const COMMIT_DEADLINE: &str = "commit.deadline.ms";
const ORPHAN_AGE: &str = "orphan.age.ms";
const ORPHAN_SCAN_INTERVAL: &str = "orphan.scan.interval.ms";
const DELETE_GRACE: &str = "delete.grace.ms";
const PAGE_SLICES: &str = "page.slices";
const MERGE_BYTES: &str = "merge.bytes";
const MERGE_SLICES: &str = "merge.slices";
const COMPACT_INTERVAL: &str = "compact.interval.ms";
const PRICE_DELETE: &str = "price.delete.nanodollars";
const PRICE_GET: &str = "price.get.nanodollars";
const PRICE_GIB_MONTH: &str = "price.gib.month.nanodollars";
const PRICE_HEAD: &str = "price.head.nanodollars";
const PRICE_LIST: &str = "price.list.nanodollars";
const PRICE_PUT: &str = "price.put.nanodollars";
/// A thousand dollars.
const PRICE_MAX: u64 = 1_000_000_000_000;

impl ClusterSettings {
    /// Each setting, in the order of the names, with the feature level at which it came.
    const LEVELS: [(&str, u32); 19] = [
        (COMMIT_DEADLINE, 4),
        (COMPACT_INTERVAL, 5),
        (DELETE_GRACE, 5),
        (GROUP_RETENTION, 2),
        (IDEMPOTENCY_MAX, 2),
        (IDEMPOTENCY_WINDOW, 2),
        (MERGE_BYTES, 5),
        (MERGE_SLICES, 5),
        (ORPHAN_AGE, 4),
        (ORPHAN_SCAN_INTERVAL, 4),
        (PAGE_SLICES, 5),
        (PRICE_DELETE, 6),
        (PRICE_GET, 6),
        (PRICE_GIB_MONTH, 6),
        (PRICE_HEAD, 6),
        (PRICE_LIST, 6),
        (PRICE_PUT, 6),
        (PRODUCERS_MAX, 2),
        (PRODUCER_WINDOW, 2),
    ];

    /// All names, in order.
    pub const NAMES: [&str; Self::LEVELS.len()] = {
        let mut names = [""; Self::LEVELS.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::LEVELS[at].0;
            at += 1;
        }
        names
    };

    /// The feature level at which a setting came; none for what is no setting.
    pub fn level_of(name: &str) -> Option<u32> {
        Self::LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
    }

    /// Reads what was set.
    ///
    /// # Errors
    /// The first entry that is wrong, or two that do not go together.
    pub fn from_entries(entries: &ConfigEntries) -> Result<Self, InvalidSetting> {
        let settings = Self::each_from(entries)?;
        let Self { orphan_age, commit_deadline, .. } = settings;
        if orphan_age <= commit_deadline {
            return Err(InvalidSetting::OrphansTooYoung { orphan_age, commit_deadline });
        }
        Ok(settings)
    }

    /// Whether each entry is right by itself: all that can be said of a change by those who do not know the other entries.
    ///
    /// # Errors
    /// The first entry that is wrong.
    pub fn check_each(entries: &ConfigEntries) -> Result<(), InvalidSetting> {
        Self::each_from(entries).map(drop)
    }

    fn each_from(entries: &ConfigEntries) -> Result<Self, InvalidSetting> {
        let mut settings = Self::default();
        for (name, value) in entries {
            match name.as_str() {
                PRODUCER_WINDOW => settings.producer_window = window(PRODUCER_WINDOW, value, 366)?,
                PRODUCERS_MAX => settings.producers_max = number(PRODUCERS_MAX, value, 0, 10_000_000)?,
                IDEMPOTENCY_WINDOW => settings.idempotency_window = window(IDEMPOTENCY_WINDOW, value, 366)?,
                IDEMPOTENCY_MAX => {
                    settings.idempotency_keys_max = number(IDEMPOTENCY_MAX, value, 0, 100_000_000)?;
                }
                GROUP_RETENTION => settings.group_retention = window(GROUP_RETENTION, value, 3_660)?,
                COMMIT_DEADLINE => {
                    let max = u64::try_from(limits::COMMIT_DEADLINE.as_millis()).unwrap_or(u64::MAX);
                    settings.commit_deadline =
                        Duration::from_millis(number(COMMIT_DEADLINE, value, 1_000, max)?);
                }
                ORPHAN_AGE => settings.orphan_age = window(ORPHAN_AGE, value, 366)?,
                ORPHAN_SCAN_INTERVAL => {
                    settings.orphan_scan_interval = window(ORPHAN_SCAN_INTERVAL, value, 366)?;
                }
                DELETE_GRACE => settings.delete_grace = window(DELETE_GRACE, value, 366)?,
                MERGE_BYTES => {
                    settings.merge_bytes = number(MERGE_BYTES, value, 256, limits::MERGED_BYTES_TARGET)?;
                }
                MERGE_SLICES => settings.merge_slices = number(MERGE_SLICES, value, 2, 1_000)?,
                COMPACT_INTERVAL => settings.compact_interval = window(COMPACT_INTERVAL, value, 366)?,
                PAGE_SLICES => {
                    let max = limits::PAGE_SLICES_MAX as u64;
                    settings.page_slices = number(PAGE_SLICES, value, 2, max)?;
                }
                name => set_price(&mut settings.prices, name, value)?,
            }
        }
        Ok(settings)
    }

    /// Every setting with its value, in the one spelling.
    pub fn to_entries(self) -> ConfigEntries {
        let millis = |window: Duration| window.as_millis().to_string();
        let entries = [
            (PRODUCER_WINDOW, millis(self.producer_window)),
            (PRODUCERS_MAX, self.producers_max.to_string()),
            (IDEMPOTENCY_WINDOW, millis(self.idempotency_window)),
            (IDEMPOTENCY_MAX, self.idempotency_keys_max.to_string()),
            (GROUP_RETENTION, millis(self.group_retention)),
            (COMMIT_DEADLINE, millis(self.commit_deadline)),
            (ORPHAN_AGE, millis(self.orphan_age)),
            (ORPHAN_SCAN_INTERVAL, millis(self.orphan_scan_interval)),
            (DELETE_GRACE, millis(self.delete_grace)),
            (MERGE_BYTES, self.merge_bytes.to_string()),
            (MERGE_SLICES, self.merge_slices.to_string()),
            (COMPACT_INTERVAL, millis(self.compact_interval)),
            (PAGE_SLICES, self.page_slices.to_string()),
            (PRICE_DELETE, self.prices.delete.to_string()),
            (PRICE_GET, self.prices.get.to_string()),
            (PRICE_GIB_MONTH, self.prices.gib_month.to_string()),
            (PRICE_HEAD, self.prices.head.to_string()),
            (PRICE_LIST, self.prices.list.to_string()),
            (PRICE_PUT, self.prices.put.to_string()),
        ];
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn set_price(prices: &mut Prices, name: &str, value: &str) -> Result<(), InvalidSetting> {
    let (price, name) = match name {
        PRICE_DELETE => (&mut prices.delete, PRICE_DELETE),
        PRICE_GET => (&mut prices.get, PRICE_GET),
        PRICE_GIB_MONTH => (&mut prices.gib_month, PRICE_GIB_MONTH),
        PRICE_HEAD => (&mut prices.head, PRICE_HEAD),
        PRICE_LIST => (&mut prices.list, PRICE_LIST),
        PRICE_PUT => (&mut prices.put, PRICE_PUT),
        _ => return Err(InvalidSetting::Unknown(name.chars().take(100).collect())),
    };
    *price = number(name, value, 0, PRICE_MAX)?;
    Ok(())
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

fn window(name: &'static str, value: &str, days_max: u64) -> Result<Duration, InvalidSetting> {
    let max = days(days_max).as_secs() * 1_000;
    number(name, value, 1_000, max).map(Duration::from_millis)
}

fn number(name: &'static str, value: &str, min: u64, max: u64) -> Result<u64, InvalidSetting> {
    let number = value.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| InvalidSetting::OutOfRange {
        name,
        value: value.chars().take(100).collect(),
        min,
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written_and_wrong_ones_are_named() {
        let defaults = ClusterSettings::default();
        assert_eq!(ClusterSettings::from_entries(&defaults.to_entries()), Ok(defaults));
        assert!(defaults.to_entries().keys().map(String::as_str).eq(ClusterSettings::NAMES));
        let read = |name: &str, value: &str| {
            ClusterSettings::from_entries(&[(name.to_owned(), value.to_owned())].into())
        };
        assert_eq!(read("producer.max", "7").map(|settings| settings.producers_max), Ok(7));
        assert!(matches!(read("producer.size", "7"), Err(InvalidSetting::Unknown(_))));
        assert!(matches!(read("orphan.age.ms", "900000"), Err(InvalidSetting::OrphansTooYoung { .. })));
        assert_eq!(
            read("orphan.age.ms", "900001").map(|settings| settings.orphan_age.as_millis()),
            Ok(900_001)
        );
        assert!(matches!(read("commit.deadline.ms", "900001"), Err(InvalidSetting::OutOfRange { .. })));
        for wrong in ["", "-1", "999", "1e4", "99999999999999999999"] {
            assert!(
                matches!(read("producer.window.ms", wrong), Err(InvalidSetting::OutOfRange { .. })),
                "{wrong}"
            );
        }
    }
}
