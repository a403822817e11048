//! Settings of the whole cluster, kept in its state, so that every node decides by the same ones.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::topic::ConfigEntries;

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
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            producer_window: days(7),
            producers_max: 100_000,
            idempotency_window: Duration::from_secs(60 * 60),
            idempotency_keys_max: 1_000_000,
            group_retention: days(7),
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
}

const PRODUCER_WINDOW: &str = "producer.window.ms";
const PRODUCERS_MAX: &str = "producer.max";
const IDEMPOTENCY_WINDOW: &str = "idempotency.window.ms";
const IDEMPOTENCY_MAX: &str = "idempotency.max";
const GROUP_RETENTION: &str = "group.offsets.retention.ms";

impl ClusterSettings {
    /// All names, in order.
    pub const NAMES: [&str; 5] =
        [GROUP_RETENTION, IDEMPOTENCY_MAX, IDEMPOTENCY_WINDOW, PRODUCERS_MAX, PRODUCER_WINDOW];

    /// Reads what was set.
    ///
    /// # Errors
    /// The first entry that is wrong.
    pub fn from_entries(entries: &ConfigEntries) -> Result<Self, InvalidSetting> {
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
                _ => return Err(InvalidSetting::Unknown(name.chars().take(100).collect())),
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
        ];
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
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
        for wrong in ["", "-1", "999", "1e4", "99999999999999999999"] {
            assert!(
                matches!(read("producer.window.ms", wrong), Err(InvalidSetting::OutOfRange { .. })),
                "{wrong}"
            );
        }
    }
}
