//! Identities. Two bare integers side by side are a bug waiting, so every id is a type of its own.
//!
//! | id | shape | given out by | reused? |
//! |----|-------|--------------|---------|
//! | [`TopicId`] | 128 bits, a ULID | the leader, when it proposes the creation | never |
//! | [`PartitionIndex`] | 0, 1, 2 … within a topic | the state machine | never within a topic id |
//! | [`SegmentId`] | 128 bits, a ULID | the frontend that writes the object | never |
//! | [`PageId`] | 128 bits, a ULID | the worker that writes the object | never |
//! | [`SegmentNumber`] | 0, 1, 2 … in the order of commits | the state machine | never |
//! | [`SessionId`] | log index of the opening command | the state machine | never within an incarnation |
//! | [`CommitNumber`] | 1, 2, 3 … within a session | the frontend | never within a session |
//! | [`NodeId`] | log index of the registering command; 1 for the first node | the state machine | never |
//! | [`ClusterId`] | 128 bits, a ULID | the winner of the bootstrap, or a restore | never |
//! | [`Incarnation`] | 1, 2, 3 … | `cluster/incarnation`, by compare-and-swap | never |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use crate::time::Timestamp;

/// An id that is not written as its kind demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} is 26 characters of Crockford's base 32: {text:?}")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
}

macro_rules! number_id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! ulid_id {
    ($(#[$meta:meta])* $name:ident, $kind:literal) => {
        $(#[$meta])*
        ///
        /// Text (and JSON) is 26 characters of Crockford's base 32; binary formats carry 16 big-endian bytes.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Ulid);

        impl $name {
            /// Makes an id from a time and 80 bits of randomness (higher bits of `randomness` are dropped).
            pub fn from_parts(time: Timestamp, randomness: u128) -> Self {
                Self(Ulid::from_parts(time.millis().max(0).unsigned_abs(), randomness))
            }

            /// The time that is readable from the id.
            pub fn time(self) -> Timestamp {
                Timestamp::from_millis(i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX))
            }

            /// The 16 bytes of the binary form, big-endian, so that byte order is id order.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// Reads the binary form; every 16 bytes are an id.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError { kind: $kind, text: text.chars().take(64).collect() };
                Ulid::from_string(text).map(Self).map_err(|_| error())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_ulid(self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_ulid(deserializer, $kind).map(Self)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                String::schema()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

ulid_id! {
    /// Identifies a topic for ever; a topic that is created again under the same name gets another id.
    TopicId, "a topic id"
}

ulid_id! {
    /// Identifies a segment object. Its time decides whether it may still be committed, and when it is an orphan.
    SegmentId, "a segment id"
}

ulid_id! {
    /// Identifies a manifest page. Its time decides as that of a segment does.
    PageId, "a page id"
}

ulid_id! {
    /// Identifies a cluster of metadata nodes, from its bootstrap or from the restore that made it on.
    ClusterId, "a cluster id"
}

number_id! {
    /// A partition within its topic, from 0.
    PartitionIndex(u32)
}

number_id! {
    /// The place of a segment in the order of commits: the short name that the metadata core has for it.
    SegmentNumber(u64)
}

number_id! {
    /// A frontend's session with the metadata core (Ongaro, *Consensus: bridging theory and practice*, 6.3).
    SessionId(u64)
}

number_id! {
    /// The place of a segment commit in its session, from 1.
    CommitNumber(u64)
}

number_id! {
    /// A metadata node. Never given to another disk.
    NodeId(u64)
}

number_id! {
    /// The life of a cluster between two restores from the bucket; object keys start with it.
    Incarnation(u64)
}

number_id! {
    /// A position in the Raft log of the metadata core, never shown to a client as an offset.
    LogIndex(u64)
}

impl CommitNumber {
    /// The number of a session's first commit.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    ///
    /// # Panics
    /// After 2⁶⁴ commits in one session.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a session commits fewer than 2^64 times"))
    }
}

/// One partition of one topic, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

fn serialize_ulid<S: Serializer>(ulid: Ulid, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(&ulid)
    } else {
        serializer.serialize_bytes(&ulid.to_bytes())
    }
}

fn deserialize_ulid<'de, D: Deserializer<'de>>(
    deserializer: D,
    kind: &'static str,
) -> Result<Ulid, D::Error> {
    struct Visitor(&'static str);

    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Ulid;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ulid, E> {
            Ulid::from_string(text).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Ulid, E> {
            let bytes: [u8; 16] = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
            Ok(Ulid::from_bytes(bytes))
        }
    }

    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Visitor(kind))
    } else {
        deserializer.deserialize_bytes(Visitor(kind))
    }
}
