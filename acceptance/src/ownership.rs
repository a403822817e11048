//! Who held which partition when, and what they did, against what the groups promise. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};

/// A partition of one of the topics that a group reads, counted over all of them.
pub type Place = usize;

/// One stretch of time in which one member holds one partition: no two stretches have the same number.
pub type Tenure = u64;

/// What the members of a group noted, all by one clock.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// Who held what.
    pub holds: Vec<Hold>,
    /// What was accepted of what they did.
    pub acts: Vec<Act>,
}

/// A member held a partition: at least from the answer that gave it until it let go, or its session was over by its own clock.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Which.
    pub place: Place,
    /// Which member, with its epoch.
    pub owner: String,
    /// Which time that is.
    pub tenure: Tenure,
    /// Since when.
    pub from: Duration,
    /// Not any more.
    pub until: Duration,
}

/// A commit or an output of a tenure was accepted, at some moment between sending and answer.
#[derive(Debug, Clone)]
pub struct Act {
    /// Of which partition.
    pub place: Place,
    /// In the name of which member, with its epoch.
    pub owner: String,
    /// In which time of it.
    pub tenure: Tenure,
    /// Before it was sent for the first time.
    pub sent: Duration,
    /// After it was answered.
    pub answered: Duration,
    /// The committed offset that an output moved on by one; none for a commit that moved nothing.
    pub moved: Option<u64>,
}

/// One output, as it stands in the log of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Who wrote it.
    pub tenure: Tenure,
    /// Of which input.
    pub input: u64,
}

/// No partition was held by two at once, and nothing of one was accepted while another held the partition all the time.
///
/// # Errors
/// The first breach.
pub fn check(notes: &Notes) -> Result<()> {
    let mut holds: BTreeMap<Place, Vec<&Hold>> = BTreeMap::new();
    for hold in &notes.holds {
        holds.entry(hold.place).or_default().push(hold);
    }
    for (place, holds) in &mut holds {
        holds.sort_by_key(|hold| (hold.from, hold.until));
        for pair in holds.windows(2) {
            let [before, after] = pair else { continue };
            ensure!(
                before.until <= after.from,
                "partition {place} is held by two at once: {before:?} and {after:?}"
            );
        }
    }
    for act in &notes.acts {
        let others = holds.get(&act.place).into_iter().flatten().filter(|hold| hold.owner != act.owner);
        for hold in others {
            ensure!(
                act.sent < hold.from || hold.until < act.answered,
                "{act:?} was accepted while another held the partition: {hold:?}"
            );
        }
    }
    Ok(())
}

/// The outputs of each partition are one for each input, in order; tenures do not mix; what was acknowledged is there.
///
/// # Errors
/// The first breach.
pub fn check_outputs(notes: &Notes, outputs: &BTreeMap<Place, Vec<Output>>) -> Result<()> {
    for (place, outputs) in outputs {
        let mut over = BTreeSet::new();
        for (expected, (number, output)) in (0_u64..).zip(outputs.iter().enumerate()) {
            ensure!(
                output.input == expected,
                "partition {place}: {output:?} stands where {expected} follows"
            );
            let Some(before) = number.checked_sub(1).and_then(|before| outputs.get(before)) else { continue };
            if before.tenure != output.tenure {
                over.insert(before.tenure);
            }
            ensure!(
                !over.contains(&output.tenure),
                "partition {place}: {output:?} stands behind outputs of later owners"
            );
        }
    }
    for act in &notes.acts {
        let Some(input) = act.moved else { continue };
        let there = outputs.get(&act.place).and_then(|outputs| outputs.get(usize::try_from(input).ok()?));
        let wanted = Output { tenure: act.tenure, input };
        ensure!(there == Some(&wanted), "{act:?} was accepted, and {there:?} is found");
    }
    Ok(())
}

/// What members hold now is everything, each partition once, and nobody has two more than another.
///
/// # Errors
/// The first thing that is not so.
pub fn check_balance(held: &BTreeMap<String, BTreeSet<Place>>, places: usize) -> Result<()> {
    let mut owners: BTreeMap<Place, &String> = BTreeMap::new();
    for (member, held) in held {
        for place in held {
            let other = owners.insert(*place, member);
            ensure!(other.is_none(), "partition {place} is held by {member} and by {other:?}");
        }
    }
    ensure!(owners.keys().copied().eq(0..places), "only {} of {places} partitions are held", owners.len());
    let sizes = || held.values().map(BTreeSet::len);
    let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    ensure!(most - least <= 1, "one member holds {most} partitions, another {least}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(tenure: Tenure, from: u64, until: u64) -> Hold {
        let (from, until) = (Duration::from_secs(from), Duration::from_secs(until));
        Hold { place: 0, owner: tenure.to_string(), tenure, from, until }
    }

    fn act(tenure: Tenure, sent: u64, answered: u64, moved: Option<u64>) -> Act {
        let (sent, answered) = (Duration::from_secs(sent), Duration::from_secs(answered));
        Act { place: 0, owner: tenure.to_string(), tenure, sent, answered, moved }
    }

    fn notes(holds: &[Hold], acts: &[Act]) -> Notes {
        Notes { holds: holds.to_vec(), acts: acts.to_vec() }
    }

    #[test]
    fn a_partition_that_two_hold_at_once_is_found() {
        assert!(check(&notes(&[hold(1, 0, 5), hold(2, 5, 9)], &[])).is_ok());
        assert!(check(&notes(&[hold(2, 4, 9), hold(1, 0, 5)], &[])).is_err());
        assert!(check(&notes(&[hold(1, 0, 9), hold(2, 3, 4)], &[])).is_err());
        let elsewhere = Hold { place: 1, ..hold(2, 0, 5) };
        assert!(check(&notes(&[hold(1, 0, 5), elsewhere], &[])).is_ok());
    }

    #[test]
    fn an_act_of_one_who_cannot_own_is_found() {
        let holds = [hold(1, 0, 5), hold(2, 5, 9)];
        for accepted in [act(1, 1, 2, None), act(1, 4, 6, None), act(2, 6, 7, None), act(1, 9, 10, None)] {
            assert!(check(&notes(&holds, std::slice::from_ref(&accepted))).is_ok(), "{accepted:?}");
        }
        for wrong in [act(1, 6, 7, None), act(2, 1, 2, Some(3)), act(1, 5, 9, None)] {
            assert!(check(&notes(&holds, std::slice::from_ref(&wrong))).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_doubled_a_lost_and_a_late_output_are_found() {
        let log = |outputs: &[(Tenure, u64)]| -> BTreeMap<Place, Vec<Output>> {
            let output = |(tenure, input): &(Tenure, u64)| Output { tenure: *tenure, input: *input };
            [(0, outputs.iter().map(output).collect())].into()
        };
        let right = notes(&[], &[act(1, 0, 1, Some(1)), act(2, 2, 3, Some(2))]);
        assert!(check_outputs(&right, &log(&[(1, 0), (1, 1), (2, 2), (3, 3)])).is_ok());
        for wrong in [
            log(&[(1, 0), (1, 1), (1, 1), (2, 2)]),
            log(&[(1, 0), (1, 1), (2, 3)]),
            log(&[(1, 0), (1, 1), (2, 2), (1, 3)]),
            log(&[(1, 0), (1, 1)]),
            log(&[(1, 0), (2, 1), (2, 2)]),
        ] {
            assert!(check_outputs(&right, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn missing_doubled_and_unfair_assignments_are_found() {
        let held = |members: &[&[Place]]| -> BTreeMap<String, BTreeSet<Place>> {
            let member =
                |(number, held): (usize, &&[Place])| (number.to_string(), held.iter().copied().collect());
            members.iter().enumerate().map(member).collect()
        };
        assert!(check_balance(&held(&[&[0, 2], &[1]]), 3).is_ok());
        for wrong in [held(&[&[0], &[1]]), held(&[&[0, 1], &[1, 2]]), held(&[&[0, 1, 2], &[]])] {
            assert!(check_balance(&wrong, 3).is_err(), "{wrong:?}");
        }
    }
}
