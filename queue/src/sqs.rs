//! A queue of Amazon SQS, or of a server that speaks its protocol.

mod connect;
mod convert;
mod judge;

use std::error::Error;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::MessageSystemAttributeName;
use futures::FutureExt;

use crate::error::{Call, Failure, QueueError};
use crate::limits;
use crate::message::{OutgoingMessage, Receipt, Receive, ReceivedMessage, Sent};
use crate::queue::{MessageQueue, QueueFuture};

pub use connect::SqsSettings;

/// A queue by its URL. Each call is one request; connections are opened when one is needed.
///
/// Requests go to the endpoint that `AWS_ENDPOINT_URL_SQS` or `AWS_ENDPOINT_URL` names, else to Amazon's of the region; the
/// region is that of the URL if it is one of Amazon's, else that of the environment. Credentials are found by the SDK's chain,
/// at the first call.
#[derive(Debug)]
pub struct SqsQueue {
    url: String,
    client: Client,
    try_time: Duration,
}

impl SqsQueue {
    /// Opens a queue by its URL (`https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`). Nothing is asked of it.
    ///
    /// # Errors
    /// If the URL does not end in a queue's name.
    pub async fn open(url: &str, settings: &SqsSettings) -> Result<Self, QueueError> {
        connect::check_url(url).map_err(|failure| failure.on(url, Call::Open))?;
        let client = connect::client(url, settings).await;
        Ok(Self { url: url.to_owned(), client, try_time: settings.try_time })
    }

    async fn send_batch(&self, messages: &[OutgoingMessage]) -> Result<Vec<Result<Sent, Failure>>, Failure> {
        limits::check_send(messages, limits::is_fifo(&self.url))?;
        let entries = messages.iter().map(convert::outgoing).collect();
        let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = within(self.try_time, request.send()).await?;
        let taken = answer.successful().iter().map(|entry| (entry.id(), convert::sent(entry)));
        let ids = messages.iter().map(|message| message.id.as_str());
        Ok(convert::in_order(ids, taken, answer.failed()))
    }

    async fn receive_some(&self, request: Receive) -> Result<Vec<ReceivedMessage>, Failure> {
        limits::check_receive(request)?;
        let asked = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .max_number_of_messages(convert::count(request.messages_max))
            .visibility_timeout(convert::seconds(request.visibility))
            .wait_time_seconds(convert::seconds(request.wait));
        // The answer comes when the wait is over, and then it has as long as any other.
        let limit = Duration::from_secs(limits::whole_seconds(request.wait)) + self.try_time;
        let answer = within(limit, asked.send()).await?;
        answer.messages.unwrap_or_default().into_iter().map(convert::received).collect()
    }

    async fn delete_batch(&self, receipts: &[Receipt]) -> Result<Vec<Result<(), Failure>>, Failure> {
        limits::check_receipts(receipts.iter())?;
        let entries = receipts.iter().enumerate().map(convert::deletion).collect();
        let request = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = within(self.try_time, request.send()).await?;
        let done = answer.successful().iter().map(|entry| (entry.id(), Ok(())));
        let ids = convert::entry_ids(receipts.len());
        Ok(convert::in_order(ids.iter().map(String::as_str), done, answer.failed()))
    }

    async fn extend_batch(
        &self,
        extensions: &[(Receipt, Duration)],
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        limits::check_extensions(extensions)?;
        let entries = extensions.iter().enumerate().map(convert::extension).collect();
        let request =
            self.client.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = within(self.try_time, request.send()).await?;
        let done = answer.successful().iter().map(|entry| (entry.id(), Ok(())));
        let ids = convert::entry_ids(extensions.len());
        Ok(convert::in_order(ids.iter().map(String::as_str), done, answer.failed()))
    }

    fn name_entries<T>(
        &self,
        call: Call,
        answer: Result<Vec<Result<T, Failure>>, Failure>,
    ) -> Result<Vec<Result<T, QueueError>>, QueueError> {
        let entries = answer.map_err(|failure| failure.on(&self.url, call))?;
        let named = entries.into_iter().map(|entry| entry.map_err(|failure| failure.on(&self.url, call)));
        Ok(named.collect())
    }
}

/// Sends one request and judges how it ended.
async fn within<T, E>(
    limit: Duration,
    request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, Failure>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(|error| judge::request(&error)),
        Err(_) => Err(Failure::outcome_unknown(format!("no answer within {limit:?}"))),
    }
}

impl MessageQueue for SqsQueue {
    fn name(&self) -> &str {
        &self.url
    }

    fn send<'a>(&'a self, messages: &'a [OutgoingMessage]) -> QueueFuture<'a, Vec<Result<Sent, QueueError>>> {
        self.send_batch(messages).map(|answer| self.name_entries(Call::Send, answer)).boxed()
    }

    fn receive(&self, request: Receive) -> QueueFuture<'_, Vec<ReceivedMessage>> {
        let named =
            |answer: Result<_, Failure>| answer.map_err(|failure| failure.on(&self.url, Call::Receive));
        self.receive_some(request).map(named).boxed()
    }

    fn delete<'a>(&'a self, receipts: &'a [Receipt]) -> QueueFuture<'a, Vec<Result<(), QueueError>>> {
        self.delete_batch(receipts).map(|answer| self.name_entries(Call::Delete, answer)).boxed()
    }

    fn extend<'a>(
        &'a self,
        extensions: &'a [(Receipt, Duration)],
    ) -> QueueFuture<'a, Vec<Result<(), QueueError>>> {
        self.extend_batch(extensions).map(|answer| self.name_entries(Call::Extend, answer)).boxed()
    }
}
