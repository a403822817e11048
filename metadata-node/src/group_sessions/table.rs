//! Which members of groups were heard when, on the leader's session clock. Pure: time arrives as an argument.
//!
//! ```text
//!  confirmed ticks     │     │     │           ╳     │     │          ╳: no quorum, or the node was paused
//!  session clock    ───┴─────┴─────┴── stands still ─┴─────┴───▶      each step at most STEP_MAX
//!                        ▲ heard: counts from the next tick on
//! ```
//!
//! Invariants:
//! - the session clock never runs faster than real time, and stands still over ticks that no quorum confirmed;
//! - a member is taken out only if it was silent for its whole session time on that clock;
//! - from the moment at which taking a member out is [proposed](SessionTable::pick) until the outcome is known, nobody may tell
//!   it that it lives.

use std::collections::BTreeMap;
use std::time::Duration;

use carnax_core::name::{GroupName, MemberId};
use carnax_metadata_state::answer::Session;

/// The most that one tick moves the session clock.
pub(crate) const STEP_MAX: Duration = Duration::from_millis(400);

/// A member at one epoch.
pub(crate) type Expelled = (GroupName, MemberId, u32);

/// The sessions of all members, at one leader.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    /// The leadership whose members these are.
    term: Option<u64>,
    /// Session time.
    clock: Duration,
    /// When the last tick was, if it was confirmed.
    confirmed_at: Option<Duration>,
    /// When the last confirmed tick was.
    last_confirmed: Duration,
    groups: BTreeMap<GroupName, BTreeMap<MemberId, Entry>>,
    /// Joins under way, which may change a session; until they are decided nobody judges it.
    joining: BTreeMap<(GroupName, MemberId), usize>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    epoch: u32,
    timeout: Duration,
    /// On the session clock.
    heard: Duration,
    fate: Fate,
}

/// Whether a member is being taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    /// Proposed; nobody knows yet.
    Proposed,
    /// Proposed before, with an unknown outcome: it can only be proposed again.
    Unknown,
}

/// What the table makes of a member that speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Its session begins anew.
    Noted,
    /// The table has no such session (yet): when it gets one, that begins later than now.
    NotThere,
    /// It is being taken out: what it is told must wait for the outcome.
    Leaving,
}

/// What became of taking members out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expulsion {
    /// They are out, or have another epoch.
    Done,
    /// Nothing happened, and nothing will.
    Refused,
    /// It may still happen.
    Unknown,
}

impl SessionTable {
    /// The leadership whose members these are; none before the first, and after the last.
    pub(crate) fn term(&self) -> Option<u64> {
        self.term
    }

    /// Whether there is nobody to watch.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.values().all(BTreeMap::is_empty)
    }

    /// When a quorum last confirmed a tick; none while there is nobody to watch.
    pub(crate) fn last_confirmed(&self) -> Option<Duration> {
        (!self.is_empty()).then_some(self.last_confirmed)
    }

    /// Begins to lead, now that the node can serve: every session starts afresh. What an earlier leadership proposed is
    /// decided by then, since the state is one that a quorum confirmed in this term.
    pub(crate) fn lead(&mut self, term: u64, sessions: impl Iterator<Item = Session>, now: Duration) {
        self.groups.clear();
        self.term = Some(term);
        (self.confirmed_at, self.last_confirmed) = (Some(now), now);
        self.sync(sessions);
    }

    /// Leads no longer; false if it did not before.
    pub(crate) fn follow(&mut self) -> bool {
        self.groups.clear();
        self.confirmed_at = None;
        self.term.take().is_some()
    }

    /// Time passed, and a quorum confirmed the leader after the tick before.
    pub(crate) fn tick(&mut self, now: Duration) {
        if let Some(before) = self.confirmed_at {
            self.clock += now.saturating_sub(before).min(STEP_MAX);
        }
        (self.confirmed_at, self.last_confirmed) = (Some(now), now);
    }

    /// There is nobody to watch, so that no quorum is asked.
    pub(crate) fn rest(&mut self, now: Duration) {
        (self.confirmed_at, self.last_confirmed) = (None, now);
    }

    /// Time passed without a quorum: it does not count, and neither does the time until the next tick.
    pub(crate) fn tick_unconfirmed(&mut self) {
        self.confirmed_at = None;
    }

    /// Takes over who is a member. New ones start now; those that are there go on, and their sessions only get longer: what
    /// was told last may be newer than this.
    pub(crate) fn sync(&mut self, sessions: impl Iterator<Item = Session>) {
        let mut before = std::mem::take(&mut self.groups);
        for Session { group, member, epoch, timeout } in sessions {
            let known = before.get_mut(&group).and_then(|members| members.remove(&member));
            let entry = match known.filter(|known| known.epoch == epoch) {
                Some(known) => Entry { timeout: known.timeout.max(timeout), ..known },
                None => self.fresh(epoch, timeout),
            };
            self.groups.entry(group).or_default().insert(member, entry);
        }
    }

    /// A member speaks. To be called before the state is read from which it is answered: whoever takes the member out
    /// later has counted this.
    pub(crate) fn hear(&mut self, group: &GroupName, member: &MemberId, epoch: u32) -> Heard {
        let heard = self.clock + STEP_MAX;
        match self.entry(group, member) {
            Some(entry) if entry.epoch != epoch => Heard::NotThere,
            Some(entry) if entry.fate != Fate::Lives => Heard::Leaving,
            Some(entry) => {
                entry.heard = heard;
                Heard::Noted
            }
            None => Heard::NotThere,
        }
    }

    /// A member is about to be told that it lives and how long its session is, after it was [heard](Self::hear). False if that
    /// is not sure any more and it must be heard again.
    #[must_use]
    pub(crate) fn tell(
        &mut self,
        group: &GroupName,
        member: &MemberId,
        epoch: u32,
        timeout: Duration,
        heard: Heard,
    ) -> bool {
        match self.entry(group, member).filter(|entry| entry.epoch == epoch) {
            Some(entry) if entry.fate == Fate::Lives => {
                entry.timeout = entry.timeout.max(timeout);
                true
            }
            Some(_) => false,
            // Taken out in between, unless it was not there before.
            None => heard == Heard::NotThere,
        }
    }

    /// Somebody joins: nobody judges the session until [`joined`](Self::joined). False if the member is being taken out:
    /// that is to be waited for.
    #[must_use]
    pub(crate) fn join(&mut self, group: &GroupName, member: &MemberId) -> bool {
        if self.entry(group, member).is_some_and(|entry| entry.fate != Fate::Lives) {
            return false;
        }
        *self.joining.entry((group.clone(), member.clone())).or_default() += 1;
        true
    }

    /// A join is decided, with this epoch and session, or given up. Either way the member was heard.
    pub(crate) fn joined(&mut self, group: &GroupName, member: &MemberId, session: Option<(u32, Duration)>) {
        let key = (group.clone(), member.clone());
        if let Some(count) = self.joining.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.joining.remove(&key);
            }
        }
        match session {
            Some((epoch, timeout)) if self.term.is_some() => {
                let entry = self.fresh(epoch, timeout);
                self.groups.entry(key.0).or_default().insert(key.1, entry);
            }
            _ => {
                let heard = self.clock + STEP_MAX;
                if let Some(entry) = self.entry(group, member) {
                    entry.heard = heard;
                }
            }
        }
    }

    /// The members that are to be proposed as gone now, at most so many. Until [`settle`](Self::settle) they are
    /// [leaving](Heard::Leaving).
    pub(crate) fn pick(&mut self, count_max: usize) -> Vec<Expelled> {
        let mut picked = Vec::new();
        for (group, members) in &mut self.groups {
            for (member, entry) in members {
                let silent = self.clock.saturating_sub(entry.heard);
                if entry.fate == Fate::Lives {
                    if silent <= entry.timeout || self.joining.contains_key(&(group.clone(), member.clone()))
                    {
                        continue;
                    }
                    entry.fate = Fate::Proposed;
                }
                picked.push((group.clone(), member.clone(), entry.epoch));
                if picked.len() == count_max {
                    return picked;
                }
            }
        }
        picked
    }

    /// Takes in what became of the members that were [picked](Self::pick).
    pub(crate) fn settle(&mut self, picked: &[Expelled], expulsion: Expulsion) {
        for (group, member, epoch) in picked {
            let Some(members) = self.groups.get_mut(group) else { continue };
            let Some(entry) = members.get_mut(member).filter(|entry| entry.epoch == *epoch) else { continue };
            match (expulsion, entry.fate) {
                (Expulsion::Done, _) => {
                    members.remove(member);
                }
                (Expulsion::Refused, Fate::Proposed) => entry.fate = Fate::Lives,
                // The proposal before this one is still out.
                (Expulsion::Refused, _) => {}
                (Expulsion::Unknown, _) => entry.fate = Fate::Unknown,
            }
        }
    }

    fn entry(&mut self, group: &GroupName, member: &MemberId) -> Option<&mut Entry> {
        self.groups.get_mut(group)?.get_mut(member)
    }

    /// The tick before was up to one step ago: counting from the next one, no session is cut short by that.
    fn fresh(&self, epoch: u32, timeout: Duration) -> Entry {
        Entry { epoch, timeout, heard: self.clock + STEP_MAX, fate: Fate::Lives }
    }
}

#[cfg(test)]
mod tests;
