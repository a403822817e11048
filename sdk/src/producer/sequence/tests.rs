//! Small stories, and then any number of faults against a model of the server: every record is stored once and in order, or
//! not at all, and the producer always says which.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

fn send(window: &mut Window, count: u64) -> Vec<u64> {
    for _ in 0..count {
        window.push();
    }
    std::iter::from_fn(|| window.next_to_send()).collect()
}

#[test]
fn what_overtook_another_request_is_sent_again_behind_it_and_in_order() {
    let mut window = Window::numbered(0, 5);
    assert_eq!(send(&mut window, 5), [0, 1, 2, 3, 4]);
    assert!(!window.admits(), "five are in flight");
    for sequence in [2, 1, 3] {
        assert_eq!(window.conclude(sequence, Outcome::OutOfOrder, false), Verdict::Wait);
    }
    assert_eq!(window.next_to_send(), None, "0 is under way");
    assert_eq!(window.conclude(0, Outcome::Stored, false), Verdict::Stored);
    assert_eq!([(); 4].map(|()| window.next_to_send()), [Some(1), Some(2), Some(3), None]);
    assert!(window.admits() && window.remedy().is_none());
}

#[test]
fn the_span_of_open_sequences_is_bounded_not_only_their_number() {
    let mut window = Window::numbered(0, 3);
    send(&mut window, 3);
    assert_eq!(window.conclude(1, Outcome::Stored, false), Verdict::Stored);
    assert_eq!(window.conclude(2, Outcome::Stored, false), Verdict::Stored);
    assert!(!window.admits(), "the reply to 0 must not be forgotten before it is read");
    window.conclude(0, Outcome::Stored, false);
    assert!(window.admits());
}

#[test]
fn a_refused_request_leaves_its_sequence_to_the_next_one() {
    let mut window = Window::numbered(4, 5);
    send(&mut window, 4);
    window.conclude(0, Outcome::Stored, false);
    assert_eq!(window.conclude(1, Outcome::Failed, false), Verdict::Failed);
    assert!(!window.admits() && window.next_to_send().is_none() && window.remedy().is_none());
    window.conclude(3, Outcome::OutOfOrder, false);
    window.conclude(2, Outcome::OutOfOrder, false);
    assert_eq!(window.remedy(), Some(Remedy::Rewind));
    assert_eq!(window.rewind(), [(1, Fate::Failed), (2, Fate::Again), (3, Fate::Again)]);
    assert_eq!((window.push(), window.epoch()), (1, 4));
}

#[test]
fn a_new_epoch_tells_what_became_of_an_unknown_outcome() {
    for (last, first, second) in [(None, Fate::Failed, Fate::Again), (Some(0), Fate::Stored, Fate::Again)] {
        let mut window = Window::numbered(0, 5);
        send(&mut window, 2);
        assert_eq!(window.conclude(0, Outcome::Failed, true), Verdict::Wait);
        window.conclude(1, Outcome::OutOfOrder, false);
        assert_eq!(window.remedy(), Some(Remedy::Raise));
        assert_eq!(window.raised(1, last), [(0, first), (1, second)]);
        assert_eq!((window.push(), window.epoch(), window.admits()), (0, 1, true));
    }
}

#[test]
fn a_gap_before_the_first_open_request_is_settled_by_a_new_epoch() {
    let mut window = Window::numbered(0, 5);
    send(&mut window, 2);
    // Refused while 0 was under way: no reason to worry.
    window.conclude(1, Outcome::OutOfOrder, false);
    window.conclude(0, Outcome::Stored, false);
    assert_eq!(window.next_to_send(), Some(1));
    window.conclude(1, Outcome::OutOfOrder, false);
    assert_eq!(window.remedy(), Some(Remedy::Raise));
    assert_eq!(window.raised(1, Some(0)), [(1, Fate::Again)]);
}

#[test]
fn a_server_that_forgot_what_it_accepted_does_not_say_what_became_of_the_rest() {
    let mut window = Window::numbered(0, 5);
    send(&mut window, 3);
    window.conclude(0, Outcome::Stored, false);
    window.conclude(1, Outcome::Failed, true);
    window.conclude(2, Outcome::OutOfOrder, false);
    assert_eq!(window.remedy(), Some(Remedy::Raise));
    assert_eq!(window.raised(1, None), [(1, Fate::Unknown), (2, Fate::Again)]);
}

#[test]
fn whoever_is_fenced_says_what_may_be_stored_and_never_sends_again() {
    let mut window = Window::numbered(0, 5);
    send(&mut window, 2);
    window.conclude(0, Outcome::Fenced, true);
    window.conclude(1, Outcome::Fenced, false);
    assert_eq!(window.remedy(), Some(Remedy::Close));
    assert_eq!(window.close(), [(0, Fate::Unknown), (1, Fate::Failed)]);
    assert!(!window.admits() && window.next_to_send().is_none() && window.remedy().is_none());
}

#[test]
fn without_numbers_every_request_stands_alone() {
    let mut window = Window::unnumbered(2);
    assert_eq!(send(&mut window, 2), [0, 1]);
    assert_eq!(window.conclude(1, Outcome::Failed, true), Verdict::Failed);
    assert!(window.admits() && window.remedy().is_none());
    assert_eq!(window.conclude(0, Outcome::Stale, false), Verdict::Again);
}

/// What arrives at the server, now or much later.
#[derive(Debug, Clone)]
struct Message {
    epoch: u32,
    sequence: u64,
    records: Vec<u32>,
}

/// One producer, as the metadata core knows it.
#[derive(Debug, Default)]
struct Server {
    /// Epoch, and last sequence.
    known: Option<(u32, Option<u64>)>,
    log: Vec<u32>,
}

impl Server {
    fn append(&mut self, message: &Message) -> Outcome {
        let (epoch, last) = match self.known {
            None if message.sequence != 0 => return Outcome::OutOfOrder,
            None => (message.epoch, None),
            Some((epoch, _)) if message.epoch < epoch => return Outcome::Fenced,
            Some((epoch, _)) if message.epoch > epoch => (message.epoch, None),
            Some(known) => known,
        };
        if last.is_some_and(|last| message.sequence <= last) {
            return Outcome::Stored;
        }
        if message.sequence != last.map_or(0, |last| last + 1) {
            return Outcome::OutOfOrder;
        }
        self.known = Some((epoch, Some(message.sequence)));
        self.log.extend(&message.records);
        Outcome::Stored
    }

    /// The new epoch, and the last sequence of the one before.
    fn raise(&mut self, from: u32) -> (u32, Option<u128>) {
        let (epoch, last) = self.known.unwrap_or((from, None));
        assert_eq!(epoch, from, "nobody else raises it");
        self.known = Some((epoch + 1, None));
        (epoch + 1, last.map(u128::from))
    }
}

/// A request whose attempts go on.
#[derive(Debug)]
struct Attempts {
    message: Message,
    possible: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Stored,
    Failed,
    Unknown,
}

/// Makes the choices of a run. When they are used up, all goes well.
struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    /// One of `count`; 0 is when all goes well.
    fn pick(&mut self, count: u8) -> u8 {
        self.0.next().map_or(0, |choice| choice % count)
    }
}

struct World {
    choices: Choices,
    window: Window,
    waiting: VecDeque<u32>,
    requests: BTreeMap<u64, Vec<u32>>,
    in_flight: BTreeMap<u64, Attempts>,
    /// Copies that nobody waits for any more.
    lingering: Vec<Message>,
    server: Server,
    answers: BTreeMap<u32, Answer>,
}

impl World {
    fn step(&mut self) {
        if self.choices.pick(4) == 3 && !self.lingering.is_empty() {
            let late = self.lingering.remove(usize::from(self.choices.pick(200)) % self.lingering.len());
            self.server.append(&late);
        }
        match self.window.remedy() {
            Some(Remedy::Rewind) => {
                let fates = self.window.rewind();
                self.tell(fates);
            }
            // The cluster is away: what is overdue is answered now.
            Some(Remedy::Raise) if self.choices.pick(3) == 2 => self.answer_overdue(),
            Some(Remedy::Raise) => {
                let (epoch, last) = self.server.raise(self.window.epoch());
                let fates = self.window.raised(epoch, last);
                self.tell(fates);
            }
            Some(Remedy::Close) => panic!("fenced by itself"),
            None => {}
        }
        if self.window.admits() && !self.waiting.is_empty() && self.choices.pick(2) == 0 {
            let count = usize::from(self.choices.pick(3)) + 1;
            let records = self.waiting.drain(..count.min(self.waiting.len())).collect();
            let sequence = self.window.push();
            self.requests.insert(sequence, records);
        }
        while let Some(sequence) = self.window.next_to_send() {
            let records = self.requests[&sequence].clone();
            let message = Message { epoch: self.window.epoch(), sequence, records };
            self.in_flight.insert(sequence, Attempts { message, possible: false });
        }
        self.attempt();
    }

    /// One attempt of one request in flight arrives, or not, and is answered, or not.
    fn attempt(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let nth = usize::from(self.choices.pick(7)) % self.in_flight.len();
        let Some(sequence) = self.in_flight.keys().nth(nth).copied() else { return };
        let Some(mut attempts) = self.in_flight.remove(&sequence) else { return };
        let outcome = match self.choices.pick(10) {
            // Done, or still under way, and nobody hears of it.
            7 => {
                self.server.append(&attempts.message);
                None
            }
            8 => {
                self.lingering.push(attempts.message.clone());
                None
            }
            9 => Some([Outcome::Failed, Outcome::Stale][usize::from(self.choices.pick(2))]),
            _ => Some(self.server.append(&attempts.message)),
        };
        attempts.possible |= outcome.is_none();
        let outcome = match outcome {
            // It is tried again, until its time is up.
            None if self.choices.pick(3) < 2 => {
                self.in_flight.insert(sequence, attempts);
                return;
            }
            None => Outcome::Failed,
            Some(outcome) => outcome,
        };
        let verdict = self.window.conclude(sequence, outcome, attempts.possible);
        self.act(sequence, verdict);
    }

    fn act(&mut self, sequence: u64, verdict: Verdict) {
        match verdict {
            Verdict::Stored => self.answer(sequence, Answer::Stored),
            Verdict::Failed => self.answer(sequence, Answer::Failed),
            Verdict::Again => panic!("only without numbers"),
            Verdict::Wait => {}
        }
    }

    fn answer_overdue(&mut self) {
        let open: Vec<u64> = self.requests.keys().copied().collect();
        for sequence in open {
            if self.choices.pick(2) == 1 {
                let possible = self.window.is_possible(sequence);
                self.answer(sequence, if possible { Answer::Unknown } else { Answer::Failed });
            }
        }
    }

    fn tell(&mut self, fates: Vec<(u64, Fate)>) {
        for (sequence, fate) in fates.into_iter().rev() {
            match fate {
                Fate::Stored => self.answer(sequence, Answer::Stored),
                Fate::Failed => self.answer(sequence, Answer::Failed),
                Fate::Unknown => self.answer(sequence, Answer::Unknown),
                Fate::Again => {
                    let records = self.requests.remove(&sequence).unwrap_or_default();
                    records.into_iter().rev().for_each(|record| self.waiting.push_front(record));
                }
            }
        }
    }

    fn answer(&mut self, sequence: u64, answer: Answer) {
        for record in self.requests.remove(&sequence).unwrap_or_default() {
            assert_eq!(self.answers.insert(record, answer), None, "{record} is answered twice");
        }
    }
}

fn run(choices: Vec<u8>, size: usize) {
    const RECORDS: u32 = 40;
    let mut world = World {
        choices: Choices(choices.into_iter()),
        window: Window::numbered(0, size),
        waiting: (0..RECORDS).collect(),
        requests: BTreeMap::new(),
        in_flight: BTreeMap::new(),
        lingering: Vec::new(),
        server: Server::default(),
        answers: BTreeMap::new(),
    };
    let mut steps = 0;
    while world.answers.len() < RECORDS as usize {
        world.step();
        steps += 1;
        assert!(steps < 20_000, "no end in sight: {:?}", world.window);
    }
    // Whatever is still under way must not change what was said. Requests that were given up as unknown may do so.
    while let Some(late) = world.lingering.pop() {
        world.server.append(&late);
    }
    let log = &world.server.log;
    assert!(log.is_sorted_by(|a, b| a < b), "out of order, or twice: {log:?}");
    for (record, answer) in &world.answers {
        match answer {
            Answer::Stored => assert!(log.contains(record), "{record} is lost"),
            Answer::Failed => assert!(!log.contains(record), "{record} failed and is stored"),
            Answer::Unknown => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_each_record_is_stored_once_in_order_or_said_not_to_be(
        choices in proptest::collection::vec(any::<u8>(), 0..1_500),
        size in 1_usize..=8,
    ) {
        run(choices, size);
    }
}
