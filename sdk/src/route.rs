//! What a client has to know of a topic to send records to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use carnax_core::id::TopicId;
use carnax_core::limits;
use carnax_core::topic::{TopicConfig, TopicName};

use crate::client::Client;
use crate::error::RequestError;

/// Topics that a client remembers; beyond that, it forgets all and asks anew.
const ROUTES_MAX: usize = 1_000;

/// Which topic a name means, how many partitions it has, and how long its batches may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) topic_id: TopicId,
    pub(crate) partition_count: u32,
    pub(crate) batch_bytes_max: usize,
}

impl Route {
    pub(crate) async fn ask(client: &Client, topic: &TopicName) -> Result<Self, RequestError> {
        let topic = client.admin().describe_topic(topic.as_str()).await?;
        if topic.partitions == 0 {
            return Err(RequestError::invalid("the topic has no partition"));
        }
        // A server of a later version may have entries that are not known here: only one matters.
        let message_bytes =
            topic.config.into_iter().filter(|(name, _)| name == "max.message.bytes").collect();
        let config = TopicConfig::from_entries(&message_bytes).unwrap_or_default();
        let batch_bytes_max =
            usize::try_from(config.max_message_bytes).unwrap_or(limits::BATCH_BYTES_DEFAULT);
        Ok(Self { topic_id: topic.topic_id, partition_count: topic.partitions, batch_bytes_max })
    }
}

/// Routes that were asked for before. They may be outdated: whoever sends by one must say so, and forget it when told.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<BTreeMap<TopicName, Route>>);

impl Routes {
    pub(crate) fn get(&self, topic: &TopicName) -> Option<Route> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    pub(crate) fn set(&self, topic: TopicName, route: Route) {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.len() >= ROUTES_MAX {
            routes.clear();
        }
        routes.insert(topic, route);
    }
}
