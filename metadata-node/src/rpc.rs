//! The calls that frontends and other nodes make, each handed to the [`Handle`] as it comes.

use std::time::Duration;

use carnax_core::metadata::{
    self, AddNode, AlterSettings, AlterToken, AlterTopic, CommitNotice, CommitOffsets, CommitSegments,
    CreateToken, CreateTopic, DeleteGroup, DeleteTopic, DeleteWakeup, DescribeCluster, DescribeFencingToken,
    DescribeGroup, DescribeMaintenance, DescribeProducer, DescribeSettings, DescribeTopic, FetchOffsets,
    FindDead, FindOrphans, FindToken, FinishCompaction, ForgetDead, Heartbeat, JoinGroup, LeaveGroup,
    ListGroups, ListTokens, ListTopics, ListWakeups, OpenSession, PlanCompaction, PlanFetch, PlanMerge,
    PlanPage, PutWakeup, RaiseProducerEpoch, RemoveNode, ReplaceByPage, ReplaceSlices, ReportJob,
    RevokeToken, SetFencingToken, TakeJob, TouchToken, TransferLeadership, TrimPartition, UpgradeCluster,
    WatchCommits,
};
use carnax_core::problem::Problem;
use carnax_platform::rpc::Router;
use futures::stream::{BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::handle::Handle;

/// How long a call works on its answer; clients give up later than that, so that they get the reason.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// All calls of this node.
pub(crate) fn router(handle: &Handle, shutdown: &CancellationToken) -> Router {
    let router = queries(Router::new(), handle, shutdown);
    let router = commands(router, handle);
    let router = guarantees(router, handle);
    let router = groups(router, handle);
    let router = wakeups(router, handle);
    let router = tokens(router, handle);
    let router = usage(router, handle);
    let router = jobs(router, handle);
    let router = manifests(router, handle);
    membership(router, handle)
}

/// Adds a call that one method of the handle answers.
macro_rules! unary {
    ($router:expr, $handle:expr, $request:ty, $method:ident) => {{
        let handle = $handle.clone();
        $router.unary(move |request: $request| {
            let handle = handle.clone();
            async move { handle.$method(request).await }
        })
    }};
}

fn queries(router: Router, handle: &Handle, shutdown: &CancellationToken) -> Router {
    let router = unary!(router, handle, PlanFetch, plan_fetch);
    let router = unary!(router, handle, DescribeTopic, describe_topic);
    let router = unary!(router, handle, ListTopics, list_topics);
    let (watching, shutdown) = (handle.clone(), shutdown.clone());
    router.server_stream(move |_: WatchCommits| {
        let stopped = shutdown.clone().cancelled_owned();
        let notices: BoxStream<'static, Result<CommitNotice, Problem>> =
            watching.watch_commits().take_until(stopped).boxed();
        async move { Ok(notices) }
    })
}

fn commands(router: Router, handle: &Handle) -> Router {
    let router = unary!(router, handle, OpenSession, open_session);
    let router = unary!(router, handle, CommitSegments, commit_segments);
    let router = unary!(router, handle, CreateTopic, create_topic);
    let router = unary!(router, handle, AlterTopic, alter_topic);
    let router = unary!(router, handle, DeleteTopic, delete_topic);
    unary!(router, handle, TrimPartition, trim_partition)
}

fn guarantees(router: Router, handle: &Handle) -> Router {
    let router = unary!(router, handle, RaiseProducerEpoch, raise_producer_epoch);
    let router = unary!(router, handle, DescribeProducer, describe_producer);
    let router = unary!(router, handle, SetFencingToken, set_fencing_token);
    let router = unary!(router, handle, DescribeFencingToken, describe_fencing_token);
    let router = unary!(router, handle, AlterSettings, alter_settings);
    unary!(router, handle, DescribeSettings, describe_settings)
}

fn groups(router: Router, handle: &Handle) -> Router {
    let router = unary!(router, handle, JoinGroup, join_group);
    let router = unary!(router, handle, Heartbeat, heartbeat);
    let router = unary!(router, handle, LeaveGroup, leave_group);
    let router = unary!(router, handle, CommitOffsets, commit_offsets);
    let router = unary!(router, handle, FetchOffsets, fetch_offsets);
    let router = unary!(router, handle, DescribeGroup, describe_group);
    let router = unary!(router, handle, ListGroups, list_groups);
    unary!(router, handle, DeleteGroup, delete_group)
}

fn wakeups(router: Router, handle: &Handle) -> Router {
    let router = unary!(router, handle, PutWakeup, put_wakeup);
    let router = unary!(router, handle, DeleteWakeup, delete_wakeup);
    unary!(router, handle, ListWakeups, list_wakeups)
}

fn tokens(router: Router, handle: &Handle) -> Router {
    let router = unary!(router, handle, CreateToken, create_token);
    let router = unary!(router, handle, AlterToken, alter_token);
    let router = unary!(router, handle, RevokeToken, revoke_token);
    let router = unary!(router, handle, TouchToken, touch_token);
    let router = unary!(router, handle, ListTokens, list_tokens);
    unary!(router, handle, FindToken, find_token)
}

fn usage(router: Router, handle: &Handle) -> Router {
    let router = unary!(router, handle, metadata::ReportUsage, report_usage);
    unary!(router, handle, metadata::DescribeUsage, describe_usage)
}

fn jobs(router: Router, handle: &Handle) -> Router {
    let router = unary!(router, handle, TakeJob, take_job);
    let router = unary!(router, handle, ReportJob, report_job);
    let router = unary!(router, handle, FindOrphans, find_orphans);
    let router = unary!(router, handle, PlanMerge, plan_merge);
    let router = unary!(router, handle, ReplaceSlices, replace_slices);
    let router = unary!(router, handle, PlanCompaction, plan_compaction);
    let router = unary!(router, handle, FinishCompaction, finish_compaction);
    let router = unary!(router, handle, PlanPage, plan_page);
    let router = unary!(router, handle, ReplaceByPage, replace_by_page);
    let router = unary!(router, handle, FindDead, find_dead);
    let router = unary!(router, handle, ForgetDead, forget_dead);
    unary!(router, handle, DescribeMaintenance, describe_maintenance)
}

fn manifests(router: Router, handle: &Handle) -> Router {
    let router = unary!(router, handle, metadata::ListManifests, list_manifests);
    let router = unary!(router, handle, metadata::ListPages, list_pages);
    unary!(router, handle, metadata::ListDead, list_dead)
}

fn membership(router: Router, handle: &Handle) -> Router {
    let describing = handle.clone();
    let router = router.unary(move |_: DescribeCluster| {
        let status = describing.cluster_status();
        async move { Ok(status) }
    });
    let router = unary!(router, handle, AddNode, add_node);
    let router = unary!(router, handle, RemoveNode, remove_node);
    let router = unary!(router, handle, TransferLeadership, transfer_leadership);
    unary!(router, handle, UpgradeCluster, upgrade_cluster)
}
