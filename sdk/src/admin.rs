//! Topics, offsets, groups, producers, and the metadata cluster.

mod group;
mod producer;
mod token;
mod usage;
mod wakeup;

use std::collections::BTreeMap;

use carnax_core::http::{
    AddNodeRequest, AlterTopicRequest, ClusterResponse, ConfigValue, CreateTopicRequest,
    DeletedTopicResponse, OffsetResponse, TopicResponse, TopicsResponse, TransferLeadershipRequest,
    TrimResponse, UpgradeClusterRequest,
};
use carnax_core::id::{NodeId, PartitionIndex, TopicId};
use carnax_core::metadata::ClusterUpgraded;
use carnax_core::offset::Offset;
use http::Method;

use crate::client::Client;
use crate::consumer::Start;
use crate::error::RequestError;
use crate::raw::parse_topic;
use crate::transport::{ApiAnswer, ApiRequest};

pub use token::{AlterToken, NewToken};

pub(crate) use producer::{parse_producer, raise_request};

/// Creates, changes and describes things. Every call takes effect before it returns, and is seen by every later call
/// through any frontend.
///
/// Calls that may be repeated without harm are, until the operation time-out of the client. Dropping the future of a
/// change leaves open whether it is made.
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), carnax::RequestError> {
/// let admin = client.admin();
/// admin.create_topic("flights", 12, &[("retention.ms", "604800000")]).await?;
/// for topic in admin.list_topics("").await? {
///     println!("{} has {} partitions", topic.name, topic.partitions);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

/// What to change in a topic; what is not mentioned stays.
///
/// ```
/// let change = carnax::AlterTopic::default().partitions(24).set("retention.ms", "-1").reset("retention.bytes");
/// # let _ = change;
/// ```
#[derive(Debug, Clone, Default)]
pub struct AlterTopic {
    request: AlterTopicRequest,
}

impl AlterTopic {
    /// The new number of partitions: at least as many as now.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.request.partitions = Some(partitions);
        self
    }

    /// Sets a configuration entry.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.config.insert(name.into(), Some(ConfigValue(value.into())));
        self
    }

    /// Brings a configuration entry back to its default.
    #[must_use]
    pub fn reset(mut self, name: impl Into<String>) -> Self {
        self.request.config.insert(name.into(), None);
        self
    }
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a topic. An equal one that exists already is a success.
    ///
    /// # Errors
    /// `topic_exists` if there is a different one of that name; `invalid_value` for a configuration that is not
    /// understood; any other [`RequestError`].
    pub async fn create_topic(
        &self,
        topic: &str,
        partitions: u32,
        config: &[(&str, &str)],
    ) -> Result<TopicResponse, RequestError> {
        let config: BTreeMap<_, _> = config
            .iter()
            .map(|(name, value)| ((*name).to_owned(), ConfigValue((*value).to_owned())))
            .collect();
        let request = request(Method::PUT, topic, "")?.json(&CreateTopicRequest { partitions, config })?;
        self.send(&request, true).await?.json()
    }

    /// Changes a topic.
    ///
    /// # Errors
    /// `topic_not_found`; `invalid_value` for fewer partitions than now; any other [`RequestError`].
    pub async fn alter_topic(&self, topic: &str, change: &AlterTopic) -> Result<TopicResponse, RequestError> {
        let request = request(Method::PATCH, topic, "")?.json(&change.request)?;
        self.send(&request, true).await?.json()
    }

    /// Deletes a topic with all its records; tells the id that it had.
    ///
    /// Not repeated when the outcome is unknown: the name might mean another topic by then.
    ///
    /// # Errors
    /// `topic_not_found`; any other [`RequestError`].
    pub async fn delete_topic(&self, topic: &str) -> Result<TopicId, RequestError> {
        let answer = self.send(&request(Method::DELETE, topic, "")?, false).await?;
        Ok(answer.json::<DeletedTopicResponse>()?.topic_id)
    }

    /// Describes a topic, with the bounds of each partition.
    ///
    /// # Errors
    /// `topic_not_found`; any other [`RequestError`].
    pub async fn describe_topic(&self, topic: &str) -> Result<TopicResponse, RequestError> {
        self.send(&request(Method::GET, topic, "")?, true).await?.json()
    }

    /// All topics whose names begin with `prefix`, in order of their names, without the bounds of their partitions.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn list_topics(&self, prefix: &str) -> Result<Vec<TopicResponse>, RequestError> {
        if !prefix.is_empty() {
            parse_topic(prefix)?;
        }
        let mut topics = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/topics?prefix={prefix}{after}");
            let answer = self.send(&ApiRequest::new(Method::GET, path), true).await?;
            let page: TopicsResponse = answer.json()?;
            topics.extend(page.topics);
            match page.next_after {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(topics),
            }
        }
    }

    /// The offset at which reading from `start` begins, and the timestamp of the record there, if one is there.
    ///
    /// [`Start::Offset`] and [`Start::Last`] are answered within the bounds of the partition.
    ///
    /// # Errors
    /// `topic_not_found`, `partition_not_found`; any other [`RequestError`].
    pub async fn offset(
        &self,
        topic: &str,
        partition: PartitionIndex,
        start: Start,
    ) -> Result<OffsetResponse, RequestError> {
        let at = async |at: &str| {
            let tail = format!("/partitions/{partition}/offsets?at={at}");
            self.send(&request(Method::GET, topic, &tail)?, true).await?.json::<OffsetResponse>()
        };
        let wanted = match start {
            Start::Earliest => return at("earliest").await,
            Start::Latest => return at("latest").await,
            Start::Timestamp(timestamp) => return at(&timestamp.to_string()).await,
            Start::Offset(offset) => offset,
            Start::Last(count) => Offset(at("latest").await?.offset.0.saturating_sub(count)),
        };
        let bounds = (at("earliest").await?.offset, at("latest").await?.offset);
        Ok(OffsetResponse { offset: wanted.max(bounds.0).min(bounds.1), timestamp: None })
    }

    /// Makes all records before an offset unreadable; tells the first readable offset.
    ///
    /// # Errors
    /// `offset_above_high_watermark`; any other [`RequestError`].
    pub async fn trim(
        &self,
        topic: &str,
        partition: PartitionIndex,
        before: Offset,
    ) -> Result<Offset, RequestError> {
        let tail = format!("/partitions/{partition}/records?before={before}");
        let answer = self.send(&request(Method::DELETE, topic, &tail)?, true).await?;
        Ok(answer.json::<TrimResponse>()?.log_start_offset)
    }

    /// The cluster, as the frontend and one metadata node see it.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn cluster(&self) -> Result<ClusterResponse, RequestError> {
        self.send(&ApiRequest::new(Method::GET, "/v1/cluster"), true).await?.json()
    }

    /// Lets the empty metadata node that runs at `address` (`host:port` of its RPC) into the cluster; `promote`: as a
    /// voter, once it has caught up.
    ///
    /// # Errors
    /// `conflict` if the membership is changing already; any other [`RequestError`].
    pub async fn add_node(&self, address: &str, promote: bool) -> Result<(), RequestError> {
        let document = AddNodeRequest { address: address.to_owned(), promote };
        let request = ApiRequest::new(Method::POST, "/v1/cluster/nodes").json(&document)?;
        self.send(&request, true).await.map(drop)
    }

    /// Takes a metadata node out of the cluster. Its id is never used again.
    ///
    /// # Errors
    /// `node_not_found`; `conflict` if the membership is changing already; any other [`RequestError`].
    pub async fn remove_node(&self, node: NodeId) -> Result<(), RequestError> {
        let request = ApiRequest::new(Method::DELETE, format!("/v1/cluster/nodes/{node}"));
        self.send(&request, true).await.map(drop)
    }

    /// Raises the feature level of the cluster to `to` (none: the highest that its leader knows), or only says what would happen. Once it
    /// is raised, nodes of an older version cannot go on.
    ///
    /// # Errors
    /// `conflict` as long as a node does not know the level, with one sentence for each, and for a lower level than now; any other
    /// [`RequestError`].
    pub async fn upgrade_cluster(
        &self,
        to: Option<u32>,
        dry_run: bool,
    ) -> Result<ClusterUpgraded, RequestError> {
        let request = ApiRequest::new(Method::POST, "/v1/cluster/upgrade");
        self.send(&request.json(&UpgradeClusterRequest { to, dry_run })?, true).await?.json()
    }

    /// Hands the leadership of the metadata cluster to a node, or (none) to any voter that is up to date.
    ///
    /// # Errors
    /// `node_not_found`; any other [`RequestError`].
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<(), RequestError> {
        let document = TransferLeadershipRequest { to };
        let request = ApiRequest::new(Method::POST, "/v1/cluster/leader").json(&document)?;
        self.send(&request, true).await.map(drop)
    }

    /// Whether a frontend is ready to serve (`GET /readyz`).
    ///
    /// # Errors
    /// Why not, or any other [`RequestError`].
    pub async fn ready(&self) -> Result<(), RequestError> {
        self.send(&ApiRequest::new(Method::GET, "/readyz"), true).await.map(drop)
    }

    async fn send(&self, request: &ApiRequest, repeat_unknown: bool) -> Result<ApiAnswer, RequestError> {
        self.client.execute(request, self.client.operation(repeat_unknown)).await
    }
}

fn request(method: Method, topic: &str, tail: &str) -> Result<ApiRequest, RequestError> {
    Ok(ApiRequest::new(method, format!("/v1/topics/{}{tail}", parse_topic(topic)?)))
}
