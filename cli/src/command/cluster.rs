//! `carnax cluster`: the metadata cluster, seen and changed.

mod usage;
mod verify;

use std::time::Duration;

use carnax::{
    AlterSettingsRequest, ClusterResponse, ClusterUpgraded, ConfigValue, JobDescription, JobKind,
    MaintenanceDescription, NodeId, SettingsResponse, Timestamp,
};
use carnax_core::metadata::NodeRole;
use clap::Subcommand;
use serde_json::json;

use crate::arguments::{Global, name_and_value};
use crate::output::{Output, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show nodes, leader and sizes
    Status,
    /// Let the empty metadata node that runs at an address in
    Add {
        /// Where its RPC listens, as HOST:PORT
        address: String,
        /// Leave it without a vote
        #[arg(long)]
        learner: bool,
    },
    /// Take a metadata node out; its id is never used again
    Remove {
        /// Id of the node
        node: u64,
    },
    /// Hand the leadership over
    TransferLeader {
        /// Id of the node that is to lead; without, any voter that is up to date
        #[arg(long, value_name = "NODE")]
        to: Option<u64>,
    },
    /// Raise the feature level, once every metadata node runs the new version; there is no way back but a backup
    Upgrade {
        /// To which level; by default the highest that the leader knows
        #[arg(long, value_name = "LEVEL")]
        to: Option<u32>,
        /// Only say what would happen; exit code 1 if something is in the way
        #[arg(long)]
        dry_run: bool,
    },
    /// Show how maintenance is getting on
    Maintenance,
    /// Show what was used this month and what it costs
    Usage(usage::Usage),
    /// Compare the bucket with the metadata, both ways; exit code 1 if something is wrong
    Verify(verify::Verify),
    /// Show the settings of the cluster, or change some
    Settings {
        /// Settings to change, such as idempotency.window.ms=3600000; none only shows all
        #[arg(value_name = "NAME=VALUE", value_parser = name_and_value)]
        set: Vec<(String, String)>,
        /// Setting to bring back to its default; may be repeated
        #[arg(long, value_name = "NAME")]
        reset: Vec<String>,
    },
}

impl Cluster {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let admin = global.client()?.admin();
        match self {
            Self::Usage(usage) => usage.run(&admin, out).await?,
            Self::Verify(verify) => Box::pin(verify.run(global, out)).await?,
            Self::Status => out.show(&admin.cluster().await?, describe)?,
            Self::Add { address, learner } => {
                admin.add_node(&address, !learner).await?;
                let document = json!({ "added": address, "promote": !learner });
                out.show(&document, |_| format!("added {address}\n"))?;
            }
            Self::Remove { node } => {
                admin.remove_node(NodeId(node)).await?;
                out.show(&json!({ "removed": node }), |_| format!("removed node {node}\n"))?;
            }
            Self::TransferLeader { to } => {
                admin.transfer_leadership(to.map(NodeId)).await?;
                let leader = admin.cluster().await?.metadata.leader;
                let document = json!({ "leader": leader });
                let name = leader.map_or("nobody yet".to_owned(), |leader| format!("node {leader}"));
                out.show(&document, |_| format!("leader is {name}\n"))?;
            }
            Self::Upgrade { to, dry_run } => {
                let upgraded = admin.upgrade_cluster(to, dry_run).await?;
                out.show(&upgraded, upgrade)?;
                out.flush()?;
                anyhow::ensure!(upgraded.lacking.is_empty(), "the feature level cannot be raised yet");
            }
            Self::Maintenance => out.show(&admin.maintenance().await?, maintenance)?,
            Self::Settings { set, reset } if set.is_empty() && reset.is_empty() => {
                out.show(&admin.settings().await?, settings)?;
            }
            Self::Settings { set, reset } => {
                let set = set.into_iter().map(|(name, value)| (name, Some(ConfigValue(value))));
                let reset = reset.into_iter().map(|name| (name, None));
                let change = AlterSettingsRequest { settings: set.chain(reset).collect() };
                out.show(&admin.alter_settings(&change).await?, settings)?;
            }
        }
        Ok(())
    }
}

fn upgrade(upgraded: &ClusterUpgraded) -> String {
    let ClusterUpgraded { from, to, lacking, raised, .. } = upgraded;
    let mut text = match (from == to, raised, lacking.is_empty()) {
        (true, ..) => format!("feature level {to} already\n"),
        (_, true, _) => format!("feature level {from} raised to {to}\n"),
        (_, false, true) => format!("feature level {from} can be raised to {to}\n"),
        (_, false, false) => format!("feature level {from} cannot be raised to {to} yet:\n"),
    };
    lacking.iter().for_each(|reason| text.push_str(&format!("  {reason}\n")));
    text
}

fn maintenance(all: &MaintenanceDescription) -> String {
    let ago = |time: Timestamp| format!("{} ago", span(all.log_time.since(time)));
    let heading = ["job", "state", "to do", "last finished"].map(str::to_owned).to_vec();
    let row = |job: &JobDescription| {
        let state = match (&job.worker, job.due_since, job.progress_percent) {
            (Some(worker), _, Some(percent)) => format!("{percent} % done by {worker}"),
            (Some(worker), _, None) => format!("{worker} is at it"),
            (None, Some(since), _) => format!("due for {}", span(all.log_time.since(since))),
            (None, None, _) => "not due".to_owned(),
        };
        let to_do = match job.job {
            JobKind::CollectDead => format!("{} dead objects", job.backlog),
            JobKind::Merge => format!("{} partitions with small slices", job.backlog),
            JobKind::CompactKeys => format!("{} partitions with old keys", job.backlog),
            JobKind::PageOut => format!("{} partitions with many slices", job.backlog),
            JobKind::CollectOrphans => {
                format!("objects younger than {}", span(all.log_time.since(job.done_until)))
            }
        };
        let finished = job.last_success.map_or("never".to_owned(), ago);
        vec![job.job.as_str().to_owned(), state, to_do, finished]
    };
    table(&std::iter::once(heading).chain(all.jobs.iter().map(row)).collect::<Vec<_>>())
}

/// In the largest unit of which there are two.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn settings(all: &SettingsResponse) -> String {
    all.settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn describe(cluster: &ClusterResponse) -> String {
    let metadata = &cluster.metadata;
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let mut text = format!(
        "cluster       {}\nleader        {}\nterm          {}\napplied       {}\nobject store  {}\n",
        or_unknown(metadata.cluster.map(|id| id.to_string())),
        or_unknown(metadata.leader.map(|id| format!("node {id}"))),
        metadata.term,
        metadata.applied,
        cluster.object_store,
    );
    text.push_str(&format!(
        "holds         {} topics, {} partitions, {} slices, {} segments\n\n",
        metadata.topics, metadata.partitions, metadata.slices, metadata.segments
    ));
    if let Some(node) = metadata.answered_by.filter(|_| metadata.disk_full) {
        text.push_str(&format!(
            "node {node}, which answered, has too little room on its disk: it takes no writes until there is more\n\n"
        ));
    }
    if let Some(level) = metadata.feature_level {
        let newer = metadata.feature_level_max.filter(|max| *max > level);
        let advice = newer.map_or(String::new(), |max| format!(" ({max} is known: carnax cluster upgrade)"));
        text.push_str(&format!("feature level {level}{advice}\n\n"));
    }
    let heading = ["node", "address", "role", "matched", "heard ms ago", "level"].map(str::to_owned).to_vec();
    let rows = metadata.nodes.iter().map(|node| {
        let role = match node.role {
            NodeRole::Voter if metadata.leader == Some(node.node) => "leader",
            NodeRole::Voter => "voter",
            NodeRole::Learner => "learner",
        };
        let dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        vec![
            node.node.to_string(),
            node.address.clone(),
            role.to_owned(),
            dash(node.matched.map(|index| index.to_string())),
            dash(node.last_heard_millis.map(|millis| millis.to_string())),
            dash(node.feature_level_max.map(|level| level.to_string())),
        ]
    });
    text.push_str(&table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()));
    text
}
