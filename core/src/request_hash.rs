//! The hash by which a repeat of an append is told from another request under the same sequence or key.
//!
//! It covers what a client sent and where it sent it, never what a frontend made of it: every frontend finds the same one,
//! however the records were routed. The text before the body is drawn in `docs/formats.md`.

use std::collections::BTreeMap;

use twox_hash::XxHash3_128;

use crate::id::PartitionIndex;
use crate::topic::TopicName;

/// Where an append was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestTarget<'a> {
    /// `POST /v1/topics/{topic}/records`.
    Topic(&'a TopicName),
    /// `POST /v1/topics/{topic}/partitions/{partition}/records`.
    Partition(&'a TopicName, PartitionIndex),
    /// `POST /v1/append`.
    Atomic,
}

/// Hashes an append: XXH3-128, big-endian.
///
/// `media_type` is in lower case and without parameters; `encoding` is what keys and values are in JSON, none where the
/// body is record batches. Not a defence against somebody who looks for collisions: those would only harm a producer's own
/// requests.
pub fn request_hash(
    target: RequestTarget<'_>,
    media_type: &str,
    encoding: Option<&str>,
    body: &[u8],
) -> [u8; 16] {
    let path = match target {
        RequestTarget::Topic(topic) => format!("topics/{topic}/records"),
        RequestTarget::Partition(topic, partition) => {
            format!("topics/{topic}/partitions/{partition}/records")
        }
        RequestTarget::Atomic => "append".to_owned(),
    };
    let encoding = encoding.unwrap_or("-");
    let mut hasher = XxHash3_128::new();
    hasher.write(format!("1\n{path}\n{media_type}\n{encoding}\n").as_bytes());
    hasher.write(body);
    hasher.finish_128().to_be_bytes()
}

/// Hashes a message of a queue: XXH3-128, big-endian, over its body and its attributes, each text behind its length.
///
/// Where the message goes is left out: a message that comes again is the same one, also if the rules of its queue have changed.
pub fn message_hash(body: &str, attributes: &BTreeMap<String, String>) -> [u8; 16] {
    let mut hasher = XxHash3_128::new();
    hasher.write(b"1\nmessage\n");
    let texts = attributes.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    for text in [body].into_iter().chain(texts) {
        hasher.write(&(text.len() as u64).to_be_bytes());
        hasher.write(text.as_bytes());
    }
    hasher.finish_128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(hash: [u8; 16]) -> String {
        format!("{:032x}", u128::from_be_bytes(hash))
    }

    #[test]
    fn a_request_hashes_to_the_same_for_ever_and_others_to_others() {
        let topic: TopicName = "orders".parse().unwrap();
        let (json, batches) = ("application/json", "application/vnd.carnax.batches");
        let body = br#"{"records":[{"key":"a","value":"1"}]}"#;
        let whole = RequestTarget::Topic(&topic);
        let part = RequestTarget::Partition(&topic, PartitionIndex(3));
        let golden = [
            (request_hash(whole, json, Some("text"), body), "217ef392f0de772d355e39cfb4506116"),
            (request_hash(part, json, Some("text"), body), "8f29ef5b699a11d53a3dab5704c11b08"),
            (request_hash(whole, json, Some("json"), body), "a19ca704d73f6eb54212145bf0425fd3"),
            (request_hash(whole, batches, None, body), "40932b858183f562b7410ac61bb76c38"),
            (
                request_hash(RequestTarget::Atomic, json, Some("text"), body),
                "1c57662fcb71625c5be5df8aca2fe7b5",
            ),
            (request_hash(whole, json, Some("text"), b""), "a8a80e93a6222816d09f45947d9085dc"),
        ];
        assert_eq!(golden.map(|(hash, _)| hex(hash)), golden.map(|(_, expected)| expected.to_owned()));
        assert_eq!(format!("{:x}", XxHash3_128::oneshot(b"")), "99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn a_message_hashes_to_the_same_for_ever_and_others_to_others() {
        let attributes = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let plain = message_hash("body", &attributes(&[]));
        assert_eq!(hex(plain), "67638f3e176ab367077da7cd921a934a");
        assert_eq!(hex(message_hash("body", &attributes(&[("a", "b")]))), "8dc89ad690d53309bf3ba25dc545bae3");
        assert_ne!(message_hash("bod", &attributes(&[])), plain);
        assert_ne!(
            message_hash("body", &attributes(&[("ab", "")])),
            message_hash("body", &attributes(&[("a", "b")]))
        );
    }
}
