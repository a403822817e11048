//! Serves calls.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{Call, Callers, StreamCall};
use carnax_core::problem::Problem;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use tonic::body::Body;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use super::codec::MessagePack;
use super::{BidirectionalCall, path, status};
use crate::network::{Connection, Listener, Peer};
use crate::tls::Roles;

/// Requests that one connection may have open.
const CONCURRENT_STREAMS_MAX: u32 = 4_096;
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a client sends on a bidirectional call; ends at the first message that cannot be read.
pub type RequestStream<T> = BoxStream<'static, Result<T, Problem>>;

type Handler = Arc<dyn Fn(http::Request<Body>) -> BoxFuture<'static, http::Response<Body>> + Send + Sync>;

/// Knows the handler of each call, and who may make it.
#[derive(Clone, Default)]
pub struct Router {
    handlers: BTreeMap<String, (Callers, Handler)>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.handlers.keys()).finish()
    }
}

impl Router {
    /// Knows no call.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a call with one answer. The handler is dropped half-way when the client's deadline passes or it hangs up.
    ///
    /// # Panics
    /// If the call has a handler already.
    #[must_use]
    pub fn unary<C, H, F>(self, handler: H) -> Self
    where
        C: Call,
        H: Fn(C) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<C::Reply, Problem>> + Send + 'static,
    {
        self.add(C::NAME, C::CALLERS, move |request| {
            let handler = handler.clone();
            let service = tower::service_fn(move |request: Request<C>| {
                let answer = handler(request.into_inner());
                async move { answer.await.map(Response::new).map_err(|problem| status::from_problem(&problem)) }
            });
            Box::pin(async move { grpc::<C::Reply, C>().unary(service, request).await })
        })
    }

    /// Adds a call with a stream of answers. The stream is dropped when the client hangs up.
    ///
    /// # Panics
    /// If the call has a handler already.
    #[must_use]
    pub fn server_stream<C, H, F>(self, handler: H) -> Self
    where
        C: StreamCall,
        H: Fn(C) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<BoxStream<'static, Result<C::Item, Problem>>, Problem>> + Send + 'static,
    {
        self.add(C::NAME, C::CALLERS, move |request| {
            let handler = handler.clone();
            let service =
                tower::service_fn(move |request: Request<C>| answer_stream(handler(request.into_inner())));
            Box::pin(async move { grpc::<C::Item, C>().server_streaming(service, request).await })
        })
    }

    /// Adds a call with streams in both directions.
    ///
    /// # Panics
    /// If the call has a handler already.
    #[must_use]
    pub fn bidirectional<C, H, F>(self, handler: H) -> Self
    where
        C: BidirectionalCall,
        H: Fn(RequestStream<C::Request>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<BoxStream<'static, Result<C::Reply, Problem>>, Problem>> + Send + 'static,
    {
        self.add(C::NAME, C::CALLERS, move |request| {
            let handler = handler.clone();
            let service = tower::service_fn(move |request: Request<tonic::Streaming<C::Request>>| {
                let messages =
                    request.into_inner().map(|message| message.map_err(|status| unreadable(&status)));
                answer_stream(handler(messages.boxed()))
            });
            Box::pin(async move { grpc::<C::Reply, C::Request>().streaming(service, request).await })
        })
    }

    /// This router and another one as one.
    ///
    /// # Panics
    /// If both know the same call.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for (path, handler) in other.handlers {
            assert!(self.handlers.insert(path.clone(), handler).is_none(), "{path} has one handler");
        }
        self
    }

    /// The path of each call, and who may make it.
    pub fn calls(&self) -> impl Iterator<Item = (&str, Callers)> {
        self.handlers.iter().map(|(path, (callers, _))| (path.as_str(), *callers))
    }

    fn add<H>(mut self, name: &str, callers: Callers, handler: H) -> Self
    where
        H: Fn(http::Request<Body>) -> BoxFuture<'static, http::Response<Body>> + Send + Sync + 'static,
    {
        assert!(
            self.handlers.insert(path(name), (callers, Arc::new(handler))).is_none(),
            "{name} has one handler"
        );
        self
    }
}

/// Serves until `shutdown` resolves, then lets calls in progress end.
///
/// Streams must be ended by their handlers; a caller that cannot wait drops this future, which cuts what is left.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(
    listener: Box<dyn Listener>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let connections = futures::stream::unfold(listener, |mut listener: Box<dyn Listener>| async move {
        let accepted = listener.accept().await.map(|(connection, _)| connection);
        if let Err(error) = &accepted {
            // Out of file descriptors, most likely: give connections a moment to end instead of spinning.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some((accepted, listener))
    });
    let connections = connections.filter(|accepted| futures::future::ready(accepted.is_ok())).boxed();
    tonic::transport::Server::builder()
        .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES * 2)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(Service(Arc::new(router)))
        .serve_with_incoming_shutdown(connections, shutdown)
        .await
        .map_err(io::Error::other)
}

fn grpc<E, D>() -> tonic::server::Grpc<MessagePack<E, D>>
where
    E: serde::Serialize + Send + 'static,
    D: serde::de::DeserializeOwned + Send + 'static,
{
    tonic::server::Grpc::new(MessagePack::new())
        .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::RPC_MESSAGE_BYTES_MAX)
}

async fn answer_stream<T: 'static>(
    answers: impl Future<Output = Result<BoxStream<'static, Result<T, Problem>>, Problem>>,
) -> Result<Response<BoxStream<'static, Result<T, Status>>>, Status> {
    let answers = answers.await.map_err(|problem| status::from_problem(&problem))?;
    Ok(Response::new(answers.map(|answer| answer.map_err(|problem| status::from_problem(&problem))).boxed()))
}

fn unreadable(status: &Status) -> Problem {
    Problem::new(ErrorCode::Malformed, format!("request stream broke: {}", status.message()))
}

#[derive(Clone)]
struct Service(Arc<Router>);

impl tonic::server::NamedService for Service {
    const NAME: &'static str = super::SERVICE;
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.0.handlers.get(request.uri().path()) {
            Some((callers, _)) if !may_call(*callers, &request) => {
                Box::pin(std::future::ready(Ok(refusal(*callers, &request).into_http())))
            }
            Some((_, handler)) => {
                let answer = handler(request);
                Box::pin(async move { Ok(answer.await) })
            }
            None => {
                let unknown = Status::unimplemented(format!("no call at {}", request.uri().path()));
                Box::pin(std::future::ready(Ok(unknown.into_http())))
            }
        }
    }
}

/// A request of which nobody knows where it came from is refused.
fn may_call(callers: Callers, request: &http::Request<Body>) -> bool {
    match request.extensions().get() {
        Some(Peer::Anyone) => true,
        Some(Peer::Member(Roles { node, frontend })) => callers.include(*node, *frontend),
        None => false,
    }
}

fn refusal(callers: Callers, request: &http::Request<Body>) -> Status {
    let (path, allowed) = (request.uri().path(), callers.as_str());
    let detail =
        format!("{path} may be called by {allowed} alone, and the caller's certificate is for another part");
    status::from_problem(&Problem::new(ErrorCode::Forbidden, detail))
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer()
    }
}
