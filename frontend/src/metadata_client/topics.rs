//! What is known of topics, so that an append does not ask the metadata core where its records go.
//!
//! May be old: the state machine refuses what was routed by it, and then it is asked anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::id::TopicId;
use carnax_core::limits;
use carnax_core::metadata::{DescribeTopic, TopicDescription, TopicRef};
use carnax_core::problem::Problem;
use carnax_core::quota::Quotas;
use carnax_core::topic::{TimestampType, TopicConfig, TopicName};
use carnax_platform::clock::Clock;

use super::MetadataClient;

/// Topics that are remembered; beyond that, all are forgotten.
const TOPICS_MAX: usize = 10_000;

/// A topic as far as routing needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: TopicName,
    pub(crate) partition_count: u32,
    pub(crate) message_bytes_max: usize,
    pub(crate) log_append_time: bool,
    /// Whether only the newest record of each key is kept, so that every record needs one.
    pub(crate) compacted: bool,
    /// What all clients together may do in a second at this frontend.
    pub(crate) quotas: Quotas,
}

/// Remembers topics by name.
#[derive(Debug)]
pub(crate) struct Topics {
    client: Arc<MetadataClient>,
    clock: Arc<dyn Clock>,
    age_max: Duration,
    known: Mutex<BTreeMap<TopicName, (Duration, Arc<Topic>)>>,
}

impl Topics {
    pub(crate) fn new(client: Arc<MetadataClient>, clock: Arc<dyn Clock>, age_max: Duration) -> Self {
        Self { client, clock, age_max, known: Mutex::default() }
    }

    /// The topic, perhaps as it was a while ago.
    ///
    /// # Errors
    /// `topic_not_found`, or no node could answer.
    pub(crate) async fn get(&self, name: &TopicName) -> Result<Arc<Topic>, Problem> {
        let now = self.clock.monotonic();
        let known = self.known().get(name).cloned();
        match known {
            Some((since, topic)) if now.saturating_sub(since) < self.age_max => Ok(topic),
            _ => self.refresh(name).await,
        }
    }

    /// The topic as it is now.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) async fn refresh(&self, name: &TopicName) -> Result<Arc<Topic>, Problem> {
        let topic = TopicRef { name: name.clone(), id: None };
        let answer = self.client.query(DescribeTopic { topic, with_offsets: false }).await;
        match answer {
            Ok(description) => Ok(self.remember(&description)),
            Err(problem) => {
                self.forget(name);
                Err(problem)
            }
        }
    }

    /// Takes in what an answer said.
    pub(crate) fn remember(&self, description: &TopicDescription) -> Arc<Topic> {
        let topic = Arc::new(Topic::from_description(description));
        let mut known = self.known();
        if known.len() >= TOPICS_MAX {
            known.clear();
        }
        known.insert(topic.name.clone(), (self.clock.monotonic(), Arc::clone(&topic)));
        topic
    }

    pub(crate) fn forget(&self, name: &TopicName) {
        self.known().remove(name);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<TopicName, (Duration, Arc<Topic>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    /// Stands for a topic that there is not, where a repeat of what went to it may still have an answer. No topic has its
    /// id, so nothing can be appended to it.
    pub(crate) fn gone(name: TopicName) -> Self {
        Self {
            id: TopicId::from_bytes([0; 16]),
            name,
            partition_count: u32::MAX,
            message_bytes_max: limits::BATCH_BYTES_MAX,
            log_append_time: false,
            compacted: false,
            quotas: Quotas::default(),
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.id == TopicId::from_bytes([0; 16])
    }

    fn from_description(description: &TopicDescription) -> Self {
        // Entries of a later version are not for us; the state machine has checked the others.
        let config = TopicConfig::from_entries(&description.config).unwrap_or_default();
        Self {
            id: description.topic_id,
            name: description.name.clone(),
            partition_count: description.partition_count.max(1),
            message_bytes_max: usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX),
            log_append_time: config.timestamp_type == TimestampType::LogAppendTime,
            compacted: config.cleanup_compact,
            quotas: config.quotas,
        }
    }
}
