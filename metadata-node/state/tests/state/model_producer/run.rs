//! Makes random steps and runs them against state and model.

use carnax_core::id::SessionId;
use carnax_core::metadata::{
    DescribeProducer, ProducerDescription, SegmentCommit, SegmentOutcome, TokenNow, UnitOutcome,
};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Outcome, Reply, State, answer};
use proptest::prelude::*;

use super::*;
use crate::support::{Cluster, START, bytes_of, commit, create, delete, read_back};
use crate::writer::{fence, offsets, raise, set};

const SESSION: i64 = 50 * 60 * 1_000;

/// What a command must answer.
#[derive(Debug)]
enum Check {
    Done,
    Refused(Expected),
    Units(Vec<Expected>),
    Raised(Result<Description, ErrorCode>),
}

/// The state beside its model.
struct Pair {
    cluster: Cluster,
    model: Model,
    session: SessionId,
    /// The last number of the session, and when it was sent.
    last: (u64, i64),
}

impl Pair {
    fn new() -> Self {
        let mut cluster = Cluster::new();
        cluster.create("t", 1, 2);
        let session = cluster.open_session();
        let mut model = Model::new();
        model.now = START;
        Self { cluster, model, session, last: (0, START) }
    }

    /// Applies some steps as one entry.
    fn entry(&mut self, steps: &[Step], with_ticks: bool) {
        for step in steps {
            if let Step::Wait { millis } = step {
                self.cluster.now = (self.cluster.now + millis).max(self.model.now);
            }
        }
        self.model.now = self.cluster.now;
        if self.model.now - self.last.1 > SESSION {
            self.session = self.cluster.open_session();
            self.last.0 = 0;
        }
        self.last.1 = self.model.now;
        self.model.forget();
        let (commands, checks): (Vec<_>, Vec<_>) =
            steps.iter().filter_map(|step| self.command(step, with_ticks)).unzip();
        let outcomes = self.cluster.apply(commands);
        outcomes.iter().zip(&checks).for_each(|(outcome, check)| compare(outcome, check));
        for name in PRODUCERS {
            let request = DescribeProducer { producer: name.parse().unwrap() };
            let described = answer::describe_producer(&self.cluster.state, &request);
            assert_eq!(described.ok().as_ref().map(description), self.model.describe(name));
        }
        let status = answer::status(&self.cluster.state);
        assert_eq!(status.producers, self.model.producers.len() as u64);
        assert_eq!(status.idempotency_keys, self.model.keys.len() as u64);
    }

    fn command(&mut self, step: &Step, with_ticks: bool) -> Option<(Command, Check)> {
        let model = &mut self.model;
        Some(match step {
            Step::Wait { .. } => return None,
            Step::Tick if with_ticks => (Command::ExpireSessions, Check::Done),
            Step::Tick => return None,
            Step::Append(appends) => self.append(appends),
            Step::Raise { producer, from } => {
                let known = model.epoch(PRODUCERS[*producer]).unwrap_or(0);
                let from = from.map(|off| known.saturating_add_signed(off.try_into().unwrap()));
                let check = Check::Raised(model.raise(*producer, from));
                (raise(PRODUCERS[*producer], from), check)
            }
            Step::Fence { partition, token, from } => {
                let known = model.tokens[*partition];
                let (from, wanted) = match from {
                    From::Any => (TokenNow::Any, known),
                    From::Nothing => (TokenNow::Nothing, None),
                    From::Token(from) => (TokenNow::Token(TOKENS[*from].parse().unwrap()), Some(*from)),
                };
                let text = |token: Option<usize>| token.map_or("none", |token| TOKENS[token]);
                let check = if !model.exists {
                    Check::Refused(refused(ErrorCode::TopicNotFound))
                } else if known == wanted {
                    model.tokens[*partition] = *token;
                    Check::Done
                } else {
                    Check::Refused(because(ErrorCode::ConditionFailed, &text(wanted), &text(known)))
                };
                let partition = u32::try_from(*partition).unwrap();
                (fence("t", partition, token.map(|token| TOKENS[token]), from), check)
            }
            Step::Window { producers, keys } => {
                let (new, old) =
                    (Model::new(), [*producers, *keys].map(|window| window.map(|w| w.to_string())));
                model.producer_window = producers.unwrap_or(new.producer_window);
                model.key_window = keys.unwrap_or(new.key_window);
                model.forget();
                let names = ["producer.window.ms", "idempotency.window.ms"];
                (set(&[(names[0], old[0].as_deref()), (names[1], old[1].as_deref())]), Check::Done)
            }
            Step::Room { producers, keys } => {
                let (new, old) = (Model::new(), [*producers, *keys].map(|room| room.map(|r| r.to_string())));
                model.producers_max = producers.unwrap_or(new.producers_max);
                model.keys_max = keys.unwrap_or(new.keys_max);
                let names = ["producer.max", "idempotency.max"];
                (set(&[(names[0], old[0].as_deref()), (names[1], old[1].as_deref())]), Check::Done)
            }
            Step::Delete => {
                let check = if model.exists {
                    Check::Done
                } else {
                    Check::Refused(refused(ErrorCode::TopicNotFound))
                };
                model.delete();
                (delete("t"), check)
            }
            Step::Create => {
                let id = topic_id(model.topics.len() as u128 + 1);
                model.create(id);
                (create("t", id, 2, &[]), Check::Done)
            }
        })
    }

    fn append(&mut self, appends: &[Append]) -> (Command, Check) {
        let (mut units, mut expected) = (Vec::new(), Vec::new());
        for (place, append) in (0_u64..).zip(appends) {
            let mut unit = self.model.unit(append);
            unit.slices.iter_mut().for_each(|slice| slice.bytes.start += place * 1_000);
            expected.push(self.model.decide(&unit));
            units.push(unit);
        }
        self.last.0 += 1;
        self.model.commits += 1;
        let segment = self.cluster.segment(self.model.commits.into());
        let whole = SegmentCommit { segment, size: 1_000_000, units };
        (commit(self.session, self.last.0, vec![whole]), Check::Units(expected))
    }
}

fn compare(outcome: &Outcome, check: &Check) {
    match (outcome, check) {
        (Ok(_), Check::Done) => {}
        (Err(problem), Check::Refused(expected)) => assert_eq!(refusal(problem), *expected),
        (Err(problem), Check::Raised(Err(code))) => assert_eq!(problem.code, *code),
        (Ok(Reply::ProducerEpochRaised(raised)), Check::Raised(Ok(expected))) => {
            assert_eq!(description(raised), *expected);
        }
        (Ok(Reply::SegmentsCommitted(reply)), Check::Units(expected)) => {
            let SegmentOutcome::Decided(units) = &reply.outcomes[0] else { panic!("{reply:?}") };
            let seen: Vec<_> = units.iter().map(seen).collect();
            assert_eq!(seen, *expected);
        }
        other => panic!("{other:?}"),
    }
}

fn seen(outcome: &UnitOutcome) -> Expected {
    match outcome {
        UnitOutcome::Accepted { slices, .. } => Expected::Accepted(offsets(slices)),
        UnitOutcome::Duplicate { slices, append_time } => {
            Expected::Duplicate(offsets(slices), append_time.millis())
        }
        UnitOutcome::Refused(problem) => refusal(problem),
    }
}

fn refusal(problem: &Problem) -> Expected {
    Expected::Refused(problem.code, problem.facts.expected.clone(), problem.facts.actual.clone())
}

fn description(seen: &ProducerDescription) -> Description {
    let before = seen.before.as_ref().map(|before| {
        let kept = before.replies.iter();
        let kept = kept.map(|reply| (reply.sequence, offsets(&reply.slices), reply.append_time.millis()));
        (before.epoch, before.last_sequence, kept.collect())
    });
    (seen.epoch, seen.last_sequence, before, seen.last_seen.millis())
}

fn appends() -> impl Strategy<Value = Vec<Append>> {
    let mode = prop_oneof![3 => Just(SequenceMode::Contiguous), 1 => Just(SequenceMode::Increasing)];
    let epoch = prop_oneof![8 => Just(0_i64), 1 => Just(-1), 1 => Just(1), 1 => Just(3)];
    let sequence = prop_oneof![8 => Just(0_i128), 3 => -12..0_i128, 1 => 1..4_i128];
    let dedup = prop_oneof![
        1 => Just(Dedup::None),
        9 => (0..PRODUCERS.len(), epoch, sequence, mode)
            .prop_map(|(producer, epoch, sequence, mode)| Dedup::Producer { producer, epoch, sequence, mode }),
        3 => (0..3_usize, 0..2_usize).prop_map(|(key, principal)| Dedup::Key { key, principal }),
        1 => Just(Dedup::Both),
    ];
    let partitions = prop_oneof![15 => 1..4_usize, 1 => Just(0_usize)];
    let expected = proptest::option::weighted(0.2, prop_oneof![3 => Just(0_i64), 1 => -2..3_i64]);
    let token = proptest::option::weighted(0.2, 0..TOKENS.len());
    let body = prop_oneof![9 => Just(0_u8), 1 => Just(1)];
    let append = (dedup, partitions, prop::bool::weighted(0.05), expected, token, body).prop_map(
        |(dedup, partitions, old_topic, expected, token, body)| Append {
            dedup,
            partitions,
            old_topic,
            expected,
            token,
            body,
        },
    );
    proptest::collection::vec(append, 0..8)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let from = prop_oneof![Just(From::Any), Just(From::Nothing), (0..TOKENS.len()).prop_map(From::Token)];
    let token = proptest::option::of(0..TOKENS.len());
    let window = || proptest::option::of(prop_oneof![Just(1_000_i64), Just(10_000), Just(3_600_000)]);
    let room = || proptest::option::weighted(0.3, 0..4_usize);
    let off = proptest::option::weighted(0.7, prop_oneof![4 => Just(0_i64), 2 => Just(-1), 1 => Just(2)]);
    let step = prop_oneof![
        20 => appends().prop_map(Step::Append),
        4 => (0..PRODUCERS.len(), off).prop_map(|(producer, from)| Step::Raise { producer, from }),
        2 => (0..PARTITIONS, token, from)
            .prop_map(|(partition, token, from)| Step::Fence { partition, token, from }),
        1 => (window(), window()).prop_map(|(producers, keys)| Step::Window { producers, keys }),
        1 => (room(), room()).prop_map(|(producers, keys)| Step::Room { producers, keys }),
        1 => Just(Step::Delete),
        2 => Just(Step::Create),
        1 => Just(Step::Tick),
        5 => (-500..2_000_i64).prop_map(|millis| Step::Wait { millis }),
        1 => (0..200_000_000_i64).prop_map(|millis| Step::Wait { millis }),
    ];
    proptest::collection::vec(step, 1..80)
}

/// Runs the steps, some of them in one entry; `restart` is the entry after which the state is written and read back.
fn run(steps: &[Step], restart: Option<usize>, with_ticks: bool) -> State {
    let mut pair = Pair::new();
    for (number, some) in steps.chunks(3).enumerate() {
        pair.entry(some, with_ticks);
        if restart == Some(number) {
            pair.cluster.state = read_back(&bytes_of(&pair.cluster.state)).unwrap();
        }
    }
    pair.cluster.state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_what_is_repeated_and_what_is_refused_is_what_a_naive_model_says(
        steps in steps(),
        restart in 0..30_usize,
    ) {
        let bytes = bytes_of(&run(&steps, None, true));
        prop_assert!(bytes_of(&run(&steps, None, true)) == bytes, "the same commands, the same bytes");
        prop_assert!(bytes_of(&run(&steps, Some(restart), true)) == bytes, "also from a snapshot in the middle");
        prop_assert!(bytes_of(&read_back(&bytes).unwrap()) == bytes);
        run(&steps, None, false);
    }
}
