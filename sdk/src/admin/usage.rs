//! What was used, and what it costs.

use carnax_core::http::UsageResponse;
use carnax_core::metadata::UsageMonth;
use http::Method;

use super::Admin;
use crate::error::RequestError;
use crate::transport::ApiRequest;

impl Admin {
    /// What was used in a month and what it costs, with every topic and token. Requests to the object store are exact in
    /// sum; what falls to a topic or token is an estimate.
    ///
    /// Frontends that did not answer this call report what they used every ten seconds.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn usage(&self, month: UsageMonth) -> Result<UsageResponse, RequestError> {
        let month = match month {
            UsageMonth::This => "this",
            UsageMonth::Last => "last",
        };
        let mut all: Option<UsageResponse> = None;
        let mut after = String::new();
        loop {
            let request = ApiRequest::new(Method::GET, format!("/v1/usage?month={month}{after}"));
            let mut page: UsageResponse = self.send(&request, true).await?.json()?;
            let (topic, token) = (page.next_after_topic.take(), page.next_after_token.take());
            let all = all.get_or_insert_with(|| {
                let (topics, tokens) = Default::default();
                UsageResponse { topics, tokens, ..page.clone() }
            });
            all.topics.append(&mut page.topics);
            all.tokens.append(&mut page.tokens);
            if topic.is_none() && token.is_none() {
                return Ok(all.clone());
            }
            // What has ended goes on behind its last row: there is nothing more.
            let topic = topic.or(all.topics.last().map(|topic| topic.topic_id));
            let token = token.or(all.tokens.last().map(|token| token.token.clone()));
            let topic = topic.map_or(String::new(), |topic| format!("&after_topic={topic}"));
            let token = token.map_or(String::new(), |token| format!("&after_token={token}"));
            after = topic + &token;
        }
    }
}
