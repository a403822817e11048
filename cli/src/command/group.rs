//! `carnax group`: list, describe, offsets, commit, reset, remove-member, delete.

mod reset;

use anyhow::Context;
use carnax::{
    AssignedTopic, CommitOffsetsRequest, GroupOffsetResponse, GroupOffsetsResponse, GroupPhase,
    GroupResponse, GroupSummary, MemberResponse, Offset, OffsetEntry, PartitionIndex, TopicName,
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::arguments::Global;
use crate::output::{Output, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List groups
    List(List),
    /// Show a group with its members and what each holds, lets go of and waits for
    Describe(Named),
    /// Show how far a group is, and how far behind
    Offsets(Offsets),
    /// Commit offsets of partitions that no member owns
    Commit(Commit),
    /// Move the offsets of a group without members; only shows how, unless --execute is given
    Reset(reset::Reset),
    /// Expel a member that is known to be dead: its partitions are free at once
    RemoveMember(Member),
    /// Delete a group without members, with its offsets
    Delete(Named),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only groups whose names begin with this
    #[arg(long, default_value = "")]
    prefix: String,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Name of the group
    group: String,
}

#[derive(Debug, Args)]
pub(crate) struct Offsets {
    /// Name of the group
    group: String,
    /// Only this topic, with all its partitions; may be repeated
    #[arg(long)]
    topic: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Name of the group, which is made if there is none
    group: String,
    /// The next offset to read of a partition; several go in one commit, all or none
    #[arg(required = true, value_name = "TOPIC/PARTITION=OFFSET", value_parser = entry)]
    offsets: Vec<OffsetEntry>,
}

#[derive(Debug, Args)]
pub(crate) struct Member {
    /// Name of the group
    group: String,
    /// Id of the member
    member: String,
}

impl Group {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let admin = global.client()?.admin();
        match self {
            Self::List(List { prefix }) => {
                let groups = admin.list_groups(&prefix).await?;
                if out.is_json() {
                    for group in &groups {
                        out.json(group)?;
                    }
                } else {
                    out.bytes(list(&groups).as_bytes())?;
                }
            }
            Self::Describe(Named { group }) => out.show(&admin.describe_group(&group).await?, whole)?,
            Self::Offsets(Offsets { group, topic }) => {
                let topics: Vec<&str> = topic.iter().map(String::as_str).collect();
                out.show(&admin.group_offsets(&group, &topics).await?, offsets)?;
            }
            Self::Commit(Commit { group, offsets }) => {
                let count = offsets.len();
                let commit = CommitOffsetsRequest { member: None, epoch: None, number: None, offsets };
                let committed = admin.commit_group_offsets(&group, &commit).await?;
                out.show(&committed, |_| format!("committed {count} offsets of {group}\n"))?;
            }
            Self::Reset(reset) => reset.run(&admin, out).await?,
            Self::RemoveMember(Member { group, member }) => {
                let left = admin.remove_group_member(&group, &member).await?;
                out.show(&left, |left| match left.was_member {
                    true => format!("{member} is expelled from {group}\n"),
                    false => format!("{group} has no member {member}\n"),
                })?;
            }
            Self::Delete(Named { group }) => {
                let deleted = admin.delete_group(&group).await?;
                let document = json!({ "group": group, "offsets": deleted.offsets });
                out.show(&document, |_| format!("deleted {group} with {} offsets\n", deleted.offsets))?;
            }
        }
        Ok(())
    }
}

fn entry(text: &str) -> anyhow::Result<OffsetEntry> {
    let parts = text.split_once('=').and_then(|(on, offset)| Some((on.split_once('/')?, offset)));
    let ((topic, partition), offset) = parts.context("write TOPIC/PARTITION=OFFSET")?;
    Ok(OffsetEntry {
        topic: topic.parse::<TopicName>()?,
        topic_id: None,
        partition: PartitionIndex(partition.parse().context("a partition is a number from 0")?),
        offset: Some(Offset(offset.parse().context("an offset is a number from 0")?)),
        from: None,
        metadata: String::new(),
    })
}

fn list(groups: &[GroupSummary]) -> String {
    let row = |group: &GroupSummary| {
        let (members, offsets) = (group.members.to_string(), group.offsets.to_string());
        vec![group.group.to_string(), phase(group.phase).to_owned(), members, offsets]
    };
    let heading = ["group", "phase", "members", "offsets"].map(str::to_owned).to_vec();
    table(&std::iter::once(heading).chain(groups.iter().map(row)).collect::<Vec<_>>())
}

fn whole(group: &GroupResponse) -> String {
    let mut text = format!(
        "{}: {}, {} members, epoch {}, {} offsets\n",
        group.group,
        phase(group.phase),
        group.members.len(),
        group.epoch,
        group.offsets,
    );
    let heading =
        ["member", "epoch", "client", "holds", "lets go of", "waits for"].map(str::to_owned).to_vec();
    let row = |member: &MemberResponse| {
        vec![
            member.member.to_string(),
            member.epoch.to_string(),
            or_dash(member.client.clone()),
            partitions(&member.assignment),
            partitions(&member.releasing),
            partitions(&member.awaiting),
        ]
    };
    if !group.members.is_empty() {
        let rows: Vec<_> = std::iter::once(heading).chain(group.members.iter().map(row)).collect();
        text.push_str(&table(&rows));
    }
    text
}

fn offsets(offsets: &GroupOffsetsResponse) -> String {
    let heading = ["topic", "partition", "offset", "log start", "high watermark", "lag", "owner"];
    let row = |offset: &GroupOffsetResponse| {
        vec![
            offset.topic.to_string(),
            offset.partition.to_string(),
            shown(offset.offset),
            offset.log_start_offset.to_string(),
            offset.high_watermark.to_string(),
            offset.lag.to_string(),
            or_dash(offset.owner.as_ref().map(ToString::to_string).unwrap_or_default()),
        ]
    };
    let heading = heading.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(heading).chain(offsets.offsets.iter().map(row)).collect();
    format!("{}lag {}\n", table(&rows), offsets.lag)
}

fn phase(phase: GroupPhase) -> &'static str {
    match phase {
        GroupPhase::Empty => "empty",
        GroupPhase::Rebalancing => "rebalancing",
        GroupPhase::Stable => "stable",
    }
}

/// Partitions as `topic/0-3,7 other/1`.
fn partitions(topics: &[AssignedTopic]) -> String {
    let topic = |topic: &AssignedTopic| format!("{}/{}", topic.topic, ranges(&topic.partitions));
    or_dash(topics.iter().map(topic).collect::<Vec<_>>().join(" "))
}

/// Ascending numbers, neighbours drawn together.
fn ranges(partitions: &[PartitionIndex]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for partition in partitions {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(partition.0) => *last = partition.0,
            _ => runs.push((partition.0, partition.0)),
        }
    }
    let run = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

fn shown(offset: Option<Offset>) -> String {
    or_dash(offset.map(|offset| offset.to_string()).unwrap_or_default())
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_partitions_are_drawn_together() {
        let shown =
            |numbers: &[u32]| ranges(&numbers.iter().copied().map(PartitionIndex).collect::<Vec<_>>());
        assert_eq!((shown(&[]), shown(&[4])), (String::new(), "4".to_owned()));
        assert_eq!(shown(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn an_offset_to_commit_is_read_with_its_place() {
        let read = entry("flights/3=41").unwrap();
        assert_eq!((read.topic.as_str(), read.partition.0, read.offset), ("flights", 3, Some(Offset(41))));
        for wrong in ["flights=41", "flights/3", "flights/x=1", "flights/0=-1", "a b/0=1", "/0=1"] {
            assert!(entry(wrong).is_err(), "{wrong}");
        }
    }
}
