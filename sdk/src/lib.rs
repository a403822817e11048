//! The Rust SDK of Carnax, a distributed commit log whose records live in object storage.
//!
//! | start here | for |
//! |---|---|
//! | [`Client::builder`] | endpoints, failover, time-outs, retries |
//! | [`Client::admin`] | topics, offsets, trimming, groups, the metadata cluster |
//! | [`Client::producer`] | appending records: batches, compression, bounded memory |
//! | [`Client::append`] | appending to many topics and partitions, all or nothing, under conditions |
//! | [`Client::consumer`] | reading records as a stream, from any offset or time |
//! | [`Client::group`] | sharing partitions among processes; commits; exactly once |
//! | [`Client::raw`] | record batches as they travel, without any of that |
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use carnax::{Client, Record, Start};
//!
//! let client = Client::builder().endpoints(["http://127.0.0.1:8080"]).build()?;
//! client.admin().create_topic("flights", 12, &[]).await?;
//!
//! let producer = client.producer("flights").build().await?;
//! let delivery = producer.send(Record::new("on time").with_key("UA")).await?;
//! println!("stored at {}", delivery.await?.offset);
//! producer.close().await;
//!
//! let mut consumer = client.consumer("flights").start(Start::Earliest).build().await?;
//! for record in consumer.poll(100, std::time::Duration::from_secs(5)).await? {
//!     println!("{} {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: nothing is retried but what the server's problem documents (or a broken connection) allow; every queue has
//! a bound; time is tokio's, and randomness, the wall clock and the network are handed in, so that a simulation controls
//! them all.
#![warn(missing_docs)]

mod admin;
mod append;
mod batches;
mod client;
mod consumer;
mod error;
mod group;
mod producer;
mod raw;
mod retry;
mod route;
mod transport;

pub use carnax_core::access::{Grant, InvalidGrant, InvalidToken, Names, Operation, TokenId};
pub use carnax_core::error_code::{ErrorCode, SideEffects};
pub use carnax_core::http::{
    AlterSettingsRequest, AppendResponse, AppendResult, AtomicAppendResponse, AtomicAppendResult,
    ClusterResponse, CommitOffsetsRequest, CommitOffsetsResponse, ConfigValue, CreatedTokenResponse,
    DeletedGroupResponse, FencedEpochResponse, FencingTokenResponse, GroupOffsetResponse,
    GroupOffsetsResponse, GroupResponse, KeptReplyResponse, LeftGroupResponse, MemberResponse, OffsetEntry,
    OffsetMove, OffsetResponse, PartitionFrame, PartitionResponse, ProducerResponse, ResetOffset,
    ResetOffsetsRequest, ResetOffsetsResponse, ResetTo, SettingsResponse, TokenUsageResponse, TopicResponse,
    TopicUsageResponse, UsageCost, UsageResponse,
};
pub use carnax_core::id::{NodeId, PartitionIndex, TopicId};
pub use carnax_core::metadata::{
    AssignedTopic, Assignor, ClusterUpgraded, CommitEvent, CommittedRange, GroupPhase, GroupSummary,
    JobDescription, JobKind, MaintenanceDescription, TokenDescription, UsageMonth, WakeupDescription,
};
pub use carnax_core::name::{FencingToken, GroupName, MemberId, ProducerId, TopicPattern};
pub use carnax_core::offset::Offset;
pub use carnax_core::problem::ProblemDocument;
pub use carnax_core::quota::Quotas;
pub use carnax_core::record::{Compression, Header};
pub use carnax_core::time::Timestamp;
pub use carnax_core::topic::TopicName;
pub use carnax_core::usage::{Prices, StoreRequests, Traffic};

pub use admin::{Admin, AlterToken, AlterTopic, NewToken};
pub use append::AtomicAppend;
pub use client::{Client, ClientBuilder};
pub use consumer::{ConsumeError, ConsumedRecord, Consumer, ConsumerBuilder, OffsetReset, Start};
pub use error::{BuildError, RequestError, SharedError};
pub use group::{
    GroupBuilder, GroupConsumer, GroupError, GroupPartition, PendingCommit, ProcessError, RebalanceListener,
};
pub use producer::{Delivery, ProduceError, Producer, ProducerBuilder, Record, RecordMetadata};
pub use raw::{FetchRequest, FetchResponse, Raw};
pub use retry::RetrySettings;
pub use transport::{Connection, Connector, TcpConnector};
