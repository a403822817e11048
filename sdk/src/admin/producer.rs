//! Who may write: producers and their epochs, and the fencing tokens of partitions.

use carnax_core::http::{FencingTokenResponse, ProducerResponse, RaiseEpochRequest, SetFencingTokenRequest};
use carnax_core::id::PartitionIndex;
use carnax_core::name::{FencingToken, ProducerId};
use http::Method;

use super::{Admin, request};
use crate::error::RequestError;
use crate::raw::percent_encoded;
use crate::transport::ApiRequest;

/// Producers and fencing tokens.
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), carnax::RequestError> {
/// use carnax::{PartitionIndex, Record};
///
/// let ledger = PartitionIndex(0);
/// client.admin().set_fencing_token("ledger", ledger, Some("writer-2")).await?;
/// // From here on, whatever carries another token is refused: this is where writing goes on.
/// let next = client.admin().fencing_token("ledger", ledger).await?.high_watermark;
/// let append = client.append().to_partition("ledger", ledger, Record::new("opened"));
/// append.fencing_token("ledger", ledger, "writer-2").expect_next_offset("ledger", ledger, next).send().await?;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// The fencing token of a partition, and one past its last committed offset.
    ///
    /// # Errors
    /// `topic_not_found`, `partition_not_found`; any other [`RequestError`].
    pub async fn fencing_token(
        &self,
        topic: &str,
        partition: PartitionIndex,
    ) -> Result<FencingTokenResponse, RequestError> {
        self.send(&request(Method::GET, topic, &path(partition))?, true).await?.json()
    }

    /// Sets the fencing token of a partition (none: takes it away), whatever it is now. Appends that carry another one are
    /// refused from then on; those that carry none are not looked at.
    ///
    /// # Errors
    /// `topic_not_found`, `partition_not_found`; any other [`RequestError`].
    pub async fn set_fencing_token(
        &self,
        topic: &str,
        partition: PartitionIndex,
        token: Option<&str>,
    ) -> Result<FencingTokenResponse, RequestError> {
        let document = SetFencingTokenRequest { token: parse(token)?, from: None };
        let request = request(Method::PUT, topic, &path(partition))?.json(&document)?;
        self.send(&request, true).await?.json()
    }

    /// Sets the fencing token of a partition if it is `from` now (none: if there is none).
    ///
    /// Not repeated when the outcome is unknown: the repeat would be refused although this request changed it.
    ///
    /// # Errors
    /// `condition_failed` if it is another one, with the [actual](RequestError::actual) token;
    /// `topic_not_found`, `partition_not_found`; any other [`RequestError`].
    pub async fn change_fencing_token(
        &self,
        topic: &str,
        partition: PartitionIndex,
        from: Option<&str>,
        token: Option<&str>,
    ) -> Result<FencingTokenResponse, RequestError> {
        let document = SetFencingTokenRequest { token: parse(token)?, from: Some(parse(from)?) };
        let request = request(Method::PUT, topic, &path(partition))?.json(&document)?;
        self.send(&request, false).await?.json()
    }

    /// A producer as it is now: its epoch, its last sequence, and what became of the epoch before.
    ///
    /// # Errors
    /// `unknown_producer` if nothing of it was accepted within the producer window; any other [`RequestError`].
    pub async fn describe_producer(&self, producer: &str) -> Result<ProducerResponse, RequestError> {
        let request = ApiRequest::new(Method::GET, producer_path(&parse_producer(producer)?, ""));
        self.send(&request, true).await?.json()
    }

    /// Raises the epoch of a producer, so that nothing of the epochs before can be accepted any more, and tells what was.
    ///
    /// `from` is the epoch that the caller has; then it may be repeated, and is, and gets the same answer. Without, it is
    /// whatever it is now, a producer that is not known becomes known with epoch 0, and a repeat (which is made when the
    /// outcome is unknown) raises it once more.
    ///
    /// # Errors
    /// `fenced` if the epoch is above `from`, with the [actual](RequestError::actual) one; any other [`RequestError`].
    pub async fn raise_producer_epoch(
        &self,
        producer: &str,
        from: Option<u32>,
    ) -> Result<ProducerResponse, RequestError> {
        self.send(&raise_request(&parse_producer(producer)?, from)?, true).await?.json()
    }
}

/// `POST /v1/producers/{producer}/epoch`.
pub(crate) fn raise_request(producer: &ProducerId, from: Option<u32>) -> Result<ApiRequest, RequestError> {
    ApiRequest::new(Method::POST, producer_path(producer, "/epoch")).json(&RaiseEpochRequest { from })
}

pub(crate) fn parse_producer(producer: &str) -> Result<ProducerId, RequestError> {
    producer.parse().map_err(RequestError::invalid)
}

fn producer_path(producer: &ProducerId, tail: &str) -> String {
    format!("/v1/producers/{}{tail}", percent_encoded(producer.as_str()))
}

fn path(partition: PartitionIndex) -> String {
    format!("/partitions/{partition}/fencing-token")
}

fn parse(token: Option<&str>) -> Result<Option<FencingToken>, RequestError> {
    token.map(|token| token.parse().map_err(RequestError::invalid)).transpose()
}
