//! Access tokens: create, change, revoke, list, and what a frontend must know of one to let its holder in.

use serde::{Deserialize, Serialize};

use crate::access::{Grant, TokenHash, TokenId};
use crate::quota::Quotas;
use crate::time::Timestamp;

/// Creates a token. The secret stays with whoever made it: only its hash is told.
///
/// Idempotent: the same token with the same hash that exists is the answer; another one of that id is `conflict`. The
/// first token of a cluster must be an administrator's, or nobody could make a second one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateToken {
    /// The public part.
    pub id: TokenId,
    /// What is kept of the secret.
    pub hash: TokenHash,
    /// For people: whose it is, what for.
    #[serde(default)]
    pub description: String,
    /// What it allows.
    pub grants: Vec<Grant>,
    /// Log time from which it is no longer valid; none: until it is revoked.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// How much may be done with it.
    #[serde(default)]
    pub quotas: Quotas,
    /// Whether it is only made while no administrator's token is valid: how a cluster gets its first one.
    #[serde(default)]
    pub only_without_admin: bool,
}

/// Changes a token; what is absent stays. Its secret stays, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterToken {
    /// Which.
    pub id: TokenId,
    /// The new description.
    #[serde(default)]
    pub description: Option<String>,
    /// What it allows from now on.
    #[serde(default)]
    pub grants: Option<Vec<Grant>>,
    /// Until when it is valid from now on.
    #[serde(default)]
    pub valid: Option<Validity>,
    /// All quotas anew.
    #[serde(default)]
    pub quotas: Option<Quotas>,
}

/// Until when a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    /// Until it is revoked.
    Unlimited,
    /// Before this log time.
    Until(Timestamp),
}

/// Ends a token at once and forgets it. The last valid one of an administrator cannot be revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeToken {
    /// Which.
    pub id: TokenId,
}

/// A token is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedToken {
    /// Which.
    pub id: TokenId,
}

/// Says that a token was used; kept to the [hour](crate::limits::TOKEN_USE_GRAIN).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchToken {
    /// Which.
    pub id: TokenId,
}

/// When a token was used last, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTouched {
    /// Log time, to the hour.
    pub last_used: Timestamp,
}

/// Lists tokens in the order of their ids, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTokens {
    /// Only ids after this one.
    #[serde(default)]
    pub after: Option<TokenId>,
    /// At most so many, 1 to 1,000.
    pub limit: u32,
}

/// A page of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPage {
    /// In the order of their ids.
    pub tokens: Vec<TokenDescription>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// A token as it is now, without anything of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenDescription {
    /// The public part.
    pub id: TokenId,
    /// For people: whose it is, what for.
    pub description: String,
    /// What it allows.
    pub grants: Vec<Grant>,
    /// Log time of its creation.
    pub created: Timestamp,
    /// Log time from which it is no longer valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was used last, to the hour; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// How much may be done with it.
    #[serde(default)]
    pub quotas: Quotas,
}

/// Asks for what is needed to judge whoever shows a token, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindToken {
    /// The token that is shown; none: one only wants to know whether there are any.
    #[serde(default)]
    pub id: Option<TokenId>,
}

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFound {
    /// None: there is no such token (any more).
    pub token: Option<KnownToken>,
    /// Tokens of the cluster; while there are none, a frontend may serve whoever reaches it.
    pub count: u64,
    /// Log time of the answer, against which expiry is judged.
    pub log_time: Timestamp,
}

/// A token with the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownToken {
    /// What is kept of the secret.
    pub hash: TokenHash,
    /// Everything else.
    pub description: TokenDescription,
}
