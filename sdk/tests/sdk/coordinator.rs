//! Groups in memory behind the HTTP API: membership, hand-over, offset commits and atomic appends with the checks of a real
//! metadata node, and topics that are [`Log`]s. What a member may not do is refused, and everything that was accepted is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use carnax::{
    AssignedTopic, CommitOffsetsRequest, Compression, ErrorCode, GroupOffsetResponse, GroupOffsetsResponse,
    Offset, PartitionIndex, Timestamp,
};
use carnax_core::http::{
    AppendGroupOffsets, AssignmentResponse, AtomicAppendResponse, CommitOffsetsResponse, HeartbeatRequest,
    JoinGroupRequest, LeftGroupResponse, OffsetMove, read_envelope,
};
use carnax_core::partitioner::partition_of;
use carnax_core::problem::Problem;
use carnax_core::record::{BatchBuilder, NewRecord};
use http::{HeaderMap, Method};

use crate::log::{Log, topic_id};
use crate::server::{Reply, Seen};

/// A partition of a topic by its name.
pub(crate) type Place = (String, u32);

#[derive(Debug, Default, Clone)]
pub(crate) struct Member {
    pub(crate) epoch: u32,
    pub(crate) assignment_epoch: u64,
    pub(crate) owned: BTreeSet<Place>,
    target: BTreeSet<Place>,
    /// What it was told to keep under its assignment epoch.
    told: Option<BTreeSet<Place>>,
    topics: BTreeSet<String>,
    number: u64,
}

impl Member {
    fn keep(&self) -> BTreeSet<Place> {
        self.owned.intersection(&self.target).cloned().collect()
    }
}

/// One group and its topics; shared with the script of a server.
#[derive(Clone)]
pub(crate) struct Coordinator(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) topics: BTreeMap<String, Log>,
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) committed: BTreeMap<Place, (u64, String)>,
    pub(crate) session_ms: u64,
    epoch: u32,
}

type Refusal = Box<Problem>;

fn refused(code: ErrorCode) -> Refusal {
    Box::new(Problem::new(code, "as the group says"))
}

impl Coordinator {
    pub(crate) fn new(topics: &[(&str, usize)]) -> Self {
        let logs = topics.iter().zip(1..).map(|((name, partitions), number)| {
            let log = Log::new(*partitions);
            log.change(|state| state.topic_id = topic_id(number));
            ((*name).to_owned(), log)
        });
        let topics = logs.collect();
        let (members, committed) = (BTreeMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { topics, members, committed, session_ms: 10_000, epoch: 0 })))
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn log(&self, topic: &str) -> Log {
        self.change(|state| state.topics[topic].clone())
    }

    pub(crate) fn committed(&self, topic: &str, partition: u32) -> Option<u64> {
        self.change(|state| Some(state.committed.get(&(topic.to_owned(), partition))?.0))
    }

    /// Expels a member, as if its session had expired here.
    pub(crate) fn expel(&self, member: &str) {
        self.change(|state| {
            state.members.remove(member);
            state.rebalance();
        });
    }

    /// Appends records with their offsets as values, ten a batch, and keys that repeat.
    pub(crate) fn fill(&self, topic: &str, partition: u32, records: u64) {
        let log = self.log(topic);
        let first = log.change(|state| state.partitions[partition as usize].next);
        for from in (first..first + records).step_by(10) {
            let mut batch = BatchBuilder::new(1 << 20);
            for offset in from..(from + 10).min(first + records) {
                let (key, value) = (format!("key-{}", offset % 3), offset.to_string());
                let record = NewRecord {
                    timestamp: Timestamp::from_millis(i64::try_from(offset).unwrap()),
                    key: Some(key.as_bytes()),
                    value: Some(value.as_bytes()),
                    headers: &[],
                };
                batch.push(&record).unwrap();
            }
            append_to(&log, partition, batch.build(Compression::None));
        }
    }

    /// Writes outputs and moves an offset, as a request of an earlier life would.
    pub(crate) fn write_early(&self, topic: &str, moved: &OffsetMove, values: impl Iterator<Item = String>) {
        let key = moved.partition.to_string();
        let log = self.log(topic);
        let partitions = u32::try_from(log.change(|state| state.partitions.len())).unwrap();
        for value in values {
            let mut batch = BatchBuilder::new(1 << 20);
            let timestamp = Timestamp::from_millis(1);
            let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
            batch.push(&NewRecord { timestamp, key, value, headers: &[] }).unwrap();
            let partition = partition_of(key.unwrap(), partitions);
            append_to(&log, partition.0, batch.build(Compression::None));
        }
        let place = (moved.topic.to_string(), moved.partition.0);
        self.change(|state| state.committed.insert(place, (moved.to.0, String::new())));
    }

    /// Does what a frontend would do.
    pub(crate) fn serve(&self, seen: &Seen) -> Reply {
        let parts: Vec<&str> = seen.path.split('/').skip(2).collect();
        if let ["topics", topic, ..] = parts.as_slice() {
            let log = self.change(|state| state.topics.get(*topic).cloned());
            return log
                .map_or_else(|| Reply::problem(ErrorCode::TopicNotFound, |_| {}), |log| log.serve(seen));
        }
        let mut state = self.0.lock().unwrap();
        let reply = match (&seen.method, parts.as_slice()) {
            (&Method::POST, ["groups", _, "members"]) => state.join(seen),
            (&Method::POST, ["groups", _, "members", member, "heartbeat"]) => state.heartbeat(member, seen),
            (&Method::DELETE, ["groups", _, "members", member]) => state.leave(member, seen),
            (&Method::GET, ["groups", _, "offsets"]) => state.offsets(seen),
            (&Method::POST, ["groups", _, "offsets"]) => state.commit(seen),
            (&Method::POST, ["append"]) => state.append(seen),
            _ => Err(refused(ErrorCode::RouteNotFound)),
        };
        reply.unwrap_or_else(|problem| Reply::problem(problem.code, |set| *set = *problem.facts))
    }
}

fn append_to(log: &Log, partition: u32, batches: Bytes) {
    let reply = log.serve(&Seen {
        method: Method::POST,
        path: format!("/v1/topics/x/partitions/{partition}/records"),
        query: String::new(),
        headers: HeaderMap::new(),
        body: batches,
    });
    assert!(matches!(reply, Reply::Answer(answer) if answer.status().is_success()));
}

impl State {
    fn join(&mut self, seen: &Seen) -> Result<Reply, Refusal> {
        let request: JoinGroupRequest = serde_json::from_slice(&seen.body).unwrap();
        let member = request.member.unwrap().to_string();
        self.session_ms = request.session_timeout_ms.unwrap();
        if !self.members.contains_key(&member) {
            self.epoch += 1;
            let topics = request.topics.iter().map(ToString::to_string).collect();
            self.members.insert(member.clone(), Member { epoch: self.epoch, topics, ..Member::default() });
            self.rebalance();
        }
        Ok(self.answer(&member))
    }

    fn heartbeat(&mut self, member: &str, seen: &Seen) -> Result<Reply, Refusal> {
        let request: HeartbeatRequest = serde_json::from_slice(&seen.body).unwrap();
        self.check(member, Some(request.epoch))?;
        let state = self.members.get_mut(member).unwrap();
        if request.assignment_epoch == state.assignment_epoch {
            state.owned = state.keep();
            self.grant();
        }
        Ok(self.answer(member))
    }

    fn leave(&mut self, member: &str, seen: &Seen) -> Result<Reply, Refusal> {
        let epoch: Option<u32> = seen.param("epoch").map(|epoch| epoch.parse().unwrap());
        let was_member = self.members.contains_key(member);
        if was_member && epoch.is_some() {
            self.check(member, epoch)?;
        }
        self.members.remove(member);
        self.rebalance();
        Ok(Reply::json(&LeftGroupResponse { was_member }))
    }

    /// Deals partitions out one by one: balanced, and moving more than it has to.
    pub(crate) fn rebalance(&mut self) {
        self.members.values_mut().for_each(|member| member.target.clear());
        for (topic, log) in &self.topics {
            let mut readers: Vec<_> =
                self.members.values_mut().filter(|member| member.topics.contains(topic)).collect();
            if readers.is_empty() {
                continue;
            }
            let (partitions, count) = (log.change(|state| state.partitions.len()), readers.len());
            for partition in 0..partitions {
                let place = (topic.clone(), u32::try_from(partition).unwrap());
                readers[partition % count].target.insert(place);
            }
        }
        self.grant();
    }

    fn grant(&mut self) {
        let owned: BTreeSet<Place> =
            self.members.values().flat_map(|member| member.owned.iter().cloned()).collect();
        let exists = |place: &Place| self.topics.contains_key(&place.0);
        for member in self.members.values_mut() {
            member.owned.retain(exists);
            member.owned.extend(member.target.difference(&owned).cloned());
            if member.told.as_ref() != Some(&member.keep()) {
                member.assignment_epoch += 1;
                member.told = Some(member.keep());
            }
        }
    }

    fn answer(&self, name: &str) -> Reply {
        let member = &self.members[name];
        let mut assignment: BTreeMap<String, Vec<PartitionIndex>> = BTreeMap::new();
        for (topic, partition) in member.keep() {
            assignment.entry(topic).or_default().push(PartitionIndex(partition));
        }
        let assigned = assignment.into_iter().map(|(topic, partitions)| AssignedTopic {
            topic_id: self.topics[&topic].change(|state| state.topic_id),
            topic: topic.parse().unwrap(),
            partitions,
        });
        Reply::json(&AssignmentResponse {
            member: name.parse().unwrap(),
            epoch: member.epoch,
            assignment_epoch: member.assignment_epoch,
            assignment: assigned.collect(),
            heartbeat_interval_ms: 20,
            session_timeout_ms: self.session_ms,
        })
    }

    fn check(&self, member: &str, epoch: Option<u32>) -> Result<(), Refusal> {
        let state = self.members.get(member).ok_or_else(|| refused(ErrorCode::UnknownMember))?;
        if Some(state.epoch) == epoch { Ok(()) } else { Err(refused(ErrorCode::Fenced)) }
    }

    fn check_owner(&self, member: Option<&str>, place: &Place) -> Result<(), Refusal> {
        let owner = self.members.iter().find(|(_, state)| state.owned.contains(place));
        if owner.map(|(name, _)| name.as_str()) == member {
            Ok(())
        } else {
            Err(refused(ErrorCode::NotOwner))
        }
    }

    fn check_from(&self, place: &Place, from: Option<Offset>) -> Result<(), Refusal> {
        let actual = self.committed.get(place).map(|(offset, _)| Offset(*offset));
        if actual == from {
            return Ok(());
        }
        let text =
            |offset: Option<Offset>| Some(offset.map_or("none".to_owned(), |offset| offset.to_string()));
        let problem = Problem::new(ErrorCode::ConditionFailed, "as the group says").with(|facts| {
            facts.topic = Some(place.0.clone());
            facts.partition = Some(PartitionIndex(place.1));
            (facts.expected, facts.actual) = (text(from), text(actual));
        });
        Err(Box::new(problem))
    }

    fn commit(&mut self, seen: &Seen) -> Result<Reply, Refusal> {
        let request: CommitOffsetsRequest = serde_json::from_slice(&seen.body).unwrap();
        let member = request.member.as_ref().map(|member| member.as_str());
        if let Some(member) = member {
            self.check(member, request.epoch)?;
        }
        let entries: Vec<_> = request
            .offsets
            .iter()
            .map(|entry| ((entry.topic.to_string(), entry.partition.0), entry))
            .collect();
        for (place, entry) in &entries {
            self.check_owner(member, place)?;
            if let Some(from) = entry.from {
                self.check_from(place, from)?;
            }
        }
        if let (Some(member), Some(number)) = (member, request.number) {
            let state = self.members.get_mut(member).unwrap();
            if number <= state.number {
                return Ok(Reply::json(&CommitOffsetsResponse { ignored: true }));
            }
            state.number = number;
        }
        for (place, entry) in entries {
            self.committed.insert(place, (entry.offset.unwrap().0, entry.metadata.clone()));
        }
        Ok(Reply::json(&CommitOffsetsResponse { ignored: false }))
    }

    fn check_moves(&self, group: &AppendGroupOffsets) -> Result<(), Refusal> {
        let member = group.member.as_ref().map(|member| member.as_str());
        if let Some(member) = member {
            self.check(member, group.epoch)?;
        }
        for moved in &group.offsets {
            self.check_owner(member, &(moved.topic.to_string(), moved.partition.0))?;
        }
        group
            .offsets
            .iter()
            .try_for_each(|moved| self.check_from(&(moved.topic.to_string(), moved.partition.0), moved.from))
    }

    fn append(&mut self, seen: &Seen) -> Result<Reply, Refusal> {
        assert!(seen.header("idempotency-key").is_none(), "the offsets tell repeats apart");
        let (head, batches) = read_envelope(seen.body.clone()).unwrap();
        let group = head.group.unwrap();
        self.check_moves(&group)?;
        if head.parts.iter().any(|part| !self.topics.contains_key(part.topic.as_str())) {
            return Err(refused(ErrorCode::TopicNotFound));
        }
        for (part, batches) in head.parts.iter().zip(batches) {
            append_to(&self.topics[part.topic.as_str()], part.partition.0, batches);
        }
        for moved in &group.offsets {
            let place = (moved.topic.to_string(), moved.partition.0);
            self.committed.insert(place, (moved.to.0, String::new()));
        }
        Ok(Reply::json(&AtomicAppendResponse { results: Vec::new(), duplicate: false }))
    }

    fn offsets(&self, seen: &Seen) -> Result<Reply, Refusal> {
        let topics: Vec<&str> =
            seen.query.split('&').filter_map(|pair| pair.strip_prefix("topic=")).collect();
        let mut offsets = Vec::new();
        for topic in topics {
            let log = self.topics.get(topic).ok_or_else(|| refused(ErrorCode::TopicNotFound))?;
            let bounds = log.change(|state| {
                let bounds = state.partitions.iter().map(|partition| (partition.log_start, partition.next));
                (state.topic_id, bounds.collect::<Vec<_>>())
            });
            for ((log_start, next), partition) in bounds.1.into_iter().zip(0..) {
                let committed = self.committed.get(&(topic.to_owned(), partition));
                offsets.push(GroupOffsetResponse {
                    topic: topic.parse().unwrap(),
                    topic_id: bounds.0,
                    partition: PartitionIndex(partition),
                    offset: committed.map(|(offset, _)| Offset(*offset)),
                    metadata: committed.map(|(_, metadata)| metadata.clone()).unwrap_or_default(),
                    committed: None,
                    log_start_offset: Offset(log_start),
                    high_watermark: Offset(next),
                    lag: 0,
                    owner: None,
                });
            }
        }
        Ok(Reply::json(&GroupOffsetsResponse { offsets, next_after: None, lag: 0 }))
    }
}
