//! Clients that join, hear late, repeat themselves, vanish and come back, with topics that come, grow and go, against a naive
//! model: what each client really holds, and for each partition its owner and its committed offset. Every answer is the
//! model's, no partition is ever held by two clients, a partition leaves its owner only for a reason, and after quiet
//! everything is shared out evenly. Snapshots in between change nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use carnax_core::metadata::AssignedTopic;
use carnax_metadata_state::State;
use proptest::prelude::*;

use super::*;
use crate::support::{create, topic_id};

const TOPICS: [&str; 3] = ["orders-eu", "orders-us", "other"];
const MEMBERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const DAY: i64 = 24 * 60 * 60 * 1_000;

#[derive(Debug, Clone)]
enum Step {
    Join {
        member: usize,
        asks: usize,
    },
    Leave {
        member: usize,
    },
    Expire {
        member: usize,
        stale: bool,
    },
    /// Sends a heartbeat; its answer arrives later. A stale one tells of an earlier assignment.
    Beat {
        member: usize,
        stale: bool,
    },
    /// An answer arrives.
    Hear {
        member: usize,
    },
    Create {
        topic: usize,
        partitions: u32,
    },
    Grow {
        topic: usize,
        partitions: u32,
    },
    Delete {
        topic: usize,
    },
    Fill {
        topic: usize,
        partition: u32,
    },
    Commit {
        member: Option<usize>,
        stale: bool,
        topic: usize,
        partition: u32,
        offset: Option<u64>,
        from: Option<u64>,
        number: Option<u64>,
    },
    Wait {
        days: i64,
    },
    Restore,
}

/// What a process knows that believes to be a member.
#[derive(Default)]
struct Client {
    epoch: u32,
    told: u64,
    before: u64,
    holds: BTreeSet<TopicPartition>,
    inbox: VecDeque<MemberAssignment>,
    number: Option<u64>,
}

#[derive(Default)]
struct Model {
    clients: BTreeMap<usize, Client>,
    /// Living members with what they ask for.
    asks: BTreeMap<usize, usize>,
    exists: bool,
    last_active: i64,
    epoch: u32,
    topics: BTreeMap<usize, (TopicId, u32)>,
    /// All ids that ever were.
    ids: Vec<(usize, TopicId)>,
    records: BTreeMap<TopicPartition, u64>,
    owners: BTreeMap<TopicPartition, usize>,
    committed: BTreeMap<TopicPartition, u64>,
}

fn asks(number: usize) -> (&'static [&'static str], &'static [&'static str]) {
    [(&TOPICS[..2], &[][..]), (&[], &["*"]), (&["other"], &["orders-*"]), (&TOPICS[2..], &[])][number]
}

fn asks_for(number: usize, topic: usize) -> bool {
    let (names, patterns) = asks(number);
    names.contains(&TOPICS[topic])
        || !patterns.is_empty() && (patterns[0] == "*" || TOPICS[topic].starts_with("orders-"))
}

fn member_id(member: usize) -> carnax_core::name::MemberId {
    MEMBERS[member].parse().unwrap()
}

fn flat(topics: &[AssignedTopic]) -> BTreeSet<TopicPartition> {
    let of_topic = |topic: &AssignedTopic| {
        let id = topic.topic_id;
        topic.partitions.clone().into_iter().map(move |partition| TopicPartition { topic: id, partition })
    };
    topics.iter().flat_map(of_topic).collect()
}

struct World {
    cluster: Cluster,
    /// The same entries without any snapshot.
    twin: State,
    model: Model,
}

impl World {
    fn one(&mut self, command: Command) -> Outcome {
        let outcome = self.cluster.one(command.clone());
        let entry = carnax_metadata_state::Entry {
            level: carnax_metadata_state::FeatureLevel::CURRENT,
            log_time: carnax_core::time::Timestamp::from_millis(self.cluster.now),
            commands: vec![command],
        };
        let index = carnax_core::id::LogIndex(self.cluster.index);
        assert_eq!(self.twin.apply(index, &entry), std::slice::from_ref(&outcome));
        outcome
    }

    /// Looks at who owns what now; `freed` says which partitions may have left which members.
    fn look(&mut self, freed: impl Fn(TopicPartition, usize) -> bool) {
        let request = DescribeGroup { group: GROUP.parse().unwrap() };
        let members = answer::describe_group(&self.cluster.state, &request).map(|group| group.members);
        let mut owners = BTreeMap::new();
        for member in members.unwrap_or_default() {
            let number = MEMBERS.iter().position(|name| *name == member.member.as_str()).unwrap();
            for on in flat(&member.assigned).into_iter().chain(flat(&member.releasing)) {
                assert_eq!(owners.insert(on, number), None, "two owners of {on}");
            }
        }
        for (on, owner) in &self.model.owners {
            assert!(owners.get(on) == Some(owner) || freed(*on, *owner), "{on} was taken from {owner}");
        }
        self.model.owners = owners;
        let mut held = BTreeMap::new();
        for member in self.model.asks.keys() {
            for on in &self.model.clients[member].holds {
                assert_eq!(held.insert(*on, *member), None, "{on} is held by two");
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join { member, asks } => self.join(member, asks),
            Step::Leave { member } => {
                let epoch = self.model.clients.get(&member).map(|client| client.epoch);
                let leave = LeaveGroup { group: GROUP.parse().unwrap(), member: member_id(member), epoch };
                let was_member = self.gone(member);
                assert_eq!(
                    self.one(Command::LeaveGroup(leave)),
                    Ok(Reply::GroupLeft(LeftGroup { was_member }))
                );
                self.look(|_, owner| owner == member);
            }
            Step::Expire { member, stale } => {
                let epoch = self.model.clients.get(&member).map_or(1, |client| client.epoch);
                let count = u64::from(!stale && self.gone(member));
                let members =
                    vec![(GROUP.parse().unwrap(), member_id(member), epoch.wrapping_sub(u32::from(stale)))];
                assert_eq!(self.one(Command::ExpireMembers { members }), Ok(Reply::MembersExpired { count }));
                self.look(|_, owner| !stale && owner == member);
            }
            Step::Beat { member, stale } => self.beat(member, stale),
            Step::Hear { member } => {
                let Some(client) = self.model.clients.get_mut(&member) else { return };
                let Some(heard) = client.inbox.pop_front() else { return };
                if heard.epoch == client.epoch && heard.assignment_epoch > client.told {
                    client.before = client.told;
                    client.told = heard.assignment_epoch;
                    client.holds = flat(&heard.partitions);
                }
                self.look(|_, _| false);
            }
            Step::Commit { .. } => self.commit(step),
            Step::Wait { days } => {
                self.cluster.now += days * DAY;
                self.one(Command::ExpireSessions).unwrap();
                let idle = self.cluster.now - self.model.last_active >= 7 * DAY;
                if self.model.exists && self.model.asks.is_empty() && idle {
                    (self.model.exists, self.model.committed) = (false, BTreeMap::new());
                }
            }
            Step::Restore => self.cluster.state = read_back(&bytes_of(&self.cluster.state)).unwrap(),
            _ => self.change_topic(step),
        }
        assert_eq!(bytes_of(&self.twin), bytes_of(&self.cluster.state));
    }

    /// Takes a member out of the model; whether it was one.
    fn gone(&mut self, member: usize) -> bool {
        let was_member = self.model.asks.remove(&member).is_some();
        if was_member {
            self.model.last_active = self.cluster.now;
        }
        was_member
    }

    fn join(&mut self, member: usize, asked: usize) {
        let (topics, patterns) = asks(asked);
        let outcome = self.one(Command::JoinGroup(join(MEMBERS[member], topics, patterns)));
        let Ok(Reply::GroupJoined(assignment)) = outcome else { panic!("{outcome:?}") };
        let known = self.model.asks.insert(member, asked);
        if known.is_none() {
            self.model.epoch += 1;
            let client = Client { epoch: self.model.epoch, ..Client::default() };
            self.model.clients.insert(member, client);
        }
        if known != Some(asked) {
            (self.model.exists, self.model.last_active) = (true, self.cluster.now);
        }
        let client = self.model.clients.get_mut(&member).unwrap();
        assert_eq!(assignment.epoch, client.epoch);
        client.inbox.push_back(assignment);
        self.look(|_, _| false);
    }

    fn beat(&mut self, member: usize, stale: bool) {
        let Some(client) = self.model.clients.get(&member) else { return };
        let assignment_epoch = if stale { client.before } else { client.told };
        let (group, epoch) = (GROUP.parse().unwrap(), client.epoch);
        let heartbeat = Heartbeat { group, member: member_id(member), epoch, assignment_epoch };
        let holds = client.holds.clone();
        let answered = if answer::must_confirm(&self.cluster.state, &heartbeat) {
            assert!(!stale, "an assignment that is over frees nothing");
            match self.one(Command::ConfirmAssignment(heartbeat)) {
                Ok(Reply::AssignmentConfirmed(assignment)) => Ok(assignment),
                other => panic!("{other:?}"),
            }
        } else {
            // Proposed in vain it changes nothing.
            let direct = answer::member_assignment(&self.cluster.state, &heartbeat);
            let applied = self.one(Command::ConfirmAssignment(heartbeat));
            assert_eq!(applied, direct.clone().map(Reply::AssignmentConfirmed));
            direct
        };
        self.look(|on, owner| owner == member && !holds.contains(&on));
        match answered {
            Ok(assignment) => self.model.clients.get_mut(&member).unwrap().inbox.push_back(assignment),
            Err(problem) => {
                assert!(!self.model.asks.contains_key(&member), "{problem}");
                let expected =
                    if self.model.exists { ErrorCode::UnknownMember } else { ErrorCode::GroupNotFound };
                assert_eq!(problem.code, expected);
            }
        }
    }

    fn change_topic(&mut self, step: &Step) {
        match *step {
            Step::Create { topic, partitions } if !self.model.topics.contains_key(&topic) => {
                let id = topic_id(self.model.ids.len() as u128);
                self.one(create(TOPICS[topic], id, partitions, &[])).unwrap();
                self.model.ids.push((topic, id));
                self.model.topics.insert(topic, (id, partitions));
            }
            Step::Grow { topic, partitions } => {
                let Some((_, count)) = self.model.topics.get_mut(&topic) else { return };
                *count += partitions;
                let partitions = Some(*count);
                let request = AlterTopic { topic: named(TOPICS[topic]), partitions, config: [].into() };
                self.one(Command::AlterTopic(request)).unwrap();
            }
            Step::Delete { topic } => {
                let Some((id, _)) = self.model.topics.remove(&topic) else { return };
                self.one(delete(TOPICS[topic])).unwrap();
                self.model.committed.retain(|on, _| on.topic != id);
                self.model.clients.values_mut().for_each(|client| client.holds.retain(|on| on.topic != id));
                return self.look(|on, _| on.topic == id);
            }
            Step::Fill { topic, partition } => {
                let Some((id, count)) = self.model.topics.get(&topic).copied() else { return };
                let on = on(id, partition % count);
                let opened = self.one(crate::support::open_session());
                let Ok(Reply::SessionOpened(opened)) = opened else { panic!("{opened:?}") };
                let one = segment(
                    self.cluster.segment(u128::from(self.cluster.index)),
                    vec![slice(id, partition % count, 0, 10, 3, 0)],
                );
                self.one(crate::support::commit(opened.session, 1, vec![one])).unwrap();
                *self.model.records.entry(on).or_default() += 3;
            }
            _ => return,
        }
        self.look(|_, _| false);
    }

    fn commit(&mut self, step: &Step) {
        let Step::Commit { member, stale, topic, partition, offset, from, number } = *step else { return };
        let known = self.model.ids.len().max(1);
        let Some((_, id)) = self.model.ids.iter().rev().nth(topic % known).copied() else { return };
        let on = on(id, partition);
        let epoch_of = |member: usize| {
            self.model.clients.get(&member).map_or(1, |client| client.epoch).wrapping_sub(u32::from(stale))
        };
        let member = member.map(|member| (member, epoch_of(member)));
        let from = from.map_or(CommittedNow::Any, |from| {
            if from == 0 { CommittedNow::Nothing } else { CommittedNow::Offset(Offset(from)) }
        });
        let request = CommitOffsets {
            number,
            ..plain(
                member.map(|(member, epoch)| (MEMBERS[member], epoch)),
                vec![OffsetCommit { on, offset: offset.map(Offset), from, metadata: "said".to_owned() }],
            )
        };
        let expected = self.model.expect(member, on, offset, from, number);
        let outcome = self.one(Command::CommitOffsets(request)).map_err(|problem| problem.code);
        assert_eq!(
            outcome,
            expected.map(|ignored| Reply::OffsetsCommitted(OffsetsCommitted { ignored })),
            "{step:?}"
        );
        if expected == Ok(false) {
            match offset {
                Some(offset) => {
                    self.model.exists = true;
                    self.model.committed.insert(on, offset);
                }
                None => {
                    self.model.committed.remove(&on);
                }
            }
            self.model.last_active = self.cluster.now;
            if let (Some((member, _)), Some(_)) = (member, number) {
                self.model.clients.get_mut(&member).unwrap().number = number;
            }
        }
        let page = answer::fetch_offsets(&self.cluster.state, &fetch(&[], None, 10_000)).unwrap();
        assert!(
            page.offsets.iter().map(|row| (row.on, row.offset.unwrap().0)).eq(self.model.committed.clone())
        );
    }

    /// Everybody hears and says what it reached until nothing changes; then all is shared out, evenly.
    fn quiet(&mut self) {
        for _ in 0..8 {
            for member in self.model.asks.keys().copied().collect::<Vec<_>>() {
                while !self.model.clients[&member].inbox.is_empty() {
                    self.step(&Step::Hear { member });
                }
                self.step(&Step::Beat { member, stale: false });
            }
        }
        let wanted = self
            .model
            .topics
            .iter()
            .filter(|(topic, _)| self.model.asks.values().any(|asks| asks_for(*asks, **topic)));
        let wanted: usize = wanted.map(|(_, (_, count))| *count as usize).sum();
        let load = |member: &usize| self.model.clients[member].holds.len();
        assert_eq!(self.model.asks.keys().map(load).sum::<usize>(), wanted, "everything is held");
        assert!(self.model.asks.is_empty() || self.cluster.describe().phase == GroupPhase::Stable);
        for giver in self.model.asks.keys() {
            for on in &self.model.clients[giver].holds {
                let (topic, _) = self.model.ids.iter().find(|(_, id)| *id == on.topic).unwrap();
                let takers = self.model.asks.iter().filter(|(_, asks)| asks_for(**asks, *topic));
                assert!(takers.into_iter().all(|(taker, _)| load(taker) + 2 > load(giver)), "balanced");
            }
        }
    }
}

impl Model {
    fn expect(
        &self,
        member: Option<(usize, u32)>,
        on: TopicPartition,
        offset: Option<u64>,
        from: CommittedNow,
        number: Option<u64>,
    ) -> Result<bool, ErrorCode> {
        if let Some((member, epoch)) = member {
            let client = self.clients.get(&member).filter(|_| self.asks.contains_key(&member));
            let client = client.ok_or(ErrorCode::UnknownMember)?;
            if client.epoch != epoch {
                return Err(ErrorCode::Fenced);
            }
            if number.is_some() && number <= client.number {
                return Ok(true);
            }
        }
        let (topic, _) = self.ids.iter().find(|(_, id)| *id == on.topic).unwrap();
        let (id, count) = self.topics.get(topic).ok_or(ErrorCode::TopicNotFound)?;
        if *id != on.topic {
            return Err(ErrorCode::TopicRecreated);
        }
        if on.partition.0 >= *count {
            return Err(ErrorCode::PartitionNotFound);
        }
        if offset.is_some_and(|offset| offset > self.records.get(&on).copied().unwrap_or(0)) {
            return Err(ErrorCode::OffsetAboveHighWatermark);
        }
        if self.owners.get(&on).copied() != member.map(|(member, _)| member) {
            return Err(ErrorCode::NotOwner);
        }
        let now = self.committed.get(&on).copied();
        let holds = match from {
            CommittedNow::Any => true,
            CommittedNow::Nothing => now.is_none(),
            CommittedNow::Offset(from) => now == Some(from.0),
        };
        if holds { Ok(false) } else { Err(ErrorCode::ConditionFailed) }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (member, topic) = (0..MEMBERS.len(), 0..TOPICS.len());
    let commit = (
        proptest::option::weighted(0.8, member.clone()),
        prop::bool::weighted(0.1),
        0..2_usize,
        0..4_u32,
        proptest::option::weighted(0.9, 0..5_u64),
        proptest::option::weighted(0.3, 0..4_u64),
        proptest::option::weighted(0.4, 1..9_u64),
    );
    let stale = || prop::bool::weighted(0.2);
    prop_oneof![
        4 => (member.clone(), 0..4_usize).prop_map(|(member, asks)| Step::Join { member, asks }),
        1 => member.clone().prop_map(|member| Step::Leave { member }),
        1 => (member.clone(), stale()).prop_map(|(member, stale)| Step::Expire { member, stale }),
        8 => (member.clone(), stale()).prop_map(|(member, stale)| Step::Beat { member, stale }),
        8 => member.prop_map(|member| Step::Hear { member }),
        3 => (topic.clone(), 1..6_u32).prop_map(|(topic, partitions)| Step::Create { topic, partitions }),
        1 => (topic.clone(), 0..3_u32).prop_map(|(topic, partitions)| Step::Grow { topic, partitions }),
        1 => topic.clone().prop_map(|topic| Step::Delete { topic }),
        2 => (topic, 0..4_u32).prop_map(|(topic, partition)| Step::Fill { topic, partition }),
        6 => commit.prop_map(|(member, stale, topic, partition, offset, from, number)| {
            Step::Commit { member, stale, topic, partition, offset, from, number }
        }),
        1 => (0..9_i64).prop_map(|days| Step::Wait { days }),
        1 => Just(Step::Restore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_partition_is_ever_held_by_two_and_every_answer_is_the_models(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let cluster = Cluster::new();
        let twin = cluster.state.clone();
        let mut world = World { cluster, twin, model: Model::default() };
        for step in &steps {
            world.step(step);
        }
        world.quiet();
    }
}
