//! Topics: names, ids, configuration, and the partitions that they hold.

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::metadata::{AlterTopic, CreateTopic, PartitionOffsets, TopicDescription, TopicRef};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::{ConfigEntries, TimestampType, TopicConfig, TopicName};
use imbl::{OrdMap, Vector};

use crate::partition::Partition;

/// How many deleted topics are remembered, so that a writer that still has their id is told to route again.
pub(crate) const FORMER_MAX: usize = limits::TOPICS_MAX;

#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    pub(crate) created: Timestamp,
    /// What was set, each value as [`TopicConfig::to_entries`] spells it.
    pub(crate) config: Arc<ConfigEntries>,
    /// The same, with the defaults.
    pub(crate) typed: TopicConfig,
    pub(crate) partitions: Vector<Arc<Partition>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Topics {
    pub(crate) by_id: OrdMap<TopicId, Arc<Topic>>,
    pub(crate) by_name: OrdMap<TopicName, TopicId>,
    /// The names of deleted topics, by the id that they had.
    pub(crate) former: OrdMap<TopicId, TopicName>,
    /// The same in the order of their deletion.
    pub(crate) former_order: Vector<TopicId>,
    /// Over all topics.
    pub(crate) partition_count: u64,
    /// Over all partitions, without those in pages.
    pub(crate) slice_count: u64,
    /// Manifest pages over all partitions.
    pub(crate) page_count: u64,
}

impl Topics {
    pub(crate) fn get(&self, id: TopicId) -> Option<&Topic> {
        self.by_id.get(&id).map(|topic| &**topic)
    }

    pub(crate) fn get_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.by_id.get_mut(&id).map(Arc::make_mut)
    }

    /// The topic that a caller means.
    pub(crate) fn resolve(&self, topic: &TopicRef) -> Result<(TopicId, &Topic), Problem> {
        let found = self.by_name.get(&topic.name).and_then(|id| Some((*id, self.get(*id)?)));
        let Some((id, found)) = found else {
            let problem =
                Problem::new(ErrorCode::TopicNotFound, format_args!("there is no topic {}", topic.name));
            return Err(problem.with(|facts| facts.topic = Some(topic.name.to_string())));
        };
        if topic.id.is_some_and(|known| known != id) {
            let detail = format_args!("topic {} was deleted and created again", topic.name);
            return Err(Problem::new(ErrorCode::TopicRecreated, detail).with(|facts| {
                facts.topic = Some(topic.name.to_string());
                facts.topic_id = Some(id);
            }));
        }
        Ok((id, found))
    }

    /// The topic that an append unit means, which knows only the id.
    ///
    /// An id whose name now means another topic is `stale_routing`, not `topic_recreated`: the frontend resolves the
    /// name again. There a client that sent the old id learns that the topic was re-created, and one that sent only the
    /// name reaches the new topic.
    pub(crate) fn of_unit(&self, id: TopicId) -> Result<&Topic, Problem> {
        if let Some(topic) = self.get(id) {
            return Ok(topic);
        }
        let name = self.former.get(&id);
        let Some((name, now)) = name.and_then(|name| Some((name, *self.by_name.get(name)?))) else {
            let detail = format_args!("there is no topic with the id {id}");
            return Err(Problem::new(ErrorCode::TopicNotFound, detail).with(|facts| {
                facts.topic = name.map(TopicName::to_string);
            }));
        };
        let detail = format_args!("topic {name} was deleted and created again: resolve its name again");
        Err(Problem::new(ErrorCode::StaleRouting, detail).with(|facts| {
            facts.topic = Some(name.to_string());
            facts.topic_id = Some(now);
            facts.expected = Some(id.to_string());
            facts.actual = Some(now.to_string());
        }))
    }

    pub(crate) fn create(
        &mut self,
        id: TopicId,
        request: &CreateTopic,
        now: Timestamp,
    ) -> Result<TopicDescription, Problem> {
        let CreateTopic { name, partitions, config } = request;
        let config = Config::read(config)?;
        check_partition_count(*partitions)?;
        if let Some((known_id, known)) = self.by_name.get(name).and_then(|id| Some((*id, self.get(*id)?))) {
            if known.partitions.len() as u64 == u64::from(*partitions)
                && Config::read(&known.config)?.typed == config.typed
            {
                return Ok(known.describe(known_id));
            }
            let detail =
                format_args!("topic {name} exists with another partition count or other configuration");
            return Err(Problem::new(ErrorCode::TopicExists, detail).with(|facts| {
                facts.topic = Some(name.to_string());
                facts.topic_id = Some(known_id);
                facts.partition_count = Some(known.partition_count());
            }));
        }
        if self.by_id.contains_key(&id) || self.former.contains_key(&id) {
            return Err(Problem::new(ErrorCode::Conflict, format_args!("the topic id {id} is taken")));
        }
        if self.by_id.len() >= limits::TOPICS_MAX {
            let problem = Problem::new(ErrorCode::InvalidValue, "the cluster has as many topics as it may");
            return Err(problem.with(|facts| facts.limit = Some(limits::TOPICS_MAX as u64)));
        }
        self.check_room(u64::from(*partitions))?;
        let topic = Topic {
            name: name.clone(),
            created: now,
            typed: config.typed,
            config: Arc::new(config.entries),
            partitions: (0..*partitions).map(|_| Arc::default()).collect(),
        };
        let description = TopicDescription { newly_created: true, ..topic.describe(id) };
        self.insert(id, topic);
        Ok(description)
    }

    pub(crate) fn alter(&mut self, request: &AlterTopic) -> Result<TopicDescription, Problem> {
        let (id, topic) = self.resolve(&request.topic)?;
        let mut entries = (*topic.config).clone();
        for (name, value) in &request.config {
            match value {
                Some(value) => {
                    entries.insert(name.clone(), value.clone());
                }
                None if TopicConfig::NAMES.contains(&name.as_str()) => {
                    entries.remove(name);
                }
                // Read as an entry, so that the unknown name is refused in the same words.
                None => drop(Config::read(&[(name.clone(), String::new())].into())?),
            }
        }
        let config = Config::read(&entries)?;
        let partitions_now = topic.partition_count();
        let partitions = request.partitions.unwrap_or(partitions_now);
        check_partition_count(partitions)?;
        if partitions < partitions_now {
            let problem = Problem::new(ErrorCode::InvalidValue, "a topic cannot lose partitions");
            return Err(problem.with(|facts| facts.partition_count = Some(partitions_now)));
        }
        let added = partitions - partitions_now;
        self.check_room(u64::from(added))?;
        self.partition_count = self.partition_count.saturating_add(u64::from(added));
        let topic = self.get_mut(id).expect("the topic was resolved above");
        topic.typed = config.typed;
        topic.config = Arc::new(config.entries);
        topic.partitions.extend((0..added).map(|_| Arc::default()));
        Ok(topic.describe(id))
    }

    /// Gives a topic as many partitions; none if it cannot have them.
    pub(crate) fn grow(&mut self, id: TopicId, partitions: u32) -> Option<()> {
        check_partition_count(partitions).ok()?;
        let added = partitions.checked_sub(self.get(id)?.partition_count())?;
        self.check_room(u64::from(added)).ok()?;
        self.partition_count = self.partition_count.saturating_add(u64::from(added));
        self.get_mut(id)?.partitions.extend((0..added).map(|_| Arc::default()));
        Some(())
    }

    /// Takes a topic away and remembers its id.
    pub(crate) fn remove(&mut self, topic: &TopicRef) -> Result<(TopicId, Arc<Topic>), Problem> {
        let (id, _) = self.resolve(topic)?;
        let topic = self.by_id.remove(&id).expect("the topic was resolved above");
        self.by_name.remove(&topic.name);
        self.partition_count = self.partition_count.saturating_sub(topic.partitions.len() as u64);
        self.remember(id, topic.name.clone());
        Ok((id, topic))
    }

    /// Puts a topic into both maps.
    pub(crate) fn insert(&mut self, id: TopicId, topic: Topic) {
        self.partition_count = self.partition_count.saturating_add(topic.partitions.len() as u64);
        self.by_name.insert(topic.name.clone(), id);
        self.by_id.insert(id, Arc::new(topic));
    }

    /// Remembers the name that a deleted id had.
    pub(crate) fn remember(&mut self, id: TopicId, name: TopicName) {
        self.former.insert(id, name);
        self.former_order.push_back(id);
        if self.former_order.len() > FORMER_MAX
            && let Some(oldest) = self.former_order.pop_front()
        {
            self.former.remove(&oldest);
        }
    }

    fn check_room(&self, partitions: u64) -> Result<(), Problem> {
        if self.partition_count.saturating_add(partitions) <= limits::PARTITIONS_MAX as u64 {
            return Ok(());
        }
        let problem = Problem::new(ErrorCode::InvalidValue, "the cluster has as many partitions as it may");
        Err(problem.with(|facts| facts.limit = Some(limits::PARTITIONS_MAX as u64)))
    }
}

impl Topic {
    /// Whether records have the time of their commit.
    pub(crate) fn stamps_append_time(&self) -> bool {
        self.typed.timestamp_type == TimestampType::LogAppendTime
    }

    pub(crate) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn partition(&self, partition: PartitionIndex) -> Result<&Partition, Problem> {
        let found = usize::try_from(partition.0).ok().and_then(|place| self.partitions.get(place));
        found.map(|found| &**found).ok_or_else(|| {
            let count = self.partition_count();
            let detail = format_args!("topic {} has {count} partitions, not one {partition}", self.name);
            Problem::new(ErrorCode::PartitionNotFound, detail).with(|facts| {
                facts.topic = Some(self.name.to_string());
                facts.partition = Some(partition);
                facts.partition_count = Some(count);
            })
        })
    }

    pub(crate) fn partition_mut(&mut self, partition: PartitionIndex) -> Option<&mut Partition> {
        let place = usize::try_from(partition.0).ok()?;
        self.partitions.get_mut(place).map(Arc::make_mut)
    }

    /// Describes the topic, without offsets.
    pub(crate) fn describe(&self, id: TopicId) -> TopicDescription {
        TopicDescription {
            topic_id: id,
            name: self.name.clone(),
            partition_count: self.partition_count(),
            config: (*self.config).clone(),
            created: self.created,
            offsets: Vec::new(),
            newly_created: false,
        }
    }

    /// The bounds of all partitions, in order.
    pub(crate) fn offsets(&self) -> Vec<PartitionOffsets> {
        let describe = |partition: &Arc<Partition>| {
            let summary = partition.slices.summary();
            let paged = partition.pages.all().iter().map(|page| u64::from(page.slices));
            PartitionOffsets {
                log_start: partition.log_start,
                high_watermark: partition.high_watermark,
                bytes: partition.bytes(),
                slices: paged.fold(summary.slices, u64::saturating_add),
            }
        };
        self.partitions.iter().map(describe).collect()
    }
}

/// A configuration in both its forms.
pub(crate) struct Config {
    pub(crate) typed: TopicConfig,
    /// What was set, in the one spelling: `"007"` is kept as `"7"`, so that a value takes no more room than it needs.
    pub(crate) entries: ConfigEntries,
}

impl Config {
    pub(crate) fn read(entries: &ConfigEntries) -> Result<Self, Problem> {
        let typed = TopicConfig::from_entries(entries)
            .map_err(|error| Problem::new(ErrorCode::InvalidValue, error))?;
        let mut all = typed.to_entries();
        all.retain(|name, _| entries.contains_key(name));
        Ok(Self { typed, entries: all })
    }
}

fn check_partition_count(partitions: u32) -> Result<(), Problem> {
    if (1..=limits::TOPIC_PARTITIONS_MAX).contains(&partitions) {
        return Ok(());
    }
    let max = limits::TOPIC_PARTITIONS_MAX;
    let problem = Problem::new(
        ErrorCode::InvalidValue,
        format_args!("a topic has 1 to {max} partitions, not {partitions}"),
    );
    Err(problem.with(|facts| facts.limit = Some(u64::from(max))))
}
