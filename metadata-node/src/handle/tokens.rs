//! Access tokens: who may do what.

use carnax_core::metadata::{
    AlterToken, CreateToken, FindToken, ListTokens, RevokeToken, RevokedToken, TokenDescription, TokenFound,
    TokenPage, TokenTouched, TouchToken,
};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Reply, answer};

use super::{Handle, mismatched, reply};

impl Handle {
    pub(crate) async fn create_token(&self, request: CreateToken) -> Result<TokenDescription, Problem> {
        reply!(self, Command::CreateToken(request), TokenCreated)
    }

    pub(crate) async fn alter_token(&self, request: AlterToken) -> Result<TokenDescription, Problem> {
        reply!(self, Command::AlterToken(request), TokenAltered)
    }

    pub(crate) async fn revoke_token(&self, request: RevokeToken) -> Result<RevokedToken, Problem> {
        reply!(self, Command::RevokeToken(request), TokenRevoked)
    }

    pub(crate) async fn touch_token(&self, request: TouchToken) -> Result<TokenTouched, Problem> {
        reply!(self, Command::TouchToken(request), TokenTouched)
    }

    pub(crate) async fn list_tokens(&self, request: ListTokens) -> Result<TokenPage, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::list_tokens(&view.state, &request))
    }

    pub(crate) async fn find_token(&self, request: FindToken) -> Result<TokenFound, Problem> {
        let view = self.linearizable().await?;
        // The state's log time stands still while nobody writes, and tokens expire all the same.
        let found = answer::find_token(&view.state, &request);
        Ok(TokenFound { log_time: found.log_time.max(self.0.stamper.wall()), ..found })
    }
}
