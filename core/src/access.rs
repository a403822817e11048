//! Who may do what: access tokens, and the grants that a token carries.
//!
//! A token is the text `carnax_<id>_<secret>`. The id is public and stands in lists and logs; of the secret only a SHA-256
//! hash is kept. The secret has at least 160 bits of randomness if Carnax made it, so that a slow hash would add nothing.
//!
//! What is not granted is refused. Operations follow Kafka's (KIP-11), with one for whatever a group needs:
//!
//! | operation | on topics | on groups | on the cluster |
//! |---|---|---|---|
//! | `read` | fetch; commit a group's offsets of it | | |
//! | `write` | append; fence writers | | |
//! | `create` | create | | |
//! | `alter` | change, trim, delete; wake-ups | | change settings |
//! | `describe` | see it in lists, its configuration and offsets | see members and offsets | status, settings, metrics, usage |
//! | `group` | | join, commit, reset, delete | |
//! | `admin` | everything, everywhere, tokens and nodes too | | |
//!
//! Every other operation on a thing implies `describe` of it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use ulid::Ulid;

use crate::limits;
use crate::name::TopicPattern;

pub use crate::name::TokenId;

/// What every token begins with, so that tools that look for leaked secrets know it.
const BEGINNING: &str = "carnax_";

/// Something that can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Fetch records.
    Read,
    /// Append records.
    Write,
    /// Create topics.
    Create,
    /// Change, trim and delete topics; change settings of the cluster.
    Alter,
    /// See that a thing is there, and how it is.
    Describe,
    /// Take part in a group, move its offsets, delete it.
    Group,
    /// Everything.
    Admin,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Create, Self::Alter, Self::Describe, Self::Group, Self::Admin];

    /// The word that stands in grants.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Describe => "describe",
            Self::Group => "group",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let known = Self::ALL.into_iter().find(|operation| operation.as_str() == text);
        known.ok_or_else(|| InvalidGrant::Unknown(text.chars().take(50).collect()))
    }
}

/// What an operation is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The topic of a name, whether or not there is one.
    Topic(&'a str),
    /// The group of a name, whether or not there is one.
    Group(&'a str),
    /// Nodes, settings, metrics, usage.
    Cluster,
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}

/// Topics or groups, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// The one of this name.
    Name(String),
    /// All whose names begin with this; the empty prefix means all.
    Prefix(String),
}

impl Names {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::Name(only) => only == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Name(text) | Self::Prefix(text) => text,
        }
    }
}

/// Operations that are allowed on some topics, some groups, or the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What is allowed; at least one.
    pub operations: BTreeSet<Operation>,
    /// On which topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<Names>,
    /// On which groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Names>,
    /// Whether on the cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cluster: bool,
}

/// A grant that says nothing, or what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrant {
    /// A word that is no operation.
    #[error("{0:?} is no operation; there are: read, write, create, alter, describe, group, admin")]
    Unknown(String),
    /// Nothing is allowed.
    #[error("a grant names at least one operation")]
    NoOperation,
    /// It does not say what the operations are allowed on.
    #[error("a grant says on which topics, on which groups, or that it is on the cluster")]
    NoResource,
    /// `admin` is everything already.
    #[error("admin is everything: it stands alone, without topics, groups or cluster")]
    AdminAlone,
    /// Nothing on the resource is done by the operation.
    #[error("{operation} is not done to {resource}")]
    Mismatch {
        /// The operation.
        operation: Operation,
        /// What it is not done to.
        resource: &'static str,
    },
    /// A text that is no grant.
    #[error(
        "a grant is written OPERATION[,OPERATION…]:topic/NAME, …:topic/PREFIX*, …:group/NAME, …:group/PREFIX*, …:cluster, or admin, not {0:?}"
    )]
    Text(String),
    /// A name or prefix that no topic or group has.
    #[error("a name in a grant has at most {max} bytes of A-Z a-z 0-9 . _ : - and is empty only as a prefix")]
    Name {
        /// The longest.
        max: usize,
    },
}

impl Grant {
    /// Everything.
    pub fn admin() -> Self {
        Self { operations: [Operation::Admin].into(), topics: None, groups: None, cluster: false }
    }

    /// Whether it gives everything.
    pub fn is_admin(&self) -> bool {
        self.operations.contains(&Operation::Admin)
    }

    /// Whether the grant means something.
    ///
    /// # Errors
    /// See [`InvalidGrant`].
    pub fn check(&self) -> Result<(), InvalidGrant> {
        if self.operations.is_empty() {
            return Err(InvalidGrant::NoOperation);
        }
        let nowhere = self.topics.is_none() && self.groups.is_none() && !self.cluster;
        if self.is_admin() {
            let alone = self.operations.len() == 1 && nowhere;
            return if alone { Ok(()) } else { Err(InvalidGrant::AdminAlone) };
        }
        if nowhere {
            return Err(InvalidGrant::NoResource);
        }
        let resources = [
            (self.topics.is_some(), "topics", TOPIC_OPERATIONS),
            (self.groups.is_some(), "groups", GROUP_OPERATIONS),
            (self.cluster, "the cluster", CLUSTER_OPERATIONS),
        ];
        for (granted, resource, possible) in resources {
            let impossible = self.operations.iter().find(|operation| !possible.contains(operation));
            if let (true, Some(operation)) = (granted, impossible) {
                return Err(InvalidGrant::Mismatch { operation: *operation, resource });
            }
        }
        [&self.topics, &self.groups].into_iter().flatten().try_for_each(check_names)
    }

    fn allows(&self, operation: Operation, resource: Resource<'_>) -> bool {
        if self.is_admin() {
            return true;
        }
        let within = match resource {
            Resource::Topic(name) => self.topics.as_ref().is_some_and(|names| names.contains(name)),
            Resource::Group(name) => self.groups.as_ref().is_some_and(|names| names.contains(name)),
            Resource::Cluster => self.cluster,
        };
        // Whoever may do anything to a thing may know that it is there.
        within && (operation == Operation::Describe || self.operations.contains(&operation))
    }
}

/// `read,write:topic/orders*`, `group:group/billing`, `describe:cluster`, `admin`; grants on several things at once join their
/// parts with `+`.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: Vec<_> = self.operations.iter().map(|operation| operation.as_str()).collect();
        f.write_str(&operations.join(","))?;
        let named = |kind: &str, names: &Names| match names {
            Names::Name(name) => format!("{kind}/{name}"),
            Names::Prefix(prefix) => format!("{kind}/{prefix}*"),
        };
        let topics = self.topics.iter().map(|names| named("topic", names));
        let groups = self.groups.iter().map(|names| named("group", names));
        let cluster = self.cluster.then(|| "cluster".to_owned());
        let resources: Vec<_> = topics.chain(groups).chain(cluster).collect();
        if resources.is_empty() { Ok(()) } else { write!(f, ":{}", resources.join("+")) }
    }
}

impl FromStr for Grant {
    type Err = InvalidGrant;

    /// Reads what `Display` writes, and checks that it means something.
    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let wrong = || InvalidGrant::Text(text.chars().take(300).collect());
        let (operations, resources) = match text.split_once(':') {
            Some((operations, resources)) => (operations, Some(resources)),
            None => (text, None),
        };
        let operations = operations.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let mut grant = Self { operations, topics: None, groups: None, cluster: false };
        for resource in resources.into_iter().flat_map(|resources| resources.split('+')) {
            let names = |text: &str| match text.strip_suffix('*') {
                Some(prefix) => Names::Prefix(prefix.to_owned()),
                None => Names::Name(text.to_owned()),
            };
            let is_new = match resource.split_once('/') {
                Some(("topic", name)) => grant.topics.replace(names(name)).is_none(),
                Some(("group", name)) => grant.groups.replace(names(name)).is_none(),
                None if resource == "cluster" => !std::mem::replace(&mut grant.cluster, true),
                _ => return Err(wrong()),
            };
            if !is_new {
                return Err(wrong());
            }
        }
        grant.check()?;
        Ok(grant)
    }
}

const TOPIC_OPERATIONS: &[Operation] =
    &[Operation::Read, Operation::Write, Operation::Create, Operation::Alter, Operation::Describe];
const GROUP_OPERATIONS: &[Operation] = &[Operation::Group, Operation::Describe];
const CLUSTER_OPERATIONS: &[Operation] = &[Operation::Alter, Operation::Describe];

fn check_names(names: &Names) -> Result<(), InvalidGrant> {
    let max = limits::TOPIC_NAME_BYTES_MAX;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    let text = names.text();
    let named = matches!(names, Names::Prefix(_)) || !text.is_empty();
    let fits = named && text.len() <= max && text.bytes().all(allowed);
    if fits { Ok(()) } else { Err(InvalidGrant::Name { max }) }
}

/// Whether any of the grants allows an operation.
pub fn allows(grants: &[Grant], operation: Operation, resource: Resource<'_>) -> bool {
    grants.iter().any(|grant| grant.allows(operation, resource))
}

/// Whether any of the grants allows an operation on every topic that a pattern may ever match.
pub fn allows_pattern(grants: &[Grant], operation: Operation, pattern: &TopicPattern) -> bool {
    let text = pattern.as_str();
    match text.find(['*', '?']) {
        None => allows(grants, operation, Resource::Topic(text)),
        Some(wild) => grants.iter().any(|grant| {
            let within = |names: &Names| {
                matches!(names, Names::Prefix(prefix) if text[..wild].starts_with(prefix.as_str()))
            };
            grant.is_admin()
                || (grant.operations.contains(&operation) && grant.topics.as_ref().is_some_and(within))
        }),
    }
}

/// Whether any of the grants allows an operation on any topic at all.
pub fn allows_some_topic(grants: &[Grant], operation: Operation) -> bool {
    let allowed =
        |grant: &Grant| grant.topics.is_some() && grant.operations.contains(&operation) || grant.is_admin();
    grants.iter().any(allowed)
}

/// A token as its holder knows it. Printing it shows the id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: TokenId,
    secret: String,
}

/// A text that is no token. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a token is written carnax_<id>_<secret>: an id of 1 to {id} characters of a-z 0-9, a secret of {min} to {max} letters and digits",
    id = limits::TOKEN_ID_BYTES_MAX,
    min = limits::TOKEN_SECRET_BYTES_MIN,
    max = limits::TOKEN_SECRET_BYTES_MAX
)]
pub struct InvalidToken;

impl Token {
    /// Makes a token from random numbers: 80 bits for the id, 256 for the secret.
    pub fn from_random(id: u128, secret: [u128; 2]) -> Self {
        let text = |number: u128| Ulid(number).to_string().to_ascii_lowercase();
        let id = text(id)[10..].parse().expect("digits of base 32 are an id");
        Self { id, secret: secret.map(text).concat() }
    }

    /// The public part.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// What is kept of the secret.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.secret.as_bytes()).into())
    }

    /// The whole token, secret included: for its holder alone.
    pub fn reveal(&self) -> String {
        format!("{BEGINNING}{}_{}", self.id, self.secret)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (id, secret) =
            text.strip_prefix(BEGINNING).and_then(|rest| rest.split_once('_')).ok_or(InvalidToken)?;
        let id = id.parse().map_err(|_| InvalidToken)?;
        let lengths = limits::TOKEN_SECRET_BYTES_MIN..=limits::TOKEN_SECRET_BYTES_MAX;
        let fits = lengths.contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if fits { Ok(Self { id, secret: secret.to_owned() }) } else { Err(InvalidToken) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The SHA-256 hash of a token's secret. Printing it shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Whether this is the hash of the token's secret; takes the same time whatever the answer.
    pub fn is_of(&self, token: &Token) -> bool {
        self.0.ct_eq(&token.hash().0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenHash").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
