//! Stories of one member, and random ones against a server that may give any partition to somebody else as soon as it is free.

use std::collections::BTreeSet;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::metadata::AssignedTopic;
use carnax_core::time::Timestamp;

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(3);

fn on(partition: u32) -> TopicPartition {
    let topic = TopicId::from_parts(Timestamp::from_millis(1_700_000_000_000), 1);
    TopicPartition { topic, partition: PartitionIndex(partition) }
}

fn answer(
    epoch: u32,
    assignment_epoch: u64,
    partitions: impl IntoIterator<Item = u32>,
) -> AssignmentResponse {
    let topic = AssignedTopic {
        topic: "t".parse().unwrap(),
        topic_id: on(0).topic,
        partitions: partitions.into_iter().map(PartitionIndex).collect(),
    };
    AssignmentResponse {
        member: "m".parse().unwrap(),
        epoch,
        assignment_epoch,
        assignment: vec![topic],
        heartbeat_interval_ms: 3_000,
        session_timeout_ms: 10_000,
    }
}

fn places(partitions: &Assignment) -> Vec<u32> {
    partitions.keys().map(|on| on.partition.0).collect()
}

/// A member that joined now and holds these partitions under assignment 1, of which the server has heard.
fn member(now: Instant, partitions: impl IntoIterator<Item = u32>) -> Membership {
    let mut member = Membership::new(SESSION, now);
    assert!(matches!(member.next(now), Action::Join { .. }));
    assert!(member.joined(now, &answer(1, 1, partitions)));
    settle(&mut member, now);
    assert!(matches!(member.next(now), Action::Heartbeat { epoch: 1, assignment_epoch: 1, .. }));
    member.heartbeat_answered(now, now, &answer(1, 1, []));
    member
}

/// Takes the next change at once; tells what was let go of and what was added.
fn settle(member: &mut Membership, now: Instant) -> (Vec<u32>, Vec<u32>) {
    match member.change(now) {
        Some(Change::Assigned { reach, revoked, added }) => {
            assert!(member.reached(reach, &revoked, &added, now));
            (places(&revoked), places(&added))
        }
        other => panic!("no assignment: {other:?}"),
    }
}

#[test]
fn heartbeats_come_in_time_and_at_once_when_something_was_let_go_of() {
    let start = Instant::now();
    let mut member = member(start, [0, 1, 2]);
    assert_eq!(member.next(start), Action::Wait(start + INTERVAL));
    let now = start + INTERVAL;
    assert!(matches!(member.next(now), Action::Heartbeat { assignment_epoch: 1, .. }));
    assert!(member.heartbeat_answered(now, now, &answer(1, 2, [1, 2, 3])));
    // Until the holder is done, the server hears of the old assignment only.
    assert_eq!(member.next(now), Action::Wait(now + INTERVAL));
    let later = now + INTERVAL;
    assert!(matches!(member.next(later), Action::Heartbeat { assignment_epoch: 1, .. }));
    assert_eq!(settle(&mut member, later), (vec![0], vec![3]), "also while a heartbeat is under way");
    assert!(!member.heartbeat_answered(later, later, &answer(1, 2, [1, 2, 3])));
    assert!(matches!(member.next(later), Action::Heartbeat { assignment_epoch: 2, .. }), "at once");
    assert!(!member.heartbeat_answered(later, later, &answer(1, 2, [1, 2, 3])));
    assert_eq!(member.next(later), Action::Wait(later + INTERVAL));
    assert_eq!(places(&member.held(later)), [1, 2, 3]);
    assert_eq!(member.change(later), None);
}

#[test]
fn an_assignment_that_changes_during_hand_over_is_handed_over_next() {
    let now = Instant::now();
    let mut member = member(now, [0, 1]);
    member.heartbeat_answered(now, now, &answer(1, 2, [1]));
    let Some(Change::Assigned { reach, revoked, added }) = member.change(now) else { panic!() };
    assert_eq!((places(&revoked), places(&added)), (vec![0], vec![]));
    // Meanwhile the server gives something, and takes something else; an answer that comes late changes nothing.
    assert!(member.heartbeat_answered(now, now, &answer(1, 4, [2])));
    assert!(!member.heartbeat_answered(now, now, &answer(1, 3, [0, 1, 2])));
    assert!(member.reached(reach, &revoked, &added, now));
    assert!(matches!(member.next(now), Action::Heartbeat { assignment_epoch: 2, .. }), "as far as it is");
    assert_eq!(settle(&mut member, now), (vec![1], vec![2]));
    assert!(matches!(member.next(now), Action::Heartbeat { assignment_epoch: 4, .. }));
}

#[test]
fn everything_is_lost_when_the_session_has_passed_since_the_last_answered_request_was_sent() {
    let start = Instant::now();
    let mut member = member(start, [0, 1]);
    let sent = start + INTERVAL;
    // Sent at 3 s, answered at 9 s: the session ends at 13 s.
    member.heartbeat_answered(sent, start + Duration::from_secs(9), &answer(1, 1, [0, 1]));
    assert_eq!(member.deadline(), Some(sent + SESSION));
    let before = sent + SESSION - Duration::from_millis(1);
    assert_eq!((member.epoch(before), places(&member.held(before))), (Some(1), vec![0, 1]));
    let end = sent + SESSION;
    assert_eq!(member.epoch(end), None);
    assert!(member.held(end).is_empty());
    // An answer that comes now is too late, although the server has not expelled the member.
    assert!(member.heartbeat_answered(before, end, &answer(1, 1, [0, 1])));
    assert!(matches!(member.next(end), Action::Join { .. }));
    assert!(member.joined(end, &answer(1, 1, [0, 1])));
    assert_eq!(member.epoch(end), None, "not before the holder knows of the loss");
    let Some(Change::Lost(lost)) = member.change(end) else { panic!("the loss is told first") };
    assert_eq!(places(&lost), [0, 1]);
    assert_eq!(settle(&mut member, end), (vec![], vec![0, 1]));
    assert_eq!(member.epoch(end), Some(1));
}

#[test]
fn a_hand_over_that_outlasts_the_session_changes_nothing() {
    let now = Instant::now();
    let mut member = member(now, [0, 1]);
    member.heartbeat_answered(now, now, &answer(1, 2, [1, 2]));
    let Some(Change::Assigned { reach, revoked, added }) = member.change(now) else { panic!() };
    let late = now + SESSION;
    assert!(!member.reached(reach, &revoked, &added, late));
    let Some(Change::Lost(lost)) = member.change(late) else { panic!() };
    assert_eq!(places(&lost), [1], "0 was let go of in good order, 2 was never begun");
    assert!(matches!(member.next(late), Action::Join { .. }));
    // A repeat of the old hand-over under a new epoch does not count either.
    member.joined(late, &answer(2, 1, [5]));
    assert!(!member.reached(reach, &revoked, &added, late));
    assert_eq!(settle(&mut member, late), (vec![], vec![5]));
}

#[test]
fn expulsion_means_loss_and_joining_again_but_not_for_an_epoch_that_is_over() {
    let now = Instant::now();
    let mut member = member(now, [0]);
    member.expelled(0, now);
    assert_eq!(member.epoch(now), Some(1));
    member.expelled(1, now);
    assert!(matches!(member.next(now), Action::Join { .. }));
    assert!(matches!(member.change(now), Some(Change::Lost(_))));
    assert_eq!(member.change(now), None);
    member.joined(now, &answer(2, 1, []));
    member.expelled(1, now);
    assert_eq!(settle(&mut member, now), (vec![], vec![]));
    assert_eq!(member.epoch(now), Some(2));
}

#[test]
fn a_refusal_to_join_is_told_once_and_then_joining_is_tried_again() {
    let now = Instant::now();
    let mut member = Membership::new(SESSION, now);
    member.failed(now + INTERVAL);
    assert_eq!(member.next(now), Action::Wait(now + INTERVAL));
    member.refused(Arc::new(RequestError::Invalid { reason: ErrorCode::Conflict.to_string() }));
    assert_eq!(member.next(now + INTERVAL), Action::Idle);
    assert!(member.take_refusal(now).is_some() && member.take_refusal(now).is_none());
    assert!(matches!(member.next(now), Action::Join { .. }));
    member.joined(now, &answer(1, 1, [0]));
    settle(&mut member, now);
    member.replaced(1, now, Arc::new(RequestError::Invalid { reason: ErrorCode::Fenced.to_string() }));
    assert_eq!((member.next(now), member.epoch(now)), (Action::Idle, None));
    assert!(matches!(member.change(now), Some(Change::Lost(_))), "and a loss, if it was a member");
    assert_eq!(member.close(), None);
    assert_eq!(member.next(now), Action::Idle);
}

/// A server with one member of interest: whatever it does not own may be somebody else's.
#[derive(Default)]
struct Server {
    epoch: u32,
    joined: bool,
    assignment_epoch: u64,
    owned: BTreeSet<u32>,
    target: BTreeSet<u32>,
    last_heard: Option<Instant>,
}

impl Server {
    fn keep(&self) -> BTreeSet<u32> {
        self.owned.intersection(&self.target).copied().collect()
    }

    fn retarget(&mut self, target: BTreeSet<u32>) {
        let before = self.keep();
        // Everything that is not owned is free here, so what is targeted is granted at once.
        self.owned.extend(&target);
        self.target = target;
        if self.keep() != before {
            self.assignment_epoch += 1;
        }
    }

    fn expire(&mut self, now: Instant) {
        if self.last_heard.is_some_and(|heard| heard + SESSION <= now) {
            *self = Self { epoch: self.epoch, assignment_epoch: self.assignment_epoch, ..Self::default() };
        }
    }

    fn join(&mut self, now: Instant, target: BTreeSet<u32>) -> AssignmentResponse {
        if !self.joined {
            self.joined = true;
            self.epoch += 1;
            self.retarget(target);
        }
        self.last_heard = Some(now);
        answer(self.epoch, self.assignment_epoch, self.keep())
    }

    fn heartbeat(&mut self, now: Instant, epoch: u32, reached: u64) -> Option<AssignmentResponse> {
        if !self.joined || epoch != self.epoch {
            return None;
        }
        self.last_heard = Some(now);
        if reached == self.assignment_epoch {
            self.owned = self.keep();
        }
        Some(answer(self.epoch, self.assignment_epoch, self.keep()))
    }
}

/// A small generator: the same stories in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn some(&mut self) -> BTreeSet<u32> {
        (0..6).filter(|_| self.below(2) == 0).collect()
    }
}

#[test]
fn a_member_never_holds_what_the_server_may_have_given_to_another() {
    let mut losses = 0;
    for seed in 1..=2_000 {
        losses += random_story(seed);
    }
    assert!(losses > 100, "the stories have losses in them: {losses}");
}

/// Messages are lost and late, time passes in leaps, and hand-overs take a while; ends well once all is quiet.
fn random_story(seed: u64) -> u32 {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut now = Instant::now();
    let mut server = Server::default();
    let mut member = Membership::new(SESSION, now);
    let mut handing: Option<(Reach, Assignment, Assignment)> = None;
    let mut late: Option<(u32, u64)> = None;
    let mut losses = 0;
    for step in 0..120 {
        let quiet = step >= 100;
        now += Duration::from_millis(if quiet { 1_000 } else { random.below(4_000) });
        server.expire(now);
        if !quiet && random.below(4) == 0 && server.joined {
            let target = random.some();
            server.retarget(target);
        }
        let lost = !quiet && random.below(3) == 0;
        match member.next(now) {
            Action::Join { .. } => {
                let target = random.some();
                let answer = server.join(now, target);
                if lost {
                    member.failed(now);
                } else {
                    member.joined(now, &answer);
                }
            }
            Action::Heartbeat { epoch, assignment_epoch, .. } => {
                let arrives = quiet || random.below(4) > 0;
                if !arrives {
                    late = Some((epoch, assignment_epoch));
                }
                let sent = now;
                let answer = arrives.then(|| server.heartbeat(now, epoch, assignment_epoch));
                if !quiet {
                    now += Duration::from_millis(random.below(1_500));
                }
                match answer {
                    Some(Some(answer)) if !lost => {
                        member.heartbeat_answered(sent, now, &answer);
                    }
                    Some(None) if !lost => member.expelled(epoch, now),
                    _ => member.failed(now),
                }
            }
            Action::Wait(_) | Action::Idle => {}
        }
        if let Some((epoch, reached)) = late.take_if(|_| random.below(3) == 0) {
            // A heartbeat that was given up arrives all the same.
            server.expire(now);
            server.heartbeat(now, epoch, reached);
        }
        if let Some((reach, revoked, added)) = handing.take_if(|_| quiet || random.below(2) == 0) {
            member.reached(reach, &revoked, &added, now);
        }
        if handing.is_none() {
            match member.change(now) {
                Some(Change::Lost(_)) => losses += 1,
                Some(Change::Assigned { reach, revoked, added }) => handing = Some((reach, revoked, added)),
                None => {}
            }
        }
        server.expire(now);
        let held: BTreeSet<u32> = places(&member.held(now)).into_iter().collect();
        assert!(held.is_subset(&server.owned), "seed {seed}, step {step}: {held:?} of {:?}", server.owned);
    }
    let held: BTreeSet<u32> = places(&member.held(now)).into_iter().collect();
    assert_eq!(held, server.keep(), "seed {seed}");
    losses
}
