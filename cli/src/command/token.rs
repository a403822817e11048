//! `carnax token`: who may do what.

use std::time::Duration;

use carnax::{AlterToken, Grant, NewToken, Quotas, TokenDescription};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::arguments::{Global, lifetime};
use crate::exit::Usage;
use crate::output::{Output, say, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make an access token and print it: the only time that its secret is shown
    Create(Create),
    /// List the tokens, without their secrets
    List,
    /// Change what a token allows, how long it is valid, or its description; its secret stays
    Alter(Alter),
    /// End a token: within ten seconds it is refused everywhere
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Whose it is, and what for
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// What it allows: read,write:topic/orders* or group:group/billing or describe:cluster or admin; may be repeated
    #[arg(long = "grant", value_name = "OPERATIONS:RESOURCE", required = true)]
    grants: Vec<Grant>,
    /// How long it is valid, as 30d, 12h, 15m or 90s; until it is revoked if absent
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    quotas: QuotaArguments,
}

#[derive(Debug, Args)]
pub(crate) struct Alter {
    /// Id of the token: the part between the two underscores
    token: String,
    /// The new description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What it allows, in place of all that it did; may be repeated
    #[arg(long = "grant", value_name = "OPERATIONS:RESOURCE")]
    grants: Vec<Grant>,
    /// How long it is valid from now on
    #[arg(long, value_name = "TIME", value_parser = lifetime, conflicts_with = "never_expires")]
    expires_in: Option<Duration>,
    /// It is valid until it is revoked
    #[arg(long)]
    never_expires: bool,
    /// No quotas any more
    #[arg(long)]
    no_quotas: bool,
    #[command(flatten)]
    quotas: QuotaArguments,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Id of the token: the part between the two underscores
    token: String,
}

/// All quotas of a token, given together. Each frontend holds them by itself.
#[derive(Debug, Args)]
struct QuotaArguments {
    /// Bytes that may be appended with it in a second, at each frontend
    #[arg(long, value_name = "BYTES")]
    produce_bytes_per_second: Option<u64>,
    /// Requests that may append with it in a second, at each frontend
    #[arg(long, value_name = "N")]
    produce_requests_per_second: Option<u64>,
    /// Bytes that may be fetched with it in a second, at each frontend
    #[arg(long, value_name = "BYTES")]
    fetch_bytes_per_second: Option<u64>,
    /// Requests that may fetch with it in a second, at each frontend
    #[arg(long, value_name = "N")]
    fetch_requests_per_second: Option<u64>,
}

impl Token {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let admin = global.client()?.admin();
        match self {
            Self::Create(Create { description, grants, expires_in, quotas }) => {
                let token = NewToken::new(grants).description(description).quotas(quotas.quotas());
                let token = match expires_in {
                    Some(time) => token.expires_in(time),
                    None => token,
                };
                let created = admin.create_token(&token).await?;
                out.show(&created, |created| format!("{}\n", created.token))?;
                say(&format!("token {} is made; it is not shown again", created.description.id));
            }
            Self::List => {
                let tokens = admin.tokens().await?;
                if out.is_json() {
                    tokens.iter().try_for_each(|token| out.json(token))?;
                } else {
                    let heading = ["id", "description", "grants", "created", "expires", "last used"];
                    let heading = heading.map(str::to_owned).to_vec();
                    let rows: Vec<_> = std::iter::once(heading).chain(tokens.iter().map(row)).collect();
                    out.bytes(table(&rows).as_bytes())?;
                }
            }
            Self::Alter(alter) => {
                let altered = admin.alter_token(&alter.token, &alter.change()?).await?;
                out.show(&altered, |token| table(&[row(token)]))?;
            }
            Self::Revoke(Revoke { token }) => {
                admin.revoke_token(&token).await?;
                let revoked = format!("{token} is refused everywhere within ten seconds\n");
                out.show(&json!({ "id": token }), |_| revoked)?;
            }
        }
        Ok(())
    }
}

impl Alter {
    fn change(&self) -> Result<AlterToken, Usage> {
        let mut change = AlterToken::default();
        let quotas = self.quotas.quotas();
        let sets_quotas = self.no_quotas || quotas != Quotas::default();
        let expires = self.never_expires || self.expires_in.is_some();
        if self.description.is_none() && self.grants.is_empty() && !expires && !sets_quotas {
            return Err(Usage("say what to change: see --help".to_owned()));
        }
        if let Some(description) = &self.description {
            change = change.description(description);
        }
        if !self.grants.is_empty() {
            change = change.grants(self.grants.iter().cloned());
        }
        if expires {
            change = change.expires_in(self.expires_in);
        }
        Ok(if sets_quotas { change.quotas(quotas) } else { change })
    }
}

impl QuotaArguments {
    fn quotas(&self) -> Quotas {
        Quotas {
            produce_bytes_per_second: self.produce_bytes_per_second,
            produce_requests_per_second: self.produce_requests_per_second,
            fetch_bytes_per_second: self.fetch_bytes_per_second,
            fetch_requests_per_second: self.fetch_requests_per_second,
        }
    }
}

fn row(token: &TokenDescription) -> Vec<String> {
    let TokenDescription { id, description, grants, created, expires, last_used, .. } = token;
    let grants: Vec<_> = grants.iter().map(Grant::to_string).collect();
    let time =
        |time: Option<carnax::Timestamp>, none: &str| time.map_or(none.to_owned(), |time| time.to_string());
    vec![
        id.to_string(),
        description.clone(),
        grants.join(" "),
        created.to_string(),
        time(*expires, "never"),
        time(*last_used, "never"),
    ]
}
