//! Groups, and what is set for the whole cluster.

use std::collections::BTreeMap;

use carnax_core::http::{
    AlterSettingsRequest, CommitOffsetsRequest, CommitOffsetsResponse, DeletedGroupResponse,
    GroupOffsetsResponse, GroupResponse, GroupsResponse, LeftGroupResponse, OffsetResponse,
    PartitionOffsetResponse, ResetOffsetsRequest, ResetOffsetsResponse, ResetTo, SettingsResponse,
    TopicOffsetsResponse,
};
use carnax_core::id::PartitionIndex;
use carnax_core::metadata::{GroupSummary, MaintenanceDescription};
use carnax_core::name::{GroupName, MemberId};
use carnax_core::time::Timestamp;
use http::Method;

use super::{Admin, request};
use crate::error::RequestError;
use crate::raw::{parse_topic, percent_encoded};
use crate::transport::ApiRequest;

/// Groups and settings.
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), carnax::RequestError> {
/// use carnax::{ResetOffsetsRequest, ResetTo};
///
/// let admin = client.admin();
/// for group in admin.list_groups("billing").await? {
///     let offsets = admin.group_offsets(group.group.as_str(), &[]).await?;
///     println!("{}: {} members, {} records behind", group.group, group.members, offsets.lag);
/// }
/// let topics = vec!["orders".parse().expect("a topic name")];
/// let reset = ResetOffsetsRequest { topics, partitions: None, to: ResetTo::Earliest, dry_run: true };
/// for moved in admin.reset_group_offsets("billing", &reset).await?.offsets {
///     println!("{}/{}: {:?} to {}", moved.topic, moved.partition, moved.from, moved.to);
/// }
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// All groups whose names begin with `prefix`, in order of their names.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn list_groups(&self, prefix: &str) -> Result<Vec<GroupSummary>, RequestError> {
        if !prefix.is_empty() {
            parse_group(prefix)?;
        }
        let mut groups = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/groups?prefix={prefix}{after}");
            let page: GroupsResponse = self.send(&ApiRequest::new(Method::GET, path), true).await?.json()?;
            groups.extend(page.groups);
            match page.next_after {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(groups),
            }
        }
    }

    /// Describes a group: its members, what each holds, lets go of and waits for.
    ///
    /// # Errors
    /// `group_not_found`; any other [`RequestError`].
    pub async fn describe_group(&self, group: &str) -> Result<GroupResponse, RequestError> {
        self.send(&of_group(Method::GET, group, "")?, true).await?.json()
    }

    /// How far a group is: of these topics all partitions, or (with no topic named) all partitions of which something is
    /// committed. The lag is the sum over them, in records. A group that does not exist has no offsets.
    ///
    /// # Errors
    /// `topic_not_found`; any other [`RequestError`].
    pub async fn group_offsets(
        &self,
        group: &str,
        topics: &[&str],
    ) -> Result<GroupOffsetsResponse, RequestError> {
        let mut query = String::new();
        for topic in topics {
            query.push_str(if query.is_empty() { "?topic=" } else { "&topic=" });
            query.push_str(parse_topic(topic)?.as_str());
        }
        let mut all = GroupOffsetsResponse { offsets: Vec::new(), next_after: None, lag: 0 };
        let mut after = String::new();
        loop {
            let request = of_group(Method::GET, group, &format!("/offsets{query}{after}"))?;
            let page: GroupOffsetsResponse = self.send(&request, true).await?.json()?;
            all.offsets.extend(page.offsets);
            all.lag = all.lag.saturating_add(page.lag);
            let Some(next) = page.next_after else { return Ok(all) };
            let separator = if query.is_empty() { '?' } else { '&' };
            after = format!("{separator}after={}", percent_encoded(&next));
        }
    }

    /// Commits offsets, all or none. Without a member, the partitions must belong to none.
    ///
    /// Repeated when the outcome is unknown, unless an offset says what must be committed before (`from`): then the repeat
    /// might be refused although it was this request that moved it.
    ///
    /// # Errors
    /// `unknown_member` and `fenced` for the member; `not_owner`; `condition_failed` where `from` is something else, with
    /// the actual offset; `offset_above_high_watermark`; any other [`RequestError`].
    pub async fn commit_group_offsets(
        &self,
        group: &str,
        commit: &CommitOffsetsRequest,
    ) -> Result<CommitOffsetsResponse, RequestError> {
        let repeat_unknown = commit.offsets.iter().all(|entry| entry.from.is_none());
        let request = of_group(Method::POST, group, "/offsets")?.json(commit)?;
        self.send(&request, repeat_unknown).await?.json()
    }

    /// Moves the committed offsets of a group without members, or says how they would move.
    ///
    /// Repeated when the outcome is unknown, unless the offsets are shifted by a number of records.
    ///
    /// # Errors
    /// `group_not_empty`; `group_not_found`, `topic_not_found`, `partition_not_found`; any other [`RequestError`].
    pub async fn reset_group_offsets(
        &self,
        group: &str,
        reset: &ResetOffsetsRequest,
    ) -> Result<ResetOffsetsResponse, RequestError> {
        let repeat_unknown = reset.dry_run || !matches!(reset.to, ResetTo::ShiftBy(_));
        let request = of_group(Method::POST, group, "/offsets/reset")?.json(reset)?;
        self.send(&request, repeat_unknown).await?.json()
    }

    /// Deletes a group without members, with its offsets.
    ///
    /// Not repeated when the outcome is unknown: the name might mean another group by then.
    ///
    /// # Errors
    /// `group_not_found`, `group_not_empty`; any other [`RequestError`].
    pub async fn delete_group(&self, group: &str) -> Result<DeletedGroupResponse, RequestError> {
        self.send(&of_group(Method::DELETE, group, "")?, false).await?.json()
    }

    /// Expels a member, whatever its epoch; its partitions are free at once. Only for one that is known to be dead: a living
    /// one joins again, and what it did since its last commit is done twice.
    ///
    /// # Errors
    /// Any [`RequestError`]; a member that is not there is well.
    pub async fn remove_group_member(
        &self,
        group: &str,
        member: &str,
    ) -> Result<LeftGroupResponse, RequestError> {
        let member: MemberId = member.parse().map_err(RequestError::invalid)?;
        self.send(&of_group(Method::DELETE, group, &format!("/members/{member}"))?, true).await?.json()
    }

    /// The settings of the cluster, defaults included.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn settings(&self) -> Result<SettingsResponse, RequestError> {
        self.send(&ApiRequest::new(Method::GET, "/v1/cluster/settings"), true).await?.json()
    }

    /// How maintenance is getting on: what is due, who is at it, when it was last finished. Linearizable.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn maintenance(&self) -> Result<MaintenanceDescription, RequestError> {
        self.send(&ApiRequest::new(Method::GET, "/v1/cluster/maintenance"), true).await?.json()
    }

    /// Changes settings of the cluster; what is not mentioned stays, `None` brings a default back.
    ///
    /// # Errors
    /// `invalid_value`; any other [`RequestError`].
    pub async fn alter_settings(
        &self,
        change: &AlterSettingsRequest,
    ) -> Result<SettingsResponse, RequestError> {
        let request = ApiRequest::new(Method::PATCH, "/v1/cluster/settings").json(change)?;
        self.send(&request, true).await?.json()
    }

    /// For each partition of a topic the first offset whose record has this timestamp or a later one; the high watermark, and
    /// no timestamp, where there is none.
    ///
    /// # Errors
    /// `topic_not_found`; any other [`RequestError`].
    pub async fn offsets_for_times(
        &self,
        topic: &str,
        timestamp: Timestamp,
    ) -> Result<BTreeMap<PartitionIndex, OffsetResponse>, RequestError> {
        let request = request(Method::GET, topic, &format!("/offsets?at={timestamp}"))?;
        let found: TopicOffsetsResponse = self.send(&request, true).await?.json()?;
        let offset = |PartitionOffsetResponse { partition, offset, timestamp }| {
            (partition, OffsetResponse { offset, timestamp })
        };
        Ok(found.offsets.into_iter().map(offset).collect())
    }
}

fn of_group(method: Method, group: &str, tail: &str) -> Result<ApiRequest, RequestError> {
    Ok(ApiRequest::new(method, format!("/v1/groups/{}{tail}", parse_group(group)?)))
}

fn parse_group(group: &str) -> Result<GroupName, RequestError> {
    group.parse().map_err(RequestError::invalid)
}
