//! The documents below `cluster/` in the bucket: JSON that says whose bucket it is.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, Incarnation};

/// The version of all these documents.
pub const FORMAT_VERSION: u32 = 1;
/// The documents are small; more is not ours.
pub const BYTES_MAX: u64 = 64 * 1024;

/// [`cluster/incarnation`](crate::object_key::INCARNATION): the incarnation that may write and delete. A restore compare-and-swaps it,
/// and whoever belongs to a former one stops when it reads that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationDocument {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Those before, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
}

/// An incarnation that a restore has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// It is not a document that this version understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// Reads a document, its version first.
///
/// # Errors
/// [`Unreadable`], with the reason.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }

    let unreadable = |error: serde_json::Error| Unreadable(error.to_string());
    let version: Version = serde_json::from_slice(bytes).map_err(unreadable)?;
    if version.format_version != FORMAT_VERSION {
        return Err(Unreadable(format!("format version {}", version.format_version)));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_if_its_version_is_known() {
        let text =
            r#"{"format_version":1,"cluster":"01HF7YAT000000000000000000","incarnation":3,"later":true}"#;
        let document: IncarnationDocument = parse(text.as_bytes()).unwrap();
        assert_eq!((document.incarnation, document.former.len()), (Incarnation(3), 0));
        let newer = text.replace("\"format_version\":1", "\"format_version\":2");
        assert_eq!(
            parse::<IncarnationDocument>(newer.as_bytes()),
            Err(Unreadable("format version 2".into()))
        );
        assert!(parse::<IncarnationDocument>(b"left behind").is_err());
    }
}
