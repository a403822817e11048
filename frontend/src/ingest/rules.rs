//! Which queue belongs to which topic, and where the key of a record comes from.

use std::collections::BTreeMap;
use std::str::FromStr;

use carnax_core::error_code::ErrorCode;
use carnax_core::problem::Problem;
use carnax_core::topic::TopicName;
use serde::Deserialize;

/// Rules of one process or function.
const RULES_MAX: usize = 1_000;

/// One rule for each queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestRules {
    by_queue: BTreeMap<String, IngestRule>,
}

/// What becomes of the messages of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestRule {
    /// Where its records go.
    pub topic: TopicName,
    /// Where the key of a record comes from.
    pub key: KeySource,
    /// URL of the queue that takes messages which can never become records; without, they go back.
    pub dead_letters: Option<String>,
}

/// Where the key of a record comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The message group: `group`, the default for FIFO queues.
    Group,
    /// Records have no keys: `none`, the default for standard queues.
    None,
    /// A string attribute of the message: `attribute:NAME`.
    Attribute(String),
    /// A field of the body, which is JSON, by a JSON pointer (RFC 6901): `json:/customer/id`. A string, number or boolean.
    Json(String),
}

/// A text that is no set of rules.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRules {
    /// No JSON, or not what is expected.
    #[error(
        "ingest rules are a JSON list of {{\"queue\": ARN, \"topic\": name, \"key\": source, \"dead_letters\": URL}}: {0}"
    )]
    Json(#[from] serde_json::Error),
    /// One rule is wrong.
    #[error("ingest rule of queue {queue:?}: {reason}")]
    Rule {
        /// Whose.
        queue: String,
        /// Why.
        reason: String,
    },
    /// Too many, or none.
    #[error("there are 1 to {RULES_MAX} ingest rules, not {0}")]
    Count(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    queue: String,
    topic: TopicName,
    key: Option<String>,
    dead_letters: Option<String>,
}

impl IngestRules {
    /// The ARNs of the queues.
    pub fn queues(&self) -> impl Iterator<Item = &str> {
        self.by_queue.keys().map(String::as_str)
    }
}

impl FromStr for IngestRules {
    type Err = InvalidRules;

    fn from_str(text: &str) -> Result<Self, InvalidRules> {
        let written: Vec<Written> = serde_json::from_str(text)?;
        if !(1..=RULES_MAX).contains(&written.len()) {
            return Err(InvalidRules::Count(written.len()));
        }
        let mut by_queue = BTreeMap::new();
        for Written { queue, topic, key, dead_letters } in written {
            let wrong = |reason: &str| InvalidRules::Rule { queue: queue.clone(), reason: reason.to_owned() };
            if !queue.starts_with("arn:") || !queue.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong("a queue is named by its ARN"));
            }
            let key = key
                .map_or_else(|| Ok(KeySource::default_of(&queue)), |key| key.parse())
                .map_err(|reason: String| wrong(&reason))?;
            if key == KeySource::Group && !is_fifo(&queue) {
                return Err(wrong("only messages of FIFO queues have groups"));
            }
            if dead_letters.as_ref().is_some_and(|url| is_fifo(url) != is_fifo(&queue)) {
                return Err(wrong("its dead letters go to a queue of the same kind, FIFO or standard"));
            }
            if by_queue.insert(queue.clone(), IngestRule { topic, key, dead_letters }).is_some() {
                return Err(wrong("it has two rules"));
            }
        }
        Ok(Self { by_queue })
    }
}

impl IngestRules {
    /// The rule of a queue.
    pub(crate) fn of(&self, queue: &str) -> Result<&IngestRule, Problem> {
        self.by_queue.get(queue).ok_or_else(|| {
            Problem::new(ErrorCode::InvalidValue, format!("there is no ingest rule for queue {queue}"))
        })
    }
}

impl KeySource {
    fn default_of(queue: &str) -> Self {
        if is_fifo(queue) { Self::Group } else { Self::None }
    }
}

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "group" => Ok(Self::Group),
            None if text == "none" => Ok(Self::None),
            Some(("attribute", name)) if !name.is_empty() => Ok(Self::Attribute(name.to_owned())),
            Some(("json", pointer)) if pointer.starts_with('/') => Ok(Self::Json(pointer.to_owned())),
            _ => Err(format!("a key is group, none, attribute:NAME or json:/POINTER, not {text:?}")),
        }
    }
}

/// Whether a queue keeps the order of its groups: its name says so.
pub(crate) fn is_fifo(queue: &str) -> bool {
    queue.ends_with(".fifo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_with_the_defaults_of_their_queues() {
        let text = r#"[
            {"queue": "arn:aws:sqs:eu:1:a.fifo", "topic": "a"},
            {"queue": "arn:aws:sqs:eu:1:b", "topic": "b"},
            {"queue": "arn:aws:sqs:eu:1:c", "topic": "b", "key": "attribute:customer"},
            {"queue": "arn:aws:sqs:eu:1:d.fifo", "topic": "b", "key": "json:/a/b"}
        ]"#;
        let rules: IngestRules = text.parse().unwrap();
        let key = |queue: &str| rules.of(&format!("arn:aws:sqs:eu:1:{queue}")).unwrap().key.clone();
        assert_eq!(key("a.fifo"), KeySource::Group);
        assert_eq!(key("b"), KeySource::None);
        assert_eq!(key("c"), KeySource::Attribute("customer".to_owned()));
        assert_eq!(key("d.fifo"), KeySource::Json("/a/b".to_owned()));
        assert!(rules.of("arn:aws:sqs:eu:1:e").is_err());
    }

    #[test]
    fn wrong_rules_are_refused_with_the_queue_that_they_are_of() {
        for (wrong, says) in [
            ("", "JSON list"),
            ("{}", "JSON list"),
            ("[]", "1 to 1000"),
            (r#"[{"queue": "arn:x", "topic": "a", "more": 1}]"#, "unknown field"),
            (r#"[{"queue": "arn:x", "topic": "a/b"}]"#, "JSON list"),
            (r#"[{"queue": "https://x", "topic": "a"}]"#, "by its ARN"),
            (r#"[{"queue": "arn:x", "topic": "a", "key": "group"}]"#, "FIFO"),
            (r#"[{"queue": "arn:x", "topic": "a", "key": "body"}]"#, "a key is"),
            (r#"[{"queue": "arn:x.fifo", "topic": "a", "dead_letters": "https://x/1/d"}]"#, "same kind"),
            (r#"[{"queue": "arn:x", "topic": "a", "key": "json:a"}]"#, "a key is"),
            (r#"[{"queue": "arn:x", "topic": "a"}, {"queue": "arn:x", "topic": "b"}]"#, "two rules"),
        ] {
            let error = wrong.parse::<IngestRules>().unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
