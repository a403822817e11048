//! What the state says of access tokens.

use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{FindToken, ListTokens, TokenFound, TokenPage};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;

use crate::State;

/// Lists tokens in the order of their ids.
///
/// # Errors
/// `invalid_value` for a limit outside `1..=TOKENS_PAGE_MAX`.
pub fn list_tokens(state: &State, request: &ListTokens) -> Result<TokenPage, Problem> {
    let max = limits::TOKENS_PAGE_MAX;
    if !(1..=max).contains(&request.limit) {
        let detail = format_args!("a page has 1 to {max} tokens, not {}", request.limit);
        return Err(Problem::new(ErrorCode::InvalidValue, detail));
    }
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let mut tokens = state.tokens.after(request.after.as_ref());
    let page = tokens.by_ref().take(limit).map(|(id, token)| token.describe(id)).collect();
    Ok(TokenPage { tokens: page, more: tokens.next().is_some() })
}

/// Whether an administrator's token is valid at a time.
pub fn has_admin(state: &State, now: Timestamp) -> bool {
    state.tokens.has_admin_at(now)
}

/// What is needed to judge whoever shows a token.
pub fn find_token(state: &State, request: &FindToken) -> TokenFound {
    TokenFound {
        token: request.id.as_ref().and_then(|id| state.tokens.known(id)),
        count: state.tokens.len() as u64,
        log_time: state.log_time,
    }
}
