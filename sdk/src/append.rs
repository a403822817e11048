//! Atomic appends: records of many topics and partitions, with conditions and group offsets, all or nothing.
//!
//! The request is routed by what the client remembers of its topics, and routed again if that is outdated; each form of it
//! travels under the same idempotency key, so that at most one of them is ever accepted.

use std::collections::BTreeMap;

use bytes::Bytes;
use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::http::{
    AppendCondition, AppendGroupOffsets, AppendHead, AppendPart, AtomicAppendResponse, OffsetMove,
    content_type, header, write_envelope,
};
use carnax_core::id::PartitionIndex;
use carnax_core::limits;
use carnax_core::name::{IdempotencyKey, MemberId};
use carnax_core::offset::Offset;
use carnax_core::partitioner::partition_of;
use carnax_core::record::{Compression, NewRecord};
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};

use crate::batches::Batches;
use crate::client::Client;
use crate::error::RequestError;
use crate::producer::Record;
use crate::raw::{header_text, parse_topic};
use crate::retry::Operation;
use crate::route::Route;
use crate::transport::ApiRequest;

/// How often one append is routed again.
const ROUTINGS_MAX: u32 = 5;

/// Records that are appended all or not at all, if all conditions hold, together with group offsets that move.
///
/// Keyed records go where a producer sends them; those without a key and a partition go to one partition of their topic.
/// Records of one partition are stored in the order in which they were added, next to each other.
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), carnax::RequestError> {
/// use carnax::{ErrorCode, Offset, PartitionIndex, Record};
///
/// let appended = client
///     .append()
///     .to("orders", Record::new("paid").with_key("order-7"))
///     .to("audit", Record::new("order 7 was paid"))
///     .expect_next_offset("ledger", PartitionIndex(0), Offset(41))
///     .send()
///     .await;
/// match appended {
///     Ok(answer) => println!("stored in {} partitions", answer.results.len()),
///     Err(error) if error.is(ErrorCode::ConditionFailed) => println!("the next offset is {:?}", error.actual()),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is appended before it is sent"]
pub struct AtomicAppend {
    client: Client,
    records: Vec<(TopicName, Record)>,
    conditions: BTreeMap<(TopicName, PartitionIndex), AppendCondition>,
    group: Option<AppendGroupOffsets>,
    key: Option<IdempotencyKey>,
    /// The group offsets tell a repeat: no key has to be remembered.
    keyless: bool,
    compression: Compression,
    /// The first argument that was not valid: `send` tells.
    invalid: Option<RequestError>,
}

impl AtomicAppend {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            records: Vec::new(),
            conditions: BTreeMap::new(),
            group: None,
            key: None,
            keyless: false,
            compression: Compression::None,
            invalid: None,
        }
    }

    /// Adds a record.
    pub fn to(mut self, topic: impl AsRef<str>, record: Record) -> Self {
        if let Some(topic) = self.valid(parse_topic(topic.as_ref())) {
            self.records.push((topic, record));
        }
        self
    }

    /// Adds a record for one partition, whatever its key.
    pub fn to_partition(self, topic: impl AsRef<str>, partition: PartitionIndex, record: Record) -> Self {
        self.to(topic, record.to_partition(partition))
    }

    /// Lets the append succeed only if the next record of a partition gets this offset; `condition_failed` tells the actual
    /// one. The partition need not be one that is written to. Of several calls for one partition, the last one counts.
    pub fn expect_next_offset(
        self,
        topic: impl AsRef<str>,
        partition: PartitionIndex,
        offset: Offset,
    ) -> Self {
        self.condition(topic.as_ref(), partition, |condition| condition.expected_next_offset = Some(offset))
    }

    /// Lets the append succeed only if this is the fencing token of a partition; `condition_failed` tells the actual one.
    pub fn fencing_token(
        mut self,
        topic: impl AsRef<str>,
        partition: PartitionIndex,
        token: impl AsRef<str>,
    ) -> Self {
        match self.valid(token.as_ref().parse().map_err(RequestError::invalid)) {
            Some(token) => {
                self.condition(topic.as_ref(), partition, |condition| condition.fencing_token = Some(token))
            }
            None => self,
        }
    }

    /// Moves committed offsets of a group in the same command: refused unless each is where its move begins
    /// (`condition_failed`) and the member, with its epoch, owns the partitions (`unknown_member`, `fenced`, `not_owner`).
    /// Without a member, the partitions must have no owner. The last call counts.
    ///
    /// Members let [`GroupConsumer::process`](crate::GroupConsumer::process) do this. A caller that is no member of a group, as a
    /// function that is woken when there is something to read, gets exactly-once results so:
    ///
    /// ```no_run
    /// # async fn example(client: carnax::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use carnax::{ErrorCode, OffsetMove, PartitionIndex, Record, Start};
    ///
    /// let partition = PartitionIndex(3);
    /// let known = client.admin().group_offsets("billing", &["orders"]).await?;
    /// let at = known.offsets.iter().find(|at| at.partition == partition).ok_or("no such partition")?;
    /// let start = at.offset.unwrap_or(at.log_start_offset);
    /// let orders = client.consumer("orders").partitions([partition]).start(Start::Offset(start));
    /// let mut orders = orders.build().await?;
    /// let records = orders.poll(500, Duration::ZERO).await?;
    /// if let (false, Some(to)) = (records.is_empty(), orders.position(partition)) {
    ///     let (topic, topic_id) = (at.topic.clone(), Some(at.topic_id));
    ///     let moved = OffsetMove { topic, topic_id, partition, from: at.offset, to };
    ///     let mut append = client.append().commit_offsets("billing", None, [moved]);
    ///     for order in records {
    ///         append = append.to("invoices", Record::new(order.value.unwrap_or_default()));
    ///     }
    ///     match append.send().await {
    ///         Ok(_) => println!("invoices are written, and orders before {to} are done"),
    ///         // Another call was faster, or an earlier one of ours was done after all: look again where the group is.
    ///         Err(error) if error.is(ErrorCode::ConditionFailed) => println!("nothing of this was written"),
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit_offsets(
        mut self,
        group: impl AsRef<str>,
        member: Option<(MemberId, u32)>,
        moves: impl IntoIterator<Item = OffsetMove>,
    ) -> Self {
        if let Some(group) = self.valid(group.as_ref().parse().map_err(RequestError::invalid)) {
            let (member, epoch) = member.unzip();
            let offsets = moves.into_iter().collect();
            self.group = Some(AppendGroupOffsets { group, member, epoch, offsets });
        }
        self
    }

    /// The key under which this append is done at most once, whoever sends it, within the cluster's idempotency window (an
    /// hour by default). Without, it is a random one, so that `send` may repeat the request itself.
    ///
    /// A repeat must be equal, byte by byte: records in the same order, each with a timestamp of its own
    /// ([`Record::with_timestamp`]), and a topic whose partition count has not changed. Another request under a key that
    /// was used is refused with `body_mismatch`.
    pub fn idempotency_key(mut self, key: impl AsRef<str>) -> Self {
        if let Some(key) = self.valid(key.as_ref().parse().map_err(RequestError::invalid)) {
            self.key = Some(key);
        }
        self
    }

    /// Sends no idempotency key: right where group offsets move, and whoever sends knows what a repeat is answered.
    pub(crate) fn told_apart_by_offsets(mut self) -> Self {
        self.keyless = true;
        self
    }

    /// How record batches are compressed (default: not at all).
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sends it, again and again until the outcome is known or the operation time-out of the client is over.
    ///
    /// When it returns, all records are stored and readable through every frontend; the answer has one result for each topic
    /// and partition, in order of both. Dropping the future leaves open whether they are stored.
    ///
    /// # Errors
    /// `condition_failed`, with the [actual](RequestError::actual) value; `not_owner`, `unknown_member` and `fenced` for group
    /// offsets; `topic_not_found`, `partition_not_found`; `body_mismatch`; `too_large`; `Invalid` for what no server would
    /// take, as no record at all; any other [`RequestError`]. Nothing is stored, unless its
    /// [side effects](RequestError::side_effects) are possible.
    pub async fn send(mut self) -> Result<AtomicAppendResponse, RequestError> {
        if let Some(invalid) = self.invalid.take() {
            return Err(invalid);
        }
        if self.records.is_empty() {
            return Err(RequestError::invalid("an append has at least one record"));
        }
        let key = match self.key.take() {
            Some(key) => key,
            None => self.client.unique_id().parse().map_err(RequestError::invalid)?,
        };
        let now = self.client.wall_time();
        let operation = Operation { leave: Some(ErrorCode::StaleRouting), ..self.client.operation(true) };
        let mut routes = self.routes().await?;
        let mut side_effects = SideEffects::None;
        for attempt in 1.. {
            let request = self.request(&routes, &key, now)?;
            let error = match self.client.execute(&request, operation).await {
                Ok(answer) => return answer.json(),
                Err(error) => error,
            };
            if error.side_effects() == SideEffects::Possible {
                side_effects = SideEffects::Possible;
            }
            let changed = error.is(ErrorCode::StaleRouting) || error.is(ErrorCode::TopicRecreated);
            if !changed || attempt == ROUTINGS_MAX || !self.route_again(&mut routes, &error, attempt).await? {
                // An earlier form of the request may have been accepted, whatever became of the last one.
                return Err(error.with_side_effects(side_effects));
            }
        }
        unreachable!("the last attempt returns")
    }

    fn valid<T>(&mut self, result: Result<T, RequestError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.invalid.get_or_insert(error);
                None
            }
        }
    }

    fn condition(
        mut self,
        topic: &str,
        partition: PartitionIndex,
        set: impl FnOnce(&mut AppendCondition),
    ) -> Self {
        if let Some(topic) = self.valid(parse_topic(topic)) {
            let none = AppendCondition {
                topic: topic.clone(),
                topic_id: None,
                partition,
                expected_next_offset: None,
                fencing_token: None,
            };
            set(self.conditions.entry((topic, partition)).or_insert(none));
        }
        self
    }

    async fn routes(&self) -> Result<BTreeMap<TopicName, Route>, RequestError> {
        let mut routes = BTreeMap::new();
        for (topic, _) in &self.records {
            if !routes.contains_key(topic) {
                routes.insert(topic.clone(), Box::pin(self.client.route(topic)).await?);
            }
        }
        Ok(routes)
    }

    /// Asks for the topics again; tells whether another attempt makes sense.
    async fn route_again(
        &self,
        routes: &mut BTreeMap<TopicName, Route>,
        refused: &RequestError,
        attempt: u32,
    ) -> Result<bool, RequestError> {
        let mut changed = false;
        for (topic, route) in routes.iter_mut() {
            let now = Box::pin(self.client.ask_route(topic)).await?;
            changed |= now != *route;
            *route = now;
        }
        if changed {
            return Ok(true);
        }
        // The id that does not fit is one that the caller gave.
        if refused.is(ErrorCode::TopicRecreated) {
            return Ok(false);
        }
        tokio::time::sleep(self.client.backoff(attempt)).await;
        Ok(true)
    }

    fn request(
        &self,
        routes: &BTreeMap<TopicName, Route>,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<ApiRequest, RequestError> {
        let mut parts: BTreeMap<(&TopicName, PartitionIndex), Part> = BTreeMap::new();
        for (topic, record) in &self.records {
            let route = &routes[topic];
            let (partition, routed) = match (record.partition, &record.key) {
                (Some(partition), _) => (partition, false),
                (None, Some(key)) => (partition_of(key, route.partition_count), true),
                // The same in every repeat, and spread over the appends.
                (None, None) => (partition_of(key.as_str().as_bytes(), route.partition_count), false),
            };
            let part = parts.entry((topic, partition)).or_insert_with(|| Part::new(*route, self.compression));
            part.push(record, routed, now)?;
        }
        if parts.len() > limits::UNIT_PARTITIONS_MAX {
            let max = limits::UNIT_PARTITIONS_MAX;
            return Err(RequestError::invalid(format_args!("{} partitions, more than {max}", parts.len())));
        }
        let (parts, batches): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|((topic, partition), part)| part.finish(topic, partition)).unzip();
        let conditions = self.conditions.values().cloned().collect();
        let head = AppendHead { parts, conditions, group: self.group.clone() };
        let body = write_envelope(head, &batches).map_err(RequestError::invalid)?;
        if body.len() > limits::REQUEST_BODY_BYTES_MAX {
            let max = limits::REQUEST_BODY_BYTES_MAX;
            return Err(RequestError::invalid(format_args!("{} bytes, more than {max}", body.len())));
        }
        let mut request = ApiRequest::new(Method::POST, "/v1/append")
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type::APPEND));
        if !self.keyless {
            request = request.header(HeaderName::from_static(header::IDEMPOTENCY_KEY), header_text(key));
        }
        request.body = body;
        Ok(request)
    }
}

/// What goes to one partition.
struct Part {
    route: Route,
    routed: bool,
    batches: Batches,
}

impl Part {
    fn new(route: Route, compression: Compression) -> Self {
        let batch_bytes = route.batch_bytes_max.min(limits::BATCH_BYTES_MAX);
        Self { route, routed: false, batches: Batches::new(batch_bytes, compression) }
    }

    fn push(&mut self, record: &Record, routed: bool, now: Timestamp) -> Result<(), RequestError> {
        self.routed |= routed;
        let new = NewRecord {
            timestamp: record.timestamp.unwrap_or(now),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        self.batches.push(&new).map_err(RequestError::invalid)
    }

    fn finish(self, topic: &TopicName, partition: PartitionIndex) -> (AppendPart, Bytes) {
        let part = AppendPart {
            topic: topic.clone(),
            topic_id: Some(self.route.topic_id),
            partition,
            partition_count: self.routed.then_some(self.route.partition_count),
            bytes: 0,
        };
        (part, self.batches.finish())
    }
}
