//! Groups: stories of who gets which partition when, and of who may commit what.

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::metadata::{
    AlterTopic, Assignor, CommitOffsets, CommittedNow, DeleteGroup, DescribeGroup, FetchOffsets,
    GroupDescription, GroupPhase, Heartbeat, JoinGroup, LeaveGroup, LeftGroup, MemberAssignment,
    OffsetCommit, OffsetsCommitted,
};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Outcome, Reply, answer};

use crate::support::{Cluster, bytes_of, code, delete, named, read_back, segment, slice};

mod membership;
mod offsets;
mod random;

const GROUP: &str = "readers";

/// A group in the middle of a hand-over and one without members, in a cluster that has topic 1 with three partitions.
pub(crate) fn commands_of_groups() -> Vec<Command> {
    let topic = crate::support::topic_id(1);
    let said = OffsetCommit { metadata: "so far".to_owned(), ..to(on(topic, 2), 3) };
    let mut numbered = plain(Some(("ada", 1)), vec![to(on(topic, 0), 5), said]);
    numbered.number = Some(7);
    let mut alone = plain(None, vec![to(on(topic, 1), 0)]);
    alone.group = "loners".parse().unwrap();
    vec![
        Command::JoinGroup(join("ada", &["flights"], &[])),
        Command::CommitOffsets(numbered),
        Command::JoinGroup(join("bob", &[], &["fli*", "later-?"])),
        Command::CommitOffsets(alone),
    ]
}

fn join(member: &str, topics: &[&str], patterns: &[&str]) -> JoinGroup {
    JoinGroup {
        group: GROUP.parse().unwrap(),
        member: member.parse().unwrap(),
        client: format!("client of {member}"),
        topics: topics.iter().map(|name| name.parse().unwrap()).collect(),
        patterns: patterns.iter().map(|pattern| pattern.parse().unwrap()).collect(),
        assignor: None,
        session_timeout_millis: 45_000,
    }
}

fn heartbeat(member: &str, assignment: &MemberAssignment) -> Heartbeat {
    Heartbeat {
        group: GROUP.parse().unwrap(),
        member: member.parse().unwrap(),
        epoch: assignment.epoch,
        assignment_epoch: assignment.assignment_epoch,
    }
}

fn on(topic: TopicId, partition: u32) -> TopicPartition {
    TopicPartition { topic, partition: PartitionIndex(partition) }
}

fn to(on: TopicPartition, offset: u64) -> OffsetCommit {
    OffsetCommit { on, offset: Some(Offset(offset)), from: CommittedNow::Any, metadata: String::new() }
}

fn plain(member: Option<(&str, u32)>, offsets: Vec<OffsetCommit>) -> CommitOffsets {
    CommitOffsets {
        group: GROUP.parse().unwrap(),
        member: member.map(|(member, epoch)| (member.parse().unwrap(), epoch)),
        number: None,
        only_if_empty: false,
        offsets,
    }
}

fn fetch(topics: &[&str], after: Option<TopicPartition>, limit: u32) -> FetchOffsets {
    let topics = topics.iter().map(|name| named(name)).collect();
    FetchOffsets { group: GROUP.parse().unwrap(), topics, after, limit }
}

impl Cluster {
    fn assigned(&mut self, outcome: Outcome) -> Result<MemberAssignment, Problem> {
        match outcome? {
            Reply::GroupJoined(assignment) | Reply::AssignmentConfirmed(assignment) => {
                assert_eq!(bytes_of(&read_back(&bytes_of(&self.state)).unwrap()), bytes_of(&self.state));
                Ok(assignment)
            }
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, request: JoinGroup) -> Result<MemberAssignment, Problem> {
        let outcome = self.one(Command::JoinGroup(request));
        self.assigned(outcome)
    }

    /// What a heartbeat of a member does that has reached what it was told.
    fn beat(&mut self, member: &str, told: &MemberAssignment) -> Result<MemberAssignment, Problem> {
        let heartbeat = heartbeat(member, told);
        if answer::must_confirm(&self.state, &heartbeat) {
            let outcome = self.one(Command::ConfirmAssignment(heartbeat));
            return self.assigned(outcome);
        }
        answer::member_assignment(&self.state, &heartbeat)
    }

    fn leave(&mut self, member: &str, epoch: Option<u32>) -> Result<bool, Problem> {
        let (group, member) = (GROUP.parse().unwrap(), member.parse().unwrap());
        match self.one(Command::LeaveGroup(LeaveGroup { group, member, epoch }))? {
            Reply::GroupLeft(LeftGroup { was_member }) => Ok(was_member),
            other => panic!("{other:?}"),
        }
    }

    fn expire(&mut self, member: &str, epoch: u32) -> u64 {
        let members = vec![(GROUP.parse().unwrap(), member.parse().unwrap(), epoch)];
        match self.one(Command::ExpireMembers { members }) {
            Ok(Reply::MembersExpired { count }) => count,
            other => panic!("{other:?}"),
        }
    }

    /// Whether it was ignored.
    fn commit_offsets(&mut self, request: CommitOffsets) -> Result<bool, Problem> {
        match self.one(Command::CommitOffsets(request))? {
            Reply::OffsetsCommitted(OffsetsCommitted { ignored }) => Ok(ignored),
            other => panic!("{other:?}"),
        }
    }

    fn grow(&mut self, name: &str, partitions: u32) {
        let request = AlterTopic { topic: named(name), partitions: Some(partitions), config: [].into() };
        self.one(Command::AlterTopic(request)).unwrap();
    }

    fn describe(&self) -> GroupDescription {
        answer::describe_group(&self.state, &DescribeGroup { group: GROUP.parse().unwrap() }).unwrap()
    }

    /// The committed offsets of a topic, by partition.
    fn committed(&self, topic: &str) -> Vec<Option<u64>> {
        let page = answer::fetch_offsets(&self.state, &fetch(&[topic], None, 10_000)).unwrap();
        page.offsets.iter().map(|row| row.offset.map(|offset| offset.0)).collect()
    }

    /// Appends records to a partition.
    fn fill(&mut self, topic: TopicId, partition: u32, records: u32) {
        let session = self.open_session();
        let id = self.segment(u128::from(self.index));
        self.commit(session, 1, vec![segment(id, vec![slice(topic, partition, 0, 10, records, 0)])]).unwrap();
    }
}

/// The partitions of an assignment, as `topic/partition`.
fn names(assignment: &MemberAssignment) -> Vec<String> {
    let of_topic = |topic: &carnax_core::metadata::AssignedTopic| {
        topic.partitions.iter().map(|partition| format!("{}/{partition}", topic.topic)).collect::<Vec<_>>()
    };
    assignment.partitions.iter().flat_map(of_topic).collect()
}
