//! Raises the epoch of a producer, and so learns what became of the one before.

use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::http::{FencedEpochResponse, ProducerResponse};
use carnax_core::name::ProducerId;
use tokio::time::Instant;

use crate::admin::raise_request;
use crate::client::Client;
use crate::error::RequestError;
use crate::retry::Operation;

/// How the raising of an epoch ended.
pub(super) enum Raised {
    /// A new epoch has begun; `before` tells what became of the old one, if the server knows.
    To { epoch: u32, before: Option<FencedEpochResponse> },
    /// Another producer has raised it.
    Fenced(RequestError),
    /// It may be tried again.
    Failed(RequestError),
}

/// Where a producer stands, and how long it may take to raise its epoch.
pub(super) struct Raise {
    pub(super) client: Client,
    pub(super) producer: ProducerId,
    /// The epoch that the producer has.
    pub(super) own: u32,
    pub(super) deadline: Instant,
    pub(super) attempt_timeout: Duration,
}

impl Raise {
    pub(super) async fn run(self) -> Raised {
        match self.raise_from(Some(self.own)).await {
            Ok(now) => self.judge(now),
            Err(error) if error.is(ErrorCode::UnknownProducer) => self.introduce().await,
            Err(error) => failed(error),
        }
    }

    /// The server does not know the producer: nothing of it was ever accepted, or that was forgotten. What may still be
    /// under way must be shut out all the same, and only the epoch of a known producer can be raised.
    async fn introduce(&self) -> Raised {
        match self.raise_from(None).await {
            // All that is under way has an epoch below the next one.
            Ok(now) if now.epoch < self.own => Raised::To { epoch: self.own.saturating_add(1), before: None },
            // The call was made twice, since its first answer was lost.
            Ok(now) if is_before(&now, self.own) => self.judge(now),
            Ok(_) => match self.raise_from(Some(self.own)).await {
                Ok(now) => self.judge(now),
                Err(error) => failed(error),
            },
            Err(error) => failed(error),
        }
    }

    fn judge(&self, now: ProducerResponse) -> Raised {
        let told = is_before(&now, self.own);
        Raised::To { epoch: now.epoch, before: now.before.filter(|_| told) }
    }

    async fn raise_from(&self, from: Option<u32>) -> Result<ProducerResponse, RequestError> {
        let operation = Operation {
            deadline: self.deadline,
            attempt_timeout: self.attempt_timeout,
            repeat_unknown: true,
            leave: None,
        };
        self.client.execute(&raise_request(&self.producer, from)?, operation).await?.json()
    }
}

fn is_before(now: &ProducerResponse, own: u32) -> bool {
    now.before.as_ref().is_some_and(|before| before.epoch == own)
}

fn failed(error: RequestError) -> Raised {
    if error.is(ErrorCode::Fenced) { Raised::Fenced(error) } else { Raised::Failed(error) }
}
