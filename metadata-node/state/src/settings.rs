//! The settings of the cluster: part of the state, so that every node decides by the same ones.

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{AlterSettings, ClusterSettings, SettingsDescription};
use carnax_core::problem::Problem;
use carnax_core::topic::ConfigEntries;

/// What was set, in both its forms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Each value in the one spelling; without the defaults.
    entries: Arc<ConfigEntries>,
    /// The same with the defaults.
    pub(crate) typed: ClusterSettings,
}

impl Settings {
    /// Reads what was set.
    pub(crate) fn read(entries: &ConfigEntries) -> Result<Self, Problem> {
        let typed = ClusterSettings::from_entries(entries)
            .map_err(|error| Problem::new(ErrorCode::InvalidValue, error))?;
        let mut all = typed.to_entries();
        all.retain(|name, _| entries.contains_key(name));
        Ok(Self { entries: Arc::new(all), typed })
    }

    pub(crate) fn entries(&self) -> &ConfigEntries {
        &self.entries
    }

    pub(crate) fn describe(&self) -> SettingsDescription {
        SettingsDescription { entries: (*self.entries).clone() }
    }

    /// Changes all of the named entries, or none if one of them is wrong.
    pub(crate) fn alter(&mut self, request: &AlterSettings) -> Result<SettingsDescription, Problem> {
        let mut entries = (*self.entries).clone();
        for (name, value) in &request.entries {
            match value {
                Some(value) => {
                    entries.insert(name.clone(), value.clone());
                }
                None if ClusterSettings::NAMES.contains(&name.as_str()) => {
                    entries.remove(name);
                }
                // Read as an entry, so that the unknown name is refused in the same words.
                None => drop(Self::read(&[(name.clone(), String::new())].into())?),
            }
        }
        *self = Self::read(&entries)?;
        Ok(self.describe())
    }
}
