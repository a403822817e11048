//! Topic names and configurations, as they come in JSON.
#![no_main]

use carnax_core::topic::{ConfigEntries, TopicConfig, TopicName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(name) = serde_json::from_slice::<TopicName>(data) {
        assert!((1..=249).contains(&name.as_str().len()));
    }
    if let Ok(entries) = serde_json::from_slice::<ConfigEntries>(data) {
        check(&entries);
    }
    // Past the names, which are hard to guess: one entry of each with the whole input as its value.
    if let Ok(value) = str::from_utf8(data) {
        for name in TopicConfig::NAMES {
            check(&[(name.to_owned(), value.to_owned())].into());
        }
    }
});

fn check(entries: &ConfigEntries) {
    if let Ok(config) = TopicConfig::from_entries(entries) {
        assert!(entries.keys().all(|name| TopicConfig::NAMES.contains(&name.as_str())));
        assert_eq!(
            TopicConfig::from_entries(&config.to_entries()),
            Ok(config),
            "a configuration is read back"
        );
    }
}
