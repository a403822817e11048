//! Access tokens.

use carnax_core::access::{Grant, TokenId};
use carnax_core::http::{AlterTokenRequest, CreateTokenRequest, CreatedTokenResponse, TokensResponse};
use carnax_core::metadata::TokenDescription;
use carnax_core::quota::Quotas;
use http::Method;

use super::Admin;
use crate::error::RequestError;
use crate::transport::ApiRequest;

/// A token to be made: for nobody in particular, without end and without quotas, unless more is said.
///
/// ```
/// use carnax::{Grant, NewToken};
///
/// let grant: Grant = "read:topic/orders*".parse()?;
/// let token = NewToken::new([grant]).description("billing").expires_in(std::time::Duration::from_secs(30 * 86_400));
/// # let _ = token;
/// # Ok::<_, carnax::InvalidGrant>(())
/// ```
#[derive(Debug, Clone)]
pub struct NewToken {
    request: CreateTokenRequest,
}

impl NewToken {
    /// What it allows; at least one grant.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Self {
        let grants = grants.into_iter().collect();
        let (description, quotas) = (String::new(), Quotas::default());
        Self { request: CreateTokenRequest { description, grants, expires_in_ms: None, quotas } }
    }

    /// Whose it is, and what for: at most 256 bytes.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.request.description = description.into();
        self
    }

    /// How long it is valid from now on (default: until it is revoked).
    #[must_use]
    pub fn expires_in(mut self, time: std::time::Duration) -> Self {
        self.request.expires_in_ms = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// How much may be done with it (default: as much as one likes). Each frontend holds it by itself.
    #[must_use]
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.request.quotas = quotas;
        self
    }
}

/// What to change in a token; what is not mentioned stays, and so does its secret.
#[derive(Debug, Clone, Default)]
pub struct AlterToken {
    request: AlterTokenRequest,
}

impl AlterToken {
    /// The new description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.request.description = Some(description.into());
        self
    }

    /// What it allows from now on, in place of all that it did.
    #[must_use]
    pub fn grants(mut self, grants: impl IntoIterator<Item = Grant>) -> Self {
        self.request.grants = Some(grants.into_iter().collect());
        self
    }

    /// How long it is valid from now on; none: until it is revoked.
    #[must_use]
    pub fn expires_in(mut self, time: Option<std::time::Duration>) -> Self {
        let millis = time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.request.expires_in_ms = Some(millis);
        self
    }

    /// How much may be done with it, in place of all its quotas.
    #[must_use]
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.request.quotas = Some(quotas);
        self
    }
}

/// Access tokens: for administrators alone.
impl Admin {
    /// Makes a token. Its secret stands in the answer and nowhere else. Not repeated when the outcome is unknown: there may then be
    /// a token that nobody has, which [`tokens`](Self::tokens) shows.
    ///
    /// # Errors
    /// `invalid_value` for grants that mean nothing, or a first token that is no administrator's; any other [`RequestError`].
    pub async fn create_token(&self, token: &NewToken) -> Result<CreatedTokenResponse, RequestError> {
        let request = ApiRequest::new(Method::POST, "/v1/tokens").json(&token.request)?;
        self.send(&request, false).await?.json()
    }

    /// All tokens, in the order of their ids, without their secrets.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn tokens(&self) -> Result<Vec<TokenDescription>, RequestError> {
        let mut tokens = Vec::new();
        let mut path = "/v1/tokens".to_owned();
        loop {
            let page: TokensResponse = self.send(&ApiRequest::new(Method::GET, &path), true).await?.json()?;
            tokens.extend(page.tokens);
            match page.next_after {
                Some(after) => path = format!("/v1/tokens?after={after}"),
                None => return Ok(tokens),
            }
        }
    }

    /// Changes a token; what it allows changes everywhere within ten seconds.
    ///
    /// # Errors
    /// `token_not_found`; `conflict` for the last administrator's token; any other [`RequestError`].
    pub async fn alter_token(&self, id: &str, change: &AlterToken) -> Result<TokenDescription, RequestError> {
        let request = ApiRequest::new(Method::PATCH, path(id)?).json(&change.request)?;
        self.send(&request, true).await?.json()
    }

    /// Ends a token everywhere within ten seconds. Not repeated when the outcome is unknown: the repeat would be refused although
    /// this request ended it.
    ///
    /// # Errors
    /// `token_not_found`; `conflict` for the last administrator's token; any other [`RequestError`].
    pub async fn revoke_token(&self, id: &str) -> Result<(), RequestError> {
        self.send(&ApiRequest::new(Method::DELETE, path(id)?), false).await.map(drop)
    }
}

fn path(id: &str) -> Result<String, RequestError> {
    let id: TokenId = id.parse().map_err(RequestError::invalid)?;
    Ok(format!("/v1/tokens/{id}"))
}
