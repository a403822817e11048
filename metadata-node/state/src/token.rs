//! Access tokens: who may do what, with the hash of each secret.
//!
//! Whether a token is valid is judged by log time. One that has expired is kept, so that its holder can be told, until it is
//! revoked.

use std::sync::Arc;

use carnax_core::access::{Grant, TokenHash, TokenId};
use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{AlterToken, CreateToken, KnownToken, TokenDescription, Validity};
use carnax_core::problem::Problem;
use carnax_core::quota::Quotas;
use carnax_core::time::Timestamp;
use imbl::OrdMap;

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) hash: TokenHash,
    pub(crate) description: Arc<str>,
    pub(crate) grants: Arc<[Grant]>,
    pub(crate) created: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) last_used: Option<Timestamp>,
    pub(crate) quotas: Quotas,
}

/// All tokens, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens {
    by_id: OrdMap<TokenId, Token>,
}

impl Token {
    fn new(request: &CreateToken, now: Timestamp) -> Self {
        Self {
            hash: request.hash,
            description: request.description.as_str().into(),
            grants: request.grants.as_slice().into(),
            created: now,
            expires: request.expires,
            last_used: None,
            quotas: request.quotas,
        }
    }

    pub(crate) fn describe(&self, id: &TokenId) -> TokenDescription {
        TokenDescription {
            id: id.clone(),
            description: self.description.to_string(),
            grants: self.grants.to_vec(),
            created: self.created,
            expires: self.expires,
            last_used: self.last_used,
            quotas: self.quotas,
        }
    }

    /// Whether it lets an administrator in at a time.
    fn is_admin_at(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires) && self.grants.iter().any(Grant::is_admin)
    }

    /// Whether everything is within its limits: what is true of a token in every state.
    pub(crate) fn is_sound(&self) -> bool {
        check(&self.description, &self.grants).is_ok()
            && self.last_used.is_none_or(|used| self.created <= used)
    }
}

impl Tokens {
    /// In the order of their ids.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&TokenId, &Token)> {
        self.by_id.iter()
    }

    pub(crate) fn after(&self, after: Option<&TokenId>) -> impl Iterator<Item = (&TokenId, &Token)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_id.range::<_, TokenId>((from, Unbounded))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn contains(&self, id: &TokenId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(crate) fn known(&self, id: &TokenId) -> Option<KnownToken> {
        let token = self.by_id.get(id)?;
        Some(KnownToken { hash: token.hash, description: token.describe(id) })
    }

    /// Adds a token; an equal one that exists is the answer.
    pub(crate) fn create(
        &mut self,
        request: &CreateToken,
        now: Timestamp,
    ) -> Result<TokenDescription, Problem> {
        check(&request.description, &request.grants)?;
        if let Some(known) = self.by_id.get(&request.id) {
            let again = known.hash == request.hash && *known.grants == *request.grants;
            let other =
                || Problem::new(ErrorCode::Conflict, format_args!("there is another token {}", request.id));
            return again.then(|| known.describe(&request.id)).ok_or_else(other);
        }
        check_expiry(request.expires, now)?;
        let token = Token::new(request, now);
        let has_admin = self.has_admin_at(now);
        if request.only_without_admin && has_admin {
            return Err(Problem::new(ErrorCode::Conflict, "there is an administrator's token already"));
        }
        if !has_admin && !token.is_admin_at(now) {
            let detail =
                "the first token has to be an administrator's: with any other one nobody could create more";
            return Err(Problem::new(ErrorCode::InvalidValue, detail));
        }
        if self.by_id.len() >= limits::TOKENS_MAX {
            let detail = format_args!("the cluster has as many tokens as it may: {}", limits::TOKENS_MAX);
            let problem = Problem::new(ErrorCode::InvalidValue, detail);
            return Err(problem.with(|facts| facts.limit = Some(limits::TOKENS_MAX as u64)));
        }
        let description = token.describe(&request.id);
        self.by_id.insert(request.id.clone(), token);
        Ok(description)
    }

    /// Changes what is named.
    pub(crate) fn alter(
        &mut self,
        request: &AlterToken,
        now: Timestamp,
    ) -> Result<TokenDescription, Problem> {
        let known = self.by_id.get(&request.id).ok_or_else(|| not_found(&request.id))?;
        let mut token = known.clone();
        if let Some(description) = &request.description {
            token.description = description.as_str().into();
        }
        if let Some(grants) = &request.grants {
            token.grants = grants.as_slice().into();
        }
        match request.valid {
            None => {}
            Some(Validity::Unlimited) => token.expires = None,
            Some(Validity::Until(expires)) => {
                check_expiry(Some(expires), now)?;
                token.expires = Some(expires);
            }
        }
        token.quotas = request.quotas.unwrap_or(token.quotas);
        check(&token.description, &token.grants)?;
        if known.is_admin_at(now) && !token.is_admin_at(now) {
            self.check_other_admin(&request.id, now)?;
        }
        let description = token.describe(&request.id);
        self.by_id.insert(request.id.clone(), token);
        Ok(description)
    }

    pub(crate) fn revoke(&mut self, id: &TokenId, now: Timestamp) -> Result<(), Problem> {
        let known = self.by_id.get(id).ok_or_else(|| not_found(id))?;
        if known.is_admin_at(now) {
            self.check_other_admin(id, now)?;
        }
        self.by_id.remove(id);
        Ok(())
    }

    pub(crate) fn has_admin_at(&self, now: Timestamp) -> bool {
        self.by_id.values().any(|token| token.is_admin_at(now))
    }

    /// Notes a use, to the hour.
    pub(crate) fn touch(&mut self, id: &TokenId, now: Timestamp) -> Result<Timestamp, Problem> {
        let token = self.by_id.get_mut(id).ok_or_else(|| not_found(id))?;
        match token.last_used {
            Some(used) if now.since(used) < limits::TOKEN_USE_GRAIN => Ok(used),
            _ => {
                token.last_used = Some(now);
                Ok(now)
            }
        }
    }

    /// Puts back what a snapshot held; false if it is out of order, unsound, or one too many.
    pub(crate) fn restore(&mut self, id: TokenId, token: Token) -> bool {
        let behind = self.by_id.get_max().is_none_or(|(last, _)| *last < id);
        let fits = behind && token.is_sound() && self.by_id.len() < limits::TOKENS_MAX;
        if fits {
            self.by_id.insert(id, token);
        }
        fits
    }

    fn check_other_admin(&self, id: &TokenId, now: Timestamp) -> Result<(), Problem> {
        if self.by_id.iter().any(|(other, token)| other != id && token.is_admin_at(now)) {
            return Ok(());
        }
        let detail = "this is the last administrator's token: create another one first";
        Err(Problem::new(ErrorCode::Conflict, detail))
    }
}

fn check(description: &str, grants: &[Grant]) -> Result<(), Problem> {
    let wrong = |detail: String, limit: usize| {
        Problem::new(ErrorCode::InvalidValue, detail).with(|facts| facts.limit = Some(limit as u64))
    };
    let max = limits::TOKEN_DESCRIPTION_BYTES_MAX;
    if description.len() > max {
        return Err(wrong(format!("a token's description has at most {max} bytes"), max));
    }
    let max = limits::TOKEN_GRANTS_MAX;
    if grants.is_empty() || grants.len() > max {
        return Err(wrong(format!("a token has 1 to {max} grants"), max));
    }
    let checked = grants.iter().try_for_each(Grant::check);
    checked.map_err(|error| Problem::new(ErrorCode::InvalidValue, error))
}

fn check_expiry(expires: Option<Timestamp>, now: Timestamp) -> Result<(), Problem> {
    if expires.is_some_and(|expires| expires <= now) {
        return Err(Problem::new(ErrorCode::InvalidValue, "a token expires in the future, or never"));
    }
    Ok(())
}

fn not_found(id: &TokenId) -> Problem {
    Problem::new(ErrorCode::TokenNotFound, format_args!("there is no token {id}"))
}
