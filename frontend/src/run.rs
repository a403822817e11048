//! Puts a frontend together, serves, and takes it apart again in order.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carnax_object_store::ObjectStore;
use carnax_platform::clock::Clock;
use carnax_platform::entropy::Entropy;
use carnax_platform::network::Network;
use carnax_platform::tls::TlsError;
use carnax_queue::Queues;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::access::{Access, Rule};
use crate::append::{Accept, AppendContext, run_line, submissions};
use crate::config::{Role, Settings};
use crate::fetch::Fetch;
use crate::fetch::cache::ReadCache;
use crate::fetch::pages::PageCache;
use crate::http::body::DOCUMENT_MEMORY_BYTES;
use crate::http::server::Server;
use crate::http::{Api, router};
use crate::ingest::{Ingest, IngestRules, Pollers, url_of};
use crate::maintenance::{Maintenance, Worker};
use crate::metadata_client::MetadataClient;
use crate::metadata_client::feed::CommitFeed;
use crate::metadata_client::topics::Topics;
use crate::metrics::Metrics;
use crate::quota::QuotaKeeper;
use crate::tls::Tls;
use crate::usage::Usage;

/// How long the append line may take, once nobody waits for its answers any more.
const LINE_GRACE: Duration = Duration::from_secs(5);
/// How long the last report of usage may take.
const LAST_REPORT: Duration = Duration::from_secs(2);

/// The outside world of a frontend.
#[derive(Clone)]
pub struct Components {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Connects to metadata nodes, and listens.
    pub network: Arc<dyn Network>,
    /// Keeps segments.
    pub object_store: Arc<dyn ObjectStore>,
    /// Reaches queues.
    pub queues: Arc<dyn Queues>,
}

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Components").field("object_store", &self.object_store).finish_non_exhaustive()
    }
}

/// Why a frontend cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The largest request would never find enough memory.
    #[error("appends need memory for twice the largest request body, {least} bytes, and may take {bytes}")]
    AppendMemory {
        /// What appends may take.
        bytes: u64,
        /// What they need.
        least: u64,
    },
    /// A queue that is to be polled is not named right.
    #[error("queue {queue:?} of the ingest rules cannot be polled: {reason}")]
    Queue {
        /// How it is named.
        queue: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Everybody could do everything from everywhere, and nobody said so.
    #[error(
        "{listen} is reached from other machines, and access is open: use --access tokens, listen on 127.0.0.1, or say --access open-to-the-network"
    )]
    OpenAccess {
        /// The address.
        listen: String,
    },
    /// The addresses of the metadata nodes are no addresses.
    #[error("metadata nodes are not named right")]
    Metadata(#[source] io::Error),
    /// Certificates cannot be used, or are missing.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address to listen on cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs a frontend until `shutdown` resolves, and then until everything that was accepted is answered, at most for the
/// time that the settings give.
///
/// `listening` is called once with the real address as soon as connections are accepted. Dropping the future cuts
/// everything short: appends in progress have an unknown outcome then, and tasks end on their own.
///
/// # Errors
/// See [`RunError`]; after `listening` was called there are none.
pub async fn run(
    settings: Settings,
    components: Components,
    listening: impl FnOnce(SocketAddr) + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    check(&settings)?;
    let listen_error = |source| RunError::Listen { address: settings.listen.clone(), source };
    let listener = components.network.listen(&settings.listen).await.map_err(listen_error)?;
    let address = listener.local_address().map_err(listen_error)?;
    let frontend = Frontend::new(&settings, components, &address.to_string())?;
    tracing::info!(%address, object_store = %settings.object_store, "frontend serves");
    let server = tokio::spawn(frontend.server().serve(frontend.tls.listener(listener)));
    let worker = tokio::spawn(frontend.maintain());
    let reporter = tokio::spawn(Arc::clone(&frontend.api.usage).run(frontend.closing.clone()));
    let pollers = Pollers::start(&frontend);
    listening(address);
    shutdown.await;
    tracing::info!(%address, "frontend drains");
    pollers.finish(settings.http.drain).await;
    frontend.finish_appends().await;
    frontend.closing.cancel();
    ended("server", server.await);
    ended("maintenance", worker.await);
    ended("usage", reporter.await);
    frontend.drain().await;
    tracing::info!(%address, "frontend has ended");
    Ok(())
}

fn check(settings: &Settings) -> Result<Rule, RunError> {
    let (bytes, least) = (settings.append.append_memory_bytes, settings.append_memory_bytes_min());
    if bytes < least {
        return Err(RunError::AppendMemory { bytes, least });
    }
    let polled = settings.ingest.iter().flat_map(IngestRules::queues);
    for arn in polled {
        url_of(arn).map_err(|reason| RunError::Queue { queue: arn.to_owned(), reason })?;
    }
    settings.access_rule().ok_or_else(|| RunError::OpenAccess { listen: settings.listen.clone() })
}

/// A frontend that is put together, without a port of its own: whoever embeds it hands requests to its
/// [`router`](Self::router). Dropping it ends its background tasks; what was not answered then has an unknown outcome.
pub struct Frontend {
    settings: Settings,
    name: String,
    components: Components,
    api: Arc<Api>,
    commits: Arc<CommitFeed>,
    connections: TaskTracker,
    line: JoinHandle<()>,
    feed: JoinHandle<()>,
    tls: Tls,
    uploads: TaskTracker,
    appends: TaskTracker,
    draining: CancellationToken,
    closing: CancellationToken,
    cut: CancellationToken,
    /// Ends everything when the frontend is dropped before it has drained.
    _guards: [DropGuard; 3],
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frontend").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Frontend {
    /// Puts a frontend together, in a tokio runtime, and asks nobody anything yet. `name` is what the metadata core shows of
    /// it.
    ///
    /// # Errors
    /// `AppendMemory`, `OpenAccess`, `Tls`, `Metadata`.
    pub fn new(settings: &Settings, components: Components, name: &str) -> Result<Self, RunError> {
        let rule = check(settings)?;
        let Components { clock, entropy, network, object_store, .. } = components.clone();
        let tls = Tls::open(settings, &clock)?;
        let client = metadata_client(settings, tls.network(network))?;
        let metrics = Arc::new(Metrics::new());
        let usage = Arc::new(Usage::new(Arc::clone(&client), Arc::clone(&object_store), &*entropy));
        let [draining, closing, cut] = [(); 3].map(|()| CancellationToken::new());
        let cache = ReadCache::new(Arc::clone(&object_store), &settings.fetch, Arc::clone(&metrics));
        let topics = Topics::new(Arc::clone(&client), Arc::clone(&clock), settings.calls.topic_cache);
        let (cache, topics) = (Arc::new(cache), Arc::new(topics));
        let [uploads, appends, connections] = [(); 3].map(|()| TaskTracker::new());
        let context = Arc::new(AppendContext {
            settings: settings.append.clone(),
            try_timeout: settings.calls.try_timeout,
            bugs: settings.deliberate_bugs,
            name: name.to_owned(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            object_store: Arc::clone(&object_store),
            client: Arc::clone(&client),
            cache: Arc::clone(&cache),
            metrics: Arc::clone(&metrics),
            usage: Arc::clone(&usage),
            quotas: Arc::new(QuotaKeeper::new(Arc::clone(&clock), Arc::clone(&metrics))),
            tasks: uploads.clone(),
            in_progress: appends.clone(),
            draining: draining.clone(),
        });
        let feed = Arc::new(CommitFeed::default());
        let fetch = fetch(settings, &context, (Arc::clone(&topics), Arc::clone(&feed), cache));
        let (sender, receiver) = submissions();
        let accept =
            Accept { context: Arc::clone(&context), topics: Arc::clone(&topics), submissions: sender };
        let line = tokio::spawn(run_line(context, receiver));
        let commits = Arc::clone(&feed);
        let feed = tokio::spawn(watch(settings.watch_while_waited, Arc::clone(&client), feed, cut.clone()));
        let api = Arc::new(Api {
            settings: settings.clone(),
            access: access(rule, &accept.context),
            accept,
            fetch: Arc::new(fetch),
            client,
            topics,
            metrics,
            usage,
            clock,
            entropy,
            append_memory: memory(settings.append.append_memory_bytes),
            document_memory: memory(DOCUMENT_MEMORY_BYTES),
            draining: draining.clone(),
        });
        connections.spawn(tls.clone().tend(Arc::clone(&api.metrics), closing.clone()));
        let _guards = [&draining, &closing, &cut].map(|token| token.clone().drop_guard());
        Ok(Self {
            settings: settings.clone(),
            name: name.to_owned(),
            components,
            api,
            commits,
            connections,
            line,
            feed,
            tls,
            uploads,
            appends,
            draining,
            closing,
            cut,
            _guards,
        })
    }

    /// Answers every request of the API.
    pub fn router(&self) -> axum::Router {
        router(Arc::clone(&self.api))
    }

    /// Turns the messages of queues into records, by rules that say which queue belongs to which topic.
    pub fn ingest(&self, rules: IngestRules) -> Ingest {
        Ingest::new(Arc::clone(&self.api), rules, Arc::clone(&self.components.queues))
    }

    /// Does maintenance jobs, whatever the roles say.
    pub fn maintenance(&self) -> Maintenance {
        Maintenance {
            client: Arc::clone(&self.api.client),
            object_store: Arc::clone(&self.components.object_store),
            metrics: Arc::clone(&self.api.metrics),
            entropy: Arc::clone(&self.api.entropy),
            pace: Arc::default(),
            bugs: self.settings.deliberate_bugs,
            name: format!("{} {:016x}", self.name, self.api.entropy.next_u64()),
        }
    }

    /// What is polled.
    pub(crate) fn polled(&self) -> Option<(&IngestRules, &Arc<dyn Queues>)> {
        Some((self.settings.ingest.as_ref()?, &self.components.queues))
    }

    /// Maintains the log until the frontend drains, if that is its role.
    fn maintain(&self) -> impl Future<Output = ()> + Send + 'static {
        let worker = self.settings.roles.contains(&Role::Maintain).then(|| Worker {
            maintenance: self.maintenance(),
            entropy: Arc::clone(&self.api.entropy),
            queue: self.settings.maintenance_queue.clone(),
            queues: Arc::clone(&self.components.queues),
        });
        let stop = self.draining.clone();
        async move {
            if let Some(worker) = worker {
                worker.run(stop).await;
            }
        }
    }

    /// Waits until no append is in progress and, where commits are watched only
    /// [while somebody waits](Settings::watch_while_waited), nobody watches: until then the process should not stand still.
    pub async fn quiet(&self) {
        // Both go on taking what comes after they are closed.
        self.appends.close();
        self.appends.wait().await;
        self.uploads.close();
        self.uploads.wait().await;
        self.commits.closed().await;
        self.api.usage.report_if_due().await;
    }

    fn server(&self) -> Server {
        Server {
            router: self.router(),
            settings: self.settings.http.clone(),
            metrics: Arc::clone(&self.api.metrics),
            tasks: self.connections.clone(),
            closing: self.closing.clone(),
            cut: self.cut.clone(),
        }
    }

    /// Takes nothing new, and goes on serving until the appends that were taken are answered: meanwhile `/readyz` says why.
    async fn finish_appends(&self) {
        self.draining.cancel();
        self.appends.close();
        if tokio::time::timeout(self.settings.http.drain, self.appends.wait()).await.is_err() {
            tracing::warn!(appends = self.appends.len(), "appends are in progress after the drain time");
        }
    }

    /// Lets requests in progress end, then everything behind them.
    async fn drain(self) {
        let Self { settings, api, connections, line, feed, uploads, cut, .. } = self;
        connections.close();
        let end = Instant::now() + settings.http.drain;
        if tokio::time::timeout_at(end, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections are cut after the drain time");
        }
        cut.cancel();
        connections.wait().await;
        if tokio::time::timeout(LAST_REPORT, api.usage.report_or_wait()).await.is_err() {
            tracing::warn!("what was used since the last report is not reported");
        }
        ended("commit feed", feed.await);
        // With the connections, all who submit are gone but this one: the line ends when it has finished what it took.
        drop(api);
        let abort = line.abort_handle();
        match tokio::time::timeout_at(end.max(Instant::now() + LINE_GRACE), line).await {
            Ok(result) => ended("append line", result),
            Err(_) => {
                tracing::warn!("appends in progress are given up after the drain time");
                abort.abort();
            }
        }
        uploads.close();
        uploads.wait().await;
    }
}

fn metadata_client(settings: &Settings, network: Arc<dyn Network>) -> Result<Arc<MetadataClient>, RunError> {
    let client = MetadataClient::new(network, &settings.metadata, settings.calls.clone());
    client.map(Arc::new).map_err(RunError::Metadata)
}

async fn watch(
    while_waited: bool,
    client: Arc<MetadataClient>,
    commits: Arc<CommitFeed>,
    stop: CancellationToken,
) {
    if while_waited {
        commits.follow_while_waited(&client, &stop).await;
    } else {
        commits.follow(&client, &stop).await;
    }
}

fn ended(task: &str, result: Result<(), JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, task, "a task failed");
    }
}

fn access(rule: Rule, context: &AppendContext) -> Access {
    let AppendContext { client, clock, quotas, metrics, .. } = context;
    Access::new(rule, Arc::clone(client), Arc::clone(clock), Arc::clone(quotas), Arc::clone(metrics))
}

fn fetch(
    settings: &Settings,
    context: &AppendContext,
    (topics, feed, cache): (Arc<Topics>, Arc<CommitFeed>, Arc<ReadCache>),
) -> Fetch {
    Fetch {
        settings: settings.fetch.clone(),
        bugs: settings.deliberate_bugs,
        client: Arc::clone(&context.client),
        topics,
        feed,
        cache,
        pages: PageCache::new(Arc::clone(&context.object_store), settings.fetch.read_deadline),
        memory: memory(settings.fetch.fetch_memory_bytes),
        metrics: Arc::clone(&context.metrics),
        usage: Arc::clone(&context.usage),
        quotas: Arc::clone(&context.quotas),
        draining: context.draining.clone(),
        footers: Default::default(),
        old_plans: Default::default(),
    }
}

fn memory(bytes: u64) -> Arc<Semaphore> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)))
}
