//! Read, process, write: what a batch of records results in is stored in the same command that commits their offsets.
//!
//! Why it is exactly once: every offset moves `from → to`, and is refused unless `from` is what is committed, so of all that was
//! ever sent for a record only one can be accepted, however late it arrives. A batch whose outcome is unknown is sent again as
//! it is. If it is refused, either an earlier attempt was accepted, or somebody else has the partition: both ways the
//! committed offsets say which records are done, and reading goes on there. Nothing is ever concluded from a refusal itself: an
//! offset that stands where this batch would have moved it may have been moved by one that had other partitions in it.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::http::{OffsetEntry, OffsetMove};
use carnax_core::id::TopicPartition;
use carnax_core::limits;
use carnax_core::topic::TopicName;
use tokio::time::Instant;

use super::GroupError;
use super::consumer::GroupConsumer;
use super::membership::Assignment;
use crate::consumer::ConsumedRecord;
use crate::error::RequestError;
use crate::producer::Record;

/// How long one poll waits before it looks again whether to stop.
const POLL_WAIT: Duration = Duration::from_secs(30);

/// Why [`GroupConsumer::process`] ended before it was told to. What was not committed is read again.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The handler failed.
    #[error("handler failed")]
    Handler(#[source] Box<dyn Error + Send + Sync>),
    /// Records cannot be read, or the group not be joined.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The outputs are not accepted, whatever is tried: no such topic, a record that is too large, not allowed.
    #[error("outputs are not accepted")]
    Append(#[source] Arc<RequestError>),
}

impl ProcessError {
    /// Whether calling [`GroupConsumer::process`] again may help. What the handler said is for its author to judge.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Handler(_) => false,
            Self::Group(error) => error.retryable(),
            Self::Append(error) => error.retryable(),
        }
    }
}

/// What was read, and how the offsets move with it.
struct Batch {
    epoch: u32,
    moves: BTreeMap<TopicPartition, OffsetMove>,
}

/// What became of a batch.
enum Fate {
    Done,
    /// The committed offsets say what of it is done.
    Dropped,
    /// It is too large for one append.
    TooLarge(Arc<RequestError>),
    Failed(Arc<RequestError>),
    /// Nobody knows, and the caller wants to stop.
    Stopped,
}

impl GroupConsumer {
    /// Reads, lets `handler` turn records into outputs, and stores the outputs together with the consumed offsets: all of a
    /// batch or nothing, each record's outputs exactly once, whoever dies when. Ends when `stop` is ready; what is under way
    /// then is finished first if it can be. Neither leaves the group nor closes the consumer.
    ///
    /// `handler` gets at most `max` records, in order within each partition, and returns outputs: records with their topics. No
    /// outputs are well, too: then only offsets are committed. It may be called again for records that it has seen, when their
    /// outputs may not have been stored, so it must have no effects of its own, and remember nothing from one batch to the
    /// next unless by offset. Each batch takes one append, so larger batches are faster, and later. Those whose outputs do not
    /// fit into one append are split: their records are read again in smaller batches.
    ///
    /// Begins at what is committed, whatever was polled before, and switches automatic commits off. Outputs whose outcome is
    /// unknown, and those that fail for a reason that passes, are sent again until the member loses the partitions. Dropping the
    /// future is as safe as being killed.
    ///
    /// # Errors
    /// [`ProcessError`]. The next call goes on at what is committed.
    ///
    /// ```no_run
    /// # async fn example(client: carnax::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use carnax::{OffsetReset, Record};
    ///
    /// let mut group = client.group("shout").topics(["words"]).offset_reset(OffsetReset::Earliest).build().await?;
    /// let stop = async { drop(tokio::signal::ctrl_c().await) };
    /// group
    ///     .process(500, stop, async |records| {
    ///         let shouted = records.into_iter().filter_map(|record| {
    ///             let word = String::from_utf8(record.value?.to_vec()).ok()?;
    ///             Some(("shouts", Record::new(word.to_uppercase())))
    ///         });
    ///         Ok::<_, std::convert::Infallible>(shouted.collect::<Vec<_>>())
    ///     })
    ///     .await?;
    /// group.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn process<T, O, E>(
        &mut self,
        max: usize,
        stop: impl Future<Output = ()>,
        mut handler: impl AsyncFnMut(Vec<ConsumedRecord>) -> Result<O, E>,
    ) -> Result<(), ProcessError>
    where
        T: AsRef<str>,
        O: IntoIterator<Item = (T, Record)>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let max = max.max(1);
        let mut size = max;
        let mut stop = pin!(stop);
        self.settings.auto_commit = None;
        self.rewind();
        loop {
            let records = tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                records = self.poll(size, POLL_WAIT) => records?,
            };
            let Some(batch) = self.batch(&records).await? else {
                self.rewind();
                continue;
            };
            if records.is_empty() {
                continue;
            }
            let count = records.len();
            if batch.moves.len() > limits::GROUP_COMMIT_OFFSETS_MAX {
                size = limits::GROUP_COMMIT_OFFSETS_MAX;
                self.rewind();
                continue;
            }
            let outputs = match handler(records).await {
                Ok(outputs) => outputs,
                Err(error) => {
                    self.rewind();
                    return Err(ProcessError::Handler(error.into()));
                }
            };
            match Box::pin(self.store(&batch, outputs, &mut stop)).await {
                Fate::Done => {
                    batch.moves.iter().for_each(|(on, to)| self.commits.note_committed(*on, Some(to.to)));
                    size = (size * 2).min(max);
                    continue;
                }
                Fate::Dropped => {}
                Fate::TooLarge(_) if count > 1 => size = count.div_ceil(2),
                Fate::TooLarge(error) | Fate::Failed(error) => {
                    self.rewind();
                    return Err(ProcessError::Append(error));
                }
                Fate::Stopped => {
                    self.rewind();
                    return Ok(());
                }
            }
            self.rewind();
        }
    }

    /// Goes back to what is committed, in all partitions: it is asked for again.
    fn rewind(&mut self) {
        let held = self.shared.lock().held(Instant::now());
        let read: Vec<_> = self.reader.positions().map(|(on, _)| on).collect();
        for on in read {
            self.reader.remove(on);
            if let Some(topic) = held.get(&on) {
                self.starting.insert(on, topic.clone());
            }
        }
        self.retry_starting = Instant::now();
    }

    /// How the offsets of these records move; none if the member has been lost.
    async fn batch(&self, records: &[ConsumedRecord]) -> Result<Option<Batch>, GroupError> {
        let (epoch, held) = {
            let mut membership = self.shared.lock();
            let now = Instant::now();
            (membership.epoch(now), membership.held(now))
        };
        let Some(epoch) = epoch else {
            return Ok(records.is_empty().then_some(Batch { epoch: 0, moves: BTreeMap::new() }));
        };
        let named: BTreeMap<(&TopicName, _), TopicPartition> =
            held.iter().map(|(on, topic)| ((topic, on.partition), *on)).collect();
        let mut read = Assignment::new();
        for record in records {
            let Some(on) = named.get(&(&record.topic, record.partition)) else { return Ok(None) };
            if !read.contains_key(on) {
                read.insert(*on, record.topic.clone());
            }
        }
        self.learn_committed(&read).await?;
        let mut moves = BTreeMap::new();
        for (on, topic) in read {
            let (Some(from), Some(to)) = (self.commits.committed(on), self.reader.position(on)) else {
                return Ok(None);
            };
            let partition = on.partition;
            moves.insert(on, OffsetMove { topic, topic_id: Some(on.topic), partition, from, to });
        }
        Ok(Some(Batch { epoch, moves }))
    }

    /// Asks what is committed of partitions that were sought before anybody asked.
    async fn learn_committed(&self, read: &Assignment) -> Result<(), GroupError> {
        if read.keys().all(|on| self.commits.committed(*on).is_some()) {
            return Ok(());
        }
        let known = self.ask_committed(read).await.map_err(|error| GroupError::Request(Arc::new(error)))?;
        for known in known {
            let on = TopicPartition { topic: known.topic_id, partition: known.partition };
            if read.contains_key(&on) {
                self.commits.note_committed(on, known.offset);
            }
        }
        Ok(())
    }

    /// Stores outputs and offsets, however often it has to be sent.
    async fn store<T, O>(&self, batch: &Batch, outputs: O, mut stop: impl Future<Output = ()> + Unpin) -> Fate
    where
        T: AsRef<str>,
        O: IntoIterator<Item = (T, Record)>,
    {
        let client = &self.shared.client;
        let member = Some((self.shared.member.clone(), batch.epoch));
        let mut append = client.append().told_apart_by_offsets();
        let mut topics = Vec::new();
        for (topic, record) in outputs {
            if !topics.iter().any(|known| known == topic.as_ref()) {
                topics.push(topic.as_ref().to_owned());
            }
            append = append.to(topic, record);
        }
        append = append.commit_offsets(self.shared.group.as_str(), member, batch.moves.values().cloned());
        for attempt in 1.. {
            if self.shared.lock().epoch(Instant::now()) != Some(batch.epoch) {
                return Fate::Dropped;
            }
            let sent = if topics.is_empty() {
                Box::pin(self.commit_moves(batch)).await
            } else {
                Box::pin(append.clone().send()).await.map(|_| false)
            };
            let error = match sent {
                Ok(false) => return Fate::Done,
                // Nobody knows what became of an earlier attempt: the next one will tell.
                Ok(true) => continue,
                Err(error) => error,
            };
            let fate = self.fate(batch, &topics, error);
            let Some(error) = fate.as_ref().err() else { return fate.unwrap_or(Fate::Dropped) };
            tracing::warn!(group = %self.shared.group, attempt, %error, "outputs are not stored yet, trying again");
            let pause = client.backoff(attempt).max(error.retry_after().unwrap_or_default());
            tokio::select! {
                () = &mut stop => return Fate::Stopped,
                () = tokio::time::sleep(pause) => {}
            }
        }
        unreachable!("attempts do not run out")
    }

    /// Commits offsets without outputs; tells whether nobody knows what became of it.
    async fn commit_moves(&self, batch: &Batch) -> Result<bool, RequestError> {
        let entries = batch.moves.values().map(|moved| OffsetEntry {
            topic: moved.topic.clone(),
            topic_id: moved.topic_id,
            partition: moved.partition,
            offset: Some(moved.to),
            from: Some(moved.from),
            metadata: String::new(),
        });
        let entries: Vec<_> = entries.collect();
        Ok(self.commits.send(batch.epoch, &entries).await?.ignored)
    }

    /// What a failure means; the error again if the batch has to be sent again.
    fn fate(&self, batch: &Batch, outputs: &[String], error: RequestError) -> Result<Fate, RequestError> {
        let stale = error.is(ErrorCode::ConditionFailed) || error.is(ErrorCode::NotOwner);
        if self.shared.note_expulsion(batch.epoch, &error) || stale {
            tracing::info!(group = %self.shared.group, %error, "outputs refused, going on at what is committed");
            return Ok(Fate::Dropped);
        }
        let gone = error.is(ErrorCode::TopicNotFound) || error.is(ErrorCode::TopicRecreated);
        let of_outputs = |document: &carnax_core::problem::ProblemDocument| {
            document.facts.topic.as_ref().is_none_or(|topic| outputs.contains(topic))
        };
        if gone && !error.problem().is_some_and(of_outputs) {
            return Ok(Fate::Dropped);
        }
        if error.is(ErrorCode::TooLarge) || matches!(error, RequestError::Invalid { .. }) {
            return Ok(Fate::TooLarge(Arc::new(error)));
        }
        if error.retryable() { Err(error) } else { Ok(Fate::Failed(Arc::new(error))) }
    }
}
