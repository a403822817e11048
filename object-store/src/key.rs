//! Keys that every store can keep, and versions.

use std::fmt;
use std::sync::Arc;

use crate::error::ObjectStoreError;

/// Bytes of a key. S3 allows 1,024 with the prefix of the store's URL before it.
pub const KEY_BYTES_MAX: usize = 768;
/// Bytes between two slashes of a key: the limit of file names.
pub const KEY_SEGMENT_BYTES_MAX: usize = 255;

/// Accepts keys that S3, a folder and memory all keep as they are.
///
/// A key is 1 to [`KEY_BYTES_MAX`] bytes of UTF-8: segments of 1 to [`KEY_SEGMENT_BYTES_MAX`] bytes between single slashes,
/// none beginning with a dot (so that no key leaves its folder or meets a store's own files), without control characters
/// and backslashes.
///
/// # Errors
/// [`ObjectStoreError::Invalid`] with the rule that is broken.
pub fn check_key(key: &str) -> Result<(), ObjectStoreError> {
    let invalid = |reason| Err(ObjectStoreError::invalid(key, reason));
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return invalid("a key has 1 to 768 bytes");
    }
    // S3 lists keys in XML, which has no place for two characters that are no control characters.
    if key.chars().any(|it| it.is_control() || matches!(it, '\\' | '\u{fffe}' | '\u{ffff}')) {
        return invalid("a key has no control character and no backslash");
    }
    for segment in key.split('/') {
        if segment.is_empty() || segment.len() > KEY_SEGMENT_BYTES_MAX {
            return invalid("a segment of a key has 1 to 255 bytes");
        }
        if segment.starts_with('.') {
            return invalid("no segment of a key begins with a dot");
        }
    }
    Ok(())
}

/// Tells two states of an object under one key apart. Opaque, and of no use for another store.
///
/// Equal versions mean equal bytes. An object that is written back to bytes that it had before may get the version that it
/// had then (S3's entity tags are hashes): whoever must notice this puts a counter into the object.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// For implementations: wraps what the store uses to tell states apart.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// What the implementation wrapped.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_stay_inside_a_folder_are_accepted() {
        for good in
            ["a", "1/segments/cb/01HF7YAT00000000000000001A", "a b/ü+%2F?#&=", "a..b", &"k".repeat(255)]
        {
            assert!(check_key(good).is_ok(), "{good}");
        }
        let long = "a/".repeat(400) + "a";
        let wide = "k".repeat(256);
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "../a",
            "a/.carnax",
            "a\\b",
            "a\0b",
            "a\nb",
            &long,
            &wide,
        ] {
            assert!(matches!(check_key(bad), Err(ObjectStoreError::Invalid { .. })), "{bad}");
        }
    }
}
