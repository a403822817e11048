//! The only way in which the state changes.
//!
//! A command is checked whole before anything is touched: a refused one leaves no trace. What an entry does depends on
//! nothing but the state and the entry.

mod commit;
mod page;
mod replace;
mod unit;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, NodeId, PartitionIndex, TopicPartition};
use carnax_core::metadata::{
    AlterSettings, DeleteTopic, DeletedTopic, DeletedWakeup, PartitionFence, ReportUsage, RevokedToken,
    SessionOpened, SetFencingToken, SettingsDescription, TokenNow, TokenTouched, TrimPartition,
    TrimmedPartition, UsageReported,
};
use carnax_core::name::FencingToken;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;

use crate::command::{Command, Outcome, Reply};
use crate::compact::Compactions;
use crate::entry::{Entry, FeatureLevel};
use crate::group::Groups;
use crate::idempotency::IdempotencyKeys;
use crate::job::Jobs;
use crate::node::Cluster;
use crate::page::DeadPages;
use crate::producer::Producers;
use crate::segment::{Moment, Segments};
use crate::session::Sessions;
use crate::settings::Settings;
use crate::token::Tokens;
use crate::topic::Topics;
use crate::usage::Usage;
use crate::wakeup::Wakeups;

/// Everything that the metadata core knows. Cloning is cheap: a clone shares its content until either changes.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) applied: LogIndex,
    pub(crate) log_time: Timestamp,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) settings: Settings,
    pub(crate) sessions: Sessions,
    pub(crate) producers: Producers,
    pub(crate) keys: IdempotencyKeys,
    pub(crate) topics: Topics,
    pub(crate) segments: Segments,
    pub(crate) groups: Groups,
    pub(crate) wakeups: Wakeups,
    pub(crate) jobs: Jobs,
    pub(crate) compactions: Compactions,
    pub(crate) dead_pages: DeadPages,
    pub(crate) tokens: Tokens,
    pub(crate) usage: Usage,
}

impl Default for State {
    fn default() -> Self {
        Self {
            applied: LogIndex(0),
            log_time: Timestamp::EPOCH,
            cluster: None,
            settings: Settings::default(),
            sessions: Sessions::default(),
            producers: Producers::default(),
            keys: IdempotencyKeys::default(),
            topics: Topics::default(),
            segments: Segments::default(),
            groups: Groups::default(),
            wakeups: Wakeups::default(),
            jobs: Jobs::default(),
            compactions: Compactions::default(),
            dead_pages: DeadPages::default(),
            tokens: Tokens::default(),
            usage: Usage::default(),
        }
    }
}

/// Whether a tick ([`Command::ExpireSessions`]) is worth proposing: a hint, cheap enough to be asked each second.
pub fn due(state: &State, now: Timestamp) -> bool {
    let settings = &state.settings.typed;
    state.sessions.due(now)
        || state.producers.due(settings.producer_window, now)
        || state.keys.due(settings.idempotency_window, now)
        || state.groups.due(now, settings.group_retention)
}

impl State {
    /// Applies one log entry and answers each of its commands, in order.
    ///
    /// Deterministic: the same entries from the same state give the same outcomes and the same state, anywhere. Never
    /// panics; a refused command leaves no trace. Before [`Command::Bootstrap`] every other command is refused with
    /// `unavailable`.
    pub fn apply(&mut self, index: LogIndex, entry: &Entry) -> Vec<Outcome> {
        self.applied = self.applied.max(index);
        self.log_time = self.log_time.max(entry.log_time);
        self.forget_expired();
        let at = Moment { index: self.applied, time: self.log_time, level: entry.level };
        entry.commands.iter().map(|command| self.decide(at, command)).collect()
    }

    /// The highest entry that was applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The highest log time of the applied entries.
    pub fn log_time(&self) -> Timestamp {
        self.log_time
    }

    fn decide(&mut self, at: Moment, command: &Command) -> Outcome {
        check_level(command, at.level)?;
        if let Command::Bootstrap { .. } = command {
            return self.bootstrap(at, command);
        }
        let incarnation = self.cluster()?.incarnation;
        match command {
            Command::Bootstrap { .. } => self.bootstrap(at, command),
            Command::OpenSession(request) => {
                let session = self.sessions.open(&request.frontend, at)?;
                self.jobs.somebody_writes(at);
                Ok(Reply::SessionOpened(SessionOpened { session, incarnation, log_time: at.time }))
            }
            Command::CommitSegments(request) => {
                let committed = self.commit_segments(at, request)?;
                self.jobs.somebody_writes(at);
                Ok(Reply::SegmentsCommitted(committed))
            }
            Command::CreateTopic { .. }
            | Command::AlterTopic(_)
            | Command::DeleteTopic(_)
            | Command::TrimPartition(_) => self.change_topic(at, command),
            Command::RegisterNode { .. } | Command::DeregisterNode { .. } | Command::SetVoters { .. } => {
                self.change_nodes(at, command)
            }
            Command::ExpireSessions => {
                self.segments.forget_old(at.time, self.settings.typed.commit_deadline);
                self.groups.expire(at.time, self.settings.typed.group_retention);
                Ok(Reply::SessionsExpired { count: self.sessions.expire(at.time) })
            }
            Command::RaiseProducerEpoch(request) => {
                let raised = self.producers.raise(request, &self.settings.typed, at.time);
                raised.map(Reply::ProducerEpochRaised)
            }
            Command::SetFencingToken(request) => self.set_fencing_token(request).map(Reply::FencingTokenSet),
            Command::AlterSettings(request) => self.alter_settings(at, request).map(Reply::SettingsAltered),
            Command::JoinGroup(_)
            | Command::ConfirmAssignment(_)
            | Command::LeaveGroup(_)
            | Command::ExpireMembers { .. }
            | Command::CommitOffsets(_)
            | Command::DeleteGroup(_) => self.change_group(at, command),
            Command::PutWakeup(_) | Command::DeleteWakeup(_) | Command::ConfirmAnnouncement { .. } => {
                self.change_wakeup(at, command)
            }
            Command::TakeJob(request) => {
                self.jobs.take(&self.settings.typed, at, request, incarnation).map(Reply::JobTaken)
            }
            Command::ReportJob(report) => self.jobs.report(at, report).map(Reply::JobReported),
            Command::ReplaceSlices(_)
            | Command::ReplaceByPage(_)
            | Command::Retain { .. }
            | Command::ForgetDead(_)
            | Command::FinishCompaction(_) => self.maintain(at, command),
            Command::CreateToken(_)
            | Command::AlterToken(_)
            | Command::RevokeToken(_)
            | Command::TouchToken(_) => self.change_token(at, command),
            Command::ReportUsage(report) => self.report_usage(at, report).map(Reply::UsageReported),
            Command::RaiseLevel { to } => self.raise_level(*to),
        }
    }

    fn change_topic(&mut self, at: Moment, command: &Command) -> Outcome {
        match command {
            Command::CreateTopic { id, request } => {
                let created = self.topics.create(*id, request, at.time)?;
                if created.newly_created {
                    self.groups.topic_grew(&self.topics, &created.name);
                }
                Ok(Reply::TopicCreated(created))
            }
            Command::AlterTopic(request) => {
                let altered = self.topics.alter(request)?;
                if request.partitions.is_some() {
                    self.groups.topic_grew(&self.topics, &altered.name);
                }
                Ok(Reply::TopicAltered(altered))
            }
            Command::DeleteTopic(request) => self.delete_topic(at, request).map(Reply::TopicDeleted),
            Command::TrimPartition(request) => self.trim(at, request).map(Reply::PartitionTrimmed),
            _ => Err(Problem::new(ErrorCode::Internal, "not a change of a topic")),
        }
    }

    fn change_nodes(&mut self, at: Moment, command: &Command) -> Outcome {
        let cluster = self.cluster_mut()?;
        match command {
            Command::RegisterNode { address, disk } => {
                let node = cluster.register(address, *disk, at.index)?;
                Ok(Reply::NodeRegistered { node, cluster: cluster.id })
            }
            Command::DeregisterNode { node } => {
                cluster.deregister(*node)?;
                Ok(Reply::NodeDeregistered { node: *node })
            }
            Command::SetVoters { voters } => {
                cluster.set_voters(voters)?;
                Ok(Reply::VotersSet { appends_open: cluster.appends_open })
            }
            _ => Err(Problem::new(ErrorCode::Internal, "not a change of nodes")),
        }
    }

    fn alter_settings(
        &mut self,
        at: Moment,
        request: &AlterSettings,
    ) -> Result<SettingsDescription, Problem> {
        let deadline = self.settings.typed.commit_deadline;
        let altered = self.settings.alter(request)?;
        if self.settings.typed.commit_deadline != deadline {
            self.segments.close_before(at.time.saturating_sub(deadline));
        }
        self.forget_expired();
        Ok(altered)
    }

    fn delete_topic(&mut self, at: Moment, request: &DeleteTopic) -> Result<DeletedTopic, Problem> {
        let (topic_id, topic) = self.topics.remove(&request.topic)?;
        for (index, partition) in (0..).zip(&topic.partitions) {
            let on = TopicPartition { topic: topic_id, partition: PartitionIndex(index) };
            for page in partition.pages.all() {
                self.dead_pages.bury(page, on, at, true);
                self.topics.page_count = self.topics.page_count.saturating_sub(1);
            }
            partition.slices.visit(&mut |slice| self.segments.drop_slice(slice.segment, at));
            let slices = partition.slices.summary().slices;
            self.topics.slice_count = self.topics.slice_count.saturating_sub(slices);
        }
        self.groups.topic_deleted(&self.topics, topic_id, &topic.name);
        self.wakeups.topic_deleted(topic_id);
        self.compactions.topic_deleted(topic_id);
        self.usage.topic_deleted(topic_id);
        Ok(DeletedTopic { topic_id })
    }

    fn change_group(&mut self, at: Moment, command: &Command) -> Outcome {
        let Self { groups, topics, .. } = self;
        match command {
            Command::JoinGroup(request) => groups.join(topics, at, request).map(Reply::GroupJoined),
            Command::ConfirmAssignment(heartbeat) => {
                groups.confirm(topics, heartbeat).map(Reply::AssignmentConfirmed)
            }
            Command::LeaveGroup(request) => groups.leave(topics, at, request).map(Reply::GroupLeft),
            Command::ExpireMembers { members } => {
                Ok(Reply::MembersExpired { count: groups.expire_members(topics, at, members) })
            }
            Command::CommitOffsets(request) => {
                groups.commit(topics, at, request).map(Reply::OffsetsCommitted)
            }
            Command::DeleteGroup(request) => groups.delete(&request.group).map(Reply::GroupDeleted),
            _ => Err(Problem::new(ErrorCode::Internal, "not a change of a group")),
        }
    }

    fn maintain(&mut self, at: Moment, command: &Command) -> Outcome {
        match command {
            Command::ReplaceSlices(request) => {
                let replaced = self.replace_slices(at, request)?;
                self.jobs.somebody_writes(at);
                Ok(Reply::SlicesReplaced(replaced))
            }
            Command::ReplaceByPage(request) => {
                let replaced = self.replace_by_page(at, request)?;
                self.jobs.somebody_writes(at);
                Ok(Reply::PageReplaced(replaced))
            }
            Command::Retain { partitions } => Ok(Reply::Retained { moved: self.retain(at, partitions)? }),
            Command::ForgetDead(request) => self.forget_dead(request).map(Reply::DeadForgotten),
            Command::FinishCompaction(request) => self.finish_compaction(at, request),
            _ => Err(Problem::new(ErrorCode::Internal, "not a change by maintenance")),
        }
    }

    fn change_wakeup(&mut self, at: Moment, command: &Command) -> Outcome {
        let Self { wakeups, topics, .. } = self;
        match command {
            Command::PutWakeup(request) => wakeups.put(topics, at, request).map(Reply::WakeupPut),
            Command::DeleteWakeup(request) => {
                let (topic_id, _) = topics.resolve(&request.topic)?;
                wakeups.delete(topic_id, &request.name)?;
                Ok(Reply::WakeupDeleted(DeletedWakeup { topic_id }))
            }
            Command::ConfirmAnnouncement { topic, wakeup, version, partitions } => {
                wakeups.confirm(topics, (*topic, wakeup, *version), partitions)?;
                Ok(Reply::AnnouncementConfirmed)
            }
            _ => Err(Problem::new(ErrorCode::Internal, "not a change of a wake-up")),
        }
    }

    /// Never lower: what was written at a higher level would not be understood.
    fn raise_level(&mut self, to: FeatureLevel) -> Outcome {
        let cluster = self.cluster_mut()?;
        let from = cluster.level;
        if to < from {
            let detail = format_args!(
                "the cluster is at feature level {from}, and a level is never lowered: what it has written would not be understood"
            );
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
        cluster.level = to;
        Ok(Reply::LevelRaised { from, to })
    }

    /// The level at which entries are proposed; none before the cluster is bootstrapped.
    pub fn feature_level(&self) -> Option<FeatureLevel> {
        self.cluster.as_ref().map(|cluster| cluster.level)
    }

    fn change_token(&mut self, at: Moment, command: &Command) -> Outcome {
        let tokens = &mut self.tokens;
        match command {
            Command::CreateToken(request) => tokens.create(request, at.time).map(Reply::TokenCreated),
            Command::AlterToken(request) => tokens.alter(request, at.time).map(Reply::TokenAltered),
            Command::RevokeToken(request) => {
                tokens.revoke(&request.id, at.time)?;
                self.usage.token_revoked(&request.id);
                Ok(Reply::TokenRevoked(RevokedToken { id: request.id.clone() }))
            }
            Command::TouchToken(request) => {
                let last_used = tokens.touch(&request.id, at.time)?;
                Ok(Reply::TokenTouched(TokenTouched { last_used }))
            }
            _ => Err(Problem::new(ErrorCode::Internal, "not a change of a token")),
        }
    }

    fn report_usage(&mut self, at: Moment, report: &ReportUsage) -> Result<UsageReported, Problem> {
        let Self { usage, topics, tokens, .. } = self;
        usage.report(report, at.time, topics, tokens)
    }

    /// Drops producers and idempotency keys whose window has passed: done before each entry, so that what has expired is
    /// unknown at once, whether or not a tick came.
    fn forget_expired(&mut self) {
        let settings = &self.settings.typed;
        self.producers.expire(settings.producer_window, self.log_time);
        self.keys.expire(settings.idempotency_window, self.log_time);
    }

    fn bootstrap(&mut self, at: Moment, command: &Command) -> Outcome {
        let Command::Bootstrap { cluster, incarnation, voters_wanted, address, disk } = command else {
            return Err(Problem::new(ErrorCode::Internal, "not a bootstrap"));
        };
        if let Some(known) = &self.cluster {
            if known.id == *cluster && known.node_of_disk(*disk) == Some(Cluster::FIRST_NODE) {
                return Ok(Reply::Bootstrapped { node: Cluster::FIRST_NODE });
            }
            let detail = format_args!("this log already belongs to cluster {}", known.id);
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
        let (ids, level) = ((*cluster, *incarnation), at.level.max(FeatureLevel::UNRECORDED));
        self.cluster = Some(Cluster::new(ids, level, *voters_wanted, address, *disk)?);
        self.jobs.cluster_begins(at);
        Ok(Reply::Bootstrapped { node: Cluster::FIRST_NODE })
    }

    fn set_fencing_token(&mut self, request: &SetFencingToken) -> Result<PartitionFence, Problem> {
        let SetFencingToken { topic, partition, token, from } = request;
        let (topic_id, topic) = self.topics.resolve(topic)?;
        let known = topic.partition(*partition)?;
        let wanted = match from {
            TokenNow::Any => known.fencing_token.as_ref(),
            TokenNow::Nothing => None,
            TokenNow::Token(token) => Some(token),
        };
        if known.fencing_token.as_ref() != wanted {
            let (expected, actual) = (as_text(wanted), as_text(known.fencing_token.as_ref()));
            return Err(condition_failed(&topic.name, *partition, expected, actual));
        }
        let high_watermark = known.high_watermark;
        let topic = self.topics.get_mut(topic_id).expect("the topic was resolved above");
        let known = topic.partition_mut(*partition).expect("the partition was found above");
        known.fencing_token.clone_from(token);
        Ok(PartitionFence { topic_id, token: token.clone(), high_watermark })
    }

    fn trim(&mut self, at: Moment, request: &TrimPartition) -> Result<TrimmedPartition, Problem> {
        let (id, topic) = self.topics.resolve(&request.topic)?;
        let partition = topic.partition(request.partition)?;
        if request.before > partition.high_watermark {
            let detail = format_args!("{} lies above the high watermark", request.before);
            return Err(Problem::new(ErrorCode::OffsetAboveHighWatermark, detail).with(|facts| {
                facts.log_start_offset = Some(partition.log_start);
                facts.high_watermark = Some(partition.high_watermark);
            }));
        }
        let on = TopicPartition { topic: id, partition: request.partition };
        Ok(TrimmedPartition { log_start: self.move_log_start(at, on, request.before) })
    }

    /// Moves the log start of a partition that exists up, and drops what lies below it; says where it is now.
    fn move_log_start(&mut self, at: Moment, on: TopicPartition, before: Offset) -> Offset {
        let (mut dropped, mut pages) = (Vec::new(), 0);
        let partition = self.topics.get_mut(on.topic).and_then(|topic| topic.partition_mut(on.partition));
        let partition = partition.expect("the caller has found the partition");
        partition.trim(before, &mut |slice| dropped.push(slice.segment), &mut |page| {
            pages += 1;
            self.dead_pages.bury(page, on, at, true);
        });
        let log_start = partition.log_start;
        self.topics.page_count = self.topics.page_count.saturating_sub(pages);
        self.drop_slices(at, &dropped);
        log_start
    }

    pub(crate) fn cluster(&self) -> Result<&Cluster, Problem> {
        self.cluster.as_ref().ok_or_else(not_bootstrapped)
    }

    fn cluster_mut(&mut self) -> Result<&mut Cluster, Problem> {
        self.cluster.as_mut().ok_or_else(not_bootstrapped)
    }

    /// The node with a disk, if it is registered.
    pub fn node_of_disk(&self, disk: u128) -> Option<NodeId> {
        self.cluster.as_ref()?.node_of_disk(disk)
    }
}

/// Whether a command may be done at a level.
///
/// # Errors
/// `feature_level_too_low`.
pub fn check_level(command: &Command, level: FeatureLevel) -> Result<(), Problem> {
    let needed = command.level();
    if needed <= level {
        return Ok(());
    }
    let detail = format_args!(
        "this needs feature level {needed} and the cluster is at {level}: run `carnax cluster upgrade` once every metadata node runs the new version"
    );
    Err(Problem::new(ErrorCode::FeatureLevelTooLow, detail))
}

fn not_bootstrapped() -> Problem {
    Problem::new(ErrorCode::Unavailable, "the cluster is not bootstrapped")
}

/// Something that a caller presumed of a partition and that is not so.
fn condition_failed(
    topic: &TopicName,
    partition: PartitionIndex,
    expected: String,
    actual: String,
) -> Problem {
    let detail = format_args!("partition {partition} of topic {topic} has {actual}, not {expected}");
    Problem::new(ErrorCode::ConditionFailed, detail).with(|facts| {
        facts.topic = Some(topic.to_string());
        facts.partition = Some(partition);
        facts.expected = Some(expected);
        facts.actual = Some(actual);
    })
}

fn as_text(token: Option<&FencingToken>) -> String {
    token.map_or_else(|| "none".to_owned(), FencingToken::to_string)
}
