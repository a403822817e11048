//! `/v1/tokens`: access tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use carnax_core::access::{Token, TokenId};
use carnax_core::http::{
    AlterTokenRequest, CreateTokenRequest, CreatedTokenResponse, RevokedTokenResponse, TokensResponse,
};
use carnax_core::limits;
use carnax_core::metadata::{
    AlterToken, CreateToken, FindToken, ListTokens, RevokeToken, TokenDescription, Validity,
};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;

use super::problem::Failure;
use super::{Api, parameters};
use crate::metadata_client::CommandError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    after: Option<String>,
    limit: Option<u32>,
}

/// Lists access tokens in the order of their ids; secrets are not known.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "access",
    params(("after" = Option<String>, Query), ("limit" = Option<u32>, Query)),
    responses((status = 200, body = TokensResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn list(State(api): State<Arc<Api>>, uri: Uri) -> Result<Json<TokensResponse>, Failure> {
    let ListQuery { after, limit } = parameters::query(&uri)?;
    let after = after.as_deref().map(token_id).transpose()?;
    let limit = parameters::limit(limit, limits::TOKENS_PAGE_MAX, limits::TOKENS_PAGE_MAX)?;
    let page = api.client.query(ListTokens { after, limit }).await?;
    let next_after = page.tokens.last().filter(|_| page.more).map(|token| token.id.clone());
    Ok(Json(TokensResponse { tokens: page.tokens, next_after }))
}

/// Creates an access token. The answer is the only place where its secret ever stands.
///
/// The first token has to be an administrator's. A request without an answer may have made a token that nobody has: revoke it.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "access", request_body = CreateTokenRequest,
    responses((status = 201, body = CreatedTokenResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let request: CreateTokenRequest = api.document(body, &headers).await?;
    let random = || api.entropy.next_u128();
    let token = Token::from_random(random(), [random(), random()]);
    let expires = match request.expires_in_ms {
        Some(millis) => Some(in_future(&api, millis).await?),
        None => None,
    };
    let command = CreateToken {
        id: token.id().clone(),
        hash: token.hash(),
        description: request.description,
        grants: request.grants,
        expires,
        quotas: request.quotas,
        only_without_admin: false,
    };
    // The same token twice is one token, so no answer is no reason to give up.
    let description: TokenDescription =
        api.client.repeat(command).await.map_err(CommandError::into_problem)?;
    let created = CreatedTokenResponse { token: token.reveal(), description };
    let never_stored = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, never_stored, Json(created)).into_response())
}

/// Changes an access token; what is absent stays, and so does its secret.
#[utoipa::path(
    patch, path = "/v1/tokens/{token}", tag = "access", params(("token" = String, Path, description = "Its id")),
    request_body = AlterTokenRequest,
    responses((status = 200, body = TokenDescription), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn alter(
    State(api): State<Arc<Api>>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TokenDescription>, Failure> {
    let id = token_id(&token)?;
    let request: AlterTokenRequest = api.document(body, &headers).await?;
    let valid = match request.expires_in_ms {
        None => None,
        Some(None) => Some(Validity::Unlimited),
        Some(Some(millis)) => Some(Validity::Until(in_future(&api, millis).await?)),
    };
    let AlterTokenRequest { description, grants, quotas, .. } = request;
    let command = AlterToken { id, description, grants, valid, quotas };
    Ok(Json(api.client.repeat(command).await.map_err(CommandError::into_problem)?))
}

/// Ends an access token: within ten seconds it is refused everywhere.
#[utoipa::path(
    delete, path = "/v1/tokens/{token}", tag = "access", params(("token" = String, Path, description = "Its id")),
    responses((status = 200, body = RevokedTokenResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(token): Path<String>,
) -> Result<Json<RevokedTokenResponse>, Failure> {
    let id = token_id(&token)?;
    let revoked = api.client.command(RevokeToken { id }).await.map_err(CommandError::into_problem)?;
    Ok(Json(RevokedTokenResponse { id: revoked.id }))
}

/// The path takes an id; who puts a whole token there has shown its secret to every log on the way.
fn token_id(text: &str) -> Result<TokenId, Problem> {
    let wrong =
        |_| parameters::invalid("a token is named by its id alone, the part between the two underscores");
    text.parse().map_err(wrong)
}

/// A point in log time.
async fn in_future(api: &Api, millis: u64) -> Result<Timestamp, Problem> {
    let now = api.client.query(FindToken { id: None }).await?.log_time;
    Ok(now.saturating_add(Duration::from_millis(millis)))
}
