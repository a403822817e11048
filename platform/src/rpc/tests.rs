//! Goal: calls of every kind reach their handler and failures say whether the request may have been done.
//! Method: a real server on loopback, with handlers that answer, refuse and never answer.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{Call, Callers, StreamCall};
use carnax_core::problem::Problem;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{BidirectionalCall, CallError, Channel, ChannelSettings, Router, serve};
use crate::network::{Network, TcpNetwork};

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
struct Double(u64);
impl Call for Double {
    const NAME: &'static str = "Double";
    const CALLERS: Callers = Callers::All;
    type Reply = u64;
}

#[derive(Debug, Serialize, Deserialize)]
struct Never;
impl Call for Never {
    const NAME: &'static str = "Never";
    const CALLERS: Callers = Callers::All;
    type Reply = ();
}

#[derive(Debug, Serialize, Deserialize)]
struct Missing;
impl Call for Missing {
    const NAME: &'static str = "Missing";
    const CALLERS: Callers = Callers::All;
    type Reply = ();
}

#[derive(Debug, Serialize, Deserialize)]
struct CountTo(u64);
impl StreamCall for CountTo {
    const NAME: &'static str = "CountTo";
    const CALLERS: Callers = Callers::All;
    type Item = u64;
}

struct Echo;
impl BidirectionalCall for Echo {
    const NAME: &'static str = "Echo";
    const CALLERS: Callers = Callers::All;
    type Request = String;
    type Reply = String;
}

async fn double(request: Double) -> Result<u64, Problem> {
    let too_large =
        || Problem::new(ErrorCode::TooLarge, "number is too large").with(|facts| facts.limit = Some(10));
    (request.0 <= 10).then_some(request.0 * 2).ok_or_else(too_large)
}

fn router() -> Router {
    Router::new()
        .unary(double)
        .unary(|_: Never| std::future::pending())
        .server_stream(|request: CountTo| async move {
            let end = Problem::new(ErrorCode::Draining, "server is going");
            Ok(futures::stream::iter((0..request.0).map(Ok).chain([Err(end)])).boxed())
        })
        .bidirectional::<Echo, _, _>(|requests| async move { Ok(requests) })
}

async fn start() -> (Channel, oneshot::Sender<()>, tokio::task::JoinHandle<std::io::Result<()>>) {
    let listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, router(), async {
        let _ = stopped.await;
    }));
    (Channel::new(Arc::new(TcpNetwork), &address, &ChannelSettings::default()).unwrap(), stop, server)
}

#[tokio::test]
async fn every_kind_of_call_reaches_its_handler() {
    let (channel, stop, server) = start().await;
    assert_eq!(channel.call(Double(4), DEADLINE).await.unwrap(), 8);

    let counted: Vec<_> = channel.stream(CountTo(3), DEADLINE).await.unwrap().collect().await;
    let numbers: Vec<u64> = counted.iter().filter_map(|item| item.as_ref().ok().copied()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert!(
        matches!(counted.last(), Some(Err(CallError::Refused(problem))) if problem.code == ErrorCode::Draining)
    );

    let words = futures::stream::iter(["a", "b", "c"].map(str::to_owned));
    let echoes: Vec<String> =
        channel.bidirectional::<Echo>(words, DEADLINE).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(echoes, ["a", "b", "c"]);

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failure_says_whether_the_request_may_have_been_done() {
    let (channel, stop, server) = start().await;
    let refused = channel.call(Double(11), DEADLINE).await.unwrap_err();
    assert!(matches!(&refused, CallError::Refused(problem) if problem.facts.limit == Some(10)), "{refused}");
    assert_eq!(refused.code(), ErrorCode::TooLarge);

    let late = channel.call(Never, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::OutcomeUnknown, "{late}");
    let missing = channel.call(Missing, DEADLINE).await.unwrap_err();
    assert_eq!(missing.code(), ErrorCode::RouteNotFound, "a server of another version");
    assert!(missing.to_string().contains("Missing"), "{missing}");

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    let gone = channel.call(Double(1), DEADLINE).await.unwrap_err();
    assert!(matches!(gone, CallError::NotSent { .. }), "{gone:?}");
    assert_eq!(gone.code(), ErrorCode::Unavailable);
}
