//! From a URL to a queue.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;

use crate::error::{Call, Failure, QueueError};
use crate::memory::MemoryQueue;
use crate::queue::{MessageQueue, QueueFuture};
use crate::sqs::{SqsQueue, SqsSettings};

/// Queues that are kept open; beyond that, all are opened anew.
const OPEN_MAX: usize = 1_000;

/// Reaches queues that are known by their URLs only when they are needed.
pub trait Queues: fmt::Debug + Send + Sync {
    /// The queue with a URL. Whether it exists and lets us in shows at the first call.
    fn open<'a>(&'a self, url: &'a str) -> QueueFuture<'a, Arc<dyn MessageQueue>>;
}

/// Queues of this process, by any URL that they were put under: for tests.
#[derive(Debug, Default)]
pub struct MemoryQueues {
    by_url: BTreeMap<String, Arc<MemoryQueue>>,
}

impl MemoryQueues {
    /// Puts a queue under a URL.
    #[must_use]
    pub fn with(mut self, url: &str, queue: Arc<MemoryQueue>) -> Self {
        self.by_url.insert(url.to_owned(), queue);
        self
    }
}

impl Queues for MemoryQueues {
    fn open<'a>(&'a self, url: &'a str) -> QueueFuture<'a, Arc<dyn MessageQueue>> {
        let absent =
            || Failure::Misconfigured { said: "there is no such queue".to_owned() }.on(url, Call::Open);
        let queue = self.by_url.get(url).map(|queue| Arc::clone(queue) as Arc<dyn MessageQueue>);
        std::future::ready(queue.ok_or_else(absent)).boxed()
    }
}

/// Queues of Amazon SQS; each is opened at the first use, and then shared.
#[derive(Debug, Default)]
pub struct SqsQueues {
    settings: SqsSettings,
    open: Mutex<BTreeMap<String, Arc<SqsQueue>>>,
}

impl SqsQueues {
    /// Queues to be reached in one way.
    pub fn new(settings: SqsSettings) -> Self {
        Self { settings, open: Mutex::default() }
    }

    async fn opened(&self, url: &str) -> Result<Arc<dyn MessageQueue>, QueueError> {
        if let Some(queue) = self.known().get(url) {
            return Ok(Arc::clone(queue) as _);
        }
        let queue = Arc::new(SqsQueue::open(url, &self.settings).await?);
        let mut known = self.known();
        if known.len() >= OPEN_MAX {
            known.clear();
        }
        // Two may have opened it at once: the first one stays.
        Ok(Arc::clone(known.entry(url.to_owned()).or_insert(queue)) as _)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<SqsQueue>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues for SqsQueues {
    fn open<'a>(&'a self, url: &'a str) -> QueueFuture<'a, Arc<dyn MessageQueue>> {
        self.opened(url).boxed()
    }
}
