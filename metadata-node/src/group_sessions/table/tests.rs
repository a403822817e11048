use proptest::prelude::*;

use super::*;

const TIMEOUTS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];
const TICK: Duration = Duration::from_millis(200);

fn group() -> GroupName {
    "g".parse().unwrap()
}

fn member(which: usize) -> MemberId {
    format!("m{which}").parse().unwrap()
}

fn session(which: usize) -> Session {
    Session { group: group(), member: member(which), epoch: 1, timeout: TIMEOUTS[which] }
}

/// A leader with all members, after `seconds` of steady ticks in which `heard` speak each time.
struct Leader {
    table: SessionTable,
    now: Duration,
}

impl Leader {
    fn new() -> Self {
        let mut table = SessionTable::default();
        table.lead(1, (0..TIMEOUTS.len()).map(session), Duration::from_secs(100));
        Self { table, now: Duration::from_secs(100) }
    }

    /// Ticks steadily, and says after how long whom it picked first.
    fn first_picked(&mut self) -> (Duration, Vec<Expelled>) {
        let begin = self.now;
        loop {
            assert!(self.now - begin < Duration::from_secs(60), "somebody is picked in the end");
            self.now += TICK;
            self.table.tick(self.now);
            let picked = self.table.pick(10);
            if !picked.is_empty() {
                return (self.now - begin, picked);
            }
        }
    }
}

#[test]
fn a_silent_member_is_out_soon_after_its_session_and_a_pause_counts_as_one_step() {
    let mut leader = Leader::new();
    let (after, picked) = leader.first_picked();
    assert_eq!(picked, [(group(), member(0), 1)]);
    assert!(after > TIMEOUTS[0] && after <= TIMEOUTS[0] + STEP_MAX + TICK * 2, "{after:?}");
    leader.table.settle(&picked, Expulsion::Done);
    assert_eq!(leader.table.hear(&group(), &member(0), 1), Heard::NotThere);

    let mut paused = Leader::new();
    paused.now += Duration::from_secs(3_600);
    paused.table.tick(paused.now);
    assert_eq!(paused.table.pick(10), []);
    let (after, _) = paused.first_picked();
    assert!(after > TIMEOUTS[0] - TICK * 2, "the hour was one step: {after:?}");
}

#[test]
fn time_without_a_quorum_does_not_count_and_a_new_leadership_starts_everyone_afresh() {
    let mut leader = Leader::new();
    for _ in 0..100 {
        leader.now += TICK;
        leader.table.tick_unconfirmed();
        leader.now += TICK;
        leader.table.tick(leader.now);
    }
    assert_eq!(leader.table.pick(10), [], "no two ticks in a row were confirmed");

    leader.now += TICK * 4;
    leader.table.tick(leader.now);
    assert!(leader.table.follow() && !leader.table.follow());
    assert_eq!(leader.table.hear(&group(), &member(0), 1), Heard::NotThere);
    leader.table.lead(2, (0..TIMEOUTS.len()).map(session), leader.now);
    assert!(leader.first_picked().0 > TIMEOUTS[0]);
}

#[test]
fn while_a_member_is_being_taken_out_nobody_tells_it_that_it_lives() {
    let mut leader = Leader::new();
    let timeout = TIMEOUTS[0];
    let (group, first) = (group(), member(0));
    let early = leader.table.hear(&group, &first, 1);
    let (_, picked) = leader.first_picked();
    assert!(
        !leader.table.tell(&group, &first, 1, timeout, early),
        "it was picked while it was being answered"
    );
    assert_eq!(leader.table.hear(&group, &first, 1), Heard::Leaving);
    assert!(!leader.table.join(&group, &first));

    leader.table.settle(&picked, Expulsion::Refused);
    assert_eq!(leader.table.hear(&group, &first, 1), Heard::Noted);
    let (_, picked) = leader.first_picked();
    leader.table.settle(&picked, Expulsion::Unknown);
    assert_eq!(leader.table.hear(&group, &first, 1), Heard::Leaving);
    assert_eq!(leader.table.pick(10), picked, "it is proposed again");
    leader.table.settle(&picked, Expulsion::Refused);
    assert_eq!(leader.table.hear(&group, &first, 1), Heard::Leaving, "the first proposal is still out");
    leader.table.settle(&picked, Expulsion::Done);
    assert!(!leader.table.tell(&group, &first, 1, timeout, Heard::Noted), "it went in between");
    assert!(leader.table.tell(&group, &first, 1, timeout, Heard::NotThere), "it was not there before either");
}

#[test]
fn a_join_is_not_judged_before_it_is_decided_and_what_was_told_last_counts() {
    let mut leader = Leader::new();
    let (group, first) = (group(), member(0));
    assert!(leader.table.join(&group, &first) && leader.table.join(&group, &first));
    let (after, picked) = leader.first_picked();
    assert_eq!(picked, [(group.clone(), member(1), 1)], "the second has the longer session: {after:?}");
    leader.table.settle(&picked, Expulsion::Done);
    leader.table.joined(&group, &first, Some((2, TIMEOUTS[1])));
    leader.table.joined(&group, &first, None);
    // A state that is older than what the join was told.
    leader.table.sync([Session { epoch: 2, ..session(0) }].into_iter());
    assert_eq!(leader.table.hear(&group, &first, 1), Heard::NotThere, "an epoch that is over is not heard");
    let (after, picked) = leader.first_picked();
    assert_eq!(picked, [(group.clone(), first.clone(), 2)]);
    assert!(after > TIMEOUTS[1], "{after:?}");
    leader.table.sync(std::iter::empty());
    assert!(leader.table.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Tick,
    NoQuorum,
    Hear(usize),
    Sync,
    Lead,
    Pick,
    Settle(Expulsion),
}

fn step() -> impl Strategy<Value = Step> {
    let expulsion = prop_oneof![Just(Expulsion::Done), Just(Expulsion::Refused), Just(Expulsion::Unknown)];
    prop_oneof![
        4 => (0_u64..500).prop_map(Step::Pass),
        1 => (0_u64..20_000).prop_map(Step::Pass),
        8 => Just(Step::Tick),
        1 => Just(Step::NoQuorum),
        2 => (0..TIMEOUTS.len()).prop_map(Step::Hear),
        1 => Just(Step::Sync),
        1 => Just(Step::Lead),
        4 => Just(Step::Pick),
        2 => expulsion.prop_map(Step::Settle),
    ]
}

/// What is true of a member, told without a session clock.
#[derive(Clone, Copy)]
struct Truth {
    out: bool,
    heard_at: Duration,
    /// Time since then that counts: between confirmed ticks, each at most one step.
    counted: Duration,
    /// What became of the last proposal to take it out, if it was not refused.
    leaving: bool,
    unknown: bool,
}

impl Truth {
    fn settle(&mut self, expulsion: Expulsion) {
        match expulsion {
            Expulsion::Done => self.out = true,
            Expulsion::Refused => self.leaving = self.unknown,
            Expulsion::Unknown => self.unknown = true,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn only_a_member_that_was_silent_for_its_whole_session_is_taken_out(
        steps in prop::collection::vec(step(), 1..300)
    ) {
        let mut leader = Leader::new();
        let fresh = |now| Truth { out: false, heard_at: now, counted: Duration::ZERO, leaving: false, unknown: false };
        let mut truth = [fresh(leader.now); TIMEOUTS.len()];
        let mut last_tick = Some(leader.now);
        let mut under_way: Vec<Expelled> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(millis) => leader.now += Duration::from_millis(millis),
                Step::Tick => {
                    for truth in &mut truth {
                        if let Some(before) = last_tick.filter(|before| *before >= truth.heard_at) {
                            truth.counted += (leader.now - before).min(STEP_MAX);
                        }
                    }
                    last_tick = Some(leader.now);
                    leader.table.tick(leader.now);
                }
                Step::NoQuorum => {
                    last_tick = None;
                    leader.table.tick_unconfirmed();
                }
                Step::Hear(which) => {
                    let heard = leader.table.hear(&group(), &member(which), 1);
                    let known = &mut truth[which];
                    if known.out {
                        prop_assert_eq!(heard, Heard::NotThere);
                    } else if known.leaving {
                        prop_assert_eq!(heard, Heard::Leaving);
                    } else {
                        prop_assert_eq!(heard, Heard::Noted);
                        prop_assert!(leader.table.tell(&group(), &member(which), 1, TIMEOUTS[which], heard));
                        (known.heard_at, known.counted) = (leader.now, Duration::ZERO);
                    }
                }
                Step::Sync => {
                    let there = (0..TIMEOUTS.len()).filter(|which| !truth[*which].out);
                    leader.table.sync(there.map(session));
                }
                Step::Lead if under_way.is_empty() => {
                    leader.table.lead(7, (0..TIMEOUTS.len()).map(session), leader.now);
                    truth = [fresh(leader.now); TIMEOUTS.len()];
                    last_tick = Some(leader.now);
                }
                Step::Pick if under_way.is_empty() => {
                    under_way = leader.table.pick(2);
                    for which in 0..TIMEOUTS.len() {
                        let picked = under_way.iter().any(|(_, picked, _)| *picked == member(which));
                        let known = &mut truth[which];
                        if picked && !known.leaving {
                            prop_assert!(!known.out);
                            prop_assert!(leader.now - known.heard_at > TIMEOUTS[which]);
                            prop_assert!(known.counted > TIMEOUTS[which]);
                        }
                        known.leaving |= picked;
                    }
                }
                Step::Settle(expulsion) => {
                    leader.table.settle(&under_way, expulsion);
                    for (_, settled, _) in under_way.drain(..) {
                        let which = (0..TIMEOUTS.len()).find(|which| member(*which) == settled).unwrap();
                        truth[which].settle(expulsion);
                    }
                }
                Step::Lead | Step::Pick => {}
            }
        }
    }
}
