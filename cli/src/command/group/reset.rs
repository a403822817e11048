//! `carnax group reset`: moves offsets, or shows how they would move.

use std::time::Duration;

use carnax::{
    Admin, Offset, PartitionIndex, ResetOffset, ResetOffsetsRequest, ResetOffsetsResponse, ResetTo,
    Timestamp, TopicName,
};
use clap::Args;

use super::shown;
use crate::arguments::seconds;
use crate::output::{Output, say, table};

#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// Name of the group
    group: String,
    #[command(flatten)]
    target: Target,
    /// Only this topic; may be repeated [default: all that something is committed of]
    #[arg(long)]
    topic: Vec<TopicName>,
    /// Only this partition of each topic; may be repeated
    #[arg(long)]
    partition: Vec<u32>,
    /// Move the offsets, instead of only showing how they would move
    #[arg(long)]
    execute: bool,
}

/// Where to. What lies outside of a partition is moved to its nearest end.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// earliest, latest, an offset, or @ and milliseconds since 1970
    #[arg(long, value_name = "WHERE", value_parser = place)]
    to: Option<ResetTo>,
    /// The first records that are at most so many seconds old
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    ago: Option<Duration>,
    /// So many records further, or (below 0) back
    #[arg(long, value_name = "RECORDS", allow_negative_numbers = true)]
    shift_by: Option<i64>,
}

impl Reset {
    pub(crate) async fn run(self, admin: &Admin, out: &mut Output) -> anyhow::Result<()> {
        let Self { group, target, topic: topics, partition, execute } = self;
        let partitions = partition.into_iter().map(PartitionIndex).collect::<Vec<_>>();
        let partitions = Some(partitions).filter(|partitions| !partitions.is_empty());
        let reset = ResetOffsetsRequest { topics, partitions, to: target.place(), dry_run: !execute };
        let moved = admin.reset_group_offsets(&group, &reset).await?;
        out.show(&moved, moves)?;
        if !execute {
            say("nothing was changed: give --execute to move them");
        }
        Ok(())
    }
}

impl Target {
    fn place(&self) -> ResetTo {
        let ago = || self.ago.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
        // The parser sees to it that exactly one is given.
        self.to
            .or_else(|| ago().map(ResetTo::DurationMs))
            .or(self.shift_by.map(ResetTo::ShiftBy))
            .unwrap_or(ResetTo::ShiftBy(0))
    }
}

fn place(text: &str) -> Result<ResetTo, String> {
    match text {
        "earliest" => Ok(ResetTo::Earliest),
        "latest" => Ok(ResetTo::Latest),
        _ => match text.strip_prefix('@') {
            Some(millis) => millis
                .parse()
                .map(|millis| ResetTo::Timestamp(Timestamp::from_millis(millis)))
                .map_err(|_| "behind @ stand milliseconds since 1970".to_owned()),
            None => text
                .parse()
                .map(|offset| ResetTo::Offset(Offset(offset)))
                .map_err(|_| "earliest, latest, an offset, or @ and milliseconds".to_owned()),
        },
    }
}

fn moves(moved: &ResetOffsetsResponse) -> String {
    let heading = ["topic", "partition", "from", "to"].map(str::to_owned).to_vec();
    let row = |offset: &ResetOffset| {
        let (topic, partition) = (offset.topic.to_string(), offset.partition.to_string());
        vec![topic, partition, shown(offset.from), offset.to.to_string()]
    };
    table(&std::iter::once(heading).chain(moved.offsets.iter().map(row)).collect::<Vec<_>>())
}
