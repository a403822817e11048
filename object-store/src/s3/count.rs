//! Counts the requests of the S3 client at the last place before the wire, so that every retry counts, and nothing that asks
//! for credentials.

use std::error::Error;
use std::sync::Arc;

use aws_sdk_s3::config::{RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;

use crate::requests::RequestCounter;
use crate::store::Verb;

/// A client whose requests are counted.
#[derive(Debug)]
pub(super) struct CountingClient {
    pub(super) inner: SharedHttpClient,
    pub(super) counter: Arc<RequestCounter>,
}

#[derive(Debug)]
struct CountingConnector {
    inner: SharedHttpConnector,
    counter: Arc<RequestCounter>,
}

impl HttpClient for CountingClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(CountingConnector { inner, counter: Arc::clone(&self.counter) })
    }
}

impl HttpConnector for CountingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sent = Sent { counter: Arc::clone(&self.counter), verb: verb(request.method(), request.uri()) };
        let answer = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            match &answer {
                Err(error) if never_left(error) => sent.forget(),
                _ => drop(sent),
            }
            answer
        })
    }
}

/// A request that counts when its answer is there, or when nobody waits for it any longer.
struct Sent {
    counter: Arc<RequestCounter>,
    verb: Option<Verb>,
}

impl Sent {
    fn forget(mut self) {
        self.verb = None;
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(verb) = self.verb {
            self.counter.count(verb);
        }
    }
}

/// Which verb a request belongs to; all that write count alike.
fn verb(method: &str, uri: &str) -> Option<Verb> {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    match method {
        "PUT" => Some(Verb::PutIfAbsent),
        "GET" if query.split('&').any(|part| part == "list-type=2") => Some(Verb::List),
        "GET" => Some(Verb::Get),
        "HEAD" => Some(Verb::Head),
        "POST" | "DELETE" => Some(Verb::DeleteMany),
        _ => None,
    }
}

/// Whether there was no connection to send it on.
fn never_left(error: &ConnectorError) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_method_and_query() {
        let bucket = "http://h/b?list-type=2&prefix=a";
        for (method, uri, expected) in [
            ("PUT", "http://h/b/k?x-id=PutObject", Some(Verb::PutIfAbsent)),
            ("GET", "http://h/b/k?x-id=GetObject", Some(Verb::Get)),
            ("GET", "http://h/b/list-type=2", Some(Verb::Get)),
            ("GET", bucket, Some(Verb::List)),
            ("HEAD", "http://h/b/k", Some(Verb::Head)),
            ("POST", "http://h/b?delete", Some(Verb::DeleteMany)),
            ("OPTIONS", "http://h/b", None),
        ] {
            assert_eq!(verb(method, uri), expected, "{method} {uri}");
        }
    }
}
