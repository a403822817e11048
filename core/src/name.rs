//! Names that clients choose: of groups, members and producers, keys of requests, tokens of writers.
//!
//! All are ASCII without spaces, so that they can stand in paths, headers and logs as they are, and each has a limit.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A text that is no name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} is 1 to {bytes_max} {characters}: {text:?}")]
pub struct InvalidName {
    kind: &'static str,
    bytes_max: usize,
    characters: &'static str,
    text: String,
}

macro_rules! name {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $bytes_max:expr, $characters:literal, $allowed:expr) => {
        $(#[$meta])*
        ///
        /// Cloning shares the text.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let allowed: fn(u8) -> bool = $allowed;
                if (1..=$bytes_max).contains(&text.len()) && text.bytes().all(allowed) {
                    return Ok(Self(text.into()));
                }
                let text = text.chars().take(100).collect();
                Err(InvalidName { kind: $kind, bytes_max: $bytes_max, characters: $characters, text })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a consumer group.
    GroupName, "a group name", limits::GROUP_NAME_BYTES_MAX, "of A-Z a-z 0-9 . _ : -",
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-')
}

name! {
    /// A member of a group: chosen by the client, one a living process.
    MemberId, "a member id", limits::MEMBER_ID_BYTES_MAX, "of A-Z a-z 0-9 . _ : -",
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-')
}

name! {
    /// A producer: chosen by the client. Two that live at once under one id fence each other.
    ProducerId, "a producer id", limits::PRODUCER_ID_BYTES_MAX, "visible ASCII characters",
    |byte| byte.is_ascii_graphic()
}

name! {
    /// The key by which a request is told from its repeats.
    IdempotencyKey, "an idempotency key", limits::IDEMPOTENCY_KEY_BYTES_MAX, "visible ASCII characters",
    |byte| byte.is_ascii_graphic()
}

name! {
    /// What says who may write to a partition, to those who ask for it.
    FencingToken, "a fencing token", limits::FENCING_TOKEN_BYTES_MAX, "visible ASCII characters",
    |byte| byte.is_ascii_graphic()
}

name! {
    /// A wake-up of a topic.
    WakeupName, "a wake-up name", limits::WAKEUP_NAME_BYTES_MAX, "of A-Z a-z 0-9 . _ -",
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

name! {
    /// The public part of an access token.
    TokenId, "a token id", limits::TOKEN_ID_BYTES_MAX, "of a-z 0-9",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

name! {
    /// Topics by name, where `*` stands for any number of characters and `?` for one.
    ///
    /// No regular expression: what matches must be the same in every build, for ever, and cost little whatever is asked.
    TopicPattern, "a topic pattern", limits::TOPIC_NAME_BYTES_MAX, "of A-Z a-z 0-9 . _ - * ?",
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'*' | b'?')
}

impl TopicPattern {
    /// Whether a name matches as a whole. Takes at most the product of both lengths in steps.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where the last star stands, and which part of the name it covers so far.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(byte) if *byte == b'?' || *byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((at, covered)) => {
                        star = Some((at, covered + 1));
                        (p, n) = (at + 1, covered + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_to_its_characters_and_its_length() {
        assert!("orders.v1:eu_west-1".parse::<GroupName>().is_ok());
        for wrong in ["", "a b", "a/b", "ä", "a\n"] {
            assert!(wrong.parse::<GroupName>().is_err(), "{wrong:?}");
        }
        assert!("arn:aws:sqs:eu:1:q.fifo/{g}~!".parse::<ProducerId>().is_ok());
        assert!("a b".parse::<ProducerId>().is_err());
        let longest = "x".repeat(limits::MEMBER_ID_BYTES_MAX);
        assert!(longest.parse::<MemberId>().is_ok());
        assert!(format!("{longest}x").parse::<MemberId>().is_err());
        assert!(serde_json::from_str::<MemberId>("\"a b\"").is_err());
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let matches = |pattern: &str, name: &str| pattern.parse::<TopicPattern>().unwrap().matches(name);
        assert!(matches("orders-*", "orders-eu") && matches("orders-*", "orders-"));
        assert!(!matches("orders-*", "orders") && !matches("orders", "orders-eu"));
        assert!(matches("*.dlq", "a.b.dlq") && matches("*a*b*", "xxaxxbxx") && !matches("*a*b", "ba"));
        assert!(matches("a?c", "abc") && !matches("a?c", "ac") && matches("*", "x"));
        assert!(!matches("*a*a*a*a*a*a*a*b", &"a".repeat(200)));
    }
}
