//! Goal: a segment is closed for each of its four reasons and for no other. Method: the policy on plain values.

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
