//! Sticky: members keep what they have, free partitions go to those who have least, and then partitions move from those
//! who have most to those who have least, one by one, until no move would make two members more alike.
//!
//! With equal subscriptions the result is balanced to within one and no other balanced result keeps more: a move takes from
//! a member above the upper quota or gives to one below the lower quota, and from and to both as long as there are both.
//! With unequal ones it is a result that no single move improves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use carnax_core::id::TopicPartition;

use super::{Input, Kind, partition_of};

pub(super) fn assign(input: &Input, mut kinds: Vec<Kind>) -> Vec<Vec<TopicPartition>> {
    // Who may get few things gets them first, so that who may get many makes up for it. The sort is stable.
    kinds.sort_by_key(|kind| kind.members.len());
    let mut sharing = Sharing::new(input, kinds);
    let free = sharing.keep();
    sharing.hand_out(free);
    sharing.even_out();
    sharing.held.into_iter().map(|kinds| kinds.into_values().flatten().collect()).collect()
}

struct Sharing<'a> {
    input: &'a Input,
    kinds: Vec<Kind>,
    /// What each member has, by kind; what it gives away first last.
    held: Vec<BTreeMap<usize, Vec<TopicPartition>>>,
    loads: Vec<usize>,
    /// For each subscription its members by load.
    by_load: Vec<BTreeSet<(usize, usize)>>,
}

impl<'a> Sharing<'a> {
    fn new(input: &'a Input, kinds: Vec<Kind>) -> Self {
        let members = input.members.len();
        let by_load = vec![BTreeSet::new(); input.subscriptions.len()];
        Self { input, kinds, held: vec![BTreeMap::new(); members], loads: vec![0; members], by_load }
    }

    /// Leaves members what they have and may have, each partition to the first that names it; gives what is free, by kind.
    fn keep(&mut self) -> Vec<Vec<TopicPartition>> {
        let Input { topics, subscriptions, members } = self.input;
        let mut kind_of = vec![None; topics.len()];
        for (kind, content) in self.kinds.iter().enumerate() {
            content.topics.iter().for_each(|topic| kind_of[*topic] = Some(kind));
        }
        let mut taken: Vec<Vec<bool>> =
            topics.iter().map(|(_, count)| vec![false; usize::try_from(*count).unwrap_or(0)]).collect();
        for (member, candidate) in members.iter().enumerate() {
            let subscribed = &subscriptions[candidate.subscription];
            for on in &candidate.current {
                let Ok(topic) = topics.binary_search_by_key(&on.topic, |(id, _)| *id) else { continue };
                let place = usize::try_from(on.partition.0).unwrap_or(usize::MAX);
                let Some(taken) = taken[topic].get_mut(place).filter(|taken| !**taken) else { continue };
                if subscribed.binary_search(&topic).is_ok()
                    && let Some(kind) = kind_of[topic]
                {
                    *taken = true;
                    self.held[member].entry(kind).or_default().push(*on);
                    self.loads[member] += 1;
                }
            }
        }
        let free_of = |topic: &usize| {
            let id = topics[*topic].0;
            let numbered = (0..).zip(&taken[*topic]);
            numbered.filter(|(_, taken)| !**taken).map(move |(partition, _)| partition_of(id, partition))
        };
        self.kinds.iter().map(|kind| kind.topics.iter().flat_map(free_of).collect()).collect()
    }

    /// Gives each free partition to the member that has least and may have it.
    fn hand_out(&mut self, free: Vec<Vec<TopicPartition>>) {
        for (kind, free) in free.into_iter().enumerate() {
            if free.is_empty() {
                continue;
            }
            let members = self.kinds[kind].members.iter();
            let mut least: BinaryHeap<_> =
                members.map(|member| Reverse((self.loads[*member], *member))).collect();
            for on in free {
                let Some(mut first) = least.peek_mut() else { break };
                let Reverse((load, member)) = &mut *first;
                self.held[*member].entry(kind).or_default().push(on);
                *load += 1;
                self.loads[*member] = *load;
            }
        }
    }

    /// Moves partitions until nobody could give one to a member that has two fewer. Each move makes the sum of the squares of
    /// the loads smaller, so it ends; a bound on the moves keeps even an odd web of subscriptions quick.
    fn even_out(&mut self) {
        for (member, candidate) in self.input.members.iter().enumerate() {
            self.by_load[candidate.subscription].insert((self.loads[member], member));
        }
        let mut moves_left = 4 * self.loads.iter().sum::<usize>();
        let mut moved = true;
        while moved {
            moved = false;
            // Who had nobody to give to may have somebody again after the others gave: then all are asked once more.
            let mut givers: BTreeSet<_> =
                self.loads.iter().enumerate().map(|(member, load)| (*load, Reverse(member))).collect();
            while let Some((load, Reverse(from))) = givers.pop_last() {
                let Some((kind, to)) = self.best_move(from) else { continue };
                if moves_left == 0 {
                    return;
                }
                moves_left -= 1;
                moved = true;
                let before = self.loads[to];
                self.move_one(kind, from, to);
                givers.insert((load - 1, Reverse(from)));
                if givers.remove(&(before, Reverse(to))) {
                    givers.insert((before + 1, Reverse(to)));
                }
            }
        }
    }

    /// To whom a member should give a partition of which kind; none if nobody who may have one has two fewer.
    fn best_move(&self, from: usize) -> Option<(usize, usize)> {
        let kinds = self.held[from].keys();
        let least = |kind: &usize| {
            let subscriptions = self.kinds[*kind].subscriptions.iter();
            let least = subscriptions.filter_map(|subscription| self.by_load[*subscription].first()).min()?;
            Some((*least, *kind))
        };
        let ((load, to), kind) = kinds.filter_map(least).min()?;
        (load + 2 <= self.loads[from]).then_some((kind, to))
    }

    fn move_one(&mut self, kind: usize, from: usize, to: usize) {
        let held = self.held[from].get_mut(&kind).expect("the kind was found among those held");
        let on = held.pop().expect("a kind that is held has a partition");
        if held.is_empty() {
            self.held[from].remove(&kind);
        }
        self.held[to].entry(kind).or_default().push(on);
        self.set_load(from, self.loads[from] - 1);
        self.set_load(to, self.loads[to] + 1);
    }

    fn set_load(&mut self, member: usize, load: usize) {
        let by_load = &mut self.by_load[self.input.members[member].subscription];
        by_load.remove(&(self.loads[member], member));
        by_load.insert((load, member));
        self.loads[member] = load;
    }
}
