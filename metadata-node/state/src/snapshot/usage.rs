//! The part of a snapshot that says what was used.

use std::io::{self, Write};

use super::frame::{Frame, PeriodRow, UsageRow};
use super::read::{Checked, require};
use super::write::Frames;
use crate::State;
use crate::usage::{Period, Reporter, Usage};

pub(super) fn write(usage: &Usage, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let Some(month) = usage.month else { return Ok(()) };
    let head = |period: &Period| PeriodRow { requests: period.requests, traffic: period.traffic };
    frames.put(&Frame::Usage(UsageRow { month, this: head(&usage.this), last: head(&usage.last) }))?;
    for (is_last, period) in [(false, &usage.this), (true, &usage.last)] {
        let rows = period.topics.iter().map(|(topic, traffic)| (is_last, *topic, *traffic));
        frames.put_rows(rows, Frame::TopicUsage)?;
        let rows = period.tokens.iter().map(|(token, traffic)| (is_last, token.clone(), *traffic));
        frames.put_rows(rows, Frame::TokenUsage)?;
    }
    let rows = usage.reporters().map(|(id, reporter)| (*id, reporter.number, reporter.at));
    frames.put_rows(rows, Frame::UsageReporters)
}

/// Takes in one of the frames that [`write`] puts.
pub(super) fn add(state: &mut State, frame: Frame) -> Checked {
    let State { usage, topics, tokens, log_time, .. } = state;
    let begun = usage.month.is_some();
    match frame {
        Frame::Usage(row) => {
            require(!begun, "usage twice")?;
            usage.month = Some(row.month);
            (usage.this.requests, usage.this.traffic) = (row.this.requests, row.this.traffic);
            (usage.last.requests, usage.last.traffic) = (row.last.requests, row.last.traffic);
            Ok(())
        }
        Frame::TopicUsage(rows) => rows.into_iter().try_for_each(|(is_last, topic, traffic)| {
            require(begun && topics.get(topic).is_some(), "usage of a topic that is not there")?;
            let period = if is_last { &mut usage.last } else { &mut usage.this };
            require(period.topics.insert(topic, traffic).is_none(), "usage of a topic twice")
        }),
        Frame::TokenUsage(rows) => rows.into_iter().try_for_each(|(is_last, token, traffic)| {
            require(begun && tokens.contains(&token), "usage of a token that is not there")?;
            let period = if is_last { &mut usage.last } else { &mut usage.this };
            require(period.tokens.insert(token, traffic).is_none(), "usage of a token twice")
        }),
        Frame::UsageReporters(rows) => rows.into_iter().try_for_each(|(id, number, at)| {
            require(begun && at <= *log_time, "a report of usage from the future")?;
            let restored = usage.restore_reporter(id, Reporter { number, at });
            require(restored, "reporters of usage out of order, or too many")
        }),
        _ => Err("not a frame of usage"),
    }
}
