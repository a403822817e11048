//! Who won which offset, against what conditions promise. Pure.

use anyhow::{Result, ensure};

/// A round in which several asked for the same offset, and the answer to each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// What each expected to be the next offset.
    pub expected: u64,
    /// The answers, by writer.
    pub answers: Vec<Decision>,
}

/// What became of a conditional append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Its record has this offset.
    Won(u64),
    /// Refused: this is the next offset.
    Lost(String),
}

/// Each round has one winner, at the offset that it expected; the others are told the next one; and the log holds the
/// winners' records, and nothing else.
///
/// # Errors
/// The first thing that is not so.
pub fn check(rounds: &[Round], log: &[(u64, usize)]) -> Result<()> {
    ensure!(rounds.len() == log.len(), "{} rounds, and {} records", rounds.len(), log.len());
    for (number, (round, record)) in rounds.iter().zip(log).enumerate() {
        let winners: Vec<usize> = (0..round.answers.len())
            .filter(|writer| matches!(round.answers[*writer], Decision::Won(_)))
            .collect();
        let [winner] = winners.as_slice() else {
            anyhow::bail!("round {number} has not one winner: {round:?}")
        };
        for answer in &round.answers {
            let right = match answer {
                Decision::Won(offset) => *offset == round.expected,
                Decision::Lost(actual) => *actual == (round.expected + 1).to_string(),
            };
            ensure!(right, "round {number} has a wrong answer: {round:?}");
        }
        ensure!(*record == (round.expected, *winner), "round {number}: {round:?}, but {record:?} is stored");
    }
    Ok(())
}

/// A writer took a partition over: everything of others must lie below the high watermark of that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// Who has the partition now.
    pub writer: usize,
    /// The high watermark when the token was set.
    pub high_watermark: u64,
}

/// Between two takeovers, only the writer that has the token writes.
///
/// # Errors
/// The first record of a writer that was fenced, or acknowledged records that are missing.
pub fn check_fencing(
    takeovers: &[Takeover],
    log: &[(u64, usize)],
    acknowledged: &[(u64, usize)],
) -> Result<()> {
    for record in log {
        let (offset, writer) = *record;
        let ruling = takeovers.iter().rev().find(|takeover| takeover.high_watermark <= offset);
        ensure!(
            ruling.is_none_or(|ruling| ruling.writer == writer),
            "writer {writer} wrote at {offset}, behind {ruling:?}"
        );
    }
    for record in acknowledged {
        ensure!(log.contains(record), "{record:?} was acknowledged and is missing");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Lost, Won};

    fn round(expected: u64, answers: &[Decision; 2]) -> Round {
        Round { expected, answers: answers.to_vec() }
    }

    #[test]
    fn two_winners_no_winner_and_a_wrong_loser_are_found() {
        let lost = |actual: u64| Lost(actual.to_string());
        let right = [round(0, &[Won(0), lost(1)]), round(1, &[lost(2), Won(1)])];
        assert!(check(&right, &[(0, 0), (1, 1)]).is_ok());
        assert!(check(&right, &[(0, 0), (1, 0)]).is_err());
        assert!(check(&right, &[(0, 0), (1, 1), (2, 1)]).is_err());
        for wrong in [[Won(0), Won(0)], [lost(1), lost(1)], [Won(0), lost(2)], [Won(1), lost(1)]] {
            assert!(check(&[round(0, &wrong)], &[(0, 0)]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_writer_that_gets_through_after_it_was_fenced_is_found() {
        let takeovers =
            [Takeover { writer: 0, high_watermark: 0 }, Takeover { writer: 1, high_watermark: 2 }];
        assert!(check_fencing(&takeovers, &[(0, 0), (1, 0), (2, 1)], &[(1, 0)]).is_ok());
        assert!(check_fencing(&takeovers, &[(0, 0), (1, 0), (2, 0)], &[]).is_err());
        assert!(check_fencing(&takeovers, &[(0, 1)], &[]).is_err());
        assert!(check_fencing(&takeovers, &[(0, 0)], &[(1, 0)]).is_err());
    }
}
