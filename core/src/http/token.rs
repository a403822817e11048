//! `/v1/tokens`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::access::{Grant, TokenId};
use crate::metadata::TokenDescription;
use crate::quota::Quotas;

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateTokenRequest {
    /// For people: whose it is, what for.
    #[serde(default)]
    pub description: String,
    /// What it allows; at least one.
    pub grants: Vec<Grant>,
    /// In how many milliseconds it expires; absent: it is valid until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// How much may be done with it; absent: as much as one likes.
    #[serde(default)]
    pub quotas: Quotas,
}

/// `PATCH /v1/tokens/{id}`; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AlterTokenRequest {
    /// The new description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it allows from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
    /// In how many milliseconds it expires; `null`: not by itself.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "said")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub expires_in_ms: Option<Option<u64>>,
    /// All quotas anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Quotas>,
}

/// The answer to `POST /v1/tokens`: the only place where the secret stands. Printing it shows the description alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedTokenResponse {
    /// The whole token, to be kept by its holder.
    pub token: String,
    /// What is known of it from now on.
    #[serde(flatten)]
    pub description: TokenDescription,
}

impl std::fmt::Debug for CreatedTokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedTokenResponse").field("description", &self.description).finish_non_exhaustive()
    }
}

/// `GET /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokensResponse {
    /// In the order of their ids.
    pub tokens: Vec<TokenDescription>,
    /// What to send as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<TokenId>,
}

/// `DELETE /v1/tokens/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokedTokenResponse {
    /// The token that is refused from now on.
    pub id: TokenId,
}

/// A value that is there, `null` too.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
