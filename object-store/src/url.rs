//! Where an object store is, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::key::check_key;

/// `s3://bucket[/prefix]`, `file:///dir` or `memory://name`.
///
/// A prefix has the form of a key, a folder is an absolute path (with `%20` for a space and so on), and a memory store lives
/// in this process as long as somebody has it open. `Display` writes the same URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectStoreUrl {
    /// A bucket, or a part of one.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all keys begin with in the bucket, without the slash after it; may be empty.
        prefix: String,
    },
    /// A folder of this machine.
    Folder(PathBuf),
    /// The memory of this process.
    Memory {
        /// Stores of one name are one store.
        name: String,
    },
}

/// A text that is no object store URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; write s3://bucket/prefix, file:///dir or memory://name: {text:?}")]
pub struct InvalidObjectStoreUrl {
    text: String,
    reason: &'static str,
}

impl FromStr for ObjectStoreUrl {
    type Err = InvalidObjectStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidObjectStoreUrl> {
        let invalid = |reason| InvalidObjectStoreUrl { text: text.chars().take(200).collect(), reason };
        let (scheme, rest) = text.split_once("://").ok_or(invalid("not an object store URL"))?;
        if rest.contains(['?', '#']) {
            return Err(invalid("an object store URL has no query and no fragment"));
        }
        match scheme {
            "s3" => s3(rest).map_err(invalid),
            "file" => folder(rest).map_err(invalid),
            "memory" if rest.is_empty() || rest.contains('/') => {
                Err(invalid("a memory store has a name without slashes"))
            }
            "memory" => Ok(Self::Memory { name: rest.to_owned() }),
            _ => Err(invalid("unknown kind of object store")),
        }
    }
}

fn s3(rest: &str) -> Result<ObjectStoreUrl, &'static str> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(allowed) {
        return Err("a bucket name has 3 to 63 lower-case letters, digits, dots and hyphens");
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() && (prefix.len() > 200 || check_key(prefix).is_err()) {
        return Err("a prefix has at most 200 bytes in non-empty segments that do not begin with a dot");
    }
    Ok(ObjectStoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn folder(rest: &str) -> Result<ObjectStoreUrl, &'static str> {
    if !rest.starts_with('/') {
        return Err("a file URL has three slashes and an absolute path");
    }
    let path = percent_decode(rest).ok_or("a percent sign is followed by two hex digits of a UTF-8 text")?;
    if path.contains('\0') {
        return Err("a path has no NUL");
    }
    Ok(ObjectStoreUrl::Folder(PathBuf::from(path)))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            let valid = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            decoded.push(valid.then(|| u8::from_str_radix(digits, 16).ok())??);
            rest = &tail[2..];
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

impl fmt::Display for ObjectStoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Folder(path) => {
                f.write_str("file://")?;
                for character in path.to_string_lossy().chars() {
                    match character {
                        '%' | '?' | '#' | ' ' => write!(f, "%{:02X}", u32::from(character))?,
                        _ => write!(f, "{character}")?,
                    }
                }
                Ok(())
            }
            Self::Memory { name } => write!(f, "memory://{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_written_and_written_as_read() {
        let s3 =
            |bucket: &str, prefix: &str| ObjectStoreUrl::S3 { bucket: bucket.into(), prefix: prefix.into() };
        for (text, url, spelled) in [
            ("s3://my-bucket", s3("my-bucket", ""), "s3://my-bucket"),
            ("s3://my-bucket/", s3("my-bucket", ""), "s3://my-bucket"),
            ("s3://my.bucket/some/prefix/", s3("my.bucket", "some/prefix"), "s3://my.bucket/some/prefix"),
            (
                "file:///var/lib/carnax",
                ObjectStoreUrl::Folder("/var/lib/carnax".into()),
                "file:///var/lib/carnax",
            ),
            ("file:///a%20b/%C3%BC", ObjectStoreUrl::Folder("/a b/ü".into()), "file:///a%20b/ü"),
            ("memory://test", ObjectStoreUrl::Memory { name: "test".into() }, "memory://test"),
        ] {
            assert_eq!(text.parse(), Ok(url.clone()), "{text}");
            assert_eq!(url.to_string(), spelled);
            assert_eq!(spelled.parse(), Ok(url), "{spelled}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_with_the_rule_and_the_forms() {
        for text in [
            "",
            "bucket",
            "/dir",
            "s3:/bucket",
            "s3://",
            "s3://UPPER",
            "s3://a",
            "s3://bucket//x",
            "s3://bucket/../x",
            "s3://bucket?region=x",
            "file://dir",
            "file:///a%2",
            "file:///a%zz",
            "file:///%ff",
            "file:///%00",
            "memory://",
            "memory://a/b",
            "gs://bucket",
        ] {
            let error = text.parse::<ObjectStoreUrl>().expect_err(text).to_string();
            assert!(error.contains("s3://bucket/prefix"), "{error}");
        }
    }
}
