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
    /// A new epoch has begun; `before` tells what became of the old one.
    To { epoch: u32, before: FencedEpochResponse },
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
    /// Always from the own epoch: an attempt that arrives late, when the new one is in use, must not end that.
    pub(super) async fn run(self) -> Raised {
        match self.raise().await {
            Ok(ProducerResponse { epoch, before: Some(before), .. }) if before.epoch == self.own => {
                Raised::To { epoch, before }
            }
            Ok(_) => {
                let reason = "answer to the raising of an epoch does not tell of the epoch before".to_owned();
                let endpoint = self.producer.to_string();
                Raised::Failed(RequestError::Answer { endpoint, status: 200, reason })
            }
            Err(error) if error.is(ErrorCode::Fenced) => Raised::Fenced(error),
            Err(error) => Raised::Failed(error),
        }
    }

    async fn raise(&self) -> Result<ProducerResponse, RequestError> {
        let operation = Operation {
            deadline: self.deadline,
            attempt_timeout: self.attempt_timeout,
            repeat_unknown: true,
            leave: None,
        };
        let request = raise_request(&self.producer, Some(self.own))?;
        self.client.execute(&request, operation).await?.json()
    }
}
