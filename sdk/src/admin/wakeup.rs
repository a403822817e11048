//! Wake-ups: queues that are told when a topic grows.

use std::time::Duration;

use carnax_core::http::{PutWakeupRequest, WakeupsResponse};
use carnax_core::metadata::WakeupDescription;
use carnax_core::name::WakeupName;
use http::Method;

use super::{Admin, request};
use crate::error::RequestError;

/// Wake-ups of topics.
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), carnax::RequestError> {
/// let queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/count";
/// client.admin().put_wakeup("flights", "count", queue, None).await?;
/// for wakeup in client.admin().wakeups("flights").await? {
///     println!("{} has {} records to be told of", wakeup.name, wakeup.pending_records);
/// }
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// Tells an SQS queue, by its URL, about commits to a topic from now on, at least once each. Commits within `window` (none:
    /// 100 ms; at most a minute) share an event. A wake-up that exists is changed, and goes on where it was.
    ///
    /// # Errors
    /// `topic_not_found`; `invalid_value` for what is no URL, a longer window, or more wake-ups than a topic may have; any
    /// other [`RequestError`].
    pub async fn put_wakeup(
        &self,
        topic: &str,
        wakeup: &str,
        queue: &str,
        window: Option<Duration>,
    ) -> Result<WakeupDescription, RequestError> {
        let window_ms = window.map(|window| u32::try_from(window.as_millis()).unwrap_or(u32::MAX));
        let document = PutWakeupRequest { queue: queue.to_owned(), window_ms };
        let request = request(Method::PUT, topic, &path(wakeup)?)?.json(&document)?;
        self.send(&request, true).await?.json()
    }

    /// The wake-ups of a topic, in the order of their names, with what is still to be told.
    ///
    /// # Errors
    /// `topic_not_found`; any other [`RequestError`].
    pub async fn wakeups(&self, topic: &str) -> Result<Vec<WakeupDescription>, RequestError> {
        let answer = self.send(&request(Method::GET, topic, "/wakeups")?, true).await?;
        Ok(answer.json::<WakeupsResponse>()?.wakeups)
    }

    /// Ends a wake-up. Not repeated when the outcome is unknown: the repeat would be refused although this request ended it.
    ///
    /// # Errors
    /// `topic_not_found`, `wakeup_not_found`; any other [`RequestError`].
    pub async fn delete_wakeup(&self, topic: &str, wakeup: &str) -> Result<(), RequestError> {
        self.send(&request(Method::DELETE, topic, &path(wakeup)?)?, false).await.map(drop)
    }
}

fn path(wakeup: &str) -> Result<String, RequestError> {
    let name: WakeupName = wakeup.parse().map_err(RequestError::invalid)?;
    Ok(format!("/wakeups/{name}"))
}
