//! Settings of a member.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carnax_core::http::JoinGroupRequest;
use carnax_core::limits;
use carnax_core::metadata::Assignor;
use carnax_core::name::{GroupName, MemberId, TopicPattern};
use carnax_core::topic::TopicName;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::commits::Commits;
use super::consumer::{GroupConsumer, Settings};
use super::membership::Membership;
use super::rebalance::RebalanceListener;
use super::speaker::{self, Shared};
use crate::client::Client;
use crate::consumer::{OffsetReset, Reader};
use crate::error::RequestError;

/// Settings of a [`GroupConsumer`].
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use carnax::{Assignor, OffsetReset};
///
/// let mut consumer = client
///     .group("billing")
///     .topics(["orders", "refunds"])
///     .patterns(["payments-*"])
///     .assignor(Assignor::Sticky)
///     .offset_reset(OffsetReset::Earliest)
///     .session_timeout(Duration::from_secs(10))
///     .auto_commit(Duration::from_secs(1))
///     .build()
///     .await?;
/// for record in consumer.poll(500, Duration::from_secs(5)).await? {
///     println!("{}/{} {}", record.topic, record.partition, record.offset);
/// }
/// consumer.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct GroupBuilder {
    client: Client,
    group: String,
    topics: Vec<String>,
    patterns: Vec<String>,
    assignor: Option<Assignor>,
    session_timeout: Duration,
    member: Option<String>,
    client_name: String,
    prefetch_bytes: u64,
    settings: Settings,
    listener: Option<Box<dyn RebalanceListener>>,
}

impl fmt::Debug for GroupBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupBuilder").field("group", &self.group).finish_non_exhaustive()
    }
}

impl GroupBuilder {
    pub(crate) fn new(client: Client, group: String) -> Self {
        Self {
            client,
            group,
            topics: Vec::new(),
            patterns: Vec::new(),
            assignor: None,
            session_timeout: limits::MEMBER_SESSION_DEFAULT,
            member: None,
            client_name: String::new(),
            prefetch_bytes: 32 * 1024 * 1024,
            settings: Settings { reset: OffsetReset::Error, auto_commit: None, wait: Duration::from_secs(5) },
            listener: None,
        }
    }

    /// Topics to read, by name. Those that do not exist yet are read once they do.
    #[must_use]
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Topics to read, by pattern, where `*` stands for any number of characters and `?` for one. Topics that are created
    /// later count, too.
    #[must_use]
    pub fn patterns<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.patterns.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// How partitions are shared out (default: as the group does it, or sticky). All members must agree.
    #[must_use]
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = Some(assignor);
        self
    }

    /// After how long without a sign of life the partitions go to others (default 45 s, 1 s to 30 min).
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Who this is (default: random, a new one for each consumer). With an id of your own, a process that was killed and
    /// started again takes over from its predecessor at once, instead of when its session has expired; whatever the
    /// predecessor has still under way is refused. Of two living processes with the same id the later one wins: polls of the
    /// earlier one fail with [`GroupError::Join`](super::GroupError::Join), and it should end.
    #[must_use]
    pub fn member(mut self, member: impl Into<String>) -> Self {
        self.member = Some(member.into());
        self
    }

    /// What operators see beside the member id, as the name of a host (default: nothing).
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// Where to begin in partitions of which nothing is committed, or whose committed offset is gone (default: fail, so that
    /// nobody misses or repeats records without knowing).
    #[must_use]
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.settings.reset = reset;
        self
    }

    /// Commits what was handed out by earlier polls: during a poll when this time has passed since the last time, before a
    /// partition is let go of, and at the end. Default: off, the caller commits.
    #[must_use]
    pub fn auto_commit(mut self, every: Duration) -> Self {
        self.settings.auto_commit = Some(every);
        self
    }

    /// Bytes of batches that are fetched ahead, over all partitions (default 32 MiB). A partition never has less than two
    /// fetches of 64 KiB, and each fetch brings at least one whole batch.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: u64) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// How long a fetch waits at the end of a partition before it asks again (default 5 s, at most 30 s). A record that
    /// arrives meanwhile is answered at once.
    #[must_use]
    pub fn fetch_wait(mut self, wait: Duration) -> Self {
        self.settings.wait = wait.min(limits::FETCH_WAIT_MAX);
        self
    }

    /// Who is told when partitions come and go.
    #[must_use]
    pub fn listener(mut self, listener: impl RebalanceListener) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Starts to join the group. Partitions come with the first polls.
    ///
    /// With a member id of your own, the member leaves the group first, if it is there: what a dead predecessor held is
    /// free, and what it has still under way is refused.
    ///
    /// # Errors
    /// A name that is not valid, or nothing to read; with a member id of your own any [`RequestError`]. Without one, whatever
    /// the group objects to is told by [`GroupConsumer::poll`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn build(self) -> Result<GroupConsumer, RequestError> {
        let group: GroupName = parse(&self.group)?;
        let chosen = self.member.is_some();
        let member: MemberId = match &self.member {
            Some(member) => parse(member)?,
            None => parse(&format!("{:016x}{:016x}", self.client.random(), self.client.random()))?,
        };
        let join = JoinGroupRequest {
            member: Some(member.clone()),
            client: self.client_name,
            topics: self.topics.iter().map(|topic| parse::<TopicName>(topic)).collect::<Result<_, _>>()?,
            patterns: self
                .patterns
                .iter()
                .map(|pattern| parse::<TopicPattern>(pattern))
                .collect::<Result<_, _>>()?,
            assignor: self.assignor,
            session_timeout_ms: Some(u64::try_from(self.session_timeout.as_millis()).unwrap_or(u64::MAX)),
        };
        if join.topics.is_empty() && join.patterns.is_empty() {
            return Err(RequestError::invalid("a member of a group needs a topic or a pattern"));
        }
        let shared = Arc::new(Shared {
            client: self.client,
            group,
            member,
            chosen,
            join,
            membership: Mutex::new(Membership::new(self.session_timeout, Instant::now())),
            changed: Notify::new(),
            wake: Notify::new(),
        });
        if chosen {
            shared.send_leave(None).await?;
        }
        let mut speaker = JoinSet::new();
        speaker.spawn(speaker::run(Arc::clone(&shared)));
        let commits = Commits::new(Arc::clone(&shared));
        let reader = Reader::new(self.prefetch_bytes);
        Ok(GroupConsumer::new(shared, commits, reader, self.settings, self.listener, speaker))
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, RequestError>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(RequestError::invalid)
}
