//! The part of a snapshot that says who may do what.

use std::io::{self, Write};

use super::frame::{Frame, TokenRow};
use super::read::{Checked, require};
use super::write::Frames;
use crate::State;
use crate::token::{Token, Tokens};

pub(super) fn write(tokens: &Tokens, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let rows = tokens.iter().map(|(id, token)| {
        let Token { hash, description, grants, created, expires, last_used, quotas } = token;
        TokenRow {
            id: id.clone(),
            hash: *hash,
            description: description.to_string(),
            grants: grants.to_vec(),
            created: *created,
            expires: *expires,
            last_used: *last_used,
            quotas: *quotas,
        }
    });
    frames.put_rows(rows, Frame::AccessTokens)
}

pub(super) fn add(state: &mut State, row: TokenRow) -> Checked {
    let TokenRow { id, hash, description, grants, created, expires, last_used, quotas } = row;
    let (description, grants) = (description.into(), grants.into());
    let token = Token { hash, description, grants, created, expires, last_used, quotas };
    let past = created <= state.log_time && last_used.is_none_or(|used| used <= state.log_time);
    require(past, "an access token from the future")?;
    require(state.tokens.restore(id, token), "access tokens out of order, unsound, or too many")
}
